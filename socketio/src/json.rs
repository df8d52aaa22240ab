//! What is to be known of a JSON text without parsing it: how deep it goes, where an event's name ends, which
//! placeholders it holds.

use std::ops::Range;

use serde::de::IgnoredAny;

use crate::error::DecodeError;

/// How deep JSON from a peer may be nested, the array of a packet included.
///
/// serde_json's own limit is 127 below where a value starts, and arguments start one level down, so the two agree.
/// What only skips a value (`IgnoredAny`) has no limit at all, hence the check of our own.
pub const MAX_DEPTH: usize = 128;

/// Where an event's name is: nearly always a piece of the message.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    InMessage { start: usize, end: usize },
    Unescaped(Box<str>),
}

impl Name {
    pub(crate) fn of<'a>(&'a self, message: &'a str) -> &'a str {
        match self {
            Self::InMessage { start, end } => message.get(*start..*end).unwrap_or_default(),
            Self::Unescaped(name) => name,
        }
    }
}

/// Refuses JSON nested deeper than [`MAX_DEPTH`].
pub(crate) fn check_depth(json: &str) -> Result<(), DecodeError> {
    if is_shallow(json.as_bytes()) {
        return Ok(());
    }
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'"' | b'[' | b'{' | b']' | b'}')) {
        let token = rest.as_bytes().get(at);
        rest = rest.get(at + 1..).unwrap_or_default();
        match token {
            Some(b'"') => rest = string_end(rest).and_then(|end| rest.get(end + 1..)).unwrap_or_default(),
            Some(b'[' | b'{') if depth == MAX_DEPTH => return Err(DecodeError::TooDeep),
            Some(b'[' | b'{') => depth += 1,
            _ => depth = depth.saturating_sub(1),
        }
    }
    Ok(())
}

/// Returns `true` if JSON cannot be nested deeper than [`MAX_DEPTH`], without a closer look.
pub(crate) fn is_shallow(json: &[u8]) -> bool {
    json.len() <= MAX_DEPTH || openers(json) <= MAX_DEPTH
}

/// How many bytes look like an opening bracket. A count is far cheaper than a scan that minds strings, and with
/// no more openers than levels allowed there is nothing to scan for.
fn openers(json: &[u8]) -> usize {
    // `[` and `{` differ in one bit. A sum of a byte each, over at most 255 bytes, is what compilers vectorize.
    json.chunks(255).map(|chunk| usize::from(chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>())).sum()
}

