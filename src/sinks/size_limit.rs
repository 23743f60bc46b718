//! How large a delivery or request a backend takes, as far as refusals have shown. Pure: it is told the time.
//!
//! What a backend takes is seldom documented and changes with what stands in front of it. So the first refusal is believed for
//! a while, and later deliveries are cut before they are sent. The belief fades, since a limit can be raised.

use std::time::{Duration, Instant};

/// A single refusal of something smaller says more about its items than about sizes, and requests below this gain nothing.
const BYTES_MIN: usize = 64 << 10;
/// The limit doubles after each such time without a refusal: one that was raised is found within the hour, one that was not costs
/// one refused request in ten minutes.
const DOUBLES_EVERY: Duration = Duration::from_mins(10);
/// After so many doublings nothing is left of it.
const DOUBLINGS_MAX: u32 = 4;

/// What a sink is known to refuse, in bytes of its items on the wire.
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
    /// Notes that a delivery of so many bytes was too large.
    pub fn refused(&mut self, bytes: usize, now: Instant) {
        // Nine tenths: items of one size are not written to requests of one size.
        let bytes_max = (bytes / 10 * 9).max(BYTES_MIN);
        // A refusal that was under way since before the last one teaches nothing new.
        let bytes_max = self.bytes_max(now).map_or(bytes_max, |known| known.min(bytes_max));
        self.learned = Some(Learned { bytes_max, at: now });
    }

    /// The most that should be sent in one go; `None` when nothing is known.
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
