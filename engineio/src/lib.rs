//! engineio
