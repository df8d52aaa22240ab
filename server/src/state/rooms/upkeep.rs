//! What happens without anybody asking: deadlines of rooms, writing behind, dropping empty rooms, sweeping expired ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};
use tracing::{error, warn};

use super::{Cell, Fault, Held, Live, Publisher, Shared, Slot};
use crate::store::{RoomStore, StoreError};
use crate::sync::rows::{PlaybackRow, RowChange};

/// Waits for the deadlines of all rooms until the state is shut down.
///
/// It never waits for a room or for the store itself: a room that is due is looked after by a task of its own, which ends
/// with that.
pub(super) async fn keep_deadlines<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>) {
    let mut chores = JoinSet::new();
    let mut sweep_at = Instant::now() + SWEEP_EVERY;
    let mut ping_at: Option<Instant> = None;
    loop {
        let now_ms = shared.clock.now_ms();
        while let Some(cell) = shared.alarms.pop_due(now_ms) {
            chores.spawn(look_after(Arc::clone(&shared), cell));
        }
        let now = Instant::now();
        if now >= sweep_at {
            sweep_at = now + SWEEP_EVERY;
            chores.spawn(sweep(Arc::clone(&shared)));
        }
        if !shared.store_hangs.load(Ordering::Relaxed) {
            ping_at = None;
        } else if ping_at.is_none_or(|at| now >= at) {
            ping_at = Some(now + PING_EVERY);
            chores.spawn(ping(Arc::clone(&shared)));
        }
        let alarm = shared.alarms.next().map(|at_ms| shared.clock.instant_at(at_ms));
        let next = alarm.into_iter().chain(ping_at).fold(sweep_at, Instant::min);
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.alarms.sooner.notified() => {}
            Some(done) = chores.join_next() => {
                if let Err(panicked) = done {
                    error!(%panicked, "looking after a room failed");
                }
            }
            () = shared.stop.notified() => break,
        }
    }
    while chores.join_next().await.is_some() {}
    shared.stopped.notify_one();
}

/// Writes what is still to be written of every room. Every request is refused by now.
pub(super) async fn write_everything<S: RoomStore, P: Publisher>(shared: &Arc<Shared<S, P>>) {
    // It is the last chance: a store that has hung may have come round since it was last asked.
    shared.store_hangs.store(false, Ordering::Relaxed);
    let cells: Vec<_> = shared.cells().values().cloned().collect();
    let mut cells = cells.into_iter();
    let mut chores = JoinSet::new();
    loop {
        for cell in cells.by_ref().take(WRITTEN_AT_ONCE - chores.len()) {
            let shared = Arc::clone(shared);
            chores.spawn(async move {
                let mut slot = Arc::clone(&cell.slot).lock_owned().await;
                if let Slot::Loaded(live) = &mut *slot
                    && let Err(fault) = shared.write_out(&cell, live).await
                {
                    warn!(room = %live.room.row().id, ?fault, "the last changes of a room are lost");
                }
            });
        }
        if chores.join_next().await.is_none() {
            return;
        }
    }
}

/// Does for a room what is due.
async fn look_after<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, cell: Arc<Cell>) {
    let mut slot = Arc::clone(&cell.slot).lock_owned().await;
    let now_ms = shared.clock.now_ms();
    match &mut *slot {
        Slot::Gone(_) => return,
        Slot::Empty => {
            shared.forget(&cell);
            *slot = Slot::Gone(None);
            return;
        }
        Slot::Loaded(live) => {
            let may_go = live.room.is_closed() || live.is_compared();
            if may_go && live.unload_at.is_some_and(|due_ms| due_ms <= now_ms) {
                if shared.write_out(&cell, live).await.is_ok() {
                    shared.forget(&cell);
                    *slot = Slot::Gone(None);
                    return;
                }
                let retry_at = shared.clock.now_ms() + RETRY_AFTER_MS;
                (live.unload_at, live.flush_at) = (Some(retry_at), Some(retry_at));
            }
        }
    }
    let Ok(mut held) = Held::of(cell, slot) else { return };
    if shared.catch_up(&mut held).await.is_err() {
        held.retry_later(shared.clock.now_ms());
    }
    shared.compare_if_due(&mut held).await;
    if held.live.flush_at.is_some_and(|due_ms| due_ms <= now_ms) {
        shared.flush(held).await;
    } else {
        shared.reschedule(&mut held);
    }
}

