//! The consumers that a log knows, and their cursors after files were lost.

use super::damage::{kill, payload_at};
use super::record::FRAME_BYTES;
use super::*;

/// Knowledge of the sinks and their positions must not depend on a single small file.
#[test]
fn a_consumer_without_a_readable_cursor_begins_at_the_oldest_record() {
    type Break = fn(&World);
    let break_it: [(&str, Break); 3] = [
        ("damaged", |world| world.disk.tamper("bad.cursor", |bytes| bytes[20] ^= 1)),
        ("emptied", |world| world.disk.tamper("bad.cursor", Vec::clear)),
        ("deleted", |world| world.disk.delete("bad.cursor")),
    ];
    for (how, break_it) in break_it {
        let world = World::new();
        let journal = world.open();
        let ends = append_numbered(&journal, 0, 3);
        journal.save_cursor("good", &cursor_at(ends[1])).unwrap();
        journal.save_cursor("bad", &cursor_at(ends[1])).unwrap();
        journal.close();
        break_it(&world);
        let journal = world.open();
        assert_eq!(journal.recovery().cursors_lost, ["bad"], "{how}");
        assert!(!journal.recovery().consumers_unknown);
        assert_eq!(journal.cursor("bad"), Some(cursor_at(Mark::default())), "{how}");
        assert_eq!(journal.cursor("good"), Some(cursor_at(ends[1])));
        let is_aside = world.disk.names().iter().any(|name| name.starts_with("damaged/bad.cursor"));
        assert_eq!(is_aside, how != "deleted");
        // It holds back what it must get again.
        journal.retain_consumers(&["good", "bad"]);
        journal.remove_old();
        assert_eq!(journal.start(), Mark::default());
    }
}

#[test]
fn without_cursors_and_without_their_list_nobody_counts_as_new() {
    let world = World::new();
    let journal = world.open();
    assert!(!journal.recovery().consumers_unknown, "an empty log has no history");
    let ends = append_numbered(&journal, 0, 3);
    journal.save_cursor("sink", &cursor_at(ends[1])).unwrap();
    journal.close();
    world.disk.delete("sink.cursor");
    world.disk.tamper("consumers.list", |bytes| bytes[9] ^= 1);
    let journal = world.open();
    assert!(journal.recovery().consumers_unknown);
    assert_eq!(journal.cursor("sink"), None);
    journal.save_cursor("sink", &cursor_at(Mark::default())).unwrap();
    journal.close();
    assert!(!world.open().recovery().consumers_unknown, "the list was made again");
}

#[test]
fn a_list_that_could_not_be_written_is_written_with_the_next_cursor() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 3);
    world.disk.fail_next_replace_of("consumers.list");
    journal.save_cursor("sink", &cursor_at(ends[0])).unwrap_err();
    journal.save_cursor("sink", &cursor_at(ends[1])).unwrap();
    journal.close();
    world.disk.delete("sink.cursor");
    let journal = world.open();
    assert_eq!(journal.recovery().cursors_lost, ["sink"], "it is not taken for a new one");
}

#[test]
fn a_log_from_before_there_was_a_list_knows_its_consumers_by_their_cursors() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 3);
    journal.save_cursor("sink", &cursor_at(ends[1])).unwrap();
    journal.close();
    world.disk.delete("consumers.list");
    world.open().close();
    world.disk.delete("sink.cursor");
    assert_eq!(world.open().recovery().cursors_lost, ["sink"]);
}

#[test]
fn a_consumer_that_was_removed_is_new_when_it_comes_back() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 3);
    journal.save_cursor("sink", &cursor_at(ends[1])).unwrap();
    journal.remove_cursor("sink").unwrap();
    journal.close();
    let journal = world.open();
    assert!(journal.recovery().cursors_lost.is_empty());
    assert_eq!(journal.cursor("sink"), None);
}

#[test]
fn what_consumers_have_had_is_known_to_be_lost_when_all_segments_are_missing() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    journal.save_cursor("sink", &cursor_at(ends[29])).unwrap();
    kill(&world, journal);
    for name in world.disk.segments() {
        world.disk.delete(&name);
    }
    let journal = world.open();
    assert_eq!(journal.end(), ends[29], "no position is used twice");
    assert_eq!(journal.cursor("sink"), Some(cursor_at(ends[29])));
    assert!(matches!(journal.health(), Health::Damaged(_)));
    append_numbered(&journal, 30, 1);
    assert_eq!(numbers(&journal), [30]);
}

#[test]
fn a_cursor_of_a_later_version_is_set_aside_and_its_consumer_is_not_new() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 3);
    journal.save_cursor("sink", &cursor_at(ends[1])).unwrap();
    journal.close();
    world.disk.tamper("sink.cursor", |bytes| {
        bytes[12] = 99;
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    });
    let later = world.disk.read("sink.cursor").unwrap();
    let journal = world.open();
    assert_eq!(journal.recovery().cursors_lost, ["sink"]);
    assert_eq!(journal.cursor("sink"), Some(cursor_at(Mark::default())));
    let names = world.disk.names();
    let aside = names.iter().find(|name| name.starts_with("damaged/sink.cursor")).unwrap();
    assert_eq!(world.disk.read(aside).unwrap(), later);
}

#[test]
fn a_cursor_that_names_no_record_is_set_back_to_one() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 12);
    let inside = Mark { position: Position(ends[9].position.0 + 5), items: 10 };
    journal.save_cursor("inside", &cursor_at(inside)).unwrap();
    journal.save_cursor("right", &cursor_at(ends[8])).unwrap();
    journal.save_cursor("end", &cursor_at(ends[11])).unwrap();
    journal.close();
    let journal = world.open();
    let clamped: Vec<_> = journal
        .recovery()
        .cursors_clamped
        .iter()
        .map(|one| (&*one.consumer, one.from, one.to))
        .collect();
    assert_eq!(clamped, [("inside", inside, ends[9])]);
    assert_eq!(journal.cursor("right"), Some(cursor_at(ends[8])));
    assert_eq!(journal.cursor("end"), Some(cursor_at(ends[11])));
}

#[test]
fn a_cursor_in_damage_is_set_back_to_where_it_starts() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 6);
    journal.save_cursor("sink", &cursor_at(ends[3])).unwrap();
    journal.close();
    world.disk.tamper(&world.disk.segments()[0], |bytes| {
        bytes[payload_at(2) - FRAME_BYTES..payload_at(4)].fill(1);
    });
    let journal = world.open();
    assert_eq!(journal.cursor("sink").unwrap().mark, ends[1]);
}
