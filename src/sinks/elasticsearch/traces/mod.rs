//! What this sink knows of the traces it sees: enough to write their summaries, and to fill in agents that become known after the
//! spans below them. Pure: it is told the time.
//!
//! A summary is exact whatever the delivery history, because it is made of a set of spans by id, and because a summary that
//! somebody else wrote is never overwritten unseen: the first is written with `create`, each later one under the condition that
//! nobody wrote in between ([`Standing`]). Where somebody did, the trace is shared from then on, and its summary is made of what
//! the far side has (`resolve.rs`).
//!
//! This is working state and has bounds. What is forgotten costs a look at the far side, not exactness.

mod seen;
mod lineage;
mod shared;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::lineage::{Lineage, Node};
use super::document::Known;
use super::names::Seq;
use crate::span::{SpanId, TraceId};

pub(super) use seen::{KeptFacts, Seen, SpanFacts, Tokens, TraceFacts};
pub(super) use shared::{Due, Found, Shared};
pub(super) use summary::{NAMES_MAX, Summary, write_facts};

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Traces.
    pub(super) traces_max: usize,
    /// Spans of all traces.
    pub(super) spans_max: usize,
    /// Spans of one trace; larger ones are summed up by the far side.
    pub(super) spans_of_trace_max: usize,
    /// Shared traces that wait for their summary.
    pub(super) waiting_max: usize,
    /// How long a trace that nothing is heard of is kept.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            traces_max: 100_000,
            // About 250 bytes each, so some 60 MB at the most.
            spans_max: 250_000,
            spans_of_trace_max: 20_000,
            // Their ids are saved with every cursor: half a megabyte.
            waiting_max: 10_000,
            idle: Duration::from_mins(15),
        }
    }
}

/// How a trace's summary stands at the far side.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing {
    /// We have written none.
    New,
    /// Ours is there, in this version.
    Ours(Seq),
    /// The far side does not say versions, or does not let us look: the last writer wins.
    Blind,
    /// Somebody else, or an earlier life of ours, has written one: it is made of what the far side has.
    Shared(Shared),
}

/// The traces.
#[derive(Debug)]
pub(super) struct Traces {
    limits: Limits,
    table: HashMap<TraceId, Trace>,
    /// Traces by when they were last seen; entries that are outdated are skipped.
    ages: VecDeque<(TraceId, u64)>,
    touches: u64,
    spans: usize,
    waiting: usize,
    /// How long it takes until a document can be found.
    refresh_wait: Duration,
}

#[derive(Debug)]
struct Trace {
    name: Box<str>,
    touched: u64,
    touched_at: Instant,
    standing: Standing,
    lineage: Lineage,
    facts: KeptFacts,
    /// The earliest and the latest, in milliseconds since 1970.
    received_ms: (u64, u64),
    /// Raised by every change; the summary is stale while `written` is behind.
    version: u64,
    written: u64,
    /// Whether it had more spans than may be kept of one trace.
    is_large: bool,
}

/// A document of an earlier delivery that has to be changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patch {
    pub(super) span: SpanId,
    /// The client's own span id; without one the document's id is made of trace and span.
    pub(super) native: Option<Box<str>>,
    pub(super) event_ns: u64,
    pub(super) known: Known,
}

/// How a summary is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// There must be none yet.
    Absent,
    /// It must be at this version.
    At(Seq),
    /// None.
    Free,
}

impl Traces {
    pub(super) fn new(limits: Limits, refresh_wait: Duration) -> Self {
        Self {
            limits,
            table: HashMap::new(),
            ages: VecDeque::new(),
            touches: 0,
            spans: 0,
            waiting: 0,
            refresh_wait,
        }
    }

