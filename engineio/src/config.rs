//! Every limit and interval of a session, with its unit, default and allowed range.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::error::ConfigError;
use crate::handshake::Transport;
use crate::origin::Origins;

/// Limits and intervals of an Engine.IO server. [`Config::default`] is what the reference server uses, and the
/// limits that it lacks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Path that requests start with; `/` is the whole host. A slash at its end makes no difference. Default:
    /// `/engine.io`. Absolute, without query or fragment.
    pub path: String,
    /// Whether only requests with a slash behind [`path`](Self::path) are served, as clients send them by default. With
    /// `false` also those without it, of clients whose option `addTrailingSlash` is off. Default: `true`.
    pub add_trailing_slash: bool,
    /// Time from the handshake, and from each pong, to the next ping. Default: 25 s. From 1 ms to 365 days.
    ///
    /// Source: Engine.IO protocol v4, "Heartbeat".
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered before the session is closed. Default: 20 s. From 1 ms to 365
    /// days.
    ///
    /// While polling, the clock starts when the ping is queued.
    pub ping_timeout: Duration,
    /// How long an upgrade may take from the WebSocket's arrival to the `upgrade` packet. Default: 10 s. From 1 ms to
    /// 365 days.
    ///
    /// After it the WebSocket is dropped; the session goes on polling.
    pub upgrade_timeout: Duration,
    /// Largest message from a client in bytes, on every transport; also the largest polling body. Sent to the client
    /// as `maxPayload`. Default: 1,000,000. At least 1.
    ///
    /// A larger POST gets status 413, a larger WebSocket message close code 1009.
    pub max_payload_bytes: usize,
    /// Bytes waiting for one client beyond which the server looks for progress: a client that takes nothing for
    /// [`stall_timeout`](Self::stall_timeout) while more waits is closed with
    /// [`CloseReason::TransportError`](crate::CloseReason), and volatile messages to it are dropped meanwhile. One that
    /// reads, however slowly, stays. Default: 4 MiB. At least 1,024.
    ///
    /// As in all limits of this kind, each message counts with what it occupies beside its bytes.
    pub max_buffered_bytes: usize,
    /// How long a client may take nothing of what waits for it while that is more than
    /// [`max_buffered_bytes`](Self::max_buffered_bytes). Default: `None`, as long as
    /// [`ping_timeout`](Self::ping_timeout), which is also the most. At least 1 ms.
    pub stall_timeout: Option<Duration>,
    /// Bytes waiting for one client beyond which nothing more is read from it; reading goes on when no more than a quarter
    /// of this waits. Default: `None`, a quarter of [`max_buffered_bytes`](Self::max_buffered_bytes), 1 MiB. At
    /// least 1, at most `max_buffered_bytes`.
    pub high_water_bytes: Option<usize>,
    /// Most bytes that may wait for one client. A message that does not fit is refused with
    /// [`SendError::Full`](crate::server::SendError), whole, and the client stays. Default: `None`, sixteen times
    /// [`max_buffered_bytes`](Self::max_buffered_bytes), 64 MiB, or
    /// [`max_total_backlog_bytes`](Self::max_total_backlog_bytes) where that is less. At least `max_buffered_bytes`.
    ///
    /// A single message that is larger is sent where nothing else waits.
    pub max_backlog_bytes: Option<usize>,
    /// Most bytes that may wait for all clients together, in both directions: to be written to them, and for their
    /// handlers. Beyond it the clients with the most are closed with
    /// [`CloseReason::TransportError`](crate::CloseReason) until an eighth of this is free. Default: 1 GiB. At least
    /// [`max_backlog_bytes`](Self::max_backlog_bytes).
    ///
    /// A message to many counts once for each client that still waits for it.
    pub max_total_backlog_bytes: usize,
    /// Which transports are on. Default: both.
    pub transports: Transports,
    /// Which origins may connect beside the server's own. Default: none.
    pub origins: Origins,
    /// How long nothing may come of a POST's body; the whole of it may take 15 times as long. Default: 20 s. From 1 ms to
    /// 365 days.
    pub body_timeout: Duration,
    /// How long a closed session waits for its last packets to be fetched or written. Default: 30 s (as engine.io 6.6
    /// hard-codes for polling). At most 365 days.
    ///
    /// A WebSocket whose client takes nothing for 2 s is given up earlier, and so is a polling client without a poll for
    /// 5 s when the whole server closes.
    pub close_timeout: Duration,
    /// Most sessions open at once. Default: 1,000,000. At least 1. A handshake beyond it gets status 503.
    pub max_sessions: usize,
    /// Limits of what is passed on to other instances, by a server with a relay.
    pub relay: RelayConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/engine.io".to_owned(),
            add_trailing_slash: true,
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            max_payload_bytes: 1_000_000,
            max_buffered_bytes: 4 << 20,
            stall_timeout: None,
            high_water_bytes: None,
            max_backlog_bytes: None,
            max_total_backlog_bytes: 1 << 30,
            transports: Transports::default(),
            origins: Origins::default(),
            body_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(30),
            max_sessions: 1_000_000,
            relay: RelayConfig::default(),
        }
    }
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field out of range, and its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            (
                self.path.starts_with('/') && !self.path.contains(['?', '#']),
                "path",
                "an absolute path without query and fragment",
            ),
            (INTERVALS.contains(&self.ping_interval), "ping_interval", "from 1 ms to 365 days"),
            (INTERVALS.contains(&self.ping_timeout), "ping_timeout", "from 1 ms to 365 days"),
            (INTERVALS.contains(&self.upgrade_timeout), "upgrade_timeout", "from 1 ms to 365 days"),
            (INTERVALS.contains(&self.body_timeout), "body_timeout", "from 1 ms to 365 days"),
            (self.close_timeout <= MAX_INTERVAL, "close_timeout", "at most 365 days"),
            (self.max_payload_bytes >= 1, "max_payload_bytes", "at least 1"),
            (self.max_buffered_bytes >= 1024, "max_buffered_bytes", "at least 1024"),
            (
                (MIN_INTERVAL..=self.ping_timeout).contains(&self.stall_timeout()),
                "stall_timeout",
                "from 1 ms to ping_timeout",
            ),
            (
                (1..=self.max_buffered_bytes).contains(&self.high_water_bytes()),
                "high_water_bytes",
                "from 1 to max_buffered_bytes",
            ),
            (self.max_backlog_bytes() >= self.max_buffered_bytes, "max_backlog_bytes", "at least max_buffered_bytes"),
            (
                self.max_total_backlog_bytes >= self.max_backlog_bytes(),
                "max_total_backlog_bytes",
                "at least max_backlog_bytes",
            ),
            (self.transports.polling || self.transports.websocket, "transports", "at least one transport"),
            (self.max_sessions >= 1, "max_sessions", "at least 1"),
            (INTERVALS.contains(&self.relay.ack_timeout), "relay.ack_timeout", "from 1 ms to 365 days"),
            (INTERVALS.contains(&self.relay.silence_timeout), "relay.silence_timeout", "from 1 ms to 365 days"),
            (LINE_BYTES.contains(&self.relay.line_bytes), "relay.line_bytes", "from 4096 to 16777216"),
        ];
        match checks.into_iter().find(|(valid, ..)| !valid) {
            Some((_, field, allowed)) => Err(ConfigError { field, allowed }),
            None => Ok(()),
        }
    }

    /// Returns [`stall_timeout`](Self::stall_timeout), or what stands for it.
    pub fn stall_timeout(&self) -> Duration {
        self.stall_timeout.unwrap_or(self.ping_timeout)
    }

    /// Returns [`high_water_bytes`](Self::high_water_bytes), or what stands for it.
    pub fn high_water_bytes(&self) -> usize {
        self.high_water_bytes.unwrap_or(self.max_buffered_bytes / 4)
    }

    /// Returns [`max_backlog_bytes`](Self::max_backlog_bytes), or what stands for it.
    pub fn max_backlog_bytes(&self) -> usize {
        let derived = self.max_buffered_bytes.saturating_mul(16).min(self.max_total_backlog_bytes);
        self.max_backlog_bytes.unwrap_or(derived)
    }
}

