//! The syncwatch binary.
fn main() {}
