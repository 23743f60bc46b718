//! Retention: what is removed, when, and which callbacks are called.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn world(retain: Duration, when_full: WhenFull) -> World {
    let world = World::new();
    World { options: Options { retain, when_full, ..world.options.clone() }, ..world }
}

#[test]
fn what_all_consumers_have_passed_goes_and_what_one_needs_stays() {
    let world = world(Duration::ZERO, WhenFull::Refuse);
    let journal = world.open();
    journal.retain_consumers(&["one", "two"]);
    let ends = append_numbered(&journal, 0, 30);
    journal.save_cursor("one", &cursor_at(ends[29])).unwrap();
    assert_eq!(journal.start(), Mark::default(), "the other one has not even begun");
    journal.save_cursor("two", &cursor_at(ends[20])).unwrap();
    assert_eq!(world.disk.segments().len(), 2);
    assert!(journal.start().position <= ends[20].position);
    journal.close();
    let journal = world.open();
    assert_eq!(journal.start().items, 21);
    assert_eq!(numbers(&journal), (21..30).collect::<Vec<_>>());
}

#[test]
fn consumers_that_are_no_longer_configured_hold_nothing_back_and_keep_their_cursors() {
    let world = world(Duration::ZERO, WhenFull::Refuse);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    journal.save_cursor("gone", &cursor_at(ends[0])).unwrap();
    journal.save_cursor("here", &cursor_at(ends[29])).unwrap();
    assert_eq!(journal.start(), Mark::default());
    journal.close();
    let journal = world.open();
    journal.retain_consumers(&["here"]);
    assert_eq!(journal.start().items, 28);
    let gone = &journal.consumers()[0];
    assert_eq!((gone.name.as_str(), gone.is_live), ("gone", false));
    assert_eq!(gone.cursor, Some(cursor_at(ends[0])));
    journal.remove_cursor("gone").unwrap();
    journal.remove_cursor("never there").unwrap();
    assert_eq!(journal.consumers().len(), 1);
    assert!(!world.disk.names().contains(&"gone.cursor".to_owned()));
}

#[test]
fn what_is_passed_is_kept_for_replay_until_it_is_old() {
    let world = world(24 * HOUR, WhenFull::Refuse);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    journal.save_cursor("sink", &cursor_at(ends[29])).unwrap();
    assert_eq!(numbers(&journal).len(), 30);
    world.wait(23 * HOUR);
    journal.remove_old();
    assert_eq!(numbers(&journal).len(), 30);
    world.wait(HOUR);
    journal.remove_old();
    assert_eq!(journal.start().items, 28, "all but the segment that is written to");
}

#[test]
fn a_quiet_log_closes_its_segment_by_age_so_that_old_records_can_leave() {
    let world = world(24 * HOUR, WhenFull::Refuse);
    let journal = world.open();
    append_numbered(&journal, 0, 1);
    world.wait(4 * HOUR);
    let end = append_numbered(&journal, 1, 1)[0];
    assert_eq!(world.disk.segments().len(), 2);
    journal.save_cursor("sink", &cursor_at(end)).unwrap();
    world.wait(23 * HOUR);
    journal.remove_old();
    assert_eq!(numbers(&journal), [0, 1]);
    world.wait(HOUR);
    journal.remove_old();
    assert_eq!(numbers(&journal), [1]);
}

#[test]
fn what_is_only_kept_for_replay_gives_way_first() {
    let world = world(24 * HOUR, WhenFull::Refuse);
    let journal = world.open();
    journal.retain_consumers(&["sink"]);
    for number in 0..2000 {
        let end = append_numbered(&journal, number, 1)[0];
        journal.save_cursor("sink", &cursor_at(end)).unwrap();
        assert!(journal.bytes() <= journal.bytes_max());
    }
    let kept = numbers(&journal);
    assert!(kept.len() > 400, "the budget is used: {}", kept.len());
    assert_eq!(*kept.last().unwrap(), 1999);
}

#[test]
fn a_log_that_drops_its_oldest_takes_more_also_while_somebody_needs_them() {
    let world = world(Duration::MAX, WhenFull::DropOldest);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 100);
    journal.save_cursor("sink", &cursor_at(ends[49])).unwrap();
    append_numbered(&journal, 100, 1900);
    let kept = numbers(&journal).len() as u64;
    assert!(kept > 400);
    assert!(journal.bytes() <= journal.bytes_max());
    assert_eq!(journal.start().items, 2000 - kept);
}

#[test]
fn what_gives_way_can_be_read_and_accounted_for_by_who_is_told_before_it_goes() {
    let world = world(Duration::MAX, WhenFull::DropOldest);
    let journal = world.open();
    let told = Arc::<Mutex<Vec<u64>>>::default();
    let (its, seen) = (journal.clone(), Arc::clone(&told));
    journal.on_eviction(move |from, until| {
        let (records, errors) = read_all(&its, from.position);
        assert!(errors.is_empty(), "{errors:?}");
        let goes = records.iter().take_while(|record| record.start.position < until.position);
        let number = |record: &Record| {
            std::str::from_utf8(record.payload.as_ref().unwrap()).unwrap().parse::<u64>().unwrap()
        };
        seen.lock().unwrap().extend(goes.map(number));
        its.save_cursor("counters", &cursor_at(until)).unwrap();
    });
    append_numbered(&journal, 0, 2_000);
    let left = numbers(&journal);
    let all: Vec<u64> = told.lock().unwrap().iter().copied().chain(left.iter().copied()).collect();
    assert_eq!(all, (0..2_000).collect::<Vec<_>>(), "each once, before it went");
    assert!(left.len() < 1_000, "{}", left.len());
    assert_eq!(journal.cursor("counters").unwrap().mark, journal.start());
    journal.close();
}

