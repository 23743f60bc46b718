//! Encodes spans as messages, each with one trace and no larger than the topic accepts. Pure.

use std::collections::HashMap;

use super::options::Options;
use crate::sinks::Delivery;
use crate::sinks::http::{Body, cut_items};
use crate::sinks::otlp::encode::{Encoder, FRAME_BYTES};
use crate::sinks::shrink::otlp::shrink;
use crate::span::otlp::protobuf;
use crate::span::{Span, TraceId};

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

/// Spans of one trace and one tenant.
#[derive(Default)]
struct Group<'a> {
    received_at_ns: u64,
    places: Vec<usize>,
    spans: Vec<Option<&'a Span>>,
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
    let mut messages = Vec::new();
    for ((trace, tenant), group) in groups(delivery) {
        let bodies = cut_items(&group.spans, bytes_max, FRAME_BYTES, |out, spans| {
            protobuf::write_request_in(out, spans.iter().copied(), &encoder);
        });
        messages.extend(bodies.into_iter().map(|Body { items, message }| Message {
            trace,
            tenant: tenant.to_owned(),
            received_at_ns: group.received_at_ns,
            places: group.places.get(items).unwrap_or_default().to_vec(),
            value: fitting(message, bytes_max),
        }));
    }
    messages
}

/// Groups the spans by trace and tenant, in the order of first appearance.
fn groups(delivery: &Delivery) -> Vec<((TraceId, &str), Group<'_>)> {
    let mut groups: Vec<((TraceId, &str), Group<'_>)> = Vec::new();
    let mut known: HashMap<(TraceId, &str), usize> = HashMap::new();
    for (place, (batch, item)) in delivery.items().enumerate() {
        let Some(span) = item.as_span() else { continue };
        let key = (span.trace_id, batch.source.tenant.as_str());
        let received_at_ns = batch.source.received_at_ns;
        let at = *known.entry(key).or_insert_with(|| {
            groups.push((key, Group { received_at_ns, ..Group::default() }));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(at) {
            group.received_at_ns = group.received_at_ns.min(received_at_ns);
            group.places.push(place);
            group.spans.push(Some(span));
        }
    }
    groups
}

fn fitting(message: Vec<u8>, bytes_max: usize) -> Option<Vec<u8>> {
    if message.len() <= bytes_max {
        return Some(message);
    }
    shrink(&message, bytes_max, TRUNCATED, |key| NEEDED.iter().any(|it| key.starts_with(it)))
}
