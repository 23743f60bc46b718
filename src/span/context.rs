//! What is known of a trace beside the span at hand: facts that arrive apart from the spans they belong to.
//!
//! The Agents SDK sends workflow, group and metadata in an object of their own, an agent's name in a span that ends after its
//! children, and nothing at all when a trace is over. OTLP says session and user on some spans only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Payload, Span, SpanId, Text, TraceId, TraceObject, Usage};

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
    /// Tokens of all model calls, each counted once.
    pub usage: Usage,
    /// Whether a model call said how many tokens it took. Where none did, the outermost task speaks for all.
    pub has_model_usage: bool,
    /// What went into the first model call; cut off where it is long.
    pub input: Option<Payload>,
    /// What came out of the last one; cut off where it is long.
    pub output: Option<Payload>,
}

/// The contexts of the traces of a delivery.
pub type TraceContexts = Arc<HashMap<TraceId, TraceContext>>;

/// Whether traces without a root of their own get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RootSpan {
    /// Native spans without a parent get a common root, except those that are a root by nature: tasks of the Agents SDK.
    #[default]
    Auto,
    /// All native spans without a parent get one.
    Always,
    /// None does.
    Never,
}

impl RootSpan {
    /// The span above this one: its parent, or the root that stands for its trace. Decided from the span alone, so that every sink
    /// and every attempt agrees.
    pub fn parent_of(self, span: &Span) -> Option<SpanId> {
        span.parent_id.or_else(|| span.synthetic_root(self))
    }
}

/// Which spans a sink's contexts are gathered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traced {
    /// All spans.
    #[default]
    All,
    /// Spans and trace objects of the Agents SDK. For a sink that passes OTLP spans on as they are: nobody reads their facts then.
    Native,
}

/// What a sink wants to know of traces, and how long it is ready to wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceNeeds {
    /// Which spans the contexts are gathered from.
    pub traced: Traced,
    /// Whether traces without a root get one.
    pub root: RootSpan,
    /// How long a native span waits for its trace object.
    pub context_wait: Duration,
    /// How long a trace must have been quiet before its root is sent.
    pub quiet: Duration,
}

/// The trace object is sent before the spans or at the same time, so one lost turn of the client's export is all there is to wait.
pub const DEFAULT_CONTEXT_WAIT: Duration = Duration::from_secs(2);
/// The SDKs export every 5 s at the latest; twice that has missed an export and is still no nuisance to somebody who looks.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(10);

impl Default for TraceNeeds {
    fn default() -> Self {
        Self {
            traced: Traced::default(),
            root: RootSpan::default(),
            context_wait: DEFAULT_CONTEXT_WAIT,
            quiet: DEFAULT_QUIET,
        }
    }
}
