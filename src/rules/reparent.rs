//! Attaches spans below dropped spans to their nearest remaining ancestor, so that no backend sees orphans. Pure.
//!
//! It considers spans of the same request and, if the lane waits for them (`decide.reparent`), those of others. If a chain of dropped spans
//! ends at one through which a request came in, its caller becomes the parent only if the caller is present; otherwise the span becomes a
//! root.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::Marks;
use crate::normalize::with_parent;
use crate::span::{Item, Span, SpanId, TraceId, ValueOffsets};
use crate::support::find::place_of;
use crate::support::json::raw::Raw;

/// A span of a trace.
pub type Key = (TraceId, SpanId);

/// A span that rules dropped, with what spans below it in other requests need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Its parent's id.
    pub parent_id: Option<SpanId>,
    /// The parent's id as written, if the span is JSON.
    named: Option<Box<str>>,
    /// Whether a request came in through it.
    pub is_entry: bool,
    /// It remains if one of these rules matches its trace.
    pub spared_by: Marks,
}

/// Ancestors in other requests of the spans of a request.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// Spans that rules dropped.
    pub dropped: HashMap<Key, Dropped>,
    /// Spans that remain and may be callers.
    pub callers: HashSet<Key>,
}

impl Dropped {
    pub(super) fn of(span: &Span, spared_by: Marks) -> Self {
        let named = if span.is_otlp() { None } else { parent_as_named(&span.wire) };
        let is_entry = span.parent_id.is_some() && is_of_kind(span, [SERVER, CONSUMER]);
        Self { parent_id: span.parent_id, named: named.map(Box::from), is_entry, spared_by }
    }
}

/// Returns whether another request may originate from this span.
pub(super) fn is_caller(span: &Span) -> bool {
    is_of_kind(span, [CLIENT, PRODUCER])
}

fn is_of_kind(span: &Span, kinds: [i32; 2]) -> bool {
    span.is_otlp() && kinds.contains(&span.detail().kind)
}

/// The dropped spans of a request, the ids of the remaining ones, and the ancestors in other requests.
pub(super) struct Gone<'b> {
    spans: HashMap<Key, &'b Span>,
    left: HashSet<Key>,
    elsewhere: Option<&'b Elsewhere>,
}

/// OTLP's span kinds for incoming and outgoing requests and messages.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

impl<'b> Gone<'b> {
    /// Collects them from these items, each with whether it was dropped.
    pub(super) fn of(
        items: impl Iterator<Item = (&'b Item, bool)>,
        elsewhere: Option<&'b Elsewhere>,
    ) -> Self {
        let mut gone = Self { spans: HashMap::new(), left: HashSet::new(), elsewhere };
        for (item, is_gone) in items {
            let Item::Span(span) = item else { continue };
            let id = (span.trace_id, span.span_id);
            if is_gone {
                gone.spans.insert(id, span);
            } else {
                gone.left.insert(id);
            }
        }
        // A span that was sent twice counts as remaining if one of the copies remains.
        gone.spans.retain(|id, _| !gone.left.contains(id));
        gone
    }

    /// Returns a span with its nearest remaining ancestor as parent, if its own parent was dropped.
    pub(super) fn hung(&self, span: &Span) -> Option<Span> {
        let trace = span.trace_id;
        let mut last = self.find((trace, span.parent_id?))?;
        // Parents may form a cycle; no chain is longer than the number of spans.
        for _ in 0..self.spans.len() + self.elsewhere.map_or(0, |them| them.dropped.len()) {
            let next = last.parent_id.and_then(|parent| self.find((trace, parent)));
            let Some(next) = next else {
                return below(span, Some(&*last).filter(|last| self.has_parent(trace, last)));
            };
            last = next;
        }
        below(span, None)
    }

    fn find(&self, id: Key) -> Option<Cow<'b, Dropped>> {
        if let Some(span) = self.spans.get(&id) {
            return Some(Cow::Owned(Dropped::of(span, Marks::default())));
        }
        let elsewhere = self.elsewhere.filter(|_| !self.left.contains(&id))?;
        elsewhere.dropped.get(&id).map(Cow::Borrowed)
    }

    /// Returns whether the parent of a dropped span can become the parent of the spans below it.
    fn has_parent(&self, trace: TraceId, gone: &Dropped) -> bool {
        gone.parent_id.is_some_and(|parent| {
            let id = (trace, parent);
            self.left.contains(&id)
                || self.elsewhere.is_some_and(|them| them.callers.contains(&id))
                || !gone.is_entry
        })
    }
}

/// Returns the span with the parent of a dropped one, or without a parent.
fn below(span: &Span, gone: Option<&Dropped>) -> Option<Span> {
    let parent_id = gone.and_then(|gone| gone.parent_id);
    if span.is_otlp() {
        let mut other = span.clone();
        (other.parent_id, other.wire) = (parent_id, with_parent(&span.wire, parent_id));
        return Some(other);
    }
    let wire = with_sdk_parent(&span.wire, gone.and_then(|gone| gone.named.as_deref()))?;
    // The value offsets refer to the old wire.
    let mut other = span.with_trace(span.trace.clone()).with_value_offsets(ValueOffsets::default());
    (other.parent_id, other.wire) = (parent_id, wire);
    Some(other)
}

/// Returns the parent's id of an Agents SDK item, as written.
fn parent_as_named(wire: &[u8]) -> Option<&str> {
    Raw::trusted(str::from_utf8(wire).ok()?).get("parent_id").map(Raw::text)
}

/// Returns an Agents SDK item with this parent, or without one.
fn with_sdk_parent(wire: &[u8], new: Option<&str>) -> Option<Bytes> {
    let old = parent_as_named(wire)?;
    let place = place_of(old.as_bytes(), wire)?;
    let (before, after) = (wire.get(..place.start)?, wire.get(place.end..)?);
    Some(Bytes::from([before, new.unwrap_or("null").as_bytes(), after].concat()))
}
