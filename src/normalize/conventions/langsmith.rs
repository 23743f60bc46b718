//! LangSmith's OpenTelemetry export. It sets `gen_ai.operation.name` to `chat` on prompt templates too, so its own kind comes first.

use super::table::{Field, Read, Rule};
use crate::span::Kind;

/// Scope of its SDKs.
pub(super) const SCOPE: &str = "langsmith";

pub(super) const RULES: &[Rule] = &[
    ("langsmith.span.kind", Field::LangSmithKind, Read::Plain),
    ("langsmith.metadata.langgraph_node", Field::Agent, Read::Plain),
    ("langsmith.metadata.ls_provider", Field::Provider, Read::Plain),
    ("langsmith.metadata.ls_model_name", Field::RequestModel, Read::Plain),
    ("langsmith.usage_metadata", Field::LangSmithUsage, Read::Json),
    ("gen_ai.usage_metadata", Field::LangSmithUsage, Read::Json),
    ("usage_metadata", Field::LangSmithUsage, Read::Json),
    ("langsmith.metadata.session_id", Field::Session, Read::Plain),
    ("langsmith.metadata.thread_id", Field::Session, Read::Plain),
    ("langsmith.metadata.conversation_id", Field::Session, Read::Plain),
    ("langsmith.metadata.user_id", Field::User, Read::Plain),
    ("langsmith.span.tags", Field::Tags, Read::Commas),
];

/// Metadata of the run.
pub(super) const METADATA_PREFIX: &str = "langsmith.metadata.";

pub(super) fn kind(span_kind: &str) -> Kind {
    match span_kind {
        "llm" => Kind::Generation,
        "tool" => Kind::Tool,
        "retriever" => Kind::Retriever,
        "embedding" => Kind::Embedding,
        "chain" | "prompt" | "parser" => Kind::Chain,
        _ => Kind::Custom,
    }
}
