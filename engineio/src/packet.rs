//! One packet, to and from one text or binary frame.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf, Bytes};
use bytestring::ByteString;

use crate::error::DecodeError;

/// What an application sends and receives: the data of one `message` packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text, as UTF-8.
    Text(ByteString),
    /// Bytes, which reach the peer as they are.
    Binary(Bytes),
}

impl Message {
    /// Returns the length of the data in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Tells whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One Engine.IO packet.
///
/// Source: Engine.IO protocol v4, "Packet encoding".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0`: the handshake, as JSON. Only a server sends it.
    Open(ByteString),
    /// `1`: the session ends.
    Close,
    /// `2`: a heartbeat, or with the text `probe` the first step of an upgrade.
    Ping(ByteString),
    /// `3`: the answer to a ping, with the ping's text.
    Pong(ByteString),
    /// `4`, or a binary frame: data of the application.
    Message(Message),
    /// `5`: the last step of an upgrade.
    Upgrade,
    /// `6`: nothing; it releases a waiting poll.
    Noop,
}

impl Packet {
    /// Decodes one text frame: a type digit, then the data.
    ///
    /// `b` and base64 is accepted as a binary message, as engine.io 6.6 does on every transport: with or without line
    /// breaks and padding, and with the letters of the URL-safe alphabet too, since clients send all of these.
    ///
    /// # Errors
    /// [`DecodeError`] for an empty frame, an unknown type, or wrong base64.
    pub fn decode(frame: ByteString) -> Result<Self, DecodeError> {
        Self::decode_bytes(frame.into_bytes())
    }

    /// Decodes bytes that are a packet's text; its data, without the type digit, is checked to be UTF-8.
    pub(crate) fn decode_bytes(mut frame: Bytes) -> Result<Self, DecodeError> {
        let Some(&kind) = frame.first() else {
            return Err(DecodeError::Empty);
        };
        // Advancing costs no allocation where the frame has its bytes to itself; a slice would.
        frame.advance(1);
        let text = |data: Bytes| ByteString::try_from(data).map_err(|_| DecodeError::Utf8);
        Ok(match kind {
            b'0' => Self::Open(text(frame)?),
            b'1' => Self::Close,
            b'2' => Self::Ping(text(frame)?),
            b'3' => Self::Pong(text(frame)?),
            b'4' => Self::Message(Message::Text(text(frame)?)),
            b'5' => Self::Upgrade,
            b'6' => Self::Noop,
            b'b' => {
                let bytes = decode_base64(&frame).map_err(|_| DecodeError::Base64)?;
                Self::Message(Message::Binary(bytes.into()))
            }
            other => return Err(DecodeError::UnknownKind(other)),
        })
    }
}

/// Padding may be missing; bits behind the last byte are ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Decodes base64 as Node.js does, except that letters of no alphabet are errors and not passed over.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, base64::DecodeError> {
    // Nearly all of it comes in one line and with the standard letters.
    BASE64.decode(text).or_else(|error| {
        if !text.iter().any(|letter| matches!(letter, b'\r' | b'\n' | b'-' | b'_')) {
            return Err(error);
        }
        let letters = text.iter().filter(|letter| !matches!(letter, b'\r' | b'\n'));
        let standard = letters.map(|&letter| match letter {
            b'-' => b'+',
            b'_' => b'/',
            letter => letter,
        });
        BASE64.decode(standard.collect::<Vec<u8>>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_digit_is_decoded() {
        let text = |text: &'static str| ByteString::from_static(text);
        for (frame, packet) in [
            ("0{}", Packet::Open(text("{}"))),
            ("1", Packet::Close),
            ("2", Packet::Ping(text(""))),
            ("2probe", Packet::Ping(text("probe"))),
            ("3probe", Packet::Pong(text("probe"))),
            ("4", Packet::Message(Message::Text(text("")))),
            ("4é", Packet::Message(Message::Text(text("é")))),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
            ("bAQID", Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3])))),
            ("bAQ\r\nID\n", Packet::Message(Message::Binary(Bytes::from_static(&[1, 2, 3])))),
            ("b-_", Packet::Message(Message::Binary(Bytes::from_static(&[0xfb])))),
        ] {
            assert_eq!(Packet::decode(text(frame)), Ok(packet), "{frame}");
        }
    }

    #[test]
    fn wrong_bytes_are_sorted_by_kind() {
        for (frame, error) in [
            ("", DecodeError::Empty),
            ("7", DecodeError::UnknownKind(b'7')),
            ("abc", DecodeError::UnknownKind(b'a')),
            ("é", DecodeError::UnknownKind(0xc3)),
            ("b*", DecodeError::Base64),
            ("bA", DecodeError::Base64),
            ("bAQ ID", DecodeError::Base64),
            ("bAQI==", DecodeError::Base64),
            ("bAQ==AQ==", DecodeError::Base64),
        ] {
            assert_eq!(Packet::decode(ByteString::from_static(frame)), Err(error), "{frame}");
        }
    }
}
