//! What a lane has read and not finished: queued by trace, gathered into deliveries, or waiting aside. Pure: it is told the time.
//!
//! Each partition has a share of the traces, so that those of one trace do not overtake each other: a partition is busy until its
//! delivery is finished. A delivery is of one partition, and of others that are free where it has room left, so that few requests go
//! out at low load. What cannot go for a reason of its own (a key that is not known yet, an item that the backend seems to break on)
//! stands aside and lets others of its partition pass; only the cursor waits for it. It is kept in memory, so there is a bound to it.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Instant;

use super::BatchLimits;
use super::job::Job;
use super::traces::{Hold, LaneTraces};
use crate::sinks::{Delivery, Sink};

impl BatchLimits {
    /// Whether a delivery is as large as one should be.
    pub fn is_met_by(&self, delivery: &Delivery) -> bool {
        self.items_max <= delivery.len() || self.bytes_max <= delivery.bytes()
    }
}

/// Memory of what stands aside, in bytes on the wire: about 4,700 agent spans, minutes of what a busy fleet sends.
const ASIDE_BYTES_MAX: usize = 32 << 20;
/// Deliveries that stand aside. Each may wait for something else, and that is asked for whenever the lane wakes up.
const ASIDE_MAX: usize = 1024;

/// See the page's head.
#[derive(Debug)]
pub(super) struct Window {
    limits: BatchLimits,
    partitions: Vec<Partition>,
    hasher: RandomState,
    /// Deliveries that began or wait for something.
    works: Vec<Work>,
    attempts: u64,
}

#[derive(Debug, Default)]
struct Partition {
    queue: VecDeque<Piece>,
    items: usize,
    bytes: usize,
    is_busy: bool,
}

/// Items of one entry that go to one partition.
#[derive(Debug)]
struct Piece {
    purpose: Purpose,
    entry: u64,
    delivery: Delivery,
    since: Instant,
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
    partitions: Vec<usize>,
    wait: Wait,
    /// The number of the last attempt; 0 before the first.
    tried: u64,
    /// Whether no attempt was made before this one.
    pub(super) is_first: bool,
}

/// A part of a delivery that is tried alone.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// What is handed over.
    pub(super) delivery: Delivery,
    /// Attempts in a row on which the backend broke.
    pub(super) faults: u32,
    /// How much had arrived when the backend first broke on this, or on what this was cut from.
    pub(super) broken_since: Option<u64>,
}

/// What a work waits for, beside its turn.
#[derive(Debug)]
pub(super) enum Wait {
    /// Nothing.
    Turn,
    /// Trace objects. Its partitions wait with it.
    Context(Hold),
    /// A key of the sink's. It stands aside.
    Key(String),
    /// That more arrives than this: one item alone on which the backend broke. It stands aside.
    Others(u64),
}

/// What decides which work may begin.
pub(super) struct Admission<'a> {
    /// The time of this turn, by both clocks.
    pub(super) now: Instant,
    pub(super) now_ns: u64,
    /// Whether nothing waits for company or trace objects any more.
    pub(super) is_draining: bool,
    /// How much has arrived so far.
    pub(super) arrivals: u64,
    /// Whether something else is under way.
    pub(super) has_others: bool,
    /// Whether the backend works for nobody, so that something else should be tried first.
    pub(super) is_open: bool,
    pub(super) traces: &'a mut LaneTraces,
    pub(super) sink: &'a dyn Sink,
}

