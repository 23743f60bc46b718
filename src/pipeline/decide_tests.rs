//! A lane whose rules decide on whole traces. Time passes in the records: one received far later than the clock shows that none came in
//! between.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::policy_tests::until;
use super::tests::{Told, World};
use super::*;
use crate::journal::MemoryStorage;
use crate::operate::{Progress, Range, replay_journal};
use crate::rules::{DecideOptions, Rules, of_text};
use crate::sinks::{Delivery, Pending, Report, Sink};
use crate::support::clock::unix_now_ns;

const SECOND: u64 = 1_000_000_000;
/// Longer than any test takes.
const QUIET: u64 = 100 * SECOND;

/// Keeps traces with an error and no others.
const ERRORS: &str = "[[rules]]\nname = \"errors\"\nmatch = { status = \"error\" }\nkeep = true\ndecide = \"trace\"\n
    [[rules]]\nname = \"others\"\nsample = 0\ndecide = \"trace\"\n";

fn rules(text: &str) -> Arc<Rules> {
    let decide = DecideOptions {
        quiet: Duration::from_nanos(QUIET),
        longest: Duration::from_mins(5),
        ..DecideOptions::default()
    };
    Arc::new(Rules::compile(["told"], of_text(text)).waiting(decide))
}

fn world(storage: &Arc<MemoryStorage>, sink: &Arc<Told>, text: &str) -> World {
    World::ruled(Arc::clone(storage), Arc::clone(sink) as Arc<dyn Sink>, rules(text))
}

/// Creates a span of a trace, with an error if its id contains the word.
fn span(trace: u32, id: &str) -> String {
    let error = if id.contains("error") { r#"{"message":"no"}"# } else { "null" };
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_{trace}","parent_id":null,"started_at":null,"ended_at":null,"span_data":{{"type":"custom","name":"n","data":{{}}}},"error":{error}}}"#
    )
}

/// Returns delivered and filtered items; all settled items are one of these.
fn counted(world: &World) -> (u64, u64) {
    let cursor = world.status.cursor();
    let OutcomeCounts { delivered, filtered, .. } =
        LaneStatus::settled(&cursor, Resolved::default());
    assert_eq!(delivered + filtered, cursor.mark.items - cursor.joined);
    (delivered, filtered)
}

#[tokio::test]
async fn a_trace_is_delivered_whole_and_in_order_where_one_of_its_spans_matches() {
    let (sink, now) = (Told::answering([]), unix_now_ns());
    let world = world(&Arc::default(), &sink, ERRORS);
    world.send_items(&[span(1, "a"), span(2, "b")], now).await;
    world.send_items(&[span(2, "c")], now + SECOND).await;
    world.send_items(&[span(1, "error d"), span(3, "e")], now + 2 * SECOND).await;
    world.send_items(&[span(4, "f")], now + 2 * SECOND + QUIET).await;
    until(|| counted(&world) == (2, 3)).await;
    assert_eq!(sink.arrived(), ["a", "error d"]);
    assert_eq!(
        world.status.rules.figures().collect::<Vec<_>>(),
        [("errors", 2, 0), ("others", 5, 0)]
    );
    // Late spans follow their trace.
    world.send_items(&[span(1, "g"), span(2, "error h")], now + 3 * SECOND + QUIET).await;
    world.send_items(&[span(5, "i")], now + 4 * SECOND + 2 * QUIET).await;
    until(|| counted(&world) == (3, 5)).await;
    assert_eq!(sink.arrived(), ["a", "error d", "g"]);
}

