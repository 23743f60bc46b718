//! The one noun: a [`Span`], wide enough for OTLP and for the Agents SDK, and cheap enough for the hot path.
//!
//! On arrival only what is needed to answer the client is read: ids, times and the slice of the request body that is the span.
//! [`Detail`] (everything OTLP knows) and [`Facts`] (what agents, models and tools did) are read from that slice the first
//! time a sink asks, once for all sinks. This folder holds the words only; how a wire format is read is in `normalize`.

mod ids;
mod value;
mod facts;
mod context;
mod tree;
mod landmarks;
mod sdk_request;
pub mod keys;
pub mod plain;
pub mod otlp;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use memchr::memmem::Finder;

pub use context::{
    Content, DEFAULT_CONTEXT_WAIT, DEFAULT_QUIET, RootSpan, Spending, Spends, Tokens, TraceContext,
    TraceContexts, TraceNeeds, Traced, repeats, said_of, tokens_of,
};
pub(crate) use facts::named;
pub use facts::{Convention, Cost, Facts, Failure, Kind, Notes, Priced, Score, Usage};
pub use ids::{SpanId, TraceId};
pub use landmarks::{Landmarks, Opened};
pub use sdk_request::{sdk_request, sdk_requests};
pub use tree::{Found, News, Own, Spent, Tree};
pub use value::{Attribute, Payload, Text, Value, payload, payloads, share};

/// What one request brought, in the order the client sent it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who sent it, when and how.
    pub source: Source,
    /// The spans and trace objects.
    pub items: Vec<Item>,
    /// Memory this batch keeps alive, in bytes: the request body and the spans.
    pub bytes: usize,
}

/// Attributes that the detail of an item of the Agents SDK has room for, about.
const SDK_ATTRIBUTES: usize = 16;

impl Batch {
    /// Memory that this batch keeps alive once its spans have been read, in bytes: what was read is kept with them. The detail of an
    /// OTLP span is slices of its wire, with attributes that are counted already; that of an item of the Agents SDK says it all once
    /// more in OTLP's words. `feed/tail.rs` compares this with what the system counts.
    pub fn bytes_when_read(&self) -> usize {
        let read = self.items.len() * (size_of::<Facts>() + size_of::<Detail>());
        let said_again = match self.source.receiver {
            Receiver::OpenAi => {
                let head_and_attributes =
                    size_of::<Detail>() + SDK_ATTRIBUTES * size_of::<Attribute>();
                self.bytes + self.items.len() * head_and_attributes
            }
            Receiver::OtlpHttp | Receiver::OtlpGrpc | Receiver::Kafka => 0,
        };
        self.bytes + read + said_again
    }

    /// The batch's spans.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.items.iter().filter_map(Item::as_span)
    }
}

/// One item of a request.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all items are spans")]
pub enum Item {
    /// A span.
    Span(Span),
    /// The Agents SDK's trace object, which belongs to no span.
    Trace(Arc<TraceObject>),
}

impl Item {
    /// The span, if it is one.
    pub fn as_span(&self) -> Option<&Span> {
        match self {
            Self::Span(span) => Some(span),
            Self::Trace(_) => None,
        }
    }

    /// The trace it belongs to.
    pub fn trace_id(&self) -> TraceId {
        match self {
            Self::Span(span) => span.trace_id,
            Self::Trace(trace) => trace.trace_id,
        }
    }

    /// The slice of the request that is the item.
    pub fn wire(&self) -> &Bytes {
        match self {
            Self::Span(span) => &span.wire,
            Self::Trace(trace) => &trace.wire,
        }
    }
}

/// Which receiver a request came through. The numbers are those of `record.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Receiver {
    /// `POST /v1/traces/ingest`.
    OpenAi = 1,
    /// OTLP over HTTP.
    OtlpHttp = 2,
    /// OTLP over gRPC.
    OtlpGrpc = 3,
    /// OTLP from a topic of Kafka.
    Kafka = 4,
}

impl Receiver {
    /// The receiver's name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::OtlpHttp => "otlp_http",
            Self::OtlpGrpc => "otlp_grpc",
            Self::Kafka => "kafka",
        }
    }
}

/// The header of a request that is for one sink, with its name. Whoever may send may say so: it keeps nothing from a sink that not sending
/// it would not.
pub const ONLY_SINK_HEADER: &str = "spanferry-sink";

