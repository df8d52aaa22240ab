//! One client: the protocol machine of its namespaces, its sockets, and the handlers that run for them.
//!
//! All of it lives in the session's task. Events wait in a queue per socket; at each turn the task runs what it can.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use engineio::server::{Handler, Link};
use engineio::{CloseReason as EngineReason, Frame, Message};
use tokio::time::{Sleep, sleep_until};

use super::Hub;
use super::namespace::{BoxFuture, Mismatch, Namespace};
use super::outgoing::Outgoing;
use super::recovery::{Claim, Claiming, Restored, claim};
use super::socket::{Ack, Answer, Asker, Deadline, DisconnectReason, Handshake, Refusal, Socket, SocketId};
use crate::{Action, Connection, DataError, Event, Input, Slot};

/// What sockets send to the task of their client.
pub(super) enum Mail {
    Send {
        slot: Slot,
        packet: Outgoing,
        volatile: bool,
    },
    /// In a box, since every mail is as large as the largest.
    Ask(Box<Ask>),
    Disconnect {
        slot: Slot,
        close: bool,
    },
    /// The client has opened another connection, and has its session there.
    Superseded,
    /// The server is closing; the layer below closes the session, unless `close` asks for it here.
    ShutDown {
        close: bool,
    },
    /// What the middleware says, behind everything it has sent itself.
    Decided {
        slot: Slot,
        decision: Result<(), Refusal>,
    },
}

/// A packet that asks for an ack.
pub(super) struct Ask {
    pub(super) slot: Slot,
    pub(super) packet: Outgoing,
    pub(super) id: u64,
    pub(super) deadline: Deadline,
    pub(super) asker: Asker,
}

pub(super) struct Client {
    hub: Arc<Hub>,
    link: engineio::server::Socket<Mail>,
    handshake: Arc<Handshake>,
    connection: Connection,
    // A handful at most in practice: a scan beats a map.
    members: Vec<Member>,
    /// Those that other instances have to be asked about first.
    returning: Vec<Returning>,
    /// Acks that are awaited, by slot and id.
    asked: HashMap<(Slot, u64), Asker>,
    waiting: Waiting,
    /// Wakes the task when a grace ends, once the session is over; boxed since few need it.
    grace_over: Option<Pin<Box<Sleep>>>,
    /// The connection is being closed by us: what the client still says is not heard.
    closing: bool,
}

/// A client on its way into a namespace, whose session may be another instance's.
struct Returning {
    slot: Slot,
    namespace: Namespace,
    auth: Option<ByteString>,
    claim: BoxFuture<Option<Box<Claim>>>,
}

/// Events that wait for their handlers.
#[derive(Clone, Copy, Default)]
struct Waiting {
    events: usize,
    /// With what each occupies beside its text.
    bytes: usize,
}

impl Waiting {
    fn add(&mut self, job: &Job) {
        if job.is_event() {
            self.events += 1;
            self.bytes += job.cost();
        }
    }

    fn remove(&mut self, job: &Job) {
        if job.is_event() {
            self.events -= 1;
            self.bytes -= job.cost();
        }
    }
}

/// A socket and what it still has to do.
struct Member {
    /// That of the socket, nearer at hand.
    slot: Slot,
    socket: Socket,
    stage: Stage,
    running: Option<Running>,
    jobs: VecDeque<Job>,
    /// The session it is to take over, in a box since few have one.
    claim: Option<Box<Claim>>,
    /// When what still runs for a socket that has left is dropped.
    grace: Option<Instant>,
    /// The grace is that of the disconnect handler.
    last_grace: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The middleware has not decided yet.
    Joining,
    Connected,
    /// The protocol is done with it; its last jobs are not.
    Left,
}

enum Running {
    Middleware(BoxFuture<Result<(), Refusal>>, usize),
    /// A handler that waits for something, and what it handles.
    Handler(BoxFuture<()>, Handled),
}

/// What a handler handles, for the log.
enum Handled {
    Connect,
    Event(Box<str>),
    Disconnect,
}

