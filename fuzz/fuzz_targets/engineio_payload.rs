//! See `syncwatch_fuzz::engineio_payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncwatch_fuzz::engineio_payload(data));
