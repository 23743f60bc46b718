//! Finds the text in a JSON string that needs an escape. It tests many bytes together, because most need none.

/// Bytes tested together: two vectors of the smallest x86-64.
const CHUNK: usize = 32;
/// Bytes per word.
const WORD: usize = 8;

/// Returns the number of bytes before the next quote, backslash or control character.
#[inline]
pub(super) fn length(text: &[u8]) -> usize {
    // Most strings in JSON are short: names end in the first word or two.
    let Some(word) = text.first_chunk() else {
        return text.iter().take_while(|&&byte| !is_special(byte)).count();
    };
    let plain = length_in_word(*word);
    if plain < WORD { plain } else { length_in_words(text) }
}

#[inline(never)]
fn length_in_words(text: &[u8]) -> usize {
    let (chunks, _) = text.as_chunks();
    let mut length = CHUNK * chunks.iter().take_while(|chunk| is_plain(chunk)).count();
    let (words, _) = text.get(length..).unwrap_or_default().as_chunks();
    for word in words {
        let plain = length_in_word(*word);
        length += plain;
        if plain < WORD {
            return length;
        }
    }
    // Bytes that fill no word are tested together with plain ones before them.
    text.last_chunk().map_or(length, |word| text.len() - WORD + length_in_word(*word))
}

/// Has no early exit, so that the compiler vectorizes it.
#[inline]
fn is_plain(chunk: &[u8; CHUNK]) -> bool {
    !chunk.iter().fold(false, |any, &byte| any | is_special(byte))
}

/// Returns the number of bytes at the beginning of a word that need no escape. All eight are tested together.
#[inline]
fn length_in_word(word: [u8; WORD]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; WORD]);
    const HIGH_BITS: u64 = u64::from_le_bytes([0x80; WORD]);
    // A subtraction carries into the high bit of each byte that is less than the bound, unless that bit was already set. A borrow from the
    // next byte may mark a byte wrongly, but only after one that is marked rightly, and only the first one counts.
    let less_than = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let word = u64::from_le_bytes(word);
    let quote = less_than(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = less_than(word ^ (ONES * u64::from(b'\\')), 1);
    let control = less_than(word, b' ');
    let marks = (quote | backslash | control) & HIGH_BITS;
    (marks.trailing_zeros() / u8::BITS) as usize
}

#[inline]
#[expect(
    clippy::needless_bitwise_bool,
    reason = "lazy operators would stand in the way of vectors"
)]
fn is_special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_length_is_that_of_a_byte_by_byte_search(
            plain in "[ -~\u{7f}-\u{2030}]{0,90}",
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes: Vec<u8> = plain.bytes().filter(|&byte| !is_special(byte)).collect();
            bytes.extend(rest);
            let slow = bytes.iter().take_while(|&&byte| 0x20 <= byte && byte != b'"' && byte != b'\\').count();
            prop_assert_eq!(length(&bytes), slow);
        }
    }
}
