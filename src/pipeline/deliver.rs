//! Delivers, however often it takes, until every item has arrived or is a dead letter. One policy for all sinks.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use super::breaker::Breaker;
use super::ledger::Ledger;
use super::limit::SizeLimit;
use super::status::{LaneState, LaneStatus};
use super::{DeadLetters, LaneEnd, LaneOptions};
use crate::sinks::{
    Deferral, Delivery, Omitted, Pace, Refusal, RejectClass, Report, Sink, Verdict, Verdicts,
};
use crate::span::Span;
use crate::support::backoff::Backoff;
use crate::support::stop::Stop;

/// Attempts after which a backend that breaks (500) on a delivery is tried with halves of it. One item alone is given up after as
/// many, but only if something else arrived since the first: where nothing does, the backend is at fault and not the item.
const FAULTS_MAX: u32 = 3;
/// A sink that answers nothing for so long hangs, as over a file system that is gone. HTTP sinks give up earlier by themselves.
const SILENCE_MAX: Duration = Duration::from_secs(10);

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
    /// Attempts in a row on which the backend broke.
    faults: u32,
    /// [`Learned::arrivals`] when it first broke on this, or on what this was cut from.
    broken_since: Option<u64>,
}

/// What a report leaves to do.
#[derive(Default)]
struct Rest {
    /// What is to be sent again, in order.
    tasks: Vec<Task>,
    /// What will never be taken, by its place.
    refused: Vec<(usize, Arc<Refusal>)>,
    /// What cannot go yet.
    deferred: Vec<Held>,
    /// Bytes of what was too large.
    too_large: Option<usize>,
    /// Items that arrived.
    arrived: usize,
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
            if self.ledger.owes_checkpoint() && !self.save_checkpoint().await {
                tasks.push(task);
                continue;
            }
            let began = Instant::now();
            let Report { verdicts, pace, omitted } = self.hand_over(&task.delivery).await;
            let rest = sort(&task, &verdicts, self.learned(|learned| learned.arrivals));
            self.learn(&rest, omitted);
            match &purpose {
                Purpose::Journal => {
                    delivered.dead_lettered +=
                        self.set_aside(&task.delivery, &rest.refused).await?;
                }
                Purpose::Amendment => {
                    delivered.given_up += rest.refused.len();
                    self.leave(&rest.refused);
                }
                Purpose::Errand(_) => {
                    delivered.reported.extend(reported(&task.delivery, &rest.refused));
                }
            }
            let was_sent = rest.deferred.is_empty() || rest.arrived > 0 || !rest.refused.is_empty();
            delivered.parked.extend(rest.deferred);
            // The first is tried first: what was cut stays in order.
            tasks.extend(rest.tasks.into_iter().rev());
            if was_sent || pace != Pace::Go {
                self.note(pace, rest.arrived > 0, began).await;
            } else {
                self.show_notice();
            }
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

    /// One attempt. A sink that does not answer for long is said, since nothing else shows that it hangs.
    async fn hand_over(&self, delivery: &Delivery) -> Report {
        let _in_flight = self.status.one_in_flight();
        let mut answer = self.sink.deliver(delivery);
        let began = Instant::now();
        loop {
            if let Ok(report) = timeout(SILENCE_MAX, &mut answer).await {
                return report;
            }
            self.say_silent(began);
        }
    }

    /// Saves the checkpoint that the sink waits for.
    async fn save_checkpoint(&self) -> bool {
        let began = Instant::now();
        let mut saving = pin!(self.ledger.save());
        let saved = loop {
            match timeout(SILENCE_MAX, &mut saving).await {
                Ok(saved) => break saved,
                Err(_) => self.say_silent(began),
            }
        };
        let Err(pace) = saved else { return true };
        self.note(pace, false, began).await;
        false
    }

    fn say_silent(&self, began: Instant) {
        let seconds = began.elapsed().as_secs();
        self.troubled(LaneState::Retrying, &format!("the sink has not answered for {seconds} s"));
    }

