//! The shell: a hyper service that turns requests into mail for sessions, each driven by one task.
//!
//! A [`Server`] answers the requests under its path; what it does not own, [`Server::owns`] tells. [`serve`] runs any
//! service over a listener with the limits that a public server needs.

mod driver;
mod gather;
mod listen;
mod mailbox;
mod polling;
mod relay;
mod table;
mod websocket;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH,
    CONTENT_TYPE, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use tokio::sync::oneshot;
use tungstenite::handshake::derive_accept_key;

pub use self::listen::{Limits, serve};
pub use self::mailbox::{SendError, Socket};
pub use self::relay::{Mailroom, Relay, Undelivered};
pub use self::table::Stats;

use self::driver::Driver;
use self::mailbox::{Limits as MailLimits, Mail, Mailbox};
use self::relay::{Exchange, Receive};
use self::table::{Registration, Table};
use crate::config::Config;
use crate::error::{CloseReason, ConfigError, RequestError};
use crate::frame::Frame;
use crate::handshake::{Intent, RequestFacts, Sid, Transport, route};
use crate::origin::Origins;
use crate::packet::Message;
use crate::session::{Input, Session};

/// Makes a [`Handler`] for each session.
pub trait Application: Send + Sync + 'static {
    /// What handles the messages of one session.
    type Handler: Handler;

    /// Decides whether a client may open a session. Default: yes.
    ///
    /// # Errors
    /// Any [`RequestError`]; [`RequestError::Forbidden`] is answered with status 403 and code 4.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<(), RequestError> {
        let _ = handshake;
        Ok(())
    }

    /// Chooses the subprotocol of a WebSocket from those that its client offers, in its order of preference; `None`
    /// accepts none of them. Default: the first, as in engine.io 6.6.
    ///
    /// Called for each handshake that offers any, upgrades included. Browsers close a WebSocket that offered some and got
    /// none.
    ///
    /// Source: RFC 6455, section 4.2.2.
    fn choose_subprotocol<'a>(&self, request: &Parts, offered: &[&'a str]) -> Option<&'a str> {
        let _ = request;
        offered.first().copied()
    }

    /// Opens a session. The handshake's headers are gone afterwards: keep what is needed of them.
    fn open(&self, handshake: &Handshake<'_>, socket: Socket<<Self::Handler as Handler>::Mail>) -> Self::Handler;
}

/// The request that opens a session.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Handshake<'a> {
    /// Method, URI and headers.
    pub request: &'a Parts,
    /// The address that the request came from.
    pub peer: SocketAddr,
    /// The transport that the session starts on.
    pub transport: Transport,
}

/// Handles one session, inside the session's task. Nothing here may block or take long; what must wait is polled in
/// [`poll`](Self::poll).
pub trait Handler: Send + 'static {
    /// What the application sends to its own handler with [`Socket::mail`]; `()` if nothing.
    type Mail: Send + 'static;

    /// Takes a message of the client.
    fn on_message(&mut self, message: Message, link: &mut Link<'_>);

    /// Takes mail of the application.
    fn on_mail(&mut self, mail: Self::Mail, link: &mut Link<'_>) {
        let _ = (mail, link);
    }

    /// Returns the frame that mail consists of, if [`on_mail`](Self::on_mail) would do nothing but send it. Mail handed
    /// over with [`Socket::mail_for_flush`] must be of that kind.
    fn frame_of(mail: &Self::Mail) -> Option<&Frame> {
        let _ = mail;
        None
    }

    /// Learns how long the last heartbeat took, from ping to pong.
    fn on_round_trip(&mut self, time: Duration) {
        let _ = time;
    }

    /// Makes progress with what waits, registering the task with `cx`. Called at each turn of the task.
    fn poll(&mut self, cx: &mut Context<'_>, link: &mut Link<'_>) {
        let _ = (cx, link);
    }

    /// Returns `true` if more messages are welcome. While they are not, none are handed over, except at the end of the
    /// session: what came before it is handed over before [`on_close`](Self::on_close).
    ///
    /// The session keeps up to 64 messages or 64 KiB meanwhile, and what was read with them. Then nothing more is read from
    /// the client; it is not closed for pongs that are not read.
    fn is_ready(&self) -> bool {
        true
    }

    /// Returns how many bytes the handler keeps of messages that it has not handled yet, which count against
    /// [`Config::max_total_backlog_bytes`].
    fn unhandled_bytes(&self) -> usize {
        0
    }

    /// Returns when [`on_timeout`](Self::on_timeout) is due.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Handles the time that [`poll_timeout`](Self::poll_timeout) named; it must name a later one or none afterwards.
    fn on_timeout(&mut self, link: &mut Link<'_>) {
        let _ = link;
    }

    /// Learns that the session is over. Called once.
    fn on_close(&mut self, reason: CloseReason) {
        let _ = reason;
    }

    /// Ready when everything begun is finished; the session's task lives until then. Called after
    /// [`on_close`](Self::on_close).
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }
}

