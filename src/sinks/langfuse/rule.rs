//! Which spans go to Langfuse, where the user wants only those that have to do with models. Pure.
//!
//! Langfuse's own SDKs since version 4 leave out what other instrumentation of the app brings (HTTP, databases), which would bury the
//! agents and fill the list of traces with requests that asked no model.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::Delivery;
use crate::span::{Batch, Convention, Kind, Span, SpanId, TraceId};

/// Which spans go to Langfuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// Those of agents and models: of the Agents SDK, of Langfuse's SDKs, and whatever has a scope or an attribute of a convention for
    /// models, tools and agents.
    Llm,
}

/// Whether a span has nothing to do with models.
pub(super) fn is_infrastructure(span: &Span) -> bool {
    if !span.is_otlp() || span.is_synthetic() {
        return false;
    }
    let facts = span.facts();
    facts.convention == Convention::Generic && facts.kind == Kind::Custom
}

/// Spans that are left out of the requests of a delivery, by which those below them are known: each with the span above it, where that
/// is of this app. Above a root, and where a request came in, there is none.
#[derive(Debug, Default)]
pub(super) struct LeftOut(HashMap<(TraceId, SpanId), Option<SpanId>>);

/// OTLP's kinds of spans where a request or a message comes in from elsewhere.
const SERVER: i32 = 2;
const CONSUMER: i32 = 5;

impl LeftOut {
    /// What is left out of the requests that a delivery is made of; nothing where all spans are kept.
    pub(super) fn of(delivery: &Delivery, keep: Keep) -> Self {
        if keep == Keep::All {
            return Self::default();
        }
        let spans = delivery.batches().flat_map(Batch::spans);
        let left_out = spans.filter(|span| is_infrastructure(span)).map(|span| {
            let comes_in = [SERVER, CONSUMER].contains(&span.detail().kind);
            let above = span.parent_id.filter(|_| !comes_in);
            ((span.trace_id, span.span_id), above)
        });
        Self(left_out.collect())
    }

    /// Whether a span is the first of its app that Langfuse gets: all above it is left out. Langfuse lists traces by such spans, and
    /// by those without a parent. It is known only of what came in the same requests.
    pub(super) fn has_all_above(&self, span: &Span) -> bool {
        let mut above = span.parent_id;
        // Parents may form a circle; no chain is longer than there are spans.
        for _ in 0..self.0.len() {
            let left_out = above.and_then(|parent| self.0.get(&(span.trace_id, parent)));
            match left_out {
                Some(Some(next)) => above = Some(*next),
                found => return found.is_some(),
            }
        }
        false
    }
}
