//! The `/sync` namespace: rooms, who sits in them, and what they watch.
//!
//! [`room`] is the core: a pure machine that turns commands into effects. [`event`] holds the shapes on the wire,
//! [`rows`] the shapes in the durable store, [`playback`] the arithmetic of media time and [`clock`] the one clock that
//! arithmetic runs on. [`state`](crate::state) is the shell around the core, [`sockets`] carries its effects out.
//!
//! What is here decodes an event, asks the state, and answers: an ack of `{ ok: true, … }`, or `{ ok: false, error }`
//! and `room:error`.

pub mod clock;
pub mod event;
pub mod playback;
pub mod room;
pub mod rows;
pub mod sockets;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;
use socketio::server::{DisconnectReason, EmitError, NamespaceBuilder, Refusal as ConnectRefusal};
use socketio::{Ack, Socket};

use self::event::{
    ErrorCode, GrantRequest, JoinRequest, KickRequest, PlayRequest, RateRequest, Refusal, ResyncRequest, RoomError,
    RoomState, SeekRequest, ServerEvent, SourceRequest, TimePing, TransferRequest, UpdateRequest, unfit_field,
};
use self::playback::Motion;
use self::room::{Command, ConnectionId, Editor, Identity, RoomPatch};
use self::sockets::Sockets;
use crate::auth::{self, Tokens};
use crate::config::{Config, InvalidTokenPolicy};
use crate::http::metrics::{Metrics, PasswordOutcome, Refusal as RefusalReason};
use crate::id;
use crate::incident;
use crate::limit::{self, SharedLimiter};
use crate::password::{PasswordError, Passwords};
use crate::state::{Joiner, Rooms};
use crate::store::RoomStore;

/// The name of the namespace.
pub const NAMESPACE: &str = "/sync";

/// What the handlers of the namespace work with.
#[derive(Debug)]
pub struct Service<S> {
    /// The rooms.
    pub state: Rooms<S, Arc<Sockets>>,
    /// The connections, by the number that rooms know them by.
    pub sockets: Arc<Sockets>,
    /// Who clients are.
    pub tokens: Tokens,
    /// The hashes of room passwords.
    pub passwords: Passwords,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Wrong passwords by [network](limit::network) and room code, with a colon in between.
    pub wrong_passwords: SharedLimiter,
    /// The settings.
    pub config: Arc<Config>,
}

/// What is known of one connection for as long as it lasts.
#[derive(Debug)]
struct Session {
    connection: ConnectionId,
    /// The connection's name in the log; it says nothing about the ids that clients see.
    log_id: String,
    user: Option<auth::Identity>,
    /// Why its token was not valid, where it was let in as a guest all the same.
    invalid_token: Option<auth::InvalidToken>,
}

/// What an ack says of a request that was carried out.
enum Answer {
    Done,
    State(Arc<RoomState>),
}

type Argument = Option<Box<RawValue>>;

static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// Registers the handlers.
pub fn register<S: RoomStore>(service: &Arc<Service<S>>, namespace: &mut NamespaceBuilder) {
    let of = || Arc::clone(service);
    let (checking, connected, left, measured, pinged) = (of(), of(), of(), of(), of());
    namespace
        .middleware(move |socket| {
            let answer = checking.authenticate(&socket);
            async move { answer }
        })
        .on_connect(move |socket| {
            connected.connected(&socket);
            async {}
        })
        .on_disconnect(move |socket, reason| {
            let service = Arc::clone(&left);
            async move { service.disconnected(&socket, reason).await }
        })
        .on_round_trip(move |socket, time| measured.measured(socket, time))
        .on_urgent("time:ping", move |socket: &Socket, argument: Argument, ack| {
            pinged.time_ping(socket, argument.as_deref(), ack);
        });

    let commands = COMMANDS.iter().map(|&(name, decode)| (name, Request::Command(decode)));
    for (name, request) in [("room:join", Request::Join), ("room:update", Request::Update)].into_iter().chain(commands)
    {
        let service = of();
        namespace.on_ack(name, move |socket, argument: Argument, ack| {
            let service = Arc::clone(&service);
            async move {
                let began = Instant::now();
                let answer = service.carry_out(&socket, request, argument.as_deref()).await;
                service.answer(&socket, name, ack, answer, began);
            }
        });
    }

    let (mismatched, unknown) = (of(), of());
    namespace
        .on_mismatch(move |socket, name, _error, ack| {
            let refusal = Refusal::invalid("the payload cannot be read");
            mismatched.answer(&socket, &name, ack, Err(refusal), Instant::now());
            async {}
        })
        .fallback(move |_socket, event, ack| {
            let refusal = Refusal::invalid("there is no such event");
            unknown.metrics.event(event.name(), refusal.code.as_str(), Duration::ZERO);
            acknowledge(ack, &Failure { ok: false, error: &refusal });
            async {}
        });
}

