//! An instance that hangs.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use socketio::adapter::ClusterError;
use socketio::adapter::redis::{Mode, RedisConfig, Subscription};
use socketio::server::NamespaceBuilder;
use syncwatch_backends::{Redis, RedisCluster};

use crate::support::{until, within};
use crate::{MODES, Node, TIMEOUT, handlers, settings};

/// Holds up an instance, by a handler that does not return.
#[derive(Clone, Default)]
struct Barrier(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    is_closed: bool,
    waiting: usize,
}

impl Barrier {
    fn set(&self, is_closed: bool) {
        self.0.0.lock().unwrap().is_closed = is_closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        while state.is_closed {
            state = self.0.1.wait(state).unwrap();
        }
        state.waiting -= 1;
    }

    fn holds(&self) -> bool {
        self.0.0.lock().unwrap().waiting > 0
    }
}

async fn suite(settings: impl Fn() -> RedisConfig) {
    let barrier = Barrier::default();
    let hang = barrier.clone();
    let mut impatient = settings();
    impatient.request_timeout = Duration::from_millis(500);
    let one = Node::start(impatient).await;
    let two = Node::start(settings()).await;
    let three = Node::with(settings(), move |root: &mut NamespaceBuilder| {
        handlers(root);
        root.on_server_side("hang", move |_, (), _| hang.pass());
    })
    .await;
    let (a, a_id) = one.member("a").await;
    let (mut b, b_id) = two.member("b").await;
    let (c, _) = three.member("c").await;
    let all = one.root().fetch_sockets().await.unwrap();
    assert_eq!(all.len(), 3);
    barrier.set(true);
    one.root().server_side_emit("hang", ()).unwrap();
    until("it to hang", || barrier.holds()).await;

    let timeout = ClusterError::Timeout { answered: 1, asked: Some(2) };
    let silent = [three.redis.name().to_owned()];
    let partial = one.root().fetch_sockets().await.unwrap_err();
    let ids: HashSet<&str> = partial.sockets.iter().map(|socket| socket.id()).collect();
    assert_eq!(ids, HashSet::from([&*a_id, &*b_id]));
    assert_eq!((&partial.silent[..], &partial.error), (&silent[..], &timeout));
    let acks = one.root().server_side_emit_with_ack::<u32>("add", ((1, 2),)).await.unwrap();
    assert_eq!((&acks.answers[..], acks.missing_elsewhere), (&[3][..], 1));
    assert_eq!((&acks.silent[..], acks.error), (&silent[..], Some(timeout.clone())));
    let acks = one.root().to("nobody").emit_with_ack::<u32>("q", (), Duration::from_millis(300)).await.unwrap();
    assert_eq!((&acks.silent[..], acks.error), (&silent[..], Some(timeout)));
    // An instance that has answered need not wait for it.
    let far = all.iter().find(|socket| socket.id() == b_id).unwrap().clone();
    let asking = tokio::spawn(async move { far.emit_with_ack::<u8>("q", (), Duration::from_secs(3_600)).await });
    let question = b.text().await;
    b.send(&format!("43{}[6]", question.strip_prefix("42").unwrap().strip_suffix(r#"["q"]"#).unwrap())).await;
    assert_eq!(within("the answer", asking).await.unwrap(), Ok(6));

    barrier.set(false);
    until("it to go on", || !barrier.holds()).await;
    within("all of them to be heard", async {
        while one.root().fetch_sockets().await.map_or(0, |sockets| sockets.len()) < 3 {}
    })
    .await;
    drop((a, b, c));
    for node in [one, two, three] {
        node.server.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_hangs_is_named_in_every_mode() {
    let redis = Redis::start().unwrap();
    for mode in MODES {
        suite(|| settings(&redis, mode)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_hangs_is_named_over_a_redis_cluster() {
    let cluster = RedisCluster::start().unwrap();
    suite(|| {
        let mut settings = RedisConfig::cluster(cluster.urls());
        settings.mode = Mode::Sharded(Subscription::Dynamic);
        settings.request_timeout = TIMEOUT;
        settings
    })
    .await;
}
