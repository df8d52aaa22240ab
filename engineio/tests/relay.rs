//! Several instances in one process, and clients whose requests reach the wrong ones.
#![allow(clippy::unwrap_used)] // helpers of tests

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineio::server::{Mailroom, Relay, Undelivered};
use engineio::{CloseReason, Config, Frame, Instance, Message, Transport};
use support::*;
use tokio::sync::mpsc;

/// Kinds of letters, in their second byte.
const POLL: u8 = 1;
const POST: u8 = 2;
const DROPPED_POST: u8 = 3;
const UPGRADE: u8 = 5;
const CANCEL: u8 = 6;
const ACK: u8 = 7;
const ANSWER: u8 = 8;
const TO_SESSION: u8 = 9;
const TO_CLIENT: u8 = 10;

/// What letters travel over, and what goes wrong there.
#[derive(Default)]
struct Network {
    boxes: Mutex<HashMap<Instance, mpsc::UnboundedSender<Bytes>>>,
    mailrooms: Mutex<HashMap<Instance, Mailroom>>,
    /// The kinds of all letters.
    sent: Mutex<Vec<u8>>,
    /// A kind of which the next letter is lost; zero for none.
    lose: AtomicU8,
    down: AtomicBool,
    /// Bytes on their way, and the most that ever were.
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Network {
    fn count(&self, kind: u8) -> usize {
        self.sent.lock().unwrap().iter().filter(|&&sent| sent == kind).count()
    }

    /// Waits until so many letters of a kind have been sent.
    async fn sees(&self, kind: u8, count: usize) {
        until(|| self.count(kind) >= count).await;
    }

    /// Nothing from or to this instance arrives any more.
    fn cut_off(&self, host: &Node) {
        self.boxes.lock().unwrap().remove(&host.name);
        self.mailrooms.lock().unwrap().remove(&host.name);
    }
}

struct Post {
    name: Instance,
    network: Arc<Network>,
}

impl Relay for Post {
    fn instance(&self) -> Instance {
        self.name
    }

    fn open(&self, mailroom: Mailroom) {
        let (sender, mut letters) = mpsc::unbounded_channel::<Bytes>();
        self.network.boxes.lock().unwrap().insert(self.name, sender);
        self.network.mailrooms.lock().unwrap().insert(self.name, mailroom.clone());
        let network = Arc::clone(&self.network);
        tokio::spawn(async move {
            while let Some(letter) = letters.recv().await {
                network.in_flight.fetch_sub(letter.len(), SeqCst);
                mailroom.deliver(letter);
            }
        });
    }

