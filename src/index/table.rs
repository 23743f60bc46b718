//! All summaries, within a bound of memory. Pure.

use std::collections::{BTreeMap, HashMap};

use super::trace::Entry;
use super::{BYTES_MAX, Query, TREE_KEPT, TREES_BYTES_MAX};
use crate::journal::Position;
use crate::prices::Prices;
use crate::span::{Batch, Item, TraceId};
use crate::support::clock::nanos;

/// Memory of an entry beside what it holds: its place in two maps, each of which may be half empty.
const ENTRY_BYTES: usize =
    size_of::<Entry>() + 2 * size_of::<(TraceId, Box<Entry>)>() + 2 * size_of::<(u64, TraceId)>();

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<TraceId, Box<Entry>>,
    /// Which trace was touched when, in order.
    recency: BTreeMap<u64, TraceId>,
    touches: u64,
    /// Traces that were not touched since this are decided for good.
    decided_until: u64,
    bytes: usize,
    tree_bytes: usize,
    evicted: u64,
    newest_ns: u64,
    /// Where the last record starts that was fed.
    fed_at: Option<Position>,
    /// What a test has it take at most, as [`BYTES_MAX`] and [`TREES_BYTES_MAX`].
    bounds: Option<(usize, usize)>,
}

impl Table {
    /// An empty one with these bounds.
    #[cfg(test)]
    pub(super) fn within(bytes_max: usize, trees_bytes_max: usize) -> Self {
        Self { bounds: Some((bytes_max, trees_bytes_max)), ..Self::default() }
    }

    /// Adds the request whose record starts here, in the order of the journal.
    pub(super) fn feed(&mut self, batch: &Batch, at: Position, prices: &Prices) {
        let received_ns = batch.source.received_at_ns;
        self.newest_ns = self.newest_ns.max(received_ns);
        self.fed_at = Some(at);
        for items in batch.items.chunk_by(|one, next| one.trace_id() == next.trace_id()) {
            let Some(id) = items.first().map(Item::trace_id) else { continue };
            self.touches += 1;
            let touched = self.touches;
            let entry = self.entries.entry(id).or_insert_with(|| {
                self.bytes += ENTRY_BYTES;
                Box::default()
            });
            self.recency.remove(&entry.touched);
            self.recency.insert(touched, id);
            entry.touched = touched;
            self.change(id, |entry| {
                entry.begin(at, received_ns);
                for item in items {
                    match item {
                        Item::Span(span) => entry.add_span(span, prices),
                        Item::Trace(object) => entry.add_object(object),
                    }
                }
            });
            self.keep_within();
        }
    }

    /// Changes an entry, and counts what it takes then.
    fn change(&mut self, id: TraceId, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (bytes, tree_bytes) = (entry.bytes(), entry.tree_bytes());
        change(entry);
        self.bytes = self.bytes + entry.bytes() - bytes;
        self.tree_bytes = self.tree_bytes + entry.tree_bytes() - tree_bytes;
    }

    fn keep_within(&mut self) {
        let (bytes_max, trees_bytes_max) = self.bounds.unwrap_or((BYTES_MAX, TREES_BYTES_MAX));
        let quiet_since = self.newest_ns.saturating_sub(nanos(TREE_KEPT));
        while let Some((touched, id)) = self.recency.range(self.decided_until..).next()
            && (trees_bytes_max < self.tree_bytes
                || self.entries.get(id).is_some_and(|entry| entry.last_ns < quiet_since))
        {
            let id = *id;
            self.decided_until = touched + 1;
            self.change(id, Entry::decide);
        }
        while bytes_max < self.bytes && self.forget_oldest() {
            self.evicted += 1;
        }
    }

    /// Forgets the trace that is quiet for longest.
    fn forget_oldest(&mut self) -> bool {
        let oldest = self.recency.pop_first().and_then(|(_, id)| self.entries.remove(&id));
        if let Some(entry) = &oldest {
            self.bytes -= ENTRY_BYTES + entry.bytes();
            self.tree_bytes -= entry.tree_bytes();
        }
        oldest.is_some()
    }

    /// Forgets the traces of which the journal keeps nothing.
    pub(super) fn forget_before(&mut self, kept_from: Position) {
        while let Some((_, id)) = self.recency.first_key_value()
            && self.entries.get(id).is_some_and(|entry| entry.last_position() < kept_from)
        {
            self.forget_oldest();
        }
    }

    /// The traces that are meant, with what counts in them as it is known now.
    pub(super) fn meant<'t>(
        &'t mut self,
        query: &'t Query,
    ) -> impl Iterator<Item = (TraceId, &'t Entry)> + 't {
        let since = query.since.unwrap_or_default();
        let recent = self.recency.values().rev().copied();
        let is_recent = |id: &TraceId| {
            self.entries.get(id).is_some_and(|entry| since <= entry.last_position().0)
        };
        let recent: Vec<_> = recent.take_while(is_recent).collect();
        for id in &recent {
            self.change(*id, Entry::settle);
        }
        let entries = &self.entries;
        let recent = recent.into_iter().filter_map(|id| Some((id, &**entries.get(&id)?)));
        recent.filter(|(_, entry)| query.takes(entry.known()))
    }

    /// A trace, with what counts in it as it is known now.
    pub(super) fn of(&mut self, trace: TraceId) -> Option<&Entry> {
        self.change(trace, Entry::settle);
        self.entries.get(&trace).map(|entry| &**entry)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn fed_at(&self) -> Option<Position> {
        self.fed_at
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}
