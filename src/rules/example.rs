//! Spans as people write them: in `[[tests]]`, and in the lines of a file sink. Pure.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{Batch, Receiver, Source, keys};
use crate::support::duration::Duration;

/// Start time of a span without times, in nanoseconds since 1970.
const START_NS: u64 = 1_800_000_000_000_000_000;
/// Ids of a span without ids.
const TRACE_ID: &str = "5b8efff798038103d269b633813fc60c";
const SPAN_ID: &str = "eee19b7ec3c1b174";
/// OTLP's span kinds and status codes, by number.
const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];
const STATUSES: [&str; 3] = ["unset", "ok", "error"];

/// Returns the schema of a span in `[[tests]]`.
pub(super) fn span_schema() -> Value {
    let text = json!({ "type": "string" });
    let table = json!({ "type": "object" });
    json!({
        "description": "A span of OTLP.",
        "type": "object",
        "properties": {
            "name": text, "trace_id": text, "span_id": text, "parent_span_id": text, "scope_name": text,
            "attributes": table, "resource": table,
            "status": { "enum": STATUSES },
            "span_kind": { "enum": KINDS },
            "duration": { "type": "string", "format": (Duration::FORMAT) },
        },
        "additionalProperties": false,
    })
}

/// Returns the request for a JSON value: an OTLP/JSON or Agents SDK body, an item of one, or a line of a file sink. `Err` describes why it
/// is none of these.
pub fn batch_of(value: &Value, tenant: Option<&str>) -> Result<Batch, String> {
    let text = |name| value.get(name).and_then(Value::as_str);
    let tenant = tenant.or_else(|| text("tenant")).unwrap_or_default();
    if value.get("resourceSpans").or_else(|| value.get("resource_spans")).is_some() {
        return decoded(Receiver::OtlpHttp, value.to_string(), tenant);
    }
    if value.get("data").is_some_and(Value::is_array) {
        return decoded(Receiver::OpenAi, value.to_string(), tenant);
    }
    let itself = || value.get("object").map(|_| value.to_string());
    if let Some(item) = text("openai_item").map(str::to_owned).or_else(itself) {
        return decoded(Receiver::OpenAi, format!(r#"{{"data":[{item}]}}"#), tenant);
    }
    if value.get("record").is_some() {
        return decoded(Receiver::OtlpHttp, otlp(value).to_string(), tenant);
    }
    Err("neither a request nor a line of a file sink".to_owned())
}

/// Returns the request for a span in a test's short form.
pub(super) fn batch_of_span(span: &Value, tenant: &str) -> Result<Batch, String> {
    decoded(Receiver::OtlpHttp, otlp(span).to_string(), tenant)
}

/// Returns the request for an Agents SDK item; mandatory members are added if they are missing.
pub(super) fn batch_of_item(item: &Value, tenant: &str) -> Result<Batch, String> {
    let ids = [("id", "span_1"), ("trace_id", "trace_1"), ("object", "trace.span")];
    let mut members: Map<String, Value> =
        ids.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    members.extend(item.as_object().cloned().unwrap_or_default());
    decoded(Receiver::OpenAi, json!({ "data": [members] }).to_string(), tenant)
}

fn decoded(receiver: Receiver, body: String, tenant: &str) -> Result<Batch, String> {
    let body = Bytes::from(body);
    let source = Source { receiver, tenant: tenant.to_owned(), ..Source::unknown() };
    let envelope = Envelope::new(source, Encoding::Json, body.len());
    let decoded = decode(&envelope, &body, &Limits::default()).map_err(|bad| bad.to_string())?;
    match decoded.refused.first() {
        Some(refused) if decoded.batch.items.is_empty() => Err(refused.reason.to_owned()),
        _ => Ok(decoded.batch),
    }
}

/// Returns an OTLP/JSON request of one span.
fn otlp(span: &Value) -> Value {
    let text = |name, default| span.get(name).and_then(Value::as_str).unwrap_or(default);
    let number = |names: &[&str], name| names.iter().position(|known| *known == text(name, ""));
    let start_ns = span.get("start_time_unix_nano").and_then(Value::as_u64).unwrap_or(START_NS);
    let duration = text("duration", "0").parse::<Duration>().unwrap_or_default();
    let duration_ns = u64::try_from(duration.0.as_nanos()).unwrap_or_default();
    let end_ns = span.get("end_time_unix_nano").and_then(Value::as_u64);
    let end_ns = end_ns.unwrap_or(start_ns.saturating_add(duration_ns));
    let mut resource = attributes(span.get("resource"));
    if let Some(service) = span.get("service_name").filter(|_| resource.is_empty()) {
        resource.push(json!({ "key": keys::SERVICE_NAME, "value": any_value(service) }));
    }
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": text("scope_name", "") },
            "spans": [{
                "traceId": text("trace_id", TRACE_ID),
                "spanId": text("span_id", SPAN_ID),
                "parentSpanId": text("parent_span_id", ""),
                "name": text("name", ""),
                "kind": number(&KINDS, "span_kind").unwrap_or_default(),
                "status": { "code": number(&STATUSES, "status").unwrap_or_default() },
                "startTimeUnixNano": start_ns.to_string(),
                "endTimeUnixNano": end_ns.to_string(),
                "attributes": attributes(span.get("attributes")),
            }],
        }],
    }] })
}

fn attributes(table: Option<&Value>) -> Vec<Value> {
    let members = table.and_then(Value::as_object).into_iter().flatten();
    members.map(|(key, value)| json!({ "key": key, "value": any_value(value) })).collect()
}

fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Array(elements) => {
            json!({ "arrayValue": { "values": elements.iter().map(any_value).collect::<Vec<_>>() } })
        }
        Value::Object(_) => json!({ "kvlistValue": { "values": attributes(Some(value)) } }),
    }
}
