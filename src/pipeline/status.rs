//! The state of a running lane, visible from outside.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use crate::feed::{Fill, Undecided};
use crate::journal::{AppendError, Cursor, Journal, Mark};
use crate::rules::Rules;
use crate::sinks::{Delivery, RejectClass, TraceUrl};
use crate::span::named;
use crate::support::clock;
use crate::support::lock::lock;

/// A hold waits for a person, so its reason is repeated often enough to appear in the last lines of a log.
const TROUBLE_SAID_EVERY: Duration = Duration::from_mins(1);

named! {
    /// The state of a lane, named as in `/status` and logs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    LaneState {
        /// Delivering, or waiting for something to deliver.
        #[default]
        Running "running",
        /// The last attempt failed and is retried.
        Retrying "retrying",
        /// The sink cannot work as configured; nothing is lost, and the lane retries slowly.
        Holding "holding",
        /// The lane ended because the daemon stops.
        Drained "drained",
    }
}

/// The counters of one lane. Items are spans and trace objects.
#[derive(Debug, Default)]
pub struct LaneStatus {
    /// The sink's name in the configuration.
    pub sink: String,
    /// The sink's kind.
    pub kind: &'static str,
    /// Deliveries passed to the sink.
    pub deliveries: AtomicU64,
    /// Attempts that failed and were retried.
    pub retries: AtomicU64,
    /// Of these, those after which the backend asked for less.
    pub throttles: AtomicU64,
    /// Of these, those after which the sink could not work as configured.
    pub holds: AtomicU64,
    /// Items that the backend left out of successful deliveries without identifying them.
    pub left_out: AtomicU64,
    /// Items that an operator replayed.
    pub replayed: AtomicU64,
    /// Number of deliveries that the sink may have at the same time.
    pub concurrency: AtomicUsize,
    /// Whether the breaker allows only one attempt at a time, because none succeeds.
    pub is_breaker_open: AtomicBool,
    /// The size limit of a delivery in bytes, learned from rejections; 0 if unknown.
    pub learned_bytes_max: AtomicUsize,
    /// Deliveries in flight.
    pub in_flight: AtomicU64,
    /// Deferred items: they cannot be sent yet for a specific reason, and others overtake them.
    pub deferred: AtomicU64,
    /// When the oldest unsettled item was received, in nanoseconds since 1970; 0 if nothing is pending.
    pub oldest_received_at_ns: AtomicU64,
    /// Difference in items between the journal's count and the lane's.
    pub miscounted: AtomicU64,
    /// Number of panics in the lane or its sink.
    pub panics: AtomicU64,
    dead_letters: [AtomicU64; RejectClass::ALL.len()],
    /// Roots created for traces without one. They are not accepted items.
    pub roots: AtomicU64,
    /// Roots that the sink rejected. No data is lost with them: a root only repeats what its spans have.
    pub roots_rejected: AtomicU64,
    /// Spans that were sent again, because later spans showed that their context was wrong.
    pub amended: AtomicU64,
    /// Amendments that the sink rejected or that are no longer in the journal.
    pub unamended: AtomicU64,
    /// The rules for this sink, with their counters.
    pub rules: Arc<Rules>,
    /// The address of a trace in the sink.
    pub trace_url: Option<TraceUrl>,
    /// Time until delivery, in seconds.
    pub latency: Latency,
    /// See [`Sink::gathers`](crate::sinks::Sink::gathers).
    pub gathers: bool,
    condition: Mutex<Condition>,
}

/// Time from receiving a request until its items are delivered, in seconds: one observation per request in each delivery. The
/// acknowledgement follows the receipt by a sync; only the time of receipt is in the journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Latency(pub Histogram);

impl Default for Latency {
    fn default() -> Self {
        // From 5 ms to about 45 minutes, which is an outage.
        Self(Histogram::new(exponential_buckets(0.005, 2.0, 20)))
    }
}

