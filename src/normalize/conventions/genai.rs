//! OpenTelemetry GenAI, every generation: from 1.37 on, and before with the names that were replaced.

use super::Slots;
use super::table::{Field, Read, Rule};
use crate::span::{Facts, Kind};

/// Scope of OpenTelemetry's own bridge for the Agents SDK.
const AGENTS_SCOPE: &str = "opentelemetry.instrumentation.openai_agents";
/// Its version 0.1.0 names this agent on every span that is none.
const AGENTS_PLACEHOLDER: &str = "OpenAI Agent";

pub(super) const RULES: &[Rule] = &[
    ("gen_ai.operation.name", Field::Operation, Read::Plain),
    ("gen_ai.agent.name", Field::Agent, Read::Plain),
    ("gen_ai.request.model", Field::RequestModel, Read::Plain),
    ("gen_ai.response.model", Field::ResponseModel, Read::Plain),
    ("gen_ai.provider.name", Field::Provider, Read::Plain),
    ("gen_ai.tool.call.arguments", Field::Input, Read::Json),
    ("gen_ai.input.messages", Field::Input, Read::Json),
    ("gen_ai.system_instructions", Field::SystemInstructions, Read::Json),
    ("gen_ai.tool.call.result", Field::Output, Read::Json),
    ("gen_ai.output.messages", Field::Output, Read::Json),
    ("gen_ai.tool.name", Field::Tool, Read::Plain),
    ("gen_ai.tool.call.id", Field::ToolCallId, Read::Plain),
    ("gen_ai.tool.definitions", Field::ToolDefinitions, Read::Json),
    ("gen_ai.usage.input_tokens", Field::InputTokens, Read::Plain),
    ("gen_ai.usage.output_tokens", Field::OutputTokens, Read::Plain),
    ("gen_ai.usage.total_tokens", Field::TotalTokens, Read::Plain),
    ("gen_ai.usage.cache_read.input_tokens", Field::CachedRead, Read::Plain),
    ("gen_ai.usage.cache_creation.input_tokens", Field::CacheWrite, Read::Plain),
    ("gen_ai.usage.cache_write.input_tokens", Field::CacheWrite, Read::Plain),
    ("gen_ai.usage.reasoning.output_tokens", Field::Reasoning, Read::Plain),
    ("gen_ai.usage.audio.input_tokens", Field::InputAudio, Read::Plain),
    ("gen_ai.usage.audio.output_tokens", Field::OutputAudio, Read::Plain),
    ("gen_ai.usage.cost", Field::CostTotal, Read::Plain),
    ("gen_ai.conversation.id", Field::Session, Read::Plain),
    ("gen_ai.workflow.name", Field::Workflow, Read::Plain),
    ("gen_ai.prompt.name", Field::PromptName, Read::Plain),
    ("gen_ai.response.finish_reasons", Field::FinishReasons, Read::Plain),
    ("gen_ai.response.time_to_first_chunk", Field::FirstTokenSeconds, Read::Plain),
    ("gen_ai.client.operation.time_to_first_chunk", Field::FirstTokenSeconds, Read::Plain),
    ("gen_ai.response.id", Field::ResponseId, Read::Plain),
    ("gen_ai.guardrail.name", Field::Guardrail, Read::Plain),
    ("gen_ai.guardrail.triggered", Field::GuardrailTriggered, Read::Plain),
    ("gen_ai.handoff.from_agent", Field::HandoffFrom, Read::Plain),
    ("gen_ai.handoff.to_agent", Field::HandoffTo, Read::Plain),
    ("error.type", Field::ErrorType, Read::Plain),
    // Written by ourselves when a native span becomes OTLP.
    ("openai.agents.sdk_span_type", Field::SdkSpanType, Read::Plain),
    ("openai.agents.mcp.server", Field::McpServer, Read::Plain),
];

/// GenAI up to 1.36, and what OpenLLMetry wrote before it followed.
pub(super) const LEGACY_RULES: &[Rule] = &[
    ("llm.request.type", Field::RequestType, Read::Plain),
    ("gen_ai.system", Field::Provider, Read::Plain),
    ("gen_ai.prompt", Field::Input, Read::Json),
    ("gen_ai.completion", Field::Output, Read::Json),
    ("gen_ai.usage.prompt_tokens", Field::InputTokens, Read::Plain),
    ("gen_ai.usage.completion_tokens", Field::OutputTokens, Read::Plain),
    ("gen_ai.usage.cache_read_input_tokens", Field::CachedRead, Read::Plain),
    ("gen_ai.usage.cache_creation_input_tokens", Field::CacheWrite, Read::Plain),
    ("llm.usage.prompt_tokens", Field::InputTokens, Read::Plain),
    ("llm.usage.completion_tokens", Field::OutputTokens, Read::Plain),
    ("llm.usage.total_tokens", Field::TotalTokens, Read::Plain),
];

/// Parameters of the request have this before their names.
pub(super) const PARAMETERS_PREFIX: &str = "gen_ai.request.";

pub(super) fn kind(operation: &str) -> Kind {
    match operation {
        "invoke_agent" | "create_agent" => Kind::Agent,
        "chat" | "generate_content" | "text_completion" | "completion" | "generate" => {
            Kind::Generation
        }
        "execute_tool" => Kind::Tool,
        "handoff" | "agent_handoff" => Kind::Handoff,
        "guardrail_check" => Kind::Guardrail,
        "retrieval" => Kind::Retriever,
        "embeddings" => Kind::Embedding,
        "rerank" => Kind::Reranker,
        "invoke_workflow" | "plan" | "agent_step" | "execute_task" => Kind::Chain,
        "speech" => Kind::Speech,
        "transcription" => Kind::Transcription,
        _ => Kind::Custom,
    }
}

/// The kind of a span that only says what sort of request it made.
pub(super) fn legacy_kind(request_type: &str) -> Kind {
    match request_type {
        "chat" | "completion" => Kind::Generation,
        "embedding" => Kind::Embedding,
        "rerank" => Kind::Reranker,
        _ => Kind::Custom,
    }
}

/// What OpenTelemetry's bridge for the Agents SDK says wrongly: its trace is an agent without a name, and its placeholder no agent.
pub(super) fn refine(slots: &Slots<'_>, facts: &mut Facts) {
    if &*slots.scope == AGENTS_SCOPE {
        if facts.kind != Kind::Agent && facts.agent.as_deref() == Some(AGENTS_PLACEHOLDER) {
            facts.agent = None;
        }
        if facts.kind == Kind::Agent && facts.agent.is_none() && slots.is_root {
            facts.kind = Kind::Chain;
            facts.workflow = Some(slots.detail.name.clone());
        }
    }
    if facts.kind == Kind::Handoff && facts.agent.is_none() {
        facts.agent.clone_from(&facts.handoff_from);
    }
}
