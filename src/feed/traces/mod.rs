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
//! | spans, agents of a trace | `SPANS_MAX`, `AGENTS_MAX` | see `tree.rs` |
//! | words, labels, metadata, payloads | `TEXT_BYTES_MAX`, `TAGS_MAX`, `METADATA_BYTES_MAX`, `PAYLOAD_BYTES_MAX` | see `trace.rs` |
//! | spans at the top of a trace with contents of their own | `TOPS_MAX` | see `contents.rs` |
//! | traces whose root was sent | `SENT_MAX` | one that goes on later gets a second root |
//!
//! A span of an evicted trace begins it anew.

mod contents;
mod roots;
mod sent;
mod trace;
mod tree;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use self::roots::{OWED_BYTES, Owed, Root, Schedule};
use self::sent::Amendments;
use self::trace::Trace;
use crate::journal::Position;
use crate::normalize::{RootSource, root_span};
use crate::span::{Batch, Item, Source, Span, TraceContexts, TraceId, TraceNeeds};

pub use self::roots::{DueRoot, DueRoots};

/// Traces in a table. A trace of usual size takes some KiB, so this bound is met by very small ones only.
const TRACES_MAX: usize = 65_536;
/// Memory of a table, in bytes, estimated. It holds the traces of the last minute at a hundred new ones a second.
const BYTES_MAX: usize = 16 << 20;
/// A trace that was quiet for so long is over, or starts anew. The lookback after a start is meant to reach as far.
pub(super) const FORGET_AFTER: Duration = Duration::from_mins(15);

/// Memory of a trace's entry in the two maps.
const ENTRY_BYTES: usize = size_of::<(TraceId, Entry)>() + 2 * size_of::<(u64, TraceId)>();

/// The table.
#[derive(Debug)]
pub struct Traces {
    needs: TraceNeeds,
    entries: HashMap<TraceId, Entry>,
    /// Which trace was touched when, in order.
    recency: BTreeMap<u64, TraceId>,
    touches: u64,
    /// Requests that were fed.
    feeds: u64,
    /// How many of them are of no concern any more.
    settled: u64,
    bytes: usize,
    evicted: u64,
    /// The latest time that was told.
    clock_ns: u64,
    schedule: Schedule,
    amendments: Amendments,
}

#[derive(Debug, Default)]
struct Entry {
    trace: Trace,
    /// Its number among the touches.
    touched: u64,
    /// When its last item was read, in the table's time.
    last_ns: u64,
    /// Which request that was.
    last_feed: u64,
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
}

impl Traces {
    /// An empty table. Roots that were due up to `roots_until_ns` count as sent.
    pub fn new(needs: TraceNeeds, roots_until_ns: u64) -> Self {
        let mut schedule = Schedule::default();
        schedule.set_until(roots_until_ns);
        Self {
            needs,
            entries: HashMap::new(),
            recency: BTreeMap::new(),
            touches: 0,
            feeds: 0,
            settled: 0,
            bytes: 0,
            evicted: 0,
            clock_ns: 0,
            schedule,
            amendments: Amendments::new(),
        }
    }

