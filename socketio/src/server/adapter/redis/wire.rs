//! Messages as JSON and as MessagePack, as notepack.io 3 writes it: binary data is `bin` there, and a placeholder here.
//!
//! Either becomes the other token by token, without a tree in between: the order of keys stays, and so do keys that come
//! twice. What MessagePack cannot carry becomes what `JSON.parse` makes of it in a server of socket.io, and [`Packed`]
//! says so:
//!
//! - a number is the nearest double, or an integer of 64 bits where it is one; `1e400` is infinite;
//! - how a number, a string or a placeholder is written, and whitespace, is lost;
//! - half of a surrogate pair is U+FFFD, as notepack.io has it too;
//! - an attachment lies where its placeholder was: one that is named twice is there twice, one without a placeholder is
//!   not there.

use bytes::Bytes;
use rmp::Marker;
use rmp::encode as pack;

use crate::json::{self, Placeholder, Token, Tokens};

/// How deep messages may be nested: the data of a packet at its deepest, and what is around it.
const MAX_DEPTH: usize = crate::MAX_DEPTH + 8;

/// A message in MessagePack.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    /// [`from_msgpack`] makes the same text and the same attachments of it.
    pub(super) is_faithful: bool,
    /// The number that each binary value had as an attachment, in the order of the message.
    pub(super) order: Vec<usize>,
}

/// Turns a message, which is valid JSON, into MessagePack; `None` where something is longer than MessagePack allows.
pub(super) fn to_msgpack(json: &str, attachments: &[&[u8]]) -> Option<Packed> {
    let pieces = Pieces::new(json, attachments.len());
    let mut lengths = lengths(pieces.clone()).into_iter();
    let capacity = json.len() + attachments.iter().map(|bytes| bytes.len()).sum::<usize>();
    let mut packed = Packed { bytes: Vec::with_capacity(capacity), is_faithful: true, order: Vec::new() };
    let mut token_bytes = 0;
    for piece in pieces {
        match piece {
            Piece::Token(token) => {
                token_bytes += token.len();
                let out = &mut packed.bytes;
                match token {
                    Token::Begin { object: false } => drop(pack::write_array_len(out, lengths.next()?).ok()?),
                    Token::Begin { object: true } => drop(pack::write_map_len(out, lengths.next()?).ok()?),
                    Token::Text(text) => packed.is_faithful &= write_text(out, text)?,
                    Token::Word(word) => packed.is_faithful &= write_word(out, word)?,
                    Token::End | Token::Comma | Token::Colon => {}
                }
            }
            Piece::Attachment(placeholder) => {
                let text = json.get(placeholder.range.clone())?;
                token_bytes += text.len();
                packed.is_faithful &= placeholder.num == packed.order.len() && text == written(placeholder.num);
                packed.order.push(placeholder.num);
                let bytes = attachments.get(placeholder.num)?;
                pack::write_bin_len(&mut packed.bytes, u32::try_from(bytes.len()).ok()?).ok()?;
                packed.bytes.extend_from_slice(bytes);
            }
        }
    }
    // Otherwise there is whitespace between the tokens, or an attachment without a placeholder.
    packed.is_faithful &= token_bytes == json.len() && packed.order.len() == attachments.len();
    Some(packed)
}

/// A part of a message on its way into MessagePack.
enum Piece<'a> {
    Token(Token<'a>),
    Attachment(Placeholder),
}

/// The tokens of a message, with attachments in the place of their placeholders.
#[derive(Clone)]
struct Pieces<'a> {
    tokens: Tokens<'a>,
    placeholders: std::vec::IntoIter<Placeholder>,
}

impl<'a> Pieces<'a> {
    fn new(json: &'a str, attachments: usize) -> Self {
        Self { tokens: Tokens::new(json), placeholders: json::placeholders(json, attachments).into_iter() }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (at, token) = self.tokens.next()?;
        if self.placeholders.as_slice().first().is_none_or(|next| next.range.start != at) {
            return Some(Piece::Token(token));
        }
        let placeholder = self.placeholders.next()?;
        self.tokens.skip_to(placeholder.range.end);
        Some(Piece::Attachment(placeholder))
    }
}

