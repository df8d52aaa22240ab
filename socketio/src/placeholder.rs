//! Binary values: out of an outgoing packet's JSON as attachments, and back into a handler's type.
//!
//! serde has no way to hand a side channel through `Serialize` and `Deserialize`: an implementation deep inside a
//! user's type sees only the serializer. The alternatives are a detour over a JSON tree, which parses or builds every
//! packet twice, or a serializer of our own under every type. So the attachments of the packet at hand lie in a
//! thread-local for just as long as one synchronous call to serde takes. [`Binary`] finds them there; a guard puts
//! back what was there before, also on unwind and when calls nest.

mod argument;
mod watch;

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Unexpected, Visitor};
use serde::ser::{Error as _, Serialize, SerializeStruct as _, Serializer};

pub use self::argument::Argument;
pub(crate) use self::watch::Watched;

thread_local! {
    static COLLECTED: RefCell<Option<Vec<Bytes>>> = const { RefCell::new(None) };
    static OFFERED: RefCell<Option<Offered>> = const { RefCell::new(None) };
}

/// The attachments of the packet that is being read.
struct Offered {
    attachments: Vec<Bytes>,
    /// A bit for each of the first that a value has taken.
    taken: u64,
    /// How each is used, once that is watched.
    uses: Vec<Use>,
}

/// How the type of a handler uses an attachment. The later in this list counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Not at all.
    #[default]
    Ignored,
    /// The type has read its placeholder as an object like any other.
    Stray,
    /// The type has the attachment.
    Taken,
}

/// What is wrong with a type that would keep a placeholder without its attachment.
pub(crate) const STRAY: &str = "binary data where the type has no place for it";

/// Bytes inside of an event's arguments, sent as an attachment of their own instead of as JSON.
///
/// Serializes only within the encoder, and deserializes only within [`Data::args`](crate::Data::args), where it takes
/// the attachment its placeholder names without copying it. Anywhere else both are an error of serde's, so binary data
/// cannot end up as a stray placeholder in some file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Binary(pub Bytes);

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let num = COLLECTED.with_borrow_mut(|collected| {
            collected.as_mut().map(|attachments| {
                attachments.push(self.0.clone());
                attachments.len() - 1
            })
        });
        let num = num.ok_or_else(|| S::Error::custom("binary data can only be written into a Socket.IO packet"))?;
        let mut placeholder = serializer.serialize_struct("Placeholder", 2)?;
        placeholder.serialize_field("_placeholder", &true)?;
        placeholder.serialize_field("num", &num)?;
        placeholder.end()
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PlaceholderVisitor)
    }
}

struct PlaceholderVisitor;

impl<'de> Visitor<'de> for PlaceholderVisitor {
    type Value = Binary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("binary data")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Binary, A::Error> {
        let (mut placeholder, mut num) = (false, None);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Placeholder => placeholder = map.next_value()?,
                Field::Num => num = Some(map.next_value::<usize>()?),
                Field::Other => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        let found = num.filter(|_| placeholder).and_then(take);
        found.map(Binary).ok_or_else(|| serde::de::Error::invalid_type(Unexpected::Map, &self))
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier)]
enum Field {
    #[serde(rename = "_placeholder")]
    Placeholder,
    #[serde(rename = "num")]
    Num,
    #[serde(other)]
    Other,
}

/// Runs `write` and returns, next to its result, the bytes of every [`Binary`] it serialized, in order.
pub(crate) fn collecting<R>(write: impl FnOnce() -> R) -> (R, Vec<Bytes>) {
    let _restored = Restored { slot: &COLLECTED, before: COLLECTED.replace(Some(Vec::new())) };
    let result = write();
    (result, COLLECTED.take().unwrap_or_default())
}

/// Takes already collected attachments into the running collection, as if they had been serialized; returns how many
/// there were before.
pub(crate) fn collect(attachments: &[Bytes]) -> usize {
    COLLECTED.with_borrow_mut(|collected| {
        collected.as_mut().map_or(0, |collected| {
            let before = collected.len();
            collected.extend_from_slice(attachments);
            before
        })
    })
}

/// Runs `read` with `attachments` in reach of every [`Binary`] it deserializes.
pub(crate) fn offering<R>(attachments: &[Bytes], read: impl FnOnce() -> R) -> R {
    let offered =
        (!attachments.is_empty()).then(|| Offered { attachments: attachments.to_vec(), taken: 0, uses: Vec::new() });
    let _restored = Restored { slot: &OFFERED, before: OFFERED.replace(offered) };
    read()
}

/// Runs `read` with no attachments in reach, also where it runs within [`offering`].
#[inline]
pub(crate) fn offering_none<R>(read: impl FnOnce() -> R) -> R {
    if OFFERED.with_borrow(Option::is_none) { read() } else { offering(&[], read) }
}

/// Starts to note how the attachments in reach are used.
pub(crate) fn watch() {
    OFFERED.with_borrow_mut(|offered| {
        if let Some(offered) = offered {
            offered.uses = vec![Use::default(); offered.attachments.len()];
        }
    });
}

