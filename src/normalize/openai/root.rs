//! Builds the synthetic root of a trace whose spans have no common root.
//!
//! The Agents SDK describes a trace in an object without times and does not report its end. The root is built from the facts of its spans
//! and of its object: the row `(trace record)` of the mapping to OTLP.

use std::sync::Arc;

use bytes::Bytes;

use super::detail::{self, FLAG_SAMPLED, KIND_INTERNAL};
use super::facts;
use crate::span::{
    Content, Convention, Detail, Facts, Kind, Scope, Span, SpanHeader, SpanId, Text, TraceContext,
    TraceId, keys,
};

/// What the root needs from one of its spans in addition to the trace context.
#[derive(Debug, Clone)]
pub struct RootSource {
    /// The trace.
    pub trace_id: TraceId,
    /// The trace's id as the client wrote it.
    pub sdk_id: Text,
    /// The root's id.
    pub span_id: SpanId,
    /// The scope of the spans.
    pub scope: Arc<Scope>,
}

impl RootSource {
    /// Collects it from a span without a parent. It shares no memory with the request.
    pub fn of(span: &Span, root: SpanId) -> Self {
        Self {
            trace_id: span.trace_id,
            sdk_id: Text::from(sdk_trace(span).unwrap_or_default()),
            span_id: root,
            scope: Arc::clone(&span.scope),
        }
    }
}

/// Returns the trace's id as the client wrote it.
pub(super) fn sdk_trace(span: &Span) -> Option<&str> {
    match &span.trace {
        Some(trace) => Some(&trace.sdk_id),
        None => span.head().agents_sdk.as_ref().map(|agents_sdk| &*agents_sdk.trace),
    }
}

/// Builds the root from what is known of the trace, from the first start to the last end.
pub fn root_span(source: &RootSource, context: &TraceContext) -> Span {
    let outline = SpanHeader {
        trace_id: source.trace_id,
        span_id: source.span_id,
        parent_id: None,
        start_ns: context.start_ns,
        end_ns: context.end_ns,
        wire: Bytes::new(),
    };
    let facts = root_facts(source.span_id, context);
    let detail = root_detail(source, context, facts.name.clone());
    Span::synthetic(outline, Arc::clone(&source.scope), detail, facts)
}

fn root_facts(root: SpanId, context: &TraceContext) -> Facts {
    let Content { input, output } = context.contents.get(&root).cloned().unwrap_or_default();
    Facts {
        kind: Kind::Chain,
        convention: Convention::OpenAiAgents,
        name: facts::name("invoke_workflow", context.workflow.as_ref()),
        input,
        output,
        session: context.session.clone(),
        user: context.user.clone(),
        workflow: context.workflow.clone(),
        tags: context.tags.clone(),
        metadata: context.metadata.clone(),
        environment: context.environment.clone(),
        release: context.release.clone(),
        ..Facts::default()
    }
}

fn root_detail(source: &RootSource, context: &TraceContext, name: Text) -> Detail {
    let mut attributes = detail::attributes([
        (keys::OPENAI_AGENTS_TRACE_ID, Some(source.sdk_id.clone())),
        (keys::OPENINFERENCE_SPAN_KIND, Some(Text::from_static("CHAIN"))),
        (keys::GEN_AI_OPERATION_NAME, Some(Text::from_static("invoke_workflow"))),
        (keys::GEN_AI_WORKFLOW_NAME, context.workflow.clone()),
        (keys::GEN_AI_CONVERSATION_ID, context.session.clone()),
        (keys::SESSION_ID, context.session.clone()),
    ]);
    if let Some(metadata) = context.trace.as_ref().and_then(|trace| trace.metadata.as_ref()) {
        attributes.extend(detail::trace_metadata(metadata));
    }
    Detail { name, kind: KIND_INTERNAL, flags: FLAG_SAMPLED, attributes, ..Detail::default() }
}
