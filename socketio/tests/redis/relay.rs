//! Requests that reach the wrong instance.

use engineio::Transport;
use socketio::adapter::redis::RedisConfig;
use syncwatch_backends::{Redis, RedisCluster};

use crate::support::{Poller, until, within};
use crate::{MODES, Node, TIMEOUT, settings};

/// Requests of a client that take turns between instances, then a WebSocket through one that has not its session.
async fn suite(settings: impl Fn() -> RedisConfig) {
    let nodes = [Node::start(settings()).await, Node::start(settings()).await, Node::start(settings()).await];
    let client = Poller::open(&nodes[0].server).await;
    let ways = nodes.each_ref().map(|node| client.at(&node.server));
    ways[1].post("40").await;
    assert!(ways[2].get().await.starts_with("40{"));
    let mut expected = 0;
    for number in 0..30 {
        nodes[number % 3].root().emit("n", (number,)).unwrap();
        // Those of other instances come later, and some of them together.
        while expected <= number {
            for packet in ways[(number + 1) % 3].get().await.split('\x1e') {
                assert_eq!(packet, format!(r#"42["n",{expected}]"#));
                expected += 1;
            }
        }
        ways[(number + 2) % 3].post(r#"420["join","room"]"#).await;
        assert_eq!(ways[number % 3].get().await, "430[]");
    }
    let mut upgraded = ways[1].upgrade().await;
    let stats = nodes[0].server.io.stats();
    until("the upgrade", || stats.sessions(Transport::WebSocket) == 1).await;
    assert_eq!((stats.lines(), nodes[1].server.io.stats().lines()), (1, 1));
    let text = "é".repeat(200_000);
    nodes[2].root().to("room").emit("long", (&*text,)).unwrap();
    assert_eq!(upgraded.text().await, format!(r#"42["long","{text}"]"#));
    upgraded.send(r#"421["join","other"]"#).await;
    upgraded.expect(["431[]"]).await;
    upgraded.send_close().await;
    nodes[0].server.emptied().await;
    for node in nodes {
        assert_eq!(node.redis.lost(), 0);
        node.server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_instance_serves_any_client() {
    let redis = Redis::start().unwrap();
    for mode in [MODES[0], MODES[2]] {
        suite(|| settings(&redis, mode)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_instance_serves_any_client_over_a_redis_cluster() {
    let cluster = RedisCluster::start().unwrap();
    suite(|| RedisConfig::cluster(cluster.urls())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_the_wrong_instance_says_so_and_the_right_one_goes_on() {
    let mut redis = Redis::start().unwrap();
    for mode in [MODES[0], MODES[2]] {
        let (one, two) = (Node::start(settings(&redis, mode)).await, Node::start(settings(&redis, mode)).await);
        let client = Poller::joined(&one.server).await;
        let waiting = Poller::joined(&one.server).await;
        let mut upgraded = Poller::joined(&one.server).await.at(&two.server).upgrade().await;
        until("the upgrade", || one.server.io.stats().sessions(Transport::WebSocket) == 1).await;
        let there = waiting.at(&two.server);
        let poll = tokio::spawn(async move { there.answer("GET", "").await });
        until("the poll to be passed on", || two.server.io.stats().relayed() == 3).await;
        waiting.at(&two.server).post("3").await; // arrives behind the poll
        redis.kill().unwrap();
        // What is under way ends, at both ends.
        assert_eq!(within("the end of the poll", poll).await.unwrap().0, 400);
        upgraded.expect_end().await;
        until("their sessions to end", || one.root().len() == 1).await;
        assert_eq!(client.at(&two.server).answer("GET", "").await, (503, String::new()));
        assert_eq!(client.at(&two.server).answer("POST", "3").await, (503, String::new()));
        one.root().local().emit("here", ()).unwrap();
        assert_eq!(client.get().await, r#"42["here"]"#);
        redis.restart().unwrap();
        within("one to come back", one.redis.ready()).await;
        within("two to come back", two.redis.ready()).await;
        two.root().emit("back", ()).unwrap();
        assert_eq!(client.at(&two.server).get().await, r#"42["back"]"#);
        one.server.finish().await;
        two.server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_nobody_has_is_told_by_its_channel() {
    let (redis, cluster) = (Redis::start().unwrap(), RedisCluster::start().unwrap());
    let mut all = MODES.map(|mode| settings(&redis, mode)).to_vec();
    all.push(RedisConfig::cluster(cluster.urls()));
    for settings in all {
        let node = Node::with_engine(settings, |engine| {
            // Nothing else ends the request.
            engine.relay.ack_timeout = TIMEOUT * 10;
        })
        .await;
        let client = Poller::open(&node.server).await.named(&"A".repeat(28));
        let unknown = r#"{"code":1,"message":"Session ID unknown"}"#;
        assert_eq!(client.answer("GET", "").await, (400, unknown.to_owned()));
        assert_eq!(client.answer("POST", "3").await, (400, unknown.to_owned()));
        node.server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_channel_of_an_instance_does_no_harm() {
    let redis = Redis::start().unwrap();
    let (one, two) = (Node::start(settings(&redis, MODES[0])).await, Node::start(settings(&redis, MODES[0])).await);
    let open = Poller::open(&one.server).await;
    open.post("40").await;
    let client = open.at(&two.server);
    assert!(client.get().await.starts_with("40{"));
    let channel = format!("socket.io-relay#{}#", open.instance());
    let publisher = redis::Client::open(redis.url()).unwrap();
    let mut publisher = publisher.get_multiplexed_async_connection().await.unwrap();
    for garbage in [&b""[..], b"garbage", b"\x01\x01AAAAAAAA", b"{\"json\":true}", &[0xff; 100_000]] {
        let heard: usize = redis::cmd("PUBLISH").arg(&channel).arg(garbage).query_async(&mut publisher).await.unwrap();
        assert_eq!(heard, 1);
    }
    one.root().emit("fine", ()).unwrap();
    assert_eq!(client.get().await, r#"42["fine"]"#);
    // An instance that nobody has.
    assert_eq!(client.named(&"A".repeat(28)).answer("GET", "").await.0, 400);
    one.server.finish().await;
    two.server.finish().await;
}
