//! A lane whose sink needs trace contexts: what its deliveries carry, what waits for what, and the roots.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::LaneState;
use super::tests::World;
use crate::normalize::ids;
use crate::operate::{Progress, Range, replay_journal};
use crate::sinks::{Delivery, Pending, Report, Sink};
use crate::span::{Span, SpanId, TraceContext, TraceNeeds};
use crate::support::clock::unix_now_ns;

/// A scripted sink that remembers its items with their contexts.
#[derive(Debug)]
struct Watching {
    needs: TraceNeeds,
    slots: usize,
    reports: Mutex<VecDeque<Report>>,
    attempts: Mutex<Vec<Vec<Seen>>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Seen {
    span: SpanId,
    is_root: bool,
    context: TraceContext,
}

impl Watching {
    fn with(needs: TraceNeeds) -> Self {
        Self { needs, slots: 1, reports: Mutex::default(), attempts: Mutex::default() }
    }

    fn telling(self, reports: impl IntoIterator<Item = Report>) -> Self {
        Self { reports: Mutex::new(reports.into_iter().collect()), ..self }
    }

    fn seen(&self) -> Vec<Seen> {
        self.attempts.lock().unwrap().concat()
    }

    fn has_seen(&self, span: SpanId) -> bool {
        self.seen().iter().any(|seen| seen.span == span)
    }

    fn roots(&self) -> Vec<SpanId> {
        self.seen().iter().filter(|seen| seen.is_root).map(|seen| seen.span).collect()
    }
}

impl Sink for Watching {
    fn concurrency_max(&self) -> usize {
        self.slots
    }

    fn trace_needs(&self) -> Option<TraceNeeds> {
        Some(self.needs)
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        let see = |span: &Span| Seen {
            span: span.span_id,
            is_root: span.is_synthetic(),
            context: delivery.context(span.trace_id).cloned().unwrap(),
        };
        self.attempts.lock().unwrap().push(delivery.spans().map(see).collect());
        let report = self.reports.lock().unwrap().pop_front();
        let report = report.unwrap_or_else(Report::delivered);
        Box::pin(async { report })
    }
}

const SECOND: u64 = 1_000_000_000;

fn trace_name(number: u8) -> String {
    format!("trace_{}", format!("{number:02x}").repeat(16))
}

fn object(trace: u8) -> String {
    let trace = trace_name(trace);
    format!(r#"{{"object":"trace","id":"{trace}","workflow_name":"Shop","group_id":"chat-7"}}"#)
}

fn span(trace: u8, id: &str) -> String {
    let trace = trace_name(trace);
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"{trace}","parent_id":null,"started_at":"2026-11-21T05:13:36Z","ended_at":"2026-11-21T05:13:37Z","span_data":{{"type":"function","name":"f","input":"{{}}","output":"1"}},"error":null}}"#
    )
}

fn id(trace: u8, id: &str) -> SpanId {
    ids::span_id(&trace_name(trace), id)
}

fn root(trace: u8) -> SpanId {
    ids::root_span_id(&trace_name(trace))
}

/// The needs of a sink that does not wait for trace objects, and only briefly for a trace to be quiet.
fn at_once() -> TraceNeeds {
    let quiet = Duration::from_millis(200);
    TraceNeeds { context_wait: Duration::ZERO, quiet, ..TraceNeeds::default() }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let in_time = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), in_time).await.unwrap();
}

// === Contexts ===

#[tokio::test]
async fn a_delivery_knows_what_came_in_earlier_requests_and_keeps_it_for_all_attempts() {
    let again = || Report::down(None, "busy");
    let sink = Arc::new(Watching::with(at_once()).telling([Report::delivered(), again(), again()]));
    let world = World::new(sink.clone());
    world.send_items(&[object(1)], unix_now_ns()).await;
    world.settled().await;
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    until(|| 2 < sink.attempts.lock().unwrap().len()).await;
    world.send_items(&[span(1, "b")], unix_now_ns()).await;
    world.settled().await;
    let attempts = sink.attempts.lock().unwrap().clone();
    let context = &attempts[1][0].context;
    assert_eq!(context.workflow.as_deref(), Some("Shop"));
    assert_eq!(context.session.as_deref(), Some("chat-7"));
    assert_eq!(attempts[1], attempts[2]);
    assert_eq!(attempts[1], attempts[3]);
    assert_eq!(attempts[4][0].context.workflow.as_deref(), Some("Shop"));
}

