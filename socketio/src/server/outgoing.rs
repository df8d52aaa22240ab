//! A packet encoded once, for any number of recipients.

use std::sync::Arc;

use bytes::Bytes;
use engineio::Frame;
use tokio::runtime::Handle;

use super::client::Mail;
use crate::encoder::encode_forwarded;
use crate::{Arguments, Event, UsageError, encode_ack, encode_event};

/// A packet in its wire form, for any number of recipients: a text frame and the frames of its attachments. A clone
/// costs a reference count or two.
#[derive(Clone, Debug)]
pub struct Outgoing {
    text: Frame,
    attachments: Option<Arc<[Frame]>>,
}

/// What most packets fit into, header included.
const USUAL_BYTES: usize = 118;

impl Outgoing {
    pub(super) fn event(
        namespace: &str,
        ack_id: Option<u64>,
        name: &str,
        arguments: impl Arguments,
    ) -> Result<Self, UsageError> {
        Self::encode(|out| encode_event(out, namespace, ack_id, name, arguments))
    }

    /// Encodes an event that came from elsewhere, the name in its array.
    ///
    /// # Errors
    /// [`UsageError`] for data that is no event: without a name, under a reserved one, or not JSON at all.
    pub fn forward(namespace: &str, ack_id: Option<u64>, event: Event) -> Result<Self, UsageError> {
        Self::encode(|out| encode_forwarded(out, namespace, ack_id, &event))
    }

    /// Returns an event's array as text: its name, then its arguments, where each `{"_placeholder":true,"num":n}` of a
    /// packet with attachments stands for the n-th.
    #[must_use]
    pub fn json(&self) -> &str {
        let packet = str::from_utf8(self.text.data()).unwrap_or_default();
        // `4`, the type, and the number of attachments.
        let rest = packet.get(2..).unwrap_or_default();
        let rest = if self.attachments.is_some() { after(rest, '-') } else { rest };
        let rest = if rest.starts_with('/') { after(rest, ',') } else { rest };
        rest.trim_start_matches(|digit: char| digit.is_ascii_digit())
    }

    /// Returns the attachments, in the order of their `num`.
    pub fn attachments(&self) -> impl Iterator<Item = &[u8]> {
        self.attachments.iter().flat_map(|frames| frames.iter()).map(Frame::data)
    }

    /// Tells whether the last in an event's array is a text, be it the event's name.
    pub(super) fn ends_with_text(&self) -> bool {
        self.text.data().ends_with(b"\"]")
    }

    /// Returns the same event with one more argument behind the others: where it stands among all events of its
    /// namespace, which clients send back when they return.
    #[must_use]
    pub fn with_offset(&self, offset: &str) -> Self {
        let packet = self.text.data();
        let packet = packet.get(1..packet.len().saturating_sub(1)).unwrap_or_default();
        let text = Frame::text_with(packet.len() + offset.len() + 4, |out| {
            out.extend_from_slice(packet);
            out.push(b',');
            out.extend_from_slice(serde_json::Value::from(offset).to_string().as_bytes());
            out.push(b']');
        });
        Self { text, attachments: self.attachments.clone() }
    }

    pub(super) fn ack(namespace: &str, id: u64, arguments: impl Arguments) -> Result<Self, UsageError> {
        Self::encode(|out| encode_ack(out, namespace, id, arguments))
    }

    fn encode(encode: impl FnOnce(&mut Vec<u8>) -> Result<Vec<Bytes>, UsageError>) -> Result<Self, UsageError> {
        let mut encoded = Ok(Vec::new());
        let text = Frame::text_with(USUAL_BYTES, |out| encoded = encode(out));
        let attachments = encoded?;
        let attachments =
            (!attachments.is_empty()).then(|| attachments.iter().map(|bytes| Frame::binary(bytes)).collect());
        Ok(Self { text, attachments })
    }

    /// Returns the text frame, and the frames that must leave right behind it.
    pub(super) fn into_frames(self) -> (Frame, Option<Arc<[Frame]>>) {
        (self.text, self.attachments)
    }

    /// Returns the text frame, where there is no other.
    pub(super) fn single_frame(&self) -> Option<&Frame> {
        self.attachments.is_none().then_some(&self.text)
    }

    /// Returns how many bytes the packet counts in a queue.
    pub(super) fn bytes(&self) -> usize {
        let attachments = self.attachments.iter().flat_map(|frames| frames.iter());
        self.text.wire_len() + attachments.map(Frame::wire_len).sum::<usize>()
    }
}

fn after(text: &str, separator: char) -> &str {
    text.split_once(separator).map_or(text, |(_, rest)| rest)
}

/// The clients of a broadcast that are still to be written to, by tasks of their own: a few clients each, so that the
/// work spreads over the threads, and what is sent to them meanwhile leaves in the same go.
#[derive(Default)]
pub(super) struct Flushes {
    clients: Vec<engineio::server::Socket<Mail>>,
}

/// Clients in one task: enough to make its cost small, few enough to keep its thread for less than half a millisecond.
const CLIENTS_PER_TASK: usize = 64;

impl Flushes {
    pub(super) fn push(&mut self, client: engineio::server::Socket<Mail>) {
        self.clients.reserve(if self.clients.is_empty() { CLIENTS_PER_TASK } else { 0 });
        self.clients.push(client);
        if self.clients.len() == CLIENTS_PER_TASK {
            self.start();
        }
    }

    fn start(&mut self) {
        let clients = std::mem::take(&mut self.clients);
        let flush = move || clients.iter().for_each(engineio::server::Socket::flush);
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { flush() })),
            // A thread of the application's own.
            Err(_) => flush(),
        }
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        if !self.clients.is_empty() {
            self.start();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Binary;

    #[test]
    fn the_array_of_an_event_is_found_behind_any_header() {
        for (namespace, ack_id) in [("/", None), ("/", Some(7)), ("/a[1]-", None), ("/a", Some(10))] {
            let packet = Outgoing::event(namespace, ack_id, "1", (2, "x")).unwrap();
            assert_eq!(packet.json(), r#"["1",2,"x"]"#);
            assert_eq!(packet.with_offset("a\"b").json(), r#"["1",2,"x","a\"b"]"#);
            let packet = Outgoing::event(namespace, ack_id, "b", (Binary::from(vec![1]),)).unwrap();
            assert_eq!(packet.json(), r#"["b",{"_placeholder":true,"num":0}]"#);
            assert_eq!(packet.attachments().collect::<Vec<_>>(), [[1]]);
        }
    }

    #[test]
    fn an_event_from_elsewhere_leaves_as_it_came() {
        let event = Event::from_json(r#"["e",{"_placeholder":true,"num":0}, 1 ]"#, vec![Bytes::from_static(b"x")]);
        let packet = Outgoing::forward("/a", Some(3), event.unwrap()).unwrap();
        assert_eq!(packet.text.data(), br#"451-/a,3["e",{"_placeholder":true,"num":0}, 1]"#);
        let broken = Event::from_json(r#"["e",1"#, Vec::new()).unwrap();
        assert_eq!(Outgoing::forward("/", None, broken).unwrap_err(), UsageError::MalformedData);
    }
}
