//! What outlives the process.

use serde_json::json;
use syncwatch_tests::{Client, Server, create_room, delete_room, rest, until};

const GRACE_MS: &str = "2000";

#[tokio::test]
async fn a_killed_server_comes_back_with_its_rooms_and_seats() {
    let mut server = Server::with(&[("RECONNECT_GRACE_MS", GRACE_MS)]).await;
    let room = create_room(&server, "owner", json!({ "name": "survivor", "maxParticipants": 2 })).await;
    let code = room["code"].as_str().unwrap().to_owned();
    let mut stays = Client::guest(&server).await;
    let seat = stays.join(&code, "stays").await["self"].clone();
    let mut ghost = Client::guest(&server).await;
    assert_eq!(ghost.join(&code, "ghost").await["ok"], true);
    server.kill_hard().await;
    server.restart().await;

    let mut back = Client::guest(&server).await;
    let token = &seat["resumeToken"];
    let state = back.ask("room:join", json!({ "roomCode": code, "guestName": "stays", "resumeToken": token })).await;
    assert_eq!(state["ok"], true, "{state}");
    assert_eq!(state["self"]["oderId"], seat["oderId"]);
    assert_eq!(state["room"]["name"], "survivor");
    until(std::time::Duration::from_secs(20), "the seat of the ghost is free", || async {
        let answer = rest(&server, "GET", &format!("/api/rooms/{code}"), None, None).await;
        answer.json()["data"]["participantCount"] == 1
    })
    .await;
    let mut late = Client::guest(&server).await;
    assert_eq!(late.join(&code, "late").await["ok"], true);
    server.assert_calm(&[token.as_str().unwrap(), &stays.sid, &back.sid]);
}

#[tokio::test]
async fn a_deleted_room_stays_deleted() {
    let mut server = Server::start().await;
    let room = create_room(&server, "owner", json!({})).await;
    assert_eq!(delete_room(&server, "owner", &room).await.status, 200);
    server.kill_hard().await;
    server.restart().await;
    let path = format!("/api/rooms/{}", room["code"].as_str().unwrap());
    assert_eq!(rest(&server, "GET", &path, None, None).await.status, 404);
}

#[tokio::test]
async fn being_killed_again_and_again_loses_no_room() {
    let mut server = Server::start().await;
    let mut codes = Vec::new();
    for round in 0..5 {
        for _ in 0..10 {
            let room = create_room(&server, "owner", json!({ "name": format!("round {round}") })).await;
            codes.push(room["code"].as_str().unwrap().to_owned());
        }
        server.kill_hard().await;
        server.restart().await;
    }
    for code in codes {
        assert_eq!(rest(&server, "GET", &format!("/api/rooms/{code}"), None, None).await.status, 200, "{code}");
    }
    server.assert_calm(&[]);
}
