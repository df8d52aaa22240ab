//! Arguments on their way in: JSON text and attachments, parsed once and only into the type a handler asks for.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::arguments::{ArgumentWriter, Arguments};
use crate::error::{DataError, DecodeError, UsageError};
use crate::json::{self, Name};
use crate::placeholder::Watched;
use crate::{is_reserved, placeholder};

/// The data of an event or ack: a JSON array as it came, and the attachments it refers to.
///
/// It begins like an array and is no deeper than [`MAX_DEPTH`](crate::MAX_DEPTH); the arguments themselves have not
/// been looked at yet. A caller that drops data unread calls [`validate`](Self::validate) first, so that malformed JSON
/// closes the connection also where no handler reads it. The data of a binary packet is already known to be valid,
/// because its placeholders are checked when it arrives.
///
/// As a handler's type it takes an event as it is, attachments included, and passes it on as [`Arguments`] without
/// parsing it again. [`Argument`](crate::Argument) does the same for one argument among others.
#[derive(Clone)]
pub struct Data {
    message: ByteString,
    start: usize,
    arguments_at: usize,
    attachments: Vec<Bytes>,
    /// The whole array has been found to be JSON.
    valid: bool,
}

impl Data {
    /// Takes over a JSON array of arguments that did not come through a [`Decoder`](crate::Decoder).
    ///
    /// # Errors
    /// [`DecodeError::Json`] if `json` does not begin like an array, [`DecodeError::TooDeep`] if it is nested too deep.
    pub fn from_json(json: impl Into<ByteString>, attachments: Vec<Bytes>) -> Result<Self, DecodeError> {
        let message = json.into();
        json::check_depth(&message)?;
        let arguments_at = json::array_head(&message, 0)?;
        Ok(Self { message, start: 0, arguments_at, attachments, valid: false })
    }

    /// Encodes arguments, for a transport that is none of this crate's.
    ///
    /// # Errors
    /// What an argument's `Serialize` reports; [`UsageError::TooDeep`].
    pub fn encode(arguments: impl Arguments) -> Result<Self, UsageError> {
        let (json, attachments) = encode(None, &arguments)?;
        let data = Self::from_json(json, attachments).map_err(|_| UsageError::MalformedData)?;
        Ok(Self { valid: true, ..data })
    }

    /// Takes over what a packet holds. That with attachments has been checked already.
    pub(crate) const fn new(message: ByteString, start: usize, arguments_at: usize, attachments: Vec<Bytes>) -> Self {
        let valid = !attachments.is_empty();
        Self { message, start, arguments_at, attachments, valid }
    }

    /// The whole array as text; that of an event starts with its name.
    #[must_use]
    pub fn json(&self) -> &str {
        self.message.get(self.start..).unwrap_or_default()
    }

    /// The attachments, in the order of their `num`.
    #[must_use]
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Returns how many bytes of messages this keeps in memory.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.message.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Parses the arguments: one `T: DeserializeOwned` for the first, [`Args`] for several, `Data` for none yet.
    ///
    /// An absent argument reads as `null`, so `Option<T>` and `()` accept it; surplus arguments are ignored, and so are
    /// attachments in parts that the type leaves out. A placeholder of an attachment that the type would keep as an object
    /// of its own, as `serde_json::Value` and `RawValue` do, is a mismatch: without the attachment it means nothing.
    ///
    /// # Errors
    /// [`DataError::Mismatch`] for JSON of another shape, [`DataError::Malformed`] for text that is no JSON. Since a
    /// typed parse ends at the first mismatch, a failure costs a second pass to tell the two apart.
    pub fn args<T: FromArguments>(&self) -> Result<T, DataError> {
        let read = if self.attachments.is_empty() {
            placeholder::offering_none(|| self.read(false))
        } else {
            self.read_with_attachments()
        };
        read.map_err(|error| match (self.validate(), error) {
            (Err(malformed), _) => malformed,
            (Ok(()), DataError::Malformed) => {
                DataError::Mismatch { argument: 0, message: "the type left an argument half read".to_owned() }
            }
            (Ok(()), mismatch) => mismatch,
        })
    }

