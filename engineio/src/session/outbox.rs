//! What waits to be sent to one client: one order, two ways out, and what it costs to keep it.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::frame::{Frame, FrameKind};
use crate::payload;

/// Frames that wait for the transport. How many may wait is for the session and its shell to decide.
///
/// A WebSocket takes them in pieces, many in one write; a poll takes them as one payload.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that have been written.
    written: usize,
    bytes: usize,
    /// Bytes that the client has taken so far, to tell progress from a stall.
    taken: u64,
}

/// What a frame occupies in memory beside its bytes: its place in a queue, and its share of an allocation.
pub const FRAME_OVERHEAD_BYTES: usize = 64;

impl Outbox {
    /// Appends a frame.
    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += frame.wire_len();
        self.frames.push_back(frame);
    }

    /// Puts a frame before everything that has not begun to be written. The first frame of a session stays the first.
    pub(crate) fn push_next(&mut self, frame: Frame) {
        let first_unwritten = usize::from(self.written > 0 || self.taken == 0).min(self.frames.len());
        self.bytes += frame.wire_len();
        self.frames.insert(first_unwritten, frame);
    }

    /// Returns what the waiting frames count against limits: their bytes, and what each occupies beside them.
    pub fn cost(&self) -> usize {
        self.bytes + self.frames.len() * FRAME_OVERHEAD_BYTES
    }

    /// Returns how many bytes the client has taken since the session began.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Puts a control frame before everything that has not begun to be written, in place of one that waits already:
    /// a peer that floods us with pings while it reads nothing costs one pong (RFC 6455, section 5.5.3).
    pub fn push_control(&mut self, frame: Frame) {
        let first_unwritten = usize::from(self.written > 0);
        if let Some(waiting) = self.frames.get_mut(first_unwritten)
            && waiting.kind() == FrameKind::Control
        {
            self.bytes = self.bytes - waiting.wire_len() + frame.wire_len();
            *waiting = frame;
        } else {
            self.bytes += frame.wire_len();
            self.frames.insert(first_unwritten, frame);
        }
    }

    /// Tells whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns how many bytes are still to be written.
    pub fn remaining(&self) -> usize {
        self.bytes - self.written
    }

    /// Returns how many frames wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Yields what is still to be written, a piece for each frame.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut written = self.written; // of the first
        self.frames.iter().map(move |frame| &frame.wire()[std::mem::take(&mut written)..])
    }

    /// Returns how many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fills slices for one vectored write and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Drops what a write has taken.
    pub fn advance(&mut self, mut written: usize) {
        self.taken += written as u64;
        written += self.written;
        self.written = 0;
        while let Some(first) = self.frames.front() {
            let len = first.wire_len();
            if written < len {
                self.written = written;
                break;
            }
            written -= len;
            self.bytes -= len;
            self.frames.pop_front();
        }
        self.shrink();
    }

    /// Takes frames for one polling body: as many as fit into `max_bytes`, but at least one.
    pub(crate) fn take_payload(&mut self, max_bytes: usize) -> String {
        let mut fitting = 0;
        let mut len = 0;
        for frame in &self.frames {
            let more = len + payload::encoded_len(frame);
            if fitting > 0 && more > max_bytes {
                break;
            }
            len = more;
            fitting += 1;
        }
        self.taken += len as u64;
        let mut body = String::with_capacity(len);
        for frame in self.frames.drain(..fitting) {
            self.bytes -= frame.wire_len();
            payload::encode(&mut body, &frame);
        }
        self.shrink();
        body
    }

    /// Forgets everything but a frame in progress: cut short, it would swallow the close frame that comes next.
    pub(crate) fn clear(&mut self) {
        let in_progress = if self.written > 0 { self.frames.pop_front() } else { None };
        self.bytes = in_progress.as_ref().map_or(0, Frame::wire_len);
        self.frames = in_progress.into_iter().collect();
    }

    /// Gives memory back after a burst.
    fn shrink(&mut self) {
        if self.frames.is_empty() && self.frames.capacity() > KEPT_FRAMES {
            self.frames = VecDeque::new();
        }
    }
}

