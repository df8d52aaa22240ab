//! Slots of a Redis Cluster move while instances ask each other.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socketio::Namespace;
use socketio::adapter::redis::RedisConfig;
use syncwatch_backends::RedisCluster;

use crate::support::{Client, within};
use crate::{Node, TIMEOUT};

/// A slot moves every tenth of a second or so.
const MOVES: usize = 60;
/// How many ask at a time, of each instance.
const ASKING: usize = 4;

/// What the instances were told by each other.
#[derive(Debug, Default)]
struct Tally {
    complete: AtomicUsize,
    partial: AtomicUsize,
}

/// Asks until it is over. An answer that says it is complete is complete, and no question gets the answer to another.
async fn ask(
    root: Namespace,
    ids: Arc<HashSet<String>>,
    next: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    tally: Arc<Tally>,
) {
    let count = |is_complete| if is_complete { &tally.complete } else { &tally.partial }.fetch_add(1, Relaxed);
    while !over.load(Relaxed) {
        match root.fetch_sockets().await {
            Ok(sockets) => {
                let found: Vec<&str> = sockets.iter().map(|socket| socket.id()).collect();
                assert_eq!(found.len(), ids.len(), "an answer that claims to be complete, or one that came twice");
                assert!(found.iter().all(|id| ids.contains(*id)));
                count(true);
            }
            Err(partial) => {
                assert!(partial.sockets.len() <= ids.len() && !partial.silent.is_empty(), "{partial:?}");
                count(false);
            }
        }
        let number = next.fetch_add(1, Relaxed);
        let acks = root.server_side_emit_with_ack::<u32>("add", ((number, 1),)).await.unwrap();
        assert!(acks.answers.iter().all(|answer| *answer == number + 1), "another's answers: {acks:?}");
        assert!(!acks.is_complete() || acks.answers.len() == ids.len() - 1, "{acks:?}");
        count(acks.is_complete());
        let acks = root.emit_with_ack::<u32>("q", (number,), Duration::from_millis(700)).await.unwrap();
        assert!(acks.answers.iter().all(|answer| *answer == number), "another's answers: {acks:?}");
        assert!(!acks.is_complete() || acks.answers.len() == ids.len(), "{acks:?}");
        count(acks.is_complete());
    }
}

/// Answers each question with what was asked.
async fn answer(mut client: Client) {
    loop {
        let question = client.text().await;
        if question == "2" {
            client.send("3").await; // the heartbeat
            continue;
        }
        let Some((id, number)) = question.strip_prefix("42").and_then(|it| it.split_once(r#"["q","#)) else {
            panic!("{question} is no question");
        };
        client.send(&format!("43{id}[{number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_the_answer_to_another_question_while_slots_move() {
    let cluster = Arc::new(RedisCluster::start().unwrap());
    let settings = || {
        let mut settings = RedisConfig::cluster(cluster.urls());
        settings.request_timeout = Duration::from_millis(700);
        settings
    };
    let nodes = [Node::start(settings()).await, Node::start(settings()).await, Node::start(settings()).await];
    let (mut ids, mut clients) = (HashSet::new(), Vec::new());
    for node in &nodes {
        let (client, id) = node.member("room").await;
        ids.insert(id);
        clients.push(tokio::spawn(answer(client)));
    }
    let (ids, next, over, tally) =
        (Arc::new(ids), Arc::default(), Arc::<AtomicBool>::default(), Arc::<Tally>::default());
    let mut asking = Vec::new();
    for root in nodes.iter().flat_map(|node| (0..ASKING).map(|_| node.root())) {
        let task = ask(root, Arc::clone(&ids), Arc::clone(&next), Arc::clone(&over), Arc::clone(&tally));
        asking.push(tokio::spawn(task));
    }
    // The channel of all questions, and those of the answers to one instance.
    let answers = format!("socket.io#/#{}#", nodes[0].redis.name());
    let mut places = ["socket.io#/#", &answers, "socket.io#/#room#"]
        .map(|channel| (cluster.slot_of(channel).unwrap(), cluster.node_of(channel).unwrap()));
    for number in 0..MOVES {
        let (slot, at) = &mut places[[0, 1, 0, 2][number % 4]];
        let (slot, from, to) = (*slot, *at, (*at + 1) % 3);
        *at = to;
        let moving = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || moving.move_slots(&[slot], from, to).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(nodes.iter().all(|node| node.redis.is_connected()), "a slot that moves cuts no instance off");
    }
    over.store(true, Relaxed);
    for task in asking {
        within("the last answers", task).await.unwrap();
    }
    assert!(tally.complete.load(Relaxed) > MOVES, "{tally:?}");
    // Once the slots stay, everything is as it was.
    within("all of them to be heard", async { while nodes[0].root().fetch_sockets().await.is_err() {} }).await;
    let acks = nodes[1].root().emit_with_ack::<u32>("q", (7,), TIMEOUT).await.unwrap();
    assert!(acks.is_complete() && acks.answers == [7, 7, 7], "{acks:?}");
    for node in nodes {
        assert_eq!(node.redis.lost(), 0);
        node.server.finish().await;
    }
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}
