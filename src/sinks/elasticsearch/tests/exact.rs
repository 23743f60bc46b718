//! Summaries are exact: several writers, restarts, duplicates, any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fake::Manner;
use super::*;

#[tokio::test]
async fn after_a_restart_a_summary_is_made_of_what_is_there() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    let spans: Vec<Told> = (0..4).map(|n| Told::model_call(1, n, None, 10, 1)).collect();
    let mut items = vec![trace_object(1, "checkout")];
    items.extend(spans[..2].iter().map(Told::item));
    assert_eq!(first.deliver(&delivery(items)).await, Outcome::Delivered);
    drop(first);
    let second = sink(&fake, "");
    assert_eq!(second.deliver(&told(&spans[2..])).await, Outcome::Delivered);
    settled(&second).await;
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!(trace["span_count"], 4);
    assert_eq!(trace["usage"]["input_tokens"], 40);
    assert_eq!(trace["workflow_name"], "checkout", "what only the summary knew is kept");
    assert_eq!(trace["metadata"]["team"], "red");
}

#[tokio::test]
async fn what_waits_for_its_summary_is_found_again_after_a_restart() {
    let fake = Fake::start(Manner { may_read: true, ..Manner::default() }).await;
    let span = |number| Told::new(1, number, None, Kind::Custom);
    assert_eq!(sink(&fake, "").deliver(&told(&[span(1)])).await, Outcome::Delivered);
    let slow =
        sink(&fake, "refresh_wait = \"1h\"".replace("refresh_wait", "context_wait").as_str());
    assert_eq!(slow.deliver(&told(&[span(2)])).await, Outcome::Delivered);
    let state = slow.checkpoint().await.unwrap();
    assert!(!state.is_empty());
    drop(slow);
    let next = restarted(&fake, "", state);
    // Its resolver starts with the first delivery, whatever that is about.
    assert_eq!(
        next.deliver(&told(&[Told::new(2, 9, None, Kind::Custom)])).await,
        Outcome::Delivered
    );
    settled(&next).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 2);
    assert!(next.checkpoint().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_trace_object_that_comes_to_a_shared_trace_is_joined_to_its_summary() {
    let fake = Fake::start(Manner::default()).await;
    let span = Told::new(1, 1, None, Kind::Custom);
    assert_eq!(sink(&fake, "").deliver(&told(&[span])).await, Outcome::Delivered);
    let other = sink(&fake, "");
    let outcome = other.deliver(&delivery(vec![trace_object(1, "checkout")])).await;
    assert_eq!(outcome, Outcome::Delivered);
    // Already now: a crash would lose it otherwise.
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!((&trace["workflow_name"], &trace["span_count"]), (&json!("checkout"), &json!(1)));
    settled(&other).await;
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!((&trace["workflow_name"], &trace["span_count"]), (&json!("checkout"), &json!(1)));
}

#[tokio::test]
async fn a_key_that_may_not_read_lets_the_last_writer_win() {
    let fake = Fake::start(Manner { may_read: false, ..Manner::default() }).await;
    let span = |number| Told::new(1, number, None, Kind::Custom);
    assert_eq!(sink(&fake, "").deliver(&told(&[span(1)])).await, Outcome::Delivered);
    let blind = sink(&fake, "");
    assert_eq!(blind.deliver(&told(&[span(1), span(2)])).await, Outcome::Delivered);
    settled(&blind).await;
    let written = async {
        while doc(&fake, TRACES, &trace_name(1))["span_count"] != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), written).await.unwrap();
}

#[tokio::test]
async fn a_server_without_versions_gets_plain_documents() {
    let fake = Fake::start(Manner { has_seq: false, ..Manner::default() }).await;
    let sink = sink(&fake, "");
    for number in 0..3 {
        let span = Told::new(1, number, None, Kind::Custom);
        assert_eq!(sink.deliver(&told(&[span])).await, Outcome::Delivered);
    }
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 3);
    assert!(!String::from_utf8_lossy(&fake.bulks()[2].body).contains("if_seq_no"));
}

#[tokio::test]
async fn a_trace_object_alone_makes_a_document() {
    let fake = Fake::start(Manner::default()).await;
    let outcome = sink(&fake, "").deliver(&delivery(vec![trace_object(1, "checkout")])).await;
    assert_eq!(outcome, Outcome::Delivered);
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!((&trace["span_count"], &trace["duration_ms"]), (&json!(0), &json!(0.0)));
    assert_eq!(trace["timestamp"], "2026-11-21T05:15:14.529000000Z");
}

// === Any history ===

const TRACES_OF_CASE: u64 = 6;

/// What happens.
#[derive(Debug, Clone)]
enum Event {
    /// This writer delivers these spans, by their places among all.
    Deliver(usize, Vec<usize>),
    /// This writer is killed and comes back, with what it had saved.
    Restart(usize),
}

