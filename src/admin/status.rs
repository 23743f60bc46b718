//! One look at the whole daemon, taken when it is asked for. The figures of a sink add up in every look:
//! `accepted = delivered + pending + dead_lettered + filtered + dropped`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::View;
use crate::journal::{Health, Mark};
use crate::pipeline::{LaneState, LaneStatus, Settled};
use crate::support::clock;
use crate::telemetry::NotUnderstood;

/// The daemon, as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The version of this binary.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Whether requests are taken.
    pub accepting: bool,
    /// The journal.
    pub journal: JournalView,
    /// What of the spans was not understood.
    pub understanding: NotUnderstood,
    /// The sinks, in the order of the configuration.
    pub sinks: Vec<SinkView>,
}

/// The journal, as it is now.
#[derive(Debug, Clone, Serialize)]
pub struct JournalView {
    /// `disk` or `memory`.
    pub mode: &'static str,
    /// `good`, `no_space`, `damaged` or `poisoned`.
    pub health: &'static str,
    /// More about it, when it is not good.
    pub problem: Option<String>,
    /// Bytes it takes.
    pub bytes: u64,
    /// Bytes it may take.
    pub bytes_max: u64,
    /// Items accepted since its first day.
    pub items: u64,
    /// Dead letters kept, over all sinks.
    pub dead_letters: u64,
    /// Items in the quarantine.
    pub quarantined: u64,
}

/// A sink, as it is now. Items are spans and trace objects, counted since the sink joined.
#[derive(Debug, Clone, Serialize)]
pub struct SinkView {
    /// Its name in the configuration.
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `running`, `retrying`, `holding` or `drained`.
    pub state: &'static str,
    /// What it said last, when it is not well.
    pub problem: Option<String>,
    /// Items accepted for it.
    pub accepted: u64,
    /// Items that arrived.
    pub delivered: u64,
    /// Items still to be delivered.
    pub pending: u64,
    /// Items it would not take, kept as dead letters. Those that were replayed or dropped since are among the delivered or dropped.
    pub dead_lettered: u64,
    /// Items that a rule left out.
    pub filtered: u64,
    /// Items given up: because the journal was full and the sink is configured so, or dead letters by an operator.
    pub dropped: u64,
    /// Bytes of the journal still to be delivered.
    pub pending_bytes: u64,
    /// Age of the oldest pending item, in seconds; 0 when nothing is pending.
    pub oldest_age_seconds: f64,
    /// Deliveries handed over.
    pub deliveries: u64,
    /// Attempts that failed and were tried again.
    pub retries: u64,
    /// Of these, how often the backend asked for less.
    pub throttles: u64,
    /// Of these, how often the sink could not work as configured.
    pub holds: u64,
    /// Items of deliveries that arrived, which the backend left out without saying which. They count as delivered.
    pub left_out: u64,
    /// Items that an operator had delivered again.
    pub replayed: u64,
    /// Items that became dead letters since the start, by why.
    pub dead_letters_by_reason: BTreeMap<&'static str, u64>,
    /// How many deliveries may be at the sink at once.
    pub concurrency: usize,
    /// Whether only one attempt is made at a time, because none works.
    pub breaker_open: bool,
    /// The most bytes that are sent in one go, as learned from refusals; 0 where none is known.
    pub learned_bytes_max: usize,
    /// Deliveries at the sink right now.
    pub in_flight: u64,
    /// Pending items that wait for something of their own, such as their caller's key, while others go on past them.
    pub parked: u64,
    /// Traces whose facts are remembered for what comes of them; 0 for a sink that needs none.
    pub traces: u64,
    /// Memory these take, in bytes, estimated.
    pub traces_bytes: u64,
    /// Traces that were forgotten early because there were too many.
    pub traces_evicted: u64,
    /// Root spans made for traces that had none. They are no items.
    pub roots: u64,
    /// Root spans that the sink would not take.
    pub roots_rejected: u64,
    /// Spans that were sent once more with what became known of them.
    pub amended: u64,
    /// Spans that were to be, and were not taken again or are not in the journal any more.
    pub unamended: u64,
}

/// The short form for probes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HealthView {
    status: &'static str,
    problems: Vec<String>,
    journal_mode: &'static str,
}

