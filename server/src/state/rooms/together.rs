//! The part of the state that has to do with other instances; see [`cluster`](crate::state::cluster).
//!
//! The room in memory is a copy. What others change is heard in the order of the room and made here too; what is changed
//! here counts once the cluster has taken it. Whatever Redis does not answer to has not happened as far as anybody is
//! told, and the copy catches up before it is used again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use super::cell::{Cell, Live};
use super::{Held, Publisher, Shared, drain, room_not_found, unavailable};
use crate::redis::Notice as Heard;
use crate::state::cluster::leases::Leases;
use crate::state::cluster::{Cluster, Committed, Entry, News, Notice, Point, Trouble};
use crate::store::RoomStore;
use crate::sync::event::{ErrorCode, Refusal};
use crate::sync::room::replica::Diff;
use crate::sync::room::{Command, ConnectionId, Effect, Room};
use crate::sync::rows::RowChange;

/// Where a room's copy stands, and what is still to be told to the others.
#[derive(Debug)]
pub(in crate::state) struct Together {
    at: Point,
    /// What has happened here and could not be told yet.
    facts: VecDeque<Command>,
    /// When to try again what could not be done.
    pub(super) retry_at: Option<i64>,
    /// When to compare the room with its rows.
    pub(super) compare_at: Option<i64>,
}

/// Changes that were heard of and wait for the room.
#[derive(Debug, Default)]
pub(in crate::state) struct Inbox {
    entries: Mutex<VecDeque<Entry>>,
    /// Set where something may have been missed: the copy has to be brought up to date before it is used.
    is_stale: AtomicBool,
    /// Whether a task is about to make the changes.
    is_led: AtomicBool,
}

/// What this instance knows of the others.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) cluster: Cluster,
    leases: Mutex<Leases>,
    /// The rooms in memory by the channel of their changes.
    channels: Mutex<FxHashMap<String, Arc<Cell>>>,
    /// Held while a room is begun or ended to be listened to, so that the second of two does not undo the first.
    listening: tokio::sync::Mutex<()>,
}

impl Together {
    fn new(at: Point, compare_at: i64) -> Self {
        Self { at, facts: VecDeque::new(), retry_at: None, compare_at: Some(compare_at) }
    }

    /// When the room has to be looked after for the sake of the others.
    pub(super) fn next(&self) -> Option<i64> {
        let retry = self.retry_at.filter(|_| !self.facts.is_empty());
        [retry, self.compare_at].into_iter().flatten().min()
    }
}

impl Inbox {
    fn push(&self, entry: Entry) {
        let mut entries = self.entries();
        if entries.len() < MOST_WAITING {
            entries.push_back(entry);
        } else {
            entries.clear();
            self.is_stale.store(true, Ordering::Relaxed);
        }
    }

