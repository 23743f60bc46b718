//! What Langfuse reads by itself from a span that came as OTLP, and which values it cannot use. Pure.
//!
//! The tables are those of Langfuse 4.16.0 (`OtelIngestionProcessor.ts`, `ObservationTypeMapper.ts`).

use std::borrow::Cow;

use crate::span::plain::is_safe;
use crate::span::{Attribute, Kind, Span, Value};

use super::fields;

/// Something that Langfuse finds in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fact {
    TraceName,
    Session,
    User,
    Tags,
    Environment,
    Release,
    Level,
    StatusMessage,
    /// In Langfuse's own attribute. Where that is there, the output is looked for nowhere else, and the other way round.
    OwnInput,
    OwnOutput,
    Input,
    Output,
    Model,
    Parameters,
    /// Tokens in any attribute.
    Usage,
    /// Tokens in Langfuse's own attribute.
    OwnUsage,
    Cost,
    OwnCost,
    CompletionStart,
    PromptName,
    PromptVersion,
    ToolName,
    VercelCall,
    VercelTool,
    Type,
    /// Langfuse takes no usage from spans of these operations.
    Aggregate,
    /// Something that it cannot use as it is.
    Unusable,
}

/// What Langfuse finds in a span.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reads {
    found: u32,
    by_openinference: Option<&'static str>,
    by_operation: Option<&'static str>,
}

impl Reads {
    /// Looks at a span as Langfuse does.
    pub(super) fn of(span: &Span) -> Self {
        let mut reads = Self::default();
        let is_vercel = &*span.scope.name == "ai";
        for attribute in &span.detail().attributes {
            reads.attribute(attribute, is_vercel);
        }
        for event in &span.detail().events {
            if event.name.starts_with("gen_ai.") {
                reads.add(Fact::Input);
                reads.add(Fact::Output);
            }
            if !event.attributes.iter().all(|attribute| is_usable(&attribute.value)) {
                reads.add(Fact::Unusable);
            }
        }
        for attribute in &span.scope.resource.attributes {
            match &*attribute.key {
                "langfuse.environment"
                | "deployment.environment.name"
                | "deployment.environment" => reads.add(Fact::Environment),
                "langfuse.release" => reads.add(Fact::Release),
                _ => {}
            }
        }
        reads
    }

    /// Whether it finds that.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.found & (1 << fact as u32) != 0
    }

    fn add(&mut self, fact: Fact) {
        self.found |= 1 << fact as u32;
    }

    fn attribute(&mut self, Attribute { key, value }: &Attribute, is_vercel: bool) {
        match usable(key, value) {
            Some(Cow::Borrowed(_)) => {}
            Some(Cow::Owned(_)) => self.add(Fact::Unusable),
            None => return self.add(Fact::Unusable),
        }
        let word = value.as_text().map(|text| &**text).unwrap_or_default();
        if let Some(fact) = fact_of(key) {
            self.add(fact);
        }
        match &**key {
            fields::TYPE if TYPES.contains(&word) => self.add(Fact::Type),
            "openinference.span.kind" => self.by_openinference = openinference_type(word),
            "gen_ai.operation.name" => {
                self.by_operation = operation_type(word);
                if ["invoke_agent", "agent_step"].contains(&word) {
                    self.add(Fact::Aggregate);
                }
            }
            fields::INPUT => self.add(Fact::Input),
            fields::OUTPUT => self.add(Fact::Output),
            fields::USAGE => self.add(Fact::Usage),
            fields::COST => self.add(Fact::Cost),
            "ai.operationId" if word == "ai.toolCall" => self.add(Fact::VercelTool),
            "ai.operationId" if word.contains(".do") => self.add(Fact::VercelCall),
            key if is_vercel => self.vercel(key),
            _ => {}
        }
    }

    /// Under the scope of Vercel's SDK.
    fn vercel(&mut self, key: &str) {
        let is_output = ["ai.response.", "ai.result.", "ai.toolCall.result"]
            .iter()
            .any(|beginning| key.starts_with(beginning));
        if key.starts_with("ai.prompt") || key == "ai.toolCall.args" {
            self.add(Fact::Input);
        } else if is_output {
            self.add(Fact::Output);
        }
    }

    /// The type that it gives the span, first match first.
    pub(super) fn own_type(&self) -> Option<&'static str> {
        if let Some(found) = self.by_openinference.or(self.by_operation) {
            return Some(found);
        }
        if self.has(Fact::VercelCall) && self.has(Fact::Model) {
            return Some("generation");
        }
        if self.has(Fact::VercelTool) || self.has(Fact::ToolName) {
            return Some("tool");
        }
        self.has(Fact::Model).then_some("generation")
    }
}

