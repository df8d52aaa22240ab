//! `avalanche`: everybody in the rooms of the `/sync` contract is cut off at once, and comes back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Command;
use futures_util::future::join_all;
use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::client::Target;
use crate::options::{self, Options, number};
use crate::proc::Process;
use crate::report::{Meter, Report, progress, round};
use crate::room::fill::{self, Seated};
use crate::room::member::{Member, Person, Seat};
use crate::room::outstanding;

/// The mode's name.
pub const NAME: &str = "avalanche";

/// The mode's options; what elsewhere are seconds to measure for is the time everybody has for coming back.
pub fn command() -> Command {
    options::command(
        NAME,
        "Cuts off all in the rooms of /sync at once; measures until they are back, or --seconds",
        "60",
    )
    .args([
        number("clients", "10000", "How many connections, if that many files may be open"),
        number("members", "10", "Connections of each room"),
        number("seed", "1", "What the chance in the delays depends on"),
        outstanding(),
        options::beside(),
    ])
}

/// Fills the rooms, cuts everybody off, and watches them come back.
///
/// # Errors
/// The rooms cannot be filled, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let (members, server) = (options.number("members"), options.server());
    let rooms = (allowed(options.number("clients"), &server)? / members).max(1);
    let (seated, filled) = fill::fill(options, &Rc::new(Meter::default()), rooms).await?;
    let clients = seated.len();
    sleep(options.warmup()).await;

    let target = options.target("/sync");
    let meter = Rc::new(Meter::default());
    let course = Rc::new(Course::default());
    let (stay, _) = watch::channel(true);
    let peak = spawn_local(peak_rss(server, stay.subscribe()));
    progress(format_args!("cutting {clients} connections"));
    let span = meter.begin(options)?;
    let cut = Instant::now();
    let (seats, cut_off): (Vec<_>, Vec<_>) =
        seated.into_iter().map(|Seated { person, member, seat }| ((person, seat), member)).unzip();
    drop(cut_off); // without a close frame
    let coming = seats.into_iter().map(|(person, seat)| {
        let chance = fastrand::Rng::with_seed((options.number("seed") as u64) << 32 | person.number as u64);
        let absent = Absent { person, seat, cut, limit: cut + options.seconds(), chance };
        let (target, course, meter) = (target.clone(), Rc::clone(&course), Rc::clone(&meter));
        spawn_local(absent.come_back(target, course, meter, stay.subscribe()))
    });
    let coming = coming.collect::<Vec<_>>();
    while course.over.get() < clients {
        sleep(TICK).await;
    }
    let mut report = meter.end(&span)?;
    sleep(SETTLING).await;
    let back = server.rss_kib()?;

    progress("everybody leaves");
    stay.send_replace(false);
    join_all(coming).await;
    sleep(SETTLING).await;
    let peak = peak.await.map_err(io::Error::other)?;
    report.memory = filled.memory;
    report.lost = (clients - course.in_seat.get()) as u64;
    report.errors = course.failures.borrow().values().sum();
    report.more = Map::from_iter([
        ("clients".to_owned(), clients.into()),
        ("back_share".to_owned(), round(course.in_seat.get() as f64 / clients as f64).into()),
        ("seconds_to".to_owned(), course.seconds_to(clients)),
        ("failures".to_owned(), json!(*course.failures.borrow())),
        ("rss_kib_peak".to_owned(), peak.into()),
        ("rss_kib_back".to_owned(), back.into()),
        ("rss_kib_left".to_owned(), server.rss_kib()?.into()),
    ]);
    Ok(report)
}

/// As many clients as both this process and the server may have connections.
fn allowed(clients: usize, server: &Process) -> io::Result<usize> {
    let own = getrlimit(Resource::Nofile).current;
    let files = [own, server.open_files()?].into_iter().flatten().min().unwrap_or(u64::MAX);
    let allowed = clients.min(usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(SPARE_FILES));
    if allowed < clients {
        progress(format_args!("{allowed} clients instead of {clients}, for more files may not be open"));
    }
    Ok(allowed)
}

/// How the coming back goes.
#[derive(Debug, Default)]
struct Course {
    /// How many are back, or have given up.
    over: Cell<usize>,
    /// How many are in the very seat they had.
    in_seat: Cell<usize>,
    /// When each of those was.
    times: RefCell<Vec<Duration>>,
    /// Attempts that failed, by what the server said.
    failures: RefCell<BTreeMap<String, u64>>,
}

impl Course {
    fn fail(&self, why: String) {
        *self.failures.borrow_mut().entry(why).or_default() += 1;
    }

