//! What people see of rooms while instances are killed, Redis stands still and PostgreSQL starts anew, held against the
//! rules of membership and playback.
//!
//! `HISTORY_SEEDS=200 cargo test -p syncwatch-tests --test history` plays more than the ordinary 20.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use syncwatch_backends::{Postgres, Redis};
use syncwatch_tests::{Client, Server, create_room, user_token};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Histories in the ordinary run.
const SEEDS: u64 = 20;

/// Rooms that share one cluster and its faults.
const ROOMS: u64 = 10;

const PEOPLE: u64 = 6;

/// Fewer than there are people.
const SEATS: usize = 4;

/// How long people come and go.
const UNREST: Duration = Duration::from_secs(12);

/// Longer than it takes to find an instance lost, the grace after it, and a look at the rows.
const REST: Duration = Duration::from_secs(40);

/// Knuth's linear congruential generator: the same seed makes the same choices.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The addresses of the instances, as they are by now.
type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// What one connection has been told, in order.
type Stream = Vec<(String, Value)>;

/// Somebody who comes and goes, by one connection after the other.
struct Person {
    name: String,
    auth: Value,
    code: String,
    dice: Dice,
    addresses: Addresses,
    client: Option<Client>,
    /// The name and the token of the seat that was given last.
    seat: Option<(String, Value)>,
    streams: Vec<Stream>,
}

impl Person {
    fn new(number: u64, seed: u64, code: &str, addresses: &Addresses) -> Self {
        let name = if number == 0 { "owner".to_owned() } else { format!("person {number}") };
        let auth = if number < PEOPLE / 2 { json!({ "token": user_token(&name) }) } else { json!({}) };
        let dice = Dice(seed.wrapping_mul(1_000) + number);
        let (code, addresses) = (code.to_owned(), Arc::clone(addresses));
        Self { name, auth, code, dice, addresses, client: None, seat: None, streams: Vec::new() }
    }

    /// Lets go of the connection, if there is one, without a word.
    fn hang_up(&mut self) {
        if let Some(mut client) = self.client.take() {
            self.streams.push(client.drain());
        }
    }

    async fn ask(&mut self, event: &str, payload: Value) -> Option<Value> {
        let answer = match &mut self.client {
            Some(client) => client.try_ask(event, payload).await,
            None => None,
        };
        if answer.is_none() {
            self.hang_up();
        }
        answer
    }

    async fn join(&mut self) -> Option<Value> {
        if self.client.is_none() {
            let addresses = self.addresses.lock().unwrap().clone();
            let address = addresses[self.dice.below(addresses.len() as u64) as usize];
            self.client = Client::attempt(address, &self.auth).await;
        }
        let mut request = json!({ "roomCode": self.code, "guestName": self.name });
        if let Some((_, token)) = &self.seat {
            request["resumeToken"] = token.clone();
        }
        let joined = self.ask("room:join", request).await?;
        if joined["ok"] == true {
            let own = &joined["self"];
            self.seat = Some((own["oderId"].as_str().unwrap().to_owned(), own["resumeToken"].clone()));
        } else {
            let code = joined["error"]["code"].as_str().unwrap();
            assert!(["ROOM_FULL", "UNAVAILABLE", "ALREADY_IN_ROOM"].contains(&code), "{joined}");
        }
        Some(joined)
    }

    /// Does something or other.
    async fn act(&mut self) {
        match self.dice.below(12) {
            0 | 1 => self.hang_up(),
            2 => {
                if self.ask("room:leave", json!({})).await.is_some_and(|left| left["ok"] == true) {
                    self.seat = None;
                }
            }
            3 => drop(self.ask("sync:source", json!({ "sourceType": "youtube", "sourceId": "x" })).await),
            4..=6 => drop(self.ask("sync:play", json!({})).await),
            7 if self.name == "owner" => {
                let seen = self.client.as_mut().map(Client::peek).unwrap_or_default();
                if let Some(target) =
                    present(&seen).into_iter().find(|one| Some(one) != self.seat.as_ref().map(|seat| &seat.0))
                {
                    drop(self.ask("room:kick", json!({ "oderId": target })).await);
                }
            }
            8 => drop(self.ask("room:update", json!({ "playbackControl": "all" })).await),
            _ => drop(self.join().await),
        }
        let pause = Duration::from_millis(self.dice.below(150));
        let is_open = match &mut self.client {
            Some(client) => client.listen(pause).await,
            None => {
                sleep(pause).await;
                true
            }
        };
        if !is_open {
            self.hang_up();
        }
    }

