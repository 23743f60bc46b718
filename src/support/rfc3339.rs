//! Points in time as text: RFC 3339 in UTC, always with nine decimals, so that the text sorts by time.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::tz::TimeZone;

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

/// Seconds per UTC day; Unix time has no leap seconds.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// Nanoseconds per second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// Appends `2026-11-21T05:15:09.529503000Z`, without quotes. The year of every `u64` of nanoseconds since 1970 has four digits.
pub fn write(out: &mut Vec<u8>, unix_ns: u64) {
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
    // Writing to memory cannot fail.
    PRINTER.print_timestamp(&time, out).ok();
}

/// Returns the same text as a string.
pub fn text(unix_ns: u64) -> String {
    let mut out = Vec::new();
    write(&mut out, unix_ns);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the date of a day counted from 1970-01-01, up to the year 9999: `2026-11-21`.
pub fn write_date(out: &mut Vec<u8>, unix_day: u64) {
    let second = i64::try_from(unix_day * SECONDS_PER_DAY).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(second).unwrap_or_default();
    PRINTER.print_date(&TimeZone::UTC.to_datetime(time).date(), out).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_and_leap_days_are_right() {
        for (unix_ns, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_795_238_109_529_503_000, "2026-11-21T05:15:09.529503000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000000Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(text(unix_ns), expected);
        }
    }
}
