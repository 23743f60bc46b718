//! Splits a delivery that is too large for one request, at the same places each time. Pure.

use std::ops::Range;

use crate::sinks::Delivery;
use crate::span::Span;

/// The body of one request, and its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The indices of its items in the delivery. They include trace objects, for which nothing is written.
    pub items: Range<usize>,
    /// The message, before compression and framing; empty without spans.
    pub message: Vec<u8>,
}

/// Writes a delivery as requests with as many items as fit into `bytes_max`, by their received size plus the average addition to a span. A
/// request that is still too large is split in halves. An item that is too large gets its own request.
pub(in crate::sinks) fn cut(
    delivery: &Delivery,
    bytes_max: usize,
    added_bytes: usize,
    write: impl Fn(&mut Vec<u8>, &[&Span]),
) -> Vec<Body> {
    let all: Vec<Option<&Span>> = delivery.items().map(|(_, item)| item.as_span()).collect();
    cut_items(&all, bytes_max, added_bytes, write)
}

/// Writes some items in the same way; a trace object is `None`.
pub(in crate::sinks) fn cut_items(
    all: &[Option<&Span>],
    bytes_max: usize,
    added_bytes: usize,
    write: impl Fn(&mut Vec<u8>, &[&Span]),
) -> Vec<Body> {
    let mut bodies = Vec::new();
    let mut to_write = Vec::from_iter((!all.is_empty()).then_some(0..all.len()));
    while let Some(items) = to_write.pop() {
        let some = all.get(items.clone()).unwrap_or_default();
        let mut bytes = 0;
        let fitting = some.iter().take_while(|item| {
            bytes += item.map_or(0, |span| span.wire.len() + added_bytes);
            bytes <= bytes_max
        });
        let mut count = fitting.count().max(1);
        if some.len() <= count {
            let spans: Vec<&Span> = some.iter().copied().flatten().collect();
            let mut message = Vec::new();
            if !spans.is_empty() {
                message.reserve(bytes + ENVELOPE_BYTES);
                write(&mut message, &spans);
            }
            if message.len() <= bytes_max || some.len() < 2 {
                bodies.push(Body { items, message });
                continue;
            }
            count = some.len() / 2;
        }
        let middle = items.start + count;
        to_write.extend([middle..items.end, items.start..middle]);
    }
    bodies
}

/// The size of a usual resource and scope, in bytes.
const ENVELOPE_BYTES: usize = 1 << 10;
