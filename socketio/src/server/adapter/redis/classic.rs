//! The format of `@socket.io/redis-adapter` 8 and `@socket.io/redis-emitter` 5: broadcasts in MessagePack on a channel
//! for the namespace or for their one room, questions and answers in JSON on two more.
//!
//! What MessagePack cannot carry as it is travels beside it, for instances of ours: as a fourth element behind the options
//! of a broadcast, and as the field `exact` of a question or an answer.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::message::{
    Content, Dropped, Exact, ExactOf, Heard, Options, OptionsOf, Packet, PacketOf, Say, answer, event, present, rooms,
    sockets,
};
use super::wire::from_msgpack;
use crate::server::adapter::{Name, SocketInfo, Target};
use crate::server::socket::Room;

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
    exact: Option<Exact>,
}

/// Who broadcasts what to whom, then the array as it is.
#[derive(Deserialize)]
struct Broadcast<'a>(String, #[serde(borrow)] Packet<'a>, Options, #[serde(default)] Option<Exact>);

#[derive(Serialize)]
#[serde(untagged)]
enum BroadcastOf<'a> {
    Plain(&'a str, &'a PacketOf<'a>, &'a OptionsOf<'a>),
    Exact(&'a str, &'a PacketOf<'a>, &'a OptionsOf<'a>, ExactOf<'a>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    r#type: Option<u8>,
    /// Who answers; instances of socket.io do not say it.
    uid: Option<String>,
    request_id: String,
    client_count: Option<usize>,
    #[serde(borrow)]
    sockets: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    packet: Option<&'a RawValue>,
    exact: Option<Exact>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct ResponseOf<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<u8>,
    /// Who answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<ExactOf<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SocketsOf<'a, S: Serialize> {
    /// Who answers, where that is another instance of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    request_id: &'a str,
    sockets: S,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomsOf<'a> {
    request_id: &'a str,
    rooms: Vec<&'a str>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    exact: Option<ExactOf<'a>>,
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
                let of = (PacketOf::new(packet, &self.namespace)?, OptionsOf::new(target, None));
                let message = |exact| match exact {
                    None => BroadcastOf::Plain(&self.uid, &of.0, &of.1),
                    Some(exact) => BroadcastOf::Exact(&self.uid, &of.0, &of.1, exact),
                };
                let channel = match &target.rooms[..] {
                    [room] => self.room_channel(room),
                    _ => self.channel.clone(),
                };
                (channel, Content::of_packet(packet).packed(message)?)
            }
            Say::Ask { id, packet, target, timeout } => {
                let of = PacketOf::new(packet, &self.namespace)?;
                let request = |exact| RequestOf {
                    request_id: Some(id),
                    opts: Some(OptionsOf::new(target, Some(timeout))),
                    packet: Some(of),
                    exact,
                    ..self.request(BROADCAST)
                };
                (requests(), Content::of_packet(packet).packed(request)?)
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
                let request =
                    |exact| RequestOf { request_id: id, data: Some(data), exact, ..self.request(SERVER_SIDE_EMIT) };
                (requests(), Content::of_event(event).text_or_packed(request)?)
            }
            Say::Clients { id, count, .. } => {
                let (uid, client_count) = (Some(&*self.uid), Some(count));
                self.response(text(&ResponseOf { uid, client_count, ..response(CLIENT_COUNT, id) })?)
            }
            Say::Ack { id, data, .. } => {
                let (content, packet) = Content::of_answer(data);
                self.response(content.packed(|exact| ResponseOf { packet, exact, ..response(ACK, id) })?)
            }
            Say::Sockets { id, sockets, .. } => {
                self.response(text(&SocketsOf { uid: Some(&self.uid), request_id: id, sockets })?)
            }
            Say::ServerSideAnswer { id, data, .. } => {
                let (content, data) = Content::of_answer(data);
                let uid = Some(&*self.uid);
                let response = |exact| ResponseOf { uid, data, exact, ..response(SERVER_SIDE_EMIT, id) };
                self.response(content.text_or_packed(response)?)
            }
            Say::Ids { id, ids, .. } => {
                self.response(text(&SocketsOf { uid: None, request_id: id, sockets: names(ids) })?)
            }
            Say::Rooms { id, rooms, .. } => self.response(text(&RoomsOf { request_id: id, rooms: names(rooms) })?),
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
            exact: None,
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
            // Those to the questions of others have other shapes; an answer that is missing is told where it was asked for.
            let foreign = |_| Dropped::Foreign("an answer to nothing we ask");
            let response: Response<'_> = serde_json::from_str(&json).map_err(foreign)?;
            let (id, exact) = (response.request_id, response.exact);
            let heard = match (response.r#type, response.sockets) {
                (Some(CLIENT_COUNT), _) => Heard::Clients { id, count: response.client_count.ok_or("no count")? },
                (Some(ACK), _) => Heard::Ack { id, data: answer(response.packet, attachments, exact)? },
                (Some(SERVER_SIDE_EMIT), _) => {
                    Heard::ServerSideAnswer { id, data: answer(response.data, attachments, exact)? }
                }
                (_, Some(described)) => {
                    let described: Vec<SocketInfo> = serde_json::from_str(described.get()).map_err(foreign)?;
                    Heard::Sockets { id, sockets: sockets(described, attachments) }
                }
                (_, None) => return Err(Dropped::Foreign("an answer to nothing we ask")),
            };
            return Ok((response.uid.unwrap_or_default(), heard));
        }
        let Broadcast(uid, packet, options, exact) = serde_json::from_str(&json).map_err(|_| "no broadcast")?;
        let event = packet.event(&self.namespace, attachments, exact)?;
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
                Heard::ServerSideEmit { id, event: event(data, attachments, request.exact)? }
            }
            BROADCAST => {
                let event = request.packet.ok_or("no packet")?.event(&self.namespace, attachments, request.exact)?;
                Heard::Ask { id: id.ok_or("no id")?, event, target: target.ok_or("no target")?, timeout }
            }
            _ => return Err(Dropped::Foreign("an unknown type")),
        })
    }
}

fn names(rooms: &[Room]) -> Vec<&str> {
    rooms.iter().map(|room| &**room).collect()
}

fn text(message: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(message).ok()
}

fn response(r#type: u8, id: &str) -> ResponseOf<'_> {
    ResponseOf { r#type: Some(r#type), request_id: id, ..ResponseOf::default() }
}
