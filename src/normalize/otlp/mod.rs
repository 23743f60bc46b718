//! OTLP trace requests, in protobuf and in its JSON mapping.
//!
//! Protobuf bodies are walked twice on arrival and never copied: the first walk hops over the envelope and counts spans, the second
//! reads each span's ids and times and counts what it holds ([`arrival`]). JSON bodies are transcoded to `Span` messages
//! ([`json`]), so that everything behind the door reads one format. Names, attributes, events and links are read when a sink
//! first asks ([`detail`]).
//!
//! The rules:
//! * A request whose envelope cannot be walked is refused whole. A span that cannot be walked, or that has no ids, is refused
//!   alone, as long as its own frame is intact.
//! * What can be mended is mended and said in a warning: an invalid parent id makes a root, a link without ids is left out, a
//!   value nested deeper than [`Limits::depth_max`](crate::normalize::Limits::depth_max) is shown as [`TOO_DEEP_MARKER`]. Text that is not UTF-8 gets U+FFFD where it is
//!   read; in protobuf it is not looked for on arrival, and the span is passed on with it.
//! * Unknown fields are accepted, and stay in the slice that is the span.

pub mod wire;
mod tally;
mod arrival;
mod detail;
mod json;
#[cfg(test)]
mod tests;

use super::attributes;
use crate::span::{Detail, Facts, Format, Said, Span};

pub use arrival::with_parent;
pub(super) use arrival::{decode as decode_protobuf, span_of};
pub use detail::{resource_of, scope_of};
pub(super) use json::decode as decode_json;

/// Stands where a value was nested too deeply to be read.
pub(super) const TOO_DEEP_MARKER: &str = "[nested too deeply]";

/// Reads OTLP `Span` messages.
static OTLP: Otlp = Otlp;

#[derive(Debug)]
struct Otlp;

impl Format for Otlp {
    fn is_otlp(&self) -> bool {
        true
    }

    fn detail(&self, span: &Span) -> Detail {
        detail::span(&span.wire)
    }

    fn said(&self, span: &Span) -> Said {
        Said { facts: attributes::facts(span, span.detail()), head: None }
    }

    fn brief_facts(&self, span: &Span) -> Facts {
        let mut followed = None;
        let detail = detail::span_with(&span.wire, |key, bytes| {
            attributes::matters_to_sums(key, bytes, &mut followed)
        });
        attributes::facts(span, &detail)
    }
}
