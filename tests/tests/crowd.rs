//! A room as large as one may be.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncwatch_tests::{Client, Server, create_room, rest, within};

const CROWD: usize = 1_000;
/// Joins on their way at once.
const AT_ONCE: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_participants_learn_of_each_other_exactly_once() {
    // No heartbeat: a client of this test reads only when it is its turn.
    let mut server = Server::with(&[("WS_PING_INTERVAL", "600000"), ("WS_PING_TIMEOUT", "600000")]).await;
    let room = create_room(&server, "owner", json!({ "maxParticipants": CROWD })).await;
    let code = room["code"].as_str().unwrap().to_owned();
    let begun = Instant::now();

    let mut clients = Vec::with_capacity(CROWD);
    while clients.len() < CROWD {
        let batch = (clients.len()..CROWD.min(clients.len() + AT_ONCE)).map(|number| {
            let (server, code) = (&server, &code);
            async move {
                let mut client = Client::guest(server).await;
                let state = client.join(code, &format!("guest {number}")).await;
                assert_eq!(state["ok"], true, "guest {number}: {state}");
                (client, state)
            }
        });
        clients.extend(futures_util::future::join_all(batch).await);
    }
    println!("{CROWD} joined in {:?}", begun.elapsed());

    // Everyone's place in the order of joins, by the number of people in the `room:state` they got.
    clients.sort_by_key(|(_, state)| participants(state).len());
    let order: Vec<_> = clients.iter().map(|(_, state)| oder_id(&state["self"])).collect();
    let (_, last) = clients.last().unwrap();
    assert_eq!(participants(last).len(), CROWD, "the last one sees everybody");
    let mut late = Client::guest(&server).await;
    assert_eq!(late.join(&code, "late").await["error"]["code"], "ROOM_FULL");

    let rest = rest(&server, "GET", &format!("/api/rooms/{code}"), None, None).await;
    assert_eq!(rest.json()["data"]["participantCount"], CROWD);

    for (place, (client, state)) in clients.iter_mut().enumerate() {
        let present: Vec<_> = participants(state).iter().map(oder_id).collect();
        assert_eq!(present, order[..=place], "room:state of number {place} has all that came before, in their order");
        let mut told = Vec::with_capacity(CROWD);
        while told.len() < CROWD - place - 1 {
            told.push(oder_id(&client.next("room:participant:joined").await["participant"]));
        }
        assert_eq!(told, order[place + 1..], "number {place} is told of each later one, once, in their order");
    }

    // One leaves, everyone else is told; then nothing else has come to anybody.
    let (mut first, _) = clients.remove(0);
    assert_eq!(first.ask("room:leave", json!({})).await["ok"], true);
    for (client, _) in &mut clients {
        let left = client.next("room:participant:left").await;
        assert_eq!(left, json!({ "oderId": order[0], "reason": "leave" }));
        let mut rest = HashMap::new();
        for (event, _) in client.drain() {
            *rest.entry(event).or_insert(0) += 1;
        }
        rest.remove("chat:history");
        assert_eq!(rest, HashMap::from([("room:state".to_owned(), 1)]));
    }
    println!("all was told after {:?}", begun.elapsed());
    drop(clients);
    let status = within(Duration::from_secs(60), "a graceful stop", server.terminate()).await;
    assert!(status.success(), "{status}");
    server.assert_calm(&[]);
}

fn participants(state: &Value) -> &Vec<Value> {
    state["participants"].as_array().expect("a list of participants")
}

fn oder_id(of: &Value) -> String {
    of["oderId"].as_str().expect("an oderId").to_owned()
}
