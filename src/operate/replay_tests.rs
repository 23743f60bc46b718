//! Replays through a real lane: what is delivered, what is settled, and the counters, also after crashes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::*;
use crate::feed::Records;
use crate::journal::{self, MemoryStorage};
use crate::normalize::{Encoding, Envelope, Outcome, SetAside};
use crate::pipeline::tests::{World, down, name, span_item};
use crate::pipeline::{DeadLetters, LaneGone, LaneStatus, Resolved};
use crate::rules::{BeforeJournal, Rules, of_text};
use crate::sinks::{Delivery, Pace, Pending, RejectClass, Report, Sink};
use crate::span::{Receiver, Source, sdk_request};

impl ItemCount {
    /// Returns the number of items to be replayed.
    pub(crate) fn items(&self) -> u64 {
        self.receivers.values().map(|receiver| receiver.items).sum()
    }
}

/// Rejects requests with a poison item until it is repaired.
#[derive(Debug, Default)]
struct Picky {
    is_mended: AtomicBool,
    arrived: Mutex<Vec<String>>,
}

impl Picky {
    fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().clone()
    }

    fn mend(&self) {
        self.is_mended.store(true, Ordering::Relaxed);
    }
}

impl Sink for Picky {
    fn concurrency_max(&self) -> usize {
        4
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        let is_mended = self.is_mended.load(Ordering::Relaxed);
        let is_poisoned = names
            .iter()
            .any(|name| name.starts_with("never") || (!is_mended && name.starts_with("poison")));
        let report = if is_poisoned {
            Report::split(RejectClass::Malformed, "HTTP 400".to_owned(), "odd".to_owned())
        } else {
            self.arrived.lock().unwrap().extend(names);
            Report::delivered()
        };
        Box::pin(async { report })
    }
}

fn store(world: &World) -> Store {
    Store::open(world.dead.clone()).unwrap()
}

fn open_entries(store: &Store) -> Vec<String> {
    let name_of = |entry: Entry| name(entry.decode().unwrap().batch.items[0].wire());
    store.entries(Selection::default()).unwrap().map(|entry| name_of(entry.unwrap())).collect()
}

/// Returns the delivered, dead-lettered and dropped items, after checking that nothing is pending.
fn counters(world: &World, store: &Store) -> (u64, u64, u64) {
    let figures = LaneStatus::settled(&world.status.cursor(), store.resolved("told"));
    let accepted = world.feed.journal().end().items - world.status.cursor().joined;
    assert_eq!(
        accepted,
        figures.delivered + figures.dead_lettered + figures.filtered + figures.dropped,
    );
    (figures.delivered, figures.dead_lettered, figures.dropped)
}

fn of_told() -> Selection {
    Selection { sink: Some("told".to_owned()), ..Selection::default() }
}

async fn replay(world: &World, store: &Store) -> Result<Progress, CommandError> {
    replay_as(world, store, Outcome::Delivered).await
}

/// `Dropped` if the lane belongs to another sink than the dead letters.
async fn replay_as(
    world: &World,
    store: &Store,
    outcome: Outcome,
) -> Result<Progress, CommandError> {
    let progress = watch::Sender::default();
    let resolver = store.resolver().unwrap();
    let (meant, target) = (("told", &Selection::default()), (&world.jobs, outcome));
    replay_entries(&resolver, meant, target, &progress).await?;
    Ok(progress.borrow().clone())
}

async fn poisoned(sink: Arc<Picky>) -> World {
    let world = World::new(sink);
    world.send(&["a", "poison1", "b"]).await;
    world.send(&["never", "c", "poison2", "d", "e"]).await;
    world.settled().await;
    world
}

