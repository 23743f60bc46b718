//! What a request was found to hold, held against the limits, and what was mended in it.

use super::wire::Broken;
use crate::normalize::{Limits, Malformed, Warning};

/// Counts of one request.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    limits: &'a Limits,
    items: usize,
    values: usize,
    warnings: Vec<Warning>,
}

/// Why a span goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It is refused, alone.
    Refused(&'static str),
    /// With it the request holds more values than allowed, and is refused whole.
    TooManyValues,
}

impl From<Broken> for Flaw {
    fn from(broken: Broken) -> Self {
        Self::Refused(match broken {
            Broken::Truncated => "a field of the span reaches beyond the end of its message",
            Broken::Varint => "an integer of the span is too long",
            Broken::Tag => "a field of the span has a tag that is none",
            Broken::Group => "a group in the span is not closed",
            Broken::WireType => "a field of the span has the wrong wire type",
        })
    }
}

impl<'a> Tally<'a> {
    /// Nothing counted yet.
    pub(super) fn new(limits: &'a Limits) -> Self {
        Self { limits, items: 0, values: 0, warnings: Vec::new() }
    }

    /// Counts one span.
    pub(super) fn item(&mut self) -> Result<(), Malformed> {
        self.items += 1;
        if self.limits.items_max < self.items {
            return Err(Malformed::TooMany { what: "spans", max: self.limits.items_max });
        }
        Ok(())
    }

    /// Counts one attribute, array element, event, link or envelope.
    #[inline]
    pub(super) fn value(&mut self) -> Result<(), Flaw> {
        self.values += 1;
        if self.limits.values_max < self.values { Err(Flaw::TooManyValues) } else { Ok(()) }
    }

    /// The refusal that goes with [`Flaw::TooManyValues`].
    pub(super) fn too_many_values(&self) -> Malformed {
        Malformed::TooMany {
            what: "attributes, array elements, events and links",
            max: self.limits.values_max,
        }
    }

    /// Whether a value at this depth, the attribute's own being 1, is nested too deeply to be read.
    #[inline]
    pub(super) fn is_too_deep(&self, depth: usize) -> bool {
        self.limits.depth_max < depth
    }

    /// Notes something that was mended.
    #[cold]
    pub(super) fn warn(&mut self, what: &'static str) {
        match self.warnings.iter_mut().find(|warning| warning.what == what) {
            Some(warning) => warning.count = warning.count.saturating_add(1),
            None => self.warnings.push(Warning { what, count: 1 }),
        }
    }

    /// Spans counted so far.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Values counted so far.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    /// What was mended.
    pub(super) fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }
}

/// What is mended, in the words of the warning. Both encodings use them.
pub(super) mod mended {
    pub(in crate::normalize::otlp) const PARENT: &str =
        "a parent span id is not 8 bytes: the span is kept as a root";
    pub(in crate::normalize::otlp) const LINK: &str =
        "a link has no valid ids: the span is kept without it";
    pub(in crate::normalize::otlp) const TOO_DEEP: &str =
        "a value is nested too deeply: a marker stands in its place";
    pub(in crate::normalize::otlp) const END: &str =
        "a span ends before it starts: its duration counts as zero";
}

/// Why a span is refused for its ids. Both encodings use them.
pub(super) mod refused {
    pub(in crate::normalize::otlp) const TRACE_ID_MISSING: &str = "the trace id is missing";
    pub(in crate::normalize::otlp) const TRACE_ID_LENGTH: &str = "the trace id is not 16 bytes";
    pub(in crate::normalize::otlp) const TRACE_ID_ZERO: &str = "the trace id is all zeros";
    pub(in crate::normalize::otlp) const SPAN_ID_MISSING: &str = "the span id is missing";
    pub(in crate::normalize::otlp) const SPAN_ID_LENGTH: &str = "the span id is not 8 bytes";
    pub(in crate::normalize::otlp) const SPAN_ID_ZERO: &str = "the span id is all zeros";
}
