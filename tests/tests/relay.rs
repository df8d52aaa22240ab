//! Requests that reach another instance than their session's, on a real Redis and a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::time::Duration;

use serde_json::{Value, json};
use syncwatch_backends::{Postgres, Redis};
use syncwatch_tests::{Client, Raw, Response, Server, create_room, until};

const SOON: Duration = Duration::from_secs(20);

/// Instances that share a Redis and a PostgreSQL.
struct Cluster {
    servers: Vec<Server>,
    redis: Redis,
    _postgres: Postgres,
}

impl Cluster {
    async fn of(instances: usize, settings: &[(&str, &str)]) -> Self {
        let (redis, postgres) = (Redis::start().unwrap(), Postgres::start().unwrap());
        let (redis_url, database_url) = (redis.url(), postgres.url());
        let mut env = vec![("DATABASE_URL", &*database_url), ("REDIS_URL", &*redis_url), ("GUEST_ROOMS", "true")];
        env.extend(settings);
        let mut servers = Vec::new();
        for _ in 0..instances {
            servers.push(Server::with(&env).await);
        }
        Self { servers, redis, _postgres: postgres }
    }

    fn any(&self, number: usize) -> &Server {
        &self.servers[number % self.servers.len()]
    }

    async fn metric(&self, number: usize, name: &str) -> u64 {
        let metrics = Raw::get(self.any(number).addr(), "/metrics", "").await.text();
        metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
    }

    /// Whether a request at one instance for a session at another one is served.
    async fn relays(&self, client: &Polling) -> bool {
        client.post(self.any(1), "3").await.status == 200
    }
}

/// A client that polls; its session is at the first instance.
struct Polling {
    sid: String,
}

impl Polling {
    async fn open(cluster: &Cluster) -> Self {
        let sid = Raw::poll_session(cluster.any(0).addr()).await;
        let client = Self { sid };
        assert_eq!(client.post(cluster.any(0), "40/sync,").await.text(), "ok");
        assert!(client.poll(cluster.any(0)).await.text().starts_with("40/sync,{"));
        client
    }

    fn path(&self, transport: &str) -> String {
        format!("/socket.io/?EIO=4&transport={transport}&sid={}", self.sid)
    }

    async fn poll(&self, server: &Server) -> Response {
        Raw::get(server.addr(), &self.path("polling"), "").await
    }

    async fn post(&self, server: &Server, body: &str) -> Response {
        Raw::post(server.addr(), &self.path("polling"), "", body.as_bytes()).await
    }

    /// Becomes a WebSocket through this instance.
    async fn upgrade(&self, server: &Server) -> Raw {
        let mut raw = Raw::connect(server.addr()).await;
        assert_eq!(raw.upgrade(&self.path("websocket"), "").await.status, 101);
        raw.text("2probe").await;
        assert_eq!(raw.text_frame().await.as_deref(), Some("3probe"));
        assert_eq!(self.poll(server).await.text(), "6");
        raw.text("5").await;
        raw
    }
}

fn ping(id: usize) -> String {
    format!("42/sync,{id}[\"time:ping\",{{\"clientTime\":1}}]")
}

/// Sends requests, and reads on until all of them have been answered in order.
async fn pings(raw: &mut Raw, count: usize) {
    for id in 0..count {
        raw.text(&ping(id)).await;
    }
    let mut next = 0;
    while next < count {
        let packet = raw.text_frame().await.expect("the session lives");
        if packet.starts_with("43/sync,") {
            assert!(packet.starts_with(&format!("43/sync,{next}[")), "{packet} is not the answer to {next}");
            next += 1;
        }
    }
}

