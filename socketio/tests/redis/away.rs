//! Redis goes away and comes back.

use socketio::adapter::ClusterError;
use socketio::adapter::redis::{Mode, Redis, RedisConfig, RedisConfigError, Subscription};
use syncwatch_backends::RedisCluster;

use crate::support::{until, within};
use crate::{MODES, Node, settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_goes_on_without_redis_and_the_rest_when_it_is_back() {
    let mut server = syncwatch_backends::Redis::start().unwrap();
    for mode in MODES {
        let one = Node::start(settings(&server, mode)).await;
        let two = Node::start(settings(&server, mode)).await;
        let (mut a, _) = one.member("room").await;
        let (mut b, _) = two.member("room").await;
        server.kill().unwrap();
        until("the loss to be seen", || !one.redis.is_connected() && !two.redis.is_connected()).await;
        one.root().to("room").emit("here", ()).unwrap();
        a.expect([r#"42["here"]"#]).await;
        assert_eq!(one.root().sockets_join("other"), Err(ClusterError::Unreachable));
        let partial = one.root().fetch_sockets().await.unwrap_err();
        assert_eq!((partial.sockets.len(), partial.error), (1, ClusterError::Unreachable));
        assert_eq!(one.redis.lost(), 3);
        server.restart().unwrap();
        within("one to come back", one.redis.ready()).await;
        within("two to come back", two.redis.ready()).await;
        one.root().to("room").emit("back", ()).unwrap();
        a.expect([r#"42["back"]"#]).await;
        b.expect([r#"42["back"]"#]).await;
        assert_eq!(two.root().fetch_sockets().await.unwrap().len(), 2);
        one.server.finish().await;
        two.server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_loses_a_node_is_rejoined() {
    let mut cluster = RedisCluster::start().unwrap();
    let one = Node::start(RedisConfig::cluster(cluster.urls())).await;
    let two = Node::start(RedisConfig::cluster(cluster.urls())).await;
    let (mut a, _) = one.member("room").await;
    let (mut b, _) = two.member("room").await;
    let node = cluster.node_of("socket.io#/#room#").unwrap();
    cluster.kill(node).unwrap();
    one.root().local().emit("here", ()).unwrap();
    a.expect([r#"42["here"]"#]).await;
    cluster.restart(node).unwrap();
    cluster.wait_until_complete().unwrap();
    // Until both have noticed, broadcasts may be lost; then they are not.
    within("broadcasts to arrive again", async {
        loop {
            one.root().to("room").emit("again", ()).unwrap();
            let arrived = tokio::time::timeout(std::time::Duration::from_millis(200), b.text()).await;
            a.expect([r#"42["again"]"#]).await;
            if arrived.is_ok() {
                break;
            }
        }
    })
    .await;
    one.server.finish().await;
    two.server.finish().await;
}

#[tokio::test]
async fn a_server_starts_without_redis() {
    let mut server = syncwatch_backends::Redis::start().unwrap();
    server.kill().unwrap();
    let redis = Redis::start(settings(&server, Mode::Classic)).unwrap();
    let builder = socketio::Io::builder().config(crate::support::config()).adapter(redis.adapter());
    let node = Node { server: crate::support::Server::with(builder.namespace("/", crate::handlers)).await, redis };
    let mut client = crate::support::Client::joined(&node.server).await;
    node.root().emit("here", ()).unwrap();
    client.expect([r#"42["here"]"#]).await;
    server.restart().unwrap();
    within("Redis", node.redis.ready()).await;
    let other = Node::start(settings(&server, Mode::Classic)).await;
    other.root().emit("there", ()).unwrap();
    client.expect([r#"42["there"]"#]).await;
    node.server.finish().await;
    other.server.finish().await;
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let refused = |config| Redis::start(config).unwrap_err();
    assert!(matches!(refused(RedisConfig::new("http://secret@host")), RedisConfigError::Url));
    assert!(matches!(refused(RedisConfig::cluster(["nonsense"; 1])), RedisConfigError::Url));
    let mut classic = RedisConfig::cluster(["redis://127.0.0.1"]);
    classic.mode = Mode::Classic;
    assert!(matches!(refused(classic.clone()), RedisConfigError::ClassicCluster));
    classic.mode = Mode::Sharded(Subscription::Dynamic);
    assert!(!format!("{:?}", RedisConfig::new("redis://:secret@host")).contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_whose_slot_moves_to_another_node_is_followed() {
    let cluster = RedisCluster::start().unwrap();
    let one = Node::start(RedisConfig::cluster(cluster.urls())).await;
    let two = Node::start(RedisConfig::cluster(cluster.urls())).await;
    let (mut a, _) = one.member("room").await;
    let (mut b, _) = two.member("room").await;
    let channel = "socket.io#/#room#";
    let from = cluster.node_of(channel).unwrap();
    let to = (from + 1) % 3;
    let id = |node: usize| cluster.node(node).cli(&["CLUSTER", "MYID"]).unwrap();
    let slot = cluster.node(0).cli(&["CLUSTER", "KEYSLOT", channel]).unwrap();
    let (from_id, to_id) = (id(from), id(to));
    cluster.node(to).cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).unwrap();
    cluster.node(from).cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).unwrap();
    for node in [to, from, (to + 1) % 3] {
        cluster.node(node).cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).unwrap();
    }
    within("broadcasts to arrive again", async {
        loop {
            one.root().to("room").emit("again", ()).unwrap();
            let arrived = tokio::time::timeout(std::time::Duration::from_millis(200), b.text()).await;
            a.expect([r#"42["again"]"#]).await;
            if arrived.is_ok() {
                break;
            }
        }
    })
    .await;
    one.server.finish().await;
    two.server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stops_answering_is_lost_and_one_that_refuses_is_not() {
    let server = syncwatch_backends::Redis::start().unwrap();
    let one = Node::start(settings(&server, Mode::Classic)).await;
    let two = Node::start(settings(&server, Mode::Classic)).await;
    let (mut b, _) = two.member("room").await;
    server.cli(&["ACL", "SETUSER", "default", "-publish"]).unwrap();
    one.root().emit("refused", ()).unwrap();
    until("the refusal", || one.redis.lost() == 1).await;
    assert!(one.redis.is_connected());
    server.cli(&["ACL", "SETUSER", "default", "+publish"]).unwrap();
    one.root().emit("taken", ()).unwrap();
    b.expect([r#"42["taken"]"#]).await;
    server.pause().unwrap();
    one.root().emit("unheard", ()).unwrap();
    until("the loss to be seen", || !one.redis.is_connected()).await;
    server.resume().unwrap();
    within("one to come back", one.redis.ready()).await;
    within("two to come back", two.redis.ready()).await;
    one.root().emit("back", ()).unwrap();
    while b.text().await != r#"42["back"]"# {}
    one.server.finish().await;
    two.server.finish().await;
}
