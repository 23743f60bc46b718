//! OTLP in its JSON mapping: ids in hexadecimal, 64-bit integers as strings, enums as numbers, bytes in base64.
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Fields with their default value are omitted.

use super::message::{self, AsSent, Encoding, Field, MessageWriter};
use crate::span::ids::write_hex;
use crate::span::plain::write_quoted;
use crate::span::{Attribute, Scope, Span, Value};
use crate::support::json::{write_f64, write_integer, write_list, write_str};

/// Appends a complete request, `{"resourceSpans":[...]}`, without a line break.
pub fn write_request<'a>(out: &mut Vec<u8>, spans: impl IntoIterator<Item = &'a Span>) {
    write_object(out, |members| message::write_request_in(members, spans, &AsSent));
}

/// Appends a complete request as `words` writes it, without a line break.
pub fn write_request_in<'a>(
    out: &mut Vec<u8>,
    spans: impl IntoIterator<Item = &'a Span>,
    words: &impl for<'m> MessageWriter<Members<'m>>,
) {
    write_object(out, |members| message::write_request_in(members, spans, words));
}

/// Appends a complete request with one span as JSON text, even if that is not a valid span.
pub fn write_lone_request(out: &mut Vec<u8>, scope: &Scope, span: &[u8]) {
    write_object(out, |members| message::write_lone_request(members, scope, span));
}

/// The members of an object being written.
#[derive(Debug)]
pub struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    /// Writes a member's name, which needs no escaping; the value follows. An opening brace before it identifies the first member, because
    /// no value ends with one.
    fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.0.extend_from_slice(if self.0.ends_with(b"{") { b"\"" } else { b",\"" });
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0
    }
}

impl Encoding for Members<'_> {
    fn text(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            write_str(self.member(field.1), text);
        }
    }

    fn id(&mut self, field: Field, id: &[u8]) {
        let out = self.member(field.1);
        out.push(b'"');
        write_hex(out, id);
        out.push(b'"');
    }

    fn number(&mut self, field: Field, number: i64) {
        if number != 0 {
            write_integer(self.member(field.1), number);
        }
    }

    fn fixed32(&mut self, field: Field, number: u32) {
        self.number(field, number.into());
    }

    fn fixed64(&mut self, field: Field, number: u64) {
        if number != 0 {
            let out = self.member(field.1);
            out.push(b'"');
            write_integer(out, number);
            out.push(b'"');
        }
    }

    fn attributes<'a>(
        &mut self,
        field: Field,
        attributes: impl IntoIterator<Item = &'a Attribute>,
    ) {
        let mut attributes = attributes.into_iter().peekable();
        if attributes.peek().is_some() {
            write_list(self.member(field.1), attributes, write_attribute);
        }
    }

    fn message(&mut self, field: Field, _bytes_guess: usize, write: impl FnOnce(&mut Self)) {
        self.member(field.1).push(b'{');
        write(self);
        self.0.push(b'}');
    }

    fn messages<T: Copy>(
        &mut self,
        field: Field,
        elements: impl IntoIterator<Item = T>,
        _bytes_guess: impl Fn(T) -> usize,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.member(field.1).push(b'[');
        for (index, element) in elements.into_iter().enumerate() {
            self.0.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            write(self, element);
            self.0.push(b'}');
        }
        self.0.push(b']');
    }

    fn pass_on(&mut self, _message: &[u8]) -> bool {
        false
    }

    fn lone(&mut self, field: Field, message: &[u8]) {
        write_list(self.member(field.1), [message], Vec::extend_from_slice);
    }
}

fn write_object(out: &mut Vec<u8>, write: impl FnOnce(&mut Members<'_>)) {
    out.push(b'{');
    write(&mut Members(out));
    out.push(b'}');
}

fn write_attribute(out: &mut Vec<u8>, attribute: &Attribute) {
    write_object(out, |members| {
        write_str(members.member("key"), &attribute.key);
        write_value(members.member("value"), &attribute.value);
    });
}

/// Appends an `AnyValue` object: `{"stringValue":"..."}` and so on; `{}` for no value.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    write_object(out, |members| match value {
        Value::Empty => {}
        Value::Text(text) => write_str(members.member("stringValue"), text),
        Value::Bool(value) => {
            members.member("boolValue").extend_from_slice(if *value { b"true" } else { b"false" });
        }
        Value::Int(_) => write_quoted(members.member("intValue"), value),
        Value::Double(number) if number.is_finite() => {
            write_f64(members.member("doubleValue"), *number);
        }
        Value::Double(_) => write_quoted(members.member("doubleValue"), value),
        Value::Bytes(_) => write_quoted(members.member("bytesValue"), value),
        Value::Array(elements) => write_values(members.member("arrayValue"), elements, write_value),
        Value::Map(entries) => {
            write_values(members.member("kvlistValue"), entries, write_attribute);
        }
    });
}

/// Appends an `ArrayValue` or `KeyValueList`: an object with a list. An empty list is written too, because Rust readers based on serde
/// require it.
fn write_values<T>(out: &mut Vec<u8>, elements: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    write_object(out, |members| write_list(members.member("values"), elements, write));
}
