//! Recognises the formats that can be imported, by content and not by name.
//!
//! A piece that begins with the tag of `resource_spans` is an OTLP request in protobuf. JSON is recognised by the first member that has a
//! row in [`FORMATS`].

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Value as Json, json};

use super::langfuse;
use super::pieces::{Chunk, FIELD_1, PIECE_BYTES_MAX, ZSTD_MAGIC};
use crate::normalize::wire::{self, Content, Fields};
use crate::normalize::{
    Coding, Decoded, Encoding, Envelope, Limits, decode, inflate, lines, resource_of,
};
use crate::sinks::jsonl::SCHEMA_VERSION;
use crate::span::{Attribute, Receiver, Source, Text, Value, keys, sdk_request};
use crate::support::base64;
use crate::support::json::scan::{Broken, Scanner};

/// The number of the field `resource` in `ResourceSpans`.
const RESOURCE: u32 = 1;

/// A body that a receiver accepts, and what is known of its client.
pub(super) type Body = (Envelope, Bytes);

type AsBody = fn(&Bytes) -> Result<Body, String>;

/// For JSON, the members that identify a format, and the conversion to a body.
const FORMATS: &[(&str, AsBody)] = &[
    ("resourceSpans resource_spans", |body| Ok(otlp(Encoding::Json, body))),
    ("data", |body| Ok(agents_sdk(body.clone()))),
    ("schema_version", |line| of_line(line)),
    // A row of Langfuse. Each has one of these members, before the columns that are named after the user's scores.
    ("project_id projectId parentObservationId parent_observation_id bookmarked", |row| {
        langfuse::columns(row).map(of_columns)
    }),
    // A single item of the Agents SDK.
    ("object", |item| Ok(agents_sdk(sdk_request(item.trim_ascii())))),
    ("set_aside", |line| body(&content_of(line).ok_or("it is empty")?)),
];
const UNKNOWN: &str = "it is none of: a JSON line of Spanferry, OTLP/JSON with resourceSpans, a body or an item of the Agents SDK, a row of \
                       Langfuse's export";

/// Columns for headers whose names have hyphens.
const HEADERS: [&str; 3] = ["user_agent", "openai_organization", "openai_project"];

/// Decodes a piece, or returns the reason why it is invalid. Its source has the headers that its client sent.
pub(in crate::cli) fn of_piece(piece: &Chunk) -> Result<Decoded, String> {
    piece.flaw.clone().map_or_else(|| read(&piece.bytes), Err)
}

pub(super) fn read(piece: &Bytes) -> Result<Decoded, String> {
    let coding = if piece.starts_with(ZSTD_MAGIC) { Coding::Zstd } else { Coding::Identity };
    let piece = inflate(coding, piece.clone(), PIECE_BYTES_MAX);
    let (envelope, bytes) = body(&piece.map_err(|error| error.to_string())?)?;
    decode(&envelope, &bytes, &Limits::default()).map_err(|error| error.to_string())
}

fn body(piece: &Bytes) -> Result<Body, String> {
    match piece.first() {
        None | Some(&FIELD_1) => {
            let otlp = || otlp(Encoding::Protobuf, piece);
            return Ok(archived(piece).map_or_else(otlp, agents_sdk));
        }
        Some(b'{') => {}
        Some(_) => return Err(UNKNOWN.to_owned()),
    }
    let mut format = None;
    Scanner::lenient(piece)
        .each_member(|scanner, name| {
            let name = piece.get(name.start..name.end).unwrap_or_default();
            let is_of = |members: &str| members.split(' ').any(|known| known.as_bytes() == name);
            format = format.or_else(|| FORMATS.iter().find(|(members, _)| is_of(members)));
            scanner.skip_value()
        })
        .map_err(|broken: Broken| format!("it is not JSON: {broken}"))?;
    format.map_or_else(|| Err(UNKNOWN.to_owned()), |(_, as_body)| as_body(piece))
}

/// Returns the Agents SDK body from which an archived request was made. Only the body has the data that OTLP has no field for.
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
    let source = Source { receiver: Receiver::OpenAi, ..Source::unknown() };
    (Envelope::new(source, Encoding::Json, bytes.len()), bytes)
}

fn otlp(encoding: Encoding, body: &Bytes) -> Body {
    let source = Source { receiver: Receiver::OtlpHttp, ..Source::unknown() };
    (Envelope::new(source, encoding, body.len()), body.clone())
}

/// Returns an OTLP span from its columns.
fn of_columns(line: Json) -> Body {
    otlp(Encoding::Json, &Bytes::from(lines::request(line).to_string()))
}

/// Reads one of our own lines: an item of the Agents SDK as it was, or an OTLP span from its columns.
fn of_line(line: &[u8]) -> Result<Body, String> {
    let line: Json = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = |column: &str| line.get(column)?.as_str();
    let version = line.get("schema_version").and_then(Json::as_u64);
    if version.is_none_or(|version| SCHEMA_VERSION < version) {
        return Err(format!("its schema_version is not 1 to {SCHEMA_VERSION}"));
    }
    let header = |column: &str| Some((column.replace('_', "-"), text(column)?.to_owned()));
    let headers = HEADERS.into_iter().filter_map(header).collect();
    let tenant = text("tenant").unwrap_or_default().to_owned();
    let (mut envelope, bytes) = match (text("openai_item"), text("record")) {
        (Some(item), _) => agents_sdk(sdk_request(item.as_bytes())),
        (None, Some("span")) => of_columns(line),
        _ => return Err("it is neither a span nor an item of the Agents SDK".to_owned()),
    };
    (envelope.source.headers, envelope.source.tenant) = (headers, tenant);
    Ok((envelope, bytes))
}

/// Data that is invalid or was refused.
#[derive(Debug)]
pub(super) struct SetAside {
    /// Its place, in words.
    pub(super) place: String,
    pub(super) reason: String,
    pub(super) bytes: Bytes,
}

impl SetAside {
    /// Returns it as a line of `--rejects`, which can be imported once the cause is fixed.
    pub(super) fn line(&self) -> String {
        let (member, content) = match std::str::from_utf8(&self.bytes) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("base64", base64::text(&self.bytes)),
        };
        format!("{}\n", json!({"set_aside": self.place, "reason": self.reason, member: content}))
    }
}

/// Returns the data in a line of `--rejects`.
fn content_of(line: &[u8]) -> Option<Bytes> {
    let line: Json = serde_json::from_slice(line).ok()?;
    let text = |member: &str| line.get(member)?.as_str();
    let binary = || base64::read(text("base64")?).map(Bytes::from);
    text("text").map(|text| Bytes::from(text.to_owned())).or_else(binary)
}
