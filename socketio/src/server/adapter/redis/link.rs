//! The connections to Redis: kept, made again, and resubscribed.
//!
//! There are two, which live and end together: one for commands, and one for [`Subscriptions`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use redis::aio::SendError;
use redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{Connection, Kind, Place};
use super::losses::{AWAY, Losses};
use super::subscriptions::{Subscriptions, is_fatal};
use crate::server::adapter::ClusterError;

/// How long a command may take before the connection is given up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is trusted to be alive.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Most orders that go out together: enough to share a round trip, few enough to keep its memory small.
pub(super) const BATCH: usize = 512;

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
        /// Told how many listen, unless the message is lost.
        listeners: Option<oneshot::Sender<u64>>,
    },
    /// Everything before it has left, or is lost.
    Flushed(oneshot::Sender<()>),
}

/// A way to Redis that comes back by itself. It ends when this is dropped.
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
    subscriptions: Subscriptions,
    /// The connection for commands, while everything wanted when it was made is subscribed to.
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
            subscriptions: Subscriptions::new(kind),
            connection: watch::Sender::new(None),
            losses: Losses::default(),
            bereaved: OnceLock::new(),
        });
        let (orders, ordered) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        runtime.spawn(keep(Arc::clone(&shared), ordered));
        Self { shared, orders, runtime }
    }

    pub(super) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    pub(super) fn kind(&self) -> Kind {
        self.shared.kind
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
        let no_receiver = None::<fn(PushInfo) -> Result<(), SendError>>;
        self.shared.place.connect(patience, no_receiver).await
    }

    /// Waits until everything wanted so far is subscribed to.
    pub(super) async fn ready(&self) {
        let mut connection = self.shared.connection.subscribe();
        loop {
            // The sender lives as long as this does; what it shows must not be held on to.
            drop(connection.wait_for(Option::is_some).await);
            if self.shared.subscriptions.settled().await && self.is_connected() {
                return;
            }
        }
    }

    /// Waits until what was published so far has left, or is lost, and what was subscribed to so far is, or is not any
    /// more.
    pub(super) async fn flush(&self) {
        let (flushed, done) = oneshot::channel();
        let _ended = self.orders.send(Order::Flushed(flushed));
        // An error means that it is lost.
        let _lost = done.await;
        let _lost = self.shared.subscriptions.settled().await;
    }

    pub(super) fn publish(&self, channel: &str, payload: Vec<u8>) -> Result<(), ClusterError> {
        self.publish_to(channel, payload, None)
    }

    /// Publishes something; the answer is how many listen, or an error where it is lost.
    pub(super) fn publish_counted(
        &self,
        channel: &str,
        payload: Vec<u8>,
    ) -> Result<oneshot::Receiver<u64>, ClusterError> {
        let (listeners, counted) = oneshot::channel();
        self.publish_to(channel, payload, Some(listeners)).map(|()| counted)
    }

    fn publish_to(
        &self,
        channel: &str,
        payload: Vec<u8>,
        listeners: Option<oneshot::Sender<u64>>,
    ) -> Result<(), ClusterError> {
        let bytes = payload.len();
        let queued = self.shared.queued.fetch_add(bytes, Relaxed);
        if !self.is_connected() || queued.saturating_add(bytes) > self.shared.max_queued_bytes {
            self.shared.queued.fetch_sub(bytes, Relaxed);
            self.shared.losses.count(1, AWAY);
            return Err(ClusterError::Unreachable);
        }
        let order = Order::Publish { channel: channel.into(), payload, listeners };
        self.orders.send(order).map_err(|_ended| ClusterError::Closed)
    }

    /// Has what is published in a channel delivered, once more.
    pub(super) fn subscribe(&self, channel: &str, receiver: Weak<dyn Receive>) {
        self.shared.subscriptions.want(channel, receiver);
    }

    /// Takes one wish for a channel back.
    pub(super) fn unsubscribe(&self, channel: &str) {
        self.shared.subscriptions.unwant(channel);
    }

    /// Takes all wishes of a receiver back.
    pub(super) fn forget(&self, receiver: &Weak<dyn Receive>) {
        self.shared.subscriptions.forget(receiver);
    }

    /// Whether a channel is where it has been for long, so that all instances listen to it.
    pub(super) fn is_settled(&self, channel: &str) -> bool {
        self.shared.subscriptions.is_settled(channel)
    }

    /// Has a receiver told when messages are lost, of any channel. There is one of its kind.
    pub(super) fn tell_losses(&self, receiver: Weak<dyn Receive>) {
        // The first one stays.
        let _one_of_a_kind = self.shared.bereaved.set(receiver);
    }

    /// Returns how many instances listen to a channel. In a cluster whose slots move this may be too few.
    pub(super) async fn count(&self, channel: &str) -> Result<usize, ClusterError> {
        let connection = self.shared.connection.borrow().clone();
        let mut connection = connection.ok_or(ClusterError::Unreachable)?;
        let counted = connection.count(self.shared.kind, channel).await;
        counted.map_err(|error| {
            tracing::debug!(%error, "Redis does not say how many instances there are");
            ClusterError::Unreachable
        })
    }

    /// Returns the channels that begin with `prefix` and are listened to by any instance.
    pub(super) async fn channels(&self, prefix: &str) -> Result<Vec<String>, ClusterError> {
        let connection = self.shared.connection.borrow().clone();
        let mut connection = connection.ok_or(ClusterError::Unreachable)?;
        let channels = connection.channels(self.shared.kind, prefix).await;
        channels.map_err(|error| {
            tracing::debug!(%error, "Redis does not say which channels there are");
            ClusterError::Unreachable
        })
    }
}

