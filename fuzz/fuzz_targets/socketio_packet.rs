//! See `syncwatch_fuzz::socketio_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncwatch_fuzz::socketio_packet(data));
