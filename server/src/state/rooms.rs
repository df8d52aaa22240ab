//! The rooms in this process.
//!
//! Each room is behind a lock of its own, loaded when it is first wanted and dropped once it has been empty for a while.
//! A durable command is handled and written before anybody hears of it, and taken back if it cannot be written; what
//! everything else changes goes to a backlog that is flushed a moment later. Those who join while a room is busy are
//! written together. One task waits for all rooms' deadlines. A store that hangs stops the room's waiting command only
//! once: from then on durable commands fail at once, until the store answers a ping, and playback goes on meanwhile.
//!
//! Where there are other instances, a change counts once all of them can know of it; see [`cluster`](super::cluster).

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Notify, OwnedMappedMutexGuard, OwnedMutexGuard};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::cluster::Cluster;
use super::{Joiner, Occupancy, Publisher, StateOptions};
use crate::id;
use crate::incident;
use crate::redis::Notice;
use crate::store::{RoomStore, StoreError};
use crate::sync::clock::Clock;
use crate::sync::event::{ErrorCode, Refusal, RoomState, RoomView};
use crate::sync::room::{Command, ConnectionId, Editor, Effect, Join, ResumeToken, Room};
use crate::sync::rows::RowChange;

mod alarms;
mod arrivals;
mod cell;
mod connections;
mod instances;
#[cfg(test)]
mod tests;
mod together;
mod upkeep;

use alarms::Alarms;
use arrivals::{Answer, Arrival};
use cell::{Cell, Live, MAX_UNDONE, SEQUENCE_BLOCK, Slot};
use connections::{Claim, Connections};
use together::{MOST_TRIES, Neighbours};

/// The rooms of this process. Clones are handles to the same ones.
///
/// What is asked for takes effect even if the one who asked stops waiting.
#[derive(Debug)]
pub struct Rooms<S, P>(Arc<Shared<S, P>>);

/// A connection's way into a room that exists. Dropped without [`join`](Self::join), the connection is in no room.
#[derive(Debug)]
pub struct Admission<S, P> {
    shared: Arc<Shared<S, P>>,
    claim: Claim,
    cell: Arc<Cell>,
    password_hash: Option<String>,
}

#[derive(Debug)]
struct Shared<S, P> {
    store: Arc<S>,
    publisher: P,
    clock: Clock,
    options: StateOptions,
    cells: Mutex<FxHashMap<String, Arc<Cell>>>,
    connections: Arc<Connections>,
    alarms: Alarms,
    keys: AtomicU64,
    /// Set while the store hangs; nobody waits for it then.
    store_hangs: AtomicBool,
    closing: AtomicBool,
    stop: Notify,
    stopped: Notify,
    /// The other instances, where there may be any.
    neighbours: Option<Neighbours>,
}

/// A room, locked, and its place.
struct Held {
    cell: Arc<Cell>,
    live: OwnedMappedMutexGuard<Slot, Live>,
}

impl Held {
    /// Takes hold of the room in a place; gives the place back where there is none.
    fn of(cell: Arc<Cell>, slot: OwnedMutexGuard<Slot>) -> Result<Self, OwnedMutexGuard<Slot>> {
        let mut live = OwnedMutexGuard::try_map(slot, |slot| match slot {
            Slot::Loaded(live) => Some(&mut **live),
            Slot::Empty | Slot::Gone(_) => None,
        })?;
        // What a panic has left half done was not written.
        live.room.revert();
        Ok(Self { cell, live })
    }
}

