//! `echo`: what an event with an ack costs, and how long the ack takes, while some are under way all the time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use tokio::task::spawn_local;

use crate::client::{self, Connection, Packet};
use crate::options::{self, Options, number};
use crate::report::{Meter, Report};

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
    let (meter, outstanding) = (Rc::new(Meter::default()), Rc::new(Cell::new(0)));
    for connection in connections {
        let client = Client {
            connection,
            prefix: target.prefix(),
            payload: "x".repeat(options.number("payload")),
            sent: VecDeque::new(),
            next_id: 0,
            meter: Rc::clone(&meter),
            outstanding: Rc::clone(&outstanding),
        };
        spawn_local(client.run(options.number("in-flight")));
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || outstanding.get()).await;
    Ok(report)
}

struct Client {
    connection: Connection,
    prefix: String,
    payload: String,
    /// When the events were sent that wait for their ack; the last has the id before `next_id`.
    sent: VecDeque<Instant>,
    next_id: u64,
    meter: Rc<Meter>,
    outstanding: Rc<Cell<u64>>,
}

impl Client {
    async fn run(mut self, in_flight: usize) {
        if let Err(error) = self.echo(in_flight).await {
            self.meter.error(format_args!("cut off: {error}"));
        }
    }

    async fn echo(&mut self, in_flight: usize) -> io::Result<()> {
        self.send(in_flight);
        while !self.sent.is_empty() {
            let acks = self.receive().await?;
            if !self.meter.stopped() {
                self.send(acks); // as many in one write as came in one read, so that a server's batches stay batches
            }
        }
        Ok(())
    }

    fn send(&mut self, events: usize) {
        let now = Instant::now();
        for _ in 0..events {
            let Self { connection, prefix, payload, next_id, .. } = self;
            connection.push(format_args!("42{prefix}{next_id}[\"echo\",\"{payload}\"]"));
            self.next_id += 1;
            self.sent.push_back(now);
        }
        self.outstanding.set(self.outstanding.get() + events as u64);
    }

    /// Writes what is to be sent, and takes the acks of one read.
    async fn receive(&mut self) -> io::Result<usize> {
        let mut acks = 0;
        let mut now = None;
        let mut packet = Some(self.connection.next().await?);
        while let Some(bytes) = packet {
            let expected = self.next_id - self.sent.len() as u64;
            // The array's brackets and the string's quotes are four more.
            let size = self.payload.len() + 4;
            if !matches!(Packet::parse(bytes), Packet::Ack { id, data } if id == expected && data.len() == size) {
                self.meter.error(format_args!("not ack {expected}: {}", String::from_utf8_lossy(bytes)));
            }
            if let Some(sent) = self.sent.pop_front() {
                self.meter.wait(*now.get_or_insert_with(Instant::now) - sent);
                acks += 1;
            }
            packet = self.connection.buffered()?;
        }
        self.meter.count(acks);
        self.outstanding.set(self.outstanding.get() - acks);
        Ok(acks as usize)
    }
}
