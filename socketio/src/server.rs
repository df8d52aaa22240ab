//! The Socket.IO server on `engineio`: namespaces, middleware, rooms and broadcasting.
//!
//! Handlers are registered once per namespace, before the server starts, and never per socket. Those of one socket run
//! one at a time, in the order in which its events came; sockets do not wait for each other. Everything of one client
//! happens in one task, handlers included, so a handler must not block its thread; what takes long belongs into
//! `tokio::spawn` or `spawn_blocking`.
//!
//! A client that goes away leaves its rooms and its namespace at once, whatever its handlers do. It does not cut a handler
//! short: events that have arrived are handled, then the disconnect handler runs, each within
//! [`Config::handler_grace`].

pub mod adapter;
mod broadcast;
mod client;
mod cluster;
mod namespace;
mod outgoing;
mod recovery;
mod socket;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::Duration;

use bytes::Bytes;
use engineio::server::{Application, Body, Handshake as EngineHandshake, Limits, Relay, Reset, Stats};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use tokio::net::TcpListener;

pub use self::broadcast::Broadcast;
pub use self::cluster::{Acks, FetchError, RemoteSocket};
pub use self::namespace::{Namespace, NamespaceBuilder, ServerAck, ServerSideError};
pub use self::recovery::RecoveryConfig;
pub use self::socket::{Ack, AckError, DisconnectReason, EmitError, Handshake, Refusal, Room, Socket, SocketId};

use self::adapter::{Adapter, Local};
use self::client::{Client, Mail};
use self::namespace::MakeAdapter;
use crate::ConnectionConfig;

/// Settings of a Socket.IO server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Settings of the Engine.IO layer. Its path is `/socket.io` by default.
    pub engine: engineio::Config,
    /// Limits of one client's packets, namespaces and acks.
    pub connection: ConnectionConfig,
    /// Most events of one client that may wait for its handlers before nothing more is read from it. Default: 256. At
    /// least 1.
    pub max_waiting_events: usize,
    /// Most bytes of such events, each with what it occupies beside its text. Default: 1 MiB. At least 1.
    pub max_waiting_bytes: usize,
    /// Most bytes of such events while an ack of the client is awaited, in place of both limits above: the ack may come
    /// behind them, and the handler that awaits it would keep them waiting. Default: 16 MiB. At least
    /// `max_waiting_bytes`.
    pub max_waiting_bytes_before_ack: usize,
    /// What a broadcast does with a client for which as much waits as may,
    /// [`engineio::Config::max_backlog_bytes`]. Default: [`SlowClients::Disconnect`].
    pub slow_clients: SlowClients,
    /// How long the handlers of a socket may run on after its end. Then they are dropped where they wait, with the events
    /// that have not been handled, and the log names the event; the disconnect handler gets as long again. Default: 30 s.
    pub handler_grace: Duration,
    /// Request headers of the handshake that sockets keep. Default: none, since they cost memory for as long as the
    /// client stays.
    pub kept_headers: Vec<HeaderName>,
}

impl Default for Config {
    fn default() -> Self {
        let mut engine = engineio::Config::default();
        engine.path = "/socket.io".to_owned();
        Self {
            engine,
            connection: ConnectionConfig::default(),
            max_waiting_events: 256,
            max_waiting_bytes: 1 << 20,
            max_waiting_bytes_before_ack: 16 << 20,
            slow_clients: SlowClients::Disconnect,
            handler_grace: Duration::from_secs(30),
            kept_headers: Vec::new(),
        }
    }
}

/// What a broadcast does with a client that is too far behind to take it. An event to a single socket is refused with
/// [`EmitError::Full`] instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowClients {
    /// Disconnects it, with [`DisconnectReason::TransportError`], so that it knows that it has missed something.
    Disconnect,
    /// Leaves it out, as if the event were volatile.
    Skip,
}

/// Why a server could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting of the Engine.IO layer is out of range.
    Engine(engineio::ConfigError),
    /// A setting of ours is out of range.
    Config {
        /// The field's name.
        field: &'static str,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A namespace's name does not start with `/`, or has a comma in it.
    NamespaceName(String),
    /// A namespace, or an event within one, was registered twice.
    Twice(String),
    /// A handler was registered for an event that no client can send, see [`is_reserved`](crate::is_reserved).
    Reserved(String),
    /// The system has no randomness to give.
    Randomness,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Config { field, allowed } => write!(f, "{field} must be {allowed}"),
            Self::NamespaceName(name) => write!(f, "a namespace starts with `/` and has no comma: {name:?}"),
            Self::Twice(name) => write!(f, "registered twice: {name:?}"),
            Self::Reserved(name) => write!(f, "the event name is reserved: {name:?}"),
            Self::Randomness => f.write_str("no randomness"),
        }
    }
}

impl std::error::Error for BuildError {}

