//! One file of the log: its name, its header and its records.
//!
//! ```text
//! <base position, 20 digits>.log
//!      0      8  magic            "sfjrnl\r\n": a text-mode copy is noticed
//!      8      4  header checksum  CRC-32 of bytes 12..64
//!     12      4  version          1
//!     16      8  base position    of the first record, as in the name
//!     24      8  base items       number of items in all records before the first
//!     32      8  created          nanoseconds since 1970
//!     40     24  zero             for later versions
//!     64      -  records, end to end; then zeros in reserved space
//! ```
//!
//! Headers do not count in positions: the end of a segment's last record is the base of the next segment.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes};
use memchr::memmem;

use super::cursor::{seal, unseal};
use super::direct::BLOCK_BYTES;
use super::record::{FRAME_BYTES, FRAME_MAGIC, Frame, payload_checksum};
use super::storage::{Storage, StorageFile, is_bad_sector};
use super::{Mark, Position};
use crate::support::pool::Pool;

/// Size of the header before the first record.
pub(super) const HEADER_BYTES: usize = 64;
/// The format version that this program reads and writes.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"sfjrnl\r\n";
const CHECKED_BYTES: usize = HEADER_BYTES - 12;
/// Amount to read from the disk in one call: a few agent requests or a thousand small ones, and small enough to hold for each reader.
const CHUNK_BYTES: u64 = 512 << 10;

/// The contents of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The first record's mark.
    pub(super) base: Mark,
    /// Nanoseconds since 1970.
    pub(super) created_ns: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// It is truncated or damaged.
    Damaged,
    /// It is intact, but was written by a later version of the program.
    Version(u32),
    /// The file is missing.
    Missing,
}

impl Header {
    /// Encodes the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut checked = [0; CHECKED_BYTES];
        let mut rest = &mut checked[..];
        rest.put_u32_le(VERSION);
        rest.put_u64_le(self.base.position.0);
        rest.put_u64_le(self.base.items);
        rest.put_u64_le(self.created_ns);
        seal(MAGIC, &checked)
    }

    /// Decodes a header.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let damaged = |_| BadHeader::Damaged;
        let mut rest = unseal(MAGIC, bytes).ok_or(BadHeader::Damaged)?;
        let version = rest.try_get_u32_le().map_err(damaged)?;
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let position = Position(rest.try_get_u64_le().map_err(damaged)?);
        let items = rest.try_get_u64_le().map_err(damaged)?;
        let created_ns = rest.try_get_u64_le().map_err(damaged)?;
        Ok(Self { base: Mark { position, items }, created_ns })
    }
}

/// Returns the name of the segment's file.
pub(super) fn name_of(base: Position) -> String {
    format!("{:020}.log", base.0)
}

/// Parses the base position from a file's name; `None` for other files.
pub(super) fn base_of(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(".log")?;
    let is_ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| digits.parse().ok().map(Position)).flatten()
}

/// Returns the offset of a position in the file.
pub(super) fn offset_in(base: Position, position: Position) -> u64 {
    HEADER_BYTES as u64 + position.0.saturating_sub(base.0)
}

/// An intact record, with the start of its group.
#[derive(Debug)]
pub(super) struct FoundRecord {
    pub(super) start: Mark,
    pub(super) end: Mark,
    pub(super) payload: Bytes,
    pub(super) group_start: Position,
}

/// Reads the records of one segment in large chunks; payloads are slices of these.
#[derive(Debug)]
pub(super) struct Records {
    file: Box<dyn StorageFile>,
    base: Position,
    /// A chunk of the file; `chunk_at` is its offset.
    chunk: Bytes,
    chunk_at: u64,
    pool: Pool,
}

impl Records {
    /// Creates a reader that takes its memory from `pool`.
    pub(super) fn new(file: Box<dyn StorageFile>, base: Position, pool: Pool) -> Self {
        Self { file, base, chunk: Bytes::new(), chunk_at: 0, pool }
    }

    /// Opens the segment with this base.
    pub(super) fn open(storage: &dyn Storage, base: Position) -> io::Result<Self> {
        Ok(Self::new(storage.open_to_read(&name_of(base))?, base, Pool::default()))
    }

