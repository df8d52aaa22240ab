//! Members join and leave again and again.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::fill::{self, OUTSTANDING};
use super::member::{Member, Person};
use crate::options::Options;
use crate::report::{Meter, Report};

/// Keeps members joining and leaving, and counts how often one has done both.
pub(super) async fn run(options: &Options) -> io::Result<Report> {
    let people = fill::gather(options, &options.target("/sync"), options.number("rooms")).await?;
    let meter = Rc::new(Meter::default());
    let outstanding = Rc::new(Semaphore::new(options.number(OUTSTANDING)));
    let inside = Rc::new(Cell::new(0));
    for (person, mut member) in people {
        let (meter, outstanding, inside) = (Rc::clone(&meter), Rc::clone(&outstanding), Rc::clone(&inside));
        spawn_local(async move {
            while let Ok(_turn) = outstanding.acquire().await
                && !meter.stopped()
            {
                let start = Instant::now();
                inside.set(inside.get() + 1);
                if let Err(error) = join_and_leave(&person, &mut member).await {
                    return meter.error(error);
                }
                inside.set(inside.get() - 1);
                meter.wait(start.elapsed());
                meter.count(1);
            }
        });
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || inside.get()).await;
    Ok(report)
}

async fn join_and_leave(person: &Person, member: &mut Member) -> io::Result<()> {
    for (event, payload) in [("room:join", &*person.join(None)), ("room:leave", "{}")] {
        let answer = member.ask(event, payload, |_| {}).await?;
        if !answer.ok {
            return Err(io::Error::other(format!("{event} was refused: {:?}", answer.error)));
        }
    }
    Ok(())
}