#[derive(Debug, Clone, Default)]
struct Condition {
    state: LaneState,
    problem: Option<String>,
    /// The problem that was logged last, and when.
    said: Option<(LaneState, Instant)>,
    /// Whether that problem may still persist.
    is_troubled: bool,
    cursor: Cursor,
    traces: Option<Fill>,
    decisions: Option<(usize, Undecided)>,
}

impl Condition {
    fn is_news(&mut self, state: LaneState) -> bool {
        if state == LaneState::Running {
            return std::mem::take(&mut self.is_troubled);
        }
        if !matches!(state, LaneState::Retrying | LaneState::Holding) {
            return self.state != state;
        }
        let is_due = self.said.is_none_or(|(_, at)| TROUBLE_SAID_EVERY <= at.elapsed());
        let is_hold = state == LaneState::Holding;
        let is_worse = is_hold && self.said.is_none_or(|(said, _)| said != LaneState::Holding);
        let is_news = is_worse || is_due && (is_hold || !self.is_troubled);
        if is_news {
            self.said = Some((state, Instant::now()));
            self.is_troubled = true;
        }
        is_news
    }
}

impl LaneStatus {
    /// Creates the status of a lane that starts at this cursor, without rules.
    pub fn new(sink: String, kind: &'static str, cursor: Cursor) -> Self {
        Self {
            sink,
            kind,
            condition: Mutex::new(Condition { cursor, ..Condition::default() }),
            ..Self::default()
        }
    }

    /// Returns the lane's state, and its sink's last message if it has a problem.
    pub fn state(&self) -> (LaneState, Option<String>) {
        let condition = self.lock();
        (condition.state, condition.problem.clone())
    }

    /// Returns the cursor: everything before it is settled.
    pub fn cursor(&self) -> Cursor {
        self.lock().cursor.clone()
    }

    /// Returns the cursor; for a sink that gathers, the saved one, which a checkpoint has made durable.
    pub fn safe<P>(&self, journal: &Journal<P>) -> Cursor {
        let saved = self.gathers.then(|| journal.cursor(&self.sink)).flatten();
        saved.unwrap_or_else(|| self.cursor())
    }

    /// Computes the outcomes of all settled items. Dead letters that an operator has since delivered or discarded, or that were evicted for
    /// newer ones, no longer count as dead letters.
    pub fn settled(cursor: &Cursor, resolved: Resolved) -> OutcomeCounts {
        let settled = cursor.mark.items.saturating_sub(cursor.joined);
        // After a crash, an item may have two dead letters, and both may be resolved.
        let dead_lettered = cursor.dead_lettered.saturating_sub(resolved.items());
        let lost = resolved.dropped + resolved.evicted;
        let dropped = cursor.dropped + lost.min(cursor.dead_lettered - dead_lettered);
        let filtered = cursor.filtered;
        let delivered = settled.saturating_sub(dead_lettered + dropped + filtered);
        OutcomeCounts { delivered, dead_lettered, filtered, dropped }
    }

    /// Returns the number of items accepted for the sink, and of items and bytes that are not settled. The cursor can briefly be ahead of the
    /// journal's end, because the lane gets a record before the end moves.
    pub fn unsettled(cursor: &Cursor, end: Mark) -> (u64, u64, u64) {
        let (end, mark) = (end.max(cursor.mark), cursor.mark);
        let accepted = end.items.saturating_sub(cursor.joined);
        (accepted, end.items - mark.items, end.position.0 - mark.position.0)
    }

    /// Returns the fill of the lane's table of traces; `None` if the sink needs no trace contexts.
    pub fn traces(&self) -> Option<Fill> {
        self.lock().traces
    }

    /// Returns the number of items that became dead letters since the start, by reason.
    pub fn dead_letters(&self) -> impl Iterator<Item = (RejectClass, u64)> {
        let counts = self.dead_letters.iter().map(|count| count.load(Ordering::Relaxed));
        RejectClass::ALL.into_iter().zip(counts)
    }

    pub(super) fn count_dead_letters(&self, class: RejectClass, items: u64) {
        let mut counters = RejectClass::ALL.iter().zip(&self.dead_letters);
        if let Some((_, counter)) = counters.find(|(known, _)| **known == class) {
            counter.fetch_add(items, Ordering::Relaxed);
        }
    }

