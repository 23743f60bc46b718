//! Every span exactly once: through crashes, full disks, abandoned deliveries, and changes of the files by other processes.
#![expect(clippy::disallowed_types, reason = "a test disk is given files")]

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use serde_json::Value as Json;
use tempfile::TempDir;

use super::log::{Disk, RealDisk, SavedFile};
use super::path::Period;
use super::store::state_of;
use super::*;
use crate::prices::Prices;
use crate::sinks::samples;
use crate::span::{Attribute, Detail, Facts, Item, Text, Value, keys};
use crate::support::byte_size::ByteSize;
use crate::support::golden;

impl Options {
    /// Returns the default options for a path.
    pub(crate) fn at(path: String) -> Self {
        Self {
            path,
            format: Format::default(),
            compression: Compression::None,
            compression_level: None,
            rotate_bytes: None,
        }
    }
}

const HOUR_NS: u64 = 3_600_000_000_000;

/// A disk with little room, whose syncs fail on demand.
struct SmallDisk {
    room: Arc<AtomicU64>,
    syncs_fail: bool,
}

impl Disk for SmallDisk {
    fn write(&self, file: &std::fs::File, bytes: &[u8], at: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        let fits = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        RealDisk::default().write(file, &bytes[..fits], at)?;
        self.room.store(room - fits as u64, Ordering::SeqCst);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, _: &std::fs::File) -> io::Result<()> {
        if self.syncs_fail { Err(io::Error::other("the disk broke")) } else { Ok(()) }
    }
}

/// A sink and its lane: the saved state, and the deliveries that a crash repeats.
struct World {
    dir: TempDir,
    options: Options,
    room: Arc<AtomicU64>,
    store: Store,
    saved: Bytes,
    /// Deliveries since the last checkpoint.
    since: Vec<Delivery>,
    next_span: u64,
    now_ns: u64,
}

impl World {
    fn new(path: &str) -> Self {
        Self::with(path, |_| ())
    }

    fn with(path: &str, change: impl FnOnce(&mut Options)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = Options::at(format!("{}/{path}", dir.path().display()));
        change(&mut options);
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let store = open(&options, &room, &[]);
        let (saved, now_ns) = (Bytes::new(), samples::START_NS);
        Self { dir, options, room, store, saved, since: Vec::new(), next_span: 0, now_ns }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        text_of(&self.path(name))
    }

    /// Creates the items of one request, each a span with a number.
    fn make(&mut self, count: u64) -> Delivery {
        let numbers = self.next_span..self.next_span + count;
        self.next_span += count;
        samples::delivery(
            self.now_ns,
            numbers.map(|number| Item::Span(samples::numbered_span(number))).collect(),
        )
    }

    fn deliver(&mut self, count: u64) {
        let delivery = self.make(count);
        self.hand_over(&delivery).unwrap();
        self.since.push(delivery);
    }

    /// Delivers like a lane.
    fn hand_over(&mut self, delivery: &Delivery) -> Result<(), Pace> {
        self.write(delivery)?;
        self.store.settle();
        Ok(())
    }

    /// Writes a delivery without settling it.
    fn write(&mut self, delivery: &Delivery) -> Result<(), Pace> {
        match self.store.write(delivery) {
            Err(Pace::Checkpoint) => {
                self.checkpoint();
                self.store.write(delivery)
            }
            written => written,
        }
    }

    fn checkpoint(&mut self) {
        self.saved = self.store.checkpoint().unwrap();
        self.since.clear();
    }

    /// Replaces the process with a new one, which delivers again what the cursor does not cover.
    fn crash(&mut self) {
        self.store = open(&self.options, &self.room, &self.saved);
        for delivery in std::mem::take(&mut self.since) {
            self.hand_over(&delivery).unwrap();
            self.since.push(delivery);
        }
    }

    /// Returns the numbers of all spans, file by file.
    fn numbers(&self) -> Vec<u64> {
        let mut files = Vec::new();
        collect(self.dir.path(), &mut files);
        files.sort_by_key(|path| (path.parent().unwrap().to_owned(), place_of(path)));
        let lines: Vec<_> = files.iter().map(|path| text_of(path)).collect();
        let names = lines.iter().flat_map(|text| text.lines()).map(|line| {
            serde_json::from_str::<Json>(line).unwrap()["name"].as_str().unwrap().parse().unwrap()
        });
        names.collect()
    }

