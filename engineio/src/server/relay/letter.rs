//! What instances write to each other, as bytes.
//!
//! A letter is a version, a kind, the name of its sender and how often that has lost letters, the number of the request
//! or line it is about, and what the kind has to say; numbers are big-endian. Reading is total: whatever is no letter is
//! an [`Unreadable`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::super::mailbox::Reply;
use crate::error::RequestError;
use crate::handshake::{Instance, Sid};
use crate::session::{PostDrop, Refusal};

/// One letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) from: Instance,
    /// How often the sender may have lost letters. Once it has, it knows nothing of what was under way before.
    pub(super) losses: u32,
    /// The request or line, by a number of the instance that the client is connected to.
    pub(super) id: u64,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A client polls.
    Poll(Sid),
    /// A client posts this body, or one that came to nothing.
    Post(Sid, Result<ByteString, PostDrop>),
    /// A client has sent what nobody has a use for.
    Unusable(Sid),
    /// A client's WebSocket wants to take over; the number is that of its line from now on.
    Upgrade(Sid),
    /// The client of a request has left.
    Cancel,
    /// The session is here, and has the request.
    Ack,
    /// The end of a request.
    Answer(Answer),
    /// Something travels on a line.
    Line(Toward, u64, Part),
    /// A question for a sign of life.
    Ping,
    /// The sign.
    Pong,
}

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As the session wants it.
    Reply(Reply),
    /// Status 500: the session has no use for the request.
    Unusable,
    /// Status 503: one request too many.
    Overloaded,
}

impl From<RequestError> for Answer {
    fn from(error: RequestError) -> Self {
        Self::Reply(Reply::Refused(Refusal::Request(error)))
    }
}

/// Which way something travels on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Toward {
    /// To the session.
    Session,
    /// To the client.
    Client,
}

impl Toward {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Session => Self::Client,
            Self::Client => Self::Session,
        }
    }
}

/// What travels on a line. The parts of each direction are counted from zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Bytes of the WebSocket.
    Data(Bytes),
    /// The other end may send so much more.
    Credit(u32),
    /// Nothing follows but credit.
    End,
    /// The line is broken.
    Broken,
}

/// Bytes that are no letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The form described here. Instances of another version do not understand each other.
const VERSION: u8 = 1;

const POLL: u8 = 1;
const POST: u8 = 2;
const DROPPED_POST: u8 = 3;
const UNUSABLE: u8 = 4;
const UPGRADE: u8 = 5;
const CANCEL: u8 = 6;
const ACK: u8 = 7;
const ANSWER: u8 = 8;
const TO_SESSION: u8 = 9;
const TO_CLIENT: u8 = 10;
const PING: u8 = 11;
const PONG: u8 = 12;

const PAYLOAD: u8 = 1;
const ACCEPTED: u8 = 2;
const EMPTY_REFUSAL: u8 = 3;
const TOO_LARGE: u8 = 4;
const RESET: u8 = 5;
const NO_USE: u8 = 6;
const OVERLOADED: u8 = 7;
/// The first of as many as there are codes of request errors.
const REQUEST_ERROR: u8 = 0x10;

const DATA: u8 = 1;
const CREDIT: u8 = 2;
const END: u8 = 3;
const BROKEN: u8 = 4;

const INSTANCE_BYTES: usize = 8;
/// Ids in letters name their instance.
const SID_BYTES: usize = 28;
/// Most bytes that a letter has beside a body, a payload or data.
const HEAD_BYTES: usize = 64;

impl Letter {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.content.len());
        out.put_u8(VERSION);
        out.put_u8(self.content.kind());
        out.put_slice(self.from.as_str().as_bytes());
        out.put_u32(self.losses);
        out.put_u64(self.id);
        match &self.content {
            Content::Poll(sid) | Content::Unusable(sid) | Content::Upgrade(sid) => {
                out.put_slice(sid.expose().as_bytes());
            }
            Content::Post(sid, body) => {
                out.put_slice(sid.expose().as_bytes());
                match body {
                    Ok(body) => out.put_slice(body.as_bytes()),
                    Err(why) => out.put_u8(drop_code(*why)),
                }
            }
            Content::Answer(answer) => {
                out.put_u8(answer_code(answer));
                if let Answer::Reply(Reply::Payload(payload)) = answer {
                    out.put_slice(payload.as_bytes());
                }
            }
            Content::Line(_, number, part) => {
                out.put_u64(*number);
                match part {
                    Part::Data(data) => {
                        out.put_u8(DATA);
                        out.put_slice(data);
                    }
                    Part::Credit(bytes) => {
                        out.put_u8(CREDIT);
                        out.put_u32(*bytes);
                    }
                    Part::End => out.put_u8(END),
                    Part::Broken => out.put_u8(BROKEN),
                }
            }
            Content::Cancel | Content::Ack | Content::Ping | Content::Pong => {}
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Unreadable> {
        let mut rest = Rest(bytes);
        if rest.u8()? != VERSION {
            return Err(Unreadable);
        }
        let kind = rest.u8()?;
        let from = Instance::parse(rest.text(INSTANCE_BYTES)?.as_ref()).ok_or(Unreadable)?;
        let losses = rest.u32()?;
        let id = rest.u64()?;
        let content = match kind {
            POLL => Content::Poll(rest.sid()?),
            POST => Content::Post(rest.sid()?, Ok(rest.all_text()?)),
            DROPPED_POST => Content::Post(rest.sid()?, Err(drop_of(rest.u8()?)?)),
            UNUSABLE => Content::Unusable(rest.sid()?),
            UPGRADE => Content::Upgrade(rest.sid()?),
            CANCEL => Content::Cancel,
            ACK => Content::Ack,
            ANSWER => Content::Answer(rest.answer()?),
            TO_SESSION => Content::Line(Toward::Session, rest.u64()?, rest.part()?),
            TO_CLIENT => Content::Line(Toward::Client, rest.u64()?, rest.part()?),
            PING => Content::Ping,
            PONG => Content::Pong,
            _ => return Err(Unreadable),
        };
        if rest.0.is_empty() { Ok(Self { from, losses, id, content }) } else { Err(Unreadable) }
    }
}

