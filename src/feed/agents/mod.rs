//! Counts what agents did, once each span's place in its trace is known: which agent it belongs to, and whether its tokens count. Pure.
//!
//! Many spans come before those that they are below. What is counted by agent waits until the agent above it was seen, or all that is
//! above it, or its trace is forgotten. Nobody waits for that: one reader behind intake feeds this, and a resend never gets there. What
//! waits when the daemon ends is not counted, as counters begin anew with the next.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | memory of traces | [`BYTES_MAX`] | the trace that is quiet for longest is forgotten |
//! | a trace without a new span | [`FORGOTTEN_AFTER`] | it is forgotten: counted as it is known. If it goes on, it begins anew |
//! | what waits of a trace | [`WAITING_MAX`] | all that waits is counted as it is known |

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::Tree;
use crate::normalize::trace_facts;
use crate::prices::Prices;
use crate::span::{Batch, Item, Kind, Span, SpanId, Spending, Spends, Text, TraceId, TraceObject};
use crate::support::clock::nanos;
use crate::support::lock::lock;
use crate::telemetry::{AgentSeries, Call, Name, Role};

/// Memory of all traces that may go on, in bytes, estimated: some 15,000 of ten spans.
const BYTES_MAX: usize = 16 << 20;
/// A call of a model that takes longer is rare.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);
/// How long a trace that nothing is missing of is quiet before it counts as over: the SDKs export every 5 s.
const OVER_AFTER: Duration = Duration::from_secs(30);
const WAITING_MAX: usize = 512;
/// How far above a span is looked for its agent while it waits; 16 is deep.
const STEPS_MAX: usize = 64;
/// Runs of agents of a trace that are counted: a trace with more has run away.
const RUNS_MAX: usize = 4_096;
/// How often it is looked for traces that are over, in the time at which requests are received.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Memory of a trace beside what it holds: its place in two maps, each of which may be half empty.
const TRACE_BYTES: usize = 2 * size_of::<(TraceId, Trace)>() + 2 * size_of::<(u64, TraceId)>();

/// What agents did, as metrics. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct AgentMetrics(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    series: AgentSeries,
    /// What calls cost that do not say it.
    prices: Arc<Prices>,
    traces: HashMap<TraceId, Trace, RandomState>,
    /// Which trace was touched when, in order.
    order: BTreeMap<u64, TraceId>,
    touches: u64,
    bytes: usize,
    looked_ns: u64,
}

#[derive(Debug, Default)]
struct Trace {
    touched: u64,
    last_ns: u64,
    tree: Tree,
    waiting: Vec<Call>,
    spans: u64,
    /// Runs of agents.
    agents: HashSet<SpanId, RandomState>,
    workflow: Name,
    /// Whether it was looked whether it is over since its last span.
    is_looked_at: bool,
    is_counted: bool,
}

impl AgentMetrics {
    /// Has what comes from now on cost this.
    pub fn set_prices(&self, prices: &Arc<Prices>) {
        lock(&self.0).prices = Arc::clone(prices);
    }

    /// Adds a request, in the order of the journal.
    pub fn feed(&self, batch: &Batch) {
        // Reading is what takes time, and nobody waits for it.
        batch.spans().for_each(|span| _ = span.facts());
        lock(&self.0).feed(batch);
    }

    /// Counts what has waited long enough by this time, in nanoseconds since 1970, and writes all as `OpenMetrics` text, with traces as
    /// examples or without.
    pub fn write(&self, now_ns: u64, page: &mut String, with_exemplars: bool) -> fmt::Result {
        let mut table = lock(&self.0);
        table.settle(now_ns);
        table.series.write(page, with_exemplars)
    }
}

impl Table {
    fn feed(&mut self, batch: &Batch) {
        let received_ns = batch.source.received_at_ns;
        for items in batch.items.chunk_by(|one, next| one.trace_id() == next.trace_id()) {
            let Some(id) = items.first().map(Item::trace_id) else { continue };
            let trace = self.traces.entry(id).or_default();
            if self.order.remove(&trace.touched).is_some() {
                self.bytes -= trace.bytes();
            }
            for item in items {
                match item {
                    Item::Span(span) => trace.add(span, &self.prices, &mut self.series),
                    Item::Trace(object) => trace.learn(object, &mut self.series),
                }
            }
            self.touches += 1;
            (trace.touched, trace.last_ns, trace.is_looked_at) = (self.touches, received_ns, false);
            trace.count(trace.waiting.len() > WAITING_MAX, &mut self.series);
            self.bytes += trace.bytes();
            self.order.insert(self.touches, id);
        }
        while self.bytes > BYTES_MAX && self.forget_oldest() {}
        if received_ns.saturating_sub(self.looked_ns) >= nanos(LOOK_EVERY) {
            self.settle(received_ns);
        }
    }

