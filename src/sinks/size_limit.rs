//! Learns from rejections how large a delivery or request a backend accepts. Pure: the caller passes the time.
//!
//! A backend's limit is seldom documented and changes with the proxies in front of it. Therefore the first rejection counts for a while,
//! and later deliveries are split before they are sent. The limit expires, because it can be raised.

use std::time::{Duration, Instant};

/// The smallest limit. A rejection of something smaller is more likely due to its items, and smaller requests gain nothing.
const BYTES_MIN: usize = 64 << 10;
/// The limit doubles after each such period without a rejection. A raised limit is found within the hour, and an unchanged one costs one
/// rejected request in ten minutes.
const DOUBLES_EVERY: Duration = Duration::from_mins(10);
/// The limit expires after this many doublings.
const DOUBLINGS_MAX: u32 = 4;

/// The learned limit, in bytes of items on the wire.
#[derive(Debug, Default)]
pub struct SizeLimit {
    learned: Option<Learned>,
}

#[derive(Debug, Clone, Copy)]
struct Learned {
    bytes_max: usize,
    at: Instant,
}

impl SizeLimit {
    /// Records that a delivery of this many bytes was too large.
    pub fn refused(&mut self, bytes: usize, now: Instant) {
        // Nine tenths, because items of the same size do not make requests of the same size.
        let bytes_max = (bytes / 10 * 9).max(BYTES_MIN);
        // A larger delivery that was in flight when the limit was learned teaches nothing new.
        let bytes_max = self.bytes_max(now).map_or(bytes_max, |known| known.min(bytes_max));
        self.learned = Some(Learned { bytes_max, at: now });
    }

    /// Returns the most bytes to send in one request; `None` if no limit is known.
    pub fn bytes_max(&self, now: Instant) -> Option<usize> {
        let learned = self.learned?;
        let age = now.saturating_duration_since(learned.at);
        let doublings = u32::try_from(age.as_secs() / DOUBLES_EVERY.as_secs()).ok()?;
        if DOUBLINGS_MAX <= doublings {
            return None;
        }
        learned.bytes_max.checked_mul(1 << doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn what_was_refused_is_undercut_and_a_late_larger_refusal_changes_nothing() {
        let (mut limit, now) = (SizeLimit::default(), now());
        assert_eq!(limit.bytes_max(now), None);
        limit.refused(1_000_000, now);
        assert_eq!(limit.bytes_max(now), Some(900_000));
        limit.refused(2_000_000, now);
        assert_eq!(limit.bytes_max(now), Some(900_000));
        limit.refused(500_000, now);
        assert_eq!(limit.bytes_max(now), Some(450_000));
    }

    #[test]
    fn the_limit_fades() {
        let (mut limit, now) = (SizeLimit::default(), now());
        limit.refused(1_000_000, now);
        let later = |doublings| now + DOUBLES_EVERY * doublings;
        assert_eq!(limit.bytes_max(later(1)), Some(1_800_000));
        assert_eq!(limit.bytes_max(later(3)), Some(7_200_000));
        assert_eq!(limit.bytes_max(later(4)), None);
    }

    #[test]
    fn a_small_refusal_does_not_cut_everything_to_pieces() {
        let (mut limit, now) = (SizeLimit::default(), now());
        limit.refused(100, now);
        assert_eq!(limit.bytes_max(now), Some(BYTES_MIN));
    }
}
