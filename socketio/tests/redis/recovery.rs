//! Clients that are cut off from one instance and come back to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use socketio::adapter::redis::{Mode, Redis, RedisConfig, Subscription};
use socketio::server::{BuildError, RecoveryConfig};
use socketio::{Io, Namespace, Socket};
use syncwatch_backends::RedisCluster;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::returning::{Session, Subscriber, back, connect, names, parts};
use crate::settings;
use crate::support::{Client, Received, Server, config, open_many_files, until, within};

struct Node {
    server: Arc<Server>,
    redis: Redis,
}

impl Node {
    async fn start(settings: RedisConfig) -> Self {
        Self::with(settings, RecoveryConfig::default(), config()).await
    }

    /// An instance whose sockets are in the room `all`, and have what they were when they first came as their data.
    async fn with(settings: RedisConfig, recovery: RecoveryConfig, config: socketio::server::Config) -> Self {
        let redis = Redis::start(settings).unwrap();
        let builder = Io::builder().config(config).adapter(redis.adapter()).recovery(recovery);
        let builder = builder.namespace("/", |root| {
            root.on_connect(|socket: Socket| async move {
                if socket.recovered() {
                    assert_eq!(
                        (&*socket.rooms(), socket.data().unwrap()),
                        (&["all".into()][..], json!({ "first": socket.id().as_str() }))
                    );
                    socket.emit("welcome back", ()).unwrap();
                } else {
                    socket.join("all");
                    socket.set_data(&json!({ "first": socket.id().as_str() })).unwrap();
                }
            });
        });
        let server = Arc::new(Server::with(builder).await);
        within("Redis", redis.ready()).await;
        Self { server, redis }
    }

    fn root(&self) -> Namespace {
        self.server.root()
    }

    fn cast(&self, name: &str) {
        self.root().to("all").emit(name, ()).unwrap();
    }

    /// A client whose session every instance finds.
    async fn client(&self, redis: &syncwatch_backends::Redis) -> (Client, Session) {
        let (client, replayed, session) = connect(&self.server, "").await;
        assert!(replayed.is_empty());
        until("the session to be noted down with its rooms and data", || {
            let key = format!("socket.io-session#/#{}", session.pid);
            let state = redis.cli(&["hget", &key, "state"]).unwrap();
            state.contains("all") && state.contains("first")
        })
        .await;
        (client, session)
    }

    async fn finish(self) {
        Arc::into_inner(self.server).unwrap().finish().await;
    }
}

/// The client gets this next, and no event before it; returns its offset.
async fn gets(client: &mut Client, name: &str) -> String {
    let mut text = client.text().await;
    while text == "2" {
        text = client.text().await;
    }
    let (got, offset) = parts(&text);
    assert_eq!(got, name);
    offset.to_owned()
}

/// The events that a client has missed: what was sent again, and what was still on its way to the instance. It must be
/// welcomed back, too.
async fn missed(client: &mut Client, mut events: Vec<String>, count: usize) -> Vec<String> {
    let mut welcomed = false;
    while events.len() < count || !welcomed {
        let text = client.text().await;
        match &text[..] {
            "2" => {}
            _ if text.starts_with("42[\"welcome back\"") => welcomed = true,
            _ => events.push(text),
        }
    }
    names(&events).into_iter().map(str::to_owned).collect()
}

