//! What has become of each item of a delivery so far, and what is still to be sent for it. Pure.
//!
//! What the far side took is never sent again because of what it refused: a server whose write queue has room for one part of a
//! request takes the same part each time, and if that were in the next request again, the rest would never arrive. So an item that
//! arrived is handed over again, where the rest of its trace did not, as one that has arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::document::Rung;
use super::encode::{Bulk, Line, What};
use super::outcome::{Outcome, Part, Rejection};
use super::response::{Answer, Class, explain, judge, kept};
use super::traces::Traces;
use crate::sinks::Delivery;
use crate::span::{Item, SpanId, TraceId};

/// Why something has to be sent again, the gravest last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// It may work later.
    Retry { after: Option<Duration>, reason: String },
    /// The far side has too much to do.
    Throttled { after: Option<Duration>, reason: String },
    /// An operator has to mend it.
    Stop { reason: String },
}

impl Trouble {
    /// What it is for a lane.
    fn outcome(self) -> Outcome {
        match self {
            Self::Retry { after, reason } => Outcome::Retry { after, reason },
            Self::Throttled { after, reason } => Outcome::Throttled { after, reason },
            Self::Stop { reason } => Outcome::Stop { reason },
        }
    }
}

/// What has become of an item.
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Nothing yet, or nothing has to.
    Open,
    /// It is there.
    Stored,
    /// It is in the failure store.
    SetAside,
    /// It has to be sent again.
    Again(Trouble),
    /// It shares what became of its request.
    Shares(usize),
    /// It will never be taken.
    Rejected { reason: String, answer: String },
}

/// What has become of a delivery.
#[derive(Debug)]
pub(super) struct Progress {
    states: Vec<State>,
    /// Each item's trace and span.
    items: Vec<(TraceId, Option<SpanId>)>,
    /// Which items had arrived before this attempt.
    had_arrived: Vec<bool>,
    /// The items that speak for what their trace needs beside its spans: its trace objects, or else its last span. Where that
    /// could not be sent, these are handed over again.
    owners: HashMap<TraceId, Vec<usize>>,
    objects: BTreeSet<TraceId>,
    /// Traces with something that could not be sent beside the documents of their spans, and why.
    owed: BTreeMap<TraceId, Trouble>,
    /// Traces whose trace object was joined to the summary of somebody else.
    joined: BTreeSet<TraceId>,
    /// Whether the far side took anything.
    has_taken: bool,
    /// Outcomes of whole requests that several items share.
    shared: Vec<Outcome>,
    /// Items to send once more in their plainest form.
    to_fold: Vec<usize>,
    /// Traces whose summary has to be written once more.
    to_correct: BTreeSet<TraceId>,
    /// Figures of this delivery.
    pub(super) tally: Tally,
}

/// What happened to documents, by kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Documents that were new.
    pub(super) created: u64,
    /// Documents that were there already.
    pub(super) updated: u64,
    /// Documents that were there already and were left as they were.
    pub(super) duplicate: u64,
    /// Documents and changes that have to be sent again, for themselves or because their whole request was not taken.
    pub(super) retried: u64,
    /// Spans that went out in their plainest form.
    pub(super) folded: u64,
    /// Spans that are in the failure store.
    pub(super) set_aside: u64,
    /// Summaries that somebody else had written.
    pub(super) conflicts: u64,
    /// Summaries that overwrote one unseen, or that could not be kept in mind.
    pub(super) unverified: u64,
    /// Summaries and changes that the far side refused for what is in them.
    pub(super) refused: u64,
}

/// How conflicts are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conflicts {
    /// By looking at the far side.
    Resolved,
    /// By overwriting.
    Overwritten,
}

