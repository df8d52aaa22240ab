//! The events of a namespace in a Redis stream: one order for all instances.
//!
//! An instance adds its events to the stream and sends to its own sockets what it reads there, as all others do. So every
//! socket of every instance is sent the same events in the same order, and a place in the stream says what a client has.
//! Whoever has lost its connection to Redis reads on where it was.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, RedisResult, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::connection::Connection;
use super::link::Link;
use super::losses::AWAY;
use super::message::{Dropped, Heard, NOT_UNDERSTOOD, Say};
use super::sharded::Sharded;
use super::{RedisConfig, Subscription};
use crate::server::adapter::{Local, Outgoing, Position, Target};
use crate::server::socket::SocketId;

const APPEND: &str = include_str!("append.lua");

/// Most events that are added together, and most of their bytes, beyond the first.
const BATCH: (usize, usize) = (256, 1 << 20);
/// Most events that are read together.
const READ: usize = 256;
/// How long a read waits for events.
const BLOCK: Duration = Duration::from_secs(1);
/// How long an answer to a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(6);
/// How often what is not needed any more is taken out of the stream, and how long it is left for those who are behind.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);
const TRIM_DELAY: Duration = Duration::from_secs(10);
/// Entries beyond those that are needed, for those who are behind.
const SPARE_ENTRIES: usize = 100_000;
/// The pause after something has failed, and that between two looks whether Redis takes events again.
const PAUSE: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer than an event what is to come behind it may wait.
const MARGIN: Duration = Duration::from_secs(1);
/// Most instances whose last number is remembered: more than a stream can hold events of at a time, unless instances
/// begin anew all the time.
const MAX_WRITERS: usize = 10_000;

/// The stream of one namespace.
pub(super) struct Stream {
    local: Local,
    link: Arc<Link>,
    codec: Sharded,
    key: String,
    /// By what this instance tells its own events from those of others.
    uid: Box<str>,
    max_entries: usize,
    max_message_bytes: usize,
    max_queued_bytes: usize,
    /// How long an event may wait for Redis.
    patience: Duration,
    queue: Mutex<Queue>,
    grown: Notify,
    emptied: Notify,
    begun: watch::Sender<bool>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// The number of the last event.
    last: u64,
    /// Events up to this number have been sent to the sockets of this instance without waiting for Redis any longer.
    given_up: u64,
    /// Redis has kept events waiting for too long.
    away: bool,
    /// The number of the last event that has been read.
    placed: u64,
    /// What is to be run behind events.
    behind: VecDeque<Behind>,
}

/// What is to be run once the event of a number has been sent to the sockets of this instance, or its time is up.
struct Behind {
    number: u64,
    due: Instant,
    then: Box<dyn FnOnce() + Send>,
}

impl Queue {
    /// Events up to a number are in the stream.
    fn forget(&mut self, number: u64) {
        while let Some(first) = self.waiting.front()
            && first.number <= number
        {
            self.bytes -= first.data.len();
            self.waiting.pop_front();
        }
    }
}

