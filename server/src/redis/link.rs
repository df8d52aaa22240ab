//! One connection, made again whenever it is lost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, SendError};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, cmd,
};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use super::task::Task;
use super::unavailable::{Cause, Unavailable};
use crate::config::{RedisServer, RedisSettings};
use crate::id;

/// How to introduce oneself to a server.
#[derive(Clone)]
pub(super) struct Access {
    tls: bool,
    login: RedisConnectionInfo,
}

impl Access {
    pub(super) fn new(settings: &RedisSettings, database: u16) -> Self {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("syncwatch", env!("CARGO_PKG_VERSION"))
            .set_db(database.into());
        if let Some(user) = &settings.user {
            login = login.set_username(user);
        }
        if let Some(password) = &settings.password {
            login = login.set_password(password.expose());
        }
        Self { tls: settings.tls, login }
    }

    fn client(&self, server: &RedisServer) -> Result<Client, RedisError> {
        let RedisServer { host, port } = server.clone();
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?.set_redis_settings(self.login.clone());
        Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// What a connection is for.
pub(super) trait Purpose: Send + Sync + 'static {
    /// Readies a new connection, before anybody else has it.
    fn prepare(&self, connection: &mut MultiplexedConnection) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Takes what the server sends unasked. It is called by whoever reads the connection, and must not wait.
    fn pushed(&self, push: PushInfo, link: &Renewal);
}

/// One connection to one server, made again whenever it is lost.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    renewal: Renewal,
    _keeper: Task,
}

/// Asks for a new connection in place of the present one.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewal(Arc<Notify>);

impl Renewal {
    pub(super) fn ask(&self) {
        self.0.notify_one();
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Being made. It is worth waiting for.
    Connecting,
    Up(MultiplexedConnection),
    /// Cannot be made at present, for the last cause found.
    Down(Unavailable),
}

impl Link {
    pub(super) fn new(server: RedisServer, access: &Access, purpose: Arc<impl Purpose>) -> Self {
        let (sender, state) = watch::channel(State::Connecting);
        let renewal = Renewal::default();
        let keeper = Keeper { server, access: access.clone(), purpose, renewal: renewal.clone(), state: sender };
        Self { state, renewal, _keeper: Task::spawn(keeper.keep()) }
    }

    /// The connection, once it is made.
    ///
    /// # Errors
    /// At once where it cannot be made at present.
    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, Unavailable> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match settled.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(cause)) => Err(cause.clone()),
            Ok(State::Connecting) | Err(_) => Err(Unavailable::new(Cause::Down, "the server is stopping")),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    pub(super) fn renewal(&self) -> &Renewal {
        &self.renewal
    }
}

/// Sends a command and waits for its answer.
pub(super) async fn send(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<redis::Value, RedisError> {
    connection.send_packed_command(command).await?.extract_error()
}

struct Keeper<P> {
    server: RedisServer,
    access: Access,
    purpose: Arc<P>,
    renewal: Renewal,
    state: watch::Sender<State>,
}

impl<P: Purpose> Keeper<P> {
    async fn keep(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = Arc::new(Notify::new());
            match self.connect(&ended).await {
                Ok(connection) => {
                    tracing::debug!(server = %self.server, "connected to Redis");
                    let began = Instant::now();
                    self.settle(State::Up(connection.clone()));
                    let loss = self.watch(connection, &ended).await;
                    if began.elapsed() > STEADY {
                        pause = FIRST_PAUSE;
                    }
                    match loss {
                        Loss::Closed => self.settle(State::Connecting),
                        Loss::Renewed => drop(self.state.send_replace(State::Connecting)),
                        Loss::Hung(cause) => self.settle(State::Down(cause)),
                    }
                }
                Err(cause) => self.settle(State::Down(cause)),
            }
            time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn connect(&self, ended: &Arc<Notify>) -> Result<MultiplexedConnection, Unavailable> {
        let (purpose, renewal, ended) = (Arc::clone(&self.purpose), self.renewal.clone(), Arc::clone(ended));
        let pushed = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                ended.notify_one();
            } else {
                purpose.pushed(push, &renewal);
            }
            Ok::<_, SendError>(())
        };
        // Every wait has its own limit.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = config.set_pipeline_buffer_size(QUEUED_COMMANDS).set_push_sender(pushed);
        let unreachable = |detail: String| Unavailable::new(Cause::Down, detail);
        let client = self.access.client(&self.server).map_err(|error| unreachable(error.to_string()))?;
        let connecting = time::timeout(CONNECT_WITHIN, client.get_multiplexed_async_connection_with_config(&config));
        let mut connection = connecting
            .await
            .map_err(|_| unreachable(format!("no connection within {CONNECT_WITHIN:?}")))?
            .map_err(|error| match Unavailable::from(error) {
                Unavailable { cause: Cause::Unanswered, detail } => unreachable(detail),
                denied => denied,
            })?;
        let preparing = time::timeout(PREPARE_WITHIN, self.purpose.prepare(&mut connection));
        preparing.await.map_err(|_| unreachable(format!("not ready within {PREPARE_WITHIN:?}")))??;
        Ok(connection)
    }

    /// Waits until a connection is of no use any more.
    async fn watch(&self, mut connection: MultiplexedConnection, ended: &Notify) -> Loss {
        loop {
            tokio::select! {
                () = ended.notified() => return Loss::Closed,
                () = self.renewal.0.notified() => return Loss::Renewed,
                () = time::sleep(PING_EVERY) => {}
            }
            match time::timeout(PING_WITHIN, connection.send_packed_command(&cmd("PING"))).await {
                // An answer that is an error is an answer.
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Loss::Closed,
                Err(_) => {
                    let detail = format!("no answer to a ping within {PING_WITHIN:?}");
                    return Loss::Hung(Unavailable::new(Cause::Down, detail));
                }
            }
        }
    }

    /// Makes a state known, and logs what is news.
    fn settle(&self, next: State) {
        let server = &self.server;
        let last = self.state.send_replace(next.clone());
        match (last, next) {
            (State::Down(last), State::Down(cause)) if last.cause == cause.cause => {}
            (_, State::Down(cause)) => tracing::warn!(%server, %cause, "Redis is down"),
            (State::Down(_), State::Up(_)) => tracing::info!(%server, "Redis is up again"),
            (State::Up(_), State::Connecting) => tracing::warn!(%server, "a connection to Redis is lost"),
            (State::Connecting | State::Up(_), State::Connecting | State::Up(_))
            | (State::Down(_), State::Connecting) => {}
        }
    }
}

/// How a connection came to its end.
enum Loss {
    /// It is closed: the next one may be made at once.
    Closed,
    /// It is given up for another one, which we asked for: nothing to log.
    Renewed,
    /// The server does not answer.
    Hung(Unavailable),
}

impl fmt::Display for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Between half and all of a pause, so that instances that lost the same server do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let [random] = id::random::<1>();
    pause.mul_f64(0.5 + f64::from(random) / 512.0)
}

/// Commands that wait to be written to a connection; more of them wait with their callers.
const QUEUED_COMMANDS: usize = 256;

/// How long one attempt to connect may take; within the deadline of a call.
const CONNECT_WITHIN: Duration = Duration::from_millis(1_500);

/// How long it may take to listen to all channels again.
const PREPARE_WITHIN: Duration = Duration::from_secs(5);

/// Pauses between attempts to connect, which double.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection lasts before its loss counts as the first of a new row.
const STEADY: Duration = Duration::from_secs(5);

/// A server that does not answer for as long as this is down: whoever calls it then does not have to find out again.
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_WITHIN: Duration = Duration::from_millis(1_500);
