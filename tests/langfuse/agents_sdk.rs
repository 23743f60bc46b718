//! Spans of the Agents SDK: every type of both SDKs, and every shape of usage that they were seen to send.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spanferry::sinks::Report;
use spanferry::span::{Receiver, Text, TraceContext};

use crate::fake::Fake;
use crate::mapping::Row;
use crate::{arrived, delivery, fixtures, known, sink};

/// Returns the rows of a run of this scenario.
async fn scenario(name: &str) -> Vec<Row> {
    let path = fixtures::golden().join(format!("agents-sdk/{name}/001.body.json"));
    arrived("", &delivery(Receiver::OpenAi, std::fs::read(path).unwrap())).await
}

fn item(span_data: &Value) -> Value {
    json!({
        "object": "trace.span", "id": "span_7d015efb82524c3c947945ef",
        "trace_id": "trace_21990c0290104f62b71ed955a1f966f7", "parent_id": "span_6dd8c8fcbfa64dc99f2862f4",
        "started_at": "2026-11-21T05:15:09.529503+00:00", "ended_at": "2026-11-21T05:15:10.529503+00:00",
        "span_data": span_data, "error": null
    })
}

fn trace_object() -> Value {
    json!({
        "object": "trace", "id": "trace_21990c0290104f62b71ed955a1f966f7", "workflow_name": "Checkout",
        "group_id": "group_1",
        "metadata": { "user_id": "ada", "tags": ["beta", "a,b"], "order": "0042", "nested": { "n": [1] }, "large": 12_345_678_901_234_567_890_u64 }
    })
}

async fn one(options: &str, span_data: &Value) -> Row {
    let body = json!({ "data": [trace_object(), item(span_data)] }).to_string();
    let mut rows = arrived(options, &delivery(Receiver::OpenAi, body)).await;
    assert_eq!(rows.len(), 1, "a trace object is no observation");
    rows.remove(0)
}

