//! Base64 of RFC 4648: written in the standard alphabet with padding, read in both alphabets with or without padding.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Clients write all of these variants, and some set bits after the last byte.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Appends the base64 text of these bytes.
pub fn write(out: &mut Vec<u8>, bytes: &[u8]) {
    let (from, digits) = (out.len(), bytes.len().div_ceil(3) * 4);
    out.resize(from + digits, 0);
    let written = ENGINE.encode_slice(bytes, out.get_mut(from..).unwrap_or_default());
    out.truncate(from + written.unwrap_or_default());
}

/// Returns the base64 text of these bytes.
pub fn text(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    write(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}

/// Decodes base64; `None` if the text is not base64.
pub fn read(text: &str) -> Option<Vec<u8>> {
    // Padding completes four digits; the engine accepts less.
    if text.ends_with('=') && !text.len().is_multiple_of(4) {
        return None;
    }
    if text.contains(['-', '_']) {
        return ENGINE.decode(text.replace('-', "+").replace('_', "/")).ok();
    }
    ENGINE.decode(text).ok()
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
