//! One namespace: handlers registered once, shared by all its sockets.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::mpsc;

use super::adapter::{Adapter, ClusterError, Command, Local, LocalAcks, Memory, Outgoing, Target};
use super::broadcast::Broadcast;
use super::client::guarded;
use super::cluster::{self, Acks, FetchError, RemoteSocket};
use super::recovery::{Changes, Recovery, RecoveryConfig};
use super::socket::{Ack, DisconnectReason, Refusal, Room, Socket};
use super::{BuildError, SlowClients};
use crate::{Arguments, Data, DataError, Event, FromArguments, UsageError, is_reserved};

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Middleware = Box<dyn Fn(Socket) -> BoxFuture<Result<(), Refusal>> + Send + Sync>;
type OnRoundTrip = Box<dyn Fn(&Socket, Duration) + Send + Sync>;
type OnConnect = Box<dyn Fn(Socket) -> BoxFuture<()> + Send + Sync>;
type OnDisconnecting = Box<dyn Fn(&Socket, DisconnectReason) + Send + Sync>;
type OnDisconnect = Box<dyn Fn(Socket, DisconnectReason) -> BoxFuture<()> + Send + Sync>;
type Handler = Box<dyn Fn(Socket, &Data, Option<Ack>) -> Result<BoxFuture<()>, Mismatch> + Send + Sync>;
type Urgent = Box<dyn Fn(&Socket, &Data, Option<Ack>) -> Result<(), Mismatch> + Send + Sync>;
type ServerSide = Box<dyn Fn(&Namespace, &Data, Option<ServerAck>) -> Result<(), DataError> + Send + Sync>;
pub(super) type MakeAdapter = Box<dyn Fn(Local) -> Arc<dyn Adapter> + Send + Sync>;
type OnMismatch = Box<dyn Fn(Socket, String, DataError, Option<Ack>) -> BoxFuture<()> + Send + Sync>;
type Fallback = Box<dyn Fn(Socket, Event, Option<Ack>) -> BoxFuture<()> + Send + Sync>;

/// The arguments did not fit the handler; the ack is still to be given.
pub(super) struct Mismatch {
    pub(super) error: DataError,
    pub(super) ack: Option<Ack>,
}

/// Collects what a namespace does.
#[derive(Default)]
pub struct NamespaceBuilder {
    handlers: Handlers,
    /// The first handler that could not be registered.
    wrong: Option<BuildError>,
}

#[derive(Default)]
pub(super) struct Handlers {
    pub(super) middleware: Vec<Middleware>,
    pub(super) round_trip: Option<OnRoundTrip>,
    pub(super) connect: Option<OnConnect>,
    pub(super) disconnecting: Option<OnDisconnecting>,
    pub(super) disconnect: Option<OnDisconnect>,
    // Names are registered by the application and only looked up by clients: nothing to defend against.
    pub(super) events: HashMap<Box<str>, Handler, FixedState>,
    pub(super) urgent: HashMap<Box<str>, Urgent, FixedState>,
    server_side: HashMap<Box<str>, ServerSide, FixedState>,
    pub(super) mismatch: Option<OnMismatch>,
    pub(super) fallback: Option<Fallback>,
}

impl fmt::Debug for NamespaceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceBuilder").field("events", &self.handlers.events.keys()).finish_non_exhaustive()
    }
}

