//! A lane's behavior on failures other than its sink's answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::attempt::Attempts;
use super::policy_tests::until;
use super::tests::{Told, World, down, name, reject, span_item};
use super::tracker::Entry;
use super::*;
use crate::journal::tests::faulty::FaultyStorage;
use crate::journal::{Cursor, Journal, Mark, MemoryStorage, Options, Position, WhenFull};
use crate::rules::{Rules, of_text};
use crate::sinks::{Delivery, Pace, Pending, Report, Sink, Verdict, Verdicts};
use crate::span::Item;

/// A sink that treats items by the beginning of their names, and remembers what arrived and how often each was tried.
#[derive(Debug, Default)]
struct Named {
    arrived: Mutex<Vec<String>>,
    deliveries: Mutex<Vec<Vec<String>>>,
    tries: Mutex<HashMap<String, u32>>,
    may_go_on: AtomicBool,
}

impl Named {
    fn arrived(&self) -> Vec<String> {
        let mut arrived = self.arrived.lock().unwrap().clone();
        arrived.sort_unstable();
        arrived
    }

    async fn answer(&self, names: Vec<String>) -> Report {
        self.deliveries.lock().unwrap().push(names.clone());
        let mut is_first = false;
        for name in &names {
            let mut tries = self.tries.lock().unwrap();
            let tries = tries.entry(name.clone()).or_default();
            *tries += 1;
            is_first |= *tries == 1;
        }
        let has = |what: &str| names.iter().any(|name| name.starts_with(what));
        assert!(!has("panic"), "a secret");
        if has("breaks") {
            return Report::fault("500".to_owned(), String::new());
        }
        while has("hangs") && !self.may_go_on.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let waits = has("waits") && !self.may_go_on.load(Ordering::Relaxed);
        if has("fails once") && is_first {
            return down("away");
        }
        if has("slow") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let rejected = Report::reject("odd", "").verdicts.of(0).clone();
        let verdicts = names.into_iter().map(|name| {
            if name.starts_with("odd") {
                return rejected.clone();
            }
            if waits && name.starts_with("waits") {
                return Verdict::Retry;
            }
            self.arrived.lock().unwrap().push(name);
            Verdict::Delivered
        });
        let verdicts = Verdicts::Each(verdicts.collect());
        let slow = Report::slow(None, "429");
        Report { verdicts, ..if waits { slow } else { Report::delivered() } }
    }
}

impl Sink for Named {
    fn concurrency_max(&self) -> usize {
        4
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names = delivery.items().map(|(_, item)| name(item.wire())).collect();
        Box::pin(self.answer(names))
    }
}

/// Creates an item of this trace.
pub(super) fn of_trace(trace: u32, id: &str) -> String {
    span_item(id).replace("trace_1", &format!("trace_{trace}"))
}

#[test]
fn a_lane_that_is_ahead_of_the_journals_end_has_nothing_that_was_not_accepted() {
    let mark = |items| Mark { position: Position(10 * items), items };
    for (end, expected) in [(7, (7, 2, 20)), (5, (5, 0, 0)), (3, (5, 0, 0))] {
        let cursor = Cursor { mark: mark(5), filtered: 1, ..Cursor::default() };
        let (accepted, pending, bytes) = LaneStatus::unsettled(&cursor, mark(end));
        assert_eq!((accepted, pending, bytes), expected, "{end}");
        let settled = LaneStatus::settled(&cursor, Resolved::default());
        assert_eq!(accepted, pending + settled.delivered + settled.filtered, "{end}");
    }
}

#[tokio::test]
async fn one_item_that_the_backend_always_breaks_on_stops_nobody_and_then_becomes_a_dead_letter() {
    let sink = Arc::new(Named::default());
    let world = World::new(sink.clone());
    world.send(&["breaks"]).await;
    until(|| world.status.is_breaker_open.load(Ordering::Relaxed)).await;
    assert_eq!(world.status.cursor().dead_lettered, 0, "nothing else has arrived");
    let good: Vec<_> = (0..10).map(|number| format!("good {number}")).collect();
    for id in &good {
        world.send(&[id]).await;
    }
    tokio::time::timeout(Duration::from_secs(20), world.settled()).await.unwrap();
    assert_eq!(sink.arrived(), good);
    assert_eq!(world.status.cursor().dead_lettered, 1);
    assert_eq!(world.status.state().0, LaneState::Running, "it takes all others");
}