impl Piece {
    /// Keeps the first so many items; returns the others.
    fn cut(&mut self, items_max: usize) -> Self {
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

impl Partition {
    fn is_due(&self, limits: BatchLimits, admission: &Admission<'_>) -> bool {
        let Some(first) = self.queue.front().filter(|_| !self.is_busy) else { return false };
        admission.is_draining
            || self.items >= limits.items_max
            || self.bytes >= limits.bytes_max
            || first.since + limits.age_max <= admission.now
            || !matches!(first.purpose, Purpose::Journal)
            || first.delivery.has_contexts()
    }
}

impl Work {
    fn of(piece: Piece, partition: usize) -> Self {
        let entries = vec![piece.entry; piece.delivery.batch_count()];
        let task = Task { delivery: piece.delivery, faults: 0, broken_since: None };
        Self {
            purpose: piece.purpose,
            tasks: VecDeque::from([task]),
            entries,
            partitions: vec![partition],
            wait: Wait::Turn,
            tried: 0,
            is_first: true,
        }
    }

    /// Whether a piece may be in the same delivery.
    fn goes_with(&self, piece: &Piece) -> bool {
        self.purpose.goes_with(&piece.purpose)
            && self.tasks.front().is_none_or(|task| task.delivery.goes_with(&piece.delivery))
    }

    /// Adds a piece of the same partition, before the first attempt.
    fn add(&mut self, piece: Piece) {
        let Some(task) = self.tasks.front_mut() else { return };
        self.entries.extend(std::iter::repeat_n(piece.entry, piece.delivery.batch_count()));
        task.delivery.append(piece.delivery);
    }

    /// Both as one delivery, before the first attempt.
    fn with(mut self, mut other: Self) -> Self {
        if let (Some(first), Some(task)) = (self.tasks.front_mut(), other.tasks.pop_front()) {
            first.delivery.append(task.delivery);
        }
        self.entries.extend(other.entries);
        self.partitions.extend(other.partitions);
        self
    }

    fn stands_aside(&self) -> bool {
        matches!(self.wait, Wait::Key(_) | Wait::Others(_))
    }

    fn items(&self) -> usize {
        self.tasks.iter().map(|task| task.delivery.len()).sum()
    }

    fn bytes(&self) -> usize {
        self.tasks.iter().map(|task| task.delivery.bytes()).sum()
    }

    /// Items of it that wait for something of their own.
    pub(super) fn aside(&self, task: Task, wait: Wait) -> Self {
        Self {
            purpose: self.purpose.clone(),
            tasks: VecDeque::from([task]),
            entries: self.entries.clone(),
            partitions: self.partitions.clone(),
            wait,
            tried: self.tried,
            is_first: false,
        }
    }
}

impl Window {
    /// An empty one, of so many partitions.
    pub(super) fn new(limits: BatchLimits, partitions: usize) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| Partition::default()).collect();
        Self { limits, partitions, hasher: RandomState::new(), works: Vec::new(), attempts: 0 }
    }

