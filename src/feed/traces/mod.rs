//! A lane's table of trace contexts, fed in journal order: facts of traces beyond the spans at hand. Pure: callers pass the time.
//!
//! Each lane that needs a table has one, so that a lane far behind, a replay and a lane that keeps up all see the context at their position
//! in the journal. The table needs no store: after a start it is fed with the records before the lane's cursor (`lookback.rs`).
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | traces | [`TRACES_MAX`] | the trace that was quiet for longest is evicted, which is counted; its pending root is sent immediately |
//! | memory | [`BYTES_MAX`] | the same |
//! | age | [`FORGET_AFTER`] without a span, everything before delivered | forgotten |
//! | spans, agents of a trace | `SPANS_MAX`, `AGENTS_MAX` | see `bounds.rs` |
//! | texts, labels, metadata, payloads, contents | `TEXT_BYTES_MAX`, `TAGS_MAX` ... | see `bounds.rs` |
//! | roots of evicted traces that wait to be sent | `EARLY_BYTES_MAX` | no more are created, which is counted: these traces have none |
//! | traces whose root was sent | `SENT_MAX` | a trace that continues later gets a second root |
//!
//! A later span of an evicted trace starts a new entry.
//!
//! # Roots and time
//!
//! A trace's root is due once no record has brought a span of it for a while. Roots are therefore due in the order in which their traces
//! were last touched, and one position tells which were sent. It is kept across restarts; a time would be wrong after the clock is set
//! back. The table's own time never goes back (`journal_time.rs`).

mod agents;
mod bounds;
mod contents;
mod roots;
mod sent;
mod trace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use self::roots::{EarlyRoots, Pending, Root, SENT_MAX};
use self::sent::Amendments;
use self::trace::Trace;
use super::journal_time::JournalTime;
use crate::journal::Position;
use crate::normalize::{RootSource, root_span};
use crate::rules::Ruled;
use crate::span::{Batch, Item, RootSpan, Source, Span, TraceContexts, TraceId, TraceNeeds};
use crate::support::by_touch::{ByTouch, Weighed};
use crate::support::clock::nanos;
use crate::support::recent::Recent;

pub use self::agents::{Agents, SpanTree};
#[cfg(test)]
use self::roots::EARLY_BYTES_MAX;
pub use self::roots::{DueRoot, DueRoots};

/// Maximum number of traces. A typical trace takes some KiB, so only very small traces reach this limit.
const TRACES_MAX: usize = 65_536;
/// Maximum memory of a table, in bytes, estimated. It holds the traces of the last minute at a hundred new ones per second.
const BYTES_MAX: usize = 16 << 20;
/// A trace that was quiet for this long is over, or starts anew. The lookback after a start is meant to reach this far.
pub(super) const FORGET_AFTER: Duration = Duration::from_mins(15);

/// The mark of the first trace with a pending root; the traces before it have none.
const OWING: usize = 0;

/// The table of trace contexts.
#[derive(Debug, Default)]
pub struct Traces {
    needs: TraceNeeds,
    entries: ByTouch<TraceId, Entry, 1>,
    /// Records before this no longer matter; see [`behind`].
    settled_until: u64,
    evicted: u64,
    clock: JournalTime,
    /// Roots of traces that were evicted before their roots were due.
    early: EarlyRoots,
    /// Traces whose root was sent recently.
    sent: Recent<SENT_MAX, TraceId>,
    /// The roots of traces whose last record is before this were sent; see [`behind`].
    roots_until: u64,
    /// The last record that was fed; see [`behind`].
    fed_until: u64,
    /// Spans to send again, because later spans showed that their context was wrong.
    pub amendments: Amendments,
}

#[derive(Debug, Default)]
struct Entry {
    trace: Trace,
    /// When its last item was read, in the table's time.
    last_ns: u64,
    /// The record of its last item; see [`behind`].
    behind: u64,
    root: Root,
    /// Whether one of its spans has waited for the trace object as long as allowed.
    has_waited: bool,
}

/// The fill of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Number of traces.
    pub traces: u64,
    /// Memory in bytes, estimated.
    pub bytes: u64,
    /// Number of traces evicted since the start.
    pub evicted: u64,
    /// Of these, those with a pending root for which there was no space.
    pub rootless: u64,
}

impl Traces {
    /// Creates an empty table. The roots of traces whose last record is before `roots_until` were sent, as in [`DueRoots`].
    pub fn new(needs: TraceNeeds, roots_until: u64) -> Self {
        Self { needs, roots_until, ..Self::default() }
    }

