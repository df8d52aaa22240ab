//! Targets for the core of `engineio`.

mod letters;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use engineio::{
    Action, Config, DecodeError, Frame, Input, Message, Packet, PostDrop, Session, Sid, Transport, WsFrame, payload,
};

pub use self::letters::engineio_letters;

const MAX_BUFFERED_BYTES: usize = 2048;
const MAX_BACKLOG_BYTES: usize = 4096;

/// One polling body.
///
/// A slow, plain decoder must come to the same result, and messages must survive being encoded and decoded.
///
/// # Panics
/// When one of these is broken.
pub fn engineio_payload(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let decoded: Vec<_> = payload::decode(text.into()).collect();
    assert_eq!(decoded, plain_payload(text));
    let messages: Vec<Message> = decoded
        .into_iter()
        .filter_map(|packet| if let Ok(Packet::Message(message)) = packet { Some(message) } else { None })
        .collect();
    if messages.is_empty() {
        return;
    }
    let mut body = String::new();
    let mut most = 0;
    for message in &messages {
        let frame = Frame::message(message);
        most += payload::encoded_len(&frame);
        payload::encode(&mut body, &frame);
    }
    assert!(body.len() <= most, "longer than announced");
    // A separator in a text message splits it; in a decoded one there is none.
    let again: Vec<_> = payload::decode(body.into()).collect();
    assert_eq!(again, messages.into_iter().map(|message| Ok(Packet::Message(message))).collect::<Vec<_>>());
}

fn plain_payload(text: &str) -> Vec<Result<Packet, DecodeError>> {
    let parts: Vec<&str> = text.split('\x1e').collect();
    let mut packets = Vec::new();
    for part in parts {
        packets.push(plain_packet(part));
        if packets.last().is_some_and(Result::is_err) {
            break;
        }
    }
    packets
}

fn plain_packet(text: &str) -> Result<Packet, DecodeError> {
    let kind = *text.as_bytes().first().ok_or(DecodeError::Empty)?;
    if !kind.is_ascii() {
        return Err(DecodeError::UnknownKind(kind));
    }
    let data = ByteString::from(&text[1..]);
    Ok(match kind {
        b'0' => Packet::Open(data),
        b'1' => Packet::Close,
        b'2' => Packet::Ping(data),
        b'3' => Packet::Pong(data),
        b'4' => Packet::Message(Message::Text(data)),
        b'5' => Packet::Upgrade,
        b'6' => Packet::Noop,
        b'b' => Packet::Message(Message::Binary(plain_base64(&data).ok_or(DecodeError::Base64)?.into())),
        other => return Err(DecodeError::UnknownKind(other)),
    })
}

fn plain_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = text.replace(['\r', '\n'], "").replace('-', "+").replace('_', "/");
    let digits = text.trim_end_matches('=');
    let most_padding = [0, 0, 2, 1][digits.len() % 4];
    if digits.len() % 4 == 1 || text.len() - digits.len() > most_padding {
        return None;
    }
    let mut bits = String::new();
    for digit in digits.chars() {
        bits += &format!("{:06b}", ALPHABET.find(digit)?);
    }
    let whole = bits.len() / 8 * 8;
    (0..whole).step_by(8).map(|at| u8::from_str_radix(&bits[at..at + 8], 2).ok()).collect()
}

/// A session and what it is told, one input a line; see `parse` for the commands. The first line is the transport.
///
/// Each poll and each POST has one answer at most, and exactly one when the session is over; messages arrive in order;
/// the queue keeps to its budget; a handled timeout leaves a later one; nothing follows the end.
///
/// # Panics
/// When one of these is broken.
pub fn engineio_session(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let transport = if lines.next() == Some(b"websocket") { Transport::WebSocket } else { Transport::Polling };
    let mut config = Config::default();
    config.max_payload_bytes = 64;
    config.max_buffered_bytes = MAX_BUFFERED_BYTES;
    config.max_backlog_bytes = Some(MAX_BACKLOG_BYTES);
    let mut now = Instant::now();
    let session = Session::open(&Sid::from_random([0; 15]), transport, Arc::new(config), now);
    let polls = usize::from(transport == Transport::Polling);
    let mut talk = Talk { session, polls, posts: 0, sent: 0, seen: 0, closed: false };
    talk.carry_out();
    for line in lines {
        let Some((&command, rest)) = line.split_first() else { continue };
        if command == b'w' {
            talk.write();
        }
        let Some(input) = talk.parse(command, rest) else { continue };
        if command == b't' {
            let text = str::from_utf8(rest).unwrap_or_default();
            now += Duration::from_millis(text.parse::<u32>().unwrap_or_default().into());
        }
        // A shell asks before it sends.
        if let Input::Send(frame) = &input
            && !talk.session.has_room_for(frame.cost())
        {
            continue;
        }
        talk.note(&input);
        talk.session.handle(input.clone(), now);
        talk.carry_out();
        if input == Input::Timeout {
            assert!(talk.session.poll_timeout().is_none_or(|at| at > now), "a handled alarm is still due");
        }
        assert_eq!(talk.session.poll_timeout().is_none(), talk.closed, "an alarm is missing, or left over");
        // Beside what the application sends there is a ping at most.
        assert!(talk.session.buffered_bytes() <= MAX_BACKLOG_BYTES + Frame::binary(b"").cost(), "over the limit");
        assert!(talk.closed || (talk.polls <= 1 && talk.posts <= 1), "an overlap goes on");
    }
    talk.write();
}