async fn wanders(settings: impl Fn() -> RedisConfig) {
    let nodes = [Node::start(settings()).await, Node::start(settings()).await, Node::start(settings()).await];
    let (mut client, _, session) = connect(&nodes[0].server, "").await;
    nodes[2].cast("first");
    let mut offset = gets(&mut client, "first").await;
    for round in 0..6 {
        let (from, to) = (&nodes[round % 3], &nodes[(round + 1) % 3]);
        drop(client);
        until("the cut", || from.root().is_empty()).await;
        from.cast("missed");
        to.root().to("others").emit("for others", ()).unwrap();
        nodes[2].root().to(session.sid.as_str()).emit("missed too", ()).unwrap();
        // Those of one instance keep their order; those of several have one, whichever.
        let (again, replayed, same) = back(&to.server, &session, Some(&offset)).await;
        client = again;
        assert_eq!((&same.sid, &same.pid), (&session.sid, &session.pid), "round {round}");
        let mut got = missed(&mut client, replayed, 2).await;
        got.sort_unstable();
        assert_eq!(got, ["missed", "missed too"]);
        nodes[0].cast("next");
        offset = gets(&mut client, "next").await;
    }
    drop(client);
    for node in nodes {
        node.server.emptied().await;
        assert_eq!(node.redis.lost(), 0);
        node.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_comes_back_to_other_instances_again_and_again() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    for mode in [Mode::Classic, Mode::Sharded(Subscription::Dynamic)] {
        let mut settings = settings(&redis, mode);
        settings.prefix = format!("{mode:?}");
        wanders(|| settings.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_comes_back_to_other_instances_on_a_redis_cluster() {
    let cluster = RedisCluster::start().unwrap();
    wanders(|| RedisConfig::cluster(cluster.urls())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_received_nothing_yet_comes_back_to_an_instance_that_is_new() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let one = Node::start(settings(&redis, Mode::Classic)).await;
    let (mut first, _) = one.client(&redis).await;
    for _ in 0..10 {
        one.cast("before");
    }
    for _ in 0..10 {
        gets(&mut first, "before").await;
    }
    drop(first);
    until("the first to leave", || one.root().is_empty()).await;
    let (client, session) = one.client(&redis).await;
    drop(client);
    until("the cut", || one.root().is_empty()).await;
    one.cast("missed");
    until("it to be in the stream", || redis.cli(&["xlen", "socket.io-stream#/#"]).unwrap().trim() == "11").await;
    let two = Node::start(settings(&redis, Mode::Classic)).await;
    let (_client, replayed, same) = back(&two.server, &session, None).await;
    assert_eq!((same.sid, names(&replayed)), (session.sid, vec!["missed"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_back_before_the_cut_is_noticed_leaves_the_other_instance() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let [one, two] =
        [Node::start(settings(&redis, Mode::Classic)).await, Node::start(settings(&redis, Mode::Classic)).await];
    let (mut old, session) = one.client(&redis).await;
    one.cast("one");
    let offset = gets(&mut old, "one").await;
    one.cast("two");
    gets(&mut old, "two").await;
    let (mut new, replayed, same) = back(&two.server, &session, Some(&offset)).await;
    assert_eq!((&same.sid, missed(&mut new, replayed, 1).await), (&session.sid, vec!["two".to_owned()]));
    // Whatever it is still sent: its client is not there any more.
    while old.receive().await != Received::End {}
    until("the old socket to leave", || one.root().is_empty()).await;
    one.cast("three");
    gets(&mut new, "three").await;
    assert_eq!(one.root().fetch_sockets().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_two_keeps_a_session() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let [one, two] =
        [Node::start(settings(&redis, Mode::Classic)).await, Node::start(settings(&redis, Mode::Classic)).await];
    for to in [&one, &two] {
        let (client, session) = one.client(&redis).await;
        drop(client);
        until("the cut", || one.root().is_empty()).await;
        // Whoever was later has the other's place.
        let auth = format!("40{{\"pid\":\"{}\"}}", session.pid);
        let mut clients = [Client::open(&one.server).await, Client::open(&to.server).await];
        for client in &mut clients {
            client.send(&auth).await;
        }
        until("one to be gone", || {
            let sockets = [&one, &two].map(|node| node.root().broadcast().sockets());
            sockets.iter().flatten().filter(|socket| **socket.id() == *session.sid).count() == 1
        })
        .await;
        drop(clients);
        until("both to be gone", || one.root().is_empty() && two.root().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_on_purpose_comes_back_to_no_instance() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let [one, two] =
        [Node::start(settings(&redis, Mode::Classic)).await, Node::start(settings(&redis, Mode::Classic)).await];
    let (mut client, session) = one.client(&redis).await;
    client.send("41").await;
    let key = format!("socket.io-session#/#{}", session.pid);
    until("the session to be forgotten", || redis.cli(&["exists", &key]).unwrap().trim() == "0").await;
    let (_client, _, other) = back(&two.server, &session, None).await;
    assert_ne!((other.sid, other.pid), (session.sid, session.pid));
    // Nor does anybody with what cannot be a secret.
    for pid in ["", "x", "__proto__", "socket.io", "AAAAAAAAAAAAAAAAAAAA"] {
        let (_client, replayed, other) =
            connect(&two.server, &format!("{{\"pid\":\"{pid}\",\"offset\":\"1-1\"}}")).await;
        assert!(replayed.is_empty() && other.pid != pid);
    }
}

/// An instance in a runtime of its own, which ends as with a power cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_on_an_instance_that_has_died_comes_back_to_another() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let two = Node::start(settings(&redis, Mode::Classic)).await;
    let dying = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let settings = settings(&redis, Mode::Classic);
    let one = dying.spawn(async move { Arc::new(Node::start(settings).await) }).await.unwrap();
    let (mut client, session) = one.client(&redis).await;
    two.cast("one");
    let offset = gets(&mut client, "one").await;
    tokio::task::spawn_blocking(move || dying.shutdown_timeout(Duration::ZERO)).await.unwrap();
    two.cast("two");
    let (mut client, replayed, same) = back(&two.server, &session, Some(&offset)).await;
    assert_eq!((same.sid, missed(&mut client, replayed, 1).await), (session.sid, vec!["two".to_owned()]));
    two.cast("three");
    gets(&mut client, "three").await;
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_pauses_delays_events_and_loses_none() {
    let mut redis = syncwatch_backends::Redis::start().unwrap();
    let [one, two] =
        [Node::start(settings(&redis, Mode::Classic)).await, Node::start(settings(&redis, Mode::Classic)).await];
    let (mut a, _) = one.client(&redis).await;
    let (mut b, _) = two.client(&redis).await;
    redis.pause().unwrap();
    for number in 0..100 {
        one.root().to("all").emit("number", (number, 0)).unwrap();
    }
    redis.resume().unwrap();
    for client in [&mut a, &mut b] {
        for number in 0..100 {
            assert!(client.text().await.starts_with(&format!("42[\"number\",{number},")));
        }
    }
    assert_eq!(one.redis.lost(), 0);
    // One that has died for a moment, too, and has forgotten everything: nobody can tell what others had added last.
    redis.kill().unwrap();
    until("the loss to be seen", || !one.redis.is_connected() && !two.redis.is_connected()).await;
    redis.restart().unwrap();
    until("the loss to be told", || (one.redis.lost(), two.redis.lost()) == (1, 1)).await;
    redis.kill().unwrap();
    until("the loss to be seen", || !one.redis.is_connected() && !two.redis.is_connected()).await;
    one.cast("waits");
    redis.restart().unwrap();
    gets(&mut a, "waits").await;
    gets(&mut b, "waits").await;
    assert_eq!((one.redis.lost(), two.redis.lost()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_an_instance_goes_on_alone_and_then_with_the_others() {
    let mut redis = syncwatch_backends::Redis::start().unwrap();
    let mut settings = settings(&redis, Mode::Classic);
    settings.request_timeout = Duration::from_millis(300);
    let [one, two] = [Node::start(settings.clone()).await, Node::start(settings.clone()).await];
    let (mut a, _) = one.client(&redis).await;
    let (mut b, _) = two.client(&redis).await;
    one.cast("with all");
    let offset = gets(&mut a, "with all").await;
    gets(&mut b, "with all").await;
    redis.kill().unwrap();
    until("the loss to be seen", || !one.redis.is_connected() && !two.redis.is_connected()).await;
    for name in ["one", "two"] {
        one.cast(name);
    }
    // In order and without a place of their own.
    assert_eq!((gets(&mut a, "one").await, gets(&mut a, "two").await), (offset.clone(), offset));
    assert_eq!(one.redis.lost(), 2);
    redis.restart().unwrap();
    within("the others to be reached again", async {
        loop {
            one.cast("again");
            gets(&mut a, "again").await;
            if tokio::time::timeout(Duration::from_millis(100), gets(&mut b, "again")).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_received_long_ago_needs_no_event_that_is_gone() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let mut recovery = RecoveryConfig::default();
    recovery.max_packets = 10;
    let mut config = config();
    config.engine.ping_interval = Duration::from_millis(50);
    let node =
        |recovery: &RecoveryConfig| Node::with(settings(&redis, Mode::Classic), recovery.clone(), config.clone());
    let [one, two] = [node(&recovery).await, node(&recovery).await];
    let (mut client, session) = one.client(&redis).await;
    one.cast("one");
    let offset = gets(&mut client, "one").await;
    for _ in 0..30 {
        one.root().to("others").emit("for others", ()).unwrap();
    }
    // Two pongs later the instance knows that the client has missed nothing of that.
    let key = format!("socket.io-session#/#{}", session.pid);
    let seen = |redis: &syncwatch_backends::Redis| redis.cli(&["hget", &key, "seen"]).unwrap().trim().to_owned();
    let newest = redis.cli(&["xrevrange", "socket.io-stream#/#", "+", "-", "COUNT", "1"]).unwrap();
    let newest = newest.lines().next().unwrap();
    while seen(&redis) != newest {
        assert_eq!(client.text().await, "2");
        client.send("3").await;
    }
    drop(client);
    until("the cut", || one.root().is_empty()).await;
    two.cast("two");
    let (mut client, replayed, same) = back(&two.server, &session, Some(&offset)).await;
    assert_eq!((&same.sid, missed(&mut client, replayed, 1).await), (&session.sid, vec!["two".to_owned()]));
    // And one that has missed more than is kept begins anew.
    drop(client);
    until("the cut", || two.root().is_empty()).await;
    let (mut witness, _) = one.client(&redis).await;
    for _ in 0..1_000 {
        two.cast("missed");
    }
    for _ in 0..1_000 {
        gets(&mut witness, "missed").await;
    }
    let (_client, replayed, other) = back(&one.server, &session, Some(&offset)).await;
    assert!(replayed.is_empty());
    assert_ne!(other.pid, session.pid);
    // The stream keeps little more than it has to: Redis takes whole blocks of a hundred out of it.
    let long = || redis.cli(&["xlen", "socket.io-stream#/#"]).unwrap().trim().parse::<usize>().unwrap();
    until("the stream to be short", || long() <= 10 + 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_a_disconnect_comes_before_it() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let mut settings = settings(&redis, Mode::Classic);
    settings.request_timeout = Duration::from_millis(300);
    let node = Node::start(settings).await;
    for is_paused in [false, true] {
        let (mut client, _) = node.client(&redis).await;
        let [socket] = &node.server.sockets(1).await[..] else { panic!("one socket") };
        if is_paused {
            redis.pause().unwrap();
        }
        socket.emit("bye", ()).unwrap();
        socket.disconnect(true);
        gets(&mut client, "bye").await;
        client.expect(["41"]).await;
        client.expect_end().await;
        if is_paused {
            redis.resume().unwrap();
        }
        node.server.emptied().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_instance_knows_that_it_does_not_know_all() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let one = Node::start(settings(&redis, Mode::Classic)).await;
    let (mut client, session) = one.client(&redis).await;
    one.cast("one");
    let offset = gets(&mut client, "one").await;
    drop(client);
    until("the cut", || one.root().is_empty()).await;
    for _ in 0..5 {
        one.cast("missed");
    }
    let long = || redis.cli(&["xlen", "socket.io-stream#/#"]).unwrap().trim() == "6";
    until("all to be in the stream", long).await;
    redis.cli(&["xtrim", "socket.io-stream#/#", "MAXLEN", "=", "2"]).unwrap();
    let two = Node::start(settings(&redis, Mode::Classic)).await;
    let (_client, replayed, other) = back(&two.server, &session, Some(&offset)).await;
    assert!(replayed.is_empty());
    assert_ne!(other.pid, session.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_too_far_behind_says_so() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let node = Node::start(settings(&redis, Mode::Classic)).await;
    let (mut client, session) = node.client(&redis).await;
    node.cast("first");
    let offset = gets(&mut client, "first").await;
    // More entries at once than the stream keeps.
    let data = r#"{"uid":"x","nsp":"/","type":3,"data":{"opts":{"rooms":[],"except":[],"flags":{}},"packet":{"type":2,"nsp":"/","data":["e",1]}}}"#;
    let script = "for n = 1, 9 do redis.call('XADD', KEYS[1], '*', 'uid', 'x', 'number', n, 'data', ARGV[1]) end \
        redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', 1)";
    redis.cli(&["eval", script, "1", "socket.io-stream#/#", data]).unwrap();
    assert!(client.text().await.starts_with(r#"42["e",1,""#));
    assert_eq!(node.redis.lost(), 1);
    drop(client);
    until("the cut", || node.root().is_empty()).await;
    let (_client, replayed, other) = back(&node.server, &session, Some(&offset)).await;
    assert!(replayed.is_empty());
    assert_ne!(other.pid, session.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_with_their_time_and_the_oldest_of_too_many() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let mut recovery = RecoveryConfig::default();
    (recovery.max_sessions, recovery.max_disconnection) = (2, Duration::from_secs(10));
    let one = Node::with(settings(&redis, Mode::Classic), recovery, config()).await;
    let left = |session: &Session| {
        let key = format!("socket.io-session#/#{}", session.pid);
        redis.cli(&["pttl", &key]).unwrap().trim().parse::<i64>().unwrap()
    };
    let mut away = Vec::new();
    for _ in 0..3 {
        let (client, session) = one.client(&redis).await;
        // Of a client that is there it is heard every 25 s; within 20 s somebody notices that it is gone; and both once more.
        assert!((90_000..=100_000).contains(&left(&session)), "{}", left(&session));
        drop(client);
        until("the cut to be noted down", || left(&session) <= 10_000).await;
        away.push(session);
    }
    until("the first to be forgotten", || left(&away[0]) == -2).await;
    assert!(left(&away[1]) > 0 && left(&away[2]) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_has_forgotten_sessions_is_told_again() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let mut config = config();
    config.engine.ping_interval = Duration::from_millis(50);
    let node = || Node::with(settings(&redis, Mode::Classic), RecoveryConfig::default(), config.clone());
    let [one, two] = [node().await, node().await];
    let (mut client, session) = one.client(&redis).await;
    let key = format!("socket.io-session#/#{}", session.pid);
    redis.cli(&["del", &key]).unwrap();
    while redis.cli(&["exists", &key]).unwrap().trim() == "0" {
        assert_eq!(client.text().await, "2");
        client.send("3").await;
    }
    // One that knows an older state, as a replica may that has taken over, too.
    redis.cli(&["hset", &key, "generation", "0"]).unwrap();
    while redis.cli(&["hget", &key, "generation"]).unwrap().trim() == "0" {
        assert_eq!(client.text().await, "2");
        client.send("3").await;
    }
    drop(client);
    let (_client, _, same) = back(&two.server, &session, None).await;
    assert_eq!(same.pid, session.pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_stream_and_in_sessions_harms_nobody() {
    let redis = syncwatch_backends::Redis::start().unwrap();
    let node = Node::start(settings(&redis, Mode::Classic)).await;
    let (mut client, _) = node.client(&redis).await;
    let broadcast = |event: &str| {
        format!(
            r#"{{"uid":"x","nsp":"/","type":3,"data":{{"opts":{{"rooms":[],"except":[],"flags":{{}}}},"packet":{event}}}}}"#
        )
    };
    let deep = format!(r#"{{"type":2,"nsp":"/","data":["e",{}{}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let good = broadcast(r#"{"type":2,"nsp":"/","data":["good",1]}"#);
    let mut number = 0;
    for data in [
        "",
        "{",
        "null",
        "\u{7f}\u{7f}",
        &broadcast(r#"{"type":2,"nsp":"/other","data":["e"]}"#),
        &broadcast(r#"{"type":2,"nsp":"/","data":["connect"]}"#),
        &broadcast(r#"{"type":2,"nsp":"/","data":[]}"#),
        &broadcast(r#"{"type":2,"nsp":"/","data":{"toString":"foo"}}"#),
        &broadcast(&deep),
        &good.replace(r#""type":3"#, r#""type":99"#),
        &good.replace(r#""type":3"#, r#""type":6"#),
        &"x".repeat(100_000),
    ] {
        number += 1;
        redis
            .cli(&["xadd", "socket.io-stream#/#", "*", "uid", "x", "number", &number.to_string(), "data", data])
            .unwrap();
    }
    for fields in [
        &["some", "thing"][..],
        &["uid", "x"],
        &["uid", "x", "number", "-1", "data", &good],
        &["uid", "x", "number", "1e3", "data", &good],
        &["uid", "x", "number", "99999999999999999999999", "data", &good],
        // Once more, which counts for nothing.
        &["uid", "x", "number", "3", "data", &good],
    ] {
        redis.cli(&[&["xadd", "socket.io-stream#/#", "*"], fields].concat()).unwrap();
    }
    redis.cli(&["xadd", "socket.io-stream#/#", "*", "uid", "y", "number", "1", "data", &good]).unwrap();
    assert!(client.text().await.starts_with(r#"42["good",1,""#));

    let pid = "AAAAAAAAAAAAAAAAAAAA";
    let key = format!("socket.io-session#/#{pid}");
    let state = r#"{"id":"BBBBBBBBBBBBBBBBBBBB","rooms":["all"]}"#;
    for fields in [
        &["uid", "x"][..],
        &["uid", "x", "state", state],
        &["uid", "x", "state", state, "seen", "0-0", "generation", "many"],
        &["uid", "x", "state", "{", "seen", "0-0", "generation", "1"],
        &["uid", "x", "state", state, "seen", "yesterday", "generation", "1"],
        &["uid", "x", "state", &state.replace('B', "ü"), "seen", "0-0", "generation", "1"],
    ] {
        redis.cli(&["del", &key]).unwrap();
        redis.cli(&[&["hset", &key], fields].concat()).unwrap();
        let (_other, replayed, fresh) = connect(&node.server, &format!("{{\"pid\":\"{pid}\"}}")).await;
        assert!(replayed.is_empty() && fresh.pid != pid, "{fields:?}");
    }
    redis.cli(&["del", &key]).unwrap();
    redis.cli(&["set", &key, "no hash"]).unwrap();
    let (_other, _, fresh) = connect(&node.server, &format!("{{\"pid\":\"{pid}\"}}")).await;
    assert_ne!(fresh.pid, pid);
    node.cast("last");
    gets(&mut client, "last").await;
    // Each entry of another instance that is no event for this namespace.
    assert_eq!(node.redis.lost(), number);
}

#[tokio::test]
async fn an_adapter_that_cannot_recover_is_refused() {
    #[derive(Debug)]
    struct Alone;

    impl socketio::adapter::Adapter for Alone {
        fn broadcast(&self, _: &socketio::adapter::Outgoing, _: &socketio::adapter::Target) {}
        fn command(&self, _: socketio::adapter::Command<'_>) -> Result<(), socketio::adapter::ClusterError> {
            Ok(())
        }
        fn request(&self, _: socketio::adapter::Request<'_>, _: Duration, _: socketio::adapter::Replies) {}
    }

    let builder = Io::builder().adapter(|_| Alone).recovery(RecoveryConfig::default()).namespace("/", |_| {});
    assert!(matches!(builder.build(), Err(BuildError::Config { field: "recovery", .. })));
}

/// 200 subscribers on three instances, each cut off for 1 to 10 s again and again while 20 events a second are sent by any
/// of them; they come back to any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_come_back_to_any_instance_get_everything_once_and_in_order() {
    const SUBSCRIBERS: u64 = 200;
    open_many_files();
    let redis = syncwatch_backends::Redis::start().unwrap();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(settings(&redis, Mode::Classic)).await);
    }
    let servers: Arc<[Arc<Server>]> = nodes.iter().map(|node| Arc::clone(&node.server)).collect();
    let (cast, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let all_here = Arc::new(Barrier::new(SUBSCRIBERS as usize + 1));
    let mut crowd = JoinSet::new();
    for number in 0..SUBSCRIBERS {
        let (servers, cast, is_over) = (Arc::clone(&servers), Arc::clone(&cast), Arc::clone(&is_over));
        let all_here = Arc::clone(&all_here);
        crowd.spawn(async move {
            let (client, _, session) = connect(&servers[number as usize % 3], "").await;
            all_here.wait().await;
            Subscriber::new(number, client, session).run(&servers, 5_000, 1_000..10_000, &cast, &is_over).await
        });
    }
    within("everybody to be there", all_here.wait()).await;
    let end = Instant::now() + Duration::from_secs(30);
    let mut tick = interval(Duration::from_millis(50));
    while Instant::now() < end {
        tick.tick().await;
        let number = cast.fetch_add(1, Ordering::Relaxed);
        // One instance, so that the numbers are the order; those of several have an order that nobody chooses.
        nodes[0].root().to("all").emit("number", (number,)).unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let cuts: u64 = within("everybody to have everything", crowd.join_all()).await.into_iter().sum();
    assert!(cuts > 2 * SUBSCRIBERS, "{cuts} cuts");
    drop(servers);
    for node in nodes {
        assert_eq!(node.redis.lost(), 0);
        node.finish().await;
    }
}
