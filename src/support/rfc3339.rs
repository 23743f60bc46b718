//! Points in time as text: RFC 3339 in UTC, always with nine digits behind the point, so that text sorts like time.

/// Appends `2026-11-21T05:15:09.529503000Z`, without quotes. Every `u64` of nanoseconds since 1970 has a four-digit year.
pub fn write(out: &mut Vec<u8>, unix_ns: u64) {
    let seconds = unix_ns / NS_PER_SECOND;
    let second = seconds % SECONDS_PER_DAY;
    let [h1, h2] = digits(second / 3600);
    let [m1, m2] = digits(second / 60 % 60);
    let [s1, s2] = digits(second % 60);
    write_date(out, seconds / SECONDS_PER_DAY);
    out.extend_from_slice(&[b'T', h1, h2, b':', m1, m2, b':', s1, s2, b'.']);
    out.extend_from_slice(&digits::<9>(unix_ns % NS_PER_SECOND));
    out.push(b'Z');
}

/// Appends the date of a day counted from 1970-01-01, up to the year 9999: `2026-11-21`.
pub fn write_date(out: &mut Vec<u8>, unix_day: u64) {
    let (year, month, day) = civil(unix_day);
    let [y1, y2, y3, y4] = digits(year);
    let [m1, m2] = digits(month);
    let [d1, d2] = digits(day);
    out.extend_from_slice(&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2]);
}

/// Seconds of a UTC day; leap seconds do not exist in Unix time.
pub const SECONDS_PER_DAY: u64 = 86_400;

/// Nanoseconds of a second.
pub const NS_PER_SECOND: u64 = 1_000_000_000;

/// Year, month and day of a day counted from 1970-01-01, by counting days from 0000-03-01 in eras of 400 years: a year that
/// begins in March has its leap day last.
fn civil(unix_day: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = unix_day + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_after_february = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_after_february + 2) / 5 + 1;
    let (month, years) = match months_after_february {
        0..10 => (months_after_february + 3, 0),
        january_or_february => (january_or_february - 9, 1),
    };
    (era * 400 + year_of_era + years, month, day)
}

/// The last so many decimal digits of a number.
fn digits<const WIDTH: usize>(number: u64) -> [u8; WIDTH] {
    let mut digits = [b'0'; WIDTH];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(unix_ns: u64) -> String {
        let mut out = Vec::new();
        write(&mut out, unix_ns);
        String::from_utf8(out).unwrap()
    }

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
        fn it_agrees_with_a_calendar_of_others(unix_ns: u64) {
            let time = jiff::Timestamp::from_nanosecond(unix_ns.into()).unwrap();
            prop_assert_eq!(text(unix_ns), format!("{time:.9}"));
        }
    }
}
