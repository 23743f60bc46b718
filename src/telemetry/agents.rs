//! Agent metrics: facts of spans go in, series come out. Pure.
//!
//! Metrics that OpenTelemetry defines have its names, labels and buckets (its semantic conventions for GenAI, 2026); the others are
//! Spanferry's. `docs/metrics.md` lists all.

use std::fmt;

use super::series::{Labels, Metric, Name, OTHER, Role, Shape, Table};
use super::understanding::is_plain_word;
use crate::span::{Facts, Kind, Span, SpanId, Spending, Spends, Text, TraceId, said_of};
use crate::support::number::as_f64;

const DURATION: usize = 0;
const FIRST_CHUNK: usize = 1;
const TOKENS: usize = 2;
const AGENT_RUN: usize = 3;
const TOOL_CALL: usize = 4;
const HANDOFFS: usize = 5;
const GUARDRAILS: usize = 6;
const SPANS: usize = 7;
const TRACE_SPANS: usize = 8;
const TRACE_AGENTS: usize = 9;
const TRACE_DEPTH: usize = 10;
const COST: usize = 11;

/// The labels of OpenTelemetry's operations, in the order of [`Call::labels`].
const OPERATION: [&str; 5] = [
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "gen_ai_agent_name",
];

#[rustfmt::skip]
static METRICS: [Metric; 12] = [
    metric("gen_ai_client_operation_duration_seconds", Shape::Seconds, "Duration of model calls, tool calls and agent runs",
        &[OPERATION[0], OPERATION[1], OPERATION[2], OPERATION[3], OPERATION[4], "gen_ai_tool_name", "error_type"]),
    metric("gen_ai_client_operation_time_to_first_chunk_seconds", Shape::Seconds, "Time until the first part of an answer", &OPERATION),
    metric("gen_ai_client_token_usage", Shape::Tokens, "Tokens of a call, each counted once per trace",
        &[OPERATION[0], OPERATION[1], OPERATION[2], OPERATION[3], OPERATION[4], "gen_ai_token_type"]),
    metric("spanferry_agent_run_duration_seconds", Shape::Seconds, "Duration of agent runs", &["agent", "workflow", "status"]),
    metric("spanferry_tool_call_duration_seconds", Shape::Seconds, "Duration of tool calls", &["agent", "tool", "status"]),
    metric("spanferry_agent_handoffs", Shape::Count, "Handoffs from one agent to another", &["from", "to"]),
    metric("spanferry_guardrail_checks", Shape::Count, "Guardrail checks, and whether they tripped", &["name", "triggered"]),
    metric("spanferry_spans", Shape::Count, "Spans by kind", &["span_type", "status"]),
    metric("spanferry_trace_spans", Shape::Spans, "Spans in a trace", &[]),
    metric("spanferry_trace_agents", Shape::Spans, "Agent runs in a trace, of traces that have any", &[]),
    metric("spanferry_trace_agent_depth", Shape::Spans, "Nesting depth of agent runs, of traces that have any", &[]),
    metric("gen_ai_cost_usd", Shape::Dollars, "Cost of calls in US dollars, as the client says or by the price table, each counted once per trace", &OPERATION),
];

const fn metric(
    name: &'static str,
    shape: Shape,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric { name, help, labels, shape }
}

/// Fixed words, by index. The words of [`Kind`] follow.
const WORDS: [&str; 14] = [
    "",
    OTHER,
    "ok",
    "error",
    "false",
    "true",
    "input",
    "output",
    "_OTHER",
    "chat",
    "embeddings",
    "execute_tool",
    "invoke_agent",
    "retrieval",
];
const OK: Name = Name(2);
const ERROR: Name = Name(3);
const FALSE: Name = Name(4);
const TRUE: Name = Name(5);
const TOKEN_TYPE: [Name; 2] = [Name(6), Name(7)];
/// OpenTelemetry's word for an error of unknown type.
const OTHER_ERROR: Name = Name(8);
const NANOS: f64 = 1e9;

/// The series of agent metrics.
#[derive(Debug)]
pub struct AgentSeries(Table);

/// A call of a model or tool, a run of an agent, or another event that is counted with its agent, while it waits for that.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The span.
    pub span: SpanId,
    /// The tokens that it reports.
    pub spending: Spending,
    trace: TraceId,
    kind: Kind,
    /// Its subject: an agent, a tool, the agents of a handoff, or a guardrail and whether it tripped.
    subject: [Name; 2],
    labels: [Name; 4],
    error: Option<Name>,
    duration_ns: Option<u64>,
    first_chunk_ns: Option<u64>,
    tokens: [Option<u64>; 2],
    /// In billionths of a dollar.
    cost_nanos: u64,
}

impl Default for AgentSeries {
    fn default() -> Self {
        let kinds = Kind::ALL.map(Kind::as_str);
        let words: Vec<_> = WORDS.into_iter().chain(kinds).collect();
        Self(Table::new(&METRICS, &words))
    }
}

