//! Both formats on real traffic, and the facts on which they must agree.

mod openai;
mod conventions;
mod frameworks;
mod agreement;
pub(crate) mod totals;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Coding, Decoded, Encoding, Envelope, Limits, decode, inflate};
use crate::span::{Cost, Facts, Payload, Receiver, Source, Text, Usage};
use crate::support::golden::{self, Fixture};

const BODY_BYTES_MAX: usize = 64 << 20;

fn envelope(receiver: Receiver, encoding: Encoding, headers: &[(&str, &str)]) -> Envelope {
    let headers =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Envelope::new(Source { receiver, headers, ..Source::unknown() }, encoding, 0)
}

/// Decodes a captured request of either format.
fn decode_fixture(fixture: &Fixture) -> Decoded {
    let header = |name| fixture.header(name).unwrap_or_default();
    let is_json = header("content-type").to_ascii_lowercase().starts_with("application/json");
    let encoding = if is_json { Encoding::Json } else { Encoding::Protobuf };
    let is_agents_sdk = fixture.sidecar["path"] == "/v1/traces/ingest";
    let receiver = if is_agents_sdk { Receiver::OpenAi } else { Receiver::OtlpHttp };
    let envelope = envelope(receiver, encoding, &[("user-agent", header("user-agent"))]);
    let coding = Coding::from_header(header("content-encoding")).unwrap();
    let body = inflate(coding, fixture.body.clone(), BODY_BYTES_MAX).unwrap();
    decode(&envelope, &body, &Limits::default())
        .unwrap_or_else(|error| panic!("{}: {error}", fixture.name))
}

/// Decodes all requests in a folder of fixtures, or of one scenario in it.
fn decode_all(folder: &str, scenario: &str) -> Vec<Decoded> {
    let fixtures = golden::fixtures(folder);
    let wanted =
        fixtures.iter().filter(|fixture| fixture.name.contains(scenario) && is_traces(fixture));
    wanted.map(decode_fixture).collect()
}

fn is_traces(fixture: &Fixture) -> bool {
    fixture.name.contains("_traces.") || fixture.name.contains(".body.")
}

/// Encodes facts as JSON, without missing ones.
fn facts_json(facts: &Facts) -> Value {
    let text = |text: &Option<Text>| text.as_deref().map(Value::from);
    let payload = |payload: &Option<Payload>| payload.as_ref().map(payload_json);
    let texts = |texts: &[Text]| {
        (!texts.is_empty()).then(|| texts.iter().map(|text| Value::from(&**text)).collect())
    };
    let metadata: Map<String, Value> = facts
        .metadata
        .iter()
        .map(|(name, payload)| (name.to_string(), payload_json(payload)))
        .collect();
    let scores = facts.scores.iter().map(|score| {
        json!({"name": &*score.name, "value": score.value, "label": score.label.as_deref(), "explanation": score.explanation.as_deref()})
    });
    let error = facts.error.as_ref().map(|error| {
        json!({"kind": error.kind.as_deref(), "message": &*error.message, "data": error.data.as_ref().map(payload_json)})
    });
    let members = [
        ("kind", Some(facts.kind.as_str().into())),
        ("convention", Some(facts.convention.as_str().into())),
        ("name", Some((*facts.name).into())),
        ("agent", text(&facts.agent)),
        ("tool", text(&facts.tool)),
        ("tool_call_id", text(&facts.tool_call_id)),
        ("tool_definitions", payload(&facts.tool_definitions)),
        ("request_model", text(&facts.request_model)),
        ("response_model", text(&facts.response_model)),
        ("provider", text(&facts.provider)),
        ("parameters", payload(&facts.parameters)),
        ("input", payload(&facts.input)),
        ("output", payload(&facts.output)),
        ("usage", usage_json(&facts.usage)),
        ("aggregate_usage", usage_json(&facts.aggregate_usage)),
        (
            "cost",
            (facts.cost != Cost::default())
                .then(|| json!([facts.cost.input, facts.cost.output, facts.cost.total])),
        ),
        ("response_id", text(&facts.response_id)),
        ("finish_reasons", texts(&facts.finish_reasons)),
        ("first_token_ns", facts.first_token_ns.map(Value::from)),
        ("session", text(&facts.session)),
        ("user", text(&facts.user)),
        ("workflow", text(&facts.workflow)),
        ("tags", texts(&facts.tags)),
        ("metadata", (!metadata.is_empty()).then(|| metadata.into())),
        ("prompt_name", text(&facts.prompt_name)),
        ("prompt_version", text(&facts.prompt_version)),
        ("handoff_from", text(&facts.handoff_from)),
        ("handoff_to", text(&facts.handoff_to)),
        ("guardrail", text(&facts.guardrail)),
        ("guardrail_triggered", facts.guardrail_triggered.map(Value::from)),
        ("mcp_server", text(&facts.mcp_server)),
        ("mcp_method", text(&facts.mcp_method)),
        ("error", error),
        ("scores", (!facts.scores.is_empty()).then(|| scores.collect())),
        ("environment", text(&facts.environment)),
        ("release", text(&facts.release)),
        ("sdk_span_type", text(&facts.sdk_span_type)),
    ];
    let set = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(set.collect())
}

/// Encodes text as a string, and JSON as JSON, so that a golden file shows which of the two it was.
fn payload_json(payload: &Payload) -> Value {
    match payload {
        Payload::Text(text) => Value::from(&**text),
        Payload::Json(text) => {
            // Values nest far more deeply here than serde_json accepts by default.
            let mut json = serde_json::Deserializer::from_str(text);
            json.disable_recursion_limit();
            let parsed =
                Value::deserialize(&mut json).unwrap_or_else(|error| panic!("{text}: {error}"));
            json.end().unwrap();
            json!({ "json": parsed })
        }
    }
}

fn usage_json(usage: &Usage) -> Option<Value> {
    let members = [
        ("input", usage.input),
        ("output", usage.output),
        ("total", usage.total),
        ("cached_read", usage.cached_read),
        ("cache_write", usage.cache_write),
        ("reasoning", usage.reasoning),
        ("input_audio", usage.input_audio),
        ("output_audio", usage.output_audio),
        ("cache_write_1h", usage.cache_write_1h),
    ];
    let set =
        members.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?.into())));
    (!usage.is_empty()).then(|| Value::Object(set.collect()))
}

/// Compares lines with a golden file, or writes it when `UPDATE_GOLDENS` is set.
fn check_golden(name: &str, lines: &[Value]) {
    golden::check(
        name,
        &lines.iter().fold(String::new(), |text, line| text + &line.to_string() + "\n"),
    );
}

/// Decodes a body of the ingest format.
fn agents_sdk(body: impl Into<Bytes>) -> Decoded {
    decode(&envelope(Receiver::OpenAi, Encoding::Json, &[]), &body.into(), &Limits::default())
        .unwrap()
}
