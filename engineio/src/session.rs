//! The session: what a client's requests, frames and silences mean, without a socket, a clock or a task.
//!
//! ```text
//!                 +--------------------- Upgrade (a candidate beside the polls) ---+
//!                 |                                                                v
//! Open(Polling) --+--> Polling --.                              Open(WebSocket) -> WebSocket
//!                                |  close with no poll waiting                     |
//!                                +--> Closing --- next poll, or timeout, --.       |
//!                                |                or end of an upgrade     |       |
//!                                |                                         v       v
//!                                +---- any end ------------------------> Closed <--+
//! ```

mod heartbeat;
mod outbox;
mod upgrade;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

pub use self::outbox::{FRAME_OVERHEAD_BYTES, Outbox};

use self::heartbeat::{Beat, Excuse, Heartbeat};
use self::upgrade::{Step, Upgrade};
use crate::config::Config;
use crate::error::{CloseReason, DecodeError, RequestError, Violation};
use crate::frame::Frame;
use crate::handshake::{Sid, Transport, open_packet};
use crate::packet::{Message, Packet};
use crate::payload;

/// A fact for the session, from its sockets, its application or its alarm.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A GET for packets arrived. The shell keeps its reply slot; the session answers with one of
    /// [`Action::AnswerPoll`], [`Action::RefusePoll`].
    PollArrived,
    /// The client gave up the GET that is waiting.
    PollAborted,
    /// A POST's header arrived; its body is being read.
    PostArrived,
    /// The body of the POST is complete. The session answers with one of [`Action::AcceptPost`],
    /// [`Action::RefusePost`].
    PostReceived(ByteString),
    /// The body of the POST will not come, or is larger than allowed and was answered with 413 by the shell.
    PostDropped(PostDrop),
    /// A WebSocket wants to become the transport.
    CandidateArrived,
    /// A frame came on that WebSocket.
    CandidateFrame(WsFrame),
    /// That WebSocket is gone.
    CandidateLost,
    /// A frame came on the WebSocket that is the transport.
    Frame(WsFrame),
    /// The WebSocket that is the transport ended: with a close frame, or without.
    WebSocketEnded {
        /// Whether a close frame came.
        close_frame: bool,
    },
    /// The WebSocket that is the transport broke the rules of WebSocket, or could not be written to.
    WebSocketFailed,
    /// The application sends a message, for which there [is room](Session::has_room_for).
    Send(Frame),
    /// The application sends a message that may be dropped if it cannot leave at once.
    SendVolatile(Frame),
    /// Something of the [outbox](Session::outbox) was written.
    Written,
    /// More of a POST's body is wanted, after [`Session::has_unread`].
    ReadOn,
    /// Nothing more is read from the client, since the application is behind.
    ReadingPaused,
    /// Reading goes on.
    ReadingResumed,
    /// The session ends at once, and what waits is dropped: its client is too far behind.
    Overflowed,
    /// The application closes the session. What it sent before is still delivered.
    Close,
    /// The whole server closes. As [`Close`](Self::Close), but a client that has stopped polling is not waited for.
    ShutDown,
    /// [`Session::poll_timeout`] has passed.
    Timeout,
}

/// Why a POST ended without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostDrop {
    /// It was larger than allowed. The session lives on.
    TooLarge,
    /// The client went away in the middle, or took too long.
    Aborted,
    /// It announced a binary body.
    Binary,
}

/// A WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsFrame {
    /// A text message: one packet.
    Text(ByteString),
    /// A binary message: the data of a binary message packet.
    Binary(bytes::Bytes),
}

