//! What one instance sends, every instance delivers byte for byte: text and attachments.

use serde_json::value::RawValue;
use socketio::adapter::redis::{Mode, Redis};
use socketio::server::{NamespaceBuilder, RecoveryConfig};
use socketio::{Data, Io, Namespace, Socket};
use syncwatch_backends::Redis as Backend;

use crate::support::{Client, Received, Server, config, fence, until, within};
use crate::{MODES, Node, TIMEOUT, settings};

/// Arguments of an event or ack, and the attachments that come with them.
type Arguments = (&'static str, &'static [&'static [u8]]);

/// What a detour through values would change, drop or refuse.
const ODD: &[Arguments] = &[
    ("", &[]),
    ("null", &[]),
    (r#""x\ud83d""#, &[]),
    (r#"{"\udc00":"\ud83d\ude00","a":"\ude00\ud83d"}"#, &[]),
    ("1e400,-1e400", &[]),
    ("123456789012345678901234567890,-9223372036854775809,18446744073709551616", &[]),
    ("9007199254740993,18446744073709551615,-9223372036854775808", &[]),
    ("1.0,1,-0,-0.0,1e2,1E+2,0.10,100000000000000000000000.0,1e-7,0.0000001", &[]),
    (r#"{"b":1,"a":2}"#, &[]),
    (r#"{"2":1,"1":2,"":3}"#, &[]),
    (r#"{"a":1,"a":2}"#, &[]),
    ("[ 1 ,\t{ \"a\" : [ ] , \"b\" : { } } ]  ,  \"x\"", &[]),
    (r#""\u00fc\/\u0041ü\n\u000a\u007f""#, &[]),
    (r#"{"_placeholder":true,"num":0}"#, &[]),
    (r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#, &[b"one", b""]),
    (r#"{"_placeholder":true,"num":1},1,{"z":{"_placeholder":true,"num":0},"a":1.0}"#, &[b"one", b"two"]),
    (r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}"#, &[b"one"]),
    (r#"{"_placeholder":true,"num":1}"#, &[b"one", b"two", b"three"]),
    (r#"1,{"num":0,"_placeholder":true},{ "_placeholder":true,"num":0,"more":[{}] }"#, &[b"one"]),
    (r#""x\ud83d",1e400,{"_placeholder":true,"num":0}"#, &[b"one"]),
    (r#"{"_placeholder":false,"num":0},[{"_placeholder":true,"num":0}]"#, &[b"one"]),
];

/// As deep as JSON from a client may be.
fn deepest() -> String {
    format!("{}1{}", "[".repeat(127), "]".repeat(127))
}

fn handlers(root: &mut NamespaceBuilder) {
    root.on("say", async |socket: Socket, what: Data| socket.namespace().to("room").emit("said", what).unwrap());
    root.on_connect(|socket: Socket| async move { socket.join("room") });
    root.on_server_side("answer this", |_: &Namespace, data: Data, ack| ack.unwrap().send(data).unwrap());
    root.on_server_side("pass on", |namespace: &Namespace, data: Data, _ack| {
        namespace.local().emit("passed on", data).unwrap();
    });
    fence(root);
}

async fn instances(redis: &Backend, mode: Mode) -> [Node; 2] {
    [Node::with(settings(redis, mode), handlers).await, Node::with(settings(redis, mode), handlers).await]
}

/// A client in the room, which its instance is known to listen to.
async fn member(node: &Node) -> Client {
    let mut client = Client::open(&node.server).await;
    client.join("/").await;
    until("the room", || node.root().broadcast().sockets().iter().all(|socket| !socket.rooms().is_empty())).await;
    within("the subscription", node.redis.ready()).await;
    client
}

/// The text of a packet: that of an ack where there is an id and no name.
fn packet(id: Option<&str>, name: Option<&str>, (arguments, attachments): (&str, &[&[u8]])) -> String {
    let digit = match (name.is_some(), attachments.is_empty()) {
        (true, true) => "2".to_owned(),
        (true, false) => format!("5{}-", attachments.len()),
        (false, true) => "3".to_owned(),
        (false, false) => format!("6{}-", attachments.len()),
    };
    let name = name.map(|name| format!("\"{name}\"")).into_iter();
    let all: Vec<String> = name.chain((!arguments.is_empty()).then(|| arguments.to_owned())).collect();
    format!("4{digit}{}[{}]", id.unwrap_or_default(), all.join(","))
}

async fn send(client: &mut Client, id: Option<&str>, name: Option<&str>, arguments: Arguments) {
    client.send(&packet(id, name, arguments)).await;
    for attachment in arguments.1 {
        client.send_binary(attachment).await;
    }
}

async fn expect(client: &mut Client, name: &str, arguments: (&str, &[&[u8]])) {
    client.expect([&*packet(None, Some(name), arguments)]).await;
    for attachment in arguments.1 {
        client.expect_binary(attachment).await;
    }
}

fn data((arguments, attachments): Arguments) -> Data {
    Data::from_json(format!("[{arguments}]"), attachments.iter().map(|bytes| bytes.to_vec().into()).collect()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_delivered_byte_for_byte_by_every_instance() {
    let redis = Backend::start().unwrap();
    for mode in MODES {
        let [one, two] = instances(&redis, mode).await;
        let (mut a, mut b) = (member(&one).await, member(&two).await);
        for arguments in ODD {
            send(&mut a, None, Some("say"), *arguments).await;
            for client in [&mut a, &mut b] {
                expect(client, "said", *arguments).await;
            }
        }
        // The array of the packet is one level.
        let deep = deepest();
        a.send(&packet(None, Some("say"), (&deep, &[]))).await;
        for client in [&mut a, &mut b] {
            expect(client, "said", (&deep, &[])).await;
        }
        drop((a, b));
        for node in [one, two] {
            assert_eq!(node.redis.lost(), 0, "{mode:?}");
            node.server.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_and_answers_are_the_same_on_every_instance() {
    let redis = Backend::start().unwrap();
    for mode in MODES {
        let [one, two] = instances(&redis, mode).await;
        let (mut a, mut b) = (member(&one).await, member(&two).await);
        for arguments in ODD {
            let (root, question) = (one.root(), data(*arguments));
            let asking = tokio::spawn(async move { root.emit_with_ack::<Data>("q", question, TIMEOUT).await.unwrap() });
            for client in [&mut a, &mut b] {
                let text = client.text().await;
                let (head, _) = text.split_once('[').unwrap();
                let id = head.rsplit_once('-').map_or(&head[2..], |(_, id)| id);
                assert_eq!(text, packet(Some(id), Some("q"), *arguments));
                for attachment in arguments.1 {
                    client.expect_binary(attachment).await;
                }
                send(client, Some(id), None, *arguments).await;
            }
            let acks = asking.await.unwrap();
            assert!(acks.is_complete(), "{mode:?}: {acks:?}");
            assert_eq!(acks.answers, [data(*arguments), data(*arguments)], "{mode:?}");
        }
        drop((a, b));
        for node in [one, two] {
            assert_eq!(node.redis.lost(), 0, "{mode:?}");
            node.server.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_between_servers_arrive_as_they_were_sent() {
    let redis = Backend::start().unwrap();
    for mode in MODES {
        let [one, two] = instances(&redis, mode).await;
        let mut b = member(&two).await;
        for arguments in ODD {
            one.root().server_side_emit("pass on", data(*arguments)).unwrap();
            expect(&mut b, "passed on", *arguments).await;
            let acks = one.root().server_side_emit_with_ack::<Data>("answer this", data(*arguments)).await.unwrap();
            assert!(acks.is_complete(), "{mode:?}: {acks:?}");
            assert_eq!(acks.answers, [data(*arguments)], "{mode:?}");
        }
        drop(b);
        for node in [one, two] {
            assert_eq!(node.redis.lost(), 0, "{mode:?}");
            node.server.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_socket_keeps_is_read_elsewhere_as_it_was_kept() {
    let redis = Backend::start().unwrap();
    for mode in MODES {
        let [one, two] = instances(&redis, mode).await;
        let client = member(&two).await;
        let socket = two.server.sockets(1).await.remove(0);
        for (json, _) in ODD.iter().filter(|(json, attachments)| !json.is_empty() && attachments.is_empty()) {
            let kept = RawValue::from_string(format!("[{json}]")).unwrap();
            socket.set_data(&kept).unwrap();
            for node in [&one, &two] {
                let far = node.root().fetch_sockets().await.unwrap().remove(0);
                assert_eq!(far.data::<Box<RawValue>>().unwrap().get(), kept.get(), "{mode:?}");
            }
        }
        drop(client);
        for node in [one, two] {
            node.server.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_have_a_place_are_the_same_everywhere_and_once_more() {
    let redis = Backend::start().unwrap();
    let start = || async {
        let adapter = Redis::start(settings(&redis, Mode::Classic)).unwrap();
        let builder = Io::builder().config(config()).adapter(adapter.adapter()).recovery(RecoveryConfig::default());
        let server = Server::with(builder.namespace("/", handlers)).await;
        within("Redis", adapter.ready()).await;
        (server, adapter)
    };
    let (one, two) = (start().await, start().await);
    let mut a = Client::joined(&one.0).await;
    let mut b = Client::open(&two.0).await;
    b.send("40").await;
    let pid = crate::support::string_field(&b.text().await, "pid");
    for server in [&one.0, &two.0] {
        until("the room", || server.root().broadcast().sockets().iter().all(|socket| !socket.rooms().is_empty())).await;
    }
    let noted = || redis.cli(&["hget", &format!("socket.io-session#/#{pid}"), "state"]).unwrap().contains("room");
    until("the session to be noted down", noted).await;
    let mut offset = String::new();
    let check = async |client: &mut Client, arguments: &Arguments, offset: &mut String| {
        let text = client.text().await;
        let (before, behind) = text.rsplit_once(",\"").unwrap();
        assert_eq!(format!("{before}]"), packet(None, Some("said"), *arguments));
        *offset = behind.strip_suffix("\"]").unwrap().to_owned();
        for attachment in arguments.1 {
            client.expect_binary(attachment).await;
        }
    };
    for arguments in ODD {
        send(&mut a, None, Some("say"), *arguments).await;
        for client in [&mut a, &mut b] {
            check(client, arguments, &mut offset).await;
        }
    }
    // The client comes back to the other instance, and is sent what it missed from that one's memory.
    drop(b);
    let last = offset.clone();
    for arguments in ODD {
        send(&mut a, None, Some("say"), *arguments).await;
        check(&mut a, arguments, &mut offset).await;
    }
    let mut back = Client::open(&one.0).await;
    back.send(&format!(r#"40{{"pid":"{pid}","offset":"{last}"}}"#)).await;
    for arguments in ODD {
        check(&mut back, arguments, &mut offset).await;
    }
    assert!(back.text().await.starts_with("40{"));
    drop((a, back));
    for (server, adapter) in [one, two] {
        assert_eq!(adapter.lost(), 0);
        server.finish().await;
    }
}

#[tokio::test]
async fn an_event_that_nobody_could_decode_is_an_error_everywhere() {
    let redis = Backend::start().unwrap();
    for mode in [MODES[0], MODES[1]] {
        let [one, two] = instances(&redis, mode).await;
        let (mut a, mut b) = (member(&one).await, member(&two).await);
        let deep = RawValue::from_string(format!("{}1{}", "[".repeat(128), "]".repeat(128))).unwrap();
        assert!(one.root().emit("deep", (&deep,)).is_err());
        assert!(one.root().server_side_emit("pass on", (&deep,)).is_err());
        one.root().emit("last", ()).unwrap();
        for client in [&mut a, &mut b] {
            client.expect([r#"42["last"]"#]).await;
        }
        assert_eq!(one.redis.lost() + two.redis.lost(), 0);
        drop((a, b));
        one.server.finish().await;
        two.server.finish().await;
    }
}

/// Publishes what others say, with bytes that are no zero.
fn publish(redis: &Backend, mode: Mode, channel: &str, message: &str) {
    let command = if mode == Mode::Classic { "PUBLISH" } else { "SPUBLISH" };
    redis.cli(&[command, channel, message]).unwrap();
}

#[tokio::test]
async fn what_cannot_be_delivered_is_counted_and_what_concerns_others_is_not() {
    let redis = Backend::start().unwrap();
    for mode in [Mode::Classic, MODES[1]] {
        let node = Node::with(settings(&redis, mode), handlers).await;
        let mut client = member(&node).await;
        let deep = format!("{}1{}", "[".repeat(128), "]".repeat(128));
        let (requests, foreign, lost) = if mode == Mode::Classic {
            let responses = "socket.io-response#/#";
            for response in [r#"{"requestId":"x","sockets":["id"]}"#, r#"{"requestId":"x","rooms":["r"]}"#] {
                publish(&redis, mode, responses, response);
            }
            (
                "socket.io-request#/#",
                r#"{"uid":"u","type":99}"#.to_owned(),
                format!(r#"{{"uid":"u","type":6,"data":["e",{deep}]}}"#),
            )
        } else {
            let message = |nsp: &str, data: &str| {
                format!(
                    r#"{{"uid":"u","nsp":"{nsp}","type":3,"data":{{"packet":{{"type":2,"nsp":"{nsp}","data":["e",{data}]}},"opts":{{"rooms":[],"except":[],"flags":{{}}}}}}}}"#
                )
            };
            ("socket.io#/#", message("/other", "1"), message("/", &deep))
        };
        publish(&redis, mode, requests, &foreign);
        publish(&redis, mode, requests, &lost);
        until("the loss to be counted", || node.redis.lost() == 1).await;
        node.root().local().emit("last", ()).unwrap();
        client.expect([r#"42["last"]"#]).await;
        assert_eq!(node.redis.lost(), 1);
        drop(client);
        node.server.finish().await;
    }
}

#[tokio::test]
async fn an_event_named_by_a_number_keeps_its_name() {
    let redis = Backend::start().unwrap();
    let mode = MODES[1];
    let node = Node::with(settings(&redis, mode), handlers).await;
    let mut client = member(&node).await;
    let message = r#"{"uid":"u","nsp":"/","type":3,"data":{"packet":{"type":2,"nsp":"/","data":[7, "x\ud83d"]},"opts":{"rooms":[],"except":[],"flags":{}}}}"#;
    publish(&redis, mode, "socket.io#/#", message);
    assert_eq!(within("the event", client.receive()).await, Received::Text(r#"42[7, "x\ud83d"]"#.to_owned()));
    drop(client);
    node.server.finish().await;
}
