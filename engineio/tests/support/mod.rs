//! An echoing server, and clients that write whatever bytes they like.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its part

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use engineio::server::{Application, Body, Handler, Handshake, Limits, Link, Relay, Socket, serve};
use engineio::{CloseReason, Config, Frame, Message, RequestError, Server, Transport};
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Far above what any awaited condition takes; a test that reaches it has failed.
const SOON: Duration = Duration::from_secs(15);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("the condition that the test awaits never came")
}

/// Waits until something outside of any channel is so.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What an application sees.
#[derive(Debug)]
pub(crate) enum Event {
    Opened(Socket<()>),
    Message(Message),
    Closed(CloseReason),
}

/// Echoes, tells the test what it sees, and does what the test wants.
#[derive(Clone)]
pub(crate) struct App {
    events: mpsc::UnboundedSender<Event>,
    pub(crate) control: Arc<Control>,
}

#[derive(Default)]
pub(crate) struct Control {
    /// Messages are kept by the test, not echoed.
    pub(crate) silent: AtomicBool,
    pub(crate) behind: AtomicBool,
    pub(crate) forbid: AtomicBool,
    /// The subprotocol that the application wants instead of the first.
    pub(crate) subprotocol: Mutex<Option<&'static str>>,
    /// The next message makes its handler panic.
    pub(crate) panic: AtomicBool,
    /// How often a handler was polled.
    pub(crate) turns: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Control {
    /// Makes a handler that is behind ready again.
    pub(crate) fn catch_up(&self) {
        self.behind.store(false, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Application for App {
    type Handler = App;

    fn admit(&self, _: &Handshake<'_>) -> Result<(), RequestError> {
        if self.control.forbid.load(Ordering::SeqCst) { Err(RequestError::Forbidden) } else { Ok(()) }
    }

    fn choose_subprotocol<'a>(&self, _: &Parts, offered: &[&'a str]) -> Option<&'a str> {
        match *self.control.subprotocol.lock().unwrap() {
            Some(wanted) => offered.iter().copied().find(|name| *name == wanted),
            None => offered.first().copied(),
        }
    }

    fn open(&self, _: &Handshake<'_>, socket: Socket<()>) -> Self {
        let _test_over = self.events.send(Event::Opened(socket));
        self.clone()
    }
}

impl Handler for App {
    type Mail = ();

    fn on_message(&mut self, message: Message, link: &mut Link<'_>) {
        assert!(!self.control.panic.load(Ordering::SeqCst), "the test wants a panic");
        if !self.control.silent.load(Ordering::SeqCst) {
            link.send(Frame::message(&message)).unwrap();
        }
        let _test_over = self.events.send(Event::Message(message));
    }

    fn poll(&mut self, cx: &mut Context<'_>, _: &mut Link<'_>) {
        self.control.turns.fetch_add(1, Ordering::SeqCst);
        *self.control.waker.lock().unwrap() = Some(cx.waker().clone());
    }

    fn is_ready(&self) -> bool {
        !self.control.behind.load(Ordering::SeqCst)
    }

    fn on_close(&mut self, reason: CloseReason) {
        let _test_over = self.events.send(Event::Closed(reason));
    }
}

/// A server on a port of its own.
pub(crate) struct Host {
    pub(crate) addr: SocketAddr,
    pub(crate) server: Server<App>,
    pub(crate) control: Arc<Control>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::limited(change, |_| {}).await
    }

    pub(crate) async fn limited(change: impl FnOnce(&mut Config), limit: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        limit(&mut limits);
        Self::run(limits, |app| {
            let mut config = Config::default();
            change(&mut config);
            Server::new(config, app).unwrap()
        })
        .await
    }

    /// One of several instances.
    pub(crate) async fn relayed(config: Config, relay: Arc<dyn Relay>) -> Self {
        Self::run(Limits::default(), |app| Server::with_relay(config, app, relay).unwrap()).await
    }

