//! Our server with more and more of something: whether what one costs stays the same.

use std::io;
use std::path::Path;

use crate::chart::{self, Axis};
use crate::figures::{Spread, figures};
use crate::markdown::{count, figure, table};
use crate::record::{Metric, Record, Selection};
use crate::runner::Job;
use crate::server::Server;

/// What is made to grow.
struct Work {
    name: &'static str,
    sizes: &'static [u32],
    /// The generator's mode and options, and how many connections that are, at a size.
    load: fn(u32) -> (Vec<String>, u32),
    seconds: f64,
}

/// As many connections as there are files a process may have open, at most.
pub(crate) const CONNECTIONS: [u32; 6] = [1000, 5000, 10_000, 19_000, 50_000, 100_000];

const WORKS: [Work; 6] = [
    Work {
        name: "connections-idle",
        sizes: &CONNECTIONS,
        load: |size| (words("idle", &[("clients", size)]), size),
        // One heartbeat of every connection.
        seconds: 25.0,
    },
    Work {
        name: "connections-echo",
        sizes: &CONNECTIONS,
        load: |size| (words("echo", &[("clients", size), ("in-flight", 1), ("payload", 64)]), size),
        seconds: 5.0,
    },
    Work {
        name: "connections-cast",
        sizes: &CONNECTIONS,
        load: |size| (words("cast", &[("rooms", size / 100), ("members", 100), ("payload", 64)]), size),
        seconds: 5.0,
    },
    Work {
        name: "room-size",
        sizes: &[10, 100, 1000, 10_000],
        load: |size| (words("cast", &[("rooms", 1), ("members", size), ("payload", 64)]), size),
        seconds: 5.0,
    },
    Work {
        name: "rooms",
        sizes: &[10, 30, 100, 300, 1000],
        load: |size| (words("cast", &[("rooms", size), ("members", 10), ("payload", 64)]), size * 10),
        seconds: 5.0,
    },
    Work {
        name: "payload",
        sizes: &[64, 256, 1024, 4096, 16_384, 65_536],
        load: |size| (words("cast", &[("rooms", 1), ("members", 100), ("payload", size)]), 100),
        seconds: 5.0,
    },
];

/// What one table and one chart show.
struct Series {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    logarithmic: bool,
    lines: &'static [Line],
}

pub(crate) struct Line {
    pub(crate) title: &'static str,
    pub(crate) work: &'static str,
    pub(crate) server: Server,
    pub(crate) metric: Metric,
    /// What a figure is divided by, given the size.
    pub(crate) per: fn(u32) -> f64,
}

pub(crate) const fn one(_: u32) -> f64 {
    1.0
}

const SERIES: [Series; 6] = [
    Series {
        file: "growth-memory",
        title: "Memory of an idle connection",
        x: "Connections",
        y: "KiB per connection",
        logarithmic: false,
        lines: &[Line {
            title: "memory",
            work: "connections-idle",
            server: Server::Ours,
            metric: Metric::MEMORY,
            per: one,
        }],
    },
    Series {
        file: "growth-heartbeats",
        title: "CPU of idle connections",
        x: "Connections",
        y: "ms of CPU per second and 1,000 connections",
        logarithmic: false,
        lines: &[Line {
            title: "heartbeats",
            work: "connections-idle",
            server: Server::Ours,
            metric: Metric::IDLE_CPU,
            per: one,
        }],
    },
    Series {
        file: "growth-connections",
        title: "CPU with more connections",
        x: "Connections",
        y: "µs of CPU each",
        logarithmic: false,
        lines: &[
            Line {
                title: "event with ack, 64 B",
                work: "connections-echo",
                server: Server::Ours,
                metric: Metric::CPU,
                per: one,
            },
            Line {
                title: "delivery in rooms of 100, 64 B",
                work: "connections-cast",
                server: Server::Ours,
                metric: Metric::CPU,
                per: one,
            },
        ],
    },
    Series {
        file: "growth-room-size",
        title: "CPU with more members in one room",
        x: "Members of the room",
        y: "µs of CPU per delivery",
        logarithmic: false,
        lines: &[Line {
            title: "delivery, 64 B",
            work: "room-size",
            server: Server::Ours,
            metric: Metric::CPU,
            per: one,
        }],
    },
    Series {
        file: "growth-rooms",
        title: "CPU with more rooms of ten",
        x: "Rooms",
        y: "µs of CPU per delivery",
        logarithmic: false,
        lines: &[Line { title: "delivery, 64 B", work: "rooms", server: Server::Ours, metric: Metric::CPU, per: one }],
    },
    Series {
        file: "growth-payload",
        title: "CPU with larger payloads, in one room of 100",
        x: "Payload in bytes",
        y: "µs of CPU",
        logarithmic: true,
        lines: &[
            Line { title: "per delivery", work: "payload", server: Server::Ours, metric: Metric::CPU, per: one },
            Line {
                title: "per delivered KiB",
                work: "payload",
                server: Server::Ours,
                metric: Metric::CPU,
                per: |size| f64::from(size) / 1024.0,
            },
        ],
    },
];

pub(crate) fn words(mode: &str, options: &[(&str, u32)]) -> Vec<String> {
    let options = options.iter().flat_map(|(name, value)| [format!("--{name}"), value.to_string()]);
    [mode.to_owned()].into_iter().chain(options).collect()
}

