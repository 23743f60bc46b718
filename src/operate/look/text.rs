//! Traces, sums and deliveries as text, for people and for language models. Pure.

use std::fmt::Write as _;

use super::view::{dollars_text, duration_text, one_line};
use super::{SinkLedger, Verified};
use crate::index::{IndexView, StatsRow, TraceSummary};
use crate::support::table::{Column, or_dash, seconds, table_of};

/// Maximum number of names in a table cell.
const NAMES_MAX: usize = 3;
/// Maximum number of characters of a name in a table.
const NAME_MAX: usize = 40;

/// The columns of a list of traces.
pub const TRACE: [Column<TraceSummary>; 10] = [
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

/// Lists traces.
pub fn traces_table(traces: &[TraceSummary]) -> String {
    table_of(&TRACE, traces)
}

/// Lists sums.
pub fn rows_table(rows: &[StatsRow]) -> String {
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

/// Says what was received of a trace, what is missing, and what happened at each sink.
pub fn verified_text(verified: &Verified) -> String {
    let Verified { trace_id, received, distinct, duplicates, trace_objects, .. } = verified;
    let (from, to) = (seconds(&verified.first_received), seconds(&verified.last_received));
    let mut text = format!(
        "trace {trace_id}\nreceived {received} spans ({distinct} distinct, {duplicates} duplicates) and {trace_objects} trace objects, from {from} to {to}\n"
    );
    text += &counts([
        (verified.orphans, "spans have a parent that was not received"),
        (verified.in_circles, "spans are their own ancestors, or below one that is"),
        (verified.unended, "spans have no end time"),
        (verified.unreadable, "items cannot be read: damaged, or removed in the meantime"),
    ]);
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
    text
}

/// Says what an answer may lack; empty if nothing.
pub fn gaps(index: &IndexView) -> String {
    let mut text = String::new();
    if let Some(percent) = index.rebuilding_percent {
        let what = "newer traces are missing until the journal is read";
        writeln!(text, "rebuilding, {percent} %: {what}").ok();
    }
    let unreadable = "items of the journal cannot be read, so traces are missing or lack spans; `spanferry journal verify` shows where";
    text + &counts([(index.evicted, "older traces were evicted"), (index.unreadable, unreadable)])
}

/// Says how many of what there are, a line for each that there is.
pub fn counts<const N: usize>(all: [(u64, &str); N]) -> String {
    let some = all.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("{count} {what}\n")).collect::<Vec<_>>().concat()
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

/// Formats an amount of money, if there is any.
pub fn dollars(cost: Option<f64>) -> String {
    or_dash(&cost.map(dollars_text).unwrap_or_default())
}
