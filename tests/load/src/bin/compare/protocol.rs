//! Servers at the same work: what each costs, beside the least that anything could cost, and what ours is meant to.

use std::io;
use std::path::Path;

use crate::chart;
use crate::figures::{Figures, Spread, figures, ratios};
use crate::markdown::{cell, figure, median, table};
use crate::record::{Metric, Record, Selection};
use crate::runner::{Job, Work};
use crate::server::Server;

const WORKS: [Work; 9] = [
    Work {
        name: "echo",
        load: &["echo", "--clients", "50", "--in-flight", "10", "--payload", "64"],
        quick: &["echo", "--clients", "10", "--in-flight", "10", "--payload", "64"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "cast-1x1000",
        load: &["cast", "--rooms", "1", "--members", "1000", "--payload", "64"],
        quick: &["cast", "--rooms", "1", "--members", "100", "--payload", "64"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "cast-1x1000-1k",
        load: &["cast", "--rooms", "1", "--members", "1000", "--payload", "1024"],
        quick: &["cast", "--rooms", "1", "--members", "100", "--payload", "1024"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "cast-100x10",
        load: &["cast", "--rooms", "100", "--members", "10", "--payload", "64"],
        quick: &["cast", "--rooms", "10", "--members", "10", "--payload", "64"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "churn",
        load: &["churn", "--concurrency", "16"],
        quick: &["churn", "--concurrency", "4"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "polling",
        load: &["polling", "--clients", "50", "--in-flight", "10", "--payload", "64"],
        quick: &["polling", "--clients", "10", "--in-flight", "10", "--payload", "64"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "bulk-20k",
        load: &["bulk", "--clients", "4", "--in-flight", "100", "--payload", "20000"],
        quick: &["bulk", "--clients", "2", "--in-flight", "20", "--payload", "20000"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "bulk-1m",
        // With all that is around it, little less than servers take, 1,000,000 bytes.
        load: &["bulk", "--clients", "4", "--in-flight", "16", "--payload", "999000"],
        quick: &["bulk", "--clients", "2", "--in-flight", "4", "--payload", "999000"],
        warmup: 1.5,
        seconds: 5.0,
    },
    Work {
        name: "idle",
        load: &["idle", "--clients", "10000"],
        quick: &["idle", "--clients", "500"],
        warmup: 0.0,
        // One heartbeat of every connection: servers send one each 25 s.
        seconds: 25.0,
    },
];

/// A row of the table.
struct Row {
    work: &'static str,
    title: &'static str,
    metric: Metric,
    /// The most that ours is meant to cost, in what others do.
    goals: &'static [(f64, Server)],
}

/// Ahead of both servers that can do the same.
const AHEAD: &[(f64, Server)] = &[(1.0, Server::Socketioxide), (1.0, Server::SocketIo)];

const ROWS: [Row; 12] = [
    Row {
        work: "echo",
        title: "Event with ack, 50 clients × 10 in flight, 64 B: CPU per event",
        metric: Metric::CPU,
        goals: &[(1.25, Server::Tungstenite)],
    },
    Row {
        work: "cast-1x1000",
        title: "Broadcast to 1 room of 1,000, 64 B: CPU per delivery",
        metric: Metric::CPU,
        goals: &[(1.2, Server::Raw)],
    },
    Row {
        work: "cast-1x1000-1k",
        title: "Broadcast to 1 room of 1,000, 1 KiB: CPU per delivery",
        metric: Metric::CPU,
        goals: &[(1.2, Server::Raw)],
    },
    Row {
        work: "cast-100x10",
        title: "Broadcast to 100 rooms of 10, 64 B: CPU per delivery",
        metric: Metric::CPU,
        goals: &[(1.2, Server::Raw)],
    },
    Row {
        work: "churn",
        title: "Connect, join the namespace and leave, 16 at a time: CPU per connection",
        metric: Metric::CPU,
        goals: &[(1.1, Server::Tungstenite)],
    },
    Row {
        work: "polling",
        title: "Event with ack over HTTP long-polling, 50 × 10, 64 B: CPU per event",
        metric: Metric::CPU,
        goals: &[(0.55, Server::Socketioxide)],
    },
    Row {
        work: "bulk-20k",
        title: "Event with ack, 4 clients × 100 in flight, 20 KB: CPU per event",
        metric: Metric::CPU,
        goals: AHEAD,
    },
    Row {
        work: "bulk-20k",
        title: "Event with ack, 4 clients × 100 in flight, 20 KB: most memory",
        metric: Metric::PEAK_MEMORY,
        goals: AHEAD,
    },
    Row {
        work: "bulk-1m",
        title: "Event with ack, 4 clients × 16 in flight, 1 MB: CPU per event",
        metric: Metric::CPU,
        goals: AHEAD,
    },
    Row {
        work: "bulk-1m",
        title: "Event with ack, 4 clients × 16 in flight, 1 MB: most memory",
        metric: Metric::PEAK_MEMORY,
        goals: AHEAD,
    },
    Row {
        work: "idle",
        title: "10,000 idle connections: memory per connection",
        metric: Metric::MEMORY,
        goals: &[(0.6, Server::Tungstenite)],
    },
    Row {
        work: "idle",
        title: "10,000 idle connections: CPU per second and 1,000 connections",
        metric: Metric::IDLE_CPU,
        goals: &[(0.5 / 0.58, Server::Tungstenite)],
    },
];

/// What is measured: each work, by each server that can do it.
pub(crate) fn jobs(quick: bool) -> Vec<Vec<Job>> {
    let able = |work: &Work, server| match work.name {
        // The limits leave HTTP long-polling out.
        "polling" => !matches!(server, Server::Raw | Server::Tungstenite),
        // `raw` moves what waits with each write, which makes it no limit where much waits.
        "bulk-20k" | "bulk-1m" => !matches!(server, Server::Raw | Server::PythonSocketIo),
        _ => true,
    };
    WORKS
        .iter()
        .map(|work| {
            Server::BENCHES
                .into_iter()
                .filter(|server| able(work, *server))
                .map(|server| work.job(Selection::Protocol, server, quick))
                .collect()
        })
        .collect()
}

/// The tables; the chart becomes `servers.svg`.
pub(crate) fn report(records: &[Record], directory: &Path) -> io::Result<String> {
    let bars = ROWS.iter().filter_map(|row| bars(records, row)).collect::<Vec<_>>();
    chart::bars("Cost, in that of ours (less is better)", &bars, &directory.join("servers.svg"))?;
    Ok(text(records))
}

fn text(records: &[Record]) -> String {
    let servers = Server::BENCHES.into_iter().filter(|server| records.iter().any(|record| record.server == *server));
    let servers = servers.collect::<Vec<_>>();
    let mut head = vec!["Work"];
    head.extend(servers.iter().map(|server| server.title()));
    let rows = |cell: &dyn Fn(&Row, Server) -> String, title: &dyn Fn(&Row) -> Option<String>| {
        let measured = ROWS.iter().filter(|row| records.iter().any(|record| record.work == row.work));
        measured
            .filter_map(|row| {
                Some([title(row)?].into_iter().chain(servers.iter().map(|server| cell(row, *server))).collect())
            })
            .collect::<Vec<Vec<String>>>()
    };
    let cost = rows(&|row, server| cell(records, row.work, &row.metric, server, Server::Ours), &|row| {
        Some(format!("{}, {}", row.title, row.metric.unit))
    });
    let busy =
        |row: &Row| (row.metric == Metric::CPU).then(|| row.title.split(':').next().unwrap_or_default().to_owned());
    let rate = rows(&|row, server| median(records, row.work, &Metric::RATE, server), &busy);
    let latency = rows(&|row, server| median(records, row.work, &Metric::LATENCY, server), &busy);
    let goals = ROWS.iter().flat_map(|row| row.goals.iter().filter_map(|goal| verdict(records, row, *goal)));
    let goals = goals.collect::<Vec<_>>();
    let goodput = goodput(records, &servers);
    format!(
        "# Servers at the same work\n\n\
         Medians over the repetitions, the least and the most in brackets, × how many times what ours costs, \
         and † where something failed, was lost or wrong.\n\n\
         {}\n## Goals\n\n{}\n## Done per second, one core\n\n{}\n\
         ## Latency, 99th percentile in µs\n\nAt full load, so it tells of queues as much as of servers.\n\n{}{goodput}",
        table(&head, &cost),
        table(&["Work", "Goal", "Is", "Ratio", "Verdict"], &goals),
        table(&head, &rate),
        table(&head, &latency),
    )
}

fn of(records: &[Record], row: &Row, server: Server) -> Figures {
    figures(records, row.work, None, server, &row.metric)
}

/// The section on payload that came back, where that was measured.
fn goodput(records: &[Record], servers: &[Server]) -> String {
    let rows = ROWS.iter().filter(|row| row.metric == Metric::PEAK_MEMORY);
    let rows = rows.filter(|row| records.iter().any(|record| record.work == row.work)).flat_map(|row| {
        let what = row.title.split(':').next().unwrap_or_default();
        [(what, Metric::GOODPUT), ("— by CPU time", Metric::CPU_GOODPUT)].map(|(title, metric)| {
            let cells = servers.iter().map(|server| median(records, row.work, &metric, *server));
            [title.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        })
    });
    let rows = rows.collect::<Vec<_>>();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["Work"].into_iter().chain(servers.iter().map(|server| server.title())).collect::<Vec<_>>();
    format!(
        "\n## Goodput, MB/s\n\nPayload that came back, of one direction; for the generator, too, that is work, so the \
         second row is what compares servers.\n\n{}",
        table(&head, &rows)
    )
}

/// A row of the goals, where what it needs was measured.
fn verdict(records: &[Record], row: &Row, (factor, base): (f64, Server)) -> Option<Vec<String>> {
    let ratio = Spread::of(&ratios(&of(records, row, Server::Ours), &of(records, row, base)))?;
    let ours = Spread::of(&of(records, row, Server::Ours))?.median;
    let limit = Spread::of(&of(records, row, base))?.median;
    let unit = row.metric.unit;
    Some(vec![
        row.title.to_owned(),
        format!("{} × {} = {} {unit}", figure(factor), base.title(), figure(limit * factor)),
        format!("{} {unit}", figure(ours)),
        format!("{} ({}–{})", figure(ratio.median), figure(ratio.least), figure(ratio.most)),
        if ratio.median <= factor { "met" } else { "**missed**" }.to_owned(),
    ])
}

/// A row as a group of bars, where ours was measured.
fn bars(records: &[Record], row: &Row) -> Option<chart::Group> {
    let ours = of(records, row, Server::Ours);
    Spread::of(&ours)?;
    let bar = |server| {
        let own = of(records, row, server);
        Some(chart::Bar {
            server,
            ratio: Spread::of(&ratios(&own, &ours))?.median,
            label: format!("{} {}", figure(Spread::of(&own)?.median), row.metric.unit),
        })
    };
    let bars = Server::BENCHES.into_iter().filter_map(bar).collect::<Vec<_>>();
    (!bars.is_empty()).then(|| chart::Group { title: row.title.to_owned(), bars })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Outcome;
    use crate::record::tests::record;

    fn echo(server: Server, repetition: u32, cpu: f64) -> Record {
        let report = json!({ "cpu_us_per_op": cpu, "per_second": 1000, "latency_us": { "p99": 20 }, "lost": 0 });
        record("echo", server, repetition, Outcome::Result(report))
    }

    fn measured() -> Vec<Record> {
        vec![
            echo(Server::Tungstenite, 1, 2.0),
            echo(Server::Ours, 1, 2.4),
            echo(Server::Tungstenite, 2, 4.0),
            echo(Server::Ours, 2, 4.4),
            echo(Server::Tungstenite, 3, 3.0),
            echo(Server::Ours, 3, 3.9),
            record("echo", Server::SocketIo, 1, Outcome::Error("gone".into())),
        ]
    }

    #[test]
    fn a_goal_is_judged_by_the_median_of_ratios_within_repetitions() {
        let row = verdict(&measured(), &ROWS[0], ROWS[0].goals[0]).unwrap();
        assert_eq!(row[1..], ["1.25 × limit: tungstenite = 3.75 µs", "3.90 µs", "1.20 (1.10–1.30)", "met"]);
        let mut slower = measured();
        slower.push(echo(Server::Ours, 1, 2.6));
        assert_eq!(verdict(&slower, &ROWS[0], ROWS[0].goals[0]).unwrap()[3..], ["1.30 (1.10–1.30)", "**missed**"]);
        assert_eq!(verdict(&slower, &ROWS[1], ROWS[1].goals[0]), None);
    }

    #[test]
    fn a_cell_has_median_spread_and_ratio_or_says_what_is_missing() {
        let records = measured();
        assert_eq!(cell(&records, "echo", &Metric::CPU, Server::Ours, Server::Ours), "3.90 (2.40–4.40)");
        assert_eq!(cell(&records, "echo", &Metric::CPU, Server::Tungstenite, Server::Ours), "3.00 (2.00–4.00) ×0.833");
        assert_eq!(cell(&records, "echo", &Metric::CPU, Server::SocketIo, Server::Ours), "failed");
        assert_eq!(cell(&records, "echo", &Metric::CPU, Server::Raw, Server::Ours), "–");
    }

    #[test]
    fn the_report_shows_works_that_were_measured() {
        let text = text(&measured());
        assert!(text.contains("| Work | limit: tungstenite | ours | socket.io |\n"), "{text}");
        assert!(!text.contains("Broadcast"), "{text}");
    }

    #[test]
    fn goodput_has_a_section_where_it_was_measured() {
        assert!(!text(&measured()).contains("Goodput"));
        let report = json!({
            "cpu_us_per_op": 50, "per_second": 20_000, "lost": 0,
            "goodput_mb_per_second": 400, "goodput_mb_per_cpu_second": 420, "peak_rss_mib": 12,
        });
        let bulk = |server| record("bulk-20k", server, 1, Outcome::Result(report.clone()));
        let text = text(&[bulk(Server::Ours), bulk(Server::SocketIo)]);
        let rows = "| Event with ack, 4 clients × 100 in flight, 20 KB | 400 | 400 |\n| — by CPU time | 420 | 420 |\n";
        assert!(text.contains(rows), "{text}");
        assert!(text.contains("most memory | 1.00 × socket.io = 12.0 MiB | 12.0 MiB |"), "{text}");
    }

    #[test]
    fn bulks_are_for_servers_that_can_be_compared() {
        let bulk = jobs(false).into_iter().flatten().filter(|job| job.work.starts_with("bulk-1m"));
        let servers = [Server::Tungstenite, Server::Ours, Server::Socketioxide, Server::SocketIo];
        assert_eq!(bulk.map(|job| job.server).collect::<Vec<_>>(), servers);
    }

    #[test]
    fn limits_do_not_poll() {
        let polling = jobs(false).into_iter().flatten().filter(|job| job.work == "polling");
        assert_eq!(polling.map(|job| job.server).collect::<Vec<_>>(), Server::BENCHES[2..]);
    }

    #[test]
    fn every_row_has_its_work() {
        assert!(ROWS.iter().all(|row| WORKS.iter().any(|work| work.name == row.work)));
    }
}