impl std::fmt::Display for Handled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("the connect handler"),
            Self::Event(name) => write!(f, "the event {name:?}"),
            Self::Disconnect => f.write_str("the disconnect handler"),
        }
    }
}

enum Job {
    Connect,
    Event(Event, Option<u64>),
    Mismatch(String, DataError, Option<u64>),
    Disconnect(DisconnectReason),
}

impl Job {
    /// Returns `true` for the client's events, which are counted and may be forgotten.
    fn is_event(&self) -> bool {
        matches!(self, Self::Event(..) | Self::Mismatch(..))
    }

    /// Returns what it counts while it waits.
    fn cost(&self) -> usize {
        match self {
            Self::Event(event, _) => event.data().kept_bytes() + EVENT_BYTES * (1 + event.data().attachments().len()),
            Self::Mismatch(name, ..) => name.len() + EVENT_BYTES,
            Self::Connect | Self::Disconnect(_) => 0,
        }
    }

    /// Returns what it handles, for the log.
    fn handled(&self) -> Handled {
        match self {
            Self::Connect => Handled::Connect,
            Self::Event(event, _) => Handled::Event(event.name().into()),
            Self::Mismatch(name, ..) => Handled::Event(name.as_str().into()),
            Self::Disconnect(_) => Handled::Disconnect,
        }
    }
}

/// What an event, or one of its attachments, occupies beside its bytes while it waits.
const EVENT_BYTES: usize = 256;

/// What came of one turn of a member.
enum Turn {
    Idle,
    Decided(Result<(), Refusal>),
    Malformed,
    Panicked,
    Finished,
}

impl Client {
    pub(super) fn new(hub: Arc<Hub>, link: engineio::server::Socket<Mail>, handshake: Handshake) -> Self {
        let connection = Connection::new(hub.connection, tokio::time::Instant::now().into_std());
        Self {
            hub,
            link,
            handshake: Arc::new(handshake),
            connection,
            members: Vec::new(),
            returning: Vec::new(),
            asked: HashMap::new(),
            waiting: Waiting::default(),
            grace_over: None,
            closing: false,
        }
    }

    fn member(&mut self, slot: Slot) -> Option<&mut Member> {
        find(&mut self.members, slot)
    }

    fn handle(&mut self, input: Input, link: &mut Link<'_>) {
        self.connection.handle(input, link.now());
        while let Some(action) = self.connection.poll_action() {
            match action {
                Action::Event { slot, event, ack } => self.arrived(slot, event, ack, link),
                Action::Write(text) => link.send_counted(Frame::message(&Message::Text(text))),
                Action::Ack { slot, id, data } => self.answer(slot, id, Answer::Data(data)),
                Action::AckExpired { slot, id } => self.answer(slot, id, Answer::Expired),
                Action::Connect { slot, namespace, auth } => self.connect(slot, &namespace, auth, link),
                Action::Disconnected { slot } => self.leave(slot, DisconnectReason::ClientNamespaceDisconnect),
                Action::Close(reason) => self.close(DisconnectReason::of_core(reason), link),
            }
        }
    }

    /// Runs the handler of an urgent event, and queues any other.
    fn arrived(&mut self, slot: Slot, event: Event, ack: Option<u64>, link: &mut Link<'_>) {
        let Some(member) = find(&mut self.members, slot) else { return };
        let socket = &member.socket;
        let Some(urgent) = socket.namespace().shared().handlers.urgent.get(event.name()) else {
            let job = Job::Event(event, ack);
            self.waiting.add(&job);
            member.jobs.push_back(job);
            return;
        };
        let ack = ack.map(|id| Ack { socket: socket.clone(), id });
        match guarded(|| urgent(socket, event.data(), ack)) {
            Some(Ok(())) => {}
            // The events that wait came before this one, so they are not forgotten.
            Some(Err(Mismatch { error: DataError::Malformed, .. })) => {
                self.connection.handle(Input::Malformed, link.now());
            }
            // What does not fit is reported in its turn.
            Some(Err(Mismatch { error, ack })) => {
                let job = Job::Mismatch(event.name().to_owned(), error, ack.map(|ack| ack.id));
                self.waiting.add(&job);
                member.jobs.push_back(job);
            }
            None => self.close(DisconnectReason::ForcedServerClose, link),
        }
    }

