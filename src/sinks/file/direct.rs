//! Writes large buffers past the page cache (`O_DIRECT`).
//!
//! Lines are written once and seldom read soon, so caching them is of no use, and filling new pages costs more than encoding the lines: a
//! third of the total cost of an agent span of 6.6 KB on its way to a file. On a busy machine, twice as many spans get through without it.
//! Only complete blocks bypass the cache. The partial blocks before and after them go through it, so nothing is written twice or padded,
//! and a reader that follows the file sees each line immediately.
#![expect(clippy::disallowed_types, reason = "this sink writes files")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::pool::{ALIGNMENT, Pool};

/// Smaller writes are cheaper through the cache.
pub(super) const DIRECT_BYTES_MIN: usize = 64 << 10;

/// Writes all bytes at this offset. The file must have no other writer.
pub(super) fn write(file: &File, bytes: &[u8], at: u64, pool: &Pool) -> io::Result<()> {
    let before = at.next_multiple_of(ALIGNMENT as u64) - at;
    let before = usize::try_from(before).unwrap_or_default().min(bytes.len());
    let (head, rest) = bytes.split_at(before);
    if rest.len() < DIRECT_BYTES_MIN {
        return file.write_all_at(bytes, at);
    }
    let (blocks, tail) = rest.split_at(rest.len() - rest.len() % ALIGNMENT);
    let from = at + head.len() as u64;
    file.write_all_at(head, at)?;
    if write_blocks(file, blocks, from, pool).is_err() {
        // Not every file system supports `O_DIRECT`. Any other error recurs here.
        file.write_all_at(blocks, from)?;
    }
    file.write_all_at(tail, from + blocks.len() as u64)
}

fn write_blocks(file: &File, blocks: &[u8], at: u64, pool: &Pool) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let mut written = Ok(());
    let mut from = at;
    for blocks in blocks.chunks(CALL_BYTES_MAX) {
        let mut aligned = pool.take(blocks.len(), 0);
        aligned.extend(blocks);
        written = written.and_then(|()| file.write_all_at(aligned.bytes(), from));
        pool.give_back(aligned);
        from += blocks.len() as u64;
    }
    fcntl_setfl(file, flags)?;
    written
}

/// Bytes that are copied into aligned memory and written in one call: complete blocks that fit into the processor's cache.
const CALL_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_of_any_length_stand_behind_each_other(
            lengths in proptest::collection::vec(
                prop_oneof![0..10_000_usize, Just(ALIGNMENT), 60_000..200_000_usize, Just(CALL_BYTES_MAX + 1)],
                1..8,
            ),
        ) {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("lines");
            let file = File::options().create_new(true).write(true).open(&path).unwrap();
            let flags = fcntl_getfl(&file).unwrap();
            let (pool, mut expected) = (Pool::default(), Vec::new());
            for (number, length) in (0_u8..).zip(lengths) {
                let piece: Vec<u8> = (0..length).map(|at| number ^ at.to_le_bytes()[0]).collect();
                write(&file, &piece, expected.len() as u64, &pool).unwrap();
                expected.extend(piece);
                prop_assert!(std::fs::read(&path).unwrap() == expected);
            }
            prop_assert_eq!(fcntl_getfl(&file).unwrap(), flags);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_says_so() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        assert!(write(&file, &vec![0; 2 * DIRECT_BYTES_MIN], 0, &Pool::default()).is_err());
    }
}
