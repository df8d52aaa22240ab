//! From a request's query to a decision: open a session, attach to one, or refuse; and the `open` packet.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::config::Config;
use crate::error::RequestError;

/// A way for packets to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

impl Transport {
    /// Returns the name that the query parameter `transport` carries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::WebSocket => "websocket",
        }
    }
}

/// Length of a session id in characters, without an instance.
const SID_LEN: usize = 20;
/// Length of an instance's name in characters.
const INSTANCE_LEN: usize = 8;
const NAMED_SID_LEN: usize = SID_LEN + INSTANCE_LEN;

/// The name of an instance among those that pass each other requests: 8 characters of `A-Za-z0-9_-` from 48 random
/// bits. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instance([u8; INSTANCE_LEN]);

impl Instance {
    /// Makes a name from 6 bytes, which should come from a generator that starts differently in each instance.
    pub fn from_random(random: [u8; 6]) -> Self {
        let mut name = [0; INSTANCE_LEN];
        write_base64(&random, &mut name);
        Self(name)
    }

    /// Reads a name; `None` where it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; INSTANCE_LEN] = text.as_bytes().try_into().ok()?;
        bytes.iter().all(is_base64).then_some(Self(bytes))
    }

    /// Returns the name's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instance").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The id of a session: 20 characters of `A-Za-z0-9_-` from 120 random bits, and behind them the 8 of the instance that
/// has the session, where there are several.
///
/// It is a secret: who knows it can take the session over. It never appears whole in `Debug` output.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid {
    /// What is not used is zero.
    bytes: [u8; NAMED_SID_LEN],
    named: bool,
}

impl Sid {
    /// Makes an id from 15 bytes, which must come from a secure generator.
    pub fn from_random(random: [u8; 15]) -> Self {
        let mut bytes = [0; NAMED_SID_LEN];
        write_base64(&random, &mut bytes);
        Self { bytes, named: false }
    }

    /// Adds the instance that has the session, in place of one that the id names already.
    #[must_use]
    pub fn at(mut self, instance: Instance) -> Self {
        self.bytes[SID_LEN..].copy_from_slice(&instance.0);
        self.named = true;
        self
    }

    /// Reads an id from a query; `None` where it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let named = match text.len() {
            SID_LEN => false,
            NAMED_SID_LEN => true,
            _ => return None,
        };
        let mut bytes = [0; NAMED_SID_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        text.as_bytes().iter().all(is_base64).then_some(Self { bytes, named })
    }

    /// Returns the instance that has the session, if the id names one. The client may have made it up.
    pub fn instance(&self) -> Option<Instance> {
        let (_, name) = self.bytes.split_last_chunk()?;
        self.named.then_some(Instance(*name))
    }

    /// Returns the id's text. Keep it out of logs and of what other clients see.
    pub fn expose(&self) -> &str {
        let len = if self.named { NAMED_SID_LEN } else { SID_LEN };
        std::str::from_utf8(&self.bytes[..len]).unwrap_or_default()
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(..)")
    }
}

/// Writes whole groups of 3 bytes as 4 characters each.
fn write_base64(bytes: &[u8], out: &mut [u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (group, out) in bytes.chunks_exact(3).zip(out.chunks_exact_mut(4)) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (index, out) in out.iter_mut().enumerate() {
            *out = ALPHABET[(bits >> (18 - 6 * index)) as usize & 63];
        }
    }
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A new session on this transport.
    Open(Transport),
    /// A poll: the next packets of the session.
    Poll(Sid),
    /// Packets for the session.
    Post(Sid),
    /// A WebSocket that wants to become the session's transport.
    Upgrade(Sid),
    /// A request that the transport has no use for: status 500, the session lives on.
    Unusable(Sid),
    /// A WebSocket handshake for `transport=polling`. The reference completes the handshake and closes; so do we.
    Mistaken,
}

