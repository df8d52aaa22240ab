//! The session: what a client's requests, frames and silences mean, without a socket, a clock or a task.
//!
//! ```text
//!                 +--------------------- Upgrade (a candidate beside the polls) ---+
//!                 |                                                                v
//! Open(Polling) --+--> Polling --.                              Open(WebSocket) -> WebSocket
//!                                |  close() with no poll waiting                   |
//!                                +--> Closing --- next poll, or timeout ---.       |
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

pub use self::outbox::{Outbox, Overflow};

use self::heartbeat::{Beat, Heartbeat};
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
    /// The body of the POST is complete. The session answers with [`Action::AnswerPost`].
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
    /// The application sends a message.
    Send(Frame),
    /// The application sends a message that may be dropped if it cannot leave at once.
    SendVolatile(Frame),
    /// The queue in front of the session ran over its budget.
    Overflowed,
    /// The application closes the session. What it sent before is still delivered.
    Close,
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
    /// session. Nothing follows.
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
    actions: VecDeque<Action>,
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
    },
    WebSocket,
    Closed,
}

impl Session {
    /// Opens a session: its `open` packet is the first to leave.
    ///
    /// On polling, the handshake request counts as the first poll: it is answered with [`Action::AnswerPoll`].
    pub fn open(sid: &Sid, transport: Transport, config: Arc<Config>, now: Instant) -> Self {
        let mut outbox = Outbox::new(config.max_buffered_bytes);
        // The budget is at least 1,024 bytes and nothing else waits.
        let _fits = outbox.push(Frame::packet(&open_packet(sid, transport, &config)));
        Self {
            transport: match transport {
                Transport::Polling => State::Polling { poll_waits: true, post_reads: false },
                Transport::WebSocket => State::WebSocket,
            },
            upgrade: Upgrade::None,
            heartbeat: Heartbeat::new(config.ping_interval, config.ping_timeout, now),
            outbox,
            actions: VecDeque::new(),
            config,
        }
    }

