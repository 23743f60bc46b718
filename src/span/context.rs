//! The trace context: facts that arrive separately from the spans they belong to.
//!
//! The Agents SDK sends workflow, group and metadata in a separate object, and an agent's name in a span that ends after its children. It
//! sends nothing when a trace is over. OTLP has session and user only on some spans.
//!
//! # Whose tokens count
//!
//! Many spans repeat what others report, so each call must count once among all spans with tokens or costs in a trace. The tree of spans
//! decides ([`Spends`] has the rule), and the tree may arrive in any order and in many requests. So:
//!
//! * [`super::Tree`] decides, for all sinks alike, in the lane's own table, when a delivery begins; all its attempts agree.
//!   [`TraceContext::exceptions`] has the decisions and [`tokens_of`] applies them. No sink decides by itself.
//! * JSON lines and OTLP backends accept a span once. The decision at the time of delivery is final there: if a parent is sent before its
//!   child, both count. Children end first, so this is rare: it requires two processes.
//! * Langfuse and Elasticsearch replace by id: a span whose decision changed after it was sent is sent again.
//! * Without a context (the trace was too old, or there were too many) the kind alone decides.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Cost, Facts, Kind, Payload, Priced, Span, SpanId, Text, TraceId, TraceObject, Usage};

/// The facts of a trace at one moment. Unknown facts are `None`, empty or 0.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceContext {
    /// The trace object, once it was seen. Its `wire` is empty: a context keeps no request alive.
    pub trace: Option<Arc<TraceObject>>,
    /// The workflow or trace name; the first one reported.
    pub workflow: Option<Text>,
    /// The conversation or group; the first one reported.
    pub session: Option<Text>,
    /// The end user; the first one reported.
    pub user: Option<Text>,
    /// The deployment environment; the first one reported.
    pub environment: Option<Text>,
    /// The application's release; the first one reported.
    pub release: Option<Text>,
    /// Labels of all spans, each once.
    pub tags: Vec<Text>,
    /// The trace object's metadata, in its order.
    pub metadata: Vec<(Text, Payload)>,
    /// The nearest agent at or above each requested span.
    pub agents: HashMap<SpanId, Text>,
    /// The earliest start, in nanoseconds since 1970.
    pub start_ns: u64,
    /// The latest end, in nanoseconds since 1970.
    pub end_ns: u64,
    /// The requested spans whose tokens and cost are decided differently than by their kind alone: model calls that repeat another, and
    /// other spans that count. See [`tokens_of`]. For a sink that estimates ([`TraceNeeds::estimates`]), also model calls without tokens
    /// whose tokens another span reports.
    pub exceptions: HashSet<SpanId>,
    /// The synthetic root of the trace, if it needs one; see [`RootSpan`].
    pub root: Option<SpanId>,
    /// The input of the first model call and the output of the last below each requested span without a parent.
    pub contents: HashMap<SpanId, Content>,
}

/// Input and output, truncated if they are long.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// The first input.
    pub input: Option<Payload>,
    /// The last output.
    pub output: Option<Payload>,
}

/// How a span reports tokens or costs, as far as needed to count nothing twice. A span that reports some *spends*.
///
/// * A model call counts, unless a model call below it spends, which it then repeats. With a tool, an agent, a handoff or an Agents SDK
///   task between them, both are separate calls. If several instrumentations report the same answer, one of them counts.
/// * A log counts, unless it is directly below a model call that counts, or there are sibling model calls (below the same parent) and each
///   of them spends: then it repeats one of them.
/// * The same applies to a call whose tokens the next sibling adds to its own (Spring AI 1), as long as that is not there.
/// * Any other span counts if no model call or log below it spends, unless another such span above it counts: the outermost one does. But a
///   step (a chain, a span of unknown kind, a call with the tokens of others) never counts as a part of a call that spends (Axiom), nor
///   does a record of a sibling tool or agent (AG2) if a model call or log below that sibling spends.
///
/// A span's cost counts if its tokens do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spends {
    /// Nothing that could count. This includes a `turn` of the Agents SDK, because its task reports the same.
    #[default]
    Nothing,
    /// A model call with its own tokens or cost, or an agent with those of its own calls.
    Model,
    /// Tokens that a sibling model call repeats: an event with tokens (Logfire reports those of a streamed call in a log record next to the
    /// call), or a call whose tokens the next one adds to its own.
    Log,
    /// A task, an agent, a remote agent, a chain ...: it sums up what is below it, and is the only source if nothing below reports any.
    Other,
    /// A sum of a sibling's calls.
    Record,
}