    /// Takes note of a span that is about to be sent. The same span may come any number of times.
    pub(super) fn see(&mut self, seen: &Seen<'_>, now: Instant) {
        let spans_of_trace_max = self.limits.spans_of_trace_max;
        let trace = self.touch(seen.trace, seen.trace_name, now);
        trace.received(seen.received_ms);
        trace.version += u64::from(trace.facts.join(seen.about_trace));
        if trace.is_large {
            return;
        }
        let before = trace.lineage.len();
        if trace.lineage.join(seen) {
            trace.version += 1;
        }
        let after = trace.lineage.len();
        let is_large = spans_of_trace_max < after;
        self.spans += after - before;
        if is_large {
            self.give_to_far_side(seen.trace, now);
        }
    }

    /// Takes note of what a trace object says.
    pub(super) fn see_facts(
        &mut self,
        trace: TraceId,
        name: &str,
        facts: TraceFacts<'_>,
        received_ms: u64,
        now: Instant,
    ) {
        let trace = self.touch(trace, name, now);
        trace.received(received_ms);
        trace.version += u64::from(trace.facts.join(facts) || trace.version == 0);
    }

    /// What the others of its trace say about a span.
    pub(super) fn known(&self, trace: TraceId, span: SpanId) -> Known {
        let found = self.table.get(&trace).map(|trace| (trace, trace.lineage.get(span)));
        match found {
            Some((trace, Some(node))) => trace.known(node),
            _ => Known::default(),
        }
    }

    /// Says that a span's document has, or is about to get, what is known now.
    pub(super) fn stamp(&mut self, trace: TraceId, span: SpanId) {
        if let Some(trace) = self.table.get_mut(&trace) {
            trace.lineage.stamp(span);
        }
    }

    /// The documents of earlier deliveries that lack something that is known now. They are not named again until [`Self::unstamp`].
    pub(super) fn take_patches(&mut self, trace: TraceId) -> Vec<Patch> {
        let Some(trace) = self.table.get_mut(&trace) else { return Vec::new() };
        let spans = trace.lineage.take_unstamped();
        let patches = spans.into_iter().filter_map(|span| {
            let node = trace.lineage.get(span)?;
            Some(Patch {
                span,
                native: node.native.clone(),
                event_ns: node.event_ns,
                known: trace.known(node),
            })
        });
        let patches: Vec<_> = patches.collect();
        for patch in &patches {
            trace.lineage.stamp(patch.span);
        }
        patches
    }

    /// Says that a patch did not arrive and is to be sent again.
    pub(super) fn unstamp(&mut self, trace: TraceId, span: SpanId) {
        if let Some(trace) = self.table.get_mut(&trace) {
            trace.lineage.unstamp(span);
        }
    }

    /// Takes note that a span was rejected for good: no summary counts it.
    pub(super) fn forget(&mut self, trace: TraceId, span: SpanId) {
        if let Some(trace) = self.table.get_mut(&trace)
            && trace.lineage.remove(span)
        {
            trace.version += 1;
            self.spans -= 1;
        }
    }

    /// The trace's id in documents.
    pub(super) fn name(&self, trace: TraceId) -> Option<&str> {
        self.table.get(&trace).map(|trace| &*trace.name)
    }

    /// The trace's id in documents, and what is said of it as a whole.
    pub(super) fn facts(&self, trace: TraceId) -> Option<(&str, TraceFacts<'_>)> {
        self.table.get(&trace).map(|trace| (&*trace.name, trace.facts.lend()))
    }

    /// The summary that is to be written now, its version, and under which condition; none where nothing changed or the far side
    /// has to be asked first.
    pub(super) fn stale(&self, id: TraceId) -> Option<(Summary<'_>, u64, Condition)> {
        let trace = self.table.get(&id).filter(|trace| trace.written < trace.version)?;
        let condition = match trace.standing {
            Standing::New => Condition::Absent,
            Standing::Ours(seq) => Condition::At(seq),
            Standing::Blind => Condition::Free,
            Standing::Shared(_) => return None,
        };
        Some((trace.summary(), trace.version, condition))
    }

    /// Whether a trace's summary is made by looking at the far side.
    pub(super) fn is_shared(&self, id: TraceId) -> bool {
        self.table.get(&id).is_some_and(|trace| matches!(trace.standing, Standing::Shared(_)))
    }

