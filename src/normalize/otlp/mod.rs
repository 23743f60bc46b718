//! Decodes OTLP trace requests, in protobuf and in its JSON mapping.
//!
//! Protobuf bodies are walked twice on arrival and never copied: the first walk skips through the envelope and counts spans, the second
//! reads each span's ids and times and counts its values ([`arrival`]). JSON bodies are transcoded to `Span` messages ([`json`]), so that
//! all later code reads one format. Names, attributes, events and links are read when a sink first needs them ([`detail`]).
//!
//! The rules:
//! * A request with an invalid envelope is refused. An invalid span, or one without ids, is refused alone, if its own frame is intact.
//! * Repairs are reported in warnings: a span with an invalid parent id becomes a root, a link without ids is omitted, and a value that
//!   nests more deeply than [`Limits::depth_max`](crate::normalize::Limits::depth_max) becomes [`TOO_DEEP_MARKER`]. Invalid UTF-8 becomes
//!   U+FFFD when text is read; in protobuf, arrival does not check for it, and the span is passed on unchanged.
//! * Unknown fields are accepted, and stay in the span's slice of the body.

pub mod wire;
mod tally;
mod arrival;
mod detail;
mod json;
#[cfg(test)]
mod tests;

use std::cell::LazyCell;

use super::attributes;
use crate::span::{Detail, Format, Span, SpanReading};

pub use arrival::with_parent;
pub(super) use arrival::{decode as decode_protobuf, span_of};
pub use detail::{resource_of, scope_of};
pub(super) use json::decode as decode_json;

/// Replaces a value that is nested too deeply.
pub(super) const TOO_DEEP_MARKER: &str = "[nested too deeply]";

/// The format of OTLP `Span` messages.
static OTLP: Otlp = Otlp;

#[derive(Debug)]
struct Otlp;

impl Format for Otlp {
    fn is_otlp(&self) -> bool {
        true
    }

    fn detail(&self, span: &Span) -> Detail {
        let mut detail = Detail::default();
        detail::fill(&mut detail, &span.wire);
        detail
    }

    fn said(&self, span: &Span, reading: &mut SpanReading) {
        let SpanReading { facts, head } = reading;
        let detail = span.known_detail().unwrap_or_else(|| head.insert(self.detail(span)));
        attributes::facts(span, detail, facts);
    }

    fn brief_facts(&self, span: &Span, reading: &mut SpanReading) {
        let mut followed = None;
        let name = LazyCell::new(|| str::from_utf8(wire::last_bytes(&span.wire, 5)).unwrap_or(""));
        let detail = detail::span_with(&span.wire, |key, bytes| {
            attributes::matters_to_sums((key, bytes), (&span.scope.name, || *name), &mut followed)
        });
        attributes::facts(span, &detail, &mut reading.facts);
    }
}
