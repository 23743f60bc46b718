//! Summaries are exact: several writers, restarts, duplicates, faults, any order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fake::{Fault, Manner};
use super::*;
use crate::prices::Prices;
use crate::span::SpanError;

fn spans_of(trace: u64, count: u64) -> Vec<Told> {
    (0..count).map(|n| Told::model_call(trace, n, None, 10, 1)).collect()
}

#[tokio::test]
async fn after_a_restart_a_summary_is_made_of_what_is_there() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    let spans = spans_of(1, 4);
    let mut items = vec![trace_object(1, "checkout")];
    items.extend(spans[..2].iter().map(Told::item));
    assert_eq!(first.deliver(&delivery(items)).await, Report::delivered());
    drop(first);
    let second = sink(&fake, "");
    assert_eq!(second.deliver(&told(&spans[2..])).await, Report::delivered());
    settled(&second).await;
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!(trace["span_count"], 4);
    assert_eq!(trace["usage"]["input_tokens"], 40);
    assert_eq!(trace["workflow_name"], "checkout", "what only the trace object says is kept");
    assert_eq!(trace["metadata"]["team"], "red");
}

#[tokio::test]
async fn after_a_restart_spans_have_the_agent_that_an_earlier_life_wrote() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    assert_eq!(
        first.deliver(&told(&[Told::agent(1, 1, None, "Triage")])).await,
        Report::delivered()
    );
    let state = first.checkpoint().await.unwrap();
    drop(first);
    let second = restarted(&fake, "", state);
    let below = [Told::new(1, 3, Some(2), Kind::Custom), Told::new(1, 2, Some(1), Kind::Tool)];
    for span in below {
        assert_eq!(second.deliver(&told(&[span])).await, Report::delivered());
    }
    settled(&second).await;
    for (span, depth) in [(2, 1), (3, 2)] {
        let doc = doc(&fake, SPANS, &span_name(span));
        assert_eq!(doc["agent"], json!({"name": "Triage", "span_id": span_name(1)}), "{span}");
        assert_eq!(doc["depth"], depth, "{span}");
    }
}

#[tokio::test]
async fn sums_beyond_the_largest_number_of_a_field_are_cut_to_it_and_the_trace_has_its_summary() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let most = i64::MAX as u64;
    let spans: Vec<_> = (0..3).map(|n| Told::model_call(1, n, None, most, u64::MAX)).collect();
    assert_eq!(sink.deliver(&told(&spans)).await, Report::delivered());
    settled(&sink).await;
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!(trace["span_count"], 3, "{trace}");
    for count in ["input_tokens", "output_tokens", "total_tokens"] {
        assert_eq!(trace["usage"][count], most, "{count}");
        let spans = fake.docs(SPANS);
        for doc in spans.values().filter_map(|doc| doc["usage"][count].as_u64()) {
            assert!(doc <= most, "{count}: {doc}");
        }
    }
}

#[tokio::test]
async fn what_an_earlier_life_owed_is_found_by_its_checkpoint() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    // More traces than one page of a search.
    let spans: Vec<Told> = (0..1500).map(|n| Told::new(n, n, None, Kind::Custom)).collect();
    assert_eq!(first.deliver(&told(&spans)).await, Report::delivered());
    let state = first.checkpoint().await.unwrap();
    assert!(state.len() < 32, "however much is owed: {state:?}");
    drop(first);
    // Everything that was built before the restart is built again.
    for (id, _) in fake.docs(TRACES) {
        fake.delete(TRACES, &id);
    }
    let next = restarted(&fake, "", state);
    settled(&next).await;
    assert_eq!(fake.docs(TRACES).len(), 1500);
    assert!(next.checkpoint().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_trace_object_is_there_at_once_whoever_wrote_the_summary() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    assert_eq!(first.deliver(&told(&spans_of(1, 1))).await, Report::delivered());
    settled(&first).await;
    let other = sink(&fake, "");
    let outcome = other.deliver(&delivery(vec![trace_object(1, "checkout")])).await;
    assert_eq!(outcome, Report::delivered());
    // It must already be stored; otherwise a crash would lose it.
    let said = |trace: &Json| (trace["workflow_name"].clone(), trace["span_count"].clone());
    assert_eq!(said(&doc(&fake, TRACES, &trace_name(1))), (json!("checkout"), json!(1)));
    settled(&other).await;
    assert_eq!(said(&doc(&fake, TRACES, &trace_name(1))), (json!("checkout"), json!(1)));
}

