//! What the load generator measures: `cargo run --release -p socketio --features redis --example fanout -- --port 3000 --workers 2`.
//!
//! With `--recovery 1` clients that were cut off come back to their session; with `--redis redis://127.0.0.1/` it is one of
//! several instances. `--ping-interval` and `--ping-timeout` take milliseconds. In the namespace `/bench`, `join` takes a
//! room and acks it, `cast` sends its payload to everyone in the sender's room, the sender too, and `echo` acks its payload;
//! both take binary data too.

use std::error::Error;
use std::time::Duration;

use socketio::adapter::redis::{Redis, RedisConfig};
use socketio::server::{Config, RecoveryConfig};
use socketio::{Ack, Argument, Io, Socket};
use tokio::net::TcpListener;

async fn join(socket: Socket, room: String, ack: Option<Ack>) {
    socket.join(room);
    // Errors below mean that the client has left meanwhile, which needs no answer.
    let _left = ack.map(|ack| ack.send(()));
}

// An `Argument` is passed on as it came, unread, with its attachments.
async fn cast(socket: Socket, payload: Argument) {
    for room in socket.rooms() {
        let _left = socket.namespace().to(room).emit("cast", (&payload,));
    }
}

async fn echo(_: Socket, payload: Argument, ack: Option<Ack>) {
    let _left = ack.map(|ack| ack.send((payload,)));
}

/// The text behind a flag.
fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// The number behind a flag.
fn flag(name: &str, default: u16) -> Result<u16, std::num::ParseIntError> {
    text(name).map_or(Ok(default), |value| value.parse())
}

/// The default settings, but for what flags say of heartbeats.
fn config() -> Result<Config, std::num::ParseIntError> {
    let mut config = Config::default();
    for (name, setting) in
        [("--ping-interval", &mut config.engine.ping_interval), ("--ping-timeout", &mut config.engine.ping_timeout)]
    {
        if let Some(value) = text(name) {
            *setting = Duration::from_millis(value.parse()?);
        }
    }
    Ok(config)
}

async fn serve(port: u16, recovery: bool) -> Result<(), Box<dyn Error>> {
    let mut builder = Io::builder().config(config()?).namespace("/bench", |bench| {
        bench.on_ack("join", join).on("cast", cast).on_ack("echo", echo);
    });
    if recovery {
        builder = builder.recovery(RecoveryConfig::default());
    }
    let redis = text("--redis").map(|url| Redis::start(RedisConfig::new(url))).transpose()?;
    if let Some(redis) = &redis {
        builder = builder.adapter(redis.adapter());
    }
    let io = builder.build()?;
    if let Some(redis) = &redis {
        redis.ready().await;
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    io.serve(listener, std::future::pending()).await;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let (port, workers, recovery) = (flag("--port", 3000)?, flag("--workers", 1)?, flag("--recovery", 0)? != 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers.into()).enable_all().build()?;
    // A task like any other: the thread that blocks here is none of the workers.
    runtime.block_on(async {
        tokio::spawn(async move { serve(port, recovery).await.map_err(|error| error.to_string()) }).await
    })??;
    Ok(())
}
