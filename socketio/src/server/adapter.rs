//! Several instances of a server as one: the contract of what connects them.
//!
//! Each namespace keeps its own sockets and rooms in memory, and delivers to them without an adapter. An [`Adapter`]
//! stands beside that: it is given every broadcast, hands it to the sockets of this instance through [`Local`], and
//! carries it to the other instances; it learns which rooms have members here, so that it need not listen for others;
//! and it carries what one instance asks of the rest. [`IoBuilder::adapter`](super::IoBuilder::adapter) sets it.
//!
//! What an application does is the same with an adapter and without:
//!
//! ```
//! use socketio::{Io, Namespace};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let io = Io::builder() // .adapter(…)
//!     .namespace("/", |root| {
//!         root.on_server_side("reload", |_: &Namespace, what: String, ack| {
//!             // Another instance says so.
//!             let _unserialisable = ack.map(|ack| ack.send((format!("{what} is new"),)));
//!         });
//!     })
//!     .build()?;
//! let root = io.of("/").ok_or("it was just registered")?;
//! root.to("lobby").sockets_join("game")?;
//! for socket in root.to("game").fetch_sockets().await? {
//!     socket.emit("welcome", (socket.id(),))?;
//! }
//! let acks = root.server_side_emit_with_ack::<String>("reload", ("settings",)).await?;
//! assert!(acks.is_complete() && acks.answers.is_empty()); // there are no others
//! # Ok(()) }
//! ```
//!
//! No method of an adapter waits: it queues what it has to send, within a limit. What is lost on the way to other
//! instances is the adapter's to count and to log; only a [`Command`] and a [`Request`] have somebody to tell. Delivery
//! within this instance never depends on the others.

mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

pub(super) use self::memory::Memory;
pub use super::outgoing::Outgoing;
pub use super::recovery::{NoPosition, Position, SessionChange, SessionRecord};

use super::namespace::{Namespace, ServerAck, Shared};
use super::recovery::{Changes, Recovery, RecoveryConfig};
use super::socket::{Room, Socket, SocketId};
use crate::{Data, Event, json};

/// Whom a broadcast is for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Target {
    /// Sockets in any of these rooms, each once; everyone if empty. Each socket is also in a room named by its id.
    pub rooms: Vec<Room>,
    /// Sockets in any of these rooms are left out.
    pub except_rooms: Vec<Room>,
    /// These sockets are left out, as if [`except_rooms`](Self::except_rooms) named them.
    pub except: Vec<SocketId>,
    /// Only sockets of this instance.
    pub local: bool,
    /// Sockets whose client is not ready at once are passed over.
    pub volatile: bool,
}

impl Target {
    /// Returns everything that is left out by name, rooms and sockets.
    pub fn excluded(&self) -> impl Iterator<Item = &str> {
        self.except_rooms.iter().map(|room| &**room).chain(self.except.iter().map(SocketId::as_str))
    }
}

