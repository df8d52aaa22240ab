//! What the instances of a cluster agree on: each room as a row of changes, kept and told by Redis.
//!
//! Every instance that has to do with a room holds a copy of it. One that carries out a command [commits](Cluster::commit)
//! what has changed, which succeeds only if the room still is what the copy was. The others hear of the change, make it
//! too, and tell their own connections of it. So all changes of a room have one order, and everybody hears of each once,
//! in that order.
//!
//! Redis keeps the newest state of a room, for who comes, and the last 256 changes, for who has missed some.
//! The three keys of the contract are written with every change, by the same script.

use std::fmt;

use redis::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id;
use crate::redis::{Redis, Script, Unavailable};
use crate::sync::room::replica::{Diff, SeatRecord};
use crate::sync::room::{Audience, ConnectionId, Effect, Room, SeatKey};

pub mod leases;
#[cfg(test)]
mod tests;

/// This instance's part in the cluster. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Cluster {
    redis: Redis,
    /// The number by which the others know this instance; 0 stands for none.
    instance: u32,
}

/// The last change that a copy of a room has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    version: u64,
    /// Drawn at random, so that two changes with one version, after Redis has lost some, are not taken for the same.
    id: u64,
}

/// One change, as the instances tell each other.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    version: u64,
    id: u64,
    /// The id of the change before.
    after: u64,
    /// Who made it.
    pub instance: u32,
    /// What has changed.
    pub diff: Diff,
    /// What connections are to be told, or to be done to them.
    pub notices: Vec<Notice>,
}

/// The part of an effect that concerns connections of other instances.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Send an event.
    Send {
        /// Who gets it.
        to: Audience,
        /// The name of the event.
        name: String,
        /// Its payload.
        payload: Box<RawValue>,
    },
    /// From here on the connection gets nothing more of the room.
    Remove(ConnectionId),
    /// Close the connection.
    Cut(ConnectionId),
}

/// What has become of a change.
#[derive(Debug)]
pub enum Committed {
    /// It is made, and the copy is here now.
    Done(Point),
    /// It is not: others were faster, and have done this meanwhile.
    Behind(Vec<Entry>),
    /// It is not: the copy is not on the way that led to what Redis has.
    Astray,
    /// It is not: Redis has lost the room, or its newest changes.
    Lost,
}

/// What has happened to a room since a point.
#[derive(Debug)]
pub enum News {
    /// These changes, in order.
    Entries(Vec<Entry>),
    /// This is all there is of the room now.
    Whole(Point, Box<Diff>),
    /// Redis does not know the room, or not in so new a state.
    Lost,
}

/// Why the cluster cannot be asked, for the log.
#[derive(Debug)]
pub enum Trouble {
    /// Redis does not do what it is asked to.
    Redis(Unavailable),
    /// Redis holds what is not ours.
    Malformed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(cause) => cause.fmt(f),
            Self::Malformed(what) => write!(f, "Redis holds what it should not: {what}"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<Unavailable> for Trouble {
    fn from(cause: Unavailable) -> Self {
        Self::Redis(cause)
    }
}

impl Cluster {
    /// Takes part under a number that no other instance has.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn join(redis: Redis) -> Result<Self, Trouble> {
        loop {
            let instance = u32::from_le_bytes(id::random()) & INSTANCES;
            if instance == 0 {
                continue;
            }
            let cluster = Self { redis: redis.clone(), instance };
            if cluster.claim().await? {
                return Ok(cluster);
            }
        }
    }

    /// The number of this instance.
    pub fn instance(&self) -> u32 {
        self.instance
    }

    /// The channel on which changes of a room are told.
    pub fn channel(&self, room_id: &str) -> String {
        self.redis.key(&format!("syncwatch:{}:changes", self.redis.tag(room_id)))
    }

    /// Begins to listen to the changes of a room.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn follow(&self, room_id: &str) -> Result<(), Trouble> {
        Ok(self.redis.subscribe(&self.channel(room_id)).await?)
    }

    /// Listens no more to a [channel](Self::channel).
    pub async fn forget(&self, channel: &str) {
        // A subscription too many costs little, and ends with the connection.
        let _unavailable = self.redis.unsubscribe(channel).await;
    }

