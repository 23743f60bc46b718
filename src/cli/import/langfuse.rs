//! Converts rows of Langfuse's exports to spans: those of the export to a blob storage, and those of the export of its tables.
//!
//! Both have the same columns, in snake case or in camel case. The fields of the first are listed in Langfuse's "Blob Storage Export Field
//! Reference"; those of the second are in its repository (`worker/src/features/database-read-stream/`).
//!
//! | a row with | becomes |
//! |---|---|
//! | `start_time` | a span, with the attributes that Langfuse's SDK gives it |
//! | `data_type` | an evaluation of no duration, below the span or trace that it scores, with the score as OpenTelemetry's event |
//! | `timestamp` | a root of no duration with the facts of the trace |
//!
//! Ids in other formats than OpenTelemetry's (a UUID is a valid trace id) are converted like those of the Agents SDK, and also kept.

use serde_json::{Map, Value, json};

use crate::normalize::ids;
use crate::span::{SpanId, TraceId};
use crate::support::written::snake_case;
use crate::support::{moment, rfc3339};

/// One column per line, with the equivalent attribute; `-` if the value is in the span itself or in other columns, or matters only to
/// Langfuse's database. Any other column is metadata.
const COLUMNS: &str = include_str!("langfuse.txt");

const LACKING: &str = "it lacks what makes it a span; of Langfuse's exports, take \"Enriched observations\" of the blob storage, as JSON Lines, or \
                       the table of observations, as JSON";

/// Returns a row's span as the columns of one of our own lines.
pub(super) fn columns(row: &[u8]) -> Result<Value, String> {
    let row: Map<String, Value> = serde_json::from_slice(row).map_err(|error| error.to_string())?;
    let row = row.into_iter().filter(|(_, value)| !text_of(value).is_empty());
    let mut row: Map<_, _> = row.map(|(column, value)| (snake_case(&column), value)).collect();
    // `2024-05-29 13:46:19.963000` in UTC, or RFC 3339; in a table, within additional quotes.
    let time = |column: &str| moment::read(text_of(row.get(column)?).trim_matches('"'), 0).ok();
    let start = time("start_time").or_else(|| time("timestamp")).ok_or(LACKING)?;
    let end = row.get("end_time").map_or(Ok(start), |_| time("end_time").ok_or(LACKING))?;
    let first_token = time("completion_start_time").map(rfc3339::text);
    let text = |column: &str| row.get(column).map(text_of);
    let id = text("id").ok_or(LACKING)?;
    let is_trace = !row.contains_key("start_time") && !row.contains_key("data_type");
    let trace = if is_trace { id.clone() } else { text("trace_id").ok_or(LACKING)? };
    let parent = text("parent_observation_id").or_else(|| text("observation_id"));
    let own = if is_trace { ids::root_span_id(&trace) } else { span_id(&trace, &id) };
    let name = text("name").unwrap_or_default();
    let is_error = text("level").is_some_and(|level| level == "ERROR");
    let status_message = text("status_message");
    let events = row.get("data_type").map(|_| json!([evaluation(&row, start)]));
    if events.is_some() {
        row.insert("type".to_owned(), "evaluator".into());
    }
    if is_trace {
        row.insert("trace_name".to_owned(), name.clone().into());
    }
    row.extend(first_token.map(|time| ("completion_start_time".to_owned(), time.into())));
    let otlp_trace = trace_id(&trace).to_string();
    row.extend(
        (otlp_trace != trace).then(|| ("langfuse_trace_id".to_owned(), trace.clone().into())),
    );
    row.extend((own.to_string() != id).then(|| ("langfuse_id".to_owned(), id.into())));
    Ok(json!({
        "trace_id": otlp_trace,
        "span_id": own.to_string(),
        "parent_span_id": parent.map(|parent| span_id(&trace, &parent).to_string()),
        "name": name,
        "start_time_unix_nano": start,
        "end_time_unix_nano": end,
        "attributes": attributes(row),
        "events": events,
        "status": if is_error { "error" } else { "unset" },
        "status_message": status_message,
        "scope_name": "langfuse-sdk",
    }))
}

fn attributes(row: Map<String, Value>) -> Value {
    let known = |column: &str| {
        COLUMNS.lines().find_map(|line| line.strip_prefix(column)?.strip_prefix(' '))
    };
    let attributes = row.into_iter().filter_map(|(column, value)| {
        let own = format!("langfuse.observation.metadata.{column}");
        let key = known(&column).unwrap_or(&own);
        let text = text_of(&value);
        let value = match column.as_str() {
            "type" => text.to_lowercase().into(),
            "prompt_version" => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            _ => Value::from(text),
        };
        (key != "-").then(|| (key.to_owned(), value))
    });
    Value::Object(attributes.collect())
}

/// Returns a score as the event of OpenTelemetry's semantic conventions (`gen_ai.evaluation.result`).
fn evaluation(row: &Map<String, Value>, at: u64) -> Value {
    let number = row.get("value").and_then(|value| text_of(value).parse::<f64>().ok());
    let said = [
        ("name", row.get("name").cloned()),
        ("score.value", number.map(Value::from)),
        ("score.label", row.get("string_value").cloned()),
        ("explanation", row.get("comment").cloned()),
    ];
    let said = said.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let said: Map<_, _> =
        said.map(|(key, value)| (format!("gen_ai.evaluation.{key}"), value)).collect();
    json!({"name": "gen_ai.evaluation.result", "time_unix_nano": at, "attributes": said})
}

/// Returns a value as text; empty text for an empty value.
fn text_of(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    if ["null", "{}", "[]"].contains(&text.as_str()) { String::new() } else { text }
}

fn trace_id(text: &str) -> TraceId {
    TraceId::from_hex(&text.replace('-', "")).unwrap_or_else(|| ids::trace_id(text))
}

fn span_id(trace: &str, text: &str) -> SpanId {
    SpanId::from_hex(text).unwrap_or_else(|| ids::span_id(trace, text))
}
