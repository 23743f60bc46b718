//! What is remembered of one trace: its words, its times, and of each span that is an agent, a tool or a model call, or that says tokens,
//! what is needed for sums. Pure.

use std::collections::{HashMap, HashSet};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::feed::Tree;
use crate::journal::Position;
use crate::normalize::trace_facts;
use crate::span::{
    Cost, Facts, Kind, Span, SpanId, Spending, Spends, Text, TraceId, TraceObject, said_of,
};
use crate::support::rfc3339;

/// Calls of a trace that are told apart: 15 MiB of them.
const CALLS_MAX: usize = 1 << 18;
/// Names of agents, tools and models of a trace.
const NAMES_MAX: usize = 1 << 10;
/// A name or id is cut there.
const NAME_BYTES_MAX: usize = 256;
/// No name.
const NAMELESS: u16 = u16::MAX;
/// Nanodollars of a dollar.
const NANOS: f64 = 1e9;

/// What sums are by, and what a call is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Runs of agents. Tokens and cost are those of all calls whose nearest agent it is.
    #[default]
    Agent,
    /// Calls of tools.
    Tool,
    /// Calls of models.
    Model,
}

impl By {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Tool => "tool",
            Self::Model => "model",
        }
    }
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
    pub(super) cost_nanos: Option<u64>,
}

impl Sums {
    fn of(facts: &Facts) -> Self {
        let said = said_of(facts);
        let (input, output) = (said.input.unwrap_or(0), said.output.unwrap_or(0));
        let total = said.total.unwrap_or_else(|| input.saturating_add(output));
        Self { input, output, total, cost_nanos: cost_nanos(&facts.cost) }
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

/// What a span says that it cost; what is no sum of money is left out.
fn cost_nanos(cost: &Cost) -> Option<u64> {
    let parts = || Some(cost.input.unwrap_or(0.0) + cost.output.unwrap_or(0.0));
    let has_parts = cost.input.is_some() || cost.output.is_some();
    let dollars = cost.total.or_else(|| if has_parts { parts() } else { None })?;
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
    spending: Spending,
    name: u16,
    /// The agent at or above it, and whether its tokens count, once that is decided.
    agent: u16,
    counts: bool,
    pub(super) duration_ns: u64,
    said: Sums,
}

/// A call with what was decided of it.
#[derive(Debug)]
pub(super) struct Decided<'a> {
    pub(super) call: &'a Call,
    pub(super) name: Option<&'a str>,
    pub(super) agent: Option<&'a str>,
    /// Its tokens and cost, where they count.
    pub(super) sums: Sums,
}

/// One trace.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Its number among the touches.
    pub(super) touched: u64,
    /// When its last item was received.
    pub(super) last_ns: u64,
    first_ns: u64,
    records: Vec<Position>,
    has_object: bool,
    workflow: Option<Box<str>>,
    session: Option<Box<str>>,
    user: Option<Box<str>>,
    root_name: Option<Box<str>>,
    start_ns: u64,
    end_ns: u64,
    pub(super) spans: u64,
    pub(super) errors: u64,
    names: Vec<(By, Box<str>)>,
    calls: Vec<Call>,
    /// Those before this are decided, and are in `sums`.
    decided: usize,
    sums: Sums,
    tree: Option<Box<Tree>>,
    words_bytes: usize,
}

impl Entry {
    /// Takes note of the record that brings what is added next.
    pub(super) fn begin(&mut self, at: Position, received_ns: u64) {
        if self.records.last() != Some(&at) {
            self.records.push(at);
        }
        if self.first_ns == 0 {
            self.first_ns = received_ns;
        }
        self.last_ns = received_ns;
    }

    pub(super) fn add_object(&mut self, object: &TraceObject) {
        if !self.has_object {
            self.has_object = true;
            self.learn(&trace_facts(object), true);
        }
    }

