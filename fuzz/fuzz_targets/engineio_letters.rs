//! See `syncwatch_fuzz::engineio_letters`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncwatch_fuzz::engineio_letters(data));
