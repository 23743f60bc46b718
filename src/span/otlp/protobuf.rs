//! OTLP in protobuf: fields, spans, and whole `ExportTraceServiceRequest` messages.
//!
//! Field numbers are those of opentelemetry-proto 1.x, `trace.proto`, `common.proto` and `resource.proto`. As proto3 has it, fields
//! that hold their default are not written.

use std::borrow::Cow;

use super::{Changes, Groups};
use crate::span::{Attribute, Detail, Link, Resource, Scope, Span, SpanEvent, SpanId, Value};

/// Appends an `ExportTraceServiceRequest` with these spans.
pub fn write_request<'a>(out: &mut Vec<u8>, spans: impl IntoIterator<Item = &'a Span>) {
    write_changed_request(out, spans, &Changes::default());
}

/// Appends an `ExportTraceServiceRequest` with these spans and these changes.
pub fn write_changed_request<'a>(
    out: &mut Vec<u8>,
    spans: impl IntoIterator<Item = &'a Span>,
    changes: &Changes<'_>,
) {
    write_request_in(out, spans, changes);
}

/// How a request's messages are written where they do not go out as they came in.
pub trait Words {
    /// Appends the field of a resource, number 1, given the message as it is; nothing where there is nothing to say.
    fn write_resource(&self, out: &mut Vec<u8>, resource: &Resource, wire: &[u8], is_native: bool);

    /// Appends the field of a scope, number 1, likewise.
    fn write_scope(&self, out: &mut Vec<u8>, _scope: &Scope, wire: &[u8]) {
        if !wire.is_empty() {
            write_bytes(out, 1, wire);
        }
    }

    /// Appends the field of a span under this number.
    fn write_span(&self, out: &mut Vec<u8>, number: u32, span: &Span);
}

impl Words for Changes<'_> {
    fn write_resource(&self, out: &mut Vec<u8>, resource: &Resource, wire: &[u8], is_native: bool) {
        let missing = || self.missing_in(resource, is_native);
        if missing().next().is_none() {
            if !wire.is_empty() {
                write_bytes(out, 1, wire);
            }
            return;
        }
        // As it is, and behind it what it does not have. A message may go on after its end was thought of: its repeated fields grow.
        let message = open_message(out, 1, wire.len() + SMALL_BYTES);
        out.extend_from_slice(wire);
        write_attributes(out, 1, missing());
        close_message(out, message);
    }

    fn write_span(&self, out: &mut Vec<u8>, number: u32, span: &Span) {
        write_span_field(out, number, span, self);
    }
}

/// Appends an `ExportTraceServiceRequest` with these spans, in these words.
pub fn write_request_in<'a>(
    out: &mut Vec<u8>,
    spans: impl IntoIterator<Item = &'a Span>,
    words: &impl Words,
) {
    for resource in Groups::of(spans) {
        let bytes: usize = resource.scopes.iter().map(|scope| wire_bytes(&scope.spans)).sum();
        let resource_spans = open_message(out, 1, bytes);
        words.write_resource(out, resource.resource, &resource.wire, resource.is_native);
        for scope in &resource.scopes {
            let scope_spans = open_message(out, 2, wire_bytes(&scope.spans));
            words.write_scope(out, scope.scope, &scope.wire);
            for span in &scope.spans {
                words.write_span(out, 2, span);
            }
            write_text(out, 3, &scope.scope.schema_url);
            close_message(out, scope_spans);
        }
        write_text(out, 3, &resource.resource.schema_url);
        close_message(out, resource_spans);
    }
}

/// Appends an `ExportTraceServiceRequest` with one span, given as its bytes, which need not be a span that can be read.
pub fn write_lone_request(out: &mut Vec<u8>, scope: &Scope, span: &[u8]) {
    let resource = &scope.resource;
    let resource_spans = open_message(out, 1, span.len() + SMALL_BYTES);
    let wire = self::resource(resource);
    if !wire.is_empty() {
        write_bytes(out, 1, &wire);
    }
    let scope_spans = open_message(out, 2, span.len() + SMALL_BYTES);
    let wire = self::scope(scope);
    if !wire.is_empty() {
        write_bytes(out, 1, &wire);
    }
    write_bytes(out, 2, span);
    write_text(out, 3, &scope.schema_url);
    close_message(out, scope_spans);
    write_text(out, 3, &resource.schema_url);
    close_message(out, resource_spans);
}

/// About as many bytes as a list of these spans takes.
fn wire_bytes(spans: &[&Span]) -> usize {
    // A tag and a length of up to three bytes stand before each.
    spans.iter().map(|span| span.wire.len() + 4).sum()
}

fn write_span_field(out: &mut Vec<u8>, number: u32, span: &Span, changes: &Changes<'_>) {
    let other = changes.detail.and_then(|rewrite| rewrite(span));
    if span.is_otlp() && other.is_none() {
        write_bytes(out, number, &span.wire);
        return;
    }
    let message = open_message(out, number, span.wire.len());
    let detail = other.as_ref().unwrap_or_else(|| span.detail());
    write_span_below(out, span, changes.parent_of(span), detail);
    close_message(out, message);
}