    fn send(&self, to: Instance, letter: Bytes) -> Result<(), Undelivered> {
        let network = &self.network;
        if network.down.load(SeqCst) {
            return Err(Undelivered);
        }
        network.sent.lock().unwrap().push(letter[1]);
        let boxes = network.boxes.lock().unwrap();
        let lost = network.lose.compare_exchange(letter[1], 0, SeqCst, SeqCst).is_ok();
        if let (true, false, Some(there)) = (boxes.contains_key(&self.name), lost, boxes.get(&to)) {
            let in_flight = network.in_flight.fetch_add(letter.len(), SeqCst) + letter.len();
            network.most_in_flight.fetch_max(in_flight, SeqCst);
            let _over = there.send(letter);
        }
        Ok(())
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.network.boxes.lock().unwrap().remove(&self.name);
        Box::pin(std::future::ready(()))
    }
}

/// One instance.
struct Node {
    host: Host,
    name: Instance,
    network: Arc<Network>,
}

impl std::ops::Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl std::ops::DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl Node {
    async fn start(network: &Arc<Network>, number: u8, change: impl Fn(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let name = Instance::from_random([number; 6]);
        let relay = Arc::new(Post { name, network: Arc::clone(network) });
        Self { host: Host::relayed(config, relay).await, name, network: Arc::clone(network) }
    }

    /// Two: where sessions will be, and where requests arrive.
    async fn pair() -> (Self, Self) {
        Self::pair_with(|_| {}).await
    }

    async fn pair_with(change: impl Fn(&mut Config)) -> (Self, Self) {
        let network = Arc::default();
        (Self::start(&network, 1, &change).await, Self::start(&network, 2, &change).await)
    }

    /// A pair that soon notices that an instance is silent.
    async fn attentive_pair() -> (Self, Self) {
        Self::pair_with(|config| config.relay.silence_timeout = Duration::from_secs(1)).await
    }

    /// A poll through this instance that waits at its session.
    async fn foreign_poll(&self, client: &Polling) -> Http {
        let (before, open) = (self.network.count(ACK), client.at(self));
        let poll = open.start_poll().await;
        self.network.sees(ACK, before + 1).await;
        poll
    }

    fn lines(&self) -> usize {
        self.server.stats().lines()
    }
}

const UNKNOWN: (u16, &str) = (400, r#"{"code":1,"message":"Session ID unknown"}"#);

// ---- polling ----

#[tokio::test]
async fn a_session_id_names_its_instance() {
    let (owner, _) = Node::pair().await;
    let client = Polling::open(&owner).await;
    assert_eq!(client.sid.len(), 28);
    assert_eq!(client.sid[20..], *owner.name.as_str());
}

#[tokio::test]
async fn polls_and_posts_through_another_instance_are_answered() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await.at(&front);
    assert_eq!(client.post("4one\x1e4two").await.says(), (200, "ok"));
    assert_eq!(owner.message().await, Message::Text("one".into()));
    let polled = client.poll().await;
    assert_eq!(polled.says(), (200, "4one\x1e4two"));
    assert_eq!(polled.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(front.server.stats().relayed(), 2);
    assert_eq!(owner.server.stats().relayed(), 0);
}

#[tokio::test]
async fn a_poll_waits_at_its_session_for_as_long_as_it_takes() {
    let (mut owner, front) = Node::pair_with(|config| config.relay.ack_timeout = Duration::from_millis(300)).await;
    let client = Polling::open(&owner).await;
    let socket = owner.opened().await;
    let mut poll = front.foreign_poll(&client).await;
    // Longer than the ack may take.
    tokio::time::sleep(Duration::from_millis(400)).await;
    socket.send(Frame::message(&Message::Text("late".into()))).unwrap();
    assert_eq!(poll.response().await.says(), (200, "4late"));
}

#[tokio::test]
async fn requests_may_take_turns_between_instances() {
    let network = Arc::default();
    let owner = Node::start(&network, 1, |_| {}).await;
    let others = [Node::start(&network, 2, |_| {}).await, Node::start(&network, 3, |_| {}).await];
    let client = Polling::open(&owner).await;
    let ways = [client.clone(), client.at(&others[0]), client.at(&others[1])];
    let mut echoed = Vec::new();
    for number in 0..60 {
        assert_eq!(ways[number % 3].post(format!("4{number}")).await.says(), (200, "ok"));
        let polled = ways[(number + 1) % 3].poll().await;
        assert_eq!(polled.status, 200);
        echoed.extend(polled.text().split('\x1e').map(|packet| packet[1..].parse::<usize>().unwrap()));
    }
    assert_eq!(echoed, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn overlapping_polls_close_the_session_whichever_way_they_come() {
    for (first_here, second_here) in [(false, false), (true, false), (false, true)] {
        let (mut owner, front) = Node::pair().await;
        let client = Polling::open(&owner).await;
        let mut first = if first_here { owner.waiting_poll(&client).await } else { front.foreign_poll(&client).await };
        let second = if second_here { client.clone() } else { client.at(&front) };
        assert_eq!(second.poll().await.says(), (400, ""));
        assert_eq!(first.response().await.says(), (200, "1"));
        assert_eq!(owner.closed().await, CloseReason::TransportError);
        assert_eq!(second.poll().await.says(), UNKNOWN);
    }
}

#[tokio::test]
async fn overlapping_posts_close_the_session_whichever_way_they_come() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let first = client.start_post(10).await;
    until(|| owner.control.turns.load(SeqCst) > 0).await;
    let _turns = owner.settled().await;
    assert_eq!(client.at(&front).post("4late").await.says(), (400, ""));
    assert_eq!(first.end().await, b"");
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_poll_that_its_client_gives_up_closes_the_session() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    drop(front.foreign_poll(&client).await);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
    assert_eq!(owner.network.count(CANCEL), 1);
    assert_eq!(client.poll().await.says(), UNKNOWN);
}

#[tokio::test]
async fn a_post_that_its_client_gives_up_closes_the_session() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut post = client.at(&front).start_post(10).await;
    post.write("4half").await;
    drop(post);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
    assert_eq!((owner.network.count(POST), owner.network.count(DROPPED_POST)), (0, 1));
}

#[tokio::test]
async fn a_post_that_takes_too_long_closes_the_session() {
    let (mut owner, front) = Node::pair_with(|config| config.body_timeout = Duration::from_millis(100)).await;
    let client = Polling::open(&owner).await;
    let mut post = client.at(&front).start_post(10).await;
    assert_eq!(post.response().await.status, 408);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_body_in_pieces_arrives_whole() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut post = client.at(&front).start_post(9).await;
    post.write("4hel").await;
    let _turns = owner.settled().await;
    post.write("lo\x1e4x").await;
    assert_eq!(post.response().await.says(), (200, "ok"));
    assert_eq!(owner.message().await, Message::Text("hello".into()));
    assert_eq!(owner.message().await, Message::Text("x".into()));
}

#[tokio::test]
async fn a_body_that_is_too_large_leaves_the_session_alone() {
    let (mut owner, front) = Node::pair_with(|config| config.max_payload_bytes = 100).await;
    let client = Polling::open(&owner).await.at(&front);
    assert_eq!(client.post("4".repeat(101)).await.says(), (413, ""));
    assert_eq!(client.post("4".repeat(10_000)).await.says(), (413, ""));
    assert_eq!(client.post(format!("4{}", "x".repeat(99))).await.says(), (200, "ok"));
    assert_eq!(owner.message().await, Message::Text("x".repeat(99).into()));
}

#[tokio::test]
async fn a_binary_body_closes_the_session() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await.at(&front);
    let mut http = Http::connect(front.addr).await;
    http.request("POST", &client.target(), &[("Content-Type", "application/octet-stream")], b"4x").await;
    assert_eq!(http.response().await.says(), (400, ""));
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_body_that_is_no_payload_closes_the_session() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    assert_eq!(client.at(&front).post(b"\xff\xfe").await.says(), (200, "ok"));
    assert_eq!(poll.response().await.says(), (200, "1"));
    assert_eq!(owner.closed().await, CloseReason::ParseError);
}

#[tokio::test]
async fn a_method_without_use_leaves_the_session_alone() {
    let (owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await.at(&front);
    assert_eq!(request(front.addr, "PUT", &client.target(), &[]).await.says(), (500, ""));
    assert_eq!(client.post("4x").await.says(), (200, "ok"));
}

#[tokio::test]
async fn a_goodbye_through_another_instance_is_one() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    assert_eq!(client.at(&front).post("1").await.says(), (200, "ok"));
    assert_eq!(poll.response().await.says(), (200, "6"));
    assert_eq!(owner.closed().await, CloseReason::ClosedByClient);
}

#[tokio::test]
async fn a_session_that_its_instance_does_not_know_is_unknown_at_once() {
    let (owner, front) = Node::pair_with(|config| config.relay.ack_timeout = Duration::from_secs(60)).await;
    let client = Polling { addr: front.addr, sid: format!("AAAAAAAAAAAAAAAAAAAA{}", owner.name) };
    assert_eq!(client.poll().await.says(), UNKNOWN);
    assert_eq!(client.post("4x").await.says(), UNKNOWN);
    assert_eq!(request(front.addr, "PUT", &client.target(), &[]).await.says(), UNKNOWN);
    let upgrade = request(front.addr, "GET", &client.websocket_target(), &support::UPGRADE).await;
    assert_eq!(upgrade.says(), (400, "Session ID unknown"));
    assert_eq!((owner.lines(), front.lines()), (0, 0));
}

#[tokio::test]
async fn an_instance_that_nobody_has_is_waited_for_no_longer_than_the_deadline() {
    let (_owner, front) = Node::pair_with(|config| config.relay.ack_timeout = Duration::from_millis(200)).await;
    let client = Polling { addr: front.addr, sid: "A".repeat(28) };
    let began = Instant::now();
    assert_eq!(client.poll().await.says(), UNKNOWN);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(client.post("4x").await.says(), UNKNOWN);
    let upgrade = request(front.addr, "GET", &client.websocket_target(), &support::UPGRADE).await;
    assert_eq!(upgrade.says(), (400, "Session ID unknown"));
    assert_eq!(front.lines(), 0);
}

#[tokio::test]
async fn what_cannot_be_a_session_causes_no_letters() {
    let (_owner, front) = Node::pair().await;
    for sid in ["__proto__", "constructor", "AAAAAAAAAAAAAAAAAAAA", &"A".repeat(27), &"A".repeat(29), &"=".repeat(28)] {
        let client = Polling { addr: front.addr, sid: sid.to_owned() };
        assert_eq!(client.poll().await.says(), UNKNOWN, "{sid}");
        assert_eq!(client.post("4x").await.says(), UNKNOWN, "{sid}");
    }
    assert!(front.network.sent.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_lost_letter_ends_the_request_and_the_session() {
    for kind in [POLL, ACK] {
        let (mut owner, front) = Node::pair_with(|config| config.relay.ack_timeout = Duration::from_millis(300)).await;
        let client = Polling::open(&owner).await.at(&front);
        owner.network.lose.store(kind, SeqCst);
        assert_eq!(client.poll().await.says(), UNKNOWN);
        if kind == ACK {
            assert_eq!(owner.closed().await, CloseReason::TransportError);
        }
    }
}

#[tokio::test]
async fn a_poll_ends_when_its_instance_falls_silent() {
    let (owner, front) = Node::attentive_pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    owner.network.cut_off(&owner);
    assert_eq!(poll.response().await.says(), UNKNOWN);
}

#[tokio::test]
async fn a_session_ends_when_the_instance_that_polls_for_it_falls_silent() {
    let (mut owner, front) = Node::attentive_pair().await;
    let client = Polling::open(&owner).await;
    let _poll = front.foreign_poll(&client).await;
    front.network.cut_off(&front);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_relay_that_has_lost_letters_ends_what_is_under_way() {
    let (mut owner, front) = Node::pair_with(|config| config.relay.silence_timeout = Duration::from_secs(3600)).await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    let mailroom = front.network.mailrooms.lock().unwrap()[&front.name].clone();
    mailroom.lost();
    assert_eq!(poll.response().await.says(), UNKNOWN);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn an_instance_learns_that_another_one_has_lost_letters() {
    let (mut owner, front) = Node::attentive_pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    let mailroom = owner.network.mailrooms.lock().unwrap()[&owner.name].clone();
    // It has no way to say so.
    owner.network.down.store(true, SeqCst);
    mailroom.lost();
    owner.network.down.store(false, SeqCst);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
    // The owner gives signs of life; what they say ends the request.
    assert_eq!(poll.response().await.says(), UNKNOWN);
}

#[tokio::test]
async fn an_instance_that_is_known_to_be_gone_is_not_waited_for() {
    let (owner, front) = Node::pair_with(|config| config.relay.silence_timeout = Duration::from_secs(3600)).await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    owner.network.cut_off(&owner);
    let mailroom = front.network.mailrooms.lock().unwrap()[&front.name].clone();
    mailroom.gone(owner.name);
    assert_eq!(poll.response().await.says(), UNKNOWN);
}

#[tokio::test]
async fn a_relay_that_is_down_costs_sessions_that_are_here_nothing() {
    let (owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    front.network.down.store(true, SeqCst);
    for _ in 0..2 {
        assert_eq!(client.at(&front).poll().await.says(), (503, ""));
        assert_eq!(client.at(&front).post("4x").await.says(), (503, ""));
        let upgrade = request(front.addr, "GET", &client.websocket_target(), &support::UPGRADE).await;
        assert_eq!(upgrade.says(), (503, ""));
    }
    assert_eq!(front.server.stats().overloads(), 6);
    assert_eq!(client.post("4here").await.says(), (200, "ok"));
    assert_eq!(client.poll().await.says(), (200, "4here"));
    front.network.down.store(false, SeqCst);
    assert_eq!(client.at(&front).post("4there").await.says(), (200, "ok"));
    assert_eq!(client.at(&front).poll().await.says(), (200, "4there"));
}

#[tokio::test]
async fn a_poll_at_an_instance_that_stops_gets_its_answer() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    owner.server.close().await;
    assert_eq!(poll.response().await.says(), (200, "1"));
    assert_eq!(owner.closed().await, CloseReason::ForcedClose);
    assert!(!front.network.boxes.lock().unwrap().contains_key(&owner.name));
}

#[tokio::test]
async fn an_instance_that_stops_ends_the_polls_that_it_has_passed_on() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    front.server.close().await;
    assert_eq!(poll.response().await.says(), UNKNOWN);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn no_more_requests_are_passed_on_than_allowed() {
    let (mut owner, front) = Node::pair_with(|config| config.relay.max_requests = 2).await;
    let clients = [Polling::open(&owner).await, Polling::open(&owner).await, Polling::open(&owner).await];
    let first = front.foreign_poll(&clients[0]).await;
    let _second = front.foreign_poll(&clients[1]).await;
    assert_eq!(clients[2].at(&front).poll().await.says(), (503, ""));
    drop(first);
    assert_eq!(owner.closed().await, CloseReason::TransportError);
    assert_eq!(clients[2].at(&front).post("4x").await.says(), (200, "ok"));
}

#[tokio::test]
async fn no_more_bytes_are_held_than_allowed() {
    let (owner, front) = Node::pair_with(|config| config.relay.max_bytes = 1000).await;
    let (one, two) = (Polling::open(&owner).await, Polling::open(&owner).await);
    let mut first = one.at(&front).start_post(900).await;
    first.write("4".to_owned() + &"x".repeat(700)).await;
    // The rest is on its way while the second one is refused.
    until(|| front.server.stats().relayed() == 1).await;
    let mut refused = two.at(&front).post("4".repeat(400)).await;
    while refused.status != 503 {
        // The first one had not been read yet.
        refused = Polling::open(&owner).await.at(&front).post("4".repeat(400)).await;
    }
    first.write("x".repeat(199)).await;
    assert_eq!(first.response().await.says(), (200, "ok"));
    assert_eq!(one.at(&front).post("4".repeat(900)).await.says(), (200, "ok"));
}

#[tokio::test]
async fn letters_that_make_no_sense_do_no_harm() {
    let (owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let mut poll = front.foreign_poll(&client).await;
    let mailroom = owner.network.mailrooms.lock().unwrap()[&owner.name].clone();
    let head = |kind: u8, from: &str| [&[1, kind], from.as_bytes(), &[0; 12]].concat();
    for letter in [
        vec![],
        b"garbage".to_vec(),
        vec![0xff; 100],
        head(99, "AAAAAAAA"),
        head(ACK, "AAAAAAAA"),
        head(CANCEL, "AAAAAAAA"),
        [head(ANSWER, "AAAAAAAA"), vec![2]].concat(),
        [head(POLL, "AAAAAAAA"), b"A".repeat(28)].concat(),
        [head(POLL, "not one!"), b"A".repeat(28)].concat(),
        [head(UPGRADE, "AAAAAAAA"), b"A".repeat(28)].concat(),
        [head(TO_SESSION, "AAAAAAAA"), vec![0; 9]].concat(),
        [head(TO_CLIENT, "AAAAAAAA"), vec![0; 8], vec![1, 2, 3]].concat(),
        // In our own name.
        [head(POLL, owner.name.as_str()), client.sid.as_bytes().to_vec()].concat(),
        [head(CANCEL, owner.name.as_str())].concat(),
    ] {
        mailroom.deliver(letter.into());
    }
    assert_eq!(client.at(&front).post("4still here").await.says(), (200, "ok"));
    assert_eq!(poll.response().await.says(), (200, "4still here"));
}

// ---- the upgrade ----

/// A client whose WebSocket goes through another instance, and has become its transport.
async fn upgraded(owner: &Node, front: &Node) -> (Polling, Ws) {
    let client = Polling::open(owner).await;
    let mut ws = Ws::probe(&client.at(front)).await;
    let poll = client.at(front).poll().await;
    assert_eq!(poll.says(), (200, "6"));
    ws.send("5").await;
    until(|| owner.server.stats().sessions(Transport::WebSocket) == 1).await;
    (client, ws)
}

#[tokio::test]
async fn a_websocket_through_another_instance_becomes_the_transport() {
    let (mut owner, front) = Node::pair().await;
    let (client, mut ws) = upgraded(&owner, &front).await;
    assert_eq!((owner.lines(), front.lines()), (1, 1));
    for number in 0..100 {
        ws.send(&format!("4{number}")).await;
    }
    for number in 0..100 {
        assert_eq!(ws.text().await, format!("4{number}"));
    }
    ws.frame(FIN | BINARY, &[0, 1, 255]).await;
    assert_eq!(ws.read().await.unwrap(), (FIN | BINARY, vec![0, 1, 255]));
    assert_eq!(client.at(&front).poll().await.says(), (400, r#"{"code":3,"message":"Bad request"}"#));
    ws.frame(FIN | CLOSE, &[]).await;
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(owner.closed().await, CloseReason::ClosedByClient);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
}

#[tokio::test]
async fn what_clients_send_is_taken_through_another_instance_too() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let encoded = client.sid.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let client = Polling { sid: encoded, ..client.at(&front) };
    assert_eq!(client.post("bAQID\n").await.says(), (200, "ok"));
    assert_eq!(owner.message().await, Message::Binary(vec![1, 2, 3].into()));
    let headers = [&support::UPGRADE[..], &[("Sec-WebSocket-Protocol", "arduino")]].concat();
    let response = request(front.addr, "GET", &client.websocket_target(), &headers).await;
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, Some("arduino")));
}

#[tokio::test]
async fn messages_during_an_upgrade_arrive_once_and_in_order() {
    let (mut owner, front) = Node::pair().await;
    let client = Polling::open(&owner).await;
    let socket = owner.opened().await;
    let say = |number: usize| socket.send(Frame::message(&Message::Text(format!("s{number}").into()))).unwrap();
    let mut heard = Vec::new();
    let hear = |heard: &mut Vec<String>, payload: &str| {
        heard.extend(payload.split('\x1e').filter(|packet| *packet != "6").map(|packet| packet[1..].to_owned()));
    };
    owner.control.silent.store(true, SeqCst);
    let mut poll = front.foreign_poll(&client).await;
    say(0);
    hear(&mut heard, poll.response().await.text());
    let mut ws = Ws::connect(front.addr, &client.websocket_target()).await;
    say(1);
    assert_eq!(client.at(&front).post("4c0").await.says(), (200, "ok"));
    ws.send("2probe").await;
    assert_eq!(ws.text().await, "3probe");
    say(2);
    assert_eq!(client.post("4c1").await.says(), (200, "ok"));
    hear(&mut heard, client.at(&front).poll().await.text());
    say(3);
    ws.send("5").await;
    say(4);
    ws.send("4c2").await;
    for _ in heard.len()..5 {
        heard.push(ws.text().await[1..].to_owned());
    }
    assert_eq!(heard, ["s0", "s1", "s2", "s3", "s4"]);
    for number in 0..3 {
        assert_eq!(owner.message().await, Message::Text(format!("c{number}").into()));
    }
}

#[tokio::test]
async fn large_messages_pass_in_both_directions() {
    let (mut owner, front) = Node::pair().await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    let text = format!("4{}", "é".repeat(499_000));
    for _ in 0..3 {
        ws.send(&text).await;
        assert_eq!(ws.text().await, text);
        assert_eq!(owner.message().await.len(), text.len() - 1);
    }
    // What is under way at a time is bounded: a window, and what its parts have beside the data.
    let most = front.network.most_in_flight.load(SeqCst);
    assert!(most <= 2 * 64 * 1024 + 4096, "{most}");
}

#[tokio::test]
async fn pings_and_pongs_pass() {
    let (mut owner, front) = Node::pair_with(|config| {
        config.ping_interval = Duration::from_millis(300);
        config.ping_timeout = Duration::from_millis(300);
    })
    .await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    for _ in 0..3 {
        assert_eq!(ws.text().await, "2");
        ws.send("3").await;
    }
    ws.frame(FIN | PING, b"hi").await;
    assert_eq!(ws.read().await.unwrap(), (FIN | PONG, b"hi".to_vec()));
    // And a client that is silent is closed.
    assert_eq!(ws.text().await, "2");
    assert_eq!(owner.closed().await, CloseReason::PingTimeout);
    assert_eq!(ws.close_frame().await, b"");
}

#[tokio::test]
async fn a_connection_that_is_lost_at_another_instance_is_lost() {
    let (mut owner, front) = Node::pair().await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    ws.send("4last").await;
    drop(ws);
    assert_eq!(owner.message().await, Message::Text("last".into()));
    assert_eq!(owner.closed().await, CloseReason::ConnectionLost);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_before_it() {
    let (mut owner, front) = Node::pair().await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    let socket = owner.opened().await;
    let text = "x".repeat(200_000);
    for _ in 0..5 {
        socket.send(Frame::message(&Message::Text((&*text).into()))).unwrap();
    }
    socket.close();
    for _ in 0..5 {
        assert_eq!(ws.text().await.len(), 200_001);
    }
    assert_eq!(ws.close_frame().await, b"");
    assert_eq!(owner.closed().await, CloseReason::ForcedClose);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
}

#[tokio::test]
async fn a_frame_that_breaks_the_rules_gets_its_close_code() {
    let (mut owner, front) = Node::pair_with(|config| config.max_payload_bytes = 1000).await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    ws.send(&"4".repeat(1001)).await;
    assert_eq!(ws.close_frame().await, 1009_u16.to_be_bytes());
    assert_eq!(owner.closed().await, CloseReason::TransportError);
}

#[tokio::test]
async fn a_candidate_that_is_given_up_leaves_the_session_polling() {
    let (owner, front) = Node::pair_with(|config| config.upgrade_timeout = Duration::from_millis(300)).await;
    let client = Polling::open(&owner).await.at(&front);
    let left = Ws::probe(&client).await;
    drop(left);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
    // One that says nothing is dropped in time.
    let silent = Ws::connect(front.addr, &client.websocket_target()).await;
    assert_eq!(silent.close_frame().await, b"");
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
    assert_eq!(client.post("4x").await.says(), (200, "ok"));
    let polled = client.poll().await;
    assert!(polled.text().ends_with("4x"), "{}", polled.text());
}

#[tokio::test]
async fn a_line_that_loses_a_letter_is_closed_at_both_ends() {
    for kind in [TO_SESSION, TO_CLIENT] {
        let (mut owner, front) = Node::pair().await;
        let (_, mut ws) = upgraded(&owner, &front).await;
        ws.send("4one").await;
        assert_eq!(ws.text().await, "4one");
        owner.network.lose.store(kind, SeqCst);
        ws.send("4two").await;
        until(|| owner.network.lose.load(SeqCst) == 0).await;
        ws.send("4three").await;
        assert_eq!(owner.closed().await, CloseReason::ConnectionLost);
        assert!(ws.read().await.is_none_or(|(_, data)| data == b"4one"), "nothing out of order");
        until(|| (owner.lines(), front.lines()) == (0, 0)).await;
        owner.idle().await;
    }
}

#[tokio::test]
async fn a_line_whose_other_end_falls_silent_is_closed() {
    for dead in ["owner", "front"] {
        let (mut owner, front) = Node::attentive_pair().await;
        let (_, mut ws) = upgraded(&owner, &front).await;
        owner.network.cut_off(if dead == "owner" { &owner } else { &front });
        assert_eq!(ws.read().await, None);
        assert_eq!(owner.closed().await, CloseReason::ConnectionLost);
        until(|| (owner.lines(), front.lines()) == (0, 0)).await;
    }
}

#[tokio::test]
async fn a_line_lives_for_as_long_as_there_are_signs_of_life() {
    let (owner, front) = Node::pair_with(|config| config.relay.silence_timeout = Duration::from_millis(400)).await;
    let (_, mut ws) = upgraded(&owner, &front).await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    ws.send("4x").await;
    assert_eq!(ws.text().await, "4x");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_refused_more_at_its_limit_and_closed() {
    let (mut owner, front) = Node::pair_with(|config| {
        config.max_buffered_bytes = 1 << 20;
        config.max_backlog_bytes = Some(2 << 20);
        config.stall_timeout = Some(Duration::from_millis(500));
    })
    .await;
    let (_, ws) = upgraded(&owner, &front).await;
    let socket = owner.opened().await;
    let frame = Frame::message(&Message::Text("x".repeat(50_000).into()));
    let mut sent = 0;
    while socket.send(frame.clone()).is_ok() {
        sent += 50_000;
        assert!(sent < 100_000_000, "it must come to an end");
        let stats = owner.server.stats();
        assert!(stats.queued_bytes() <= 2 << 20, "{}", stats.queued_bytes());
        let _turns = owner.control.turns.load(SeqCst);
        tokio::task::yield_now().await;
    }
    assert_eq!(owner.closed().await, CloseReason::TransportError);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
    let most = front.network.most_in_flight.load(SeqCst);
    assert!(most <= 2 * 64 * 1024 + 4096, "{most}");
    drop(ws);
}

#[tokio::test]
async fn a_handler_that_is_behind_slows_its_client_down() {
    let (owner, front) = Node::pair().await;
    let (_, ws) = upgraded(&owner, &front).await;
    owner.control.behind.store(true, SeqCst);
    let mut stream = ws.http.stream;
    let frame = masked(FIN | TEXT, format!("4{}", "x".repeat(20_000)).as_bytes());
    let mut written = 0;
    // Until nothing is taken any more.
    while let Ok(more) =
        tokio::time::timeout(Duration::from_millis(300), tokio::io::AsyncWriteExt::write(&mut stream, &frame)).await
    {
        written += more.unwrap();
        assert!(written < 200_000_000, "it must come to an end");
    }
    let most = front.network.most_in_flight.load(SeqCst);
    assert!(most <= 2 * 64 * 1024 + 4096, "{most}");
}

#[tokio::test]
async fn no_more_websockets_are_carried_than_allowed() {
    let (owner, front) = Node::pair_with(|config| config.relay.max_lines = 1).await;
    let (_, first) = upgraded(&owner, &front).await;
    let client = Polling::open(&owner).await;
    let refused = request(front.addr, "GET", &client.websocket_target(), &support::UPGRADE).await;
    assert_eq!(refused.says(), (503, ""));
    assert_eq!(front.server.stats().overloads(), 1);
    // The session goes on.
    assert_eq!(client.at(&front).post("4x").await.says(), (200, "ok"));
    drop(first);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
    let _probed = Ws::probe(&client.at(&front)).await;
}

#[tokio::test]
async fn websockets_end_with_either_instance() {
    let (mut owner, front) = Node::pair().await;
    let (_, ws) = upgraded(&owner, &front).await;
    front.server.close().await;
    assert_eq!(ws.http.end().await, b"");
    assert_eq!(owner.closed().await, CloseReason::ConnectionLost);

    let (mut owner, front) = Node::pair().await;
    let (_, ws) = upgraded(&owner, &front).await;
    let (_, frame) = tokio::join!(owner.server.close(), ws.close_frame());
    assert_eq!(frame, b"");
    assert_eq!(owner.closed().await, CloseReason::ForcedClose);
    until(|| (owner.lines(), front.lines()) == (0, 0)).await;
}

#[tokio::test]
async fn a_lost_handshake_of_a_websocket_is_answered_in_time() {
    for kind in [UPGRADE, ACK] {
        let (owner, front) = Node::pair_with(|config| config.relay.ack_timeout = Duration::from_millis(300)).await;
        let client = Polling::open(&owner).await;
        owner.network.lose.store(kind, SeqCst);
        let refused = request(front.addr, "GET", &client.websocket_target(), &support::UPGRADE).await;
        assert_eq!(refused.says(), (400, "Session ID unknown"));
        until(|| (owner.lines(), front.lines()) == (0, 0)).await;
        assert_eq!(client.at(&front).post("4x").await.says(), (200, "ok"));
    }
}
