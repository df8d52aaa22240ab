//! Several instances as one server: on a real Redis and a real PostgreSQL, with every one of them failing.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncwatch_backends::{Postgres, Redis};
use syncwatch_tests::{Client, SECRET, Server, create_room, rest, run, until, user_token, within};
use tokio::task::JoinSet;
use tokio::time::sleep;

const GRACE_MS: &str = "4000";

/// How long the others may take to find an instance lost.
const FOUND_LOST: Duration = Duration::from_secs(15);

/// Longer than an instance takes to be found lost, and a grace after it.
const AT_REST: Duration = Duration::from_secs(30);

/// Instances over the same Redis and PostgreSQL.
struct Cluster {
    servers: Vec<Server>,
    redis: Redis,
    postgres: Postgres,
}

impl Cluster {
    async fn of(instances: usize) -> Self {
        Self::on(Redis::start().unwrap(), Postgres::start().unwrap(), instances, &[]).await
    }

    async fn on(redis: Redis, postgres: Postgres, instances: usize, settings: &[(&str, &str)]) -> Self {
        let (redis_url, database_url) = (redis.url(), postgres.url());
        let mut env = vec![
            ("DATABASE_URL", database_url.as_str()),
            ("REDIS_URL", redis_url.as_str()),
            ("GUEST_ROOMS", "true"),
            ("RECONNECT_GRACE_MS", GRACE_MS),
            // Clients here only read while something is awaited of them.
            ("WS_PING_INTERVAL", "120000"),
        ];
        env.extend(settings);
        let mut servers = Vec::new();
        for _ in 0..instances {
            servers.push(Server::with(&env).await);
        }
        Self { servers, redis, postgres }
    }

    fn server(&self, number: usize) -> &Server {
        &self.servers[number % self.servers.len()]
    }

    async fn room(&self, seats: u32) -> Room {
        let room = create_room(&self.servers[0], "owner", json!({ "maxParticipants": seats })).await;
        let text = |name: &str| room[name].as_str().unwrap().to_owned();
        Room { id: text("id"), code: text("code") }
    }

    fn redis(&self, command: &[&str]) -> String {
        self.redis.cli(command).unwrap().trim().to_owned()
    }

    /// The room's participants, as Redis shows them.
    fn participants(&self, room: &Room) -> Vec<Value> {
        let text = self.redis(&["GET", &format!("room:{}:participants", room.id)]);
        if text.is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
    }

    fn online(&self, room: &Room) -> usize {
        self.redis(&["SCARD", &format!("room:{}:online", room.id)]).parse().unwrap()
    }

