//! Damage that disks do to files, and what remains readable.

use super::faulty::Crash;
use super::record::FRAME_BYTES;
use super::segment::HEADER_BYTES;
use super::*;

const RECORD_BYTES: usize = FRAME_BYTES + 100;

/// Returns where the payload of a segment's nth record starts.
pub(super) fn payload_at(nth: usize) -> usize {
    HEADER_BYTES + nth * RECORD_BYTES + FRAME_BYTES
}

/// Creates thirty numbered records in segments of seven, and closes the log.
fn thirty() -> World {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 30);
    journal.close();
    assert_eq!(world.disk.segments().len(), 5);
    world
}

fn without(lost: &[u64]) -> Vec<u64> {
    (0..30).filter(|number| !lost.contains(number)).collect()
}

#[test]
fn a_torn_tail_is_cut_and_counted_wherever_it_is_torn() {
    for torn in 1..RECORD_BYTES {
        let world = World::new();
        let journal = world.open();
        append_numbered(&journal, 0, 3);
        let length = HEADER_BYTES + 3 * RECORD_BYTES - torn;
        let mut left = 0;
        world.disk.tamper(&world.disk.segments()[0], |bytes| {
            bytes.truncate(length);
            // Zeros at the end cannot be distinguished from reserved space.
            let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            left = written - (HEADER_BYTES + 2 * RECORD_BYTES);
        });
        // The process dies and its lock ends.
        world.disk.fail_writes();
        append(&journal, entry("x", 1)).unwrap_err();
        journal.close();
        world.disk.crash(Crash::KeepsAll);
        let journal = world.open();
        assert_eq!(numbers(&journal), [0, 1], "{torn} bytes torn");
        assert_eq!(journal.recovery().cut_bytes, left as u64);
        assert_eq!(journal.health(), Health::Good);
        append_numbered(&journal, 7, 1);
        assert_eq!(numbers(&journal), [0, 1, 7]);
        journal.close();
        let journal = world.open();
        assert_eq!(numbers(&journal), [0, 1, 7]);
        assert_eq!(journal.recovery().cut_bytes, 0);
    }
}

#[test]
fn damage_in_a_closed_segment_costs_its_record_alone_and_is_set_aside_when_it_is_met() {
    for offset in [0, 5, 9, 13, 17, 25, 29, 31, 32, 90, 131] {
        let world = thirty();
        let name = world.disk.segments()[1].clone();
        let at = payload_at(2) - FRAME_BYTES + offset;
        world.disk.tamper(&name, |bytes| bytes[at] ^= 0x40);
        let journal = world.open();
        assert_eq!(journal.health(), Health::Good, "closed segments are not read at the start");
        let (records, errors) = read_all(&journal, Position(0));
        assert_eq!(records.len(), 29);
        assert_eq!(numbers(&journal), without(&[9]));
        let lost = 9 * RECORD_BYTES as u64;
        let [Record { start, end, .. }] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!(start.position.0, lost);
        assert_eq!(*end, Mark { position: Position(lost + RECORD_BYTES as u64), items: 10 });
        assert!(matches!(journal.health(), Health::Damaged(what) if what.contains(&name)));
        assert!(world.disk.names().contains(&format!("damaged/{name}")));
        journal.close();
        let journal = world.open();
        assert_eq!(journal.recovery().damages.len(), 1, "it is remembered");
        assert!(matches!(journal.health(), Health::Damaged(_)));
    }
}

#[test]
fn settled_damage_is_not_reported_again_and_stays_aside() {
    let world = thirty();
    let name = world.disk.segments()[1].clone();
    world.disk.tamper(&name, |bytes| bytes[payload_at(0)] ^= 1);
    let journal = world.open();
    numbers(&journal);
    journal.close();
    let settled = repair(&world.disk).unwrap();
    let journal = world.open();
    assert_eq!(settled.len(), 1);
    assert_eq!((settled[0].items(), settled[0].bytes()), (1, RECORD_BYTES as u64));
    assert_eq!(journal.health(), Health::Good);
    assert_eq!(numbers(&journal), without(&[7]));
    assert_eq!(journal.health(), Health::Good);
    let end = journal.end();
    journal.save_cursor("sink", &cursor_at(end)).unwrap();
    journal.close();
    assert!(!world.disk.names().contains(&name), "retention has removed it");
    assert!(world.disk.names().contains(&format!("damaged/{name}")), "but not its copy");
    assert_eq!(world.open().health(), Health::Good);
}

