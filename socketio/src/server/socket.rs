//! One client in one namespace.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytestring::ByteString;
use engineio::CloseReason as EngineReason;
use engineio::server::{Handshake as EngineHandshake, SendError};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::SlowClients;
use super::adapter::Target;
use super::broadcast::Broadcast;
use super::client::{Ask, Mail};
use super::namespace::Namespace;
use super::outgoing::{Flushes, Outgoing};
use super::recovery::Position;
use crate::{Arguments, CloseReason, Data, FromArguments, Slot, UsageError};

/// The name of a room.
pub type Room = Arc<str>;

/// The public id of a socket: 20 random characters of `A-Za-z0-9_-`, different from the session's secret id.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SocketId(ByteString);

impl SocketId {
    /// Draws an id; `None` where the system has no randomness to give.
    pub(super) fn random() -> Option<Self> {
        let mut random = [0; 15];
        match getrandom::fill(&mut random) {
            Ok(()) => Some(Self(engineio::Sid::from_random(random).expose().into())),
            Err(error) => {
                tracing::error!(%error, "no randomness for a socket id");
                None
            }
        }
    }

    /// Reads an id, of another instance or of a session; `None` for what cannot be one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        engineio::Sid::parse(text).map(|id| Self(id.expose().into()))
    }

    /// Returns the id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for SocketId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is kept of the request that opened the session.
#[derive(Debug)]
#[non_exhaustive]
pub struct Handshake {
    /// Where the request came from: the client, or the proxy in front of us.
    pub address: SocketAddr,
    /// When it came.
    pub issued: SystemTime,
    /// The headers that [`Config::kept_headers`](super::Config) names.
    pub headers: HeaderMap,
}

impl Handshake {
    pub(super) fn of(handshake: &EngineHandshake<'_>, kept_headers: &[HeaderName]) -> Self {
        let mut headers = HeaderMap::new();
        for name in kept_headers {
            for value in handshake.request.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        Self { address: handshake.peer, issued: SystemTime::now(), headers }
    }

    /// Describes it in the words of socket.io, for other instances. Credentials stay here.
    pub(super) fn describe(&self) -> serde_json::Value {
        let of = |name| self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
        let headers = self.headers.keys().map(|name| (name.to_string(), of(name).join(", ").into()));
        let headers: serde_json::Map<_, _> = headers.collect();
        let issued = self.issued.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serde_json::json!({
            "headers": headers,
            "address": self.address.ip().to_string(),
            "issued": issued.as_millis() as u64,
            "auth": {},
            "query": {},
        })
    }
}

/// Why a client may not join a namespace. It reaches the client's `connect_error` as `{ message, data? }`.
#[derive(Debug)]
pub struct Refusal {
    pub(super) message: String,
    pub(super) data: Option<Box<RawValue>>,
}

impl Refusal {
    /// Makes a refusal with a message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }

    /// Adds data.
    ///
    /// # Errors
    /// Where it cannot be serialised.
    pub fn with_data(mut self, data: &impl Serialize) -> Result<Self, serde_json::Error> {
        self.data = Some(serde_json::value::to_raw_value(data)?);
        Ok(self)
    }
}

/// Why a socket was disconnected. [`as_str`](Self::as_str) gives the name that the reference server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The client left the namespace.
    ClientNamespaceDisconnect,
    /// The server disconnected the socket.
    ServerNamespaceDisconnect,
    /// The client closed its connection: a `close` packet or a WebSocket close frame.
    ClosedByClient,
    /// The connection ended without a goodbye.
    ConnectionLost,
    /// The transport failed, or the client fell too far behind.
    TransportError,
    /// No pong came in time.
    PingTimeout,
    /// The client sent bytes that are no Engine.IO packet.
    ParseError,
    /// The client sent text that is no Socket.IO packet.
    ForcedClose,
    /// The client sent a packet at the wrong moment, or the server closed its connection.
    ForcedServerClose,
    /// The server is shutting down.
    ServerShuttingDown,
}