    /// Sends the answer to whoever waits for it, if that is still somebody.
    fn answer(&mut self, slot: Slot, id: u64, answer: Answer) {
        if let Some(asked) = self.asked.remove(&(slot, id)) {
            asked.answer(answer);
        }
    }

    fn connect(&mut self, slot: Slot, name: &ByteString, auth: Option<ByteString>, link: &mut Link<'_>) {
        let Some(namespace) = self.hub.namespaces.get(&**name).cloned() else {
            return self.refuse(slot, link);
        };
        match claim(&namespace, auth.as_deref()) {
            Claiming::Known(claim) => self.join(slot, namespace, auth, claim, link),
            Claiming::Asking(claim) => self.returning.push(Returning { slot, namespace, auth, claim }),
        }
    }

    fn refuse(&mut self, slot: Slot, link: &mut Link<'_>) {
        let message = "Invalid namespace".to_owned();
        self.connection.handle(Input::Refuse { slot, message, data: None }, link.now());
    }

    /// Makes a client's socket, which takes over the session it has claimed, if any.
    fn join(
        &mut self,
        slot: Slot,
        namespace: Namespace,
        auth: Option<ByteString>,
        claim: Option<Box<Claim>>,
        link: &mut Link<'_>,
    ) {
        let skips = namespace.shared().recovery().is_some_and(|recovery| claim.is_some() && recovery.skip_middlewares);
        let id = claim.as_ref().map_or_else(SocketId::random, |claim| Some(claim.id().clone()));
        let Some(id) = id else { return self.refuse(slot, link) };
        let socket = Socket::new(id, slot, namespace, self.link.clone(), Arc::clone(&self.handshake), auth);
        if self.members.is_empty() {
            self.members.reserve_exact(1); // most clients are in one namespace
        }
        self.members.push(Member {
            slot,
            socket,
            stage: Stage::Joining,
            running: None,
            jobs: VecDeque::new(),
            claim,
            grace: None,
            last_grace: false,
        });
        if skips && self.restore(slot, link) {
            return;
        }
        let checked = self.member(slot).is_some_and(|member| member.next_middleware(0));
        // Without middleware the answer needs no turn of its own.
        if !checked {
            self.accept(slot, link);
        }
    }

    /// Lets a socket take over the session it has claimed, with all that its client missed: ahead of the CONNECT packet,
    /// as the client expects. False where that is not to be had; then the socket begins anew.
    fn restore(&mut self, slot: Slot, link: &mut Link<'_>) -> bool {
        let Some(member) = self.member(slot) else { return false };
        let Some(claim) = member.claim.take() else { return false };
        let socket = member.socket.clone();
        let Some(recovery) = socket.namespace().shared().recovery() else { return false };
        match recovery.restore(&socket, *claim, |packet| send(packet, link)) {
            Restored::Done => self.connected(slot, link),
            Restored::TooLate => return false,
            Restored::Superseded => self.close(DisconnectReason::ConnectionLost, link),
        }
        true
    }

    /// The middleware said yes.
    fn accept(&mut self, slot: Slot, link: &mut Link<'_>) {
        let Some(member) = self.member(slot) else { return };
        let socket = member.socket.clone();
        if let Some(recovery) = socket.namespace().shared().recovery() {
            if !self.restore(slot, link) {
                // What it is sent from here on waits in the mailbox, behind the CONNECT packet.
                recovery.enter(&socket);
                self.connected(slot, link);
            }
        } else {
            self.connected(slot, link);
            // After the CONNECT packet, so that no broadcast comes before it.
            socket.enter();
        }
    }

    /// Tells the client that it is connected, and has its handler run.
    fn connected(&mut self, slot: Slot, link: &mut Link<'_>) {
        let Some(member) = self.member(slot) else { return };
        member.stage = Stage::Connected;
        member.jobs.push_back(Job::Connect);
        let (sid, pid) = (member.socket.id().as_str().into(), member.socket.pid());
        self.handle(Input::Accept { slot, sid, pid }, link);
    }