/// The way from a [`Handler`] to its client, without a detour through the mailbox.
#[derive(Debug)]
pub struct Link<'a> {
    session: &'a mut Session,
    now: Instant,
    /// What the mail counts that has not come to the session yet.
    queued: &'a AtomicUsize,
    /// The handler puts something off until less waits.
    puts_off: &'a mut bool,
}

impl Link<'_> {
    /// Sends a message.
    ///
    /// # Errors
    /// [`SendError::Full`] where too much waits for the client. That cannot happen to a handler which sends a bounded
    /// amount for each message of its client: nothing is read from a client that takes too little.
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        if !self.session.has_room_for(frame.cost()) {
            return Err(SendError::Full);
        }
        self.session.handle(Input::Send(frame), self.now);
        Ok(())
    }

    /// Sends a message of mail, whose bytes were counted when [`Socket::mail`] took it: it is not refused.
    pub fn send_counted(&mut self, frame: Frame) {
        self.session.handle(Input::Send(frame), self.now);
    }

    /// Returns `true` while much waits for the client, see [`Config::high_water_bytes`]. A handler that keeps messages in
    /// a queue of its own should put off those whose handling may send more; it is polled when less waits.
    pub fn is_congested(&mut self) -> bool {
        let congested = !self.session.wants_input(self.queued.load(Relaxed));
        *self.puts_off |= congested;
        congested
    }

    /// Sends a message that is dropped if the client is not ready for it at once.
    pub fn send_volatile(&mut self, frame: Frame) {
        self.session.handle(Input::SendVolatile(frame), self.now);
    }

    /// Closes the session once everything sent so far has left.
    pub fn close(&mut self) {
        self.session.handle(Input::Close, self.now);
    }

    /// Tells whether a message sent now leaves at once; if not, [`send_volatile`](Self::send_volatile) drops it.
    ///
    /// Asked before a message of several frames, it lets all of them leave or none.
    pub fn is_writable(&self) -> bool {
        self.session.is_writable()
    }

    /// Returns the time of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }
}

/// The body of every answer.
pub type Body = Full<Bytes>;

/// The connection is to be broken off without an answer, as an error that makes hyper do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection was broken off")
    }
}

impl std::error::Error for Reset {}

/// An Engine.IO server. A clone is another handle on the same server.
pub struct Server<A: Application> {
    shared: Arc<Shared<A>>,
}

struct Shared<A: Application> {
    config: Arc<Config>,
    /// Without the slash at its end.
    path: String,
    application: A,
    table: Arc<Table<<A::Handler as Handler>::Mail>>,
    closing: AtomicBool,
    /// What it does for other instances, and they for it.
    exchange: Option<Arc<Exchange>>,
}

impl<A: Application> Shared<A> {
    fn new(config: Config, application: A, relay: Option<Arc<dyn Relay>>) -> Result<Self, ConfigError> {
        config.validate()?;
        let table = Table::new(config.max_sessions, config.max_total_backlog_bytes);
        let lines = &table.stats().lines;
        let exchange = relay.map(|relay| Exchange::new(relay, config.relay.clone(), Arc::clone(lines)));
        let path = config.path.trim_end_matches('/').to_owned();
        let closing = AtomicBool::new(false);
        Ok(Self { config: Arc::new(config), path, application, table, closing, exchange })
    }
}

impl<A: Application> Clone for Server<A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<A: Application> std::fmt::Debug for Server<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl<A: Application> Server<A> {
    /// Makes a server.
    ///
    /// # Errors
    /// [`ConfigError`] where a field is out of its range.
    pub fn new(config: Config, application: A) -> Result<Self, ConfigError> {
        Ok(Self { shared: Arc::new(Shared::new(config, application, None)?) })
    }

