//! Targets for the core of `socketio`.

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use socketio::{
    Action, Connection, ConnectionConfig, Content, Decoder, DecoderConfig, Input, Packet, PacketKind, Slot, encode_ack,
    encode_event,
};

use reference::Reference;

/// One text message, followed by as many attachments as it announces.
///
/// A slow, plain decoder must come to the same result, and what was decoded must survive being encoded: decoding that
/// again gives the same packet, and encoding it again the same bytes.
///
/// # Panics
/// When one of these is broken.
pub fn socketio_packet(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let limits = DecoderConfig { max_binary_bytes: Some(usize::MAX), ..DecoderConfig::default() };
    let expected = reference::decode(text, limits.max_attachments, limits.max_namespace_bytes);
    let decoded = decode(text, limits);
    assert_eq!(decoded.is_some(), expected.is_some(), "one decoder accepts what the other refuses");
    let (Some(packet), Some(mut expected)) = (decoded, expected) else { return };
    assert_same(&packet, &expected);
    if let Some((encoded, attachments)) = encode(packet) {
        let packet = decode_with(&encoded, limits, &attachments).expect("what we encode is a packet");
        expected.attachments = number_of(&attachments);
        assert_same(&packet, &expected);
        assert_eq!(encode(packet), Some((encoded, attachments)), "encoding is not stable");
    }
}

fn number_of(attachments: &[Bytes]) -> u32 {
    u32::try_from(attachments.len()).unwrap_or(u32::MAX)
}

fn decode(text: &str, limits: DecoderConfig) -> Option<Packet> {
    let attachments: Vec<Bytes> = (0..10).map(|n| Bytes::from(vec![n])).collect();
    decode_with(text, limits, &attachments)
}

fn decode_with(text: &str, limits: DecoderConfig, attachments: &[Bytes]) -> Option<Packet> {
    let mut decoder = Decoder::new(limits);
    let mut packet = decoder.text(text.into()).ok()?;
    for attachment in attachments {
        if packet.is_some() {
            break;
        }
        packet = decoder.binary(attachment.clone()).expect("it is due");
    }
    let packet = packet.expect("no packet waits for more than ten");
    // Plain arguments are checked when someone reads them, or finds that nobody does.
    let valid = match packet.clone().into_content() {
        Content::Event(Some(event)) => event.data().validate().is_ok(),
        Content::Ack(data) => data.validate().is_ok(),
        Content::Connect(_) | Content::Disconnect | Content::Event(None) | Content::ConnectError(_) => true,
    };
    valid.then_some(packet)
}

fn assert_same(packet: &Packet, expected: &Reference) {
    assert_eq!(packet.kind().digit(), expected.digit(), "packet type");
    assert_eq!(packet.namespace(), expected.namespace, "namespace");
    assert_eq!(packet.ack_id(), expected.ack_id, "ack id");
    let attachments = match packet.clone().into_content() {
        Content::Event(Some(event)) => {
            assert_eq!(Some(event.name()), expected.event.as_deref(), "event name");
            event.data().attachments().len()
        }
        Content::Event(None) => {
            assert_eq!(None, expected.event, "event name");
            return;
        }
        Content::Ack(data) => data.attachments().len(),
        Content::Connect(auth) | Content::ConnectError(auth) => {
            assert_eq!(auth.is_some(), expected.has_data, "data");
            0
        }
        Content::Disconnect => 0,
    };
    if expected.has_data {
        assert_eq!(attachments, expected.attachments as usize, "attachments");
    }
}

fn encode(packet: Packet) -> Option<(String, Vec<Bytes>)> {
    let (namespace, ack_id) = (packet.namespace().to_owned(), packet.ack_id());
    let mut out = b"in front".to_vec();
    let attachments = match packet.into_content() {
        Content::Event(Some(event)) => {
            encode_event(&mut out, &namespace, ack_id, event.name(), event.data().clone()).expect("it was decoded")
        }
        Content::Ack(data) => encode_ack(&mut out, &namespace, ack_id?, data).expect("it was decoded"),
        Content::Connect(_) | Content::Disconnect | Content::Event(None) | Content::ConnectError(_) => return None,
    };
    let text = out.strip_prefix(b"in front").expect("encoding appends");
    Some((String::from_utf8(text.to_vec()).expect("packets are UTF-8"), attachments))
}

