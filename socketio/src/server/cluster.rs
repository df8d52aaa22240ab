//! Questions to all instances: what they answer, and when that is all.

use std::collections::HashSet;
use std::fmt;
use std::future::pending;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::mpsc;

use super::adapter::{ClusterError, LocalAcks, Outgoing, Replies, Reply, Request, SocketInfo, Target};
use super::broadcast::Broadcast;
use super::namespace::Namespace;
use super::socket::{AckError, Room, SocketId};
use crate::{Arguments, Data, Event, FromArguments, UsageError, placeholder};

/// Most bytes of answers that one question takes: an event with ack goes to any number of clients, each of which may
/// answer with as much as it likes. What is beyond counts as unanswered.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How long the adapter may take to name the instances that have not answered.
const NAMES_WITHIN: Duration = Duration::from_secs(1);

/// What came back from many that were asked the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acks<T> {
    /// The answers, in the order in which they came.
    pub answers: Vec<T>,
    /// How many answers are of another type.
    pub unfit: usize,
    /// Sockets of this instance that did not answer: in time, or before they left.
    pub missing: Vec<SocketId>,
    /// How many others did not: clients of other instances, or of a server-side event the instances themselves.
    pub missing_elsewhere: usize,
    /// Why not every instance was heard: it is not known then how many clients are missing.
    pub error: Option<ClusterError>,
    /// The names of instances that were not heard in time, as the adapter knows them; those that have gone meanwhile, and
    /// those of other makes, may have none.
    pub silent: Vec<String>,
}

impl<T> Acks<T> {
    /// Tells whether everyone who was asked has answered.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unfit == 0 && self.missing.is_empty() && self.missing_elsewhere == 0 && self.error.is_none()
    }
}

/// Why [`fetch_sockets`](Broadcast::fetch_sockets) has not heard every instance, and what it has heard.
///
/// Where a part will do, it is in [`sockets`](Self::sockets):
///
/// ```
/// # async fn example(root: socketio::Namespace) {
/// let sockets = root.fetch_sockets().await.unwrap_or_else(|partial| partial.sockets);
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FetchError {
    /// The sockets of this instance, and of those others that have answered.
    pub sockets: Vec<RemoteSocket>,
    /// The names of instances that have not answered in time, as the adapter knows them; those that have gone meanwhile,
    /// and those of other makes, may have none.
    pub silent: Vec<String>,
    /// What has failed.
    pub error: ClusterError,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not all sockets are known: {}", self.error)?;
        // Names are made by servers: only a server can publish in Redis.
        if self.silent.is_empty() { Ok(()) } else { write!(f, "; silent: {:?}", self.silent) }
    }
}

impl std::error::Error for FetchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<FetchError> for ClusterError {
    fn from(partial: FetchError) -> Self {
        partial.error
    }
}

/// A socket of any instance.
#[derive(Clone, Debug)]
pub struct RemoteSocket {
    namespace: Namespace,
    info: SocketInfo,
}

impl RemoteSocket {
    /// Returns the public id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.info.id
    }

    /// Returns the request that opened the session: see [`SocketInfo::handshake`].
    #[must_use]
    pub fn handshake(&self) -> &Value {
        &self.info.handshake
    }

    /// Returns the rooms that the socket had joined, without the one named by its id.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.info.rooms.iter().map(String::as_str).filter(|room| *room != self.info.id)
    }

    /// Parses what [`Socket::set_data`](super::Socket::set_data) had kept.
    ///
    /// # Errors
    /// Where it does not fit the type.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        placeholder::from_str(self.info.data.get(), &self.info.attachments)
    }

    /// Chooses this socket, wherever it is.
    pub fn to(&self) -> Broadcast {
        self.namespace.to(self.info.id.as_str())
    }

    /// Sends an event.
    ///
    /// # Errors
    /// Those of [`Broadcast::emit`].
    pub fn emit(&self, name: &str, arguments: impl Arguments) -> Result<(), UsageError> {
        self.to().emit(name, arguments)
    }

    /// Sends an event and waits for the client's ack, for as long as `timeout`.
    ///
    /// # Errors
    /// [`AckError`]; of a socket that has left, or is out of reach, only that its time is up.
    pub async fn emit_with_ack<T: FromArguments>(
        &self,
        name: &str,
        arguments: impl Arguments,
        timeout: Duration,
    ) -> Result<T, AckError> {
        let target = Target { rooms: vec![self.info.id.as_str().into()], ..Target::default() };
        // Others may have joined the room of its name; the first answer counts, and no instance is waited for then.
        let acks = gather_acks(&self.namespace, &target, name, arguments, timeout, Wanted::First).await;
        let mut acks: Acks<Data> = acks.map_err(|error| AckError::Emit(error.into()))?;
        let answer = acks.answers.drain(..).next().ok_or(AckError::Timeout)?;
        answer.args().map_err(AckError::Mismatch)
    }

    /// Puts the socket into a room.
    ///
    /// # Errors
    /// Those of [`Broadcast::sockets_join`].
    pub fn join(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        self.to().sockets_join(room)
    }

    /// Takes the socket out of a room.
    ///
    /// # Errors
    /// Those of [`Broadcast::sockets_leave`].
    pub fn leave(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        self.to().sockets_leave(room)
    }

    /// Disconnects the socket, with `close` its whole client.
    ///
    /// # Errors
    /// Those of [`Broadcast::disconnect_sockets`].
    pub fn disconnect(&self, close: bool) -> Result<(), ClusterError> {
        self.to().disconnect_sockets(close)
    }
}

