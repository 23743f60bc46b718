//! Short descriptions of traces, of a few hundred words, for language models. Pure.
//!
//! A whole trace has tens of thousands of tokens. So each answer is a summary, with the console's address where a person sees the rest, and
//! the ids with which the model can ask for single spans.

use std::fmt::Write as _;

use super::text::{gaps, rows_table, traces_table, verified_text};
use super::view::{dollars_text, duration_text, one_line};
use super::{SpanView, TraceView, Verified};
use crate::index::{List, Stats};

/// Maximum number of spans listed per trace.
const SPANS_MAX: usize = 30;
/// Deeper spans are only counted.
const DEPTH_MAX: usize = 3;
/// Maximum number of errors listed per trace.
const ERRORS_MAX: usize = 5;
/// Maximum number of characters of a name.
const NAME_MAX: usize = 60;
/// Maximum number of characters of an error, and of the last message.
const TEXT_MAX: usize = 300;
/// Maximum number of characters of a span's input, and of its output.
const PAYLOAD_MAX: usize = 1_500;
/// Columns of a span's line that are included, and their labels.
const SAID: [(&str, &str); 4] = [
    ("input", "input"),
    ("output", "output"),
    ("error", "error_message"),
    ("error data", "error_data"),
];
/// Maximum number of rows of sums.
const ROWS_MAX: usize = 30;

/// Returns the address of a trace in a console such as `http://127.0.0.1:13133`.
fn at(console: &str, id: &str) -> String {
    format!("{console}/ui/traces/{id}")
}

/// Lists traces.
pub fn traces(answer: &List, console: &str) -> String {
    let (shown, count, at) = (answer.traces.len(), answer.count, at(console, "ID"));
    let (gaps, table) = (gaps(&answer.index), traces_table(&answer.traces));
    format!("{shown} of {count} traces, newest first.\n{gaps}{table}Each is at {at}\n")
}

/// Describes one trace: sums, errors, the upper part of its tree and the last message.
pub fn trace(view: &TraceView, console: &str) -> String {
    let mut text = String::new();
    for (name, value) in view.head() {
        writeln!(text, "{name}: {}", one_line(&value, PAYLOAD_MAX)).ok();
    }
    errors(&mut text, view);
    writeln!(text, "spans:").ok();
    let upper = view.spans.iter().filter(|span| span.depth <= DEPTH_MAX);
    let told: Vec<_> = upper.take(SPANS_MAX).collect();
    for span in &told {
        writeln!(text, "{}{}", "  ".repeat(span.depth), span_line(span)).ok();
    }
    more(&mut text, "and", view.spans.len() - told.len(), " below them or behind them");
    if let Some(last) = view.conversation.last() {
        writeln!(text, "last, {} said: {}", last.role, one_line(&last.text, TEXT_MAX)).ok();
    }
    writeln!(text, "{}", at(console, &view.summary.trace_id)).ok();
    text
}

/// Describes one span with its input and output.
pub fn span(view: &TraceView, console: &str) -> String {
    let mut text = String::new();
    for span in &view.spans {
        writeln!(text, "{}", span_line(span)).ok();
    }
    for (what, column) in SAID {
        let said = view.line.as_ref().and_then(|line| line.get(column));
        if let Some(said) = said.filter(|said| !said.is_null()) {
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            writeln!(text, "{what}: {}", one_line(&said, PAYLOAD_MAX)).ok();
        }
    }
    let id = view.spans.first().map_or("", |span| span.span_id.as_str());
    writeln!(text, "{}?span={id}", at(console, &view.summary.trace_id)).ok();
    text
}

/// Describes what went wrong in traces.
pub fn failures(answer: &List, views: &[TraceView], console: &str) -> String {
    let (gaps, table) = (gaps(&answer.index), traces_table(&answer.traces));
    let mut text = format!("{} traces failed; the newest:\n{gaps}{table}", answer.count);
    for view in views {
        writeln!(text, "{}", view.summary.trace_id).ok();
        errors(&mut text, view);
    }
    writeln!(text, "Each is at {}", at(console, "ID")).ok();
    text
}

/// Lists sums.
pub fn stats(answer: &Stats, console: &str) -> String {
    let listed = answer.rows.len().min(ROWS_MAX);
    let table = rows_table(answer.rows.get(..listed).unwrap_or_default());
    let (traces, gaps) = (answer.traces, gaps(&answer.index));
    let mut text = format!("Over {traces} traces, most calls first.\n{gaps}{table}");
    more(&mut text, "and", answer.rows.len() - listed, "");
    writeln!(text, "{console}/ui/agents").ok();
    text
}

/// Describes whether a trace is complete and delivered.
pub fn verified(verified: &Verified, console: &str) -> String {
    format!("{}{}\n", verified_text(verified), at(console, &verified.trace_id))
}

fn span_line(span: &SpanView) -> String {
    let name = one_line(&span.name, NAME_MAX);
    let mut text =
        format!("{} {} \"{name}\" {}", span.span_id, span.kind, duration_text(span.duration_ns));
    if let (Some(input), Some(output)) = (span.input_tokens, span.output_tokens) {
        write!(text, ", tokens {input} in, {output} out").ok();
    }
    if let Some(usd) = span.cost_usd {
        write!(text, ", {}", dollars_text(usd)).ok();
    }
    if span.error.is_some() {
        text.push_str(", FAILED");
    }
    text
}

fn errors(text: &mut String, view: &TraceView) {
    let failed = view.spans.iter().filter_map(|span| Some((span, span.error.as_ref()?)));
    let failed: Vec<_> = failed.collect();
    for (span, error) in failed.iter().take(ERRORS_MAX) {
        let (name, error) = (one_line(&span.name, NAME_MAX), one_line(error, TEXT_MAX));
        writeln!(text, "  error in {} \"{name}\": {error}", span.span_id).ok();
    }
    more(text, "  and", failed.len().saturating_sub(ERRORS_MAX), " errors");
}

/// Notes how many are not listed.
fn more(text: &mut String, and: &str, untold: usize, what: &str) {
    if untold > 0 {
        writeln!(text, "{and} {untold} more{what}").ok();
    }
}