/// What connects one namespace with its like in other instances.
///
/// The methods that tell of rooms and sockets are called in the order in which things happen, under a lock of the room
/// or the socket: they must not call back into [`Local`] or the socket.
pub trait Adapter: fmt::Debug + Send + Sync + 'static {
    /// The namespace is there. Until this is called, once and before any other method, its [`Local`] is empty.
    fn start(&self) {}

    /// Sends a packet to all sockets of a target, in order with other broadcasts from the same task: to those of this
    /// instance with [`Local::broadcast`], at once or when its place among the broadcasts of all instances is known, and
    /// to others unless the target is [`local`](Target::local).
    fn broadcast(&self, packet: &Outgoing, target: &Target);

    /// Has the other instances do what this one has done already.
    ///
    /// # Errors
    /// [`ClusterError`] where it is known already that they will not learn of it.
    fn command(&self, command: Command<'_>) -> Result<(), ClusterError>;

    /// Asks the other instances. What they say goes to `replies`, for as long as `timeout`; dropping it says that nothing
    /// more will come.
    fn request(&self, request: Request<'_>, timeout: Duration, replies: Replies);

    /// Tells whether clients that were cut off can come back to any instance. Default: no, so that
    /// [`recovery`](super::IoBuilder::recovery) is refused.
    ///
    /// Where it is so and [`Local::recovery`] has settings, [`broadcast`](Self::broadcast) draws a place among the events
    /// of all instances for whatever is neither local nor volatile, and every instance passes such events to
    /// [`Local::place`] in the order of their places, its own too. What [`Local::session_changes`] answers is noted down
    /// where all instances find it.
    fn recovers(&self) -> bool {
        false
    }

    /// Takes over the session of a client that has come back, from whichever instance, and returns it with its new
    /// generation; `None` where there is none, or nobody can tell in time.
    fn claim_session<'a>(&'a self, _pid: &'a str) -> Pin<Box<dyn Future<Output = Option<SessionRecord>> + Send + 'a>> {
        Box::pin(std::future::ready(None))
    }

    /// Runs something once all events have been placed, or given up, that this instance has sent so far. Default: at once.
    fn when_placed(&self, then: Box<dyn FnOnce() + Send>) {
        then();
    }

    /// Returns the names of the other instances that are there, as [`Replies::heard`] has them, so that those which do not
    /// answer can be named. It is asked only then, and for a second at most. Default: none is known.
    fn instances(&self) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + '_>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// Returns how long to wait for what other instances know by themselves. Default: 5 s, as in the reference.
    fn request_timeout(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// A room has its first member in this instance.
    fn room_created(&self, _room: &Room) {}

    /// A room has lost its last member in this instance.
    fn room_deleted(&self, _room: &str) {}

    /// A socket is connected; its id names a room from now on.
    fn socket_added(&self, _socket: &Socket) {}

    /// A socket is gone, after it has left its rooms.
    fn socket_removed(&self, _socket: &Socket) {}

    /// Leaves the other instances, when the server closes; what was queued still goes out.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// What all instances are to do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Command<'a> {
    /// The sockets of a target join rooms.
    Join(&'a Target, &'a [Room]),
    /// The sockets of a target leave rooms.
    Leave(&'a Target, &'a [Room]),
    /// The sockets of a target are disconnected.
    Disconnect {
        /// Which.
        target: &'a Target,
        /// With their whole clients.
        close: bool,
    },
    /// The handler of an event that servers send each other runs.
    ServerSideEmit(&'a Event),
}

/// What one instance asks of the others.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Request<'a> {
    /// To send a packet and to return what clients answer: [`Replies::clients`] from each instance, [`Replies::answer`]
    /// for each client.
    Emit(&'a Outgoing, &'a Target),
    /// To describe the sockets of a target: [`Replies::sockets`] from each instance.
    FetchSockets(&'a Target),
    /// To run the handler of an event, and to return what it answers: [`Replies::answer`] from each instance.
    ServerSideEmit(&'a Event),
}

/// Where an [`Adapter`] puts what the other instances say.
#[derive(Debug)]
pub struct Replies(mpsc::UnboundedSender<Reply>);

#[derive(Debug)]
pub(super) enum Reply {
    Instances(usize),
    Heard(String),
    Clients(usize),
    Answer(Data),
    Sockets(Vec<SocketInfo>),
    Failed(ClusterError),
}

impl Replies {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Reply>) {
        let (replies, received) = mpsc::unbounded_channel();
        (Self(replies), received)
    }

    fn send(&self, reply: Reply) {
        // An error means that nobody waits any more.
        let _late = self.0.send(reply);
    }

    /// So many other instances were asked. Answers may come before this, and the last number counts.
    pub fn instances(&self, count: usize) {
        self.send(Reply::Instances(count));
    }

    /// The instance of this name has said what there is to say of its own, where it is known by one; what it was comes
    /// right after this.
    pub fn heard(&self, instance: &str) {
        self.send(Reply::Heard(instance.to_owned()));
    }

    /// One instance has passed the packet on to so many clients.
    pub fn clients(&self, count: usize) {
        self.send(Reply::Clients(count));
    }

    /// One client, or one instance, has answered: an array of arguments.
    pub fn answer(&self, answer: Data) {
        self.send(Reply::Answer(answer));
    }

    /// One instance has described its sockets.
    pub fn sockets(&self, sockets: Vec<SocketInfo>) {
        self.send(Reply::Sockets(sockets));
    }

    /// The instances cannot be asked.
    pub fn failed(&self, error: ClusterError) {
        self.send(Reply::Failed(error));
    }

    /// Waits until nobody waits any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Tells whether nobody waits any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A socket as instances describe it to each other, with the field names of socket.io.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SocketInfo {
    /// The public id.
    pub id: String,
    /// The request that opened the session: `address`, `headers`, `issued` in milliseconds and so on. Instances of this
    /// crate leave `auth` and `query` empty: credentials stay at the instance that has them. A field that does not fit a `Value`,
    /// since a client has put half of a surrogate pair or a number out of range there, is left out.
    #[serde(default, deserialize_with = "fitting")]
    pub handshake: Value,
    /// The rooms it has joined; instances of socket.io also list the one named by its id.
    #[serde(default, deserialize_with = "names")]
    pub rooms: Vec<String>,
    /// What [`Socket::set_data`] has kept, as it is.
    #[serde(default = "no_data")]
    pub data: Box<RawValue>,
    /// The attachments that `data` refers to: servers of socket.io in Node.js may keep binary data there.
    #[serde(skip)]
    pub attachments: Arc<[Bytes]>,
}

/// A room, which in JavaScript may be a number too, and hold halves of surrogate pairs.
pub(super) struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let number = || serde_json::from_str::<f64>(raw.get()).is_ok().then(|| raw.get().to_owned());
        json::text(raw.get()).or_else(number).map(Self).ok_or_else(|| D::Error::custom("no name of a room"))
    }
}

impl From<Name> for String {
    fn from(Name(name): Name) -> Self {
        name
    }
}

impl From<Name> for Room {
    fn from(Name(name): Name) -> Self {
        name.into()
    }
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Name>::deserialize(deserializer)?.into_iter().map(String::from).collect())
}

