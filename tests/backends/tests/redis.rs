//! The Redis servers that tests start are what they say.

use std::net::TcpStream;
use std::time::Duration;

use syncwatch_backends::{Redis, RedisCluster};

#[test]
fn a_redis_comes_back_empty_on_its_port() {
    let mut redis = Redis::start().unwrap();
    assert_eq!(redis.cli(&["SET", "key", "value"]).unwrap(), "OK");
    assert_eq!(redis.cli(&["GET", "key"]).unwrap(), "value");
    redis.kill().unwrap();
    assert!(redis.cli(&["PING"]).is_err());
    redis.restart().unwrap();
    assert_eq!(redis.cli(&["GET", "key"]).unwrap(), "");
    redis.stop().unwrap();
    redis.restart().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
}

#[test]
fn a_redis_is_gone_with_its_handle() {
    let redis = Redis::start().unwrap();
    let port = redis.port();
    redis.pause().unwrap();
    drop(redis);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_paused_redis_answers_nothing_until_it_is_resumed() {
    let redis = Redis::start().unwrap();
    redis.pause().unwrap();
    let mut paused = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    paused.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::io::Write::write_all(&mut paused, b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    std::io::Read::read_exact(&mut paused, &mut answer).unwrap_err();
    redis.resume().unwrap();
    paused.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    std::io::Read::read_exact(&mut paused, &mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn a_redis_takes_arguments_and_asks_for_its_password() {
    let redis = Redis::start_with(&["--requirepass", "secret", "--maxmemory", "5mb"]).unwrap();
    assert_eq!(redis.url(), format!("redis://:secret@127.0.0.1:{}", redis.port()));
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]).unwrap(), "maxmemory\n5242880");
    let wrong = redis.cli(&["-a", "wrong", "GET", "key"]).unwrap_err();
    assert!(wrong.to_string().contains("NOAUTH"), "{wrong}");
}

#[test]
fn a_redis_that_cannot_start_says_why() {
    let refused = Redis::start_with(&["--no-such-option", "1"]).unwrap_err();
    assert!(refused.to_string().contains("does not start"), "{refused}");
}

#[test]
fn a_redis_speaks_tls_with_a_certificate_of_its_authority() {
    let redis = Redis::start_tls().unwrap();
    assert_eq!(redis.cli(&["PING"]).unwrap(), "PONG");
    assert_eq!(redis.url(), format!("rediss://127.0.0.1:{}", redis.port()));
    assert!(redis.authority().exists());
}

#[test]
fn a_cluster_serves_all_slots_and_survives_a_node_that_comes_back() {
    let mut cluster = RedisCluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 3);
    for key in ["a", "b", "c", "d"] {
        let node = cluster.node_of(key).unwrap();
        assert_eq!(cluster.node(node).cli(&["SET", key, "value"]).unwrap(), "OK", "{key}");
    }
    cluster.kill(2).unwrap();
    cluster.restart(2).unwrap();
    cluster.pause(1).unwrap();
    cluster.resume(1).unwrap();
    cluster.wait_until_complete().unwrap();
}

#[test]
fn a_replica_takes_over_from_a_master_that_is_lost() {
    let mut cluster = RedisCluster::start().unwrap();
    let master = cluster.node_of("a").unwrap();
    cluster.node(master).cli(&["SET", "a", "value"]).unwrap();
    let replica = cluster.add_replica(master).unwrap();
    assert_eq!(replica, 3);
    cluster.kill(master).unwrap();
    while cluster.node(replica).cli(&["SET", "a", "other"]).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.restart(master).unwrap();
    cluster.wait_until_complete().unwrap();
}
