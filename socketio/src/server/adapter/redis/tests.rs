//! Both formats: what they say they understand, what the reference says too, and nothing else.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{Binary, Data, Event};

fn classic(uid: &str) -> Protocol {
    Protocol::Classic(Classic::new("socket.io", "/a", uid))
}

fn sharded(uid: &str) -> Protocol {
    Protocol::Sharded(Sharded::new("socket.io", "/a", uid, Subscription::Dynamic))
}

fn target() -> Target {
    Target { rooms: vec!["r".into(), "s".into()], except_rooms: vec!["x".into()], volatile: true, ..Target::default() }
}

/// Everything that can be said, as one reads what another has said.
fn conversation(from: &Protocol, to: &Protocol) -> Vec<(String, Vec<u8>, Heard)> {
    let packet = Outgoing::event("/a", None, "e", (1, Binary::from(vec![7]), "ü")).unwrap();
    let plain = Outgoing::event("/a", None, "e", (1,)).unwrap();
    let (target, rooms) = (target(), ["to".into(), "7".into()]);
    let event = Event::encode("tell", (1, "x")).unwrap();
    let binary = Event::encode("tell", (Binary::from(vec![7]),)).unwrap();
    let data = Data::encode((Binary::from(vec![1, 2]), "more")).unwrap();
    let sockets: Vec<SocketInfo> =
        vec![serde_json::from_str(r#"{"id":"i","handshake":{},"rooms":["i","r"],"data":{"a":1}}"#).unwrap()];
    let timeout = Duration::from_millis(1500);
    let one = Target { rooms: vec!["r".into()], ..Target::default() };
    [
        Say::Broadcast { packet: &packet, target: &target },
        Say::Broadcast { packet: &plain, target: &one },
        Say::Ask { id: "1", packet: &packet, target: &target, timeout },
        Say::Join(&target, &rooms),
        Say::Leave(&target, &rooms),
        Say::Disconnect { target: &target, close: true },
        Say::Fetch { id: "2", target: &target },
        Say::ServerSideEmit { id: None, event: &event },
        Say::ServerSideEmit { id: Some("3"), event: &binary },
        Say::Clients { to: "two", id: "4", count: 5 },
        Say::Ack { to: "two", id: "5", data: &data },
        Say::Sockets { to: "two", id: "6", sockets: &sockets },
        Say::ServerSideAnswer { to: "two", id: "7", data: &data },
    ]
    .into_iter()
    .map(|say| {
        let (channel, payload) = from.encode(say).unwrap();
        let (_, heard) = to.decode(&channel, &payload).unwrap();
        (channel, payload, heard)
    })
    .collect()
}

#[test]
fn what_one_instance_says_another_understands() {
    for (one, two) in [(classic("one"), classic("two")), (sharded("one"), sharded("two"))] {
        let heard: Vec<String> =
            conversation(&one, &two).into_iter().map(|(_, _, heard)| format!("{heard:?}")).collect();
        let of = r#"Target { rooms: ["r", "s"], except_rooms: ["x"], except: [], local: false, volatile: true }"#;
        let event = |json: &str, attachments: &str| {
            format!(
                r#"Event {{ name: "{}", data: Data {{ json: {json:?}, attachments: {attachments} }} }}"#,
                &json[2..json.find(',').unwrap() - 1]
            )
        };
        let packet = event(r#"["e",1,{"_placeholder":true,"num":0},"ü"]"#, r#"[b"\x07"]"#);
        let answer = r#"Data { json: "[{\"_placeholder\":true,\"num\":0},\"more\"]", attachments: [b"\x01\x02"] }"#;
        assert_eq!(
            heard,
            [
                format!("Broadcast {{ event: {packet}, target: {of} }}"),
                format!(
                    "Broadcast {{ event: {}, target: Target {{ rooms: [\"r\"], except_rooms: [], except: [], local: false, volatile: false }} }}",
                    event(r#"["e",1]"#, "[]")
                ),
                format!(r#"Ask {{ id: "1", event: {packet}, target: {of}, timeout: Some(1.5s) }}"#),
                format!(r#"Join({of}, ["to", "7"])"#),
                format!(r#"Leave({of}, ["to", "7"])"#),
                format!("Disconnect {{ target: {of}, close: true }}"),
                format!(r#"Fetch {{ id: "2", target: {of} }}"#),
                format!("ServerSideEmit {{ id: None, event: {} }}", event(r#"["tell",1,"x"]"#, "[]")),
                format!(
                    r#"ServerSideEmit {{ id: Some("3"), event: {} }}"#,
                    event(r#"["tell",{"_placeholder":true,"num":0}]"#, r#"[b"\x07"]"#)
                ),
                r#"Clients { id: "4", count: 5 }"#.to_owned(),
                format!(r#"Ack {{ id: "5", data: {answer} }}"#),
                r#"Sockets { id: "6", sockets: [SocketInfo { id: "i", handshake: Object {}, rooms: ["i", "r"], data: RawValue({"a":1}), attachments: [] }] }"#.to_owned(),
                format!(r#"ServerSideAnswer {{ id: "7", data: {answer} }}"#),
            ]
        );
    }
}

#[test]
fn channels_are_those_of_the_reference() {
    let channels = |from: &Protocol, to: &Protocol| -> Vec<String> {
        conversation(from, to).into_iter().map(|(channel, ..)| channel).collect()
    };
    let classic = channels(&classic("one"), &classic("two"));
    assert_eq!(classic[..3], ["socket.io#/a#", "socket.io#/a#r#", "socket.io-request#/a#"]);
    assert!(classic[3..9].iter().all(|channel| channel == "socket.io-request#/a#"), "{classic:?}");
    assert!(classic[9..].iter().all(|channel| channel == "socket.io-response#/a#"), "{classic:?}");
    let sharded = channels(&sharded("one"), &sharded("two"));
    assert_eq!(sharded[..3], ["socket.io#/a#", "socket.io#/a#r#", "socket.io#/a#"]);
    assert!(sharded[3..9].iter().all(|channel| channel == "socket.io#/a#"), "{sharded:?}");
    assert!(sharded[9..].iter().all(|channel| channel == "socket.io#/a#two#"), "{sharded:?}");
}

#[test]
fn rooms_have_channels_as_the_subscription_says() {
    let id = "0123456789abcdefghij";
    let of = |subscription, room: &str| Sharded::new("io", "/", "uid", subscription).room_channel(room);
    assert_eq!(of(Subscription::Static, "r"), None);
    assert_eq!(of(Subscription::Dynamic, "r"), Some("io#/#r#".to_owned()));
    assert_eq!(of(Subscription::Dynamic, id), None);
    assert_eq!(of(Subscription::DynamicPrivate, id), Some(format!("io#/#{id}#")));
}

#[test]
fn messages_of_the_reference_are_understood() {
    // notepack.io: ["AbCdEf", {type: 2, data: ["e", Buffer [1]], nsp: "/a"}, {rooms: [5], except: [], flags: {}}]
    let broadcast = b"\x93\xa6AbCdEf\x83\xa4type\x02\xa4data\x92\xa1e\xc4\x01\x01\xa3nsp\xa2/a\
        \x83\xa5rooms\x91\x05\xa6except\x90\xa5flags\x80";
    let (uid, heard) = classic("x").decode("socket.io#/a#5#", broadcast).unwrap();
    let Heard::Broadcast { event, target } = heard else { panic!("{heard:?}") };
    assert_eq!((&*uid, event.data().attachments()), ("AbCdEf", &[Bytes::from_static(&[1])][..]));
    assert_eq!(target.rooms, [Room::from("5")]);
    // Without a namespace it is for the root.
    let heard = classic("x").decode("socket.io#/a#", b"\x93\xa1u\x81\xa4data\x91\xa1e\x80");
    assert_eq!(heard.unwrap_err(), Dropped::Foreign("another namespace"));
    for (request, heard) in [
        (r#"{"uid":"u","requestId":"1","type":1}"#, r#"Rooms { id: "1" }"#),
        (
            r#"{"type":4,"opts":{"rooms":[],"except":[]}}"#,
            "Disconnect { target: Target { rooms: [], except_rooms: [], except: [], local: false, volatile: false }, close: false }",
        ),
        (
            r#"{"type":2,"sid":"s","room":"r"}"#,
            r#"Join(Target { rooms: ["s"], except_rooms: [], except: [], local: false, volatile: false }, ["r"])"#,
        ),
    ] {
        let (_, understood) = classic("x").decode("socket.io-request#/a#", request.as_bytes()).unwrap();
        assert_eq!(format!("{understood:?}"), heard);
    }
    let answer = classic("x").decode("socket.io-response#/a#x#", br#"{"type":6,"requestId":"1"}"#).unwrap().1;
    let Heard::ServerSideAnswer { data, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(data.json(), "[]");
}

#[test]
fn sockets_of_socket_io_are_described_whatever_their_clients_have_put_there() {
    let sockets = r#"[{"id":"i","handshake":{"address":"a","auth":{"name":"\ud83d"},"query":{"n":1e400},"issued":1},
        "rooms":["i",5,"x\ud83d"],"data":{"b":1e400,"a":"\ud83d"}},{"id":"j","handshake":{}}]"#;
    let classic =
        classic("x").decode("socket.io-response#/a#", format!(r#"{{"requestId":"1","sockets":{sockets}}}"#).as_bytes());
    let message = format!(r#"{{"uid":"u","nsp":"/a","type":8,"data":{{"requestId":"1","sockets":{sockets}}}}}"#);
    for heard in [classic, sharded("x").decode("socket.io#/a#x#", message.as_bytes())] {
        let Ok((_, Heard::Sockets { sockets, .. })) = heard else { panic!("{heard:?}") };
        assert_eq!(sockets[0].handshake, serde_json::json!({ "address": "a", "issued": 1 }));
        assert_eq!(sockets[0].rooms, ["i", "5", "x\u{fffd}"]);
        assert_eq!(sockets[0].data.get(), r#"{"b":1e400,"a":"\ud83d"}"#);
        assert_eq!((sockets[1].data.get(), sockets[1].rooms.len()), ("{}", 0));
    }
    // notepack.io: binary data that a server of socket.io keeps with its sockets.
    let data = |name: &[u8], byte: u8| [b"\x82\xa2id\xa1", name, b"\xa4data\x81\xa1f\xc4\x01", &[byte]].concat();
    let message = [
        &b"\x84\xa3uid\xa1u\xa3nsp\xa2/a\xa4type\x08\xa4data\x82\xa9requestId\xa11\xa7sockets\x92"[..],
        &data(b"i", 1),
        &data(b"j", 2),
    ];
    let heard = sharded("x").decode("socket.io#/a#x#", &message.concat());
    let Ok((_, Heard::Sockets { sockets, .. })) = heard else { panic!("{heard:?}") };
    for (socket, byte) in sockets.iter().zip([1, 2]) {
        let kept: std::collections::HashMap<String, Binary> =
            crate::placeholder::from_str(socket.data.get(), &socket.attachments).unwrap();
        assert_eq!(kept["f"], Binary::from(vec![byte]));
        assert!(crate::placeholder::from_str::<serde_json::Value>(socket.data.get(), &socket.attachments).is_err());
    }
}

/// Bytes of messages are changed, cut and repeated, always in the same way.
#[test]
fn nothing_that_comes_in_makes_it_panic() {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for (one, two) in [(classic("one"), classic("two")), (sharded("one"), sharded("two"))] {
        for (channel, payload, _) in conversation(&one, &two) {
            for _ in 0..500 {
                let mut payload = payload.clone();
                for _ in 0..=random(4) {
                    let at = random(payload.len());
                    match random(4) {
                        0 => payload[at] = random(256) as u8,
                        1 => payload[at] ^= 1 << random(8),
                        2 => payload.truncate(at + 1),
                        _ => payload.extend_from_within(at..),
                    }
                }
                if let Ok((_, Heard::Broadcast { event, .. })) = two.decode(&channel, &payload) {
                    // It may be broken further in; then it goes no further either.
                    drop(Outgoing::forward("/a", None, event));
                }
            }
        }
    }
}