    /// The summary of this version is stored.
    pub(super) fn written(&mut self, id: TraceId, version: u64, seq: Option<Seq>) {
        let Some(trace) = self.table.get_mut(&id) else { return };
        if matches!(trace.standing, Standing::Shared(_)) {
            return;
        }
        trace.written = trace.written.max(version);
        trace.standing = seq.map_or(Standing::Blind, Standing::Ours);
    }

    /// What is wrong with this version of a summary will not pass: it is left out.
    pub(super) fn give_up(&mut self, id: TraceId, version: u64) {
        if let Some(trace) = self.table.get_mut(&id) {
            trace.written = trace.written.max(version);
        }
    }

    /// From now on the last writer wins.
    pub(super) fn make_blind(&mut self, id: TraceId) {
        if let Some(trace) = self.table.get_mut(&id) {
            if let Standing::Shared(shared) = &trace.standing {
                self.waiting -= usize::from(shared.is_waiting());
            }
            trace.standing = Standing::Blind;
        }
    }

    fn touch(&mut self, id: TraceId, name: &str, now: Instant) -> &mut Trace {
        self.make_room(now);
        self.touches += 1;
        let touched = self.touches;
        self.ages.push_back((id, touched));
        let trace = self.table.entry(id).or_insert_with(|| Trace::new(name, now));
        trace.touched = touched;
        trace.touched_at = now;
        trace
    }

    /// Forgets what nobody has heard of for long, and the oldest where there are too many. Shared traces that wait for their
    /// summary stay; they have a bound of their own.
    fn make_room(&mut self, now: Instant) {
        // Looks at a bounded number, so that no call takes long; each call adds at most one.
        for _ in 0..LOOKED_AT_MAX {
            let Some(&(id, touched)) = self.ages.front() else { return };
            let Some(trace) = self.table.get(&id) else {
                self.ages.pop_front();
                continue;
            };
            if trace.touched != touched {
                self.ages.pop_front();
                continue;
            }
            let is_full = self.limits.traces_max <= self.table.len()
                || self.limits.spans_max <= self.spans
                || self.limits.traces_max * AGES_PER_TRACE <= self.ages.len();
            let is_idle = trace.touched_at + self.limits.idle <= now;
            if !is_full && !is_idle {
                return;
            }
            self.ages.pop_front();
            if matches!(&trace.standing, Standing::Shared(shared) if shared.is_waiting()) {
                self.ages.push_back((id, touched));
                continue;
            }
            self.spans -= trace.lineage.len();
            self.table.remove(&id);
        }
    }

    /// Lets go of the spans of a trace that has too many: from now on the far side sums it up.
    fn give_to_far_side(&mut self, id: TraceId, now: Instant) {
        if let Some(trace) = self.table.get_mut(&id) {
            self.spans -= trace.lineage.len();
            trace.lineage = Lineage::default();
            trace.is_large = true;
        }
        self.share(id, now);
    }
}

/// Entries of the list of ages that one call looks at.
const LOOKED_AT_MAX: usize = 16;
/// Entries of that list for each trace that may be kept.
const AGES_PER_TRACE: usize = 16;

impl Trace {
    fn new(name: &str, now: Instant) -> Self {
        Self {
            name: name.into(),
            touched: 0,
            touched_at: now,
            standing: Standing::New,
            lineage: Lineage::default(),
            facts: KeptFacts::default(),
            received_ms: (u64::MAX, 0),
            version: 0,
            written: 0,
            is_large: false,
        }
    }

    fn received(&mut self, at_ms: u64) {
        self.received_ms = (self.received_ms.0.min(at_ms), self.received_ms.1.max(at_ms));
    }

    fn known(&self, node: &Node) -> Known {
        let agent_span = node.agent_span.and_then(|span| {
            let agent = self.lineage.get(span)?;
            Some(match &agent.native {
                Some(native) => Arc::from(&**native),
                None => Arc::from(span.to_string()),
            })
        });
        Known { agent: node.agent.clone(), agent_span, depth: node.depth }
    }
}