    pub(super) fn add_span(&mut self, span: &Span) {
        if let Some(object) = &span.trace {
            self.add_object(object);
        }
        let facts = span.facts();
        self.learn(facts, false);
        let is = what(facts.kind);
        let own_name = is.and_then(|is| named(is, facts));
        let agent = facts.agent.as_ref().or(own_name.filter(|_| is == Some(By::Agent)));
        let (spending, has_failed) = (Spending::of(facts), facts.error.is_some());
        let tree = self.tree.get_or_insert_default();
        let news = tree.add(span, spending, agent, has_failed);
        tree.forget_doubts();
        self.spans += u64::from(news.is_new);
        self.errors += u64::from(news.has_failed);
        if span.start_ns != 0 && (self.start_ns == 0 || span.start_ns < self.start_ns) {
            self.start_ns = span.start_ns;
        }
        self.end_ns = self.end_ns.max(span.end_ns);
        if span.parent_id.is_none() && self.root_name.is_none() {
            self.root_name = Some(self.word(&facts.name));
        }
        if let Some(agent) = agent {
            self.place_of(By::Agent, agent);
        }
        if is.is_none() && spending.spends == Spends::Nothing {
            return;
        }
        let name = match (is, own_name) {
            (Some(is), Some(name)) => self.place_of(is, name),
            _ => NAMELESS,
        };
        let call = Call {
            span: span.span_id,
            is,
            has_failed,
            spending,
            name,
            agent: NAMELESS,
            counts: false,
            duration_ns: span.duration_ns(),
            said: Sums::of(facts),
        };
        self.add_call(call, news.is_new);
    }

    fn add_call(&mut self, call: Call, is_new: bool) {
        let has_room = self.calls.len() < CALLS_MAX;
        let undecided = self.calls.get_mut(self.decided..).unwrap_or_default();
        let known = undecided.iter_mut().find(|known| !is_new && known.span == call.span);
        match known {
            Some(known) => *known = call,
            None if has_room => self.calls.push(call),
            // Nobody remembers it, so its kind decides.
            None if call.spending.counts(false) => self.sums.add(call.said),
            None => {}
        }
    }

    /// Takes the words that are said. Those of spans count where none were said before, those of the trace object before all.
    fn learn(&mut self, facts: &Facts, is_object: bool) {
        for (known, said) in [
            (&mut self.workflow, &facts.workflow),
            (&mut self.session, &facts.session),
            (&mut self.user, &facts.user),
        ] {
            if let Some(text) = said.as_ref().filter(|_| is_object || known.is_none()) {
                let word: Box<str> = cut(text).into();
                self.words_bytes += word.len();
                *known = Some(word);
            }
        }
    }

    /// A copy: a slice would keep the whole request in memory.
    fn word(&mut self, text: &str) -> Box<str> {
        let word = cut(text);
        self.words_bytes += word.len();
        word.into()
    }

    fn place_of(&mut self, is: By, name: &str) -> u16 {
        let name = cut(name);
        let known = self.names.iter().position(|(of, known)| *of == is && **known == *name);
        let place = known.or_else(|| {
            (self.names.len() < NAMES_MAX).then(|| {
                let word = self.word(name);
                self.names.push((is, word));
                self.names.len() - 1
            })
        });
        place.and_then(|place| u16::try_from(place).ok()).unwrap_or(NAMELESS)
    }

    fn name(&self, place: u16) -> Option<&str> {
        self.names.get(usize::from(place)).map(|(_, name)| &**name)
    }

    fn undecided(&self) -> &[Call] {
        self.calls.get(self.decided..).unwrap_or_default()
    }

    /// Those whose tokens count otherwise than their kind alone says.
    fn exceptions(&self) -> HashSet<SpanId> {
        let asked = self.undecided().iter().filter(|call| call.spending.spends != Spends::Nothing);
        let asked = asked.map(|call| call.span);
        self.tree.as_ref().map(|tree| tree.exceptions(asked)).unwrap_or_default()
    }

    fn agents_above(&self) -> HashMap<SpanId, Text> {
        let asked = self.undecided().iter().map(|call| call.span);
        self.tree.as_ref().map(|tree| tree.agents_at(asked)).unwrap_or_default()
    }

