//! A deserializer around another that notes which placeholders a type reads as plain objects.
//!
//! serde hands a placeholder to a type as it hands over any object. A type that ignores the object never gets to see it,
//! [`Binary`](crate::Binary) takes the attachment, and what is left is a type that would keep the placeholder alone.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{offered, see};
use crate::json;

/// A value that has been read under watch.
pub(crate) struct Watched<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Watched<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(Watch { of: deserializer, note: None }).map(Self)
    }
}

/// A part of serde's machinery under watch.
struct Watch<'a, T> {
    of: T,
    /// Where to put what a scalar is, if that is of interest.
    note: Option<&'a mut Note>,
}

impl<T> Watch<'_, T> {
    const fn new(of: T) -> Self {
        Self { of, note: None }
    }
}

/// What is known of a key or of the value behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Note {
    Nothing,
    /// The key `_placeholder`.
    Placeholder,
    /// The key `num`.
    Num,
    /// The key under which serde_json hands over raw JSON, and the wish to see that text.
    Raw,
    True,
    Number(u64),
}

/// The name under which serde_json hands over raw JSON, as the key of an object that has nothing else.
const RAW: &str = "$serde_json::private::RawValue";

impl<T> Watch<'_, T> {
    fn note(&mut self, found: Note) {
        if let Some(note) = &mut self.note {
            **note = found;
        }
    }

    fn note_text(&mut self, text: &str) {
        match &mut self.note {
            Some(Note::Raw) => json::placeholders(text, offered()).iter().for_each(|found| see(found.num)),
            Some(note) => {
                **note = match text {
                    "_placeholder" => Note::Placeholder,
                    "num" => Note::Num,
                    RAW => Note::Raw,
                    _ => Note::Nothing,
                }
            }
            None => {}
        }
    }
}

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $type:ty),*))+) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.of.$method($($argument,)* Watch { of: visitor, note: self.note })
        })+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Watch<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str) deserialize_seq() deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize) deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) deserialize_identifier()
    }

    /// What is ignored is not watched, but for the value that makes an object a placeholder.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match self.note {
            note @ Some(_) => self.of.deserialize_any(Watch { of: visitor, note }),
            None => self.of.deserialize_ignored_any(visitor),
        }
    }

    fn is_human_readable(&self) -> bool {
        self.of.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident($type:ty))+) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.of.$method(value)
        })+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watch<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of.expecting(f)
    }

    visit! {
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u128(u128)
        visit_f32(f32) visit_f64(f64) visit_char(char)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<V::Value, E> {
        self.note(if value { Note::True } else { Note::Nothing });
        self.of.visit_bool(value)
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<V::Value, E> {
        self.note(Note::Number(value));
        self.of.visit_u64(value)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<V::Value, E> {
        self.note_text(text);
        self.of.visit_str(text)
    }

    fn visit_borrowed_str<E: Error>(mut self, text: &'de str) -> Result<V::Value, E> {
        self.note_text(text);
        self.of.visit_borrowed_str(text)
    }

    fn visit_string<E: Error>(mut self, text: String) -> Result<V::Value, E> {
        self.note_text(&text);
        self.of.visit_string(text)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.of.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.of.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.of.visit_some(Watch { of: deserializer, note: self.note })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.of.visit_newtype_struct(Watch { of: deserializer, note: self.note })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.of.visit_seq(Watch::new(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<V::Value, A::Error> {
        self.of.visit_map(Fields { of: fields, key: Note::Nothing, is_placeholder: false, num: None })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.of.visit_enum(Watch::new(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watch<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.of.deserialize(Watch { of: deserializer, note: self.note })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watch<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.of.next_element_seed(Watch::new(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.of.size_hint()
    }
}

/// The fields of an object, and what makes it a placeholder.
struct Fields<A> {
    of: A,
    key: Note,
    is_placeholder: bool,
    num: Option<u64>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.key = Note::Nothing;
        let key = self.of.next_key_seed(Watch { of: seed, note: Some(&mut self.key) })?;
        if let (None, true, Some(num)) = (&key, self.is_placeholder, self.num)
            && let Ok(num) = usize::try_from(num)
        {
            see(num);
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let mut found = self.key;
        let note = (found != Note::Nothing).then_some(&mut found);
        let value = self.of.next_value_seed(Watch { of: seed, note })?;
        match self.key {
            Note::Placeholder => self.is_placeholder = found == Note::True,
            Note::Num => self.num = if let Note::Number(num) = found { Some(num) } else { None },
            Note::Nothing | Note::Raw | Note::True | Note::Number(_) => {}
        }
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        self.of.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Watch<'_, A> {
    type Error = A::Error;
    type Variant = Watch<'static, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.of.variant_seed(Watch::new(seed))?;
        Ok((value, Watch::new(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Watch<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.of.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.of.newtype_variant_seed(Watch::new(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.of.tuple_variant(len, Watch::new(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.of.struct_variant(fields, Watch::new(visitor))
    }
}