impl AgentSeries {
    /// Counts a span with this cost in billionths of a dollar. Returns a call if it must be counted with its agent, for
    /// [`AgentSeries::call`].
    pub fn span(
        &mut self,
        span: &Span,
        facts: &Facts,
        spending: Spending,
        cost_nanos: u64,
    ) -> Option<Call> {
        let status = if facts.error.is_some() { ERROR } else { OK };
        self.0.add(SPANS, Labels::of(&[kind_word(facts.kind), status]), 1);
        let is_event = matches!(facts.kind, Kind::Handoff | Kind::Guardrail);
        if !is_event && !is_operation(facts.kind) && spending.spends == Spends::Nothing {
            return None;
        }
        let subject = self.subject(facts);
        let said = said_of(facts);
        let error = facts.error.as_ref().map(|error| {
            let kind = error.kind.as_deref().filter(|kind| is_plain_word(kind));
            kind.map_or(OTHER_ERROR, |kind| self.0.name(Role::Error, kind))
        });
        let mut name = |role, text: &Option<Text>| {
            text.as_deref().map_or(Name::default(), |text| self.0.name(role, text))
        };
        Some(Call {
            span: span.span_id,
            spending,
            trace: span.trace_id,
            kind: facts.kind,
            subject,
            labels: [
                operation_word(facts.kind),
                name(Role::Provider, &facts.provider),
                name(Role::RequestModel, &facts.request_model),
                name(Role::ResponseModel, &facts.response_model),
            ],
            error,
            duration_ns: (span.start_ns != 0)
                .then(|| span.end_ns.checked_sub(span.start_ns))
                .flatten(),
            first_chunk_ns: facts.first_token_ns,
            tokens: [said.input, said.output],
            cost_nanos: if spending.spends == Spends::Nothing { 0 } else { cost_nanos },
        })
    }

    fn subject(&mut self, facts: &Facts) -> [Name; 2] {
        let mut name =
            |role, text: &Option<Text>, or: &str| self.0.name(role, text.as_deref().unwrap_or(or));
        let none = Name::default();
        match facts.kind {
            Kind::Handoff => {
                [&facts.handoff_from, &facts.handoff_to].map(|it| name(Role::Agent, it, ""))
            }
            Kind::Agent => [name(Role::Agent, &facts.agent, &facts.name), none],
            Kind::Tool => [name(Role::Tool, &facts.tool, &facts.name), none],
            Kind::Guardrail => {
                let triggered = if facts.guardrail_triggered == Some(true) { TRUE } else { FALSE };
                [name(Role::Guardrail, &facts.guardrail, &facts.name), triggered]
            }
            _ => [none; 2],
        }
    }

    /// Returns the number of a name, which may be empty.
    pub fn name(&mut self, role: Role, text: &str) -> Name {
        self.0.name(role, text)
    }

    /// Counts a call, once its agent (no name if it has none) and workflow are known, and whether its tokens count.
    pub fn call(&mut self, call: &Call, agent: Name, workflow: Name, counts_tokens: bool) {
        let [subject, other] = call.subject;
        let (agent, tool) = match call.kind {
            Kind::Agent => (subject, Name::default()),
            Kind::Tool => (agent, subject),
            _ => (agent, Name::default()),
        };
        let [operation, provider, request, response] = call.labels;
        let of_model = [operation, provider, request, response, agent];
        let status = if call.error.is_some() { ERROR } else { OK };
        match call.kind {
            Kind::Handoff => {
                let from = if subject == Name::default() { agent } else { subject };
                self.0.add(HANDOFFS, Labels::of(&[from, other]), 1);
            }
            Kind::Guardrail => self.0.add(GUARDRAILS, Labels::of(&[subject, other]), 1),
            Kind::Agent => self.took(AGENT_RUN, call, &[agent, workflow, status], call.duration_ns),
            Kind::Tool => self.took(TOOL_CALL, call, &[agent, tool, status], call.duration_ns),
            _ => {}
        }
        if is_operation(call.kind) {
            let error = call.error.unwrap_or_default();
            let of_operation = [operation, provider, request, response, agent, tool, error];
            self.took(DURATION, call, &of_operation, call.duration_ns);
            self.took(FIRST_CHUNK, call, &of_model, call.first_chunk_ns);
        }
        if counts_tokens && call.cost_nanos > 0 {
            self.0.add(COST, Labels::of(&of_model), call.cost_nanos);
        }
        for (kind, tokens) in TOKEN_TYPE.into_iter().zip(call.tokens) {
            if let Some(tokens) = tokens.filter(|_| counts_tokens) {
                let of_tokens = [operation, provider, request, response, agent, kind];
                self.0.observe(TOKENS, Labels::of(&of_tokens), as_f64(tokens), call.trace);
            }
        }
    }

    fn took(&mut self, metric: usize, call: &Call, labels: &[Name], nanos: Option<u64>) {
        if let Some(nanos) = nanos {
            self.0.observe(metric, Labels::of(labels), as_f64(nanos) / NANOS, call.trace);
        }
    }

    /// Counts a finished trace: its spans, its agent runs, and how deeply these are nested.
    pub fn trace(&mut self, id: TraceId, spans: u64, agents: usize, depth: usize) {
        self.0.observe(TRACE_SPANS, Labels::default(), as_f64(spans), id);
        if agents > 0 {
            self.0.observe(TRACE_AGENTS, Labels::default(), as_f64(agents as u64), id);
            self.0.observe(TRACE_DEPTH, Labels::default(), as_f64(depth as u64), id);
        }
    }

    /// Writes all series as `OpenMetrics` text.
    pub fn write(&self, page: &mut String, with_exemplars: bool) -> fmt::Result {
        self.0.write(page, with_exemplars)
    }
}

/// Returns whether a span is an operation of OpenTelemetry, with a duration.
fn is_operation(kind: Kind) -> bool {
    kind.counts_usage() || matches!(kind, Kind::Agent | Kind::Tool | Kind::Retriever)
}

/// OpenTelemetry's word for what a span does, where it has one.
fn operation_word(kind: Kind) -> Name {
    match kind {
        Kind::Generation => Name(9),
        Kind::Embedding => Name(10),
        Kind::Tool => Name(11),
        Kind::Agent => Name(12),
        Kind::Retriever => Name(13),
        kind => kind_word(kind),
    }
}

fn kind_word(kind: Kind) -> Name {
    let place = Kind::ALL.iter().position(|known| *known == kind);
    Name(u16::try_from(WORDS.len() + place.unwrap_or_default()).unwrap_or_default())
}