impl<S, P> Clone for Rooms<S, P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: RoomStore, P: Publisher> Rooms<S, P> {
    /// Starts with no room in memory, and the one task that keeps the deadlines.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(store: Arc<S>, publisher: P, clock: Clock, options: StateOptions) -> Self {
        Self::start_with(store, publisher, clock, options, None)
    }

    /// Starts as one instance of a cluster, which hears of the others by `incoming`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start_in(
        cluster: Cluster,
        incoming: Receiver<Notice>,
        store: Arc<S>,
        publisher: P,
        clock: Clock,
        options: StateOptions,
    ) -> Self {
        let state = Self::start_with(store, publisher, clock, options, Some(Neighbours::new(cluster)));
        tokio::spawn(together::hear(Arc::clone(&state.0), incoming));
        tokio::spawn(instances::watch(Arc::clone(&state.0)));
        state
    }

    fn start_with(
        store: Arc<S>,
        publisher: P,
        clock: Clock,
        options: StateOptions,
        neighbours: Option<Neighbours>,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            publisher,
            clock,
            options,
            cells: Mutex::default(),
            connections: Arc::default(),
            alarms: Alarms::default(),
            keys: AtomicU64::new(0),
            store_hangs: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            stop: Notify::new(),
            stopped: Notify::new(),
            neighbours,
        });
        tokio::spawn(upkeep::keep_deadlines(Arc::clone(&shared)));
        Self(shared)
    }

    /// Lets a connection on its way into the room with this code, in upper case.
    ///
    /// # Errors
    /// ALREADY_IN_ROOM where the connection is in a room or on its way into one, then ROOM_NOT_FOUND; UNAVAILABLE and
    /// INTERNAL_ERROR for what is ours.
    pub async fn open(&self, connection: ConnectionId, code: &str) -> Result<Admission<S, P>, Refusal> {
        let claim = self.0.begin(connection).await;
        let claim = claim.ok_or_else(|| Refusal::new(ErrorCode::AlreadyInRoom, "you are in a room already"))?;
        let held = self.0.existing(code).await?;
        let password_hash = held.live.room.row().password_hash.clone();
        Ok(Admission { shared: Arc::clone(&self.0), claim, cell: held.cell, password_hash })
    }

    /// Carries out what a member asks for. Joins go through [`open`](Self::open).
    ///
    /// # Errors
    /// NOT_IN_ROOM where the connection is in none, else what the room answers; UNAVAILABLE and INTERNAL_ERROR for what
    /// is ours. Nothing has changed then.
    pub async fn member(&self, command: Command) -> Result<(), Refusal> {
        let cell = command.connection().and_then(|connection| self.0.connections.room_of(connection));
        let cell = cell.ok_or_else(not_in_room)?;
        let held = self.0.hold(cell).await?;
        if let Command::Measured { connection, round_trip_ms } = command
            && held.live.together.is_some()
            && !held.live.room.is_worth_telling(connection, round_trip_ms)
        {
            return Ok(());
        }
        Arc::clone(&self.0).run(held, command).await
    }

    /// The number of this instance, for the numbers of its connections; 0 where it is the only one.
    pub fn instance(&self) -> u32 {
        self.0.neighbours.as_ref().map_or(0, |neighbours| neighbours.cluster.instance())
    }

    /// Carries out what a user asks for from outside the room: [`Command::Delete`], or an update as [`Editor::User`].
    ///
    /// # Errors
    /// ROOM_NOT_FOUND, else as [`member`](Self::member).
    pub async fn outside(&self, code: &str, command: Command) -> Result<(), Refusal> {
        let held = self.0.existing(code).await?;
        Arc::clone(&self.0).run(held, command).await
    }

    /// Takes note of a connection's end. To be called once for each connection, whether or not it is in a room.
    ///
    /// A connection that ends on its way into a room does not arrive. After [`shutdown`](Self::shutdown) nothing
    /// happens, so that the seats are there for who comes back.
    pub async fn disconnected(&self, connection: ConnectionId, deliberate: bool) {
        let Some(cell) = self.0.connections.end(connection) else { return };
        if let Ok(held) = self.0.hold(cell).await {
            // A disconnection is a fact; no room refuses it.
            let _ = Arc::clone(&self.0).note(held, Command::Disconnected { connection, deliberate }).await;
        }
    }

    /// Whether this editor may change the settings of a room; asked before a password is hashed for them.
    ///
    /// # Errors
    /// As the update would be refused.
    pub async fn check_editor(&self, code: Option<&str>, editor: &Editor) -> Result<(), Refusal> {
        let held = match (editor, code) {
            (Editor::Member(connection), _) => {
                self.0.hold(self.0.connections.room_of(*connection).ok_or_else(not_in_room)?).await?
            }
            (Editor::User(_), Some(code)) => self.0.existing(code).await?,
            (Editor::User(_), None) => return Err(room_not_found()),
        };
        held.live.room.check_editor(editor)
    }

    /// The room with this code, and how many seats of it are taken.
    ///
    /// # Errors
    /// ROOM_NOT_FOUND; UNAVAILABLE and INTERNAL_ERROR for what is ours.
    pub async fn view(&self, code: &str) -> Result<(RoomView, usize), Refusal> {
        let held = self.0.existing(code).await?;
        Ok((held.live.room.view(), held.live.room.participant_count()))
    }

    /// How much there is in memory.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy { rooms: self.0.cells().len(), connections: self.0.connections.count() }
    }

    /// The clock rooms run on.
    pub fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// Stops: refuses everything from now on, and writes what is still to be written.
    ///
    /// Nobody leaves by this; the seats stay in the store. To be called before connections are closed; a second call
    /// returns at once. Waits for a store that hangs no longer than twice its deadline.
    pub async fn shutdown(&self) {
        if self.0.closing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.0.stop.notify_one();
        self.0.stopped.notified().await;
        if timeout(2 * self.0.options.store_deadline, self.0.take_leave()).await.is_err() {
            warn!("the other instances could not be told in time that this one goes");
        }
        upkeep::write_everything(&self.0).await;
    }
}