    /// Makes a server that is one of several instances behind a balancer which sends a request to any of them: one that
    /// reaches another instance than its session's is answered all the same, with a detour over `relay`.
    ///
    /// Session ids are 28 characters then, the last 8 of them the name of the instance. All instances have the same
    /// `config`.
    ///
    /// # Errors
    /// [`ConfigError`] where a field is out of its range.
    pub fn with_relay(config: Config, application: A, relay: Arc<dyn Relay>) -> Result<Self, ConfigError> {
        let shared = Arc::new(Shared::new(config, application, Some(Arc::clone(&relay)))?);
        let receiver: Weak<dyn Receive> = Arc::downgrade(&shared) as Weak<dyn Receive>;
        relay.open(Mailroom::new(receiver));
        Ok(Self { shared })
    }

    /// Returns `true` if a request's path is this server's: everything under [`Config::path`] and a slash, and without
    /// [`Config::add_trailing_slash`] the path itself.
    pub fn owns(&self, path: &str) -> bool {
        path.strip_prefix(&self.shared.path).is_some_and(|rest| match rest {
            "" => !self.shared.config.add_trailing_slash,
            rest => rest.starts_with('/'),
        })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Returns the server's counts.
    pub fn stats(&self) -> &Stats {
        self.shared.table.stats()
    }

    /// Closes all sessions and lets no new ones in. Ready when the last one is over and its handler has
    /// [finished](Handler::poll_finished); a session takes no longer than [`Config::close_timeout`] and 2 s, a handler
    /// as long as it likes. A relay is closed last.
    pub async fn close(&self) {
        self.shared.closing.store(true, Release);
        for mailbox in self.shared.table.mailboxes() {
            // An error means that the session ended by itself.
            let _ended = mailbox.push_own(Mail::ShutDown);
        }
        self.shared.table.emptied().await;
        if let Some(exchange) = &self.shared.exchange {
            exchange.close().await;
        }
    }

    /// Answers a request whose path this server [owns](Self::owns).
    ///
    /// Must run inside of a hyper connection that allows upgrades, as [`serve`] does.
    ///
    /// # Errors
    /// [`Reset`] where the connection is to be broken off, as the protocol wants it for overlapping requests.
    pub async fn handle<B>(&self, request: Request<B>, peer: SocketAddr) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        let (mut parts, body) = request.into_parts();
        let origin = match self.check_origin(&parts) {
            Ok(origin) => origin,
            Err(error) => return Ok(self.refuse(error, false)),
        };
        let mut response = if parts.method == Method::OPTIONS && self.shared.config.origins != Origins::Own {
            preflight(&parts.headers)
        } else {
            self.dispatch(&mut parts, body, peer).await?
        };
        if let Some(origin) = origin {
            self.add_cors(response.headers_mut(), origin);
        }
        Ok(response)
    }

