//! See `throng_fuzz::cluster`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| throng_fuzz::cluster::run(data));
