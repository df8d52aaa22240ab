//! Private database servers for tests: on free ports, in directories of their own, gone with the test.

mod certificates;
mod postgres;
mod process;
mod redis;

use std::io;
use std::process::Command;

pub use postgres::Postgres;
pub use redis::{Redis, RedisCluster};

/// Runs a program to its end and answers what it prints.
fn finish(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(io::Error::other);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}: {}", output.status, said.trim())))
}