    /// Adds the request whose record starts at `position`, after rules.
    pub fn feed_ruled(&mut self, ruled: &Ruled, position: Position) {
        self.feed_at(&ruled.batch, position, |place| ruled.place_before(place));
    }

    /// Adds the request whose record starts at `position`, in journal order. The time advances to its arrival first.
    pub fn feed(&mut self, batch: &Batch, position: Position) {
        self.feed_at(batch, position, |place| place);
    }

    fn feed_at(
        &mut self,
        batch: &Batch,
        position: Position,
        place_in_record: impl Fn(usize) -> usize,
    ) {
        self.advance(batch.source.received_at_ns);
        self.fed_until = behind(position);
        let mut touched = Vec::new();
        for (place, item) in batch.items.iter().enumerate() {
            let id = item.trace_id();
            let follows = |span: &Span| self.needs.traced.follows(span);
            if !item.as_span().is_none_or(follows) && self.entries.get(&id).is_none() {
                continue;
            }
            let (needs, fed_until, last_ns) = (&self.needs, self.fed_until, self.clock.now_ns());
            let was_sent = || self.sent.get(&id).is_some();
            let fed_before = self.entries.touch(id, |entry| {
                match item {
                    Item::Span(span) => {
                        let at = needs.replaces_by_id.then(|| (position, place_in_record(place)));
                        entry.trace.add_span(span, needs, at);
                        let is_sent = span.parent_id.is_none() && was_sent();
                        entry.owe_root_from(span, &batch.source, needs.root, is_sent);
                    }
                    Item::Trace(object) => entry.trace.add_object(object),
                }
                entry.last_ns = last_ns;
                std::mem::replace(&mut entry.behind, fed_until)
            });
            if fed_before < fed_until {
                touched.push(id);
            }
            while BYTES_MAX < self.entries.bytes() || TRACES_MAX < self.entries.count() {
                self.forget_oldest();
                self.evicted += 1;
            }
        }
        self.pass_rootless();
        for id in touched.into_iter().filter(|_| self.needs.replaces_by_id) {
            self.entries.change(&id, |entry| entry.trace.amend(&mut self.amendments));
        }
    }

    /// Advances the time.
    pub fn advance(&mut self, now_ns: u64) {
        self.clock.tell(now_ns);
        while let Some((id, entry)) = self.first_due()
            && entry.behind <= self.roots_until
        {
            self.take_root(id);
        }
        self.forget_old();
    }

    /// Notes that records that start before `until` were delivered. Only their traces are forgotten with age, because a sink may be down
    /// for long.
    pub fn settle(&mut self, until: Position) {
        self.settled_until = self.settled_until.max(behind(until));
        self.forget_old();
    }

    /// Starts to create roots: everything fed so far was before the sink joined, or was sent without roots. Returns the record up to which
    /// all roots count as sent, as in [`DueRoots`].
    pub fn join(&mut self) -> u64 {
        self.early = EarlyRoots::default();
        self.entries.change_all(|entry| entry.root = Root::Unneeded);
        self.pass_rootless();
        self.roots_until = self.fed_until.max(1);
        self.roots_until
    }

    /// Returns whether a span still has to wait for its trace object: it was not seen, and no span has waited for it before.
    pub fn is_worth_waiting(&self, trace: TraceId) -> bool {
        let entry = self.entries.get(&trace);
        entry.is_some_and(|entry| !entry.trace.has_object() && !entry.has_waited)
    }

    /// Ends the waits of these traces for their trace objects.
    pub fn stop_waiting(&mut self, traces: &[TraceId]) {
        for trace in traces {
            self.entries.change(trace, |entry| entry.has_waited = true);
        }
    }

    /// Notes that everything fed so far was sent, with the context known now.
    pub fn note_all_sent(&mut self) {
        self.amendments.clear();
        self.entries.change_all(|entry| entry.trace.told_all());
    }

