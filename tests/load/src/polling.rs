//! `polling`: what an event with an ack costs over HTTP long polling, with one connection for polls and one for posts.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::client::{Packet, Target, unexpected};
use crate::http::HttpConnection;
use crate::options::{self, Options, number};
use crate::report::{Meter, Report};

/// The mode's name.
pub const NAME: &str = "polling";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Events that are acked, over long polling", "5").args([
        number("clients", "50", "How many sessions"),
        number("in-flight", "10", "Events that each posts at a time; the next ones follow when all are acked"),
        number("payload", "64", "Characters that each event carries and its ack brings back"),
    ])
}

/// Posts events, polls for their acks, and counts these.
///
/// # Errors
/// The clients cannot connect, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let target = options.target("/bench");
    let clients = stream::iter(0..options.number("clients"))
        .map(|number| Client::open(&target, number))
        .buffered(OPENING_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let meter = Rc::new(Meter::default());
    let (in_flight, payload) = (options.number("in-flight"), "x".repeat(options.number("payload")));
    let sessions = clients.into_iter().map(|client| client.start(&meter, in_flight, &payload)).collect::<Vec<_>>();
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || sessions.iter().map(|session| session.awaited.get()).sum()).await;
    Ok(report)
}

/// A session that has joined the namespace.
struct Client {
    /// Path and query of its requests.
    path: String,
    prefix: String,
    polls: HttpConnection,
    posts: HttpConnection,
}

impl Client {
    async fn open(target: &Target, number: usize) -> io::Result<Self> {
        let mut polls = HttpConnection::open(target, number).await?;
        let mut posts = HttpConnection::open(target, number).await?;
        let transport = format!("{}?EIO=4&transport=polling", target.path);
        let open = polls.get(&transport).await?;
        let open = open.strip_prefix(b"0").and_then(|json| serde_json::from_slice::<Value>(json).ok());
        let sid = open.as_ref().and_then(|open| open["sid"].as_str());
        let sid = sid.ok_or_else(|| unexpected("an open packet without sid".to_owned()))?;
        let (path, prefix) = (format!("{transport}&sid={sid}"), target.prefix());
        posts.post(&path, &format!("40{prefix}")).await?;
        let answer = polls.get(&path).await?;
        if !matches!(Packet::parse(answer), Packet::Connect(_)) {
            return Err(unexpected(format!("joining was answered with {}", String::from_utf8_lossy(answer))));
        }
        Ok(Self { path, prefix, polls, posts })
    }

    fn start(self, meter: &Rc<Meter>, in_flight: usize, payload: &str) -> Rc<Session> {
        let session = Rc::new(Session {
            path: self.path,
            prefix: self.prefix,
            meter: Rc::clone(meter),
            payload: payload.to_owned(),
            next_id: Cell::new(0),
            awaited: Cell::new(0),
            sent: Cell::new(Instant::now()),
            pinged: Cell::new(false),
            acked: Notify::new(),
        });
        let (polling, posting) = (Rc::clone(&session), Rc::clone(&session));
        spawn_local(async move { polling.check(polling.poll(self.polls).await) });
        spawn_local(async move { posting.check(posting.post(self.posts, in_flight as u64).await) });
        session
    }
}

/// What the polls and the posts of a session know together.
struct Session {
    path: String,
    prefix: String,
    payload: String,
    meter: Rc<Meter>,
    next_id: Cell<u64>,
    /// Acks that have not come; the last of them has the id before `next_id`.
    awaited: Cell<u64>,
    sent: Cell<Instant>,
    pinged: Cell<bool>,
    acked: Notify,
}

impl Session {
    fn check(&self, end: io::Result<()>) {
        if let Err(error) = end {
            self.meter.error(format_args!("cut off: {error}"));
        }
    }

    async fn post(&self, mut posts: HttpConnection, in_flight: u64) -> io::Result<()> {
        let Self { path, prefix, payload, .. } = self;
        let mut body = String::new();
        while !self.meter.stopped() {
            body.clear();
            if self.pinged.take() {
                body.push_str("3\x1e");
            }
            let ids = self.next_id.get()..self.next_id.get() + in_flight;
            for id in ids.clone() {
                let separator = if id == ids.start { "" } else { "\x1e" };
                write!(body, "{separator}42{prefix}{id}[\"echo\",\"{payload}\"]").expect("a string takes all");
            }
            self.next_id.set(ids.end);
            self.awaited.set(in_flight);
            self.sent.set(Instant::now());
            posts.post(path, &body).await?;
            self.acked.notified().await;
        }
        Ok(())
    }

    async fn poll(&self, mut polls: HttpConnection) -> io::Result<()> {
        loop {
            let body = polls.get(&self.path).await?;
            let latency = self.sent.get().elapsed();
            for packet in body.split(|byte| *byte == SEPARATOR) {
                match packet {
                    b"2" => self.pinged.set(true),
                    b"6" => {}
                    packet => self.on_ack(packet, latency),
                }
            }
        }
    }

    fn on_ack(&self, packet: &[u8], latency: std::time::Duration) {
        let awaited = self.awaited.get();
        let expected = self.next_id.get() - awaited;
        // The array's brackets and the string's quotes are four more.
        let size = self.payload.len() + 4;
        let right = matches!(Packet::parse(packet), Packet::Ack { id, data } if id == expected && data.len() == size);
        if awaited == 0 || !right {
            return self.meter.error(format_args!("not ack {expected}: {}", String::from_utf8_lossy(packet)));
        }
        self.meter.count(1);
        self.meter.wait(latency);
        self.awaited.set(awaited - 1);
        if awaited == 1 {
            self.acked.notify_one();
        }
    }
}

/// What stands between the packets of a body.
const SEPARATOR: u8 = 0x1e;

/// Keeps a server busy, and below the backlog of any with two connections each.
const OPENING_AT_ONCE: usize = 32;