#[test]
fn repair_settles_damage_while_no_daemon_runs() {
    let world = thirty();
    world.disk.tamper(&world.disk.segments()[1], |bytes| bytes[payload_at(0)] ^= 1);
    let journal = world.open();
    numbers(&journal);
    assert!(matches!(repair(&world.disk), Err(OpenError::Locked { .. })));
    journal.close();
    assert_eq!(repair(&world.disk).unwrap().len(), 1);
    assert_eq!(repair(&world.disk).unwrap(), []);
    assert_eq!(world.open().health(), Health::Good);
}

#[test]
fn damage_in_the_last_segment_is_found_at_the_start_and_the_file_is_not_written_to_again() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 5);
    journal.close();
    let name = world.disk.segments()[0].clone();
    world.disk.tamper(&name, |bytes| bytes[payload_at(1)] ^= 1);
    let journal = world.open();
    assert_eq!(journal.recovery().damages.len(), 1);
    assert!(matches!(journal.health(), Health::Damaged(_)));
    assert_eq!(numbers(&journal), [0, 2, 3, 4]);
    append_numbered(&journal, 5, 1);
    assert_eq!(numbers(&journal), [0, 2, 3, 4, 5]);
    assert_eq!(world.disk.segments().len(), 2);
    assert_eq!(
        world.disk.read(&name).unwrap(),
        world.disk.read(&format!("damaged/{name}")).unwrap()
    );
    assert_eq!(journal.end().items, 6);
}

#[test]
fn damage_to_what_was_synced_is_told_from_a_torn_tail_also_after_a_kill() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 5);
    kill(&world, journal);
    world.disk.tamper(&world.disk.segments()[0], |bytes| bytes[payload_at(3)] ^= 1);
    let journal = world.open();
    assert_eq!(numbers(&journal), [0, 1, 2, 4]);
    assert_eq!(journal.recovery().damages.len(), 1);
}

/// Ends the process without closing its log.
pub(super) fn kill(world: &World, journal: Journal<u64>) {
    world.disk.fail_writes();
    append(&journal, entry("x", 1)).unwrap_err();
    journal.close();
    drop(journal);
    world.disk.crash(Crash::KeepsAll);
}

#[test]
fn a_hole_in_a_group_that_was_never_acknowledged_is_a_torn_tail() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        world.disk.hold_syncs();
        let mut waiting = tokio::task::JoinSet::new();
        for number in 1..6 {
            let journal = journal.clone();
            waiting.spawn(async move { journal.append(entry(numbered(number), 1)).await });
            tokio::task::yield_now().await;
            if number == 1 {
                // The others collect during the sync and become one group.
                world.disk.until_a_sync_waits();
            }
        }
        world.disk.release_syncs();
        for answer in waiting.join_all().await {
            answer.unwrap();
        }
    });
    kill(&world, journal);
    world.disk.tamper(&world.disk.segments()[0], |bytes| bytes[payload_at(3)] ^= 1);
    let journal = world.open();
    assert_eq!(numbers(&journal), [0, 1, 2]);
    assert_eq!(journal.recovery().cut_bytes, 3 * RECORD_BYTES as u64);
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn a_tail_lost_after_a_close_is_damage_and_its_positions_are_not_used_again() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 5);
    journal.save_cursor("sink", &cursor_at(ends[4])).unwrap();
    journal.close();
    world.disk.tamper(&world.disk.segments()[0], |bytes| bytes.truncate(payload_at(3)));
    let journal = world.open();
    assert_eq!(journal.end(), ends[4]);
    assert!(journal.recovery().cursors_clamped.is_empty());
    assert_eq!(journal.recovery().damages[0].items(), 2);
    append_numbered(&journal, 5, 1);
    let (records, errors) = read_all(&journal, Position(0));
    assert_eq!(records.len(), 4);
    assert_eq!(errors.len(), 1);
    assert_eq!(records[3].start, ends[4]);
    journal.close();
    let journal = world.open();
    assert_eq!(numbers(&journal), [0, 1, 2, 5]);
    assert_eq!(journal.recovery().damages.len(), 1, "the same one");
}

