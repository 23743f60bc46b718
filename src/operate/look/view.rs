//! A trace as a tree of spans, for people and programs. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::conversation::{Turn, conversation};
use super::read::{Found, Read};
use crate::feed::Traces;
use crate::index::{Index, TraceSummary};
use crate::span::{
    Payload, Span, SpanId, TraceContext, TraceContexts, TraceId, TraceNeeds, tokens_of,
};

/// How much of what went in or came out of a span is shown.
const PAYLOAD_BYTES_MAX: usize = 2 << 10;
/// How much is shown of all spans of a trace; of further ones nothing.
const PAYLOADS_BYTES_MAX: usize = 16 << 20;
/// Deeper spans are not moved further to the right.
const INDENTS_MAX: usize = 40;

/// A trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// In short.
    pub summary: TraceSummary,
    /// Its spans: each behind the one that it is below, siblings in the order of their starts. None beside a document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<SpanView>,
    /// What was said. None beside a document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conversation: Vec<Turn>,
    /// Items of its records that are gone or damaged.
    pub unreadable: u64,
    /// The trace in the form that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// A span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanView {
    /// Its id: 16 digits.
    pub span_id: String,
    /// The one above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// How many are above it.
    pub depth: usize,
    /// Whether the one above it was not received, or it is below itself: then it stands at the top.
    pub is_astray: bool,
    /// What kind of work it is.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The agent at or above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_nano: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Tokens read, where they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens written, where they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// What it cost, where that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What went in; cut where it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What came out; cut where it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

/// A trace as it was read, and what is known of it as a whole.
pub(super) fn view(trace: TraceId, read: &Read) -> (TraceView, TraceContexts) {
    let needs = TraceNeeds { agents: true, ..TraceNeeds::AS_KNOWN };
    let (index, mut traces) = (Index::default(), Traces::new(needs, 0));
    for Found { start, batch, .. } in &read.records {
        index.feed(batch, start.position, true);
        traces.feed(batch, start.position);
    }
    let contexts = traces.contexts(read.items());
    let view = TraceView {
        summary: index.summary(trace).unwrap_or_default(),
        spans: spans(read, contexts.get(&trace)),
        conversation: conversation(read.spans()),
        unreadable: read.unreadable,
        document: None,
    };
    (view, contexts)
}

fn spans(read: &Read, context: Option<&TraceContext>) -> Vec<SpanView> {
    let all: Vec<&Span> = read.spans().collect();
    let mut room = PAYLOADS_BYTES_MAX;
    let placed = in_order(&all).into_iter().filter_map(|(at, depth, is_astray)| {
        let span = all.get(at)?;
        Some(SpanView { depth, is_astray, ..SpanView::of(span, context, &mut room) })
    });
    placed.collect()
}

/// The places of spans with how deep they are and whether they are astray: each behind the one above it. No depth takes more than memory.
fn in_order(spans: &[&Span]) -> Vec<(usize, usize, bool)> {
    let mut first: HashMap<SpanId, usize> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        first.entry(span.span_id).or_insert(at);
    }
    let mut by_start: Vec<usize> = (0..spans.len()).collect();
    by_start.sort_by_key(|at| spans.get(*at).map(|span| span.start_ns));
    let mut below: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for at in by_start.iter().copied() {
        let parent = spans.get(at).and_then(|span| span.parent_id);
        match parent.and_then(|parent| first.get(&parent)) {
            Some(parent) => below.entry(*parent).or_default().push(at),
            None => tops.push((at, parent.is_some())),
        }
    }
    let (mut order, mut seen) = (Vec::new(), vec![false; spans.len()]);
    // Behind what hangs together from the top come the circles, each from its first on.
    let circles = by_start.into_iter().map(|at| (at, true));
    for (top, is_astray) in tops.into_iter().chain(circles) {
        let mut waiting = vec![(top, 0, is_astray)];
        while let Some((at, depth, is_astray)) = waiting.pop() {
            let Some(is_seen @ false) = seen.get_mut(at) else { continue };
            *is_seen = true;
            order.push((at, depth, is_astray));
            let children = below.remove(&at).unwrap_or_default().into_iter().rev();
            waiting.extend(children.map(|child| (child, depth + 1, false)));
        }
    }
    order
}

