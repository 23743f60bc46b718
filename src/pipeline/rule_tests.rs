//! A lane with rules: what the sink gets, what is counted, and what is sent again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::policy_tests::until;
use super::tests::{World, reject};
use super::*;
use crate::operate::{Progress, Range, replay_journal};
use crate::rules::{Rules, of_text};
use crate::sinks::{Delivery, Pending, Report, Sink};
use crate::span::{TraceContext, TraceNeeds};
use crate::support::clock::unix_now_ns;

/// A sink that remembers the texts of its items, with the contexts of their traces.
#[derive(Debug, Default)]
struct Reader {
    needs: Option<TraceNeeds>,
    reports: Mutex<Vec<Report>>,
    got: Mutex<Vec<String>>,
    contexts: Mutex<Vec<TraceContext>>,
}

impl Reader {
    fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }

    /// Returns whether a text reached it in any way.
    fn knows(&self, text: &str) -> bool {
        let contexts = format!("{:?}", self.contexts.lock().unwrap());
        contexts.contains(text) || self.got().iter().any(|got| got.contains(text))
    }
}

impl Sink for Reader {
    fn trace_needs(&self) -> Option<TraceNeeds> {
        self.needs
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> Pending<'a, Report> {
        for (_, item) in delivery.items() {
            self.got.lock().unwrap().push(String::from_utf8_lossy(item.wire()).into_owned());
            let context = delivery.context(item.trace_id()).cloned();
            self.contexts.lock().unwrap().extend(context);
        }
        let report = self.reports.lock().unwrap().pop().unwrap_or_else(Report::delivered);
        Box::pin(async { report })
    }
}

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(Rules::compile(["told"], of_text(text)))
}

const NO_NOISE: &str =
    "[[rules]]\nname = \"no_noise\"\nmatch = { name = \"noise*\" }\ndrop = true\n";

/// Creates spans of one trace, one per name.
fn named(names: &[&str]) -> Vec<String> {
    let one = |name: &&str| {
        format!(
            r#"{{"object":"trace.span","id":"id {name}","trace_id":"trace_1","span_data":{{"type":"custom","name":"{name}"}}}}"#
        )
    };
    names.iter().map(one).collect()
}

