//! Decodes a protobuf request on arrival: enough to answer the client, without an allocation per value.
//!
//! `ResourceSpans` and `ScopeSpans` have the same form, so the same functions read both: field 1 is the resource or scope, field 2 the
//! children, field 3 a schema URL.
//! <https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto>

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use super::detail;
use super::tally::{Counters, Flaw, NO_SPAN_ID, NO_TRACE_ID, NoId, repaired};
use super::wire::{Broken, Content, Edit, Fields, rebuilt};
use crate::normalize::{Decoded, Encoding, Envelope, Limits, Malformed, Refused};
use crate::span::otlp::protobuf::write_bytes;
use crate::span::{Item, Resource, Scope, Span, SpanHeader, SpanId, TraceId};

/// Decodes a request.
pub(in crate::normalize) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    let mut tally = Counters::new(limits, &envelope.resent);
    count_spans(body, &mut tally)?;
    let mut arrival =
        HeaderReader { body, items: Vec::with_capacity(tally.items()), refused: Vec::new(), tally };
    // `count_spans` has already walked all of it.
    let mut requests = Children::new(body, 1);
    while let Ok(Some(resource_spans)) = requests.next() {
        arrival.resource_spans(resource_spans)?;
    }
    let HeaderReader { items, refused, tally, .. } = arrival;
    Ok(tally.decoded(envelope, body.len(), items, refused))
}

/// Checks that the envelope can be walked, and counts its spans.
fn count_spans(body: &Bytes, tally: &mut Counters<'_>) -> Result<(), Malformed> {
    let mut requests = Children::new(body, 1);
    while let Some(resource_spans) =
        requests.next().map_err(|broken| malformed(broken, body, &requests.fields))?
    {
        tally.value().map_err(|_| tally.too_many_values())?;
        let mut scopes = Children::new(resource_spans, 2);
        while let Some(scope_spans) =
            scopes.next().map_err(|broken| malformed(broken, body, &scopes.fields))?
        {
            tally.value().map_err(|_| tally.too_many_values())?;
            let mut spans = Children::new(scope_spans, 2);
            while spans.next().map_err(|broken| malformed(broken, body, &spans.fields))?.is_some() {
                tally.item()?;
            }
        }
    }
    Ok(())
}

fn malformed(broken: Broken, body: &Bytes, at: &Fields<'_>) -> Malformed {
    // The unread rest is a slice of the body, so the difference of their addresses is an offset in the body.
    let offset = (at.rest().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    unreadable(format!("{} at byte {offset}", broken.as_str()))
}

fn unreadable(problem: String) -> Malformed {
    Malformed::Syntax { expected: "an OTLP protobuf message", problem }
}

/// The messages in one repeated field of an envelope.
struct Children<'a> {
    fields: Fields<'a>,
    number: u32,
}

/// The highest known field number of `ResourceSpans` and `ScopeSpans`. All fields up to it are length-delimited.
const ENVELOPE_FIELD_MAX: u32 = 3;

