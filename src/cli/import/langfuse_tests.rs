//! Tests of rows in Langfuse's formats (written after its field reference and its source).

use std::sync::Arc;

use serde_json::{Value, json};

use super::formats;
use super::pieces::{PIECE_BYTES_MAX, Pieces};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::Lines;

/// A generation of the blob storage's "Enriched observations".
const ENRICHED: &str = r#"{"id":"eee19b7ec3c1b174","trace_id":"5b8efff798038103d269b633813fc60c","project_id":"p","environment":"production","type":"GENERATION","parent_observation_id":"eee19b7ec3c1b173","start_time":"2026-11-21 05:15:09.529000","end_time":"2026-11-21 05:15:11.000000","name":"answer","metadata":{"tier":"pro"},"level":"ERROR","status_message":"too late","version":"","input":"[{\"role\":\"user\",\"content\":\"hi\"}]","output":"hello","provided_model_name":"gpt-4o","model_parameters":"{\"temperature\":0.7}","usage_details":{"input":100,"input_cached_tokens":20,"output":30,"total":150},"cost_details":{"input":0.25,"output":0.5,"total":0.75},"completion_start_time":"2026-11-21 05:15:10.029000","prompt_name":"greeting","prompt_version":3,"total_cost":0.75,"latency":1.471,"input_price":"0.1","user_id":"ada","session_id":"s-1","trace_name":"chat","tags":["a","b"],"release":"r1","bookmarked":false}"#;

/// The same as a row of the table of observations.
fn of_table() -> Value {
    let camel = |column: &str| {
        let mut parts = column.split('_');
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |mut name, part| {
            let mut letters = part.chars();
            name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
            name + letters.as_str()
        })
    };
    let row: Value = serde_json::from_str(ENRICHED).unwrap();
    let row = row.as_object().unwrap().iter();
    let iso = |value: &Value| match value.as_str() {
        Some(text) if text.starts_with("2026-") => {
            json!(format!("{}Z", text.replace(' ', "T").strip_suffix("000").unwrap()))
        }
        _ => value.clone(),
    };
    let row = row.map(|(column, value)| (camel(column), iso(value)));
    let mut row: serde_json::Map<_, _> = row.collect();
    row["input"] = json!([{"role": "user", "content": "hi"}]);
    row.into()
}

/// Returns rows as CSV, with every cell in quotes.
fn csv(row: &Value) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let row = row.as_object().unwrap();
    let names: Vec<_> = row.keys().map(|name| quoted(name)).collect();
    let cells: Vec<_> = row.values().map(|value| quoted(&cell(value))).collect();
    format!("{}\n{}\n", names.join(","), cells.join(","))
}

/// Returns the JSON lines of a stream's spans, or the reasons why rows are rejected.
fn lines(stream: &str) -> Vec<Result<Value, String>> {
    let stream = Box::new(std::io::Cursor::new(stream.to_owned()));
    let mut pieces = Pieces::of(stream, PIECE_BYTES_MAX).unwrap();
    let (mut found, prices) = (Vec::new(), Prices::default());
    while let Some(piece) = pieces.next().unwrap() {
        match formats::of_piece(&piece) {
            Ok(decoded) => {
                assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
                let mut delivery = Delivery::default();
                let count = decoded.batch.items.len();
                delivery.add(&Arc::new(decoded.batch), 0..count);
                for (batch, item) in delivery.items() {
                    let mut line = Vec::new();
                    Lines::of(&delivery, &prices).write(&mut line, batch, item);
                    found.push(Ok(serde_json::from_slice(&line).unwrap()));
                }
            }
            Err(flaw) => found.push(Err(flaw)),
        }
    }
    found
}

#[track_caller]
fn assert_one(stream: &str, expected: &Value) {
    let found = lines(stream);
    let [Ok(line)] = found.as_slice() else { panic!("{found:?}") };
    for (column, value) in expected.as_object().unwrap() {
        assert_eq!(line.get(column).unwrap_or(&Value::Null), value, "{column} of {line:#}");
    }
}