impl Shared {
    /// Makes the connection for subscriptions, whose number is `number`.
    async fn connect_to_listen(
        self: &Arc<Self>,
        number: u64,
        pushes: mpsc::UnboundedSender<(u64, PushInfo)>,
        lost: Arc<Notify>,
    ) -> RedisResult<Connection> {
        let shared = Arc::clone(self);
        let push = move |push: PushInfo| -> Result<(), SendError> {
            if push.kind == PushKind::Disconnection {
                lost.notify_one();
            }
            if shared.accept(&push) {
                // An error means that whoever took the messages is gone.
                let _ended = pushes.send((number, push));
            }
            // An error would end the connection's own bookkeeping.
            Ok(())
        };
        self.place.connect(RESPONSE_TIMEOUT, Some(push)).await
    }

    /// Makes the connection for commands.
    async fn connect_to_ask(&self, lost: Arc<Notify>) -> RedisResult<Connection> {
        let push = move |push: PushInfo| -> Result<(), SendError> {
            if push.kind == PushKind::Disconnection {
                lost.notify_one();
            }
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

    /// Publishes what is in a batch, in order for each channel. Returns how many messages were refused, or may be lost,
    /// and the last reason why.
    async fn publish(&self, connection: &Connection, batch: Vec<Order>) -> (u64, Option<RedisError>) {
        // A pipeline stays within one slot of a cluster. What is for one channel keeps its order, like everything from one
        // task to one room.
        let is_split = matches!(connection, Connection::Cluster(_));
        let mut bundles: Vec<Bundle> = Vec::new();
        let mut known: HashMap<Box<str>, usize> = HashMap::new();
        for order in batch {
            let Order::Publish { channel, payload, listeners } = order else { continue };
            let of = if is_split { channel.clone() } else { Box::default() };
            let at = *known.entry(of).or_insert_with(|| {
                bundles.push(Bundle::default());
                bundles.len() - 1
            });
            if let Some(bundle) = bundles.get_mut(at) {
                bundle.pipeline.cmd(self.kind.publish()).arg(&*channel).arg(payload);
                bundle.sent.push((channel, listeners));
            }
        }
        let mut running = JoinSet::new();
        for bundle in bundles {
            let mut connection = connection.clone();
            running.spawn(async move { (bundle.sent, connection.run::<Vec<u64>>(&bundle.pipeline).await) });
        }
        let (mut failed, mut failure) = (0, None);
        while let Some(done) = running.join_next().await {
            match done {
                Ok((sent, Ok(counts))) => {
                    for ((channel, told), listeners) in sent.into_iter().zip(counts) {
                        self.tell_unheard(&channel, listeners);
                        // An error means that the caller no longer waits.
                        let _gone = told.map(|told| told.send(listeners));
                    }
                }
                Ok((sent, Err(error))) => {
                    failed += sent.len() as u64;
                    // One that ends the connection comes first.
                    if !failure.as_ref().is_some_and(is_fatal) {
                        failure = Some(error);
                    }
                }
                // Nothing there panics, and no task cancels it.
                Err(_) => failure = Some(timed_out()),
            }
        }
        (failed, failure)
    }

    fn give_up(&self, order: Order) {
        if let Order::Publish { payload, .. } = order {
            self.queued.fetch_sub(payload.len(), Relaxed);
            self.losses.count(1, "the connection broke before it left");
        }
    }

    /// Carries out orders for as long as the connection lives. It ends well when there will be no more orders.
    async fn serve(
        &self,
        connection: &mut Connection,
        ordered: &mut mpsc::UnboundedReceiver<Order>,
    ) -> RedisResult<()> {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = ordered.recv_many(&mut batch, BATCH) => if count == 0 { return Ok(()) },
                () = sleep(PING_INTERVAL) => {
                    connection.ping().await?;
                    continue;
                }
            }
            let bytes = batch.iter().map(Order::bytes).sum();
            let (flushed, publish): (Vec<_>, Vec<_>) =
                std::mem::take(&mut batch).into_iter().partition(|order| matches!(order, Order::Flushed(_)));
            let unpublished = Unpublished { shared: self, bytes, messages: publish.len() as u64 };
            let (failed, failure) = self.publish(connection, publish).await;
            unpublished.done();
            if let Some(error) = failure {
                // Some of them may have arrived; nobody can tell.
                self.losses.count(failed, "they were refused, or the connection broke");
                // What Redis merely refuses does not end the connection.
                if is_fatal(&error) {
                    return Err(error);
                }
                tracing::debug!(%error, "Redis refuses messages to other instances");
                self.tell_lost();
            }
            for order in flushed {
                if let Order::Flushed(flushed) = order {
                    // An error means that nobody waits any more.
                    let _late = flushed.send(());
                }
            }
        }
    }