impl Progress {
    pub(super) fn new(delivery: &Delivery, had_arrived: Vec<bool>) -> Self {
        let items: Vec<_> = delivery
            .items()
            .map(|(_, item)| (item.trace_id(), item.as_span().map(|span| span.span_id)))
            .collect();
        let mut owners: HashMap<TraceId, Vec<usize>> = HashMap::new();
        let mut objects = BTreeSet::new();
        for (place, (_, item)) in delivery.items().enumerate() {
            let of_trace = owners.entry(item.trace_id()).or_default();
            if matches!(item, Item::Trace(_)) {
                if objects.insert(item.trace_id()) {
                    of_trace.clear();
                }
                of_trace.push(place);
            } else if !objects.contains(&item.trace_id()) {
                *of_trace = vec![place];
            }
        }
        Self {
            states: vec![State::Open; items.len()],
            had_arrived,
            items,
            owners,
            objects,
            owed: BTreeMap::new(),
            joined: BTreeSet::new(),
            has_taken: false,
            shared: Vec::new(),
            to_fold: Vec::new(),
            to_correct: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// Whether this delivery has the trace object of a trace.
    pub(super) fn has_object(&self, trace: TraceId) -> bool {
        self.objects.contains(&trace)
    }

    /// Items to send once more in their plainest form.
    pub(super) fn take_to_fold(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.to_fold)
    }

    /// Traces whose summary has to be written once more.
    pub(super) fn take_to_correct(&mut self) -> Vec<TraceId> {
        std::mem::take(&mut self.to_correct).into_iter().collect()
    }

    /// The traces of which something arrived.
    pub(super) fn arrived(&self) -> BTreeSet<TraceId> {
        let stored = self.states.iter().zip(&self.items);
        let stored = stored.filter(|(state, _)| matches!(state, State::Stored));
        stored.map(|(_, (trace, _))| *trace).collect()
    }

    /// Takes note of one line's answer.
    pub(super) fn answered(
        &mut self,
        line: &Line,
        answer: &Answer<'_>,
        traces: &mut Traces,
        conflicts: Conflicts,
        now: Instant,
    ) {
        let class = judge(answer, line.action);
        self.count(line, answer, &class);
        match line.what {
            What::Span { place, rung } => self.span_answered(place, rung, answer, &class, traces),
            What::Patch { trace, span } => match &class {
                Class::Stored | Class::Conflict | Class::Missing | Class::SetAside => {}
                Class::Refused => self.tally.refused += 1,
                _ => {
                    traces.unstamp(trace, span);
                    self.owe(trace, &trouble(answer, &class));
                }
            },
            What::Summary { trace, version } => match &class {
                Class::Stored => traces.written(trace, version, answer.seq),
                Class::Conflict => self.conflict(trace, traces, conflicts, now),
                Class::Missing | Class::SetAside | Class::Refused => {
                    self.tally.refused += 1;
                    traces.give_up(trace, version);
                }
                _ => self.owe(trace, &trouble(answer, &class)),
            },
            // Deliveries have none of these.
            What::Late { .. } => {}
            What::Facts { trace } => match &class {
                Class::Stored | Class::SetAside => {
                    self.joined.insert(trace);
                }
                Class::Conflict | Class::Missing | Class::Refused => self.tally.refused += 1,
                _ => self.owe(trace, &trouble(answer, &class)),
            },
        }
    }

    fn count(&mut self, line: &Line, answer: &Answer<'_>, class: &Class) {
        let is_span = matches!(line.what, What::Span { .. });
        let tally = &mut self.tally;
        match (class, answer.status) {
            (Class::Stored, 201) => tally.created += 1,
            (Class::Stored, 409) => tally.duplicate += 1,
            (Class::Stored, _) => tally.updated += 1,
            (Class::Conflict, _) if is_span => tally.duplicate += 1,
            (class, _) => tally.retried += u64::from(!class.is_final()),
        }
        self.has_taken |= *class == Class::Stored;
    }

    fn span_answered(
        &mut self,
        place: usize,
        rung: Rung,
        answer: &Answer<'_>,
        class: &Class,
        traces: &mut Traces,
    ) {
        let state = match class {
            // A document that is there already is one that we have sent before.
            Class::Stored | Class::Conflict => State::Stored,
            Class::SetAside => {
                self.tally.set_aside += 1;
                State::SetAside
            }
            Class::Refused if rung == Rung::Full => {
                self.tally.folded += 1;
                self.to_fold.push(place);
                State::Open
            }
            Class::Refused | Class::Missing => {
                let reason = format!("rejected: {}", explain(answer, class));
                self.reject(place, reason, kept(answer), traces);
                return;
            }
            Class::Retry | Class::Throttled | Class::Stop | Class::NoIndex => {
                State::Again(trouble(answer, class))
            }
        };
        self.set(place, state);
    }

    /// Sets an item aside for good.
    pub(super) fn reject(
        &mut self,
        place: usize,
        reason: String,
        answer: String,
        traces: &mut Traces,
    ) {
        self.set(place, State::Rejected { reason, answer });
        if let Some((trace, Some(span))) = self.items.get(place) {
            traces.forget(*trace, *span);
            self.to_correct.insert(*trace);
        }
    }

    /// Sends an item once more in its plainest form.
    pub(super) fn fold(&mut self, place: usize) {
        self.tally.folded += 1;
        self.to_fold.push(place);
    }

    fn conflict(
        &mut self,
        trace: TraceId,
        traces: &mut Traces,
        conflicts: Conflicts,
        now: Instant,
    ) {
        self.tally.conflicts += 1;
        match conflicts {
            Conflicts::Overwritten => {
                self.tally.unverified += 1;
                traces.make_blind(trace);
                self.to_correct.insert(trace);
            }
            Conflicts::Resolved => {
                self.tally.unverified += u64::from(!traces.share(trace, now));
                // What its trace object says is nowhere else: it is joined to the summary that is there.
                if self.has_object(trace) {
                    self.to_correct.insert(trace);
                }
            }
        }
    }

    /// A whole request was not taken; none of its lines arrived, as far as is known.
    pub(super) fn failed(&mut self, bulk: &Bulk, trouble: &Trouble, traces: &mut Traces) {
        self.tally.retried += bulk.lines.len() as u64;
        for line in &bulk.lines {
            match line.what {
                What::Span { place, .. } => self.set(place, State::Again(trouble.clone())),
                What::Patch { trace, span } => {
                    traces.unstamp(trace, span);
                    self.owe(trace, trouble);
                }
                What::Summary { trace, .. } | What::Facts { trace } => self.owe(trace, trouble),
                What::Late { .. } => {}
            }
        }
    }

    /// A whole request of documents of spans had an outcome that all of them share.
    pub(super) fn shares(&mut self, bulk: &Bulk, outcome: Outcome) {
        let number = self.shared.len();
        self.shared.push(outcome);
        for place in bulk.places() {
            self.set(place, State::Shares(number));
        }
    }

    /// A whole request without documents of spans was refused for what is in it.
    pub(super) fn give_up(&mut self, bulk: &Bulk, traces: &mut Traces) {
        for line in &bulk.lines {
            self.tally.refused += 1;
            if let What::Summary { trace, version } = line.what {
                traces.give_up(trace, version);
            }
        }
    }

    /// Takes note that something a trace needs beside the documents of its spans could not be sent. The gravest reason counts.
    fn owe(&mut self, trace: TraceId, trouble: &Trouble) {
        let known = self.owed.entry(trace).or_insert_with(|| trouble.clone());
        if *known < *trouble {
            known.clone_from(trouble);
        }
    }

    fn set(&mut self, place: usize, state: State) {
        if let Some(known) = self.states.get_mut(place) {
            *known = state;
        }
    }

    /// The items that are handed over again for the sake of what their trace is owed, and what a lane is told of them. Where the
    /// owners of a trace did not arrive, another one does it.
    fn carriers(&self) -> HashMap<usize, Outcome> {
        let mut carriers = HashMap::new();
        for (trace, trouble) in &self.owed {
            let state = |place: &usize| self.states.get(*place);
            let is_open = |place: &usize| matches!(state(place), Some(State::Open | State::Stored));
            let owners = self.owners.get(trace).map(Vec::as_slice).unwrap_or_default();
            // With one that comes again anyway comes the rest too.
            if owners.iter().any(|place| matches!(state(place), Some(State::Again(_)))) {
                continue;
            }
            let mut places: Vec<usize> = owners.iter().copied().filter(is_open).collect();
            if places.is_empty() {
                let all = self.items.iter().enumerate();
                let of_trace = all.filter(|(_, (of, _))| of == trace).map(|(place, _)| place);
                places.extend(of_trace.rev().find(is_open));
            }
            for place in places {
                let outcome = trouble.clone().outcome();
                let is_there = self.has_arrived(place);
                carriers.insert(
                    place,
                    if is_there { Outcome::Owed(Box::new(outcome)) } else { outcome },
                );
            }
        }
        carriers
    }

    /// Whether an item need not be written again, neither its document nor what its trace object says.
    fn has_arrived(&self, place: usize) -> bool {
        let is_stored = self.states.get(place) == Some(&State::Stored);
        let is_object = |(trace, span): &(TraceId, Option<SpanId>)| {
            span.is_none() && self.joined.contains(trace)
        };
        is_stored
            || self.had_arrived.get(place) == Some(&true)
            || self.items.get(place).is_some_and(is_object)
    }

    /// What a lane is told.
    pub(super) fn outcome(self) -> Outcome {
        let mut carriers = self.carriers();
        let mut groups: Vec<(Outcome, Vec<usize>)> = Vec::new();
        let mut rejections = Vec::new();
        let mut set_aside = Vec::new();
        let mut delivered = Vec::new();
        for (index, state) in self.states.into_iter().enumerate() {
            let outcome = match state {
                State::Open | State::Stored => {
                    let Some(outcome) = carriers.remove(&index) else {
                        delivered.push(index);
                        continue;
                    };
                    outcome
                }
                State::SetAside => {
                    set_aside.push(index);
                    continue;
                }
                State::Rejected { reason, answer } => {
                    rejections.push(Rejection { index, reason, answer });
                    continue;
                }
                State::Again(trouble) => trouble.outcome(),
                State::Shares(number) => match self.shared.get(number) {
                    Some(outcome) => outcome.clone(),
                    None => continue,
                },
            };
            match groups.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, items)) => items.push(index),
                None => groups.push((outcome, vec![index])),
            }
        }
        if !set_aside.is_empty() {
            let reason = "put into the failure store, where no search finds it".to_owned();
            let rejected = set_aside.len() as u64;
            groups.push((Outcome::Incomplete { rejected, reason }, set_aside));
        }
        if !rejections.is_empty() {
            let items = rejections.iter().map(|rejection| rejection.index).collect();
            groups.push((Outcome::Reject(rejections), items));
        }
        if groups.is_empty() {
            return Outcome::Delivered;
        }
        if (self.has_taken && groups.iter().any(|(known, _)| comes_again(known)))
            || !delivered.is_empty()
        {
            groups.push((Outcome::Delivered, delivered));
        }
        if groups.len() == 1 {
            return groups.swap_remove(0).0;
        }
        let part = |(outcome, items)| Part { items, outcome };
        Outcome::Parts(groups.into_iter().map(part).collect())
    }
}

/// Whether the far side only has to be asked again, so that it matters whether it took anything meanwhile.
fn comes_again(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Owed(_) | Outcome::Throttled { .. } | Outcome::Retry { .. })
}

fn trouble(answer: &Answer<'_>, class: &Class) -> Trouble {
    let reason = explain(answer, class);
    match class {
        Class::Stop | Class::NoIndex => Trouble::Stop { reason },
        Class::Throttled => Trouble::Throttled { after: None, reason },
        _ => Trouble::Retry { after: None, reason },
    }
}
