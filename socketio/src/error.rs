//! The error families, sorted by whose fault they are, and why a connection is closed.

use std::fmt;

use crate::packet::PacketKind;

/// Bytes from the peer that are no Socket.IO packet. Never holds what the peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A text message without a packet type.
    Empty,
    /// The first character is no digit from `0` to `6`.
    UnknownKind,
    /// A binary packet whose type is not followed by decimal digits and a `-`.
    AttachmentCount,
    /// A binary packet that announces zero attachments; it would never be complete.
    NoAttachments,
    /// A binary packet that announces more attachments than
    /// [`DecoderConfig::max_attachments`](crate::DecoderConfig::max_attachments).
    TooManyAttachments {
        /// The limit in force.
        limit: u32,
    },
    /// A namespace name longer than [`DecoderConfig::max_namespace_bytes`](crate::DecoderConfig::max_namespace_bytes).
    NamespaceTooLong {
        /// Bytes in the name.
        length: usize,
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// An ack id beyond 64 bits.
    AckIdTooLarge,
    /// Data that is not valid JSON.
    Json,
    /// JSON nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    TooDeep,
    /// Valid so far, but not the JSON type this packet carries: an object for CONNECT, nothing for DISCONNECT,
    /// an array for events and acks.
    Shape {
        /// The packet that carried it.
        kind: PacketKind,
    },
    /// An event whose first element is neither a string nor a number.
    EventName,
    /// An event under a [reserved name](crate::is_reserved).
    ReservedEvent,
    /// A placeholder whose `num` is not the index of an announced attachment.
    Placeholder,
    /// A binary packet larger than [`DecoderConfig::max_binary_bytes`](crate::DecoderConfig::max_binary_bytes).
    BinaryTooLarge {
        /// The limit in force, in bytes.
        limit: usize,
    },
    /// A text message where an attachment was due.
    TextBetweenAttachments {
        /// Attachments still missing.
        missing: u32,
    },
    /// A binary message that no packet announced.
    UnsolicitedBinary,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the message is empty"),
            Self::UnknownKind => f.write_str("unknown packet type"),
            Self::AttachmentCount => f.write_str("the attachment count is not a number"),
            Self::NoAttachments => f.write_str("a binary packet without attachments"),
            Self::TooManyAttachments { limit } => write!(f, "more than {limit} attachments"),
            Self::NamespaceTooLong { length, limit } => {
                write!(f, "a namespace name of {length} bytes, more than {limit}")
            }
            Self::AckIdTooLarge => f.write_str("the ack id does not fit 64 bits"),
            Self::Json => f.write_str("the data is not valid JSON"),
            Self::TooDeep => f.write_str("the data is nested too deep"),
            Self::Shape { kind } => write!(f, "data of the wrong JSON type in {kind}"),
            Self::EventName => f.write_str("the event name is neither a string nor a number"),
            Self::ReservedEvent => f.write_str("the event name is reserved"),
            Self::Placeholder => f.write_str("a placeholder names no attachment"),
            Self::BinaryTooLarge { limit } => write!(f, "a binary packet of more than {limit} bytes"),
            Self::TextBetweenAttachments { missing } => {
                write!(f, "a text message while {missing} attachments were due")
            }
            Self::UnsolicitedBinary => f.write_str("a binary message that no packet announced"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// What one connection knows of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceState {
    /// Not asked for, refused or left.
    Absent,
    /// Asked for; the middleware has not answered yet.
    Pending,
    /// Joined.
    Connected,
}

impl fmt::Display for NamespaceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Pending => "pending",
            Self::Connected => "connected",
        })
    }
}

/// A well-formed packet at a moment the protocol does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A packet that the state of its namespace does not allow: a second CONNECT, an event before it, and
    /// CONNECT_ERROR always, since only servers send it.
    Unexpected {
        /// The packet.
        kind: PacketKind,
        /// The state of its namespace.
        state: NamespaceState,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected { kind, state } => write!(f, "{kind} for a namespace that is {state}"),
        }
    }
}

impl std::error::Error for Violation {}

/// A packet our own caller asked for that cannot be written. Holds nothing a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UsageError {
    /// An event under a [reserved name](crate::is_reserved).
    ReservedEvent,
    /// A namespace that does not start with `/`, or has a comma in it.
    Namespace,
    /// An argument that its own `Serialize` refused, with that message.
    Serialize(String),
    /// Forwarded [`Data`](crate::Data) that turned out not to be valid JSON.
    MalformedData,
    /// Arguments nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    TooDeep,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedEvent => f.write_str("the event name is reserved"),
            Self::Namespace => f.write_str("a namespace starts with `/` and has no comma"),
            Self::Serialize(message) => write!(f, "an argument cannot be serialized: {message}"),
            Self::MalformedData => f.write_str("the forwarded data is not valid JSON"),
            Self::TooDeep => f.write_str("the arguments are nested too deep"),
        }
    }
}

impl std::error::Error for UsageError {}

/// Why the arguments of an event or ack did not become the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataError {
    /// The text is not JSON. The peer broke the protocol: hand the core
    /// [`Input::Malformed`](crate::Input::Malformed), which closes the connection.
    Malformed,
    /// Valid JSON of another shape than the handler expects; the connection is fine.
    Mismatch {
        /// Which argument, counted from zero.
        argument: usize,
        /// What was expected, in serde's words, with everything the peer sent taken out.
        message: String,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the arguments are not valid JSON"),
            Self::Mismatch { argument, message } => write!(f, "argument {argument}: {message}"),
        }
    }
}

impl std::error::Error for DataError {}

/// Why the whole connection is closed, every namespace with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer sent something that is no packet.
    Malformed(DecodeError),
    /// The peer sent a packet at the wrong moment.
    Violation(Violation),
    /// No namespace was joined within [`ConnectionConfig::connect_timeout`](crate::ConnectionConfig::connect_timeout).
    ConnectTimeout,
}

impl CloseReason {
    /// The disconnect reason that handlers see, in the words of socket.io 4.8.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(_) => "forced close",
            Self::Violation(_) | Self::ConnectTimeout => "forced server close",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => error.fmt(f),
            Self::Violation(violation) => violation.fmt(f),
            Self::ConnectTimeout => f.write_str("no namespace was joined in time"),
        }
    }
}

impl From<DecodeError> for CloseReason {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