impl Intent {
    /// Returns the session that the request is for, if it names one.
    pub fn sid(&self) -> Option<&Sid> {
        match self {
            Self::Poll(sid) | Self::Post(sid) | Self::Upgrade(sid) | Self::Unusable(sid) => Some(sid),
            Self::Open(_) | Self::Mistaken => None,
        }
    }
}

/// The facts of a request that decide its fate.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The query, without `?`.
    pub query: &'a str,
    /// Whether the request wants to become a WebSocket.
    pub upgrade: bool,
}

/// Decides what a request asks for. Whether its `sid` is known is for the caller to find out, with
/// [`RequestError::UnknownSid`] as the answer if not.
///
/// The order of the checks is engine.io 6.6's: transport, session, method, protocol revision.
///
/// # Errors
/// [`RequestError`], whose mapping to status and body is fixed.
pub fn route(facts: RequestFacts<'_>, config: &Config) -> Result<Intent, RequestError> {
    let query = Query::parse(facts.query);
    let transport = match &*query.transport {
        "polling" => Transport::Polling,
        "websocket" => Transport::WebSocket,
        _ => return Err(RequestError::UnknownTransport),
    };
    if !config.transports.allows(transport) {
        return Err(RequestError::UnknownTransport);
    }
    if query.jsonp && transport == Transport::Polling {
        return Err(RequestError::BadRequest);
    }
    if query.sid.is_empty() {
        if facts.method != "GET" {
            return Err(RequestError::BadHandshakeMethod);
        }
        if transport == Transport::WebSocket && !facts.upgrade {
            return Err(RequestError::BadRequest);
        }
        if query.eio != REVISION {
            return Err(RequestError::UnsupportedProtocol);
        }
        if transport == Transport::Polling && facts.upgrade {
            return Ok(Intent::Mistaken);
        }
        return Ok(Intent::Open(transport));
    }
    let sid = Sid::parse(&query.sid).ok_or(RequestError::UnknownSid)?;
    // A session's revision is always 4, so a request that names another is at odds with it (CVE-2026-102599).
    if query.eio != REVISION {
        return Err(RequestError::BadRequest);
    }
    Ok(match (transport, facts.upgrade, facts.method) {
        (Transport::WebSocket, true, _) => Intent::Upgrade(sid),
        (Transport::WebSocket, false, _) => return Err(RequestError::BadRequest),
        (Transport::Polling, true, _) => Intent::Mistaken,
        (Transport::Polling, false, "GET") => Intent::Poll(sid),
        (Transport::Polling, false, "POST") => Intent::Post(sid),
        (Transport::Polling, false, _) => Intent::Unusable(sid),
    })
}

/// The protocol revision that `EIO` must carry.
const REVISION: &str = "4";

/// The query parameters that matter, decoded; of a repeated one the last counts.
#[derive(Default)]
struct Query<'a> {
    eio: Cow<'a, str>,
    transport: Cow<'a, str>,
    sid: Cow<'a, str>,
    jsonp: bool,
}

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "EIO" => parsed.eio = value,
                "transport" => parsed.transport = value,
                "sid" => parsed.sid = value,
                "j" => parsed.jsonp = true,
                _ => {}
            }
        }
        parsed
    }
}

/// Returns the text of the `open` packet for a new session, keys in the reference's order.
///
/// Source: Engine.IO protocol v4, "Handshake".
pub fn open_packet(sid: &Sid, transport: Transport, config: &Config) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Open<'a> {
        sid: &'a str,
        upgrades: &'a [&'a str],
        ping_interval: u64,
        ping_timeout: u64,
        max_payload: usize,
    }
    let upgrades: &[&str] =
        if transport == Transport::Polling && config.transports.websocket { &["websocket"] } else { &[] };
    let open = Open {
        sid: sid.expose(),
        upgrades,
        ping_interval: whole_millis(config.ping_interval),
        ping_timeout: whole_millis(config.ping_timeout),
        max_payload: config.max_payload_bytes,
    };
    // Plain strings and numbers always serialise.
    format!("0{}", serde_json::to_string(&open).unwrap_or_default())
}

