//! MLflow. Every value is JSON in a string, also plain names: `"\"CHAT_MODEL\""`.

use super::table::{Field, Read, Rule};
use crate::span::Kind;

/// Scopes of its SDK begin with this.
pub(super) const SCOPE_PREFIX: &str = "mlflow.";

pub(super) const RULES: &[Rule] = &[
    ("mlflow.spanType", Field::MlflowKind, Read::Json),
    ("mlflow.llm.model", Field::ResponseModel, Read::Json),
    ("mlflow.llm.provider", Field::Provider, Read::Json),
    ("mlflow.message.format", Field::Provider, Read::Json),
    ("mlflow.spanInputs", Field::Input, Read::Json),
    ("mlflow.spanOutputs", Field::Output, Read::Json),
    ("mlflow.chat.tools", Field::ToolDefinitions, Read::Json),
    ("mlflow.chat.tokenUsage", Field::MlflowUsage, Read::Json),
    ("mlflow.llm.cost", Field::CostDetails, Read::Json),
    ("mlflow.trace.session", Field::Session, Read::Json),
    ("mlflow.trace.user", Field::User, Read::Json),
];

pub(super) fn kind(span_type: &str) -> Kind {
    match span_type {
        "AGENT" => Kind::Agent,
        "LLM" | "CHAT_MODEL" => Kind::Generation,
        "TOOL" => Kind::Tool,
        "GUARDRAIL" => Kind::Guardrail,
        "RETRIEVER" | "MEMORY" => Kind::Retriever,
        "EMBEDDING" => Kind::Embedding,
        "RERANKER" => Kind::Reranker,
        "CHAIN" | "WORKFLOW" | "TASK" | "PARSER" => Kind::Chain,
        "EVALUATOR" => Kind::Evaluator,
        _ => Kind::Custom,
    }
}
