//! What one attempt to measure came to, as a line of `results.jsonl`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::server::Server;

/// A set of works that is measured, and reported, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Selection {
    /// Servers at the same work.
    Protocol,
    /// The product with more participants.
    Scale,
    /// Our server with more of everything else.
    Growth,
    /// The product and its like.
    Product,
    /// Servers whose clients are cut off and come back.
    Recovery,
}

impl Selection {
    pub(crate) const ALL: [Self; 5] = [Self::Protocol, Self::Product, Self::Scale, Self::Growth, Self::Recovery];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Scale => "scale",
            Self::Growth => "growth",
            Self::Product => "product",
            Self::Recovery => "recovery",
        }
    }
}

/// One attempt to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) selection: Selection,
    pub(crate) work: String,
    /// What is varied, where something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u32>,
    pub(crate) server: Server,
    pub(crate) repetition: u32,
    pub(crate) attempt: u32,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The generator's report.
    Result(Value),
    /// Why there is none.
    Error(String),
}

impl Record {
    /// A figure of the report.
    pub(crate) fn figure(&self, metric: &Metric) -> Option<f64> {
        match &self.outcome {
            Outcome::Result(report) => {
                let more = report.pointer(metric.plus).and_then(Value::as_f64).unwrap_or(0.0);
                Some(report.pointer(metric.pointer)?.as_f64()? + more)
            }
            Outcome::Error(_) => None,
        }
    }

    /// What went wrong, if anything did.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Outcome::Error(error) = &self.outcome {
            return Some(format!("attempt {} failed: {error}", self.attempt));
        }
        let count = |metric| self.figure(metric).unwrap_or(0.0);
        let (lost, errors) = (count(&Metric::LOST), count(&Metric::ERRORS));
        (lost > 0.0 || errors > 0.0).then(|| format!("lost {lost}, errors {errors}"))
    }
}

/// A figure of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Where the report has it, as a JSON pointer.
    pointer: &'static str,
    /// What is added to it, where the report has that.
    plus: &'static str,
    pub(crate) unit: &'static str,
}

impl Metric {
    pub(crate) const CPU: Self = Self::new("/cpu_us_per_op", "µs");
    pub(crate) const ALL_CPU: Self = Self { plus: "/extra_cpu_us_per_op", ..Self::CPU };
    pub(crate) const MEMORY: Self = Self::new("/rss_kib/per_connection", "KiB");
    pub(crate) const IDLE_CPU: Self = Self::new("/cpu_ms_per_1000_connections_second", "ms");
    pub(crate) const RATE: Self = Self::new("/per_second", "/s");
    pub(crate) const LATENCY: Self = Self::new("/latency_us/p99", "µs");
    pub(crate) const BACK: Self = Self::new("/seconds_to/99", "s");
    pub(crate) const HALF_BACK: Self = Self::new("/seconds_to/50", "s");
    pub(crate) const ALL_BACK: Self = Self::new("/seconds_to/100", "s");
    pub(crate) const BACK_SHARE: Self = Self::new("/back_share", "");
    pub(crate) const DELIVERED: Self = Self::new("/delivered_share", "");
    pub(crate) const DUPLICATES: Self = Self::new("/duplicates", "");
    pub(crate) const OUT_OF_ORDER: Self = Self::new("/out_of_order", "");
    pub(crate) const CUTS: Self = Self::new("/cuts", "");
    pub(crate) const RECOVERED: Self = Self::new("/recovered", "");
    pub(crate) const JOIN_CPU: Self = Self::new("/cpu_us_per_join", "µs");
    pub(crate) const GOODPUT: Self = Self::new("/goodput_mb_per_second", "MB/s");
    pub(crate) const CPU_GOODPUT: Self = Self::new("/goodput_mb_per_cpu_second", "MB/s");
    pub(crate) const PEAK_MEMORY: Self = Self::new("/peak_rss_mib", "MiB");
    pub(crate) const LOST: Self = Self::new("/lost", "");
    pub(crate) const ERRORS: Self = Self::new("/errors", "");