    /// Returns the segment's first position.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// Returns the position of the end of the file, whatever it contains.
    pub(super) fn file_end(&self) -> io::Result<Position> {
        let bytes = self.file.length()?.saturating_sub(HEADER_BYTES as u64);
        Ok(Position(self.base.0.saturating_add(bytes)))
    }

    /// Reads the record at `position`; `None` if there is no intact record there that ends at or before `limit`.
    pub(super) fn read(
        &mut self,
        position: Position,
        limit: Position,
    ) -> io::Result<Option<FoundRecord>> {
        let Some((at, frame)) = self.frame(position, limit)? else { return Ok(None) };
        let (start, end) = (Mark { position, items: frame.items_before }, frame.end(at));
        if end.position > limit {
            return Ok(None);
        }
        let payload_at = Position(at.0 + FRAME_BYTES as u64);
        let payload = self.slice(payload_at, u64::from(frame.length), limit)?;
        let is_whole = payload.len() as u64 == u64::from(frame.length)
            && payload_checksum(&payload, &[]) == frame.payload_checksum;
        let group_start = frame.group_start(at);
        Ok(is_whole.then_some(FoundRecord { start, end, payload, group_start }))
    }

    /// Returns the frame of the record that starts at `position`, and the position of the frame: after the record's padding, if it has any.
    fn frame(
        &mut self,
        position: Position,
        limit: Position,
    ) -> io::Result<Option<(Position, Frame)>> {
        let mut at = position;
        loop {
            let bytes = self.slice(at, FRAME_BYTES as u64, limit)?;
            match Frame::decode(&bytes, at) {
                Some(frame) if frame.is_padding => at = frame.end(at).position,
                frame => return Ok(frame.map(|frame| (at, frame))),
            }
        }
    }

    /// Finds the first intact record at or after `position`.
    pub(super) fn find_from(
        &mut self,
        position: Position,
        limit: Position,
    ) -> io::Result<Option<FoundRecord>> {
        let here = self.read(position, limit)?;
        if here.is_some() { Ok(here) } else { self.find_after(position, limit) }
    }

    /// Finds the first intact record after `position`.
    pub(super) fn find_after(
        &mut self,
        position: Position,
        limit: Position,
    ) -> io::Result<Option<FoundRecord>> {
        let mut from = Position(position.0 + 1);
        while from < limit {
            let chunk = self.slice_up_to(from, limit)?;
            if chunk.len() < FRAME_MAGIC.len() {
                return Ok(None);
            }
            for index in memmem::find_iter(&chunk, &FRAME_MAGIC) {
                let found = self.read(Position(from.0 + index as u64), limit)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            // The magic may span two chunks.
            from = Position(from.0 + (chunk.len() - (FRAME_MAGIC.len() - 1)) as u64);
        }
        Ok(None)
    }

    /// Returns the last record boundary at or before `position`, found by following frames from the segment's first record.
    pub(super) fn boundary_before(
        &mut self,
        base: Mark,
        position: Position,
        limit: Position,
    ) -> io::Result<Mark> {
        let mut boundary = base;
        loop {
            let end = match self.frame(boundary.position, limit)? {
                Some((at, frame)) => frame.end(at),
                None => match self.find_after(boundary.position, limit)? {
                    Some(found) => found.start,
                    None => return Ok(boundary),
                },
            };
            if position < end.position {
                return Ok(boundary);
            }
            boundary = end;
        }
    }

    /// Returns whether a record starts at `position`, judging by its frame alone.
    pub(super) fn starts_at(&mut self, position: Position) -> io::Result<bool> {
        Ok(self.frame(position, self.file_end()?)?.is_some())
    }

    /// Counts the bytes from `position` to the last one that is not zero.
    pub(super) fn bytes_beyond(&mut self, position: Position, limit: Position) -> io::Result<u64> {
        let (mut at, mut beyond) = (position, 0);
        while at < limit {
            let chunk = self.slice_up_to(at, limit)?;
            if chunk.is_empty() {
                break;
            }
            if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
                beyond = at.0 + last as u64 + 1 - position.0;
            }
            at = Position(at.0 + chunk.len() as u64);
        }
        Ok(beyond)
    }

