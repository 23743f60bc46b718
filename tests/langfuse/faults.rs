//! Each way in which Langfuse does not accept spans: through the sink alone, and through a daemon that must lose nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use spanferry::sinks::{Delivery, Pace, RejectClass, Report};
use spanferry::span::Receiver;

use crate::fake::{Fake, Step};
use crate::world::World;
use crate::{delivery, fixtures, otlp, sink, span};

fn some() -> Delivery {
    otlp(vec![span(Vec::new())])
}

#[tokio::test]
async fn every_answer_has_its_outcome_and_is_followed_by_the_same_bytes() {
    let fake = Fake::start().await;
    let sink = sink(&format!("{}timeout = \"300ms\"", fake.options()));
    let delivery = some();
    fake.script([
        Step::NoStorage,
        Step::NoDatabase,
        Step::Limited(7),
        Step::TooLarge,
        Step::Unauthorized,
        Step::NoQueue,
        Step::KeptWithoutAnswer,
        Step::Good,
    ]);
    let mut outcomes = Vec::new();
    for _ in 0..8 {
        outcomes.push(sink.deliver(&delivery).await);
    }
    assert!(matches!(outcomes[0].pace, Pace::Down { after: None, .. }), "{outcomes:?}");
    assert!(matches!(outcomes[1].pace, Pace::Slow { after: None, .. }), "{outcomes:?}");
    let seven = Some(Duration::from_secs(7));
    assert!(matches!(outcomes[2].pace, Pace::Slow { after, .. } if after == seven), "{outcomes:?}");
    assert!(outcomes[3].is_refused(RejectClass::TooLarge), "{outcomes:?}");
    assert!(
        matches!(&outcomes[4].pace, Pace::Hold { reason } if reason.contains("keys")),
        "{outcomes:?}"
    );
    assert!(matches!(outcomes[5].pace, Pace::Down { .. }), "{outcomes:?}");
    assert!(matches!(outcomes[6].pace, Pace::Down { .. }), "{outcomes:?}");
    assert_eq!(outcomes[7], Report::delivered());
    let bodies: BTreeSet<_> = fake.seen().into_iter().map(|post| post.body).collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!((fake.rows().len(), fake.merged().len()), (2, 1));
}

#[tokio::test]
async fn a_request_with_one_bad_span_is_malformed_as_a_whole() {
    let fake = Fake::start().await;
    fake.poison("work");
    let outcome = sink(&fake.options()).deliver(&some()).await;
    assert!(outcome.is_refused(RejectClass::Malformed), "{outcome:?}");
}