#[tokio::test]
async fn a_span_waits_for_its_trace_object_and_no_longer_than_for_that() {
    let needs = TraceNeeds { context_wait: Duration::from_mins(10), ..TraceNeeds::default() };
    let sink = Arc::new(Watching { slots: 64, ..Watching::with(needs) });
    let world = World::new(sink.clone());
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    // Other traces do not wait with it: enough of them that some are in other partitions.
    for trace in 2..10 {
        world.send_items(&[object(trace), span(trace, "b")], unix_now_ns()).await;
    }
    until(|| sink.has_seen(id(2, "b")) || sink.has_seen(id(3, "b")) || sink.has_seen(id(4, "b")))
        .await;
    assert!(!sink.has_seen(id(1, "a")));
    world.send_items(&[object(1)], unix_now_ns()).await;
    world.settled().await;
    let seen = sink.seen().into_iter().find(|seen| seen.span == id(1, "a")).unwrap();
    assert_eq!(seen.context.workflow.as_deref(), Some("Shop"));
    assert_eq!(world.status.delivered(), 18);
}

#[tokio::test]
async fn a_span_goes_without_its_trace_object_once_it_has_waited() {
    let wait = Duration::from_millis(300);
    let needs = TraceNeeds { context_wait: wait, ..TraceNeeds::default() };
    let sink = Arc::new(Watching::with(needs));
    let world = World::new(sink.clone());
    let started = Instant::now();
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    world.settled().await;
    assert!(wait <= started.elapsed() + Duration::from_millis(5), "{:?}", started.elapsed());
    assert!(sink.seen()[0].context.trace.is_none());
    // The next span of this trace does not wait again.
    world.send_items(&[span(1, "b")], unix_now_ns() + 3600 * SECOND).await;
    world.settled().await;
    assert!(sink.has_seen(id(1, "b")));
}

#[tokio::test]
async fn a_lane_that_is_behind_waits_for_nothing() {
    let needs = TraceNeeds { context_wait: Duration::from_mins(10), ..TraceNeeds::default() };
    let world = World::new(Arc::new(Watching::with(needs)));
    world.send_items(&[span(1, "a")], unix_now_ns() - 601 * SECOND).await;
    world.settled().await;
    // Nor does it wait in a lane that drains.
    world.send_items(&[span(2, "a")], unix_now_ns()).await;
    let status = Arc::clone(&world.status);
    assert_eq!(world.drain().await.0, LaneState::Drained);
    assert_eq!(status.delivered(), 2);
}

// === Roots ===

#[tokio::test]
async fn a_root_is_sent_once_behind_its_spans_and_counts_as_no_item() {
    let sink = Arc::new(Watching::with(at_once()));
    let world = World::new(sink.clone());
    world.send_items(&[object(1), span(1, "a"), span(1, "b")], unix_now_ns() - 60 * SECOND).await;
    until(|| sink.roots() == [root(1)]).await;
    world.send_items(&[span(1, "late")], unix_now_ns() - 30 * SECOND).await;
    world.send_items(&[span(2, "a")], unix_now_ns() - 20 * SECOND).await;
    until(|| sink.roots() == [root(1), root(2)]).await;
    world.settled().await;
    let seen = sink.seen();
    let place = |span| seen.iter().position(|seen| seen.span == span).unwrap();
    assert!(place(id(1, "b")) < place(root(1)));
    assert_eq!(seen[place(root(1))].context.workflow.as_deref(), Some("Shop"));
    assert_eq!(world.status.delivered(), 5);
    assert_eq!(world.status.cursor().dead_lettered, 0);
    assert_eq!(world.status.roots.load(Ordering::Relaxed), 2);
    let fill = world.status.traces().unwrap();
    assert_eq!((fill.traces, fill.evicted), (2, 0));
    assert!(1000 < fill.bytes, "{fill:?}");
}