impl NamespaceBuilder {
    /// Adds a check that each client must pass before it is connected, after those added before. It may wait, and
    /// leave what it finds out in [`Socket::insert`].
    ///
    /// A [`Refusal`] reaches the client as `connect_error`; its connection stays open. A client that goes away ends
    /// the check where it waits.
    pub fn middleware<F, T>(&mut self, check: F) -> &mut Self
    where
        F: Fn(Socket) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.handlers.middleware.push(Box::new(move |socket| Box::pin(check(socket))));
        self
    }

    /// Sets what runs first for each socket that has connected. Its events wait until this is done.
    pub fn on_connect<F, T>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        self.handlers.connect = Some(Box::new(move |socket| Box::pin(handler(socket))));
        self
    }

    /// Sets what runs for each heartbeat of a connected socket, with the time from ping to pong.
    pub fn on_round_trip<F>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(&Socket, Duration) + Send + Sync + 'static,
    {
        self.handlers.round_trip = Some(Box::new(handler));
        self
    }

    /// Sets what runs when a socket is leaving, while it still is in its rooms.
    pub fn on_disconnecting<F>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(&Socket, DisconnectReason) + Send + Sync + 'static,
    {
        self.handlers.disconnecting = Some(Box::new(handler));
        self
    }

    /// Sets what runs last for each socket, after every event that came before and after it has left its rooms.
    pub fn on_disconnect<F, T>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket, DisconnectReason) -> T + Send + Sync + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        self.handlers.disconnect = Some(Box::new(move |socket, reason| Box::pin(handler(socket, reason))));
        self
    }

    /// Sets the handler of an event, for clients that want no ack; one that asks for it gets none.
    ///
    /// `T` is parsed from the arguments: a type that implements `Deserialize` from the first, [`Args`](crate::Args)
    /// from several, [`Data`] takes them as they are.
    pub fn on<F, T, R>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(Socket, T) -> R + Send + Sync + 'static,
        T: FromArguments + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.register(
            event,
            Box::new(move |socket: Socket, data: &Data, ack: Option<Ack>| match data.args() {
                Ok(arguments) => Ok(Box::pin(handler(socket, arguments))),
                Err(error) => Err(Mismatch { error, ack }),
            }),
        )
    }

    /// Sets the handler of an event that also gets the [`Ack`], if the client asked for one.
    pub fn on_ack<F, T, R>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(Socket, T, Option<Ack>) -> R + Send + Sync + 'static,
        T: FromArguments + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.register(
            event,
            Box::new(move |socket: Socket, data: &Data, ack: Option<Ack>| match data.args() {
                Ok(arguments) => Ok(Box::pin(handler(socket, arguments, ack))),
                Err(error) => Err(Mismatch { error, ack }),
            }),
        )
    }

    /// Sets the handler of an event that must not wait behind others, such as a question for the time: it runs the
    /// moment the event arrives, ahead of earlier events whose handlers are still at work or have not begun.
    ///
    /// It cannot wait for anything itself.
    pub fn on_urgent<F, T>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(&Socket, T, Option<Ack>) + Send + Sync + 'static,
        T: FromArguments + 'static,
    {
        let urgent: Urgent = Box::new(move |socket: &Socket, data: &Data, ack: Option<Ack>| match data.args() {
            Ok(arguments) => {
                handler(socket, arguments, ack);
                Ok(())
            }
            Err(error) => Err(Mismatch { error, ack }),
        });
        self.claim(event);
        self.handlers.urgent.insert(event.into(), urgent);
        self
    }

    /// Sets what runs for an event whose arguments do not fit its handler's type. Without it such events are dropped,
    /// with a line in the log at level debug. Malformed JSON is no mismatch: it closes the connection.
    pub fn on_mismatch<F, R>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket, String, DataError, Option<Ack>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.handlers.mismatch =
            Some(Box::new(move |socket, event, error, ack| Box::pin(handler(socket, event, error, ack))));
        self
    }

    /// Sets what runs for events without a handler. Without it they are dropped.
    pub fn fallback<F, R>(&mut self, handler: F) -> &mut Self
    where
        F: Fn(Socket, Event, Option<Ack>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.handlers.fallback = Some(Box::new(move |socket, event, ack| Box::pin(handler(socket, event, ack))));
        self
    }

    /// Sets the handler of an event that other instances send with [`Namespace::server_side_emit`]. It runs the moment
    /// the event arrives, and events of one instance in their order, so it must not block; what takes long belongs into a
    /// task, where the [`ServerAck`] can be sent too. Arguments that do not fit are dropped, with a line in the log at
    /// level debug.
    pub fn on_server_side<F, T>(&mut self, event: &str, handler: F) -> &mut Self
    where
        F: Fn(&Namespace, T, Option<ServerAck>) + Send + Sync + 'static,
        T: FromArguments + 'static,
    {
        let server_side: ServerSide = Box::new(move |namespace: &Namespace, data: &Data, ack: Option<ServerAck>| {
            handler(namespace, data.args()?, ack);
            Ok(())
        });
        if is_reserved(event) {
            self.wrong = self.wrong.take().or(Some(BuildError::Reserved(event.to_owned())));
        } else if self.handlers.server_side.insert(event.into(), server_side).is_some() {
            self.wrong = self.wrong.take().or(Some(BuildError::Twice(event.to_owned())));
        }
        self
    }

    fn register(&mut self, event: &str, handler: Handler) -> &mut Self {
        self.claim(event);
        self.handlers.events.insert(event.into(), handler);
        self
    }

    /// Takes note of a name that is not to be had; [`IoBuilder::build`](super::IoBuilder::build) reports the first.
    fn claim(&mut self, event: &str) {
        let taken = self.handlers.events.contains_key(event) || self.handlers.urgent.contains_key(event);
        let wrong = if is_reserved(event) {
            Some(BuildError::Reserved(event.to_owned()))
        } else {
            taken.then(|| BuildError::Twice(event.to_owned()))
        };
        self.wrong = self.wrong.take().or(wrong);
    }
}

