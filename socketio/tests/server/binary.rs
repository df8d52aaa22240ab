//! Attachments, both ways, on both transports.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use socketio::server::{BuildError, Config, IoBuilder};
use socketio::{Ack, Args, Argument, Binary, Data, DataError, Io, Socket};

use crate::support::{Client, Poller, Server, config, within};

#[tokio::test]
async fn attachments_come_in_and_go_out() {
    let server = Server::start(|root| {
        root.on_ack("swap", async |_: Socket, Args((a, b)): Args<(Binary, Binary)>, ack: Option<Ack>| {
            ack.unwrap().send((b, a)).unwrap();
        })
        .on("forward", async |socket: Socket, data: Data| socket.emit("forwarded", data).unwrap());
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"452-0["swap",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    client.send_binary(b"one").await;
    client.send_binary(b"").await;
    client.expect([r#"462-0[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#]).await;
    client.expect_binary(b"").await;
    client.expect_binary(b"one").await;
    client.send(r#"451-["forward",{"file":{"_placeholder":true,"num":0}}]"#).await;
    client.send_binary(b"two").await;
    client.expect([r#"451-["forwarded",{"file":{"_placeholder":true,"num":0}}]"#]).await;
    client.expect_binary(b"two").await;
    server.finish().await;
}

#[tokio::test]
async fn attachments_are_passed_on_or_missed_aloud() {
    let server = Server::start(|root| {
        root.on("value", async |socket: Socket, value: Value| socket.emit("lost", (value,)).unwrap())
            .on("raw", async |socket: Socket, raw: Box<RawValue>| socket.emit("lost", (raw,)).unwrap())
            .on("any", async |socket: Socket, Args((room, what)): Args<(String, Argument)>| {
                socket.emit("any", (Binary::from(vec![0]), what, room)).unwrap();
            })
            .on_mismatch(async |socket: Socket, event: String, error: DataError, _: Option<Ack>| {
                socket.emit("mismatch", (event, error.to_string())).unwrap();
            });
    })
    .await;
    let mut client = Client::joined(&server).await;
    for event in ["value", "raw"] {
        client.send(&format!(r#"451-["{event}",{{"deep":[{{"_placeholder":true,"num":0}}]}}]"#)).await;
        client.send_binary(b"one").await;
        let text = client.text().await;
        assert!(text.starts_with(&format!(r#"42["mismatch","{event}","#)) && text.contains("binary data"), "{text}");
        client.send(&format!(r#"42["{event}",{{"_placeholder":true,"num":0}}]"#)).await;
        client.expect([r#"42["lost",{"_placeholder":true,"num":0}]"#]).await;
    }
    client.send(r#"451-["any","r",{"b":{"_placeholder":true,"num":0},"a":"\ud800"}]"#).await;
    client.send_binary(b"one").await;
    client
        .expect([r#"452-["any",{"_placeholder":true,"num":0},{"b":{"_placeholder":true,"num":1},"a":"\ud800"},"r"]"#])
        .await;
    client.expect_binary(&[0]).await;
    client.expect_binary(b"one").await;
    server.finish().await;
}

#[tokio::test]
async fn the_server_is_answered_with_attachments() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let asking = tokio::spawn(async move {
        let bytes = Binary::from(vec![1, 2]);
        socket.emit_with_ack::<Binary>("ask", (bytes,), Duration::from_secs(3600)).await
    });
    client.expect([r#"451-0["ask",{"_placeholder":true,"num":0}]"#]).await;
    client.expect_binary(&[1, 2]).await;
    client.send(r#"461-0[{"_placeholder":true,"num":0}]"#).await;
    client.send_binary(&[3]).await;
    assert_eq!(within("the answer", asking).await.unwrap().unwrap(), Binary::from(vec![3]));
    server.finish().await;
}

#[tokio::test]
async fn a_broadcast_carries_its_attachments_to_both_transports_unmixed() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::joined(&server).await;
    let poller = Poller::joined(&server).await;
    for number in 0..3_u8 {
        server.root().emit("file", (Binary::from(vec![number]), Binary::from(vec![number; 200]))).unwrap();
    }
    let head = r#"452-["file",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    for number in 0..3_u8 {
        client.expect([head]).await;
        client.expect_binary(&[number]).await;
        client.expect_binary(&[number; 200]).await;
    }
    let body = poller.get().await;
    let packets: Vec<&str> = body.split('\x1e').collect();
    assert_eq!(packets.len(), 9, "{body}");
    assert_eq!((packets[0], packets[1], packets[3], packets[4]), (head, "bAA==", head, "bAQ=="));
    server.finish().await;
}

#[tokio::test]
async fn a_packet_that_waits_for_attachments_goes_with_its_client() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::joined(&server).await;
    client.send(r#"452-["e",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#).await;
    client.send_binary(b"one").await;
    drop(client);
    server.emptied().await;
    let mut client = Client::joined(&server).await;
    client.send_binary(b"unasked").await;
    client.expect_end().await;
    server.finish().await;
}

#[tokio::test]
async fn an_attachment_may_be_as_large_as_a_message() {
    let mut config = config();
    config.engine.max_payload_bytes = 100_000_000;
    let server = Server::with(measuring(config)).await;
    let mut client = Client::joined(&server).await;
    client.send(r#"451-0["measure",{"_placeholder":true,"num":0}]"#).await;
    client.send_bytes(vec![7; 4_100_000]).await;
    client.expect(["430[4100000]"]).await;
    let poller = Poller::joined(&server).await;
    let attachment = "QUFB".repeat(4_100_000 / 3);
    poller.post(&format!("451-0[\"measure\",{{\"_placeholder\":true,\"num\":0}}]\x1eb{attachment}")).await;
    assert_eq!(poller.get().await, format!("430[{}]", 4_100_000 / 3 * 3));
    server.finish().await;
}

#[tokio::test]
async fn each_attachment_may_be_as_large_as_a_message() {
    let server = Server::with(measuring(config())).await;
    let mut client = Client::joined(&server).await;
    client.send(r#"4510-0["measure",{"_placeholder":true,"num":9}]"#).await;
    for _ in 0..10 {
        client.send_bytes(vec![7; 1_000_000]).await;
    }
    client.expect(["430[1000000]"]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_limit_of_binary_packets_is_kept_and_no_message_may_be_larger() {
    let limited = |max_binary_bytes| {
        let mut config = config();
        config.engine.max_payload_bytes = 1_000;
        config.connection.decoder.max_binary_bytes = Some(max_binary_bytes);
        measuring(config)
    };
    let wrong = BuildError::Config {
        field: "connection.decoder.max_binary_bytes",
        allowed: "at least engine.max_payload_bytes",
    };
    assert_eq!(limited(999).build().map(drop), Err(wrong));
    let server = Server::with(limited(1_000)).await;
    let mut client = Client::joined(&server).await;
    client.send(r#"452-0["measure",{"_placeholder":true,"num":0}]"#).await;
    client.send_bytes(vec![7; 900]).await;
    client.send_bytes(vec![7; 100]).await;
    client.expect_end().await;
    server.finish().await;
}

/// A server that answers how many bytes a client has sent.
fn measuring(config: Config) -> IoBuilder {
    Io::builder().config(config).namespace("/", |root| {
        root.on_ack("measure", async |_: Socket, bytes: Binary, ack: Option<Ack>| {
            ack.unwrap().send((bytes.0.len(),)).unwrap();
        });
    })
}
