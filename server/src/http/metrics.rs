//! `GET /metrics`: what the server counts, for Prometheus.
//!
//! Every label takes its values from a list fixed here, whatever clients send, so that nobody can grow the registry.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::{Answer, text};

/// What the server counts. Recording is a few atomic operations; share it in an `Arc`.
pub struct Metrics {
    /// Rooms held in memory.
    pub rooms: Gauge,
    /// Connections that are in one of them.
    pub participants: Gauge,
    /// Bytes that wait to be sent to clients.
    pub queue_bytes: Gauge,
    registry: Registry,
    connections: Family<Label, Gauge>,
    events: Family<LabelPair, Counter>,
    event_seconds: Family<Label, Histogram, fn() -> Histogram>,
    refusals: Family<Label, Counter>,
    passwords: Family<Label, Counter>,
    relayed: Counter,
    relay_lines: Gauge,
    store_seconds: Family<LabelPair, Histogram, fn() -> Histogram>,
    drift_seconds: Histogram,
}

/// Why a client was turned away, or its connection ended, where that is not counted by the layer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its token is not valid.
    Token,
    /// There are too many rooms.
    Rooms,
    /// It asked too often.
    Rate,
    /// It broke the protocol.
    Protocol,
    /// Its transport failed, was misused, or did not take what was sent.
    Transport,
}

/// What became of the verification of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordOutcome {
    /// The password was right.
    Right,
    /// The password was wrong.
    Wrong,
    /// Too many others were waiting.
    Busy,
    /// It could not be verified.
    Failed,
}

type Label = [(&'static str, &'static str); 1];
type LabelPair = [(&'static str, &'static str); 2];