#[test]
fn a_damaged_header_costs_no_record() {
    for (segment, byte) in [(0, 3), (1, 10), (2, 20), (4, 30), (4, 0)] {
        let world = thirty();
        let name = world.disk.segments()[segment].clone();
        world.disk.tamper(&name, |bytes| bytes[byte] ^= 1);
        let journal = world.open();
        assert_eq!(numbers(&journal), without(&[]), "segment {segment}");
        assert!(matches!(journal.health(), Health::Damaged(_)));
        append_numbered(&journal, 30, 1);
        assert_eq!(numbers(&journal).len(), 31);
        assert_eq!(journal.end().items, 31);
        assert_eq!(
            verify(&world.disk).unwrap().segments[segment].segment.bad,
            Some(BadHeader::Damaged)
        );
    }
}

#[test]
fn a_missing_or_shortened_segment_costs_what_was_in_it() {
    let world = thirty();
    world.disk.remove(&world.disk.segments()[2]).unwrap();
    let journal = world.open();
    assert_eq!(numbers(&journal), without(&(14..21).collect::<Vec<_>>()));
    assert!(matches!(journal.health(), Health::Damaged(_)));

    let world = thirty();
    world.disk.tamper(&world.disk.segments()[2], |bytes| bytes.truncate(payload_at(4) + 50));
    let journal = world.open();
    assert_eq!(journal.recovery().damages[0].items(), 3, "a length says so at once");
    assert_eq!(numbers(&journal), without(&[18, 19, 20]));
    assert_eq!(journal.recovery().damages.len(), 1);
}

#[test]
fn a_segment_full_of_noise_costs_only_itself() {
    let world = thirty();
    world.disk.tamper(&world.disk.segments()[2], |bytes| bytes.fill(0xF5));
    assert_eq!(numbers(&world.open()), without(&(14..21).collect::<Vec<_>>()));
}

#[test]
fn a_bad_sector_costs_the_records_on_it() {
    let world = World::new();
    let world = World {
        options: Options {
            segment_bytes_max: 64 << 10,
            bytes_max: 1 << 20,
            ..world.options.clone()
        },
        ..world
    };
    let journal = world.open();
    append_numbered(&journal, 0, 400);
    journal.close();
    world.disk.make_sector_bad(&world.disk.segments()[0], 20_000);
    let journal = world.open();
    let kept = numbers(&journal);
    // Sectors are read 4096 bytes at a time.
    assert!(kept.len() >= 400 - 2 * (4096 / RECORD_BYTES + 2), "{} kept", kept.len());
    assert!(kept.contains(&0) && kept.contains(&399));
    assert!(matches!(journal.health(), Health::Damaged(_)));
}

#[test]
fn a_bad_sector_under_a_header_or_a_small_file_keeps_no_log_from_opening() {
    for name in ["segment", "sink.cursor", "consumers.list", "start.mark", "closed.mark"] {
        let mut world = thirty();
        world.options.retain = Duration::from_hours(1);
        let journal = world.open();
        let end = journal.end();
        journal.save_cursor("sink", &cursor_at(end)).unwrap();
        journal.close();
        let segment = world.disk.segments()[1].clone();
        world.disk.make_sector_bad(if name == "segment" { &segment } else { name }, 0);
        let journal = world.open();
        // A cursor that cannot be read begins anew; the others show nothing that is not known otherwise.
        let expected = if name == "sink.cursor" { Mark::default() } else { end };
        assert_eq!(journal.cursor("sink"), Some(cursor_at(expected)), "{name}");
        assert_eq!(journal.end(), end, "{name}");
        journal.close();
        assert!(inspect(&world.disk).is_ok() && verify(&world.disk).is_ok(), "{name}");
    }
}