    /// Sets the state; returns whether to log the change. A sink that alternates between working and failing is logged once a minute, and
    /// so is a hold for as long as it lasts.
    pub(super) fn set_state(&self, state: LaneState, problem: Option<String>) -> bool {
        let mut condition = self.lock();
        let is_news = condition.is_news(state);
        condition.state = state;
        condition.problem = problem;
        is_news
    }

    /// Records that the sink does not accept items, and logs it if that is new.
    pub(super) fn troubled(&self, state: LaneState, reason: &str) {
        if self.set_state(state, Some(reason.to_owned())) {
            let (sink, state) = (&self.sink, state.as_str());
            warn!(sink, state, reason, "the sink does not accept spans; nothing is lost");
        }
    }

    /// Records that dead letters cannot be stored, so that their items wait.
    pub(super) fn no_dead_letters(&self, problem: &AppendError) {
        self.troubled(LaneState::Holding, &format!("dead letters cannot be kept: {problem}"));
    }

    /// Returns what degrades health although the sink works: the sink's notice, wrong counts, or panics.
    pub(super) fn notice(&self, of_sink: Option<String>) -> Option<String> {
        let count = |counter: &AtomicU64, before: &str, after: &str| {
            let count = counter.load(Ordering::Relaxed);
            (count > 0).then(|| format!("{before}{count}{after}"))
        };
        let differ = " items are counted differently from what was accepted; see the log";
        let panicked = " times; see the log and the dead letters";
        of_sink
            .or_else(|| count(&self.miscounted, "", differ))
            .or_else(|| count(&self.panics, "our own code panicked ", panicked))
    }

    /// Returns the number of traces remembered for rules on whole traces, and of those kept without a decision; `None` without such rules.
    pub fn decisions(&self) -> Option<(usize, Undecided)> {
        self.lock().decisions
    }

    pub(super) fn show_decisions(&self, figures: Option<(usize, Undecided)>) {
        self.lock().decisions = figures;
    }

    pub(super) fn set_traces(&self, fill: Fill) {
        self.lock().traces = Some(fill);
    }

    /// Changes the cursor, which only `commit.rs` does.
    pub(super) fn with_cursor<T>(&self, change: impl FnOnce(&mut Cursor) -> T) -> T {
        change(&mut self.lock().cursor)
    }

    /// Observes the latency of items that were delivered for the first time.
    pub(super) fn delivered_now(&self, delivery: &Delivery) {
        let now_ns = clock::unix_now_ns();
        for source in delivery.sources().filter(|source| source.received_at_ns != 0) {
            let nanos = now_ns.saturating_sub(source.received_at_ns);
            self.latency.0.observe(Duration::from_nanos(nanos).as_secs_f64());
        }
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Condition> {
        lock(&self.condition)
    }
}

/// Resolved dead letters of one sink, or of the quarantine, since its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resolved {
    /// Items that were delivered later.
    pub delivered: u64,
    /// Items that an operator discarded.
    pub dropped: u64,
    /// Items that were evicted because the store was full.
    #[serde(default)]
    pub evicted: u64,
}

impl Resolved {
    /// Returns the number of all resolved items.
    pub fn items(&self) -> u64 {
        self.delivered + self.dropped + self.evicted
    }
}

impl OutcomeCounts {
    /// Returns the number of all settled items.
    pub(super) fn items(self) -> u64 {
        self.delivered + self.dead_lettered + self.filtered + self.dropped
    }

    pub(super) fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.dead_lettered += other.dead_lettered;
        self.filtered += other.filtered;
        self.dropped += other.dropped;
    }
}

/// Outcomes of a sink's items. Together they are all settled items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutcomeCounts {
    /// Delivered, some perhaps only by a replay.
    pub delivered: u64,
    /// Dead letters.
    pub dead_lettered: u64,
    /// Removed by a rule.
    pub filtered: u64,
    /// Lost because the journal or the dead-letter store was full, discarded by an operator, or unreadable.
    pub dropped: u64,
}
