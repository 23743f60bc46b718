//! One attempt of a delivery, and the remaining work according to its report. All sinks share this policy.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, warn};

use super::DeadLetters;
use super::status::{LaneState, LaneStatus};
use super::window::{Purpose, Task, Wait, Work};
use crate::sinks::{Delivery, Pace, Refusal, RejectClass, Report, Sink, Verdict, Verdicts};
use crate::span::Span;

/// Number of attempts after which a delivery that makes a backend fail (500) is halved. A single item is given up after as many attempts,
/// but only if something else was delivered since the first: otherwise the backend is at fault, not the item.
const FAULTS_MAX: u32 = 3;
/// A sink without an answer for this long hangs, for example over an unreachable file system. HTTP sinks time out earlier.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Makes attempts for a lane.
#[derive(Clone)]
pub(super) struct Attempts {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) dead_letters: DeadLetters,
    pub(super) status: Arc<LaneStatus>,
    /// The wait before retrying to store a dead letter that could not be kept.
    pub(super) hold_probe: Duration,
}

/// The outcome of an attempt.
pub(super) struct Ended {
    /// The work it belongs to, without the task.
    pub(super) work: Work,
    /// The task that was attempted.
    pub(super) task: Task,
    /// The work that the report leaves.
    pub(super) rest: Remaining,
    /// The pace for the next deliveries.
    pub(super) pace: Pace,
    /// Start of the attempt.
    pub(super) began: Instant,
    /// Whether the sink was called.
    pub(super) was_asked: bool,
}

/// The work that a report leaves.
#[derive(Default)]
pub(super) struct Remaining {
    /// Tasks to send again, in order.
    pub(super) tasks: Vec<Task>,
    /// Tasks that are deferred, and what each waits for.
    pub(super) deferred: Vec<(Task, Wait)>,
    /// Rejected items, by index.
    pub(super) refused: Vec<(usize, Arc<Refusal>)>,
    /// Indexes of the delivered items.
    pub(super) arrived: Vec<usize>,
    /// Size in bytes of the smallest part that was too large.
    pub(super) too_large: Option<usize>,
    /// The reason of a deferral.
    pub(super) deferral_reason: Option<String>,
}

impl Attempts {
    /// Delivers a task, unless its report is known, and turns rejected items into dead letters. This waits without limit; the caller drops
    /// it to cancel. `arrivals` is the lane's number of attempts that delivered something so far.
    pub(super) async fn attempt(
        self,
        work: Work,
        task: Task,
        arrivals: u64,
        known: Option<Report>,
    ) -> Ended {
        let (began, was_asked) = (Instant::now(), known.is_none());
        let Report { verdicts, pace, omitted } = match known {
            Some(report) => report,
            None => self.hand_over(&task.delivery).await,
        };
        let rest = sort(&task, &verdicts, arrivals);
        if let Some(omitted) = omitted {
            self.status.left_out.fetch_add(omitted.items, Ordering::Relaxed);
            // No dead letters can be made, because the backend does not identify these items; it has only counted them.
            let (sink, items, reason) = (&self.status.sink, omitted.items, omitted.reason);
            warn!(sink, items, reason, "the backend left out items without saying which");
        }
        match work.purpose {
            Purpose::Journal => self.set_aside(&task.delivery, &rest.refused).await,
            Purpose::Amendment => self.leave(&rest.refused),
            Purpose::Replay(_) => {}
        }
        Ended { work, task, rest, pace, began, was_asked }
    }

    /// Calls the sink. A long silence is logged, because nothing else shows that the sink hangs. A panic counts as a rejection of the
    /// delivery.
    pub(super) async fn hand_over(&self, delivery: &Delivery) -> Report {
        let began = Instant::now();
        let deliver = async { self.sink.deliver(delivery).await };
        let mut answer = Box::pin(AssertUnwindSafe(deliver).catch_unwind());
        loop {
            match timeout(SILENCE_MAX, &mut answer).await {
                Ok(Ok(report)) => return report,
                Ok(Err(_)) => {
                    let (sink, items) = (&self.status.sink, delivery.len());
                    error!(
                        sink,
                        items,
                        "the sink panicked on a delivery; the item that causes it becomes a dead letter"
                    );
                    LaneStatus::count(&self.status.panics);
                    let reason = "the sink panicked".to_owned();
                    return Report::split(RejectClass::Panic, reason, String::new());
                }
                Err(_) => {
                    let seconds = began.elapsed().as_secs();
                    let reason = format!("the sink has not answered for {seconds} s");
                    self.status.troubled(LaneState::Retrying, &reason);
                }
            }
        }
    }

    /// Stores dead letters. While they cannot be stored (a full disk), their items wait.
    async fn set_aside(&self, delivery: &Delivery, refused: &[(usize, Arc<Refusal>)]) {
        let Some((_, first)) = refused.first() else { return };
        let sink = &self.status.sink;
        let count = loop {
            match self.dead_letters.keep(sink, delivery, refused).await {
                Ok(count) => break count,
                Err(problem) => self.status.no_dead_letters(&problem),
            }
            sleep(self.hold_probe).await;
        };
        // Synthetic roots were never accepted: they do not become dead letters and are not counted as such.
        for (place, refusal) in refused {
            if !is_root(delivery, *place) {
                self.status.count_dead_letters(refusal.class, 1);
            }
        }
        let reason = &first.reason;
        if count > 0 {
            error!(sink, count, reason, "items were rejected and are now dead letters");
        }
        let roots = (refused.len() as u64).saturating_sub(count);
        if roots > 0 {
            self.status.roots_rejected.fetch_add(roots, Ordering::Relaxed);
            warn!(sink, roots, reason, "roots of traces were rejected");
        }
    }

