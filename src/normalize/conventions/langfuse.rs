//! Langfuse's own SDKs. Values of metadata are JSON, and so is the completion's start time.

use super::table::{Field, Read, Rule};
use crate::span::Kind;

/// Scope of its SDKs.
pub(super) const SCOPE: &str = "langfuse-sdk";

pub(super) const RULES: &[Rule] = &[
    ("langfuse.observation.type", Field::LangfuseType, Read::Plain),
    ("langfuse.observation.model.name", Field::ResponseModel, Read::Plain),
    ("langfuse.observation.model.parameters", Field::Parameters, Read::Json),
    ("langfuse.observation.input", Field::Input, Read::Json),
    ("langfuse.trace.input", Field::Input, Read::Json),
    ("langfuse.observation.output", Field::Output, Read::Json),
    ("langfuse.trace.output", Field::Output, Read::Json),
    ("langfuse.observation.usage_details", Field::LangfuseUsage, Read::Json),
    ("langfuse.observation.cost_details", Field::CostDetails, Read::Json),
    ("langfuse.observation.completion_start_time", Field::CompletionStart, Read::Json),
    ("langfuse.observation.level", Field::Level, Read::Plain),
    ("langfuse.observation.status_message", Field::ErrorMessage, Read::Plain),
    ("langfuse.observation.prompt.name", Field::PromptName, Read::Plain),
    ("langfuse.observation.prompt.version", Field::PromptVersion, Read::Plain),
    ("langfuse.session.id", Field::Session, Read::Plain),
    ("session.id", Field::Session, Read::Plain),
    ("langfuse.user.id", Field::User, Read::Plain),
    ("user.id", Field::User, Read::Plain),
    // Its OpenAI wrapper has no other place for these.
    ("langfuse.observation.metadata.langfuse_session_id", Field::Session, Read::Json),
    ("langfuse.observation.metadata.langfuse_user_id", Field::User, Read::Json),
    ("langfuse.trace.tags", Field::Tags, Read::Json),
    ("langfuse.observation.metadata.langfuse_tags", Field::Tags, Read::Json),
    ("langfuse.trace.name", Field::Workflow, Read::Plain),
    ("langfuse.environment", Field::Environment, Read::Plain),
    ("langfuse.release", Field::Release, Read::Plain),
];

/// Metadata of the trace and of the observation; each value is JSON.
pub(super) const METADATA_PREFIXES: [&str; 2] =
    ["langfuse.trace.metadata.", "langfuse.observation.metadata."];

pub(super) fn kind(observation_type: &str) -> Kind {
    match observation_type {
        "agent" => Kind::Agent,
        "generation" => Kind::Generation,
        "tool" => Kind::Tool,
        "guardrail" => Kind::Guardrail,
        "retriever" => Kind::Retriever,
        "embedding" => Kind::Embedding,
        "chain" => Kind::Chain,
        "evaluator" => Kind::Evaluator,
        "event" => Kind::Event,
        // `span` is its plain type.
        _ => Kind::Custom,
    }
}
