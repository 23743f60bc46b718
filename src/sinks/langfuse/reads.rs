//! What Langfuse reads by itself from a span that came as OTLP, and which values it cannot use. Pure.
//!
//! The tables are those of Langfuse 4.16.0 (`OtelIngestionProcessor.ts`, `ObservationTypeMapper.ts`).

use crate::span::plain::is_safe;
use crate::span::{Attribute, Kind, Span, Value};

use super::native;

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
            if event.attributes.iter().any(|attribute| use_of(&attribute.value) != Use::AsIs) {
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
        let how = use_of_attribute(key, value);
        if how != Use::AsIs {
            self.add(Fact::Unusable);
        }
        if how == Use::Not {
            return;
        }
        let word = value.as_text().map(|text| &**text).unwrap_or_default();
        if let Some(fact) = fact_of(key) {
            self.add(fact);
        }
        match &**key {
            native::TYPE if TYPES.contains(&word) => self.add(Fact::Type),
            "openinference.span.kind" => self.by_openinference = openinference_type(word),
            "gen_ai.operation.name" => {
                self.by_operation = operation_type(word);
                if ["invoke_agent", "agent_step"].contains(&word) {
                    self.add(Fact::Aggregate);
                }
            }
            native::INPUT => self.add(Fact::Input),
            native::OUTPUT => self.add(Fact::Output),
            native::USAGE => self.add(Fact::Usage),
            native::COST => self.add(Fact::Cost),
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
        native::LEVEL => Fact::Level,
        native::STATUS_MESSAGE => Fact::StatusMessage,
        native::INPUT => Fact::OwnInput,
        native::OUTPUT => Fact::OwnOutput,
        native::USAGE => Fact::OwnUsage,
        native::COST => Fact::OwnCost,
        native::COMPLETION_START => Fact::CompletionStart,
        PROMPT_NAME => Fact::PromptName,
        PROMPT_VERSION => Fact::PromptVersion,
        "gen_ai.tool.name" | "gen_ai.tool.call.id" => Fact::ToolName,
        native::PARAMETERS | "llm.invocation_parameters" | "model_config" => Fact::Parameters,
        "gen_ai.usage.cost" | "llm.cost.total" => Fact::Cost,
        native::MODEL => Fact::Model,
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

const INPUTS: &[&str] = &[
    "prompt",
    "all_messages_events",
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

/// What Langfuse can do with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It reads it.
    AsIs,
    /// It reads it as text.
    AsText,
    /// It reads it as a number.
    AsInteger(i64),
    /// An attribute without a value makes it lose the whole request, after it said that it has it.
    Not,
}

/// What it can do with the value of an attribute of a span.
pub(super) fn use_of_attribute(key: &str, value: &Value) -> Use {
    match use_of(value) {
        Use::AsIs if key == PROMPT_VERSION => match value {
            Value::Text(text) => text.trim().parse().map_or(Use::AsText, Use::AsInteger),
            _ => Use::AsIs,
        },
        Use::AsIs if is_text(key) && value.as_text().is_none() => Use::AsText,
        how => how,
    }
}

/// What it can do with a value.
pub(super) fn use_of(value: &Value) -> Use {
    match value {
        Value::Empty => Use::Not,
        Value::Text(_) | Value::Bool(_) => Use::AsIs,
        Value::Int(number) if is_safe(*number) => Use::AsIs,
        Value::Double(number) if number.is_finite() => Use::AsIs,
        Value::Array(elements) if elements.iter().all(is_plain) => Use::AsIs,
        // JavaScript has no room for the number, JSON none for infinity, and Langfuse decodes neither maps nor bytes.
        Value::Int(_) | Value::Double(_) | Value::Bytes(_) | Value::Array(_) | Value::Map(_) => {
            Use::AsText
        }
    }
}

fn is_plain(element: &Value) -> bool {
    !matches!(element, Value::Array(_)) && use_of(element) == Use::AsIs
}

/// Attributes that Langfuse 3 drops the span or its trace for where they are no text.
fn is_text(key: &str) -> bool {
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
        native::TYPE,
        native::LEVEL,
        native::STATUS_MESSAGE,
        native::MODEL,
        native::PARAMETERS,
        native::USAGE,
        native::COST,
        native::COMPLETION_START,
        PROMPT_NAME,
    ];
    TEXTS.contains(&key)
}