/// Answers as they come, and what they tell of those that are to come.
#[derive(Default)]
struct Gathering {
    /// Other instances that were asked, once that is known.
    asked: Option<usize>,
    /// Instances that have said what there is to say of their own.
    heard: usize,
    /// The names of those that have one.
    names: HashSet<String>,
    /// Clients of other instances that were asked.
    clients: usize,
    answers: Vec<Data>,
    answered_elsewhere: usize,
    sockets: Vec<SocketInfo>,
    bytes: usize,
    error: Option<ClusterError>,
}

impl Gathering {
    fn take(&mut self, reply: Reply) {
        match reply {
            Reply::Instances(count) => self.asked = Some(count),
            Reply::Heard(instance) => drop(self.names.insert(instance)),
            Reply::Clients(count) => {
                self.heard += 1;
                self.clients = self.clients.saturating_add(count);
            }
            Reply::Answer(data) => {
                if self.keep(data) {
                    self.answered_elsewhere += 1;
                }
            }
            Reply::Sockets(sockets) => {
                self.heard += 1;
                self.sockets.extend(sockets);
            }
            Reply::Failed(error) => self.error = Some(error),
        }
    }

    fn keep(&mut self, answer: Data) -> bool {
        let bytes = answer.json().len() + answer.attachments().iter().map(bytes::Bytes::len).sum::<usize>();
        self.bytes = self.bytes.saturating_add(bytes + size_of::<Data>());
        let kept = self.bytes <= MAX_ANSWER_BYTES;
        if kept {
            self.answers.push(answer);
        }
        kept
    }

    /// Takes what comes until all is there: of the others when it is `complete`, of everyone when it is `enough`; or until
    /// the deadline.
    async fn run(
        &mut self,
        mut replies: Option<mpsc::UnboundedReceiver<Reply>>,
        mut local: Option<&mut LocalAcks>,
        timeout: Duration,
        complete: impl Fn(&Self) -> bool,
        enough: impl Fn(&Self) -> bool,
    ) {
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            if self.error.is_some() || complete(self) {
                replies = None;
            }
            if (replies.is_none() && local.is_none()) || enough(self) {
                return;
            }
            tokio::select! {
                // What has come counts, however late somebody looks.
                biased;
                reply = next_reply(&mut replies) => match reply {
                    Some(reply) => self.take(reply),
                    None => {
                        replies = None;
                        if self.asked.is_some_and(|asked| self.heard < asked) {
                            self.error = Some(self.too_few());
                        }
                    }
                },
                answer = next_ack(&mut local) => match answer {
                    Some(answer) => drop(self.keep(answer)),
                    None => local = None,
                },
                () = &mut deadline => {
                    if replies.is_some() && self.asked.is_none_or(|asked| self.heard < asked) {
                        self.error = Some(self.too_few());
                    }
                    return;
                }
            }
        }
    }

    fn too_few(&self) -> ClusterError {
        ClusterError::Timeout { answered: self.heard, asked: self.asked }
    }

    /// The names of the instances that were not heard in time.
    async fn silent(&self, namespace: &Namespace) -> Vec<String> {
        let (Some(ClusterError::Timeout { .. }), Some(adapter)) = (&self.error, namespace.shared().adapter()) else {
            return Vec::new();
        };
        let named = tokio::time::timeout(NAMES_WITHIN, adapter.instances()).await;
        let mut silent = named.unwrap_or_default();
        silent.retain(|name| !self.names.contains(name));
        silent.sort();
        silent
    }

    async fn into_acks<T: FromArguments>(
        self,
        namespace: &Namespace,
        missing: Vec<SocketId>,
        missing_elsewhere: usize,
    ) -> Acks<T> {
        let silent = self.silent(namespace).await;
        let all = self.answers.len();
        let answers: Vec<T> = self.answers.iter().filter_map(|answer| answer.args().ok()).collect();
        Acks { unfit: all - answers.len(), answers, missing, missing_elsewhere, error: self.error, silent }
    }
}

