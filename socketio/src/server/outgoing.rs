//! A packet encoded once, for any number of recipients.

use std::sync::Arc;

use bytes::Bytes;
use engineio::Frame;
use tokio::runtime::Handle;

use super::client::Mail;
use crate::{Arguments, UsageError, encode_ack, encode_event};

/// A packet in its wire form: a text frame and the frames of its attachments. A clone costs a reference count or two.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
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
