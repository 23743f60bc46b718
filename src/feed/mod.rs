//! Between the receivers and the lanes: the one way in ([`Intake`]) and the one way out ([`Reader`]). It knows both bytes and spans.
//!
//! A request goes in as a record: its envelope and the client's own bytes, appended to the journal and synced. The decoded batch
//! rides along and is published to the **tail**, a byte-bounded ring in memory, in the order of the journal. Lanes that keep up
//! read from there and never touch the disk or decode again; a lane that falls behind reads the journal. [`Reader`] hides which.
//!
//! Facts of a trace that arrive apart from its spans are gathered in [`Traces`], a table that each lane feeds with what it reads.
//!
//! Where rules decide of whole traces, a lane also reads ahead, and [`Decisions`] says what was decided.
//!
//! Exact resends of an item (a client that timed out, a forked process) are recognised in `dedup` and not delivered twice.

mod intake;
mod journal_time;
pub(crate) mod decisions;
mod lookback;
mod reader;
mod records;
mod dedup;
mod tail;
mod traces;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Journal, Mark, OpenError, Options, Storage, Synced};

pub use decisions::{Decisions, Undecided};
use dedup::{DedupWindow, Reservation};
pub use intake::{Accepted, Arrival, Intake, Refusal, aside};
pub use lookback::{Deciding, look_back, recall};
pub use reader::{Fed, Reader};
pub use records::Records;
use tail::Tail;
pub use traces::{Agents, DueRoot, DueRoots, Fill, SpanTree, Traces};

use crate::span::Batch;

/// What rides through the journal with a record.
#[derive(Debug)]
pub struct Arrived {
    batch: Arc<Batch>,
    reservation: Reservation,
}

/// Settings of the feed.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// Memory for batches that lanes have not read yet, in bytes. What does not fit is read from the journal.
    pub tail_bytes_max: usize,
    /// How long a request waits for room in a full journal before it is refused.
    pub ack_wait: Duration,
}

/// Enough for a second of heavy traffic, so that a lane between two batches does not fall back to the disk.
pub const DEFAULT_TAIL_BYTES_MAX: usize = 32 << 20;
/// OpenTelemetry's clients give up after 10 s, waits between attempts included, so one wait must leave room for another.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(3);

impl Default for FeedOptions {
    fn default() -> Self {
        Self { tail_bytes_max: DEFAULT_TAIL_BYTES_MAX, ack_wait: DEFAULT_ACK_WAIT }
    }
}

/// The journal with its tail. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Feed {
    journal: Journal<Arrived>,
    quarantine: Journal<()>,
    tail: Arc<Tail>,
    dedup: Arc<DedupWindow>,
    ack_wait: Duration,
}

impl Feed {
    /// Opens the main journal, and reads as much of its end as is needed to recognise resends again.
    pub fn open(
        options: &FeedOptions,
        journal_options: &Options,
        storage: Arc<dyn Storage>,
        quarantine: Journal<()>,
    ) -> Result<Self, OpenError> {
        let tail = Arc::new(Tail::new(options.tail_bytes_max));
        let observer = {
            let tail = Arc::clone(&tail);
            move |synced: Synced<Arrived>| {
                synced.passenger.reservation.settle();
                tail.publish(synced.start, synced.end, synced.passenger.batch);
            }
        };
        let journal = Journal::open(journal_options, storage, observer)?;
        let dedup = Arc::new(DedupWindow::default());
        dedup.fill(&journal);
        Ok(Self { journal, quarantine, tail, dedup, ack_wait: options.ack_wait })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        Intake::new(self.clone())
    }

    /// A way out, from a mark on.
    pub fn reader(&self, from: Mark) -> Reader {
        Reader::new(self, from)
    }

    /// The journal of items that could not be understood.
    pub fn quarantine(&self) -> &Journal<()> {
        &self.quarantine
    }

    /// The journal below, for cursors and marks.
    pub fn journal(&self) -> &Journal<Arrived> {
        &self.journal
    }
}
