//! `bulk`: how much goes through a server that echoes large events, some of them under way all the time: what it costs,
//! and how much memory the server needs for what waits.

use std::io;

use clap::Command;

use crate::echo;
use crate::options::{self, Options, number};
use crate::report::{Report, round};

/// The mode's name.
pub const NAME: &str = "bulk";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Large events that are acked", "5").args([
        number("clients", "4", "How many connections"),
        number("in-flight", "100", "Events of each that wait for their ack at any time"),
        number("payload", "20000", "Characters that each event carries and its ack brings back"),
    ])
}

/// Does what [`echo::run`] does, and adds what a bulk is measured by: payload that came back, by time and by CPU time of
/// the server, in units of 1,000,000 bytes a second, and the most memory that the server has had since it started.
///
/// # Errors
/// The clients cannot connect, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let mut report = echo::run(options).await?;
    let megabytes = (report.operations * options.number("payload") as u64) as f64 / 1e6;
    let peak = options.server().peak_rss_kib()? as f64 / 1024.0;
    let figures = [
        ("goodput_mb_per_second", megabytes / report.elapsed.as_secs_f64()),
        ("goodput_mb_per_cpu_second", megabytes / report.cpu.as_secs_f64()),
        ("peak_rss_mib", peak),
    ];
    report.more.extend(figures.map(|(name, figure)| (name.to_owned(), round(figure).into())));
    Ok(report)
}
