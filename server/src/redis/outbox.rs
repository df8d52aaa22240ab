//! What Redis publishes, on its way to whoever listens.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::task::Task;

/// What comes from the channels that are listened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody has published something.
    Message {
        /// The channel.
        channel: String,
        /// What was published.
        payload: Bytes,
    },
    /// Messages of these channels may have been missed: the connection was lost, or the queue was full. It comes once the
    /// channels are listened to again, so that whatever is read from Redis after it is not older than the messages that
    /// follow it.
    Missed(Vec<String>),
}

/// Hands notices to a bounded queue, and never waits for it.
#[derive(Debug)]
pub(super) struct Outbox {
    pile: Arc<Pile>,
    _teller: Task,
}

/// The channels that still have to be told as missed.
#[derive(Debug)]
struct Pile {
    queue: Sender<Notice>,
    missed: Mutex<BTreeSet<String>>,
    grown: Notify,
}

impl Outbox {
    pub(super) fn new(queue: Sender<Notice>) -> Self {
        let pile = Arc::new(Pile { queue, missed: Mutex::default(), grown: Notify::new() });
        Self { _teller: Task::spawn(tell(Arc::clone(&pile))), pile }
    }

    /// Hands over a message, or remembers that it is missed.
    pub(super) fn message(&self, channel: String, payload: Vec<u8>) {
        match self.pile.queue.try_send(Notice::Message { channel, payload: payload.into() }) {
            Err(TrySendError::Full(Notice::Message { channel, .. })) => self.missed([channel]),
            Ok(()) | Err(TrySendError::Full(Notice::Missed(_)) | TrySendError::Closed(_)) => {}
        }
    }

    /// Tells that messages of these channels may have been missed, as soon as the queue has room.
    pub(super) fn missed(&self, channels: impl IntoIterator<Item = String>) {
        self.pile.missed().extend(channels);
        self.pile.grown.notify_one();
    }
}

impl Pile {
    fn missed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tell(pile: Arc<Pile>) {
    loop {
        pile.grown.notified().await;
        // What is missed while the queue has no room is told along.
        let Ok(room) = pile.queue.reserve().await else { return };
        let missed = mem::take(&mut *pile.missed());
        if !missed.is_empty() {
            room.send(Notice::Missed(missed.into_iter().collect()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;

    use super::*;

    fn message(channel: &str, payload: &'static str) -> Notice {
        Notice::Message { channel: channel.to_owned(), payload: payload.into() }
    }

    #[tokio::test]
    async fn what_a_full_queue_does_not_take_is_told_as_missed_once_it_has_room() {
        let (queue, mut notices) = channel(2);
        let outbox = Outbox::new(queue);
        for (channel, payload) in [("a", "1"), ("b", "2"), ("b", "3"), ("a", "4"), ("b", "5")] {
            outbox.message(channel.to_owned(), payload.into());
        }
        assert_eq!(notices.recv().await, Some(message("a", "1")));
        assert_eq!(notices.recv().await, Some(message("b", "2")));
        assert_eq!(notices.recv().await, Some(Notice::Missed(vec!["a".to_owned(), "b".to_owned()])));
        outbox.message("a".to_owned(), "6".into());
        assert_eq!(notices.recv().await, Some(message("a", "6")));
    }
}
