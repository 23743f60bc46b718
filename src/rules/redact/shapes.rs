//! Finds the places where numbers and addresses may be, 128 bytes at once.
//!
//! Most digits stand alone. What matches has a shape inside: digits beside separators, many digits in a row, colons near each other. In a
//! wire, digits of other texts may stand next to those of a text, so nothing is said about what surrounds a shape.

use memchr::memchr2_iter;

/// What every match of a pattern has inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An `@`.
    At,
    /// A digit and a dot before up to four digits and another dot; three digits before a separator and a digit; 13 digits; a `+`.
    Digits,
    /// Two capitals before two digits.
    Country,
    /// A colon before another, with up to four bytes between them.
    Colons,
}

impl Shape {
    /// Visits the places in a text where shapes start, in no order.
    pub(super) fn each(text: &[u8], has_numbers: bool, mut visit: impl FnMut(Self, usize)) {
        for at in memchr2_iter(b'@', b'+', text) {
            let is_plus = text.get(at) == Some(&b'+');
            visit(if is_plus { Self::Digits } else { Self::At }, at);
        }
        let mut last = [0; size_of::<Window>()];
        for begin in (0..text.len()).step_by(STEP).take_while(|_| has_numbers) {
            let rest = text.get(begin..).unwrap_or_default();
            let window = rest.first_chunk().unwrap_or_else(|| {
                last.fill(0);
                last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                &last
            });
            for (shape, mut bits) in in_window(window) {
                while bits != 0 {
                    let bit = bits.trailing_zeros();
                    bits &= bits - 1;
                    let (column, row) = ((bit / u8::BITS) as usize, (bit % u8::BITS) as usize);
                    visit(shape, begin + row * ROW_BYTES + column);
                }
            }
        }
    }
}

/// The bytes that are looked at together: eight rows, each as long as a vector. Their bits are in the order of columns, because vectors
/// yield them so.
type Window = [u8; u128::BITS as usize];
const ROW_BYTES: usize = 16;
/// Windows overlap by the longest shape, 13 digits.
const STEP: usize = size_of::<Window>() - 12;

/// Returns the bits of the bytes that are of a kind.
fn bits_of(window: &Window, is_of_kind: impl Fn(u8) -> bool) -> u128 {
    let (rows, _) = window.as_chunks::<ROW_BYTES>();
    let mut columns = [0; ROW_BYTES];
    for (place, column) in columns.iter_mut().enumerate() {
        let bit = |row: &[u8; ROW_BYTES]| row.get(place).is_some_and(|byte| is_of_kind(*byte));
        *column = rows.iter().rev().fold(0, |bits, row| bits << 1 | u8::from(bit(row)));
    }
    u128::from_le_bytes(columns)
}

/// Returns for each byte the bit of the one that is `count` bytes later.
#[expect(clippy::cast_possible_truncation, reason = "it takes the halves apart")]
#[inline]
fn later(bits: u128, count: u32) -> u128 {
    // Processors shift two halves together more slowly than they rotate each.
    let rotated = |half: u128| (half as u64).rotate_right(count * u8::BITS);
    let (low, high) = (rotated(bits), rotated(bits >> u64::BITS));
    // The first columns of the next row follow the last ones.
    let last = u64::MAX << (u64::BITS - count * u8::BITS);
    let next_row = (low & last & u64::from_ne_bytes([!1; 8])) >> 1;
    u128::from(high & !last | next_row) << u64::BITS | u128::from(low & !last | high & last)
}

/// Returns the bytes with a bit two to five bytes later.
fn near(bits: u128) -> u128 {
    let two = later(bits, 2);
    let three = two | later(two, 1);
    three | later(three, 2)
}

/// Returns where the shapes of numbers start in a window.
fn in_window(window: &Window) -> [(Shape, u128); 3] {
    let [mut numbers, mut country, mut addresses] = [0; 3];
    let digits = bits_of(window, |byte| byte.is_ascii_digit());
    if digits != 0 {
        let next = later(digits, 1);
        let points = next & bits_of(window, |byte| byte == b'.');
        if points != 0 {
            let decimals = digits & later(points, 1);
            numbers = decimals & near(decimals);
        }
        let pairs = digits & next;
        if pairs != 0 {
            // Or one of the five characters behind `Z`, or an `@`: that is quicker to tell.
            let capitals = bits_of(window, |byte| byte & 0xe0 == 0x40);
            country = capitals & later(capitals, 1) & later(pairs, 2);
        }
        let threes = pairs & later(next, 1);
        if threes != 0 {
            let spaces = bits_of(window, |byte| byte == b' ');
            let hyphens = bits_of(window, |byte| byte == b'-');
            let separators = points | next & (spaces | hyphens);
            let fours = pairs & later(pairs, 2);
            let eights = fours & later(fours, 4);
            numbers |= threes & later(separators, 3) | eights & later(eights, 5);
        }
        // An address has a digit near two of its colons.
        let colons = bits_of(window, |byte| byte == b':');
        if colons & colons.wrapping_sub(1) != 0 {
            addresses = colons & (later(colons, 1) | near(colons));
        }
    }
    [(Shape::Digits, numbers), (Shape::Country, country), (Shape::Colons, addresses)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a byte's bit.
    fn bit(bits: u128, at: usize) -> bool {
        bits >> (at % ROW_BYTES * 8 + at / ROW_BYTES) & 1 == 1
    }

    proptest! {
        #[test]
        fn each_byte_has_a_bit_and_later_ones_are_those_of_the_bytes_behind_it(bytes in proptest::collection::vec(b'0'..=b'?', 128), count in 1..8_u32) {
            let window = bytes.first_chunk().unwrap();
            let digits = bits_of(window, |byte| byte.is_ascii_digit());
            let behind = later(digits, count);
            for (at, byte) in bytes.iter().enumerate() {
                prop_assert_eq!(bit(digits, at), byte.is_ascii_digit());
                let wanted = bytes.get(at + count as usize).is_some_and(u8::is_ascii_digit);
                prop_assert_eq!(bit(behind, at), wanted, "{} behind {}", count, at);
            }
        }
    }
}
