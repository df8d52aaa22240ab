//! The product beside the same contract on the reference server with Redis and PostgreSQL.

use crate::markdown::{cell, table};
use crate::record::{Metric, Record, Selection};
use crate::runner::{Job, Work};
use crate::server::Server;

const WORKS: [Work; 5] = [
    Work {
        name: "join",
        load: &["room", "--scenario", "join", "--rooms", "100", "--members", "10"],
        quick: &["room", "--scenario", "join", "--rooms", "10", "--members", "5"],
        warmup: 1.0,
        seconds: 5.0,
    },
    Work {
        name: "command-100x10",
        load: &["room", "--scenario", "command", "--rooms", "100", "--members", "10"],
        quick: &["room", "--scenario", "command", "--rooms", "10", "--members", "5"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "command-1x1000",
        load: &["room", "--scenario", "command", "--rooms", "1", "--members", "1000"],
        quick: &["room", "--scenario", "command", "--rooms", "1", "--members", "50"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "churn",
        load: &["room", "--scenario", "churn", "--rooms", "100", "--members", "10"],
        quick: &["room", "--scenario", "churn", "--rooms", "10", "--members", "5"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "avalanche",
        load: &["avalanche", "--clients", "5000", "--members", "10"],
        quick: &["avalanche", "--clients", "100", "--members", "5"],
        warmup: 1.0,
        // The longest that anyone may take to be back.
        seconds: 60.0,
    },
];

/// A row of the table.
struct Row {
    work: &'static str,
    title: &'static str,
    metric: Metric,
}

const ROWS: [Row; 14] = [
    Row { work: "join", title: "1,000 join 100 rooms: CPU per join", metric: Metric::CPU },
    Row { work: "join", title: "— with databases", metric: Metric::ALL_CPU },
    Row { work: "join", title: "— latency, 99th percentile", metric: Metric::LATENCY },
    Row { work: "join", title: "— memory per participant", metric: Metric::MEMORY },
    Row { work: "command-100x10", title: "Seeking in 100 rooms of 10: CPU per delivery", metric: Metric::CPU },
    Row { work: "command-100x10", title: "— with databases", metric: Metric::ALL_CPU },
    Row { work: "command-100x10", title: "— latency, 99th percentile", metric: Metric::LATENCY },
    Row { work: "command-1x1000", title: "Seeking in a room of 1,000: CPU per delivery", metric: Metric::CPU },
    Row { work: "command-1x1000", title: "— with databases", metric: Metric::ALL_CPU },
    Row { work: "churn", title: "Joining and leaving 100 rooms of 10: CPU per visit", metric: Metric::CPU },
    Row { work: "churn", title: "— with databases", metric: Metric::ALL_CPU },
    Row { work: "avalanche", title: "5,000 cut off at once: CPU per return", metric: Metric::CPU },
    Row { work: "avalanche", title: "— with databases", metric: Metric::ALL_CPU },
    Row { work: "avalanche", title: "— until 99 % are back", metric: Metric::BACK },
];

/// What is measured: each work, by each server.
pub(crate) fn jobs(quick: bool) -> Vec<Vec<Job>> {
    let job = |work: &Work, server| {
        let job = work.job(Selection::Product, server, quick);
        // However few, they come back when they come back.
        if work.name == "avalanche" { Job { seconds: work.seconds, ..job } } else { job }
    };
    WORKS.iter().map(|work| Server::PRODUCTS.into_iter().map(|server| job(work, server)).collect()).collect()
}

/// The tables.
pub(crate) fn report(records: &[Record]) -> String {
    let head = ["Work"].into_iter().chain(Server::PRODUCTS.map(Server::title)).collect::<Vec<_>>();
    let row = |row: &Row| {
        let title = format!("{}, {}", row.title, row.metric.unit);
        let cells = Server::PRODUCTS.map(|server| cell(records, row.work, &row.metric, server, Server::Syncwatch));
        [title].into_iter().chain(cells).collect()
    };
    let measured = ROWS.iter().filter(|row| records.iter().any(|record| record.work == row.work));
    format!(
        "# The product and the same contract on the reference server\n\n\
         Medians over the repetitions, the least and the most in brackets, × how many times what the product \
         needs, and † where something failed, was lost or wrong.\n\n{}",
        table(&head, &measured.map(row).collect::<Vec<_>>()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_work() {
        assert!(ROWS.iter().all(|row| WORKS.iter().any(|work| work.name == row.work)));
    }
}
