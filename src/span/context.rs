//! What is known of a trace beside the span at hand: facts that arrive apart from the spans they belong to.
//!
//! The Agents SDK sends workflow, group and metadata in an object of their own, an agent's name in a span that ends after its
//! children, and nothing at all when a trace is over. OTLP says session and user on some spans only.
//!
//! # Whose tokens count
//!
//! Many spans repeat what others said, so of all that speak of tokens or money in a trace each call counts once. The tree of spans
//! decides ([`Spends`] has the rule), and the tree may arrive in any order and in many requests. So:
//!
//! * [`super::Tree`] decides, for every sink alike, in the lane's own table, when a delivery begins; all its attempts agree.
//!   [`TraceContext::exceptions`] carries the decision and [`tokens_of`] applies it. No sink decides by itself.
//! * JSON lines and OTLP backends take a span once. What is known when it is sent is final there: a parent that is sent before its
//!   child counts what it says, and so does the child. Children end first, so that is rare: it takes two processes.
//! * Langfuse and Elasticsearch replace by id: a span whose decision changed after it was sent is sent once more.
//! * Without a context (its trace was too old or too many) the kind alone decides.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Cost, Facts, Kind, Payload, Priced, Span, SpanId, Text, TraceId, TraceObject, Usage};

/// What is known of a trace at one moment. What is not known is `None`, empty or 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceContext {
    /// The trace object, once it was seen. Its `wire` is empty: a context keeps no request alive.
    pub trace: Option<Arc<TraceObject>>,
    /// The workflow or trace name; the first that was said.
    pub workflow: Option<Text>,
    /// The conversation or group; the first that was said.
    pub session: Option<Text>,
    /// The end user; the first that was said.
    pub user: Option<Text>,
    /// The deployment environment; the first that was said.
    pub environment: Option<Text>,
    /// The application's release; the first that was said.
    pub release: Option<Text>,
    /// Labels of all spans, each once.
    pub tags: Vec<Text>,
    /// The trace object's metadata, in its order.
    pub metadata: Vec<(Text, Payload)>,
    /// The nearest agent at or above each span that the context was asked for.
    pub agents: HashMap<SpanId, Text>,
    /// How many spans were seen.
    pub spans: u64,
    /// How many of them failed.
    pub errors: u64,
    /// The earliest start, in nanoseconds since 1970.
    pub start_ns: u64,
    /// The latest end, in nanoseconds since 1970.
    pub end_ns: u64,
    /// Those of the spans that the context was asked for whose tokens and cost count otherwise than their kind alone says: model calls
    /// that repeat another, and other spans that count. See [`tokens_of`]. For a sink that estimates
    /// ([`TraceNeeds::estimates`]) also model calls that say no tokens where another span says them.
    pub exceptions: HashSet<SpanId>,
    /// The root that stands for the trace, where it needs one; see [`RootSpan`].
    pub root: Option<SpanId>,
    /// What went into the first model call below a span and came out of the last, of those spans without a parent that the context
    /// was asked for.
    pub contents: HashMap<SpanId, Content>,
}

/// What went in and came out; cut off where it is long.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// What went in first.
    pub input: Option<Payload>,
    /// What came out last.
    pub output: Option<Payload>,
}

