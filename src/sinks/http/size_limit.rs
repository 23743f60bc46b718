//! The largest request that a backend is known to take. Pure: the time is given.
//!
//! Only an answer that says so (413) makes it smaller: a request that got no answer says nothing of its size. What was learned is
//! doubled again with time, since a proxy's limit can be raised and the backend behind an address can change.

use std::time::{Duration, Instant};

use crate::sinks::{RejectClass, Report};

/// What a sink asks for the size of its requests.
#[derive(Debug)]
pub(in crate::sinks) struct SizeLimit {
    configured: usize,
    learned: Option<(usize, Instant)>,
}

/// How long a learned limit holds before it is doubled: a wrong one costs one more refused request in this time.
const DOUBLES_EVERY: Duration = Duration::from_mins(10);
/// No backend that works takes less.
const LEARNED_BYTES_MIN: usize = 16 << 10;

impl SizeLimit {
    /// With what the options say.
    pub(in crate::sinks) fn new(configured: usize) -> Self {
        Self { configured, learned: None }
    }

    /// Bytes of the largest request now.
    pub(in crate::sinks) fn bytes(&self, now: Instant) -> usize {
        let Some((bytes, at)) = self.learned else { return self.configured };
        let times = now.saturating_duration_since(at).as_secs() / DOUBLES_EVERY.as_secs();
        let factor = 1_usize.checked_shl(u32::try_from(times).unwrap_or(u32::MAX));
        bytes.saturating_mul(factor.unwrap_or(usize::MAX)).min(self.configured)
    }

    /// Learns from the report of a request of so many bytes.
    pub(in crate::sinks) fn learn(&mut self, report: &Report, sent: usize, now: Instant) {
        if report.is_refused(RejectClass::TooLarge) {
            let bytes = (sent / 10 * 9).max(LEARNED_BYTES_MIN).min(self.bytes(now));
            self.learned = Some((bytes, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: usize = 4 << 20;

    fn too_large() -> Report {
        Report::split(RejectClass::TooLarge, "HTTP 413".to_owned(), String::new())
    }

    #[test]
    fn a_learned_limit_decays_until_what_is_configured_holds_again() {
        let now = tokio::time::Instant::now().into_std();
        let mut limit = SizeLimit::new(CONFIGURED);
        limit.learn(&too_large(), 2_000_000, now);
        assert_eq!(limit.bytes(now), 1_800_000);
        assert_eq!(limit.bytes(now + DOUBLES_EVERY / 10 * 9), 1_800_000);
        assert_eq!(limit.bytes(now + DOUBLES_EVERY), 3_600_000);
        assert_eq!(limit.bytes(now + DOUBLES_EVERY * 2), CONFIGURED);
        assert_eq!(limit.bytes(now + DOUBLES_EVERY * 500), CONFIGURED);
        limit.learn(&too_large(), CONFIGURED, now);
        assert_eq!(limit.bytes(now), 1_800_000, "what is smaller is known already");
        limit.learn(&too_large(), 1, now);
        assert_eq!(limit.bytes(now), LEARNED_BYTES_MIN);
    }

    #[test]
    fn only_an_answer_about_the_size_makes_requests_smaller() {
        let now = tokio::time::Instant::now().into_std();
        let mut limit = SizeLimit::new(CONFIGURED);
        for report in [
            Report::delivered(),
            Report::down(None, "the connection broke"),
            Report::slow(None, "HTTP 429"),
            Report::fault("HTTP 500".to_owned(), String::new()),
            Report::split(RejectClass::Malformed, "HTTP 400".to_owned(), String::new()),
        ] {
            limit.learn(&report, 100_000, now);
            assert_eq!(limit.bytes(now), CONFIGURED, "{report:?}");
        }
    }
}