#[tokio::test]
async fn a_trace_that_is_refused_alone_keeps_no_other_from_its_summary_and_is_left_out() {
    for path in ["/_mget", "/_msearch", "/_bulk"] {
        let fake = Fake::start(Manner::default()).await;
        let calls: Vec<_> = (0..20).map(|n| Told::model_call(n, n, None, 1, 1)).collect();
        deliver_all(&sink(&fake, "trace_summary = \"off\""), told(&calls)).await;
        fake.manner(|manner| manner.refused = Some((path, trace_name(7))));
        // A sink that finds all traces in its first round.
        let metrics = crate::telemetry::Metrics::default();
        let (figures, state) = (metrics.of_sink("search"), Bytes::from_static(b"1"));
        let text = format!("endpoints = [{:?}]\nrefresh_wait = \"5ms\"", fake.address);
        let parts = Parts { state, figures, ..Parts::default() };
        let sink = Elasticsearch::new(parse(&text).unwrap(), &parts, changes::BYTES_MAX).unwrap();
        sink.start_summaries();
        let left_out = "es_trace_summary_left_out_total{sink=\"search\"} 1";
        let others = async {
            while fake.docs(TRACES).len() < 19 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // It is only left out because others are accepted.
            // A trace without a pause is summarized much later.
            let mut pause = tokio::time::interval(Duration::from_millis(200));
            while !page_of(&metrics).contains(left_out) {
                deliver_all(&sink, told(&calls[..1])).await;
                pause.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), others).await.expect(path);
        settled(&sink).await;
        assert_eq!(fake.docs(TRACES).len(), 19, "{path}");
        assert_eq!(doc(&fake, TRACES, &trace_name(7)), Json::Null, "{path}");
        // A later span of it is another chance.
        fake.manner(|manner| manner.refused = None);
        deliver_all(&sink, told(&calls[7..8])).await;
        settled(&sink).await;
        assert_eq!(doc(&fake, TRACES, &trace_name(7))["span_count"], 1, "{path}");
    }
}

#[tokio::test]
async fn a_request_of_summaries_that_is_refused_as_a_whole_does_not_stop_the_others() {
    let fake = Fake::start(Manner::default()).await;
    let calls: Vec<_> = (0..100).map(|trace| Told::model_call(trace, trace, None, 1, 1)).collect();
    deliver_all(&sink(&fake, "trace_summary = \"off\""), told(&calls)).await;
    let before = fake.bulks().len();
    fake.fail([Fault::Whole(400, json!({}))]);
    // A sink that finds all traces in its first round, and needs several requests for their summaries.
    let limits = "doc_bytes_max = \"16KiB\"\nrequest_bytes_max = \"16KiB\"";
    settled(&restarted(&fake, limits, Bytes::from_static(b"1"))).await;
    let asked = |seen: &fake::Seen| seen.path.contains("/_mget");
    let first_round = fake.seen().into_iter().skip_while(|seen| !asked(seen)).skip(1);
    let first_round = first_round.take_while(|seen| !asked(seen));
    let bulks = first_round.filter(|seen| seen.path.contains("/_bulk")).count();
    assert!(1 < bulks && bulks < fake.bulks().len() - before, "{bulks} requests");
    assert_eq!(fake.docs(TRACES).len(), 100);
}

