//! One look at the whole daemon, taken when it is asked for. The figures of a sink add up in every look:
//! `accepted = delivered + pending + dead_lettered + filtered + dropped`.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::View;
use crate::journal::{Health, Mark};
use crate::pipeline::{LaneState, LaneStatus};
use crate::support::clock;

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
    /// `running`, `retrying`, `holding`, `halted` or `drained`.
    pub state: &'static str,
    /// What it said last, when it is not well.
    pub problem: Option<String>,
    /// Items accepted for it.
    pub accepted: u64,
    /// Items that arrived.
    pub delivered: u64,
    /// Items still to be delivered.
    pub pending: u64,
    /// Items it would not take, kept as dead letters.
    pub dead_lettered: u64,
    /// Items that a rule left out.
    pub filtered: u64,
    /// Items given up because the journal was full and the sink is configured so.
    pub dropped: u64,
    /// Bytes of the journal still to be delivered.
    pub pending_bytes: u64,
    /// Age of the oldest pending item, in seconds; 0 when nothing is pending.
    pub oldest_age_seconds: f64,
    /// Deliveries handed over.
    pub deliveries: u64,
    /// Attempts that failed and were tried again.
    pub retries: u64,
    /// Deliveries at the sink right now.
    pub in_flight: u64,
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
            sinks: view
                .lanes
                .iter()
                .map(|lane| SinkView::of(lane, view.feed.journal().end()))
                .collect(),
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

impl JournalView {
    fn of(view: &View, end: Mark) -> Self {
        let (journal, quarantine) = (view.feed.journal(), view.feed.quarantine());
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
            dead_letters: view.lanes.iter().map(|lane| lane.cursor().dead_lettered).sum(),
            quarantined: quarantine.end().items.saturating_sub(quarantine.start().items),
        }
    }
}

impl SinkView {
    fn of(lane: &LaneStatus, end: Mark) -> Self {
        let cursor = lane.cursor();
        let (state, problem) = lane.state();
        let traces = lane.traces().unwrap_or_default();
        // The end was read after the cursor was known to be behind it, so nothing here can be negative; a cursor that moved
        // since only makes less pending.
        let pending = end.items.saturating_sub(cursor.mark.items);
        let settled = cursor.mark.items.saturating_sub(cursor.joined);
        let delivered =
            settled.saturating_sub(cursor.dead_lettered + cursor.filtered + cursor.dropped);
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
            accepted: settled + pending,
            delivered,
            pending,
            dead_lettered: cursor.dead_lettered,
            filtered: cursor.filtered,
            dropped: cursor.dropped,
            pending_bytes: end.position.0.saturating_sub(cursor.mark.position.0),
            oldest_age_seconds: std::time::Duration::from_nanos(age_ns).as_secs_f64(),
            deliveries: lane.deliveries.load(Ordering::Relaxed),
            retries: lane.retries.load(Ordering::Relaxed),
            in_flight: lane.in_flight.load(Ordering::Relaxed),
            traces: traces.traces,
            traces_bytes: traces.bytes,
            traces_evicted: traces.evicted,
            roots: lane.roots.load(Ordering::Relaxed),
            roots_rejected: lane.roots_rejected.load(Ordering::Relaxed),
        }
    }
}
