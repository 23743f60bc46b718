//! What this sink counts of its own, for `/metrics`: what became of documents and of summaries.

use super::response::Class;
use crate::telemetry::{SinkFigure, SinkFigures};

/// What happened to documents, by kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    created: u64,
    /// Documents that were there already.
    updated: u64,
    /// Documents that were there already and were left as they were.
    duplicate: u64,
    /// Documents that have to be sent again, for themselves or because their whole request was not taken.
    pub(super) retried: u64,
    /// Spans that went out in their plainest form.
    pub(super) folded: u64,
    /// Spans that are in the failure store.
    pub(super) set_aside: u64,
    /// Spans with times that no duration and no summary counts.
    pub(super) odd_times: u64,
}

impl Tally {
    /// Counts one answer.
    pub(super) fn add(&mut self, status: u16, class: &Class) {
        match (class, status) {
            (Class::Stored, 201) => self.created += 1,
            (Class::Stored, 409) | (Class::Conflict, _) => self.duplicate += 1,
            (Class::Stored, _) => self.updated += 1,
            (class, _) => self.retried += u64::from(!class.is_final()),
        }
    }
}

const fn docs(outcome: &'static str) -> SinkFigure {
    let label = Some(("outcome", outcome));
    SinkFigure { label, ..figure("es_docs", "Documents, by what the backend said of each") }
}

const fn figure(name: &'static str, help: &'static str) -> SinkFigure {
    SinkFigure { name, help, label: None }
}

static DOCS: [SinkFigure; 6] = [
    docs("created"),
    docs("updated"),
    docs("duplicate"),
    docs("retried"),
    docs("degraded"),
    docs("failure_store"),
];
static ODD_TIMES: SinkFigure = figure(
    "es_odd_times",
    "Spans with times outside of 2000 to 2100, which no duration and no trace document counts",
);
pub(super) static CONFLICTS: SinkFigure = figure(
    "es_trace_summary_conflicts",
    "Summaries of traces that somebody else had written meanwhile, and that were made again",
);
pub(super) static RESOLVED: SinkFigure =
    figure("es_trace_summary_resolved", "Summaries of traces that were written");

/// Counts what happened to one delivery. An empty tally makes all figures visible.
pub(super) fn count(figures: &SinkFigures, tally: &Tally) {
    let Tally { created, updated, duplicate, retried, folded, set_aside, odd_times } = *tally;
    let counts = [created, updated, duplicate, retried, folded, set_aside];
    DOCS.iter().zip(counts).for_each(|(figure, count)| figures.add(figure, count));
    figures.add(&ODD_TIMES, odd_times);
}