/// Whether `json` is one JSON value, whatever it is.
pub(crate) fn is_valid(json: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// Drops the whitespace JSON allows between tokens, which is less than Unicode's.
pub(crate) fn skip_whitespace(json: &str) -> &str {
    json.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// Finds the first element of the array that starts at `at`, and where the elements after it begin.
pub(crate) fn array_head(message: &str, at: usize) -> Result<usize, DecodeError> {
    let rest = skip_whitespace(message.get(at..).unwrap_or_default()).strip_prefix('[').ok_or(DecodeError::Json)?;
    let rest = skip_whitespace(rest);
    if rest.is_empty() { Err(DecodeError::Json) } else { Ok(message.len() - rest.len()) }
}

/// Finds the name of the event whose array starts at `at`, and where its arguments begin: at the first of them, or at
/// the closing bracket.
pub(crate) fn event_head(message: &str, at: usize) -> Result<(Name, usize), DecodeError> {
    let start = array_head(message, at)?;
    let rest = message.get(start..).unwrap_or_default();
    let (name, rest) = if let Some(text) = rest.strip_prefix('"') {
        let end = string_end(text).ok_or(DecodeError::Json)?;
        (string(text.get(..end).unwrap_or_default(), start + 1)?, text.get(end + 1..).unwrap_or_default())
    } else {
        let length = rest
            .bytes()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let number = rest.get(..length).unwrap_or_default();
        // What cannot begin a number is another type, or `]` for an event without a name.
        if !number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(DecodeError::EventName);
        }
        if !is_valid(number) {
            return Err(DecodeError::Json);
        }
        (Name::InMessage { start, end: start + length }, rest.get(length..).unwrap_or_default())
    };
    let mut rest = skip_whitespace(rest);
    if let Some(after) = rest.strip_prefix(',') {
        rest = skip_whitespace(after);
        if rest.is_empty() || rest.starts_with(']') {
            return Err(DecodeError::Json);
        }
    } else if !rest.starts_with(']') {
        return Err(DecodeError::Json);
    }
    Ok((name, message.len() - rest.len()))
}

/// The offset of the quote that ends a string, given what follows the quote that began it.
fn string_end(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    None
}

/// The name written as `text` between quotes, which start at `start` in the message.
fn string(text: &str, start: usize) -> Result<Name, DecodeError> {
    if text.bytes().all(|byte| byte != b'\\' && byte >= 0x20) {
        return Ok(Name::InMessage { start, end: start + text.len() });
    }
    serde_json::from_str(&format!("\"{text}\"")).map(Name::Unescaped).map_err(|_| DecodeError::Json)
}

/// Returns the text of a JSON string, quotes included, with U+FFFD for each half of a surrogate pair; `None` for other
/// JSON.
#[cfg(feature = "server")]
pub(crate) fn text(quoted: &str) -> Option<String> {
    let text = serde_json::from_str::<String>(quoted);
    text.or_else(|_| serde_json::from_str(quoted).map(without_surrogates)).ok()
}

/// The bytes of a string that need be no UTF-8: halves of surrogate pairs have three bytes each.
#[cfg(feature = "server")]
struct Wide(Vec<u8>);

#[cfg(feature = "server")]
impl<'de> serde::Deserialize<'de> for Wide {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Wide;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Wide, E> {
                Ok(Wide(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(feature = "server")]
fn without_surrogates(Wide(mut bytes): Wide) -> String {
    let mut at = 0;
    while let Some(triple) = bytes.get_mut(at..) {
        match triple {
            [first @ 0xed, second @ 0xa0..=0xbf, third, ..] => (*first, *second, *third) = (0xef, 0xbf, 0xbd),
            [] => break,
            [..] => {}
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A piece of JSON text that is known to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `[` or, of an object, `{`.
    Begin {
        object: bool,
    },
    /// `]` or `}`.
    End,
    Comma,
    Colon,
    /// What is between the quotes of a string or key, escaped as it is.
    Text(&'a str),
    /// A number, `true`, `false` or `null`.
    Word(&'a str),
}

#[cfg(feature = "redis")]
impl Token<'_> {
    /// Returns how many bytes the token has.
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::Begin { .. } | Self::End | Self::Comma | Self::Colon => 1,
            Self::Text(text) => text.len() + 2,
            Self::Word(word) => word.len(),
        }
    }
}

/// The tokens of valid JSON, each with its offset. Whitespace between them is skipped.
#[derive(Debug, Clone)]
pub(crate) struct Tokens<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) const fn new(json: &'a str) -> Self {
        Self { json, at: 0 }
    }

    /// Continues at an offset, the start of a token or what follows one.
    #[cfg(feature = "redis")]
    pub(crate) const fn skip_to(&mut self, at: usize) {
        self.at = at;
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    // Inlined: a scan does little else.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.json.as_bytes();
        let mut at = self.at;
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
            at += 1;
        }
        let mut end = at + 1;
        let token = match bytes.get(at)? {
            b'[' => Token::Begin { object: false },
            b'{' => Token::Begin { object: true },
            b']' | b'}' => Token::End,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => {
                while let Some(byte) = bytes.get(end)
                    && *byte != b'"'
                {
                    end += if *byte == b'\\' { 2 } else { 1 };
                }
                end += 1;
                Token::Text(self.json.get(at + 1..end - 1).unwrap_or_default())
            }
            _ => {
                while let Some(byte) = bytes.get(end)
                    && !matches!(byte, b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\n' | b'\r')
                {
                    end += 1;
                }
                Token::Word(self.json.get(at..end).unwrap_or_default())
            }
        };
        self.at = end;
        Some((at, token))
    }
}

/// Checks that every placeholder in valid JSON names one of `attachments`.
///
/// A pass of its own over text that is known to be valid and no deeper than [`MAX_DEPTH`]: binary packets are rare,
/// and a handler's type may not look at the part that holds a bad placeholder.
pub(crate) fn check_placeholders(json: &str, attachments: u32) -> Result<(), DecodeError> {
    let mut bad = false;
    each_placeholder(json, |_, num| bad |= num.is_none_or(|num| num >= u64::from(attachments)));
    if bad { Err(DecodeError::Placeholder) } else { Ok(()) }
}

/// A placeholder in valid JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placeholder {
    /// Where the object lies.
    pub(crate) range: Range<usize>,
    /// Where the value of its `num` lies.
    pub(crate) num_range: Range<usize>,
    pub(crate) num: usize,
}

/// Returns the placeholders of valid JSON that name one of so many attachments, in the order of the text. What lies
/// within a placeholder is none: a decoder replaces the outer one as a whole.
pub(crate) fn placeholders(json: &str, attachments: usize) -> Vec<Placeholder> {
    let mut found: Vec<Placeholder> = Vec::new();
    if attachments == 0 {
        return found;
    }
    each_placeholder(json, |object, num| {
        let num = num.and_then(|num| usize::try_from(num).ok()).filter(|num| *num < attachments);
        if let Some(num) = num {
            while found.last().is_some_and(|inner| inner.range.start > object.range.start) {
                found.pop();
            }
            found.push(Placeholder { range: object.range.clone(), num_range: object.num_range.clone(), num });
        }
    });
    found
}

/// Writes valid JSON with other numbers in its `placeholders`, which are those of the whole text.
pub(crate) fn renumbered(json: &str, placeholders: &[Placeholder], num: impl Fn(usize) -> usize) -> String {
    let mut out = String::with_capacity(json.len() + placeholders.len());
    let mut at = 0;
    for placeholder in placeholders {
        out.push_str(json.get(at..placeholder.num_range.start).unwrap_or_default());
        out.push_str(&num(placeholder.num).to_string());
        at = placeholder.num_range.end;
    }
    out.push_str(json.get(at..).unwrap_or_default());
    out
}

/// Calls `found` at the end of each placeholder of valid JSON, with its `num` where that is one.
///
/// A placeholder is, as in socket.io-parser, an object with `"_placeholder": true`; its `num` must be written as an
/// integer.
fn each_placeholder(json: &str, mut found: impl FnMut(&Object, Option<u64>)) {
    let mut open: Vec<Option<Object>> = Vec::with_capacity(USUAL_DEPTH);
    let mut tokens = Tokens::new(json);
    while let Some((at, token)) = tokens.next() {
        let range = at..tokens.at;
        match (token, open.last_mut()) {
            (Token::Begin { object }, parent) => {
                // A container is a value too: under `num` it is no number, under `_placeholder` it is not `true`.
                if let Some(Some(parent)) = parent {
                    parent.value("", range.clone());
                }
                if let Some(object) = Object::as_usual(json, at) {
                    found(&object, object.num);
                    tokens.at = object.range.end;
                    continue;
                }
                open.push(object.then(|| Object { range, ..Object::default() }));
            }
            (Token::End, _) => {
                if let Some(mut object) = open.pop().flatten().filter(|object| object.placeholder) {
                    object.range.end = range.end;
                    found(&object, object.num);
                }
            }
            (Token::Comma, Some(Some(object))) => object.key = Key::Expected,
            (Token::Text(text), Some(Some(object))) => object.string(text, range),
            (Token::Word(word), Some(Some(object))) => object.value(word, range),
            (Token::Comma | Token::Colon | Token::Text(_) | Token::Word(_), _) => {}
        }
    }
}

/// As deep as most packets go.
const USUAL_DEPTH: usize = 4;

/// What the scan knows of an object that is still open. Of a key given twice the last counts, as in JavaScript.
#[derive(Default)]
struct Object {
    range: Range<usize>,
    key: Key,
    placeholder: bool,
    num: Option<u64>,
    num_range: Range<usize>,
}

#[derive(Default)]
enum Key {
    #[default]
    Expected,
    Placeholder,
    Num,
    Other,
}

impl Key {
    fn of(text: &str) -> Self {
        match text {
            "_placeholder" => Self::Placeholder,
            "num" => Self::Num,
            _ => Self::Other,
        }
    }
}

impl Object {
    /// Reads a placeholder as every encoder writes it, at this offset, in one go.
    fn as_usual(json: &str, at: usize) -> Option<Self> {
        const START: &str = r#"{"_placeholder":true,"num":"#;
        let rest = json.get(at..)?.strip_prefix(START)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let num = rest.get(..digits).filter(|_| rest.as_bytes().get(digits) == Some(&b'}'))?.parse().ok()?;
        let start = at + START.len();
        let num_range = start..start + digits;
        Some(Self { range: at..num_range.end + 1, key: Key::Num, placeholder: true, num: Some(num), num_range })
    }

    #[inline(always)]
    fn string(&mut self, text: &str, range: Range<usize>) {
        if matches!(self.key, Key::Expected) {
            self.key = Key::of(text);
            if matches!(self.key, Key::Other) && text.contains('\\') {
                self.key = Key::of(&serde_json::from_str::<String>(&format!("\"{text}\"")).unwrap_or_default());
            }
        } else {
            self.value("", range);
        }
    }

    #[inline(always)]
    fn value(&mut self, literal: &str, range: Range<usize>) {
        match self.key {
            Key::Placeholder => self.placeholder = literal == "true",
            Key::Num => (self.num, self.num_range) = (literal.parse().ok(), range),
            Key::Expected | Key::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(message: &str) -> Result<(String, &str), DecodeError> {
        let (name, at) = event_head(message, 0)?;
        Ok((name.of(message).to_owned(), message.get(at..).unwrap()))
    }

    #[test]
    fn names_are_found_without_parsing_what_follows() {
        for (message, name, rest) in [
            (r#"["e"]"#, "e", "]"),
            (r#"["e",1,2]"#, "e", "1,2]"),
            (" [ \"e\" , {} ]", "e", "{} ]"),
            (r#"["a\"b",1]"#, "a\"b", "1]"),
            (r#"["\u0065"]"#, "e", "]"),
            (r#"["",oops"#, "", "oops"),
            ("[1,2]", "1", "2]"),
            ("[-1.5e3]", "-1.5e3", "]"),
        ] {
            assert_eq!(head(message), Ok((name.to_owned(), rest)), "{message}");
        }
    }

    #[test]
    fn heads_that_are_no_event_are_refused() {
        for message in ["[]", "[null]", "[{}]", "[[]]", "[true]", "[.5]", "[+1]"] {
            assert_eq!(head(message), Err(DecodeError::EventName), "{message}");
        }
        for message in
            ["[", "", "{}", r#"["e"#, r#"["e""#, r#"["e",]"#, r#"["e","#, r#"["e"1]"#, "[1.]", "[--1]", "[\"\n\"]"]
        {
            assert_eq!(head(message), Err(DecodeError::Json), "{message}");
        }
    }

    #[test]
    fn a_name_that_is_no_unicode_text_is_refused() {
        assert_eq!(head(r#"["\ud800"]"#), Err(DecodeError::Json));
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_depth(&nested(128)), Ok(()));
        assert_eq!(check_depth(&nested(129)), Err(DecodeError::TooDeep));
        assert_eq!(check_depth(&nested(100_000)), Err(DecodeError::TooDeep));
        assert_eq!(check_depth(&format!("[\"{}\"]", "[".repeat(500))), Ok(()));
        assert_eq!(check_depth(&format!("[\"\\\"{}\"]", "{".repeat(500))), Ok(()));
        assert_eq!(check_depth(&format!("[{}]", "[],".repeat(500))), Ok(()));
        assert_eq!(check_depth(&format!("[\"\\\\\",{}]", nested(128))), Err(DecodeError::TooDeep));
    }

    #[test]
    fn placeholders_are_found_from_the_outside_and_numbered_anew() {
        let json = r#"1, {"_placeholder":true,"num":1} ,[{ "num" : 0,"x":{"_placeholder":true,"num":1},"_placeholder":true}],{"_placeholder":true,"num":2}"#;
        let found = placeholders(json, 2);
        assert_eq!(found.iter().map(|found| found.num).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(&json[found[0].range.clone()], r#"{"_placeholder":true,"num":1}"#);
        assert!(json[found[1].range.clone()].starts_with(r#"{ "num" : 0,"#));
        assert_eq!(
            renumbered(json, &found, |num| num + 10),
            r#"1, {"_placeholder":true,"num":11} ,[{ "num" : 10,"x":{"_placeholder":true,"num":1},"_placeholder":true}],{"_placeholder":true,"num":2}"#
        );
        assert_eq!(placeholders(json, 0), []);
    }

    #[test]
    fn placeholders_are_checked_wherever_they_are() {
        for json in [
            r#"{"_placeholder":true,"num":0}]"#,
            r#"1,[{"a":{"num":1,"_placeholder":true}}]]"#,
            r#"{"_placeholder":false,"num":9}]"#,
            r#"{"_placeholder":"true","num":9}]"#,
            r#"{"_placeholder":1}]"#,
            r#"{"num":"splice"}]"#,
            r#"{"a":"_placeholder","b":true}]"#,
            r#"{"_placeholder":true,"_placeholder":false}]"#,
            r#"{"_placeholder":true,"num":9,"num":1}]"#,
            r#""\ud800",1e999,{"_placeholder" : true , "num" : 1 } ]"#,
            r#"{"a":{"_placeholder":true,"num":0},"num":7}]"#,
            "]",
        ] {
            assert_eq!(check_placeholders(&format!("[{json}"), 2), Ok(()), "{json}");
        }
        for json in [
            r#"{"_placeholder":true,"num":2}]"#,
            r#"{"_placeholder":true}]"#,
            r#"{"_placeholder":true,"num":-1}]"#,
            r#"{"_placeholder":true,"num":-0}]"#,
            r#"{"_placeholder":true,"num":0.5}]"#,
            r#"{"_placeholder":true,"num":1.0}]"#,
            r#"{"_placeholder":true,"num":1e0}]"#,
            r#"{"_placeholder":true,"num":"0"}]"#,
            r#"{"_placeholder":true,"num":"splice"}]"#,
            r#"{"_placeholder":true,"num":[0]}]"#,
            r#"{"_placeholder":true,"num":0,"num":{}}]"#,
            r#"{"_placeholder":true,"num":null}]"#,
            r#"{"_placeholder":true,"num":99999999999999999999}]"#,
            r#"{"\u005fplaceholder":true,"n\u0075m":2}]"#,
            r#"[[{"a":[{"_placeholder":true,"num":3}]}]]]"#,
            r#"{"num":0,"a":1,"_placeholder":true,"num":2}]"#,
        ] {
            assert_eq!(check_placeholders(&format!("[{json}"), 2), Err(DecodeError::Placeholder), "{json}");
        }
    }
}