#[tokio::test]
async fn a_key_that_may_not_read_gets_no_summaries_and_is_told_so() {
    for may_read_others in [false, true] {
        let manner = Manner { may_read: false, may_read_others, ..Manner::default() };
        let fake = Fake::start(manner).await;
        let sink = sink(&fake, "");
        assert_eq!(sink.deliver(&told(&spans_of(1, 2))).await, Report::delivered());
        let told_so = async {
            while sink.notice().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told_so).await.unwrap();
        assert!(sink.notice().unwrap().contains("the privilege `read`"));
        assert!(fake.docs(TRACES).is_empty());
        assert!(!sink.checkpoint().await.unwrap().is_empty(), "it is owed");
        fake.manner(|manner| manner.may_read = true);
        settled(&sink).await;
        assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 2);
        assert_eq!(sink.notice(), None);
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_for_a_while_after_a_restart_loses_no_summary() {
    let fake = Fake::start(Manner::default()).await;
    let first = sink(&fake, "");
    assert_eq!(first.deliver(&told(&spans_of(1, 40))).await, Report::delivered());
    settled(&first).await;
    assert_eq!(first.deliver(&told(&spans_of(1, 43)[40..])).await, Report::delivered());
    let state = first.checkpoint().await.unwrap();
    drop(first);
    let second = restarted(&fake, "", state);
    second.start_summaries();
    fake.manner(|manner| manner.is_authorized = false);
    let before = fake.seen().len();
    let refused = async {
        while fake.seen().len() < before + 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    fake.manner(|manner| manner.is_authorized = true);
    settled(&second).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 43);
}

#[tokio::test]
async fn a_trace_that_stays_busy_has_a_summary_meanwhile() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let counted = || doc(&fake, TRACES, &trace_name(1))["span_count"].as_u64().unwrap_or_default();
    // Each span restarts the trace's wait.
    for number in 0..20_000 {
        let span = Told::new(1, number, None, Kind::Custom);
        assert_eq!(sink.deliver(&told(&[span])).await, Report::delivered());
        if 20 < counted() {
            return;
        }
    }
    panic!("{} of 20,000 spans are counted", counted());
}

#[tokio::test]
async fn documents_that_are_found_late_are_waited_for() {
    let refresh = Duration::from_millis(100);
    let fake = Fake::start(Manner { refresh, ..Manner::default() }).await;
    let sink = sink(&fake, "");
    assert_eq!(sink.deliver(&told(&spans_of(1, 5))).await, Report::delivered());
    settled(&sink).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 5);
}

#[tokio::test]
async fn a_trace_object_alone_makes_a_document() {
    let fake = Fake::start(Manner::default()).await;
    let outcome = sink(&fake, "").deliver(&delivery(vec![trace_object(1, "checkout")])).await;
    assert_eq!(outcome, Report::delivered());
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!((&trace["span_count"], &trace["duration_ms"]), (&json!(0), &json!(0.0)));
    assert_eq!(trace["timestamp"], "2026-11-21T05:15:14.529000000Z");
}

/// A task of the SDK with tokens, two consecutive agents below it, and a model call without tokens of each.
fn run_of_a_task() -> Vec<Told> {
    let mut task = Told::new(1, 1, None, Kind::Chain);
    task.facts.sdk_span_type = Some(Text::from_static("task"));
    task.facts.aggregate_usage = Usage { input: Some(480), output: Some(20), ..Usage::default() };
    vec![
        Told::new(1, 4, Some(2), Kind::Generation),
        Told::agent(1, 2, Some(1), "Triage"),
        Told::new(1, 5, Some(3), Kind::Generation),
        Told::agent(1, 3, Some(1), "Billing"),
        task,
    ]
}

/// Returns the sum of tokens over all agents, as a dashboard computes it, and the tokens of the summary.
fn tokens(fake: &Fake) -> (u64, u64) {
    let input = |doc: &Json| doc["usage"]["input_tokens"].as_u64();
    let spans = fake.docs(SPANS);
    let of_agents = spans.values().filter(|doc| doc["agent"]["name"].is_string());
    (
        of_agents.filter_map(input).sum(),
        input(&doc(fake, TRACES, &trace_name(1))).unwrap_or_default(),
    )
}

