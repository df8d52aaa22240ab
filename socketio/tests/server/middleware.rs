//! Who may join: checks that wait, refuse, panic, or are not needed any more.

use std::sync::Mutex;
use std::time::Duration;

use socketio::server::{AckError, Refusal};
use socketio::{Io, Socket};

use crate::support::{Client, Gate, OnDrop, Poller, Received, Server, config, fence, log, log_lives, patient, until};

#[derive(Clone)]
struct Steps(&'static str);

#[tokio::test]
async fn checks_run_in_order_and_hand_on_what_they_found() {
    let server = Server::start(|root| {
        root.middleware(async |socket: Socket| {
            tokio::task::yield_now().await;
            socket.insert(Steps("first"));
            Ok(())
        })
        .middleware(async |socket: Socket| {
            assert!(!socket.is_connected());
            let Steps(first) = socket.value().unwrap();
            assert_eq!(first, "first");
            socket.insert(Steps("second"));
            Ok(())
        })
        .on_connect(async |socket: Socket| {
            assert!(socket.is_connected());
            let Steps(last) = socket.value().unwrap();
            socket.emit("last", (last,)).unwrap();
        });
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.expect([r#"42["last","second"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_first_refusal_counts_and_the_client_may_try_again() {
    let (log, mut lines) = log();
    let lives = log.clone();
    let server = Server::start(|root| {
        root.middleware(async |socket: Socket| {
            if socket.auth::<serde_json::Value>().unwrap().get("token").is_some() {
                return Ok(());
            }
            Err(Refusal::new("no token").with_data(&[1, 2]).unwrap())
        })
        .middleware(move |_| {
            log.add("second check");
            std::future::ready(Ok(()))
        });
        log_lives(root, &lives);
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send("40").await;
    client.expect([r#"44{"message":"no token","data":[1,2]}"#]).await;
    lines.expect_none();
    client.send(r#"40{"token":1}"#).await;
    assert!(client.text().await.starts_with("40{"));
    lines.expect(["second check", "connected"]).await;
    drop(client);
    lines.expect(["transport close"]).await;
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn a_check_that_panics_refuses_its_client_and_nobody_else() {
    let builder = Io::builder()
        .config(config())
        .namespace("/", fence)
        .namespace("/chat", |chat| {
            chat.middleware(async |_: Socket| panic!("at the first poll"));
        })
        .namespace("/sync", |chat| {
            chat.middleware(async |_: Socket| Ok(())).middleware(|_| -> std::future::Ready<_> { panic!("at once") });
        });
    let server = Server::with(builder).await;
    let mut client = Client::joined(&server).await;
    client.send("40/chat,").await;
    client.expect([r#"44/chat,{"message":"Internal error"}"#]).await;
    client.send("40/sync,").await;
    client.expect([r#"44/sync,{"message":"Internal error"}"#]).await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_check_ends_where_it_waits_when_its_client_goes() {
    let (log, mut lines) = log();
    let lives = log.clone();
    let server = Server::start(|root| {
        root.middleware(move |socket: Socket| {
            let log = log.clone();
            async move {
                let _dropped = OnDrop(log.clone(), "dropped");
                socket.join("lobby");
                log.add("waits");
                std::future::pending().await
            }
        });
        log_lives(root, &lives);
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send("40").await;
    lines.expect(["waits"]).await;
    assert_eq!(server.root().rooms(), 1);
    assert!(server.root().to("lobby").sockets().is_empty(), "not connected yet");
    drop(client);
    lines.expect(["dropped"]).await;
    server.emptied().await;
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn a_second_connect_meanwhile_closes_the_connection() {
    let (log, mut lines) = log();
    let lives = log.clone();
    let server = Server::start(|root| {
        root.middleware(move |_| {
            let dropped = OnDrop(log.clone(), "dropped");
            async move {
                let _dropped = dropped;
                std::future::pending().await
            }
        });
        log_lives(root, &lives);
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send_all(["40".to_owned(), "40".to_owned()]).await;
    client.expect_end().await;
    lines.expect(["dropped"]).await;
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn what_a_check_emits_comes_before_its_answer() {
    let server = Server::start(|root| {
        root.middleware(async |socket: Socket| {
            socket.emit("early", (1,)).unwrap();
            if socket.auth::<serde_json::Value>().unwrap().get("no").is_some() {
                return Err(Refusal::new("no"));
            }
            Ok(())
        });
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send(r#"40{"no":1}"#).await;
    client.expect([r#"42["early",1]"#, r#"44{"message":"no"}"#]).await;
    client.send("40").await;
    client.expect([r#"42["early",1]"#]).await;
    assert!(client.text().await.starts_with("40{"));
    server.finish().await;
}

#[tokio::test]
async fn a_slow_check_holds_up_no_other_namespace() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let builder = Io::builder().config(config()).namespace("/", fence).namespace("/chat", |chat| {
        chat.middleware(move |_| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                Ok(())
            }
        });
    });
    let server = Server::with(builder).await;
    let mut client = Client::open(&server).await;
    client.send("40/chat,").await;
    client.join("/").await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    gate.open(1);
    assert!(client.text().await.starts_with("40/chat,{"));
    server.finish().await;
}

#[tokio::test]
async fn rooms_joined_in_a_check_count_from_connect_on_and_go_with_a_refusal() {
    let server = Server::start(|root| {
        root.middleware(async |socket: Socket| {
            socket.join("lobby");
            socket.namespace().to("lobby").emit("too early", ()).unwrap();
            let refused = socket.auth::<serde_json::Value>().unwrap().get("no").is_some();
            if refused { Err(Refusal::new("no")) } else { Ok(()) }
        });
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send(r#"40{"no":1}"#).await;
    client.expect([r#"44{"message":"no"}"#]).await;
    server.emptied().await;
    client.join("/").await;
    server.root().to("lobby").emit("now", ()).unwrap();
    client.expect([r#"42["now"]"#]).await;
    drop(client);
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn an_ack_asked_of_a_socket_that_is_refused_is_given_up() {
    let (log, mut lines) = log();
    let server = Server::start(|root| {
        root.middleware(move |socket: Socket| {
            let log = log.clone();
            async move {
                let asked = socket.clone();
                let asking = tokio::spawn(async move {
                    let answer = asked.emit_with_ack::<u8>("who", (), Duration::from_secs(3600)).await;
                    assert_eq!(answer, Err(AckError::Disconnected));
                    log.add("given up");
                });
                tokio::task::yield_now().await;
                drop(asking);
                Err(Refusal::new("no"))
            }
        });
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send("40").await;
    client.expect([r#"42["who"]"#.replace("42", "420").as_str(), r#"44{"message":"no"}"#]).await;
    lines.expect(["given up"]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_check_that_ends_after_its_connection_was_closed_joins_nothing() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let kept: &'static Mutex<Option<Socket>> = Box::leak(Box::default());
    let (log, mut lines) = log();
    let lives = log.clone();
    let builder = Io::builder()
        .config(patient())
        .namespace("/", |root| {
            root.on("panic", async |_: Socket, ()| panic!("as told"));
        })
        .namespace("/chat", |chat| {
            chat.middleware(move |socket: Socket| {
                let gate = waits.clone();
                *kept.lock().unwrap() = Some(socket);
                async move {
                    gate.pass().await;
                    Ok(())
                }
            });
            log_lives(chat, &lives);
        });
    let server = Server::with(builder).await;
    // Polling, and no poll waits: the session lingers until one comes.
    let poller = Poller::joined(&server).await;
    poller.post("40/chat,").await;
    until("the check to begin", || kept.lock().unwrap().is_some()).await;
    poller.post(r#"42["panic"]"#).await;
    server.emptied().await;
    gate.open(1);
    assert_eq!(poller.get().await, "6\x1e1");
    let socket = kept.lock().unwrap().take().unwrap();
    assert!(!socket.is_connected());
    socket.join("late");
    assert_eq!(server.io.of("/chat").unwrap().rooms(), 0);
    server.finish().await;
    lines.expect_none();
}

#[tokio::test]
async fn a_socket_may_be_disconnected_by_its_own_check() {
    let server = Server::start(|root| {
        root.middleware(async |socket: Socket| {
            socket.disconnect(true);
            Ok(())
        });
    })
    .await;
    let mut client = Client::open(&server).await;
    client.send("40").await;
    client.expect(["41"]).await;
    assert_eq!(client.receive().await, Received::End);
    server.finish().await;
}