#[test]
fn a_frame_inside_a_payload_is_not_taken_for_a_record() {
    let world = World::new();
    let journal = world.open();
    append_numbered(&journal, 0, 1);
    let copy = world.disk.read(&world.disk.segments()[0]).unwrap()[HEADER_BYTES..].to_vec();
    append(&journal, entry(copy, 1)).unwrap();
    append_numbered(&journal, 2, 1);
    journal.close();
    world.disk.tamper(&world.disk.segments()[0], |bytes| bytes[HEADER_BYTES + RECORD_BYTES] ^= 1);
    assert_eq!(numbers(&world.open()), [0, 2]);
}

#[test]
fn a_segment_that_was_not_finished_being_made_is_made_again() {
    for left in [&b""[..], b"sfjrnl", &[0; 200]] {
        let world = World::new();
        let journal = world.open();
        let end = *append_numbered(&journal, 0, 3).last().unwrap();
        kill(&world, journal);
        world.disk.put(&segment::name_of(end.position), left);
        let journal = world.open();
        assert_eq!(journal.health(), Health::Good);
        append_numbered(&journal, 3, 20);
        assert_eq!(numbers(&journal), (0..23).collect::<Vec<_>>());
    }
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_kept_and_its_positions_are_not_used_again() {
    for is_closed in [true, false] {
        let world = World::new();
        let journal = world.open();
        let ends = append_numbered(&journal, 0, 9);
        if is_closed {
            journal.close();
        } else {
            kill(&world, journal);
        }
        let name = world.disk.segments()[1].clone();
        world.disk.tamper(&name, |bytes| {
            bytes.fill(7);
            bytes.truncate(HEADER_BYTES + 2 * RECORD_BYTES);
        });
        let journal = world.open();
        assert!(world.disk.names().contains(&format!("damaged/{name}")));
        assert!(matches!(journal.health(), Health::Damaged(_)));
        assert_eq!(journal.end().position, ends[8].position);
        append_numbered(&journal, 9, 1);
        journal.close();
        let journal = world.open();
        assert_eq!(numbers(&journal), [0, 1, 2, 3, 4, 5, 6, 9]);
        assert_eq!(journal.recovery().damages.len(), 1);
    }
}

#[test]
fn damage_from_the_start_of_a_segment_on_says_how_many_items_are_lost() {
    type Break = fn(&mut Vec<u8>);
    let breaks: [(&str, Break, u64); 3] = [
        ("empty", |bytes| bytes.clear(), 7),
        ("noise", |bytes| bytes.fill(0xF5), 7),
        ("begins with noise", |bytes| bytes[..payload_at(1)].fill(0xF5), 2),
    ];
    for (what, break_it, lost) in breaks {
        for (segments, parts) in [(&[2][..], 1), (&[1, 2], 2), (&[4], 1)] {
            let world = thirty();
            let names = world.disk.segments();
            for segment in segments {
                world.disk.tamper(&names[*segment], break_it);
            }
            let items = |damages: &[Damage]| damages.iter().map(Damage::items).sum::<u64>();
            // The last segment has only two records.
            let lost = if segments == [4] { 2 } else { lost * parts };
            let verification = verify(&world.disk).unwrap();
            let checks = verification.segments.into_iter();
            let found: Vec<_> = checks.flat_map(|segment| segment.damages).collect();
            assert_eq!(items(&found), lost, "{what} {segments:?}: {found:?}");
            let journal = world.open();
            let damages = journal.recovery().damages.clone();
            assert_eq!(items(&damages), lost, "{what} {segments:?}: {damages:?}");
            assert_eq!(numbers(&journal).len() as u64 + lost, 30);
            assert_eq!(journal.unreadable(), lost, "{what} {segments:?}");
        }
    }
}

#[test]
fn a_log_of_a_later_version_is_left_alone() {
    let world = thirty();
    let name = world.disk.segments()[4].clone();
    world.disk.tamper(&name, |bytes| {
        bytes[12] = 2;
        let checksum = crc32fast::hash(&bytes[12..HEADER_BYTES]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    });
    let before = world.disk.read(&name).unwrap();
    let error = world.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Version { version: 2, known: 1, .. }), "{error}");
    assert_eq!(world.disk.read(&name).unwrap(), before);
}

