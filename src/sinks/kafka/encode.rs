//! Encodes spans as messages, each with one trace and no larger than the topic accepts. Pure.

use super::options::Options;
use crate::sinks::Delivery;
use crate::sinks::http::{Body, cut_items};
use crate::sinks::otlp::encode::{Encoder, FRAME_BYTES};
use crate::sinks::shrink::otlp::shrink;
use crate::span::otlp::protobuf;
use crate::span::{Source, Span, TraceId};

/// The attribute that lists which texts of a span were cut.
const TRUNCATED: &str = "spanferry.truncated";
/// Prefixes of attributes that identify a span, which are never cut.
const NEEDED: [&str; 6] = ["gen_ai.", "llm.", "openinference.", "session.", "user.", "tag."];

/// A message and its contents.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) trace: TraceId,
    pub(super) tenant: String,
    /// The earliest time at which one of its items was received, in nanoseconds since 1970.
    pub(super) received_at_ns: u64,
    /// Places of its items in the delivery.
    pub(super) places: Vec<usize>,
    /// `None` if no message can hold its only item.
    pub(super) value: Option<Vec<u8>>,
}

/// A span with its place in the delivery, and the request that brought it.
type Placed<'a> = (usize, &'a Source, &'a Span);

/// Returns what all spans of a message have in common: the tenant and the trace.
fn key<'a>((_, source, span): &Placed<'a>) -> (&'a str, TraceId) {
    (&source.tenant, span.trace_id)
}

/// Encodes a delivery as messages whose values have at most so many bytes. The same delivery yields the same messages. Trace objects are
/// not sent.
pub(super) fn encode(delivery: &Delivery, options: &Options, bytes_max: usize) -> Vec<Message> {
    let encoder = Encoder {
        delivery,
        dialect: options.dialect,
        root: options.root_span,
        resource_attributes: &[],
        is_for_backend: false,
    };
    let placed = delivery.items().enumerate();
    let placed = placed.filter_map(|(place, (batch, item))| {
        let span = item.as_span()?;
        Some((place, &batch.source, span))
    });
    let mut placed: Vec<Placed<'_>> = placed.collect();
    // The spans of a trace keep their order.
    placed.sort_by(|a, b| key(a).cmp(&key(b)));
    let is_needed = |key: &str| NEEDED.iter().any(|start| key.starts_with(start));
    let mut messages = Vec::new();
    for group in placed.chunk_by(|a, b| key(a) == key(b)) {
        let Some((tenant, trace)) = group.first().map(key) else { continue };
        let received = group.iter().map(|(_, source, _)| source.received_at_ns).min();
        let spans: Vec<_> = group.iter().map(|(.., span)| Some(*span)).collect();
        let bodies = cut_items(&spans, bytes_max, FRAME_BYTES, |out, spans| {
            protobuf::write_request_in(out, spans.iter().copied(), &encoder);
        });
        messages.extend(bodies.into_iter().map(|Body { items, message }| Message {
            trace,
            tenant: tenant.to_owned(),
            received_at_ns: received.unwrap_or_default(),
            places: group.get(items).into_iter().flatten().map(|(place, ..)| *place).collect(),
            value: if message.len() <= bytes_max {
                Some(message)
            } else {
                shrink(&message, bytes_max, TRUNCATED, is_needed)
            },
        }));
    }
    messages
}
