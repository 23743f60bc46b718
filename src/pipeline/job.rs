//! Jobs: deliveries of a replay, which a lane makes beside those of the journal.
//!
//! A job goes through the lane's own window, so the sink sees one policy and one order: retries, breaker and bisecting are those of any
//! delivery, what belongs to one trace does not overtake, and a sink with a checkpoint still takes one delivery at a time. It moves no
//! cursor. What the sink will never take is reported and not kept: whoever replays has the items still.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::sinks::Delivery;
use crate::support::lock::lock;

/// Jobs at a lane that are not done. Two keep it busy; more would only take memory and room from what arrives meanwhile.
const JOBS_MAX: usize = 2;

/// The way into one lane. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Jobs {
    jobs: mpsc::Sender<(Delivery, Arc<Job>)>,
    places: Arc<Semaphore>,
}

/// The lane has ended, or gave the job up because the daemon stops. What was under way may have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sink's lane has ended")]
pub struct LaneGone;

/// An item that the sink will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which of the delivery's batches it came in, counted from 0.
    pub batch: usize,
    /// Why, without payload text.
    pub reason: String,
}

/// A job until all its items are done. When the last clone is dropped before that, whoever waits hears [`LaneGone`].
#[derive(Debug)]
pub(super) struct Job(Mutex<State>);

#[derive(Debug)]
struct State {
    items_left: usize,
    rejected: Vec<Rejected>,
    answer: Option<oneshot::Sender<Vec<Rejected>>>,
    /// Kept also when nobody waits any more: the delivery is in memory until the lane lets it go.
    _place: OwnedSemaphorePermit,
}

impl Jobs {
    /// A way into a lane, and where the lane takes from it.
    pub(super) fn new() -> (Self, mpsc::Receiver<(Delivery, Arc<Job>)>) {
        let (jobs, incoming) = mpsc::channel(1);
        (Self { jobs, places: Arc::new(Semaphore::new(JOBS_MAX)) }, incoming)
    }

    /// Has this delivered; see [`super::JobHandle::deliver`].
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
    /// Whether nobody waits for it any more: then no further attempt is made.
    pub(super) fn is_given_up(&self) -> bool {
        self.with(|state| state.answer.as_ref().is_none_or(oneshot::Sender::is_closed))
    }

    /// Notes that so many items are done, these among them as never taken. Returns whether all are.
    pub(super) fn done(&self, items: usize, rejected: impl IntoIterator<Item = Rejected>) -> bool {
        self.with(|state| {
            state.items_left = state.items_left.saturating_sub(items);
            state.rejected.extend(rejected);
            state.items_left == 0
        })
    }

    /// What arrived is safe with the sink.
    pub(super) fn answer(&self) {
        self.with(|state| {
            // Where nobody waits any more nothing is resolved, and the next replay sends it again.
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
