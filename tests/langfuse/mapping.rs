//! The rows that Langfuse makes of an accepted request: one per span. Written from what is known of Langfuse 4.16.0, and intentionally not
//! from the sink's code.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::prices;

#[path = "content.rs"]
mod content;
#[path = "usage.rs"]
mod usage;

/// An observation, as Langfuse stores it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) level: String,
    pub(crate) status_message: String,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    pub(crate) input: Option<String>,
    pub(crate) output: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) parameters: BTreeMap<String, Value>,
    pub(crate) usage: BTreeMap<String, u64>,
    pub(crate) cost: BTreeMap<String, f64>,
    /// Langfuse counted tokens itself, since it had a model and a text but no tokens.
    pub(crate) is_invented: bool,
    pub(crate) completion_start: Option<String>,
    pub(crate) trace_name: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) environment: String,
    pub(crate) release: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) trace_metadata: BTreeMap<String, Value>,
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) prompt: Option<(String, i64)>,
    /// Reasons for which Langfuse 3 would have lost this.
    pub(crate) lost_on_v3: Vec<String>,
    /// Values that are shown as raw OTLP, or with other digits than were sent.
    pub(crate) garbled: Vec<String>,
}

pub(super) type Attributes = BTreeMap<String, Value>;

/// Maps a request. `Err` if the worker fails on it, and thereby loses all of it.
pub(crate) fn rows(request: &ExportTraceServiceRequest) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for resource_spans in &request.resource_spans {
        let resource = resource_spans.resource.clone().unwrap_or_default();
        let mut garbled = Vec::new();
        let resource = attributes(&resource.attributes, &mut garbled)?;
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.clone().unwrap_or_default();
            attributes(&scope.attributes, &mut garbled)?;
            for span in &scope_spans.spans {
                let mut row = row(span, &resource, &scope.name)?;
                row.garbled.extend(garbled.clone());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// Decodes attributes as Langfuse does: without maps and bytes, and with JavaScript's numbers.
fn attributes(list: &[KeyValue], garbled: &mut Vec<String>) -> Result<Attributes, String> {
    let mut found = Attributes::new();
    for KeyValue { key, value, .. } in list {
        // The worker reads a property of an undefined value.
        let value = value.as_ref().ok_or_else(|| format!("{key} has no value"))?;
        let decoded = decoded(value);
        let is_whole = decoded.is_some();
        if !is_whole {
            garbled.push(key.clone());
        }
        found.insert(key.clone(), decoded.unwrap_or_else(|| json!({ "raw": true })));
    }
    Ok(found)
}

fn decoded(value: &AnyValue) -> Option<Value> {
    const SAFE: i64 = 1 << 53;
    match value.value.as_ref() {
        None => Some(json!({})),
        Some(Any::StringValue(text)) => Some(text.as_str().into()),
        Some(Any::BoolValue(value)) => Some((*value).into()),
        Some(Any::IntValue(number)) => {
            (-SAFE < *number && *number < SAFE).then(|| (*number).into())
        }
        Some(Any::DoubleValue(number)) => {
            number.is_finite().then(|| serde_json::Number::from_f64(*number).into())
        }
        Some(Any::ArrayValue(array)) => array.values.iter().map(decoded).collect(),
        Some(_) => None,
    }
}

#[expect(clippy::too_many_lines, reason = "it is a list")]
fn row(span: &Span, resource: &Attributes, scope: &str) -> Result<Row, String> {
    let mut garbled = Vec::new();
    let own = attributes(&span.attributes, &mut garbled)?;
    for event in &span.events {
        attributes(&event.attributes, &mut garbled)?;
    }
    let text = |key: &str| own.get(key).map(plain).filter(|text| !text.is_empty());
    let first = |keys: &[&str]| keys.iter().find_map(|key| text(key));
    // Langfuse's own SDK writes members of metadata as JSON, with texts in quotes.
    let in_metadata = |keys: &[&str]| {
        first(keys).map(|text| serde_json::from_str::<String>(&text).unwrap_or(text))
    };
    let everywhere = |keys: &[&str]| {
        keys.iter().find_map(|key| text(key).or_else(|| resource.get(*key).map(plain)))
    };
    let status = span.status.clone().unwrap_or_default();
    let level = match text("langfuse.observation.level").map(|level| level.to_uppercase()) {
        Some(level) => level,
        None if status.code == 2 => "ERROR".to_owned(),
        None => "DEFAULT".to_owned(),
    };
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let mut row = Row {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: first(&["gen_ai.tool.name", "genkit:name", "logfire.msg", "ai.toolCall.name"])
            .or_else(|| operation_of_vercel(&own))
            .unwrap_or_else(|| span.name.clone()),
        kind: kind(&own, scope, &span.name).to_owned(),
        level,
        status_message: text("langfuse.observation.status_message").unwrap_or(status.message),
        start_ms: if start == 0 { end } else { start } / 1_000_000,
        end_ms: if end == 0 { start } else { end } / 1_000_000,
        parameters: parameters(&own),
        completion_start: text("langfuse.observation.completion_start_time")
            .or_else(|| first_chunk(&own, span.start_time_unix_nano)),
        trace_name: text("langfuse.trace.name"),
        session: first(&["langfuse.session.id", "session.id", "gen_ai.conversation.id"]).or_else(
            || {
                in_metadata(&[
                    "langfuse.observation.metadata.langfuse_session_id",
                    "langfuse.trace.metadata.langfuse_session_id",
                    "ai.telemetry.metadata.sessionId",
                ])
            },
        ),
        user: first(&["langfuse.user.id", "user.id"]).or_else(|| {
            in_metadata(&[
                "langfuse.observation.metadata.langfuse_user_id",
                "langfuse.trace.metadata.langfuse_user_id",
                "ai.telemetry.metadata.userId",
            ])
        }),
        tags: tags(&own),
        environment: environment(everywhere(&[
            "langfuse.environment",
            "deployment.environment.name",
            "deployment.environment",
        ])),
        release: everywhere(&["langfuse.release"]),
        version: text("langfuse.version").or(resource.get("service.version").map(plain)),
        trace_metadata: metadata(&own, "langfuse.trace.metadata"),
        metadata: metadata(&own, "langfuse.observation.metadata"),
        lost_on_v3: lost_on_v3(span, &own, resource),
        garbled,
        ..Row::default()
    };
    (row.input, row.output) = content::of(span, &own, scope);
    row.prompt = text("langfuse.observation.prompt.name")
        .zip(own.get("langfuse.observation.prompt.version").and_then(Value::as_i64));
    tokens_and_cost(&own, scope, &mut row);
    Ok(row)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

// === Type ===

const TYPES: [&str; 10] = [
    "span",
    "generation",
    "event",
    "embedding",
    "agent",
    "tool",
    "chain",
    "retriever",
    "guardrail",
    "evaluator",
];

/// An attribute whose values name types.
type Words = (&'static str, &'static [(&'static str, &'static str)]);

/// In order of precedence; an unlisted value leaves the type to the next attribute.
const WORDS: [Words; 3] = [
    (
        "openinference.span.kind",
        &[
            ("LLM", "generation"),
            ("AGENT", "agent"),
            ("TOOL", "tool"),
            ("CHAIN", "chain"),
            ("RETRIEVER", "retriever"),
            ("EMBEDDING", "embedding"),
            ("GUARDRAIL", "guardrail"),
            ("EVALUATOR", "evaluator"),
        ],
    ),
    (
        "gen_ai.operation.name",
        &[
            ("chat", "generation"),
            ("completion", "generation"),
            ("text_completion", "generation"),
            ("generate_content", "generation"),
            ("generate", "generation"),
            ("embeddings", "embedding"),
            ("invoke_agent", "agent"),
            ("create_agent", "agent"),
            ("execute_tool", "tool"),
        ],
    ),
    (
        "genkit:metadata:subtype",
        &[
            ("background-model", "generation"),
            ("model", "generation"),
            ("embedder", "embedding"),
            ("tool", "tool"),
            ("tool.v2", "tool"),
            ("retriever", "retriever"),
            ("evaluator", "evaluator"),
        ],
    ),
];

fn kind(own: &Attributes, scope: &str, name: &str) -> &'static str {
    let word = |key: &str| own.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_said = |key: &&str| own.get(*key).is_some_and(|value| !plain(value).is_empty());
    if let Some(found) = TYPES.iter().find(|known| **known == word("langfuse.observation.type")) {
        return found;
    }
    for (key, words) in WORDS {
        if let Some((_, found)) = words.iter().find(|(known, _)| *known == word(key)) {
            return found;
        }
    }
    // The name may be followed by the function's name.
    let is_operation = |operation: &str| {
        word("operation.name").starts_with(operation) || word("ai.operationId") == operation
    };
    let calls = ["ai.generateText.doGenerate", "ai.streamText.doStream"];
    let objects = ["ai.generateObject.doGenerate", "ai.streamObject.doStream"];
    let models =
        ["langfuse.observation.model.name", "gen_ai.request.model", "gen_ai.response.model"];
    if models.iter().chain(&["ai.model.id"]).any(is_said) {
        if calls.iter().chain(&objects).any(|operation| is_operation(operation)) {
            return "generation";
        }
        if ["ai.embedMany.doEmbed", "ai.embed.doEmbed"].into_iter().any(is_operation) {
            return "embedding";
        }
    }
    let tools = ["gen_ai.tool.name", "gen_ai.tool.call.id"];
    match name {
        _ if is_operation("ai.toolCall") || tools.iter().any(is_said) => "tool",
        "agent_turn" | "start_agent_activity" if scope == "livekit-agents" => "agent",
        "function_tool" if scope == "livekit-agents" => "tool",
        _ if models.iter().chain(&["llm.model_name", "model"]).any(is_said) => "generation",
        _ => "span",
    }
}

fn model(own: &Attributes) -> Option<String> {
    let is_of_genkit = own.get("genkit:metadata:subtype").is_some_and(|subtype| subtype == "model");
    [
        "langfuse.observation.model.name",
        "gen_ai.response.model",
        "ai.model.id",
        "gen_ai.request.model",
        "llm.response.model",
        "llm.model_name",
        "model",
    ]
    .iter()
    .chain(is_of_genkit.then_some(&"genkit:name"))
    .find_map(|key| own.get(*key).map(plain).filter(|model| !model.is_empty()))
}

fn operation_of_vercel(own: &Attributes) -> Option<String> {
    let operation = own.get("ai.operationId").map(plain)?;
    let function = own.get("ai.telemetry.functionId").map(plain).unwrap_or_default();
    Some(if function.is_empty() { operation } else { format!("{function}:{operation}") })
}

/// Returns when the first chunk of an answer came: Vercel's SDK reports it in milliseconds from the start.
fn first_chunk(own: &Attributes, start_ns: u64) -> Option<String> {
    let keys = ["ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"];
    let passed_ms = keys.iter().find_map(|key| own.get(*key)?.as_f64())?.ceil();
    let start =
        jiff::Timestamp::from_millisecond(i64::try_from(start_ns / 1_000_000).ok()?).ok()?;
    let passed = jiff::SignedDuration::try_from_secs_f64(passed_ms / 1000.0).ok()?;
    Some(start.checked_add(passed).ok()?.to_string())
}

// === Trace ===

fn tags(own: &Attributes) -> Vec<String> {
    const KEYS: [&str; 6] = [
        "langfuse.trace.tags",
        "langfuse.tags",
        "langfuse.observation.metadata.langfuse_tags",
        "langfuse.trace.metadata.langfuse_tags",
        "ai.telemetry.metadata.tags",
        "tag.tags",
    ];
    match KEYS.iter().find_map(|key| own.get(*key).filter(|tags| !plain(tags).is_empty())) {
        Some(Value::Array(tags)) => tags.iter().map(plain).collect(),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Array(tags)) => tags.iter().map(plain).collect(),
            _ => text.split(',').map(|tag| tag.trim().to_owned()).collect(),
        },
        _ => Vec::new(),
    }
}

