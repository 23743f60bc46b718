//! Our own JSON lines become what clients sent: an item of the Agents SDK as it was, a span of OTLP from its columns.
//!
//! What lines do not keep cannot come back: bytes are base64 text, NaN and the infinities are text, of a repeated key there is the last value.
//! Written as lines once more, the spans are the same.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::normalize::Encoding;
use crate::sinks::jsonl::{SCHEMA_VERSION, SPAN_KINDS, STATUSES};
use crate::span::{Receiver, sdk_request};

/// Headers that a client sent, as far as they are known.
pub(super) type Headers = Vec<(&'static str, String)>;

/// A body as a receiver takes it.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) receiver: Receiver,
    pub(super) encoding: Encoding,
    pub(super) headers: Headers,
    pub(super) bytes: Bytes,
}

type Columns = Map<String, Value>;

/// Columns whose names are those of fields of OTLP, in snake case and behind a prefix.
const SPAN: &str = "trace_id span_id parent_span_id trace_state flags name start_time_unix_nano end_time_unix_nano \
    dropped_attributes_count dropped_events_count dropped_links_count";
const EVENT: &str = "name time_unix_nano dropped_attributes_count";
const LINK: &str = "trace_id span_id trace_state flags dropped_attributes_count";
const SCOPE: &str = "name version dropped_attributes_count";
const RESOURCE: &str = "dropped_attributes_count";
/// Columns that were headers.
const HEADERS: [(&str, &str); 3] = [
    ("user_agent", "user-agent"),
    ("openai_organization", "openai-organization"),
    ("openai_project", "openai-project"),
];
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
    let text = |column: &str| line.get(column)?.as_str();
    let headers = HEADERS.into_iter();
    let headers: Headers =
        headers.filter_map(|(column, header)| Some((header, text(column)?.to_owned()))).collect();
    let (receiver, bytes) = if let Some(item) = text("openai_item") {
        (Receiver::OpenAi, sdk_request(item.as_bytes()))
    } else if text("record") == Some("span") {
        (Receiver::OtlpHttp, Bytes::from(request(&mut line).to_string()))
    } else {
        return Err("it is neither a span nor an item of the Agents SDK".to_owned());
    };
    Ok(Body { receiver, encoding: Encoding::Json, headers, bytes })
}

fn request(line: &mut Columns) -> Value {
    json!({"resourceSpans": [{
        "resource": object(line, "resource_", RESOURCE, "resource"),
        "schemaUrl": line.remove("resource_schema_url"),
        "scopeSpans": [{
            "scope": object(line, "scope_", SCOPE, "scope_attributes"),
            "schemaUrl": line.remove("scope_schema_url"),
            "spans": [span(line)],
        }],
    }]})
}

fn span(line: &mut Columns) -> Value {
    for (column, attribute) in MOVED {
        if let (Some(Value::String(name)), Some(text), Some(Value::Object(attributes))) =
            (line.remove(attribute), line.remove(column), line.get_mut("attributes"))
        {
            attributes.insert(name, text);
        }
    }
    let mut span = object(line, "", SPAN, "attributes");
    span.insert("kind".to_owned(), code(line.remove("span_kind"), SPAN_KINDS));
    let code = code(line.remove("status"), STATUSES);
    let status = json!({"code": code, "message": line.remove("status_message")});
    span.insert("status".to_owned(), status);
    for (list, names) in [("events", EVENT), ("links", LINK)] {
        if let Some(Value::Array(elements)) = line.remove(list) {
            let elements = elements.into_iter().map(|element| match element {
                Value::Object(mut columns) => object(&mut columns, "", names, "attributes").into(),
                other => other,
            });
            span.insert(list.to_owned(), elements.collect());
        }
    }
    span.into()
}

/// An object of OTLP/JSON from the columns with these names behind a prefix, and from the one that has attributes.
fn object(columns: &mut Columns, prefix: &str, names: &str, attributes: &str) -> Columns {
    let of_column = |name| Some((in_camel_case(name), columns.remove(&format!("{prefix}{name}"))?));
    let mut object: Columns = names.split(' ').filter_map(of_column).collect();
    if let Some(Value::Object(attributes)) = columns.remove(attributes) {
        object.insert("attributes".to_owned(), key_values(attributes));
    }
    object
}

fn in_camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

/// The number of an enum's word; what is no word is a number in quotes.
fn code(word: Option<Value>, words: &[&str]) -> Value {
    let Some(Value::String(word)) = word else { return Value::Null };
    let place = words.iter().position(|known| *known == word);
    place
        .map(Value::from)
        .or_else(|| Some(Value::from(word.parse::<i32>().ok()?)))
        .unwrap_or_default()
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
