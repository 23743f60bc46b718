//! Spans, events, links, and what they were made by.

use std::ops::Range;

use super::scalar::{self, NoId};
use super::{Fault, Transcoder};
use crate::normalize::json::{Members, Quoted, Token};
use crate::normalize::otlp::tally::{mended, refused};
use crate::span::otlp::protobuf::{
    SMALL_BYTES, close_message, open_message, write_bytes, write_fixed32, write_fixed64,
    write_int32, write_uint32,
};
use crate::span::{SpanId, TraceId};

/// What a span says of itself.
pub(super) struct Said {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_id: Option<SpanId>,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

/// The fields of a span that are written when all its members are read, so that of two members with one name the last wins.
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
    status: Status<'a>,
    flags: u32,
    dropped_attributes_count: u32,
    dropped_events_count: u32,
    dropped_links_count: u32,
}

#[derive(Default)]
struct Status<'a> {
    message: Quoted<'a>,
    code: i32,
}

/// By number, from 0.
const KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// By number, from 0.
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

const NO_SPAN: &str = "the span is not an object";
const NO_TRACE_ID: &str = "the trace id is not 32 hexadecimal digits";
const NO_SPAN_ID: &str = "the span id is not 16 hexadecimal digits";
const NO_TIME: &str = "a time of the span is not an unsigned 64-bit integer";
const NO_COUNT: &str = "flags or a dropped count of the span is not an unsigned 32-bit integer";
const NO_KIND: &str = "the span's kind is none";
const NO_STATUS: &str = "the span's status is not an object";
const NO_STATUS_CODE: &str = "the span's status code is none";
const NO_TEXT: &str = "the span's name, trace state or status message is not a string";
const NO_ATTRIBUTES: &str = "attributes is not an array";
const NO_EVENTS: &str = "the span's events are not an array of objects";
const NO_LINKS: &str = "the span's links are not an array of objects";
const NO_RESOURCE: &str = "a resource is not an object";
const NO_ENTITY: &str = "a resource's entity reference is none";
const NO_SCOPE: &str = "a scope is not an object";
const NO_SCOPE_TEXT: &str = "a scope's name or version is not a string";

impl<'a> Transcoder<'a> {
    /// Reads a span and writes the fields of a `Span` message.
    pub(super) fn span(&mut self) -> Result<Said, Fault> {
        let mut fields = SpanFields::default();
        let mut members = self.object(NO_SPAN)?.ok_or(Fault::Misfit(NO_SPAN))?;
        while let Some(name) = members.next(&mut self.scanner)? {
            self.span_member(&name.text(), &mut fields)?;
        }
        self.write_span(&fields)
    }

    fn span_member(&mut self, name: &str, fields: &mut SpanFields<'a>) -> Result<(), Fault> {
        match name {
            "traceId" | "trace_id" => fields.trace_id = self.text(NO_TRACE_ID)?,
            "spanId" | "span_id" => fields.span_id = self.text(NO_SPAN_ID)?,
            "parentSpanId" | "parent_span_id" => self.parent_id(fields)?,
            "name" => fields.name = self.text(NO_TEXT)?,
            "kind" => fields.kind = self.enumeration(KINDS, NO_KIND)?,
            "startTimeUnixNano" | "start_time_unix_nano" => fields.start_ns = self.time()?,
            "endTimeUnixNano" | "end_time_unix_nano" => fields.end_ns = self.time()?,
            "attributes" => self.attributes(9, 1, NO_ATTRIBUTES)?,
            "status" => fields.status = self.status()?,
            "events" => self.events()?,
            "links" => self.links()?,
            "flags" => fields.flags = self.count()?,
            "traceState" | "trace_state" => fields.trace_state = self.text(NO_TEXT)?,
            "droppedAttributesCount" | "dropped_attributes_count" => {
                fields.dropped_attributes_count = self.count()?;
            }
            "droppedEventsCount" | "dropped_events_count" => {
                fields.dropped_events_count = self.count()?;
            }
            "droppedLinksCount" | "dropped_links_count" => {
                fields.dropped_links_count = self.count()?;
            }
            _ => drop(self.scanner.skip()?),
        }
        Ok(())
    }

