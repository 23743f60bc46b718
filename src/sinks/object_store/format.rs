//! Encodes items as the bytes of an object, in each format.

use std::io;

use prost::encoding::encode_varint;

use super::options::Format;
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::{Lines, SCHEMA_VERSION};
use crate::sinks::parquet::{DEFAULT_ROW_GROUP_BYTES, Rows};
use crate::span::otlp::protobuf::{
    close_message, open_message, write_request, write_text_attribute,
};
use crate::span::{Batch, Item, keys, sdk_requests};
use crate::support::compress;

/// The approximate size of a zstd frame before compression. A larger one would compress no better, and exists twice while it is created.
const FRAME_BYTES: usize = 4 << 20;

/// Builds an object's bytes.
pub(super) struct Encoder {
    format: Format,
    level: i32,
    /// The bytes that are not compressed yet.
    plain: Vec<u8>,
    frames: Vec<u8>,
    /// Used instead of both if the format is Parquet.
    rows: Option<Rows>,
}

impl Encoder {
    pub(super) fn new(format: Format, level: i32) -> Self {
        Self { format, level, plain: Vec::new(), frames: Vec::new(), rows: None }
    }

    /// Appends the items of a delivery.
    pub(super) fn write(&mut self, delivery: &Delivery, prices: &Prices) -> io::Result<()> {
        match self.format {
            Format::Jsonl => {
                let mut lines = Lines::of(delivery, prices);
                for (batch, item) in delivery.items() {
                    lines.write(&mut self.plain, batch, item);
                }
            }
            Format::Parquet => {
                let rows = match &mut self.rows {
                    Some(rows) => rows,
                    None => self.rows.insert(Rows::new(self.level, DEFAULT_ROW_GROUP_BYTES)?),
                };
                rows.write(delivery, prices)?;
            }
            Format::Otlp => {
                let items: Vec<_> = delivery.items().collect();
                let is_same = |a: &(&Batch, &Item), b: &(&Batch, &Item)| std::ptr::eq(a.0, b.0);
                for request in items.chunk_by(is_same) {
                    write_archived(&mut self.plain, request);
                }
            }
        }
        if self.plain.len() >= FRAME_BYTES { self.compress() } else { Ok(()) }
    }

    fn compress(&mut self) -> io::Result<()> {
        self.frames.extend(compress::zstd(&self.plain, self.level)?);
        self.plain.clear();
        Ok(())
    }

    /// Returns the object's size so far. Uncompressed bytes count as they are.
    pub(super) fn len(&self) -> usize {
        self.frames.len() + self.plain.len() + self.rows.as_ref().map_or(0, Rows::bytes)
    }

    /// Returns the complete object.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        if let Some(rows) = self.rows {
            return rows.finish();
        }
        self.compress()?;
        Ok(self.frames)
    }
}

impl Format {
    /// Returns the extension of an object's name, and the format with its version, for readers.
    pub(super) fn names(self) -> (&'static str, String) {
        match self {
            Self::Jsonl => ("jsonl.zst", format!("jsonl/{SCHEMA_VERSION}")),
            Self::Otlp => ("otlp.zst", "otlp/1".to_owned()),
            Self::Parquet => ("parquet", format!("parquet/{SCHEMA_VERSION}")),
        }
    }
}

/// Appends items of one request as a request, preceded by its length.
fn write_archived(out: &mut Vec<u8>, items: &[(&Batch, &Item)]) {
    let mut request = Vec::new();
    write_request(&mut request, items.iter().filter_map(|(_, item)| item.as_span()));
    let is_agents_sdk = |item: &Item| item.as_span().is_none_or(|span| !span.is_otlp());
    let mut as_sent =
        items.iter().map(|(_, item)| *item).filter(|item| is_agents_sdk(item)).peekable();
    if as_sent.peek().is_some() {
        let body = sdk_requests(as_sent.map(|item| item.wire().as_ref()));
        // Protobuf messages that follow each other are one message.
        let resource_spans = open_message(&mut request, 1, body.len());
        let resource = open_message(&mut request, 1, body.len());
        let body = String::from_utf8_lossy(&body);
        write_text_attribute(&mut request, 1, keys::SPANFERRY_BODY, &body);
        close_message(&mut request, resource);
        close_message(&mut request, resource_spans);
    }
    encode_varint(request.len() as u64, out);
    out.extend_from_slice(&request);
}