    /// Adds the request whose record starts here, in the order of the journal. Its time of arrival is the time of all that happens
    /// before.
    pub fn feed(&mut self, batch: &Batch, position: Position) {
        self.advance(batch.source.received_at_ns);
        self.feeds += 1;
        let touches_before = self.touches;
        let mut touched = Vec::new();
        for (place, item) in batch.items.iter().enumerate() {
            if !self.is_traced(item) {
                continue;
            }
            let id = item.trace_id();
            let entry = self.entries.entry(id).or_insert_with(|| {
                self.bytes += ENTRY_BYTES;
                Entry::default()
            });
            if entry.touched <= touches_before {
                self.recency.remove(&entry.touched);
                self.touches += 1;
                entry.touched = self.touches;
                entry.last_ns = self.clock_ns;
                entry.last_feed = self.feeds;
                self.recency.insert(self.touches, id);
                touched.push(id);
            }
            let bytes_before = entry.bytes();
            match item {
                Item::Span(span) => {
                    let at = self.needs.replaces_by_id.then_some((position, place));
                    entry.trace.add_span(span, self.needs.traced, at);
                    self.schedule.note_need(entry, span, &batch.source, &self.needs);
                }
                Item::Trace(object) => entry.trace.add_object(object),
            }
            self.bytes = self.bytes + entry.bytes() - bytes_before;
            while BYTES_MAX < self.bytes || TRACES_MAX < self.entries.len() {
                self.forget_oldest();
                self.evicted += 1;
            }
        }
        for id in touched.into_iter().filter(|_| self.needs.replaces_by_id) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.trace.amend(&mut self.amendments);
            }
        }
    }

    /// Tells the time. It never goes back.
    pub fn advance(&mut self, now_ns: u64) {
        self.clock_ns = self.clock_ns.max(now_ns);
        self.note_due();
        self.forget_old();
    }

    /// Tells that the first so many requests were delivered: only their traces are forgotten with time. A sink may be down for long.
    pub fn settle(&mut self, feeds: u64) {
        self.settled = self.settled.max(feeds);
        self.forget_old();
    }

    /// Begins to owe roots: what was fed so far was before the sink's time, or was sent without roots. Returns the time up to which
    /// all roots count as sent.
    pub fn join(&mut self) -> u64 {
        self.schedule.clear();
        for entry in self.entries.values_mut() {
            self.bytes -= entry.root.bytes();
            entry.root = Root::Unneeded;
        }
        let until_ns = self.clock_ns.saturating_add(nanos(self.needs.quiet)).max(1);
        self.schedule.set_until(until_ns);
        // A trace that goes on from here on is due after that.
        self.clock_ns += 1;
        until_ns
    }

    /// Whether a span has still to wait for its trace object: it was not seen, and was not waited for before.
    pub fn is_worth_waiting(&self, trace: TraceId) -> bool {
        let entry = self.entries.get(&trace);
        entry.is_some_and(|entry| !entry.trace.has_object() && !entry.has_waited)
    }

    /// No span of these traces waits for its trace object any more.
    pub fn stop_waiting(&mut self, traces: &[TraceId]) {
        for trace in traces {
            if let Some(entry) = self.entries.get_mut(trace) {
                entry.has_waited = true;
            }
        }
    }

    /// All that was fed so far was sent before, with what is known now.
    pub fn note_all_sent(&mut self) {
        self.amendments.clear();
        for entry in self.entries.values_mut() {
            entry.trace.told_all();
        }
    }

    /// Takes the record that starts first of those with items that are to be sent once more, since news have made what was sent wrong, and
    /// the places of these items.
    pub fn take_amendment(&mut self) -> Option<(Position, BTreeSet<usize>)> {
        self.amendments.pop_first()
    }

    /// Gives back what was taken and not sent.
    pub fn give_back(&mut self, amendments: impl IntoIterator<Item = (Position, BTreeSet<usize>)>) {
        self.amendments.extend(amendments);
    }

    /// Whether there is any such.
    pub fn has_amendments(&self) -> bool {
        !self.amendments.is_empty()
    }

    /// Nothing that was sent is sent again for the news there were.
    pub fn give_up_amendments(&mut self) {
        self.amendments.clear();
    }

    /// What is known now of the traces of these items, which are about to be sent with it.
    pub fn contexts<'a>(&mut self, items: impl IntoIterator<Item = &'a Item>) -> TraceContexts {
        let mut spans: HashMap<TraceId, Vec<&Span>> = HashMap::new();
        for item in items {
            spans.entry(item.trace_id()).or_default().extend(item.as_span());
        }
        let context = |(id, spans): (TraceId, Vec<&Span>)| {
            let trace = &mut self.entries.get_mut(&id)?.trace;
            let context = trace.context(&spans);
            trace.told(&spans, &context);
            Some((id, context))
        };
        Arc::new(spans.into_iter().filter_map(context).collect())
    }

    /// How many requests were fed.
    pub fn feeds(&self) -> u64 {
        self.feeds
    }

    /// Takes about `count_max` roots that are due, of traces whose items are all among the first `handed_over` requests fed; `None`
    /// when there is none.
    pub fn take_roots(&mut self, count_max: usize, handed_over: u64) -> Option<DueRoots> {
        let mut roots = self.schedule.take_early(count_max);
        let mut until_ns = 0;
        // Those due at the same time go together, so that the time tells which went.
        while let Some((due_ns, id)) = self.schedule.first_due()
            && (roots.len() < count_max || due_ns == until_ns)
            && self.is_handed_over(id, handed_over)
        {
            self.schedule.take_first_due();
            until_ns = due_ns;
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            self.bytes -= entry.root.bytes();
            roots.extend(entry.take_root());
            self.schedule.note_sent(id);
        }
        (!roots.is_empty()).then_some(DueRoots { roots, until_ns })
    }

    /// When [`Traces::take_roots`] may have something, if no span of its trace comes before, in nanoseconds since 1970; 0 for now.
    /// `None` also where what is next has first to be handed over.
    pub fn next_root_at_ns(&self, handed_over: u64) -> Option<u64> {
        match self.schedule.first_due() {
            _ if self.schedule.has_early() => Some(0),
            Some((_, id)) => self.is_handed_over(id, handed_over).then_some(0),
            None => self.schedule.next_look_ns(),
        }
    }

    fn is_handed_over(&self, id: TraceId, handed_over: u64) -> bool {
        self.entries.get(&id).is_none_or(|entry| entry.last_feed <= handed_over)
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        Fill { traces: self.entries.len() as u64, bytes: self.bytes as u64, evicted: self.evicted }
    }

    fn is_traced(&self, item: &Item) -> bool {
        item.as_span().is_none_or(|span| {
            self.needs.traced.reads(span) || self.entries.contains_key(&span.trace_id)
        })
    }

    /// Finds the traces that have been quiet long enough by now.
    fn note_due(&mut self) {
        let quiet_ns = nanos(self.needs.quiet);
        while let Some(id) = self.schedule.next_look(self.clock_ns) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let Root::Owed(_) = entry.root else { continue };
            let due_ns = entry.last_ns.saturating_add(quiet_ns);
            if self.clock_ns < due_ns {
                self.schedule.look_at(id, due_ns);
            } else if due_ns <= self.schedule.until_ns() {
                self.bytes -= entry.root.bytes();
                entry.root = Root::Sent;
                self.schedule.note_sent(id);
            } else {
                self.schedule.is_due(id, due_ns);
            }
        }
        let entries = &self.entries;
        let is_owing =
            |id| entries.get(&id).is_some_and(|entry| matches!(entry.root, Root::Owed(_)));
        self.schedule.tidy(2 * TRACES_MAX, is_owing);
    }

    fn forget_old(&mut self) {
        let quiet_ns = nanos(FORGET_AFTER.max(self.needs.quiet));
        let forgotten_ns = self.clock_ns.saturating_sub(quiet_ns);
        while let Some((_, id)) = self.recency.first_key_value()
            && self
                .entries
                .get(id)
                .is_none_or(|entry| entry.last_ns < forgotten_ns && entry.last_feed <= self.settled)
        {
            self.forget_oldest();
        }
    }

    /// Forgets the trace that has been quiet for longest. A root that it owes is made now.
    fn forget_oldest(&mut self) {
        let Some((_, id)) = self.recency.pop_first() else { return };
        let Some(mut entry) = self.entries.remove(&id) else { return };
        self.bytes -= ENTRY_BYTES + entry.bytes();
        let due_ns = entry.last_ns.saturating_add(nanos(self.needs.quiet));
        if let Some(root) = entry.take_root() {
            self.schedule.note_sent(id);
            if self.schedule.until_ns() < due_ns {
                self.schedule.is_early(root);
            }
        }
    }
}

