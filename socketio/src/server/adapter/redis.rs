//! Several instances over Redis, also together with servers of socket.io in Node.js.
//!
//! [`Redis`] keeps one connection for commands and one for subscriptions, to a Redis or a Redis Cluster, and connects the namespaces of one server over it:
//!
//! ```no_run
//! use socketio::adapter::redis::{Redis, RedisConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let redis = Redis::start(RedisConfig::new("redis://127.0.0.1/"))?;
//! let io = socketio::Io::builder()
//!     .adapter(redis.adapter())
//!     .namespace("/", |root| {
//!         root.on("say", async |socket: socketio::Socket, text: String| {
//!             // Reaches the clients of every instance.
//!             let _left = socket.broadcast().emit("said", (text,));
//!         });
//!     })
//!     .build()?;
//! redis.ready().await; // or serve those that are here meanwhile
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! io.serve(listener, std::future::pending()).await;
//! # Ok(()) }
//! ```
//!
//! # On the wire
//!
//! [`Mode::Classic`] is that of `createAdapter` of `@socket.io/redis-adapter` 8.3, and of `@socket.io/redis-emitter` 5;
//! [`Mode::Sharded`] that of `createShardedAdapter`. Instances of one cluster share mode, prefix and, in sharded mode,
//! [`Subscription`]. Unlike the reference, an instance in classic mode subscribes only to the rooms that its own sockets
//! are in, not to those of the whole namespace. What other instances send to a room arrives once Redis has taken the
//! subscription, a round trip after the first socket has joined.
//!
//! Besides, each instance listens to a channel that has its name, `<prefix>-instances#<namespace>#<name>#`, so that those
//! which do not answer can be named.
//!
//! # When slots move
//!
//! The channels of a slot that moves to another node of a Redis Cluster are listened to there within a moment. What is
//! published in it meanwhile is lost, as it is in Redis. A question whose answers are lost ends with its deadline and says
//! so.
//!
//! # What arrives
//!
//! Instances of ours deliver the same bytes as the one that sends: the text of an event or answer as it is, and its
//! attachments. JSON carries them so. Where MessagePack would not (every broadcast and question of the classic mode, and
//! what has attachments in both), the text is sent along, in a place that servers of socket.io do not look at: a message is
//! then about twice as large. It concerns numbers that are not written as `serde_json` writes them, integers beyond 64
//! bits, halves of surrogate pairs, needless escapes and whitespace, placeholders in another order than their attachments;
//! and answers of more than one argument, of which servers of socket.io know the first alone.
//!
//! A server of socket.io gets what `JSON.parse` makes of such text: doubles, `Infinity` for `1e400`, the last of two equal
//! keys. Only half of a surrogate pair is U+FFFD in the classic mode, as it is between two servers of socket.io. What a
//! server of socket.io sends is delivered here as its adapter encodes it.
//!
//! # Recovery across instances
//!
//! With [`IoBuilder::recovery`](crate::server::IoBuilder::recovery), which all instances then have, events that are neither
//! local nor volatile and want no ack travel through a Redis stream for each namespace, in a format of our own: servers of
//! socket.io do not get them, while what those publish still arrives, and is not sent again. Each instance adds to the
//! stream and delivers what it reads, so all clients are sent the same events in the same order, and each instance keeps
//! the newest ones in its memory for those who come back. For instances that are behind, the stream has up to 100,000 more
//! than that, and for ten seconds longer. The sessions are Redis hashes, `<prefix>-session#<namespace>#` with
//! the client's secret behind it, which go by themselves. They follow the sockets within a moment: what a socket has
//! joined in the last milliseconds before its instance dies may be missing.
//!
//! # Without sticky sessions
//!
//! Behind a balancer that sends a request to any instance, [`Redis::relay`] has those that reach the wrong one served by
//! the right one, WebSockets that are to take over a polling session among them:
//!
//! ```no_run
//! # use socketio::adapter::redis::{Redis, RedisConfig};
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let redis = Redis::start(RedisConfig::new("redis://127.0.0.1/"))?;
//! let io = socketio::Io::builder().adapter(redis.adapter()).relay(redis.relay());
//! # Ok(()) }
//! ```
//!
//! It is between servers of ours: those of socket.io in Node.js have `@socket.io/cluster-engine` for the same, in another
//! format.
//!
//! # When Redis is away
//!
//! The sockets of this instance go on to get what is sent to them here. What the others do not get is counted
//! ([`Redis::lost`]) and logged, at most every ten seconds; questions to them fail at once. The connection comes back by
//! itself, with all its subscriptions. Nothing is sent again. A request that reaches the wrong instance meanwhile gets
//! status 503, and one that is under way ends.
//!
//! With recovery events wait for Redis as long as [`request_timeout`](RedisConfig::request_timeout), so that a short outage
//! only delays them; after that they go to the sockets of this instance alone, as above. Where Redis has taken one of those
//! after all, the other instances get it, and so does a client of this one that comes back, once more. Clients that come
//! back while Redis is away begin anew.
//!
//! # Limits
//!
//! Who can publish in Redis can do to clients what this server can. Still, messages above
//! [`max_message_bytes`](RedisConfig::max_message_bytes) and malformed ones are dropped and counted as
//! [lost](Redis::lost), those of unknown kinds and for others with a line in the log at level debug; every question has a
//! deadline.

