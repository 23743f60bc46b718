//! The record of one trace: its names and times, and the data for sums of each span that is an agent, a tool or a model call, or reports
//! tokens. While it may grow, it has a tree, which decides for sums and agent metrics. Pure.

use std::num::NonZeroU64;

use super::By;
use super::names::{Name, Names};
use super::pending::PendingMetrics;
use crate::feed::{Agents, SpanTree};
use crate::journal::Position;
use crate::normalize::trace_facts;
use crate::prices::Prices;
use crate::span::{
    AncestorCache, Facts, Item, Kind, Own, Span, SpanId, Spending, Spends, Spent, Text, TraceId,
    TraceObject, said_of,
};
use crate::support::by_touch::Weighed;
use crate::support::number::as_f64;
use crate::telemetry::AgentSeries;

/// Maximum number of calls of a trace that are kept separately: 12 MiB.
const CALLS_MAX: usize = 1 << 18;
/// Maximum number of names per trace: of agents, tools, models and in handoffs together.
const NAMES_MAX: usize = 1 << 12;
/// Index of a missing name.
const NAMELESS: u16 = u16::MAX;
/// Nanodollars per dollar.
const NANOS: f64 = 1e9;

/// Sums of what counts in a trace, or in some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) total: u64,
    /// In billionths of a dollar, plus one; `None` if no cost is known.
    cost: Option<NonZeroU64>,
}

impl Sums {
    fn of(span: &Span, prices: &Prices) -> Self {
        let said = said_of(span.brief_facts());
        let (input, output) = (said.input.unwrap_or(0), said.output.unwrap_or(0));
        let total = said.total.unwrap_or_else(|| input.saturating_add(output));
        let cost = prices.cost_of(span).and_then(nanos_of);
        let cost = cost.and_then(|nanos| NonZeroU64::new(nanos.saturating_add(1)));
        Self { input, output, total, cost }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.output = self.output.saturating_add(more.output);
        self.total = self.total.saturating_add(more.total);
        if let Some(cost) = more.cost {
            self.cost = Some(self.cost.map_or(cost, |own| own.saturating_add(cost.get() - 1)));
        }
    }

    pub(super) fn cost_nanos(self) -> Option<u64> {
        self.cost.map(|cost| cost.get() - 1)
    }

    pub(super) fn cost_usd(self) -> Option<f64> {
        self.cost_nanos().map(|nanos| as_f64(nanos) / NANOS)
    }
}

/// Converts dollars to billionths; `None` if they are not a valid amount.
pub(super) fn nanos_of(dollars: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
    (dollars.is_finite() && dollars >= 0.0).then(|| (dollars * NANOS).round() as u64)
}

/// A span of an agent, a tool or a model, or one that reports tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) duration_ns: u64,
    said: Sums,
    /// The indexes of its name, and of its nearest agent.
    pub(super) name: u16,
    pub(super) agent: u16,
    /// Its kind; `None` for one that only reports tokens.
    pub(super) is: Option<By>,
    pub(super) has_failed: bool,
    /// Whether its tokens count, as of the last evaluation of the trace; the agent is as of then too.
    counts: bool,
    /// Whether it reports itself which agent hands over.
    says_agent: bool,
}

impl Call {
    /// Returns its tokens and cost, if they count.
    pub(super) fn sums(&self) -> Sums {
        if self.counts { self.said } else { Sums::default() }
    }
}

/// One trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// When its last item was received.
    pub(super) last_ns: u64,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) spans: u64,
    pub(super) errors: u64,
    pub(super) sums: Sums,
    /// Sums of what counts in calls beyond the limit.
    beyond: Option<Box<Sums>>,
    /// The name of its first span without a parent.
    pub(super) name: Option<Name>,
    pub(super) workflow: Option<Name>,
    pub(super) session: Option<Name>,
    pub(super) user: Option<Name>,
    /// Agents, tools and models; for handoffs, the agents that hand over and take over.
    pub(super) names: Vec<(By, Name)>,
    pub(super) records: Vec<Position>,
    pub(super) calls: Vec<Call>,
    has_object: bool,
    pub(super) has_start: bool,
    /// Whether items have arrived since the last evaluation.
    pub(super) is_stale: bool,
    open: Option<Box<Open>>,
}

