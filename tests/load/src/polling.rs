//! `polling`: what an event with an ack costs over HTTP long polling, with one connection for polls and one for posts.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use clap::Command;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::acks::{Acks, Window};
use crate::client::{Packet, Target, unexpected};
use crate::http::HttpConnection;
use crate::options::{self, Options, number};
use crate::report::Report;

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
    let (acks, in_flight) = (Acks::new(options, target.prefix()), options.number("in-flight"));
    let clients = stream::iter(0..options.number("clients"))
        .map(|number| open(&target, number, &acks))
        .buffered(OPENING_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    for (session, polls, posts) in clients {
        let (polling, acks) = (Rc::clone(&session), Rc::clone(&acks));
        spawn_local(async move { acks.check(polling.poll(polls).await) });
        let acks = Rc::clone(&session.acks);
        spawn_local(async move { acks.check(session.post(posts, in_flight).await) });
    }
    acks.measure(options).await
}

/// Begins a session, joins the namespace, and returns the connections for polls and for posts too.
async fn open(
    target: &Target,
    number: usize,
    acks: &Rc<Acks>,
) -> io::Result<(Rc<Session>, HttpConnection, HttpConnection)> {
    let mut polls = HttpConnection::open(target, number).await?;
    let mut posts = HttpConnection::open(target, number).await?;
    let transport = format!("{}?EIO=4&transport=polling", target.path);
    let open = polls.get(&transport).await?;
    let open = open.strip_prefix(b"0").and_then(|json| serde_json::from_slice::<Value>(json).ok());
    let sid = open.as_ref().and_then(|open| open["sid"].as_str());
    let sid = sid.ok_or_else(|| unexpected("an open packet without sid".to_owned()))?;
    let path = format!("{transport}&sid={sid}");
    posts.post(&path, &format!("40{}", target.prefix())).await?;
    let window = RefCell::new(Window::new(acks));
    let session = Session { path, acks: Rc::clone(acks), window, pinged: Cell::default(), acked: Notify::new() };
    let mut joined = false;
    while !joined {
        for packet in packets(polls.get(&session.path).await?) {
            match packet {
                b"2" => session.pinged.set(true),
                b"6" => {}
                packet if matches!(Packet::parse(packet), Packet::Connect(_)) => joined = true,
                other => {
                    let answer = String::from_utf8_lossy(other);
                    return Err(unexpected(format!("joining was answered with {answer}")));
                }
            }
        }
    }
    Ok((Rc::new(session), polls, posts))
}

/// What the polls and the posts of a session know together.
struct Session {
    /// Path and query of its requests.
    path: String,
    acks: Rc<Acks>,
    window: RefCell<Window>,
    /// Whether a ping has to be answered.
    pinged: Cell<bool>,
    /// All that was posted is acked.
    acked: Notify,
}

impl Session {
    async fn post(&self, mut posts: HttpConnection, in_flight: usize) -> io::Result<()> {
        let mut body = String::new();
        while !self.acks.stopped() {
            body.clear();
            if self.pinged.take() {
                body.push_str("3\x1e");
            }
            self.window.borrow_mut().send(in_flight, |event| {
                write!(body, "{event}\x1e").expect("a string takes all that is written");
            });
            body.pop(); // a separator stands between packets only
            posts.post(&self.path, &body).await?;
            self.acked.notified().await;
        }
        Ok(())
    }

    async fn poll(&self, mut polls: HttpConnection) -> io::Result<()> {
        loop {
            let body = polls.get(&self.path).await?;
            let now = Instant::now();
            let mut window = self.window.borrow_mut();
            for packet in packets(body) {
                match packet {
                    b"2" => self.pinged.set(true),
                    b"6" => {}
                    packet => {
                        if window.receive(packet, now) && window.is_empty() {
                            self.acked.notify_one();
                        }
                    }
                }
            }
        }
    }
}

/// The packets of a body.
fn packets(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\x1e')
}

/// Keeps a server busy, and below the backlog of any with two connections each.
const OPENING_AT_ONCE: usize = 32;