mod classic;
mod connection;
mod link;
mod losses;
mod message;
mod relay;
mod sessions;
mod sharded;
mod stream;
mod subscriptions;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use engineio::Instance;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use self::classic::Classic;
use self::connection::{Kind, Place};
use self::link::{Link, Receive};
use self::message::{Dropped, Heard, NOT_UNDERSTOOD, Say};
pub use self::relay::RedisRelay;
use self::sessions::Sessions;
use self::sharded::Sharded;
use self::stream::Stream;
use super::{Adapter, ClusterError, Command, Local, Outgoing, Replies, Request, SessionRecord, SocketInfo, Target};
use crate::server::namespace::ServerAck;
use crate::server::socket::{Room, Socket, SocketId};

/// Settings of [`Redis`].
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where it is: `redis://user:password@host:port/database`, with `rediss` over TLS; of a cluster some of its nodes.
    pub urls: Vec<String>,
    /// It is a Redis Cluster, which takes [`Mode::Sharded`]. Default: it is not.
    pub cluster: bool,
    /// What goes over the wire. Default: [`Mode::Classic`].
    pub mode: Mode,
    /// What channels begin with: `key` of the classic adapter, `channelPrefix` of the sharded one. Default: `socket.io`.
    pub prefix: String,
    /// How long other instances may take to answer, and events may wait for Redis where they have a place in its order.
    /// Default: 5 s.
    pub request_timeout: Duration,
    /// Most bytes of a message, in both directions. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// Most bytes of messages that wait to leave, and of those that wait to be delivered; beyond it they are lost.
    /// Default: 64 MiB.
    pub max_queued_bytes: usize,
}

impl RedisConfig {
    /// Returns the default settings for a Redis at a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            cluster: false,
            mode: Mode::Classic,
            prefix: "socket.io".to_owned(),
            request_timeout: Duration::from_secs(5),
            max_message_bytes: 16 << 20,
            max_queued_bytes: 64 << 20,
        }
    }

    /// Returns the default settings for a Redis Cluster, with some of its nodes: sharded and dynamic.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            cluster: true,
            mode: Mode::Sharded(Subscription::Dynamic),
            ..Self::new("")
        }
    }
}

/// URLs hold passwords.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("cluster", &self.cluster)
            .field("mode", &self.mode)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Which of the two adapters of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// PUBLISH and SUBSCRIBE: in a Redis Cluster every node would get everything.
    Classic,
    /// SPUBLISH and SSUBSCRIBE, since Redis 7.
    Sharded(Subscription),
}

/// Which rooms have channels of their own in sharded mode, as `subscriptionMode` of the reference. Alike in all instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// None: two channels for each namespace.
    Static,
    /// All but those named by the id of a socket, which is told by 20 characters.
    #[default]
    Dynamic,
    /// All.
    DynamicPrivate,
}

/// Why [`Redis`] cannot be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// A URL that is none of Redis, or none at all.
    Url,
    /// A Redis Cluster in classic mode.
    ClassicCluster,
    /// The system has no randomness to give.
    Randomness,
}

impl fmt::Display for RedisConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "not the URL of a Redis",
            Self::ClassicCluster => "a Redis Cluster takes the sharded mode",
            Self::Randomness => "no randomness",
        })
    }
}

