//! What is under way between this instance and others: who waits for whom, within bounds and deadlines.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::letter::{Answer, Content, Letter, Part, Toward};
use super::line::{End, cost};
use super::{Relay, Undelivered};
use crate::config::RelayConfig;
use crate::handshake::Instance;

/// What is under way between this instance and others.
pub(in super::super) struct Exchange {
    relay: Arc<dyn Relay>,
    pub(super) config: RelayConfig,
    /// The number of the next request or line of a client here.
    next: AtomicU64,
    under_way: Mutex<UnderWay>,
    /// Bytes of bodies that are on their way.
    bytes: AtomicUsize,
    /// Open lines, which the server counts.
    pub(super) lines: Arc<AtomicUsize>,
    /// How often letters may have been lost.
    losses: AtomicU32,
    /// Told when nothing is being answered for others any more.
    idle: Notify,
}

#[derive(Default)]
struct UnderWay {
    peers: HashMap<Instance, Peer>,
    asked: usize,
    served: usize,
    /// A task looks after the peers.
    watched: bool,
}

/// Another instance, for as long as something is under way with it.
#[derive(Default)]
struct Peer {
    /// When it last gave a sign of life; never, while nothing says that it exists.
    heard: Option<Instant>,
    /// How often it had lost letters then.
    losses: Option<u32>,
    /// Requests of clients here.
    asked: HashMap<u64, Asked>,
    /// Requests of its clients; dropping one tells its task that the client has left.
    served: HashMap<u64, oneshot::Sender<()>>,
    /// Lines, by the direction in which this end hears.
    lines: HashMap<(Toward, u64), Slot>,
}

impl Peer {
    fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.served.is_empty() && self.lines.is_empty()
    }
}

struct Asked {
    acked: Option<oneshot::Sender<()>>,
    answered: oneshot::Sender<Answer>,
}

/// The way to this end of a line.
struct Slot {
    parts: mpsc::Sender<(u64, Part)>,
    /// What has come and is not taken yet.
    owed: Arc<AtomicUsize>,
}

/// Parts that may wait for this end of a line. Its window allows fewer; credit comes on top.
const MAX_PARTS: usize = 4096;

