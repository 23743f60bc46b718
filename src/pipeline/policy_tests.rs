//! What a lane learns about its sink, reports and counts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::edge_tests::of_trace;
use super::tests::{Told, World, down, name, reject};
use super::*;
use crate::journal::{Cursor, WhenFull};
use crate::sinks::{
    Deferral, Delivery, Omitted, Pace, Pending, RejectClass, Report, Sink, Verdict, Verdicts,
};

/// A sink that accepts requests up to a size, and remembers the size of each.
#[derive(Debug)]
struct Narrow {
    bytes_max: usize,
    sizes: Mutex<Vec<usize>>,
}

impl Sink for Narrow {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        self.sizes.lock().unwrap().push(delivery.bytes());
        let report = if self.bytes_max < delivery.bytes() {
            Report::split(RejectClass::TooLarge, "413".to_owned(), String::new())
        } else {
            Report::delivered()
        };
        Box::pin(async { report })
    }
}

#[tokio::test]
async fn what_was_too_large_is_not_sent_again_in_that_size() {
    let sink = Arc::new(Narrow { bytes_max: 250_000, sizes: Mutex::default() });
    let world = World::new(sink.clone());
    // Four of them together are too large, three are not.
    let large = |round: &str, at: u32| format!("{round}{at}").repeat(40_000);
    for round in ["a", "b", "c"] {
        let ids: Vec<_> = (0..4).map(|at| large(round, at)).collect();
        world.send(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
        world.settled().await;
    }
    let refused: Vec<_> =
        sink.sizes.lock().unwrap().iter().copied().filter(|size| 250_000 < *size).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let learned = world.status.learned_bytes_max.load(Ordering::Relaxed);
    assert!(learned <= refused[0] / 10 * 9 && 250_000 < learned, "{learned}");
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_said_once_a_minute_and_again_when_it_changes() {
    let status = LaneStatus::new("told".to_owned(), "told", Cursor::default());
    let hold = |status: &LaneStatus| status.set_state(LaneState::Holding, Some("401".to_owned()));
    assert!(hold(&status));
    let mut said = 0;
    for _ in 0..120 {
        tokio::time::advance(Duration::from_secs(1)).await;
        said += u32::from(hold(&status));
    }
    assert_eq!(said, 2);
    assert!(status.set_state(LaneState::Running, None));
    assert!(!status.set_state(LaneState::Running, None));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_now_works_and_now_does_not_is_mentioned_once_a_minute() {
    let status = LaneStatus::new("told".to_owned(), "told", Cursor::default());
    let mut said = 0;
    for _ in 0..1200 {
        tokio::time::advance(Duration::from_millis(100)).await;
        said += u32::from(status.set_state(LaneState::Retrying, None));
        said += u32::from(status.set_state(LaneState::Running, None));
    }
    assert_eq!(said, 4, "two times that it does not, two times that it does");
    assert!(status.set_state(LaneState::Holding, None), "what is worse is said at once");
    assert!(status.set_state(LaneState::Running, None));
}

#[tokio::test]
async fn troubles_are_counted_by_their_kind() {
    let sink = Told::answering([
        down("down"),
        Report::hold("401"),
        reject(0, 2, "odd"),
        Report::split(RejectClass::Malformed, "400".to_owned(), String::new()),
    ]);
    let world = World::new(sink);
    world.send(&["a", "b"]).await;
    world.settled().await;
    world.send(&["c"]).await;
    world.settled().await;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&world.status.retries), count(&world.status.holds)), (2, 1));
    let dead: Vec<_> = world.status.dead_letters().filter(|(_, items)| *items > 0).collect();
    assert_eq!(dead, [(RejectClass::Item, 1), (RejectClass::Malformed, 1)]);
}

/// A sink that delivers the first item, retries the second, and reports nothing about the others.
#[derive(Debug, Default)]
struct Taciturn {
    attempts: Mutex<Vec<Vec<String>>>,
}

impl Sink for Taciturn {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<String> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        let verdicts = [Verdict::Delivered, Verdict::Retry].into_iter().take(names.len()).collect();
        self.attempts.lock().unwrap().push(names);
        let pace = Pace::Slow { after: None, reason: "429".to_owned() };
        Box::pin(async { Report { verdicts: Verdicts::Each(verdicts), pace, omitted: None } })
    }
}

