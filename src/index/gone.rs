//! Positions of evicted traces, so that a lookup need not search the whole journal. Pure.

use std::collections::VecDeque;

use super::Part;
use crate::journal::Position;
use crate::span::TraceId;

/// Maximum number of traces remembered: 6 MiB, or 12. Those evicted earlier may be anywhere before the last of them.
const TRACES_MAX: usize = 1 << 18;

/// The evicted traces, in the order of eviction.
#[derive(Debug, Default)]
pub(super) struct Gone {
    traces: VecDeque<Trace>,
    /// All records of the others start before this.
    others_until: Option<Position>,
}

#[derive(Debug)]
struct Trace {
    /// Half of its id. Two traces with the same half are looked up together.
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

    /// Notes that traces before this position may be missing.
    pub(super) fn lose(&mut self, until: Position) {
        self.others_until = self.others_until.max(Some(until));
    }

    /// Returns where parts of an evicted trace may be.
    pub(super) fn of(&self, id: TraceId) -> impl Iterator<Item = Part> {
        let half_id = half(id);
        let found = self.traces.iter().filter(move |trace| trace.half_id == half_id);
        found.map(|trace| Part { from: trace.first, until: trace.last, is_its_own: false })
    }

    /// Returns where evicted traces may be that are not remembered.
    pub(super) fn others(&self) -> Option<Part> {
        let until = self.others_until?;
        Some(Part { from: Position::default(), until, is_its_own: false })
    }

    /// Forgets traces that the journal no longer keeps.
    pub(super) fn forget_before(&mut self, kept_from: Position) {
        while self.traces.pop_front_if(|trace| trace.last < kept_from).is_some() {}
    }

    /// Returns its memory, in bytes, in a list that may be half empty.
    pub(super) fn bytes(&self) -> usize {
        2 * self.traces.len() * size_of::<Trace>()
    }
}

/// Returns the last half: in X-Ray's and Datadog's ids, the first contains a time.
fn half(id: TraceId) -> u64 {
    let half = id.as_bytes().last_chunk().copied().unwrap_or_default();
    u64::from_ne_bytes(half)
}
