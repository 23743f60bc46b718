//! Spans, events, links, and what they were made by: tables of what each member is in protobuf, and how they are followed.

use std::ops::Range;

use bytes::Bytes;

use super::scalar::{self, NoId};
use super::{Fault, Transcoder};
use crate::normalize::json::{Quoted, Token};
use crate::normalize::otlp::detail::{int32, uint32};
use crate::normalize::otlp::tally::{mended, refused};
use crate::span::otlp::protobuf::{
    SMALL_BYTES, close_message, open_message, write_bytes, write_fixed32, write_fixed64,
    write_int32, write_uint32,
};
use crate::span::{Outline, SpanId, TraceId};

/// A message, and why a value is refused that is no object and stands in its place.
pub(super) struct Message {
    misfit: &'static str,
    fields: &'static [Field],
}

/// A field's name, in `lowerCamelCase`, its number, and what it holds.
struct Field(&'static str, u8, Holds);

#[derive(Clone, Copy)]
enum Holds {
    /// A string; why anything else is refused.
    Text(&'static str),
    /// An id, likewise. Ids are checked and written together.
    Id(&'static str),
    /// The id of the span above, which costs nothing where it is none.
    Parent,
    Time,
    Count,
    Flags,
    /// A number, or its name among these, which are numbered from 0; why anything else is refused.
    Enum(&'static [&'static str], &'static str),
    Status,
    Attributes,
    /// A list of messages.
    Each(&'static Message),
    /// A list of strings, which are refused like this one's message.
    Texts(&'static str),
}

use Holds::{Attributes, Count, Each, Enum, Flags, Id, Parent, Status, Text, Texts, Time};

static SPAN: Message = Message {
    misfit: "the span is not an object",
    fields: &[
        Field("traceId", TRACE_ID, Id(NO_TRACE_ID)),
        Field("spanId", SPAN_ID, Id(NO_SPAN_ID)),
        Field("parentSpanId", PARENT_ID, Parent),
        Field("traceState", 3, Text(NO_TEXT)),
        Field("name", 5, Text(NO_TEXT)),
        Field("kind", 6, Enum(KINDS, "the span's kind is none")),
        Field("startTimeUnixNano", START, Time),
        Field("endTimeUnixNano", END, Time),
        Field("attributes", 9, Attributes),
        Field("droppedAttributesCount", 10, Count),
        Field("events", 11, Each(&EVENT)),
        Field("droppedEventsCount", 12, Count),
        Field("links", LINKS, Each(&LINK)),
        Field("droppedLinksCount", 14, Count),
        Field("status", 15, Status),
        Field("flags", 16, Flags),
    ],
};

static STATUS: Message = Message {
    misfit: "the span's status is not an object",
    fields: &[
        Field("message", 2, Text(NO_TEXT)),
        Field("code", 3, Enum(STATUS_CODES, "the span's status code is none")),
    ],
};

static EVENT: Message = Message {
    misfit: "the span's events are not an array of objects",
    fields: &[
        Field("timeUnixNano", 1, Time),
        Field("name", 2, Text(NO_TEXT)),
        Field("attributes", 3, Attributes),
        Field("droppedAttributesCount", 4, Count),
    ],
};

static LINK: Message = Message {
    misfit: NO_LINKS,
    fields: &[
        Field("traceId", TRACE_ID, Id(NO_LINKS)),
        Field("spanId", SPAN_ID, Id(NO_LINKS)),
        Field("traceState", 3, Text(NO_TEXT)),
        Field("attributes", 4, Attributes),
        Field("droppedAttributesCount", 5, Count),
        Field("flags", 6, Flags),
    ],
};

pub(super) static RESOURCE: Message = Message {
    misfit: "a resource is not an object",
    fields: &[
        Field("attributes", 1, Attributes),
        Field("droppedAttributesCount", 2, Count),
        Field("entityRefs", 3, Each(&ENTITY)),
    ],
};

/// References to entities are passed on with the resource; nothing here reads them.
static ENTITY: Message = Message {
    misfit: NO_ENTITY,
    fields: &[
        Field("schemaUrl", 1, Text(NO_ENTITY)),
        Field("type", 2, Text(NO_ENTITY)),
        Field("idKeys", 3, Texts(NO_ENTITY)),
        Field("descriptionKeys", 4, Texts(NO_ENTITY)),
    ],
};

pub(super) static SCOPE: Message = Message {
    misfit: "a scope is not an object",
    fields: &[
        Field("name", 1, Text(NO_SCOPE_TEXT)),
        Field("version", 2, Text(NO_SCOPE_TEXT)),
        Field("attributes", 3, Attributes),
        Field("droppedAttributesCount", 4, Count),
    ],
};

/// Numbers of fields of a span; a link has its ids under the same.
const TRACE_ID: u8 = 1;
const SPAN_ID: u8 = 2;
const PARENT_ID: u8 = 4;
const START: u8 = 7;
const END: u8 = 8;
const LINKS: u8 = 13;
/// The highest number of any field.
const NUMBER_MAX: usize = 16;

const KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

const NO_TRACE_ID: &str = "the trace id is not 32 hexadecimal digits";
const NO_SPAN_ID: &str = "the span id is not 16 hexadecimal digits";
const NO_TIME: &str = "a time of the span is not an unsigned 64-bit integer";
const NO_COUNT: &str = "flags or a dropped count of the span is not an unsigned 32-bit integer";
const NO_TEXT: &str = "the span's name, trace state or status message is not a string";
const NO_ATTRIBUTES: &str = "attributes is not an array";
const NO_LINKS: &str = "the span's links are not an array of objects";
const NO_ENTITY: &str = "a resource's entity reference is none";
const NO_SCOPE_TEXT: &str = "a scope's name or version is not a string";

impl Message {
    fn field(&self, name: &str) -> Option<&'static Field> {
        let exact = self.fields.iter().find(|field| field.0 == name);
        exact.or_else(|| self.fields.iter().find(|field| is_snake_case_of(name, field.0)))
    }
}

/// Whether `start_time` is written for `startTime`.
fn is_snake_case_of(name: &str, camel: &str) -> bool {
    let mut rest = name.bytes();
    let is_same = camel.bytes().all(|byte| {
        let begins_word = byte.is_ascii_uppercase();
        (!begins_word || rest.next() == Some(b'_'))
            && rest.next() == Some(byte.to_ascii_lowercase())
    });
    is_same && rest.next().is_none()
}

/// What scalar fields hold, by their numbers. They are written when all members are read, so that of two members with one name the
/// last wins.
#[derive(Default)]
struct Scalars<'a>([Scalar<'a>; NUMBER_MAX + 1]);

#[derive(Default, Clone, Copy)]
enum Scalar<'a> {
    #[default]
    Unset,
    Text(Quoted<'a>),
    /// An enum's value with its sign.
    Number(u64),
}

impl<'a> Scalars<'a> {
    fn put(&mut self, number: u8, scalar: Scalar<'a>) {
        if let Some(place) = self.0.get_mut(usize::from(number)) {
            *place = scalar;
        }
    }

    fn get(&self, number: u8) -> Scalar<'a> {
        self.0.get(usize::from(number)).copied().unwrap_or_default()
    }

    fn text(&self, number: u8) -> Quoted<'a> {
        if let Scalar::Text(text) = self.get(number) { text } else { Quoted::default() }
    }

    fn number(&self, number: u8) -> u64 {
        if let Scalar::Number(number) = self.get(number) { number } else { 0 }
    }

    /// The ids of a span, or of the span that a link points to; or why a span without them is refused.
    fn ids(&self) -> Result<(TraceId, SpanId), &'static str> {
        let trace_id = scalar::trace_id(self.text(TRACE_ID)).map_err(|no_id| match no_id {
            NoId::Missing => refused::TRACE_ID_MISSING,
            NoId::Zero => refused::TRACE_ID_ZERO,
            NoId::Malformed => NO_TRACE_ID,
        })?;
        let span_id = scalar::span_id(self.text(SPAN_ID)).map_err(|no_id| match no_id {
            NoId::Missing => refused::SPAN_ID_MISSING,
            NoId::Zero => refused::SPAN_ID_ZERO,
            NoId::Malformed => NO_SPAN_ID,
        })?;
        Ok((trace_id, span_id))
    }
}

