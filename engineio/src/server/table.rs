//! Which sessions are open: the table from sid to mailbox, and the server's counts.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxBuildHasher;
use tokio::sync::Notify;

use super::mailbox::Mailbox;
use crate::error::RequestError;
use crate::handshake::{Sid, Transport};

/// Counts of a server, cheap to read at any time.
#[derive(Debug, Default)]
pub struct Stats {
    polling: AtomicUsize,
    websocket: AtomicUsize,
    pub(super) queued_bytes: AtomicUsize,
    refusals: [AtomicU64; 6],
    overloads: AtomicU64,
    relayed: AtomicU64,
    pub(super) lines: Arc<AtomicUsize>,
}

impl Stats {
    /// Returns how many open sessions use this transport now.
    pub fn sessions(&self, transport: Transport) -> usize {
        self.count(transport).load(Relaxed)
    }

    /// Returns how many bytes wait in all sessions together: for clients that are behind, and for handlers that are, with
    /// what each message occupies beside its bytes.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Relaxed)
    }

    /// Returns how many requests were refused for this reason.
    pub fn refusals(&self, error: RequestError) -> u64 {
        self.refusals[usize::from(error.code())].load(Relaxed)
    }

    /// Returns how many requests were refused since the server was full or closing.
    pub fn overloads(&self) -> u64 {
        self.overloads.load(Relaxed)
    }

    /// Returns how many requests were for sessions of other instances, and passed on to them.
    pub fn relayed(&self) -> u64 {
        self.relayed.load(Relaxed)
    }

    /// Returns how many WebSockets are carried between this instance and others now, whichever has the client.
    pub fn lines(&self) -> usize {
        self.lines.load(Relaxed)
    }

    fn count(&self, transport: Transport) -> &AtomicUsize {
        match transport {
            Transport::Polling => &self.polling,
            Transport::WebSocket => &self.websocket,
        }
    }

    pub(super) fn count_refusal(&self, error: RequestError) {
        self.refusals[usize::from(error.code())].fetch_add(1, Relaxed);
    }

    pub(super) fn count_relayed(&self) {
        self.relayed.fetch_add(1, Relaxed);
    }

    pub(super) fn count_overload(&self) {
        self.overloads.fetch_add(1, Relaxed);
    }
}

// Keys are random: drawn by us, and looked up but never inserted by clients.
type Shard<M> = HashMap<Sid, Arc<Mailbox<M>>, FxBuildHasher>;

pub(super) struct Table<M> {
    shards: Box<[Mutex<Shard<M>>]>,
    len: AtomicUsize,
    max: usize,
    /// Most bytes that may wait in all sessions together.
    max_queued: usize,
    /// Held by the task that looks for the sessions to end; when it last did.
    relief: Mutex<Option<Instant>>,
    stats: Stats,
    emptied: Notify,
}

const SHARDS: usize = 64;

/// How long the sessions that were ended get to free what they hold before more are.
const RELIEF_INTERVAL: Duration = Duration::from_millis(50);

impl<M> Table<M> {
    pub(super) fn new(max: usize, max_queued: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            len: AtomicUsize::new(0),
            max,
            max_queued,
            relief: Mutex::default(),
            stats: Stats::default(),
            emptied: Notify::new(),
        })
    }

    /// Ends the sessions for which the most waits, until an eighth of what may wait is free.
    fn relieve(&self, queued: usize) {
        // A task that finds it locked leaves it to the one at work.
        let Ok(mut last) = self.relief.try_lock() else { return };
        if last.is_some_and(|last| last.elapsed() < RELIEF_INTERVAL) {
            return;
        }
        let mut heaviest: Vec<_> = self.mailboxes().into_iter().map(|mailbox| (mailbox.weight(), mailbox)).collect();
        heaviest.sort_unstable_by_key(|(weight, _)| Reverse(*weight));
        let mut excess = queued.saturating_sub(self.max_queued - self.max_queued / 8);
        let mut ended = 0;
        for (weight, mailbox) in heaviest.into_iter().take_while(|(weight, _)| *weight > 0) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(weight);
            mailbox.abort();
            ended += 1;
        }
        *last = Some(Instant::now());
        if ended > 0 {
            tracing::warn!(queued, ended, "too many bytes wait; the clients with the most were disconnected");
        }
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shard(&self, sid: &Sid) -> MutexGuard<'_, Shard<M>> {
        let first = sid.expose().bytes().next().unwrap_or_default();
        let shard = &self.shards[usize::from(first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, sid: &Sid) -> Option<Arc<Mailbox<M>>> {
        self.shard(sid).get(sid).cloned()
    }

    /// Adds a session; `None` where the table is full.
    pub(super) fn register(
        self: &Arc<Self>,
        sid: Sid,
        mailbox: &Arc<Mailbox<M>>,
        transport: Transport,
    ) -> Option<Registration<M>> {
        self.len.fetch_update(AcqRel, Acquire, |len| (len < self.max).then_some(len + 1)).ok()?;
        self.stats.count(transport).fetch_add(1, Relaxed);
        self.shard(&sid).insert(sid, Arc::clone(mailbox));
        Some(Registration { table: Arc::clone(self), sid, transport, left: false })
    }

    pub(super) fn mailboxes(&self) -> Vec<Arc<Mailbox<M>>> {
        let shards = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner));
        shards.flat_map(|shard| shard.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Waits until no session is left.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified(); // hears of what happens from here on, before it is awaited
            if self.len.load(Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// A session's place in the table: its entry until it leaves, its share of the limit until dropped, so that a session
/// which is still saying goodbye counts.
pub(super) struct Registration<M> {
    table: Arc<Table<M>>,
    sid: Sid,
    transport: Transport,
    left: bool,
}

impl<M> Registration<M> {
    /// Counts what waits in the session, in place of what waited before.
    pub(super) fn count_queued(&self, before: usize, now: usize) {
        let more = now.wrapping_sub(before);
        let queued = self.table.stats.queued_bytes.fetch_add(more, Relaxed).wrapping_add(more);
        if now > before && queued > self.table.max_queued {
            self.table.relieve(queued);
        }
    }

    /// Counts the session for another transport from now on.
    pub(super) fn switch(&mut self, transport: Transport) {
        self.table.stats.count(self.transport).fetch_sub(1, Relaxed);
        self.table.stats.count(transport).fetch_add(1, Relaxed);
        self.transport = transport;
    }

    /// Makes the session unknown.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.table.shard(&self.sid).remove(&self.sid);
            self.table.stats.count(self.transport).fetch_sub(1, Relaxed);
        }
    }
}

impl<M> Drop for Registration<M> {
    fn drop(&mut self) {
        self.leave();
        if self.table.len.fetch_sub(1, AcqRel) == 1 {
            self.table.emptied.notify_waiters();
        }
    }
}
