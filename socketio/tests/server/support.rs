//! A server on a free port, clients that write the protocol by hand, and ways to wait without sleeping.

use std::future::Future;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use socketio::server::{Config, IoBuilder, NamespaceBuilder};
use socketio::{Io, Namespace, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Raises the limit of open files as far as it goes, for tests with many clients.
pub(crate) fn open_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The default settings, but for how long the goodbye of a client that does not poll may take.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.engine.close_timeout = Duration::from_millis(100);
    config
}

/// The default settings, with all the time in the world to poll for the goodbye.
pub(crate) fn patient() -> Config {
    let mut config = Config::default();
    config.engine.close_timeout = Duration::from_secs(3600);
    config
}

/// A server that runs until [`finish`](Self::finish).
pub(crate) struct Server {
    pub(crate) io: Io,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves the namespace `/` with the default settings.
    pub(crate) async fn start(register: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        Self::with(Io::builder().config(config()).namespace("/", register)).await
    }

    pub(crate) async fn with(builder: IoBuilder) -> Self {
        let io = builder.build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = io.clone();
        let task = tokio::spawn(async move {
            serving
                .serve(listener, async {
                    let _dropped = stopped.await;
                })
                .await;
        });
        Self { io, address, stop, task }
    }

    pub(crate) fn root(&self) -> Namespace {
        self.io.of("/").unwrap()
    }

    /// Waits until the namespace has as many sockets.
    pub(crate) async fn sockets(&self, count: usize) -> Vec<Socket> {
        let root = self.root();
        until("the sockets", || root.len() == count).await;
        root.broadcast().sockets()
    }

    /// Waits until every client has left by itself, and nothing of them.
    pub(crate) async fn emptied(&self) {
        for name in ["/", "/chat"] {
            if let Some(namespace) = self.io.of(name) {
                until("the last socket to leave", || namespace.is_empty()).await;
                until("the last room to go", || namespace.rooms() == 0).await;
            }
        }
    }

    /// Shuts down, in time and with nothing left over.
    pub(crate) async fn finish(self) {
        let _over = self.stop.send(());
        within("the server's end", self.task).await.unwrap();
        for name in ["/", "/chat"] {
            if let Some(namespace) = self.io.of(name) {
                assert_eq!((namespace.len(), namespace.rooms()), (0, 0), "left in {name}");
            }
        }
    }
}

/// What a client receives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Text(String),
    Binary(Vec<u8>),
    /// The connection is over, one way or the other.
    End,
}

/// A client on a WebSocket.
pub(crate) struct Client {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    /// What a task has read ahead: at most one message, so that a client which does not receive is deaf. The task also
    /// answers the server's close frame.
    received: mpsc::Receiver<Received>,
    reading: JoinHandle<()>,
    /// The same connection, for what is no WebSocket frame.
    raw: Arc<std::net::TcpStream>,
    /// The secret id of the session.
    pub(crate) session: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reading.abort();
        // An error means that it is gone already.
        let _gone = self.raw.shutdown(Shutdown::Both);
    }
}

impl Client {
    /// Opens a session, in no namespace yet.
    pub(crate) async fn open(server: &Server) -> Self {
        let mut client = Self::connect(server.address, "").await;
        let open = client.text().await;
        client.session = string_field(&open, "sid");
        client
    }

