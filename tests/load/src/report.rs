//! Counting while a measurement runs, and the line of JSON that tells what came of it.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use crate::options::Options;
use crate::proc::Process;

/// What the tasks of a measurement count together.
#[derive(Debug)]
pub struct Meter {
    stopped: Cell<bool>,
    operations: Cell<u64>,
    errors: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            stopped: Cell::default(),
            operations: Cell::default(),
            errors: Cell::default(),
            latencies: RefCell::new(latencies()),
        }
    }
}

impl Meter {
    /// Whether nothing new is to be started.
    pub fn stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Counts operations that are done.
    pub fn count(&self, operations: u64) {
        self.operations.set(self.operations.get() + operations);
    }

    /// Takes note of a time waited.
    pub fn wait(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(micros);
    }

    /// Counts something the server did wrong, and says on standard error what, up to some times.
    pub fn error(&self, what: impl Display) {
        self.errors.set(self.errors.get() + 1);
        if self.errors.get() <= ERRORS_SHOWN {
            progress(what);
        }
    }

    /// Lets the load run, first for the options' warm-up and then for their time to measure, and stops it.
    ///
    /// # Errors
    /// The server's process is gone.
    pub async fn measure(&self, options: &Options) -> io::Result<Report> {
        sleep(options.warmup()).await;
        let span = self.begin(options)?;
        sleep(options.seconds()).await;
        let report = self.end(&span)?;
        self.stopped.set(true);
        Ok(report)
    }

    /// Begins to measure.
    ///
    /// # Errors
    /// The server's process is gone, or one of those beside it.
    pub fn begin(&self, options: &Options) -> io::Result<Span> {
        self.latencies.borrow_mut().reset();
        let (server, beside) = (options.server(), options.beside());
        let (cpu, load_cpu) = (server.cpu()?, Process::current().cpu()?);
        let beside_cpu = total_cpu(&beside)?;
        let operations = self.operations.get();
        Ok(Span { start: Instant::now(), operations, server, cpu, load_cpu, beside, beside_cpu })
    }

    /// Tells what has happened since `span` began.
    ///
    /// # Errors
    /// The server's process is gone, or one of those beside it.
    pub fn end(&self, span: &Span) -> io::Result<Report> {
        let beside_cpu = total_cpu(&span.beside)?.saturating_sub(span.beside_cpu);
        Ok(Report {
            operations: self.operations.get() - span.operations,
            elapsed: span.start.elapsed(),
            cpu: span.server.cpu()?.saturating_sub(span.cpu),
            load_cpu: Process::current().cpu()?.saturating_sub(span.load_cpu),
            beside_cpu: (!span.beside.is_empty()).then_some(beside_cpu),
            latencies: self.latencies.borrow().clone(),
            ..Report::default()
        })
    }

    /// Waits until `missing` says that nothing is, or for 5 s, and adds what is missing then, and the errors of the
    /// whole run, to the report.
    pub async fn settle(&self, report: &mut Report, missing: impl Fn() -> u64) {
        let start = Instant::now();
        while missing() > 0 && start.elapsed() < LOST_AFTER {
            sleep(Duration::from_millis(10)).await;
        }
        report.lost = missing();
        report.errors = self.errors.get();
    }
}

/// A measurement under way: what was counted when it began.
#[derive(Debug)]
pub struct Span {
    start: Instant,
    operations: u64,
    server: Process,
    cpu: Duration,
    load_cpu: Duration,
    beside: Vec<Process>,
    beside_cpu: Duration,
}

fn total_cpu(processes: &[Process]) -> io::Result<Duration> {
    processes.iter().map(Process::cpu).sum()
}

/// What came of a measurement.
#[derive(Debug, Clone)]
pub struct Report {
    /// How many operations were done while it was measured.
    pub operations: u64,
    /// For how long it was measured.
    pub elapsed: Duration,
    /// The CPU time the server took for it.
    pub cpu: Duration,
    /// The CPU time the generator took for it.
    pub load_cpu: Duration,
    /// The CPU time of the processes beside the server, as its databases, if there are any.
    pub beside_cpu: Option<Duration>,
    /// Microseconds waited.
    pub latencies: Histogram<u64>,
    /// The server's memory in KiB without and with a number of connections.
    pub memory: Option<Memory>,
    /// What the server should have sent and has not.
    pub lost: u64,
    /// What the server did wrong.
    pub errors: u64,
    /// What only one mode has to say.
    pub more: Map<String, Value>,
}

/// What connections cost in memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// KiB before there were any.
    pub before: u64,
    /// KiB with all of them.
    pub after: u64,
    /// How many there are.
    pub connections: usize,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            operations: 0,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            load_cpu: Duration::ZERO,
            beside_cpu: None,
            latencies: latencies(),
            memory: None,
            lost: 0,
            errors: 0,
            more: Map::new(),
        }
    }
}

impl Report {
    /// Whether there was nothing to measure.
    pub fn is_empty(&self) -> bool {
        self.operations == 0 && self.memory.is_none()
    }

    /// Adds what connections cost in CPU time that did nothing but be there.
    pub fn add_idle_cpu(&mut self, connections: usize) {
        let cpu_ms = self.cpu.as_secs_f64() * 1e3 / self.elapsed.as_secs_f64();
        let each_1000 = round(cpu_ms * 1e3 / connections as f64);
        self.more.insert("cpu_ms_per_1000_connections_second".to_owned(), each_1000.into());
    }

    /// The report as an object; what the mode has not measured is left out.
    pub fn to_json(&self, mode: &str, options: &Options) -> Value {
        let seconds = self.elapsed.as_secs_f64();
        let mut report = json!({
            "mode": mode,
            "label": options.label(),
            "params": options.params(),
            "seconds": round(seconds),
            "busy": round(self.cpu.as_secs_f64() / seconds),
            "load_busy": round(self.load_cpu.as_secs_f64() / seconds),
            "lost": self.lost,
            "errors": self.errors,
        });
        if self.operations > 0 {
            report["operations"] = self.operations.into();
            report["per_second"] = round(self.operations as f64 / seconds).into();
            let per_operation = |cpu: Duration| round(cpu.as_secs_f64() * 1e6 / self.operations as f64);
            report["cpu_us_per_op"] = per_operation(self.cpu).into();
            if let Some(cpu) = self.beside_cpu {
                report["extra_cpu_us_per_op"] = per_operation(cpu).into();
            }
        }
        if let Some(Memory { before, after, connections }) = self.memory {
            let per_connection = round((after as f64 - before as f64) / connections as f64);
            report["rss_kib"] = json!({"before": before, "after": after, "per_connection": per_connection});
        }
        if !self.latencies.is_empty() {
            let quantile = |quantile| self.latencies.value_at_quantile(quantile);
            report["latency_us"] = json!({
                "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "max": self.latencies.max(),
            });
        }
        for (name, value) in &self.more {
            report[name] = value.clone();
        }
        report
    }
}

/// An empty histogram of microseconds.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_MICROS, 3).expect("bounds and digits that it takes")
}

/// Rounds to what a measurement of a few seconds can tell.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Tells on standard error how things go.
pub fn progress(message: impl Display) {
    let _ = writeln!(io::stderr(), "{message}"); // with standard error closed there is nobody to tell
}

/// Longer than anything is waited for.
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// What a broken server does it does often.
const ERRORS_SHOWN: u64 = 5;

const LOST_AFTER: Duration = Duration::from_secs(5);
