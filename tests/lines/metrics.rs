//! The agent metrics of `/metrics` for captured traffic equal those computed from the lines of that traffic.

use std::collections::BTreeMap;

use serde_json::Value;
use spanferry::index::{Index, Kept};
use spanferry::journal::Position;

use super::batches;
use super::look::{agent_above, by_id, lines_of};

/// Sums by label values.
type Sums = BTreeMap<Vec<String>, f64>;

const FOLDERS: [&str; 2] = ["agents-sdk", "otlp"];
const OPERATIONS: [(&str, &str); 9] = [
    ("agent", "invoke_agent"),
    ("tool", "execute_tool"),
    ("generation", "chat"),
    ("embedding", "embeddings"),
    ("retriever", "retrieval"),
    ("reranker", "reranker"),
    ("speech", "speech"),
    ("transcription", "transcription"),
    ("", ""),
];

/// Returns the page after every waiting time has passed.
fn page(folder: &str) -> String {
    let kept = Kept { traces: false, agents: true };
    let metrics = Index::keeping(kept, super::look::prices());
    for batch in batches(folder) {
        metrics.feed(&batch, Position(0));
    }
    let mut page = String::new();
    metrics.write_agents(u64::MAX, &mut page, false).unwrap();
    page
}

/// Sums a metric's series by these labels. No name in the captured traffic contains a comma or a quotation mark.
fn metric(page: &str, name: &str, by: &[&str]) -> Sums {
    let mut sums = Sums::new();
    for line in page.lines().filter_map(|line| line.strip_prefix(name)) {
        let Some((labels, value)) = line.strip_prefix('{').and_then(|line| line.rsplit_once("} "))
        else {
            continue;
        };
        let labels: BTreeMap<&str, &str> = labels
            .split("\",")
            .filter_map(|label| label.trim_end_matches('"').split_once("=\""))
            .collect();
        let key = by.iter().map(|label| (*labels.get(label).unwrap_or(&"")).to_owned()).collect();
        *sums.entry(key).or_default() += value.parse::<f64>().unwrap();
    }
    sums.retain(|_, sum| *sum != 0.0);
    sums
}

/// Computes the same from lines; `of` returns a line's contribution, if any.
fn computed(lines: &[Value], of: impl Fn(&Value) -> Option<(Vec<String>, f64)>) -> Sums {
    let mut sums = Sums::new();
    for (key, value) in lines.iter().filter_map(of) {
        *sums.entry(key).or_default() += value;
    }
    sums.retain(|_, sum| *sum != 0.0);
    sums
}

#[track_caller]
fn same(folder: &str, what: &str, found: &Sums, expected: &Sums) {
    assert!(!expected.is_empty(), "{folder} has no {what}");
    assert!(found.keys().eq(expected.keys()), "{folder} {what}\n{found:?}\n{expected:?}");
    for (key, value) in expected {
        let difference = (found[key] - value).abs();
        assert!(difference <= value * 1e-9, "{folder} {what} {key:?}: {} {value}", found[key]);
    }
}

fn text_of(line: &Value, column: &str) -> String {
    line[column].as_str().unwrap_or_default().to_owned()
}

/// Returns the line's own name, or that of the span.
fn named(line: &Value, column: &str) -> String {
    let names = [column, "display_name", "name"];
    names
        .iter()
        .map(|column| text_of(line, column))
        .find(|name| !name.is_empty())
        .unwrap_or_default()
}

fn has_failed(line: &Value) -> bool {
    line["status"] == "error"
        || ["error_type", "error_message", "error_data"].iter().any(|it| line[*it].is_string())
}

