//! Cuts a stream into pieces, each of which is a request, a line or an item.
//!
//! | beginning of a stream | its pieces |
//! |---|---|
//! | text | JSON, one value per line; a value may continue on lines that begin with neither `{` nor `[` |
//! | `[` | the elements of a JSON array |
//! | `"` | the rows of a table (CSV, RFC 4180), as JSON objects with the names of the first row |
//! | a `TracesData` message of protobuf | the entire stream |
//! | four bytes of length, then a message, JSON or zstd | the Collector's file exporter with `format: proto` or with `compression` |
//! | a length as varint, then a message | length-delimited messages |
//!
//! Data that cannot be cut is a piece with a flaw. An invalid line affects no other; a broken length, element or row ends the stream.

use std::io::{self, BufRead, Cursor, Read as _};

use bytes::Bytes;
use serde::Deserialize as _;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

/// RFC 8878, section 3.1.1.
pub(super) const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The largest piece: receivers accept 64 MiB, and JSON lines repeat long texts up to three times.
pub(super) const PIECE_BYTES_MAX: usize = 256 << 20;
/// The number of bytes that determine how a stream is cut.
const HEAD_BYTES: u64 = 32;
/// The tag of a length-delimited field with the number 1, such as a request's only field, `resource_spans`.
pub(super) const FIELD_1: u8 = 0x0a;
/// The tags of the fields of `ResourceSpans`: resource, scope spans, schema URL.
const IN_RESOURCE_SPANS: [u8; 3] = [FIELD_1, 0x12, 0x1a];

const CUT_SHORT: &str = "it is truncated";
/// The length of a message that is the entire stream.
const UP_TO_THE_END: usize = usize::MAX;

/// A part of a stream.
#[derive(Debug, Default)]
pub(in crate::cli) struct Chunk {
    /// The number of its first line, or its own number; from 1.
    pub(in crate::cli) place: u64,
    /// Its bytes in the stream; for a row, its JSON.
    pub(super) bytes: Bytes,
    /// The reason why it is unusable.
    pub(super) flaw: Option<String>,
}

/// Reads the next piece of a stream; `None` at its end, and after an unrecoverable flaw.
type Cut = fn(&mut Pieces) -> io::Result<Option<Chunk>>;

/// The pieces of a stream.
pub(in crate::cli) struct Pieces {
    stream: Box<dyn BufRead>,
    cut: Cut,
    /// The unit of their places.
    pub(in crate::cli) unit: &'static str,
    bytes_max: usize,
    /// The cells of a table's first row.
    names: Vec<String>,
    /// The number of lines or pieces that were returned.
    pub(super) done: u64,
    is_over: bool,
}

impl Pieces {
    /// Begins a stream whose pieces have at most so many bytes.
    pub(super) fn of(mut stream: Box<dyn BufRead>, bytes_max: usize) -> io::Result<Self> {
        let mut head = Vec::new();
        stream.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        // A byte order mark is not JSON, but harmless.
        let skipped = if head.starts_with("\u{feff}".as_bytes()) { 3 } else { 0 };
        let head = head.split_off(skipped);
        let (unit, cut) = cut_of(&head);
        let stream = Box::new(Cursor::new(head).chain(stream));
        let names = Vec::new();
        Ok(Self { stream, cut, unit, bytes_max, names, done: 0, is_over: false })
    }

    /// Returns the next piece; `None` at the end, and after an unrecoverable flaw.
    pub(in crate::cli) fn next(&mut self) -> io::Result<Option<Chunk>> {
        (self.cut)(self)
    }

