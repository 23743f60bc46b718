//! All traces, within a memory bound. Pure.

use std::time::Duration;

use super::gone::Gone;
use super::names::Names;
use super::summary::SettledTrace;
use super::trace::{AddContext, Trace};
use super::{BYTES_MAX, Kept, OPEN_BYTES_MAX, Query, TREE_KEPT};
use crate::journal::Position;
use crate::prices::Prices;
use crate::span::{Item, TraceId};
use crate::support::by_touch::ByTouch;
use crate::support::clock::nanos;
use crate::telemetry::AgentSeries;

/// A trace that is quiet for this long is counted with what is known; few model calls take longer.
pub(super) const COUNTED_AFTER: Duration = Duration::from_mins(5);
/// How long a complete trace must be quiet to count as over: the SDKs export every 5 s.
pub(super) const OVER_AFTER: Duration = Duration::from_secs(30);
/// Interval of the search for finished traces, in the time at which requests are received.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Marks in the order of last touches. Traces after them have not yet been checked for being over, counted with what is known, or made
/// final.
const OVER: usize = 0;
const COUNTED: usize = 1;
const DECIDED: usize = 2;

/// The table of traces.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) traces: ByTouch<TraceId, Trace, 3>,
    names: Names,
    pub(super) gone: Gone,
    /// Agent metrics, if they are on.
    pub(super) series: Option<AgentSeries>,
    is_listed: bool,
    pub(super) evicted: u64,
    newest_ns: u64,
    looked_ns: u64,
    /// Position of the last record that was fed.
    pub(super) fed_at: Option<Position>,
    bytes_max: usize,
    open_bytes_max: usize,
}

impl Table {
    pub(super) fn new(kept: Kept) -> Self {
        let bytes_max = if kept.traces { BYTES_MAX } else { OPEN_BYTES_MAX };
        Self::within(kept, bytes_max, OPEN_BYTES_MAX)
    }

    /// Creates an empty table with limits of its memory, and of the part of it for traces that may grow.
    pub(super) fn within(kept: Kept, bytes_max: usize, open_bytes_max: usize) -> Self {
        let series = kept.agents.then(AgentSeries::default);
        Self { series, is_listed: kept.traces, bytes_max, open_bytes_max, ..Self::default() }
    }

    /// Adds the items of a request, with its receive time and the position of its record, in journal order. With `again`, they were counted
    /// before.
    pub(super) fn feed(
        &mut self,
        (items, received_ns): (&[Item], u64),
        at: Position,
        prices: &Prices,
        again: bool,
    ) {
        self.newest_ns = self.newest_ns.max(received_ns);
        self.fed_at = Some(at);
        for items in items.chunk_by(|one, next| one.trace_id() == next.trace_id()) {
            let Some(id) = items.first().map(Item::trace_id) else { continue };
            let (is_listed, series) = (self.is_listed, self.series.as_mut().filter(|_| !again));
            let mut with = AddContext { names: &mut self.names, series, prices, is_listed };
            self.traces.touch(id, |trace| trace.add(items, (at, received_ns), &mut with));
            self.keep_within();
        }
        let quiet_since = self.newest_ns.saturating_sub(nanos(TREE_KEPT));
        while self.traces.at_mark(DECIDED).is_some_and(|(_, trace)| trace.last_ns < quiet_since) {
            self.decide_next();
        }
        if received_ns.saturating_sub(self.looked_ns) >= nanos(LOOK_EVERY) {
            self.look(received_ns);
        }
    }

    fn keep_within(&mut self) {
        while self.open_bytes_max < self.traces.passing_bytes() && self.decide_next() {}
        while self.bytes_max < self.bytes() && self.forget_oldest(true) {
            self.evicted += 1;
        }
    }

