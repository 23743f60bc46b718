//! A trace as one document. Pure.

use std::fmt::Write as _;
use std::io;

use super::Form;
use super::read::{Read, TraceState};
use super::view::{TraceView, one_line, tree_text};
use crate::sinks::Delivery;
use crate::sinks::jsonl::Lines;
use crate::sinks::openai::write_items;
use crate::span::otlp::json;

/// Maximum size of a document: an answer is one line, whose length is limited.
const BYTES_MAX: usize = 96 << 20;

/// Writes a trace in a given form.
pub(super) fn document(
    form: Form,
    read: &Read,
    known: &TraceState,
    view: &TraceView,
) -> io::Result<String> {
    let mut out = Vec::new();
    match form {
        Form::Markdown => out = markdown(view).into_bytes(),
        Form::Json => write_lines(&mut out, read, known),
        Form::OtlpJson => json::write_request(&mut out, read.spans()),
        Form::Openai => write_items(&mut out, read.items(), known.contexts.values().next()),
    }
    if BYTES_MAX < out.len() {
        return Err(io::Error::other("the trace is too large for one document: more than 96 MiB"));
    }
    String::from_utf8(out).map_err(io::Error::other)
}

fn write_lines(out: &mut Vec<u8>, read: &Read, known: &TraceState) {
    let mut delivery = Delivery::default();
    for found in &read.records {
        delivery.add(&found.batch, 0..found.batch.items.len());
    }
    let delivery = delivery.with_contexts(known.contexts.clone());
    let mut lines = Lines::of(&delivery, &known.prices);
    for (batch, item) in delivery.items() {
        lines.write(out, batch, item);
    }
}

fn markdown(view: &TraceView) -> String {
    let mut text = format!("# Trace {}\n\n", view.summary.trace_id);
    for (name, value) in view.head() {
        writeln!(text, "* {name}: {value}").ok();
    }
    let tree = tree_text(view);
    let (fence, about) = (fence_for(&tree), "After the start, duration, what it was.");
    write!(text, "\n## Spans\n\n{about}\n\n{fence}\n{tree}{fence}\n").ok();
    if !view.conversation.is_empty() {
        text.push_str("\n## Conversation\n");
    }
    for turn in &view.conversation {
        let (role, said) = (one_line(&turn.role, usize::MAX), &turn.text);
        let fence = fence_for(said);
        write!(text, "\n### {role}\n\n{fence}\n{said}\n{fence}\n").ok();
    }
    text
}

/// Returns a fence that does not occur in the text, so that text from clients cannot end it.
fn fence_for(text: &str) -> String {
    let mut fence = "```".to_owned();
    while text.contains(&fence) {
        fence.push('`');
    }
    fence
}
