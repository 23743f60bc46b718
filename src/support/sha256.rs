//! SHA-256 digests, also as text.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// A digest.
pub type Hash = [u8; 32];

/// Digits of a fingerprint: enough to tell all keys of a fleet apart, too few to reveal one.
const FINGERPRINT_DIGITS: usize = 16;

/// Returns the digest of these bytes.
pub fn of(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// Returns the digest of these bytes as 64 hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    digits(of(bytes))
}

/// Returns the first digits of a digest.
pub fn fingerprint(hash: Hash) -> String {
    let mut text = digits(hash);
    text.truncate(FINGERPRINT_DIGITS);
    text
}

fn digits(hash: Hash) -> String {
    let mut text = String::with_capacity(2 * hash.len());
    for byte in hash {
        // Writing to memory cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}
