//! `echo`: what an event with an ack costs, and how long the ack takes, while some are under way all the time.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use tokio::task::spawn_local;

use crate::acks::{Acks, Window};
use crate::client::{self, Connection};
use crate::options::{self, Options, number};
use crate::report::Report;

/// The mode's name.
pub const NAME: &str = "echo";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Events that are acked", "5").args([
        number("clients", "50", "How many connections"),
        number("in-flight", "10", "Events of each that wait for their ack at any time"),
        number("payload", "64", "Characters that each event carries and its ack brings back"),
    ])
}

/// Keeps the events in flight, and counts their acks.
///
/// # Errors
/// The clients cannot connect, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let target = options.target("/bench");
    let connections = client::open_all(&target, options.number("clients")).await?;
    let (acks, in_flight) = (Acks::new(options, target.prefix()), options.number("in-flight"));
    for connection in connections {
        let acks = Rc::clone(&acks);
        spawn_local(async move { acks.check(echo(connection, &acks, in_flight).await) });
    }
    acks.measure(options).await
}

async fn echo(mut connection: Connection, acks: &Rc<Acks>, in_flight: usize) -> io::Result<()> {
    let mut window = Window::new(acks);
    window.send(in_flight, |event| connection.push(event));
    while !window.is_empty() {
        let mut acked = 0;
        let mut packet = Some(connection.next().await?);
        let now = Instant::now();
        while let Some(bytes) = packet {
            acked += usize::from(window.receive(bytes, now));
            packet = connection.buffered()?;
        }
        if !acks.stopped() {
            // As many in one write as were acked in one read, so that a server's batches stay batches.
            window.send(acked, |event| connection.push(event));
        }
    }
    Ok(())
}
