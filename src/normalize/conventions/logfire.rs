//! Logfire's bridge for the Agents SDK and pydantic-ai, both of which use names as plain as `name` and `input`.

use super::Slots;
use super::table::{Field, Read, Rule};
use crate::span::{Facts, Kind, Text};

/// Scope of the bridge for the Agents SDK.
pub(super) const AGENTS_SCOPE: &str = "logfire.openai_agents";
/// Scope of pydantic-ai.
pub(super) const PYDANTIC_SCOPE: &str = "pydantic-ai";

/// Names of its own, under any scope.
pub(super) const RULES: &[Rule] = &[
    ("logfire.msg_template", Field::LogfireTemplate, Read::Plain),
    ("logfire.span_type", Field::LogfireSpanType, Read::Plain),
    ("logfire.msg", Field::Name, Read::Plain),
    ("logfire.tags", Field::Tags, Read::Json),
    ("logfire.level_num", Field::LevelNumber, Read::Plain),
    ("operation.cost", Field::CostTotal, Read::Plain),
    ("gen_ai.usage.raw", Field::RawUsage, Read::Json),
    ("gen_ai.usage.details.cache_read_tokens", Field::CachedRead, Read::Plain),
    ("gen_ai.usage.details.cache_write_tokens", Field::CacheWrite, Read::Plain),
    ("gen_ai.usage.details.reasoning_tokens", Field::Reasoning, Read::Plain),
    ("gen_ai.usage.details.input_audio_tokens", Field::InputAudio, Read::Plain),
    ("gen_ai.usage.details.output_audio_tokens", Field::OutputAudio, Read::Plain),
];

/// Names that mean something only under its scope for the Agents SDK.
pub(super) const AGENT_RULES: &[Rule] = &[
    ("name", Field::PlainName, Read::Plain),
    ("agent_name", Field::Agent, Read::Plain),
    ("raw_input", Field::Input, Read::Json),
    ("input", Field::Input, Read::Json),
    ("events", Field::Input, Read::Json),
    ("response", Field::Output, Read::Json),
    ("output", Field::Output, Read::Json),
    ("result", Field::Output, Read::Json),
    ("model_settings", Field::Parameters, Read::Json),
    ("tools", Field::ToolDefinitions, Read::Json),
    ("usage", Field::LogfireUsage, Read::Json),
    ("response_id", Field::ResponseId, Read::Plain),
    ("group_id", Field::Session, Read::Json),
    ("metadata", Field::Metadata, Read::Json),
    ("data", Field::Metadata, Read::Json),
    ("from_agent", Field::HandoffFrom, Read::Plain),
    ("to_agent", Field::HandoffTo, Read::Plain),
    ("triggered", Field::GuardrailTriggered, Read::Plain),
    ("server", Field::McpServer, Read::Plain),
    ("mcp_data", Field::McpData, Read::Json),
    ("sdk_span_type", Field::SdkSpanType, Read::Plain),
    ("turn", Field::Turn, Read::Plain),
    ("error", Field::ErrorObject, Read::Json),
];

/// Names that mean something only under pydantic-ai's scope.
pub(super) const PYDANTIC_RULES: &[Rule] = &[
    ("agent_name", Field::Agent, Read::Plain),
    ("model_name", Field::RequestModel, Read::Plain),
    ("pydantic_ai.all_messages", Field::Input, Read::Json),
    ("all_messages_events", Field::Input, Read::Json),
    ("tool_arguments", Field::Input, Read::Json),
    ("events", Field::Input, Read::Json),
    ("prompt", Field::Input, Read::Json),
    ("final_result", Field::Output, Read::Json),
    ("tool_response", Field::Output, Read::Json),
    ("model_request_parameters", Field::Parameters, Read::Json),
    ("gen_ai.aggregated_usage.input_tokens", Field::AggregateInput, Read::Plain),
    ("gen_ai.aggregated_usage.output_tokens", Field::AggregateOutput, Read::Plain),
    ("gen_ai.aggregated_usage.cache_read.input_tokens", Field::AggregateCachedRead, Read::Plain),
    ("gen_ai.aggregated_usage.details.reasoning_tokens", Field::AggregateReasoning, Read::Plain),
];

/// Levels from here on are errors.
pub(super) const LEVEL_ERROR: u64 = 17;

/// By the template of its message, whose beginning never changes.
pub(super) fn kind(template: &str) -> Kind {
    const KINDS: [(&str, Kind); 13] = [
        ("Agent run", Kind::Agent),
        ("Responses API", Kind::Generation),
        ("Chat completion", Kind::Generation),
        ("Chat Completion", Kind::Generation),
        ("Function", Kind::Tool),
        ("Handoff", Kind::Handoff),
        ("Guardrail", Kind::Guardrail),
        ("MCP: list tools", Kind::Mcp),
        ("Text \u{2192} Speech group", Kind::Chain),
        ("Text \u{2192} Speech", Kind::Speech),
        ("Speech \u{2192} Text", Kind::Transcription),
        ("OpenAI Agents trace", Kind::Chain),
        ("Custom span", Kind::Custom),
    ];
    let known = KINDS.iter().find(|(beginning, _)| template.starts_with(beginning));
    match known {
        Some((_, kind)) => *kind,
        None if template.starts_with("Task") || template.starts_with("Turn") => Kind::Chain,
        None => Kind::Custom,
    }
}

/// Puts the plain `name` where it belongs, which depends on the kind.
pub(super) fn refine(slots: &Slots<'_>, facts: &mut Facts) {
    let name = slots.text(Field::PlainName);
    match facts.kind {
        Kind::Agent => facts.agent.clone_from(&name),
        Kind::Tool => facts.tool.clone_from(&name),
        Kind::Guardrail => facts.guardrail.clone_from(&name),
        Kind::Chain if is_trace(slots) => facts.workflow.clone_from(&name),
        Kind::Handoff => facts.agent.clone_from(&facts.handoff_from),
        Kind::Mcp => facts.mcp_method = Some(Text::from_static("tools/list")),
        _ => (),
    }
    if let Some(turn) = slots.count(Field::Turn) {
        facts.name = Text::from(format!("turn {turn}"));
    } else if let Some(name) = name {
        facts.name = name;
    }
}

/// Whether a span is the trace itself: its workflow, group and metadata.
fn is_trace(slots: &Slots<'_>) -> bool {
    slots
        .text(Field::LogfireTemplate)
        .is_some_and(|template| template.starts_with("OpenAI Agents trace"))
}
