//! The way of a WebSocket from candidate to transport.

use std::time::{Duration, Instant};

use crate::error::Violation;
use crate::packet::Packet;

/// The upgrade of one session.
///
/// ```text
/// None --websocket arrives--> Opened --2probe--> Probed --5--> Done
///   ^                            |  \________________5________^
///   +--- wrong packet, loss, ----+-- timeout (the session stays on polling)
/// ```
///
/// `5` without a probe is accepted, as by engine.io 6.6.
///
/// Source: Engine.IO protocol v4, "Upgrade".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    None,
    Opened { deadline: Instant },
    Probed { deadline: Instant, next_noop: Instant },
}

/// What a packet on the candidate leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Answer the probe and release a waiting poll.
    Probe,
    /// The candidate becomes the transport.
    Switch,
}

impl Upgrade {
    /// How often polls are released while a client finds its way to the WebSocket. A single release is not enough:
    /// the client may have sent its next poll before it read the probe's answer.
    const NOOP_INTERVAL: Duration = Duration::from_millis(100);

    /// Applies a packet from the candidate; an error drops only the candidate.
    pub(super) fn on_packet(&mut self, packet: &Packet, now: Instant) -> Result<Step, Violation> {
        match (*self, packet) {
            (Self::Opened { deadline } | Self::Probed { deadline, .. }, Packet::Ping(text)) if &**text == "probe" => {
                *self = Self::Probed { deadline, next_noop: now + Self::NOOP_INTERVAL };
                Ok(Step::Probe)
            }
            (Self::Opened { .. } | Self::Probed { .. }, Packet::Upgrade) => {
                *self = Self::None;
                Ok(Step::Switch)
            }
            (Self::None | Self::Opened { .. } | Self::Probed { .. }, _) => Err(Violation::UnexpectedOnCandidate),
        }
    }

    pub(super) fn is_active(self) -> bool {
        self != Self::None
    }

    pub(super) fn is_probed(self) -> bool {
        matches!(self, Self::Probed { .. })
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Opened { deadline } => Some(deadline),
            Self::Probed { deadline, next_noop } => Some(deadline.min(next_noop)),
        }
    }

    /// Tells whether the candidate took too long.
    pub(super) fn is_late(self, now: Instant) -> bool {
        match self {
            Self::None => false,
            Self::Opened { deadline } | Self::Probed { deadline, .. } => now >= deadline,
        }
    }

    /// Tells whether a waiting poll is due to be released, and starts the next interval.
    pub(super) fn noop_due(&mut self, now: Instant) -> bool {
        match self {
            Self::Probed { next_noop, .. } if now >= *next_noop => {
                *next_noop = now + Self::NOOP_INTERVAL;
                true
            }
            Self::None | Self::Opened { .. } | Self::Probed { .. } => false,
        }
    }
}
