//! Byte search: eight bytes at a time for near matches, vectors for far ones. Also finds the range of a subslice.
//!
//! JSON is mostly short strings, and setting up a vector search costs more than looking at one or two words.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// Returns the index of the first of these two bytes.
#[inline]
pub fn either(bytes: &[u8], one: u8, other: u8) -> Option<usize> {
    near(bytes, |word| zeros(word ^ splat(one)) | zeros(word ^ splat(other)))
        .unwrap_or_else(|start| memchr2(one, other, bytes.get(start..)?).map(|at| start + at))
}

/// Returns the index of the first such byte.
#[inline]
pub fn byte(bytes: &[u8], wanted: u8) -> Option<usize> {
    near(bytes, |word| zeros(word ^ splat(wanted)))
        .unwrap_or_else(|start| memchr(wanted, bytes.get(start..)?).map(|at| start + at))
}

/// Returns the range of a subslice in its parent; `None` if it is a slice of other memory, even with equal contents.
pub fn place_of(slice: &[u8], bytes: &[u8]) -> Option<Range<usize>> {
    let start = slice.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
    let place = start..start.checked_add(slice.len())?;
    (place.end <= bytes.len()).then_some(place)
}

/// Words to search before vectors take over.
const NEAR_WORDS: usize = 4;

/// Bytes per word.
const WORD: usize = 8;

/// Searches the first words. `hits` sets the high bit of each wanted byte; only its lowest set bit needs to be right. Without a match,
/// `Err` is the index from which to continue.
#[inline]
fn near(bytes: &[u8], hits: impl Fn(u64) -> u64) -> Result<Option<usize>, usize> {
    let (words, _) = bytes.as_chunks::<WORD>();
    let mut start = 0;
    for word in words.iter().take(NEAR_WORDS) {
        let hits = hits(u64::from_le_bytes(*word));
        if hits != 0 {
            return Ok(Some(start + hits.trailing_zeros() as usize / 8));
        }
        start += WORD;
    }
    Err(start)
}

const LOW_BITS: u64 = u64::from_ne_bytes([1; WORD]);

fn splat(byte: u8) -> u64 {
    u64::from(byte) * LOW_BITS
}

/// Sets the high bit of every zero byte; bits above the lowest set bit may be wrong.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOW_BITS) & !word & (LOW_BITS << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slice_has_a_place_only_in_what_it_was_taken_from() {
        let bytes = b"abcabc".to_vec();
        assert_eq!(place_of(&bytes[3..5], &bytes), Some(3..5));
        assert_eq!(place_of(&bytes, &bytes), Some(0..6));
        assert_eq!(place_of(&bytes[2..], &bytes[3..]), None);
        assert_eq!(place_of(&bytes[3..], &bytes[..5]), None);
        assert_eq!(place_of(&bytes.clone(), &bytes), None);
    }

    proptest! {
        #[test]
        fn the_first_place_is_found(bytes in proptest::collection::vec(0_u8..8, 0..80), one in 0_u8..8, other in 0_u8..8) {
            let expected = bytes.iter().position(|&byte| byte == one || byte == other);
            prop_assert_eq!(either(&bytes, one, other), expected);
            prop_assert_eq!(byte(&bytes, one), bytes.iter().position(|&byte| byte == one));
        }

        #[test]
        fn any_bytes_are_searched(bytes: Vec<u8>, one: u8, other: u8) {
            let expected = bytes.iter().position(|&byte| byte == one || byte == other);
            prop_assert_eq!(either(&bytes, one, other), expected);
        }
    }
}
