//! Clients that send more than is handled, or read less than they are sent.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socketio::{Io, Socket};

use crate::support::{Client, Gate, Lines, Poller, Received, Server, config, fence, log, log_lives, within};

const EVENTS: usize = 3_000;
/// Together far more than socket buffers hold.
const EVENT_BYTES: usize = 10_000;

/// A server whose handler of `slow` waits at the gate and logs its number; few events may wait.
async fn slow_server() -> (Server, Gate, Lines) {
    let (log, lines) = log();
    let gate = Gate::shut();
    let waits = gate.clone();
    let mut config = config();
    config.max_waiting_events = 4;
    let builder = Io::builder().config(config).namespace("/", |root| {
        root.on("slow", move |_, socketio::Args((number, _)): socketio::Args<(usize, String)>| {
            let (gate, log) = (waits.clone(), log.clone());
            async move {
                gate.pass().await;
                log.add(number.to_string());
            }
        });
        fence(root);
    });
    (Server::with(builder).await, gate, lines)
}

fn slow_event(number: usize) -> String {
    format!(r#"42["slow",{number},"{}"]"#, "x".repeat(EVENT_BYTES))
}

#[tokio::test]
async fn a_client_ahead_of_its_handlers_is_not_read_and_loses_nothing() {
    let (server, gate, mut lines) = slow_server().await;
    let mut client = Client::joined(&server).await;
    let mut sending = tokio::spawn(async move {
        client.send_all((0..EVENTS).map(slow_event)).await;
        client
    });
    let mut other = Client::joined(&server).await;
    // The buffers are full long before the client is through.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut sending).await.is_err(), "everything was read");
    other.send(r#"42["fence"]"#).await;
    other.expect([r#"42["fence"]"#]).await;
    lines.expect_none();
    gate.open(EVENTS);
    for number in 0..EVENTS {
        assert_eq!(lines.next().await, number.to_string());
    }
    let mut client = within("the client", sending).await.unwrap();
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_polling_client_ahead_of_its_handlers_loses_nothing_either() {
    let (server, gate, mut lines) = slow_server().await;
    let poller = Poller::joined(&server).await;
    let body = |from: usize| (from..from + 80).map(slow_event).collect::<Vec<_>>().join("\x1e");
    let posting = tokio::spawn(async move {
        poller.post(&body(0)).await;
        poller.post(&body(80)).await;
        poller
    });
    gate.open(160);
    for number in 0..160 {
        assert_eq!(lines.next().await, number.to_string());
    }
    within("both bodies", posting).await.unwrap();
    server.finish().await;
}

#[tokio::test]
async fn what_was_read_is_handled_after_a_client_ahead_has_gone() {
    let (server, gate, mut lines) = slow_server().await;
    let mut client = Client::joined(&server).await;
    client.send_all((0..20).map(slow_event)).await;
    client.send("1").await;
    drop(client);
    gate.open(20);
    for number in 0..20 {
        assert_eq!(lines.next().await, number.to_string());
    }
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn leaving_and_coming_back_does_not_pile_up_sockets() {
    const ROUNDS: usize = 2_000;
    let connected = Arc::new(AtomicUsize::new(0));
    let gate = Gate::shut();
    let (waits, counted) = (gate.clone(), Arc::clone(&connected));
    let mut config = config();
    config.max_waiting_events = 4;
    config.connection.max_namespaces = 2;
    let builder = Io::builder().config(config).namespace("/", |root| {
        root.on_connect(move |_| {
            counted.fetch_add(1, Relaxed);
            std::future::ready(())
        })
        .on_disconnect(move |_, _| {
            let gate = waits.clone();
            async move { gate.pass().await }
        });
        fence(root);
    });
    let server = Server::with(builder).await;
    let mut client = Client::open(&server).await;
    for _ in 0..8 {
        // As many as may linger are answered at once: the flood below begins where nothing is read any more.
        if connected.load(Relaxed) >= 6 {
            break;
        }
        client.join("/").await;
        client.send("41").await;
    }
    for _ in 0..ROUNDS {
        client.send_all(["40".to_owned(), "41".to_owned()]).await;
    }
    // Round trips of somebody else see the server at work behind the flood.
    let mut other = Client::joined(&server).await;
    for _ in 0..100 {
        other.send(r#"42["fence"]"#).await;
        other.expect([r#"42["fence"]"#]).await;
    }
    assert!(connected.load(Relaxed) <= 8, "{} sockets linger", connected.load(Relaxed));
    gate.open(usize::MAX >> 4);
    drop(client);
    drop(other);
    server.emptied().await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_closed_and_the_others_get_everything() {
    const BYTES: usize = 64 * 1024;
    let (log, mut lines) = log();
    let mut config = config();
    config.engine.max_buffered_bytes = 1 << 20;
    config.engine.max_backlog_bytes = Some(2 << 20);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| log_lives(root, &log))).await;
    let mut reads = Client::joined(&server).await;
    let mut deaf = Client::joined(&server).await;
    lines.expect(["connected", "connected"]).await;
    let payload = "x".repeat(BYTES);
    let mut sent = 0;
    while server.root().len() == 2 {
        server.root().emit("n", (sent, &payload)).unwrap();
        let text = reads.text().await;
        assert!(text.starts_with(&format!(r#"42["n",{sent},"x"#)));
        sent += 1;
        assert!(sent * BYTES < 256 << 20, "nobody was closed");
        assert!(server.io.stats().queued_bytes() <= 3 << 20);
    }
    lines.expect(["transport error"]).await;
    // What is in the buffers of the system may still come, then the end.
    while deaf.receive().await != Received::End {}
    server.root().emit("last", ()).unwrap();
    reads.expect([r#"42["last"]"#]).await;
    assert_eq!(server.root().len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn a_polling_client_that_does_not_poll_is_closed_over_its_budget() {
    let (log, mut lines) = log();
    let mut config = config();
    config.engine.max_buffered_bytes = 10_000;
    let server = Server::with(Io::builder().config(config).namespace("/", |root| log_lives(root, &log))).await;
    let _deaf = Poller::joined(&server).await;
    let root = server.root();
    lines.expect(["connected"]).await;
    within("the end", async {
        while !root.is_empty() {
            root.emit("n", ("x".repeat(1_000),)).unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    lines.expect(["transport error"]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_handler_may_ask_its_own_client_while_events_wait() {
    let server = Server::start(|root| {
        root.on("ask", async |socket: Socket, ()| {
            let answer: u8 = socket.emit_with_ack("who", (), Duration::from_secs(3600)).await.unwrap();
            socket.emit("answered", (answer,)).unwrap();
        });
        fence(root);
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["ask"]"#).await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"420["who"]"#]).await;
    client.send("430[7]").await;
    client.expect([r#"42["answered",7]"#, r#"42["fence"]"#]).await;
    server.finish().await;
}
