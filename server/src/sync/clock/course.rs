//! How a clock is kept on another's time, without ever stepping back.

use std::collections::VecDeque;

/// One look at the other clock. Times are in microseconds; our own are those of the clock that is corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the other was asked, by our clock.
    pub sent_us: i64,
    /// What the other said.
    pub remote_us: i64,
    /// When the answer came, by our clock.
    pub received_us: i64,
}

/// What has to be added to our clock. It is corrected by speeding our clock up or slowing it down a little.
///
/// The quickest of the last samples is believed: its answer was least long on its way, so that it is known best when the
/// other clock was read.
#[derive(Debug)]
pub struct Course {
    samples: VecDeque<Sample>,
    /// Our time at which the course was last set.
    since_us: i64,
    /// What had to be added then.
    offset_us: i64,
    /// What will have to be added in the end.
    target_us: i64,
}

impl Sample {
    /// How long the other took to answer, both ways included.
    pub fn round_trip_us(&self) -> i64 {
        self.received_us.saturating_sub(self.sent_us)
    }

    /// How far the other clock is ahead, if both ways took as long.
    fn offset_us(&self) -> i64 {
        self.remote_us.saturating_sub(self.sent_us + self.round_trip_us() / 2)
    }
}

impl Course {
    /// Starts right at the other's time, as far as it is known.
    pub fn starting_from(sample: Sample) -> Self {
        let offset_us = sample.offset_us();
        Self { samples: [sample].into(), since_us: sample.received_us, offset_us, target_us: offset_us }
    }

    /// What has to be added to our clock when it shows `now_us`.
    pub fn offset_us(&self, now_us: i64) -> i64 {
        let most_us = now_us.saturating_sub(self.since_us).max(0) / SLEW;
        self.offset_us + (self.target_us - self.offset_us).clamp(-most_us, most_us)
    }

    /// Takes a sample into account, at `now_us` by our clock.
    pub fn learn(&mut self, sample: Sample, now_us: i64) {
        self.offset_us = self.offset_us(now_us);
        self.since_us = now_us;
        // What is older says little: clocks drift apart.
        self.samples.retain(|sample| now_us.saturating_sub(sample.received_us) <= KEPT_US);
        self.samples.truncate(MAX_SAMPLES - 1);
        self.samples.push_front(sample);
        // Of equal ones the newest.
        let best = self.samples.iter().min_by_key(|sample| sample.round_trip_us());
        self.target_us = best.unwrap_or(&sample).offset_us();
    }

    /// What our clock shows when the corrected one reaches `at_us`, as far as is known at `now_us`.
    pub fn own_us_at(&self, at_us: i64, now_us: i64) -> i64 {
        let offset_us = self.offset_us(now_us);
        let left_us = self.target_us - offset_us;
        let to_pass_us = at_us.saturating_sub(now_us.saturating_add(offset_us));
        let slewing_us = left_us.saturating_abs().saturating_mul(SLEW);
        let own_us = if to_pass_us < slewing_us.saturating_add(left_us) {
            // Our clock is faster or slower all the way.
            to_pass_us.saturating_mul(SLEW) / (SLEW + left_us.signum())
        } else {
            to_pass_us.saturating_sub(left_us)
        };
        now_us.saturating_add(own_us)
    }
}

/// Our clock is made faster or slower by one part in as many: 20 ms in each second, which nobody watching sees.
const SLEW: i64 = 50;

/// How long a sample counts.
const KEPT_US: i64 = 30_000_000;

const MAX_SAMPLES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sent_us: i64, round_trip_us: i64, remote_us: i64) -> Sample {
        Sample { sent_us, remote_us, received_us: sent_us + round_trip_us }
    }

    /// The corrected time.
    fn time(course: &Course, now_us: i64) -> i64 {
        now_us + course.offset_us(now_us)
    }

    #[test]
    fn it_starts_at_the_other_clocks_time() {
        let course = Course::starting_from(sample(1_000, 200, 5_000_100));
        assert_eq!(time(&course, 1_100), 5_000_100);
        assert_eq!(time(&course, 2_001_100), 7_000_100);
        assert_eq!(time(&course, 0), 4_999_000);
    }

    #[test]
    fn the_quickest_sample_is_believed() {
        let mut course = Course::starting_from(sample(0, 100, 50));
        course.learn(sample(1_000_000, 80_000, 1_000_000), 1_080_000);
        assert_eq!(course.target_us, 0);
        course.learn(sample(2_000_000, 60, 2_000_130), 2_000_060);
        assert_eq!(course.target_us, 100);
        course.learn(sample(3_000_000, 60, 3_000_230), 3_000_060);
        assert_eq!(course.target_us, 200);
        // Long after the quick ones, a slow one has to do.
        course.learn(sample(40_000_000, 10_000, 40_005_700), 40_010_000);
        assert_eq!(course.target_us, 700);
    }

    #[test]
    fn it_is_corrected_by_one_part_in_fifty_and_then_exact() {
        let mut course = Course::starting_from(sample(0, 0, 0));
        course.learn(sample(1_000_000, 0, 1_010_000), 1_000_000);
        // Both are as quick, and the newer one counts.
        assert_eq!(course.offset_us(1_000_000), 0);
        assert_eq!(course.offset_us(1_250_000), 5_000);
        assert_eq!(course.offset_us(1_500_000), 10_000);
        assert_eq!(course.offset_us(9_000_000), 10_000);
        course.learn(sample(9_000_000, 0, 8_980_000), 9_000_000);
        assert_eq!(course.offset_us(9_500_000), 0);
        assert_eq!(course.offset_us(20_000_000), -20_000);
    }

    #[test]
    fn it_never_goes_back_whatever_the_other_clock_says() {
        let mut course = Course::starting_from(sample(0, 100, 1_000_000));
        let (mut last, mut random) = (i64::MIN, 7_u32);
        for now_us in (1_000..60_000_000).step_by(7_919) {
            let shown = time(&course, now_us);
            assert!(shown > last, "{shown} after {last} at {now_us}");
            last = shown;
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if random % 100 == 0 {
                let remote_us = i64::from(random % 4_000_000) - 2_000_000 + now_us;
                course.learn(sample(now_us - i64::from(random % 1_000), i64::from(random % 1_000), remote_us), now_us);
            }
        }
    }

    #[test]
    fn a_time_to_come_is_found_on_our_clock() {
        let mut course = Course::starting_from(sample(0, 0, 0));
        for target_us in [10_000, -10_000] {
            course.learn(sample(course.since_us, 0, course.since_us + target_us), course.since_us);
            let now_us = course.since_us + 100_000;
            for ahead_us in [-50_000, 0, 1, 100_000, 399_000, 400_000, 410_000, 2_000_000] {
                let at_us = time(&course, now_us) + ahead_us;
                let own_us = course.own_us_at(at_us, now_us);
                if ahead_us >= 0 {
                    assert!((time(&course, own_us) - at_us).abs() <= 1, "{ahead_us} to {target_us}");
                } else {
                    assert!(own_us < now_us);
                }
            }
            course.since_us += 10_000_000;
            course.offset_us = target_us;
        }
    }
}
