//! Socket.IO 5: a server on `engineio`, and below it packets, namespaces and acks as a machine without a socket.
//!
//! The module `server`, on by default as a feature of that name, is what applications use: `Io` and its namespaces,
//! sockets, rooms and broadcasts. The rest of this page is about the core, which any transport can drive.
//!
//! # The model
//!
//! A Socket.IO connection is an ordered stream of text and binary messages in both directions; who carries them is
//! not this crate's core's business. Over the one stream a client joins any number of **namespaces**. Each CONNECT
//! packet opens a [`Slot`], pending until the middleware of the namespace has answered, connected afterwards. In a
//! connected slot both sides send **events**: a name and arguments, some of which may be binary and travel as
//! **attachments** behind the text, with a **placeholder** where they belong. An event may ask for an **ack**, one
//! answer under the same id. A packet that is malformed, or comes at the wrong moment, closes the whole connection; a
//! refused namespace does not.
//!
//! - [`Connection`] is the server's half: [`Input`] in, [`Action`] out, [`Connection::poll_timeout`] for the one alarm.
//!   It has no clock, no lock and no task, and nothing a client sends makes it fail or grow without a limit.
//! - [`Decoder`] and the `encode_` functions are the codec alone, for either side.
//! - [`Data`] holds the arguments of an event as text until a handler says what type it wants, so that they are parsed
//!   once: [`Data::args`]. [`Arguments`] are those on their way out, written straight into the caller's buffer.
//!
//! Which namespaces exist, who may join them, rooms and broadcasting are left to the caller.
//!
//! # Driving it
//!
//! ```
//! use std::time::Instant;
//!
//! use socketio::{Action, Args, Connection, ConnectionConfig, Input, encode_ack};
//!
//! let mut connection = Connection::new(ConnectionConfig::default(), Instant::now());
//! let mut sent = Vec::new();
//! // What some transport received, one message at a time:
//! for message in [r#"0{"token":"t"}"#, r#"20["add",2,3]"#, r#"2["add",2"#] {
//!     connection.handle(Input::Text(message.into()), Instant::now());
//!     while let Some(action) = connection.poll_action() {
//!         match action {
//!             Action::Connect { slot, namespace, auth } => {
//!                 let input = match (&*namespace, auth) {
//!                     ("/", Some(_)) => Input::Accept { slot, sid: "s1".into(), pid: None },
//!                     _ => Input::Refuse { slot, message: "Invalid namespace".to_owned(), data: None },
//!                 };
//!                 connection.handle(input, Instant::now());
//!             }
//!             Action::Event { event, ack, .. } => match (event.data().args::<Args<(u32, u32)>>(), ack) {
//!                 (Ok(Args((a, b))), Some(id)) => {
//!                     let mut text = Vec::new();
//!                     encode_ack(&mut text, "/", id, (a + b,))?;
//!                     sent.push(String::from_utf8(text)?);
//!                 }
//!                 (Ok(_), None) => {}
//!                 (Err(socketio::DataError::Malformed), _) => connection.handle(Input::Malformed, Instant::now()),
//!                 (Err(socketio::DataError::Mismatch { .. }), _) => {} // worth an answer to the client
//!             },
//!             Action::Write(text) => sent.push(text.to_string()),
//!             Action::Close(reason) => sent.push(reason.as_str().to_owned()),
//!             Action::Ack { .. } | Action::AckExpired { .. } | Action::Disconnected { .. } => {}
//!         }
//!     }
//! }
//! assert_eq!(sent, [r#"0{"sid":"s1"}"#, "30[5]", "forced close"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! And the other side, a client that has just connected over a transport of its own:
//!
//! ```
//! use serde_json::Value;
//! use socketio::{Binary, Content, Decoder, encode_connect_request, encode_event};
//!
//! let mut out = Vec::new();
//! encode_connect_request(&mut out, "/chat", None)?;
//! assert_eq!(out, b"0/chat,");
//! out.clear();
//! let attachments = encode_event(&mut out, "/chat", None, "image", (Binary::from(vec![1, 2, 3]),))?;
//! assert_eq!(out, br#"51-/chat,["image",{"_placeholder":true,"num":0}]"#);
//!
//! let mut decoder = Decoder::default();
//! assert!(decoder.text(String::from_utf8(out)?.into())?.is_none()); // its attachment is still to come
//! let packet = decoder.binary(attachments[0].clone())?.expect("that was the only attachment");
//! assert_eq!(packet.namespace(), "/chat");
//! if let Content::Event(Some(event)) = packet.into_content() {
//!     let image: Binary = event.data().args()?;
//!     assert_eq!((event.name(), image.as_ref()), ("image", &[1, 2, 3][..]));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is left out
//!
//! The packets of protocol 4 and earlier, and the other parsers of the reference (msgpack, custom ones). Of the server:
//! serving the client bundle, Engine.IO 3, JSONP, and for the time being dynamic namespaces, and connection state recovery
//! across instances.

mod ack;
mod arguments;
mod connection;
mod data;
mod decoder;
mod encoder;
mod error;
mod json;
mod packet;
mod placeholder;
#[cfg(feature = "server")]
pub mod server;

pub use arguments::{ArgumentWriter, Arguments};
pub use connection::{Action, Connection, ConnectionConfig, Input, Slot};
pub use data::{Args, ArgumentReader, Data, Event, FromArguments};
pub use decoder::{Decoder, DecoderConfig};
pub use encoder::{
    encode_ack, encode_connect, encode_connect_error, encode_connect_request, encode_disconnect, encode_event,
};
#[cfg(feature = "server")]
pub use engineio;
pub use error::{CloseReason, DataError, DecodeError, NamespaceState, UsageError, Violation};
pub use json::MAX_DEPTH;
pub use packet::{Content, Packet, PacketKind, is_reserved};
pub use placeholder::{Argument, Binary};
#[cfg(feature = "server")]
pub use server::adapter;
#[cfg(feature = "server")]
pub use server::{Ack, Io, Namespace, Socket};

/// The examples of the README, kept true.
#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../README.md")]
struct Readme;
