//! The state of rules that wait for traces, for one lane: the decisions of rules with `decide = "trace"`, and the spans that rules drop.
//! Pure: the time is the arrival time of requests.
//!
//! The table is fed with everything in the journal, in order and ahead of delivery. The first of these conditions decides a trace:
//!
//! | what | decision |
//! |---|---|
//! | no item of it arrived for `quiet` | by the rules that matched one of its items until then |
//! | it is open for `longest` | kept, and counted |
//! | there is no space for it | kept, and counted |
//!
//! A decision holds for the entire trace, including later spans, until no span of it has arrived for [`REMEMBER`]; after that it is a new
//! trace. It depends only on the contents of the journal, so a restarted lane that is fed from far enough back makes the same decisions.
//! Traces that may have begun before the table was fed are kept.

#[cfg(test)]
pub(crate) mod cut_tests;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry as Place;
use std::collections::{HashMap, HashSet};

use crate::feed::journal_time::JournalTime;
use crate::rules::{
    DecideOptions, Decided, Dropped, Elsewhere, Key, Marks, REMEMBER, UndecidedRequest,
};
use crate::span::{Batch, Item, TraceId};
use crate::support::clock::nanos;

/// Maximum number of traces. With the map that holds them they take less than 160 MiB, even while the map grows.
const TRACES_MAX: usize = 1_800_000;
const REMEMBER_NS: u64 = REMEMBER.as_secs() * 1_000_000_000;
/// Maximum number of spans: with the longest names of their parents they take less than 100 MiB. Below a span without space here, spans of
/// other requests keep the parent that they name.
const SPANS_MAX: usize = 450_000;
/// How long to wait, in the table's time, before looking for space again after finding none.
const LOOK_FOR_ROOM_NS: u64 = 1_000_000_000;

/// The table of decisions.
#[derive(Debug, Default)]
pub struct Decisions {
    /// How long a trace must be quiet, and how long it may be open.
    waits: (u64, u64),
    /// The marks of a trace that is kept without a decision.
    kept: Marks,
    traces_max: usize,
    traces: HashMap<TraceId, Trace>,
    spans_max: usize,
    /// Spans that rules drop.
    dropped: HashMap<Key, Dropped>,
    /// Spans that may have called other services, whose spans come in other requests.
    callers: HashSet<Key>,
    /// The current time. Callers tell it the arrival time of the next record, and that everything before a time has come.
    pub time: JournalTime,
    /// Traces first seen before this may have begun before the table was fed.
    unknown_until_ns: u64,
    full_until_ns: u64,
    figures: Undecided,
}

#[derive(Debug, Clone, Copy)]
struct Trace {
    first_ns: u64,
    last_ns: u64,
    marks: Marks,
    is_decided: bool,
}

/// Number of traces kept without a decision, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Undecided {
    /// Traces that were not quiet in time, or may have begun before the start of the journal.
    pub too_long: u64,
    /// Traces without space for them or their spans.
    pub no_room: u64,
}

impl Decisions {
    /// Creates an empty table; `kept` marks a trace that is kept.
    pub fn new(options: DecideOptions, kept: Marks) -> Self {
        Self {
            waits: (nanos(options.quiet), nanos(options.longest)),
            kept,
            traces_max: TRACES_MAX,
            spans_max: SPANS_MAX,
            ..Self::default()
        }
    }

    /// Notes that earlier records are missing, so that a trace may have begun before: new traces are kept until such traces would be
    /// forgotten.
    pub fn begin_in_the_middle(&mut self, now_ns: u64) {
        self.time.tell(now_ns);
        self.unknown_until_ns = self.time.now_ns().saturating_add(REMEMBER_NS);
    }

    /// Resets the counts: what was fed so far was counted before.
    pub(super) fn count_from_here(&mut self) {
        self.figures = Undecided::default();
    }

    /// Adds the traces of a request, each with the rules that match one of its items there. Callers first release all records that are
    /// decided by this time, so that no awaited trace is forgotten.
    pub fn feed(&mut self, received_at_ns: u64, survey: UndecidedRequest) {
        self.time.tell(received_at_ns);
        let now_ns = self.time.now_ns();
        for (id, marks) in &survey.traces {
            let has_room = self.traces.contains_key(id) || self.has_room(now_ns);
            match self.traces.entry(*id) {
                Place::Occupied(known) if now_ns < forgotten_at(known.get(), REMEMBER_NS) => {
                    let trace = known.into_mut();
                    let is_too_long = trace.settle(now_ns, self.waits, self.kept);
                    self.figures.too_long += u64::from(is_too_long);
                    if !trace.is_decided {
                        trace.marks = trace.marks.with(*marks);
                    }
                    trace.last_ns = now_ns;
                }
                Place::Vacant(_) if !has_room => self.figures.no_room += 1,
                place => {
                    let (first_ns, is_decided) = (now_ns, now_ns < self.unknown_until_ns);
                    self.figures.too_long += u64::from(is_decided);
                    let marks = if is_decided { self.kept } else { *marks };
                    place.insert_entry(Trace { first_ns, last_ns: now_ns, marks, is_decided });
                }
            }
        }
        self.remember_spans(survey);
    }