/// What a span says of tokens or money, as far as it takes to count none twice.
///
/// * A model call counts, unless another one that spends lies below it: then it repeats that one's. What a tool, an agent, a handoff
///   or a task of the Agents SDK between the two runs is another call. Of instrumentations that tell of the same answer, one counts.
/// * A log counts, unless it is right below a model call that counts, or there are spans of model calls beside it (below the same
///   parent) and each of them spends: then it repeats one of them.
/// * So does a call that the next one beside it adds to its own tokens (Spring AI 1), while that one is not there.
/// * Anything else counts where no model call and no log below it spends, unless another such span above it does: the outermost
///   speaks. Nor does a step (a chain, what nobody knows, a call with others' tokens) that is a part of a call that spends (Axiom),
///   or a record of what a tool or an agent beside it took (AG2), where a model call or a log below that one spends.
///
/// A span's cost counts where its tokens do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spends {
    /// Nothing that could count. So is a `turn` of the Agents SDK: its task says the same.
    #[default]
    Nothing,
    /// A model call with tokens or a cost of its own, or an agent with those of its own calls.
    Model,
    /// What a model call beside it repeats: a point in time with tokens (Logfire tells those of a streamed call in a log record beside
    /// the call), or a call whose tokens the next one adds to its own.
    Log,
    /// A task, an agent, a remote agent, a chain ...: it sums up what is below it, and is all there is where nothing below speaks.
    Other,
    /// The same of what was called beside it.
    Record,
}

/// What is to be known of a span to decide whose tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spending {
    /// How it speaks of tokens and money.
    pub spends: Spends,
    /// What kind of work it is.
    pub kind: Kind,
    /// Whether it is a task of the Agents SDK.
    pub is_task: bool,
    /// Whether it says tokens or money at all, its own or those of others.
    says: bool,
    /// What tells apart the answer of a model call that spends, see [`Spending::answer`]; 0 where nobody knows.
    answer: u64,
}

/// See [`Spending::answer`].
pub(super) const TELLER_BITS: u32 = 16;

impl Spending {
    /// What a span with these facts says.
    pub fn of(facts: &Facts) -> Self {
        let (said, spends) = (said_of(facts), Spends::of(facts));
        // An id alone may come again: Ollama draws one of 999.
        let of = |id: &Text| xxh3_64_with_seed(id.as_bytes(), facts.usage.input.unwrap_or(0)) >> 17;
        let answer = facts.response_id.as_ref().filter(|_| spends == Spends::Model).map_or(0, of);
        Self {
            answer,
            spends,
            kind: facts.kind,
            is_task: facts.sdk_span_type.as_deref() == Some("task"),
            says: said.has_tokens() || has_cost(&facts.cost),
        }
    }

    /// Which answer a model call tells of, and in the last 16 bits the scope that tells of it: the same in all releases, in 63
    /// bits, which search servers take; 0 where nobody knows.
    pub fn answer(self, scope: &str) -> u64 {
        let teller = || xxh3_64(scope.as_bytes()) >> (u64::BITS - TELLER_BITS);
        if self.answer == 0 { 0 } else { self.answer << TELLER_BITS | teller() }
    }

    /// Whether it is a model call.
    pub fn is_call(self) -> bool {
        self.kind.counts_usage() && self.spends != Spends::Log
    }

    /// Whether it may be a part of the model call above it.
    pub fn is_step(self) -> bool {
        matches!(self.kind, Kind::Chain | Kind::Custom)
            || (self.is_call() && self.spends == Spends::Other)
    }

    /// Whether a model call below it is another than one above it.
    pub fn is_boundary(self) -> bool {
        self.is_task || matches!(self.kind, Kind::Tool | Kind::Agent | Kind::Handoff)
    }

    /// Whether what the span says counts. An exception is one whose place in its trace says otherwise than its kind.
    pub fn counts(self, is_exception: bool) -> bool {
        match self.spends {
            Spends::Model => !is_exception,
            Spends::Nothing => self.kind.counts_usage(),
            Spends::Log | Spends::Other | Spends::Record => is_exception,
        }
    }

    fn repeats(self, is_exception: bool) -> bool {
        self.says && !self.counts(is_exception)
    }
}

/// The tokens that a span says, its own or those of others. They count where [`Spending::counts`].
pub fn said_of(facts: &Facts) -> &Usage {
    if facts.usage.is_empty() { &facts.aggregate_usage } else { &facts.usage }
}

/// Whether a span repeats what others count, given what is known of its trace: [`Tokens::repeats`] without reading its facts.
pub fn repeats(context: Option<&TraceContext>, span: &Span) -> bool {
    span.spending().repeats(is_exception(context, span))
}

