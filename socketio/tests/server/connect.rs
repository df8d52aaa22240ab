//! Joining namespaces: the answers, credentials, and what is kept of the handshake.

use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use socketio::server::BuildError;
use socketio::{Io, Socket};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{client_async, tungstenite};

use crate::support::{Client, Poller, Received, Server, config, fence, log, log_lives};

#[tokio::test]
async fn connect_is_answered_before_what_the_handler_emits() {
    let server = Server::start(|root| {
        root.on_connect(async |socket: Socket| {
            socket.emit("hello", (1,)).unwrap();
            socket.namespace().emit("someone", ()).unwrap();
        });
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.expect([r#"42["hello",1]"#, r#"42["someone"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_polling_client_finds_the_answer_and_the_event_in_one_body() {
    let server = Server::start(|root| {
        root.on_connect(async |socket: Socket| socket.emit("hello", ()).unwrap());
    })
    .await;
    let poller = Poller::open(&server).await;
    poller.post("40").await;
    let mut body = poller.get().await;
    if !body.contains('\x1e') {
        body = format!("{body}\x1e{}", poller.get().await);
    }
    let (connect, event) = body.split_once('\x1e').unwrap();
    assert!(connect.starts_with(r#"40{"sid":""#), "{connect}");
    assert_eq!(event, r#"42["hello"]"#);
    server.finish().await;
}

#[tokio::test]
async fn an_unknown_namespace_is_refused_and_the_connection_stays() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::open(&server).await;
    client.send("40/random,").await;
    client.expect([r#"44/random,{"message":"Invalid namespace"}"#]).await;
    client.send("40/?x=1,").await;
    client.expect([r#"44/?x=1,{"message":"Invalid namespace"}"#]).await;
    client.join("/").await;
    server.finish().await;
}

#[tokio::test]
async fn credentials_reach_the_handlers_and_default_to_an_empty_object() {
    #[derive(Deserialize)]
    struct Auth {
        token: Option<String>,
    }
    let server = Server::start(|root| {
        root.on_connect(async |socket: Socket| {
            let Auth { token } = socket.auth().unwrap();
            assert!(socket.auth::<u8>().is_err());
            socket.emit("token", (token,)).unwrap();
        });
    })
    .await;
    for (connect, token) in [("40", "null"), ("40{}", "null"), (r#"40{"token":"t"}"#, r#""t""#)] {
        let mut client = Client::open(&server).await;
        client.send(connect).await;
        assert!(client.text().await.starts_with("40{"));
        assert_eq!(client.text().await, format!(r#"42["token",{token}]"#));
    }
    server.finish().await;
}

#[tokio::test]
async fn public_ids_are_new_each_time_and_never_that_of_the_session() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::open(&server).await;
    let first = client.join("/").await;
    client.send("41").await;
    let second = client.join("/").await;
    assert_eq!((first.len(), second.len()), (20, 20));
    assert_ne!(first, second);
    assert!(![first, second].contains(&client.session));
    server.finish().await;
}

#[tokio::test]
async fn one_client_is_in_several_namespaces_at_a_time() {
    let builder = Io::builder().config(config()).namespace("/", fence).namespace("/chat", fence);
    let server = Server::with(builder).await;
    let mut client = Client::joined(&server).await;
    client.join("/chat").await;
    client.send(r#"42/chat,["fence"]"#).await;
    client.expect([r#"42/chat,["fence"]"#]).await;
    client.send("41/chat,").await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    assert!(server.io.of("/chat").unwrap().is_empty());
    server.finish().await;
}

#[tokio::test]
async fn only_the_headers_named_are_kept() {
    let config = {
        let mut config = config();
        config.kept_headers = vec![http::header::HOST];
        config
    };
    let server = Server::with(Io::builder().config(config).namespace("/", |_| {})).await;
    let _client = Client::joined(&server).await;
    let sockets = server.sockets(1).await;
    let handshake = sockets[0].handshake();
    assert_eq!(handshake.headers.keys().collect::<Vec<_>>(), [http::header::HOST]);
    assert!(handshake.address.ip().is_loopback());
    drop(sockets);
    server.finish().await;
}

#[tokio::test]
async fn a_client_that_joins_nothing_in_time_is_closed() {
    let (log, mut lines) = log();
    let mut config = config();
    config.connection.connect_timeout = Duration::from_millis(50);
    let server = Server::with(Io::builder().config(config).namespace("/", |root| log_lives(root, &log))).await;
    let mut client = Client::open(&server).await;
    client.send("40/random,").await;
    assert_eq!(client.text().await, r#"44/random,{"message":"Invalid namespace"}"#);
    client.expect_end().await;
    lines.expect_none();
    server.finish().await;
}

#[tokio::test]
async fn events_before_connect_close_the_connection() {
    for packet in [r#"42["e"]"#, r#"42/chat,["e"]"#, "41", r#"451-["e",{"_placeholder":true,"num":0}]"#, "43[]", "44{}"]
    {
        let server = Server::start(|_| {}).await;
        let mut client = Client::open(&server).await;
        client.send(packet).await;
        assert_eq!(client.receive().await, Received::End, "{packet}");
        server.finish().await;
    }
}

#[test]
fn wrong_registrations_are_told_apart() {
    type Register = fn(&mut socketio::server::NamespaceBuilder);
    let on: Register = |root| {
        root.on("e", async |_: Socket, ()| {}).on("e", async |_: Socket, ()| {});
    };
    let urgent: Register = |root| {
        root.on_urgent("e", |_, (), _| {}).on_ack("e", async |_: Socket, (), _| {}).on("f", async |_: Socket, ()| {});
    };
    let reserved: Register = |root| {
        root.on("connect", async |_: Socket, ()| {});
    };
    for (register, error) in [
        (on, BuildError::Twice("e".into())),
        (urgent, BuildError::Twice("e".into())),
        (reserved, BuildError::Reserved("connect".into())),
    ] {
        assert_eq!(Io::builder().config(config()).namespace("/", register).build().err(), Some(error));
    }
    for name in ["", "chat", "/a,b"] {
        let built = Io::builder().config(config()).namespace(name, |_| {}).build();
        assert_eq!(built.err(), Some(BuildError::NamespaceName(name.to_owned())));
    }
    let built = Io::builder().config(config()).namespace("/", |_| {}).namespace("/", |_| {}).build();
    assert_eq!(built.err(), Some(BuildError::Twice("/".to_owned())));
}

#[tokio::test]
async fn the_application_chooses_a_subprotocol() {
    let builder = || Io::builder().config(config()).namespace("/", |_| {});
    let default = Server::with(builder()).await;
    let choosing = Server::with(builder().choose_subprotocol(|request, offered| {
        let wanted = request.headers.get("x-wanted")?.to_str().ok()?;
        offered.iter().copied().find(|name| *name == wanted)
    }))
    .await;
    for (server, wanted, chosen) in [(&default, "b", Some("a")), (&choosing, "b", Some("b")), (&choosing, "c", None)] {
        let mut request =
            format!("ws://{}/socket.io/?EIO=4&transport=websocket", server.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("a, b"));
        request.headers_mut().insert("x-wanted", HeaderValue::from_static(wanted));
        let stream = TcpStream::connect(server.address).await.unwrap();
        let answer = match client_async(request, stream).await {
            Ok((_, response)) => response.headers().get("sec-websocket-protocol").cloned(),
            // A client that offered some and got none gives up.
            Err(tungstenite::Error::Protocol(_)) => None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(answer, chosen.map(HeaderValue::from_static), "{wanted}");
    }
    default.finish().await;
    choosing.finish().await;
}
