//! Items become lines, in each of the formats.

use std::io;

use super::options::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Format, Options};
use crate::sinks::Delivery;
use crate::sinks::jsonl::{Lines, write_attributes};
use crate::span::otlp::json::write_request;
use crate::span::{Batch, Item, Span, Text};
use crate::support::compress;
use crate::support::json::{write_compact, write_str};
use crate::support::rfc3339;

/// Spans of one OTLP line have at most this many bytes as they came in, unless one alone has more: the Collector's file receiver
/// cuts lines longer than 1 MiB in its default configuration, and JSON is longer than protobuf.
const OTLP_LINE_BYTES_MAX: usize = 256 << 10;

/// Appends the lines of these items of a delivery. After each of them `spill` may take what was written so far; its error ends the work.
pub(super) fn encode<'a>(
    format: Format,
    delivery: &'a Delivery,
    items: &[(&'a Batch, &'a Item)],
    out: &mut Vec<u8>,
    mut spill: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    match format {
        Format::Jsonl => {
            let mut lines = Lines::of(delivery);
            for &(batch, item) in items {
                lines.write(out, batch, item);
                spill(out)?;
            }
        }
        Format::OtlpJson => otlp_lines(items, out, spill)?,
        Format::OpenAi => {
            for (_, item) in items {
                match item {
                    Item::Span(span) if span.is_otlp() => write_as_item(out, span),
                    native => write_compact(out, native.wire()),
                }
                out.push(b'\n');
                spill(out)?;
            }
        }
    }
    Ok(())
}

/// Compresses the lines of one delivery, as one whole gzip member or zstd frame. An error would be a defect of the compressor.
pub(super) fn compress(options: &Options, lines: &[u8]) -> io::Result<Vec<u8>> {
    let level = |default| options.compression_level.unwrap_or(default);
    match options.compression {
        Compression::None => Ok(Vec::new()),
        Compression::Gzip => {
            compress::gzip(lines, u32::try_from(level(DEFAULT_GZIP_LEVEL)).unwrap_or_default())
        }
        Compression::Zstd => compress::zstd(lines, level(DEFAULT_ZSTD_LEVEL)),
    }
}

fn otlp_lines(
    items: &[(&Batch, &Item)],
    out: &mut Vec<u8>,
    mut spill: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let mut spans: Vec<&Span> = Vec::new();
    let mut bytes = 0;
    for span in items.iter().filter_map(|(_, item)| item.as_span()) {
        if !spans.is_empty() && OTLP_LINE_BYTES_MAX < bytes + span.wire.len() {
            write_request(out, spans.drain(..));
            out.push(b'\n');
            spill(out)?;
            bytes = 0;
        }
        bytes += span.wire.len();
        spans.push(span);
    }
    if !spans.is_empty() {
        write_request(out, spans);
        out.push(b'\n');
    }
    Ok(())
}

/// Appends a span that came as OTLP as a custom span of the Agents SDK, with its attributes as data.
fn write_as_item(out: &mut Vec<u8>, span: &Span) {
    let detail = span.detail();
    let native = |key: &str| {
        let found = detail.attributes.iter().rev().find(|attribute| &*attribute.key == key)?;
        found.value.as_text().filter(|text| !text.is_empty())
    };
    out.extend_from_slice(b"{\"object\":\"trace.span\",\"id\":");
    write_id(out, native("openai.agents.span_id"), "span_", &span.span_id.to_hex(), "00000000");
    out.extend_from_slice(b",\"trace_id\":");
    write_id(out, native("openai.agents.trace_id"), "trace_", &span.trace_id.to_hex(), "");
    out.extend_from_slice(b",\"parent_id\":");
    match span.parent_id {
        Some(id) => {
            write_id(out, native("openai.agents.parent_id"), "span_", &id.to_hex(), "00000000");
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"started_at\":");
    write_time(out, span.start_ns);
    out.extend_from_slice(b",\"ended_at\":");
    write_time(out, span.end_ns);
    out.extend_from_slice(b",\"span_data\":{\"type\":\"custom\",\"name\":");
    write_str(out, &detail.name);
    out.extend_from_slice(b",\"data\":");
    write_attributes(out, &detail.attributes);
    out.extend_from_slice(b"},\"error\":");
    if detail.status_code == STATUS_ERROR {
        out.extend_from_slice(b"{\"message\":");
        write_str(out, &detail.status_message);
        out.extend_from_slice(b",\"data\":null}}");
    } else {
        out.extend_from_slice(b"null}");
    }
}

/// OTLP's status code for an error.
const STATUS_ERROR: i32 = 2;

/// The id that the client had, or OpenTelemetry's in the Agents SDK's form.
fn write_id(out: &mut Vec<u8>, native: Option<&Text>, prefix: &str, hex: &[u8], suffix: &str) {
    if let Some(native) = native {
        write_str(out, native);
        return;
    }
    out.push(b'"');
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(hex);
    out.extend_from_slice(suffix.as_bytes());
    out.push(b'"');
}

fn write_time(out: &mut Vec<u8>, unix_ns: u64) {
    if unix_ns == 0 {
        out.extend_from_slice(b"null");
        return;
    }
    out.push(b'"');
    rfc3339::write(out, unix_ns);
    out.push(b'"');
}