    /// Returns the current contexts of the traces of these items, which are about to be sent with them.
    pub fn contexts<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>) -> TraceContexts {
        let mut spans: HashMap<TraceId, Vec<&Span>> = HashMap::new();
        for item in items {
            spans.entry(item.trace_id()).or_default().extend(item.as_span());
        }
        let context = |(id, spans): (TraceId, Vec<&Span>)| {
            let context = self.entries.change(&id, |Entry { trace, .. }| {
                let context = trace.context(&spans);
                trace.told(&spans, &context);
                context
            })?;
            Some((id, context))
        };
        Arc::new(spans.into_iter().filter_map(context).collect())
    }

    /// Takes about `count_max` due roots; `None` if there are none.
    pub fn take_roots(&mut self, count_max: usize) -> Option<DueRoots> {
        let mut roots: Vec<_> = self.early.take(count_max).collect();
        let mut until = 0;
        // Roots of one record go together, so that its position tells which were sent.
        while let Some((id, entry)) = self.first_due()
            && (roots.len() < count_max || entry.behind == until)
        {
            until = entry.behind;
            roots.extend(self.take_root(id));
        }
        (!roots.is_empty()).then_some(DueRoots { roots, until })
    }

    /// Returns when [`Traces::take_roots`] may return something if no span of its trace comes before, in nanoseconds since 1970; 0 means
    /// now.
    pub fn next_root_at_ns(&self) -> Option<u64> {
        if !self.early.roots.is_empty() || self.first_due().is_some() {
            return Some(0);
        }
        let (_, entry) = self.entries.at_mark(OWING)?;
        Some(self.clock.told_for(self.due_ns(entry)))
    }

    fn due_ns(&self, entry: &Entry) -> u64 {
        entry.last_ns.saturating_add(nanos(self.needs.quiet))
    }

    /// Returns the trace with a pending root that was quiet for longest, if that is long enough.
    fn first_due(&self) -> Option<(TraceId, &Entry)> {
        self.entries.at_mark(OWING).filter(|(_, entry)| self.due_ns(entry) <= self.clock.now_ns())
    }

    /// Moves the mark past traces without a pending root, which get one only when touched again.
    fn pass_rootless(&mut self) {
        while self.entries.at_mark(OWING).is_some_and(|(_, entry)| !entry.root.is_owed()) {
            self.entries.pass(OWING);
        }
    }

    /// Takes the pending root of a trace, which counts as sent from now on.
    fn take_root(&mut self, id: TraceId) -> Option<DueRoot> {
        let root =
            self.entries.change(&id, |entry| std::mem::replace(&mut entry.root, Root::Sent))?;
        self.pass_rootless();
        let Root::Pending(owed) = root else { return None };
        self.sent.insert(id, ());
        let context = self.entries.get(&id)?.trace.context_of_root(owed.root.span_id);
        let span = root_span(&owed.root, &context);
        Some(DueRoot { span, source: owed.source, context })
    }

    /// Returns the fill of the table.
    pub fn fill(&self) -> Fill {
        Fill {
            traces: self.entries.count() as u64,
            bytes: (self.entries.bytes() + self.early.bytes) as u64,
            evicted: self.evicted,
            rootless: self.early.given_up,
        }
    }

    fn forget_old(&mut self) {
        let quiet_ns = nanos(FORGET_AFTER.max(self.needs.quiet));
        let forgotten_ns = self.clock.now_ns().saturating_sub(quiet_ns);
        while let Some((_, entry)) = self.entries.oldest()
            && entry.last_ns < forgotten_ns
            && entry.behind < self.settled_until
        {
            self.forget_oldest();
        }
    }

    /// Removes the trace that was quiet for longest. Its pending root is created now.
    fn forget_oldest(&mut self) {
        let Some((id, _)) = self.entries.oldest() else { return };
        let root = self.take_root(id);
        let Some((_, entry)) = self.entries.pop_oldest() else { return };
        if let Some(root) = root.filter(|_| self.roots_until < entry.behind) {
            self.early.push(root, entry.bytes());
        }
    }
}

impl Weighed for Entry {
    fn bytes(&self) -> usize {
        self.trace.bytes() + self.root.bytes()
    }
}

impl Entry {
    /// Registers the trace's root for this span, if it has no parent and the trace needs one.
    fn owe_root_from(&mut self, span: &Span, source: &Source, rule: RootSpan, was_sent: bool) {
        if span.parent_id.is_some() {
            return;
        }
        let Some(root) = self.trace.note_top(span, rule, was_sent) else { return };
        if !matches!(self.root, Root::Unneeded) {
            return;
        }
        self.root = if was_sent {
            Root::Sent
        } else {
            let root = RootSource::of(span, root);
            Root::Pending(Box::new(Pending { root, source: source.clone() }))
        };
    }
}

/// Encodes a record's start for `roots_until`. 0 is reserved for a sink that has not joined, 1 for one to which no root was sent.
fn behind(record: Position) -> u64 {
    record.0.saturating_add(2)
}
