//! A lane's books: the cursor, and what was saved of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::frontier::Progress;
use super::status::LaneStatus;
use crate::feed::Arrived;
use crate::journal::{Cursor, Journal, Mark};
use crate::sinks::{Pace, Sink};

/// The cursor of one sink. Only this moves it.
pub(super) struct Ledger {
    sink: Arc<dyn Sink>,
    journal: Journal<Arrived>,
    status: Arc<LaneStatus>,
    cursor: Mutex<Cursor>,
    /// One save at a time, in order.
    saving: tokio::sync::Mutex<()>,
    /// Whether the sink waits for a saved checkpoint.
    owes_checkpoint: AtomicBool,
}

impl Ledger {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        journal: Journal<Arrived>,
        status: Arc<LaneStatus>,
    ) -> Self {
        let cursor = Mutex::new(status.cursor());
        Self {
            sink,
            journal,
            status,
            cursor,
            saving: tokio::sync::Mutex::default(),
            owes_checkpoint: AtomicBool::default(),
        }
    }

    /// Everything before this is settled.
    pub(super) fn mark(&self) -> Mark {
        self.cursor().mark
    }

    /// Moves the cursor over what was settled.
    pub(super) fn settle(&self, progress: Progress) {
        let mut cursor = self.cursor();
        cursor.mark = progress.mark.unwrap_or(cursor.mark);
        cursor.dead_lettered += progress.settled.dead_lettered;
        cursor.dropped += progress.settled.dropped;
        cursor.filtered += progress.settled.filtered;
        cursor.roots_until_ns = cursor.roots_until_ns.max(progress.roots_until_ns);
        self.status.set_cursor(cursor.clone());
    }

    /// Roots that were due up to this time were sent; 0 where none ever was.
    pub(super) fn roots_until_ns(&self) -> u64 {
        self.cursor().roots_until_ns
    }

    /// Roots that are due up to this time are not this sink's concern.
    pub(super) fn owe_roots_from(&self, until_ns: u64) {
        let mut cursor = self.cursor();
        cursor.roots_until_ns = until_ns;
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
    pub(super) async fn save(&self) -> Result<(), Pace> {
        let _one_at_a_time = self.saving.lock().await;
        // Taken before the checkpoint: what is settled since is in the checkpoint too, but not in the cursor, which is the safe side
        // only while nothing is under way. A sink with state takes one delivery at a time, and no checkpoint meanwhile.
        let mut cursor = self.cursor().clone();
        cursor.state = self.sink.checkpoint().await?;
        self.cursor().state = cursor.state.clone();
        let (journal, name) = (self.journal.clone(), self.status.sink.clone());
        let saved = tokio::task::spawn_blocking(move || journal.save_cursor(&name, &cursor)).await;
        let failed = |reason| Pace::Down { after: None, reason };
        saved
            .map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
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

    /// As [`Ledger::save`]; a failure is reported and tried again later. Returns whether it worked.
    pub(super) async fn save_or_warn(&self) -> bool {
        match self.save().await {
            Ok(()) => true,
            Err(pace) => {
                let problem = pace.reason();
                warn!(
                    sink = self.status.sink,
                    problem, "the cursor could not be saved; it is tried again"
                );
                false
            }
        }
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