    async fn connect(address: SocketAddr, query: &str) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap().into_std().unwrap();
        let raw = Arc::new(stream.try_clone().unwrap());
        let stream = TcpStream::from_std(stream).unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = within("the handshake", client_async(url, stream)).await.unwrap();
        let (sink, mut stream) = socket.split();
        let (sender, received) = mpsc::channel(1);
        let ended = Arc::clone(&raw);
        let reading = tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let message = match message {
                    Message::Text(text) => Received::Text(text.to_string()),
                    Message::Binary(bytes) => Received::Binary(bytes.to_vec()),
                    Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
                };
                if sender.send(message).await.is_err() {
                    break;
                }
            }
            // As clients do, so that the server need not wait for it.
            let _gone = ended.shutdown(Shutdown::Both);
        });
        Self { sink, received, reading, raw, session: String::new() }
    }

    /// Opens a session and joins `/`.
    pub(crate) async fn joined(server: &Server) -> Self {
        let mut client = Self::open(server).await;
        client.join("/").await;
        client
    }

    /// Joins a namespace; returns the public id.
    pub(crate) async fn join(&mut self, namespace: &str) -> String {
        let name = if namespace == "/" { String::new() } else { format!("{namespace},") };
        self.send(&format!("40{name}")).await;
        let answer = self.text().await;
        assert!(answer.starts_with(&format!("40{name}{{")), "{answer}");
        string_field(&answer, "sid")
    }

    pub(crate) async fn send(&mut self, text: &str) {
        within("the server to read", self.sink.send(Message::text(text))).await.unwrap();
    }

    /// Sends many messages with few writes.
    pub(crate) async fn send_all(&mut self, texts: impl IntoIterator<Item = String>) {
        within("the server to read", async {
            for text in texts {
                self.sink.feed(Message::text(text)).await.unwrap();
            }
            self.sink.flush().await.unwrap();
        })
        .await;
    }

    /// Sends many messages while it receives `count` texts.
    pub(crate) async fn exchange(&mut self, texts: impl IntoIterator<Item = String>, count: usize) -> Vec<String> {
        let Self { sink, received, .. } = self;
        let sending = async {
            for text in texts {
                sink.feed(Message::text(text)).await.unwrap();
            }
            sink.flush().await.unwrap();
        };
        let receiving = async {
            let mut texts = Vec::with_capacity(count);
            while texts.len() < count {
                match received.recv().await {
                    Some(Received::Text(text)) if text == "2" => {}
                    Some(Received::Text(text)) => texts.push(text),
                    other => panic!("expected a text after {}, got {other:?}", texts.len()),
                }
            }
            texts
        };
        within("the exchange", async { tokio::join!(sending, receiving).1 }).await
    }

    pub(crate) async fn send_binary(&mut self, bytes: &'static [u8]) {
        self.send_bytes(Bytes::from_static(bytes)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        within("the server to read", self.sink.send(Message::Binary(bytes.into()))).await.unwrap();
    }

    /// Says goodbye to the WebSocket.
    pub(crate) async fn send_close(&mut self) {
        within("the server to read", self.sink.send(Message::Close(None))).await.unwrap();
    }

    /// Sends bytes that need be no WebSocket frame.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.raw.as_ref().write_all(bytes).unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Received {
        within("a message", self.received.recv()).await.unwrap_or(Received::End)
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.receive().await {
            Received::Text(text) => text,
            other @ (Received::Binary(_) | Received::End) => panic!("expected a text, got {other:?}"),
        }
    }

    /// The next messages are these.
    pub(crate) async fn expect<const N: usize>(&mut self, texts: [&str; N]) {
        for text in texts {
            assert_eq!(self.receive().await, Received::Text(text.to_owned()));
        }
    }

    pub(crate) async fn expect_binary(&mut self, bytes: &[u8]) {
        assert_eq!(self.receive().await, Received::Binary(bytes.to_vec()));
    }

    /// The next thing is the end of the connection.
    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.receive().await, Received::End);
    }
}

pub(crate) fn string_field(packet: &str, field: &str) -> String {
    let json = packet.get(packet.find('{').unwrap()..).unwrap();
    let object: serde_json::Value = serde_json::from_str(json).unwrap();
    object[field].as_str().unwrap().to_owned()
}

/// A client that polls, each request on a connection of its own.
pub(crate) struct Poller {
    address: SocketAddr,
    session: String,
}

impl Poller {
    pub(crate) async fn open(server: &Server) -> Self {
        let mut poller = Self { address: server.address, session: String::new() };
        let open = poller.get().await;
        poller.session = string_field(&open, "sid");
        poller
    }

