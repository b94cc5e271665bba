//! Random bits for ids, from the kernel.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// 128 random bits.
pub(crate) fn bits() -> u128 {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() {
        // Without /dev, the standard library's own seeds are random still.
        let half = || RandomState::new().hash_one(std::process::id());
        return u128::from(half()) << 64 | u128::from(half());
    }
    u128::from_le_bytes(bytes)
}
