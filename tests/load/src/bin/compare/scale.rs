//! The product with as many participants as there can be: who stays, and everybody cut off at once.

use crate::growth::{CONNECTIONS, Line, SPARE_FILES, one, points, rows, words};
use crate::record::{Metric, Record, Selection};
use crate::runner::Job;
use crate::server::Server;

/// Participants of each room.
const MEMBERS: u32 = 10;

/// What is done with them.
struct Work {
    name: &'static str,
    load: fn(u32) -> Vec<String>,
    seconds: f64,
}

const WORKS: [Work; 2] = [
    Work {
        name: "participants",
        load: |size| {
            let mut load = words("room", &[("rooms", size / MEMBERS), ("members", MEMBERS)]);
            load.extend(["--scenario", "stay"].map(str::to_owned));
            load
        },
        // One heartbeat of everybody.
        seconds: 25.0,
    },
    Work {
        name: "participants-avalanche",
        load: |size| words("avalanche", &[("clients", size), ("members", MEMBERS)]),
        // The longest that anyone may take to be back.
        seconds: 60.0,
    },
];

/// What is measured: each work, with as many participants as the system allows.
pub(crate) fn jobs(quick: bool, open_files: u64) -> Vec<Vec<Job>> {
    let most = if quick { 1000 } else { open_files.saturating_sub(SPARE_FILES) };
    let sizes = || CONNECTIONS.into_iter().filter(move |size| u64::from(*size) <= most);
    let job = |work: &Work, size: u32| Job {
        selection: Selection::Scale,
        work: work.name.to_owned(),
        size: Some(size),
        server: Server::Syncwatch,
        load: (work.load)(size),
        warmup: 1.0,
        seconds: if quick && work.name == "participants" { 1.0 } else { work.seconds },
    };
    WORKS.iter().flat_map(|work| sizes().map(|size| vec![job(work, size)])).collect()
}

/// A row of the table: its title, its work, and what it shows.
const ROWS: [(&str, &str, Metric); 8] = [
    ("Memory of each, KiB", "participants", Metric::MEMORY),
    ("CPU of a join, µs", "participants", Metric::JOIN_CPU),
    ("CPU of 1,000 who stay, ms per second", "participants", Metric::IDLE_CPU),
    ("Events that never came", "participants", Metric::LOST),
    ("Cut off at once: CPU of a return, µs", "participants-avalanche", Metric::CPU),
    ("— until half are back, s", "participants-avalanche", Metric::HALF_BACK),
    ("— until all are back, s", "participants-avalanche", Metric::ALL_BACK),
    ("— share back in their seats", "participants-avalanche", Metric::BACK_SHARE),
];

/// The tables.
pub(crate) fn report(records: &[Record]) -> String {
    let lines = ROWS.map(|(title, work, metric)| {
        (title, points(records, &Line { title, work, server: Server::Syncwatch, metric, per: one }))
    });
    format!(
        "# The product with more and more participants\n\nMedians over the repetitions, in rooms of {MEMBERS}, on \
         the embedded database. The limit of open files is what ends the row.\n\n{}",
        rows("Participants", &lines),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_keep_below_the_limit_of_open_files() {
        let sizes = |open_files| {
            let jobs = jobs(false, open_files).into_iter().flatten().filter(|job| job.work == "participants");
            jobs.filter_map(|job| job.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes(20_000), [1000, 5000, 10_000, 19_000]);
        assert_eq!(sizes(u64::MAX), CONNECTIONS);
    }

    #[test]
    fn every_row_has_its_work() {
        assert!(ROWS.iter().all(|(_, name, _)| WORKS.iter().any(|work| work.name == *name)));
    }
}
