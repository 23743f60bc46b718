//! A length of time in the usual notation: `"5s"`, `"250ms"`, `"1h30m"`.

use std::fmt;
use std::str::FromStr;
use std::time;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::{Spacing, SpanParser, SpanPrinter};
use serde::Deserialize;

use super::written::{Written, written_as};

/// A length of time in options. The unit is mandatory, so that a plain 5 is not ambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct Duration(pub time::Duration);

// Messages for a text that is not a length of time. None of them quotes the text, which may be a misplaced secret.
const FORM: &str = "not a duration; write for example \"250ms\", \"5s\" or \"1h30m\"";
const NO_UNIT: &str = "a duration needs a unit; write for example \"5s\"";

impl Duration {
    /// The name of this format in schemas.
    pub(crate) const FORMAT: &str = "time-span";
}

/// So many seconds, as the default of an option.
pub fn seconds<const SECONDS: u64>() -> Duration {
    Duration(time::Duration::from_secs(SECONDS))
}

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
        const PRINTER: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
        let text = PRINTER.unsigned_duration_to_string(&self.0);
        formatter.write_str(&text.replace('\u{b5}', "u"))
    }
}

impl FromStr for Duration {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text == "0" {
            return Ok(Self::default());
        }
        if text.ends_with(|letter: char| letter.is_ascii_digit()) {
            return Err(NO_UNIT);
        }
        let span = SpanParser::new().parse_span(text).map_err(|_| FORM)?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours());
        let length = length.map_err(|_| FORM)?;
        length.try_into().map(Self).map_err(|_| FORM)
    }
}

impl TryFrom<Written> for Duration {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        match written {
            Written::Number(0) => Ok(Self::default()),
            Written::Number(_) => Err(NO_UNIT),
            Written::Text(text) => text.parse(),
        }
    }
}

written_as!(Duration, {
    "type": ["string", "integer"],
    "format": (Duration::FORMAT),
    "minimum": 0,
    "maximum": 0,
    "pattern": r"^(0|([0-9]+ *(d|h|m|s|ms|us) *)+)$",
    "examples": ["5s"],
});

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
            ("1.5h", 5_400_000_000),
            ("2 hours", 7_200_000_000),
            ("40\u{b5}s", 40),
        ] {
            assert_eq!(text.parse(), Ok(micros(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_says_why() {
        for (text, error) in [
            ("", FORM),
            ("soon", FORM),
            ("-5s", FORM),
            ("5", NO_UNIT),
            ("1h30", NO_UNIT),
            ("5 apples", FORM),
            ("30m 1h", FORM),
            ("1 month", FORM),
            ("99999999999999d", FORM),
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
