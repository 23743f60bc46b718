//! Waiting times before retries: exponential with full jitter, so that clients that failed together do not retry together.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Waiting times between the attempts of one operation.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts with waits of up to `first` and doubles that bound each time, up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// Returns the next wait: a random time from zero to the current bound.
    pub fn next_wait(&mut self) -> Duration {
        let bound =
            self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(random_fraction(self.attempts))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Returns a number from 0 to 1. The standard library seeds every hasher randomly, which is random enough for a wait.
fn random_fraction(salt: u32) -> f64 {
    let bits = RandomState::new().hash_one(salt) >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_no_further() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let longest_of = |backoff: &mut Backoff| {
            let mut copies: Vec<_> = (0..64).map(|_| backoff.clone().next_wait()).collect();
            backoff.next_wait();
            copies.sort();
            copies.pop().unwrap()
        };
        assert!(longest_of(&mut backoff) <= Duration::from_millis(100));
        for _ in 0..100 {
            assert!(backoff.next_wait() <= Duration::from_secs(1));
        }
        assert!(longest_of(&mut backoff) > Duration::from_millis(500));
    }
}