/// Who sent a request, when and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The receiver it came through.
    pub receiver: Receiver,
    /// When it arrived, in nanoseconds since 1970.
    pub received_at_ns: u64,
    /// The client's tenant; empty where there is only one.
    pub tenant: String,
    /// First 16 hexadecimal digits of the SHA-256 of the client's key; empty without one. Never the key itself.
    pub key_fingerprint: String,
    /// Headers that matter later, names in lowercase: `user-agent`, `openai-organization`, `openai-project`, `openai-beta`, `spanferry-sender`,
    /// `spanferry-sink`. Never a credential.
    pub headers: Vec<(String, String)>,
}

impl Source {
    /// The source of something whose envelope is lost.
    pub fn unknown() -> Self {
        Self {
            receiver: Receiver::OtlpHttp,
            received_at_ns: 0,
            tenant: String::new(),
            key_fingerprint: String::new(),
            headers: Vec::new(),
        }
    }

    /// The only sink that a request is for, where it is for one.
    pub fn only_sink(&self) -> Option<&str> {
        self.header(ONLY_SINK_HEADER)
    }

    /// The value of a kept header, by its lowercase name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The Agents SDK's `object: "trace"`: facts of a trace, sent when it starts and only then. It has no times.
#[derive(Debug, PartialEq)]
pub struct TraceObject {
    /// The trace.
    pub trace_id: TraceId,
    /// The id as the client wrote it.
    pub sdk_id: Text,
    /// The workflow's name.
    pub workflow: Option<Text>,
    /// The conversation or group.
    pub group: Option<Text>,
    /// Free facts: a JSON object as text.
    pub metadata: Option<Text>,
    /// The item as JSON text.
    pub wire: Bytes,
}

/// One span. Ids and times are read on arrival; the rest on demand. A clone shares what was read.
#[derive(Clone)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The span above it, if any.
    pub parent_id: Option<SpanId>,
    /// When it started, in nanoseconds since 1970; 0 when not said.
    pub start_ns: u64,
    /// When it ended, in nanoseconds since 1970; 0 when not said. It may precede the start.
    pub end_ns: u64,
    /// The slice of the request that is the span: an OTLP `Span` message in protobuf, or an ingest item as JSON.
    pub wire: Bytes,
    /// The instrumentation scope and resource it was sent under.
    pub scope: Arc<Scope>,
    /// The trace object of the same request, if there was one.
    pub trace: Option<Arc<TraceObject>>,
    landmarks: Landmarks,
    format: &'static dyn Format,
    spending: OnceLock<Spending>,
    detail: OnceLock<Arc<Detail>>,
    facts: OnceLock<Arc<Said>>,
    brief_facts: OnceLock<Arc<Facts>>,
    priced: OnceLock<Option<Arc<Priced>>>,
}

/// What is read of a span in one go.
#[derive(Debug, Default)]
pub struct Said {
    /// What agents, models and tools did.
    pub facts: Facts,
    /// All of the detail but attributes, events and links; `None` where the whole of it is as quick to read.
    pub head: Option<Box<Detail>>,
}

/// What is known of a span when it is made.
#[derive(Debug, Clone)]
pub struct Outline {
    /// See [`Span::trace_id`].
    pub trace_id: TraceId,
    /// See [`Span::span_id`].
    pub span_id: SpanId,
    /// See [`Span::parent_id`].
    pub parent_id: Option<SpanId>,
    /// See [`Span::start_ns`].
    pub start_ns: u64,
    /// See [`Span::end_ns`].
    pub end_ns: u64,
    /// See [`Span::wire`].
    pub wire: Bytes,
}

/// How the spans of one wire format are read. One implementation per format, in `normalize`.
///
/// Both readers are total: the arrival has checked that the slice can be walked, and what still cannot be understood is left out.
pub trait Format: Sync {
    /// Whether the slice is an OTLP `Span` message, which a sink may pass on as it is.
    fn is_otlp(&self) -> bool;
    /// Everything OTLP knows of a span.
    fn detail(&self, span: &Span) -> Detail;
    /// [`Format::detail`], but [`Facts::input`] and [`Facts::output`] need not be among its attributes as well, where putting them
    /// into its words takes long.
    fn brief_detail(&self, span: &Span) -> Detail {
        self.detail(span)
    }
    /// What agents, models and tools did, and what was met on the way.
    fn said(&self, span: &Span) -> Said;
    /// The facts for who sums up: contents, and what is in no sum, may be missing.
    fn brief_facts(&self, span: &Span) -> Facts {
        self.said(span).facts
    }
    /// The root that stands for the trace of a span without a parent; `None` where the span needs none under this rule.
    fn synthetic_root(&self, _span: &Span, _rule: RootSpan) -> Option<SpanId> {
        None
    }
    /// Whether nobody sent such a span, but it was made here.
    fn is_synthetic(&self) -> bool {
        false
    }
}

