//! Our own JSON lines become what clients sent: an item of the Agents SDK as it was, a span of OTLP from its columns.
//!
//! What lines do not keep cannot come back: bytes are base64 text, NaN and the infinities are text, of a repeated key there is the last value.
//! Written as lines once more, the spans are the same.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::normalize::{Encoding, Envelope};
use crate::sinks::jsonl::SCHEMA_VERSION;
use crate::span::{Receiver, Source, sdk_request};

/// A body as a receiver takes it, and what is known of its client.
pub(super) type Body = (Envelope, Bytes);

/// Columns that were headers, whose names have hyphens.
const HEADERS: [&str; 3] = ["user_agent", "openai_organization", "openai_project"];
/// Columns that hold the text of an attribute, whose name stands in the second.
const MOVED: [(&str, &str); 3] = [
    ("input", "input_attribute"),
    ("output", "output_attribute"),
    ("tool_definitions", "tool_definitions_attribute"),
];

/// A line as a request with one item.
pub(super) fn body(line: &[u8]) -> Result<Body, String> {
    let line: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = |column: &str| line.get(column)?.as_str();
    let version = line.get("schema_version").and_then(Value::as_u64);
    if version.is_none_or(|version| SCHEMA_VERSION < version) {
        return Err(format!("its schema_version is none of 1 to {SCHEMA_VERSION}"));
    }
    let header = |column: &str| Some((column.replace('_', "-"), text(column)?.to_owned()));
    let headers = HEADERS.into_iter().filter_map(header).collect();
    let (receiver, bytes) = match (text("openai_item"), text("record")) {
        (Some(item), _) => (Receiver::OpenAi, sdk_request(item.as_bytes())),
        (None, Some("span")) => (Receiver::OtlpHttp, Bytes::from(request(line).to_string())),
        _ => return Err("it is neither a span nor an item of the Agents SDK".to_owned()),
    };
    let (mut envelope, bytes) = body_of(receiver, Encoding::Json, bytes);
    envelope.source.headers = headers;
    Ok((envelope, bytes))
}

pub(super) fn body_of(receiver: Receiver, encoding: Encoding, bytes: Bytes) -> Body {
    let source = Source { receiver, ..Source::unknown() };
    (Envelope::new(source, encoding, bytes.len()), bytes)
}

/// Columns that OTLP knows have its fields' names in snake case, which its readers take; the others they pass over.
fn request(mut line: Value) -> Value {
    let mut take = |column: &str| line.get_mut(column).map(Value::take);
    let resource = json!({
        "attributes": take("resource").map(key_values),
        "dropped_attributes_count": take("resource_dropped_attributes_count"),
    });
    let scope = json!({
        "name": take("scope_name"),
        "version": take("scope_version"),
        "attributes": take("scope_attributes").map(key_values),
        "dropped_attributes_count": take("scope_dropped_attributes_count"),
    });
    let (of_resource, of_scope) = (take("resource_schema_url"), take("scope_schema_url"));
    let scope_spans = json!({"scope": scope, "schema_url": of_scope, "spans": [span(line)]});
    json!({"resource_spans": [
        {"resource": resource, "schema_url": of_resource, "scope_spans": [scope_spans]},
    ]})
}

fn span(line: Value) -> Value {
    let Value::Object(mut span) = line else { return Value::Null };
    for (column, attribute) in MOVED {
        if let (Some(Value::String(name)), Some(text), Some(Value::Object(attributes))) =
            (span.remove(attribute), span.remove(column), span.get_mut("attributes"))
        {
            attributes.insert(name, text);
        }
    }
    let kind = named("SPAN_KIND_", span.remove("span_kind"));
    let code = named("STATUS_CODE_", span.remove("status"));
    let status = json!({"code": code, "message": span.remove("status_message")});
    span.extend([("kind".to_owned(), kind), ("status".to_owned(), status)]);
    for list in ["events", "links"] {
        let elements = span.get_mut(list).and_then(Value::as_array_mut);
        elements.into_iter().flatten().for_each(with_key_values);
    }
    let mut span = Value::Object(span);
    with_key_values(&mut span);
    span
}

/// An enum's name; what has none stands there as its number in quotes.
fn named(prefix: &str, word: Option<Value>) -> Value {
    let Some(Value::String(word)) = word else { return Value::Null };
    let name = || format!("{prefix}{}", word.to_ascii_uppercase()).into();
    word.parse().map_or_else(|_| name(), |number: i32| number.into())
}

fn with_key_values(value: &mut Value) {
    if let Some(attributes) = value.get_mut("attributes") {
        *attributes = key_values(attributes.take());
    }
}

pub(super) fn key_values(attributes: Value) -> Value {
    let Value::Object(attributes) = attributes else { return Value::Null };
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
        entries @ Value::Object(_) => json!({"kvlistValue": {"values": key_values(entries)}}),
    }
}
