//! Items that a lane has read but not finished: queued by trace, combined into deliveries, or deferred. Pure: callers pass the time.
//!
//! Each partition has a share of the traces and is busy until its delivery is finished, so that spans of one trace do not overtake each
//! other. A delivery takes the items of one partition, and of other free ones if it has space, so that few requests are sent at low load.
//! If the backend rejects it as a whole, its parts without common traces are attempted at the same time.
//! Items that cannot be sent for a specific reason (a key that is not known yet, a backend that seems to fail on the item) are deferred and
//! let others of their partition pass; only the cursor waits for them. Deferred items stay in memory, so their amount is bounded.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::{Add as _, RangeBounds, Sub as _};
use std::sync::Arc;
use std::time::Instant;

use super::BatchLimits;
use super::traces::LaneTraces;
use super::work::{DeferredAmount, PartitionItems};
pub(super) use super::work::{NO_ENTRY, Purpose, Task, Wait, Work};
use crate::sinks::{Deferral, Delivery, Sink};

impl BatchLimits {
    /// Returns whether a delivery is large enough.
    pub fn is_met_by(&self, delivery: &Delivery) -> bool {
        self.items_max <= delivery.len() || self.bytes_max <= delivery.bytes()
    }
}

/// Maximum memory of deferred items, in bytes: entire requests in memory for items that wait for a key, items on the wire for those on
/// which a backend fails. It holds some thousand agent spans, a minute's traffic of a busy fleet.
pub(super) const DEFERRED_BYTES_MAX: usize = 32 << 20;
/// Maximum number of deferred deliveries. Each may wait for something different, which is checked whenever the lane wakes up.
const DEFERRED_MAX: usize = 1024;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Window {
    limits: BatchLimits,
    partitions: Vec<Partition>,
    hasher: RandomState,
    /// Deliveries that wait.
    works: Vec<Work>,
    /// Of these, the deferred ones.
    deferred: DeferredAmount,
    /// Number of attempts that ended.
    attempts: u64,
}

#[derive(Debug, Default)]
struct Partition {
    queue: VecDeque<PartitionItems>,
    items: usize,
    bytes: usize,
    /// Number of works with its items, under way or waiting; deferred ones do not count.
    works: usize,
}

/// The conditions that decide which work may begin.
pub(super) struct Admission<'a> {
    /// The time of this turn, by both clocks.
    pub(super) now: Instant,
    pub(super) now_ns: u64,
    /// Whether nothing waits for a fuller batch or trace objects any more.
    pub(super) is_draining: bool,
    /// The lane's number of attempts that delivered something.
    pub(super) arrivals: u64,
    /// Whether another attempt is under way.
    pub(super) has_others: bool,
    /// Whether the breaker is open, so that other work should be attempted first.
    pub(super) is_open: bool,
    pub(super) traces: &'a mut LaneTraces,
    pub(super) sink: &'a dyn Sink,
}

impl Partition {
    fn is_due(&self, limits: BatchLimits, admission: &Admission<'_>) -> bool {
        let Some(first) = self.queue.front().filter(|_| self.works == 0) else { return false };
        admission.is_draining
            || self.items >= limits.items_max
            || self.bytes >= limits.bytes_max
            || first.since + limits.age_max <= admission.now
            || !matches!(first.purpose, Purpose::Journal)
            || first.delivery.has_contexts()
    }
}