/// What an event asks for.
#[derive(Clone, Copy)]
enum Request {
    Join,
    Update,
    Command(Decode),
}

/// Turns the argument of an event into a command.
type Decode = fn(ConnectionId, Option<&str>) -> Result<Command, Refusal>;

/// The events that are one command each, without anything to be found out before.
const COMMANDS: &[(&str, Decode)] = &[
    ("room:leave", |connection, _| Ok(Command::Leave { connection })),
    ("room:grant", |connection, argument| {
        let GrantRequest { oder_id, can_control } = GrantRequest::decode(argument)?;
        Ok(Command::Grant { connection, oder_id, can_control })
    }),
    ("room:kick", |connection, argument| {
        let KickRequest { oder_id, reason } = KickRequest::decode(argument)?;
        Ok(Command::Kick { connection, oder_id, reason })
    }),
    ("room:transfer", |connection, argument| {
        let TransferRequest { oder_id } = TransferRequest::decode(argument)?;
        Ok(Command::Transfer { connection, oder_id })
    }),
    ("sync:source", |connection, argument| {
        Ok(Command::Source { connection, source: SourceRequest::decode(argument)? })
    }),
    ("sync:play", |connection, argument| {
        let PlayRequest { at_server_time } = PlayRequest::decode(argument)?;
        Ok(Command::Steer { connection, motion: Motion::Play, at_server_time })
    }),
    ("sync:pause", |connection, argument| {
        let PlayRequest { at_server_time } = PlayRequest::decode(argument)?;
        Ok(Command::Steer { connection, motion: Motion::Pause, at_server_time })
    }),
    ("sync:seek", |connection, argument| {
        let SeekRequest { target_media_time, at_server_time } = SeekRequest::decode(argument)?;
        Ok(Command::Steer { connection, motion: Motion::Seek(target_media_time), at_server_time })
    }),
    ("sync:rate", |connection, argument| {
        let RateRequest { rate, at_server_time } = RateRequest::decode(argument)?;
        Ok(Command::Steer { connection, motion: Motion::SetRate(rate), at_server_time })
    }),
    ("sync:resync", |connection, argument| {
        ResyncRequest::decode(argument)?;
        Ok(Command::Resync { connection })
    }),
];

