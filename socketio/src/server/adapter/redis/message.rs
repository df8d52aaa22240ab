//! What instances say to each other, whatever the format.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::wire::to_msgpack;

use crate::server::adapter::{Name, Outgoing, SocketInfo, Target};
use crate::server::socket::Room;
use crate::{Data, Event};

/// What this instance says.
#[derive(Clone, Copy)]
pub(super) enum Say<'a> {
    Broadcast {
        packet: &'a Outgoing,
        target: &'a Target,
    },
    Ask {
        id: &'a str,
        packet: &'a Outgoing,
        target: &'a Target,
        timeout: Duration,
    },
    Join(&'a Target, &'a [Room]),
    Leave(&'a Target, &'a [Room]),
    Disconnect {
        target: &'a Target,
        close: bool,
    },
    Fetch {
        id: &'a str,
        target: &'a Target,
    },
    ServerSideEmit {
        id: Option<&'a str>,
        event: &'a Event,
    },
    /// The answers, to whom.
    Clients {
        to: &'a str,
        id: &'a str,
        count: usize,
    },
    Ack {
        to: &'a str,
        id: &'a str,
        data: &'a Data,
    },
    Sockets {
        to: &'a str,
        id: &'a str,
        sockets: &'a [SocketInfo],
    },
    ServerSideAnswer {
        to: &'a str,
        id: &'a str,
        data: &'a Data,
    },
    /// Answers to questions that only the classic adapter asks.
    Ids {
        id: &'a str,
        ids: &'a [Room],
    },
    Rooms {
        id: &'a str,
        rooms: &'a [Room],
    },
}

/// What another instance has said.
#[derive(Debug)]
pub(super) enum Heard {
    Broadcast { event: Event, target: Target },
    Ask { id: String, event: Event, target: Target, timeout: Option<Duration> },
    Join(Target, Vec<Room>),
    Leave(Target, Vec<Room>),
    Disconnect { target: Target, close: bool },
    Fetch { id: String, target: Target },
    ServerSideEmit { id: Option<String>, event: Event },
    Clients { id: String, count: usize },
    Ack { id: String, data: Data },
    Sockets { id: String, sockets: Vec<SocketInfo> },
    ServerSideAnswer { id: String, data: Data },
    Ids { id: String, target: Target },
    Rooms { id: String },
}

/// Why a message is dropped; never with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// It is of no concern to this instance.
    Foreign(&'static str),
    /// This instance cannot understand what it should have taken.
    Lost(&'static str),
}

/// What is logged of messages that are [`Dropped::Lost`].
pub(super) const NOT_UNDERSTOOD: &str = "one of another instance is not understood";

impl From<&'static str> for Dropped {
    fn from(why: &'static str) -> Self {
        Self::Lost(why)
    }
}

pub(super) fn rooms(names: Option<Vec<Name>>) -> Vec<Room> {
    names.into_iter().flatten().map(Room::from).collect()
}

/// Whom something is for.
#[derive(Deserialize, Default)]
pub(super) struct Options {
    rooms: Option<Vec<Name>>,
    except: Option<Vec<Name>>,
    flags: Option<Flags>,
}

#[derive(Serialize, Deserialize, Default)]
struct Flags {
    #[serde(skip_serializing_if = "Option::is_none")]
    volatile: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<f64>,
}

impl Options {
    /// For how many milliseconds acks are waited for.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let milliseconds = self.flags.as_ref()?.timeout?;
        Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
    }
}

impl From<Options> for Target {
    fn from(options: Options) -> Self {
        Self {
            rooms: rooms(options.rooms),
            except_rooms: rooms(options.except),
            volatile: options.flags.and_then(|flags| flags.volatile).unwrap_or(false),
            ..Self::default()
        }
    }
}

/// [`Options`] on their way out.
#[derive(Serialize)]
pub(super) struct OptionsOf<'a> {
    rooms: Vec<&'a str>,
    except: Vec<&'a str>,
    flags: Flags,
}