    async fn run(limits: Limits, make: impl FnOnce(App) -> Server<App>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let control = Arc::<Control>::default();
        let server = make(App { events: sender, control: Arc::clone(&control) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = {
            let server = server.clone();
            move |request: http::Request<hyper::body::Incoming>, peer| {
                let server = server.clone();
                async move {
                    if server.owns(request.uri().path()) {
                        return server.handle(request, peer).await;
                    }
                    let mut response = http::Response::new(Body::default());
                    *response.status_mut() = http::StatusCode::NOT_FOUND;
                    Ok(response)
                }
            }
        };
        let serving = tokio::spawn(serve(listener, limits, service, async {
            let _stop_or_test_over = stopped.await;
        }));
        Self { addr, server, control, events, stop, serving }
    }

    pub(crate) async fn event(&mut self) -> Event {
        within(self.events.recv()).await.expect("the server lives")
    }

    /// The next message that the application receives.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            if let Event::Message(message) = self.event().await {
                return message;
            }
        }
    }

    pub(crate) async fn opened(&mut self) -> Socket<()> {
        loop {
            if let Event::Opened(socket) = self.event().await {
                return socket;
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> CloseReason {
        loop {
            if let Event::Closed(reason) = self.event().await {
                return reason;
            }
        }
    }

    /// Waits until no handler is being polled any more, and returns how often handlers were.
    pub(crate) async fn settled(&self) -> usize {
        let mut turns = self.control.turns.load(Ordering::SeqCst);
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match self.control.turns.load(Ordering::SeqCst) {
                same if same == turns => return turns,
                more => turns = more,
            }
        }
    }

    /// Begins a poll and waits until the session has it.
    pub(crate) async fn waiting_poll(&self, client: &Polling) -> Http {
        let turns = self.settled().await;
        let poll = client.start_poll().await;
        until(|| self.control.turns.load(Ordering::SeqCst) > turns).await;
        poll
    }

    /// Waits until no session and no byte is left.
    pub(crate) async fn idle(&self) {
        let stats = self.server.stats();
        until(|| {
            stats.sessions(Transport::Polling) == 0
                && stats.sessions(Transport::WebSocket) == 0
                && stats.queued_bytes() == 0
        })
        .await;
    }

    /// Ends the server and waits for it.
    pub(crate) async fn shut_down(self) {
        let _already_over = self.stop.send(());
        within(self.serving).await.unwrap();
    }
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Status and body, which most tests are about.
    pub(crate) fn says(&self) -> (u16, &str) {
        (self.status, self.text())
    }
}

/// One connection, with bytes as the test likes them.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Writes a request whose body, if any, comes with its length.
    pub(crate) async fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.write(&[head.as_bytes(), body].concat()).await;
    }

    async fn fill(&mut self) -> usize {
        within(self.stream.read_buf(&mut self.buffer)).await.unwrap_or(0)
    }

    /// Reads one answer.
    pub(crate) async fn response(&mut self) -> Response {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill().await > 0, "the connection ended before an answer");
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response { status, headers, body: Vec::new() };
        let len = response.header("content-length").map_or(0, |len| len.parse().unwrap());
        while self.buffer.len() < len {
            assert!(self.fill().await > 0, "the connection ended amid a body");
        }
        response.body = self.buffer.drain(..len).collect();
        response
    }

    /// Tells whether an answer comes before the end of the connection.
    pub(crate) async fn end_of_one_answer(mut self) -> bool {
        self.fill().await > 0
    }

    /// Waits for the end of the connection, by any means, and returns what came before it.
    pub(crate) async fn end(mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        self.buffer
    }
}

pub(crate) async fn request(addr: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let mut http = Http::connect(addr).await;
    http.request(method, target, headers, b"").await;
    http.response().await
}

pub(crate) async fn get(addr: SocketAddr, target: &str) -> Response {
    request(addr, "GET", target, &[]).await
}

pub(crate) const POLLING: &str = "/engine.io/?EIO=4&transport=polling";
pub(crate) const WEBSOCKET: &str = "/engine.io/?EIO=4&transport=websocket";

/// A polling client; each request is a connection of its own.
#[derive(Clone)]
pub(crate) struct Polling {
    pub(crate) addr: SocketAddr,
    pub(crate) sid: String,
}

impl Polling {
    pub(crate) async fn open(host: &Host) -> Self {
        let response = get(host.addr, POLLING).await;
        assert_eq!(response.status, 200);
        Self { addr: host.addr, sid: sid_of(response.text()) }
    }

    /// The same client, whose requests reach another instance from now on.
    pub(crate) fn at(&self, host: &Host) -> Self {
        Self { addr: host.addr, sid: self.sid.clone() }
    }

    pub(crate) fn target(&self) -> String {
        format!("{POLLING}&sid={}", self.sid)
    }

