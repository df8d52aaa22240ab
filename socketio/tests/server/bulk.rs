//! Much data in a short time, for and from clients that read.

use std::time::{Duration, Instant};

use socketio::server::{Config, EmitError, SlowClients};
use socketio::{Ack, Binary, Io, Socket};

use crate::support::{Client, Gate, Poller, Received, Server, config, fence, log, log_lives, until, within};

/// A server that acks what it is sent, and sends a room what one of its members casts.
async fn echo() -> Server {
    Server::start(|root| {
        root.on_connect(async |socket: Socket| socket.join("all"));
        root.on_ack("echo", async |_, text: String, ack: Option<Ack>| ack.unwrap().send((text,)).unwrap());
        root.on("cast", async |socket: Socket, text: String| socket.to("all").emit("cast", (text,)).unwrap());
        fence(root);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_gets_an_ack_for_everything_it_asks() {
    let server = echo().await;
    for (count, bytes) in [(500, 20_000), (40, 900_000), (5_000, 1_000)] {
        let mut client = Client::joined(&server).await;
        let text = "x".repeat(bytes);
        let acks = client.exchange((0..count).map(|id| format!(r#"42{id}["echo","{text}"]"#)), count).await;
        for (id, ack) in acks.iter().enumerate() {
            assert!(*ack == format!(r#"43{id}["{text}"]"#), "{id}: {}", ack.len());
        }
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_gets_everything_that_is_cast() {
    let server = echo().await;
    let mut reads = Client::joined(&server).await;
    let mut casts = Client::joined(&server).await;
    let text = "x".repeat(20_000);
    let casting = tokio::spawn(async move {
        casts.send_all((0..500).map(|number| format!(r#"42["cast","{number}{text}"]"#))).await;
        casts
    });
    for number in 0..500 {
        let text = reads.text().await;
        assert!(text.starts_with(&format!(r#"42["cast","{number}x"#)), "{number}");
    }
    drop(within("the caster", casting).await.unwrap());
    server.finish().await;
}

#[tokio::test]
async fn a_handler_may_emit_as_many_events_as_fit() {
    let server = Server::start(|root| {
        root.on("small", async |socket: Socket, count: usize| {
            for number in 0..count {
                socket.emit("b", (number, "x")).unwrap();
            }
        });
        root.on("kilobytes", async |socket: Socket, count: usize| {
            let text = "x".repeat(1_000);
            for number in 0..count {
                socket.emit("b", (number, &text)).unwrap();
            }
        });
    })
    .await;
    for (event, count) in [("small", 70_000), ("kilobytes", 5_000)] {
        let mut client = Client::joined(&server).await;
        client.send(&format!(r#"42["{event}",{count}]"#)).await;
        for number in 0..count {
            let text = client.text().await;
            assert!(text.starts_with(&format!(r#"42["b",{number},"x"#)), "{number}: {text}");
        }
    }
    server.finish().await;
}

/// However little may wait: a packet that is larger leaves where nothing else waits.
#[tokio::test]
async fn attachments_of_any_size_are_sent_whole() {
    for config in [config(), small()] {
        let server = Server::with(Io::builder().config(config).namespace("/", fence)).await;
        let mut client = Client::joined(&server).await;
        let socket = server.sockets(1).await.remove(0);
        until("the queue to be empty", || socket.queued_bytes() == 0).await;
        socket.emit("big", (Binary::from(vec![7; 4_300_000]),)).unwrap();
        client.expect([r#"451-["big",{"_placeholder":true,"num":0}]"#]).await;
        client.expect_binary(&vec![7; 4_300_000]).await;
        until("the queue to be empty", || socket.queued_bytes() == 0).await;
        let part = |byte| Binary::from(vec![byte; 2_000_000]);
        socket.emit("three", (part(1), part(2), part(3))).unwrap();
        let text = client.text().await;
        assert!(text.starts_with(r#"453-["three","#), "{text}");
        for byte in 1..=3 {
            client.expect_binary(&vec![byte; 2_000_000]).await;
        }
        server.finish().await;
    }
}

/// Settings under which little may wait.
fn small() -> Config {
    let mut config = config();
    config.engine.max_buffered_bytes = 50_000;
    config.engine.max_backlog_bytes = Some(100_000);
    config
}

#[tokio::test]
async fn an_event_that_does_not_fit_is_refused_whole_and_the_client_stays() {
    let server = Server::with(Io::builder().config(small()).namespace("/", fence)).await;
    let poller = Poller::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let kilobytes = "x".repeat(10_000);
    let sent = (0..).take_while(|number| socket.emit("n", (number, &kilobytes)).is_ok()).count();
    assert!((8..10).contains(&sent), "{sent}");
    assert_eq!(socket.emit("n", (0, &kilobytes)), Err(EmitError::Full));
    let attachment = Binary::from(vec![1; 10_000]);
    assert_eq!(socket.emit("b", ("text", attachment)), Err(EmitError::Full));
    assert!(socket.queued_bytes() > 80_000);
    let mut got = Vec::new();
    while got.len() < sent {
        got.extend(poller.get().await.split('\x1e').map(str::to_owned).collect::<Vec<_>>());
    }
    for (number, event) in got.iter().enumerate() {
        assert!(event.starts_with(&format!(r#"42["n",{number},"x"#)), "{event}");
    }
    until("the queue to be empty", || socket.queued_bytes() == 0).await;
    socket.emit("last", ()).unwrap();
    assert_eq!(poller.get().await, r#"42["last"]"#);
    server.finish().await;
}

#[tokio::test]
async fn a_task_may_send_as_fast_as_the_client_reads() {
    let server = Server::start(fence).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let sending = tokio::spawn(async move {
        let mut most = 0;
        for number in 0..1_000 {
            socket.emit_when_ready("n", (number, "x".repeat(50_000))).await.unwrap();
            most = most.max(socket.queued_bytes());
        }
        most
    });
    for number in 0..1_000 {
        let text = client.text().await;
        assert!(text.starts_with(&format!(r#"42["n",{number},"x"#)));
    }
    let most = within("the sender", sending).await.unwrap();
    assert!(most < (1 << 20) + 60_000, "{most}");
    server.finish().await;
}

#[tokio::test]
async fn broadcasts_leave_slow_clients_out_where_that_is_the_policy() {
    let (log, mut lines) = log();
    let mut config = small();
    config.slow_clients = SlowClients::Skip;
    let server = Server::with(Io::builder().config(config).namespace("/", |root| log_lives(root, &log))).await;
    let poller = Poller::joined(&server).await;
    lines.expect(["connected"]).await;
    for number in 0..30 {
        server.root().emit("n", (number, "x".repeat(10_000))).unwrap();
        tokio::task::yield_now().await;
    }
    let first = poller.get().await;
    let got = first.split('\x1e').count();
    assert!((8..10).contains(&got), "{got}");
    let socket = server.sockets(1).await.remove(0);
    until("the queue to be empty", || socket.queued_bytes() == 0).await;
    server.root().emit("last", ()).unwrap();
    assert_eq!(poller.get().await, r#"42["last"]"#);
    lines.expect_none();
    server.finish().await;
}

#[tokio::test]
async fn an_ack_does_not_wait_behind_events() {
    let server = Server::start(|root| {
        root.on("work", async |socket: Socket, number: usize| {
            let answer: usize = socket.emit_with_ack("check", (number,), Duration::from_secs(10)).await.unwrap();
            socket.emit("done", (answer,)).unwrap();
        });
    })
    .await;
    const EVENTS: usize = 300;
    let mut client = Client::joined(&server).await;
    client.send_all((0..EVENTS).map(|number| format!(r#"42["work",{number}]"#))).await;
    for number in 0..EVENTS {
        assert_eq!(client.text().await, format!(r#"42{number}["check",{number}]"#));
        client.send(&format!("43{number}[{number}]")).await;
        assert_eq!(client.text().await, format!(r#"42["done",{number}]"#));
    }
    server.finish().await;
}

#[tokio::test]
async fn events_before_an_ack_are_bounded_in_bytes() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let mut config = config();
    config.max_waiting_bytes = 10_000;
    config.max_waiting_bytes_before_ack = 100_000;
    config.engine.ping_interval = Duration::from_millis(100);
    config.engine.ping_timeout = Duration::from_millis(100);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| {
        root.on("work", move |socket: Socket, _: String| {
            let gate = waits.clone();
            async move {
                let _answer: Result<u8, _> = socket.emit_with_ack("check", (), Duration::from_secs(3600)).await;
                gate.pass().await;
            }
        });
    }))
    .await;
    let mut client = Client::joined(&server).await;
    let text = "x".repeat(20_000);
    let mut flood = tokio::spawn(async move {
        client.send_all((0..2_000).map(|_| format!(r#"42["work","{text}"]"#))).await;
        client
    });
    let most = async {
        let mut most = 0;
        loop {
            most = server.io.stats().queued_bytes().max(most);
            if tokio::time::timeout(Duration::from_millis(1), &mut flood).await.is_ok() {
                panic!("everything was read");
            }
            if most > 80_000 {
                return most;
            }
        }
    };
    let most = within("events to wait", most).await;
    assert!(most < 300_000, "{most}");
    gate.open(usize::MAX >> 4);
    flood.abort();
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn a_socket_leaves_though_its_handler_never_ends() {
    let (log, mut lines) = log();
    let mut config = config();
    config.handler_grace = Duration::from_millis(50);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| {
        root.on_connect(async |socket: Socket| {
            socket.join("room");
            std::future::pending::<()>().await;
        });
        let disconnected = log.clone();
        root.on_disconnecting(move |socket, _| log.add(format!("leaves {:?}", socket.rooms())));
        root.on_disconnect(move |_, reason| {
            disconnected.add(reason.to_string());
            std::future::pending::<()>()
        });
    }))
    .await;
    let client = Client::joined(&server).await;
    until("the room", || server.root().rooms() == 1).await;
    drop(client);
    lines.expect([r#"leaves ["room"]"#]).await;
    until("the socket to leave", || server.root().is_empty() && server.root().rooms() == 0).await;
    lines.expect(["transport close"]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_end_of_the_server_does_not_wait_for_handlers_beyond_their_grace() {
    let mut config = config();
    config.handler_grace = Duration::from_millis(50);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| {
        root.on("hang", async |_: Socket, ()| std::future::pending().await);
        fence(root);
    }))
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["hang"]"#).await;
    client.send(r#"42["fence"]"#).await;
    within("the end", server.io.close()).await;
    while client.receive().await != Received::End {}
    server.finish().await;
}

/// What it costs must not grow with the square of how many rooms there are.
#[tokio::test]
async fn joining_many_rooms_takes_time_in_proportion() {
    let server = Server::start(fence).await;
    let _client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let join = |from: usize, to: usize| {
        let start = Instant::now();
        (from..to).for_each(|number| socket.join(format!("room {number}")));
        start.elapsed()
    };
    let few = join(0, 4_000).max(Duration::from_millis(1));
    let many = join(4_000, 44_000);
    assert!(many < few * 50, "{few:?} for 4,000, {many:?} for 40,000 more");
    assert_eq!(server.root().rooms(), 44_000);
    server.finish().await;
}
