//! The other side of the dialogue, and short names for actions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use socketio::{
    Action, CloseReason, Connection, ConnectionConfig, Data, DecodeError, Event, Input, NamespaceState, PacketKind,
    Slot, Violation,
};

/// A connection and the time it believes in.
pub(crate) struct Dialogue {
    connection: Connection,
    pub(crate) now: Instant,
}

impl Dialogue {
    pub(crate) fn new() -> Self {
        Self::with(ConnectionConfig::default())
    }

    pub(crate) fn with(config: ConnectionConfig) -> Self {
        let now = Instant::now();
        Self { connection: Connection::new(config, now), now }
    }

    /// Has joined these namespaces, in slots counted from zero.
    pub(crate) fn joined<const N: usize>(namespaces: [&str; N]) -> Self {
        Self::new().join(namespaces)
    }

    pub(crate) fn join<const N: usize>(mut self, namespaces: [&str; N]) -> Self {
        for (slot, name) in namespaces.into_iter().enumerate() {
            self.text(&format!("0{name},"));
            self.accept(slot as u64);
        }
        self
    }

    pub(crate) fn hear(&mut self, input: Input) -> Vec<Action> {
        self.connection.handle(input, self.now);
        self.actions()
    }

    /// Takes note without polling.
    pub(crate) fn note(&mut self, input: Input) {
        self.connection.handle(input, self.now);
    }

    pub(crate) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.connection.poll_action()).collect()
    }

    pub(crate) fn text(&mut self, text: &str) -> Vec<Action> {
        self.hear(Input::Text(text.into()))
    }

    pub(crate) fn binary(&mut self, bytes: &'static [u8]) -> Vec<Action> {
        self.hear(Input::Binary(Bytes::from_static(bytes)))
    }

    pub(crate) fn accept(&mut self, slot: u64) -> Vec<Action> {
        self.hear(Input::Accept { slot: Slot::nth(slot), sid: "s1".into(), pid: None })
    }

    pub(crate) fn refuse(&mut self, slot: u64, message: &str) -> Vec<Action> {
        self.hear(Input::Refuse { slot: Slot::nth(slot), message: message.to_owned(), data: None })
    }

    pub(crate) fn disconnect(&mut self, slot: u64) -> Vec<Action> {
        self.hear(Input::Disconnect { slot: Slot::nth(slot) })
    }

    /// Expects an ack, within some seconds if any are given.
    pub(crate) fn expect_ack(&mut self, slot: u64, id: u64, seconds: Option<u64>) -> Vec<Action> {
        let deadline = seconds.map(|seconds| self.now + Duration::from_secs(seconds));
        self.hear(Input::ExpectAck { slot: Slot::nth(slot), id, deadline })
    }

    /// Lets time pass, then says so.
    pub(crate) fn wait(&mut self, seconds: u64) -> Vec<Action> {
        self.now += Duration::from_secs(seconds);
        self.hear(Input::Timeout)
    }

    /// Seconds until the alarm.
    pub(crate) fn alarm(&self) -> Option<u64> {
        self.connection.poll_timeout().map(|at| at.saturating_duration_since(self.now).as_secs())
    }

    /// Asserts that whatever happens now leads to nothing.
    pub(crate) fn assert_silent(&mut self) {
        assert_eq!(self.text("0"), []);
        assert_eq!(self.text(r#"2["e"]"#), []);
        assert_eq!(self.text(r#"51-["e"]"#), []);
        assert_eq!(self.binary(b"x"), []);
        assert_eq!(self.accept(0), []);
        assert_eq!(self.disconnect(0), []);
        assert_eq!(self.expect_ack(0, 1, Some(0)), []);
        assert_eq!(self.hear(Input::Malformed), []);
        assert_eq!(self.wait(1000), []);
        assert_eq!(self.alarm(), None);
    }
}

pub(crate) fn connect(slot: u64, namespace: &str, auth: Option<&str>) -> Action {
    Action::Connect { slot: Slot::nth(slot), namespace: namespace.into(), auth: auth.map(Into::into) }
}

pub(crate) fn event(slot: u64, json: &str, ack: Option<u64>) -> Action {
    binary_event(slot, json, ack, [])
}

pub(crate) fn binary_event<const N: usize>(
    slot: u64,
    json: &str,
    ack: Option<u64>,
    attachments: [&'static [u8]; N],
) -> Action {
    let attachments = attachments.map(Bytes::from_static).to_vec();
    Action::Event {
        slot: Slot::nth(slot),
        event: Event::from_json(json, attachments).expect("a test names an event that can be"),
        ack,
    }
}

pub(crate) fn ack(slot: u64, id: u64, json: &str) -> Action {
    binary_ack(slot, id, json, [])
}

pub(crate) fn binary_ack<const N: usize>(slot: u64, id: u64, json: &str, attachments: [&'static [u8]; N]) -> Action {
    let attachments = attachments.map(Bytes::from_static).to_vec();
    Action::Ack {
        slot: Slot::nth(slot),
        id,
        data: Data::from_json(json, attachments).expect("a test names data that can be"),
    }
}

pub(crate) fn expired(slot: u64, id: u64) -> Action {
    Action::AckExpired { slot: Slot::nth(slot), id }
}

pub(crate) fn disconnected(slot: u64) -> Action {
    Action::Disconnected { slot: Slot::nth(slot) }
}

pub(crate) fn write(text: &str) -> Action {
    Action::Write(text.into())
}

pub(crate) fn malformed(error: DecodeError) -> Action {
    Action::Close(CloseReason::Malformed(error))
}

pub(crate) fn violation(kind: PacketKind, state: NamespaceState) -> Action {
    Action::Close(CloseReason::Violation(Violation::Unexpected { kind, state }))
}

/// One test for each message that closes a connection which has joined `/`.
macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident: $message:expr => $action:expr;)+) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                let mut dialogue = $crate::support::Dialogue::joined(["/"]);
                assert_eq!(dialogue.text(&$message), [$action]);
                dialogue.assert_silent();
            }
        )+
    };
}
pub(crate) use closes;