    /// How long it took until this many percent of all were back in their seats; `null` if that never was.
    fn seconds_to(&self, clients: usize) -> Value {
        let mut times = self.times.borrow_mut();
        times.sort_unstable();
        let shares = [50, 99, 100].map(|percent: usize| {
            let time = times.get((clients * percent).div_ceil(100) - 1);
            (percent.to_string(), time.map(|time| round(time.as_secs_f64())).into())
        });
        Map::from_iter(shares).into()
    }
}

/// Somebody who was cut off.
struct Absent {
    person: Person,
    seat: Seat,
    cut: Instant,
    limit: Instant,
    chance: fastrand::Rng,
}

impl Absent {
    /// Comes back, stays as long as everybody does, and leaves.
    async fn come_back(
        mut self,
        target: Target,
        course: Rc<Course>,
        meter: Rc<Meter>,
        mut stay: watch::Receiver<bool>,
    ) {
        let member = self.rejoin(&target, &course).await;
        course.over.set(course.over.get() + 1);
        let Some((mut member, seat)) = member else { return };
        if seat.oder_id == self.seat.oder_id {
            let time = self.cut.elapsed();
            course.in_seat.set(course.in_seat.get() + 1);
            course.times.borrow_mut().push(time);
            meter.wait(time);
            meter.count(1);
        } else {
            course.fail("another seat".to_owned());
        }
        loop {
            tokio::select! {
                biased;
                _ = stay.wait_for(|stay| !stay) => break,
                event = member.next() => if let Err(error) = event {
                    return course.fail(format!("cut off again: {error}"));
                },
            }
        }
        if let Err(error) = leave(member).await {
            course.fail(format!("leaving: {error}"));
        }
    }

    /// Tries until there is a seat, or the time is up.
    async fn rejoin(&mut self, target: &Target, course: &Course) -> Option<(Member, Seat)> {
        let mut failed = 0;
        loop {
            sleep(reconnection_delay(failed, &mut self.chance)).await;
            if Instant::now() > self.limit {
                return None;
            }
            match self.person.connect(target).await {
                Err(error) => course.fail(format!("connecting: {error}")),
                Ok(member) => match self.take_seat(member, course).await {
                    Err(error) => course.fail(format!("joining: {error}")),
                    Ok(seated) => return seated,
                },
            }
            failed += 1;
        }
    }

    /// Asks for the seat until it is given, or the time is up.
    async fn take_seat(&mut self, mut member: Member, course: &Course) -> io::Result<Option<(Member, Seat)>> {
        let join = self.person.join(Some(&self.seat.resume_token));
        for refused in 0.. {
            let answer = member.ask("room:join", &join, |_| {}).await?;
            if let Some(seat) = answer.seat {
                return Ok(Some((member, seat)));
            }
            let Some(refusal) = answer.error else { break };
            course.fail(refusal.code);
            let delay = reconnection_delay(refused, &mut self.chance);
            sleep(refusal.retry_after_ms.map_or(delay, Duration::from_millis)).await;
            if Instant::now() > self.limit {
                break;
            }
        }
        Ok(None)
    }
}

/// How long socket.io-client waits before it tries again, after so many attempts that failed: `reconnectionDelay` 1 s,
/// doubled each time up to `reconnectionDelayMax` 5 s, half as much more or less by chance.
fn reconnection_delay(failed: i32, chance: &mut fastrand::Rng) -> Duration {
    let factor = 0.5 + chance.f64();
    Duration::from_secs_f64((f64::from(2).powi(failed) * factor).min(5.0))
}

async fn leave(mut member: Member) -> io::Result<()> {
    let answer = member.ask("room:leave", "{}", |_| {}).await?;
    if !answer.ok {
        return Err(io::Error::other(format!("refused: {:?}", answer.error)));
    }
    member.close().await
}

/// The most memory that the server has had, as long as everybody stays.
async fn peak_rss(server: Process, stay: watch::Receiver<bool>) -> u64 {
    let mut peak = 0;
    while *stay.borrow() {
        peak = peak.max(server.rss_kib().unwrap_or(0));
        sleep(SAMPLING).await;
    }
    peak
}

const TICK: Duration = Duration::from_millis(1);

const SAMPLING: Duration = Duration::from_millis(100);

/// What coming back leaves behind is freed by then.
const SETTLING: Duration = Duration::from_secs(2);

/// Open files that are no connections of clients.
const SPARE_FILES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_seconds() {
        let mut chance = fastrand::Rng::with_seed(1);
        for (failed, least, most) in [(0, 500, 1_500), (1, 1_000, 3_000), (2, 2_000, 5_000), (40, 5_000, 5_000)] {
            for _ in 0..100 {
                let delay = reconnection_delay(failed, &mut chance).as_millis();
                assert!((least..=most).contains(&delay), "{delay} after {failed}");
            }
        }
    }
}