/// An event on its way to Redis.
struct Waiting {
    number: u64,
    data: Bytes,
    packet: Outgoing,
    target: Target,
    since: Instant,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Stream {
    /// `None` where recovery is off, or there is no randomness.
    pub(super) fn new(local: &Local, link: &Arc<Link>, config: &RedisConfig) -> Option<Self> {
        let max_entries = local.recovery()?.max_packets.saturating_add(SPARE_ENTRIES);
        let uid: Box<str> = SocketId::random()?.as_str().into();
        Some(Self {
            codec: Sharded::new(&config.prefix, local.name(), &uid, Subscription::Static),
            key: format!("{}-stream#{}#", config.prefix, local.name()),
            local: local.clone(),
            link: Arc::clone(link),
            uid,
            max_entries,
            max_message_bytes: config.max_message_bytes,
            max_queued_bytes: config.max_queued_bytes,
            patience: config.request_timeout,
            queue: Mutex::default(),
            grown: Notify::new(),
            emptied: Notify::new(),
            begun: watch::Sender::new(false),
        })
    }

    /// Becomes true when this instance knows the events of before its start.
    pub(super) fn begun(&self) -> watch::Receiver<bool> {
        self.begun.subscribe()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event; it is sent to the sockets of this instance when it is read.
    pub(super) fn append(&self, packet: &Outgoing, target: &Target) {
        let encoded = self.codec.encode(Say::Broadcast { packet, target }).map(|(_, data)| data);
        let mut queue = self.queue();
        let lost = match &encoded {
            None => Some("they cannot be encoded"),
            Some(data) if data.len() > self.max_message_bytes => Some("they are too large"),
            Some(_) if queue.away => Some(AWAY),
            Some(data) if queue.bytes.saturating_add(data.len()) > self.max_queued_bytes => {
                self.give_up(&mut queue);
                Some(AWAY)
            }
            Some(_) => None,
        };
        match (encoded, lost) {
            (Some(data), None) => {
                queue.last += 1;
                queue.bytes += data.len();
                let (packet, target) = (packet.clone(), target.clone());
                let number = queue.last;
                queue.waiting.push_back(Waiting { number, data: data.into(), packet, target, since: Instant::now() });
                drop(queue);
                self.grown.notify_one();
            }
            (_, lost) => {
                self.link.losses().count(1, lost.unwrap_or_default());
                // Under the lock, so that the order is that of the calls.
                self.local.broadcast(packet, target);
                drop(queue);
                self.go_on();
            }
        }
    }

    /// Sends what waits to the sockets of this instance, and to nobody else.
    fn give_up(&self, queue: &mut Queue) {
        queue.away = true;
        queue.bytes = 0;
        queue.given_up = queue.last;
        let waiting = std::mem::take(&mut queue.waiting);
        self.link.losses().count(waiting.len() as u64, AWAY);
        for Waiting { packet, target, .. } in waiting {
            self.local.broadcast(&packet, &target);
        }
        self.emptied.notify_waiters();
        self.grown.notify_one();
    }

    /// Runs something once every event added so far has been sent to the sockets of this instance, or has had its time.
    pub(super) fn when_placed(self: &Arc<Self>, then: Box<dyn FnOnce() + Send>) {
        let mut queue = self.queue();
        if queue.placed.max(queue.given_up) >= queue.last {
            drop(queue);
            return then();
        }
        let (number, due) = (queue.last, Instant::now() + self.patience + MARGIN);
        queue.behind.push_back(Behind { number, due, then });
        drop(queue);
        let stream = Arc::downgrade(self);
        self.link.runtime().spawn(async move {
            sleep_until(due).await;
            if let Some(stream) = stream.upgrade() {
                stream.go_on();
            }
        });
    }

    /// Runs what was to come behind events.
    fn go_on(&self) {
        let now = Instant::now();
        let due: Vec<Behind> = {
            let mut queue = self.queue();
            let done = queue.placed.max(queue.given_up);
            let due = queue.behind.partition_point(|behind| behind.number <= done || behind.due <= now);
            queue.behind.drain(..due).collect()
        };
        due.into_iter().for_each(|behind| (behind.then)());
    }

    /// Events that are not on their way to Redis any more have been read, or never will be.
    fn placed_all(&self) {
        {
            let mut queue = self.queue();
            queue.placed = queue.waiting.front().map_or(queue.last, |first| first.number - 1);
        }
        self.go_on();
    }

    /// Waits until no event is on its way to Redis.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.queue().waiting.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Adds events to the stream, for ever.
    pub(super) async fn write(self: Arc<Self>) {
        loop {
            if self.queue().away {
                self.come_back().await;
            }
            let grown = self.grown.notified();
            let oldest = self.queue().waiting.front().map(|oldest| oldest.since);
            let Some(oldest) = oldest else {
                grown.await;
                continue;
            };
            let batch = self.batch();
            let written = timeout_at(oldest + self.patience, async {
                loop {
                    let mut connection = self.link.connected().await;
                    match connection.run::<()>(&self.append_all(&batch)).await {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(%error, "Redis does not take events"),
                    }
                    sleep(PAUSE).await;
                }
            });
            let written = written.await.is_ok();
            let mut queue = self.queue();
            if !written {
                self.give_up(&mut queue);
                drop(queue);
                self.go_on();
                continue;
            }
            let last = batch.last().map_or(0, |(number, _)| *number);
            queue.forget(last);
            if queue.waiting.is_empty() {
                self.emptied.notify_waiters();
            }
        }
    }

    /// The events that are next, with their numbers.
    fn batch(&self) -> Vec<(u64, Bytes)> {
        let queue = self.queue();
        let mut bytes = 0;
        let events = queue.waiting.iter().take(BATCH.0).take_while(|waiting| {
            let first = bytes == 0;
            bytes += waiting.data.len();
            first || bytes <= BATCH.1
        });
        events.map(|waiting| (waiting.number, waiting.data.clone())).collect()
    }

    fn append_all(&self, events: &[(u64, Bytes)]) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let command = pipeline.cmd("EVAL").arg(APPEND).arg(1).arg(&self.key).arg(self.max_entries).arg(&*self.uid);
        for (number, data) in events {
            command.arg(*number).arg(&data[..]);
        }
        command.ignore();
        pipeline
    }

    /// Waits until Redis takes a write.
    async fn come_back(&self) {
        // Nothing but an entry tells whether there may be entries. Readers pass over this one.
        let mut write = Pipeline::new();
        write
            .cmd("XADD")
            .arg(&self.key)
            .arg("MAXLEN")
            .arg("~")
            .arg(self.max_entries)
            .arg("*")
            .arg("probe")
            .arg("")
            .ignore();
        loop {
            let mut connection = self.link.connected().await;
            match timeout(self.patience, connection.run::<()>(&write)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::debug!(%error, "Redis takes no events yet"),
                Err(_late) => tracing::debug!("Redis takes no events yet: it does not answer"),
            }
            sleep(LOOK_INTERVAL).await;
        }
        self.queue().away = false;
    }

    /// Reads the stream, for ever.
    pub(super) async fn read(self: Arc<Self>) {
        let mut reader = Reader {
            stream: &self,
            at: Position::default(),
            is_anchored: false,
            has_begun: false,
            writers: HashMap::new(),
            fails: false,
        };
        loop {
            let Err(error) = reader.follow().await;
            // Nobody gets anything meanwhile, so somebody has to know.
            if std::mem::replace(&mut reader.fails, true) {
                tracing::debug!(%error, "the events of the cluster cannot be read yet");
            } else {
                tracing::warn!(%error, "the events of the cluster cannot be read; they wait in Redis");
            }
            sleep(PAUSE).await;
        }
    }
}

/// What Redis knows of a stream.
struct Facts {
    newest: Position,
    /// Everything behind this is there.
    floor: Position,
}

struct Reader<'a> {
    stream: &'a Stream,
    /// Everything up to here has been read.
    at: Position,
    /// There was an entry at that position.
    is_anchored: bool,
    /// It is known where the stream begins.
    has_begun: bool,
    /// The last number of each instance.
    writers: HashMap<Box<str>, u64>,
    /// Nothing has been read since the last failure.
    fails: bool,
}

