//! What the whole server does, from bytes of a TCP connection to bytes of TCP connections.
//!
//! The server runs alone on the thread that is counted, its clients on another one. They let it fall asleep before
//! they write again, so that what it reads and writes at one time does not depend on who is faster.

use std::future::pending;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::value::RawValue;
use socketio::{Ack, Io, Socket};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tungstenite::{Message, WebSocket};

use crate::{Path, count};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "server: echo with ack, 64 B, 10 at once", operations: 1000, run: |n| serve(1, n / BATCH, echo) },
    Path { name: "server: broadcast to 100, 64 B", operations: 50, run: |n| serve(100, n, cast) },
];

/// Events that a client sends at once.
const BATCH: u32 = 10;
/// Rounds that are not counted: queues and tables grow to their size in them.
const WARM_UP: u32 = 5;
/// How long the server takes at most to write what it has and fall asleep, under callgrind.
const REST: Duration = Duration::from_millis(2);

type Client = WebSocket<TcpStream>;

/// Serves clients in one room for so many rounds.
fn serve(clients: usize, rounds: u32, round: fn(&mut [Client])) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (warm, warmed) = oneshot::channel();
    let (go, going) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let io = Io::builder().namespace("/bench", |bench| {
        bench
            .on("join", async |socket: Socket, room: String| socket.join(room))
            .on("cast", async |socket: Socket, payload: Box<RawValue>| {
                let _left = socket.namespace().to("room").emit("cast", (&payload,));
            })
            .on_ack("echo", async |_: Socket, payload: Box<RawValue>, ack: Option<Ack>| {
                let _left = ack.map(|ack| ack.send((payload,)));
            });
    });
    let io = io.build().expect("the settings are the default ones");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { io.serve(listener, pending()).await });
        thread::spawn(move || {
            let mut clients: Vec<_> = (0..clients).map(|_| connect(address)).collect();
            let mut rounds_of = |count| {
                for _ in 0..count {
                    thread::sleep(REST);
                    round(&mut clients);
                }
            };
            rounds_of(WARM_UP);
            warm.send(()).expect("the server waits for it");
            going.recv().expect("the server says when");
            rounds_of(rounds);
            thread::sleep(REST);
            end.send(()).expect("the server waits for it");
        });
        warmed.await.expect("the clients can connect");
    });
    let mut ended = Some(ended);
    count(&mut || {
        go.send(()).expect("the clients wait for it");
        if let Some(ended) = ended.take() {
            runtime.block_on(ended).expect("the clients are answered");
        }
    })
}

fn connect(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("it is a TCP connection");
    let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
    let (mut client, _) = tungstenite::client(url, stream).expect("the server accepts WebSockets");
    read(&mut client, "0{");
    send(&mut client, ["40/bench,".to_owned()]);
    read(&mut client, "40/bench,{");
    send(&mut client, [r#"42/bench,["join","room"]"#.to_owned()]);
    client
}

/// Sends messages in one write.
fn send(client: &mut Client, messages: impl IntoIterator<Item = String>) {
    for message in messages {
        client.write(Message::text(message)).expect("the connection stands");
    }
    client.flush().expect("the connection stands");
}

/// Reads one message and checks what it is.
fn read(client: &mut Client, start: &str) {
    let message = client.read().expect("the connection stands");
    let text = message.to_text().expect("the server sends text");
    assert!(text.starts_with(start), "{text} came in place of {start}");
}

fn echo(clients: &mut [Client]) {
    let payload = "x".repeat(64);
    for client in clients {
        send(client, (0..BATCH).map(|id| format!(r#"42/bench,{id}["echo","{payload}"]"#)));
        for id in 0..BATCH {
            read(client, &format!("43/bench,{id}["));
        }
    }
}

fn cast(clients: &mut [Client]) {
    let payload = "x".repeat(64);
    if let Some(sender) = clients.first_mut() {
        send(sender, [format!(r#"42/bench,["cast","{payload}"]"#)]);
    }
    for client in clients {
        read(client, r#"42/bench,["cast""#);
    }
}
