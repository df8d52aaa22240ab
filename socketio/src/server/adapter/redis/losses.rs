//! What did not reach the other instances: counted, and logged now and then.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Least time between two lines in the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// Why messages are lost while Redis is not there, or behind.
pub(super) const AWAY: &str = "it is away, or too slow for what is sent";

#[derive(Debug, Default)]
pub(super) struct Losses {
    count: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Losses {
    pub(super) fn total(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub(super) fn count(&self, messages: u64, why: &str) {
        if messages == 0 {
            return;
        }
        let total = self.count.fetch_add(messages, Relaxed) + messages;
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(total, why, "messages to other instances are lost");
        }
    }
}