    fn write_span(&mut self, fields: &SpanFields<'a>) -> Result<Said, Fault> {
        let trace_id = scalar::trace_id(fields.trace_id).map_err(|no_id| match no_id {
            NoId::Missing => Fault::Misfit(refused::TRACE_ID_MISSING),
            NoId::Zero => Fault::Misfit(refused::TRACE_ID_ZERO),
            NoId::Malformed => Fault::Misfit(NO_TRACE_ID),
        })?;
        let span_id = scalar::span_id(fields.span_id).map_err(|no_id| match no_id {
            NoId::Missing => Fault::Misfit(refused::SPAN_ID_MISSING),
            NoId::Zero => Fault::Misfit(refused::SPAN_ID_ZERO),
            NoId::Malformed => Fault::Misfit(NO_SPAN_ID),
        })?;
        write_bytes(&mut self.out, 1, trace_id.as_bytes());
        write_bytes(&mut self.out, 2, span_id.as_bytes());
        self.write_quoted(3, fields.trace_state);
        // A parent id that is none makes a root; only one that is written wrongly is worth a word.
        let parent_id = scalar::span_id(fields.parent_id);
        if fields.has_odd_parent || parent_id == Err(NoId::Malformed) {
            self.tally.warn(mended::PARENT);
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
        self.write_status(&fields.status);
        write_fixed32(&mut self.out, 16, fields.flags);
        let (start_ns, end_ns) = (fields.start_ns, fields.end_ns);
        self.tally.times(start_ns, end_ns);
        Ok(Said { trace_id, span_id, parent_id: parent_id.ok(), start_ns, end_ns })
    }

    fn write_status(&mut self, status: &Status<'a>) {
        if status.code == 0 && status.message.raw().is_empty() {
            return;
        }
        let message = open_message(&mut self.out, 15, status.message.raw().len());
        self.write_quoted(2, status.message);
        write_int32(&mut self.out, 3, status.code);
        close_message(&mut self.out, message);
    }

    fn parent_id(&mut self, fields: &mut SpanFields<'a>) -> Result<(), Fault> {
        let token = self.scanner.token()?;
        fields.parent_id = if let Token::Text(text) = token { text } else { Quoted::default() };
        fields.has_odd_parent = !matches!(token, Token::Text(_) | Token::Null);
        Ok(self.scanner.finish(token)?)
    }

    fn status(&mut self) -> Result<Status<'a>, Fault> {
        let mut status = Status::default();
        let Some(mut members) = self.object(NO_STATUS)? else { return Ok(status) };
        while let Some(name) = members.next(&mut self.scanner)? {
            match &*name.text() {
                "message" => status.message = self.text(NO_TEXT)?,
                "code" => status.code = self.enumeration(STATUS_CODES, NO_STATUS_CODE)?,
                _ => drop(self.scanner.skip()?),
            }
        }
        Ok(status)
    }

    fn events(&mut self) -> Result<(), Fault> {
        let Some(mut elements) = self.array(NO_EVENTS)? else { return Ok(()) };
        while elements.next(&mut self.scanner)? {
            self.count_value()?;
            let event = open_message(&mut self.out, 11, SMALL_BYTES);
            if let Some(members) = self.object(NO_EVENTS)? {
                self.event_members(members)?;
            }
            close_message(&mut self.out, event);
        }
        Ok(())
    }

    fn event_members(&mut self, mut members: Members) -> Result<(), Fault> {
        let (mut time_ns, mut text, mut dropped) = (0, Quoted::default(), 0);
        while let Some(name) = members.next(&mut self.scanner)? {
            match &*name.text() {
                "timeUnixNano" | "time_unix_nano" => time_ns = self.time()?,
                "name" => text = self.text(NO_TEXT)?,
                "attributes" => self.attributes(3, 1, NO_ATTRIBUTES)?,
                "droppedAttributesCount" | "dropped_attributes_count" => dropped = self.count()?,
                _ => drop(self.scanner.skip()?),
            }
        }
        write_fixed64(&mut self.out, 1, time_ns);
        self.write_quoted(2, text);
        write_uint32(&mut self.out, 4, dropped);
        Ok(())
    }

    fn links(&mut self) -> Result<(), Fault> {
        let Some(mut elements) = self.array(NO_LINKS)? else { return Ok(()) };
        while elements.next(&mut self.scanner)? {
            self.count_value()?;
            let start = self.out.len();
            let link = open_message(&mut self.out, 13, SMALL_BYTES);
            let members = self.object(NO_LINKS)?.unwrap_or_default();
            if self.link_members(members)? {
                close_message(&mut self.out, link);
            } else {
                self.out.truncate(start);
                self.tally.warn(mended::LINK);
            }
        }
        Ok(())
    }

