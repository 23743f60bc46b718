//! Counts the contents of a request against the limits, and collects warnings about repairs.

use super::wire::Broken;
use crate::normalize::{Decoded, Envelope, Limits, Malformed, Refused, Warning};
use crate::span::{Attribute, Batch, Item};
use crate::support::rfc3339::{NS_PER_SECOND, is_odd};

/// The counts of one request.
#[derive(Debug)]
pub(super) struct Counters<'a> {
    limits: &'a Limits,
    /// The remaining indices of spans that must not be delivered again.
    resent: &'a [u32],
    /// The index of the next span among all spans of the body.
    place: u32,
    items: usize,
    values: usize,
    odd_times: u64,
    warnings: Vec<Warning>,
}

/// Why a span is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Only the span is refused.
    Refused(&'static str),
    /// The span brings the request over the limit for values, so the complete request is refused.
    TooManyValues,
}

impl From<Broken> for Flaw {
    fn from(broken: Broken) -> Self {
        Self::Refused(broken.as_str())
    }
}

impl<'a> Counters<'a> {
    /// Starts without counts.
    pub(super) fn new(limits: &'a Limits, resent: &'a [u32]) -> Self {
        Self { limits, resent, place: 0, items: 0, values: 0, odd_times: 0, warnings: Vec::new() }
    }

    /// Counts one span.
    pub(super) fn item(&mut self) -> Result<(), Malformed> {
        self.items += 1;
        if self.limits.items_max < self.items {
            return Err(Malformed::TooMany { what: "spans", max: self.limits.items_max });
        }
        Ok(())
    }

    /// Returns the index of the next span among all spans of the body; `None` for one that must not be delivered again.
    pub(super) fn next_place(&mut self) -> Option<u32> {
        let place = self.place;
        self.place = place.saturating_add(1);
        match self.resent.split_first() {
            Some((first, rest)) if *first == place => {
                self.resent = rest;
                None
            }
            _ => Some(place),
        }
    }

    /// Counts one attribute, array element, event, link or envelope.
    #[inline]
    pub(super) fn value(&mut self) -> Result<(), Flaw> {
        self.values += 1;
        if self.limits.values_max < self.values { Err(Flaw::TooManyValues) } else { Ok(()) }
    }

    /// Returns the error for [`Flaw::TooManyValues`].
    pub(super) fn too_many_values(&self) -> Malformed {
        Malformed::TooMany {
            what: "attributes, array elements, events and links",
            max: self.limits.values_max,
        }
    }

    /// Returns whether a value at this depth, where an attribute's own value has 1, is nested too deeply.
    #[inline]
    pub(super) fn is_too_deep(&self, depth: usize) -> bool {
        self.limits.depth_max < depth
    }

    /// Checks a kept span's times, which stay as sent.
    #[inline]
    pub(super) fn times(&mut self, start_ns: u64, end_ns: u64) {
        if end_ns != 0 && end_ns < start_ns {
            self.warn(repaired::END);
        }
        if let Some(odd) = [start_ns, end_ns].into_iter().find(|at| *at != 0 && is_odd(*at)) {
            self.odd_time(odd);
        }
    }

    #[cold]
    fn odd_time(&mut self, time: u64) {
        self.odd_times += 1;
        let unit = UNITS.iter().find(|(ns, _)| !is_odd(time.saturating_mul(*ns)));
        self.warn(unit.map_or(ODD_TIME, |(_, what)| what));
    }

    /// Counts a repair.
    #[cold]
    pub(super) fn warn(&mut self, what: &'static str) {
        match self.warnings.iter_mut().find(|warning| warning.what == what) {
            Some(warning) => warning.count = warning.count.saturating_add(1),
            None => self.warnings.push(Warning { what, count: 1 }),
        }
    }

    /// Returns the number of spans counted so far.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// Builds the result from the spans. `bytes` is the memory that they need in addition to their own size.
    pub(super) fn decoded(
        self,
        envelope: &Envelope,
        bytes: usize,
        items: Vec<Item>,
        refused: Vec<Refused>,
    ) -> Decoded {
        let bytes =
            bytes + items.capacity() * size_of::<Item>() + self.values * size_of::<Attribute>();
        let batch = Batch { source: envelope.source.clone(), items, bytes };
        Decoded { batch, refused, warnings: self.warnings, odd_times: self.odd_times }
    }
}

/// Units of hand-written exporters' times, in nanoseconds, with their warnings. The two years are so close that a number fits at most
/// one unit.
const UNITS: [(u64, &str); 3] = [
    (NS_PER_SECOND, "a span's time looks like seconds, not nanoseconds: it is kept as sent"),
    (1_000_000, "a span's time looks like milliseconds, not nanoseconds: it is kept as sent"),
    (1_000, "a span's time looks like microseconds, not nanoseconds: it is kept as sent"),
];
const ODD_TIME: &str = "a span's time is before 2000 or after 2100: it is kept as sent";

/// Warnings about repairs in both encodings.
pub(super) mod repaired {
    pub(crate) const PARENT: &str = "a parent span id is not 8 bytes: the span is kept as a root";
    pub(crate) const LINK: &str = "a link has no valid ids: the span is kept without it";
    pub(crate) const TOO_DEEP: &str = "a value is nested too deeply: it was replaced by a marker";
    pub(crate) const END: &str = "a span ends before it starts: its duration counts as zero";
}

/// Reasons for refusing a span for its own id or its trace id.
pub(super) struct NoId {
    pub(super) missing: &'static str,
    pub(super) zero: &'static str,
    /// In protobuf.
    pub(super) no_bytes: &'static str,
    /// In JSON.
    pub(super) no_digits: &'static str,
}

pub(super) static NO_TRACE_ID: NoId = NoId {
    missing: "the trace id is missing",
    zero: "the trace id is all zeros",
    no_bytes: "the trace id is not 16 bytes",
    no_digits: "the trace id is not 32 hexadecimal digits",
};

pub(super) static NO_SPAN_ID: NoId = NoId {
    missing: "the span id is missing",
    zero: "the span id is all zeros",
    no_bytes: "the span id is not 8 bytes",
    no_digits: "the span id is not 16 hexadecimal digits",
};
