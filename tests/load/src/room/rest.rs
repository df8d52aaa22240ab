//! Creating rooms over REST.

use std::io;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Target, unexpected};

/// A room, and what makes its bearer the owner.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) code: String,
    pub(super) token: String,
}

/// Creates a room with this many seats.
pub(super) async fn create(target: &Target, seats: usize, number: usize) -> io::Result<Room> {
    // The contract has no room for one.
    let body = format!("{{\"maxParticipants\":{}}}", seats.max(2));
    let mut stream = target.connect(number).await?;
    // In HTTP/1.0 the answer ends with the connection.
    let request = format!(
        "POST /api/rooms HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        target.address,
        body.len(),
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let Ok(Created { data, token }) = serde_json::from_str(body) else {
        return Err(unexpected(format!("creating a room was answered with {answer}")));
    };
    Ok(Room { code: data.code, token })
}

#[derive(Deserialize)]
struct Created {
    data: Data,
    token: String,
}

#[derive(Deserialize)]
struct Data {
    code: String,
}
