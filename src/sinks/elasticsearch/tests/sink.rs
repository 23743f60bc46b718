//! The sink against an in-process backend: what arrives, and what happens to the rest.

use super::fake::{Fault, Manner};
use super::*;
use crate::sinks::{RejectClass, Verdicts};

/// An agent with a model call and a tool below it, in the order in which they end.
fn run() -> [Told; 3] {
    [
        Told::model_call(1, 3, Some(1), 100, 20),
        Told::new(1, 2, Some(1), Kind::Tool),
        Told::agent(1, 1, None, "Triage"),
    ]
}

fn rejected(status: u16) -> Json {
    json!({"type": "document_parsing_exception", "reason": format!("status {status}")})
}

fn busy() -> Json {
    json!({"type": "es_rejected_execution_exception", "reason": "rejected execution"})
}

/// Returns the first word of a value's debug form.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(', '{']).next().unwrap().to_owned()
}

/// Returns the verdict of each item and the pace, in one word each.
fn words(report: &Report, items: usize) -> String {
    let verdicts = (0..items).map(|place| word(report.verdicts.of(place)));
    verdicts.chain([word(&report.pace)]).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn spans_arrive_in_one_request_and_their_trace_is_summed_up() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "compression = \"gzip\"\napi_key = \"id:secret\"");
    let mut items = vec![trace_object(1, "checkout")];
    items.extend(run().iter().map(Told::item));
    assert_eq!(sink.deliver(&delivery(items)).await, Report::delivered());
    let bulks = fake.bulks();
    settled(&sink).await;
    assert_eq!(bulks[0].headers["content-type"], "application/x-ndjson");
    assert_eq!(bulks[0].headers["content-encoding"], "gzip");
    assert_eq!(bulks[0].headers["authorization"], "ApiKey aWQ6c2VjcmV0");
    assert_eq!(bulks[0].headers["x-elastic-event-count"], "4");
    let length = bulks[0].body.len().to_string();
    assert_eq!(bulks[0].headers["x-elastic-uncompressed-request-length"], length.as_str());
    let spans = fake.docs(SPANS);
    assert_eq!(spans.len(), 3);
    let tool = &spans[&span_name(2)];
    assert_eq!(tool["span_type"], "tool_call");
    assert_eq!(tool["attributes"]["span_data"]["type"], "function");
    assert_eq!(tool["agent"], json!({"name": "Triage", "span_id": span_name(1)}));
    assert_eq!(tool["parent_id"], span_name(1).as_str());
    assert_eq!(tool["depth"], 1);
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!(trace["span_count"], 3);
    assert_eq!(trace["workflow_name"], "checkout");
    assert_eq!(trace["group_id"], "group");
    assert_eq!(trace["metadata"], json!({"team": "red", "limits": [1, 2]}));
    assert_eq!(trace["metadata_kv"], json!(["team=red"]));
    assert_eq!(
        trace["usage"],
        json!({"input_tokens": 100, "output_tokens": 20, "total_tokens": 120})
    );
    assert_eq!(trace["duration_ms"], 4.5);
}

#[tokio::test]
async fn an_agent_that_comes_later_is_filled_in_below_it() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let [model_call, tool, agent] = run();
    let deeper = Told::new(1, 4, Some(2), Kind::Custom);
    for span in [deeper, model_call, tool, agent] {
        assert_eq!(sink.deliver(&told(&[span])).await, Report::delivered());
    }
    settled(&sink).await;
    let spans = fake.docs(SPANS);
    for (span, depth) in [(1, 0), (2, 1), (3, 1), (4, 2)] {
        let doc = &spans[&span_name(span)];
        assert_eq!(doc["agent"]["name"], "Triage", "{span}");
        assert_eq!(doc["agent"]["span_id"], span_name(1).as_str(), "{span}");
        assert_eq!(doc["depth"], depth, "{span}");
    }
    let trace = doc(&fake, TRACES, &trace_name(1));
    assert_eq!((&trace["span_count"], &trace["max_depth"]), (&json!(4), &json!(2)));
}