#[cfg(test)]
impl<S: RoomStore, P: Publisher> Rooms<S, P> {
    /// Stops all work without a notice to other instances, as if the process had ended.
    pub(in crate::state) fn die(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
        self.0.stop.notify_one();
    }
}

impl<S: RoomStore, P: Publisher> Admission<S, P> {
    /// What a password shown by the joiner is to be verified against; none where the room needs no password.
    pub fn password_hash(&self) -> Option<&str> {
        self.password_hash.as_deref()
    }

    /// Takes the seat. `room:state` has been sent when this returns, and its value is the answer.
    ///
    /// # Errors
    /// ROOM_NOT_FOUND, INVALID_PASSWORD, UNAUTHORIZED or ROOM_FULL, checked in this order; UNAVAILABLE and
    /// INTERNAL_ERROR for what is ours, and UNAVAILABLE where the connection has ended meanwhile.
    pub async fn join(self, joiner: Joiner) -> Result<Arc<RoomState>, Refusal> {
        let Self { shared, claim, cell, .. } = self;
        let join = Join {
            connection: claim.connection,
            socket_id: joiner.socket_id,
            identity: joiner.identity,
            resume_hash: joiner.resume_token.as_deref().map(id::resume_hash),
            proved_hash: joiner.proved_hash,
            participant_id: id::row_id(),
            oder_id: id::order_id(),
            token: ResumeToken::new(id::resume_token()),
        };
        let (arrival, answer) = Arrival::new(join, claim);
        if cell.arrivals.push(arrival) {
            tokio::spawn(shared.lead(cell));
        }
        answer.await.unwrap_or_else(|_| Err(internal("a join was lost")))
    }
}

impl<S: RoomStore, P: Publisher> Shared<S, P> {
    /// Notes that a connection is on its way into a room; none if it is in one, or on its way, already.
    async fn begin(&self, connection: ConnectionId) -> Option<Claim> {
        if let Some(claim) = self.connections.begin(connection) {
            return Some(claim);
        }
        // A room tells a connection to go and lets it go under one lock, and the client may be faster than the second.
        if let Some(cell) = self.connections.room_of(connection) {
            drop(cell.slot.lock().await);
        }
        self.connections.begin(connection)
    }

    /// Takes those who wait for a room into it, until nobody waits.
    async fn lead(self: Arc<Self>, cell: Arc<Cell>) {
        let mut lead = cell.arrivals.lead();
        while lead.goes_on() {
            // Whoever comes while the room is busy is taken along.
            let room = self.existing(&cell.code).await;
            let arrivals = lead.take();
            match room {
                Ok(mut held) => {
                    self.seat(&mut held, arrivals).await;
                    self.reschedule(&mut held);
                }
                Err(refusal) => arrivals.into_iter().for_each(|arrival| self.turn_away(arrival, refusal.clone())),
            }
        }
    }

    /// Gives seats to those who get one, in the order in which they came, and answers all of them.
    async fn seat(&self, held: &mut Held, arrivals: Vec<Arrival>) {
        let mut groups = VecDeque::from([arrivals]);
        let until = Instant::now() + self.options.store_deadline;
        while let Some(group) = groups.pop_front() {
            let is_late = held.live.together.is_some() && Instant::now() > until;
            let ready = if is_late { Err(unavailable()) } else { self.prepare(held).await };
            match ready {
                Ok(()) => groups.extend(self.seat_at_once(held, group).await),
                Err(refusal) => group.into_iter().for_each(|arrival| self.turn_away(arrival, refusal.clone())),
            }
        }
    }

