//! What the black-box suites share: a private server, clients that are good, and one that is not.
//!
//! Nothing here knows the inside of the server; it is the binary, its settings, its ports and its log. Whatever goes wrong
//! in here is the end of the test that asked for it, so these functions panic with a sentence instead of returning errors.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod client;
mod raw;
mod rest;
mod server;
mod token;

pub use client::Client;
pub use raw::{Frame, Opcode, Raw, Response, encode};
pub use rest::{create_room, delete_room, rest};
pub use server::{Server, binary, run};
pub use token::{SECRET, mint, user_token};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a thing that should happen at once may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Awaits `work`, at most for `limit`.
///
/// # Panics
/// When the limit is over, with `what` in the message.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(value) => value,
        Err(_) => panic!("nothing within {limit:?}: {what}"),
    }
}

/// Repeats `probe` until it is true.
///
/// # Panics
/// When it never is within `limit`, with `what` in the message.
pub async fn until<F: Future<Output = bool>>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) {
    let end = Instant::now() + limit;
    while !probe().await {
        assert!(Instant::now() < end, "never came true within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