impl Reader<'_> {
    async fn follow(&mut self) -> RedisResult<Infallible> {
        let Stream { local, link, key, .. } = self.stream;
        let mut connection = link.connect_to_read(READ_TIMEOUT).await?;
        let Facts { newest, floor } = facts(&mut connection, key).await?;
        if !std::mem::replace(&mut self.has_begun, true) {
            local.begin(floor);
            self.at = floor;
        }
        // What was not needed any more, and when.
        let mut floors = VecDeque::from([(Instant::now(), floor)]);
        loop {
            let (entries, is_complete) = if self.is_anchored {
                read_on(&mut connection, key, self.at).await?
            } else {
                (read(&mut connection, key, self.at).await?, true)
            };
            if !is_complete {
                // Once, until there is another entry to go on from.
                self.is_anchored = false;
                self.stream.placed_all();
                link.losses().count(1, "it has lost events before they were read");
                local.events_lost();
            }
            if entries.is_empty() {
                self.begin();
                wait(&mut connection, key, self.at).await?;
            }
            for (id, fields) in entries {
                let Ok(position) = id.parse::<Position>() else { continue };
                if position > newest {
                    self.begin();
                }
                (self.at, self.is_anchored) = (position, true);
                self.take(position, fields);
                // It may have gone to thousands.
                tokio::task::yield_now().await;
            }
            self.fails = false;
            if floors.back().is_none_or(|(at, _)| at.elapsed() >= TRIM_INTERVAL)
                && let Some(floor) = local.floor()
            {
                floors.push_back((Instant::now(), floor));
            }
            if let Some((at, floor)) = floors.front()
                && at.elapsed() >= TRIM_DELAY
            {
                let mut trim = Pipeline::new();
                trim.cmd("XTRIM").arg(key).arg("MINID").arg("~").arg(floor.to_string()).ignore();
                connection.run::<()>(&trim).await?;
                floors.pop_front();
            }
        }
    }

    /// What was there before is read; once.
    fn begin(&self) {
        let begun = *self.stream.begun.borrow();
        if !begun {
            self.stream.local.begun();
            self.stream.begun.send_replace(true);
        }
    }

    /// Takes an entry: which instance wrote it, which of its events it is, and the event.
    fn take(&mut self, position: Position, fields: Vec<Vec<u8>>) {
        let mut of: HashMap<&[u8], &[u8]> =
            fields.chunks_exact(2).map(|field| (&field[0][..], &field[1][..])).collect();
        let mut text = |name: &str| str::from_utf8(of.remove(name.as_bytes())?).ok();
        let (uid, number) = (text("uid"), text("number").and_then(|number| number.parse::<u64>().ok()));
        let (Some(uid), Some(number), Some(data)) = (uid, number, of.remove(&b"data"[..])) else {
            tracing::debug!("an entry of the stream is none of ours");
            return;
        };
        // Added twice, since nobody knew whether the first time was one.
        let known = self.writers.get(uid).copied().unwrap_or(0);
        if number <= known {
            return;
        }
        if known == 0 && self.writers.len() >= MAX_WRITERS {
            self.writers.clear();
        }
        self.writers.insert(uid.into(), number);
        if *uid != *self.stream.uid {
            let deliver = *self.stream.begun.borrow();
            return self.stream.place(position, data, deliver);
        }
        let deliver = {
            // From here on it cannot be given up any more.
            let mut queue = self.stream.queue();
            queue.forget(number);
            number > queue.given_up
        };
        self.stream.place(position, data, deliver);
        let is_awaited = {
            let mut queue = self.stream.queue();
            queue.placed = number;
            !queue.behind.is_empty()
        };
        if is_awaited {
            self.stream.go_on();
        }
    }
}