    /// Makes a change, if the room is what it was at `at`.
    ///
    /// # Errors
    /// Where Redis cannot be asked. Whether the change was made is not known then.
    pub async fn commit(&self, room: &Room, at: Point, diff: Diff, notices: Vec<Notice>) -> Result<Committed, Trouble> {
        let point = Point { version: at.version + 1, id: random() };
        let entry =
            Entry { version: point.version, id: point.id, after: at.id, instance: self.instance, diff, notices };
        let Entry { diff, .. } = &entry;
        let room_id = &room.row().id;
        let mut arguments = vec![
            at.version.to_string(),
            at.id.to_string(),
            point.id.to_string(),
            text(&diff.head)?,
            diff.row.as_ref().map_or(Ok(String::new()), text)?,
            diff.playback.as_ref().map_or(Ok(String::new()), text)?,
            diff.playback_state().map_or(Ok(String::new()), text)?,
            diff.head.sequence.to_string(),
            room.row().max_participants.to_string(),
            String::from(if diff.head.closed { "1" } else { "" }),
            TTL_SECONDS.to_string(),
            text(&entry)?,
            self.redis.publish_command().to_owned(),
            self.channel(room_id),
            LOG_ENTRIES.to_string(),
        ];
        push_seats(&mut arguments, &diff.seats)?;
        let mut answer = Answer::of(self.redis.run(&COMMIT, &self.keys(room_id), &arguments).await?)?;
        match answer.word()?.as_str() {
            "done" => Ok(Committed::Done(point)),
            "behind" => Ok(match chained(answer.entries()?, at) {
                Some(entries) => Committed::Behind(entries),
                None => Committed::Astray,
            }),
            // The last two cannot be, where the copy was what Redis has.
            "other" | "full" | "sequence" => Ok(Committed::Astray),
            "missing" | "older" => Ok(Committed::Lost),
            other => Err(Trouble::Malformed(other.to_owned())),
        }
    }

    /// Asks what has happened to a room since a point, or for all of it.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn news(&self, room_id: &str, since: Option<Point>) -> Result<News, Trouble> {
        let [.., room, seats, log] = self.keys(room_id);
        let keys = [room, seats, log];
        let since_text = since.map(|at| [at.version.to_string(), at.id.to_string()]).unwrap_or_default();
        let mut answer = Answer::of(self.redis.run(&FETCH, &keys, &since_text).await?)?;
        match answer.word()?.as_str() {
            "behind" => match since.and_then(|at| Some((at, answer.entries().ok()?))) {
                Some((at, entries)) => match chained(entries, at) {
                    Some(entries) => Ok(News::Entries(entries)),
                    None => Box::pin(self.news(room_id, None)).await,
                },
                None => Err(Trouble::Malformed("entries".into())),
            },
            "whole" => {
                let point = Point { version: answer.number()?, id: answer.number()? };
                Ok(News::Whole(point, Box::new(answer.whole()?)))
            }
            "missing" | "older" => Ok(News::Lost),
            other => Err(Trouble::Malformed(other.to_owned())),
        }
    }

    /// Brings back a room that Redis has lost, unless another instance has brought back as new a state before.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn restore(&self, room: &Room, at: Point) -> Result<(), Trouble> {
        let whole = room.whole();
        let mut arguments = vec![
            at.version.to_string(),
            at.id.to_string(),
            text(&whole.head)?,
            whole.row.as_ref().map_or(Ok(String::new()), text)?,
            whole.playback.as_ref().map_or(Ok(String::new()), text)?,
            whole.playback_state().map_or(Ok(String::new()), text)?,
            whole.head.sequence.to_string(),
            TTL_SECONDS.to_string(),
        ];
        push_seats(&mut arguments, &whole.seats)?;
        self.redis.run(&RESTORE, &self.keys(&room.row().id), &arguments).await?;
        Ok(())
    }

    /// Whether any instance has members of a room online, as far as Redis knows.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn has_members(&self, room_id: &str) -> Result<bool, Trouble> {
        let [_, _, online, ..] = self.keys(room_id);
        let found = self.redis.call(redis::cmd("EXISTS").arg(online)).await?;
        redis::from_redis_value(found).map_err(malformed)
    }

    /// The keys of a room: playback, participants and online of the contract, then our own.
    fn keys(&self, room_id: &str) -> [String; 6] {
        let tagged = self.redis.tag(room_id);
        [
            format!("room:{tagged}:playback"),
            format!("room:{tagged}:participants"),
            format!("room:{tagged}:online"),
            format!("syncwatch:room:{tagged}"),
            format!("syncwatch:room:{tagged}:seats"),
            format!("syncwatch:room:{tagged}:log"),
        ]
        .map(|key| self.redis.key(&key))
    }
}

impl Point {
    /// Where a room begins that was not in Redis before. Whatever another instance still knows of it is newer.
    pub fn start() -> Self {
        Self { version: 0, id: random() }
    }
}

