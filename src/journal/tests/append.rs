//! Appends: order, groups, refusals, full and failing disks.

use std::sync::Mutex;

use super::faulty::Crash;
use super::record::FRAME_BYTES;
use super::*;

#[test]
fn what_was_appended_is_read_back_in_order_also_after_a_restart() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    assert_eq!(numbers(&journal), (0..30).collect::<Vec<_>>());
    journal.close();
    let journal = world.open();
    assert_eq!(journal.end(), *ends.last().unwrap());
    assert_eq!(numbers(&journal), (0..30).collect::<Vec<_>>());
    append_numbered(&journal, 30, 5);
    assert_eq!(numbers(&journal), (0..35).collect::<Vec<_>>());
    assert_eq!(journal.recovery().cut_bytes, 0);
}

#[test]
fn positions_go_on_without_a_gap_from_segment_to_segment() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    assert!(world.disk.segments().len() > 3);
    let (records, errors) = read_all(&journal, Position(0));
    assert!(errors.is_empty());
    let mut at = Mark::default();
    for (record, end) in records.iter().zip(ends) {
        assert_eq!((record.start, record.end), (at, end));
        at = end;
    }
    assert_eq!(at, journal.end());
    assert_eq!(at.items, 30);
}

#[test]
fn a_record_can_be_read_as_soon_as_its_append_has_returned() {
    let journal = World::new().open();
    for number in 0..50 {
        let end = append_numbered(&journal, number, 1)[0];
        assert_eq!(journal.end(), end);
    }
}

#[test]
fn a_reader_follows_the_log_as_it_grows() {
    let world = World::new();
    let journal = world.open();
    let mut reader = journal.read_from(Position(0));
    assert_eq!(reader.next().unwrap(), None);
    for number in 0..40 {
        append_numbered(&journal, number, 1);
        assert_eq!(reader.next().unwrap().unwrap().payload.unwrap(), numbered(number));
        assert_eq!(reader.next().unwrap(), None);
    }
}

#[test]
fn many_callers_share_one_sync() {
    let world = World::new();
    let world = World {
        options: Options {
            segment_bytes_max: 1 << 20,
            bytes_max: 8 << 20,
            ..world.options.clone()
        },
        ..world
    };
    let journal = world.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let before = world.disk.syncs();
        world.disk.hold_syncs();
        let first = tokio::spawn({
            let journal = journal.clone();
            async move { journal.append(entry("first", 1)).await }
        });
        tokio::task::yield_now().await;
        world.disk.until_a_sync_waits();
        let mut rest = tokio::task::JoinSet::new();
        for number in 0..200 {
            let journal = journal.clone();
            rest.spawn(async move { journal.append(entry(numbered(number), 1)).await.unwrap() });
        }
        // Admission and submission are one step.
        while journal.shared.log.state().admitted < 201 * FRAME_BYTES as u64 + 5 + 200 * 100 {
            tokio::task::yield_now().await;
        }
        world.disk.release_syncs();
        first.await.unwrap().unwrap();
        assert_eq!(rest.join_all().await.len(), 200);
        assert_eq!(world.disk.syncs() - before, 2);
    });
}

#[test]
fn the_observer_sees_each_record_in_order_before_its_caller_is_answered() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&seen);
    let journal = Journal::open(
        &Options::default(),
        Arc::new(MemoryStorage::default()),
        move |synced: Synced<u64>| {
            observed.lock().unwrap().push((synced.start, synced.end, synced.attachment));
        },
    )
    .unwrap();
    let mut at = Mark::default();
    for number in 0..20 {
        let end =
            append(&journal, Entry { attachment: number, ..entry(numbered(number), 2) }).unwrap();
        assert_eq!(seen.lock().unwrap().last(), Some(&(at, end, number)));
        at = end;
    }
}

#[test]
fn empty_records_and_empty_parts_are_kept() {
    let journal = World::new().open();
    let parts: [(&[u8], &[u8]); 4] =
        [(b"", b""), (b"head", b""), (b"", b"body"), (b"head", b"body")];
    for (head, body) in parts {
        let body = Bytes::from_static(body);
        append(&journal, Entry { head: head.to_vec(), body, items: 0, attachment: 0 }).unwrap();
    }
    let (records, _) = read_all(&journal, Position(0));
    let payloads: Vec<_> =
        records.iter().map(|record| record.payload.as_deref().unwrap()).collect();
    assert_eq!(payloads, [&b""[..], b"head", b"body", b"headbody"]);
}

