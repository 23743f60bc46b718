//! Delivers, however often it takes, until every item has arrived or is a dead letter. One policy for all sinks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::breaker::Breaker;
use super::ledger::Ledger;
use super::status::{LaneState, LaneStatus};
use super::{DeadLetters, LaneEnd, LaneOptions};
use crate::sinks::{Delivery, Outcome, Rejection, Sink};
use crate::support::backoff::Backoff;

/// Attempts after which a far side that breaks (500) on a delivery is tried with halves of it.
const FAULTS_MAX: u32 = 3;

/// What delivers for a lane. Clones share the breaker.
#[derive(Clone)]
pub(super) struct Courier {
    sink: Arc<dyn Sink>,
    dead_letters: DeadLetters,
    ledger: Arc<Ledger>,
    status: Arc<LaneStatus>,
    breaker: Arc<Mutex<Breaker>>,
    hold_probe: Duration,
}

/// What is still to be delivered of a delivery.
struct Task {
    delivery: Delivery,
    faults: u32,
}

/// What an outcome leaves to do.
#[derive(Default)]
struct Rest {
    tasks: Vec<Task>,
    rejections: Vec<Rejection>,
    problem: Option<Problem>,
}

/// Why not everything arrived.
enum Problem {
    /// Again, after a wait.
    Failed { after: Option<Duration>, reason: String },
    /// Again, after a wait, and less at a time.
    Throttled { after: Option<Duration>, reason: String },
    /// An operator has to mend something.
    Stopped { reason: String },
}