/// Reads a value, of an object the fields that are one.
fn fitting<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    if let Ok(value) = serde_json::from_str(raw.get()) {
        return Ok(value);
    }
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(raw.get()).unwrap_or_default();
    let fitting = fields.into_iter().filter_map(|(name, field)| Some((name, serde_json::from_str(field.get()).ok()?)));
    Ok(Value::Object(fitting.collect()))
}

fn no_data() -> Box<RawValue> {
    to_raw_value(&serde_json::Map::new()).unwrap_or_default()
}

/// Equal text and equal attachments.
impl PartialEq for SocketInfo {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.handshake, &self.rooms, self.data.get(), &self.attachments)
            == (&other.id, &other.handshake, &other.rooms, other.data.get(), &other.attachments)
    }
}

impl SocketInfo {
    /// Describes a socket of this instance.
    #[must_use]
    pub fn of(socket: &Socket) -> Self {
        let own = std::iter::once(socket.id().to_string());
        Self {
            id: socket.id().to_string(),
            handshake: socket.handshake().describe(),
            rooms: own.chain(socket.rooms().iter().map(|room| room.to_string())).collect(),
            data: socket.data().unwrap_or_else(|_| no_data()),
            attachments: Arc::default(),
        }
    }
}

/// Why other instances were not reached, or did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterError {
    /// What connects the instances cannot be reached, or takes no more for now.
    Unreachable,
    /// Not every instance answered in time.
    Timeout {
        /// How many did.
        answered: usize,
        /// How many were asked, where that became known.
        asked: Option<usize>,
    },
    /// The message is larger than the adapter passes on.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// The message has no form in which instances could pass it on: it is nested too deep.
    Encoding,
    /// The server is closing.
    Closed,
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("the other instances cannot be reached"),
            Self::Timeout { answered, asked: Some(asked) } => {
                write!(f, "{answered} of {asked} other instances answered in time")
            }
            Self::Timeout { answered, asked: None } => write!(f, "{answered} other instances answered in time"),
            Self::TooLarge { bytes, limit } => write!(f, "a message of {bytes} bytes, more than {limit}"),
            Self::Encoding => f.write_str("the message is nested too deep"),
            Self::Closed => f.write_str("the server is closing"),
        }
    }
}