    fn learn(&self, rest: &Rest, omitted: Option<Omitted>) {
        if let Some(Omitted { items, reason }) = omitted {
            self.status.left_out.fetch_add(items, Ordering::Relaxed);
            // Nothing can be set aside, because nobody says which they are; the backend has counted them.
            warn!(
                sink = self.status.sink,
                items, reason, "the backend left out items of a delivery without saying which"
            );
        }
        let now = Instant::now().into_std();
        let bytes_max = self.learned(|learned| {
            learned.arrivals += u64::from(rest.arrived > 0);
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

    async fn note(&self, pace: Pace, has_arrived: bool, began: Instant) {
        let (began, now) = (began.into_std(), Instant::now().into_std());
        let (allowed, is_open) = self.learned(|Learned { breaker, .. }| {
            if has_arrived {
                breaker.progressed();
            }
            match &pace {
                Pace::Go => breaker.succeeded(),
                Pace::Slow { after, .. } => breaker.throttled(began, now, *after),
                Pace::Down { after, .. } => breaker.failed(began, now, *after),
                Pace::Hold { .. } => breaker.failed(began, now, None),
                Pace::Checkpoint => {}
            }
            (breaker.allowed(), breaker.is_open())
        });
        self.status.concurrency.store(allowed, Ordering::Relaxed);
        self.status.is_breaker_open.store(is_open, Ordering::Relaxed);
        let state = match pace {
            Pace::Go => {
                self.works.notify_waiters();
                if self.status.set_state(LaneState::Running, self.sink.notice()) {
                    info!(sink = self.status.sink, "the sink works again");
                }
                return;
            }
            Pace::Checkpoint => {
                self.ledger.owe_checkpoint();
                return;
            }
            Pace::Slow { .. } => {
                LaneStatus::count(&self.status.throttles);
                LaneState::Retrying
            }
            Pace::Down { .. } => LaneState::Retrying,
            Pace::Hold { .. } => {
                LaneStatus::count(&self.status.holds);
                LaneState::Holding
            }
        };
        LaneStatus::count(&self.status.retries);
        self.troubled(state, pace.reason().unwrap_or_default());
        if state == LaneState::Holding {
            sleep(self.hold_probe).await;
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
        refused: &[(usize, Arc<Refusal>)],
    ) -> Result<u64, LaneEnd> {
        let Some((_, first)) = refused.first() else { return Ok(0) };
        let sink = &self.status.sink;
        let count = self
            .dead_letters
            .keep(sink, delivery, refused)
            .await
            .map_err(LaneEnd::no_dead_letters)?;
        // Roots that we made were never accepted: they are no dead letters, and not counted as such.
        let items: Vec<_> = delivery.items().collect();
        for (place, refusal) in refused {
            let item = items.get(*place).and_then(|(_, item)| item.as_span());
            if !item.is_some_and(Span::is_synthetic) {
                self.status.count_dead_letters(refusal.class, 1);
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
        let roots = (refused.len() as u64).saturating_sub(count);
        if 0 < roots {
            self.status.roots_rejected.fetch_add(roots, Ordering::Relaxed);
            warn!(sink, roots, reason = first.reason, "roots of traces were rejected");
        }
        Ok(count)
    }

    fn leave(&self, refused: &[(usize, Arc<Refusal>)]) {
        let Some((_, first)) = refused.first() else { return };
        let count = refused.len() as u64;
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
    refused: &[(usize, Arc<Refusal>)],
) -> impl Iterator<Item = Reported> {
    refused.iter().filter_map(|(place, refusal)| {
        let batch = delivery.batch_of(*place)?;
        Some(Reported { batch, reason: refusal.reason.clone() })
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

/// What verdicts leave to do, when so many attempts made something arrive before. Pure.
fn sort(task: &Task, verdicts: &Verdicts, arrivals: u64) -> Rest {
    let mut rest = Rest::default();
    let mut groups: Vec<(&Verdict, Vec<usize>)> = Vec::new();
    for place in 0..task.delivery.len() {
        match verdicts.of(place) {
            Verdict::Delivered => rest.arrived += 1,
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
                let Deferral { key, reason } = Deferral::clone(deferral);
                let delivery = again.delivery.alone();
                rest.deferred.push(Held { delivery, waits_for: key, reason });
            }
        }
    }
    rest
}

impl Rest {
    /// The backend broke on a task: again, then in halves. What cannot be halved is given up once it is known to work for others.
    fn fault(&mut self, task: Task, places: &[usize], refusal: &Arc<Refusal>, arrivals: u64) {
        let broken_since = task.broken_since.unwrap_or(arrivals);
        let task = Task { faults: task.faults + 1, broken_since: Some(broken_since), ..task };
        let is_alone = places.len() < 2;
        if task.faults < FAULTS_MAX || is_alone && arrivals == broken_since {
            self.tasks.push(task);
        } else {
            self.halve(&task, places, refusal);
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
            self.tasks.push(Task { delivery, faults: 0, ..task.clone() });
        }
    }
}
