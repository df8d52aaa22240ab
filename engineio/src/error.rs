//! The error families, sorted by whose fault they are, and their one mapping to the wire.

use std::fmt;

/// The bytes are wrong: they are no Engine.IO packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A packet without its type digit.
    Empty,
    /// A type digit that protocol 4 does not have.
    UnknownKind(u8),
    /// A `b` packet whose data is no base64.
    Base64,
    /// A polling body that is no UTF-8.
    Utf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a packet has no type"),
            Self::UnknownKind(byte) => write!(f, "0x{byte:02x} is no packet type"),
            Self::Base64 => f.write_str("a binary packet is no base64"),
            Self::Utf8 => f.write_str("a payload is no UTF-8"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// The bytes are fine, the moment is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A second poll came while one was waiting.
    OverlappingPoll,
    /// A second POST came while one was being read.
    OverlappingPost,
    /// A ping came from the client; in protocol 4 the server sends them.
    PingFromClient,
    /// A POST announced `application/octet-stream`, which protocol 4 does not have.
    BinaryPost,
    /// A WebSocket that wants the session sent something other than its probe and its upgrade.
    UnexpectedOnCandidate,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OverlappingPoll => "two polls at once",
            Self::OverlappingPost => "two POST requests at once",
            Self::PingFromClient => "a ping from the client",
            Self::BinaryPost => "a POST with a binary body",
            Self::UnexpectedOnCandidate => "neither probe nor upgrade on an upgrading WebSocket",
        })
    }
}

impl std::error::Error for Violation {}

/// Why a request was refused, before or beside a session. The session that it names, if any, lives on.
///
/// Codes and messages are those of engine.io 6.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// Code 0: `transport` is missing, unknown or switched off.
    UnknownTransport,
    /// Code 1: `sid` names no open session.
    UnknownSid,
    /// Code 2: a handshake that is no GET.
    BadHandshakeMethod,
    /// Code 3: the request does not fit: another transport, another protocol revision than the session's, JSONP.
    BadRequest,
    /// Code 4: the origin is not allowed, or the application said no.
    Forbidden,
    /// Code 5: `EIO` is not 4.
    UnsupportedProtocol,
}

impl RequestError {
    #[cfg(feature = "server")]
    pub(crate) const ALL: [Self; 6] = [
        Self::UnknownTransport,
        Self::UnknownSid,
        Self::BadHandshakeMethod,
        Self::BadRequest,
        Self::Forbidden,
        Self::UnsupportedProtocol,
    ];

    /// Returns the code in the body of the answer.
    pub fn code(self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSid => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedProtocol => 5,
        }
    }

    /// Returns the message in the body of the answer.
    pub fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedProtocol => "Unsupported protocol version",
        }
    }

    /// Returns the HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::UnknownTransport
            | Self::UnknownSid
            | Self::BadHandshakeMethod
            | Self::BadRequest
            | Self::UnsupportedProtocol => 400,
        }
    }

    /// Returns the JSON body of the answer.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{}"}}"#, self.code(), self.message())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for RequestError {}

/// Why a session ended. [`as_str`](Self::as_str) gives the name that the reference server gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client said goodbye: a `close` packet, or a WebSocket close frame without a code or with 1000 or 1001.
    ClosedByClient,
    /// The connection ended without a goodbye, or with a close frame of another code.
    ConnectionLost,
    /// The transport failed or was misused: a frame error, an aborted poll, overlapping requests, a full queue.
    TransportError,
    /// No pong came in time.
    PingTimeout,
    /// The client sent bytes that are no packet.
    ParseError,
    /// The application closed the session.
    ForcedClose,
}

impl CloseReason {
    /// Returns the reason's name in engine.io: both ends of a connection by the client are `transport close`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClosedByClient | Self::ConnectionLost => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that [`Config`](crate::Config) does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What is allowed.
    pub allowed: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.allowed)
    }
}

impl std::error::Error for ConfigError {}
