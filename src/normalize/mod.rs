//! Decodes requests: the body of a request in any client's format becomes a [`Batch`] of spans. Pure: no clock, disk, network or task.
//!
//! [`decode`] runs when a request arrives, to validate, count and answer, and again when a lane reads a record from disk
//! ([`decode_record`]). Because it is pure and the journal holds the client's bytes, a replay after a mapping fix corrects past spans.
//!
//! The rules:
//! * Nothing is dropped. Unrecognized data stays in the attributes, or in the item's slice of the body.
//! * An invalid item does not affect the others: it is listed in [`Decoded::refused`], and decoding continues.
//! * Items are counted before they are materialised, so a small hostile body cannot become a large one in memory.
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
pub mod lines;
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
pub use record::{Encoding, Envelope, Kept, NotARecord, Outcome, Resolution, SetAside};

/// The most that one request may hold. It is counted in the body before anything is built from it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Spans (OTLP) or items (ingest).
    pub items_max: usize,
    /// Attributes, array elements, events and links, in total.
    pub values_max: usize,
    /// Nesting of attribute values. A marker replaces deeper values.
    pub depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 64 MiB of real agent spans are about 10,000 spans; an empty span takes two bytes on the wire and 250 in memory.
            items_max: 200_000,
            // Spans with ten short attributes have 1,800,000 in a body of 64 MiB. A sink that decodes spans needs 64 bytes for each, thus
            // 128 MB at most. Hostile clients reach the limit with 4 MB of two-byte attributes.
            values_max: 2_000_000,
            // Real values stay below ten; other implementations stop between 31 and 48.
            depth_max: 64,
        }
    }
}

/// A decoded request body.
#[derive(Debug)]
pub struct Decoded {
    /// The items that can be delivered.
    pub batch: Batch,
    /// The invalid items, as sent, for the quarantine.
    pub refused: Vec<Refused>,
    /// Repairs that the client should know of: each kind once with a count, never payload text.
    pub warnings: Vec<Warning>,
    /// The number of spans with times that are unreadable, before 2000 or after 2100. They are in the batch, as sent.
    pub odd_times: u64,
}

/// An item that could not be decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its index in the body, counted over all items.
    pub index: u32,
    /// The reason, without payload text.
    pub reason: &'static str,
    /// The item as sent.
    pub wire: Bytes,
    /// Its encoding.
    pub encoding: Encoding,
    /// The resource and scope that a span was sent under; `None` for an Agents SDK item.
    pub scope: Option<Arc<Scope>>,
}

impl Refused {
    /// Returns a request with only this item, in its receiver's format, so that a later version that can decode it accepts it.
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

/// A repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The kind of repair, without payload text.
    pub what: &'static str,
    /// How often it was made.
    pub count: u32,
}

/// Why a body is not a request. Messages never quote payload text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The body is invalid in its encoding.
    #[error("the body is not {expected}: {problem}")]
    Syntax {
        /// The expected encoding: `an OTLP protobuf message`, `JSON` ...
        expected: &'static str,
        /// The error and its byte position.
        problem: String,
    },
    /// The body is JSON, but not of the form that this path accepts.
    #[error("{0}")]
    Shape(String),
    /// The body exceeds the limits.
    #[error("the request holds more than {max} {what}")]
    TooMany {
        /// The quantity that exceeds the limit.
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

/// Decodes a request body that is already decompressed.
///
/// Items listed in `envelope.resent` are omitted from the batch.
pub fn decode(envelope: &Envelope, body: &Bytes, limits: &Limits) -> Result<Decoded, Malformed> {
    match (envelope.source.receiver, envelope.encoding) {
        (Receiver::OpenAi, _) => openai::decode(envelope, body, limits),
        (_, Encoding::Protobuf) => otlp::decode_protobuf(envelope, body, limits),
        (_, Encoding::Json) => otlp::decode_json(envelope, body, limits),
    }
}

/// Decodes the replaced wire of an item under another scope, as on arrival. Returns `None` if the wire cannot be read.
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
    /// The bytes are not a record.
    #[error(transparent)]
    Record(#[from] NotARecord),
    /// The body could not be decompressed.
    #[error(transparent)]
    Coding(#[from] InflateError),
    /// The body is not a request.
    #[error(transparent)]
    Body(#[from] Malformed),
}

/// Decodes a record of the journal: envelope, compression and body.
pub fn decode_record(payload: &Bytes) -> Result<(Envelope, Decoded), Unreadable> {
    let (envelope, body) = Envelope::split(payload)?;
    let bytes_max = usize::try_from(envelope.body_bytes).unwrap_or(usize::MAX);
    let body = inflate(envelope.coding, body, bytes_max)?;
    // A record that was accepted under earlier limits stays readable after they are lowered.
    let limits = Limits { items_max: usize::MAX, values_max: usize::MAX, ..Limits::default() };
    let decoded = decode(&envelope, &body, &limits)?;
    Ok((envelope, decoded))
}
