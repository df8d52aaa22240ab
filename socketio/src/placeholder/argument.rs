//! Any one argument, with the attachments it refers to.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{COLLECTED, collect, offered, take};
use crate::json;

/// Any value as it came, JSON text and the attachments it refers to, to be passed on unread.
///
/// It is one argument, or a part of one; [`Data`](crate::Data) is all the arguments of an event. Like
/// [`Binary`](crate::Binary), one with attachments deserializes only from a packet and serializes only into one.
///
/// ```
/// use socketio::{Args, Argument, Event};
///
/// let event = Event::from_json(r#"["say","lobby",{"file":{"_placeholder":true,"num":0}}]"#, vec!["png".into()])?;
/// let Args((room, what)) = event.data().args::<Args<(String, Argument)>>()?;
/// assert_eq!((&*room, what.attachments()), ("lobby", &["png".into()][..]));
/// assert_eq!(Event::encode("say", (room, what))?, event);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Argument {
    json: Box<RawValue>,
    attachments: Vec<Bytes>,
}

impl Argument {
    /// Returns the text. Each `{"_placeholder":true,"num":n}` in it stands for the n-th attachment, where there are any.
    #[must_use]
    pub fn json(&self) -> &str {
        self.json.get()
    }

    /// Returns the attachments, in the order of their `num`.
    #[must_use]
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }
}

/// `null`.
impl Default for Argument {
    fn default() -> Self {
        Self { json: RawValue::NULL.to_owned(), attachments: Vec::new() }
    }
}

/// Equal text and equal attachments.
impl PartialEq for Argument {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json() && self.attachments == other.attachments
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argument").field("json", &self.json()).field("attachments", &self.attachments).finish()
    }
}

impl<'de> Deserialize<'de> for Argument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let placeholders = json::placeholders(json.get(), offered());
        if placeholders.is_empty() {
            return Ok(Self { json, attachments: Vec::new() });
        }
        // Its own are numbered from zero, in the order of the packet.
        let mut nums: Vec<usize> = placeholders.iter().map(|placeholder| placeholder.num).collect();
        nums.sort_unstable();
        nums.dedup();
        let attachments = nums.iter().filter_map(|num| take(*num)).collect();
        let own = json::renumbered(json.get(), &placeholders, |num| nums.binary_search(&num).unwrap_or(num));
        let json = RawValue::from_string(own).map_err(serde::de::Error::custom)?;
        Ok(Self { json, attachments })
    }
}

impl Serialize for Argument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.attachments.is_empty() {
            return self.json.serialize(serializer);
        }
        if COLLECTED.with_borrow(Option::is_none) {
            return Err(S::Error::custom("binary data can only be written into a Socket.IO packet"));
        }
        let offset = collect(&self.attachments);
        if offset == 0 {
            return self.json.serialize(serializer);
        }
        let placeholders = json::placeholders(self.json(), self.attachments.len());
        let json = json::renumbered(self.json(), &placeholders, |num| num + offset);
        RawValue::from_string(json).map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Args, Binary, Data, DataError, Event, UsageError};

    fn event(json: &str, attachments: &[&'static str]) -> Event {
        Event::from_json(json, attachments.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()).unwrap()
    }

    #[test]
    fn arguments_keep_their_text_and_attachments_wherever_they_go() {
        let came = event(
            r#"["e",[{"_placeholder":true,"num":2}, 1.0,{"_placeholder":true,"num":0}],{"b":"\ud800","a":1e400},{"_placeholder":true,"num":1}]"#,
            &["a", "b", "c"],
        );
        let Args((first, second, third)) = came.data().args::<Args<(Argument, Argument, Argument)>>().unwrap();
        assert_eq!(first.json(), r#"[{"_placeholder":true,"num":1}, 1.0,{"_placeholder":true,"num":0}]"#);
        assert_eq!((first.attachments(), third.attachments()), (&["a".into(), "c".into()][..], &["b".into()][..]));
        assert_eq!(second.json(), r#"{"b":"\ud800","a":1e400}"#);
        let sent = Data::encode((Binary::from(vec![7]), &third, &second, &first)).unwrap();
        assert_eq!(
            sent.json(),
            r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1},{"b":"\ud800","a":1e400},[{"_placeholder":true,"num":3}, 1.0,{"_placeholder":true,"num":2}]]"#
        );
        assert_eq!(sent.attachments(), [&b"\x07"[..], b"b", b"a", b"c"]);
        assert_eq!(came.data().args(), Ok(first));
    }

    #[test]
    fn an_attachment_that_is_named_twice_is_kept_once() {
        let came = event(r#"["e",[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]]"#, &["a", "b"]);
        let argument: Argument = came.data().args().unwrap();
        assert_eq!(argument.attachments(), ["b"]);
        let sent = Event::encode("e", (argument,)).unwrap();
        assert_eq!(sent.data().json(), r#"["e",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]]"#);
    }

    #[test]
    fn without_a_packet_only_plain_values_are_written() {
        let came = event(r#"["e",{"_placeholder":true,"num":0},2]"#, &["a"]);
        let Args((file, two)) = came.data().args::<Args<(Argument, Argument)>>().unwrap();
        assert!(serde_json::to_string(&file).is_err());
        assert_eq!(serde_json::to_string(&(two, Argument::default())).unwrap(), "[2,null]");
    }

    /// Data that is written behind other arguments.
    struct Behind(Binary, Data);

    impl crate::Arguments for Behind {
        fn write(&self, writer: &mut crate::ArgumentWriter<'_>) -> Result<(), UsageError> {
            writer.write(&self.0)?;
            self.1.write(writer)
        }
    }

    #[test]
    fn forwarded_data_finds_its_attachments_behind_others() {
        let came = event(r#"["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]"#, &["a", "b"]);
        let sent = Data::encode(Behind(Binary::from(vec![7]), came.into_data())).unwrap();
        assert_eq!(
            sent.json(),
            r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":2},{"_placeholder":true,"num":1}]"#
        );
        assert_eq!(sent.args::<Argument>().unwrap().attachments(), [&b"\x07"[..]]);
        let mismatch = sent.args::<Args<(Binary, serde_json::Value)>>().unwrap_err();
        assert!(matches!(mismatch, DataError::Mismatch { argument: 1, .. }), "{mismatch:?}");
    }
}