    fn assert_exactly_once(&self) {
        assert_eq!(self.numbers(), (0..self.next_span).collect::<Vec<_>>());
    }
}

fn open(options: &Options, room: &Arc<AtomicU64>, saved: &[u8]) -> Store {
    let disk = SmallDisk { room: Arc::clone(room), syncs_fail: false };
    Store::recall(place(options, "archive".to_owned()).unwrap(), Arc::new(disk), saved)
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

/// Returns the sort key of a file: its time, then its number.
fn place_of(path: &Path) -> (String, u32) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut parts = name.split('.');
    let stem = parts.next().unwrap().to_owned();
    (stem, parts.next().unwrap().parse().unwrap_or(0))
}

fn text_of(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if bytes.is_empty() {
        return text;
    }
    match path.extension().unwrap().to_str().unwrap() {
        "gz" => {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        }
        "zst" => text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap(),
        _ => text = String::from_utf8(bytes).unwrap(),
    }
    text
}

/// Returns a world for each kind of file; all must be exact.
fn worlds() -> Vec<World> {
    let compressed =
        |compression| World::with("traces.jsonl", |options| options.compression = compression);
    vec![
        World::new("traces.jsonl"),
        compressed(Compression::Gzip),
        compressed(Compression::Zstd),
        World::with("traces.jsonl", |options| options.rotate_bytes = Some(ByteSize(1_000))),
        World::new("{date}/{hour}.jsonl"),
        World::with("{sink}/{date}-{hour}.jsonl", |options| {
            options.rotate_bytes = Some(ByteSize(300));
            options.compression = Compression::Gzip;
        }),
    ]
}

#[test]
fn a_delivery_of_several_pieces_is_there_as_a_whole_or_not_at_all() {
    let mut world = World::new("traces.jsonl");
    world.deliver(2);
    let delivery = world.make(2_000);
    let room = 2 * store::PIECE_BYTES + 100;
    world.room.store(room as u64, Ordering::SeqCst);
    assert!(matches!(world.hand_over(&delivery), Err(Pace::Down { .. })));
    assert_eq!(world.numbers(), [0, 1], "pieces that were written are cut again");
    assert_eq!(world.room.load(Ordering::SeqCst), 0, "more than one piece was written");
    world.room.store(u64::MAX, Ordering::SeqCst);
    world.hand_over(&delivery).unwrap();
    world.deliver(1);
    world.assert_exactly_once();
}

#[test]
fn what_was_delivered_after_the_last_checkpoint_is_cut_and_comes_again() {
    for mut world in worlds() {
        world.deliver(3);
        world.checkpoint();
        world.deliver(2);
        world.deliver(4);
        assert_eq!(world.numbers().len(), 9, "lines are there before the checkpoint");
        world.crash();
        world.assert_exactly_once();
        world.now_ns += HOUR_NS;
        world.deliver(5);
        world.crash();
        world.crash();
        world.deliver(1);
        world.checkpoint();
        world.crash();
        world.assert_exactly_once();
    }
}

#[test]
fn a_crash_in_the_middle_of_a_write_leaves_whole_lines_only() {
    for mut world in worlds() {
        world.deliver(3);
        world.checkpoint();
        let delivery = world.make(5);
        world.room.store(100, Ordering::SeqCst);
        // The new process finds a hundred bytes of the delivery, which its predecessor could not even cut.
        let grown = world.write(&delivery);
        world.room.store(u64::MAX, Ordering::SeqCst);
        assert!(grown.is_err());
        world.since.push(delivery);
        world.crash();
        world.assert_exactly_once();
    }
}

#[test]
fn a_new_file_is_in_a_checkpoint_before_it_is_written() {
    for mut world in worlds() {
        let first = world.make(1);
        // A checkpoint that the lane was not asked to save may not have been saved.
        world.store.checkpoint().unwrap();
        assert!(matches!(world.store.write(&first), Err(Pace::Checkpoint)));
        assert!(matches!(world.store.write(&first), Err(Pace::Checkpoint)), "still not noted");
        assert!(world.numbers().is_empty());
        world.hand_over(&first).unwrap();
        let again = world.store.write(&first);
        assert!(again.is_ok() || world.options.rotate_bytes.is_some());
        world.crash();
        world.since.push(first);
        world.crash();
        world.assert_exactly_once();
    }
}

