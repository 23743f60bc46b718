//! What spans, traces, documents and indices are called. Pure.
//!
//! Documents keep the client's own ids (`span_...`, `trace_...`); spans of OTLP have the usual hexadecimal digits. A root that
//! stands for a trace has no id of a client, so it and what refers to it use digits too.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::options::Rotation;
use crate::span::{RootSpan, Source, Span, TraceContext, TraceObject, keys};
use crate::support::json::write_str;
use crate::support::rfc3339::{self, NS_PER_SECOND, SECONDS_PER_DAY};

/// The ids of a span as its document has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names<'a> {
    /// The trace.
    pub(super) trace: Cow<'a, str>,
    /// The span.
    pub(super) span: Cow<'a, str>,
    /// The span above it.
    pub(super) parent: Option<Cow<'a, str>>,
    /// Whether `span` is the client's own, which names the document alone.
    pub(super) is_native: bool,
}

/// A document id longer than this, in bytes, fails the whole bulk request.
const DOC_ID_BYTES_MAX: usize = 512;

impl<'a> Names<'a> {
    /// The ids of a span. `members` are those of its item, where it came as one.
    pub(super) fn of(
        span: &'a Span,
        members: &Members<'a>,
        context: Option<&'a TraceContext>,
        rule: RootSpan,
    ) -> Self {
        let hex = |id: &[u8]| Cow::Owned(String::from_utf8_lossy(id).into_owned());
        let parent = rule.parent_of(span).map(|id| hex(&id.to_hex()));
        if span.is_otlp() {
            let (trace, own) = (hex(&span.trace_id.to_hex()), hex(&span.span_id.to_hex()));
            return Self { trace, span: own, parent, is_native: false };
        }
        // Only an item that does not say its own ids is asked for its detail, which takes long to read.
        let native = || span.detail().native.as_ref();
        let object = |trace: &'a TraceObject| Cow::Borrowed(&*trace.native_id);
        let trace = members
            .text("trace_id")
            .or_else(|| native().map(|native| Cow::Borrowed(&*native.trace)))
            .or_else(|| trace_of_root(span))
            .filter(|id| !id.is_empty())
            .or_else(|| span.trace.as_deref().map(object))
            .or_else(|| context.and_then(|context| context.trace.as_deref()).map(object))
            .unwrap_or_else(|| hex(&span.trace_id.to_hex()));
        if span.is_synthetic() {
            let own = hex(&span.span_id.to_hex());
            return Self { trace, span: own, parent: None, is_native: false };
        }
        let own = members
            .text("id")
            .or_else(|| native().map(|native| Cow::Borrowed(&*native.span)))
            .filter(|id| !id.is_empty());
        let is_native = own.is_some();
        let said = span.parent_id.and_then(|_| {
            let detailed = || native().and_then(|native| native.parent.as_deref());
            members.text("parent_id").or_else(|| detailed().map(Cow::Borrowed))
        });
        let own = own.unwrap_or_else(|| hex(&span.span_id.to_hex()));
        Self { trace, span: own, parent: said.or(parent), is_native }
    }

    /// The document's id: a client's own span id, or `<trace>-<span>`.
    pub(super) fn doc_id(&self) -> Cow<'_, str> {
        if self.is_native {
            return bounded(&self.span);
        }
        Cow::Owned(bounded(&format!("{}-{}", self.trace, self.span)).into_owned())
    }
}

/// An id that may name a document: longer ones become their SHA-256.
pub(super) fn bounded(id: &str) -> Cow<'_, str> {
    if id.len() <= DOC_ID_BYTES_MAX {
        return Cow::Borrowed(id);
    }
    Cow::Owned(sha256_hex(id.as_bytes()))
}

/// SHA-256 in hexadecimal digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to memory does not fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// The client's own id of a trace, in the root that stands for it.
fn trace_of_root(span: &Span) -> Option<Cow<'_, str>> {
    let mut attributes = span.detail().attributes.iter().filter(|_| span.is_synthetic());
    let said = attributes.find(|attribute| &*attribute.key == keys::OPENAI_AGENTS_TRACE_ID)?;
    said.value.as_text().map(|id| Cow::Borrowed(&**id))
}

