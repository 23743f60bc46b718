//! Traces of the Agents SDK through an entire lane: the backend gets a root for every trace, and no parent is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value;
use spanferry::feed::{DecodedRequest, Feed, FeedOptions, Intake};
use spanferry::journal::{Cursor, Journal, MemoryStorage, Options, WhenFull};
use spanferry::normalize::{Encoding, Envelope, Limits, decode};
use spanferry::pipeline::{
    BatchLimits, DeadLetters, Lane, LaneOptions, LaneStatus, Resolved, RetryOptions,
};
use spanferry::span::{Item, Receiver as Via, Source};
use spanferry::support::clock::unix_now_ns;
use spanferry::support::stop::Stop;

use super::receiver::Receiver;
use super::{Span, fixtures, got, sink};

/// Trace and span.
type Id = (Vec<u8>, Vec<u8>);

/// The captured items, each once.
#[derive(Default)]
struct Captured {
    /// The trace objects.
    objects: Vec<Bytes>,
    /// The spans, last one first: parents come before their children.
    wires: Vec<Bytes>,
    spans: BTreeSet<Id>,
    /// Traces with a parentless span that is not a task, or with several tasks; and traces with any parentless span.
    need_a_root: [BTreeSet<Vec<u8>>; 2],
    groups: BTreeMap<Vec<u8>, String>,
}

fn captured() -> Captured {
    let mut captured = Captured::default();
    let mut spans = Vec::new();
    for fixture in fixtures::agents_sdk() {
        for item in &fixture.batch.items {
            let trace = item.trace_id().as_bytes().to_vec();
            match item {
                Item::Trace(object) => {
                    captured.objects.push(object.wire.clone());
                    captured
                        .groups
                        .extend(object.group.as_ref().map(|group| (trace, group.to_string())));
                }
                Item::Span(span) => {
                    let is_new =
                        captured.spans.insert((trace.clone(), span.span_id.as_bytes().to_vec()));
                    assert!(is_new, "{}: ids differ between scenarios", fixture.name);
                    spans.push(span.wire.clone());
                    if span.parent_id.is_none() {
                        let is_task = span.facts().sdk_span_type.as_deref() == Some("task");
                        let [others, tasks] = &mut captured.need_a_root;
                        let needs_one = !is_task || !tasks.insert(trace.clone());
                        others.extend(needs_one.then_some(trace));
                    }
                }
            }
        }
    }
    let [others, tasks] = &mut captured.need_a_root;
    tasks.extend(others.iter().cloned());
    captured.wires.extend(spans.into_iter().rev());
    captured
}

fn empty() -> Journal<()> {
    Journal::open(&Options::default(), Arc::new(MemoryStorage::default()), |_| ()).unwrap()
}

/// A journal, and later a lane that reads it from its beginning.
struct World {
    intake: Intake,
    feed: Feed,
    status: Arc<LaneStatus>,
}

impl World {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::default());
        let feed =
            Feed::open(&FeedOptions::default(), &Options::default(), storage, empty()).unwrap();
        feed.journal().save_cursor("otlp", &Cursor::default()).unwrap();
        let status = Arc::new(LaneStatus::new("otlp".to_owned(), "otlp", Cursor::default()));
        Self { intake: feed.intake(), feed, status }
    }

    /// Starts the lane, which delivers the contents of the journal.
    fn start(&self, options: &str) -> Stop {
        let sink = sink(options);
        let options = LaneOptions {
            batch: BatchLimits {
                items_max: 200,
                bytes_max: 1 << 20,
                age_max: Duration::from_millis(20),
            },
            commit_every: Duration::from_millis(50),
            retry: RetryOptions {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(5),
                hold: Duration::from_millis(5),
            },
            when_full: WhenFull::Refuse,
            ..LaneOptions::default()
        };
        let (reader, journal) = (self.feed.reader(Cursor::default().mark), self.feed.journal());
        let (journal, status) = (journal.clone(), Arc::clone(&self.status));
        let dead_letters = DeadLetters::new(empty());
        let lane = Lane::new(reader, sink, journal, dead_letters, options, status);
        let stop = Stop::default();
        tokio::spawn(lane.run(stop.clone(), Stop::default()));
        stop
    }

    /// Sends some items, as if received a minute ago: their traces are quiet as soon as everything is read.
    async fn send(&self, items: &[Bytes]) {
        let body = Bytes::from([b"{\"data\":[", &*items.join(&b","[..]), b"]}"].concat());
        let envelope = Envelope::new(
            Source {
                receiver: Via::OpenAi,
                received_at_ns: unix_now_ns() - 60_000_000_000,
                ..Source::unknown()
            },
            Encoding::Json,
            body.len(),
        );
        let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
        self.intake.accept(DecodedRequest { envelope, sent: body, decoded }).await.unwrap();
    }
}

