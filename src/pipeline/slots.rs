//! Deliveries that wait for their turn. Each slot has a part of the traces, so that those of one trace do not overtake each other.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};

use crate::sinks::Delivery;
use crate::span::TraceId;

/// The slots of a lane.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    partitions: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: VecDeque<Waiting>,
    is_busy: bool,
}

/// A delivery that waits for its turn.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What it is a part of.
    pub(super) ticket: Ticket,
    /// What is to be delivered.
    pub(super) delivery: Delivery,
    /// What it waits for, beside its turn.
    pub(super) hold: Option<Hold>,
}

/// What a delivery is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// What a lane reads, by its number in the frontier.
    Journal(u64),
    /// What is sent once more, since it became known that it was wrong; by its number in the frontier.
    Amendment(u64),
    /// An errand, by its number.
    Errand(u64),
}

/// Spans whose trace object has not been seen wait for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// Their traces.
    pub(super) traces: Vec<TraceId>,
    /// The latest that the delivery may begin, in nanoseconds since 1970.
    pub(super) until_ns: u64,
}

impl Slots {
    /// So many, all free.
    pub(super) fn new(count: usize) -> Self {
        let slots = (0..count).map(|_| Slot::default()).collect();
        Self { slots, partitions: RandomState::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Cuts a delivery into parts, each with the slot that it belongs to.
    pub(super) fn partition(&self, delivery: Delivery) -> Vec<(usize, Delivery)> {
        let count = self.slots.len();
        delivery.partition(count, |trace| {
            let hash = usize::try_from(self.partitions.hash_one(trace) >> 32).unwrap_or_default();
            hash.checked_rem(count).unwrap_or_default()
        })
    }

    /// Has a delivery wait for its turn.
    pub(super) fn push(&mut self, slot: usize, waiting: Waiting) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.waiting.push_back(waiting);
        }
    }

    /// Has a delivery wait before all others of its slot.
    pub(super) fn push_first(&mut self, slot: usize, waiting: Waiting) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.waiting.push_front(waiting);
        }
    }

    /// The first that wait, each with its slot; only of slots that are free.
    pub(super) fn first(&self) -> impl Iterator<Item = (usize, &Waiting)> {
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_busy);
        free.filter_map(|(at, slot)| Some((at, slot.waiting.front()?)))
    }

    /// Takes the first that waits; its slot is busy until [`Slots::free`].
    pub(super) fn take(&mut self, at: usize) -> Option<Waiting> {
        let slot = self.slots.get_mut(at)?;
        let waiting = slot.waiting.pop_front()?;
        slot.is_busy = true;
        Some(waiting)
    }

    /// What was under way has ended.
    pub(super) fn free(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            slot.is_busy = false;
        }
    }

    /// Forgets the errands that wait.
    pub(super) fn give_up_errands(&mut self) {
        for slot in &mut self.slots {
            slot.waiting.retain(|waiting| !matches!(waiting.ticket, Ticket::Errand(_)));
        }
    }

    /// Forgets all that waits and is under way.
    pub(super) fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
    }
}