    fn pop(&self) -> Option<Entry> {
        self.entries().pop_front()
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbours {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, leases: Mutex::default(), channels: Mutex::default(), listening: tokio::sync::Mutex::default() }
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channels(&self) -> MutexGuard<'_, FxHashMap<String, Arc<Cell>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a room needs no copy here: others have members in it, and would look after it.
    pub(super) fn look_after(&self, room: &Room) -> bool {
        let own = self.cluster.instance();
        room.connections_of(own) == 0 && {
            let leases = self.leases();
            room.instances().any(|instance| instance != own && leases.is_live(instance))
        }
    }
}

impl<S: RoomStore, P: Publisher> Shared<S, P> {
    /// Reads a room for which there are others, and begins to listen to it.
    pub(super) async fn load_together(&self, cell: &Arc<Cell>, neighbours: &Neighbours) -> Result<Live, Refusal> {
        let cluster = &neighbours.cluster;
        let row = self.ask(self.store.room_by_code(&cell.code)).await;
        let row = row.map_err(|fault| fault.refusal_of("a room could not be loaded"))?.ok_or_else(room_not_found)?;
        {
            let _turn = neighbours.listening.lock().await;
            cluster.look_after(std::slice::from_ref(&cell.code)).await.map_err(|trouble| refused(&row.id, &trouble))?;
            cluster.follow(&row.id).await.map_err(|trouble| refused(&row.id, &trouble))?;
            neighbours.channels().insert(cluster.channel(&row.id), Arc::clone(cell));
        }
        let known = cluster.news(&row.id, None).await.map_err(|trouble| refused(&row.id, &trouble))?;
        let reading = async { Ok((self.store.participants(&row.id).await?, self.store.playback(&row.id).await?)) };
        let (participants, playback) =
            self.ask(reading).await.map_err(|fault| fault.refusal_of("a room could not be loaded"))?;
        let now_ms = self.clock.now_ms();
        let options = self.options.room;
        let stored = playback.as_ref().map(|row| (row.sequence, row.sequence_limit));
        let room_id = row.id.clone();
        let (at, whole) = match known {
            News::Whole(at, whole) => (at, whole),
            News::Entries(_) | News::Lost => {
                let room = Room::load(row, participants, playback, now_ms, now_ms + options.grace_ms, options);
                let restored = cluster.restore(&room, Point::start()).await;
                restored.map_err(|trouble| refused(&room_id, &trouble))?;
                match cluster.news(&room_id, None).await.map_err(|trouble| refused(&room_id, &trouble))? {
                    News::Whole(at, whole) => (at, whole),
                    News::Entries(_) | News::Lost => return Err(unavailable()),
                }
            }
        };
        let mut room = Room::take_up(*whole, options).ok_or_else(unavailable)?;
        if room.is_closed() {
            return Err(room_not_found());
        }
        if let Some((sequence, limit)) = stored.filter(|(sequence, _)| *sequence > room.sequence()) {
            warn!(room = %room_id, sequence, "Redis has an older state of a room than the store");
            room.skip_sequence(limit);
        }
        let mut live = Live::new(room);
        live.together = Some(Together::new(at, now_ms + COMPARE_AFTER_MS));
        Ok(live)
    }

    /// Listens no more to a room that has left memory.
    pub(super) fn let_go(self: &Arc<Self>, cell: &Cell) {
        if self.neighbours.is_none() {
            return;
        }
        let (shared, key, code) = (Arc::clone(self), cell.key, cell.code.clone());
        tokio::spawn(async move {
            let Some(neighbours) = &shared.neighbours else { return };
            let _turn = neighbours.listening.lock().await;
            let channel = {
                let mut channels = neighbours.channels();
                let channel = channels.iter().find(|(_, cell)| cell.key == key).map(|(channel, _)| channel.clone());
                channel.inspect(|channel| drop(channels.remove(channel)))
            };
            let Some(channel) = channel else { return };
            neighbours.cluster.forget(&channel).await;
            // If it is not taken note of, another instance loads the room once too often.
            let _unavailable = neighbours.cluster.leave_alone(&code).await;
        });
    }

    /// Brings the copy up to date with what was heard of.
    pub(super) async fn follow(&self, held: &mut Held) -> Result<(), Refusal> {
        if held.live.together.is_none() {
            return Ok(());
        }
        if held.cell.inbox.is_stale.load(Ordering::Relaxed) {
            return self.refresh(held).await;
        }
        while let Some(entry) = held.cell.inbox.pop() {
            let Some(together) = &held.live.together else { break };
            if entry.is_known_at(together.at) {
                continue;
            }
            if !entry.follows(together.at) {
                return self.refresh(held).await;
            }
            self.make(held, entry);
        }
        Ok(())
    }

    /// Asks the cluster what has happened, and brings the copy up to date.
    pub(super) async fn refresh(&self, held: &mut Held) -> Result<(), Refusal> {
        let at = held.live.together.as_ref().map(|together| together.at);
        self.refresh_from(held, at).await
    }