/// Returns the names of the items that a sink got.
fn names(sink: &Reader) -> Vec<String> {
    let name = |got: String| {
        got.split("\"id ").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    sink.got().into_iter().filter_map(name).collect()
}

/// Returns the outcomes of a sink's items, and checks that they cover all of them.
fn counted(world: &World) -> (u64, u64, u64) {
    let cursor = world.status.cursor();
    let settled = LaneStatus::settled(&cursor, Resolved::default());
    let OutcomeCounts { delivered, dead_lettered, filtered, dropped } = settled;
    let all = delivered + dead_lettered + filtered + dropped;
    assert_eq!(all, cursor.mark.items - cursor.joined);
    assert_eq!(world.status.miscounted.load(Ordering::Relaxed), 0);
    (delivered, dead_lettered, filtered)
}

#[tokio::test]
async fn what_rules_drop_is_counted_as_filtered_at_any_moment_and_after_a_restart() {
    let sink = Arc::new(Reader::default());
    let world = World::ruled(Arc::default(), sink.clone(), rules(NO_NOISE));
    for round in 0..20 {
        let items = ["a", "noise ", "b", "noise too "].map(|name| format!("{name}{round}"));
        let items = named(&items.each_ref().map(String::as_str));
        world.send_items(&items, 1).await;
        counted(&world);
    }
    world.send_items(&named(&["noise"]), 1).await;
    world.settled().await;
    assert_eq!(counted(&world), (40, 0, 41));
    assert_eq!(names(&sink).len(), 40);
    assert!(!sink.knows("noise"));
    assert_eq!(world.status.rules.figures().collect::<Vec<_>>(), [("no_noise", 41, 0)]);
    let (_, storage) = world.drain().await;
    let world = World::ruled(storage, sink.clone(), rules(NO_NOISE));
    world.send_items(&named(&["noise again", "c"]), 1).await;
    world.settled().await;
    assert_eq!(counted(&world), (41, 0, 42));
}

#[tokio::test]
async fn a_dead_letter_has_the_item_as_rules_left_it_and_its_neighbours_keep_their_places() {
    let sink = Arc::new(Reader::default());
    sink.reports.lock().unwrap().push(reject(1, 2, "odd"));
    let world = World::ruled(Arc::default(), sink.clone(), rules(NO_NOISE));
    world.send_items(&named(&["noise", "a", "b"]), 1).await;
    world.settled().await;
    assert_eq!(counted(&world), (1, 1, 1));
    let letter = world.dead.read_from(world.dead.start().position).next().unwrap().unwrap();
    let letter = String::from_utf8_lossy(&letter.payload.unwrap()).into_owned();
    assert!(letter.contains("id b") && !letter.contains("noise"), "{letter}");
}

#[tokio::test]
async fn a_replay_brings_what_rules_leave_and_nothing_else() {
    let sink = Arc::new(Reader::default());
    let world = World::ruled(Arc::default(), sink.clone(), rules(NO_NOISE));
    world.send_items(&named(&["noise", "a"]), 1).await;
    world.settled().await;
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    let (journal, end) = (world.feed.journal(), world.feed.journal().end().position);
    replay_journal(journal, (Range::default(), end), Some(&world.jobs), &progress).await.unwrap();
    let progress = progress.borrow().clone();
    assert_eq!((progress.items, progress.delivered), (1, 1));
    assert_eq!(names(&sink), ["a", "a"]);
    assert_eq!(counted(&world), (1, 0, 1));
}

const SECRET: &str = "tell nobody";

/// Creates a trace object with a secret that a rule removes.
fn object() -> String {
    format!(r#"{{"object":"trace","id":"trace_1","workflow_name":"{SECRET}","group_id":"g"}}"#)
}

fn replacing() -> TraceNeeds {
    let quiet = Duration::from_millis(50);
    TraceNeeds {
        replaces_by_id: true,
        context_wait: Duration::ZERO,
        quiet,
        ..TraceNeeds::default()
    }
}

#[tokio::test]
async fn what_a_rule_takes_away_reaches_the_sink_through_no_context_root_or_lookback() {
    let text = format!("{NO_NOISE}[[rules]]\nmatch = {{ name = \"{SECRET}\" }}\ndrop = true\n");
    let sink = Arc::new(Reader { needs: Some(replacing()), ..Reader::default() });
    let world = World::ruled(Arc::default(), sink.clone(), rules(&text));
    let items = [vec![object()], named(&["noise", "a"])].concat();
    world.send_items(&items, unix_now_ns()).await;
    world.settled().await;
    // The root is sent once the trace was quiet.
    until(|| world.status.roots.load(Ordering::Relaxed) == 1).await;
    let (_, storage) = world.drain().await;
    let world = World::ruled(storage, sink.clone(), rules(&text));
    world.send_items(&named(&["b"]), unix_now_ns()).await;
    world.settled().await;
    assert!(names(&sink).starts_with(&["a".to_owned()]) && names(&sink).contains(&"b".to_owned()));
    assert!(!sink.knows(SECRET) && !sink.knows("noise"));
    assert_eq!(counted(&world), (2, 0, 2));
}

#[tokio::test]
async fn a_span_that_is_sent_once_more_is_the_same_one_although_others_of_its_request_are_dropped()
{
    let sink = Arc::new(Reader { needs: Some(replacing()), ..Reader::default() });
    let world = World::ruled(Arc::default(), sink.clone(), rules(NO_NOISE));
    world.send_items(&named(&["noise 1", "noise 2", "a", "noise 3", "b"]), unix_now_ns()).await;
    world.settled().await;
    let news = r#"{"object":"trace","id":"trace_1","workflow_name":"w","group_id":"g"}"#;
    world.send_items(&[news.to_owned()], unix_now_ns()).await;
    world.settled().await;
    until(|| world.status.amended.load(Ordering::Relaxed) == 2).await;
    assert_eq!(names(&sink), ["a", "b", "a", "b"]);
    assert_eq!(counted(&world), (3, 0, 3));
}

#[tokio::test]
async fn a_large_request_is_ruled_as_a_small_one() {
    let sink = Arc::new(Reader::default());
    let world = World::ruled(Arc::default(), sink.clone(), rules(NO_NOISE));
    let all: Vec<_> = (0..500)
        .map(
            |number| if number % 5 == 0 { format!("a{number}") } else { format!("noise {number}") },
        )
        .collect();
    world.send_items(&named(&all.iter().map(String::as_str).collect::<Vec<_>>()), 1).await;
    world.settled().await;
    assert_eq!(counted(&world), (100, 0, 400));
    assert_eq!(names(&sink).len(), 100);
}
