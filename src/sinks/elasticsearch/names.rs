//! Names of spans, traces, documents and indices. Pure.
//!
//! Documents keep the client's own ids (`span_...`, `trace_...`); OTLP spans have the usual hexadecimal digits. A synthetic root has no id
//! from a client, so the root and references to it use digits, too.

use std::borrow::Cow;

use super::options::Rotation;
use crate::span::{Attribute, RootSpan, Source, Span, Text, TraceContext, Value, keys};
use crate::support::rfc3339::{self, NS_PER_SECOND, SECONDS_PER_DAY, is_odd};
use crate::support::sha256;

/// The ids of a span in its document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names<'a> {
    pub(super) trace: Cow<'a, str>,
    pub(super) span: Cow<'a, str>,
    pub(super) parent: Option<Cow<'a, str>>,
    /// Whether `span` is the client's own id, which alone names the document.
    pub(super) is_agents_sdk: bool,
}

/// The longest document id, in bytes. A longer one fails the complete bulk request.
const DOC_ID_BYTES_MAX: usize = 512;

impl<'a> Names<'a> {
    /// Returns the ids of a span.
    pub(super) fn of(span: &'a Span, context: Option<&'a TraceContext>, rule: RootSpan) -> Self {
        let hex = |id: &[u8]| Cow::Owned(String::from_utf8_lossy(id).into_owned());
        let parent = rule.parent_of(context, span).map(|id| hex(&id.to_hex()));
        let own = hex(&span.span_id.to_hex());
        let trace = trace_of(span);
        if span.is_otlp() || span.is_synthetic() {
            let parent = parent.filter(|_| span.is_otlp());
            return Self { trace, span: own, parent, is_agents_sdk: false };
        }
        let ids = span.head().agents_sdk.as_ref();
        let of_span = ids.and_then(|ids| said(&ids.span));
        let is_agents_sdk = of_span.is_some();
        let parent_of_client = || ids.and_then(|ids| ids.parent.as_ref()).and_then(said);
        let parent = span.parent_id.and_then(|_| parent_of_client()).or(parent).map(searchable);
        Self { trace, span: searchable(of_span.unwrap_or(own)), parent, is_agents_sdk }
    }

    /// Returns the document's id: a client's own span id, or `<trace>-<span>`.
    pub(super) fn doc_id(&self) -> Cow<'_, str> {
        if self.is_agents_sdk {
            return bounded(&self.span);
        }
        Cow::Owned(bounded(&format!("{}-{}", self.trace, self.span)).into_owned())
    }
}

/// The longest searchable id, in UTF-16 units; see the mapping.
pub(super) const SEARCHED_UNITS_MAX: usize = 256;

/// Makes an id searchable. A longer one is replaced by its SHA-256; the attributes contain the original.
pub(super) fn searchable(id: Cow<'_, str>) -> Cow<'_, str> {
    let is_short = |id: &str| id.encode_utf16().count() <= SEARCHED_UNITS_MAX;
    if id.len() <= SEARCHED_UNITS_MAX || is_short(&id) { id } else { hashed(&id) }
}

/// Makes an id valid as a document id. A longer one is replaced by its SHA-256.
pub(super) fn bounded(id: &str) -> Cow<'_, str> {
    if id.len() <= DOC_ID_BYTES_MAX { Cow::Borrowed(id) } else { hashed(id) }
}

fn hashed(id: &str) -> Cow<'static, str> {
    sha256::hex(id.as_bytes()).into()
}

/// Returns the id of a span's trace, in the client's form if that is known.
fn trace_of(span: &Span) -> Cow<'_, str> {
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
    searchable(of_client.and_then(said).unwrap_or_else(own))
}

fn said(id: &Text) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(&**id)).filter(|id| !id.is_empty())
}

/// The value of `source` in the document of a synthetic root.
pub(super) const OURS: &str = "spanferry";

// === Indices and times ===

/// Returns the time of a span for its document and index: its start, or else its end, or else its arrival. Invalid times, and those far
/// from its arrival, are ignored, because a client with a broken clock must not create an index for every day of history.
pub(super) fn event_ns(span: &Span, source: &Source) -> u64 {
    let near = |at: &u64| {
        !is_odd(*at) && (source.received_at_ns == 0 || at.abs_diff(source.received_at_ns) <= FAR_NS)
    };
    [span.start_ns, span.end_ns]
        .into_iter()
        .find(near)
        .unwrap_or_else(|| source.received_at_ns.min(TIME_NS_MAX))
}

/// The last nanosecond of `date_nanos`.
pub(super) const TIME_NS_MAX: u64 = i64::MAX as u64;

pub(super) const NS_PER_US: u64 = 1_000;
pub(super) const NS_PER_MS: u64 = 1_000_000;

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a span fit a double's 53 bits")]
pub(super) fn milliseconds(ns: u64) -> f64 {
    ns as f64 / NS_PER_MS as f64
}

/// Ten years: longer than any replay, and a bound for the number of daily indices.
const FAR_NS: u64 = 10 * 366 * SECONDS_PER_DAY * NS_PER_SECOND;

/// Returns the name of the index for documents of this time.
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
