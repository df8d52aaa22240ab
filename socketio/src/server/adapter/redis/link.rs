//! The connection to Redis: kept, resubscribed, and given up on for nobody.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{Connection, Kind, Place};
use super::losses::{AWAY, Losses};
use crate::server::adapter::ClusterError;

/// How long a command may take before the connection is given up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is trusted to be alive.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Most orders that go out together: enough to share a round trip, few enough to keep its memory small.
const BATCH: usize = 512;

/// Who takes what is published in a channel. It must not wait.
pub(super) trait Receive: Send + Sync {
    fn receive(&self, channel: &str, payload: Vec<u8>);

    /// Learns that messages, from here or to here, may have been lost, where it has asked for that.
    fn lost(&self) {}

    /// Learns that nobody listens to a channel in which something was published, where it has asked for losses.
    fn unheard(&self, channel: &str) {
        let _ = channel;
    }
}

enum Order {
    Publish {
        channel: Box<str>,
        payload: Vec<u8>,
    },
    Subscribe(Box<str>),
    Unsubscribe(Box<str>),
    /// Everything before it has left, or is lost.
    Flushed(oneshot::Sender<()>),
}

/// The channels that are wanted.
#[derive(Default)]
struct Routes {
    channels: HashMap<Box<str>, Subscription>,
    /// Changes are ordered; while there is no connection they would only pile up.
    live: bool,
}

struct Subscription {
    receiver: Weak<dyn Receive>,
    /// Wishes for this channel.
    wanted: usize,
}

/// A connection to Redis that comes back by itself. It ends when this is dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    runtime: tokio::runtime::Handle,
}

struct Shared {
    kind: Kind,
    place: Place,
    max_queued_bytes: usize,
    /// Bytes that wait to be published.
    queued: AtomicUsize,
    /// Bytes that have come and wait to be delivered.
    arrived: AtomicUsize,
    routes: Mutex<Routes>,
    connection: watch::Sender<Option<Connection>>,
    losses: Losses,
    /// Who is told of them.
    bereaved: OnceLock<Weak<dyn Receive>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("kind", &self.shared.kind)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Starts to connect, in tasks of the current runtime.
    pub(super) fn start(kind: Kind, place: Place, max_queued_bytes: usize) -> Self {
        let shared = Arc::new(Shared {
            kind,
            place,
            max_queued_bytes,
            queued: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            routes: Mutex::default(),
            connection: watch::Sender::new(None),
            losses: Losses::default(),
            bereaved: OnceLock::new(),
        });
        let (orders, ordered) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        runtime.spawn(keep(Arc::clone(&shared), ordered, orders.downgrade()));
        Self { shared, orders, runtime }
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(super) fn losses(&self) -> &Losses {
        &self.shared.losses
    }

    pub(super) fn is_connected(&self) -> bool {
        self.shared.connection.borrow().is_some()
    }

    /// Waits until Redis is there.
    pub(super) async fn connected(&self) -> Connection {
        let mut connection = self.shared.connection.subscribe();
        loop {
            // The sender lives as long as this does.
            let connected = connection.wait_for(Option::is_some).await;
            if let Some(connection) = connected.ok().and_then(|connected| connected.clone()) {
                return connection;
            }
        }
    }

    /// Makes a connection for commands that wait, which must not keep others waiting.
    pub(super) async fn connect_to_read(&self, patience: Duration) -> RedisResult<Connection> {
        let nobody = None::<fn(PushInfo) -> Result<(), redis::aio::SendError>>;
        self.shared.place.connect(patience, nobody).await
    }

    /// Waits until everything wanted so far is subscribed to.
    pub(super) async fn ready(&self) {
        let mut connection = self.shared.connection.subscribe();
        loop {
            // The sender lives as long as this does; what it shows must not be held on to.
            drop(connection.wait_for(Option::is_some).await);
            let (flushed, done) = oneshot::channel();
            let _ended = self.orders.send(Order::Flushed(flushed));
            let _ended = done.await;
            if self.is_connected() {
                return;
            }
        }
    }

    /// Waits until what was ordered so far has left, or is lost.
    pub(super) async fn flush(&self) {
        let (flushed, done) = oneshot::channel();
        let _ended = self.orders.send(Order::Flushed(flushed));
        // An error means that it is lost.
        let _lost = done.await;
    }

    pub(super) fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), ClusterError> {
        let bytes = payload.len();
        let queued = self.shared.queued.fetch_add(bytes, Relaxed);
        if !self.is_connected() || queued.saturating_add(bytes) > self.shared.max_queued_bytes {
            self.shared.queued.fetch_sub(bytes, Relaxed);
            self.shared.losses.count(1, AWAY);
            return Err(ClusterError::Unreachable);
        }
        let order = Order::Publish { channel: channel.into(), payload };
        self.orders.send(order).map_err(|_ended| ClusterError::Closed)
    }

