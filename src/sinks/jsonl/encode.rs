//! Encodes spans and trace objects as lines.

use std::ops::Range;
use std::ptr;

use super::columns::{Cell, Column, OF_ITEM, OF_SCOPE, OF_SOURCE, Row, quoted, write_list};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::span::{Batch, Item, Scope, Source, Text};
use crate::support::find::place_of;
use crate::support::json::{write_compact, write_f64, write_inside, write_integer, write_str};
use crate::support::rfc3339;

/// Writes lines. Shared columns (resource and scope, the request) are encoded once and copied.
pub struct Lines<'a> {
    delivery: &'a Delivery,
    prices: &'a Prices,
    scope: Option<(&'a Scope, Vec<u8>)>,
    source: Option<(&'a Source, Vec<u8>)>,
}

impl<'a> Lines<'a> {
    /// Creates a writer for items of this delivery, with its trace contexts. Calls without a cost get one from these prices.
    pub fn of(delivery: &'a Delivery, prices: &'a Prices) -> Self {
        Self { delivery, prices, scope: None, source: None }
    }

    /// Appends an item of a batch as one line, including the line break.
    pub fn write(&mut self, out: &mut Vec<u8>, batch: &'a Batch, item: &'a Item) {
        let row = Row::of((self.delivery, self.prices), (batch, item));
        let start = out.len();
        write_columns(out, OF_ITEM, &row);
        // Every column begins with its comma.
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        if let Some(scope) = row.scope {
            out.extend_from_slice(shared(&mut self.scope, scope, OF_SCOPE, &row));
        }
        out.extend_from_slice(shared(&mut self.source, row.source, OF_SOURCE, &row));
        out.extend_from_slice(b"}\n");
    }
}

/// Returns the columns of the last line if they belong to the same object, or encodes new ones.
fn shared<'k, 'a, T>(
    known: &'k mut Option<(&'a T, Vec<u8>)>,
    of: &'a T,
    columns: &[Column],
    row: &Row<'_>,
) -> &'k [u8] {
    let same = known.take().filter(|(known, _)| ptr::eq(*known, of));
    let (_, columns) = known.insert(same.unwrap_or_else(|| {
        let mut out = Vec::new();
        write_columns(&mut out, columns, row);
        (of, out)
    }));
    columns
}

fn write_columns(out: &mut Vec<u8>, columns: &[Column], row: &Row<'_>) {
    let mut payloads = [Written::default(), Written::default()];
    for Column { key, cell, .. } in columns {
        match cell {
            Cell::Number(take) => add(out, key, take(row), write_integer),
            Cell::Money(take) => add(out, key, take(row), write_f64),
            Cell::Flag(take) => add(out, key, take(row), |out, flag| {
                out.extend_from_slice(if flag { b"true" } else { b"false" });
            }),
            Cell::Time(take) => add(out, key, take(row), |out, unix_ns| {
                quoted(out, |out| rfc3339::write(out, unix_ns));
            }),
            Cell::Text(take) => add(out, key, take(row), write_str),
            Cell::Texts(take) => {
                let texts = Some(take(row)).filter(|texts| !texts.is_empty());
                add(out, key, texts, |out, texts| {
                    write_list(out, texts, |out, text: &Text| write_str(out, text));
                });
            }
            Cell::Payload(take) => add(out, key, take(row), |out, payload| {
                let (text, start) = (payload.as_str(), out.len() + 1);
                write_str(out, text);
                if let Some(free) = payloads.iter_mut().find(|written| written.text.is_empty()) {
                    *free = Written { text, inside: start..out.len() - 1 };
                }
            }),
            Cell::Item(take) => add(out, key, take(row), |out, wire| {
                quoted(out, |out| write_item_inside(out, wire, &payloads));
            }),
            Cell::Plain(append) => {
                add_unless(out, key, 2, |out| quoted(out, |out| append(row, out)));
            }
            Cell::Json(append) => add_unless(out, key, 0, |out| append(row, out)),
        }
    }
}

/// Adds a column if it has a value.
fn add<T>(out: &mut Vec<u8>, key: &str, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    if let Some(value) = value {
        out.extend_from_slice(key.as_bytes());
        write(out, value);
    }
}

/// Adds a column unless its value has only as many bytes as an empty one.
fn add_unless(out: &mut Vec<u8>, key: &str, empty: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    add(out, key, Some(()), |out, ()| write(out));
    if out.len() == start + key.len() + empty {
        out.truncate(start);
    }
}

/// Text that was written as a string, and its range in the output without the quotes.
#[derive(Debug, Default)]
struct Written<'a> {
    text: &'a str,
    inside: Range<usize>,
}

/// Writes the item as sent, or compactly if it has line breaks. Payloads that are already columns are copied from there.
fn write_item_inside(out: &mut Vec<u8>, wire: &[u8], written: &[Written<'_>]) {
    if memchr::memchr(b'\n', wire).is_some() {
        let mut compact = Vec::new();
        write_compact(&mut compact, wire);
        return write_inside(out, &compact);
    }
    out.reserve(wire.len());
    let mut done = 0;
    // The output may precede the input in the item.
    let mut pieces: [Option<(Range<usize>, &Range<usize>)>; 2] = [None, None];
    for (piece, written) in pieces.iter_mut().zip(written) {
        *piece = place_of(written.text.as_bytes(), wire).map(|place| (place, &written.inside));
    }
    pieces.sort_unstable_by_key(|piece| piece.as_ref().map(|(place, _)| place.start));
    for (place, inside) in pieces.into_iter().flatten() {
        // An empty text may have any position, and one payload may be a part of the other.
        let Some(before) = wire.get(done..place.start) else { continue };
        write_inside(out, before);
        out.extend_from_within(inside.clone());
        done = place.end;
    }
    write_inside(out, wire.get(done..).unwrap_or_default());
}
