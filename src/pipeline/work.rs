//! Units of work in the window: pieces, which wait in a queue, and works, which are deliveries until all their items are done. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::RangeBounds;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use super::job::Job;
use super::traces::Hold;
use crate::sinks::{Deferral, Delivery};

/// The entry of replays: the cursor does not wait for them.
pub(super) const NO_ENTRY: u64 = u64::MAX;

/// Items of one entry that go to one partition.
#[derive(Debug)]
pub(super) struct PartitionItems {
    pub(super) purpose: Purpose,
    pub(super) entry: u64,
    pub(super) delivery: Delivery,
    pub(super) since: Instant,
}

/// The purpose of a delivery.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// The journal: rejected items become dead letters.
    Journal,
    /// An amendment: its items were settled when first sent. A rejection is counted, and the backend keeps the first version.
    Amendment,
    /// A replay: rejected items are reported to the caller, who still has them.
    Replay(Arc<Job>),
}

impl Purpose {
    fn goes_with(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Journal, Self::Journal) | (Self::Amendment, Self::Amendment))
    }
}

/// A delivery until all its items are done.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// Its purpose.
    pub(super) purpose: Purpose,
    /// Its remaining tasks; the first is attempted next.
    pub(super) tasks: VecDeque<Task>,
    /// The entry of each of its batches.
    pub(super) entries: Vec<u64>,
    pub(super) partitions: Vec<usize>,
    pub(super) wait: Wait,
    /// The number of the last attempt that ended; 0 before.
    pub(super) tried: u64,
}

/// A part of a delivery that is attempted separately.
#[derive(Debug, Clone, Default)]
pub(super) struct Task {
    /// The items to deliver.
    pub(super) delivery: Delivery,
    /// Number of consecutive attempts on which the backend failed.
    pub(super) faults: u32,
    /// The lane's `arrivals` when the backend first failed on this task, or on the one it was split from.
    pub(super) broken_since: Option<u64>,
}

/// What a work waits for in addition to its turn.
#[derive(Debug, Clone)]
pub(super) enum Wait {
    /// Nothing.
    Turn,
    /// Trace objects. Its partitions wait too.
    Context(Hold),
    /// One of the sink's keys. The work is deferred.
    Key(Arc<Deferral>),
    /// More `arrivals` than this: the backend failed on a single item. The work is deferred.
    Others(u64),
}

impl PartitionItems {
    /// Keeps the first `items_max` items; returns the others.
    pub(super) fn cut(&mut self, items_max: usize) -> Self {
        let places: Vec<usize> = (0..self.delivery.len()).collect();
        let (first, later) = places.split_at(items_max.clamp(1, places.len()));
        let delivery = self.delivery.only(later);
        self.delivery = self.delivery.only(first);
        Self { purpose: self.purpose.clone(), delivery, ..*self }
    }
}

impl Work {
    pub(super) fn of(piece: PartitionItems, partition: usize) -> Self {
        let entries = vec![piece.entry; piece.delivery.batch_count()];
        let (purpose, partitions, wait) = (piece.purpose, vec![partition], Wait::Turn);
        let tasks = VecDeque::from([Task { delivery: piece.delivery, ..Task::default() }]);
        Self { purpose, tasks, entries, partitions, wait, tried: 0 }
    }

    /// Returns whether a piece may be in the same delivery.
    pub(super) fn goes_with(&self, piece: &PartitionItems) -> bool {
        self.purpose.goes_with(&piece.purpose)
            && self.tasks.front().is_none_or(|task| task.delivery.goes_with(&piece.delivery))
    }

    /// Adds a piece of the same partition, before the first attempt.
    pub(super) fn add(&mut self, piece: PartitionItems) {
        let Some(task) = self.tasks.front_mut() else { return };
        self.entries.extend(std::iter::repeat_n(piece.entry, piece.delivery.batch_count()));
        task.delivery.append(piece.delivery);
    }

    /// Merges both into one delivery, before the first attempt.
    pub(super) fn with(mut self, mut other: Self) -> Self {
        if let (Some(first), Some(task)) = (self.tasks.front_mut(), other.tasks.pop_front()) {
            first.delivery.append(task.delivery);
        }
        self.entries.extend(other.entries);
        self.partitions.extend(other.partitions);
        self
    }

    /// Removes the items of these entries.
    pub(super) fn remove(&mut self, gone: &impl RangeBounds<u64>) {
        let entries = &self.entries;
        self.tasks.retain_mut(|Task { delivery, .. }| {
            let entry = |place: &usize| entries.get(delivery.batch_of(*place)?);
            let stays = |place: &usize| entry(place).is_some_and(|entry| !gone.contains(entry));
            let left: Vec<_> = (0..delivery.len()).filter(stays).collect();
            *delivery = delivery.only(&left);
            !left.is_empty()
        });
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

    /// Divides it into works without common traces, which may be attempted at the same time.
    pub(super) fn apart(mut self) -> impl Iterator<Item = Self> {
        let mut parts: Vec<(HashSet<_>, VecDeque<Task>)> = Vec::new();
        for task in std::mem::take(&mut self.tasks) {
            let items = task.delivery.items();
            let mut traces: HashSet<_> = items.map(|(_, item)| item.trace_id()).collect();
            let shares = |part: &mut (HashSet<_>, _)| !part.0.is_disjoint(&traces);
            let (known, mut tasks): (Vec<_>, Vec<_>) = parts.extract_if(.., shares).unzip();
            tasks.push(VecDeque::from([task]));
            traces.extend(known.into_iter().flatten());
            parts.push((traces, tasks.into_iter().flatten().collect()));
        }
        parts.into_iter().map(move |(_, tasks)| Self { tasks, ..self.clone() })
    }
}

/// The amount of deferred works, and of what they keep in memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DeferredAmount {
    pub(super) works: usize,
    pub(super) items: usize,
    /// Requests with items that wait for keys, and items on which a backend fails: how often each is kept, by address.
    pub(super) kept: HashMap<usize, usize>,
    /// The memory of these requests, and the size of these items, in bytes.
    pub(super) bytes: usize,
}

impl DeferredAmount {
    /// Adds or subtracts a work, as `step` does.
    pub(super) fn count(&mut self, work: &Work, step: fn(usize, usize) -> usize) {
        self.works = step(self.works, 1);
        self.items = step(self.items, work.items());
        let deliveries = work.tasks.iter().map(|task| &task.delivery);
        let kept: Vec<_> = if matches!(work.wait, Wait::Others(_)) {
            let items = deliveries.flat_map(Delivery::items);
            items.map(|(_, item)| (ptr::from_ref(item).addr(), item.wire().len())).collect()
        } else {
            let requests = deliveries.flat_map(Delivery::batches);
            requests.map(|it| (ptr::from_ref(it).addr(), it.bytes_when_read())).collect()
        };
        for (address, bytes) in kept.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let before = self.kept.remove(&address).unwrap_or_default();
            let after = step(before, 1);
            self.kept.extend((after > 0).then_some((address, after)));
            self.bytes = if before.min(after) == 0 { step(self.bytes, bytes) } else { self.bytes };
        }
    }
}
