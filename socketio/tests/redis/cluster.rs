//! What spans instances does so in every mode.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde_json::json;
use socketio::adapter::redis::{Mode, RedisConfig, Subscription};
use socketio::server::Room;
use socketio::{Binary, Namespace};
use syncwatch_backends::{Redis, RedisCluster};

use crate::support::{Client, until};
use crate::{MODES, Node, TIMEOUT, got, handlers, settings};

/// Everything that instances do together, over one Redis or Redis Cluster.
async fn suite(settings: impl Fn() -> RedisConfig) {
    let nodes = [Node::start(settings()).await, Node::start(settings()).await, Node::start(settings()).await];
    broadcasts(&nodes).await;
    binary_data(&nodes).await;
    descriptions_and_moves(&nodes).await;
    acks(&nodes).await;
    server_side_events(&nodes).await;
    for node in nodes {
        assert_eq!(node.redis.lost(), 0);
        node.server.finish().await;
    }
}

async fn broadcasts(nodes: &[Node; 3]) {
    let [one, two, three] = nodes;
    let (mut a, a_id) = one.member("a").await;
    let (mut b, _) = two.member("b").await;
    let (mut c, _) = three.member("a").await;
    one.root().emit("all", (1.5, "ü", json!({ "x": [null, true] }))).unwrap();
    a.expect([r#"42["all",1.5,"ü",{"x":[null,true]}]"#]).await;
    b.expect([r#"42["all",1.5,"ü",{"x":[null,true]}]"#]).await;
    c.expect([r#"42["all",1.5,"ü",{"x":[null,true]}]"#]).await;
    two.root().to("a").emit("a", ()).unwrap();
    a.expect([r#"42["a"]"#]).await;
    c.expect([r#"42["a"]"#]).await;
    two.root().to("a").to("b").emit("a or b", ()).unwrap();
    two.root().broadcast().except("a").emit("not a", ()).unwrap();
    two.root().broadcast().except(&*a_id).emit("not a's own", ()).unwrap();
    two.root().local().emit("two", ()).unwrap();
    two.root().broadcast().volatile().emit("volatile", ()).unwrap();
    let (own, volatile) = (r#"42["not a's own"]"#, r#"42["volatile"]"#);
    got(&mut a, &two.root(), &[r#"42["a or b"]"#, volatile]).await;
    c.expect([r#"42["a or b"]"#, own, volatile, r#"42["last"]"#]).await;
    b.expect([r#"42["a or b"]"#, r#"42["not a"]"#, own, r#"42["two"]"#, volatile, r#"42["last"]"#]).await;
    // In order, whatever else there is to do.
    for number in 0..1_000 {
        two.root().to("a").emit("n", (number,)).unwrap();
    }
    for number in 0..1_000 {
        let expected = format!(r#"42["n",{number}]"#);
        assert_eq!((a.text().await, c.text().await), (expected.clone(), expected));
    }
    // To one socket by its id, and from a socket.
    three.root().to(&*a_id).emit("a's own", ()).unwrap();
    a.expect([r#"42["a's own"]"#]).await;
    a.send(r#"42["shout"]"#).await;
    b.expect([r#"42["shouted"]"#]).await;
    c.expect([r#"42["shouted"]"#]).await;
    got(&mut a, &one.root(), &[]).await;
    // A namespace of its own.
    let mut chat = Client::open(&two.server).await;
    chat.join("/chat").await;
    one.server.io.of("/chat").unwrap().emit("chat", ()).unwrap();
    chat.expect([r#"42/chat,["chat"]"#]).await;
    drop((a, b, c, chat));
    for node in nodes {
        node.server.emptied().await;
    }
}

async fn binary_data(nodes: &[Node; 3]) {
    let [one, two, _] = nodes;
    let (mut b, _) = two.member("b").await;
    let file = |bytes: &[u8]| Binary::from(bytes.to_vec());
    one.root().emit("files", (file(&[0, 255]), json!({ "n": 1 }), file(&[]))).unwrap();
    b.expect([r#"452-["files",{"_placeholder":true,"num":0},{"n":1},{"_placeholder":true,"num":1}]"#]).await;
    b.expect_binary(&[0, 255]).await;
    b.expect_binary(&[]).await;
    let root = one.root();
    let asking = tokio::spawn(async move { root.emit_with_ack::<Binary>("file?", (), TIMEOUT).await.unwrap() });
    let question = b.text().await;
    let id = question.strip_prefix("42").unwrap().strip_suffix(r#"["file?"]"#).unwrap();
    b.send(&format!(r#"461-{id}[{{"_placeholder":true,"num":0}}]"#)).await;
    b.send_binary(&[1, 2, 3]).await;
    let acks = asking.await.unwrap();
    assert!(acks.is_complete(), "{acks:?}");
    assert_eq!(acks.answers, [file(&[1, 2, 3])]);
    drop(b);
    two.server.emptied().await;
}

async fn descriptions_and_moves(nodes: &[Node; 3]) {
    let [one, two, three] = nodes;
    let (mut a, a_id) = one.member("a").await;
    let (mut b, b_id) = two.member("b").await;
    let ids = |sockets: Vec<socketio::server::RemoteSocket>| -> HashSet<String> {
        sockets.iter().map(|socket| socket.id().to_owned()).collect()
    };
    for node in nodes {
        assert_eq!(ids(node.root().fetch_sockets().await.unwrap()), HashSet::from([a_id.clone(), b_id.clone()]));
    }
    assert_eq!(ids(two.root().to("a").fetch_sockets().await.unwrap()), HashSet::from([a_id.clone()]));
    assert_eq!(ids(two.root().broadcast().except("a").fetch_sockets().await.unwrap()), HashSet::from([b_id.clone()]));
    assert_eq!(ids(two.root().local().fetch_sockets().await.unwrap()), HashSet::from([b_id.clone()]));
    let far = three.root().to(&*b_id).fetch_sockets().await.unwrap().remove(0);
    assert_eq!(far.rooms().collect::<Vec<_>>(), ["b"]);
    assert_eq!(far.data::<serde_json::Value>().unwrap(), json!({ "room": "b" }));
    assert_eq!(far.handshake()["address"], "127.0.0.1");
    far.emit("you", (1,)).unwrap();
    b.expect([r#"42["you",1]"#]).await;
    far.join("c").unwrap();
    let b_socket = two.server.sockets(1).await.remove(0);
    until("the join", || b_socket.rooms().contains(&Room::from("c"))).await;
    far.leave("b").unwrap();
    until("the leave", || b_socket.rooms() == [Room::from("c")]).await;
    three.root().sockets_join("d").unwrap();
    until("the join", || b_socket.rooms().contains(&Room::from("d"))).await;
    far.disconnect(false).unwrap();
    b.expect(["41"]).await;
    three.root().disconnect_sockets(true).unwrap();
    a.expect(["41"]).await;
    a.expect_end().await;
    drop(b);
    two.server.emptied().await;
}

async fn acks(nodes: &[Node; 3]) {
    let [one, two, three] = nodes;
    let (mut a, _) = one.member("a").await;
    let (mut b, _) = two.member("b").await;
    let (mut c, _) = three.member("b").await;
    let ask = |node: &Node, name: &'static str, milliseconds| {
        let root = node.root();
        let timeout = std::time::Duration::from_millis(milliseconds);
        tokio::spawn(async move { root.emit_with_ack::<u8>(name, (), timeout).await.unwrap() })
    };
    let asking = ask(one, "number", 20_000);
    for (client, number) in [(&mut a, 1), (&mut b, 2), (&mut c, 3)] {
        let question = client.text().await;
        let id = question.strip_prefix("42").unwrap().strip_suffix(r#"["number"]"#).unwrap();
        client.send(&format!("43{id}[{number}]")).await;
    }
    let mut acks = asking.await.unwrap();
    acks.answers.sort_unstable();
    assert!(acks.is_complete(), "{acks:?}");
    assert_eq!(acks.answers, [1, 2, 3]);
    // One of two clients elsewhere answers.
    let asking = ask(one, "again", 500);
    let question = b.text().await;
    b.send(&format!("43{}[7]", question.strip_prefix("42").unwrap().strip_suffix(r#"["again"]"#).unwrap())).await;
    let acks = asking.await.unwrap();
    assert_eq!((&acks.answers[..], acks.missing.len(), acks.missing_elsewhere, acks.error), (&[7][..], 1, 1, None));
    drop((a, b, c));
    for node in nodes {
        node.server.emptied().await;
    }
}

async fn server_side_events(nodes: &[Node; 3]) {
    let [one, ..] = nodes;
    one.root().server_side_emit("add", ((1, 2),)).unwrap();
    let acks = one.root().server_side_emit_with_ack::<u32>("add", ((1, 2),)).await.unwrap();
    assert!(acks.is_complete(), "{acks:?}");
    assert_eq!(acks.answers, [3, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_one_in_every_mode() {
    let redis = Redis::start().unwrap();
    for mode in MODES {
        suite(|| settings(&redis, mode)).await;
    }
    // Nobody listens any more.
    assert_eq!(redis.cli(&["PUBSUB", "CHANNELS"]).unwrap(), "");
    assert_eq!(redis.cli(&["PUBSUB", "SHARDCHANNELS"]).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_one_over_a_redis_cluster() {
    let cluster = RedisCluster::start().unwrap();
    for subscription in [Subscription::Dynamic, Subscription::Static] {
        suite(|| {
            let mut settings = RedisConfig::cluster(cluster.urls());
            settings.mode = Mode::Sharded(subscription);
            settings.request_timeout = TIMEOUT;
            settings
        })
        .await;
    }
}

#[tokio::test]
async fn an_instance_listens_to_what_its_own_sockets_are_in() {
    let redis = Redis::start().unwrap();
    let channels = || {
        let mut channels: Vec<String> =
            redis.cli(&["PUBSUB", "CHANNELS", "socket.io#/#*"]).unwrap().lines().map(str::to_owned).collect();
        channels.sort();
        channels
    };
    let node = Node::start(settings(&redis, Mode::Classic)).await;
    assert_eq!(channels(), ["socket.io#/#"]);
    let (mut client, id) = node.member("room").await;
    client.send(&format!(r#"420["join","{id}"]"#)).await;
    client.expect(["430[]"]).await;
    let mut expected = vec!["socket.io#/#".to_owned(), format!("socket.io#/#{id}#"), "socket.io#/#room#".to_owned()];
    expected.sort();
    node.redis.ready().await;
    assert_eq!(channels(), expected);
    node.root().sockets_leave(&*id).unwrap();
    node.root().sockets_leave("room").unwrap();
    expected.retain(|channel| !channel.contains("room"));
    node.redis.ready().await;
    assert_eq!(channels(), expected);
    drop(client);
    node.server.emptied().await;
    node.redis.ready().await;
    assert_eq!(channels(), ["socket.io#/#"]);
    node.server.finish().await;
    assert_eq!(channels(), [""; 0]);
}

#[tokio::test]
async fn server_side_events_of_one_instance_come_in_order() {
    let redis = Redis::start().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let one = Node::start(settings(&redis, Mode::Classic)).await;
    let two = Node::with(settings(&redis, Mode::Classic), |root| {
        handlers(root);
        root.on_server_side("n", move |_: &Namespace, n: u32, _| hearing.lock().unwrap().push(n));
    })
    .await;
    for n in 0..1_000 {
        one.root().server_side_emit("n", (n,)).unwrap();
    }
    until("all of them", || heard.lock().unwrap().len() == 1_000).await;
    assert!(heard.lock().unwrap().is_sorted());
    one.server.finish().await;
    two.server.finish().await;
}