    fn settle(&mut self, now_ns: u64) {
        self.looked_ns = self.looked_ns.max(now_ns);
        let quiet_since = |after: Duration| now_ns.saturating_sub(nanos(after));
        let (forgotten, over) = (quiet_since(FORGOTTEN_AFTER), quiet_since(OVER_AFTER));
        while let Some((_, id)) = self.order.first_key_value()
            && self.traces.get(id).is_some_and(|trace| trace.last_ns <= forgotten)
            && self.forget_oldest()
        {}
        for id in self.order.values() {
            let Some(trace) = self.traces.get_mut(id) else { continue };
            if trace.last_ns > over {
                break;
            }
            if !trace.is_looked_at && trace.tree.is_whole() {
                trace.end(*id, &mut self.series);
            }
            trace.is_looked_at = true;
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.order.pop_first();
        let Some((id, mut trace)) = oldest.and_then(|(_, id)| self.traces.remove_entry(&id)) else {
            return false;
        };
        self.bytes -= trace.bytes();
        trace.count(true, &mut self.series);
        trace.end(id, &mut self.series);
        true
    }
}

impl Trace {
    fn add(&mut self, span: &Span, prices: &Prices, series: &mut AgentSeries) {
        if let Some(object) = &span.trace {
            self.learn(object, series);
        }
        let facts = span.facts();
        let is_agent = facts.kind == Kind::Agent;
        let agent = facts.agent.as_ref().or(Some(&facts.name).filter(|_| is_agent));
        let spending = Spending::of(facts);
        let news = self.tree.add(span, spending, agent, facts.error.is_some());
        self.tree.forget_doubts();
        if !news.is_new {
            return;
        }
        self.spans += 1;
        self.say_workflow(facts.workflow.as_ref(), series);
        if is_agent && self.agents.len() < RUNS_MAX {
            self.agents.insert(span.span_id);
        }
        let cost = match spending.spends {
            Spends::Nothing => None,
            _ => prices.cost_of(span),
        };
        self.waiting.extend(series.span(span, facts, spending, cost));
    }

    fn learn(&mut self, object: &TraceObject, series: &mut AgentSeries) {
        if self.workflow == Name::default() {
            self.say_workflow(trace_facts(object).workflow.as_ref(), series);
        }
    }

    fn say_workflow(&mut self, workflow: Option<&Text>, series: &mut AgentSeries) {
        if self.workflow == Name::default()
            && let Some(workflow) = workflow
        {
            self.workflow = series.name(Role::Workflow, workflow);
        }
    }

    /// Counts what has waited long enough, or `all`.
    fn count(&mut self, all: bool, series: &mut AgentSeries) {
        if self.waiting.is_empty() {
            return;
        }
        let (tree, workflow) = (&self.tree, self.workflow);
        let steps_max = if all { usize::MAX } else { STEPS_MAX };
        self.waiting.retain(|call| {
            // What sums up others counts only where nothing above it does.
            let to_top = !matches!(call.spending.spends, Spends::Nothing | Spends::Model);
            let (agent, is_known) = tree.agent_above(call.span, to_top, steps_max);
            if is_known || all {
                let agent = agent.map(|name| series.name(Role::Agent, name)).unwrap_or_default();
                let counts_tokens = call.spending.counts(tree.is_odd(call.span));
                series.call(call, agent, workflow, counts_tokens);
            }
            !is_known && !all
        });
    }

    /// It is over, or as good as.
    fn end(&mut self, id: TraceId, series: &mut AgentSeries) {
        if !self.is_counted && self.spans > 0 {
            self.is_counted = true;
            series.trace(id, self.spans, self.agents.len(), self.tree.depth_of(&self.agents));
        }
    }

    fn bytes(&self) -> usize {
        TRACE_BYTES
            + self.tree.bytes()
            + self.waiting.capacity() * size_of::<Call>()
            + self.agents.capacity() * 2 * size_of::<SpanId>()
    }
}
