//! The server put together: settings in, a running service out, everything written when it stops.
//!
//! It takes a listener and a future that ends it, so that tests own both.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode};
use socketio::Io;
use socketio::engineio::server::{Limits, Reset, serve as serve_http};
use socketio::engineio::{RequestError, Transport};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, channel};

use crate::auth::Tokens;
use crate::config::{Config, ConfigError, RedisSettings};
use crate::http::health::{Check, Readiness, live, ready};
use crate::http::metrics::Metrics;
use crate::http::{self as answers, Answer, assets, rooms};
use crate::limit::SharedLimiter;
use crate::password::Passwords;
use crate::redis::{Notice, Redis, RedisRelay};
use crate::state::cluster::Cluster;
use crate::state::{Rooms, StateOptions};
use crate::store::RoomStore;
use crate::store::metered::Metered;
use crate::store::postgres::{self, PostgresStore};
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::sync::clock::Clock;
use crate::sync::room::RoomOptions;
use crate::sync::sockets::Sockets;
use crate::sync::{NAMESPACE, Service, register};

/// Why the server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    Settings(ConfigError),
    /// The database cannot be opened.
    Store(OpenError),
    /// The shared database cannot be used.
    Database(postgres::OpenError),
    /// Redis is to be used without a database that the instances share.
    DatabaseMissing,
    /// Redis cannot be used.
    Redis(String),
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: String,
        /// What the system answered.
        cause: io::Error,
    },
    /// The parts do not fit together.
    Wiring(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Database(error) => error.fmt(f),
            Self::DatabaseMissing => f.write_str(
                "REDIS_* is set and DATABASE_URL is not; rooms that instances share need a database that they share",
            ),
            Self::Redis(error) => write!(f, "Redis (REDIS_*) cannot be used: {error}"),
            Self::Listen { address, cause } => {
                write!(f, "cannot listen on {address} (HOST and PORT): {cause}")
            }
            Self::Wiring(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for StartError {}

/// The parts of a running server.
struct App<S> {
    service: Arc<Service<S>>,
    store: Arc<S>,
    redis: Option<Redis>,
    io: Io,
    metrics: Arc<Metrics>,
    config: Arc<Config>,
    readiness: Readiness,
    draining: AtomicBool,
}

/// Listens on the address in the settings, prints the page's address, and serves until `shutdown` is ready.
///
/// # Errors
/// [`StartError`] where it cannot start. Once started it only ends by `shutdown`.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    match config.database_url.clone() {
        Some(url) => listen(App::shared(config, url.expose()).await?, shutdown).await,
        None if config.redis.is_some() => Err(StartError::DatabaseMissing),
        None => listen(App::embedded(config)?, shutdown).await,
    }
}

async fn listen<S: RoomStore>(app: App<S>, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let address = format!("{}:{}", bracketed(&app.config.host), app.config.port);
    let cannot_listen = |cause| StartError::Listen { address: address.clone(), cause };
    let listener = TcpListener::bind(&address).await.map_err(cannot_listen)?;
    let local = listener.local_addr().map_err(cannot_listen)?;
    announce(local);
    serve(Arc::new(app), listener, shutdown).await;
    Ok(())
}

/// An IPv6 address needs brackets before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() }
}

/// Prints the one line on standard output: where the page is.
fn announce(address: SocketAddr) {
    let host =
        if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { bracketed(&address.ip().to_string()) };
    let port = address.port();
    tracing::info!(%address, "listening");
    let mut out = io::stdout();
    // With standard output closed there is nobody to be told.
    let _closed = writeln!(out, "SyncWatch is ready: http://{host}:{port}/").and_then(|()| out.flush());
}

impl App<Metered<SqliteStore>> {
    /// Puts the embedded default together: SQLite for what lasts, this process for what does not.
    fn embedded(config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let secret = config.token_secret().map_err(StartError::Settings)?;
        let store = SqliteStore::open(&config.data_dir).map_err(StartError::Store)?;
        let store = Arc::new(Metered::new(store, Arc::clone(&metrics)));
        let tokens = Tokens::new(&secret, config.jwt_require_exp);
        Self::assemble(config, store, None, tokens, metrics)
    }
}