/// A namespace of a running server. A clone is another handle on the same one.
#[derive(Clone)]
pub struct Namespace {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    name: Box<str>,
    pub(super) handlers: Handlers,
    memory: Memory,
    /// What is beyond this instance, if anything.
    adapter: Option<Arc<dyn Adapter>>,
    recovery: Option<Recovery>,
    /// What broadcasts do with clients for which too much waits.
    pub(super) slow_clients: SlowClients,
    /// Ack ids are drawn from one sequence for all sockets, as in the reference, so that one packet fits all.
    next_ack: AtomicU64,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.shared.name).finish()
    }
}

impl Shared {
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    pub(super) fn adapter(&self) -> Option<&Arc<dyn Adapter>> {
        self.adapter.as_ref()
    }

    /// Takes in a socket that has just connected.
    pub(super) fn add(&self, socket: &Socket) {
        self.memory.add(socket);
        if let Some(adapter) = &self.adapter {
            adapter.socket_added(socket);
        }
    }

    /// Removes a socket from all its `rooms` and from the namespace.
    pub(super) fn remove(&self, socket: &Socket, rooms: &[Room]) {
        for room in rooms {
            self.leave(socket, room);
        }
        let known = self.memory.remove(socket);
        if let Some(adapter) = self.adapter.as_ref().filter(|_| known) {
            adapter.socket_removed(socket);
        }
    }

    pub(super) fn join(&self, socket: &Socket, room: Room) {
        self.memory.join(socket, room, |room| {
            if let Some(adapter) = &self.adapter {
                adapter.room_created(room);
            }
        });
    }

    pub(super) fn leave(&self, socket: &Socket, room: &str) {
        self.memory.leave(socket, room, || {
            if let Some(adapter) = &self.adapter {
                adapter.room_deleted(room);
            }
        });
    }

    pub(super) fn broadcast(&self, packet: &Outgoing, target: &Target) {
        match (&self.recovery, &self.adapter) {
            (_, Some(adapter)) => adapter.broadcast(packet, target),
            (Some(recovery), None) if !target.volatile => recovery.broadcast(&self.memory, packet, target),
            (Some(_) | None, None) => self.pass(packet, target),
        }
    }

    /// Sends a packet that has no place in an order of events to the sockets of a target in this instance.
    pub(super) fn pass(&self, packet: &Outgoing, target: &Target) {
        match &self.recovery {
            Some(recovery) => recovery.pass(&self.memory, packet, target),
            None => self.memory.broadcast(packet, target, None),
        }
    }