    async fn dispatch<B>(&self, parts: &mut Parts, body: B, peer: SocketAddr) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body<Data = Bytes> + Unpin,
    {
        let upgrade = wants_websocket(&parts.headers);
        let facts =
            RequestFacts { method: parts.method.as_str(), query: parts.uri.query().unwrap_or_default(), upgrade };
        let intent = match route(facts, &self.shared.config) {
            Ok(intent) => intent,
            Err(error) => return Ok(self.refuse(error, upgrade)),
        };
        if let Some(there) = self.elsewhere(&intent) {
            // Boxed: its future is larger than that of a request which stays.
            return Box::pin(self.pass_on(there, intent, parts, body)).await;
        }
        match intent {
            Intent::Open(transport) => self.open(parts, peer, transport).await,
            Intent::Mistaken => Ok(self.mistaken(parts)),
            Intent::Poll(sid) => self.with_session(&sid, polling::poll).await,
            Intent::Post(sid) => {
                let config = &self.shared.config;
                self.with_session(&sid, |mailbox| polling::post(mailbox, &parts.headers, body, config)).await
            }
            Intent::Upgrade(sid) => Ok(self.upgrade(&sid, parts)),
            Intent::Unusable(sid) => Ok(match self.shared.table.find(&sid) {
                Some(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
                None => self.refuse(RequestError::UnknownSid, false),
            }),
        }
    }

    /// Opens a session, on a poll or a WebSocket.
    async fn open(&self, parts: &mut Parts, peer: SocketAddr, transport: Transport) -> Result<Response<Body>, Reset> {
        let websocket = transport == Transport::WebSocket;
        let switching = if websocket {
            match self.accept_websocket(parts) {
                Ok(response) => Some(response),
                Err(refusal) => return Ok(*refusal),
            }
        } else {
            None
        };
        let handshake = Handshake { request: parts, peer, transport };
        if let Err(error) = self.shared.application.admit(&handshake) {
            return Ok(self.refuse(error, websocket));
        }
        let config = &self.shared.config;
        let limits = MailLimits { max: config.max_backlog_bytes(), high_water: config.high_water_bytes() };
        let mailbox = Mailbox::new(limits, A::Handler::frame_of);
        let registered = if self.shared.closing.load(Acquire) {
            None
        } else {
            self.new_sid().and_then(|sid| Some((sid, self.shared.table.register(sid, &mailbox, transport)?)))
        };
        let Some((sid, registration)) = registered else {
            self.stats().count_overload();
            return Ok(empty(StatusCode::SERVICE_UNAVAILABLE));
        };
        if self.shared.closing.load(Acquire) {
            // `close` may have missed this session, and would wait for it.
            let _closes = mailbox.push_own(Mail::ShutDown);
        }
        let handler = self.shared.application.open(&handshake, Socket::new(Arc::clone(&mailbox)));
        let now = tokio::time::Instant::now().into_std();
        let session = Session::open(&sid, transport, Arc::clone(&self.shared.config), now);
        let mut driver = Driver::new(session, handler, mailbox, registration, Arc::clone(&self.shared.config));
        match switching {
            Some((response, switch)) => {
                tokio::spawn(driver::run_websocket(driver, switch));
                Ok(response)
            }
            None => {
                let (reply, answer) = oneshot::channel();
                driver.first_poll(reply);
                tokio::spawn(driver::run(driver));
                polling::answer(answer).await
            }
        }
    }

    /// Draws a session id, and names this instance in it if there are others.
    fn new_sid(&self) -> Option<Sid> {
        let sid = new_sid()?;
        Some(self.shared.exchange.as_ref().map_or(sid, |exchange| sid.at(exchange.here())))
    }

    /// Lets a WebSocket try to become the transport of a session.
    fn upgrade(&self, sid: &Sid, parts: &mut Parts) -> Response<Body> {
        let Some(mailbox) = self.shared.table.find(sid) else {
            return self.refuse(RequestError::UnknownSid, true);
        };
        let (response, switch) = match self.accept_websocket(parts) {
            Ok(accepted) => accepted,
            Err(refusal) => return *refusal,
        };
        let config = Arc::clone(&self.shared.config);
        tokio::spawn(async move {
            // A handshake that is given up leaves nothing: the session has not heard of it yet.
            if let Ok(Ok(upgraded)) = tokio::time::timeout(config.upgrade_timeout, switch).await {
                let websocket = websocket::WebSocket::new(upgraded, config.max_payload_bytes);
                // Where the session ended meanwhile, the WebSocket ends with it.
                let _ended = mailbox.push_own(Mail::Candidate(Box::new(websocket)));
            }
        });
        response
    }

    /// Completes the handshake of a WebSocket that asked for polling and closes it, as engine.io 6.6 does.
    fn mistaken(&self, parts: &mut Parts) -> Response<Body> {
        match self.accept_websocket(parts) {
            Ok((response, switch)) => {
                let config = Arc::clone(&self.shared.config);
                tokio::spawn(async move {
                    if let Ok(Ok(upgraded)) = tokio::time::timeout(config.upgrade_timeout, switch).await {
                        let websocket = websocket::WebSocket::new(upgraded, config.max_payload_bytes);
                        websocket.finish(None, config.close_timeout).await;
                    }
                });
                response
            }
            Err(refusal) => *refusal,
        }
    }

    /// Checks a WebSocket handshake and prepares its answer.
    fn accept_websocket(&self, parts: &mut Parts) -> Result<Accepted, Box<Response<Body>>> {
        let mut accepted = accept_websocket(parts)?;
        let offered = subprotocols(&parts.headers);
        if !offered.is_empty()
            && let Some(chosen) = self.shared.application.choose_subprotocol(parts, &offered)
            && let Ok(chosen) = HeaderValue::from_str(chosen)
        {
            accepted.0.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
        }
        Ok(accepted)
    }

    async fn with_session<'a, F, T>(&'a self, sid: &Sid, request: F) -> Result<Response<Body>, Reset>
    where
        F: FnOnce(Arc<Mailbox<<A::Handler as Handler>::Mail>>) -> T,
        T: Future<Output = Result<Response<Body>, Reset>> + 'a,
    {
        match self.shared.table.find(sid) {
            Some(mailbox) => request(mailbox).await,
            None => Ok(self.refuse(RequestError::UnknownSid, false)),
        }
    }

