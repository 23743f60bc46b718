//! What we write ourselves when a native span becomes OTLP (`span/keys.rs`), read back: for spans that another Spanferry sent on.

use super::table::{Field, Read, Rule};
use crate::span::{Kind, keys};

pub(super) const RULES: &[Rule] = &[
    (keys::OPENAI_AGENTS_SPAN_TYPE, Field::NativeType, Read::Plain),
    (keys::OPENAI_AGENTS_SDK_SPAN_TYPE, Field::SdkSpanType, Read::Plain),
    (keys::GEN_AI_RESPONSE_MODEL, Field::ResponseModel, Read::Plain),
    (keys::OPENAI_AGENTS_MCP_SERVER, Field::McpServer, Read::Plain),
    (keys::OPENAI_AGENTS_MCP_DATA, Field::McpData, Read::Json),
    (keys::OPENAI_AGENTS_MCP_RESULT, Field::Output, Read::Json),
    (keys::OPENAI_AGENTS_DATA, Field::Metadata, Read::Json),
    (keys::OPENAI_AGENTS_ERROR_DATA, Field::ErrorData, Read::Json),
    ("openai.agents.aggregate_usage.input_tokens", Field::AggregateInput, Read::Plain),
    ("openai.agents.aggregate_usage.output_tokens", Field::AggregateOutput, Read::Plain),
    ("openai.agents.aggregate_usage.total_tokens", Field::AggregateTotal, Read::Plain),
    ("openai.agents.aggregate_usage.cached_input_tokens", Field::AggregateCachedRead, Read::Plain),
    (
        "openai.agents.aggregate_usage.cache_write_input_tokens",
        Field::AggregateCacheWrite,
        Read::Plain,
    ),
];

pub(super) fn kind(span_type: &str, sdk_span_type: Option<&str>) -> Kind {
    match (span_type, sdk_span_type) {
        ("agent", _) => Kind::Agent,
        ("generation" | "response", _) => Kind::Generation,
        ("function", _) => Kind::Tool,
        ("handoff", _) => Kind::Handoff,
        ("guardrail", _) => Kind::Guardrail,
        ("mcp_tools", _) => Kind::Mcp,
        ("transcription", _) => Kind::Transcription,
        ("speech", _) => Kind::Speech,
        ("speech_group" | "speech-group", _) | ("custom", Some("task" | "turn")) => Kind::Chain,
        _ => Kind::Custom,
    }
}
