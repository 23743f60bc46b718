//! Limits the deliveries that a lane may have under way, and decides when the next attempt may be made. Pure: `next(state, event, now)`.
//!
//! While a sink works, concurrency grows by one after each round of successes, and halves when the backend asks for less. After
//! [`FAILURES_MAX`] consecutive failures the breaker opens: it allows one attempt at a time, with growing waits, until one succeeds.
//! Attempts that were under way together count as one failure. A wait that the backend asked for is kept even if other attempts succeed.

use std::time::{Duration, Instant};

use crate::support::backoff::Backoff;

/// One failure is noise, and two can be a deployment; three consecutive failures are an outage.
const FAILURES_MAX: u32 = 3;

/// The state of a sink from its lane's view.
#[derive(Debug)]
pub(super) struct Breaker {
    concurrency_max: usize,
    allowed: usize,
    /// Successes since the concurrency last changed.
    successes: usize,
    failures: u32,
    /// When the last failure was counted. Attempts that began earlier reveal nothing new.
    failed_at: Option<Instant>,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// The end of the wait that the backend asked for.
    asked_until: Option<Instant>,
}

impl Breaker {
    /// Creates a closed breaker that starts with one delivery at a time.
    pub(super) fn new(concurrency_max: usize, backoff: Backoff) -> Self {
        let concurrency_max = concurrency_max.max(1);
        Self {
            concurrency_max,
            allowed: 1,
            successes: 0,
            failures: 0,
            failed_at: None,
            backoff,
            not_before: None,
            asked_until: None,
        }
    }

    /// Returns the number of deliveries that may be under way.
    pub(super) fn allowed(&self) -> usize {
        if self.is_open() { 1 } else { self.allowed }
    }

    /// Returns whether consecutive failures limit the lane to one attempt at a time.
    pub(super) fn is_open(&self) -> bool {
        FAILURES_MAX <= self.failures
    }

    /// Returns when the next attempt may be made; `None` means now.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before.max(self.asked_until)
    }

    /// Records a success.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
        self.backoff.reset();
        self.successes += 1;
        if self.allowed <= self.successes {
            self.successes = 0;
            self.allowed = (self.allowed + 1).min(self.concurrency_max);
        }
    }

    /// Records that the backend accepted a part: it works, so the next wait is short again.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }

    /// Records that the backend asked for less, after it accepted part or nothing of an attempt that began at `began`.
    pub(super) fn throttled(&mut self, began: Instant, now: Instant, after: Option<Duration>) {
        self.asked_until = self.asked_until.max(after.and_then(|after| now.checked_add(after)));
        if self.is_known(began) {
            return;
        }
        self.failed_at = Some(now);
        self.allowed = (self.allowed / 2).max(1);
        self.successes = 0;
        // The wait that the backend asks for is a minimum; jitter is added so that lanes do not return together.
        let wait = after.unwrap_or_default() + self.backoff.next_wait();
        self.not_before = now.checked_add(wait);
    }

    /// Records the failure of an attempt that began at `began`.
    pub(super) fn failed(&mut self, began: Instant, now: Instant, after: Option<Duration>) {
        if !self.is_known(began) {
            self.failures = self.failures.saturating_add(1);
        }
        self.throttled(began, now, after);
    }

    /// Records that the backend cannot work as configured: after `probe`, only a probe is made.
    pub(super) fn held(&mut self, began: Instant, now: Instant, probe: Duration) {
        self.failed(began, now, None);
        self.failures = self.failures.max(FAILURES_MAX);
        self.not_before = self.not_before.max(now.checked_add(probe));
    }

    fn is_known(&self, began: Instant) -> bool {
        self.failed_at.is_some_and(|failed_at| began < failed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(8, Backoff::new(Duration::from_millis(100), Duration::from_secs(10)))
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn concurrency_grows_by_one_a_round_and_halves_when_asked_for_less() {
        let mut breaker = breaker();
        let successes_to_eight: usize = (1..8).sum();
        (0..successes_to_eight).for_each(|_| breaker.succeeded());
        assert_eq!(breaker.allowed(), 8);
        (0..100).for_each(|_| breaker.succeeded());
        assert_eq!(breaker.allowed(), 8);
        breaker.throttled(now(), now(), None);
        assert_eq!(breaker.allowed(), 4);
    }

    #[test]
    fn an_open_breaker_lets_one_through_until_it_works() {
        let mut breaker = breaker();
        (0..50).for_each(|_| breaker.succeeded());
        let now = now();
        (0..FAILURES_MAX).for_each(|_| breaker.failed(now, now, None));
        assert_eq!(breaker.allowed(), 1);
        assert!(breaker.not_before().is_some());
        breaker.succeeded();
        assert_eq!(breaker.not_before(), None);
    }

    #[test]
    fn while_parts_arrive_the_wait_stays_short() {
        let mut breaker = breaker();
        let now = now();
        for _ in 0..50 {
            breaker.progressed();
            breaker.throttled(now, now, None);
            let wait = breaker.not_before().map(|at| at - now);
            assert!(wait.is_some_and(|wait| wait <= Duration::from_millis(100)));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn what_the_backend_asks_for_is_waited_for_whatever_works_meanwhile() {
        let mut breaker = breaker();
        let now = now();
        breaker.failed(now, now, Some(Duration::from_secs(7)));
        breaker.succeeded();
        assert_eq!(breaker.not_before(), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn attempts_that_were_under_way_together_fail_once() {
        let mut breaker = breaker();
        (0..50).for_each(|_| breaker.succeeded());
        let began = now();
        let failed = began + Duration::from_secs(1);
        (0..8).for_each(|_| breaker.failed(began, failed, None));
        assert_eq!(breaker.allowed(), 4, "halved once");
        assert!(!breaker.is_open());
        let wait = breaker.not_before().map(|at| at - failed);
        assert!(wait.is_some_and(|wait| wait <= Duration::from_millis(100)), "{wait:?}");
        for again in 1..u64::from(FAILURES_MAX) {
            let began = failed + Duration::from_secs(again);
            breaker.failed(began, began, None);
        }
        assert!(breaker.is_open());
    }
}
