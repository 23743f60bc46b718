//! Names of the attributes that are written when an Agents SDK span becomes OTLP. GenAI names are those of semantic conventions v1.41.1.

#![expect(missing_docs, reason = "each constant is the name it holds")]

use super::Usage;

/// The schema of these names.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.1";

pub const SERVICE_NAME: &str = "service.name";
pub const TELEMETRY_SDK_NAME: &str = "telemetry.sdk.name";
pub const TELEMETRY_SDK_LANGUAGE: &str = "telemetry.sdk.language";
pub const TELEMETRY_SDK_VERSION: &str = "telemetry.sdk.version";

pub const GEN_AI_OPERATION_NAME: &str = "gen_ai.operation.name";
pub const GEN_AI_PROVIDER_NAME: &str = "gen_ai.provider.name";
pub const GEN_AI_CONVERSATION_ID: &str = "gen_ai.conversation.id";
pub const GEN_AI_WORKFLOW_NAME: &str = "gen_ai.workflow.name";
pub const GEN_AI_AGENT_NAME: &str = "gen_ai.agent.name";
pub const GEN_AI_REQUEST_MODEL: &str = "gen_ai.request.model";
/// Prefix of the name of a request parameter.
pub const GEN_AI_REQUEST: &str = "gen_ai.request.";
pub const GEN_AI_RESPONSE_MODEL: &str = "gen_ai.response.model";
pub const GEN_AI_RESPONSE_ID: &str = "gen_ai.response.id";
pub const GEN_AI_RESPONSE_FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// In seconds.
pub const GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
pub const GEN_AI_OUTPUT_TYPE: &str = "gen_ai.output.type";
pub const GEN_AI_INPUT_MESSAGES: &str = "gen_ai.input.messages";
pub const GEN_AI_OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
pub const GEN_AI_SYSTEM_INSTRUCTIONS: &str = "gen_ai.system_instructions";
pub const GEN_AI_TOOL_NAME: &str = "gen_ai.tool.name";
pub const GEN_AI_TOOL_TYPE: &str = "gen_ai.tool.type";
pub const GEN_AI_TOOL_DEFINITIONS: &str = "gen_ai.tool.definitions";
pub const GEN_AI_TOOL_CALL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
pub const GEN_AI_TOOL_CALL_RESULT: &str = "gen_ai.tool.call.result";
pub const GEN_AI_USAGE_INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub const GEN_AI_USAGE_OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub const GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub const GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: &str =
    "gen_ai.usage.cache_creation.input_tokens";
pub const GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
/// Not in the conventions, but used by OpenTelemetry's openai-agents-v2 and OpenLLMetry.
pub const GEN_AI_HANDOFF_FROM_AGENT: &str = "gen_ai.handoff.from_agent";
/// See [`GEN_AI_HANDOFF_FROM_AGENT`].
pub const GEN_AI_HANDOFF_TO_AGENT: &str = "gen_ai.handoff.to_agent";
/// Not in the conventions, but used by OpenTelemetry's openai-agents-v2.
pub const GEN_AI_GUARDRAIL_NAME: &str = "gen_ai.guardrail.name";
/// See [`GEN_AI_GUARDRAIL_NAME`].
pub const GEN_AI_GUARDRAIL_TRIGGERED: &str = "gen_ai.guardrail.triggered";

pub const MCP_METHOD_NAME: &str = "mcp.method.name";
pub const ERROR_TYPE: &str = "error.type";
pub const SESSION_ID: &str = "session.id";
pub const USER_ID: &str = "user.id";

pub const OPENINFERENCE_SPAN_KIND: &str = "openinference.span.kind";
pub const METADATA: &str = "metadata";
pub const TAG_TAGS: &str = "tag.tags";
pub const AGENT_NAME: &str = "agent.name";
pub const GRAPH_NODE_ID: &str = "graph.node.id";
pub const TOOL_NAME: &str = "tool.name";
pub const INPUT_VALUE: &str = "input.value";
pub const OUTPUT_VALUE: &str = "output.value";
pub const LLM_MODEL_NAME: &str = "llm.model_name";
pub const LLM_INVOCATION_PARAMETERS: &str = "llm.invocation_parameters";
pub const LLM_TOKEN_COUNT_PROMPT: &str = "llm.token_count.prompt";
pub const LLM_TOKEN_COUNT_COMPLETION: &str = "llm.token_count.completion";
pub const LLM_TOKEN_COUNT_TOTAL: &str = "llm.token_count.total";
pub const LLM_TOKEN_COUNT_CACHE_READ: &str = "llm.token_count.prompt_details.cache_read";
pub const LLM_TOKEN_COUNT_CACHE_WRITE: &str = "llm.token_count.prompt_details.cache_write";
pub const LLM_TOKEN_COUNT_PROMPT_AUDIO: &str = "llm.token_count.prompt_details.audio";
pub const LLM_TOKEN_COUNT_COMPLETION_AUDIO: &str = "llm.token_count.completion_details.audio";
pub const LLM_TOKEN_COUNT_REASONING: &str = "llm.token_count.completion_details.reasoning";

