//! Rate limit for log messages: a frequent event is logged once in a while, with its count.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock::lock;

/// A rate limit for one event.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    /// Events since then.
    count: u64,
}

impl Seldom {
    /// Creates a limit of one message per interval.
    pub fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// Counts an event. Returns the events since the last message if another message is due.
    pub fn note(&self) -> Option<u64> {
        self.note_all(1)
    }

    /// Counts several events at once.
    pub fn note_all(&self, count: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        state.count += count;
        if state.said.is_some_and(|said| said.elapsed() < self.every) {
            return None;
        }
        state.said = Some(Instant::now());
        Some(std::mem::take(&mut state.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_often_is_said_once_in_a_while_with_how_often() {
        let seldom = Seldom::new(Duration::from_mins(1));
        assert_eq!([seldom.note(), seldom.note(), seldom.note()], [Some(1), None, None]);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!([seldom.note(), seldom.note()], [Some(3), None]);
    }
}
