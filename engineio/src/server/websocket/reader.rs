//! Tungstenite over bytes in memory. A connection that is between two messages holds nothing of it.
//!
//! The worker thread keeps one tungstenite machine, with its buffer, for whichever connection has input. A connection
//! that has sent part of a message takes it along until the rest has come.

use std::cell::Cell;
use std::io::{self, Read, Write};

use bytes::Bytes;
use bytestring::ByteString;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Message, Utf8Bytes};

use super::{End, Event};
use crate::frame::Frame;
use crate::session::WsFrame;

/// The reading half of a WebSocket.
pub(super) struct Reader {
    max_message_bytes: usize,
    /// The machine, while it holds part of a message.
    context: Option<Box<WebSocketContext>>,
    /// Bytes of input that no message accounts for. As soon as there are none, the machine holds nothing.
    ///
    /// The headers of a message in fragments or with a length that is spelled longer than it must be are never
    /// accounted for: such a connection keeps its machine.
    unaccounted: u64,
    /// The machine's buffer has grown too large to be kept.
    grown: bool,
}

/// What became of a piece of input.
pub(super) enum Fed {
    All,
    /// The receiver of events wants no more.
    Stopped,
    Ended(End),
    /// The peer broke the rules; the code says which.
    Failed(u16),
}

// Close codes of RFC 6455, section 7.4.1.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

impl Reader {
    pub(super) fn new(max_message_bytes: usize) -> Self {
        Self { max_message_bytes, context: None, unaccounted: 0, grown: false }
    }

    /// Runs tungstenite over a piece of input. A stop takes effect after the piece, so that nothing read is kept.
    ///
    /// `close_code` gets the code of a close frame that had one.
    pub(super) fn feed(
        &mut self,
        input: &[u8],
        close_code: &mut Option<u16>,
        on_event: &mut impl FnMut(Event) -> bool,
    ) -> Fed {
        let mut context = self.context.take().unwrap_or_else(|| take_spare(self.max_message_bytes));
        self.unaccounted += input.len() as u64;
        let mut pipe = Pipe { input, output: Vec::new() };
        let mut go_on = true;
        loop {
            let result = context.read(&mut pipe);
            if !pipe.output.is_empty() {
                let pong = Frame::control(std::mem::take(&mut pipe.output).into());
                go_on &= on_event(Event::Control(pong));
            }
            let message = match result {
                Ok(message) => message,
                Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(tungstenite::Error::Capacity(_)) => return Fed::Failed(TOO_BIG),
                Err(tungstenite::Error::Utf8(_)) => return Fed::Failed(NOT_UTF8),
                Err(_protocol) => return Fed::Failed(PROTOCOL_ERROR),
            };
            self.unaccounted = self.unaccounted.saturating_sub(wire_len(message.len()));
            self.grown |= message.len() > MAX_COPIED_BYTES;
            match message {
                Message::Text(text) => match own_text(text) {
                    Some(text) => go_on &= on_event(Event::Frame(WsFrame::Text(text))),
                    None => return Fed::Failed(NOT_UTF8),
                },
                Message::Binary(bytes) => go_on &= on_event(Event::Frame(WsFrame::Binary(own(bytes)))),
                Message::Close(frame) => {
                    *close_code = frame.map(|frame| u16::from(frame.code));
                    // Other codes report trouble, the peer's own or that of something in between: no goodbye.
                    let goodbye = matches!(close_code, None | Some(NORMAL | GOING_AWAY));
                    return Fed::Ended(if goodbye { End::CloseFrame } else { End::Lost });
                }
                // Answered by tungstenite at its next turn and, as in engine.io, no sign of life for the session.
                Message::Ping(_) => continue,
                Message::Pong(_) | Message::Frame(_) => {}
            }
            if self.unaccounted == 0 {
                break;
            }
        }
        if self.unaccounted > 0 {
            self.context = Some(context);
        } else if !std::mem::take(&mut self.grown) {
            SPARE.set(Some(context));
        }
        if go_on { Fed::All } else { Fed::Stopped }
    }
}

/// Returns the length of a message's frame as a client should write it: masked, in one piece.
fn wire_len(payload: usize) -> u64 {
    let header = match payload {
        0..126 => 6,
        126..65_536 => 8,
        _ => 14,
    };
    payload as u64 + header
}

/// Makes a payload independent of tungstenite's buffer: whoever keeps a small message would keep the buffer alive. A
/// large one has the buffer to itself.
fn own(payload: Bytes) -> Bytes {
    if payload.len() > MAX_COPIED_BYTES { payload } else { Bytes::copy_from_slice(&payload) }
}

fn own_text(payload: Utf8Bytes) -> Option<ByteString> {
    if payload.len() > MAX_COPIED_BYTES {
        return ByteString::try_from(Bytes::from(payload)).ok();
    }
    Some(ByteString::from(payload.as_str()))
}

thread_local! {
    static SPARE: Cell<Option<Box<WebSocketContext>>> = const { Cell::new(None) };
}

/// Takes this thread's machine, or makes one.
fn take_spare(max_message_bytes: usize) -> Box<WebSocketContext> {
    let limit = Some(max_message_bytes);
    match SPARE.take() {
        Some(mut context) => {
            // Servers in one process may differ in their limits.
            if context.get_config().max_message_size != limit {
                context.set_config(|config| {
                    *config = config.max_message_size(limit).max_frame_size(limit);
                });
            }
            context
        }
        None => {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_CHUNK)
                .write_buffer_size(0)
                .max_write_buffer_size(MAX_CONTROL_BYTES)
                .max_message_size(limit)
                .max_frame_size(limit);
            Box::new(WebSocketContext::new(Role::Server, Some(config)))
        }
    }
}

