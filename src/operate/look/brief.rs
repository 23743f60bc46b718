//! Short descriptions of traces, of a few hundred words, for language models. Pure.
//!
//! A whole trace has tens of thousands of tokens. So each answer is a summary, with the console's address where a person sees the rest, and
//! the ids with which the model can ask for single spans.

use std::fmt::Write as _;

use super::{SinkLedger, SpanView, TraceView, Verified, dollars_text, duration_text, one_line};
use crate::index::{IndexView, List, Stats, TraceSummary};

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

/// Lists traces, one per line.
pub fn traces(answer: &List, console: &str) -> String {
    let mut text = format!("{} of {} traces, newest first.\n", answer.traces.len(), answer.count);
    incomplete(&mut text, &answer.index);
    for trace in &answer.traces {
        writeln!(text, "{} {}", trace.trace_id, line(trace)).ok();
    }
    writeln!(text, "Each is at {}", at(console, "ID")).ok();
    text
}

/// Describes one trace: sums, errors, the upper part of its tree and the last message.
pub fn trace(view: &TraceView, console: &str) -> String {
    let summary = &view.summary;
    let mut text = format!("{}\n", line(summary));
    for (what, names) in
        [("agents", &summary.agents), ("tools", &summary.tools), ("models", &summary.models)]
    {
        if !names.is_empty() {
            let names: Vec<_> = names.iter().map(|name| one_line(name, NAME_MAX)).collect();
            writeln!(text, "{what}: {}", names.join(", ")).ok();
        }
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
    writeln!(text, "{}", at(console, &summary.trace_id)).ok();
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
    let mut text = format!("{} traces failed; the newest:\n", answer.count);
    incomplete(&mut text, &answer.index);
    for view in views {
        writeln!(text, "{} {}", view.summary.trace_id, line(&view.summary)).ok();
        errors(&mut text, view);
    }
    writeln!(text, "Each is at {}", at(console, "ID")).ok();
    text
}

/// Lists sums, one row per line.
pub fn stats(answer: &Stats, console: &str) -> String {
    let mut text = format!("Over {} traces, most calls first.\n", answer.traces);
    incomplete(&mut text, &answer.index);
    for row in answer.rows.iter().take(ROWS_MAX) {
        let [p50, p95, p99] = [row.p50_ns, row.p95_ns, row.p99_ns].map(duration_text);
        let name = one_line(&row.name, NAME_MAX);
        write!(text, "{name}: {} calls, {} failed, ", row.count, row.errors).ok();
        write!(text, "p50 {p50}, p95 {p95}, p99 {p99}, ").ok();
        write!(text, "tokens {} in, {} out", row.input_tokens, row.output_tokens).ok();
        writeln!(text, "{}", cost(row.cost_usd)).ok();
    }
    more(&mut text, "and", answer.rows.len().saturating_sub(ROWS_MAX), "");
    writeln!(text, "{console}/ui/agents").ok();
    text
}

/// Describes whether a trace is complete and delivered.
pub fn verified(verified: &Verified, console: &str) -> String {
    let Verified { received, distinct, duplicates, orphans, in_circles, unreadable, .. } = verified;
    let mut text = format!(
        "{received} spans received, {distinct} distinct, {duplicates} duplicates; {orphans} with a parent that was not received, \
         {in_circles} below themselves, {unreadable} that cannot be read.\n"
    );
    for sink in &verified.sinks {
        let lost = sink.dropped + sink.before_it_joined;
        let SinkLedger { sink, delivered, pending, dead_lettered, filtered, .. } = sink;
        write!(text, "{sink}: {delivered} delivered, {pending} pending, ").ok();
        writeln!(text, "{dead_lettered} dead letters, {filtered} filtered, {lost} dropped").ok();
    }
    writeln!(text, "{}", at(console, &verified.trace_id)).ok();
    text
}

/// Notes that an answer may lack traces.
fn incomplete(text: &mut String, index: &IndexView) {
    if let Some(percent) = index.rebuilding_percent {
        writeln!(text, "The index is being rebuilt, {percent} %: newer traces are missing.").ok();
    }
    if index.evicted > 0 {
        writeln!(text, "{} older traces are no longer known.", index.evicted).ok();
    }
}

fn line(trace: &TraceSummary) -> String {
    let name = one_line(&trace.name, NAME_MAX);
    let took = duration_text(trace.duration_ns);
    let TraceSummary { start, status, spans, errors, input_tokens, output_tokens, .. } = trace;
    let mut text = format!("{start} \"{name}\" {status}, {took}, {spans} spans, {errors} errors");
    write!(text, ", tokens {input_tokens} in, {output_tokens} out{}", cost(trace.cost_usd)).ok();
    text
}

fn span_line(span: &SpanView) -> String {
    let name = one_line(&span.name, NAME_MAX);
    let mut text =
        format!("{} {} \"{name}\" {}", span.span_id, span.kind, duration_text(span.duration_ns));
    if let (Some(input), Some(output)) = (span.input_tokens, span.output_tokens) {
        write!(text, ", tokens {input} in, {output} out").ok();
    }
    text.push_str(&cost(span.cost_usd));
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

fn cost(usd: Option<f64>) -> String {
    usd.map_or_else(String::new, |usd| format!(", {}", dollars_text(usd)))
}
