//! Those who wait for a seat in one room, so that many of them are written at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::connections::Claim;
use crate::sync::event::{Refusal, RoomState};
use crate::sync::room::Join;

/// The queue in front of a room: whoever joins while a write is under way is part of the next one.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arrival>,
    /// Whether somebody is taking, or about to take, those who wait to the room.
    is_led: bool,
}

/// Takes those who wait to the room, some at a time. Dropped before that is over, it lets them go without an answer.
#[derive(Debug)]
pub(super) struct Lead<'a> {
    arrivals: &'a Arrivals,
    is_over: bool,
}

/// Somebody who waits for a seat.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) join: Join,
    claim: Claim,
    reply: oneshot::Sender<Answer>,
}

/// What becomes of a join.
pub(super) type Answer = Result<Arc<RoomState>, Refusal>;

impl Arrivals {
    /// Adds somebody at the end; `true` if they must be [led](Self::lead) to the room, since nobody else will do so.
    pub(super) fn push(&self, arrival: Arrival) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(arrival);
        !std::mem::replace(&mut queue.is_led, true)
    }

    /// For whom [`push`](Self::push) has said that somebody must do it.
    pub(super) fn lead(&self) -> Lead<'_> {
        Lead { arrivals: self, is_over: false }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead<'_> {
    /// Whether anybody waits. If not, the lead is over, and who comes next must be led anew.
    pub(super) fn goes_on(&mut self) -> bool {
        let mut queue = self.arrivals.queue();
        queue.is_led = !queue.waiting.is_empty();
        self.is_over = !queue.is_led;
        queue.is_led
    }

    /// The next ones in the order they came, at most [`MOST_AT_ONCE`].
    pub(super) fn take(&mut self) -> Vec<Arrival> {
        let mut queue = self.arrivals.queue();
        let count = queue.waiting.len().min(MOST_AT_ONCE);
        queue.waiting.drain(..count).collect()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        while !self.is_over && self.goes_on() {
            drop(self.take());
        }
    }
}

impl Arrival {
    pub(super) fn new(join: Join, claim: Claim) -> (Self, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (Self { join, claim, reply }, answer)
    }

    /// Tells what has become of it. A connection that has no seat by now is in no room.
    pub(super) fn answer(self, answer: Answer) {
        drop(self.claim);
        // Who does not wait any more needs no answer.
        let _gone = self.reply.send(answer);
    }
}

/// A room is locked while those who enter it are announced to everybody in it, which should not take long.
const MOST_AT_ONCE: usize = 128;