impl SpanView {
    fn of(span: &Span, context: Option<&TraceContext>, room: &mut usize) -> Self {
        let (facts, tokens) = (span.facts_again(), tokens_of(context, span));
        let text = |text: &Option<crate::span::Text>| text.as_ref().map(ToString::to_string);
        let agent = context.and_then(|context| context.agents.get(&span.span_id));
        let mut shown = |payload: &Option<Payload>| {
            let payload = payload.as_ref()?.as_str();
            let end = payload.floor_char_boundary(PAYLOAD_BYTES_MAX.min(*room));
            *room -= end;
            payload.get(..end).filter(|shown| !shown.is_empty()).map(str::to_owned)
        };
        Self {
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent_id.map(|parent| parent.to_string()),
            depth: 0,
            is_astray: false,
            kind: facts.kind.as_str().to_owned(),
            name: facts.name.to_string(),
            agent: agent.map(ToString::to_string).or_else(|| text(&facts.agent)),
            tool: text(&facts.tool),
            model: text(&facts.response_model).or_else(|| text(&facts.request_model)),
            start_unix_nano: span.start_ns,
            duration_ns: span.duration_ns(),
            input_tokens: tokens.own.input,
            output_tokens: tokens.own.output,
            cost_usd: tokens.own_cost().total,
            error: facts.error.as_ref().map(|error| match (&error.kind, &*error.message) {
                (Some(kind), "") => kind.to_string(),
                (Some(kind), message) => format!("{kind}: {message}"),
                (None, message) => message.to_owned(),
            }),
            input: shown(&facts.input),
            output: shown(&facts.output),
        }
    }
}

/// The tree as lines of text: when each began after the trace did, how long it took, what it was, and its tokens, cost and error.
/// Names are as they came: whoever shows them on a terminal makes them harmless first.
pub fn tree_text(view: &TraceView) -> String {
    let mut text = String::new();
    for span in &view.spans {
        let after_ns = span.start_unix_nano.saturating_sub(view.summary.start_unix_nano);
        let after = if span.start_unix_nano == 0 { 0 } else { after_ns };
        let (after, took) = (duration_text(after), duration_text(span.duration_ns));
        let indent = " ".repeat(2 * span.depth.min(INDENTS_MAX));
        let name = span.name.replace(['\n', '\r'], " ");
        write!(text, "{after:>9} {took:>9}  {indent}{} {name}", span.kind).ok();
        if let Some(model) = span.model.as_ref().filter(|model| !span.name.contains(*model)) {
            write!(text, " {}", model.replace(['\n', '\r'], " ")).ok();
        }
        if let (Some(input), output) = (span.input_tokens, span.output_tokens.unwrap_or(0)) {
            write!(text, "  {input} > {output} tokens").ok();
        }
        if let Some(cost) = span.cost_usd {
            write!(text, "  ${cost:.6}").ok();
        }
        if span.is_astray {
            text.push_str("  (its parent was not received, or it is below itself)");
        }
        if let Some(error) = &span.error {
            write!(text, "  ERROR {}", error.replace(['\n', '\r'], " ")).ok();
        }
        text.push('\n');
    }
    text
}

/// A length of time in the unit that suits it.
pub fn duration_text(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let ns = ns as f64;
    match ns {
        ns if ns < 1e6 => format!("{:.0}us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1}ms", ns / 1e6),
        ns if ns < 120e9 => format!("{:.2}s", ns / 1e9),
        ns => format!("{:.1}m", ns / 60e9),
    }
}
