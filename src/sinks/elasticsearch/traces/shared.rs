//! Traces of which somebody else, or an earlier life, has written the summary: when it is looked at, when it is made of what the far
//! side has, and when that has to be done again. Pure: it is told the time.

use std::time::Instant;

use super::{KeptFacts, Standing, Trace, Traces};
use crate::sinks::elasticsearch::names::Seq;
use crate::span::TraceId;

/// The state of a shared trace's summary.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sinks::elasticsearch) struct Shared {
    /// Raised by everything that makes the summary stale.
    pub(in crate::sinks::elasticsearch) raised: u64,
    /// The value of `raised` that the summary at the far side is made of.
    pub(in crate::sinks::elasticsearch) settled: u64,
    /// When it may be made: everything sent before can be found by then.
    pub(in crate::sinks::elasticsearch) due: Instant,
    /// What was read of the summary that is there, once it was.
    pub(in crate::sinks::elasticsearch) found: Option<Found>,
    /// How often the far side could not find yet what it has.
    pub(in crate::sinks::elasticsearch) misses: u32,
}

/// The summary that somebody else wrote.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::sinks::elasticsearch) struct Found {
    /// Its version; none where there is no summary yet.
    pub(in crate::sinks::elasticsearch) seq: Option<Seq>,
    /// What it says of the trace as a whole.
    pub(in crate::sinks::elasticsearch) facts: KeptFacts,
    /// How many spans it counts.
    pub(in crate::sinks::elasticsearch) spans: u64,
}

impl Shared {
    pub(super) fn is_waiting(&self) -> bool {
        self.settled < self.raised
    }
}

/// A shared trace whose summary can be made now.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sinks::elasticsearch) struct Due {
    pub(in crate::sinks::elasticsearch) trace: TraceId,
    pub(in crate::sinks::elasticsearch) name: Box<str>,
    /// See [`Shared::raised`].
    pub(in crate::sinks::elasticsearch) raised: u64,
    pub(in crate::sinks::elasticsearch) found: Found,
    /// What was heard here of the trace as a whole.
    pub(in crate::sinks::elasticsearch) facts: KeptFacts,
    pub(in crate::sinks::elasticsearch) received_ms: (u64, u64),
    /// Spans that are there for certain.
    pub(in crate::sinks::elasticsearch) spans_min: u64,
}

/// How often a sum that lacks spans is asked for again, each time after twice as long. What is still missing then was deleted.
pub(super) const MISSES_MAX: u32 = 5;

impl Traces {
    /// Somebody else has written this trace's summary: it is to be made of what the far side has. Returns whether there is room
    /// to remember that; if not, what is there stays as it is.
    pub(in crate::sinks::elasticsearch) fn share(&mut self, id: TraceId, now: Instant) -> bool {
        let (waiting_max, due) = (self.limits.waiting_max, now + self.refresh_wait);
        let Some(trace) = self.table.get_mut(&id) else { return true };
        let was_waiting = match &mut trace.standing {
            Standing::Shared(shared) => shared.is_waiting(),
            _ => false,
        };
        if !was_waiting && waiting_max <= self.waiting {
            let shared = Shared { raised: 1, settled: 1, due, found: None, misses: 0 };
            trace.standing = Standing::Shared(shared);
            return false;
        }
        let raised = match &trace.standing {
            Standing::Shared(shared) => shared.raised + 1,
            _ => 1,
        };
        trace.standing =
            Standing::Shared(Shared { raised, settled: 0, due, found: None, misses: 0 });
        self.waiting += usize::from(!was_waiting);
        true
    }

    /// Spans of these traces have arrived: the summaries of those that are shared are stale.
    pub(in crate::sinks::elasticsearch) fn arrived(
        &mut self,
        ids: impl IntoIterator<Item = TraceId>,
        now: Instant,
    ) {
        for id in ids {
            let Some(trace) = self.table.get_mut(&id) else { continue };
            let Standing::Shared(shared) = &mut trace.standing else { continue };
            if shared.is_waiting() {
                shared.raised += 1;
                shared.due = now + self.refresh_wait;
            } else {
                self.share(id, now);
            }
        }
    }

    /// Shared traces whose summary has not been looked at yet, with their names.
    pub(in crate::sinks::elasticsearch) fn to_find(
        &self,
        count: usize,
    ) -> Vec<(TraceId, Box<str>)> {
        let shared = self.waiting().filter(|(_, _, shared)| shared.found.is_none());
        shared.take(count).map(|(id, trace, _)| (id, trace.name.clone())).collect()
    }