impl Entry {
    /// Reads an entry as it was published.
    pub fn read(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Where a copy is that has made this change.
    pub fn point(&self) -> Point {
        Point { version: self.version, id: self.id }
    }

    /// Whether a copy at this point has made the change already.
    pub fn is_known_at(&self, at: Point) -> bool {
        self.version <= at.version
    }

    /// Whether this is the very next change for a copy at this point.
    pub fn follows(&self, at: Point) -> bool {
        self.version == at.version + 1 && self.after == at.id
    }
}

impl Notice {
    /// What the others have to know of effects.
    ///
    /// # Errors
    /// Where an event cannot be encoded.
    pub fn of(effects: &[Effect]) -> Result<Vec<Self>, Trouble> {
        let notice = |effect: &Effect| match effect {
            Effect::Send { to, event } => {
                let payload = serde_json::value::to_raw_value(event).map_err(malformed);
                Some(payload.map(|payload| Self::Send { to: *to, name: event.name().to_owned(), payload }))
            }
            Effect::Remove { connection } => Some(Ok(Self::Remove(*connection))),
            Effect::Cut { connection } => Some(Ok(Self::Cut(*connection))),
            Effect::Persist(_) | Effect::Admit { .. } | Effect::State { .. } => None,
        };
        effects.iter().filter_map(notice).collect()
    }
}

/// What a script has answered: a word, and what belongs to it.
struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    fn of(value: Value) -> Result<Self, Trouble> {
        let Value::Array(values) = value else { return Err(Trouble::Malformed("an answer".into())) };
        Ok(Self(values.into_iter()))
    }

    fn next(&mut self) -> Result<Value, Trouble> {
        self.0.next().ok_or_else(|| Trouble::Malformed("a short answer".into()))
    }

    fn word(&mut self) -> Result<String, Trouble> {
        redis::from_redis_value(self.next()?).map_err(malformed)
    }

    fn number(&mut self) -> Result<u64, Trouble> {
        self.word()?.parse().map_err(malformed)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Trouble> {
        let entries: Vec<String> = redis::from_redis_value(self.next()?).map_err(malformed)?;
        entries.iter().map(|entry| serde_json::from_str(entry).map_err(malformed)).collect()
    }

    fn whole(&mut self) -> Result<Diff, Trouble> {
        let head = serde_json::from_str(&self.word()?).map_err(malformed)?;
        let row = Some(serde_json::from_str(&self.word()?).map_err(malformed)?);
        let timeline = self.word()?;
        let playback =
            if timeline.is_empty() { None } else { Some(serde_json::from_str(&timeline).map_err(malformed)?) };
        let seats: Vec<(u64, String)> = redis::from_redis_value(self.next()?).map_err(malformed)?;
        let record = |(number, seat): (u64, String)| {
            let record = seat.rsplit_once('\n').map_or(seat.as_str(), |(_, record)| record);
            Ok((SeatKey::from_number(number), Some(serde_json::from_str(record).map_err(malformed)?)))
        };
        let seats = seats.into_iter().map(record).collect::<Result<_, Trouble>>()?;
        Ok(Diff { head, row, playback, seats })
    }
}

/// The entries, if they lead on from a point without a gap.
fn chained(entries: Vec<Entry>, at: Point) -> Option<Vec<Entry>> {
    let mut at = at;
    for entry in &entries {
        if !entry.follows(at) {
            return None;
        }
        at = entry.point();
    }
    Some(entries)
}

fn push_seats(arguments: &mut Vec<String>, seats: &[(SeatKey, Option<SeatRecord>)]) -> Result<(), Trouble> {
    for (key, record) in seats {
        arguments.push(key.number().to_string());
        match record {
            Some(record) => {
                arguments.push(text(&record.view())?);
                arguments.push(record.socket_id.clone().unwrap_or_default());
                arguments.push(text(record)?);
            }
            None => arguments.extend([const { String::new() }; 3]),
        }
    }
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String, Trouble> {
    serde_json::to_string(value).map_err(malformed)
}

fn malformed(error: impl fmt::Display) -> Trouble {
    Trouble::Malformed(error.to_string())
}

fn random() -> u64 {
    u64::from_le_bytes(id::random())
}

/// The numbers that instances may have; a [`ConnectionId`] has room for as many.
const INSTANCES: u32 = (1 << 24) - 1;

/// How many changes of a room are kept for who has missed them; past it, the whole room is read.
const LOG_ENTRIES: usize = 256;

/// How long Redis keeps a room that nothing happens in: 24 hours. Where members are online, `expiresAt` moves along once an
/// hour at least, which is a change like any other.
const TTL_SECONDS: u32 = 86_400;

static COMMIT: Script = Script::new(include_str!("commit.lua"));
static FETCH: Script = Script::new(include_str!("fetch.lua"));
static RESTORE: Script = Script::new(include_str!("restore.lua"));
static LEASE: Script = Script::new(include_str!("lease.lua"));
