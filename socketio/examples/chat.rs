//! A chat that fits on a page: `cargo run -p socketio --example chat`, then connect any Socket.IO client to
//! `http://127.0.0.1:3000` and emit `join` with a name, then `say` with a text.

use std::error::Error;

use socketio::{Ack, Io, Socket};
use tokio::net::TcpListener;

#[derive(Clone)]
struct Name(String);

async fn join(socket: Socket, name: String, ack: Option<Ack>) {
    socket.join("lobby");
    // Errors below mean that the client has left meanwhile, which needs no answer.
    let _left = socket.to("lobby").emit("joined", (&name,));
    socket.insert(Name(name));
    if let Some(ack) = ack {
        let _left = ack.send((socket.namespace().to("lobby").sockets().len(),));
    }
}

async fn say(socket: Socket, text: String) {
    if let Some(Name(name)) = socket.value() {
        let _left = socket.namespace().to("lobby").emit("said", (name, text));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let io = Io::builder()
        .namespace("/", |root| {
            root.on_ack("join", join).on("say", say).on_disconnecting(|socket, _reason| {
                if let Some(Name(name)) = socket.value() {
                    let _left = socket.to("lobby").emit("left", (name,));
                }
            });
        })
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    io.serve(listener, async {
        // Without the signal the server runs until it is killed.
        let _stop = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
