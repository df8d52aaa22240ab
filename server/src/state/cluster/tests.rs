//! Three instances over one real Redis and one real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use serde_json::value::RawValue;
use syncwatch_backends as backends;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Cluster;
use crate::config::{RedisServer, RedisSettings};
use crate::redis::{Notice, Redis};
use crate::state::{Joiner, Publisher, Rooms, StateOptions};
use crate::store::RoomStore;
use crate::store::postgres::PostgresStore;
use crate::sync::clock::Clock;
use crate::sync::event::{ErrorCode, Refusal, RoomState, ServerEvent, SourceRequest};
use crate::sync::playback::{Motion, SourceType};
use crate::sync::room::{Audience, Command, ConnectionId, Editor, Identity, RoomPatch};
use crate::sync::rows::{PlaybackControl, RoomRow, WaitFor};

const CODE: &str = "ROOMAAAA";

/// What the connections of one instance have been sent.
#[derive(Debug, Default)]
struct Recorder(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    admitted: BTreeSet<ConnectionId>,
    heard: BTreeMap<ConnectionId, Vec<(String, Json)>>,
    cut: Vec<ConnectionId>,
}

impl Recorder {
    fn tell(&self, to: Audience, name: &str, payload: &Json) {
        let mut record = self.0.lock().unwrap();
        let to: Vec<_> = match to {
            Audience::One(connection) => vec![connection],
            Audience::Others(but) => record.admitted.iter().copied().filter(|it| *it != but).collect(),
            Audience::All => record.admitted.iter().copied().collect(),
        };
        for connection in to {
            record.heard.entry(connection).or_default().push((name.to_owned(), payload.clone()));
        }
    }

    /// The names of the events a connection has been sent, and what each is about.
    fn heard(&self, connection: ConnectionId) -> Vec<String> {
        let record = self.0.lock().unwrap();
        let about = |(name, payload): &(String, Json)| {
            let texts = ["/participant/oderId", "/oderId", "/reason", "/command/sequenceNumber"];
            let texts = texts.iter().filter_map(|path| payload.pointer(path));
            let texts: Vec<_> = texts.map(|text| text.as_str().map_or(text.to_string(), str::to_owned)).collect();
            format!("{name} {}", texts.join(" "))
        };
        record.heard.get(&connection).into_iter().flatten().map(about).collect()
    }

    fn lost_seats(&self) -> Vec<ConnectionId> {
        self.0.lock().unwrap().cut.clone()
    }
}

impl Publisher for Arc<Recorder> {
    fn is_open(&self, _: ConnectionId) -> bool {
        true
    }

    fn admit(&self, _: &str, connection: ConnectionId) {
        self.0.lock().unwrap().admitted.insert(connection);
    }

    fn state(&self, connection: ConnectionId, state: &Arc<RoomState>) {
        self.tell(Audience::One(connection), "room:state", &serde_json::to_value(&**state).unwrap());
    }

    fn send(&self, _: &str, to: Audience, event: &ServerEvent) {
        self.tell(to, event.name(), &serde_json::to_value(event).unwrap());
    }

    fn relay(&self, _: &str, to: Audience, name: &str, payload: &RawValue) {
        self.tell(to, name, &serde_json::from_str(payload.get()).unwrap());
    }

    fn remove(&self, _: &str, connection: ConnectionId) {
        self.0.lock().unwrap().admitted.remove(&connection);
    }

    fn cut(&self, connection: ConnectionId) {
        self.0.lock().unwrap().cut.push(connection);
    }
}

/// One instance.
struct Instance {
    state: Rooms<PostgresStore, Arc<Recorder>>,
    seen: Arc<Recorder>,
    next: AtomicU64,
}

impl Instance {
    fn connection(&self) -> ConnectionId {
        ConnectionId::new(self.state.instance(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Joins by a new connection.
    async fn join(&self, joiner: Joiner) -> Result<Member<'_>, Refusal> {
        let connection = self.connection();
        let socket_id = Some(format!("socket-{}", connection.0).as_str().into());
        let admission = self.state.open(connection, CODE).await?;
        let state = admission.join(Joiner { socket_id, ..joiner }).await?;
        Ok(Member { instance: self, connection, state })
    }
}

/// A connection in the room.
struct Member<'a> {
    instance: &'a Instance,
    connection: ConnectionId,
    state: Arc<RoomState>,
}

impl Member<'_> {
    fn oder_id(&self) -> &str {
        &self.state.own.oder_id
    }

