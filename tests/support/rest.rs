//! The REST API, over the raw client.

use serde_json::{Value, json};

use crate::{Raw, Response, Server, user_token};

/// One call: method, path, bearer token and JSON body.
pub async fn rest(server: &Server, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Response {
    let body = body.map(Value::to_string).unwrap_or_default();
    let auth = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let mut raw = Raw::connect(server.addr()).await;
    raw.write(
        format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{auth}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            server.addr(),
            body.len()
        )
        .as_bytes(),
    )
    .await;
    raw.response().await
}

/// Makes a room of `owner` and answers it.
///
/// # Panics
/// When the server makes none.
pub async fn create_room(server: &Server, owner: &str, body: Value) -> Value {
    let answer = rest(server, "POST", "/api/rooms", Some(&user_token(owner)), Some(&body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let room = answer.json()["data"].clone();
    assert!(room["code"].is_string(), "a room has a code: {room}");
    room
}

/// Deletes a room of `owner`.
pub async fn delete_room(server: &Server, owner: &str, room: &Value) -> Response {
    let path = format!("/api/rooms/{}", room["code"].as_str().expect("a room has a code"));
    rest(server, "DELETE", &path, Some(&user_token(owner)), Some(&json!({}))).await
}
