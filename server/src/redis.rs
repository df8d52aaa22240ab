//! Redis, as the instances of a cluster share it: commands, scripts and channels, on one server or a Redis Cluster.
//!
//! Every call answers within [`DEADLINE`], and at once where Redis is known to be down. Connections that are lost are made
//! again by themselves, and what was listened to is listened to again. Nothing here blocks, and what waits for a slow
//! Redis is bounded.
//!
//! Redis 6 is needed, on a cluster Redis 7, for channels that belong to a slot.

mod clock;
mod link;
mod listener;
mod nodes;
mod outbox;
mod relay;
mod script;
mod slots;
mod task;
#[cfg(test)]
mod tests;
mod unavailable;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Arg, Cmd, ToRedisArgs, Value, cmd};
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use nodes::Nodes;
use outbox::Outbox;

pub use outbox::Notice;
pub use relay::RedisRelay;
pub use script::Script;
pub use unavailable::{Cause, Unavailable};

use crate::config::RedisSettings;

/// A way to Redis. Clones are the same one; with the last of them its connections end.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: Nodes,
    prefix: String,
    calls: Semaphore,
}

impl Redis {
    /// Begins to connect to the servers in the settings, and to the one database there of this number. What is published
    /// on the channels listened to goes into `notices`, whose length bounds what waits.
    ///
    /// It returns at once; [`ping`](Self::ping) tells whether Redis is there.
    pub fn new(settings: &RedisSettings, database: u16, notices: Sender<Notice>) -> Self {
        let nodes = Nodes::new(settings, database, Outbox::new(notices));
        let prefix = settings.key_prefix.clone();
        Self { shared: Arc::new(Shared { nodes, prefix, calls: Semaphore::new(CALLS) }) }
    }

    /// As [`new`](Self::new), for commands and scripts only: what is published comes to nobody.
    pub fn without_channels(settings: &RedisSettings, database: u16) -> Self {
        let (notices, _nobody) = channel(1);
        Self::new(settings, database, notices)
    }

    /// Sends a command and waits for its answer. Its first argument is taken for its key.
    ///
    /// Calls made at the same time go out together, without waiting for each other.
    ///
    /// # Errors
    /// [`Unavailable`] where there is no answer within [`DEADLINE`], or the answer is an error.
    pub async fn call(&self, command: &Cmd) -> Result<Value, Unavailable> {
        let until = Instant::now() + DEADLINE;
        let _call = self.begin()?;
        let key = command
            .args_iter()
            .nth(1)
            .and_then(|argument| if let Arg::Simple(key) = argument { Some(key) } else { None });
        self.shared.nodes.call(command, key, until).await
    }

    /// Runs a script as one step. All keys it touches must be named, and on a cluster have the same [`tag`](Self::tag).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn run(
        &self,
        script: &Script,
        keys: &[impl AsRef<[u8]>],
        arguments: &[impl ToRedisArgs],
    ) -> Result<Value, Unavailable> {
        let until = Instant::now() + DEADLINE;
        let _call = self.begin()?;
        let key = keys.first().map(AsRef::as_ref);
        match self.shared.nodes.call(&script.by_hash(keys, arguments), key, until).await {
            Err(unknown) if unknown.cause == Cause::UnknownScript => {
                self.shared.nodes.call(&script.by_text(keys, arguments), key, until).await
            }
            answer => answer,
        }
    }

    /// Begins to listen to a channel. What is published from the answer on comes as a [`Notice`].
    ///
    /// # Errors
    /// As [`call`](Self::call); then the channel is not listened to, unless it was before.
    pub async fn subscribe(&self, channel: &str) -> Result<(), Unavailable> {
        let _call = self.begin()?;
        self.shared.nodes.follow(channel, Instant::now() + DEADLINE).await
    }

    /// Listens to a channel no more. What is on its way may still come.
    ///
    /// # Errors
    /// As [`call`](Self::call); the channel may be listened to then until its connection is lost.
    pub async fn unsubscribe(&self, channel: &str) -> Result<(), Unavailable> {
        let _call = self.begin()?;
        self.shared.nodes.forget(channel, Instant::now() + DEADLINE).await
    }

    /// The command that publishes to those who listen here, with a channel and a message as its arguments. On a cluster
    /// a channel has a slot, as a key has.
    pub fn publish_command(&self) -> &'static str {
        self.shared.nodes.words().publish
    }

    /// The name of a key or channel, with the prefix of the settings.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.shared.prefix)
    }

    /// How an id stands in the names of keys: in braces on a cluster, so that all its keys have one slot.
    pub fn tag(&self, id: &str) -> String {
        if self.shared.nodes.is_cluster() { format!("{{{id}}}") } else { id.to_owned() }
    }

    /// Answers once every server has answered to a write.
    ///
    /// # Errors
    /// As [`call`](Self::call), of the first server that fails.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        let until = Instant::now() + DEADLINE;
        let _call = self.begin()?;
        let nodes = &self.shared.nodes;
        for server in nodes.servers(until).await? {
            let names = (0..PROBES).map(|number| self.key(&format!("syncwatch:probe:{number}")));
            // Nothing but a write tells whether a server takes one. Where no name fits, reading has to do.
            let write = names.into_iter().find(|name| nodes.has(&server, name)).map(|name| {
                let mut write = cmd("SET");
                write.arg(name).arg("").arg("PX").arg(PROBE_LASTS.as_millis() as u64);
                write
            });
            nodes.ask(&server, &write.unwrap_or_else(|| cmd("PING")), until).await?;
        }
        Ok(())
    }

    /// What is unwise about how Redis is set up, one sentence for each, for the log at the start. Nothing where it does not
    /// say.
    pub async fn warnings(&self) -> Vec<String> {
        let until = Instant::now() + DEADLINE;
        let nodes = &self.shared.nodes;
        let mut warnings = Vec::new();
        for server in nodes.servers(until).await.unwrap_or_default() {
            let Ok(answer) = nodes.ask(&server, &cmd("INFO"), until).await else { continue };
            let info: String = redis::from_redis_value(answer).unwrap_or_default();
            let field = |name| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
                // All our keys have an end, so that those which evict such keys only are no better.
                warnings.push(format!(
                    "Redis at {server} has the maxmemory-policy {policy}: short of memory, it drops rooms that people are \
                     in; use noeviction"
                ));
            }
            if field("redis_mode") == Some("cluster") && !nodes.is_cluster() {
                warnings.push(format!(
                    "Redis at {server} is a node of a Redis Cluster: name several of its nodes in REDIS_URL, separated by \
                     commas"
                ));
            }
        }
        warnings
    }

    fn begin(&self) -> Result<SemaphorePermit<'_>, Unavailable> {
        let too_many = |_| Unavailable::new(Cause::Overloaded, format!("{CALLS} requests are waiting"));
        self.shared.calls.try_acquire().map_err(too_many)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

/// Longest time a call takes.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// Most calls at a time. It takes a Redis that hangs, or a great many clients, for as many to wait.
const CALLS: usize = 4_096;

/// Names that are tried to find one that a node of a cluster has.
const PROBES: u32 = 1_000;

const PROBE_LASTS: Duration = Duration::from_secs(10);