    /// Makes sure that the room is what it is by now, wherever it was changed.
    async fn prepare(&self, held: &mut Held) -> Result<(), Refusal> {
        self.refresh(held).await?;
        self.catch_up(held).await
    }

    /// Gives seats to a group with one write. If it takes more than that, nothing has happened to those returned, who
    /// are to be tried again in these groups.
    async fn seat_at_once(&self, held: &mut Held, group: Vec<Arrival>) -> Vec<Vec<Arrival>> {
        held.live.room.mark();
        let (mut changes, mut seated) = (Vec::new(), Vec::with_capacity(group.len()));
        for arrival in group {
            let room = &mut held.live.room;
            match room.handle(Command::Join(Box::new(arrival.join.clone())), self.clock.now_ms()) {
                Ok(()) => {
                    let (rows, effects) = split(drain(room));
                    changes.extend(rows);
                    seated.push((arrival, effects));
                }
                Err(refusal) => self.turn_away(arrival, refusal),
            }
        }
        if seated.is_empty() {
            held.live.room.keep();
            return Vec::new();
        }
        if let Err(fault) = self.store_changes(held, &changes).await {
            let group = seated.into_iter().map(|(arrival, _)| arrival);
            if group.len() > 1 && fault.is_of_one_row() {
                return group.map(|arrival| vec![arrival]).collect();
            }
            if fault.is_conflict() && self.make_way(held).await {
                return vec![group.collect()];
            }
            let refusal = fault.refusal(&held.live.room);
            group.for_each(|arrival| self.turn_away(arrival, refusal.clone()));
            return Vec::new();
        }
        let (here, gone): (Vec<_>, Vec<_>) =
            seated.into_iter().partition(|(arrival, _)| self.arrives(arrival.join.connection, &held.cell));
        if gone.is_empty() {
            return self.welcome(held, here, &changes).await;
        }
        // The others' seats, and what they would be told, may depend on those who are gone.
        held.live.room.revert();
        self.undo(held, &changes);
        for (arrival, _) in gone {
            self.turn_away(arrival, Refusal::new(ErrorCode::Unavailable, "the connection has ended"));
        }
        let here: Vec<_> = here.into_iter().map(|(arrival, _)| arrival).collect();
        if here.is_empty() { Vec::new() } else { vec![here] }
    }

    /// Makes a group's seats known, whose rows are written. If others were faster, the group is to be tried again.
    async fn welcome(
        &self,
        held: &mut Held,
        seated: Vec<(Arrival, Vec<Effect>)>,
        changes: &[RowChange],
    ) -> Vec<Vec<Arrival>> {
        let told: Vec<_> = match &self.neighbours {
            Some(_) => seated.iter().flat_map(|(_, effects)| effects).cloned().collect(),
            None => Vec::new(),
        };
        match self.commit(held, &told).await {
            Ok(true) => {
                for (arrival, effects) in seated {
                    let answer = state_in(&effects);
                    self.publish(held, effects);
                    arrival.answer(answer);
                }
                Vec::new()
            }
            Ok(false) => {
                self.undo(held, changes);
                vec![seated.into_iter().map(|(arrival, _)| arrival).collect()]
            }
            Err(refusal) => {
                self.undo(held, changes);
                seated.into_iter().for_each(|(arrival, _)| self.turn_away(arrival, refusal.clone()));
                Vec::new()
            }
        }
    }

    /// Lets somebody go without a seat.
    fn turn_away(&self, arrival: Arrival, refusal: Refusal) {
        // It may have arrived in a try before this one.
        self.connections.remove(arrival.join.connection);
        arrival.answer(Err(refusal));
    }

    /// Whether a connection that was given a seat is there to take it.
    fn arrives(&self, connection: ConnectionId, cell: &Arc<Cell>) -> bool {
        self.publisher.is_open(connection) && self.connections.arrive(connection, cell)
    }

    /// Writes what has changed since the room's mark, with what waits to be written; if that fails, takes it back.
    async fn store_changes(&self, held: &mut Held, changes: &[RowChange]) -> Result<(), Fault> {
        let (mut batch, mark) = held.live.backlog.snapshot();
        batch.extend_from_slice(changes);
        if let Err(fault) = self.write(&held.cell, self.store.apply(batch)).await {
            held.live.room.revert();
            if fault.may_have_happened() {
                self.undo(held, changes);
            } else if matches!(fault, Fault::Store(StoreError::Missing)) {
                self.vanish(held).await;
            }
            return Err(fault);
        }
        held.live.backlog.settle(mark);
        Ok(())
    }