impl Schedule {
    /// Notes the root that a span needs, once for each trace.
    fn note_need(&mut self, entry: &mut Entry, span: &Span, source: &Source, needs: &TraceNeeds) {
        if span.parent_id.is_some() {
            return;
        }
        let was_sent = self.was_sent(span.trace_id);
        let Some(root) = entry.trace.note_top(span, needs.root, was_sent) else { return };
        if !matches!(entry.root, Root::Unneeded) {
            return;
        }
        if was_sent {
            entry.root = Root::Sent;
            return;
        }
        let owed = Owed { root: RootSource::of(span, root), source: source.clone() };
        entry.root = Root::Owed(Box::new(owed));
        self.look_at(span.trace_id, entry.last_ns.saturating_add(nanos(needs.quiet)));
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.trace.bytes() + self.root.bytes()
    }

    /// The root, if it is owed. From now on it is sent.
    fn take_root(&mut self) -> Option<DueRoot> {
        match std::mem::replace(&mut self.root, Root::Sent) {
            Root::Owed(owed) => {
                let context = self.trace.context_of_root(owed.root.span_id);
                let span = root_span(&owed.root, &context);
                Some(DueRoot { span, source: owed.source, context })
            }
            Root::Unneeded | Root::Sent => None,
        }
    }
}

impl Root {
    fn bytes(&self) -> usize {
        if matches!(self, Self::Owed(_)) { OWED_BYTES } else { 0 }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