    #[inline]
    fn read<T: FromArguments>(&self, watches: bool) -> Result<T, DataError> {
        let mut reader = ArgumentReader { watches, ..ArgumentReader::new(self) };
        let value = T::from_arguments(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    #[inline(never)]
    fn read_with_attachments<T: FromArguments>(&self) -> Result<T, DataError> {
        placeholder::offering(&self.attachments, || {
            let value = self.read(false)?;
            if placeholder::all_taken() {
                return Ok(value);
            }
            // The type leaves some out, or keeps their placeholders: only a closer look tells.
            placeholder::watch();
            self.read(true)
        })
    }

    /// Checks that the arguments are valid JSON, without keeping them.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if they are not.
    pub fn validate(&self) -> Result<(), DataError> {
        if self.valid {
            return Ok(());
        }
        ArgumentReader::new(self).finish().map_err(|_| DataError::Malformed)
    }

    /// The text from the first argument to the closing bracket, and whatever follows it.
    pub(crate) fn arguments(&self) -> &str {
        self.message.get(self.arguments_at..).unwrap_or_default()
    }

    /// The text of the first argument, if there is one.
    #[cfg(feature = "redis")]
    pub(crate) fn first(&self) -> Option<&serde_json::value::RawValue> {
        let arguments = Some(self.arguments()).filter(|arguments| !arguments.starts_with(']'))?;
        serde_json::Deserializer::from_str(arguments).into_iter().next()?.ok()
    }
}

/// No arguments.
impl Default for Data {
    fn default() -> Self {
        Self { message: ByteString::from_static("[]"), start: 0, arguments_at: 1, attachments: Vec::new(), valid: true }
    }
}

/// Equal text and equal attachments, wherever in a message they lie.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json() && self.attachments == other.attachments
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").field("json", &self.json()).field("attachments", &self.attachments).finish()
    }
}

/// An event: its name, and the data that holds its arguments.
#[derive(Clone)]
pub struct Event {
    name: Name,
    data: Data,
}

impl Event {
    /// Takes over an event, name and arguments as one JSON array, that did not come through a
    /// [`Decoder`](crate::Decoder).
    ///
    /// # Errors
    /// As the decoder: the text must begin like an event, its name must be a string or number and not reserved.
    pub fn from_json(json: impl Into<ByteString>, attachments: Vec<Bytes>) -> Result<Self, DecodeError> {
        let message = json.into();
        json::check_depth(&message)?;
        let (name, arguments_at) = json::event_head(&message, 0)?;
        if is_reserved(name.of(&message)) {
            return Err(DecodeError::ReservedEvent);
        }
        Ok(Self { name, data: Data { message, start: 0, arguments_at, attachments, valid: false } })
    }

    /// Encodes an event, for a transport that is none of this crate's.
    ///
    /// # Errors
    /// [`UsageError::ReservedEvent`], or those of [`Data::encode`].
    pub fn encode(name: &str, arguments: impl Arguments) -> Result<Self, UsageError> {
        let (json, attachments) = encode(Some(name), &arguments)?;
        if is_reserved(name) {
            return Err(UsageError::ReservedEvent);
        }
        let Self { name, data } = Self::from_json(json, attachments).map_err(|_| UsageError::MalformedData)?;
        Ok(Self { name, data: Data { valid: true, ..data } })
    }

    pub(crate) const fn new(name: Name, data: Data) -> Self {
        Self { name, data }
    }

    /// The name. That of an event named by a number is the number as the packet writes it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.of(&self.data.message)
    }

    /// The arguments.
    #[must_use]
    pub const fn data(&self) -> &Data {
        &self.data
    }

    /// Takes out the arguments.
    #[must_use]
    pub fn into_data(self) -> Data {
        self.data
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.data == other.data
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("name", &self.name()).field("data", &self.data).finish()
    }
}

fn encode(name: Option<&str>, arguments: &impl Arguments) -> Result<(ByteString, Vec<Bytes>), UsageError> {
    let mut json = Vec::new();
    let attachments = ArgumentWriter::array(&mut json, name, arguments)?;
    let json = ByteString::try_from(json).map_err(|_| UsageError::MalformedData)?;
    Ok((json, attachments))
}

/// Several arguments as a tuple, where a bare type stands for the first argument alone.
///
/// ```
/// # use socketio::{Args, Event};
/// let event = Event::from_json(r#"["move", 3, {"x": 1}, "surplus"]"#, vec![])?;
/// let Args((id, place)) = event.data().args::<Args<(u32, serde_json::Value)>>()?;
/// assert_eq!((id, place["x"].as_u64()), (3, Some(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Args<T>(pub T);