    /// Carries out a command; a durable one to its end, even if nobody waits for it.
    async fn run(self: Arc<Self>, mut held: Held, command: Command) -> Result<(), Refusal> {
        if !command.is_durable() {
            if held.live.together.is_none() {
                return self.handle_in_place(&mut held, command).await;
            }
            return detached(async move { self.handle_in_place(&mut held, command).await }).await;
        }
        detached(async move {
            let effects = self.handle_durably(&mut held, command).await?;
            self.publish(&mut held, effects);
            self.reschedule(&mut held);
            Ok(())
        })
        .await
    }

    /// Takes note of a fact: if the others cannot be told now, they are later.
    async fn note(self: Arc<Self>, mut held: Held, fact: Command) -> Result<(), Refusal> {
        if held.live.together.is_none() {
            return self.handle_in_place(&mut held, fact).await;
        }
        detached(async move {
            let noted = self.handle_in_place(&mut held, fact.clone()).await;
            if matches!(noted, Err(Refusal { code: ErrorCode::Unavailable, .. })) {
                self.tell_later(&mut held, fact);
                self.reschedule(&mut held);
            }
            noted
        })
        .await
    }

    async fn handle_in_place(&self, held: &mut Held, command: Command) -> Result<(), Refusal> {
        self.catch_up(held).await?;
        let steers = matches!(command, Command::Source { .. } | Command::Steer { .. });
        let exhausted = held.live.room.sequence() >= held.live.room.sequence_limit();
        let retry = (steers && exhausted).then(|| command.clone());
        let mut result = self.change(held, command).await;
        if let (Some(command), Err(Refusal { code: ErrorCode::Unavailable, .. })) = (retry, &result) {
            self.raise_sequence_limit(held).await?;
            result = self.change(held, command).await;
        }
        held.live.playback_changed |= steers && result.is_ok();
        self.reschedule(held);
        result
    }

    /// Handles a command and publishes what it does, without waiting for rows.
    async fn change(&self, held: &mut Held, command: Command) -> Result<(), Refusal> {
        if held.live.together.is_none() {
            let result = held.live.room.handle(command, self.clock.now_ms());
            let effects = drain(&mut held.live.room);
            self.publish(held, effects);
            return result;
        }
        let mut is_current = false;
        for _ in 0..MOST_TRIES {
            held.live.room.mark();
            if let Err(refusal) = held.live.room.handle(command.clone(), self.clock.now_ms()) {
                held.live.room.keep();
                if is_current {
                    return Err(refusal);
                }
                // What others have done meanwhile may allow it.
                self.refresh(held).await?;
            } else {
                let effects = drain(&mut held.live.room);
                if self.commit(held, &effects).await? {
                    self.publish(held, effects);
                    return Ok(());
                }
            }
            is_current = true;
        }
        Err(unavailable())
    }

    /// Handles a command, writes what it changes, and takes it back if that fails. Returns what is to be published.
    async fn handle_durably(&self, held: &mut Held, command: Command) -> Result<Vec<Effect>, Refusal> {
        for _ in 0..MOST_TRIES {
            self.prepare(held).await?;
            self.reschedule(held);
            let room = &mut held.live.room;
            room.mark();
            if let Err(refusal) = room.handle(command.clone(), self.clock.now_ms()) {
                room.keep();
                return Err(refusal);
            }
            let (changes, effects) = split(drain(room));
            if let Err(fault) = self.store_changes(held, &changes).await {
                if fault.is_conflict() && self.make_way(held).await {
                    continue;
                }
                return Err(fault.refusal(&held.live.room));
            }
            match self.commit(held, &effects).await {
                Ok(true) => return Ok(effects),
                Ok(false) => self.undo(held, &changes),
                Err(refusal) => {
                    self.undo(held, &changes);
                    return Err(refusal);
                }
            }
        }
        Err(unavailable())
    }

    /// Has the store brought back to the room as it is, when there is time.
    fn undo(&self, held: &mut Held, changes: &[RowChange]) {
        if held.live.backlog.len() < MAX_UNDONE {
            for change in held.live.undoing(changes) {
                held.live.backlog.push(change);
            }
        } else {
            // What waits is known to be true; this is only known to be possible.
            warn!(room = %held.live.room.row().id, "gave up undoing a write, too many changes wait for the store");
        }
        self.reschedule(held);
    }