#[tokio::test]
async fn only_what_is_said_to_have_arrived_is_not_sent_again() {
    let sink = Arc::new(Taciturn::default());
    let world = World::new(sink.clone());
    world.send(&["a", "b", "c"]).await;
    world.settled().await;
    let attempts = sink.attempts.lock().unwrap().clone();
    assert_eq!(attempts, [vec!["a", "b", "c"], vec!["b", "c"], vec!["c"]]);
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (3, 0));
    assert_eq!(world.status.throttles.load(Ordering::Relaxed), 3);
}

/// A sink that reports some items of each delivery as left out.
#[derive(Debug)]
struct Vague;

impl Sink for Vague {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        let omitted = Some(Omitted { items: 2, reason: "2 of them".to_owned() });
        Box::pin(async { Report { omitted, ..Report::delivered() } })
    }
}

#[tokio::test]
async fn what_the_backend_left_out_without_saying_which_is_counted() {
    let world = World::new(Arc::new(Vague));
    world.send(&["a", "b", "c"]).await;
    world.settled().await;
    assert_eq!(world.status.left_out.load(Ordering::Relaxed), 2);
    assert_eq!(world.status.delivered(), 3, "they arrived; the backend answers for the rest");
}

/// A sink that defers items that begin with `late` until they are released.
#[derive(Debug, Default)]
struct Deferring {
    may_go: AtomicBool,
    arrived: Mutex<Vec<String>>,
}

impl Deferring {
    fn arrived(&self) -> Vec<String> {
        self.arrived.lock().unwrap().clone()
    }
}

impl Sink for Deferring {
    fn concurrency_max(&self) -> usize {
        2
    }

    fn is_deferred(&self, key: &str) -> bool {
        assert_eq!(key, "a word");
        !self.may_go.load(Ordering::Relaxed)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let names: Vec<_> = delivery.items().map(|(_, item)| name(item.wire())).collect();
        let is_deferred = self.is_deferred("a word");
        let deferral = Deferral { key: "a word".to_owned(), reason: "no word".to_owned() };
        let wait = Verdict::Defer(Arc::new(deferral));
        let verdicts = names.into_iter().map(|name| {
            if is_deferred && name.starts_with("late") {
                return wait.clone();
            }
            self.arrived.lock().unwrap().push(name);
            Verdict::Delivered
        });
        let verdicts = Verdicts::Each(verdicts.collect());
        Box::pin(async { Report { verdicts, ..Report::delivered() } })
    }
}

pub(super) async fn until(is_so: impl Fn() -> bool) {
    let in_time = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), in_time).await.unwrap();
}

#[tokio::test]
async fn what_is_deferred_lets_others_pass_and_holds_only_the_cursor() {
    let sink = Arc::new(Deferring::default());
    let world = World::new(sink.clone());
    let start = world.status.cursor().mark;
    world.send(&["a", "late 1"]).await;
    world.send(&["late 2"]).await;
    // Far more deliveries than may be under way or queued, all in the trace of the deferred items.
    let others: Vec<_> = (0..40).map(|number| format!("other {number}")).collect();
    for other in &others {
        world.send(&[other]).await;
    }
    until(|| sink.arrived().len() == 41).await;
    until(|| world.status.deferred.load(Ordering::Relaxed) == 2).await;
    assert_eq!(sink.arrived()[1..], others);
    assert_eq!(world.status.cursor().mark, start);
    assert_eq!(world.status.state(), (LaneState::Running, None));
    sink.may_go.store(true, Ordering::Relaxed);
    world.settled().await;
    assert_eq!(sink.arrived()[41..], ["late 1", "late 2"]);
    assert_eq!(world.status.deferred.load(Ordering::Relaxed), 0);
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (43, 0));
}

#[tokio::test]
async fn what_is_deferred_when_the_daemon_stops_is_read_again_after_the_next_start() {
    let sink = Arc::new(Deferring::default());
    let world = World::new(sink.clone());
    world.send(&["late 1"]).await;
    world.send(&["b"]).await;
    until(|| sink.arrived().len() == 1).await;
    let (end, storage) = world.drain().await;
    assert_eq!(end, LaneState::Drained, "the stop does not wait for what cannot go");
    sink.may_go.store(true, Ordering::Relaxed);
    let world = World::over(storage, sink.clone());
    world.settled().await;
    assert_eq!(sink.arrived(), ["b", "late 1", "b"], "at least once");
}

