//! Compares the daemon's files with what an SDK reports as exported: every item, its ids, tree, times, name, usage and errors.
//!
//! The expected values are computed here from the SDK's own output, by the mapping in `src/sinks/jsonl` and the id rules in
//! `src/normalize/ids.rs`, without calling any of the daemon's code.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Asserts that a file with `format = "openai"` holds exactly these items.
pub(crate) fn agents_sdk(exported: &[Value], lines: &[Value]) {
    let exported = by_key(exported, item_key);
    let lines = by_key(lines, item_key);
    same_keys(&exported, &lines);
    for (key, item) in &exported {
        assert_eq!(lines[key], *item, "{key} was changed on its way");
    }
}

/// Asserts that a file with `format = "jsonl"` holds every trace object and span of an Agents SDK.
pub(crate) fn agents(exported: &[Value], lines: &[Value]) {
    let exported = by_key(exported, item_key);
    let lines = by_key(lines, line_key);
    same_keys(&exported, &lines);
    // Traces whose model calls report tokens.
    let told = exported.values().filter(|item| model_usage(&item["span_data"]).is_object());
    let told: BTreeSet<String> = told.map(|item| text(&item["trace_id"])).collect();
    for (key, item) in &exported {
        let line = lines[key];
        if item["object"] == "trace" {
            check_trace(item, line);
        } else {
            check_span(item, line);
            check_usage(item, line, told.contains(&text(&item["trace_id"])));
        }
        assert_eq!(parse(&line["openai_item"]), **item, "{key}: the item as sent");
    }
    runs_were_rich(&lines);
}

/// Asserts that the program produced everything that the comparison is meant to cover.
fn runs_were_rich(lines: &BTreeMap<String, &Value>) {
    let has = |column: &str, value: Value| lines.values().any(|line| line[column] == value);
    for kind in ["agent", "generation", "tool", "handoff", "guardrail", "custom"] {
        assert!(has("kind", json!(kind)), "no {kind} span");
    }
    assert!(has("input_tokens", json!(120)), "no usage");
    assert!(has("guardrail_triggered", json!(true)), "no guardrail tripped");
    assert!(has("session_id", json!("thread_123")), "no group");
    let errors = lines.values().filter(|line| line["status"] == "error").count();
    assert!(3 <= errors, "only {errors} errors");
}

/// Asserts that a file with `format = "jsonl"` holds every span of an OpenTelemetry SDK.
pub(crate) fn opentelemetry(exported: &[Value], lines: &[Value]) {
    let exported = by_key(exported, |span| text(&span["span_id"]));
    let lines = by_key(lines, |line| text(&line["span_id"]));
    same_keys(&exported, &lines);
    for (key, span) in &exported {
        check_otlp_span(key, span, lines[key]);
    }
}

fn by_key(items: &[Value], key: impl Fn(&Value) -> String) -> BTreeMap<String, &Value> {
    let mut map = BTreeMap::new();
    for item in items {
        let before = map.insert(key(item), item);
        assert!(before.is_none(), "{} is there twice", key(item));
    }
    map
}

fn same_keys(exported: &BTreeMap<String, &Value>, lines: &BTreeMap<String, &Value>) {
    let missing: Vec<_> = exported.iter().filter(|(key, _)| !lines.contains_key(*key)).collect();
    let surplus: Vec<_> = lines.iter().filter(|(key, _)| !exported.contains_key(*key)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "missing: {missing:#?}\nsurplus: {surplus:#?}"
    );
}

fn item_key(item: &Value) -> String {
    text(&item["id"])
}

/// Returns the client's own id of a line's item.
fn line_key(line: &Value) -> String {
    text(&line[if line["record"] == "trace" { "openai_trace_id" } else { "openai_span_id" }])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text was expected, not {value}")).to_owned()
}

fn parse(value: &Value) -> Value {
    serde_json::from_str(&text(value)).unwrap()
}

/// Compares columns; `null` stands for an absent column.
fn check(what: &Value, line: &Value, columns: &[(&str, Value)]) {
    for (column, expected) in columns {
        assert_eq!(line[*column], *expected, "column {column} of {what:#}\nin {line:#}");
    }
}

