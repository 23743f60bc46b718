//! Hangs what was below spans that rules took away under the nearest ancestor that they left, so that no backend sees orphans. Pure.
//!
//! That is known of spans of the same request. Where the chain of spans that are gone ends at one through which a request came in from
//! elsewhere, what called it is taken as ancestor only where it is here; else the span below becomes a root.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::normalize::with_parent;
use crate::span::{Item, Landmarks, Span, SpanId, TraceId};
use crate::support::json::raw::Raw;

/// The spans of a request that rules took away, and the ids of those that they left.
pub(super) struct Gone<'b> {
    spans: HashMap<(TraceId, SpanId), &'b Span>,
    left: HashSet<(TraceId, SpanId)>,
}

/// OTLP's kinds of spans where a request or a message comes in from elsewhere.
const SERVER: i32 = 2;
const CONSUMER: i32 = 5;

impl<'b> Gone<'b> {
    /// Of these items, each with whether it is gone.
    pub(super) fn of(items: impl Iterator<Item = (&'b Item, bool)>) -> Self {
        let mut gone = Self { spans: HashMap::new(), left: HashSet::new() };
        for (item, is_gone) in items {
            let Item::Span(span) = item else { continue };
            let id = (span.trace_id, span.span_id);
            if is_gone {
                gone.spans.insert(id, span);
            } else {
                gone.left.insert(id);
            }
        }
        // A span that came twice is not gone as long as one of the two is there.
        gone.spans.retain(|id, _| !gone.left.contains(id));
        gone
    }

    /// A span below one that is gone, below what is left above that; `None` where it stays as it is.
    pub(super) fn hang(&self, span: &Span) -> Option<Span> {
        let mut last: &Span = self.spans.get(&(span.trace_id, span.parent_id?))?;
        // Parents may form a circle; no chain is longer than there are spans.
        for _ in 0..self.spans.len() {
            let next = last.parent_id.and_then(|parent| self.spans.get(&(span.trace_id, parent)));
            let Some(next) = next else {
                return below(span, self.has_parent(last).then_some(last));
            };
            last = next;
        }
        below(span, None)
    }

    /// Whether what a span that is gone names as its parent can be the parent of those below it.
    fn has_parent(&self, gone: &Span) -> bool {
        gone.parent_id.is_some_and(|parent| {
            self.left.contains(&(gone.trace_id, parent))
                || !gone.is_otlp()
                || ![SERVER, CONSUMER].contains(&gone.detail().kind)
        })
    }
}

/// A span with the parent of another, or without one.
fn below(span: &Span, sibling: Option<&Span>) -> Option<Span> {
    let parent_id = sibling.and_then(|sibling| sibling.parent_id);
    if span.is_otlp() {
        let mut other = span.clone();
        (other.parent_id, other.wire) = (parent_id, with_parent(&span.wire, parent_id)?);
        return Some(other);
    }
    let wire = with_native_parent(&span.wire, sibling.map(|sibling| sibling.wire.as_ref()))?;
    // Where its values stand was found in the old wire.
    let mut other = span.with_trace(span.trace.clone()).with_landmarks(Landmarks::default());
    (other.parent_id, other.wire) = (parent_id, wire);
    Some(other)
}

/// An item of the Agents SDK with the parent of another, as that wrote it, or without one.
fn with_native_parent(wire: &[u8], sibling: Option<&[u8]>) -> Option<Bytes> {
    let named = |wire| Raw::trusted(str::from_utf8(wire).ok()?).get("parent_id").map(Raw::text);
    let old = named(wire)?;
    let new = sibling.and_then(named).unwrap_or("null");
    let start = old.as_ptr().addr().checked_sub(wire.as_ptr().addr())?;
    let (before, rest) = wire.split_at_checked(start)?;
    let (_, behind) = rest.split_at_checked(old.len())?;
    Some(Bytes::from([before, new.as_bytes(), behind].concat()))
}