    fn heard(&self) -> Vec<String> {
        self.instance.seen.heard(self.connection)
    }

    async fn tell(&self, command: impl FnOnce(ConnectionId) -> Command) -> Result<(), Refusal> {
        self.instance.state.member(command(self.connection)).await
    }

    async fn lose(&self) {
        self.instance.state.disconnected(self.connection, false).await;
    }

    /// Waits until the connection has heard this.
    async fn hears(&self, what: &str) {
        until(what, || async { self.heard().iter().any(|heard| heard == what) }).await;
    }
}

/// One server, or three that are one.
enum Backend {
    Server(backends::Redis),
    Cluster(backends::RedisCluster),
}

/// The servers, and instances that use them.
struct World {
    redis: Backend,
    postgres: backends::Postgres,
    instances: Vec<Instance>,
    options: StateOptions,
}

impl World {
    async fn new(instances: usize, seats: u32) -> Self {
        Self::on(Backend::Server(backends::Redis::start().unwrap()), instances, seats).await
    }

    async fn on(redis: Backend, instances: usize, seats: u32) -> Self {
        let mut options = StateOptions::default();
        options.room.grace_ms = 1_000;
        Self::with(options, redis, instances, seats).await
    }

    async fn with(options: StateOptions, redis: Backend, instances: usize, seats: u32) -> Self {
        let postgres = backends::Postgres::start().unwrap();
        let mut world = Self { redis, postgres, instances: Vec::new(), options };
        for _ in 0..instances {
            world.add().await;
        }
        let store = PostgresStore::open(&world.postgres.url()).await.unwrap();
        store.create_room(row(seats)).await.unwrap();
        world
    }

    async fn add(&mut self) {
        let store = Arc::new(PostgresStore::open(&self.postgres.url()).await.unwrap());
        let (cluster, incoming) = self.member().await;
        let seen = Arc::new(Recorder::default());
        let publisher = Arc::clone(&seen);
        let state = Rooms::start_in(cluster, incoming, store, publisher, Clock::system(), self.options);
        self.instances.push(Instance { state, seen, next: AtomicU64::new(1) });
    }

    /// Another member of the cluster, which does nothing by itself.
    async fn member(&self) -> (Cluster, Receiver<Notice>) {
        let at = |port| RedisServer { host: "127.0.0.1".into(), port };
        let servers = match &self.redis {
            Backend::Server(redis) => vec![at(redis.port())],
            Backend::Cluster(cluster) => (0..3).map(|node| at(cluster.node(node).port())).collect(),
        };
        let settings = RedisSettings {
            servers,
            tls: false,
            user: None,
            password: None,
            db_state: 0,
            db_rate: 2,
            key_prefix: String::new(),
        };
        let (notices, incoming) = channel(1_024);
        let redis = Redis::new(&settings, settings.db_state, notices);
        (Cluster::join(redis).await.unwrap(), incoming)
    }

    /// Makes rooms, and has a guest enter each by an instance. Returns their ids.
    async fn fill(&self, instance: &Instance, rooms: usize) -> Vec<String> {
        let store = Arc::new(PostgresStore::open(&self.postgres.url()).await.unwrap());
        let mut ids = Vec::new();
        for number in 0..rooms {
            let (id, code) = (format!("room-{number}"), format!("MANY{number:04}"));
            store.create_room(RoomRow { id: id.clone(), code: code.clone(), ..row(10) }).await.unwrap();
            let connection = instance.connection();
            let socket_id = Some(format!("socket-{}", connection.0).as_str().into());
            let admission = instance.state.open(connection, &code).await.unwrap();
            admission.join(Joiner { socket_id, ..guest("Zoë") }).await.unwrap();
            ids.push(id);
        }
        ids
    }

    /// Waits until an instance is found lost and its rooms are taken over.
    async fn buries(&self, instance: &Instance) {
        let number = instance.state.instance().to_string();
        until("the burial", || async { self.cli(&["ZSCORE", "syncwatch:instances", &number]).trim().is_empty() }).await;
    }

    /// How many rooms an instance looks after.
    fn looked_after(&self, instance: &Instance) -> usize {
        let key = format!("syncwatch:instance:{}:rooms", instance.state.instance());
        self.cli(&["SCARD", &key]).trim().parse().unwrap()
    }