    fn remember_spans(&mut self, survey: UndecidedRequest) {
        let more = survey.dropped.len() + survey.callers.len();
        if self.spans_max < self.spans() + more {
            let (now_ns, after_ns) = (self.time.now_ns(), self.waits.1);
            let traces = &self.traces;
            let is_of_use = |(trace, _): &Key| {
                traces.get(trace).is_some_and(|trace| now_ns < forgotten_at(trace, after_ns))
            };
            self.dropped.retain(|key, _| is_of_use(key));
            self.callers.retain(is_of_use);
        }
        if self.spans() + more <= self.spans_max {
            self.dropped.extend(survey.dropped);
            self.callers.extend(survey.callers);
        } else {
            self.figures.no_room += 1;
        }
    }

    fn spans(&self) -> usize {
        self.dropped.len() + self.callers.len()
    }

    /// Returns when all of these traces, which were fed, will be decided, in the table's time; `None` if they are.
    pub fn decided_at_ns(&self, traces: impl IntoIterator<Item = TraceId>) -> Option<u64> {
        let now_ns = self.time.now_ns();
        let open = traces.into_iter().filter_map(|id| self.traces.get(&id));
        let open = open.filter(|trace| !trace.is_decided);
        let due = open.map(|trace| trace.due_ns(self.waits));
        due.filter(|due_ns| now_ns < *due_ns).max()
    }

    /// Returns the rules that match these traces as known now, and fixes the decisions that are due.
    pub fn of(&mut self, traces: impl IntoIterator<Item = TraceId>) -> HashMap<TraceId, Marks> {
        let (now_ns, waits, kept) = (self.time.now_ns(), self.waits, self.kept);
        let mut known = HashMap::new();
        for id in traces {
            let Some(trace) = self.traces.get_mut(&id) else { continue };
            self.figures.too_long += u64::from(trace.settle(now_ns, waits, kept));
            known.insert(id, trace.marks);
        }
        known
    }

    /// Returns the same for the traces of a request, with the dropped ancestors of its spans in other requests.
    pub fn of_batch(&mut self, batch: &Batch) -> Decided {
        let traces = self.of(batch.items.iter().map(Item::trace_id));
        let mut elsewhere = Elsewhere::default();
        if !self.dropped.is_empty() {
            let spans = batch.spans();
            let parents = spans.filter_map(|span| Some((span.trace_id, span.parent_id?)));
            parents.for_each(|parent| self.climb(parent, &traces, &mut elsewhere));
        }
        Decided { traces, elsewhere }
    }

    /// Collects the dropped spans from a span upwards.
    fn climb(&self, from: Key, traces: &HashMap<TraceId, Marks>, found: &mut Elsewhere) {
        let (trace, mut next) = (from.0, Some(from.1));
        let marks = traces.get(&trace).copied().unwrap_or(self.kept);
        while let Some(key) = next.map(|id| (trace, id))
            && !found.dropped.contains_key(&key)
            && let Some(dropped) = self.dropped.get(&key)
            && !marks.has(dropped.spared_by)
        {
            next = dropped.parent_id;
            let caller = next.map(|id| (trace, id));
            found.callers.extend(caller.filter(|caller| self.callers.contains(caller)));
            found.dropped.insert(key, dropped.clone());
        }
    }

    /// Returns the number of traces kept without a decision.
    pub fn undecided(&self) -> Undecided {
        self.figures
    }

    /// Returns the number of remembered traces, open and decided.
    pub fn remembered(&self) -> usize {
        self.traces.len()
    }

    /// Returns whether there is space for one more trace, if necessary after forgetting those that were quiet for longest. Traces of
    /// records that may still have to be delivered stay.
    fn has_room(&mut self, now_ns: u64) -> bool {
        let is_full = self.traces_max <= self.traces.len();
        let would_grow = self.traces.capacity() == self.traces.len();
        if !is_full && !would_grow {
            return true;
        }
        if is_full && now_ns < self.full_until_ns {
            return false;
        }
        let mut after_ns = REMEMBER_NS;
        loop {
            self.traces.retain(|_, trace| now_ns < forgotten_at(trace, after_ns));
            let traces = &self.traces;
            self.dropped.retain(|(trace, _), _| traces.contains_key(trace));
            self.callers.retain(|(trace, _)| traces.contains_key(trace));
            // A nearly full map would otherwise be scanned for every trace.
            if self.traces.len() <= self.traces_max / 8 * 7 || !is_full {
                return true;
            }
            if after_ns <= self.waits.1 {
                break;
            }
            after_ns = (after_ns / 2).max(self.waits.1);
        }
        self.full_until_ns = now_ns.saturating_add(LOOK_FOR_ROOM_NS);
        self.traces.len() < self.traces_max
    }
}

impl Trace {
    fn due_ns(&self, (quiet_ns, longest_ns): (u64, u64)) -> u64 {
        self.last_ns.saturating_add(quiet_ns).min(self.first_ns.saturating_add(longest_ns))
    }

    /// Decides the trace if it is due; returns whether it was not quiet in time.
    fn settle(&mut self, now_ns: u64, waits: (u64, u64), kept: Marks) -> bool {
        if self.is_decided || now_ns < self.due_ns(waits) {
            return false;
        }
        self.is_decided = true;
        let is_quiet = self.last_ns.saturating_add(waits.0) <= self.due_ns(waits);
        if !is_quiet {
            self.marks = kept;
        }
        !is_quiet
    }
}

fn forgotten_at(trace: &Trace, after_ns: u64) -> u64 {
    trace.last_ns.saturating_add(after_ns)
}
