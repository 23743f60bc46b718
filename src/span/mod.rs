//! [`Span`], the central data type: wide enough for OTLP and the Agents SDK, and cheap enough for the hot path.
//!
//! On arrival only the data needed to answer the client is read: ids, times and the slice of the request body with the span. [`Detail`]
//! (everything in OTLP) and [`Facts`] (what agents, models and tools did) are read from that slice when a sink first asks, once for all
//! sinks. This folder only defines types; `normalize` reads the wire formats.

mod ids;
mod value;
mod facts;
mod context;
mod tree;
mod value_offsets;
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
pub use facts::{Convention, Cost, Facts, Kind, Notes, Priced, Score, SpanError, Usage};
pub use ids::{SpanId, TraceId};
pub use sdk_request::{sdk_request, sdk_requests};
pub use tree::{AncestorCache, News, Own, Spent, Tree};
pub use value::{Attribute, Payload, Text, Value, payload, payloads, share, tags};
pub use value_offsets::{Opened, ValueOffsets};

/// The items of one request, in the order in which the client sent them.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its sender, time and receiver.
    pub source: Source,
    /// The spans and trace objects.
    pub items: Vec<Item>,
    /// Memory that this batch keeps alive, in bytes: the request body and the spans.
    pub bytes: usize,
}

/// Approximate number of attributes in the detail of an Agents SDK item.
const SDK_ATTRIBUTES: usize = 16;

impl Batch {
    /// Returns the memory that this batch keeps alive once its spans have been read, in bytes, including what was read. The detail of an
    /// OTLP span consists of slices of its wire format, with attributes that are already counted; that of an Agents SDK item repeats
    /// everything in OTLP's terms. A test in `feed/tail.rs` compares this with what the system counts.
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

    /// Returns the batch's spans.
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
    /// Returns the span, if it is one.
    pub fn as_span(&self) -> Option<&Span> {
        match self {
            Self::Span(span) => Some(span),
            Self::Trace(_) => None,
        }
    }

    /// Returns the trace it belongs to.
    pub fn trace_id(&self) -> TraceId {
        match self {
            Self::Span(span) => span.trace_id,
            Self::Trace(trace) => trace.trace_id,
        }
    }

    /// Returns the slice of the request with the item.
    pub fn wire(&self) -> &Bytes {
        match self {
            Self::Span(span) => &span.wire,
            Self::Trace(trace) => &trace.wire,
        }
    }
}

named! {
    /// The receiver of a request, named as in metrics and logs. The numbers are those in `record.proto`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
    #[repr(i32)]
    Receiver {
        /// `POST /v1/traces/ingest`.
        OpenAi "openai" = 1,
        /// OTLP over HTTP.
        OtlpHttp "otlp_http" = 2,
        /// OTLP over gRPC.
        OtlpGrpc "otlp_grpc" = 3,
        /// OTLP from a Kafka topic.
        Kafka "kafka" = 4,
    }
}

/// The header that names the only sink of a request. Any client that may send may set it: it withholds nothing from a sink that not sending
/// would not.
pub const ONLY_SINK_HEADER: &str = "spanferry-sink";

/// The sender, time and receiver of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The receiver it came through.
    pub receiver: Receiver,
    /// Arrival time, in nanoseconds since 1970.
    pub received_at_ns: u64,
    /// The client's tenant; empty if there is only one.
    pub tenant: String,
    /// First 16 hexadecimal digits of the SHA-256 of the client's key; empty without a key. Never the key itself.
    pub key_fingerprint: String,
    /// Stored headers, names in lowercase: `user-agent`, `openai-organization`, `openai-project`, `openai-beta`, `spanferry-sender`,
    /// `spanferry-sink`. Never a credential.
    pub headers: Vec<(String, String)>,
}

impl Source {
    /// Returns the source of a record whose envelope is lost.
    pub fn unknown() -> Self {
        Self {
            receiver: Receiver::OtlpHttp,
            received_at_ns: 0,
            tenant: String::new(),
            key_fingerprint: String::new(),
            headers: Vec::new(),
        }
    }

    /// Returns the only sink that a request is for, if it names one.
    pub fn only_sink(&self) -> Option<&str> {
        self.header(ONLY_SINK_HEADER)
    }

    /// Returns the value of a stored header, by its lowercase name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The Agents SDK's `object: "trace"`: facts of a trace, sent only when it starts. It has no times.
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
    /// Arbitrary metadata: a JSON object as text.
    pub metadata: Option<Text>,
    /// The item as JSON text.
    pub wire: Bytes,
}

