//! Deliveries that cannot go yet for a reason of their own, put aside so that others can. Pure.
//!
//! They take no slot and are not counted among what is under way. The cursor cannot pass them, so after a crash they are read again,
//! and with them whatever went past them meanwhile. They are kept in memory, so there is a bound to them; at that bound the lane
//! starts nothing new until one of them goes.

use std::collections::HashMap;

use super::slots::Ticket;
use crate::sinks::Delivery;

/// Items in memory beside what is under way, in bytes on the wire: about 4,700 agent spans, minutes of what a busy fleet sends, and a
/// quarter of what a daemon may use beyond its budgets.
const BYTES_MAX: usize = 32 << 20;
/// Deliveries beside what is under way. Each may wait for something else, and that is asked for whenever the lane wakes up.
const DELIVERIES_MAX: usize = 1024;

/// What is put aside, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Parked {
    waiting: Vec<Aside>,
    bytes: usize,
    items: usize,
}

/// A delivery that is put aside.
#[derive(Debug)]
pub(super) struct Aside {
    /// The slot that it belongs to.
    pub(super) slot: usize,
    /// What it is a part of.
    pub(super) ticket: Ticket,
    /// What is to be delivered.
    pub(super) delivery: Delivery,
    /// What it waits for, in the sink's words.
    pub(super) waits_for: String,
}

impl Parked {
    /// Puts a delivery aside.
    pub(super) fn push(&mut self, aside: Aside) {
        self.bytes += aside.delivery.bytes();
        self.items += aside.delivery.len();
        self.waiting.push(aside);
    }

    /// Takes those that have to wait no longer, in order.
    pub(super) fn take(&mut self, has_to_wait: impl Fn(&str) -> bool) -> Vec<Aside> {
        let mut known: HashMap<String, bool> = HashMap::new();
        let mut waits = |aside: &Aside| match known.get(&aside.waits_for) {
            Some(&waits) => waits,
            None => *known.entry(aside.waits_for.clone()).or_insert(has_to_wait(&aside.waits_for)),
        };
        if self.waiting.iter().all(&mut waits) {
            return Vec::new();
        }
        self.split(waits)
    }

    /// Forgets the errands.
    pub(super) fn give_up_errands(&mut self) {
        self.split(|aside| matches!(aside.ticket, Ticket::Journal(_)));
    }

    /// Whether no more should be put aside.
    pub(super) fn is_full(&self) -> bool {
        BYTES_MAX <= self.bytes || DELIVERIES_MAX <= self.waiting.len()
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many items there are.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Keeps some; returns the others. Both stay in order.
    fn split(&mut self, keeps: impl FnMut(&Aside) -> bool) -> Vec<Aside> {
        let all = std::mem::take(&mut self.waiting);
        let (kept, taken): (Vec<_>, Vec<_>) = all.into_iter().partition(keeps);
        self.bytes = kept.iter().map(|aside| aside.delivery.bytes()).sum();
        self.items = kept.iter().map(|aside| aside.delivery.len()).sum();
        self.waiting = kept;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::span::{Batch, Item, Source, TraceId, TraceObject};

    fn aside(number: u64, waits_for: &str, bytes: usize) -> Aside {
        let object = Arc::new(TraceObject {
            trace_id: TraceId::new([1; 16]).unwrap(),
            native_id: "t".into(),
            workflow: None,
            group: None,
            metadata: None,
            wire: vec![b'x'; bytes].into(),
        });
        let batch = Batch { source: Source::unknown(), items: vec![Item::Trace(object)], bytes };
        let mut delivery = Delivery::default();
        delivery.add(&Arc::new(batch), 0..1);
        Aside {
            slot: 0,
            ticket: Ticket::Journal(number),
            delivery,
            waits_for: waits_for.to_owned(),
        }
    }

    #[test]
    fn what_waits_no_longer_is_taken_in_order_and_the_rest_stays() {
        let mut parked = Parked::default();
        for (number, waits_for) in ["a", "b", "a", "c"].into_iter().enumerate() {
            parked.push(aside(number as u64, waits_for, 10));
        }
        assert!(parked.take(|_| true).is_empty());
        let taken: Vec<_> = parked.take(|what| what == "a").into_iter().map(|a| a.ticket).collect();
        assert_eq!(taken, [Ticket::Journal(1), Ticket::Journal(3)]);
        assert_eq!((parked.items(), parked.bytes), (2, 20));
        assert_eq!(parked.take(|_| false).len(), 2);
        assert!(parked.is_empty() && parked.bytes == 0);
    }

    #[test]
    fn it_is_full_by_bytes_or_by_count() {
        let mut parked = Parked::default();
        parked.push(aside(0, "a", BYTES_MAX - 1));
        assert!(!parked.is_full());
        parked.push(aside(1, "a", 1));
        assert!(parked.is_full());
        parked.take(|_| false);
        (0..DELIVERIES_MAX as u64).for_each(|number| parked.push(aside(number, "a", 1)));
        assert!(parked.is_full());
    }
}