    async fn refresh_from(&self, held: &mut Held, at: Option<Point>) -> Result<(), Refusal> {
        let Some(neighbours) = &self.neighbours else { return Ok(()) };
        let inbox = Arc::clone(&held.cell);
        let inbox = &inbox.inbox;
        inbox.is_stale.store(true, Ordering::Relaxed);
        inbox.entries().clear();
        let room_id = held.live.room.row().id.clone();
        match neighbours.cluster.news(&room_id, at).await.map_err(|trouble| refused(&room_id, &trouble))? {
            News::Entries(entries) => entries.into_iter().for_each(|entry| self.make(held, entry)),
            News::Whole(at, whole) => self.replace(held, at, *whole),
            News::Lost => self.bring_back(held, neighbours).await?,
        }
        inbox.is_stale.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Gives Redis back what it has lost, and takes over what an instance that knew more has given back.
    async fn bring_back(&self, held: &mut Held, neighbours: &Neighbours) -> Result<(), Refusal> {
        let room_id = held.live.room.row().id.clone();
        let row = self.ask(self.store.room_by_id(&room_id)).await;
        if row.map_err(|fault| fault.refusal_of(&room_id))?.is_none() {
            // It is a fact; no room refuses it.
            let _ = held.live.room.handle(Command::Vanished, self.clock.now_ms());
            let effects = drain(&mut held.live.room);
            self.publish(held, effects);
            return Ok(());
        }
        let Some(at) = held.live.together.as_ref().map(|together| together.at) else { return Ok(()) };
        warn!(room = %room_id, "Redis has lost a room, which is brought back");
        let cluster = &neighbours.cluster;
        let restoring = cluster.restore(&held.live.room, at).await;
        restoring.map_err(|trouble| refused(&room_id, &trouble))?;
        // Another instance may know of later changes.
        sleep(SETTLE).await;
        match cluster.news(&room_id, Some(at)).await.map_err(|trouble| refused(&room_id, &trouble))? {
            News::Entries(entries) => entries.into_iter().for_each(|entry| self.make(held, entry)),
            News::Whole(at, whole) => self.replace(held, at, *whole),
            News::Lost => return Err(unavailable()),
        }
        Ok(())
    }

    /// Makes a change that was made elsewhere, or here without our knowing, and tells our own connections of it.
    fn make(&self, held: &mut Held, entry: Entry) {
        let Some(neighbours) = &self.neighbours else { return };
        let own = neighbours.cluster.instance();
        let live = &mut *held.live;
        let Some(together) = &mut live.together else { return };
        together.at = entry.point();
        if entry.instance == own {
            // It was answered for as if it had not happened, and its rows may have been taken back.
            for (key, record) in &entry.diff.seats {
                let change = match record {
                    Some(record) => Some(RowChange::UpsertParticipant(record.row.clone())),
                    None => live.room.row_of(*key).map(|row| RowChange::RemoveParticipant(row.id.clone())),
                };
                if let Some(change) = change {
                    live.backlog.push(change);
                }
            }
            if let Some(row) = &entry.diff.row {
                live.backlog.push(RowChange::SaveRoom(row.clone()));
            }
        }
        let seated = entry.diff.seats.iter().filter_map(|(_, record)| record.as_ref()?.connection());
        let strangers = seated
            .filter(|connection| connection.instance() == own && !self.connections.is_in(*connection, &held.cell));
        for connection in strangers {
            together.note(Command::Disconnected { connection, deliberate: true }, self.clock.now_ms());
        }
        live.room.apply(entry.diff);
        let room_id = Arc::clone(live.room.row());
        for notice in entry.notices {
            match notice {
                Notice::Send { to, name, payload } => self.publisher.relay(&room_id.id, to, &name, &payload),
                Notice::Remove(connection) => self.remove(&room_id.id, connection),
                Notice::Cut(connection) => self.cut(connection),
            }
        }
    }

    /// Puts a state in place of the copy, and tells our own connections what they have missed.
    fn replace(&self, held: &mut Held, at: Point, whole: Diff) {
        let Some(neighbours) = &self.neighbours else { return };
        let own = neighbours.cluster.instance();
        let Some(room) = Room::take_up(whole, self.options.room) else { return };
        let live = &mut *held.live;
        let missed = live.room.missed(&room, own, self.clock.now_ms());
        let strangers: Vec<_> = room
            .members_of(own)
            .into_iter()
            .filter(|connection| !self.connections.is_in(*connection, &held.cell))
            .collect();
        live.room = room;
        if let Some(together) = &mut live.together {
            together.at = at;
            for connection in strangers {
                together.note(Command::Disconnected { connection, deliberate: true }, self.clock.now_ms());
            }
        }
        self.publish(held, missed);
    }

    /// Asks the cluster to take what has changed since the room's mark, and what follows from it. `false` where others
    /// were faster: the room is what they have made of it then, and the command is to be tried again.
    ///
    /// # Errors
    /// UNAVAILABLE where the cluster cannot be asked; the room is what it was at its mark.
    pub(super) async fn commit(&self, held: &mut Held, effects: &[Effect]) -> Result<bool, Refusal> {
        let (Some(neighbours), Some(together)) = (&self.neighbours, &held.live.together) else {
            held.live.room.keep();
            return Ok(true);
        };
        if !held.live.room.has_changed() {
            held.live.room.keep();
            return Ok(true);
        }
        let room = &held.live.room;
        let room_id = Arc::clone(room.row());
        let committed = match Notice::of(effects) {
            Ok(notices) => neighbours.cluster.commit(room, together.at, room.diff(), notices).await,
            Err(trouble) => Err(trouble),
        };
        match committed {
            Ok(Committed::Done(at)) => {
                held.live.room.keep();
                if let Some(together) = &mut held.live.together {
                    together.at = at;
                }
                return Ok(true);
            }
            Ok(Committed::Behind(entries)) => {
                held.live.room.revert();
                entries.into_iter().for_each(|entry| self.make(held, entry));
            }
            Ok(Committed::Astray) => {
                held.live.room.revert();
                self.refresh_from(held, None).await?;
            }
            Ok(Committed::Lost) => {
                held.live.room.revert();
                self.bring_back(held, neighbours).await?;
            }
            Err(trouble) => {
                held.live.room.revert();
                // It may have been made.
                held.cell.inbox.is_stale.store(true, Ordering::Relaxed);
                return Err(refused(&room_id.id, &trouble));
            }
        }
        Ok(false)
    }

    /// Has a fact told to the others as soon as that can be done.
    pub(super) fn tell_later(&self, held: &mut Held, fact: Command) {
        if let Some(together) = &mut held.live.together {
            together.note(fact, self.clock.now_ms());
        }
    }

    /// Tells the others what could not be told before.
    pub(super) async fn tell_facts(&self, held: &mut Held) -> Result<(), Refusal> {
        while let Some(fact) = held.live.together.as_ref().and_then(|together| together.facts.front().cloned()) {
            match self.change(held, fact).await {
                Err(refusal) if refusal.code == ErrorCode::Unavailable => return Err(refusal),
                // A fact that has no effect any more is none.
                Ok(()) | Err(_) => {}
            }
            if let Some(together) = &mut held.live.together {
                together.facts.pop_front();
            }
        }
        Ok(())
    }

    /// Brings rows and room together where an instance has ended between writing one and the other.
    async fn compare(&self, held: &mut Held) -> Result<(), Refusal> {
        self.refresh(held).await?;
        let room_id = Arc::clone(held.live.room.row());
        let rows = self.ask(self.store.participants(&room_id.id)).await;
        let rows = rows.map_err(|fault| fault.refusal_of(&room_id.id))?;
        // What is younger may be about to be seated, or given up.
        let settled_ms = self.clock.now_ms() - COMPARE_AFTER_MS;
        let seated: FxHashMap<_, _> =
            held.live.room.participant_rows().map(|row| (row.id.clone(), Arc::clone(row))).collect();
        let stored: BTreeSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        let surplus = rows.iter().filter(|row| row.joined_at_ms <= settled_ms && !seated.contains_key(&row.id));
        let surplus = surplus.map(|row| RowChange::RemoveParticipant(row.id.clone()));
        let missing = seated.values().filter(|row| row.joined_at_ms <= settled_ms && !stored.contains(&row.id));
        let missing = missing.map(|row| RowChange::UpsertParticipant((**row).clone()));
        let changes: Vec<_> = surplus.chain(missing).collect();
        if !changes.is_empty() {
            warn!(room = %room_id.id, rows = changes.len(), "rows of a room were not what it is, and are now");
            for change in changes {
                held.live.backlog.push(change);
            }
        }
        Ok(())
    }

    /// Waits a little for other instances to remove a row that is in the way of another, or removes it where none will.
    /// `false` where there are no others.
    pub(super) async fn make_way(&self, held: &mut Held) -> bool {
        if held.live.together.is_none() {
            return false;
        }
        sleep(MAKE_WAY).await;
        // If it cannot be compared, the next try says so.
        let _unavailable = self.compare(held).await;
        true
    }

    /// [Compares](Self::compare) a room with its rows if it is time to.
    pub(super) async fn compare_if_due(&self, held: &mut Held) {
        let now_ms = self.clock.now_ms();
        let due = held.live.together.as_mut().map(|together| &mut together.compare_at);
        let Some(due) = due.filter(|due| due.is_some_and(|at_ms| at_ms <= now_ms)) else { return };
        *due = None;
        if self.compare(held).await.is_err()
            && let Some(together) = &mut held.live.together
        {
            together.compare_at = Some(now_ms + COMPARE_AFTER_MS);
        }
    }

    /// Whether other instances would go on with a room that is not in memory here.
    pub(super) fn is_looked_after(&self, room: &Room) -> bool {
        self.neighbours.as_ref().is_some_and(|neighbours| neighbours.look_after(room))
    }

    /// Whether a room that is not in memory here has members on other instances.
    pub(super) async fn has_members_elsewhere(&self, room_id: &str) -> Result<bool, Trouble> {
        match &self.neighbours {
            Some(neighbours) => neighbours.cluster.has_members(room_id).await,
            None => Ok(false),
        }
    }

    pub(super) fn remove(&self, room_id: &str, connection: ConnectionId) {
        self.publisher.remove(room_id, connection);
        self.connections.remove(connection);
    }

    /// Closes a connection of ours that has lost its seat.
    pub(super) fn cut(&self, connection: ConnectionId) {
        let own = self.neighbours.as_ref().map(|neighbours| neighbours.cluster.instance());
        if own == Some(connection.instance()) {
            self.publisher.cut(connection);
        }
    }

    /// Gives up all seats of connections here, so that they wait for their participants on the other instances.
    pub(super) async fn take_leave(self: &Arc<Self>) {
        let Some(neighbours) = &self.neighbours else { return };
        let instance = neighbours.cluster.instance();
        let cells: Vec<_> = self.cells().values().cloned().collect();
        at_once(cells, |cell| {
            let shared = Arc::clone(self);
            async move {
                let slot = Arc::clone(&cell.slot).lock_owned().await;
                let Ok(mut held) = Held::of(cell, slot) else { return };
                // If it cannot be told, the others find out by themselves.
                let _unavailable = shared.lose(&mut held, instance).await;
            }
        })
        .await;
        if let Err(trouble) = neighbours.cluster.resign().await {
            warn!(%trouble, "the other instances could not be told that this one goes");
        }
    }

    pub(super) async fn lose(&self, held: &mut Held, instance: u32) -> Result<(), Refusal> {
        self.tell_facts(held).await?;
        self.change(held, Command::InstanceLost { instance }).await
    }
}

impl Together {
    fn note(&mut self, fact: Command, now_ms: i64) {
        // At most one for each connection that was here, and one for each that was not let in.
        if self.facts.len() < MOST_FACTS {
            self.facts.push_back(fact);
        } else {
            warn!("gave up what could not be told to other instances");
        }
        self.retry_at.get_or_insert(now_ms);
    }
}

/// Hands the changes that others have made to their rooms, until there is nothing more to hear.
pub(super) async fn hear<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, mut incoming: Receiver<Heard>) {
    while let Some(message) = incoming.recv().await {
        let Some(neighbours) = &shared.neighbours else { return };
        match message {
            Heard::Message { channel, payload } => {
                let Some(cell) = neighbours.channels().get(&channel).cloned() else { continue };
                let Some(entry) = Entry::read(&payload) else {
                    warn!("Redis told of a change that cannot be read");
                    cell.inbox.is_stale.store(true, Ordering::Relaxed);
                    continue;
                };
                if entry.instance != neighbours.cluster.instance() {
                    cell.inbox.push(entry);
                    lead(&shared, cell);
                }
            }
            Heard::Missed(missed) => {
                info!(rooms = missed.len(), "changes of other instances may have been missed");
                let cells: Vec<_> = {
                    let channels = neighbours.channels();
                    missed.iter().filter_map(|channel| channels.get(channel)).cloned().collect()
                };
                for cell in &cells {
                    cell.inbox.is_stale.store(true, Ordering::Relaxed);
                }
                tokio::spawn(catch_up_with(Arc::clone(&shared), cells));
            }
        }
    }
}

/// Brings rooms up to date of which something may have been missed, and Redis as well, if it is that which has lost something.
async fn catch_up_with<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, cells: Vec<Arc<Cell>>) {
    let Some(neighbours) = &shared.neighbours else { return };
    let codes: Vec<_> = cells.iter().map(|cell| cell.code.clone()).collect();
    for codes in codes.chunks(CODES_AT_ONCE) {
        if let Err(trouble) = neighbours.cluster.look_after(codes).await {
            warn!(%trouble, "the rooms here could not be taken note of");
        }
    }
    at_once(cells, |cell| make_all(Arc::clone(&shared), cell)).await;
}