    /// Takes a socket out of its namespace and its rooms. What its client sent before is still handled.
    fn leave(&mut self, slot: Slot, reason: DisconnectReason) {
        let grace = tokio::time::Instant::now().into_std().checked_add(self.hub.handler_grace);
        let Some(member) = self.member(slot) else { return };
        if member.stage == Stage::Joining {
            // It never was connected, so no handler has to learn of its end.
            member.running = None;
            if let (Some(claim), Some(recovery)) = (member.claim.take(), member.socket.namespace().shared().recovery())
                && reason.is_recoverable()
            {
                recovery.give_back(*claim);
            }
        } else {
            member.socket.hang_up(reason);
            if let Some(disconnecting) = &member.socket.namespace().shared().handlers.disconnecting {
                // The socket leaves its rooms whatever happens here; a panic has nothing left to close.
                let _panicked = guarded(|| disconnecting(&member.socket, reason));
            }
            member.jobs.push_back(Job::Disconnect(reason));
            member.grace = grace;
        }
        member.socket.exit();
        member.stage = Stage::Left;
        self.asked.retain(|(asked, _), _| *asked != slot);
    }

    /// When the handlers of a socket that has left are dropped next.
    fn grace(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.grace).min()
    }

    /// Drops what still runs, after its time, for sockets that have left.
    fn end_grace(&mut self, now: Instant) {
        let next = now.checked_add(self.hub.handler_grace);
        for member in self.members.iter_mut().filter(|member| member.grace.is_some_and(|grace| now >= grace)) {
            let extended = std::mem::replace(&mut member.last_grace, true);
            if matches!(member.running, Some(Running::Handler(_, Handled::Disconnect))) && !extended {
                // It may have begun just now.
                member.grace = next;
                continue;
            }
            if let Some(Running::Handler(handler, handled)) = member.running.take() {
                let dropped = guarded(|| drop(handler)).is_some();
                tracing::warn!(%handled, dropped, "a handler was dropped: it ran on for too long after its socket's end");
            }
            let waiting = &mut self.waiting;
            member.jobs.retain(|job| {
                waiting.remove(job);
                !job.is_event()
            });
            // The disconnect handler, if it has yet to run, gets as long.
            member.grace = if member.jobs.is_empty() { None } else { next };
        }
    }

    fn leave_all(&mut self, reason: DisconnectReason) {
        // What a session has been claimed for can be claimed again.
        self.returning = Vec::new();
        let slots: Vec<Slot> = self.members.iter().map(|member| member.slot).collect();
        for slot in slots {
            self.leave(slot, reason);
        }
    }

    /// Closes the whole connection, for a reason of ours. Its sockets leave now, not when a client that has stopped
    /// polling is given up.
    fn close(&mut self, reason: DisconnectReason, link: &mut Link<'_>) {
        self.closing = true;
        self.leave_all(reason);
        link.close();
    }

    /// Disconnects a socket with a DISCONNECT packet.
    fn disconnect(&mut self, slot: Slot, link: &mut Link<'_>) {
        if self.member(slot).is_some() {
            self.leave(slot, DisconnectReason::ServerNamespaceDisconnect);
            self.handle(Input::Disconnect { slot }, link);
        }
    }

    /// Forgets the events that wait, behind one that ended the connection.
    fn forget_events(&mut self) {
        for member in &mut self.members {
            member.jobs.retain(|job| !job.is_event());
        }
        self.waiting = Waiting::default();
    }

    /// Lets those in about whom other instances have answered.
    fn welcome(&mut self, cx: &mut Context<'_>, link: &mut Link<'_>) {
        let mut index = 0;
        while let Some(returning) = self.returning.get_mut(index) {
            // The adapter may be the application's.
            match guarded(|| returning.claim.as_mut().poll(cx)) {
                Some(Poll::Pending) => index += 1,
                answered => {
                    let Returning { slot, namespace, auth, .. } = self.returning.swap_remove(index);
                    let claim = match answered {
                        Some(Poll::Ready(claim)) => claim,
                        Some(Poll::Pending) | None => None,
                    };
                    self.join(slot, namespace, auth, claim, link);
                }
            }
        }
        if self.returning.is_empty() {
            self.returning = Vec::new();
        }
    }

    /// Runs what can be run without waiting. Without a link the session is over.
    fn run(&mut self, cx: &mut Context<'_>, mut link: Option<&mut Link<'_>>) {
        if let Some(link) = link.as_deref_mut() {
            self.welcome(cx, link);
        }
        let mut index = 0;
        while let Some(member) = self.members.get_mut(index) {
            let slot = member.slot;
            let may_start = || link.as_deref_mut().is_none_or(|link| !link.is_congested());
            match member.turn(cx, &mut self.waiting, may_start) {
                Turn::Idle => index += 1,
                Turn::Finished => {
                    drop(self.members.swap_remove(index));
                }
                Turn::Decided(decision) => {
                    // An error means that the session is over, and the client with it.
                    let _over = self.link.order(Mail::Decided { slot, decision });
                }
                Turn::Malformed => {
                    self.forget_events();
                    if let Some(link) = &mut link {
                        self.handle(Input::Malformed, link);
                    }
                }
                Turn::Panicked => {
                    self.forget_events();
                    if let Some(link) = &mut link {
                        self.close(DisconnectReason::ForcedServerClose, link);
                    }
                }
            }
        }
    }
}