fn status(line: &Value) -> String {
    if has_failed(line) { "error" } else { "ok" }.to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn number(line: &Value, column: &str) -> f64 {
    line[column].as_u64().unwrap_or_default() as f64
}

fn operation(line: &Value) -> String {
    let kind = text_of(line, "kind");
    OPERATIONS
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or(kind.clone(), |(_, word)| (*word).to_owned())
}

fn seconds(line: &Value, column: &str) -> f64 {
    number(line, column) / 1e9
}

#[test]
fn spans_tokens_and_costs_are_the_sums_that_the_lines_give() {
    for folder in FOLDERS {
        let (page, lines) = (page(folder), lines_of(&batches(folder)));
        let by_id = by_id(&lines);
        let agent = |line: &Value| agent_above(&by_id, line).unwrap_or_default();
        let spans = |line: &Value| Some((vec![text_of(line, "kind"), status(line)], 1.0));
        let found = metric(&page, "spanferry_spans_total", &["span_type", "status"]);
        same(folder, "spans", &found, &computed(&lines, spans));
        for (kind, column) in [("input", "input_tokens"), ("output", "output_tokens")] {
            let by = [
                "gen_ai_agent_name",
                "gen_ai_request_model",
                "gen_ai_response_model",
                "gen_ai_token_type",
            ];
            let mut found = metric(&page, "gen_ai_client_token_usage_sum", &by);
            found.retain(|labels, _| labels[3] == kind);
            let tokens = |line: &Value| {
                let models =
                    ["request_model", "response_model"].map(|column| text_of(line, column));
                let key = [&[agent(line)], &models[..], &[kind.to_owned()]].concat();
                Some((key, number(line, column)))
            };
            let expected = computed(&lines, tokens);
            same(folder, column, &found, &expected);
        }
        let cost = |line: &Value| {
            Some((vec![text_of(line, "response_model")], line["cost_usd"].as_f64().unwrap_or(0.0)))
        };
        let found = metric(&page, "gen_ai_cost_usd_total", &["gen_ai_response_model"]);
        if folder == "otlp" {
            same(folder, "cost", &found, &computed(&lines, cost));
        }
    }
}

#[test]
fn durations_are_the_sums_that_the_lines_give() {
    for folder in FOLDERS {
        let (page, lines) = (page(folder), lines_of(&batches(folder)));
        let by_id = by_id(&lines);
        let agent = |line: &Value| agent_above(&by_id, line).unwrap_or_default();
        let ended = |line: &&Value| {
            let (start, end) =
                (number(line, "start_time_unix_nano"), number(line, "end_time_unix_nano"));
            start != 0.0 && start <= end
        };
        let tools = |line: &Value| {
            let tool = Some(line).filter(ended).filter(|line| line["kind"] == "tool")?;
            Some((
                vec![agent(tool), named(tool, "tool_name"), status(tool)],
                seconds(tool, "duration_ns"),
            ))
        };
        let found =
            metric(&page, "spanferry_tool_call_duration_seconds_sum", &["agent", "tool", "status"]);
        same(folder, "tools", &found, &computed(&lines, tools));
        let runs = |line: &Value| {
            let run = Some(line).filter(ended).filter(|line| line["kind"] == "agent")?;
            Some((vec![named(run, "agent_name"), status(run)], 1.0))
        };
        let found =
            metric(&page, "spanferry_agent_run_duration_seconds_count", &["agent", "status"]);
        same(folder, "runs", &found, &computed(&lines, runs));
        let operations = |line: &Value| {
            let kind = text_of(line, "kind");
            let known = Some(line)
                .filter(ended)
                .filter(|_| OPERATIONS.iter().any(|(it, _)| *it == kind))?;
            Some((
                vec![operation(known), text_of(known, "provider_name")],
                seconds(known, "duration_ns"),
            ))
        };
        let by = ["gen_ai_operation_name", "gen_ai_provider_name"];
        let found = metric(&page, "gen_ai_client_operation_duration_seconds_sum", &by);
        same(folder, "operations", &found, &computed(&lines, operations));
        let first = |line: &Value| {
            line["time_to_first_token_ns"].is_u64().then(|| {
                (vec![text_of(line, "request_model")], seconds(line, "time_to_first_token_ns"))
            })
        };
        let name = "gen_ai_client_operation_time_to_first_chunk_seconds_sum";
        let found = metric(&page, name, &["gen_ai_request_model"]);
        same(folder, "first", &found, &computed(&lines, first));
    }
}

#[test]
fn what_agents_did_is_counted_as_the_lines_say() {
    for folder in FOLDERS {
        let (page, lines) = (page(folder), lines_of(&batches(folder)));
        let by_id = by_id(&lines);
        let agent = |line: &Value| agent_above(&by_id, line).unwrap_or_default();
        let handoffs = |line: &Value| {
            let from = Some(text_of(line, "handoff_from")).filter(|from| !from.is_empty());
            let from = from.unwrap_or_else(|| agent(line));
            (line["kind"] == "handoff").then(|| (vec![from, text_of(line, "handoff_to")], 1.0))
        };
        let found = metric(&page, "spanferry_agent_handoffs_total", &["from", "to"]);
        same(folder, "handoffs", &found, &computed(&lines, handoffs));
        let guardrails = |line: &Value| {
            let triggered = (line["guardrail_triggered"] == true).to_string();
            (line["kind"] == "guardrail")
                .then(|| (vec![named(line, "guardrail_name"), triggered], 1.0))
        };
        let found = metric(&page, "spanferry_guardrail_checks_total", &["name", "triggered"]);
        same(folder, "guardrails", &found, &computed(&lines, guardrails));
        let traces: BTreeMap<String, f64> =
            lines.iter().fold(BTreeMap::new(), |mut traces, line| {
                *traces.entry(text_of(line, "trace_id")).or_default() += 1.0;
                traces
            });
        let found = metric(&page, "spanferry_trace_spans_sum", &[]);
        let all = BTreeMap::from([(Vec::new(), traces.values().sum::<f64>())]);
        same(folder, "traces", &found, &all);
    }
}
