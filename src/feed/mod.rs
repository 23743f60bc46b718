//! Connects the receivers and the lanes: [`Intake`] is the only input, [`Reader`] the only output. It knows both bytes and spans.
//!
//! A request is appended to the journal as a record (its envelope and the client's own bytes) and synced. Its decoded batch is attached,
//! and published to the **tail**, a byte-bounded ring in memory, in journal order. Lanes that keep up read from the tail and neither touch
//! the disk nor decode again; a lane that falls behind reads the journal. [`Reader`] hides the difference.
//!
//! Facts of a trace that arrive separately from its spans are collected in [`Traces`], a table that each lane feeds with what it reads.
//!
//! If rules decide on whole traces, a lane also reads ahead, and [`Decisions`] holds the results.
//!
//! `dedup` recognizes exact resends of an item (by a client that timed out, or a forked process), which are not delivered twice.

mod intake;
mod journal_time;
pub(crate) mod decisions;
mod lookback;
mod reader;
mod follower;
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
pub use follower::Follower;
pub use intake::{Accepted, DecodedRequest, Intake, Refusal, aside};
pub use lookback::{Deciding, look_back, recall};
pub use reader::{FeedEntry, Reader};
pub use records::Records;
use tail::Tail;
pub use traces::{Agents, DueRoot, DueRoots, Fill, SpanTree, Traces};

use crate::span::Batch;

/// The attachment of a record in the journal.
#[derive(Debug)]
pub struct Attachment {
    batch: Arc<Batch>,
    reservation: Reservation,
}

/// Settings of the feed.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// Memory for batches that lanes have not read yet, in bytes. Lanes read everything else from the journal.
    pub tail_bytes_max: usize,
    /// How long a request waits for space in a full journal before it is refused.
    pub ack_wait: Duration,
}

/// A second of heavy traffic, so that a lane between two batches does not fall back to the disk.
pub const DEFAULT_TAIL_BYTES_MAX: usize = 32 << 20;
/// OpenTelemetry's clients give up after 10 s, including waits between attempts, so one wait must leave time for another.
pub const DEFAULT_ACK_WAIT: Duration = Duration::from_secs(3);

impl Default for FeedOptions {
    fn default() -> Self {
        Self { tail_bytes_max: DEFAULT_TAIL_BYTES_MAX, ack_wait: DEFAULT_ACK_WAIT }
    }
}

/// The journal with its tail. This is a handle: clones share it.
#[derive(Debug, Clone)]
pub struct Feed {
    journal: Journal<Attachment>,
    quarantine: Journal<()>,
    tail: Arc<Tail>,
    dedup: Arc<DedupWindow>,
    ack_wait: Duration,
}

impl Feed {
    /// Opens the main journal, and reads enough of its end to recognize resends again.
    pub fn open(
        options: &FeedOptions,
        journal_options: &Options,
        storage: Arc<dyn Storage>,
        quarantine: Journal<()>,
    ) -> Result<Self, OpenError> {
        let tail = Arc::new(Tail::new(options.tail_bytes_max));
        let observer = {
            let tail = Arc::clone(&tail);
            move |synced: Synced<Attachment>| {
                synced.attachment.reservation.settle();
                tail.publish(synced.start, synced.end, synced.attachment.batch);
            }
        };
        let journal = Journal::open(journal_options, storage, observer)?;
        let dedup = Arc::new(DedupWindow::default());
        dedup.fill(&journal);
        Ok(Self { journal, quarantine, tail, dedup, ack_wait: options.ack_wait })
    }

    /// Returns the input.
    pub fn intake(&self) -> Intake {
        Intake::new(self.clone())
    }

    /// Creates a reader that starts at a mark.
    pub fn reader(&self, from: Mark) -> Reader {
        Reader::of(self.journal.clone(), Arc::clone(&self.tail), from)
    }

    /// Creates a reader that starts at a mark and lets the lanes read first.
    pub fn follower(&self, from: Mark) -> Follower {
        Follower::new(self, from)
    }

    /// Returns the journal of invalid items.
    pub fn quarantine(&self) -> &Journal<()> {
        &self.quarantine
    }

    /// Returns the main journal, for cursors and marks.
    pub fn journal(&self) -> &Journal<Attachment> {
        &self.journal
    }
}
