//! The index of traces shows for captured traffic the same as the lines of that traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use spanferry::feed::Traces;
use spanferry::index::{By, Index, List, Query, StatsRow};
use spanferry::journal::Position;
use spanferry::prices::{PriceOptions, Prices};
use spanferry::sinks::jsonl::Lines;
use spanferry::span::{Batch, TraceNeeds};

use super::{batches, delivery, parse};

const FOLDERS: [&str; 2] = ["agents-sdk", "otlp"];

/// A trace or a row of `stats`, from either source.
#[derive(Debug, Default, PartialEq)]
struct Computed {
    spans: BTreeSet<String>,
    failed: BTreeSet<String>,
    start: u64,
    end: u64,
    tokens: [u64; 3],
    cost_nanos: u64,
    names: [BTreeSet<String>; 3],
    durations: Vec<u64>,
}

const KINDS: [By; 4] = [By::Agent, By::Tool, By::Model, By::Handoff];
const MODEL_KINDS: [&str; 5] = ["generation", "embedding", "reranker", "speech", "transcription"];

/// Returns the lines that the file sink writes once all traffic is known. For a span that came twice, only the last line is kept.
pub(super) fn lines_of(batches: &[Arc<Batch>]) -> Vec<Value> {
    let mut traces = Traces::new(TraceNeeds::AS_KNOWN, 0);
    for (at, batch) in batches.iter().enumerate() {
        traces.feed(batch, Position(at as u64));
    }
    let contexts = traces.contexts(batches.iter().flat_map(|batch| &batch.items));
    let (delivery, prices) = (delivery(batches).with_contexts(contexts), prices());
    let (mut lines, mut text) = (Lines::of(&delivery, &prices), Vec::new());
    for (batch, item) in delivery.items() {
        lines.write(&mut text, batch, item);
    }
    let text = String::from_utf8(text).unwrap();
    let mut last = BTreeMap::new();
    for line in text.lines() {
        let line = parse(line);
        if line["record"] == "span" {
            last.insert((line["trace_id"].to_string(), line["span_id"].to_string()), line);
        }
    }
    last.into_values().collect()
}

/// Returns the prices of a daemon without options.
pub(super) fn prices() -> Arc<Prices> {
    Arc::new(Prices::new(&PriceOptions::default(), None))
}

fn indexed(batches: &[Arc<Batch>]) -> Index {
    let index = Index::new(prices());
    for (at, batch) in batches.iter().enumerate() {
        index.feed(batch, Position(at as u64));
    }
    index
}

fn text<'v>(line: &'v Value, column: &str) -> Option<&'v str> {
    line[column].as_str()
}

/// Returns the kind and the name of a line's call.
fn call(line: &Value) -> Option<(usize, String)> {
    let name = || text(line, "display_name").or(text(line, "name")).unwrap_or_default();
    let named = |column| text(line, column).unwrap_or_else(name).to_owned();
    match text(line, "kind")? {
        "agent" => Some((0, named("agent_name"))),
        "tool" => Some((1, named("tool_name"))),
        kind if MODEL_KINDS.contains(&kind) => {
            let model = text(line, "response_model").or(text(line, "request_model"));
            Some((2, model.unwrap_or("(no name)").to_owned()))
        }
        _ => None,
    }
}

fn own_agent(line: &Value) -> Option<String> {
    let of_agent = call(line).filter(|(kind, _)| *kind == 0).map(|(_, name)| name);
    text(line, "agent_name").map(str::to_owned).or(of_agent)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "costs are small")]
fn add_sums(sums: &mut Computed, line: &Value) {
    let count = |column: &str| line[column].as_u64();
    let (input, output) = (count("input_tokens").unwrap_or(0), count("output_tokens").unwrap_or(0));
    let total = count("total_tokens").unwrap_or(input + output);
    for (sum, more) in sums.tokens.iter_mut().zip([input, output, total]) {
        *sum += more;
    }
    sums.cost_nanos += (line["cost_usd"].as_f64().unwrap_or(0.0) * 1e9).round() as u64;
}

fn by_trace(lines: &[Value]) -> BTreeMap<String, Computed> {
    let mut traces: BTreeMap<String, Computed> = BTreeMap::new();
    for line in lines {
        let trace = traces.entry(text(line, "trace_id").unwrap().to_owned()).or_default();
        let span = text(line, "span_id").unwrap().to_owned();
        let message = text(line, "error_message").unwrap_or_default();
        let goes_on = message.ends_with("(non-fatal)") || message.starts_with("Multiple handoffs");
        let failed = ["error_type", "error_message", "error_data"];
        if (failed.iter().any(|it| line[*it].is_string()) || line["status"] == "error") && !goes_on
        {
            trace.failed.insert(span.clone());
        }
        trace.spans.insert(span);
        let (start, end) = (&line["start_time_unix_nano"], &line["end_time_unix_nano"]);
        let (start, end) = (start.as_u64().unwrap(), end.as_u64().unwrap());
        let starts = [trace.start, start].into_iter().filter(|start| *start != 0);
        trace.start = starts.min().unwrap_or(0);
        trace.end = trace.end.max(end);
        add_sums(trace, line);
        trace.names[0].extend(own_agent(line));
        if let Some((kind, name)) = call(line).filter(|(_, name)| name != "(no name)") {
            trace.names[kind].insert(name);
        }
    }
    traces
}

/// Lines by trace and span id.
pub(super) type ById<'v> = BTreeMap<(&'v str, &'v str), &'v Value>;

pub(super) fn by_id(lines: &[Value]) -> ById<'_> {
    let id = |line, column| text(line, column).unwrap();
    lines.iter().map(|line| ((id(line, "trace_id"), id(line, "span_id")), line)).collect()
}