#[test]
fn a_delivery_that_was_given_up_leaves_nothing_behind() {
    for mut world in worlds() {
        world.deliver(2);
        let delivery = world.make(3);
        // Written, but the lane did not learn of it.
        world.write(&delivery).unwrap();
        world.checkpoint();
        assert_eq!(world.numbers(), [0, 1]);
        world.write(&delivery).unwrap();
        world.hand_over(&delivery).unwrap();
        world.crash();
        assert_eq!(world.numbers()[..2], [0, 1]);
    }
}

#[test]
fn a_full_disk_is_tried_again_and_what_was_written_is_cut() {
    let mut world = World::new("traces.jsonl");
    world.deliver(2);
    let before = world.read("traces.jsonl");
    let delivery = world.make(10);
    world.room.store(700, Ordering::SeqCst);
    for _ in 0..3 {
        let Err(Pace::Down { reason, .. }) = world.hand_over(&delivery) else { panic!("it fits") };
        assert!(reason.contains("traces.jsonl"), "{reason}");
        assert_eq!(world.read("traces.jsonl"), before);
        world.room.store(700, Ordering::SeqCst);
    }
    world.room.store(u64::MAX, Ordering::SeqCst);
    world.hand_over(&delivery).unwrap();
    world.assert_exactly_once();
}

#[test]
fn a_delivery_for_several_files_is_in_all_of_them_or_in_none() {
    let mut world = World::new("{date}-{hour}.jsonl");
    world.deliver(1);
    world.checkpoint();
    let mut both = world.make(1);
    world.now_ns += HOUR_NS;
    let late = world.make(1);
    let batch = Arc::new(crate::span::Batch {
        source: late.items().next().unwrap().0.source.clone(),
        items: vec![Item::Span(samples::numbered_span(2))],
        bytes: 0,
    });
    both.add(&batch, 0..1);
    // The first file's line fits; the second file's does not.
    world.room.store(500, Ordering::SeqCst);
    assert!(matches!(world.hand_over(&both), Err(Pace::Down { .. })));
    assert_eq!(world.numbers(), [0]);
    world.room.store(u64::MAX, Ordering::SeqCst);
    world.hand_over(&both).unwrap();
    world.assert_exactly_once();
}

#[test]
fn after_a_failed_sync_nothing_more_is_written_until_a_restart() {
    let mut world = World::new("traces.jsonl");
    world.deliver(2);
    world.checkpoint();
    let disk = SmallDisk { room: Arc::clone(&world.room), syncs_fail: true };
    let place = place(&world.options, "archive".to_owned()).unwrap();
    drop(std::mem::replace(
        &mut world.store,
        open(&Options::at("/nowhere".to_owned()), &world.room, &[]),
    ));
    world.store = Store::recall(place, Arc::new(disk), &world.saved);
    world.deliver(1);
    assert!(world.store.checkpoint().is_err());
    assert!(
        world.store.checkpoint().is_err(),
        "a second sync might succeed and would prove nothing"
    );
    let delivery = world.make(1);
    assert!(matches!(world.store.write(&delivery), Err(Pace::Hold { .. })));
    world.since.push(delivery);
    drop(std::mem::replace(
        &mut world.store,
        open(&Options::at("/nowhere".to_owned()), &world.room, &[]),
    ));
    world.crash();
    world.assert_exactly_once();
}

/// A disk on which the folders above the files cannot be synced.
struct OldFolders(PathBuf, io::ErrorKind);

impl Disk for OldFolders {
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.0 { RealDisk::default().sync_folder(folder) } else { Err(self.1.into()) }
    }
}