/// An instance's part in a cluster.
struct Membership {
    redis: Redis,
    cluster: Cluster,
    /// How it hears of the others.
    incoming: Receiver<Notice>,
    /// The clock that all of them go by.
    clock: Clock,
    /// How they serve each other's requests, unless that is switched off.
    relay: Option<RedisRelay>,
}

impl Membership {
    async fn begin(settings: &RedisSettings, relays: bool) -> Result<Self, StartError> {
        let (notices, incoming) = channel(NOTICES);
        let redis = Redis::new(settings, settings.db_state, notices);
        let cluster = Cluster::join(redis.clone()).await.map_err(|error| StartError::Redis(error.to_string()))?;
        let clock = redis.clock().await.map_err(|error| StartError::Redis(error.to_string()))?;
        let relay = match relays {
            true => Some(RedisRelay::join(settings).await.map_err(|error| StartError::Redis(error.to_string()))?),
            false => None,
        };
        for warning in redis.warnings().await {
            tracing::warn!("{warning}");
        }
        Ok(Self { redis, cluster, incoming, clock, relay })
    }
}

impl App<Metered<PostgresStore>> {
    /// Puts an instance together that shares its rooms: PostgreSQL for what lasts, and Redis for what does not, if it is
    /// not the only instance.
    async fn shared(config: Config, url: &str) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let secret = config.token_secret().map_err(StartError::Settings)?;
        let store = PostgresStore::open(url).await.map_err(StartError::Database)?;
        let store = Arc::new(Metered::new(store, Arc::clone(&metrics)));
        let membership = match &config.redis {
            Some(settings) => Some(Membership::begin(settings, config.relay).await?),
            None => None,
        };
        let tokens = Tokens::new(&secret, config.jwt_require_exp);
        Self::assemble(config, store, membership, tokens, metrics)
    }
}

impl<S: RoomStore> App<S> {
    fn assemble(
        config: Config,
        store: Arc<S>,
        membership: Option<Membership>,
        tokens: Tokens,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let sockets = Arc::new(Sockets::default());
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let options = StateOptions {
            room: RoomOptions {
                grace_ms: millis(config.reconnect_grace),
                owner_handover_ms: millis(config.owner_handover),
                ttl_ms: millis(config.room_ttl),
            },
            max_rooms: usize::try_from(config.max_rooms).unwrap_or(usize::MAX),
            ..StateOptions::default()
        };
        let rates = config.redis.as_ref().map(|settings| Redis::without_channels(settings, settings.db_rate));
        let (store_too, publisher) = (Arc::clone(&store), Arc::clone(&sockets));
        let (redis, state, relay) = match membership {
            Some(Membership { redis, cluster, incoming, clock, relay }) => {
                let state = Rooms::start_in(cluster, incoming, store_too, publisher, clock, options);
                (Some(redis), state, relay)
            }
            None => (None, Rooms::start(store_too, publisher, Clock::system(), options), None),
        };
        let service = Arc::new(Service {
            state,
            sockets: Arc::clone(&sockets),
            tokens,
            passwords: Passwords::new(),
            metrics: Arc::clone(&metrics),
            wrong_passwords: SharedLimiter::new("password", WRONG_PASSWORDS, WRONG_PASSWORDS_WINDOW, rates),
            config: Arc::clone(&config),
        });
        let mut io =
            Io::builder().config(io_config(&config)).namespace(NAMESPACE, |namespace| register(&service, namespace));
        if let Some(relay) = relay {
            io = io.relay(relay);
        }
        let io = io.build().map_err(|error| StartError::Wiring(error.to_string()))?;
        if let Some(namespace) = io.of(NAMESPACE) {
            sockets.attach(namespace);
        }
        let (readiness, draining) = (Readiness::default(), AtomicBool::new(false));
        Ok(Self { service, store, redis, io, metrics, config, readiness, draining })
    }

