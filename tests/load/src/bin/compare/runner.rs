//! Runs jobs one after the other, tells how far it is, and writes down what came of each.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use crate::markdown::figure;
use crate::place::Place;
use crate::record::{self, Metric, Outcome, Record, Selection};
use crate::server::{Running, Server, pinned};

/// What servers are made to do, where nothing is varied.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// The generator's mode and options.
    pub(crate) load: &'static [&'static str],
    /// The same with few clients.
    pub(crate) quick: &'static [&'static str],
    pub(crate) warmup: f64,
    pub(crate) seconds: f64,
}

impl Work {
    /// One server at this work.
    pub(crate) fn job(&self, selection: Selection, server: Server, quick: bool) -> Job {
        let (load, warmup, seconds) =
            if quick { (self.quick, 0.5, 1.5) } else { (self.load, self.warmup, self.seconds) };
        let load = load.iter().map(|word| (*word).to_owned()).collect();
        Job { selection, work: self.name.to_owned(), size: None, server, load, warmup, seconds }
    }
}

/// One server at one work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) selection: Selection,
    pub(crate) work: String,
    /// What is varied, where something is.
    pub(crate) size: Option<u32>,
    pub(crate) server: Server,
    /// The generator's mode and options.
    pub(crate) load: Vec<String>,
    pub(crate) warmup: f64,
    pub(crate) seconds: f64,
}

impl Job {
    /// How long it takes, about.
    fn planned(&self) -> Duration {
        Duration::from_secs_f64(self.warmup + self.seconds) + AROUND
    }
}

/// Runs jobs.
#[derive(Debug)]
pub(crate) struct Runner {
    place: Place,
    jobs: Vec<(u32, Job)>,
    results: File,
}

impl Runner {
    pub(crate) fn new(
        place: Place,
        jobs: Vec<(u32, Job)>,
        out: &Path,
        selections: &[Selection],
        facts: &Value,
    ) -> io::Result<Self> {
        let results = record::open(out, selections, facts)?;
        Ok(Self { place, jobs, results })
    }

    /// Runs them all; one that fails is tried once more.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let planned = self.jobs.iter().map(|(_, job)| job.planned()).sum::<Duration>();
        let (started, total) = (Instant::now(), self.jobs.len());
        let mut done = Duration::ZERO;
        for (number, (repetition, job)) in std::mem::take(&mut self.jobs).into_iter().enumerate() {
            // Jobs take longer or shorter than planned, so far by this factor.
            let pace = if done.is_zero() { 1.0 } else { started.elapsed().as_secs_f64() / done.as_secs_f64() };
            let remaining = Duration::from_secs_f64((planned - done).as_secs_f64() * pace);
            let size = job.size.map_or_else(String::new, |size| format!(" {size}"));
            say(format_args!(
                "[{}/{total}, {} gone, {} to go] {} {repetition}: {}{size}, {}",
                number + 1,
                clock(started.elapsed()),
                clock(remaining),
                job.selection.name(),
                job.work,
                job.server.name(),
            ));
            for attempt in 1..=ATTEMPTS {
                let outcome = match self.measure(&job).await {
                    Ok(report) => Outcome::Result(report),
                    Err(error) => Outcome::Error(error.to_string()),
                };
                let record = Record {
                    selection: job.selection,
                    work: job.work.clone(),
                    size: job.size,
                    server: job.server,
                    repetition,
                    attempt,
                    outcome,
                };
                writeln!(self.results, "{}", serde_json::to_string(&record)?)?;
                say(format_args!("    {}", summary(&record)));
                if let Outcome::Result(_) = record.outcome {
                    break;
                }
            }
            done += job.planned();
        }
        say(format_args!("measured in {}", clock(started.elapsed())));
        Ok(())
    }

    /// Measures once, with a server of its own.
    async fn measure(&self, job: &Job) -> io::Result<Value> {
        let server = Running::start(job.server, &self.place).await?;
        let report = self.load(job, &server).await;
        // A server that has ended meanwhile is not measured, whatever the generator says.
        server.stop().await.and(report)
    }

    async fn load(&self, job: &Job, server: &Running) -> io::Result<Value> {
        let mut words = vec![self.place.programs.join("load").display().to_string()];
        words.extend(job.load.iter().cloned());
        words.extend(server.options()?);
        words.extend(
            [
                ("--label", job.server.name().to_owned()),
                ("--warmup", job.warmup.to_string()),
                ("--seconds", job.seconds.to_string()),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]),
        );
        let mut command = pinned(&self.place.load_core, &words);
        let limit = job.planned() + GRACE;
        let output = timeout(limit, command.stdin(Stdio::null()).output())
            .await
            .map_err(|_| io::Error::other(format!("the generator took longer than {}", clock(limit))))??;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let lines = said.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>();
            let why = lines[lines.len().saturating_sub(LAST_WORDS)..].join("; ");
            return Err(io::Error::other(format!("the generator could not measure: {why}")));
        }
        let report = serde_json::from_slice::<Value>(&output.stdout)?;
        if report["errors"] != 0 {
            say(said.trim_end());
        }
        Ok(report)
    }
}

/// Tells the person who waits.
pub(crate) fn say(what: impl Display) {
    // Nobody is left to tell where that fails.
    let _told = writeln!(io::stderr(), "{what}");
}

/// What a record says, on one line.
fn summary(record: &Record) -> String {
    if let Outcome::Error(error) = &record.outcome {
        return format!("FAILED: {error}");
    }
    let figures = [
        (Metric::CPU, "CPU each"),
        (Metric::MEMORY, "memory each"),
        (Metric::IDLE_CPU, "CPU per 1,000 and second"),
        (Metric::RATE, "done"),
        (Metric::GOODPUT, "payload"),
        (Metric::CPU_GOODPUT, "payload per second of CPU"),
        (Metric::PEAK_MEMORY, "most memory"),
        (Metric::LATENCY, "p99"),
    ];
    let mut parts = figures
        .iter()
        .filter_map(|(metric, name)| Some(format!("{name} {} {}", figure(record.figure(metric)?), metric.unit)))
        .collect::<Vec<_>>();
    parts.extend(record.trouble().map(|trouble| trouble.to_uppercase()));
    parts.join(", ")
}

/// Minutes and seconds.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Once, and once more.
const ATTEMPTS: u32 = 2;
/// How many lines of a generator that failed tell why.
const LAST_WORDS: usize = 3;
/// What starting, connecting, settling and stopping take, about.
const AROUND: Duration = Duration::from_secs(4);
/// How much longer than planned a job may take: a slow server connects 10,000 clients in half a minute.
const GRACE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_summary_names_losses_and_failures() {
        let report = json!({ "cpu_us_per_op": 2.345, "per_second": 120_000.0, "lost": 3, "errors": 0 });
        let measured = record("echo", Server::Ours, 1, Outcome::Result(report));
        assert_eq!(summary(&measured), "CPU each 2.35 µs, done 120,000 /s, LOST 3, ERRORS 0");
        let failed = record("echo", Server::Ours, 1, Outcome::Error("gone".into()));
        assert_eq!(summary(&failed), "FAILED: gone");
    }
}