fn ids(span: &Span) -> Id {
    (span.trace_id.clone(), span.span_id.clone())
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Sends everything through a lane with this rule; returns the spans that arrive, once the expected number has.
async fn arrived(rule: &str, captured: &Captured, roots: usize) -> Vec<Span> {
    let receiver = Receiver::default();
    let world = World::new();
    for items in captured.objects.chunks(7).chain(captured.wires.chunks(7)) {
        world.send(items).await;
    }
    let stop =
        world.start(&format!("endpoint = {:?}\nroot_span = {rule:?}", receiver.http().await));
    let all = async {
        // Roots are created after the last span was read, and then delivered like any other.
        while world.status.cursor().mark != world.feed.journal().end()
            || world.status.roots.load(Ordering::Relaxed) < roots as u64
            || receiver.spans() < captured.spans.len() + roots
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), all).await.unwrap();
    stop.stop();
    assert_eq!(
        LaneStatus::settled(&world.status.cursor(), Resolved::default()).delivered,
        (captured.objects.len() + captured.wires.len()) as u64,
        "roots are no items"
    );
    let resources = got(&receiver).into_iter().flat_map(|request| request.resource_spans);
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

#[tokio::test]
async fn no_parent_is_missing_and_every_trace_has_its_root() {
    let captured = captured();
    let [auto, always] = &captured.need_a_root;
    assert!(auto.len() > 900 && auto.len() < always.len(), "{} {}", auto.len(), always.len());
    let nobody = BTreeSet::new();
    for (rule, with_root) in [("auto", auto), ("always", always), ("never", &nobody)] {
        let spans = arrived(rule, &captured, with_root.len()).await;
        let known: BTreeSet<Id> = spans.iter().map(ids).collect();
        assert_eq!(known.len(), spans.len(), "{rule}: nothing arrives twice");
        assert!(captured.spans.is_subset(&known), "{rule}");
        let dangling = spans.iter().filter(|span| {
            let parent = (span.trace_id.clone(), span.parent_span_id.clone());
            !span.parent_span_id.is_empty() && !known.contains(&parent)
        });
        assert_eq!(dangling.count(), 0, "{rule}");
        let made: Vec<_> =
            spans.iter().filter(|span| !captured.spans.contains(&ids(span))).collect();
        let of_traces: BTreeSet<_> = made.iter().map(|root| root.trace_id.clone()).collect();
        assert_eq!((made.len(), &of_traces), (with_root.len(), with_root), "{rule}");
        for root in made {
            assert!(root.name.starts_with("invoke_workflow "), "{}", root.name);
            let below = spans.iter().filter(|span| span.parent_span_id == root.span_id);
            let (mut first, mut last) = (u64::MAX, 0);
            for span in below.filter(|span| span.trace_id == root.trace_id) {
                (first, last) =
                    (first.min(span.start_time_unix_nano), last.max(span.end_time_unix_nano));
            }
            assert!(root.start_time_unix_nano <= first && last <= root.end_time_unix_nano);
        }
        if rule == "always" {
            assert!(
                spans.iter().filter(|span| span.parent_span_id.is_empty()).count() == always.len()
            );
        }
        check_stamps(&captured, &spans);
    }
}

/// Asserts that every span has its trace object's group, and the spans below an agent have its name, although these came in other requests.
fn check_stamps(captured: &Captured, spans: &[Span]) {
    let mut in_groups = 0;
    for span in spans {
        let group = captured.groups.get(&span.trace_id).map(String::as_str);
        assert_eq!(text(span, "gen_ai.conversation.id"), group, "{}", span.name);
        assert_eq!(text(span, "session.id"), group, "{}", span.name);
        in_groups += usize::from(group.is_some());
    }
    assert!(in_groups > 50, "{in_groups}");
    let agents: BTreeSet<Id> = spans
        .iter()
        .filter(|span| text(span, "openai.agents.span_type") == Some("agent"))
        .map(ids)
        .collect();
    let below =
        |span: &&Span| agents.contains(&(span.trace_id.clone(), span.parent_span_id.clone()));
    let children: Vec<_> = spans.iter().filter(below).collect();
    assert!(children.len() > 40, "{}", children.len());
    assert!(children.iter().all(|child| text(child, "gen_ai.agent.name").is_some()));
}
