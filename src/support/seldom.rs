//! What may happen any number of times is said once in a while, with how often it happened.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::lock::lock;

/// When something is said again.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    /// How often it happened since.
    count: u64,
}

impl Seldom {
    /// It is said once in this time at most.
    pub fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// It happened. Returns how often since it was said last, where it is time to say so.
    pub fn note(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        state.count += 1;
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