#[test]
fn an_ancestor_folder_that_cannot_be_synced_poisons_nothing() {
    use io::ErrorKind::{InvalidInput, Other, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    for (problem, is_harmless) in [
        (PermissionDenied, true),
        (ReadOnlyFilesystem, true),
        (InvalidInput, true),
        (Unsupported, true),
        (Other, false),
    ] {
        let mut world = World::new("traces.jsonl");
        let disk = Arc::new(OldFolders(world.dir.path().to_owned(), problem));
        world.store = Store::recall(place(&world.options, "a".to_owned()).unwrap(), disk, &[]);
        let delivery = world.make(1);
        assert!(matches!(world.store.write(&delivery), Err(Pace::Checkpoint)));
        let saved = world.store.checkpoint();
        assert_eq!(saved.is_ok(), is_harmless, "{problem:?} {saved:?}");
        if is_harmless {
            world.hand_over(&delivery).unwrap();
            world.assert_exactly_once();
        }
    }
}

#[test]
fn a_file_that_lost_bytes_is_not_filled_up() {
    let mut world = World::new("traces.jsonl");
    world.deliver(3);
    world.checkpoint();
    let text = world.read("traces.jsonl");
    let kept = text.find('\n').unwrap() + 1;
    std::fs::write(world.path("traces.jsonl"), text.get(..kept).unwrap()).unwrap();
    world.crash();
    world.deliver(1);
    world.crash();
    assert_eq!(world.numbers(), [0, 3]);
}

#[test]
fn a_file_that_was_moved_away_is_begun_anew_and_one_that_grew_is_added_to() {
    let mut world = World::new("traces.jsonl");
    world.deliver(2);
    std::fs::rename(world.path("traces.jsonl"), world.path("old.jsonl")).unwrap();
    world.deliver(2);
    world.crash();
    assert_eq!(world.read("old.jsonl").lines().count(), 2);
    assert_eq!(world.read("traces.jsonl").lines().count(), 2);
    let mut text = world.read("traces.jsonl");
    world.checkpoint();
    text.push_str("{\"name\":\"9\"}\n");
    std::fs::write(world.path("traces.jsonl"), &text).unwrap();
    world.deliver(1);
    assert!(world.read("traces.jsonl").starts_with(&text));
    std::fs::write(world.path("traces.jsonl"), "").unwrap();
    world.deliver(1);
    assert_eq!(world.read("traces.jsonl").lines().count(), 1, "no hole of zeros");
}

#[test]
fn a_foreign_file_is_added_to_only_behind_a_whole_line() {
    for (name, compression, content, goes_on) in [
        ("traces.jsonl", Compression::None, "{\"name\":\"0\"}\n", true),
        ("traces.jsonl", Compression::None, "{\"name\":", false),
        ("traces.jsonl.gz", Compression::Gzip, "torn", false),
    ] {
        let mut world = World::with("traces.jsonl", |options| options.compression = compression);
        std::fs::write(world.path(name), content).unwrap();
        world.deliver(1);
        let second = world.path(&name.replace(".jsonl", ".1.jsonl"));
        assert_eq!(!second.exists(), goes_on, "{content}");
        assert!(std::fs::read(world.path(name)).unwrap().starts_with(content.as_bytes()));
    }
}

#[test]
fn a_file_that_was_cut_elsewhere_than_behind_a_line_is_left_as_it_is() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        for starts_again in [false, true] {
            let mut world =
                World::with("traces.jsonl", |options| options.compression = compression);
            world.deliver(3);
            world.checkpoint();
            let mut files = Vec::new();
            collect(world.dir.path(), &mut files);
            let cut = std::fs::read(&files[0]).unwrap();
            let cut = &cut[..cut.len() - 5];
            std::fs::write(&files[0], cut).unwrap();
            if starts_again {
                world.crash();
            }
            world.deliver(1);
            world.deliver(1);
            assert_eq!(std::fs::read(&files[0]).unwrap(), cut);
            let name = files[0].file_name().unwrap().to_str().unwrap();
            let next = name.replace(".jsonl", ".1.jsonl");
            assert_eq!(world.read(&next).lines().count(), 2, "{next}");
        }
    }
}

#[test]
fn files_are_numbered_as_they_fill_and_go_on_after_a_restart() {
    let mut world =
        World::with("traces.jsonl", |options| options.rotate_bytes = Some(ByteSize(2_000)));
    for _ in 0..30 {
        world.deliver(2);
        world.crash();
    }
    world.assert_exactly_once();
    for number in 1..5 {
        let length =
            std::fs::metadata(world.path(&format!("traces.{number}.jsonl"))).unwrap().len();
        assert!((2_000..4_000).contains(&length), "{length}");
    }
}

#[test]
fn the_state_stays_small_however_many_hours_pass() {
    let mut world = World::new("{date}/{hour}.jsonl");
    for _ in 0..50 {
        world.deliver(1);
        world.now_ns += HOUR_NS;
        world.checkpoint();
    }
    assert!(world.saved.len() < 2_000, "{}", world.saved.len());
    world.crash();
    world.assert_exactly_once();
}

