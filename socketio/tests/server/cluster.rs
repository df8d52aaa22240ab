//! Several instances as one: over an adapter that hands everything from one to the others directly.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use socketio::adapter::{Adapter, ClusterError, Command, Local, Outgoing, Replies, Request, SocketInfo, Target};
use socketio::server::{AckError, IoBuilder, NamespaceBuilder, Room, ServerAck};
use socketio::{Ack, Args, Binary, Event, Io, Namespace, Socket};

use crate::support::{Client, Server, config, fence, until};

const TIMEOUT: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(50);

/// What connects the instances.
#[derive(Clone, Debug, Default)]
struct Mesh(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    locals: Vec<Local>,
    /// Rooms that have members, by instance.
    rooms: HashSet<(usize, String)>,
    down: bool,
    /// Does not answer.
    hung: Option<usize>,
    closed: usize,
}

impl Mesh {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn builder(&self) -> IoBuilder {
        let mesh = self.clone();
        Io::builder().config(config()).adapter(move |local| {
            let mut state = mesh.state();
            state.locals.push(local.clone());
            Node { mesh: mesh.clone(), index: state.locals.len() - 1, local }
        })
    }
}

/// One instance.
#[derive(Debug)]
struct Node {
    mesh: Mesh,
    index: usize,
    local: Local,
}

impl Node {
    fn others(&self) -> Result<Vec<Local>, ClusterError> {
        let state = self.mesh.state();
        let others = state.locals.iter().enumerate().filter(|(index, _)| *index != self.index);
        if state.down { Err(ClusterError::Unreachable) } else { Ok(others.map(|(_, local)| local.clone()).collect()) }
    }
}

fn name(index: usize) -> String {
    format!("instance {index}")
}

fn event_of(packet: &Outgoing) -> Event {
    let attachments = packet.attachments().map(|bytes| bytes.to_vec().into()).collect();
    Event::from_json(packet.json(), attachments).unwrap()
}

impl Adapter for Node {
    fn broadcast(&self, packet: &Outgoing, target: &Target) {
        for other in self.others().into_iter().flatten().filter(|_| !target.local) {
            other.broadcast(&Outgoing::forward(other.name(), None, event_of(packet)).unwrap(), target);
        }
        self.local.broadcast(packet, target);
    }

    fn command(&self, command: Command<'_>) -> Result<(), ClusterError> {
        for other in self.others()? {
            match command {
                Command::Join(target, rooms) => other.join(target, rooms),
                Command::Leave(target, rooms) => other.leave(target, rooms),
                Command::Disconnect { target, close } => other.disconnect(target, close),
                Command::ServerSideEmit(event) => other.server_side_emit(event, None),
                _ => panic!("another command"),
            }
        }
        Ok(())
    }

    fn request(&self, request: Request<'_>, timeout: Duration, replies: Replies) {
        let others = match self.others() {
            Ok(others) => others,
            Err(error) => return replies.failed(error),
        };
        replies.instances(others.len());
        let replies = Arc::new(replies);
        let hung = self.mesh.state().hung;
        for (index, other) in (0..).filter(|index| *index != self.index).zip(others) {
            if hung == Some(index) {
                let replies = Arc::clone(&replies);
                tokio::spawn(async move { replies.closed().await });
                continue;
            }
            replies.heard(&name(index));
            let replies = Arc::clone(&replies);
            match request {
                Request::Emit(packet, target) => {
                    let mut acks = other.emit_with_ack(event_of(packet), target, timeout);
                    replies.clients(acks.clients());
                    tokio::spawn(async move {
                        while let Some(answer) = acks.next().await {
                            replies.answer(answer);
                        }
                    });
                }
                Request::FetchSockets(target) => {
                    replies.sockets(other.sockets(target).iter().map(SocketInfo::of).collect());
                }
                Request::ServerSideEmit(event) => {
                    other.server_side_emit(event, Some(ServerAck::new(move |answer| replies.answer(answer))));
                }
                _ => panic!("another request"),
            }
        }
    }

    fn instances(&self) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + '_>> {
        let count = self.mesh.state().locals.len();
        Box::pin(async move { (0..count).filter(|index| *index != self.index).map(name).collect() })
    }

    fn request_timeout(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn room_created(&self, room: &Room) {
        assert!(self.mesh.state().rooms.insert((self.index, room.to_string())), "{room} is created twice");
    }

    fn room_deleted(&self, room: &str) {
        assert!(self.mesh.state().rooms.remove(&(self.index, room.to_owned())), "{room} never was created");
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async { self.mesh.state().closed += 1 })
    }
}

