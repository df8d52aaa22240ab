//! The server over real TCP, with clients that speak the protocol by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod acks;
mod binary;
mod bulk;
mod cluster;
mod connect;
mod events;
mod leaving;
mod middleware;
mod pressure;
mod recovery;
mod returning;
mod rooms;
mod support;