#[tokio::test]
async fn only_what_failed_is_sent_again() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "trace_summary = \"off\"");
    let spans: Vec<Told> = (0..6).map(|n| Told::new(1, n, None, Kind::Custom)).collect();
    fake.fail([Fault::Items(2, 429, busy())]);
    let outcome = sink.deliver(&told(&spans)).await;
    let expected = "Retry Delivered Retry Delivered Retry Delivered Slow";
    assert_eq!(words(&outcome, 6), expected);
    assert_eq!(sink.deliver(&told(&spans).only(&[0, 2, 4])).await, Report::delivered());
    assert_eq!(fake.docs(SPANS).len(), 6);
}

#[tokio::test]
async fn a_change_that_another_writer_was_quicker_than_is_sent_again() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let conflict =
        json!({"type": "version_conflict_engine_exception", "reason": "[t]: version conflict"});
    fake.fail([Fault::Items(1, 409, conflict)]);
    let object = delivery(vec![trace_object(1, "checkout")]);
    let outcome = sink.deliver(&object).await;
    assert_eq!(*outcome.verdicts.of(0), Verdict::Retry, "it is not there: {outcome:?}");
    assert_eq!(sink.deliver(&object).await, Report::delivered());
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["workflow_name"], "checkout");
}

#[tokio::test]
async fn a_summary_that_is_not_taken_is_made_again_and_no_span_waits_for_it() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let busy = [Fault::Items(1, 429, busy()), Fault::Whole(503, json!({})), Fault::Reset];
    fake.fail([Fault::None].into_iter().chain(busy));
    assert_eq!(sink.deliver(&told(&run())).await, Report::delivered());
    settled(&sink).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 3);
    assert_eq!(fake.bulks().iter().filter(|bulk| is_of(bulk, SPANS)).count(), 1);
}

/// Returns whether a request concerns an index.
fn is_of(bulk: &fake::Seen, index: &str) -> bool {
    String::from_utf8_lossy(&bulk.body).contains(&format!("\"_index\":\"{index}\""))
}

#[tokio::test]
async fn a_refused_document_is_folded_before_it_is_rejected() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    fake.poison("note of 2");
    assert_eq!(sink.deliver(&told(&run())).await, Report::delivered());
    settled(&sink).await;
    let folded = doc(&fake, SPANS, &span_name(2));
    assert_eq!(folded["truncated"], true);
    assert_eq!(folded.get("attributes"), None);
    let raw: Json = serde_json::from_str(folded["raw_json"].as_str().unwrap()).unwrap();
    assert_eq!(raw["attributes"]["span_data"]["note"], "note of 2");
    assert_eq!(folded["span_type"], "tool_call");
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 3);
}

#[tokio::test]
async fn a_document_that_is_refused_even_so_is_rejected_alone_and_not_counted() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    // This is in a typed field.
    fake.poison("\"span_id\":\"span_000000000000000000000002\"");
    let outcome = sink.deliver(&told(&run())).await;
    assert_eq!(words(&outcome, 3), "Delivered Reject Delivered Go");
    let Verdict::Reject(refusal) = outcome.verdicts.of(1) else { panic!("{outcome:?}") };
    let (reason, answer) = (&refusal.reason, &refusal.answer);
    assert!(reason.contains("document_parsing_exception") && !reason.contains("span_00"));
    assert!(answer.contains("failed to parse"), "{answer}");
    settled(&sink).await;
    assert_eq!(fake.docs(SPANS).len(), 2);
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 2);
}

