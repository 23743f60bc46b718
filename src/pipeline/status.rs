//! What can be seen of a lane from outside, while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::feed::Fill;
use crate::journal::Cursor;

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
    /// The lane ended by itself.
    Halted,
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
            Self::Halted => "halted",
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
    /// Deliveries at the sink right now.
    pub in_flight: AtomicU64,
    /// When the oldest item that is not settled was received, in nanoseconds since 1970; 0 when nothing is pending.
    pub oldest_received_at_ns: AtomicU64,
    /// Roots that were made for traces without one. They are no items that were accepted.
    pub roots: AtomicU64,
    /// Roots that the sink would not take. Nothing was lost with them: what a root says, its spans have said.
    pub roots_rejected: AtomicU64,
    condition: Mutex<Condition>,
}

#[derive(Debug, Clone, Default)]
struct Condition {
    state: LaneState,
    problem: Option<String>,
    cursor: Cursor,
    traces: Option<Fill>,
}

impl LaneStatus {
    /// The status of a lane that starts at this cursor.
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

    /// How full the lane's table of traces is; `None` where the sink does not want to know of traces.
    pub fn traces(&self) -> Option<Fill> {
        self.lock().traces
    }

    /// Items that arrived at the sink since it joined.
    pub fn delivered(&self) -> u64 {
        let cursor = self.cursor();
        cursor.mark.items - cursor.joined - cursor.dead_lettered - cursor.filtered - cursor.dropped
    }

    /// Sets the state; returns whether it changed.
    pub(super) fn set_state(&self, state: LaneState, problem: Option<String>) -> bool {
        let mut condition = self.lock();
        let changed = condition.state != state;
        condition.state = state;
        condition.problem = problem;
        changed
    }

    pub(super) fn set_traces(&self, fill: Fill) {
        self.lock().traces = Some(fill);
    }

    pub(super) fn set_cursor(&self, cursor: Cursor) {
        self.lock().cursor = cursor;
    }

    /// Counts a delivery as being at the sink until the answer is dropped.
    pub(super) fn one_in_flight(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self)
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delivery at the sink.
pub(super) struct InFlight<'a>(&'a LaneStatus);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
