//! Decodes OTLP/JSON leniently and transcodes each span to a protobuf `Span` message, so that all later code reads one format.
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>
//!
//! Other parsers refuse the complete request for these, but this one accepts them: `snake_case` names, enums by name, numbers as strings
//! and the reverse, nulls, ids in base64. An invalid field of a span affects only that span. An attribute's value of the wrong type is kept
//! as text. If a member repeats, the last one wins, and lists grow.

mod span;
mod value;
mod scalar;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::OTLP;
use super::detail::{resource_of, scope_of};
use super::tally::{Counters, Flaw};
use crate::normalize::json::{Quoted, Scanner, Token, kind_of};
use crate::normalize::raw::utf8;
use crate::normalize::shape::{self, BodyShape};
use crate::normalize::{Decoded, Encoding, Envelope, Limits, Malformed, Refused};
use crate::span::{Item, Span, SpanHeader, Text};
use crate::support::json::scan::Broken;

/// Decodes a request.
pub(in crate::normalize) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    let (text, replaced) = utf8(body);
    let mut transcoder = Transcoder {
        scanner: Scanner::new(&text),
        // Names, quotes and digits are longer in JSON. If text prevails, the output grows once.
        out: Vec::with_capacity(text.len() / 2),
        tally: Counters::new(limits, &envelope.resent),
        spans: Vec::new(),
        scopes: Vec::new(),
        resources: Vec::new(),
        refused: Vec::new(),
    };
    if replaced != 0 {
        transcoder.tally.warn(NOT_UTF8);
    }
    transcoder.request().map_err(|fault| match fault {
        ReadError::Malformed(malformed) => malformed,
        ReadError::Misfit(what) => {
            Malformed::Shape(format!("the body is not an OTLP request in JSON: {what}"))
        }
    })?;
    Ok(transcoder.finish(envelope, &text))
}

const NOT_UTF8: &str = "the body is not UTF-8: invalid bytes became U+FFFD";

/// Why decoding stops.
#[derive(Debug)]
enum ReadError {
    /// The complete request is refused.
    Malformed(Malformed),
    /// A value of the wrong type. Inside a span, only the span is refused, elsewhere the complete request.
    Misfit(&'static str),
}

impl<E: Into<Malformed>> From<E> for ReadError {
    fn from(malformed: E) -> Self {
        Self::Malformed(malformed.into())
    }
}

/// Reads JSON and writes protobuf. Offsets refer to the output until it is complete.
struct Transcoder<'a> {
    scanner: Scanner<'a>,
    out: Vec<u8>,
    tally: Counters<'a>,
    spans: Vec<DraftSpan>,
    /// Each with the index of its resource.
    scopes: Vec<(usize, Maker)>,
    resources: Vec<Maker>,
    refused: Vec<DraftRefused<'a>>,
}

struct DraftSpan {
    scope: usize,
    /// Everything but the wire, whose range follows.
    outline: SpanHeader,
    wire: Range<usize>,
}

struct DraftRefused<'a> {
    scope: usize,
    index: u32,
    reason: &'static str,
    text: &'a str,
}

/// A `Resource` or `InstrumentationScope` message and its schema URL.
#[derive(Default)]
struct Maker {
    wire: Range<usize>,
    schema_url: Text,
}

impl<'a> Transcoder<'a> {
    fn request(&mut self) -> Result<(), ReadError> {
        let first = self.scanner.peek();
        if first != Some(b'{') {
            self.scanner.token()?;
            return Err(no_request(&BodyShape::Other(kind_of(first))));
        }
        let (mut others, mut is_request) = (Vec::new(), false);
        self.members("", |this, name| {
            if let "resourceSpans" | "resource_spans" = name {
                is_request = true;
                return this.each("resourceSpans is not an array", Self::resource_spans);
            }
            if shape::is_telling(name, others.len()) {
                others.push(name.to_owned());
            }
            this.skip()
        })?;
        self.scanner.end().map_err(|Broken { at, .. }| Malformed::Syntax {
            expected: "JSON",
            problem: format!("the text should end at byte {at}"),
        })?;
        if is_request || others.is_empty() {
            Ok(())
        } else {
            Err(no_request(&BodyShape::Members(others)))
        }
    }

    fn resource_spans(&mut self) -> Result<(), ReadError> {
        self.count_value()?;
        let mut maker = Maker::default();
        let scopes = self.scopes.len();
        self.members("an element of resourceSpans is not an object", |this, name| match name {
            "resource" => this.resource().map(|wire| maker.wire = wire),
            "scopeSpans" | "scope_spans" => {
                this.each("scopeSpans is not an array", Self::scope_spans)
            }
            "schemaUrl" | "schema_url" => this.schema_url().map(|url| maker.schema_url = url),
            _ => this.skip(),
        })?;
        // It is kept only if it has scopes, so that an envelope without spans costs nothing.
        if scopes < self.scopes.len() {
            self.resources.push(maker);
        }
        Ok(())
    }

