//! OTLP/JSON requests, read leniently and transcoded: every span becomes a `Span` message in protobuf, so that everything behind
//! the door reads one format. <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>
//!
//! What other parsers refuse with the whole request is taken here: `snake_case` names, enums by name, numbers as strings and
//! strings as numbers, nulls, ids in base64. A value that does not fit a field of a span costs that span only; an attribute's
//! value that does not fit its type is kept as text. Members that are sent twice: the last wins, lists grow.

mod span;
mod value;
mod scalar;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::tally::{Flaw, Tally};
use super::{OTLP, detail};
use crate::normalize::json::{Elements, Members, Problem, Quoted, Scanner, Token};
use crate::normalize::{Decoded, Envelope, Limits, Malformed, Refused, Warning};
use crate::span::{Attribute, Batch, Item, Outline, Resource, Scope, Span, SpanId, Text, TraceId};

/// Reads a request.
pub(super) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    if let Ok(text) = str::from_utf8(body) {
        return decode_text(envelope, body, text, limits);
    }
    let mended = Text::from(String::from_utf8_lossy(body).into_owned());
    let mut decoded = decode_text(envelope, mended.as_bytes(), &mended, limits)?;
    decoded.warnings.push(Warning { what: NOT_UTF8, count: 1 });
    Ok(decoded)
}

const NOT_UTF8: &str = "the body is not UTF-8: what is not has become U+FFFD";

fn decode_text(
    envelope: &Envelope,
    body: &Bytes,
    text: &str,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    let mut draft = Draft {
        // Names, quotes and digits are longer in JSON; where text prevails the output grows once.
        transcoder: Transcoder {
            scanner: Scanner::new(text),
            out: Vec::with_capacity(text.len() / 2),
            tally: Tally::new(limits),
        },
        spans: Vec::new(),
        scopes: Vec::new(),
        resources: Vec::new(),
        refused: Vec::new(),
        index: 0,
        resent: &envelope.resent,
    };
    draft.request().map_err(|fault| match fault {
        Fault::Malformed(malformed) => malformed,
        Fault::Misfit(what) => {
            Malformed::Shape(format!("the body is not an OTLP request in JSON: {what}"))
        }
    })?;
    Ok(draft.finish(envelope, body))
}

/// Why reading goes no further.
#[derive(Debug)]
enum Fault {
    /// The request is refused whole.
    Malformed(Malformed),
    /// A value is not what its place asks for. Inside a span this costs the span, outside of one the request.
    Misfit(&'static str),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Malformed(Malformed::Syntax { expected: "JSON", problem: problem.to_string() })
    }
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Reads JSON and writes protobuf.
struct Transcoder<'a> {
    scanner: Scanner<'a>,
    out: Vec<u8>,
    tally: Tally<'a>,
}

impl<'a> Transcoder<'a> {
    /// Counts one attribute, array element, event, link or envelope.
    #[inline]
    fn count_value(&mut self) -> Result<(), Fault> {
        self.tally.value().map_err(|_: Flaw| Fault::Malformed(self.tally.too_many_values()))
    }

    /// Opens an object; `None` for null, which stands for one without members.
    fn object(&mut self, misfit: &'static str) -> Result<Option<Members>, Fault> {
        match self.scanner.token()? {
            Token::Object => Ok(Some(Members::default())),
            Token::Null => Ok(None),
            _ => Err(Fault::Misfit(misfit)),
        }
    }

    /// Opens an array; `None` for null, which stands for one without elements.
    fn array(&mut self, misfit: &'static str) -> Result<Option<Elements>, Fault> {
        match self.scanner.token()? {
            Token::Array => Ok(Some(Elements::default())),
            Token::Null => Ok(None),
            _ => Err(Fault::Misfit(misfit)),
        }
    }

    /// Reads a string; an empty one for null.
    fn text(&mut self, misfit: &'static str) -> Result<Quoted<'a>, Fault> {
        match self.scanner.token()? {
            Token::Text(text) => Ok(text),
            Token::Null => Ok(Quoted::default()),
            _ => Err(Fault::Misfit(misfit)),
        }
    }

    /// Writes text by itself and says where.
    fn place(&mut self, text: Quoted<'a>) -> Range<usize> {
        let start = self.out.len();
        text.append_to(&mut self.out);
        start..self.out.len()
    }
}

/// The request as far as it has been read. What lies in the output is known by its place until the output is complete.
struct Draft<'a> {
    transcoder: Transcoder<'a>,
    spans: Vec<DraftSpan>,
    scopes: Vec<DraftScope>,
    resources: Vec<Maker>,
    refused: Vec<DraftRefused<'a>>,
    /// The place of the next span among all spans of the body.
    index: u32,
    /// What is left of the places that are not to be delivered again.
    resent: &'a [u32],
}