#[tokio::test]
async fn a_stop_leaves_open_traces_in_the_journal_and_the_next_start_decides_as_if_there_was_none()
{
    let (sink, now) = (Told::answering([]), unix_now_ns());
    let first = world(&Arc::default(), &sink, ERRORS);
    first.send_items(&[span(1, "error a")], now).await;
    first.send_items(&[span(2, "b")], now).await;
    let (end, storage) = first.drain().await;
    assert_eq!((end, sink.arrived().len()), (LaneState::Drained, 0));
    let second = world(&storage, &sink, ERRORS);
    assert_eq!(counted(&second), (0, 0));
    second.send_items(&[span(1, "c"), span(2, "error d")], now + SECOND).await;
    second.send_items(&[span(3, "e")], now + QUIET + SECOND).await;
    until(|| counted(&second) == (4, 0)).await;
    assert_eq!(sink.arrived(), ["error a", "b", "c", "error d"]);
    let (_, storage) = second.drain().await;
    // Decisions from before the start apply to later spans.
    let third = world(&storage, &sink, ERRORS);
    third.send_items(&[span(3, "error f"), span(1, "g")], now + 3 * QUIET).await;
    third.send_items(&[span(4, "h")], now + 5 * QUIET).await;
    until(|| counted(&third) == (5, 2)).await;
    assert_eq!(sink.arrived()[4..], ["g"]);
}

/// Sends requests one by one, and kills the lane before each of the given ones; returns what arrived in the end.
async fn through_kills(
    requests: &[(u64, Vec<String>)],
    kills: &BTreeSet<usize>,
) -> BTreeSet<String> {
    let sink = Told::answering([]);
    let mut lane = world(&Arc::default(), &sink, ERRORS);
    for (number, (at_ns, items)) in requests.iter().enumerate() {
        if kills.contains(&number) {
            lane.lane.abort();
            lane.lane.await.unwrap_err();
            lane.feed.journal().close();
            lane = world(&lane.storage, &sink, ERRORS);
        }
        lane.send_items(items, *at_ns).await;
    }
    let items = requests.iter().map(|(_, items)| items.len() as u64).sum::<u64>();
    // Only the last request shows that the traces before it were quiet.
    until(|| lane.status.cursor().mark.items == items - 1).await;
    sink.arrived().into_iter().collect()
}

#[tokio::test]
async fn kills_between_any_requests_change_no_decision() {
    let now = unix_now_ns();
    let mut requests: Vec<(u64, Vec<String>)> = (0..40_u32)
        .map(|number| {
            let at_ns = now + u64::from(number) * 20 * SECOND;
            // Traces of two to eight requests, some of them with a long pause before the last.
            let traces = [number / 3, number % 11, 100 + number / 2];
            let spans = traces.iter().enumerate().map(|(place, trace)| {
                let is_error = (number * 7 + trace * 5 + 3).is_multiple_of(17);
                let what = if is_error { "error" } else { "fine" };
                span(*trace, &format!("{what} {number} {place}"))
            });
            (at_ns, spans.collect())
        })
        .collect();
    requests.push((now + 10_000 * SECOND, vec![span(999, "end")]));
    let expected = through_kills(&requests, &BTreeSet::new()).await;
    let all = requests.iter().map(|(_, items)| items.len()).sum::<usize>();
    assert!(20 < expected.len() && expected.len() < all - 20, "{}", expected.len());
    for step in [1, 2, 5] {
        let kills = (1..requests.len()).step_by(step).collect();
        assert_eq!(through_kills(&requests, &kills).await, expected, "killed every {step}");
    }
}

#[tokio::test]
async fn a_replay_decides_of_traces_as_the_lane_did() {
    let (sink, now) = (Told::answering([]), unix_now_ns());
    let world = world(&Arc::default(), &sink, ERRORS);
    world.send_items(&[span(1, "a"), span(2, "b")], now).await;
    world.send_items(&[span(1, "error c")], now + SECOND).await;
    world.send_items(&[span(3, "d")], now + SECOND + QUIET).await;
    world.send_items(&[span(2, "error e"), span(1, "f")], now + 2 * SECOND + QUIET).await;
    world.send_items(&[span(4, "g")], now + 3 * QUIET).await;
    until(|| counted(&world).0 == 3).await;
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    let range = Range { from_ns: Some(now + SECOND), ..Range::default() };
    let until = world.status.cursor().mark.position;
    replay_journal(world.feed.journal(), (range, until), Some(&world.jobs), &progress)
        .await
        .unwrap();
    assert_eq!(sink.arrived(), ["a", "error c", "f", "error c", "f"]);
}

