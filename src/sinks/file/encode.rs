//! Encodes items as lines, in each of the formats.

use std::io;

use bytes::Bytes;

use super::options::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Format, Options};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::{Lines, write_attributes};
use crate::span::otlp::json::write_request;
use crate::span::{Attribute, Batch, Item, STATUS_ERROR, Span, SpanId, keys};
use crate::support::json::object::Object;
use crate::support::json::{write_compact, write_str};
use crate::support::rfc3339;

/// The most bytes of spans, as received, in one OTLP line, unless a single span has more. By default, the Collector's file receiver cuts
/// lines longer than 1 MiB, and JSON is longer than protobuf.
const OTLP_LINE_BYTES_MAX: usize = 256 << 10;

/// Appends the lines of these items. After each item, `spill` may take what was written so far; its error ends the encoding.
pub(super) fn encode<'a>(
    (format, prices): (Format, &'a Prices),
    delivery: &'a Delivery,
    items: &[(&'a Batch, &'a Item)],
    out: &mut Vec<u8>,
    mut spill: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    match format {
        Format::Jsonl => {
            let mut lines = Lines::of(delivery, prices);
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
                    agents_sdk => write_compact(out, agents_sdk.wire()),
                }
                out.push(b'\n');
                spill(out)?;
            }
        }
    }
    Ok(())
}

/// Compresses the lines of one delivery as one complete gzip member or zstd frame. Only a defect of the compressor causes an error.
pub(super) fn compress(options: &Options, lines: &[u8]) -> io::Result<Bytes> {
    let default = match options.compression {
        Compression::Zstd => DEFAULT_ZSTD_LEVEL,
        Compression::None | Compression::Gzip => DEFAULT_GZIP_LEVEL,
    };
    options.compression.at_level(lines, options.compression_level.unwrap_or(default))
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

/// Appends an OTLP span as a custom span of the Agents SDK, with its attributes as data.
fn write_as_item(out: &mut Vec<u8>, span: &Span) {
    let detail = span.detail();
    let agents_sdk = |key: &str| {
        let found = Attribute::last(&detail.attributes, key)?;
        found.as_text().filter(|text| !text.is_empty()).map(ToString::to_string)
    };
    // The client's own id, or OpenTelemetry's in the form of the Agents SDK.
    let span_id = |key, id: SpanId| agents_sdk(key).unwrap_or_else(|| format!("span_{id}00000000"));
    let trace_id = agents_sdk(keys::OPENAI_AGENTS_TRACE_ID);
    let parent_id = span.parent_id.map(|id| span_id(keys::OPENAI_AGENTS_PARENT_ID, id));
    let mut item = Object::open(out);
    write_str(item.member("object"), "trace.span");
    write_str(item.member("id"), &span_id(keys::OPENAI_AGENTS_SPAN_ID, span.span_id));
    let trace_id = trace_id.unwrap_or_else(|| format!("trace_{}", span.trace_id));
    write_str(item.member("trace_id"), &trace_id);
    write_or_null(item.member("parent_id"), parent_id.as_deref());
    for (name, unix_ns) in [("started_at", span.start_ns), ("ended_at", span.end_ns)] {
        let mut time = Vec::new();
        rfc3339::write(&mut time, unix_ns);
        let time = String::from_utf8_lossy(&time);
        write_or_null(item.member(name), (unix_ns != 0).then_some(&*time));
    }
    let mut data = Object::open(item.member("span_data"));
    write_str(data.member("type"), "custom");
    write_str(data.member("name"), &detail.name);
    write_attributes(data.member("data"), &detail.attributes);
    data.close();
    if detail.status_code == STATUS_ERROR {
        let mut error = Object::open(item.member("error"));
        write_str(error.member("message"), &detail.status_message);
        write_or_null(error.member("data"), None);
        error.close();
    } else {
        write_or_null(item.member("error"), None);
    }
    item.close();
}

fn write_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_str(out, text),
        None => out.extend_from_slice(b"null"),
    }
}