    fn leave(&self, refused: &[(usize, Arc<Refusal>)]) {
        let Some((_, first)) = refused.first() else { return };
        let count = refused.len() as u64;
        self.status.unamended.fetch_add(count, Ordering::Relaxed);
        let (sink, reason) = (&self.status.sink, &first.reason);
        warn!(
            sink,
            count, reason, "spans could not be sent again with what became known about them"
        );
    }
}

/// Returns whether an item is a synthetic root.
pub(super) fn is_root(delivery: &Delivery, place: usize) -> bool {
    delivery.item(place).is_some_and(|item| item.as_span().is_some_and(Span::is_synthetic))
}

/// Splits a delivery into parts of at most `bytes_max` bytes, or of a single larger item. Keeps the order.
pub(super) fn in_parts(delivery: &Delivery, bytes_max: usize) -> Vec<Delivery> {
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

/// Determines the remaining work from the verdicts, given the `arrivals` before. Pure.
fn sort(task: &Task, verdicts: &Verdicts, arrivals: u64) -> Remaining {
    let mut rest = Remaining::default();
    let mut groups: Vec<(&Verdict, Vec<usize>)> = Vec::new();
    for place in 0..task.delivery.len() {
        match verdicts.of(place) {
            Verdict::Delivered => rest.arrived.push(place),
            Verdict::Reject(refusal) => rest.refused.push((place, Arc::clone(refusal))),
            verdict => match groups.iter_mut().rfind(|(known, _)| *known == verdict) {
                Some((_, places)) => places.push(place),
                None => groups.push((verdict, vec![place])),
            },
        }
    }
    for (verdict, places) in groups {
        let again = Task { delivery: task.delivery.only(&places), ..task.clone() };
        match verdict {
            Verdict::Delivered | Verdict::Reject(_) => {}
            Verdict::Retry => rest.tasks.push(again),
            Verdict::Fault(refusal) => rest.fault(again, &places, refusal, arrivals),
            Verdict::Split(refusal) => {
                if refusal.class == RejectClass::TooLarge && places.len() > 1 {
                    // A single item does not reveal the limit: a smaller item in its place might have been rejected too.
                    let bytes = again.delivery.bytes();
                    rest.too_large = Some(rest.too_large.map_or(bytes, |known| known.min(bytes)));
                }
                rest.halve(&again, &places, refusal);
            }
            Verdict::Defer(deferral) => {
                rest.deferral_reason = Some(deferral.reason.clone());
                rest.defer(again, Wait::Key(Arc::clone(deferral)));
            }
        }
    }
    rest
}

impl Remaining {
    /// Retries a task on which the backend failed, then halves it. A single item is deferred, and given up once others are delivered.
    fn fault(&mut self, task: Task, places: &[usize], refusal: &Arc<Refusal>, arrivals: u64) {
        let broken_since = task.broken_since.unwrap_or(arrivals);
        let task = Task { faults: task.faults + 1, broken_since: Some(broken_since), ..task };
        if places.len() > 1 && task.faults < FAULTS_MAX {
            self.tasks.push(task);
        } else if places.len() > 1 || task.faults >= FAULTS_MAX && arrivals > broken_since {
            self.halve(&task, places, refusal);
        } else {
            self.defer(task, Wait::Others(arrivals));
        }
    }

    fn defer(&mut self, task: Task, wait: Wait) {
        self.deferred.push((Task { delivery: task.delivery.alone(), ..task }, wait));
    }

    /// Retries both halves separately; rejects what cannot be halved. If there are several traces, each is in one of the halves, which can
    /// then be attempted at the same time.
    fn halve(&mut self, task: &Task, places: &[usize], refusal: &Arc<Refusal>) {
        if let [place] = places {
            self.refused.push((*place, Arc::clone(refusal)));
            return;
        }
        let mut traces: Vec<_> = task.delivery.items().map(|(_, item)| item.trace_id()).collect();
        traces.sort_unstable();
        traces.dedup();
        let middle = traces.get(traces.len() / 2).copied();
        let mut parts = task.delivery.clone().partition(2, |trace| (Some(trace) >= middle).into());
        if parts.len() == 1 {
            let all: Vec<usize> = (0..places.len()).collect();
            let halves = all.split_at(all.len() / 2);
            parts = [halves.0, halves.1].map(|half| (0, task.delivery.only(half))).into();
        }
        for (_, delivery) in parts {
            // Halves of a delivery with enough faults need only one more fault, because every fault costs a longer wait.
            let faults = if delivery.len() > 1 { task.faults.saturating_sub(1) } else { 0 };
            self.tasks.push(Task { delivery, faults, ..task.clone() });
        }
    }
}
