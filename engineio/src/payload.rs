//! Many packets, to and from the body of one polling request or response.
//!
//! Packets are joined by the record separator `\x1e`; a binary message is `b` and base64.
//!
//! Source: Engine.IO protocol v4, "HTTP long-polling: packet encoding".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};
use bytestring::ByteString;

use crate::error::DecodeError;
use crate::frame::{Frame, FrameKind};
use crate::packet::Packet;

/// Stands between two packets of a payload.
pub const SEPARATOR: u8 = 0x1e;

/// Decodes a polling body, packet by packet, each when it is asked for.
///
/// Packets before a wrong one are still yielded; after an error the iterator ends. A body may hold as many packets as fit
/// into it: clients know a limit for its bytes only.
pub fn decode(body: ByteString) -> Decode {
    let shares = if body.len() > MAX_SHARED_BYTES { body.len() / 2 } else { 0 };
    Decode { rest: Some(body.into_bytes()), shares }
}

/// All packets of a body up to this size share its memory. Of a larger one, which a packet that waits for its handler would
/// keep whole, only a packet does that is half of it; others are copied.
const MAX_SHARED_BYTES: usize = 2 * 1024;

/// The iterator that [`decode`] returns.
#[derive(Debug)]
pub struct Decode {
    rest: Option<Bytes>,
    /// A packet of fewer bytes is copied out of the body.
    shares: usize,
}

impl Decode {
    /// Returns how many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.as_ref().map_or(0, Bytes::len)
    }

    /// Returns `true` if there are no more packets.
    pub fn is_finished(&self) -> bool {
        self.rest.is_none()
    }
}

impl Iterator for Decode {
    type Item = Result<Packet, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.rest.take()?;
        let frame = match memchr::memchr(SEPARATOR, &rest) {
            Some(end) => {
                let frame = rest.split_to(end);
                rest.advance(1);
                self.rest = Some(rest);
                frame
            }
            None => rest,
        };
        let copied = frame.len() < self.shares;
        let packet = Packet::decode_bytes(if copied { Bytes::copy_from_slice(&frame) } else { frame });
        if packet.is_err() {
            self.rest = None;
        }
        Some(packet)
    }
}

/// Appends one frame to a payload, with a separator where it is not the first.
pub fn encode(body: &mut String, frame: &Frame) {
    if !body.is_empty() {
        body.push(char::from(SEPARATOR));
    }
    match frame.kind() {
        FrameKind::Text => body.push_str(frame.as_text()),
        FrameKind::Binary => {
            body.push('b');
            BASE64.encode_string(frame.data(), body);
        }
        FrameKind::Control => {}
    }
}

/// Returns how many bytes [`encode`] appends for this frame, separator included.
pub fn encoded_len(frame: &Frame) -> usize {
    match frame.kind() {
        FrameKind::Text => frame.data().len() + 1,
        FrameKind::Binary => frame.data().len().div_ceil(3) * 4 + 2,
        FrameKind::Control => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::packet::Message;

    fn packets(body: &'static str) -> Vec<Result<Packet, DecodeError>> {
        decode(ByteString::from_static(body)).collect()
    }

    fn text(text: &'static str) -> Packet {
        Packet::Message(Message::Text(ByteString::from_static(text)))
    }

    #[test]
    fn packets_are_split_at_the_separator() {
        assert_eq!(packets("4a\x1e4b\x1e1"), [Ok(text("a")), Ok(text("b")), Ok(Packet::Close)]);
    }

    #[test]
    fn packets_before_a_wrong_one_survive_and_those_after_it_do_not() {
        assert_eq!(packets("4a\x1eabc\x1e4b"), [Ok(text("a")), Err(DecodeError::UnknownKind(b'a'))]);
    }

    #[test]
    fn an_empty_body_and_a_trailing_separator_are_errors() {
        assert_eq!(packets(""), [Err(DecodeError::Empty)]);
        assert_eq!(packets("4a\x1e"), [Ok(text("a")), Err(DecodeError::Empty)]);
    }

    #[test]
    fn text_and_binary_frames_are_joined_and_measured() {
        let frames =
            [Frame::message(&Message::Text("a".into())), Frame::message(&Message::Binary(Bytes::from_static(&[1, 2])))];
        let mut body = String::new();
        for frame in &frames {
            let before = body.len();
            encode(&mut body, frame);
            assert!(body.len() - before <= encoded_len(frame));
        }
        assert_eq!(body, "4a\x1ebAQI=");
    }
}
