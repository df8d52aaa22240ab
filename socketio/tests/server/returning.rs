//! Clients that can come back, as the published ones do.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::support::{Client, Received, Server, string_field};

/// What a CONNECT was answered with.
pub(crate) struct Session {
    pub(crate) sid: String,
    pub(crate) pid: String,
}

/// Connects with these credentials; returns what came before the answer, too.
pub(crate) async fn connect(server: &Server, auth: &str) -> (Client, Vec<String>, Session) {
    let mut client = Client::open(server).await;
    client.send(&format!("40{auth}")).await;
    let mut replayed = Vec::new();
    loop {
        let text = client.text().await;
        if text.starts_with("40{") {
            let session = Session { sid: string_field(&text, "sid"), pid: string_field(&text, "pid") };
            return (client, replayed, session);
        }
        if text != "2" {
            replayed.push(text);
        }
    }
}

pub(crate) async fn back(server: &Server, session: &Session, offset: Option<&str>) -> (Client, Vec<String>, Session) {
    let offset = offset.map(|offset| format!(",\"offset\":\"{offset}\"")).unwrap_or_default();
    connect(server, &format!("{{\"pid\":\"{}\"{offset}}}", session.pid)).await
}

/// The name and the offset of an event.
pub(crate) fn parts(text: &str) -> (&str, &str) {
    let quoted: Vec<_> = text.strip_prefix("42[").unwrap().split('"').collect();
    (quoted[1], quoted[3])
}

pub(crate) fn names(texts: &[String]) -> Vec<&str> {
    texts.iter().map(|text| parts(text).0).collect()
}

/// A subscriber to the event `number`, whose first argument counts from 0.
pub(crate) struct Subscriber {
    seed: u64,
    dice: u64,
    client: Option<Client>,
    session: Session,
    next: usize,
    offset: Option<String>,
}

impl Subscriber {
    pub(crate) fn new(seed: u64, client: Client, session: Session) -> Self {
        Self {
            seed,
            dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            client: Some(client),
            session,
            next: 0,
            offset: None,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % limit
    }

    fn hear(&mut self, text: &str) {
        if text.starts_with("42[\"number\"") {
            let number: usize = text.split(',').nth(1).unwrap().parse().unwrap();
            assert_eq!(number, self.next, "subscriber {}", self.seed);
            self.next += 1;
            self.offset = Some(text.rsplit('"').nth(1).unwrap().to_owned());
        }
    }

    /// Receives everything in order until all of it was sent and has come. Is cut off again and again, after up to
    /// `online` and for some time `away` in milliseconds, and comes back to any of the servers; returns how often.
    pub(crate) async fn run(
        &mut self,
        servers: &[Arc<Server>],
        online: u64,
        away: Range<u64>,
        sent: &AtomicUsize,
        is_over: &AtomicBool,
    ) -> u64 {
        let mut cuts = 0;
        loop {
            let until = Instant::now() + Duration::from_millis(100 + self.below(online));
            while let Some(client) = &mut self.client
                && let Ok(received) = timeout(until.saturating_duration_since(Instant::now()), client.receive()).await
            {
                match received {
                    Received::Text(text) => self.hear(&text),
                    Received::Binary(_) | Received::End => panic!("subscriber {} was thrown out", self.seed),
                }
            }
            if is_over.load(Ordering::Relaxed) && self.next == sent.load(Ordering::Relaxed) {
                return cuts;
            }
            cuts += 1;
            let at = self.below(servers.len() as u64) as usize;
            let pause = away.start + self.below(away.end - away.start);
            drop(self.client.take()); // without a word
            sleep(Duration::from_millis(pause)).await;
            let (again, replayed, same) = back(&servers[at], &self.session, self.offset.as_deref()).await;
            assert_eq!(same.pid, self.session.pid, "subscriber {} lost its session", self.seed);
            replayed.iter().for_each(|text| self.hear(text));
            self.client = Some(again);
        }
    }
}