impl Member {
    /// Starts the middleware with this number; false where there is none left.
    fn next_middleware(&mut self, number: usize) -> bool {
        let namespace = self.socket.namespace().clone();
        let Some(middleware) = namespace.shared().handlers.middleware.get(number) else {
            return false;
        };
        let check = guarded(|| middleware(self.socket.clone()));
        let check = check.unwrap_or_else(|| Box::pin(std::future::ready(Err(internal_error()))));
        self.running = Some(Running::Middleware(check, number));
        true
    }

    /// Goes on with what is running, then with the next jobs, until something waits. Events are started only while
    /// `may_start` answers `true`.
    fn turn(&mut self, cx: &mut Context<'_>, waiting: &mut Waiting, mut may_start: impl FnMut() -> bool) -> Turn {
        loop {
            match &mut self.running {
                Some(Running::Middleware(future, number)) => {
                    let number = *number;
                    let polled = guarded(|| future.as_mut().poll(cx));
                    match polled.unwrap_or_else(|| Poll::Ready(Err(internal_error()))) {
                        Poll::Pending => return Turn::Idle,
                        Poll::Ready(Ok(())) if self.next_middleware(number + 1) => {}
                        Poll::Ready(decision) => {
                            self.running = None;
                            return Turn::Decided(decision);
                        }
                    }
                }
                Some(Running::Handler(future, _)) => {
                    let Some(polled) = guarded(|| future.as_mut().poll(cx)) else {
                        self.running = None;
                        return Turn::Panicked;
                    };
                    match polled {
                        Poll::Pending => return Turn::Idle,
                        Poll::Ready(()) => self.running = None,
                    }
                }
                None => {
                    let Some(job) = self.jobs.front() else {
                        return if self.stage == Stage::Left { Turn::Finished } else { Turn::Idle };
                    };
                    // What an event of a client that has left may send goes nowhere.
                    if job.is_event() && self.stage != Stage::Left && !may_start() {
                        return Turn::Idle;
                    }
                    let Some(job) = self.jobs.pop_front() else { continue };
                    // Gives the memory of a burst back, and that of a socket which may never send anything.
                    if self.jobs.is_empty() && (self.jobs.capacity() > KEPT_JOBS || matches!(job, Job::Connect)) {
                        self.jobs = VecDeque::new();
                    }
                    waiting.remove(&job);
                    match guarded(|| self.start(&job)) {
                        Some(Ok(None)) => {}
                        Some(Ok(Some(mut future))) => match guarded(|| future.as_mut().poll(cx)) {
                            Some(Poll::Ready(())) => {}
                            Some(Poll::Pending) => {
                                self.running = Some(Running::Handler(future, job.handled()));
                                return Turn::Idle;
                            }
                            None => return Turn::Panicked,
                        },
                        Some(Err(Malformed)) => return Turn::Malformed,
                        None => return Turn::Panicked,
                    }
                }
            }
        }
    }

