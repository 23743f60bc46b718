//! Replays over a real lane: what arrives, what is settled, and what the books say, also through crashes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::tests::{World, down, name, span_item};
use super::*;
use crate::journal::{self, Entry, MemoryStorage};
use crate::normalize::{Aside, Encoding, Envelope, native_request};
use crate::sinks::{Delivery, Pace, Pending, RejectClass, Report, Sink};
use crate::span::{Receiver, Source};

/// Refuses requests with a poison item in them until it is mended.
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

fn shelf(world: &World) -> Shelf {
    Shelf::open(world.dead.clone()).unwrap()
}

fn open_letters(shelf: &Shelf) -> Vec<String> {
    let name_of = |letter: Letter| name(letter.decode().unwrap().batch.items[0].wire());
    shelf.letters().unwrap().map(|letter| name_of(letter.unwrap())).collect()
}

/// `accepted - delivered - dead_lettered - dropped`, which must be what is pending: nothing.
fn books(world: &World, shelf: &Shelf) -> (u64, u64, u64) {
    let figures = world.status.settled(shelf.books("told"));
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

async fn replay(world: &World, shelf: &Shelf) -> Result<Progress, ReplayError> {
    let (progress, seen) = watch::channel(Progress::default());
    let turn = shelf.turn().unwrap();
    let target = (&world.way, Target::Own);
    replay_letters(shelf, &turn, &of_told(), target, &progress).await?;
    Ok(seen.borrow().clone())
}

async fn poisoned(sink: Arc<Picky>) -> World {
    let world = World::new(sink);
    world.send(&["a", "poison1", "b"]).await;
    world.send(&["never", "c", "poison2", "d", "e"]).await;
    world.settled().await;
    world
}

#[tokio::test]
async fn letters_that_arrive_after_all_are_settled_once_and_the_books_follow() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    let shelf = shelf(&world);
    assert_eq!(open_letters(&shelf), ["poison1", "never", "poison2"]);
    assert_eq!(books(&world, &shelf), (5, 3, 0));

    let told = replay(&world, &shelf).await.unwrap();
    assert_eq!((told.items, told.delivered, told.rejected), (3, 0, 3));
    assert_eq!(open_letters(&shelf), ["poison1", "never", "poison2"], "no second letter each");

    sink.mend();
    let told = replay(&world, &shelf).await.unwrap();
    assert_eq!((told.items, told.delivered, told.rejected), (3, 2, 1));
    assert_eq!(told.reasons.into_iter().collect::<Vec<_>>(), [("HTTP 400".to_owned(), 1)]);
    assert_eq!(open_letters(&shelf), ["never"]);
    assert_eq!(books(&world, &shelf), (7, 1, 0));

    let arrived = sink.arrived().len();
    let told = replay(&world, &shelf).await.unwrap();
    assert_eq!((told.items, told.delivered), (1, 0));
    assert_eq!(sink.arrived().len(), arrived, "what is settled is not sent again");
    assert_eq!(world.status.replayed.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_counted() {
    let world = poisoned(Arc::default()).await;
    let shelf = shelf(&world);
    let turn = shelf.turn().unwrap();
    assert!(shelf.turn().is_none(), "one operator at a time");
    let first = shelf.letters().unwrap().next().unwrap().unwrap();
    let selection = Selection { ids: vec![first.id], ..Selection::default() };
    assert_eq!(drop_letters(&shelf, &turn, &selection).await.unwrap(), 1);
    assert_eq!(drop_letters(&shelf, &turn, &selection).await.unwrap(), 0);
    assert_eq!(open_letters(&shelf), ["never", "poison2"]);
    assert_eq!(books(&world, &shelf), (5, 2, 1));
    assert!(shelf.letter(first.id).unwrap().is_none());
}

#[tokio::test]
async fn letters_are_selected_by_everything_that_is_given() {
    let world = poisoned(Arc::default()).await;
    let shelf = shelf(&world);
    let letters: Vec<_> = shelf.letters().unwrap().map(Result::unwrap).collect();
    let count =
        |selection: Selection| letters.iter().filter(|letter| selection.takes(letter)).count();
    let first = &letters[0];
    let trace = first.traces()[0];
    let other = crate::span::TraceId::new([9; 16]);
    for (selection, expected) in [
        (Selection::default(), 3),
        (Selection { reason: Some("400".to_owned()), trace: Some(trace), ..of_told() }, 3),
        (Selection { trace: other, ..Selection::default() }, 0),
        (Selection { sink: Some("other".to_owned()), ..Selection::default() }, 0),
        (Selection { reason: Some("401".to_owned()), ..Selection::default() }, 0),
        (Selection { ids: vec![first.id], ..Selection::default() }, 1),
        (Selection { to_ns: Some(first.aside.at_ns), ..Selection::default() }, 0),
        (Selection { from_ns: Some(first.aside.at_ns), ..Selection::default() }, 3),
    ] {
        assert_eq!(count(selection.clone()), expected, "{selection:?}");
    }
    assert_eq!((first.aside.answer.as_str(), first.items), ("odd", 1));
}

/// Delivers the poison letters and dies before they are settled, as a crash does.
async fn crash_before_settling(sink: &Arc<Picky>) -> (Arc<MemoryStorage>, Arc<MemoryStorage>) {
    let world = poisoned(sink.clone()).await;
    sink.mend();
    let letters = shelf(&world).letters().unwrap().map(Result::unwrap);
    let mut delivery = Delivery::default();
    for letter in letters {
        delivery.add(&Arc::new(letter.decode().unwrap().batch), 0..1);
    }
    assert_eq!(world.way.deliver(delivery).await.unwrap().len(), 1);
    let dead_storage = Arc::clone(&world.dead_storage);
    (world.drain().await.1, dead_storage)
}

#[tokio::test]
async fn a_crash_before_settling_repeats_letters_and_loses_none() {
    let sink = Arc::new(Picky::default());
    let (storage, dead_storage) = crash_before_settling(&sink).await;
    assert_eq!(sink.arrived().iter().filter(|name| *name == "poison1").count(), 1);
    let world = World::with_dead_letters(storage, dead_storage, sink.clone());
    let shelf = shelf(&world);
    assert_eq!(open_letters(&shelf), ["poison1", "never", "poison2"]);
    assert_eq!(replay(&world, &shelf).await.unwrap().delivered, 2);
    assert_eq!(sink.arrived().iter().filter(|name| *name == "poison1").count(), 2);
    assert_eq!(books(&world, &shelf), (7, 1, 0));
}

#[tokio::test]
async fn the_books_are_the_same_after_a_restart() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    sink.mend();
    replay(&world, &shelf(&world)).await.unwrap();
    let dead_storage = Arc::clone(&world.dead_storage);
    let (_, storage) = world.drain().await;
    // Without the saved books, they follow from the settlements; with them too.
    for forget in [true, false] {
        let world = World::with_dead_letters(storage.clone(), dead_storage.clone(), sink.clone());
        if forget {
            world.dead.remove_cursor("settled").unwrap();
        }
        let shelf = shelf(&world);
        assert_eq!(books(&world, &shelf), (7, 1, 0));
        assert_eq!(open_letters(&shelf), ["never"]);
        world.drain().await;
    }
}

async fn replay_all(world: &World, stretch: Stretch) -> Progress {
    let (progress, seen) = watch::channel(Progress::default());
    let until = world.status.cursor().mark.position;
    replay_journal(world.feed.journal(), stretch, until, &world.way, &progress).await.unwrap();
    seen.borrow().clone()
}

#[tokio::test]
async fn the_journal_is_delivered_once_more_and_the_cursor_stays() {
    let sink = Arc::new(Picky::default());
    let world = poisoned(sink.clone()).await;
    let shelf = shelf(&world);
    let before = (world.status.cursor().mark, books(&world, &shelf));
    sink.arrived.lock().unwrap().clear();
    let census = count(world.feed.journal(), Stretch::default(), before.0.position).await.unwrap();
    assert_eq!((census.items(), census.receivers["openai"].records), (8, 2));
    assert!(!census.begins_late && census.pending == 0);
    let told = replay_all(&world, Stretch::default()).await;
    assert_eq!((told.items, told.delivered, told.rejected), (8, 5, 3));
    assert_eq!(sink.arrived(), ["a", "b", "c", "d", "e"], "one trace: in order");
    assert_eq!((world.status.cursor().mark, books(&world, &shelf)), before);
    assert_eq!(open_letters(&shelf).len(), 3, "what is rejected again is reported, not kept twice");
}

#[tokio::test]
async fn only_what_is_meant_is_replayed() {
    let world = poisoned(Arc::default()).await;
    let until = world.status.cursor().mark.position;
    let trace = crate::normalize::ids::trace_id("trace_1");
    for (stretch, until, expected) in [
        (Stretch { from_ns: Some(1), to_ns: Some(2), trace: Some(trace) }, until, (8, 0)),
        (Stretch { from_ns: Some(2), ..Stretch::default() }, until, (0, 0)),
        (Stretch { to_ns: Some(1), ..Stretch::default() }, until, (0, 0)),
        (
            Stretch { trace: crate::span::TraceId::new([9; 16]), ..Stretch::default() },
            until,
            (0, 0),
        ),
        (Stretch::default(), journal::Position(1), (3, 5)),
    ] {
        let census = count(world.feed.journal(), stretch, until).await.unwrap();
        assert_eq!((census.items(), census.pending), expected, "{stretch:?}");
    }
    let none = Stretch { from_ns: Some(2), ..Stretch::default() };
    assert_eq!(replay_all(&world, none).await, Progress::default());
}

/// Can be switched off, and remembers whether what it took is in a checkpoint.
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
    assert_eq!(replay_all(&world, Stretch::default()).await.delivered, 2);
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
    let broken_off = replay_all(&world, Stretch::default());
    assert!(tokio::time::timeout(Duration::from_millis(30), broken_off).await.is_err());
    sink.is_down.store(false, Ordering::SeqCst);
    world.send(&["b"]).await;
    world.settled().await;
    assert_eq!(*sink.arrived.lock().unwrap(), ["a", "b"]);
    assert_eq!(world.status.replayed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_lane_that_has_ended_takes_no_errands() {
    let world = World::new(Arc::new(Careful::default()));
    let way = world.way.clone();
    world.drain().await;
    assert_eq!(way.deliver(Delivery::default()).await, Err(LaneGone));
}

/// Keeps a request in the quarantine, as a version did that did not understand it.
async fn quarantine(world: &World, item: &str) {
    let body = native_request(item.as_bytes());
    let envelope = Envelope {
        items: 1,
        aside: Some(Aside {
            sink: String::new(),
            reason: "not an object".to_owned(),
            answer: String::new(),
            at_ns: 1,
        }),
        ..Envelope::new(
            Source { receiver: Receiver::OpenAi, ..Source::unknown() },
            Encoding::Json,
            body.len(),
        )
    };
    let entry = Entry { head: envelope.head(body.len()), body, items: 1, passenger: () };
    world.feed.quarantine().append(entry).await.unwrap();
}

#[tokio::test]
async fn what_a_later_version_understands_leaves_the_quarantine_for_every_sink() {
    let sink = Arc::new(Picky::default());
    let world = World::new(sink.clone());
    quarantine(&world, "7").await;
    quarantine(&world, &span_item("late")).await;
    let shelf = Shelf::open(world.feed.quarantine().clone()).unwrap();
    let (progress, seen) = watch::channel(Progress::default());
    for (items, delivered) in [(2, 1), (3, 1)] {
        let turn = shelf.turn().unwrap();
        let (selection, intake) = (Selection::default(), world.feed.intake());
        receive_letters(&shelf, &turn, &selection, &intake, &progress).await.unwrap();
        assert_eq!((seen.borrow().items, seen.borrow().delivered), (items, delivered));
    }
    world.settled().await;
    assert_eq!(sink.arrived(), ["late"]);
    assert_eq!((shelf.letters().unwrap().count(), shelf.books("").delivered), (1, 1));
}
