//! syncwatch

pub mod auth;
pub mod cli;
pub mod config;
pub mod http;
pub mod id;
pub mod password;
pub mod store;
pub mod sync;
pub mod telemetry;

#[cfg(test)]
mod testing;