struct Talk {
    session: Session,
    /// Requests without an answer.
    polls: usize,
    posts: usize,
    /// The number of the last message sent, and of the last one seen on the way to the client.
    sent: u32,
    seen: u32,
    closed: bool,
}

impl Talk {
    fn parse(&mut self, command: u8, rest: &[u8]) -> Option<Input> {
        let text = || str::from_utf8(rest).ok().map(ByteString::from);
        Some(match command {
            b'g' => Input::PollArrived,
            b'a' => Input::PollAborted,
            b'o' => Input::PostArrived,
            b'<' => Input::PostReceived(text()?),
            b'x' => Input::PostDropped(PostDrop::TooLarge),
            b'y' => Input::PostDropped(PostDrop::Aborted),
            b'z' => Input::PostDropped(PostDrop::Binary),
            b'c' => Input::CandidateArrived,
            b'>' => Input::CandidateFrame(WsFrame::Text(text()?)),
            b'l' => Input::CandidateLost,
            b'.' => Input::Frame(WsFrame::Text(text()?)),
            b'#' => Input::Frame(WsFrame::Binary(Bytes::copy_from_slice(rest))),
            b'e' => Input::WebSocketEnded { close_frame: true },
            b'd' => Input::WebSocketEnded { close_frame: false },
            b'f' => Input::WebSocketFailed,
            b's' => Input::Send(self.message(rest)),
            b'v' => Input::SendVolatile(self.message(rest)),
            b'w' => Input::Written,
            b'r' => Input::ReadOn,
            b'p' => Input::ReadingPaused,
            b'u' => Input::ReadingResumed,
            b'O' => Input::Overflowed,
            b'C' => Input::Close,
            b'S' => Input::ShutDown,
            b't' => Input::Timeout,
            _ => return None,
        })
    }

    /// A message with its number, and padding of the length that the line names.
    fn message(&mut self, len: &[u8]) -> Frame {
        self.sent += 1;
        let len = str::from_utf8(len).unwrap_or_default().parse::<usize>().unwrap_or_default().min(1500);
        Frame::message(&Message::Text(format!("{} {}", self.sent, "x".repeat(len)).into()))
    }

    fn note(&mut self, input: &Input) {
        if self.closed {
            return;
        }
        if let Input::PollArrived = input {
            self.polls += 1;
        } else if let Input::PollAborted = input {
            self.polls = 0;
        } else if let Input::PostArrived = input {
            self.posts += 1;
        } else if let Input::PostDropped(_) = input {
            self.posts = 0; // the shell has answered it
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.session.poll_action() {
            assert!(!self.closed, "{action:?} follows the end");
            match action {
                Action::AnswerPoll(body) => {
                    self.polls = self.polls.checked_sub(1).expect("an answer without a poll");
                    for packet in payload::decode(body.into()) {
                        if let Packet::Message(Message::Text(text)) = packet.expect("we send packets only") {
                            self.see(&text);
                        }
                    }
                }
                Action::RefusePoll(_) => self.polls = self.polls.checked_sub(1).expect("a refusal without a poll"),
                Action::AcceptPost | Action::RefusePost(_) | Action::AbortPost => {
                    self.posts = self.posts.checked_sub(1).expect("an answer without a POST");
                }
                Action::Closed(_) => {
                    self.closed = true;
                    assert_eq!((self.polls, self.posts), (0, 0), "somebody waits for an answer");
                }
                Action::Deliver(_)
                | Action::DropCandidate
                | Action::WriteCandidate(_)
                | Action::SwitchTransport
                | Action::RoundTrip(_) => {}
            }
        }
        assert_eq!(self.session.is_closed(), self.closed);
    }

    /// Takes what waits for a WebSocket.
    fn write(&mut self) {
        while let Some(outbox) = self.session.outbox()
            && !outbox.is_empty()
        {
            let mut slices = [IoSlice::new(&[]); 1];
            outbox.slices(&mut slices);
            let frame = slices[0].to_vec();
            outbox.advance(frame.len());
            let header = if frame[1] < 126 { 2 } else { 4 };
            if let Some(text) = str::from_utf8(&frame[header..]).expect("text").strip_prefix('4') {
                self.see(text);
            }
        }
    }

    fn see(&mut self, message: &str) {
        let number = message.split(' ').next().and_then(|number| number.parse().ok()).expect("it has a number");
        assert!(number > self.seen && number <= self.sent, "{number} follows {}", self.seen);
        self.seen = number;
    }
}