impl std::error::Error for ClusterError {}

/// The sockets of one namespace in this instance, as its adapter sees them. Once the server is gone it is empty.
#[derive(Clone)]
pub struct Local {
    name: Box<str>,
    namespace: Weak<Shared>,
    sessions: Option<(RecoveryConfig, Arc<Changes>)>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Local").field(&self.name).finish()
    }
}

impl Local {
    pub(super) fn new(name: &str, namespace: Weak<Shared>, sessions: Option<(RecoveryConfig, Arc<Changes>)>) -> Self {
        Self { name: name.into(), namespace, sessions }
    }

    /// Returns the name of the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespace while its server lives. An adapter that keeps it keeps the server alive.
    #[must_use]
    pub fn namespace(&self) -> Option<Namespace> {
        self.namespace.upgrade().map(Namespace::of)
    }

    /// Sends a packet to the sockets of a target in this instance. It has no place among the events of all.
    pub fn broadcast(&self, packet: &Outgoing, target: &Target) {
        if let Some(shared) = self.namespace.upgrade() {
            shared.pass(packet, target);
        }
    }

    /// Returns the settings of connection state recovery, where it is on.
    #[must_use]
    pub fn recovery(&self) -> Option<&RecoveryConfig> {
        self.sessions.as_ref().map(|(recovery, _)| recovery)
    }

    fn recovering(&self, tell: impl FnOnce(&Shared, &Recovery)) {
        if let Some(shared) = self.namespace.upgrade()
            && let Some(recovery) = shared.recovery()
        {
            tell(&shared, recovery);
        }
    }

    /// Takes note of an event that has got its place, which is behind those of all before it, and sends it to the sockets
    /// of its target in this instance if `deliver` says so: they may have it already, or it is older than this instance.
    pub fn place(&self, position: Position, packet: &Outgoing, target: &Target, deliver: bool) {
        self.recovering(|shared, recovery| recovery.place(shared.memory(), position, packet, target, deliver));
    }

    /// All events behind a position are going to be [placed](Self::place), first those that were there before this
    /// instance; then comes [`begun`](Self::begun). Until then no client can come back.
    pub fn begin(&self, floor: Position) {
        self.recovering(|_, recovery| recovery.begin(floor));
    }

    /// What is placed from here on is new.
    pub fn begun(&self) {
        self.recovering(|_, recovery| recovery.begun());
    }

    /// Events may have been lost behind the last one placed. Clients that have not received that one cannot recover.
    pub fn events_lost(&self) {
        self.recovering(|_, recovery| recovery.lost());
    }

    /// Returns the position behind which events may still be asked for.
    #[must_use]
    pub fn floor(&self) -> Option<Position> {
        let shared = self.namespace.upgrade()?;
        shared.recovery().map(Recovery::floor)
    }

    /// Waits until sessions have changed, and returns up to `max` changes; [`noted`](Self::noted) is to follow.
    pub async fn session_changes(&self, max: usize) -> Vec<SessionChange> {
        let Some((_, changes)) = &self.sessions else { return std::future::pending().await };
        loop {
            changes.grown().await;
            let taken = changes.take(max);
            if !taken.is_empty() {
                return taken;
            }
        }
    }