/// The data of a span that decides whose tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spending {
    /// How it reports tokens and costs.
    pub spends: Spends,
    /// The kind of work.
    pub kind: Kind,
    /// Whether it is a task of the Agents SDK.
    pub is_task: bool,
    /// Whether it reports any tokens or costs, its own or those of others.
    says: bool,
    /// Identifies the answer of a model call that spends, see [`Spending::answer`]; 0 if unknown.
    answer: u64,
}

/// See [`Spending::answer`].
pub(super) const TELLER_BITS: u32 = 16;

impl Spending {
    /// Derives it from the facts of a span.
    pub fn of(facts: &Facts) -> Self {
        let (said, spends) = (said_of(facts), Spends::of(facts));
        // Ids alone are not unique: Ollama draws one of 999.
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

    /// Returns an identifier of a model call's answer, with the scope that reports it in the last 16 bits. It is the same in all releases
    /// and has 63 bits, which search servers accept; 0 if unknown.
    pub fn answer(self, scope: &str) -> u64 {
        let teller = || xxh3_64(scope.as_bytes()) >> (u64::BITS - TELLER_BITS);
        if self.answer == 0 { 0 } else { self.answer << TELLER_BITS | teller() }
    }

    /// Returns whether it is a model call.
    pub fn is_call(self) -> bool {
        self.kind.counts_usage() && self.spends != Spends::Log
    }

    /// Returns whether it may be a part of the model call above it.
    pub fn is_step(self) -> bool {
        matches!(self.kind, Kind::Chain | Kind::Custom)
            || (self.is_call() && self.spends == Spends::Other)
    }

    /// Returns whether model calls above and below it are separate.
    pub fn is_boundary(self) -> bool {
        self.is_task || matches!(self.kind, Kind::Tool | Kind::Agent | Kind::Handoff)
    }

    /// Returns whether the tokens and cost of the span count. An exception is a span whose place in its trace overrides its kind.
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

/// Returns the tokens that a span reports, its own or those of others. They count if [`Spending::counts`].
pub fn said_of(facts: &Facts) -> &Usage {
    if facts.usage.is_empty() { &facts.aggregate_usage } else { &facts.usage }
}

/// Returns whether a span repeats what others count, given its trace context: [`Tokens::repeats`] without reading its facts.
pub fn repeats(context: Option<&TraceContext>, span: &Span) -> bool {
    span.spending().repeats(is_exception(context, span))
}

fn is_exception(context: Option<&TraceContext>, span: &Span) -> bool {
    context.is_some_and(|context| context.exceptions.contains(&span.span_id))
}

impl Spends {
    /// Derives it from the facts of a span.
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

/// Tokens and cost of a span: those that count, and those that repeat others. Among all that count in a trace, each appears once.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Whether the tokens and cost of the span count.
    pub counts: bool,
    /// Whether it reports something that others count.
    pub repeats: bool,
    /// Whether it is a model call without tokens whose tokens another span reports. Known only to sinks that estimate.
    pub is_told: bool,
    /// Tokens that count.
    pub own: &'a Usage,
    /// Tokens that repeat those of other spans.
    pub aggregate: &'a Usage,
    /// The reported cost. It counts if [`Tokens::counts`].
    pub cost: &'a Cost,
    /// Source of the cost: `sdk` for the client, or the source of a price; `None` if there is no cost.
    pub cost_source: Option<&'a str>,
}

/// The source of a cost that the client reported.
const SAID: &str = "sdk";

impl<'a> Tokens<'a> {
    /// Replaces the cost by that of a price table.
    #[must_use]
    pub fn priced(self, Priced { cost, source }: &'a Priced) -> Self {
        Self { cost, cost_source: Some(source), ..self }
    }

    /// Returns whether the counted tokens are those of other spans, because none of these reports them itself.
    pub fn speaks_for_others(&self, facts: &Facts) -> bool {
        self.counts && facts.usage.is_empty() && !self.own.is_empty()
    }

    /// Returns the cost if it counts.
    pub fn own_cost(&self) -> Cost {
        if self.counts { *self.cost } else { Cost::default() }
    }
}

static NO_TOKENS: LazyLock<Usage> = LazyLock::new(Usage::default);

/// Returns the tokens of a span, given its trace context.
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
    /// Returns the parent of a span: its own, or the synthetic root of its trace. The trace context decides, so all sinks and attempts
    /// agree; without one, the span alone decides. A task that was sent before its trace needed a root is sent again if spans are replaced
    /// by id, and stays a root elsewhere.
    pub fn parent_of(self, context: Option<&TraceContext>, span: &Span) -> Option<SpanId> {
        let of_trace = || {
            let root = context?.root.filter(|_| self != Self::Never)?;
            (!span.is_otlp() && !span.is_synthetic()).then_some(root)
        };
        span.parent_id.or_else(of_trace).or_else(|| span.synthetic_root(self))
    }
}

/// The spans from which a sink's contexts are collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traced {
    /// All spans.
    #[default]
    All,
    /// Spans and trace objects of the Agents SDK; of OTLP only the tokens of spans, and later spans of these traces. For a sink that passes
    /// OTLP spans on unchanged, so that their facts are not read.
    Spending,
}

