//! The metrics that only this sink has: results of documents and summaries.

use std::collections::BTreeMap;

use crate::telemetry::{SinkFigure, SinkFigures};

/// The number of documents of a delivery by outcome.
pub(super) type DocumentCounts = BTreeMap<&'static str, u64>;

/// Documents that are retried, alone or because their complete request was not accepted.
pub(super) const RETRIED: &str = "retried";
/// Spans that were sent in degraded form.
pub(super) const DEGRADED: &str = "degraded";

/// Documents that another writer has written, or an earlier attempt.
pub(super) const DUPLICATE: &str = "duplicate";

/// All outcomes. The first two: a new document, and a replaced one.
const OUTCOMES: [&str; 6] = ["created", "updated", DUPLICATE, RETRIED, DEGRADED, "failure_store"];

pub(super) static ODD_TIMES: SinkFigure = figure(
    "es_odd_times",
    "Spans with times outside 2000 to 2100, which durations and trace documents leave out",
);
pub(super) static CONFLICTS: SinkFigure = figure(
    "es_trace_summary_conflicts",
    "Trace summaries that another writer had changed, and that were made again",
);
pub(super) static RESOLVED: SinkFigure =
    figure("es_trace_summary_resolved", "Trace summaries written");
pub(super) static LEFT_OUT: SinkFigure = figure(
    "es_trace_summary_left_out",
    "Documents of traces that the backend refused alone, and that stay missing or as they were",
);

const fn figure(name: &'static str, help: &'static str) -> SinkFigure {
    SinkFigure { name, help, label: None }
}

/// Counts the documents of a delivery.
pub(super) fn count(figures: &SinkFigures, tally: &DocumentCounts) {
    for (outcome, count) in tally {
        let label = Some(("outcome", *outcome));
        let docs = figure("es_docs", "Documents, by the backend's answer");
        figures.add(&SinkFigure { label, ..docs }, *count);
    }
}

/// Makes all metrics visible.
pub(super) fn show(figures: &SinkFigures) {
    count(figures, &OUTCOMES.map(|outcome| (outcome, 0)).into());
    for figure in [&ODD_TIMES, &CONFLICTS, &RESOLVED, &LEFT_OUT] {
        figures.add(figure, 0);
    }
}
