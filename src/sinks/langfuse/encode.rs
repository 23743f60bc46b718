//! Spans become request bodies. Pure.
//!
//! What is due at once and too large for one request is cut into several, at the same places each time.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::options::Settings;
use super::reads::{are_usable, is_model, is_usage, usable_ones};
use super::rule::LeftOut;
use super::trace::{self, Traces};
use super::{foreign, native};
use crate::sinks::Delivery;
use crate::sinks::shrink::otlp::shrink;
use crate::span::otlp::Words;
use crate::span::otlp::protobuf::{self, write_request_in, write_uint32};
use crate::span::{
    Attribute, Payload, Resource, Scope, Span, Text, Tokens, TraceId, Usage, tokens_of,
};

/// The body of one request, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// Places of its items in the delivery. Trace objects are among them, and nothing is written for these.
    pub(super) items: Range<usize>,
    /// The message, before compression; empty without spans.
    pub(super) message: Vec<u8>,
}

/// What OpenAI said of an answer when it was asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Answer {
    pub(super) model: Option<Text>,
    pub(super) usage: Usage,
    pub(super) output: Option<Payload>,
}

/// What it said of the answers of a delivery.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// By the answers' ids.
    pub(super) by_id: HashMap<Text, Arc<Answer>>,
    /// Traces whose tokens are known from there, now or before.
    pub(super) counted: HashSet<TraceId>,
}

impl Answers {
    /// What it said of this one.
    pub(super) fn get(&self, id: &Text) -> Option<&Answer> {
        self.by_id.get(id).map(AsRef::as_ref)
    }
}

/// Encodes a delivery.
pub(super) fn encode(delivery: &Delivery, settings: &Settings, answers: &Answers) -> Vec<Body> {
    let items: Vec<Option<&Span>> = delivery.items().map(|(_, item)| item.as_span()).collect();
    let traces = Traces::of(delivery, settings);
    let left_out = LeftOut::of(delivery, settings.options.keep);
    let encoding = Encoding { items: &items, settings, traces: &traces, answers, left_out };
    let mut bodies = Vec::new();
    let mut start = 0;
    while start < items.len() {
        let end = encoding.end_of_guess(start);
        encoding.encode(start..end, &mut bodies);
        start = end;
    }
    bodies
}

/// A span is cut no further: a server that takes less than this has another problem.
const SHRUNK_BYTES_MIN: usize = 16 << 10;

/// How many bytes are tried next with a span that was refused with so many.
pub(super) fn next_bytes_max(bytes: usize, settings: &Settings) -> Option<usize> {
    let most = settings.options.request_bytes_max.as_usize();
    let next = if most < bytes { most } else { bytes / 2 };
    Some(next).filter(|next| SHRUNK_BYTES_MIN <= *next)
}

/// A request with one span, cut to so many bytes, with a note in the span's metadata; `None` where that cannot be.
pub(super) fn shrunk(message: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    shrink(message, bytes_max, TRUNCATED, |key| {
        let is_ours = key.starts_with("langfuse.") && !key.contains(".metadata.");
        is_ours || [trace::SESSION, trace::USER].contains(&key) || is_usage(key) || is_model(key)
    })
}

/// Says what was cut, beside the metadata of the client.
const TRUNCATED: &str = "langfuse.observation.metadata.spanferry.truncated";

/// What spans are written with.
pub(super) struct Encoding<'a> {
    items: &'a [Option<&'a Span>],
    pub(super) settings: &'a Settings,
    pub(super) traces: &'a Traces<'a>,
    pub(super) answers: &'a Answers,
    pub(super) left_out: LeftOut,
}

impl Encoding<'_> {
    /// Where a request that starts here ends, going by the size in which its items came.
    fn end_of_guess(&self, start: usize) -> usize {
        let mut bytes = 0;
        for (index, item) in self.items.iter().enumerate().skip(start) {
            bytes += item.map_or(0, |span| span.wire.len() + ADDED_BYTES);
            if self.bytes_max() < bytes && start < index {
                return index;
            }
        }
        self.items.len()
    }

    /// Encodes these items; in halves as long as they are too large together.
    fn encode(&self, items: Range<usize>, bodies: &mut Vec<Body>) {
        let in_range = self.items.get(items.clone()).unwrap_or_default();
        let spans: Vec<&Span> = in_range.iter().copied().flatten().collect();
        let mut message = Vec::new();
        if !spans.is_empty() {
            message.reserve(spans.iter().map(|span| span.wire.len() + ADDED_BYTES).sum());
            write_request_in(&mut message, spans, self);
        }
        if message.len() <= self.bytes_max() || items.len() < 2 {
            bodies.push(Body { items, message });
            return;
        }
        // Gives the memory back before it is needed again.
        drop(message);
        let middle = items.start + items.len() / 2;
        self.encode(items.start..middle, bodies);
        self.encode(middle..items.end, bodies);
    }

    fn bytes_max(&self) -> usize {
        self.settings.options.request_bytes_max.as_usize()
    }

    /// The span's tokens, as far as they count.
    pub(super) fn tokens<'s>(&self, span: &'s Span) -> Tokens<'s> {
        tokens_of(self.traces.get(span.trace_id).and_then(|trace| trace.context), span)
    }
}

/// What is added to a span in the mean, tag and length included.
const ADDED_BYTES: usize = 512;

impl Words for Encoding<'_> {
    fn write_resource(&self, out: &mut Vec<u8>, resource: &Resource, wire: &[u8], _: bool) {
        let dropped = resource.dropped_attributes_count;
        write_holder(out, wire, 2, dropped, |_| {}, (1, &resource.attributes));
    }

    fn write_scope(&self, out: &mut Vec<u8>, scope: &Scope, wire: &[u8]) {
        let dropped = scope.dropped_attributes_count;
        let names = |out: &mut Vec<u8>| {
            protobuf::write_text(out, 1, &scope.name);
            protobuf::write_text(out, 2, &scope.version);
        };
        write_holder(out, wire, 4, dropped, names, (3, &scope.attributes));
    }

    fn bytes_guess(&self, span: &Span) -> usize {
        span.wire.len() + ADDED_BYTES
    }

    fn write_span(&self, out: &mut Vec<u8>, span: &Span) {
        if span.is_otlp() {
            foreign::write(out, span, self);
        } else {
            native::write(out, span, self);
        }
    }
}

/// Appends the fields of a resource or scope: as it came, unless it has attributes that Langfuse cannot use.
fn write_holder(
    out: &mut Vec<u8>,
    wire: &[u8],
    dropped_number: u32,
    dropped: u32,
    names: impl FnOnce(&mut Vec<u8>),
    (number, attributes): (u32, &[Attribute]),
) {
    if are_usable(attributes) {
        out.extend_from_slice(wire);
        return;
    }
    names(out);
    for attribute in usable_ones(attributes) {
        protobuf::write_attribute(out, number, &attribute.key, &attribute.value);
    }
    write_uint32(out, dropped_number, dropped);
}