#[test]
fn a_delivery_of_very_many_hours_arrives_whole() {
    let mut world = World::new("{date}/{hour}.jsonl");
    let mut many = Delivery::default();
    for _ in 0..200 {
        let one = world.make(1);
        world.now_ns += HOUR_NS;
        let (batch, _) = one.items().next().unwrap();
        let items = vec![Item::Span(samples::numbered_span(world.next_span - 1))];
        let source = batch.source.clone();
        many.add(&Arc::new(crate::span::Batch { source, items, bytes: 0 }), 0..1);
    }
    world.hand_over(&many).unwrap();
    world.since.push(many);
    world.assert_exactly_once();
    world.crash();
    world.checkpoint();
    world.crash();
    world.assert_exactly_once();
}

#[test]
fn when_the_path_changes_the_old_file_is_cut_all_the_same() {
    let mut world = World::new("old.jsonl");
    world.deliver(2);
    world.checkpoint();
    world.deliver(3);
    world.options.path = world.options.path.replace("old.jsonl", "new/traces.jsonl");
    world.crash();
    assert_eq!(world.read("old.jsonl").lines().count(), 2);
    assert_eq!(world.read("new/traces.jsonl").lines().count(), 3);
}

#[test]
fn a_second_writer_of_the_same_file_waits() {
    let mut world = World::new("traces.jsonl");
    world.deliver(1);
    let mut other = open(&world.options, &world.room, &[]);
    let delivery = world.make(1);
    let Err(Pace::Hold { reason }) = other.write(&delivery) else { panic!("two writers") };
    assert!(reason.contains("another sink or process"), "{reason}");
}

#[test]
fn what_an_operator_must_mend_stops_and_a_saved_state_of_another_version_does_not() {
    for path in ["/dev/full", "/dev/null/x.jsonl"] {
        let room = Arc::new(AtomicU64::new(u64::MAX));
        let mut store = open(&Options::at(path.to_owned()), &room, b"not a state");
        let delivery = samples::delivery(0, vec![Item::Span(samples::numbered_span(0))]);
        assert!(matches!(store.write(&delivery), Err(Pace::Hold { .. })), "{path}");
    }
}

#[tokio::test]
async fn the_sink_delivers_and_a_delivery_that_was_dropped_does_not_count() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("traces.jsonl");
    let open = |state| {
        let parts = Parts { name: "archive".to_owned(), state, ..Parts::default() };
        FileSink::new(&Options::at(path.to_str().unwrap().to_owned()), parts).unwrap()
    };
    let sink = open(Bytes::new());
    let delivery = samples::delivery(0, vec![Item::Span(samples::numbered_span(0))]);
    assert_eq!(sink.deliver(&delivery).await.pace, Pace::Checkpoint);
    sink.checkpoint().await.unwrap();
    for _ in 0..20 {
        let mut given_up = sink.deliver(&delivery);
        // One poll starts the write; then the lane's deadline passes.
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(given_up.as_mut().poll(context)))
                .await;
        if polled.is_ready() {
            return;
        }
        drop(given_up);
    }
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    let state = sink.checkpoint().await.unwrap();
    drop(sink);
    assert_eq!(text_of(&path).lines().count(), 1);
    let sink = open(state);
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    assert_eq!(text_of(&path).lines().count(), 2);
}

/// A disk on which opening a file blocks until the test allows it, like an unreachable network file system.
struct HungDisk(Mutex<std::sync::mpsc::Receiver<()>>);

