//! `jitter`: what members of a room miss whose connections are cut now and then, while messages come at an even rate.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Command;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use crate::client::{Connection, Packet, Target, unexpected};
use crate::options::{self, Options, number, time};
use crate::report::{Meter, Report, progress, round};

/// The mode's name.
pub const NAME: &str = "jitter";

/// The mode's options.
pub fn command() -> Command {
    options::command(NAME, "Messages to a room whose members are cut off now and then", "20").args([
        number("clients", "100", "How many members, besides the one who sends"),
        number("rate", "20", "Messages a second"),
        time("period", "5", "Seconds in which each member is cut off once"),
        time("cut-min", "0.2", "Seconds it is away, at least"),
        time("cut-max", "2", "Seconds it is away, at most"),
        number("seed", "1", "What the chance in it depends on"),
        options::also(),
        options::beside(),
    ])
}

/// Sends the messages, and counts what every member got of them. Lost is a message that a member never got.
///
/// # Errors
/// The clients cannot connect, or the server is gone.
pub async fn run(options: &Options) -> io::Result<Report> {
    let targets: Rc<[Target]> = options.targets("/bench").into();
    let (meter, tally) = (Rc::new(Meter::default()), Rc::new(Tally::default()));
    let mut sender = Connection::open(&targets[0], "", 0).await?;
    sender.push(format_args!("42/bench,0[\"join\",\"{ROOM}\"]"));
    while !matches!(Packet::parse(sender.next().await?), Packet::Ack { id: 0, .. }) {}
    let (go_on, ending) = watch::channel(true);
    let members = (1..=options.number("clients")).map(|number| {
        let member = Member {
            number,
            targets: Rc::clone(&targets),
            visits: 0,
            meter: Rc::clone(&meter),
            tally: Rc::clone(&tally),
            session: None,
            received: Vec::new(),
        };
        let chance = fastrand::Rng::with_seed((options.number("seed") as u64) << 32 | number as u64);
        let cuts = Cuts {
            period: options.time("period"),
            least: options.time("cut-min"),
            most: options.time("cut-max").max(options.time("cut-min")),
            chance,
        };
        spawn_local(member.run(cuts, ending.clone()))
    });
    let members = members.collect::<Vec<_>>();
    while tally.online.get() < members.len() && !members.iter().any(|member| member.is_finished()) {
        sleep(TICK).await;
    }
    let sent = Rc::new(Cell::new(0_u64));
    spawn_local(send(sender, options.number("rate"), Rc::clone(&meter), Rc::clone(&sent)));
    progress(format_args!("sending for {:?}", options.warmup() + options.seconds()));
    let mut report = meter.measure(options).await?;
    // Who is away now comes back, and gets what a server keeps for that.
    go_on.send_replace(false);
    let mut delivered = 0;
    for received in join_all(members).await {
        let received = received.map_err(io::Error::other)??;
        let sent = usize::try_from(sent.get()).unwrap_or(usize::MAX);
        delivered += received.iter().take(sent).filter(|received| **received).count() as u64;
    }
    let due = sent.get() * options.number("clients") as u64;
    report.lost = due - delivered;
    report.errors = tally.failures.borrow().values().sum();
    for (name, value) in [
        ("delivered_share", json!(round(delivered as f64 / due as f64))),
        ("sent", json!(sent.get())),
        ("duplicates", json!(tally.duplicates.get())),
        ("out_of_order", json!(tally.out_of_order.get())),
        ("cuts", json!(tally.cuts.get())),
        ("recovered", json!(tally.recovered.get())),
        ("failures", json!(*tally.failures.borrow())),
    ] {
        report.more.insert(name.to_owned(), value);
    }
    Ok(report)
}

/// Sends numbers at an even rate until it is to stop, and reads what comes back.
async fn send(mut sender: Connection, rate: usize, meter: Rc<Meter>, sent: Rc<Cell<u64>>) {
    let start = Instant::now();
    let period = Duration::from_secs(1).div_f64(rate as f64);
    loop {
        let number = sent.get();
        let due = start + period.mul_f64(number as f64);
        let end = tokio::select! {
            biased;
            () = sleep_until(due.into()), if !meter.stopped() => {
                sender.push(format_args!("42/bench,[\"cast\",{number}]"));
                sent.set(number + 1);
                sender.flush().await
            }
            packet = sender.next() => packet.map(|_| ()),
        };
        if let Err(error) = end {
            return meter.error(format_args!("the sender was cut off: {error}"));
        }
    }
}

/// What all members count together.
#[derive(Debug, Default)]
struct Tally {
    online: Cell<usize>,
    cuts: Cell<u64>,
    recovered: Cell<u64>,
    duplicates: Cell<u64>,
    out_of_order: Cell<u64>,
    failures: RefCell<BTreeMap<String, u64>>,
}

/// When a member is cut off, and for how long.
struct Cuts {
    period: Duration,
    least: Duration,
    most: Duration,
    chance: fastrand::Rng,
}

impl Cuts {
    /// When in the next period the connection is cut, and for how long it is away.
    fn next(&mut self) -> (Duration, Duration) {
        let at = self.period.mul_f64(self.chance.f64());
        (at, self.least + (self.most - self.least).mul_f64(self.chance.f64()))
    }
}