impl<'a> Transcoder<'a> {
    /// Reads a span and writes the fields of a `Span` message. The outline lacks the wire.
    pub(super) fn span(&mut self) -> Result<Outline, Fault> {
        let (mut scalars, mut status) = (Scalars::default(), None);
        if !self.read(&SPAN, &mut scalars, &mut status)? {
            return Err(Fault::Misfit(SPAN.misfit));
        }
        let (trace_id, span_id) = scalars.ids().map_err(Fault::Misfit)?;
        write_bytes(&mut self.out, 1, trace_id.as_bytes());
        write_bytes(&mut self.out, 2, span_id.as_bytes());
        // A parent id that is none makes a root; only one that is written wrongly is worth a word.
        let parent_id = scalar::span_id(scalars.text(PARENT_ID));
        let is_no_text = matches!(scalars.get(PARENT_ID), Scalar::Number(_));
        if is_no_text || parent_id == Err(NoId::Malformed) {
            self.tally.warn(mended::PARENT);
        }
        if let Ok(parent_id) = parent_id {
            write_bytes(&mut self.out, 4, parent_id.as_bytes());
        }
        self.write(&SPAN, &scalars);
        if let Some(status) = status {
            self.write_status(&status);
        }
        let (start_ns, end_ns) = (scalars.number(START), scalars.number(END));
        self.tally.times(start_ns, end_ns);
        let parent_id = parent_id.ok();
        Ok(Outline { trace_id, span_id, parent_id, start_ns, end_ns, wire: Bytes::new() })
    }

