//! See `throng_fuzz::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| throng_fuzz::frame::run(data));