#[tokio::test]
async fn a_root_that_is_rejected_is_no_dead_letter() {
    let told = [Report::delivered(), Report::reject("odd", "")];
    let sink = Arc::new(Watching::with(at_once()).telling(told));
    let world = World::new(sink.clone());
    world.send_items(&[span(1, "a")], unix_now_ns() - 60 * SECOND).await;
    until(|| world.status.roots_rejected.load(Ordering::Relaxed) == 1).await;
    world.settled().await;
    assert_eq!((world.status.delivered(), world.status.cursor().dead_lettered), (1, 0));
    assert_eq!(world.dead.end().items, 0);
}

#[tokio::test]
async fn a_restart_owes_the_roots_that_were_not_sent_and_no_others() {
    let not_yet = TraceNeeds { quiet: Duration::from_mins(10), ..at_once() };
    let first = Arc::new(Watching::with(at_once()));
    let world = World::new(first.clone());
    world.send_items(&[span(1, "a")], unix_now_ns() - 60 * SECOND).await;
    until(|| first.roots() == [root(1)]).await;
    // The second life reads a trace, but ends before it is quiet.
    let (_, storage) = world.drain().await;
    let second = Arc::new(Watching::with(not_yet));
    let world = World::over(storage, second.clone());
    world.send_items(&[object(2), span(2, "a")], unix_now_ns() - 40 * SECOND).await;
    world.settled().await;
    let (_, storage) = world.drain().await;
    assert!(second.roots().is_empty());
    for expected in [vec![root(2)], vec![]] {
        let next = Arc::new(Watching::with(at_once()));
        let world = World::over(Arc::clone(&storage), next.clone());
        world.send_items(&[span(3, &format!("{expected:?}"))], unix_now_ns()).await;
        until(|| next.has_seen(id(3, &format!("{expected:?}")))).await;
        until(|| next.roots().len() >= expected.len()).await;
        world.drain().await;
        assert_eq!(next.roots(), expected);
        let root = next.seen().into_iter().find(|seen| seen.is_root);
        assert!(root.is_none_or(|root| root.context.workflow.as_deref() == Some("Shop")));
    }
}

#[tokio::test]
async fn a_lane_that_is_behind_goes_by_the_time_of_what_it_reads() {
    let after_ten_seconds = TraceNeeds { context_wait: Duration::ZERO, ..TraceNeeds::default() };
    let down = Report::down(None, "down");
    let world = World::new(Arc::new(Watching::with(after_ten_seconds).telling(vec![down; 10_000])));
    let start = unix_now_ns() - 3600 * SECOND;
    // A trace every 4 s; the first continues after 20 s.
    for number in 1..10 {
        world.send_items(&[span(number, "a")], start + u64::from(number) * 4 * SECOND).await;
        if number == 6 {
            world.send_items(&[span(1, "late")], start + 24 * SECOND).await;
        }
    }
    world.deadline.stop();
    let (_, storage) = world.drain().await;
    let sink = Arc::new(Watching::with(after_ten_seconds));
    let world = World::over(storage, sink.clone());
    until(|| sink.roots().len() == 9).await;
    world.settled().await;
    let expected: Vec<_> = (1..10).map(root).collect();
    assert_eq!(sink.roots(), expected, "in the order in which they were quiet");
    let cursor = world.status.cursor();
    assert_eq!(world.status.delivered(), 10);
    assert!(1 < cursor.stamp && cursor.stamp <= world.feed.journal().end().position.0);
}

// === Amendments ===

