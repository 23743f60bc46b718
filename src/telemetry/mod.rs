//! Our own figures. Names follow the Collector's words, so that its dashboards translate mechanically.
//!
//! Counters of the receivers, and what kinds of sinks count of their own, are kept here; what can be read elsewhere at any moment (cursors, the journal's size) is read when it is
//! asked for, in `admin`.

mod sinks;
mod understanding;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub use sinks::{SinkFigure, SinkFigures};
pub use understanding::{Lack, NotUnderstood, Said, Understanding};

/// The figures that components count themselves. A handle: clones share it.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    receivers: Arc<ReceiverFamilies>,
    sinks: Arc<sinks::AllSinks>,
    understanding: Understanding,
}

/// A receiver and the form in which something came to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReceiverLabels {
    /// `openai`, `otlp_http` or `otlp_grpc`.
    pub receiver: &'static str,
    /// `http` or `grpc`.
    pub transport: &'static str,
    /// `json` or `protobuf`.
    pub format: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    receiver: &'static str,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unstored {
    signal: &'static str,
}

#[derive(Debug)]
struct ReceiverFamilies {
    accepted: Family<ReceiverLabels, Counter>,
    refused: Family<ReceiverLabels, Counter>,
    failed: Family<ReceiverLabels, Counter>,
    resent: Family<ReceiverLabels, Counter>,
    bytes: Family<ReceiverLabels, Counter>,
    unstored: Family<Unstored, Counter>,
    seconds: Family<Answer, Histogram, fn() -> Histogram>,
}

impl Default for ReceiverFamilies {
    fn default() -> Self {
        Self {
            accepted: Family::default(),
            refused: Family::default(),
            failed: Family::default(),
            resent: Family::default(),
            bytes: Family::default(),
            unstored: Family::default(),
            // From a quarter of a millisecond to eight seconds: an fsync on flash up to a client's patience.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
            }),
        }
    }
}

impl Metrics {
    /// Items that are on stable storage and were acknowledged.
    pub fn accepted(&self, labels: &ReceiverLabels, items: u32) {
        self.receivers.accepted.get_or_create(labels).inc_by(items.into());
    }

    /// Items that were not taken and that the client should send again: no room, or stopping.
    pub fn refused(&self, labels: &ReceiverLabels, items: u32) {
        self.receivers.refused.get_or_create(labels).inc_by(items.into());
    }

    /// Items that could not be understood and went to the quarantine, or whole requests that are no request (counted as one).
    pub fn failed(&self, labels: &ReceiverLabels, items: u32) {
        self.receivers.failed.get_or_create(labels).inc_by(items.into());
    }

    /// Items that were acknowledged without being kept again, because they are exact resends.
    pub fn resent(&self, labels: &ReceiverLabels, items: u32) {
        self.receivers.resent.get_or_create(labels).inc_by(items.into());
    }

    /// Spans that are kept although their times are before 2000 or after 2100.
    pub fn odd_times(&self, receiver: &'static str, spans: u64) {
        self.understanding.odd_times(receiver, spans);
    }

    /// Data points, log records or profiles that were acknowledged with the remark that they are not stored.
    pub fn unstored(&self, signal: &'static str, items: u64) {
        self.receivers.unstored.get_or_create(&Unstored { signal }).inc_by(items);
    }

    /// A request's body, in bytes as it came over the wire.
    pub fn received_bytes(&self, labels: &ReceiverLabels, bytes: usize) {
        self.receivers.bytes.get_or_create(labels).inc_by(bytes as u64);
    }

    /// An answered request: the HTTP status, or the gRPC code, and how long it took from its head to the answer.
    pub fn answered(&self, receiver: &'static str, code: u16, took: Duration) {
        self.receivers
            .seconds
            .get_or_create(&Answer { receiver, code })
            .observe(took.as_secs_f64());
    }

    /// Where it is counted what of the spans was not understood.
    pub fn understanding(&self) -> &Understanding {
        &self.understanding
    }

    /// Where a sink counts what only its kind has.
    pub fn of_sink(&self, sink: &str) -> SinkFigures {
        SinkFigures::new(sink, &self.sinks)
    }

    /// Puts the figures into a registry whose names start with `spanferry`.
    pub fn register(&self, registry: &mut Registry) {
        let receivers = &self.receivers;
        let counters = [
            (
                "receiver_accepted_spans",
                "Spans and trace objects on stable storage and acknowledged",
                &receivers.accepted,
            ),
            (
                "receiver_refused_spans",
                "Spans and trace objects not taken: the client was told to come again",
                &receivers.refused,
            ),
            (
                "receiver_failed_spans",
                "Spans and trace objects that could not be understood and are in the quarantine",
                &receivers.failed,
            ),
            (
                "receiver_resent_spans",
                "Exact resends, acknowledged and not delivered twice",
                &receivers.resent,
            ),
            (
                "receiver_request_bytes",
                "Request bodies as they came over the wire, in bytes",
                &receivers.bytes,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "receiver_unstored_items",
            "Items of signals that are not stored: data points, log records and profiles",
            receivers.unstored.clone(),
        );
        let help = "Time from a request's head to its answer";
        registry.register_with_unit(
            "receiver_request_duration",
            help,
            Unit::Seconds,
            receivers.seconds.clone(),
        );
        self.sinks.register(registry);
        registry.register_collector(Box::new(self.understanding.clone()));
    }
}
