//! Whose address counts behind a reverse proxy.

use serde_json::json;
use syncwatch_tests::{Client, Server, create_room};

/// Wrong passwords that are tried before more are refused.
const WRONG_PASSWORDS: usize = 30;

/// Has one client try passwords until it is stopped, and answers what a second one is told of its first wrong one.
async fn verdict_on_the_second(server: &Server, first: &str, second: &str) -> String {
    let room = create_room(server, "owner", json!({ "password": "open sesame" })).await;
    let attempt = json!({ "roomCode": room["code"], "password": "open barley", "guestName": "Kassim" });
    let mut guesser = Client::forwarded(server, first).await;
    for _ in 0..WRONG_PASSWORDS {
        assert_eq!(guesser.ask("room:join", attempt.clone()).await["error"]["code"], "INVALID_PASSWORD");
    }
    assert_eq!(guesser.ask("room:join", attempt.clone()).await["error"]["code"], "RATE_LIMIT_EXCEEDED");
    let mut other = Client::forwarded(server, second).await;
    let answer = other.ask("room:join", attempt).await;
    answer["error"]["code"].as_str().expect("a wrong password is refused").to_owned()
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_have_addresses_of_their_own() {
    let server = Server::with(&[("TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.1")]).await;
    assert_eq!(verdict_on_the_second(&server, "192.0.2.1, 10.0.0.1", "192.0.2.2").await, "INVALID_PASSWORD");
    // What a client has written itself stands before what the proxy has.
    assert_eq!(verdict_on_the_second(&server, "192.0.2.1", "198.51.100.7, 192.0.2.1").await, "RATE_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn nobody_is_believed_who_is_not_trusted() {
    let server = Server::with(&[("TRUSTED_PROXIES", "10.0.0.1")]).await;
    assert_eq!(verdict_on_the_second(&server, "192.0.2.1", "192.0.2.2").await, "RATE_LIMIT_EXCEEDED");
}