/// The needs of a sink at which a span replaces the one with the same id.
fn replacing() -> TraceNeeds {
    TraceNeeds { replaces_by_id: true, quiet: Duration::from_mins(10), ..at_once() }
}

fn session_of(seen: &Seen) -> Option<&str> {
    seen.context.session.as_deref()
}

/// Returns the sessions with which a span was delivered, in order.
fn told(sink: &Watching, span: SpanId) -> Vec<Option<&'static str>> {
    let seen = sink.seen().into_iter().filter(|seen| seen.span == span);
    seen.map(|seen| session_of(&seen).and(CHAT)).collect()
}

/// The group in the form that [`told`] returns.
const CHAT: Option<&str> = Some("chat-7");

#[tokio::test]
async fn what_was_sent_without_its_session_is_sent_once_more_when_that_is_known() {
    let sink = Arc::new(Watching { slots: 8, ..Watching::with(replacing()) });
    let world = World::new(sink.clone());
    for trace in 1..40 {
        world.send_items(&[span(trace, "a"), span(trace, "b")], unix_now_ns()).await;
    }
    world.settled().await;
    // New facts of many traces at the same time, with spans that have not been sent yet.
    let news: Vec<_> = (1..40).flat_map(|trace| [object(trace), span(trace, "c")]).collect();
    world.send_items(&news, unix_now_ns()).await;
    world.send_items(&[span(1, "d")], unix_now_ns()).await;
    world.settled().await;
    for trace in 1..40 {
        for name in ["a", "b"] {
            assert_eq!(told(&sink, id(trace, name)), [None, CHAT], "{trace} {name}");
        }
        assert_eq!(told(&sink, id(trace, "c")), [CHAT], "{trace}");
    }
    assert_eq!(told(&sink, id(1, "d")), [CHAT]);
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&world.status.amended), count(&world.status.unamended)), (78, 0));
    assert_eq!((world.status.delivered(), world.dead.end().items), (78 + 78 + 1, 0));
}

#[tokio::test]
async fn an_amendment_that_a_crash_cut_off_is_made_again_and_a_drained_one_is_not() {
    let first = Arc::new(Watching::with(replacing()));
    let world = World::new(first.clone());
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    world.settled().await;
    let before = world.status.cursor().mark;
    // From here on nothing is delivered.
    let down = Report::down(None, "down");
    first.reports.lock().unwrap().extend(vec![down; 100_000]);
    world.send_items(&[object(1), span(1, "b")], unix_now_ns()).await;
    until(|| 1 < told(&first, id(1, "a")).len()).await;
    assert_eq!(world.status.cursor().mark, before, "the news are not settled before the amendment");
    world.deadline.stop();
    let (_, storage) = world.drain().await;
    for expected in [vec![CHAT], vec![]] {
        let next = Arc::new(Watching::with(replacing()));
        let world = World::over(Arc::clone(&storage), next.clone());
        world.settled().await;
        assert_eq!(told(&next, id(1, "a")), expected);
        assert_eq!(world.drain().await.0, LaneState::Drained);
    }
}

#[tokio::test]
async fn an_amendment_that_is_not_taken_is_no_dead_letter_and_the_next_news_come_too() {
    let told_first = [Report::delivered(), Report::reject("odd", "")];
    let sink = Arc::new(Watching::with(replacing()).telling(told_first));
    let world = World::new(sink.clone());
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    world.settled().await;
    world.send_items(&[object(1)], unix_now_ns()).await;
    world.settled().await;
    let tagged = object(2).replace("chat-7\"", "chat-7\",\"metadata\":{\"tags\":[\"beta\"]}");
    world.send_items(&[span(2, "a")], unix_now_ns()).await;
    world.settled().await;
    world.send_items(&[tagged], unix_now_ns()).await;
    world.settled().await;
    assert_eq!(told(&sink, id(1, "a")), [None, CHAT]);
    let seen = sink.seen();
    let last = seen.iter().rfind(|seen| seen.span == id(2, "a")).unwrap();
    assert_eq!((session_of(last), last.context.tags.len()), (Some("chat-7"), 1));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((count(&world.status.amended), count(&world.status.unamended)), (1, 1));
    assert_eq!((world.status.delivered(), world.dead.end().items), (4, 0));
}