impl Content {
    fn kind(&self) -> u8 {
        match self {
            Self::Poll(_) => POLL,
            Self::Post(_, Ok(_)) => POST,
            Self::Post(_, Err(_)) => DROPPED_POST,
            Self::Unusable(_) => UNUSABLE,
            Self::Upgrade(_) => UPGRADE,
            Self::Cancel => CANCEL,
            Self::Ack => ACK,
            Self::Answer(_) => ANSWER,
            Self::Line(Toward::Session, ..) => TO_SESSION,
            Self::Line(Toward::Client, ..) => TO_CLIENT,
            Self::Ping => PING,
            Self::Pong => PONG,
        }
    }

    /// The length of what may be long.
    fn len(&self) -> usize {
        match self {
            Self::Post(_, Ok(body)) => body.len(),
            Self::Answer(Answer::Reply(Reply::Payload(payload))) => payload.len(),
            Self::Line(_, _, Part::Data(data)) => data.len(),
            Self::Poll(_)
            | Self::Post(_, Err(_))
            | Self::Unusable(_)
            | Self::Upgrade(_)
            | Self::Cancel
            | Self::Ack
            | Self::Answer(_)
            | Self::Line(..)
            | Self::Ping
            | Self::Pong => 0,
        }
    }
}

fn drop_code(why: PostDrop) -> u8 {
    match why {
        PostDrop::TooLarge => 1,
        PostDrop::Aborted => 2,
        PostDrop::Binary => 3,
    }
}

fn drop_of(code: u8) -> Result<PostDrop, Unreadable> {
    let all = [PostDrop::TooLarge, PostDrop::Aborted, PostDrop::Binary];
    all.into_iter().find(|why| drop_code(*why) == code).ok_or(Unreadable)
}

fn answer_code(answer: &Answer) -> u8 {
    match answer {
        Answer::Reply(Reply::Payload(_)) => PAYLOAD,
        Answer::Reply(Reply::Accepted) => ACCEPTED,
        Answer::Reply(Reply::Refused(Refusal::Empty)) => EMPTY_REFUSAL,
        Answer::Reply(Reply::Refused(Refusal::TooLarge)) => TOO_LARGE,
        Answer::Reply(Reply::Refused(Refusal::Request(error))) => REQUEST_ERROR + error.code(),
        Answer::Reply(Reply::Reset) => RESET,
        Answer::Unusable => NO_USE,
        Answer::Overloaded => OVERLOADED,
    }
}

/// What is still to be read.
struct Rest(Bytes);

impl Rest {
    fn u8(&mut self) -> Result<u8, Unreadable> {
        self.0.try_get_u8().map_err(|_| Unreadable)
    }

    fn u32(&mut self) -> Result<u32, Unreadable> {
        self.0.try_get_u32().map_err(|_| Unreadable)
    }

    fn u64(&mut self) -> Result<u64, Unreadable> {
        self.0.try_get_u64().map_err(|_| Unreadable)
    }

    fn text(&mut self, len: usize) -> Result<ByteString, Unreadable> {
        if self.0.len() < len {
            return Err(Unreadable);
        }
        ByteString::try_from(self.0.split_to(len)).map_err(|_| Unreadable)
    }

    fn all_text(&mut self) -> Result<ByteString, Unreadable> {
        self.text(self.0.len())
    }

    fn sid(&mut self) -> Result<Sid, Unreadable> {
        Sid::parse(self.text(SID_BYTES)?.as_ref()).ok_or(Unreadable)
    }

    fn answer(&mut self) -> Result<Answer, Unreadable> {
        Ok(match self.u8()? {
            PAYLOAD => Answer::Reply(Reply::Payload(self.all_text()?)),
            ACCEPTED => Answer::Reply(Reply::Accepted),
            EMPTY_REFUSAL => Answer::Reply(Reply::Refused(Refusal::Empty)),
            TOO_LARGE => Answer::Reply(Reply::Refused(Refusal::TooLarge)),
            RESET => Answer::Reply(Reply::Reset),
            NO_USE => Answer::Unusable,
            OVERLOADED => Answer::Overloaded,
            other => {
                let code = other.checked_sub(REQUEST_ERROR).ok_or(Unreadable)?;
                RequestError::ALL.into_iter().find(|error| error.code() == code).ok_or(Unreadable)?.into()
            }
        })
    }