/// What is measured: each work at the sizes that the system allows.
pub(crate) fn jobs(quick: bool, open_files: u64) -> Vec<Vec<Job>> {
    let most = if quick { 1000 } else { open_files.saturating_sub(SPARE_FILES) };
    let jobs_of = |work: &'static Work| {
        work.sizes.iter().filter_map(move |size| {
            let (load, connections) = (work.load)(*size);
            (u64::from(connections) <= most).then(|| {
                vec![Job {
                    selection: Selection::Growth,
                    work: work.name.to_owned(),
                    size: Some(*size),
                    server: Server::Ours,
                    load,
                    warmup: if quick { 0.5 } else { 1.0 },
                    seconds: if quick { 1.0 } else { work.seconds },
                }]
            })
        })
    };
    WORKS.iter().flat_map(jobs_of).collect()
}

/// The tables; each series has a chart too.
pub(crate) fn report(records: &[Record], directory: &Path) -> io::Result<String> {
    let mut text = "# Our server with more and more\n\n\
                    Medians over the repetitions. Flatness is the most divided by the least of a \
                    row: 1 is flat.\n"
        .to_owned();
    for series in &SERIES {
        let lines = series.lines.iter().map(|line| (line.title, points(records, line))).collect::<Vec<_>>();
        if lines.iter().all(|(_, points)| points.is_empty()) {
            continue;
        }
        text += &format!("\n## {}\n\nIn {}.\n\n{}", series.title, series.y, rows(series.x, &lines));
        let axis = Axis { title: series.title, x: series.x, y: series.y, logarithmic: series.logarithmic };
        chart::lines(&axis, &lines, &directory.join(format!("{}.svg", series.file)))?;
    }
    Ok(text)
}

/// The medians of a line, by size.
pub(crate) fn points(records: &[Record], line: &Line) -> Vec<(u32, f64)> {
    let mut sizes =
        records.iter().filter(|record| record.work == line.work).filter_map(|record| record.size).collect::<Vec<_>>();
    sizes.sort_unstable();
    sizes.dedup();
    let median = |size| Spread::of(&figures(records, line.work, Some(size), line.server, &line.metric));
    sizes.into_iter().filter_map(|size| Some((size, median(size)?.median / (line.per)(size)))).collect()
}

/// The table of a series.
pub(crate) fn rows(x: &str, lines: &[(&str, Vec<(u32, f64)>)]) -> String {
    let mut sizes = lines.iter().flat_map(|(_, points)| points.iter().map(|(size, _)| *size)).collect::<Vec<_>>();
    sizes.sort_unstable();
    sizes.dedup();
    let head = sizes.iter().map(|size| count((*size).into())).collect::<Vec<_>>();
    let mut columns = vec![x];
    columns.extend(head.iter().map(String::as_str));
    columns.push("Flatness");
    let row = |(title, points): &(&str, Vec<(u32, f64)>)| {
        let at = |size| {
            points.iter().find(|(other, _)| *other == size).map_or("–".to_owned(), |(_, value)| figure(*value))
        };
        let mut cells = vec![(*title).to_owned()];
        cells.extend(sizes.iter().map(|size| at(*size)));
        cells.push(flatness(points).map_or("–".to_owned(), figure));
        cells
    };
    table(&columns, &lines.iter().map(row).collect::<Vec<_>>())
}

/// How many times the least of the figures the most is, where the least is something.
fn flatness(points: &[(u32, f64)]) -> Option<f64> {
    let most = points.iter().map(|(_, value)| *value).max_by(f64::total_cmp)?;
    let least = points.iter().map(|(_, value)| *value).min_by(f64::total_cmp)?;
    (least > 0.0).then(|| most / least)
}

/// Files that a process has open beside its connections.
pub(crate) const SPARE_FILES: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_keep_below_the_limit_of_open_files() {
        let sizes = |open_files| {
            let jobs = jobs(false, open_files).into_iter().flatten().filter(|job| job.work == "connections-idle");
            jobs.filter_map(|job| job.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes(20_000), [1000, 5000, 10_000, 19_000]);
        assert_eq!(sizes(u64::MAX), CONNECTIONS);
        assert!(sizes(1024).is_empty());
    }

    #[test]
    fn a_table_shows_each_size_and_how_flat_a_row_is() {
        let lines = [("echo", vec![(10, 2.0), (1000, 3.0)]), ("cast", vec![(100, 1.0)])];
        assert_eq!(
            rows("Rooms", &lines),
            "| Rooms | 10 | 100 | 1,000 | Flatness |\n| --- | ---: | ---: | ---: | ---: |\n\
             | echo | 2.00 | – | 3.00 | 1.50 |\n| cast | – | 1.00 | – | 1.00 |\n"
        );
    }

    #[test]
    fn nothing_has_no_flatness() {
        assert_eq!(flatness(&[]), None);
        assert_eq!(flatness(&[(10, 0.0), (20, 1.0)]), None);
    }

    #[test]
    fn every_line_has_its_work() {
        let mut lines = SERIES.iter().flat_map(|series| series.lines);
        assert!(lines.all(|line| WORKS.iter().any(|work| work.name == line.work)));
    }
}
