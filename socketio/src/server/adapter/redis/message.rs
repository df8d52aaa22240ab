//! What instances say to each other, whatever the format.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::server::adapter::{Outgoing, SocketInfo, Target};
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

/// Something that cannot be understood, and why; never with what it holds.
pub(super) type Dropped = &'static str;

/// A room, which in JavaScript may be a number too.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Name {
    Text(String),
    Number(serde_json::Number),
}

impl From<Name> for Room {
    fn from(name: Name) -> Self {
        match name {
            Name::Text(text) => text.into(),
            Name::Number(number) => number.to_string().into(),
        }
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

/// A packet of socket.io before it is encoded; its type is EVENT also where it has attachments.
#[derive(Deserialize)]
pub(super) struct Packet<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    nsp: Option<String>,
}

impl Packet<'_> {
    pub(super) fn event(&self, namespace: &str, attachments: Vec<Bytes>) -> Result<Event, Dropped> {
        if self.nsp.as_deref().unwrap_or("/") != namespace {
            return Err("another namespace");
        }
        Event::from_json(self.data.get(), attachments).map_err(|_| "no event")
    }
}

/// [`Packet`] on its way out.
#[derive(Serialize)]
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

/// The one argument of an answer that socket.io knows, as it is.
pub(super) fn first(data: &Data) -> Box<RawValue> {
    data.args().unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The arguments of an answer that has one.
pub(super) fn answer(first: Option<&RawValue>, attachments: Vec<Bytes>) -> Result<Data, Dropped> {
    let json = format!("[{}]", first.map_or("null", RawValue::get));
    Data::from_json(json, attachments).map_err(|_| "no answer")
}
