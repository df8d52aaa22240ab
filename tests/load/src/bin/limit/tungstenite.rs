//! The server one would write without an afterthought on tokio-tungstenite: a task and a channel for each connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, interval_at};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use crate::packet::{CONNECTED, OPEN, PING, PING_INTERVAL, Packet};

pub(crate) fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let rooms = Rooms::default();
        for number in 0.. {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let rooms = Rc::clone(&rooms);
            spawn_local(async move {
                let _left = Client::run(stream, number, &rooms).await;
                rooms.borrow_mut().values_mut().for_each(|members| drop(members.remove(&number)));
            });
        }
        Ok(())
    })
}

/// The members of each room by their number.
type Rooms = Rc<RefCell<HashMap<String, HashMap<u64, UnboundedSender<Utf8Bytes>>>>>;

struct Client<'a> {
    number: u64,
    rooms: &'a Rooms,
    room: Option<String>,
    socket: WebSocketStream<TcpStream>,
    outbox: UnboundedSender<Utf8Bytes>,
}

impl Client<'_> {
    async fn run(stream: TcpStream, number: u64, rooms: &Rooms) -> Result<(), Error> {
        // The default of 128 KiB would be most of what an idle connection takes.
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let mut socket = accept_async_with_config(stream, Some(config)).await?;
        socket.send(Message::text(OPEN)).await?;
        let (outbox, inbox) = unbounded_channel();
        Client { number, rooms, room: None, socket, outbox }.serve(inbox).await
    }

    async fn serve(mut self, mut inbox: UnboundedReceiver<Utf8Bytes>) -> Result<(), Error> {
        let interval = Duration::from_secs(PING_INTERVAL);
        let mut heartbeat = interval_at(Instant::now() + interval, interval);
        loop {
            tokio::select! {
                message = self.socket.next() => {
                    let mut next = Some(message);
                    while let Some(message) = next {
                        let Some(message) = message.transpose()? else { return Ok(()) };
                        self.on_message(message).await?;
                        next = self.socket.next().now_or_never(); // what has come is answered in one write
                    }
                }
                Some(event) = inbox.recv() => {
                    let mut next = Some(event);
                    while let Some(event) = next {
                        self.socket.feed(Message::Text(event)).await?;
                        next = inbox.try_recv().ok();
                    }
                }
                _ = heartbeat.tick() => self.socket.feed(Message::text(PING)).await?,
            }
            self.socket.flush().await?;
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), Error> {
        let Message::Text(text) = message else { return Ok(()) };
        let answer = match Packet::parse(&text) {
            Packet::Connect => CONNECTED.into(),
            Packet::Join { id, room } => {
                let mut rooms = self.rooms.borrow_mut();
                rooms.entry(room.to_owned()).or_default().insert(self.number, self.outbox.clone());
                self.room = Some(room.to_owned());
                format!("43/bench,{id}[]").into()
            }
            Packet::Cast => {
                let rooms = self.rooms.borrow();
                for member in self.room.iter().filter_map(|room| rooms.get(room)).flat_map(HashMap::values) {
                    let _left = member.send(text.clone());
                }
                return Ok(());
            }
            Packet::Echo { id, payload } => format!("43/bench,{id}[{payload}]").into(),
            Packet::Other => return Ok(()),
        };
        self.socket.feed(Message::Text(answer)).await
    }
}