#[tokio::test]
async fn requests_may_reach_any_instance() {
    let cluster = Cluster::of(3, &[]).await;
    let room = create_room(cluster.any(0), "owner", json!({})).await;
    let mut other = Client::guest(cluster.any(1)).await;
    let client = Polling::open(&cluster).await;
    let join = json!(["room:join", { "roomCode": room["code"], "guestName": "Zoë" }]);
    assert_eq!(client.post(cluster.any(1), &format!("42/sync,0{join}")).await.text(), "ok");
    let mut heard = String::new();
    for number in 2.. {
        heard += &client.poll(cluster.any(number)).await.text();
        if heard.contains("43/sync,0[") {
            break;
        }
    }
    assert!(heard.contains("room:state") && heard.contains("\"ok\":true"), "{heard}");
    // Each packet once, and in order.
    let mut acks = Vec::new();
    for id in 1..=40 {
        assert_eq!(client.post(cluster.any(id), &ping(id)).await.text(), "ok");
        let polled = client.poll(cluster.any(id + 1)).await.text();
        acks.extend(
            polled
                .split('\x1e')
                .filter_map(|packet| packet.strip_prefix("43/sync,")?.split('[').next()?.parse::<usize>().ok()),
        );
    }
    assert_eq!(acks, (1..=40).collect::<Vec<_>>());
    // What happens elsewhere arrives by any way.
    let joined = other.join(room["code"].as_str().unwrap(), "Ada").await;
    assert_eq!(joined["ok"], true, "{joined}");
    assert!(client.poll(cluster.any(2)).await.text().contains("room:participant:joined"));
    let mut raw = client.upgrade(cluster.any(2)).await;
    pings(&mut raw, 200).await;
    assert_eq!(other.ask("room:leave", json!({})).await["ok"], true);
    while !raw.text_frame().await.expect("the session lives").contains("room:participant:left") {}
    assert_eq!(
        (cluster.metric(0, "syncwatch_relay_lines").await, cluster.metric(2, "syncwatch_relay_lines").await),
        (1, 1)
    );
    assert_eq!(cluster.metric(0, "syncwatch_relayed_requests_total").await, 0);
    assert!(cluster.metric(1, "syncwatch_relayed_requests_total").await > 20);
    for server in &cluster.servers {
        server.assert_calm(&[&client.sid[..20]]);
    }
}

#[tokio::test]
async fn without_the_relay_a_session_is_unknown_elsewhere() {
    let cluster = Cluster::of(2, &[("RELAY", "false")]).await;
    let client = Polling::open(&cluster).await;
    assert_eq!(client.sid.len(), 20);
    let unknown: Value = json!({ "code": 1, "message": "Session ID unknown" });
    for response in [client.poll(cluster.any(1)).await, client.post(cluster.any(1), "3").await] {
        assert_eq!((response.status, response.json()), (400, unknown.clone()));
    }
    let mut raw = Raw::connect(cluster.any(1).addr()).await;
    assert_eq!(raw.upgrade(&client.path("websocket"), "").await.status, 400);
    assert_eq!(client.post(cluster.any(0), "3").await.text(), "ok");
}

#[tokio::test]
async fn without_redis_the_wrong_instance_says_so_and_the_right_one_goes_on() {
    let mut cluster = Cluster::of(2, &[]).await;
    let client = Polling::open(&cluster).await;
    let mut carried = Polling::open(&cluster).await.upgrade(cluster.any(1)).await;
    let mut direct = Polling::open(&cluster).await.upgrade(cluster.any(0)).await;
    pings(&mut carried, 3).await;
    assert!(cluster.relays(&client).await);
    cluster.redis.kill().unwrap();
    assert!(carried.ended(SOON).await, "it may have lost something");
    until(SOON, "the answer is that there is no way", || async {
        let response = client.post(cluster.any(1), "3").await;
        assert_ne!(response.status, 200);
        response.status == 503
    })
    .await;
    assert_eq!(client.poll(cluster.any(1)).await.status, 503);
    assert_eq!(client.post(cluster.any(0), &ping(1)).await.text(), "ok");
    assert!(client.poll(cluster.any(0)).await.text().contains("43/sync,1["));
    pings(&mut direct, 3).await;
    cluster.redis.restart().unwrap();
    until(SOON, "the way is back", || cluster.relays(&client)).await;
    assert_eq!(client.post(cluster.any(1), &ping(2)).await.text(), "ok");
    assert!(client.poll(cluster.any(1)).await.text().contains("43/sync,2["));
    let mut carried = Polling::open(&cluster).await.upgrade(cluster.any(1)).await;
    pings(&mut carried, 3).await;
}

#[tokio::test]
async fn an_instance_that_dies_or_stops_takes_along_what_it_carries() {
    let mut cluster = Cluster::of(3, &[]).await;
    let mut over_one = Polling::open(&cluster).await.upgrade(cluster.any(1)).await;
    let mut over_two = Polling::open(&cluster).await.upgrade(cluster.any(2)).await;
    let waiting = Polling::open(&cluster).await;
    pings(&mut over_one, 3).await;
    pings(&mut over_two, 3).await;
    assert!(cluster.servers[1].terminate().await.success());
    assert!(over_one.ended(SOON).await);
    pings(&mut over_two, 3).await;
    until(SOON, "the line is gone", || async { cluster.metric(0, "syncwatch_relay_lines").await == 1 }).await;
    // Its sessions die with it, and the others say so.
    cluster.servers[0].kill_hard().await;
    assert!(over_two.ended(SOON).await);
    assert_eq!(waiting.poll(cluster.any(2)).await.status, 400);
    until(SOON, "the line is gone", || async { cluster.metric(2, "syncwatch_relay_lines").await == 0 }).await;
}
