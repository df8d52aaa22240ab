//! The other instances: which of them are lost, and what becomes of their rooms.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::cell::Slot;
use super::together::at_once;
use super::{Publisher, Shared};
use crate::state::cluster::leases;
use crate::store::RoomStore;
use crate::sync::event::{ErrorCode, Refusal};

/// Renews the lease of this instance, and looks after the rooms of those that are lost, until the state is shut down.
pub(super) async fn watch<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>) {
    let Some(neighbours) = &shared.neighbours else { return };
    let mut turns = interval(leases::RENEW_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // By instance, with when it was found lost.
    let mut lost_since: FxHashMap<u32, (Instant, Option<JoinHandle<()>>)> = FxHashMap::default();
    let mut is_unavailable = false;
    while !shared.closing.load(Ordering::Relaxed) {
        turns.tick().await;
        let ages = match neighbours.cluster.renew().await {
            Ok(ages) => ages,
            Err(trouble) => {
                if !is_unavailable {
                    warn!(%trouble, "the lease of this instance cannot be renewed");
                }
                is_unavailable = true;
                continue;
            }
        };
        is_unavailable = false;
        let lost = {
            let seated = seated_instances(&shared);
            neighbours.leases().look(&ages, seated, Instant::now())
        };
        lost_since.retain(|instance, _| lost.contains(instance));
        for instance in lost {
            let (since, taking_over) = lost_since.entry(instance).or_insert_with(|| {
                info!(instance, "an instance is lost");
                (Instant::now(), None)
            });
            if taking_over.as_ref().is_none_or(JoinHandle::is_finished) {
                *taking_over = Some(tokio::spawn(bury(Arc::clone(&shared), instance, *since)));
            }
        }
    }
}

/// The other instances that have connections in rooms here.
fn seated_instances<S: RoomStore, P: Publisher>(shared: &Shared<S, P>) -> BTreeSet<u32> {
    let cells: Vec<_> = shared.cells().values().cloned().collect();
    let own = shared.neighbours.as_ref().map(|neighbours| neighbours.cluster.instance());
    let mut seated = BTreeSet::new();
    for cell in cells {
        // A room that is busy is looked at the next time.
        if let Ok(slot) = cell.slot.try_lock()
            && let Slot::Loaded(live) = &*slot
        {
            seated.extend(live.room.instances().filter(|instance| Some(*instance) != own));
        }
    }
    seated
}

/// Takes the connections of a lost instance out of its rooms.
///
/// The instances that are left divide the rooms: each takes those first in which it ranks first, and what others have not
/// done when it is its turn. What is left then is taken up the next time, when others may have gone as well. A room that two
/// take over, since one was late, is loaded twice; the second finds nothing to do.
async fn bury<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, instance: u32, found_lost: Instant) {
    let Some(neighbours) = &shared.neighbours else { return };
    let codes = match neighbours.cluster.rooms_of(instance).await {
        Ok(codes) => codes,
        Err(trouble) => return warn!(instance, %trouble, "the rooms of a lost instance are not known yet"),
    };
    let turn = found_lost.elapsed().as_millis() / TURN.as_millis();
    let own = neighbours.cluster.instance();
    let (mut due, others): (Vec<_>, Vec<_>) = {
        let leases = neighbours.leases();
        codes.into_iter().partition(|code| leases.rank(own, code) as u128 <= turn)
    };
    if others.is_empty() {
        // Redis may have lost what the instance had written there.
        due.extend(seated_rooms(&shared, instance).await);
        due.sort_unstable();
        due.dedup();
    }
    let mut is_done = others.is_empty();
    for codes in due.chunks(ROOMS_AT_ONCE) {
        let done = take_over(&shared, instance, codes).await;
        is_done &= done.len() == codes.len();
        if let Err(trouble) = neighbours.cluster.taken_over(instance, &done).await {
            return warn!(instance, %trouble, "the rooms of a lost instance are not all taken over yet");
        }
    }
    // Otherwise it is found lost again.
    if is_done && neighbours.cluster.bury(instance).await.is_ok() {
        neighbours.leases().bury(instance);
    }
}

/// The rooms in memory here in which a lost instance still has connections.
async fn seated_rooms<S: RoomStore, P: Publisher>(shared: &Shared<S, P>, instance: u32) -> Vec<String> {
    let cells: Vec<_> = shared.cells().values().cloned().collect();
    let mut codes = Vec::new();
    for cell in cells {
        if let Slot::Loaded(live) = &*cell.slot.lock().await
            && live.room.connections_of(instance) > 0
        {
            codes.push(cell.code.clone());
        }
    }
    codes
}

/// Takes the connections of a lost instance out of rooms, and returns those of which none is in any longer.
async fn take_over<S: RoomStore, P: Publisher>(
    shared: &Arc<Shared<S, P>>,
    instance: u32,
    codes: &[String],
) -> Vec<String> {
    let done = Arc::new(Mutex::new(Vec::with_capacity(codes.len())));
    at_once(codes.iter().cloned(), |code| {
        let (shared, done) = (Arc::clone(shared), Arc::clone(&done));
        async move {
            let lost = match shared.existing(&code).await {
                Ok(mut held) => {
                    // The copy here may not know of everybody who came there.
                    let ready = shared.prepare(&mut held).await;
                    let lost = if ready.is_ok() { shared.lose(&mut held, instance).await } else { ready };
                    held.compare_later(shared.clock.now_ms());
                    shared.reschedule(&mut held);
                    lost
                }
                Err(refusal) => Err(refusal),
            };
            let is_gone = |refusal: Refusal| refusal.code == ErrorCode::RoomNotFound;
            if lost.map_or_else(is_gone, |()| true) {
                lock(&done).push(code);
            }
        }
    })
    .await;
    std::mem::take(&mut *lock(&done))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under this lock can panic halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many rooms are taken over before that is noted down, so that they are not once more where this instance ends as well.
const ROOMS_AT_ONCE: usize = 256;

/// How long an instance has for the rooms that it ranks first in before the next one takes them too. With three, all have
/// had their turn 4 seconds after an instance was found lost, which takes 10 at the most.
const TURN: Duration = Duration::from_secs(2);
