//! The other instances: which of them are lost, and what becomes of their rooms.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustc_hash::FxHashMap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::cell::Slot;
use super::together::at_once;
use super::{Publisher, Shared};
use crate::state::cluster::leases;
use crate::store::RoomStore;
use crate::sync::event::ErrorCode;

/// Renews the lease of this instance, and looks after the rooms of those that are lost, until the state is shut down.
pub(super) async fn watch<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>) {
    let Some(neighbours) = &shared.neighbours else { return };
    let mut turns = interval(leases::RENEW_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut funerals: FxHashMap<u32, JoinHandle<()>> = FxHashMap::default();
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
        funerals.retain(|_, funeral| !funeral.is_finished());
        for instance in lost {
            funerals.entry(instance).or_insert_with(|| tokio::spawn(bury(Arc::clone(&shared), instance)));
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

/// Takes the connections of a lost instance out of all rooms.
async fn bury<S: RoomStore, P: Publisher>(shared: Arc<Shared<S, P>>, instance: u32) {
    let Some(neighbours) = &shared.neighbours else { return };
    info!(instance, "an instance is lost");
    let mut codes: BTreeSet<String> = match neighbours.cluster.rooms_of(instance).await {
        Ok(codes) => codes.into_iter().collect(),
        Err(trouble) => return warn!(instance, %trouble, "the rooms of a lost instance are not known yet"),
    };
    // Redis may have lost what the instance had written there.
    let cells: Vec<_> = shared.cells().values().cloned().collect();
    for cell in cells {
        if let Slot::Loaded(live) = &*cell.slot.lock().await
            && live.room.connections_of(instance) > 0
        {
            codes.insert(cell.code.clone());
        }
    }
    let failed = Arc::new(AtomicBool::new(false));
    at_once(codes, |code| {
        let (shared, failed) = (Arc::clone(&shared), Arc::clone(&failed));
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
            if lost.is_err_and(|refusal| refusal.code != ErrorCode::RoomNotFound) {
                failed.store(true, Ordering::Relaxed);
            }
        }
    })
    .await;
    // Otherwise it is found lost again.
    if !failed.load(Ordering::Relaxed) && neighbours.cluster.bury(instance).await.is_ok() {
        neighbours.leases().bury(instance);
    }
}
