//! Dialogues with [`socketio::Connection`]: no transport, no runtime, invented time. Every test asserts the full list
//! of actions an input leads to.

mod acks;
mod binary;
mod closing;
mod connect;
mod events;
mod hostile;
mod limits;
mod malformed;
mod races;
mod support;
mod timeouts;