    async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Result<Answer, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.io.owns(request.uri().path()) {
            let client = self.config.trusted_proxies.client(peer, request.headers());
            return self.io.handle(request, client).await;
        }
        let (parts, body) = request.into_parts();
        let mut answer = if !self.config.cors_origin.allows_request(&parts) {
            answers::failure(StatusCode::FORBIDDEN, "FORBIDDEN", "this origin is not allowed")
        } else if parts.method == Method::OPTIONS {
            preflight()
        } else {
            self.dispatch(&parts, body).await
        };
        answers::share(&self.config.cors_origin, &parts, answer.headers_mut());
        Ok(answer)
    }

    async fn dispatch<B>(&self, parts: &Parts, body: B) -> Answer
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = parts.uri.path();
        if let Some(rest) = path.strip_prefix(rooms::PATH).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return rooms::answer(&self.service, &*self.store, rest, parts, body).await;
        }
        let readable = matches!(parts.method, Method::GET | Method::HEAD);
        match path {
            HEALTH_LIVE | HEALTH_READY | METRICS if !readable => answers::method_not_allowed("GET"),
            HEALTH_LIVE => live(),
            HEALTH_READY => {
                let checks = self.readiness.checks(|| self.check_backends()).await;
                ready(&checks, self.draining.load(Ordering::Relaxed))
            }
            METRICS => {
                self.sample();
                self.metrics.answer(parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()))
            }
            path => match assets::answer(path, &parts.headers) {
                Some(answer) if readable => answer,
                Some(_) => answers::method_not_allowed("GET"),
                None => answers::not_found(),
            },
        }
    }

    /// Asks all backends, at the same time, whether they still do what they are for.
    async fn check_backends(&self) -> Vec<Check> {
        let store = Check::of("store", self.store.ping());
        let redis = async {
            match &self.redis {
                Some(redis) => Some(Check::of("redis", redis.ping()).await),
                None => None,
            }
        };
        let (store, redis) = tokio::join!(store, redis);
        [Some(store), redis].into_iter().flatten().collect()
    }

    /// Brings the metrics that are read off elsewhere up to date.
    fn sample(&self) {
        let stats = self.io.stats();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let occupancy = self.service.state.occupancy();
        self.metrics.rooms.set(gauge(occupancy.rooms));
        self.metrics.participants.set(gauge(occupancy.connections));
        self.metrics.queue_bytes.set(gauge(stats.queued_bytes()));
        self.metrics
            .set_connections(gauge(stats.sessions(Transport::Polling)), gauge(stats.sessions(Transport::WebSocket)));
        self.metrics.set_refused_requests(stats.refusals(RequestError::Forbidden), stats.overloads());
        self.metrics.set_relayed(stats.relayed(), gauge(stats.lines()));
    }
}

/// Changes made by other instances that may wait to be handed to their rooms; past it, the rooms are asked for.
const NOTICES: usize = 8_192;

const HEALTH_LIVE: &str = "/health/live";
const HEALTH_READY: &str = "/health/ready";
const METRICS: &str = "/metrics";

/// Wrong passwords of one address for one room within the window, before more are refused untried.
const WRONG_PASSWORDS: u32 = 30;
const WRONG_PASSWORDS_WINDOW: Duration = Duration::from_secs(60);

/// How long requests in progress may take once the last client has ended: a little longer than the store takes at most.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

fn io_config(config: &Config) -> socketio::server::Config {
    let mut io = socketio::server::Config::default();
    io.engine.ping_interval = config.ping_interval;
    io.engine.ping_timeout = config.ping_timeout;
    io.engine.upgrade_timeout = config.upgrade_timeout;
    io.engine.max_payload_bytes = config.max_http_buffer_size;
    io.engine.max_buffered_bytes = config.max_buffered_bytes;
    io.engine.stall_timeout = Some(config.stall_timeout.min(config.ping_timeout));
    // Each limit is at least the one before, whatever was set, so that one of them can be raised alone.
    let max_backlog_bytes = config.max_backlog_bytes.max(config.max_buffered_bytes);
    io.engine.max_backlog_bytes = Some(max_backlog_bytes);
    io.engine.max_total_backlog_bytes = config.max_total_backlog_bytes.max(max_backlog_bytes);
    io.engine.max_sessions = config.max_connections;
    io.engine.relay.max_requests = config.max_connections;
    io.engine.relay.max_lines = config.max_connections;
    io.engine.close_timeout = config.shutdown_timeout;
    io.engine.origins = config.cors_origin.clone();
    // No event has attachments: what comes of them is dropped, and need not be more than a message.
    io.connection.decoder.max_binary_bytes = Some(config.max_http_buffer_size);
    io.connection.connect_timeout = config.connect_timeout;
    io
}

