//! Redis as it is: started, killed, stopped where it is, out of memory.

use std::env;
use std::process::Command;

use redis::cmd;
use syncwatch_backends::{Redis as Server, RedisCluster};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::config::{RedisServer, Secret};

static ECHO: Script = Script::new("redis.call('SET', KEYS[1], ARGV[1]) return {redis.call('GET', KEYS[1]), ARGV[2]}");
static PUBLISH: Script = Script::new("redis.call('SET', KEYS[1], 1) return redis.call(ARGV[1], KEYS[1], ARGV[2])");

fn settings(ports: &[u16]) -> RedisSettings {
    RedisSettings {
        servers: ports.iter().map(|&port| RedisServer { host: "127.0.0.1".to_owned(), port }).collect(),
        tls: false,
        user: None,
        password: None,
        db_state: 0,
        db_rate: 2,
        key_prefix: "test:".to_owned(),
    }
}

fn connect(settings: &RedisSettings) -> (Redis, Receiver<Notice>) {
    let (notices, receiver) = channel(16);
    (Redis::new(settings, settings.db_state, notices), receiver)
}

fn to_single(server: &Server) -> (Redis, Receiver<Notice>) {
    connect(&settings(&[server.port()]))
}

fn to_cluster(cluster: &RedisCluster) -> (Redis, Receiver<Notice>) {
    let ports: Vec<_> = (0..3).map(|node| cluster.node(node).port()).collect();
    connect(&settings(&ports[..2]))
}

async fn get(redis: &Redis, key: &str) -> Result<Option<String>, Unavailable> {
    let value = redis.call(cmd("GET").arg(key)).await?;
    Ok(redis::from_redis_value(value).unwrap())
}

async fn set(redis: &Redis, key: &str, value: &str) -> Result<(), Unavailable> {
    redis.call(cmd("SET").arg(key).arg(value)).await.map(drop)
}

async fn publish(redis: &Redis, channel: &str, message: &str) -> Result<(), Unavailable> {
    redis.run(&PUBLISH, &[channel], &[redis.publish_command(), message]).await.map(drop)
}

fn message(channel: &str, payload: &'static str) -> Notice {
    Notice::Message { channel: channel.to_owned(), payload: payload.into() }
}

fn missed(channels: &[&str]) -> Notice {
    Notice::Missed(channels.iter().map(|&channel| channel.to_owned()).collect())
}

async fn next(notices: &mut Receiver<Notice>) -> Notice {
    tokio::time::timeout(Duration::from_secs(30), notices.recv()).await.unwrap().unwrap()
}

/// Calls until the answer is the one that is waited for.
async fn until<T, F: Future<Output = T>>(call: impl Fn() -> F, is_it: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let answer = call().await;
        if is_it(&answer) {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it does not come");
        tokio::task::yield_now().await;
    }
}

fn cause<T>(answer: &Result<T, Unavailable>) -> Option<Cause> {
    answer.as_ref().err().map(|unavailable| unavailable.cause)
}

#[tokio::test]
async fn commands_and_scripts_are_answered() {
    let server = Server::start().unwrap();
    let (redis, _notices) = to_single(&server);
    assert_eq!(redis.ping().await, Ok(()));
    set(&redis, "key", "value").await.unwrap();
    assert_eq!(get(&redis, "key").await, Ok(Some("value".to_owned())));
    for _ in 0..2 {
        let answer = redis.run(&ECHO, &["key"], &["a", "b"]).await.unwrap();
        assert_eq!(redis::from_redis_value::<Vec<String>>(answer).unwrap(), ["a", "b"]);
        server.cli(&["SCRIPT", "FLUSH"]).unwrap();
    }
    let refused = redis.call(cmd("GET").arg("key").arg("too many")).await;
    assert_eq!(cause(&refused), Some(Cause::Refused));
    assert_eq!(redis.key(&redis.tag("id")), "test:id");
}

