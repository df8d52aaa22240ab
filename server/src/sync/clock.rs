//! The one clock everybody's playback runs on.

pub mod course;

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use course::{Course, Sample};

/// Unix time in milliseconds that never steps back. Clones are the same clock.
///
/// On an instance of its own it is wall time, read once, carried on by the process's monotonic clock. A correction of the
/// wall clock while the process runs does not reach it, so playback does not jump with it. Instances that share rooms
/// follow one clock, so that they agree: each carries it on by its own monotonic clock, which is held on
/// [`Course`]. Where the other clock cannot be asked any more, it goes on from where it was.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The time at `origin`, before what the course adds.
    origin_us: i64,
    origin: Instant,
    course: Option<Arc<RwLock<Course>>>,
}

/// The way to tell a clock of samples; it does not keep the clock.
#[derive(Debug)]
pub struct Followed {
    origin: Instant,
    course: Weak<RwLock<Course>>,
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
        Self { origin_us: now_ms.saturating_mul(1_000), origin: Instant::now(), course: None }
    }

    /// Starts a clock that follows another. The times of our own in the sample are microseconds since `origin`.
    pub fn following(origin: Instant, sample: Sample) -> (Self, Followed) {
        let course = Arc::new(RwLock::new(Course::starting_from(sample)));
        let followed = Followed { origin, course: Arc::downgrade(&course) };
        (Self { origin_us: 0, origin, course: Some(course) }, followed)
    }

    /// The time, in Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        let time_us = match &self.course {
            None => self.own_us(),
            Some(course) => {
                // Read before the clock is: a course that is set in between does not apply to the time before it.
                let course = course.read().unwrap_or_else(PoisonError::into_inner);
                let now_us = self.own_us();
                now_us.saturating_add(course.offset_us(now_us))
            }
        };
        time_us.div_euclid(1_000)
    }

    /// The moment at which [`now_ms`](Self::now_ms) reaches `at_ms`; the clock's start, if that lies before it. A clock
    /// that is corrected meanwhile may reach it a little sooner or later.
    pub fn instant_at(&self, at_ms: i64) -> Instant {
        let at_us = at_ms.saturating_mul(1_000);
        let own_us = match &self.course {
            None => at_us,
            Some(course) => {
                let course = course.read().unwrap_or_else(PoisonError::into_inner);
                course.own_us_at(at_us, self.own_us())
            }
        };
        let passed_us = u64::try_from(own_us.saturating_sub(self.origin_us)).unwrap_or(0);
        // The far future may be past what the platform can express; nobody waits that long.
        let passed = Duration::from_micros(passed_us.min(MAX_WAIT_US));
        self.origin.checked_add(passed).unwrap_or(self.origin)
    }

    /// The time before what the course adds.
    fn own_us(&self) -> i64 {
        self.origin_us.saturating_add(micros_since(self.origin))
    }
}

impl Followed {
    /// Whether there still is a clock to tell.
    pub fn is_followed(&self) -> bool {
        self.course.strong_count() > 0
    }

    /// Takes a sample into account; false once the clock is gone.
    pub fn learn(&self, sample: Sample) -> bool {
        let Some(course) = self.course.upgrade() else { return false };
        let mut course = course.write().unwrap_or_else(PoisonError::into_inner);
        course.learn(sample, micros_since(self.origin));
        true
    }
}

/// Microseconds since a moment, as samples have them.
pub fn micros_since(origin: Instant) -> i64 {
    i64::try_from(origin.elapsed().as_micros()).unwrap_or(i64::MAX)
}

/// A hundred years.
const MAX_WAIT_US: u64 = 100 * 365 * 24 * 3_600 * 1_000_000;

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

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_follows_another_is_corrected_and_can_be_waited_for() {
        let origin = Instant::now();
        let sample = |sent_us, remote_us| Sample { sent_us, remote_us, received_us: sent_us };
        let (clock, followed) = Clock::following(origin, sample(0, 5_000_000));
        assert_eq!(clock.now_ms(), 5_000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.now_ms(), 6_000);
        assert!(followed.learn(sample(1_000_000, 6_010_000)));
        assert_eq!(clock.now_ms(), 6_000);
        tokio::time::sleep_until(clock.instant_at(6_102)).await;
        assert_eq!((origin.elapsed().as_millis(), clock.now_ms()), (1_100, 6_102));
        tokio::time::sleep_until(clock.instant_at(8_010)).await;
        assert_eq!((origin.elapsed().as_millis(), clock.now_ms()), (3_000, 8_010));
        drop(clock);
        assert!(!followed.learn(sample(3_000_000, 8_010_000)));
    }
}