    /// Hands on what was published.
    fn deliver(&self, connection: u64, push: PushInfo) {
        self.arrived.fetch_sub(payload_bytes(&push), Relaxed);
        if self.subscriptions.confirm(connection, &push) || !matches!(push.kind, PushKind::Message | PushKind::SMessage)
        {
            return;
        }
        let mut data = push.data.into_iter();
        if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
            && let Ok(channel) = str::from_utf8(&channel)
            && let Some(receiver) = self.subscriptions.receiver(channel)
        {
            receiver.receive(channel, payload);
        }
    }

    /// Connects, and serves until a connection is lost. It ends well when there will be no more orders.
    async fn live(
        self: &Arc<Self>,
        number: u64,
        ordered: &mut mpsc::UnboundedReceiver<Order>,
        pushes: mpsc::UnboundedSender<(u64, PushInfo)>,
        on_connected: impl FnOnce(),
    ) -> RedisResult<()> {
        let lost = Arc::new(Notify::new());
        let (listening, asking) = tokio::join!(
            self.connect_to_listen(number, pushes, Arc::clone(&lost)),
            self.connect_to_ask(Arc::clone(&lost))
        );
        let (mut listening, mut asking) = (listening?, asking?);
        self.subscriptions.begin(number);
        // What the last connection has left undone is lost.
        while let Ok(order) = ordered.try_recv() {
            self.give_up(order);
        }
        let publishing = async {
            // An error means that the connection has ended, which another branch tells.
            let _ended = self.subscriptions.settled().await;
            on_connected();
            self.connection.send_replace(Some(asking.clone()));
            self.serve(&mut asking, ordered).await
        };
        tokio::select! {
            served = publishing => served,
            error = self.subscriptions.serve(&mut listening) => Err(error),
            () = lost.notified() => Err(closed()),
        }
    }
}

/// What is for one channel, or for all of them where that makes no difference.
#[derive(Default)]
struct Bundle {
    pipeline: Pipeline,
    sent: Vec<(Box<str>, Option<oneshot::Sender<u64>>)>,
}

/// Messages whose outcome is not known yet: they count as lost if this is dropped.
struct Unpublished<'a> {
    shared: &'a Shared,
    bytes: usize,
    messages: u64,
}

impl Unpublished<'_> {
    fn done(mut self) {
        self.messages = 0;
    }
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        self.shared.queued.fetch_sub(self.bytes, Relaxed);
        self.shared.losses.count(self.messages, "the connection broke before it was known whether they left");
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
    fn bytes(&self) -> usize {
        match self {
            Self::Publish { payload, .. } => payload.len(),
            Self::Flushed(_) => 0,
        }
    }
}

pub(super) fn timed_out() -> RedisError {
    (redis::ErrorKind::Io, "it took too long").into()
}

fn closed() -> RedisError {
    (redis::ErrorKind::Io, "the connection is closed").into()
}

/// Keeps the connections until the link is dropped.
async fn keep(shared: Arc<Shared>, mut ordered: mpsc::UnboundedReceiver<Order>) {
    let (pushes, mut pushed) = mpsc::unbounded_channel();
    let receiving = Arc::clone(&shared);
    let receiver = tokio::spawn(async move {
        while let Some((connection, push)) = pushed.recv().await {
            receiving.deliver(connection, push);
        }
    });
    let (mut pause, mut warned) = (BACKOFF.0, false);
    for number in 0.. {
        if ordered.is_closed() {
            break;
        }
        let on_connected = || {
            tracing::info!("connected to the Redis of the cluster");
            (pause, warned) = (BACKOFF.0, false);
        };
        let ended = shared.live(number, &mut ordered, pushes.clone(), on_connected).await;
        shared.subscriptions.end();
        let was_connected = shared.connection.send_replace(None).is_some();
        if was_connected {
            shared.tell_lost();
        }
        match ended {
            Ok(()) => break,
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