/// What tungstenite asks for at a time, and fills with zeros before. It copies from memory here, so this costs no
/// system calls.
const READ_CHUNK: usize = 2048;
/// Messages up to this size are copied out of tungstenite's buffer, which is then used again.
const MAX_COPIED_BYTES: usize = 8192;
/// Tungstenite itself writes pongs and close frames only, at most 131 bytes each.
const MAX_CONTROL_BYTES: usize = 1024;

/// Memory on both sides of tungstenite: it reads a piece of input and then would block.
struct Pipe<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Read::read(&mut self.input, buf)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Write::write(&mut self.output, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame with a mask of zeros; `spelled` is the bytes of its length.
    fn frame(first: u8, spelled: &[u8], payload: &[u8]) -> Vec<u8> {
        [&[first, 0x80 | spelled[0]], &spelled[1..], &[0; 4], payload].concat()
    }

    fn text(payload: &str) -> Vec<u8> {
        match payload.len() {
            len @ 0..126 => frame(0x81, &[len as u8], payload.as_bytes()),
            len @ 126..65_536 => frame(0x81, &[&[126][..], &(len as u16).to_be_bytes()].concat(), payload.as_bytes()),
            len => frame(0x81, &[&[127][..], &(len as u64).to_be_bytes()].concat(), payload.as_bytes()),
        }
    }

    struct Test {
        reader: Reader,
        read: Vec<String>,
        pongs: Vec<Vec<u8>>,
    }

    impl Test {
        fn new() -> Self {
            SPARE.take();
            Self { reader: Reader::new(1_000_000), read: Vec::new(), pongs: Vec::new() }
        }

        fn feed(&mut self, input: &[u8]) -> Fed {
            let Self { reader, read, pongs } = self;
            reader.feed(input, &mut None, &mut |event| {
                match event {
                    Event::Frame(WsFrame::Text(text)) => read.push(text.to_string()),
                    Event::Frame(WsFrame::Binary(bytes)) => read.push(format!("{bytes:?}")),
                    Event::Control(frame) => pongs.push(frame.wire().to_vec()),
                }
                true
            })
        }

        fn holds_nothing(&self) -> bool {
            self.reader.context.is_none()
        }
    }

    fn has_spare() -> bool {
        let spare = SPARE.take();
        let has = spare.is_some();
        SPARE.set(spare);
        has
    }

    #[test]
    fn a_connection_between_messages_holds_nothing() {
        for payload in ["", "a", &"b".repeat(125), &"c".repeat(126), &"d".repeat(5000)] {
            let mut test = Test::new();
            test.feed(&[text(payload), text("x")].concat());
            assert_eq!(test.read, [payload, "x"]);
            assert!(test.holds_nothing() && has_spare(), "{}", payload.len());
        }
    }

    #[test]
    fn part_of_a_message_stays_with_its_connection() {
        let (mut one, mut other) = (Test::new(), Test::new());
        let input = [text("first"), text(&"é".repeat(100))].concat();
        for byte in &input {
            one.feed(&[*byte]);
            other.feed(&text("other"));
            assert!(other.holds_nothing());
        }
        assert_eq!(one.read, ["first", &"é".repeat(100)]);
        assert!(one.holds_nothing());
        assert_eq!(other.read.len(), input.len());
    }

    #[test]
    fn a_large_message_takes_its_buffer_along() {
        let mut test = Test::new();
        test.feed(&text(&"x".repeat(100_000)));
        assert_eq!(test.read[0].len(), 100_000);
        assert!(test.holds_nothing() && !has_spare());
        test.feed(&text("small"));
        assert!(test.holds_nothing() && has_spare());
    }

    #[test]
    fn fragments_and_long_lengths_are_read_by_a_machine_of_their_own() {
        let mut test = Test::new();
        test.feed(&[frame(0x01, &[2], b"ab"), frame(0x80, &[1], b"c")].concat());
        test.feed(&text("next"));
        assert_eq!(test.read, ["abc", "next"]);
        assert!(!test.holds_nothing());
        let mut test = Test::new();
        test.feed(&[frame(0x81, &[126, 0, 1], b"a"), text("next")].concat());
        assert_eq!(test.read, ["a", "next"]);
        assert!(!test.holds_nothing());
    }

    #[test]
    fn a_ping_is_answered_before_the_machine_is_given_back() {
        let mut test = Test::new();
        test.feed(&frame(0x89, &[2], b"hi"));
        assert_eq!(test.pongs, [b"\x8a\x02hi"]);
        assert!(test.holds_nothing() && has_spare());
    }

    #[test]
    fn what_breaks_the_rules_leaves_no_machine_behind() {
        for (input, code) in [
            (frame(0x81, &[1], b"\xff"), NOT_UTF8),
            (vec![0x81, 1, b'a'], PROTOCOL_ERROR),
            (text(&"x".repeat(1_000_001)), TOO_BIG),
        ] {
            let mut test = Test::new();
            assert!(matches!(test.feed(&input), Fed::Failed(failed) if failed == code));
            assert!(test.holds_nothing() && !has_spare());
        }
    }

    #[test]
    fn each_server_has_its_own_limit() {
        let mut large = Test::new();
        large.feed(&text("x"));
        let mut small = Test { reader: Reader::new(10), read: Vec::new(), pongs: Vec::new() };
        assert!(matches!(small.feed(&text("longer than ten")), Fed::Failed(TOO_BIG)));
    }
}
