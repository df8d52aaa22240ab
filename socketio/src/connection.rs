//! Every namespace of one client: the server's half of the protocol, without a socket or a clock.
//!
//! A namespace goes through three states, each CONNECT in a [`Slot`] of its own:
//!
//! ```text
//!            CONNECT / Connect              Accept / write CONNECT
//!   absent ────────────────────▶ pending ──────────────────────────▶ connected
//!     ▲                             │                                    │
//!     ├── Refuse / write CONNECT_ERROR ◀─┤                               │  EVENT / Event, ACK / Ack
//!     ├── Disconnect / write DISCONNECT ◀┴───────────────────────────────┤
//!     └── DISCONNECT / Disconnected ◀────────────────────────────────────┘
//! ```
//!
//! Any other packet in any other state closes the whole connection, as in the reference server.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::ack::Acks;
use crate::data::{Data, Event};
use crate::decoder::{Decoder, DecoderConfig};
use crate::encoder::{encode_connect, encode_connect_error, encode_disconnect};
use crate::error::{CloseReason, DecodeError, NamespaceState, UsageError, Violation};
use crate::packet::{Content, Packet, PacketKind};

/// The limits of one [`Connection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// How long a client may stay without joining any namespace, from the start. Default: 45 s.
    ///
    /// The first namespace joined ends it for good; a client that has left every namespace again may stay.
    pub connect_timeout: Duration,
    /// Namespaces joined or asked for at one time. Default: 100. The next CONNECT is refused with `Too many namespaces`,
    /// without asking the middleware; the connection stays open.
    pub max_namespaces: usize,
    /// Acks outstanding at one time, over all namespaces. Default: 1,000. The next ack expires at once, and its answer
    /// is ignored.
    pub max_acks: usize,
    /// The limits of what comes in.
    pub decoder: DecoderConfig,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(45),
            max_namespaces: 100,
            max_acks: 1000,
            decoder: DecoderConfig::default(),
        }
    }
}

/// One CONNECT of one connection, from the question to the middleware until the namespace is left; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

impl Slot {
    /// The slot of the `n`th CONNECT that a connection asks about, counted from zero, for tests of a shell.
    #[must_use]
    pub const fn nth(n: u64) -> Self {
        Self(n)
    }
}

/// What happened. A slot that is gone meanwhile is no error: the input is late, and ignored.
#[derive(Debug, Clone)]
pub enum Input {
    /// A text message came.
    Text(ByteString),
    /// A binary message came.
    Binary(Bytes),
    /// The middleware said yes to a pending slot.
    Accept {
        /// The slot of [`Action::Connect`].
        slot: Slot,
        /// The id of the client in this namespace. Public, hence never that of the Engine.IO session.
        sid: ByteString,
        /// The client's secret for getting its session back, where connection state recovery is offered.
        pid: Option<ByteString>,
    },
    /// The middleware said no to a pending slot. For a namespace that does not exist, the message of the reference
    /// server is `Invalid namespace`.
    Refuse {
        /// The slot of [`Action::Connect`].
        slot: Slot,
        /// What the client's `connect_error` handler reads in `message`.
        message: String,
        /// What it reads in `data`.
        data: Option<Box<RawValue>>,
    },
    /// The server ends a slot, pending or connected. Its outstanding acks are forgotten.
    Disconnect {
        /// The slot.
        slot: Slot,
    },
    /// An event that asks for an ack has been written. Also legal before the slot is accepted.
    ExpectAck {
        /// The slot it was written for.
        slot: Slot,
        /// Its ack id. One that is still outstanding expires before it is used again.
        id: u64,
        /// When [`Action::AckExpired`] is due.
        deadline: Option<Instant>,
    },
    /// Arguments turned out to be malformed JSON, see [`DataError::Malformed`](crate::DataError::Malformed).
    Malformed,
    /// Time has passed. Early or repeated ones do nothing.
    Timeout,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask the middleware of a namespace, if there is such a namespace, and answer with [`Input::Accept`] or
    /// [`Input::Refuse`].
    Connect {
        /// What to answer with.
        slot: Slot,
        /// The name, as the client wrote it; starts with `/`.
        namespace: ByteString,
        /// The credentials, a JSON object no deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
        auth: Option<ByteString>,
    },
    /// Hand an event to the handlers.
    Event {
        /// The slot it came for.
        slot: Slot,
        /// The event.
        event: Event,
        /// The id under which the client waits for an ack.
        ack: Option<u64>,
    },
    /// Hand over the answer to an event that was announced by [`Input::ExpectAck`].
    Ack {
        /// The slot it came for.
        slot: Slot,
        /// The ack id.
        id: u64,
        /// The arguments of the answer.
        data: Data,
    },
    /// No answer came in time, or there was no room to wait for it.
    AckExpired {
        /// The slot it did not come for.
        slot: Slot,
        /// The ack id.
        id: u64,
    },
    /// The client has left a namespace, reason `client namespace disconnect`. Its outstanding acks are forgotten.
    Disconnected {
        /// The slot, gone by now.
        slot: Slot,
    },
    /// Send a text message.
    Write(ByteString),
    /// Close the transport; every slot is gone. Nothing follows.
    Close(CloseReason),
}

