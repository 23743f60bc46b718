//! Parses times. The two forms that the SDKs write have a fast path, and a library parses any other RFC 3339 time.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// Returns an RFC 3339 time in nanoseconds since 1970; `None` if it is invalid, before 1970 or after 2554. A time without an offset is in
/// UTC: so does Python's `utcnow().isoformat()` write it.
pub(super) fn nanos(text: &str) -> Option<u64> {
    let in_utc = || Offset::UTC.to_timestamp(text.parse().ok()?).ok();
    let time = usual(text.as_bytes()).or_else(|| text.parse().ok()).or_else(in_utc)?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// Parses `2026-11-21T05:13:36.209873+00:00`, with or without the fraction (Python), and `2026-11-21T05:22:48.930Z` (JavaScript).
fn usual(text: &[u8]) -> Option<Timestamp> {
    let (time, rest) = text.split_first_chunk::<19>()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| time.get(*at) != Some(mark)) {
        return None;
    }
    let (fraction, zone) = match rest {
        [b'.', rest @ ..] => {
            rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_digit()).count())
        }
        rest => (&[][..], rest),
    };
    let missing =
        u32::try_from(fraction.len()).ok().and_then(|digits| 9_u32.checked_sub(digits))?;
    if !matches!(zone, b"Z" | b"+00:00") {
        return None;
    }
    let year = i16::try_from(number(time.get(0..4)?)?).ok()?;
    let two = |at: usize| i8::try_from(number(time.get(at..at + 2)?)?).ok();
    let nanos = number(fraction)? * 10_i32.pow(missing);
    // The library handles leap seconds.
    let time = DateTime::new(year, two(5)?, two(8)?, two(11)?, two(14)?, two(17)?, nanos).ok()?;
    Offset::UTC.to_timestamp(time).ok()
}

/// Parses at most nine digits.
fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0'))
    })
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
        assert_eq!(nanos("2026-11-21T05:13:36"), nanos("2026-11-21T05:13:36Z"));
        assert_eq!(nanos("2026-11-21 05:13:36.5"), nanos("2026-11-21T05:13:36.5Z"));
        for text in ["", "yesterday", "2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "05:13:36"] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_fast_way_agrees_with_the_library(second in 0_i64..7_258_118_400, nano in 0_i32..1_000_000_000) {
            let time = Timestamp::new(second, nano).unwrap();
            let text = time.to_string();
            prop_assert_eq!(usual(text.as_bytes()), Some(time));
        }
    }
}