/// Sockets join what they are told, and answer a question with their own number.
fn handlers(root: &mut NamespaceBuilder) {
    root.on_ack("join", async |socket: Socket, room: String, ack: Option<Ack>| {
        socket.join(&*room);
        socket.set_data(&json!({ "room": room })).unwrap();
        ack.unwrap().send(()).unwrap();
    });
    root.on("shout", async |socket: Socket, ()| socket.broadcast().emit("shouted", ()).unwrap());
    fence(root);
}

async fn pair(mesh: &Mesh) -> (Server, Server) {
    let one = Server::with(mesh.builder().namespace("/", handlers)).await;
    let two = Server::with(mesh.builder().namespace("/", handlers)).await;
    (one, two)
}

async fn member(server: &Server, room: &str) -> (Client, String) {
    let mut client = Client::open(server).await;
    let id = client.join("/").await;
    client.send(&format!(r#"420["join","{room}"]"#)).await;
    client.expect(["430[]"]).await;
    (client, id)
}

/// The client got nothing more.
async fn fenced(client: &mut Client) {
    client.send(r#"42["fence"]"#).await;
    client.expect([r#"42["fence"]"#]).await;
}

#[tokio::test]
async fn broadcasts_reach_every_instance_unless_they_are_local() {
    let mesh = Mesh::default();
    let (one, two) = pair(&mesh).await;
    let (mut a, a_id) = member(&one, "a").await;
    let (mut b, b_id) = member(&two, "b").await;
    one.root().emit("all", ()).unwrap();
    one.root().to("b").emit("b", (Binary::from(vec![7]),)).unwrap();
    one.root().local().emit("one", ()).unwrap();
    two.root().broadcast().except("b").emit("not b", ()).unwrap();
    two.root().broadcast().except(&*a_id).emit("not a's own", ()).unwrap();
    two.root().to(&*a_id).emit("a's own", ()).unwrap();
    a.expect([r#"42["all"]"#, r#"42["one"]"#, r#"42["not b"]"#, r#"42["a's own"]"#]).await;
    b.expect([r#"42["all"]"#, r#"451-["b",{"_placeholder":true,"num":0}]"#]).await;
    b.expect_binary(&[7]).await;
    b.expect([r#"42["not a's own"]"#]).await;
    a.send(r#"42["shout"]"#).await;
    b.expect([r#"42["shouted"]"#]).await;
    fenced(&mut a).await;
    fenced(&mut b).await;
    assert_eq!(mesh.state().rooms, HashSet::from([(0, "a".to_owned()), (1, "b".to_owned())]));
    drop((a, b));
    one.emptied().await;
    two.emptied().await;
    assert_eq!(mesh.state().rooms, HashSet::new());
    assert_ne!(a_id, b_id);
    one.finish().await;
    two.finish().await;
    assert_eq!(mesh.state().closed, 2);
}

#[tokio::test]
async fn sockets_of_every_instance_are_described_moved_and_sent_away() {
    let mesh = Mesh::default();
    let (one, two) = pair(&mesh).await;
    let (mut a, a_id) = member(&one, "a").await;
    let (mut b, b_id) = member(&two, "b").await;
    let mut all = one.root().fetch_sockets().await.unwrap();
    all.sort_by_key(|socket| socket.id() != a_id);
    let ids: Vec<&str> = all.iter().map(|socket| socket.id()).collect();
    assert_eq!(ids, [&a_id, &b_id]);
    assert_eq!(all[1].rooms().collect::<Vec<_>>(), ["b"]);
    assert_eq!(all[1].data::<serde_json::Value>().unwrap(), json!({ "room": "b" }));
    assert_eq!(all[1].handshake()["address"], "127.0.0.1");
    assert_eq!(one.root().local().fetch_sockets().await.unwrap().len(), 1);
    assert_eq!(one.root().to("b").fetch_sockets().await.unwrap().len(), 1);
    one.root().sockets_join("c").unwrap();
    one.root().to("b").sockets_leave("b").unwrap();
    one.root().local().sockets_join("d").unwrap();
    all[1].emit("you", ()).unwrap();
    b.expect([r#"42["you"]"#]).await;
    let far = all[1].clone();
    let asking = tokio::spawn(async move { far.emit_with_ack::<u8>("how many", (), TIMEOUT).await });
    b.expect([r#"420["how many"]"#]).await;
    b.send("430[7]").await;
    assert_eq!(asking.await.unwrap(), Ok(7));
    assert_eq!(all[1].emit_with_ack::<u8>("again", (), SOON).await, Err(AckError::Timeout));
    b.expect([r#"421["again"]"#]).await;
    assert_eq!(two.sockets(1).await[0].rooms(), [Room::from("c")]);
    assert_eq!(one.sockets(1).await[0].rooms().len(), 3);
    all[1].disconnect(false).unwrap();
    b.expect(["41"]).await;
    two.root().to("c").disconnect_sockets(false).unwrap();
    a.expect(["41"]).await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn acks_are_gathered_from_every_instance() {
    let mesh = Mesh::default();
    let (one, two) = pair(&mesh).await;
    let (mut a, a_id) = member(&one, "a").await;
    let (mut b, _) = member(&two, "b").await;
    let root = one.root();
    let asking = tokio::spawn(async move { root.emit_with_ack::<u8>("how many", (), TIMEOUT).await.unwrap() });
    assert_eq!(a.text().await, r#"420["how many"]"#);
    assert_eq!(b.text().await, r#"420["how many"]"#);
    b.send("430[2]").await;
    a.send("430[1]").await;
    let mut acks = asking.await.unwrap();
    acks.answers.sort_unstable();
    assert!(acks.is_complete(), "{acks:?}");
    assert_eq!(acks.answers, [1, 2]);
    // Nobody answers, and then one of the two, with something else.
    let acks = one.root().emit_with_ack::<u8>("again", (), SOON).await.unwrap();
    assert_eq!((acks.missing.len(), acks.missing_elsewhere, acks.is_complete()), (1, 1, false));
    assert_eq!(acks.missing[0].as_str(), a_id);
    let acks = one.root().local().emit_with_ack::<u8>("again", (), SOON).await.unwrap();
    assert_eq!((acks.missing.len(), acks.missing_elsewhere), (1, 0));
    let root = one.root();
    let asking = tokio::spawn(async move { root.to("b").emit_with_ack::<u8>("b", (), TIMEOUT).await.unwrap() });
    b.expect([r#"421["again"]"#, r#"422["b"]"#]).await;
    b.send(r#"432["two"]"#).await;
    let acks = asking.await.unwrap();
    assert_eq!((acks.unfit, acks.missing.len(), acks.missing_elsewhere), (1, 0, 0));
    // Who leaves will not answer, and is not waited for.
    let root = one.root();
    let asking = tokio::spawn(async move { root.to("a").emit_with_ack::<u8>("a", (), TIMEOUT).await.unwrap() });
    a.expect([r#"421["again"]"#, r#"422["again"]"#, r#"424["a"]"#]).await;
    drop(a);
    assert_eq!(asking.await.unwrap().missing.len(), 1);
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn instances_send_events_to_each_other() {
    let mesh = Mesh::default();
    let said = Arc::new(Mutex::new(Vec::new()));
    let named = |name: &'static str| {
        let said = Arc::clone(&said);
        mesh.builder().namespace("/", move |root| {
            let heard = Arc::clone(&said);
            root.on_server_side("say", move |namespace: &Namespace, Args((text, _)): Args<(String, u8)>, ack| {
                heard.lock().unwrap().push(format!("{name}{}: {text}", namespace.name()));
                assert!(ack.is_none());
            });
            root.on_server_side("name", move |_, (), ack| {
                if let (true, Some(ack)) = (name != "three", ack) {
                    ack.send((name,)).unwrap();
                }
            });
        })
    };
    let one = Server::with(named("one")).await;
    let two = Server::with(named("two")).await;
    one.root().server_side_emit("say", ("hello", 1)).unwrap();
    one.root().server_side_emit("say", (1,)).unwrap();
    one.root().server_side_emit("unknown", ()).unwrap();
    assert!(one.root().server_side_emit("connect", ()).is_err());
    until("the event", || !said.lock().unwrap().is_empty()).await;
    assert_eq!(*said.lock().unwrap(), ["two/: hello"]);
    let acks = one.root().server_side_emit_with_ack::<String>("name", ()).await.unwrap();
    assert!(acks.is_complete(), "{acks:?}");
    assert_eq!(acks.answers, ["two"]);
    let three = Server::with(named("three")).await;
    let acks = one.root().server_side_emit_with_ack::<String>("name", ()).await.unwrap();
    assert_eq!((&acks.answers[..], acks.missing_elsewhere), (&["two".to_owned()][..], 1));
    for server in [one, two, three] {
        server.finish().await;
    }
}

#[tokio::test]
async fn an_instance_cut_off_serves_its_own_and_says_so() {
    let mesh = Mesh::default();
    let (one, two) = pair(&mesh).await;
    let (mut a, _) = member(&one, "a").await;
    let (mut b, _) = member(&two, "b").await;
    mesh.state().down = true;
    one.root().emit("here", ()).unwrap();
    a.expect([r#"42["here"]"#]).await;
    assert_eq!(one.root().sockets_join("c"), Err(ClusterError::Unreachable));
    assert_eq!(one.root().to("c").sockets().len(), 1);
    let partial = one.root().fetch_sockets().await.unwrap_err();
    assert_eq!((partial.sockets.len(), &partial.silent[..]), (1, &[][..]));
    assert_eq!(ClusterError::from(partial), ClusterError::Unreachable);
    let root = one.root();
    let asking = tokio::spawn(async move { root.emit_with_ack::<u8>("q", (), TIMEOUT).await.unwrap() });
    a.expect([r#"420["q"]"#]).await;
    a.send("430[1]").await;
    let acks = asking.await.unwrap();
    assert_eq!((&acks.answers[..], acks.error), (&[1][..], Some(ClusterError::Unreachable)));
    mesh.state().down = false;
    fenced(&mut b).await;
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn an_instance_that_does_not_answer_is_named_and_the_others_are_heard() {
    let mesh = Mesh::default();
    let add = |root: &mut NamespaceBuilder| {
        handlers(root);
        root.on_server_side("who", |_, (), ack| ack.unwrap().send((1,)).unwrap());
    };
    let one = Server::with(mesh.builder().namespace("/", add)).await;
    let two = Server::with(mesh.builder().namespace("/", add)).await;
    let three = Server::with(mesh.builder().namespace("/", add)).await;
    let (a, a_id) = member(&one, "a").await;
    let (mut b, b_id) = member(&two, "b").await;
    let (c, _) = member(&three, "c").await;
    let all = one.root().fetch_sockets().await.unwrap();
    assert_eq!(all.len(), 3);
    mesh.state().hung = Some(2);
    let timeout = ClusterError::Timeout { answered: 1, asked: Some(2) };
    let partial = one.root().fetch_sockets().await.unwrap_err();
    let ids: HashSet<&str> = partial.sockets.iter().map(|socket| socket.id()).collect();
    assert_eq!(ids, HashSet::from([&*a_id, &*b_id]));
    assert_eq!((&partial.silent[..], &partial.error), (&[name(2)][..], &timeout));
    let said = r#"not all sockets are known: 1 of 2 other instances answered in time; silent: ["instance 2"]"#;
    assert_eq!(partial.to_string(), said);
    let acks = one.root().server_side_emit_with_ack::<u8>("who", ()).await.unwrap();
    assert_eq!((&acks.answers[..], acks.missing_elsewhere), (&[1][..], 1));
    assert_eq!((&acks.silent[..], acks.error), (&[name(2)][..], Some(timeout.clone())));
    let root = one.root();
    let asking = tokio::spawn(async move { root.to("b").emit_with_ack::<u8>("q", (), 10 * SOON).await.unwrap() });
    b.expect([r#"420["q"]"#]).await;
    b.send("430[5]").await;
    let acks = asking.await.unwrap();
    assert_eq!((&acks.answers[..], acks.missing_elsewhere), (&[5][..], 0));
    assert_eq!((&acks.silent[..], acks.error), (&[name(2)][..], Some(timeout)));
    // One that has answered need not wait for an instance that has nothing to do with it.
    let far = all.iter().find(|socket| socket.id() == b_id).unwrap().clone();
    let asking = tokio::spawn(async move { far.emit_with_ack::<u8>("q", (), Duration::from_secs(3_600)).await });
    b.expect([r#"421["q"]"#]).await;
    b.send("431[6]").await;
    assert_eq!(tokio::time::timeout(TIMEOUT, asking).await.unwrap().unwrap(), Ok(6));
    mesh.state().hung = None;
    assert_eq!(one.root().fetch_sockets().await.unwrap().len(), 3);
    drop((a, b, c));
    for server in [one, two, three] {
        server.finish().await;
    }
}

#[tokio::test]
async fn an_instance_alone_asks_nobody_else() {
    let server = Server::start(handlers).await;
    let (mut a, a_id) = member(&server, "a").await;
    let sockets = server.root().fetch_sockets().await.unwrap();
    assert_eq!(sockets.iter().map(|socket| socket.id()).collect::<Vec<_>>(), [&*a_id]);
    server.root().server_side_emit("nobody", ()).unwrap();
    assert!(server.root().server_side_emit_with_ack::<u8>("nobody", ()).await.unwrap().is_complete());
    let root = server.root();
    let asking = tokio::spawn(async move { root.emit_with_ack::<u8>("q", (), TIMEOUT).await.unwrap() });
    a.expect([r#"420["q"]"#]).await;
    a.send("430[1]").await;
    assert_eq!(asking.await.unwrap().answers, [1]);
    server.finish().await;
}