/// Added to any point in time, this overflows no clock.
const MAX_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const INTERVALS: RangeInclusive<Duration> = MIN_INTERVAL..=MAX_INTERVAL;

const LINE_BYTES: RangeInclusive<usize> = 4096..=16 << 20;

/// Limits of what instances do for each other's clients. Alike in all of them, as the rest of [`Config`].
///
/// What is beyond a limit gets status 503.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RelayConfig {
    /// How long another instance may take to say that it has a session and the request; after it the client is answered
    /// that the session is unknown, status 400 and code 1. Default: 2 s. From 1 ms to 365 days.
    pub ack_timeout: Duration,
    /// How long an instance may be silent while something is under way with it, before that ends. It is asked for a sign
    /// of life four times in that time. Default: 10 s. From 1 ms to 365 days.
    pub silence_timeout: Duration,
    /// Most requests of clients here that wait for other instances, and most of theirs that wait here. Default: 100,000
    /// of each.
    pub max_requests: usize,
    /// Most bytes of polling bodies here that are on their way to other instances. Default: 64 MiB.
    pub max_bytes: usize,
    /// Most WebSockets carried between this instance and others, at either end. Default: 100,000.
    pub max_lines: usize,
    /// Most bytes of one such WebSocket that are under way in each direction; a sender waits beyond it. Default: 64 KiB.
    /// From 4 KiB to 16 MiB.
    pub line_bytes: usize,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            silence_timeout: Duration::from_secs(10),
            max_requests: 100_000,
            max_bytes: 64 << 20,
            max_lines: 100_000,
            line_bytes: 64 * 1024,
        }
    }
}

