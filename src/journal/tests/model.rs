//! Compares the log with a model: whatever is done, and whatever the disk does, every acknowledged record is read back once, in order, byte
//! for byte.

use proptest::prelude::*;
use proptest::sample::Index;

use super::faulty::Crash;
use super::*;

const CONSUMERS: [&str; 2] = ["one", "two"];

#[derive(Debug, Clone)]
enum Operation {
    /// Appends records of these sizes and items concurrently.
    Append(Vec<(usize, u32)>),
    /// Moves a consumer to the end of one of the records that it has not passed.
    SaveCursor(usize, Index),
    /// Reads records from the start of one.
    ReadFrom(Index),
    /// Advances the clock.
    Wait(u64),
    /// Closes and opens the log.
    Reopen,
    /// Stops and restarts the process or the machine.
    Crash(Crash),
    /// Stops the machine during a write of these records.
    CrashInWrite(Vec<(usize, u32)>, u64),
    /// Limits the disk to this many more bytes while these records are appended; then it has space again.
    FullDisk(usize, Vec<(usize, u32)>),
}

fn records() -> impl Strategy<Value = Vec<(usize, u32)>> {
    proptest::collection::vec(
        (prop_oneof![8 => 0..300_usize, 1 => 300..3000_usize], 0..5_u32),
        1..12,
    )
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let crash = prop_oneof![
        Just(Crash::KeepsAll),
        Just(Crash::LosesAll),
        any::<u64>().prop_map(Crash::Tears)
    ];
    let operation = prop_oneof![
        8 => records().prop_map(Operation::Append),
        4 => (0..CONSUMERS.len(), any::<Index>()).prop_map(|(consumer, at)| Operation::SaveCursor(consumer, at)),
        2 => any::<Index>().prop_map(Operation::ReadFrom),
        1 => (0..3_u64).prop_map(Operation::Wait),
        2 => Just(Operation::Reopen),
        2 => crash.prop_map(Operation::Crash),
        2 => (records(), any::<u64>()).prop_map(|(records, seed)| Operation::CrashInWrite(records, seed)),
        1 => (0..2000_usize, records()).prop_map(|(room, records)| Operation::FullDisk(room, records)),
    ];
    proptest::collection::vec(operation, 1..40)
}

/// The expected contents.
struct Model {
    world: World,
    journal: Journal<u64>,
    /// Acknowledged records in log order, without those that retention has removed.
    kept: Vec<Record>,
    end: Mark,
    cursors: [Mark; CONSUMERS.len()],
    written: u8,
}