// === Items ===

/// The members of a JSON object, as text, in their order; of a repeated name the last.
#[derive(Debug, Clone, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Those of an object; none of anything else.
    pub(super) fn of(json: &'a str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Those of a span's item; none where it came as OTLP.
    pub(super) fn of_span(span: &'a Span) -> Self {
        if span.is_otlp() {
            return Self::default();
        }
        std::str::from_utf8(&span.wire).map(Self::of).unwrap_or_default()
    }

    /// A member's value.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get())
    }

    /// A member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (&**name, value.get()))
    }
}

/// The text of a JSON string.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    if !json.starts_with('"') {
        return None;
    }
    serde_json::from_str::<Name<'_>>(json).ok().map(|text| text.0)
}

/// A string that is lent where it holds no escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    members.push((name, value));
                }
                Ok(Members(last_of_each(members)))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Leaves out what is said again further on: Elasticsearch takes no object with a name twice.
fn last_of_each<T>(mut members: Vec<(Cow<'_, str>, T)>) -> Vec<(Cow<'_, str>, T)> {
    if COMPARED_MAX < members.len() {
        let mut seen = HashSet::new();
        let mut is_last: Vec<bool> =
            members.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
        members.retain(|_| is_last.pop().unwrap_or(true));
        return members;
    }
    let mut at = 0;
    while let Some((name, later)) =
        members.get(at..).and_then(<[_]>::split_first).map(|((name, _), later)| (name, later))
    {
        if later.iter().any(|(other, _)| other == name) {
            members.remove(at);
        } else {
            at += 1;
        }
    }
    members
}

/// Up to this many names are compared with each other, which is faster than hashing them.
const COMPARED_MAX: usize = 32;

// === Indices ===

/// When a span happened, as far as its document and index are concerned: when it started, else ended, else was received. Times
/// that are no times (Elasticsearch knows none after 2262) or are far from when it was received do not count: a client with a
/// broken clock must not make an index for every day of history.
pub(super) fn event_ns(span: &Span, source: &Source) -> u64 {
    let near = |at: &u64| {
        *at != 0
            && *at <= TIME_NS_MAX
            && (source.received_at_ns == 0 || at.abs_diff(source.received_at_ns) <= FAR_NS)
    };
    [span.start_ns, span.end_ns]
        .into_iter()
        .find(near)
        .unwrap_or_else(|| source.received_at_ns.min(TIME_NS_MAX))
}

/// The last nanosecond that `date_nanos` knows.
pub(super) const TIME_NS_MAX: u64 = i64::MAX as u64;

/// Ten years: more than anybody replays, and at most that many daily indices.
const FAR_NS: u64 = 10 * 366 * SECONDS_PER_DAY * NS_PER_SECOND;

/// Appends the name of the index that a document of this time belongs to, as a JSON string.
pub(super) fn write_index(out: &mut Vec<u8>, spans: &str, rotation: Rotation, event_ns: u64) {
    write_str(out, spans);
    let kept = match rotation {
        Rotation::None | Rotation::DataStream => return,
        Rotation::Daily => DAY_BYTES,
        Rotation::Monthly => MONTH_BYTES,
    };
    out.pop();
    out.push(b'-');
    let mut date = Vec::with_capacity(DAY_BYTES);
    rfc3339::write_date(&mut date, event_ns / NS_PER_SECOND / SECONDS_PER_DAY);
    let dotted = date.iter().take(kept).map(|&byte| if byte == b'-' { b'.' } else { byte });
    out.extend(dotted);
    out.push(b'"');
}

/// `2026.11.21`
const DAY_BYTES: usize = 10;
/// `2026.11`
const MONTH_BYTES: usize = 7;

/// Where a document's summary version stands at the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Seq {
    /// `_seq_no`.
    pub(super) number: u64,
    /// `_primary_term`.
    pub(super) term: u64,
}