    /// So many changes are noted down, but for these, which will be returned once more.
    pub fn noted(&self, taken: usize, left: Vec<SessionChange>) {
        if let Some((_, changes)) = &self.sessions {
            changes.done(taken, left);
        }
    }

    /// Waits until all changes of sessions are noted down.
    pub async fn sessions_noted(&self) {
        if let Some((_, changes)) = &self.sessions {
            changes.settled().await;
        }
    }

    /// A session has been taken over by a socket of this or another instance: one of an earlier generation leaves.
    pub fn session_superseded(&self, pid: &str, generation: u64) {
        self.recovering(|_, recovery| recovery.superseded(pid, generation));
    }

    /// A session was not to be found where it should have been noted down. If its client is here it is noted down anew.
    pub fn session_forgotten(&self, pid: &str) {
        self.recovering(|_, recovery| recovery.forgotten(pid));
    }

    /// Sends an event to the sockets of a target in this instance, and asks each for an ack. An event that cannot be
    /// encoded is sent to nobody.
    #[must_use]
    pub fn emit_with_ack(&self, event: Event, target: &Target, timeout: Duration) -> LocalAcks {
        let Some(shared) = self.namespace.upgrade() else { return LocalAcks::default() };
        let id = shared.next_ack();
        Outgoing::forward(&self.name, Some(id), event)
            .map(|packet| shared.ask(&packet, id, target, timeout))
            .unwrap_or_default()
    }

    /// Returns the sockets of a target in this instance.
    #[must_use]
    pub fn sockets(&self, target: &Target) -> Vec<Socket> {
        self.namespace.upgrade().map(|shared| shared.memory().sockets(target)).unwrap_or_default()
    }

    /// Tells whether a socket of this instance is in a room, or named like it.
    #[must_use]
    pub fn has_room(&self, room: &str) -> bool {
        self.namespace.upgrade().is_some_and(|shared| shared.memory().has_room(room))
    }

    /// Returns the rooms with sockets of this instance, also those that are named by their ids.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        self.namespace.upgrade().map(|shared| shared.memory().names()).unwrap_or_default()
    }

    /// Puts the sockets of a target in this instance into rooms.
    pub fn join(&self, target: &Target, rooms: &[Room]) {
        for socket in self.sockets(target) {
            rooms.iter().for_each(|room| socket.join(Room::clone(room)));
        }
    }

    /// Takes the sockets of a target in this instance out of rooms.
    pub fn leave(&self, target: &Target, rooms: &[Room]) {
        for socket in self.sockets(target) {
            rooms.iter().for_each(|room| socket.leave(room));
        }
    }

    /// Disconnects the sockets of a target in this instance, with `close` their whole clients.
    pub fn disconnect(&self, target: &Target, close: bool) {
        for socket in self.sockets(target) {
            socket.disconnect(close);
        }
    }

    /// Runs the handler of an event that another instance has sent; without one it is dropped, and so is one whose
    /// arguments do not fit.
    pub fn server_side_emit(&self, event: &Event, ack: Option<ServerAck>) {
        if let Some(namespace) = self.namespace() {
            namespace.run_server_side(event, ack);
        }
    }
}

/// Acks that sockets of this instance owe.
#[derive(Debug, Default)]
pub struct LocalAcks {
    /// Who was asked and has not answered yet.
    pub(super) missing: HashSet<SocketId>,
    pub(super) answers: Option<mpsc::UnboundedReceiver<(SocketId, Data)>>,
}

impl LocalAcks {
    /// Returns how many sockets were asked.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.missing.len()
    }

    /// Waits for the next answer; `None` when the rest will not answer: they have left, or their time is up.
    pub async fn next(&mut self) -> Option<Data> {
        let (socket, answer) = self.answers.as_mut()?.recv().await?;
        self.missing.remove(&socket);
        Some(answer)
    }
}
