//! Servers that are one over a real Redis, with clients that speak the protocol by hand.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../server/support.rs"]
#[allow(dead_code, reason = "the other suite uses all of it")]
mod support;

#[path = "../server/returning.rs"]
mod returning;

mod away;
mod cluster;
mod exact;
mod foreign;
mod recovery;
mod relay;
mod silent;
mod slots;

use std::time::Duration;

use serde_json::json;
use socketio::adapter::redis::{Mode, Redis, RedisConfig, Subscription};
use socketio::server::{Config, NamespaceBuilder};
use socketio::{Ack, Io, Namespace, Socket};

use crate::support::{Client, Server, config, fence, within};

const TIMEOUT: Duration = Duration::from_secs(20);

/// All three modes of a single Redis, one after the other, and a Redis Cluster.
const MODES: [Mode; 4] = [
    Mode::Classic,
    Mode::Sharded(Subscription::Static),
    Mode::Sharded(Subscription::Dynamic),
    Mode::Sharded(Subscription::DynamicPrivate),
];

fn settings(redis: &syncwatch_backends::Redis, mode: Mode) -> RedisConfig {
    let mut settings = RedisConfig::new(redis.url());
    settings.mode = mode;
    settings.request_timeout = TIMEOUT;
    settings
}

/// An instance.
struct Node {
    server: Server,
    redis: Redis,
}

impl Node {
    async fn start(settings: RedisConfig) -> Self {
        Self::with(settings, handlers).await
    }

    async fn with(settings: RedisConfig, register: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        Self::run(settings, config(), register).await
    }

    /// An instance with other settings below.
    async fn with_engine(settings: RedisConfig, change: impl FnOnce(&mut engineio::Config)) -> Self {
        let mut config = config();
        change(&mut config.engine);
        Self::run(settings, config, handlers).await
    }

    async fn run(settings: RedisConfig, config: Config, register: impl FnOnce(&mut NamespaceBuilder)) -> Self {
        let redis = Redis::start(settings).unwrap();
        let builder = Io::builder().config(config).adapter(redis.adapter()).relay(redis.relay());
        let server = Server::with(builder.namespace("/", register).namespace("/chat", fence)).await;
        within("Redis", redis.ready()).await;
        Self { server, redis }
    }

    fn root(&self) -> Namespace {
        self.server.root()
    }

    /// A client in a room, which this instance is known to listen to.
    async fn member(&self, room: &str) -> (Client, String) {
        let mut client = Client::open(&self.server).await;
        let id = client.join("/").await;
        client.send(&format!(r#"420["join","{room}"]"#)).await;
        client.expect(["430[]"]).await;
        within("the subscription", self.redis.ready()).await;
        (client, id)
    }
}

/// Sockets join what they are told.
fn handlers(root: &mut NamespaceBuilder) {
    root.on_ack("join", async |socket: Socket, room: String, ack: Option<Ack>| {
        socket.join(&*room);
        socket.set_data(&json!({ "room": room })).unwrap();
        ack.unwrap().send(()).unwrap();
    });
    root.on("shout", async |socket: Socket, ()| socket.broadcast().emit("shouted", ()).unwrap());
    root.on_server_side("add", |_, numbers: (u32, u32), ack| {
        if let Some(ack) = ack {
            ack.send((numbers.0 + numbers.1,)).unwrap();
        }
    });
    fence(root);
}

/// The client got these, then nothing: `last` comes through the cluster behind all else.
async fn got(client: &mut Client, from: &Namespace, texts: &[&str]) {
    from.emit("last", ()).unwrap();
    for text in texts.iter().chain(&[r#"42["last"]"#]) {
        assert_eq!(client.text().await, *text);
    }
}
