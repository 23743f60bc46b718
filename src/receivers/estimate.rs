//! How much memory understanding a body may take, at most: said from its bytes, before anything is made of them.
//!
//! [`memory_bound`] is never below what [`crate::normalize::decode`] allocates beside the body and keeps until the request is answered; a property test
//! holds both against each other. A small body is charged the worst ratio of its format, which costs nothing. A large one is
//! counted first: the envelope of a protobuf body is hopped over, and the brackets, commas and strings of JSON are passed once.
//! What sinks read later (a span's attributes, events and facts) is no part of it: [`crate::span::Batch::bytes`] and
//! [`Limits::values_max`] bound that.

use bytes::Buf as _;
use memchr::memmem;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::normalize::{Encoding, Limits, Refused};
use crate::span::{Attribute, Item, Receiver, Resource, Scope, TraceObject};
use crate::support::find;
use crate::support::json::scan::escaped_unit;

/// The worst there is for each format, in bytes of memory for a byte of the body: spans and items of two bytes, each refused alone.
const PROTOBUF_RATIO_MAX: usize = 224;
const JSON_RATIO_MAX: usize = 128;
const INGEST_RATIO_MAX: usize = 128;

/// A list that grows by doubling may have room for twice what it holds, and for four where it holds one.
const GROWTH: usize = 2;
const FIRST_ROOM: usize = 4;
/// The two counters of an `Arc`.
const ARC_BYTES: usize = 16;
/// What a transcoded span is known by until all are.
const DRAFT_BYTES: usize = 128;
/// Text that is not UTF-8: three bytes for one, in a string that grows by doubling.
const LOSSY_RATIO: usize = 3 * GROWTH;

const SPAN_BYTES: usize = size_of::<Item>() + GROWTH * size_of::<Refused>();
const JSON_SPAN_BYTES: usize = size_of::<Item>() + GROWTH * (DRAFT_BYTES + size_of::<Refused>());
const INGEST_ITEM_BYTES: usize =
    GROWTH * size_of::<Item>() + size_of::<TraceObject>() + ARC_BYTES + 4 * size_of::<usize>();
const ENVELOPE_BYTES: usize = size_of::<Resource>() + size_of::<Scope>() + 2 * ARC_BYTES;

/// The most memory that understanding this body may take beside the body itself. It is counted only where the worst ratio of the
/// format comes to more than `enough`.
pub(super) fn memory_bound(
    receiver: Receiver,
    encoding: Encoding,
    body: &[u8],
    enough: usize,
) -> usize {
    let worst = worst_bound(receiver, encoding, body.len());
    if worst <= enough {
        return worst;
    }
    let counted = match (receiver, encoding) {
        (Receiver::OpenAi, _) => ingest(body),
        (_, Encoding::Protobuf) => protobuf(body, &REQUEST, 0),
        (_, Encoding::Json) => json(body),
    };
    counted.saturating_add(SMALLEST_BYTES).min(worst)
}

/// The most memory that understanding any body of this length may take.
pub(super) fn worst_bound(receiver: Receiver, encoding: Encoding, bytes: usize) -> usize {
    let ratio = match (receiver, encoding) {
        (Receiver::OpenAi, _) => INGEST_RATIO_MAX,
        (_, Encoding::Protobuf) => PROTOBUF_RATIO_MAX,
        (_, Encoding::Json) => JSON_RATIO_MAX,
    };
    bytes.saturating_mul(ratio).saturating_add(SMALLEST_BYTES)
}

/// What the smallest request takes: its source, its scope and resource, and the first room of its lists.
const SMALLEST_BYTES: usize = 8 << 10;

/// What a protobuf message takes, and what its fields do.
struct Shape {
    own: usize,
    per_byte: usize,
    /// The fields that are messages; the others are looked at as text. `None` where nothing inside is read on arrival.
    fields: Option<&'static [(u32, &'static Shape)]>,
}

static REQUEST: Shape = Shape {
    own: 0,
    per_byte: 1, // Spans that are repaired are written anew.
    fields: Some(&[(1, &RESOURCE_SPANS)]),
};
static RESOURCE_SPANS: Shape =
    Shape { own: ENVELOPE_BYTES, per_byte: 0, fields: Some(&[(1, &RESOURCE), (2, &SCOPE_SPANS)]) };
