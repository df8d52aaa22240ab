//! A client that writes whatever bytes it likes: HTTP and WebSocket by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{SOON, within};

/// One TCP connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    addr: SocketAddr,
    /// Bytes read and not yet understood.
    buffer: Vec<u8>,
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The kind of a WebSocket frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message before.
    Continuation = 0,
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

/// A WebSocket frame as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The four bits of its kind.
    pub opcode: u8,
    /// What it carries.
    pub data: Vec<u8>,
}

impl Raw {
    /// Opens a connection.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = within(SOON, "a TCP connection", TcpStream::connect(addr)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, addr, buffer: Vec::new() }
    }

    /// Opens a connection and turns it into a WebSocket of a new Engine.IO session; answers the session's id too.
    pub async fn websocket(addr: SocketAddr) -> (Self, String) {
        let mut raw = Self::connect(addr).await;
        let response = raw.upgrade("/socket.io/?EIO=4&transport=websocket", "").await;
        assert_eq!(response.status, 101, "{}", response.text());
        let open = raw.frame().await.expect("an open packet");
        let text = String::from_utf8(open.data).unwrap();
        let open: Value = serde_json::from_str(text.strip_prefix('0').expect("the first packet is `open`")).unwrap();
        (raw, open["sid"].as_str().unwrap().to_owned())
    }

    /// A WebSocket that has joined the namespace `/sync` as a guest; answers the session's id and the socket's.
    pub async fn joined(addr: SocketAddr) -> (Self, String, String) {
        let (mut raw, sid) = Self::websocket(addr).await;
        raw.text("40/sync,").await;
        let text = raw.text_frame().await.expect("an answer to CONNECT");
        let body = text.strip_prefix("40/sync,").unwrap_or_else(|| panic!("CONNECT was answered {text}"));
        let body: Value = serde_json::from_str(body).unwrap();
        (raw, sid, body["sid"].as_str().unwrap().to_owned())
    }

    /// A polling session; answers its id. Requests of it go over connections of their own.
    pub async fn poll_session(addr: SocketAddr) -> String {
        let response = Self::get(addr, "/socket.io/?EIO=4&transport=polling", "").await;
        assert_eq!(response.status, 200, "{}", response.text());
        let text = response.text();
        let open: Value = serde_json::from_str(text.strip_prefix('0').expect("the first packet is `open`")).unwrap();
        open["sid"].as_str().unwrap().to_owned()
    }

    /// One GET on a connection of its own; `headers` are whole lines.
    pub async fn get(addr: SocketAddr, path: &str, headers: &str) -> Response {
        let mut raw = Self::connect(addr).await;
        raw.write(format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{headers}\r\n").as_bytes())
            .await;
        raw.response().await
    }

    /// One POST on a connection of its own; `headers` are whole lines.
    pub async fn post(addr: SocketAddr, path: &str, headers: &str, body: &[u8]) -> Response {
        let mut raw = Self::connect(addr).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        raw.write(head.as_bytes()).await;
        // A server that refuses a body may answer and close before all of it is sent.
        let _ = raw.stream.write_all(body).await;
        raw.response().await
    }

    /// Asks for a WebSocket on `path`; answers what the server says.
    pub async fn upgrade(&mut self, path: &str, headers: &str) -> Response {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
            self.addr
        );
        self.write(request.as_bytes()).await;
        self.response().await
    }

    /// Writes bytes; the peer must take them.
    pub async fn write(&mut self, bytes: &[u8]) {
        within(SOON, "the server to take bytes", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Writes bytes as long as the peer takes them; false once it has closed, or takes none for `patience`.
    pub async fn offer(&mut self, bytes: &[u8], patience: Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Writes one text frame.
    pub async fn text(&mut self, text: &str) {
        self.write(&encode(Opcode::Text, true, text.as_bytes())).await;
    }

    /// Writes one frame.
    pub async fn send(&mut self, opcode: Opcode, fin: bool, data: &[u8]) {
        self.write(&encode(opcode, fin, data)).await;
    }

    /// Reads one HTTP answer.
    ///
    /// # Panics
    /// When none comes.
    pub async fn response(&mut self) -> Response {
        within(SOON, "an HTTP answer", self.read_response()).await.expect("an HTTP answer before the end of the stream")
    }

    /// Reads one HTTP answer; nothing if the connection ends instead.
    pub async fn response_or_end(&mut self, limit: Duration) -> Option<Response> {
        within(limit, "an HTTP answer or the end of the connection", self.read_response()).await
    }

    /// Reads one frame; nothing at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        within(SOON, "a WebSocket frame", self.read_frame()).await
    }

    /// Reads on to the next text frame that is no heartbeat; nothing if the connection ends.
    pub async fn text_frame(&mut self) -> Option<String> {
        loop {
            let frame = self.frame().await?;
            if frame.opcode == Opcode::Text as u8 && frame.data != b"2" {
                return Some(String::from_utf8(frame.data).unwrap());
            }
            if frame.opcode == Opcode::Close as u8 {
                return None;
            }
        }
    }

    /// Reads on until the server ends the connection; answers the code of its close frame, if it sent one.
    pub async fn closed(&mut self, limit: Duration) -> Option<u16> {
        let end = async {
            while let Some(frame) = self.read_frame().await {
                if frame.opcode == Opcode::Close as u8 {
                    return frame.data.first_chunk().map(|code| u16::from_be_bytes(*code));
                }
            }
            None
        };
        within(limit, "the server to close the connection", end).await
    }

    /// Waits for the server to end the connection; what it says before is thrown away. False if it stays for `limit`.
    pub async fn ended(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, async { while self.read_more().await.is_some() {} }).await.is_ok()
    }

    /// Ends the connection with a TCP reset.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }

    async fn read_response(&mut self) -> Option<Response> {
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            self.read_more().await?;
        };
        let text = String::from_utf8(self.buffer.drain(..head + 4).collect()).unwrap();
        let mut lines = text.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let body = if status == 101 {
            Vec::new()
        } else if let Some(length) = headers.get("content-length") {
            let length = length.parse().unwrap();
            while self.buffer.len() < length {
                self.read_more().await?;
            }
            self.buffer.drain(..length).collect()
        } else if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.read_chunks().await?
        } else {
            while self.read_more().await.is_some() {}
            std::mem::take(&mut self.buffer)
        };
        Some(Response { status, headers, body })
    }

    async fn read_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break end;
                }
                self.read_more().await?;
            };
            let length = usize::from_str_radix(std::str::from_utf8(&self.buffer[..head]).ok()?, 16).ok()?;
            while self.buffer.len() < head + 2 + length + 2 {
                self.read_more().await?;
            }
            body.extend(self.buffer.drain(..head + 2 + length + 2).skip(head + 2).take(length));
            if length == 0 {
                return Some(body);
            }
        }
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let mut head = 2;
        loop {
            if self.buffer.len() >= head {
                let (extra, length) = match self.buffer[1] & 0x7f {
                    126 => (
                        2,
                        self.buffer
                            .get(2..4)
                            .map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
                    ),
                    127 => (
                        8,
                        self.buffer
                            .get(2..10)
                            .map(|bytes| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
                    ),
                    short => (0, Some(usize::from(short))),
                };
                head = 2 + extra;
                if let Some(length) = length
                    && self.buffer.len() >= head + length
                {
                    let opcode = self.buffer[0] & 0x0f;
                    let data = self.buffer.drain(..head + length).skip(head).collect();
                    return Some(Frame { opcode, data });
                }
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }
}

/// One masked frame. The mask is zero, which is as good as any to a server that has to apply it.
pub fn encode(opcode: Opcode, fin: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(fin) << 7 | opcode as u8];
    match data.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(data);
    frame
}
