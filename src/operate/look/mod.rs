//! Trace views: lists of traces, single traces, their delivery, and sums over many.
//!
//! The index knows which traces there are. Their contents are read from the journal, so they exist as long as `journal.retain` says.
//! Nothing is changed.

pub mod brief;
mod conversation;
mod document;
mod read;
mod text;
mod verify;
mod view;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::command::{CommandError, off_thread};
use super::operator::{
    Answered, Command, Followed, LIST_DEFAULT, LIST_MAX, Needs, Operator, time, trace_named,
};
use crate::feed::Traces;
use crate::index::{By, Filter, Index, List, Query, Stats};
use crate::journal::Position;
use crate::pipeline::LaneHandle;
use crate::prices::Prices;
use crate::span::{SpanId, TraceId, TraceNeeds};
use read::{Read, TraceRecord, TraceState};

pub use conversation::Turn;
pub use text::{TRACE, counts, dollars, gaps, rows_table, traces_table, verified_text};
pub use verify::{SinkLedger, SinkOutcome, Verified};
pub use view::{Link, SpanView, TraceView, one_line, tree_text};

/// Maximum number of traces verified per request: as many as a list shows.
const VERIFIED_MAX: usize = 100;

// === Requests ===

/// Which traces are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, JsonSchema, Serialize, Deserialize)]
#[serde(default)]
pub struct WhichTraces {
    /// Terms that must all match: agent: tool: model: workflow: session: user: with part of a name or, after =, the whole, status:error,
    /// dur:>2s, tokens:>1000, cost:>0.05, spans:>100, a trace's id, or part of any name; `-` before a word turns it around, and on the
    /// command line such words stand behind `--`
    #[arg(value_name = "FILTER")]
    #[serde(deserialize_with = "words")]
    #[schemars(with = "String")]
    pub filter: Vec<String>,
    /// Only traces that started since then: 2026-11-21T15:00:00Z, 2026-11-21, or 2h for two hours ago
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only traces that started before then
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

/// Asks which traces there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesRequest {
    /// Which.
    #[command(flatten)]
    #[serde(flatten)]
    pub which: WhichTraces,
    /// How many to list
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Only those listed after this trace; ID@NANOSECONDS with its `start_unix_nano` if it may be gone by then
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Only traces with new items since the answer with this `position`.
    #[arg(skip)]
    #[schemars(skip)]
    pub since: Option<u64>,
}

/// Asks for sums over traces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, JsonSchema, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsRequest {
    /// What to group by
    #[arg(long, value_enum, default_value = "agent")]
    pub by: By,
    /// Over which traces.
    #[command(flatten)]
    #[serde(flatten)]
    pub which: WhichTraces,
}

/// Asks for one trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Its id: 32 digits, or the id in the Agents SDK
    pub id: String,
    /// Only this span, with all its details: 16 digits
    #[arg(long, value_name = "ID")]
    #[serde(default)]
    pub span: Option<String>,
    /// As a document: JSON lines, Markdown for a language model, an OTLP or an Agents SDK request
    #[arg(long = "as", value_enum, value_name = "FORM")]
    #[serde(default, rename = "as")]
    #[schemars(skip)]
    pub form: Option<Form>,
}

/// Asks whether a trace arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Its id: 32 digits, or the id in the Agents SDK
    pub id: String,
}

/// Asks for the delivery state of several traces at each sink, without single spans.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRequest {
    /// Their ids: 32 digits each. Only the first hundred count.
    pub ids: Vec<String>,
}

/// What a trace is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// JSON lines, as the sink `stdout` writes them.
    Json,
    /// Text for a language model or a ticket.
    Markdown,
    /// An OTLP request as JSON.
    OtlpJson,
    /// An Agents SDK request.
    Openai,
}

// === The commands ===

/// Reads a filter from one text or several.
fn words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a filter is a string, or a list of strings")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Option::deserialize(from)? {
        Some(OneOrMany::One(words)) => vec![words],
        Some(OneOrMany::Many(words)) => words,
        None => Vec::new(),
    })
}

