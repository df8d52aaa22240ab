//! The channels that are listened to on one server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value, cmd, pipe};
use tokio::sync::Notify;

use super::link::{Access, Link, Purpose, Renewal, send};
use super::outbox::Outbox;
use super::unavailable::{Cause, Unavailable};
use crate::config::RedisServer;

/// A connection of its own that listens to channels. Commands never use it: what a server sends unasked could be taken for
/// the answer to one.
#[derive(Debug)]
pub(super) struct Listener {
    link: Link,
    channels: Arc<Channels>,
}

/// What is listened to, and how.
#[derive(Debug)]
struct Channels {
    /// Each with whether it has been listened to already, so that something can have been missed.
    wanted: Mutex<HashMap<String, bool>>,
    outbox: Arc<Outbox>,
    words: Words,
    /// Told where a channel is served elsewhere.
    doubt: Arc<Notify>,
}

/// The commands for channels: plain ones on one server, those of a slot on a cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    subscribe: &'static str,
    unsubscribe: &'static str,
    /// The command that publishes.
    pub(super) publish: &'static str,
}

pub(super) const PLAIN: Words = Words { subscribe: "SUBSCRIBE", unsubscribe: "UNSUBSCRIBE", publish: "PUBLISH" };
pub(super) const SHARDED: Words = Words { subscribe: "SSUBSCRIBE", unsubscribe: "SUNSUBSCRIBE", publish: "SPUBLISH" };

impl Listener {
    pub(super) fn new(
        server: RedisServer,
        access: &Access,
        outbox: Arc<Outbox>,
        words: Words,
        doubt: Arc<Notify>,
    ) -> Self {
        let channels = Arc::new(Channels { wanted: Mutex::default(), outbox, words, doubt });
        Self { link: Link::new(server, access, Arc::clone(&channels)), channels }
    }

    /// Begins to listen to a channel. From the answer on, no message is missed without being told.
    pub(super) async fn follow(&self, channel: &str) -> Result<(), Unavailable> {
        // First, so that a connection made meanwhile listens to it as well.
        let was_heard = *self.channels.wanted().entry(channel.to_owned()).or_insert(false);
        let mut unless_done = Forget { channels: &self.channels, channel: (!was_heard).then_some(channel) };
        let mut connection = self.link.connection().await?;
        let answer = send(&mut connection, cmd(self.channels.words.subscribe).arg(channel)).await?;
        if !is_confirmed(&answer, channel) {
            return Err(not_confirmed());
        }
        unless_done.channel = None;
        self.channels.wanted().entry(channel.to_owned()).and_modify(|is_heard| *is_heard = true);
        Ok(())
    }

    /// Listens to a channel no more; tells whether it did.
    pub(super) async fn forget(&self, channel: &str) -> Result<bool, Unavailable> {
        if self.channels.wanted().remove(channel).is_none() {
            return Ok(false);
        }
        // Where there is no connection, the next one does not listen to it.
        if self.link.is_up() {
            let mut connection = self.link.connection().await?;
            send(&mut connection, cmd(self.channels.words.unsubscribe).arg(channel)).await?;
        }
        Ok(true)
    }

    /// Whether it listens to nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.channels.wanted().is_empty()
    }

    /// Takes over channels from another server, which this one serves now.
    pub(super) fn take_over(&self, channels: Vec<String>) {
        self.channels.wanted().extend(channels.into_iter().map(|channel| (channel, true)));
        self.link.renewal().ask();
    }

    /// Gives up the channels that this server does not serve any more.
    pub(super) fn give_up(&self, is_elsewhere: impl Fn(&str) -> bool) -> Vec<String> {
        self.channels.wanted().extract_if(|channel, _| is_elsewhere(channel)).map(|(channel, _)| channel).collect()
    }
}

/// Takes back that a channel is wanted, unless told otherwise.
struct Forget<'a> {
    channels: &'a Channels,
    channel: Option<&'a str>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(channel) = self.channel {
            self.channels.wanted().remove(channel);
        }
    }
}

impl Channels {
    fn wanted(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Purpose for Channels {
    async fn prepare(&self, connection: &mut MultiplexedConnection) -> Result<(), Unavailable> {
        let wanted: Vec<_> = self.wanted().iter().map(|(channel, is_heard)| (channel.clone(), *is_heard)).collect();
        for some in wanted.chunks(AT_ONCE) {
            let mut subscribe = pipe();
            for (channel, _) in some {
                subscribe.cmd(self.words.subscribe).arg(channel);
            }
            let answers = connection.send_packed_commands(&subscribe, 0, some.len()).await?;
            for (answer, (channel, _)) in answers.into_iter().zip(some) {
                let answer = answer.extract_error().inspect_err(|_| self.doubt.notify_one())?;
                if !is_confirmed(&answer, channel) {
                    return Err(not_confirmed());
                }
            }
        }
        self.outbox.missed(wanted.into_iter().filter_map(|(channel, was_heard)| was_heard.then_some(channel)));
        Ok(())
    }

    fn pushed(&self, push: PushInfo, link: &Renewal) {
        let mut data = push
            .data
            .into_iter()
            .filter_map(|value| if let Value::BulkString(bytes) = value { Some(bytes) } else { None });
        let Some(channel) = data.next().and_then(|channel| String::from_utf8(channel).ok()) else { return };
        if matches!(push.kind, PushKind::Message | PushKind::SMessage) {
            if let Some(payload) = data.next() {
                self.outbox.message(channel, payload);
            }
        } else if push.kind == PushKind::SUnsubscribe && self.wanted().contains_key(&channel) {
            // We did not ask for it: another node serves the channel from now on.
            link.ask();
            self.doubt.notify_one();
        }
    }
}

/// Whether an answer says that a channel is listened to. It need not be that: where the slot of another channel moves, the
/// server says so unasked, and that is taken for the answer.
fn is_confirmed(answer: &Value, channel: &str) -> bool {
    let Value::Push { kind: PushKind::Subscribe | PushKind::SSubscribe, data } = answer else { return false };
    matches!(data.first(), Some(Value::BulkString(name)) if name == channel.as_bytes())
}

fn not_confirmed() -> Unavailable {
    Unavailable::new(Cause::ClusterDown, "a slot moves")
}

impl Unavailable {
    /// Whether another node would be the one to ask, or this one a moment later.
    pub(super) fn is_misdirected(&self) -> bool {
        self.cause == Cause::ClusterDown
    }
}

/// Channels that are listened to with one write.
const AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_that_moves_makes_the_server_say_confirms_nothing() {
        let push =
            |kind, channel: &str| Value::Push { kind, data: vec![Value::BulkString(channel.into()), Value::Int(1)] };
        assert!(is_confirmed(&push(PushKind::SSubscribe, "a"), "a"));
        assert!(is_confirmed(&push(PushKind::Subscribe, "a"), "a"));
        assert!(!is_confirmed(&push(PushKind::SUnsubscribe, "a"), "a"));
        assert!(!is_confirmed(&push(PushKind::SSubscribe, "b"), "a"));
        assert!(!is_confirmed(&Value::Okay, "a"));
    }
}