impl Model {
    fn new(retain: Duration) -> Self {
        let world = World::new();
        let world = World { options: Options { retain, ..world.options.clone() }, ..world };
        let journal = world.open();
        journal.retain_consumers(&CONSUMERS);
        Self {
            world,
            journal,
            kept: Vec::new(),
            end: Mark::default(),
            cursors: Default::default(),
            written: 0,
        }
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Append(records) => {
                let answers = self.append(&records);
                for (end, answer) in answers {
                    assert!(
                        end.is_some() || matches!(answer, Some(AppendError::Full { .. })),
                        "{answer:?}"
                    );
                }
            }
            Operation::SaveCursor(consumer, at) => self.save_cursor(consumer, at),
            Operation::ReadFrom(at) => {
                if !self.kept.is_empty() {
                    let first = at.index(self.kept.len());
                    let (read, errors) = read_all(&self.journal, self.kept[first].start.position);
                    assert_eq!(read, self.kept[first..]);
                    assert!(errors.is_empty(), "{errors:?}");
                }
            }
            Operation::Wait(hours) => self.world.wait(Duration::from_hours(hours)),
            Operation::Reopen => self.reopen(None),
            Operation::Crash(crash) => {
                self.die();
                self.reopen(Some(crash));
            }
            Operation::CrashInWrite(records, seed) => {
                self.world.disk.fail_syncs();
                let answers = self.append(&records);
                assert!(answers.iter().all(|(end, _)| end.is_none()));
                self.reopen(Some(Crash::Tears(seed)));
            }
            Operation::FullDisk(room, records) => {
                self.world.disk.set_room(Some(room));
                self.append(&records);
                self.world.disk.set_room(None);
            }
        }
        self.check();
    }

    /// Appends records concurrently, and remembers the acknowledged ones.
    fn append(&mut self, records: &[(usize, u32)]) -> Vec<(Option<Mark>, Option<AppendError>)> {
        let mut appended = Vec::new();
        let mut answers = Vec::new();
        for (payload, items, answer) in
            block_on(append_together(&self.journal, &mut self.written, records))
        {
            match answer {
                Ok(end) => {
                    let length = payload.len() as u64 + record::FRAME_BYTES as u64;
                    let start = Mark {
                        position: Position(end.position.0 - length),
                        items: end.items - u64::from(items),
                    };
                    appended.push(Record { start, end, payload: Some(payload) });
                    answers.push((Some(end), None));
                }
                Err(error) => answers.push((None, Some(error))),
            }
        }
        appended.sort_by_key(|stored| stored.start.position);
        for stored in appended {
            assert_eq!(stored.start, self.end, "no gap and no overlap");
            self.end = stored.end;
            self.kept.push(stored);
        }
        answers
    }

    fn save_cursor(&mut self, consumer: usize, at: Index) {
        let passed = self.cursors[consumer].position;
        let ends: Vec<_> =
            self.kept.iter().map(|stored| stored.end).filter(|end| passed < end.position).collect();
        if !ends.is_empty() {
            let mark = ends[at.index(ends.len())];
            let state = Bytes::from(mark.items.to_string());
            self.journal
                .save_cursor(CONSUMERS[consumer], &Cursor { state, ..cursor_at(mark) })
                .unwrap();
            self.cursors[consumer] = mark;
        }
    }

    /// Ends the process without closing the log.
    fn die(&mut self) {
        self.world.disk.fail_writes();
        append(&self.journal, entry("never there", 1)).unwrap_err();
    }

    fn reopen(&mut self, crash: Option<Crash>) {
        self.journal.close();
        if let Some(crash) = crash {
            self.world.disk.crash(crash);
        }
        self.journal = self.world.open();
        self.journal.retain_consumers(&CONSUMERS);
        for (consumer, mark) in CONSUMERS.iter().zip(&self.cursors) {
            let saved = self.journal.cursor(consumer).unwrap_or_default();
            assert_eq!(saved.mark, *mark, "a saved cursor is still there");
        }
        let recovery = self.journal.recovery();
        assert!(recovery.damages.is_empty() && recovery.cursors_clamped.is_empty(), "{recovery:?}");
        // Records that were written but not acknowledged may exist; from here on they are like all others.
        let (beyond, _) = read_all(&self.journal, self.end.position);
        assert!(crash.is_some() || beyond.is_empty());
        for stored in beyond {
            assert_eq!(stored.start, self.end);
            self.end = stored.end;
            self.kept.push(stored);
        }
    }

    fn check(&mut self) {
        assert_eq!(self.journal.end(), self.end);
        assert!(self.journal.bytes() <= self.journal.bytes_max());
        assert_eq!(self.journal.shared.log.state().admitted, 0);
        let start = self.journal.start();
        let needed = self.cursors.iter().min_by_key(|mark| mark.position).unwrap();
        assert!(start.position <= needed.position, "nothing goes that somebody needs");
        self.kept.retain(|stored| start.position <= stored.start.position);
        let (read, errors) = read_all(&self.journal, Position(0));
        assert_eq!(read, self.kept);
        assert!(errors.is_empty(), "{errors:?}");
    }
}

type Appended = (Bytes, u32, Result<Mark, AppendError>);

async fn append_together(
    journal: &Journal<u64>,
    written: &mut u8,
    records: &[(usize, u32)],
) -> Vec<Appended> {
    let mut running = tokio::task::JoinSet::new();
    for &(length, items) in records {
        *written = written.wrapping_add(1);
        let payload = vec![*written; length];
        let journal = journal.clone();
        running.spawn(async move {
            let answer = journal.append(entry(payload.clone(), items)).await;
            (Bytes::from(payload), items, answer)
        });
    }
    running.join_all().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_acknowledged_record_is_read_back_once_and_in_order(operations in operations(), hours in 0..3_u64) {
        let mut model = Model::new(Duration::from_hours(hours));
        for operation in operations {
            model.apply(operation);
        }
        model.journal.close();
        prop_assert!(verify(&model.world.disk).unwrap().is_whole());
    }

    #[test]
    fn whatever_is_flipped_the_rest_is_read_and_the_start_succeeds(
        records in records(),
        more in records(),
        flips in proptest::collection::vec((any::<Index>(), any::<Index>(), 1..=u8::MAX), 1..4),
    ) {
        let mut model = Model::new(Duration::from_hours(24));
        model.apply(Operation::Append(records));
        model.apply(Operation::Append(more));
        model.journal.close();
        let mut touched = Vec::new();
        for (file, at, flip) in flips {
            let names = model.world.disk.segments();
            let name = &names[file.index(names.len())];
            model.world.disk.tamper(name, |bytes| {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                let base = segment::base_of(name).unwrap();
                touched.push(base.0 + (at as u64).saturating_sub(segment::HEADER_BYTES as u64));
            });
        }
        let journal = model.world.open();
        let (read, errors) = read_all(&journal, Position(0));
        let is_hit = |stored: &Record| {
            touched.iter().any(|at| (stored.start.position.0..stored.end.position.0).contains(at))
        };
        let whole: Vec<_> = model.kept.iter().filter(|stored| !is_hit(stored)).collect();
        let read_whole: Vec<_> = read.iter().filter(|stored| !is_hit(stored)).collect();
        prop_assert_eq!(read_whole, whole);
        prop_assert!(read.iter().all(|stored| model.kept.contains(stored)), "nothing is made up");
        prop_assert!(read.len() == model.kept.len() || !errors.is_empty(), "a loss is told");
        prop_assert_eq!(journal.end(), model.end);
        append(&journal, entry("goes on", 1)).unwrap();
    }
}
