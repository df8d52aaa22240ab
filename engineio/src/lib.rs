#![cfg_attr(feature = "server", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "server"), doc = "The core of an Engine.IO 4 server, without I/O.")]
//!
//! # The model
//!
//! A client talks to the server in a *session*, over HTTP long-polling or a WebSocket, and may change from the first
//! to the second on the way. The [`Session`] is a machine without sockets, clock or tasks: it takes facts
//! ([`Input`]) and gives orders ([`Action`]). Whoever drives it carries out the orders, then sleeps until the next
//! fact or [`Session::poll_timeout`]:
//!
//! ```
//! use std::{sync::Arc, time::{Duration, Instant}};
//! use engineio::{Action, Config, Input, Message, Session, Sid, Transport, WsFrame};
//!
//! let start = Instant::now();
//! let sid = Sid::from_random([7; 15]);
//! let mut session = Session::open(&sid, Transport::WebSocket, Arc::new(Config::default()), start);
//!
//! // A shell writes what waits, in as few writes as it likes.
//! assert!(session.outbox().is_some_and(|outbox| outbox.bytes() > 0));
//!
//! // It hands in what it reads, and carries out what it is told.
//! session.handle(Input::Frame(WsFrame::Text("4hello".into())), start);
//! assert_eq!(session.poll_action(), Some(Action::Deliver(Message::Text("hello".into()))));
//! assert_eq!(session.poll_action(), None);
//!
//! // And it wakes the session in time.
//! assert_eq!(session.poll_timeout(), Some(start + Duration::from_secs(25)));
//! ```
//!
//! The feature `server`, on by default, has a complete server on hyper and tokio: `Server`. Each session is one task,
//! which alone owns its `Session` and its sockets; requests reach it as mail.
//!
//! # Left out
//!
//! Engine.IO 3, JSONP, WebTransport, `permessage-deflate`, compressed polling answers, the session cookie and the
//! `b64` query parameter.

mod config;
mod error;
mod frame;
pub mod handshake;
mod origin;
mod packet;
pub mod payload;
mod session;

#[cfg(feature = "server")]
pub mod server;

pub use bytestring::ByteString;

pub use self::config::{Config, RelayConfig, Transports};
pub use self::error::{CloseReason, ConfigError, DecodeError, RequestError, Violation};
pub use self::frame::{Frame, FrameKind};
pub use self::handshake::{Instance, Sid, Transport};
pub use self::origin::{Origin, Origins};
pub use self::packet::{Message, Packet};
pub use self::session::{Action, FRAME_OVERHEAD_BYTES, Input, Outbox, PostDrop, Refusal, Session, WsFrame};

#[cfg(feature = "server")]
pub use self::server::Server;