/// Which transports a server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// HTTP long-polling. Default: on.
    pub polling: bool,
    /// WebSocket, also as the upgrade of a polling session. Default: on.
    pub websocket: bool,
}

impl Default for Transports {
    fn default() -> Self {
        Self { polling: true, websocket: true }
    }
}

impl Transports {
    /// Tells whether a transport is on.
    pub fn allows(self, transport: Transport) -> bool {
        match transport {
            Transport::Polling => self.polling,
            Transport::WebSocket => self.websocket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Spoil = fn(&mut Config);
        let wrong: [(&str, Spoil); 20] = [
            ("path", |c| c.path = "engine.io/".into()),
            ("path", |c| c.path = "/engine.io/?a=1".into()),
            ("ping_interval", |c| c.ping_interval = Duration::ZERO),
            ("ping_timeout", |c| c.ping_timeout = Duration::ZERO),
            ("ping_timeout", |c| c.ping_timeout = Duration::MAX),
            ("close_timeout", |c| c.close_timeout = Duration::MAX),
            ("upgrade_timeout", |c| c.upgrade_timeout = Duration::ZERO),
            ("body_timeout", |c| c.body_timeout = Duration::ZERO),
            ("max_payload_bytes", |c| c.max_payload_bytes = 0),
            ("max_buffered_bytes", |c| c.max_buffered_bytes = 1),
            ("stall_timeout", |c| c.stall_timeout = Some(Duration::ZERO)),
            ("stall_timeout", |c| c.stall_timeout = Some(c.ping_timeout + Duration::from_millis(1))),
            ("high_water_bytes", |c| c.high_water_bytes = Some(c.max_buffered_bytes + 1)),
            ("max_backlog_bytes", |c| c.max_backlog_bytes = Some(c.max_buffered_bytes - 1)),
            ("max_total_backlog_bytes", |c| c.max_backlog_bytes = Some(c.max_total_backlog_bytes + 1)),
            ("transports", |c| c.transports = Transports { polling: false, websocket: false }),
            ("max_sessions", |c| c.max_sessions = 0),
            ("relay.ack_timeout", |c| c.relay.ack_timeout = Duration::ZERO),
            ("relay.silence_timeout", |c| c.relay.silence_timeout = Duration::MAX),
            ("relay.line_bytes", |c| c.relay.line_bytes = 4095),
        ];
        for (field, spoil) in wrong {
            let mut config = Config::default();
            spoil(&mut config);
            assert_eq!(config.validate().map_err(|error| error.field), Err(field));
        }
    }
}
