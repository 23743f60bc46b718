//! `type = "kafka"`: a topic, for another tier of Spanferry, a Collector, or any other reader of OTLP from Kafka.
//!
//! ```toml
//! [sinks.topic]
//! type = "kafka"
//! brokers = ["kafka-0.kafka:9092", "kafka-1.kafka:9092"]
//! ```
//!
//! **Messages** have the format of the OpenTelemetry Collector with `partition_traces_by_id`: the value is an `ExportTraceServiceRequest`
//! in protobuf with spans of one trace, and the key is the trace's id in hexadecimal. The partition follows from the key by the Collector's
//! own hash, so a trace is complete in one partition whichever program writes it. Headers carry what OTLP has no field for:
//! `spanferry-sender` (against loops), `spanferry-received-at` and, if there is one, `spanferry-tenant`.
//!
//! OTLP spans are sent as the bytes that were received. After a crash, resent spans are therefore identical, and a Spanferry receiver
//! recognises them. Whose tokens count is decided by the tier that sees complete traces. Agents SDK spans are written as by the sink
//! `otlp`, with the facts of their trace objects; the objects themselves are not sent.
//!
//! **Durability.** The producer is idempotent with `acks=all`, and a span counts as delivered only after the broker has acknowledged its
//! message. The sink holds if the topic would not keep that promise: with several replicas and `min.insync.replicas` below 2.
//!
//! **Sizes.** Messages and batches stay below the topic's own limit, which is read from the cluster. If a single span is larger, its
//! longest texts are cut; if that is not enough, it becomes a dead letter.

#[cfg(any(feature = "kafka", test))]
mod encode;
mod options;
#[cfg(feature = "kafka")]
mod producer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{BuildError, Kind, Parts, Plan, Sink, http, read_options};
pub use options::{Compression, Options};

/// The kind of sink that writes to a Kafka topic.
pub static KIND: Kind = Kind {
    name: "kafka",
    summary: "a Kafka topic, one trace per message, as the Collector's Kafka exporter writes it",
    example: "brokers = [\"kafka-0.kafka:9092\"]\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, Options::mistakes)?)),
};

impl Plan for Options {
    #[cfg(feature = "kafka")]
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(producer::Kafka::new(Arc::new(self.clone()))))
    }

    #[cfg(not(feature = "kafka"))]
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        let (what, hint) = crate::support::kafka::NOT_BUILT;
        Err(BuildError(format!("{what}: {hint}")))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(self)
    }

    #[cfg(feature = "kafka")]
    fn probe(&self) -> Option<super::Pending<'_, Result<String, String>>> {
        Some(Box::pin(producer::probe(Arc::new(self.clone()))))
    }
}