#[test]
fn an_observation_is_the_same_span_from_every_export() {
    let expected = json!({
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "span_id": "eee19b7ec3c1b174",
        "parent_span_id": "eee19b7ec3c1b173",
        "start_time_unix_nano": 1_795_238_109_529_000_000_u64,
        "end_time_unix_nano": 1_795_238_111_000_000_000_u64,
        "time_to_first_token_ns": 500_000_000,
        "name": "answer",
        "kind": "generation",
        "status": "error",
        "error_message": "too late",
        "user_id": "ada",
        "session_id": "s-1",
        "workflow_name": "chat",
        "environment": "production",
        "release": "r1",
        "tags": ["a", "b"],
        "response_model": "gpt-4o",
        "input": "[{\"role\":\"user\",\"content\":\"hi\"}]",
        "output": "hello",
        "input_tokens": 120,
        "cache_read_input_tokens": 20,
        "output_tokens": 30,
        "cost_usd": 0.75,
        "prompt_name": "greeting",
        "prompt_version": "3",
        "metadata": {"tier": "pro"},
    });
    let row = of_table();
    for stream in [
        ENRICHED.to_owned(),
        format!("[{ENRICHED}]"),
        csv(&serde_json::from_str(ENRICHED).unwrap()),
        row.to_string(),
        format!("[{row}]"),
        csv(&row),
    ] {
        assert_one(&stream, &expected);
    }
}

#[test]
fn what_has_other_ids_keeps_them_and_what_belongs_together_stays_together() {
    let row = |id: &str, parent: &str| {
        format!(
            r#"{{"id":"{id}","trace_id":"0c1d2e3f-0000-4000-8000-0123456789ab","project_id":"p","type":"SPAN","start_time":"2026-11-21 05:15:09.5","parent_observation_id":{parent},"accuracy":[1]}}"#
        )
    };
    let (parent, child) = (row("cm3abc", "null"), row("cm3def", "\"cm3abc\""));
    let found = lines(&format!("{parent}\n{child}\n"));
    let [Ok(parent), Ok(child)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(parent["trace_id"], "0c1d2e3f0000400080000123456789ab");
    assert_eq!(parent.get("parent_span_id"), None);
    assert_eq!(child["parent_span_id"], parent["span_id"]);
    let metadata = &child["metadata"];
    assert_eq!(metadata["langfuse_id"], "cm3def");
    assert_eq!(metadata["langfuse_trace_id"], "0c1d2e3f-0000-4000-8000-0123456789ab");
    assert_eq!(metadata["accuracy"], "[1]");
    assert_eq!(child["end_time"], child["start_time"]);
}

#[test]
fn a_trace_is_a_root_and_a_score_judges_what_it_is_of() {
    assert_one(
        r#"{"id":"5b8efff798038103d269b633813fc60c","timestamp":"2026-11-21 05:15:09.529","name":"chat","environment":"production","project_id":"p","metadata":{},"user_id":"ada","session_id":"s-1","tags":["a"],"input":"hi","output":null,"bookmarked":false,"totalTokens":7}"#,
        &json!({
            "trace_id": "5b8efff798038103d269b633813fc60c", "parent_span_id": null, "name": "chat", "workflow_name": "chat",
            "user_id": "ada", "session_id": "s-1", "tags": ["a"], "input": "hi", "output": null, "input_tokens": null,
            "start_time": "2026-11-21T05:15:09.529000000Z", "metadata": {"langfuse_id": "5b8efff798038103d269b633813fc60c"},
        }),
    );
    assert_one(
        r#"{"id":"s1","timestamp":"2026-11-21 05:15:09.529","project_id":"p","trace_id":"5b8efff798038103d269b633813fc60c","observation_id":"eee19b7ec3c1b174","name":"accuracy","value":0.5,"source":"EVAL","comment":"half","data_type":"NUMERIC","string_value":null}"#,
        &json!({
            "parent_span_id": "eee19b7ec3c1b174", "kind": "evaluator", "name": "accuracy",
            "scores": [{"name": "accuracy", "value": 0.5, "explanation": "half"}],
        }),
    );
}

#[test]
fn an_export_that_is_of_no_use_is_refused_with_the_one_that_is() {
    for row in [
        json!({"id": "s", "userIds": ["ada"], "countTraces": 3, "bookmarked": false}),
        json!({"id": "eee19b7ec3c1b174", "traceId": "t", "projectId": "p", "startTime": "yesterday"}),
        json!({"id": "i", "projectId": "p", "traceId": "t", "startTime": "2026-11-21T05:15:09Z", "endTime": "later"}),
        json!({"projectId": "p", "traceId": "t", "startTime": "2026-11-21T05:15:09Z"}),
        json!({"id": "s", "project_id": "p", "timestamp": "2026-11-21 05:15:09", "data_type": "NUMERIC", "value": 1}),
    ] {
        for stream in [row.to_string(), csv(&row)] {
            let found = lines(&stream);
            let [Err(reason)] = found.as_slice() else { panic!("{found:?}") };
            assert!(reason.contains("Enriched observations"), "{reason}");
        }
    }
}
