//! The `/sync` namespace: rooms, who sits in them, and what they watch.
//!
//! [`room`] is the core: a pure machine that turns commands into effects. [`event`] holds the shapes on the wire,
//! [`rows`] the shapes in the durable store, [`playback`] the arithmetic of media time and [`clock`] the one clock that
//! arithmetic runs on. [`state`](crate::state) is the shell around the core.

pub mod clock;
pub mod event;
pub mod playback;
pub mod room;
pub mod rows;