/// What is known of a trace while it may grow.
#[derive(Debug, Default)]
struct Open {
    tree: SpanTree,
    agents: Agents,
    /// The last calls, for which nothing is final yet.
    calls: Vec<(SpanId, Spending)>,
    pending: PendingMetrics,
}

/// What adding to a trace requires.
pub(super) struct AddContext<'a> {
    pub(super) names: &'a mut Names,
    /// Agent metrics, if they are on.
    pub(super) series: Option<&'a mut AgentSeries>,
    pub(super) prices: &'a Prices,
    /// Whether the trace is listed, not only counted.
    pub(super) is_listed: bool,
}

impl Trace {
    /// Adds items of the record that starts here.
    pub(super) fn add(
        &mut self,
        items: &[Item],
        (at, at_ns): (Position, u64),
        with: &mut AddContext<'_>,
    ) {
        if with.is_listed && self.records.last() != Some(&at) {
            self.records.push(at);
        }
        if self.start_ns == 0 {
            self.start_ns = at_ns;
        }
        (self.last_ns, self.is_stale) = (at_ns, true);
        let open = self.open.get_or_insert_with(|| {
            // A late span that sums up calls which counted for good must not count them again.
            let has_counted = |call: &Call| call.counts && call.is == Some(By::Model);
            let tree = self.calls.iter().any(has_counted).then(SpanTree::rest).unwrap_or_default();
            Box::new(Open { tree, ..Open::default() })
        });
        // Usually, none of them was seen before.
        open.tree.expect(items.len());
        for item in items {
            match item {
                Item::Span(span) => {
                    if let Some(object) = &span.trace {
                        self.add_object(object, with.names);
                    }
                    self.add_span(span, with);
                }
                Item::Trace(object) => self.add_object(object, with.names),
            }
        }
        if let Some(series) = &mut with.series {
            self.count(false, with.names, series);
        }
    }

    fn add_object(&mut self, object: &TraceObject, names: &mut Names) {
        if !std::mem::replace(&mut self.has_object, true) {
            self.learn(&trace_facts(object), true, names);
        }
    }

    fn add_span(&mut self, span: &Span, with: &mut AddContext<'_>) {
        let facts = span.brief_facts();
        let (is, own_name) = call_of(facts).unzip();
        let own_name = own_name.flatten();
        let agent = facts.agent.as_ref().or(own_name.filter(|_| is == Some(By::Agent)));
        let (spending, has_failed) = (span.spending(), facts.error.is_some());
        let Open { tree, agents, pending, .. } = &mut **self.open.get_or_insert_default();
        let own = agents.own(span, spending, agent);
        let news = tree.add(span.span_id, Own { has_failed: facts.fails_trace(), ..own });
        tree.forget_doubts();
        let is_call = is.is_some() || spending.spends != Spends::Nothing;
        let said = if is_call { Sums::of(span, with.prices) } else { Sums::default() };
        if let Some(series) = &mut with.series {
            pending.add(span, (facts, spending, said.cost_nanos().unwrap_or(0)), news, series);
        }
        let is_first_root = span.is_otlp() && span.parent_id.is_none() && self.name.is_none();
        self.learn(facts, is_first_root, with.names);
        if !with.is_listed {
            return;
        }
        if span.start_ns != 0 && (!self.has_start || span.start_ns < self.start_ns) {
            (self.has_start, self.start_ns) = (true, span.start_ns);
        }
        self.end_ns = self.end_ns.max(span.end_ns);
        if span.parent_id.is_none() && self.name.is_none() {
            self.name = with.names.hold(&facts.name);
        }
        self.spans += u64::from(news.is_new);
        self.errors = self.errors.saturating_add_signed(i64::from(news.failures));
        let agent = agent.map_or(NAMELESS, |agent| self.place_of(By::Agent, agent, with.names));
        if !is_call {
            return;
        }
        let name = match is.zip(own_name) {
            None => NAMELESS,
            Some((By::Agent, _)) => agent,
            Some((is, name)) => self.place_of(is, name, with.names),
        };
        let from = facts.handoff_from.as_ref().filter(|_| is == Some(By::Handoff));
        let agent = from.map_or(NAMELESS, |from| self.place_of(By::Handoff, from, with.names));
        let call = Call {
            duration_ns: span.duration_ns(),
            said,
            name,
            agent,
            is,
            has_failed,
            counts: false,
            says_agent: from.is_some(),
        };
        self.add_call(call, (span.span_id, spending), news.is_new);
    }

