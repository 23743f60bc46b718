//! Foreign words become our words: a request body becomes a [`Batch`] of spans. Pure: no clock, disk, network or task.
//!
//! [`decode`] runs once when a request arrives, to validate, count and answer, and again when a lane reads a record from disk
//! ([`decode_record`]). Because it is pure and the journal holds the client's own bytes, replaying after a mapping fix corrects
//! the past.
//!
//! The rules:
//! * Nothing is dropped. What is not understood stays in the attributes, or in the slice of the body that is the item.
//! * One bad item costs nobody else: it is listed in [`Decoded::refused`] and the others go on.
//! * Items are counted before anything is materialised, so a small hostile body cannot become a large one in memory.
//! * Bodies are sliced, not copied.

mod coding;
mod json;
mod raw;
mod shape;
mod openai;
mod tables;
mod usage;
mod attributes;
mod messages;
mod otlp;
mod time;
mod record;
pub mod ids;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::span::otlp::{json as json_mapping, protobuf};
use crate::span::{Batch, Item, Receiver, Scope, sdk_request};
use crate::support::json::scan::Broken;

pub use attributes::{Fact, Mapping, Parts, install, parts_of, tells};
pub use coding::{Coding, InflateError, inflate};
pub use openai::{RootSource, root_span, scrub_credentials, trace_facts};
pub use otlp::{resource_of, scope_of, wire, with_parent};
pub use record::{Aside, Encoding, Envelope, Kept, NotARecord, Outcome, Resolution};

/// The most one request may hold. Counted in the body before anything is built from it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Spans (OTLP) or items (ingest).
    pub items_max: usize,
    /// Attributes, array elements, events and links, all together.
    pub values_max: usize,
    /// Nesting of attribute values; what lies deeper is replaced by a marker.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 64 MiB of real agent spans are about 10,000; an empty span takes two bytes on the wire and 250 in memory.
            items_max: 200_000,
            // Spans with ten short attributes make 1,800,000 in a body of 64 MiB. A sink that looks into spans takes 64 bytes for each: 128 MB
            // at most, for which hostile clients need no more than 4 MB of attributes of two bytes.
            values_max: 2_000_000,
            // Real values stay below ten; other implementations stop between 31 and 48.
            depth_max: 64,
        }
    }
}

/// A request body, understood.
#[derive(Debug)]
pub struct Decoded {
    /// What can be delivered.
    pub batch: Batch,
    /// What cannot: kept aside as sent.
    pub refused: Vec<Refused>,
    /// Things that were mended, for the client to know; the same thing once with a count, never payload text.
    pub warnings: Vec<Warning>,
    /// Spans whose times are before 2000 or after 2100; they are in the batch, as sent.
    pub odd_times: u64,
}

/// An item that could not be understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its place in the body, counted over all items.
    pub index: u32,
    /// Why, without payload text.
    pub reason: &'static str,
    /// The item as sent.
    pub wire: Bytes,
    /// How it is encoded.
    pub encoding: Encoding,
    /// The resource and scope that a span was sent under; `None` for an item of the Agents SDK.
    pub scope: Option<Arc<Scope>>,
}

impl Refused {
    /// A request with this item alone, as its receiver takes it: a later version, which may understand it, can decode that.
    pub fn request(&self) -> Bytes {
        let Some(scope) = &self.scope else { return sdk_request(&self.wire) };
        let mut body = Vec::new();
        match self.encoding {
            Encoding::Protobuf => protobuf::write_lone_request(&mut body, scope, &self.wire),
            Encoding::Json => json_mapping::write_lone_request(&mut body, scope, &self.wire),
        }
        Bytes::from(body)
    }
}

/// Something that was mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What, without payload text.
    pub what: &'static str,
    /// How often.
    pub count: u32,
}

/// Why a body is no request at all. Messages never quote payload text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body does not follow its encoding.
    #[error("the body is not {expected}: {problem}")]
    Syntax {
        /// What it should be: `an OTLP protobuf message`, `JSON` ...
        expected: &'static str,
        /// What is wrong, and at which byte.
        problem: String,
    },
    /// The body is JSON but not what this path takes.
    #[error("{0}")]
    Shape(String),
    /// The body holds more than the limits allow.
    #[error("the request holds more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

impl From<Broken> for Malformed {
    fn from(broken: Broken) -> Self {
        Self::Syntax { expected: "JSON", problem: broken.to_string() }
    }
}

/// Understands a request body whose content coding has been undone.
///
/// Items listed in `envelope.resent` are left out of the batch.
pub fn decode(envelope: &Envelope, body: &Bytes, limits: &Limits) -> Result<Decoded, Malformed> {
    match (envelope.source.receiver, envelope.encoding) {
        (Receiver::OpenAi, _) => openai::decode(envelope, body, limits),
        (_, Encoding::Protobuf) => otlp::decode_protobuf(envelope, body, limits),
        (_, Encoding::Json) => otlp::decode_json(envelope, body, limits),
    }
}

/// An item with another wire, read as it is on arrival, and under another scope. `None` where the wire cannot be read.
pub fn remade(item: &Item, wire: Bytes, scope: Option<Arc<Scope>>) -> Option<Item> {
    let Item::Span(span) = item else { return openai::item_of(wire, Arc::default()) };
    let scope = scope.unwrap_or_else(|| Arc::clone(&span.scope));
    let mut remade = if span.is_otlp() {
        otlp::span_of(&wire, scope)?
    } else if let Item::Span(remade) = openai::item_of(wire, scope)? {
        remade
    } else {
        return None;
    };
    remade.trace.clone_from(&span.trace);
    Some(Item::Span(remade))
}

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The bytes are no record.
    #[error(transparent)]
    Record(#[from] NotARecord),
    /// The body's coding is broken.
    #[error(transparent)]
    Coding(#[from] InflateError),
    /// The body is no request.
    #[error(transparent)]
    Body(#[from] Malformed),
}

/// Understands a record of the journal: envelope, coding and body.
pub fn decode_record(payload: &Bytes) -> Result<(Envelope, Decoded), Unreadable> {
    let (envelope, body) = Envelope::split(payload)?;
    let bytes_max = usize::try_from(envelope.body_bytes).unwrap_or(usize::MAX);
    let body = inflate(envelope.coding, body, bytes_max)?;
    // What was accepted under the limits of its day stays readable when they are lowered.
    let limits = Limits { items_max: usize::MAX, values_max: usize::MAX, ..Limits::default() };
    let decoded = decode(&envelope, &body, &limits)?;
    Ok((envelope, decoded))
}
