//! The Kafka receiver: messages of topics come in like requests, and their offsets are committed once the journal has them.
//!
//! ```toml
//! [receivers.kafka]
//! brokers = ["kafka-0.kafka:9092", "kafka-1.kafka:9092"]
//! ```
//!
//! A thread of its own polls the client (`consumer`), since its callbacks block; one task decodes and appends, many messages at a
//! time. An offset is committed when everything before it in its partition is on stable storage or set aside (`offsets`). Before a
//! partition is given up, what is under way of it is waited for, within a bound.
//!
//! **Back-pressure.** A journal that is full, a tenant beyond its limits or memory that is short let a message wait and be tried again.
//! Once `MESSAGES_MAX` messages or `BYTES_MAX` bytes are under way, partitions are paused, and the client is polled on, so that the group keeps them.
//!
//! **Poison.** What is no export request goes to the quarantine, with its topic, partition and offset, and the next message is taken.
//! Every message's place is kept with its record as the header `kafka-offset`.

#[cfg(feature = "kafka")]
mod consumer;
#[cfg(any(feature = "kafka", test))]
mod offsets;
#[cfg(all(feature = "kafka", test))]
mod tests;

use super::Receivers;
use super::kafka_options::KafkaOptions;
use crate::support::stop::Stop;

/// Messages under way at once: enough for one fsync to serve many.
#[cfg(any(feature = "kafka", test))]
const MESSAGES_MAX: usize = 512;
/// Bytes of messages under way at once.
#[cfg(any(feature = "kafka", test))]
const BYTES_MAX: usize = 16 << 20;

impl Receivers {
    /// Takes the messages of topics until it is told to stop; then what is under way is taken, and its offsets are committed. One at a
    /// time: another waits until the one before has ended.
    pub async fn consume(self, options: KafkaOptions, stop: Stop) {
        #[cfg(feature = "kafka")]
        consumer::consume(self, options, stop).await;
        // Options with Kafka are refused where it is not built.
        #[cfg(not(feature = "kafka"))]
        {
            drop((self, options));
            stop.stopped().await;
        }
    }
}
