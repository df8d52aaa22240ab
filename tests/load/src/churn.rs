//! `churn`: what it costs to let a client in and out again.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use tokio::task::spawn_local;

use crate::client::{Connection, Target};
use crate::options::{self, Options, number};
use crate::report::{Meter, Report};

/// The mode's name.
pub const NAME: &str = "churn";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Connections that join the namespace and close again", "5").arg(number(
        "concurrency",
        "16",
        "How many connections there are at a time",
    ))
}

/// Keeps connections coming and going, and counts those that are gone.
///
/// # Errors
/// The server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let concurrency = options.number("concurrency");
    let (meter, target) = (Rc::new(Meter::default()), Rc::new(options.target("/bench")));
    let open = Rc::new(Cell::new(0));
    for first in 0..concurrency {
        let (meter, target, open) = (Rc::clone(&meter), Rc::clone(&target), Rc::clone(&open));
        spawn_local(async move {
            for number in (first..).step_by(concurrency).take_while(|_| !meter.stopped()) {
                let start = Instant::now();
                open.set(open.get() + 1);
                if let Err(error) = come_and_go(&target, number).await {
                    meter.error(format_args!("connection {number}: {error}"));
                    break;
                }
                open.set(open.get() - 1);
                meter.count(1);
                meter.wait(start.elapsed());
            }
        });
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || open.get()).await;
    Ok(report)
}

async fn come_and_go(target: &Target, number: usize) -> io::Result<()> {
    Connection::open(target, "", number).await?.close().await
}