    pub(crate) fn websocket_target(&self) -> String {
        format!("{WEBSOCKET}&sid={}", self.sid)
    }

    pub(crate) async fn poll(&self) -> Response {
        get(self.addr, &self.target()).await
    }

    /// Begins a poll, whose answer is read later.
    pub(crate) async fn start_poll(&self) -> Http {
        let mut http = Http::connect(self.addr).await;
        http.request("GET", &self.target(), &[], b"").await;
        http
    }

    pub(crate) async fn post(&self, body: impl AsRef<[u8]>) -> Response {
        let mut http = Http::connect(self.addr).await;
        http.request("POST", &self.target(), &[], body.as_ref()).await;
        http.response().await
    }

    /// Begins a POST of a body of which nothing comes yet.
    pub(crate) async fn start_post(&self, len: usize) -> Http {
        let mut http = Http::connect(self.addr).await;
        http.write(format!("POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n", self.target()))
            .await;
        http
    }
}

pub(crate) fn sid_of(open: &str) -> String {
    open.split_once(r#""sid":""#).unwrap().1.split('"').next().unwrap().to_owned()
}

pub(crate) const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FIN: u8 = 0x80;

/// A WebSocket by hand.
pub(crate) struct Ws {
    pub(crate) http: Http,
}

impl Ws {
    pub(crate) async fn connect(addr: SocketAddr, target: &str) -> Self {
        Self::connect_with(addr, target, &[]).await
    }

    pub(crate) async fn connect_with(addr: SocketAddr, target: &str, more: &[(&str, &str)]) -> Self {
        let mut http = Http::connect(addr).await;
        http.request("GET", target, &[&UPGRADE, more].concat(), b"").await;
        let response = http.response().await;
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Self { http }
    }

    /// A session on a WebSocket, its open packet read.
    pub(crate) async fn open(host: &Host) -> Self {
        let mut ws = Self::connect(host.addr, WEBSOCKET).await;
        assert!(ws.text().await.starts_with("0{"));
        ws
    }

    /// Two handles on the connection, so that one task can write while another reads.
    pub(crate) fn split(self) -> (Self, Self) {
        let Http { stream, buffer } = self.http;
        let stream = stream.into_std().unwrap();
        let writes = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let reads = TcpStream::from_std(stream).unwrap();
        (Self { http: Http { stream: writes, buffer: Vec::new() } }, Self { http: Http { stream: reads, buffer } })
    }

    /// Writes one frame, masked; `first` is the byte with FIN and opcode.
    pub(crate) async fn frame(&mut self, first: u8, data: &[u8]) {
        self.http.write(masked(first, data)).await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.frame(FIN | TEXT, text.as_bytes()).await;
    }

    /// Reads one frame: its first byte and its data. `None` at the end of the connection.
    pub(crate) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let bytes = &self.http.buffer;
            let (header, len) = match bytes.get(1).copied() {
                Some(126) if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
                Some(127) if bytes.len() >= 10 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
                Some(short) if short < 126 => (2, usize::from(short)),
                _ => (usize::MAX, 0),
            };
            if header < usize::MAX && bytes.len() >= header + len {
                let frame: Vec<u8> = self.http.buffer.drain(..header + len).collect();
                return Some((frame[0], frame[header..].to_vec()));
            }
            if self.http.fill().await == 0 {
                return None;
            }
        }
    }

    /// Reads a text frame.
    pub(crate) async fn text(&mut self) -> String {
        let (first, data) = self.read().await.expect("a frame");
        assert_eq!(first, FIN | TEXT, "{data:?}");
        String::from_utf8(data).unwrap()
    }

    /// Skips to the close frame and returns its data, then waits for the end.
    pub(crate) async fn close_frame(mut self) -> Vec<u8> {
        loop {
            let (first, data) = self.read().await.expect("a close frame");
            if first == FIN | CLOSE {
                drop(self.http.stream.shutdown().await);
                assert!(self.read().await.is_none(), "nothing follows a close frame");
                return data;
            }
        }
    }

    /// Upgrades a polling session up to the answer of the probe.
    pub(crate) async fn probe(client: &Polling) -> Self {
        let mut ws = Self::connect(client.addr, &client.websocket_target()).await;
        ws.send("2probe").await;
        assert_eq!(ws.text().await, "3probe");
        ws
    }
}

pub(crate) fn masked(first: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match data.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
