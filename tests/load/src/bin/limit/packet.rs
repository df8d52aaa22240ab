//! The few packets a client of the benchmark sends.

/// A packet, with the text of its ack id and of its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Connect,
    Join {
        id: &'a str,
        room: &'a str,
    },
    /// To be sent to the room as it is: the packet is the same in both directions.
    Cast,
    Echo {
        id: &'a str,
        payload: &'a str,
    },
    /// A pong, or nothing of ours.
    Other,
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        if text.starts_with("40/bench,") {
            return Self::Connect;
        }
        let Some(event) = text.strip_prefix("42/bench,") else { return Self::Other };
        let (id, array) = event.split_at(event.find('[').unwrap_or(event.len()));
        let argument = |start| array.strip_prefix(start)?.strip_suffix(']');
        if let Some(payload) = argument(r#"["echo","#) {
            Self::Echo { id, payload }
        } else if let Some(room) = argument(r#"["join","#) {
            Self::Join { id, room }
        } else if array.starts_with(r#"["cast","#) {
            Self::Cast
        } else {
            Self::Other
        }
    }
}

/// The first packet. All sessions have one id, which nobody asks about.
pub(crate) const OPEN: &str = concat!(
    r#"0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"#,
    r#""maxPayload":1000000}"#
);

/// The answer to [`Packet::Connect`].
pub(crate) const CONNECTED: &str = r#"40/bench,{"sid":"BBBBBBBBBBBBBBBBBBBB"}"#;

pub(crate) const PING: &str = "2";

/// Seconds between two pings of one connection.
pub(crate) const PING_INTERVAL: u64 = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_the_benchmark_are_told_apart() {
        for (text, packet) in [
            ("40/bench,", Packet::Connect),
            ("42/bench,7[\"join\",\"a\"]", Packet::Join { id: "7", room: "\"a\"" }),
            ("42/bench,[\"cast\",\"x\"]", Packet::Cast),
            ("42/bench,12[\"echo\",\"[x]\"]", Packet::Echo { id: "12", payload: "\"[x]\"" }),
            ("3", Packet::Other),
            ("42/bench,", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text), packet, "{text}");
        }
    }
}
