//! Large bodies, which are aligned to blocks and written directly from their memory.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::direct::{BLOCK_BYTES, ZERO_COPY_BYTES_MIN, is_zero_copy};
use super::record::FRAME_BYTES;
use super::*;

/// Creates a record with a body of this length that begins `off` bytes after a block boundary in memory.
fn entry_of(head: usize, body: usize, off: usize, seed: u8) -> Entry<u64> {
    let byte = |place: usize| u8::try_from(place % 251).unwrap() ^ seed;
    let mut memory = vec![0; body + 2 * BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES) + off;
    for (place, slot) in memory[start..start + body].iter_mut().enumerate() {
        *slot = byte(place);
    }
    let body = Bytes::from(memory).slice(start..start + body);
    Entry { head: (0..head).map(byte).collect(), body, items: 1, attachment: 0 }
}

fn payload(entry: &Entry<u64>) -> Vec<u8> {
    [&entry.head[..], &entry.body].concat()
}

fn open(dir: &TempDir) -> Journal<u64> {
    let storage = Arc::new(DirStorage::open(dir.path()).unwrap());
    let options = Options { segment_bytes_max: 512 << 10, ..Options::default() };
    Journal::open_with(&options, storage, Arc::new(|| 1 << 60), Box::new(|_| ())).unwrap()
}

/// Returns a directory on a real disk: the usual place for temporary files is often in memory.
fn dir_on_disk() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    fs::create_dir_all(&target).unwrap();
    TempDir::new_in(target).unwrap()
}

/// Returns the offset of a mark in the first segment.
fn offset_of(mark: Mark) -> usize {
    usize::try_from(segment::offset_in(Position(0), mark.position)).unwrap()
}

fn payloads(journal: &Journal<u64>) -> Vec<Vec<u8>> {
    let (records, errors) = read_all(journal, Position(0));
    assert!(errors.is_empty(), "{errors:?}");
    let mut at = Position(0);
    for record in &records {
        assert_eq!(record.start.position, at, "a record's end is the next one's start");
        at = record.end.position;
    }
    records.into_iter().map(|record| record.payload.unwrap().to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_lies_where_is_read_back_as_it_was_also_after_a_restart(
        groups in prop::collection::vec(prop::collection::vec(
            (0..200_usize, prop_oneof![0..5000_usize, 30_000..150_000_usize, Just(1 << 20)], prop_oneof![Just(0), 0..BLOCK_BYTES], any::<u8>()),
            1..6,
        ), 1..5),
    ) {
        let dir = dir_on_disk();
        let mut expected = Vec::new();
        for group in groups {
            // One after the other, in a log that is opened again: the incomplete block is read from disk.
            let journal = open(&dir);
            let entries: Vec<_> =
                group.into_iter().map(|(head, body, off, seed)| entry_of(head, body, off, seed)).collect();
            expected.extend(entries.iter().map(payload));
            let appends = entries.into_iter().map(|entry| journal.append(entry));
            let appended = block_on(futures_util::future::join_all(appends));
            prop_assert!(appended.iter().all(Result::is_ok), "{appended:?}");
            prop_assert_eq!(&payloads(&journal), &expected);
            journal.close();
        }
        prop_assert_eq!(&payloads(&open(&dir)), &expected);
        let verification = verify(&DirStorage::open(dir.path()).unwrap()).unwrap();
        prop_assert!(verification.is_whole());
        prop_assert_eq!(verification.torn_bytes, 0);
    }
}

#[test]
fn the_body_of_a_large_record_lies_on_the_border_of_a_block() {
    let dir = dir_on_disk();
    let journal = open(&dir);
    for (head, body) in [(10, 100), (70, 40_000), (11, 0), (3, ZERO_COPY_BYTES_MIN), (8, 100_000)] {
        let entry = entry_of(head, body, 0, 1);
        let is_large = is_zero_copy(&entry.body);
        assert_eq!(is_large, ZERO_COPY_BYTES_MIN <= body);
        let end = append(&journal, entry).unwrap();
        let at = offset_of(end) - body;
        assert_eq!(at.is_multiple_of(BLOCK_BYTES), is_large, "{body} bytes at {at}");
    }
}

#[test]
fn a_log_that_was_cut_anywhere_in_padding_has_all_records_before_it() {
    let dir = dir_on_disk();
    let journal = open(&dir);
    let small = append(&journal, entry_of(10, 100, 0, 1)).unwrap();
    let large = append(&journal, entry_of(20, ZERO_COPY_BYTES_MIN, 0, 2)).unwrap();
    journal.close();
    let name = dir.path().join(segment::name_of(Position(0)));
    fs::remove_file(dir.path().join("closed.mark")).unwrap();
    let whole = fs::read(&name).unwrap();
    let padding_at = offset_of(small);
    assert_eq!(whole.len(), offset_of(large));
    let frame_at = whole.len() - ZERO_COPY_BYTES_MIN - 20 - FRAME_BYTES;
    assert!(padding_at + FRAME_BYTES <= frame_at, "there is padding");
    let cuts = (padding_at..padding_at + 2 * FRAME_BYTES)
        .chain(frame_at - 2..frame_at + FRAME_BYTES + 30)
        .chain([whole.len() - 1]);
    for cut in cuts {
        fs::write(&name, &whole[..cut]).unwrap();
        let journal = open(&dir);
        assert_eq!(payloads(&journal).len(), 1, "cut at {cut}");
        assert!(journal.recovery().damages.is_empty(), "cut at {cut}");
        let again = append(&journal, entry_of(20, ZERO_COPY_BYTES_MIN, 0, 2)).unwrap();
        assert_eq!(again, large);
        assert_eq!(payloads(&journal).len(), 2, "cut at {cut}");
        journal.close();
        fs::remove_file(dir.path().join("closed.mark")).unwrap();
    }
}

#[test]
fn damaged_padding_costs_the_record_behind_it_nothing() {
    let dir = dir_on_disk();
    let journal = open(&dir);
    let small = append(&journal, entry_of(10, 100, 0, 1)).unwrap();
    append(&journal, entry_of(20, ZERO_COPY_BYTES_MIN, 0, 2)).unwrap();
    append(&journal, entry_of(30, 10, 0, 3)).unwrap();
    journal.close();
    let name = dir.path().join(segment::name_of(Position(0)));
    let mut bytes = fs::read(&name).unwrap();
    bytes[offset_of(small) + 9] ^= 1;
    fs::write(&name, bytes).unwrap();
    let journal = open(&dir);
    let (records, errors) = read_all(&journal, Position(0));
    assert_eq!(records.len(), 3);
    let [Record { start, end, .. }] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!((start.position, end.items), (small.position, small.items));
    assert_eq!(journal.recovery().damages.len(), 1);
}

#[test]
fn records_of_the_largest_size_are_taken_again_and_again_with_their_padding() {
    let mut world = World::new();
    world.options.bytes_max = 1 << 20;
    let journal = world.open();
    let max = match append(&journal, entry_of(0, 1 << 20, 0, 1)) {
        Err(AppendError::TooLarge { max, .. }) => usize::try_from(max).unwrap(),
        other => panic!("{other:?}"),
    };
    for seed in 0..10 {
        let end = append(&journal, entry_of(5, max - 5, 0, seed)).unwrap();
        journal.save_cursor("only", &cursor_at(end)).unwrap();
    }
}
