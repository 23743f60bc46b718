//! Where the traces are that gave way to newer ones, so that nobody looks for one in the whole journal. Pure.

use std::collections::VecDeque;

use super::Part;
use crate::journal::Position;
use crate::span::TraceId;

/// Traces that are remembered: 6 MiB of them, or 12. Those that gave way before may be anywhere before the last of them.
const TRACES_MAX: usize = 1 << 18;

/// The traces, the one that gave way first first.
#[derive(Debug, Default)]
pub(super) struct Gone {
    traces: VecDeque<Trace>,
    /// Of the others all records start before this.
    others_until: Option<Position>,
}

#[derive(Debug)]
struct Trace {
    /// Half of its id. Two with the same half are looked for together.
    half_id: u64,
    first: Position,
    last: Position,
}

impl Gone {
    /// Adds a trace whose records start at these positions and between them.
    pub(super) fn push(&mut self, id: TraceId, first: Position, last: Position) {
        if TRACES_MAX <= self.traces.len()
            && let Some(other) = self.traces.pop_front()
        {
            self.lose(other.last);
        }
        self.traces.push_back(Trace { half_id: half(id), first, last });
    }

    /// Nothing is known of what starts up to here.
    pub(super) fn lose(&mut self, until: Position) {
        self.others_until = self.others_until.max(Some(until));
    }

    /// Where parts of a trace may be that gave way.
    pub(super) fn of(&self, id: TraceId) -> impl Iterator<Item = Part> {
        let half_id = half(id);
        let found = self.traces.iter().filter(move |trace| trace.half_id == half_id);
        found.map(|trace| Part { from: trace.first, until: trace.last, is_its_own: false })
    }

    /// Where those may be that are not remembered.
    pub(super) fn others(&self) -> Option<Part> {
        let until = self.others_until?;
        Some(Part { from: Position::default(), until, is_its_own: false })
    }

    /// Forgets those of which the journal keeps nothing.
    pub(super) fn forget_before(&mut self, kept_from: Position) {
        while self.traces.pop_front_if(|trace| trace.last < kept_from).is_some() {}
    }

    /// Memory that they take, in bytes: in a list that may be half empty.
    pub(super) fn bytes(&self) -> usize {
        2 * self.traces.len() * size_of::<Trace>()
    }
}

/// The last half: the first has a time in it where it is X-Ray's or Datadog's.
fn half(id: TraceId) -> u64 {
    let half = id.as_bytes().last_chunk().copied().unwrap_or_default();
    u64::from_ne_bytes(half)
}
