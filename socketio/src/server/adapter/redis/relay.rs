//! Letters between instances over Redis, for requests that reach the wrong one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use engineio::Instance;
use engineio::server::{Mailroom, Relay, Undelivered};

use super::FLUSH_TIMEOUT;
use super::link::{Link, Receive};

/// The [`Relay`] of one server over Redis: each instance has a channel, `<prefix>-relay#<instance>#`.
///
/// What is sent while Redis is away is refused at once, and what may have been lost when its connection broke ends the
/// requests and WebSockets that were under way. Sessions whose clients reach this instance itself go on.
#[derive(Clone)]
pub struct RedisRelay {
    link: Arc<Link>,
    instance: Instance,
    incoming: Arc<Incoming>,
}

/// What letters come in by.
struct Incoming {
    /// What channels of instances begin with.
    prefix: String,
    mailroom: OnceLock<Mailroom>,
    max_letter_bytes: usize,
}

impl fmt::Debug for RedisRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRelay").field("link", &self.link).field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl RedisRelay {
    pub(super) fn new(link: Arc<Link>, prefix: &str, instance: Instance, max_letter_bytes: usize) -> Self {
        let prefix = format!("{prefix}-relay#");
        Self { link, instance, incoming: Arc::new(Incoming { prefix, mailroom: OnceLock::new(), max_letter_bytes }) }
    }

    fn channel(&self, instance: Instance) -> String {
        format!("{}{instance}#", self.incoming.prefix)
    }

    fn receiver(&self) -> Weak<dyn Receive> {
        Arc::downgrade(&self.incoming) as Weak<dyn Receive>
    }
}

impl Relay for RedisRelay {
    fn instance(&self) -> Instance {
        self.instance
    }

    fn open(&self, mailroom: Mailroom) {
        // A second server would have the same name, and sessions that the first one does not know.
        if self.incoming.mailroom.set(mailroom).is_ok() {
            self.link.tell_losses(self.receiver());
            self.link.subscribe(&self.channel(self.instance), self.receiver());
        }
    }

    fn send(&self, to: Instance, letter: Bytes) -> Result<(), Undelivered> {
        if letter.len() > self.incoming.max_letter_bytes {
            self.link.losses().count(1, "they are too large");
            return Err(Undelivered);
        }
        self.link.publish(&self.channel(to), letter.into()).map_err(|_| Undelivered)
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.link.forget(&self.receiver());
            if self.link.is_connected() {
                // What has not left by then is lost, and counted.
                let _late = tokio::time::timeout(FLUSH_TIMEOUT, self.link.flush()).await;
            }
        })
    }
}

impl Receive for Incoming {
    fn receive(&self, _: &str, payload: Vec<u8>) {
        match self.mailroom.get() {
            Some(mailroom) if payload.len() <= self.max_letter_bytes => mailroom.deliver(payload.into()),
            Some(_) | None => tracing::debug!("a letter of another instance was dropped: it is too large"),
        }
    }

    fn unheard(&self, channel: &str) {
        let name = channel.strip_prefix(&*self.prefix).and_then(|name| name.strip_suffix('#'));
        if let (Some(instance), Some(mailroom)) = (name.and_then(Instance::parse), self.mailroom.get()) {
            mailroom.gone(instance);
        }
    }

    fn lost(&self) {
        if let Some(mailroom) = self.mailroom.get() {
            mailroom.lost();
        }
    }
}
