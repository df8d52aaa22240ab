//! Rooms and broadcasts: who gets what, how often, in which order.

use std::sync::Arc;

use socketio::{Binary, Namespace, Socket};

use crate::support::{Client, Poller, Received, Server, fence, open_many_files, until, within};

/// Sockets join the room `join` names.
fn rooms(root: &mut socketio::server::NamespaceBuilder) {
    root.on("join", async |socket: Socket, room: String| {
        socket.join(&*room);
        socket.emit("joined", ()).unwrap();
    })
    .on("leave", async |socket: Socket, room: String| {
        socket.leave(&room);
        socket.emit("left", ()).unwrap();
    })
    .on("shout", async |socket: Socket, room: String| socket.to(&*room).emit("shouted", ()).unwrap())
    .on("shout-all", async |socket: Socket, ()| socket.broadcast().emit("shouted", ()).unwrap());
    fence(root);
}

async fn member(server: &Server, rooms: &[&str]) -> (Client, String) {
    let mut client = Client::open(server).await;
    let id = client.join("/").await;
    for room in rooms {
        client.send(&format!(r#"42["join","{room}"]"#)).await;
        client.expect([r#"42["joined"]"#]).await;
    }
    (client, id)
}

/// The client got these events and nothing else since; what it is sent comes in order, so a fence ends them.
async fn got(client: &mut Client, events: &[&str]) {
    client.send(r#"42["fence"]"#).await;
    for event in events {
        assert_eq!(client.text().await, format!(r#"42["{event}"]"#));
    }
    client.expect([r#"42["fence"]"#]).await;
}

fn say(root: &Namespace, event: &str, choose: impl FnOnce(&Namespace) -> socketio::server::Broadcast) {
    choose(root).emit(event, ()).unwrap();
}

#[tokio::test]
async fn each_choice_reaches_whom_it_names_once() {
    let server = Server::start(rooms).await;
    let (mut a, a_id) = member(&server, &["a", "all"]).await;
    let (mut b, b_id) = member(&server, &["b", "all"]).await;
    let (mut both, _) = member(&server, &["a", "b", "all"]).await;
    let (mut none, none_id) = member(&server, &[]).await;
    let root = server.root();
    say(&root, "everyone", Namespace::broadcast);
    say(&root, "a", |n| n.to("a"));
    say(&root, "a or b", |n| n.to("a").to("b"));
    say(&root, "all but b", |n| n.to("all").except("b"));
    say(&root, "all but a and b", |n| n.to("all").except("a").except("b"));
    say(&root, "everyone but a", |n| n.broadcast().except("a"));
    say(&root, "nobody", |n| n.to("nowhere"));
    say(&root, "a's own", |n| n.to(&*a_id));
    say(&root, "a's own and b", |n| n.to(&*a_id).to("b").local());
    say(&root, "everyone but b's own", |n| n.broadcast().except(&*b_id));
    say(&root, "twice named", |n| n.to("a").to("a"));
    got(
        &mut a,
        &["everyone", "a", "a or b", "all but b", "a's own", "a's own and b", "everyone but b's own", "twice named"],
    )
    .await;
    got(&mut b, &["everyone", "a or b", "everyone but a", "a's own and b"]).await;
    got(&mut both, &["everyone", "a", "a or b", "a's own and b", "everyone but b's own", "twice named"]).await;
    got(&mut none, &["everyone", "everyone but a", "everyone but b's own"]).await;
    assert_eq!((root.len(), root.rooms()), (4, 3));
    let ids: Vec<String> = root.to(&*none_id).sockets().iter().map(|socket| socket.id().to_string()).collect();
    assert_eq!(ids, [none_id]);
    assert_eq!(root.to("a").to("b").sockets().len(), 3);
    assert_eq!(root.to("all").except("b").sockets().len(), 1);
    drop((a, b, both, none));
    server.emptied().await;
    server.finish().await;
}

#[tokio::test]
async fn a_socket_is_left_out_of_what_it_broadcasts() {
    let server = Server::start(rooms).await;
    let (mut sender, _) = member(&server, &["a"]).await;
    let (mut other, _) = member(&server, &["a"]).await;
    sender.send(r#"42["shout","a"]"#).await;
    sender.send(r#"42["shout-all"]"#).await;
    got(&mut sender, &[]).await;
    got(&mut other, &["shouted", "shouted"]).await;
    server.finish().await;
}

#[tokio::test]
async fn joining_twice_is_joining_once_and_rooms_go_with_their_last_member() {
    let server = Server::start(rooms).await;
    let (mut client, _) = member(&server, &["a", "a", "b"]).await;
    let root = server.root();
    root.to("a").emit("once", ()).unwrap();
    got(&mut client, &["once"]).await;
    client.send(r#"42["leave","a"]"#).await;
    client.send(r#"42["leave","never"]"#).await;
    client.expect([r#"42["left"]"#, r#"42["left"]"#]).await;
    assert_eq!(root.rooms(), 1);
    root.to("a").emit("nobody", ()).unwrap();
    got(&mut client, &[]).await;
    server.finish().await;
}

#[tokio::test]
async fn everyone_chosen_can_be_moved_and_sent_away() {
    let server = Server::start(rooms).await;
    let (mut a, _) = member(&server, &["a"]).await;
    let (mut b, _) = member(&server, &["b"]).await;
    let root = server.root();
    root.to("a").sockets_join("c").unwrap();
    root.sockets_join("d").unwrap();
    root.to("d").sockets_leave("b").unwrap();
    assert_eq!(root.rooms(), 3);
    root.to("c").emit("c", ()).unwrap();
    root.to("b").emit("b", ()).unwrap();
    root.to("d").except("c").disconnect_sockets(false).unwrap();
    got(&mut a, &["c"]).await;
    b.expect(["41"]).await;
    server.sockets(1).await;
    server.finish().await;
}

#[tokio::test]
async fn a_room_named_like_an_id_takes_nothing_from_its_owner() {
    let server = Server::start(rooms).await;
    let (mut owner, id) = member(&server, &[]).await;
    let (mut other, _) = member(&server, &[&id]).await;
    server.root().to(&*id).emit("both", ()).unwrap();
    got(&mut owner, &["both"]).await;
    got(&mut other, &["both"]).await;
    owner.send(&format!(r#"42["join","{id}"]"#)).await;
    owner.expect([r#"42["joined"]"#]).await;
    server.root().to(&*id).emit("once", ()).unwrap();
    got(&mut owner, &["once"]).await;
    got(&mut other, &["once"]).await;
    server.root().broadcast().except(&*id).emit("neither", ()).unwrap();
    got(&mut owner, &[]).await;
    server.finish().await;
}

#[tokio::test]
async fn volatile_packets_go_whole_or_not_at_all() {
    let server = Server::start(rooms).await;
    let poller = Poller::joined(&server).await;
    let socket = server.sockets(1).await.remove(0);
    let file = || (Binary::from(vec![1]), Binary::from(vec![2]));
    // No poll waits: dropped.
    socket.emit_volatile("dropped", file()).unwrap();
    server.root().broadcast().volatile().emit("dropped", file()).unwrap();
    socket.emit("kept", ()).unwrap();
    assert_eq!(poller.get().await, r#"42["kept"]"#);
    // A client that keeps up gets all of it.
    let mut client = Client::joined(&server).await;
    server.root().broadcast().volatile().emit("file", file()).unwrap();
    client.expect([r#"452-["file",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#]).await;
    client.expect_binary(&[1]).await;
    client.expect_binary(&[2]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_thousand_sockets_get_each_broadcast_once_and_in_order() {
    const SOCKETS: usize = 1_000;
    const EVENTS: usize = 20;
    open_many_files();
    let server = Arc::new(
        Server::start(|root| {
            root.on_connect(async |socket: Socket| socket.join("lobby"));
        })
        .await,
    );
    let root = server.root();
    let mut clients = Vec::new();
    for _ in 0..SOCKETS {
        clients.push(Client::joined(&server).await);
    }
    until("all to join", || root.to("lobby").sockets().len() == SOCKETS).await;
    for number in 0..EVENTS {
        root.to("lobby").emit("n", (number,)).unwrap();
    }
    for client in &mut clients {
        for number in 0..EVENTS {
            assert_eq!(client.text().await, format!(r#"42["n",{number}]"#));
        }
    }
    root.to("lobby").emit("last", ()).unwrap();
    for client in &mut clients {
        client.expect([r#"42["last"]"#]).await;
    }
    drop(clients);
    server.emptied().await;
    Arc::into_inner(server).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn broadcasts_of_two_tasks_mix_but_each_keeps_its_order() {
    const EVENTS: usize = 500;
    let server = Server::start(rooms).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(member(&server, &["a"]).await.0);
    }
    let tasks = ["x", "y"].map(|name| {
        let root = server.root();
        tokio::spawn(async move {
            for number in 0..EVENTS {
                root.to("a").emit(name, (number,)).unwrap();
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for client in &mut clients {
        let mut next = [0, 0];
        for _ in 0..2 * EVENTS {
            let text = client.text().await;
            let which = usize::from(text.contains('y'));
            assert_eq!(text, format!(r#"42["{}",{}]"#, ["x", "y"][which], next[which]));
            next[which] += 1;
        }
    }
    for task in tasks {
        within("the tasks", task).await.unwrap();
    }
    server.finish().await;
}

/// Broadcasts are written past the sleeping tasks of their clients: what a socket does not take is left to the task.
#[tokio::test]
async fn a_client_that_reads_late_gets_broadcasts_whole_and_in_order() {
    const EVENTS: usize = 150;
    let server = Server::start(rooms).await;
    let (mut late, _) = member(&server, &["a"]).await;
    let (mut prompt, _) = member(&server, &["a"]).await;
    let text = "x".repeat(25_000);
    for number in 0..EVENTS {
        server.root().to("a").emit("n", (number, &text)).unwrap();
        assert_eq!(prompt.text().await.len(), format!(r#"42["n",{number},"{text}"]"#).len());
    }
    late.send(r#"42["fence"]"#).await;
    for number in 0..EVENTS {
        assert!(late.text().await == format!(r#"42["n",{number},"{text}"]"#), "event {number}");
    }
    late.expect([r#"42["fence"]"#]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_by_broadcasts_at_its_budget() {
    let mut config = crate::support::config();
    config.engine.max_buffered_bytes = 100_000;
    let server = Server::with(socketio::Io::builder().config(config).namespace("/", rooms)).await;
    let (idle, _) = member(&server, &["a"]).await;
    let (mut prompt, _) = member(&server, &["a"]).await;
    let text = "x".repeat(50_000);
    let mut sent = 0;
    while server.root().len() > 1 {
        server.root().to("a").emit("n", (&text,)).unwrap();
        prompt.text().await;
        sent += 1;
        // More than the buffers of the system take.
        assert!(sent < 1_000, "a client that does not read is kept");
    }
    drop(idle);
    got(&mut prompt, &[]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_broadcast_from_a_thread_without_a_runtime_arrives() {
    let server = Server::start(rooms).await;
    let (mut client, _) = member(&server, &["a"]).await;
    let root = server.root();
    std::thread::spawn(move || root.to("a").emit("now", ()).unwrap()).join().unwrap();
    client.expect([r#"42["now"]"#]).await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn joins_leaves_and_ends_race_broadcasts_and_leave_nothing() {
    let server = Arc::new(Server::start(rooms).await);
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(Client::joined(&server).await);
    }
    let sockets = server.sockets(30).await;
    let racing: Vec<_> = (0..4)
        .map(|task| {
            let sockets = sockets.clone();
            tokio::spawn(async move {
                for round in 0..300 {
                    let socket = &sockets[(round * 7 + task) % sockets.len()];
                    let room = format!("room {}", round % 5);
                    match (round + task) % 4 {
                        0 => socket.join(&*room),
                        1 => socket.leave(&room),
                        2 => socket.namespace().to(&*room).emit("e", ()).unwrap(),
                        _ => drop(socket.namespace().to(&*room).sockets()),
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        drop(client);
        tokio::task::yield_now().await;
    }
    for task in racing {
        within("the race", task).await.unwrap();
    }
    server.emptied().await;
    for socket in &sockets {
        socket.join("late");
        assert!(!socket.is_connected());
    }
    drop(sockets);
    server.emptied().await;
    Arc::into_inner(server).unwrap().finish().await;
}

#[tokio::test]
async fn rooms_of_one_namespace_are_not_those_of_another() {
    let builder = socketio::Io::builder().namespace("/", rooms).namespace("/chat", rooms);
    let server = Server::with(builder).await;
    let (mut client, _) = member(&server, &["a"]).await;
    client.join("/chat").await;
    server.io.of("/chat").unwrap().to("a").emit("nobody", ()).unwrap();
    server.io.of("/chat").unwrap().emit("there", ()).unwrap();
    assert_eq!(client.receive().await, Received::Text(r#"42/chat,["there"]"#.to_owned()));
    drop(client);
    server.emptied().await;
    server.finish().await;
}
