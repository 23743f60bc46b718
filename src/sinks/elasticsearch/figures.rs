//! What this sink counts of its own, for `/metrics`: what became of documents and of the summaries of shared traces.

use super::progress::Tally;
use crate::telemetry::{SinkFigure, SinkFigures};

const DOCS: &str = "es_docs";
const DOCS_HELP: &str = "Documents and changes to them, by what the far side said of each";

/// A figure of [`DOCS`].
const fn docs(outcome: &'static str) -> SinkFigure {
    SinkFigure { name: DOCS, help: DOCS_HELP, label: Some(("outcome", outcome)) }
}

const fn summaries(name: &'static str, help: &'static str) -> SinkFigure {
    SinkFigure { name, help, label: None }
}

static CREATED: SinkFigure = docs("created");
static UPDATED: SinkFigure = docs("updated");
static DUPLICATE: SinkFigure = docs("duplicate");
static RETRIED: SinkFigure = docs("retried");
static DEGRADED: SinkFigure = docs("degraded");
static FAILURE_STORE: SinkFigure = docs("failure_store");
static REFUSED: SinkFigure = docs("refused");
static CONFLICTS: SinkFigure = summaries(
    "es_trace_summary_conflicts",
    "Summaries of traces that somebody else, or an earlier life, had written",
);
static UNVERIFIED: SinkFigure = summaries(
    "es_trace_summary_unverified",
    "Summaries of traces that were written unseen, or could not be kept in mind",
);
static RESOLVED: SinkFigure = summaries(
    "es_trace_summary_resolved",
    "Summaries of shared traces that were made of what the far side has",
);

/// Counts what happened to one delivery. An empty tally makes all figures visible.
pub(super) fn count(figures: &SinkFigures, tally: &Tally) {
    for (figure, count) in [
        (&CREATED, tally.created),
        (&UPDATED, tally.updated),
        (&DUPLICATE, tally.duplicate),
        (&RETRIED, tally.retried),
        (&DEGRADED, tally.folded),
        (&FAILURE_STORE, tally.set_aside),
        (&REFUSED, tally.refused),
        (&CONFLICTS, tally.conflicts),
        (&UNVERIFIED, tally.unverified),
    ] {
        figures.add(figure, count);
    }
}

/// Counts summaries that were made of what the far side has.
pub(super) fn count_resolved(figures: &SinkFigures, count: u64) {
    figures.add(&RESOLVED, count);
}