#[tokio::test]
async fn entries_that_arrive_after_all_are_resolved_once_and_the_counters_follow() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    let store = store(&world);
    assert_eq!(open_entries(&store), ["poison1", "never", "poison2"]);
    assert_eq!(counters(&world, &store), (5, 3, 0));

    let told = replay(&world, &store).await.unwrap();
    assert_eq!((told.items, told.delivered, told.rejected), (3, 0, 3));
    assert_eq!(open_entries(&store), ["poison1", "never", "poison2"], "no second entry each");

    sink.mend();
    let told = replay(&world, &store).await.unwrap();
    assert_eq!((told.items, told.delivered, told.rejected), (3, 2, 1));
    assert_eq!(told.reasons.into_iter().collect::<Vec<_>>(), [("HTTP 400".to_owned(), 1)]);
    assert_eq!(open_entries(&store), ["never"]);
    assert_eq!(counters(&world, &store), (7, 1, 0));

    let arrived = sink.arrived().len();
    let told = replay(&world, &store).await.unwrap();
    assert_eq!((told.items, told.delivered), (1, 0));
    assert_eq!(sink.arrived().len(), arrived, "what is settled is not sent again");
    assert_eq!(world.status.replayed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn letters_of_which_the_sink_s_rules_leave_nothing_are_given_up() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    let dead_storage = Arc::clone(&world.dead_storage);
    let (_, storage) = world.drain().await;
    let arrived = sink.arrived();
    sink.mend();
    let rules = Rules::compile(["told"], of_text("[[rules]]\ndrop = true"));
    let world = World::made_of((storage, dead_storage), sink.clone(), Arc::new(rules), |_| ());
    let store = store(&world);
    assert_eq!(counters(&world, &store), (5, 3, 0));
    let progress = replay_as(&world, &store, Outcome::Dropped).await.unwrap();
    assert_eq!((progress.items, open_entries(&store).len()), (0, 3), "another sink's rules");
    let progress = replay(&world, &store).await.unwrap();
    assert_eq!((progress.items, progress.delivered), (0, 0));
    assert_eq!(open_entries(&store), Vec::<String>::new());
    assert_eq!((counters(&world, &store), sink.arrived()), ((5, 0, 3), arrived));
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_counted() {
    let world = poisoned(Arc::default()).await;
    let store = store(&world);
    let resolver = store.resolver().unwrap();
    assert!(store.resolver().is_none(), "one operator at a time");
    let first = store.entries(Selection::default()).unwrap().next().unwrap().unwrap();
    let selection = Selection { ids: vec![first.id], ..Selection::default() };
    assert_eq!(drop_entries(&resolver, selection.clone()).await.unwrap(), 1);
    assert_eq!(drop_entries(&resolver, selection.clone()).await.unwrap(), 0);
    assert_eq!(open_entries(&store), ["never", "poison2"]);
    assert_eq!(counters(&world, &store), (5, 2, 1));
    assert!(store.entries(selection).unwrap().next().is_none());
}

#[tokio::test]
async fn entries_are_selected_by_everything_that_is_given() {
    let world = poisoned(Arc::default()).await;
    let store = store(&world);
    let entries: Vec<_> =
        store.entries(Selection::default()).unwrap().map(Result::unwrap).collect();
    let count =
        |selection: Selection| entries.iter().filter(|entry| selection.takes(entry)).count();
    let first = &entries[0];
    let trace = first.traces()[0];
    let other = crate::span::TraceId::new([9; 16]);
    let of = |trace| Range { trace, ..Range::default() };
    let at = Some(first.aside.at_ns);
    for (selection, expected) in [
        (Selection::default(), 3),
        (Selection { reason: Some("400".to_owned()), range: of(Some(trace)), ..of_told() }, 3),
        (Selection { range: of(other), ..Selection::default() }, 0),
        (Selection { sink: Some("other".to_owned()), ..Selection::default() }, 0),
        (Selection { reason: Some("401".to_owned()), ..Selection::default() }, 0),
        (Selection { reason: Some("=HTTP 400".to_owned()), ..Selection::default() }, 3),
        (Selection { reason: Some("=400".to_owned()), ..Selection::default() }, 0),
        (Selection { ids: vec![first.id], ..Selection::default() }, 1),
        (Selection { range: Range { to_ns: at, ..Range::default() }, ..Selection::default() }, 0),
        (Selection { range: Range { from_ns: at, ..Range::default() }, ..Selection::default() }, 3),
    ] {
        assert_eq!(count(selection.clone()), expected, "{selection:?}");
    }
    assert_eq!((first.aside.answer.as_str(), first.items), ("odd", 1));
}

/// Delivers the poison entries and crashes before they are settled.
async fn crash_before_settling(sink: &Arc<Picky>) -> (Arc<MemoryStorage>, Arc<MemoryStorage>) {
    let world = poisoned(sink.clone()).await;
    sink.mend();
    let entries = store(&world).entries(Selection::default()).unwrap().map(Result::unwrap);
    let mut delivery = Delivery::default();
    for entry in entries {
        delivery.add(&Arc::new(entry.decode().unwrap().batch), 0..1);
    }
    assert_eq!(world.jobs.deliver(delivery).await.unwrap().len(), 1);
    let dead_storage = Arc::clone(&world.dead_storage);
    (world.drain().await.1, dead_storage)
}

#[tokio::test]
async fn a_crash_before_settling_repeats_entries_and_loses_none() {
    let sink = Arc::new(Picky::default());
    let (storage, dead_storage) = crash_before_settling(&sink).await;
    assert_eq!(sink.arrived().iter().filter(|name| *name == "poison1").count(), 1);
    let world = World::with_dead_letters(storage, dead_storage, sink.clone());
    let store = store(&world);
    assert_eq!(open_entries(&store), ["poison1", "never", "poison2"]);
    assert_eq!(replay(&world, &store).await.unwrap().delivered, 2);
    assert_eq!(sink.arrived().iter().filter(|name| *name == "poison1").count(), 2);
    assert_eq!(counters(&world, &store), (7, 1, 0));
}

#[tokio::test]
async fn the_counters_are_the_same_after_a_restart() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    sink.mend();
    replay(&world, &store(&world)).await.unwrap();
    let dead_storage = Arc::clone(&world.dead_storage);
    let (_, storage) = world.drain().await;
    // Without the saved counters, they are derived from the resolutions; with them, too.
    for forget in [true, false] {
        let world = World::with_dead_letters(storage.clone(), dead_storage.clone(), sink.clone());
        if forget {
            world.dead.remove_cursor("settled").unwrap();
        }
        let store = store(&world);
        assert_eq!(counters(&world, &store), (7, 1, 0));
        assert_eq!(open_entries(&store), ["never"]);
        world.drain().await;
    }
}

