//! Agent metrics, from requests to the page of metrics.

use std::collections::BTreeMap;

use super::table::{COUNTED_AFTER, OVER_AFTER};
use super::*;
use crate::feed::tests::{arrival, otlp_arrival};
use crate::prices::{Override, PriceOptions};
use crate::support::clock::nanos;
use crate::support::memory::{alone, assert_within, resident_bytes};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_800_000_000 * SECOND;

/// Returns an Agents SDK item that took `seconds`, below a span.
fn span(id: &str, parent: Option<&str>, seconds: u32, data: &str) -> String {
    let parent = parent.map_or("null".to_owned(), |parent| format!("\"{parent}\""));
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_1","parent_id":{parent},"started_at":"2026-11-01T00:00:00Z","ended_at":"2026-11-01T00:00:{seconds:02}Z","span_data":{data}}}"#
    )
}

const OBJECT: &str = r#"{"object":"trace","id":"trace_1","workflow_name":"Support"}"#;
const TOLD: &str = "the customer said a secret";

/// Returns a run in the order in which the SDK sends it: each span at its end.
fn run() -> Vec<String> {
    let generation =
        r#"{"type":"generation","model":"gpt-5","usage":{"input_tokens":100,"output_tokens":20}}"#;
    let function = format!(r#"{{"type":"function","name":"lookup","input":"{TOLD}"}}"#);
    let guardrail = r#"{"type":"guardrail","name":"pii","triggered":true}"#;
    let handoff = r#"{"type":"handoff","from_agent":"Triage","to_agent":"Billing"}"#;
    let agent = |name: &str| format!(r#"{{"type":"agent","name":"{name}"}}"#);
    let failed = span("failed", Some("b"), 3, &function)
        .replace(r#""span_data""#, r#""error":{"message":"timeout","data":{}},"span_data""#);
    vec![
        span("g1", Some("a"), 2, generation),
        span("h", Some("a"), 0, handoff),
        span("a", None, 4, &agent("Triage")),
        span("p", Some("b"), 0, guardrail),
        span("t", Some("b"), 1, &function),
        failed,
        span("g2", Some("b"), 8, generation),
        span("n", Some("b"), 5, &agent("Nested")),
        span("b", None, 30, &agent("Billing")),
    ]
}

fn metrics() -> Index {
    keeping(false)
}

fn keeping(traces: bool) -> Index {
    Index::keeping(Kept { traces, agents: true }, Arc::default())
}

fn settle(metrics: &Index, now_ns: u64) {
    metrics.write_agents(now_ns, &mut String::new(), false).unwrap();
}

fn feed_at(metrics: &Index, items: &[String], at_ns: u64) {
    let mut batch = arrival(items).decoded.batch;
    batch.source.received_at_ns = at_ns;
    metrics.feed(&batch, Position(0));
}

fn page(metrics: &Index) -> String {
    let mut page = String::new();
    metrics.write_agents(0, &mut page, true).unwrap();
    page
}

/// Returns the value of the series with this prefix.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.split(" # ").next()?.rsplit(' ').next()?.parse().ok()
}

#[track_caller]
fn check(page: &str, expected: &[(&str, f64)]) {
    for (series, expected) in expected {
        assert_eq!(value(page, series), Some(*expected), "{series}\n{page}");
    }
}

#[test]
fn a_run_is_counted_by_agent_tool_and_model_also_where_the_agent_comes_last() {
    let metrics = metrics();
    feed_at(&metrics, &[OBJECT.to_owned()], NOW);
    for item in run() {
        feed_at(&metrics, &[item], NOW);
    }
    let page = page(&metrics);
    check(
        &page,
        &[
            (
                "gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_agent_name=\"Billing\"}",
                8.0,
            ),
            (
                "gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name=\"execute_tool\",gen_ai_agent_name=\"Billing\",gen_ai_tool_name=\"lookup\",error_type=\"_OTHER\"}",
                1.0,
            ),
            (
                "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_agent_name=\"Triage\",gen_ai_token_type=\"input\"}",
                100.0,
            ),
            (
                "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_agent_name=\"Billing\",gen_ai_token_type=\"output\"}",
                20.0,
            ),
            (
                "spanferry_agent_run_duration_seconds_sum{agent=\"Triage\",workflow=\"Support\",status=\"ok\"}",
                4.0,
            ),
            (
                "spanferry_agent_run_duration_seconds_bucket{le=\"40.96\",agent=\"Billing\",workflow=\"Support\",status=\"ok\"}",
                1.0,
            ),
            (
                "spanferry_tool_call_duration_seconds_sum{agent=\"Billing\",tool=\"lookup\",status=\"error\"}",
                3.0,
            ),
            (
                "spanferry_tool_call_duration_seconds_sum{agent=\"Billing\",tool=\"lookup\",status=\"ok\"}",
                1.0,
            ),
            ("spanferry_agent_handoffs_total{from=\"Triage\",to=\"Billing\"}", 1.0),
            ("spanferry_guardrail_checks_total{name=\"pii\",triggered=\"true\"}", 1.0),
            ("spanferry_spans_total{span_type=\"tool\",status=\"error\"}", 1.0),
            ("spanferry_spans_total{span_type=\"agent\",status=\"ok\"}", 3.0),
        ],
    );
    assert!(!page.contains("secret") && !page.contains("timeout"), "{page}");
    let trace = arrival(&run()).decoded.batch.items[0].trace_id();
    assert!(page.contains(&format!("# {{trace_id=\"{trace}\"}} 30.0")), "{page}");
}

#[test]
fn what_calls_cost_is_theirs_or_by_the_prices_in_force_each_once() {
    let costs =
        |dollars: f64| Override { input: dollars, output: 2.0 * dollars, ..Override::default() };
    let prices = |dollars| {
        let overrides = BTreeMap::from([("gpt-5".to_owned(), costs(dollars))]);
        Arc::new(Prices::new(&PriceOptions { overrides, ..PriceOptions::default() }, None))
    };
    let metrics = metrics();
    metrics.set_prices(prices(3.0));
    feed_at(&metrics, &run(), NOW);
    let series = |agent: &str| {
        format!(
            "gen_ai_cost_usd_total{{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_agent_name=\"{agent}\"}}"
        )
    };
    // 100 input and 20 output tokens.
    check(&page(&metrics), &[(&series("Triage"), 0.00042), (&series("Billing"), 0.00042)]);
    metrics.set_prices(prices(1000.0));
    let again: Vec<_> = run().iter().map(|item| item.replace("trace_1", "trace_2")).collect();
    feed_at(&metrics, &again, NOW);
    check(&page(&metrics), &[(&series("Triage"), 0.14042), (&series("Billing"), 0.14042)]);
    // A cost that the client reports stays, and an invalid one is ignored.
    let said = |id: u8, cost: &str| {
        format!(
            r#"{{"traceId":"{id:032x}","spanId":"{id:016x}","name":"n","attributes":[{{"key":"gen_ai.operation.name","value":{{"stringValue":"chat"}}}},{{"key":"gen_ai.request.model","value":{{"stringValue":"gpt-5"}}}},{{"key":"gen_ai.usage.input_tokens","value":{{"intValue":5}}}},{{"key":"gen_ai.usage.cost","value":{{"doubleValue":{cost}}}}}]}}"#
        )
    };
    metrics.feed(&otlp_arrival(&[said(1, "0.25"), said(2, "-7.5")]).decoded.batch, Position(0));
    let of_nobody =
        "gen_ai_cost_usd_total{gen_ai_operation_name=\"chat\",gen_ai_request_model=\"gpt-5\"}";
    check(&page(&metrics), &[(of_nobody, 0.255)]);
}

#[test]
fn whatever_the_order_and_the_requests_the_same_is_counted() {
    let mut pages = Vec::new();
    let (in_order, mut reversed) = (run(), run());
    reversed.reverse();
    let one_by_one = |items: &[String]| items.iter().map(|item| vec![item.clone()]).collect();
    let splits: [Vec<Vec<String>>; 3] =
        [vec![in_order.clone()], one_by_one(&in_order), one_by_one(&reversed)];
    let splits = splits.iter().flat_map(|requests| [(requests, false), (requests, true)]);
    for (requests, has_summaries) in splits {
        let metrics = keeping(has_summaries);
        feed_at(&metrics, &[OBJECT.to_owned()], NOW);
        for request in requests {
            feed_at(&metrics, request, NOW);
        }
        settle(&metrics, NOW + nanos(COUNTED_AFTER));
        let page = page(&metrics);
        let mut lines: Vec<_> =
            page.lines().map(|line| line.split(" # ").next().unwrap().to_owned()).collect();
        lines.sort();
        pages.push(lines);
    }
    assert!(pages.iter().all(|page| *page == pages[0]));
}

#[test]
fn what_there_is_no_room_for_any_more_is_counted_once_as_it_is_known() {
    // Without any room for open traces, and without any room at all.
    for bounds in [(BYTES_MAX, 0), (0, 0)] {
        for traces in [true, false] {
            let kept = Kept { traces, agents: true };
            let metrics = keeping(traces);
            *lock(&metrics.0.table) = Table::within(kept, bounds.0, bounds.1);
            feed_at(&metrics, &run(), NOW);
            for _ in 0..2 {
                settle(&metrics, NOW + 2 * nanos(COUNTED_AFTER));
                check(
                    &page(&metrics),
                    &[
                        ("spanferry_spans_total{span_type=\"agent\",status=\"ok\"}", 3.0),
                        ("spanferry_trace_spans_count{}", 1.0),
                        ("spanferry_trace_spans_sum{}", 9.0),
                        ("spanferry_trace_agent_depth_sum{}", 2.0),
                    ],
                );
            }
        }
    }
}

#[test]
fn what_was_read_again_is_counted_no_more_but_its_agents_are_known() {
    let metrics = keeping(true);
    let mut items = run();
    let last = items.remove(6);
    let items = arrival(&items).decoded.batch.items;
    lock(&metrics.0.table).feed((&items, 0), Position(0), &Prices::default(), true);
    feed_at(&metrics, &[last], NOW);
    let page = page(&metrics);
    let tokens = "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_agent_name=\"Billing\",gen_ai_token_type=\"input\"}";
    check(&page, &[(tokens, 100.0)]);
    assert_eq!(value(&page, "spanferry_spans_total{span_type=\"agent\""), None);
}

#[test]
fn what_waits_for_an_agent_that_never_comes_is_counted_without_one_once() {
    let metrics = metrics();
    feed_at(&metrics, &[run().swap_remove(0)], NOW);
    let tokens = "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-5\",gen_ai_token_type=\"input\"}";
    settle(&metrics, NOW + nanos(COUNTED_AFTER) - 1);
    assert_eq!(value(&page(&metrics), tokens), None);
    for _ in 0..2 {
        settle(&metrics, NOW + nanos(COUNTED_AFTER));
        check(&page(&metrics), &[(tokens, 100.0), ("spanferry_trace_spans_sum{}", 1.0)]);
    }
}

#[test]
fn a_trace_is_counted_once_it_was_quiet_and_no_sooner() {
    let metrics = metrics();
    let mut items = run();
    let last = items.pop().unwrap();
    feed_at(&metrics, &items, NOW);
    settle(&metrics, NOW + nanos(OVER_AFTER));
    check(&page(&metrics), &[("spanferry_trace_spans_count{}", 0.0)]);
    feed_at(&metrics, &[last], NOW + nanos(OVER_AFTER));
    settle(&metrics, NOW + 2 * nanos(OVER_AFTER) - 1);
    check(&page(&metrics), &[("spanferry_trace_spans_count{}", 0.0)]);
    for wait in [2 * nanos(OVER_AFTER), 2 * nanos(COUNTED_AFTER)] {
        settle(&metrics, NOW + wait);
        check(
            &page(&metrics),
            &[
                ("spanferry_trace_spans_count{}", 1.0),
                ("spanferry_trace_spans_sum{}", 9.0),
                ("spanferry_trace_agents_sum{}", 3.0),
                ("spanferry_trace_agent_depth_sum{}", 2.0),
            ],
        );
    }
}

#[test]
fn a_parent_that_sums_up_calls_which_were_counted_long_before_counts_no_tokens() {
    let usage = r#""usage":{"input_tokens":100,"output_tokens":20}"#;
    let data = format!(r#"{{"sdk_span_type":"task","name":"run",{usage}}}"#);
    let run = format!(r#"{{"type":"custom","name":"run","data":{data}}}"#);
    let generation = format!(r#"{{"type":"generation","model":"gpt-5",{usage}}}"#);
    for traces in [true, false] {
        let metrics = keeping(traces);
        feed_at(&metrics, &[span("g", Some("r"), 2, &generation)], NOW);
        let later = NOW + 2 * nanos(COUNTED_AFTER);
        settle(&metrics, later);
        feed_at(&metrics, &[span("r", None, 9, &run)], later);
        settle(&metrics, later + nanos(COUNTED_AFTER));
        let page = page(&metrics);
        let tokens = page.lines().filter(|line| line.starts_with("gen_ai_client_token_usage_sum"));
        let tokens = tokens.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert_eq!(Some(tokens.sum::<f64>()), Some(120.0), "{page}");
    }
}

#[test]
fn a_sum_that_arrives_before_its_calls_counts_only_if_none_has_come_when_the_trace_is_over() {
    let usage = r#""usage":{"input_tokens":100,"output_tokens":20}"#;
    let run = format!(
        r#"{{"type":"custom","name":"run","data":{{"sdk_span_type":"task","name":"run",{usage}}}}}"#
    );
    let run = span("r", None, 9, &run);
    let call = span("g", Some("r"), 2, &format!(r#"{{"type":"generation",{usage}}}"#));
    for (calls, expected) in [(vec![], [0, 120]), (vec![call], [120, 120])] {
        let metrics = metrics();
        feed_at(&metrics, std::slice::from_ref(&run), NOW);
        feed_at(&metrics, &calls, NOW);
        let tokens = |after: Duration| {
            settle(&metrics, NOW + nanos(after));
            let page = page(&metrics);
            let sums =
                page.lines().filter(|line| line.starts_with("gen_ai_client_token_usage_sum"));
            sums.filter_map(|line| line.rsplit(' ').next()?.strip_suffix(".0")?.parse::<u64>().ok())
                .sum::<u64>()
        };
        let found = [Duration::ZERO, OVER_AFTER].map(&tokens);
        assert_eq!(found, expected);
        assert_eq!([COUNTED_AFTER, 2 * COUNTED_AFTER].map(tokens), [120; 2]);
    }
}

#[test]
fn a_span_that_is_sent_again_with_other_words_is_counted_once() {
    let metrics = metrics();
    for _ in 0..2 {
        feed_at(&metrics, &run(), NOW);
    }
    check(
        &page(&metrics),
        &[
            ("spanferry_spans_total{span_type=\"generation\",status=\"ok\"}", 2.0),
            ("spanferry_agent_handoffs_total{from=\"Triage\",to=\"Billing\"}", 1.0),
        ],
    );
}

#[test]
fn a_client_that_makes_up_names_gets_no_more_series_than_a_metric_may_have() {
    let metrics = metrics();
    let runs: Vec<String> = (0..20_000)
        .map(|number| {
            let data = format!(r#"{{"type":"agent","name":"{number}{}"}}"#, "\u{e4}".repeat(99));
            span(&format!("span_{number}"), None, 1, &data)
        })
        .collect();
    runs.chunks(100).for_each(|items| feed_at(&metrics, items, NOW));
    let page = page(&metrics);
    let counts = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    for name in ["spanferry_agent_run_duration_seconds", "gen_ai_client_operation_duration_seconds"]
    {
        assert_eq!(counts(&format!("{name}_count")), 1_001, "{name}");
        let overflow = format!("spanferry_metrics_series_overflow_total{{metric=\"{name}\"}}");
        check(&page, &[(&overflow, 19_000.0)]);
    }
    check(
        &page,
        &[(
            "spanferry_agent_run_duration_seconds_count{agent=\"__other__\",status=\"ok\"}",
            19_000.0,
        )],
    );
    let cut = format!("agent=\"7{}\",", "\u{e4}".repeat(63));
    assert!(page.contains(&cut));
}

#[test]
fn names_that_look_like_the_page_are_names() {
    let metrics = metrics();
    let data = r#"{"type":"agent","name":"a\"} 1 # {trace_id=\"x\"} \\ \n b"}"#;
    feed_at(&metrics, &[span("s", None, 1, data)], NOW);
    let page = page(&metrics);
    let name = r#"agent="a\"} 1 # {trace_id=\"x\"} \\ \n b""#;
    assert!(page.contains(name), "{page}");
    assert!(page.lines().all(|line| line.starts_with(['#', 'g', 's'])), "{page}");
}

#[test]
fn circles_and_missing_parents_end() {
    let metrics = metrics();
    let agent = r#"{"type":"agent","name":"Loop"}"#;
    let items = [
        span("x", Some("y"), 1, agent),
        span("y", Some("x"), 1, agent),
        span("z", Some("z"), 1, agent),
    ];
    feed_at(&metrics, &items, NOW);
    settle(&metrics, NOW + nanos(COUNTED_AFTER));
    check(
        &page(&metrics),
        &[("spanferry_trace_agents_sum{}", 3.0), ("spanferry_trace_agent_depth_sum{}", 2.0)],
    );
}

/// Returns one trace for each of these spans, whose parents never arrive.
fn strangers(from: u64, count: u64) -> Batch {
    let span = |number: u64| {
        let chat = r#""attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.usage.input_tokens","value":{"intValue":1}}]"#;
        format!(
            r#"{{"traceId":"{number:032x}","spanId":"{number:016x}","parentSpanId":"ffffffffffffffff","name":"n",{chat}}}"#
        )
    };
    let mut batch = otlp_arrival(&(from..from + count).map(span).collect::<Vec<_>>()).decoded.batch;
    batch.source.received_at_ns = NOW;
    batch
}

#[test]
fn many_traces_that_go_on_take_no_more_than_is_said_also_by_the_systems_own_count() {
    alone(&["many"], |case| {
        strangers(1, 1).spans().for_each(|span| _ = span.facts());
        let before = resident_bytes();
        let metrics = metrics();
        for number in 0..600 {
            metrics.feed(&strangers(1 + number * 100, 100), Position(0));
        }
        assert_within(case, resident_bytes() - before, OPEN_BYTES_MAX);
        settle(&metrics, NOW + nanos(COUNTED_AFTER));
        let page = page(&metrics);
        let tokens = "gen_ai_client_token_usage_sum{gen_ai_operation_name=\"chat\",gen_ai_token_type=\"input\"}";
        check(&page, &[(tokens, 60_000.0), ("spanferry_trace_spans_count{}", 60_000.0)]);
        let mut later = strangers(0xffff, 1);
        later.source.received_at_ns += 2 * nanos(TREE_KEPT);
        metrics.feed(&later, Position(0));
        assert_eq!(lock(&metrics.0.table).traces.count(), 1);
    });
}