fn environment(said: Option<String>) -> String {
    let text = said.unwrap_or_default().to_lowercase();
    let text = text.strip_prefix("langfuse-").or(text.strip_prefix("langfuse_")).unwrap_or(&text);
    let text: String = text.chars().take(40).collect();
    let is_good = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-_".contains(letter)
    };
    if text.is_empty() || !text.chars().all(is_good) { "default".to_owned() } else { text }
}

/// Reads one JSON object, and additional single members; nested objects get dotted names, and JSON texts are parsed.
fn metadata(own: &Attributes, key: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let parsed = |value: &Value| match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    };
    if let Some(Value::Object(members)) = own.get(key).map(parsed) {
        members.into_iter().for_each(|(name, value)| flatten(&name, value, &mut found));
    }
    let prefix = format!("{key}.");
    for (name, value) in own {
        if let Some(name) = name.strip_prefix(&prefix) {
            flatten(name, parsed(value), &mut found);
        }
    }
    found
}

fn flatten(name: &str, value: Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (inner, value) in members {
                flatten(&format!("{name}.{inner}"), value, found);
            }
        }
        value => drop(found.insert(name.to_owned(), value)),
    }
}

// === Model ===

fn parameters(own: &Attributes) -> BTreeMap<String, Value> {
    let json =
        ["langfuse.observation.model.parameters", "llm.invocation_parameters", "model_config"]
            .iter()
            .find_map(|key| own.get(*key));
    let parsed = json.and_then(|value| serde_json::from_str(value.as_str()?).ok());
    match parsed {
        Some(Value::Object(members)) => members
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(_) | Value::Number(_) => (name, value),
                nested => (name, nested.to_string().into()),
            })
            .collect(),
        _ => own
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix("gen_ai.request.")?;
                (name != "model").then(|| (name.to_owned(), value.clone()))
            })
            .collect(),
    }
}

