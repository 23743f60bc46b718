//! `traces`, `trace` and `stats` show what agents did, from a running daemon or the files of a stopped one. `tail` and `export` do the same
//! for the traces that a running daemon receives, and for many traces.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::operate::{Asked, or_dash, run, seconds};
use super::operator::{Place, operate};
use super::output::{Column, explain, harmless, harmless_json, say, table_of};
use super::{Ended, Shell};
use crate::index::{IndexView, List, Stats, StatsRow, TraceSummary};
use crate::operate::{
    Form, SinkLedger, StatsRequest, TraceRequest, TraceView, TracesRequest, Verified,
    VerifyRequest, dollars_text, duration_text, one_line, tree_text,
};

/// Maximum number of names in a table cell.
const NAMES_MAX: usize = 3;
/// Maximum number of characters of a name in a table.
const NAME_MAX: usize = 40;
/// Number of traces per request.
const PAGE: usize = 1_000;
/// How often `tail` polls.
const TAIL_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum TraceVerb {
    /// Show the span tree with times, tokens and cost, and the conversation; --as prints a document
    Show(Asked<TraceRequest>),
    /// Show what was received, what is missing, and what happened at each sink
    Verify(Asked<VerifyRequest>),
}

/// The selection and format of exported traces.
#[derive(Debug, Args)]
pub(super) struct Exported {
    #[command(flatten)]
    traces: TracesRequest,
    /// JSON lines, one document per line for each trace, or text
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "json")]
    form: Form,
}

pub(super) fn traces(asked: Asked<TracesRequest>, shell: Shell<'_>) -> Ended {
    run(asked, shell, |list: &List| {
        note(&list.index);
        let mut text = traces_table(&list.traces);
        let (shown, count) = (list.traces.len() as u64, list.count);
        if shown < count {
            writeln!(text, "\n{shown} of {count} traces; --limit shows more").ok();
        }
        (text, Ok(()))
    })
}

const TRACE: [Column<TraceSummary>; 10] = [
    ("trace", |trace| trace.trace_id.clone()),
    ("start", |trace| seconds(&trace.start)),
    ("name", |trace| short(&trace.name)),
    ("agents", |trace| names(&trace.agents)),
    ("status", |trace| trace.status.clone()),
    ("took", |trace| duration_text(trace.duration_ns)),
    ("spans", |trace| trace.spans.to_string()),
    ("tokens", |trace| trace.total_tokens.to_string()),
    ("cost", |trace| dollars(trace.cost_usd)),
    ("models", |trace| names(&trace.models)),
];

pub(super) fn traces_table(traces: &[TraceSummary]) -> String {
    table_of(&TRACE, traces)
}

/// Prints a line each time that a trace on a running daemon grows, until it is stopped.
#[expect(clippy::disallowed_methods, reason = "it is asked anew each second")]
pub(super) fn tail(asked: Asked<TracesRequest>, shell: Shell<'_>) -> Ended {
    let Asked { place, json, mut request } = asked;
    let place = Place { is_live: true, ..place };
    // Existing traces are not printed.
    let limit = request.limit.replace(0).unwrap_or(PAGE);
    loop {
        let list = operate(&place, request.clone(), shell)?;
        let left_out = list.count.saturating_sub(list.traces.len() as u64);
        if left_out > 0 && request.since.is_some() {
            explain(&format!("{left_out} more traces grew; --limit shows more\n"));
        }
        for trace in list.traces.iter().rev() {
            say(&match serde_json::to_string(trace) {
                Ok(line) if json => harmless_json(&line) + "\n",
                _ => harmless(&(TRACE.map(|(_, cell)| cell(trace)).join("  ") + "\n")),
            });
        }
        shell.output.heard()?;
        (request.since, request.limit) = (Some(list.position), Some(limit));
        std::thread::sleep(TAIL_EVERY);
    }
}

/// Prints the documents of the selected traces, the newest first.
pub(super) fn export(asked: Asked<Exported>, shell: Shell<'_>) -> Ended {
    let Asked { place, request: Exported { traces, form }, .. } = asked;
    let place = Place { is_live: true, ..place };
    let all = traces.limit.unwrap_or(usize::MAX);
    for_each_page(&place, (traces, all), shell, |page| {
        for trace in page {
            let one = TraceRequest { id: trace.trace_id, span: None, form: Some(form) };
            say(&harmless(&shown(&operate(&place, one, shell)?)));
            shell.output.heard()?;
        }
        Ok(())
    })
}

/// Fetches at most so many traces, the newest first, in pages.
pub(super) fn for_each_page(
    place: &Place,
    (mut asked, mut left): (TracesRequest, usize),
    shell: Shell<'_>,
    mut take: impl FnMut(Vec<TraceSummary>) -> Ended,
) -> Ended {
    while left > 0 {
        let limit = left.min(PAGE);
        asked.limit = Some(limit);
        let page = operate(place, asked.clone(), shell)?.traces;
        let last = page.last();
        asked.before = last.map(|it| format!("{}@{}", it.trace_id, it.start_unix_nano));
        left = if page.len() < limit { 0 } else { left - limit };
        take(page)?;
    }
    Ok(())
}