/// A type that the arguments of an event or ack can become.
///
/// Every `T: DeserializeOwned` is one and reads the first argument, [`Args`] reads up to eight, and [`Data`] is for
/// handlers that decode by themselves.
pub trait FromArguments: Sized {
    /// Reads as many arguments as it wants; what it leaves is checked to be JSON, and dropped.
    ///
    /// # Errors
    /// Those of [`ArgumentReader::read`].
    fn from_arguments(arguments: &mut ArgumentReader<'_>) -> Result<Self, DataError>;
}

impl<T: DeserializeOwned> FromArguments for T {
    fn from_arguments(arguments: &mut ArgumentReader<'_>) -> Result<Self, DataError> {
        arguments.read()
    }
}

impl FromArguments for Data {
    fn from_arguments(arguments: &mut ArgumentReader<'_>) -> Result<Self, DataError> {
        if arguments.data.valid {
            arguments.rest = "]";
        } else {
            arguments.skip()?;
        }
        placeholder::take_all();
        Ok(Self { valid: true, ..arguments.data.clone() })
    }
}

macro_rules! from_arguments {
    ($($name:ident)+) => {
        impl<$($name: DeserializeOwned),+> FromArguments for Args<($($name,)+)> {
            fn from_arguments(arguments: &mut ArgumentReader<'_>) -> Result<Self, DataError> {
                Ok(Self(($(arguments.read::<$name>()?,)+)))
            }
        }
    };
}

from_arguments!(A);
from_arguments!(A B);
from_arguments!(A B C);
from_arguments!(A B C D);
from_arguments!(A B C D E);
from_arguments!(A B C D E F);
from_arguments!(A B C D E F G);
from_arguments!(A B C D E F G H);

/// Reads the arguments of one [`Data`] one after the other.
#[derive(Debug)]
pub struct ArgumentReader<'a> {
    data: &'a Data,
    /// From the next argument on, or from the closing bracket.
    rest: &'a str,
    argument: usize,
    /// Placeholders that a type keeps in place of their attachments are noticed.
    watches: bool,
}

impl<'a> ArgumentReader<'a> {
    fn new(data: &'a Data) -> Self {
        Self { data, rest: data.arguments(), argument: 0, watches: false }
    }

    /// Parses the next argument; where there is none, `null`.
    ///
    /// # Errors
    /// [`DataError::Mismatch`] if it does not fit `T`; [`DataError::Malformed`] if what follows it is no JSON array.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, DataError> {
        let argument = self.argument;
        let mismatch = |error: serde_json::Error| DataError::Mismatch { argument, message: without_content(&error) };
        self.argument += 1;
        if self.rest.starts_with(']') {
            return serde_json::from_str("null").map_err(mismatch);
        }
        let values = serde_json::Deserializer::from_str(self.rest);
        let (value, end) = if !self.watches {
            let mut values = values.into_iter::<T>();
            let value = values.next().ok_or(DataError::Malformed)?.map_err(mismatch)?;
            (value, values.byte_offset())
        } else {
            let mut values = values.into_iter::<Watched<T>>();
            let Watched(value) = values.next().ok_or(DataError::Malformed)?.map_err(mismatch)?;
            if placeholder::has_stray() {
                return Err(DataError::Mismatch { argument, message: placeholder::STRAY.to_owned() });
            }
            (value, values.byte_offset())
        };
        let rest = json::skip_whitespace(self.rest.get(end..).unwrap_or_default());
        self.rest = match rest.strip_prefix(',').map(json::skip_whitespace) {
            Some(next) if !next.starts_with(']') => next,
            None if rest.starts_with(']') => rest,
            Some(_) | None => return Err(DataError::Malformed),
        };
        Ok(value)
    }

    /// Reads up to the closing bracket.
    fn skip(&mut self) -> Result<(), DataError> {
        while !self.rest.starts_with(']') {
            let IgnoredAny = self.read()?;
        }
        Ok(())
    }

    /// Reads to the end, past the closing bracket.
    fn finish(mut self) -> Result<(), DataError> {
        self.skip()?;
        match self.rest.strip_prefix(']') {
            Some(rest) if json::skip_whitespace(rest).is_empty() => Ok(()),
            Some(_) | None => Err(DataError::Malformed),
        }
    }
}

/// serde's message less the parts it quotes from the input: they are private, and could forge log lines.
fn without_content(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = match message.rsplit_once(" at line ") {
        Some((message, _)) if error.line() > 0 => message,
        Some(_) | None => message.as_str(),
    };
    if !error.is_data() {
        return message.to_owned(); // serde_json's own words: a lone surrogate, a number out of range
    }
    // What was found comes first and may hold anything; what was expected comes last and is the type's own text.
    let expected = message.rsplit_once(", expected ").map(|(_, expected)| expected);
    for (prefix, found) in FOUND {
        if message.starts_with(prefix) {
            return expected.map_or_else(|| (*found).to_owned(), |expected| format!("{found}, expected {expected}"));
        }
    }
    for prefix in ["missing field `", "duplicate field `"] {
        if let Some((field, _)) = message.strip_prefix(prefix).and_then(|rest| rest.split_once('`')) {
            return format!("{prefix}{field}`");
        }
    }
    "refused by a check of the type itself".to_owned()
}