#[tokio::test]
async fn tokens_that_only_a_task_says_count_and_have_an_agent_whoever_sent_it() {
    for cut in 0..5 {
        let fake = Fake::start(Manner::default()).await;
        let spans = run_of_a_task();
        // The task may arrive after a restart, or at another daemon, which has not seen the other spans.
        for some in [&spans[..cut], &spans[cut..]] {
            let sink = sink(&fake, "");
            assert_eq!(sink.deliver(&told(some)).await, Report::delivered());
            settled(&sink).await;
        }
        assert_eq!(tokens(&fake), (480, 480), "{cut}");
    }
}

#[tokio::test]
async fn a_call_whose_tokens_come_late_takes_those_of_its_task_out() {
    let fake = Fake::start(Manner::default()).await;
    for (spans, expected) in
        [(run_of_a_task(), 480), (vec![Told::model_call(1, 6, Some(2), 70, 7)], 70)]
    {
        let sink = sink(&fake, "");
        assert_eq!(sink.deliver(&told(&spans)).await, Report::delivered());
        settled(&sink).await;
        assert_eq!(tokens(&fake), (expected, expected));
    }
    let task = doc(&fake, SPANS, &span_name(1));
    assert_eq!(task["aggregate_usage"]["input_tokens"], 480, "it is still there: {task}");
}

#[tokio::test]
async fn a_trace_with_more_spans_than_are_looked_at_is_summed_up_all_the_same() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let mut spans: Vec<Told> = (0..10_050).map(|n| Told::new(1, n, None, Kind::Custom)).collect();
    spans.push(Told::new(2, 20_000, None, Kind::Custom));
    assert_eq!(sink.deliver(&told(&spans)).await, Report::delivered());
    settled(&sink).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 10_050);
    assert_eq!(doc(&fake, TRACES, &trace_name(2))["span_count"], 1);
}

#[tokio::test]
async fn a_trace_costs_exactly_what_its_spans_do() {
    let fake = Fake::start(Manner::default()).await;
    let prices = "overrides = { dear = { input = 0.1, output = 0.7 } }";
    let prices = Arc::new(Prices::new(&toml::from_str(prices).unwrap(), None));
    let text = format!("endpoints = [{:?}]\nrefresh_wait = \"5ms\"", fake.address);
    let parts = Parts { prices, ..Parts::default() };
    let sink = Elasticsearch::new(parse(&text).unwrap(), &parts, changes::BYTES_MAX).unwrap();
    let calls = (0..300_u64).map(|n| {
        let mut call = Told::model_call(1, 10 + n, Some(1), 7 * n + 10, 13 * n);
        call.facts.request_model = Some(Text::from_static("dear"));
        // Every third has its own cost.
        call.facts.cost.total = n.is_multiple_of(3).then_some(0.000_000_1);
        call
    });
    // Tokens that an agent repeats cost nothing.
    let mut agent = Told::agent(1, 1, None, "Triage");
    agent.facts.request_model = Some(Text::from_static("dear"));
    agent.facts.aggregate_usage = Usage { input: Some(5_000_000), ..Usage::default() };
    let spans: Vec<_> = calls.chain([agent]).collect();
    for some in spans.chunks(100) {
        deliver_all(&sink, told(some)).await;
        settled(&sink).await;
    }
    let nanos = (0..300_u64).map(|n| {
        let tenths = (7 * n + 10) + 7 * 13 * n;
        // 0.1 dollars per million tokens are 100 billionths of a dollar per token.
        if n.is_multiple_of(3) { 100 } else { tenths * 100 }
    });
    #[expect(clippy::cast_precision_loss, reason = "few billionths")]
    let expected = nanos.sum::<u64>() as f64 / 1e9;
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!(trace["usage"]["cost_usd"].as_f64(), Some(expected));
    let cost = |span| {
        let usage = &doc(&fake, SPANS, &span_name(span))["usage"];
        (usage["cost_source"].as_str().map(str::to_owned), usage["cost_usd"].as_f64())
    };
    assert_eq!(cost(10), (Some("sdk".to_owned()), Some(1e-7)));
    assert_eq!(cost(11), (Some("override".to_owned()), Some(10.8e-6)));
    assert_eq!(cost(1), (None, None));
}