impl std::error::Error for RedisConfigError {}

/// The connection of one server to the others, over Redis. A clone is another handle on the same one.
#[derive(Clone, Debug)]
pub struct Redis {
    link: Arc<Link>,
    config: Arc<RedisConfig>,
    uid: Arc<str>,
    relay: RedisRelay,
    /// The streams of namespaces: whether they are known.
    streams: Arc<Mutex<Vec<watch::Receiver<bool>>>>,
}

impl Redis {
    /// Starts to connect, in tasks of the current tokio runtime. Redis need not be there yet.
    ///
    /// # Errors
    /// [`RedisConfigError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: RedisConfig) -> Result<Self, RedisConfigError> {
        let kind = match config.mode {
            Mode::Classic if config.cluster => return Err(RedisConfigError::ClassicCluster),
            Mode::Classic => Kind::Plain,
            Mode::Sharded(_) => Kind::Sharded,
        };
        // The error may quote the URL, with its password.
        let place = Place::parse(&config.urls, config.cluster).map_err(|_| RedisConfigError::Url)?;
        let uid = SocketId::random().ok_or(RedisConfigError::Randomness)?;
        // As long as those of the reference.
        let uid: String = uid.chars().take(if kind == Kind::Plain { 6 } else { 16 }).collect();
        let instance = random_instance().ok_or(RedisConfigError::Randomness)?;
        let link = Arc::new(Link::start(kind, place, config.max_queued_bytes));
        let relay = RedisRelay::new(Arc::clone(&link), &config.prefix, instance, config.max_message_bytes);
        Ok(Self { link, config: Arc::new(config), uid: uid.into(), relay, streams: Arc::default() })
    }

    /// Returns what [`IoBuilder::adapter`](crate::server::IoBuilder::adapter) takes. Each server needs a `Redis` of its
    /// own: two with the same namespace would take each other's messages for their own.
    pub fn adapter(&self) -> impl Fn(Local) -> RedisAdapter + Send + Sync + 'static {
        let redis = self.clone();
        move |local| RedisAdapter::new(&redis, local)
    }

    /// Returns what [`IoBuilder::relay`](crate::server::IoBuilder::relay) takes. Each server needs a `Redis` of its own.
    #[must_use]
    pub fn relay(&self) -> RedisRelay {
        self.relay.clone()
    }

    /// Waits until Redis is there, and this instance takes part in everything its sockets are in by now.
    pub async fn ready(&self) {
        self.link.ready().await;
        let streams = self.streams().clone();
        for mut begun in streams {
            // An error means that the server is gone.
            drop(begun.wait_for(|begun| *begun).await);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Vec<watch::Receiver<bool>>> {
        // Nothing under this lock can panic halfway.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the name by which other instances know this one, as in
    /// [`FetchError::silent`](crate::server::FetchError::silent); it is drawn at random.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.uid
    }

    /// Tells whether Redis is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Returns how many messages have not, or may not have, reached other instances, or this one from them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.link.losses().total()
    }
}

fn random_instance() -> Option<Instance> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).ok()?;
    Some(Instance::from_random(random))
}

/// The [`Adapter`] of one namespace over Redis.
#[derive(Debug)]
pub struct RedisAdapter {
    core: Arc<Core>,
    recovery: Option<Recovery>,
}

/// What lets clients come back to any instance.
#[derive(Debug)]
struct Recovery {
    stream: Arc<Stream>,
    sessions: Arc<Sessions>,
    /// They end with this.
    tasks: Mutex<JoinSet<()>>,
}

impl Recovery {
    fn new(redis: &Redis, local: &Local) -> Option<Self> {
        let stream = Arc::new(Stream::new(local, &redis.link, &redis.config)?);
        let sessions = Arc::new(Sessions::new(local, &redis.link, &redis.config)?);
        redis.link.subscribe(&sessions.channel(), sessions::receiver(&sessions));
        redis.streams().push(stream.begun());
        Some(Self { stream, sessions, tasks: Mutex::default() })
    }

    fn start(&self, runtime: &tokio::runtime::Handle) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn_on(Arc::clone(&self.stream).write(), runtime);
        tasks.spawn_on(Arc::clone(&self.stream).read(), runtime);
        tasks.spawn_on(Arc::clone(&self.sessions).note(), runtime);
    }
}