static SCOPE_SPANS: Shape =
    Shape { own: ENVELOPE_BYTES, per_byte: 0, fields: Some(&[(1, &SCOPE), (2, &SPAN)]) };
static SPAN: Shape = Shape { own: SPAN_BYTES, per_byte: 0, fields: None };
static RESOURCE: Shape = Shape { own: 0, per_byte: MERGED_RATIO, fields: Some(&[(1, &ATTRIBUTE)]) };
static SCOPE: Shape = Shape { own: 0, per_byte: MERGED_RATIO, fields: Some(&[(3, &ATTRIBUTE)]) };
static ATTRIBUTE: Shape = Shape { own: ATTRIBUTE_BYTES, per_byte: 0, fields: Some(&[(2, &VALUE)]) };
static VALUE: Shape = Shape { own: 0, per_byte: 0, fields: Some(&[(5, &LIST), (6, &MAP)]) };
static LIST: Shape = Shape { own: 0, per_byte: 0, fields: Some(&[(1, &ELEMENT)]) };
static MAP: Shape = Shape { own: 0, per_byte: 0, fields: Some(&[(1, &ATTRIBUTE)]) };
static ELEMENT: Shape =
    Shape { own: ATTRIBUTE_BYTES, per_byte: 0, fields: Some(&[(5, &LIST), (6, &MAP)]) };

/// A resource or scope is merged where it comes in parts.
const MERGED_RATIO: usize = 4;
const ATTRIBUTE_BYTES: usize = FIRST_ROOM * size_of::<Attribute>();

fn protobuf(message: &[u8], shape: &Shape, depth: usize) -> usize {
    let mut bytes = shape.own + shape.per_byte * message.len();
    // A value in a value is three messages deeper at most; those too deep to be read cost nothing more.
    if let Some(fields) = shape.fields
        && depth <= 6 + 3 * Limits::default().depth_max
    {
        each_message(message, |number, content| {
            bytes += match fields.iter().find(|(known, _)| *known == number) {
                Some((_, inner)) => protobuf(content, inner, depth + 1),
                None => text(content),
            };
            Some(())
        });
    }
    bytes
}

fn text(bytes: &[u8]) -> usize {
    if std::str::from_utf8(bytes).is_ok() { 0 } else { LOSSY_RATIO * bytes.len() }
}

/// Calls `visit` with each length-delimited field; `None` where the message cannot be read, or `visit` says so.
pub(super) fn each_message<'a>(
    mut message: &'a [u8],
    mut visit: impl FnMut(u32, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while message.has_remaining() {
        let (number, wire_type) = decode_key(&mut message).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (content, rest) = message.split_at_checked(length)?;
            visit(number, content)?;
            message = rest;
        } else {
            skip_field(wire_type, number, &mut message, DecodeContext::default()).ok()?;
        }
    }
    Some(())
}

// JSON: spans are the elements of the arrays that are six deep in an OTLP request, items those of the arrays that are two deep in the
// Agents SDK's. No other array is, in a body that is taken.

const SPANS_DEPTH: usize = 6;
const ITEMS_DEPTH: usize = 2;
/// An attribute's value has two brackets and two commas in JSON, each of them charged this; the shortest, `null`, has one.
const DESCRIBED_TOKEN_BYTES: usize = GROWTH * size_of::<Attribute>() + 16;
/// Tag and length of a field, or of a message around it.
const FIELD_BYTES: usize = 6;
/// A number of ten digits or fewer becomes ten bytes at most; longer ones are kept as they are, or become fewer.
const SCALAR_BYTES: usize = 10;
/// The marker that stands for a value nested too deeply, in its fields; no other nests so deep in JSON.
const MARKER_BYTES: usize = 32;
const MARKER_DEPTH: usize = 64;

fn json(body: &[u8]) -> usize {
    let found = scan(body, SPANS_DEPTH);
    let fields = found.opens + found.strings + found.commas;
    let out = found.string_bytes
        + found.scalar_bytes
        + fields * FIELD_BYTES
        + found.commas * SCALAR_BYTES
        + found.deep * MARKER_BYTES;
    // The output begins with half of the text, and doubles.
    let out = match out {
        _ if out <= body.len() / 2 => body.len() / 2,
        _ if out <= body.len() => body.len(),
        _ => GROWTH * out,
    };
    out + found.elements * JSON_SPAN_BYTES
        + found.opens_outside * DESCRIBED_TOKEN_BYTES
        + found.envelopes * ENVELOPE_BYTES
        + text(body)
}

