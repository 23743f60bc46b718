//! Holds the values of one column of a row group until they are written. Pure.

use std::mem;

use bytes::Bytes;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::writer::SerializedColumnWriter;

use super::schema::{LIST_LEVEL, NS_PER_TICK};
use crate::sinks::jsonl::columns::{Cell, Row};
use crate::support::json::write_compact;

/// Values of one type, and which rows have one.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// Numbers; for doubles and booleans, their bits.
    numbers: Vec<i64>,
    /// Texts, concatenated.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Parquet's definition levels: 0 is null.
    levels: Vec<i16>,
    /// Parquet's repetition levels of a list: 0 begins a row.
    repeats: Vec<i16>,
}

impl Buffer {
    /// Adds a row's value of a column.
    pub(super) fn push(&mut self, cell: &Cell, row: &Row<'_>) {
        match cell {
            Cell::Number(take) => self.number(take(row)),
            Cell::Time(take) => self.number(take(row).map(|unix_ns| unix_ns / NS_PER_TICK)),
            Cell::Money(take) => self.bits(take(row).map(|it| it.to_bits().cast_signed())),
            Cell::Flag(take) => self.bits(take(row).map(i64::from)),
            Cell::Plain(append) | Cell::Json(append) => {
                let start = self.bytes.len();
                append(row, &mut self.bytes);
                if self.bytes.len() == start { self.null() } else { self.end(1) }
            }
            Cell::Text(take) => self.text(take(row).map(str::as_bytes)),
            Cell::Payload(take) => self.text(take(row).map(|payload| payload.as_str().as_bytes())),
            Cell::Item(take) => match take(row) {
                Some(wire) if memchr::memchr(b'\n', wire).is_some() => {
                    self.append(1, |bytes| write_compact(bytes, wire));
                }
                wire => self.text(wire),
            },
            Cell::Texts(take) => {
                let texts = take(row);
                if texts.is_empty() {
                    self.repeats.push(0);
                    return self.null();
                }
                for (index, text) in texts.iter().enumerate() {
                    self.repeats.push(i16::from(index != 0));
                    self.append(LIST_LEVEL, |bytes| bytes.extend(text.as_bytes()));
                }
            }
        }
    }

    /// Repeats the previous row's value. Lists are not repeated.
    pub(super) fn repeat(&mut self) {
        if self.levels.last() != Some(&1) {
            return self.null();
        }
        if let Some(number) = self.numbers.last() {
            return self.bits(Some(*number));
        }
        let mut ends = self.ends.iter().rev();
        let end = ends.next().copied().unwrap_or_default();
        let start = ends.next().copied().unwrap_or_default();
        self.append(1, |bytes| bytes.extend_from_within(start..end));
    }

    fn null(&mut self) {
        self.levels.push(0);
    }

    fn number(&mut self, number: Option<u64>) {
        self.bits(number.and_then(|number| i64::try_from(number).ok()));
    }

    fn bits(&mut self, bits: Option<i64>) {
        self.levels.push(bits.is_some().into());
        self.numbers.extend(bits);
    }

    fn text(&mut self, text: Option<&[u8]>) {
        let Some(text) = text else { return self.null() };
        self.append(1, |bytes| bytes.extend_from_slice(text));
    }

    fn append(&mut self, level: i16, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.end(level);
    }

    fn end(&mut self, level: i16) {
        self.ends.push(self.bytes.len());
        self.levels.push(level);
    }

    /// Writes all values as a column of a row group, and clears them.
    pub(super) fn drain(
        &mut self,
        cell: &Cell,
        mut writer: SerializedColumnWriter<'_>,
    ) -> Result<()> {
        let levels = Some(&*self.levels);
        let all = Bytes::from(mem::take(&mut self.bytes));
        match cell {
            Cell::Number(_) | Cell::Time(_) => {
                writer.typed::<Int64Type>().write_batch(&self.numbers, levels, None)?;
            }
            Cell::Money(_) => {
                let amounts = self.numbers.iter().map(|bits| f64::from_bits(bits.cast_unsigned()));
                let amounts: Vec<_> = amounts.collect();
                writer.typed::<DoubleType>().write_batch(&amounts, levels, None)?;
            }
            Cell::Flag(_) => {
                let flags: Vec<_> = self.numbers.iter().map(|bits| *bits != 0).collect();
                writer.typed::<BoolType>().write_batch(&flags, levels, None)?;
            }
            _ => {
                let repeats = Some(&*self.repeats).filter(|repeats| !repeats.is_empty());
                let mut start = 0;
                let values = self
                    .ends
                    .iter()
                    .map(|end| ByteArray::from(all.slice(mem::replace(&mut start, *end)..*end)));
                let values: Vec<_> = values.collect();
                writer.typed::<ByteArrayType>().write_batch(&values, levels, repeats)?;
            }
        }
        writer.close()?;
        // The next row group needs as much memory, and fresh memory is expensive.
        self.bytes = all.try_into_mut().map(Vec::from).unwrap_or_default();
        self.numbers.clear();
        self.bytes.clear();
        self.ends.clear();
        self.levels.clear();
        self.repeats.clear();
        Ok(())
    }

    /// Returns the size of the values in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.numbers)
            + self.bytes.len()
            + size_of_val(&*self.ends)
            + size_of_val(&*self.levels)
    }
}