#[tokio::test]
async fn what_becomes_of_documents_is_counted() {
    let fake = Fake::start(Manner::default()).await;
    let metrics = crate::telemetry::Metrics::default();
    let made_of = Parts { figures: metrics.of_sink("search"), ..Parts::default() };
    let off = "trace_summary = \"off\"";
    let settings = parse(&format!("endpoints = [{:?}]\n{off}", fake.address)).unwrap();
    let sink = Elasticsearch::new(settings, &made_of, changes::BYTES_MAX).unwrap();
    fake.poison("note of 2");
    // The model call is throttled first, and then in a request that is throttled completely.
    fake.fail([Fault::Items(4, 429, busy()), Fault::None, Fault::Whole(503, json!({}))]);
    let outcome = sink.deliver(&told(&run())).await;
    assert_eq!(words(&outcome, 3), "Retry Delivered Delivered Slow");
    let first = told(&run()).only(&[0]);
    assert_eq!(words(&sink.deliver(&first).await, 1), "Retry Slow");
    assert_eq!(sink.deliver(&first).await, Report::delivered());
    assert_eq!(sink.deliver(&first).await, Report::delivered());
    let page = page_of(&metrics);
    // Three spans, and then the model call again.
    for (outcome, count) in [
        ("created", 3),
        ("updated", 1),
        ("duplicate", 0),
        ("retried", 2),
        ("degraded", 1),
        ("failure_store", 0),
    ] {
        let line = format!("es_docs_total{{sink=\"search\",outcome=\"{outcome}\"}} {count}");
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    assert!(page.contains("es_trace_summary_conflicts_total{sink=\"search\"} 0"), "{page}");
}

#[tokio::test]
async fn a_request_that_is_refused_as_a_whole_is_tried_in_halves() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let body = json!({"error": {"type": "illegal_argument_exception", "reason": "Malformed"}});
    fake.fail([Fault::Whole(400, body)]);
    let outcome = sink.deliver(&told(&run())).await;
    assert!(outcome.is_refused(RejectClass::Malformed), "{outcome:?}");
    assert_eq!(words(&outcome, 3), "Split Split Split Go");
    for half in [&[0][..], &[1, 2]] {
        assert_eq!(sink.deliver(&told(&run()).only(half)).await, Report::delivered());
    }
    settled(&sink).await;
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 3);
}

#[tokio::test]
async fn whole_answers_become_outcomes() {
    let security = json!({"error": {
        "type": "security_exception",
        "reason": "action [indices:data/write/bulk] is unauthorized for API key id [x]",
    }});
    for (status, body, words_of, said) in [
        (401, json!({}), "Retry Hold", "401"),
        (403, security, "Retry Hold", "unauthorized for API key"),
        (404, json!({}), "Retry Hold", "404"),
        (429, json!({"error": {"type": "circuit_breaking_exception"}}), "Retry Slow", "circuit"),
        (500, json!({"error": {"type": "json_e_o_f_exception"}}), "Fault Down", "e_o_f"),
        (500, json!({"error": {"type": "null_pointer_exception"}}), "Fault Down", "null_pointer"),
        (504, json!({}), "Retry Down", "504"),
    ] {
        let fake = Fake::start(Manner::default()).await;
        let sink = sink(&fake, "trace_summary = \"off\"");
        fake.fail([Fault::Whole(status, body)]);
        let outcome = sink.deliver(&told(&run())).await;
        let (verdict, pace) = words_of.split_once(' ').unwrap();
        assert_eq!(words(&outcome, 3), format!("{verdict} {verdict} {verdict} {pace}"), "{status}");
        assert!(format!("{outcome:?}").contains(said), "{outcome:?}");
        assert_eq!(sink.deliver(&told(&run())).await, Report::delivered(), "{status}");
    }
}

#[tokio::test]
async fn answers_that_cannot_be_trusted_are_no_answers() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    for fault in [Fault::Cut, Fault::Extra, Fault::Reset] {
        fake.fail([fault.clone()]);
        let outcome = sink.deliver(&told(&run())).await;
        assert!(matches!(outcome.pace, Pace::Down { .. }), "{fault:?} {outcome:?}");
    }
    assert_eq!(sink.deliver(&told(&run())).await, Report::delivered());
    settled(&sink).await;
    assert_eq!(fake.docs(SPANS).len(), 3);
    assert_eq!(doc(&fake, TRACES, &trace_name(1))["span_count"], 3);
}

