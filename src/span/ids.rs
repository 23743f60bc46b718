//! Trace and span ids as OpenTelemetry defines them: 16 and 8 bytes, never all zero.

use std::fmt;

/// The 16 bytes that identify a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// The 8 bytes that identify a span within its trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

macro_rules! id {
    ($name:ident, $size:literal) => {
        impl $name {
            /// Creates an id from bytes; `None` if all are zero, which OpenTelemetry defines as invalid.
            pub fn new(bytes: [u8; $size]) -> Option<Self> {
                (bytes != [0; $size]).then_some(Self(bytes))
            }

            /// Creates an id from a slice of exactly the right length; `None` for any other length and for all zeros.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().and_then(Self::new)
            }

            /// Parses hexadecimal digits of either case, without prefix.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $size];
                let digits = text.as_bytes();
                if digits.len() != 2 * $size {
                    return None;
                }
                let mut seen = 0;
                for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
                    let (high, low) = (hex_value(*high), hex_value(*low));
                    seen |= high | low;
                    *byte = (high << 4) | low;
                }
                if seen < NO_DIGIT { Self::new(bytes) } else { None }
            }

            /// Returns the id's bytes.
            pub fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }

            /// Returns the id as lowercase hexadecimal digits in ASCII.
            pub fn to_hex(self) -> [u8; 2 * $size] {
                let mut text = [0; 2 * $size];
                for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
                    *pair = hex_pair(byte);
                }
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.to_hex()
                    .iter()
                    .try_for_each(|&digit| fmt::Write::write_char(out, char::from(digit)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

/// Appends bytes as lowercase hexadecimal digits.
pub(super) fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes.iter().flat_map(|byte| hex_pair(*byte)));
}

const fn hex_pair(byte: u8) -> [u8; 2] {
    [hex_of(byte >> 4), hex_of(byte & 15)]
}

const fn hex_of(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// The value of each hexadecimal digit; [`NO_DIGIT`] for every other byte.
#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
const HEX_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0_u8;
    while value < 16 {
        values[hex_of(value) as usize] = value;
        values[hex_of(value).to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    values
};

/// A value with bits that no digit has.
const NO_DIGIT: u8 = 0xf0;

#[inline]
fn hex_value(digit: u8) -> u8 {
    HEX_VALUES.get(usize::from(digit)).copied().unwrap_or(NO_DIGIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_own_hex_and_from_uppercase() {
        let id = TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap();
        assert_eq!(id.to_string(), "5b8efff798038103d269b633813fc60c");
        assert_eq!(TraceId::from_hex("5B8EFFF798038103D269B633813FC60C"), Some(id));
    }

    #[test]
    fn zero_prefix_and_wrong_length_are_no_ids() {
        for text in
            ["0000000000000000", "0xe19b7ec3c1b174", "eee19b7ec3c1b1", "eee19b7ec3c1b17g", ""]
        {
            assert_eq!(SpanId::from_hex(text), None, "{text}");
        }
        assert_eq!(SpanId::from_slice(&[1; 7]), None);
    }
}
