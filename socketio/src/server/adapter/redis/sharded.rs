//! The format of the sharded adapter of `@socket.io/redis-adapter` 8, whose messages are those of the cluster adapter of
//! socket.io-adapter 2: JSON, or MessagePack where there is binary data.
//!
//! What such a message does not carry as it is travels beside it, for instances of ours: as the field `exact` of its data.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Subscription;
use super::message::{
    Content, Dropped, Exact, ExactOf, Heard, Options, OptionsOf, Packet, PacketOf, Say, answer, event, present, rooms,
    sockets,
};
use super::wire::from_msgpack;
use crate::server::adapter::{Name, SocketInfo, Target};
use crate::server::socket::Room;

const BROADCAST: u8 = 3;
const JOIN: u8 = 4;
const LEAVE: u8 = 5;
const DISCONNECT: u8 = 6;
const FETCH: u8 = 7;
const SOCKETS: u8 = 8;
const SERVER_SIDE_EMIT: u8 = 9;
const SERVER_SIDE_ANSWER: u8 = 10;
const CLIENT_COUNT: u8 = 11;
const ACK: u8 = 12;

#[derive(Debug)]
pub(super) struct Sharded {
    uid: Box<str>,
    namespace: Box<str>,
    subscription: Subscription,
    channel: String,
    responses: String,
}

#[derive(Deserialize)]
struct Message<'a> {
    uid: String,
    nsp: String,
    r#type: u8,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct MessageOf<'a> {
    uid: &'a str,
    nsp: &'a str,
    r#type: u8,
    data: DataOf<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Broadcast<'a> {
    #[serde(borrow)]
    packet: Packet<'a>,
    request_id: Option<String>,
    #[serde(default)]
    opts: Options,
    exact: Option<Exact>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Command {
    #[serde(default)]
    opts: Options,
    rooms: Option<Vec<Name>>,
    close: Option<bool>,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Carried<'a> {
    request_id: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    packet: Option<&'a RawValue>,
    client_count: Option<usize>,
    sockets: Option<Vec<SocketInfo>>,
    exact: Option<Exact>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct DataOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<Carry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<OptionsOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<&'a [SocketInfo]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<ExactOf<'a>>,
}

/// What the field `packet` has: a packet, or the array or argument of one.
#[derive(Serialize, Clone, Copy)]
#[serde(untagged)]
enum Carry<'a> {
    Packet(&'a PacketOf<'a>),
    Value(&'a RawValue),
}

impl Sharded {
    pub(super) fn new(prefix: &str, namespace: &str, uid: &str, subscription: Subscription) -> Self {
        let channel = format!("{prefix}#{namespace}#");
        let responses = format!("{channel}{uid}#");
        Self { uid: uid.into(), namespace: namespace.into(), subscription, channel, responses }
    }

    /// The channels that every instance listens to.
    pub(super) fn channels(&self) -> [&str; 2] {
        [&self.channel, &self.responses]
    }

    /// The channel of broadcasts to one room and no other, where it has one of its own.
    pub(super) fn room_channel(&self, room: &str) -> Option<String> {
        let own = match self.subscription {
            Subscription::Static => false,
            Subscription::Dynamic => !looks_like_an_id(room),
            Subscription::DynamicPrivate => true,
        };
        own.then(|| format!("{}{room}#", self.channel))
    }

    /// The channel that has as many subscribers as there are instances.
    pub(super) fn counted(&self) -> &str {
        &self.channel
    }