#[tokio::test]
async fn the_size_that_is_taken_is_learnt() {
    let manner = Manner { content_bytes_max: 300_000, ..Manner::default() };
    let fake = Fake::start(manner).await;
    let sink = sink(&fake, "");
    let spans: Vec<Told> = (0..800).map(|n| Told::new(n, n, None, Kind::Custom)).collect();
    let all = told(&spans);
    let everything: Vec<usize> = (0..800).collect();
    // The first learned limit may still be too large; each rejection reduces it by a tenth.
    let mut waiting = vec![everything; 6];
    // Like a lane, retry what is too large in halves.
    while let Some(places) = waiting.pop() {
        let report = sink.deliver(&all.only(&places)).await;
        let is_open = |at: &usize| *report.verdicts.of(*at) != Verdict::Delivered;
        let open: Vec<usize> = (0..places.len()).filter(is_open).map(|at| places[at]).collect();
        assert!(open.is_empty() || words(&report, places.len()).contains("Split"), "{report:?}");
        let (first, second) = open.split_at(open.len() / 2);
        waiting
            .extend([second, first].into_iter().filter(|half| !half.is_empty()).map(<[_]>::to_vec));
    }
    settled(&sink).await;
    assert_eq!(fake.docs(SPANS).len(), 800);
    assert_eq!(fake.docs(TRACES).len(), 800);
    let before = fake.bulks().len();
    assert_eq!(sink.deliver(&all).await, Report::delivered());
    let later = &fake.bulks()[before..];
    assert!(later.iter().all(|bulk| bulk.body.len() <= 300_000), "no more than it takes");
    settled(&sink).await;
}

#[tokio::test(start_paused = true)]
async fn a_size_that_was_learnt_is_tried_again_after_a_while() {
    let sink = Elasticsearch::new(settings(""), &Parts::default(), changes::BYTES_MAX).unwrap();
    let tried = || sink.backend.encoder().request_bytes_max;
    let configured = tried();
    lock(&sink.backend.size_limit).refused(1 << 20, Instant::now().into_std());
    assert!(tried() < 1 << 20);
    tokio::time::advance(Duration::from_hours(2)).await;
    assert_eq!(tried(), configured, "one hiccup of the network cuts no documents for ever");
}

#[tokio::test]
async fn a_document_that_is_too_large_alone_is_cut_and_then_rejected() {
    let manner = Manner { content_bytes_max: 200_000, ..Manner::default() };
    let fake = Fake::start(manner).await;
    let sink = sink(&fake, "trace_summary = \"off\"");
    let mut large = Told::new(1, 1, None, Kind::Custom);
    large.facts.input = Some(crate::span::Payload::Text(Text::from("x".repeat(250_000))));
    let mut outcome = sink.deliver(&told(&[large.clone()])).await;
    for _ in 0..3 {
        if outcome == Report::delivered() {
            break;
        }
        outcome = sink.deliver(&told(&[large.clone()])).await;
    }
    assert_eq!(outcome, Report::delivered());
    assert_eq!(doc(&fake, SPANS, &span_name(1))["truncated"], true);
    fake.manner(|manner| manner.content_bytes_max = 10);
    let outcome = sink.deliver(&told(&[large])).await;
    assert!(outcome.is_refused(RejectClass::TooLarge), "{outcome:?}");
    assert_eq!(words(&outcome, 1), "Reject Go");
}

#[tokio::test]
async fn a_connection_that_breaks_twice_during_a_large_request_means_too_large() {
    let manner = Manner { content_bytes_max: 1 << 20, resets_large: true, ..Manner::default() };
    let fake = Fake::start(manner).await;
    let sink = sink(&fake, "trace_summary = \"off\"");
    let mut spans = Vec::new();
    for number in 0..4 {
        let mut span = Told::new(number, number, None, Kind::Custom);
        span.facts.input = Some(crate::span::Payload::Text(Text::from("x".repeat(400_000))));
        spans.push(span);
    }
    let all = told(&spans);
    assert!(matches!(sink.deliver(&all).await.pace, Pace::Down { .. }));
    assert!(sink.deliver(&all).await.is_refused(RejectClass::TooLarge));
    for half in [&[0, 1][..], &[2, 3]] {
        assert_eq!(sink.deliver(&all.only(half)).await, Report::delivered());
    }
    assert_eq!(fake.docs(SPANS).len(), 4);
}

#[tokio::test]
async fn documents_that_only_the_failure_store_has_are_counted_and_not_sent_again() {
    let items = [
        json!({"index": {"status": 201, "failure_store": "used"}}),
        json!({"index": {"status": 201, "failure_store": "not_enabled"}}),
    ];
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "trace_summary = \"off\"");
    fake.fail([Fault::Whole(200, json!({"errors": false, "items": items}))]);
    let outcome = sink.deliver(&told(&run()[..2])).await;
    assert_eq!(words(&outcome, 2), "Delivered Delivered Go");
    assert_eq!(outcome.omitted.unwrap().items, 1);
}

