//! Points in time as an operator writes them.

use super::duration::Duration;
use super::rfc3339::NS_PER_SECOND;

/// Why a text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a time; write 2026-11-21T15:00:00Z, 2026-11-21 (UTC), or 2h for two hours ago"
)]
pub struct NotATime(String);

/// Reads an RFC 3339 time, a date (its first moment in UTC) or a length of time before `now_ns`. Nanoseconds since 1970.
pub fn read(text: &str, now_ns: u64) -> Result<u64, NotATime> {
    timestamp(text)
        .or_else(|| date(text))
        .or_else(|| {
            let ago: Duration = text.parse().ok()?;
            Some(now_ns.saturating_sub(u64::try_from(ago.0.as_nanos()).ok()?))
        })
        .ok_or_else(|| NotATime(text.to_owned()))
}

fn timestamp(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

fn date(text: &str) -> Option<u64> {
    let date: jiff::civil::Date = text.parse().ok()?;
    let start = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    u64::try_from(start).ok()?.checked_mul(NS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_dates_and_lengths_of_time_are_understood() {
        let now_ns = 1_795_273_200 * NS_PER_SECOND;
        for (text, seconds) in [
            ("2026-11-21T15:00:00Z", 1_795_273_200),
            ("2026-11-21T16:00:00+01:00", 1_795_273_200),
            ("2026-11-21", 1_795_219_200),
            ("2h", 1_795_266_000),
            ("1h30m", 1_795_267_800),
            ("100000d", 0),
        ] {
            assert_eq!(read(text, now_ns), Ok(seconds * NS_PER_SECOND), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2", "1969-12-31", "-2h"] {
            assert!(read(text, now_ns).is_err(), "{text}");
        }
    }
}
