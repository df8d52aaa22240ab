//! Answers, both ways, and those that never come.

use std::time::Duration;

use serde_json::{Value, json};
use socketio::server::{AckError, EmitError};
use socketio::{Ack, Args, DataError, Io, Socket, UsageError};

use crate::support::{Client, Gate, Server, config, fence, within};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn clients_get_the_answer_under_their_own_id() {
    let server = Server::start(|root| {
        root.on_ack("add", async |_: Socket, Args((a, b)): Args<(u8, u8)>, ack: Option<Ack>| {
            if let Some(ack) = ack {
                ack.send((a + b,)).unwrap();
            }
        })
        .on_ack("nothing", async |_: Socket, (), ack: Option<Ack>| ack.unwrap().send(()).unwrap())
        .on_ack("forgotten", async |_: Socket, (), _: Option<Ack>| {});
        fence(root);
    })
    .await;
    let mut client = Client::joined(&server).await;
    for event in [r#"420["add",1,2]"#, r#"42["add",1,2]"#, r#"4207["nothing"]"#, r#"425["forgotten"]"#] {
        client.send(event).await;
    }
    client.send(r#"4218446744073709551615["add",1,1]"#).await;
    client.send(r#"42["fence"]"#).await;
    client.expect(["430[3]", "437[]", "4318446744073709551615[2]", r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn an_answer_may_come_long_after_its_handler() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let server = Server::start(|root| {
        root.on_ack("ask", move |_, (), ack: Option<Ack>| {
            let gate = waits.clone();
            drop(tokio::spawn(async move {
                gate.pass().await;
                ack.unwrap().send(("late",)).unwrap();
            }));
            std::future::ready(())
        });
        fence(root);
    })
    .await;
    let mut client = Client::joined(&server).await;
    client.send(r#"420["ask"]"#).await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    gate.open(1);
    client.expect([r#"430["late"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn the_server_asks_and_is_answered() {
    let server = Server::start(fence).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let asking = tokio::spawn({
        let socket = socket.clone();
        async move { socket.emit_with_ack::<Args<(u8, Value)>>("who", (1,), LONG).await }
    });
    client.expect([r#"420["who",1]"#]).await;
    // Not ours, and not yet: ignored.
    client.send("431[0]").await;
    client.send("43[0]").await;
    client.send(r#"430[7,{"a":1}]"#).await;
    client.send("430[8,null]").await;
    let Args((number, value)) = within("the answer", asking).await.unwrap().unwrap();
    assert_eq!((number, value), (7, json!({"a": 1})));
    let asking = tokio::spawn(async move { socket.emit_with_ack::<u8>("who", (), LONG).await });
    client.expect([r#"421["who"]"#]).await;
    client.send(r#"431["text"]"#).await;
    let error = within("the answer", asking).await.unwrap().unwrap_err();
    assert!(matches!(error, AckError::Mismatch(DataError::Mismatch { argument: 0, .. })), "{error:?}");
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_expires_and_is_ignored_afterwards() {
    let server = Server::start(fence).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let (first, second) = within("both", async {
        tokio::join!(socket.emit_with_ack::<u8>("a", (), SHORT), socket.emit_with_ack::<u8>("b", (), Duration::ZERO))
    })
    .await;
    assert_eq!((first, second), (Err(AckError::Timeout), Err(AckError::Timeout)));
    client.expect([r#"420["a"]"#, r#"421["b"]"#]).await;
    client.send("430[1]").await;
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
    drop(socket);
    server.finish().await;
}

#[tokio::test]
async fn whoever_waits_for_a_client_that_leaves_is_told() {
    for goodbye in ["41", "1", "44{}"] {
        let server = Server::start(|_| {}).await;
        let mut client = Client::joined(&server).await;
        let socket = server.sockets(1).await.remove(0);
        let asking = tokio::spawn({
            let socket = socket.clone();
            async move { socket.emit_with_ack::<u8>("who", (), LONG).await }
        });
        client.expect([r#"420["who"]"#]).await;
        client.send(goodbye).await;
        assert_eq!(within("the end", asking).await.unwrap(), Err(AckError::Disconnected), "{goodbye}");
        server.emptied().await;
        let late = socket.emit_with_ack::<u8>("late", (), LONG).await;
        assert_eq!(late, Err(AckError::Emit(EmitError::Closed)));
        drop(socket);
        server.finish().await;
    }
}

#[tokio::test]
async fn more_questions_than_allowed_expire_at_once() {
    let mut config = config();
    config.connection.max_acks = 1;
    let server = Server::with(Io::builder().config(config).namespace("/", |_| {})).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let asking = tokio::spawn({
        let socket = socket.clone();
        async move { socket.emit_with_ack::<u8>("first", (), LONG).await }
    });
    client.expect([r#"420["first"]"#]).await;
    assert_eq!(within("the second", socket.emit_with_ack::<u8>("second", (), LONG)).await, Err(AckError::Timeout));
    client.expect([r#"421["second"]"#]).await;
    client.send("430[1]").await;
    assert_eq!(within("the first", asking).await.unwrap(), Ok(1));
    server.finish().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error_of_its_sender() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let reserved = EmitError::Usage(UsageError::ReservedEvent);
    assert_eq!(socket.emit("disconnect", ()), Err(reserved.clone()));
    assert_eq!(socket.emit_with_ack::<u8>("connect", (), LONG).await, Err(AckError::Emit(reserved)));
    assert_eq!(server.root().emit("connect_error", ()), Err(UsageError::ReservedEvent));
    let unserializable = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(matches!(server.root().emit("map", (unserializable,)), Err(UsageError::Serialize(_))));
    socket.emit("fine", ()).unwrap();
    client.expect([r#"42["fine"]"#]).await;
    server.finish().await;
}