    /// Starts a job; what it does without waiting is done at the first poll.
    fn start(&self, job: &Job) -> Result<Option<BoxFuture<()>>, Malformed> {
        let handlers = &self.socket.namespace().shared().handlers;
        let socket = || self.socket.clone();
        let ack = |id: &Option<u64>| id.map(|id| Ack { socket: socket(), id });
        Ok(match job {
            Job::Connect => handlers.connect.as_ref().map(|connect| connect(socket())),
            Job::Event(event, id) => {
                let Some(handler) = handlers.events.get(event.name()) else {
                    event.data().validate().map_err(|_| Malformed)?;
                    return Ok(handlers.fallback.as_ref().map(|fallback| fallback(socket(), event.clone(), ack(id))));
                };
                match handler(socket(), event.data(), ack(id)) {
                    Ok(future) => Some(future),
                    Err(Mismatch { error: DataError::Malformed, .. }) => return Err(Malformed),
                    Err(Mismatch { error, ack }) => self.mismatch(event.name().to_owned(), error, ack),
                }
            }
            Job::Mismatch(event, error, id) => self.mismatch(event.clone(), error.clone(), ack(id)),
            Job::Disconnect(reason) => handlers.disconnect.as_ref().map(|disconnect| disconnect(socket(), *reason)),
        })
    }

    fn mismatch(&self, event: String, error: DataError, ack: Option<Ack>) -> Option<BoxFuture<()>> {
        let Some(handler) = &self.socket.namespace().shared().handlers.mismatch else {
            tracing::debug!(%error, "an event was dropped: its arguments do not fit its handler");
            return None;
        };
        Some(handler(self.socket.clone(), event, error, ack))
    }
}

impl Drop for Client {
    // Matters where the session's task ends early, as with its runtime: a namespace and its sockets hold each other.
    fn drop(&mut self) {
        for member in &self.members {
            member.socket.exit();
        }
    }
}

fn send(packet: Outgoing, link: &mut Link<'_>) {
    let (text, attachments) = packet.into_frames();
    link.send_counted(text);
    for frame in attachments.iter().flat_map(|frames| frames.iter()) {
        link.send_counted(frame.clone());
    }
}

/// The member that has this slot and has not left.
fn find(members: &mut [Member], slot: Slot) -> Option<&mut Member> {
    members.iter_mut().find(|member| member.slot == slot && member.stage != Stage::Left)
}

/// The arguments of an event were no JSON.
struct Malformed;

/// Slots for jobs that an idle socket may keep.
const KEPT_JOBS: usize = 16;

/// What a client reads whose middleware panicked.
fn internal_error() -> Refusal {
    Refusal::new("Internal error")
}

/// Runs code of the application. A panic there costs one client its connection, not the others theirs.
pub(super) fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    // The panic hook has logged the panic itself by now.
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| tracing::error!("a handler panicked")).ok()
}

impl Handler for Client {
    type Mail = Mail;

    fn on_message(&mut self, message: Message, link: &mut Link<'_>) {
        // Behind what ended the connection, from the same batch or the shell's reserve.
        if self.closing {
            return;
        }
        let input = match message {
            Message::Text(text) => Input::Text(text),
            Message::Binary(bytes) => Input::Binary(bytes),
        };
        self.handle(input, link);
    }