/// What a server with connection state recovery knows a client by, and what of its events came last.
#[derive(Debug, Clone)]
struct Session {
    pid: String,
    offset: Option<String>,
}

#[derive(Deserialize)]
struct Connected {
    pid: Option<String>,
}

struct Member {
    number: usize,
    targets: Rc<[Target]>,
    /// How often it has connected: it comes back to another instance each time.
    visits: usize,
    meter: Rc<Meter>,
    tally: Rc<Tally>,
    session: Option<Session>,
    /// Which numbers have come.
    received: Vec<bool>,
}

impl Member {
    /// Comes and goes until it is to end, and answers which messages have come.
    async fn run(mut self, mut cuts: Cuts, mut go_on: watch::Receiver<bool>) -> io::Result<Vec<bool>> {
        let mut connection = self.connect().await?;
        self.tally.online.set(self.tally.online.get() + 1);
        let mut period = Instant::now();
        loop {
            let (at, away) = cuts.next();
            let listening = self.listen_until(&mut connection, period + at);
            tokio::select! {
                biased;
                _ = go_on.wait_for(|go_on| !go_on) => break,
                () = listening => {}
            }
            drop(connection); // without a close frame
            self.tally.cuts.set(self.tally.cuts.get() + 1);
            sleep(away).await;
            connection = self.reconnect().await?;
            period = Instant::now().max(period + cuts.period);
        }
        // A server that is behind goes on for a while.
        while let Ok(packet) = timeout(SETTLING, connection.next()).await {
            if let Err(error) = packet.and_then(|packet| self.take_event(packet)) {
                self.fail(error.to_string());
                break;
            }
        }
        Ok(self.received)
    }

    async fn reconnect(&mut self) -> io::Result<Connection> {
        for _ in 1..ATTEMPTS {
            match self.connect().await {
                Ok(connection) => return Ok(connection),
                Err(error) => self.fail(format!("connecting: {error}")),
            }
            sleep(BETWEEN_ATTEMPTS).await;
        }
        self.connect().await
    }

    /// Connects, and recovers what was missed or else joins the room anew, as socket.io-client does.
    async fn connect(&mut self) -> io::Result<Connection> {
        let target = &self.targets[(self.number + self.visits) % self.targets.len()];
        self.visits += 1;
        let mut connection = Connection::dial(target, self.number).await?;
        let auth = self.session.as_ref().map_or_else(String::new, |Session { pid, offset }| {
            let auth =
                offset.as_ref().map_or_else(|| json!({ "pid": pid }), |offset| json!({ "pid": pid, "offset": offset }));
            auth.to_string()
        });
        connection.push(format_args!("40/bench,{auth}"));
        // What was missed comes before the answer.
        let Connected { pid } = loop {
            let packet = connection.next().await?;
            if let Packet::Connect(data) = Packet::parse(packet) {
                break serde_json::from_slice(data)?;
            }
            self.take_event(packet)?;
        };
        let recovered = pid.is_some() && self.session.as_ref().map(|session| &session.pid) == pid.as_ref();
        if recovered {
            self.tally.recovered.set(self.tally.recovered.get() + 1);
            return Ok(connection);
        }
        self.session = pid.map(|pid| Session { pid, offset: None });
        connection.push(format_args!("42/bench,0[\"join\",\"{ROOM}\"]"));
        loop {
            let packet = connection.next().await?;
            if matches!(Packet::parse(packet), Packet::Ack { id: 0, .. }) {
                return Ok(connection);
            }
            self.take_event(packet)?;
        }
    }

    async fn listen_until(&mut self, connection: &mut Connection, end: Instant) {
        while let Ok(packet) = timeout_at(end.into(), connection.next()).await {
            if let Err(error) = packet.and_then(|packet| self.take_event(packet)) {
                return self.fail(error.to_string());
            }
        }
    }

    /// Takes `["cast", number]`, or `["cast", number, offset]` where the server can recover.
    fn take_event(&mut self, packet: &[u8]) -> io::Result<()> {
        let other = || unexpected(format!("not a cast: {}", String::from_utf8_lossy(packet)));
        let Packet::Event { data, .. } = Packet::parse(packet) else { return Err(other()) };
        let event = serde_json::from_slice::<Vec<&RawValue>>(data)?;
        let [_, number, offset @ ..] = &*event else { return Err(other()) };
        let number = number.get().parse::<usize>().map_err(|_| other())?;
        if let (Some(session), Some(offset)) = (&mut self.session, offset.last()) {
            session.offset = serde_json::from_str(offset.get()).ok();
        }
        match self.received.get(number) {
            Some(true) => self.tally.duplicates.set(self.tally.duplicates.get() + 1),
            Some(false) => self.tally.out_of_order.set(self.tally.out_of_order.get() + 1),
            None => self.meter.count(1),
        }
        self.received.resize(self.received.len().max(number + 1), false);
        self.received[number] = true;
        Ok(())
    }

    fn fail(&self, why: String) {
        *self.tally.failures.borrow_mut().entry(why).or_default() += 1;
    }
}

const ROOM: &str = "jitter";

const TICK: Duration = Duration::from_millis(1);

const ATTEMPTS: usize = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// What is on its way has come when nothing has for as long.
const SETTLING: Duration = Duration::from_secs(3);