impl<'a> OptionsOf<'a> {
    pub(super) fn new(target: &'a Target, timeout: Option<Duration>) -> Self {
        Self {
            rooms: target.rooms.iter().map(|room| &**room).collect(),
            except: target.excluded().collect(),
            flags: Flags {
                volatile: target.volatile.then_some(true),
                timeout: timeout.map(|timeout| timeout.as_millis() as f64),
            },
        }
    }
}

/// Reads a value that is there, `null` too.
pub(super) fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A packet of socket.io before it is encoded; its type is EVENT also where it has attachments.
#[derive(Deserialize)]
pub(super) struct Packet<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    nsp: Option<String>,
}

impl Packet<'_> {
    pub(super) fn event(
        &self,
        namespace: &str,
        attachments: Vec<Bytes>,
        exact: Option<Exact>,
    ) -> Result<Event, Dropped> {
        if self.nsp.as_deref().unwrap_or("/") != namespace {
            return Err(Dropped::Foreign("another namespace"));
        }
        event(self.data, attachments, exact)
    }
}

/// The event of an array.
pub(super) fn event(data: &RawValue, attachments: Vec<Bytes>, exact: Option<Exact>) -> Result<Event, Dropped> {
    let (json, attachments) = Exact::or(exact, || data.get().to_owned(), attachments)?;
    Event::from_json(json, attachments).map_err(|_| "no event".into())
}

/// [`Packet`] on its way out.
#[derive(Serialize, Clone, Copy)]
pub(super) struct PacketOf<'a> {
    r#type: u8,
    data: &'a RawValue,
    nsp: &'a str,
}

impl<'a> PacketOf<'a> {
    pub(super) fn new(packet: &'a Outgoing, namespace: &'a str) -> Option<Self> {
        Some(Self { r#type: 2, data: serde_json::from_str(packet.json()).ok()?, nsp: namespace })
    }
}

/// The arguments of an answer: those from before, unless there is the exact text.
pub(super) fn answer(first: Option<&RawValue>, attachments: Vec<Bytes>, exact: Option<Exact>) -> Result<Data, Dropped> {
    let json = || format!("[{}]", first.map_or("", RawValue::get));
    let (json, attachments) = Exact::or(exact, json, attachments)?;
    Data::from_json(json, attachments).map_err(|_| "no answer".into())
}

/// The sockets of an answer, whose data may have attachments.
pub(super) fn sockets(mut sockets: Vec<SocketInfo>, attachments: Vec<Bytes>) -> Vec<SocketInfo> {
    if !attachments.is_empty() {
        let attachments: Arc<[Bytes]> = attachments.into();
        sockets.iter_mut().for_each(|socket| socket.attachments = Arc::clone(&attachments));
    }
    sockets
}

/// The array of an event or answer as it is, where the message around it does not carry it like this: because it is
/// MessagePack, or because an answer has more than the one argument that socket.io knows. Servers of socket.io ignore it.
///
/// It is an array: the text, then, unless they are those of the message, the attachments: each as the place that it has
/// among those of the message, or itself where it is not among them.
pub(super) struct ExactOf<'a> {
    json: &'a str,
    attachments: Vec<Kept>,
}

enum Kept {
    At(usize),
    Itself(usize),
}

impl<'a> ExactOf<'a> {
    /// Describes the array `json` with so many attachments, which the message has in the order of `order`.
    fn new(json: &'a str, attachments: usize, order: &[usize]) -> Self {
        let are_those = order.iter().copied().eq(0..attachments);
        let kept = |num| order.iter().position(|there| *there == num).map_or(Kept::Itself(num), Kept::At);
        let attachments = if are_those { Vec::new() } else { (0..attachments).map(kept).collect() };
        Self { json, attachments }
    }
}

impl Serialize for ExactOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Placeholder {
            _placeholder: bool,
            num: usize,
        }
        let mut array = serializer.serialize_seq(Some(1 + self.attachments.len()))?;
        array.serialize_element(self.json)?;
        for attachment in &self.attachments {
            match *attachment {
                Kept::At(place) => array.serialize_element(&place)?,
                Kept::Itself(num) => array.serialize_element(&Placeholder { _placeholder: true, num })?,
            }
        }
        array.end()
    }
}

