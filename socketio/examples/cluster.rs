//! A chat of several instances over Redis: `cargo run -p socketio --features redis --example cluster -- 3000`, once more
//! with another port, then connect Socket.IO clients to either.
//!
//! Arguments: the port, the URL of Redis (`redis://127.0.0.1/`), and `classic` or `sharded`. Servers of socket.io in
//! Node.js with the adapter of the same name can be instances too; `tests/clients/cluster` has one that does the same.
//! With `recovery` behind these, clients that were cut off come back to any instance.
//! A balancer in front of several of these may send any request to any of them.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use socketio::adapter::redis::{Mode, Redis, RedisConfig, Subscription};
use socketio::server::{NamespaceBuilder, RecoveryConfig, RemoteSocket};
use socketio::{Ack, Argument, Data, Io, Namespace, Socket};
use tokio::net::TcpListener;

/// How long clients may take to answer a question.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Data of a socket: text that is kept as it is.
#[derive(Serialize)]
struct Kept<'a> {
    kept: &'a RawValue,
}

#[derive(Serialize)]
struct Description<'a> {
    id: &'a str,
    rooms: Vec<&'a str>,
    data: Argument,
}

fn describe(socket: &RemoteSocket) -> Description<'_> {
    Description { id: socket.id(), rooms: socket.rooms().collect(), data: socket.data().unwrap_or_default() }
}

// Errors of `send` below mean that the client has left meanwhile, which needs no answer; those of the cluster are logged
// by the adapter, and here answered with what came.
fn chat(root: &mut NamespaceBuilder) {
    root.on_ack("join", async |socket: Socket, room: String, ack: Option<Ack>| {
        socket.join(&*room);
        let _unserialisable = socket.set_data(&json!({ "joined": room }));
        let _left = ack.map(|ack| ack.send(()));
    });
    // Whatever it is, binary data too, goes to a room of every instance.
    root.on("say", async |socket: Socket, what: Data| {
        let _left = socket.namespace().to("lobby").emit("said", what);
    });
    root.on("whisper", async |socket: Socket, (to, text): (String, String)| {
        let _left = socket.to(to).except("deaf").emit("whispered", (text,));
    });
    root.on_ack("who", async |socket: Socket, (), ack: Option<Ack>| {
        let sockets = socket.namespace().fetch_sockets().await.unwrap_or_else(|partial| partial.sockets);
        let _left = ack.map(|ack| ack.send((sockets.iter().map(describe).collect::<Vec<_>>(),)));
    });
    root.on_ack("keep", async |socket: Socket, what: Box<RawValue>, ack: Option<Ack>| {
        let _unserializable = socket.set_data(&Kept { kept: &what });
        let _left = ack.map(|ack| ack.send(()));
    });
    // Whatever is asked and answered, binary data too.
    root.on_ack("ask", async |socket: Socket, question: Argument, ack: Option<Ack>| {
        let Ok(acks) = socket.namespace().emit_with_ack::<Argument>("question", (question,), TIMEOUT).await else {
            return;
        };
        let _left = ack.map(|ack| ack.send((&acks.answers, acks.is_complete())));
    });
    root.on("move", async |socket: Socket, (from, to): (String, String)| {
        let _lost = socket.namespace().to(&*from).sockets_join(to);
        let _lost = socket.namespace().to(&*from).sockets_leave(from);
    });
    root.on("kick", async |socket: Socket, room: String| {
        let _lost = socket.namespace().to(room).disconnect_sockets(true);
    });
    // Between the instances themselves.
    root.on("tell servers", async |socket: Socket, text: String| {
        let _lost = socket.namespace().server_side_emit("told", (text,));
    });
    root.on_ack("ask servers", async |socket: Socket, numbers: (u32, u32), ack: Option<Ack>| {
        let sums = socket.namespace().server_side_emit_with_ack::<u32>("add", (numbers.0, numbers.1)).await;
        let _left = ack.map(|ack| ack.send((sums.map(|sums| sums.answers).unwrap_or_default(),)));
    });
    root.on_server_side("told", |namespace: &Namespace, text: String, _ack| {
        let _local = namespace.local().emit("servers told", (text,));
    });
    root.on_server_side("add", |_: &Namespace, socketio::Args((a, b)): socketio::Args<(u32, u32)>, ack| {
        let _unserialisable = ack.map(|ack| ack.send((a.saturating_add(b),)));
    });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().as_deref().unwrap_or("3000").parse()?;
    let mut config = RedisConfig::new(arguments.next().unwrap_or("redis://127.0.0.1/".to_owned()));
    if arguments.next().as_deref() == Some("sharded") {
        config.mode = Mode::Sharded(Subscription::Dynamic);
    }
    let redis = Redis::start(config)?;
    let mut builder = Io::builder().adapter(redis.adapter()).relay(redis.relay());
    if arguments.next().as_deref() == Some("recovery") {
        builder = builder.recovery(RecoveryConfig::default());
    }
    let io = builder.namespace("/", chat).build()?;
    redis.ready().await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    io.serve(listener, async {
        // Without the signal the server runs until it is killed.
        let _stop = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