#[test]
fn a_record_over_half_the_budget_is_refused_and_one_below_is_taken_again_and_again() {
    let world = World::new();
    let journal = world.open();
    let Err(AppendError::TooLarge { max, .. }) = append(&journal, entry(vec![7; 40 << 10], 1))
    else {
        panic!("too large");
    };
    let largest = usize::try_from(max).unwrap();
    for _ in 0..5 {
        let end = append(&journal, entry(vec![7; largest], 1)).unwrap();
        journal.save_cursor("sink", &cursor_at(end)).unwrap();
    }
    assert!(journal.bytes() <= journal.bytes_max());
    assert!(matches!(
        append(&journal, entry(vec![7; largest + 1], 1)),
        Err(AppendError::TooLarge { .. })
    ));
}

#[test]
fn a_full_log_refuses_at_once_and_goes_on_when_a_cursor_moves() {
    let world = World::new();
    let journal = world.open();
    journal.retain_consumers(&["slow"]);
    let mut ends = Vec::new();
    let refused = loop {
        match append(&journal, entry(numbered(ends.len() as u64), 1)) {
            Ok(end) => ends.push(end),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { max, .. } if max == world.options.bytes_max));
    assert!(journal.bytes() <= journal.bytes_max());
    assert_eq!(journal.health(), Health::Good);
    assert_eq!(numbers(&journal).len(), ends.len());
    journal.save_cursor("slow", &cursor_at(ends[ends.len() / 2])).unwrap();
    append_numbered(&journal, ends.len() as u64, 10);
    let kept = numbers(&journal);
    assert!(
        kept.contains(&(ends.len() as u64 / 2 + 1)),
        "what the consumer has not passed is there"
    );
}

#[test]
fn who_waits_for_room_gets_it_when_a_cursor_moves_or_is_refused_in_time() {
    let world = World::new();
    let journal = world.open();
    journal.retain_consumers(&["slow"]);
    let mut end = Mark::default();
    while let Ok(next) = append(&journal, entry(numbered(0), 1)) {
        end = next;
    }
    let refused = block_on(journal.append_within(entry("late", 1), Duration::from_millis(1)));
    assert!(matches!(refused, Err(AppendError::Full { .. })));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let waiting = journal.append_within(entry("late", 1), Duration::from_mins(1));
        let moving = async { journal.save_cursor("slow", &cursor_at(end)).unwrap() };
        let (appended, ()) = tokio::join!(waiting, moving);
        appended.unwrap();
    });
}

#[test]
fn a_full_disk_costs_only_the_group_that_met_it() {
    // With an odd number the file system cannot reserve, and the write itself fails; with an even one, reserving fails.
    for room in [0, 20, 50, 1, 33, 77, 131] {
        let world = World::new();
        let journal = world.open();
        append_numbered(&journal, 0, 3);
        world.disk.set_room(Some(room));
        let refused = (0..10).map(|_| append(&journal, entry(numbered(100), 1)));
        let refused: Vec<_> = refused.filter_map(Result::err).collect();
        assert!(refused.iter().all(|error| matches!(error, AppendError::NoSpace)), "{refused:?}");
        assert!(refused.len() >= 9, "room for {room} bytes");
        assert_eq!(journal.health(), Health::NoSpace);
        world.disk.set_room(None);
        let known = numbers(&journal);
        append_numbered(&journal, 3, 20);
        assert_eq!(journal.health(), Health::Good);
        let expected: Vec<_> = known.iter().copied().chain(3..23).collect();
        assert_eq!(numbers(&journal), expected);
        journal.close();
        assert_eq!(numbers(&world.open()), expected);
    }
}

#[test]
fn health_comes_back_by_itself_when_the_disk_has_room_again() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 1);
    world.disk.set_room(Some(0));
    append(&journal, entry(numbered(1), 1)).unwrap_err();
    let mut room = journal.shared.log.room.subscribe();
    world.disk.set_room(None);
    block_on(async {
        let recovery = async {
            while journal.health() != Health::Good {
                room.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), recovery).await.unwrap();
    });
}

#[test]
fn a_failed_sync_poisons_the_log_until_the_next_start() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 5);
    world.disk.fail_syncs();
    let error = append(&journal, entry(numbered(5), 1)).unwrap_err();
    assert!(matches!(&error, AppendError::Poisoned(reason) if reason.contains("sync")), "{error}");
    assert!(matches!(journal.health(), Health::Poisoned(_)));
    let later = append(&journal, entry(numbered(6), 1)).unwrap_err();
    assert!(matches!(later, AppendError::Poisoned(_)));
    journal.close();
    assert_eq!(journal.end().items, 5, "what was not synced is not shown");
    drop(journal);
    world.disk.crash(Crash::LosesAll);
    let journal = world.open();
    assert_eq!(numbers(&journal), (0..5).collect::<Vec<_>>());
    append_numbered(&journal, 5, 1);
}