    fn part(&mut self) -> Result<Part, Unreadable> {
        Ok(match self.u8()? {
            DATA => Part::Data(std::mem::take(&mut self.0)),
            CREDIT => Part::Credit(self.u32()?),
            END => Part::End,
            BROKEN => Part::Broken,
            _ => return Err(Unreadable),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Letter> {
        let from = Instance::from_random([1, 2, 3, 4, 5, 6]);
        let sid = Sid::from_random([9; 15]).at(Instance::from_random([7; 6]));
        let mut contents = vec![
            Content::Poll(sid),
            Content::Post(sid, Ok("4héllo".into())),
            Content::Post(sid, Ok("".into())),
            Content::Unusable(sid),
            Content::Upgrade(sid),
            Content::Cancel,
            Content::Ack,
            Content::Answer(Answer::Reply(Reply::Payload("4one\x1e4two".into()))),
            Content::Answer(Answer::Reply(Reply::Accepted)),
            Content::Answer(Answer::Reply(Reply::Refused(Refusal::Empty))),
            Content::Answer(Answer::Reply(Reply::Refused(Refusal::TooLarge))),
            Content::Answer(Answer::Reply(Reply::Reset)),
            Content::Answer(Answer::Unusable),
            Content::Answer(Answer::Overloaded),
            Content::Ping,
            Content::Pong,
        ];
        contents
            .extend([PostDrop::TooLarge, PostDrop::Aborted, PostDrop::Binary].map(|why| Content::Post(sid, Err(why))));
        contents.extend(RequestError::ALL.map(|error| Content::Answer(error.into())));
        for toward in [Toward::Session, Toward::Client] {
            let parts = [Part::Data(Bytes::from_static(b"\x81\0\xff")), Part::Credit(70_000), Part::End, Part::Broken];
            contents.extend(parts.map(|part| Content::Line(toward, u64::MAX, part)));
        }
        let letters = contents.into_iter().enumerate();
        letters.map(|(id, content)| Letter { from, losses: 7, id: (id as u64) << 40, content }).collect()
    }

    #[test]
    fn every_letter_is_read_as_it_was_written() {
        for letter in all() {
            assert_eq!(Letter::decode(letter.encode()), Ok(letter));
        }
    }

    #[test]
    fn the_form_of_a_letter_is_fixed() {
        let from = Instance::from_random([0; 6]);
        let content = Content::Line(Toward::Client, 3, Part::Data("ab".into()));
        let letter = Letter { from, losses: 4, id: 258, content };
        assert_eq!(
            &letter.encode()[..],
            b"\x01\x0aAAAAAAAA\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x00\x00\x03\x01ab"
        );
    }

    #[test]
    fn a_letter_cut_short_is_none_or_one_with_less_to_say() {
        for letter in all() {
            let whole = letter.encode();
            for len in 0..whole.len() {
                if let Ok(read) = Letter::decode(whole.slice(..len)) {
                    assert_eq!(read.encode(), whole[..len], "{letter:?}");
                    assert!(read.content.len() < letter.content.len(), "{letter:?}");
                }
            }
        }
    }

    #[test]
    fn what_has_more_than_it_should_is_no_letter() {
        for letter in all() {
            let longer = Bytes::from([&letter.encode()[..], b"\xff"].concat());
            assert!(Letter::decode(longer).is_err() || matches!(letter.content, Content::Line(_, _, Part::Data(_))));
        }
    }

    #[test]
    fn other_versions_and_bytes_changed_on_the_way_do_no_harm() {
        for letter in all() {
            let whole = letter.encode();
            for at in 0..whole.len() {
                for change in [0x01, 0x20, 0x80, 0xff] {
                    let mut changed = whole.to_vec();
                    changed[at] ^= change;
                    let changed = Bytes::from(changed);
                    if let Ok(read) = Letter::decode(changed.clone()) {
                        assert_eq!(read.encode(), changed);
                    }
                    assert!(at > 0 || Letter::decode(changed).is_err());
                }
            }
        }
    }

    #[test]
    fn random_bytes_are_read_or_refused() {
        // Numerical Recipes' generator: the same bytes each time.
        let mut state = 1_u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for round in 0..20_000_usize {
            let mut bytes: Vec<u8> = (0..round % 64).map(|_| next()).collect();
            // Half of them begin as a letter does.
            if let (0, Some(start)) = (round % 2, bytes.get_mut(..10)) {
                start.copy_from_slice(b"\x01\x01AAAAAAAA");
                start[1] = next() % 16;
            }
            let bytes = Bytes::from(bytes);
            if let Ok(letter) = Letter::decode(bytes.clone()) {
                assert_eq!(letter.encode(), bytes);
            }
        }
    }
}
