//! Delivers, however often it takes, until every item has arrived or is a dead letter. One policy for all sinks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::breaker::Breaker;
use super::ledger::Ledger;
use super::limit::SizeLimit;
use super::status::{LaneState, LaneStatus, RejectClass};
use super::{DeadLetters, LaneEnd, LaneOptions};
use crate::sinks::{Delivery, Outcome, Rejection, Sink};
use crate::span::Span;
use crate::support::backoff::Backoff;
use crate::support::stop::Stop;

/// Attempts after which a far side that breaks (500) on a delivery is tried with halves of it. One item alone is given up after as
/// many, but only if something else arrived since the first: where nothing does, the far side is at fault and not the item.
const FAULTS_MAX: u32 = 3;

/// What delivers for a lane. Clones share what was learned of the sink.
#[derive(Clone)]
pub(super) struct Courier {
    sink: Arc<dyn Sink>,
    dead_letters: DeadLetters,
    ledger: Arc<Ledger>,
    status: Arc<LaneStatus>,
    learned: Arc<Mutex<Learned>>,
    /// Wakes those that wait for the backend when it works again.
    works: Arc<Notify>,
    hold_probe: Duration,
}

/// What is known of a sink from how it answered.
struct Learned {
    breaker: Breaker,
    size: SizeLimit,
    /// Attempts after which something had arrived.
    arrivals: u64,
}

/// Whom a delivery is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The journal's cursor: what the sink will never take becomes dead letters.
    Journal,
    /// Nobody: it was settled when it was sent first. What the sink does not take again is counted and stays there as it was.
    Amendment,
    /// An operator: what the sink will never take is reported to them, who have it still. Once this is turned they no longer
    /// wait, and no further attempt is made.
    Errand(Stop),
}

/// What did not arrive.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// Items that are dead letters now.
    pub(super) dead_lettered: u64,
    /// Items that are to be reported.
    pub(super) reported: Vec<Reported>,
    /// Items that nobody wants delivered any more.
    pub(super) given_up: usize,
    /// What cannot go yet.
    pub(super) parked: Vec<Held>,
}

/// A delivery that cannot go yet, for a reason of its own.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) delivery: Delivery,
    /// What it waits for, in the sink's words.
    pub(super) waits_for: String,
    /// Why, without payload text.
    pub(super) reason: String,
}

/// An item that the sink will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Which of the delivery's batches it came in, counted from 0.
    pub batch: usize,
    /// Why, without payload text.
    pub reason: String,
}

/// What is still to be delivered of a delivery.
#[derive(Clone)]
struct Task {
    delivery: Delivery,
    /// Attempts in a row on which the far side broke.
    faults: u32,
    /// [`Learned::arrivals`] when it first broke on this, or on what this was cut from.
    broken_since: Option<u64>,
}

