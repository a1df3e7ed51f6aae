//! Randomness of the whole process, as a function of the seed.
//!
//! Hash maps, tokio's `select!`, thread-local generators and key material all begin with
//! `getrandom` of the C library. This file puts a function of that name in its place, which the
//! linker prefers and which crates that look it up while they run find (`build.rs`). Until
//! [`seed`] is called it is the stream of seed 0: the programs of this package hold no secrets.
//!
//! ring asks the kernel itself and is not reached. Nothing on a simulated host draws from it: there is
//! no TLS, and grants and tokens are sealed without nonces.

#![expect(
    unsafe_code,
    reason = "replacing a function of the C library means defining one by its name and its pointers"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::RngCore;
use rand::rngs::StdRng;

use crate::rng;

static STREAM: Mutex<Option<StdRng>> = Mutex::new(None);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Begins the process's randomness anew. Threads that have hash maps or generators keep theirs: run
/// a seed on a thread of its own.
pub fn seed(seed: u64) {
    *STREAM.lock() = Some(rng::stream(seed, "entropy"));
    // Named, so that the linker cannot leave the replacement out.
    std::hint::black_box(getrandom as unsafe extern "C" fn(*mut u8, usize, u32) -> isize);
}

/// Bytes that were drawn so far.
pub fn drawn() -> u64 {
    BYTES.load(Ordering::Relaxed)
}

fn fill(bytes: &mut [u8]) {
    BYTES.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    STREAM
        .lock()
        .get_or_insert_with(|| rng::stream(0, "entropy"))
        .fill_bytes(bytes);
}

/// Stands for the function of the C library.
///
/// # Safety
/// `buf` points to `len` bytes that may be written, as for the function it replaces.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut u8, len: usize, _flags: u32) -> isize {
    if len > 0 {
        // SAFETY: the caller promises that `buf` points to `len` writable bytes, and `len` is not 0.
        // They may be uninitialised, so they are written before a slice of them exists.
        let bytes = unsafe {
            buf.write_bytes(0, len);
            std::slice::from_raw_parts_mut(buf, len)
        };
        fill(bytes);
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use rand::TryRngCore;
    use rand::rngs::OsRng;

    use super::*;

    #[test]
    fn everything_that_is_random_draws_from_the_stream() {
        seed(1);
        let before = drawn();
        OsRng.try_next_u64().unwrap();
        assert_eq!(drawn(), before + 8, "the generator of the system");
        let before = drawn();
        std::thread::spawn(|| RandomState::new().hash_one(1))
            .join()
            .unwrap();
        assert!(drawn() > before, "the keys of hash maps");
        let before = drawn();
        std::thread::spawn(rand::random::<u64>).join().unwrap();
        assert!(drawn() > before, "the generator of a thread");
    }
}