// === Tokens and cost ===

fn tokens_and_cost(own: &Attributes, scope: &str, row: &mut Row) {
    let operation = own.get("gen_ai.operation.name").and_then(Value::as_str).unwrap_or_default();
    if ["invoke_agent", "agent_step"].contains(&operation) {
        return;
    }
    row.model = model(own);
    row.usage = usage::of(own, scope);
    row.cost = usage::cost(own);
    let has_text = row.input.is_some() || row.output.is_some();
    if row.usage.is_empty()
        && row.cost.is_empty()
        && row.model.is_some()
        && row.level != "ERROR"
        && has_text
    {
        row.is_invented = true;
        row.usage = BTreeMap::from([("input".to_owned(), 1000), ("output".to_owned(), 1000)]);
    }
    if !row.usage.is_empty() && !row.usage.contains_key("total") {
        let sum = row.usage.values().sum();
        row.usage.insert("total".to_owned(), sum);
    }
    if row.cost.is_empty()
        && let Some(prices) = row.model.as_deref().and_then(prices::of)
    {
        for (bucket, tokens) in &row.usage {
            if let Some(price) = prices.get(bucket.as_str()) {
                #[expect(clippy::cast_precision_loss, reason = "token counts are small")]
                row.cost.insert(bucket.clone(), *tokens as f64 * price);
            }
        }
        if !row.cost.is_empty() && !row.cost.contains_key("total") {
            let sum = row.cost.values().sum();
            row.cost.insert("total".to_owned(), sum);
        }
    }
}