/// One span. Ids and times are read on arrival, the rest on demand. Clones share what was read.
#[derive(Clone)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The parent span, if any.
    pub parent_id: Option<SpanId>,
    /// Start time, in nanoseconds since 1970; 0 if unknown.
    pub start_ns: u64,
    /// End time, in nanoseconds since 1970; 0 if unknown. It may precede the start.
    pub end_ns: u64,
    /// The slice of the request with the span: an OTLP `Span` message in protobuf, or an ingest item as JSON.
    pub wire: Bytes,
    /// Its instrumentation scope and resource.
    pub scope: Arc<Scope>,
    /// The trace object of the same request, if there was one.
    pub trace: Option<Arc<TraceObject>>,
    value_offsets: ValueOffsets,
    format: &'static dyn Format,
    spending: OnceLock<Spending>,
    detail: OnceLock<Arc<Detail>>,
    facts: OnceLock<Arc<SpanReading>>,
    brief_facts: OnceLock<Arc<SpanReading>>,
    priced: OnceLock<Option<Arc<Priced>>>,
}

/// The parts of a span that are read in one pass.
#[derive(Debug, Default)]
pub struct SpanReading {
    /// The facts about agents, models and tools.
    pub facts: Facts,
    /// The detail, complete for an OTLP span, without attributes, events and links for another; `None` if it was known before.
    pub head: Option<Detail>,
}

impl SpanReading {
    /// Creates a reading that is filled where it stays: facts are large, and moving them costs as much as finding them.
    fn by(fill: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut reading = Arc::default();
        if let Some(reading) = Arc::get_mut(&mut reading) {
            fill(reading);
        }
        reading
    }
}

/// The ids, times and bytes of a new span.
#[derive(Debug, Clone)]
pub struct SpanHeader {
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

/// A reader of the spans of one wire format. `normalize` has one implementation per format.
///
/// All readers are infallible: it was checked on arrival that the slice can be traversed, and invalid parts are skipped.
pub trait Format: Sync {
    /// Returns whether the slice is an OTLP `Span` message, which a sink may pass on unchanged.
    fn is_otlp(&self) -> bool;
    /// Reads everything that OTLP defines for a span.
    fn detail(&self, span: &Span) -> Detail;
    /// Like [`Format::detail`], but the attributes may omit [`Facts::input`] and [`Facts::output`] if converting them takes long.
    fn brief_detail(&self, span: &Span) -> Detail {
        self.detail(span)
    }
    /// Reads what agents, models and tools did, and what else is found in the same pass, into an empty reading.
    fn said(&self, span: &Span, reading: &mut SpanReading);
    /// Reads the facts for sums in the same way: contents and other facts that are not summed may be missing.
    fn brief_facts(&self, span: &Span, reading: &mut SpanReading) {
        self.said(span, reading);
    }
    /// Returns the synthetic root for the trace of a span without a parent; `None` if the span needs none under this rule.
    fn synthetic_root(&self, _span: &Span, _rule: RootSpan) -> Option<SpanId> {
        None
    }
    /// Returns whether such spans are synthetic: created here, not sent by a client.
    fn is_synthetic(&self) -> bool {
        false
    }
}

/// Synthetic spans: everything about them is known when they are created.
#[derive(Debug)]
struct Synthetic;

impl Format for Synthetic {
    fn is_otlp(&self) -> bool {
        false
    }

    fn detail(&self, _span: &Span) -> Detail {
        Detail::default()
    }

    fn said(&self, _span: &Span, _reading: &mut SpanReading) {}

    fn is_synthetic(&self) -> bool {
        true
    }
}

impl Span {
    /// Creates a span of which only the outline has been read.
    pub fn new(
        outline: SpanHeader,
        scope: Arc<Scope>,
        trace: Option<Arc<TraceObject>>,
        format: &'static dyn Format,
    ) -> Self {
        let SpanHeader { trace_id, span_id, parent_id, start_ns, end_ns, wire } = outline;
        Self {
            trace_id,
            span_id,
            parent_id,
            start_ns,
            end_ns,
            wire,
            scope,
            trace,
            value_offsets: ValueOffsets::default(),
            format,
            spending: OnceLock::new(),
            detail: OnceLock::new(),
            facts: OnceLock::new(),
            brief_facts: OnceLock::new(),
            priced: OnceLock::new(),
        }
    }

    /// Returns the span with the value offsets found on arrival.
    #[must_use]
    pub fn with_value_offsets(self, value_offsets: ValueOffsets) -> Self {
        Self { value_offsets, ..self }
    }

