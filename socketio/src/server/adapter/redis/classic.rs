//! The format of `@socket.io/redis-adapter` 8 and `@socket.io/redis-emitter` 5: broadcasts in MessagePack on a channel
//! for the namespace or for their one room, questions and answers in JSON on two more.

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::message::{Dropped, Heard, Name, Options, OptionsOf, Packet, PacketOf, Say, answer, first, rooms};
use super::wire::{from_msgpack, to_msgpack};
use crate::server::adapter::{Outgoing, SocketInfo, Target};
use crate::server::socket::Room;
use crate::{Data, Event};

const SOCKETS: u8 = 0;
const ALL_ROOMS: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const DISCONNECT: u8 = 4;
const FETCH: u8 = 5;
const SERVER_SIDE_EMIT: u8 = 6;
const BROADCAST: u8 = 7;
const CLIENT_COUNT: u8 = 8;
const ACK: u8 = 9;

#[derive(Debug)]
pub(super) struct Classic {
    uid: Box<str>,
    namespace: Box<str>,
    channel: String,
    requests: String,
    responses: String,
    own_responses: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    r#type: u8,
    uid: Option<String>,
    request_id: Option<String>,
    opts: Option<Options>,
    rooms: Option<Vec<Name>>,
    room: Option<Name>,
    sid: Option<String>,
    close: Option<bool>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    packet: Option<Packet<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    r#type: Option<u8>,
    request_id: String,
    client_count: Option<usize>,
    sockets: Option<Vec<SocketInfo>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    packet: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestOf<'a> {
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    r#type: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    opts: Option<OptionsOf<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<PacketOf<'a>>,
}

impl Classic {
    pub(super) fn new(prefix: &str, namespace: &str, uid: &str) -> Self {
        let responses = format!("{prefix}-response#{namespace}#");
        Self {
            uid: uid.into(),
            namespace: namespace.into(),
            channel: format!("{prefix}#{namespace}#"),
            requests: format!("{prefix}-request#{namespace}#"),
            own_responses: format!("{responses}{uid}#"),
            responses,
        }
    }

    /// The channels that every instance listens to.
    pub(super) fn channels(&self) -> [&str; 4] {
        [&self.channel, &self.requests, &self.responses, &self.own_responses]
    }

    /// The channel of broadcasts to one room and no other.
    pub(super) fn room_channel(&self, room: &str) -> String {
        format!("{}{room}#", self.channel)
    }

    /// The channel that has as many subscribers as there are instances.
    pub(super) fn counted(&self) -> &str {
        &self.requests
    }

    /// Encodes what is said, for a channel; `None` where that cannot be.
    pub(super) fn encode(&self, say: Say<'_>) -> Option<(String, Vec<u8>)> {
        let requests = || self.requests.clone();
        Some(match say {
            Say::Broadcast { packet, target } => {
                let message = (&*self.uid, PacketOf::new(packet, &self.namespace)?, OptionsOf::new(target, None));
                let channel = match &target.rooms[..] {
                    [room] => self.room_channel(room),
                    _ => self.channel.clone(),
                };
                (channel, packed(&message, packet)?)
            }
            Say::Ask { id, packet, target, timeout } => {
                let request = RequestOf {
                    request_id: Some(id),
                    opts: Some(OptionsOf::new(target, Some(timeout))),
                    packet: Some(PacketOf::new(packet, &self.namespace)?),
                    ..self.request(BROADCAST)
                };
                (requests(), packed(&request, packet)?)
            }
            Say::Join(target, rooms) => (requests(), text(&self.moving(JOIN, target, rooms))?),
            Say::Leave(target, rooms) => (requests(), text(&self.moving(LEAVE, target, rooms))?),
            Say::Disconnect { target, close } => {
                let opts = Some(OptionsOf::new(target, None));
                (requests(), text(&RequestOf { opts, close: Some(close), ..self.request(DISCONNECT) })?)
            }
            Say::Fetch { id, target } => {
                let opts = Some(OptionsOf::new(target, None));
                (requests(), text(&RequestOf { request_id: Some(id), opts, ..self.request(FETCH) })?)
            }
            Say::ServerSideEmit { id, event } => {
                let data: &RawValue = serde_json::from_str(event.data().json()).ok()?;
                let request = RequestOf { request_id: id, data: Some(data), ..self.request(SERVER_SIDE_EMIT) };
                let request = serde_json::to_string(&request).ok()?;
                (requests(), with_attachments(request, event.data())?)
            }
            Say::Clients { id, count, .. } => {
                self.response(text(&json!({ "type": CLIENT_COUNT, "requestId": id, "clientCount": count }))?)
            }
            Say::Ack { id, data, .. } => {
                let response = json!({ "type": ACK, "requestId": id, "packet": first(data) }).to_string();
                self.response(to_msgpack(&response, data.attachments().iter().map(|bytes| &**bytes))?)
            }
            Say::Sockets { id, sockets, .. } => self.response(text(&json!({ "requestId": id, "sockets": sockets }))?),
            Say::ServerSideAnswer { id, data, .. } => {
                let response = json!({ "type": SERVER_SIDE_EMIT, "requestId": id, "data": first(data) }).to_string();
                self.response(with_attachments(response, data)?)
            }
            Say::Ids { id, ids, .. } => self.response(text(&json!({ "requestId": id, "sockets": names(ids) }))?),
            Say::Rooms { id, rooms, .. } => self.response(text(&json!({ "requestId": id, "rooms": names(rooms) }))?),
        })
    }