/// What a sink needs from traces, and how long it is willing to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "wishes of their own")]
pub struct TraceNeeds {
    /// The spans from which contexts are collected.
    pub traced: Traced,
    /// Whether traces without a root get one.
    pub root: RootSpan,
    /// How long an Agents SDK span waits for its trace object.
    pub context_wait: Duration,
    /// How long a trace must be quiet before its root is sent.
    pub quiet: Duration,
    /// Whether a span that is sent again replaces the earlier one. If so, it is sent again when its context proves wrong.
    pub replaces_by_id: bool,
    /// Whether [`TraceContext::contents`] is also needed for OTLP spans. Copying the contents of their model calls costs more than the rest
    /// of the context.
    pub contents: bool,
    /// Whether [`TraceContext::agents`] is needed.
    pub agents: bool,
    /// Whether the sink estimates tokens of OTLP model calls that report none, unless it is told that another span reports them.
    pub estimates: bool,
}

/// The trace object is sent before the spans or at the same time, so the wait only needs to cover one lost export of the client.
pub const DEFAULT_CONTEXT_WAIT: Duration = Duration::from_secs(2);
/// The SDKs export every 5 s at the latest; twice that covers a missed export and is still acceptable to a person who watches.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(10);

impl Traced {
    /// Returns whether the facts of a span are read.
    pub fn reads(self, span: &Span) -> bool {
        self == Self::All || !span.is_otlp()
    }

    /// Returns whether a span starts to be followed, if only for its tokens.
    pub fn follows(self, span: &Span) -> bool {
        self == Self::All || span.may_spend()
    }
}

impl TraceNeeds {
    /// The needs of a sink that writes each span once, with the context known by then: it waits for nothing and gets no roots.
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

    /// Returns whether the contents of this span's model calls are needed: synthetic roots only stand for Agents SDK spans.
    pub fn wants_contents_of(&self, span: &Span) -> bool {
        self.contents || (self.root != RootSpan::Never && !span.is_otlp())
    }
}

impl Default for TraceNeeds {
    fn default() -> Self {
        Self::USUAL
    }
}
