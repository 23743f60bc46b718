//! OTLP over gRPC and HTTP: to a receiver in this process, and to a real Collector if there is one.

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::Backend;
use crate::expected::{Expected, Span};
use crate::receiver::Receiver;
use crate::seen::{Seen, Words};
use crate::servers::collector::{self, Collector};

/// A receiver in this process.
pub(crate) struct Here {
    name: &'static str,
    protocol: &'static str,
    endpoint: String,
    receiver: Receiver,
}

/// The OpenTelemetry Collector.
struct There(Collector);

pub(super) async fn all() -> Vec<Box<dyn Backend>> {
    let grpc = Receiver::default();
    let endpoint = grpc.grpc().await;
    let mut all: Vec<Box<dyn Backend>> = vec![
        Box::new(Here { name: "otlp_grpc", protocol: "grpc", endpoint, receiver: grpc }),
        Box::new(Here { protocol: "http/json", ..Here::http("otlp_json").await }),
    ];
    if let Some(program) = collector::program() {
        all.push(Box::new(There(Collector::writing(&program).await)));
    }
    all
}

impl Here {
    /// Starts one for protobuf over HTTP.
    pub(crate) async fn http(name: &'static str) -> Self {
        let receiver = Receiver::default();
        Self { name, protocol: "http/protobuf", endpoint: receiver.http().await, receiver }
    }

    /// Makes the same for an address at which it does not listen yet.
    pub(crate) fn at(name: &'static str, endpoint: String) -> Self {
        Self { name, protocol: "http/protobuf", endpoint, receiver: Receiver::default() }
    }

    pub(crate) fn receiver(&self) -> &Receiver {
        &self.receiver
    }
}

impl Backend for Here {
    fn name(&self) -> &'static str {
        self.name
    }

    fn table(&self) -> String {
        format!("type = \"otlp\"\nendpoint = {:?}\nprotocol = {:?}", self.endpoint, self.protocol)
    }

    fn words(&self) -> Words {
        openinference_words()
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async { read(&requests(&self.receiver)) })
    }
}

impl Backend for There {
    fn name(&self) -> &'static str {
        "collector"
    }

    fn table(&self) -> String {
        format!(
            "type = \"otlp\"\nendpoint = \"http://127.0.0.1:{}\"\ncompression = \"zstd\"",
            self.0.http
        )
    }

    fn words(&self) -> Words {
        openinference_words()
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async { read(&self.0.requests()) })
    }
}

/// Returns what a receiver got, as OTLP/JSON.
pub(crate) fn requests(receiver: &Receiver) -> Vec<Value> {
    let got = receiver.got().into_iter();
    got.map(|got| match &got.message {
        Some(message) if got.request.resource_spans.is_empty() => {
            serde_json::from_slice(message).unwrap()
        }
        _ => serde_json::to_value(&got.request).unwrap(),
    })
    .collect()
}

/// By OpenInference's conventions.
pub(super) fn openinference_words() -> Words {
    let kind = |span: &Span| {
        Some(match span.kind {
            "agent" => "AGENT",
            "generation" | "speech" | "transcription" => "LLM",
            "tool" | "handoff" => "TOOL",
            "guardrail" => "GUARDRAIL",
            _ => "CHAIN",
        })
    };
    Words { kind, ..Words::own() }
}

/// By OpenTelemetry's conventions.
pub(super) fn genai_words() -> Words {
    let kind = |span: &Span| match (span.kind, span.sdk_type.as_deref()) {
        ("agent", _) => Some("invoke_agent"),
        ("generation", _) => Some("chat"),
        ("tool", _) => Some("execute_tool"),
        ("handoff", _) => Some("handoff"),
        ("guardrail", _) => Some("guardrail_check"),
        (_, Some("task")) => Some("invoke_workflow"),
        _ => None,
    };
    Words { kind, ..openinference_words() }
}

/// Reads the spans of requests as OTLP/JSON.
pub(super) fn read(requests: &[Value]) -> Vec<Seen> {
    read_kind(requests, "openinference.span.kind")
}

/// Reads the same, with the kind from this attribute.
pub(super) fn read_kind(requests: &[Value], kind: &str) -> Vec<Seen> {
    fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        value[member].as_array().into_iter().flatten()
    }
    let resources = requests.iter().flat_map(|request| list(request, "resourceSpans"));
    let scopes = resources.flat_map(|resource| list(resource, "scopeSpans"));
    scopes.flat_map(|scope| list(scope, "spans")).map(|span| seen(span, kind)).collect()
}

fn seen(span: &Value, kind: &str) -> Seen {
    let text = |name: &str| Some(span[name].as_str()?.to_owned()).filter(|text| !text.is_empty());
    let attribute = |key: &str| {
        let found = span["attributes"].as_array()?.iter().find(|pair| pair["key"] == key)?;
        Some(&found["value"])
    };
    let string = |key: &str| Some(attribute(key)?["stringValue"].as_str()?.to_owned());
    let count = |key: &str| number(&attribute(key)?["intValue"]);
    let model = ["gen_ai.request.model", "llm.model_name", "gen_ai.response.model"];
    let tags = attribute("tag.tags").and_then(|tags| tags["arrayValue"]["values"].as_array());
    let tag = |tag: &Value| Some(tag["stringValue"].as_str()?.to_owned());
    Seen {
        id: (text("traceId").unwrap(), text("spanId").unwrap()),
        parent: text("parentSpanId"),
        name: text("name").unwrap(),
        kind: string(kind),
        model: model.iter().find_map(|key| string(key)),
        input_tokens: count("gen_ai.usage.input_tokens").or(count("llm.token_count.prompt")),
        output_tokens: count("gen_ai.usage.output_tokens").or(count("llm.token_count.completion")),
        error: (number(&span["status"]["code"]) == Some(2))
            .then(|| span["status"]["message"].as_str().unwrap_or_default().to_owned()),
        start_us: number(&span["startTimeUnixNano"])
            .map_or(0, |nanos| (nanos / 1000).cast_signed()),
        session: string("session.id").or(string("gen_ai.conversation.id")),
        user: string("user.id"),
        tags: tags.into_iter().flatten().filter_map(tag).collect(),
    }
}

/// Reads a 64-bit number, which OTLP/JSON writes as text or as a number.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
