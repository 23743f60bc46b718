//! Converts our own JSON lines back to what clients sent: OTLP spans from columns. Pure.
//!
//! Information that lines do not keep is lost: bytes are base64 text, NaN and the infinities are text, and a repeated key has only its last
//! value. Written as lines again, the spans are identical.

use serde_json::{Value, json};

/// Columns with the text of an attribute whose name is in the second column.
const MOVED: [(&str, &str); 3] = [
    ("input", "input_attribute"),
    ("output", "output_attribute"),
    ("tool_definitions", "tool_definitions_attribute"),
];

/// Returns an OTLP/JSON request with a line's span. OTLP's columns have its field names in snake case, which its readers accept; they
/// ignore the others.
pub fn request(mut line: Value) -> Value {
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

/// Returns an enum's name, or the number of a value without a name.
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

/// Returns an object's members as attributes.
fn key_values(attributes: Value) -> Value {
    let Value::Object(attributes) = attributes else { return Value::Null };
    attributes.into_iter().map(|(key, value)| json!({"key": key, "value": any(value)})).collect()
}

/// Returns a value as an `AnyValue`.
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
