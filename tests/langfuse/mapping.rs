//! What Langfuse makes of a request once it has said yes: one row a span. Written from what is known of Langfuse 4.16.0, and on
//! purpose not from the sink's code.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::prices;

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
    /// What Langfuse 3 would have lost this for.
    pub(crate) lost_on_v3: Vec<String>,
    /// Values that are shown as raw OTLP, or with other digits than they had.
    pub(crate) garbled: Vec<String>,
}

type Attributes = BTreeMap<String, Value>;

/// Maps a request. `Err` when the worker fails on it, and with it loses all of it.
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

/// Decodes attributes as Langfuse does: neither maps nor bytes, and numbers as JavaScript has them.
fn attributes(list: &[KeyValue], garbled: &mut Vec<String>) -> Result<Attributes, String> {
    let mut found = Attributes::new();
    for KeyValue { key, value, .. } in list {
        // The worker reads a property of nothing.
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
    // Langfuse's own SDK writes pieces of metadata as JSON, text in quotes.
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
        name: first(&[
            "gen_ai.tool.name",
            "genkit:name",
            "logfire.msg",
            "ai.toolCall.name",
            "ai.operationId",
        ])
        .unwrap_or_else(|| span.name.clone()),
        kind: kind(&own).to_owned(),
        level,
        status_message: text("langfuse.observation.status_message").unwrap_or(status.message),
        start_ms: if start == 0 { end } else { start } / 1_000_000,
        end_ms: if end == 0 { start } else { end } / 1_000_000,
        parameters: parameters(&own),
        completion_start: text("langfuse.observation.completion_start_time"),
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
        tags: tags(own.get("langfuse.trace.tags").or(own.get("langfuse.tags"))),
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
    (row.input, row.output) = content(span, &own, scope);
    row.prompt = text("langfuse.observation.prompt.name")
        .zip(own.get("langfuse.observation.prompt.version").and_then(Value::as_i64));
    tokens_and_cost(&own, &mut row);
    Ok(row)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

// === Type ===

fn kind(own: &Attributes) -> &'static str {
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
    let word = |key: &str| own.get(key).and_then(Value::as_str).unwrap_or_default();
    if let Some(found) = TYPES.iter().find(|known| **known == word("langfuse.observation.type")) {
        return found;
    }
    let by_openinference = match word("openinference.span.kind") {
        "LLM" => Some("generation"),
        "AGENT" => Some("agent"),
        "TOOL" => Some("tool"),
        "CHAIN" => Some("chain"),
        "RETRIEVER" => Some("retriever"),
        "EMBEDDING" => Some("embedding"),
        "GUARDRAIL" => Some("guardrail"),
        "EVALUATOR" => Some("evaluator"),
        _ => None,
    };
    let by_operation = match word("gen_ai.operation.name") {
        "chat" | "completion" | "text_completion" | "generate_content" | "generate" => {
            Some("generation")
        }
        "embeddings" => Some("embedding"),
        "invoke_agent" | "create_agent" => Some("agent"),
        "execute_tool" => Some("tool"),
        _ => None,
    };
    if let Some(found) = by_openinference.or(by_operation) {
        return found;
    }
    let vercel = word("ai.operationId");
    if vercel.contains(".do") && model(own).is_some() {
        return "generation";
    }
    if vercel == "ai.toolCall"
        || own.contains_key("gen_ai.tool.name")
        || own.contains_key("gen_ai.tool.call.id")
    {
        return "tool";
    }
    if model(own).is_some() { "generation" } else { "span" }
}

fn model(own: &Attributes) -> Option<String> {
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
    .find_map(|key| own.get(*key).map(plain).filter(|model| !model.is_empty()))
}

// === Trace ===

fn tags(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(tags)) => tags.iter().map(plain).collect(),
        Some(Value::String(text)) if text.starts_with('[') => {
            serde_json::from_str(text).unwrap_or_default()
        }
        Some(Value::String(text)) => text.split(',').map(|tag| tag.trim().to_owned()).collect(),
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

/// One JSON object, and single pieces beside it; nested objects get dotted names, and what is JSON is read as JSON.
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

// === Input and output ===

fn content(span: &Span, own: &Attributes, scope: &str) -> (Option<String>, Option<String>) {
    let text = |keys: &[&str]| keys.iter().find_map(|key| own.get(*key).map(plain));
    let input = own.get("langfuse.observation.input").map(plain);
    let output = own.get("langfuse.observation.output").map(plain);
    if input.is_some() || output.is_some() {
        return (input, output);
    }
    if scope == "ai" {
        return (
            text(&["ai.prompt.messages", "ai.prompt", "ai.toolCall.args"]),
            text(&[
                "ai.response.text",
                "ai.result.text",
                "ai.response.toolCalls",
                "ai.response.object",
                "ai.toolCall.result",
            ]),
        );
    }
    if span.events.iter().any(|event| event.name.starts_with("gen_ai.")) {
        return (Some("from events".to_owned()), Some("from events".to_owned()));
    }
    let flattened = |prefix: &str| own.keys().any(|key| key.starts_with(prefix));
    let list = |prefix: &str| flattened(prefix).then(|| format!("from {prefix}"));
    let input = text(&[
        "prompt",
        "all_messages_events",
        "events",
        "mlflow.spanInputs",
        "traceloop.entity.input",
        "input.value",
        "input",
        "pydantic_ai.all_messages",
        "tool_arguments",
    ])
    .or_else(|| list("gen_ai.prompt.").or_else(|| list("llm.input_messages.")))
    .or_else(|| text(&["gen_ai.input.messages", "gen_ai.tool.call.arguments"]));
    let output = text(&[
        "mlflow.spanOutputs",
        "traceloop.entity.output",
        "output.value",
        "output",
        "final_result",
        "tool_response",
    ])
    .or_else(|| list("gen_ai.completion.").or_else(|| list("llm.output_messages.")))
    .or_else(|| text(&["gen_ai.output.messages", "gen_ai.tool.call.result"]));
    (input, output)
}

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

fn tokens_and_cost(own: &Attributes, row: &mut Row) {
    let operation = own.get("gen_ai.operation.name").and_then(Value::as_str).unwrap_or_default();
    if ["invoke_agent", "agent_step"].contains(&operation) {
        return;
    }
    row.model = model(own);
    row.usage = usage(own);
    row.cost = given_cost(own);
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
        if !row.cost.is_empty() {
            let sum = row.cost.values().sum();
            row.cost.insert("total".to_owned(), sum);
        }
    }
}

