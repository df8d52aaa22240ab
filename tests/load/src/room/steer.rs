//! Owners seek, and everybody in their rooms is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::str;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until};

use super::fill::{self, Seated};
use super::member::{Member, is_named};
use crate::options::Options;
use crate::report::{Meter, Report, round};

/// The option for commands of each room a second.
pub(super) const RATE: &str = "rate";

/// Keeps commands coming, and counts deliveries.
pub(super) async fn run(options: &Options) -> io::Result<Report> {
    let (rooms, members) = (options.number("rooms"), options.number("members"));
    let (mut seated, _) = fill::fill(options, &Rc::new(Meter::default()), rooms).await?;
    let owners = &mut seated[..rooms]; // they came first
    for Seated { member, .. } in owners {
        let answer = member.ask("sync:source", SOURCE, |_| {}).await?;
        if !answer.ok {
            return Err(io::Error::other(format!("sync:source was refused: {:?}", answer.error)));
        }
    }
    sleep(WINDOW).await; // then the limit has forgotten the source, which is a command too
    let meter = Rc::new(Meter::default());
    let period = options.float(RATE).map(|rate| Duration::from_secs_f64(1.0 / rate));
    let (start, apart) = (Instant::now(), period.unwrap_or(WINDOW) / rooms as u32);
    let rooms = (0..rooms).map(|_| Rc::new(Room { members, ..Room::default() })).collect::<Vec<_>>();
    for Seated { person, member, .. } in seated {
        let (room, meter) = (Rc::clone(&rooms[person.room]), Rc::clone(&meter));
        let mut listener = Listener { member, room, meter, sequence: None };
        // The rooms begin one after the other, so that they do not all send at the same moments.
        let begin = start + apart * person.room as u32;
        spawn_local(async move {
            let end = match person.token {
                Some(_) => listener.steer(begin, period).await,
                None => listener.listen().await,
            };
            if let Err(error) = end {
                listener.meter.error(format_args!("cut off: {error}"));
            }
        });
    }
    let mut report = meter.measure(options).await?;
    meter.settle(&mut report, || rooms.iter().map(|room| room.missing()).sum()).await;
    let commands = report.operations as f64 / members as f64 / report.elapsed.as_secs_f64();
    report.more.insert("commands_per_second".to_owned(), round(commands).into());
    Ok(report)
}

/// A room and its commands that have not reached everyone.
#[derive(Debug, Default)]
struct Room {
    members: usize,
    /// How many commands were given.
    given: Cell<u64>,
    /// Those from the first on that is not complete.
    under_way: RefCell<VecDeque<Order>>,
    /// When the last ones were complete.
    recent: RefCell<VecDeque<Instant>>,
    completed: Notify,
}

#[derive(Debug)]
struct Order {
    due: Instant,
    missing: usize,
}

impl Room {
    /// Deliveries that are still to come.
    fn missing(&self) -> u64 {
        self.under_way.borrow().iter().map(|order| order.missing as u64).sum()
    }

    /// Numbers another command.
    fn give(&self, due: Instant) -> u64 {
        self.under_way.borrow_mut().push_back(Order { due, missing: self.members });
        self.given.replace(self.given.get() + 1)
    }

    /// Notes that a member has got the command of this number; answers when it was due if this was the last member.
    fn deliver(&self, number: u64) -> Option<Instant> {
        let mut under_way = self.under_way.borrow_mut();
        let first = self.given.get() - under_way.len() as u64;
        let order = under_way.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)?;
        order.missing = order.missing.checked_sub(1)?;
        if order.missing > 0 {
            return None;
        }
        let due = order.due;
        while under_way.front().is_some_and(|order| order.missing == 0) {
            under_way.pop_front();
        }
        let mut recent = self.recent.borrow_mut();
        recent.push_back(Instant::now());
        if recent.len() > COMMANDS_PER_WINDOW {
            recent.pop_front();
        }
        self.completed.notify_one();
        Some(due)
    }

    /// Waits until the next command may be given: when no other is under way, and the contract's limit allows it.
    ///
    /// The server counts a command before it is complete, so that counting from there keeps the limit for certain.
    async fn quiet(&self, begin: Instant) -> Instant {
        while !self.under_way.borrow().is_empty() {
            self.completed.notified().await;
        }
        let oldest = {
            let recent = self.recent.borrow();
            (recent.len() == COMMANDS_PER_WINDOW).then(|| recent.front().copied()).flatten()
        };
        sleep_until(oldest.map_or(begin, |oldest| oldest + WINDOW).into()).await;
        Instant::now()
    }
}