    /// Whether the link points anywhere.
    fn link_members(&mut self, mut members: Members) -> Result<bool, Fault> {
        let (mut trace_id, mut span_id) = (Quoted::default(), Quoted::default());
        let (mut trace_state, mut dropped, mut flags) = (Quoted::default(), 0, 0);
        while let Some(name) = members.next(&mut self.scanner)? {
            match &*name.text() {
                "traceId" | "trace_id" => trace_id = self.text(NO_LINKS)?,
                "spanId" | "span_id" => span_id = self.text(NO_LINKS)?,
                "traceState" | "trace_state" => trace_state = self.text(NO_TEXT)?,
                "attributes" => self.attributes(4, 1, NO_ATTRIBUTES)?,
                "droppedAttributesCount" | "dropped_attributes_count" => dropped = self.count()?,
                "flags" => flags = self.count()?,
                _ => drop(self.scanner.skip()?),
            }
        }
        let (Ok(trace_id), Ok(span_id)) = (scalar::trace_id(trace_id), scalar::span_id(span_id))
        else {
            return Ok(false);
        };
        write_bytes(&mut self.out, 1, trace_id.as_bytes());
        write_bytes(&mut self.out, 2, span_id.as_bytes());
        self.write_quoted(3, trace_state);
        write_uint32(&mut self.out, 5, dropped);
        write_fixed32(&mut self.out, 6, flags);
        Ok(true)
    }

    /// Reads a resource and says where its message lies in the output.
    pub(super) fn resource(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.out.len();
        let Some(mut members) = self.object(NO_RESOURCE)? else { return Ok(start..start) };
        let mut dropped = 0;
        while let Some(name) = members.next(&mut self.scanner)? {
            match &*name.text() {
                "attributes" => self.attributes(1, 1, NO_ATTRIBUTES)?,
                "droppedAttributesCount" | "dropped_attributes_count" => dropped = self.count()?,
                "entityRefs" | "entity_refs" => self.entity_refs()?,
                _ => drop(self.scanner.skip()?),
            }
        }
        write_uint32(&mut self.out, 2, dropped);
        Ok(start..self.out.len())
    }

    /// References to entities are passed on with the resource; nothing here reads them.
    fn entity_refs(&mut self) -> Result<(), Fault> {
        let Some(mut elements) = self.array(NO_ENTITY)? else { return Ok(()) };
        while elements.next(&mut self.scanner)? {
            self.count_value()?;
            let message = open_message(&mut self.out, 3, SMALL_BYTES);
            let mut members = self.object(NO_ENTITY)?.unwrap_or_default();
            while let Some(name) = members.next(&mut self.scanner)? {
                match &*name.text() {
                    "schemaUrl" | "schema_url" => self.text_field(1)?,
                    "type" => self.text_field(2)?,
                    "idKeys" | "id_keys" => self.text_list(3)?,
                    "descriptionKeys" | "description_keys" => self.text_list(4)?,
                    _ => drop(self.scanner.skip()?),
                }
            }
            close_message(&mut self.out, message);
        }
        Ok(())
    }

    fn text_field(&mut self, number: u32) -> Result<(), Fault> {
        let text = self.text(NO_ENTITY)?;
        self.write_quoted(number, text);
        Ok(())
    }

    fn text_list(&mut self, number: u32) -> Result<(), Fault> {
        let Some(mut elements) = self.array(NO_ENTITY)? else { return Ok(()) };
        while elements.next(&mut self.scanner)? {
            self.count_value()?;
            self.text_field(number)?;
        }
        Ok(())
    }

    /// Reads a scope and says where its message lies in the output.
    pub(super) fn scope(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.out.len();
        let Some(mut members) = self.object(NO_SCOPE)? else { return Ok(start..start) };
        let (mut text, mut version, mut dropped) = (Quoted::default(), Quoted::default(), 0);
        while let Some(name) = members.next(&mut self.scanner)? {
            match &*name.text() {
                "name" => text = self.text(NO_SCOPE_TEXT)?,
                "version" => version = self.text(NO_SCOPE_TEXT)?,
                "attributes" => self.attributes(3, 1, NO_ATTRIBUTES)?,
                "droppedAttributesCount" | "dropped_attributes_count" => dropped = self.count()?,
                _ => drop(self.scanner.skip()?),
            }
        }
        self.write_quoted(1, text);
        self.write_quoted(2, version);
        write_uint32(&mut self.out, 4, dropped);
        Ok(start..self.out.len())
    }

    fn enumeration(&mut self, names: &[&str], misfit: &'static str) -> Result<i32, Fault> {
        match self.scanner.token()? {
            Token::Null => Ok(0),
            token => scalar::enumeration(token, names).ok_or(Fault::Misfit(misfit)),
        }
    }

    fn time(&mut self) -> Result<u64, Fault> {
        match self.scanner.token()? {
            Token::Null => Ok(0),
            token => scalar::integer(token)
                .and_then(|time| u64::try_from(time).ok())
                .ok_or(Fault::Misfit(NO_TIME)),
        }
    }

    fn count(&mut self) -> Result<u32, Fault> {
        match self.scanner.token()? {
            Token::Null => Ok(0),
            token => scalar::integer(token)
                .and_then(|count| u32::try_from(count).ok())
                .ok_or(Fault::Misfit(NO_COUNT)),
        }
    }
}