impl DisconnectReason {
    /// Returns the reason's name in socket.io.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::ClosedByClient | Self::ConnectionLost => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::ForcedServerClose => "forced server close",
            Self::ServerShuttingDown => "server shutting down",
        }
    }

    /// Tells whether the client left on purpose: with a DISCONNECT packet, a `close` packet or a close frame.
    #[must_use]
    pub fn is_deliberate(self) -> bool {
        matches!(self, Self::ClientNamespaceDisconnect | Self::ClosedByClient)
    }

    /// Tells whether the client may come back to its session, as in the reference: where neither side meant to end it.
    pub(super) fn is_recoverable(self) -> bool {
        match self {
            Self::ClientNamespaceDisconnect | Self::ServerNamespaceDisconnect | Self::ParseError => false,
            Self::ClosedByClient
            | Self::ConnectionLost
            | Self::TransportError
            | Self::PingTimeout
            | Self::ForcedClose
            | Self::ForcedServerClose
            | Self::ServerShuttingDown => true,
        }
    }

    pub(super) fn of_engine(reason: EngineReason, shutting_down: bool) -> Self {
        match reason {
            EngineReason::ClosedByClient => Self::ClosedByClient,
            EngineReason::ConnectionLost => Self::ConnectionLost,
            EngineReason::TransportError => Self::TransportError,
            EngineReason::PingTimeout => Self::PingTimeout,
            EngineReason::ParseError => Self::ParseError,
            EngineReason::ForcedClose if shutting_down => Self::ServerShuttingDown,
            // Also what a later version of the layer below may add.
            EngineReason::ForcedClose | _ => Self::ForcedServerClose,
        }
    }

    pub(super) fn of_core(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Malformed(_) => Self::ForcedClose,
            CloseReason::Violation(_) | CloseReason::ConnectTimeout => Self::ForcedServerClose,
        }
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an event was not sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EmitError {
    /// The socket is disconnected.
    Closed,
    /// As much waits for the client as may, see
    /// [`engineio::Config::max_backlog_bytes`]. Nothing of the event was sent; the client stays.
    Full,
    /// The event's name is reserved, or its arguments cannot be serialized.
    Usage(UsageError),
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the socket is disconnected"),
            Self::Full => f.write_str("too much waits for the client"),
            Self::Usage(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EmitError {}

impl From<UsageError> for EmitError {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<SendError> for EmitError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::Full,
            // Also what a later version of the layer below may add.
            SendError::Gone | _ => Self::Closed,
        }
    }
}

/// Why an ack did not come.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AckError {
    /// The event was not sent.
    Emit(EmitError),
    /// The client did not answer in time, or too many acks of it are outstanding.
    Timeout,
    /// The client left before it answered.
    Disconnected,
    /// The answer is of another type.
    Mismatch(crate::DataError),
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emit(error) => error.fmt(f),
            Self::Timeout => f.write_str("the client did not acknowledge the event in time"),
            Self::Disconnected => f.write_str("the client left before it acknowledged the event"),
            Self::Mismatch(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AckError {}

/// Who waits for an ack.
pub(super) enum Asker {
    One(oneshot::Sender<Answer>),
    /// One of many sockets that were asked the same; those that leave it unanswered drop it.
    Many(SocketId, mpsc::UnboundedSender<(SocketId, Data)>),
}

impl Asker {
    /// Passes the answer on, if anybody still waits.
    pub(super) fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::One(asked), answer) => drop(asked.send(answer)),
            (Self::Many(socket, asked), Answer::Data(data)) => drop(asked.send((socket, data))),
            (Self::Many(..), Answer::Expired) => {}
        }
    }
}

/// What becomes of an ack that is waited for.
pub(super) enum Answer {
    Data(Data),
    Expired,
}

/// A client in a namespace. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Socket {
    shared: Arc<Shared>,
}

struct Shared {
    id: SocketId,
    serial: u64,
    slot: Slot,
    namespace: Namespace,
    link: engineio::server::Socket<Mail>,
    handshake: Arc<Handshake>,
    auth: Option<ByteString>,
    connected: AtomicBool,
    state: Mutex<State>,
    /// Set where the client can come back after a cut.
    session: OnceLock<Box<Session>>,
}

/// What a socket knows of its recoverable session.
struct Session {
    /// The client's secret.
    pid: ByteString,
    recovered: bool,
    /// The number of the last event sent, where nobody else knows the session. Changes under the lock of the recovery.
    sent: AtomicU64,
    /// How often the session has been taken over.
    generation: u64,
    /// Up to where the client has received everything, and up to where it will have at the next pong.
    seen: Mutex<(Position, Position)>,
}

