//! When to ping, and when a missing pong ends the session.

use std::time::{Duration, Instant};

/// The heartbeat of one session, timed from the pong.
///
/// ```text
/// Resting(until) --until--> ping --> Awaiting(deadline) --deadline--> dead
///     ^                                   |    ^ |
///     +------------------ pong -----------+    +-+ an excuse
/// ```
///
/// An excuse puts the deadline off: the client takes what is sent to it, so the ping or its pong may still be on the way,
/// or the server does not read what the client sends.
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

/// What explains that a pong has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Much is sent to the client, and it last took some at this time: the ping may be on its way to it, or the pong from
    /// it.
    TookAt(Instant),
    /// What the client sends is not read at the moment. It is pinged again: a write to a connection that is gone fails.
    Unread,
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

    /// Handles a deadline. `excuse` tells what may explain that no pong has come.
    pub(super) fn on_timeout(&mut self, now: Instant, excuse: Option<Excuse>) -> Beat {
        match &mut self.state {
            State::Resting { until } if now >= *until => {
                self.state = State::Awaiting { pinged: now, deadline: now + self.timeout, extended: false };
                Beat::Ping
            }
            State::Awaiting { deadline, .. } if now >= *deadline => match excuse {
                Some(Excuse::Unread) => {
                    *deadline = now + self.timeout;
                    Beat::Ping
                }
                Some(Excuse::TookAt(time)) if time + self.timeout > now => {
                    *deadline = time + self.timeout;
                    Beat::Nothing
                }
                Some(Excuse::TookAt(_)) | None => Beat::Dead,
            },
            State::Resting { .. } | State::Awaiting { .. } => Beat::Nothing,
        }
    }

    /// Gives the client the whole time for a pong again, since only now its packets are read.
    pub(super) fn restart(&mut self, now: Instant) {
        if let State::Awaiting { deadline, .. } = &mut self.state {
            *deadline = now + self.timeout;
        }
    }

    /// A pong starts the interval anew, also an unsolicited one. Returns the round trip of one that was awaited.
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
