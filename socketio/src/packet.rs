//! One packet and the grammar of its header: type, attachments, namespace, ack id.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use crate::data::{Data, Event};
use crate::error::DecodeError;
use crate::json::{self, Name};

/// The packet types of Socket.IO 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// `0`: asks to join a namespace, or says yes to it.
    Connect,
    /// `1`: leaves a namespace.
    Disconnect,
    /// `2`: a name and arguments.
    Event,
    /// `3`: the answer to an event.
    Ack,
    /// `4`: says no to a CONNECT.
    ConnectError,
    /// `5`: an event with attachments.
    BinaryEvent,
    /// `6`: an ack with attachments.
    BinaryAck,
}

impl PacketKind {
    /// The digit a packet of this kind starts with.
    #[must_use]
    pub const fn digit(self) -> char {
        match self {
            Self::Connect => '0',
            Self::Disconnect => '1',
            Self::Event => '2',
            Self::Ack => '3',
            Self::ConnectError => '4',
            Self::BinaryEvent => '5',
            Self::BinaryAck => '6',
        }
    }

    /// Whether attachments follow a packet of this kind.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }

    const fn from_digit(digit: u8) -> Option<Self> {
        Some(match digit {
            b'0' => Self::Connect,
            b'1' => Self::Disconnect,
            b'2' => Self::Event,
            b'3' => Self::Ack,
            b'4' => Self::ConnectError,
            b'5' => Self::BinaryEvent,
            b'6' => Self::BinaryAck,
            _ => return None,
        })
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "CONNECT",
            Self::Disconnect => "DISCONNECT",
            Self::Event => "EVENT",
            Self::Ack => "ACK",
            Self::ConnectError => "CONNECT_ERROR",
            Self::BinaryEvent => "BINARY_EVENT",
            Self::BinaryAck => "BINARY_ACK",
        })
    }
}

/// Whether an event may not have this name, because clients use it for something of their own.
///
/// The list is that of socket.io-parser 4.2.7: `connect`, `connect_error`, `disconnect`, `disconnecting`,
/// `newListener` and `removeListener`.
#[must_use]
pub fn is_reserved(event: &str) -> bool {
    matches!(event, "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener")
}

/// A decoded packet: who it is for, and its data as text that nobody has parsed yet.
#[derive(Debug, Clone)]
pub struct Packet {
    header: Header,
    body: Body,
    message: ByteString,
    attachments: Vec<Bytes>,
}

impl Packet {
    /// The packet type.
    #[must_use]
    pub const fn kind(&self) -> PacketKind {
        self.header.kind
    }

    /// The namespace, `/` where the packet names none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.header.namespace(&self.message)
    }

    /// The ack id. The reference server also takes one where it means nothing, as on CONNECT; so do we.
    #[must_use]
    pub const fn ack_id(&self) -> Option<u64> {
        self.header.ack_id
    }

    /// Takes out what the packet carries.
    #[must_use]
    pub fn into_content(self) -> Content {
        let Self { header, body, message, attachments } = self;
        let text = |message: &ByteString, start| message.slice_ref(message.get(start..).unwrap_or_default());
        match (header.kind, body) {
            (PacketKind::Connect, Body::Text { start }) => Content::Connect(Some(text(&message, start))),
            (PacketKind::Connect, _) => Content::Connect(None),
            (PacketKind::Disconnect, _) => Content::Disconnect,
            (PacketKind::ConnectError, Body::Text { start }) => Content::ConnectError(Some(text(&message, start))),
            (PacketKind::ConnectError, _) => Content::ConnectError(None),
            (PacketKind::Event | PacketKind::BinaryEvent, Body::Event { name, start, arguments_at }) => {
                Content::Event(Some(Event::new(name, Data::new(message, start, arguments_at, attachments))))
            }
            (PacketKind::Event | PacketKind::BinaryEvent, _) => Content::Event(None),
            (PacketKind::Ack | PacketKind::BinaryAck, Body::Array { start, arguments_at }) => {
                Content::Ack(Data::new(message, start, arguments_at, attachments))
            }
            (PacketKind::Ack | PacketKind::BinaryAck, _) => {
                Content::Ack(Data::new(ByteString::from_static("[]"), 0, 1, attachments))
            }
        }
    }

    /// Checks the data of a packet whose header has been read, as far as that goes without parsing arguments.
    pub(crate) fn new(message: ByteString, header: Header) -> Result<Self, DecodeError> {
        let start = header.data_at;
        let body = if start >= message.len() { Body::Absent } else { Body::of(header.kind, &message, start)? };
        Ok(Self { header, body, message, attachments: Vec::new() })
    }

    /// The JSON array of an event or ack, for the passes that only binary packets get.
    pub(crate) fn array(&self) -> Option<&str> {
        match self.body {
            Body::Event { start, .. } | Body::Array { start, .. } => self.message.get(start..),
            Body::Absent | Body::Text { .. } => None,
        }
    }

    pub(crate) fn text_bytes(&self) -> usize {
        self.message.len()
    }

    pub(crate) fn attach(&mut self, attachment: Bytes) {
        self.attachments.push(attachment);
    }
}