/// The ids as the client wrote them.
pub const OPENAI_AGENTS_TRACE_ID: &str = "openai.agents.trace_id";
/// See [`OPENAI_AGENTS_TRACE_ID`].
pub const OPENAI_AGENTS_SPAN_ID: &str = "openai.agents.span_id";
/// See [`OPENAI_AGENTS_TRACE_ID`].
pub const OPENAI_AGENTS_PARENT_ID: &str = "openai.agents.parent_span_id";
/// `span_data.type`.
pub const OPENAI_AGENTS_SPAN_TYPE: &str = "openai.agents.span_type";
/// `data.sdk_span_type` of a custom span: `task` or `turn`.
pub const OPENAI_AGENTS_SDK_SPAN_TYPE: &str = "openai.agents.sdk_span_type";
pub const OPENAI_AGENTS_TURN: &str = "openai.agents.turn";
pub const OPENAI_AGENTS_TOOLS: &str = "openai.agents.tools";
pub const OPENAI_AGENTS_HANDOFFS: &str = "openai.agents.handoffs";
pub const OPENAI_AGENTS_OUTPUT_TYPE: &str = "openai.agents.output_type";
pub const OPENAI_AGENTS_MCP_SERVER: &str = "openai.agents.mcp.server";
pub const OPENAI_AGENTS_MCP_DATA: &str = "openai.agents.mcp_data";
pub const OPENAI_AGENTS_MCP_RESULT: &str = "openai.agents.mcp.result";
/// JSON.
pub const OPENAI_AGENTS_DATA: &str = "openai.agents.data";
/// JSON.
pub const OPENAI_AGENTS_USAGE: &str = "openai.agents.usage";
/// Prefix of a member of `error` that has no separate attribute.
pub const OPENAI_AGENTS_ERROR: &str = "openai.agents.error.";
/// JSON.
pub const OPENAI_AGENTS_ERROR_DATA: &str = "openai.agents.error.data";
/// Prefix of a member of an audio object.
pub const OPENAI_AGENTS_AUDIO: &str = "openai.agents.audio.";
pub const OPENAI_AGENTS_AUDIO_BYTES: &str = "openai.agents.audio.bytes";
pub const OPENAI_AGENTS_AUDIO_FORMAT: &str = "openai.agents.audio.format";
/// Prefix of a member of the trace object's metadata.
pub const OPENAI_AGENTS_METADATA: &str = "openai.agents.metadata.";
/// Prefix of a member of the span's metadata.
pub const OPENAI_AGENTS_SPAN_METADATA: &str = "openai.agents.span_metadata.";
/// Prefix of a member of `span_data` that has no separate attribute.
pub const OPENAI_AGENTS_SPAN_DATA: &str = "openai.agents.span_data.";
/// Prefix of a member of the item that has no separate attribute.
pub const OPENAI_AGENTS_ITEM: &str = "openai.agents.item.";
/// Prefix of a token count that repeats the counts of the spans below.
pub const OPENAI_AGENTS_AGGREGATE_USAGE: &str = "openai.agents.aggregate_usage.";

/// Prefix of the key of an attribute of [`is_spending`] whose tokens or costs repeat those of other spans.
pub const SPANFERRY_AGGREGATE: &str = "spanferry.aggregate.";

/// Used in archives: the attribute of a resource without spans that contains Agents SDK items as they were received, `{"data":[...]}`, in
/// addition to the spans that they became.
pub const SPANFERRY_BODY: &str = "spanferry.agents_sdk.body";

/// A member of an item's metadata with the attributes that the user's rules set on an Agents SDK item, which has no place for attributes.
pub const SPANFERRY_SET: &str = "spanferry.set";
/// Langfuse's names for facts that OpenTelemetry has only for resources, or not at all.
pub const ENVIRONMENT: &str = "langfuse.environment";
/// See [`ENVIRONMENT`].
pub const RELEASE: &str = "langfuse.release";
/// See [`ENVIRONMENT`]. A JSON list.
pub const TAGS: &str = "langfuse.trace.tags";

/// Prefixes of keys of tokens and costs, in all conventions.
const SPENDING_BEGINNINGS: [&str; 6] =
    ["gen_ai.usage.", "gen_ai.cost.", "llm.usage.", "llm.token_count.", "llm.cost.", "ai.usage."];

/// Keys of tokens and costs with other prefixes. The last four are those of Claude Code.
const SPENDING: [&str; 8] = [
    "langfuse.observation.usage_details",
    "langfuse.observation.cost_details",
    "mlflow.chat.tokenUsage",
    "operation.cost",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
];

/// Every such key contains one of these words.
pub(super) const SPENDING_WORDS: [&str; 3] = ["usage", "token", "cost"];

/// Returns whether an attribute has tokens or costs that backends sum up.
pub fn is_spending(key: &str) -> bool {
    SPENDING.contains(&key) || SPENDING_BEGINNINGS.iter().any(|start| key.starts_with(start))
}

/// Returns the attributes for the tokens of a model call, in the terms of GenAI and of OpenInference.
pub fn token_counts(usage: &Usage) -> [(&'static str, Option<u64>); 13] {
    [
        (GEN_AI_USAGE_INPUT_TOKENS, usage.input),
        (GEN_AI_USAGE_OUTPUT_TOKENS, usage.output),
        (GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_read),
        (GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, usage.cache_write),
        (GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, usage.reasoning),
        (LLM_TOKEN_COUNT_PROMPT, usage.input),
        (LLM_TOKEN_COUNT_COMPLETION, usage.output),
        (LLM_TOKEN_COUNT_TOTAL, usage.total),
        (LLM_TOKEN_COUNT_CACHE_READ, usage.cached_read),
        (LLM_TOKEN_COUNT_CACHE_WRITE, usage.cache_write),
        (LLM_TOKEN_COUNT_REASONING, usage.reasoning),
        (LLM_TOKEN_COUNT_PROMPT_AUDIO, usage.input_audio),
        (LLM_TOKEN_COUNT_COMPLETION_AUDIO, usage.output_audio),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_tokens_and_costs_has_one_of_the_words() {
        for key in SPENDING.iter().chain(&SPENDING_BEGINNINGS) {
            assert!(SPENDING_WORDS.iter().any(|word| key.contains(word)), "{key}");
        }
    }
}