// === Langfuse 3 ===

/// Its schemas are strict: an invalid value loses the observation or its entire trace.
fn lost_on_v3(span: &Span, own: &Attributes, resource: &Attributes) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut lose = |is_lost: bool, why: &str| {
        if is_lost {
            reasons.push(why.to_owned());
        }
    };
    for key in ["langfuse.version", "langfuse.trace.name", "langfuse.observation.status_message"] {
        lose(own.get(key).is_some_and(|value| !value.is_string()), key);
    }
    lose(
        resource.get("service.version").is_some_and(|value| !value.is_string()),
        "service.version",
    );
    let units = |text: &str| text.encode_utf16().count();
    let trace_name = own.get("langfuse.trace.name").and_then(Value::as_str).unwrap_or_default();
    lose(
        1000 < units(trace_name) || 1000 < units(&span.name),
        "a name of more than 1000 characters",
    );
    lose(span.name.is_empty(), "no name");
    let (name, version) = (
        own.get("langfuse.observation.prompt.name"),
        own.get("langfuse.observation.prompt.version"),
    );
    lose(name.is_some() != version.is_some(), "half a prompt");
    lose(
        version.is_some_and(|version| !version.is_i64() && !version.is_u64()),
        "the prompt's version is no number",
    );
    lose(
        name.is_some() && kind(own, "", &span.name) != "generation",
        "a prompt on what is no generation",
    );
    lose(
        span.trace_id.iter().all(|byte| *byte == 0) || span.span_id.iter().all(|byte| *byte == 0),
        "an id of zeros",
    );
    lose(span.end_time_unix_nano < span.start_time_unix_nano, "it ends before it starts");
    lose(span.start_time_unix_nano == 0, "it starts in 1970");
    reasons
}