/// What an outcome leaves to do.
#[derive(Default)]
struct Rest {
    tasks: Vec<Task>,
    rejections: Vec<(RejectClass, Rejection)>,
    problem: Option<Problem>,
    /// Bytes of what was too large.
    too_large: Option<usize>,
    /// Items that the far side left out without saying which.
    left_out: u64,
    /// Whether something arrived.
    has_arrived: bool,
    /// What cannot go yet.
    parked: Vec<Held>,
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
        let breaker = Breaker::new(sink.concurrency_max(), backoff);
        status.concurrency.store(breaker.allowed(), Ordering::Relaxed);
        let learned =
            Arc::new(Mutex::new(Learned { breaker, size: SizeLimit::default(), arrivals: 0 }));
        let (works, hold_probe) = (Arc::default(), options.hold_probe);
        Self { sink, dead_letters, ledger, status, learned, works, hold_probe }
    }

    /// How many deliveries may be under way now.
    pub(super) fn allowed(&self) -> usize {
        self.learned(|learned| learned.breaker.allowed())
    }

    /// Delivers; returns what did not arrive. It waits for as long as it takes: the caller drops it to give up.
    pub(super) async fn deliver(
        &self,
        delivery: Delivery,
        purpose: Purpose,
    ) -> Result<Delivered, LaneEnd> {
        LaneStatus::count(&self.status.deliveries);
        let mut delivered = Delivered::default();
        let mut tasks: Vec<Task> = self.cut(delivery);
        while let Some(task) = tasks.pop() {
            self.wait_for_turn().await;
            if matches!(&purpose, Purpose::Errand(given_up) if given_up.is_stopped()) {
                delivered.given_up =
                    tasks.iter().chain([&task]).map(|task| task.delivery.len()).sum();
                break;
            }
            if self.sink.needs_checkpoint(&task.delivery) && !self.ledger.save_or_warn().await {
                tasks.push(task);
                let now = Instant::now().into_std();
                self.learned(|learned| learned.breaker.failed(now, now, None));
                continue;
            }
            let began = Instant::now();
            let outcome = {
                let _in_flight = self.status.one_in_flight();
                self.sink.deliver(&task.delivery).await
            };
            let rest = after(&task, outcome, self.learned(|learned| learned.arrivals));
            let is_only_parked = rest.says_nothing_of_the_far_side();
            self.learn(&rest);
            match &purpose {
                Purpose::Journal => {
                    delivered.dead_lettered +=
                        self.set_aside(&task.delivery, &rest.rejections).await?;
                }
                Purpose::Amendment => {
                    delivered.given_up += rest.rejections.len();
                    self.leave(&rest.rejections);
                }
                Purpose::Errand(_) => {
                    delivered.reported.extend(reported(&task.delivery, rest.rejections));
                }
            }
            delivered.parked.extend(rest.parked);
            if is_only_parked {
                self.show_notice();
                continue;
            }
            // The first is tried first: what was cut stays in order.
            tasks.extend(rest.tasks.into_iter().rev());
            self.note(rest.problem, rest.has_arrived, began).await;
        }
        Ok(delivered)
    }

    /// What is to be delivered, the first last, in parts of a size that is not known to be refused.
    fn cut(&self, delivery: Delivery) -> Vec<Task> {
        let now = Instant::now().into_std();
        let bytes_max = self.learned(|learned| learned.size.bytes_max(now));
        let deliveries = match bytes_max {
            Some(bytes_max) if bytes_max < delivery.bytes() => in_parts(&delivery, bytes_max),
            _ => vec![delivery],
        };
        let task = |delivery| Task { delivery, faults: 0, broken_since: None };
        deliveries.into_iter().rev().map(task).collect()
    }

    fn learn(&self, rest: &Rest) {
        self.status.left_out.fetch_add(rest.left_out, Ordering::Relaxed);
        let now = Instant::now().into_std();
        let bytes_max = self.learned(|learned| {
            learned.arrivals += u64::from(rest.has_arrived);
            if let Some(bytes) = rest.too_large {
                learned.size.refused(bytes, now);
            }
            learned.size.bytes_max(now)
        });
        self.status.learned_bytes_max.store(bytes_max.unwrap_or_default(), Ordering::Relaxed);
    }

    async fn wait_for_turn(&self) {
        loop {
            // Listens before it looks, so that nothing that happens in between is missed.
            let works = self.works.notified();
            let not_before = self.learned(|learned| learned.breaker.not_before());
            match not_before.map(Instant::from_std) {
                Some(at) if Instant::now() < at => {
                    tokio::select! { () = sleep_until(at) => {} () = works => {} }
                }
                _ => return,
            }
        }
    }

    async fn note(&self, problem: Option<Problem>, has_arrived: bool, began: Instant) {
        let (began, now) = (began.into_std(), Instant::now().into_std());
        let (allowed, is_open) = self.learned(|Learned { breaker, .. }| {
            if has_arrived {
                breaker.progressed();
            }
            match &problem {
                None => breaker.succeeded(),
                Some(Problem::Throttled { after, .. }) => breaker.throttled(began, now, *after),
                Some(Problem::Failed { after, .. }) => breaker.failed(began, now, *after),
                Some(Problem::Stopped { .. }) => breaker.failed(began, now, None),
            }
            (breaker.allowed(), breaker.is_open())
        });
        self.status.concurrency.store(allowed, Ordering::Relaxed);
        self.status.is_breaker_open.store(is_open, Ordering::Relaxed);
        let Some(problem) = problem else {
            self.works.notify_waiters();
            if self.status.set_state(LaneState::Running, self.sink.notice()) {
                info!(sink = self.status.sink, "the sink works again");
            }
            return;
        };
        LaneStatus::count(&self.status.retries);
        match problem {
            Problem::Failed { reason, .. } => self.troubled(LaneState::Retrying, &reason),
            Problem::Throttled { reason, .. } => {
                LaneStatus::count(&self.status.throttles);
                self.troubled(LaneState::Retrying, &reason);
            }
            Problem::Stopped { reason } => {
                LaneStatus::count(&self.status.holds);
                self.troubled(LaneState::Holding, &reason);
                sleep(self.hold_probe).await;
            }
        }
    }

    /// What the sink has to say, unless there is worse.
    fn show_notice(&self) {
        if self.status.state().0 == LaneState::Running {
            self.status.set_state(LaneState::Running, self.sink.notice());
        }
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
        rejections: &[(RejectClass, Rejection)],
    ) -> Result<u64, LaneEnd> {
        let Some((_, first)) = rejections.first() else { return Ok(0) };
        let sink = &self.status.sink;
        let count = self
            .dead_letters
            .keep(sink, delivery, rejections.iter().map(|(_, rejection)| rejection))
            .await
            .map_err(LaneEnd::no_dead_letters)?;
        // Roots that we made were never accepted: they are no dead letters, and not counted as such.
        let items: Vec<_> = delivery.items().collect();
        for (class, rejection) in rejections {
            let item = items.get(rejection.index).and_then(|(_, item)| item.as_span());
            if !item.is_some_and(Span::is_synthetic) {
                self.status.count_dead_letters(*class, 1);
            }
        }
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

    fn leave(&self, rejections: &[(RejectClass, Rejection)]) {
        let Some((_, first)) = rejections.first() else { return };
        let count = rejections.len() as u64;
        self.status.unamended.fetch_add(count, Ordering::Relaxed);
        let (sink, reason) = (&self.status.sink, &first.reason);
        warn!(sink, count, reason, "spans were not taken again with what became known of them");
    }

    fn learned<T>(&self, look: impl FnOnce(&mut Learned) -> T) -> T {
        look(&mut self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn reported(
    delivery: &Delivery,
    rejections: Vec<(RejectClass, Rejection)>,
) -> impl Iterator<Item = Reported> {
    rejections.into_iter().filter_map(|(_, rejection)| {
        let batch = delivery.batch_of(rejection.index)?;
        Some(Reported { batch, reason: rejection.reason })
    })
}

/// The delivery in parts of at most so many bytes, or of one item where that alone has more. The order stays.
fn in_parts(delivery: &Delivery, bytes_max: usize) -> Vec<Delivery> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (place, (_, item)) in delivery.items().enumerate() {
        let more = item.wire().len();
        if !part.is_empty() && bytes_max < bytes + more {
            parts.push(delivery.only(&part));
            part.clear();
            bytes = 0;
        }
        part.push(place);
        bytes += more;
    }
    parts.push(delivery.only(&part));
    parts
}

/// What an outcome leaves to do, when so many attempts made something arrive before. Pure.
fn after(task: &Task, outcome: Outcome, arrivals: u64) -> Rest {
    let mut rest = Rest::default();
    match outcome {
        Outcome::Delivered => rest.has_arrived = true,
        Outcome::Incomplete { rejected, reason } => {
            rest.has_arrived = true;
            rest.left_out = rejected;
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
        Outcome::Park { waits_for, reason } => {
            let delivery = task.delivery.clone().alone();
            rest.parked.push(Held { delivery, waits_for, reason });
        }
        Outcome::Fault { reason, answer } => rest.fault(task, arrivals, reason, answer),
        Outcome::TooLarge { reason, answer, .. } => {
            // Of one item alone it is not known whether a smaller one would have been taken in its place.
            rest.too_large = (1 < task.delivery.len()).then(|| task.delivery.bytes());
            rest.halve(task, RejectClass::TooLarge, reason, answer);
        }
        Outcome::Malformed { reason, answer } => {
            rest.halve(task, RejectClass::Malformed, reason, answer);
        }
        Outcome::Reject(rejections) => {
            rest.has_arrived = rejections.len() < task.delivery.len();
            let rejections = rejections.into_iter();
            rest.rejections = rejections.map(|found| (RejectClass::Item, found)).collect();
        }
        Outcome::Owed(reason) => {
            let delivery = task.delivery.clone().arrived();
            rest = after(&Task { delivery, ..task.clone() }, *reason, arrivals);
        }
        Outcome::Parts(parts) => {
            for part in parts {
                let sub = Task { delivery: task.delivery.only(&part.items), ..task.clone() };
                rest.add_part(&part.items, after(&sub, part.outcome, arrivals));
            }
        }
    }
    rest
}

impl Rest {
    fn again(&mut self, task: &Task) {
        self.tasks.push(task.clone());
    }

    /// Whether nothing was sent, because everything has to wait.
    fn says_nothing_of_the_far_side(&self) -> bool {
        let has_more = self.has_arrived || !self.tasks.is_empty() || !self.rejections.is_empty();
        !self.parked.is_empty() && self.problem.is_none() && !has_more
    }

    /// The far side broke on a task: again, then in halves. What cannot be halved is given up once it is known to work for others.
    fn fault(&mut self, task: &Task, arrivals: u64, reason: String, answer: String) {
        let broken_since = task.broken_since.unwrap_or(arrivals);
        let task =
            Task { faults: task.faults + 1, broken_since: Some(broken_since), ..task.clone() };
        let is_alone = task.delivery.len() < 2;
        if task.faults < FAULTS_MAX || is_alone && arrivals == broken_since {
            self.again(&task);
            self.problem = Some(Problem::Failed { after: None, reason });
            return;
        }
        self.halve(&task, RejectClass::Fault, reason, answer);
    }

    /// Tries the halves alone; what cannot be halved will never be taken.
    fn halve(&mut self, task: &Task, class: RejectClass, reason: String, answer: String) {
        let places: Vec<usize> = (0..task.delivery.len()).collect();
        match places.split_at(places.len() / 2) {
            ([], _) => self.rejections.push((class, Rejection { index: 0, reason, answer })),
            halves => {
                for half in [halves.0, halves.1] {
                    let delivery = task.delivery.only(half);
                    self.tasks.push(Task { delivery, faults: 0, ..task.clone() });
                }
            }
        }
    }

    /// Adds what a part leaves to do. Its places are places in the part unless the outcome was the sink's own, which speaks of the
    /// whole delivery.
    fn add_part(&mut self, items: &[usize], part: Rest) {
        self.tasks.extend(part.tasks);
        self.parked.extend(part.parked);
        for (class, mut rejection) in part.rejections {
            if items.len() == 1 {
                rejection.index = items.first().copied().unwrap_or(rejection.index);
            }
            self.rejections.push((class, rejection));
        }
        self.problem = self.problem.take().or(part.problem);
        self.too_large = self.too_large.into_iter().chain(part.too_large).min();
        self.left_out += part.left_out;
        self.has_arrived |= part.has_arrived;
    }
}