/// How serde's messages begin, and as much of each as is ours to repeat.
const FOUND: &[(&str, &str)] = &[
    ("invalid type: null", "invalid type: null"),
    ("invalid type: boolean", "invalid type: boolean"),
    ("invalid type: integer", "invalid type: integer"),
    ("invalid type: floating point", "invalid type: floating point"),
    ("invalid type: string", "invalid type: string"),
    ("invalid type: sequence", "invalid type: sequence"),
    ("invalid type: map", "invalid type: map"),
    ("invalid type: ", "invalid type"),
    ("invalid value: ", "invalid value"),
    ("invalid length ", "invalid length"),
    ("unknown field `", "unknown field"),
    ("unknown variant `", "unknown variant"),
];

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn data(json: &str) -> Data {
        Event::from_json(json, Vec::new()).unwrap().into_data()
    }

    fn message<T: FromArguments + fmt::Debug>(json: &str) -> String {
        match data(json).args::<T>().unwrap_err() {
            DataError::Mismatch { message, .. } => message,
            DataError::Malformed => "malformed".to_owned(),
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Seek {
        to: f64,
    }

    #[test]
    fn a_bare_type_reads_the_first_argument() {
        assert_eq!(data(r#"["e",{"to":1.5}]"#).args(), Ok(Seek { to: 1.5 }));
        assert_eq!(data(r#"["e", 7 , "surplus", [1]]"#).args(), Ok(7));
        assert_eq!(data(r#"["e",[1,2]]"#).args(), Ok((1, 2)));
    }

    #[test]
    fn absent_arguments_read_as_null() {
        assert_eq!(data(r#"["e"]"#).args(), Ok(()));
        assert_eq!(data(r#"["e"]"#).args(), Ok(None::<Seek>));
        assert_eq!(data(r#"["e",1]"#).args(), Ok(Args((1, Value::Null, None::<u8>))));
        assert_eq!(message::<u8>(r#"["e"]"#), "invalid type: null, expected u8");
    }

    #[test]
    fn eight_arguments_are_read_in_order() {
        type Eight = (u8, String, [u8; 1], Value, u8, f32, (), bool);
        let Args(read) = data("[0,1,\"2\",[3],{\"a\":4},5,6,null,true]").args::<Args<Eight>>().unwrap();
        assert_eq!(read, (1, "2".to_owned(), [3], json!({"a": 4}), 5, 6.0, (), true));
    }

    #[test]
    fn handlers_may_take_the_data_as_it_is() {
        let all: Data = data(r#"["e",1,2]"#).args().unwrap();
        assert_eq!(all.json(), r#"["e",1,2]"#);
    }

    #[test]
    fn an_attachment_reaches_the_field_that_names_it() {
        let attachment = Bytes::from_static(b"png");
        let event = Event::from_json(r#"["e",[{"_placeholder":true,"num":0}]]"#, vec![attachment.clone()]).unwrap();
        let read: Vec<placeholder::Binary> = event.data().args().unwrap();
        assert_eq!(read, [placeholder::Binary(attachment)]);
    }

    #[test]
    fn attachments_that_a_type_would_lose_are_a_mismatch() {
        type Raw = Box<serde_json::value::RawValue>;
        let event = |json: &str| Event::from_json(json, vec![Bytes::from_static(b"png")]).unwrap().into_data();
        let stray = |argument| DataError::Mismatch { argument, message: placeholder::STRAY.to_owned() };
        let file = event(r#"["e",{"name":"x","file":{"_placeholder":true,"num":0}}]"#);
        assert_eq!(file.args::<Value>(), Err(stray(0)));
        assert_eq!(file.args::<Raw>().unwrap_err(), stray(0));
        assert_eq!(
            file.args::<Option<Vec<Value>>>().unwrap_err(),
            DataError::Mismatch { argument: 0, message: "invalid type: map, expected a sequence".to_owned() }
        );
        assert_eq!(file.args::<Args<(std::collections::HashMap<String, Value>,)>>(), Err(stray(0)));
        let second = event(r#"["e",1,[{"n\u0075m":0,"_placeholder":true}],2]"#);
        assert_eq!(second.args::<Args<(u8, Value)>>(), Err(stray(1)));
        assert_eq!(second.args::<Args<(u8, Vec<Raw>)>>().unwrap_err(), stray(1));

        #[derive(Debug, PartialEq, Deserialize)]
        struct Number {
            num: u8,
        }
        assert_eq!(second.args::<Args<(u8, [Number; 1])>>(), Err(stray(1)));
    }

    #[test]
    fn attachments_that_a_type_takes_or_leaves_out_are_none() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Named {
            name: String,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        struct Tagged {
            file: placeholder::Binary,
            #[serde(flatten)]
            more: serde_json::Map<String, Value>,
        }
        let png = Bytes::from_static(b"png");
        let json = r#"["e",{"name":"x","file":{"_placeholder":true,"num":0}}]"#;
        let file = Event::from_json(json, vec![png.clone()]).unwrap().into_data();
        assert_eq!(file.args(), Ok(Named { name: "x".to_owned() }));
        assert_eq!(file.args::<IgnoredAny>(), Ok(IgnoredAny));
        let more = serde_json::Map::from_iter([("name".to_owned(), json!("x"))]);
        assert_eq!(file.args(), Ok(Tagged { file: png.clone().into(), more }));
        let surplus = Event::from_json(r#"["e",7,{"_placeholder":true,"num":0}]"#, vec![png.clone()]).unwrap();
        assert_eq!(surplus.data().args(), Ok(7));
        // Not every object with such a field is a placeholder.
        let plain = r#"["e",{"_placeholder":false,"num":0},{"_placeholder":true},{"_placeholder":true,"num":1}]"#;
        let plain = Event::from_json(plain, vec![png]).unwrap();
        let Args((first, second, third)) = plain.data().args::<Args<(Value, Value, Value)>>().unwrap();
        assert_eq!((first["num"].as_u64(), second.get("num"), third["num"].as_u64()), (Some(0), None, Some(1)));
        // Nor is one where there are no attachments.
        assert!(data(r#"["e",{"_placeholder":true,"num":0}]"#).args::<Value>().is_ok());
    }

    #[test]
    fn malformed_is_told_from_mismatched_even_behind_a_mismatch() {
        for json in [
            r#"["e",1"#,
            r#"["e",1,]"#,
            r#"["e",1]]"#,
            r#"["e",1]x"#,
            r#"["e",{"to":"x",}]"#,
            r#"["e",1 2]"#,
            r#"["e",01]"#,
            r#"["e","a" "b"]"#,
            r#"["e",nul]"#,
            r#"["e",{"to":1}}"#,
        ] {
            assert_eq!(data(json).args::<Seek>(), Err(DataError::Malformed), "{json}");
            assert_eq!(data(json).args::<Data>(), Err(DataError::Malformed), "{json}");
            assert_eq!(data(json).validate(), Err(DataError::Malformed), "{json}");
        }
    }

    #[test]
    fn mismatches_say_what_was_expected_and_nothing_of_what_came() {
        assert_eq!(message::<u8>(r#"["e","SECRET, expected x at line 3"]"#), "invalid type: string, expected u8");
        assert_eq!(message::<u8>(r#"["e",300]"#), "invalid value, expected u8");
        assert_eq!(message::<Seek>(r#"["e",{"SECRET":1}]"#), "unknown field, expected `to`");
        assert_eq!(message::<Seek>(r#"["e",{}]"#), "missing field `to`");
        assert_eq!(message::<Seek>(r#"["e",{"to":1,"to":2}]"#), "duplicate field `to`");
        assert_eq!(message::<std::net::IpAddr>(r#"["e","SECRET"]"#), "refused by a check of the type itself");
        assert_eq!(message::<[u8; 2]>(r#"["e",[1]]"#), "invalid length, expected an array of length 2");
        assert_ne!(message::<String>(r#"["e","\ud800"]"#), "malformed"); // no text for Rust, but JSON
    }

    #[test]
    fn the_mismatched_argument_is_counted_from_zero() {
        let error = data(r#"["e",1,"x"]"#).args::<Args<(u8, u8)>>().unwrap_err();
        assert!(matches!(error, DataError::Mismatch { argument: 1, .. }), "{error:?}");
    }

    #[test]
    fn the_deepest_data_accepted_still_parses() {
        let json = format!("[\"e\",{}{}]", "[".repeat(127), "]".repeat(127));
        assert!(data(&json).args::<Value>().is_ok());
        let json = format!("[\"e\",{}{}]", "[".repeat(128), "]".repeat(128));
        assert_eq!(Event::from_json(json, Vec::new()), Err(DecodeError::TooDeep));
    }
}