impl Exchange {
    pub(in super::super) fn new(relay: Arc<dyn Relay>, config: RelayConfig, lines: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            relay,
            config,
            next: AtomicU64::new(0),
            under_way: Mutex::default(),
            bytes: AtomicUsize::new(0),
            lines,
            losses: AtomicU32::new(0),
            idle: Notify::new(),
        })
    }

    pub(in super::super) fn here(&self) -> Instance {
        self.relay.instance()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        // Nothing under this lock can panic halfway. Nothing is sent under it either: a relay may answer at once.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, to: Instance, id: u64, content: Content) -> Result<(), Undelivered> {
        let losses = self.losses.load(Acquire);
        self.relay.send(to, Letter { from: self.here(), losses, id, content }.encode())
    }

    /// Sends a letter without which the other instance gets along, by a deadline.
    pub(super) fn tell(&self, to: Instance, id: u64, content: Content) {
        let _deadlines = self.send(to, id, content);
    }

    /// Takes note of a sign of life; false where it is older than a loss that is known. A peer that has lost letters since
    /// the last one has ended what was under way.
    pub(super) fn hear(&self, from: Instance, losses: u32) -> bool {
        let known = {
            let mut under_way = self.under_way();
            let Some(peer) = under_way.peers.get_mut(&from) else { return true };
            peer.heard = Some(Instant::now());
            let known = peer.losses.unwrap_or(losses);
            peer.losses = Some(known.max(losses));
            known
        };
        if known < losses {
            self.end(from);
        }
        known <= losses
    }

    /// Takes note of a request of a client here; `None` where there are too many.
    pub(super) fn ask(self: &Arc<Self>, to: Instance) -> Option<Pending> {
        let (acked, ack) = oneshot::channel();
        let (answered, answer) = oneshot::channel();
        let mut under_way = self.under_way();
        if under_way.asked >= self.config.max_requests {
            return None;
        }
        under_way.asked += 1;
        let id = self.next_id();
        self.peer(&mut under_way, to).asked.insert(id, Asked { acked: Some(acked), answered });
        Some(Pending { exchange: Arc::clone(self), to, id, ack, answer })
    }

    /// Takes note of a request of a client there; `None` where there are too many, or it is known.
    pub(super) fn serving(self: &Arc<Self>, from: Instance, id: u64) -> Option<Serving> {
        let (left, leaves) = oneshot::channel();
        let mut under_way = self.under_way();
        if under_way.served >= self.config.max_requests {
            return None;
        }
        let peer = self.peer(&mut under_way, from);
        peer.heard.get_or_insert_with(Instant::now);
        match peer.served.entry(id) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(served) => served.insert(left),
        };
        under_way.served += 1;
        Some(Serving { exchange: Arc::clone(self), from, id, leaves })
    }

    /// Makes this end of a line; `None` where there are too many, or it is known.
    pub(super) fn line(self: &Arc<Self>, with: Instance, id: u64, hears: Toward) -> Option<End> {
        let max = self.config.max_lines;
        self.lines.fetch_update(AcqRel, Acquire, |lines| (lines < max).then_some(lines + 1)).ok()?;
        let (parts, inbox) = mpsc::channel(MAX_PARTS);
        let owed = Arc::<AtomicUsize>::default();
        // Made first: it is what counts the line down again.
        let end = End::new(Arc::clone(self), (with, id, hears), inbox, Arc::clone(&owed));
        let mut under_way = self.under_way();
        let peer = self.peer(&mut under_way, with);
        if hears == Toward::Session {
            peer.heard.get_or_insert_with(Instant::now); // it has asked for the line
        }
        match peer.lines.entry((hears, id)) {
            Entry::Vacant(line) => {
                line.insert(Slot { parts, owed });
                drop(under_way);
                Some(end)
            }
            Entry::Occupied(_) => {
                drop(under_way);
                end.disown();
                None
            }
        }
    }

    /// Returns a peer, which is looked after from now on.
    fn peer<'a>(self: &Arc<Self>, under_way: &'a mut UnderWay, name: Instance) -> &'a mut Peer {
        if !std::mem::replace(&mut under_way.watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        under_way.peers.entry(name).or_default()
    }

    pub(super) fn acked(&self, from: Instance, id: u64) {
        let mut under_way = self.under_way();
        let asked = under_way.peers.get_mut(&from).and_then(|peer| peer.asked.get_mut(&id));
        if let Some(acked) = asked.and_then(|asked| asked.acked.take()) {
            // An error means that the client has left.
            let _left = acked.send(());
        }
    }

    pub(super) fn answered(&self, from: Instance, id: u64, answer: Answer) {
        if let Some(asked) = self.forget_asked(from, id) {
            let _left = asked.answered.send(answer);
        }
    }

    pub(super) fn cancelled(&self, from: Instance, id: u64) {
        // Its task counts it down.
        let left = self.change(from, |peer| peer.served.remove(&id));
        drop(left);
    }

    pub(super) fn carried(&self, from: Instance, id: u64, toward: Toward, number: u64, part: Part) {
        let broken = matches!(part, Part::Broken);
        let known = {
            let under_way = self.under_way();
            let slot = under_way.peers.get(&from).and_then(|peer| peer.lines.get(&(toward, id)));
            slot.map(|Slot { parts, owed }| {
                let bytes = cost(&part);
                let fits = owed.fetch_add(bytes, AcqRel) + bytes <= self.config.line_bytes;
                !broken && fits && parts.try_send((number, part)).is_ok()
            })
        };
        if known == Some(false) {
            // Too much of it, or the end: whoever reads the line learns of it.
            self.forget_line(from, id, toward);
        }
        if known != Some(true) && !broken {
            self.tell(from, id, Content::Line(toward.other(), 0, Part::Broken));
        }
    }

    /// Changes what is under way with a peer, which is forgotten where that is nothing.
    fn change<T>(&self, name: Instance, change: impl FnOnce(&mut Peer) -> Option<T>) -> Option<T> {
        let mut under_way = self.under_way();
        let peer = under_way.peers.get_mut(&name)?;
        let changed = change(peer);
        if peer.is_idle() {
            under_way.peers.remove(&name);
        }
        changed
    }

    fn forget_asked(&self, to: Instance, id: u64) -> Option<Asked> {
        let asked = self.change(to, |peer| peer.asked.remove(&id))?;
        self.under_way().asked -= 1;
        Some(asked)
    }

    /// Forgets this end of a line; tells whether it was known.
    pub(super) fn forget_line(&self, with: Instance, id: u64, hears: Toward) -> bool {
        self.change(with, |peer| peer.lines.remove(&(hears, id))).is_some()
    }

    /// Ends what is under way with a peer. What it hears of it may be lost; then it learns by the silence.
    pub(super) fn end(&self, name: Instance) {
        let peer = {
            let mut under_way = self.under_way();
            let peer = under_way.peers.remove(&name);
            under_way.asked -= peer.as_ref().map_or(0, |peer| peer.asked.len());
            peer
        };
        if let Some(Peer { asked, lines, .. }) = peer {
            asked.keys().for_each(|&id| self.tell(name, id, Content::Cancel));
            for &(hears, id) in lines.keys() {
                self.tell(name, id, Content::Line(hears.other(), 0, Part::Broken));
            }
        }
    }

    pub(super) fn end_all(&self) {
        self.losses.fetch_add(1, AcqRel);
        let names: Vec<_> = self.under_way().peers.keys().copied().collect();
        names.into_iter().for_each(|name| self.end(name));
    }

    /// Looks after the peers; false where there is none.
    fn tend(&self) -> bool {
        let now = Instant::now();
        let (mut silent, mut asked) = (Vec::new(), Vec::new());
        {
            let mut under_way = self.under_way();
            if under_way.peers.is_empty() {
                under_way.watched = false;
                return false;
            }
            for (&name, peer) in &under_way.peers {
                match peer.heard {
                    Some(heard) if now - heard >= self.config.silence_timeout => silent.push(name),
                    Some(_) => asked.push(name),
                    // Its requests have a shorter deadline.
                    None => {}
                }
            }
        }
        for name in silent {
            tracing::debug!(instance = %name, "an instance is silent; what is under way with it ends");
            self.end(name);
        }
        asked.into_iter().for_each(|name| self.tell(name, 0, Content::Ping));
        true
    }

    /// Takes no more part. Called when all sessions here are over, so that nothing is served any more but last answers.
    pub(in super::super) async fn close(&self) {
        loop {
            let idle = self.idle.notified(); // hears of what happens from here on, before it is awaited
            if self.under_way().served == 0 {
                break;
            }
            idle.await;
        }
        self.end_all();
        self.relay.close().await;
    }
}

