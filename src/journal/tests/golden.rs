//! `tests/golden/` has logs of each version: they stay readable, and the same appends still produce the bytes of the newest one. Version 2
//! differs from version 1 only in the cursors; version 3 has a note of the start of the log.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::support::golden;

/// 2026-01-01T00:00:00Z.
const CREATED_NS: u64 = 1_767_225_600_000_000_000;

/// The number that a consumer saves with its position.
const STAMP: u64 = CREATED_NS + 5;

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

const NEWEST: &str = "journal-v3";

/// Returns payloads of all relevant sizes, for several segments.
fn payload(number: u32) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        1 => b"\xF5SF\xFA looks like a frame".to_vec(),
        7 => vec![b'x'; 2000],
        other => format!("record {other} ").repeat(20).into_bytes(),
    }
}

const RECORDS: u32 = 12;

fn write(dir: &Path) {
    let options = Options { segment_bytes_max: 1 << 10, ..Options::default() };
    let storage = Arc::new(DirStorage::open(dir).unwrap());
    let journal: Journal<u64> =
        Journal::open_with(&options, storage, Arc::new(|| CREATED_NS), Box::new(|_| ())).unwrap();
    let ends: Vec<_> = (0..RECORDS)
        .map(|number| append(&journal, entry(payload(number), number * 3)).unwrap())
        .collect();
    journal.save_cursor("archive", &cursors(STAMP, &ends)[0].1).unwrap();
    journal.save_cursor("Search (EU)", &cursors(STAMP, &ends)[1].1).unwrap();
    journal.close();
    fs::remove_file(dir.join("lock")).unwrap();
}

fn cursors(stamp: u64, ends: &[Mark]) -> [(&'static str, Cursor); 2] {
    let archive = Cursor {
        mark: ends[4],
        joined: 3,
        dead_lettered: 2,
        filtered: 1,
        dropped: 4,
        stamp,
        state: Bytes::from_static(b"{\"length\":42}"),
    };
    [("archive", archive), ("Search (EU)", cursor_at(ends[8]))]
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_log_of_each_version_is_read() {
    // Cursors have stamps since version 2.
    for (version, stamp) in [("journal-v1", 0), ("journal-v2", STAMP), (NEWEST, STAMP)] {
        check(&golden(version), stamp);
    }
}

fn check(log: &Path, stamp: u64) {
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in files(log) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    assert!(verify(&DirStorage::existing(copy.path()).unwrap()).unwrap().is_whole());
    let storage = Arc::new(DirStorage::open(copy.path()).unwrap());
    let journal = Journal::open(&Options::default(), storage, |_: Synced<u64>| ()).unwrap();
    let (records, errors) = read_all(&journal, Position(0));
    assert!(errors.is_empty());
    assert_eq!(records.len(), RECORDS as usize);
    for (number, record) in (0..).zip(&records) {
        assert_eq!(*record.payload.as_ref().unwrap(), payload(number));
        assert_eq!(record.end.items - record.start.items, u64::from(number) * 3);
    }
    let ends: Vec<_> = records.iter().map(|record| record.end).collect();
    for (consumer, cursor) in cursors(stamp, &ends) {
        assert_eq!(journal.cursor(consumer), Some(cursor));
    }
    let recovery = journal.recovery();
    assert_eq!((recovery.cut_bytes, recovery.damages.len()), (0, 0));
    assert_eq!(journal.end(), ends[ends.len() - 1]);
    append(&journal, entry("goes on", 1)).unwrap();
    journal.close();
}

#[test]
fn the_same_appends_write_the_same_bytes() {
    // Written once for each version of the format, and kept forever.
    if golden::is_update() && !golden(NEWEST).exists() {
        fs::create_dir_all(golden(NEWEST)).unwrap();
        write(&golden(NEWEST));
    }
    let fresh = tempfile::tempdir().unwrap();
    write(fresh.path());
    let (expected, written) = (files(&golden(NEWEST)), files(fresh.path()));
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &written {
        assert!(*bytes == expected[name], "{name} differs");
    }
}