    fn add_call(&mut self, call: Call, (span, spending): (SpanId, Spending), is_new: bool) {
        let Some(open) = &mut self.open else { return };
        // Only a repeated span is searched for: a trace may have a hundred thousand.
        let place = || open.calls.iter().position(|(known, _)| *known == span);
        let known = if is_new { None } else { place() };
        let decided = self.calls.len() - open.calls.len();
        if let Some(at) = known
            && let Some(known) = self.calls.get_mut(decided + at)
            && let Some(open) = open.calls.get_mut(at)
        {
            (*known, *open) = (call, (span, spending));
        } else if self.calls.len() < CALLS_MAX {
            self.calls.push(call);
            open.calls.push((span, spending));
        } else if spending.counts(false) {
            // The call is not kept, so its kind decides.
            self.beyond.get_or_insert_default().add(call.said);
        }
    }

    /// Takes over names: the first ones, but those of the trace object and of the first root take precedence.
    fn learn(&mut self, facts: &Facts, is_of_trace: bool, names: &mut Names) {
        for (known, said) in [
            (&mut self.workflow, &facts.workflow),
            (&mut self.session, &facts.session),
            (&mut self.user, &facts.user),
        ] {
            if let Some(text) = said.as_ref().filter(|_| is_of_trace || known.is_none())
                && let Some(before) = std::mem::replace(known, names.hold(text))
            {
                names.let_go(before);
            }
        }
    }

    /// Returns the index of a name, and adds it if there is room.
    fn place_of(&mut self, by: By, text: &str, names: &mut Names) -> u16 {
        let same = |name| self.names.iter().position(|known| *known == (by, name));
        let place = names.find(text).and_then(same).or_else(|| {
            let name = (self.names.len() < NAMES_MAX).then(|| names.hold(text))??;
            self.names.push((by, name));
            Some(self.names.len() - 1)
        });
        place.and_then(|place| u16::try_from(place).ok()).unwrap_or(NAMELESS)
    }

    /// Counts its actions of agents, as far as they are known, or `all`.
    fn count(&mut self, all: bool, names: &Names, series: &mut AgentSeries) {
        if let Some(open) = &mut self.open {
            let workflow = self.workflow.map_or("", |name| names.text(name));
            open.pending.count(all, (&open.tree, &open.agents), workflow, series);
        }
    }

    /// Counts everything with what is known after the trace was quiet: for `long`, so that later spans are another one, or if it is whole.
    pub(super) fn count_all(
        &mut self,
        id: TraceId,
        long: bool,
        names: &Names,
        series: &mut AgentSeries,
    ) {
        if long || self.open.as_ref().is_some_and(|open| open.tree.is_whole()) {
            self.count(true, names, series);
            let Some(Open { pending, tree, .. }) = self.open.as_deref_mut() else { return };
            pending.end(id, tree, series);
            if long {
                *pending = PendingMetrics::default();
            }
        }
    }

