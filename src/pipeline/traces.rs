//! The trace contexts of a lane, for a sink that needs them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::warn;

use super::BatchLimits;
use super::status::LaneStatus;
use crate::feed::{Attachment, Decisions, DueRoot, FeedEntry, Traces, look_back};
use crate::journal::{Journal, Position};
use crate::normalize::decode_record;
use crate::rules::{KnownTraces, Ruled, Rules};
use crate::sinks::Delivery;
use crate::span::{Batch, Item, Span, TraceId, TraceNeeds, Traced};
use crate::support::clock::nanos;
use crate::support::lock::lock;

/// Maximum time from receiving a request until it is in the journal, unless the journal is full. Until then a lane at the journal's end
/// cannot know that a trace was quiet.
pub(super) const IN_JOURNAL_WITHIN: Duration = Duration::from_secs(1);
/// Facts of up to this many spans are read on the lane's own task; more are read off the runtime's threads.
pub(super) const READ_INLINE_ITEMS_MAX: usize = 64;

/// A table of traces and the sink's needs. Empty if the sink needs nothing.
pub(super) struct LaneTraces {
    needs: Option<TraceNeeds>,
    pub(super) table: Traces,
    status: Arc<LaneStatus>,
}

/// A wait of spans for trace objects that have not been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    /// Their traces.
    pub(super) traces: Vec<TraceId>,
    /// Latest start of the delivery, in nanoseconds since 1970.
    pub(super) until_ns: u64,
}

impl LaneTraces {
    /// Creates an empty table.
    pub(super) fn new(needs: Option<TraceNeeds>, status: Arc<LaneStatus>) -> Self {
        let table = Traces::new(needs.unwrap_or_default(), status.cursor().stamp);
        Self { needs, table, status }
    }

    /// Fills the table from the journal before the cursor. A sink gets no roots from before it joined.
    pub(super) async fn look_back(
        &mut self,
        journal: &Journal<Attachment>,
        decisions: Option<Arc<Mutex<Decisions>>>,
    ) {
        let Some(needs) = self.needs else { return };
        let (journal, cursor) = (journal.clone(), self.status.cursor());
        let rules = Arc::clone(&self.status.rules);
        let mut table = Traces::new(needs, cursor.stamp);
        let read = tokio::task::spawn_blocking(move || {
            look_back(&journal, cursor.mark, (&rules, decisions.as_deref()), &mut table);
            table
        });
        // After a panic the table stays empty: contexts are incomplete, and no span waits for them.
        if let Ok(table) = read.await {
            self.table = table;
        }
        self.show();
        if cursor.stamp == 0 {
            let until = self.table.join();
            self.status.with_cursor(|cursor| cursor.stamp = until);
        }
    }

    /// Registers a record. Sinks read the facts later anyway; this only decides where they are read first.
    pub(super) async fn add(&mut self, fed: &FeedEntry, ruled: &Ruled) {
        let Some(needs) = self.needs else { return };
        let batch = &fed.batch;
        let traced = needs.traced;
        if READ_INLINE_ITEMS_MAX < batch.items.len()
            && batch.spans().any(|span| traced.follows(span))
        {
            let batch = Arc::clone(batch);
            let read = move || batch.spans().for_each(|span| read_ahead(span, traced));
            // A panic would occur again below, where it is handled.
            tokio::task::spawn_blocking(read).await.ok();
        }
        self.table.feed_ruled(ruled, fed.start.position);
        self.show();
    }

    /// Notes that everything received until a moment before `now_ns` was read.
    pub(super) fn has_caught_up(&mut self, now_ns: u64) {
        if self.needs.is_some() {
            self.table.advance(now_ns.saturating_sub(nanos(IN_JOURNAL_WITHIN)));
        }
    }

    /// Returns when [`LaneTraces::has_caught_up`] may find the next root due, in nanoseconds since 1970; `None` if no root is expected.
    pub(super) fn next_root_at_ns(&self) -> Option<u64> {
        let at_ns = self.table.next_root_at_ns()?;
        Some(at_ns.saturating_add(nanos(IN_JOURNAL_WITHIN)))
    }

    /// Takes a delivery of due roots, and the record before which the roots of all traces are in it or were sent. Their spans were queued
    /// before.
    pub(super) fn take_roots(&mut self, count_max: usize) -> Option<(Delivery, u64)> {
        let due = self.table.take_roots(count_max)?;
        self.status.roots.fetch_add(due.roots.len() as u64, Ordering::Relaxed);
        self.show();
        Some((delivery_of(due.roots)?, due.until))
    }

    /// Returns what a delivery waits for: the trace objects of Agents SDK spans, each for `context_wait` after it was received. A lane that
    /// is behind therefore does not wait.
    pub(super) fn hold_for(&self, delivery: &Delivery, now_ns: u64) -> Option<Hold> {
        let wait_ns = nanos(self.needs?.context_wait);
        let mut hold = Hold { traces: Vec::new(), until_ns: 0 };
        for (batch, item) in delivery.items() {
            let Some(span) = item.as_span() else { continue };
            // Even if the clock was changed, no span waits longer than this from now.
            let received_at_ns = batch.source.received_at_ns.min(now_ns);
            let until_ns = received_at_ns.saturating_add(wait_ns);
            if span.is_otlp() || span.is_synthetic() || until_ns <= now_ns {
                continue;
            }
            if hold.traces.last() == Some(&span.trace_id)
                || self.table.is_worth_waiting(span.trace_id)
            {
                hold.until_ns = hold.until_ns.max(until_ns);
                if hold.traces.last() != Some(&span.trace_id) {
                    hold.traces.push(span.trace_id);
                }
            }
        }
        (!hold.traces.is_empty()).then_some(hold)
    }

