//! OTLP in its JSON mapping: ids in hexadecimal, 64-bit integers as strings, enums as numbers, bytes in base64.
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Fields that hold their default are left out.

use super::{Changes, Groups};
use crate::span::plain::write_quoted;
use crate::span::{Attribute, Detail, Link, Resource, Scope, Span, SpanEvent, SpanId, Value};
use crate::support::json::{write_f64, write_i64, write_str, write_u64};

/// Appends a whole request, `{"resourceSpans":[...]}`, without a line break.
pub fn write_request<'a>(out: &mut Vec<u8>, spans: impl IntoIterator<Item = &'a Span>) {
    write_changed_request(out, spans, &Changes::default());
}

/// Appends a whole request with these changes, without a line break.
pub fn write_changed_request<'a>(
    out: &mut Vec<u8>,
    spans: impl IntoIterator<Item = &'a Span>,
    changes: &Changes<'_>,
) {
    out.extend_from_slice(b"{\"resourceSpans\":");
    write_list(out, &Groups::of(spans), |out, group| {
        let mut members = Members::open(out);
        let missing = changes.missing_in(group.resource, group.is_native);
        write_resource(&mut members, group.resource, missing);
        let scopes = members.member("scopeSpans");
        write_list(scopes, &group.scopes, |out, group| {
            let mut members = Members::open(out);
            write_scope(&mut members, group.scope);
            write_list(members.member("spans"), &group.spans, |out, span| {
                let other = changes.detail.and_then(|rewrite| rewrite(span));
                let detail = other.as_ref().unwrap_or_else(|| span.detail());
                write_span_below(out, span, changes.parent_of(span), detail);
            });
            members.text("schemaUrl", &group.scope.schema_url);
            members.close();
        });
        members.text("schemaUrl", &group.resource.schema_url);
        members.close();
    });
    out.push(b'}');
}

/// Appends a whole request with one span, given as JSON text, which need not be a span that can be read.
pub fn write_lone_request(out: &mut Vec<u8>, scope: &Scope, span: &[u8]) {
    out.extend_from_slice(b"{\"resourceSpans\":[");
    let mut members = Members::open(out);
    write_resource(&mut members, &scope.resource, std::iter::empty());
    let scopes = members.member("scopeSpans");
    scopes.push(b'[');
    let mut inner = Members::open(scopes);
    write_scope(&mut inner, scope);
    let spans = inner.member("spans");
    spans.push(b'[');
    spans.extend_from_slice(span);
    spans.push(b']');
    inner.text("schemaUrl", &scope.schema_url);
    inner.close();
    scopes.push(b']');
    members.text("schemaUrl", &scope.resource.schema_url);
    members.close();
    out.extend_from_slice(b"]}");
}

/// Appends one span as a JSON object.
pub fn write_span(out: &mut Vec<u8>, span: &Span) {
    write_span_below(out, span, span.parent_id, span.detail());
}

/// Appends one span as a JSON object: its ids and times, this parent, and this detail.
pub fn write_span_below(
    out: &mut Vec<u8>,
    span: &Span,
    parent_id: Option<SpanId>,
    detail: &Detail,
) {
    let mut members = Members::open(out);
    members.hex("traceId", &span.trace_id.to_hex());
    members.hex("spanId", &span.span_id.to_hex());
    members.text("traceState", &detail.trace_state);
    if let Some(parent_id) = parent_id {
        members.hex("parentSpanId", &parent_id.to_hex());
    }
    members.number("flags", i64::from(detail.flags));
    members.text("name", &detail.name);
    members.number("kind", i64::from(detail.kind));
    members.long("startTimeUnixNano", span.start_ns);
    members.long("endTimeUnixNano", span.end_ns);
    members.attributes("attributes", &detail.attributes);
    members.number("droppedAttributesCount", i64::from(detail.dropped_attributes_count));
    if !detail.events.is_empty() {
        write_list(members.member("events"), &detail.events, write_event);
    }
    members.number("droppedEventsCount", i64::from(detail.dropped_events_count));
    if !detail.links.is_empty() {
        write_list(members.member("links"), &detail.links, write_link);
    }
    members.number("droppedLinksCount", i64::from(detail.dropped_links_count));
    if !detail.status_message.is_empty() || detail.status_code != 0 {
        let mut status = Members::open(members.member("status"));
        status.text("message", &detail.status_message);
        status.number("code", i64::from(detail.status_code));
        status.close();
    }
    members.close();
}