/// Collects namespaces and settings for an [`Io`]: see [`Io::builder`].
#[derive(Default)]
pub struct IoBuilder {
    config: Config,
    namespaces: Vec<(String, NamespaceBuilder)>,
    adapter: Option<MakeAdapter>,
    relay: Option<Arc<dyn Relay>>,
    recovery: Option<RecoveryConfig>,
    choose_subprotocol: Option<ChooseSubprotocol>,
}

/// Of the subprotocols that a request offers, the one that is accepted.
type ChooseSubprotocol = Box<dyn for<'a> Fn(&Parts, &[&'a str]) -> Option<&'a str> + Send + Sync>;

impl fmt::Debug for IoBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoBuilder")
            .field("config", &self.config)
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

impl IoBuilder {
    /// Replaces the settings.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Adds a namespace, whose handlers `register` sets up. `/` is one like any other: without it, clients that ask for
    /// it get `Invalid namespace`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>, register: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let mut namespace = NamespaceBuilder::default();
        register(&mut namespace);
        self.namespaces.push((name.into(), namespace));
        self
    }

    /// Connects each namespace with its like in other instances, by the [`Adapter`] that `make` makes for it. Without
    /// this the server is alone.
    #[must_use]
    pub fn adapter<A: Adapter>(mut self, make: impl Fn(Local) -> A + Send + Sync + 'static) -> Self {
        self.adapter = Some(Box::new(move |local| Arc::new(make(local))));
        self
    }

    /// Has requests that reach another instance than their session's served by the right one, so that any balancer does;
    /// [`adapter::redis`] has a relay. Without this a balancer must send all requests of a client to the same instance,
    /// unless clients use WebSocket alone.
    #[must_use]
    pub fn relay(mut self, relay: impl Relay) -> Self {
        self.relay = Some(Arc::new(relay));
        self
    }

    /// Lets clients that were cut off come back as who they were, with id, rooms and data, and sends them what they
    /// missed. Default: off.
    ///
    /// Recoverable is what neither side meant to end, `transport close` of a client that goes without leaving its
    /// namespace among it. Events with an ack and volatile ones are not sent again. A client may come back before
    /// anybody has noticed that it was cut off; then its old socket leaves, reason `transport close`, and is in no room
    /// when its handlers learn of it. What it missed is sent with its `connect`; [`Socket::recovered`] tells.
    ///
    /// With an [`adapter`](Self::adapter) that can do it, as that for Redis, clients come back to any instance, also from
    /// one that has died. Of what the application keeps, [`Socket::set_data`] comes along then and [`Socket::insert`] does
    /// not; and an event has its place among those of all instances before it is sent to anybody, so that events with an
    /// ack, acks and volatile events may come before one that was sent earlier, and whoever joins or leaves a room right
    /// after an event to it was sent may get it or not. A disconnect still comes behind what was sent before.
    #[must_use]
    pub fn recovery(mut self, config: RecoveryConfig) -> Self {
        self.recovery = Some(config);
        self
    }

    /// Chooses the WebSocket subprotocol of a client, the option `protocols` of the published one, from those that it
    /// offers, in its order of preference; `None` accepts none of them. Without this it is the first.
    ///
    /// Browsers close a WebSocket that offered some and got none.
    #[must_use]
    pub fn choose_subprotocol(
        mut self,
        choose: impl for<'a> Fn(&Parts, &[&'a str]) -> Option<&'a str> + Send + Sync + 'static,
    ) -> Self {
        self.choose_subprotocol = Some(Box::new(choose));
        self
    }

    /// Makes the server.
    ///
    /// # Errors
    /// [`BuildError`] for a setting out of range, or a name that is wrong or taken.
    pub fn build(mut self) -> Result<Io, BuildError> {
        let Config { max_waiting_events, max_waiting_bytes, max_waiting_bytes_before_ack, .. } = self.config;
        for (valid, field, allowed) in [
            (max_waiting_events >= 1, "max_waiting_events", "at least 1"),
            (max_waiting_bytes >= 1, "max_waiting_bytes", "at least 1"),
            (
                max_waiting_bytes_before_ack >= max_waiting_bytes,
                "max_waiting_bytes_before_ack",
                "at least max_waiting_bytes",
            ),
        ] {
            if !valid {
                return Err(BuildError::Config { field, allowed });
            }
        }
        let max_message_bytes = self.config.engine.max_payload_bytes;
        let decoder = &mut self.config.connection.decoder;
        decoder.derive(max_message_bytes);
        // Else a client that is told `maxPayload` would be closed for an attachment of that size.
        if decoder.max_binary_bytes.is_some_and(|bytes| bytes < max_message_bytes) {
            return Err(BuildError::Config {
                field: "connection.decoder.max_binary_bytes",
                allowed: "at least engine.max_payload_bytes",
            });
        }
        let mut namespaces = HashMap::new();
        for (name, builder) in self.namespaces {
            if !name.starts_with('/') || name.contains(',') {
                return Err(BuildError::NamespaceName(name));
            }
            let (adapter, recovery) = (self.adapter.as_ref(), self.recovery.as_ref());
            let namespace = Namespace::new(name.as_str().into(), builder, adapter, &self.config, recovery)?;
            if namespaces.insert(name.clone().into_boxed_str(), namespace).is_some() {
                return Err(BuildError::Twice(name));
            }
        }
        let hub = Arc::new(Hub {
            namespaces,
            connection: self.config.connection,
            waiting: WaitingLimits {
                events: max_waiting_events,
                bytes: max_waiting_bytes,
                bytes_before_ack: max_waiting_bytes_before_ack,
            },
            handler_grace: self.config.handler_grace,
            kept_headers: self.config.kept_headers,
            closing: AtomicBool::new(false),
        });
        let app = App { hub: Arc::clone(&hub), choose_subprotocol: self.choose_subprotocol };
        let engine = match self.relay {
            Some(relay) => engineio::Server::with_relay(self.config.engine, app, relay),
            None => engineio::Server::new(self.config.engine, app),
        };
        Ok(Io { engine: engine.map_err(BuildError::Engine)?, hub })
    }
}

