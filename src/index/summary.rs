//! Summaries of traces. Pure.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::names::{Name, Names};
use super::trace::{Call, Trace};
use crate::span::TraceId;
use crate::support::rfc3339;

/// What to group by, and what a call is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, ValueEnum, JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Agent runs, with the tokens and cost of all calls of which the agent is the nearest.
    #[default]
    Agent,
    /// Tool calls.
    Tool,
    /// Model calls.
    Model,
    /// Handoffs between agents: `from -> to`.
    Handoff,
}

/// The summary of a trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceSummary {
    /// Its id: 32 digits.
    pub trace_id: String,
    /// The workflow's name, otherwise that of the first span without a parent, otherwise its first agent's.
    pub name: String,
    /// The workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The conversation or group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Start of its first span, RFC 3339.
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: u64,
    /// From its first start to its last end, in nanoseconds.
    pub duration_ns: u64,
    /// `error` if `errors` is not 0, otherwise `ok`.
    pub status: String,
    /// Number of spans.
    pub spans: u64,
    /// Number of failed spans, without failures after which the run went on: the Agents SDK's `(non-fatal)`.
    pub errors: u64,
    /// Input tokens of models, each counted once.
    pub input_tokens: u64,
    /// Output tokens of models, each counted once.
    pub output_tokens: u64,
    /// Total tokens, as reported.
    pub total_tokens: u64,
    /// Cost in US dollars, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Agents that ran.
    pub agents: Vec<String>,
    /// Tools that were called.
    pub tools: Vec<String>,
    /// Models that were called.
    pub models: Vec<String>,
    /// Position of its first record in the journal.
    pub first_position: u64,
    /// Position of its last record.
    pub last_position: u64,
}

/// A trace as of its last evaluation, with its names.
#[derive(Clone, Copy)]
pub(super) struct SettledTrace<'t> {
    pub(super) id: TraceId,
    pub(super) trace: &'t Trace,
    pub(super) names: &'t Names,
}

impl<'t> SettledTrace<'t> {
    /// Returns the text of one of its names.
    pub(super) fn text(&self, word: Option<Name>) -> Option<&'t str> {
        word.map(|name| self.names.text(name))
    }

    /// Returns its agents, tools or models.
    pub(super) fn all(&self, by: By) -> impl Iterator<Item = &'t str> + use<'t> {
        let Self { trace, names, .. } = *self;
        let those = trace.names.iter().filter(move |(known, _)| *known == by);
        those.map(move |(_, name)| names.text(*name))
    }

    pub(super) fn duration_ns(&self) -> u64 {
        let Trace { has_start, start_ns, end_ns, .. } = self.trace;
        if *has_start { end_ns.saturating_sub(*start_ns) } else { 0 }
    }

    /// Returns its calls, each with its name and that of its nearest agent. A handoff has the agent that takes over and the one that hands
    /// over.
    pub(super) fn calls(
        self,
    ) -> impl Iterator<Item = (&'t Call, Option<&'t str>, Option<&'t str>)> {
        let text = move |place: u16| {
            let (_, name) = self.trace.names.get(usize::from(place))?;
            Some(self.names.text(*name))
        };
        self.trace.calls.iter().map(move |call| (call, text(call.name), text(call.agent)))
    }

    pub(super) fn summary(&self) -> TraceSummary {
        let all = |by| self.all(by).map(str::to_owned).collect();
        let (trace, sums) = (self.trace, self.trace.sums);
        let text = |word| self.text(word).map(str::to_owned);
        let name = self.text(trace.workflow.or(trace.name)).or_else(|| self.all(By::Agent).next());
        TraceSummary {
            trace_id: self.id.to_string(),
            name: name.unwrap_or_default().to_owned(),
            workflow: text(trace.workflow),
            session: text(trace.session),
            user: text(trace.user),
            start: rfc3339::text(trace.start_ns),
            start_unix_nano: trace.start_ns,
            duration_ns: self.duration_ns(),
            status: if trace.errors > 0 { "error" } else { "ok" }.to_owned(),
            spans: trace.spans,
            errors: trace.errors,
            input_tokens: sums.input,
            output_tokens: sums.output,
            total_tokens: sums.total,
            cost_usd: sums.cost_usd(),
            agents: all(By::Agent),
            tools: all(By::Tool),
            models: all(By::Model),
            first_position: trace.records.first().map_or(0, |first| first.0),
            last_position: trace.last_position().0,
        }
    }
}
