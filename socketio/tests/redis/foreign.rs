//! What others publish, well formed and not.

use socketio::adapter::redis::{Mode, Subscription};
use syncwatch_backends::Redis;

use crate::{Node, got, settings};

/// Publishes with `redis-cli`, which takes any bytes but zero as an argument.
fn publish(redis: &Redis, command: &str, channel: &str, message: &str) {
    redis.cli(&[command, channel, message]).unwrap();
}

#[tokio::test]
async fn nonsense_is_dropped_and_the_rest_is_heard() {
    let redis = Redis::start().unwrap();
    for (mode, command) in [(Mode::Classic, "PUBLISH"), (Mode::Sharded(Subscription::Dynamic), "SPUBLISH")] {
        let mut limited = settings(&redis, mode);
        limited.max_message_bytes = 10_000;
        let node = Node::start(limited).await;
        let (mut client, _) = node.member("room").await;
        let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
        let deep_but_small = format!("{}1{}", "[".repeat(4_000), "]".repeat(4_000));
        let long = "x".repeat(20_000);
        let messages = [
            "",
            "{",
            "{}",
            "[]",
            "null",
            "{\"type\":99}",
            "{\"type\":\"x\",\"uid\":7}",
            "{\"type\":2}",
            "{\"type\":5,\"requestId\":\"1\"}",
            "{\"type\":6,\"data\":{}}",
            "{\"type\":6,\"data\":[]}",
            "{\"type\":7,\"requestId\":\"1\",\"opts\":{},\"packet\":{\"data\":[\"connect\"]}}",
            "{\"requestId\":\"unknown\",\"sockets\":[1]}",
            "{\"uid\":\"x\",\"nsp\":\"/\",\"type\":3}",
            "{\"uid\":\"x\",\"nsp\":\"/\",\"type\":3,\"data\":{\"packet\":{\"data\":1,\"nsp\":\"/\"},\"opts\":{}}}",
            "{\"uid\":\"x\",\"nsp\":\"/other\",\"type\":3,\"data\":{\"packet\":{\"data\":[\"e\"]},\"opts\":{}}}",
            "{\"uid\":\"x\",\"nsp\":\"/\",\"type\":8,\"data\":{\"requestId\":\"1\",\"sockets\":[{}]}}",
            "\u{dc}\u{fffd}",
            "\u{7f}",
            &deep,
            &deep_but_small,
            &long,
        ];
        for channel in ["socket.io#/#", "socket.io#/#room#", "socket.io-request#/#", "socket.io-response#/#"] {
            for message in messages {
                publish(&redis, command, channel, message);
            }
        }
        let other = Node::start(settings(&redis, mode)).await;
        // Larger than what the first one takes.
        other.root().emit("long", ("x".repeat(10_000),)).unwrap();
        got(&mut client, &other.root(), &[]).await;
        assert_eq!(other.root().fetch_sockets().await.unwrap().len(), 1);
        node.server.finish().await;
        other.server.finish().await;
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_not_sent() {
    let redis = Redis::start().unwrap();
    let mut limited = settings(&redis, Mode::Classic);
    limited.max_message_bytes = 1_000;
    let node = Node::start(limited).await;
    let (mut client, _) = node.member("room").await;
    let text = "x".repeat(1_000);
    node.root().emit("long", (&text,)).unwrap();
    assert_eq!(client.text().await, format!(r#"42["long","{text}"]"#));
    assert_eq!(node.redis.lost(), 1);
    let refused = node.root().server_side_emit("add", (&text,)).unwrap_err();
    assert!(refused.to_string().contains("more than 1000"), "{refused}");
    node.server.finish().await;
}
