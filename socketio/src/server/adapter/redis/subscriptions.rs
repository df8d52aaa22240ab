//! The channels that are listened to, over a connection of their own.
//!
//! A Redis Cluster sends `sunsubscribe` unasked to the listeners of a slot that moves, and the `redis` crate takes it for the
//! answer to whatever command waits on that connection. So nothing but subscriptions uses the connection here, and none of
//! its answers is believed: a channel is listened to once Redis has confirmed it by its name. What is not confirmed is
//! asked for again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::connection::{Connection, Kind};
use super::link::{BATCH, PING_INTERVAL, Receive, timed_out};

/// How long a confirmation is waited for before the channel is asked for once more.
const CONFIRM_WITHIN: Duration = Duration::from_millis(250);
/// How long a channel may go without a confirmation before the connection is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// How long after a channel has moved other instances may not listen to it again yet.
const SETTLED_AFTER: Duration = GIVE_UP_AFTER;

/// The channels that are wanted, and what Redis has confirmed of them.
pub(super) struct Subscriptions {
    kind: Kind,
    routes: Mutex<Routes>,
    /// Told when there is something to ask for.
    ordered: Notify,
    /// Told when something is confirmed, and when the connection has ended.
    confirmed: Notify,
}

#[derive(Default)]
struct Routes {
    channels: HashMap<Box<str>, Route>,
    /// To be asked for now. One that is settled by then is passed over.
    due: VecDeque<Box<str>>,
    /// What was asked for, and until when it is waited for, earliest first.
    asked: VecDeque<(Instant, Box<str>)>,
    /// The orders that are not confirmed.
    open: BTreeSet<u64>,
    next_order: u64,
    /// The number of the connection, if there is one: confirmations of an earlier one count for nothing.
    live: Option<u64>,
}

struct Route {
    receiver: Weak<dyn Receive>,
    /// Wishes for this channel; without any it stays until Redis has confirmed that it is not listened to.
    wanted: usize,
    is_heard: bool,
    /// The order that is not confirmed, and since when.
    open: Option<(u64, Instant)>,
    /// When the channel was last found to have moved to another node.
    moved: Option<Instant>,
}

impl Routes {
    /// Has Redis asked to listen to a channel, or not to, whichever is wanted.
    fn order(&mut self, channel: &str) {
        let Some(route) = self.channels.get_mut(channel).filter(|_| self.live.is_some()) else { return };
        if route.open.is_none() {
            route.open = Some((self.next_order, Instant::now()));
            self.open.insert(self.next_order);
            self.next_order += 1;
        }
        self.due.push_back(channel.into());
    }

    fn settle(&mut self, channel: &str) {
        if let Some((order, _)) = self.channels.get_mut(channel).and_then(|route| route.open.take()) {
            self.open.remove(&order);
        }
    }

    /// Takes what is to be asked for now: the channel, and whether it is wanted.
    fn take_due(&mut self, now: Instant, max: usize) -> RedisResult<Vec<(Box<str>, bool)>> {
        while self.asked.front().is_some_and(|(until, _)| *until <= now) {
            self.due.extend(self.asked.pop_front().map(|(_, channel)| channel));
        }
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(channel) = self.due.pop_front()
        {
            let Some(route) = self.channels.get(&channel) else { continue };
            let Some((_, since)) = route.open else { continue };
            if now.duration_since(since) > GIVE_UP_AFTER {
                return Err(timed_out());
            }
            let is_wanted = route.wanted > 0;
            self.asked.push_back((now + CONFIRM_WITHIN, channel.clone()));
            taken.push((channel, is_wanted));
        }
        Ok(taken)
    }
}