/// A dialogue with a connection, one input a line, under limits low enough to be met:
///
/// ```text
/// <text         the client sends a text message
/// #bytes        the client sends a binary message
/// +slot         the middleware says yes
/// -slot         the middleware says no
/// !slot         the server disconnects
/// ?slot id sec  an event with an ack id has been written; without `sec` there is no deadline
/// m             a handler has found malformed JSON
/// t sec         time passes
/// ```
///
/// Any other line is skipped. Whatever the inputs are, a simple model of slots and acks must agree with every action,
/// the alarm must lie in the future once it has been handled, nothing may follow the close, and a connection that is
/// polled only at the end must give the same actions in the same order.
///
/// # Panics
/// When one of these is broken.
pub fn socketio_connection(data: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let mut polled = Connection::new(LIMITS, start);
    let mut unpolled = Connection::new(LIMITS, start);
    let mut model = Model::default();
    let mut actions = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((input, seconds)) = parse(line, now) else { continue };
        now = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now);
        let timed_out = matches!(input, Input::Timeout);
        model.before(&input);
        polled.handle(input.clone(), now);
        unpolled.handle(input, now);
        while let Some(action) = polled.poll_action() {
            model.check(&action);
            actions.push(action);
        }
        if timed_out {
            assert!(polled.poll_timeout().is_none_or(|at| at > now), "a handled alarm is still due");
        }
        assert!(!model.closed || polled.poll_timeout().is_none(), "an alarm after the close");
        assert_eq!(polled.poll_timeout(), unpolled.poll_timeout(), "polling changes the alarm");
        assert!(model.slots.len() <= LIMITS.max_namespaces, "too many namespaces");
        assert!(model.acks.len() <= LIMITS.max_acks, "too many acks");
    }
    let all: Vec<Action> = std::iter::from_fn(|| unpolled.poll_action()).collect();
    assert_eq!(all, actions, "polling changes the actions");
}

const LIMITS: ConnectionConfig = ConnectionConfig {
    connect_timeout: Duration::from_secs(45),
    max_namespaces: 3,
    max_acks: 4,
    decoder: DecoderConfig { max_attachments: 3, max_binary_bytes: Some(100), max_namespace_bytes: 8 },
};

/// The input of a line, and the seconds that pass before it.
fn parse(line: &[u8], now: Instant) -> Option<(Input, u64)> {
    let (command, rest) = line.split_first()?;
    let text = str::from_utf8(rest);
    let mut numbers = text.unwrap_or_default().split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
    let mut seconds = 0;
    let input = match command {
        b'<' => Input::Text(text.ok()?.into()),
        b'#' => Input::Binary(Bytes::copy_from_slice(rest)),
        b'+' => Input::Accept { slot: Slot::nth(numbers.next()?), sid: "sid".into(), pid: None },
        b'-' => Input::Refuse { slot: Slot::nth(numbers.next()?), message: "no".to_owned(), data: None },
        b'!' => Input::Disconnect { slot: Slot::nth(numbers.next()?) },
        b'?' => {
            let (slot, id) = (Slot::nth(numbers.next()?), numbers.next()?);
            let deadline = numbers.next().and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
            Input::ExpectAck { slot, id, deadline }
        }
        b'm' => Input::Malformed,
        b't' => {
            seconds = numbers.next()?.min(1 << 20);
            Input::Timeout
        }
        _ => return None,
    };
    Some((input, seconds))
}

/// What an onlooker knows of a connection.
#[derive(Default)]
struct Model {
    /// Slots that are pending (false) or connected (true).
    slots: BTreeMap<Slot, bool>,
    names: BTreeMap<Slot, ByteString>,
    acks: BTreeSet<(Slot, u64)>,
    /// The ack expected by the input at hand, which may expire at once and still be outstanding, if it replaced one.
    expecting: Option<(Slot, u64)>,
    last_slot: Option<Slot>,
    writes_due: usize,
    client_spoke: bool,
    closed: bool,
}

