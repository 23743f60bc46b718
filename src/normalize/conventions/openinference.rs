//! OpenInference. Messages and documents come flattened into indexed keys; `tool.parameters` is a schema, not the arguments.

use super::Slots;
use super::table::{Field, Read, Rule};
use crate::span::{Facts, Kind, Payload, Text};

/// Scopes of its instrumentations begin with this.
pub(super) const SCOPE_PREFIX: &str = "openinference.";
/// The one for the Agents SDK.
const AGENTS_SCOPE: &str = "openinference.instrumentation.openai_agents";

pub(super) const RULES: &[Rule] = &[
    ("openinference.span.kind", Field::OpenInferenceKind, Read::Plain),
    ("agent.name", Field::Agent, Read::Plain),
    ("graph.node.id", Field::Agent, Read::Plain),
    ("llm.request.model_name", Field::RequestModel, Read::Plain),
    ("llm.response.model_name", Field::ResponseModel, Read::Plain),
    ("llm.model_name", Field::ResponseModel, Read::Plain),
    ("embedding.model_name", Field::ResponseModel, Read::Plain),
    ("reranker.model_name", Field::ResponseModel, Read::Plain),
    ("llm.provider", Field::Provider, Read::Plain),
    ("llm.system", Field::Provider, Read::Plain),
    ("llm.invocation_parameters", Field::Parameters, Read::Json),
    ("embedding.invocation_parameters", Field::Parameters, Read::Json),
    ("input.value", Field::Input, Read::Plain),
    ("input.mime_type", Field::InputMime, Read::Plain),
    ("output.value", Field::Output, Read::Plain),
    ("output.mime_type", Field::OutputMime, Read::Plain),
    ("tool.name", Field::Tool, Read::Plain),
    ("tool.id", Field::ToolCallId, Read::Plain),
    ("llm.token_count.prompt", Field::InputTokens, Read::Plain),
    ("llm.token_count.completion", Field::OutputTokens, Read::Plain),
    ("llm.token_count.total", Field::TotalTokens, Read::Plain),
    ("llm.token_count.prompt_details.cache_read", Field::CachedRead, Read::Plain),
    ("llm.token_count.prompt_details.cache_write", Field::CacheWrite, Read::Plain),
    ("llm.token_count.prompt_details.audio", Field::InputAudio, Read::Plain),
    ("llm.token_count.completion_details.reasoning", Field::Reasoning, Read::Plain),
    ("llm.token_count.completion_details.audio", Field::OutputAudio, Read::Plain),
    ("llm.cost.prompt", Field::CostInput, Read::Plain),
    ("llm.cost.completion", Field::CostOutput, Read::Plain),
    ("llm.cost.total", Field::CostTotal, Read::Plain),
    ("session.id", Field::Session, Read::Plain),
    ("user.id", Field::User, Read::Plain),
    ("tag.tags", Field::Tags, Read::Json),
    ("metadata", Field::Metadata, Read::Json),
    ("prompt.id", Field::PromptName, Read::Plain),
    ("llm.prompt_template.version", Field::PromptVersion, Read::Plain),
    ("llm.finish_reason", Field::FinishReasons, Read::Plain),
];

/// Name of the event that marks the first token.
pub(super) const FIRST_TOKEN_EVENT: &str = "First Token Stream Event";

pub(super) fn kind(span_kind: &str) -> Kind {
    match span_kind {
        "AGENT" => Kind::Agent,
        "LLM" => Kind::Generation,
        "TOOL" => Kind::Tool,
        "GUARDRAIL" => Kind::Guardrail,
        "RETRIEVER" => Kind::Retriever,
        "EMBEDDING" => Kind::Embedding,
        "RERANKER" => Kind::Reranker,
        "CHAIN" | "PROMPT" => Kind::Chain,
        "EVALUATOR" => Kind::Evaluator,
        _ => Kind::Custom,
    }
}

/// Whether the parameters are those of the answer, so that their model is not the one that was asked for.
pub(super) fn repeats_the_answer(scope: &str) -> bool {
    scope == AGENTS_SCOPE
}

/// What its bridge for the Agents SDK says in other words: a handoff is a tool from an agent to an agent, the trace is an agent
/// without a name, and a turn has only its name.
pub(super) fn refine(slots: &Slots<'_>, facts: &mut Facts) {
    let name = &slots.detail.name;
    match facts.kind {
        Kind::Tool if name.starts_with("handoff to ") => {
            facts.kind = Kind::Handoff;
            let agent =
                |payload: Option<Payload>| payload.map(|payload| Text::from(payload.as_str()));
            facts.handoff_from = agent(facts.input.take());
            facts.handoff_to = agent(facts.output.take())
                .or_else(|| name.strip_prefix("handoff to ").map(Text::from));
            facts.agent.clone_from(&facts.handoff_from);
            facts.tool = None;
        }
        Kind::Guardrail => facts.guardrail = Some(name.clone()),
        Kind::Agent if facts.agent.is_none() && slots.is_root && &*slots.scope == AGENTS_SCOPE => {
            facts.kind = Kind::Chain;
            facts.workflow = Some(name.clone());
        }
        Kind::Chain if &*slots.scope == AGENTS_SCOPE && &**name == "turn" => {
            facts.sdk_span_type = Some(Text::from_static("turn"));
        }
        _ => (),
    }
}
