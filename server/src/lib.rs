//! syncwatch

pub mod sync;
