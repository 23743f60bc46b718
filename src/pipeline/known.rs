//! What a lane knows of the traces that it delivers, for a sink that wants to know.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Batcher;
use super::slots::Hold;
use super::status::LaneStatus;
use crate::feed::{Arrived, DueRoot, Traces, look_back};
use crate::journal::{Journal, Mark};
use crate::sinks::Delivery;
use crate::span::{Batch, Item, Span, TraceContexts, TraceNeeds};

/// How long after it was received a request is in the journal at the latest, unless the journal is full. Until then a lane at the
/// journal's end does not know that a trace was quiet.
const IN_JOURNAL_WITHIN: Duration = Duration::from_secs(1);
/// The facts of so many spans are read where the lane runs; those of more, away from the runtime's threads.
const READ_INLINE_ITEMS_MAX: usize = 64;

/// A table of traces and what the sink wants of it. Empty for a sink that wants nothing.
pub(super) struct Known {
    needs: Option<TraceNeeds>,
    traces: Traces,
    status: Arc<LaneStatus>,
}

/// A delivery of roots.
pub(super) struct Roots {
    /// What to hand over.
    pub(super) delivery: Delivery,
    /// Roots that were due up to then are in this delivery or were in one before.
    pub(super) until_ns: u64,
}

impl Known {
    /// Nothing known yet.
    pub(super) fn new(
        needs: Option<TraceNeeds>,
        roots_until_ns: u64,
        status: Arc<LaneStatus>,
    ) -> Self {
        let traces = Traces::new(needs.unwrap_or_default(), roots_until_ns);
        Self { needs, traces, status }
    }

    /// Finds out what stands in the journal before the cursor. Returns since when the sink is owed roots, where that is news.
    pub(super) async fn look_back(
        &mut self,
        journal: &Journal<Arrived>,
        before: Mark,
        roots_until_ns: u64,
    ) -> Option<u64> {
        let needs = self.needs?;
        let journal = journal.clone();
        let mut traces = Traces::new(needs, roots_until_ns);
        let read = tokio::task::spawn_blocking(move || {
            look_back(&journal, before, &mut traces);
            traces
        });
        // When it panics, the table stays empty: contexts are poorer, and no span waits for that.
        if let Ok(traces) = read.await {
            self.traces = traces;
        }
        self.show();
        (roots_until_ns == 0).then(|| self.traces.join())
    }

    /// Takes note of what was read. Sinks read the facts later anyway; here only who reads them first is decided.
    pub(super) async fn add(&mut self, batch: &Arc<Batch>) {
        let Some(needs) = self.needs else { return };
        let is_read = move |span: &&Span| needs.traced.reads(span);
        if READ_INLINE_ITEMS_MAX < batch.items.len() && batch.spans().any(|span| is_read(&span)) {
            let batch = Arc::clone(batch);
            let read = move || {
                batch.spans().filter(is_read).for_each(|span| {
                    span.facts();
                });
            };
            // A panic would come again below, where it is seen.
            tokio::task::spawn_blocking(read).await.ok();
        }
        self.traces.feed(batch);
        self.show();
    }

    /// Everything that was received by now, but for the last moment, was read.
    pub(super) fn has_caught_up(&mut self, now_ns: u64) {
        if self.needs.is_some() {
            self.traces.advance(now_ns.saturating_sub(nanos(IN_JOURNAL_WITHIN)));
        }
    }

    /// The first so many of the requests that were read are settled.
    pub(super) fn settle(&mut self, feeds: u64) {
        self.traces.settle(feeds);
    }

    /// When [`Known::has_caught_up`] may bring a root to light, in nanoseconds since 1970; `None` when there is none to come.
    pub(super) fn next_root_at_ns(&self, batcher: &Batcher) -> Option<u64> {
        self.needs?;
        let at_ns = self.traces.next_root_at_ns(self.handed_over(batcher))?;
        Some(at_ns.saturating_add(nanos(IN_JOURNAL_WITHIN)))
    }

    /// Roots that are due and whose spans are no longer in the batcher.
    pub(super) fn take_roots(&mut self, batcher: &Batcher, count_max: usize) -> Option<Roots> {
        self.needs?;
        let due = self.traces.take_roots(count_max, self.handed_over(batcher))?;
        self.status.roots.fetch_add(due.roots.len() as u64, Ordering::Relaxed);
        self.show();
        Some(Roots { delivery: delivery_of(due.roots)?, until_ns: due.until_ns })
    }

    /// What a delivery has to wait for: the trace objects of native spans, each for `context_wait` from its arrival on. A lane that
    /// is behind therefore does not wait.
    pub(super) fn hold_for(&self, delivery: &Delivery, now_ns: u64) -> Option<Hold> {
        let wait_ns = nanos(self.needs?.context_wait);
        let mut hold = Hold { traces: Vec::new(), until_ns: 0 };
        for (batch, item) in delivery.items() {
            let Some(span) = item.as_span() else { continue };
            // Whatever the clock did since: nobody waits for longer than that from now.
            let received_at_ns = batch.source.received_at_ns.min(now_ns);
            let until_ns = received_at_ns.saturating_add(wait_ns);
            if span.is_otlp() || span.is_synthetic() || until_ns <= now_ns {
                continue;
            }
            if hold.traces.last() == Some(&span.trace_id)
                || self.traces.is_worth_waiting(span.trace_id)
            {
                hold.until_ns = hold.until_ns.max(until_ns);
                if hold.traces.last() != Some(&span.trace_id) {
                    hold.traces.push(span.trace_id);
                }
            }
        }
        (!hold.traces.is_empty()).then_some(hold)
    }

    /// Whether what was waited for is there, or was waited for long enough.
    pub(super) fn is_over(&mut self, hold: &Hold, now_ns: u64) -> bool {
        if hold.until_ns <= now_ns {
            self.traces.stop_waiting(&hold.traces);
            return true;
        }
        !hold.traces.iter().any(|trace| self.traces.is_worth_waiting(*trace))
    }

    /// The delivery with what is known of its traces now. It stays the same for all attempts.
    pub(super) fn with_contexts(&self, delivery: Delivery) -> Delivery {
        let has_its_own = delivery.spans().next().is_some_and(Span::is_synthetic);
        if self.needs.is_none() || has_its_own || delivery.has_contexts() {
            return delivery;
        }
        let contexts: TraceContexts = self.traces.contexts(delivery.items().map(|(_, item)| item));
        delivery.with_contexts(contexts)
    }

    /// How many of the requests that were read are no longer in the batcher.
    pub(super) fn handed_over(&self, batcher: &Batcher) -> u64 {
        self.traces.feeds().saturating_sub(batcher.records() as u64)
    }

    fn show(&self) {
        self.status.set_traces(self.traces.fill());
    }
}

/// A delivery of roots; `None` for none. What is known of their traces is frozen here: these may be forgotten before it is their
/// turn.
pub(super) fn delivery_of(roots: Vec<DueRoot>) -> Option<Delivery> {
    let mut delivery = Delivery::default();
    let mut contexts = HashMap::new();
    for DueRoot { span, source, context } in roots {
        contexts.insert(span.trace_id, context);
        let batch = Batch { source, items: vec![Item::Span(span)], bytes: 0 };
        delivery.add(&Arc::new(batch), 0..1);
    }
    (!delivery.is_empty()).then(|| delivery.with_contexts(Arc::new(contexts)))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
