//! One attempt to hand something over, and what its report leaves to do. One policy for all sinks.

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
use crate::sinks::{
    Deferral, Delivery, Pace, Refusal, RejectClass, Report, Sink, Verdict, Verdicts,
};
use crate::span::Span;

/// Attempts after which a backend that breaks (500) on a delivery is tried with halves of it. One item alone is given up after as
/// many, but only if something else arrived since the first: where nothing does, the backend is at fault and not the item.
const FAULTS_MAX: u32 = 3;
/// A sink that answers nothing for so long hangs, as over a file system that is gone. HTTP sinks give up earlier by themselves.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What makes attempts for a lane.
#[derive(Clone)]
pub(super) struct Attempts {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) dead_letters: DeadLetters,
    pub(super) status: Arc<LaneStatus>,
    /// The wait before a dead letter is tried again that cannot be kept.
    pub(super) hold_probe: Duration,
}

/// What came of an attempt.
pub(super) struct Ended {
    /// What it was made for, without the task.
    pub(super) work: Work,
    /// What was handed over.
    pub(super) task: Task,
    /// What the report leaves to do.
    pub(super) rest: Rest,
    /// What the backend wants of whatever comes next.
    pub(super) pace: Pace,
    /// When it began.
    pub(super) began: Instant,
    /// Whether the sink was asked at all.
    pub(super) was_asked: bool,
}

/// What a report leaves to do.
#[derive(Default)]
pub(super) struct Rest {
    /// What is to be sent again, in order.
    pub(super) tasks: Vec<Task>,
    /// What cannot go yet, and what it waits for.
    pub(super) deferred: Vec<(Task, Wait)>,
    /// What will never be taken, by its place.
    pub(super) refused: Vec<(usize, Arc<Refusal>)>,
    /// The places of what arrived.
    pub(super) arrived: Vec<usize>,
    /// Bytes of what was too large.
    pub(super) too_large: Option<usize>,
    /// Why something is deferred.
    pub(super) deferral_reason: Option<String>,
}

impl Attempts {
    /// Hands a task over, and makes dead letters of what will never be taken. It waits for as long as it takes: the caller drops it to
    /// give up. `arrivals` says how much had arrived before.
    pub(super) async fn attempt(self, work: Work, task: Task, arrivals: u64) -> Ended {
        let began = Instant::now();
        let Report { verdicts, pace, omitted } = self.hand_over(&task.delivery).await;
        let rest = sort(&task, &verdicts, arrivals);
        if let Some(omitted) = omitted {
            self.status.left_out.fetch_add(omitted.items, Ordering::Relaxed);
            // Nothing can be set aside, because nobody says which they are; the backend has counted them.
            let (sink, items, reason) = (&self.status.sink, omitted.items, omitted.reason);
            warn!(sink, items, reason, "the backend left out items without saying which");
        }
        self.refused(&work.purpose, &task.delivery, &rest.refused).await;
        Ended { work, task, rest, pace, began, was_asked: true }
    }

    /// Makes dead letters of what has waited for a key for as long as there was room.
    pub(super) async fn give_up(self, mut work: Work, deferral: Arc<Deferral>) -> Ended {
        let began = Instant::now();
        let task = work.tasks.pop_front().unwrap_or_default();
        let reason = format!("no room to wait any longer: {}", deferral.reason);
        let class = RejectClass::Deferred;
        let refusal = Arc::new(Refusal { class, reason, answer: String::new() });
        let all = 0..task.delivery.len();
        let refused = all.map(|place| (place, Arc::clone(&refusal))).collect();
        let rest = Rest { refused, ..Rest::default() };
        self.refused(&work.purpose, &task.delivery, &rest.refused).await;
        Ended { work, task, rest, pace: Pace::Go, began, was_asked: false }
    }

    async fn refused(
        &self,
        purpose: &Purpose,
        delivery: &Delivery,
        refused: &[(usize, Arc<Refusal>)],
    ) {
        match purpose {
            Purpose::Journal => self.set_aside(delivery, refused).await,
            Purpose::Amendment => self.leave(refused),
            Purpose::Replay(_) => {}
        }
    }

    /// A sink that does not answer for long is said, since nothing else shows that it hangs; one that panics is taken to refuse what
    /// it was given.
    pub(super) async fn hand_over(&self, delivery: &Delivery) -> Report {
        let began = Instant::now();
        let _in_flight = self.status.one_in_flight();
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

    /// Keeps dead letters. While they cannot be kept (a full disk), their items wait.
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
        // Roots that we made were never accepted: they are no dead letters, and not counted as such.
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

/// Whether an item is a root that we made.
pub(super) fn is_root(delivery: &Delivery, place: usize) -> bool {
    delivery.item(place).is_some_and(|item| item.as_span().is_some_and(Span::is_synthetic))
}

/// The delivery in parts of at most so many bytes, or of one item where that alone has more. The order stays.
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

/// What verdicts leave to do, when so much had arrived before. Pure.
fn sort(task: &Task, verdicts: &Verdicts, arrivals: u64) -> Rest {
    let mut rest = Rest::default();
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
                    // Of one item alone it is not known whether a smaller one would have been taken in its place.
                    let bytes = again.delivery.bytes();
                    rest.too_large = Some(rest.too_large.map_or(bytes, |known| known.min(bytes)));
                }
                rest.halve(&again, &places, refusal);
            }
            Verdict::Defer(deferral) => {
                rest.deferral_reason = Some(deferral.reason.clone());
                let delivery = again.delivery.alone();
                rest.deferred.push((Task { delivery, ..again }, Wait::Key(Arc::clone(deferral))));
            }
        }
    }
    rest
}

impl Rest {
    /// The backend broke on a task: again, then in halves. One item alone is deferred, and is given up once others have arrived.
    fn fault(&mut self, task: Task, places: &[usize], refusal: &Arc<Refusal>, arrivals: u64) {
        let broken_since = task.broken_since.unwrap_or(arrivals);
        let task = Task { faults: task.faults + 1, broken_since: Some(broken_since), ..task };
        if places.len() > 1 && task.faults < FAULTS_MAX {
            self.tasks.push(task);
        } else if places.len() > 1 || task.faults >= FAULTS_MAX && arrivals > broken_since {
            self.halve(&task, places, refusal);
        } else {
            let delivery = task.delivery.clone().alone();
            self.deferred.push((Task { delivery, ..task }, Wait::Others(arrivals)));
        }
    }

    /// Tries the halves alone; what cannot be halved will never be taken.
    fn halve(&mut self, task: &Task, places: &[usize], refusal: &Arc<Refusal>) {
        if let [place] = places {
            self.refused.push((*place, Arc::clone(refusal)));
            return;
        }
        let all: Vec<usize> = (0..places.len()).collect();
        let halves = all.split_at(all.len() / 2);
        for half in [halves.0, halves.1] {
            let delivery = task.delivery.only(half);
            // What the backend broke on often enough as a whole needs no more than once in parts: each time costs a longer wait.
            let faults = if half.len() > 1 { task.faults.saturating_sub(1) } else { 0 };
            self.tasks.push(Task { delivery, faults, ..task.clone() });
        }
    }
}