pub(super) fn stats(asked: Asked<StatsRequest>, shell: Shell<'_>) -> Ended {
    run(asked, shell, |stats: &Stats| {
        note(&stats.index);
        let text = rows_table(&stats.rows);
        (format!("{text}\nover {} traces\n", stats.traces), Ok(()))
    })
}

pub(super) fn rows_table(rows: &[StatsRow]) -> String {
    let columns: [Column<StatsRow>; 9] = [
        ("name", |row| short(&row.name)),
        ("count", |row| row.count.to_string()),
        ("errors", |row| row.errors.to_string()),
        ("p50", |row| duration_text(row.p50_ns)),
        ("p95", |row| duration_text(row.p95_ns)),
        ("p99", |row| duration_text(row.p99_ns)),
        ("input", |row| row.input_tokens.to_string()),
        ("output", |row| row.output_tokens.to_string()),
        ("cost", |row| dollars(row.cost_usd)),
    ];
    table_of(&columns, rows)
}

/// Runs a verb. `verify` fails if spans are missing, or if a sink did not accept some.
pub(super) fn trace(verb: TraceVerb, shell: Shell<'_>) -> Ended {
    match verb {
        TraceVerb::Show(asked) => run(asked, shell, |view: &TraceView| (shown(view), Ok(()))),
        TraceVerb::Verify(asked) => run(asked, shell, verified),
    }
}

fn shown(view: &TraceView) -> String {
    if view.unreadable > 0 {
        let what = "items cannot be read: damaged, or removed in the meantime";
        explain(&format!("{} {what}\n", view.unreadable));
    }
    if let Some(document) = &view.document {
        let document = document.trim_end();
        let is_json = document.starts_with('{');
        return if is_json { harmless_json(document) } else { document.to_owned() } + "\n";
    }
    let mut text = String::new();
    for (name, value) in view.head() {
        writeln!(text, "{name:<8} {value}").ok();
    }
    write!(text, "\n{}", tree_text(view)).ok();
    for turn in &view.conversation {
        let said = turn.text.replace('\n', "\n  ");
        write!(text, "\n{}\n  {said}\n", one_line(&turn.role, NAME_MAX)).ok();
    }
    if let Some(line) = &view.line {
        write!(text, "\n{line:#}\n").ok();
    }
    text
}

fn verified(verified: &Verified) -> (String, Ended) {
    let Verified { trace_id, received, distinct, duplicates, trace_objects, .. } = verified;
    let (from, to) = (seconds(&verified.first_received), seconds(&verified.last_received));
    let mut text = format!(
        "trace {trace_id}\nreceived {received} spans ({distinct} distinct, {duplicates} duplicates) and {trace_objects} trace objects, from {from} to {to}\n"
    );
    for (count, what) in [
        (verified.orphans, "spans have a parent that was not received"),
        (verified.in_circles, "spans are their own ancestors, or below one that is"),
        (verified.unended, "spans have no end time"),
        (verified.unreadable, "items cannot be read: damaged, or removed in the meantime"),
    ] {
        if count > 0 {
            writeln!(text, "{count} {what}").ok();
        }
    }
    for parent in &verified.missing_parents {
        writeln!(text, "  parent {parent} is missing").ok();
    }
    let columns: [Column<SinkLedger>; 7] = [
        ("sink", |sink| sink.sink.clone()),
        ("delivered", |sink| sink.delivered.to_string()),
        ("pending", |sink| sink.pending.to_string()),
        ("dead-lettered", |sink| sink.dead_lettered.to_string()),
        ("filtered", |sink| sink.filtered.to_string()),
        ("dropped", |sink| sink.dropped.to_string()),
        ("before it joined", |sink| sink.before_it_joined.to_string()),
    ];
    write!(text, "\n{}", table_of(&columns, &verified.sinks)).ok();
    let is_missing = |sink: &SinkLedger| {
        sink.pending + sink.dead_lettered + sink.dropped + sink.before_it_joined > 0
    };
    let is_torn = verified.orphans + verified.in_circles + verified.unreadable > 0;
    let has_failed = is_torn || verified.sinks.iter().any(is_missing);
    (text, if has_failed { Err(ExitCode::FAILURE) } else { Ok(()) })
}

/// Notes on stderr that the index is incomplete.
fn note(index: &IndexView) {
    if let Some(percent) = index.rebuilding_percent {
        explain(&format!(
            "rebuilding, {percent} %: newer traces are missing until the journal is read\n"
        ));
    }
    if index.evicted > 0 {
        explain(&format!("{} older traces were evicted\n", index.evicted));
    }
}

fn short(name: &str) -> String {
    or_dash(&one_line(name, NAME_MAX))
}

fn names(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text =
        names.iter().take(NAMES_MAX).map(|name| short(name)).collect::<Vec<_>>().join(", ");
    if more > 0 {
        write!(text, " +{more}").ok();
    }
    or_dash(&text)
}

pub(super) fn dollars(cost: Option<f64>) -> String {
    or_dash(&cost.map(dollars_text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_of_which_something_cannot_be_read_is_not_whole() {
        let (text, ended) = verified(&Verified { unreadable: 2, ..Verified::default() });
        assert!(text.contains("\n2 items cannot be read"), "{text}");
        assert!(ended.is_err());
        let (text, ended) = verified(&Verified::default());
        assert!(!text.contains("cannot be read") && ended.is_ok(), "{text}");
    }
}