struct DraftSpan {
    scope: usize,
    trace_id: TraceId,
    span_id: SpanId,
    parent_id: Option<SpanId>,
    start_ns: u64,
    end_ns: u64,
    wire: Range<usize>,
}

struct DraftScope {
    resource: usize,
    maker: Maker,
}

struct DraftRefused<'a> {
    scope: usize,
    index: u32,
    reason: &'static str,
    text: &'a str,
}

/// What spans were made by: a `Resource` or `InstrumentationScope` message, and its schema URL.
#[derive(Default)]
struct Maker {
    wire: Range<usize>,
    schema_url: Range<usize>,
}

/// Names of foreign members that a refusal lists, at most.
const NAMES_MAX: usize = 5;

/// Characters of such a name that a refusal shows, at most.
const NAME_CHARS_MAX: usize = 40;

impl Draft<'_> {
    fn request(&mut self) -> Result<(), Fault> {
        let token = self.transcoder.scanner.token()?;
        if token != Token::Object {
            return Err(Malformed::Shape(format!(
                "expected an object with resourceSpans, found {}",
                token.as_str()
            ))
            .into());
        }
        let mut members = Members::default();
        let mut foreign = Vec::new();
        let mut is_request = false;
        while let Some(name) = members.next(&mut self.transcoder.scanner)? {
            if let "resourceSpans" | "resource_spans" = &*name.text() {
                is_request = true;
                self.each(Self::resource_spans, "resourceSpans is not an array")?;
            } else {
                foreign.push(name);
                self.transcoder.scanner.skip()?;
            }
        }
        self.transcoder.scanner.end()?;
        if is_request || foreign.is_empty() {
            return Ok(());
        }
        Err(Malformed::Shape(format!(
            "expected an object with resourceSpans, found the members {}",
            names(&foreign)
        ))
        .into())
    }

    /// Calls `read` at every element of an array.
    fn each(
        &mut self,
        read: fn(&mut Self) -> Result<(), Fault>,
        misfit: &'static str,
    ) -> Result<(), Fault> {
        let Some(mut elements) = self.transcoder.array(misfit)? else { return Ok(()) };
        while elements.next(&mut self.transcoder.scanner)? {
            read(self)?;
        }
        Ok(())
    }

    fn resource_spans(&mut self) -> Result<(), Fault> {
        self.transcoder.count_value()?;
        let Some(mut members) =
            self.transcoder.object("an element of resourceSpans is not an object")?
        else {
            return Ok(());
        };
        let mut maker = Maker::default();
        let scopes = self.scopes.len();
        while let Some(name) = members.next(&mut self.transcoder.scanner)? {
            match &*name.text() {
                "resource" => maker.wire = self.transcoder.resource()?,
                "scopeSpans" | "scope_spans" => {
                    self.each(Self::scope_spans, "scopeSpans is not an array")?;
                }
                "schemaUrl" | "schema_url" => maker.schema_url = self.schema_url()?,
                _ => drop(self.transcoder.scanner.skip()?),
            }
        }
        // Kept for its scopes' sake only, so that an envelope without spans costs nothing.
        if scopes < self.scopes.len() {
            self.resources.push(maker);
        }
        Ok(())
    }

    fn scope_spans(&mut self) -> Result<(), Fault> {
        self.transcoder.count_value()?;
        let Some(mut members) =
            self.transcoder.object("an element of scopeSpans is not an object")?
        else {
            return Ok(());
        };
        let mut maker = Maker::default();
        let spans = self.spans.len() + self.refused.len();
        while let Some(name) = members.next(&mut self.transcoder.scanner)? {
            match &*name.text() {
                "scope" => maker.wire = self.transcoder.scope()?,
                "spans" => self.each(Self::span, "spans is not an array")?,
                "schemaUrl" | "schema_url" => maker.schema_url = self.schema_url()?,
                _ => drop(self.transcoder.scanner.skip()?),
            }
        }
        // Kept for its spans' sake only. Its resource is the one that is being read.
        if spans < self.spans.len() + self.refused.len() {
            self.scopes.push(DraftScope { resource: self.resources.len(), maker });
        }
        Ok(())
    }

    fn schema_url(&mut self) -> Result<Range<usize>, Fault> {
        let url = self.transcoder.text("schemaUrl is not a string")?;
        Ok(self.transcoder.place(url))
    }

    fn span(&mut self) -> Result<(), Fault> {
        let transcoder = &mut self.transcoder;
        transcoder.tally.item()?;
        let index = self.index;
        self.index = self.index.saturating_add(1);
        if let Some((&first, rest)) = self.resent.split_first()
            && first == index
        {
            self.resent = rest;
            transcoder.scanner.skip()?;
            return Ok(());
        }
        let begun_at = transcoder.scanner.value_position();
        let written = transcoder.out.len();
        match transcoder.span() {
            Ok(said) => self.spans.push(DraftSpan {
                // The scope that is being read.
                scope: self.scopes.len(),
                trace_id: said.trace_id,
                span_id: said.span_id,
                parent_id: said.parent_id,
                start_ns: said.start_ns,
                end_ns: said.end_ns,
                wire: written..transcoder.out.len(),
            }),
            Err(Fault::Misfit(reason)) => {
                transcoder.out.truncate(written);
                transcoder.scanner.go_back(begun_at);
                let text = transcoder.scanner.skip()?;
                self.refused.push(DraftRefused { scope: self.scopes.len(), index, reason, text });
            }
            Err(malformed) => return Err(malformed),
        }
        Ok(())
    }

    /// Makes spans of what was read, now that the output moves no more.
    fn finish(self, envelope: &Envelope, body: &Bytes) -> Decoded {
        let Self {
            transcoder: Transcoder { out, tally, .. },
            spans,
            scopes,
            resources,
            refused,
            ..
        } = self;
        let kept_bytes = out.capacity();
        let out = Bytes::from(out);
        let slice = |range: &Range<usize>| out.slice(range.clone());
        let resources: Vec<Arc<Resource>> = resources
            .iter()
            .map(|maker| Arc::new(detail::resource(slice(&maker.wire), &slice(&maker.schema_url))))
            .collect();
        let scopes: Vec<Arc<Scope>> = scopes
            .iter()
            .map(|draft| {
                let resource = resources.get(draft.resource).cloned().unwrap_or_default();
                Arc::new(detail::scope(
                    slice(&draft.maker.wire),
                    &slice(&draft.maker.schema_url),
                    resource,
                ))
            })
            .collect();
        let items: Vec<Item> = spans
            .into_iter()
            .map(|draft| {
                let DraftSpan { scope, trace_id, span_id, parent_id, start_ns, end_ns, wire } =
                    draft;
                let outline =
                    Outline { trace_id, span_id, parent_id, start_ns, end_ns, wire: slice(&wire) };
                let scope = scopes.get(scope).cloned().unwrap_or_default();
                Item::Span(Span::new(outline, scope, None, &OTLP))
            })
            .collect();
        let refused = refused
            .into_iter()
            .map(|DraftRefused { scope, index, reason, text }| Refused {
                index,
                reason,
                wire: body.slice_ref(text.as_bytes()),
                scope: Some(scopes.get(scope).cloned().unwrap_or_default()),
            })
            .collect();
        let bytes = kept_bytes
            + items.capacity() * size_of::<Item>()
            + tally.values() * size_of::<Attribute>();
        let batch = Batch { source: envelope.source.clone(), items, bytes };
        tally.decoded(batch, refused)
    }
}

/// The names of members, as far as they are names and not text.
fn names(members: &[Quoted<'_>]) -> String {
    let shown = members.iter().take(NAMES_MAX).map(|name| {
        let is_plain = |character: &char| {
            character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
        };
        name.raw().chars().take_while(is_plain).take(NAME_CHARS_MAX).collect::<String>()
    });
    let mut names = shown.collect::<Vec<_>>().join(", ");
    if NAMES_MAX < members.len() {
        names.push_str(", ...");
    }
    names
}