    /// Has what is published in a channel delivered, once more.
    pub(super) fn subscribe(&self, channel: &str, receiver: Weak<dyn Receive>) {
        let Routes { channels, live } = &mut *self.shared.routes();
        match channels.entry(channel.into()) {
            Entry::Occupied(mut route) => {
                let route = route.get_mut();
                route.wanted += 1;
                route.receiver = receiver;
            }
            Entry::Vacant(route) => {
                route.insert(Subscription { receiver, wanted: 1 });
                self.order(*live, Order::Subscribe(channel.into()));
            }
        }
    }

    /// Has a receiver told when messages are lost, of any channel. There is one of its kind.
    pub(super) fn tell_losses(&self, receiver: Weak<dyn Receive>) {
        // The first one stays.
        let _one_of_a_kind = self.shared.bereaved.set(receiver);
    }

    /// Takes one wish for a channel back.
    pub(super) fn unsubscribe(&self, channel: &str) {
        let Routes { channels, live } = &mut *self.shared.routes();
        if let Some(route) = channels.get_mut(channel) {
            route.wanted -= 1;
            if route.wanted == 0 {
                channels.remove(channel);
                self.order(*live, Order::Unsubscribe(channel.into()));
            }
        }
    }

    /// Takes all wishes of a receiver back.
    pub(super) fn forget(&self, receiver: &Weak<dyn Receive>) {
        let Routes { channels, live } = &mut *self.shared.routes();
        for (channel, _) in channels.extract_if(|_, route| route.receiver.ptr_eq(receiver)) {
            self.order(*live, Order::Unsubscribe(channel));
        }
    }

    /// Passes an order on, under the lock of the routes: so orders for a channel come in the order of the wishes.
    fn order(&self, live: bool, order: Order) {
        if live {
            // An error means that the runtime is gone.
            let _ended = self.orders.send(order);
        }
    }

    /// Returns how many instances listen to a channel.
    pub(super) async fn count(&self, channel: &str) -> Result<usize, ClusterError> {
        let connection = self.shared.connection.borrow().clone();
        let mut connection = connection.ok_or(ClusterError::Unreachable)?;
        let counted = connection.count(self.shared.kind, channel).await;
        counted.map_err(|error| {
            tracing::debug!(%error, "Redis does not say how many instances there are");
            ClusterError::Unreachable
        })
    }
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, Routes> {
        // Nothing under this lock can panic halfway.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(
        self: &Arc<Self>,
        pushes: mpsc::UnboundedSender<PushInfo>,
        lost: Arc<Notify>,
    ) -> RedisResult<Connection> {
        let shared = Arc::clone(self);
        let push = move |push: PushInfo| -> Result<(), redis::aio::SendError> {
            if push.kind == PushKind::Disconnection {
                lost.notify_one();
            }
            if shared.accept(&push) {
                // An error means that whoever took the messages is gone.
                let _ended = pushes.send(push);
            }
            // An error would end the connection's own bookkeeping.
            Ok(())
        };
        self.place.connect(RESPONSE_TIMEOUT, Some(push)).await
    }

    fn tell_lost(&self) {
        if let Some(receiver) = self.bereaved.get().and_then(Weak::upgrade) {
            receiver.lost();
        }
    }

    fn tell_unheard(&self, channel: &str, listeners: u64) {
        if let (0, Some(receiver)) = (listeners, self.bereaved.get().and_then(Weak::upgrade)) {
            receiver.unheard(channel);
        }
    }

    /// Takes account of what has come; false where there is no room for it.
    fn accept(&self, push: &PushInfo) -> bool {
        let bytes = payload_bytes(push);
        let waiting = self.arrived.fetch_add(bytes, Relaxed).saturating_add(bytes);
        let accepted = waiting <= self.max_queued_bytes;
        if !accepted {
            self.arrived.fetch_sub(bytes, Relaxed);
            self.losses.count(1, "they come faster than they are delivered");
            self.tell_lost();
        }
        accepted
    }

