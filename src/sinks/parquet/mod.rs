//! Parquet: the columns of the JSON lines ([`jsonl`](super::jsonl)), typed, for warehouses that read columns. Pure.
//!
//! | in a line | in Parquet |
//! |---|---|
//! | integer | `INT64`; null if it is out of range, which no client intends |
//! | number | `DOUBLE` |
//! | boolean | `BOOLEAN` |
//! | a time as string | `TIMESTAMP` in UTC, microseconds, which every reader supports; the columns `*_unix_nano` have all digits |
//! | string | `STRING` |
//! | array of strings | `LIST` of `STRING` |
//! | object, or array of objects | `STRING`, the JSON as text |
//!
//! Every column is optional, because columns are only ever added: a reader that takes the union of several objects' schemas reads old and
//! new ones together. The footer has `spanferry.schema_version`, that of the lines. Rows are kept as columns until they have
//! `row_group_bytes`, then compressed. Repeated values are in dictionaries, and trace ids have a bloom filter.

mod buffer;
mod schema;
#[cfg(test)]
mod tests;

use std::io;
use std::iter::repeat;
use std::ptr;

use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use self::buffer::Buffer;
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::columns::{ALL, Row};

/// The usual size of a row group before compression. Readers load a column of a row group as a unit, and so do we.
pub const DEFAULT_ROW_GROUP_BYTES: usize = 32 << 20;

/// Writes one object. The same rows yield the same bytes.
pub struct Rows {
    writer: SerializedFileWriter<Vec<u8>>,
    /// The values of each column that are not compressed yet.
    buffers: Vec<Buffer>,
    row_group_bytes: usize,
}

impl Rows {
    /// Creates an object without rows. Row groups have about this many bytes before compression, and are held in memory until then.
    pub fn new(zstd_level: i32, row_group_bytes: usize) -> io::Result<Self> {
        let (schema, properties) = (schema::schema()?, schema::properties(zstd_level)?);
        let writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
        let buffers = ALL.into_iter().flatten().map(|_| Buffer::default()).collect();
        Ok(Self { writer, buffers, row_group_bytes })
    }

    /// Adds the items of a delivery, with the context of their traces. Calls without a cost get one from these prices.
    pub fn write(&mut self, delivery: &Delivery, prices: &Prices) -> io::Result<()> {
        // Values of the same scope or request are copied from the previous row.
        let mut last: Option<Row<'_>> = None;
        for picked in delivery.items() {
            let row = Row::of((delivery, prices), picked);
            let known = last.as_ref();
            let same_scope = (known.and_then(|known| known.scope).zip(row.scope))
                .is_some_and(|(known, scope)| ptr::eq(known, scope));
            let same_source = known.is_some_and(|known| ptr::eq(known.source, row.source));
            let columns = ALL.into_iter().zip([false, same_scope, same_source]);
            let columns =
                columns.flat_map(|(columns, is_same)| columns.iter().zip(repeat(is_same)));
            for ((column, is_same), buffer) in columns.zip(&mut self.buffers) {
                if is_same {
                    buffer.repeat();
                } else {
                    buffer.push(&column.cell, &row);
                }
            }
            last = Some(row);
            if self.row_group_bytes <= self.buffered() {
                self.end_row_group()?;
                last = None;
            }
        }
        Ok(())
    }

    /// Returns the size so far: compressed bytes and those not yet compressed.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.buffered()
    }

    fn buffered(&self) -> usize {
        self.buffers.iter().map(Buffer::bytes).sum()
    }

    /// Returns the complete object.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.buffered() != 0 {
            self.end_row_group()?;
        }
        Ok(self.writer.into_inner()?)
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for (column, buffer) in ALL.into_iter().flatten().zip(&mut self.buffers) {
            if let Some(writer) = group.next_column()? {
                buffer.drain(&column.cell, writer)?;
            }
        }
        group.close()?;
        Ok(())
    }
}