fn usage(own: &Attributes) -> BTreeMap<String, u64> {
    if let Some(details) = own.get("langfuse.observation.usage_details") {
        // Anything but a string disables it.
        let parsed = details.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        return parsed.as_ref().and_then(Value::as_object).map(buckets).unwrap_or_default();
    }
    let count = |keys: &[&str]| keys.iter().find_map(|key| own.get(*key).and_then(Value::as_u64));
    let mut found = BTreeMap::new();
    let mut put = |name: &str, count: Option<u64>| {
        if let Some(count) = count {
            found.insert(name.to_owned(), count);
        }
    };
    let input = count(&[
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
    ]);
    let output = count(&[
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
    ]);
    let cached = count(&[
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ]);
    let reasoning = count(&[
        "gen_ai.usage.reasoning.output_tokens",
        "llm.token_count.completion_details.reasoning",
    ]);
    put("input", input.map(|input| input.saturating_sub(cached.unwrap_or_default())));
    put("input_cached_tokens", cached);
    put("output", output.map(|output| output.saturating_sub(reasoning.unwrap_or_default())));
    put("output_reasoning_tokens", reasoning);
    put("total", count(&["llm.token_count.total", "gen_ai.usage.total_tokens"]));
    found
}

/// A flat object of counts. Only an object of exactly OpenAI's shape is taken apart; with any key more, all its numbers are buckets.
fn buckets(details: &serde_json::Map<String, Value>) -> BTreeMap<String, u64> {
    const SHAPES: [[&str; 5]; 2] = [
        [
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "input_tokens_details",
            "output_tokens_details",
        ],
        [
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "prompt_tokens_details",
            "completion_tokens_details",
        ],
    ];
    for [input, output, total, input_details, output_details] in SHAPES {
        let known = [input, output, total, input_details, output_details];
        if details.contains_key(input) && details.keys().all(|key| known.contains(&key.as_str())) {
            let of =
                |object: &str, key: &str| details.get(object).and_then(|inner| inner[key].as_u64());
            let cached = of(input_details, "cached_tokens").unwrap_or_default();
            let reasoning = of(output_details, "reasoning_tokens").unwrap_or_default();
            let count = |key: &str| details.get(key).and_then(Value::as_u64).unwrap_or_default();
            return BTreeMap::from([
                ("input".to_owned(), count(input) - cached),
                ("input_cached_tokens".to_owned(), cached),
                ("output".to_owned(), count(output) - reasoning),
                ("output_reasoning_tokens".to_owned(), reasoning),
                ("total".to_owned(), count(total)),
            ]);
        }
    }
    let counts = details.iter().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    counts.collect()
}

fn given_cost(own: &Attributes) -> BTreeMap<String, f64> {
    let amount = |value: &Value| if value.is_string() { Some(0.0) } else { value.as_f64() };
    if let Some(details) = own.get("langfuse.observation.cost_details") {
        let parsed = details.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let members = parsed.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
        let mut costs: BTreeMap<String, f64> = members
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), amount(value)?)))
            .collect();
        let is_plain = costs.keys().all(|name| name == "input" || name == "output");
        if !costs.is_empty() && !costs.contains_key("total") {
            let total = if is_plain { costs.values().sum() } else { 0.0 };
            costs.insert("total".to_owned(), total);
        }
        return costs;
    }
    let total = ["gen_ai.usage.cost", "llm.cost.total"]
        .iter()
        .find_map(|key| own.get(*key).and_then(Value::as_f64));
    total.map(|total| BTreeMap::from([("total".to_owned(), total)])).unwrap_or_default()
}

// === Langfuse 3 ===

/// Its schemas are strict: what does not fit loses the observation or its whole trace.
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
    lose(name.is_some() && kind(own) != "generation", "a prompt on what is no generation");
    lose(
        span.trace_id.iter().all(|byte| *byte == 0) || span.span_id.iter().all(|byte| *byte == 0),
        "an id of zeros",
    );
    lose(span.end_time_unix_nano < span.start_time_unix_nano, "it ends before it starts");
    lose(span.start_time_unix_nano == 0, "it starts in 1970");
    reasons
}