impl Metrics {
    /// Makes all metrics, those without labels at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("syncwatch");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        let short: fn() -> Histogram = || Histogram::new(SHORT_SECONDS);
        let metrics = Self {
            rooms: Gauge::default(),
            participants: Gauge::default(),
            queue_bytes: Gauge::default(),
            registry: Registry::default(),
            connections: Family::default(),
            events: Family::default(),
            event_seconds: Family::new_with_constructor(short),
            refusals: Family::default(),
            passwords: Family::default(),
            relayed: Counter::default(),
            relay_lines: Gauge::default(),
            store_seconds: Family::new_with_constructor(short),
            drift_seconds: Histogram::new(DRIFT_SECONDS),
        };
        registry.register("rooms", "Rooms held in memory", metrics.rooms.clone());
        registry.register("participants", "Connections that are in a room", metrics.participants.clone());
        let queue_bytes = metrics.queue_bytes.clone();
        registry.register_with_unit("queue", "Bytes that wait to be sent to clients", Unit::Bytes, queue_bytes);
        registry.register("connections", "Open connections by transport", metrics.connections.clone());
        registry.register("events", "Events from clients by name and result", metrics.events.clone());
        let seconds = metrics.event_seconds.clone();
        registry.register_with_unit("event", "Time to handle an event by name", Unit::Seconds, seconds);
        registry.register("refusals", "Clients turned away by reason", metrics.refusals.clone());
        registry.register("password_verifications", "Room passwords verified by result", metrics.passwords.clone());
        let relayed = metrics.relayed.clone();
        registry.register("relayed_requests", "Requests passed on to the instance of their session", relayed);
        let lines = metrics.relay_lines.clone();
        registry.register("relay_lines", "WebSockets carried between this instance and others", lines);
        let seconds = metrics.store_seconds.clone();
        registry.register_with_unit("store", "Time of store calls by operation and result", Unit::Seconds, seconds);
        let drift = metrics.drift_seconds.clone();
        registry.register_with_unit("drift", "How far players are from the room, as reported", Unit::Seconds, drift);
        let metrics = Self { registry, ..metrics };
        metrics.set_connections(0, 0);
        metrics
    }

    /// Sets how many connections are open, by transport.
    pub fn set_connections(&self, polling: i64, websocket: i64) {
        self.connections.get_or_create(&[("transport", "polling")]).set(polling);
        self.connections.get_or_create(&[("transport", "websocket")]).set(websocket);
    }

    /// Sets how many requests were refused so far for their origin, and for want of room.
    pub fn set_refused_requests(&self, origin: u64, overload: u64) {
        for (reason, total) in [("origin", origin), ("connections", overload)] {
            let counter = self.refusals.get_or_create(&[("reason", reason)]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Sets how many requests were passed on to other instances so far, and how many WebSockets are carried between them
    /// and this one.
    pub fn set_relayed(&self, requests: u64, lines: i64) {
        self.relayed.inc_by(requests.saturating_sub(self.relayed.get()));
        self.relay_lines.set(lines);
    }

    /// Counts an event from a client: its name, `ok` or its error code, and the time it took.
    ///
    /// A name or a code that is not ours counts as `other`.
    pub fn event(&self, name: &str, result: &str, took: Duration) {
        let name = one_of(EVENTS, name);
        self.events.get_or_create(&[("event", name), ("result", one_of(RESULTS, result))]).inc();
        self.event_seconds.get_or_create(&[("event", name)]).observe(took.as_secs_f64());
    }

    /// Counts a client that was turned away.
    pub fn refused(&self, reason: Refusal) {
        let reason = match reason {
            Refusal::Token => "token",
            Refusal::Rooms => "rooms",
            Refusal::Rate => "rate",
            Refusal::Protocol => "protocol",
            Refusal::Transport => "transport",
        };
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts the verification of a password.
    pub fn password_verified(&self, outcome: PasswordOutcome) {
        let result = match outcome {
            PasswordOutcome::Right => "right",
            PasswordOutcome::Wrong => "wrong",
            PasswordOutcome::Busy => "busy",
            PasswordOutcome::Failed => "failed",
        };
        self.passwords.get_or_create(&[("result", result)]).inc();
    }

    /// Records the time of a store call. [`Metered`](crate::store::metered::Metered) does so for every call.
    pub fn store_call(&self, operation: &'static str, is_ok: bool, took: Duration) {
        let result = if is_ok { "ok" } else { "error" };
        self.store_seconds.get_or_create(&[("operation", operation), ("result", result)]).observe(took.as_secs_f64());
    }

    /// Records how far a player was from where the room is, in either direction.
    pub fn drift(&self, millis: f64) {
        // A sum that is not a number would stay so forever.
        if millis.is_finite() {
            self.drift_seconds.observe(millis.abs() / 1000.0);
        }
    }

    /// Answers a scrape: in OpenMetrics where `accept`, the request's header, asks for it, else in the older format.
    pub fn answer(&self, accept: Option<&str>) -> Answer {
        let mut body = String::new();
        if encode(&mut body, &self.registry).is_err() {
            return super::failure(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "metrics could not be written");
        }
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            text(StatusCode::OK, OPEN_METRICS, body)
        } else {
            text(StatusCode::OK, PROMETHEUS_TEXT, prometheus_text(&body))
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn one_of(known: &[&'static str], value: &str) -> &'static str {
    known.iter().find(|known| **known == value).copied().unwrap_or("other")
}

/// Turns OpenMetrics into the Prometheus text format 0.0.4, in which the name of a counter's or an info's family is that
/// of its samples, there are no units, and the end is the end.
fn prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(line) = line.strip_prefix("# HELP ") {
            help = line.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let (name, kind) = match kind {
                "counter" => (format!("{name}_total"), kind),
                "info" => (format!("{name}_info"), "gauge"),
                _ => (name.to_owned(), kind),
            };
            text.push_str(&format!("# HELP {name} {}\n# TYPE {name} {kind}\n", help.take().unwrap_or_default()));
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Names of the events clients send (contract, section 2).
const EVENTS: &[&str] = &[
    "room:join",
    "room:leave",
    "room:update",
    "room:grant",
    "room:kick",
    "room:transfer",
    "time:ping",
    "sync:source",
    "sync:play",
    "sync:pause",
    "sync:seek",
    "sync:rate",
    "sync:resync",
    "sync:buffering",
    "sync:report",
    "chat:message",
    "ready:start",
    "ready:respond",
];

/// `ok`, and the error codes (contract, section 4).
const RESULTS: &[&str] = &[
    "ok",
    "ROOM_NOT_FOUND",
    "ROOM_FULL",
    "INVALID_PASSWORD",
    "UNAUTHORIZED",
    "ALREADY_IN_ROOM",
    "NOT_IN_ROOM",
    "INVALID_TOKEN",
    "INTERNAL_ERROR",
    "VALIDATION_ERROR",
    "RATE_LIMIT_EXCEEDED",
    "UNAVAILABLE",
];

/// From a lookup in memory to the deadline of a store call.
const SHORT_SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// From what nobody sees (a frame is 0.04 s) to what everybody does.
const DRIFT_SECONDS: [f64; 10] = [0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 3.0, 10.0];

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;

    use super::*;

    async fn scrape(metrics: &Metrics, accept: Option<&str>) -> String {
        let answer = metrics.answer(accept);
        assert_eq!(answer.status(), StatusCode::OK);
        let expected = if accept.is_some() { OPEN_METRICS } else { PROMETHEUS_TEXT };
        assert_eq!(answer.headers()[CONTENT_TYPE], expected);
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line}\nis not in\n{text}");
        }
    }

    #[tokio::test]
    async fn everything_recorded_is_shown() {
        let metrics = Metrics::new();
        metrics.rooms.set(3);
        metrics.participants.inc();
        metrics.queue_bytes.inc_by(500);
        metrics.set_connections(0, 1);
        metrics.set_refused_requests(1, 0);
        metrics.set_refused_requests(3, 0);
        metrics.set_relayed(5, 2);
        metrics.set_relayed(7, 1);
        metrics.event("room:join", "ok", Duration::from_millis(3));
        metrics.event("room:join", "ROOM_FULL", Duration::from_millis(1));
        metrics.refused(Refusal::Token);
        metrics.password_verified(PasswordOutcome::Wrong);
        metrics.store_call("apply", true, Duration::from_millis(2));
        metrics.drift(-50.0);
        metrics.drift(f64::NAN);
        let text = scrape(&metrics, None).await;
        assert_lines(
            &text,
            &[
                "syncwatch_rooms 3",
                "syncwatch_participants 1",
                "syncwatch_queue_bytes 500",
                "syncwatch_connections{transport=\"polling\"} 0",
                "syncwatch_connections{transport=\"websocket\"} 1",
                "syncwatch_events_total{event=\"room:join\",result=\"ok\"} 1",
                "syncwatch_events_total{event=\"room:join\",result=\"ROOM_FULL\"} 1",
                "syncwatch_event_seconds_count{event=\"room:join\"} 2",
                "syncwatch_event_seconds_bucket{le=\"0.001\",event=\"room:join\"} 1",
                "syncwatch_refusals_total{reason=\"origin\"} 3",
                "syncwatch_refusals_total{reason=\"token\"} 1",
                "syncwatch_password_verifications_total{result=\"wrong\"} 1",
                "syncwatch_relayed_requests_total 7",
                "syncwatch_relay_lines 1",
                "syncwatch_store_seconds_count{operation=\"apply\",result=\"ok\"} 1",
                "syncwatch_drift_seconds_sum 0.05",
                "# TYPE syncwatch_events_total counter",
                "# TYPE syncwatch_event_seconds histogram",
                "# TYPE syncwatch_build_info gauge",
                concat!("syncwatch_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            ],
        );
    }

    #[tokio::test]
    async fn open_metrics_is_answered_where_asked_for() {
        let metrics = Metrics::new();
        metrics.event("room:join", "ok", Duration::ZERO);
        let text = scrape(&metrics, Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")).await;
        assert!(text.ends_with("# EOF\n"));
        assert_lines(&text, &["# TYPE syncwatch_events counter", "# UNIT syncwatch_queue_bytes bytes"]);
    }

    #[tokio::test]
    async fn every_sample_of_the_older_format_has_the_name_of_its_family() {
        let metrics = Metrics::new();
        metrics.event("room:join", "ok", Duration::ZERO);
        metrics.refused(Refusal::Transport);
        let text = scrape(&metrics, None).await;
        let mut family = String::new();
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("# TYPE ") {
                family = line.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let rest = name.strip_prefix(&family).unwrap_or("?");
                assert!(["", "_bucket", "_sum", "_count"].contains(&rest), "{line} under {family}");
            }
        }
    }

    #[tokio::test]
    async fn what_clients_make_up_does_not_grow_the_registry() {
        let metrics = Metrics::new();
        metrics.event("made:up", "MADE_UP", Duration::ZERO);
        let before = scrape(&metrics, None).await.lines().count();
        for index in 0..1000 {
            metrics.event(&format!("made:up\n{index}"), &format!("\"{index}"), Duration::ZERO);
        }
        let text = scrape(&metrics, None).await;
        assert_eq!(text.lines().count(), before);
        assert_lines(&text, &["syncwatch_events_total{event=\"other\",result=\"other\"} 1001"]);
    }
}
