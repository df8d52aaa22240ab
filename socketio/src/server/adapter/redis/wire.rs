//! Messages as JSON and as MessagePack, as notepack.io 3 writes it: binary data is `bin` there, and a placeholder here.

use bytes::Bytes;
use rmpv::Value as Pack;
use serde_json::Value;

/// How deep messages may be nested: the data of a packet at its deepest, and what is around it. `rmpv` counts each level
/// twice.
const MAX_DEPTH: usize = 2 * (crate::MAX_DEPTH + 8);

/// Turns a message into MessagePack; `None` where it is nested too deep.
pub(super) fn to_msgpack<'a>(json: &str, attachments: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let attachments: Vec<&[u8]> = attachments.collect();
    let value = pack(serde_json::from_str(json).ok()?, &attachments);
    let mut out = Vec::with_capacity(json.len() + attachments.iter().map(|bytes| bytes.len()).sum::<usize>());
    rmpv::encode::write_value(&mut out, &value).ok()?;
    Some(out)
}

fn pack(value: Value, attachments: &[&[u8]]) -> Pack {
    match value {
        Value::Null => Pack::Nil,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into_iter().map(Pack::F64).next().unwrap_or(Pack::Nil),
        },
        Value::String(text) => text.into(),
        Value::Array(values) => Pack::Array(values.into_iter().map(|value| pack(value, attachments)).collect()),
        Value::Object(fields) => {
            if let (Some(Value::Bool(true)), Some(num)) = (fields.get("_placeholder"), fields.get("num"))
                && let Some(bytes) = num.as_u64().and_then(|num| attachments.get(usize::try_from(num).ok()?))
            {
                return Pack::Binary(bytes.to_vec());
            }
            Pack::Map(fields.into_iter().map(|(name, value)| (name.into(), pack(value, attachments))).collect())
        }
    }
}

/// Turns a message from MessagePack into JSON and attachments; `None` for bytes that are neither.
pub(super) fn from_msgpack(mut bytes: &[u8]) -> Option<(String, Vec<Bytes>)> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, MAX_DEPTH).ok()?;
    let mut attachments = Vec::new();
    let json = unpack(value, &mut attachments)?;
    Some((serde_json::to_string(&json).ok()?, attachments))
}

fn unpack(value: Pack, attachments: &mut Vec<Bytes>) -> Option<Value> {
    Some(match value {
        Pack::Nil => Value::Null,
        Pack::Boolean(value) => value.into(),
        Pack::Integer(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, number) => number?.into(),
        },
        // As JSON.stringify has it, `null` where it is no number.
        Pack::F32(number) => f64::from(number).into(),
        Pack::F64(number) => number.into(),
        Pack::String(text) => text.into_str()?.into(),
        Pack::Binary(bytes) => placeholder(bytes, attachments),
        Pack::Array(values) => {
            values.into_iter().map(|value| unpack(value, attachments)).collect::<Option<Vec<_>>>()?.into()
        }
        Pack::Map(fields) => {
            let mut object = serde_json::Map::with_capacity(fields.len());
            for (name, value) in fields {
                let name = match name {
                    Pack::String(name) => name.into_str()?,
                    Pack::Integer(number) => number.to_string(),
                    Pack::Nil
                    | Pack::Boolean(_)
                    | Pack::F32(_)
                    | Pack::F64(_)
                    | Pack::Binary(_)
                    | Pack::Array(_)
                    | Pack::Map(_)
                    | Pack::Ext(..) => return None,
                };
                object.insert(name, unpack(value, attachments)?);
            }
            object.into()
        }
        Pack::Ext(TIMESTAMP, bytes) => timestamp(&bytes).map_or(Value::Null, Value::from),
        // An ArrayBuffer; a single zero is what notepack.io 2 made of `undefined`.
        Pack::Ext(0, bytes) if bytes != [0] => placeholder(bytes, attachments),
        Pack::Ext(..) => Value::Null,
    })
}