    /// Whether one delivery at a time is made, of whole records: the cursor of a sink with a checkpoint cannot stand inside a record.
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
                partition.queue.push_back(Piece {
                    purpose: purpose.clone(),
                    entry,
                    delivery,
                    since,
                });
            }
        }
    }

    /// Whether there is room to read more: for a delivery more than may be under way, so that a backend that is away holds two of them
    /// in memory and not one for each partition; and what stands aside is within its bounds.
    pub(super) fn has_room(&self, allowed: usize) -> bool {
        let count = allowed.min(self.partitions.len()) + 1;
        let (mut items, mut bytes) = (0, 0);
        for partition in &self.partitions {
            items += partition.items;
            bytes += partition.bytes;
        }
        for work in self.works.iter().filter(|work| !work.stands_aside()) {
            items += work.items();
            bytes += work.bytes();
        }
        items < self.limits.items_max.saturating_mul(count)
            && bytes < self.limits.bytes_max.saturating_mul(count)
            && self.has_room_aside()
    }

    /// Whether what stands aside is within its bounds.
    pub(super) fn has_room_aside(&self) -> bool {
        let aside = || self.works.iter().filter(|work| work.stands_aside());
        aside().map(Work::bytes).sum::<usize>() < ASIDE_BYTES_MAX && aside().count() < ASIDE_MAX
    }

    /// Whether there is nothing but what is under way, in so many deliveries.
    pub(super) fn is_empty(&self, under_way: usize) -> bool {
        under_way == 0 && self.works.is_empty()
    }

    /// Whether something waits for another attempt.
    pub(super) fn has_tried(&self) -> bool {
        self.works.iter().any(|work| work.tried > 0)
    }

    /// Items that stand aside.
    pub(super) fn items_aside(&self) -> usize {
        self.works.iter().filter(|work| work.stands_aside()).map(Work::items).sum()
    }

    /// Whether nothing is left but what stands aside.
    pub(super) fn is_done(&self) -> bool {
        self.partitions.iter().all(|partition| partition.queue.is_empty())
            && self.works.iter().all(Work::stands_aside)
    }

    /// When a queue is due by its age; `None` where none is queued at a partition that is free.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let free = self.partitions.iter().filter(|partition| !partition.is_busy);
        free.filter_map(|free| Some(free.queue.front()?.since + self.limits.age_max)).min()
    }

    /// When the first work may begin that waits for a trace object, in nanoseconds since 1970.
    pub(super) fn hold_until_ns(&self) -> Option<u64> {
        let until = |work: &Work| match &work.wait {
            Wait::Context(hold) => Some(hold.until_ns),
            _ => None,
        };
        self.works.iter().filter_map(until).min()
    }

    /// Takes the next work that may be tried. Its partitions are busy until [`Window::finish`].
    pub(super) fn next(&mut self, admission: &mut Admission<'_>) -> Option<Work> {
        let next = match self.next_work(admission) {
            // While nobody is served, somebody else may have better luck.
            Some(at) if self.works.get(at)?.tried > 0 && admission.is_open => {
                self.gather(admission).unwrap_or(at)
            }
            Some(at) => at,
            None => self.gather(admission).or_else(|| {
                // With nobody else to try, what the backend seems to break on shows whether it works.
                let suspect =
                    |work: &Work| matches!(work.wait, Wait::Others(_)) && self.is_free(work);
                let only = !admission.has_others && self.is_done();
                self.works.iter().position(suspect).filter(|_| only)
            })?,
        };
        let mut work = self.works.remove(next);
        work.wait = Wait::Turn;
        self.attempts += 1;
        work.is_first = work.tried == 0;
        work.tried = self.attempts;
        self.mark(&work, true);
        Some(work)
    }

    /// The work that was tried longest ago of those that may be.
    fn next_work(&mut self, admission: &mut Admission<'_>) -> Option<usize> {
        let now_ns = admission.now_ns;
        let mut may_begin = |work: &Work| match &work.wait {
            Wait::Turn => true,
            Wait::Context(hold) => admission.is_draining || admission.traces.is_over(hold, now_ns),
            Wait::Key(key) => self.is_free(work) && !admission.sink.is_deferred(key),
            Wait::Others(arrivals) => self.is_free(work) && admission.arrivals > *arrivals,
        };
        let works = self.works.iter().enumerate();
        let may_begin = works.filter(|(_, work)| may_begin(work));
        may_begin.min_by_key(|(_, work)| work.tried).map(|(at, _)| at)
    }

    /// Makes deliveries of what is due until one of them may begin; returns which.
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
                self.mark(&work, true);
                self.works.push(Work { wait: Wait::Context(hold), ..work });
                continue;
            }
            open = Some(match open {
                None => work,
                Some(open) => open.with(work),
            });
        }
        self.works.push(open?);
        Some(self.works.len() - 1)
    }

    /// Takes what goes in one delivery from a partition, with what another work has already.
    fn take(&mut self, at: usize, open: Option<&Work>) -> Option<Work> {
        let (limits, is_single) = (self.limits, self.is_single());
        let partition = self.partitions.get_mut(at).filter(|partition| !partition.is_busy)?;
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

    /// Takes back a work after an attempt. With nothing left to do, its partitions are free.
    pub(super) fn finish(&mut self, work: Work) {
        self.mark(&work, !work.tasks.is_empty());
        self.works.extend(Some(work).filter(|work| !work.tasks.is_empty()));
    }

    /// Has items stand aside that an attempt left. The partitions are those of the attempt's work, which is finished after.
    pub(super) fn put_aside(&mut self, work: Work) {
        self.works.push(work);
    }

    /// Forgets what replays have left to do.
    pub(super) fn give_up_replays(&mut self) {
        let is_replay = |purpose: &Purpose| matches!(purpose, Purpose::Replay(_));
        for partition in &mut self.partitions {
            partition.queue.retain(|piece| !is_replay(&piece.purpose));
            partition.items = partition.queue.iter().map(|piece| piece.delivery.len()).sum();
            partition.bytes = partition.queue.iter().map(|piece| piece.delivery.bytes()).sum();
        }
        while let Some(at) = self.works.iter().position(|work| is_replay(&work.purpose)) {
            let work = self.works.remove(at);
            if !work.stands_aside() {
                self.mark(&work, false);
            }
        }
    }

    fn mark(&mut self, work: &Work, is_busy: bool) {
        for &at in &work.partitions {
            if let Some(partition) = self.partitions.get_mut(at) {
                partition.is_busy = is_busy;
            }
        }
    }

    fn is_free(&self, work: &Work) -> bool {
        let mut partitions = work.partitions.iter().filter_map(|&at| self.partitions.get(at));
        partitions.all(|partition| !partition.is_busy)
    }
}