/// Has the changes that wait for a room made, unless somebody is about to.
fn lead<S: RoomStore, P: Publisher>(shared: &Arc<Shared<S, P>>, cell: Arc<Cell>) {
    if !cell.inbox.is_led.swap(true, Ordering::AcqRel) {
        tokio::spawn(make_all(Arc::clone(shared), cell));
    }
}

async fn make_all<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, cell: Arc<Cell>) {
    let slot = Arc::clone(&cell.slot).lock_owned().await;
    // What comes from here on needs another turn.
    cell.inbox.is_led.store(false, Ordering::Release);
    let Ok(mut held) = Held::of(cell, slot) else { return };
    // The copy stays as it is, and catches up when it is used.
    if shared.follow(&mut held).await.is_err() {
        held.retry_later(shared.clock.now_ms());
    }
    shared.reschedule(&mut held);
}

/// Does something for each of many, so many at a time that Redis and the store are not flooded.
pub(super) async fn at_once<T, F: Future<Output = ()> + Send + 'static>(
    all: impl IntoIterator<Item = T>,
    task: impl Fn(T) -> F,
) {
    let mut all = all.into_iter();
    let mut tasks: JoinSet<()> = all.by_ref().take(TASKS_AT_ONCE).map(&task).collect();
    while tasks.join_next().await.is_some() {
        if let Some(next) = all.next() {
            tasks.spawn(task(next));
        }
    }
}

