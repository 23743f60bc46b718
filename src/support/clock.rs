//! The only place that reads the wall clock.

use crate::support::lock::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// The last time returned, and when that was.
static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);

/// Returns nanoseconds since 1970. The time jumps forward with the system clock, but never goes back while the process lives. After the
/// system clock was set back, this clock runs at half speed until both agree. Otherwise, waits for a time in journal order would last as
/// long as the clock was set back.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_now_ns() -> u64 {
    let mut last = lock(&LAST);
    let wall = nanos(std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let now = Instant::now();
    let unix_ns = last.map_or(wall, |(at, unix_ns)| after(unix_ns, now - at, wall));
    *last = Some((now, unix_ns));
    unix_ns
}

/// Returns the time after `elapsed`, given the system clock's time.
fn after(last_ns: u64, elapsed: Duration, wall_ns: u64) -> u64 {
    wall_ns.max(last_ns.saturating_add(nanos(elapsed / 2)))
}

/// Converts a duration to nanoseconds, saturating.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_goes_on_at_half_its_speed_until_it_is_right_again() {
        const SECOND: u64 = 1_000_000_000;
        let hour = 3600 * SECOND;
        let (mut told, mut wall) = (100 * hour, 99 * hour);
        for second in 1..=7200 {
            wall += SECOND;
            told = after(told, Duration::from_secs(1), wall);
            assert_eq!(told, 100 * hour + second * SECOND / 2);
        }
        assert_eq!(told, wall);
        assert_eq!(after(told, Duration::from_secs(1), wall + SECOND), wall + SECOND);
        assert_eq!(after(told, Duration::ZERO, wall + hour), wall + hour, "forward at once");
    }
}
