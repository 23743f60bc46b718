//! The Vercel AI SDK up to version 6. Outer spans repeat the usage of the calls inside them.

use super::Slots;
use super::table::{Field, Read, Rule};
use crate::span::Kind;

/// Its scope.
pub(super) const SCOPE: &str = "ai";

pub(super) const RULES: &[Rule] = &[
    ("ai.operationId", Field::VercelOperation, Read::Plain),
    ("ai.toolCall.name", Field::Tool, Read::Plain),
    ("ai.toolCall.id", Field::ToolCallId, Read::Plain),
    ("ai.toolCall.args", Field::Input, Read::Json),
    ("ai.toolCall.result", Field::Output, Read::Json),
    ("ai.telemetry.functionId", Field::Agent, Read::Plain),
    ("operation.name", Field::Name, Read::Plain),
    ("ai.model.id", Field::RequestModel, Read::Plain),
    ("ai.response.model", Field::ResponseModel, Read::Plain),
    ("ai.model.provider", Field::Provider, Read::Plain),
    ("ai.prompt.messages", Field::Input, Read::Json),
    ("ai.prompt", Field::Input, Read::Json),
    ("ai.value", Field::Input, Read::Json),
    ("ai.values", Field::Input, Read::Json),
    ("ai.documents", Field::Input, Read::Json),
    ("ai.response.text", Field::Output, Read::Plain),
    ("ai.response.object", Field::Output, Read::Json),
    ("ai.response.toolCalls", Field::ToolCalls, Read::Json),
    ("ai.response.reasoning", Field::Output, Read::Plain),
    ("ai.ranking", Field::Output, Read::Json),
    ("ai.result.text", Field::Output, Read::Plain),
    ("ai.result.object", Field::Output, Read::Json),
    ("ai.result.toolCalls", Field::ToolCalls, Read::Json),
    ("ai.prompt.tools", Field::ToolDefinitions, Read::Json),
    ("ai.usage.inputTokens", Field::InputTokens, Read::Plain),
    ("ai.usage.promptTokens", Field::InputTokens, Read::Plain),
    ("ai.usage.tokens", Field::InputTokens, Read::Plain),
    ("ai.usage.outputTokens", Field::OutputTokens, Read::Plain),
    ("ai.usage.completionTokens", Field::OutputTokens, Read::Plain),
    ("ai.usage.totalTokens", Field::TotalTokens, Read::Plain),
    ("ai.usage.inputTokenDetails.cacheReadTokens", Field::CachedRead, Read::Plain),
    ("ai.usage.cachedInputTokens", Field::CachedRead, Read::Plain),
    ("ai.usage.inputTokenDetails.cacheWriteTokens", Field::CacheWrite, Read::Plain),
    ("ai.usage.outputTokenDetails.reasoningTokens", Field::Reasoning, Read::Plain),
    ("ai.usage.reasoningTokens", Field::Reasoning, Read::Plain),
    ("ai.telemetry.metadata.sessionId", Field::Session, Read::Plain),
    ("ai.telemetry.metadata.userId", Field::User, Read::Plain),
    ("ai.telemetry.metadata.tags", Field::Tags, Read::Json),
    ("ai.telemetry.metadata.langfusePrompt", Field::PromptName, Read::Plain),
    ("ai.response.finishReason", Field::FinishReasons, Read::Plain),
    ("ai.finishReason", Field::FinishReasons, Read::Plain),
    ("ai.response.id", Field::ResponseId, Read::Plain),
    ("ai.response.msToFirstChunk", Field::FirstTokenMillis, Read::Plain),
    ("ai.stream.msToFirstChunk", Field::FirstTokenMillis, Read::Plain),
];

/// Parameters of the call have this before their names.
pub(super) const PARAMETERS_PREFIX: &str = "ai.settings.";
/// Metadata of the call.
pub(super) const METADATA_PREFIX: &str = "ai.telemetry.metadata.";

pub(super) fn kind(operation: &str, slots: &Slots<'_>) -> Kind {
    match operation {
        "ai.toolCall" => Kind::Tool,
        _ if operation.starts_with("ai.embed") => Kind::Embedding,
        _ if operation.starts_with("ai.rerank") => Kind::Reranker,
        _ if is_call(operation) => Kind::Generation,
        "ai.generateText" | "ai.streamText"
            if slots.has(Field::ToolDefinitions) || slots.has(Field::ToolCalls) =>
        {
            Kind::Agent
        }
        "ai.generateText" | "ai.streamText" | "ai.generateObject" | "ai.streamObject" => {
            Kind::Chain
        }
        _ => Kind::Custom,
    }
}

/// Whether an operation is the call to the model itself and not what surrounds it.
pub(super) fn is_call(operation: &str) -> bool {
    operation.rsplit('.').next().is_some_and(|last| last.starts_with("do"))
}