    /// Evaluates all calls that are not final with what is known now: whether their tokens count, and which agent they belong to.
    pub(super) fn settle(&mut self, names: &mut Names) {
        if !std::mem::replace(&mut self.is_stale, false) {
            return;
        }
        if let Some(open) = self.open.take() {
            let first = self.calls.len() - open.calls.len();
            let (mut counted, mut found) = (Spent::default(), AncestorCache::default());
            for (at, (span, spending)) in (first..).zip(&open.calls) {
                let Some(Call { is, says_agent, agent, .. }) = self.calls.get(at).copied() else {
                    continue;
                };
                let counts = spending.counts(open.tree.is_exception(*span, &mut counted));
                let by = is.filter(|is| *is == By::Handoff).unwrap_or(By::Agent);
                let above = open.tree.agent_at(*span, &mut found);
                let agent = match above.and_then(|place| open.agents.name(place)) {
                    _ if says_agent => agent,
                    Some(name) => self.place_of(by, name, names),
                    None => NAMELESS,
                };
                if let Some(call) = self.calls.get_mut(at) {
                    (call.counts, call.agent) = (counts, agent);
                }
            }
            self.open = Some(open);
        }
        self.sums = self.beyond.as_deref().copied().unwrap_or_default();
        self.calls.iter().for_each(|call| self.sums.add(call.sums()));
    }

    /// Takes over the costs of the same calls, which are in the same order if both traces begin with the same record.
    pub(super) fn reprice(&mut self, again: &Self) {
        let begin_alike = self.records.first() == again.records.first();
        for (call, priced) in self.calls.iter_mut().zip(&again.calls).filter(|_| begin_alike) {
            call.said.cost = priced.said.cost;
        }
        // The sum of further calls is that of the same ones if it has the same tokens.
        if let (true, Some(own), Some(priced)) = (begin_alike, &mut self.beyond, &again.beyond)
            && **own == (Sums { cost: own.cost, ..**priced })
        {
            own.cost = priced.cost;
        }
        self.is_stale = true;
    }

    /// Makes everything final and frees the memory for it. The trace was counted before.
    pub(super) fn decide(&mut self, names: &mut Names) {
        self.settle(names);
        self.open = None;
        self.names.shrink_to_fit();
        self.calls.shrink_to_fit();
        self.records.shrink_to_fit();
    }

    /// Drops the references to its names.
    pub(super) fn forget(&self, names: &mut Names) {
        let words = [self.name, self.workflow, self.session, self.user].into_iter().flatten();
        words.chain(self.names.iter().map(|(_, name)| *name)).for_each(|name| names.let_go(name));
    }

    /// Returns the position of its last record.
    pub(super) fn last_position(&self) -> Position {
        self.records.last().copied().unwrap_or_default()
    }
}

impl Weighed for Trace {
    fn bytes(&self) -> usize {
        self.names.capacity() * size_of::<(By, Name)>()
            + self.calls.capacity() * size_of::<Call>()
            + self.records.capacity() * size_of::<Position>()
            + self.passing_bytes()
    }

    fn passing_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| {
            size_of::<Open>()
                + open.tree.bytes()
                + open.agents.bytes()
                + open.calls.capacity() * size_of::<(SpanId, Spending)>()
                + open.pending.bytes()
        })
    }
}

/// Returns the kind of call that a span is, and its name.
fn call_of(facts: &Facts) -> Option<(By, Option<&Text>)> {
    let or_name = |said| Option::or(said, Some(&facts.name));
    match facts.kind {
        Kind::Agent => Some((By::Agent, or_name(facts.agent.as_ref()))),
        Kind::Tool => Some((By::Tool, or_name(facts.tool.as_ref()))),
        Kind::Handoff => Some((By::Handoff, facts.handoff_to.as_ref())),
        kind => {
            let model = facts.response_model.as_ref().or(facts.request_model.as_ref());
            kind.counts_usage().then_some((By::Model, model))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_prices_reach_the_calls_that_are_only_part_of_a_sum() {
        let sum = |input, nanos: u64| {
            let cost = NonZeroU64::new(nanos + 1);
            Sums { input, cost, ..Sums::default() }
        };
        let trace = |at, beyond| Trace {
            records: vec![Position(at)],
            beyond: Some(Box::new(beyond)),
            ..Trace::default()
        };
        for (again, expected) in [
            (trace(7, sum(5, 30)), 30),
            // Of other calls, and of another trace.
            (trace(7, sum(6, 30)), 10),
            (trace(8, sum(5, 30)), 10),
        ] {
            let mut known = trace(7, sum(5, 10));
            known.reprice(&again);
            known.settle(&mut Names::default());
            assert_eq!((known.sums.input, known.sums.cost_nanos()), (5, Some(expected)));
        }
    }
}