/// The types that Langfuse knows, in lowercase only.
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

/// The type of a kind; `None` where any will do.
pub(super) fn type_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Agent => Some("agent"),
        Kind::Generation | Kind::Speech | Kind::Transcription => Some("generation"),
        Kind::Tool => Some("tool"),
        Kind::Guardrail => Some("guardrail"),
        Kind::Retriever => Some("retriever"),
        Kind::Embedding => Some("embedding"),
        Kind::Chain => Some("chain"),
        Kind::Evaluator => Some("evaluator"),
        Kind::Event => Some("event"),
        Kind::Handoff | Kind::Mcp | Kind::Reranker | Kind::Custom => None,
    }
}

fn openinference_type(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "LLM" => "generation",
        "AGENT" => "agent",
        "TOOL" => "tool",
        "CHAIN" => "chain",
        "RETRIEVER" => "retriever",
        "EMBEDDING" => "embedding",
        "GUARDRAIL" => "guardrail",
        "EVALUATOR" => "evaluator",
        _ => return None,
    })
}

fn operation_type(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "chat" | "completion" | "text_completion" | "generate_content" | "generate" => "generation",
        "embeddings" => "embedding",
        "invoke_agent" | "create_agent" => "agent",
        "execute_tool" => "tool",
        _ => return None,
    })
}

/// What Langfuse takes an attribute for.
fn fact_of(key: &str) -> Option<Fact> {
    Some(match key {
        "langfuse.trace.name" => Fact::TraceName,
        "langfuse.session.id"
        | "session.id"
        | "gen_ai.conversation.id"
        | "langfuse.observation.metadata.langfuse_session_id"
        | "langfuse.trace.metadata.langfuse_session_id"
        | "ai.telemetry.metadata.sessionId" => Fact::Session,
        "langfuse.user.id"
        | "user.id"
        | "langfuse.observation.metadata.langfuse_user_id"
        | "langfuse.trace.metadata.langfuse_user_id"
        | "ai.telemetry.metadata.userId" => Fact::User,
        "langfuse.trace.tags" | "langfuse.tags" | "ai.telemetry.metadata.tags" => Fact::Tags,
        "langfuse.environment" | "deployment.environment.name" | "deployment.environment" => {
            Fact::Environment
        }
        "langfuse.release" => Fact::Release,
        fields::LEVEL => Fact::Level,
        fields::STATUS_MESSAGE => Fact::StatusMessage,
        fields::INPUT => Fact::OwnInput,
        fields::OUTPUT => Fact::OwnOutput,
        fields::USAGE => Fact::OwnUsage,
        fields::COST => Fact::OwnCost,
        fields::COMPLETION_START => Fact::CompletionStart,
        PROMPT_NAME => Fact::PromptName,
        PROMPT_VERSION => Fact::PromptVersion,
        "gen_ai.tool.name" | "gen_ai.tool.call.id" => Fact::ToolName,
        fields::PARAMETERS | "llm.invocation_parameters" | "model_config" => Fact::Parameters,
        "gen_ai.usage.cost" | "llm.cost.total" => Fact::Cost,
        fields::MODEL => Fact::Model,
        key if is_model(key) => Fact::Model,
        key if is_usage(key) => Fact::Usage,
        key if INPUTS.contains(&key) => Fact::Input,
        key if OUTPUTS.contains(&key) => Fact::Output,
        _ => return flattened(key),
    })
}

