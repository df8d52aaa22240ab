//! Lines that repeat: the first is logged at once, the others are counted, and the count is logged once a minute.
//!
//! A backend that is down fails every request, and a client can send as many requests as it likes. Neither may fill the
//! log. Lines are the same if they come from the same place in the code and name the same cause; which room or session
//! they are about makes no difference.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_subscriber::layer::{Context, Layer};

/// Lets each line through once, and counts how often it comes again. Clones are handles to the same counts.
///
/// It looks at the levels `INFO` and above; below, a log is complete.
#[derive(Clone, Debug, Default)]
pub struct Repeats(Arc<Mutex<Lines>>);

impl Repeats {
    /// Logs the counts of each minute that is over, for as long as it is polled.
    pub async fn report(self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            self.log(WINDOW);
        }
    }

    /// Logs all counts now, at the end of the process.
    pub fn report_all(&self) {
        self.log(Duration::ZERO);
    }

    fn log(&self, window: Duration) {
        // Not under the lock, which these lines would wait for.
        let due = self.0.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now(), window);
        for Summary { level, line, repeats } in due {
            match level {
                Level::ERROR => error!(target: TARGET, repeats, line, "a line was repeated"),
                Level::WARN => warn!(target: TARGET, repeats, line, "a line was repeated"),
                _ => info!(target: TARGET, repeats, line, "a line was repeated"),
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.admit(metadata.callsite(), *metadata.level(), line.text, Instant::now())
    }
}

/// The lines of about the last minute.
#[derive(Debug, Default)]
struct Lines(HashMap<Identifier, HashMap<String, Count>>);

#[derive(Debug)]
struct Count {
    level: Level,
    since: Instant,
    repeats: u64,
}

/// How often a line was repeated in its minute.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    level: Level,
    line: String,
    repeats: u64,
}

impl Lines {
    /// Counts a line; `true` if it is to be logged.
    fn admit(&mut self, place: Identifier, level: Level, line: String, now: Instant) -> bool {
        let counts = self.0.entry(place).or_default();
        // A cause may hold something that a client chooses. What is beyond the limit is one line.
        let line = if counts.len() < MOST_CAUSES || counts.contains_key(&line) { line } else { OTHERS.to_owned() };
        let mut is_new = false;
        let count = counts.entry(line).or_insert_with(|| {
            is_new = true;
            Count { level, since: now, repeats: 0 }
        });
        count.repeats += u64::from(!is_new);
        is_new
    }

    /// Takes the counts whose time is over. A line that was not repeated is forgotten; for any other the time begins anew.
    fn due(&mut self, now: Instant, window: Duration) -> Vec<Summary> {
        let mut due = Vec::new();
        for counts in self.0.values_mut() {
            counts.retain(|line, count| {
                if now.saturating_duration_since(count.since) < window {
                    return true;
                }
                let repeats = std::mem::take(&mut count.repeats);
                count.since = now;
                if repeats > 0 {
                    due.push(Summary { level: count.level, line: line.clone(), repeats });
                }
                repeats > 0
            });
        }
        self.0.retain(|_, counts| !counts.is_empty());
        due
    }
}

/// What makes a line the same as another: its message, and the fields that name a cause.
#[derive(Default)]
struct Line {
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_message = field.name() == "message";
        if !is_message && !CAUSES.contains(&field.name()) {
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str(", ");
        }
        let mut text = Bounded(&mut self.text);
        // An error of it means that the text is long enough.
        let _full = if is_message { write!(text, "{value:?}") } else { write!(text, "{}: {value:?}", field.name()) };
    }
}

/// Takes text up to [`MOST_BYTES`].
struct Bounded<'a>(&'a mut String);

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for one in text.chars() {
            if self.0.len() >= MOST_BYTES {
                return Err(fmt::Error);
            }
            self.0.push(one);
        }
        Ok(())
    }
}

/// Names of the fields that tell one cause from another. `id` is that of an [incident](crate::incident).
const CAUSES: [&str; 10] =
    ["backend", "cause", "error", "event", "fault", "id", "panicked", "server", "trouble", "why"];

/// Most lines of one place in the code that are told apart.
const MOST_CAUSES: usize = 64;

/// Stands for the lines beyond [`MOST_CAUSES`]; the first of them is logged as it is.
const OTHERS: &str = "many other causes";

