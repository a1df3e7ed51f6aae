//! Randomness of a run: every part draws from a stream of its own, so that a part that draws once
//! more does not change what the others draw.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// The stream of one part of a run, named so that two parts never share one.
pub fn stream(seed: u64, part: &str) -> StdRng {
    // FNV-1a: the names are ours and few, so that a simple hash tells them apart.
    let named = part.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&named.to_le_bytes());
    StdRng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn a_part_draws_the_same_from_the_same_seed_and_nothing_alike_from_another() {
        let draw = |seed, part| stream(seed, part).random::<u64>();
        assert_eq!(draw(7, "net"), draw(7, "net"));
        assert_ne!(draw(7, "net"), draw(8, "net"));
        assert_ne!(draw(7, "net"), draw(7, "disk"));
    }
}
