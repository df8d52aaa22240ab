//! Arguments on their way out.

use bytes::Bytes;
use serde::Serialize;

use crate::data::Data;
use crate::error::UsageError;
use crate::{json, placeholder};

/// What can follow an event's name, or answer an event.
///
/// `()` is no argument, a tuple one argument an element up to eight, a reference one argument, and [`Data`] all the
/// arguments that arrived elsewhere.
pub trait Arguments {
    /// Writes every argument.
    ///
    /// # Errors
    /// Those of [`ArgumentWriter::write`].
    fn write(&self, writer: &mut ArgumentWriter<'_>) -> Result<(), UsageError>;
}

/// Writes arguments, with commas, into a packet.
#[derive(Debug)]
pub struct ArgumentWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> ArgumentWriter<'a> {
    /// Writes the array around the `name` of an event, if it has one, and `arguments`; returns their attachments.
    pub(crate) fn array(
        out: &'a mut Vec<u8>,
        name: Option<&str>,
        arguments: &impl Arguments,
    ) -> Result<Vec<Bytes>, UsageError> {
        let start = out.len();
        out.push(b'[');
        let mut writer = ArgumentWriter { out: &mut *out, first: true };
        let (written, attachments) = placeholder::collecting(|| {
            if let Some(name) = name {
                writer.write(name)?;
            }
            arguments.write(&mut writer)
        });
        written?;
        writer.out.push(b']');
        let array = out.get(start..).unwrap_or_default();
        // A receiver refuses what is nested too deep, in this crate and in other instances.
        if json::is_shallow(array) || str::from_utf8(array).is_ok_and(|array| json::check_depth(array).is_ok()) {
            Ok(attachments)
        } else {
            Err(UsageError::TooDeep)
        }
    }

    /// Writes one argument; each [`Binary`](crate::Binary) in it becomes an attachment.
    ///
    /// # Errors
    /// [`UsageError::Serialize`] if its `Serialize` fails.
    pub fn write<T: Serialize + ?Sized>(&mut self, argument: &T) -> Result<(), UsageError> {
        self.comma();
        serde_json::to_writer(&mut *self.out, argument).map_err(|error| UsageError::Serialize(error.to_string()))
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }
}

impl Arguments for () {
    fn write(&self, _: &mut ArgumentWriter<'_>) -> Result<(), UsageError> {
        Ok(())
    }
}

impl<T: Serialize + ?Sized> Arguments for &T {
    fn write(&self, writer: &mut ArgumentWriter<'_>) -> Result<(), UsageError> {
        writer.write(*self)
    }
}

/// Forwards arguments as they came, attachments included.
impl Arguments for Data {
    fn write(&self, writer: &mut ArgumentWriter<'_>) -> Result<(), UsageError> {
        self.validate().map_err(|_| UsageError::MalformedData)?;
        let arguments = self.arguments().trim_end();
        let arguments = arguments.strip_suffix(']').unwrap_or(arguments).trim_end();
        let offset = placeholder::collect(self.attachments());
        if !arguments.is_empty() {
            writer.comma();
            if offset == 0 || self.attachments().is_empty() {
                writer.out.extend_from_slice(arguments.as_bytes());
            } else {
                // Behind the attachments of other arguments.
                let found = json::placeholders(arguments, self.attachments().len());
                writer.out.extend_from_slice(json::renumbered(arguments, &found, |num| num + offset).as_bytes());
            }
        }
        Ok(())
    }
}

/// As [`Data`] itself.
impl Arguments for &Data {
    fn write(&self, writer: &mut ArgumentWriter<'_>) -> Result<(), UsageError> {
        (**self).write(writer)
    }
}

macro_rules! arguments {
    ($($name:ident $index:tt)+) => {
        impl<$($name: Serialize),+> Arguments for ($($name,)+) {
            fn write(&self, writer: &mut ArgumentWriter<'_>) -> Result<(), UsageError> {
                $(writer.write(&self.$index)?;)+
                Ok(())
            }
        }
    };
}

arguments!(A 0);
arguments!(A 0 B 1);
arguments!(A 0 B 1 C 2);
arguments!(A 0 B 1 C 2 D 3);
arguments!(A 0 B 1 C 2 D 3 E 4);
arguments!(A 0 B 1 C 2 D 3 E 4 F 5);
arguments!(A 0 B 1 C 2 D 3 E 4 F 5 G 6);
arguments!(A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7);