/// Most bytes by which lines are told apart.
const MOST_BYTES: usize = 512;

const WINDOW: Duration = Duration::from_secs(60);

/// How often counts are looked at: a minute may be that much longer.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The summaries, which must not be counted themselves.
const TARGET: &str = "syncwatch::repeats";

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::*;

    /// What reaches the log, as its message and its number of repeats.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Log {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            struct All(String);
            impl Visit for All {
                fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                    write!(self.0, "{}={value:?} ", field.name()).unwrap();
                }
            }
            let mut all = All(format!("{} ", event.metadata().level()));
            event.record(&mut all);
            self.0.lock().unwrap().push(all.0.trim_end().to_owned());
        }
    }

    fn logged(run: impl FnOnce(&Repeats)) -> Vec<String> {
        let (repeats, log) = (Repeats::default(), Log::default());
        tracing::subscriber::with_default(registry().with(repeats.clone()).with(log.clone()), || run(&repeats));
        let lines = log.0.lock().unwrap();
        lines.clone()
    }

    fn fail(room: u32, error: &str) {
        warn!(room, error, "the store is unavailable");
    }

    #[test]
    fn a_line_is_logged_once_for_each_cause_and_then_counted() {
        let lines = logged(|repeats| {
            for room in 0..1_000 {
                fail(room, "disk full");
                fail(room, "timeout");
            }
            repeats.report_all();
            for room in 0..10 {
                fail(room, "disk full");
            }
            repeats.report_all();
        });
        let (mut first, mut rest) = (lines, Vec::new());
        rest.extend(first.drain(2..));
        assert_eq!(
            first,
            [
                r#"WARN message=the store is unavailable room=0 error="disk full""#,
                r#"WARN message=the store is unavailable room=0 error="timeout""#
            ]
        );
        rest.sort();
        let summary = |repeats: u32, error: &str| {
            format!(
                r#"WARN message=a line was repeated repeats={repeats} line="the store is unavailable, error: \"{error}\"""#
            )
        };
        assert_eq!(rest, [summary(10, "disk full"), summary(999, "disk full"), summary(999, "timeout")]);
    }

    #[test]
    fn a_line_that_did_not_come_again_is_logged_at_once_the_next_time() {
        let lines = logged(|repeats| {
            fail(1, "disk full");
            repeats.report_all();
            fail(2, "disk full");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn causes_that_a_client_makes_up_are_bounded() {
        let lines = logged(|repeats| {
            for number in 0..10_000 {
                fail(0, &format!("cause {number}"));
            }
            repeats.report_all();
        });
        assert_eq!(lines.len(), MOST_CAUSES + 2);
        let others = 10_000 - MOST_CAUSES - 1;
        let last = format!(r#"WARN message=a line was repeated repeats={others} line="many other causes""#);
        assert_eq!(lines.last(), Some(&last));
    }

    #[test]
    fn debug_lines_are_all_logged_and_errors_stay_errors() {
        let lines = logged(|repeats| {
            for _ in 0..3 {
                tracing::debug!("seen");
                error!("failed");
            }
            repeats.report_all();
        });
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!((count("DEBUG"), count("ERROR"), lines.len()), (3, 2, 5), "{lines:?}");
    }

    #[test]
    fn a_minute_ends_no_sooner() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let place = tracing::callsite::Identifier(&Nowhere);
        let admit = |lines: &mut Lines, at| lines.admit(place.clone(), Level::WARN, "x".to_owned(), now + at);
        assert!(admit(&mut lines, Duration::ZERO));
        assert!(!admit(&mut lines, Duration::from_secs(59)));
        assert_eq!(lines.due(now + Duration::from_secs(59), WINDOW), []);
        let summary = Summary { level: Level::WARN, line: "x".to_owned(), repeats: 1 };
        assert_eq!(lines.due(now + Duration::from_secs(60), WINDOW), [summary]);
        assert!(!admit(&mut lines, Duration::from_secs(61)), "a second minute has begun");
        assert_eq!(lines.due(now + Duration::from_secs(120), WINDOW).len(), 1);
        assert_eq!(lines.due(now + Duration::from_secs(180), WINDOW), []);
        assert!(lines.0.is_empty(), "nothing is kept");
    }

    struct Nowhere;

    impl tracing::callsite::Callsite for Nowhere {
        fn set_interest(&self, _interest: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nothing is logged here")
        }
    }
}