#[test]
fn all_who_wait_learn_of_a_poisoning() {
    let world = World::new();
    let journal = world.open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        world.disk.hold_syncs();
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..10 {
            let journal = journal.clone();
            waiting.spawn(async move { journal.append(entry(numbered(number), 1)).await });
        }
        tokio::task::yield_now().await;
        world.disk.until_a_sync_waits();
        world.disk.fail_syncs();
        world.disk.release_syncs();
        for answer in waiting.join_all().await {
            assert!(matches!(answer, Err(AppendError::Poisoned(_))), "{answer:?}");
        }
    });
}

#[test]
fn a_failed_write_poisons() {
    let world = World::new();
    let journal = world.open();
    world.disk.fail_writes();
    assert!(matches!(append(&journal, entry("x", 1)), Err(AppendError::Poisoned(_))));
}

#[test]
fn a_panic_of_the_observer_poisons() {
    let storage = Arc::new(MemoryStorage::default());
    let journal =
        Journal::open(&Options::default(), storage, |_: Synced<u64>| panic!("observer")).unwrap();
    append(&journal, entry("x", 1)).unwrap_err();
    journal.close();
    assert!(matches!(append(&journal, entry("x", 1)), Err(AppendError::Poisoned(_))));
}

#[test]
fn a_closed_log_refuses_and_can_be_closed_again() {
    let journal = World::new().open();
    journal.close();
    journal.close();
    assert!(matches!(append(&journal, entry("x", 1)), Err(AppendError::Closed)));
}

#[test]
fn a_log_that_is_dropped_without_a_close_keeps_what_was_submitted_and_gives_the_lock_back() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 10);
    drop(journal);
    let journal = loop {
        match world.try_open() {
            Ok(journal) => break journal,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(numbers(&journal), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_dropped_append_gives_its_room_back() {
    let world = World::new();
    let journal = world.open();
    let admission = journal.shared.log.admit(1000).unwrap();
    assert_ne!(journal.shared.log.state().admitted, 0);
    drop(admission);
    assert_eq!(journal.shared.log.state().admitted, 0);
    append_numbered(&journal, 0, 3);
    assert_eq!(journal.shared.log.state().admitted, 0);
}

#[test]
fn who_waits_for_room_gets_it_when_another_gives_up() {
    let world = World::new();
    let journal = world.open();
    journal.retain_consumers(&["slow"]);
    let log = &journal.shared.log;
    let mut admissions: Vec<_> = std::iter::from_fn(|| log.admit(1000).ok()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let waiting = journal.append_within(entry(vec![b'x'; 1000], 1), Duration::from_mins(10));
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        // The client of another is gone before its record was written.
        admissions.truncate(admissions.len() - 2);
        let appended = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        appended.expect("it need not wait any longer").unwrap();
    });
}

#[test]
fn a_log_is_full_from_the_first_refusal_until_there_is_room_for_what_was_refused() {
    let world = World::new();
    let journal = world.open();
    journal.retain_consumers(&["slow"]);
    let mut end = Mark::default();
    while let Ok(next) = append(&journal, entry(numbered(0), 1)) {
        assert!(!journal.is_full(), "nothing was refused");
        end = next;
    }
    assert!(journal.is_full());
    journal.save_cursor("slow", &cursor_at(end)).unwrap();
    assert!(!journal.is_full());
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let storage = Arc::new(DirStorage::open(dir.path()).unwrap());
        Journal::open(&Options::default(), storage, |_: Synced<u64>| ())
    };
    let journal = open().unwrap();
    let Err(OpenError::Locked { pid, .. }) = open() else { panic!("locked") };
    assert_eq!(pid, std::process::id().to_string());
    journal.close();
    open().unwrap().close();
}

#[test]
fn what_root_leaves_in_the_directory_of_another_is_that_one_s() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    // A user other than root owns the directory, and need not change owners.
    chown(dir.path(), Some(12_345), Some(54_321)).ok();
    let owner = std::fs::metadata(dir.path()).unwrap();
    let storage = Arc::new(DirStorage::open(dir.path()).unwrap());
    let journal = Journal::open(&Options::default(), storage, |_: Synced<u64>| ()).unwrap();
    append(&journal, entry("one", 1)).unwrap();
    journal.close();
    // What a repair sets aside, and a directory that did not exist yet.
    let storage = DirStorage::open(dir.path()).unwrap();
    storage.replace("damaged/note", b"").unwrap();
    DirStorage::open(dir.path().join("quarantine")).unwrap();
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() > 5, "{files:?}");
    for file in &files {
        let found = file.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (owner.uid(), owner.gid()), "{file:?}");
    }
}

