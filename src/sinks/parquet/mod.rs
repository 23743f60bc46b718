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
use std::ptr;

use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use self::buffer::Buffer;
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::columns::{ALL, Column, Row};

/// The usual size of a row group before compression. Readers load a column of a row group as a unit, and so do we.
pub const DEFAULT_ROW_GROUP_BYTES: usize = 32 << 20;

/// Writes one object. The same rows yield the same bytes.
pub struct Rows {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: [Columns; 3],
    row_group_bytes: usize,
    buffered: usize,
}

impl Rows {
    /// Creates an object without rows. Row groups have about this many bytes before compression, and are held in memory until then.
    pub fn new(zstd_level: i32, row_group_bytes: usize) -> io::Result<Self> {
        let schema = schema::schema().map_err(io::Error::other)?;
        let properties = schema::properties(zstd_level).map_err(io::Error::other)?;
        let writer = SerializedFileWriter::new(Vec::new(), schema, properties);
        Ok(Self {
            writer: writer.map_err(io::Error::other)?,
            columns: ALL.map(Columns::new),
            row_group_bytes,
            buffered: 0,
        })
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
            let is_same = [false, same_scope, same_source];
            for (columns, is_same) in self.columns.iter_mut().zip(is_same) {
                self.buffered += columns.push(&row, is_same);
            }
            last = Some(row);
            if self.row_group_bytes <= self.buffered {
                self.end_row_group().map_err(io::Error::other)?;
                last = None;
            }
        }
        Ok(())
    }

    /// Returns the size so far: compressed bytes and those not yet compressed.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.buffered
    }

    /// Returns the complete object.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.buffered != 0 {
            self.end_row_group().map_err(io::Error::other)?;
        }
        self.writer.into_inner().map_err(io::Error::other)
    }

    fn end_row_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for columns in &mut self.columns {
            for (column, buffer) in columns.known.iter().zip(&mut columns.buffers) {
                if let Some(writer) = group.next_column()? {
                    buffer.drain(&column.cell, writer)?;
                }
            }
        }
        group.close()?;
        self.buffered = 0;
        Ok(())
    }
}

/// The uncompressed values of some columns.
struct Columns {
    known: &'static [Column],
    buffers: Vec<Buffer>,
}

impl Columns {
    fn new(known: &'static [Column]) -> Self {
        Self { known, buffers: known.iter().map(|_| Buffer::default()).collect() }
    }

    /// Adds a row, possibly with the same values as the previous one. Returns its size in bytes.
    fn push(&mut self, row: &Row<'_>, is_same: bool) -> usize {
        let columns = self.known.iter().zip(&mut self.buffers);
        let add = |(column, buffer): (&Column, &mut Buffer)| {
            if is_same { buffer.repeat() } else { buffer.push(&column.cell, row) }
        };
        columns.map(add).sum()
    }
}
