//! Gathers what a lane reads into deliveries. Pure: it is told the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::feed::Fed;
use crate::journal::Mark;
use crate::sinks::Delivery;

/// When a delivery is due: whichever bound is met first.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Items in one delivery.
    pub items_max: usize,
    /// Bytes of one delivery, as the items were on the wire.
    pub bytes_max: usize,
    /// The longest that an item waits for company.
    pub age_max: Duration,
}

/// What happens to a record with more items than a delivery may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It is cut into several deliveries.
    Records,
    /// It is delivered as a whole. A sink that saves its state with the cursor needs that: the cursor cannot stand inside a record.
    Nothing,
}

/// A delivery that is due.
#[derive(Debug)]
pub struct Ready {
    /// What to hand over.
    pub delivery: Delivery,
    /// What is settled once it is: `None` while a record that was cut into several deliveries has more to come.
    pub settles: Option<Mark>,
    /// When the first of its items was received, in nanoseconds since 1970.
    pub oldest_received_at_ns: u64,
    /// Records that are whole but that this version does not understand, with their items.
    pub not_understood: Vec<(Bytes, u64)>,
    /// Items that the journal counts but that are damaged on disk.
    pub damaged: u64,
}

/// What was read and not yet handed over.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    cut: Cut,
    waiting: VecDeque<Waiting>,
    items: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    fed: Fed,
    since: Instant,
    /// Items of it that were handed over before.
    taken: usize,
}

impl Batcher {
    /// An empty one.
    pub fn new(limits: BatchLimits, cut: Cut) -> Self {
        Self { limits, cut, waiting: VecDeque::new(), items: 0, bytes: 0 }
    }

    /// Adds what was read.
    pub fn push(&mut self, fed: Fed, now: Instant) {
        self.items += fed.batch.items.len();
        self.bytes += fed.batch.bytes;
        self.waiting.push_back(Waiting { fed, since: now, taken: 0 });
    }

    /// When the oldest item has waited long enough; `None` when nothing waits.
    pub fn due_at(&self) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.since + self.limits.age_max)
    }

    /// Whether no more should be pushed before something is taken.
    pub fn is_full(&self) -> bool {
        self.items >= self.limits.items_max || self.bytes >= self.limits.bytes_max
    }

    /// How many records have something that waits.
    pub fn records(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the oldest that waits was received, in nanoseconds since 1970.
    pub fn oldest_received_at_ns(&self) -> Option<u64> {
        self.waiting.front().map(|oldest| oldest.fed.batch.source.received_at_ns)
    }

    /// The next delivery, if one is due.
    pub fn due(&mut self, now: Instant) -> Option<Ready> {
        (self.is_full() || self.due_at().is_some_and(|at| at <= now)).then(|| self.take()).flatten()
    }

    /// The next delivery, due or not.
    pub fn take(&mut self) -> Option<Ready> {
        let oldest_received_at_ns = self.oldest_received_at_ns()?;
        let mut ready = Ready {
            delivery: Delivery::default(),
            settles: None,
            oldest_received_at_ns,
            not_understood: Vec::new(),
            damaged: 0,
        };
        while let Some(first) = self.waiting.front_mut() {
            let room = self.limits.items_max.saturating_sub(ready.delivery.len());
            let left = first.fed.batch.items.len() - first.taken;
            let fits = ready.delivery.bytes() + first.fed.batch.bytes <= self.limits.bytes_max;
            if !ready.delivery.is_empty() && (left > room || !fits) {
                break;
            }
            let count = match self.cut {
                Cut::Records => left.min(room),
                Cut::Nothing => left,
            };
            ready.delivery.add(&first.fed.batch, first.taken..first.taken + count);
            first.taken += count;
            self.items -= count;
            if first.taken < first.fed.batch.items.len() {
                ready.settles = None;
                break;
            }
            ready.settles = Some(first.fed.end);
            match first.fed.not_understood.take() {
                Some(record) => ready.not_understood.push((record, first.fed.unreadable())),
                None => ready.damaged += first.fed.unreadable(),
            }
            self.bytes -= first.fed.batch.bytes;
            self.waiting.pop_front();
        }
        Some(ready)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::Position;
    use crate::span::{Batch, Item, Source, TraceId, TraceObject};

    fn fed(items: u64) -> Fed {
        let item = || {
            Item::Trace(Arc::new(TraceObject {
                trace_id: TraceId::new([1; 16]).unwrap(),
                native_id: "t".into(),
                workflow: None,
                group: None,
                metadata: None,
                wire: Bytes::from_static(b"{}"),
            }))
        };
        let batch = Batch {
            source: Source::unknown(),
            items: (0..items).map(|_| item()).collect(),
            bytes: 10,
        };
        let end = Mark { position: Position(items), items };
        Fed { start: Mark::default(), end, batch: Arc::new(batch), not_understood: None }
    }

    fn taken(cut: Cut) -> Vec<(usize, bool)> {
        let limits = BatchLimits { items_max: 4, bytes_max: 1000, age_max: Duration::from_secs(1) };
        let mut batcher = Batcher::new(limits, cut);
        batcher.push(fed(10), tokio::time::Instant::now().into_std());
        std::iter::from_fn(|| batcher.take())
            .map(|ready| (ready.delivery.len(), ready.settles.is_some()))
            .collect()
    }

    #[test]
    fn a_large_record_is_settled_with_its_last_part() {
        assert_eq!(taken(Cut::Records), [(4, false), (4, false), (2, true)]);
    }

    #[test]
    fn a_record_that_must_not_be_cut_is_taken_whole() {
        assert_eq!(taken(Cut::Nothing), [(10, true)]);
    }
}
