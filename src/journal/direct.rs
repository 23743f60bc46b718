//! Writes past the page cache (`O_DIRECT`), in whole blocks.
//!
//! The journal is written once and seldom read, so its pages in the cache are of use to nobody: allocating and filling them costs
//! more than the rest of an append. Measured with agent spans, 20 in a request (6.6 KB each, ext4): 20 us of CPU a span through
//! the cache, of which more than half copied bytes into new pages.
//!
//! Small parts are gathered in one buffer that is used again and again. A large body whose memory and whose place in the file
//! both begin at a block's boundary is *zero-copy*: its whole blocks are written from where they are. Its receiver sees to the
//! first (`support/pool.rs`), the writer thread to the second ([`padding_before`]).
//!
//! The last block of a write is filled up with zeros, as reserved space is, and written again with what follows. The bytes of it
//! that were acknowledged are written as they were, so that no torn block can harm them.
#![expect(clippy::disallowed_types, reason = "a second way to write what journal/storage.rs opens")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::io::{pwritev, retry_on_intr};

use super::record::FRAME_BYTES;
use crate::support::pool::ALIGNMENT;

/// What every disk and file system in use takes for an aligned address, offset and length.
pub(super) const BLOCK_BYTES: usize = ALIGNMENT;
/// A shorter body is copied: what its padding takes on the disk would be more than a tenth of it.
pub(super) const ZERO_COPY_BYTES_MIN: usize = 32 << 10;
/// The most that padding takes, with its frame.
pub(super) const PADDING_BYTES_MAX: u64 = (BLOCK_BYTES + FRAME_BYTES) as u64;
/// One call for most groups, and little enough to stay in a processor's cache.
const STAGING_BYTES: usize = 1 << 20;
/// A smaller write is cheaper through the cache than as whole blocks.
pub(super) const DIRECT_BYTES_MIN: usize = BLOCK_BYTES;
/// What Linux takes in one call (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// Whether a body's blocks can be written from where they are, if it begins at a block's boundary in the file too.
pub(super) fn is_zero_copy(body: &[u8]) -> bool {
    ZERO_COPY_BYTES_MIN <= body.len() && body.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
}

/// Whether a part of a file can be read past the page cache into this memory.
pub(super) fn can_be_read_directly(memory: &[u8], offset: u64) -> bool {
    let aligned = [memory.as_ptr().addr(), memory.len()];
    aligned.iter().all(|number| number.is_multiple_of(BLOCK_BYTES))
        && offset.is_multiple_of(BLOCK_BYTES as u64)
}

/// How much padding, with its frame, brings what would stand at `offset` of the file to a block's boundary.
pub(super) fn padding_before(offset: u64) -> u64 {
    let gap = offset.next_multiple_of(BLOCK_BYTES as u64) - offset;
    if 0 < gap && gap < FRAME_BYTES as u64 { gap + BLOCK_BYTES as u64 } else { gap }
}

/// A file opened with `O_DIRECT`, and the blocks that are gathered for it.
#[derive(Debug)]
pub(super) struct Direct {
    file: File,
    /// Made when it is first needed; one block longer than it has to be, so that an aligned part can be used.
    staging: Vec<u8>,
    /// The offset at which the staged part of the last block ends; `None` when nothing is staged.
    staged_to: Option<u64>,
}

impl Direct {
    pub(super) fn new(file: File) -> Self {
        Self { file, staging: Vec::new(), staged_to: None }
    }

    /// Writes the parts one after the other from `offset` on. `cached` is the same file, opened as usual.
    pub(super) fn write_at(
        &mut self,
        cached: &File,
        parts: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<()> {
        self.staging.resize(STAGING_BYTES + BLOCK_BYTES, 0);
        let aligned = self.staging.as_ptr().align_offset(BLOCK_BYTES);
        let Some(staging) =
            self.staging.get_mut(aligned..).and_then(|rest| rest.get_mut(..STAGING_BYTES))
        else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let before = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or_default();
        let at = offset - before as u64;
        if self.staged_to != Some(offset)
            && let Some(begun) = staging.get_mut(..before)
        {
            cached.read_exact_at(begun, at)?;
        }
        // Until the write is done nobody knows what the last block holds.
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

/// Blocks on their way to the disk.
struct WriteBuffer<'a> {
    file: &'a File,
    /// Where in the file the first of them goes.
    at: u64,
    staging: &'a mut [u8],
    /// Bytes in `staging`. What comes next stands in a block where it stands in `staging`.
    filled: usize,
    /// Bytes of `staging` that are among the chunks already.
    noted: usize,
    chunks: Vec<Chunk<'a>>,
}

/// Whole blocks, one after the other in memory.
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

    /// Writes what is left, and keeps what is in the last block.
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

    /// Writes all that is gathered, which is whole blocks.
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

/// Writes all of the slices from `at` on, to a file that takes whole units of so many bytes.
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
        // Less than a unit is written only when there is no more room.
        let written = written - written % unit;
        if written == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        at += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
