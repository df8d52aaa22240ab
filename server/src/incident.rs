//! Failures of ours: the cause goes to the log under an id, and the id to the client.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id;

/// Logs a failure under an id and returns the id. `about` is what it happened to, for the log.
///
/// The same cause within a minute has the same id, so that a client that repeats a failing request does not fill the log:
/// each id returned is in the log with its cause.
pub(crate) fn report(cause: &str, about: &str) -> String {
    let (id, cause) = INCIDENTS.lock().unwrap_or_else(PoisonError::into_inner).find(cause, Instant::now());
    tracing::error!(id, cause, about, "a request failed");
    id
}

static INCIDENTS: Mutex<Incidents> = Mutex::new(Incidents(Vec::new()));

/// The incidents of the last minute, oldest first.
#[derive(Debug)]
struct Incidents(Vec<Incident>);

#[derive(Debug)]
struct Incident {
    id: String,
    cause: String,
    since: Instant,
}

impl Incidents {
    /// The id and the cause that a failure is logged with.
    fn find(&mut self, cause: &str, now: Instant) -> (String, String) {
        self.0.retain(|incident| now.saturating_duration_since(incident.since) < LASTS);
        // A cause may differ each time, with the number of a task for example. Beyond the limit all have one id.
        let is_full = self.0.len() >= MOST;
        let incident = self.0.iter().find(|incident| incident.cause == cause);
        if let Some(incident) = incident.or_else(|| self.0.last().filter(|_| is_full)) {
            return (incident.id.clone(), incident.cause.clone());
        }
        let is_last = self.0.len() + 1 == MOST;
        let cause = if is_last { format!("many different causes, such as: {cause}") } else { cause.to_owned() };
        let incident = Incident { id: id::log_id(), cause, since: now };
        let found = (incident.id.clone(), incident.cause.clone());
        self.0.push(incident);
        found
    }
}

/// How long a cause keeps its id. The log tells lines with different ids apart, and counts those with the same.
const LASTS: Duration = Duration::from_secs(60);

/// Most ids in [`LASTS`]: fewer than the lines of one place that the log tells apart, see
/// [`Repeats`](crate::telemetry::Repeats).
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_keeps_its_id_for_a_minute() {
        let (mut incidents, now) = (Incidents(Vec::new()), Instant::now());
        let (first, cause) = incidents.find("disk", now);
        assert_eq!(cause, "disk");
        assert_eq!(incidents.find("disk", now + LASTS / 2).0, first);
        assert_ne!(incidents.find("memory", now).0, first);
        assert_ne!(incidents.find("disk", now + LASTS).0, first);
    }

    #[test]
    fn causes_without_end_have_few_ids() {
        let (mut incidents, now) = (Incidents(Vec::new()), Instant::now());
        let found: std::collections::HashSet<_> =
            (0..1_000).map(|number| incidents.find(&format!("task {number}"), now)).collect();
        assert_eq!(found.len(), MOST);
        assert_eq!(incidents.find("task 999", now).1, "many different causes, such as: task 15");
    }
}