/// Appends the fields of a `Span` message: the span's ids and times, and this detail.
pub fn write_span(out: &mut Vec<u8>, span: &Span, detail: &Detail) {
    write_span_below(out, span, span.parent_id, detail);
}

/// As [`write_span`], below this parent.
pub fn write_span_below(
    out: &mut Vec<u8>,
    span: &Span,
    parent_id: Option<SpanId>,
    detail: &Detail,
) {
    write_bytes(out, 1, span.trace_id.as_bytes());
    write_bytes(out, 2, span.span_id.as_bytes());
    write_text(out, 3, &detail.trace_state);
    if let Some(parent_id) = parent_id {
        write_bytes(out, 4, parent_id.as_bytes());
    }
    write_text(out, 5, &detail.name);
    write_int32(out, 6, detail.kind);
    write_fixed64(out, 7, span.start_ns);
    write_fixed64(out, 8, span.end_ns);
    write_attributes(out, 9, &detail.attributes);
    write_uint32(out, 10, detail.dropped_attributes_count);
    for event in &detail.events {
        write_event(out, event);
    }
    write_uint32(out, 12, detail.dropped_events_count);
    for link in &detail.links {
        write_link(out, link);
    }
    write_uint32(out, 14, detail.dropped_links_count);
    write_status_and_flags(out, detail);
}

/// Appends the last fields of a `Span` message: its status, where it has one, and its flags.
pub fn write_status_and_flags(out: &mut Vec<u8>, detail: &Detail) {
    if !detail.status_message.is_empty() || detail.status_code != 0 {
        let status = open_message(out, 15, detail.status_message.len());
        write_text(out, 2, &detail.status_message);
        write_int32(out, 3, detail.status_code);
        close_message(out, status);
    }
    write_fixed32(out, 16, detail.flags);
}

/// The `Resource` message: as sent, or made from what is known of it.
pub fn resource(resource: &Resource) -> Cow<'_, [u8]> {
    if !resource.wire.is_empty() {
        return Cow::Borrowed(&resource.wire);
    }
    let mut out = Vec::new();
    write_attributes(&mut out, 1, &resource.attributes);
    write_uint32(&mut out, 2, resource.dropped_attributes_count);
    Cow::Owned(out)
}

/// The `InstrumentationScope` message: as sent, or made from what is known of it.
pub fn scope(scope: &Scope) -> Cow<'_, [u8]> {
    if !scope.wire.is_empty() {
        return Cow::Borrowed(&scope.wire);
    }
    let mut out = Vec::new();
    write_text(&mut out, 1, &scope.name);
    write_text(&mut out, 2, &scope.version);
    write_attributes(&mut out, 3, &scope.attributes);
    write_uint32(&mut out, 4, scope.dropped_attributes_count);
    Cow::Owned(out)
}

/// Appends an event of a span.
pub fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    let message = open_message(out, 11, SMALL_BYTES);
    write_fixed64(out, 1, event.time_ns);
    write_text(out, 2, &event.name);
    write_attributes(out, 3, &event.attributes);
    write_uint32(out, 4, event.dropped_attributes_count);
    close_message(out, message);
}

/// Appends a link of a span.
pub fn write_link(out: &mut Vec<u8>, link: &Link) {
    let message = open_message(out, 13, SMALL_BYTES);
    write_bytes(out, 1, link.trace_id.as_bytes());
    write_bytes(out, 2, link.span_id.as_bytes());
    write_text(out, 3, &link.trace_state);
    write_attributes(out, 4, &link.attributes);
    write_uint32(out, 5, link.dropped_attributes_count);
    write_fixed32(out, 6, link.flags);
    close_message(out, message);
}

fn write_attributes<'a>(
    out: &mut Vec<u8>,
    number: u32,
    attributes: impl IntoIterator<Item = &'a Attribute>,
) {
    for attribute in attributes {
        write_attribute(out, number, &attribute.key, &attribute.value);
    }
}

/// Appends an attribute with a text under this field number.
pub fn write_text_attribute(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let value_bytes = field_bytes(text.len());
    let key_bytes = if key.is_empty() { 0 } else { field_bytes(key.len()) };
    write_head(out, number, key_bytes + field_bytes(value_bytes));
    write_text(out, 1, key);
    write_head(out, 2, value_bytes);
    write_bytes(out, 1, text.as_bytes());
}

/// Bytes of a field with this much content, where its tag takes one.
fn field_bytes(content: usize) -> usize {
    1 + varint_width(content as u64) + content
}

/// Appends an attribute under this field number.
pub fn write_attribute(out: &mut Vec<u8>, number: u32, key: &str, value: &Value) {
    if let Value::Text(text) = value {
        return write_text_attribute(out, number, key, text);
    }
    let value_bytes = text_bytes(value);
    let message = open_message(out, number, key.len() + value_bytes + 8);
    write_text(out, 1, key);
    let inner = open_message(out, 2, value_bytes + 4);
    write_value(out, value);
    close_message(out, inner);
    close_message(out, message);
}