    /// Carries out orders in a batch.
    async fn perform(&self, connection: &mut Connection, batch: &[Order]) -> RedisResult<()> {
        match connection {
            Connection::Single(_) => {
                let mut pipeline = Pipeline::with_capacity(batch.len());
                batch.iter().for_each(|order| self.add(&mut pipeline, order));
                if !pipeline.is_empty() {
                    let listeners: Vec<u64> = connection.run(&pipeline).await?;
                    let channels = batch.iter().filter_map(Order::published_in);
                    channels.zip(listeners).for_each(|(channel, listeners)| self.tell_unheard(channel, listeners));
                }
                Ok(())
            }
            // A pipeline stays within one slot. What is for one channel keeps its order, like everything from one task to
            // one room.
            Connection::Cluster(_) => {
                let mut channels: Vec<(&str, Pipeline)> = Vec::new();
                let mut known: HashMap<&str, usize> = HashMap::new();
                for order in batch {
                    let Some(channel) = order.channel() else { continue };
                    let at = *known.entry(channel).or_insert_with(|| {
                        channels.push((channel, Pipeline::new()));
                        channels.len() - 1
                    });
                    if let Some((_, pipeline)) = channels.get_mut(at) {
                        self.add(pipeline, order);
                    }
                }
                let mut running = JoinSet::new();
                for (channel, pipeline) in channels {
                    let mut connection = connection.clone();
                    let channel = channel.to_owned();
                    running.spawn(async move { Ok((channel, connection.run::<Vec<u64>>(&pipeline).await?)) });
                }
                while let Some(done) = running.join_next().await {
                    let (channel, listeners) = done.unwrap_or_else(|_| Err(timed_out()))?;
                    listeners.into_iter().for_each(|listeners| self.tell_unheard(&channel, listeners));
                }
                Ok(())
            }
        }
    }

    /// Adds an order, of whose answers only those to publishing are of interest: how many listen.
    fn add(&self, pipeline: &mut Pipeline, order: &Order) {
        match order {
            Order::Publish { channel, payload } => {
                pipeline.cmd(self.kind.publish()).arg(&**channel).arg(payload.as_slice());
            }
            Order::Subscribe(channel) => drop(pipeline.cmd(self.kind.subscribe()).arg(&**channel).ignore()),
            Order::Unsubscribe(channel) => drop(pipeline.cmd(self.kind.unsubscribe()).arg(&**channel).ignore()),
            Order::Flushed(_) => {}
        }
    }

    /// Subscribes to every channel that is wanted by now.
    async fn resubscribe(
        &self,
        connection: &mut Connection,
        ordered: &mut mpsc::UnboundedReceiver<Order>,
    ) -> RedisResult<()> {
        // What the last connection has left undone is in the routes, or lost.
        while let Ok(order) = ordered.try_recv() {
            self.give_up(order);
        }
        let channels: Vec<Order> = {
            let mut routes = self.routes();
            routes.live = true;
            routes.channels.keys().cloned().map(Order::Subscribe).collect()
        };
        for batch in channels.chunks(BATCH) {
            self.perform(connection, batch).await?;
        }
        Ok(())
    }

    fn give_up(&self, order: Order) {
        if let Order::Publish { payload, .. } = order {
            self.queued.fetch_sub(payload.len(), Relaxed);
            self.losses.count(1, "the connection broke before it left");
        }
    }

