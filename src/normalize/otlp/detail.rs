//! Reads complete OTLP messages: spans when a sink first needs them, resources and scopes on arrival.
//!
//! Readers never fail. Arrival has walked these bytes and counted their values. If a message cannot be read nevertheless, everything before
//! the error is kept. Text is sliced, not copied, unless it must be repaired.

use std::sync::Arc;

use bytes::Bytes;

use super::TOO_DEEP_MARKER;
use super::wire::{Content, Fields, last_bytes};
use crate::normalize::Limits;
use crate::span::{
    Attribute, Detail, Link, Resource, Scope, SpanEvent, SpanId, Text, TraceId, Value,
};

/// Reads a `Span` message into an empty detail.
pub(super) fn fill(detail: &mut Detail, wire: &Bytes) {
    let [attributes, events, links] = count(wire, [9, 11, 13]);
    detail.attributes.reserve_exact(attributes);
    detail.events.reserve_exact(events);
    detail.links.reserve_exact(links);
    read_span(wire, detail, |_| true);
}

/// The usual number of attributes that are wanted of a span. The C library allocates less than 1 KiB in half the time of more.
const WANTED_GUESS: usize = 12;

/// Reads a `Span` message with only those attributes that `wants` selects by key and size in bytes.
pub(super) fn span_with(wire: &Bytes, mut wants: impl FnMut(&[u8], usize) -> bool) -> Detail {
    let attributes = Vec::with_capacity(WANTED_GUESS);
    let mut detail = Detail { attributes, ..Detail::default() };
    read_span(wire, &mut detail, |attribute| wants(last_bytes(attribute, 1), attribute.len()));
    detail
}

fn read_span(wire: &Bytes, detail: &mut Detail, mut wants: impl FnMut(&[u8]) -> bool) {
    each(wire, |number, content| match (number, content) {
        (9, Content::Bytes(message)) if wants(message) => {
            detail.attributes.push(attribute(wire, message, 1));
        }
        (3, Content::Bytes(bytes)) => detail.trace_state = text(wire, bytes),
        (5, Content::Bytes(bytes)) => detail.name = text(wire, bytes),
        (6, Content::Varint(kind)) => detail.kind = int32(kind),
        (10, Content::Varint(dropped)) => detail.dropped_attributes_count = uint32(dropped),
        (11, Content::Bytes(message)) => detail.events.push(event(wire, message)),
        (12, Content::Varint(dropped)) => detail.dropped_events_count = uint32(dropped),
        (13, Content::Bytes(message)) => detail.links.extend(link(wire, message)),
        (14, Content::Varint(dropped)) => detail.dropped_links_count = uint32(dropped),
        (15, Content::Bytes(message)) => each(message, |number, content| match (number, content) {
            (2, Content::Bytes(bytes)) => detail.status_message = text(wire, bytes),
            (3, Content::Varint(code)) => detail.status_code = int32(code),
            _ => {}
        }),
        (16, Content::Fixed32(flags)) => detail.flags = flags,
        _ => {}
    });
}

/// Reads a `Resource` message.
pub fn resource_of(wire: Bytes, schema_url: Text) -> Resource {
    let mut resource = Resource { schema_url, ..Resource::default() };
    each(&wire, |number, content| match (number, content) {
        (1, Content::Bytes(message)) => resource.attributes.push(attribute(&wire, message, 1)),
        (2, Content::Varint(dropped)) => resource.dropped_attributes_count = uint32(dropped),
        _ => {}
    });
    Resource { wire, ..resource }
}

/// Reads an `InstrumentationScope` message.
pub fn scope_of(wire: Bytes, schema_url: Text, resource: Arc<Resource>) -> Scope {
    let mut scope = Scope { resource, schema_url, ..Scope::default() };
    each(&wire, |number, content| match (number, content) {
        (1, Content::Bytes(bytes)) => scope.name = text(&wire, bytes),
        (2, Content::Bytes(bytes)) => scope.version = text(&wire, bytes),
        (3, Content::Bytes(message)) => scope.attributes.push(attribute(&wire, message, 1)),
        (4, Content::Varint(dropped)) => scope.dropped_attributes_count = uint32(dropped),
        _ => {}
    });
    Scope { wire, ..scope }
}

/// Calls `visit` with each field of a message, up to the first error.
pub(super) fn each<'a>(message: &'a [u8], mut visit: impl FnMut(u32, Content<'a>)) {
    let mut fields = Fields::new(message);
    while let Ok(Some((number, content))) = fields.next() {
        visit(number, content);
    }
}

