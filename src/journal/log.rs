//! State shared by the writer thread, the readers and the consumers: the segments, the durable end, and what each consumer needs.
//!
//! Lock order: `saving`, `removing`, `state`. The last two are never held during disk writes, except that `removing` is held while files
//! are removed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use rustix::io::Errno;
use tokio::sync::watch;

use super::damage::{self, Damage, Notes};
use super::options::Limits;
use super::segment::HEADER_BYTES;
use super::storage::Storage;
use super::{Cursor, Mark, Position};
use crate::support::lock::lock;
use crate::support::pool::Pool;

/// Called with the range of the records that are about to be removed for lack of space.
pub(super) type OnEviction = Arc<dyn Fn(Mark, Mark) + Send + Sync>;
/// Returns the nanoseconds since 1970.
pub(super) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(super) struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) limits: Limits,
    pub(super) now: Now,
    /// The end of the data on stable storage.
    pub(super) end: watch::Sender<Mark>,
    /// Signals that there may be more space.
    pub(super) room: watch::Sender<()>,
    /// Held while cursor files are written.
    pub(super) saving: Mutex<()>,
    /// Held while files are removed, so that they are removed oldest first, whichever thread removes them.
    pub(super) removing: Mutex<()>,
    state: Mutex<State>,
    pub(super) on_eviction: Mutex<Option<OnEviction>>,
    /// Memory for readers.
    pub(super) pool: Pool,
    pub(super) timings: Timings,
    /// When the writer thread began its current group.
    pub(super) busy_since: Mutex<Option<Instant>>,
}

/// Metrics of the writer thread. Clones share them.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Time to put a group on stable storage, in seconds: the write and its sync.
    pub sync_seconds: Histogram,
    /// Number of records per sync.
    pub group_records: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            // From 0.1 ms, on flash with a write cache, to 3 s.
            sync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            group_records: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
        }
    }
}

/// The segments, and the consumers that need them.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first. The last one is active.
    pub(super) segments: VecDeque<Segment>,
    /// Bytes in all segments.
    pub(super) bytes: u64,
    /// Bytes of admitted records that are not in a segment yet.
    pub(super) admitted: u64,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// Consumers that hold segments back, with or without a cursor. While this is unknown (`None`), everything is needed.
    pub(super) live: Option<BTreeSet<String>>,
    /// Consumers that drop their oldest records when there is no room.
    pub(super) dropping: BTreeSet<String>,
    pub(super) damage: Notes,
    /// Size of the record that was refused last because the log was full.
    pub(super) refused: Option<u64>,
    pub(super) no_space: bool,
    pub(super) poison: Option<String>,
}

/// A segment's file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) base: Mark,
    pub(super) created_ns: u64,
    /// Size of header and records, without reserved space.
    pub(super) bytes: u64,
}

/// The data at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// No record yet.
    AtEnd,
    /// A removed record; the mark is the start of the oldest record.
    Removed(Mark),
    /// A record in the segment with this base, readable up to the limit.
    In { base: Mark, limit: Mark },
}

impl Log {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        limits: Limits,
        now: Now,
        end: Mark,
        state: State,
    ) -> Self {
        Self {
            storage,
            limits,
            now,
            end: watch::Sender::new(end),
            room: watch::Sender::new(()),
            saving: Mutex::default(),
            removing: Mutex::default(),
            state: Mutex::new(state),
            on_eviction: Mutex::default(),
            pool: Pool::default(),
            timings: Timings::default(),
            busy_since: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the start of the oldest record.
    pub(super) fn start(&self) -> Mark {
        self.state().segments.front().map(|oldest| oldest.base).unwrap_or_default()
    }

    pub(super) fn place(&self, position: Position) -> Place {
        let durable = *self.end.borrow();
        let state = self.state();
        let start = state.segments.front().map(|oldest| oldest.base).unwrap_or_default();
        if position < start.position {
            return Place::Removed(start);
        }
        if durable.position <= position {
            return Place::AtEnd;
        }
        let next = state.segments.partition_point(|segment| segment.base.position <= position);
        let base = state.segments.get(next.saturating_sub(1)).map_or(start, |segment| segment.base);
        let limit = match state.segments.get(next) {
            Some(later) if later.base.position < durable.position => later.base,
            _ => durable,
        };
        Place::In { base, limit }
    }

    /// Poisons the log: it no longer guarantees anything. The first reason is kept.
    pub(super) fn poison(&self, reason: &str) {
        self.state().poison.get_or_insert_with(|| reason.to_owned());
        // Callers that wait for space must learn that there will be none.
        self.room.send_replace(());
    }

    /// Records damage. New damage is reported and preserved with a note.
    pub(super) fn note_damage(&self, damage: Damage) {
        let mut state = self.state();
        if state.damage.known.insert(damage.from.position) {
            state.damage.open.push(damage);
            drop(state);
            damage::report(&*self.storage, &damage);
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn add_segment(&mut self, base: Mark, created_ns: u64) {
        self.bytes += HEADER_BYTES as u64;
        self.segments.push_back(Segment { base, created_ns, bytes: HEADER_BYTES as u64 });
    }

    pub(super) fn grow_active(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(active) = self.segments.back_mut() {
            active.bytes += bytes;
        }
    }

    /// Returns the first position that a live consumer still needs; `None` if no consumer needs any.
    pub(super) fn needed_from(&self) -> Option<Mark> {
        let Some(live) = &self.live else { return Some(Mark::default()) };
        live.iter().map(|name| self.mark_of(name)).min_by_key(|mark| mark.position)
    }

    pub(super) fn mark_of(&self, consumer: &str) -> Mark {
        self.cursors.get(consumer).map(|cursor| cursor.mark).unwrap_or_default()
    }
}

/// Returns whether the error means that the disk, or the user's quota, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns whether the process or the machine has no free file descriptor, so that no file can be created.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
