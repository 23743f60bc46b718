//! What can be seen of a lane from outside, while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use crate::feed::{Fill, Undecided};
use crate::journal::{AppendError, Cursor, Journal};
use crate::rules::Rules;
use crate::sinks::{Delivery, RejectClass, TraceUrl};
use crate::support::clock;
use crate::support::lock::lock;

/// A hold waits for a person, so its reason stays in sight of whoever looks at the last few lines of a log.
const TROUBLE_SAID_EVERY: Duration = Duration::from_mins(1);

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LaneState {
    /// Delivering, or waiting for something to deliver.
    #[default]
    Running,
    /// The last attempt failed; it is tried again.
    Retrying,
    /// The sink cannot work as configured; nothing is lost, it is tried again slowly.
    Holding,
    /// The lane ended because the daemon stops.
    Drained,
}

impl LaneState {
    /// The state's name in `/status` and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Holding => "holding",
            Self::Drained => "drained",
        }
    }
}

/// The figures of one lane. Items are spans and trace objects.
#[derive(Debug, Default)]
pub struct LaneStatus {
    /// The sink's name in the configuration.
    pub sink: String,
    /// The sink's kind.
    pub kind: &'static str,
    /// Deliveries handed over.
    pub deliveries: AtomicU64,
    /// Attempts that failed and were tried again.
    pub retries: AtomicU64,
    /// Of these, how often the backend asked for less.
    pub throttles: AtomicU64,
    /// Of these, how often the sink could not work as configured.
    pub holds: AtomicU64,
    /// Items of deliveries that arrived, which the backend left out without saying which.
    pub left_out: AtomicU64,
    /// Items that an operator replayed.
    pub replayed: AtomicU64,
    /// How many deliveries may be at the sink at once, as it is now.
    pub concurrency: AtomicUsize,
    /// Whether only one attempt is made at a time, because none works.
    pub is_breaker_open: AtomicBool,
    /// The most bytes that are sent in one go, as learned from refusals; 0 where none is known.
    pub learned_bytes_max: AtomicUsize,
    /// Deliveries in flight.
    pub in_flight: AtomicU64,
    /// Items that cannot go yet for a reason of their own, and are put aside so that others can.
    pub deferred: AtomicU64,
    /// When the oldest item that is not settled was received, in nanoseconds since 1970; 0 when nothing is pending.
    pub oldest_received_at_ns: AtomicU64,
    /// Items of which the journal's count and the lane's differ.
    pub miscounted: AtomicU64,
    /// How often our own code panicked in the lane or its sink.
    pub panics: AtomicU64,
    dead_letters: [AtomicU64; RejectClass::ALL.len()],
    /// Roots that were made for traces without one. They are no items that were accepted.
    pub roots: AtomicU64,
    /// Roots that the sink would not take. Nothing was lost with them: what a root says, its spans have said.
    pub roots_rejected: AtomicU64,
    /// Spans that were sent once more, because it became known that what they were sent with was wrong.
    pub amended: AtomicU64,
    /// Spans that were to be, and that the sink would not take again or the journal has no longer.
    pub unamended: AtomicU64,
    /// What is done to items before the sink gets them, and how often that was.
    pub rules: Arc<Rules>,
    /// Where a browser shows a trace that the sink has.
    pub trace_url: Option<TraceUrl>,
    /// How long items were on their way, in seconds.
    pub latency: Latency,
    /// See [`Sink::gathers`](crate::sinks::Sink::gathers).
    pub gathers: bool,
    condition: Mutex<Condition>,
}

/// How long it was from when a request was received until its items were delivered, in seconds: once for each request in each delivery.
/// It is acknowledged a sync after it was received, and only the latter is in the journal. Clones share it.
#[derive(Debug, Clone)]
pub struct Latency(pub Histogram);

impl Default for Latency {
    fn default() -> Self {
        // From 5 ms to three quarters of an hour, which is an outage.
        Self(Histogram::new(exponential_buckets(0.005, 2.0, 20)))
    }
}

#[derive(Debug, Clone, Default)]
struct Condition {
    state: LaneState,
    problem: Option<String>,
    /// The trouble that was last said in the log, and when.
    said: Option<(LaneState, Instant)>,
    /// Whether that trouble is not known to be over.
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
    /// The status of a lane that starts at this cursor, without rules.
    pub fn new(sink: String, kind: &'static str, cursor: Cursor) -> Self {
        Self {
            sink,
            kind,
            condition: Mutex::new(Condition { cursor, ..Condition::default() }),
            ..Self::default()
        }
    }