impl Model {
    fn before(&mut self, input: &Input) {
        assert_eq!(self.writes_due, 0, "an answer is missing");
        self.expecting = None;
        self.client_spoke = false;
        if self.closed {
            return;
        }
        match input {
            Input::Accept { slot, .. } => {
                if let Some(connected @ false) = self.slots.get_mut(slot) {
                    *connected = true;
                    self.writes_due = 1;
                }
            }
            Input::Refuse { slot, .. } => {
                if self.slots.get(slot) == Some(&false) {
                    self.leave(*slot);
                    self.writes_due = 1;
                }
            }
            Input::Disconnect { slot } => {
                if self.slots.contains_key(slot) {
                    self.leave(*slot);
                    self.writes_due = 1;
                }
            }
            Input::ExpectAck { slot, id, .. } => {
                if self.slots.contains_key(slot) {
                    let ack = (*slot, *id);
                    // Either replaces one and expires that, or finds room, or expires.
                    if self.acks.contains(&ack) || self.acks.len() >= LIMITS.max_acks {
                        self.expecting = Some(ack);
                    } else {
                        self.acks.insert(ack);
                    }
                }
            }
            Input::Text(_) | Input::Binary(_) => self.client_spoke = true,
            Input::Malformed | Input::Timeout => {}
        }
    }

    fn check(&mut self, action: &Action) {
        assert!(!self.closed, "something follows the close");
        match action {
            Action::Connect { slot, namespace, auth } => {
                assert!(self.last_slot < Some(*slot), "a slot is used again");
                assert!(namespace.starts_with('/') && !namespace.contains(','), "no namespace");
                assert!(namespace.len() <= LIMITS.decoder.max_namespace_bytes, "the name is too long");
                assert!(auth.as_ref().is_none_or(|auth| auth.trim_start().starts_with('{')), "no credentials");
                let twice = self.slots.keys().any(|slot| self.names.get(slot) == Some(namespace));
                assert!(!twice, "a namespace is joined twice");
                self.last_slot = Some(*slot);
                self.slots.insert(*slot, false);
                self.names.insert(*slot, namespace.clone());
            }
            Action::Event { slot, event, .. } => {
                assert_eq!(self.slots.get(slot), Some(&true), "an event for no namespace");
                assert!(!socketio::is_reserved(event.name()), "a reserved event");
                assert!(event.data().attachments().len() <= 3, "too many attachments");
            }
            Action::Ack { slot, id, .. } => {
                assert_eq!(self.slots.get(slot), Some(&true), "an ack for no namespace");
                assert!(self.acks.remove(&(*slot, *id)), "an ack nobody waits for");
            }
            Action::AckExpired { slot, id } => {
                if self.expecting.take() != Some((*slot, *id)) {
                    assert!(self.acks.remove(&(*slot, *id)), "an ack expires that nobody waits for");
                }
            }
            Action::Disconnected { slot } => {
                assert_eq!(self.slots.get(slot), Some(&true), "a namespace that was not joined is left");
                self.leave(*slot);
            }
            Action::Write(text) => {
                let refused = self.client_spoke && text.starts_with('4');
                assert!(self.writes_due == 1 || refused, "nothing was to be written");
                self.writes_due = 0;
                let packet = Decoder::default().text(text.clone()).expect("we write packets").map(|p| p.kind());
                let control = [PacketKind::Connect, PacketKind::ConnectError, PacketKind::Disconnect];
                assert!(packet.is_some_and(|kind| control.contains(&kind)), "not ours to write");
            }
            Action::Close(_) => {
                self.closed = true;
                self.slots.clear();
                self.acks.clear();
            }
        }
    }

    fn leave(&mut self, slot: Slot) {
        self.slots.remove(&slot);
        self.acks.retain(|(owner, _)| *owner != slot);
    }
}