#[tokio::test]
async fn what_was_delivered_or_kept_before_the_journal_was_full_is_not_counted_as_lost() {
    let sink = Arc::new(Named::default());
    let world = World::small(sink.clone(), WhenFull::DropOldest);
    let items: Vec<_> =
        ["waits", "good", "odd"].map(|id| of_trace(1, &id.repeat(1000))).into_iter().collect();
    world.send_items(&items, 1).await;
    // What waits is tried again once the others have their outcomes.
    until(|| world.dead.end().items == 1 && sink.deliveries.lock().unwrap().len() > 1).await;
    let long = "waits".repeat(1_200);
    for number in 0..100 {
        world.send(&[&format!("{long}{number}")]).await;
    }
    let cursor = world.status.cursor();
    assert!(cursor.mark.items > 3, "{cursor:?}");
    assert_eq!((cursor.dead_lettered, world.dead.end().items), (1, 1));
    assert_eq!(cursor.dropped, cursor.mark.items - 2, "{cursor:?}");
}

#[tokio::test]
async fn what_has_an_outcome_is_not_read_again_when_something_older_is_dropped() {
    let sink = Arc::new(Named::default());
    let world = World::small(sink.clone(), WhenFull::DropOldest);
    let mut sent = 0;
    // Successes raise the concurrency, so that others pass what hangs.
    while world.status.concurrency.load(Ordering::Relaxed) < 4 {
        world.send_items(&[of_trace(0, &format!("warm {sent}"))], 1).await;
        world.settled().await;
        sent += 1;
    }
    world.send_items(&[of_trace(0, "hangs")], 1).await;
    let long = "x".repeat(6_000);
    let (mut pairs, dropped) = (0, || world.status.cursor().dropped);
    while dropped() == 0 {
        pairs += 1;
        for name in ["good", "odd"] {
            world.send_items(&[of_trace(pairs, &format!("{name} {pairs} {long}"))], 1).await;
        }
    }
    sink.may_go_on.store(true, Ordering::Relaxed);
    world.settled().await;
    let mut arrived = sink.arrived();
    arrived.retain(|name| name.starts_with("good"));
    let (count, dead) = (arrived.len(), world.dead.end().items);
    arrived.dedup();
    assert_eq!(count, arrived.len(), "delivered twice");
    assert!(dead <= u64::from(pairs), "{dead} dead letters of {pairs} items");
    let cursor = world.status.cursor();
    let accepted = sent + 1 + 2 * u64::from(pairs);
    assert_eq!(cursor.mark.items, accepted);
    assert_eq!(world.status.delivered() + cursor.dead_lettered + cursor.dropped, accepted);
    assert_eq!(world.status.miscounted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_item_that_the_backend_breaks_on_is_found_among_many_without_long_waits() {
    let sink = Arc::new(Named::default());
    let world = World::with(Arc::default(), Arc::default(), sink.clone(), |options| {
        options.batch.items_max = 1024;
    });
    let mut ids: Vec<_> = (1..1024).map(|number| format!("good {number}")).collect();
    ids.insert(0, "breaks".to_owned());
    world.send(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.settled().await;
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (1023, 1));
    // Once complete, then in nine parts, then alone.
    assert_eq!(sink.tries.lock().unwrap()["breaks"], 3 + 9 + 3);
}

#[tokio::test]
async fn what_waits_for_the_backend_begins_at_once_when_it_works_again() {
    let sink = Arc::new(Named::default());
    let world = World::with(Arc::default(), Arc::default(), sink.clone(), |options| {
        options.retry.first = Duration::from_hours(1);
        options.retry.longest = Duration::from_hours(1);
        options.batch.items_max = 1;
    });
    // Successes raise the concurrency.
    let warm: Vec<_> = (0..16).map(|trace| of_trace(trace, &format!("a{trace}"))).collect();
    world.send_items(&warm, 1).await;
    world.settled().await;
    let mut items = vec![of_trace(99, "fails once")];
    items.extend((0..16).map(|trace| of_trace(trace, &format!("slow {trace}"))));
    world.send_items(&items, 1).await;
    tokio::time::timeout(Duration::from_secs(20), world.settled()).await.unwrap();
    assert_eq!(world.status.retries.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn at_low_load_the_items_of_many_traces_go_out_together() {
    let sink = Arc::new(Named::default());
    let world = World::new(sink.clone());
    let items: Vec<_> = (0..4).map(|trace| of_trace(trace, &format!("s{trace}"))).collect();
    world.send_items(&items, 1).await;
    world.settled().await;
    assert_eq!(sink.deliveries.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_sink_that_panics_costs_the_item_that_it_panics_on_and_is_seen() {
    let sink = Arc::new(Named::default());
    let world = World::new(sink.clone());
    world.send(&["a", "panic", "b"]).await;
    world.send(&["c"]).await;
    tokio::time::timeout(Duration::from_secs(20), world.settled()).await.unwrap();
    assert_eq!(sink.arrived(), ["a", "b", "c"]);
    assert_eq!(world.status.cursor().dead_lettered, 1);
    let (state, problem) = world.status.state();
    let problem = problem.unwrap();
    assert_eq!(state, LaneState::Running);
    assert!(problem.contains("panicked") && !problem.contains("secret"), "{problem}");
}

#[tokio::test]
async fn a_lane_that_panics_on_a_record_sets_it_aside_and_goes_on() {
    let mut rules = Rules::compile(["told"], of_text("[[rules]]\nkeep = true"));
    rules.before = Some(|batch| {
        let is_worse = |item: &Item| name(item.wire()).starts_with("worse");
        assert!(!batch.items.iter().any(is_worse), "a secret");
    });
    let sink = Arc::new(Named::default());
    let world = World::ruled(Arc::default(), sink.clone(), Arc::new(rules));
    for id in ["a", "worse", "b"] {
        world.send(&[id]).await;
    }
    tokio::time::timeout(Duration::from_secs(20), world.settled()).await.unwrap();
    assert!(sink.arrived().ends_with(&["a".to_owned(), "b".to_owned()]), "{:?}", sink.arrived());
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (2, 1));
    assert_eq!(world.dead.end().items, 1);
    assert!(world.status.panics.load(Ordering::Relaxed) > 0);
    assert_eq!(world.drain().await.0, LaneState::Drained);
}

#[tokio::test]
async fn while_dead_letters_cannot_be_kept_their_items_wait_and_others_arrive() {
    let rejecting = [reject(0, 1, "odd")];
    let sink = Told::answering(rejecting.clone());
    let world = World::new(sink.clone());
    world.dead.close();
    world.send(&["odd"]).await;
    until(|| world.status.state().0 == LaneState::Holding).await;
    let problem = world.status.state().1.unwrap();
    assert!(problem.contains("dead letters cannot be kept"), "{problem}");
    assert_eq!(world.status.cursor().dead_lettered, 0);
    world.deadline.stop();
    let (_, storage) = world.drain().await;
    let world = World::over(storage, Told::answering(rejecting));
    world.settled().await;
    assert_eq!((world.status.cursor().dead_lettered, world.dead.end().items), (1, 1));
}

#[tokio::test]
async fn a_cursor_that_cannot_be_saved_is_said_and_spans_arrive_meanwhile() {
    let world = World::new(Told::answering([]));
    let sink = Told::answering([]);
    // No file can have this name.
    let lane = world.lane_of("", sink.clone(), &world.dead);
    let status = Arc::clone(&lane.handle().status);
    tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    world.send(&["a"]).await;
    until(|| status.state().0 == LaneState::Retrying).await;
    let problem = status.state().1.unwrap();
    assert!(problem.starts_with("the cursor could not be saved: "), "{problem}");
    world.send(&["b"]).await;
    until(|| sink.arrived() == ["a", "b"]).await;
}

#[tokio::test]
async fn a_disk_that_is_full_when_a_dead_letter_is_due_holds_the_lane_until_there_is_room() {
    let disk = FaultyStorage::default();
    let dead = Journal::open(&Options::default(), Arc::new(disk.clone()), |_| ()).unwrap();
    let world = World::new(Told::answering([]));
    let lane = world.another_lane(Told::answering([reject(0, 2, "odd")]), &dead);
    let status = Arc::clone(&lane.handle().status);
    disk.set_room(Some(0));
    tokio::spawn(lane.run(world.stop.clone(), world.deadline.clone()));
    world.send(&["odd", "a"]).await;
    until(|| status.state().0 == LaneState::Holding).await;
    assert_eq!((status.cursor().mark.items, dead.end().items), (0, 0));
    disk.set_room(None);
    until(|| status.cursor().mark == world.feed.journal().end()).await;
    assert_eq!((status.cursor().dead_lettered, dead.end().items), (1, 1));
    world.send(&["b"]).await;
    until(|| status.delivered() == 2 && status.state().0 == LaneState::Running).await;
}

#[tokio::test]
async fn what_is_rejected_again_after_a_crash_has_one_dead_letter() {
    let world = World::new(Arc::new(Named::default()));
    world.send_items(&[of_trace(1, "waits")], 1).await;
    let odd: Vec<_> = (2..12).map(|trace| of_trace(trace, &format!("odd {trace}"))).collect();
    world.send_items(&odd, 2).await;
    until(|| world.dead.end().items > 0).await;
    let before = world.dead.end().items;
    world.deadline.stop();
    let dead_storage = Arc::clone(&world.dead_storage);
    let (_, storage) = world.drain().await;
    let sink = Arc::new(Named::default());
    sink.may_go_on.store(true, Ordering::Relaxed);
    let world = World::with_dead_letters(storage, dead_storage, sink);
    tokio::time::timeout(Duration::from_secs(20), world.settled()).await.unwrap();
    let cursor = world.status.cursor();
    assert_eq!((cursor.dead_lettered, world.dead.end().items), (10, 10), "{before} had one before");
    assert_eq!(world.status.delivered(), 1);
}

#[tokio::test]
async fn what_is_rejected_again_under_other_rules_has_one_dead_letter_and_equal_items_have_one_each()
 {
    let named = |name: &str| of_trace(2, "odd").replace("\"n\"", &format!("\"{name}\""));
    let all_alike = ["a", "b", "c"].map(named);
    let dead = Arc::<MemoryStorage>::default();
    let storage = {
        let world =
            World::with_dead_letters(Arc::default(), dead.clone(), Arc::new(Named::default()));
        world.send_items(&[of_trace(1, "waits")], 1).await;
        world.send_items(&all_alike[..1], 2).await;
        until(|| world.dead.end().items == 1).await;
        world.deadline.stop();
        world.drain().await.1
    };
    // The client of this request wrote the same span three times, and the crash cut off two of its letters.
    let world = World::over(Arc::default(), Told::answering(vec![down("away"); 10_000]));
    world.send_items(&[of_trace(1, "waits")], 1).await;
    world.send_items(&all_alike, 2).await;
    world.deadline.stop();
    let repeated = world.drain().await.1;
    let set = "[[rules]]\nset = { session = \"another\" }\n";
    let rules = Arc::new(Rules::compile(["told"], of_text(set)));
    for (storage, letters) in [(storage, 1), (repeated, 3)] {
        let sink = Arc::new(Named::default());
        sink.may_go_on.store(true, Ordering::Relaxed);
        let world = World::made_of((storage, Arc::clone(&dead)), sink, Arc::clone(&rules), |_| ());
        world.settled().await;
        assert_eq!(
            (world.status.cursor().dead_lettered, world.dead.end().items),
            (letters, letters)
        );
        world.drain().await;
    }
}

#[tokio::test]
async fn an_item_that_this_version_takes_no_longer_becomes_a_dead_letter() {
    let world = World::new(Told::answering(vec![down("away"); 10_000]));
    let items = [of_trace(1, "a"), of_trace(1, "b")];
    world.send_as(&items[..1], &items, 1).await;
    world.deadline.stop();
    let (_, storage) = world.drain().await;
    let world = World::over(storage, Told::answering([]));
    world.settled().await;
    let cursor = world.status.cursor();
    assert_eq!((world.status.delivered(), cursor.dead_lettered, cursor.dropped), (1, 1, 0));
    assert_eq!(world.dead.end().items, 1);
}

#[tokio::test]
async fn a_record_that_waits_for_room_among_dead_letters_is_kept_by_whatever_else_wakes_the_lane() {
    let world = World::new(Told::answering([]));
    let mut lane = world.another_lane(Told::answering([]), &world.dead);
    world.send(&["a"]).await;
    let (fed, known) = lane.way.next(false).await.unwrap();
    lane.read(fed, known).await;
    let now = tokio::time::Instant::now();
    lane.pending_at = now + Duration::from_hours(1);
    lane.take_in(now).await;
    assert!(lane.pending.is_some(), "it is tried again when its time comes");
    lane.take_in(lane.pending_at).await;
    assert!(lane.pending.is_none());
}

#[tokio::test]
async fn a_wait_that_ends_between_two_looks_at_the_clock_is_not_missed() {
    let sink = Told::answering(vec![down("away"); 1000]);
    let world = World::with(Arc::default(), Arc::default(), sink, |options| {
        (options.retry.first, options.retry.longest) = (TINY, TINY);
    });
    world.send(&["a"]).await;
    tokio::time::timeout(Duration::from_mins(1), world.settled()).await.unwrap();
}

/// A wait of about one turn of the lane.
const TINY: Duration = Duration::from_micros(20);

#[test]
fn a_count_that_differs_from_what_was_accepted_is_noticed() {
    let status = Arc::new(LaneStatus::new("told".to_owned(), "told", Cursor::default()));
    let mark = |items| Some(Mark { position: Position(items), items });
    let delivered = |delivered| OutcomeCounts { delivered, ..OutcomeCounts::default() };
    status.commit(&Entry { end: mark(3), settled: delivered(3), ..Entry::default() });
    assert_eq!(status.notice(None), None);
    status.commit(&Entry { end: mark(5), settled: delivered(1), ..Entry::default() });
    assert!(status.notice(None).unwrap().contains("1 items are counted differently"));
}

#[tokio::test]
async fn an_orderly_stop_does_not_wait_for_a_sink_that_is_held() {
    let world = World::new(Told::answering(vec![Report::hold("401"); 100_000]));
    world.send(&["a"]).await;
    until(|| world.status.state().0 == LaneState::Holding).await;
    let ended = tokio::time::timeout(Duration::from_secs(20), world.drain()).await;
    assert_eq!(ended.unwrap().0, LaneState::Drained);
}

#[tokio::test]
async fn the_cursor_is_saved_soon_at_low_load_and_once_in_the_shortest_life() {
    let storage: Arc<MemoryStorage> = Arc::default();
    let world = World::with(Arc::clone(&storage), Arc::default(), Told::answering([]), |options| {
        options.commit_every = Duration::from_hours(1);
    });
    for id in ["a", "b"] {
        world.send(&[id]).await;
        let end = world.feed.journal().end();
        let saved = || world.feed.journal().cursor("told").unwrap().mark;
        until(|| saved() == end).await;
    }
}

/// A sink that never finishes a delivery, or never a checkpoint.
#[derive(Debug, Default)]
struct Hung {
    delivers: AtomicBool,
    asked: AtomicU64,
}

impl Sink for Hung {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        let delivers = self.delivers.load(Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if !delivers {
                std::future::pending::<()>().await;
            }
            Report::delivered()
        })
    }

    fn checkpoint(&self) -> Pending<'_, Result<Bytes, Pace>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_sink_that_hangs_does_not_keep_the_lane_from_ending_at_the_deadline() {
    for delivers in [false, true] {
        let sink = Arc::new(Hung { delivers: delivers.into(), ..Hung::default() });
        let world = World::new(sink.clone());
        world.send(&["a"]).await;
        until(|| sink.asked.load(Ordering::Relaxed) > u64::from(delivers)).await;
        assert_eq!(world.status.cursor().mark.items, u64::from(delivers), "pending is right");
        world.deadline.stop();
        let ended = tokio::time::timeout(Duration::from_secs(20), world.drain()).await;
        assert_eq!(ended.unwrap().0, LaneState::Drained);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_answer_is_said() {
    let storage: Arc<MemoryStorage> = Arc::default();
    let dead = Journal::open(&Options::default(), storage, |_| ()).unwrap();
    let status = Arc::new(LaneStatus::new("told".to_owned(), "told", Cursor::default()));
    let attempts = Attempts {
        sink: Arc::new(Hung::default()),
        dead_letters: DeadLetters::new(dead),
        status: Arc::clone(&status),
        hold_probe: Duration::from_secs(1),
    };
    let delivery = Delivery::default();
    let silent = attempts.hand_over(&delivery);
    tokio::time::timeout(Duration::from_secs(25), silent).await.unwrap_err();
    let (state, problem) = status.state();
    assert_eq!(
        (state, &*problem.unwrap()),
        (LaneState::Retrying, "the sink has not answered for 20 s")
    );
}

/// A sink that fails on more than one item, and records the state of its lane on each call.
#[derive(Debug, Default)]
struct Watched {
    status: std::sync::OnceLock<Arc<LaneStatus>>,
    seen: Mutex<Vec<(usize, LaneState)>>,
}

impl Sink for Watched {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let state = self.status.get().unwrap().state().0;
        self.seen.lock().unwrap().push((delivery.len(), state));
        let is_broken = delivery.len() > 1;
        Box::pin(async move {
            if is_broken {
                Report::fault("500".to_owned(), String::new())
            } else {
                Report::delivered()
            }
        })
    }
}

#[tokio::test]
async fn a_backend_that_breaks_works_again_once_it_takes_something_and_not_when_what_it_breaks_on_is_halved()
 {
    let sink = Arc::new(Watched::default());
    let world = World::new(sink.clone());
    sink.status.set(Arc::clone(&world.status)).unwrap();
    world.send(&["a", "b", "c", "d"]).await;
    world.settled().await;
    let seen = sink.seen.lock().unwrap();
    let until_taken = seen.iter().position(|(items, _)| *items == 1).unwrap();
    assert!(until_taken > 3, "it was halved twice: {seen:?}");
    let states: Vec<_> = seen[1..=until_taken].iter().map(|(_, state)| *state).collect();
    assert_eq!(states, vec![LaneState::Retrying; until_taken]);
    assert_eq!(world.status.state().0, LaneState::Running);
}
