//! Clients that are cut off and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socketio::server::RecoveryConfig;
use socketio::{Io, Socket};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::returning::{Subscriber, back, connect, names, parts};
use crate::support::{Client, Server, config, open_many_files, until, within};

/// A server whose sockets are in the room `all` and tell, when they connect, whether they were recovered.
async fn server(recovery: RecoveryConfig) -> Server {
    let builder = Io::builder().config(config()).recovery(recovery).namespace("/", |root| {
        root.on_connect(|socket: Socket| async move {
            socket.join("all");
            if socket.recovered() {
                socket.emit_volatile("welcome back", &socket.value::<u32>()).unwrap();
            } else {
                socket.insert(7_u32);
            }
        });
    });
    Server::with(builder).await
}

fn cast(server: &Server, name: &str) {
    server.root().to("all").emit(name, ()).unwrap();
}

/// Cuts a client off, and waits until the server knows.
async fn cut(server: &Server, client: Client) {
    let left = server.root().len() - 1;
    drop(client);
    until("the cut", || server.root().len() == left).await;
}

#[tokio::test]
async fn who_was_cut_off_comes_back_again_and_again_and_has_missed_nothing() {
    let server = server(RecoveryConfig::default()).await;
    let (mut client, replayed, session) = connect(&server, "").await;
    assert!(replayed.is_empty());
    cast(&server, "first");
    let mut last = client.text().await;
    for round in 0..3 {
        cut(&server, client).await;
        cast(&server, "missed");
        server.root().to("others").emit("for others", ()).unwrap();
        server.root().to(session.sid.as_str()).emit("missed too", ()).unwrap();
        let (again, replayed, same) = back(&server, &session, Some(parts(&last).1)).await;
        client = again;
        assert_eq!((&same.sid, &same.pid), (&session.sid, &session.pid), "round {round}");
        assert_eq!(names(&replayed), ["missed", "missed too"]);
        client.expect(["42[\"welcome back\",7]"]).await;
        cast(&server, "next");
        last = client.text().await;
        assert_eq!(parts(&last).0, "next");
    }
    drop(client);
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn who_has_received_nothing_yet_comes_back_too() {
    let server = server(RecoveryConfig::default()).await;
    let (client, _, session) = connect(&server, "").await;
    cut(&server, client).await;
    cast(&server, "missed");
    let (_client, replayed, same) = back(&server, &session, None).await;
    assert_eq!((same.sid, names(&replayed)), (session.sid, vec!["missed"]));
}

#[tokio::test]
async fn a_client_that_is_back_before_its_cut_is_noticed_gets_each_event_once() {
    let server = server(RecoveryConfig::default()).await;
    let (mut old, _, session) = connect(&server, "").await;
    cast(&server, "one");
    let last = old.text().await;
    cast(&server, "two");
    let (mut new, replayed, same) = back(&server, &session, Some(parts(&last).1)).await;
    assert_eq!((&same.sid, names(&replayed)), (&session.sid, vec!["two"]));
    new.expect(["42[\"welcome back\",7]"]).await;
    cast(&server, "three");
    assert_eq!(parts(&new.text().await).0, "three");
    assert_eq!(parts(&old.text().await).0, "two");
    old.expect_end().await;
    assert_eq!(server.root().len(), 1);
}

#[tokio::test]
async fn only_one_of_two_gets_a_session() {
    let server = server(RecoveryConfig::default()).await;
    let (client, _, session) = connect(&server, "").await;
    cut(&server, client).await;
    let (one, two) = tokio::join!(back(&server, &session, None), back(&server, &session, None));
    // The second finds the first connected, and takes its place.
    assert_eq!((&one.2.sid, &two.2.sid), (&session.sid, &session.sid));
    until("one of them to be gone", || server.root().len() == 1).await;
}

#[tokio::test]
async fn an_offset_of_somebody_else_is_not_believed() {
    let server = server(RecoveryConfig::default()).await;
    let (mut client, _, session) = connect(&server, "").await;
    cast(&server, "one");
    let _one = client.text().await;
    cut(&server, client).await;
    // Not what the published client would send, see below.
    let (_client, replayed, other) = back(&server, &session, Some("any text")).await;
    assert!(replayed.is_empty());
    assert_ne!(other.pid, session.pid);
    let (_client, replayed, other) = connect(&server, "{\"pid\":\"nobody\",\"offset\":\"x\"}").await;
    assert!(replayed.is_empty());
    assert_ne!(other.sid, session.sid);
}

#[tokio::test]
async fn who_has_left_on_purpose_begins_anew() {
    let server = server(RecoveryConfig::default()).await;
    let (mut client, _, session) = connect(&server, "").await;
    client.send("41").await;
    server.sockets(0).await;
    let (_client, _, other) = back(&server, &session, None).await;
    assert_ne!((other.sid, other.pid), (session.sid, session.pid));
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_told_by_a_new_session() {
    let mut recovery = RecoveryConfig::default();
    (recovery.max_packets, recovery.max_sessions) = (2, 2);
    let server = server(recovery).await;
    let (client, _, session) = connect(&server, "").await;
    cut(&server, client).await;
    for name in ["one", "two", "three"] {
        cast(&server, name);
    }
    let (client, replayed, other) = back(&server, &session, None).await;
    assert!(replayed.is_empty());
    assert_ne!(other.pid, session.pid);
    // And of three who are away the first cannot come back.
    let mut away = Vec::new();
    for _ in 0..3 {
        let (client, _, session) = connect(&server, "").await;
        cut(&server, client).await;
        away.push(session);
    }
    drop(client);
    let (_client, _, first) = back(&server, &away[0], None).await;
    assert_ne!(first.pid, away[0].pid);
    let (_client, _, last) = back(&server, &away[2], None).await;
    assert_eq!(last.pid, away[2].pid);
}

#[tokio::test]
async fn a_session_ends_with_its_time() {
    let mut recovery = RecoveryConfig::default();
    recovery.max_disconnection = Duration::from_millis(50);
    let server = server(recovery).await;
    let (client, _, session) = connect(&server, "").await;
    cut(&server, client).await;
    let end = Instant::now() + Duration::from_millis(60);
    until("its time is up", || Instant::now() > end).await;
    let (_client, _, other) = back(&server, &session, None).await;
    assert_ne!(other.pid, session.pid);
}

#[tokio::test]
async fn events_with_an_ack_and_volatile_ones_have_no_place() {
    let server = server(RecoveryConfig::default()).await;
    let (mut client, _, session) = connect(&server, "").await;
    let [socket] = &server.sockets(1).await[..] else { panic!("one socket") };
    socket.emit_volatile("volatile", (1,)).unwrap();
    client.expect(["42[\"volatile\",1]"]).await;
    let asking = socket.emit_with_ack::<()>("asked", (), Duration::from_millis(10));
    let (_, asked) = tokio::join!(asking, client.text());
    assert!(asked.starts_with("42") && asked.ends_with("[\"asked\"]"), "{asked}");
    socket.emit("kept", ()).unwrap();
    let kept = client.text().await;
    cut(&server, client).await;
    let (_client, replayed, same) = back(&server, &session, Some(parts(&kept).1)).await;
    assert_eq!((same.pid, replayed), (session.pid, Vec::new()));
}

#[tokio::test]
async fn a_volatile_event_that_ends_with_a_text_leaves_a_client_the_offset_it_has() {
    let server = server(RecoveryConfig::default()).await;
    let (mut client, _, session) = connect(&server, "").await;
    cast(&server, "one");
    let one = client.text().await;
    // The published client takes the last text it is sent for its offset, the name of an event without arguments too.
    let [socket] = &server.sockets(1).await[..] else { panic!("one socket") };
    socket.emit_volatile("volatile", "text").unwrap();
    let offset = parts(&one).1.to_owned();
    client.expect([format!("42[\"volatile\",\"text\",\"{offset}\"]").as_str()]).await;
    server.root().broadcast().volatile().emit("name", ()).unwrap();
    client.expect([format!("42[\"name\",\"{offset}\"]").as_str()]).await;
    cut(&server, client).await;
    cast(&server, "two");
    let (_client, replayed, same) = back(&server, &session, Some(&offset)).await;
    assert_eq!((same.pid, names(&replayed)), (session.pid, vec!["two"]));
}

/// Small and quick where everything else is long: 200 subscribers who are cut off for up to half a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_are_cut_off_all_the_time_get_everything_once_and_in_order() {
    const SUBSCRIBERS: u64 = 200;
    open_many_files();
    let server = Arc::new(server(RecoveryConfig::default()).await);
    let cast = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let all_here = Arc::new(Barrier::new(SUBSCRIBERS as usize + 1));
    let mut crowd = JoinSet::new();
    for number in 0..SUBSCRIBERS {
        let (server, cast, is_over) = (Arc::clone(&server), Arc::clone(&cast), Arc::clone(&is_over));
        let all_here = Arc::clone(&all_here);
        crowd.spawn(async move {
            let (client, _, session) = connect(&server, "").await;
            all_here.wait().await;
            let mut subscriber = Subscriber::new(number, client, session);
            subscriber.run(&[server], 600, 0..500, &cast, &is_over).await
        });
    }
    within("everybody to be there", all_here.wait()).await;
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        let number = cast.fetch_add(1, Ordering::Relaxed);
        server.root().to("all").emit("number", &number).unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let cuts: u64 = within("everybody to have everything", crowd.join_all()).await.into_iter().sum();
    assert!(cuts > SUBSCRIBERS, "{cuts} cuts");
}
