//! What is remembered of one trace: its words, its times, and of each span that is an agent, a tool or a model call, or that says tokens,
//! what is needed for sums. Pure.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::feed::Tree;
use crate::journal::Position;
use crate::normalize::trace_facts;
use crate::prices::Prices;
use crate::span::{
    Facts, Kind, Span, SpanId, Spending, Spends, Text, TraceId, TraceObject, said_of,
};
use crate::support::rfc3339;

/// Calls of a trace that are told apart: 15 MiB of them.
const CALLS_MAX: usize = 1 << 18;
/// Names of agents of a trace, and as many of tools and of models.
const NAMES_MAX: usize = 1 << 10;
/// A name or id is cut there.
const NAME_BYTES_MAX: usize = 256;
/// No name.
const NAMELESS: u16 = u16::MAX;
/// Nanodollars of a dollar.
const NANOS: f64 = 1e9;

/// What sums are by, and what a call is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, ValueEnum, JsonSchema, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Runs of agents. Tokens and cost are those of all calls whose nearest agent it is.
    #[default]
    Agent,
    /// Calls of tools.
    Tool,
    /// Calls of models.
    Model,
    /// What agents hand over to others: `from -> to`.
    Handoff,
}

/// A trace, in short.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceSummary {
    /// Its id: 32 digits.
    pub trace_id: String,
    /// The workflow's name, else that of the first span without a parent.
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
    /// When its first span began, RFC 3339.
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: u64,
    /// From its first start to its last end.
    pub duration_ns: u64,
    /// `error` where a span failed, else `ok`.
    pub status: String,
    /// How many spans.
    pub spans: u64,
    /// How many of them failed.
    pub errors: u64,
    /// Tokens read by models, each once.
    pub input_tokens: u64,
    /// Tokens written by models, each once.
    pub output_tokens: u64,
    /// Both, as reported.
    pub total_tokens: u64,
    /// What it cost, as far as anybody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// Agents at work.
    pub agents: Vec<String>,
    /// Tools called.
    pub tools: Vec<String>,
    /// Models called.
    pub models: Vec<String>,
    /// Where its first record starts in the journal.
    pub first_position: u64,
    /// Where its last record starts.
    pub last_position: u64,
}

/// What counts in a trace, or in some calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) total: u64,
    /// In billionths of a dollar; `None` where nobody says any.
    cost_nanos: Option<u64>,
}

impl Sums {
    fn of(span: &Span, prices: &Prices) -> Self {
        let said = said_of(span.facts());
        let (input, output) = (said.input.unwrap_or(0), said.output.unwrap_or(0));
        let total = said.total.unwrap_or_else(|| input.saturating_add(output));
        Self { input, output, total, cost_nanos: prices.cost_of(span).and_then(nanos_of) }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.output = self.output.saturating_add(more.output);
        self.total = self.total.saturating_add(more.total);
        if let Some(cost) = more.cost_nanos {
            self.cost_nanos = Some(self.cost_nanos.unwrap_or(0).saturating_add(cost));
        }
    }

    pub(super) fn cost_usd(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "exact up to nine million dollars")]
        self.cost_nanos.map(|nanos| nanos as f64 / NANOS)
    }
}

/// Dollars in billionths, where they are a sum of money.
pub(super) fn nanos_of(dollars: f64) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
    (dollars.is_finite() && dollars >= 0.0).then(|| (dollars * NANOS).round() as u64)
}

/// An agent's, a tool's or a model's span, or one that says tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    span: SpanId,
    /// What it is; `None` for one that only says tokens.
    pub(super) is: Option<By>,
    pub(super) has_failed: bool,
    pub(super) duration_ns: u64,
    name: u16,
    spending: Spending,
    said: Sums,
    /// The agent at or above it, and whether its tokens count: as it was known when the entry was settled last.
    agent: u16,
    counts: bool,
    /// Whether it says itself which agent hands over.
    says_agent: bool,
}

impl Call {
    /// Its tokens and cost, where they count.
    pub(super) fn sums(&self) -> Sums {
        if self.counts { self.said } else { Sums::default() }
    }
}

/// One trace.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// What is shown of it; its id, times as text and sums are written when it is.
    summary: TraceSummary,
    /// Its number among the touches.
    pub(super) touched: u64,
    /// When its last item was received.
    pub(super) last_ns: u64,
    records: Vec<Position>,
    has_object: bool,
    has_start: bool,
    end_ns: u64,
    calls: Vec<Call>,
    /// Agents that hand over and that take over: the names of handoffs.
    handed: Vec<String>,
    /// Those before this are decided for good.
    decided: usize,
    /// What counts of calls that there was no room for.
    beyond: Sums,
    tree: Option<Box<Tree>>,
    /// Whether something came since it was settled.
    is_stale: bool,
    words_bytes: usize,
}