    fn scope_spans(&mut self) -> Result<(), ReadError> {
        self.count_value()?;
        let mut maker = Maker::default();
        let spans = self.spans.len() + self.refused.len();
        self.members("an element of scopeSpans is not an object", |this, name| match name {
            "scope" => this.scope().map(|wire| maker.wire = wire),
            "spans" => this.each("spans is not an array", Self::next_span),
            "schemaUrl" | "schema_url" => this.schema_url().map(|url| maker.schema_url = url),
            _ => this.skip(),
        })?;
        // It is kept only if it has spans. Its resource is the one that is being read.
        if spans < self.spans.len() + self.refused.len() {
            self.scopes.push((self.resources.len(), maker));
        }
        Ok(())
    }

    fn schema_url(&mut self) -> Result<Text, ReadError> {
        Ok(self.text("schemaUrl is not a string")?.text().into_owned().into())
    }

    fn next_span(&mut self) -> Result<(), ReadError> {
        self.tally.item()?;
        let Some(index) = self.tally.next_place() else { return self.skip() };
        let begun_at = self.scanner.value_position();
        let written = self.out.len();
        // The scope that is being read.
        let scope = self.scopes.len();
        match self.span() {
            Ok(outline) => {
                self.spans.push(DraftSpan { scope, outline, wire: written..self.out.len() });
            }
            Err(ReadError::Misfit(reason)) => {
                self.out.truncate(written);
                self.scanner.go_back(begun_at);
                let text = self.scanner.skip()?;
                self.refused.push(DraftRefused { scope, index, reason, text });
            }
            Err(malformed) => return Err(malformed),
        }
        Ok(())
    }

    /// Counts one attribute, array element, event, link or envelope.
    #[inline]
    fn count_value(&mut self) -> Result<(), ReadError> {
        self.tally.value().map_err(|_: Flaw| ReadError::Malformed(self.tally.too_many_values()))
    }

    /// Reads an object by calling `read` at the value of each member. Null counts as an object without members. Returns whether it was an
    /// object.
    fn members(
        &mut self,
        misfit: &'static str,
        mut read: impl FnMut(&mut Self, &str) -> Result<(), ReadError>,
    ) -> Result<bool, ReadError> {
        match self.scanner.token()? {
            Token::Object => {}
            Token::Null => return Ok(false),
            _ => return Err(ReadError::Misfit(misfit)),
        }
        let mut is_begun = false;
        while let Some(name) = self.scanner.next_member(&mut is_begun)? {
            read(self, &name.text())?;
        }
        Ok(true)
    }

    /// Reads an array by calling `read` at each element. Null counts as an empty array.
    fn each(
        &mut self,
        misfit: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        match self.scanner.token()? {
            Token::Array => {}
            Token::Null => return Ok(()),
            _ => return Err(ReadError::Misfit(misfit)),
        }
        let mut is_begun = false;
        while self.scanner.next_element(&mut is_begun)? {
            read(self)?;
        }
        Ok(())
    }

    /// Reads a string. Null counts as an empty one.
    fn text(&mut self, misfit: &'static str) -> Result<Quoted<'a>, ReadError> {
        match self.scanner.token()? {
            Token::Text(text) => Ok(text),
            Token::Null => Ok(Quoted::default()),
            _ => Err(ReadError::Misfit(misfit)),
        }
    }

    /// Skips a value that no reader handles.
    fn skip(&mut self) -> Result<(), ReadError> {
        self.scanner.skip()?;
        Ok(())
    }

    /// Builds the spans, because the output no longer moves.
    fn finish(self, envelope: &Envelope, source: &Text) -> Decoded {
        let Self { out, tally, spans, scopes, resources, refused, .. } = self;
        let kept_bytes = out.capacity();
        let out = Bytes::from(out);
        let slice = |range: &Range<usize>| out.slice(range.clone());
        let resource = |Maker { wire, schema_url }| Arc::new(resource_of(slice(&wire), schema_url));
        let resources: Vec<_> = resources.into_iter().map(resource).collect();
        let scope = |(resource, Maker { wire, schema_url }): (usize, Maker)| {
            let resource = resources.get(resource).cloned().unwrap_or_default();
            Arc::new(scope_of(slice(&wire), schema_url, resource))
        };
        let scopes: Vec<_> = scopes.into_iter().map(scope).collect();
        let scope_at = |place: usize| scopes.get(place).cloned().unwrap_or_default();
        let item = |DraftSpan { scope, outline, wire }| {
            let outline = SpanHeader { wire: slice(&wire), ..outline };
            Item::Span(Span::new(outline, scope_at(scope), None, &OTLP))
        };
        let refused = refused.into_iter().map(|DraftRefused { scope, index, reason, text }| {
            let (wire, scope) = (source.slice_ref(text).into_bytes(), Some(scope_at(scope)));
            Refused { index, reason, wire, encoding: Encoding::Json, scope }
        });
        let items = spans.into_iter().map(item).collect();
        tally.decoded(envelope, kept_bytes, items, refused.collect())
    }
}

fn no_request(found: &BodyShape) -> ReadError {
    ReadError::Malformed(Malformed::Shape(shape::sentence("an object with resourceSpans", found)))
}