async fn next_reply(replies: &mut Option<mpsc::UnboundedReceiver<Reply>>) -> Option<Reply> {
    match replies {
        Some(replies) => replies.recv().await,
        None => pending().await,
    }
}

async fn next_ack(local: &mut Option<&mut LocalAcks>) -> Option<Data> {
    match local {
        Some(local) => local.next().await,
        None => pending().await,
    }
}

/// Asks the other instances, where there may be any.
fn ask(
    namespace: &Namespace,
    request: Request<'_>,
    timeout: Duration,
    local: bool,
) -> Option<mpsc::UnboundedReceiver<Reply>> {
    let adapter = namespace.shared().adapter().filter(|_| !local)?;
    let (replies, received) = Replies::new();
    adapter.request(request, timeout, replies);
    Some(received)
}

pub(super) async fn emit_with_ack<T: FromArguments>(
    namespace: &Namespace,
    target: &Target,
    name: &str,
    arguments: impl Arguments,
    timeout: Duration,
) -> Result<Acks<T>, UsageError> {
    gather_acks(namespace, target, name, arguments, timeout, Wanted::All).await
}

/// How many clients have to answer before the rest is not waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    First,
}

async fn gather_acks<T: FromArguments>(
    namespace: &Namespace,
    target: &Target,
    name: &str,
    arguments: impl Arguments,
    timeout: Duration,
    wanted: Wanted,
) -> Result<Acks<T>, UsageError> {
    let id = namespace.shared().next_ack();
    let packet = Outgoing::event(namespace.name(), Some(id), name, arguments)?;
    let replies = ask(namespace, Request::Emit(&packet, target), timeout, target.local);
    let mut local = namespace.shared().ask(&packet, id, target, timeout);
    drop(packet);
    let mut gathering = Gathering::default();
    let complete =
        |all: &Gathering| all.asked.is_some_and(|asked| all.heard >= asked) && all.answered_elsewhere >= all.clients;
    let enough = |all: &Gathering| wanted == Wanted::First && !all.answers.is_empty();
    gathering.run(replies, Some(&mut local), timeout, complete, enough).await;
    let missing_elsewhere = gathering.clients.saturating_sub(gathering.answered_elsewhere);
    Ok(gathering.into_acks(namespace, local.missing.into_iter().collect(), missing_elsewhere).await)
}

pub(super) async fn fetch_sockets(namespace: &Namespace, target: &Target) -> Result<Vec<RemoteSocket>, FetchError> {
    let timeout = request_timeout(namespace);
    let replies = ask(namespace, Request::FetchSockets(target), timeout, target.local);
    let mut gathering = Gathering {
        sockets: namespace.shared().memory().sockets(target).iter().map(SocketInfo::of).collect(),
        ..Gathering::default()
    };
    let complete = |all: &Gathering| all.asked.is_some_and(|asked| all.heard >= asked);
    gathering.run(replies, None, timeout, complete, |_| false).await;
    let silent = gathering.silent(namespace).await;
    let sockets = gathering.sockets.into_iter();
    let sockets = sockets.map(|info| RemoteSocket { namespace: namespace.clone(), info }).collect();
    match gathering.error {
        Some(error) => Err(FetchError { sockets, silent, error }),
        None => Ok(sockets),
    }
}

pub(super) async fn server_side_emit_with_ack<T: FromArguments>(
    namespace: &Namespace,
    name: &str,
    arguments: impl Arguments,
) -> Result<Acks<T>, UsageError> {
    let event = Event::encode(name, arguments)?;
    let timeout = request_timeout(namespace);
    let replies = ask(namespace, Request::ServerSideEmit(&event), timeout, false);
    let mut gathering = Gathering::default();
    let complete = |all: &Gathering| all.asked.is_some_and(|asked| all.answered_elsewhere >= asked);
    gathering.run(replies, None, timeout, complete, |_| false).await;
    let missing = gathering.asked.unwrap_or(0).saturating_sub(gathering.answered_elsewhere);
    if let Some(ClusterError::Timeout { answered, .. }) = &mut gathering.error {
        *answered = gathering.answered_elsewhere;
    }
    Ok(gathering.into_acks(namespace, Vec::new(), missing).await)
}

fn request_timeout(namespace: &Namespace) -> Duration {
    namespace.shared().adapter().map_or(Duration::ZERO, |adapter| adapter.request_timeout())
}
