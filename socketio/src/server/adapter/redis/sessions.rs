//! Sessions of clients in Redis, where every instance finds them.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::{Cmd, RedisError, cmd};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::RedisConfig;
use super::connection::Connection;
use super::link::{Link, Receive};
use crate::server::adapter::{Local, Position, SessionChange, SessionRecord};
use crate::server::socket::SocketId;

const KEEP: &str = include_str!("session_keep.lua");
const SEEN: &str = include_str!("session_seen.lua");
const END: &str = include_str!("session_end.lua");
const CLAIM: &str = include_str!("session_claim.lua");

/// Most changes that are noted down together.
const BATCH: usize = 256;
/// How long taking a session over may last; then its client begins anew.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after something has failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The sessions of one namespace.
pub(super) struct Sessions {
    local: Local,
    link: Arc<Link>,
    /// What the keys begin with, followed by the client's secret.
    prefix: String,
    /// What the channels begin with, followed by the name of the instance that is told of sessions it has lost.
    channels: String,
    uid: Box<str>,
    max_bytes: usize,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("local", &self.local).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct StateOf<'a> {
    id: &'a str,
    rooms: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct State {
    id: String,
    rooms: Vec<String>,
    data: Option<Box<RawValue>>,
}

impl Sessions {
    /// `None` where recovery is off, or there is no randomness.
    pub(super) fn new(local: &Local, link: &Arc<Link>, config: &RedisConfig) -> Option<Self> {
        local.recovery()?;
        Some(Self {
            prefix: format!("{}-session#{}#", config.prefix, local.name()),
            channels: format!("{}-sessions#{}#", config.prefix, local.name()),
            local: local.clone(),
            link: Arc::clone(link),
            uid: SocketId::random()?.as_str().into(),
            max_bytes: config.max_message_bytes,
        })
    }

    /// The channel on which this instance hears of sessions that it has lost.
    pub(super) fn channel(&self) -> String {
        format!("{}{}#", self.channels, self.uid)
    }

    /// Notes down changes, for ever.
    pub(super) async fn note(self: Arc<Self>) {
        let mut fails = false;
        loop {
            let changes = self.local.session_changes(BATCH).await;
            let connection = self.link.connected().await;
            let count = changes.len();
            let (left, failure) = self.note_all(&connection, changes).await;
            self.local.noted(count, left);
            match failure {
                None => fails = false,
                Some(error) => {
                    if std::mem::replace(&mut fails, true) {
                        tracing::debug!(%error, "sessions cannot be noted down yet");
                    } else {
                        tracing::warn!(%error, "sessions cannot be noted down: clients may not come back");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Notes down changes together; returns those that have to be tried again, and why.
    async fn note_all(
        &self,
        connection: &Connection,
        changes: Vec<SessionChange>,
    ) -> (Vec<SessionChange>, Option<RedisError>) {
        let mut running = JoinSet::new();
        for change in changes {
            let (mut connection, command) = (connection.clone(), self.command(&change));
            running.spawn(async move { (change, connection.call::<i64>(&command).await) });
        }
        let (mut left, mut failure) = (Vec::new(), None);
        while let Some(answered) = running.join_next().await {
            match answered {
                Ok((change, Ok(0))) => {
                    self.local.session_superseded(change.pid(), change.generation().saturating_add(1));
                }
                Ok((change, Ok(..0))) => self.local.session_forgotten(change.pid()),
                Ok((_, Ok(_))) => {}
                Ok((change, Err(error))) => {
                    left.push(change);
                    failure = Some(error);
                }
                // Nothing there panics, and nobody cancels it.
                Err(_) => {}
            }
        }
        (left, failure)
    }

    fn command(&self, change: &SessionChange) -> Cmd {
        let mut command = cmd("EVAL");
        let mut script = |script: &str| {
            command.arg(script).arg(1).arg(self.key(change.pid())).arg(change.generation());
        };
        match change {
            SessionChange::Keep(record) => match self.state(record) {
                Some(state) => {
                    script(KEEP);
                    command.arg(&*self.uid).arg(state).arg(record.seen.to_string()).arg(milliseconds(record.kept_for));
                }
                // Otherwise it would come back as what it was before.
                None => script(END),
            },
            SessionChange::Seen { seen, kept_for, .. } => {
                script(SEEN);
                command.arg(seen.to_string()).arg(milliseconds(*kept_for));
            }
            SessionChange::End { .. } => script(END),
        }
        command
    }

    fn state(&self, record: &SessionRecord) -> Option<String> {
        let rooms = record.rooms.iter().map(|room| &**room).collect();
        let state = StateOf { id: &record.id, rooms, data: record.data.as_deref() };
        let state = serde_json::to_string(&state).ok().filter(|state| state.len() <= self.max_bytes);
        if state.is_none() {
            tracing::debug!("the rooms and data of a socket are more than is kept, so its client cannot come back");
        }
        state
    }

    fn key(&self, pid: &str) -> String {
        format!("{}{pid}", self.prefix)
    }

    /// Takes a session over.
    pub(super) async fn claim(&self, pid: &str) -> Option<SessionRecord> {
        let claimed = timeout(CLAIM_TIMEOUT, async {
            let mut connection = self.link.connected().await;
            let mut command = cmd("EVAL");
            command.arg(CLAIM).arg(1).arg(self.key(pid)).arg(&*self.uid);
            connection.call::<Option<(String, u64, String, String)>>(&command).await
        });
        let (former, generation, state, seen) = match claimed.await {
            Ok(Ok(claimed)) => claimed?,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a session cannot be taken over");
                return None;
            }
            Err(_late) => {
                tracing::debug!("a session cannot be taken over: Redis does not answer");
                return None;
            }
        };
        if former != *self.uid {
            // One that is lost is made up for when the former instance next notes something down.
            let _lost = self.link.publish(&format!("{}{former}#", self.channels), format!("{generation} {pid}").into());
        }
        let State { id, rooms, data } = serde_json::from_str(&state).ok()?;
        let seen = seen.parse::<Position>().ok()?;
        let mut record = SessionRecord::new(pid, generation, id, seen);
        record.rooms = rooms.into_iter().map(Into::into).collect();
        record.data = data;
        Some(record)
    }
}

/// A session was taken over by another instance: its generation, and the client's secret.
impl Receive for Sessions {
    fn receive(&self, _channel: &str, payload: Vec<u8>) {
        let told = str::from_utf8(&payload).ok().and_then(|told| told.split_once(' '));
        match told.and_then(|(generation, pid)| Some((generation.parse().ok()?, pid))) {
            Some((generation, pid)) => self.local.session_superseded(pid, generation),
            None => tracing::debug!("a message about a session was dropped"),
        }
    }
}

/// What the routes of a link hold.
pub(super) fn receiver(sessions: &Arc<Sessions>) -> Weak<dyn Receive> {
    let sessions: Weak<Sessions> = Arc::downgrade(sessions);
    sessions
}

fn milliseconds(time: Duration) -> u64 {
    // What Redis takes, and far more than anybody waits.
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}