    /// Takes in a fact.
    pub fn handle(&mut self, input: Input, now: Instant) {
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
            Input::WebSocketEnded { close_frame } => {
                if self.transport == State::WebSocket {
                    self.outbox.clear();
                    self.close(if close_frame { CloseReason::ClosedByClient } else { CloseReason::ConnectionLost });
                }
            }
            Input::WebSocketFailed => {
                if self.transport == State::WebSocket {
                    self.outbox.clear();
                    self.close(CloseReason::TransportError);
                }
            }
            Input::Overflowed => self.overflow(),
            Input::Close => self.on_close(now),
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
                Some(Action::AnswerPoll(self.outbox.take_payload(self.config.max_payload_bytes)))
            }
            State::Polling { .. } | State::Closing { .. } | State::WebSocket | State::Closed => None,
        }
    }

    /// Returns when [`Input::Timeout`] is due; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.transport {
            State::Closed => None,
            State::Closing { deadline, .. } => Some(deadline),
            State::Polling { .. } | State::WebSocket => {
                let heartbeat = self.heartbeat.deadline();
                Some(self.upgrade.deadline().map_or(heartbeat, |upgrade| upgrade.min(heartbeat)))
            }
        }
    }

    /// Returns what waits to be written, if the transport is a WebSocket, or was one when the session closed.
    pub fn outbox(&mut self) -> Option<&mut Outbox> {
        match self.transport {
            State::WebSocket | State::Closed => Some(&mut self.outbox),
            State::Polling { .. } | State::Closing { .. } => None,
        }
    }

    /// Takes what still waits, for a shell that flushes it after [`Action::Closed`].
    pub fn take_outbox(&mut self) -> Outbox {
        std::mem::replace(&mut self.outbox, Outbox::new(0))
    }

    /// Returns how many bytes wait for the client.
    pub fn buffered_bytes(&self) -> usize {
        self.outbox.bytes()
    }

    /// Returns the transport that carries packets now.
    pub fn transport(&self) -> Transport {
        match self.transport {
            State::Polling { .. } | State::Closing { .. } => Transport::Polling,
            State::WebSocket | State::Closed => Transport::WebSocket,
        }
    }

    /// Tells whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.transport == State::Closed
    }

    fn emit(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn send(&mut self, frame: Frame) {
        if matches!(self.transport, State::Polling { .. } | State::WebSocket) && self.outbox.push(frame).is_err() {
            self.overflow();
        }
    }

    /// A client that does not read what it is sent loses its session, and we the memory.
    fn overflow(&mut self) {
        self.outbox.clear();
        self.close(CloseReason::TransportError);
    }

    fn is_writable(&self) -> bool {
        match self.transport {
            State::Polling { poll_waits, .. } => poll_waits,
            State::WebSocket => self.outbox.is_empty(),
            State::Closing { .. } | State::Closed => false,
        }
    }

    fn on_poll(&mut self) {
        match &mut self.transport {
            State::Polling { poll_waits, .. } if *poll_waits => {
                self.emit(Action::RefusePoll(Refusal::Empty));
                self.violate(Violation::OverlappingPoll);
            }
            State::Polling { poll_waits, .. } => *poll_waits = true,
            State::Closing { .. } => {
                // The client learns of the end from the payload: what was sent before it, or a noop, and `close`.
                let mut body = self.outbox.take_payload(usize::MAX);
                if body.is_empty() {
                    body.push('6');
                }
                body.push_str("\x1e1");
                self.emit(Action::AnswerPoll(body));
                self.close(CloseReason::ForcedClose);
            }
            State::WebSocket => self.emit(Action::RefusePoll(Refusal::Request(RequestError::BadRequest))),
            State::Closed => self.emit(Action::RefusePoll(Refusal::Request(RequestError::UnknownSid))),
        }
    }

    fn on_post(&mut self) {
        match &mut self.transport {
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } if *post_reads => {
                self.emit(Action::RefusePost(Refusal::Empty));
                self.violate(Violation::OverlappingPost); // breaks off the first
            }
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } => *post_reads = true,
            State::WebSocket => self.emit(Action::RefusePost(Refusal::Request(RequestError::BadRequest))),
            State::Closed => self.emit(Action::RefusePost(Refusal::Request(RequestError::UnknownSid))),
        }
    }

    /// Takes note that no POST is being read any more; false where none was.
    fn end_post(&mut self) -> bool {
        match &mut self.transport {
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } => std::mem::take(post_reads),
            // The upgrade overtook it: the client has sent this POST before it switched, so its packets count.
            State::WebSocket => true,
            State::Closed => false,
        }
    }

    fn on_body(&mut self, body: ByteString, now: Instant) {
        if !self.end_post() {
            return;
        }
        for packet in payload::decode(body, self.config.max_packets_per_payload) {
            match packet {
                Ok(packet) => self.on_packet(packet, now),
                Err(DecodeError::TooManyPackets) => {
                    self.emit(Action::RefusePost(Refusal::TooLarge));
                    return;
                }
                Err(DecodeError::Empty | DecodeError::UnknownKind(_) | DecodeError::Base64 | DecodeError::Utf8) => {
                    self.close(CloseReason::ParseError)
                }
            }
            if self.is_closed() {
                break;
            }
        }
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
        if self.transport != State::WebSocket {
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
            Packet::Message(message) => {
                self.heartbeat.on_packet(now);
                if matches!(self.transport, State::Polling { .. } | State::WebSocket) {
                    self.emit(Action::Deliver(message));
                }
            }
            Packet::Pong(_) => {
                if let Some(round_trip) = self.heartbeat.on_pong(now) {
                    self.emit(Action::RoundTrip(round_trip));
                }
            }
            // engine.io ignores `close` on a WebSocket until the ping timeout; the client has said goodbye all the same.
            Packet::Close => {
                self.outbox.clear();
                self.release_poll("6");
                self.close(CloseReason::ClosedByClient);
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
            State::Polling { .. } | State::Closing { .. } | State::WebSocket | State::Closed => {
                self.emit(Action::DropCandidate);
            }
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
            }
            Ok(Step::Switch) => {
                // The polling transport ends here; a poll that still waits is told so, as by engine.io 6.6.
                self.release_poll("1");
                self.transport = State::WebSocket;
                self.emit(Action::SwitchTransport);
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

    /// Answers a waiting poll with this packet, if nothing better waits for it.
    fn release_poll(&mut self, packet: &str) {
        if let State::Polling { poll_waits: poll_waits @ true, .. } = &mut self.transport {
            *poll_waits = false;
            let mut body = self.outbox.take_payload(self.config.max_payload_bytes);
            if body.is_empty() {
                body.push_str(packet);
            }
            self.emit(Action::AnswerPoll(body));
        }
    }

    fn on_close(&mut self, now: Instant) {
        match self.transport {
            State::Polling { poll_waits: false, post_reads } => {
                self.drop_candidate();
                self.transport = State::Closing { post_reads, deadline: now + self.config.close_timeout };
            }
            State::Polling { poll_waits: true, post_reads } => {
                let mut body = self.outbox.take_payload(usize::MAX);
                body.push_str(if body.is_empty() { "1" } else { "\x1e1" });
                self.transport = State::Polling { poll_waits: false, post_reads };
                self.emit(Action::AnswerPoll(body));
                self.close(CloseReason::ForcedClose);
            }
            State::WebSocket => self.close(CloseReason::ForcedClose),
            State::Closing { .. } | State::Closed => {}
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        if let State::Closing { deadline, .. } = self.transport {
            if now >= deadline {
                self.close(CloseReason::ForcedClose);
            }
            return;
        }
        if self.is_closed() {
            return;
        }
        if self.upgrade.is_late(now) {
            self.drop_candidate();
        } else if self.upgrade.noop_due(now) {
            self.release_poll("6");
        }
        match self.heartbeat.on_timeout(now) {
            Beat::Nothing => {}
            Beat::Ping => self.send(Frame::packet("2")),
            Beat::Dead => {
                self.outbox.clear();
                self.close(CloseReason::PingTimeout);
            }
        }
    }

    /// Ends the session for a packet or request at the wrong moment, whichever it is.
    fn violate(&mut self, _violation: Violation) {
        self.close(CloseReason::TransportError);
    }

    /// Ends the session. Whoever waits for an answer gets one: a poll is told with `close`.
    fn close(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        self.drop_candidate();
        match self.transport {
            State::Polling { post_reads, .. } | State::Closing { post_reads, .. } => {
                self.outbox.clear();
                self.release_poll("1");
                if post_reads {
                    self.emit(Action::AbortPost);
                }
            }
            State::WebSocket | State::Closed => {}
        }
        self.transport = State::Closed;
        self.emit(Action::Closed(reason));
    }
}