struct Core {
    local: Local,
    link: Arc<Link>,
    config: Arc<RedisConfig>,
    uid: Arc<str>,
    protocol: Protocol,
    next_id: AtomicU64,
    /// Questions of ours that are open, by id.
    asked: Mutex<HashMap<String, Question>>,
    /// How many instances there were when that was last certain.
    counted: AtomicUsize,
    /// What the channels begin with that tell which instances there are.
    names: String,
    /// Questions of others that clients of ours have yet to answer.
    answering: Arc<Semaphore>,
    this: Weak<Self>,
}

/// A question to the other instances.
struct Question {
    replies: Arc<Replies>,
    /// The instances that have answered, where they have said their names.
    heard: HashSet<String>,
    /// Told when the question has come back to this instance.
    echo: Option<oneshot::Sender<()>>,
}

/// How a question learns how many were asked.
enum Asked {
    /// By those who listen where it was published.
    Plain,
    /// By the answer to publishing it, and whether it has come back to this instance.
    Sharded { listeners: oneshot::Receiver<u64>, echo: oneshot::Receiver<()> },
}

/// Most questions that are open at one time, in each direction; more are refused, or ignored.
const MAX_OPEN: usize = 10_000;
/// Longest time that clients are asked for on behalf of another instance.
const MAX_FOREIGN_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a question may take to come back to the instance that asked.
const ECHO_WITHIN: Duration = Duration::from_millis(500);
/// How long closing may wait for what is still to leave.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Protocol {
    Classic(Classic),
    Sharded(Sharded),
}

impl Protocol {
    fn channels(&self) -> Vec<&str> {
        match self {
            Self::Classic(classic) => classic.channels().to_vec(),
            Self::Sharded(sharded) => sharded.channels().to_vec(),
        }
    }

    fn room_channel(&self, room: &str) -> Option<String> {
        match self {
            Self::Classic(classic) => Some(classic.room_channel(room)),
            Self::Sharded(sharded) => sharded.room_channel(room),
        }
    }

    fn counted(&self) -> &str {
        match self {
            Self::Classic(classic) => classic.counted(),
            Self::Sharded(sharded) => sharded.counted(),
        }
    }

    fn encode(&self, say: Say<'_>) -> Option<(String, Vec<u8>)> {
        match self {
            Self::Classic(classic) => classic.encode(say),
            Self::Sharded(sharded) => sharded.encode(say),
        }
    }