impl Courier {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        dead_letters: DeadLetters,
        ledger: Arc<Ledger>,
        status: Arc<LaneStatus>,
        options: &LaneOptions,
    ) -> Self {
        let backoff = Backoff::new(options.retry_first, options.retry_longest);
        let breaker = Arc::new(Mutex::new(Breaker::new(sink.concurrency_max(), backoff)));
        Self { sink, dead_letters, ledger, status, breaker, hold_probe: options.hold_probe }
    }

    /// How many deliveries may be under way now.
    pub(super) fn allowed(&self) -> usize {
        self.breaker().allowed()
    }

    /// Delivers; returns how many items became dead letters. It waits for as long as it takes: the caller drops it to give up.
    pub(super) async fn deliver(&self, delivery: Delivery) -> Result<u64, LaneEnd> {
        LaneStatus::count(&self.status.deliveries);
        let mut dead_lettered = 0;
        let mut tasks = vec![Task { delivery, faults: 0 }];
        while let Some(task) = tasks.pop() {
            self.wait_for_turn().await;
            if self.sink.needs_checkpoint(&task.delivery) && !self.ledger.save_or_warn().await {
                tasks.push(task);
                self.breaker().failed(Instant::now().into_std(), None);
                continue;
            }
            let outcome = {
                let _in_flight = self.status.one_in_flight();
                self.sink.deliver(&task.delivery).await
            };
            let rest = after(&task, outcome);
            dead_lettered += self.set_aside(&task.delivery, &rest.rejections).await?;
            // The first is tried first: what was cut in halves stays in order.
            tasks.extend(rest.tasks.into_iter().rev());
            self.note(rest.problem).await;
        }
        Ok(dead_lettered)
    }

    async fn wait_for_turn(&self) {
        loop {
            let not_before = self.breaker().not_before().map(Instant::from_std);
            match not_before {
                Some(at) if Instant::now() < at => sleep_until(at).await,
                _ => return,
            }
        }
    }

    async fn note(&self, problem: Option<Problem>) {
        let now = Instant::now().into_std();
        match problem {
            None => {
                self.breaker().succeeded();
                if self.status.set_state(LaneState::Running, self.sink.notice()) {
                    info!(sink = self.status.sink, "the sink works again");
                }
                return;
            }
            Some(Problem::Failed { after, reason }) => {
                self.breaker().failed(now, after);
                self.troubled(LaneState::Retrying, &reason);
            }
            Some(Problem::Throttled { after, reason }) => {
                self.breaker().throttled(now, after);
                self.troubled(LaneState::Retrying, &reason);
            }
            Some(Problem::Stopped { reason }) => {
                self.breaker().failed(now, None);
                self.troubled(LaneState::Holding, &reason);
                sleep(self.hold_probe).await;
            }
        }
        LaneStatus::count(&self.status.retries);
    }

    fn troubled(&self, state: LaneState, reason: &str) {
        if self.status.set_state(state, Some(reason.to_owned())) {
            warn!(
                sink = self.status.sink,
                state = state.as_str(),
                reason,
                "the sink does not take spans; nothing is lost"
            );
        }
    }

    async fn set_aside(
        &self,
        delivery: &Delivery,
        rejections: &[Rejection],
    ) -> Result<u64, LaneEnd> {
        let Some(first) = rejections.first() else { return Ok(0) };
        let sink = &self.status.sink;
        let count = self
            .dead_letters
            .keep(sink, delivery, rejections)
            .await
            .map_err(LaneEnd::no_dead_letters)?;
        if 0 < count {
            error!(
                sink,
                count,
                reason = first.reason,
                "items were rejected and are dead letters now"
            );
        }
        let roots = (rejections.len() as u64).saturating_sub(count);
        if 0 < roots {
            self.status.roots_rejected.fetch_add(roots, Ordering::Relaxed);
            warn!(sink, roots, reason = first.reason, "roots of traces were rejected");
        }
        Ok(count)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an outcome leaves to do. Pure.
fn after(task: &Task, outcome: Outcome) -> Rest {
    let mut rest = Rest::default();
    match outcome {
        Outcome::Delivered => {}
        Outcome::Incomplete { rejected, reason } => {
            // Nothing can be set aside, because nobody says which they are; the far side has counted them.
            warn!(
                rejected,
                reason, "the far side left out items of a delivery without saying which"
            );
        }
        Outcome::Retry { after, reason } => {
            rest.again(task);
            rest.problem = Some(Problem::Failed { after, reason });
        }
        Outcome::Throttled { after, reason } => {
            rest.again(task);
            rest.problem = Some(Problem::Throttled { after, reason });
        }
        Outcome::Stop { reason } => {
            rest.again(task);
            rest.problem = Some(Problem::Stopped { reason });
        }
        Outcome::Fault { reason, .. } if task.faults + 1 < FAULTS_MAX => {
            rest.tasks.push(Task { delivery: task.delivery.clone(), faults: task.faults + 1 });
            rest.problem = Some(Problem::Failed { after: None, reason });
        }
        Outcome::Fault { reason, answer }
        | Outcome::TooLarge { reason, answer, .. }
        | Outcome::Malformed { reason, answer } => rest.halve(task, reason, answer),
        Outcome::Reject(rejections) => rest.rejections = rejections,
        Outcome::Parts(parts) => {
            for part in parts {
                let sub = Task { delivery: task.delivery.only(&part.items), faults: task.faults };
                rest.add_part(&part.items, after(&sub, part.outcome));
            }
        }
    }
    rest
}

impl Rest {
    fn again(&mut self, task: &Task) {
        self.tasks.push(Task { delivery: task.delivery.clone(), faults: task.faults });
    }

    /// Tries the halves alone; what cannot be halved will never be taken.
    fn halve(&mut self, task: &Task, reason: String, answer: String) {
        let places: Vec<usize> = (0..task.delivery.len()).collect();
        match places.split_at(places.len() / 2) {
            ([], _) => self.rejections.push(Rejection { index: 0, reason, answer }),
            halves => {
                for half in [halves.0, halves.1] {
                    self.tasks.push(Task { delivery: task.delivery.only(half), faults: 0 });
                }
            }
        }
    }

    /// Adds what a part leaves to do. Its places are places in the part unless the outcome was the sink's own, which speaks of the
    /// whole delivery.
    fn add_part(&mut self, items: &[usize], part: Rest) {
        self.tasks.extend(part.tasks);
        for mut rejection in part.rejections {
            if items.len() == 1 {
                rejection.index = items.first().copied().unwrap_or(rejection.index);
            }
            self.rejections.push(rejection);
        }
        self.problem = self.problem.take().or(part.problem);
    }
}