impl Disk for HungDisk {
    fn open(&self, path: &Path) -> io::Result<std::fs::File> {
        self.0.lock().unwrap().recv().map_err(io::Error::other)?;
        RealDisk::default().open(path)
    }
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_stop_the_thread_that_waits_for_it() {
    let dir = TempDir::new().unwrap();
    let options = Options::at(format!("{}/traces.jsonl", dir.path().display()));
    let (go_on, disk) = std::sync::mpsc::sync_channel(1);
    let disk = Arc::new(HungDisk(Mutex::new(disk)));
    let base = PathBuf::from(&options.path);
    let state = state_of(vec![SavedFile { base, period: Period(0), number: 0, length: 0 }]);
    let store = Store::recall(place(&options, String::new()).unwrap(), disk, &state);
    std::fs::write(&options.path, "torn").unwrap();
    let sink = FileSink::over(Format::Jsonl, store);
    let delivery = samples::delivery(0, vec![Item::Span(samples::numbered_span(0))]);
    for _ in 0..2 {
        let patience = std::time::Duration::from_millis(50);
        let answer = tokio::time::timeout(patience, sink.deliver(&delivery)).await;
        assert!(answer.is_err(), "{answer:?}");
        assert!(tokio::time::timeout(patience, sink.checkpoint()).await.is_err());
    }
    go_on.send(()).unwrap();
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    assert_eq!(text_of(&dir.path().join("traces.jsonl")).lines().count(), 1);
}

fn lines(format: Format) -> String {
    let delivery = samples::delivery(samples::START_NS, samples::every_item());
    let items: Vec<_> = delivery.items().collect();
    let mut out = Vec::new();
    encode::encode((format, &Prices::default()), &delivery, &items, &mut out, |_| Ok(())).unwrap();
    String::from_utf8(out).unwrap()
}

const GOLDENS: [(&str, Format); 2] =
    [("sinks/otlp-json.jsonl", Format::OtlpJson), ("sinks/openai.jsonl", Format::OpenAi)];

#[test]
fn the_other_formats_are_those_of_the_goldens() {
    for (name, format) in GOLDENS {
        golden::check(name, &lines(format));
        for line in lines(format).lines() {
            serde_json::from_str::<&serde_json::value::RawValue>(line).unwrap();
        }
    }
}

#[test]
fn ids_of_the_agents_sdk_that_came_as_otlp_are_its_own_again() {
    let said = |key, id| Attribute {
        key: Text::from_static(key),
        value: Value::Text(Text::from_static(id)),
    };
    let attributes = vec![
        said(keys::OPENAI_AGENTS_SPAN_ID, "span_b"),
        said(keys::OPENAI_AGENTS_TRACE_ID, "trace_a"),
        said(keys::OPENAI_AGENTS_PARENT_ID, "span_a"),
    ];
    let detail = Detail { attributes, ..Detail::default() };
    let span = samples::otlp_span(1, &Arc::default(), detail, Facts::default());
    let delivery = samples::delivery(0, vec![Item::Span(span)]);
    let items: Vec<_> = delivery.items().collect();
    let mut out = Vec::new();
    encode::encode((Format::OpenAi, &Prices::default()), &delivery, &items, &mut out, |_| Ok(()))
        .unwrap();
    let item: Json = serde_json::from_slice(&out).unwrap();
    for (member, id) in [("id", "span_b"), ("trace_id", "trace_a"), ("parent_id", "span_a")] {
        assert_eq!(item[member], id);
    }
}

#[test]
fn otlp_lines_stay_short_enough_for_their_reader() {
    let wire = Bytes::from(vec![0; 100_000]);
    let spans = (0..7).map(|number| {
        let mut span = samples::numbered_span(number);
        span.wire = wire.clone();
        Item::Span(span)
    });
    let delivery = samples::delivery(0, spans.collect());
    let mut out = Vec::new();
    let items: Vec<_> = delivery.items().collect();
    encode::encode((Format::OtlpJson, &Prices::default()), &delivery, &items, &mut out, |_| Ok(()))
        .unwrap();
    let counts = String::from_utf8(out).unwrap();
    let counts: Vec<_> = counts.lines().map(|line| line.matches("\"spanId\"").count()).collect();
    assert_eq!(counts, [2, 2, 2, 1]);
}

#[derive(Debug, Clone)]
enum Step {
    Deliver(u64),
    Fail(u64),
    GiveUp,
    Checkpoint,
    Crash,
    HoursPass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u64..6).prop_map(Step::Deliver),
        1 => (0_u64..3_000).prop_map(Step::Fail),
        1 => Just(Step::GiveUp),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Crash),
        1 => (1_u64..30).prop_map(Step::HoursPass),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_every_span_is_there_once_and_in_order(steps in steps(), kind in 0_usize..6) {
        let mut world = worlds().swap_remove(kind);
        for step in steps {
            match step {
                Step::Deliver(count) => world.deliver(count),
                Step::Fail(room) => {
                    let delivery = world.make(3);
                    world.room.store(room, Ordering::SeqCst);
                    let first = world.hand_over(&delivery);
                    world.room.store(u64::MAX, Ordering::SeqCst);
                    if first.is_err() {
                        world.hand_over(&delivery).unwrap();
                    }
                    world.since.push(delivery);
                }
                Step::GiveUp => {
                    let delivery = world.make(2);
                    world.write(&delivery).unwrap();
                    world.hand_over(&delivery).unwrap();
                    world.since.push(delivery);
                }
                Step::Checkpoint => world.checkpoint(),
                Step::Crash => world.crash(),
                Step::HoursPass(hours) => world.now_ns += hours * HOUR_NS,
            }
        }
        world.assert_exactly_once();
        world.crash();
        world.assert_exactly_once();
    }
}