    async fn live(mut self) -> Self {
        let end = Instant::now() + UNREST;
        while Instant::now() < end {
            self.act().await;
        }
        self
    }

    /// Takes a seat for good, or leaves for good; returns the name of the seat.
    async fn settle(&mut self, stays: bool) -> Option<String> {
        if !stays {
            self.hang_up();
            return None;
        }
        let end = Instant::now() + REST;
        loop {
            if let Some(joined) = self.join().await {
                match joined["error"]["code"].as_str() {
                    None | Some("ALREADY_IN_ROOM") => return self.seat.as_ref().map(|(name, _)| name.clone()),
                    Some(_) => {}
                }
            }
            assert!(Instant::now() < end, "{} gets no seat, although most are free", self.name);
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Who is in the room by what a connection was told since its last `room:state`.
fn present(stream: &[(String, Value)]) -> BTreeSet<String> {
    let mut present = BTreeSet::new();
    let name = |value: &Value| value.as_str().unwrap().to_owned();
    for (event, payload) in stream {
        match event.as_str() {
            "room:state" => {
                let participants = payload["participants"].as_array().unwrap();
                present = participants.iter().map(|one| name(&one["oderId"])).collect();
            }
            "room:participant:joined" => {
                let joined = name(&payload["participant"]["oderId"]);
                assert!(present.insert(joined), "joined twice: {payload}");
                assert!(present.len() <= SEATS, "{} in {SEATS} seats", present.len());
            }
            "room:participant:left" => {
                assert!(present.remove(payload["oderId"].as_str().unwrap()), "left without being there: {payload}");
            }
            "room:participant:updated" => {
                assert!(present.contains(payload["participant"]["oderId"].as_str().unwrap()), "not there: {payload}");
            }
            _ => {}
        }
    }
    present
}

/// Holds all that was told in one room against the rules. Returns how many commands there were, and how many left.
fn check(streams: &[Stream]) -> (usize, usize) {
    let mut commands = BTreeMap::new();
    let mut left = BTreeMap::new();
    for stream in streams {
        present(stream);
        let mut last = 0;
        let mut gone = BTreeSet::new();
        for (event, payload) in stream {
            match event.as_str() {
                "room:state" => {
                    assert!(payload["participants"].as_array().unwrap().len() <= SEATS, "too many: {payload}");
                    last = payload["playback"]["sequenceNumber"].as_u64().unwrap_or(last);
                }
                "sync:command" => {
                    let number = payload["command"]["sequenceNumber"].as_u64().unwrap();
                    assert!(number > last, "{number} after {last}");
                    last = number;
                    let known = commands.entry(number).or_insert_with(|| payload["state"].clone());
                    assert_eq!(known, &payload["state"], "two commands have the number {number}");
                }
                "sync:state" => {
                    let number = payload["state"]["sequenceNumber"].as_u64().unwrap();
                    assert!(number >= last, "{number} after {last}");
                    last = number;
                    let known = commands.entry(number).or_insert_with(|| payload["state"].clone());
                    assert_eq!(known, &payload["state"], "two commands have the number {number}");
                }
                "room:participant:left" => {
                    let name = payload["oderId"].as_str().unwrap();
                    assert!(gone.insert(name), "{name} left twice");
                    let reason = left.entry(name).or_insert(&payload["reason"]);
                    assert_eq!(*reason, &payload["reason"], "{name} left in two ways");
                }
                "room:participant:joined" => {
                    let name = payload["participant"]["oderId"].as_str().unwrap();
                    assert!(!gone.contains(name), "{name} is back under a name that has left");
                }
                _ => {}
            }
        }
    }
    (commands.len(), left.len())
}

/// Instances, their backends, and what happens to them.
struct World {
    servers: Vec<Server>,
    redis: Redis,
    postgres: Postgres,
    addresses: Addresses,
}

impl World {
    async fn new() -> Self {
        let (redis, postgres) = (Redis::start().unwrap(), Postgres::start().unwrap());
        let (redis_url, database_url) = (redis.url(), postgres.url());
        let env = [
            ("DATABASE_URL", database_url.as_str()),
            ("REDIS_URL", redis_url.as_str()),
            ("GUEST_ROOMS", "true"),
            ("RECONNECT_GRACE_MS", "2000"),
            ("WS_PING_INTERVAL", "120000"),
        ];
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Server::with(&env).await);
        }
        let addresses = Arc::new(Mutex::new(servers.iter().map(Server::addr).collect()));
        Self { servers, redis, postgres, addresses }
    }

    /// Lets things happen for a while; everything works again afterwards.
    async fn rage(&mut self, seed: u64) {
        let mut dice = Dice(seed);
        let end = Instant::now() + UNREST;
        while Instant::now() < end {
            sleep(Duration::from_millis(300 + dice.below(1_500))).await;
            match dice.below(4) {
                0 | 1 => {
                    let victim = dice.below(3) as usize;
                    self.servers[victim].kill_hard().await;
                    sleep(Duration::from_millis(dice.below(500))).await;
                    self.servers[victim].restart().await;
                    self.addresses.lock().unwrap()[victim] = self.servers[victim].addr();
                }
                2 => {
                    self.redis.pause().unwrap();
                    sleep(Duration::from_millis(dice.below(2_500))).await;
                    self.redis.resume().unwrap();
                }
                _ => self.postgres.restart().unwrap(),
            }
        }
    }

    /// The names in the room as Redis shows them, how many are online, and the names in its rows.
    fn shown(&self, room_id: &str) -> (BTreeSet<String>, usize, BTreeSet<String>) {
        let text = self.redis.cli(&["GET", &format!("room:{room_id}:participants")]).unwrap();
        let participants: Vec<Value> = serde_json::from_str(text.trim()).unwrap_or_default();
        let names = participants.iter().map(|one| one["oderId"].as_str().unwrap().to_owned()).collect();
        let online = self.redis.cli(&["SCARD", &format!("room:{room_id}:online")]).unwrap().trim().parse().unwrap();
        let sql = format!("SELECT oder_id FROM participants WHERE room_id = '{room_id}'");
        let rows = self.postgres.query(&sql).unwrap().lines().map(str::to_owned).collect();
        (names, online, rows)
    }
}

async fn play(seeds: std::ops::Range<u64>) {
    let mut world = World::new().await;
    let mut rooms = Vec::new();
    for seed in seeds.clone() {
        let room =
            create_room(&world.servers[0], "owner", json!({ "maxParticipants": SEATS, "playbackControl": "all" }))
                .await;
        let text = |name: &str| room[name].as_str().unwrap().to_owned();
        rooms.push((seed, text("id"), text("code")));
    }
    let mut living = JoinSet::new();
    for (seed, room_id, code) in &rooms {
        for number in 0..PEOPLE {
            let person = Person::new(number, *seed, code, &world.addresses);
            let room_id = room_id.clone();
            living.spawn(async move { (room_id, person.live().await) });
        }
    }
    world.rage(seeds.start).await;
    let mut people: BTreeMap<String, Vec<Person>> = BTreeMap::new();
    while let Some(lived) = living.join_next().await {
        let (room_id, person) = lived.unwrap();
        people.entry(room_id).or_default().push(person);
    }
    let mut settled = Vec::new();
    for (room_id, mut persons) in people {
        let mut names = BTreeSet::new();
        persons.sort_by(|a, b| a.name.cmp(&b.name));
        for (number, person) in persons.iter_mut().enumerate().rev() {
            names.extend(person.settle(number < 2).await);
        }
        settled.push((room_id, persons, names));
    }
    let end = Instant::now() + REST;
    for (room_id, mut persons, names) in settled {
        loop {
            let (shown, online, rows) = world.shown(&room_id);
            if shown == names && rows == names && online == names.len() {
                break;
            }
            assert!(
                Instant::now() < end,
                "seeds {seeds:?}: at rest {names:?} sit in {room_id}; {shown:?} are shown, {online} are online, {rows:?} are rows"
            );
            // They answer heartbeats meanwhile, and hear what happens.
            for person in &mut persons {
                if let Some(client) = &mut person.client {
                    assert!(client.listen(Duration::from_millis(50)).await, "a connection that stays is closed");
                }
            }
        }
        let mut streams = Vec::new();
        for person in &mut persons {
            if let Some(client) = &mut person.client {
                client.listen(Duration::from_millis(100)).await;
                let stream = client.drain();
                assert_eq!(present(&stream), names, "what {} was told", person.name);
                streams.push(stream);
            }
            streams.append(&mut person.streams);
        }
        let (commands, left) = check(&streams);
        assert!(commands >= 10 && left >= 3, "nothing much has happened: {commands} commands, {left} left");
    }
    for server in &world.servers {
        assert_eq!(server.log_lines_above_warn(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_see_keeps_to_the_rules_whatever_fails() {
    let seeds = std::env::var("HISTORY_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for first in (0..seeds).step_by(ROOMS as usize) {
        play(first..seeds.min(first + ROOMS)).await;
    }
}
