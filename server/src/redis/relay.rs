//! Letters between instances, for requests that reach another one than their session's.
//!
//! Each instance listens to a channel that has its name. What is to be sent to one goes out in order, one bundle at a
//! time; what comes up meanwhile is in the next, so that many letters cost few commands. The connections are this
//! module's own: neither rooms nor letters wait for each other.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use redis::cmd;
use socketio::engineio::Instance;
use socketio::engineio::server::{Mailroom, Relay, Undelivered};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::task::Task;
use super::{Notice, Redis, Unavailable};
use crate::config::RedisSettings;
use crate::id;

/// The relay of this instance, over Redis.
///
/// While Redis cannot be reached, what is to be sent is refused at once, and what was under way ends. It comes back by
/// itself.
pub struct RedisRelay {
    post: Arc<Post>,
    /// What comes in, until the server takes it.
    incoming: Mutex<Option<Receiver<Notice>>>,
    tasks: OnceLock<[Task; 2]>,
}

struct Post {
    instance: Instance,
    redis: Redis,
    outgoing: Mutex<Outgoing>,
    /// Told when there is something to be sent.
    filled: Notify,
    /// Told when nothing is left of that.
    emptied: Notify,
}

/// Letters that wait for Redis.
#[derive(Debug, Default)]
struct Outgoing {
    /// By the instance they are for, which is known for as long as there are some, or some are on their way.
    letters: HashMap<Instance, VecDeque<Bytes>>,
    /// Those of the instances to whom nothing is on its way.
    ready: VecDeque<Instance>,
    bytes: usize,
    /// Redis cannot be reached.
    is_down: bool,
}

impl Outgoing {
    fn push(&mut self, to: Instance, letter: Bytes) -> Result<(), Undelivered> {
        let bytes = self.bytes + letter.len() + LENGTH_BYTES;
        if self.is_down || bytes > MAX_BYTES {
            return Err(Undelivered);
        }
        self.bytes = bytes;
        let letters = self.letters.entry(to).or_insert_with(|| {
            self.ready.push_back(to);
            VecDeque::new()
        });
        letters.push_back(letter);
        Ok(())
    }

    /// Takes letters to an instance to whom nothing is on its way, as one message.
    fn take(&mut self) -> Option<(Instance, Bytes)> {
        let to = self.ready.pop_front()?;
        let letters = self.letters.get_mut(&to)?;
        let mut bundle = BytesMut::new();
        while let Some(next) = letters.front()
            && (bundle.is_empty() || bundle.len() + next.len() <= BUNDLE_BYTES)
            && let Some(letter) = letters.pop_front()
        {
            self.bytes -= letter.len() + LENGTH_BYTES;
            // No letter is nearly as long as that.
            bundle.put_u32(u32::try_from(letter.len()).unwrap_or(u32::MAX));
            bundle.put(letter);
        }
        Some((to, bundle.freeze()))
    }

    /// Takes note that nothing is on its way to an instance any more.
    fn arrived(&mut self, to: Instance) {
        match self.letters.get(&to).map(VecDeque::is_empty) {
            Some(true) => drop(self.letters.remove(&to)),
            Some(false) => self.ready.push_back(to),
            None => {}
        }
    }

    fn go_down(&mut self) {
        *self = Self { is_down: true, ..Self::default() };
    }
}

/// Takes a message apart; what is no letter at its end is dropped.
fn unbundle(mut bundle: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let len = bundle.try_get_u32().ok()? as usize;
        (len <= bundle.len()).then(|| bundle.split_to(len))
    })
}

/// What a letter has before it: its length.
const LENGTH_BYTES: usize = 4;

/// Most bytes that wait for Redis. Beyond it, what is to be sent is refused.
const MAX_BYTES: usize = 64 << 20;

/// Most bytes of a message of several letters.
const BUNDLE_BYTES: usize = 256 * 1024;

/// Most messages on their way at a time, each to another instance.
const MESSAGES: usize = 256;

/// Messages of other instances that may wait; past it, what is under way ends.
const NOTICES: usize = 1_024;

/// How often Redis is tried while it cannot be reached.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

/// How long closing may wait for what is still to leave.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

impl RedisRelay {
    /// Begins to listen for letters to an instance of a new name.
    ///
    /// # Errors
    /// [`Unavailable`] where Redis cannot be reached.
    pub async fn join(settings: &RedisSettings) -> Result<Self, Unavailable> {
        let (notices, incoming) = channel(NOTICES);
        let redis = Redis::new(settings, settings.db_state, notices);
        let post = Arc::new(Post {
            instance: Instance::from_random(id::random()),
            redis,
            outgoing: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
        });
        post.redis.subscribe(&post.channel(post.instance)).await?;
        Ok(Self { post, incoming: Mutex::new(Some(incoming)), tasks: OnceLock::new() })
    }
}

impl fmt::Debug for RedisRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRelay").field("instance", &self.post.instance).finish_non_exhaustive()
    }
}

impl Relay for RedisRelay {
    fn instance(&self) -> Instance {
        self.post.instance
    }

    fn open(&self, mailroom: Mailroom) {
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It is there the first time, and this is called once.
        if let Some(incoming) = incoming {
            let sending = Task::spawn(send(Arc::clone(&self.post), mailroom.clone()));
            let _set_once = self.tasks.set([sending, Task::spawn(receive(incoming, mailroom))]);
        }
    }

    fn send(&self, to: Instance, letter: Bytes) -> Result<(), Undelivered> {
        self.post.outgoing().push(to, letter)?;
        self.post.filled.notify_one();
        Ok(())
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // What has not left by then is lost.
            let _late = timeout(FLUSH_WITHIN, self.post.flushed()).await;
            // Where Redis does not hear of it, it finds out by the connection.
            let _unheard = self.post.redis.unsubscribe(&self.post.channel(self.post.instance)).await;
        })
    }
}

