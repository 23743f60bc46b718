//! Actions of agents in one trace, once the place of each span is known: which agent it belongs to, and whether its tokens count. Pure.
//!
//! Many spans arrive before their ancestors, and sums before the calls that they sum up. Metrics by agent wait for both, or until the trace
//! was quiet for long. What is still waiting when the daemon ends is not counted, because its counters start over with the next process.

use std::collections::HashSet;

use crate::feed::{Agents, SpanTree};
use crate::span::{Facts, Kind, News, Span, SpanId, Spending, Spends, Spent, TraceId};
use crate::telemetry::{AgentSeries, Call, Role};

/// Maximum number of waiting calls per trace; beyond it, all are counted with what is known.
const WAITING_MAX: usize = 512;
/// Maximum number of ancestors searched for the agent of a waiting span; 16 is deep.
const STEPS_MAX: usize = 64;
/// Maximum number of agent runs counted per trace: a trace with more has run away.
const RUNS_MAX: usize = 4_096;

/// What remains to be counted of a trace.
#[derive(Debug, Default)]
pub(super) struct PendingMetrics {
    waiting: Vec<Call>,
    /// Calls before this index wait for a span that was missing when they were last examined.
    looked_at: usize,
    /// Whether a span has arrived since then that others had referred to.
    has_news: bool,
    spans: u64,
    /// Runs of agents.
    runs: Vec<SpanId>,
    is_counted: bool,
}

impl PendingMetrics {
    /// Adds a span that was added to the tree.
    pub(super) fn add(
        &mut self,
        span: &Span,
        (facts, spending, cost_nanos): (&Facts, Spending, u64),
        news: News,
        series: &mut AgentSeries,
    ) {
        self.has_news |= news.is_awaited;
        if !news.is_new {
            return;
        }
        self.spans += 1;
        if facts.kind == Kind::Agent && self.runs.len() < RUNS_MAX {
            self.runs.push(span.span_id);
        }
        self.waiting.extend(series.span(span, facts, spending, cost_nanos));
    }

    /// Counts calls whose agent is known, or `all`.
    pub(super) fn count(
        &mut self,
        all: bool,
        (tree, agents): (&SpanTree, &Agents),
        workflow: &str,
        series: &mut AgentSeries,
    ) {
        let all = all || WAITING_MAX < self.waiting.len();
        let looks_again = std::mem::take(&mut self.has_news) || all;
        let mut passed = if looks_again { 0 } else { self.looked_at };
        if passed == self.waiting.len() {
            return;
        }
        let steps_max = if all { usize::MAX } else { STEPS_MAX };
        let (workflow, mut memo) = (series.name(Role::Workflow, workflow), Spent::default());
        self.waiting.retain(|call| {
            if passed > 0 {
                passed -= 1;
                return true;
            }
            // A sum of other spans counts only if no ancestor has one, and no call below it, which may still arrive.
            let to_top = !matches!(call.spending.spends, Spends::Nothing | Spends::Model);
            let (agent, is_known) = tree.agent_above(call.span, to_top, steps_max);
            let counts_tokens = call.spending.counts(tree.is_exception(call.span, &mut memo));
            let waits = !all && (!is_known || (to_top && counts_tokens));
            if !waits {
                let agent = agent.and_then(|place| agents.name(place));
                let agent = agent.map(|name| series.name(Role::Agent, name)).unwrap_or_default();
                series.call(call, agent, workflow, counts_tokens);
            }
            waits
        });
        self.looked_at = self.waiting.len();
    }

    /// Counts the trace, which is over or considered to be.
    pub(super) fn end(&mut self, id: TraceId, tree: &SpanTree, series: &mut AgentSeries) {
        if !self.is_counted && self.spans > 0 {
            self.is_counted = true;
            let runs: HashSet<_, _> = self.runs.iter().copied().collect();
            series.trace(id, self.spans, runs.len(), tree.depth_of(&runs));
        }
    }

    /// Returns its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.capacity() * size_of::<Call>() + self.runs.capacity() * size_of::<SpanId>()
    }
}