// === Arbitrary histories ===

const TRACES_OF_CASE: u64 = 6;
/// The number of changes that take longer than stored documents take to become searchable.
const BUSY_CHANGES: usize = 16;

/// An event.
#[derive(Debug, Clone)]
enum Event {
    /// This writer delivers these spans, by index.
    Deliver(usize, Vec<usize>),
    /// This writer saves its checkpoint with its cursor.
    Save(usize),
    /// This writer is killed and restarts with its last checkpoint, which may be old.
    Restart(usize),
    /// The next requests fail.
    Faults,
    /// All keys are unknown for a moment.
    Revoked,
    /// The largest trace keeps changing while this writer works.
    Busy(usize),
}

/// After this, the Agents SDK goes on with one of the handoffs.
const MULTIPLE_HANDOFFS: &str = "Multiple handoffs requested";

fn all_spans() -> Vec<Told> {
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
                    // The run goes on after every second failure.
                    let message = if number % 2 == 0 { MULTIPLE_HANDOFFS } else { "no" }.into();
                    failed.facts.error = Some(SpanError { message, ..SpanError::default() });
                    // A clock that was never set, and a broken one.
                    failed.start_ns = (trace == 4).then_some(1_000_000_000);
                    failed.end_ns = (trace == 4).then_some(u64::MAX);
                    failed
                }
            });
        }
    }
    spans
}

