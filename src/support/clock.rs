//! The only place that reads the wall clock.

use crate::support::lock::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// What the clock said last, and when that was.
static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);

/// Nanoseconds since 1970. It jumps forward when the system's clock does, and never goes back while the process lives: when the system's
/// clock is set back, this one goes at half its speed until both agree. What waits for a time in the journal's order would wait for
/// as long as the clock was set back.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_now_ns() -> u64 {
    let mut last = lock(&LAST);
    let wall = nanos(std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let now = Instant::now();
    let unix_ns = last.map_or(wall, |(at, unix_ns)| after(unix_ns, now - at, wall));
    *last = Some((now, unix_ns));
    unix_ns
}

/// What follows on this time, so much later, while the system's clock says that.
fn after(last_ns: u64, elapsed: Duration, wall_ns: u64) -> u64 {
    wall_ns.max(last_ns.saturating_add(nanos(elapsed / 2)))
}

/// A duration in nanoseconds; the most there are for one that is longer.
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
