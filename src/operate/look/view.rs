//! A trace as a tree of spans, for people and programs. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::Turn;
use super::read::{Read, TraceState};
use crate::index::TraceSummary;
use crate::span::{Span, SpanId, Text};
use crate::support::number::as_f64;

/// Maximum indentation; deeper spans are not indented further.
const INDENTS_MAX: usize = 40;

/// A trace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// Its summary.
    pub summary: TraceSummary,
    /// Its spans: each after its parent, siblings in the order of their starts. Empty for a document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<SpanView>,
    /// Its conversation. Empty for a document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conversation: Vec<Turn>,
    /// The requested span with all of its contents, as a JSON line. `None` for a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Value>,
    /// Addresses at which sinks show the trace, or the requested span, in a browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Number of items in its records that are gone or damaged.
    pub unreadable: u64,
    /// The trace in the requested form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// The address of a trace in a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The sink.
    pub sink: String,
    /// An address for a browser: http or https, without credentials.
    pub url: String,
}

/// A span.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpanView {
    /// Its id: 16 digits.
    pub span_id: String,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// Number of its ancestors.
    pub depth: usize,
    /// Whether its parent was not received, or it is its own ancestor; it is then shown at the top level.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_astray: bool,
    /// The kind of work.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The agent of the span or its nearest ancestor with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Start time, in nanoseconds since 1970.
    pub start_unix_nano: u64,
    /// Duration in nanoseconds.
    pub duration_ns: u64,
    /// Input tokens, if they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Output tokens, if they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Cost in US dollars, if it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// The error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Returns the spans of a trace, in order.
pub(super) fn spans(read: &Read, known: &TraceState) -> Vec<SpanView> {
    let all: Vec<&Span> = read.spans().collect();
    let placed = in_order(&all).0.into_iter().filter_map(|(at, depth, is_astray)| {
        let span = all.get(at)?;
        Some(SpanView { depth, is_astray, ..SpanView::of(span, known) })
    });
    placed.collect()
}

/// Orders spans, each after its parent, with its depth and whether it is astray. Also returns how many of them, at the end, are in cycles
/// or below one. The walk is iterative, so depth only costs memory.
pub(super) fn in_order(spans: &[&Span]) -> (Vec<(usize, usize, bool)>, usize) {
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
    let mut walk = |order: &mut Vec<_>, (top, is_astray)| {
        let mut waiting = vec![(top, 0, is_astray)];
        while let Some((at, depth, is_astray)) = waiting.pop() {
            let Some(is_seen @ false) = seen.get_mut(at) else { continue };
            *is_seen = true;
            order.push((at, depth, is_astray));
            let children = below.remove(&at).unwrap_or_default().into_iter().rev();
            waiting.extend(children.map(|child| (child, depth + 1, false)));
        }
    };
    for top in tops {
        walk(&mut order, top);
    }
    let hanging = order.len();
    // Cycles follow the spans that are reachable from the top, each from its first span on.
    for at in by_start {
        walk(&mut order, (at, true));
    }
    let in_circles = order.len() - hanging;
    (order, in_circles)
}

impl TraceView {
    /// Returns the facts of the whole trace, by name.
    pub fn head(&self) -> Vec<(&'static str, String)> {
        let TraceSummary { session, user, agents, tools, models, .. } = &self.summary;
        let TraceSummary { input_tokens, output_tokens, spans, errors, .. } = self.summary;
        let said = [
            ("trace", self.summary.trace_id.clone()),
            ("name", self.summary.name.clone()),
            ("session", session.clone().unwrap_or_default()),
            ("user", user.clone().unwrap_or_default()),
            ("start", self.summary.start.clone()),
            ("took", duration_text(self.summary.duration_ns)),
            ("spans", format!("{spans}, {errors} failed")),
            ("tokens", format!("{input_tokens} in, {output_tokens} out")),
            ("cost", self.summary.cost_usd.map(dollars_text).unwrap_or_default()),
            ("agents", agents.join(", ")),
            ("tools", tools.join(", ")),
            ("models", models.join(", ")),
        ];
        let links = self.links.iter().map(|Link { sink, url }| ("link", format!("{sink}: {url}")));
        let said = said.into_iter().filter(|(_, value)| !value.is_empty()).chain(links);
        said.map(|(name, value)| (name, one_line(&value, usize::MAX))).collect()
    }
}

/// Returns the beginning of a text on one line, with `...` if there is more.
pub fn one_line(text: &str, letters_max: usize) -> String {
    let end = text.char_indices().nth(letters_max).map_or(text.len(), |(end, _)| end);
    let (said, rest) = text.split_at_checked(end).unwrap_or_default();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if rest.is_empty() { said } else { said + "..." }
}

/// Formats an amount of money. The cost of one call has many decimals. An empty sum is -0.
pub(super) fn dollars_text(usd: f64) -> String {
    format!("${:.6}", usd + 0.0)
}

impl SpanView {
    fn of(span: &Span, TraceState { contexts, prices }: &TraceState) -> Self {
        let context = contexts.get(&span.trace_id);
        let (facts, tokens) = (span.facts(), prices.tokens_of(context, span));
        let text = |text: &Option<Text>| text.as_ref().map(ToString::to_string);
        let agent = context.and_then(|context| context.agents.get(&span.span_id));
        Self {
            span_id: span.span_id.to_string(),
            parent_span_id: span.parent_id.map(|parent| parent.to_string()),
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
            ..Self::default()
        }
    }
}

/// Formats the tree as lines of text: start relative to the trace, duration, what it was, tokens, cost and error. Names are unchanged; the
/// caller must make them safe for a terminal.
pub fn tree_text(view: &TraceView) -> String {
    let mut text = String::new();
    for span in &view.spans {
        let after_ns = span.start_unix_nano.saturating_sub(view.summary.start_unix_nano);
        let (after, took) = (duration_text(after_ns), duration_text(span.duration_ns));
        let indent = " ".repeat(2 * span.depth.min(INDENTS_MAX));
        let name = one_line(&span.name, usize::MAX);
        write!(text, "{after:>9} {took:>9}  {indent}{} {name}", span.kind).ok();
        if let Some(model) = span.model.as_ref().filter(|model| !span.name.contains(*model)) {
            write!(text, " {}", one_line(model, usize::MAX)).ok();
        }
        if let (Some(input), output) = (span.input_tokens, span.output_tokens.unwrap_or(0)) {
            write!(text, "  {input} > {output} tokens").ok();
        }
        if let Some(cost) = span.cost_usd {
            write!(text, "  {}", dollars_text(cost)).ok();
        }
        if span.is_astray {
            text.push_str("  (its parent was not received, or it is its own ancestor)");
        }
        if let Some(error) = &span.error {
            write!(text, "  ERROR {}", one_line(error, usize::MAX)).ok();
        }
        text.push('\n');
    }
    text
}

/// Formats a length of time in a suitable unit.
pub(super) fn duration_text(ns: u64) -> String {
    let ns = as_f64(ns);
    match ns {
        ns if ns < 1e6 => format!("{:.0}us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1}ms", ns / 1e6),
        ns if ns < 120e9 => format!("{:.2}s", ns / 1e9),
        ns => format!("{:.1}m", ns / 60e9),
    }
}