/// Spans that were made here: all there is to know of them was said when they were made.
#[derive(Debug)]
struct Synthetic;

impl Format for Synthetic {
    fn is_otlp(&self) -> bool {
        false
    }

    fn detail(&self, _span: &Span) -> Detail {
        Detail::default()
    }

    fn said(&self, _span: &Span) -> Said {
        Said::default()
    }

    fn is_synthetic(&self) -> bool {
        true
    }
}

impl Span {
    /// A span of which nothing but the outline has been read yet.
    pub fn new(
        outline: Outline,
        scope: Arc<Scope>,
        trace: Option<Arc<TraceObject>>,
        format: &'static dyn Format,
    ) -> Self {
        let Outline { trace_id, span_id, parent_id, start_ns, end_ns, wire } = outline;
        Self {
            trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            wire,
            scope,
            trace,
            landmarks: Landmarks::default(),
            format,
            spending: OnceLock::new(),
            detail: OnceLock::new(),
            facts: OnceLock::new(),
            brief_facts: OnceLock::new(),
            priced: OnceLock::new(),
        }
    }

    /// The span, with what was found in its wire on arrival.
    #[must_use]
    pub fn with_landmarks(self, landmarks: Landmarks) -> Self {
        Self { landmarks, ..self }
    }

    /// The span with another trace object, or none. What it says is read anew.
    #[must_use]
    pub fn with_trace(&self, trace: Option<Arc<TraceObject>>) -> Self {
        let (detail, facts, brief_facts) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { trace, detail, facts, brief_facts, ..self.clone() }
    }

    /// What was found in [`Span::wire`] on arrival.
    pub fn landmarks(&self) -> &Landmarks {
        &self.landmarks
    }

    /// A span that nobody sent: all of it is said here.
    pub fn synthetic(outline: Outline, scope: Arc<Scope>, detail: Detail, facts: Facts) -> Self {
        Self {
            detail: OnceLock::from(Arc::new(detail)),
            facts: OnceLock::from(Arc::new(Said { facts, head: None })),
            ..Self::new(outline, scope, None, &Synthetic)
        }
    }

    /// Whether nobody sent the span: it is the root that stands for a trace. It is no item that was accepted.
    pub fn is_synthetic(&self) -> bool {
        self.format.is_synthetic()
    }

    /// Everything OTLP knows of the span, read the first time it is asked for.
    pub fn detail(&self) -> &Detail {
        self.detail.get_or_init(|| Arc::new(self.format.detail(self)))
    }

    /// The detail for who takes what went in and came out from the facts: the attributes that say these in other words may be
    /// missing. It is read anew each time, unless the whole detail is known or is as quick to read.
    pub fn brief_detail(&self) -> Cow<'_, Detail> {
        match self.detail.get() {
            None if !self.is_otlp() => Cow::Owned(self.format.brief_detail(self)),
            _ => Cow::Borrowed(self.detail()),
        }
    }

    /// The detail for who looks at its attributes, events and links only where [`Span::is_otlp`]: elsewhere they may be missing. It is
    /// read together with the facts.
    pub fn head(&self) -> &Detail {
        match self.detail.get() {
            Some(detail) => detail,
            None => self.said().head.as_deref().unwrap_or_else(|| self.detail()),
        }
    }

    /// The span's agent facts, read the first time they are asked for.
    pub fn facts(&self) -> &Facts {
        &self.said().facts
    }

    fn said(&self) -> &Said {
        self.facts.get_or_init(|| Arc::new(self.format.said(self)))
    }

    /// The facts for who only sums up: those of [`Span::facts`] where somebody has read them. Else contents, and what is in no sum, may be
    /// missing.
    pub fn brief_facts(&self) -> &Facts {
        match self.facts.get() {
            Some(said) => &said.facts,
            None => self.brief_facts.get_or_init(|| Arc::new(self.format.brief_facts(self))),
        }
    }

    /// What the span cost by a table of prices, as it was when it was first asked.
    pub fn priced(&self, price: impl FnOnce() -> Option<Priced>) -> Option<&Priced> {
        self.priced.get_or_init(|| price().map(Arc::new)).as_deref()
    }

    /// What the span says of tokens.
    pub fn spending(&self) -> Spending {
        *self.spending.get_or_init(|| Spending::of(self.brief_facts()))
    }

    /// Whether [`Span::wire`] is an OTLP `Span` message.
    pub fn is_otlp(&self) -> bool {
        self.format.is_otlp()
    }

    /// Whether the span may say something of tokens or money. Where it says no, nobody has to read its facts to know that it does
    /// not, which would cost a sink that passes OTLP on more than all the rest.
    pub fn may_spend(&self) -> bool {
        !self.is_otlp() || SPENDING_WORDS.iter().any(|word| word.find(&self.wire).is_some())
    }

    /// The root that stands for the span's trace, where this rule gives it one. It does not ask whether the span has a parent.
    pub fn synthetic_root(&self, rule: RootSpan) -> Option<SpanId> {
        self.format.synthetic_root(self, rule)
    }

    /// How long it took, in nanoseconds; 0 where a time is missing or the end precedes the start.
    pub fn duration_ns(&self) -> u64 {
        if self.start_ns == 0 { 0 } else { self.end_ns.saturating_sub(self.start_ns) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload stays out of whatever this is printed to.
        write!(out, "Span({} {}, {} bytes)", self.trace_id, self.span_id, self.wire.len())
    }
}