    /// The `oderId` of each of the room's rows.
    fn rows(&self, room: &Room) -> BTreeSet<String> {
        let sql = format!("SELECT oder_id FROM participants WHERE room_id = '{}'", room.id);
        self.postgres.query(&sql).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits until Redis and the database have these people in the room and nobody else, all of them online.
    async fn rests_with(&self, room: &Room, people: &BTreeSet<String>) {
        let end = Instant::now() + AT_REST;
        loop {
            let participants = self.participants(room);
            let shown: BTreeSet<_> =
                participants.iter().map(|one| one["oderId"].as_str().unwrap().to_owned()).collect();
            let (online, rows) = (self.online(room), self.rows(room));
            let all_online = participants.iter().all(|one| one["online"] == true);
            if shown == *people && rows == *people && online == people.len() && all_online {
                return;
            }
            assert!(
                Instant::now() < end,
                "at rest there should be {}; {} are shown, {} rows are kept, {online} sockets are online",
                people.len(),
                shown.len(),
                rows.len()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ready(&self, number: usize) -> (u16, Value) {
        let answer = rest(self.server(number), "GET", "/health/ready", None, None).await;
        (answer.status, answer.json())
    }
}

struct Room {
    id: String,
    code: String,
}

fn oder_id(joined: &Value) -> String {
    joined["self"]["oderId"].as_str().unwrap_or_else(|| panic!("no seat: {joined}")).to_owned()
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}

#[tokio::test]
async fn two_people_on_two_instances_watch_together() {
    watch_together(&Cluster::of(2).await).await;
}

#[tokio::test]
async fn backends_that_ask_for_tls_get_it_if_their_certificates_are_trusted() {
    let (redis, postgres) = (Redis::start_tls().unwrap(), Postgres::start_tls().unwrap());
    let authorities = [redis.authority(), postgres.authority()].map(|file| fs::read_to_string(file).unwrap());
    let trusted = tempfile::NamedTempFile::new().unwrap();
    fs::write(&trusted, authorities.concat()).unwrap();
    let trusting = [("SSL_CERT_FILE", trusted.path().to_str().unwrap())];
    let cluster = Cluster::on(redis, postgres, 2, &trusting).await;
    watch_together(&cluster).await;
    // The one without the other's authority.
    let [redis_authority, postgres_authority] = authorities;
    for (authority, distrusted) in [(redis_authority, "DATABASE_URL"), (postgres_authority, "REDIS_")] {
        fs::write(&trusted, authority).unwrap();
        let (database_url, redis_url) = (cluster.postgres.url(), cluster.redis.url());
        let env = [
            ("DATABASE_URL", database_url.as_str()),
            ("REDIS_URL", redis_url.as_str()),
            trusting[0],
            ("JWT_SECRET", SECRET),
        ];
        let directory = tempfile::tempdir().unwrap();
        let refused = run::<&str>(&[], &env, directory.path()).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(distrusted) && !said.contains("not-a-secret"), "{said}");
    }
}

async fn watch_together(cluster: &Cluster) {
    let room = cluster.room(10).await;
    let mut owner = Client::user(cluster.server(0), &user_token("owner")).await;
    assert_eq!(owner.ask("room:join", json!({ "roomCode": room.code })).await["ok"], true);
    let mut guest = Client::guest(cluster.server(1)).await;
    let joined = guest.join(&room.code, "Zoë").await;
    assert_eq!(owner.next("room:participant:joined").await["participant"]["oderId"], joined["self"]["oderId"]);
    let source = json!({ "sourceType": "youtube", "sourceId": "x" });
    assert_eq!(owner.ask("sync:source", source).await["ok"], true);
    assert_eq!(owner.ask("sync:play", json!({})).await["ok"], true);
    assert_eq!(guest.next("sync:command").await["command"]["sequenceNumber"], 2);
    for (number, _) in cluster.servers.iter().enumerate() {
        let (status, body) = cluster.ready(number).await;
        assert_eq!((status, &body["data"]["backends"]["redis"]["status"]), (200, &json!("up")), "{body}");
    }
    for server in &cluster.servers {
        server.assert_calm(&[joined["self"]["resumeToken"].as_str().unwrap()]);
    }
}

#[tokio::test]
async fn who_was_on_an_instance_that_dies_comes_back_on_another() {
    let mut cluster = Cluster::of(3).await;
    let room = cluster.room(10).await;
    let mut stays = Client::guest(cluster.server(0)).await;
    let stays_id = oder_id(&stays.join(&room.code, "stays").await);
    let (mut names, mut tokens, mut clients) = (BTreeSet::new(), Vec::new(), Vec::new());
    for number in 0..3 {
        let mut client = Client::guest(cluster.server(1)).await;
        let joined = client.join(&room.code, &format!("guest {number}")).await;
        names.insert(oder_id(&joined));
        tokens.push((format!("guest {number}"), joined["self"]["resumeToken"].clone()));
        clients.push(client);
    }
    cluster.servers[1].kill_hard().await;
    let died = Instant::now();
    let mut offline = BTreeMap::<String, usize>::new();
    while offline.len() < 3 {
        let updated = stays.next("room:participant:updated").await;
        assert_eq!(updated["participant"]["online"], false);
        *offline.entry(updated["participant"]["oderId"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(died.elapsed() < FOUND_LOST, "{:?}", died.elapsed());
    // Two come back, one does not.
    let mut back = Vec::new();
    for (name, token) in &tokens[..2] {
        let mut client = Client::guest(cluster.server(2)).await;
        let joined =
            client.ask("room:join", json!({ "roomCode": room.code, "guestName": name, "resumeToken": token })).await;
        assert!(names.remove(&oder_id(&joined)), "a seat of its own: {joined}");
        back.push((client, oder_id(&joined)));
    }
    let left = stays.next("room:participant:left").await;
    assert_eq!((left["oderId"].as_str(), &left["reason"]), (names.first().map(String::as_str), &json!("timeout")));
    let mut people: BTreeSet<_> = back.iter().map(|(_, name)| name.clone()).collect();
    people.insert(stays_id);
    cluster.rests_with(&room, &people).await;
    assert!(offline.values().all(|times| *times == 1), "{offline:?}");
    assert!(stays.listen(Duration::from_millis(100)).await);
    assert!(stays.drain().iter().all(|(name, _)| name != "room:participant:left"), "each left once");
    let mut late = Client::guest(cluster.server(0)).await;
    let state = late.join(&room.code, "late").await;
    assert_eq!(state["participants"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_rush_with_instances_dying_never_overfills_a_room() {
    const ROUNDS: usize = 10;
    const SEATS: usize = 50;
    let mut cluster = Cluster::of(3).await;
    let (mut rooms, mut stayed) = (Vec::new(), BTreeSet::new());
    let mut staying = Vec::new();
    for round in 0..ROUNDS {
        let room = cluster.room(SEATS as u32).await;
        let mut rush = JoinSet::new();
        for number in 0..300 {
            let (addr, code) = (cluster.server(number).addr(), room.code.clone());
            rush.spawn(async move {
                let mut client = Client::attempt(addr, &json!({})).await?;
                let request = json!({ "roomCode": code, "guestName": format!("guest {number}") });
                let joined = client.try_ask("room:join", request).await?;
                Some((client, number % 3, joined))
            });
        }
        let mut seated = Vec::new();
        let victim = round % 3;
        while let Some(tried) = rush.join_next().await {
            let Some((client, instance, joined)) = tried.unwrap() else { continue };
            match code(&joined) {
                "none" => seated.push((client, instance, oder_id(&joined))),
                "ROOM_FULL" | "UNAVAILABLE" => {}
                other => panic!("{other}: {joined}"),
            }
            // In every other round one dies in the middle of the rush.
            if round % 2 == 0 && seated.len() == SEATS / 2 {
                cluster.servers[victim].kill_hard().await;
            }
            assert!(cluster.participants(&room).len() <= SEATS);
        }
        let names: BTreeSet<_> = seated.iter().map(|(_, _, name)| name.clone()).collect();
        assert_eq!(names.len(), seated.len(), "a name twice");
        assert!(seated.len() <= SEATS, "{} people in {SEATS} seats", seated.len());
        if round % 2 == 0 {
            cluster.servers[victim].restart().await;
            seated.retain(|(_, instance, _)| *instance != victim);
        } else {
            assert_eq!(seated.len(), SEATS);
        }
        rooms.push(room);
        // All are cut off, but for a few of the last.
        if round == ROUNDS - 1 {
            seated.truncate(5);
            stayed = seated.iter().map(|(_, _, name)| name.clone()).collect();
            staying = seated;
        }
    }
    let last = rooms.pop().unwrap();
    cluster.rests_with(&last, &stayed).await;
    for room in &rooms {
        cluster.rests_with(room, &BTreeSet::new()).await;
    }
    assert_eq!(staying.len(), 5);
}

/// What must go on and what must be refused while a backend is away.
struct Outage<'a> {
    cluster: &'a Cluster,
    member: Client,
    room: Room,
    backend: &'a str,
}

impl<'a> Outage<'a> {
    async fn prepare(cluster: &'a Cluster, backend: &'a str) -> Self {
        let room = cluster.room(10).await;
        let mut member = Client::user(cluster.server(0), &user_token("owner")).await;
        assert_eq!(member.ask("room:join", json!({ "roomCode": room.code })).await["ok"], true);
        let source = json!({ "sourceType": "youtube", "sourceId": "x" });
        assert_eq!(member.ask("sync:source", source).await["ok"], true);
        Self { cluster, member, room, backend }
    }

    /// A change that needs the backend is refused in time, and readiness says why.
    async fn is_told(&mut self) {
        let limit = Duration::from_millis(2_500);
        let update = json!({ "name": "another" });
        let refused = within(limit, "a refusal", self.member.ask("room:update", update)).await;
        assert_eq!(code(&refused), "UNAVAILABLE", "{refused}");
        let joined = within(limit, "a refusal", async {
            let mut client = Client::guest(self.cluster.server(1)).await;
            client.join(&self.room.code, "late").await
        });
        assert_eq!(code(&joined.await), "UNAVAILABLE");
        let (status, body) = self.cluster.ready(0).await;
        assert_eq!(status, 503, "{body}");
        assert!(body.to_string().contains(&format!("\"{}\":{{", self.backend)), "{body}");
        let pong = self.member.ask("time:ping", json!({ "clientTime": 1 })).await;
        assert_eq!(pong["ok"], true);
    }

    /// Everything works again, for who was there and for who comes.
    async fn is_over(&mut self) {
        let limit = Duration::from_secs(15);
        let end = Instant::now() + limit;
        while self.member.ask("room:update", json!({ "name": "another" })).await["ok"] != true {
            assert!(Instant::now() < end, "it does not heal within {limit:?}");
            sleep(Duration::from_millis(50)).await;
        }
        until(limit, "every instance is ready", || async {
            self.cluster.ready(0).await.0 == 200 && self.cluster.ready(1).await.0 == 200
        })
        .await;
        let mut client = Client::guest(self.cluster.server(1)).await;
        let joined = client.join(&self.room.code, "late").await;
        assert_eq!(joined["ok"], true, "{joined}");
        assert_eq!(joined["room"]["name"], "another");
        let participants = joined["participants"].as_array().unwrap();
        assert!(participants.iter().all(|one| one["online"] == true), "{participants:?}");
        self.member.next("room:participant:joined").await;
        let sequence = joined["playback"]["sequenceNumber"].as_u64().unwrap();
        assert_eq!(self.member.ask("sync:play", json!({})).await["ok"], true);
        assert!(client.next("sync:command").await["command"]["sequenceNumber"].as_u64().unwrap() > sequence);
    }
}

#[tokio::test]
async fn a_redis_that_stands_still_is_waited_out() {
    let cluster = Cluster::of(2).await;
    let mut outage = Outage::prepare(&cluster, "redis").await;
    cluster.redis.pause().unwrap();
    outage.is_told().await;
    cluster.redis.resume().unwrap();
    outage.is_over().await;
}

#[tokio::test]
async fn a_redis_that_was_killed_and_comes_back_empty_is_filled_again() {
    let mut cluster = Cluster::of(2).await;
    let room = cluster.room(10).await;
    let mut one = Client::user(cluster.server(0), &user_token("owner")).await;
    let mut two = Client::guest(cluster.server(1)).await;
    let mut people = BTreeSet::new();
    people.insert(oder_id(&one.ask("room:join", json!({ "roomCode": room.code })).await));
    people.insert(oder_id(&two.join(&room.code, "Zoë").await));
    let source = json!({ "sourceType": "youtube", "sourceId": "x" });
    assert_eq!(one.ask("sync:source", source).await["ok"], true);
    cluster.redis.kill().unwrap();
    assert_eq!(code(&one.ask("sync:play", json!({})).await), "UNAVAILABLE");
    assert_eq!(cluster.ready(0).await.0, 503);
    cluster.redis.restart().unwrap();
    // Without anybody asking for anything.
    cluster.rests_with(&room, &people).await;
    let end = Instant::now() + AT_REST;
    while one.ask("sync:play", json!({})).await["ok"] != true {
        assert!(Instant::now() < end, "it does not heal");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(two.next("sync:command").await["command"]["sequenceNumber"].as_u64().unwrap() > 1);
    until(AT_REST, "both are ready", || async { cluster.ready(0).await.0 == 200 && cluster.ready(1).await.0 == 200 })
        .await;
}

#[tokio::test]
async fn a_redis_that_is_full_or_read_only_is_told_from_a_good_one() {
    let cluster = Cluster::of(2).await;
    for (fault, cure) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ] {
        let mut outage = Outage::prepare(&cluster, "redis").await;
        assert_eq!(cluster.redis(&fault), "OK");
        outage.is_told().await;
        assert_eq!(cluster.redis(&cure), "OK");
        outage.is_over().await;
    }
}

#[tokio::test]
async fn a_postgres_that_stands_still_or_starts_anew_is_waited_out() {
    let mut cluster = Cluster::of(2).await;
    {
        let mut outage = Outage::prepare(&cluster, "store").await;
        cluster.postgres.pause().unwrap();
        outage.is_told().await;
        // Playback needs no rows.
        assert_eq!(outage.member.ask("sync:play", json!({})).await["ok"], true);
        cluster.postgres.resume().unwrap();
        outage.is_over().await;
    }
    cluster.postgres.kill().unwrap();
    assert_eq!(cluster.ready(0).await.0, 503);
    cluster.postgres.restart().unwrap();
    Outage::prepare(&cluster, "store").await.is_over().await;
}

#[tokio::test]
async fn an_instance_that_is_stopped_leaves_its_seats_to_the_others() {
    let mut cluster = Cluster::of(2).await;
    let room = cluster.room(10).await;
    let mut stays = Client::guest(cluster.server(0)).await;
    let stays_id = oder_id(&stays.join(&room.code, "stays").await);
    let mut moves = Client::guest(cluster.server(1)).await;
    let joined = moves.join(&room.code, "moves").await;
    let stopping = cluster.servers[1].terminate();
    let told = async {
        let shutdown = moves.next("server:shutdown").await;
        assert!(shutdown["reconnectIn"].as_u64().unwrap() >= 500, "{shutdown}");
        moves.ended().await;
    };
    let (status, ()) = tokio::join!(stopping, told);
    assert!(status.success());
    let updated = stays.next("room:participant:updated").await;
    assert_eq!(updated["participant"]["online"], false);
    let mut back = Client::guest(cluster.server(0)).await;
    let token = &joined["self"]["resumeToken"];
    let request = json!({ "roomCode": room.code, "guestName": "moves", "resumeToken": token });
    let again = back.ask("room:join", request).await;
    assert_eq!(again["self"]["oderId"], joined["self"]["oderId"], "{again}");
    cluster.rests_with(&room, &BTreeSet::from([stays_id, oder_id(&again)])).await;
}
