//! Points in time as text: RFC 3339 in UTC, always with nine decimals, so that the text sorts by time.

use super::json::write_integer;

/// Seconds per UTC day; Unix time has no leap seconds.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// Nanoseconds per second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// Returns whether a time is outside 2000 to 2100, when no agent can have run, and which backends do not show. A single such time would
/// distort a whole trace and the average of all durations.
#[inline]
pub fn is_odd(unix_ns: u64) -> bool {
    // The first seconds of these years.
    !(946_684_800..4_102_444_800).contains(&(unix_ns / NS_PER_SECOND))
}

/// Appends `2026-11-21T05:15:09.529503000Z`, without quotes. The year of every `u64` of nanoseconds since 1970 has four digits.
pub fn write(out: &mut Vec<u8>, unix_ns: u64) {
    let (second, ns) = (unix_ns / NS_PER_SECOND, unix_ns % NS_PER_SECOND);
    write_date(out, second / SECONDS_PER_DAY);
    let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
    let time = ((100 + hour) * 1_000 + minute) * 1_000 + second % 60;
    let separators = [(0, b'T'), (3, b':'), (6, b':'), (9, b'.')];
    write_digits(out, time * 10 * NS_PER_SECOND + ns, &separators);
    out.push(b'Z');
}

/// Returns the same text as a string.
pub fn text(unix_ns: u64) -> String {
    let mut out = Vec::new();
    write(&mut out, unix_ns);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the date of a day counted from 1970-01-01, up to the year 9999: `2026-11-21`.
pub fn write_date(out: &mut Vec<u8>, unix_day: u64) {
    // In the Gregorian calendar, 400 years have 146,097 days. Years that begin in March end with their leap day.
    let since_march_0 = unix_day + 719_468;
    let (era, day) = (since_march_0 / 146_097, since_march_0 % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day + year / 100 - 365 * year - year / 4;
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (next, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    let date = ((400 * era + year + next) * 1_000 + month) * 1_000 + day;
    write_digits(out, date, &[(4, b'-'), (7, b'-')]);
}

/// Appends a number, with separators in the place of some of its digits.
fn write_digits(out: &mut Vec<u8>, number: u64, separators: &[(usize, u8)]) {
    let start = out.len();
    write_integer(out, number);
    for (place, separator) in separators {
        if let Some(digit) = out.get_mut(start + place) {
            *digit = *separator;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn every_time_is_that_of_a_calendar(unix_ns: u64) {
            let expected = Timestamp::from_nanosecond(unix_ns.into()).unwrap();
            prop_assert_eq!(text(unix_ns), format!("{expected:.9}"));
        }
    }
}