static SPENDING_WORDS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| keys::SPENDING_WORDS.map(Finder::new));

/// What a span was sent under: OTLP's resource and instrumentation scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    /// The entity that made the span.
    pub resource: Arc<Resource>,
    /// The instrumentation's name.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// How many attributes the client left out.
    pub dropped_attributes_count: u32,
    /// The schema of the scope and its spans.
    pub schema_url: Text,
    /// The `InstrumentationScope` message as sent, unknown fields included; empty where there was none.
    pub wire: Bytes,
}

/// The entity that made spans.
#[derive(Debug, Default, PartialEq)]
pub struct Resource {
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// How many attributes the client left out.
    pub dropped_attributes_count: u32,
    /// The schema of the resource.
    pub schema_url: Text,
    /// The `Resource` message as sent, unknown fields included; empty where there was none.
    pub wire: Bytes,
}

/// The client's own ids, where they are not OpenTelemetry's.
#[derive(Debug, Clone, PartialEq)]
pub struct SdkIds {
    /// The trace's id.
    pub trace: Text,
    /// The span's id.
    pub span: Text,
    /// The parent's id.
    pub parent: Option<Text>,
}

/// OTLP's status code of a span that went well.
pub const STATUS_OK: i32 = 1;
/// OTLP's status code of a span that failed.
pub const STATUS_ERROR: i32 = 2;

impl Resource {
    /// The name of the service that made the spans.
    pub fn service_name(&self) -> Option<&Text> {
        Attribute::last(&self.attributes, keys::SERVICE_NAME)?.as_text()
    }
}

/// Everything OTLP knows of a span beside its ids and times. Agents SDK items are mapped to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Detail {
    /// The span's name.
    pub name: Text,
    /// OTLP's `SpanKind` number: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer. Others are kept.
    pub kind: i32,
    /// OTLP's status code: 0 unset, 1 ok, 2 error. Others are kept.
    pub status_code: i32,
    /// The status message.
    pub status_message: Text,
    /// The W3C trace state.
    pub trace_state: Text,
    /// W3C flags and OTLP's own bits above them.
    pub flags: u32,
    /// The attributes as sent, in order.
    pub attributes: Vec<Attribute>,
    /// How many attributes the client left out.
    pub dropped_attributes_count: u32,
    /// Things that happened during the span.
    pub events: Vec<SpanEvent>,
    /// How many events the client left out.
    pub dropped_events_count: u32,
    /// Spans of this or other traces that belong to it.
    pub links: Vec<Link>,
    /// How many links the client left out.
    pub dropped_links_count: u32,
    /// The client's own ids, where they are not OpenTelemetry's.
    pub agents_sdk: Option<SdkIds>,
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanEvent {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// What.
    pub name: Text,
    /// More about it.
    pub attributes: Vec<Attribute>,
    /// How many attributes the client left out.
    pub dropped_attributes_count: u32,
}

/// A pointer to another span. Links with ids that are none are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// Its W3C trace state.
    pub trace_state: Text,
    /// More about the link.
    pub attributes: Vec<Attribute>,
    /// How many attributes the client left out.
    pub dropped_attributes_count: u32,
    /// W3C flags and OTLP's own bits above them.
    pub flags: u32,
}
