//! A lane's books: the cursor, and what was saved of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use tracing::error;

use super::status::LaneStatus;
use super::tracker::{Progress, Settled};
use crate::feed::Arrived;
use crate::journal::{Cursor, Journal, Mark};
use crate::sinks::{Pace, Sink};

/// Why a cursor could not be saved.
#[derive(Debug)]
pub(super) enum Unsaved {
    /// The sink made no checkpoint.
    Sink(Pace),
    /// The journal did not keep it.
    Journal(io::Error),
}

impl fmt::Display for Unsaved {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(pace) => out.write_str(pace.reason().unwrap_or("no checkpoint")),
            Self::Journal(problem) => problem.fmt(out),
        }
    }
}

/// The cursor of one sink. Only this moves it.
pub(super) struct Ledger {
    sink: Arc<dyn Sink>,
    journal: Journal<Arrived>,
    status: Arc<LaneStatus>,
    cursor: Mutex<Cursor>,
    /// Whether the sink waits for a saved checkpoint.
    owes_checkpoint: AtomicBool,
}

/// Until November 2026 cursors said up to which time roots were sent, in nanoseconds since 1970. A root that is sent twice has the same
/// id both times.
const TIMES_FROM: u64 = 1 << 60;

impl Ledger {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        journal: Journal<Arrived>,
        status: Arc<LaneStatus>,
    ) -> Self {
        let mut cursor = status.cursor();
        if cursor.stamp >= TIMES_FROM {
            cursor.stamp = 1;
        }
        let cursor = Mutex::new(cursor);
        Self { sink, journal, status, cursor, owes_checkpoint: AtomicBool::default() }
    }

    /// Everything before this is settled.
    pub(super) fn mark(&self) -> Mark {
        self.cursor().mark
    }

    /// Moves the cursor over what was settled.
    pub(super) fn settle(&self, progress: Progress) {
        let mut cursor = self.cursor();
        let mark = progress.mark.unwrap_or(cursor.mark);
        let Settled { dead_lettered, dropped, filtered } = progress.settled;
        let counted = progress.arrived + dead_lettered + dropped + filtered;
        let passed = mark.items.saturating_sub(cursor.mark.items);
        if counted != passed {
            let sink = &self.status.sink;
            error!(
                sink,
                passed,
                counted,
                "the items that became of something are not as many as were accepted"
            );
            self.status.miscounted.fetch_add(counted.abs_diff(passed), Ordering::Relaxed);
        }
        cursor.mark = mark;
        cursor.dead_lettered += progress.settled.dead_lettered;
        cursor.dropped += progress.settled.dropped;
        cursor.filtered += progress.settled.filtered;
        cursor.stamp = cursor.stamp.max(progress.roots_until);
        self.status.set_cursor(cursor.clone());
    }

    /// The roots of traces whose last record is before this were sent; 0 where the sink was never owed any.
    pub(super) fn roots_until(&self) -> u64 {
        self.cursor().stamp
    }

    /// The roots of traces whose last record is before this are not this sink's concern.
    pub(super) fn owe_roots_from(&self, position: u64) {
        let mut cursor = self.cursor();
        cursor.stamp = position;
        self.status.set_cursor(cursor.clone());
    }

    /// Moves the cursor over what is given up; returns how many items that is.
    pub(super) fn give_up_to(&self, mark: Mark) -> u64 {
        let mut cursor = self.cursor();
        let lost = mark.items.saturating_sub(cursor.mark.items);
        cursor.mark = mark;
        cursor.dropped += lost;
        self.status.set_cursor(cursor.clone());
        lost
    }

    /// Makes durable what the sink has, and saves the cursor together with the sink's state.
    pub(super) async fn save(self: Arc<Self>) -> Result<(), Unsaved> {
        // Taken before the checkpoint: what is settled since is in the checkpoint too, but not in the cursor, which is the safe side
        // only while nothing is under way. A sink with state takes one delivery at a time, and no checkpoint meanwhile.
        let mut cursor = self.cursor().clone();
        cursor.state = self.sink.checkpoint().await.map_err(Unsaved::Sink)?;
        self.cursor().state = cursor.state.clone();
        let (journal, name) = (self.journal.clone(), self.status.sink.clone());
        let saved = tokio::task::spawn_blocking(move || journal.save_cursor(&name, &cursor)).await;
        saved.map_err(io::Error::other).flatten().map_err(Unsaved::Journal)?;
        self.owes_checkpoint.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes note that the sink waits for a saved checkpoint.
    pub(super) fn owe_checkpoint(&self) {
        self.owes_checkpoint.store(true, Ordering::Relaxed);
    }

    /// Whether nothing may be handed over before the next [`Ledger::save`].
    pub(super) fn owes_checkpoint(&self) -> bool {
        self.owes_checkpoint.load(Ordering::Relaxed)
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