impl Entry {
    /// Takes note of the record that brings what is added next.
    pub(super) fn begin(&mut self, at: Position, received_ns: u64) {
        if self.records.last() != Some(&at) {
            self.records.push(at);
        }
        if self.summary.start_unix_nano == 0 {
            self.summary.start_unix_nano = received_ns;
        }
        self.last_ns = received_ns;
        self.is_stale = true;
    }

    pub(super) fn add_object(&mut self, object: &TraceObject) {
        if !std::mem::replace(&mut self.has_object, true) {
            self.learn(&trace_facts(object), true);
        }
    }

    pub(super) fn add_span(&mut self, span: &Span, prices: &Prices) {
        if let Some(object) = &span.trace {
            self.add_object(object);
        }
        let facts = span.facts();
        self.learn(facts, false);
        self.learn_times(span);
        if span.parent_id.is_none() && self.summary.name.is_empty() {
            self.summary.name = word(&facts.name, &mut self.words_bytes);
        }
        let (is, own_name) = call_of(facts).unzip();
        let own_name = own_name.flatten();
        let agent = facts.agent.as_ref().or(own_name.filter(|_| is == Some(By::Agent)));
        let (spending, has_failed) = (Spending::of(facts), facts.error.is_some());
        let tree = self.tree.get_or_insert_default();
        let news = tree.add(span, spending, agent, has_failed);
        tree.forget_doubts();
        self.summary.spans += u64::from(news.is_new);
        self.summary.errors += u64::from(news.has_failed);
        if let Some(agent) = agent {
            self.place_of(By::Agent, agent);
        }
        if is.is_none() && spending.spends == Spends::Nothing {
            return;
        }
        let name = is.zip(own_name).map_or(NAMELESS, |(is, name)| self.place_of(is, name));
        let from = facts.handoff_from.as_ref().filter(|_| is == Some(By::Handoff));
        let agent = from.map_or(NAMELESS, |from| self.place_of(By::Handoff, from));
        let (duration_ns, said) = (span.duration_ns(), Sums::of(span, prices));
        let (span, counts, says_agent) = (span.span_id, false, from.is_some());
        let call = Call {
            span,
            is,
            has_failed,
            duration_ns,
            name,
            spending,
            said,
            agent,
            counts,
            says_agent,
        };
        self.add_call(call, news.is_new);
    }

    fn learn_times(&mut self, span: &Span) {
        let summary = &mut self.summary;
        if span.start_ns != 0 && (!self.has_start || span.start_ns < summary.start_unix_nano) {
            (self.has_start, summary.start_unix_nano) = (true, span.start_ns);
        }
        self.end_ns = self.end_ns.max(span.end_ns);
        if self.has_start {
            summary.duration_ns = self.end_ns.saturating_sub(summary.start_unix_nano);
        }
    }

    fn add_call(&mut self, call: Call, is_new: bool) {
        let has_room = self.calls.len() < CALLS_MAX;
        let mut open = self.calls.iter_mut().skip(self.decided);
        let known = if is_new { None } else { open.find(|known| known.span == call.span) };
        match known {
            Some(known) => *known = call,
            None if has_room => self.calls.push(call),
            // Nobody remembers it, so its kind decides.
            None if call.spending.counts(false) => self.beyond.add(call.said),
            None => {}
        }
    }

    /// Takes the words that are said. Those of spans count where none were said before, those of the trace object before all.
    fn learn(&mut self, facts: &Facts, is_object: bool) {
        let summary = &mut self.summary;
        for (known, said) in [
            (&mut summary.workflow, &facts.workflow),
            (&mut summary.session, &facts.session),
            (&mut summary.user, &facts.user),
        ] {
            if let Some(text) = said.as_ref().filter(|_| is_object || known.is_none()) {
                *known = Some(word(text, &mut self.words_bytes));
            }
        }
    }

    fn place_of(&mut self, is: By, name: &str) -> u16 {
        let names = match is {
            By::Agent => &mut self.summary.agents,
            By::Tool => &mut self.summary.tools,
            By::Model => &mut self.summary.models,
            By::Handoff => &mut self.handed,
        };
        place_of(names, name, &mut self.words_bytes)
    }

