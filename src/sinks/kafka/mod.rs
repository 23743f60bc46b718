//! `type = "kafka"`: a topic, for another tier of Spanferry, a Collector, or whoever reads OTLP from Kafka.
//!
//! ```toml
//! [sinks.topic]
//! type = "kafka"
//! brokers = ["kafka-0.kafka:9092", "kafka-1.kafka:9092"]
//! ```
//!
//! **Messages** are what the OpenTelemetry Collector writes with `partition_traces_by_id`: the value is an `ExportTraceServiceRequest`
//! in protobuf with spans of one trace, the key the trace's id in hexadecimal, and the partition follows from the key by the
//! Collector's own hash, so that a trace is whole in one partition whoever wrote it. Headers say what OTLP has no place for:
//! `spanferry-sender` (against circles), `spanferry-received-at` and, where there is one, `spanferry-tenant`.
//!
//! Spans that came as OTLP go out as the bytes that came in: what is sent again after a crash is the same to the byte, so that a receiver
//! of Spanferry recognises it; and whose tokens count is for the tier to say that sees whole traces. Agents SDK spans are written
//! as the sink `otlp` writes them, with what their trace objects say; the objects themselves are not sent.
//!
//! **Durability.** The producer is idempotent with `acks=all`, and no span counts as delivered before the broker acknowledged
//! its message. The sink holds where the topic would not keep that promise: with several replicas and `min.insync.replicas` below 2.
//!
//! **Sizes.** Messages and batches stay below the topic's own limit, which is read from the cluster. A span that is larger alone has its
//! longest texts cut; where that is not enough, it becomes a dead letter.

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

/// Topics of Kafka.
pub static KIND: Kind = Kind {
    name: "kafka",
    summary: "a Kafka topic, one trace a message, as the Collector's Kafka exporter writes it",
    example: "brokers = [\"kafka-0.kafka:9092\"]\n",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(Topic(Arc::new(read_options(table, Options::mistakes)?)))),
};

/// A topic that is written to.
#[derive(Debug)]
struct Topic(Arc<Options>);

impl Plan for Topic {
    #[cfg(feature = "kafka")]
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(producer::Kafka::new(Arc::clone(&self.0))))
    }

    #[cfg(not(feature = "kafka"))]
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        let (what, hint) = crate::support::kafka::NOT_BUILT;
        Err(BuildError(format!("{what}: {hint}")))
    }

    fn expanded(&self) -> toml::Table {
        http::shown(&*self.0)
    }

    #[cfg(feature = "kafka")]
    fn probe(&self) -> Option<super::Pending<'_, Result<String, String>>> {
        Some(Box::pin(producer::probe(Arc::clone(&self.0))))
    }
}