// === The Agents SDK ===

fn check_trace(item: &Value, line: &Value) {
    check(
        item,
        line,
        &[
            ("record", json!("trace")),
            ("trace_id", json!(trace_id(&item["id"]))),
            ("name", item["workflow_name"].clone()),
            ("workflow_name", item["workflow_name"].clone()),
            ("session_id", item["group_id"].clone()),
        ],
    );
    for (key, value) in item["metadata"].as_object().into_iter().flatten() {
        let written = text(&line["metadata"][key]);
        let same = value.as_str() == Some(&written)
            || serde_json::from_str::<Value>(&written).is_ok_and(|json| json == *value);
        assert!(same, "metadata {key} became {written}");
    }
}

fn check_span(item: &Value, line: &Value) {
    let data = &item["span_data"];
    let error = &item["error"];
    check(
        item,
        line,
        &[
            ("record", json!("span")),
            ("trace_id", json!(trace_id(&item["trace_id"]))),
            ("openai_trace_id", item["trace_id"].clone()),
            ("span_id", json!(span_id(&item["trace_id"], &item["id"]))),
            ("openai_parent_id", item["parent_id"].clone()),
            ("start_time_unix_nano", json!(nanoseconds(&item["started_at"]))),
            ("end_time_unix_nano", json!(nanoseconds(&item["ended_at"]))),
            ("name", json!(name(data))),
            ("kind", json!(kind(data))),
            ("status", json!(if error.is_null() { "unset" } else { "error" })),
            ("error_message", error["message"].clone()),
        ],
    );
    match &item["parent_id"] {
        Value::Null => check(item, line, &[("parent_span_id", Value::Null)]),
        parent => {
            check(item, line, &[("parent_span_id", json!(span_id(&item["trace_id"], parent)))]);
        }
    }
    if error["data"].is_object() {
        assert_eq!(parse(&line["error_data"]), error["data"], "error data of {item:#}");
    }
    check_facts(item, line);
}

fn check_facts(item: &Value, line: &Value) {
    let data = &item["span_data"];
    let columns: &[(&str, Value)] = match text(&data["type"]).as_str() {
        "agent" => &[("agent_name", data["name"].clone())],
        "function" => &[("tool_name", data["name"].clone())],
        "response" => &[("response_id", data["response_id"].clone())],
        "generation" => &[("request_model", data["model"].clone())],
        "handoff" => &[
            ("handoff_from", data["from_agent"].clone()),
            ("handoff_to", data["to_agent"].clone()),
        ],
        "guardrail" => &[
            ("guardrail_name", data["name"].clone()),
            ("guardrail_triggered", data["triggered"].clone()),
        ],
        "custom" => &[("sdk_span_type", data["data"]["sdk_span_type"].clone())],
        other => panic!("no run makes a {other} span"),
    };
    check(item, line, columns);
    if data["type"] == "function" {
        check(item, line, &[("input", data["input"].clone())]);
    }
}

/// Returns the usage of a model span. The JS SDK puts it into the response.
fn model_usage(data: &Value) -> &Value {
    if data["usage"].is_object() { &data["usage"] } else { &data["output"][0]["usage"] }
}

/// Checks usage: a model span's is its own; a task's or turn's is that of the spans below it, and must not be counted again. If none of
/// these reports any, as in the JS SDK with the Responses API, the task's counts.
fn check_usage(item: &Value, line: &Value, is_told: bool) {
    let data = &item["span_data"];
    let (prefix, usage) = match data["data"]["sdk_span_type"].as_str() {
        Some("task") if !is_told => ("", &data["data"]["usage"]),
        Some(_) => ("aggregate_", &data["data"]["usage"]),
        None => ("", model_usage(data)),
    };
    let first = |places: &[&str]| places.iter().find_map(|place| usage.pointer(place)).cloned();
    let counts = [
        ("input_tokens", first(&["/input_tokens", "/prompt_tokens"])),
        ("output_tokens", first(&["/output_tokens", "/completion_tokens"])),
        (
            "cache_read_input_tokens",
            first(&[
                "/input_tokens_details/cached_tokens",
                "/prompt_tokens_details/cached_tokens",
                "/cached_input_tokens",
            ]),
        ),
        (
            "reasoning_output_tokens",
            first(&[
                "/output_tokens_details/reasoning_tokens",
                "/completion_tokens_details/reasoning_tokens",
            ]),
        ),
    ];
    for (column, count) in counts {
        check(item, line, &[(&format!("{prefix}{column}"), count.unwrap_or_default())]);
    }
    let other = if prefix.is_empty() { "aggregate_input_tokens" } else { "input_tokens" };
    check(item, line, &[(other, Value::Null)]);
}