impl Subscriptions {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, routes: Mutex::default(), ordered: Notify::new(), confirmed: Notify::new() }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        // Nothing under this lock can panic halfway.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants a channel, once more.
    pub(super) fn want(&self, channel: &str, receiver: Weak<dyn Receive>) {
        let mut routes = self.routes();
        let is_first = match routes.channels.entry(channel.into()) {
            Entry::Occupied(mut route) => {
                let route = route.get_mut();
                route.receiver = receiver;
                route.wanted += 1;
                route.wanted == 1
            }
            Entry::Vacant(route) => {
                route.insert(Route { receiver, wanted: 1, is_heard: false, open: None, moved: None });
                true
            }
        };
        if is_first {
            routes.order(channel);
            self.ordered.notify_one();
        }
    }

    /// Takes one wish for a channel back.
    pub(super) fn unwant(&self, channel: &str) {
        let mut routes = self.routes();
        if let Some(route) = routes.channels.get_mut(channel).filter(|route| route.wanted > 0) {
            route.wanted -= 1;
            if route.wanted == 0 {
                self.stop(&mut routes, channel);
            }
        }
    }

    /// Takes all wishes of a receiver back.
    pub(super) fn forget(&self, receiver: &Weak<dyn Receive>) {
        let mut routes = self.routes();
        let of_receiver = |route: &Route| route.wanted > 0 && route.receiver.ptr_eq(receiver);
        let channels: Vec<Box<str>> = routes
            .channels
            .iter()
            .filter(|(_, route)| of_receiver(route))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in channels {
            if let Some(route) = routes.channels.get_mut(&channel) {
                route.wanted = 0;
            }
            self.stop(&mut routes, &channel);
        }
    }

    fn stop(&self, routes: &mut Routes, channel: &str) {
        if routes.live.is_some() {
            routes.order(channel);
            self.ordered.notify_one();
        } else {
            routes.channels.remove(channel);
        }
    }

    /// Who takes what is published in a channel.
    pub(super) fn receiver(&self, channel: &str) -> Option<std::sync::Arc<dyn Receive>> {
        let routes = self.routes();
        routes.channels.get(channel).filter(|route| route.wanted > 0).and_then(|route| route.receiver.upgrade())
    }

    /// Whether a channel has been served by the same node for so long that every instance listens to it there.
    pub(super) fn is_settled(&self, channel: &str) -> bool {
        let routes = self.routes();
        routes
            .channels
            .get(channel)
            .is_some_and(|route| route.is_heard && route.moved.is_none_or(|moved| moved.elapsed() > SETTLED_AFTER))
    }

    /// Begins anew with the connection of a number: everything wanted is to be asked for.
    pub(super) fn begin(&self, connection: u64) {
        let mut routes = self.routes();
        routes.live = Some(connection);
        routes.channels.retain(|_, route| {
            (route.is_heard, route.open) = (false, None);
            route.wanted > 0
        });
        (routes.due, routes.asked, routes.open) = Default::default();
        let channels: Vec<Box<str>> = routes.channels.keys().cloned().collect();
        channels.iter().for_each(|channel| routes.order(channel));
    }

    /// Takes note that the connection has ended.
    pub(super) fn end(&self) {
        let mut routes = self.routes();
        routes.live = None;
        routes.open.clear();
        self.confirmed.notify_waiters();
    }

    /// Waits until what was wanted, or not any more, is confirmed; `false` where the connection ends before.
    pub(super) async fn settled(&self) -> bool {
        let until = self.routes().next_order;
        loop {
            let confirmed = self.confirmed.notified(); // hears of what happens from here on, before it is awaited
            {
                let routes = self.routes();
                if routes.live.is_none() || routes.open.first().is_none_or(|order| *order >= until) {
                    return routes.live.is_some();
                }
            }
            confirmed.await;
        }
    }

    /// Takes account of a confirmation that came on a connection, or of what Redis has ended by itself. Returns whether
    /// it was one.
    pub(super) fn confirm(&self, connection: u64, push: &PushInfo) -> bool {
        let is_heard = matches!(push.kind, PushKind::Subscribe | PushKind::SSubscribe);
        if !is_heard && !matches!(push.kind, PushKind::Unsubscribe | PushKind::SUnsubscribe) {
            return false;
        }
        let Some(Value::BulkString(channel)) = push.data.first() else { return true };
        let Ok(channel) = str::from_utf8(channel) else { return true };
        let mut routes = self.routes();
        if routes.live != Some(connection) {
            return true;
        }
        let Some(route) = routes.channels.get_mut(channel) else { return true };
        let (was_heard, is_wanted) = (mem::replace(&mut route.is_heard, is_heard), route.wanted > 0);
        let is_open = route.open.is_some();
        // Found at another node, or lost by the one that had it. Asked for twice, it looks the same.
        if was_heard && is_wanted {
            route.moved = Some(Instant::now());
        }
        match (is_heard, is_wanted) {
            (true, true) => routes.settle(channel),
            (false, false) => {
                routes.settle(channel);
                routes.channels.remove(channel);
            }
            // What is on its way will be confirmed, or asked for again.
            (true, false) if is_open => {}
            (true, false) | (false, true) => {
                routes.order(channel);
                self.ordered.notify_one();
            }
        }
        drop(routes);
        self.confirmed.notify_waiters();
        true
    }

    /// Asks for what is wanted until something fails.
    pub(super) async fn serve(&self, connection: &mut Connection) -> RedisError {
        let mut running = JoinSet::new();
        let mut ping_at = Instant::now() + PING_INTERVAL;
        loop {
            let now = Instant::now();
            let taken = self.routes().take_due(now, BATCH.saturating_sub(running.len()));
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => return error,
            };
            for pipeline in self.pipelines(connection, taken) {
                let mut connection = connection.clone();
                running.spawn(async move { connection.run::<Value>(&pipeline).await });
            }
            let next = {
                let routes = self.routes();
                let is_due = !routes.due.is_empty() && running.len() < BATCH;
                let asked = routes.asked.front().map_or(ping_at, |(until, _)| *until);
                if is_due { now } else { asked.min(ping_at) }
            };
            tokio::select! {
                () = self.ordered.notified() => {}
                () = sleep_until(next) => {}
                Some(done) = running.join_next() => match done {
                    // What Redis merely refuses is asked for again, where the slot is then.
                    Ok(Err(error)) if is_fatal(&error) => return error,
                    Ok(Err(error)) => tracing::debug!(%error, "a channel cannot be listened to yet"),
                    Ok(Ok(_)) | Err(_) => {}
                },
            }
            if Instant::now() >= ping_at {
                ping_at = Instant::now() + PING_INTERVAL;
                let mut connection = connection.clone();
                running.spawn(async move { connection.ping().await.map(|()| Value::Nil) });
            }
        }
    }

    /// One pipeline for everything, or one for each channel of a cluster, where a pipeline stays within one slot.
    fn pipelines(&self, connection: &Connection, channels: Vec<(Box<str>, bool)>) -> Vec<Pipeline> {
        let most = match connection {
            Connection::Single(_) => BATCH,
            Connection::Cluster(_) => 1,
        };
        let add = |mut pipeline: Pipeline, (channel, is_wanted): &(Box<str>, bool)| {
            let command = if *is_wanted { self.kind.subscribe() } else { self.kind.unsubscribe() };
            pipeline.cmd(command).arg(&**channel);
            pipeline
        };
        channels.chunks(most).map(|channels| channels.iter().fold(Pipeline::new(), add)).collect()
    }
}

/// Whether an error ends the connection.
pub(super) fn is_fatal(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error()
}