    /// This is what the far side has. It counts for spans that can be found, so the summary is made no earlier than all that was
    /// sent before this was read can be.
    pub(in crate::sinks::elasticsearch) fn found(
        &mut self,
        id: TraceId,
        found: Found,
        now: Instant,
    ) {
        let due = now + self.refresh_wait;
        if let Some(trace) = self.table.get_mut(&id)
            && let Standing::Shared(shared) = &mut trace.standing
        {
            shared.found = Some(found);
            shared.due = shared.due.max(due);
        }
    }

    /// Shared traces whose summary can be made.
    pub(in crate::sinks::elasticsearch) fn due(&self, count: usize, now: Instant) -> Vec<Due> {
        let due = self.waiting().filter(|(_, _, shared)| shared.due <= now);
        let due = due.filter_map(|(id, trace, shared)| {
            Some(Due {
                trace: id,
                name: trace.name.clone(),
                raised: shared.raised,
                found: shared.found.clone()?,
                facts: trace.facts.clone(),
                received_ms: trace.received_ms,
                spans_min: trace.lineage.counted(),
            })
        });
        due.take(count).collect()
    }

    /// All shared traces that wait for their summary.
    pub(in crate::sinks::elasticsearch) fn all_waiting(&self) -> Vec<TraceId> {
        self.waiting().map(|(id, _, _)| id).collect()
    }

    /// When the next of them can be made or looked at; `None` where none waits.
    pub(in crate::sinks::elasticsearch) fn next_due(&self) -> Option<Instant> {
        self.waiting().map(|(_, _, shared)| shared.due).min()
    }

    /// The far side cannot find yet what it has, because it refreshes more slowly than we were told. Returns whether to wait.
    pub(in crate::sinks::elasticsearch) fn must_wait(
        &mut self,
        due: &Due,
        spans: u64,
        now: Instant,
    ) -> bool {
        if due.spans_min.max(due.found.spans) <= spans {
            return false;
        }
        let refresh_wait = self.refresh_wait;
        let Some(trace) = self.table.get_mut(&due.trace) else { return false };
        let Standing::Shared(shared) = &mut trace.standing else { return false };
        shared.misses += 1;
        shared.due = now + refresh_wait * 2_u32.saturating_pow(shared.misses);
        shared.misses <= MISSES_MAX
    }

    /// A shared trace's summary was written, made of everything up to `raised`; this is its version.
    pub(in crate::sinks::elasticsearch) fn resolved(
        &mut self,
        id: TraceId,
        raised: u64,
        seq: Option<Seq>,
    ) {
        let Some(trace) = self.table.get_mut(&id) else { return };
        let Standing::Shared(shared) = &mut trace.standing else { return };
        shared.settled = shared.settled.max(raised);
        if let (Some(found), Some(_)) = (&mut shared.found, seq) {
            found.seq = seq;
        } else {
            shared.found = None;
        }
        if !shared.is_waiting() {
            shared.found = None;
            self.waiting -= 1;
        }
    }

    /// A shared trace's summary could not be written, because somebody else was faster: it has to be looked at again.
    pub(in crate::sinks::elasticsearch) fn lost_race(&mut self, id: TraceId) {
        if let Some(trace) = self.table.get_mut(&id)
            && let Standing::Shared(shared) = &mut trace.standing
        {
            shared.found = None;
        }
    }

    /// Whether no shared trace waits for its summary.
    pub(in crate::sinks::elasticsearch) fn is_settled(&self) -> bool {
        self.waiting == 0
    }

    /// The traces that wait for their summary, to be found again after a restart: one id and name a line.
    pub(in crate::sinks::elasticsearch) fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, trace, _) in self.waiting() {
            out.extend_from_slice(&id.to_hex());
            out.push(b' ');
            crate::support::json::write_str(&mut out, &trace.name);
            out.push(b'\n');
        }
        out
    }

    /// Goes on where an earlier life stopped.
    pub(in crate::sinks::elasticsearch) fn restore(&mut self, saved: &[u8], now: Instant) {
        let text = String::from_utf8_lossy(saved);
        for line in text.lines() {
            let Some((id, name)) = line.split_once(' ') else { continue };
            let name = serde_json::from_str::<String>(name).ok();
            let (Some(id), Some(name)) = (TraceId::from_hex(id), name) else { continue };
            self.touch(id, &name, now);
            self.share(id, now);
        }
    }

    fn waiting(&self) -> impl Iterator<Item = (TraceId, &Trace, &Shared)> {
        // Mostly none waits, and then the table is not walked.
        let table = (0 < self.waiting).then_some(&self.table);
        table.into_iter().flatten().filter_map(|(id, trace)| match &trace.standing {
            Standing::Shared(shared) if shared.is_waiting() => Some((*id, trace, shared)),
            _ => None,
        })
    }
}