    fn on_mail(&mut self, mail: Mail, link: &mut Link<'_>) {
        match mail {
            Mail::Send { slot, packet, volatile } => {
                if self.member(slot).is_some() {
                    // All frames of a packet go, or none.
                    if !volatile || link.is_writable() {
                        send(packet, link);
                    }
                }
            }
            Mail::Ask(ask) => {
                let Ask { slot, packet, id, deadline, asker } = *ask;
                if self.member(slot).is_some() {
                    self.asked.insert((slot, id), asker);
                    self.handle(Input::ExpectAck { slot, id, deadline }, link);
                    send(packet, link);
                }
            }
            Mail::Disconnect { slot, close } => {
                self.disconnect(slot, link);
                if close {
                    // The client's other namespaces hear of it too, as in the reference.
                    let slots: Vec<Slot> = self.members.iter().map(|member| member.slot).collect();
                    for slot in slots {
                        self.disconnect(slot, link);
                    }
                    self.close(DisconnectReason::ServerNamespaceDisconnect, link);
                }
            }
            Mail::Superseded => self.close(DisconnectReason::ConnectionLost, link),
            Mail::ShutDown { close: true } => self.close(DisconnectReason::ServerShuttingDown, link),
            Mail::ShutDown { close: false } => {
                self.closing = true;
                self.leave_all(DisconnectReason::ServerShuttingDown);
            }
            Mail::Decided { decision: Ok(()), .. } if self.hub.is_closing() => {} // it leaves with the session
            Mail::Decided { slot, decision: Ok(()) } => self.accept(slot, link),
            Mail::Decided { slot, decision: Err(Refusal { message, data }) } => {
                // The reason is for nobody: a socket that never was connected leaves without a handler.
                self.leave(slot, DisconnectReason::ServerNamespaceDisconnect);
                self.handle(Input::Refuse { slot, message, data }, link);
            }
        }
    }

    fn frame_of(mail: &Mail) -> Option<&Frame> {
        match mail {
            Mail::Send { packet, .. } => packet.single_frame(),
            Mail::Ask(_)
            | Mail::Disconnect { .. }
            | Mail::Superseded
            | Mail::ShutDown { .. }
            | Mail::Decided { .. } => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, link: &mut Link<'_>) {
        self.run(cx, Some(link));
    }

    fn is_ready(&self) -> bool {
        let limits = &self.hub.waiting;
        // Sockets that have left and still have something to do count too: a client can leave and come back forever.
        let leaving = self.members.len().saturating_sub(self.hub.connection.max_namespaces);
        if self.asked.is_empty() {
            self.waiting.events.saturating_add(leaving) < limits.events && self.waiting.bytes < limits.bytes
        } else {
            // The ack may come behind events, and the handler that awaits it be the one that keeps them waiting.
            leaving < limits.events && self.waiting.bytes < limits.bytes_before_ack
        }
    }

    fn unhandled_bytes(&self) -> usize {
        self.waiting.bytes
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.connection.poll_timeout().into_iter().chain(self.grace()).min()
    }

    fn on_timeout(&mut self, link: &mut Link<'_>) {
        self.end_grace(link.now());
        self.handle(Input::Timeout, link);
    }

    fn on_round_trip(&mut self, time: Duration) {
        for Member { socket, .. } in self.members.iter().filter(|member| member.stage == Stage::Connected) {
            let shared = socket.namespace().shared();
            if let Some(recovery) = shared.recovery() {
                recovery.confirm(socket);
            }
            if let Some(round_trip) = &shared.handlers.round_trip {
                // A panic costs nothing but this measurement.
                let _panicked = guarded(|| round_trip(socket, time));
            }
        }
    }

    fn on_close(&mut self, reason: EngineReason) {
        // Sockets that had to leave before keep the reason of then.
        self.leave_all(DisconnectReason::of_engine(reason, self.hub.is_closing()));
    }

    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.run(cx, None);
            if self.members.is_empty() {
                return Poll::Ready(());
            }
            let Some(grace) = self.grace() else { return Poll::Pending };
            let due = self.grace_over.get_or_insert_with(|| Box::pin(sleep_until(grace.into())));
            if due.deadline() != grace.into() {
                due.as_mut().reset(grace.into());
            }
            ready!(due.as_mut().poll(cx));
            self.end_grace(grace);
        }
    }
}
