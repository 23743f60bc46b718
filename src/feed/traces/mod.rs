//! What is known of traces beside the spans at hand: a table per lane, fed in the order of the journal. Pure: it is told the time.
//!
//! Each lane that needs it has a table of its own, so that a lane far behind, a replay and one that keeps up all see the context of
//! their own place in the journal. It needs no store: after a start it is fed with what stands before the lane's cursor
//! (`lookback.rs`).
//!
//! # Bounds
//!
//! | what | bound | at the bound |
//! |---|---|---|
//! | traces | [`TRACES_MAX`] | the one quiet for longest is evicted, which is counted; a root that it owes is sent at once |
//! | memory | [`BYTES_MAX`] | the same |
//! | age | [`FORGET_AFTER`] without a span, all it had delivered | forgotten |
//! | spans, agents of a trace | `SPANS_MAX`, `AGENTS_MAX` | see `bounds.rs` |
//! | words, labels, metadata, payloads, contents | `TEXT_BYTES_MAX`, `TAGS_MAX` ... | see `bounds.rs` |
//! | roots of evicted traces that wait to be sent | `EARLY_BYTES_MAX` | a further one is not made, which is counted: its trace has none |
//! | traces whose root was sent | `SENT_MAX` | one that goes on later gets a second root |
//!
//! A span of an evicted trace begins it anew.
//!
//! # Roots and time
//!
//! A trace's root is due once no record has brought a span of it for a while, so roots are due in the order in which their traces were
//! touched last, and one position tells which were sent: it is kept across restarts, where a time would be wrong once the clock was set
//! back. The table's own time never goes back ([`SET_BACK`]).

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

use self::roots::{EarlyRoots, Owed, Root, SENT_MAX};
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

/// Traces in a table. A trace of usual size takes some KiB, so this bound is met by very small ones only.
const TRACES_MAX: usize = 65_536;
/// Memory of a table, in bytes, estimated. It holds the traces of the last minute at a hundred new ones a second.
const BYTES_MAX: usize = 16 << 20;
/// A trace that was quiet for so long is over, or starts anew. The lookback after a start is meant to reach as far.
pub(super) const FORGET_AFTER: Duration = Duration::from_mins(15);

/// The mark behind which the first trace that owes a root stands; those before it owe none.
const OWING: usize = 0;

/// The table.
#[derive(Debug)]
pub struct Traces {
    needs: TraceNeeds,
    entries: ByTouch<TraceId, Entry, 1>,
    /// Records before this are of no concern any more; see [`behind`].
    settled_until: u64,
    evicted: u64,
    clock: JournalTime,
    /// Roots of traces that had to be forgotten before they were due.
    early: EarlyRoots,
    /// The traces whose root was sent last.
    sent: Recent<TraceId>,
    /// The roots of traces whose last record is before this were sent; see [`behind`].
    roots_until: u64,
    /// Behind the last record that was fed.
    fed_until: u64,
    /// What is to be sent once more, since news have made what was sent wrong.
    pub amendments: Amendments,
}

#[derive(Debug, Default)]
struct Entry {
    trace: Trace,
    /// When its last item was read, in the table's time.
    last_ns: u64,
    /// Behind the record that it came in; see [`behind`].
    behind: u64,
    root: Root,
    /// Whether a span of it has waited for the trace object as long as it may.
    has_waited: bool,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill {
    /// Traces in it.
    pub traces: u64,
    /// Bytes it takes, estimated.
    pub bytes: u64,
    /// Traces that had to go before their time, since the start.
    pub evicted: u64,
    /// Of these, how many owed a root that there was no room for.
    pub rootless: u64,
}

impl Traces {
    /// An empty table. The roots of traces whose last record is before `roots_until`, as [`DueRoots`] says it, were sent.
    pub fn new(needs: TraceNeeds, roots_until: u64) -> Self {
        Self {
            needs,
            entries: ByTouch::default(),
            settled_until: 0,
            evicted: 0,
            clock: JournalTime::default(),
            early: EarlyRoots::default(),
            sent: Recent::new(SENT_MAX),
            roots_until,
            fed_until: 0,
            amendments: Amendments::new(),
        }
    }

    /// Adds what rules left of the request whose record starts here.
    pub fn feed_ruled(&mut self, ruled: &Ruled, position: Position) {
        self.feed_at(&ruled.batch, position, |place| ruled.place_before(place));
    }

    /// Adds the request whose record starts here, in the order of the journal. Its time of arrival is the time of all that happens
    /// before.
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
            if !self.is_traced(item) {
                continue;
            }
            let id = item.trace_id();
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

