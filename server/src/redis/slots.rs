//! Which node of a Redis Cluster has which keys.

use redis::Value;

use crate::config::RedisServer;

/// The nodes of a cluster and the slots they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots(Vec<Range>);

/// Slots in a row that one node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    server: RedisServer,
}

impl Slots {
    /// Reads the answer to `CLUSTER SLOTS`. A node without a name of its own is the one that was asked.
    pub(super) fn read(answer: &Value, asked: &RedisServer) -> Option<Self> {
        let mut ranges = array(answer)?.iter().map(|range| read_range(range, asked)).collect::<Option<Vec<_>>>()?;
        ranges.sort_by_key(|range| range.first);
        Some(Self(ranges))
    }

    /// The node that serves a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&RedisServer> {
        let range = self.0.get(self.0.partition_point(|range| range.last < slot))?;
        (range.first <= slot).then_some(&range.server)
    }

    /// All nodes that serve slots, each once.
    pub(super) fn servers(&self) -> Vec<RedisServer> {
        let mut servers: Vec<_> = self.0.iter().map(|range| range.server.clone()).collect();
        servers.sort();
        servers.dedup();
        servers
    }
}

fn read_range(range: &Value, asked: &RedisServer) -> Option<Range> {
    let [first, last, master, ..] = array(range)? else { return None };
    let [host, port, ..] = array(master)? else { return None };
    let named: Option<String> = redis::from_redis_value_ref(host).ok()?;
    let host = named.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.host.clone());
    Some(Range { first: number(first)?, last: number(last)?, server: RedisServer { host, port: number(port)? } })
}

/// Reads the address that a redirection names: `host:port`, the host left out where it is the one that was asked.
pub(super) fn read_address(address: &str, asked: &RedisServer) -> Option<RedisServer> {
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { asked.host.clone() } else { host.to_owned() };
    Some(RedisServer { host, port: port.parse().ok()? })
}

/// The slot of a key: of the part in the first braces, if there is one.
///
/// Source: Redis Cluster specification, "Hash tags".
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').filter(|&end| end > 0).map(|end| &rest[..end])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8)
            .fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

fn array(value: &Value) -> Option<&[Value]> {
    if let Value::Array(values) = value { Some(values) } else { None }
}

fn number(value: &Value) -> Option<u16> {
    redis::from_redis_value_ref(value).ok()
}

const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> RedisServer {
        RedisServer { host: host.to_owned(), port }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn keys_fall_into_the_slots_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"room:{foo}:playback"), 12_182);
        assert_eq!(slot_of(b"{foo}{bar}"), 12_182);
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"{foo"), crc16(b"{foo") % SLOTS);
    }

    #[test]
    fn the_owner_of_a_slot_is_found() {
        let range = |first, last, host: Value, port| {
            let master = Value::Array(vec![host, Value::Int(port), bulk("id"), Value::Array(vec![])]);
            let replica = Value::Array(vec![bulk("9.9.9.9"), Value::Int(9)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
        };
        let answer = Value::Array(vec![
            range(10, 20, bulk("b"), 2),
            range(0, 5, Value::Nil, 1),
            range(21, 21, bulk(""), 3),
            range(22, 16_383, bulk("b"), 2),
        ]);
        let slots = Slots::read(&answer, &server("asked", 7)).unwrap();
        assert_eq!(slots.servers(), [server("asked", 1), server("asked", 3), server("b", 2)]);
        for (slot, owner) in [
            (0, Some(server("asked", 1))),
            (5, Some(server("asked", 1))),
            (6, None),
            (9, None),
            (10, Some(server("b", 2))),
            (21, Some(server("asked", 3))),
            (16_383, Some(server("b", 2))),
        ] {
            assert_eq!(slots.owner(slot), owner.as_ref(), "{slot}");
        }
        assert_eq!(Slots::default().owner(0), None);
        assert_eq!(Slots::read(&Value::Okay, &server("asked", 7)), None);
        assert_eq!(Slots::read(&Value::Array(vec![Value::Int(1)]), &server("asked", 7)), None);
    }

    #[test]
    fn a_redirection_names_an_address() {
        let asked = server("asked", 1);
        assert_eq!(read_address("10.0.0.1:7", &asked), Some(server("10.0.0.1", 7)));
        assert_eq!(read_address(":7", &asked), Some(server("asked", 7)));
        assert_eq!(read_address("::1:7", &asked), Some(server("::1", 7)));
        assert_eq!(read_address("host", &asked), None);
    }
}
