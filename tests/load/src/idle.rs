//! `idle`: what connections cost that do nothing, in memory and, for their heartbeats, in CPU time.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use clap::Command;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::client;
use crate::options::{self, Options, number};
use crate::report::{Memory, Meter, Report, progress};

/// The mode's name.
pub const NAME: &str = "idle";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Memory and heartbeats of connections that do nothing", "10").arg(number(
        "clients",
        "10000",
        "How many connections",
    ))
}

/// Opens the connections, and watches the server while they idle.
///
/// # Errors
/// They cannot be opened, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let (clients, server) = (options.number("clients"), options.server());
    let before = server.rss_kib()?;
    progress(format_args!("opening {clients} connections"));
    let connections = client::open_all(&options.target("/bench"), clients).await?;
    sleep(SETTLING).await;
    let after = server.rss_kib()?;
    let meter = Rc::new(Meter::default());
    for mut connection in connections {
        let meter = Rc::clone(&meter);
        spawn_local(async move {
            match connection.next().await {
                Ok(packet) => meter.error(format_args!("idle, and got {}", String::from_utf8_lossy(packet))),
                Err(error) => meter.error(format_args!("idle, and cut off: {error}")),
            }
        });
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || 0).await;
    report.memory = Some(Memory { before, after, connections: clients });
    report.add_idle_cpu(clients);
    Ok(report)
}

/// What opening leaves behind is freed by then.
const SETTLING: Duration = Duration::from_secs(1);
