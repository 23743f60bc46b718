//! What is on its way through the window: pieces that wait in a queue, and works, which are deliveries until all their items are done. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::job::Job;
use super::traces::Hold;
use crate::sinks::{Deferral, Delivery};
use crate::support::backoff::Backoff;

/// Items of one entry that go to one partition.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) purpose: Purpose,
    pub(super) entry: u64,
    pub(super) delivery: Delivery,
    pub(super) since: Instant,
}

/// Whom a delivery is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The cursor: what the sink will never take becomes dead letters.
    Journal,
    /// Nobody: it was settled when it was sent first. What the sink does not take again is counted and stays there as it was.
    Amendment,
    /// A replay: what the sink will never take is reported to it, who has it still.
    Replay(Arc<Job>),
}

impl Purpose {
    fn goes_with(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Journal, Self::Journal) | (Self::Amendment, Self::Amendment))
    }
}

/// A delivery until all its items are done.
#[derive(Debug)]
pub(super) struct Work {
    /// Whom it is for.
    pub(super) purpose: Purpose,
    /// What is left of it; the first is tried next.
    pub(super) tasks: VecDeque<Task>,
    /// The entry of each of its batches.
    pub(super) entries: Vec<u64>,
    pub(super) partitions: Vec<usize>,
    pub(super) wait: Wait,
    /// It begins no sooner than that, whatever it waits for.
    pub(super) not_before: Option<Instant>,
    /// The number of the last attempt; 0 before the first.
    pub(super) tried: u64,
    /// Whether no attempt was made before this one.
    pub(super) is_first: bool,
}

/// A part of a delivery that is tried alone.
#[derive(Debug, Clone, Default)]
pub(super) struct Task {
    /// What is handed over.
    pub(super) delivery: Delivery,
    /// Attempts in a row on which the backend broke.
    pub(super) faults: u32,
    /// How much had arrived when the backend first broke on this, or on what this was cut from.
    pub(super) broken_since: Option<u64>,
    /// The waits of what the sink defers and would have back at once.
    pub(super) backoff: Option<Backoff>,
}

/// What a work waits for, beside its turn.
#[derive(Debug)]
pub(super) enum Wait {
    /// Nothing.
    Turn,
    /// Trace objects. Its partitions wait with it.
    Context(Hold),
    /// A key of the sink's. It is deferred.
    Key(Arc<Deferral>),
    /// That more arrives than this: one item alone on which the backend broke. It is deferred.
    Others(u64),
}

/// How much is deferred.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    pub(super) works: usize,
    /// Of what a backend breaks on, in bytes on the wire.
    pub(super) broken_bytes: usize,
    /// Requests that what waits for keys keeps in memory, by their address: how many works have items of each.
    pub(super) requests: HashMap<usize, usize>,
    /// Memory that they take, in bytes.
    pub(super) requests_bytes: usize,
}

impl Deferred {
    /// Counts a work that is deferred, or that is not any more.
    pub(super) fn count(&mut self, work: &Work, is_deferred: bool) {
        let change = |count: &mut usize, by: usize| {
            *count = if is_deferred { *count + by } else { count.saturating_sub(by) };
        };
        change(&mut self.works, 1);
        if matches!(work.wait, Wait::Others(_)) {
            change(&mut self.broken_bytes, work.bytes());
            return;
        }
        for request in work.tasks.iter().flat_map(|task| task.delivery.batches()) {
            let (address, bytes) = (std::ptr::from_ref(request).addr(), request.bytes_when_read());
            if bytes == 0 {
                continue;
            }
            let works = self.requests.entry(address).or_default();
            let was_held = *works > 0;
            change(works, 1);
            let is_held = *works > 0;
            if was_held != is_held {
                change(&mut self.requests_bytes, bytes);
            }
            if !is_held {
                self.requests.remove(&address);
            }
        }
    }
}

impl Piece {
    /// Keeps the first so many items; returns the others.
    pub(super) fn cut(&mut self, items_max: usize) -> Self {
        let places: Vec<usize> = (0..self.delivery.len()).collect();
        let (first, later) = places.split_at(items_max.clamp(1, places.len()));
        let later = self.delivery.only(later);
        self.delivery = self.delivery.only(first);
        Self {
            purpose: self.purpose.clone(),
            entry: self.entry,
            delivery: later,
            since: self.since,
        }
    }
}

impl Work {
    pub(super) fn of(piece: Piece, partition: usize) -> Self {
        let entries = vec![piece.entry; piece.delivery.batch_count()];
        let task = Task { delivery: piece.delivery, faults: 0, broken_since: None, backoff: None };
        Self {
            purpose: piece.purpose,
            tasks: VecDeque::from([task]),
            entries,
            partitions: vec![partition],
            wait: Wait::Turn,
            not_before: None,
            tried: 0,
            is_first: true,
        }
    }

    /// Whether a piece may be in the same delivery.
    pub(super) fn goes_with(&self, piece: &Piece) -> bool {
        self.purpose.goes_with(&piece.purpose)
            && self.tasks.front().is_none_or(|task| task.delivery.goes_with(&piece.delivery))
    }

    /// Adds a piece of the same partition, before the first attempt.
    pub(super) fn add(&mut self, piece: Piece) {
        let Some(task) = self.tasks.front_mut() else { return };
        self.entries.extend(std::iter::repeat_n(piece.entry, piece.delivery.batch_count()));
        task.delivery.append(piece.delivery);
    }

    /// Both as one delivery, before the first attempt.
    pub(super) fn with(mut self, mut other: Self) -> Self {
        if let (Some(first), Some(task)) = (self.tasks.front_mut(), other.tasks.pop_front()) {
            first.delivery.append(task.delivery);
        }
        self.entries.extend(other.entries);
        self.partitions.extend(other.partitions);
        self
    }

    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.wait, Wait::Key(_) | Wait::Others(_))
    }

    pub(super) fn items(&self) -> usize {
        self.tasks.iter().map(|task| task.delivery.len()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.tasks.iter().map(|task| task.delivery.bytes()).sum()
    }

    /// Items of it, deferred.
    pub(super) fn deferred(&self, task: Task, wait: Wait, not_before: Option<Instant>) -> Self {
        Self {
            purpose: self.purpose.clone(),
            tasks: VecDeque::from([task]),
            entries: self.entries.clone(),
            partitions: self.partitions.clone(),
            wait,
            not_before,
            tried: self.tried,
            is_first: false,
        }
    }
}