impl Post {
    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        // Nothing under this lock can panic halfway.
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self, instance: Instance) -> String {
        self.redis.key(&format!("syncwatch:relay:{instance}"))
    }

    /// Publishes a message; returns whether somebody takes it.
    async fn publish(&self, to: Instance, message: &[u8]) -> Result<bool, Unavailable> {
        let mut publish = cmd(self.redis.publish_command());
        publish.arg(self.channel(to)).arg(message);
        let takers: u64 = redis::from_redis_value(self.redis.call(&publish).await?).unwrap_or_default();
        Ok(takers > 0)
    }

    async fn flushed(&self) {
        loop {
            let emptied = self.emptied.notified(); // hears of what happens from here on, before it is awaited
            if self.outgoing().letters.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

/// Sends what is to be sent, and looks for Redis while it cannot be reached.
async fn send(post: Arc<Post>, mailroom: Mailroom) {
    let mut on_their_way = JoinSet::new();
    loop {
        while on_their_way.len() < MESSAGES
            && let Some((to, bundle)) = { post.outgoing().take() }
        {
            let post = Arc::clone(&post);
            on_their_way.spawn(async move { (to, post.publish(to, &bundle).await) });
        }
        let sent = tokio::select! {
            () = post.filled.notified(), if on_their_way.len() < MESSAGES => continue,
            Some(sent) = on_their_way.join_next() => sent,
        };
        // An error means that this task ends as well.
        let Ok((to, published)) = sent else { return };
        match published {
            Ok(taken) => {
                let is_empty = {
                    let mut outgoing = post.outgoing();
                    outgoing.arrived(to);
                    outgoing.letters.is_empty()
                };
                if is_empty {
                    post.emptied.notify_waiters();
                }
                if !taken {
                    mailroom.gone(to);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "letters to other instances are lost");
                post.outgoing().go_down();
                on_their_way = JoinSet::new();
                mailroom.lost();
                post.emptied.notify_waiters();
                // A letter of no length to ourselves.
                while !post.publish(post.instance, &[]).await.unwrap_or(false) {
                    sleep(PROBE_PAUSE).await;
                }
                post.outgoing().is_down = false;
            }
        }
    }
}

/// Hands in what comes.
async fn receive(mut incoming: Receiver<Notice>, mailroom: Mailroom) {
    while let Some(notice) = incoming.recv().await {
        match notice {
            Notice::Message { payload, .. } => unbundle(payload).for_each(|letter| mailroom.deliver(letter)),
            Notice::Missed(_) => mailroom.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(number: u8) -> Instance {
        Instance::from_random([number; 6])
    }

    fn letters(bundle: Bytes) -> Vec<Bytes> {
        unbundle(bundle).collect()
    }

    #[test]
    fn letters_to_one_instance_leave_in_order_and_one_message_at_a_time() {
        let mut outgoing = Outgoing::default();
        for letter in ["one", "", "three"] {
            outgoing.push(instance(1), letter.into()).unwrap();
        }
        outgoing.push(instance(2), "other".into()).unwrap();
        let (to, bundle) = outgoing.take().unwrap();
        assert_eq!((to, letters(bundle)), (instance(1), vec!["one".into(), "".into(), "three".into()]));
        outgoing.push(instance(1), "four".into()).unwrap();
        let (to, bundle) = outgoing.take().unwrap();
        assert_eq!((to, letters(bundle)), (instance(2), vec!["other".into()]));
        assert_eq!(outgoing.take(), None, "something is on its way to both");
        outgoing.arrived(instance(1));
        assert_eq!(outgoing.take().map(|(_, bundle)| letters(bundle)), Some(vec!["four".into()]));
        outgoing.arrived(instance(1));
        outgoing.arrived(instance(2));
        assert_eq!((outgoing.take(), outgoing.letters.len(), outgoing.bytes), (None, 0, 0));
    }

    #[test]
    fn a_message_is_no_larger_than_it_must_be() {
        let mut outgoing = Outgoing::default();
        for len in [10, BUNDLE_BYTES, 10, 20] {
            outgoing.push(instance(1), vec![0; len].into()).unwrap();
        }
        for expected in [vec![10], vec![BUNDLE_BYTES], vec![10, 20]] {
            let (to, bundle) = outgoing.take().unwrap();
            assert_eq!(letters(bundle).iter().map(Bytes::len).collect::<Vec<_>>(), expected);
            outgoing.arrived(to);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_refused_while_redis_is_away() {
        let mut outgoing = Outgoing::default();
        let large = Bytes::from(vec![0; MAX_BYTES / 2]);
        assert_eq!(outgoing.push(instance(1), large.clone()), Ok(()));
        assert_eq!(outgoing.push(instance(2), large), Err(Undelivered));
        assert_eq!(outgoing.push(instance(2), "small".into()), Ok(()));
        outgoing.go_down();
        assert_eq!(outgoing.push(instance(2), "small".into()), Err(Undelivered));
        assert_eq!((outgoing.take(), outgoing.bytes), (None, 0));
    }

    #[test]
    fn a_message_that_is_none_has_no_letters() {
        for message in [&b""[..], b"\0\0", b"\0\0\0\x05four", b"\xff\xff\xff\xff"] {
            assert_eq!(letters(Bytes::from_static(message)).len(), 0);
        }
        assert_eq!(letters(Bytes::from_static(b"\0\0\0\x01a\0\0\0\x05four")), ["a"]);
    }
}