impl<S: RoomStore> Service<S> {
    /// Finds out who a client is, from the token in its CONNECT packet.
    fn authenticate(&self, socket: &Socket) -> Result<(), ConnectRefusal> {
        let mut session = Session {
            connection: ConnectionId::new(self.state.instance(), NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed)),
            log_id: id::log_id(),
            user: None,
            invalid_token: None,
        };
        match self.user(socket) {
            Ok(user) => session.user = user,
            Err(error) => {
                self.metrics.refused(RefusalReason::Token);
                match self.config.auth_invalid_token {
                    InvalidTokenPolicy::Guest => session.invalid_token = Some(error),
                    InvalidTokenPolicy::Reject => {
                        let refusal = Refusal::new(ErrorCode::InvalidToken, error.to_string());
                        // A code and a text always serialise.
                        return Err(ConnectRefusal::new(error.to_string())
                            .with_data(&refusal)
                            .unwrap_or_else(|_| ConnectRefusal::new(error.to_string())));
                    }
                }
            }
        }
        tracing::debug!(session = session.log_id, user = session.user.is_some(), "connected");
        socket.insert(Arc::new(session));
        Ok(())
    }

    fn user(&self, socket: &Socket) -> Result<Option<auth::Identity>, auth::InvalidToken> {
        #[derive(serde::Deserialize)]
        struct Credentials {
            token: Option<String>,
        }
        // Whatever stands in place of a token is one that is not valid.
        let Credentials { token } = socket.auth().map_err(|_| auth::InvalidToken::Malformed)?;
        token.filter(|token| !token.is_empty()).map(|token| self.tokens.verify(&token)).transpose()
    }

    fn connected(&self, socket: &Socket) {
        let Ok(session) = session(socket) else { return };
        self.sockets.insert(session.connection, socket);
        if let Some(error) = &session.invalid_token {
            let refusal = Refusal::new(ErrorCode::InvalidToken, error.to_string());
            emit(socket, "room:error", &RoomError { refusal, event: None });
        }
    }

    async fn disconnected(&self, socket: &Socket, reason: DisconnectReason) {
        let Ok(session) = session(socket) else { return };
        tracing::debug!(session = session.log_id, %reason, "disconnected");
        if reason == DisconnectReason::TransportError {
            self.metrics.refused(RefusalReason::Transport);
        } else if PROTOCOL_FAULTS.contains(&reason) {
            self.metrics.refused(RefusalReason::Protocol);
        }
        self.state.disconnected(session.connection, reason.is_deliberate()).await;
        self.sockets.remove(session.connection);
    }

    /// Tells the room how far away a member is, for the lead of its commands.
    fn measured(&self, socket: &Socket, time: Duration) {
        let Ok(session) = session(socket) else { return };
        let round_trip_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let command = Command::Measured { connection: session.connection, round_trip_ms };
        let state = self.state.clone();
        // Not in the connection's own task, which must not wait for the room here.
        tokio::spawn(async move {
            // Who is in no room has nobody to be far away from.
            let _in_no_room = state.member(command).await;
        });
    }

    /// Answers a question for the time straight from the socket's task.
    fn time_ping(&self, socket: &Socket, argument: Option<&RawValue>, ack: Option<Ack>) {
        let began = Instant::now();
        match TimePing::decode(argument.map(RawValue::get)) {
            Ok(TimePing { client_time }) => {
                let pong = ServerEvent::TimePong { client_time, server_time: self.state.clock().now_ms() };
                emit(socket, pong.name(), &pong);
                acknowledge(ack, &Success { ok: true, value: &pong });
                self.metrics.event("time:ping", OK, began.elapsed());
            }
            Err(refusal) => self.answer(socket, "time:ping", ack, Err(refusal), began),
        }
    }

    async fn carry_out(
        &self,
        socket: &Socket,
        request: Request,
        argument: Option<&RawValue>,
    ) -> Result<Answer, Refusal> {
        let session = session(socket)?;
        match request {
            Request::Join => self.join(socket, &session, argument).await,
            // Rare, and large: the others should not have to be as large.
            Request::Update => Box::pin(self.update(&session, argument)).await,
            Request::Command(decode) => {
                let command = decode(session.connection, argument.map(RawValue::get))?;
                self.state.member(command).await?;
                Ok(Answer::Done)
            }
        }
    }

    async fn join(&self, socket: &Socket, session: &Session, argument: Option<&RawValue>) -> Result<Answer, Refusal> {
        let request = JoinRequest::decode(argument.map(RawValue::get))?;
        let username = session.user.as_ref().map_or(Ok(None), |user| user.username.clone());
        let username = username.map_err(|unfit| unfit_field("username", unfit))?;
        let mut joiner = Joiner {
            identity: match &session.user {
                Some(user) => Identity::User {
                    user_id: user.user_id.clone(),
                    // A token need not name its user; then the user may.
                    username: username.or(request.guest_name),
                },
                None => Identity::Guest { name: request.guest_name },
            },
            // Only others have to be told who is connected to this instance.
            socket_id: (self.state.instance() != 0).then(|| socket.id().as_str().into()),
            resume_token: request.resume_token,
            proved_hash: None,
        };
        let code = &request.room_code;
        let mut admission = self.state.open(session.connection, code).await?;
        if let (Some(hash), Some(password)) = (admission.password_hash().map(str::to_owned), request.password) {
            if joiner.resume_token.is_some() {
                // A token that is good needs no password, and hashing one costs more than all the rest.
                match Box::pin(admission.join(joiner.clone())).await {
                    Err(Refusal { code: ErrorCode::InvalidPassword, .. }) => {}
                    joined => return joined.map(Answer::State),
                }
                admission = self.state.open(session.connection, code).await?;
            }
            if Box::pin(self.verify(socket, code, password, hash.clone())).await? {
                joiner.proved_hash = Some(hash);
            }
        }
        let state = admission.join(joiner).await?;
        tracing::debug!(session = session.log_id, room = %state.room.row.id, "joined");
        Ok(Answer::State(state))
    }

    /// Verifies a room's password, unless this address has tried too many wrong ones.
    async fn verify(&self, socket: &Socket, code: &str, password: String, hash: String) -> Result<bool, Refusal> {
        let key = format!("{}:{code}", limit::network(socket.handshake().address.ip()));
        let attempt = self.wrong_passwords.attempt(key).await.map_err(|wait| {
            let mut refusal = Refusal::new(ErrorCode::RateLimitExceeded, "too many wrong passwords");
            refusal.retry_after_ms = u64::try_from(wait.as_millis()).ok();
            refusal
        })?;
        let verified = self.passwords.verify(password, hash).await;
        self.metrics.password_verified(match verified {
            Ok(true) => PasswordOutcome::Right,
            Ok(false) => PasswordOutcome::Wrong,
            Err(PasswordError::Busy) => PasswordOutcome::Busy,
            Err(PasswordError::MalformedHash | PasswordError::Failed) => PasswordOutcome::Failed,
        });
        if verified == Ok(false) {
            attempt.wrong();
        }
        verified.map_err(password_failure)
    }

    async fn update(&self, session: &Session, argument: Option<&RawValue>) -> Result<Answer, Refusal> {
        let request = UpdateRequest::decode(argument.map(RawValue::get), self.config.room_max_participants)?;
        let editor = Editor::Member(session.connection);
        if request.password.is_some() {
            // Hashing is expensive: only for who may use it.
            self.state.check_editor(None, &editor).await?;
        }
        let patch = self.patch(request).await?;
        self.state.member(Command::Update { editor, patch }).await?;
        Ok(Answer::Done)
    }

    /// Turns a request into a change of settings, the password into its hash.
    ///
    /// # Errors
    /// UNAVAILABLE where too many passwords are being hashed, INTERNAL_ERROR where hashing fails.
    pub async fn patch(&self, request: UpdateRequest) -> Result<RoomPatch, Refusal> {
        let password_hash = match request.password {
            Some(Some(password)) => Some(Some(self.passwords.hash(password).await.map_err(password_failure)?)),
            Some(None) => Some(None),
            None => None,
        };
        Ok(RoomPatch {
            name: request.name,
            max_participants: request.max_participants,
            password_hash,
            playback_control: request.playback_control,
            wait_for: request.wait_for,
        })
    }

    /// Sends the ack, and `room:error` for what has failed.
    fn answer(&self, socket: &Socket, event: &str, ack: Option<Ack>, answer: Result<Answer, Refusal>, began: Instant) {
        let result = match answer {
            Ok(Answer::Done) => {
                acknowledge(ack, &Success { ok: true, value: &Nothing {} });
                OK
            }
            Ok(Answer::State(state)) => {
                acknowledge(ack, &Success { ok: true, value: &*state });
                OK
            }
            Err(refusal) => {
                let code = refusal.code.as_str();
                if refusal.code == ErrorCode::RateLimitExceeded {
                    self.metrics.refused(RefusalReason::Rate);
                }
                acknowledge(ack, &Failure { ok: false, error: &refusal });
                emit(socket, "room:error", &RoomError { refusal, event: Some(event.to_owned().into()) });
                code
            }
        };
        self.metrics.event(event, result, began.elapsed());
    }
}

