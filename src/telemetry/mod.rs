//! Spanferry's own metrics. Their names follow the Collector's, so that its dashboards translate mechanically.
//!
//! Counters of events are kept here. Values that can be read elsewhere at any moment (cursors, the journal's size) are read on request, in
//! `admin`.

mod counters;
mod understanding;
mod series;
mod agents;
mod otlp;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use counters::Counters;

pub use agents::{AgentSeries, Call};
pub use counters::{Figure, Label, SinkFigure, SinkFigures};
pub use otlp::request;
pub use series::{Name, Role};
pub use understanding::Understanding;

/// The metrics that components count themselves. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    counters: Counters,
    seconds: Family<[Label; 2], Histogram, fn() -> Histogram>,
    request_bytes: Family<[Label; 3], Histogram, fn() -> Histogram>,
    understanding: Understanding,
}

impl Default for Metrics {
    fn default() -> Self {
        let counters = Counters::default();
        let understanding = Understanding::new(counters.clone());
        // From a quarter of a millisecond to eight seconds: an fsync on flash up to a client's timeout.
        let seconds = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.000_25, 2.0, 16))) as fn() -> Histogram,
        );
        // From 1 KiB to 64 MiB.
        let request_bytes = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(1024.0, 4.0, 9))) as fn() -> Histogram,
        );
        Self { counters, seconds, request_bytes, understanding }
    }
}

impl Metrics {
    /// Adds to a metric. Adding zero makes it visible.
    pub fn add(&self, figure: Figure, labels: &[Label], count: u64) {
        self.counters.add(figure, labels, count);
    }

    /// Returns the counts of a metric by the value of its first label, summed over all others.
    pub fn by_label(&self, figure: Figure) -> BTreeMap<String, u64> {
        self.counters.by_label(figure)
    }

    /// Counts an answered request: the HTTP status or the gRPC code, and the time from its head to the answer.
    pub fn answered(&self, receiver: &'static str, code: u16, took: Duration) {
        let labels = [("receiver", receiver.into()), ("code", code.to_string().into())];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts the size of a request's body on the wire, in bytes, by receiver and encoding.
    pub fn came(&self, labels: &[Label; 3], bytes: usize) {
        #[expect(clippy::cast_precision_loss, reason = "no body is that long")]
        self.request_bytes.get_or_create(labels).observe(bytes as f64);
    }

    /// Returns the counters of unrecognized data in spans.
    pub fn understanding(&self) -> &Understanding {
        &self.understanding
    }

    /// Returns the counters of a sink for metrics that only its kind has.
    pub fn of_sink(&self, sink: &str) -> SinkFigures {
        SinkFigures { sink: sink.to_owned(), counters: self.counters.clone() }
    }

    /// Registers the metrics in a registry whose prefix is `spanferry`.
    pub fn register(&self, registry: &mut Registry) {
        let (name, help) =
            ("receiver_request_duration", "Time from a request's head to its answer");
        registry.register_with_unit(name, help, Unit::Seconds, self.seconds.clone());
        let (name, help) = ("receiver_request", "Size of request bodies on the wire");
        registry.register_with_unit(name, help, Unit::Bytes, self.request_bytes.clone());
        registry.register_collector(Box::new(self.counters.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_further_labels_is_one_count() {
        let (metrics, figure) = (Metrics::default(), ("items", "Items"));
        for (receiver, format, count) in
            [("otlp", "json", 1), ("otlp", "protobuf", 2), ("other", "json", 4)]
        {
            metrics.add(figure, &[("receiver", receiver.into()), ("format", format.into())], count);
        }
        let expected = [("otlp".to_owned(), 3), ("other".to_owned(), 4)];
        assert_eq!(metrics.by_label(figure), expected.into());
    }
}