impl<S: RoomStore, P: Publisher> Shared<S, P> {
    /// Writes what is to be written, while the room goes on.
    async fn flush(&self, mut held: Held) {
        held.live.flush_at = None;
        let Ok(turn) = Arc::clone(&held.cell.writes).try_lock_owned() else {
            // The last flush still waits for the store.
            held.live.flush_at = Some(self.clock.now_ms() + RETRY_AFTER_MS);
            return self.reschedule(&mut held);
        };
        let (changes, mark) = held.live.backlog.snapshot();
        let playback = held.live.playback_to_flush();
        let limit = playback.as_ref().map(|row| row.sequence_limit);
        held.live.playback_changed = false;
        let Held { cell, live } = held;
        drop(live);

        let result = self.ask(self.write_rows(changes, playback)).await;

        drop(turn);
        let slot = Arc::clone(&cell.slot).lock_owned().await;
        let Ok(mut held) = Held::of(cell, slot) else { return };
        match result {
            Ok(()) => {
                held.live.backlog.settle(mark);
                if let Some(limit) = limit {
                    // If it cannot be told, it is made durable once more when it is needed.
                    let _unavailable = self.give_out(&mut held, limit).await;
                }
            }
            Err(Fault::Store(StoreError::Missing)) => {
                held.live.backlog.settle(mark);
                self.vanish(&mut held).await;
            }
            Err(fault) => {
                warn!(room = %held.live.room.row().id, ?fault, "changes of a room wait for the store");
                held.live.playback_changed |= limit.is_some();
                held.live.flush_at = Some(self.clock.now_ms() + RETRY_AFTER_MS);
            }
        }
        self.reschedule(&mut held);
    }

    /// Writes all there is to write of a room that nobody changes meanwhile.
    async fn write_out(&self, cell: &Cell, live: &mut Live) -> Result<(), Fault> {
        let (changes, mark) = live.backlog.snapshot();
        let playback = live.playback_to_keep();
        if changes.is_empty() && playback.is_none() {
            return Ok(());
        }
        match self.write(cell, self.write_rows(changes, playback)).await {
            Ok(()) | Err(Fault::Store(StoreError::Missing)) => {
                live.backlog.settle(mark);
                live.playback_changed = false;
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    async fn write_rows(&self, changes: Vec<RowChange>, playback: Option<PlaybackRow>) -> Result<(), StoreError> {
        if !changes.is_empty() {
            self.store.apply(changes).await?;
        }
        match playback {
            Some(playback) => self.store.save_playback(playback).await,
            None => Ok(()),
        }
    }
}

/// Removes rooms that expired while they were not in memory; those in memory see to it themselves. One that has members
/// elsewhere is loaded, so that it gets more time.
async fn sweep<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>) {
    let now_ms = shared.clock.now_ms();
    let expired = match shared.ask(shared.store.expired_rooms(now_ms, SWEEP_ROOMS)).await {
        Ok(rooms) => rooms,
        Err(fault) => return warn!(?fault, "expired rooms could not be listed"),
    };
    let asleep: Vec<_> = expired.into_iter().filter(|row| !shared.cells().contains_key(&row.code)).collect();
    let mut changes = Vec::new();
    for row in asleep {
        match shared.has_members_elsewhere(&row.id).await {
            Ok(false) => changes.push(RowChange::RemoveExpired { id: row.id, now_ms }),
            // Its next deadline has passed, which it then sees to.
            Ok(true) => drop(shared.existing(&row.code).await),
            Err(trouble) => return warn!(%trouble, "expired rooms cannot be told from those with members"),
        }
    }
    if changes.is_empty() {
        return;
    }
    if let Err(fault) = shared.ask(shared.store.apply(changes)).await {
        warn!(?fault, "expired rooms could not be removed");
    }
}

/// Finds out whether a store that hung answers again.
async fn ping<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>) {
    let answer = tokio::time::timeout(shared.options.store_deadline, shared.store.ping()).await;
    if matches!(answer, Ok(Ok(()))) && shared.store_hangs.swap(false, Ordering::Relaxed) {
        warn!("the store answers again");
    }
}

/// How often rooms that are not in memory are looked through for expired ones.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How many of them are removed at a time, so that one sweep does not hold up the store.
const SWEEP_ROOMS: u32 = 500;

/// How many rooms are written at a time in the end: no store takes all of them at once within its deadline.
const WRITTEN_AT_ONCE: usize = 256;

/// How often a store that hangs is asked whether it still does.
const PING_EVERY: Duration = Duration::from_millis(500);

/// How long a failed write behind waits for another try.
const RETRY_AFTER_MS: i64 = 1_000;
