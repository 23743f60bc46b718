//! Hangs what was below spans that rules took away under the nearest ancestor that they left, so that no backend sees orphans. Pure.
//!
//! That is known of spans of the same request and, where the lane waits for that (`decide.reparent`), of others. Where the chain of spans
//! that are gone ends at one through which a request came in from elsewhere, what called it is taken as ancestor only where it is
//! here; else the span below becomes a root.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::marks::Marks;
use crate::normalize::with_parent;
use crate::span::{Item, Landmarks, Span, SpanId, TraceId};
use crate::support::json::raw::Raw;

/// A span of a trace.
pub type Key = (TraceId, SpanId);

/// A span that rules took away, as those below it in other requests need to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// What it named as its parent.
    pub parent_id: Option<SpanId>,
    /// The same as it was written, where that is JSON.
    named: Option<Box<str>>,
    /// Whether a request came in from elsewhere through it.
    pub is_entry: bool,
    /// It is there all the same where one of these rules is for its trace.
    pub spared_by: Marks,
}

/// What is above the spans of a request in others.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// Spans that rules took away.
    pub dropped: HashMap<Key, Dropped>,
    /// Spans that called what is here, and are left.
    pub callers: HashSet<Key>,
}

impl Dropped {
    pub(super) fn of(span: &Span, spared_by: Marks) -> Self {
        let named = if span.is_otlp() { None } else { parent_as_named(&span.wire) };
        let is_entry = span.parent_id.is_some() && is_of_kind(span, [SERVER, CONSUMER]);
        Self { parent_id: span.parent_id, named: named.map(Box::from), is_entry, spared_by }
    }
}

/// Whether another request may come in from this span.
pub(super) fn is_caller(span: &Span) -> bool {
    is_of_kind(span, [CLIENT, PRODUCER])
}

fn is_of_kind(span: &Span, kinds: [i32; 2]) -> bool {
    span.is_otlp() && kinds.contains(&span.detail().kind)
}

/// The spans of a request that rules took away, the ids of those that they left, and what is known of others.
pub(super) struct Gone<'b> {
    spans: HashMap<Key, &'b Span>,
    left: HashSet<Key>,
    elsewhere: Option<&'b Elsewhere>,
}

/// OTLP's kinds of spans where a request or a message comes in from elsewhere, and where one goes out.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

impl<'b> Gone<'b> {
    /// Of these items, each with whether it is gone.
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
        // A span that came twice is not gone as long as one of the two is there.
        gone.spans.retain(|id, _| !gone.left.contains(id));
        gone
    }

    /// A span below one that is gone as it hangs below what is left above that.
    pub(super) fn hung(&self, span: &Span) -> Option<Span> {
        let trace = span.trace_id;
        let mut last = self.find((trace, span.parent_id?))?;
        // Parents may form a circle; no chain is longer than there are spans.
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

    /// Whether what a span that is gone names as its parent can be the parent of those below it.
    fn has_parent(&self, trace: TraceId, gone: &Dropped) -> bool {
        gone.parent_id.is_some_and(|parent| {
            let id = (trace, parent);
            self.left.contains(&id)
                || self.elsewhere.is_some_and(|them| them.callers.contains(&id))
                || !gone.is_entry
        })
    }
}

/// A span with the parent of one that is gone, or without one.
fn below(span: &Span, gone: Option<&Dropped>) -> Option<Span> {
    let parent_id = gone.and_then(|gone| gone.parent_id);
    if span.is_otlp() {
        let mut other = span.clone();
        (other.parent_id, other.wire) = (parent_id, with_parent(&span.wire, parent_id));
        return Some(other);
    }
    let wire = with_sdk_parent(&span.wire, gone.and_then(|gone| gone.named.as_deref()))?;
    // Where its values stand was found in the old wire.
    let mut other = span.with_trace(span.trace.clone()).with_landmarks(Landmarks::default());
    (other.parent_id, other.wire) = (parent_id, wire);
    Some(other)
}

/// The parent of an item of the Agents SDK as it is written.
fn parent_as_named(wire: &[u8]) -> Option<&str> {
    Raw::trusted(str::from_utf8(wire).ok()?).get("parent_id").map(Raw::text)
}

/// An item of the Agents SDK with this parent, or without one.
fn with_sdk_parent(wire: &[u8], new: Option<&str>) -> Option<Bytes> {
    let old = parent_as_named(wire)?;
    let start = old.as_ptr().addr().checked_sub(wire.as_ptr().addr())?;
    let (before, rest) = wire.split_at_checked(start)?;
    let (_, behind) = rest.split_at_checked(old.len())?;
    Some(Bytes::from([before, new.unwrap_or("null").as_bytes(), behind].concat()))
}