    /// How the lane is, and what its sink said last when it is not well.
    pub fn state(&self) -> (LaneState, Option<String>) {
        let condition = self.lock();
        (condition.state, condition.problem.clone())
    }

    /// What is settled.
    pub fn cursor(&self) -> Cursor {
        self.lock().cursor.clone()
    }

    /// What is settled, and of a sink that gathers only what a checkpoint has made durable.
    pub fn safe<P>(&self, journal: &Journal<P>) -> Cursor {
        let saved = self.gathers.then(|| journal.cursor(&self.sink)).flatten();
        saved.unwrap_or_else(|| self.cursor())
    }

    /// What became of everything that is settled. What an operator had delivered or dropped since it became a dead letter, or
    /// gave way to newer ones, is no dead letter any more.
    pub fn settled(cursor: &Cursor, resolved: Resolved) -> Settled {
        let settled = cursor.mark.items.saturating_sub(cursor.joined);
        // After a crash an item can have two dead letters, and both be resolved.
        let dead_lettered = cursor.dead_lettered.saturating_sub(resolved.items());
        let lost = resolved.dropped + resolved.evicted;
        let dropped = cursor.dropped + lost.min(cursor.dead_lettered - dead_lettered);
        let filtered = cursor.filtered;
        let delivered = settled.saturating_sub(dead_lettered + dropped + filtered);
        Settled { delivered, dead_lettered, filtered, dropped }
    }

    /// How full the lane's table of traces is; `None` where the sink does not want to know of traces.
    pub fn traces(&self) -> Option<Fill> {
        self.lock().traces
    }

    /// Items that arrived at the sink since it joined.
    pub fn delivered(&self) -> u64 {
        Self::settled(&self.cursor(), Resolved::default()).delivered
    }

    /// Items that became dead letters since the start, by reason.
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

    /// Sets the state; returns whether that is worth a line in the log. A sink that now takes things and now does not is mentioned
    /// once a minute, and so is a hold for as long as it lasts.
    pub(super) fn set_state(&self, state: LaneState, problem: Option<String>) -> bool {
        let mut condition = self.lock();
        let is_news = condition.is_news(state);
        condition.state = state;
        condition.problem = problem;
        is_news
    }

    /// Says that the sink does not take things now, where that is news.
    pub(super) fn troubled(&self, state: LaneState, reason: &str) {
        if self.set_state(state, Some(reason.to_owned())) {
            let (sink, state) = (&self.sink, state.as_str());
            warn!(sink, state, reason, "the sink does not accept spans; nothing is lost");
        }
    }

    /// Says that dead letters cannot be kept: what is to become one waits.
    pub(super) fn no_dead_letters(&self, problem: &AppendError) {
        self.troubled(LaneState::Holding, &format!("dead letters cannot be kept: {problem}"));
    }

    /// What degrades health although the sink works: what the sink says, and that our own code has panicked.
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

    /// How many traces are remembered for rules that decide of traces, and how many were kept without a decision; `None` without such.
    pub fn decisions(&self) -> Option<(usize, Undecided)> {
        self.lock().decisions
    }

    pub(super) fn show_decisions(&self, figures: Option<(usize, Undecided)>) {
        if figures.is_some() {
            self.lock().decisions = figures;
        }
    }

    pub(super) fn set_traces(&self, fill: Fill) {
        self.lock().traces = Some(fill);
    }

    /// Changes the cursor, which only `commit.rs` does.
    pub(super) fn with_cursor<T>(&self, change: impl FnOnce(&mut Cursor) -> T) -> T {
        change(&mut self.lock().cursor)
    }

    /// Counts a delivery as being at the sink until the answer is dropped.
    pub(super) fn one_in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    /// Takes the time of what has just been delivered for the first time.
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

/// What became of dead letters of one sink, or of the quarantine, since its first day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resolved {
    /// Items that were delivered after all.
    pub delivered: u64,
    /// Items that an operator gave up.
    pub dropped: u64,
    /// Items that gave way to newer ones, because the store was full.
    #[serde(default)]
    pub evicted: u64,
}

impl Resolved {
    /// All of them.
    pub fn items(&self) -> u64 {
        self.delivered + self.dropped + self.evicted
    }
}

impl Settled {
    /// All of them.
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

/// What became of a sink's items. They add up to all that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// They arrived, some perhaps only when they were replayed.
    pub delivered: u64,
    /// They are dead letters.
    pub dead_lettered: u64,
    /// A rule left them out.
    pub filtered: u64,
    /// They were given up, because the journal or the dead letters were full or by an operator, or could not be read back.
    pub dropped: u64,
}

/// A delivery at the sink.
pub(super) struct InFlight<'a>(&'a LaneStatus);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