/// A fraction of a millisecond is rounded up, so that no client is told less time than it has.
fn whole_millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transports;

    const SID: &str = "AAAAAAAAAAAAAAAAAAAA";

    fn decide(method: &str, query: &str, upgrade: bool) -> Result<Intent, RequestError> {
        route(RequestFacts { method, query, upgrade }, &Config::default())
    }

    fn sid() -> Sid {
        Sid::from_random([0; 15])
    }

    #[test]
    fn a_plain_handshake_opens_a_session() {
        assert_eq!(decide("GET", "EIO=4&transport=polling", false), Ok(Intent::Open(Transport::Polling)));
        assert_eq!(decide("GET", "EIO=4&transport=polling&t=abc", false), Ok(Intent::Open(Transport::Polling)));
        assert_eq!(decide("GET", "EIO=4&transport=websocket", true), Ok(Intent::Open(Transport::WebSocket)));
        assert_eq!(decide("GET", "EIO=4&transport=polling&sid=", false), Ok(Intent::Open(Transport::Polling)));
    }

    #[test]
    fn an_unknown_transport_comes_first() {
        for query in [
            "",
            "EIO=4",
            "EIO=4&transport=abc",
            "EIO=3&transport=__proto__&sid=x",
            "transport=constructor",
            "EIO=4&transport=webtransport",
        ] {
            for upgrade in [false, true] {
                assert_eq!(decide("GET", query, upgrade), Err(RequestError::UnknownTransport), "{query}");
            }
        }
    }

    #[test]
    fn a_transport_that_is_off_is_unknown() {
        let config = Config { transports: Transports { polling: false, websocket: true }, ..Config::default() };
        let facts = RequestFacts { method: "GET", query: "EIO=4&transport=polling", upgrade: false };
        assert_eq!(route(facts, &config), Err(RequestError::UnknownTransport));
        assert!(open_packet(&sid(), Transport::WebSocket, &config).contains(r#""upgrades":[]"#));
    }

    #[test]
    fn a_sid_that_cannot_be_one_is_unknown() {
        for wrong in [
            "abc",
            "__proto__",
            "constructor",
            "AAAAAAAAAAAAAAAAAAA%20",
            "AAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAA+",
            "AAAAAAAAAAAAAAAAAA%C3%A9",
            "AAAAAAAAAAAAAAAAAAA%ff",
            "AAAAAAAAAAAAAAAAAAA%",
        ] {
            let query = format!("EIO=4&transport=polling&sid={wrong}");
            assert_eq!(decide("GET", &query, false), Err(RequestError::UnknownSid), "{wrong}");
        }
    }

    #[test]
    fn a_handshake_is_a_get() {
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
            assert_eq!(decide(method, "EIO=4&transport=polling", false), Err(RequestError::BadHandshakeMethod));
        }
    }

    #[test]
    fn the_revision_of_a_handshake_is_4() {
        for query in [
            "transport=polling",
            "EIO=3&transport=polling",
            "EIO=04&transport=polling",
            "EIO=abc&transport=polling",
            "EIO=4&EIO=3&transport=polling",
        ] {
            assert_eq!(decide("GET", query, false), Err(RequestError::UnsupportedProtocol), "{query}");
        }
        assert_eq!(decide("GET", "EIO=3&EIO=4&transport=polling", false), Ok(Intent::Open(Transport::Polling)));
        assert_eq!(decide("GET", "EIO=3&transport=websocket", true), Err(RequestError::UnsupportedProtocol));
    }

    #[test]
    fn a_session_keeps_its_revision() {
        for eio in ["", "EIO=3&", "EIO=&"] {
            for (transport, upgrade) in [("polling", false), ("websocket", true)] {
                let query = format!("{eio}transport={transport}&sid={SID}");
                assert_eq!(decide("GET", &query, upgrade), Err(RequestError::BadRequest), "{query}");
            }
        }
    }

    #[test]
    fn websocket_needs_an_upgrade() {
        assert_eq!(decide("GET", "EIO=4&transport=websocket", false), Err(RequestError::BadRequest));
        let query = format!("EIO=4&transport=websocket&sid={SID}");
        assert_eq!(decide("GET", &query, false), Err(RequestError::BadRequest));
        assert_eq!(decide("GET", &query, true), Ok(Intent::Upgrade(sid())));
    }

    #[test]
    fn polling_never_upgrades_itself() {
        assert_eq!(decide("GET", "EIO=4&transport=polling", true), Ok(Intent::Mistaken));
    }

    #[test]
    fn requests_of_a_session_go_by_their_method() {
        let query = format!("EIO=4&transport=polling&sid={SID}");
        assert_eq!(decide("GET", &query, false), Ok(Intent::Poll(sid())));
        assert_eq!(decide("POST", &query, false), Ok(Intent::Post(sid())));
        for method in ["PUT", "DELETE", "PATCH", "HEAD"] {
            assert_eq!(decide(method, &query, false), Ok(Intent::Unusable(sid())));
        }
    }

    #[test]
    fn jsonp_is_refused() {
        assert_eq!(decide("GET", "EIO=4&transport=polling&j=0", false), Err(RequestError::BadRequest));
        assert_eq!(decide("GET", "EIO=4&transport=polling&j", false), Err(RequestError::BadRequest));
        assert_eq!(decide("GET", "EIO=4&transport=websocket&j=0", true), Ok(Intent::Open(Transport::WebSocket)));
    }

    #[test]
    fn parameters_are_decoded() {
        let sid: String = SID.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let query = format!("%45IO=%34&transport=poll%69ng&s%69d={sid}");
        assert_eq!(decide("GET", &query, false), Ok(Intent::Poll(self::sid())));
        assert_eq!(decide("GET", "EIO=4&transport=polling+", false), Err(RequestError::UnknownTransport));
    }

    #[test]
    fn the_open_packet_has_the_reference_key_order() {
        assert_eq!(
            open_packet(&sid(), Transport::Polling, &Config::default()),
            r#"0{"sid":"AAAAAAAAAAAAAAAAAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
    }

    #[test]
    fn a_sid_uses_all_its_bits_and_hides_in_logs() {
        let sid = Sid::from_random([0xff, 0xef, 0xbe, 0, 0, 1, 0, 0, 63, 1, 2, 3, 4, 5, 6]);
        assert_eq!(sid.expose(), "_---AAABAAA_AQIDBAUG");
        assert_eq!(Sid::parse(sid.expose()), Some(sid));
        assert_eq!(format!("{sid:?}"), "Sid(..)");
        assert_eq!(sid.instance(), None);
    }

    #[test]
    fn a_sid_may_name_the_instance_that_has_it() {
        let instance = Instance::from_random([0xff, 0xef, 0xbe, 0, 0, 1]);
        assert_eq!((instance.as_str(), Instance::parse("_---AAAB")), ("_---AAAB", Some(instance)));
        let at = sid().at(instance);
        assert_eq!(at.expose(), "AAAAAAAAAAAAAAAAAAAA_---AAAB");
        assert_eq!(at.instance(), Some(instance));
        assert_eq!(Sid::parse(at.expose()), Some(at));
        assert_ne!(at, sid());
        assert_eq!(at.at(Instance::from_random([0; 6])).expose(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(format!("{at:?}"), "Sid(..)");
        for wrong in ["_---AAA", "_---AAABA", "_---AAA=", "__proto_\u{e9}", ""] {
            assert_eq!(Instance::parse(wrong), None, "{wrong}");
        }
        for wrong in ["A".repeat(21), "A".repeat(27), "A".repeat(29), format!("{}%20AAAAA", "A".repeat(20))] {
            assert_eq!(Sid::parse(&wrong), None, "{wrong}");
        }
    }
}
