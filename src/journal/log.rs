//! What the writer thread, the readers and the consumers share: which segments there are, how far they are durable, who needs what.
//!
//! Locks: `saving` before `removing` before `state`; none of the last two is held while the disk is written, except that `removing`
//! spans the removal of files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::watch;

use super::damage::{self, Damage};
use super::options::Limits;
use super::segment::HEADER_BYTES;
use super::storage::Storage;
use super::{Cursor, Mark, Position};
use crate::support::lock::lock;
use crate::support::pool::Pool;

/// Is told from where to where records are about to be removed for want of room.
pub(super) type OnEviction = Arc<dyn Fn(Mark, Mark) + Send + Sync>;
/// Nanoseconds since 1970.
pub(super) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(super) struct Log {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) limits: Limits,
    pub(super) now: Now,
    /// The end of what is on stable storage.
    pub(super) end: watch::Sender<Mark>,
    /// Ticks when there may be more room.
    pub(super) room: watch::Sender<()>,
    /// Held while cursor files are written.
    pub(super) saving: Mutex<()>,
    /// Held while files are removed: the oldest first, whoever removes them.
    pub(super) removing: Mutex<()>,
    state: Mutex<State>,
    pub(super) on_eviction: Mutex<Option<OnEviction>>,
    /// Memory of readers.
    pub(super) pool: Pool,
    pub(super) timings: Timings,
    opened: Instant,
    /// When the writer thread began with its group: nanoseconds since `opened`, or [`IDLE`].
    busy_since: AtomicU64,
}

const IDLE: u64 = u64::MAX;

/// How the writer thread works. Clones share it.
#[derive(Debug, Clone)]
pub struct Timings {
    /// How long it took to put a group on stable storage, in seconds: the write and its sync.
    pub sync_seconds: Histogram,
    /// How many records shared one sync.
    pub group_records: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            // From a tenth of a millisecond, on flash with a cache of its own, to 3 s.
            sync_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            group_records: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
        }
    }
}

/// The segments and who needs them.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The oldest first. The last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// Bytes in all segments.
    pub(super) bytes: u64,
    /// Bytes of records that were admitted and are not in a segment yet.
    pub(super) admitted: u64,
    pub(super) cursors: BTreeMap<String, Cursor>,
    /// Consumers that hold segments back, with a cursor or without. While nobody has said who they are, everything is needed.
    pub(super) live: Option<BTreeSet<String>>,
    /// Damage that nobody has settled.
    pub(super) damages: Vec<Damage>,
    /// Where all known damage starts, settled or not.
    pub(super) known_damage: BTreeSet<Position>,
    pub(super) no_space: bool,
    pub(super) poison: Option<String>,
}

/// One file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) base: Mark,
    pub(super) created_ns: u64,
    /// Header and records, without what is reserved.
    pub(super) bytes: u64,
}

/// What a reader finds at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing yet.
    AtEnd,
    /// It was removed; the oldest record that is kept is there.
    Removed(Mark),
    /// In the segment with this base, of which everything before the limit can be read.
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
            opened: Instant::now(),
            busy_since: AtomicU64::new(IDLE),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The oldest record that is kept.
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

    /// Nothing can be promised any more. The first reason stays.
    pub(super) fn poison(&self, reason: &str) {
        self.state().poison.get_or_insert_with(|| reason.to_owned());
        // Who waits for room must learn that there will be none.
        self.room.send_replace(());
    }

    pub(super) fn begin_group(&self) {
        let since = u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(IDLE);
        self.busy_since.store(since, Ordering::Relaxed);
    }

    pub(super) fn end_group(&self) {
        self.busy_since.store(IDLE, Ordering::Relaxed);
    }

    /// How long the writer thread has been at one group.
    pub(super) fn stuck_for(&self) -> Option<Duration> {
        match self.busy_since.load(Ordering::Relaxed) {
            IDLE => None,
            since => Some(self.opened.elapsed().saturating_sub(Duration::from_nanos(since))),
        }
    }

    /// Damage was met. The first time it is reported, set aside and noted.
    pub(super) fn note_damage(&self, damage: Damage) {
        let mut state = self.state();
        if state.known_damage.insert(damage.from.position) {
            state.damages.push(damage);
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

    /// The first position that a consumer still needs; `None` when none needs any.
    pub(super) fn needed_from(&self) -> Option<Mark> {
        let Some(live) = &self.live else { return Some(Mark::default()) };
        live.iter().map(|name| self.mark_of(name)).min_by_key(|mark| mark.position)
    }

    /// The first position that a live consumer beside this one still needs; `None` when none needs any.
    pub(super) fn others_need_from(&self, consumer: &str) -> Option<Position> {
        let others = self.live.iter().flatten().filter(|name| *name != consumer);
        others.map(|name| self.mark_of(name).position).min()
    }

    fn mark_of(&self, consumer: &str) -> Mark {
        self.cursors.get(consumer).map(|cursor| cursor.mark).unwrap_or_default()
    }
}

/// Whether the disk, or the user's share of it, is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
