//! A trace as a tree of spans, for people and programs. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::Turn;
use super::read::{Known, Read};
use crate::index::TraceSummary;
use crate::span::{Span, SpanId, Text};
use crate::support::number::as_f64;

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
    /// The one span that was asked for, with all that it holds, as a JSON line. None beside a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<Value>,
    /// Where sinks show it, or the span that was asked for, in a browser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Items of its records that are gone or damaged.
    pub unreadable: u64,
    /// The trace in the form that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

/// Where a trace can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The sink that has it.
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
    /// The one above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// How many are above it.
    pub depth: usize,
    /// Whether the one above it was not received, or it is below itself: then it stands at the top.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
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
}

/// The spans of a trace, in order.
pub(super) fn spans(read: &Read, known: &Known) -> Vec<SpanView> {
    let all: Vec<&Span> = read.spans().collect();
    let placed = in_order(&all).0.into_iter().filter_map(|(at, depth, is_astray)| {
        let span = all.get(at)?;
        Some(SpanView { depth, is_astray, ..SpanView::of(span, known) })
    });
    placed.collect()
}

/// The places of spans with how deep they are and whether they are astray: each behind the one above it. And how many of them, the last
/// ones, do not hang together with any top: they are below themselves, or below one that is. No depth takes more than memory.
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
    // Behind what hangs together from the top come the circles, each from its first on.
    for at in by_start {
        walk(&mut order, (at, true));
    }
    let in_circles = order.len() - hanging;
    (order, in_circles)
}

impl TraceView {
    /// What there is to say of the whole, in short, by name.
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

/// The beginning of a text on one line, and `...` where there is more of it.
pub fn one_line(text: &str, letters_max: usize) -> String {
    let end = text.char_indices().nth(letters_max).map_or(text.len(), |(end, _)| end);
    let (said, rest) = text.split_at_checked(end).unwrap_or_default();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if rest.is_empty() { said } else { said + "..." }
}

/// An amount of money: what one call costs has digits far behind the point. The sum of nothing is -0.
pub fn dollars_text(usd: f64) -> String {
    format!("${:.6}", usd + 0.0)
}

impl SpanView {
    fn of(span: &Span, Known { contexts, prices }: &Known) -> Self {
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

/// The tree as lines of text: when each began after the trace did, how long it took, what it was, and its tokens, cost and error.
/// Names are as they came: whoever shows them on a terminal makes them harmless first.
pub fn tree_text(view: &TraceView) -> String {
    let mut text = String::new();
    for span in &view.spans {
        let after_ns = span.start_unix_nano.saturating_sub(view.summary.start_unix_nano);
        let after = if span.start_unix_nano == 0 { 0 } else { after_ns };
        let (after, took) = (duration_text(after), duration_text(span.duration_ns));
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

/// A length of time in the unit that suits it.
pub fn duration_text(ns: u64) -> String {
    let ns = as_f64(ns);
    match ns {
        ns if ns < 1e6 => format!("{:.0}us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1}ms", ns / 1e6),
        ns if ns < 120e9 => format!("{:.2}s", ns / 1e9),
        ns => format!("{:.1}m", ns / 60e9),
    }
}