impl Window {
    /// Creates an empty window with this many partitions.
    pub(super) fn new(limits: BatchLimits, partitions: usize) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        let (hasher, deferred) = (RandomState::new(), DeferredAmount::default());
        Self { limits, partitions, hasher, works: Vec::new(), deferred, attempts: 0 }
    }

    /// Returns whether deliveries are sequential and of entire records: the cursor of a sink with a checkpoint cannot be inside a record.
    pub(super) fn is_single(&self) -> bool {
        self.partitions.len() == 1
    }

    /// Queues the items of an entry.
    pub(super) fn push(
        &mut self,
        purpose: &Purpose,
        entry: u64,
        delivery: Delivery,
        since: Instant,
    ) {
        let count = self.partitions.len();
        let hasher = &self.hasher;
        let parts = delivery.partition(count, |trace| {
            let hash = usize::try_from(hasher.hash_one(trace) >> 32).unwrap_or_default();
            hash.checked_rem(count).unwrap_or_default()
        });
        for (at, delivery) in parts {
            if let Some(partition) = self.partitions.get_mut(at) {
                partition.items += delivery.len();
                partition.bytes += delivery.bytes();
                let purpose = purpose.clone();
                partition.queue.push_back(PartitionItems { purpose, entry, delivery, since });
            }
        }
    }

    /// Returns whether there is space to read more. The limit is one delivery more than may be under way, so that an unreachable backend
    /// keeps two of them in memory and not one per partition. Deferred items must be within their limits too.
    pub(super) fn has_room(&self, allowed: usize) -> bool {
        let count = allowed.min(self.partitions.len()) + 1;
        let queued = self.partitions.iter().map(|partition| (partition.items, partition.bytes));
        let works = self.works.iter().filter(|work| !work.is_deferred());
        let all = queued.chain(works.map(|work| (work.items(), work.bytes())));
        let (items, bytes) = all.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
        items < self.limits.items_max.saturating_mul(count)
            && bytes < self.limits.bytes_max.saturating_mul(count)
            && self.has_room_to_defer()
    }

    /// Returns whether deferred items are within their limits.
    pub(super) fn has_room_to_defer(&self) -> bool {
        let DeferredAmount { works, kept, bytes, .. } = &self.deferred;
        // A single request is allowed even if it exceeds the limit.
        let is_single = *works == 1 || kept.len() <= 1;
        *works < DEFERRED_MAX && (is_single || *bytes < DEFERRED_BYTES_MAX)
    }

    /// Returns whether any work waits for another attempt.
    pub(super) fn has_tried(&self) -> bool {
        self.works.iter().any(|work| work.tried > 0)
    }

    /// Returns the number of deferred items.
    pub(super) fn items_deferred(&self) -> usize {
        self.deferred.items
    }

    /// Returns whether only deferred items are left.
    pub(super) fn is_done(&self) -> bool {
        self.partitions.iter().all(|partition| partition.queue.is_empty())
            && self.works.len() == self.deferred.works
    }

    /// Returns when a queue becomes due by its age; `None` if all free partitions are empty.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let free = self.partitions.iter().filter(|partition| partition.works == 0);
        free.filter_map(|free| Some(free.queue.front()?.since + self.limits.age_max)).min()
    }

    /// Returns when the first work that waits for a trace object may begin, in nanoseconds since 1970.
    pub(super) fn hold_until_ns(&self) -> Option<u64> {
        let until = |work: &Work| match &work.wait {
            Wait::Context(hold) => Some(hold.until_ns),
            _ => None,
        };
        self.works.iter().filter_map(until).min()
    }

    /// Takes the next work to attempt.
    pub(super) fn next(&mut self, admission: &mut Admission<'_>) -> Option<Work> {
        let next = match self.next_work(admission) {
            // While all attempts fail, untried work may have better luck.
            Some(at) if self.works.get(at)?.tried > 0 && admission.is_open => {
                self.gather(admission).unwrap_or(at)
            }
            Some(at) => at,
            None => self.gather(admission).or_else(|| {
                // If nothing else is left, an item on which the backend seems to fail shows whether the backend works.
                let suspect =
                    |work: &Work| matches!(work.wait, Wait::Others(_)) && self.is_free(work);
                let only = !admission.has_others && self.is_done();
                self.works.iter().position(suspect).filter(|_| only)
            })?,
        };
        Some(self.begin(next))
    }

    /// Takes a work out. Its partitions are busy until [`Window::finish`].
    fn begin(&mut self, at: usize) -> Work {
        let work = self.works.remove(at);
        self.count(&work, usize::sub);
        let work = Work { wait: Wait::Turn, ..work };
        self.count(&work, usize::add);
        work
    }

    /// Returns the work that may begin and whose last attempt is the longest ago.
    fn next_work(&mut self, admission: &mut Admission<'_>) -> Option<usize> {
        let now_ns = admission.now_ns;
        let mut may_begin = |work: &Work| match &work.wait {
            Wait::Turn => true,
            Wait::Context(hold) => admission.is_draining || admission.traces.is_over(hold, now_ns),
            Wait::Key(deferral) => self.is_free(work) && !admission.sink.is_deferred(&deferral.key),
            Wait::Others(arrivals) => self.is_free(work) && admission.arrivals > *arrivals,
        };
        let works = self.works.iter().enumerate();
        let may_begin = works.filter(|(_, work)| may_begin(work));
        may_begin.min_by_key(|(_, work)| work.tried).map(|(at, _)| at)
    }

    /// Combines due items into deliveries until one may begin; returns its index.
    fn gather(&mut self, admission: &mut Admission<'_>) -> Option<usize> {
        let mut open: Option<Work> = None;
        let due: Vec<bool> =
            self.partitions.iter().map(|it| it.is_due(self.limits, admission)).collect();
        let is_due = |at: &usize| due.get(*at).copied().unwrap_or_default();
        let mut order: Vec<usize> = (0..self.partitions.len()).collect();
        order.sort_by_key(|at| !is_due(at));
        for at in order {
            if open.is_none() && !is_due(&at) {
                break;
            }
            let Some(work) = self.take(at, open.as_ref()) else { continue };
            let hold = match work.tasks.front() {
                Some(task) if !admission.is_draining => {
                    admission.traces.hold_for(&task.delivery, admission.now_ns)
                }
                _ => None,
            };
            if let Some(hold) = hold {
                self.put(Work { wait: Wait::Context(hold), ..work });
                continue;
            }
            open = Some(match open {
                None => work,
                Some(open) => open.with(work),
            });
        }
        self.put(open?);
        Some(self.works.len() - 1)
    }

    /// Takes items for one delivery from a partition, in addition to those of `open`.
    fn take(&mut self, at: usize, open: Option<&Work>) -> Option<Work> {
        let (limits, is_single) = (self.limits, self.is_single());
        let partition = self.partitions.get_mut(at).filter(|partition| partition.works == 0)?;
        let (mut items, mut bytes) = open.map_or((0, 0), |open| (open.items(), open.bytes()));
        let mut taken: Option<Work> = None;
        while let Some(piece) = partition.queue.front() {
            let more = &piece.delivery;
            let fits =
                items + more.len() <= limits.items_max && bytes + more.bytes() <= limits.bytes_max;
            let mut others = open.into_iter().chain(&taken);
            if items > 0 && !(fits && others.all(|other| other.goes_with(piece))) {
                break;
            }
            let Some(mut piece) = partition.queue.pop_front() else { break };
            if !is_single && piece.delivery.len() > limits.items_max {
                partition.queue.push_front(piece.cut(limits.items_max));
            }
            items += piece.delivery.len();
            bytes += piece.delivery.bytes();
            partition.items -= piece.delivery.len();
            partition.bytes = partition.bytes.saturating_sub(piece.delivery.bytes());
            match &mut taken {
                None => taken = Some(Work::of(piece, at)),
                Some(work) => work.add(piece),
            }
        }
        taken
    }

    /// Takes the first work in journal order that waits for a key, to give it up.
    pub(super) fn take_deferred(&mut self) -> Option<(Work, Arc<Deferral>)> {
        let deferral = |work: &Work| match &work.wait {
            Wait::Key(deferral) if self.is_free(work) => Some(Arc::clone(deferral)),
            _ => None,
        };
        let works = self.works.iter().enumerate();
        let deferred = works.filter_map(|(at, work)| Some((at, work, deferral(work)?)));
        let (at, _, deferral) = deferred.min_by_key(|(_, work, _)| work.entries.iter().min())?;
        Some((self.begin(at), deferral))
    }

    /// Ends an attempt: its work returns to the window, and so do the deferred tasks that it left, without items that the cursor has passed,
    /// because it waits for the entry `first`.
    pub(super) fn finish(&mut self, work: Work, deferred: Vec<(Task, Wait)>, first: u64) {
        self.count(&work, usize::sub);
        self.attempts += 1;
        let defer = |(task, wait)| Work { tasks: [task].into(), wait, ..work.clone() };
        let deferred: Vec<_> = deferred.into_iter().map(defer).collect();
        for mut left in deferred.into_iter().chain(work.apart()) {
            left.tried = self.attempts;
            left.remove(&..first);
            self.put(left);
        }
    }

    /// Removes the items of these entries.
    pub(super) fn remove(&mut self, gone: &impl RangeBounds<u64>) {
        for partition in &mut self.partitions {
            partition.queue.retain(|piece| !gone.contains(&piece.entry));
            partition.items = partition.queue.iter().map(|piece| piece.delivery.len()).sum();
            partition.bytes = partition.queue.iter().map(|piece| piece.delivery.bytes()).sum();
        }
        for mut work in std::mem::take(&mut self.works) {
            self.count(&work, usize::sub);
            work.remove(gone);
            self.put(work);
        }
    }

    /// Adds a work, unless nothing is left of it.
    fn put(&mut self, work: Work) {
        if !work.tasks.is_empty() {
            self.count(&work, usize::add);
            self.works.push(work);
        }
    }

    fn count(&mut self, work: &Work, step: fn(usize, usize) -> usize) {
        if work.is_deferred() {
            return self.deferred.count(work, step);
        }
        for &at in &work.partitions {
            if let Some(partition) = self.partitions.get_mut(at) {
                partition.works = step(partition.works, 1);
            }
        }
    }

    fn is_free(&self, work: &Work) -> bool {
        let mut partitions = work.partitions.iter().filter_map(|&at| self.partitions.get(at));
        partitions.all(|partition| partition.works == 0)
    }
}