    /// What counts in it, as it is now.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = self.sums;
        let exceptions = self.exceptions();
        let counting = |call: &&Call| call.spending.counts(exceptions.contains(&call.span));
        self.undecided().iter().filter(counting).for_each(|call| sums.add(call.said));
        sums
    }

    /// Shows its calls, each with what is decided of it now.
    pub(super) fn visit_calls(&self, mut visit: impl FnMut(Decided<'_>)) {
        let (exceptions, agents) = (self.exceptions(), self.agents_above());
        for (at, call) in self.calls.iter().enumerate() {
            let is_decided = at < self.decided;
            let counts = if is_decided {
                call.counts
            } else {
                call.spending.counts(exceptions.contains(&call.span))
            };
            let agent = match agents.get(&call.span) {
                _ if is_decided => self.name(call.agent),
                above => above.map(|name| cut(name)),
            };
            let sums = if counts { call.said } else { Sums::default() };
            visit(Decided { call, name: self.name(call.name), agent, sums });
        }
    }

    /// Decides for good, and gives up what that takes.
    pub(super) fn decide(&mut self) {
        let (exceptions, agents) = (self.exceptions(), self.agents_above());
        for at in self.decided..self.calls.len() {
            let Some(call) = self.calls.get(at).copied() else { break };
            let counts = call.spending.counts(exceptions.contains(&call.span));
            let agent =
                agents.get(&call.span).map_or(NAMELESS, |name| self.place_of(By::Agent, name));
            if counts {
                self.sums.add(call.said);
            }
            if let Some(call) = self.calls.get_mut(at) {
                (call.counts, call.agent) = (counts, agent);
            }
        }
        self.decided = self.calls.len();
        self.tree = None;
        self.calls.shrink_to_fit();
        self.records.shrink_to_fit();
    }

    pub(super) fn records(&self) -> &[Position] {
        &self.records
    }

    /// When it began: when its first span did, or when it was first heard of.
    pub(super) fn began_ns(&self) -> u64 {
        if self.start_ns == 0 { self.first_ns } else { self.start_ns }
    }

    pub(super) fn duration_ns(&self) -> u64 {
        if self.start_ns == 0 { 0 } else { self.end_ns.saturating_sub(self.start_ns) }
    }

    /// Its name, as it is shown.
    pub(super) fn shown_name(&self) -> &str {
        self.workflow.as_deref().or(self.root_name.as_deref()).unwrap_or_default()
    }

    pub(super) fn workflow(&self) -> Option<&str> {
        self.workflow.as_deref()
    }

    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Its names of one kind.
    pub(super) fn names(&self, of: By) -> impl Iterator<Item = &str> {
        self.names.iter().filter(move |(is, _)| *is == of).map(|(_, name)| &**name)
    }

    /// Its names of all kinds, and the one that is shown.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &str> {
        let own = [self.workflow.as_deref(), self.root_name.as_deref()];
        own.into_iter().flatten().chain(self.names.iter().map(|(_, name)| &**name))
    }

    /// Memory of its tree, in bytes.
    pub(super) fn tree_bytes(&self) -> usize {
        self.tree.as_ref().map_or(0, |tree| size_of::<Tree>() + tree.bytes())
    }

    /// Memory that it takes, in bytes, the tree included.
    pub(super) fn bytes(&self) -> usize {
        self.words_bytes
            + self.names.capacity() * size_of::<(By, Box<str>)>()
            + self.calls.capacity() * size_of::<Call>()
            + self.records.capacity() * size_of::<Position>()
            + self.tree_bytes()
    }

    pub(super) fn summary(&self, id: TraceId, sums: Sums) -> TraceSummary {
        let text = |word: Option<&str>| word.map(str::to_owned);
        let names = |of| self.names(of).map(str::to_owned).collect();
        let position = |record: Option<&Position>| record.map_or(0, |position| position.0);
        TraceSummary {
            trace_id: id.to_string(),
            name: self.shown_name().to_owned(),
            workflow: text(self.workflow()),
            session: text(self.session()),
            user: text(self.user()),
            start: rfc3339::text(self.began_ns()),
            start_unix_nano: self.began_ns(),
            duration_ns: self.duration_ns(),
            status: if self.errors > 0 { "error" } else { "ok" }.to_owned(),
            spans: self.spans,
            errors: self.errors,
            input_tokens: sums.input,
            output_tokens: sums.output,
            total_tokens: sums.total,
            cost_usd: sums.cost_usd(),
            agents: names(By::Agent),
            tools: names(By::Tool),
            models: names(By::Model),
            first_position: position(self.records.first()),
            last_position: position(self.records.last()),
        }
    }
}

fn what(kind: Kind) -> Option<By> {
    match kind {
        Kind::Agent => Some(By::Agent),
        Kind::Tool => Some(By::Tool),
        kind if kind.counts_usage() => Some(By::Model),
        _ => None,
    }
}

fn named(is: By, facts: &Facts) -> Option<&Text> {
    match is {
        By::Agent => Some(facts.agent.as_ref().unwrap_or(&facts.name)),
        By::Tool => Some(facts.tool.as_ref().unwrap_or(&facts.name)),
        By::Model => facts.response_model.as_ref().or(facts.request_model.as_ref()),
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(text)
}
