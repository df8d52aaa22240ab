//! What the load generator measures, on socketioxide: the same events as `socketio/examples/fanout.rs`.
//!
//! Its settings are its defaults, which are those it recommends: a websocket read buffer of 4 KiB among them. A payload is
//! taken as the string that it is, which costs less than any JSON value would; it cannot be left raw as in our own server.

use std::error::Error;

use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use tokio::net::TcpListener;

// Errors in the handlers mean that the client has left meanwhile, which needs no answer.

async fn join(socket: SocketRef, Data(room): Data<String>, ack: AckSender) {
    socket.join(room);
    let _left = ack.send(&());
}

async fn cast(socket: SocketRef, Data(payload): Data<String>) {
    let _left = socket.within(socket.rooms()).emit("cast", &payload).await;
}

async fn echo(Data(payload): Data<String>, ack: AckSender) {
    let _left = ack.send(&payload);
}

/// The value behind a flag.
fn flag(name: &str, default: u16) -> Result<u16, std::num::ParseIntError> {
    let mut flags = std::env::args().skip_while(|argument| argument != name).skip(1);
    flags.next().map_or(Ok(default), |value| value.parse())
}

async fn serve(port: u16) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (layer, io) = SocketIo::new_layer();
    io.ns("/bench", async |socket: SocketRef| {
        socket.on("join", join);
        socket.on("cast", cast);
        socket.on("echo", echo);
    });
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, axum::Router::new().layer(layer)).await?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (port, workers) = (flag("--port", 3000)?, flag("--workers", 1)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers.into()).enable_all().build()?;
    // A task like any other: the thread that blocks here is none of the workers.
    runtime.block_on(async { tokio::spawn(serve(port)).await })?
}
