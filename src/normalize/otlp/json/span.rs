//! Transcodes spans, events, links, resources and scopes.

use std::ops::Range;

use bytes::Bytes;

use super::{ReadError, Transcoder, scalar};
use crate::normalize::json::{Quoted, Token};
use crate::normalize::otlp::tally::{NO_SPAN_ID, NO_TRACE_ID, repaired};
use crate::span::SpanHeader;
use crate::span::otlp::protobuf::{
    SMALL_BYTES, close_message, open_message, write_bytes, write_fixed32, write_fixed64,
    write_int32, write_uint32,
};

/// The fields of a span that are written after all its members were read, because the last of several members with one name wins.
#[derive(Default)]
struct SpanFields<'a> {
    trace_id: Quoted<'a>,
    span_id: Quoted<'a>,
    parent_id: Quoted<'a>,
    has_odd_parent: bool,
    trace_state: Quoted<'a>,
    name: Quoted<'a>,
    kind: i32,
    start_ns: u64,
    end_ns: u64,
    status_message: Quoted<'a>,
    status_code: i32,
    flags: u32,
    dropped_attributes_count: u32,
    dropped_events_count: u32,
    dropped_links_count: u32,
}

/// Names by number, starting at 0.
const KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// Names by number, starting at 0.
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

const NO_SPAN: &str = "the span is not an object";
const NO_TIME: &str = "a time of the span is not an unsigned 64-bit integer";
const NO_COUNT: &str = "flags or a dropped count of the span is not an unsigned 32-bit integer";
const NO_KIND: &str = "the span's kind is invalid";
const NO_STATUS: &str = "the span's status is not an object";
const NO_STATUS_CODE: &str = "the span's status code is invalid";
const NO_TEXT: &str = "the span's name, trace state or status message is not a string";
const NO_ATTRIBUTES: &str = "attributes is not an array";
const NO_EVENTS: &str = "the span's events are not an array of objects";
const NO_LINKS: &str = "the span's links are not an array of objects";
const NO_RESOURCE: &str = "a resource is not an object";
const NO_ENTITY: &str = "a resource's entity reference is invalid";
const NO_SCOPE: &str = "a scope is not an object";
const NO_SCOPE_TEXT: &str = "a scope's name or version is not a string";

impl<'a> Transcoder<'a> {
    /// Reads a span and writes the fields of a `Span` message. The outline has no wire yet.
    pub(super) fn span(&mut self) -> Result<SpanHeader, ReadError> {
        let mut fields = SpanFields::default();
        let is_object = self.members(NO_SPAN, |this, name| this.span_member(name, &mut fields))?;
        if is_object { self.write_span(&fields) } else { Err(ReadError::Misfit(NO_SPAN)) }
    }