    fn slice_up_to(&mut self, position: Position, limit: Position) -> io::Result<Bytes> {
        let length = CHUNK_BYTES.min(limit.0.saturating_sub(position.0));
        self.slice(position, length, limit)
    }

    /// Returns `length` bytes from `position`, or as many as there are before `limit` and the end of the file.
    fn slice(&mut self, position: Position, length: u64, limit: Position) -> io::Result<Bytes> {
        let length = length.min(limit.0.saturating_sub(position.0));
        let offset = offset_in(self.base, position);
        let is_here =
            self.chunk_at <= offset && offset + length <= self.chunk_at + self.chunk.len() as u64;
        if !is_here {
            // Reads are aligned to blocks, so that they can bypass the page cache.
            let from = offset - offset % BLOCK_BYTES as u64;
            let to = (offset + length).next_multiple_of(BLOCK_BYTES as u64);
            let to = to.max(from + CHUNK_BYTES).min(offset_in(self.base, limit));
            let wanted = usize::try_from(to - from).unwrap_or(usize::MAX);
            let mut piece = self.pool.take(wanted.next_multiple_of(BLOCK_BYTES), 0);
            // No block is read twice: blocks that the last chunk already holds are copied.
            let known = self.whole_blocks_from(from);
            let (begun, rest) = piece.memory().split_at_mut(known.len());
            begun.copy_from_slice(&known);
            let read = read_around_bad_sectors(&*self.file, from + known.len() as u64, rest)?;
            // Bytes after the limit are still being written.
            piece.set_filled((known.len() + read).min(wanted));
            self.chunk = self.pool.share(piece);
            self.chunk_at = from;
        }
        let start = usize::try_from(offset - self.chunk_at).unwrap_or(usize::MAX);
        let end = start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(self.chunk.slice(start.min(self.chunk.len())..end.min(self.chunk.len())))
    }

    /// Returns the complete blocks of the chunk from this file offset on.
    fn whole_blocks_from(&self, offset: u64) -> Bytes {
        let whole = self.chunk.len() - self.chunk.len() % BLOCK_BYTES;
        let skipped = offset.checked_sub(self.chunk_at).and_then(|bytes| bytes.try_into().ok());
        match skipped {
            Some(skipped) if skipped < whole => self.chunk.slice(skipped..whole),
            _ => Bytes::new(),
        }
    }
}

/// Fills `bytes` with what the file has. Unreadable sectors become zeros, which pass no checksum, so that a bad sector costs only the
/// records on it.
pub(super) fn read_around_bad_sectors(
    file: &dyn StorageFile,
    offset: u64,
    bytes: &mut [u8],
) -> io::Result<usize> {
    match file.read_at(bytes, offset) {
        Err(error) if is_bad_sector(&error) => {
            let available =
                usize::try_from(file.length()?.saturating_sub(offset)).unwrap_or(bytes.len());
            let mut at = offset;
            for sector in bytes.chunks_mut(BLOCK_BYTES) {
                if file.read_at(sector, at).is_err() {
                    sector.fill(0);
                }
                at += sector.len() as u64;
            }
            Ok(available.min(bytes.len()))
        }
        filled => filled,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_is_read_back_as_written(position: u64, items: u64, created_ns: u64) {
            let header = Header { base: Mark { position: Position(position), items }, created_ns };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn no_flipped_bit_in_a_header_goes_unnoticed(position: u64, items: u64, bit in 0..HEADER_BYTES * 8) {
            let header = Header { base: Mark { position: Position(position), items }, created_ns: 7 };
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Header::decode(&bytes), Err(BadHeader::Damaged));
        }

        #[test]
        fn a_name_tells_the_base(position: u64) {
            prop_assert_eq!(base_of(&name_of(Position(position))), Some(Position(position)));
        }
    }

    #[test]
    fn a_header_of_a_later_version_is_told_from_damage() {
        let mut bytes = Header { base: Mark::default(), created_ns: 0 }.encode();
        bytes[12] = 2;
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Version(2)));
    }

    #[test]
    fn other_files_are_no_segments() {
        for name in
            ["1.log", "0000000000000000000x.log", "+0000000000000000001.log", "a.cursor", ""]
        {
            assert_eq!(base_of(name), None, "{name}");
        }
    }
}
