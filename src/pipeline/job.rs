//! Jobs: deliveries of a replay, which a lane makes in addition to those of the journal.
//!
//! A job goes through the lane's window, so the sink sees one policy and one order: the lane's retries, breaker and bisection apply, spans
//! of one trace do not overtake each other, and a sink with a checkpoint still gets one delivery at a time. A job moves no cursor. Rejected
//! items are reported but not kept, because the caller still has them.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::sinks::Delivery;
use crate::support::lock::lock;

/// Maximum number of unfinished jobs per lane. Two keep it busy; more would only take memory and capacity from new records.
const JOBS_MAX: usize = 2;

/// Sends jobs to one lane. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    jobs: mpsc::Sender<(Delivery, Arc<Job>)>,
    places: Arc<Semaphore>,
}

/// The lane has ended, or cancelled the job because the daemon stops. Deliveries under way may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sink's lane has ended")]
pub struct LaneGone;

/// An item that the sink rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Index of its batch in the delivery, from 0.
    pub batch: usize,
    /// The reason, without payload text.
    pub reason: String,
}

/// A job until all its items are done. If the last clone is dropped earlier, the caller gets [`LaneGone`].
#[derive(Debug)]
pub(super) struct Job(Mutex<State>);

#[derive(Debug)]
struct State {
    items_left: usize,
    rejected: Vec<Rejected>,
    answer: Option<oneshot::Sender<Vec<Rejected>>>,
    /// Kept even if no caller waits any more: the delivery occupies memory until the lane releases it.
    _place: OwnedSemaphorePermit,
}

impl Jobs {
    /// Creates a sender of jobs and the lane's receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<(Delivery, Arc<Job>)>) {
        let (jobs, incoming) = mpsc::channel(1);
        (Self { jobs, places: Arc::new(Semaphore::new(JOBS_MAX)) }, incoming)
    }

    /// Delivers `delivery`; see [`super::JobHandle::deliver`].
    pub(super) async fn deliver(&self, delivery: Delivery) -> Result<Vec<Rejected>, LaneGone> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| LaneGone)?;
        let (answer, answered) = oneshot::channel();
        let answer = Some(answer);
        let items_left = delivery.len();
        let state = State { items_left, rejected: Vec::new(), answer, _place: place };
        let job = Arc::new(Job(Mutex::new(state)));
        self.jobs.send((delivery, job)).await.map_err(|_| LaneGone)?;
        answered.await.map_err(|_| LaneGone)
    }
}

impl Job {
    /// Returns whether no caller waits any more, so that no further attempt is needed.
    pub(super) fn is_given_up(&self) -> bool {
        self.with(|state| state.answer.as_ref().is_none_or(oneshot::Sender::is_closed))
    }

    /// Records that `items` items are done, with those `rejected` among them. Returns whether all are.
    pub(super) fn done(&self, items: usize, rejected: impl IntoIterator<Item = Rejected>) -> bool {
        self.with(|state| {
            state.items_left = state.items_left.saturating_sub(items);
            state.rejected.extend(rejected);
            state.items_left == 0
        })
    }

    /// Answers the caller: the delivered items are safe with the sink.
    pub(super) fn answer(&self) {
        self.with(|state| {
            // If no caller waits any more, nothing is resolved, and the next replay sends the items again.
            state.answer.take().map(|answer| answer.send(std::mem::take(&mut state.rejected)))
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut lock(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn jobs_that_are_broken_off_hold_their_places_until_the_lane_lets_them_go() {
        let (jobs, mut incoming) = Jobs::new();
        let mut at_the_lane = Vec::new();
        for _ in 0..JOBS_MAX {
            let broken_off = jobs.deliver(Delivery::default());
            timeout(Duration::from_secs(1), broken_off).await.unwrap_err();
            let (_, job) = incoming.try_recv().unwrap();
            assert!(job.is_given_up());
            at_the_lane.push(job);
        }
        let another = || timeout(Duration::from_secs(1), jobs.deliver(Delivery::default()));
        another().await.unwrap_err();
        assert!(incoming.try_recv().is_err(), "there is no place for it");
        at_the_lane.pop();
        another().await.unwrap_err();
        assert!(incoming.try_recv().is_ok());
    }
}