    /// Encodes what is said, for a channel; `None` where that cannot be.
    pub(super) fn encode(&self, say: Say<'_>) -> Option<(String, Vec<u8>)> {
        let none = DataOf::default();
        let (r#type, to, data) = match say {
            Say::Broadcast { packet, target } => {
                let content = Content::of_packet(packet);
                let packet = PacketOf::new(packet, &self.namespace)?;
                let data = |exact| DataOf {
                    packet: Some(Carry::Packet(&packet)),
                    opts: Some(OptionsOf::new(target, None)),
                    exact,
                    ..DataOf::default()
                };
                let channel = match &target.rooms[..] {
                    [room] => self.room_channel(room),
                    _ => None,
                };
                let channel = channel.unwrap_or_else(|| self.channel.clone());
                return Some((channel, self.carrying(BROADCAST, &content, data)?));
            }
            Say::Ask { id, packet, target, timeout } => {
                let content = Content::of_packet(packet);
                let packet = PacketOf::new(packet, &self.namespace)?;
                let data = |exact| DataOf {
                    packet: Some(Carry::Packet(&packet)),
                    request_id: Some(id),
                    opts: Some(OptionsOf::new(target, Some(timeout))),
                    exact,
                    ..DataOf::default()
                };
                return Some((self.channel.clone(), self.carrying(BROADCAST, &content, data)?));
            }
            Say::Join(target, rooms) => (JOIN, None, moving(target, rooms)),
            Say::Leave(target, rooms) => (LEAVE, None, moving(target, rooms)),
            Say::Disconnect { target, close } => {
                (DISCONNECT, None, DataOf { opts: Some(OptionsOf::new(target, None)), close: Some(close), ..none })
            }
            Say::Fetch { id, target } => {
                (FETCH, None, DataOf { opts: Some(OptionsOf::new(target, None)), request_id: Some(id), ..none })
            }
            Say::ServerSideEmit { id, event } => {
                let packet = Some(Carry::Value(serde_json::from_str(event.data().json()).ok()?));
                let data = |exact| DataOf { request_id: id, packet, exact, ..DataOf::default() };
                let payload = self.carrying(SERVER_SIDE_EMIT, &Content::of_event(event), data)?;
                return Some((self.channel.clone(), payload));
            }
            Say::Clients { to, id, count } => {
                (CLIENT_COUNT, Some(to), DataOf { request_id: Some(id), client_count: Some(count), ..none })
            }
            Say::Sockets { to, id, sockets } => {
                (SOCKETS, Some(to), DataOf { request_id: Some(id), sockets: Some(sockets), ..none })
            }
            Say::Ack { to, id, data } | Say::ServerSideAnswer { to, id, data } => {
                let r#type = if matches!(say, Say::Ack { .. }) { ACK } else { SERVER_SIDE_ANSWER };
                let (content, first) = Content::of_answer(data);
                let packet = first.map(Carry::Value);
                let data = |exact| DataOf { request_id: Some(id), packet, exact, ..DataOf::default() };
                return Some((self.responses_of(to), self.carrying(r#type, &content, data)?));
            }
            // Nobody asks this here.
            Say::Ids { .. } | Say::Rooms { .. } => return None,
        };
        let channel = to.map_or_else(|| self.channel.clone(), |to| self.responses_of(to));
        Some((channel, serde_json::to_vec(&self.message(r#type, data)).ok()?))
    }

    fn responses_of(&self, uid: &str) -> String {
        format!("{}{uid}#", self.channel)
    }

    fn message<'a>(&'a self, r#type: u8, data: DataOf<'a>) -> MessageOf<'a> {
        MessageOf { uid: &self.uid, nsp: &self.namespace, r#type, data }
    }

    fn carrying<'a>(
        &'a self,
        r#type: u8,
        content: &Content<'a>,
        data: impl Fn(Option<ExactOf<'a>>) -> DataOf<'a>,
    ) -> Option<Vec<u8>> {
        content.text_or_packed(|exact| self.message(r#type, data(exact)))
    }

    /// Understands what was published: who said what.
    pub(super) fn decode(&self, payload: &[u8]) -> Result<(String, Heard), Dropped> {
        let (json, attachments) = if payload.first() == Some(&b'{') {
            (str::from_utf8(payload).map_err(|_| "no UTF-8")?.to_owned(), Vec::new())
        } else {
            from_msgpack(payload).ok_or("no MessagePack")?
        };
        let message: Message<'_> = serde_json::from_str(&json).map_err(|_| "no message")?;
        if message.nsp != *self.namespace {
            return Err(Dropped::Foreign("another namespace"));
        }
        let data = message.data.map_or("{}", RawValue::get);
        let command = || serde_json::from_str::<Command>(data).map_err(|_| "no command");
        let carried = || serde_json::from_str::<Carried<'_>>(data).map_err(|_| "no data");
        let heard = match message.r#type {
            BROADCAST => {
                let broadcast: Broadcast<'_> = serde_json::from_str(data).map_err(|_| "no broadcast")?;
                let event = broadcast.packet.event(&self.namespace, attachments, broadcast.exact)?;
                let timeout = broadcast.opts.timeout();
                let target = broadcast.opts.into();
                match broadcast.request_id {
                    Some(id) => Heard::Ask { id, event, target, timeout },
                    None => Heard::Broadcast { event, target },
                }
            }
            JOIN => command().map(|Command { opts, rooms: to, .. }| Heard::Join(opts.into(), rooms(to)))?,
            LEAVE => command().map(|Command { opts, rooms: from, .. }| Heard::Leave(opts.into(), rooms(from)))?,
            DISCONNECT => command().map(|Command { opts, close, .. }| Heard::Disconnect {
                target: opts.into(),
                close: close.unwrap_or(false),
            })?,
            FETCH => {
                let Command { opts, request_id, .. } = command()?;
                Heard::Fetch { id: request_id.ok_or("no id")?, target: opts.into() }
            }
            SERVER_SIDE_EMIT => {
                let Carried { request_id, packet, exact, .. } = carried()?;
                let event = event(packet.ok_or("no packet")?, attachments, exact)?;
                Heard::ServerSideEmit { id: request_id, event }
            }
            SOCKETS | SERVER_SIDE_ANSWER | CLIENT_COUNT | ACK => {
                let Carried { request_id, packet, client_count, sockets: described, exact } = carried()?;
                let id = request_id.ok_or("no id")?;
                match message.r#type {
                    SOCKETS => Heard::Sockets { id, sockets: sockets(described.ok_or("no sockets")?, attachments) },
                    CLIENT_COUNT => Heard::Clients { id, count: client_count.ok_or("no count")? },
                    ACK => Heard::Ack { id, data: answer(packet, attachments, exact)? },
                    _ => Heard::ServerSideAnswer { id, data: answer(packet, attachments, exact)? },
                }
            }
            _ => return Err(Dropped::Foreign("an unknown type")),
        };
        Ok((message.uid, heard))
    }
}

fn moving<'a>(target: &'a Target, rooms: &'a [Room]) -> DataOf<'a> {
    let rooms = Some(rooms.iter().map(|room| &**room).collect());
    DataOf { opts: Some(OptionsOf::new(target, None)), rooms, ..DataOf::default() }
}

/// The reference counts UTF-16 code units.
fn looks_like_an_id(room: &str) -> bool {
    room.encode_utf16().count() == 20
}