/// Answers a CORS preflight of the REST API.
fn preflight() -> Answer {
    let mut answer = answers::text(StatusCode::NO_CONTENT, "text/plain", "");
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PATCH, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

/// Serves until `shutdown` is ready. Then clients are told, what is unsaved is written, and connections end.
async fn serve<S: RoomStore>(app: Arc<App<S>>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let mut limits = Limits::default();
    limits.max_connections = app.config.max_connections;
    limits.keep_alive_timeout = app.config.http_keep_alive;
    limits.shutdown_timeout = app.config.shutdown_timeout.min(LAST_REQUESTS);
    let serving = Arc::clone(&app);
    let service = move |request, peer| {
        let app = Arc::clone(&serving);
        async move { app.answer(request, peer).await }
    };
    let closing = async {
        shutdown.await;
        tracing::info!("stopping");
        app.draining.store(true, Ordering::Relaxed);
        let window_ms = u64::try_from(app.config.shutdown_reconnect.as_millis()).unwrap_or(u64::MAX);
        app.service.sockets.announce_shutdown(window_ms);
        app.service.state.shutdown().await;
        if tokio::time::timeout(app.config.shutdown_timeout, app.io.close()).await.is_err() {
            tracing::warn!("some clients did not end in time (SHUTDOWN_TIMEOUT_MS)");
        }
    };
    serve_http(listener, limits, service, closing).await;
    // Nothing holds the store any more then, which closes the database.
    app.service.sockets.detach();
    drop(app);
    tracing::info!("stopped");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::store::sqlite::DATABASE_FILE;
    use crate::testing::TempDir;

    fn config(dir: &TempDir) -> Config {
        let environment = [("DATA_DIR".into(), dir.path().into())].into();
        Config::read(&Sources { environment, ..Sources::default() }).unwrap()
    }

    async fn ready_status<S: RoomStore>(app: &App<S>) -> StatusCode {
        let request = Request::get("/health/ready").body(http_body_util::Full::<Bytes>::default()).unwrap();
        app.answer(request, ([127, 0, 0, 1], 1).into()).await.unwrap().status()
    }

    /// Run as root: `cargo test -p syncwatch -- --ignored a_full_disk_is_not_ready`.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    #[ignore = "mounts a small tmpfs, which only root may"]
    async fn a_full_disk_is_not_ready_and_is_again_once_there_is_room() {
        use crate::store::suite::room_with_code;
        let dir = TempDir::new();
        let mount = |command: &mut std::process::Command| assert!(command.arg(dir.path()).status().unwrap().success());
        mount(std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]));
        let app = App::embedded(config(&dir)).unwrap();
        assert_eq!(ready_status(&app).await, StatusCode::OK);
        let filler = dir.path().join("filler");
        // As much as there is room for, however little that is in the end.
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while app.store.create_room(room_with_code(&crate::id::room_code())).await.is_ok() {}
        let full = ready_status(&app).await;
        std::fs::remove_file(filler).unwrap();
        drop(file);
        let healed = ready_status(&app).await;
        app.service.state.shutdown().await;
        app.service.sockets.detach();
        drop(app);
        mount(&mut std::process::Command::new("umount"));
        assert_eq!((full, healed), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_after_the_time_that_is_set() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let dir = TempDir::new();
        let mut config = config(&dir);
        config.http_keep_alive = Duration::from_millis(300);
        let app = Arc::new(App::embedded(config).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(app, listener, async {
            let _stop = stopped.await;
        }));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let began = std::time::Instant::now();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer));
        read.await.expect("it is closed").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        stop.send(()).unwrap();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn the_database_is_closed_when_the_server_has_stopped() {
        let dir = TempDir::new();
        for _ in 0..2 {
            let app = Arc::new(App::embedded(config(&dir)).unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            serve(app, listener, async {}).await;
            // All of it is in the one file, for whoever copies that.
            let log = dir.path().join(format!("{DATABASE_FILE}-wal"));
            assert!(!log.exists());
        }
    }
}