    /// Returns the span with another trace object, or none. Everything derived from it is read again.
    #[must_use]
    pub fn with_trace(&self, trace: Option<Arc<TraceObject>>) -> Self {
        let (detail, facts, brief_facts) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { trace, detail, facts, brief_facts, ..self.clone() }
    }

    /// Returns the value offsets in [`Span::wire`] that were found on arrival.
    pub fn value_offsets(&self) -> &ValueOffsets {
        &self.value_offsets
    }

    /// Creates a synthetic span from all of its data.
    pub fn synthetic(outline: SpanHeader, scope: Arc<Scope>, detail: Detail, facts: Facts) -> Self {
        Self {
            detail: OnceLock::from(Arc::new(detail)),
            facts: OnceLock::from(Arc::new(SpanReading { facts, head: None })),
            ..Self::new(outline, scope, None, &Synthetic)
        }
    }

    /// Returns whether the span is synthetic: the root of a trace, which is not an accepted item.
    pub fn is_synthetic(&self) -> bool {
        self.format.is_synthetic()
    }

    /// Returns everything that OTLP defines for the span, read on the first call.
    pub fn detail(&self) -> &Detail {
        let read = self.facts.get().filter(|_| self.is_otlp());
        let detail = read.and_then(|read| read.head.as_ref());
        detail.unwrap_or_else(|| self.detail.get_or_init(|| Arc::new(self.format.detail(self))))
    }

    /// Returns the complete detail if it was read alone.
    pub fn known_detail(&self) -> Option<&Detail> {
        self.detail.get().map(|detail| &**detail)
    }

    /// Returns the detail for callers that take input and output from the facts: the attributes that repeat these may be missing. It is
    /// read again on each call, unless the complete detail is known or as quick to read.
    pub fn brief_detail(&self) -> Cow<'_, Detail> {
        match self.detail.get() {
            None if !self.is_otlp() => Cow::Owned(self.format.brief_detail(self)),
            _ => Cow::Borrowed(self.detail()),
        }
    }

    /// Returns the detail for callers that use attributes, events and links only if [`Span::is_otlp`]: otherwise they may be missing. It is
    /// read together with the facts.
    pub fn head(&self) -> &Detail {
        let said = self.said();
        self.known_detail().or(said.head.as_ref()).unwrap_or_else(|| self.detail())
    }

    /// Returns the span's agent facts, read on the first call.
    pub fn facts(&self) -> &Facts {
        &self.said().facts
    }

    fn said(&self) -> &SpanReading {
        self.facts.get_or_init(|| SpanReading::by(|reading| self.format.said(self, reading)))
    }

    /// Returns the facts for sums: those of [`Span::facts`] if they have been read; otherwise contents and other facts that are not summed
    /// may be missing.
    pub fn brief_facts(&self) -> &Facts {
        let read = |reading: &mut _| self.format.brief_facts(self, reading);
        let brief = || self.brief_facts.get_or_init(|| SpanReading::by(read));
        &self.facts.get().unwrap_or_else(brief).facts
    }

    /// Returns what the span cost according to a price table, as computed on the first call.
    pub fn priced(&self, price: impl FnOnce() -> Option<Priced>) -> Option<&Priced> {
        self.priced.get_or_init(|| price().map(Arc::new)).as_deref()
    }

    /// Returns how the span reports tokens.
    pub fn spending(&self) -> Spending {
        *self.spending.get_or_init(|| Spending::of(self.brief_facts()))
    }

    /// Returns whether [`Span::wire`] is an OTLP `Span` message.
    pub fn is_otlp(&self) -> bool {
        self.format.is_otlp()
    }

    /// Returns whether the span may report tokens or costs. If not, its facts need not be read to find out, which would cost a sink that
    /// passes OTLP on more than everything else.
    pub fn may_spend(&self) -> bool {
        !self.is_otlp() || SPENDING_WORDS.iter().any(|word| word.find(&self.wire).is_some())
    }

    /// Returns the synthetic root of the span's trace under this rule, whether or not the span has a parent.
    pub fn synthetic_root(&self, rule: RootSpan) -> Option<SpanId> {
        self.format.synthetic_root(self, rule)
    }

    /// Returns the duration in nanoseconds; 0 if a time is missing or the end precedes the start.
    pub fn duration_ns(&self) -> u64 {
        if self.start_ns == 0 { 0 } else { self.end_ns.saturating_sub(self.start_ns) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payload text must not appear in debug output.
        write!(out, "Span({} {}, {} bytes)", self.trace_id, self.span_id, self.wire.len())
    }
}

static SPENDING_WORDS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| keys::SPENDING_WORDS.map(Finder::new));

