//! The clock of Redis, which everybody who shares it goes by.

use redis::{RedisError, cmd};
use tokio::time::{self, Duration, Instant};

use super::unavailable::{Cause, Unavailable};
use super::{DEADLINE, Redis};
use crate::sync::clock::course::Sample;
use crate::sync::clock::{Clock, Followed, micros_since};

impl Redis {
    /// The clock of Redis; of a cluster, that of the one node which has a certain key. It is followed until the clock is
    /// dropped, and goes on by itself while Redis is away.
    ///
    /// # Errors
    /// Where Redis does not say the time now.
    pub async fn clock(&self) -> Result<Clock, Unavailable> {
        let origin = Instant::now();
        let mut best = self.look_at_clock(origin).await?;
        for _ in 1..FIRST_LOOKS {
            let sample = self.look_at_clock(origin).await?;
            if sample.round_trip_us() < best.round_trip_us() {
                best = sample;
            }
        }
        let (clock, followed) = Clock::following(origin, best);
        tokio::spawn(follow(self.clone(), origin, followed));
        Ok(clock)
    }

    async fn look_at_clock(&self, origin: Instant) -> Result<Sample, Unavailable> {
        let key = self.key("syncwatch:clock");
        let sent_us = micros_since(origin);
        let answer = self.shared.nodes.call(&cmd("TIME"), Some(key.as_bytes()), Instant::now() + DEADLINE).await?;
        let received_us = micros_since(origin);
        let unreadable = |error: &RedisError| Unavailable::new(Cause::Refused, format!("an unreadable time: {error}"));
        let (seconds, micros): (i64, i64) =
            redis::from_redis_value(answer).map_err(|error| unreadable(&error.into()))?;
        Ok(Sample { sent_us, remote_us: seconds.saturating_mul(1_000_000).saturating_add(micros), received_us })
    }
}

async fn follow(redis: Redis, origin: Instant, followed: Followed) {
    loop {
        time::sleep(LOOK_EVERY).await;
        let is_followed = match redis.look_at_clock(origin).await {
            Ok(sample) => followed.learn(sample),
            // It is told by the connection that Redis is away.
            Err(_) => followed.is_followed(),
        };
        if !is_followed {
            return;
        }
    }
}

/// How often the clock is looked at before it is used; the first look may have to wait for a connection.
const FIRST_LOOKS: usize = 5;

/// How often it is looked at from then on.
const LOOK_EVERY: Duration = Duration::from_secs(2);
