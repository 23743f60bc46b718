//! The only place that reads the wall clock.

use std::time::UNIX_EPOCH;

/// Nanoseconds since 1970. It may jump when the system's clock is set.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn unix_now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
