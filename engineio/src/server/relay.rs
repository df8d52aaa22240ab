//! Sessions that are at another instance: requests for them travel there, in letters.
//!
//! A session id names the instance that has the session. A polling request that reaches another one is passed on to it,
//! with its body, and the answer comes back the same way; the session sees a request like any other. A WebSocket that is
//! to take over a session is carried there as bytes, in a [`line`]: the session's own instance reads and writes its
//! frames. What travels in between may be lost, but not unnoticed: requests have deadlines, and the parts on a line are
//! counted.

mod exchange;
mod front;
mod letter;
mod line;
mod owner;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;

use bytes::Bytes;

pub(super) use self::exchange::Exchange;

use self::letter::{Content, Letter};
use super::{Application, Shared};
use crate::handshake::Instance;

/// Carries letters between the instances of a cluster, for [`Server::with_relay`](super::Server::with_relay).
///
/// Letters from one instance to another arrive in the order in which they were sent, once or not at all. They are
/// written and read by the servers alone; no letter is much longer than the larger of
/// [`Config::max_payload_bytes`](crate::Config) and [`Config::max_buffered_bytes`](crate::Config).
///
/// They hold session ids: whoever can read them can take sessions over, and whoever can send them can speak for clients.
/// A letter that makes no sense is dropped, with a line in the log at level debug.
pub trait Relay: Send + Sync + 'static {
    /// Returns the name of this instance: another one in each, and always the same here. Sessions carry it in their ids.
    fn instance(&self) -> Instance;

    /// Begins to hand in letters for this instance. Called once, when the server is made.
    fn open(&self, mailroom: Mailroom);

    /// Sends a letter to another instance, which may not exist. Never waits.
    ///
    /// # Errors
    /// [`Undelivered`] where it is known by now that it will not arrive.
    fn send(&self, to: Instance, letter: Bytes) -> Result<(), Undelivered>;

    /// Takes no more part. Ready when what was sent so far has left, or is lost. Called when the server is closed.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// A letter will not arrive: the way to the others is down, or too slow for what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered;

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the letter will not arrive")
    }
}

impl std::error::Error for Undelivered {}

/// Where a [`Relay`] hands in what it gets. A clone is another handle on the same server, which it does not keep alive.
#[derive(Clone)]
pub struct Mailroom {
    server: Weak<dyn Receive>,
}

impl fmt::Debug for Mailroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailroom").finish_non_exhaustive()
    }
}

impl Mailroom {
    pub(super) fn new(server: Weak<dyn Receive>) -> Self {
        Self { server }
    }

    /// Hands in a letter, whatever its bytes are. Never waits.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn deliver(&self, letter: Bytes) {
        if let Some(server) = self.server.upgrade() {
            server.receive(letter);
        }
    }

    /// Tells that letters, from this instance or to it, may have been lost. Whatever is under way ends: polls with status
    /// 400, WebSockets as if their connection was lost. The sessions that others hold for clients here learn of it.
    pub fn lost(&self) {
        if let Some(server) = self.server.upgrade() {
            server.lost();
        }
    }

    /// Tells that nobody takes letters to an instance. Whatever is under way with it ends, sooner than by its silence.
    pub fn gone(&self, instance: Instance) {
        if let Some(server) = self.server.upgrade() {
            server.gone(instance);
        }
    }
}

/// The server as its relay knows it.
pub(super) trait Receive: Send + Sync {
    fn receive(&self, letter: Bytes);
    fn lost(&self);
    fn gone(&self, instance: Instance);
}

impl<A: Application> Receive for Shared<A> {
    fn receive(&self, letter: Bytes) {
        let Some(exchange) = &self.exchange else { return };
        let Ok(Letter { from, losses, id, content }) = Letter::decode(letter) else {
            tracing::debug!("a letter of another instance was dropped: it makes no sense");
            return;
        };
        if from == exchange.here() {
            tracing::debug!("a letter of this instance to itself was dropped");
            return;
        }
        if !exchange.hear(from, losses) {
            tracing::debug!(instance = %from, "a letter of another instance was dropped: it is from before a loss");
            return;
        }
        match content {
            Content::Poll(_) | Content::Post(..) | Content::Unusable(_) | Content::Upgrade(_) => {
                self.serve(exchange, from, id, content);
            }
            Content::Cancel => exchange.cancelled(from, id),
            Content::Ack => exchange.acked(from, id),
            Content::Answer(answer) => exchange.answered(from, id, answer),
            Content::Line(toward, number, part) => exchange.carried(from, id, toward, number, part),
            Content::Ping => exchange.tell(from, id, Content::Pong),
            Content::Pong => {}
        }
    }

    fn lost(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.end_all();
        }
    }

    fn gone(&self, instance: Instance) {
        if let Some(exchange) = &self.exchange {
            exchange.end(instance);
        }
    }
}
