//! A Socket.IO client on a raw WebSocket, lean enough that the server it loads is what limits.
//!
//! A read takes all that has come, frames are parsed where they lie, and frames to send gather until one write takes
//! them. Masks are zero, which leaves what is sent as it is and is still unmasked by every server.

use std::fmt::{Display, Write as _};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Where to connect to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The server's address.
    pub address: SocketAddr,
    /// The path, as `/socket.io/`.
    pub path: String,
    /// The namespace, as `/bench`; `/` is the one without a name.
    pub namespace: String,
}

impl Target {
    /// What stands between the type of a packet and its id or data: nothing, or the namespace and a comma.
    pub fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    /// Opens a TCP connection to the server.
    ///
    /// Connections of different numbers come from different addresses of the loopback network, since one address has
    /// some 28,000 ports only.
    ///
    /// # Errors
    /// The server does not take it.
    pub async fn connect(&self, number: usize) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.address.ip().is_loopback() {
            let host = 1 + number % SOURCE_ADDRESSES;
            socket.bind((Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() + host as u32), 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A Socket.IO packet, without its namespace. Data is JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The namespace is joined; the data holds the socket's id.
    Connect(&'a [u8]),
    /// The namespace is left.
    Disconnect,
    /// An event: an array of name and arguments.
    Event {
        /// The id to answer with, if the server waits for an ack.
        id: Option<u64>,
        /// The array.
        data: &'a [u8],
    },
    /// An ack: an array of arguments.
    Ack {
        /// The id of the event it answers.
        id: u64,
        /// The array.
        data: &'a [u8],
    },
    /// The namespace is refused; the data says why.
    ConnectError(&'a [u8]),
    /// Anything else, as binary data or a packet of Engine.IO.
    Other,
}

impl<'a> Packet<'a> {
    /// Reads what [`Connection::next`] brings.
    pub fn parse(packet: &'a [u8]) -> Self {
        let [b'4', kind, rest @ ..] = packet else { return Self::Other };
        let rest = match rest {
            [b'/', ..] => rest.iter().position(|byte| *byte == b',').map_or(&[][..], |comma| &rest[comma + 1..]),
            _ => rest,
        };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (id, data) = rest.split_at(digits);
        let number = id.iter().fold(0_u64, |id, digit| id.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        let id = (digits > 0).then_some(number);
        match (kind, id) {
            (b'0', None) => Self::Connect(data),
            (b'1', None) => Self::Disconnect,
            (b'2', id) => Self::Event { id, data },
            (b'3', Some(id)) => Self::Ack { id, data },
            (b'4', None) => Self::ConnectError(data),
            _ => Self::Other,
        }
    }
}

/// A connection that has joined its namespace. It answers pings by itself, as long as packets are awaited.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// What was read; the part before `parsed` is done with.
    input: Vec<u8>,
    parsed: usize,
    /// What waits to be written; the part before `written` is gone.
    output: Vec<u8>,
    written: usize,
    text: String,
}

impl Connection {
    /// Connects, opens the WebSocket and joins the namespace with `auth`, a JSON object or nothing.
    ///
    /// `number` chooses the address it comes from.
    ///
    /// # Errors
    /// The server refuses, or takes longer than half a minute.
    pub async fn open(target: &Target, auth: &str, number: usize) -> io::Result<Self> {
        let open = async {
            let mut connection = Self::dial(target, number).await?;
            connection.push(format_args!("40{}{auth}", target.prefix()));
            let answer = connection.next().await?;
            if !matches!(Packet::parse(answer), Packet::Connect(_)) {
                return Err(unexpected(format!("joining was answered with {}", String::from_utf8_lossy(answer))));
            }
            Ok(connection)
        };
        timeout(OPEN_LIMIT, open).await?
    }

    /// Connects and opens the WebSocket; the namespace is still to be joined.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn dial(target: &Target, number: usize) -> io::Result<Self> {
        let stream = target.connect(number).await?;
        let mut connection = Self {
            stream,
            input: Vec::with_capacity(READ_BYTES),
            parsed: 0,
            output: Vec::new(),
            written: 0,
            text: String::new(),
        };
        connection.handshake(target).await?;
        Ok(connection)
    }

    async fn handshake(&mut self, target: &Target) -> io::Result<()> {
        let Target { address, path, .. } = target;
        let request = format!(
            "GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        self.output.extend_from_slice(request.as_bytes());
        self.flush().await?;
        let head = loop {
            self.read().await?;
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !self.input.starts_with(b"HTTP/1.1 101 ") {
            return Err(unexpected(String::from_utf8_lossy(&self.input).into_owned()));
        }
        self.parsed = head;
        match self.next().await? {
            [b'0', b'{', ..] => Ok(()),
            other => Err(unexpected(format!("the first packet is {}", String::from_utf8_lossy(other)))),
        }
    }

    /// Adds a packet to what the next [`flush`](Self::flush) or [`next`](Self::next) writes.
    pub fn push(&mut self, packet: impl Display) {
        self.text.clear();
        write!(self.text, "{packet}").expect("a string takes all that is written");
        push_frame(&mut self.output, TEXT, self.text.as_bytes());
    }

    /// Writes what was pushed. Nothing is written twice if this is given up and called again.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            let written = self.stream.write(&self.output[self.written..]).await?;
            self.wrote(written);
        }
        Ok(())
    }

    /// Takes note of what a write has taken.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        // There may be something to write at all times. What is moved here is no more than what is dropped.
        if self.written >= self.output.len() - self.written {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Writes what was pushed, then waits for the next packet; reads meanwhile, since a server may take no more until what
    /// it has sent is read. Nothing is lost if this is given up and called again.
    ///
    /// # Errors
    /// The connection is closed or broken, or the server sends what no server should.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        loop {
            if let Some(packet) = self.parse()? {
                return Ok(&self.input[packet]);
            }
            if self.written == self.output.len() {
                self.read().await?;
            } else {
                self.write_or_read().await?;
            }
        }
    }

    /// The next packet of those already read, without waiting.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn buffered(&mut self) -> io::Result<Option<&[u8]>> {
        Ok(self.parse()?.map(|packet| &self.input[packet]))
    }

    /// Closes the WebSocket and waits until the server has ended the connection.
    ///
    /// # Errors
    /// The connection is broken, or the server does not end it within 5 s.
    pub async fn close(mut self) -> io::Result<()> {
        push_frame(&mut self.output, CLOSE, b"");
        self.flush().await?;
        let end = async {
            loop {
                self.input.clear();
                if self.stream.read_buf(&mut self.input).await? == 0 {
                    return Ok(());
                }
            }
        };
        timeout(CLOSE_LIMIT, end).await?
    }

    /// Reads what has come, waiting for it if nothing has.
    async fn read(&mut self) -> io::Result<()> {
        self.drop_parsed();
        let bytes = self.stream.read_buf(&mut self.input).await?;
        self.has_read(bytes)
    }

    /// Writes some of what was pushed, or reads while the server takes nothing.
    async fn write_or_read(&mut self) -> io::Result<()> {
        self.drop_parsed();
        let (mut reading, mut writing) = self.stream.split();
        tokio::select! {
            biased;
            written = writing.write(&self.output[self.written..]) => {
                let bytes = written?;
                self.wrote(bytes);
                Ok(())
            }
            read = reading.read_buf(&mut self.input) => {
                let bytes = read?;
                self.has_read(bytes)
            }
        }
    }

    /// Makes room for what is to be read.
    fn drop_parsed(&mut self) {
        self.input.drain(..self.parsed);
        self.parsed = 0;
    }

    /// Takes note of what a read has brought.
    fn has_read(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.input.len() == self.input.capacity() {
            self.input.reserve(self.input.len()); // more may wait than was room for
        }
        Ok(())
    }

    /// Where the next packet lies that is no ping.
    fn parse(&mut self) -> io::Result<Option<Range<usize>>> {
        while let Some(frame) = Frame::parse(&self.input[self.parsed..]) {
            let data = self.parsed + frame.head..self.parsed + frame.head + frame.data;
            self.parsed = data.end;
            match (frame.kind, &self.input[data.clone()]) {
                (TEXT, b"2") => push_frame(&mut self.output, TEXT, b"3"),
                (TEXT, b"1") | (CLOSE, _) => return Err(io::ErrorKind::ConnectionAborted.into()),
                (PING, text) => push_frame(&mut self.output, PONG, text),
                (TEXT, b"6") | (PONG, _) => {}
                (TEXT | BINARY, _) => return Ok(Some(data)),
                (kind, _) => return Err(unexpected(format!("a frame that starts with {kind:#x}"))),
            }
        }
        Ok(None)
    }
}

/// Opens connections numbered from 0, some at a time.
///
/// # Errors
/// One of them cannot be opened.
pub async fn open_all(target: &Target, clients: usize) -> io::Result<Vec<Connection>> {
    stream::iter(0..clients)
        .map(|number| Connection::open(target, "", number))
        .buffered(OPENING_AT_ONCE)
        .try_collect()
        .await
}

/// The head of an unmasked frame and the size of both its parts.
struct Frame {
    /// The first byte: opcode, and that it is the message's last frame.
    kind: u8,
    head: usize,
    data: usize,
}

impl Frame {
    /// Reads the frame that `bytes` start with, if all of it is there.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, data) = match *bytes {
            [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (10, usize::try_from(u64::from_be_bytes([a, b, c, d, e, f, g, h])).ok()?)
            }
            [_, size @ ..126, ..] => (2, usize::from(size)),
            _ => return None,
        };
        (bytes.len() - head >= data).then_some(Self { kind: bytes[0], head, data })
    }
}

