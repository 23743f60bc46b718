//! Writes that bypass the page cache (`O_DIRECT`), in complete blocks.
//!
//! The journal is written once and rarely read, so caching its pages is useless: allocating and filling them costs more than the rest of an
//! append. Measured with agent spans, 20 per request (6.6 KB each, ext4): 20 us of CPU per span through the cache, more than half of it for
//! copying bytes into new pages.
//!
//! Small parts are copied into one reused buffer. A large body that begins at a block boundary both in memory and in the file is
//! *zero-copy*: its complete blocks are written directly from its memory. The receiver aligns the memory (`support/pool.rs`), the writer
//! thread the file offset ([`padding_before`]).
//!
//! The last block of a write is filled up with zeros, like reserved space, and is written again with the next write. Its acknowledged bytes
//! are rewritten unchanged, so a torn block cannot harm them.
#![expect(clippy::disallowed_types, reason = "a second way to write what journal/storage.rs opens")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::io::{pwritev, retry_on_intr};

use super::record::FRAME_BYTES;
use crate::support::pool::{ALIGNMENT, Pool, PoolBuffer};

/// Alignment of addresses, offsets and lengths that all common disks and file systems accept.
pub(super) const BLOCK_BYTES: usize = ALIGNMENT;
/// Shorter bodies are copied: their padding would exceed a tenth of their size on disk.
pub(super) const ZERO_COPY_BYTES_MIN: usize = 32 << 10;
/// Maximum size of padding with its frame.
pub(super) const PADDING_BYTES_MAX: u64 = (BLOCK_BYTES + FRAME_BYTES) as u64;
/// Large enough to write most groups in one call, and small enough to stay in the processor's cache.
const STAGING_BYTES: usize = 1 << 20;
/// Smaller writes are cheaper through the cache than as complete blocks.
pub(super) const DIRECT_BYTES_MIN: usize = BLOCK_BYTES;
/// Maximum number of slices in one call on Linux (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// Returns whether a body's blocks can be written from its memory, provided that it begins at a block boundary in the file too.
pub(super) fn is_zero_copy(body: &[u8]) -> bool {
    ZERO_COPY_BYTES_MIN <= body.len() && body.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
}

/// Returns whether a part of a file can be read into this memory past the page cache.
pub(super) fn can_be_read_directly(memory: &[u8], offset: u64) -> bool {
    let aligned = [memory.as_ptr().addr(), memory.len()];
    aligned.iter().all(|number| number.is_multiple_of(BLOCK_BYTES))
        && offset.is_multiple_of(BLOCK_BYTES as u64)
}

/// Returns the size of the padding, frame included, that moves data from `offset` to a block boundary in the file.
pub(super) fn padding_before(offset: u64) -> u64 {
    let gap = offset.next_multiple_of(BLOCK_BYTES as u64) - offset;
    if 0 < gap && gap < FRAME_BYTES as u64 { gap + BLOCK_BYTES as u64 } else { gap }
}

/// A file opened with `O_DIRECT`, and a buffer for blocks to write.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Allocated on first use.
    staging: PoolBuffer,
    /// End offset of the staged part of the last block; `None` if nothing is staged.
    staged_to: Option<u64>,
}

impl Direct {
    pub(super) fn new(file: File) -> Self {
        Self { file, staging: PoolBuffer::default(), staged_to: None }
    }

    /// Writes the parts one after the other from `offset`. `cached` is the same file, opened without `O_DIRECT`.
    pub(super) fn write_at(
        &mut self,
        cached: &File,
        parts: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<()> {
        if self.staging.room() == 0 {
            self.staging = Pool::default().take(STAGING_BYTES, 0);
        }
        let staging = self.staging.memory();
        let before = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or_default();
        let at = offset - before as u64;
        if self.staged_to != Some(offset)
            && let Some(begun) = staging.get_mut(..before)
        {
            cached.read_exact_at(begun, at)?;
        }
        // The contents of the last block are unknown until the write is done.
        self.staged_to = None;
        let mut buffer = WriteBuffer {
            file: &self.file,
            at,
            staging,
            filled: before,
            noted: 0,
            chunks: Vec::new(),
        };
        let mut end = offset;
        for part in parts {
            buffer.add(part)?;
            end += part.len() as u64;
        }
        buffer.finish()?;
        self.staged_to = Some(end);
        Ok(())
    }
}

/// Blocks that are being written.
struct WriteBuffer<'a> {
    file: &'a File,
    /// File offset of the first block.
    at: u64,
    staging: &'a mut [u8],
    /// Number of bytes in `staging`. Bytes have the same offset within a block in `staging` as in the file.
    filled: usize,
    /// Number of bytes of `staging` that are already in `chunks`.
    noted: usize,
    chunks: Vec<Chunk<'a>>,
}

/// Complete blocks, contiguous in memory.
enum Chunk<'a> {
    Staged(Range<usize>),
    ZeroCopy(&'a [u8]),
}

impl<'a> WriteBuffer<'a> {
    fn add(&mut self, part: &'a [u8]) -> io::Result<()> {
        let mut rest = part;
        if is_zero_copy(part) && self.filled.is_multiple_of(BLOCK_BYTES) {
            let (blocks, tail) = part.split_at(part.len() - part.len() % BLOCK_BYTES);
            self.note_staged();
            self.chunks.push(Chunk::ZeroCopy(blocks));
            rest = tail;
        }
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.staging.len() - self.filled));
            if let Some(room) = self.staging.get_mut(self.filled..self.filled + now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            rest = later;
            if self.filled == self.staging.len() {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Writes the remaining bytes and keeps the contents of the last block.
    fn finish(mut self) -> io::Result<()> {
        let filled = self.filled;
        let whole = filled.next_multiple_of(BLOCK_BYTES);
        self.staging.get_mut(filled..whole).unwrap_or_default().fill(0);
        self.filled = whole;
        self.write()?;
        self.staging.copy_within(filled - filled % BLOCK_BYTES..filled, 0);
        Ok(())
    }

    fn note_staged(&mut self) {
        if self.noted < self.filled {
            self.chunks.push(Chunk::Staged(self.noted..self.filled));
            self.noted = self.filled;
        }
    }

    /// Writes all staged blocks, which are complete.
    fn write(&mut self) -> io::Result<()> {
        self.note_staged();
        let slice = |chunk: &Chunk<'a>| match chunk {
            Chunk::Staged(range) => self.staging.get(range.clone()).unwrap_or_default(),
            Chunk::ZeroCopy(blocks) => blocks,
        };
        let bytes: usize = self.chunks.iter().map(|chunk| slice(chunk).len()).sum();
        let mut slices: Vec<_> = self.chunks.iter().map(slice).map(IoSlice::new).collect();
        write_all(self.file, &mut slices, self.at, BLOCK_BYTES)?;
        self.at += bytes as u64;
        (self.filled, self.noted) = (0, 0);
        self.chunks.clear();
        Ok(())
    }
}

/// Writes all slices from `at`, to a file that accepts multiples of `unit` bytes.
pub(super) fn write_all(
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut at: u64,
    unit: usize,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let some = slices.get(..SLICES_MAX).unwrap_or(slices);
        let written = retry_on_intr(|| pwritev(file, some, at))?;
        // A write is shorter than a unit only if the disk is full.
        let written = written - written % unit;
        if written == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
