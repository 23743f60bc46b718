//! The messages of OTLP: one list of fields for both encodings.
//!
//! Field numbers and names are those of opentelemetry-proto 1.x, `trace.proto`, `common.proto` and `resource.proto`. As in proto3, fields
//! with their default value are not written.

use std::iter;

use super::{Groups, ResourceGroup, ScopeGroup};
use crate::span::{Attribute, Detail, Link, Resource, Scope, Span, SpanEvent, SpanId};

/// A field: its number in protobuf, and its name in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Field(pub(super) u32, pub(super) &'static str);

/// A message that is being written in one of the encodings.
pub trait Encoding {
    /// Appends text.
    fn text(&mut self, field: Field, text: &str);
    /// Appends a trace's or span's id.
    fn id(&mut self, field: Field, id: &[u8]);
    /// Appends an `int32`, `uint32` or enum.
    fn number(&mut self, field: Field, number: i64);
    /// Appends a `fixed32`.
    fn fixed32(&mut self, field: Field, number: u32);
    /// Appends a `fixed64`.
    fn fixed64(&mut self, field: Field, number: u64);
    /// Appends attributes.
    fn attributes<'a>(&mut self, field: Field, attributes: impl IntoIterator<Item = &'a Attribute>);
    /// Appends a message with the fields that `write` appends. `bytes_guess` is its approximate length. In protobuf an empty one is
    /// omitted.
    fn message(&mut self, field: Field, bytes_guess: usize, write: impl FnOnce(&mut Self));
    /// Appends one message per element in the same way.
    fn messages<T: Copy>(
        &mut self,
        field: Field,
        elements: impl IntoIterator<Item = T>,
        bytes_guess: impl Fn(T) -> usize,
        write: impl FnMut(&mut Self, T),
    );
    /// Appends all fields of a message as they came in protobuf. Returns `false` if it did not come, or this encoding cannot do so.
    fn pass_on(&mut self, message: &[u8]) -> bool;
    /// Appends a message that is already in this encoding, as the only one of its field.
    fn lone(&mut self, field: Field, message: &[u8]);
}

const RESOURCE_SPANS: Field = Field(1, "resourceSpans");
const RESOURCE: Field = Field(1, "resource");
const SCOPE_SPANS: Field = Field(2, "scopeSpans");
const SCOPE: Field = Field(1, "scope");
const SPANS: Field = Field(2, "spans");
const SCHEMA_URL: Field = Field(3, "schemaUrl");

const fn attributes(number: u32) -> Field {
    Field(number, "attributes")
}

const fn dropped_attributes(number: u32) -> Field {
    Field(number, "droppedAttributesCount")
}

/// A guess for messages that are usually short.
pub const SMALL_BYTES: usize = 127;

/// Controls how the messages of a request are written. By default, OTLP spans are written as they came if the encoding allows it.
pub trait MessageWriter<E: Encoding = Vec<u8>> {
    /// Appends the fields of a resource, given the message in protobuf and whether its spans are of the Agents SDK.
    fn write_resource(&self, out: &mut E, resource: &Resource, _wire: &[u8], _is_agents_sdk: bool) {
        write_resource(out, resource, iter::empty());
    }

    /// Appends the fields of a scope, given the message in protobuf.
    fn write_scope(&self, out: &mut E, scope: &Scope, _wire: &[u8]) {
        write_scope(out, scope);
    }

    /// Returns the approximate length of a span, in bytes.
    fn bytes_guess(&self, span: &Span) -> usize {
        span.wire.len()
    }

    /// Appends the fields of a span.
    fn write_span(&self, out: &mut E, span: &Span) {
        if !span.is_otlp() || !out.pass_on(&span.wire) {
            write_span(out, span, (span.start_ns, span.end_ns), span.parent_id, span.detail());
        }
    }
}

/// Writes everything unchanged.
pub(super) struct AsSent;

impl<E: Encoding> MessageWriter<E> for AsSent {}

/// Appends the fields of an `ExportTraceServiceRequest` with these spans, as `words` writes them.
pub fn write_request_in<'a, E: Encoding>(
    out: &mut E,
    spans: impl IntoIterator<Item = &'a Span>,
    words: &impl MessageWriter<E>,
) {
    let bytes_of = |group: &ResourceGroup<'_>| group.scopes.iter().map(scope_bytes).sum();
    out.messages(RESOURCE_SPANS, &Groups::of(spans), bytes_of, |out, group| {
        let ResourceGroup { resource, wire, is_agents_sdk, scopes } = group;
        out.message(RESOURCE, wire.len(), |out| {
            words.write_resource(out, resource, wire, *is_agents_sdk);
        });
        out.messages(SCOPE_SPANS, scopes, scope_bytes, |out, group| {
            let ScopeGroup { scope, wire, spans } = group;
            out.message(SCOPE, wire.len(), |out| words.write_scope(out, scope, wire));
            let spans = spans.iter().copied();
            out.messages(
                SPANS,
                spans,
                |span| words.bytes_guess(span),
                |out, span| words.write_span(out, span),
            );
            out.text(SCHEMA_URL, &scope.schema_url);
        });
        out.text(SCHEMA_URL, &resource.schema_url);
    });
}

