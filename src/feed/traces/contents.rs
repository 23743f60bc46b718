//! The input of the first model call and the output of the last, for each top span of a trace. Pure.
//!
//! A run has neither its question nor its answer: its model calls do. So the first input and the last output are kept for the topmost known
//! span above a call, and move up with it when its parent becomes known.

use std::collections::HashMap;

use super::bounds::{PAYLOAD_BYTES_MAX, TOPS_MAX, cut};
use crate::span::{Content, Facts, Payload, Span, SpanId};

/// The contents of one trace.
#[derive(Debug, Default)]
pub(super) struct Contents {
    tops: HashMap<SpanId, Sides>,
    /// Contents of further top spans.
    rest: Sides,
    bytes: usize,
}

#[derive(Debug, Default, Clone)]
struct Sides {
    /// The input, with the start of its span.
    input: Option<(u64, Payload)>,
    /// The output, with the end of its span.
    output: Option<(u64, Payload)>,
}

impl Contents {
    /// Adds the contents of a model call below this top span.
    pub(super) fn add(&mut self, top: SpanId, span: &Span, facts: &Facts) {
        let side = |at_ns, said: &Option<Payload>| {
            said.as_ref().map(|payload| (at_ns, cut(payload, PAYLOAD_BYTES_MAX)))
        };
        let sides = Sides {
            input: side(span.start_ns, &facts.input),
            output: side(span.end_ns, &facts.output),
        };
        self.join(top, sides);
    }

    /// Returns whether contents are kept for a span.
    pub(super) fn has(&self, top: SpanId) -> bool {
        self.tops.contains_key(&top)
    }

    /// Moves the contents of a top span that turned out to be below another.
    pub(super) fn move_up(&mut self, from: SpanId, to: SpanId) {
        if let Some(sides) = self.tops.remove(&from) {
            self.bytes -= sides.bytes() + ENTRY_BYTES;
            self.join(to, sides);
        }
    }

    /// Returns the contents of a top span.
    pub(super) fn of(&self, top: SpanId) -> Option<Content> {
        self.tops.get(&top).map(Sides::content)
    }

    /// Returns the contents of the entire trace.
    pub(super) fn of_all(&self) -> Content {
        let mut all = self.rest.clone();
        self.tops.values().for_each(|sides| all.join(sides.clone()));
        all.content()
    }

    /// Returns its memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn join(&mut self, top: SpanId, more: Sides) {
        if more.input.is_none() && more.output.is_none() {
            return;
        }
        let has_room = self.tops.len() < TOPS_MAX || self.tops.contains_key(&top);
        let is_new = has_room && !self.tops.contains_key(&top);
        let sides = if has_room { self.tops.entry(top).or_default() } else { &mut self.rest };
        let before = sides.bytes();
        sides.join(more);
        self.bytes = self.bytes + sides.bytes() - before + if is_new { ENTRY_BYTES } else { 0 };
    }
}

/// Size of a table entry, doubled because a table grows in large steps.
const ENTRY_BYTES: usize = 2 * size_of::<(SpanId, Sides)>();

impl Sides {
    /// Keeps the earlier input and the later output.
    fn join(&mut self, more: Self) {
        let is_before = |(start_ns, _): &(u64, Payload)| {
            self.input.as_ref().is_none_or(|(known_ns, _)| start_ns < known_ns)
        };
        if more.input.as_ref().is_some_and(is_before) {
            self.input = more.input;
        }
        let is_after = |(end_ns, _): &(u64, Payload)| {
            self.output.as_ref().is_none_or(|(known_ns, _)| known_ns <= end_ns)
        };
        if more.output.as_ref().is_some_and(is_after) {
            self.output = more.output;
        }
    }

    fn content(&self) -> Content {
        let payload = |side: &Option<(u64, Payload)>| side.as_ref().map(|(_, it)| it.clone());
        Content { input: payload(&self.input), output: payload(&self.output) }
    }

    fn bytes(&self) -> usize {
        let sides = [&self.input, &self.output];
        sides.into_iter().flatten().map(|(_, payload)| payload.as_str().len()).sum()
    }
}
