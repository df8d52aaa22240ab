//! The one clock everybody's playback runs on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Unix time in milliseconds that never steps back: wall time, read once, carried on by the process's monotonic clock.
///
/// A correction of the wall clock while the process runs does not reach it, so playback does not jump with it. Copies are
/// the same clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin_ms: i64,
    origin: Instant,
}

impl Clock {
    /// Starts a clock at the wall time of this moment.
    pub fn system() -> Self {
        // A wall clock before 1970 is not set at all; counting from 0 at least keeps going forward.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(i64::try_from(wall.as_millis()).unwrap_or(0))
    }

    /// Starts a clock at a time of the caller's choosing.
    pub fn starting_at(now_ms: i64) -> Self {
        Self { origin_ms: now_ms, origin: Instant::now() }
    }

    /// The time, in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.origin_ms.saturating_add(passed)
    }

    /// The moment at which [`now_ms`](Self::now_ms) reaches `at_ms`; the clock's start, if that lies before it.
    pub fn instant_at(&self, at_ms: i64) -> Instant {
        let passed_ms = u64::try_from(at_ms.saturating_sub(self.origin_ms)).unwrap_or(0);
        // The far future may be past what the platform can express; nobody waits that long.
        let passed = Duration::from_millis(passed_ms.min(MAX_WAIT_MS));
        self.origin.checked_add(passed).unwrap_or(self.origin)
    }
}

/// A hundred years.
const MAX_WAIT_MS: u64 = 100 * 365 * 24 * 3_600 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_passes_with_the_monotonic_clock() {
        let clock = Clock::starting_at(5_000);
        assert_eq!(clock.now_ms(), 5_000);
        tokio::time::advance(Duration::from_micros(1_500_900)).await;
        assert_eq!(clock.now_ms(), 6_500);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_time_ends_when_it_has_come() {
        let clock = Clock::starting_at(5_000);
        tokio::time::sleep_until(clock.instant_at(7_250)).await;
        assert_eq!(clock.now_ms(), 7_250);
        tokio::time::sleep_until(clock.instant_at(-3)).await;
        assert_eq!(clock.now_ms(), 7_250);
    }

    #[test]
    fn the_system_clock_starts_at_wall_time_and_never_steps_back() {
        let clock = Clock::system();
        let mut last = clock.now_ms();
        assert!(last > 1_700_000_000_000);
        for _ in 0..1_000 {
            let now = clock.now_ms();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_end_of_time_can_be_waited_for() {
        let clock = Clock::system();
        assert!(clock.instant_at(i64::MAX) > Instant::now());
    }
}