    /// Closes a room that the store does not know any more: a deletion of which nobody knew whether it happened has.
    async fn vanish(&self, held: &mut Held) {
        warn!(room = %held.live.room.row().id, "the store does not know a room any more");
        held.live.room.mark();
        // It is a fact; no room refuses it.
        let _ = held.live.room.handle(Command::Vanished, self.clock.now_ms());
        let mut effects = drain(&mut held.live.room);
        if !matches!(self.commit(held, &effects).await, Ok(true)) {
            // The other instances find out as this one did.
            let _ = held.live.room.handle(Command::Vanished, self.clock.now_ms());
            effects = drain(&mut held.live.room);
        }
        self.publish(held, effects);
        self.reschedule(held);
    }

    /// Lets a room's deadlines that have passed have their effect, so that a command finds it as it should be by now.
    async fn catch_up(&self, held: &mut Held) -> Result<(), Refusal> {
        self.follow(held).await?;
        self.tell_facts(held).await?;
        let now_ms = self.clock.now_ms();
        if held.live.room.poll_timeout().is_some_and(|due_ms| due_ms <= now_ms) {
            return self.change(held, Command::Timeout).await;
        }
        Ok(())
    }

    /// Makes another block of sequence numbers durable.
    async fn raise_sequence_limit(&self, held: &mut Held) -> Result<(), Refusal> {
        let limit = held.live.room.sequence() + SEQUENCE_BLOCK;
        let row = held.live.room.playback_row(limit);
        match self.write(&held.cell, self.store.save_playback(row)).await {
            Ok(()) => self.give_out(held, limit).await,
            Err(fault) => Err(fault.refusal(&held.live.room)),
        }
    }

    /// Lets numbers up to a limit that is durable be given out.
    async fn give_out(&self, held: &mut Held, limit: u64) -> Result<(), Refusal> {
        for _ in 0..MOST_TRIES {
            held.live.room.mark();
            held.live.room.raise_sequence_limit(limit);
            if self.commit(held, &[]).await? {
                return Ok(());
            }
        }
        Err(unavailable())
    }

    /// Carries out effects in order.
    fn publish(&self, held: &mut Held, effects: Vec<Effect>) {
        let live = &mut *held.live;
        let room_id = &live.room.row().id;
        for effect in effects {
            match effect {
                Effect::Persist(change) => {
                    if live.backlog.push(change) {
                        warn!(room = %room_id, "gave up a change of rows, too many wait for the store");
                    }
                }
                Effect::Admit { connection } => self.publisher.admit(room_id, connection),
                Effect::State { connection, state } => self.publisher.state(connection, &state),
                Effect::Send { to, event } => self.publisher.send(room_id, to, &event),
                Effect::Remove { connection } => self.remove(room_id, connection),
                Effect::Cut { connection } => self.cut(connection),
            }
        }
    }

    /// Sets a room's alarm to its next deadline.
    fn reschedule(&self, held: &mut Held) {
        let now_ms = self.clock.now_ms();
        let live = &mut *held.live;
        // What is set stays set: a retry has its own time, and being empty for longer is no reason to stay.
        if live.room.is_closed() {
            live.unload_at.get_or_insert(now_ms);
        } else if live.is_compared() && (live.room.participant_count() == 0 || self.is_looked_after(&live.room)) {
            live.unload_at.get_or_insert(now_ms + self.options.linger_ms);
        } else {
            live.unload_at = None;
        }
        if live.has_unwritten() {
            live.flush_at.get_or_insert(now_ms + self.options.flush_after_ms);
        } else {
            live.flush_at = None;
        }
        let (together, retry_at) = match &live.together {
            Some(together) => (together.next(), together.retry_at),
            None => (None, None),
        };
        // What could not be done a moment ago cannot be done at once.
        let timeout = live.room.poll_timeout().map(|at_ms| retry_at.map_or(at_ms, |retry_at| at_ms.max(retry_at)));
        let deadlines = [timeout, live.flush_at, live.unload_at, together];
        if let Some(at_ms) = deadlines.into_iter().flatten().min() {
            self.alarms.set(&held.cell, at_ms);
        }
    }