    /// Returns whether the trace objects arrived, or the wait is over.
    pub(super) fn is_over(&mut self, hold: &Hold, now_ns: u64) -> bool {
        if hold.until_ns <= now_ns {
            self.table.stop_waiting(&hold.traces);
            return true;
        }
        !hold.traces.iter().any(|trace| self.table.is_worth_waiting(*trace))
    }

    /// Adds the current trace contexts to the delivery. All attempts use the same ones.
    pub(super) fn with_contexts(&mut self, delivery: Delivery) -> Delivery {
        let has_its_own = delivery.spans().next().is_some_and(Span::is_synthetic);
        if self.needs.is_none() || has_its_own || delivery.has_contexts() {
            return delivery;
        }
        let contexts = self.table.contexts(delivery.items().map(|(_, item)| item));
        delivery.with_contexts(contexts)
    }

    /// Reads one delivery of amendments from the journal. Items that are gone from the journal are skipped.
    pub(super) async fn take_amendments(
        &mut self,
        journal: &Journal<Attachment>,
        decisions: Option<Arc<Mutex<Decisions>>>,
        limits: BatchLimits,
    ) -> Delivery {
        let (mut wanted, mut items) = (Vec::new(), 0);
        while items < limits.items_max
            && let Some((position, places)) = self.table.amendments.pop_first()
        {
            items += places.len();
            wanted.push((position, places));
        }
        let (journal, rules) = (journal.clone(), Arc::clone(&self.status.rules));
        let read = tokio::task::spawn_blocking(move || {
            read_again(&journal, (&rules, decisions.as_deref()), wanted, limits)
        });
        // After a panic, these spans stay as they were sent.
        let Ok((delivery, left, lost)) = read.await else {
            self.status.unamended.fetch_add(items as u64, Ordering::Relaxed);
            return Delivery::default();
        };
        self.table.amendments.extend(left);
        if lost != 0 {
            self.status.unamended.fetch_add(lost, Ordering::Relaxed);
            warn!(
                sink = self.status.sink,
                lost, "spans to be sent again are no longer in the journal"
            );
        }
        delivery
    }

    fn show(&self) {
        let (fill, before) = (self.table.fill(), self.status.traces().unwrap_or_default());
        self.status.set_traces(fill);
        let more = fill.rootless.saturating_sub(before.rootless);
        if more > 0 {
            let what = "too many traces at once: these get no root span";
            warn!(sink = self.status.sink, traces = more, "{what}");
        }
    }
}

/// Reads what [`Traces::feed`] needs from a span.
fn read_ahead(span: &Span, traced: Traced) {
    if traced.reads(span) {
        span.facts();
    } else if traced.follows(span) {
        span.spending();
    }
}

/// Records and indexes of items in them.
type Places = Vec<(Position, BTreeSet<usize>)>;

/// Reads items again, as many as fit in one delivery; the indexes are those at which they were received. Also returns the items for which
/// the delivery had no space, and the number of those that cannot be read any more. Blocks on the disk.
fn read_again(
    journal: &Journal<Attachment>,
    (rules, decisions): (&Rules, Option<&Mutex<Decisions>>),
    wanted: Places,
    limits: BatchLimits,
) -> (Delivery, Places, u64) {
    let (mut delivery, mut without_room, mut lost) = (Delivery::default(), Places::new(), 0);
    for (position, places) in wanted {
        if !delivery.is_empty() && limits.is_met_by(&delivery) {
            without_room.push((position, places));
            continue;
        }
        let record = journal.read_from(position).next().ok().flatten();
        let record = record.filter(|record| record.start.position == position);
        let payload = record.and_then(|record| record.payload);
        let Some(Ok((_, decoded))) = payload.as_ref().map(decode_record) else {
            lost += places.len() as u64;
            continue;
        };
        let sent = Arc::new(decoded.batch);
        let known = decisions.map(|decisions| lock(decisions).of_batch(&sent));
        let left = rules.apply_again(&sent, KnownTraces::of(known.as_ref()));
        lost += places.len() as u64;
        for place in 0..left.batch.items.len() {
            if places.contains(&left.place_before(place)) {
                delivery.add(&left.batch, place..place + 1);
                lost -= 1;
            }
        }
    }
    (delivery, without_room, lost)
}

/// Creates a delivery of roots; `None` if there are none. It fixes their trace contexts now, because the table may forget the traces before
/// the delivery begins.
pub fn delivery_of(roots: Vec<DueRoot>) -> Option<Delivery> {
    let mut delivery = Delivery::default();
    let mut contexts = HashMap::new();
    for DueRoot { span, source, context } in roots {
        contexts.insert(span.trace_id, context);
        let batch = Batch { source, items: vec![Item::Span(span)], bytes: 0 };
        delivery.add(&Arc::new(batch), 0..1);
    }
    (!delivery.is_empty()).then(|| delivery.with_contexts(Arc::new(contexts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{MemoryStorage, Options};

    #[test]
    fn what_the_journal_has_no_longer_is_counted_and_left_out() {
        let storage = Arc::<MemoryStorage>::default();
        let journal = Journal::open(&Options::default(), storage, |_| ()).unwrap();
        let limits = BatchLimits { items_max: 1, bytes_max: 1, age_max: Duration::ZERO };
        let wanted = vec![(Position(5), BTreeSet::from([0, 1])), (Position(9), [3].into())];
        let (delivery, left, lost) =
            read_again(&journal, (&Rules::default(), None), wanted, limits);
        assert_eq!((delivery.len(), left.len(), lost), (0, 0, 3));
    }
}
