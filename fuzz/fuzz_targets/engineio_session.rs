//! See `syncwatch_fuzz::engineio_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncwatch_fuzz::engineio_session(data));
