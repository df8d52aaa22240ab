//! A message encoded once, ready for a WebSocket and for a poll, shared by every recipient.

use std::cell::Cell;

use bytes::Bytes;

use crate::packet::Message;
use crate::session::FRAME_OVERHEAD_BYTES;

/// Room for the longest header of an unmasked WebSocket frame.
const HEADER_ROOM: usize = 10;
const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// How a [`Frame`] travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A text frame: the packet's type digit and its data.
    Text,
    /// A binary frame: the data alone.
    Binary,
    /// A finished WebSocket control frame; it has no form on a poll.
    Control,
}

/// One packet in its wire form. A clone costs a reference count.
///
/// The bytes are those of a complete, unmasked WebSocket frame; a poll takes the part behind the header.
///
/// Source: RFC 6455, section 5.2.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
    header_len: u8,
    kind: FrameKind,
}

impl std::fmt::Debug for Frame {
    // Data of the application is private: logs get its size only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("kind", &self.kind).field("data_bytes", &self.data().len()).finish()
    }
}

impl Frame {
    /// A heartbeat of the server's: the packet `2`.
    pub(crate) fn ping() -> Self {
        Self { wire: Bytes::from_static(b"\x81\x012"), header_len: 2, kind: FrameKind::Text }
    }

    /// Encodes a message.
    pub fn message(message: &Message) -> Self {
        match message {
            Message::Text(text) => Self::text_with(text.len(), |data| data.extend_from_slice(text.as_bytes())),
            Message::Binary(bytes) => Self::binary(bytes),
        }
    }

    /// Encodes a text message that `write` appends to the buffer it is given, which has room for `len` bytes.
    ///
    /// The buffer already holds what comes before the data; `write` must only append, and only UTF-8.
    pub fn text_with(len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        Self::encode(FrameKind::Text, 1 + len, |wire| {
            wire.push(b'4');
            write(wire);
        })
    }

    /// Encodes a binary message.
    pub fn binary(data: &[u8]) -> Self {
        Self::encode(FrameKind::Binary, data.len(), |wire| wire.extend_from_slice(data))
    }

    /// Encodes a packet that is not a message, given as its text: `2`, `3probe`, `0{…}`.
    pub(crate) fn packet(text: &str) -> Self {
        Self::encode(FrameKind::Text, text.len(), |wire| wire.extend_from_slice(text.as_bytes()))
    }

    /// Wraps a control frame that is complete as it is.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn control(wire: Bytes) -> Self {
        Self { wire, header_len: 0, kind: FrameKind::Control }
    }

    /// Has the data written into a buffer of this thread, puts the header right before it, and copies the frame out
    /// at its final size: one allocation without room to spare.
    fn encode(kind: FrameKind, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut wire = SCRATCH.take(); // empty where `write` itself encodes a frame
        wire.clear();
        wire.reserve(HEADER_ROOM + len);
        wire.extend_from_slice(&[0; HEADER_ROOM]);
        write(&mut wire);
        let opcode = FIN | if kind == FrameKind::Text { TEXT } else { BINARY };
        let len = wire.len() - HEADER_ROOM;
        let header_len = if len < 126 {
            wire[HEADER_ROOM - 2] = opcode;
            wire[HEADER_ROOM - 1] = len as u8;
            2
        } else if let Ok(short) = u16::try_from(len) {
            wire[HEADER_ROOM - 4] = opcode;
            wire[HEADER_ROOM - 3] = 126;
            wire[HEADER_ROOM - 2..HEADER_ROOM].copy_from_slice(&short.to_be_bytes());
            4
        } else {
            wire[0] = opcode;
            wire[1] = 127;
            wire[2..HEADER_ROOM].copy_from_slice(&(len as u64).to_be_bytes());
            10
        };
        let start = HEADER_ROOM - header_len;
        let header_len = header_len as u8;
        if wire.len() > MAX_COPIED_BYTES {
            return Self { wire: Bytes::from(wire).slice(start..), header_len, kind };
        }
        let frame = Self { wire: Bytes::copy_from_slice(&wire[start..]), header_len, kind };
        SCRATCH.set(wire);
        frame
    }

    /// Tells how the frame travels.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Returns the complete WebSocket frame.
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Returns the part behind the WebSocket header: a packet in its text form, or the bytes of a binary message.
    pub fn data(&self) -> &[u8] {
        &self.wire[usize::from(self.header_len)..]
    }

    /// Returns the packet's text, empty where a writer appended bytes that are no UTF-8.
    pub(crate) fn as_text(&self) -> &str {
        std::str::from_utf8(self.data()).unwrap_or_default()
    }

    /// Returns how many bytes the frame is on a WebSocket.
    pub fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// Returns what the frame counts in a queue: its bytes, and what it occupies beside them.
    pub fn cost(&self) -> usize {
        self.wire.len() + FRAME_OVERHEAD_BYTES
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Frames beyond this keep the buffer they were written into.
const MAX_COPIED_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_grows_with_the_length() {
        for (len, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_535, vec![0x82, 126, 0xff, 0xff]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let data = vec![7; len];
            let frame = Frame::binary(&data);
            assert_eq!(&frame.wire()[..header.len()], header, "{len}");
            assert_eq!(frame.data(), data, "{len}");
            assert_eq!(frame.wire_len(), header.len() + len);
        }
    }

    #[test]
    fn the_heartbeat_is_the_packet_2() {
        assert_eq!(Frame::ping(), Frame::packet("2"));
    }

    #[test]
    fn a_text_message_carries_its_type_digit() {
        let frame = Frame::message(&Message::Text("hé".into()));
        assert_eq!(frame.wire(), b"\x81\x044h\xc3\xa9");
        assert_eq!(frame.as_text(), "4hé");
    }

    #[test]
    fn debug_output_tells_the_size_and_not_the_data() {
        let frame = Frame::message(&Message::Text("secret".into()));
        assert_eq!(format!("{frame:?}"), "Frame { kind: Text, data_bytes: 7 }");
    }
}