    pub(crate) async fn joined(server: &Server) -> Self {
        let poller = Self::open(server).await;
        poller.post("40").await;
        let answer = poller.get().await;
        assert!(answer.starts_with("40{"), "{answer}");
        poller
    }

    /// Fetches what waits; the body.
    pub(crate) async fn get(&self) -> String {
        self.request("GET", "").await
    }

    pub(crate) async fn post(&self, body: &str) {
        assert_eq!(self.request("POST", body).await, "ok");
    }

    async fn request(&self, method: &str, body: &str) -> String {
        self.answer(method, body).await.1
    }

    /// Makes a request; its status and body.
    pub(crate) async fn answer(&self, method: &str, body: &str) -> (u16, String) {
        let sid = if self.session.is_empty() { String::new() } else { format!("&sid={}", self.session) };
        let head = format!(
            "{method} /socket.io/?EIO=4&transport=polling{sid} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        within("an answer", async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        })
        .await
    }
}

#[allow(dead_code, reason = "for the suite over Redis")]
impl Poller {
    /// The same client, whose requests reach another server from now on.
    pub(crate) fn at(&self, server: &Server) -> Self {
        Self { address: server.address, session: self.session.clone() }
    }

    /// A client that claims another session.
    pub(crate) fn named(&self, session: &str) -> Self {
        Self { address: self.address, session: session.to_owned() }
    }

    /// The instance that its session names.
    pub(crate) fn instance(&self) -> &str {
        &self.session[20..]
    }

    /// Upgrades to a WebSocket.
    pub(crate) async fn upgrade(&self) -> Client {
        let mut client = Client::connect(self.address, &format!("&sid={}", self.session)).await;
        client.send("2probe").await;
        client.expect(["3probe"]).await;
        assert_eq!(self.get().await, "6");
        client.send("5").await;
        client
    }
}

/// Where handlers write down what happens.
#[derive(Clone)]
pub(crate) struct Log(mpsc::UnboundedSender<String>);

/// What they wrote.
pub(crate) struct Lines(mpsc::UnboundedReceiver<String>);

pub(crate) fn log() -> (Log, Lines) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Log(sender), Lines(receiver))
}

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        // The test may be over.
        let _over = self.0.send(line.into());
    }
}

impl Lines {
    pub(crate) async fn next(&mut self) -> String {
        within("a line in the log", self.0.recv()).await.unwrap()
    }

    /// The next lines are these.
    pub(crate) async fn expect<const N: usize>(&mut self, lines: [&str; N]) {
        for line in lines {
            assert_eq!(self.next().await, line);
        }
    }

    /// Nothing more was written.
    pub(crate) fn expect_none(&mut self) {
        assert_eq!(self.0.try_recv().ok(), None);
    }
}

/// A gate where handlers wait until the test lets them through.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// Lets this many through.
    pub(crate) fn open(&self, count: usize) {
        self.0.add_permits(count);
    }
}

/// Writes a line when it is dropped.
pub(crate) struct OnDrop(pub(crate) Log, pub(crate) &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

/// Logs that sockets connect, and why they leave.
pub(crate) fn log_lives(namespace: &mut NamespaceBuilder, log: &Log) {
    let (connected, gone) = (log.clone(), log.clone());
    namespace
        .on_connect(move |_| {
            connected.add("connected");
            std::future::ready(())
        })
        .on_disconnect(move |_, reason| {
            gone.add(reason.as_str());
            std::future::ready(())
        });
}

/// Logs the text of an event.
pub(crate) fn log_event(namespace: &mut NamespaceBuilder, event: &str, log: &Log) {
    let log = log.clone();
    namespace.on(event, move |_, text: String| {
        log.add(text);
        std::future::ready(())
    });
}

/// Adds an event that a client can use to see that everything before it has been handled: `fence`, answered by itself.
pub(crate) fn fence(namespace: &mut NamespaceBuilder) {
    namespace.on("fence", async |socket: Socket, ()| socket.emit("fence", ()).unwrap());
}