    fn exists(&self, keys: &[String]) -> usize {
        let keys = keys.iter().map(String::as_str);
        self.cli(&["EXISTS"].into_iter().chain(keys).collect::<Vec<_>>()).trim().parse().unwrap()
    }

    fn cli(&self, command: &[&str]) -> String {
        match &self.redis {
            Backend::Server(redis) => redis.cli(command).unwrap(),
            Backend::Cluster(cluster) => cluster.node(0).cli(&[&["-c"], command].concat()).unwrap(),
        }
    }

    /// One of the room's keys of the contract.
    fn key(&self, name: &str) -> String {
        match &self.redis {
            Backend::Server(_) => format!("room:room-a:{name}"),
            Backend::Cluster(_) => format!("room:{{room-a}}:{name}"),
        }
    }

    /// The only server.
    fn redis(&mut self) -> &mut backends::Redis {
        match &mut self.redis {
            Backend::Server(redis) => redis,
            Backend::Cluster(_) => panic!("there are three"),
        }
    }

    /// Who sits in the room, as Redis shows it to everybody.
    fn participants(&self) -> Vec<Json> {
        let text = self.cli(&["GET", &self.key("participants")]);
        if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(text.trim()).unwrap() }
    }

    /// The rows of the room.
    async fn rows(&self) -> BTreeSet<String> {
        let store = PostgresStore::open(&self.postgres.url()).await.unwrap();
        store.participants("room-a").await.unwrap().into_iter().map(|row| row.oder_id).collect()
    }

    /// Waits until Redis and the store have the same people, so many of them online, and returns their names.
    async fn agrees(&self, count: usize, online: usize) -> BTreeSet<String> {
        let began = Instant::now();
        loop {
            let participants = self.participants();
            let names: BTreeSet<_> =
                participants.iter().map(|one| one["oderId"].as_str().unwrap().to_owned()).collect();
            let sockets: usize = self.cli(&["SCARD", &self.key("online")]).trim().parse().unwrap();
            let shown = participants.iter().filter(|one| one["online"] == true).count();
            assert_eq!(participants.len(), names.len(), "a name twice");
            let rows = self.rows().await;
            if names == rows && names.len() == count && sockets == online && shown == online {
                return names;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{} shown of which {shown} online, {} rows, {sockets} sockets; wanted {count} and {online}",
                names.len(),
                rows.len(),
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits for a condition.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn row(seats: u32) -> RoomRow {
    RoomRow {
        id: "room-a".into(),
        code: CODE.into(),
        name: "Film night".into(),
        owner_id: "ann".into(),
        max_participants: seats,
        password_hash: None,
        playback_control: PlaybackControl::All,
        wait_for: WaitFor::None,
        created_at_ms: 0,
        expires_at_ms: 4_000_000_000_000,
    }
}

fn user(name: &str) -> Joiner {
    let identity = Identity::User { user_id: name.into(), username: Some(name.into()) };
    Joiner { socket_id: None, identity, resume_token: None, proved_hash: None }
}

fn guest(name: &str) -> Joiner {
    let identity = Identity::Guest { name: Some(name.into()) };
    Joiner { socket_id: None, identity, resume_token: None, proved_hash: None }
}

fn source(connection: ConnectionId) -> Command {
    let source = SourceRequest { source_type: SourceType::Youtube, source_id: "x".into(), start_media_time_ms: None };
    Command::Source { connection, source }
}

fn play(connection: ConnectionId) -> Command {
    Command::Steer { connection, motion: Motion::Play, at_server_time: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_on_different_instances_share_a_room() {
    share_a_room(&World::new(3, 10).await).await;
}

/// How long the others may take to declare the participants of a lost instance offline.
const FOUND_LOST: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_lost_instance_are_divided_among_the_others() {
    const ROOMS: usize = 90;
    let world = World::new(4, 10).await;
    let [lost, survivors @ ..] = &world.instances[..] else { panic!("four") };
    let ids = world.fill(lost, ROOMS).await;
    let online: Vec<_> = ids.iter().map(|id| format!("room:{id}:online")).collect();
    assert_eq!((world.exists(&online), world.looked_after(lost)), (ROOMS, ROOMS));
    lost.state.die();
    let died = Instant::now();
    world.buries(lost).await;
    let shares: Vec<_> = survivors.iter().map(|survivor| world.looked_after(survivor)).collect();
    assert_eq!((world.exists(&online), world.looked_after(lost)), (0, 0));
    assert!(died.elapsed() < FOUND_LOST, "{:?}", died.elapsed());
    // On a machine with nothing else to do each is loaded once; one that is late leaves some to the next, which may be as
    // far with them.
    let loaded = shares.iter().sum::<usize>();
    assert!((ROOMS..ROOMS * 3 / 2).contains(&loaded) && !shares.contains(&ROOMS), "{shares:?}");
    // A participant that does not return is removed after the grace by the instance that took the room over.
    let rows = || async {
        let store = PostgresStore::open(&world.postgres.url()).await.unwrap();
        store.participants("room-7").await.unwrap().is_empty()
    };
    until("the end of the grace", rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_taken_over_from_one_that_lives_and_does_not_take_its_share() {
    let world = World::new(2, 10).await;
    let [lost, survivor] = &world.instances[..] else { panic!("two") };
    let (idle, _incoming) = world.member().await;
    let idle = tokio::spawn(async move {
        loop {
            idle.renew().await.unwrap();
            sleep(super::leases::RENEW_EVERY).await;
        }
    });
    let ids = world.fill(lost, 30).await;
    let online: Vec<_> = ids.iter().map(|id| format!("room:{id}:online")).collect();
    lost.state.die();
    let died = Instant::now();
    world.buries(lost).await;
    assert_eq!((world.exists(&online), world.looked_after(survivor)), (0, 30));
    assert!(died.elapsed() < FOUND_LOST, "{:?}", died.elapsed());
    idle.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_room_with_members_online_keeps_its_keys_and_its_row() {
    const TTL_MS: i64 = 4_800;
    let mut options = StateOptions::default();
    options.room.ttl_ms = TTL_MS;
    let world = World::with(options, Backend::Server(backends::Redis::start().unwrap()), 2, 10).await;
    let store = PostgresStore::open(&world.postgres.url()).await.unwrap();
    let created_ms = Clock::system().now_ms();
    let room = RoomRow { id: "room-q".into(), code: "QUIET234".into(), expires_at_ms: created_ms + TTL_MS, ..row(10) };
    store.create_room(room).await.unwrap();
    let one = &world.instances[0];
    let connection = one.connection();
    let socket_id = Some("socket".into());
    let admission = one.state.open(connection, "QUIET234").await.unwrap();
    admission.join(Joiner { socket_id, ..user("ann") }).await.unwrap();
    one.state.member(source(connection)).await.unwrap();
    let (cluster, _incoming) = world.member().await;
    assert!(cluster.has_members("room-q").await.unwrap() && !cluster.has_members("room-a").await.unwrap());
    let keys = ["room:room-q:playback", "room:room-q:participants", "room:room-q:online"];
    let own = ["syncwatch:room:room-q", "syncwatch:room:room-q:seats", "syncwatch:room:room-q:log"];
    let keys: Vec<_> = keys.into_iter().chain(own).collect();
    for key in &keys {
        assert_eq!(world.cli(&["EXPIRE", key, "60"]).trim(), "1", "{key}");
    }
    let left_ms = |key: &&str| world.cli(&["PTTL", key]).trim().parse::<i64>().unwrap();
    until("new time for the keys", || async { keys.iter().all(|key| left_ms(key) > 80_000_000) }).await;
    let row = || async { store.room_by_id("room-q").await.unwrap().unwrap() };
    until("new time for the row", || async { row().await.expires_at_ms > created_ms + 2 * TTL_MS }).await;
    // Longer than an empty room lives, and nothing has happened.
    one.state.member(play(connection)).await.unwrap();
    one.state.member(Command::Leave { connection }).await.unwrap();
    let left_at_ms = Clock::system().now_ms();
    until("the row of an empty room", || async { (row().await.expires_at_ms - left_at_ms - TTL_MS).abs() < 1_000 })
        .await;
    until("its end", || async { store.room_by_id("room-q").await.unwrap().is_none() }).await;
    assert!(Clock::system().now_ms() >= left_at_ms + TTL_MS - 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_cluster_serves_as_well() {
    let cluster = Backend::Cluster(backends::RedisCluster::start().unwrap());
    share_a_room(&World::on(cluster, 3, 10).await).await;
}

async fn share_a_room(world: &World) {
    let [one, two, three] = &world.instances[..] else { panic!("three") };
    let ann = one.join(user("ann")).await.unwrap();
    let bob = two.join(user("bob")).await.unwrap();
    assert_eq!(bob.state.participants.len(), 2);
    ann.hears(&format!("room:participant:joined {}", bob.oder_id())).await;
    ann.tell(source).await.unwrap();
    bob.hears("sync:state ").await;
    bob.tell(play).await.unwrap();
    ann.hears("sync:command 2").await;
    let zoe = three.join(guest("Zoë")).await.unwrap();
    assert_eq!(zoe.state.playback.as_ref().unwrap().sequence_number, 2);
    let kick = |connection| Command::Kick { connection, oder_id: bob.oder_id().into(), reason: Some("out".into()) };
    assert_eq!(zoe.tell(kick).await.unwrap_err().code, ErrorCode::Unauthorized);
    ann.tell(kick).await.unwrap();
    bob.hears("room:kicked out").await;
    zoe.hears(&format!("room:participant:left {} kicked", bob.oder_id())).await;
    until("bob is in no room", || async { bob.tell(play).await.is_err_and(|it| it.code == ErrorCode::NotInRoom) })
        .await;
    let patch = RoomPatch { name: Some("Cinema".into()), ..RoomPatch::default() };
    ann.tell(|connection| Command::Update { editor: Editor::Member(connection), patch }).await.unwrap();
    zoe.hears("room:updated ").await;
    assert_eq!(three.state.view(CODE).await.unwrap().0.row.name, "Cinema");
    world.agrees(2, 2).await;
    let playback: Json = serde_json::from_str(world.cli(&["GET", &world.key("playback")]).trim()).unwrap();
    assert_eq!((&playback["sequenceNumber"], &playback["isPlaying"]), (&Json::from(2), &Json::from(true)));
    for key in ["playback", "participants", "online"] {
        let ttl: i64 = world.cli(&["TTL", &world.key(key)]).trim().parse().unwrap();
        assert!((86_000..=86_400).contains(&ttl), "{key} {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_comes_back_on_another_instance() {
    let world = World::new(2, 10).await;
    let [one, two] = &world.instances[..] else { panic!("two") };
    let ann = one.join(user("ann")).await.unwrap();
    let zoe = one.join(guest("Zoë")).await.unwrap();
    let back = Joiner { resume_token: Some(zoe.state.own.resume_token.clone()), ..guest("Zoë") };
    // The new connection is there before the old one is found lost.
    let zoe_again = two.join(back).await.unwrap();
    assert_eq!(zoe_again.oder_id(), zoe.oder_id());
    zoe.hears("room:kicked replaced").await;
    zoe.lose().await;
    zoe_again.tell(|connection| Command::Resync { connection }).await.unwrap_err();
    world.agrees(2, 2).await;
    // And the other way round.
    zoe_again.lose().await;
    ann.hears(&format!("room:participant:updated {}", zoe.oder_id())).await;
    world.agrees(2, 1).await;
    let back = Joiner { resume_token: Some(zoe_again.state.own.resume_token.clone()), ..guest("Zoë") };
    let zoe = one.join(back).await.unwrap();
    assert_eq!(zoe.oder_id(), zoe_again.oder_id());
    world.agrees(2, 2).await;
    zoe.lose().await;
    ann.hears(&format!("room:participant:left {} timeout", zoe.oder_id())).await;
    world.agrees(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_from_all_instances_never_overfills_a_room() {
    let world = World::new(3, 50).await;
    let world = Arc::new(world);
    let mut rush = JoinSet::new();
    for number in 0..300 {
        let world = Arc::clone(&world);
        rush.spawn(async move {
            let instance = &world.instances[number % 3];
            instance.join(guest(&format!("guest {number}"))).await.map(|member| member.oder_id().to_owned())
        });
    }
    let joined = rush.join_all().await;
    let (seated, refused): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
    for refusal in refused {
        assert_eq!(refusal.unwrap_err().code, ErrorCode::RoomFull);
    }
    let seated: BTreeSet<_> = seated.into_iter().flatten().collect();
    assert_eq!(seated.len(), 50);
    assert_eq!(world.agrees(50, 50).await, seated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_from_all_instances_have_one_order() {
    let world = World::new(3, 50).await;
    let mut members = Vec::new();
    for number in 0..30 {
        members.push(world.instances[number % 3].join(user(&format!("user {number}"))).await.unwrap());
    }
    members[0].tell(source).await.unwrap();
    let steering = members.iter().map(|member| async move {
        for _ in 0..5 {
            member.tell(play).await.unwrap();
        }
    });
    futures_all(steering).await;
    let expected: Vec<_> = (2..=151).map(|number| format!("sync:command {number}")).collect();
    for member in &members {
        member.hears("sync:command 151").await;
        let heard: Vec<_> = member.heard().into_iter().filter(|heard| heard.starts_with("sync:command")).collect();
        assert_eq!(heard, expected);
    }
}

/// Does all of them at the same time.
async fn futures_all<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_has_one_seat_wherever_they_connect() {
    let world = Arc::new(World::new(3, 50).await);
    let mut rush = JoinSet::new();
    for number in 0..12 {
        let world = Arc::clone(&world);
        rush.spawn(async move {
            let joined = world.instances[number % 3].join(user("ann")).await;
            joined.map(|_| ()).map_err(|refusal| refusal.code)
        });
    }
    for joined in rush.join_all().await {
        assert_eq!(joined, Ok(()));
    }
    world.agrees(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_goes_leaves_the_seats_to_the_others() {
    let world = World::new(3, 10).await;
    let [one, two, three] = &world.instances[..] else { panic!("three") };
    let ann = one.join(user("ann")).await.unwrap();
    let zoe = two.join(guest("Zoë")).await.unwrap();
    two.state.shutdown().await;
    ann.hears(&format!("room:participant:updated {}", zoe.oder_id())).await;
    let back = Joiner { resume_token: Some(zoe.state.own.resume_token.clone()), ..guest("Zoë") };
    let zoe_again = three.join(back).await.unwrap();
    assert_eq!(zoe_again.oder_id(), zoe.oder_id());
    world.agrees(2, 2).await;
    assert!(two.seen.lost_seats().is_empty() || two.seen.lost_seats() == [zoe.connection]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_is_given_back_what_it_has_lost() {
    let mut world = World::new(2, 10).await;
    let (ann, bob) = {
        let [one, two] = &world.instances[..] else { panic!("two") };
        let ann = one.join(user("ann")).await.unwrap();
        let bob = two.join(user("bob")).await.unwrap();
        ann.tell(source).await.unwrap();
        ((ann.connection, ann.oder_id().to_owned()), (bob.connection, bob.oder_id().to_owned()))
    };
    world.redis().restart().unwrap();
    let [one, two] = &world.instances[..] else { panic!("two") };
    until("a command is carried out", || async { two.state.member(play(bob.0)).await.is_ok() }).await;
    until("everybody hears of it", || async {
        one.seen.heard(ann.0).iter().any(|heard| heard.starts_with("sync:command"))
    })
    .await;
    assert_eq!(world.agrees(2, 2).await, BTreeSet::from([ann.1, bob.1]));
    assert!(one.seen.lost_seats().is_empty() && two.seen.lost_seats().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_cannot_be_told_is_refused_and_facts_are_told_later() {
    let world = World::new(2, 10).await;
    let [one, two] = &world.instances[..] else { panic!("two") };
    let ann = one.join(user("ann")).await.unwrap();
    let bob = two.join(user("bob")).await.unwrap();
    ann.tell(source).await.unwrap();
    let Backend::Server(redis) = &world.redis else { panic!("one") };
    redis.pause().unwrap();
    let began = Instant::now();
    assert_eq!(ann.tell(play).await.unwrap_err().code, ErrorCode::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(2_500));
    let refused = one.join(guest("Zoë")).await.map(drop).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unavailable);
    bob.lose().await;
    redis.resume().unwrap();
    ann.hears(&format!("room:participant:updated {}", bob.oder_id())).await;
    ann.hears(&format!("room:participant:left {} timeout", bob.oder_id())).await;
    until("a command is carried out", || async { ann.tell(play).await.is_ok() }).await;
    world.agrees(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_deleted_on_one_instance_is_gone_on_all() {
    let world = World::new(2, 10).await;
    let [one, two] = &world.instances[..] else { panic!("two") };
    let _ann = one.join(user("ann")).await.unwrap();
    let bob = two.join(user("bob")).await.unwrap();
    one.state.outside(CODE, Command::Delete { user_id: "ann".into() }).await.unwrap();
    bob.hears("room:closed deleted").await;
    until("there is no room", || async {
        two.state.view(CODE).await.is_err_and(|refusal| refusal.code == ErrorCode::RoomNotFound)
    })
    .await;
    assert_eq!(world.cli(&["EXISTS", &world.key("participants"), &world.key("online")]).trim(), "0");
}
