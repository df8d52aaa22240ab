//! Servers whose clients are cut off and come back: whether anybody misses anything, and what that costs.

use crate::markdown::{cell, table};
use crate::record::{Metric, Record, Selection};
use crate::runner::{Job, Work};
use crate::server::Server;

const WORKS: [Work; 2] = [
    Work {
        name: "jitter-1000",
        load: &["jitter", "--clients", "1000", "--rate", "20", "--period", "10", "--cut-min", "1", "--cut-max", "5"],
        quick: &["jitter", "--clients", "50", "--rate", "20", "--period", "1", "--cut-min", "0.1", "--cut-max", "0.5"],
        warmup: 1.0,
        seconds: 30.0,
    },
    Work {
        name: "jitter-10000",
        load: &["jitter", "--clients", "10000", "--rate", "20", "--period", "60", "--cut-min", "1", "--cut-max", "5"],
        quick: &["jitter", "--clients", "200", "--rate", "20", "--period", "1", "--cut-min", "0.1", "--cut-max", "0.5"],
        warmup: 1.0,
        seconds: 120.0,
    },
];

/// Rows of each work's table.
const ROWS: [(&str, Metric); 8] = [
    ("Share of messages that arrived", Metric::DELIVERED),
    ("Messages that arrived twice", Metric::DUPLICATES),
    ("— out of order", Metric::OUT_OF_ORDER),
    ("Times a client was cut off", Metric::CUTS),
    ("— recovered", Metric::RECOVERED),
    ("Deliveries", Metric::RATE),
    ("CPU per delivery, the cuts included", Metric::CPU),
    ("— with Redis and the other instances", Metric::ALL_CPU),
];

/// What is measured: each work, by each server that bears it.
pub(crate) fn jobs(quick: bool) -> Vec<Vec<Job>> {
    // The others would need twice the CPU that they have.
    let bears = |work: &Work, server| work.name != "jitter-10000" || server == Server::Recovering;
    WORKS
        .iter()
        .map(|work| {
            let servers = Server::RECOVERING.into_iter().filter(|server| bears(work, *server));
            servers.map(|server| work.job(Selection::Recovery, server, quick)).collect()
        })
        .collect()
}

/// The tables.
pub(crate) fn report(records: &[Record]) -> String {
    let mut text = "# Clients that are cut off and come back\n\n20 messages a second to all of them. 1,000 clients are cut \
                    off once in 10 s each, 10,000 once a minute, for 1 to 5 s; those of three instances come back to \
                    another one each time. Medians over the repetitions, the least and the most in brackets, × how many \
                    times what ours needs, and † where something failed, was lost or wrong.\n"
        .to_owned();
    for work in WORKS.iter().filter(|work| records.iter().any(|record| record.work == work.name)) {
        let head = [work.name].into_iter().chain(Server::RECOVERING.map(Server::title)).collect::<Vec<_>>();
        let row = |(title, metric): &(&str, Metric)| {
            let unit = if metric.unit.is_empty() { String::new() } else { format!(", {}", metric.unit) };
            let cells = Server::RECOVERING.map(|server| cell(records, work.name, metric, server, Server::Recovering));
            [format!("{title}{unit}")].into_iter().chain(cells).collect()
        };
        text += &format!("\n{}", table(&head, &ROWS.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_spared_what_they_cannot_bear() {
        let servers = |work: &str| {
            let jobs = jobs(false).into_iter().flatten().filter(|job| job.work == work);
            jobs.map(|job| job.server).collect::<Vec<_>>()
        };
        assert_eq!(servers("jitter-1000"), Server::RECOVERING);
        assert_eq!(servers("jitter-10000"), [Server::Recovering]);
    }
}