    /// Reads a message behind its length, which is truncated if it is `None`.
    fn message(
        &mut self,
        length: impl Fn(&mut Self) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Chunk>> {
        if self.is_over || self.stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (length, mut bytes) = (length(self)?, Vec::new());
        let most = length.unwrap_or(0).min(self.bytes_max.saturating_add(1));
        self.stream.by_ref().take(most as u64).read_to_end(&mut bytes)?;
        let flaw = match length {
            _ if self.bytes_max < bytes.len() => Some(self.too_long()),
            Some(length) if length == UP_TO_THE_END || bytes.len() == length => None,
            _ => Some(CUT_SHORT.to_owned()),
        };
        self.is_over = flaw.is_some();
        // The rest of an oversized piece would be of no use.
        bytes.truncate(self.bytes_max);
        self.piece(bytes, flaw)
    }

    /// Reads an element of an array, which is an object.
    fn element(&mut self) -> io::Result<Option<Chunk>> {
        while !self.is_over {
            match self.stream.fill_buf()?.first() {
                Some(b'{') => {
                    let most = self.stream.by_ref().take(self.bytes_max as u64);
                    let mut element = Deserializer::from_reader(most);
                    return match Box::<RawValue>::deserialize(&mut element) {
                        Ok(value) => self.piece(value.get().as_bytes().to_vec(), None),
                        Err(error) if error.is_io() => Err(error.into()),
                        Err(error) => self.broken(&error.to_string()),
                    };
                }
                Some(b']') => self.is_over = true,
                Some(b',' | b'[' | b' ' | b'\t' | b'\r' | b'\n') => self.stream.consume(1),
                Some(_) => {
                    return self.broken("it is in none of the formats: an array must have objects");
                }
                None => return self.broken(CUT_SHORT),
            }
        }
        Ok(None)
    }

    /// Reads a row of a table.
    fn row(&mut self) -> io::Result<Option<Chunk>> {
        if self.names.is_empty() {
            self.names = self.cells()?;
        }
        let cells = if self.is_over { Vec::new() } else { self.cells()? };
        if cells.is_empty() {
            return Ok(None);
        }
        if cells.len() != self.names.len() {
            let (has, wanted) = (cells.len(), self.names.len());
            return self.broken(&format!("it has {has} cells, but the first row has {wanted}"));
        }
        let value = |cell: String| if cell.is_empty() { Value::Null } else { cell.into() };
        let cells = self.names.iter().cloned().zip(cells.into_iter().map(value));
        let object: Map<_, _> = cells.collect();
        self.piece(Value::from(object).to_string().into_bytes(), None)
    }

    /// Reads the cells of the next row; none at the end. A line break in quotes belongs to its cell.
    fn cells(&mut self) -> io::Result<Vec<String>> {
        let (mut row, mut quotes, mut read) = (Vec::new(), 0, 1);
        while 0 < read && row.len() < self.bytes_max && (row.is_empty() || quotes % 2 == 1) {
            let most = (self.bytes_max - row.len()) as u64;
            read = self.stream.by_ref().take(most).read_until(b'\n', &mut row)?;
            let line = row.iter().rev().take(read);
            quotes += line.filter(|byte| **byte == b'"').count();
        }
        let mut is_quoted = false;
        let cells = row.trim_ascii_end().split(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == b',' && !is_quoted
        });
        let content = |cell: &[u8]| {
            let inner = cell.strip_prefix(b"\"").and_then(|cell| cell.strip_suffix(b"\""));
            String::from_utf8_lossy(inner.unwrap_or(cell)).replace("\"\"", "\"")
        };
        Ok(if row.is_empty() { Vec::new() } else { cells.map(content).collect() })
    }