#[tokio::test]
async fn quickwit_gets_what_it_understands() {
    let manner = Manner {
        root: json!({"version": {"distribution": "quickwit", "number": "7.17.0"}}),
        is_quickwit: true,
        ..Manner::default()
    };
    let fake = Fake::start(manner).await;
    let sink = sink(&fake, "");
    let mut items = vec![trace_object(1, "checkout")];
    items.extend(run().iter().map(Told::item));
    assert_eq!(sink.deliver(&delivery(items)).await, Report::delivered());
    assert_eq!(fake.docs(SPANS).len(), 3);
    assert!(fake.docs(TRACES).is_empty());
    let bulks = fake.bulks();
    assert_eq!(fake.seen().len(), 1 + bulks.len(), "no templates, nothing read");
    assert!(
        !String::from_utf8_lossy(&bulks[0].body)
            .contains("_id\":\"span_0000000000000000000000\",\"_")
    );
}

#[tokio::test]
async fn data_streams_get_created_documents_and_no_changes() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "rotation = \"data_stream\"");
    let [_, tool, agent] = run();
    for span in [tool.clone(), agent, tool] {
        assert_eq!(sink.deliver(&told(&[span])).await, Report::delivered());
    }
    let spans = fake.docs(SPANS);
    assert_eq!(spans.len(), 2);
    let has = |field: &str| spans.values().filter(|span| span.get(field).is_some()).count();
    assert_eq!((has("@timestamp"), has("timestamp")), (2, 0));
    let bodies: String =
        fake.bulks().iter().map(|bulk| String::from_utf8_lossy(&bulk.body).into_owned()).collect();
    assert!(!bodies.contains(r#"{"update":{"_index":"agent-traces-spans""#));
    assert!(fake.installed().contains_key("/_ilm/policy/agent-traces"));
}

#[tokio::test]
async fn one_endpoint_that_is_gone_costs_nothing() {
    let fake = Fake::start(Manner::default()).await;
    // Nothing listens on the port of a dropped listener.
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let text = format!("endpoints = [\"http://{gone}\", {:?}]", fake.address);
    let sink =
        Elasticsearch::new(parse(&text).unwrap(), &Parts::default(), changes::BYTES_MAX).unwrap();
    assert_eq!(sink.concurrency_max(), 4);
    for _ in 0..3 {
        assert_eq!(sink.deliver(&told(&run())).await, Report::delivered());
    }
}

#[tokio::test]
async fn nothing_of_a_payload_is_in_a_reason() {
    let fake = Fake::start(Manner::default()).await;
    let sink = sink(&fake, "");
    let reason = json!({"type": "mapper_parsing_exception", "reason": "hunter2 in field"});
    fake.fail([Fault::Items(1, 400, reason.clone()), Fault::Items(1, 400, reason)]);
    let outcome = sink.deliver(&told(&run()[..1])).await;
    let Verdicts::All(Verdict::Reject(refusal)) = outcome.verdicts else { panic!("{outcome:?}") };
    assert!(!refusal.reason.contains("hunter2"));
    assert!(refusal.answer.contains("hunter2"));
    drop(rejected(400));
}

#[tokio::test]
async fn a_probe_says_what_is_there_and_leaves_nothing() {
    let fake = Fake::start(Manner::default()).await;
    let settings = parse(&format!("endpoints = [{:?}]", fake.address)).unwrap();
    let said = settings.probe().unwrap().await.unwrap();
    assert!(
        said.starts_with("Elasticsearch 8.15; all privileges granted; would install"),
        "{said}"
    );
    assert!(fake.installed().is_empty());
    let sink = sink(&fake, "");
    assert_eq!(sink.deliver(&told(&run())).await, Report::delivered());
    let said = settings.probe().unwrap().await.unwrap();
    let version = templates::SCHEMA_VERSION;
    settled(&sink).await;
    assert!(said.ends_with(&format!("templates of version {version} are installed")), "{said}");
}
