//! A length of time, written as people write it: `"250ms"`, `"5s"`, `"1h30m"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in options. It always has a unit, so that nobody has to guess whether 5 is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(pub time::Duration);

/// Why a text is no length of time. It does not quote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not numbers with units.
    #[error("not a length of time; write for example \"250ms\", \"5s\" or \"1h30m\"")]
    Form,
    /// It has a unit that is none.
    #[error("not a unit of time; the units are d, h, m, s, ms and us")]
    Unit,
    /// It is a number alone.
    #[error("a length of time needs a unit; write for example \"5s\"")]
    NoUnit,
    /// It is longer than can be counted.
    #[error("longer than can be waited for")]
    TooLong,
}

/// Microseconds of each unit, longest first.
const UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl From<time::Duration> for Duration {
    fn from(duration: time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if left == 0 {
            return formatter.write_str("0s");
        }
        // Days are read but not printed: "24h" is what people say.
        for (name, unit) in UNITS.iter().skip(1) {
            if left >= *unit {
                write!(formatter, "{}{name}", left / unit)?;
                left %= unit;
            }
        }
        Ok(())
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(DurationError::Form);
        }
        let mut micros = 0_u64;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(DurationError::Form);
            }
            let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
            let tail = tail.trim_start();
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let factor = match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None if unit.is_empty() && tail.is_empty() && number == 0 => 1,
                None if unit.is_empty() && tail.is_empty() => return Err(DurationError::NoUnit),
                None => return Err(DurationError::Unit),
            };
            micros = number
                .checked_mul(factor)
                .and_then(|part| micros.checked_add(part))
                .ok_or(DurationError::TooLong)?;
            rest = tail.trim_start();
        }
        Ok(Self(time::Duration::from_micros(micros)))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Duration;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a length of time such as \"5s\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
                if number == 0 {
                    return Ok(Duration::default());
                }
                Err(E::custom(DurationError::NoUnit))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(0|([0-9]+ *(d|h|m|s|ms|us) *)+)$",
            "examples": ["5s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(count: u64) -> Duration {
        Duration(time::Duration::from_micros(count))
    }

    #[test]
    fn lengths_of_time_are_read_as_people_write_them() {
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000),
            ("250ms", 250_000),
            ("40us", 40),
            ("24h", 86_400_000_000),
            ("1d", 86_400_000_000),
            ("1h30m", 5_400_000_000),
            ("1h 30m", 5_400_000_000),
            ("90 s", 90_000_000),
        ] {
            assert_eq!(text.parse(), Ok(micros(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_says_why() {
        for (text, error) in [
            ("", DurationError::Form),
            ("soon", DurationError::Form),
            ("-5s", DurationError::Form),
            ("5", DurationError::NoUnit),
            ("1h30", DurationError::NoUnit),
            ("5 sec", DurationError::Unit),
            ("1.5s", DurationError::Unit),
            ("99999999999999d", DurationError::TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_printed_length_of_time_reads_back_as_itself() {
        for (count, text) in [
            (0, "0s"),
            (250_000, "250ms"),
            (1_500_000, "1s500ms"),
            (5_400_000_000, "1h30m"),
            (86_400_000_000, "24h"),
            (1, "1us"),
        ] {
            assert_eq!(micros(count).to_string(), text);
            assert_eq!(text.parse(), Ok(micros(count)));
        }
    }
}