fn spans() -> Vec<Told> {
    let mut spans = Vec::new();
    for trace in 0..TRACES_OF_CASE {
        let id = |number: u64| trace * 10 + number;
        spans.push(Told::agent(
            trace,
            id(0),
            None,
            if trace % 2 == 0 { "Triage" } else { "Billing" },
        ));
        for number in 1..=trace {
            let parent = Some(id(number / 2));
            spans.push(match number % 3 {
                0 => Told::new(trace, id(number), parent, Kind::Tool),
                1 => Told::model_call(trace, id(number), parent, number * 100, number),
                _ => {
                    let mut failed = Told::new(trace, id(number), parent, Kind::Handoff);
                    failed.facts.error = Some(crate::span::Failure::default());
                    failed
                }
            });
        }
    }
    spans
}

/// Each span at least once, some of them more often, in any order, by any writer.
fn history(writers: usize) -> impl Strategy<Value = Vec<Event>> {
    let count = spans().len();
    let duplicates = proptest::collection::vec(0..count, 0..count);
    let order = duplicates.prop_flat_map(move |duplicates| {
        let all: Vec<usize> = (0..count).chain(duplicates).collect();
        Just(all).prop_shuffle()
    });
    let cuts = proptest::collection::vec((0..writers, 1_usize..5, 0_u8..8), 2 * count);
    (order, cuts).prop_map(|(order, cuts)| {
        let mut events = Vec::new();
        let mut rest = order.as_slice();
        for (writer, length, chance) in cuts {
            let (now, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            if !now.is_empty() {
                events.push(Event::Deliver(writer, now.to_vec()));
            }
            if chance == 0 {
                events.push(Event::Restart(writer));
            }
        }
        events
    })
}

async fn happens(writers: usize, events: Vec<Event>) {
    let refresh = std::time::Duration::from_millis(2);
    let fake = Fake::start(Manner { refresh, ..Manner::default() }).await;
    let all = spans();
    let mut sinks: Vec<Elasticsearch> = (0..writers).map(|_| sink(&fake, "")).collect();
    for event in events {
        match event {
            Event::Deliver(writer, places) => {
                let some: Vec<Told> = places.into_iter().map(|place| all[place].clone()).collect();
                assert_eq!(sinks[writer].deliver(&told(&some)).await, Outcome::Delivered);
            }
            Event::Restart(writer) => {
                let state = sinks[writer].checkpoint().await.unwrap();
                sinks[writer] = restarted(&fake, "", state);
            }
        }
    }
    // Whoever has something to settle does so; that may unsettle another, and so on.
    for _ in 0..=writers {
        for sink in &sinks {
            let started = sink.resolver.get().is_some();
            if !started && !sink.far_side.traces().is_settled() {
                sink.resolver.get_or_init(|| resolve::start(&sink.far_side));
            }
            settled(sink).await;
        }
    }
    for trace in 0..TRACES_OF_CASE {
        let of_trace: Vec<&Told> = all.iter().filter(|told| told.trace == trace).collect();
        let written = doc(&fake, TRACES, &trace_name(trace));
        let count = |kind| of_trace.iter().filter(|told| told.facts.kind == kind).count();
        let sum = |of: fn(&Usage) -> Option<u64>| -> u64 {
            of_trace.iter().filter_map(|told| of(&told.facts.usage)).sum()
        };
        let errors = of_trace.iter().filter(|told| told.facts.error.is_some()).count();
        let last = of_trace.iter().map(|told| told.span).max().unwrap();
        assert_eq!(written["span_count"], of_trace.len(), "{written}");
        assert_eq!(written["error_count"], errors, "{written}");
        assert_eq!(written["agent_span_count"], count(Kind::Agent), "{written}");
        assert_eq!(written["tool_call_count"], count(Kind::Tool), "{written}");
        assert_eq!(written["generation_count"], count(Kind::Generation), "{written}");
        assert_eq!(written["handoff_count"], count(Kind::Handoff), "{written}");
        let input = written["usage"]["input_tokens"].as_u64().unwrap_or_default();
        assert_eq!(input, sum(|usage| usage.input), "{written}");
        #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
        let duration = (last - trace * 10) as f64 + 2.5;
        assert_eq!(written["duration_ms"], duration, "{written}");
        let names: BTreeSet<_> =
            of_trace.iter().filter_map(|told| told.facts.agent.as_deref()).collect();
        assert_eq!(written["agents"], json!(names), "{written}");
        let deepest = u64::BITS - (of_trace.len() as u64 - 1).leading_zeros();
        assert_eq!(written["max_depth"], deepest, "{written}");
    }
    let written = fake.docs(SPANS);
    assert_eq!(written.len(), all.len());
    for told in &all {
        let doc = &written[&span_name(told.span)];
        let agent = if told.trace % 2 == 0 { "Triage" } else { "Billing" };
        assert_eq!(doc["agent"]["name"], agent, "{doc}");
        assert_eq!(doc["agent"]["span_id"], span_name(told.trace * 10).as_str(), "{doc}");
        let number = told.span - told.trace * 10;
        assert_eq!(doc["depth"], u64::BITS - number.leading_zeros(), "{doc}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_summary_is_exact_whatever_happened(
        (writers, events) in (1_usize..5).prop_flat_map(|writers| (Just(writers), history(writers)))
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(happens(writers, events));
    }
}
