//! A well-behaved client of the `/sync` namespace over WebSocket, small enough to have a thousand of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{SOON, Server, within};

/// One connection, read only while something is awaited of it.
#[derive(Debug)]
pub struct Client {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Id of the Engine.IO session, a secret.
    pub sid: String,
    /// Events come and not yet taken.
    inbox: VecDeque<(String, Value)>,
    next_ack: u64,
}

impl Client {
    /// Connects as a guest.
    pub async fn guest(server: &Server) -> Self {
        Self::with_auth(server, &json!({})).await
    }

    /// Connects with a token.
    pub async fn user(server: &Server, token: &str) -> Self {
        Self::with_auth(server, &json!({ "token": token })).await
    }

    async fn with_auth(server: &Server, auth: &Value) -> Self {
        Self::connect(server.addr(), auth, None).await
    }

    /// Connects as a guest whose request says that it was passed on for `address`.
    pub async fn forwarded(server: &Server, address: &str) -> Self {
        Self::connect(server.addr(), &json!({}), Some(address)).await
    }

    /// Connects to whatever passes requests on from `address`, as somebody who claims to come from elsewhere.
    pub async fn through(address: SocketAddr, claimed: Option<&str>) -> Self {
        Self::connect(address, &json!({}), claimed).await
    }

    async fn connect(server: SocketAddr, auth: &Value, forwarded_for: Option<&str>) -> Self {
        let url = format!("ws://{server}/socket.io/?EIO=4&transport=websocket");
        let mut request = url.into_client_request().expect("a URL makes a request");
        if let Some(address) = forwarded_for {
            request.headers_mut().insert("x-forwarded-for", address.parse().expect("an address is a header's value"));
        }
        let connecting = tokio_tungstenite::connect_async(request);
        let (stream, _) = within(SOON, "the WebSocket handshake", connecting).await.unwrap();
        let mut client = Self { stream, sid: String::new(), inbox: VecDeque::new(), next_ack: 0 };
        let open = client.packet().await.expect("an open packet");
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("the first packet is `open`")).unwrap();
        client.sid = open["sid"].as_str().unwrap().to_owned();
        client.write(format!("40/sync,{auth}")).await;
        let answer = client.packet().await.expect("an answer to CONNECT");
        assert!(answer.starts_with("40/sync,{"), "CONNECT was answered {answer}");
        client
    }

    /// Emits `event` and answers its acknowledgement, whatever it says.
    pub async fn ask(&mut self, event: &str, payload: Value) -> Value {
        self.next_ack += 1;
        let id = self.next_ack;
        self.write(format!("42/sync,{id}{}", json!([event, payload]))).await;
        let prefix = format!("43/sync,{id}");
        let wait = async {
            loop {
                let packet =
                    self.packet().await.unwrap_or_else(|| panic!("the connection ended before the ack of {event}"));
                if let Some(ack) = packet.strip_prefix(&prefix) {
                    let mut ack: Vec<Value> = serde_json::from_str(ack).unwrap();
                    return ack.remove(0);
                }
                self.keep(&packet);
            }
        };
        within(SOON * 3, event, wait).await
    }

    /// Connects with a token, or as a guest, to a server that may not be there.
    pub async fn attempt(server: SocketAddr, auth: &Value) -> Option<Self> {
        let url = format!("ws://{server}/socket.io/?EIO=4&transport=websocket");
        let connecting = tokio_tungstenite::connect_async(url.into_client_request().expect("a URL makes a request"));
        let (stream, _) = tokio::time::timeout(SOON, connecting).await.ok()?.ok()?;
        let mut client = Self { stream, sid: String::new(), inbox: VecDeque::new(), next_ack: 0 };
        client.packet().await?;
        client.stream.send(Message::text(format!("40/sync,{auth}"))).await.ok()?;
        client.packet().await?.starts_with("40/sync,{").then_some(client)
    }

    /// Emits `event` and answers its acknowledgement; none where the connection ends before it comes.
    pub async fn try_ask(&mut self, event: &str, payload: Value) -> Option<Value> {
        self.next_ack += 1;
        let id = self.next_ack;
        self.stream.send(Message::text(format!("42/sync,{id}{}", json!([event, payload])))).await.ok()?;
        let prefix = format!("43/sync,{id}");
        let wait = async {
            loop {
                let packet = self.packet().await?;
                if let Some(ack) = packet.strip_prefix(&prefix) {
                    let mut ack: Vec<Value> = serde_json::from_str(ack).unwrap();
                    return Some(ack.remove(0));
                }
                self.keep(&packet);
            }
        };
        within(SOON * 3, event, wait).await
    }

    /// Reads what comes for `time`; `false` if the connection has ended by then.
    pub async fn listen(&mut self, time: Duration) -> bool {
        let end = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(end, self.packet()).await {
                Ok(Some(packet)) => self.keep(&packet),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Joins a room as a guest and answers the acknowledgement.
    pub async fn join(&mut self, code: &str, name: &str) -> Value {
        self.ask("room:join", json!({ "roomCode": code, "guestName": name })).await
    }

    /// The next `event`; others stay for later.
    pub async fn next(&mut self, event: &str) -> Value {
        if let Some(place) = self.inbox.iter().position(|(name, _)| name == event) {
            return self.inbox.remove(place).expect("the place was just found").1;
        }
        let wait = async {
            loop {
                let packet = self.packet().await.unwrap_or_else(|| panic!("the connection ended before {event}"));
                self.keep(&packet);
                if self.inbox.back().is_some_and(|(name, _)| name == event) {
                    return self.inbox.pop_back().expect("just seen").1;
                }
            }
        };
        within(SOON * 3, event, wait).await
    }

    /// All events that have come and were not taken, in their order.
    pub fn drain(&mut self) -> Vec<(String, Value)> {
        self.inbox.drain(..).collect()
    }

    /// A copy of all events that have come and were not taken, in their order.
    pub fn peek(&mut self) -> Vec<(String, Value)> {
        self.inbox.iter().cloned().collect()
    }

    /// Waits for the end of the connection.
    pub async fn ended(&mut self) {
        within(SOON * 3, "the end of the connection", async { while self.packet().await.is_some() {} }).await;
    }

    fn keep(&mut self, packet: &str) {
        if let Some(body) = packet.strip_prefix("42/sync,") {
            let mut event: VecDeque<Value> = serde_json::from_str(body).unwrap();
            let name = event.pop_front().unwrap().as_str().unwrap().to_owned();
            self.inbox.push_back((name, event.pop_front().unwrap_or(Value::Null)));
        }
    }

    async fn write(&mut self, packet: String) {
        self.stream.send(Message::text(packet)).await.unwrap();
    }

    /// The next packet that is no heartbeat; heartbeats are answered.
    async fn packet(&mut self) -> Option<String> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Text(text)) if text.as_str() == "2" => {
                    let _ = self.stream.send(Message::text("3")).await;
                }
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            }
        }
    }
}
