//! The two forms of a time that the SDKs write, read by hand; any other RFC 3339 by the library.

/// Nanoseconds since 1970 of an RFC 3339 time; `None` for what is none, lies before 1970 or after 2554.
pub(super) fn nanos(text: &str) -> Option<u64> {
    usual(text.as_bytes()).or_else(|| {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_nanosecond()).ok()
    })
}

/// `2026-11-21T05:13:36.209873+00:00`, with or without the fraction (Python), and `2026-11-21T05:22:48.930Z` (JavaScript).
fn usual(text: &[u8]) -> Option<u64> {
    let (time, rest) = text.split_first_chunk::<19>()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| time.get(*at) != Some(mark)) {
        return None;
    }
    let part = |range| time.get(range).and_then(number);
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    let (fraction, zone) = match rest {
        [b'.', rest @ ..] => {
            rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
        }
        rest => (&[][..], rest),
    };
    let is_usual = (1970..=2200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && fraction.len() <= 9
        && matches!(zone, b"Z" | b"+00:00");
    if !is_usual {
        return None;
    }
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let missing = u32::try_from(9 - fraction.len()).ok()?;
    Some(seconds * 1_000_000_000 + number(fraction)? * 10_u64.pow(missing))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar, by Howard Hinnant's `days_from_civil`, for years from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_and_odd_ones_are_read() {
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2026-11-21T05:13:36.209873+00:00"), Some(1_795_238_016_209_873_000));
        assert_eq!(nanos("2026-11-21T05:13:36+00:00"), Some(1_795_238_016_000_000_000));
        assert_eq!(nanos("2026-11-21T05:22:48.930Z"), Some(1_795_238_568_930_000_000));
        assert_eq!(nanos("2026-11-21T06:13:36+01:00"), nanos("2026-11-21T05:13:36Z"));
        assert_eq!(nanos("2026-11-21 05:13:36z"), nanos("2026-11-21T05:13:36Z"));
        for text in
            ["", "yesterday", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "2026-11-21T05:13:36"]
        {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_way_agrees_with_the_library(second in 0_i64..7_258_118_400, nano in 0_i32..1_000_000_000) {
            let time = jiff::Timestamp::new(second, nano).unwrap();
            let text = time.to_string();
            prop_assert_eq!(usual(text.as_bytes()).map(i128::from), Some(time.as_nanosecond()));
        }
    }
}