    /// Returns a piece with a flaw, and ends the stream.
    fn broken(&mut self, flaw: &str) -> io::Result<Option<Chunk>> {
        self.is_over = true;
        self.piece(Vec::new(), Some(flaw.to_owned()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "the shape of what gives pieces out")]
    fn piece(&mut self, bytes: Vec<u8>, flaw: Option<String>) -> io::Result<Option<Chunk>> {
        self.done += 1;
        Ok(Some(Chunk { place: self.done, bytes: bytes.into(), flaw }))
    }

    /// Reads a JSON value: a non-empty line, and the following lines that continue it.
    fn value(&mut self) -> io::Result<Option<Chunk>> {
        let (mut place, mut bytes, mut is_whole) = (self.done, Vec::new(), true);
        while bytes.trim_ascii_start().is_empty() {
            if self.stream.fill_buf()?.is_empty() {
                return Ok(None);
            }
            bytes.clear();
            is_whole = self.line(&mut bytes)?;
            place += 1;
        }
        let mut last = place;
        let is_cut = |error: serde_json::Error| error.is_eof();
        if is_whole && serde_json::from_slice::<IgnoredAny>(&bytes).is_err_and(is_cut) {
            while self.stream.fill_buf()?.first().is_some_and(|first| !b"{[".contains(first)) {
                is_whole &= self.line(&mut bytes)?;
                last += 1;
            }
        }
        self.done = last;
        let flaw = (!is_whole).then(|| self.too_long());
        Ok(Some(Chunk { place, bytes: bytes.into(), flaw }))
    }

    /// Appends the next line, with its line break. Returns whether it fit.
    fn line(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let most = self.bytes_max - bytes.len();
        let read = self.stream.by_ref().take(most as u64).read_until(b'\n', bytes)?;
        let is_whole = read < most || (read > 0 && bytes.ends_with(b"\n"));
        if !is_whole {
            self.stream.skip_until(b'\n')?;
        }
        Ok(is_whole)
    }

    fn too_long(&self) -> String {
        format!("it is longer than {} bytes", self.bytes_max)
    }

    /// Reads a length of four bytes; `None` if it is truncated.
    fn length32(&mut self) -> io::Result<Option<usize>> {
        let mut length = Vec::new();
        self.stream.by_ref().take(4).read_to_end(&mut length)?;
        let length = length.try_into().ok().map(u32::from_be_bytes);
        Ok(length.and_then(|length| length.try_into().ok()))
    }

    /// Reads a length as varint; `None` if it is truncated.
    fn varint(&mut self) -> io::Result<Option<usize>> {
        let mut length = 0;
        for place in 0..8 {
            let Some(byte) = self.stream.fill_buf()?.first().copied() else { return Ok(None) };
            self.stream.consume(1);
            length |= usize::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        Ok(Some(length))
    }
}

/// Returns the unit of the pieces of a stream that begins like this, and how it is cut.
fn cut_of(head: &[u8]) -> (&'static str, Cut) {
    let is_message = |head: &[u8]| begins_request(head).is_some();
    let behind = head.get(4..).filter(|_| head.first() == Some(&0)).unwrap_or_default();
    if is_message(head) {
        ("message", |pieces| pieces.message(|_| Ok(Some(UP_TO_THE_END))))
    } else if is_message(behind) || behind.starts_with(b"{") || behind.starts_with(ZSTD_MAGIC) {
        ("message", |pieces| pieces.message(Pieces::length32))
    } else if varint(head)
        .is_some_and(|(length, rest)| begins_request(rest).is_some_and(|bytes| bytes <= length))
    {
        ("message", |pieces| pieces.message(Pieces::varint))
    } else if head.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace()) {
        match head.trim_ascii_start().first() {
            Some(b'[') => ("element", Pieces::element),
            Some(b'"') => ("row", Pieces::row),
            _ => ("line", Pieces::value),
        }
    } else {
        ("message", |pieces| {
            let flaw = "it is in none of the formats that can be imported";
            if pieces.is_over { Ok(None) } else { pieces.broken(flaw) }
        })
    }
}

/// Returns the size of a request's first `ResourceSpans` if a request begins like this.
fn begins_request(head: &[u8]) -> Option<u64> {
    let (length, rest) = varint(head.strip_prefix(&[FIELD_1])?)?;
    let is_good = length == 0 || rest.first().is_some_and(|tag| IN_RESOURCE_SPANS.contains(tag));
    is_good.then_some(length)
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = bytes;
    let value = prost::encoding::decode_varint(&mut rest).ok()?;
    Some((value, rest))
}
