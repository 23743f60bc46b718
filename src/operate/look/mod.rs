//! Looking at traces: which there are, what one did, whether it arrived, and sums over many.
//!
//! Which traces there are is known from the index; what they hold is read from the journal, so it is there as long as `journal.retain`
//! says. Nothing is changed.

mod conversation;
mod document;
mod read;
mod verify;
mod view;
#[cfg(test)]
mod tests;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::command::CommandError;
use super::operator::{
    Answered, Command, Followed, Needs, Operator, off_thread, time, trace_named,
};
use crate::index::{By, Filter, Index, IndexView, Query, StatsRow, TraceSummary};
use crate::journal::Position;

pub use conversation::Turn;
pub use verify::{Fate, SinkLedger, Verified};
pub use view::{SpanView, TraceView, duration_text, tree_text};

/// Traces that are listed when nobody says how many.
const LIST_DEFAULT: usize = 20;
/// Traces that are listed at most.
const LIST_MAX: usize = 1_000;

// === Requests ===

/// Which traces are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WhichTraces {
    /// Words that all must hold: agent: tool: model: workflow: session: user: with a part of a name, status:error, dur:>2s,
    /// tokens:>1000, cost:>0.05, spans:>100, or part of any name; `-` before a word turns it around
    #[arg(value_name = "FILTER", allow_hyphen_values = true)]
    pub filter: Vec<String>,
    /// Only those begun since: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only those begun before
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

/// Asks which traces there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesRequest {
    /// Which.
    #[command(flatten)]
    pub which: WhichTraces,
    /// How many are listed
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
}

/// Asks for sums over traces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsRequest {
    /// What sums are by
    #[arg(long, value_enum, default_value = "agent")]
    pub by: By,
    /// Over which traces.
    #[command(flatten)]
    pub which: WhichTraces,
}

/// Asks for one trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Its id: 32 digits, or the id in the Agents SDK
    pub id: String,
    /// The whole trace as a document: as JSON, as Markdown for a language model, as a request of OTLP or of the Agents SDK
    #[arg(long = "as", value_enum, value_name = "FORM")]
    #[serde(default, rename = "as")]
    pub form: Option<Form>,
}

/// Asks whether a trace arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Its id: 32 digits, or the id in the Agents SDK
    pub id: String,
}

/// What a trace is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A summary, and spans as in JSON lines.
    Json,
    /// Text for a language model or a ticket.
    Markdown,
    /// A request of OTLP as JSON.
    OtlpJson,
    /// A request of the Agents SDK.
    Openai,
}

// === Answers ===

/// Traces.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TracesAnswer {
    /// How the index is.
    pub index: IndexView,
    /// How many are meant.
    pub count: u64,
    /// The newest of them first.
    pub traces: Vec<TraceSummary>,
}

/// Sums.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// How the index is.
    pub index: IndexView,
    /// Over how many traces.
    pub traces: u64,
    /// The most called first.
    pub rows: Vec<StatsRow>,
}

// === The commands ===

impl WhichTraces {
    fn query(&self) -> Result<Query, CommandError> {
        let filter = Filter::read(&self.filter.join(" "));
        let filter = filter.map_err(|mistake| CommandError::Mistake(mistake.to_string()))?;
        Ok(Query { filter, from_ns: time(self.from.as_deref())?, to_ns: time(self.to.as_deref())? })
    }
}

/// What both ask: the index, and from where on the journal is kept.
fn indexed(operator: &Operator) -> Result<(Index, Position), CommandError> {
    let index = operator.index().cloned().ok_or(CommandError::NoIndex)?;
    Ok((index, operator.replays()?.feed.journal().start().position))
}

impl Command for TracesRequest {
    const PATH: &'static str = "/api/v1/traces";
    const NEEDS: Needs = Needs::Index;
    type Answer = TracesAnswer;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let query = self.which.query()?;
        let limit = self.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
        let (index, kept_from) = indexed(operator)?;
        off_thread(move || {
            let (traces, count) = index.list(&query, limit, kept_from);
            Ok(TracesAnswer { index: index.view(), count, traces })
        })
        .await
    }
}

impl Command for StatsRequest {
    const PATH: &'static str = "/api/v1/stats";
    const NEEDS: Needs = Needs::Index;
    type Answer = StatsAnswer;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let query = self.which.query()?;
        let (index, kept_from) = indexed(operator)?;
        off_thread(move || {
            let (rows, traces) = index.stats(&query, self.by, kept_from);
            Ok(StatsAnswer { index: index.view(), traces, rows })
        })
        .await
    }
}

impl Command for TraceRequest {
    const PATH: &'static str = "/api/v1/traces/show";
    const NEEDS: Needs = Needs::Journal;
    type Answer = TraceView;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let trace = trace_named(&self.id);
        let journal = operator.replays()?.feed.journal().clone();
        // One that gave way may have begun anew, and all of it is wanted then as well as can be had quickly: what is known.
        let places = operator.index().and_then(|index| index.places(trace));
        let read = off_thread(move || read::trace(&journal, trace, places.as_ref())).await?;
        if read.records.is_empty() {
            return Err(CommandError::NoTrace(self.id));
        }
        off_thread(move || {
            let (mut view, contexts) = view::view(trace, &read);
            if let Some(form) = self.form {
                view.document = Some(document::document(form, &read, &contexts, &view)?);
                (view.spans, view.conversation) = (Vec::new(), Vec::new());
            }
            Ok(view)
        })
        .await
    }
}

impl Command for VerifyRequest {
    const PATH: &'static str = "/api/v1/traces/verify";
    const NEEDS: Needs = Needs::Lanes;
    type Answer = Verified;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let trace = trace_named(&self.id);
        let replays = operator.replays()?;
        let journal = replays.feed.journal().clone();
        let sinks = verify::sinks(&journal, &replays.lanes);
        let places = operator.index().and_then(|index| index.places(trace));
        let places = places.filter(|places| !places.is_part);
        let letters = operator.dead_letters().clone();
        let verified = off_thread(move || {
            let read = read::trace(&journal, trace, places.as_ref())?;
            verify::verify(trace, &read, sinks, (&journal, &letters))
        });
        verified.await?.ok_or(CommandError::NoTrace(self.id))
    }
}
