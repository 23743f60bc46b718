//! The Kafka receiver: accepts messages of topics like requests, and commits their offsets once the journal has them.
//!
//! ```toml
//! [receivers.kafka]
//! brokers = ["kafka-0.kafka:9092", "kafka-1.kafka:9092"]
//! ```
//!
//! A dedicated thread polls the client (`consumer`), since its callbacks block; one task decodes and appends, many messages at a time. An
//! offset is committed when everything before it in its partition is on stable storage or in the quarantine (`offsets`). Before a partition
//! is revoked, its messages in flight are waited for, within a bound.
//!
//! **Back-pressure.** If the journal is full, a tenant is beyond its limits or memory is short, a message waits and is retried. Once
//! `MESSAGES_MAX` messages or `BYTES_MAX` bytes are in flight, partitions are paused. Polling continues, so that the group keeps them.
//!
//! **Poison messages.** Messages that are not export requests go to the quarantine, with their topic, partition and offset, and consumption
//! continues. Every record keeps its message's place as the header `kafka-offset`.

#[cfg(feature = "kafka")]
mod consumer;
#[cfg(any(feature = "kafka", test))]
mod offsets;
#[cfg(all(feature = "kafka", test))]
mod tests;

use super::Receivers;
use super::kafka_options::KafkaOptions;
use crate::support::stop::Stop;

impl Receivers {
    /// Consumes the topics' messages until it is stopped; then finishes those in flight and commits their offsets. Only one consumer runs
    /// at a time: another waits until the previous one has ended.
    pub async fn consume(self, options: KafkaOptions, stop: Stop) {
        #[cfg(feature = "kafka")]
        consumer::consume(self, options, stop).await;
        // Options with Kafka are rejected by builds without it.
        #[cfg(not(feature = "kafka"))]
        {
            drop((self, options));
            stop.stopped().await;
        }
    }
}