    /// Locks the room with this code, loading it if need be, and refuses one that is over.
    async fn existing(self: &Arc<Self>, code: &str) -> Result<Held, Refusal> {
        loop {
            let cell = self.cell(code)?;
            let mut slot = Arc::clone(&cell.slot).lock_owned().await;
            if matches!(*slot, Slot::Empty) {
                *slot = match self.load(&cell).await {
                    Ok(live) => Slot::Loaded(Box::new(live)),
                    Err(refusal) => {
                        self.forget(&cell);
                        Slot::Gone(Some(refusal))
                    }
                };
            }
            match self.check(cell, slot) {
                Ok(mut held) => {
                    // Whoever looks at an empty room may be about to join it.
                    held.live.unload_at = None;
                    self.reschedule(&mut held);
                    if held.live.room.is_over(self.clock.now_ms()) {
                        return Err(room_not_found());
                    }
                    return Ok(held);
                }
                Err(Some(refusal)) => return Err(refusal),
                Err(None) => {}
            }
        }
    }

    /// Locks the room a connection is in.
    async fn hold(&self, cell: Arc<Cell>) -> Result<Held, Refusal> {
        let slot = Arc::clone(&cell.slot).lock_owned().await;
        self.check(cell, slot).map_err(|refusal| refusal.unwrap_or_else(not_in_room))
    }

    fn check(&self, cell: Arc<Cell>, slot: OwnedMutexGuard<Slot>) -> Result<Held, Option<Refusal>> {
        // Looked at under the room's lock: who gets past this is done before a shutdown writes the room.
        if self.closing.load(Ordering::Relaxed) {
            return Err(Some(shutting_down()));
        }
        Held::of(cell, slot).map_err(|slot| match &*slot {
            Slot::Gone(refusal) => refusal.clone(),
            Slot::Empty | Slot::Loaded(_) => None,
        })
    }

    /// The place of a room, made if there is none.
    fn cell(&self, code: &str) -> Result<Arc<Cell>, Refusal> {
        let mut cells = self.cells();
        if let Some(cell) = cells.get(code) {
            return Ok(Arc::clone(cell));
        }
        if self.closing.load(Ordering::Relaxed) {
            return Err(shutting_down());
        }
        if cells.len() >= self.options.max_rooms {
            warn!(rooms = cells.len(), "no room fits into memory any more");
            return Err(Refusal::new(ErrorCode::Unavailable, "the server is full, try again"));
        }
        let cell = Arc::new(Cell::new(self.keys.fetch_add(1, Ordering::Relaxed), code.to_owned()));
        cells.insert(code.to_owned(), Arc::clone(&cell));
        drop(cells);
        // In case everybody who wants the room loses interest before it is loaded.
        self.alarms.set(&cell, self.clock.now_ms() + self.options.linger_ms);
        Ok(cell)
    }

    /// Takes a place out of the table; its slot is, or is about to be, gone.
    fn forget(self: &Arc<Self>, cell: &Cell) {
        self.alarms.clear(cell);
        self.let_go(cell);
        let mut cells = self.cells();
        if cells.get(&cell.code).is_some_and(|held| held.key == cell.key) {
            cells.remove(&cell.code);
        }
    }

    async fn load(&self, cell: &Arc<Cell>) -> Result<Live, Refusal> {
        if let Some(neighbours) = &self.neighbours {
            return self.load_together(cell, neighbours).await;
        }
        let reading = async {
            let Some(row) = self.store.room_by_code(&cell.code).await? else { return Ok(None) };
            let participants = self.store.participants(&row.id).await?;
            let playback = self.store.playback(&row.id).await?;
            Ok(Some((row, participants, playback)))
        };
        match self.ask(reading).await {
            Ok(Some((row, participants, playback))) => {
                let now_ms = self.clock.now_ms();
                let options = self.options.room;
                let room = Room::load(row, participants, playback, now_ms, now_ms + options.grace_ms, options);
                Ok(Live::new(room))
            }
            Ok(None) => Err(room_not_found()),
            Err(fault) => Err(fault.refusal_of("a room could not be loaded")),
        }
    }

    /// Writes rows of a room, after those that are being written.
    async fn write<T>(&self, cell: &Cell, writing: impl Future<Output = Result<T, StoreError>>) -> Result<T, Fault> {
        self.ask(async {
            let _turn = cell.writes.lock().await;
            writing.await
        })
        .await
    }