/// A Socket.IO server. A clone is another handle on the same server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let io = socketio::Io::builder()
///     .namespace("/", |root| {
///         root.on("hello", async |socket: socketio::Socket, name: String| {
///             // An error says that the client has left meanwhile.
///             let _left = socket.broadcast().emit("hello", (name,));
///         });
///     })
///     .build()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// io.serve(listener, std::future::pending()).await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Io {
    engine: engineio::Server<App>,
    hub: Arc<Hub>,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("namespaces", &self.hub.namespaces.keys()).finish_non_exhaustive()
    }
}

impl Io {
    /// Starts to build a server.
    #[must_use]
    pub fn builder() -> IoBuilder {
        IoBuilder::default()
    }

    /// Returns a namespace, for broadcasting to it.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<Namespace> {
        self.hub.namespaces.get(name).cloned()
    }

    /// Tells whether a request's path is this server's.
    #[must_use]
    pub fn owns(&self, path: &str) -> bool {
        self.engine.owns(path)
    }

    /// Answers a request that this server [owns](Self::owns), for use inside of another hyper service.
    ///
    /// # Errors
    /// [`Reset`] where the connection is to be broken off.
    pub async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        self.engine.handle(request, peer).await
    }

    /// Serves nothing but Socket.IO over a listener, until `shutdown` is ready; then closes every client.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let io = self.clone();
        let service = move |request: Request<hyper::body::Incoming>, peer| {
            let io = io.clone();
            async move {
                if io.owns(request.uri().path()) {
                    return io.handle(request, peer).await;
                }
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        };
        let closing = async {
            shutdown.await;
            self.close().await;
        };
        engineio::server::serve(listener, Limits::default(), service, closing).await;
    }

    /// Closes every client, with the reason `server shutting down`, and lets no new ones in. Ready when the last one is
    /// gone.
    ///
    /// As in the reference server no DISCONNECT packet is sent, so that clients come back by themselves. Handlers at work
    /// are waited for, within [`Config::handler_grace`], and clients that still fetch what waits for them, within
    /// [`engineio::Config::close_timeout`].
    pub async fn close(&self) {
        self.hub.closing.store(true, Release);
        // Sockets leave now, though the session of a client that does not poll lingers until its time is up.
        for namespace in self.hub.namespaces.values() {
            for socket in namespace.broadcast().sockets() {
                socket.shut_down();
            }
        }
        self.engine.close().await;
        for adapter in self.hub.namespaces.values().filter_map(|namespace| namespace.shared().adapter()) {
            adapter.close().await;
        }
    }

    /// Returns counts of the Engine.IO layer: sessions by transport, waiting bytes, refusals, relayed requests.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.engine.stats()
    }
}

/// How much of one client may wait for its handlers.
#[derive(Clone, Copy)]
struct WaitingLimits {
    events: usize,
    bytes: usize,
    bytes_before_ack: usize,
}

/// What all clients share.
struct Hub {
    namespaces: HashMap<Box<str>, Namespace>,
    connection: ConnectionConfig,
    waiting: WaitingLimits,
    handler_grace: Duration,
    kept_headers: Vec<HeaderName>,
    closing: AtomicBool,
}

impl Hub {
    fn is_closing(&self) -> bool {
        self.closing.load(Acquire)
    }
}

/// The Engine.IO application that makes a [`Client`] of each session.
struct App {
    hub: Arc<Hub>,
    choose_subprotocol: Option<ChooseSubprotocol>,
}

impl Application for App {
    type Handler = Client;

    fn choose_subprotocol<'a>(&self, request: &Parts, offered: &[&'a str]) -> Option<&'a str> {
        match &self.choose_subprotocol {
            Some(choose) => choose(request, offered),
            None => offered.first().copied(),
        }
    }

    fn open(&self, handshake: &EngineHandshake<'_>, link: engineio::server::Socket<Mail>) -> Client {
        let handshake = Handshake::of(handshake, &self.hub.kept_headers);
        Client::new(Arc::clone(&self.hub), link, handshake)
    }
}
