//! All summaries, within a bound of memory. Pure.

use std::collections::{BTreeMap, HashMap};

use super::trace::{Entry, Sums};
use super::{BYTES_MAX, Query, TREE_KEPT, TREES_BYTES_MAX};
use crate::journal::Position;
use crate::span::{Batch, Item, TraceId};

/// Memory of an entry beside what it holds: its place in two maps, each of which may be half empty.
const ENTRY_BYTES: usize =
    size_of::<Entry>() + 2 * size_of::<(TraceId, Box<Entry>)>() + 2 * size_of::<(u64, TraceId)>();

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<TraceId, Box<Entry>>,
    /// Which trace was touched when, in order: those with a tree, and those without.
    growing: BTreeMap<u64, TraceId>,
    decided: BTreeMap<u64, TraceId>,
    touches: u64,
    bytes: usize,
    tree_bytes: usize,
    evicted: u64,
    bytes_max: usize,
    trees_bytes_max: usize,
    newest_ns: u64,
    fed_at: Position,
}

impl Default for Table {
    fn default() -> Self {
        Self::within(BYTES_MAX, TREES_BYTES_MAX)
    }
}

impl Table {
    /// An empty one with these bounds.
    pub(super) fn within(bytes_max: usize, trees_bytes_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            growing: BTreeMap::new(),
            decided: BTreeMap::new(),
            touches: 0,
            bytes: 0,
            tree_bytes: 0,
            evicted: 0,
            bytes_max,
            trees_bytes_max,
            newest_ns: 0,
            fed_at: Position::default(),
        }
    }

    /// Adds the request whose record starts here, in the order of the journal.
    pub(super) fn feed(&mut self, batch: &Batch, at: Position) {
        let received_ns = batch.source.received_at_ns;
        self.newest_ns = self.newest_ns.max(received_ns);
        self.fed_at = at;
        for items in batch.items.chunk_by(|one, next| one.trace_id() == next.trace_id()) {
            let Some(id) = items.first().map(Item::trace_id) else { continue };
            self.touches += 1;
            let entry = self.entries.entry(id).or_insert_with(|| {
                self.bytes += ENTRY_BYTES;
                Box::default()
            });
            if self.growing.remove(&entry.touched).is_none() {
                self.decided.remove(&entry.touched);
            }
            let (bytes, tree_bytes) = (entry.bytes(), entry.tree_bytes());
            entry.touched = self.touches;
            entry.begin(at, received_ns);
            for item in items {
                match item {
                    Item::Span(span) => entry.add_span(span),
                    Item::Trace(object) => entry.add_object(object),
                }
            }
            self.growing.insert(self.touches, id);
            self.bytes = self.bytes + entry.bytes() - bytes;
            self.tree_bytes = self.tree_bytes + entry.tree_bytes() - tree_bytes;
            self.keep_within();
        }
    }

    fn keep_within(&mut self) {
        let kept = u64::try_from(TREE_KEPT.as_nanos()).unwrap_or(u64::MAX);
        let quiet_since = self.newest_ns.saturating_sub(kept);
        while let Some((_, id)) = self.growing.first_key_value()
            && let Some(entry) = self.entries.get_mut(id)
            && (entry.last_ns < quiet_since || self.trees_bytes_max < self.tree_bytes)
        {
            let (bytes, tree_bytes) = (entry.bytes(), entry.tree_bytes());
            entry.decide();
            self.bytes = self.bytes + entry.bytes() - bytes;
            self.tree_bytes -= tree_bytes;
            self.decided.extend(self.growing.pop_first());
        }
        while self.bytes_max < self.bytes && self.forget_oldest() {
            self.evicted += 1;
        }
    }

    /// Forgets the trace that is quiet for longest.
    fn forget_oldest(&mut self) -> bool {
        let growing = self.growing.first_key_value().map(|(touch, _)| *touch);
        let decided = self.decided.first_key_value().map(|(touch, _)| *touch);
        let oldest = match (growing, decided) {
            (Some(growing), Some(decided)) if growing < decided => self.growing.pop_first(),
            (Some(_), None) => self.growing.pop_first(),
            _ => self.decided.pop_first(),
        };
        let entry = oldest.and_then(|(_, id)| self.entries.remove(&id));
        if let Some(entry) = &entry {
            self.bytes -= ENTRY_BYTES + entry.bytes();
            self.tree_bytes -= entry.tree_bytes();
        }
        entry.is_some()
    }

    /// Forgets the traces of which the journal keeps nothing.
    pub(super) fn forget_before(&mut self, kept_from: Position) {
        let is_gone = |id: &TraceId| {
            let last = self.entries.get(id).and_then(|entry| entry.records().last());
            last.is_some_and(|last| *last < kept_from)
        };
        let oldest =
            |traces: &BTreeMap<u64, TraceId>| traces.values().take_while(|id| is_gone(id)).count();
        let gone = oldest(&self.growing) + oldest(&self.decided);
        for _ in 0..gone {
            self.forget_oldest();
        }
    }

    /// The traces that are meant, with what counts in them.
    pub(super) fn meant<'t>(
        &'t self,
        query: &'t Query,
    ) -> impl Iterator<Item = (TraceId, &'t Entry, Sums)> + 't {
        self.entries.iter().filter_map(move |(id, entry)| {
            let began_ns = entry.began_ns();
            let is_in_time = query.from_ns.is_none_or(|from| from <= began_ns)
                && query.to_ns.is_none_or(|to| began_ns < to);
            if !is_in_time {
                return None;
            }
            let sums = entry.sums();
            query.filter.takes(entry, sums).then_some((*id, &**entry, sums))
        })
    }

    pub(super) fn of(&self, trace: TraceId) -> Option<&Entry> {
        self.entries.get(&trace).map(|entry| &**entry)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where the last record starts that was fed.
    pub(super) fn fed_at(&self) -> Position {
        self.fed_at
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}