/// How often a peer is asked for a sign of life before it counts as silent.
const QUESTIONS: u32 = 4;

async fn watch(exchange: Weak<Exchange>) {
    loop {
        let Some(pause) = exchange.upgrade().map(|exchange| exchange.config.silence_timeout / QUESTIONS) else {
            return;
        };
        tokio::time::sleep(pause).await;
        if !exchange.upgrade().is_some_and(|exchange| exchange.tend()) {
            return;
        }
    }
}

/// A request of a client here. Dropped before its answer has come, it tells the other instance.
pub(super) struct Pending {
    exchange: Arc<Exchange>,
    to: Instance,
    pub(super) id: u64,
    pub(super) ack: oneshot::Receiver<()>,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Pending {
    /// Needs no answer any more.
    pub(super) fn settle(self) {
        let _settled = self.exchange.forget_asked(self.to, self.id);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.exchange.forget_asked(self.to, self.id).is_some() {
            self.exchange.tell(self.to, self.id, Content::Cancel);
        }
    }
}

/// A request of a client there.
pub(super) struct Serving {
    pub(super) exchange: Arc<Exchange>,
    pub(super) from: Instance,
    pub(super) id: u64,
    pub(super) leaves: oneshot::Receiver<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _cancelled = self.exchange.change(self.from, |peer| peer.served.remove(&self.id));
        let mut under_way = self.exchange.under_way();
        under_way.served -= 1;
        if under_way.served == 0 {
            self.exchange.idle.notify_waiters();
        }
    }
}

/// Bytes of a body on its way, as a share of the limit.
pub(super) struct Held<'a> {
    exchange: &'a Exchange,
    bytes: usize,
}

impl<'a> Held<'a> {
    pub(super) fn new(exchange: &'a Exchange) -> Self {
        Self { exchange, bytes: 0 }
    }

    /// Takes a larger share; false where there is none.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let max = self.exchange.config.max_bytes;
        let grown = self
            .exchange
            .bytes
            .fetch_update(AcqRel, Acquire, |held| held.checked_add(more).filter(|held| *held <= max));
        if grown.is_ok() {
            self.bytes += more;
        }
        grown.is_ok()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.exchange.bytes.fetch_sub(self.bytes, AcqRel);
    }
}