/// The instrumentation scope of a span, with its OTLP resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope {
    /// The entity that created the span.
    pub resource: Arc<Resource>,
    /// The instrumentation's name.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Number of attributes that the client dropped.
    pub dropped_attributes_count: u32,
    /// The schema of the scope and its spans.
    pub schema_url: Text,
    /// The `InstrumentationScope` message as sent, including unknown fields; empty if there was none.
    pub wire: Bytes,
}

/// The entity that created spans.
#[derive(Debug, Default, PartialEq)]
pub struct Resource {
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Number of attributes that the client dropped.
    pub dropped_attributes_count: u32,
    /// The schema of the resource.
    pub schema_url: Text,
    /// The `Resource` message as sent, including unknown fields; empty if there was none.
    pub wire: Bytes,
}

/// The client's original ids, if they are not OpenTelemetry's.
#[derive(Debug, Clone, PartialEq)]
pub struct SdkIds {
    /// The trace's id.
    pub trace: Text,
    /// The span's id.
    pub span: Text,
    /// The parent's id.
    pub parent: Option<Text>,
}

/// OTLP's `SpanKind`, by number.
pub const SPAN_KINDS: &[&str] =
    &["unspecified", "internal", "server", "client", "producer", "consumer"];
/// OTLP's status codes, by number.
pub const STATUSES: &[&str] = &["unset", "ok", "error"];
/// OTLP's status code of a successful span.
pub const STATUS_OK: i32 = 1;
/// OTLP's status code of a failed span.
pub const STATUS_ERROR: i32 = 2;

impl Resource {
    /// Returns the name of the service that created the spans.
    pub fn service_name(&self) -> Option<&Text> {
        Attribute::last(&self.attributes, keys::SERVICE_NAME)?.as_text()
    }
}

/// Everything that OTLP defines for a span except its ids and times. Agents SDK items are mapped to it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Detail {
    /// The span's name.
    pub name: Text,
    /// OTLP's `SpanKind` number: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer. Other numbers are kept.
    pub kind: i32,
    /// OTLP's status code: 0 unset, 1 ok, 2 error. Other numbers are kept.
    pub status_code: i32,
    /// The status message.
    pub status_message: Text,
    /// The W3C trace state.
    pub trace_state: Text,
    /// W3C flags, and OTLP's bits above them.
    pub flags: u32,
    /// The attributes as sent, in order.
    pub attributes: Vec<Attribute>,
    /// Number of attributes that the client dropped.
    pub dropped_attributes_count: u32,
    /// Events during the span.
    pub events: Vec<SpanEvent>,
    /// Number of events that the client dropped.
    pub dropped_events_count: u32,
    /// Links to related spans of this or other traces.
    pub links: Vec<Link>,
    /// Number of links that the client dropped.
    pub dropped_links_count: u32,
    /// The client's original ids, if they are not OpenTelemetry's.
    pub agents_sdk: Option<SdkIds>,
}

/// An event during a span.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanEvent {
    /// Time, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Name.
    pub name: Text,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Number of attributes that the client dropped.
    pub dropped_attributes_count: u32,
}

/// A link to another span. Links with invalid ids are skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The other span's trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// Its W3C trace state.
    pub trace_state: Text,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
    /// Number of attributes that the client dropped.
    pub dropped_attributes_count: u32,
    /// W3C flags, and OTLP's bits above them.
    pub flags: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads facts and the detail together, unless the detail is known.
    struct Together;

    impl Format for Together {
        fn is_otlp(&self) -> bool {
            true
        }

        fn detail(&self, _: &Span) -> Detail {
            Detail { name: "n".into(), ..Detail::default() }
        }

        fn said(&self, span: &Span, reading: &mut SpanReading) {
            reading.head = span.known_detail().is_none().then(|| self.detail(span));
        }
    }

    #[test]
    fn a_clone_that_has_the_facts_but_not_the_detail_they_were_read_from_has_every_attribute() {
        for is_detail_first in [false, true] {
            let header = SpanHeader {
                trace_id: TraceId::new([1; 16]).unwrap(),
                span_id: SpanId::new([1; 8]).unwrap(),
                parent_id: None,
                start_ns: 0,
                end_ns: 0,
                wire: Bytes::new(),
            };
            let span = Span::new(header, Arc::default(), None, &Together);
            if is_detail_first {
                span.detail();
            }
            span.facts();
            // Another thread may read the detail and the facts while a clone is made.
            let clone = Span { detail: OnceLock::new(), ..span };
            assert_eq!((&*clone.head().name, &*clone.detail().name), ("n", "n"));
        }
    }
}