/// An order for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Hand a message to the application.
    Deliver(Message),
    /// Answer the waiting GET with this payload.
    AnswerPoll(String),
    /// Refuse the GET that arrived last.
    RefusePoll(Refusal),
    /// Answer the POST whose body was handed in last: `ok`.
    AcceptPost,
    /// Refuse the POST that arrived last.
    RefusePost(Refusal),
    /// Break off the POST that is being read: reset its connection.
    AbortPost,
    /// Drop the WebSocket that wanted the session; close it with an empty close frame.
    DropCandidate,
    /// Write a frame to the WebSocket that wants the session.
    WriteCandidate(Frame),
    /// Make that WebSocket the transport.
    SwitchTransport,
    /// Tell the application how long a heartbeat took.
    RoundTrip(Duration),
    /// The session is over: flush [`Session::outbox`] to a WebSocket within bounds, close the sockets, forget the
    /// session. Nothing follows: requests that arrive later name a session that is unknown.
    Closed(CloseReason),
}

/// How a request of a session is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Status 400, no body.
    Empty,
    /// Status 413, no body: too many packets in one payload.
    TooLarge,
    /// The status and body of a [`RequestError`].
    Request(RequestError),
}

/// One Engine.IO session: [`handle`](Self::handle) facts, [`poll_action`](Self::poll_action) until there is none,
/// sleep until [`poll_timeout`](Self::poll_timeout).
///
/// It never fails on what a peer does: misbehaviour becomes an action. Several inputs without polling between them are
/// legal; messages sent together leave together. Early or repeated timeouts do nothing.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    transport: State,
    upgrade: Upgrade,
    heartbeat: Heartbeat,
    outbox: Outbox,
    /// What is left of the bodies of POSTs, in a box since most sessions never have one.
    #[expect(clippy::box_collection, reason = "an empty queue is three times as large")]
    unread: Option<Box<VecDeque<Unread>>>,
    /// [`Config::high_water_bytes`], which each message is held against.
    high_water: usize,
    /// More waits than that, or a quarter of it since then; nothing is read from the client.
    congested: bool,
    /// The application is behind; nothing is read from the client.
    paused: bool,
    /// Since when more waits than [`Config::max_buffered_bytes`].
    laden: Option<Instant>,
    /// Something waited for the client when it was pinged, or when it last missed a pong.
    behind: bool,
    /// How many bytes the client has taken, and when it last took some; while polling, when a poll was last answered.
    taken: u64,
    took: Instant,
    /// The time of the last input.
    now: Instant,
    actions: VecDeque<Action>,
}

/// What is left of the body of a POST.
#[derive(Debug)]
struct Unread {
    packets: payload::Decode,
    /// The POST has been accepted already, for the sake of an upgrade.
    accepted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Polling {
        poll_waits: bool,
        post_reads: bool,
    },
    /// The application closed the session; the next poll fetches what is left.
    Closing {
        post_reads: bool,
        deadline: Instant,
        /// What the deadline is put off to at most, by polls for what is left.
        until: Instant,
    },
    WebSocket {
        /// A POST that began before the upgrade is still being read.
        post_reads: bool,
    },
    /// Over; what was the transport last.
    Closed(Transport),
}

impl Session {
    /// Opens a session: its `open` packet is the first to leave.
    ///
    /// On polling, the handshake request counts as the first poll: it is answered with [`Action::AnswerPoll`].
    pub fn open(sid: &Sid, transport: Transport, config: Arc<Config>, now: Instant) -> Self {
        let mut outbox = Outbox::default();
        outbox.push(Frame::packet(&open_packet(sid, transport, &config)));
        Self {
            transport: match transport {
                Transport::Polling => State::Polling { poll_waits: true, post_reads: false },
                Transport::WebSocket => State::WebSocket { post_reads: false },
            },
            upgrade: Upgrade::None,
            heartbeat: Heartbeat::new(config.ping_interval, config.ping_timeout, now),
            outbox,
            unread: None,
            high_water: config.high_water_bytes(),
            congested: false,
            paused: false,
            laden: None,
            behind: false,
            taken: 0,
            took: now,
            now,
            actions: VecDeque::new(),
            config,
        }
    }