impl Held {
    /// Has the room compared with its rows in a while.
    pub(super) fn compare_later(&mut self, now_ms: i64) {
        if let Some(together) = &mut self.live.together {
            // Not all rooms of an instance at once.
            let spread_ms = (self.cell.key % SPREAD).cast_signed() * 100;
            together.compare_at = Some(now_ms + COMPARE_AFTER_MS + spread_ms);
        }
    }

    /// Notes that what could not be done is to be tried again.
    pub(super) fn retry_later(&mut self, now_ms: i64) {
        if let Some(together) = &mut self.live.together {
            together.retry_at = Some(now_ms + RETRY_AFTER_MS);
        }
    }
}

/// Logs why the cluster could not be asked, and says that it is unavailable.
fn refused(room_id: &str, trouble: &Trouble) -> Refusal {
    warn!(room = room_id, %trouble, "Redis is unavailable");
    unavailable()
}

/// How often a command is tried again because others were faster.
pub(super) const MOST_TRIES: usize = 100;

/// How many changes may wait for a room that is busy; past it, they are asked for.
const MOST_WAITING: usize = 256;

/// How many facts of one room may wait for Redis: more than there are connections in any.
const MOST_FACTS: usize = 65_536;

/// How long what failed for want of Redis waits for another try.
const RETRY_AFTER_MS: i64 = 1_000;

/// How long a row may have been written without its change being made: the deadlines of both, and a little.
const COMPARE_AFTER_MS: i64 = 5_000;

/// Into how many tenths of a second the comparisons after the loss of an instance are spread.
const SPREAD: u64 = 50;

/// How long a row may be in the way of another before somebody looks whether it still should be.
const MAKE_WAY: Duration = Duration::from_millis(25);

/// How long other instances are given to bring back what they know of a room.
const SETTLE: Duration = Duration::from_millis(200);

/// How many rooms are looked after at a time.
const TASKS_AT_ONCE: usize = 32;

/// How many rooms are named in one request.
const CODES_AT_ONCE: usize = 1_000;