impl WhichTraces {
    fn query(&self) -> Result<Query, CommandError> {
        let filter = Filter::read(&self.filter.join(" "));
        let filter = filter.map_err(|mistake| CommandError::Mistake(mistake.to_string()))?;
        let (from_ns, to_ns) = (time(self.from.as_deref())?, time(self.to.as_deref())?);
        Ok(Query { filter, from_ns, to_ns, since: None })
    }
}

/// Returns the index, the position from which on the journal is kept, and the number of its items that cannot be read.
fn indexed(operator: &Operator) -> Result<(Index, Position, u64), CommandError> {
    let index = operator.traces().cloned().ok_or(CommandError::NoIndex)?;
    let journal = operator.replays()?.feed.journal();
    Ok((index, journal.start().position, journal.unreadable()))
}

/// Reads a trace and converts it with `make`; `None` if nothing of it exists. Reads all of it only if `is_whole`, otherwise only what the
/// index knows.
async fn of_trace<T: Send + 'static>(
    operator: &Operator,
    (id, is_whole): (&str, bool),
    make: impl FnOnce(TraceId, Read) -> io::Result<Option<T>> + Send + 'static,
) -> Result<Option<T>, CommandError> {
    let trace = trace_named(id);
    let journal = operator.replays()?.feed.journal().clone();
    let places = operator.traces().map(|index| index.places(trace, is_whole)).unwrap_or_default();
    let turn = Arc::clone(&operator.reading).acquire_owned().await;
    let turn = turn.map_err(|_| CommandError::Stopping)?;
    off_thread(move || {
        // Even if the caller hangs up, the permit is held until the work is done.
        let _turn = turn;
        let read = read::trace(&journal, trace, &places)?;
        if read.records.is_empty() { Ok(None) } else { make(trace, read) }
    })
    .await
}

impl Command for TracesRequest {
    const PATH: &'static str = "/api/v1/traces";
    const NEEDS: Needs = Needs::Index;
    type Answer = List;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let query = Query { since: self.since, ..self.which.query()? };
        let limit = self.limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX);
        let (index, kept_from, unreadable) = indexed(operator)?;
        let before = self.before.as_deref().map(|text| {
            let (id, began_ns) = text.split_once('@').unwrap_or((text, ""));
            (trace_named(id), began_ns.parse().ok())
        });
        let listed = off_thread(move || Ok(index.list(&query, (before, limit), kept_from)));
        let mut listed =
            listed.await?.ok_or_else(|| CommandError::NoTrace(self.before.unwrap_or_default()))?;
        listed.index.unreadable = unreadable;
        Ok(listed)
    }
}

impl Command for StatsRequest {
    const PATH: &'static str = "/api/v1/stats";
    const NEEDS: Needs = Needs::Index;
    type Answer = Stats;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let query = self.which.query()?;
        let (index, kept_from, unreadable) = indexed(operator)?;
        let mut stats = off_thread(move || Ok(index.stats(&query, self.by, kept_from))).await?;
        stats.index.unreadable = unreadable;
        Ok(stats)
    }
}

impl Command for TraceRequest {
    const PATH: &'static str = "/api/v1/traces/show";
    const NEEDS: Needs = Needs::Lanes;
    type Answer = TraceView;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let named = self.span.iter().fold(self.id.clone(), |id, span| id + " with a span " + span);
        let read = |id: &String| SpanId::from_hex(id).ok_or(CommandError::NoTrace(named.clone()));
        let span = self.span.as_ref().map(read).transpose()?;
        // An evicted trace may have been indexed again. Only what the index knows of it is read, because that is fast.
        let (prices, lanes) = (operator.index.prices(), operator.replays()?.lanes.all());
        let viewed = of_trace(operator, (&self.id, false), move |trace, read| {
            let links = lanes.iter().filter_map(|LaneHandle { status, .. }| {
                let url = status.trace_url.as_ref()?.of(trace, span);
                Some(Link { sink: status.sink.clone(), url })
            });
            view((trace, read, span), (self.form, links.collect()), prices)
        });
        viewed.await?.ok_or(CommandError::NoTrace(named))
    }
}