/// Counts these fields, so that each list is allocated once.
fn count<const FIELDS: usize>(message: &[u8], wanted: [u32; FIELDS]) -> [usize; FIELDS] {
    let mut counts = [0; FIELDS];
    each(message, |number, _| {
        for (count, wanted) in counts.iter_mut().zip(wanted) {
            *count += usize::from(number == wanted);
        }
    });
    counts
}

fn event(wire: &Bytes, message: &[u8]) -> SpanEvent {
    let mut event = SpanEvent::default();
    each(message, |number, content| match (number, content) {
        (1, Content::Fixed64(time)) => event.time_ns = time,
        (2, Content::Bytes(bytes)) => event.name = text(wire, bytes),
        (3, Content::Bytes(message)) => event.attributes.push(attribute(wire, message, 1)),
        (4, Content::Varint(dropped)) => event.dropped_attributes_count = uint32(dropped),
        _ => {}
    });
    event
}

fn link(wire: &Bytes, message: &[u8]) -> Option<Link> {
    let (mut trace_id, mut span_id) = (None, None);
    let mut trace_state = Text::new();
    let mut attributes = Vec::new();
    let (mut dropped_attributes_count, mut flags) = (0, 0);
    each(message, |number, content| match (number, content) {
        (1, Content::Bytes(id)) => trace_id = TraceId::from_slice(id),
        (2, Content::Bytes(id)) => span_id = SpanId::from_slice(id),
        (3, Content::Bytes(bytes)) => trace_state = text(wire, bytes),
        (4, Content::Bytes(message)) => attributes.push(attribute(wire, message, 1)),
        (5, Content::Varint(dropped)) => dropped_attributes_count = uint32(dropped),
        (6, Content::Fixed32(bits)) => flags = bits,
        _ => {}
    });
    Some(Link {
        trace_id: trace_id?,
        span_id: span_id?,
        trace_state,
        attributes,
        dropped_attributes_count,
        flags,
    })
}

/// Reads a `KeyValue`. `depth` is its value's nesting; an attribute's own value has 1.
fn attribute(wire: &Bytes, message: &[u8], depth: usize) -> Attribute {
    let (mut key, mut value) = (&[][..], Value::Empty);
    each(message, |number, content| match (number, content) {
        (1, Content::Bytes(bytes)) => key = bytes,
        (2, Content::Bytes(message)) => merge_value(&mut value, wire, message, depth),
        _ => {}
    });
    Attribute { key: text(wire, key), value }
}

/// Reads an `AnyValue` and merges it into the earlier one. If a message comes in parts, protobuf appends to lists, and the last of several
/// types wins.
fn merge_value(value: &mut Value, wire: &Bytes, message: &[u8], depth: usize) {
    if Limits::default().depth_max < depth {
        *value = Value::Text(Text::from_static(TOO_DEEP_MARKER));
        return;
    }
    each(message, |number, content| match (number, content) {
        (1, Content::Bytes(bytes)) => *value = Value::Text(text(wire, bytes)),
        (2, Content::Varint(number)) => *value = Value::Bool(number != 0),
        (3, Content::Varint(number)) => *value = Value::Int(number.cast_signed()),
        (4, Content::Fixed64(bits)) => *value = Value::Double(f64::from_bits(bits)),
        (5, Content::Bytes(message)) => {
            if !matches!(value, Value::Array(_)) {
                *value = Value::Array(Vec::new());
            }
            let Value::Array(elements) = value else { return };
            each(message, |number, content| {
                if let (1, Content::Bytes(message)) = (number, content) {
                    let mut element = Value::Empty;
                    merge_value(&mut element, wire, message, depth + 1);
                    elements.push(element);
                }
            });
        }
        (6, Content::Bytes(message)) => {
            if !matches!(value, Value::Map(_)) {
                *value = Value::Map(Vec::new());
            }
            let Value::Map(entries) = value else { return };
            each(message, |number, content| {
                if let (1, Content::Bytes(message)) = (number, content) {
                    entries.push(attribute(wire, message, depth + 1));
                }
            });
        }
        (7, Content::Bytes(bytes)) => *value = Value::Bytes(wire.slice_ref(bytes)),
        // An index into a table that only profiles have.
        (8, Content::Varint(_)) => *value = Value::Empty,
        _ => {}
    });
}

/// Returns text as a slice of the body, or as a copy if it is not UTF-8.
pub(super) fn text(wire: &Bytes, bytes: &[u8]) -> Text {
    match Text::try_from(wire.slice_ref(bytes)) {
        Ok(text) => text,
        Err(_) => Text::from(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn int32(number: u64) -> i32 {
    uint32(number).cast_signed()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "protobuf reads 32-bit integers as the low 32 bits of the varint"
)]
fn uint32(number: u64) -> u32 {
    number as u32
}