    fn decode(&self, channel: &str, payload: &[u8]) -> Result<(String, Heard), Dropped> {
        match self {
            Self::Classic(classic) => classic.decode(channel, payload),
            Self::Sharded(sharded) => sharded.decode(payload),
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("local", &self.local).field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl RedisAdapter {
    fn new(redis: &Redis, local: Local) -> Self {
        let recovery = Recovery::new(redis, &local);
        let Redis { link, config, uid, .. } = redis.clone();
        let protocol = match config.mode {
            Mode::Classic => Protocol::Classic(Classic::new(&config.prefix, local.name(), &uid)),
            Mode::Sharded(subscription) => {
                Protocol::Sharded(Sharded::new(&config.prefix, local.name(), &uid, subscription))
            }
        };
        let names = format!("{}-instances#{}#", config.prefix, local.name());
        let core = Arc::new_cyclic(|this| Core {
            local,
            link,
            config,
            uid,
            protocol,
            next_id: AtomicU64::new(0),
            asked: Mutex::default(),
            counted: AtomicUsize::new(0),
            names,
            answering: Arc::new(Semaphore::new(MAX_OPEN)),
            this: Weak::clone(this),
        });
        let adapter = Self { core, recovery };
        for channel in adapter.core.protocol.channels() {
            adapter.core.link.subscribe(channel, adapter.receiver());
        }
        // Nothing is published there: that it is listened to tells the others that this instance is there.
        let name = format!("{}{}#", adapter.core.names, adapter.core.uid);
        adapter.core.link.subscribe(&name, adapter.receiver());
        adapter
    }

    fn receiver(&self) -> Weak<dyn Receive> {
        // The same one each time, for comparison.
        self.core.this.clone()
    }

    fn listen(&self, room: &str) {
        if let Some(channel) = self.core.protocol.room_channel(room) {
            self.core.link.subscribe(&channel, self.receiver());
        }
    }

    fn ignore(&self, room: &str) {
        if let Some(channel) = self.core.protocol.room_channel(room) {
            self.core.link.unsubscribe(&channel);
        }
    }
}

impl Drop for RedisAdapter {
    fn drop(&mut self) {
        self.core.link.forget(&self.receiver());
        if let Some(recovery) = &self.recovery {
            self.core.link.forget(&sessions::receiver(&recovery.sessions));
        }
    }
}

impl Adapter for RedisAdapter {
    fn start(&self) {
        if let Some(recovery) = &self.recovery {
            recovery.start(self.core.link.runtime());
        }
    }

    fn broadcast(&self, packet: &Outgoing, target: &Target) {
        if let Some(Recovery { stream, .. }) = self.recovery.as_ref().filter(|_| !target.local && !target.volatile) {
            return stream.append(packet, target);
        }
        if !target.local {
            // Counted and logged already.
            let _lost = self.core.say(Say::Broadcast { packet, target });
        }
        self.core.local.broadcast(packet, target);
    }

    fn command(&self, command: Command<'_>) -> Result<(), ClusterError> {
        self.core.say(match command {
            Command::Join(target, rooms) => Say::Join(target, rooms),
            Command::Leave(target, rooms) => Say::Leave(target, rooms),
            Command::Disconnect { target, close } => Say::Disconnect { target, close },
            Command::ServerSideEmit(event) => Say::ServerSideEmit { id: None, event },
        })
    }

    fn request(&self, request: Request<'_>, timeout: Duration, replies: Replies) {
        let core = &self.core;
        let id = format!("{}{:x}", core.uid, core.next_id.fetch_add(1, Relaxed));
        let replies = Arc::new(replies);
        let (echo, echoed) = oneshot::channel();
        {
            let mut asked = core.asked();
            if asked.len() >= MAX_OPEN {
                return replies.failed(ClusterError::Unreachable);
            }
            let question = Question { replies: Arc::clone(&replies), heard: HashSet::new(), echo: Some(echo) };
            asked.insert(id.clone(), question);
        }
        let said = core.ask(
            match request {
                Request::Emit(packet, target) => Say::Ask { id: &id, packet, target, timeout },
                Request::FetchSockets(target) => Say::Fetch { id: &id, target },
                Request::ServerSideEmit(event) => Say::ServerSideEmit { id: Some(&id), event },
            },
            echoed,
        );
        let core = Arc::clone(core);
        core.link.clone().runtime().spawn(async move {
            let counted = match said {
                Ok(asked) => core.count(asked).await,
                Err(error) => Err(error),
            };
            match counted {
                Ok(count) => {
                    if let Some(count) = count {
                        replies.instances(count);
                    }
                    // The one who asks has the same deadline, and goes when it has heard enough.
                    let _over = tokio::time::timeout(timeout, replies.closed()).await;
                }
                Err(error) => replies.failed(error),
            }
            core.asked().remove(&id);
        });
    }

    fn instances(&self) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + '_>> {
        Box::pin(async {
            // Where Redis does not say it, none is known.
            self.core.others().await.unwrap_or_default()
        })
    }

    fn recovers(&self) -> bool {
        self.recovery.is_some()
    }

    fn when_placed(&self, then: Box<dyn FnOnce() + Send>) {
        match &self.recovery {
            Some(Recovery { stream, .. }) => stream.when_placed(then),
            None => then(),
        }
    }

    fn claim_session<'a>(&'a self, pid: &'a str) -> Pin<Box<dyn Future<Output = Option<SessionRecord>> + Send + 'a>> {
        Box::pin(async move { self.recovery.as_ref()?.sessions.claim(pid).await })
    }

    fn request_timeout(&self) -> Duration {
        self.core.config.request_timeout
    }

    fn room_created(&self, room: &Room) {
        self.listen(room);
    }

    fn room_deleted(&self, room: &str) {
        self.ignore(room);
    }

    fn socket_added(&self, socket: &Socket) {
        self.listen(socket.id());
    }

    fn socket_removed(&self, socket: &Socket) {
        self.ignore(socket.id());
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            if let Some(Recovery { stream, sessions, .. }) = &self.recovery {
                let left = async { tokio::join!(stream.emptied(), self.core.local.sessions_noted()) };
                // What has not left by then is lost; sessions stay what they were.
                let _late = tokio::time::timeout(FLUSH_TIMEOUT, left).await;
                self.core.link.forget(&sessions::receiver(sessions));
            }
            self.core.link.forget(&self.receiver());
            if self.core.link.is_connected() {
                // What has not left by then is lost, and counted.
                let _late = tokio::time::timeout(FLUSH_TIMEOUT, self.core.link.flush()).await;
            }
        })
    }
}