fn name(data: &Value) -> String {
    let part = |key: &str| text(&data[key]);
    match part("type").as_str() {
        "agent" => format!("invoke_agent {}", part("name")),
        // Old JS SDKs omit the model.
        "generation" => {
            data["model"].as_str().map_or("chat".to_owned(), |model| format!("chat {model}"))
        }
        "response" => "chat".to_owned(),
        "function" => format!("execute_tool {}", part("name")),
        "handoff" => format!("handoff {} -> {}", part("from_agent"), part("to_agent")),
        "guardrail" => format!("guardrail {}", part("name")),
        _ => match data["data"]["sdk_span_type"].as_str() {
            Some("task") => text(&data["data"]["name"]),
            Some("turn") => format!("turn {}", data["data"]["turn"]),
            _ => part("name"),
        },
    }
}

fn kind(data: &Value) -> &'static str {
    match text(&data["type"]).as_str() {
        "agent" => "agent",
        "generation" | "response" => "generation",
        "function" => "tool",
        "handoff" => "handoff",
        "guardrail" => "guardrail",
        _ if data["data"]["sdk_span_type"].is_string() => "chain",
        _ => "custom",
    }
}

/// `trace_` and 32 digits are the 16 bytes themselves.
fn trace_id(agents_sdk: &Value) -> String {
    text(agents_sdk).strip_prefix("trace_").unwrap().to_owned()
}

/// The first 8 bytes of SHA-256 over both ids as the client wrote them.
fn span_id(trace: &Value, span: &Value) -> String {
    let digest = Sha256::digest(format!("span\0{}\0{}", text(trace), text(span)));
    format!("{:016x}", u64::from_be_bytes(digest[..8].try_into().unwrap()))
}

fn nanoseconds(time: &Value) -> i64 {
    let time: Timestamp = text(time).parse().unwrap();
    i64::try_from(time.as_nanosecond()).unwrap()
}

// === OpenTelemetry ===

fn check_otlp_span(key: &str, span: &Value, line: &Value) {
    check(
        span,
        line,
        &[
            ("record", json!("span")),
            ("trace_id", span["trace_id"].clone()),
            ("parent_span_id", span["parent_span_id"].clone()),
            ("name", span["name"].clone()),
            ("span_kind", json!(text(&span["kind"]).to_lowercase())),
            ("status", json!(text(&span["status"]).to_lowercase())),
            ("status_message", span["status_message"].clone()),
            ("start_time_unix_nano", span["start_ns"].clone()),
            ("end_time_unix_nano", span["end_ns"].clone()),
            ("service_name", span["service"].clone()),
            ("environment", json!("test")),
            ("scope_name", span["scope"].clone()),
        ],
    );
    let none = || json!({});
    let attributes = line.get("attributes").cloned().unwrap_or_else(none);
    assert_eq!(attributes, span["attributes"], "attributes of {key}");
    let list = |of: &str| line[of].as_array().cloned().unwrap_or_default();
    let events: Vec<_> = list("events")
        .iter()
        .map(|event| json!([event["name"], event["time_unix_nano"]]))
        .collect();
    assert_eq!(Value::Array(events), span["events"], "events of {key}");
    let links: Vec<_> = list("links").iter().map(|link| link["span_id"].clone()).collect();
    assert_eq!(Value::Array(links), span["links"], "links of {key}");
    if span["attributes"]["gen_ai.operation.name"] == "chat" {
        let columns = [
            ("kind", json!("generation")),
            ("request_model", json!("gpt-4.1-mini")),
            ("input_tokens", json!(120)),
            ("output_tokens", json!(30)),
        ];
        check(span, line, &columns);
    }
}
