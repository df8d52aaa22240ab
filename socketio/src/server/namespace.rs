//! One namespace: handlers registered once, shared by all its sockets.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::BuildError;
use super::adapter::{self, Adapter, Target};
use super::broadcast::Broadcast;
use super::socket::{Ack, DisconnectReason, Refusal, Room, Socket};
use crate::{Arguments, Data, DataError, Event, FromArguments, UsageError, is_reserved};

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Middleware = Box<dyn Fn(Socket) -> BoxFuture<Result<(), Refusal>> + Send + Sync>;
type OnRoundTrip = Box<dyn Fn(&Socket, Duration) + Send + Sync>;
type OnConnect = Box<dyn Fn(Socket) -> BoxFuture<()> + Send + Sync>;
type OnDisconnecting = Box<dyn Fn(&Socket, DisconnectReason) + Send + Sync>;
type OnDisconnect = Box<dyn Fn(Socket, DisconnectReason) -> BoxFuture<()> + Send + Sync>;
type Handler = Box<dyn Fn(Socket, &Data, Option<Ack>) -> Result<BoxFuture<()>, Mismatch> + Send + Sync>;
type Urgent = Box<dyn Fn(&Socket, &Data, Option<Ack>) -> Result<(), Mismatch> + Send + Sync>;
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
    adapter: Arc<dyn Adapter>,
    /// Ack ids are drawn from one sequence for all sockets, as in the reference, so that one packet fits all.
    next_ack: AtomicU64,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.shared.name).finish()
    }
}

impl Shared {
    pub(super) fn adapter(&self) -> &dyn Adapter {
        &*self.adapter
    }

    pub(super) fn next_ack(&self) -> u64 {
        self.next_ack.fetch_add(1, Relaxed)
    }
}

impl Namespace {
    pub(super) fn new(name: Box<str>, builder: NamespaceBuilder) -> Result<Self, BuildError> {
        if let Some(wrong) = builder.wrong {
            return Err(wrong);
        }
        let shared =
            Shared { name, handlers: builder.handlers, adapter: adapter::memory(), next_ack: AtomicU64::new(0) };
        Ok(Self { shared: Arc::new(shared) })
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

    /// Returns how many sockets of this instance are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.adapter().len()
    }

    /// Tells whether no socket of this instance is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many rooms have members in this instance.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.shared.adapter().rooms()
    }
}
