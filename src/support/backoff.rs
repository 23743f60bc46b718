//! How long to wait before trying again: exponential with full jitter, so that many who failed together do not come back together.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The waits between attempts at one thing.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// Waits of up to `first`, then up to twice as much each time, never more than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// The next wait: anything between nothing and the current bound.
    pub fn next_wait(&mut self) -> Duration {
        let bound =
            self.first.saturating_mul(2_u32.saturating_pow(self.attempts)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        bound.mul_f64(random_fraction(self.attempts))
    }

    /// It worked: the next failure starts over.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// A number from 0 to 1. The standard library seeds every hasher at random, which is random enough for a wait.
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
