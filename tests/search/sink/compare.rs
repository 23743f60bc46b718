//! Compares documents of a real server with what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde_json::Value;

use super::truth::{Span, Truth, duration_ms};
use super::{PATIENCE, World};
use crate::process::POLL_EVERY;

/// Tolerance in milliseconds; times are exact to the microsecond.
const TIME_ROUNDING_MS: f64 = 0.002;

/// All differences, by subject: their number, and the first one.
#[derive(Debug, Default)]
struct Differences(BTreeMap<String, (usize, String)>);

impl Differences {
    #[expect(clippy::needless_pass_by_value, reason = "it reads like an assertion")]
    fn expect<T: PartialEq + Debug>(&mut self, id: &str, what: &str, found: T, expected: T) {
        if found != expected {
            let first = || (0, format!("{id}: {found:?}, not {expected:?}"));
            self.0.entry(what.to_owned()).or_insert_with(first).0 += 1;
        }
    }
}

/// Waits until the documents match what was sent: agents are filled in and summaries made some time after the spans were delivered.
pub(super) async fn assert_is_there(world: &World, truth: &Truth) {
    let started = std::time::Instant::now();
    loop {
        let (spans, traces) = (world.documents("spans").await, world.documents("traces").await);
        let mut differences = Differences::default();
        compare_spans(&spans, truth, &mut differences);
        compare_traces(&traces, truth, &mut differences);
        if differences.0.is_empty() {
            return;
        }
        let waited = started.elapsed();
        assert!(waited < PATIENCE, "{}: {:#?}", world.node.server().name, differences.0);
        tokio::time::sleep(10 * POLL_EVERY).await;
    }
}

// === Spans ===

fn compare_spans(documents: &[(String, Value)], truth: &Truth, differences: &mut Differences) {
    let (own, agents_sdk): (Vec<_>, Vec<_>) =
        documents.iter().partition(|(_, document)| document["source"] == "spanferry");
    let ids = agents_sdk.iter().map(|(id, _)| id.as_str()).collect::<BTreeSet<_>>();
    let sent = truth.spans.keys().map(String::as_str).collect::<BTreeSet<_>>();
    let names =
        |ids: Vec<&&str>| ids.into_iter().take(3).map(|id| (*id).to_owned()).collect::<Vec<_>>();
    differences.expect("all", "missing spans", names(sent.difference(&ids).collect()), vec![]);
    differences.expect("all", "unknown spans", names(ids.difference(&sent).collect()), vec![]);

    // There must be one document for each pair of ids, and no parent may be missing.
    let mut by_ids: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (_, document) in documents {
        *by_ids.entry((text(document, "trace_id"), text(document, "span_id"))).or_default() += 1;
    }
    let twice = by_ids.iter().filter(|(_, count)| **count != 1).count();
    differences.expect("all", "spans in several documents", twice, 0);
    for (id, document) in documents {
        if let Some(parent) = document["parent_id"].as_str() {
            let is_there = by_ids.contains_key(&(text(document, "trace_id"), parent));
            differences.expect(id, "its parent is there", is_there, true);
        }
    }
    let mut tops: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, document) in documents.iter().filter(|(_, document)| document["parent_id"].is_null()) {
        *tops.entry(text(document, "trace_id")).or_default() += 1;
    }
    let several: Vec<_> = tops.into_iter().filter(|(_, count)| *count != 1).collect();
    differences.expect("all", "traces with several roots", several, vec![]);
    let roots: BTreeSet<&str> = own.iter().map(|(_, root)| text(root, "trace_id")).collect();
    let expected = truth.traces_with_roots();
    differences.expect(
        "all",
        "missing roots",
        names(expected.difference(&roots).collect()),
        vec![],
    );
    differences.expect(
        "all",
        "unknown roots",
        names(roots.difference(&expected).collect()),
        vec![],
    );
    for (id, document) in agents_sdk {
        if let Some(span) = truth.spans.get(id) {
            compare_span(id, document, span, truth, differences);
        }
    }
}