    fn request(&self, r#type: u8) -> RequestOf<'_> {
        RequestOf {
            uid: &self.uid,
            request_id: None,
            r#type,
            opts: None,
            rooms: None,
            close: None,
            data: None,
            packet: None,
        }
    }

    fn moving<'a>(&'a self, r#type: u8, target: &'a Target, rooms: &'a [Room]) -> RequestOf<'a> {
        let opts = Some(OptionsOf::new(target, None));
        RequestOf { opts, rooms: Some(names(rooms)), ..self.request(r#type) }
    }

    /// Answers go to everybody, as in the reference by default: whoever asked may listen nowhere else.
    fn response(&self, payload: Vec<u8>) -> (String, Vec<u8>) {
        (self.responses.clone(), payload)
    }

    /// Understands what was published in a channel: who said what.
    pub(super) fn decode(&self, channel: &str, payload: &[u8]) -> Result<(String, Heard), Dropped> {
        let is_response = channel == self.responses || channel == self.own_responses;
        let is_json = payload.first() == Some(&b'{') && (is_response || channel == self.requests);
        let (json, attachments) = if is_json {
            (str::from_utf8(payload).map_err(|_| "no UTF-8")?.to_owned(), Vec::new())
        } else {
            from_msgpack(payload).ok_or("no MessagePack")?
        };
        if channel == self.requests {
            let request: Request<'_> = serde_json::from_str(&json).map_err(|_| "no request")?;
            let uid = request.uid.clone().unwrap_or_default();
            return Ok((uid, self.request_heard(request, attachments)?));
        }
        if is_response {
            let response: Response<'_> = serde_json::from_str(&json).map_err(|_| "no response")?;
            let id = response.request_id;
            let heard = match (response.r#type, response.sockets) {
                (Some(CLIENT_COUNT), _) => Heard::Clients { id, count: response.client_count.ok_or("no count")? },
                (Some(ACK), _) => Heard::Ack { id, data: answer(response.packet, attachments)? },
                (Some(SERVER_SIDE_EMIT), _) => {
                    Heard::ServerSideAnswer { id, data: answer(response.data, attachments)? }
                }
                (_, Some(sockets)) => Heard::Sockets { id, sockets },
                (_, None) => return Err("an answer to nothing we ask"),
            };
            return Ok((String::new(), heard));
        }
        let (uid, packet, options): (String, Packet<'_>, Options) =
            serde_json::from_str(&json).map_err(|_| "no broadcast")?;
        let event = packet.event(&self.namespace, attachments)?;
        Ok((uid, Heard::Broadcast { event, target: options.into() }))
    }

    fn request_heard(&self, request: Request<'_>, attachments: Vec<bytes::Bytes>) -> Result<Heard, Dropped> {
        let id = request.request_id;
        let timeout = request.opts.as_ref().and_then(Options::timeout);
        let asked_rooms = rooms(request.rooms);
        // Before version 6 of the adapter these named one socket.
        let target = match (request.opts, request.sid) {
            (Some(options), _) => Some(Target::from(options)),
            (None, Some(socket)) => Some(Target { rooms: vec![socket.into()], ..Target::default() }),
            (None, None) => None,
        };
        let moved = || -> Vec<Room> { asked_rooms.iter().cloned().chain(request.room.map(Room::from)).collect() };
        Ok(match request.r#type {
            SOCKETS => {
                let target = Target { rooms: asked_rooms, ..Target::default() };
                Heard::Ids { id: id.ok_or("no id")?, target }
            }
            ALL_ROOMS => Heard::Rooms { id: id.ok_or("no id")? },
            JOIN => Heard::Join(target.ok_or("no target")?, moved()),
            LEAVE => Heard::Leave(target.ok_or("no target")?, moved()),
            DISCONNECT => {
                Heard::Disconnect { target: target.ok_or("no target")?, close: request.close.unwrap_or(false) }
            }
            FETCH => Heard::Fetch { id: id.ok_or("no id")?, target: target.ok_or("no target")? },
            SERVER_SIDE_EMIT => {
                let data = request.data.ok_or("no data")?;
                Heard::ServerSideEmit { id, event: Event::from_json(data.get(), attachments).map_err(|_| "no event")? }
            }
            BROADCAST => {
                let event = request.packet.ok_or("no packet")?.event(&self.namespace, attachments)?;
                Heard::Ask { id: id.ok_or("no id")?, event, target: target.ok_or("no target")?, timeout }
            }
            _ => return Err("an unknown type"),
        })
    }
}

fn names(rooms: &[Room]) -> Vec<&str> {
    rooms.iter().map(|room| &**room).collect()
}

fn text(message: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(message).ok()
}

fn packed(message: &impl Serialize, packet: &Outgoing) -> Option<Vec<u8>> {
    to_msgpack(&serde_json::to_string(message).ok()?, packet.attachments())
}

/// As JSON, unless there is binary data in it.
fn with_attachments(message: String, data: &Data) -> Option<Vec<u8>> {
    if data.attachments().is_empty() {
        return Some(message.into_bytes());
    }
    to_msgpack(&message, data.attachments().iter().map(|bytes| &**bytes))
}