#[tokio::test]
async fn a_database_number_keeps_keys_apart() {
    let server = Server::start().unwrap();
    let (notices, _receiver) = channel(1);
    set(&Redis::new(&settings(&[server.port()]), 2, notices), "key", "value").await.unwrap();
    assert_eq!(server.cli(&["-n", "2", "GET", "key"]).unwrap(), "value");
    assert_eq!(server.cli(&["GET", "key"]).unwrap(), "");
}

#[tokio::test]
async fn a_redis_that_was_killed_is_down_and_used_again_once_it_is_back() {
    let mut server = Server::start().unwrap();
    let (redis, mut notices) = to_single(&server);
    redis.subscribe("a").await.unwrap();
    redis.subscribe("b").await.unwrap();
    redis.subscribe("c").await.unwrap();
    redis.unsubscribe("c").await.unwrap();
    publish(&redis, "c", "0").await.unwrap();
    publish(&redis, "a", "1").await.unwrap();
    assert_eq!(next(&mut notices).await, message("a", "1"));
    server.kill().unwrap();
    until(|| get(&redis, "key"), |answer| cause(answer) == Some(Cause::Down)).await.unwrap_err();
    let began = Instant::now();
    assert_eq!(cause(&redis.ping().await), Some(Cause::Down));
    assert!(began.elapsed() < DEADLINE / 2);
    assert_eq!(cause(&redis.subscribe("d").await), Some(Cause::Down));
    server.restart().unwrap();
    assert_eq!(next(&mut notices).await, missed(&["a", "b"]));
    until(|| publish(&redis, "b", "2"), Result::is_ok).await.unwrap();
    assert_eq!(next(&mut notices).await, message("b", "2"));
    assert_eq!(get(&redis, "key").await, Ok(None));
}

