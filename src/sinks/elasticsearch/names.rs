//! What spans, traces, documents and indices are called. Pure.
//!
//! Documents keep the client's own ids (`span_...`, `trace_...`); spans of OTLP have the usual hexadecimal digits. A root that
//! stands for a trace has no id of a client, so it and what refers to it use digits too.

use std::borrow::Cow;

use super::options::Rotation;
use crate::span::{
    Attribute, RootSpan, Source, Span, Text, TraceContext, TraceObject, Value, keys,
};
use crate::support::json::raw::Object;
use crate::support::rfc3339::{self, NS_PER_SECOND, SECONDS_PER_DAY};
use crate::support::sha256;

/// The ids of a span as its document has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names<'a> {
    pub(super) trace: Cow<'a, str>,
    pub(super) span: Cow<'a, str>,
    pub(super) parent: Option<Cow<'a, str>>,
    /// Whether `span` is the client's own, which names the document alone.
    pub(super) is_agents_sdk: bool,
}

/// A document id longer than this, in bytes, fails the whole bulk request.
const DOC_ID_BYTES_MAX: usize = 512;

impl<'a> Names<'a> {
    /// The ids of a span. `members` are those of its item, where it came as one.
    pub(super) fn of(
        span: &'a Span,
        members: &Object<'a>,
        context: Option<&'a TraceContext>,
        rule: RootSpan,
    ) -> Self {
        let hex = |id: &[u8]| Cow::Owned(String::from_utf8_lossy(id).into_owned());
        let parent = rule.parent_of(context, span).map(|id| hex(&id.to_hex()));
        let own = hex(&span.span_id.to_hex());
        let trace = trace_of(span, context);
        if span.is_otlp() || span.is_synthetic() {
            let parent = parent.filter(|_| span.is_otlp());
            return Self { trace, span: own, parent, is_agents_sdk: false };
        }
        let ids = span.head().agents_sdk.as_ref();
        let of_client = |name: &str, id: Option<&'a Text>| {
            members.get_string(name).or_else(|| id.and_then(said))
        };
        let of_span = of_client("id", ids.map(|ids| &ids.span));
        let is_agents_sdk = of_span.is_some();
        let parent_of_client = || of_client("parent_id", ids.and_then(|ids| ids.parent.as_ref()));
        let parent = span.parent_id.and_then(|_| parent_of_client()).or(parent).map(searchable);
        Self { trace, span: searchable(of_span.unwrap_or(own)), parent, is_agents_sdk }
    }

    /// The document's id: a client's own span id, or `<trace>-<span>`.
    pub(super) fn doc_id(&self) -> Cow<'_, str> {
        if self.is_agents_sdk {
            return bounded(&self.span);
        }
        Cow::Owned(bounded(&format!("{}-{}", self.trace, self.span)).into_owned())
    }
}

/// Characters of an id that can be searched for, as UTF-16 counts them; see the mapping.
pub(super) const SEARCHED_UNITS_MAX: usize = 256;

/// An id that can be searched for: longer ones become their SHA-256, and stand in the attributes as they are.
pub(super) fn searchable(id: Cow<'_, str>) -> Cow<'_, str> {
    let is_short = |id: &str| id.encode_utf16().count() <= SEARCHED_UNITS_MAX;
    if id.len() <= SEARCHED_UNITS_MAX || is_short(&id) { id } else { hashed(&id) }
}

/// An id that may name a document: longer ones become their SHA-256.
pub(super) fn bounded(id: &str) -> Cow<'_, str> {
    if id.len() <= DOC_ID_BYTES_MAX { Cow::Borrowed(id) } else { hashed(id) }
}

fn hashed(id: &str) -> Cow<'static, str> {
    sha256::hex(id.as_bytes()).into()
}

/// What a span's trace is called: as its client calls it, as far as that is known.
pub(super) fn trace_of<'a>(span: &'a Span, context: Option<&'a TraceContext>) -> Cow<'a, str> {
    let own = || Cow::Owned(span.trace_id.to_string());
    if span.is_otlp() {
        return own();
    }
    let of_client = if span.is_synthetic() {
        let attributes = &span.detail().attributes;
        Attribute::last(attributes, keys::OPENAI_AGENTS_TRACE_ID).and_then(Value::as_text)
    } else {
        span.head().agents_sdk.as_ref().map(|ids| &ids.trace)
    };
    let objects = [span.trace.as_ref(), context.and_then(|context| context.trace.as_ref())];
    let object = objects.into_iter().flatten().next();
    let id = of_client.and_then(said);
    let id = id.or_else(|| object.map(|object| Cow::Borrowed(&*object.sdk_id)));
    searchable(id.unwrap_or_else(own))
}

/// What the trace of a trace object is called.
pub(super) fn of_object(object: &TraceObject) -> Cow<'_, str> {
    searchable(Cow::Borrowed(&object.sdk_id))
}

fn said(id: &Text) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(&**id)).filter(|id| !id.is_empty())
}

/// Who made a root that stands for a trace, as its document says in `source`.
pub(super) const OURS: &str = "spanferry";

// === Indices and times ===

/// When a span happened, as far as its document and index are concerned: when it started, else ended, else was received. Times
/// that are odd or far from when it was received do not count: a client with a broken clock must not make an index for every day of
/// history.
pub(super) fn event_ns(span: &Span, source: &Source) -> u64 {
    let near = |at: &u64| {
        !is_odd(*at) && (source.received_at_ns == 0 || at.abs_diff(source.received_at_ns) <= FAR_NS)
    };
    [span.start_ns, span.end_ns]
        .into_iter()
        .find(near)
        .unwrap_or_else(|| source.received_at_ns.min(TIME_NS_MAX))
}

/// The last nanosecond that `date_nanos` knows.
pub(super) const TIME_NS_MAX: u64 = i64::MAX as u64;

/// Whether a time is outside of 2000 to 2100, and so none at which an agent was at work. One such time would stand for the whole
/// trace, and in the average of all durations.
pub(super) fn is_odd(unix_ns: u64) -> bool {
    const YEAR_2000_NS: u64 = 946_684_800 * NS_PER_SECOND;
    const YEAR_2100_NS: u64 = 4_102_444_800 * NS_PER_SECOND;
    !(YEAR_2000_NS..YEAR_2100_NS).contains(&unix_ns)
}

pub(super) const NS_PER_US: u64 = 1_000;
pub(super) const NS_PER_MS: u64 = 1_000_000;

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a span fit a double's 53 bits")]
pub(super) fn milliseconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_MS as f64
}

/// Ten years: more than anybody replays, and at most that many daily indices.
const FAR_NS: u64 = 10 * 366 * SECONDS_PER_DAY * NS_PER_SECOND;

/// The name of the index that a document of this time belongs to.
pub(super) fn index_at(spans: &str, rotation: Rotation, event_ns: u64) -> Cow<'_, str> {
    let kept = match rotation {
        Rotation::None | Rotation::DataStream => return Cow::Borrowed(spans),
        Rotation::Daily => "2026.11.21".len(),
        Rotation::Monthly => "2026.11".len(),
    };
    let mut date = Vec::new();
    rfc3339::write_date(&mut date, event_ns / NS_PER_SECOND / SECONDS_PER_DAY);
    date.truncate(kept);
    format!("{spans}-{}", String::from_utf8_lossy(&date).replace('-', ".")).into()
}
