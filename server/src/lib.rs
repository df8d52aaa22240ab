//! syncwatch

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod http;
pub mod id;
mod incident;
pub mod limit;
pub mod password;
pub mod redis;
pub mod state;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod text;

#[cfg(test)]
mod testing;