/// Returns the approximate size of a scope's spans. Each has a tag and a length of up to three bytes.
fn scope_bytes(group: &ScopeGroup<'_>) -> usize {
    group.spans.iter().map(|span| span.wire.len() + 4).sum()
}

/// Appends the fields of an `ExportTraceServiceRequest` with one span as it was sent in this encoding, even if it is invalid.
pub fn write_lone_request<E: Encoding>(out: &mut E, scope: &Scope, span: &[u8]) {
    let bytes = |()| span.len() + SMALL_BYTES;
    let resource = &scope.resource;
    out.messages(RESOURCE_SPANS, [()], bytes, |out, ()| {
        out.message(RESOURCE, SMALL_BYTES, |out| {
            write_resource(out, resource, iter::empty());
        });
        out.messages(SCOPE_SPANS, [()], bytes, |out, ()| {
            out.message(SCOPE, SMALL_BYTES, |out| write_scope(out, scope));
            out.lone(SPANS, span);
            out.text(SCHEMA_URL, &scope.schema_url);
        });
        out.text(SCHEMA_URL, &resource.schema_url);
    });
}

/// Appends the fields of a resource, unchanged, and `missing` attributes after its own: a repeated field may continue after the rest of the
/// message.
pub fn write_resource<'a, E: Encoding>(
    out: &mut E,
    resource: &'a Resource,
    missing: impl Iterator<Item = &'a Attribute>,
) {
    if out.pass_on(&resource.wire) {
        out.attributes(attributes(1), missing);
    } else {
        out.attributes(attributes(1), resource.attributes.iter().chain(missing));
        out.number(dropped_attributes(2), resource.dropped_attributes_count.into());
    }
}

/// Appends the fields of a scope, unchanged.
pub fn write_scope<E: Encoding>(out: &mut E, scope: &Scope) {
    if !out.pass_on(&scope.wire) {
        out.text(Field(1, "name"), &scope.name);
        out.text(Field(2, "version"), &scope.version);
        out.attributes(attributes(3), &scope.attributes);
        out.number(dropped_attributes(4), scope.dropped_attributes_count.into());
    }
}

/// Appends the fields of a `Span` message: the span's ids, and these times, parent and detail.
pub fn write_span<E: Encoding>(
    out: &mut E,
    span: &Span,
    (start_ns, end_ns): (u64, u64),
    parent_id: Option<SpanId>,
    detail: &Detail,
) {
    out.id(Field(1, "traceId"), span.trace_id.as_bytes());
    out.id(Field(2, "spanId"), span.span_id.as_bytes());
    out.text(Field(3, "traceState"), &detail.trace_state);
    if let Some(parent_id) = parent_id {
        out.id(Field(4, "parentSpanId"), parent_id.as_bytes());
    }
    out.text(Field(5, "name"), &detail.name);
    out.number(Field(6, "kind"), detail.kind.into());
    out.fixed64(Field(7, "startTimeUnixNano"), start_ns);
    out.fixed64(Field(8, "endTimeUnixNano"), end_ns);
    out.attributes(attributes(9), &detail.attributes);
    out.number(dropped_attributes(10), detail.dropped_attributes_count.into());
    write_events(out, &detail.events);
    out.number(Field(12, "droppedEventsCount"), detail.dropped_events_count.into());
    write_links(out, &detail.links);
    out.number(Field(14, "droppedLinksCount"), detail.dropped_links_count.into());
    if !detail.status_message.is_empty() || detail.status_code != 0 {
        out.message(Field(15, "status"), detail.status_message.len(), |out| {
            out.text(Field(2, "message"), &detail.status_message);
            out.number(Field(3, "code"), detail.status_code.into());
        });
    }
    out.fixed32(Field(16, "flags"), detail.flags);
}

/// Appends the events of a span.
fn write_events<E: Encoding>(out: &mut E, events: &[SpanEvent]) {
    if events.is_empty() {
        return;
    }
    out.messages(
        Field(11, "events"),
        events,
        |_| SMALL_BYTES,
        |out, event| {
            out.fixed64(Field(1, "timeUnixNano"), event.time_ns);
            out.text(Field(2, "name"), &event.name);
            out.attributes(attributes(3), &event.attributes);
            out.number(dropped_attributes(4), event.dropped_attributes_count.into());
        },
    );
}

/// Appends the links of a span.
fn write_links<E: Encoding>(out: &mut E, links: &[Link]) {
    if links.is_empty() {
        return;
    }
    out.messages(
        Field(13, "links"),
        links,
        |_| SMALL_BYTES,
        |out, link| {
            out.id(Field(1, "traceId"), link.trace_id.as_bytes());
            out.id(Field(2, "spanId"), link.span_id.as_bytes());
            out.text(Field(3, "traceState"), &link.trace_state);
            out.attributes(attributes(4), &link.attributes);
            out.number(dropped_attributes(5), link.dropped_attributes_count.into());
            out.fixed32(Field(6, "flags"), link.flags);
        },
    );
}