/// What a packet carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// CONNECT: the credentials of a client or the `sid` from a server, a JSON object.
    Connect(Option<ByteString>),
    /// DISCONNECT.
    Disconnect,
    /// EVENT or BINARY_EVENT. None for the packet without data, which the reference server takes and forgets.
    Event(Option<Event>),
    /// ACK or BINARY_ACK.
    Ack(Data),
    /// CONNECT_ERROR: a JSON object, or a string from servers of protocol 4.
    ConnectError(Option<ByteString>),
}

/// Where the parts of a packet lie in its message. Offsets, not slices: the message moves into the [`Data`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) kind: PacketKind,
    /// Zero unless the kind is binary. A count beyond `u32` is held as `u32::MAX`.
    pub(crate) attachments: u32,
    pub(crate) ack_id: Option<u64>,
    namespace: Option<(usize, usize)>,
    data_at: usize,
}

impl Header {
    /// Reads `<type>[<attachments>-][<namespace>,][<ack id>]` in one pass.
    pub(crate) fn parse(message: &str) -> Result<Self, DecodeError> {
        let mut bytes = message.bytes();
        let kind = PacketKind::from_digit(bytes.next().ok_or(DecodeError::Empty)?).ok_or(DecodeError::UnknownKind)?;
        let mut at = 1;
        let mut attachments = 0;
        if kind.is_binary() {
            let digits = digits(message, at);
            at += digits.len();
            if digits.is_empty() || message.as_bytes().get(at) != Some(&b'-') {
                return Err(DecodeError::AttachmentCount);
            }
            at += 1;
            attachments = number(digits).map_or(u32::MAX, |count| u32::try_from(count).unwrap_or(u32::MAX));
            // Zero would leave a packet that no attachment completes (CVE-2026-69185).
            if attachments == 0 {
                return Err(DecodeError::NoAttachments);
            }
        }
        let mut namespace = None;
        if message.as_bytes().get(at) == Some(&b'/') {
            let rest = message.get(at..).unwrap_or_default();
            let end = at + rest.bytes().position(|byte| byte == b',').unwrap_or(rest.len());
            namespace = Some((at, end));
            at = (end + 1).min(message.len());
        }
        let digits = digits(message, at);
        at += digits.len();
        let ack_id = if digits.is_empty() { None } else { Some(number(digits).ok_or(DecodeError::AckIdTooLarge)?) };
        Ok(Self { kind, attachments, ack_id, namespace, data_at: at })
    }

    pub(crate) fn namespace<'a>(&self, message: &'a str) -> &'a str {
        self.namespace.and_then(|(start, end)| message.get(start..end)).unwrap_or("/")
    }
}

#[derive(Debug, Clone)]
enum Body {
    Absent,
    Text { start: usize },
    Array { start: usize, arguments_at: usize },
    Event { name: Name, start: usize, arguments_at: usize },
}

impl Body {
    fn of(kind: PacketKind, message: &str, start: usize) -> Result<Self, DecodeError> {
        let data = message.get(start..).unwrap_or_default();
        json::check_depth(data)?;
        let shape = |openers: &[char]| {
            if json::skip_whitespace(data).starts_with(openers) { Ok(()) } else { Err(DecodeError::Shape { kind }) }
        };
        match kind {
            PacketKind::Connect => shape(&['{'])?,
            PacketKind::ConnectError => shape(&['{', '"'])?,
            PacketKind::Disconnect => shape(&[])?,
            PacketKind::Event | PacketKind::BinaryEvent => {
                shape(&['['])?;
                let (name, arguments_at) = json::event_head(message, start)?;
                if is_reserved(name.of(message)) {
                    return Err(DecodeError::ReservedEvent);
                }
                return Ok(Self::Event { name, start, arguments_at });
            }
            PacketKind::Ack | PacketKind::BinaryAck => {
                shape(&['['])?;
                return Ok(Self::Array { start, arguments_at: json::array_head(message, start)? });
            }
        }
        if json::is_valid(data) { Ok(Self::Text { start }) } else { Err(DecodeError::Json) }
    }
}

/// The decimal digits from `at` on.
fn digits(message: &str, at: usize) -> &str {
    let rest = message.get(at..).unwrap_or_default();
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// The value of decimal digits; leading zeros are fine, as in the reference parser.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().try_fold(0_u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}
