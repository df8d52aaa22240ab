//! Handlers: in which order they run, what they may do to each other, and what ends them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socketio::{Args, Data, Event, Io, Socket};

use crate::support::{Client, Gate, Poller, Received, Server, config, fence, log, log_event, log_lives, patient};

#[tokio::test]
async fn events_of_a_socket_are_handled_in_turn_and_sockets_do_not_wait_for_each_other() {
    let (log, mut lines) = log();
    let gate = Gate::shut();
    let (waits, noted) = (gate.clone(), log.clone());
    let server = Server::start(|root| {
        root.on("slow", move |_, name: String| {
            let (gate, log) = (waits.clone(), noted.clone());
            async move {
                log.add(format!("{name} begins"));
                gate.pass().await;
                log.add(format!("{name} ends"));
            }
        });
        log_event(root, "note", &log);
        fence(root);
    })
    .await;
    let mut first = Client::joined(&server).await;
    let mut second = Client::joined(&server).await;
    for event in [r#"42["slow","one"]"#, r#"42["slow","two"]"#, r#"42["note","three"]"#, r#"42["fence"]"#] {
        first.send(event).await;
    }
    lines.expect(["one begins"]).await;
    second.send(r#"42["note","other"]"#).await;
    second.send(r#"42["fence"]"#).await;
    second.expect([r#"42["fence"]"#]).await;
    lines.expect(["other"]).await;
    lines.expect_none();
    gate.open(1);
    lines.expect(["one ends", "two begins"]).await;
    gate.open(1);
    lines.expect(["two ends", "three"]).await;
    first.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_slow_handler_holds_up_no_other_namespace_of_its_client() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let builder = Io::builder().config(config()).namespace("/chat", fence).namespace("/", |root| {
        root.on("slow", move |socket: Socket, ()| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                socket.emit("done", ()).unwrap();
            }
        });
    });
    let server = Server::with(builder).await;
    let mut client = Client::joined(&server).await;
    client.join("/chat").await;
    client.send(r#"42["slow"]"#).await;
    client.send(r#"42/chat,["fence"]"#).await;
    client.expect([r#"42/chat,["fence"]"#]).await;
    gate.open(1);
    client.expect([r#"42["done"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn events_wait_for_the_connect_handler() {
    let (log, mut lines) = log();
    let gate = Gate::shut();
    let (waits, noted) = (gate.clone(), log.clone());
    let server = Server::start(|root| {
        root.on_connect(move |_| {
            let (gate, log) = (waits.clone(), noted.clone());
            async move {
                log.add("connecting");
                gate.pass().await;
                log.add("connected");
            }
        });
        log_event(root, "note", &log);
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["note","event"]"#).await;
    lines.expect(["connecting"]).await;
    gate.open(1);
    lines.expect(["connected", "event"]).await;
    server.finish().await;
}

#[tokio::test]
async fn handlers_finish_when_their_client_has_left_and_then_it_leaves_once() {
    let (log, mut lines) = log();
    let gate = Gate::shut();
    let (waits, noted) = (gate.clone(), log.clone());
    let server = Server::start(|root| {
        root.on("slow", move |socket: Socket, ()| {
            let (gate, log) = (waits.clone(), noted.clone());
            async move {
                log.add("begins");
                gate.pass().await;
                socket.join("late");
                log.add("ends");
            }
        });
        log_event(root, "note", &log);
        log_lives(root, &log);
    })
    .await;
    for goodbye in [Some("41"), Some("1"), None] {
        let mut client = Client::joined(&server).await;
        client.send(r#"42["slow"]"#).await;
        client.send(r#"42["note","behind"]"#).await;
        lines.expect(["connected", "begins"]).await;
        if let Some(goodbye) = goodbye {
            client.send(goodbye).await;
        }
        drop(client);
        lines.expect_none();
        gate.open(1);
        lines.expect(["ends", "behind"]).await;
        let reason = if goodbye == Some("41") { "client namespace disconnect" } else { "transport close" };
        lines.expect([reason]).await;
        server.emptied().await;
        lines.expect_none();
    }
    server.finish().await;
}

#[tokio::test]
async fn a_late_join_leaves_no_room_behind() {
    let (log, mut lines) = log();
    let server = Server::start(|root| {
        root.on("join", async |socket: Socket, room: String| socket.join(room));
        fence(root);
        root.on_disconnect(move |socket: Socket, _| {
            socket.join("later");
            assert!(socket.rooms().is_empty());
            assert_eq!(socket.emit("gone", ()), Err(socketio::server::EmitError::Closed));
            log.add("left");
            std::future::ready(())
        });
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["join","a"]"#).await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    let sockets = server.sockets(1).await;
    drop(client);
    lines.expect(["left"]).await;
    sockets[0].join("latest");
    sockets[0].leave("a");
    assert!(!sockets[0].is_connected());
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn malformed_arguments_close_the_connection_and_what_is_behind_them_is_not_handled() {
    for malformed in [r#"["note",tru]"#, r#"["nobody",{"a":}]"#, r#"["count",[1,]]"#] {
        let (log, mut lines) = log();
        let server = Server::start(|root| {
            log_event(root, "note", &log);
            root.on("count", async |_: Socket, _: Vec<u8>| {});
            root.on_mismatch(async |_: Socket, _, error, _| panic!("{error}"));
            log_lives(root, &log);
        })
        .await;
        let poller = Poller::joined(&server).await;
        poller.post(&format!("42[\"note\",\"before\"]\x1e42{malformed}\x1e42[\"note\",\"behind\"]")).await;
        lines.expect(["connected", "before", "forced close"]).await;
        server.finish().await;
        lines.expect_none();
    }
}

#[tokio::test]
async fn events_that_came_before_a_malformed_urgent_one_are_still_handled() {
    let (log, mut lines) = log();
    let server = Server::start(|root| {
        log_event(root, "note", &log);
        let urgent = log.clone();
        root.on_urgent("time", move |_, sent: u64, _| urgent.add(format!("time {sent}")));
        log_lives(root, &log);
    })
    .await;
    let mut client = Client::joined(&server).await;
    lines.expect(["connected"]).await;
    let batch = [r#"42["note","before"]"#, r#"42["time",1]"#, r#"42["time",tru]"#, r#"42["note","behind"]"#];
    client.send_all(batch.map(str::to_owned)).await;
    client.expect_end().await;
    let mut written = [lines.next().await, lines.next().await];
    written.sort();
    assert_eq!(written, ["before", "time 1"]);
    lines.expect(["forced close"]).await;
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn urgent_events_overtake_the_others() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let server = Server::start(|root| {
        root.on("slow", move |socket: Socket, ()| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                socket.emit("slow", ()).unwrap();
            }
        })
        .on_urgent("time", |_, (), ack| ack.unwrap().send((7,)).unwrap());
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"42["slow"]"#).await;
    client.send(r#"420["time"]"#).await;
    client.expect(["430[7]"]).await;
    gate.open(1);
    client.expect([r#"42["slow"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn mismatches_reach_their_hook_with_the_ack_and_close_nothing() {
    let server = Server::start(|root| {
        root.on("add", async |_: Socket, _: Args<(u8, u8)>| {}).on_urgent("time", |_, _: u8, _| {}).on_mismatch(
            async |socket: Socket, event, error, ack| match ack {
                Some(ack) => ack.send((event, error.to_string())).unwrap(),
                None => socket.emit("mismatch", (event,)).unwrap(),
            },
        );
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"420["add",1,"SECRET"]"#).await;
    client.expect([r#"430["add","argument 1: invalid type: string, expected u8"]"#]).await;
    client.send(r#"42["add",1]"#).await;
    client.expect([r#"42["mismatch","add"]"#]).await;
    client.send(r#"421["time",[]]"#).await;
    assert!(client.text().await.starts_with(r#"431["time","argument 0: "#));
    server.finish().await;
}

#[tokio::test]
async fn without_hooks_mismatches_and_unknown_events_are_dropped() {
    let server = Server::start(|root| {
        root.on("add", async |_: Socket, _: u8| {});
        fence(root);
    })
    .await;
    let mut client = Client::joined(&server).await;
    for event in [r#"42["add","x"]"#, r#"420["nobody",1]"#, "42", r#"42["fence"]"#] {
        client.send(event).await;
    }
    client.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_fallback_gets_what_has_no_handler() {
    let server = Server::start(|root| {
        root.on("known", async |_: Socket, _: Data| {}).fallback(async |_: Socket, event: Event, ack| {
            ack.map_or(Ok(()), |ack: socketio::Ack| ack.send((event.name(), event.data().json()))).unwrap();
        });
    })
    .await;
    let mut client = Client::joined(&server).await;
    for event in [r#"420["known"]"#, r#"421["other",[1]]"#, "422[7]"] {
        client.send(event).await;
    }
    client.expect([r#"431["other","[\"other\",[1]]"]"#, r#"432["7","[7]"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_panicking_handler_closes_its_client_and_nobody_else() {
    for event in ["panic", "panic-urgent"] {
        let (log, mut lines) = log();
        let server = Server::start(|root| {
            root.on("panic", async |_: Socket, ()| panic!("as told"))
                .on_urgent("panic-urgent", |_, (), _| panic!("too"));
            log_event(root, "note", &log);
            fence(root);
            log_lives(root, &log);
        })
        .await;
        let mut other = Client::joined(&server).await;
        let mut client = Client::joined(&server).await;
        lines.expect(["connected", "connected"]).await;
        // One event behind it comes along, others later, and more than the handlers are given at a time.
        let behind = (0..200).map(|_| r#"42["note","behind"]"#.to_owned());
        client.send_all(std::iter::once(format!(r#"42["{event}"]"#)).chain(behind)).await;
        client.expect_end().await;
        lines.expect(["forced server close"]).await;
        other.send(r#"42["fence"]"#).await;
        other.expect([r#"42["fence"]"#]).await;
        lines.expect_none();
        assert_eq!(server.root().len(), 1);
        server.finish().await;
    }
}

#[tokio::test]
async fn nothing_behind_a_panic_is_handled_from_one_polling_body() {
    let (log, mut lines) = log();
    let builder = Io::builder().config(patient()).namespace("/", |root| {
        root.on_urgent("panic", |_, (), _| panic!("as told"));
        log_event(root, "note", &log);
        log_lives(root, &log);
    });
    let server = Server::with(builder).await;
    let poller = Poller::joined(&server).await;
    poller.post("42[\"panic\"]\x1e42[\"note\",\"behind\"]\x1e40/chat,").await;
    lines.expect(["connected", "forced server close"]).await;
    assert_eq!(poller.get().await, "6\x1e1");
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn a_panic_while_leaving_leaves_nothing_behind() {
    let (log, mut lines) = log();
    let server = Server::start(|root| {
        root.on_connect(async |socket: Socket| socket.join("lobby"))
            .on_disconnecting(|_, _| panic!("disconnecting"))
            .on_disconnect(move |_, _| {
                log.add("left");
                std::future::ready(())
            });
    })
    .await;
    let client = Client::joined(&server).await;
    server.sockets(1).await;
    drop(client);
    lines.expect(["left"]).await;
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn round_trips_are_told_and_a_panic_there_ends_nothing() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut config = config();
    config.engine.ping_interval = Duration::from_millis(10);
    let builder = Io::builder().config(config).namespace("/", |root| {
        root.on_round_trip(move |socket, time| {
            if counted.fetch_add(1, Relaxed) == 0 {
                panic!("at the first");
            }
            socket.emit("took", (time < Duration::from_secs(10),)).unwrap();
        });
    });
    let server = Server::with(builder).await;
    let mut client = Client::open(&server).await;
    client.send("40").await;
    loop {
        match client.receive().await {
            Received::Text(text) if text == "2" => client.send("3").await,
            Received::Text(text) if text.starts_with("40") => {}
            other @ (Received::Text(_) | Received::Binary(_) | Received::End) => {
                assert_eq!(other, Received::Text(r#"42["took",true]"#.to_owned()));
                break;
            }
        }
    }
    assert!(calls.load(Relaxed) >= 2);
    server.finish().await;
}
