//! Our server with more workers, each with a CPU of its own; the generator keeps one.

use crate::growth::{Line, one, points, rows};
use crate::record::{Metric, Record, Selection};
use crate::runner::Job;
use crate::server::Server;

const WORKS: [(&str, &[&str]); 2] = [
    ("echo", &["echo", "--clients", "50", "--in-flight", "10", "--payload", "64"]),
    ("cast-100x10", &["cast", "--rooms", "100", "--members", "10", "--payload", "64"]),
];

/// What is measured: each work with one worker, two, four and so on, as many as there are CPUs beside the generator's.
pub(crate) fn jobs(quick: bool, cpus: u16) -> Vec<Vec<Job>> {
    let workers = || (0..16).map(|power| 1_u16 << power).take_while(|workers| *workers < cpus.max(2));
    let job = |name: &str, load: &[&str], workers: u16| Job {
        selection: Selection::Scale,
        work: name.to_owned(),
        size: Some(workers.into()),
        server: Server::Ours,
        workers,
        load: load.iter().map(|word| (*word).to_owned()).collect(),
        warmup: if quick { 0.5 } else { 2.0 },
        seconds: if quick { 1.5 } else { 8.0 },
    };
    WORKS.iter().flat_map(|(name, load)| workers().map(|workers| vec![job(name, load, workers)])).collect()
}

/// The tables.
pub(crate) fn report(records: &[Record]) -> String {
    let lines = |metric| {
        [("event with ack", "echo"), ("delivery in 100 rooms of 10", "cast-100x10")]
            .map(|(title, work)| (title, points(records, &Line { title, work, metric, per: one })))
    };
    format!(
        "# Our server with more workers\n\nMedians over the repetitions. One CPU for each worker, and one for the \
         generator: where that one is what limits, only the cost still tells.\n\n\
         ## µs of CPU each\n\n{}\n## Done per second\n\n{}",
        rows("Workers", &lines(Metric::CPU)),
        rows("Workers", &lines(Metric::RATE)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_keeps_a_cpu() {
        let workers = |cpus| {
            let jobs = jobs(false, cpus).into_iter().flatten().filter(|job| job.work == "echo");
            jobs.map(|job| job.workers).collect::<Vec<_>>()
        };
        assert_eq!(workers(1), [1]);
        assert_eq!(workers(2), [1]);
        assert_eq!(workers(8), [1, 2, 4]);
        assert_eq!(workers(9), [1, 2, 4, 8]);
    }
}
