//! Encodes items as lines, in each of the formats.

use std::io;

use bytes::Bytes;

use super::options::{Compression, DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL, Format, Options};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::Lines;
use crate::sinks::openai::write_custom;
use crate::span::otlp::json::write_request;
use crate::span::{Batch, Item, Span};
use crate::support::json::write_compact;

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
                    Item::Span(span) if span.is_otlp() => write_custom(out, span),
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
