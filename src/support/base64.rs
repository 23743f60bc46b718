//! Base64 of RFC 4648: written in the standard alphabet with padding, read in both alphabets with or without.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the text of these bytes.
pub fn write(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = 0;
        for (byte, shift) in group.iter().zip([16, 8, 0]) {
            bits |= u32::from(*byte) << shift;
        }
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            out.push(if place <= group.len() { digit(bits >> shift) } else { b'=' });
        }
    }
}

/// The bytes of this text; `None` where it is not base64.
pub fn read(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    // One digit holds less than a byte, and padding fills four digits.
    let padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || 2 < padding || (0 < padding && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut width) = (0_u32, 0);
    for digit in digits.bytes() {
        bits = (bits << 6) | sextet(digit)?;
        width += 6;
        if 8 <= width {
            width -= 8;
            bytes.push(((bits >> width) & 0xff) as u8);
            bits &= (1 << width) - 1;
        }
    }
    Some(bytes)
}

#[expect(clippy::indexing_slicing, reason = "the index is six bits and the table has 64 entries")]
fn digit(bits: u32) -> u8 {
    ALPHABET[(bits & 63) as usize]
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(written(plain.as_bytes()), text);
            assert_eq!(read(text).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn both_alphabets_are_read_with_and_without_padding() {
        for text in ["/+8=", "_-8=", "/+8", "_-8"] {
            assert_eq!(read(text).as_deref(), Some(&[0xff, 0xef][..]), "{text}");
        }
    }

    #[test]
    fn what_is_not_base64_is_none() {
        for text in ["A", "AAAAA", "A===", "AA=", "AA?=", "=", "====", "AA==AA==", "\u{e9}\u{e9}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(read(&written(&bytes)), Some(bytes));
        }
    }
}