#[test]
fn who_is_neither_the_user_nor_of_the_group_reads_no_journal() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (usual, state) = (dir.path().join("usual"), dir.path().join("state"));
    let others = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o7;
    std::fs::create_dir(&usual).unwrap();
    DirStorage::open(state.join("journal")).unwrap();
    assert_eq!((others(&state.join("journal")), others(&state)), (0, others(&usual)));
    // An existing directory keeps its permissions.
    DirStorage::open(&usual).unwrap();
    assert_eq!(others(&usual), others(&state));
}

#[test]
fn a_segment_that_could_not_be_made_does_not_come_back_and_cut_off_what_was_acknowledged() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 7);
    // The segment is full: the next append creates another one with a complete header, and cannot sync it.
    world.disk.find_no_space_at_sync();
    assert!(matches!(append(&journal, entry(numbered(7), 1)), Err(AppendError::NoSpace)));
    // A smaller record still fits the current segment.
    let end = append(&journal, entry("fits", 1)).unwrap();
    journal.close();
    world.disk.crash(Crash::BringsBack);
    let journal = world.open();
    assert_eq!(journal.end(), end);
    let (records, errors) = read_all(&journal, Position(0));
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(records.len(), 8);
    assert_eq!(records[7].payload.as_deref(), Some(&b"fits"[..]));
}

#[test]
fn a_segment_goes_on_while_clients_have_all_descriptors() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 7);
    world.disk.set_out_of_descriptors(true);
    append_numbered(&journal, 7, 20);
    assert_eq!((world.disk.segments().len(), journal.health()), (1, Health::Good));
    world.disk.set_out_of_descriptors(false);
    append_numbered(&journal, 27, 1);
    assert_eq!(world.disk.segments().len(), 2);
    journal.close();
    drop(journal);
    world.disk.crash(Crash::LosesAll);
    let journal = world.open();
    assert_eq!(numbers(&journal), (0..28).collect::<Vec<_>>());
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn there_is_room_in_an_empty_log_whatever_the_size_of_a_segment() {
    let mut world = World::new();
    for gib in [1, 2, 8] {
        world.options.segment_bytes_max = gib << 30;
        world.options.bytes_max = 16 * (gib << 30);
        let journal = world.open();
        assert!(journal.has_room(), "{gib} GiB");
        journal.close();
    }
}

#[test]
fn no_block_is_read_twice_by_one_reader_whatever_the_size_of_records() {
    for size in [100, 30_000, 100_000, 300_000, 700_000, 1_900_000] {
        let mut world = World::new();
        world.options.bytes_max = 256 << 20;
        world.options.segment_bytes_max = 8 << 20;
        let journal = world.open();
        let count = (12_000_000 / size).min(2000);
        for number in 0..count {
            append(&journal, entry(vec![u8::try_from(number % 251).unwrap(); size], 1)).unwrap();
        }
        world.disk.forget_reads();
        let (records, errors) = read_all(&journal, Position(0));
        assert_eq!((records.len(), errors.len()), (count, 0));
        assert_eq!(world.disk.reads_of_one_block(), 1, "records of {size} bytes");
    }
}

#[test]
fn a_segment_that_is_deleted_while_it_is_written_is_reported_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let storage = Arc::new(DirStorage::open(dir.path()).unwrap());
        Journal::open(&Options::default(), storage, |_: Synced<u64>| ()).unwrap()
    };
    let delete = |base: Position| {
        std::fs::remove_file(dir.path().join(segment::name_of(base))).unwrap();
    };
    let journal = open();
    // Nothing is lost with an empty one.
    delete(Position(0));
    append_numbered(&journal, 0, 3);
    assert_eq!(journal.health(), Health::Good);
    delete(Position(0));
    append_numbered(&journal, 3, 2);
    let Health::Damaged(what) = journal.health() else { panic!("{:?}", journal.health()) };
    assert!(what.contains("with 3 items"), "{what}");
    journal.close();
    let journal = open();
    assert_eq!(numbers(&journal), [3, 4]);
    assert_eq!(journal.health(), Health::Damaged(what));
    // Without the directory, nothing is acknowledged.
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert!(matches!(append(&journal, entry("x", 1)), Err(AppendError::Poisoned(_))));
}