/// Returns the Langfuse types by each span's own type, in order.
fn types(rows: &[Row]) -> Vec<(String, String)> {
    let span_type = |row: &Row| row.metadata["span_type"].as_str().unwrap().to_owned();
    let mut all: Vec<_> = rows.iter().map(|row| (span_type(row), row.kind.clone())).collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn every_type_of_the_python_sdk_has_its_own() {
    let rows = scenario("python/p23_all_span_types").await;
    assert_eq!(rows.len(), 20);
    let expected = [
        ("agent", "agent"),
        ("custom", "span"),
        ("function", "tool"),
        ("generation", "generation"),
        ("guardrail", "guardrail"),
        ("handoff", "span"),
        ("mcp_tools", "span"),
        ("response", "generation"),
        ("speech", "generation"),
        ("speech_group", "span"),
        ("transcription", "generation"),
    ];
    let expected: Vec<_> = expected.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
    assert_eq!(types(&rows), expected);
    let find = |span_type: &str, full: &str| {
        let is_it = |row: &&Row| {
            row.metadata["span_type"] == span_type && format!("{row:?}").contains(full)
        };
        rows.iter().find(is_it).unwrap_or_else(|| panic!("no {span_type} with {full}"))
    };
    let agent = find("agent", "\"tools\": Array");
    assert_eq!(agent.name, "A");
    assert_eq!(agent.metadata["tools"], json!(["t"]));
    assert_eq!(agent.metadata["handoffs"], json!(["B"]));
    assert_eq!(agent.metadata["output_type"], "str");
    let function = find("function", "weather");
    assert_eq!(
        (function.input.as_deref(), function.output.as_deref()),
        (Some("{\"a\":1}"), Some("{'py': 'dict'}"))
    );
    assert_eq!(function.metadata["mcp_data.server"], "weather");
    let generation = find("generation", "gpt-x");
    assert_eq!(generation.model.as_deref(), Some("gpt-x"));
    assert_eq!(generation.parameters, BTreeMap::from([("temperature".to_owned(), json!(0))]));
    assert_eq!(
        generation.usage,
        BTreeMap::from([("input".into(), 1), ("output".into(), 2), ("total".into(), 3)])
    );
    let handoff = find("handoff", "A -> B");
    assert_eq!(handoff.name, "handoff A -> B");
    assert_eq!((handoff.input.as_deref(), handoff.output.as_deref()), (Some("A"), Some("B")));
    let tripped = find("guardrail", "WARNING");
    assert_eq!(tripped.output.as_deref(), Some("{\"triggered\":true}"));
    assert_eq!(tripped.status_message, "guardrail triggered");
    let passed = find("guardrail", "DEFAULT");
    assert_eq!(passed.output.as_deref(), Some("{\"triggered\":false}"));
    assert_eq!(
        find("mcp_tools", "srv").output.as_deref(),
        Some("[\"a\", \"b\"]").map(|_| "[\"a\",\"b\"]")
    );
    let transcription = find("transcription", "gpt-transcribe");
    assert_eq!(transcription.input.as_deref(), Some("{\"format\":\"pcm\",\"bytes\":3}"));
    assert_eq!(transcription.output.as_deref(), Some("hi"));
    let speech = find("speech", "tts");
    assert_eq!(speech.output.as_deref(), Some("{\"format\":\"mp3\",\"bytes\":3}"));
    assert_eq!(speech.parameters["voice"], "alloy");
    for row in &rows {
        assert_eq!(row.trace_name.as_deref(), Some("all types"));
        assert!(row.metadata["span_id"].as_str().unwrap().starts_with("span_"), "{row:?}");
        assert!(row.metadata["trace_id"].as_str().unwrap().starts_with("trace_"), "{row:?}");
    }
}

#[tokio::test]
async fn every_type_of_the_javascript_sdk_has_its_own() {
    let rows = scenario("js/j16_all_span_types").await;
    assert_eq!(rows.len(), 20);
    assert_eq!(types(&rows), types(&scenario("python/p23_all_span_types").await));
    let generation = rows.iter().find(|row| row.model.as_deref() == Some("m")).unwrap();
    assert_eq!(
        generation.usage,
        BTreeMap::from([("input".into(), 1), ("output".into(), 2), ("total".into(), 3)]),
        "of a model that is in no table, reasoning is output"
    );
    let function = rows.iter().find(|row| row.output.as_deref() == Some("o")).unwrap();
    assert_eq!(function.metadata["mcp_data.server"], "x");
}

#[tokio::test]
async fn every_span_carries_what_is_known_of_its_trace() {
    let row = one(
        "environment = \"production\"\nrelease = \"r7\"",
        &json!({"type": "agent", "name": "A"}),
    )
    .await;
    assert_eq!(row.trace_name.as_deref(), Some("Checkout"));
    assert_eq!(row.session.as_deref(), Some("group_1"));
    assert_eq!(row.user.as_deref(), Some("ada"));
    assert_eq!(row.tags, ["beta", "a,b"]);
    assert_eq!((row.environment.as_str(), row.release.as_deref()), ("production", Some("r7")));
    assert_eq!(row.trace_metadata["order"], "0042", "digits in quotes stay text");
    assert_eq!(row.trace_metadata["nested.n"], json!([1]));
    assert_eq!(
        row.trace_metadata["large"], "12345678901234567890",
        "and digits that JavaScript has no room for"
    );
    let other = one(
        "user_from = \"order\"\ntags_from = \"nested\"",
        &json!({"type": "agent", "name": "A"}),
    )
    .await;
    assert_eq!(other.user.as_deref(), Some("0042"));
}

#[tokio::test]
async fn of_repeated_members_of_a_traces_metadata_the_last_one_counts() {
    let object = trace_object().to_string();
    let object =
        object.replace(r#""metadata":{"#, r#""metadata":{"user_id":"eve","tags":["old"],"#);
    let item = item(&json!({"type": "agent", "name": "A"}));
    let body = format!(r#"{{"data":[{object},{item}]}}"#);
    let rows = arrived("", &delivery(Receiver::OpenAi, body)).await;
    assert_eq!(rows[0].user.as_deref(), Some("ada"));
    assert_eq!(rows[0].tags, ["beta", "a,b"]);
}

#[tokio::test]
async fn what_is_known_from_the_lane_goes_before_what_is_at_hand() {
    let body = json!({ "data": [item(&json!({ "type": "agent", "name": "A" }))] }).to_string();
    let context = TraceContext {
        workflow: Some(Text::from_static("From afar")),
        session: Some(Text::from_static("s1")),
        user: Some(Text::from_static("bob")),
        tags: vec![Text::from_static("late")],
        ..TraceContext::default()
    };
    let rows = arrived("", &known(delivery(Receiver::OpenAi, body), &context)).await;
    assert_eq!(rows[0].trace_name.as_deref(), Some("From afar"));
    assert_eq!((rows[0].session.as_deref(), rows[0].user.as_deref()), (Some("s1"), Some("bob")));
    assert_eq!(rows[0].tags, ["late"]);
}

#[tokio::test]
async fn every_shape_of_usage_becomes_buckets_that_exclude_each_other() {
    let full = json!({
        "requests": 1, "input_tokens": 120, "output_tokens": 45, "total_tokens": 165,
        "input_tokens_details": { "cached_tokens": 64, "cache_write_tokens": 16, "cache_write_tokens_details": null },
        "output_tokens_details": { "reasoning_tokens": 12 }
    });
    let of_chat = json!([{ "object": "chat.completion", "choices": [], "usage": {
        "prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165,
        "prompt_tokens_details": { "cached_tokens": 64 }, "completion_tokens_details": { "reasoning_tokens": 12 } } }]);
    let with_details = json!({ "input_tokens": 120, "output_tokens": 45,
        "details": { "total_tokens": 165, "reasoning": 12, "cached_input_tokens": 64 } });
    for (span_data, expected) in [
        (
            json!({ "type": "response", "response_id": "resp_1", "usage": full }),
            json!({ "input": 40, "input_cached_tokens": 64, "input_cache_creation": 16, "output": 33,
                    "output_reasoning_tokens": 12, "total": 165 }),
        ),
        (
            json!({ "type": "generation", "model": "gpt-5-mini", "output": of_chat }),
            json!({ "input": 56, "input_cached_tokens": 64, "output": 33, "output_reasoning_tokens": 12, "total": 165 }),
        ),
        (
            json!({ "type": "generation", "model": "gpt-5-mini", "usage": with_details }),
            json!({ "input": 56, "input_cached_tokens": 64, "output": 33, "output_reasoning_tokens": 12, "total": 165 }),
        ),
        (
            json!({ "type": "generation", "usage": { "input_tokens": 7, "output_tokens": 3 } }),
            json!({ "input": 7, "output": 3, "total": 10 }),
        ),
        // Python, when it streams from a server that reports no tokens.
        (
            json!({ "type": "generation", "model": "gpt-4o", "output": "text",
                    "usage": { "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 } }),
            json!({ "input": 0, "output": 0, "total": 0 }),
        ),
        (json!({ "type": "response", "response_id": "resp_1" }), json!({})),
    ] {
        let row = one("", &span_data).await;
        assert_eq!(json!(row.usage), expected, "{span_data}");
        assert!(!row.is_invented, "{row:?}");
    }
}

#[tokio::test]
async fn a_response_gets_its_model_from_the_item_or_else_from_the_configuration() {
    let usage = json!({ "input_tokens": 100, "output_tokens": 10, "total_tokens": 110 });
    let bare = json!({ "type": "response", "response_id": "resp_1", "usage": usage });
    let own = json!({ "type": "response", "response_id": "resp_1", "usage": usage, "response": { "model": "gpt-4o" } });
    let models = "models = { default = \"gpt-5-mini\", agents = { Triage = \"o4-mini\" } }";
    let without = one("", &bare).await;
    assert_eq!((without.model, without.cost.is_empty()), (None, true));
    let by_default = one(models, &bare).await;
    assert_eq!(
        (by_default.model.as_deref(), by_default.name.as_str()),
        (Some("gpt-5-mini"), "chat gpt-5-mini")
    );
    assert!((by_default.cost["total"] - (100.0 * 0.25e-6 + 10.0 * 2e-6)).abs() < 1e-9);
    assert_eq!(one(models, &own).await.model.as_deref(), Some("gpt-4o"));
    let body = json!({ "data": [item(&bare)] }).to_string();
    let delivery = delivery(Receiver::OpenAi, body);
    let span_id = delivery.spans().next().unwrap().span_id;
    let context = TraceContext {
        agents: [(span_id, Text::from_static("Triage"))].into(),
        ..TraceContext::default()
    };
    let rows = arrived(models, &known(delivery, &context)).await;
    assert_eq!(rows[0].model.as_deref(), Some("o4-mini"));
    assert_eq!(rows[0].metadata["agent"], "Triage");
}

#[tokio::test]
async fn a_run_speaks_for_its_trace_only_where_no_model_call_does() {
    let task = json!({ "type": "custom", "name": "task", "data": {
        "sdk_span_type": "task", "name": "Checkout",
        "usage": { "input_tokens": 120, "output_tokens": 45, "total_tokens": 165, "cached_input_tokens": 64 } } });
    let mut outermost = item(&task);
    outermost["parent_id"] = Value::Null;
    let body = |item: &Value| json!({ "data": [item] }).to_string();
    let told = TraceContext::default();
    let silent = delivery(Receiver::OpenAi, body(&outermost));
    let exceptions = silent.spans().map(|span| span.span_id).collect();
    let silent = known(silent, &TraceContext { exceptions, ..TraceContext::default() });
    let row = arrived("models = { default = \"gpt-5-mini\" }", &silent).await.remove(0);
    assert_eq!(row.kind, "chain");
    assert_eq!(
        json!(row.usage),
        json!({ "input": 56, "input_cached_tokens": 64, "output": 45, "total": 165 })
    );
    assert!((row.cost["total"] - (56.0 * 0.25e-6 + 64.0 * 0.025e-6 + 45.0 * 2e-6)).abs() < 1e-9);
    for delivery in [
        known(delivery(Receiver::OpenAi, body(&outermost)), &told),
        delivery(Receiver::OpenAi, body(&outermost)),
    ] {
        let row = arrived("", &delivery).await.remove(0);
        assert!(row.usage.is_empty(), "{row:?}");
        assert_eq!(row.metadata["aggregate_usage.input_tokens"], 120);
    }
    let turn = json!({ "type": "custom", "name": "turn", "data": {
        "sdk_span_type": "turn", "turn": 2, "agent_name": "A", "usage": { "input_tokens": 1 } } });
    let turn = one("", &turn).await;
    assert_eq!(
        (turn.kind.as_str(), turn.name.as_str(), turn.usage.is_empty()),
        ("chain", "turn 2", true)
    );
    assert_eq!(turn.metadata["agent"], "A");
}

#[tokio::test]
async fn an_error_has_its_level_its_message_and_its_data() {
    let mut failed =
        item(&json!({ "type": "function", "name": "f", "input": "{}", "output": null }));
    failed["error"] =
        json!({ "message": "Error running tool", "data": { "tool_name": "f", "error": "boom" } });
    let rows =
        arrived("", &delivery(Receiver::OpenAi, json!({ "data": [failed] }).to_string())).await;
    assert_eq!(
        (rows[0].level.as_str(), rows[0].status_message.as_str()),
        ("ERROR", "Error running tool")
    );
    assert_eq!(rows[0].metadata["error.data.error"], "boom");
}

#[tokio::test]
async fn nothing_of_an_item_is_lost() {
    let mut strange =
        item(&json!({ "type": "custom", "name": "c", "data": { "a": { "b": 1 }, "text": "x" } }));
    strange["new_member"] = json!("kept");
    strange["metadata"] = json!({ "agent_harness_id": "h1" });
    let rows =
        arrived("", &delivery(Receiver::OpenAi, json!({ "data": [strange] }).to_string())).await;
    let metadata = &rows[0].metadata;
    assert_eq!((&metadata["a.b"], &metadata["text"]), (&json!(1), &json!("x")));
    assert_eq!(metadata["item.new_member"], "kept");
    assert_eq!(metadata["agent_harness_id"], "h1");
    assert_eq!(metadata["parent_span_id"], "span_6dd8c8fcbfa64dc99f2862f4");
    let unknown = one("", &json!({ "type": "telepathy", "depth": 3, "list": [{ "x": 1 }] })).await;
    assert_eq!((unknown.kind.as_str(), unknown.name.as_str()), ("span", "telepathy"));
    assert_eq!(unknown.metadata["span_data.depth"], 3);
    assert_eq!(unknown.metadata["span_data.list"], json!([{ "x": 1 }]));
}

#[tokio::test]
async fn a_delivery_gives_the_same_bytes_each_time() {
    let agents_sdk: Vec<_> = fixtures::agents_sdk_of_the_bridges();
    let captured = fixtures::captured();
    let delivery = fixtures::delivery(agents_sdk.iter().chain(&captured));
    let fake = Fake::start().await;
    let sink = sink(&fake.options());
    for _ in 0..2 {
        assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    }
    let posts = fake.posts();
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].body, posts[1].body);
    assert_eq!(
        fake.rows().len(),
        2 * fake.merged().len(),
        "and the second is merged with the first"
    );
}