#[tokio::test]
async fn where_there_is_no_room_for_more_that_waits_the_oldest_becomes_a_dead_letter_and_others_go_on()
 {
    let sink = Arc::new(Deferring::default());
    let world = World::new(sink.clone());
    let large = |number: usize| format!("late {number} {}", "x".repeat(900_000));
    for number in 0..60 {
        world.send(&[&large(number)]).await;
    }
    world.send(&["b"]).await;
    // There is space for 32 MiB, and each is held twice: as received, and as read.
    let deferred = || world.status.deferred.load(Ordering::Relaxed);
    let dead_lettered = || world.status.cursor().dead_lettered;
    until(|| sink.arrived() == ["b"] && deferred() < 19 && deferred() + dead_lettered() == 60)
        .await;
    let cursor = world.status.cursor();
    assert!(deferred() > 15, "no more goes than must: {}", deferred());
    assert_eq!(cursor.mark.items, cursor.dead_lettered, "the oldest went, and no other");
    let classes: Vec<_> = world.status.dead_letters().filter(|(_, count)| *count > 0).collect();
    assert_eq!(classes, [(RejectClass::Deferred, cursor.dead_lettered)]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.status.cursor(), cursor, "no more goes than must");
    sink.may_go.store(true, Ordering::Relaxed);
    world.settled().await;
    let (delivered, dead) = (world.status.delivered(), world.status.cursor().dead_lettered);
    assert_eq!((delivered + dead, dead), (61, cursor.dead_lettered));
    assert_eq!(world.drain().await.0, LaneState::Drained);
}

#[tokio::test]
async fn what_waits_is_given_up_before_the_cursor_stands_too_far_behind() {
    let sink = Arc::new(Deferring::default());
    let world = World::new(sink.clone());
    world.send(&["late 1"]).await;
    until(|| world.status.deferred.load(Ordering::Relaxed) == 1).await;
    // More than a lane reads after an item that is not done.
    let others: Vec<_> = (0..66_000).map(|number| format!("other {number}")).collect();
    for some in others.chunks(500) {
        let some: Vec<_> = some.iter().map(String::as_str).collect();
        futures_util::future::join_all(some.chunks(1).map(|one| world.send(one))).await;
    }
    until(|| sink.arrived().len() == others.len()).await;
    world.settled().await;
    assert_eq!(world.status.cursor().dead_lettered, 1);
}

/// A sink that defers everything a few times, and would accept it again immediately.
#[derive(Debug, Default)]
struct Hasty {
    asked: Mutex<Vec<tokio::time::Instant>>,
}