/// The machine for all namespaces of one client, over an ordered stream of text and binary messages.
///
/// Feed it with [`handle`](Self::handle), then carry out every [`poll_action`](Self::poll_action), and call again no
/// later than [`poll_timeout`](Self::poll_timeout). Several inputs without polling in between are fine; actions queue
/// in order. It never reads the clock and never fails: what a client does wrong becomes [`Action::Close`].
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    decoder: Decoder,
    // A handful at most in practice: a scan beats a map.
    namespaces: Vec<Namespace>,
    next_slot: u64,
    acks: Acks,
    actions: VecDeque<Action>,
    connect_deadline: Option<Instant>,
    closed: bool,
}

#[derive(Debug)]
struct Namespace {
    name: ByteString,
    slot: Slot,
    connected: bool,
}

impl Connection {
    /// A connection whose transport has opened just now.
    #[must_use]
    pub fn new(config: ConnectionConfig, now: Instant) -> Self {
        Self {
            config,
            decoder: Decoder::new(config.decoder),
            namespaces: Vec::new(),
            next_slot: 0,
            acks: Acks::default(),
            actions: VecDeque::new(),
            connect_deadline: now.checked_add(config.connect_timeout),
            closed: false,
        }
    }

    /// Takes note of what happened; after [`Action::Close`], of nothing.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if self.closed {
            return;
        }
        let handled = match input {
            Input::Text(message) => self.on_text(message),
            Input::Binary(attachment) => self.on_binary(attachment),
            Input::Accept { slot, sid, pid } => {
                self.on_accept(slot, &sid, pid.as_deref());
                Ok(())
            }
            Input::Refuse { slot, message, data } => {
                self.on_refuse(slot, &message, data.as_deref());
                Ok(())
            }
            Input::Disconnect { slot } => {
                self.on_disconnect(slot);
                Ok(())
            }
            Input::ExpectAck { slot, id, deadline } => {
                self.on_expect_ack(slot, id, deadline);
                Ok(())
            }
            Input::Malformed => Err(DecodeError::Json.into()),
            Input::Timeout => self.on_timeout(now),
        };
        if let Err(reason) = handled {
            self.close(reason);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Input::Timeout`] is due, unless something else changes that first.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connect_deadline.into_iter().chain(self.acks.deadline()).min()
    }

    fn on_text(&mut self, message: ByteString) -> Result<(), CloseReason> {
        if let Some(packet) = self.decoder.text(message)? {
            return self.on_packet(packet);
        }
        // Refused before its attachments are held in memory (CVE-2026-48804), not when the last one is there.
        self.decoder.partial().map_or(Ok(()), |packet| self.connected(packet).map(drop)).map_err(CloseReason::from)
    }

    fn on_binary(&mut self, attachment: Bytes) -> Result<(), CloseReason> {
        self.decoder.binary(attachment)?.map_or(Ok(()), |packet| self.on_packet(packet))
    }

    /// Applies a complete packet to the state of its namespace.
    fn on_packet(&mut self, packet: Packet) -> Result<(), CloseReason> {
        if packet.kind() == PacketKind::Connect {
            return Ok(self.on_connect(packet)?);
        }
        let slot = self.connected(&packet)?;
        let ack = packet.ack_id();
        match packet.into_content() {
            Content::Event(Some(event)) => self.emit(Action::Event { slot, event, ack }),
            Content::Ack(data) => match ack.filter(|id| self.acks.resolve(slot, *id)) {
                Some(id) => self.emit(Action::Ack { slot, id, data }),
                // Unasked, or late: nobody will read it, so what a reader would have found out is found out here.
                None => data.validate().map_err(|_| DecodeError::Json)?,
            },
            Content::Disconnect => {
                self.leave(slot);
                self.emit(Action::Disconnected { slot });
            }
            // An event without data has no name to call a handler by. The other two never get here.
            Content::Event(None) | Content::Connect(_) | Content::ConnectError(_) => {}
        }
        Ok(())
    }

    fn on_connect(&mut self, packet: Packet) -> Result<(), Violation> {
        let state = self.state(packet.namespace());
        if state != NamespaceState::Absent {
            return Err(Violation::Unexpected { kind: packet.kind(), state });
        }
        // Copied, or else the credentials around the name would stay in memory with it.
        let namespace = match packet.namespace() {
            "/" => ByteString::from_static("/"),
            name => ByteString::from(name),
        };
        if self.namespaces.len() >= self.config.max_namespaces {
            self.write(|out| encode_connect_error(out, &namespace, "Too many namespaces", None));
            return Ok(());
        }
        let auth = match packet.into_content() {
            Content::Connect(auth) => auth,
            Content::Disconnect | Content::Event(_) | Content::Ack(_) | Content::ConnectError(_) => None,
        };
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        if self.namespaces.is_empty() {
            self.namespaces.reserve_exact(1); // most clients are in one
        }
        self.namespaces.push(Namespace { name: namespace.clone(), slot, connected: false });
        self.emit(Action::Connect { slot, namespace, auth });
        Ok(())
    }

    fn on_accept(&mut self, slot: Slot, sid: &str, pid: Option<&str>) {
        if let Some(namespace) = self.namespaces.iter_mut().find(|entry| entry.slot == slot && !entry.connected) {
            namespace.connected = true;
            let name = namespace.name.clone();
            self.connect_deadline = None;
            self.write(|out| encode_connect(out, &name, sid, pid));
        }
    }

    fn on_refuse(&mut self, slot: Slot, message: &str, data: Option<&RawValue>) {
        let pending = self.namespaces.iter().any(|entry| entry.slot == slot && !entry.connected);
        if let Some(name) = pending.then(|| self.leave(slot)).flatten() {
            self.write(|out| encode_connect_error(out, &name, message, data));
        }
    }

    fn on_disconnect(&mut self, slot: Slot) {
        if let Some(name) = self.leave(slot) {
            self.write(|out| encode_disconnect(out, &name));
        }
    }

    fn on_expect_ack(&mut self, slot: Slot, id: u64, deadline: Option<Instant>) {
        if !self.namespaces.iter().any(|entry| entry.slot == slot) {
            return;
        }
        if self.acks.resolve(slot, id) || self.acks.len() >= self.config.max_acks {
            self.emit(Action::AckExpired { slot, id });
        }
        if self.acks.len() < self.config.max_acks {
            self.acks.expect(slot, id, deadline);
        }
    }

    fn on_timeout(&mut self, now: Instant) -> Result<(), CloseReason> {
        while let Some((slot, id)) = self.acks.expire(now) {
            self.emit(Action::AckExpired { slot, id });
        }
        match self.connect_deadline {
            Some(deadline) if deadline <= now => Err(CloseReason::ConnectTimeout),
            Some(_) | None => Ok(()),
        }
    }

    /// The slot a packet other than CONNECT is for.
    fn connected(&self, packet: &Packet) -> Result<Slot, Violation> {
        let name = packet.namespace();
        match self.namespaces.iter().find(|entry| entry.connected && entry.name == *name) {
            Some(entry) if packet.kind() != PacketKind::ConnectError => Ok(entry.slot),
            Some(_) | None => Err(Violation::Unexpected { kind: packet.kind(), state: self.state(name) }),
        }
    }

    fn state(&self, name: &str) -> NamespaceState {
        match self.namespaces.iter().find(|entry| entry.name == *name) {
            None => NamespaceState::Absent,
            Some(Namespace { connected: false, .. }) => NamespaceState::Pending,
            Some(Namespace { connected: true, .. }) => NamespaceState::Connected,
        }
    }

    /// Forgets a slot; the name it had, if it was there.
    fn leave(&mut self, slot: Slot) -> Option<ByteString> {
        let at = self.namespaces.iter().position(|entry| entry.slot == slot)?;
        self.acks.forget(slot);
        Some(self.namespaces.remove(at).name)
    }

    /// Frees what the connection holds and says goodbye.
    fn close(&mut self, reason: CloseReason) {
        self.closed = true;
        self.connect_deadline = None;
        self.decoder = Decoder::new(self.config.decoder);
        self.namespaces = Vec::new();
        self.acks = Acks::default();
        self.emit(Action::Close(reason));
    }

    fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), UsageError>) {
        let mut text = Vec::new();
        encode(&mut text).expect("names come from packets, and strings always serialize");
        self.emit(Action::Write(ByteString::try_from(text).expect("JSON and names are UTF-8")));
    }

    fn emit(&mut self, action: Action) {
        self.actions.push_back(action);
    }
}