    /// Takes in a fact.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        match input {
            Input::Frame(frame) => self.on_frame(frame, now),
            Input::Send(frame) => self.send(frame),
            Input::SendVolatile(frame) => {
                if self.is_writable() {
                    self.send(frame);
                }
            }
            Input::PollArrived => self.on_poll(),
            Input::PollAborted => {
                if let State::Polling { poll_waits: poll_waits @ true, .. } = &mut self.transport {
                    *poll_waits = false;
                    self.close(CloseReason::TransportError);
                }
            }
            Input::PostArrived => self.on_post(),
            Input::PostReceived(body) => self.on_body(body, now),
            Input::PostDropped(drop) => self.on_post_dropped(drop),
            Input::CandidateArrived => self.on_candidate(now),
            Input::CandidateFrame(frame) => self.on_candidate_frame(frame, now),
            Input::CandidateLost => self.upgrade = Upgrade::None,
            Input::WebSocketEnded { close_frame: true } => self.on_websocket_end(CloseReason::ClosedByClient),
            Input::WebSocketEnded { close_frame: false } => self.on_websocket_end(CloseReason::ConnectionLost),
            Input::WebSocketFailed => self.on_websocket_end(CloseReason::TransportError),
            Input::Written => self.note_taken(),
            Input::ReadOn => self.read_on(now),
            Input::ReadingPaused => self.paused = true,
            Input::ReadingResumed => {
                self.paused = false;
                self.heartbeat.restart(now);
            }
            Input::Overflowed => self.overflow(),
            Input::Close => self.on_close(now + self.config.close_timeout, now + self.config.close_timeout),
            Input::ShutDown => {
                let polls = matches!(self.transport, State::Polling { poll_waits: true, .. });
                let last_poll = if polls { now } else { self.took };
                let until = now + self.config.close_timeout;
                self.on_close((last_poll + POLL_GAP).max(now).min(until), until);
            }
            Input::Timeout => self.on_timeout(now),
        }
    }

    /// Returns the next order. A waiting poll is answered last, so that it takes everything sent so far.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        match &mut self.transport {
            State::Polling { poll_waits: poll_waits @ true, .. } if !self.outbox.is_empty() => {
                *poll_waits = false;
                Some(Action::AnswerPoll(self.take_payload()))
            }
            State::Polling { .. } | State::Closing { .. } | State::WebSocket { .. } | State::Closed(_) => None,
        }
    }

    /// Returns when [`Input::Timeout`] is due; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.transport {
            State::Closed(_) => return None,
            State::Closing { deadline, .. } => deadline,
            State::Polling { .. } | State::WebSocket { .. } => self.heartbeat.deadline(),
        };
        let own = self.stall_deadline().map_or(own, |stall| stall.min(own));
        Some(self.upgrade.deadline().map_or(own, |upgrade| upgrade.min(own)))
    }

    /// Returns `true` if a message with this [cost](Frame::cost) may be sent: if it fits, or nothing else waits.
    pub fn has_room_for(&self, cost: usize) -> bool {
        self.outbox.is_empty() || self.outbox.cost().saturating_add(cost) <= self.config.max_backlog_bytes()
    }

    /// Returns `true` if the client may be read: no more waits for it, with what is `queued` in front of the session, than
    /// [`Config::high_water_bytes`], or, after that was exceeded, than a quarter of it.
    pub fn wants_input(&mut self, queued: usize) -> bool {
        let mark = if self.congested { self.high_water / 4 } else { self.high_water };
        self.congested = self.outbox.cost() + queued > mark;
        !self.congested
    }

    /// Returns `true` if a POST's body is to be handed in although the client is not read otherwise: it waits for the answer
    /// before it goes on with its upgrade. At most two bodies are taken so.
    pub fn takes_body(&self) -> bool {
        self.upgrade.is_probed() && self.unread_bytes() < self.config.max_payload_bytes
    }

    /// Returns how many bytes of POSTs' bodies are still to be read.
    pub fn unread_bytes(&self) -> usize {
        self.unread.iter().flat_map(|bodies| bodies.iter()).map(|body| body.packets.remaining()).sum()
    }

    /// Returns `true` if part of a POST's body is still to be read, with [`Input::ReadOn`].
    pub fn has_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// Returns what waits to be written, if the transport is a WebSocket, or was one when the session closed.
    pub fn outbox(&mut self) -> Option<&mut Outbox> {
        match self.transport {
            State::WebSocket { .. } | State::Closed(Transport::WebSocket) => Some(&mut self.outbox),
            State::Polling { .. } | State::Closing { .. } | State::Closed(Transport::Polling) => None,
        }
    }

    /// Takes what still waits, for a shell that flushes it after [`Action::Closed`].
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    /// Returns how many bytes wait for the client, with what each message occupies beside its bytes.
    pub fn buffered_bytes(&self) -> usize {
        self.outbox.cost()
    }

    /// Returns the transport that carries packets now, or did last.
    pub fn transport(&self) -> Transport {
        match self.transport {
            State::Polling { .. } | State::Closing { .. } => Transport::Polling,
            State::WebSocket { .. } => Transport::WebSocket,
            State::Closed(last) => last,
        }
    }

    /// Returns `true` if a message sent now leaves at once: nothing waits before it, and on polling a poll is there to
    /// take it. Where it does not, [`Input::SendVolatile`] drops its message.
    ///
    /// What was sent since the last [`poll_action`](Self::poll_action) waits too, as in engine.io 6.6, where only the
    /// first of several volatile messages of one moment leaves.
    pub fn is_writable(&self) -> bool {
        match self.transport {
            State::Polling { poll_waits, .. } => poll_waits && self.outbox.is_empty(),
            State::WebSocket { .. } => self.outbox.is_empty(),
            State::Closing { .. } | State::Closed(_) => false,
        }
    }

    /// Returns `true` if the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.transport, State::Closed(_))
    }

    fn emit(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn send(&mut self, frame: Frame) {
        if let State::Polling { .. } | State::WebSocket { .. } = self.transport {
            self.outbox.push(frame);
            if self.laden.is_none() && self.outbox.cost() > self.config.max_buffered_bytes {
                self.laden = Some(self.now);
            }
        }
    }

    /// When the client must have taken something of all that waits for it.
    fn stall_deadline(&self) -> Option<Instant> {
        self.laden.map(|since| since.max(self.took) + self.config.stall_timeout())
    }

    /// Notes what the client has taken since the last time.
    fn note_taken(&mut self) {
        if self.outbox.taken() != self.taken {
            self.taken = self.outbox.taken();
            self.took = self.now;
            if self.outbox.cost() <= self.config.max_buffered_bytes {
                self.laden = None;
            }
        }
    }

    /// Frees what waits, and ends the session with it.
    fn overflow(&mut self) {
        if !self.is_closed() {
            self.outbox.clear();
            self.close(CloseReason::TransportError);
        }
    }

    fn on_websocket_end(&mut self, reason: CloseReason) {
        if let State::WebSocket { .. } = self.transport {
            self.outbox.clear();
            self.close(reason);
        }
    }

    fn on_poll(&mut self) {
        match &mut self.transport {
            State::Polling { poll_waits, .. } if *poll_waits => {
                self.emit(Action::RefusePoll(Refusal::Empty));
                self.violate(Violation::OverlappingPoll);
            }
            State::Polling { poll_waits, .. } => *poll_waits = true,
            // What was sent before the end comes in a payload of its own: engine.io-client 6.6 hands messages on a turn
            // later, and would throw away those that share a payload with `close`.
            State::Closing { deadline, until, .. } if !self.outbox.is_empty() => {
                *deadline = (self.now + POLL_GAP).min(*until).max(*deadline);
                let body = self.take_payload();
                self.emit(Action::AnswerPoll(body));
            }
            State::Closing { .. } => {
                self.emit(Action::AnswerPoll("6\x1e1".to_owned()));
                self.close(CloseReason::ForcedClose);
            }
            State::WebSocket { .. } => self.emit(Action::RefusePoll(Refusal::Request(RequestError::BadRequest))),
            State::Closed(_) => {}
        }
    }

    fn on_post(&mut self) {
        match &mut self.transport {
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } if *post_reads => {
                self.emit(Action::RefusePost(Refusal::Empty));
                self.violate(Violation::OverlappingPost); // breaks off the first
            }
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } => *post_reads = true,
            State::WebSocket { .. } => self.emit(Action::RefusePost(Refusal::Request(RequestError::BadRequest))),
            State::Closed(_) => {}
        }
    }

    /// The flag that a POST is being read; `None` once the session is over.
    fn post_reads(&mut self) -> Option<&mut bool> {
        match &mut self.transport {
            // On a WebSocket the upgrade overtook it: it was sent before the switch, so its packets count.
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } | State::WebSocket { post_reads } => {
                Some(post_reads)
            }
            State::Closed(_) => None,
        }
    }

    /// Notes that no POST is being read any more, and returns `true` if one was.
    fn end_post(&mut self) -> bool {
        self.post_reads().is_some_and(std::mem::take)
    }

    fn on_body(&mut self, body: ByteString, now: Instant) {
        if !self.post_reads().is_some_and(|reads| *reads) {
            return;
        }
        let unread = self.unread.get_or_insert_default();
        unread.push_back(Unread { packets: payload::decode(body), accepted: false });
        let is_next = unread.len() == 1;
        if self.upgrade.is_probed() {
            self.accept_early();
        }
        if is_next {
            self.read_on(now);
        }
    }

    /// Accepts a POST before all of its packets are applied: a client that has been told to upgrade waits for the answer
    /// and polls no more, so that what waits for it would never become less.
    fn accept_early(&mut self) {
        if let Some(last) = self.unread.as_mut().and_then(|unread| unread.back_mut())
            && !std::mem::replace(&mut last.accepted, true)
        {
            self.end_post();
            self.emit(Action::AcceptPost);
        }
    }

    /// Applies the next packets of a POST's body, and accepts the POST behind the last one.
    fn read_on(&mut self, now: Instant) {
        let Some(mut bodies) = self.unread.take() else { return };
        let Some(Unread { packets, accepted }) = bodies.front_mut() else { return };
        // A POST whose packets end the session is answered like any other.
        if !*accepted {
            self.end_post();
        }
        for _ in 0..PACKETS_AT_ONCE {
            match packets.next() {
                Some(Ok(packet)) => self.on_packet(packet, now),
                Some(Err(
                    DecodeError::Empty | DecodeError::UnknownKind(_) | DecodeError::Base64 | DecodeError::Utf8,
                )) => self.close(CloseReason::ParseError),
                None => {}
            }
            if self.is_closed() || packets.is_finished() {
                if !*accepted {
                    self.accept_post();
                }
                bodies.pop_front();
                if !self.is_closed() && !bodies.is_empty() {
                    self.unread = Some(bodies);
                }
                return;
            }
        }
        if !*accepted && let Some(reads) = self.post_reads() {
            *reads = true;
        }
        self.unread = Some(bodies);
    }

    /// Applies all that is left of the bodies of POSTs, since the frames of the next transport follow it.
    fn read_rest(&mut self, now: Instant) {
        while self.unread.is_some() {
            self.read_on(now);
        }
    }

    fn accept_post(&mut self) {
        // The answer follows the packets' effects. `close` has put `Closed` last already where it was reached.
        let at = self.actions.iter().position(|action| matches!(action, Action::Closed(_)));
        self.actions.insert(at.unwrap_or(self.actions.len()), Action::AcceptPost);
    }

    fn on_post_dropped(&mut self, drop: PostDrop) {
        if self.end_post() {
            match drop {
                PostDrop::TooLarge => {}
                PostDrop::Aborted => self.close(CloseReason::TransportError),
                PostDrop::Binary => self.violate(Violation::BinaryPost),
            }
        }
    }

    fn on_frame(&mut self, frame: WsFrame, now: Instant) {
        if !matches!(self.transport, State::WebSocket { .. }) {
            return;
        }
        match frame {
            WsFrame::Text(text) => match Packet::decode(text) {
                Ok(packet) => self.on_packet(packet, now),
                Err(_) => self.close(CloseReason::ParseError),
            },
            WsFrame::Binary(bytes) => self.on_packet(Packet::Message(Message::Binary(bytes)), now),
        }
    }

    /// Applies a packet that came on the session's transport.
    fn on_packet(&mut self, packet: Packet, now: Instant) {
        match packet {
            // engine.io ignores `close` on a WebSocket until the ping timeout; the client has said goodbye all the same.
            Packet::Close => {
                self.outbox.clear();
                self.release_poll("6");
                self.close(CloseReason::ClosedByClient);
            }
            // Nothing else matters to a session that waits for its last poll.
            _ if matches!(self.transport, State::Closing { .. }) => {}
            Packet::Message(message) => {
                self.heartbeat.on_packet(now);
                self.emit(Action::Deliver(message));
            }
            Packet::Pong(_) => {
                if let Some(round_trip) = self.heartbeat.on_pong(now) {
                    self.emit(Action::RoundTrip(round_trip));
                }
            }
            Packet::Ping(_) => self.violate(Violation::PingFromClient),
            // Without a meaning from a client in this place, and ignored as engine.io 6.6 does.
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => self.heartbeat.on_packet(now),
        }
    }

    fn on_candidate(&mut self, now: Instant) {
        match self.transport {
            State::Polling { .. } if !self.upgrade.is_active() => {
                self.upgrade = Upgrade::Opened { deadline: now + self.config.upgrade_timeout };
            }
            // engine.io lets a second WebSocket in and closes it at once; the session does not notice.
            State::Polling { .. } | State::Closing { .. } | State::WebSocket { .. } => self.emit(Action::DropCandidate),
            State::Closed(_) => {}
        }
    }

    fn on_candidate_frame(&mut self, frame: WsFrame, now: Instant) {
        let step = match frame {
            WsFrame::Text(text) => Packet::decode(text)
                .map_err(|_| Violation::UnexpectedOnCandidate)
                .and_then(|packet| self.upgrade.on_packet(&packet, now)),
            WsFrame::Binary(_) => Err(Violation::UnexpectedOnCandidate),
        };
        match step {
            Ok(Step::Probe) => {
                self.emit(Action::WriteCandidate(Frame::packet("3probe")));
                self.release_poll("6");
                self.accept_early();
            }
            Ok(Step::Switch) => {
                // The polling transport ends here; a poll that still waits is told so, as by engine.io 6.6.
                self.release_poll("1");
                match self.transport {
                    State::Polling { post_reads, .. } => {
                        self.transport = State::WebSocket { post_reads };
                        self.emit(Action::SwitchTransport);
                        self.read_rest(now);
                    }
                    // The client learns on its new transport that the session was closed meanwhile.
                    State::Closing { post_reads, .. } => {
                        self.transport = State::WebSocket { post_reads };
                        self.emit(Action::SwitchTransport);
                        self.close(CloseReason::ForcedClose);
                    }
                    State::WebSocket { .. } | State::Closed(_) => {}
                }
            }
            Err(_) => self.drop_candidate(),
        }
    }

    fn drop_candidate(&mut self) {
        if self.upgrade.is_active() {
            self.upgrade = Upgrade::None;
            self.emit(Action::DropCandidate);
        }
    }

    fn take_payload(&mut self) -> String {
        let body = self.outbox.take_payload(self.config.max_payload_bytes);
        self.note_taken();
        self.took = self.now;
        body
    }

    /// Answers a waiting poll with this packet, if nothing better waits for it.
    fn release_poll(&mut self, packet: &str) {
        if let State::Polling { poll_waits: poll_waits @ true, .. } = &mut self.transport {
            *poll_waits = false;
            let mut body = self.take_payload();
            if body.is_empty() {
                body.push_str(packet);
            }
            self.emit(Action::AnswerPoll(body));
        }
    }

    /// Closes the session; a client without a poll gets until `deadline` to come for what waits, and for the end.
    fn on_close(&mut self, deadline: Instant, until: Instant) {
        match self.transport {
            State::Polling { poll_waits: false, post_reads } => {
                // A client amid an upgrade polls no more, so a candidate stays: it may be the only way to tell it.
                self.transport = State::Closing { post_reads, deadline, until };
            }
            State::Polling { poll_waits: true, post_reads } if !self.outbox.is_empty() => {
                let body = self.take_payload();
                self.emit(Action::AnswerPoll(body));
                self.transport = State::Closing { post_reads, deadline, until };
            }
            State::Polling { poll_waits: true, .. } => self.close(CloseReason::ForcedClose),
            State::WebSocket { .. } => self.close(CloseReason::ForcedClose),
            State::Closing { deadline: ref mut earlier, .. } => *earlier = deadline.min(*earlier),
            State::Closed(_) => {}
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        if self.upgrade.is_late(now) {
            self.drop_candidate();
        } else if self.upgrade.noop_due(now) {
            self.release_poll("6");
        }
        if self.stall_deadline().is_some_and(|deadline| now >= deadline) {
            self.overflow();
        }
        match self.transport {
            State::Closing { deadline, .. } if now >= deadline => self.close(CloseReason::ForcedClose),
            State::Closing { .. } | State::Closed(_) => {}
            State::Polling { .. } | State::WebSocket { .. } => match self.beat(now) {
                Beat::Nothing => {}
                // Ahead of what waits: the published clients give a server up that does not ping in time.
                Beat::Ping => self.outbox.push_next(Frame::ping()),
                Beat::Dead => {
                    self.outbox.clear();
                    self.close(CloseReason::PingTimeout);
                }
            },
        }
    }

    fn beat(&mut self, now: Instant) -> Beat {
        let waits = !self.outbox.is_empty();
        // Also a client that is not read has to take what is sent to it.
        let excuse = if self.paused && !(self.behind && waits) {
            Some(Excuse::Unread)
        } else {
            (self.behind || waits).then_some(Excuse::TookAt(self.took))
        };
        let was_due = now >= self.heartbeat.deadline();
        let beat = self.heartbeat.on_timeout(now, excuse);
        if was_due {
            self.behind = waits;
        }
        beat
    }

    /// Ends the session for a packet or request at the wrong moment, whichever it is.
    fn violate(&mut self, _violation: Violation) {
        self.close(CloseReason::TransportError);
    }

    /// Ends the session. Whoever waits for an answer gets one: a poll is told with `close`.
    fn close(&mut self, reason: CloseReason) {
        self.drop_candidate();
        self.unread = None;
        self.laden = None;
        let (transport, post_reads) = match self.transport {
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } => {
                self.outbox.clear();
                self.release_poll("1");
                (Transport::Polling, post_reads)
            }
            State::WebSocket { post_reads } => (Transport::WebSocket, post_reads),
            State::Closed(_) => return,
        };
        if post_reads {
            self.emit(Action::AbortPost);
        }
        self.transport = State::Closed(transport);
        self.emit(Action::Closed(reason));
    }
}

/// Packets of a polling body that are applied before the shell looks whether more are welcome.
const PACKETS_AT_ONCE: usize = 64;

/// How long a client that still polls may take from an answer to its next poll: a slow round trip.
const POLL_GAP: Duration = Duration::from_secs(5);
