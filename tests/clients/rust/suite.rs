//! The published Rust client, `rust_socketio`, against the real binary.
#![cfg(test)]

use std::time::Duration;

use futures_util::FutureExt;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Event, Payload, TransportType};
use serde_json::{Value, json};
use syncwatch_tests::{SOON, Server, create_room, user_token, within};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A client of `/sync` and what it was told.
struct Guest {
    client: Client,
    events: UnboundedReceiver<(String, Value)>,
}

impl Guest {
    async fn connect(server: &Server, transport: TransportType, auth: Value) -> Self {
        let (sender, events) = unbounded_channel();
        let connected = sender.clone();
        let client = ClientBuilder::new(format!("http://{}/", server.addr()))
            .namespace("/sync")
            .transport_type(transport)
            .auth(auth)
            .reconnect(false)
            .on_any(move |event, payload, _| {
                let told = (String::from(event), first(payload));
                let _ = sender.send(told);
                async {}.boxed()
            })
            .on(Event::Connect, move |_, _| {
                let _ = connected.send(("open".to_owned(), Value::Null));
                async {}.boxed()
            })
            .connect();
        let client = within(SOON, "a connection", client).await.unwrap();
        let mut guest = Self { client, events };
        guest.next("open").await;
        guest
    }

    /// Emits and answers the acknowledgement.
    async fn ask(&self, event: &str, payload: Value) -> Value {
        let (sender, mut answer) = unbounded_channel();
        let ack = move |payload: Payload, _: Client| {
            let _ = sender.send(first(payload));
            async {}.boxed()
        };
        self.client.emit_with_ack(event, payload, SOON, ack).await.unwrap();
        let answer = within(SOON, event, answer.recv()).await.unwrap();
        // This client hands over the arguments of an ack as one array.
        answer.as_array().map_or(answer.clone(), |arguments| arguments[0].clone())
    }

    /// The next `event`; others are passed over.
    async fn next(&mut self, event: &str) -> Value {
        let wait = async {
            loop {
                let (name, payload) = self.events.recv().await.expect("the client lives");
                if name == event {
                    return payload;
                }
            }
        };
        within(SOON, event, wait).await
    }
}

fn first(payload: Payload) -> Value {
    match payload {
        Payload::Text(mut values) if !values.is_empty() => values.remove(0),
        _ => Value::Null,
    }
}

async fn room_with_guest(transport: fn() -> TransportType) {
    let mut server = Server::start().await;
    let room = create_room(&server, "owner", json!({ "name": "Film night" })).await;
    let mut owner = Guest::connect(&server, transport(), json!({ "token": user_token("owner") })).await;
    let joined = owner.ask("room:join", json!({ "roomCode": room["code"] })).await;
    assert_eq!(joined["ok"], true, "{joined}");
    assert_eq!(joined["participants"][0]["role"], "owner");

    let mut guest = Guest::connect(&server, transport(), json!({})).await;
    let refused = guest.ask("room:join", json!({ "roomCode": "ZZZZ9999", "guestName": "Ann" })).await;
    assert_eq!(refused["error"]["code"], "ROOM_NOT_FOUND", "{refused}");
    assert_eq!(guest.next("room:error").await["code"], "ROOM_NOT_FOUND");

    let joined = guest.ask("room:join", json!({ "roomCode": room["code"], "guestName": "Ann" })).await;
    assert_eq!(joined["ok"], true, "{joined}");
    let state = guest.next("room:state").await;
    assert_eq!(state["room"]["name"], "Film night");
    assert_eq!(state["self"], joined["self"]);
    assert_eq!(state["participants"].as_array().unwrap().len(), 2);
    let told = owner.next("room:participant:joined").await;
    assert_eq!(told["participant"], state["participants"][1]);

    let source = owner.ask("sync:source", json!({ "sourceType": "youtube", "sourceId": "x" })).await;
    assert_eq!(source["ok"], true, "{source}");
    assert_eq!(guest.next("sync:state").await["state"]["sourceId"], "x");
    assert_eq!(owner.ask("sync:play", json!({})).await["ok"], true);
    assert_eq!(guest.next("sync:command").await["command"]["type"], "PLAY");
    assert_eq!(guest.ask("sync:pause", json!({})).await["error"]["code"], "UNAUTHORIZED");

    let pong = guest.ask("time:ping", json!({ "clientTime": 5 })).await;
    assert_eq!(pong["clientTime"], 5, "{pong}");

    assert_eq!(guest.ask("room:leave", json!({})).await["ok"], true);
    let left = owner.next("room:participant:left").await;
    assert_eq!(left, json!({ "oderId": state["self"]["oderId"], "reason": "leave" }));

    let again = guest.ask("room:join", json!({ "roomCode": room["code"], "guestName": "Ann" })).await;
    guest.client.disconnect().await.unwrap();
    let left = owner.next("room:participant:left").await;
    assert_eq!(left, json!({ "oderId": again["self"]["oderId"], "reason": "disconnect" }));
    owner.client.disconnect().await.unwrap();

    let status = within(Duration::from_secs(30), "a graceful stop", server.terminate()).await;
    assert!(status.success(), "{status}");
    server.assert_calm(&[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_websocket() {
    room_with_guest(|| TransportType::Websocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_polling() {
    room_with_guest(|| TransportType::Polling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_polling_with_upgrade() {
    room_with_guest(|| TransportType::WebsocketUpgrade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_is_told() {
    let server = Server::start().await;
    let (sender, mut errors) = unbounded_channel();
    let client = ClientBuilder::new(format!("http://{}/", server.addr()))
        .namespace("/sync")
        .auth(json!({ "token": "nonsense" }))
        .reconnect(false)
        .on(Event::Error, move |payload, _| {
            let _ = sender.send(format!("{payload:?}"));
            async {}.boxed()
        })
        .connect()
        .await;
    match client {
        Err(_) => {}
        Ok(_) => assert!(within(SOON, "an error", errors.recv()).await.unwrap().contains("INVALID_TOKEN")),
    }
}
