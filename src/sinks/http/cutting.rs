//! What is due at once and too large for one request is cut into several, at the same places each time. Pure.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::Ready;
use crate::sinks::Delivery;
use crate::span::Span;

/// The body of one request, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sinks) struct Body {
    /// Places of its items in the delivery. Trace objects are among them, and nothing is written for these.
    pub(in crate::sinks) items: Range<usize>,
    /// The message, before compression and framing; empty without spans.
    pub(in crate::sinks) message: Vec<u8>,
}

impl Body {
    /// The request, with its message compressed and framed.
    pub(in crate::sinks) fn ready(
        self,
        seal: impl FnOnce(Vec<u8>) -> io::Result<Bytes>,
    ) -> io::Result<Ready> {
        let Self { items, message } = self;
        let body = if message.is_empty() { None } else { Some(seal(message)?) };
        Ok(Ready { items, body })
    }
}

/// Writes a delivery: as many items together as fit into `bytes_max`, going by the size in which they came and what is added to each
/// span in the mean; in halves as long as what was written is too large. An item that is larger alone is alone.
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

/// A usual resource and scope.
const ENVELOPE_BYTES: usize = 1 << 10;
