//! Upper bounds of the memory for decoding a body, computed from its bytes before anything is decoded.
//!
//! [`memory_bound`] is never below what [`crate::normalize::decode`] allocates in addition to the body and keeps until the answer; a
//! property test compares both. A small body is charged the worst ratio of its format, which costs nothing. A large one is counted first:
//! the envelope of a protobuf body is traversed, and the brackets, commas and strings of JSON are scanned once. What sinks read later (a
//! span's attributes, events and facts) is not included: [`crate::span::Batch::bytes`] and [`Limits::values_max`] bound that.

use memchr::memmem;

use crate::normalize::wire::{Content, Fields};
use crate::normalize::{Encoding, Limits, Refused};
use crate::span::{Attribute, Item, Receiver, Resource, Scope, TraceObject};
use crate::support::find;
use crate::support::json::scan::escaped_unit;

/// The worst ratio of each format, in bytes of memory per byte of the body: spans and items of two bytes, each of them invalid.
const PROTOBUF_RATIO_MAX: usize = 224;
const JSON_RATIO_MAX: usize = 128;
const INGEST_RATIO_MAX: usize = 128;

/// A list that grows by doubling may have space for twice its length, and for four elements if it has one.
const GROWTH: usize = 2;
const FIRST_ROOM: usize = 4;
/// The two counters of an `Arc`.
const ARC_BYTES: usize = 16;
/// Size of a transcoded span's draft, kept until all spans are transcoded.
const DRAFT_BYTES: usize = 128;
/// Text that is not UTF-8: three bytes per byte, in a string that grows by doubling.
const LOSSY_RATIO: usize = 3 * GROWTH;

const SPAN_BYTES: usize = size_of::<Item>() + GROWTH * size_of::<Refused>();
const JSON_SPAN_BYTES: usize = size_of::<Item>() + GROWTH * (DRAFT_BYTES + size_of::<Refused>());
const INGEST_ITEM_BYTES: usize =
    GROWTH * size_of::<Item>() + size_of::<TraceObject>() + ARC_BYTES + 4 * size_of::<usize>();
const ENVELOPE_BYTES: usize = size_of::<Resource>() + size_of::<Scope>() + 2 * ARC_BYTES;

/// Returns the maximum memory for decoding this body, in addition to the body itself. The body is only scanned if the worst ratio of the
/// format exceeds `enough`.
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

/// Returns the maximum memory for decoding any body of this length.
pub(super) fn worst_bound(receiver: Receiver, encoding: Encoding, bytes: usize) -> usize {
    let ratio = match (receiver, encoding) {
        (Receiver::OpenAi, _) => INGEST_RATIO_MAX,
        (_, Encoding::Protobuf) => PROTOBUF_RATIO_MAX,
        (_, Encoding::Json) => JSON_RATIO_MAX,
    };
    bytes.saturating_mul(ratio).saturating_add(SMALLEST_BYTES)
}

/// Memory of the smallest request: its source, scope and resource, and the initial capacity of its lists.
const SMALLEST_BYTES: usize = 8 << 10;

/// The memory of a protobuf message and its fields.
struct Shape {
    own: usize,
    per_byte: usize,
    /// The fields that are messages; the others are treated as text. `None` if nothing inside is read on arrival.
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

/// A resource or scope is merged if it comes in parts.
const MERGED_RATIO: usize = 4;
const ATTRIBUTE_BYTES: usize = FIRST_ROOM * size_of::<Attribute>();

fn protobuf(message: &[u8], shape: &Shape, depth: usize) -> usize {
    let mut bytes = shape.own + shape.per_byte * message.len();
    // A value inside a value is at most three messages deeper; values too deep to be read cost nothing more.
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

/// Calls `visit` with each length-delimited field; `None` if the message cannot be read, or `visit` returns `None`.
pub(super) fn each_message<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u32, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut fields = Fields::new(message);
    while let Some((number, content)) = fields.next().ok()? {
        if let Content::Bytes(content) = content {
            visit(number, content)?;
        }
    }
    Some(())
}

// JSON: spans are the elements of the arrays at depth six of an OTLP request, items those of the arrays at depth two of an Agents SDK
// request. In an accepted body there are no other arrays at these depths.

const SPANS_DEPTH: usize = 6;
const ITEMS_DEPTH: usize = 2;
/// An attribute's value has two brackets and two commas in JSON, each charged with this size; the shortest, `null`, has one.
const DESCRIBED_TOKEN_BYTES: usize = GROWTH * size_of::<Attribute>() + 16;
/// Tag and length of a field, or of an enclosing message.
const FIELD_BYTES: usize = 6;
/// A number of ten digits or fewer becomes at most ten bytes; longer ones keep their size or shrink.
const SCALAR_BYTES: usize = 10;
/// The marker that replaces a value nested too deeply, with its fields; nothing else in JSON is nested so deep.
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
    // The output starts with half the size of the text, and doubles.
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
    // The body is only copied if it has credentials.
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

/// Size of a repair's note, and of the escape that it becomes.
const FLAW_BYTES: usize = 80;
/// The copy, and the list of ranges to cut: 32 bytes, doubled, per member of 20.
const SCRUBBED_RATIO: usize = 6;

/// Counts of brackets, commas and strings in a text.
#[derive(Debug, Default)]
struct TokenCounts {
    opens: usize,
    commas: usize,
    strings: usize,
    /// Bytes inside strings that are values.
    string_bytes: usize,
    /// Bytes of those strings that have escapes.
    escaped_bytes: usize,
    scalar_bytes: usize,
    /// Elements of the arrays at the requested depth.
    elements: usize,
    /// Brackets and commas outside these arrays.
    opens_outside: usize,
    /// Brackets at the depths of resources and scopes.
    envelopes: usize,
    /// Brackets and commas deeper than values are read.
    deep: usize,
    /// Invalid JSON that is repaired.
    flaws: usize,
}

fn scan(body: &[u8], elements_depth: usize) -> TokenCounts {
    let mut found = TokenCounts::default();
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

/// Scans a string that starts here; returns the offset after it.
fn string(body: &[u8], start: usize, found: &mut TokenCounts) -> usize {
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
        // An escape without a character becomes three bytes for two.
        found.string_bytes += inside.len() + escapes;
        found.escaped_bytes += if escapes == 0 { 0 } else { inside.len() };
    }
    end + 1
}