    const fn new(pointer: &'static str, unit: &'static str) -> Self {
        Self { pointer, plus: NOTHING, unit }
    }
}

/// No report has this.
const NOTHING: &str = "/nothing";
const FILE: &str = "results.jsonl";

/// The file that takes the lines of these selections: what it had of them goes, what it has of others stays.
pub(crate) fn open(directory: &Path, selections: &[Selection], facts: &Value) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let path = directory.join(FILE);
    let names = selections.iter().map(|selection| selection.name()).collect::<Vec<_>>();
    let mut kept = String::new();
    for line in existing(&path)?.lines() {
        let value = serde_json::from_str::<Value>(line)?;
        if !names.iter().any(|name| value["selection"] == *name) {
            kept += line;
            kept.push('\n');
        }
    }
    fs::write(&path, kept)?;
    let mut file = OpenOptions::new().append(true).open(path)?;
    for name in names {
        writeln!(file, "{}", json!({ "selection": name, "facts": facts }))?;
    }
    Ok(file)
}

/// The facts and the records that a directory has of a selection.
pub(crate) fn read(directory: &Path, selection: Selection) -> io::Result<(Value, Vec<Record>)> {
    let (mut facts, mut records) = (Value::Null, Vec::new());
    for line in existing(&directory.join(FILE))?.lines() {
        let mut value = serde_json::from_str::<Value>(line)?;
        if value["selection"] != selection.name() {
            continue;
        }
        match value.get_mut("facts") {
            Some(found) => facts = found.take(),
            None => records.push(serde_json::from_value(value)?),
        }
    }
    Ok((facts, records))
}

fn existing(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(work: &str, server: Server, repetition: u32, outcome: Outcome) -> Record {
        Record {
            selection: Selection::Protocol,
            work: work.into(),
            size: None,
            server,
            repetition,
            attempt: 1,
            outcome,
        }
    }

    #[test]
    fn a_new_run_replaces_its_selection_and_leaves_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let echo = record("echo", Server::Ours, 1, Outcome::Result(json!({ "cpu_us_per_op": 2.5 })));
        let growth = Record { selection: Selection::Growth, size: Some(10), ..echo.clone() };
        let mut file = open(directory.path(), &Selection::ALL, &json!({ "cpu": "one" })).unwrap();
        for record in [&echo, &growth] {
            writeln!(file, "{}", serde_json::to_string(record).unwrap()).unwrap();
        }
        let protocol = || read(directory.path(), Selection::Protocol).unwrap();
        assert_eq!(protocol(), (json!({ "cpu": "one" }), vec![echo]));
        open(directory.path(), &[Selection::Protocol], &json!({ "cpu": "other" })).unwrap();
        assert_eq!(protocol(), (json!({ "cpu": "other" }), vec![]));
        let kept = read(directory.path(), Selection::Growth).unwrap();
        assert_eq!(kept, (json!({ "cpu": "one" }), vec![growth]));
    }

    #[test]
    fn a_figure_is_found_by_its_place_in_the_report() {
        let report = json!({ "rss_kib": { "per_connection": 4 }, "latency_us": { "p99": 120 } });
        let databases = json!({ "cpu_us_per_op": 3, "extra_cpu_us_per_op": 4 });
        let shared = record("join", Server::Contract, 1, Outcome::Result(databases));
        assert_eq!((shared.figure(&Metric::CPU), shared.figure(&Metric::ALL_CPU)), (Some(3.0), Some(7.0)));
        let measured = record("idle", Server::Raw, 1, Outcome::Result(report));
        assert_eq!(measured.figure(&Metric::MEMORY), Some(4.0));
        assert_eq!(measured.figure(&Metric::LATENCY), Some(120.0));
        assert_eq!(measured.figure(&Metric::CPU), None);
        assert_eq!(record("idle", Server::Raw, 1, Outcome::Error("gone".into())).figure(&Metric::MEMORY), None);
    }
}