/// Returns `true` if a value has taken each of the attachments in reach, so that no placeholder can stand for one
/// elsewhere. `false` may also mean that there are too many to tell.
pub(crate) fn all_taken() -> bool {
    OFFERED.with_borrow(|offered| {
        offered.as_ref().is_none_or(|offered| offered.taken.count_ones() as usize == offered.attachments.len())
    })
}

/// Notes that a value has taken all attachments in reach.
pub(crate) fn take_all() {
    OFFERED.with_borrow_mut(|offered| {
        if let Some(offered) = offered {
            offered.taken = u64::MAX.unbounded_shr(64_u32.saturating_sub(offered.attachments.len() as u32));
            offered.uses.fill(Use::Taken);
        }
    });
}

/// Returns the attachment of a number, for a value that keeps it.
fn take(num: usize) -> Option<Bytes> {
    OFFERED.with_borrow_mut(|offered| {
        let offered = offered.as_mut()?;
        let found = offered.attachments.get(num)?.clone();
        offered.taken |= if num < 64 { 1 << num } else { 0 };
        if let Some(used) = offered.uses.get_mut(num) {
            *used = Use::Taken;
        }
        Some(found)
    })
}

/// Takes note that a placeholder has been read as an object like any other.
fn see(num: usize) {
    OFFERED.with_borrow_mut(|offered| {
        if let Some(used) = offered.as_mut().and_then(|offered| offered.uses.get_mut(num)) {
            *used = Use::Stray.max(*used);
        }
    });
}

/// Returns how many attachments are in reach.
fn offered() -> usize {
    OFFERED.with_borrow(|offered| offered.as_ref().map_or(0, |offered| offered.attachments.len()))
}

/// Returns `true` if what was read so far holds the placeholder of an attachment, but not the attachment.
pub(crate) fn has_stray() -> bool {
    OFFERED.with_borrow(|offered| offered.as_ref().is_some_and(|offered| offered.uses.contains(&Use::Stray)))
}

/// Parses JSON with attachments, for a type that keeps those it reads.
#[cfg(feature = "server")]
pub(crate) fn from_str<T: serde::de::DeserializeOwned>(
    json: &str,
    attachments: &[Bytes],
) -> Result<T, serde_json::Error> {
    if attachments.is_empty() {
        return serde_json::from_str(json);
    }
    offering(attachments, || {
        watch();
        let Watched(value) = serde_json::from_str(json)?;
        if has_stray() { Err(serde::de::Error::custom(STRAY)) } else { Ok(value) }
    })
}

struct Restored<T: 'static> {
    slot: &'static std::thread::LocalKey<RefCell<Option<T>>>,
    before: Option<T>,
}

impl<T> Drop for Restored<T> {
    fn drop(&mut self) {
        self.slot.replace(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_as_placeholders_and_come_back_uncopied() {
        let sent = (Binary::from(vec![1]), 7, Binary::from(vec![2, 3]));
        let (json, attachments) = collecting(|| serde_json::to_string(&sent).unwrap());
        assert_eq!(json, r#"[{"_placeholder":true,"num":0},7,{"_placeholder":true,"num":1}]"#);
        assert_eq!(attachments, [Bytes::from_static(&[1]), Bytes::from_static(&[2, 3])]);
        let read: (Binary, u8, Binary) = offering(&attachments, || serde_json::from_str(&json).unwrap());
        assert_eq!(read, sent);
        assert_eq!(read.2.0.as_ptr(), attachments[1].as_ptr());
    }

    #[test]
    fn outside_of_a_packet_both_directions_are_errors() {
        assert!(serde_json::to_string(&Binary::default()).is_err());
        assert!(serde_json::from_str::<Binary>(r#"{"_placeholder":true,"num":0}"#).is_err());
    }

    #[test]
    fn nested_packets_do_not_mix_their_attachments() {
        let ((), outer) = collecting(|| {
            serde_json::to_string(&Binary::from(vec![1])).unwrap();
            let (_, inner) = collecting(|| serde_json::to_string(&Binary::from(vec![2])).unwrap());
            assert_eq!(inner, [Bytes::from_static(&[2])]);
            serde_json::to_string(&Binary::from(vec![3])).unwrap();
        });
        assert_eq!(outer, [Bytes::from_static(&[1]), Bytes::from_static(&[3])]);
    }

    #[test]
    fn a_panic_leaves_no_scope_behind() {
        let caught = std::panic::catch_unwind(|| collecting(|| std::panic::panic_any("stop")));
        assert!(caught.is_err());
        assert!(serde_json::to_string(&Binary::default()).is_err());
    }

    #[test]
    fn buffering_types_find_their_attachments_too() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Image { image: Binary },
        }
        let attachments = [Bytes::from_static(b"x")];
        let json = r#"{"image":{"num":0,"extra":[1],"_placeholder":true}}"#;
        let read: Either = offering(&attachments, || serde_json::from_str(json).unwrap());
        assert_eq!(read, Either::Image { image: Binary(Bytes::from_static(b"x")) });
    }
}