/// Generates histories in which each span is delivered at least once, in any order, by any writer.
fn history(writers: usize) -> impl Strategy<Value = Vec<Event>> {
    let count = all_spans().len();
    let duplicates = proptest::collection::vec(0..count, 0..count);
    let order = duplicates.prop_flat_map(move |duplicates| {
        let all: Vec<usize> = (0..count).chain(duplicates).collect();
        Just(all).prop_shuffle()
    });
    let cuts = proptest::collection::vec((0..writers, 1_usize..5, 0_u8..12), 2 * count);
    (order, cuts).prop_map(|(order, cuts)| {
        let mut events = Vec::new();
        let mut rest = order.as_slice();
        for (writer, length, chance) in cuts {
            let (now, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            if now.is_empty() {
                break;
            }
            events.extend(match chance {
                0 | 1 => Some(Event::Restart(writer)),
                2 | 3 => Some(Event::Save(writer)),
                4 => Some(Event::Faults),
                5 => Some(Event::Revoked),
                6 => Some(Event::Busy(writer)),
                _ => None,
            });
            events.push(Event::Deliver(writer, now.to_vec()));
        }
        events
    })
}

/// A daemon: its sink, its deliveries, and its checkpoints.
struct Writer {
    sink: Elasticsearch,
    delivered: Vec<Vec<usize>>,
    saved: (Bytes, usize),
}

impl Writer {
    /// Creates a sink with room for two traces, which must search for all others.
    fn sink(fake: &Fake, state: Bytes) -> Elasticsearch {
        let text = format!("endpoints = [{:?}]\nrefresh_wait = \"5ms\"", fake.address);
        let parts = Parts { name: "search".to_owned(), state, ..Parts::default() };
        Elasticsearch::new(parse(&text).unwrap(), &parts, 700).unwrap()
    }

    async fn deliver(&self, all: &[Told], places: &[usize]) {
        let some: Vec<Told> = places.iter().map(|place| all[*place].clone()).collect();
        deliver_all(&self.sink, told(&some)).await;
    }
}

async fn happens(writers: usize, events: Vec<Event>) {
    let refresh = Duration::from_millis(2);
    let fake = Fake::start(Manner { refresh, ..Manner::default() }).await;
    let all = all_spans();
    let writer = || Writer {
        sink: Writer::sink(&fake, Bytes::new()),
        delivered: Vec::new(),
        saved: (Bytes::new(), 0),
    };
    let mut writers: Vec<Writer> = (0..writers).map(|_| writer()).collect();
    for event in events {
        match event {
            Event::Deliver(writer, places) => {
                writers[writer].deliver(&all, &places).await;
                writers[writer].delivered.push(places);
            }
            Event::Save(writer) => {
                let writer = &mut writers[writer];
                writer.saved = (writer.sink.checkpoint().await.unwrap(), writer.delivered.len());
            }
            Event::Restart(writer) => {
                let writer = &mut writers[writer];
                writer.sink = Writer::sink(&fake, writer.saved.0.clone());
                writer.sink.start_summaries();
                for places in &writer.delivered[writer.saved.1..] {
                    writer.deliver(&all, places).await;
                }
            }
            Event::Faults => {
                let busy = json!({"type": "es_rejected_execution_exception"});
                let busy = [Fault::Items(2, 429, busy), Fault::Whole(503, json!({}))];
                fake.fail(busy.into_iter().chain([Fault::Reset, Fault::Cut]));
            }
            Event::Busy(writer) => {
                for _ in 0..BUSY_CHANGES {
                    writers[writer].deliver(&all, &[all.len() - 1]).await;
                }
                writers[writer].delivered.push(vec![all.len() - 1]);
            }
            Event::Revoked => {
                fake.manner(|manner| manner.is_authorized = false);
                let before = fake.seen().len();
                let outcome = writers[0].sink.deliver(&told(&all[..1])).await;
                assert!(outcome != Report::delivered() && before < fake.seen().len());
                fake.manner(|manner| manner.is_authorized = true);
            }
        }
    }
    for writer in &writers {
        settled(&writer.sink).await;
    }
    for trace in 0..TRACES_OF_CASE {
        let of_trace: Vec<&Told> = all.iter().filter(|told| told.trace == trace).collect();
        assert_summary(&doc(&fake, TRACES, &trace_name(trace)), &of_trace);
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

fn assert_summary(written: &Json, of_trace: &[&Told]) {
    let count = |kind| of_trace.iter().filter(|told| told.facts.kind == kind).count();
    let is_fatal = |error: &SpanError| &*error.message != MULTIPLE_HANDOFFS;
    let errors = of_trace.iter().filter(|told| told.facts.error.as_ref().is_some_and(is_fatal));
    let errors = errors.count();
    assert_eq!(written["span_count"], of_trace.len(), "{written}");
    assert_eq!(written["error_count"], errors, "{written}");
    assert_eq!(written["agent_span_count"], count(Kind::Agent), "{written}");
    assert_eq!(written["tool_call_count"], count(Kind::Tool), "{written}");
    assert_eq!(written["generation_count"], count(Kind::Generation), "{written}");
    assert_eq!(written["handoff_count"], count(Kind::Handoff), "{written}");
    let expected: u64 = of_trace.iter().filter_map(|told| told.facts.usage.input).sum();
    let input = written["usage"]["input_tokens"].as_u64().unwrap_or_default();
    assert_eq!(input, expected, "{written}");
    let times = of_trace.iter().filter(|told| told.end_ns.is_none()).map(|told| told.span);
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    #[expect(clippy::cast_precision_loss, reason = "a few milliseconds")]
    let duration = (last - first) as f64 + 2.5;
    assert_eq!(written["duration_ms"], duration, "{written}");
    let names: BTreeSet<_> =
        of_trace.iter().filter_map(|told| told.facts.agent.as_deref()).collect();
    assert_eq!(written["agents"], json!(names), "{written}");
    let deepest = u64::BITS - (of_trace.len() as u64 - 1).leading_zeros();
    assert_eq!(written["max_depth"], deepest, "{written}");
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
