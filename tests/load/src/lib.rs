//! Measures a Socket.IO server from outside: what it costs, how fast it is, and whether it loses anything.
//!
//! Each mode is a module with `command`, its options, and `run`, which measures once. They share the connection
//! ([`client`]), the counting and the report ([`report`]), the options all have ([`options`]) and what the kernel
//! says of the server's process ([`proc`]).
//!
//! All of a generator runs on one thread, so that one core is what it takes, and cells are all its tasks need to count.

pub mod acks;
pub mod avalanche;
pub mod bulk;
pub mod cast;
pub mod churn;
pub mod client;
pub mod echo;
pub mod http;
pub mod idle;
pub mod jitter;
pub mod options;
pub mod polling;
pub mod proc;
pub mod report;
pub mod room;
