//! Counters that components increment as things happen, identified by name and labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::support::lock::lock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// A metric: its name without `spanferry_` and `_total`, and one sentence of help.
pub type Figure = (&'static str, &'static str);

/// A label of a series and its value. All series of a metric have the same labels.
pub type Label = (&'static str, Cow<'static, str>);

/// All counters of the process by name. A handle: clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Mutex<BTreeMap<&'static str, (&'static str, Series)>>>);

/// The counts of one metric by their labels.
pub(super) type Series = BTreeMap<Vec<Label>, u64>;

impl Counters {
    /// Adds to a metric. Adding zero makes it visible.
    pub(super) fn add(&self, (name, help): Figure, labels: &[Label], count: u64) {
        let mut all = lock(&self.0);
        let (_, series) = all.entry(name).or_insert((help, Series::new()));
        match series.get_mut(labels) {
            Some(known) => *known += count,
            None => drop(series.insert(labels.to_vec(), count)),
        }
    }

    /// Returns the counts of a metric by the value of its first label, summed over all others.
    pub(super) fn by_label(&self, (name, _): Figure) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (labels, count) in lock(&self.0).get(name).iter().flat_map(|(_, series)| series) {
            if let Some((_, value)) = labels.first() {
                *counts.entry(value.to_string()).or_default() += count;
            }
        }
        counts
    }

    /// Returns the sum of a metric over all labels.
    pub(super) fn sum(&self, (name, _): Figure) -> u64 {
        lock(&self.0).get(name).map_or(0, |(_, series)| series.values().sum())
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, (help, series)) in &*lock(&self.0) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            if let Some(only) = series.get(&[][..]) {
                ConstCounter::new(*only).encode(family)?;
                continue;
            }
            for (labels, count) in series {
                ConstCounter::new(*count).encode(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// A metric of a kind of sink, in addition to those of every lane.
#[derive(Debug, PartialEq, Eq)]
pub struct SinkFigure {
    /// Its name, without `spanferry_` and `_total`. Metrics with the same name have the same help and labels.
    pub name: &'static str,
    /// The help: one sentence.
    pub help: &'static str,
    /// A label and its value, in addition to the sink's.
    pub label: Option<(&'static str, &'static str)>,
}

/// The counters of one sink. They are visible only if they belong to [`Metrics`](super::Metrics).
#[derive(Debug, Clone, Default)]
pub struct SinkFigures {
    pub(super) sink: String,
    pub(super) counters: Counters,
}

impl SinkFigures {
    /// Adds to a metric. Adding zero makes it visible.
    pub fn add(&self, figure: &SinkFigure, count: u64) {
        let mut labels = vec![("sink", Cow::from(self.sink.clone()))];
        labels.extend(figure.label.map(|(label, value)| (label, value.into())));
        self.counters.add((figure.name, figure.help), &labels, count);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

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
            "# HELP spanferry_es_docs Documents",
            "spanferry_es_docs_total{sink=\"one\",outcome=\"created\"} 3",
            "spanferry_es_docs_total{sink=\"one\",outcome=\"retried\"} 0",
            "spanferry_es_docs_total{sink=\"other\",outcome=\"created\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }
}
