//! Fuzz targets for the protocol cores. They are plain functions on stable Rust, so that `cargo test -p syncwatch-fuzz`
//! replays the corpora in every pull request; libFuzzer is a thin layer above them for the nights.
//!
//! A target named `x` has four parts, and the replay fails if one is missing:
//! - a function `x(data: &[u8])` here, which panics when an invariant is broken, and its line in [`TARGETS`];
//! - `corpus/x/`, at least one file, each made by hand around one idea and named after it;
//! - `fuzz_targets/x.rs`, which hands libFuzzer's bytes to the function;
//! - a `[[bin]]` for it in `libfuzzer/Cargo.toml`, a manifest outside of the workspace because it needs nightly.
//!
//! To explore: `cargo +nightly fuzz run --fuzz-dir fuzz/libfuzzer x fuzz/corpus/x`. An input that crashes becomes a
//! named test of the crate it crashed, with its bytes inline, not a file in the corpus.

mod engineio;
mod socketio;

pub use self::engineio::{engineio_letters, engineio_payload, engineio_session};
pub use self::socketio::{socketio_connection, socketio_packet};

/// A target: panics when an invariant is broken.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("engineio_letters", engineio_letters),
    ("engineio_payload", engineio_payload),
    ("engineio_session", engineio_session),
    ("socketio_connection", socketio_connection),
    ("socketio_packet", socketio_packet),
];