/// Appends a frame, masked with zeroes.
fn push_frame(output: &mut Vec<u8>, kind: u8, data: &[u8]) {
    match data.len() {
        size @ ..126 => output.extend_from_slice(&[kind, MASKED | size as u8]),
        size @ ..0x1_0000 => {
            output.extend_from_slice(&[kind, MASKED | 126]);
            output.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            output.extend_from_slice(&[kind, MASKED | 127]);
            output.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    output.extend_from_slice(&[0; 4]);
    output.extend_from_slice(data);
}

/// What a server should not have sent.
pub(crate) fn unexpected(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The nonce of RFC 6455, section 1.3. Nothing between here and the server caches, so that one does for all.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// What a connection reads at once, until more than that waits.
const READ_BYTES: usize = 4096;

/// Enough for millions of connections, and within 127.0.0.0/24.
const SOURCE_ADDRESSES: usize = 250;

/// Keeps a server busy, and below the backlog of any.
const OPENING_AT_ONCE: usize = 64;

const OPEN_LIMIT: Duration = Duration::from_secs(30);
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn packets_are_told_apart_with_and_without_a_namespace() {
        for (text, packet) in [
            ("40{}", Packet::Connect(b"{}")),
            ("40/bench,{\"sid\":\"a,1\"}", Packet::Connect(b"{\"sid\":\"a,1\"}")),
            ("41/bench,", Packet::Disconnect),
            ("42[\"a\"]", Packet::Event { id: None, data: b"[\"a\"]" }),
            ("42/bench,17[\"a,b\"]", Packet::Event { id: Some(17), data: b"[\"a,b\"]" }),
            ("43/bench,0[]", Packet::Ack { id: 0, data: b"[]" }),
            ("44/bench,{}", Packet::ConnectError(b"{}")),
            ("43[]", Packet::Other),
            ("451-[]", Packet::Other),
            ("6", Packet::Other),
            ("", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text.as_bytes()), packet, "{text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_reads_nothing_until_it_is_read_from_is_no_dead_end() {
        const FRAMES: usize = 64;
        let data = vec![b'x'; 1_000_000];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = data.clone();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x020{").await.unwrap();
            for _ in 0..FRAMES {
                stream.write_all(&[TEXT, 127]).await.unwrap();
                stream.write_all(&(sent.len() as u64).to_be_bytes()).await.unwrap();
                stream.write_all(&sent).await.unwrap();
            }
            let frame = 2 + 8 + 4 + sent.len();
            let mut received = vec![0; FRAMES * frame];
            stream.read_exact(&mut received).await.unwrap();
            received.chunks(frame).all(|frame| frame[14..] == sent)
        });
        let target = Target { address, path: "/socket.io/".to_owned(), namespace: "/".to_owned() };
        let mut connection = Connection::dial(&target, 0).await.unwrap();
        let text = String::from_utf8(data).unwrap();
        for _ in 0..FRAMES {
            connection.push(&text);
        }
        for _ in 0..FRAMES {
            let packet = timeout(OPEN_LIMIT, connection.next()).await.unwrap().unwrap();
            assert_eq!(packet, text.as_bytes());
        }
        connection.flush().await.unwrap();
        assert!(server.await.unwrap());
    }

    #[test]
    fn frames_of_each_size_are_read_whole_or_not_at_all() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let mut masked = Vec::new();
            push_frame(&mut masked, TEXT, &vec![b'x'; size]);
            let head = masked.len() - size - 4;
            let mut frame = masked.clone();
            frame.drain(head..head + 4); // the mask
            frame[1] &= !MASKED;
            let parsed = Frame::parse(&frame).unwrap();
            assert_eq!((parsed.kind, parsed.head, parsed.data), (TEXT, head, size));
            for short in [0, 1, 2, 3, 9, frame.len() - 1] {
                assert!(short >= frame.len() || Frame::parse(&frame[..short]).is_none(), "{short} of {size}");
            }
        }
    }
}