#[test]
fn a_missing_first_segment_is_damage_and_what_a_cursor_had_before_it_counts_as_dropped() {
    let world = thirty();
    let journal = world.open();
    journal.save_cursor("sink", &cursor_at(Mark::default())).unwrap();
    journal.close();
    world.disk.delete(&world.disk.segments()[0]);
    let journal = world.open();
    let oldest = journal.start();
    assert_eq!(oldest.items, 7);
    let cursor = journal.cursor("sink").unwrap();
    assert_eq!((cursor.mark, cursor.dropped), (oldest, oldest.items));
    let clamped = &journal.recovery().cursors_clamped[0];
    assert_eq!((clamped.from, clamped.to, clamped.let_go), (Mark::default(), oldest, false));
    let [damage] = &journal.recovery().damages[..] else { panic!("not one damage") };
    assert_eq!((damage.from, damage.to), (Mark::default(), oldest));
    assert!(matches!(journal.health(), Health::Damaged(_)));
    journal.close();
    let journal = world.open();
    assert_eq!(journal.recovery().damages.len(), 1, "the same one");
    let verification = verify(&world.disk).unwrap();
    assert_eq!(verification.segments[0].segment.bad, Some(BadHeader::Missing));
    assert!(!verification.is_whole());
}

#[test]
fn what_retention_removed_is_not_taken_for_lost_however_the_process_ended() {
    for crash in [Crash::KeepsAll, Crash::LosesAll, Crash::BringsBack] {
        let world = World::new();
        let journal = world.open();
        let ends = append_numbered(&journal, 0, 30);
        journal.save_cursor("sink", &cursor_at(ends[20])).unwrap();
        journal.save_cursor("behind", &cursor_at(ends[2])).unwrap();
        journal.retain_consumers(&["sink"]);
        let start = journal.start();
        assert_eq!(start.items, 21);
        world.disk.fail_writes();
        append(&journal, entry("x", 1)).unwrap_err();
        journal.close();
        drop(journal);
        world.disk.crash(crash);
        let journal = world.open();
        assert_eq!(journal.health(), Health::Good, "{crash:?}");
        assert_eq!(journal.start(), start);
        let clamped = &journal.recovery().cursors_clamped[..];
        assert!(matches!(clamped, [ClampedCursor { let_go: true, .. }]), "{clamped:?}");
        assert!(verify(&world.disk).unwrap().is_whole());
        // From here on, lost segments are known to be lost.
        journal.close();
        world.disk.delete(&world.disk.segments()[0]);
        assert!(matches!(world.open().health(), Health::Damaged(_)));
    }
}

#[test]
fn a_disk_that_is_full_keeps_retention_from_nothing() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    world.disk.fail_next_replace_of("start.mark");
    journal.save_cursor("sink", &cursor_at(ends[20])).unwrap();
    assert_eq!(world.disk.segments().len(), 2);
    journal.close();
    assert_eq!(world.open().health(), Health::Good, "it was noted afterwards");
}

#[test]
fn segments_whose_names_were_mixed_up_are_known_by_their_headers() {
    for order in [[1, 2, 0], [2, 1, 0], [0, 2, 1]] {
        let world = thirty();
        let names = world.disk.segments();
        let files: Vec<_> = names.iter().map(|name| world.disk.read(name).unwrap()).collect();
        for (place, from) in order.into_iter().enumerate() {
            world.disk.put(&names[place], &files[from]);
        }
        let journal = world.open();
        assert_eq!(numbers(&journal), without(&[]), "{order:?}");
        assert_eq!(journal.health(), Health::Good);
        assert_eq!(world.disk.segments(), names);
        journal.close();
        assert!(verify(&world.disk).unwrap().is_whole());
    }
}

#[test]
fn a_process_that_ends_while_it_renames_segments_goes_on_with_it_at_the_next_start() {
    let world = thirty();
    let names = world.disk.segments();
    let [first, second] = [&names[0], &names[1]].map(|name| world.disk.read(name).unwrap());
    world.disk.put(&format!("{}.moved", names[1]), &second);
    world.disk.put(&names[1], &first);
    world.disk.delete(&names[0]);
    let journal = world.open();
    assert_eq!(numbers(&journal), without(&[]));
    assert_eq!(world.disk.segments(), names);
}

