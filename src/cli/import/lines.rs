//! Our own JSON lines become what clients sent: an item of the Agents SDK as it was, a span of OTLP from its columns.
//!
//! What lines do not keep cannot come back: bytes are base64 text, NaN and the infinities are text, of a repeated key there is the last value.
//! Written as lines once more, the spans are the same.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::formats::{Body, KEPT_HEADERS};
use crate::normalize::{Encoding, sdk_request};
use crate::sinks::jsonl::{SCHEMA_VERSION, SPAN_KINDS, STATUSES};
use crate::span::Receiver;

type Columns = Map<String, Value>;
/// Columns and the fields of OTLP/JSON that they were.
type Fields = &'static [(&'static str, &'static str)];

const SPAN: Fields = &[
    ("trace_id", "traceId"),
    ("span_id", "spanId"),
    ("parent_span_id", "parentSpanId"),
    ("trace_state", "traceState"),
    ("flags", "flags"),
    ("name", "name"),
    ("start_time_unix_nano", "startTimeUnixNano"),
    ("end_time_unix_nano", "endTimeUnixNano"),
    ("dropped_attributes_count", "droppedAttributesCount"),
    ("dropped_events_count", "droppedEventsCount"),
    ("dropped_links_count", "droppedLinksCount"),
];
const EVENT: Fields = &[
    ("name", "name"),
    ("time_unix_nano", "timeUnixNano"),
    ("dropped_attributes_count", "droppedAttributesCount"),
];
const LINK: Fields = &[
    ("trace_id", "traceId"),
    ("span_id", "spanId"),
    ("trace_state", "traceState"),
    ("flags", "flags"),
    ("dropped_attributes_count", "droppedAttributesCount"),
];
const SCOPE: Fields = &[
    ("scope_name", "name"),
    ("scope_version", "version"),
    ("scope_dropped_attributes_count", "droppedAttributesCount"),
];
const RESOURCE: Fields = &[("resource_dropped_attributes_count", "droppedAttributesCount")];
/// Columns that hold the text of an attribute, whose name stands in the second.
const MOVED: [(&str, &str); 3] = [
    ("input", "input_attribute"),
    ("output", "output_attribute"),
    ("tool_definitions", "tool_definitions_attribute"),
];

/// A line as a request with one item.
pub(super) fn body(line: &[u8]) -> Result<Body, String> {
    let mut line: Columns = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let version = line.get("schema_version").and_then(Value::as_u64);
    if version.is_none_or(|version| SCHEMA_VERSION < version) {
        return Err(format!("its schema_version is none of 1 to {SCHEMA_VERSION}"));
    }
    let headers = KEPT_HEADERS.into_iter().filter_map(|(column, header)| {
        line.get(column)?.as_str().map(|value| (header.to_owned(), value.to_owned()))
    });
    let headers = headers.collect();
    if let Some(item) = line.get("openai_item").and_then(Value::as_str) {
        let (receiver, bytes) = (Receiver::OpenAi, sdk_request(item.as_bytes()));
        return Ok(Body { receiver, encoding: Encoding::Json, headers, bytes });
    }
    if line.get("record").and_then(Value::as_str) != Some("span") {
        return Err("it is neither a span nor an item of the Agents SDK".to_owned());
    }
    let request = json!({"resourceSpans": [{
        "resource": object(&mut line, RESOURCE, "resource"),
        "scopeSpans": [{
            "scope": object(&mut line, SCOPE, "scope_attributes"),
            "schemaUrl": line.remove("scope_schema_url").unwrap_or_default(),
            "spans": [span(&mut line)],
        }],
        "schemaUrl": line.remove("resource_schema_url").unwrap_or_default(),
    }]});
    let bytes = Bytes::from(request.to_string());
    Ok(Body { receiver: Receiver::OtlpHttp, encoding: Encoding::Json, headers, bytes })
}

fn span(line: &mut Columns) -> Value {
    for (column, attribute) in MOVED {
        if let (Some(Value::String(name)), Some(text), Some(Value::Object(attributes))) =
            (line.remove(attribute), line.remove(column), line.get_mut("attributes"))
        {
            attributes.insert(name, text);
        }
    }
    let mut span = object(line, SPAN, "attributes");
    span.insert("kind".to_owned(), code(line.remove("span_kind"), SPAN_KINDS));
    let message = line.remove("status_message").unwrap_or_default();
    let status = json!({"code": code(line.remove("status"), STATUSES), "message": message});
    span.insert("status".to_owned(), status);
    for (list, fields) in [("events", EVENT), ("links", LINK)] {
        if let Some(Value::Array(elements)) = line.remove(list) {
            let elements = elements.into_iter().map(|element| match element {
                Value::Object(mut columns) => {
                    Value::Object(object(&mut columns, fields, "attributes"))
                }
                other => other,
            });
            span.insert(list.to_owned(), elements.collect());
        }
    }
    Value::Object(span)
}

/// An object of OTLP/JSON from these columns.
fn object(columns: &mut Columns, fields: Fields, attributes: &str) -> Map<String, Value> {
    let said = fields.iter().filter_map(|(column, field)| {
        columns.remove(*column).map(|value| ((*field).to_owned(), value))
    });
    let mut object: Map<_, _> = said.collect();
    if let Some(Value::Object(attributes)) = columns.remove(attributes) {
        object.insert("attributes".to_owned(), key_values(attributes));
    }
    object
}

/// The number of an enum's word; what is no word is a number in quotes.
fn code(word: Option<Value>, words: &[&str]) -> Value {
    let Some(Value::String(word)) = word else { return Value::Null };
    let place = words.iter().position(|known| *known == word);
    place.map(Value::from).or_else(|| word.parse::<i32>().ok().map(Value::from)).unwrap_or_default()
}

fn key_values(attributes: Columns) -> Value {
    attributes.into_iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect()
}

/// An `AnyValue`.
fn any(value: Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) if number.is_i64() => json!({"intValue": number.to_string()}),
        Value::Number(number) => json!({"doubleValue": number}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(elements) => {
            let values: Value = elements.into_iter().map(any).collect();
            json!({"arrayValue": {"values": values}})
        }
        Value::Object(entries) => json!({"kvlistValue": {"values": key_values(entries)}}),
    }
}