fn write_resource<'a>(
    members: &mut Members<'_>,
    resource: &'a Resource,
    missing: impl Iterator<Item = &'a Attribute>,
) {
    let mut inner = Members::open(members.member("resource"));
    let attributes: Vec<_> = resource.attributes.iter().chain(missing).collect();
    if !attributes.is_empty() {
        write_list(inner.member("attributes"), &attributes, |out, attribute| {
            write_attribute(out, attribute);
        });
    }
    inner.number("droppedAttributesCount", i64::from(resource.dropped_attributes_count));
    inner.close();
}

fn write_scope(members: &mut Members<'_>, scope: &Scope) {
    let mut inner = Members::open(members.member("scope"));
    inner.text("name", &scope.name);
    inner.text("version", &scope.version);
    inner.attributes("attributes", &scope.attributes);
    inner.number("droppedAttributesCount", i64::from(scope.dropped_attributes_count));
    inner.close();
}

fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    let mut members = Members::open(out);
    members.long("timeUnixNano", event.time_ns);
    members.text("name", &event.name);
    members.attributes("attributes", &event.attributes);
    members.number("droppedAttributesCount", i64::from(event.dropped_attributes_count));
    members.close();
}

fn write_link(out: &mut Vec<u8>, link: &Link) {
    let mut members = Members::open(out);
    members.hex("traceId", &link.trace_id.to_hex());
    members.hex("spanId", &link.span_id.to_hex());
    members.text("traceState", &link.trace_state);
    members.attributes("attributes", &link.attributes);
    members.number("droppedAttributesCount", i64::from(link.dropped_attributes_count));
    members.number("flags", i64::from(link.flags));
    members.close();
}

fn write_attribute(out: &mut Vec<u8>, attribute: &Attribute) {
    let mut members = Members::open(out);
    write_str(members.member("key"), &attribute.key);
    write_value(members.member("value"), &attribute.value);
    members.close();
}

/// Appends an `AnyValue` object: `{"stringValue":"..."}` and so on; `{}` for none.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    let mut members = Members::open(out);
    match value {
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
        Value::Array(elements) => {
            write_list_message(members.member("arrayValue"), elements, write_value);
        }
        Value::Map(entries) => {
            write_list_message(members.member("kvlistValue"), entries, write_attribute);
        }
    }
    members.close();
}

fn write_list<T>(out: &mut Vec<u8>, elements: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        if index != 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

/// An `ArrayValue` or `KeyValueList`: an object around the list. An empty list is written too: readers in Rust that are made with
/// serde want it.
fn write_list_message<T>(out: &mut Vec<u8>, elements: &[T], write: impl FnMut(&mut Vec<u8>, &T)) {
    let mut members = Members::open(out);
    write_list(members.member("values"), elements, write);
    members.close();
}

/// An object that is being written.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    separator: &'static [u8],
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b"{\"" }
    }

    /// Writes a member's name, which needs no escape; the value is written next.
    fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(self.separator);
        self.separator = b",\"";
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            write_str(self.member(name), text);
        }
    }

    fn hex(&mut self, name: &'static str, digits: &[u8]) {
        let out = self.member(name);
        out.push(b'"');
        out.extend_from_slice(digits);
        out.push(b'"');
    }

    fn number(&mut self, name: &'static str, number: i64) {
        if number != 0 {
            write_i64(self.member(name), number);
        }
    }

    fn long(&mut self, name: &'static str, number: u64) {
        if number != 0 {
            let out = self.member(name);
            out.push(b'"');
            write_u64(out, number);
            out.push(b'"');
        }
    }

    fn attributes(&mut self, name: &'static str, attributes: &[Attribute]) {
        if !attributes.is_empty() {
            write_list(self.member(name), attributes, write_attribute);
        }
    }

    fn close(self) {
        // Nothing was written yet if the opening brace is still due.
        self.out.extend_from_slice(if self.separator == b"{\"" { b"{}" } else { b"}" });
    }
}
