//! OTLP in protobuf: single fields, spans, and complete `ExportTraceServiceRequest` messages.

use std::borrow::Cow;
use std::iter;

use prost::encoding::{encode_varint, encoded_len_varint};

use super::message::{AsSent, Encoding, Field};
pub use super::message::{
    SMALL_BYTES, write_lone_request, write_request_in, write_resource, write_scope, write_span,
};
use crate::span::{Attribute, Resource, Scope, Span, Value};

/// Appends an `ExportTraceServiceRequest` with these spans.
pub fn write_request<'a>(out: &mut Vec<u8>, spans: impl IntoIterator<Item = &'a Span>) {
    write_request_in(out, spans, &AsSent);
}

/// Returns the `Resource` message: as sent, or encoded from its fields.
pub fn resource(resource: &Resource) -> Cow<'_, [u8]> {
    as_sent(&resource.wire, |out| write_resource(out, resource, iter::empty()))
}

/// Returns the `InstrumentationScope` message: as sent, or encoded from its fields.
pub fn scope(scope: &Scope) -> Cow<'_, [u8]> {
    as_sent(&scope.wire, |out| write_scope(out, scope))
}

fn as_sent(wire: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Cow<'_, [u8]> {
    if !wire.is_empty() {
        return Cow::Borrowed(wire);
    }
    let mut out = Vec::new();
    write(&mut out);
    Cow::Owned(out)
}

impl Encoding for Vec<u8> {
    fn text(&mut self, field: Field, text: &str) {
        write_text(self, field.0, text);
    }

    fn id(&mut self, field: Field, id: &[u8]) {
        write_bytes(self, field.0, id);
    }

    fn number(&mut self, field: Field, number: i64) {
        if number != 0 {
            write_varint_field(self, field.0, number.cast_unsigned());
        }
    }

    fn fixed32(&mut self, field: Field, number: u32) {
        write_fixed32(self, field.0, number);
    }

    fn fixed64(&mut self, field: Field, number: u64) {
        write_fixed64(self, field.0, number);
    }

    fn attributes<'a>(
        &mut self,
        field: Field,
        attributes: impl IntoIterator<Item = &'a Attribute>,
    ) {
        for attribute in attributes {
            write_attribute(self, field.0, &attribute.key, &attribute.value);
        }
    }

    fn message(&mut self, field: Field, bytes_guess: usize, write: impl FnOnce(&mut Self)) {
        let start = self.len();
        let message = open_message(self, field.0, bytes_guess);
        write(self);
        if self.len() == message.content {
            self.truncate(start);
        } else {
            close_message(self, message);
        }
    }

    fn messages<T: Copy>(
        &mut self,
        field: Field,
        elements: impl IntoIterator<Item = T>,
        bytes_guess: impl Fn(T) -> usize,
        mut write: impl FnMut(&mut Self, T),
    ) {
        for element in elements {
            let message = open_message(self, field.0, bytes_guess(element));
            write(self, element);
            close_message(self, message);
        }
    }

    fn pass_on(&mut self, message: &[u8]) -> bool {
        self.extend_from_slice(message);
        !message.is_empty()
    }

    fn lone(&mut self, field: Field, message: &[u8]) {
        write_bytes(self, field.0, message);
    }
}

/// Appends an attribute with a text value under this field number.
pub fn write_text_attribute(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let value_bytes = field_bytes(text.len());
    let key_bytes = if key.is_empty() { 0 } else { field_bytes(key.len()) };
    write_head(out, number, key_bytes + field_bytes(value_bytes));
    write_text(out, 1, key);
    write_head(out, 2, value_bytes);
    write_bytes(out, 1, text.as_bytes());
}

/// Returns the size of a field with this much content and a tag of one byte.
fn field_bytes(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
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

/// Returns the length of a value if it is known without looking inside.
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
        // Members of a oneof are written even with their default value.
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
            out.attributes(Field(1, ""), entries);
            close_message(out, map);
        }
        Value::Bytes(bytes) => write_bytes(out, 7, bytes),
    }
}

// === Fields ===

/// An unfinished message, whose length is not known yet.
#[derive(Debug)]
#[must_use]
pub struct Open {
    /// Start of its content.
    content: usize,
    /// Number of bytes reserved before it for its length.
    width: usize,
}

/// Begins a message, or any length-delimited field. A good guess of its length avoids moving its content at the end; a guess that is too
/// high costs a byte or two of padding, which every reader accepts.
pub fn open_message(out: &mut Vec<u8>, number: u32, bytes_guess: usize) -> Open {
    let width = encoded_len_varint(bytes_guess as u64);
    if width == 1 {
        write_head(out, number, 0);
    } else {
        write_tag(out, number, LENGTH_DELIMITED);
        out.resize(out.len() + width, 0);
    }
    Open { content: out.len(), width }
}

/// Ends a message and writes its length.
#[expect(clippy::needless_pass_by_value, reason = "a message ends once")]
pub fn close_message(out: &mut Vec<u8>, message: Open) {
    let Open { mut content, width } = message;
    let length = out.len().saturating_sub(content);
    let needed = encoded_len_varint(length as u64);
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

/// Appends bytes, even if there are none.
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

/// Appends a varint, even if it is 0: an integer, boolean or enum inside a oneof.
pub fn write_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    write_tag(out, number, VARINT);
    encode_varint(value, out);
}

/// Appends a `fixed64`, unless it is 0.
pub fn write_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        write_fixed64_bits(out, number, value);
    }
}

/// Appends a `fixed64`, even if it is 0: a double inside a oneof.
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
    encode_varint(u64::from((number << 3) | wire_type), out);
}

/// Appends tag and length for this much content: usually two bytes.
#[inline]
fn write_head(out: &mut Vec<u8>, number: u32, content: usize) {
    let tag = (number << 3) | LENGTH_DELIMITED;
    if let (Ok(tag @ ..0x80), Ok(length @ ..0x80)) = (u8::try_from(tag), u8::try_from(content)) {
        out.extend_from_slice(&[tag, length]);
    } else {
        encode_varint(u64::from(tag), out);
        encode_varint(content as u64, out);
    }
}
