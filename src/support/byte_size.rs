//! A number of bytes, written as people write it: `"8MiB"`, `"500MB"`, or a plain number.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::written::{Written, written_as};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct ByteSize(pub u64);

/// Why a text is no size. It does not quote the text, which may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    /// It is not a whole number with a unit.
    #[error("not a size; write for example \"8MiB\", \"500MB\" or 4096")]
    Form,
    /// It has a unit that is none.
    #[error("not a unit of size; the units are B, KiB, MiB, GiB, TiB, KB, MB, GB and TB")]
    Unit,
    /// It is a negative number.
    #[error("a size cannot be less than nothing; write for example \"8MiB\"")]
    Negative,
    /// It does not fit 64 bits.
    #[error("larger than any disk")]
    TooLarge,
}

/// Larger units first, and powers of two before powers of ten, so that the first that divides a size is how it is printed.
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
    /// What the schema calls it.
    pub(super) const FORMAT: &str = "byte-size";

    /// As an index or a length in memory; as much as there can be where that is less.
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
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let text = text.trim();
        let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        if digits.is_empty() {
            return Err(ByteSizeError::Form);
        }
        let count: u64 = digits.parse().map_err(|_| ByteSizeError::TooLarge)?;
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Ok(Self(count));
        }
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or(ByteSizeError::Unit)?;
        count.checked_mul(*factor).map(Self).ok_or(ByteSizeError::TooLarge)
    }
}

impl TryFrom<Written> for ByteSize {
    type Error = ByteSizeError;

    fn try_from(written: Written) -> Result<Self, ByteSizeError> {
        match written {
            Written::Number(bytes) => {
                u64::try_from(bytes).map(Self).map_err(|_| ByteSizeError::Negative)
            }
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
            ("", ByteSizeError::Form),
            ("big", ByteSizeError::Form),
            ("-1", ByteSizeError::Form),
            ("1.5GiB", ByteSizeError::Unit),
            ("8Mi", ByteSizeError::Unit),
            ("8 apples", ByteSizeError::Unit),
            ("99999999999999999999", ByteSizeError::TooLarge),
            ("99999999TiB", ByteSizeError::TooLarge),
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
