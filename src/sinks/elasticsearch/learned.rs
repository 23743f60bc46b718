//! The largest request that a backend takes, learnt from those that it refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// No cluster refuses requests of this size for their size.
const BYTES_MIN: usize = 64 << 10;
/// What was learnt is tried again after so long: it may have been the network, or somebody has changed the server since.
const KEPT: Duration = Duration::from_mins(5);

/// A size that is as configured, but for a while after a request was refused.
#[derive(Debug)]
pub(super) struct Learned {
    configured: usize,
    learnt: Mutex<Option<(usize, Instant)>>,
}

impl Learned {
    pub(super) fn new(configured: usize) -> Self {
        Self { configured, learnt: Mutex::new(None) }
    }

    /// The largest request that is tried now, in bytes before compression.
    pub(super) fn now(&self) -> usize {
        let learnt = self.learnt();
        let learnt = learnt.filter(|(_, at)| at.elapsed() < KEPT).map(|(bytes, _)| bytes);
        learnt.unwrap_or(self.configured)
    }

    /// A request of this size was refused. Returns whether that is news.
    pub(super) fn learn(&self, request_bytes: usize) -> bool {
        let (learned, before) = ((request_bytes / 10 * 9).max(BYTES_MIN), self.now());
        let is_news = learned < before;
        if is_news {
            *self.learnt() = Some((learned, Instant::now()));
        }
        is_news
    }

    fn learnt(&self) -> MutexGuard<'_, Option<(usize, Instant)>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_size_that_was_refused_is_tried_again_after_a_while() {
        let learned = Learned::new(5 << 20);
        assert!(learned.learn(1 << 20));
        assert!(!learned.learn(2 << 20), "less is known to be too much");
        assert_eq!(learned.now(), (1 << 20) / 10 * 9);
        tokio::time::advance(KEPT).await;
        assert_eq!(learned.now(), 5 << 20, "one hiccup of the network cuts no documents for ever");
        assert!(learned.learn(10) && learned.now() == BYTES_MIN);
    }
}