    /// Answers with an error. On a WebSocket handshake the reference sends the bare message; where we differ from it
    /// in the status or the moment (codes 4 and 5) the body says which code it is.
    fn refuse(&self, error: RequestError, websocket: bool) -> Response<Body> {
        self.stats().count_refusal(error);
        if websocket && !matches!(error, RequestError::Forbidden | RequestError::UnsupportedProtocol) {
            let mut response = Response::new(Body::from(error.message()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            return response;
        }
        polling::request_error(error)
    }

    /// Checks the `Origin` header, which returns for the CORS headers of the answer.
    fn check_origin(&self, request: &Parts) -> Result<Option<HeaderValue>, RequestError> {
        let Some(origin) = request.headers.get(ORIGIN) else { return Ok(None) };
        if origin.to_str().is_err() {
            return Err(RequestError::BadRequest);
        }
        if self.shared.config.origins.allows_request(request) {
            Ok(Some(origin.clone()))
        } else {
            Err(RequestError::Forbidden)
        }
    }

    fn add_cors(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        match self.shared.config.origins {
            Origins::Own => {}
            Origins::Any => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
            Origins::List(_) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
        }
    }
}

/// Answers a CORS preflight, for any method and the headers that are asked for.
fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE"));
    answer.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        answer.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
    }
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Draws a session id; `None` where the system has no randomness to give.
fn new_sid() -> Option<Sid> {
    let mut random = [0; 15];
    match getrandom::fill(&mut random) {
        Ok(()) => Some(Sid::from_random(random)),
        Err(error) => {
            tracing::error!(%error, "no randomness for a session id");
            None
        }
    }
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, wanted: &str| {
        headers.get_all(name).iter().flat_map(list).any(|element| element.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Splits a header's value at its commas.
fn list(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// The subprotocols that a WebSocket handshake offers. What is no token cannot be answered, and is passed over.
fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let elements = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().flat_map(list);
    elements.filter_map(|element| str::from_utf8(element).ok().filter(|name| is_token(name))).collect()
}

/// Source: RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The answer to a WebSocket handshake, and the connection once that has been sent.
type Accepted = (Response<Body>, hyper::upgrade::OnUpgrade);

/// Checks a WebSocket handshake and prepares its answer, without a subprotocol. Source: RFC 6455, section 4.2.
fn accept_websocket(parts: &mut Parts) -> Result<Accepted, Box<Response<Body>>> {
    if parts.version < Version::HTTP_11 {
        tracing::debug!("refused a WebSocket handshake: {NEEDS_HTTP_1_1}");
        let mut refusal = empty(StatusCode::BAD_REQUEST);
        refusal.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        *refusal.body_mut() = Body::from(NEEDS_HTTP_1_1);
        return Err(Box::new(refusal));
    }
    let headers = &parts.headers;
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut refusal = empty(StatusCode::BAD_REQUEST);
        refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(refusal));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_websocket_key(key.as_bytes()));
    // A body would be read as frames by one side and as a request by another.
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let (Some(key), false, true) = (key, has_body, parts.method == Method::GET) else {
        let mut refusal = empty(StatusCode::BAD_REQUEST);
        refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Err(Box::new(refusal));
    };
    let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) else {
        return Err(Box::new(empty(StatusCode::BAD_REQUEST)));
    };
    let Some(switch) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
        tracing::error!("a WebSocket handshake came on a connection that was not served with upgrades");
        return Err(Box::new(empty(StatusCode::INTERNAL_SERVER_ERROR)));
    };
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok((response, switch))
}

/// The client is nearly always a proxy: nginx speaks HTTP/1.0 to its upstream servers unless it is told otherwise.
const NEEDS_HTTP_1_1: &str = "a WebSocket needs HTTP/1.1; in nginx that is `proxy_http_version 1.1`";

/// 16 bytes in base64: 22 characters and two `=`.
fn is_websocket_key(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}