impl Stream {
    fn place(&self, position: Position, data: &[u8], deliver: bool) {
        let too_large = data.len() > self.max_message_bytes;
        let heard = if too_large { Err(Dropped::Lost("it is too large")) } else { self.codec.decode(data) };
        let packet = match heard {
            Ok((_, Heard::Broadcast { event, target })) => Outgoing::forward(self.local.name(), None, event)
                .map(|packet| (packet, target))
                .map_err(|_| Dropped::Lost("no event")),
            Ok(_) => Err(Dropped::Lost("no broadcast")),
            Err(dropped) => Err(dropped),
        };
        match packet {
            Ok((packet, target)) => self.local.place(position, &packet, &target, deliver),
            Err(Dropped::Foreign(why) | Dropped::Lost(why)) => {
                tracing::debug!(why, "an event of the stream was dropped");
                self.link.losses().count(1, NOT_UNDERSTOOD);
                // Those who come back are not to take it for delivered.
                self.local.events_lost();
            }
        }
    }
}

/// An entry of a stream: its id, then names and values of its fields.
type Entry = (String, Vec<Vec<u8>>);

/// Reads what is behind a position.
async fn read(connection: &mut Connection, key: &str, after: Position) -> RedisResult<Vec<Entry>> {
    connection.call(cmd("XRANGE").arg(key).arg(format!("({after}")).arg("+").arg("COUNT").arg(READ)).await
}

/// Reads what is behind an entry; false where that is gone and others may be with it, since there were too many or the
/// stream is another one.
async fn read_on(connection: &mut Connection, key: &str, after: Position) -> RedisResult<(Vec<Entry>, bool)> {
    let mut command = cmd("XRANGE");
    command.arg(key).arg(after.to_string()).arg("+").arg("COUNT").arg(READ + 1);
    let mut entries: Vec<Entry> = connection.call(&command).await?;
    let is_complete = entries.first().is_some_and(|(id, _)| id.parse() == Ok(after));
    if is_complete {
        entries.remove(0);
    }
    Ok((entries, is_complete))
}

/// Waits until there is something behind a position, or for a while.
async fn wait(connection: &mut Connection, key: &str, after: Position) -> RedisResult<()> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(key);
    connection.call::<Value>(command.arg(after.to_string())).await.map(drop)
}

async fn facts(connection: &mut Connection, key: &str) -> RedisResult<Facts> {
    let exists: bool = connection.call(cmd("EXISTS").arg(key)).await?;
    if !exists {
        return Ok(Facts { newest: Position::default(), floor: Position::default() });
    }
    let facts: HashMap<String, Value> = connection.call(cmd("XINFO").arg("STREAM").arg(key)).await?;
    // An id, or an entry with its id in front.
    let position = |value: &Value| {
        let id = if let Value::Array(entry) = value { entry.first()? } else { value };
        redis::from_redis_value_ref::<String>(id).ok()?.parse::<Position>().ok()
    };
    let fact = |name| facts.get(name).and_then(position);
    let count = |name| facts.get(name).and_then(|value| redis::from_redis_value_ref::<u64>(value).ok());
    let newest = fact("last-generated-id").unwrap_or_default();
    // Before Redis 7 it does not say how many there have been.
    let is_whole = count("entries-added").is_some_and(|added| count("length") == Some(added));
    let floor = if is_whole { Position::default() } else { fact("first-entry").unwrap_or(newest) };
    Ok(Facts { newest, floor })
}
