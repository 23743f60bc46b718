//! Formats spans as lines for people.

use std::fmt::Write as _;
use std::sync::Arc;

use super::options::{Format, Options};
use crate::prices::Prices;
use crate::sinks::Delivery;
use crate::sinks::jsonl::Lines;
use crate::span::{Facts, Item, STATUS_ERROR, Span, TraceObject, Usage, tokens_of};
use crate::support::rfc3339;
use crate::support::terminal::{Paint, harmless_line};

/// The style of the output.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) options: Options,
    pub(super) paint: Paint,
    pub(super) prices: Arc<Prices>,
}

/// Formats a delivery.
pub(super) fn encode(style: &Style, delivery: &Delivery) -> Vec<u8> {
    let mut out = Vec::new();
    let mut lines = Lines::of(delivery, &style.prices);
    for (batch, item) in delivery.items() {
        match (style.options.format, item) {
            (Format::Json, _) => lines.write(&mut out, batch, item),
            (Format::Pretty, Item::Span(span)) => {
                let tokens = tokens_of(delivery.context(span.trace_id), span);
                out.extend_from_slice(pretty(style, span, tokens.own).as_bytes());
            }
            (Format::Pretty, Item::Trace(trace)) => {
                out.extend_from_slice(pretty_trace(style, trace).as_bytes());
            }
        }
    }
    out
}

// Select Graphic Rendition (SGR) codes of ECMA-48.
const DIM: &str = "2";
const BOLD: &str = "1";
const RED: &str = "31";
const CYAN: &str = "36";

/// The separator between fields.
const GAP: &str = "  ";

/// The width of the longest kind, `transcription`.
const KIND_WIDTH: usize = 13;

fn pretty(style: &Style, span: &Span, usage: &Usage) -> String {
    let (detail, facts) = (span.detail(), span.facts());
    let name = if facts.name.is_empty() { &detail.name } else { &facts.name };
    let agent = facts.agent.as_ref().filter(|agent| !name.contains(&***agent));
    let model = facts.response_model.as_ref().or(facts.request_model.as_ref());
    let error = facts.error.as_ref().map(|error| &error.message);
    let error = error.or((detail.status_code == STATUS_ERROR).then_some(&detail.status_message));
    let fields = [
        Some(style.paint.with(DIM, &time_of_day(span.start_ns))),
        Some(style.paint.with(CYAN, &format!("{:KIND_WIDTH$}", facts.kind.as_str()))),
        Some(style.paint.with(BOLD, &harmless_line(name))),
        Some(duration(span.duration_ns())),
        agent.map(|agent| format!("agent {}", harmless_line(agent))),
        model.map(|model| harmless_line(model)),
        tokens(usage),
        Some(style.paint.with(DIM, &span.trace_id.to_string())),
        error.map(|message| style.paint.with(RED, &format!("ERROR {}", harmless_line(message)))),
    ];
    let mut line = fields.into_iter().flatten().collect::<Vec<_>>().join(GAP);
    line.push('\n');
    if style.options.payloads {
        line += &payloads(style, facts);
    }
    line
}

fn pretty_trace(style: &Style, trace: &TraceObject) -> String {
    let name = harmless_line(trace.workflow.as_deref().unwrap_or_default());
    let fields = [
        style.paint.with(DIM, "--:--:--.---"),
        style.paint.with(CYAN, &format!("{:KIND_WIDTH$}", "trace")),
        style.paint.with(BOLD, &name),
        style.paint.with(DIM, &trace.trace_id.to_string()),
    ];
    fields.join(GAP) + "\n"
}

fn payloads(style: &Style, facts: &Facts) -> String {
    let mut lines = String::new();
    for (title, payload) in [("in ", &facts.input), ("out", &facts.output)] {
        let Some(payload) = payload else { continue };
        for line in payload.as_str().lines() {
            // Writing to a string does not fail.
            writeln!(lines, "    {} {}", style.paint.with(DIM, title), harmless_line(line)).ok();
        }
    }
    lines
}

/// Formats a time as `05:15:09.529` in UTC.
fn time_of_day(unix_ns: u64) -> String {
    let text = rfc3339::text(unix_ns);
    let clock = text.split_once('T').map_or("", |(_, clock)| clock);
    clock.chars().take("05:15:09.529".len()).collect()
}

/// Formats a duration with about three digits and a suitable unit.
fn duration(nanoseconds: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let seconds = nanoseconds as f64 / 1e9;
    match nanoseconds {
        0 => "-".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{:.0}us", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.0}ms", seconds * 1e3),
        1_000_000_000..60_000_000_000 => format!("{seconds:.2}s"),
        _ => format!("{}m{:02}s", nanoseconds / 60_000_000_000, nanoseconds / 1_000_000_000 % 60),
    }
}

/// Formats usage as `812 (512 cached) > 96 tokens`.
fn tokens(usage: &Usage) -> Option<String> {
    let count = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
    usage.input.or(usage.output)?;
    let mut text = count(usage.input);
    if let Some(cached) = usage.cached_read.filter(|&cached| cached != 0) {
        // Writing to a string does not fail.
        write!(text, " ({cached} cached)").ok();
    }
    Some(text + &format!(" > {} tokens", count(usage.output)))
}