async fn replay_all(world: &World, range: Range) -> Progress {
    let progress = watch::Sender::default();
    let until = world.status.cursor().mark.position;
    let (journal, lane) = (world.feed.journal(), Some(&world.jobs));
    replay_journal(journal, (range, until), lane, &progress).await.unwrap();
    progress.borrow().clone()
}

/// Counts what a replay would deliver.
async fn count(world: &World, range: Range, until: journal::Position) -> ItemCount {
    let journal = world.feed.journal();
    replay_journal(journal, (range, until), None, &watch::Sender::default()).await.unwrap()
}

#[tokio::test]
async fn the_journal_is_delivered_once_more_and_the_cursor_stays() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    let store = store(&world);
    let before = (world.status.cursor().mark, counters(&world, &store));
    sink.arrived.lock().unwrap().clear();
    let census = count(&world, Range::default(), before.0.position).await;
    assert_eq!((census.items(), census.receivers["openai"].records), (8, 2));
    assert!(!census.begins_late && census.pending == 0);
    let told = replay_all(&world, Range::default()).await;
    assert_eq!((told.items, told.delivered, told.rejected), (8, 5, 3));
    assert_eq!(sink.arrived(), ["a", "b", "c", "d", "e"], "one trace: in order");
    assert_eq!((world.status.cursor().mark, counters(&world, &store)), before);
    assert_eq!(open_entries(&store).len(), 3, "what is rejected again is reported, not kept twice");
}

#[tokio::test]
async fn only_what_is_meant_is_replayed() {
    let world = poisoned(Arc::default()).await;
    let until = world.status.cursor().mark.position;
    let trace = crate::normalize::ids::trace_id("trace_1");
    for (range, until, expected) in [
        (Range { from_ns: Some(1), to_ns: Some(2), trace: Some(trace) }, until, (8, 0)),
        (Range { from_ns: Some(2), ..Range::default() }, until, (0, 0)),
        (Range { to_ns: Some(1), ..Range::default() }, until, (0, 0)),
        (Range { trace: crate::span::TraceId::new([9; 16]), ..Range::default() }, until, (0, 0)),
        (Range::default(), journal::Position(1), (3, 5)),
    ] {
        let census = count(&world, range, until).await;
        assert_eq!((census.items(), census.pending), expected, "{range:?}");
    }
    let none = Range { from_ns: Some(2), ..Range::default() };
    assert_eq!(replay_all(&world, none).await, Progress::default());
}

/// A sink that can be down, and tracks whether a checkpoint covers what it accepted.
#[derive(Debug, Default)]
struct Careful {
    is_down: AtomicBool,
    has_unsaved: AtomicBool,
    arrived: Mutex<Vec<String>>,
}

impl Sink for Careful {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let report = if self.is_down.load(Ordering::SeqCst) {
            down("down")
        } else {
            self.has_unsaved.store(true, Ordering::SeqCst);
            let names = delivery.items().map(|(_, item)| name(item.wire()));
            self.arrived.lock().unwrap().extend(names);
            Report::delivered()
        };
        Box::pin(async { report })
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        self.has_unsaved.store(false, Ordering::SeqCst);
        Box::pin(async { Ok(Bytes::new()) })
    }
}