    /// Counts everything that is due at this time.
    pub(super) fn look(&mut self, now_ns: u64) {
        if self.series.is_none() {
            return;
        }
        self.looked_ns = self.looked_ns.max(now_ns);
        let quiet_since = |after: Duration| now_ns.saturating_sub(nanos(after));
        let (counted, over) = (quiet_since(COUNTED_AFTER), quiet_since(OVER_AFTER));
        while let Some((id, _)) = self.quiet_at(COUNTED, counted) {
            self.traces.pass(COUNTED);
            self.count_all(id, true);
        }
        while let Some((id, _)) = self.quiet_at(OVER, over) {
            self.traces.pass(OVER);
            self.count_all(id, false);
        }
    }

    fn quiet_at(&self, mark: usize, since_ns: u64) -> Option<(TraceId, &Trace)> {
        self.traces.at_mark(mark).filter(|(_, trace)| trace.last_ns <= since_ns)
    }

    fn count_all(&mut self, id: TraceId, long: bool) {
        if let Some(series) = &mut self.series {
            self.traces.change(&id, |trace| trace.count_all(id, long, &self.names, series));
        }
    }

    /// Takes over the costs of calls from a table of the same traces.
    pub(super) fn reprice(&mut self, again: &Self) {
        for (id, priced) in again.traces.newest_first() {
            self.traces.change(&id, |trace| trace.reprice(priced));
        }
    }

    /// Makes the open trace that has been quiet for longest final; if traces are not listed, nothing of it is needed any more.
    fn decide_next(&mut self) -> bool {
        let Some((id, _)) = self.traces.at_mark(DECIDED) else { return false };
        if !self.is_listed {
            return self.forget_oldest(false);
        }
        self.traces.pass(DECIDED);
        self.count_all(id, true);
        self.traces.change(&id, |trace| trace.decide(&mut self.names));
        true
    }

    /// Removes the trace that has been quiet for longest; `is_kept` tells whether the journal still keeps it.
    fn forget_oldest(&mut self, is_kept: bool) -> bool {
        let Some((id, _)) = self.traces.oldest() else { return false };
        self.count_all(id, true);
        let Some((_, trace)) = self.traces.pop_oldest() else { return false };
        trace.forget(&mut self.names);
        if let Some(first) = trace.records.first().filter(|_| is_kept) {
            self.gone.push(id, *first, trace.last_position());
        }
        true
    }

    /// Removes traces that the journal no longer keeps.
    pub(super) fn forget_before(&mut self, kept_from: Position) {
        while self.traces.oldest().is_some_and(|(_, trace)| trace.last_position() < kept_from)
            && self.forget_oldest(false)
        {}
        self.gone.forget_before(kept_from);
    }

    /// Returns the selected traces, evaluated with what is known now.
    pub(super) fn meant<'t>(
        &'t mut self,
        query: &'t Query,
    ) -> impl Iterator<Item = SettledTrace<'t>> + 't {
        let since = query.since.unwrap_or_default();
        let is_recent = move |(_, trace): &(_, &Trace)| since <= trace.last_position().0;
        let stale = self.traces.newest_first().take_while(is_recent);
        let stale = stale.filter(|(_, trace)| trace.is_stale).map(|(id, _)| id);
        for id in stale.collect::<Vec<_>>() {
            self.traces.change(&id, |trace| trace.settle(&mut self.names));
        }
        let recent = self.traces.newest_first().take_while(is_recent);
        let known = recent.map(|(id, trace)| SettledTrace { id, trace, names: &self.names });
        known.filter(|trace| query.takes(trace))
    }

    /// Returns a trace, evaluated with what is known now.
    pub(super) fn of(&mut self, id: TraceId) -> Option<SettledTrace<'_>> {
        self.traces.change(&id, |trace| trace.settle(&mut self.names))?;
        Some(SettledTrace { id, trace: self.traces.get(&id)?, names: &self.names })
    }

    pub(super) fn bytes(&self) -> usize {
        self.traces.bytes() + self.names.bytes() + self.gone.bytes()
    }
}