/// Builds the view of a trace or of one span; `None` if there is no such span.
fn view(
    (trace, mut read, span): (TraceId, Read, Option<SpanId>),
    (form, links): (Option<Form>, Vec<Link>),
    prices: Arc<Prices>,
) -> io::Result<Option<TraceView>> {
    let needs = TraceNeeds { agents: true, ..TraceNeeds::AS_KNOWN };
    let (index, mut traces) = (Index::new(Arc::clone(&prices)), Traces::new(needs, 0));
    for TraceRecord { start, batch, .. } in &read.records {
        // This reads all facts; the index, which needs some, would read them separately.
        traces.feed(batch, start.position);
        index.feed(batch, start.position);
    }
    let known = TraceState { contexts: traces.contexts(read.items()), prices };
    read.keep_last();
    let mut spans = view::spans(&read, &known);
    if let Some(span) = span {
        read.keep_only(span);
        spans.retain(|view| view.span_id == span.to_string());
        if spans.is_empty() {
            return Ok(None);
        }
    }
    let mut view = TraceView {
        summary: index.summary(trace).unwrap_or_default(),
        spans,
        conversation: conversation::conversation(read.spans()),
        line: None,
        links,
        unreadable: read.unreadable,
        document: None,
    };
    if let Some(form) = form {
        view.document = Some(document::document(form, &read, &known, &view)?);
        (view.spans, view.conversation) = (Vec::new(), Vec::new());
    } else if span.is_some() {
        let written = document::document(Form::Json, &read, &known, &view)?;
        let read = |line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line));
        view.line = written.lines().last().map(read);
    }
    Ok(Some(view))
}

impl Command for VerifyRequest {
    const PATH: &'static str = "/api/v1/traces/verify";
    const NEEDS: Needs = Needs::Lanes;
    type Answer = Verified;

    async fn run(self, operator: &Operator, _: &Followed) -> Answered<Self> {
        let verified = verified(operator, std::slice::from_ref(&self.id)).await?.pop();
        verified.ok_or(CommandError::NoTrace(self.id))
    }
}

impl Command for DeliveryRequest {
    const PATH: &'static str = "/api/v1/traces/delivery";
    const NEEDS: Needs = Needs::Lanes;
    type Answer = Vec<Verified>;

    async fn run(mut self, operator: &Operator, _: &Followed) -> Answered<Self> {
        self.ids.truncate(VERIFIED_MAX);
        let mut all = verified(operator, &self.ids).await?;
        all.iter_mut().flat_map(|trace| &mut trace.sinks).for_each(|sink| sink.spans.clear());
        Ok(all)
    }
}

/// Verifies those of these traces that exist, one after the other. All dead letters are read, but only once.
async fn verified(operator: &Operator, ids: &[String]) -> Result<Vec<Verified>, CommandError> {
    let replays = operator.replays()?;
    let journal = replays.feed.journal();
    // Read before the dead letters, so that these include everything that a cursor has passed.
    let sinks = verify::sinks(&replays.lanes, journal);
    let store = operator.dead_letters.clone();
    let traces: Vec<_> = ids.iter().map(|id| trace_named(id)).collect();
    let mut letters = off_thread(move || verify::letters_of(&traces, &store)).await?;
    let mut all = Vec::new();
    for id in ids {
        let (journal, sinks) = (journal.clone(), sinks.clone());
        let of_it = letters.remove(&trace_named(id)).unwrap_or_default();
        let verify =
            move |trace, read: Read| Ok(verify::verify(trace, &read, sinks, (&journal, of_it)));
        all.extend(of_trace(operator, (id, true), verify).await?);
    }
    Ok(all)
}