#[tokio::test]
async fn a_redis_that_hangs_is_given_up_within_the_deadline_and_is_then_down_at_once() {
    let server = Server::start().unwrap();
    let (redis, mut notices) = to_single(&server);
    redis.subscribe("a").await.unwrap();
    set(&redis, "key", "before").await.unwrap();
    server.pause().unwrap();
    let began = Instant::now();
    let answer = set(&redis, "key", "hung").await;
    assert!(began.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(answer.unwrap_err().may_have_happened());
    until(|| get(&redis, "key"), |answer| cause(answer) == Some(Cause::Down)).await.unwrap_err();
    let began = Instant::now();
    for _ in 0..100_000 {
        assert_eq!(cause(&get(&redis, "key").await), Some(Cause::Down));
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    server.resume().unwrap();
    until(|| redis.ping(), Result::is_ok).await.unwrap();
    assert_eq!(next(&mut notices).await, missed(&["a"]));
    set(&redis, "key", "after").await.unwrap();
    assert_eq!(get(&redis, "key").await, Ok(Some("after".to_owned())));
}

#[tokio::test]
async fn no_more_calls_wait_for_a_redis_that_hangs_than_may() {
    let server = Server::start().unwrap();
    let (redis, _notices) = to_single(&server);
    redis.ping().await.unwrap();
    server.pause().unwrap();
    let began = Instant::now();
    let calls: Vec<_> = (0..CALLS + 10)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move { cause(&get(&redis, "key").await) })
        })
        .collect();
    let mut overloaded = 0;
    for call in calls {
        let cause = call.await.unwrap();
        assert!(cause.is_some());
        overloaded += usize::from(cause == Some(Cause::Overloaded));
    }
    assert_eq!(overloaded, 10);
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(1), "{:?}", began.elapsed());
    server.resume().unwrap();
    until(|| redis.ping(), Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_password_is_shown_and_a_wrong_one_is_denied_without_being_told() {
    let server = Server::start_with(&["--requirepass", "secret"]).unwrap();
    let with = |password: &str| RedisSettings { password: Some(Secret::new(password)), ..settings(&[server.port()]) };
    assert_eq!(connect(&with("secret")).0.ping().await, Ok(()));
    let denied = connect(&with("hunter2")).0.ping().await.unwrap_err();
    assert_eq!(denied.cause, Cause::Denied);
    assert!(!format!("{denied} {denied:?}").contains("hunter2"));
    assert_eq!(cause(&to_single(&server).0.ping().await), Some(Cause::Denied));
    server.cli(&["ACL", "SETUSER", "guest", "on", ">pass", "~*", "+@all"]).unwrap();
    let user = RedisSettings { user: Some("guest".to_owned()), ..with("pass") };
    assert_eq!(connect(&user).0.ping().await, Ok(()));
}

/// The system's certificates are those that the environment names, so that each half of this test is a process of its own.
#[tokio::test]
async fn tls_takes_a_certificate_of_a_trusted_authority_only() {
    if let Ok(port) = env::var("SYNCWATCH_TEST_TLS_PORT") {
        let settings = RedisSettings { tls: true, ..settings(&[port.parse().unwrap()]) };
        let answer = connect(&settings).0.ping().await;
        assert_eq!(cause(&answer), env::var("SYNCWATCH_TEST_TLS_WRONG").ok().map(|_| Cause::Down), "{answer:?}");
        return;
    }
    let (server, other) = (Server::start_tls().unwrap(), Server::start_tls().unwrap());
    let half = |trusted: &Server, wrong: Option<&str>| {
        let mut half = Command::new(env::current_exe().unwrap());
        half.args(["--exact", "redis::tests::tls_takes_a_certificate_of_a_trusted_authority_only"]);
        half.env("SYNCWATCH_TEST_TLS_PORT", server.port().to_string()).env("SSL_CERT_FILE", trusted.authority());
        half.env_remove("SSL_CERT_DIR").envs(wrong.map(|it| ("SYNCWATCH_TEST_TLS_WRONG", it)));
        let output = half.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    half(&server, None);
    half(&other, Some("yes"));
}

#[tokio::test]
async fn what_a_full_queue_does_not_take_is_told_as_missed() {
    let server = Server::start().unwrap();
    let (notices, mut receiver) = channel(1);
    let redis = Redis::new(&settings(&[server.port()]), 0, notices);
    redis.subscribe("a").await.unwrap();
    redis.subscribe("b").await.unwrap();
    publish(&redis, "a", "1").await.unwrap();
    publish(&redis, "b", "2").await.unwrap();
    // Answered in order on this connection: both have come by then.
    redis.unsubscribe("b").await.unwrap();
    assert_eq!(next(&mut receiver).await, message("a", "1"));
    assert_eq!(next(&mut receiver).await, missed(&["b"]));
    publish(&redis, "a", "3").await.unwrap();
    assert_eq!(next(&mut receiver).await, message("a", "3"));
}

#[tokio::test]
async fn a_redis_without_memory_or_one_that_only_reads_says_so_to_a_ping() {
    let server = Server::start().unwrap();
    let (redis, _notices) = to_single(&server);
    redis.ping().await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert_eq!(cause(&redis.ping().await), Some(Cause::OutOfMemory));
    assert_eq!(cause(&redis.run(&ECHO, &["key"], &["a", "b"]).await), Some(Cause::OutOfMemory));
    assert_eq!(get(&redis, "key").await, Ok(None));
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    redis.ping().await.unwrap();
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    until(|| redis.ping(), |answer| cause(answer) == Some(Cause::ReadOnly)).await.unwrap_err();
    until(|| publish(&redis, "a", "1"), |answer| cause(answer) == Some(Cause::ReadOnly)).await.unwrap_err();
    server.cli(&["REPLICAOF", "NO", "ONE"]).unwrap();
    until(|| redis.ping(), Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn on_a_cluster_keys_and_channels_go_to_their_nodes() {
    let cluster = RedisCluster::start().unwrap();
    let (redis, mut notices) = to_cluster(&cluster);
    redis.ping().await.unwrap();
    let mut seen = [false; 3];
    for id in ["1", "2", "3", "4", "5", "6"] {
        let [key, channel] = ["key", "changes"].map(|name| redis.key(&format!("room:{}:{name}", redis.tag(id))));
        seen[cluster.node_of(&key).unwrap()] = true;
        redis.run(&ECHO, &[&key], &["a", "b"]).await.unwrap();
        assert_eq!(get(&redis, &key).await, Ok(Some("a".to_owned())));
        redis.subscribe(&channel).await.unwrap();
        publish(&redis, &channel, "hello").await.unwrap();
        assert_eq!(next(&mut notices).await, message(&channel, "hello"));
        redis.unsubscribe(&channel).await.unwrap();
        publish(&redis, &channel, "nobody hears this").await.unwrap();
    }
    assert_eq!(seen, [true; 3], "the ids do not reach every node");
    redis.call(&cmd("TIME")).await.unwrap();
}

/// Names of one key or channel for each node.
fn names(cluster: &RedisCluster, kind: &str) -> [String; 3] {
    let named =
        |node| (0..).map(|id| format!("{kind}:{{{id}}}")).find(|name| cluster.node_of(name).unwrap() == node).unwrap();
    [named(0), named(1), named(2)]
}

#[tokio::test]
async fn a_node_of_a_cluster_that_hangs_or_is_killed_takes_its_own_keys_along_only() {
    let mut cluster = RedisCluster::start_with(&["--cluster-require-full-coverage", "no"]).unwrap();
    let (redis, mut notices) = to_cluster(&cluster);
    let (keys, channels) = (names(&cluster, "key"), names(&cluster, "channel"));
    for name in &channels {
        redis.subscribe(name).await.unwrap();
    }
    cluster.pause(1).unwrap();
    let began = Instant::now();
    assert!(set(&redis, &keys[1], "hung").await.is_err());
    assert!(began.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", began.elapsed());
    for node in [0, 2] {
        set(&redis, &keys[node], "fine").await.unwrap();
        publish(&redis, &channels[node], "fine").await.unwrap();
        assert_eq!(next(&mut notices).await, message(&channels[node], "fine"));
    }
    assert!(redis.ping().await.is_err());
    cluster.resume(1).unwrap();
    until(|| redis.ping(), Result::is_ok).await.unwrap();
    cluster.kill(2).unwrap();
    until(|| set(&redis, &keys[2], "lost"), Result::is_err).await.unwrap_err();
    for node in [0, 1] {
        set(&redis, &keys[node], "fine").await.unwrap();
    }
    cluster.restart(2).unwrap();
    until(|| publish(&redis, &channels[2], "back"), Result::is_ok).await.unwrap();
    // The node that hung may have been given up as well, and what was published before the channels were back is missed.
    loop {
        match next(&mut notices).await {
            Notice::Missed(channels_missed) if channels_missed.contains(&channels[2]) => break,
            Notice::Missed(_) | Notice::Message { .. } => {}
        }
    }
    publish(&redis, &channels[2], "again").await.unwrap();
    while next(&mut notices).await != message(&channels[2], "again") {
        publish(&redis, &channels[2], "again").await.unwrap();
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_takes_over_gets_the_keys_and_channels_of_its_master() {
    let mut cluster = RedisCluster::start().unwrap();
    let (key, channel) = ("key:{a}", "channel:{a}");
    let master = cluster.node_of(key).unwrap();
    cluster.add_replica(master).unwrap();
    // Through the others: that the master is named makes no difference to whether it is missed.
    let others: Vec<_> = (0..3).filter(|node| *node != master).map(|node| cluster.node(node).port()).collect();
    let (redis, mut notices) = connect(&settings(&others));
    redis.subscribe(channel).await.unwrap();
    set(&redis, key, "before").await.unwrap();
    cluster.kill(master).unwrap();
    until(|| set(&redis, key, "after"), Result::is_ok).await.unwrap();
    assert_eq!(next(&mut notices).await, missed(&[channel]));
    publish(&redis, channel, "there").await.unwrap();
    while next(&mut notices).await != message(channel, "there") {
        publish(&redis, channel, "there").await.unwrap();
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn slots_that_move_to_another_node_take_keys_and_channels_along() {
    let cluster = RedisCluster::start().unwrap();
    let (redis, mut notices) = to_cluster(&cluster);
    let channel = "channel:{a}";
    let (from, slot) =
        (cluster.node_of(channel).unwrap(), cluster.node(0).cli(&["CLUSTER", "KEYSLOT", channel]).unwrap());
    let to = (from + 1) % 3;
    redis.subscribe(channel).await.unwrap();
    set(&redis, "key:{a}", "value").await.unwrap();
    let ids = [from, to].map(|node| cluster.node(node).cli(&["CLUSTER", "MYID"]).unwrap());
    let set_slot = |node: usize, what: &str, id: &str| {
        cluster.node(node).cli(&["CLUSTER", "SETSLOT", &slot, what, id]).unwrap();
    };
    set_slot(to, "IMPORTING", &ids[0]);
    set_slot(from, "MIGRATING", &ids[1]);
    // Half way: the key is asked for where it is going.
    set(&redis, "new:{a}", "asked").await.unwrap();
    assert_eq!(get(&redis, "key:{a}").await, Ok(Some("value".to_owned())));
    let port = cluster.node(to).port().to_string();
    cluster.node(from).cli(&["MIGRATE", "127.0.0.1", &port, "key:{a}", "0", "5000"]).unwrap();
    for node in [to, from, 3 - from - to] {
        set_slot(node, "NODE", &ids[1]);
    }
    assert_eq!(get(&redis, "key:{a}").await, Ok(Some("value".to_owned())));
    assert_eq!(get(&redis, "new:{a}").await, Ok(Some("asked".to_owned())));
    assert_eq!(next(&mut notices).await, missed(&[channel]));
    publish(&redis, channel, "there").await.unwrap();
    while next(&mut notices).await != message(channel, "there") {
        // Listening to it is begun more than once, and each time something can have been missed.
        publish(&redis, channel, "there").await.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_may_drop_keys_is_warned_of() {
    let server = Server::start().unwrap();
    let (redis, _notices) = to_single(&server);
    assert!(redis.warnings().await.is_empty());
    for policy in ["allkeys-lru", "volatile-ttl"] {
        server.cli(&["CONFIG", "SET", "maxmemory-policy", policy]).unwrap();
        let warnings = redis.warnings().await;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains(&format!("127.0.0.1:{} has the maxmemory-policy {policy}", server.port())));
    }
    server.cli(&["ACL", "SETUSER", "default", "-info"]).unwrap();
    assert!(redis.warnings().await.is_empty());
}

#[tokio::test]
async fn a_node_of_a_cluster_that_is_taken_for_a_server_alone_is_warned_of() {
    let server = Server::start_with(&["--cluster-enabled", "yes"]).unwrap();
    let warnings = to_single(&server).0.warnings().await;
    assert!(warnings[0].contains("is a node of a Redis Cluster"), "{warnings:?}");
}

#[tokio::test]
async fn all_who_share_a_redis_have_its_time() {
    let server = Server::start().unwrap();
    let redis = to_single(&server).0;
    let (one, other) = (redis.clock().await.unwrap(), to_single(&server).0.clock().await.unwrap());
    let shown = |reply: &str| {
        let (seconds, micros) = reply.split_once('\n').unwrap();
        seconds.parse::<i64>().unwrap() * 1_000 + micros.parse::<i64>().unwrap() / 1_000
    };
    for clock in [&one, &other] {
        let (before, time, after) = (clock.now_ms(), shown(&server.cli(&["TIME"]).unwrap()), clock.now_ms());
        assert!((before - 5..=after + 5).contains(&time), "{before} {time} {after}");
    }
    drop(server);
    let (first, then) = (one.now_ms(), one.now_ms());
    assert!(first <= then && (one.now_ms() - other.now_ms()).abs() <= 5);
}
