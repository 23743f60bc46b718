//! A number of bytes in the usual notation: `"8MiB"`, `"500MB"`, or a plain number.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::written::{Written, written_as};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct ByteSize(pub u64);

/// Returns a number of bytes, as the default of an option.
pub fn bytes<const BYTES: u64>() -> ByteSize {
    ByteSize(BYTES)
}

// Messages for a text that is not a size. None of them quotes the text, which may be a misplaced secret.
const FORM: &str = "not a size; write for example \"8MiB\", \"500MB\" or 4096";
const UNIT: &str = "not a unit of size; the units are B, KiB, MiB, GiB, TiB, KB, MB, GB and TB";
const NEGATIVE: &str = "a size cannot be negative; write for example \"8MiB\"";
const TOO_LARGE: &str = "larger than any disk";

/// Larger units first, and powers of two before powers of ten: a size is printed with the first unit that divides it.
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// The name of this format in schemas.
    pub(super) const FORMAT: &str = "byte-size";

    /// Converts it to an index or a length in memory; too large a size becomes the maximum.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<usize> for ByteSize {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl From<ByteSize> for usize {
    fn from(size: ByteSize) -> Self {
        size.as_usize()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting =
            UNITS.iter().find(|(_, unit)| *unit <= self.0 && self.0.is_multiple_of(*unit));
        match fitting {
            Some((name, unit)) => write!(formatter, "{}{name}", self.0 / unit),
            None => formatter.write_str("0B"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        if digits.is_empty() {
            return Err(FORM);
        }
        let count: u64 = digits.parse().map_err(|_| TOO_LARGE)?;
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Ok(Self(count));
        }
        let (_, factor) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(UNIT)?;
        count.checked_mul(*factor).map(Self).ok_or(TOO_LARGE)
    }
}

impl TryFrom<Written> for ByteSize {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        match written {
            Written::Number(bytes) => u64::try_from(bytes).map(Self).map_err(|_| NEGATIVE),
            Written::Text(text) => text.parse(),
        }
    }
}

written_as!(ByteSize, {
    "type": ["string", "integer"],
    "format": (ByteSize::FORMAT),
    "minimum": 0,
    "pattern": r"^[0-9]+ *([KMGTkmgt]?[iI]?[bB])?$",
    "examples": ["8MiB"],
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("64KiB", 64 << 10),
            ("8MiB", 8 << 20),
            ("8 mib", 8 << 20),
            ("2GiB", 2 << 30),
            ("1TiB", 1 << 40),
            ("500MB", 500_000_000),
            ("3GB", 3_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        for (text, error) in [
            ("", FORM),
            ("big", FORM),
            ("-1", FORM),
            ("1.5GiB", UNIT),
            ("8Mi", UNIT),
            ("8 apples", UNIT),
            ("99999999999999999999", TOO_LARGE),
            ("99999999TiB", TOO_LARGE),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_printed_size_reads_back_as_itself() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (8 << 20, "8MiB"),
            (500_000_000, "500MB"),
            (2 << 30, "2GiB"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        }
    }
}
