//! Everybody joins: what `--scenario join` measures, and how the other modes come by their rooms.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::member::{Member, Person, Seat, is_named};
use super::rest;
use crate::client::Target;
use crate::options::Options;
use crate::report::{Memory, Meter, Report, progress};

/// The option for how many joins may wait for their answer.
pub(super) const OUTSTANDING: &str = "outstanding";

/// Somebody who has a seat.
#[derive(Debug)]
pub struct Seated {
    /// Who it is.
    pub person: Person,
    /// The connection.
    pub member: Member,
    /// The seat.
    pub seat: Seat,
}

pub(super) async fn run(options: &Options) -> io::Result<Report> {
    let meter = Rc::new(Meter::default());
    let (_seated, report) = fill(options, &meter, options.number("rooms")).await?;
    Ok(report)
}

/// Creates rooms, and connects everybody who is to join them.
///
/// # Errors
/// A room cannot be created, or somebody not connected.
pub async fn gather(options: &Options, target: &Target, rooms: usize) -> io::Result<Vec<(Person, Member)>> {
    let members = options.number("members");
    progress(format_args!("creating {rooms} rooms and opening {} connections", rooms * members));
    let rooms = stream::iter(0..rooms)
        .map(|number| rest::create(target, members, number))
        .buffered(CREATING_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    let rooms = &rooms;
    // The rooms fill evenly: first come all owners, then all who are the second of their room.
    let people = (0..members).flat_map(|place| {
        rooms.iter().enumerate().map(move |(room, rest::Room { code, token })| Person {
            number: place * rooms.len() + room,
            room,
            code: code.clone(),
            token: (place == 0).then(|| token.clone()),
        })
    });
    let connect = async |person: Person| Ok((person.connect(target).await?, person));
    let connected = stream::iter(people).map(connect).buffered(OPENING_AT_ONCE);
    connected.map_ok(|(member, person)| (person, member)).try_collect().await
}

/// Fills rooms, and tells what it took. Nobody is lost whom the others have not been told of.
///
/// # Errors
/// As [`gather`]; and somebody was refused.
pub async fn fill(options: &Options, meter: &Rc<Meter>, rooms: usize) -> io::Result<(Vec<Seated>, Report)> {
    let server = options.server();
    let empty = server.rss_kib()?;
    let people = gather(options, &options.target("/sync"), rooms).await?;
    let connections = people.len();
    sleep(SETTLING).await;
    let connected = server.rss_kib()?;

    let entrance = Rc::new(Entrance {
        outstanding: Semaphore::new(options.number(OUTSTANDING)),
        meter: Rc::clone(meter),
        rooms: vec![Cell::default(); rooms],
        waiting: Cell::new(connections),
    });
    let span = meter.begin(options)?;
    let (open, _) = watch::channel(false);
    let joining = people.into_iter().map(|(person, member)| {
        let (entrance, open) = (Rc::clone(&entrance), open.subscribe());
        spawn_local(async move { entrance.enter(person, member, open).await })
    });
    let joining = joining.collect::<Vec<_>>();
    while entrance.waiting.get() > 0 {
        sleep(TICK).await;
    }
    let mut settled = Report::default();
    meter.settle(&mut settled, || entrance.unheard()).await;
    let mut report = Report { lost: settled.lost, errors: settled.errors, ..meter.end(&span)? };
    sleep(SETTLING).await;
    report.memory = Some(Memory { before: empty, after: server.rss_kib()?, connections });
    report.more.insert("rss_kib_connected".to_owned(), connected.into());

    open.send_replace(true);
    let mut seated = Vec::with_capacity(connections);
    for task in joining {
        seated.push(task.await.map_err(io::Error::other)??);
    }
    Ok((seated, report))
}

/// What all who join have in common.
struct Entrance {
    outstanding: Semaphore,
    meter: Rc<Meter>,
    rooms: Vec<Cell<Arrivals>>,
    /// How many have got no answer yet.
    waiting: Cell<usize>,
}

/// How many have joined a room, and how often one of them was told of another.
#[derive(Debug, Default, Clone, Copy)]
struct Arrivals {
    seated: u64,
    heard: u64,
}

impl Entrance {
    /// Joins, and listens until the doors open.
    async fn enter(&self, person: Person, mut member: Member, mut open: watch::Receiver<bool>) -> io::Result<Seated> {
        let room = &self.rooms[person.room];
        let hear = |event: &[u8]| {
            if is_named(event, "room:participant:joined") {
                let Arrivals { seated, heard } = room.get();
                room.set(Arrivals { seated, heard: heard + 1 });
            }
        };
        let seat = self.join(&person, &mut member, hear).await;
        self.waiting.set(self.waiting.get() - 1);
        let seat = seat?;
        let Arrivals { seated, heard } = room.get();
        room.set(Arrivals { seated: seated + 1, heard });
        loop {
            tokio::select! {
                biased;
                _ = open.wait_for(|open| *open) => return Ok(Seated { person, member, seat }),
                event = member.next() => hear(event?),
            }
        }
    }

    async fn join(&self, person: &Person, member: &mut Member, hear: impl FnMut(&[u8])) -> io::Result<Seat> {
        let _turn = self.outstanding.acquire().await.map_err(io::Error::other)?;
        let start = Instant::now();
        let answer = member.ask("room:join", &person.join(None), hear).await?;
        let seat = answer.seat.ok_or_else(|| io::Error::other(format!("joining was refused: {:?}", answer.error)))?;
        self.meter.wait(start.elapsed());
        self.meter.count(1);
        Ok(seat)
    }

    /// How often somebody has not been told yet of another who came later.
    fn unheard(&self) -> u64 {
        let unheard = |Arrivals { seated, heard }| (seated * seated.saturating_sub(1) / 2).saturating_sub(heard);
        self.rooms.iter().map(|room| unheard(room.get())).sum()
    }
}

const CREATING_AT_ONCE: usize = 16;

const OPENING_AT_ONCE: usize = 64;

/// What opening leaves behind is freed by then.
const SETTLING: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(1);
