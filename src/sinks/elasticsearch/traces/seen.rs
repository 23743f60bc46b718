//! What spans and trace objects say that matters to their trace.

use crate::span::{Kind, SpanId, TraceId};

/// What a span says that matters to its trace.
#[derive(Debug, Clone)]
pub(in crate::sinks::elasticsearch) struct Seen<'a> {
    pub(in crate::sinks::elasticsearch) trace: TraceId,
    /// The trace's id in documents.
    pub(in crate::sinks::elasticsearch) trace_name: &'a str,
    pub(in crate::sinks::elasticsearch) span: SpanId,
    /// The span's id in documents.
    pub(in crate::sinks::elasticsearch) span_name: &'a str,
    pub(in crate::sinks::elasticsearch) parent: Option<SpanId>,
    pub(in crate::sinks::elasticsearch) facts: SpanFacts<'a>,
    pub(in crate::sinks::elasticsearch) about_trace: TraceFacts<'a>,
    /// When it was received, in milliseconds since 1970.
    pub(in crate::sinks::elasticsearch) received_ms: u64,
}

/// The part of a span that its trace's summary counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::sinks::elasticsearch) struct SpanFacts<'a> {
    /// In microseconds since 1970; 0 when not said.
    pub(in crate::sinks::elasticsearch) start_us: u64,
    /// In microseconds since 1970; 0 when not said.
    pub(in crate::sinks::elasticsearch) end_us: u64,
    /// When it counts as having happened, which decides its index; in nanoseconds since 1970.
    pub(in crate::sinks::elasticsearch) event_ns: u64,
    pub(in crate::sinks::elasticsearch) kind: Kind,
    pub(in crate::sinks::elasticsearch) is_error: bool,
    /// Whether it is a root of our own, which no summary counts.
    pub(in crate::sinks::elasticsearch) is_synthetic: bool,
    /// What counts.
    pub(in crate::sinks::elasticsearch) usage: Tokens,
    pub(in crate::sinks::elasticsearch) agent: Option<&'a str>,
    pub(in crate::sinks::elasticsearch) tool: Option<&'a str>,
    pub(in crate::sinks::elasticsearch) model: Option<&'a str>,
}

/// Tokens and money.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::sinks::elasticsearch) struct Tokens {
    pub(in crate::sinks::elasticsearch) input: u64,
    pub(in crate::sinks::elasticsearch) output: u64,
    pub(in crate::sinks::elasticsearch) total: u64,
    pub(in crate::sinks::elasticsearch) cost_usd: f64,
}

/// What is said of a trace as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::sinks::elasticsearch) struct TraceFacts<'a> {
    pub(in crate::sinks::elasticsearch) workflow: Option<&'a str>,
    pub(in crate::sinks::elasticsearch) group: Option<&'a str>,
    pub(in crate::sinks::elasticsearch) service: Option<&'a str>,
    /// A JSON object.
    pub(in crate::sinks::elasticsearch) metadata: Option<&'a str>,
}

/// The same, kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::sinks::elasticsearch) struct KeptFacts {
    pub(in crate::sinks::elasticsearch) workflow: Option<Box<str>>,
    pub(in crate::sinks::elasticsearch) group: Option<Box<str>>,
    pub(in crate::sinks::elasticsearch) service: Option<Box<str>>,
    pub(in crate::sinks::elasticsearch) metadata: Option<Box<str>>,
}

impl KeptFacts {
    /// Takes what is not known yet: the first that was said counts. Returns whether there was anything.
    pub(in crate::sinks::elasticsearch) fn join(&mut self, facts: TraceFacts<'_>) -> bool {
        let pairs = [
            (&mut self.workflow, facts.workflow),
            (&mut self.group, facts.group),
            (&mut self.service, facts.service),
            (&mut self.metadata, facts.metadata),
        ];
        let mut is_new = false;
        for (kept, said) in pairs {
            if let Some(said) = said.filter(|said| kept.is_none() && !said.is_empty()) {
                *kept = Some(said.into());
                is_new = true;
            }
        }
        is_new
    }

    /// The same, lent.
    pub(in crate::sinks::elasticsearch) fn lend(&self) -> TraceFacts<'_> {
        TraceFacts {
            workflow: self.workflow.as_deref(),
            group: self.group.as_deref(),
            service: self.service.as_deref(),
            metadata: self.metadata.as_deref(),
        }
    }
}