impl<'a> Children<'a> {
    fn new(message: &'a [u8], number: u32) -> Self {
        Self { fields: Fields::new(message), number }
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, Broken> {
        while let Some((number, content)) = self.fields.next()? {
            match content {
                Content::Bytes(child) if number == self.number => return Ok(Some(child)),
                Content::Bytes(_) => {}
                // The request itself has only field 1.
                _ if number <= ENVELOPE_FIELD_MAX && (1 < self.number || number == 1) => {
                    return Err(Broken::WireType);
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Fields 1 and 3 of a `ResourceSpans` or `ScopeSpans`.
struct Header<'a> {
    maker: Cow<'a, [u8]>,
    schema_url: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(message: &'a [u8]) -> Self {
        let mut header = Self { maker: Cow::Borrowed(&[]), schema_url: &[] };
        detail::each(message, |number, content| match (number, content) {
            (1, Content::Bytes(maker)) if header.maker.is_empty() => {
                header.maker = Cow::Borrowed(maker);
            }
            // Protobuf merges a message that is sent in parts by concatenating them.
            (1, Content::Bytes(more)) => header.maker.to_mut().extend_from_slice(more),
            (3, Content::Bytes(schema_url)) => header.schema_url = schema_url,
            _ => {}
        });
        header
    }

    fn maker(&self, body: &Bytes) -> Bytes {
        match &self.maker {
            Cow::Borrowed(slice) => body.slice_ref(slice),
            Cow::Owned(merged) => Bytes::copy_from_slice(merged),
        }
    }
}

struct HeaderReader<'a> {
    body: &'a Bytes,
    items: Vec<Item>,
    refused: Vec<Refused>,
    tally: Counters<'a>,
}

impl<'a> HeaderReader<'a> {
    fn resource_spans(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let header = Header::read(message);
        // Built for the first span, so that an envelope without spans costs nothing.
        let mut resource = None;
        let mut scopes = Children::new(message, 2);
        while let Ok(Some(scope_spans)) = scopes.next() {
            self.scope_spans(scope_spans, &header, &mut resource)?;
        }
        Ok(())
    }

    fn scope_spans(
        &mut self,
        message: &'a [u8],
        above: &Header<'a>,
        resource: &mut Option<Arc<Resource>>,
    ) -> Result<(), Malformed> {
        let header = Header::read(message);
        let mut scope = None;
        let mut spans = Children::new(message, 2);
        while let Ok(Some(span)) = spans.next() {
            let made = match scope.take() {
                Some(made) => made,
                None => self.scope(&header, above, resource)?,
            };
            self.span(span, &made)?;
            scope = Some(made);
        }
        Ok(())
    }

    fn resource(&mut self, header: &Header<'_>) -> Result<Arc<Resource>, Malformed> {
        self.maker_values(&header.maker, 1, "resource")?;
        let schema_url = detail::text(self.body, header.schema_url);
        Ok(Arc::new(detail::resource_of(header.maker(self.body), schema_url)))
    }

    fn scope(
        &mut self,
        header: &Header<'_>,
        above: &Header<'_>,
        resource: &mut Option<Arc<Resource>>,
    ) -> Result<Arc<Scope>, Malformed> {
        let resource = match resource {
            Some(resource) => resource,
            None => resource.insert(self.resource(above)?),
        };
        self.maker_values(&header.maker, 3, "scope")?;
        let schema_url = detail::text(self.body, header.schema_url);
        Ok(Arc::new(detail::scope_of(header.maker(self.body), schema_url, Arc::clone(resource))))
    }

    /// Counts the attributes of a resource or scope before they are read.
    fn maker_values(
        &mut self,
        message: &[u8],
        attributes: u32,
        what: &'static str,
    ) -> Result<(), Malformed> {
        let walked = walk(message, |number, content| match content {
            Content::Bytes(attribute) if number == attributes => {
                key_value(attribute, 1, &mut self.tally)
            }
            _ => Ok(()),
        });
        walked.map_err(|flaw| match flaw {
            Flaw::Refused(_) => unreadable(format!("a {what} cannot be read")),
            Flaw::TooManyValues => self.tally.too_many_values(),
        })
    }

    fn span(&mut self, message: &'a [u8], scope: &Arc<Scope>) -> Result<(), Malformed> {
        let Some(index) = self.tally.next_place() else { return Ok(()) };
        match outline(message, self.body, &mut self.tally) {
            Ok(outline) => {
                let span = Span::new(outline, Arc::clone(scope), None, &super::OTLP);
                self.items.push(Item::Span(span));
            }
            Err(Flaw::TooManyValues) => return Err(self.tally.too_many_values()),
            Err(Flaw::Refused(reason)) => {
                let wire = self.body.slice_ref(message);
                let scope = Some(Arc::clone(scope));
                let encoding = Encoding::Protobuf;
                self.refused.push(Refused { index, reason, wire, encoding, scope });
            }
        }
        Ok(())
    }
}

/// The parts of a span that are needed on arrival.
#[derive(Default)]
struct SpanFields<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_id: &'a [u8],
    start_ns: u64,
    end_ns: u64,
    links_without_ids: usize,
}

/// Walks one span: reads its ids and times, and counts its values.
fn outline(message: &[u8], body: &Bytes, tally: &mut Counters<'_>) -> Result<SpanHeader, Flaw> {
    let said = walk_span(message, tally)?;
    let no_id = |id: &[u8], size, reasons: &NoId| {
        Flaw::Refused(match id.len() {
            0 => reasons.missing,
            length if length == size => reasons.zero,
            _ => reasons.no_bytes,
        })
    };
    let trace_id =
        TraceId::from_slice(said.trace_id).ok_or_else(|| no_id(said.trace_id, 16, &NO_TRACE_ID))?;
    let span_id =
        SpanId::from_slice(said.span_id).ok_or_else(|| no_id(said.span_id, 8, &NO_SPAN_ID))?;
    tally.times(said.start_ns, said.end_ns);
    for _ in 0..said.links_without_ids {
        tally.warn(repaired::LINK);
    }
    let parent_is_broken = !matches!(said.parent_id.len(), 0 | 8);
    if parent_is_broken {
        tally.warn(repaired::PARENT);
    }
    let wire = if parent_is_broken || 0 < said.links_without_ids {
        Bytes::from(repair(message))
    } else {
        body.slice_ref(message)
    };
    Ok(SpanHeader {
        trace_id,
        span_id,
        parent_id: SpanId::from_slice(said.parent_id),
        start_ns: said.start_ns,
        end_ns: said.end_ns,
        wire,
    })
}

/// Calls `visit` with each field of a message.
#[inline]
fn walk<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u32, Content<'a>) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next()? {
        visit(number, content)?;
    }
    Ok(())
}

/// Accepts a field that no reader handles if its number is unknown. A known field with another wire type is an error.
#[inline]
fn is_unknown(number: u32, ours: RangeInclusive<u32>) -> Result<(), Flaw> {
    if ours.contains(&number) { Err(Broken::WireType.into()) } else { Ok(()) }
}

fn walk_span<'a>(message: &'a [u8], tally: &mut Counters<'_>) -> Result<SpanFields<'a>, Flaw> {
    let mut said = SpanFields::default();
    walk(message, |number, content| {
        match (number, content) {
            (9, Content::Bytes(attribute)) => key_value(attribute, 1, tally)?,
            (1, Content::Bytes(id)) => said.trace_id = id,
            (2, Content::Bytes(id)) => said.span_id = id,
            (4, Content::Bytes(id)) => said.parent_id = id,
            (7, Content::Fixed64(time)) => said.start_ns = time,
            (8, Content::Fixed64(time)) => said.end_ns = time,
            (11, Content::Bytes(event)) => walk_event(event, tally)?,
            (13, Content::Bytes(link)) => {
                walk_link(link, tally)?;
                said.links_without_ids += usize::from(!has_ids(link));
            }
            (15, Content::Bytes(status)) => walk_status(status)?,
            // Trace state and name; kind and the dropped counts; flags.
            (3 | 5, Content::Bytes(_))
            | (6 | 10 | 12 | 14, Content::Varint(_))
            | (16, Content::Fixed32(_)) => {}
            _ => is_unknown(number, 1..=16)?,
        }
        Ok(())
    })?;
    Ok(said)
}

fn walk_event(message: &[u8], tally: &mut Counters<'_>) -> Result<(), Flaw> {
    tally.value()?;
    walk(message, |number, content| match (number, content) {
        (3, Content::Bytes(attribute)) => key_value(attribute, 1, tally),
        (1, Content::Fixed64(_)) | (2, Content::Bytes(_)) | (4, Content::Varint(_)) => Ok(()),
        _ => is_unknown(number, 1..=4),
    })
}

fn walk_link(message: &[u8], tally: &mut Counters<'_>) -> Result<(), Flaw> {
    tally.value()?;
    walk(message, |number, content| match (number, content) {
        (4, Content::Bytes(attribute)) => key_value(attribute, 1, tally),
        (1..=3, Content::Bytes(_)) | (5, Content::Varint(_)) | (6, Content::Fixed32(_)) => Ok(()),
        _ => is_unknown(number, 1..=6),
    })
}

/// Returns whether a link has valid ids.
fn has_ids(link: &[u8]) -> bool {
    let (mut trace_id, mut span_id) = (None, None);
    detail::each(link, |number, content| match (number, content) {
        (1, Content::Bytes(id)) => trace_id = TraceId::from_slice(id),
        (2, Content::Bytes(id)) => span_id = SpanId::from_slice(id),
        _ => {}
    });
    trace_id.is_some() && span_id.is_some()
}

fn walk_status(message: &[u8]) -> Result<(), Flaw> {
    walk(message, |number, content| match (number, content) {
        (2, Content::Bytes(_)) | (3, Content::Varint(_)) => Ok(()),
        _ => is_unknown(number, 2..=3),
    })
}

/// Counts an attribute and its nested values. `depth` is the value's nesting; an attribute's own value has 1.
fn key_value(message: &[u8], depth: usize, tally: &mut Counters<'_>) -> Result<(), Flaw> {
    tally.value()?;
    walk(message, |number, content| match (number, content) {
        (2, Content::Bytes(value)) => any_value(value, depth, tally),
        (1, Content::Bytes(_)) | (3, Content::Varint(_)) => Ok(()),
        _ => is_unknown(number, 1..=3),
    })
}

fn any_value(message: &[u8], depth: usize, tally: &mut Counters<'_>) -> Result<(), Flaw> {
    if tally.is_too_deep(depth) {
        tally.warn(repaired::TOO_DEEP);
        return Ok(());
    }
    walk(message, |number, content| match (number, content) {
        (1 | 7, Content::Bytes(_)) | (2 | 3 | 8, Content::Varint(_)) | (4, Content::Fixed64(_)) => {
            Ok(())
        }
        // `ArrayValue` and `KeyValueList` both have their elements in field 1.
        (5 | 6, Content::Bytes(list)) => walk(list, |field, content| match (field, content) {
            (1, Content::Bytes(entry)) if number == 6 => key_value(entry, depth + 1, tally),
            (1, Content::Bytes(element)) => {
                tally.value()?;
                any_value(element, depth + 1, tally)
            }
            _ => is_unknown(field, 1..=1),
        }),
        _ => is_unknown(number, 1..=8),
    })
}

/// Removes what would make other receivers refuse the complete request with this span: an invalid parent id, and links without ids.
/// Everything else stays as sent, including unknown fields.
fn repair(message: &[u8]) -> Vec<u8> {
    let repaired = rebuilt(message, |number, content| match (number, content) {
        (4, Content::Bytes(id)) if !matches!(id.len(), 0 | 8) => Edit::Drop,
        (13, Content::Bytes(link)) if !has_ids(link) => Edit::Drop,
        _ => Edit::Keep,
    });
    repaired.unwrap_or_else(|| message.to_vec())
}

/// Returns the `Span` message with this parent, or without one. Everything else stays unchanged.
pub fn with_parent(wire: &[u8], parent: Option<SpanId>) -> Bytes {
    let rest = rebuilt(wire, |number, _| if number == 4 { Edit::Drop } else { Edit::Keep });
    let mut message = rest.unwrap_or_else(|| wire.to_vec());
    if let Some(parent) = parent {
        write_bytes(&mut message, 4, parent.as_bytes());
    }
    Bytes::from(message)
}

/// Decodes a span's wire under this scope. Returns `None` if it cannot be read.
pub(in crate::normalize) fn span_of(wire: &Bytes, scope: Arc<Scope>) -> Option<Span> {
    let limits = Limits { values_max: usize::MAX, ..Limits::default() };
    let outline = outline(wire, wire, &mut Counters::new(&limits, &[])).ok()?;
    Some(Span::new(outline, scope, None, &super::OTLP))
}
