//! OpenLLMetry's own attributes; for model calls it follows OpenTelemetry GenAI.

use super::Slots;
use super::table::{Field, Read, Rule};
use crate::span::{Facts, Kind};

pub(super) const RULES: &[Rule] = &[
    ("traceloop.span.kind", Field::TraceloopKind, Read::Plain),
    ("traceloop.entity.name", Field::Name, Read::Plain),
    ("traceloop.workflow.name", Field::Workflow, Read::Plain),
    ("traceloop.entity.input", Field::Input, Read::Json),
    ("traceloop.entity.output", Field::Output, Read::Json),
    ("mcp.request.argument", Field::Input, Read::Json),
    ("mcp.response.value", Field::Output, Read::Json),
    ("gen_ai.usage.reasoning_tokens", Field::Reasoning, Read::Plain),
    ("gen_ai.user", Field::User, Read::Plain),
    ("traceloop.association.properties.session_id", Field::Session, Read::Plain),
    ("traceloop.association.properties.user_id", Field::User, Read::Plain),
    ("traceloop.prompt.key", Field::PromptName, Read::Plain),
    ("traceloop.prompt.version", Field::PromptVersion, Read::Plain),
];

/// Free properties of the trace.
pub(super) const METADATA_PREFIX: &str = "traceloop.association.properties.";

pub(super) fn kind(span_kind: &str) -> Kind {
    match span_kind {
        "agent" => Kind::Agent,
        "tool" => Kind::Tool,
        "handoff" => Kind::Handoff,
        "guardrail" => Kind::Guardrail,
        "workflow" | "task" | "speech_group" => Kind::Chain,
        "speech" => Kind::Speech,
        "transcription" => Kind::Transcription,
        _ if span_kind.starts_with("mcp") => Kind::Mcp,
        _ => Kind::Custom,
    }
}

/// The entity's name is the agent's or the tool's where nothing better was said.
pub(super) fn refine(slots: &Slots<'_>, facts: &mut Facts) {
    let entity = slots.text(Field::Name);
    match facts.kind {
        Kind::Agent if facts.agent.is_none() => facts.agent = entity,
        Kind::Tool if facts.tool.is_none() => facts.tool = entity,
        _ => (),
    }
}
