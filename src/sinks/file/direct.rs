//! Large writes past the page cache (`O_DIRECT`).
//!
//! Lines are written once and seldom read soon, so a page of the cache for each 4 KiB of them is of use to nobody, and filling new
//! pages costs more than making the lines: a third of all that an agent span of 6.6 KB costs on its way to a file, and on a busy machine
//! twice as many spans get there without it. Only the blocks
//! that are whole go past the cache; what stands before and behind them in a block that is not goes through it, so nothing is ever
//! written twice or filled up, and whoever follows the file sees each line at once.
#![expect(clippy::disallowed_types, reason = "this sink writes files")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::pool::{ALIGNMENT, Pool};

/// Less than this is cheaper through the cache.
pub(super) const DIRECT_BYTES_MIN: usize = 64 << 10;

/// Writes all of these bytes at this place of a file that nobody else writes to.
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
        // Not every file system can do that. Any other problem comes again here.
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

/// Copied into aligned memory and written in one call: whole blocks, and few enough for the processor's cache.
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