/// Lists whose elements have keys of their own.
fn flattened(key: &str) -> Option<Fact> {
    const PREFIXES: [(&str, Fact); 5] = [
        ("gen_ai.prompt.", Fact::Input),
        ("llm.input_messages.", Fact::Input),
        ("gen_ai.completion.", Fact::Output),
        ("llm.output_messages.", Fact::Output),
        ("gen_ai.request.", Fact::Parameters),
    ];
    PREFIXES.into_iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, fact)| fact)
}

/// Whether Langfuse takes an attribute that is not its own for the model.
pub(super) fn is_model(key: &str) -> bool {
    [
        "gen_ai.response.model",
        "ai.model.id",
        "gen_ai.request.model",
        "llm.response.model",
        "llm.model_name",
        "model",
    ]
    .contains(&key)
}

/// Whether it takes one for tokens or costs, likewise.
pub(super) fn is_usage(key: &str) -> bool {
    key.starts_with("gen_ai.usage.")
        || key.starts_with("llm.token_count.")
        || key.starts_with("llm.cost.")
        || key.starts_with("ai.usage.")
}

pub(super) const PROMPT_NAME: &str = "langfuse.observation.prompt.name";
pub(super) const PROMPT_VERSION: &str = "langfuse.observation.prompt.version";

/// Not `all_messages_events` of pydantic-ai, the messages of the whole run: Langfuse shows them as the output.
const INPUTS: &[&str] = &[
    "prompt",
    "events",
    "mlflow.spanInputs",
    "traceloop.entity.input",
    "input.value",
    "input",
    "pydantic_ai.all_messages",
    "tool_arguments",
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
];

const OUTPUTS: &[&str] = &[
    "mlflow.spanOutputs",
    "traceloop.entity.output",
    "output.value",
    "output",
    "final_result",
    "tool_response",
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
];

// === Values ===

/// What Langfuse is given for the value of an attribute: the value where it can use it, else a text or a number. Nothing for an
/// attribute without a value, which makes it lose the whole request, after it said that it has it.
pub(super) fn usable<'v>(key: &str, value: &'v Value) -> Option<Cow<'v, Value>> {
    match value {
        Value::Empty => None,
        Value::Text(text) if key == PROMPT_VERSION => {
            let number = text.trim().parse().map(Value::Int);
            Some(Cow::Owned(number.unwrap_or_else(|_| value.clone())))
        }
        Value::Text(_) => Some(Cow::Borrowed(value)),
        value if is_usable(value) && !TEXTS.contains(&key) => Some(Cow::Borrowed(value)),
        value => {
            let mut text = Vec::new();
            fields::write_plain(&mut text, value);
            Some(Cow::Owned(Value::Text(String::from_utf8(text).unwrap_or_default().into())))
        }
    }
}

/// Whether it can use this value, whatever it is for. JavaScript has no room for large numbers, JSON none for infinity, and Langfuse
/// decodes neither maps nor bytes.
fn is_usable(value: &Value) -> bool {
    match value {
        Value::Text(_) | Value::Bool(_) => true,
        Value::Int(number) => is_safe(*number),
        Value::Double(number) => number.is_finite(),
        Value::Array(elements) => {
            elements.iter().all(|element| !matches!(element, Value::Array(_)) && is_usable(element))
        }
        Value::Empty | Value::Bytes(_) | Value::Map(_) => false,
    }
}

/// The attributes with the values that it is given for them.
pub(super) fn usable_ones(attributes: &[Attribute]) -> Vec<Attribute> {
    let usable = |Attribute { key, value }: &Attribute| {
        Some(Attribute { key: key.clone(), value: usable(key, value)?.into_owned() })
    };
    attributes.iter().filter_map(usable).collect()
}

/// Attributes that Langfuse 3 drops the span or its trace for where they are no text.
const TEXTS: [&str; 18] = [
    "service.version",
    "session.id",
    "user.id",
    "langfuse.session.id",
    "langfuse.user.id",
    "langfuse.version",
    "langfuse.release",
    "langfuse.environment",
    "langfuse.trace.name",
    fields::TYPE,
    fields::LEVEL,
    fields::STATUS_MESSAGE,
    fields::MODEL,
    fields::PARAMETERS,
    fields::USAGE,
    fields::COST,
    fields::COMPLETION_START,
    PROMPT_NAME,
];
