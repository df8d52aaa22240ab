//! Events of the kind `echo` and the acks they wait for, over whatever transport.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Arguments;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use crate::client::Packet;
use crate::options::Options;
use crate::report::{Meter, Report};

/// What the clients of a measurement have in common: what they send, and the count of what comes back.
#[derive(Debug)]
pub struct Acks {
    prefix: String,
    payload: String,
    meter: Meter,
    awaited: Cell<u64>,
    overtaking: Cell<u64>,
}

impl Acks {
    /// Events with so many characters as the option `payload` says, for the namespace behind `prefix`.
    pub fn new(options: &Options, prefix: String) -> Rc<Self> {
        let payload = "x".repeat(options.number("payload"));
        Rc::new(Self { prefix, payload, meter: Meter::default(), awaited: Cell::new(0), overtaking: Cell::new(0) })
    }

    /// Whether nothing new is to be sent.
    pub fn stopped(&self) -> bool {
        self.meter.stopped()
    }

    /// Takes note of how a client ended.
    pub fn check(&self, end: io::Result<()>) {
        if let Err(error) = end {
            self.meter.error(format_args!("cut off: {error}"));
        }
    }

    /// Measures, and tells beside what any mode does how many acks came before an earlier event's.
    ///
    /// # Errors
    /// The server is gone.
    pub async fn measure(&self, options: &Options) -> io::Result<Report> {
        let mut report = self.meter.measure(options).await?;
        self.meter.settle(&mut report, || self.awaited.get()).await;
        report.more.insert("overtaking".to_owned(), self.overtaking.get().into());
        Ok(report)
    }
}

/// The events of one client that wait for their ack.
#[derive(Debug)]
pub struct Window {
    acks: Rc<Acks>,
    /// The id of the first in `sent`.
    first: u64,
    /// When the events were sent, in the order of their ids; none where the ack has come. The first still waits.
    sent: VecDeque<Option<Instant>>,
}

impl Window {
    /// Nothing waits as yet.
    pub fn new(acks: &Rc<Acks>) -> Self {
        Self { acks: Rc::clone(acks), first: 0, sent: VecDeque::new() }
    }

    /// Whether all events are acked.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Hands the next events to `send`, to be sent at once.
    pub fn send(&mut self, events: usize, mut send: impl FnMut(Arguments<'_>)) {
        let now = Instant::now();
        let Acks { prefix, payload, awaited, .. } = &*self.acks;
        for _ in 0..events {
            let id = self.first + self.sent.len() as u64;
            send(format_args!("42{prefix}{id}[\"echo\",\"{payload}\"]"));
            self.sent.push_back(Some(now));
        }
        awaited.set(awaited.get() + events as u64);
    }

    /// Takes a packet that came at `now`; false if it is not the ack of an event that waits.
    pub fn receive(&mut self, packet: &[u8], now: Instant) -> bool {
        let Some(sent) = self.acked(packet) else {
            let packet = String::from_utf8_lossy(packet);
            self.acks.meter.error(format_args!("not an ack that is awaited: {packet}"));
            return false;
        };
        self.acks.meter.count(1);
        self.acks.meter.wait(now - sent);
        self.acks.awaited.set(self.acks.awaited.get() - 1);
        true
    }

    /// When the event was sent that the packet acks; none if it acks none that waits, or brings back something else.
    fn acked(&mut self, packet: &[u8]) -> Option<Instant> {
        let Packet::Ack { id, data } = Packet::parse(packet) else { return None };
        let place = usize::try_from(id.checked_sub(self.first)?).ok()?;
        // The array's brackets and the string's quotes are four more.
        if data.len() != self.acks.payload.len() + 4 {
            return None;
        }
        let sent = self.sent.get_mut(place)?.take()?;
        if place > 0 {
            self.acks.overtaking.set(self.acks.overtaking.get() + 1);
        }
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first += 1;
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo;

    #[test]
    fn each_ack_counts_once_and_for_its_own_event() {
        let arguments = ["echo", "--address", "127.0.0.1:1", "--pid", "1", "--payload", "1"];
        let options = Options::new(echo::command().get_matches_from(arguments));
        let acks = Acks::new(&options, "/bench,".to_owned());
        let mut window = Window::new(&acks);
        let mut sent = Vec::new();
        window.send(3, |event| sent.push(event.to_string()));
        assert_eq!(sent[2], "42/bench,2[\"echo\",\"x\"]");
        let now = Instant::now();
        let taken = [
            "43/bench,1[\"x\"]",
            "43/bench,1[\"x\"]",
            "43/bench,0[\"xx\"]",
            "43/bench,0[\"x\"]",
            "42/bench,2[\"x\"]",
            "43/bench,3[\"x\"]",
            "43/bench,2[\"x\"]",
        ]
        .map(|packet| window.receive(packet.as_bytes(), now));
        assert_eq!(taken, [true, false, false, true, false, false, true]);
        assert_eq!((acks.overtaking.get(), acks.awaited.get(), window.is_empty()), (1, 0, true));
    }
}