fn compare_span(
    id: &str,
    document: &Value,
    span: &Span,
    truth: &Truth,
    differences: &mut Differences,
) {
    let kind = if span.kind() == "function" { "tool_call" } else { span.kind() };
    let trace = truth.traces.get(&span.trace);
    let said = |value: Option<&String>| value.cloned().filter(|said| !said.is_empty());
    let of_kind = |kind: &str, key: &str| (span.kind() == kind).then(|| span.text(key)).flatten();
    for (field, expected) in [
        ("/trace_id", Some(span.trace.clone())),
        ("/span_id", Some(id.to_owned())),
        ("/span_type", Some(kind.to_owned())),
        ("/status", Some(if span.failed { "error" } else { "ok" }.to_owned())),
        ("/tool/name", of_kind("function", "name")),
        ("/handoff/from", of_kind("handoff", "from_agent")),
        ("/handoff/to", of_kind("handoff", "to_agent")),
        ("/guardrail/name", of_kind("guardrail", "name")),
        ("/workflow_name", said(trace.and_then(|trace| trace.workflow.as_ref()))),
        ("/group_id", said(trace.and_then(|trace| trace.group.as_ref()))),
    ] {
        let found = document.pointer(field).and_then(Value::as_str).map(str::to_owned);
        differences.expect(id, field, found, expected);
    }
    if span.parent.is_some() {
        let found = document["parent_id"].as_str().map(str::to_owned);
        differences.expect(id, "parent_id", found, span.parent.clone());
    }
    if let Some(agent) = truth.agent(span) {
        let found = document.pointer("/agent/name").and_then(Value::as_str);
        differences.expect(id, "agent.name", found, Some(&*agent));
    }
    let tokens = |field: &str| document.pointer(field).and_then(Value::as_u64).unwrap_or_default();
    let found = (tokens("/usage/input_tokens"), tokens("/usage/output_tokens"));
    differences.expect(id, "usage", found, truth.tokens(span));
    differences.expect(id, "error_flag", number(document, "error_flag"), u64::from(span.failed));
    compare_duration(id, document, span.duration_ms(), differences);
}

// === Traces ===

fn compare_traces(documents: &[(String, Value)], truth: &Truth, differences: &mut Differences) {
    let found: BTreeSet<_> = documents.iter().map(|(id, _)| id.as_str()).collect();
    let sent: BTreeSet<_> = truth.traces.keys().map(String::as_str).collect();
    differences.expect("all", "traces", found.len(), sent.len());
    differences.expect("all", "summaries", documents.len(), sent.len());
    let roots = truth.traces_with_roots();
    for (id, document) in documents {
        if truth.traces.contains_key(id) {
            compare_trace(id, document, (truth, &roots), differences);
        } else {
            differences.expect(id, "was sent", false, true);
        }
    }
}

fn compare_trace(
    id: &str,
    document: &Value,
    (truth, roots): (&Truth, &BTreeSet<&str>),
    differences: &mut Differences,
) {
    let (spans, trace) = (truth.of_trace(id), &truth.traces[id]);
    let count = |is_meant: &dyn Fn(&Span) -> bool| {
        spans.iter().filter(|span| is_meant(span)).count() as u64
    };
    let errors = count(&|span| span.fatal);
    let tokens = truth.tokens_of_trace(id);
    let deepest = spans.iter().map(|span| truth.depth(span, roots)).max().unwrap_or_default();
    for (field, expected) in [
        ("span_count", spans.len() as u64),
        ("error_count", errors),
        ("error_flag", u64::from(errors > 0)),
        ("agent_span_count", count(&|span| span.kind() == "agent")),
        ("tool_call_count", count(&|span| span.kind() == "function")),
        ("generation_count", count(&|span| ["generation", "response"].contains(&span.kind()))),
        ("handoff_count", count(&|span| span.kind() == "handoff")),
        ("max_depth", deepest),
    ] {
        differences.expect(id, field, number(document, field), expected);
    }
    let usage = |field: &str| document["usage"][field].as_u64().unwrap_or_default();
    let found = (usage("input_tokens"), usage("output_tokens"));
    differences.expect(id, "usage", found, tokens);
    let names = document["agents"].as_array().cloned().unwrap_or_default();
    let names: BTreeSet<_> = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    let missing: Vec<_> = truth.agents(id).difference(&names).cloned().collect();
    differences.expect(id, "agents that are missing", missing, vec![]);
    let said = |value: &Option<String>| value.clone().filter(|said| !said.is_empty());
    for (field, expected) in [
        ("trace_id", Some(id.to_owned())),
        ("workflow_name", said(&trace.workflow)),
        ("group_id", said(&trace.group)),
        ("status", Some(if errors > 0 { "error" } else { "ok" }.to_owned())),
    ] {
        let found = document[field].as_str().map(str::to_owned);
        differences.expect(id, field, found, expected);
    }
    let is_empty = trace.metadata.as_object().is_none_or(serde_json::Map::is_empty);
    if !is_empty {
        differences.expect(id, "metadata", &document["metadata"], &trace.metadata);
    }
    compare_duration(id, document, duration_ms(&spans), differences);
}

fn compare_duration(id: &str, document: &Value, expected: f64, differences: &mut Differences) {
    let found = document["duration_ms"].as_f64().unwrap_or(f64::NAN);
    let is_close = (found - expected).abs() <= TIME_ROUNDING_MS;
    differences.expect(id, "duration_ms", is_close, true);
}

fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document[field].as_str().unwrap_or_default()
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or(u64::MAX)
}