/// The length of a value where it is known without looking inside.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// Appends the fields of an `AnyValue`.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => {}
        // Members of a oneof are written even where they hold their default.
        Value::Text(text) => write_bytes(out, 1, text.as_bytes()),
        Value::Bool(value) => write_varint_field(out, 2, u64::from(*value)),
        Value::Int(value) => write_varint_field(out, 3, value.cast_unsigned()),
        Value::Double(value) => write_fixed64_bits(out, 4, value.to_bits()),
        Value::Array(elements) => {
            let array = open_message(out, 5, SMALL_BYTES);
            for element in elements {
                let message = open_message(out, 1, text_bytes(element) + 4);
                write_value(out, element);
                close_message(out, message);
            }
            close_message(out, array);
        }
        Value::Map(entries) => {
            let map = open_message(out, 6, SMALL_BYTES);
            write_attributes(out, 1, entries);
            close_message(out, map);
        }
        Value::Bytes(bytes) => write_bytes(out, 7, bytes),
    }
}

// === Fields ===

/// A message whose length is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Open {
    /// Where its content begins.
    content: usize,
    /// Bytes kept free before it for its length.
    width: usize,
}

/// A guess for messages that are mostly short.
pub const SMALL_BYTES: usize = 127;

/// Begins a message, or any length-delimited field. A good guess of its length saves moving its content when it ends; a guess
/// that is too high costs a byte or two of padding, which every reader takes.
pub fn open_message(out: &mut Vec<u8>, number: u32, bytes_guess: usize) -> Open {
    let width = varint_width(bytes_guess as u64);
    if width == 1 {
        write_head(out, number, 0);
    } else {
        write_tag(out, number, LENGTH_DELIMITED);
        out.resize(out.len() + width, 0);
    }
    Open { content: out.len(), width }
}

/// Ends a message: its length is now known.
#[expect(clippy::needless_pass_by_value, reason = "a message ends once")]
pub fn close_message(out: &mut Vec<u8>, message: Open) {
    let Open { mut content, width } = message;
    let length = out.len().saturating_sub(content);
    let needed = varint_width(length as u64);
    if width < needed {
        let missing = needed - width;
        out.resize(out.len() + missing, 0);
        out.copy_within(content..content + length, content + missing);
        content += missing;
    }
    if let (1, Ok(length @ ..0x80)) = (width, u8::try_from(length))
        && let Some(slot) = out.get_mut(content - 1)
    {
        *slot = length;
        return;
    }
    let start = content - needed.max(width);
    let Some(slots) = out.get_mut(start..content) else { return };
    let mut rest = length as u64;
    let mut left = slots.len();
    for slot in slots {
        left -= 1;
        *slot = (rest & 0x7f) as u8 | if left == 0 { 0 } else { 0x80 };
        rest >>= 7;
    }
}

/// Appends text, unless it is empty.
pub fn write_text(out: &mut Vec<u8>, number: u32, text: &str) {
    if !text.is_empty() {
        write_bytes(out, number, text.as_bytes());
    }
}

/// Appends bytes, also when there are none.
pub fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends an enum or `int32`, unless it is 0.
pub fn write_int32(out: &mut Vec<u8>, number: u32, value: i32) {
    if value != 0 {
        write_varint_field(out, number, i64::from(value).cast_unsigned());
    }
}

/// Appends a `uint32`, unless it is 0.
pub fn write_uint32(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        write_varint_field(out, number, u64::from(value));
    }
}

/// Appends a varint, also when it is 0: an integer, boolean or enum inside a oneof.
pub fn write_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    write_tag(out, number, VARINT);
    write_varint(out, value);
}

/// Appends a `fixed64`, unless it is 0.
pub fn write_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        write_fixed64_bits(out, number, value);
    }
}

/// Appends a `fixed64`, also when it is 0: a double inside a oneof.
pub fn write_fixed64_bits(out: &mut Vec<u8>, number: u32, bits: u64) {
    write_tag(out, number, FIXED64);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// Appends a `fixed32`, unless it is 0.
pub fn write_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        write_tag(out, number, FIXED32);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;
const FIXED32: u32 = 5;

fn write_tag(out: &mut Vec<u8>, number: u32, wire_type: u32) {
    write_varint(out, u64::from((number << 3) | wire_type));
}

/// Appends what stands before this much content: mostly two bytes.
#[inline]
fn write_head(out: &mut Vec<u8>, number: u32, content: usize) {
    let tag = (number << 3) | LENGTH_DELIMITED;
    if let (Ok(tag @ ..0x80), Ok(length @ ..0x80)) = (u8::try_from(tag), u8::try_from(content)) {
        out.extend_from_slice(&[tag, length]);
    } else {
        write_varint(out, u64::from(tag));
        write_varint(out, content as u64);
    }
}

fn write_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while 0x80 <= rest {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push((rest & 0x7f) as u8);
}

/// Bytes a number takes as a varint.
fn varint_width(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}