#[tokio::test]
async fn rules_that_changed_decide_of_what_is_open_and_of_what_comes_later() {
    let (sink, now) = (Told::answering([]), unix_now_ns());
    let first = world(&Arc::default(), &sink, ERRORS);
    first.send_items(&[span(1, "error a"), span(2, "b")], now).await;
    first.send_items(&[span(3, "c")], now + QUIET).await;
    until(|| counted(&first) == (1, 1)).await;
    let (_, storage) = first.drain().await;
    let second = world(&storage, &sink, &ERRORS.replace("status = \"error\"", "name = \"n\""));
    second.send_items(&[span(1, "d"), span(2, "e")], now + QUIET + SECOND).await;
    second.send_items(&[span(4, "f")], now + 3 * QUIET).await;
    until(|| counted(&second) == (4, 1)).await;
    assert_eq!(sink.arrived(), ["error a", "c", "d", "e"]);
}

#[tokio::test]
async fn the_clock_decides_where_nothing_comes() {
    let sink = Told::answering([]);
    let decide = DecideOptions {
        quiet: Duration::from_millis(50),
        longest: Duration::from_secs(1),
        ..DecideOptions::default()
    };
    let rules = Arc::new(Rules::compile(["told"], of_text(ERRORS)).waiting(decide));
    let world = World::ruled(Arc::default(), sink.clone(), rules);
    world.send_items(&[span(1, "error a"), span(2, "b")], unix_now_ns()).await;
    until(|| counted(&world) == (1, 1)).await;
    assert_eq!(sink.arrived(), ["error a"]);
}

#[tokio::test]
async fn what_is_below_a_span_that_a_later_request_drops_hangs_under_what_is_left() {
    let below = |id: &str, parent: &str| {
        let parent = if parent.is_empty() { "null".to_owned() } else { format!("\"{parent}\"") };
        span(1, id).replace("\"parent_id\":null", &format!("\"parent_id\":{parent}"))
    };
    let decide = DecideOptions { reparent: true, ..rules(ERRORS).decide() };
    let text = "[[rules]]\nmatch = { status = \"error\" }\ndrop = true\n";
    let (sink, now) = (Arc::new(Parents::default()), unix_now_ns());
    for is_reparenting in [true, false] {
        let decide = DecideOptions { reparent: is_reparenting, ..decide };
        let rules = Arc::new(Rules::compile(["told"], of_text(text)).waiting(decide));
        let world = World::ruled(Arc::default(), sink.clone(), rules);
        for (step, item) in
            [below("c", "error b"), below("error b", "a"), below("a", "")].into_iter().enumerate()
        {
            world.send_items(&[item], now + step as u64).await;
        }
        world.send_items(&[span(2, "d")], now + 2 * QUIET).await;
        until(|| counted(&world).1 == 1 && 2 <= counted(&world).0).await;
        let parents = std::mem::take(&mut *sink.0.lock().unwrap());
        let expected = if is_reparenting { Some("a") } else { Some("error b") };
        assert_eq!(parents[0].as_deref(), expected);
        assert_eq!(parents[1], None);
    }
}

/// Remembers the parents of the spans it receives.
#[derive(Debug, Default)]
struct Parents(Mutex<Vec<Option<String>>>);

impl Sink for Parents {
    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        for (_, item) in delivery.items() {
            let item: serde_json::Value = serde_json::from_slice(item.wire()).unwrap();
            self.0.lock().unwrap().push(item["parent_id"].as_str().map(str::to_owned));
        }
        Box::pin(async { Report::delivered() })
    }
}
