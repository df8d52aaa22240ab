//! How sockets leave: the reasons, the order, and the end of the server.

use std::time::Duration;

use socketio::server::{DisconnectReason, NamespaceBuilder};
use socketio::{Io, Socket};

use crate::support::{
    Client, Gate, Lines, Log, Poller, Received, Server, config, fence, log, log_lives, patient, until, within,
};

/// Logs the reason, and whether the client meant it.
fn log_reasons(namespace: &mut NamespaceBuilder, log: &Log) {
    let log = log.clone();
    namespace.on_disconnect(move |_, reason: DisconnectReason| {
        log.add(if reason.is_deliberate() { format!("{reason}, deliberate") } else { reason.to_string() });
        std::future::ready(())
    });
}

async fn reasons() -> (Server, Lines) {
    let (log, lines) = log();
    let server = Server::start(|root| {
        log_reasons(root, &log);
        root.on("malformed", async |_: Socket, _: u8| {});
        fence(root);
    })
    .await;
    (server, lines)
}

#[tokio::test]
async fn the_client_leaves_its_namespace() {
    let (server, mut lines) = reasons().await;
    let mut client = Client::joined(&server).await;
    client.send("41").await;
    lines.expect(["client namespace disconnect, deliberate"]).await;
    client.join("/").await;
    server.finish().await;
}

