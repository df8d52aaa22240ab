//! When to ping, and when to give up on a pong.

use std::time::{Duration, Instant};

/// The heartbeat of one session, timed from the pong.
///
/// ```text
/// Resting(until) --until--> ping --> Awaiting(deadline) --deadline--> dead
///     ^                                   |
///     +------------------ pong -----------+
/// ```
///
/// Source: Engine.IO protocol v4, "Heartbeat"; engine.io 6.6.11 for the one extension of a deadline by other packets.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Resting { until: Instant },
    Awaiting { pinged: Instant, deadline: Instant, extended: bool },
}

/// What the heartbeat wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    Ping,
    Dead,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, state: State::Resting { until: now + interval } }
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::Resting { until } => until,
            State::Awaiting { deadline, .. } => deadline,
        }
    }

    pub(super) fn on_timeout(&mut self, now: Instant) -> Beat {
        match self.state {
            State::Resting { until } if now >= until => {
                self.state = State::Awaiting { pinged: now, deadline: now + self.timeout, extended: false };
                Beat::Ping
            }
            State::Awaiting { deadline, .. } if now >= deadline => Beat::Dead,
            State::Resting { .. } | State::Awaiting { .. } => Beat::Nothing,
        }
    }

    /// A pong starts the interval anew, also one that nobody asked for. Returns the round trip of one that was awaited.
    pub(super) fn on_pong(&mut self, now: Instant) -> Option<Duration> {
        let round_trip = match self.state {
            State::Awaiting { pinged, .. } => Some(now.saturating_duration_since(pinged)),
            State::Resting { .. } => None,
        };
        self.state = State::Resting { until: now + self.interval };
        round_trip
    }

    /// Any other packet shows life: it extends the wait for a pong, once per ping.
    pub(super) fn on_packet(&mut self, now: Instant) {
        if let State::Awaiting { deadline, extended, .. } = &mut self.state
            && !*extended
        {
            *deadline = now + self.timeout;
            *extended = true;
        }
    }
}