/// How many elements or fields each array and object has, in the order in which they begin.
fn lengths(pieces: Pieces<'_>) -> Vec<u32> {
    let (mut lengths, mut open) = (Vec::new(), Vec::new());
    for piece in pieces {
        let count: Option<&mut u32> = open.last().and_then(|at: &usize| lengths.get_mut(*at));
        match (piece, count) {
            (Piece::Token(Token::End), _) => drop(open.pop()),
            (Piece::Token(Token::Comma), Some(count)) => *count = count.saturating_add(1),
            (Piece::Token(Token::Comma | Token::Colon), _) => {}
            (piece, count) => {
                if let Some(count @ 0) = count {
                    *count = 1;
                }
                if let Piece::Token(Token::Begin { .. }) = piece {
                    open.push(lengths.len());
                    lengths.push(0);
                }
            }
        }
    }
    lengths
}

/// How [`from_msgpack`] writes the placeholder of an attachment.
fn written(num: usize) -> String {
    format!(r#"{{"_placeholder":true,"num":{num}}}"#)
}

/// Writes a string, given what is between its quotes; false where it does not come back like this.
fn write_text(out: &mut Vec<u8>, escaped: &str) -> Option<bool> {
    if !escaped.contains('\\') {
        pack::write_str(out, escaped).ok()?;
        return Some(true);
    }
    let quoted = format!("\"{escaped}\"");
    let text = json::text(&quoted)?;
    pack::write_str(out, &text).ok()?;
    Some(serde_json::to_string(&text).is_ok_and(|again| again == quoted))
}

/// Writes a number, `true`, `false` or `null`; false where it does not come back like this.
fn write_word(out: &mut Vec<u8>, word: &str) -> Option<bool> {
    match word {
        "null" => pack::write_nil(out).ok()?,
        "true" => pack::write_bool(out, true).ok()?,
        "false" => pack::write_bool(out, false).ok()?,
        _ => {
            if let Ok(number) = word.parse::<u64>() {
                let _marker = pack::write_uint(out, number).ok()?;
            } else if let Some(number) = word.parse::<i64>().ok().filter(|number| *number != 0) {
                let _marker = pack::write_sint(out, number).ok()?;
            } else {
                let number: f64 = word.parse().ok()?;
                pack::write_f64(out, number).ok()?;
                return Some(number.is_finite() && serde_json::to_string(&number).is_ok_and(|again| again == word));
            }
        }
    }
    Some(true)
}

/// Turns a message from MessagePack into JSON and attachments; `None` for bytes that are neither.
pub(super) fn from_msgpack(bytes: &[u8]) -> Option<(String, Vec<Bytes>)> {
    let mut unpacking = Unpacking { rest: bytes, json: Vec::with_capacity(bytes.len()), attachments: Vec::new() };
    unpacking.value(0)?;
    Some((String::from_utf8(unpacking.json).ok()?, unpacking.attachments))
}

/// A message on its way out of MessagePack.
struct Unpacking<'a> {
    rest: &'a [u8],
    json: Vec<u8>,
    attachments: Vec<Bytes>,
}