fn placeholder(bytes: Vec<u8>, attachments: &mut Vec<Bytes>) -> Value {
    attachments.push(bytes.into());
    serde_json::json!({ "_placeholder": true, "num": attachments.len() - 1 })
}

/// The extension type of a timestamp, which is what notepack.io makes of a `Date`.
const TIMESTAMP: i8 = -1;

/// Writes a timestamp as JSON.stringify writes a `Date`.
fn timestamp(bytes: &[u8]) -> Option<String> {
    let (seconds, nanoseconds) = match *bytes {
        [a, b, c, d] => (i64::from(u32::from_be_bytes([a, b, c, d])), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            ((both & 0x3_ffff_ffff) as i64, (both >> 34) as u32)
        }
        [a, b, c, d, ref seconds @ ..] => {
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Of the years that `Date` knows.
    (-100_000_000..=100_000_000).contains(&day).then_some(())?;
    // Days to a date of the Gregorian calendar, whose years begin in March here and go in eras of 400.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + 400 * era + i64::from(month <= 2);
    let year = match year {
        0..=9999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", nanoseconds / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_shape_in_both_directions() {
        for json in [
            r#"["uid",{"data":["e",1,-1,1.5,"\u0001ü",null,true,{}],"nsp":"/","type":2},{"rooms":[]}]"#,
            "[0,127,128,255,256,65535,65536,4294967296,18446744073709551615,-32,-33,-9223372036854775808]",
        ] {
            let packed = to_msgpack(json, std::iter::empty()).unwrap();
            assert_eq!(from_msgpack(&packed), Some((json.to_owned(), Vec::new())));
        }
    }

    #[test]
    fn attachments_lie_where_their_placeholders_were() {
        let json = r#"["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0},{"_placeholder":true,"num":7}]"#;
        let packed = to_msgpack(json, [&b"a"[..], b"b"].into_iter()).unwrap();
        assert_eq!(&packed[..9], b"\x94\xa1e\xc4\x01b\xc4\x01a");
        let (json, attachments) = from_msgpack(&packed).unwrap();
        assert!(json.starts_with(r#"["e",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},"#), "{json}");
        assert_eq!(attachments, [&b"b"[..], b"a"]);
    }

    #[test]
    fn what_notepack_writes_is_read() {
        // encode([new Date(0), new Date(1735689599999), new Date(-1), undefined, new Uint8Array([1]), NaN, {1: 2}])
        let bytes = b"\x97\xd6\xff\0\0\0\0\xd7\xff\xee.\x1f\0gt\x85\x7f\xc7\x0c\xff;\x8b\x87\xc0\xff\xff\xff\xff\
            \xff\xff\xff\xff\xc0\xc4\x01\x01\xcb\x7f\xf8\0\0\0\0\0\0\x81\xa11\x02";
        let (json, attachments) = from_msgpack(bytes).unwrap();
        let dates = r#""1970-01-01T00:00:00.000Z","2024-12-31T23:59:59.999Z","1969-12-31T23:59:59.999Z""#;
        assert_eq!(json, format!(r#"[{dates},null,{{"_placeholder":true,"num":0}},null,{{"1":2}}]"#));
        assert_eq!(attachments, [&b"\x01"[..]]);
        assert_eq!(timestamp(&951_827_696_u32.to_be_bytes()).unwrap(), "2000-02-29T12:34:56.000Z");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bytes in
            [&b""[..], b"\x91", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xffx", b"\xa1\xff", b"\x81\xc3\xc3"]
        {
            assert_eq!(from_msgpack(bytes), None, "{bytes:?}");
        }
        assert_eq!(from_msgpack(&[b"\x91".repeat(100_000), b"\xc0".to_vec()].concat()), None);
        assert!(from_msgpack(&[b"\x91".repeat(120), b"\xc0".to_vec()].concat()).is_some());
        assert_eq!(to_msgpack("[", std::iter::empty()), None);
    }
}
