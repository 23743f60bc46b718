//! Tests of the index.

use serde_json::json;

use super::*;
use crate::feed::tests::{accept, arrival, feed, otlp_arrival};
use crate::journal::Mark;
use crate::normalize::{Encoding, Envelope, Limits, decode, ids};
use crate::prices::PriceOptions;
use crate::span::{Source, TraceId};
use crate::support::clock::nanos;
use crate::support::golden;
use crate::telemetry::Metrics;

const EVERYTHING: Position = Position(0);
const TRACES: Kept = Kept { traces: true, agents: false };

impl Index {
    /// Returns the state of the index.
    fn view(&self) -> IndexView {
        self.view_of(&lock(&self.0.table))
    }
}

/// Returns an Agents SDK span: its number, its parent, and its `span_data`.
fn span(trace: &str, id: usize, parent: Option<usize>, data: &str) -> String {
    let parent = parent.map_or("null".to_owned(), |parent| format!("\"span_{parent}\""));
    format!(
        r#"{{"object":"trace.span","id":"span_{id}","trace_id":"{trace}","parent_id":{parent},"started_at":"2026-11-21T05:15:0{}Z","ended_at":"2026-11-21T05:15:09Z","span_data":{data}}}"#,
        id % 10
    )
}

fn agent(name: &str) -> String {
    format!(r#"{{"type":"agent","name":"{name}"}}"#)
}

fn tool(name: &str) -> String {
    format!(r#"{{"type":"function","name":"{name}","input":"{{}}","output":"x"}}"#)
}

fn call(model: &str, input: u64, output: u64) -> String {
    format!(
        r#"{{"type":"generation","model":"{model}","usage":{{"input_tokens":{input},"output_tokens":{output}}}}}"#
    )
}

fn object(trace: &str, workflow: &str, group: &str) -> String {
    format!(
        r#"{{"object":"trace","id":"{trace}","workflow_name":"{workflow}","group_id":"{group}","metadata":{{}}}}"#
    )
}

fn one_run(trace: &str) -> Vec<String> {
    vec![
        object(trace, "Refund", "chat-7"),
        span(trace, 1, None, &agent("Triage")),
        span(trace, 2, Some(1), &call("gpt-5", 100, 20)),
        span(trace, 3, Some(1), &tool("look_up")),
        span(trace, 4, Some(1), &agent("Billing")),
        span(trace, 5, Some(4), &call("gpt-5-mini", 7, 3)),
    ]
}

fn fed(requests: &[Vec<String>]) -> Index {
    let index = Index::new(Arc::default());
    for (at, items) in requests.iter().enumerate() {
        index.feed(&arrival(items).decoded.batch, Position(at as u64 * 100));
    }
    index
}

fn query(filter: &str) -> Query {
    Query {
        filter: Filter::read(filter).unwrap_or_else(|mistake| panic!("{mistake}")),
        ..Query::default()
    }
}

fn list(index: &Index, query: &Query) -> List {
    index.list(query, (None, 100), EVERYTHING).unwrap()
}

fn only(index: &Index) -> TraceSummary {
    let List { mut traces, count, .. } = list(index, &query(""));
    assert_eq!(count, 1);
    traces.remove(0)
}

#[test]
fn a_summary_says_the_names_times_and_tokens_of_its_trace() {
    let trace = only(&fed(&[one_run("trace_1")]));
    assert_eq!((trace.name.as_str(), trace.session.as_deref()), ("Refund", Some("chat-7")));
    assert_eq!((trace.spans, trace.errors, trace.status.as_str()), (5, 0, "ok"));
    assert_eq!((trace.input_tokens, trace.output_tokens, trace.total_tokens), (107, 23, 130));
    assert_eq!(trace.agents, ["Triage", "Billing"]);
    assert_eq!(
        (trace.tools.concat(), trace.models.join(" ")),
        ("look_up".into(), "gpt-5 gpt-5-mini".into())
    );
    assert_eq!(
        (trace.start.as_str(), trace.duration_ns),
        ("2026-11-21T05:15:01.000000000Z", 8_000_000_000)
    );
}

#[test]
fn a_trace_that_began_elsewhere_has_the_name_of_its_agent() {
    let index = fed(&[vec![span("trace_1", 2, Some(1), &agent("Triage"))]]);
    assert_eq!(only(&index).name, "Triage");
}

#[test]
fn spans_that_nobody_has_read_are_summed_up_alike_and_left_unread() {
    let golden = golden::fixtures("otlp/openinference-openai-agents");
    let traces = golden.iter().filter(|fixture| fixture.name.contains("_traces."));
    let (unread, read) = (Index::new(Arc::default()), Index::new(Arc::default()));
    let mut in_brief = 0;
    for (at, fixture) in (0..).map(Position).zip(traces) {
        let envelope = Envelope::new(Source::unknown(), Encoding::Protobuf, 0);
        let decoded = || decode(&envelope, &fixture.body, &Limits::default()).unwrap().batch;
        let (alone, shared) = (decoded(), decoded());
        unread.feed(&alone, at);
        in_brief += alone.spans().filter(|span| span.brief_facts() != span.facts()).count();
        shared.spans().for_each(|span| _ = span.facts());
        read.feed(&shared, at);
    }
    assert!(in_brief > 0);
    let found = list(&unread, &query(""));
    assert!(found.count > 0 && found.traces.iter().any(|trace| trace.total_tokens > 0));
    assert_eq!(found.traces, list(&read, &query("")).traces);
}

#[test]
fn the_order_in_which_spans_arrive_changes_nothing() {
    let items = one_run("trace_1");
    let expected = only(&fed(std::slice::from_ref(&items)));
    let mut alone: Vec<Vec<String>> = items.into_iter().map(|item| vec![item]).collect();
    for _ in 0..2 {
        alone.reverse();
        let index = fed(&alone);
        let mut found = only(&index);
        found.agents.sort_by_key(|name| name == "Billing");
        found.models.sort();
        (found.first_position, found.last_position) = (0, 0);
        assert_eq!(found, expected);
        let rows = index.stats(&query(""), By::Agent, EVERYTHING).rows;
        let tokens = |name: &str| rows.iter().find(|row| row.name == name).unwrap().total_tokens;
        assert_eq!((tokens("Triage"), tokens("Billing")), (120, 10));
    }
}

#[test]
fn what_was_decided_for_good_is_added_to_what_comes_later() {
    let mut table = Table::within(TRACES, BYTES_MAX, 0);
    let items = one_run("trace_1");
    for (at, items) in items.chunks(3).enumerate() {
        let batch = arrival(items).decoded.batch;
        table.feed(
            (&batch.items, batch.source.received_at_ns),
            Position(at as u64),
            &Prices::default(),
            false,
        );
        assert_eq!(table.traces.passing_bytes(), 0);
    }
    let known = table.of(ids::trace_id("trace_1")).unwrap();
    assert_eq!((known.summary().total_tokens, known.summary().spans), (130, 5));
    let mut rows = stats::rows([known].into_iter(), By::Agent).0;
    rows.retain(|row| row.name == "Triage");
    assert_eq!((rows[0].count, rows[0].total_tokens), (1, 120));
}

#[test]
fn a_span_that_is_sent_twice_is_one() {
    let mut items = one_run("trace_1");
    items.push(span("trace_1", 2, Some(1), &call("gpt-5", 100, 20)));
    let trace = only(&fed(&[items.clone(), items]));
    assert_eq!((trace.spans, trace.total_tokens), (5, 130));
}

#[test]
fn of_a_span_that_failed_and_is_sent_again_the_last_counts() {
    let failed = |error: &str| {
        let item = span("trace_1", 1, None, &tool("look_up"));
        item.replace(r#""span_data""#, &format!(r#""error":{error},"span_data""#))
    };
    let (bad, good) = (failed(r#"{"message":"no","data":null}"#), failed("null"));
    let survived = failed(r#"{"message":"Error running tool (non-fatal)","data":{}}"#);
    for (sent, errors) in [
        ([&bad, &good], 0),
        ([&good, &bad], 1),
        ([&bad, &bad], 1),
        ([&good, &survived], 0),
        ([&survived, &bad], 1),
    ] {
        let trace = only(&fed(&sent.map(|item| vec![item.clone()])));
        assert_eq!((trace.spans, trace.errors), (1, errors), "{sent:?}");
        assert_eq!(trace.status, if errors == 0 { "ok" } else { "error" });
    }
}

#[test]
fn what_a_late_parent_sums_up_is_not_counted_again() {
    let generation = span("trace_1", 2, Some(1), &call("gpt-5", 100, 20));
    let run = span(
        "trace_1",
        1,
        None,
        r#"{"type":"custom","name":"run","data":{"sdk_span_type":"task","name":"run","usage":{"input_tokens":100,"output_tokens":20}}}"#,
    );
    let later = span("trace_1", 4, Some(3), &call("gpt-5", 7, 3));
    let index = Index::keeping(Kept { traces: true, agents: true }, Arc::default());
    // By the time of another trace, this one is final.
    let other = span("trace_2", 1, None, &tool("look_up"));
    for (at, items) in [vec![generation], vec![other], vec![run, later]].iter().enumerate() {
        let mut batch = arrival(items).decoded.batch;
        batch.source.received_at_ns += at as u64 * 2 * nanos(TREE_KEPT);
        index.feed(&batch, Position(at as u64));
    }
    let trace = index.summary(ids::trace_id("trace_1")).unwrap();
    assert_eq!((trace.input_tokens, trace.output_tokens, trace.spans), (107, 23, 3));
    let now_ns = 1 << 62;
    index.write_agents(now_ns, &mut String::new(), false).unwrap();
    let counted = page(&index);
    let tokens = counted.lines().filter(|line| line.starts_with("gen_ai_client_token_usage_sum"));
    let tokens = tokens.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert_eq!(Some(tokens.sum::<f64>()), Some(130.0), "{counted}");
}

#[test]
fn memory_stays_within_its_bound_and_the_quiet_ones_go_first() {
    let mut table = Table::within(TRACES, 64 << 10, 16 << 10);
    for number in 0..1_000 {
        // The first one is never quiet.
        for trace in ["trace_0".to_owned(), format!("trace_{number}")] {
            let batch = arrival(&one_run(&trace)).decoded.batch;
            table.feed(
                (&batch.items, batch.source.received_at_ns),
                Position(number),
                &Prices::default(),
                false,
            );
            assert!(table.bytes() <= 64 << 10, "{}", table.bytes());
        }
    }
    assert!(table.of(ids::trace_id("trace_0")).is_some());
    assert!(table.of(ids::trace_id("trace_999")).is_some());
    assert!(table.of(ids::trace_id("trace_1")).is_none());
    assert_eq!(table.traces.count() as u64 + table.evicted, 1_000);
    table.forget_before(Position(u64::MAX));
    assert_eq!(
        (table.traces.count(), table.bytes()),
        (0, 0),
        "what was added was taken away again"
    );
}

#[test]
fn a_trace_that_gave_way_is_looked_for_where_it_was_and_nowhere_else() {
    let index = Index::default();
    *lock(&index.0.table) = Table::within(TRACES, 64 << 10, 16 << 10);
    let feed = |trace: &str, at| {
        index.feed(&arrival(&one_run(trace)).decoded.batch, Position(at));
    };
    feed("trace_1", 100);
    feed("trace_1", 300);
    (4..500).for_each(|number| feed(&format!("trace_{number}"), number * 100));
    feed("trace_1", 50_000);
    let places = |trace, is_whole| {
        let Places(parts) = index.places(ids::trace_id(trace), is_whole);
        parts.iter().map(|part| (part.from.0, part.until.0)).collect::<Vec<_>>()
    };
    let rest = (50_000, u64::MAX);
    for is_whole in [false, true] {
        let found = places("trace_1", is_whole);
        assert_eq!(found, [(100, 300), (50_000, 50_000), rest]);
        assert_eq!(places("trace_9", is_whole), [(900, 900), rest]);
        assert_eq!(places("never seen", is_whole), [rest]);
    }
    // Traces that are not remembered are searched for where they may be: if all of a trace is needed, or nothing of it is known.
    lock(&index.0.table).gone.lose(Position(200));
    assert_eq!(places("trace_9", false), [(900, 900), rest]);
    assert_eq!(places("trace_9", true), [(0, 200), (900, 900), rest]);
    assert_eq!(places("never seen", false), [(0, 200), rest]);
    lock(&index.0.table).forget_before(Position(1_000));
    assert_eq!(places("trace_9", false), [(0, 200), rest]);
}

#[test]
fn of_more_traces_than_are_remembered_the_first_to_go_are_looked_for_up_to_the_last_of_them() {
    let mut gone = gone::Gone::default();
    let id = |number: u64| TraceId::new((u128::from(number) + 1).to_be_bytes()).unwrap();
    for number in 0..(1 << 18) + 10 {
        gone.push(id(number), Position(number), Position(number + 5));
    }
    assert_eq!(gone.others().unwrap().until, Position(9 + 5));
    assert_eq!((gone.of(id(9)).count(), gone.of(id(10)).count()), (0, 1));
}

#[test]
fn a_hundred_thousand_small_traces_have_room() {
    let index = Index::new(Arc::default());
    let span = |number: u64, id: u64, parent: u64, operation: &str| {
        let said = |key: &str, value: &str| {
            format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
        };
        let attributes = [
            said("gen_ai.operation.name", operation),
            said("gen_ai.agent.name", &format!("agent{}", number % 7)),
            said("gen_ai.request.model", "gpt-5"),
            r#"{"key":"gen_ai.usage.input_tokens","value":{"intValue":7}}"#.to_owned(),
        ];
        format!(
            r#"{{"traceId":"{:032x}","spanId":"{id:016x}","parentSpanId":"{parent:016x}","name":"x","attributes":[{}]}}"#,
            number + 1,
            attributes.join(",")
        )
    };
    for number in (0..100_000).step_by(100) {
        let of = |number| {
            let [agent, call] = ["invoke_agent", "chat"];
            [span(number, 1, 0, agent), span(number, 2, 1, call), span(number, 3, 1, call)]
        };
        let spans: Vec<_> = (number..number + 100).flat_map(of).collect();
        index.feed(&otlp_arrival(&spans).decoded.batch, Position(number));
    }
    let view = index.view();
    assert_eq!((view.traces, view.evicted), (100_000, 0), "{view:?}");
    assert_eq!(list(&index, &query("spans:3 agent:agent3")).count, 14_286);
}

#[test]
fn what_the_journal_no_longer_keeps_is_not_listed() {
    let index = fed(&[one_run("trace_1"), one_run("trace_2"), one_run("trace_3")]);
    let listed = |kept_from| index.list(&query(""), (None, 10), Position(kept_from)).unwrap().count;
    assert_eq!([listed(0), listed(100), listed(101), listed(u64::MAX)], [3, 2, 1, 0]);
}

#[test]
fn each_word_of_a_filter_says_which_traces_are_meant() {
    let mut failed = one_run("trace_2");
    failed.push(
        span("trace_2", 6, None, &tool("Refuse it"))
            .replace("\"span_data\"", r#""error":{"message":"no"},"span_data""#),
    );
    let index = fed(&[one_run("trace_1"), failed]);
    for (filter, expected) in [
        ("", 2),
        ("agent:triage", 2),
        ("agent:refuse", 0),
        ("tool:\"refuse it\"", 1),
        ("tool:refuse nobody", 0),
        ("-tool:refuse", 1),
        ("model:gpt-5 status:ok", 1),
        ("status:error", 1),
        ("-status:error", 1),
        ("workflow:REFUND", 2),
        ("session:chat-7", 2),
        ("session:chat session:=CHAT-7 session:\"=chat-7\"", 2),
        ("session:=chat", 0),
        ("-session:=chat", 2),
        ("session:=", 0),
        ("user:x", 0),
        ("refund", 2),
        ("refus", 1),
        ("dur:>=8s", 2),
        ("dur:>8s", 0),
        ("tokens:>129 tokens:<=130", 2),
        ("tokens:130", 2),
        ("cost:>0", 0),
        ("spans:>5", 1),
        ("errors:=1", 1),
    ] {
        assert_eq!(list(&index, &query(filter)).count, expected, "{filter}");
    }
    let id = list(&index, &query("status:error")).traces[0].trace_id.clone();
    let counts = ["", "trace_", "-", "status:ok "]
        .map(|before| list(&index, &query(&format!("{before}{}", id.to_uppercase()))).count);
    assert_eq!(counts, [1, 1, 1, 0], "by the id of one of two traces");
    let in_time = |from_ns, to_ns| {
        let query = Query { from_ns, to_ns, ..query("") };
        index.list(&query, (None, 1), EVERYTHING).unwrap()
    };
    let began = 1_795_238_101_000_000_000;
    assert_eq!(in_time(Some(began), Some(began + 1)).count, 2);
    assert_eq!(in_time(Some(began + 1), None).count + in_time(None, Some(began)).count, 0);
    assert_eq!(in_time(None, None).traces.len(), 1, "no more than the limit");
}

#[test]
fn a_word_that_is_not_understood_is_shown_with_what_to_write() {
    for (filter, expected) in [
        ("agnet:x", "unknown term `agnet:`\n  agnet:x\n  ^^^^^\ndid you mean `agent`?"),
        ("a dur:fast", "not a duration\n  a dur:fast\n        ^^^^\nwrite dur:>2s"),
        ("tokens:>many", "not a whole number\n  tokens:>many\n         ^^^^^\n"),
        ("cost:>-1", "not an amount in dollars\n  cost:>-1\n       ^^^\n"),
        ("cost:>NaN", "not an amount in dollars"),
        (
            "\u{5d0}\u{5d1} status:bad",
            "a status is `error` or `ok`\n  \u{5d0}\u{5d1} status:bad\n            ^^^\n",
        ),
        ("agent:", "`agent:` says nothing\n  agent:\n  ^^^^^\n"),
        ("agent:\"x y", "a quote is not closed\n  agent:\"x y\n        ^^^^\n"),
        ("http://x", "unknown term `http:`"),
    ] {
        let mistake = Filter::read(filter).unwrap_err().to_string();
        assert!(mistake.starts_with(expected), "{mistake}");
    }
    assert!(Filter::read("\"http://x\" : :x").is_err(), "a colon alone is no word");
}

#[test]
fn pages_follow_one_another_and_hold_each_trace_once() {
    let requests: Vec<_> = (0..10).map(|number| one_run(&format!("trace_{number}"))).collect();
    let index = fed(&requests);
    let (mut before, mut seen) = (None, Vec::new());
    loop {
        let page = index.list(&query(""), (before, 3), EVERYTHING).unwrap();
        assert_eq!(page.count, 10);
        seen.extend(page.traces.iter().map(|trace| trace.trace_id.clone()));
        let Some(last) = page.traces.last() else { break };
        before = TraceId::from_hex(&last.trace_id).map(|id| (id, None));
    }
    let whole: Vec<_> = list(&index, &query("")).traces;
    assert_eq!(seen, whole.into_iter().map(|trace| trace.trace_id).collect::<Vec<_>>());
    // It may have been evicted since it was listed.
    let behind = |began_ns| {
        let gone = (ids::trace_id("trace_99"), began_ns);
        index.list(&query(""), (Some(gone), 100), EVERYTHING).map(|page| page.traces.len())
    };
    assert_eq!([None, Some(0), Some(u64::MAX)].map(behind), [None, Some(0), Some(10)]);
}

#[test]
fn who_asks_since_a_position_hears_of_each_trace_that_has_grown_and_of_no_other() {
    let index = Index::new(Arc::default());
    let at_first = list(&index, &query("")).position;
    let mut since = at_first;
    let mut next = |index: &Index| {
        let told = list(index, &Query { since: Some(since), ..query("") });
        since = told.position;
        told.traces
            .iter()
            .map(|trace| (trace.session.clone().unwrap(), trace.spans))
            .collect::<Vec<_>>()
    };
    let run = |name: &str| {
        let mut items = one_run(name);
        items[0] = object(name, "Refund", name);
        arrival(&items).decoded.batch
    };
    let told = |name: &str, spans| (name.to_owned(), spans);
    // The very first record starts at 0.
    index.feed(&run("one"), Position(0));
    assert_eq!(next(&index), [told("one", 5)]);
    assert_eq!(next(&index), []);
    index.feed(&run("two"), Position(100));
    index.feed(&arrival(&[span("one", 9, None, &tool("t"))]).decoded.batch, Position(200));
    let mut both = next(&index);
    both.sort();
    assert_eq!(both, [told("one", 6), told("two", 5)]);
    index.feed(&arrival(&[span("one", 9, None, &tool("t"))]).decoded.batch, Position(300));
    assert_eq!(next(&index), [told("one", 6)]);
    assert_eq!(next(&index), []);
}

#[test]
fn percentiles_are_values_that_were_seen() {
    let items: Vec<_> = (0..100)
        .map(|number| {
            let ended = format!("05:{:02}:{:02}Z", 15 + number / 60, number % 60);
            span("trace_1", number * 10, None, &tool("t")).replace("05:15:09Z", &ended)
        })
        .collect();
    let rows = fed(&[items]).stats(&query(""), By::Tool, EVERYTHING).rows;
    let seconds = [rows[0].p50_ns, rows[0].p95_ns, rows[0].p99_ns].map(|ns| ns / 1_000_000_000);
    assert_eq!((rows[0].count, seconds), (100, [49, 94, 98]));
}

#[tokio::test]
async fn an_index_that_is_rebuilt_equals_one_that_has_followed() {
    let feed = feed();
    for number in 0..20 {
        accept(&feed, &one_run(&format!("trace_{number}"))).await;
    }
    let followed = Index::new(Arc::default());
    let mut reader = feed.reader(Mark::default());
    for _ in 0..20 {
        let next = reader.next().await;
        followed.feed(&next.batch, next.start.position);
    }
    let rebuilt = Index::new(Arc::default());
    assert_eq!(rebuilt.view().rebuilding_percent, Some(0));
    rebuilt.rebuild(feed.journal(), feed.journal().end(), || false);
    assert_eq!(rebuilt.view().rebuilding_percent, None);
    let all = |index: &Index| list(index, &query("")).traces;
    assert_eq!(all(&rebuilt), all(&followed));
    assert_eq!(
        rebuilt.stats(&query(""), By::Model, EVERYTHING).rows,
        followed.stats(&query(""), By::Model, EVERYTHING).rows
    );
    assert_eq!(rebuilt.view().traces, 20);
}

#[tokio::test]
async fn what_is_accepted_while_it_is_rebuilt_and_afterwards_is_in_it_and_counted_once() {
    let feed = feed();
    for number in 0..50 {
        accept(&feed, &one_run(&format!("trace_{number}"))).await;
    }
    let kept = Kept { traces: true, agents: true };
    let index = Index::keeping(kept, Arc::default());
    let following = tokio::spawn(
        index.clone().follow(feed.clone(), Metrics::default().understanding().clone()),
    );
    for number in 50..100 {
        for _ in 0..2 {
            accept(&feed, &one_run(&format!("trace_{number}"))).await;
        }
    }
    while index.view().traces < 100 {
        tokio::task::yield_now().await;
    }
    let traces = list(&index, &query("")).traces;
    assert!(traces.iter().all(|trace| trace.spans == 5 && trace.total_tokens == 130));
    following.abort();
    // Earlier spans were counted when they arrived, and resends never get here.
    assert!(
        page(&index).contains("spanferry_spans_total{span_type=\"agent\",status=\"ok\"} 100\n")
    );
}

#[tokio::test]
async fn what_is_not_understood_is_counted_once_from_a_start_on_whoever_reads_it_too() {
    let (feed, metrics) = (feed(), Metrics::default());
    let odd = |number| span("trace_1", number, None, &call(["early", "late"][number / 100], 5, 5));
    for number in 0..100 {
        accept(&feed, &[odd(number)]).await;
    }
    let prices = Arc::new(Prices::new(&PriceOptions { enabled: true, ..Default::default() }, None));
    let index = Index::new(Arc::clone(&prices));
    let following =
        tokio::spawn(index.clone().follow(feed.clone(), metrics.understanding().clone()));
    let mut sink = feed.reader(feed.journal().end());
    for number in 100..200 {
        accept(&feed, &[odd(number)]).await;
        if number % 2 == 0 {
            let read = sink.next().await.batch;
            read.spans().for_each(|span| _ = prices.of(span));
        }
    }
    while list(&index, &query("")).traces.iter().all(|trace| trace.spans < 200) {
        tokio::task::yield_now().await;
    }
    following.abort();
    let figures = metrics.understanding().figures();
    assert_eq!(figures["unpriced_models"], json!({ "late": 100 }));
}

fn page(index: &Index) -> String {
    let mut page = String::new();
    index.write_agents(0, &mut page, false).unwrap();
    page
}

#[tokio::test]
async fn agents_are_counted_without_an_index_too() {
    let kept = Kept { traces: false, agents: true };
    let (feed, agents) = (feed(), Index::keeping(kept, Arc::default()));
    let following = tokio::spawn(
        agents.clone().follow(feed.clone(), Metrics::default().understanding().clone()),
    );
    accept(&feed, &one_run("trace_1")).await;
    while !page(&agents).contains("spanferry_spans_total{span_type=\"agent\",status=\"ok\"} 2\n") {
        tokio::task::yield_now().await;
    }
    following.abort();
}

/// This takes seconds if each call causes a scan of all calls of its trace; a resent span replaces the earlier one.
#[test]
fn a_trace_of_32843_calls_has_them_all_and_one_that_comes_again_replaces_itself() {
    let step = |number: u64, name: &str| {
        format!(
            r#"{{"traceId":"{:032x}","spanId":"{:016x}","parentSpanId":"{:016x}","name":"{name}","attributes":[{{"key":"gen_ai.operation.name","value":{{"stringValue":"execute_tool"}}}}]}}"#,
            1,
            number + 1,
            number / 8 + 1,
        )
    };
    let mut calls: Vec<_> = (1..=32_843).map(|number| step(number, "n")).collect();
    calls.extend([7, 3_000].map(|number| step(number, "again")));
    let index = Index::new(Arc::default());
    for (at, calls) in calls.chunks(1_000).enumerate() {
        index.feed(&otlp_arrival(calls).decoded.batch, Position(at as u64));
    }
    let rows = index.stats(&Query::default(), By::Tool, EVERYTHING).rows;
    let counts: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.count)).collect();
    assert_eq!(counts, [("n", 32_841), ("again", 2)]);
}

#[test]
fn a_trace_of_100000_spans_in_any_shape_is_one_summary() {
    let spans: Vec<_> = (1..=100_000_u64)
        .map(|number| {
            // A chain with a cycle at its top.
            let parent = if number == 1 { 3 } else { number - 1 };
            format!(r#"{{"traceId":"{:032x}","spanId":"{number:016x}","parentSpanId":"{parent:016x}","name":"n"}}"#, 1)
        })
        .collect();
    let index = Index::new(Arc::default());
    for (at, spans) in spans.chunks(1_000).enumerate() {
        index.feed(&otlp_arrival(spans).decoded.batch, Position(at as u64));
    }
    let trace = only(&index);
    assert_eq!(trace.spans, 100_000);
    let id = TraceId::from_hex(&trace.trace_id).unwrap();
    let Places(parts) = index.places(id, true);
    assert_eq!(parts.iter().filter(|part| part.is_its_own).count(), 100);
}