#[tokio::test]
async fn news_that_come_while_an_amendment_is_under_way_bring_another() {
    let task = |name: &str| {
        let data =
            r#"{"type":"custom","name":"task","data":{"sdk_span_type":"task","name":"Run"}}"#;
        span(1, name).replace(r#"{"type":"function","name":"f","input":"{}","output":"1"}"#, data)
    };
    let again = || Report::down(None, "busy");
    let sink = Arc::new(Watching::with(replacing()));
    let world = World::new(sink.clone());
    world.send_items(&[task("a")], unix_now_ns()).await;
    world.settled().await;
    sink.reports.lock().unwrap().extend(vec![again(); 100]);
    world.send_items(&[object(1)], unix_now_ns()).await;
    until(|| 1 < told(&sink, id(1, "a")).len()).await;
    // The second run gives the trace a root, which becomes the parent of the first too.
    world.send_items(&[task("b")], unix_now_ns()).await;
    world.settled().await;
    let seen: Vec<_> = sink.seen().into_iter().filter(|seen| seen.span == id(1, "a")).collect();
    let news = |seen: &Seen| (seen.context.session.is_some(), seen.context.root);
    assert_eq!(news(&seen[0]), (false, None));
    assert_eq!(news(&seen[1]), (true, None), "the first amendment stays the same for all attempts");
    assert_eq!(news(seen.last().unwrap()), (true, Some(root(1))));
    assert_eq!(world.status.amended.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_sink_that_does_not_replace_gets_every_span_once() {
    let sink = Arc::new(Watching::with(TraceNeeds { replaces_by_id: false, ..replacing() }));
    let world = World::new(sink.clone());
    world.send_items(&[span(1, "a")], unix_now_ns()).await;
    world.settled().await;
    world.send_items(&[object(1), span(1, "b")], unix_now_ns()).await;
    world.settled().await;
    assert_eq!((told(&sink, id(1, "a")), told(&sink, id(1, "b"))), (vec![None], vec![CHAT]));
}

// === Replays ===

#[tokio::test]
async fn a_replay_tells_a_trace_again_with_what_is_known_of_it_and_its_root() {
    let sink = Arc::new(Watching::with(at_once()));
    let world = World::new(sink.clone());
    let start_ns = unix_now_ns() - 3600 * SECOND;
    world.send_items(&[object(1)], start_ns).await;
    world.send_items(&[span(1, "a")], start_ns + SECOND).await;
    world.send_items(&[span(2, "b")], start_ns + 60 * SECOND).await;
    world.settled().await;
    until(|| sink.roots().len() == 2).await;
    sink.attempts.lock().unwrap().clear();

    let progress = tokio::sync::watch::Sender::<Progress>::default();
    let range = Range {
        from_ns: Some(start_ns + 1),
        to_ns: Some(start_ns + 2 * SECOND),
        ..Range::default()
    };
    let end = world.status.cursor().mark.position;
    let (journal, lane) = (world.feed.journal(), Some(&world.jobs));
    replay_journal(journal, (range, end), lane, &progress).await.unwrap();
    let seen: Vec<_> = sink.seen().iter().map(|seen| (seen.span, seen.is_root)).collect();
    assert_eq!(seen, [(id(1, "a"), false), (root(1), true)]);
    let knows = |seen: &Seen| seen.context.workflow.as_deref() == Some("Shop");
    assert!(sink.seen().iter().all(knows), "the trace object came before the range");
    assert_eq!((progress.borrow().items, progress.borrow().delivered), (1, 1));
    assert_eq!(world.status.replayed.load(Ordering::Relaxed), 1, "a root is no item");
}