/// A value without what its length counts.
enum Head {
    Word(&'static str),
    Integer(i128),
    Double(f64),
    Text(usize),
    Array(usize),
    Map(usize),
    Binary(usize),
    Extension(usize),
}

impl<'a> Unpacking<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A length of one, two or four bytes.
    fn length<const N: usize>(&mut self) -> Option<usize> {
        let bytes = self.array::<N>()?;
        Some(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    /// The next value, as far as its marker and its length say.
    fn head(&mut self) -> Option<Head> {
        let [marker] = self.array()?;
        Some(match Marker::from_u8(marker) {
            Marker::Null => Head::Word("null"),
            Marker::True => Head::Word("true"),
            Marker::False => Head::Word("false"),
            Marker::FixPos(number) => Head::Integer(number.into()),
            Marker::FixNeg(number) => Head::Integer(number.into()),
            Marker::U8 => Head::Integer(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Head::Integer(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Head::Integer(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Head::Integer(u64::from_be_bytes(self.array()?).into()),
            Marker::I8 => Head::Integer(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => Head::Integer(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => Head::Integer(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => Head::Integer(i64::from_be_bytes(self.array()?).into()),
            Marker::F32 => Head::Double(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Head::Double(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => Head::Text(length.into()),
            Marker::Str8 => Head::Text(self.length::<1>()?),
            Marker::Str16 => Head::Text(self.length::<2>()?),
            Marker::Str32 => Head::Text(self.length::<4>()?),
            Marker::FixArray(length) => Head::Array(length.into()),
            Marker::Array16 => Head::Array(self.length::<2>()?),
            Marker::Array32 => Head::Array(self.length::<4>()?),
            Marker::FixMap(length) => Head::Map(length.into()),
            Marker::Map16 => Head::Map(self.length::<2>()?),
            Marker::Map32 => Head::Map(self.length::<4>()?),
            Marker::Bin8 => Head::Binary(self.length::<1>()?),
            Marker::Bin16 => Head::Binary(self.length::<2>()?),
            Marker::Bin32 => Head::Binary(self.length::<4>()?),
            Marker::FixExt1 => Head::Extension(1),
            Marker::FixExt2 => Head::Extension(2),
            Marker::FixExt4 => Head::Extension(4),
            Marker::FixExt8 => Head::Extension(8),
            Marker::FixExt16 => Head::Extension(16),
            Marker::Ext8 => Head::Extension(self.length::<1>()?),
            Marker::Ext16 => Head::Extension(self.length::<2>()?),
            Marker::Ext32 => Head::Extension(self.length::<4>()?),
            Marker::Reserved => return None,
        })
    }

    fn write(&mut self, value: &impl serde::Serialize) -> Option<()> {
        serde_json::to_writer(&mut self.json, value).ok()
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.head()? {
            Head::Word(word) => self.json.extend_from_slice(word.as_bytes()),
            Head::Integer(number) => self.write(&number)?,
            // As JSON.stringify has it, `null` where it is no number.
            Head::Double(number) => self.write(&number)?,
            Head::Text(length) => self.text(length)?,
            Head::Array(count) => self.elements(count, depth)?,
            Head::Map(count) => self.fields(count, depth)?,
            Head::Binary(length) => self.attachment(length)?,
            Head::Extension(length) => self.extension(length)?,
        }
        Some(())
    }

    fn elements(&mut self, count: usize, depth: usize) -> Option<()> {
        (depth < MAX_DEPTH).then_some(())?;
        self.json.push(b'[');
        for number in 0..count {
            if number > 0 {
                self.json.push(b',');
            }
            self.value(depth + 1)?;
        }
        self.json.push(b']');
        Some(())
    }

    fn fields(&mut self, count: usize, depth: usize) -> Option<()> {
        (depth < MAX_DEPTH).then_some(())?;
        self.json.push(b'{');
        for number in 0..count {
            if number > 0 {
                self.json.push(b',');
            }
            match self.head()? {
                Head::Text(length) => self.text(length)?,
                // As in JavaScript, which has no other keys.
                Head::Integer(number) => self.write(&number.to_string())?,
                Head::Word(_)
                | Head::Double(_)
                | Head::Array(_)
                | Head::Map(_)
                | Head::Binary(_)
                | Head::Extension(_) => return None,
            }
            self.json.push(b':');
            self.value(depth + 1)?;
        }
        self.json.push(b'}');
        Some(())
    }

    fn text(&mut self, length: usize) -> Option<()> {
        let text = str::from_utf8(self.take(length)?).ok()?;
        self.write(&text)
    }

    fn attachment(&mut self, length: usize) -> Option<()> {
        let bytes = self.take(length)?;
        self.json.extend_from_slice(written(self.attachments.len()).as_bytes());
        self.attachments.push(Bytes::copy_from_slice(bytes));
        Some(())
    }

    fn extension(&mut self, length: usize) -> Option<()> {
        let [kind] = self.array()?;
        let bytes = self.rest.get(..length)?;
        // An ArrayBuffer; a single zero is what notepack.io 2 made of `undefined`.
        if kind == 0 && bytes != [0] {
            return self.attachment(length);
        }
        self.take(length)?;
        let date = (kind.cast_signed() == TIMESTAMP).then(|| timestamp(bytes)).flatten();
        self.write(&date)
    }
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
            "[1.0,-0.0,0.1,1e-7,1.7976931348623157e+308,5e-324]",
            r#"{"b":[[],[[]],{}],"a":{"":{"x":[1,2]}},"b":"\"\\\n/\u001f","0":[{"c":1,"d":2},3]}"#,
            &format!("[{}1]", "1,".repeat(70_000)),
            &format!("{{{}\"last\":0}}", "\"k\":[\"v\"],".repeat(20)),
        ] {
            let packed = to_msgpack(json, &[]).unwrap();
            assert_eq!(from_msgpack(&packed.bytes), Some((json.to_owned(), Vec::new())));
            assert!(packed.is_faithful && packed.order.is_empty(), "{json}");
        }
    }

    #[test]
    fn what_changes_on_the_way_becomes_what_javascript_makes_of_it() {
        for (json, other) in [
            (r#"["x\ud83d","\udc00\ud83d","\ud83d\ude00"]"#, "[\"x\u{fffd}\",\"\u{fffd}\u{fffd}\",\"\u{1f600}\"]"),
            ("[1e400,-1e400]", "[null,null]"),
            ("[18446744073709551616,-9223372036854775809]", "[1.8446744073709552e19,-9.223372036854775808e18]"),
            ("[-0,1e2,1.50]", "[-0.0,100.0,1.5]"),
            (" [ 1 ,\n2]", "[1,2]"),
            (r#"["\u00fc\/"]"#, r#"["ü/"]"#),
        ] {
            let packed = to_msgpack(json, &[]).unwrap();
            assert!(!packed.is_faithful, "{json}");
            let (back, attachments) = from_msgpack(&packed.bytes).unwrap();
            assert!(attachments.is_empty());
            // The spelling of a double is that of serde_json.
            let values = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
            assert_eq!(values(&back), values(other), "{json}");
        }
    }

    /// A slow second way to tell whether a message comes back as it was.
    #[test]
    fn what_is_called_faithful_is() {
        let one: &[&[u8]] = &[b"a"];
        let two: &[&[u8]] = &[b"a", b"b"];
        let (first, second) = (r#"{"_placeholder":true,"num":0}"#, r#"{"_placeholder":true,"num":1}"#);
        for (json, attachments) in [
            (format!("[{first}]"), one),
            (format!("[{first},{second}]"), one),
            (format!("[{first},{second}]"), two),
            (format!("[{second},{first}]"), two),
            (format!("[{first},{first}]"), one),
            (format!("[{second}]"), two),
            (format!("[{first}]"), two),
            (r#"[{"num":0,"_placeholder":true}]"#.to_owned(), one),
            (r#"[{"_placeholder":true, "num":0}]"#.to_owned(), one),
            (r#"[{"_placeholder":true,"num":0,"x":1}]"#.to_owned(), one),
            (format!(r#"[{{"_placeholder":true,"num":0,"x":{second}}}]"#), two),
            (format!(r#"{{"{first}":{first}}}"#).replace(&format!("\"{first}\""), "\"x\""), one),
            ("1".to_owned(), one),
            (r#"[0,-0,0.0,1.0e1,10,"a\u0000\t\u0009"]"#.to_owned(), &[]),
        ] {
            let packed = to_msgpack(&json, attachments).unwrap();
            let back = from_msgpack(&packed.bytes).unwrap();
            let same = back.0 == json && back.1 == attachments;
            assert_eq!(packed.is_faithful, same, "{json} {attachments:?} {back:?}");
        }
    }

    #[test]
    fn attachments_lie_where_their_placeholders_were() {
        let json = r#"["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0},{"_placeholder":true,"num":7}]"#;
        let packed = to_msgpack(json, &[b"a", b"b"]).unwrap();
        assert_eq!(&packed.bytes[..9], b"\x94\xa1e\xc4\x01b\xc4\x01a");
        assert_eq!(packed.order, [1, 0]);
        let (json, attachments) = from_msgpack(&packed.bytes).unwrap();
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
    }
}