fn is_exception(context: Option<&TraceContext>, span: &Span) -> bool {
    context.is_some_and(|context| context.exceptions.contains(&span.span_id))
}

impl Spends {
    /// What a span with these facts says.
    pub fn of(facts: &Facts) -> Self {
        let has_cost = has_cost(&facts.cost);
        let has_tokens = facts.aggregate_usage.has_tokens();
        // Some clients (Vercel's `ai.generateText`) call a span a generation although it sums up those below it.
        if facts.usage.has_tokens() || (facts.kind.counts_usage() && has_cost && !has_tokens) {
            return Self::Model;
        }
        match facts.sdk_span_type.as_deref() {
            _ if (facts.kind == Kind::Event || facts.adds_up_later) && has_tokens => Self::Log,
            Some("turn") => Self::Nothing,
            Some("subtask") if has_tokens => Self::Record,
            _ if has_tokens || has_cost => Self::Other,
            _ => Self::Nothing,
        }
    }
}

fn has_cost(cost: &Cost) -> bool {
    let amounts = [cost.input, cost.output, cost.total];
    amounts.into_iter().flatten().any(|amount| amount.is_finite() && amount != 0.0)
}

/// Tokens and money of a span: what counts, and what repeats others. Of all that count in a trace each is there once.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Whether what the span says counts.
    pub counts: bool,
    /// Whether it says something that others count.
    pub repeats: bool,
    /// Whether it is a model call that says nothing, and another span says its tokens. Known to sinks that estimate.
    pub is_told: bool,
    /// Tokens that count.
    pub own: &'a Usage,
    /// Tokens that repeat those of other spans.
    pub aggregate: &'a Usage,
    /// What the span says of money. It counts where [`Tokens::counts`].
    pub cost: &'a Cost,
    /// Who says so: `sdk` for the client, or the source of a price; `None` where nobody does.
    pub cost_source: Option<&'a str>,
}

/// The source of a cost that the client reported.
const SAID: &str = "sdk";

impl<'a> Tokens<'a> {
    /// The same tokens with what they cost by a table of prices.
    #[must_use]
    pub fn priced(self, Priced { cost, source }: &'a Priced) -> Self {
        Self { cost, cost_source: Some(source), ..self }
    }

    /// Whether what counts is what the span says of others, since none of these says it itself.
    pub fn speaks_for_others(&self, facts: &Facts) -> bool {
        self.counts && facts.usage.is_empty() && !self.own.is_empty()
    }

    /// What it cost, where that counts.
    pub fn own_cost(&self) -> Cost {
        if self.counts { *self.cost } else { Cost::default() }
    }
}

static NO_TOKENS: LazyLock<Usage> = LazyLock::new(Usage::default);

/// The tokens of a span, given what is known of its trace.
pub fn tokens_of<'a>(context: Option<&TraceContext>, span: &'a Span) -> Tokens<'a> {
    let facts = span.facts();
    let is_exception = is_exception(context, span);
    let spending = span.spending();
    let counts = spending.counts(is_exception);
    let (own, aggregate) = match (counts, facts.usage.is_empty()) {
        (true, true) if is_exception => (&facts.aggregate_usage, &*NO_TOKENS),
        (true, _) => (&facts.usage, &facts.aggregate_usage),
        (false, true) => (&*NO_TOKENS, &facts.aggregate_usage),
        (false, false) => (&*NO_TOKENS, &facts.usage),
    };
    let repeats = spending.repeats(is_exception);
    let is_told = is_exception && spending.spends == Spends::Nothing;
    let cost_source = facts.cost.is_said().then_some(SAID);
    Tokens { counts, repeats, is_told, own, aggregate, cost: &facts.cost, cost_source }
}

/// The contexts of the traces of a delivery.
pub type TraceContexts = Arc<HashMap<TraceId, TraceContext>>;