    /// Sends a packet that carries an ack id to the sockets of a target in this instance.
    pub(super) fn ask(&self, packet: &Outgoing, id: u64, target: &Target, timeout: Duration) -> LocalAcks {
        let deadline = tokio::time::Instant::now().into_std().checked_add(timeout);
        let (answer, answers) = mpsc::unbounded_channel();
        let sockets = self.memory.sockets(target);
        let missing = sockets.iter().map(|socket| socket.id().clone()).collect();
        for socket in sockets {
            socket.ask(packet.clone(), id, deadline, &answer);
        }
        LocalAcks { missing, answers: Some(answers) }
    }

    pub(super) fn next_ack(&self) -> u64 {
        self.next_ack.fetch_add(1, Relaxed)
    }
}

impl Namespace {
    pub(super) fn new(
        name: Box<str>,
        builder: NamespaceBuilder,
        adapter: Option<&MakeAdapter>,
        config: &super::Config,
        recovery: Option<&RecoveryConfig>,
    ) -> Result<Self, BuildError> {
        if let Some(wrong) = builder.wrong {
            return Err(wrong);
        }
        let silence = config.engine.ping_interval.saturating_add(config.engine.ping_timeout);
        let shares = recovery.filter(|_| adapter.is_some()).map(|recovery| {
            let max = recovery.max_sessions.saturating_add(config.engine.max_sessions);
            // A client that is there is heard of within one silence; then somebody has to notice that it is gone.
            let kept_for = recovery.max_disconnection.saturating_add(silence).saturating_add(silence);
            (recovery.clone(), Arc::new(Changes::new(max, kept_for)))
        });
        let changes = shares.as_ref().map(|(_, changes)| Arc::clone(changes));
        let recovery =
            recovery.map(|recovery| Recovery::new(recovery, silence, config.engine.max_backlog_bytes(), changes));
        let recovery = recovery.map(|recovery| recovery.ok_or(BuildError::Randomness)).transpose()?;
        let shared = Arc::new_cyclic(|shared| Shared {
            adapter: adapter.map(|make| make(Local::new(&name, Weak::clone(shared), shares))),
            name,
            handlers: builder.handlers,
            memory: Memory::default(),
            recovery,
            slow_clients: config.slow_clients,
            next_ack: AtomicU64::new(0),
        });
        if shared.recovery.is_some() && shared.adapter.as_ref().is_some_and(|adapter| !adapter.recovers()) {
            return Err(BuildError::Config { field: "recovery", allowed: "left out where the adapter cannot do it" });
        }
        if let Some(adapter) = &shared.adapter {
            adapter.start();
        }
        Ok(Self { shared })
    }

    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(super) fn run_server_side(&self, event: &Event, ack: Option<ServerAck>) {
        let Some(handler) = self.shared.handlers.server_side.get(event.name()) else { return };
        if let Some(Err(error)) = guarded(|| handler(self, event.data(), ack)) {
            tracing::debug!(%error, "an event of another instance was dropped: its arguments do not fit its handler");
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns the name, which starts with `/`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Chooses all sockets of the namespace, to be narrowed.
    pub fn broadcast(&self) -> Broadcast {
        Broadcast::new(self.clone(), Target::default())
    }

    /// Chooses the sockets of a room.
    pub fn to(&self, room: impl Into<Room>) -> Broadcast {
        self.broadcast().to(room)
    }

    /// Sends an event to every socket.
    ///
    /// # Errors
    /// Those of [`Broadcast::emit`].
    pub fn emit(&self, name: &str, arguments: impl Arguments) -> Result<(), UsageError> {
        self.broadcast().emit(name, arguments)
    }

    /// Sends an event to the handlers that the other instances have set with
    /// [`on_server_side`](NamespaceBuilder::on_server_side); not to that of this instance.
    ///
    /// # Errors
    /// [`ServerSideError`].
    pub fn server_side_emit(&self, name: &str, arguments: impl Arguments) -> Result<(), ServerSideError> {
        let event = Event::encode(name, arguments).map_err(ServerSideError::Usage)?;
        match self.shared.adapter() {
            Some(adapter) => adapter.command(Command::ServerSideEmit(&event)).map_err(ServerSideError::Cluster),
            None => Ok(()),
        }
    }

    /// Sends an event as [`server_side_emit`](Self::server_side_emit) does, and waits for the answer of each instance.
    ///
    /// # Errors
    /// [`UsageError`]. That some did not answer is no error: [`Acks`] says so.
    pub async fn server_side_emit_with_ack<T: FromArguments>(
        &self,
        name: &str,
        arguments: impl Arguments,
    ) -> Result<Acks<T>, UsageError> {
        cluster::server_side_emit_with_ack(self, name, arguments).await
    }

    /// Describes the sockets of all instances.
    ///
    /// # Errors
    /// Those of [`Broadcast::fetch_sockets`].
    pub async fn fetch_sockets(&self) -> Result<Vec<RemoteSocket>, FetchError> {
        self.broadcast().fetch_sockets().await
    }

    /// Puts every socket into a room.
    ///
    /// # Errors
    /// Those of [`Broadcast::sockets_join`].
    pub fn sockets_join(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        self.broadcast().sockets_join(room)
    }

    /// Takes every socket out of a room.
    ///
    /// # Errors
    /// Those of [`Broadcast::sockets_leave`].
    pub fn sockets_leave(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        self.broadcast().sockets_leave(room)
    }

    /// Disconnects every socket from the namespace, or with `close` from the server.
    ///
    /// # Errors
    /// Those of [`Broadcast::disconnect_sockets`].
    pub fn disconnect_sockets(&self, close: bool) -> Result<(), ClusterError> {
        self.broadcast().disconnect_sockets(close)
    }

    /// Sends an event to every socket and waits for their acks, for as long as `timeout`.
    ///
    /// # Errors
    /// Those of [`Broadcast::emit_with_ack`].
    pub async fn emit_with_ack<T: FromArguments>(
        &self,
        name: &str,
        arguments: impl Arguments,
        timeout: Duration,
    ) -> Result<Acks<T>, UsageError> {
        self.broadcast().emit_with_ack(name, arguments, timeout).await
    }

    /// Chooses the sockets of this instance, to be narrowed.
    pub fn local(&self) -> Broadcast {
        self.broadcast().local()
    }

    /// Returns how many sockets of this instance are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.memory.len()
    }

    /// Tells whether no socket of this instance is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many rooms have members in this instance.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.shared.memory.rooms()
    }
}

/// Why an event was not sent to other instances.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerSideError {
    /// The event's name is reserved, or its arguments cannot be serialised.
    Usage(UsageError),
    /// The other instances will not learn of it.
    Cluster(ClusterError),
}

impl fmt::Display for ServerSideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Cluster(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServerSideError {}

/// The answer to an event of another instance, given at most once. Dropping it leaves that instance without one.
#[must_use = "the other instance waits for it"]
pub struct ServerAck(Box<dyn FnOnce(Data) + Send>);

impl fmt::Debug for ServerAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerAck").finish_non_exhaustive()
    }
}

impl ServerAck {
    /// Makes an ack whose answer `deliver` takes to the instance that waits for it.
    pub fn new(deliver: impl FnOnce(Data) + Send + 'static) -> Self {
        Self(Box::new(deliver))
    }

    /// Sends the answer. Instances of socket.io see its first argument.
    ///
    /// # Errors
    /// [`UsageError`] for arguments that cannot be serialised.
    pub fn send(self, arguments: impl Arguments) -> Result<(), UsageError> {
        (self.0)(Data::encode(arguments)?);
        Ok(())
    }
}