    /// Decides, as far as is known now, of all calls that are not decided for good: whether their tokens count, and which agent they are of.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.is_stale, false) {
            return;
        }
        let open = self.calls.get_mut(self.decided..).unwrap_or_default();
        if let Some(tree) = &self.tree {
            let ids = || open.iter().map(|call| call.span);
            let (exceptions, agents) = (tree.exceptions(ids()), tree.agents_at(ids()));
            for call in open {
                call.counts = call.spending.counts(exceptions.contains(&call.span));
                if call.says_agent {
                    continue;
                }
                let is_handoff = call.is == Some(By::Handoff);
                let names = if is_handoff { &mut self.handed } else { &mut self.summary.agents };
                call.agent = agents
                    .get(&call.span)
                    .map_or(NAMELESS, |name| place_of(names, name, &mut self.words_bytes));
            }
        }
        let mut sums = self.beyond;
        self.calls.iter().for_each(|call| sums.add(call.sums()));
        self.summary.input_tokens = sums.input;
        self.summary.output_tokens = sums.output;
        self.summary.total_tokens = sums.total;
        self.summary.cost_usd = sums.cost_usd();
    }

    /// Decides for good, and gives up what that takes.
    pub(super) fn decide(&mut self) {
        self.settle();
        self.decided = self.calls.len();
        self.tree = None;
        self.calls.shrink_to_fit();
        self.records.shrink_to_fit();
        let TraceSummary { agents, tools, models, .. } = &mut self.summary;
        for names in [agents, tools, models, &mut self.handed] {
            names.shrink_to_fit();
        }
    }

    /// Its calls, each with its name and that of the agent at or above it. A handoff's are who takes over and who hands over.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&Call, Option<&str>, Option<&str>)> {
        let name = |by, place: u16| self.names(by).get(usize::from(place)).map(String::as_str);
        self.calls.iter().map(move |call| {
            let own = call.is.and_then(|is| name(is, call.name));
            let of_agent = call.is.filter(|is| *is == By::Handoff).unwrap_or(By::Agent);
            (call, own, name(of_agent, call.agent))
        })
    }

    fn names(&self, of: By) -> &Vec<String> {
        match of {
            By::Agent => &self.summary.agents,
            By::Tool => &self.summary.tools,
            By::Model => &self.summary.models,
            By::Handoff => &self.handed,
        }
    }

    pub(super) fn records(&self) -> &[Position] {
        &self.records
    }

    /// Where the record starts that brought the last of it.
    pub(super) fn last_position(&self) -> Position {
        self.records.last().copied().unwrap_or_default()
    }

    /// Memory of its tree, in bytes.
    pub(super) fn tree_bytes(&self) -> usize {
        self.tree.as_ref().map_or(0, |tree| size_of::<Tree>() + tree.bytes())
    }

    /// Memory that it takes, in bytes, the tree included.
    pub(super) fn bytes(&self) -> usize {
        let names = [By::Agent, By::Tool, By::Model, By::Handoff];
        let names = names.map(|by| self.names(by).capacity());
        self.words_bytes
            + names.iter().sum::<usize>() * size_of::<String>()
            + self.calls.capacity() * size_of::<Call>()
            + self.records.capacity() * size_of::<Position>()
            + self.tree_bytes()
    }

    /// As it was settled last; its id, texts and places are not there yet.
    pub(super) fn known(&self) -> &TraceSummary {
        &self.summary
    }

    pub(super) fn summary(&self, id: TraceId) -> TraceSummary {
        let known = self.summary.clone();
        TraceSummary {
            trace_id: id.to_string(),
            name: known.workflow.clone().unwrap_or(known.name),
            start: rfc3339::text(known.start_unix_nano),
            status: if known.errors > 0 { "error" } else { "ok" }.to_owned(),
            first_position: self.records.first().map_or(0, |first| first.0),
            last_position: self.last_position().0,
            ..known
        }
    }
}

/// What a span is a call of, and its name.
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

/// The place of a name among others, where there is room for it.
fn place_of(names: &mut Vec<String>, name: &str, bytes: &mut usize) -> u16 {
    let name = cut(name);
    let known = names.iter().position(|known| known == name);
    let place = known.or_else(|| {
        (names.len() < NAMES_MAX).then(|| {
            names.push(word(name, bytes));
            names.len() - 1
        })
    });
    place.and_then(|place| u16::try_from(place).ok()).unwrap_or(NAMELESS)
}

/// A copy, which is counted: a slice would keep the whole request in memory.
fn word(text: &str, bytes: &mut usize) -> String {
    let word = cut(text);
    *bytes += word.len();
    word.to_owned()
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(text)
}
