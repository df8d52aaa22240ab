//! Private database servers for tests: on free ports, in directories of their own, gone with the test.

mod postgres;

pub use postgres::Postgres;