#[test]
fn a_reader_that_retention_overtakes_is_told_and_goes_on_with_the_oldest() {
    let world = world(Duration::ZERO, WhenFull::Refuse);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    let mut reader = journal.read_from(Position(0));
    assert_eq!(reader.next().unwrap().unwrap().payload.unwrap(), numbered(0));
    journal.save_cursor("sink", &cursor_at(ends[29])).unwrap();
    // Its open file is still readable.
    for number in 1..7 {
        assert_eq!(reader.next().unwrap().unwrap().payload.unwrap(), numbered(number));
    }
    let removed = reader.next().unwrap().unwrap();
    assert_eq!(
        removed,
        Record { start: ends[6], end: journal.start(), payload: None },
        "it is told what was removed"
    );
    assert_eq!(reader.next().unwrap().unwrap().payload.unwrap(), numbered(28));
    assert_eq!(journal.health(), Health::Good);
    assert_eq!(
        journal.read_from(Position(3)).position(),
        journal.start().position,
        "who comes late begins there"
    );
}

#[test]
fn the_end_of_a_segment_is_what_a_consumer_must_pass_to_free_it() {
    let world = world(Duration::ZERO, WhenFull::Refuse);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 10);
    assert_eq!(journal.segment_end(ends[2].position), Some(ends[6]));
    assert_eq!(journal.segment_end(ends[8].position), None);
    let before = journal.bytes();
    journal.save_cursor("sink", &cursor_at(ends[6])).unwrap();
    assert!(journal.bytes() < before);
}

#[test]
fn reading_can_begin_with_the_first_record_behind_any_place() {
    let world = world(Duration::ZERO, WhenFull::Refuse);
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 30);
    for (from, expected) in [(0, 0), (1, 1), (ends[5].position.0, 6), (ends[6].position.0 - 1, 7)] {
        let mut reader = journal.read_after(Position(from)).unwrap();
        assert_eq!(
            reader.next().unwrap().unwrap().payload.unwrap(),
            numbered(expected),
            "from {from}"
        );
    }
    let mut reader = journal.read_after(ends[29].position).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(journal.health(), Health::Good);
}

#[test]
fn memory_is_given_back_as_consumers_pass() {
    let storage = MemoryStorage::default();
    let options = Options { bytes_max: 1 << 20, retain: Duration::ZERO, ..Options::default() };
    let journal = Journal::open(&options, Arc::new(storage.clone()), |_: Synced<u64>| ()).unwrap();
    for _ in 0..200 {
        let end = append(&journal, entry(vec![1; 50_000], 1)).unwrap();
        journal.save_cursor("sink", &cursor_at(end)).unwrap();
    }
    let names = storage.list().unwrap();
    let held: usize = names.iter().map(|name| storage.read(name).unwrap().len()).sum();
    assert!(held <= 300_000, "{held}");
    let journal_that_waits = append(&journal, entry(vec![1; 50_000], 1)).unwrap();
    assert_eq!(journal.end(), journal_that_waits);
}

#[test]
fn a_cursor_needs_a_name() {
    let journal = World::new().open();
    journal.save_cursor("", &Cursor::default()).unwrap_err();
    journal.save_cursor(&"x".repeat(300), &Cursor::default()).unwrap_err();
    journal.save_cursor("../../etc/passwd", &Cursor::default()).unwrap();
    assert_eq!(journal.consumers()[0].name, "../../etc/passwd");
}

#[test]
fn only_the_oldest_consumer_can_make_room() {
    let world = World::new();
    let journal = world.open();
    let ends = append_numbered(&journal, 0, 4);
    journal.save_cursor("ahead", &cursor_at(ends[3])).unwrap();
    assert!(journal.is_oldest("ahead", ends[3].position), "nobody else needs anything");
    journal.save_cursor("behind", &cursor_at(ends[1])).unwrap();
    assert!(!journal.is_oldest("ahead", ends[3].position));
    assert!(journal.is_oldest("behind", ends[1].position));
    assert!(journal.is_oldest("ahead", ends[1].position), "both need the same");
    let held_by = |end: Mark| journal.held_by(end.position);
    assert_eq!(held_by(ends[2]).as_deref(), Some("behind"));
    assert_eq!(held_by(ends[1]), None, "nobody needs what is before it");
    journal.set_dropping("behind", true);
    assert_eq!(held_by(ends[2]), None, "it gives them up for room");
    journal.set_dropping("behind", false);
    assert_eq!(held_by(ends[2]).as_deref(), Some("behind"));
    journal.retain_consumers(&["ahead"]);
    assert_eq!(held_by(ends[2]), None);
    assert!(journal.is_oldest("ahead", ends[3].position), "who is gone holds nothing");
}