impl Core {
    fn asked(&self) -> MutexGuard<'_, HashMap<String, Question>> {
        // Nothing under this lock can panic halfway.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, say: Say<'_>) -> Result<(), ClusterError> {
        let (channel, payload) = self.encode(say)?;
        self.link.publish(&channel, payload)
    }

    /// Asks the other instances.
    fn ask(&self, say: Say<'_>, echo: oneshot::Receiver<()>) -> Result<Asked, ClusterError> {
        let (channel, payload) = self.encode(say)?;
        match self.link.kind() {
            Kind::Plain => self.link.publish(&channel, payload).map(|()| Asked::Plain),
            Kind::Sharded => {
                let listeners = self.link.publish_counted(&channel, payload)?;
                Ok(Asked::Sharded { listeners, echo })
            }
        }
    }

    /// Returns how many other instances were asked; `None` where that is unknown.
    async fn count(&self, asked: Asked) -> Result<Option<usize>, ClusterError> {
        let channel = self.protocol.counted();
        let (listeners, mut echo) = match asked {
            // A subscriber to patterns receives a question as well, and does not answer.
            Asked::Plain => return self.link.count(channel).await.map(|count| Some(count.saturating_sub(1))),
            Asked::Sharded { listeners, echo } => (listeners, echo),
        };
        let listeners = listeners.await.map_err(|_lost| ClusterError::Unreachable)?;
        let listeners = usize::try_from(listeners).unwrap_or(usize::MAX);
        // A question that does not come back went to a node where this instance listens no more, or not yet; others may
        // not listen there either.
        let has_come_back = tokio::time::timeout(ECHO_WITHIN, &mut echo).await.is_ok();
        let count = listeners.saturating_sub(usize::from(has_come_back));
        if has_come_back && self.link.is_settled(channel) {
            self.counted.store(count, Relaxed);
            return Ok(Some(count));
        }
        let Ok(named) = self.others().await else { return Ok(None) };
        Ok(Some(count.max(named.len()).max(self.counted.load(Relaxed))))
    }

    /// The names of the other instances.
    async fn others(&self) -> Result<Vec<String>, ClusterError> {
        let mut names = self.link.channels(&self.names).await?;
        names.retain_mut(|name| {
            let uid = name.strip_prefix(&*self.names).and_then(|name| name.strip_suffix('#')).map(str::to_owned);
            uid.is_some_and(|uid| {
                *name = uid;
                *name != *self.uid
            })
        });
        Ok(names)
    }

    fn encode(&self, say: Say<'_>) -> Result<(String, Vec<u8>), ClusterError> {
        let Some((channel, payload)) = self.protocol.encode(say) else {
            self.link.losses().count(1, "they cannot be encoded");
            return Err(ClusterError::Encoding);
        };
        let (bytes, limit) = (payload.len(), self.config.max_message_bytes);
        if bytes > limit {
            self.link.losses().count(1, "they are too large");
            return Err(ClusterError::TooLarge { bytes, limit });
        }
        Ok((channel, payload))
    }

    /// Answers another instance; where that is lost, it is counted.
    fn answer(&self, say: Say<'_>) {
        let _lost = self.say(say);
    }

    fn hear(&self, from: String, heard: Heard) {
        match heard {
            Heard::Broadcast { event, target } => match Outgoing::forward(self.local.name(), None, event) {
                Ok(packet) => self.local.broadcast(&packet, &target),
                Err(error) => {
                    tracing::debug!(%error, "a broadcast of another instance was dropped");
                    self.link.losses().count(1, NOT_UNDERSTOOD);
                }
            },
            Heard::Ask { id, event, target, timeout } => {
                let timeout = timeout.unwrap_or(self.config.request_timeout).min(MAX_FOREIGN_TIMEOUT);
                self.ask_clients(from, id, event, &target, timeout);
            }
            Heard::Join(target, rooms) => self.local.join(&target, &rooms),
            Heard::Leave(target, rooms) => self.local.leave(&target, &rooms),
            Heard::Disconnect { target, close } => self.local.disconnect(&target, close),
            Heard::Fetch { id, target } => {
                let sockets: Vec<_> = self.local.sockets(&target).iter().map(SocketInfo::of).collect();
                self.answer(Say::Sockets { to: &from, id: &id, sockets: &sockets });
            }
            Heard::ServerSideEmit { id: None, event } => self.local.server_side_emit(&event, None),
            Heard::ServerSideEmit { id: Some(id), event } => {
                // An ack that is kept does not keep the adapter.
                let core = Weak::clone(&self.this);
                let ack = ServerAck::new(move |data| {
                    if let Some(core) = core.upgrade() {
                        core.answer(Say::ServerSideAnswer { to: &from, id: &id, data: &data });
                    }
                });
                self.local.server_side_emit(&event, Some(ack));
            }
            Heard::Clients { id, count } => self.replied(from, &id, |replies| replies.clients(count)),
            Heard::ServerSideAnswer { id, data } => self.replied(from, &id, |replies| replies.answer(data)),
            Heard::Sockets { id, sockets } => self.replied(from, &id, |replies| replies.sockets(sockets)),
            // There is one for each client.
            Heard::Ack { id, data } => {
                if let Some(question) = self.asked().get(&id) {
                    question.replies.answer(data);
                }
            }
            Heard::Ids { id, target } => {
                let ids: Vec<Room> = self.local.sockets(&target).iter().map(|socket| (&**socket.id()).into()).collect();
                self.answer(Say::Ids { id: &id, ids: &ids });
            }
            Heard::Rooms { id } => self.answer(Say::Rooms { id: &id, rooms: &self.local.rooms() }),
        }
    }

    /// Takes what an instance has to say of its own. What comes twice, since a question went out twice, counts once.
    fn replied(&self, from: String, id: &str, reply: impl FnOnce(&Replies)) {
        let mut asked = self.asked();
        let Some(question) = asked.get_mut(id) else { return };
        if !from.is_empty() {
            if question.heard.contains(&from) {
                return;
            }
            question.replies.heard(&from);
            question.heard.insert(from);
        }
        reply(&question.replies);
    }

    /// Takes note that a question of ours has come back.
    fn echoed(&self, heard: &Heard) {
        let (Heard::Ask { id, .. } | Heard::Fetch { id, .. } | Heard::ServerSideEmit { id: Some(id), .. }) = heard
        else {
            return;
        };
        let echo = self.asked().get_mut(id).and_then(|question| question.echo.take());
        // An error means that the caller no longer waits.
        let _late = echo.map(|echo| echo.send(()));
    }

    fn ask_clients(&self, from: String, id: String, event: crate::Event, target: &Target, timeout: Duration) {
        let Ok(permit) = Arc::clone(&self.answering).try_acquire_owned() else {
            tracing::debug!("too many acks are waited for on behalf of other instances");
            return;
        };
        let mut acks = self.local.emit_with_ack(event, target, timeout);
        self.answer(Say::Clients { to: &from, id: &id, count: acks.clients() });
        let core = Weak::clone(&self.this);
        self.link.runtime().spawn(async move {
            while let Some(data) = acks.next().await {
                let Some(core) = core.upgrade() else { return };
                core.answer(Say::Ack { to: &from, id: &id, data: &data });
            }
            drop(permit);
        });
    }
}

impl Receive for Core {
    fn receive(&self, channel: &str, payload: Vec<u8>) {
        let heard = if payload.len() > self.config.max_message_bytes {
            Err(Dropped::Lost("it is too large"))
        } else {
            self.protocol.decode(channel, &payload)
        };
        drop(payload);
        match heard {
            // What we have said ourselves is done already.
            Ok((from, heard)) if *from == *self.uid => self.echoed(&heard),
            Ok((from, heard)) => self.hear(from, heard),
            Err(Dropped::Foreign(why)) => tracing::debug!(why, "a message of another instance was dropped"),
            Err(Dropped::Lost(why)) => {
                tracing::debug!(why, "a message of another instance was dropped");
                self.link.losses().count(1, NOT_UNDERSTOOD);
            }
        }
    }
}
