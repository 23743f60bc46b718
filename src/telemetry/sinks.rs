//! What a kind of sink counts of its own, beside the figures that every lane has: it names a figure and says by how much it grew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// A figure of a kind of sink: something that is counted.
#[derive(Debug, PartialEq, Eq)]
pub struct SinkFigure {
    /// Its name, without `spanferry_` and `_total`. Figures of one name have one help and the same labels.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// A label and its value, beside that of the sink.
    pub label: Option<(&'static str, &'static str)>,
}

/// Where one sink counts. Without [`Metrics`](super::Metrics) that it belongs to, nobody sees what is counted.
#[derive(Debug, Clone, Default)]
pub struct SinkFigures {
    sink: String,
    all: Arc<AllSinks>,
}

impl SinkFigures {
    pub(super) fn new(sink: &str, all: &Arc<AllSinks>) -> Self {
        Self { sink: sink.to_owned(), all: Arc::clone(all) }
    }

    /// Adds to a figure. Adding nothing makes it visible.
    pub fn add(&self, figure: &SinkFigure, count: u64) {
        let mut labels = vec![("sink", self.sink.clone())];
        labels.extend(figure.label.map(|(label, value)| (label, value.to_owned())));
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, family) = all.entry(figure.name).or_insert((figure.help, Family::default()));
        family.get_or_create(&labels).inc_by(count);
    }
}

/// The figures of all sinks by name, each with its help.
#[derive(Debug, Default)]
pub(super) struct AllSinks(Mutex<BTreeMap<&'static str, (&'static str, Series)>>);

type Series = Family<Vec<(&'static str, String)>, Counter>;

impl AllSinks {
    pub(super) fn register(&self, registry: &mut Registry) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (help, family)) in &*all {
            registry.register(*name, *help, family.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn what_a_sink_counts_is_shown_by_sink_and_from_the_start() {
        let metrics = Metrics::default();
        let label = |value| Some(("outcome", value));
        let made = SinkFigure { name: "es_docs", help: "Documents", label: label("created") };
        let again = SinkFigure { label: label("retried"), ..made };
        let (one, other) = (metrics.of_sink("one"), metrics.of_sink("other"));
        one.add(&made, 2);
        one.add(&again, 0);
        other.add(&made, 1);
        one.add(&made, 1);
        let mut registry = Registry::with_prefix("spanferry");
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            "# HELP spanferry_es_docs Documents.",
            "spanferry_es_docs_total{sink=\"one\",outcome=\"created\"} 3",
            "spanferry_es_docs_total{sink=\"one\",outcome=\"retried\"} 0",
            "spanferry_es_docs_total{sink=\"other\",outcome=\"created\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }
}