#[tokio::test]
async fn the_client_says_goodbye() {
    let (server, mut lines) = reasons().await;
    let mut client = Client::joined(&server).await;
    client.send("1").await;
    lines.expect(["transport close, deliberate"]).await;
    let mut client = Client::joined(&server).await;
    client.send_close().await;
    lines.expect(["transport close, deliberate"]).await;
    let poller = Poller::joined(&server).await;
    poller.post("1").await;
    lines.expect(["transport close, deliberate"]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_connection_is_lost() {
    let (server, mut lines) = reasons().await;
    drop(Client::joined(&server).await);
    lines.expect(["transport close"]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_transport_fails() {
    let (server, mut lines) = reasons().await;
    let mut client = Client::joined(&server).await;
    client.send_raw(&[0xff; 16]);
    lines.expect(["transport error"]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_pong_does_not_come() {
    let (log, mut lines) = log();
    let mut config = config();
    config.engine.ping_interval = Duration::from_millis(10);
    config.engine.ping_timeout = Duration::from_millis(30);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| log_reasons(root, &log))).await;
    let mut client = Client::joined(&server).await;
    client.expect(["2"]).await;
    lines.expect(["ping timeout"]).await;
    server.finish().await;
}

#[tokio::test]
async fn what_the_client_sends_is_wrong() {
    for (packets, reason) in [
        ("abc", "parse error"),
        ("4abc", "forced close"),
        (r#"42["connect"]"#, "forced close"),
        (r#"42["malformed",tru]"#, "forced close"),
        ("450-[]", "forced close"),
        ("40", "forced server close"),
        ("41/chat,", "forced server close"),
        ("44{}", "forced server close"),
    ] {
        let (server, mut lines) = reasons().await;
        let mut client = Client::joined(&server).await;
        client.send(packets).await;
        assert_eq!(lines.next().await, reason, "{packets}");
        client.expect_end().await;
        server.finish().await;
        lines.expect_none();
    }
}

#[tokio::test]
async fn the_server_disconnects_a_socket_and_the_connection_stays() {
    let (server, mut lines) = reasons().await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    socket.emit("last", ()).unwrap();
    socket.disconnect(false);
    socket.disconnect(false);
    client.expect([r#"42["last"]"#, "41"]).await;
    lines.expect(["server namespace disconnect"]).await;
    client.join("/").await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    drop(socket);
    server.finish().await;
}

#[tokio::test]
async fn the_server_disconnects_a_client_from_everything() {
    let (log, mut lines) = log();
    let builder = Io::builder().config(config()).namespace("/", |root| log_reasons(root, &log));
    let server = Server::with(builder.namespace("/chat", |chat| log_reasons(chat, &log))).await;
    let mut client = Client::joined(&server).await;
    client.join("/chat").await;
    server.root().disconnect_sockets(true).unwrap();
    client.expect(["41", "41/chat,"]).await;
    client.expect_end().await;
    lines.expect(["server namespace disconnect", "server namespace disconnect"]).await;
    server.emptied().await;
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn a_client_that_is_closed_and_does_not_poll_leaves_at_once() {
    let (log, mut lines) = log();
    let server = Server::with(Io::builder().config(patient()).namespace("/", |root| log_reasons(root, &log))).await;
    for (packets, reason) in [("4abc", "forced close"), ("40", "forced server close")] {
        let poller = Poller::joined(&server).await;
        poller.post(packets).await;
        lines.expect([reason]).await;
        server.emptied().await;
        poller.post(r#"42["late"]"#).await;
        assert_eq!(poller.get().await, "6\x1e1");
    }
    let poller = Poller::joined(&server).await;
    server.sockets(1).await[0].disconnect(true);
    lines.expect(["server namespace disconnect"]).await;
    assert_eq!(poller.get().await, "41");
    assert_eq!(poller.get().await, "6\x1e1");
    server.finish().await;
}

#[tokio::test]
async fn rooms_are_there_while_a_socket_is_leaving_and_gone_when_it_has_left() {
    let (log, mut lines) = log();
    let (leaving, left) = (log.clone(), log);
    let server = Server::start(|root| {
        root.on_connect(async |socket: Socket| {
            socket.join("a");
            socket.join("b");
        })
        .on_disconnecting(move |socket, reason| {
            let mut rooms = socket.rooms();
            rooms.sort();
            leaving.add(format!("{rooms:?} {reason} {}", socket.is_connected()));
            socket.to("a").emit("leaving", (socket.id().as_str(),)).unwrap();
        })
        .on_disconnect(move |socket: Socket, _| {
            left.add(format!("{:?} {} {}", socket.rooms(), socket.is_connected(), socket.namespace().len()));
            std::future::ready(())
        });
        fence(root);
    })
    .await;
    let mut stays = Client::joined(&server).await;
    let mut leaves = Client::open(&server).await;
    let id = leaves.join("/").await;
    stays.send(r#"42["fence"]"#).await;
    stays.expect([r#"42["fence"]"#]).await;
    leaves.send("41").await;
    lines.expect([r#"["a", "b"] client namespace disconnect false"#, "[] false 1"]).await;
    stays.expect([&*format!(r#"42["leaving","{id}"]"#)]).await;
    assert_eq!(server.root().rooms(), 2);
    drop(stays);
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn the_server_closes_without_a_disconnect_packet() {
    let (log, mut lines) = log();
    let server = Server::with(Io::builder().config(patient()).namespace("/", |root| log_lives(root, &log))).await;
    let mut client = Client::joined(&server).await;
    let polls = Poller::joined(&server).await;
    lines.expect(["connected", "connected"]).await;
    let polling = tokio::spawn(async move { polls.get().await });
    let io = server.io.clone();
    within("the end", io.close()).await;
    lines.expect(["server shutting down"; 2]).await;
    client.expect_end().await;
    // `1` for a poll that waited, `6` and `1` for one that came after.
    let goodbye = within("the poll", polling).await.unwrap();
    assert!(["1", "6\x1e1"].contains(&&*goodbye), "{goodbye}");
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn sockets_leave_a_closing_server_before_clients_that_do_not_poll_are_given_up() {
    let (log, mut lines) = log();
    let server = Server::with(Io::builder().config(patient()).namespace("/", |root| log_lives(root, &log))).await;
    let poller = Poller::joined(&server).await;
    let io = server.io.clone();
    let closing = tokio::spawn(async move { io.close().await });
    lines.expect(["connected", "server shutting down"]).await;
    server.emptied().await;
    assert_eq!(poller.get().await, "6\x1e1");
    within("the end", closing).await.unwrap();
    server.finish().await;
}

#[tokio::test]
async fn a_closing_server_waits_for_handlers_at_work() {
    let (log, mut lines) = log();
    let gate = Gate::shut();
    let (waits, noted) = (gate.clone(), log.clone());
    let server = Server::start(|root| {
        root.on("slow", move |_, ()| {
            let (gate, log) = (waits.clone(), noted.clone());
            async move {
                log.add("begins");
                gate.pass().await;
                log.add("ends");
            }
        });
        log_lives(root, &log);
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["slow"]"#).await;
    lines.expect(["connected", "begins"]).await;
    let io = server.io.clone();
    let closing = tokio::spawn(async move { io.close().await });
    client.expect_end().await;
    assert!(!closing.is_finished());
    gate.open(1);
    within("the end", closing).await.unwrap();
    lines.expect(["ends", "server shutting down"]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_closing_server_lets_nobody_in() {
    let server = Server::start(|_| {}).await;
    let client = Client::joined(&server).await;
    let root = server.root();
    server.finish().await;
    drop(client);
    assert!(root.is_empty());
}

#[tokio::test]
async fn sockets_do_not_outlive_their_runtime() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = runtime.block_on(async {
            let server = Server::start(|root| {
                root.on_connect(async |socket: Socket| socket.join("lobby"));
            })
            .await;
            let _client = Client::joined(&server).await;
            let root = server.root();
            until("the room", || root.rooms() == 1).await;
            root
        });
        drop(runtime);
        sender.send((root.len(), root.rooms())).unwrap();
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok((0, 0)));
}

#[tokio::test]
async fn nothing_is_received_after_the_goodbye() {
    let server = Server::start(fence).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    client.send("41").await;
    server.emptied().await;
    assert!(socket.emit("late", ()).is_err());
    server.root().emit("late", ()).unwrap();
    client.join("/").await;
    client.send(r#"42["fence"]"#).await;
    assert_eq!(client.receive().await, Received::Text(r#"42["fence"]"#.to_owned()));
    drop(socket);
    server.finish().await;
}

#[tokio::test]
async fn the_connection_of_a_socket_is_closed_without_a_packet_behind_what_it_was_sent() {
    let (server, mut lines) = reasons().await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    socket.emit("last", ()).unwrap();
    socket.close_connection();
    client.expect([r#"42["last"]"#]).await;
    client.expect_end().await;
    lines.expect(["server shutting down"]).await;
    server.finish().await;
}
