//! Points in time as operators write them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::clock::nanos;
use super::duration::Duration;

/// A text that is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time; write 2026-11-21T15:00:00Z, 2026-11-21 (UTC), or 2h for two hours ago"
)]
pub struct NotATime(String);

/// Reads an RFC 3339 time, a time or a date without a zone (UTC; a date means its first moment), or a length of time before `now_ns`.
/// Returns nanoseconds since 1970.
pub fn read(text: &str, now_ns: u64) -> Result<u64, NotATime> {
    let read = match text.parse().ok().or_else(|| without_zone(text)) {
        Some(time) => u64::try_from(time.as_nanosecond()).ok(),
        None => text.parse().ok().map(|Duration(ago)| now_ns.saturating_sub(nanos(ago))),
    };
    read.ok_or_else(|| NotATime(text.to_owned()))
}

fn without_zone(text: &str) -> Option<Timestamp> {
    // The parser would ignore a zone's name.
    let time: DateTime = text.parse().ok().filter(|_| !text.contains('['))?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::rfc3339::NS_PER_SECOND;

    #[test]
    fn times_dates_and_lengths_of_time_are_understood() {
        let now_ns = 1_795_273_200 * NS_PER_SECOND;
        for (text, seconds) in [
            ("2026-11-21T15:00:00Z", 1_795_273_200),
            ("2026-11-21T16:00:00+01:00", 1_795_273_200),
            ("2026-11-21T15:00:00", 1_795_273_200),
            ("2026-11-21 15:00", 1_795_273_200),
            ("2026-11-21", 1_795_219_200),
            ("2h", 1_795_266_000),
            ("1h30m", 1_795_267_800),
            ("100000d", 0),
        ] {
            assert_eq!(read(text, now_ns), Ok(seconds * NS_PER_SECOND), "{text}");
        }
        let named = "2026-11-21T15:00:00[Europe/Paris]";
        let before_1970 = "1970-01-01T00:30:00+01:00";
        for text in ["", "yesterday", "2026-13-01", "2", "1969-12-31", "-2h", before_1970, named] {
            assert!(read(text, now_ns).is_err(), "{text}");
        }
    }
}