    /// Tells the time.
    pub fn advance(&mut self, now_ns: u64) {
        self.clock.tell(now_ns);
        while let Some((id, entry)) = self.first_due()
            && entry.behind <= self.roots_until
        {
            self.take_root(id);
        }
        self.forget_old();
    }

    /// Tells that the records that start before this were delivered: only their traces are forgotten with time. A sink may be down for
    /// long.
    pub fn settle(&mut self, until: Position) {
        self.settled_until = self.settled_until.max(behind(until));
        self.forget_old();
    }

    /// Begins to owe roots: what was fed so far was before the sink's time, or was sent without roots. Returns up to where all
    /// roots count as sent, as [`DueRoots`] says it.
    pub fn join(&mut self) -> u64 {
        self.early = EarlyRoots::default();
        self.entries.change_all(|entry| entry.root = Root::Unneeded);
        self.pass_rootless();
        self.roots_until = self.fed_until.max(1);
        self.roots_until
    }

    /// Whether a span has still to wait for its trace object: it was not seen, and was not waited for before.
    pub fn is_worth_waiting(&self, trace: TraceId) -> bool {
        let entry = self.entries.get(&trace);
        entry.is_some_and(|entry| !entry.trace.has_object() && !entry.has_waited)
    }

    /// No span of these traces waits for its trace object any more.
    pub fn stop_waiting(&mut self, traces: &[TraceId]) {
        for trace in traces {
            self.entries.change(trace, |entry| entry.has_waited = true);
        }
    }

    /// All that was fed so far was sent before, with what is known now.
    pub fn note_all_sent(&mut self) {
        self.amendments.clear();
        self.entries.change_all(|entry| entry.trace.told_all());
    }

    /// What is known now of the traces of these items, which are about to be sent with it.
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

    /// Takes about `count_max` roots that are due; `None` when there is none.
    pub fn take_roots(&mut self, count_max: usize) -> Option<DueRoots> {
        let mut roots: Vec<_> = self.early.take(count_max).collect();
        let mut until = 0;
        // Those of one record go together, so that its position tells which went.
        while let Some((id, entry)) = self.first_due()
            && (roots.len() < count_max || entry.behind == until)
        {
            until = entry.behind;
            roots.extend(self.take_root(id));
        }
        (!roots.is_empty()).then_some(DueRoots { roots, until })
    }

    /// When [`Traces::take_roots`] may have something, if no span of its trace comes before, in nanoseconds since 1970; 0 for now.
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

    /// Of the traces that owe a root, the one that has been quiet for longest, if that is long enough.
    fn first_due(&self) -> Option<(TraceId, &Entry)> {
        self.entries.at_mark(OWING).filter(|(_, entry)| self.due_ns(entry) <= self.clock.now_ns())
    }

    /// What owes no root begins to only when it is touched again.
    fn pass_rootless(&mut self) {
        while self.entries.at_mark(OWING).is_some_and(|(_, entry)| !entry.root.is_owed()) {
            self.entries.pass(OWING);
        }
    }

    /// The root of a trace that owes one. From now on it is sent.
    fn take_root(&mut self, id: TraceId) -> Option<DueRoot> {
        let root =
            self.entries.change(&id, |entry| std::mem::replace(&mut entry.root, Root::Sent))?;
        self.pass_rootless();
        let Root::Owed(owed) = root else { return None };
        self.sent.insert(id, ());
        let context = self.entries.get(&id)?.trace.context_of_root(owed.root.span_id);
        let span = root_span(&owed.root, &context);
        Some(DueRoot { span, source: owed.source, context })
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        Fill {
            traces: self.entries.count() as u64,
            bytes: (self.entries.bytes() + self.early.bytes) as u64,
            evicted: self.evicted,
            rootless: self.early.given_up,
        }
    }

    fn is_traced(&self, item: &Item) -> bool {
        item.as_span().is_none_or(|span| {
            self.needs.traced.follows(span) || self.entries.get(&span.trace_id).is_some()
        })
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

    /// Forgets the trace that has been quiet for longest. A root that it owes is made now.
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
    /// Owes a root from this span on, if it has no parent and the trace needs one.
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
            Root::Owed(Box::new(Owed { root, source: source.clone() }))
        };
    }
}

/// How `roots_until` names a record by where it starts. 0 is left for a sink that has not joined, 1 for one to which no root was sent.
fn behind(record: Position) -> u64 {
    record.0.saturating_add(2)
}