/// Queue slots that an idle connection may keep: a few bytes, which most connections never exceed.
const KEPT_FRAMES: usize = 16;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::packet::Message;

    fn frame(text: &str) -> Frame {
        Frame::message(&Message::Text(text.into()))
    }

    fn waiting(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = outbox.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_write_may_stop_anywhere() {
        let mut outbox = Outbox::default();
        for text in ["ab", "", "cde"] {
            outbox.push(frame(text));
        }
        let mut expected = b"\x81\x034ab\x81\x014\x81\x044cde".to_vec();
        while !expected.is_empty() {
            assert_eq!(waiting(&outbox), expected);
            let pieces = outbox.pieces().collect::<Vec<_>>().concat();
            assert_eq!((&pieces[..], outbox.remaining()), (&expected[..], expected.len()));
            outbox.advance(1);
            expected.remove(0);
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_frame_that_hurries_waits_for_the_frame_in_progress_and_for_the_first_of_all() {
        let mut outbox = Outbox::default();
        for text in ["a", "b"] {
            outbox.push(frame(text));
        }
        outbox.push_next(Frame::ping());
        assert_eq!(waiting(&outbox), b"\x81\x024a\x81\x012\x81\x024b");
        outbox.advance(4);
        outbox.push_next(Frame::ping());
        assert_eq!(waiting(&outbox), b"\x81\x012\x81\x012\x81\x024b");
        outbox.advance(1);
        outbox.push_next(Frame::packet("6"));
        assert_eq!(waiting(&outbox), b"\x012\x81\x016\x81\x012\x81\x024b");
        let mut empty = Outbox::default();
        empty.push_next(Frame::ping());
        assert_eq!(waiting(&empty), b"\x81\x012");
    }

    #[test]
    fn each_frame_costs_more_than_its_bytes_and_the_bytes_taken_are_counted() {
        let mut outbox = Outbox::default();
        for text in ["a", "b"] {
            outbox.push(frame(text));
        }
        assert_eq!((outbox.bytes(), outbox.cost(), outbox.taken()), (8, 8 + 2 * FRAME_OVERHEAD_BYTES, 0));
        outbox.advance(5);
        assert_eq!((outbox.bytes(), outbox.cost(), outbox.taken()), (4, 4 + FRAME_OVERHEAD_BYTES, 5));
        assert_eq!(outbox.take_payload(100), "4b");
        assert!(outbox.taken() > 5);
        assert_eq!(outbox.cost(), 0);
    }

    #[test]
    fn a_control_frame_waits_for_the_frame_in_progress_only() {
        let mut outbox = Outbox::default();
        outbox.push(frame("a"));
        outbox.push(frame("b"));
        outbox.advance(1);
        outbox.push_control(Frame::control(Bytes::from_static(b"P")));
        assert_eq!(waiting(&outbox), b"\x024aP\x81\x024b");
    }

    #[test]
    fn a_frame_in_progress_survives_when_the_rest_is_forgotten() {
        let mut outbox = Outbox::default();
        for text in ["ab", "cd"] {
            outbox.push(frame(text));
        }
        outbox.advance(2);
        outbox.clear();
        assert_eq!(waiting(&outbox), b"4ab");
        assert_eq!(outbox.bytes(), 5);
        outbox.advance(3);
        outbox.push(frame("ef"));
        outbox.clear();
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn pongs_do_not_pile_up() {
        let mut outbox = Outbox::default();
        outbox.push(frame("a"));
        for _ in 0..1000 {
            outbox.push_control(Frame::control(Bytes::from_static(b"PONG")));
        }
        assert_eq!(waiting(&outbox), b"PONG\x81\x024a");
        assert_eq!(outbox.bytes(), 8);
        outbox.advance(2);
        outbox.push_control(Frame::control(Bytes::from_static(b"pong")));
        assert_eq!(waiting(&outbox), b"NGpong\x81\x024a");
    }

    #[test]
    fn a_payload_is_cut_at_the_limit_but_never_empty() {
        let mut outbox = Outbox::default();
        for text in ["aaaa", "bbbb", "c"] {
            outbox.push(frame(text));
        }
        assert_eq!(outbox.take_payload(12), "4aaaa\x1e4bbbb");
        assert_eq!(outbox.take_payload(1), "4c");
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push(frame("a"));
        }
        outbox.advance(4000);
        assert!(outbox.is_empty());
        assert_eq!(outbox.frames.capacity(), 0);
    }
}