#[tokio::test]
async fn wrong_keys_and_wrong_addresses_stop_the_lane() {
    let fake = Fake::start().await;
    let wrong = fake.options().replace("sk-lf-5678", "sk-lf-0000");
    let outcome = sink(&wrong).deliver(&some()).await;
    assert!(
        matches!(&outcome.pace, Pace::Hold { reason } if reason.contains("401")),
        "{outcome:?}"
    );
    let elsewhere = fake.options().replace(&fake.url, &format!("{}/shop", fake.url));
    let outcome = sink(&elsewhere).deliver(&some()).await;
    assert!(
        matches!(&outcome.pace, Pace::Hold { reason } if reason.contains("3.22")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_delivery_is_cut_where_it_would_be_too_large_before_compression() {
    let large = |number: u8| {
        let text = format!("{number}").repeat(900_000);
        let mut span = span(vec![crate::text("input.value", &text)]);
        span.span_id = vec![number; 8];
        span
    };
    let delivery = otlp((1..=10).map(large).collect());
    let fake = Fake::start().await;
    assert_eq!(sink(&fake.options()).deliver(&delivery).await, Report::delivered());
    let posts = fake.posts();
    assert!(posts.iter().all(|post| post.message.len() <= 4_000_000));
    assert_eq!((posts.len(), fake.rows().len(), fake.merged().len()), (3, 10, 10));
}

#[tokio::test]
async fn a_span_over_the_servers_limit_arrives_with_its_payload_cut_and_a_note_that_says_so() {
    let fake = Fake::start().await;
    fake.limit_bodies(200_000);
    let noise = "0123456789abcdef".repeat(100_000);
    let attributes = || {
        vec![
            crate::text("gen_ai.operation.name", "chat"),
            crate::text("gen_ai.request.model", "gpt-5"),
            crate::number("gen_ai.usage.input_tokens", 7),
            crate::text("langfuse.observation.input", &noise),
            crate::text("langfuse.observation.output", "short"),
        ]
    };
    let sink = sink(&fake.options());
    let mut other = span(vec![crate::text("input.value", "small")]);
    other.span_id = vec![2; 8];
    let outcome = sink.deliver(&otlp(vec![span(attributes()), other])).await;
    assert!(outcome.is_refused(RejectClass::TooLarge), "two are halved first: {outcome:?}");
    assert_eq!(sink.deliver(&otlp(vec![span(attributes())])).await, Report::delivered());
    let [row] = &fake.rows()[..] else { panic!("{:?}", fake.rows()) };
    let input = row.input.as_deref().unwrap();
    assert!(input.len() < noise.len() && input.ends_with("... [truncated]"));
    assert_eq!((row.output.as_deref(), row.model.as_deref()), (Some("short"), Some("gpt-5")));
    assert_eq!(row.usage["input"], 7);
    let note = format!("{:?}", row.metadata);
    assert!(note.contains("spanferry") && note.contains("langfuse.observation.input"), "{note}");
}

#[tokio::test]
async fn a_span_that_stays_too_large_however_it_is_cut_is_refused_in_the_end() {
    let fake = Fake::start().await;
    fake.limit_bodies(10);
    let large = span(vec![crate::text("input.value", &"x".repeat(900_000))]);
    let outcome = sink(&fake.options()).deliver(&otlp(vec![large])).await;
    assert!(outcome.is_refused(RejectClass::TooLarge), "{outcome:?}");
    assert_eq!(fake.rows().len(), 0);
}

// === Through a daemon ===

const QUICK: &str = "context_wait = \"10ms\"\ntimeout = \"300ms\"\n\
    retry = { first = \"10ms\", longest = \"50ms\", hold = \"50ms\" }\nbatch = { age_max = \"20ms\" }\n";

/// Runs whose spans are all below a task, so that no roots are created.
const RUNS: [&str; 6] = [
    "python/p01_hello_responses",
    "python/p02_handoff_chain",
    "python/p10_chat_completions",
    "python/p12_responses_stream",
    "js/j01_hello_responses",
    "js/j02_handoff_chain",
];

async fn send(world: &World) {
    for name in RUNS {
        let path = fixtures::golden().join(format!("agents-sdk/{name}/001.body.json"));
        world.agents_sdk(std::fs::read(path).unwrap()).await;
    }
}

fn spans_sent() -> usize {
    let count = |name: &str| {
        let path = fixtures::golden().join(format!("agents-sdk/{name}/001.body.json"));
        delivery(Receiver::OpenAi, std::fs::read(path).unwrap()).spans().count()
    };
    RUNS.into_iter().map(count).sum()
}

/// Asserts that everything arrived, and no span under two starts, which Langfuse would count twice forever.
fn assert_whole(fake: &Fake, spans: usize) {
    assert_eq!(fake.lost(), Vec::<String>::new());
    let merged = fake.merged();
    assert_eq!(merged.len(), spans);
    let mut starts: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
    for row in fake.rows() {
        starts.entry((row.trace, row.id)).or_default().insert(row.start_ms);
    }
    assert!(starts.values().all(|starts| starts.len() == 1), "a span has two starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_is_down() {
    for fault in [
        Step::NoStorage,
        Step::NoQueue,
        Step::KeptWithoutAnswer,
        Step::NoDatabase,
        Step::Limited(0),
    ] {
        let world = World::start(QUICK).await;
        // More often than a lane tries an entire delivery that breaks a server.
        world.fake.script(vec![fault; 5]);
        send(&world).await;
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{fault:?}: {sink}");
        assert_whole(&world.fake, spans_sent());
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_that_spoils_its_request_is_set_aside_alone() {
    let world = World::start(QUICK).await;
    world.fake.poison("handoff Triage -> Billing");
    send(&world).await;
    let sink = world.settled().await;
    let dead = sink["dead_lettered"].as_u64().unwrap();
    assert!(0 < dead, "{sink}");
    assert_whole(&world.fake, spans_sent() - usize::try_from(dead).unwrap());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_mended_lose_nothing() {
    let world = World::start(QUICK).await;
    world.fake.revoke_keys(true);
    send(&world).await;
    let sink = world.until("hold", |sink, _| sink["state"] == "holding").await;
    assert!(sink["problem"].as_str().unwrap().contains("keys"), "{sink}");
    assert_eq!(world.fake.rows().len(), 0);
    world.fake.revoke_keys(false);
    let sink = world.settled().await;
    assert_eq!(sink["dead_lettered"], 0, "{sink}");
    assert_whole(&world.fake, spans_sent());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_the_server_finds_too_large_are_halved_until_they_fit() {
    let world = World::start(QUICK).await;
    world.fake.limit_bodies(20_000);
    send(&world).await;
    let sink = world.settled().await;
    assert_eq!(sink["dead_lettered"], 0, "{sink}");
    assert_whole(&world.fake, spans_sent());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_object_that_comes_just_after_its_spans_is_waited_for() {
    let world = World::start("context_wait = \"30s\"\nbatch = { age_max = \"20ms\" }").await;
    let trace = "trace_21990c0290104f62b71ed955a1f966f7";
    let span = json!({ "data": [{
        "object": "trace.span", "id": "span_7d015efb82524c3c947945ef", "trace_id": trace, "parent_id": "span_6dd8c8fcbfa64dc99f2862f4",
        "started_at": "2026-11-21T05:15:09.529503+00:00", "ended_at": "2026-11-21T05:15:10.529503+00:00",
        "span_data": { "type": "agent", "name": "A" }, "error": null }] });
    let object = json!({ "data": [{
        "object": "trace", "id": trace, "workflow_name": "Late", "group_id": "g", "metadata": { "user_id": "ada" } }] });
    world.agents_sdk(span.to_string()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.fake.rows().len(), 0);
    world.agents_sdk(object.to_string()).await;
    world.until("row", |_, fake| !fake.rows().is_empty()).await;
    let row = world.fake.rows().remove(0);
    assert_eq!(row.trace_name.as_deref(), Some("Late"));
    assert_eq!((row.session.as_deref(), row.user.as_deref()), (Some("g"), Some("ada")));
    world.stop().await;
}