/// Returns what the middleware has left with a socket; it has been there for every connected one.
fn session(socket: &Socket) -> Result<Arc<Session>, Refusal> {
    socket.value::<Arc<Session>>().ok_or_else(|| internal("a socket has no session"))
}

/// Logs a failure of ours under an id, which is all that the client is told.
pub(crate) fn internal(cause: &str) -> Refusal {
    let id = incident::report(cause, "");
    Refusal::new(ErrorCode::InternalError, format!("the server failed; the log has the cause under {id}"))
}

/// Turns a failure of password hashing into an answer.
pub(crate) fn password_failure(error: PasswordError) -> Refusal {
    match error {
        PasswordError::Busy => Refusal::new(ErrorCode::Unavailable, "too many passwords are being checked, try again"),
        PasswordError::MalformedHash => internal("a stored password hash is malformed"),
        PasswordError::Failed => internal("hashing a password failed"),
    }
}

/// Sends an event; a client that has left meanwhile needs it no more.
pub(crate) fn emit(socket: &Socket, name: &str, payload: &impl Serialize) {
    match socket.emit(name, payload) {
        Err(EmitError::Usage(error)) => tracing::error!(event = name, %error, "an event could not be encoded"),
        // A client that misses an event has a wrong picture of its room; one that comes back gets a right one.
        Err(EmitError::Full) => socket.close_connection(),
        Ok(()) | Err(_) => {}
    }
}

fn acknowledge(ack: Option<Ack>, payload: &impl Serialize) {
    if let Some(Err(EmitError::Usage(error))) = ack.map(|ack| ack.send(payload)) {
        tracing::error!(%error, "an ack could not be encoded");
    }
}

/// How a connection ends whose client broke the protocol.
const PROTOCOL_FAULTS: [DisconnectReason; 3] =
    [DisconnectReason::ParseError, DisconnectReason::ForcedClose, DisconnectReason::ForcedServerClose];

/// The result of an event that was carried out, in the metrics.
const OK: &str = "ok";

#[derive(Serialize)]
struct Success<'a, T> {
    ok: bool,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
struct Failure<'a> {
    ok: bool,
    error: &'a Refusal,
}
