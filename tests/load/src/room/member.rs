//! A client of the `/sync` namespace.

use std::io;

use serde::Deserialize;
use serde_json::json;

use crate::client::{Connection, Packet, Target, unexpected};

/// Who joins which room.
#[derive(Debug, Clone)]
pub struct Person {
    /// The number among all, which chooses the address it comes from.
    pub number: usize,
    /// The room, among all rooms.
    pub room: usize,
    /// The room's code.
    pub code: String,
    /// What makes it the room's owner; others are guests.
    pub token: Option<String>,
}

/// A connection that has joined the namespace.
#[derive(Debug)]
pub struct Member {
    connection: Connection,
    next_id: u64,
}

/// What an ack says.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    pub error: Option<Refusal>,
    /// The seat that a join has brought.
    #[serde(rename = "self")]
    pub seat: Option<Seat>,
}

/// Why something was not done.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: String,
    /// When another try may succeed.
    pub retry_after_ms: Option<u64>,
}

/// A seat in a room.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seat {
    /// The name others know it by; a resume keeps it.
    pub oder_id: String,
    /// What brings the seat back.
    pub resume_token: String,
}

impl Person {
    /// Connects.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn connect(&self, target: &Target) -> io::Result<Member> {
        let auth = self.token.as_ref().map(|token| json!({ "token": token }).to_string()).unwrap_or_default();
        let connection = Connection::open(target, &auth, self.number).await?;
        Ok(Member { connection, next_id: 0 })
    }

    /// The payload of `room:join`, for the seat that the resume token brings back, if there is one.
    pub fn join(&self, resume_token: Option<&str>) -> String {
        let name = format!("Guest {}", self.number);
        let mut payload = json!({ "roomCode": self.code, "guestName": name });
        if let Some(token) = resume_token {
            payload["resumeToken"] = token.into();
        }
        payload.to_string()
    }
}

impl Member {
    /// Sends an event and waits for its ack; events that come before it go to `heard`.
    ///
    /// # Errors
    /// The connection is broken, or the ack not what the contract says.
    pub async fn ask(&mut self, event: &str, payload: &str, mut heard: impl FnMut(&[u8])) -> io::Result<Answer> {
        let asked = self.next_id;
        self.next_id += 1;
        self.connection.push(format_args!("42/sync,{asked}[\"{event}\",{payload}]"));
        loop {
            let packet = self.connection.next().await?;
            let parsed = Packet::parse(packet);
            if let Packet::Event { data, .. } = parsed {
                heard(data);
            } else if let Packet::Ack { id, data } = parsed
                && id == asked
            {
                let (answer,) = serde_json::from_slice(data)?;
                return Ok(answer);
            } else {
                return Err(unexpected(format!("waiting for an ack: {}", String::from_utf8_lossy(packet))));
            }
        }
    }

    /// Sends an event with the next [`next`](Self::next).
    pub fn tell(&mut self, event: &str, payload: &str) {
        self.connection.push(format_args!("42/sync,[\"{event}\",{payload}]"));
    }

    /// Writes what is to be sent, and waits for the next event: an array of name and payload. Nothing is lost if this is
    /// given up and called again.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn next(&mut self) -> io::Result<&[u8]> {
        let packet = self.connection.next().await?;
        let Packet::Event { data, .. } = Packet::parse(packet) else {
            return Err(unexpected(format!("waiting for an event: {}", String::from_utf8_lossy(packet))));
        };
        Ok(data)
    }

    /// Closes the connection on purpose.
    ///
    /// # Errors
    /// The server does not end it.
    pub async fn close(self) -> io::Result<()> {
        self.connection.close().await
    }
}

/// Whether an event has this name.
pub fn is_named(data: &[u8], name: &str) -> bool {
    let rest = data.strip_prefix(b"[\"").and_then(|rest| rest.strip_prefix(name.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_their_whole_name() {
        let event = b"[\"room:participant:joined\",{}]";
        assert!(is_named(event, "room:participant:joined"));
        assert!(!is_named(event, "room:participant"));
        assert!(!is_named(event, "room:participant:left"));
    }
}