impl Status {
    /// Looks at everything.
    pub fn of(view: &View) -> Self {
        let end = view.feed.journal().end();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: view.started.elapsed().as_secs_f64(),
            accepting: view.accepting.load(Ordering::Relaxed),
            journal: JournalView::of(view, end),
            understanding: view.metrics.understanding().figures(),
            sinks: view.lanes.iter().map(|lane| SinkView::of(view, lane)).collect(),
        }
    }

    /// Why requests are not taken; `None` when they are.
    pub(super) fn unready(&self) -> Option<String> {
        if !self.accepting {
            return Some("the daemon is starting or stopping".to_owned());
        }
        match self.journal.health {
            "no_space" | "poisoned" => Some(format!("journal: {}", self.journal.health)),
            _ => None,
        }
    }

    pub(super) fn health(&self) -> HealthView {
        let mut problems = Vec::new();
        if self.journal.health != "good" {
            let more = self.journal.problem.as_deref().unwrap_or_default();
            problems.push(format!("journal {}: {more}", self.journal.health));
        }
        for sink in &self.sinks {
            let is_well = sink.state == LaneState::Running.as_str()
                || sink.state == LaneState::Drained.as_str();
            if !is_well || sink.problem.is_some() {
                let problem = sink.problem.as_deref().unwrap_or("no reason known");
                problems.push(format!("sink {} is {}: {problem}", sink.name, sink.state));
            }
        }
        let status = if problems.is_empty() { "ok" } else { "degraded" };
        HealthView { status, problems, journal_mode: self.journal.mode }
    }
}

impl View {
    /// What became of a sink's items.
    fn settled(&self, lane: &LaneStatus) -> Settled {
        LaneStatus::settled(&lane.cursor(), self.operator.dead_letters().resolved(&lane.sink))
    }
}

impl JournalView {
    fn of(view: &View, end: Mark) -> Self {
        let (journal, quarantine) = (view.feed.journal(), view.feed.quarantine());
        let quarantined = quarantine.end().items.saturating_sub(quarantine.start().items);
        let received = view.operator.quarantine().resolved("");
        let (health, problem) = match journal.health() {
            Health::Good => ("good", None),
            Health::NoSpace => ("no_space", None),
            Health::Damaged(what) => ("damaged", Some(what)),
            Health::Poisoned(what) => ("poisoned", Some(what)),
        };
        Self {
            mode: view.mode,
            health,
            problem,
            bytes: journal.bytes(),
            bytes_max: journal.bytes_max(),
            items: end.items,
            dead_letters: view.lanes.iter().map(|lane| view.settled(lane).dead_lettered).sum(),
            quarantined: quarantined.saturating_sub(received.items()),
        }
    }
}

impl SinkView {
    fn of(view: &View, lane: &LaneStatus) -> Self {
        let cursor = lane.cursor();
        let settled =
            LaneStatus::settled(&cursor, view.operator.dead_letters().resolved(&lane.sink));
        let (state, problem) = lane.state();
        let traces = lane.traces().unwrap_or_default();
        let end = view.feed.journal().end();
        // The end was read after the cursor was known to be behind it, so nothing here can be negative; a cursor that moved
        // since only makes less pending.
        let pending = end.items.saturating_sub(cursor.mark.items);
        let Settled { delivered, dead_lettered, filtered, dropped } = settled;
        let received_at_ns = lane.oldest_received_at_ns.load(Ordering::Relaxed);
        let age_ns = if pending == 0 || received_at_ns == 0 {
            0
        } else {
            clock::unix_now_ns().saturating_sub(received_at_ns)
        };
        Self {
            name: lane.sink.clone(),
            kind: lane.kind,
            state: state.as_str(),
            problem,
            accepted: end.items.saturating_sub(cursor.joined),
            delivered,
            pending,
            dead_lettered,
            filtered,
            dropped,
            pending_bytes: end.position.0.saturating_sub(cursor.mark.position.0),
            oldest_age_seconds: std::time::Duration::from_nanos(age_ns).as_secs_f64(),
            deliveries: lane.deliveries.load(Ordering::Relaxed),
            retries: lane.retries.load(Ordering::Relaxed),
            throttles: lane.throttles.load(Ordering::Relaxed),
            holds: lane.holds.load(Ordering::Relaxed),
            left_out: lane.left_out.load(Ordering::Relaxed),
            replayed: lane.replayed.load(Ordering::Relaxed),
            dead_letters_by_reason: lane
                .dead_letters()
                .map(|(class, items)| (class.as_str(), items))
                .collect(),
            concurrency: lane.concurrency.load(Ordering::Relaxed),
            breaker_open: lane.is_breaker_open.load(Ordering::Relaxed),
            learned_bytes_max: lane.learned_bytes_max.load(Ordering::Relaxed),
            in_flight: lane.in_flight.load(Ordering::Relaxed),
            parked: lane.parked.load(Ordering::Relaxed),
            traces: traces.traces,
            traces_bytes: traces.bytes,
            traces_evicted: traces.evicted,
            roots: lane.roots.load(Ordering::Relaxed),
            roots_rejected: lane.roots_rejected.load(Ordering::Relaxed),
            amended: lane.amended.load(Ordering::Relaxed),
            unamended: lane.unamended.load(Ordering::Relaxed),
        }
    }
}
