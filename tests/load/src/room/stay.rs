//! Everybody joins and stays: what participants cost who do nothing.

use std::io;
use std::rc::Rc;

use tokio::task::spawn_local;

use super::fill::{self, Seated};
use crate::options::Options;
use crate::report::{Meter, Report, round};

/// Fills the rooms, and watches the server while nobody says anything. Whoever is cut off is an error.
pub(super) async fn run(options: &Options) -> io::Result<Report> {
    let (seated, joined) = fill::fill(options, &Rc::new(Meter::default()), options.number("rooms")).await?;
    let people = seated.len();
    let meter = Rc::new(Meter::default());
    for Seated { mut member, .. } in seated {
        let meter = Rc::clone(&meter);
        spawn_local(async move {
            loop {
                // What the others' clocks and heartbeats bring is no business of this scenario.
                if let Err(error) = member.next().await {
                    return meter.error(format_args!("staying, and cut off: {error}"));
                }
            }
        });
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || 0).await;
    report.lost += joined.lost;
    report.errors += joined.errors;
    report.memory = joined.memory;
    report.add_idle_cpu(people);
    let join_us = joined.cpu.as_secs_f64() * 1e6 / joined.operations as f64;
    report.more.insert("cpu_us_per_join".to_owned(), round(join_us).into());
    Ok(report)
}
