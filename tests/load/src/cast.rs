//! `cast`: what it costs to bring an event to every member of a room, and how long until the last has it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::client::{self, Connection, Packet};
use crate::options::{self, Options, number};
use crate::report::{Meter, Report, progress};

/// The mode's name.
pub const NAME: &str = "cast";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Broadcasts to rooms, each room's next one when all members have the one before", "5").args(
        [
            number("rooms", "10", "How many rooms"),
            number("members", "100", "Connections in each room, of which one sends"),
            number("payload", "64", "Characters of what is sent"),
        ],
    )
}

/// Keeps one broadcast of each room under way, and counts deliveries.
///
/// # Errors
/// The clients cannot connect or join, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let (rooms, members) = (options.number("rooms"), options.number("members"));
    let target = options.target("/bench");
    let prefix = target.prefix();
    progress(format_args!("opening {} connections", rooms * members));
    let mut connections = client::open_all(&target, rooms * members).await?;
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.push(format_args!("42{prefix}0[\"join\",\"room {}\"]", number / members));
        connection.flush().await?;
    }
    for connection in &mut connections {
        let packet = connection.next().await?;
        if !matches!(Packet::parse(packet), Packet::Ack { id: 0, .. }) {
            let answer = String::from_utf8_lossy(packet);
            return Err(io::Error::other(format!("joining was answered with {answer}")));
        }
    }
    let meter = Rc::new(Meter::default());
    let payload = "x".repeat(options.number("payload"));
    let event = format!("[\"cast\",\"{payload}\"]");
    let rooms = (0..rooms).map(|_| Rc::new(Room::new(members))).collect::<Vec<_>>();
    for (number, connection) in connections.into_iter().enumerate() {
        let room = Rc::clone(&rooms[number / members]);
        let member = Member { connection, room, received: 0, event_bytes: event.len(), meter: Rc::clone(&meter) };
        let cast = (number % members == 0).then(|| format!("42{prefix}{event}"));
        spawn_local(member.run(cast));
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || rooms.iter().map(|room| room.missing.get() as u64).sum()).await;
    Ok(report)
}

/// A room with one broadcast under way.
struct Room {
    members: usize,
    casts: Cell<u64>,
    sent: Cell<Instant>,
    /// Members that have not got the latest broadcast.
    missing: Cell<usize>,
    complete: Notify,
}

impl Room {
    fn new(members: usize) -> Self {
        let sent = Cell::new(Instant::now());
        Self { members, casts: Cell::new(0), sent, missing: Cell::new(0), complete: Notify::new() }
    }
}

struct Member {
    connection: Connection,
    room: Rc<Room>,
    received: u64,
    event_bytes: usize,
    meter: Rc<Meter>,
}

impl Member {
    /// Receives, and sends too if it is given what.
    async fn run(mut self, cast: Option<String>) {
        let end = match cast {
            Some(cast) => self.send(&cast).await,
            None => self.receive_all().await,
        };
        if let Err(error) = end {
            self.meter.error(format_args!("cut off: {error}"));
        }
    }

    async fn receive_all(&mut self) -> io::Result<()> {
        loop {
            self.receive().await?;
        }
    }

    async fn send(&mut self, cast: &str) -> io::Result<()> {
        let room = Rc::clone(&self.room);
        while !self.meter.stopped() {
            room.casts.set(room.casts.get() + 1);
            room.missing.set(room.members);
            room.sent.set(Instant::now());
            self.connection.push(cast);
            loop {
                tokio::select! {
                    biased;
                    () = room.complete.notified() => break,
                    received = self.receive() => received?,
                }
            }
        }
        self.receive_all().await
    }

    /// Writes what is to be sent, and takes one packet.
    async fn receive(&mut self) -> io::Result<()> {
        let packet = self.connection.next().await?;
        self.received += 1;
        let Self { room, meter, event_bytes, .. } = self;
        let whole = matches!(Packet::parse(packet), Packet::Event { id: None, data } if data.len() == *event_bytes);
        if !whole || self.received != room.casts.get() {
            meter.error(format_args!("not the event: {}", String::from_utf8_lossy(packet)));
            return Ok(());
        }
        meter.count(1);
        room.missing.set(room.missing.get() - 1);
        if room.missing.get() == 0 {
            meter.wait(room.sent.get().elapsed());
            room.complete.notify_one();
        }
        Ok(())
    }
}