impl Session {
    fn seen(&self) -> MutexGuard<'_, (Position, Position)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session keeps while its client is away.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) id: SocketId,
    pub(super) rooms: Vec<Room>,
    pub(super) sent: u64,
    pub(super) data: Option<Box<RawValue>>,
    pub(super) extensions: http::Extensions,
}

#[derive(Default)]
struct State {
    rooms: HashSet<Room, RandomState>,
    /// Set when the socket has left its rooms: a late join must not bring it back.
    gone: bool,
    data: Option<Box<RawValue>>,
    extensions: http::Extensions,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.shared.id)
            .field("namespace", &self.shared.namespace)
            .finish_non_exhaustive()
    }
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

impl Socket {
    pub(super) fn new(
        id: SocketId,
        slot: Slot,
        namespace: Namespace,
        link: engineio::server::Socket<Mail>,
        handshake: Arc<Handshake>,
        auth: Option<ByteString>,
    ) -> Self {
        let shared = Shared {
            id,
            serial: NEXT_SERIAL.fetch_add(1, Relaxed),
            slot,
            namespace,
            link,
            handshake,
            auth,
            connected: AtomicBool::new(false),
            state: Mutex::default(),
            session: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the public id.
    #[must_use]
    pub fn id(&self) -> &SocketId {
        &self.shared.id
    }

    /// A number of this socket alone in this process, cheaper to compare than its id.
    pub(super) fn serial(&self) -> u64 {
        self.shared.serial
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    /// Returns what is kept of the request that opened the session.
    #[must_use]
    pub fn handshake(&self) -> &Handshake {
        &self.shared.handshake
    }

    /// Parses the credentials that came with the CONNECT packet; those of a client that sent none are `{}`.
    ///
    /// # Errors
    /// Where they do not fit the type.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.shared.auth.as_deref().unwrap_or("{}"))
    }

    /// Tells whether the socket is connected: after the middleware, until its end is known. The handlers of events that
    /// came before the end may still be running, or be yet to run, when it is not any more.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Acquire)
    }

    /// Tells whether the client has come back after a cut, with the id, rooms and data it had, and has been sent what it
    /// missed: see [`IoBuilder::recovery`](super::IoBuilder::recovery).
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.session().is_some_and(|session| session.recovered)
    }