/// [`ExactOf`] on its way in.
#[derive(Deserialize)]
pub(super) struct Exact(Vec<Piece>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    At(usize),
    Itself { num: usize },
}

impl Exact {
    /// Returns an array and its attachments, given those of the message.
    fn or(
        exact: Option<Self>,
        json: impl FnOnce() -> String,
        attachments: Vec<Bytes>,
    ) -> Result<(String, Vec<Bytes>), Dropped> {
        let Some(Self(pieces)) = exact else { return Ok((json(), attachments)) };
        let mut pieces = pieces.into_iter();
        let Some(Piece::Text(json)) = pieces.next() else { return Err("no exact text".into()) };
        if pieces.len() == 0 {
            return Ok((json, attachments));
        }
        let attachment = |piece| match piece {
            Piece::At(num) | Piece::Itself { num } => attachments.get(num).cloned(),
            Piece::Text(_) => None,
        };
        let attachments: Option<Vec<Bytes>> = pieces.map(attachment).collect();
        Ok((json, attachments.ok_or("no exact attachments")?))
    }
}

/// What of a message is to arrive as it is.
pub(super) struct Content<'a> {
    /// The array of an event or answer.
    json: &'a str,
    attachments: Vec<&'a [u8]>,
    /// The message has all of the array.
    is_whole: bool,
}

impl<'a> Content<'a> {
    pub(super) fn of_packet(packet: &'a Outgoing) -> Self {
        Self { json: packet.json(), attachments: packet.attachments().collect(), is_whole: true }
    }

    pub(super) fn of_event(event: &'a Event) -> Self {
        let data = event.data();
        Self { json: data.json(), attachments: Self::attachments(data), is_whole: true }
    }

    /// That of an answer, and the one argument of it that socket.io knows.
    pub(super) fn of_answer(data: &'a Data) -> (Self, Option<&'a RawValue>) {
        let (json, first) = (data.json(), data.first());
        let inside = json.strip_prefix('[').and_then(|json| json.strip_suffix(']'));
        let is_whole = inside == Some(first.map_or("", RawValue::get));
        (Self { json, attachments: Self::attachments(data), is_whole }, first)
    }

    fn attachments(data: &Data) -> Vec<&[u8]> {
        data.attachments().iter().map(|bytes| &**bytes).collect()
    }

    /// Encodes a message in MessagePack, which `message` makes with the exact text or without.
    pub(super) fn packed<M: Serialize>(&self, message: impl Fn(Option<ExactOf<'a>>) -> M) -> Option<Vec<u8>> {
        let packed = to_msgpack(&serde_json::to_string(&message(None)).ok()?, &self.attachments)?;
        if self.is_whole && packed.is_faithful {
            return Some(packed.bytes);
        }
        let exact = ExactOf::new(self.json, self.attachments.len(), &packed.order);
        let message = serde_json::to_string(&message(Some(exact))).ok()?;
        to_msgpack(&message, &self.attachments).map(|packed| packed.bytes)
    }

    /// Encodes a message as JSON, unless there is binary data in it.
    pub(super) fn text_or_packed<M: Serialize>(&self, message: impl Fn(Option<ExactOf<'a>>) -> M) -> Option<Vec<u8>> {
        if !self.attachments.is_empty() {
            return self.packed(message);
        }
        let exact = (!self.is_whole).then(|| ExactOf { json: self.json, attachments: Vec::new() });
        serde_json::to_vec(&message(exact)).ok()
    }
}
