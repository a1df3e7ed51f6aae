//! Small traces for tests, made by seed; the shape is that of real ones.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Writes a trace of so many messages of 40 users in 6 channels, with quotes and long bodies.
pub fn write(path: &Path, messages: u64, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = String::new();
    for n in 0..messages {
        let channel = random.random_range(0..6u8);
        let user = random.random_range(0..40u8);
        let len = if n % 97 == 0 {
            random.random_range(4_000..20_000)
        } else {
            random.random_range(1..400)
        };
        write!(
            text,
            "{{\"n\":{n},\"t\":{},\"ch\":\"channel-{channel}\",\"topic\":0,\"u\":\"u{user:05}\",\"len\":{len}",
            1_700_000_000 + n
        )?;
        if n > 10 && n % 9 == 0 {
            write!(text, ",\"q\":{}", random.random_range(0..n))?;
        }
        text.push_str("}\n");
    }
    std::fs::write(path, text).context("writing the trace")
}