/// Whether traces without a root of their own get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootSpan {
    /// Agents SDK spans without a parent get a common root, except a task of the Agents SDK that is the only one of its trace: it is a root
    /// by nature.
    #[default]
    Auto,
    /// All Agents SDK spans without a parent get one.
    Always,
    /// None does.
    Never,
}

impl RootSpan {
    /// The span above this one: its parent, or the root that stands for its trace. What is known of the trace decides, so every sink
    /// and every attempt agrees; of a trace that is not known the span alone decides. A task that was sent before its trace needed a
    /// root is sent once more where spans are replaced by id, and stays a root elsewhere.
    pub fn parent_of(self, context: Option<&TraceContext>, span: &Span) -> Option<SpanId> {
        let of_trace = || {
            let root = context?.root.filter(|_| self != Self::Never)?;
            (!span.is_otlp() && !span.is_synthetic()).then_some(root)
        };
        span.parent_id.or_else(of_trace).or_else(|| span.synthetic_root(self))
    }
}

/// Which spans a sink's contexts are gathered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traced {
    /// All spans.
    #[default]
    All,
    /// Spans and trace objects of the Agents SDK; of OTLP only what spans say of tokens, and whatever is read of their traces behind
    /// these. For a sink that passes OTLP spans on as they are: nobody reads their facts then.
    Spending,
}

/// What a sink wants to know of traces, and how long it is ready to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "wishes of their own")]
pub struct TraceNeeds {
    /// Which spans the contexts are gathered from.
    pub traced: Traced,
    /// Whether traces without a root get one.
    pub root: RootSpan,
    /// How long an Agents SDK span waits for its trace object.
    pub context_wait: Duration,
    /// How long a trace must have been quiet before its root is sent.
    pub quiet: Duration,
    /// Whether a span that is sent again takes the place of the one before. Then it is, when what it was sent with turns out wrong.
    pub replaces_by_id: bool,
    /// Whether [`TraceContext::contents`] is wanted for spans that came as OTLP too. Copying what went through their models costs
    /// more than all else that is known of a trace.
    pub contents: bool,
    /// Whether [`TraceContext::agents`] is wanted.
    pub agents: bool,
    /// Whether the sink makes up tokens of model calls over OTLP that say none, unless it is told that another span says them.
    pub estimates: bool,
}

/// The trace object is sent before the spans or at the same time, so one lost turn of the client's export is all there is to wait.
pub const DEFAULT_CONTEXT_WAIT: Duration = Duration::from_secs(2);
/// The SDKs export every 5 s at the latest; twice that has missed an export and is still no nuisance to somebody who looks.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(10);

impl Traced {
    /// Whether the facts of a span are read.
    pub fn reads(self, span: &Span) -> bool {
        self == Self::All || !span.is_otlp()
    }

    /// Whether a span begins to be followed, if only for its tokens.
    pub fn follows(self, span: &Span) -> bool {
        self == Self::All || span.may_spend()
    }
}

impl TraceNeeds {
    /// For a sink that writes each span once, as its trace is known by then: it waits for nothing and gets no roots.
    pub const AS_KNOWN: Self =
        Self { root: RootSpan::Never, context_wait: Duration::ZERO, agents: false, ..Self::USUAL };

    const USUAL: Self = Self {
        traced: Traced::All,
        root: RootSpan::Auto,
        context_wait: DEFAULT_CONTEXT_WAIT,
        quiet: DEFAULT_QUIET,
        replaces_by_id: false,
        contents: false,
        agents: true,
        estimates: false,
    };

    /// Whether what went through the models of this span is wanted: roots that are made here stand for spans of the Agents SDK only.
    pub fn wants_contents_of(&self, span: &Span) -> bool {
        self.contents || (self.root != RootSpan::Never && !span.is_otlp())
    }
}

impl Default for TraceNeeds {
    fn default() -> Self {
        Self::USUAL
    }
}