#[test]
fn a_copy_of_a_segment_under_another_name_takes_nothing_from_it() {
    let world = thirty();
    let names = world.disk.segments();
    let first = world.disk.read(&names[0]).unwrap();
    world.disk.put(&names[1], &first);
    assert_eq!(numbers(&world.open()), without(&(7..14).collect::<Vec<_>>()));
    assert_eq!(world.disk.read(&names[0]).unwrap(), first);
}

fn damage(world: &World, segment: usize, at: usize) {
    world.disk.tamper(&world.disk.segments()[segment], |bytes| bytes[at] ^= 1);
}

#[test]
fn a_repaired_log_is_whole_whether_its_damage_was_met_before_or_not() {
    type Break = fn(&World);
    let breaks: [(&str, Break); 6] = [
        ("record", |world| damage(world, 1, payload_at(0))),
        ("header", |world| damage(world, 1, 3)),
        ("last header", |world| damage(world, 4, 3)),
        ("length", |world| world.disk.tamper(&world.disk.segments()[2], |it| it.truncate(500))),
        ("middle", |world| world.disk.delete(&world.disk.segments()[2])),
        ("first", |world| world.disk.delete(&world.disk.segments()[0])),
    ];
    for (what, break_it) in breaks {
        for is_met in [true, false] {
            let world = thirty();
            break_it(&world);
            if is_met {
                let journal = world.open();
                numbers(&journal);
                journal.close();
            }
            assert!(!verify(&world.disk).unwrap().is_whole(), "{what}");
            assert_eq!(repair(&world.disk).unwrap().len(), 1, "{what}, met: {is_met}");
            let verification = verify(&world.disk).unwrap();
            assert!(verification.is_whole(), "{what}, met: {is_met}: {verification:?}");
            let journal = world.open();
            numbers(&journal);
            assert_eq!(journal.health(), Health::Good, "{what}, met: {is_met}");
        }
    }
}

#[test]
fn a_last_segment_that_is_missing_after_a_kill_is_known_by_how_far_a_cursor_came() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    journal.save_cursor("sink", &cursor_at(ends[29])).unwrap();
    world.disk.fail_writes();
    append(&journal, entry("x", 1)).unwrap_err();
    journal.close();
    drop(journal);
    world.disk.crash(Crash::KeepsAll);
    assert!(verify(&world.disk).unwrap().is_whole());
    let last = world.disk.segments().pop().unwrap();
    world.disk.delete(&last);
    assert!(!verify(&world.disk).unwrap().is_whole());
    assert_eq!(repair(&world.disk).unwrap().len(), 1);
    assert!(verify(&world.disk).unwrap().is_whole());
}

#[test]
fn reading_from_inside_a_record_begins_with_that_record() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 12);
    let (records, errors) = read_all(&journal, Position(ends[9].position.0 + 5));
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].start, ends[9]);
    assert!(errors.is_empty());
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn leftovers_of_replaced_files_go() {
    let world = thirty();
    world.disk.put("sink.cursor.tmp", b"half");
    world.disk.put("notes.txt", b"the operator's own");
    world.open().close();
    assert!(!world.disk.names().contains(&"sink.cursor.tmp".to_owned()));
    assert!(world.disk.names().contains(&"notes.txt".to_owned()));
}

#[test]
fn inspect_and_verify_tell_what_is_there() {
    let world = thirty();
    world.open().save_cursor("sink", &cursor_at(Mark::default())).unwrap();
    let inspection = inspect(&world.disk).unwrap();
    assert_eq!(inspection.segments.len(), 5);
    assert_eq!(inspection.end, Mark { position: Position(30 * RECORD_BYTES as u64), items: 30 });
    assert_eq!(inspection.cursors, [("sink".to_owned(), Some(cursor_at(Mark::default())))]);
    assert!(verify(&world.disk).unwrap().is_whole());
    world.disk.tamper(&world.disk.segments()[1], |bytes| bytes[payload_at(2)] ^= 1);
    let verification = verify(&world.disk).unwrap();
    assert!(!verification.is_whole());
    assert_eq!(verification.segments.iter().map(|segment| segment.records).sum::<u64>(), 29);
    assert_eq!(verification.segments[1].damages[0].items(), 1);
}
