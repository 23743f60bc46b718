//! Spans as people write them in `[[tests]]`. Pure.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::normalize::lines::request;
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{Batch, Receiver, SPAN_KINDS, STATUSES, Source};
use crate::support::clock::nanos;
use crate::support::duration::Duration;

/// Start time of a span without times, in nanoseconds since 1970.
const START_NS: u64 = 1_800_000_000_000_000_000;
/// Ids of a span without ids.
const TRACE_ID: &str = "5b8efff798038103d269b633813fc60c";
const SPAN_ID: &str = "eee19b7ec3c1b174";

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
            "span_kind": { "enum": SPAN_KINDS },
            "duration": { "type": "string", "format": (Duration::FORMAT) },
        },
        "additionalProperties": false,
    })
}

/// Returns the request for a span in a test's short form: the columns of a JSON line, and a duration.
pub(crate) fn batch_of_span(span: &Value, tenant: &str) -> Result<Batch, String> {
    let took = span.get("duration").and_then(Value::as_str).and_then(|took| took.parse().ok());
    let Duration(took) = took.unwrap_or_default();
    let line = with_defaults(
        span,
        [
            ("trace_id", TRACE_ID.into()),
            ("span_id", SPAN_ID.into()),
            ("start_time_unix_nano", START_NS.into()),
            ("end_time_unix_nano", START_NS.saturating_add(nanos(took)).into()),
        ],
    );
    decoded(Receiver::OtlpHttp, request(line).to_string(), tenant)
}

/// Returns the request for an Agents SDK item; mandatory members are added if they are missing.
pub(super) fn batch_of_item(item: &Value, tenant: &str) -> Result<Batch, String> {
    let ids = [("id", "span_1"), ("trace_id", "trace_1"), ("object", "trace.span")];
    let item = with_defaults(item, ids.map(|(key, value)| (key, value.into())));
    decoded(Receiver::OpenAi, json!({ "data": [item] }).to_string(), tenant)
}

/// Adds defaults for missing members to an object.
fn with_defaults<const N: usize>(object: &Value, defaults: [(&str, Value); N]) -> Value {
    let said = object.as_object().cloned().unwrap_or_default();
    defaults.into_iter().map(|(key, value)| (key.to_owned(), value)).chain(said).collect()
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