    fn write_status(&mut self, status: &Scalars<'a>) {
        let start = self.out.len();
        let message = open_message(&mut self.out, 15, SMALL_BYTES);
        let content = self.out.len();
        self.write(&STATUS, status);
        if self.out.len() == content {
            self.out.truncate(start);
        } else {
            close_message(&mut self.out, message);
        }
    }

    /// Reads a resource or a scope and says where its message lies in the output.
    pub(super) fn maker(&mut self, message: &'static Message) -> Result<Range<usize>, Fault> {
        let start = self.out.len();
        let mut scalars = Scalars::default();
        self.read(message, &mut scalars, &mut None)?;
        self.write(message, &scalars);
        Ok(start..self.out.len())
    }

    /// Reads a message into this repeated field. A link that points nowhere is left out.
    fn element(&mut self, number: u8, message: &'static Message) -> Result<(), Fault> {
        self.count_value()?;
        let start = self.out.len();
        let open = open_message(&mut self.out, number.into(), SMALL_BYTES);
        let mut scalars = Scalars::default();
        self.read(message, &mut scalars, &mut None)?;
        if number == LINKS {
            let Ok((trace_id, span_id)) = scalars.ids() else {
                self.out.truncate(start);
                self.tally.warn(mended::LINK);
                return Ok(());
            };
            write_bytes(&mut self.out, 1, trace_id.as_bytes());
            write_bytes(&mut self.out, 2, span_id.as_bytes());
        }
        self.write(message, &scalars);
        close_message(&mut self.out, open);
        Ok(())
    }

    /// Reads the members of a message: lists straight into the output. Returns whether there was an object.
    fn read(
        &mut self,
        message: &'static Message,
        scalars: &mut Scalars<'a>,
        status: &mut Option<Scalars<'a>>,
    ) -> Result<bool, Fault> {
        self.members(message.misfit, |this, name| {
            let Some(Field(_, number, holds)) = message.field(name) else { return this.skip() };
            let scalar = match holds {
                Text(misfit) | Id(misfit) => Scalar::Text(this.text(misfit)?),
                Parent => this.parent_id()?,
                Time => Scalar::Number(this.integer(NO_TIME)?),
                Count | Flags => Scalar::Number(this.integer::<u32>(NO_COUNT)?.into()),
                Enum(names, misfit) => {
                    let value = i64::from(this.enumeration(names, misfit)?);
                    Scalar::Number(value.cast_unsigned())
                }
                Status => {
                    let fresh = status.insert(Scalars::default());
                    return this.read(&STATUS, fresh, &mut None).map(drop);
                }
                Attributes => return this.attributes((*number).into(), 1, NO_ATTRIBUTES),
                Each(element) => {
                    return this.each(element.misfit, |this| this.element(*number, element));
                }
                Texts(misfit) => return this.texts(*number, misfit),
            };
            scalars.put(*number, scalar);
            Ok(())
        })
    }

    /// Writes the scalar fields of a message but ids.
    fn write(&mut self, message: &Message, scalars: &Scalars<'a>) {
        for Field(_, place, holds) in message.fields {
            let (scalar, number) = (scalars.get(*place), u32::from(*place));
            match (holds, scalar) {
                (Text(_), Scalar::Text(text)) => self.write_quoted(number, text),
                (Time, Scalar::Number(time)) => write_fixed64(&mut self.out, number, time),
                (Count, Scalar::Number(count)) => {
                    write_uint32(&mut self.out, number, uint32(count))
                }
                (Flags, Scalar::Number(flags)) => {
                    write_fixed32(&mut self.out, number, uint32(flags))
                }
                (Enum(..), Scalar::Number(value)) => {
                    write_int32(&mut self.out, number, int32(value));
                }
                _ => {}
            }
        }
    }

    /// Reads the id of the span above: a number stands for what is none.
    fn parent_id(&mut self) -> Result<Scalar<'a>, Fault> {
        let token = self.scanner.token()?;
        self.scanner.finish(token)?;
        Ok(match token {
            Token::Text(text) => Scalar::Text(text),
            Token::Null => Scalar::Unset,
            _ => Scalar::Number(0),
        })
    }

    fn texts(&mut self, number: u8, misfit: &'static str) -> Result<(), Fault> {
        self.each(misfit, |this| {
            this.count_value()?;
            let text = this.text(misfit)?;
            this.write_quoted(number.into(), text);
            Ok(())
        })
    }

    fn enumeration(&mut self, names: &[&str], misfit: &'static str) -> Result<i32, Fault> {
        match self.scanner.token()? {
            Token::Null => Ok(0),
            token => scalar::enumeration(token, names).ok_or(Fault::Misfit(misfit)),
        }
    }

    fn integer<N: TryFrom<i128> + Default>(&mut self, misfit: &'static str) -> Result<N, Fault> {
        match self.scanner.token()? {
            Token::Null => Ok(N::default()),
            token => scalar::integer(token)
                .and_then(|number| number.try_into().ok())
                .ok_or(Fault::Misfit(misfit)),
        }
    }
}