fn ingest(body: &[u8]) -> usize {
    let found = scan(body, ITEMS_DEPTH);
    let repaired =
        if found.flaws == 0 { 0 } else { GROWTH * body.len() + found.flaws * FLAW_BYTES };
    // Without credentials the body is not copied.
    let scrubbed = match memmem::find(body, b"tracing_api_key") {
        Some(_) => SCRUBBED_RATIO * body.len(),
        None => 0,
    };
    found.elements * INGEST_ITEM_BYTES
        + GROWTH * found.escaped_bytes
        + repaired
        + scrubbed
        + text(body)
}

/// What a repair is noted with, and the escape that it becomes.
const FLAW_BYTES: usize = 80;
/// The copy, and the list of what to cut: 32 bytes, doubled, for each member of 20.
const SCRUBBED_RATIO: usize = 6;

/// What brackets, commas and strings of a text say.
#[derive(Debug, Default)]
struct Found {
    opens: usize,
    commas: usize,
    strings: usize,
    /// Bytes inside of strings that are values.
    string_bytes: usize,
    /// Bytes of these that have escapes.
    escaped_bytes: usize,
    scalar_bytes: usize,
    /// Elements of arrays at the depth that is asked for.
    elements: usize,
    /// Brackets and commas outside of such arrays.
    opens_outside: usize,
    /// Brackets at depths where resources and scopes have theirs.
    envelopes: usize,
    /// Brackets and commas deeper than values are read.
    deep: usize,
    /// What JSON does not allow and is repaired.
    flaws: usize,
}

fn scan(body: &[u8], elements_depth: usize) -> Found {
    let mut found = Found::default();
    let (mut at, mut depth, mut is_inside) = (0, 0_usize, false);
    while let Some(&byte) = body.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                found.opens += 1;
                if depth == elements_depth {
                    is_inside = byte == b'[';
                    found.elements += usize::from(is_inside);
                }
                found.envelopes += usize::from(byte == b'{' && depth < elements_depth);
            }
            b'}' | b']' => {
                is_inside &= depth != elements_depth;
                depth = depth.saturating_sub(1);
                continue;
            }
            b',' => {
                found.commas += 1;
                found.elements += usize::from(is_inside && depth == elements_depth);
            }
            b'"' => {
                at = string(body, at, &mut found);
                continue;
            }
            b' ' | b'\n' | b'\r' | b'\t' | b':' => continue,
            _ => {
                found.flaws += usize::from(matches!(byte, b'N' | b'I'));
                found.scalar_bytes += 1;
                continue;
            }
        }
        found.opens_outside += usize::from(!is_inside);
        found.deep += usize::from(MARKER_DEPTH < depth);
    }
    found
}

/// Passes a string whose inside begins here; returns where it goes on behind it.
fn string(body: &[u8], start: usize, found: &mut Found) -> usize {
    let (mut at, mut escapes, mut halves) = (start, 0, 0);
    while let Some(next) = body.get(at..).and_then(|rest| find::either(rest, b'"', b'\\')) {
        at += next;
        if body.get(at) == Some(&b'"') {
            break;
        }
        escapes += 1;
        let is_half = |at| matches!(escaped_unit(body, at), Some(0xD800..=0xDFFF));
        at += match (is_half(at), is_half(at + 6)) {
            (true, true) => 12,
            (true, false) => {
                halves += 1;
                6
            }
            _ => 2,
        };
    }
    let end = at.min(body.len());
    let inside = body.get(start..end).unwrap_or_default();
    found.flaws += halves + inside.iter().filter(|byte| **byte < 0x20).count();
    let behind = body.get(end + 1..).unwrap_or_default();
    if behind.trim_ascii_start().first() != Some(&b':') {
        found.strings += 1;
        // An escape that stands for no character becomes three bytes for two.
        found.string_bytes += inside.len() + escapes;
        found.escaped_bytes += if escapes == 0 { 0 } else { inside.len() };
    }
    end + 1
}