/// Returns the agent at or above a line.
pub(super) fn agent_above(lines: &ById<'_>, line: &Value) -> Option<String> {
    let trace = text(line, "trace_id")?;
    let mut line = line;
    for _ in 0..10_000 {
        if let Some(agent) = own_agent(line) {
            return Some(agent);
        }
        line = lines.get(&(trace, text(line, "parent_span_id")?))?;
    }
    None
}

fn handoff(lines: &ById<'_>, line: &Value) -> Option<String> {
    let from = text(line, "handoff_from").map(str::to_owned).or_else(|| agent_above(lines, line));
    let from = from.as_deref().unwrap_or("(no name)");
    let to = text(line, "handoff_to").unwrap_or("(no name)");
    (line["kind"] == "handoff").then(|| format!("{from} -> {to}"))
}

fn by_call(lines: &[Value], kind: usize) -> BTreeMap<String, Computed> {
    let by_id = by_id(lines);
    let mut rows: BTreeMap<String, Computed> = BTreeMap::new();
    for line in lines {
        let own = match kind {
            3 => handoff(&by_id, line),
            _ => call(line).filter(|(of, _)| *of == kind).map(|(_, name)| name),
        };
        if let Some(name) = &own {
            let row = rows.entry(name.clone()).or_default();
            row.durations.push(line["duration_ns"].as_u64().unwrap());
            if line["status"] == "error" || line["error_message"].is_string() {
                row.failed.insert(format!("{}{}", line["trace_id"], line["span_id"]));
            }
        }
        let spender = if kind == 0 { agent_above(&by_id, line) } else { own };
        let mut sums = Computed::default();
        add_sums(&mut sums, line);
        if let Some(name) = spender.filter(|_| sums != Computed::default()) {
            add_sums(rows.entry(name).or_default(), line);
        }
    }
    rows
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "costs are small")]
fn cost_nanos(cost: Option<f64>) -> u64 {
    (cost.unwrap_or(0.0) * 1e9).round() as u64
}

#[test]
fn every_trace_of_captured_traffic_says_what_its_lines_say() {
    for folder in FOLDERS {
        let batches = batches(folder);
        let everything = (None, usize::MAX);
        let list = indexed(&batches).list(&Query::default(), everything, Position(0)).unwrap();
        let List { traces, count, .. } = list;
        let mut computed = by_trace(&lines_of(&batches));
        for trace in &traces {
            // A trace object without spans has no lines.
            let expected = computed.remove(&trace.trace_id).unwrap_or_default();
            let names = [&trace.agents, &trace.tools, &trace.models];
            let names = names.map(|names| names.iter().cloned().collect::<BTreeSet<_>>());
            let duration =
                if expected.start == 0 { 0 } else { expected.end.saturating_sub(expected.start) };
            assert_eq!(
                (trace.spans, trace.errors, trace.duration_ns),
                (expected.spans.len() as u64, expected.failed.len() as u64, duration),
                "{folder} {}",
                trace.trace_id
            );
            let tokens = [trace.input_tokens, trace.output_tokens, trace.total_tokens];
            assert_eq!(
                (tokens, names),
                (expected.tokens, expected.names),
                "{folder} {}",
                trace.trace_id
            );
            assert_eq!(
                cost_nanos(trace.cost_usd),
                expected.cost_nanos,
                "{folder} {}",
                trace.trace_id
            );
        }
        assert!(computed.is_empty() && count == traces.len() as u64, "{folder}: {computed:?}");
        assert!(traces.iter().any(|trace| trace.total_tokens > 0), "{folder} says tokens");
        let costs = traces.iter().any(|trace| trace.cost_usd > Some(0.0));
        // The models in the Agents SDK's captures are fictitious.
        assert_eq!(costs, folder == "otlp", "{folder}");
    }
}

/// Returns the smallest duration that this percentage of all does not exceed.
fn percentile(durations: &[u64], percent: usize) -> u64 {
    let enough = |limit: &&u64| {
        let within = durations.iter().filter(|duration| *duration <= *limit).count();
        within * 100 >= durations.len() * percent
    };
    durations.iter().filter(enough).min().copied().unwrap_or(0)
}

#[test]
fn sums_by_agent_tool_model_and_handoff_are_those_of_the_lines() {
    for folder in FOLDERS {
        let batches = batches(folder);
        let (index, lines) = (indexed(&batches), lines_of(&batches));
        for (kind, by) in KINDS.into_iter().enumerate() {
            let computed = by_call(&lines, kind);
            let costs: Vec<_> = computed.values().map(|row| row.cost_nanos).collect();
            let expected = computed.into_iter().map(|(name, row)| StatsRow {
                name,
                count: row.durations.len() as u64,
                errors: row.failed.len() as u64,
                p50_ns: percentile(&row.durations, 50),
                p95_ns: percentile(&row.durations, 95),
                p99_ns: percentile(&row.durations, 99),
                input_tokens: row.tokens[0],
                output_tokens: row.tokens[1],
                total_tokens: row.tokens[2],
                cost_usd: None,
            });
            let expected: Vec<_> = expected.collect();
            let mut rows = index.stats(&Query::default(), by, Position(0)).rows;
            rows.sort_by(|one, other| one.name.cmp(&other.name));
            let found = rows.iter_mut().map(|row| cost_nanos(row.cost_usd.take()));
            assert_eq!(found.collect::<Vec<_>>(), costs, "{folder} {by:?}");
            assert!(!rows.is_empty());
            assert_eq!(rows, expected, "{folder} {by:?}");
        }
    }
}