    /// Asks the store, and waits no longer than the deadline, nor at all while it is known to hang.
    async fn ask<T>(&self, asking: impl Future<Output = Result<T, StoreError>>) -> Result<T, Fault> {
        if self.store_hangs.load(Ordering::Relaxed) {
            return Err(Fault::Hangs);
        }
        let begun = Instant::now();
        let result = match timeout(self.options.store_deadline, asking).await {
            Ok(result) => result.map_err(Fault::Store),
            Err(_) => Err(Fault::TimedOut),
        };
        // One that fails at once costs nobody time, and is asked again.
        if matches!(result, Err(Fault::TimedOut | Fault::Store(StoreError::Unavailable(_))))
            && begun.elapsed() >= self.options.store_deadline / 2
            && !self.store_hangs.swap(true, Ordering::Relaxed)
        {
            warn!("the store hangs; until it answers again, nothing waits for it");
            self.alarms.sooner.notify_one();
        }
        result
    }

    fn cells(&self) -> MutexGuard<'_, FxHashMap<String, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the store did not do what it was asked to.
#[derive(Debug)]
enum Fault {
    Store(StoreError),
    TimedOut,
    Hangs,
}

impl Fault {
    /// Whether the write may have happened all the same.
    fn may_have_happened(&self) -> bool {
        match self {
            Self::TimedOut | Self::Store(StoreError::Unavailable(_)) => true,
            // It was not asked, or has refused.
            Self::Hangs | Self::Store(StoreError::Conflict | StoreError::Missing | StoreError::Corrupt(_)) => false,
        }
    }

    /// Whether another row is in the way.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict))
    }

    /// Whether one change may be to blame, so that others would be made without it.
    fn is_of_one_row(&self) -> bool {
        match self {
            Self::Store(StoreError::Conflict | StoreError::Corrupt(_)) => true,
            Self::Store(StoreError::Missing | StoreError::Unavailable(_)) | Self::TimedOut | Self::Hangs => false,
        }
    }

    /// What to tell the one whose request this failed; the cause goes to the log.
    fn refusal(self, room: &Room) -> Refusal {
        self.refusal_of(&room.row().id)
    }

    fn refusal_of(self, what: &str) -> Refusal {
        match self {
            Self::Store(StoreError::Unavailable(cause)) => {
                warn!(what, cause, "the store is unavailable");
                unavailable()
            }
            Self::TimedOut => {
                warn!(what, "the store did not answer in time");
                unavailable()
            }
            Self::Hangs => unavailable(),
            Self::Store(StoreError::Missing) => room_not_found(),
            Self::Store(cause @ (StoreError::Conflict | StoreError::Corrupt(_))) => {
                internal_about(&cause.to_string(), what)
            }
        }
    }
}

/// The `room:state` among the effects of a join.
fn state_in(effects: &[Effect]) -> Answer {
    let state = effects.iter().find_map(|effect| match effect {
        Effect::State { state, .. } => Some(Arc::clone(state)),
        Effect::Persist(_)
        | Effect::Admit { .. }
        | Effect::Send { .. }
        | Effect::Remove { .. }
        | Effect::Cut { .. } => None,
    });
    state.ok_or_else(|| internal("a join had no room state"))
}

fn drain(room: &mut Room) -> Vec<Effect> {
    std::iter::from_fn(|| room.poll_effect()).collect()
}

/// What is to be written, and what is to be published once it is.
fn split(effects: Vec<Effect>) -> (Vec<RowChange>, Vec<Effect>) {
    let mut changes = Vec::new();
    let mut publish = Vec::with_capacity(effects.len());
    for effect in effects {
        match effect {
            Effect::Persist(change) => changes.push(change),
            effect @ (Effect::Admit { .. }
            | Effect::State { .. }
            | Effect::Send { .. }
            | Effect::Remove { .. }
            | Effect::Cut { .. }) => publish.push(effect),
        }
    }
    (changes, publish)
}

/// Runs to the end even if the caller is dropped: half a durable command would leave rows nobody knows of.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(work).await.unwrap_or_else(|failure| Err(internal(&failure.to_string())))
}

fn internal(cause: &str) -> Refusal {
    internal_about(cause, "")
}

fn internal_about(cause: &str, what: &str) -> Refusal {
    let log_id = incident::report(cause, what);
    Refusal::new(ErrorCode::InternalError, format!("internal error {log_id}"))
}

fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the server cannot store that now, try again")
}

fn shutting_down() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the server is shutting down")
}

fn room_not_found() -> Refusal {
    Refusal::new(ErrorCode::RoomNotFound, "there is no such room")
}

fn not_in_room() -> Refusal {
    Refusal::new(ErrorCode::NotInRoom, "you are not in a room")
}