    /// Carries out orders for as long as the connection lives; false when there will be no more orders.
    async fn serve(
        &self,
        connection: &mut Connection,
        ordered: &mut mpsc::UnboundedReceiver<Order>,
        lost: &Notify,
    ) -> RedisResult<bool> {
        let mut batch = Vec::new();
        loop {
            batch.clear();
            tokio::select! {
                count = ordered.recv_many(&mut batch, BATCH) => if count == 0 { return Ok(false) },
                () = lost.notified() => return Err(closed()),
                () = sleep(PING_INTERVAL) => {
                    connection.ping().await?;
                    continue;
                }
            }
            let bytes = batch.iter().map(Order::bytes).sum();
            let performed = self.perform(connection, &batch).await;
            self.queued.fetch_sub(bytes, Relaxed);
            if let Err(error) = performed {
                let published = batch.iter().filter(|order| matches!(order, Order::Publish { .. })).count();
                // Some of them may have arrived; nobody can tell.
                self.losses.count(published as u64, "they were refused, or the connection broke");
                // What Redis merely refuses does not end the connection, unless it is a subscription that is missing then.
                let subscribes = batch.iter().any(|order| matches!(order, Order::Subscribe(_)));
                if subscribes || error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
                    return Err(error);
                }
                tracing::debug!(%error, "Redis refuses messages to other instances");
                self.tell_lost();
            }
            for order in batch.drain(..) {
                if let Order::Flushed(flushed) = order {
                    // An error means that nobody waits any more.
                    let _late = flushed.send(());
                }
            }
        }
    }

    /// A channel is not listened to any more: because we said so, or because its slot has moved to another node.
    fn unsubscribed(&self, push: &PushInfo, orders: &mpsc::WeakUnboundedSender<Order>) {
        if let (Some(Value::BulkString(channel)), Some(orders)) = (push.data.first(), orders.upgrade())
            && let Ok(channel) = str::from_utf8(channel)
            && self.routes().channels.contains_key(channel)
        {
            let _ended = orders.send(Order::Subscribe(channel.into()));
        }
    }

    /// Hands on what was published.
    fn deliver(&self, push: PushInfo, orders: &mpsc::WeakUnboundedSender<Order>) {
        self.arrived.fetch_sub(payload_bytes(&push), Relaxed);
        if push.kind == PushKind::SUnsubscribe {
            return self.unsubscribed(&push, orders);
        }
        if !matches!(push.kind, PushKind::Message | PushKind::SMessage) {
            return;
        }
        let mut data = push.data.into_iter();
        if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
            && let Ok(channel) = str::from_utf8(&channel)
        {
            let receiver = self.routes().channels.get(channel).and_then(|route| route.receiver.upgrade());
            if let Some(receiver) = receiver {
                receiver.receive(channel, payload);
            }
        }
    }
}

/// What a message counts while it waits: its payload comes last.
fn payload_bytes(push: &PushInfo) -> usize {
    match (&push.kind, push.data.last()) {
        (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(payload))) => payload.len(),
        _ => 0,
    }
}

impl Order {
    fn channel(&self) -> Option<&str> {
        match self {
            Self::Publish { channel, .. } | Self::Subscribe(channel) | Self::Unsubscribe(channel) => Some(channel),
            Self::Flushed(_) => None,
        }
    }

    fn published_in(&self) -> Option<&str> {
        match self {
            Self::Publish { channel, .. } => Some(channel),
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Flushed(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Publish { payload, .. } => payload.len(),
            Self::Subscribe(_) | Self::Unsubscribe(_) | Self::Flushed(_) => 0,
        }
    }
}

fn timed_out() -> RedisError {
    (redis::ErrorKind::Io, "it took too long").into()
}

fn closed() -> RedisError {
    (redis::ErrorKind::Io, "the connection is closed").into()
}

/// Keeps the connection until the link is dropped.
async fn keep(
    shared: Arc<Shared>,
    mut ordered: mpsc::UnboundedReceiver<Order>,
    orders: mpsc::WeakUnboundedSender<Order>,
) {
    let (pushes, mut pushed) = mpsc::unbounded_channel();
    let receiving = Arc::clone(&shared);
    let receiver = tokio::spawn(async move {
        while let Some(push) = pushed.recv().await {
            receiving.deliver(push, &orders);
        }
    });
    let (mut pause, mut warned) = (BACKOFF.0, false);
    while !ordered.is_closed() {
        let lost = Arc::new(Notify::new());
        let ended = async {
            let mut connection = shared.connect(pushes.clone(), Arc::clone(&lost)).await?;
            shared.resubscribe(&mut connection, &mut ordered).await?;
            tracing::info!("connected to the Redis of the cluster");
            (pause, warned) = (BACKOFF.0, false);
            shared.connection.send_replace(Some(connection.clone()));
            shared.serve(&mut connection, &mut ordered, &lost).await
        };
        let ended: RedisResult<bool> = ended.await;
        shared.routes().live = false;
        let was_connected = shared.connection.send_replace(None).is_some();
        if was_connected {
            shared.tell_lost();
        }
        match ended {
            Ok(_) => break,
            Err(error) if was_connected => {
                tracing::warn!(%error, "the Redis of the cluster is lost; this instance goes on alone");
                warned = true;
            }
            Err(error) if !std::mem::replace(&mut warned, true) => {
                tracing::warn!(%error, "the Redis of the cluster is not to be reached; this instance goes on alone");
            }
            Err(error) => tracing::debug!(%error, "the Redis of the cluster is not to be reached"),
        }
        sleep(pause).await;
        pause = (2 * pause).min(BACKOFF.1);
    }
    receiver.abort();
}
