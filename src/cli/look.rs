//! `traces`, `trace` and `stats`: looking at what agents did, on a running daemon or the files of a stopped one.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

use super::Shell;
use super::operate::{InStores, or_dash, run, seconds};
use super::output::{explain, harmless_json, table};
use crate::index::IndexView;
use crate::operate::{
    Form, StatsAnswer, StatsRequest, TraceRequest, TraceView, TracesAnswer, TracesRequest,
    Verified, VerifyRequest, duration_text, tree_text,
};

/// Names in one cell of a table.
const NAMES_MAX: usize = 3;
/// Letters of a name in a table.
const NAME_MAX: usize = 40;

#[derive(Debug, Subcommand)]
pub(super) enum TraceVerb {
    /// The tree of its spans with times, tokens and cost, and what was said; --as prints a document
    Show(InStores<TraceRequest>),
    /// What was received of it, what is missing in it, and what became of it at each sink
    Verify(InStores<VerifyRequest>),
}

pub(super) fn traces(
    InStores { dir, asked }: InStores<TracesRequest>,
    shell: Shell<'_>,
) -> ExitCode {
    run(asked, dir, shell, |answer: &TracesAnswer| {
        note(&answer.index);
        let rows = answer.traces.iter().map(|trace| {
            vec![
                trace.trace_id.clone(),
                seconds(&trace.start),
                short(&trace.name),
                names(&trace.agents),
                trace.status.clone(),
                duration_text(trace.duration_ns),
                trace.spans.to_string(),
                trace.total_tokens.to_string(),
                dollars(trace.cost_usd),
                names(&trace.models),
            ]
        });
        let heads = [
            "trace", "start", "name", "agents", "status", "took", "spans", "tokens", "cost",
            "models",
        ];
        let mut text = table(&heads, &rows.collect::<Vec<_>>());
        let shown = answer.traces.len() as u64;
        if answer.count != shown {
            writeln!(text, "\n{shown} of {} traces; --limit shows more", answer.count).ok();
        }
        (text, ExitCode::SUCCESS)
    })
}

pub(super) fn stats(InStores { dir, asked }: InStores<StatsRequest>, shell: Shell<'_>) -> ExitCode {
    let by = asked.request.by;
    run(asked, dir, shell, |answer: &StatsAnswer| {
        note(&answer.index);
        let rows = answer.rows.iter().map(|row| {
            vec![
                short(&row.name),
                row.count.to_string(),
                row.errors.to_string(),
                duration_text(row.p50_ns),
                duration_text(row.p95_ns),
                duration_text(row.p99_ns),
                row.input_tokens.to_string(),
                row.output_tokens.to_string(),
                dollars(row.cost_usd),
            ]
        });
        let heads =
            [by.as_str(), "count", "errors", "p50", "p95", "p99", "input", "output", "cost"];
        let text = table(&heads, &rows.collect::<Vec<_>>());
        (format!("{text}\nover {} traces\n", answer.traces), ExitCode::SUCCESS)
    })
}

/// Runs a verb. `verify` fails where something is missing, or was not taken by a sink.
pub(super) fn trace(verb: TraceVerb, shell: Shell<'_>) -> ExitCode {
    match verb {
        TraceVerb::Show(InStores { dir, asked }) => {
            let is_json = asked.request.form.is_some_and(|form| form != Form::Markdown);
            run(asked, dir, shell, |view: &TraceView| (shown(view, is_json), ExitCode::SUCCESS))
        }
        TraceVerb::Verify(InStores { dir, asked }) => run(asked, dir, shell, verified),
    }
}

fn shown(view: &TraceView, is_json: bool) -> String {
    if view.unreadable > 0 {
        explain(&format!(
            "{} items cannot be read: damaged, or removed meanwhile\n",
            view.unreadable
        ));
    }
    if let Some(document) = &view.document {
        return if is_json { harmless_json(document) + "\n" } else { document.clone() };
    }
    let summary = &view.summary;
    let mut text = String::new();
    for (name, value) in [
        ("trace", summary.trace_id.clone()),
        ("name", summary.name.clone()),
        ("session", summary.session.clone().unwrap_or_default()),
        ("user", summary.user.clone().unwrap_or_default()),
        ("start", summary.start.clone()),
        ("took", duration_text(summary.duration_ns)),
        ("spans", format!("{}, {} failed", summary.spans, summary.errors)),
        ("tokens", format!("{} in, {} out", summary.input_tokens, summary.output_tokens)),
        ("cost", summary.cost_usd.map(|_| dollars(summary.cost_usd)).unwrap_or_default()),
    ] {
        if !value.is_empty() {
            writeln!(text, "{name:<8} {}", value.replace('\n', " ")).ok();
        }
    }
    write!(text, "\n{}", tree_text(view)).ok();
    for turn in &view.conversation {
        let said = turn.text.replace('\n', "\n  ");
        write!(text, "\n{}\n  {said}\n", turn.role.replace('\n', " ")).ok();
    }
    text
}

fn verified(verified: &Verified) -> (String, ExitCode) {
    let mut text = format!(
        "trace {}\nreceived {} spans ({} distinct, {} duplicates) and {} trace objects, from {} to {}\n",
        verified.trace_id,
        verified.received,
        verified.distinct,
        verified.duplicates,
        verified.trace_objects,
        seconds(&verified.first_received),
        seconds(&verified.last_received),
    );
    for (count, what) in [
        (verified.orphans, "spans have a parent that was not received"),
        (verified.in_circles, "spans are below themselves"),
        (verified.unended, "spans say no end"),
    ] {
        if count > 0 {
            writeln!(text, "{count} {what}").ok();
        }
    }
    for parent in &verified.missing_parents {
        writeln!(text, "  parent {parent} is missing").ok();
    }
    let rows = verified.sinks.iter().map(|sink| {
        let counts = [sink.delivered, sink.pending, sink.dead_lettered];
        let filtered = sink.filtered.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let mut row = vec![sink.sink.clone()];
        row.extend(counts.map(|count| count.to_string()));
        row.extend([filtered, sink.dropped.to_string(), sink.before_it_joined.to_string()]);
        row
    });
    let heads = [
        "sink",
        "delivered",
        "pending",
        "dead-lettered",
        "filtered",
        "dropped",
        "before it joined",
    ];
    write!(text, "\n{}", table(&heads, &rows.collect::<Vec<_>>())).ok();
    let has_arrived = |sink: &crate::operate::SinkLedger| {
        sink.pending + sink.dead_lettered + sink.dropped + sink.before_it_joined == 0
    };
    let is_whole = verified.orphans + verified.in_circles == 0;
    let is_well = is_whole && verified.sinks.iter().all(has_arrived);
    (text, if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says on stderr what the index lacks.
fn note(index: &IndexView) {
    if let Some(percent) = index.rebuilding_percent {
        explain(&format!(
            "rebuilding, {percent} %: newer traces are missing until the journal is read\n"
        ));
    }
    if index.evicted > 0 {
        explain(&format!("{} older traces gave way to these\n", index.evicted));
    }
}

fn short(name: &str) -> String {
    let name = name.replace(['\n', '\t'], " ");
    let end = name.char_indices().nth(NAME_MAX).map_or(name.len(), |(at, _)| at);
    or_dash(name.get(..end).unwrap_or_default())
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

fn dollars(cost: Option<f64>) -> String {
    cost.map_or_else(|| "-".to_owned(), |cost| format!("${cost:.6}"))
}
