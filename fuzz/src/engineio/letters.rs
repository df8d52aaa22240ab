//! Letters of other instances, which may be anything.

use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use engineio::server::{Application, Handler, Handshake, Link, Mailroom, Relay, Socket, Undelivered};
use engineio::{Config, Instance, Message, Server};

/// The letters that an instance gets, each behind a byte with its length.
///
/// Nobody has a session there, so whatever they say, the server holds nothing afterwards, and answers each at most once,
/// with something that another instance takes for a letter.
///
/// # Panics
/// When one of these is broken.
pub fn engineio_letters(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (one, other) = (Desk::new(1), Desk::new(2));
        let open = server(&one);
        let _open_too = server(&other);
        let mut count = 0;
        let mut rest = data;
        while let Some((&len, letters)) = rest.split_first() {
            let (letter, more) = letters.split_at(letters.len().min(len.into()));
            one.deliver(Bytes::copy_from_slice(letter));
            (rest, count) = (more, count + 1);
            tokio::task::yield_now().await;
        }
        let answers = std::mem::take(&mut *one.sent.lock().expect("nothing panics under it"));
        assert!(answers.len() <= count, "{} answers to {count} letters", answers.len());
        answers.into_iter().for_each(|answer| other.deliver(answer));
        assert_eq!(open.stats().lines(), 0);
    });
}

fn server(desk: &Arc<Desk>) -> Server<Nobody> {
    let relay: Arc<dyn Relay> = Arc::<Desk>::clone(desk);
    Server::with_relay(Config::default(), Nobody, relay).expect("the default is valid")
}

/// Keeps what is sent.
struct Desk {
    instance: Instance,
    mailroom: OnceLock<Mailroom>,
    sent: Mutex<Vec<Bytes>>,
}

impl Desk {
    fn new(number: u8) -> Arc<Self> {
        let instance = Instance::from_random([number; 6]);
        Arc::new(Self { instance, mailroom: OnceLock::new(), sent: Mutex::default() })
    }

    fn deliver(&self, letter: Bytes) {
        self.mailroom.get().expect("the server is made").deliver(letter);
    }
}

impl Relay for Desk {
    fn instance(&self) -> Instance {
        self.instance
    }

    fn open(&self, mailroom: Mailroom) {
        assert!(self.mailroom.set(mailroom).is_ok(), "opened once");
    }

    fn send(&self, _: Instance, letter: Bytes) -> Result<(), Undelivered> {
        self.sent.lock().expect("nothing panics under it").push(letter);
        Ok(())
    }
}

struct Nobody;

impl Application for Nobody {
    type Handler = Self;

    fn open(&self, _: &Handshake<'_>, _: Socket<()>) -> Self {
        Self
    }
}

impl Handler for Nobody {
    type Mail = ();

    fn on_message(&mut self, _: Message, _: &mut Link<'_>) {}
}