struct Listener {
    member: Member,
    room: Rc<Room>,
    meter: Rc<Meter>,
    /// The last command's sequence number.
    sequence: Option<u64>,
}

impl Listener {
    async fn listen(&mut self) -> io::Result<()> {
        loop {
            self.hear().await?;
        }
    }

    /// Listens, and gives commands: at an even rate, or each as soon as it may be.
    async fn steer(&mut self, begin: Instant, period: Option<Duration>) -> io::Result<()> {
        let room = Rc::clone(&self.room);
        while !self.meter.stopped() {
            let next = async {
                match period {
                    Some(period) => {
                        let due = begin + period.mul_f64(room.given.get() as f64);
                        sleep_until(due.into()).await;
                        due
                    }
                    None => room.quiet(begin).await,
                }
            };
            tokio::select! {
                biased;
                due = next => {
                    let number = room.give(due);
                    self.member.tell("sync:seek", &format!("{{\"targetMediaTime\":{number}}}"));
                }
                heard = self.hear() => heard?,
            }
        }
        self.listen().await
    }

    /// Writes what is to be sent, and takes one event.
    async fn hear(&mut self) -> io::Result<()> {
        let Self { member, room, meter, sequence } = self;
        let event = member.next().await?;
        if is_named(event, "room:error") {
            meter.error(String::from_utf8_lossy(event));
        }
        if !is_named(event, "sync:command") {
            return Ok(());
        }
        let next = value(event, "sequenceNumber");
        let number = value(event, "targetMediaTime");
        if next.is_none() || sequence.is_some_and(|last| next != Some(last + 1)) || number.is_none() {
            meter.error(format_args!("after {sequence:?}: {}", String::from_utf8_lossy(event)));
        }
        *sequence = next;
        meter.count(1);
        if let Some(due) = number.and_then(|number| room.deliver(number)) {
            meter.wait(due.elapsed());
        }
        Ok(())
    }
}

/// The first whole number of this name in an event: its command's, which comes before the state.
fn value(event: &[u8], name: &str) -> Option<u64> {
    let event = str::from_utf8(event).ok()?;
    let (_, rest) = event.split_once(name)?;
    let digits = rest.strip_prefix("\":")?;
    digits[..digits.find(|next: char| !next.is_ascii_digit())?].parse().ok()
}

const SOURCE: &str = r#"{"sourceType":"external","sourceId":"https://video.example/film.mp4"}"#;

/// What the contract allows a participant.
const COMMANDS_PER_WINDOW: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_commands() {
        let event =
            br#"["sync:command",{"command":{"type":"SEEK","sequenceNumber":12},"state":{"sequenceNumber":13}}]"#;
        assert_eq!(value(event, "sequenceNumber"), Some(12));
        assert_eq!(value(event, "targetMediaTime"), None);
    }

    #[test]
    fn a_command_is_complete_when_all_have_it() {
        let room = Room { members: 2, ..Room::default() };
        let (first, second) = (Instant::now(), Instant::now() + WINDOW);
        assert_eq!((room.give(first), room.give(second)), (0, 1));
        assert_eq!((room.deliver(1), room.deliver(0), room.deliver(1)), (None, None, Some(second)));
        assert_eq!(room.missing(), 1);
        assert_eq!((room.deliver(0), room.deliver(0), room.missing()), (Some(first), None, 0));
    }
}