#[tokio::test]
async fn a_replay_is_answered_after_the_checkpoint() {
    let sink = Arc::new(Careful::default());
    let world = World::new(sink.clone());
    world.send(&["a", "b"]).await;
    world.settled().await;
    assert_eq!(replay_all(&world, Range::default()).await.delivered, 2);
    assert!(!sink.has_unsaved.load(Ordering::SeqCst));
    assert_eq!(*sink.arrived.lock().unwrap(), ["a", "b", "a", "b"]);
}

#[tokio::test]
async fn what_a_broken_off_replay_had_not_delivered_is_not_delivered_any_more() {
    let sink = Arc::new(Careful::default());
    let world = World::new(sink.clone());
    world.send(&["a"]).await;
    world.settled().await;
    sink.is_down.store(true, Ordering::SeqCst);
    let broken_off = replay_all(&world, Range::default());
    assert!(tokio::time::timeout(Duration::from_millis(30), broken_off).await.is_err());
    sink.is_down.store(false, Ordering::SeqCst);
    world.send(&["b"]).await;
    world.settled().await;
    assert_eq!(*sink.arrived.lock().unwrap(), ["a", "b"]);
    assert_eq!(world.status.replayed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_lane_that_has_ended_takes_no_jobs() {
    let world = World::new(Arc::new(Careful::default()));
    let jobs = world.jobs.clone();
    world.drain().await;
    assert_eq!(jobs.deliver(Delivery::default()).await, Err(LaneGone));
}

/// Puts a request into the quarantine, as a version did that could not decode it.
async fn quarantine(world: &World, item: &str) {
    let body = sdk_request(item.as_bytes());
    let envelope = Envelope {
        items: 1,
        aside: Some(SetAside {
            reason: "not an object".to_owned(),
            at_ns: 1,
            ..SetAside::default()
        }),
        ..Envelope::new(
            Source { receiver: Receiver::OpenAi, ..Source::unknown() },
            Encoding::Json,
            body.len(),
        )
    };
    let entry = journal::Entry { head: envelope.head(body.len()), body, items: 1, attachment: () };
    world.feed.quarantine().append(entry).await.unwrap();
}

#[tokio::test]
async fn what_a_later_version_understands_leaves_the_quarantine_for_every_sink() {
    let sink = Arc::new(Picky::default());
    let world = World::new(sink.clone());
    quarantine(&world, "7").await;
    quarantine(&world, &span_item("late")).await;
    let store = Store::open(world.feed.quarantine().clone()).unwrap();
    let progress = watch::Sender::<Progress>::default();
    for (items, delivered) in [(2, 1), (3, 1)] {
        let resolver = store.resolver().unwrap();
        let (selection, intake) = (Selection::default(), world.feed.intake());
        receive_entries(&resolver, selection, (&intake, None), &progress).await.unwrap();
        assert_eq!((progress.borrow().items, progress.borrow().delivered), (items, delivered));
    }
    world.settled().await;
    assert_eq!(sink.arrived(), ["late"]);
    assert_eq!(
        (store.entries(Selection::default()).unwrap().count(), store.resolved("").delivered),
        (1, 1)
    );
}

#[tokio::test]
async fn what_comes_back_from_the_quarantine_passes_the_rules_before_the_journal() {
    const KEY: &str = "sk-proj-abcdefghij0123456789";
    let sink = Arc::new(Picky::default());
    let world = World::new(sink.clone());
    for (id, name) in [("with", KEY), ("without", "unwanted"), ("late", "n")] {
        let item = span_item(id).replace(r#""name":"n""#, &format!(r#""name":"{name}""#));
        quarantine(&world, &item).await;
    }
    let rules = of_text(
        "[[rules]]\nmatch = { name = 'unwanted' }\ndrop = true\nbefore_journal = true\n\
         [[rules]]\nredact = { patterns = ['openai_key'] }\nbefore_journal = true",
    );
    let rules = BeforeJournal::of(&rules, &Arc::default()).map(Arc::new);
    assert!(rules.is_some());
    let store = Store::open(world.feed.quarantine().clone()).unwrap();
    let (resolver, progress) = (store.resolver().unwrap(), watch::Sender::<Progress>::default());
    let intake = world.feed.intake();
    receive_entries(&resolver, Selection::default(), (&intake, rules), &progress).await.unwrap();
    world.settled().await;
    assert_eq!(sink.arrived(), ["with", "late"]);
    for record in Records::all(world.feed.journal()) {
        let payload = record.unwrap().payload.unwrap();
        let text = String::from_utf8_lossy(&payload);
        assert!(!text.contains(KEY) && !text.contains("unwanted"), "{text}");
    }
    let Resolved { delivered, dropped, .. } = store.resolved("");
    assert_eq!(
        (delivered, dropped, store.entries(Selection::default()).unwrap().count()),
        (2, 1, 0)
    );
    assert_eq!((progress.borrow().items, progress.borrow().delivered), (2, 2));
}

/// Options of a store that some dozen entries fill.
fn small() -> journal::Options {
    journal::Options {
        bytes_max: 300_000,
        segment_bytes_max: 100_000,
        when_full: journal::WhenFull::DropOldest,
        ..journal::Options::default()
    }
}

fn journal_in(storage: &Arc<MemoryStorage>) -> journal::Journal<()> {
    journal::Journal::open(&small(), storage.clone(), |_| ()).unwrap()
}

async fn keep(dead: &journal::Journal<()>, sink: &str, count: u64) {
    for _ in 0..count {
        let record = Bytes::from(vec![b'x'; 20_000]);
        let dead_letters = DeadLetters::new(dead.clone());
        dead_letters.keep_record(sink, &record, 1, "odd").await.unwrap();
    }
}

#[tokio::test]
async fn dead_letters_that_gave_way_to_newer_ones_count_as_dropped_also_after_a_restart() {
    let storage = Arc::<MemoryStorage>::default();
    let dead = journal_in(&storage);
    let store = Store::open(dead.clone()).unwrap();
    // Each sink has 20 dead letters, one of which was eventually delivered.
    let cursor = journal::Cursor {
        mark: journal::Mark { items: 50, ..journal::Mark::default() },
        dead_lettered: 20,
        ..journal::Cursor::default()
    };
    let check = |store: &Store| {
        let mut entries = std::collections::HashMap::<String, u64>::new();
        for entry in store.entries(Selection::default()).unwrap() {
            *entries.entry(entry.unwrap().aside.sink).or_default() += 1;
        }
        for sink in ["told", "other"] {
            let left = entries.get(sink).copied().unwrap_or_default();
            let settled = LaneStatus::settled(&cursor, store.resolved(sink));
            assert_eq!((settled.dead_lettered, settled.delivered), (left, 31), "{sink}");
            assert_eq!(settled.dropped, 19 - left, "{sink}");
        }
        entries
    };
    for sink in ["told", "other"] {
        keep(&dead, sink, 1).await;
        let entry = store.entries(Selection::default()).unwrap().last().unwrap().unwrap();
        let resolver = store.resolver().unwrap();
        resolver.resolve(sink, Outcome::Delivered, [(entry.id, entry.items)]).await.unwrap();
    }
    for _ in 0..19 {
        keep(&dead, "told", 1).await;
        keep(&dead, "other", 1).await;
    }
    let entries = check(&store);
    assert!(entries["told"] < 19 && entries["other"] < 19, "{entries:?} did not give way");
    // As after a crash between the counting and the removal.
    store.evict(journal::Mark::default(), dead.start());
    assert_eq!(check(&store), entries, "nothing is counted twice");
    dead.close();
    drop((store, dead));
    assert_eq!(check(&Store::open(journal_in(&storage)).unwrap()), entries);
}

#[tokio::test]
async fn a_list_says_how_many_items_gave_way_to_newer_ones() {
    let (dead, quarantine) = (journal_in(&Arc::default()), journal_in(&Arc::default()));
    let operator = |dead: &journal::Journal<()>| {
        let stores = [dead, &quarantine].map(|journal| Store::open(journal.clone()).unwrap());
        let [dead, quarantine] = stores;
        Operator::new(dead, quarantine, None)
    };
    let list = async |sink: Option<&str>| {
        let request = ListRequest { sink: sink.map(str::to_owned), ..ListRequest::default() };
        operator(&dead).carry_out(request, drop).await.unwrap()
    };
    keep(&dead, "told", 5).await;
    let first = list(None).await;
    assert_eq!((first.items, first.items_gone), (5, 0));
    let ids = vec![first.newest[0].id];
    let drop_one = DropRequest { ids, ..DropRequest::default() };
    assert_eq!(operator(&dead).carry_out(drop_one, drop).await.unwrap().items, 1);
    keep(&dead, "told", 28).await;
    let listed = list(None).await;
    assert!(listed.items < 20, "{} did not give way", listed.items);
    assert_eq!(listed.items + listed.items_gone, 32, "all that is neither dropped nor delivered");
    assert_eq!(list(Some("other")).await.items_gone, listed.items_gone);
}