impl Sink for Hasty {
    fn concurrency_max(&self) -> usize {
        2
    }

    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(tokio::time::Instant::now());
        let deferral = Deferral { key: "a word".to_owned(), reason: "no word".to_owned() };
        let is_over = asked.len() > 2_000 || asked[0].elapsed() > Duration::from_mins(1);
        let report = if is_over {
            Report::delivered()
        } else {
            Report::all(Verdict::Defer(Arc::new(deferral)), Pace::Go)
        };
        Box::pin(async { report })
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_defers_and_would_have_back_at_once_waits_like_what_failed() {
    let sink = Arc::new(Hasty::default());
    let slow = |options: &mut LaneOptions| {
        options.retry.first = Duration::from_millis(100);
        options.retry.longest = Duration::from_secs(5);
    };
    let world = World::with(Arc::default(), Arc::default(), sink.clone(), slow);
    world.send(&["a"]).await;
    world.settled().await;
    let asked = sink.asked.lock().unwrap();
    assert!(asked.len() < 200, "{} times in {:?}", asked.len(), asked.last().unwrap().elapsed());
}

#[tokio::test]
async fn what_comes_again_as_a_whole_waits_also_where_the_sink_says_to_go_on() {
    let again = Report::all(Verdict::Retry, Pace::Go);
    let sink = Told::answering(vec![again; 5]);
    let world = World::new(sink.clone());
    world.send(&["a", "b"]).await;
    world.settled().await;
    assert_eq!(sink.arrived(), ["a", "b"]);
    assert_eq!(world.status.retries.load(Ordering::Relaxed), 5, "each was followed by a wait");
}

#[tokio::test]
async fn nothing_is_dropped_as_long_as_a_sink_that_drops_nothing_holds_the_same_segment() {
    let sink = Told::answering([Report::down(Some(Duration::from_hours(1)), "away")]);
    let world = World::small(sink, WhenFull::DropOldest);
    let journal = world.feed.journal();
    journal.save_cursor("refuses", &journal.cursor("told").unwrap()).unwrap();
    let long = "x".repeat(6_000);
    let mut number = 0;
    while journal.has_room() {
        world.send(&[&format!("{number} {long}")]).await;
        number += 1;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.status.cursor().dropped, 0, "it would free nothing");
    let oldest = journal.segment_end(journal.start().position).unwrap().position;
    assert_eq!(journal.held_by(oldest).as_deref(), Some("refuses"));
    let end = Cursor { mark: journal.end(), ..Cursor::default() };
    journal.save_cursor("refuses", &end).unwrap();
    assert_eq!(journal.held_by(oldest), None, "room is made");
    until(|| world.status.cursor().dropped > 0).await;
}

#[tokio::test]
async fn a_sink_that_waits_for_its_backend_gives_way_at_once() {
    let sink = Told::answering([Report::down(Some(Duration::from_hours(1)), "away")]);
    let world = World::small(sink, WhenFull::DropOldest);
    let long = "x".repeat(6_000);
    for number in 0..100 {
        // No client is told to retry.
        world.send(&[&format!("{number} {long}")]).await;
    }
    let (cursor, end) = (world.status.cursor(), world.feed.journal().end());
    assert!(cursor.dropped > 0 && cursor.mark.items == cursor.dropped, "{cursor:?} of {end:?}");
}

/// A backend that rejects a request as a whole if any of its items is odd, and takes its time.
#[derive(Debug, Default)]
struct Judging {
    under_way: AtomicUsize,
    under_way_max: AtomicUsize,
    arrived: Mutex<Vec<String>>,
}

impl Judging {
    async fn judge(&self, names: Vec<String>) -> Report {
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.under_way_max.fetch_max(under_way, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        if names.iter().any(|name| name.starts_with("odd")) {
            return Report::split(RejectClass::Malformed, "400".to_owned(), String::new());
        }
        self.arrived.lock().unwrap().extend(names);
        Report::delivered()
    }
}

impl Sink for Judging {
    fn concurrency_max(&self) -> usize {
        8
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(self.judge(delivery.items().map(|(_, item)| name(item.wire())).collect()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_rejected_request_are_tried_at_once_and_each_trace_stays_in_order() {
    for (bad, traces) in [(1, 50), (10, 50), (100, 50), (10, 1)] {
        let sink = Arc::new(Judging::default());
        let whole = |options: &mut LaneOptions| options.batch.items_max = 1000;
        let world = World::with(Arc::default(), Arc::default(), sink.clone(), whole);
        let is_bad = |at: u32| u64::from(at * 7919 % 1000) < bad;
        let id = |at| format!("{} {at}", if is_bad(at) { "odd" } else { "good" });
        let items: Vec<_> = (0..1000).map(|at| of_trace(at % traces, &id(at))).collect();
        world.send_items(&items, 1).await;
        world.settled().await;
        let mut arrived = sink.arrived.lock().unwrap().clone();
        let in_order = |name: &String| {
            let at: u32 = name.rsplit_once(' ').unwrap().1.parse().unwrap();
            (at % traces, at)
        };
        arrived.sort_by_key(|name| in_order(name).0);
        assert!(arrived.is_sorted_by_key(in_order), "{arrived:?}");
        let outcomes = (world.status.delivered(), world.status.cursor().dead_lettered);
        assert_eq!(outcomes, (1000 - bad, bad));
        assert_eq!(world.status.retries.load(Ordering::Relaxed), 0, "the backend works");
        assert!(!world.status.is_breaker_open.load(Ordering::Relaxed));
        let under_way_max = sink.under_way_max.load(Ordering::Relaxed);
        let expected = match (bad, traces) {
            (_, 1) => 1..=1,
            (100, _) => 8..=8,
            _ => 2..=8,
        };
        assert!(expected.contains(&under_way_max), "{under_way_max} with {bad} of {traces} traces");
    }
}
