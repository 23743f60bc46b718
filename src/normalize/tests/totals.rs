//! Decides whose tokens count from the complete trace. The table of traces, which sees spans one by one, is compared with it.

use std::collections::BTreeMap;

use crate::span::{Kind, Span, SpanId, Usage};

impl Usage {
    /// Adds the counts of another call. A missing total is the sum of input and output.
    pub(crate) fn add(&mut self, more: &Self) {
        let mut more = *more;
        if let (None, Some(input), Some(output)) = (more.total, more.input, more.output) {
            more.total = Some(input.saturating_add(output));
        }
        for (sum, count) in self.counters().into_iter().zip(more.counters()) {
            if let Some(count) = *count {
                *sum = Some(sum.unwrap_or_default().saturating_add(count));
            }
        }
    }
}

/// The role of a span among the others.
#[expect(clippy::struct_excessive_bools, reason = "facts of a span that do not exclude each other")]
struct SpanReading<'a> {
    span: &'a Span,
    is_model: bool,
    is_log: bool,
    is_other: bool,
    is_boundary: bool,
}

impl SpanReading<'_> {
    /// Returns whether it repeats the tokens of a sibling.
    fn records(&self, other: &Self) -> bool {
        let is_beside = other.span.parent_id == self.span.parent_id;
        let is_record = self.span.facts().sdk_span_type.as_deref() == Some("subtask");
        is_record && is_beside && other.is_boundary
    }
}

/// Returns the counting tokens of each span of a trace, by id. Parents form no cycle, and of two spans with the same id the first counts.
pub(crate) fn counted(spans: &[&Span]) -> BTreeMap<SpanId, Usage> {
    let mut said: BTreeMap<SpanId, SpanReading<'_>> = BTreeMap::new();
    for span in spans {
        let facts = span.facts();
        let marked = facts.sdk_span_type.as_deref();
        let has_cost = facts.cost.total.is_some_and(|total| total != 0.0);
        let has_aggregate = facts.aggregate_usage.has_tokens();
        let is_model =
            facts.usage.has_tokens() || (facts.kind.counts_usage() && has_cost && !has_aggregate);
        let is_log = (facts.kind == Kind::Event || facts.adds_up_later) && has_aggregate;
        said.entry(span.span_id).or_insert(SpanReading {
            span,
            is_model,
            is_log,
            is_other: !is_model && !is_log && marked != Some("turn") && (has_aggregate || has_cost),
            is_boundary: matches!(facts.kind, Kind::Tool | Kind::Agent | Kind::Handoff)
                || marked == Some("task"),
        });
    }
    // A span's ancestors, the nearest first.
    let above = |id: SpanId| {
        let next = |id: &SpanId| said.get(id)?.span.parent_id;
        std::iter::successors(said[&id].span.parent_id, next).collect::<Vec<_>>()
    };
    let is_below = |id: SpanId, over: SpanId| above(id).contains(&over);
    let is_repeated = |id: SpanId| {
        said.iter().any(|(other, it)| {
            let between = above(*other).into_iter().take_while(|over| *over != id);
            let is_same_call = |over: SpanId| said.get(&over).is_none_or(|it| !it.is_boundary);
            it.is_model && is_below(*other, id) && between.into_iter().all(is_same_call)
        })
    };
    let counts = |id: SpanId| {
        let it = &said[&id];
        let spends_below =
            |id| said.iter().any(|(other, it)| (it.is_model || it.is_log) && is_below(*other, id));
        if it.is_model {
            return !is_repeated(id);
        }
        if it.is_log {
            let beside = |other: &SpanReading<'_>| other.span.parent_id == it.span.parent_id;
            let is_call = |it: &SpanReading<'_>| it.span.facts().kind.counts_usage() && !it.is_log;
            let mut calls = said.values().filter(|it| is_call(it) && beside(it)).peekable();
            let repeats_its_parent = it.span.parent_id.is_some_and(|parent| {
                said.get(&parent).is_some_and(|it| it.is_model) && !is_repeated(parent)
            });
            return !repeats_its_parent
                && (calls.peek().is_none() || !calls.all(|call| call.is_model));
        }
        let speaks = |id: SpanId| said.get(&id).is_some_and(|it| it.is_other) && !spends_below(id);
        let kind = it.span.facts().kind;
        let is_step = matches!(kind, Kind::Chain | Kind::Custom) || kind.counts_usage();
        let is_part_of_a_call = is_step
            && above(id).iter().filter_map(|over| said.get(over)).find_map(|over| match over {
                over if over.is_model => Some(true),
                over => over.is_boundary.then_some(false),
            }) == Some(true);
        let is_said = said.iter().any(|(other, beside)| it.records(beside) && spends_below(*other));
        it.is_other
            && !is_said
            && !is_part_of_a_call
            && speaks(id)
            && !above(id).into_iter().any(speaks)
    };
    let usage = |it: &SpanReading<'_>| {
        let facts = it.span.facts();
        if it.is_model { facts.usage } else { facts.aggregate_usage }
    };
    said.keys().filter(|id| counts(**id)).map(|id| (*id, usage(&said[id]))).collect()
}

/// Returns the tokens of one trace.
pub(crate) fn trace_total<'a>(spans: impl IntoIterator<Item = &'a Span>) -> Usage {
    let spans: Vec<&Span> = spans.into_iter().collect();
    let mut total = Usage::default();
    for usage in counted(&spans).values() {
        total.add(usage);
    }
    total
}