    fn span_member(&mut self, name: &str, fields: &mut SpanFields<'a>) -> Result<(), ReadError> {
        match name {
            "traceId" | "trace_id" => fields.trace_id = self.text(NO_TRACE_ID.no_digits)?,
            "spanId" | "span_id" => fields.span_id = self.text(NO_SPAN_ID.no_digits)?,
            "parentSpanId" | "parent_span_id" => self.parent_id(fields)?,
            "name" => fields.name = self.text(NO_TEXT)?,
            "kind" => fields.kind = self.enumeration(KINDS, NO_KIND)?,
            "startTimeUnixNano" | "start_time_unix_nano" => {
                fields.start_ns = self.integer(NO_TIME)?;
            }
            "endTimeUnixNano" | "end_time_unix_nano" => fields.end_ns = self.integer(NO_TIME)?,
            "attributes" => self.attributes(9, 1, NO_ATTRIBUTES)?,
            "status" => self.status(fields)?,
            "events" => self.each(NO_EVENTS, Self::event)?,
            "links" => self.each(NO_LINKS, Self::link)?,
            "flags" => fields.flags = self.integer(NO_COUNT)?,
            "traceState" | "trace_state" => fields.trace_state = self.text(NO_TEXT)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                fields.dropped_attributes_count = self.integer(NO_COUNT)?;
            }
            "droppedEventsCount" | "dropped_events_count" => {
                fields.dropped_events_count = self.integer(NO_COUNT)?;
            }
            "droppedLinksCount" | "dropped_links_count" => {
                fields.dropped_links_count = self.integer(NO_COUNT)?;
            }
            _ => self.skip()?,
        }
        Ok(())
    }

    fn write_span(&mut self, fields: &SpanFields<'a>) -> Result<SpanHeader, ReadError> {
        let trace_id = scalar::trace_id(fields.trace_id).map_err(ReadError::Misfit)?;
        let span_id = scalar::span_id(fields.span_id).map_err(ReadError::Misfit)?;
        write_bytes(&mut self.out, 1, trace_id.as_bytes());
        write_bytes(&mut self.out, 2, span_id.as_bytes());
        self.write_quoted(3, fields.trace_state);
        // A span with an invalid parent id becomes a root. Only an id of the wrong form is worth a warning.
        let parent_id = scalar::span_id(fields.parent_id);
        if fields.has_odd_parent || parent_id == Err(NO_SPAN_ID.no_digits) {
            self.tally.warn(repaired::PARENT);
        }
        if let Ok(parent_id) = parent_id {
            write_bytes(&mut self.out, 4, parent_id.as_bytes());
        }
        self.write_quoted(5, fields.name);
        write_int32(&mut self.out, 6, fields.kind);
        write_fixed64(&mut self.out, 7, fields.start_ns);
        write_fixed64(&mut self.out, 8, fields.end_ns);
        write_uint32(&mut self.out, 10, fields.dropped_attributes_count);
        write_uint32(&mut self.out, 12, fields.dropped_events_count);
        write_uint32(&mut self.out, 14, fields.dropped_links_count);
        if fields.status_code != 0 || !fields.status_message.raw().is_empty() {
            let status = open_message(&mut self.out, 15, fields.status_message.raw().len());
            self.write_quoted(2, fields.status_message);
            write_int32(&mut self.out, 3, fields.status_code);
            close_message(&mut self.out, status);
        }
        write_fixed32(&mut self.out, 16, fields.flags);
        let (start_ns, end_ns) = (fields.start_ns, fields.end_ns);
        self.tally.times(start_ns, end_ns);
        let parent_id = parent_id.ok();
        Ok(SpanHeader { trace_id, span_id, parent_id, start_ns, end_ns, wire: Bytes::new() })
    }

    fn parent_id(&mut self, fields: &mut SpanFields<'a>) -> Result<(), ReadError> {
        let token = self.scanner.token()?;
        fields.parent_id = if let Token::Text(text) = token { text } else { Quoted::default() };
        fields.has_odd_parent = !matches!(token, Token::Text(_) | Token::Null);
        Ok(self.scanner.finish(token)?)
    }

    fn status(&mut self, fields: &mut SpanFields<'a>) -> Result<(), ReadError> {
        (fields.status_message, fields.status_code) = Default::default();
        self.members(NO_STATUS, |this, name| match name {
            "message" => this.text(NO_TEXT).map(|it| fields.status_message = it),
            "code" => {
                this.enumeration(STATUS_CODES, NO_STATUS_CODE).map(|it| fields.status_code = it)
            }
            _ => this.skip(),
        })?;
        Ok(())
    }

    fn event(&mut self) -> Result<(), ReadError> {
        self.count_value()?;
        let event = open_message(&mut self.out, 11, SMALL_BYTES);
        let (mut time_ns, mut text, mut dropped) = (0, Quoted::default(), 0);
        self.members(NO_EVENTS, |this, name| match name {
            "timeUnixNano" | "time_unix_nano" => this.integer(NO_TIME).map(|it| time_ns = it),
            "name" => this.text(NO_TEXT).map(|it| text = it),
            "attributes" => this.attributes(3, 1, NO_ATTRIBUTES),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                this.integer(NO_COUNT).map(|it| dropped = it)
            }
            _ => this.skip(),
        })?;
        write_fixed64(&mut self.out, 1, time_ns);
        self.write_quoted(2, text);
        write_uint32(&mut self.out, 4, dropped);
        close_message(&mut self.out, event);
        Ok(())
    }

    /// Reads a link, and omits it if its ids are invalid.
    fn link(&mut self) -> Result<(), ReadError> {
        self.count_value()?;
        let start = self.out.len();
        let link = open_message(&mut self.out, 13, SMALL_BYTES);
        let (mut trace_id, mut span_id) = (Quoted::default(), Quoted::default());
        let (mut trace_state, mut dropped, mut flags) = (Quoted::default(), 0, 0);
        self.members(NO_LINKS, |this, name| match name {
            "traceId" | "trace_id" => this.text(NO_LINKS).map(|it| trace_id = it),
            "spanId" | "span_id" => this.text(NO_LINKS).map(|it| span_id = it),
            "traceState" | "trace_state" => this.text(NO_TEXT).map(|it| trace_state = it),
            "attributes" => this.attributes(4, 1, NO_ATTRIBUTES),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                this.integer(NO_COUNT).map(|it| dropped = it)
            }
            "flags" => this.integer(NO_COUNT).map(|it| flags = it),
            _ => this.skip(),
        })?;
        let (Ok(trace_id), Ok(span_id)) = (scalar::trace_id(trace_id), scalar::span_id(span_id))
        else {
            self.out.truncate(start);
            self.tally.warn(repaired::LINK);
            return Ok(());
        };
        write_bytes(&mut self.out, 1, trace_id.as_bytes());
        write_bytes(&mut self.out, 2, span_id.as_bytes());
        self.write_quoted(3, trace_state);
        write_uint32(&mut self.out, 5, dropped);
        write_fixed32(&mut self.out, 6, flags);
        close_message(&mut self.out, link);
        Ok(())
    }

    /// Reads a resource and returns the range of its message in the output.
    pub(super) fn resource(&mut self) -> Result<Range<usize>, ReadError> {
        let start = self.out.len();
        let mut dropped = 0;
        self.members(NO_RESOURCE, |this, name| match name {
            "attributes" => this.attributes(1, 1, NO_ATTRIBUTES),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                this.integer(NO_COUNT).map(|it| dropped = it)
            }
            "entityRefs" | "entity_refs" => this.each(NO_ENTITY, Self::entity_ref),
            _ => this.skip(),
        })?;
        write_uint32(&mut self.out, 2, dropped);
        Ok(start..self.out.len())
    }

    /// Transcodes references to entities, which are only passed on with the resource.
    fn entity_ref(&mut self) -> Result<(), ReadError> {
        self.count_value()?;
        let message = open_message(&mut self.out, 3, SMALL_BYTES);
        self.members(NO_ENTITY, |this, name| match name {
            "schemaUrl" | "schema_url" => this.text_field(1),
            "type" => this.text_field(2),
            "idKeys" | "id_keys" => this.text_list(3),
            "descriptionKeys" | "description_keys" => this.text_list(4),
            _ => this.skip(),
        })?;
        close_message(&mut self.out, message);
        Ok(())
    }

    fn text_field(&mut self, number: u32) -> Result<(), ReadError> {
        let text = self.text(NO_ENTITY)?;
        self.write_quoted(number, text);
        Ok(())
    }

    fn text_list(&mut self, number: u32) -> Result<(), ReadError> {
        self.each(NO_ENTITY, |this| {
            this.count_value()?;
            this.text_field(number)
        })
    }

    /// Reads a scope and returns the range of its message in the output.
    pub(super) fn scope(&mut self) -> Result<Range<usize>, ReadError> {
        let start = self.out.len();
        let (mut text, mut version, mut dropped) = (Quoted::default(), Quoted::default(), 0);
        self.members(NO_SCOPE, |this, name| match name {
            "name" => this.text(NO_SCOPE_TEXT).map(|it| text = it),
            "version" => this.text(NO_SCOPE_TEXT).map(|it| version = it),
            "attributes" => this.attributes(3, 1, NO_ATTRIBUTES),
            "droppedAttributesCount" | "dropped_attributes_count" => {
                this.integer(NO_COUNT).map(|it| dropped = it)
            }
            _ => this.skip(),
        })?;
        self.write_quoted(1, text);
        self.write_quoted(2, version);
        write_uint32(&mut self.out, 4, dropped);
        Ok(start..self.out.len())
    }

    fn enumeration(&mut self, names: &[&str], misfit: &'static str) -> Result<i32, ReadError> {
        match self.scanner.token()? {
            Token::Null => Ok(0),
            token => scalar::enumeration(token, names).ok_or(ReadError::Misfit(misfit)),
        }
    }

    fn integer<N: TryFrom<i128> + Default>(
        &mut self,
        misfit: &'static str,
    ) -> Result<N, ReadError> {
        let number = match self.scanner.token()? {
            Token::Null => return Ok(N::default()),
            Token::Object => self.long()?,
            token => scalar::integer(token),
        };
        number.and_then(|number| number.try_into().ok()).ok_or(ReadError::Misfit(misfit))
    }

    /// Reads an integer from its halves, `{"low":-1013133952,"high":395276536}`, the form in which OpenTelemetry's exporter for JavaScript
    /// 0.44 sends times (open-telemetry/opentelemetry-js issue 4216).
    fn long(&mut self) -> Result<Option<i128>, ReadError> {
        let (mut low, mut high) = (None, None);
        let mut is_begun = false;
        while let Some(name) = self.scanner.next_member(&mut is_begun)? {
            let half = scalar::integer(Token::Number(self.scanner.skip()?));
            match &*name.text() {
                "low" => low = half,
                "high" => high = half,
                _ => (),
            }
        }
        let half = |half: i128| half & i128::from(u32::MAX);
        Ok(low.zip(high).map(|(low, high)| half(high) << 32 | half(low)))
    }
}
