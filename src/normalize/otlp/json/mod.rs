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

use super::OTLP;
use super::detail::{resource_of, scope_of};
use super::tally::{Flaw, Tally};
use crate::normalize::json::{Quoted, Scanner, Token, kind_of};
use crate::normalize::raw::utf8;
use crate::normalize::shape::{self, Found};
use crate::normalize::{Decoded, Encoding, Envelope, Limits, Malformed, Refused};
use crate::span::{Item, Outline, Span, Text};
use crate::support::json::scan::Broken;

/// Reads a request.
pub(in crate::normalize) fn decode(
    envelope: &Envelope,
    body: &Bytes,
    limits: &Limits,
) -> Result<Decoded, Malformed> {
    let (text, replaced) = utf8(body);
    let mut transcoder = Transcoder {
        scanner: Scanner::new(&text),
        // Names, quotes and digits are longer in JSON; where text prevails the output grows once.
        out: Vec::with_capacity(text.len() / 2),
        tally: Tally::new(limits, &envelope.resent),
        spans: Vec::new(),
        scopes: Vec::new(),
        resources: Vec::new(),
        refused: Vec::new(),
    };
    if replaced != 0 {
        transcoder.tally.warn(NOT_UTF8);
    }
    transcoder.request().map_err(|fault| match fault {
        Fault::Malformed(malformed) => malformed,
        Fault::Misfit(what) => {
            Malformed::Shape(format!("the body is not an OTLP request in JSON: {what}"))
        }
    })?;
    Ok(transcoder.finish(envelope, &text))
}

const NOT_UTF8: &str = "the body is not UTF-8: invalid bytes became U+FFFD";

/// Why reading goes no further.
#[derive(Debug)]
enum Fault {
    /// The request is refused whole.
    Malformed(Malformed),
    /// A value is not what its place asks for. Inside a span this costs the span, outside of one the request.
    Misfit(&'static str),
}

impl<E: Into<Malformed>> From<E> for Fault {
    fn from(malformed: E) -> Self {
        Self::Malformed(malformed.into())
    }
}

/// Reads JSON and writes protobuf. What lies in the output is known by its place until the output is complete.
struct Transcoder<'a> {
    scanner: Scanner<'a>,
    out: Vec<u8>,
    tally: Tally<'a>,
    spans: Vec<DraftSpan>,
    /// Each with the place of its resource.
    scopes: Vec<(usize, Maker)>,
    resources: Vec<Maker>,
    refused: Vec<DraftRefused<'a>>,
}

struct DraftSpan {
    scope: usize,
    /// All but its wire, which is here.
    outline: Outline,
    wire: Range<usize>,
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
    schema_url: Text,
}

impl<'a> Transcoder<'a> {
    fn request(&mut self) -> Result<(), Fault> {
        let first = self.scanner.peek();
        if first != Some(b'{') {
            self.scanner.token()?;
            return Err(no_request(&Found::Other(kind_of(first))));
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
            Err(no_request(&Found::Members(others)))
        }
    }

    fn resource_spans(&mut self) -> Result<(), Fault> {
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
        // Kept for its scopes' sake only, so that an envelope without spans costs nothing.
        if scopes < self.scopes.len() {
            self.resources.push(maker);
        }
        Ok(())
    }

    fn scope_spans(&mut self) -> Result<(), Fault> {
        self.count_value()?;
        let mut maker = Maker::default();
        let spans = self.spans.len() + self.refused.len();
        self.members("an element of scopeSpans is not an object", |this, name| match name {
            "scope" => this.scope().map(|wire| maker.wire = wire),
            "spans" => this.each("spans is not an array", Self::next_span),
            "schemaUrl" | "schema_url" => this.schema_url().map(|url| maker.schema_url = url),
            _ => this.skip(),
        })?;
        // Kept for its spans' sake only. Its resource is the one that is being read.
        if spans < self.spans.len() + self.refused.len() {
            self.scopes.push((self.resources.len(), maker));
        }
        Ok(())
    }

    fn schema_url(&mut self) -> Result<Text, Fault> {
        Ok(self.text("schemaUrl is not a string")?.text().into_owned().into())
    }

    fn next_span(&mut self) -> Result<(), Fault> {
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
            Err(Fault::Misfit(reason)) => {
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
    fn count_value(&mut self) -> Result<(), Fault> {
        self.tally.value().map_err(|_: Flaw| Fault::Malformed(self.tally.too_many_values()))
    }

    /// Reads an object with `read`, which is called at every member's value. Null stands for an object without members; returns
    /// whether it was one.
    fn members(
        &mut self,
        misfit: &'static str,
        mut read: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        match self.scanner.token()? {
            Token::Object => {}
            Token::Null => return Ok(false),
            _ => return Err(Fault::Misfit(misfit)),
        }
        let mut is_begun = false;
        while let Some(name) = self.scanner.next_member(&mut is_begun)? {
            read(self, &name.text())?;
        }
        Ok(true)
    }

    /// Reads an array with `read`, which is called at every element. Null stands for an array without elements.
    fn each(
        &mut self,
        misfit: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self.scanner.token()? {
            Token::Array => {}
            Token::Null => return Ok(()),
            _ => return Err(Fault::Misfit(misfit)),
        }
        let mut is_begun = false;
        while self.scanner.next_element(&mut is_begun)? {
            read(self)?;
        }
        Ok(())
    }

    /// Reads a string; an empty one for null.
    fn text(&mut self, misfit: &'static str) -> Result<Quoted<'a>, Fault> {
        match self.scanner.token()? {
            Token::Text(text) => Ok(text),
            Token::Null => Ok(Quoted::default()),
            _ => Err(Fault::Misfit(misfit)),
        }
    }

    /// Passes a value that nothing here reads.
    fn skip(&mut self) -> Result<(), Fault> {
        self.scanner.skip()?;
        Ok(())
    }

    /// Makes spans of what was read, now that the output moves no more.
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
            let outline = Outline { wire: slice(&wire), ..outline };
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

fn no_request(found: &Found) -> Fault {
    Fault::Malformed(Malformed::Shape(shape::sentence("an object with resourceSpans", found)))
}
