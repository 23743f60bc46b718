//! What can be imported, known by what it holds and not by its name.
//!
//! A piece that begins with the tag of `resource_spans` is an OTLP request in protobuf. Of JSON, the first member that a row of
//! [`FORMATS`] names decides.

use bytes::Bytes;
use memchr::memmem;

use super::langfuse;
use super::lines::{self, Body, body_of};
use super::pieces::{FIELD_1, PIECE_BYTES_MAX, ZSTD_MAGIC};
use super::set_aside::content_of;
use crate::normalize::wire::{self, Content, Fields};
use crate::normalize::{Coding, Decoded, Encoding, Limits, decode, inflate, resource_of};
use crate::span::{Attribute, Receiver, Text, Value, keys, sdk_request};
use crate::support::json::scan::{Broken, Scanner};

/// The field of `ResourceSpans` that is the resource.
const RESOURCE: u32 = 1;

type AsBody = fn(&Bytes) -> Result<Body, String>;

/// JSON: the member that gives a format away, and how it becomes a body.
const FORMATS: &[(&str, AsBody)] = &[
    ("resourceSpans", |otlp| Ok(body_of(Receiver::OtlpHttp, Encoding::Json, otlp.clone()))),
    ("resource_spans", |otlp| Ok(body_of(Receiver::OtlpHttp, Encoding::Json, otlp.clone()))),
    ("data", |body| Ok(agents_sdk(body.clone()))),
    ("schema_version", |line| lines::body(line)),
    // A row of Langfuse's: one of these is in each, before the columns that it names after scores.
    ("project_id", |row| langfuse::body(row)),
    ("projectId", |row| langfuse::body(row)),
    ("parentObservationId", |row| langfuse::body(row)),
    ("parent_observation_id", |row| langfuse::body(row)),
    ("bookmarked", |row| langfuse::body(row)),
    // An item of the Agents SDK by itself.
    ("object", |item| Ok(agents_sdk(sdk_request(item.trim_ascii())))),
    ("set_aside", |line| body(&content_of(line).ok_or("nothing stands in it")?)),
];
const UNKNOWN: &str = "it is none of: a JSON line of Spanferry, OTLP/JSON with resourceSpans, a body or an item of the Agents SDK, a row of \
                       Langfuse's export";

/// Understands a piece. Its source has the headers that its client sent.
pub(super) fn read(piece: &Bytes) -> Result<Decoded, String> {
    let coding = if piece.starts_with(ZSTD_MAGIC) { Coding::Zstd } else { Coding::Identity };
    let piece = inflate(coding, piece.clone(), PIECE_BYTES_MAX);
    let (envelope, bytes) = body(&piece.map_err(|error| error.to_string())?)?;
    decode(&envelope, &bytes, &Limits::default()).map_err(|error| error.to_string())
}

fn body(piece: &Bytes) -> Result<Body, String> {
    match piece.first() {
        None | Some(&FIELD_1) => {
            let otlp = || body_of(Receiver::OtlpHttp, Encoding::Protobuf, piece.clone());
            return Ok(archived(piece).map_or_else(otlp, agents_sdk));
        }
        Some(b'{') => {}
        Some(_) => return Err(UNKNOWN.to_owned()),
    }
    let mut format = None;
    Scanner::lenient(piece)
        .each_member(|scanner, name| {
            let name = piece.get(name.start..name.end).unwrap_or_default();
            format =
                format.or_else(|| FORMATS.iter().find(|(member, _)| member.as_bytes() == name));
            scanner.skip_value()
        })
        .map_err(|broken: Broken| format!("it is not JSON: {broken}"))?;
    format.map_or_else(|| Err(UNKNOWN.to_owned()), |(_, as_body)| as_body(piece))
}

/// The body of the Agents SDK that a request of an archive was made from: what OTLP has no place for is in it alone.
fn archived(request: &Bytes) -> Option<Bytes> {
    memmem::find(request, keys::SPANFERRY_BODY.as_bytes())?;
    let mut resource_spans = Fields::new(request);
    while let Ok(Some((_, content))) = resource_spans.next() {
        let Content::Bytes(message) = content else { continue };
        let resource = Bytes::copy_from_slice(wire::last_bytes(message, RESOURCE));
        let attributes = resource_of(resource, Text::default()).attributes;
        if let Some(Value::Text(body)) = Attribute::last(&attributes, keys::SPANFERRY_BODY) {
            return Some(Bytes::copy_from_slice(body.as_bytes()));
        }
    }
    None
}

fn agents_sdk(bytes: Bytes) -> Body {
    body_of(Receiver::OpenAi, Encoding::Json, bytes)
}