    /// Keeps a value with the socket, in place of one of the same type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        self.state().extensions.insert(value);
    }

    /// Returns a value that [`insert`](Self::insert) has kept.
    #[must_use]
    pub fn value<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.state().extensions.get::<T>().cloned()
    }

    /// Keeps data with the socket that other instances may see too, see
    /// [`Broadcast::fetch_sockets`].
    ///
    /// # Errors
    /// Where it cannot be serialised.
    pub fn set_data(&self, data: &impl Serialize) -> Result<(), serde_json::Error> {
        let data = serde_json::value::to_raw_value(data)?;
        self.state().data = Some(data);
        self.changed();
        Ok(())
    }

    /// Parses what [`set_data`](Self::set_data) has kept last, `{}` where that is nothing.
    ///
    /// # Errors
    /// Where it does not fit the type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let state = self.state();
        serde_json::from_str(state.data.as_deref().map_or("{}", RawValue::get))
    }

    /// Sends an event.
    ///
    /// # Errors
    /// [`EmitError`] where the socket is disconnected, too much waits for its client, or the event cannot be encoded. That
    /// it was sent does not mean that it arrives.
    pub fn emit(&self, name: &str, arguments: impl Arguments) -> Result<(), EmitError> {
        let packet = Outgoing::event(self.shared.namespace.name(), None, name, arguments)?;
        match self.shared.namespace.shared().recovery().filter(|_| self.session().is_some()) {
            Some(recovery) => recovery.emit(self, &packet),
            None => self.send(packet, false),
        }
    }

    /// Sends an event as [`emit`](Self::emit) does, but waits first until little enough waits for the client: no more than
    /// [`engineio::Config::high_water_bytes`]. For much data, sent as fast as the client reads and no faster.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit). [`EmitError::Full`] comes only where others send to the client at the same time.
    pub async fn emit_when_ready(&self, name: &str, arguments: impl Arguments) -> Result<(), EmitError> {
        self.shared.link.ready().await?;
        self.emit(name, arguments)
    }

    /// Returns how many bytes wait to be sent to the client, over all its namespaces, with what each packet occupies
    /// beside its bytes.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.link.queued_bytes()
    }

    /// Sends an event that is dropped if the client is not ready for it at once.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit).
    pub fn emit_volatile(&self, name: &str, arguments: impl Arguments) -> Result<(), EmitError> {
        let packet = Outgoing::event(self.shared.namespace.name(), None, name, arguments)?;
        match self.shared.namespace.shared().recovery().filter(|_| self.session().is_some()) {
            Some(recovery) => recovery.pass_to(self, packet, true),
            None => self.send(packet, true),
        }
    }

    /// Sends an event and waits for the client's ack, for as long as `timeout`.
    ///
    /// # Errors
    /// [`AckError`].
    pub async fn emit_with_ack<T: FromArguments>(
        &self,
        name: &str,
        arguments: impl Arguments,
        timeout: Duration,
    ) -> Result<T, AckError> {
        let id = self.shared.namespace.shared().next_ack();
        let packet = Outgoing::event(self.shared.namespace.name(), Some(id), name, arguments).map_err(EmitError::from);
        let packet = packet.map_err(AckError::Emit)?;
        let (answer, answered) = oneshot::channel();
        let deadline = tokio::time::Instant::now().into_std().checked_add(timeout);
        let bytes = packet.bytes();
        let ask = Ask { slot: self.shared.slot, packet, id, deadline, asker: Asker::One(answer) };
        self.mail(Mail::Ask(Box::new(ask)), bytes).map_err(AckError::Emit)?;
        match answered.await {
            Ok(Answer::Data(data)) => data.args().map_err(AckError::Mismatch),
            Ok(Answer::Expired) => Err(AckError::Timeout),
            Err(_gone) => Err(AckError::Disconnected),
        }
    }

    /// Chooses everyone in the namespace but this socket, to be narrowed.
    pub fn broadcast(&self) -> Broadcast {
        let target = Target { except: vec![self.shared.id.clone()], ..Target::default() };
        Broadcast::new(self.shared.namespace.clone(), target)
    }

    /// Chooses everyone in a room but this socket.
    pub fn to(&self, room: impl Into<Room>) -> Broadcast {
        self.broadcast().to(room)
    }

    /// Joins a room. Nothing happens where the socket is in it already, or is gone.
    ///
    /// How many rooms a client may be in is for the handlers to limit that let it join.
    pub fn join(&self, room: impl Into<Room>) {
        let room = room.into();
        let mut state = self.state();
        if !state.gone && state.rooms.insert(Room::clone(&room)) {
            // Under the socket's own lock, so that it cannot be leaving at the same time.
            self.shared.namespace.shared().join(self, room);
            drop(state);
            self.changed();
        }
    }

    /// Leaves a room.
    pub fn leave(&self, room: &str) {
        let mut state = self.state();
        if state.rooms.remove(room) {
            self.shared.namespace.shared().leave(self, room);
            drop(state);
            self.changed();
        }
    }

    /// Has the session of the socket noted down as it is now, where instances share it.
    fn changed(&self) {
        if let Some(recovery) = self.shared.namespace.shared().recovery() {
            recovery.changed(self);
        }
    }

    /// Returns the rooms that the socket has joined, in no particular order. It is also in a room named by its id, which is not listed.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        self.state().rooms.iter().cloned().collect()
    }

    /// Disconnects the socket from its namespace with a DISCONNECT packet; with `close` the whole client, whose other
    /// sockets leave in the same way. What was emitted before still goes out.
    pub fn disconnect(&self, close: bool) {
        let (link, slot) = (self.shared.link.clone(), self.shared.slot);
        self.behind_events(move || {
            // An error means that it is gone already.
            let _gone = link.order(Mail::Disconnect { slot, close });
        });
    }

    /// Runs something behind the events sent so far, which may have to be given their places first.
    fn behind_events(&self, then: impl FnOnce() + Send + 'static) {
        match self.shared.namespace.shared().adapter() {
            Some(adapter) => adapter.when_placed(Box::new(then)),
            None => then(),
        }
    }

    /// Closes the client's connection without a DISCONNECT packet, as a server does that goes away: the published clients
    /// come back from that by themselves. The reason is [`DisconnectReason::ServerShuttingDown`].
    pub fn close_connection(&self) {
        let link = self.shared.link.clone();
        self.behind_events(move || {
            // An error means that it is gone already.
            let _gone = link.order(Mail::ShutDown { close: true });
        });
    }

    /// Sends a packet that asks for an ack; where the socket is gone its asker is dropped.
    pub(super) fn ask(
        &self,
        packet: Outgoing,
        id: u64,
        deadline: Deadline,
        answers: &mpsc::UnboundedSender<(SocketId, Data)>,
    ) {
        let bytes = packet.bytes();
        let asker = Asker::Many(self.shared.id.clone(), answers.clone());
        let ask = Ask { slot: self.shared.slot, packet, id, deadline, asker };
        let _gone = self.mail(Mail::Ask(Box::new(ask)), bytes);
    }

    /// Lets the client's sockets leave, since the server is closing.
    pub(super) fn shut_down(&self) {
        // An error means that it is gone already.
        let _gone = self.shared.link.order(Mail::ShutDown { close: false });
    }

    /// Takes a packet of a broadcast, unless the socket is gone. Where too much waits for the client, the namespace's policy
    /// decides.
    pub(super) fn deliver(&self, packet: Outgoing, bytes: usize, volatile: bool, flushes: &mut Flushes) {
        let Shared { link, slot, namespace, .. } = &*self.shared;
        let single = packet.single_frame().is_some();
        let mail = Mail::Send { slot: *slot, packet, volatile };
        let taken = if single {
            link.mail_for_flush(mail, bytes, || self.is_connected())
        } else if self.is_connected() {
            link.mail(mail, bytes).map(|()| false)
        } else {
            Ok(false)
        };
        match taken {
            Ok(true) => flushes.push(link.clone()),
            Err(SendError::Full) if !volatile && namespace.shared().slow_clients == SlowClients::Disconnect => {
                link.abort();
            }
            Ok(false) | Err(_) => {}
        }
    }

    /// Ends the client's connection at once, since it is too far behind to be sent an event that it has to get.
    pub(super) fn abort(&self) {
        self.shared.link.abort();
    }

    /// Returns `true` if a packet of this size would be taken.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.shared.link.has_room_for(bytes)
    }

    pub(super) fn send(&self, packet: Outgoing, volatile: bool) -> Result<(), EmitError> {
        let bytes = packet.bytes();
        self.mail(Mail::Send { slot: self.shared.slot, packet, volatile }, bytes)
    }

    fn mail(&self, mail: Mail, bytes: usize) -> Result<(), EmitError> {
        if self.state_is_gone() {
            return Err(EmitError::Closed);
        }
        Ok(self.shared.link.mail(mail, bytes)?)
    }

    /// Middleware may send before the socket is connected, so this is not the opposite of `is_connected`.
    fn state_is_gone(&self) -> bool {
        !self.is_connected() && self.state().gone
    }

    /// Tells whether the socket has left for good.
    pub(super) fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Takes the socket into its namespace.
    pub(super) fn enter(&self) {
        // Whoever finds it among the namespace's sockets must be able to send to it.
        self.shared.connected.store(true, Release);
        self.shared.namespace.shared().add(self);
    }

    /// Notes that the client is gone, ahead of what is still to be handled for it.
    pub(super) fn hang_up(&self, reason: DisconnectReason) {
        match (self.shared.namespace.shared().recovery(), self.session()) {
            (Some(recovery), Some(session)) => recovery.hang_up(self, &session.pid, reason.is_recoverable()),
            (Some(_) | None, _) => self.unplug(),
        }
    }

    /// Sends nothing more.
    pub(super) fn unplug(&self) {
        self.shared.connected.store(false, Release);
    }

    /// Takes the socket out of its namespace and its rooms, for good.
    pub(super) fn exit(&self) {
        match (self.shared.namespace.shared().recovery(), self.session()) {
            (Some(recovery), Some(session)) => recovery.exit(self, &session.pid),
            (Some(_) | None, _) => {
                self.unplug();
                // Where it never was connected, only middleware can have put it anywhere.
                if let Some(rooms) = self.leave_rooms() {
                    self.shared.namespace.shared().remove(self, &rooms);
                }
            }
        }
    }

    /// The rooms the socket was in; `None` where it has left before.
    fn leave_rooms(&self) -> Option<Vec<Room>> {
        let mut state = self.state();
        (!std::mem::replace(&mut state.gone, true)).then(|| std::mem::take(&mut state.rooms).into_iter().collect())
    }

    /// Takes the socket out of its namespace, under the lock of its recovery, and returns what its session keeps.
    pub(super) fn exit_saving(&self) -> Option<Saved> {
        let rooms = self.leave_rooms()?;
        self.shared.namespace.shared().remove(self, &rooms);
        let state = self.state();
        // Handlers that are still at work go on to find them.
        let (data, extensions) = (state.data.clone(), state.extensions.clone());
        Some(Saved { id: self.shared.id.clone(), rooms, sent: self.sent(), data, extensions })
    }

    /// Gives the session up to a connection that its client has opened meanwhile.
    pub(super) fn surrender(&self) -> Saved {
        self.unplug();
        // An error means that its end has been noticed meanwhile.
        let _gone = self.shared.link.order(Mail::Superseded);
        let nothing = || Saved {
            id: self.shared.id.clone(),
            rooms: Vec::new(),
            sent: self.sent(),
            data: None,
            extensions: http::Extensions::new(),
        };
        // One that has left is held by no session.
        self.exit_saving().unwrap_or_else(nothing)
    }

    /// Takes over what a session has kept.
    pub(super) fn adopt(&self, saved: Saved) {
        {
            let mut state = self.state();
            state.data = saved.data;
            state.extensions.extend(saved.extensions);
        }
        for room in saved.rooms {
            self.join(room);
        }
    }

    fn session(&self) -> Option<&Session> {
        self.shared.session.get().map(|session| &**session)
    }

    /// Gives the socket its session.
    pub(super) fn attach(&self, pid: ByteString, recovered: bool, sent: u64, generation: u64, seen: Position) {
        let (sent, seen) = (AtomicU64::new(sent), Mutex::new((seen, seen)));
        let session = Session { pid, recovered, sent, generation, seen };
        // It joins once.
        let _once = self.shared.session.set(Box::new(session));
    }

    /// Returns the secret with which the client can come back.
    pub(super) fn pid(&self) -> Option<ByteString> {
        self.session().map(|session| session.pid.clone())
    }

    pub(super) fn sent(&self) -> u64 {
        self.session().map_or(0, |session| session.sent.load(Relaxed))
    }

    /// Notes the position of an event that was sent.
    pub(super) fn sent_until(&self, position: Position) {
        if let Some(session) = self.session() {
            session.sent.store(position.number, Relaxed);
        }
    }

    /// Returns how often the session has been taken over, and up to where the client has received everything.
    pub(super) fn standing(&self) -> Option<(u64, Position)> {
        self.session().map(|session| (session.generation, session.seen().0))
    }

    /// Notes that the client has received what it had been sent at the last call, and that all up to here has been sent.
    pub(super) fn confirm(&self, head: Position) {
        if let Some(session) = self.session() {
            let mut seen = session.seen();
            *seen = (seen.1, head);
        }
    }

    /// Returns the rooms and the data; `None` where the socket has left for good.
    pub(super) fn belongings(&self) -> Option<(Vec<Room>, Option<Box<RawValue>>)> {
        let state = self.state();
        (!state.gone).then(|| (state.rooms.iter().cloned().collect(), state.data.clone()))
    }
}

/// The answer to an event, given at most once. Dropping it leaves the client without one.
#[derive(Debug)]
#[must_use = "the client waits for it"]
pub struct Ack {
    pub(super) socket: Socket,
    pub(super) id: u64,
}

impl Ack {
    /// Sends the answer.
    ///
    /// # Errors
    /// Those of [`Socket::emit`].
    pub fn send(self, arguments: impl Arguments) -> Result<(), EmitError> {
        let packet = Outgoing::ack(self.socket.shared.namespace.name(), self.id, arguments)?;
        self.socket.send(packet, false)
    }
}

/// When an ack expires.
pub(super) type Deadline = Option<Instant>;
