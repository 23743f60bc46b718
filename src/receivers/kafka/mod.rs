//! The Kafka receiver: messages of topics come in like requests, and their offsets are committed once the journal has them.
//!
//! ```toml
//! [receivers.kafka]
//! brokers = ["kafka-0.kafka:9092", "kafka-1.kafka:9092"]
//! ```
//!
//! A thread of its own polls the client (`consumer`), since its callbacks block; one task decodes and appends ([`take`]), many messages at a
//! time. An offset is committed when everything before it in its partition is on stable storage or set aside (`offsets`). Before a
//! partition is given up, what is under way of it is waited for, within a bound.
//!
//! **Back-pressure.** A journal that is full, a tenant beyond its limits or memory that is short let a message wait and be tried again.
//! Once [`MESSAGES_MAX`] or [`BYTES_MAX`] are under way, partitions are paused, and the client is polled on, so that the group keeps them.
//!
//! **Poison.** What is no export request goes to the quarantine, with its topic, partition and offset, and the next message is taken.
//! Every message's place is kept with its record as the header `kafka-offset`.

#[cfg(feature = "kafka")]
mod consumer;
#[cfg(any(feature = "kafka", test))]
mod offsets;
#[cfg(all(feature = "kafka", test))]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Receivers;
use crate::support::duration::Duration;
use crate::support::kafka::{Cluster, DEFAULT_TOPIC, SaslOptions, TlsOptions};
use crate::support::stop::Stop;

/// Messages under way at once: enough for one fsync to serve many.
#[cfg(any(feature = "kafka", test))]
const MESSAGES_MAX: usize = 512;
/// Bytes of messages under way at once.
#[cfg(any(feature = "kafka", test))]
const BYTES_MAX: usize = 16 << 20;

/// What `[receivers.kafka]` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaOptions {
    /// Some of the cluster's brokers, as `host:port`; the others are learned from them.
    #[schemars(example = ["kafka-0.kafka:9092"])]
    pub brokers: Vec<String>,
    /// The topics.
    #[serde(default = "default_topics")]
    pub topics: Vec<String>,
    /// The consumer group. Each partition goes to one daemon of the group, so a trace is whole at one of them.
    #[serde(default = "default_group")]
    pub group: String,
    /// A name for this daemon that no other of the group has and that stays the same when it starts again, as a pod's of a StatefulSet
    /// does. A daemon that is back within `session_timeout` then keeps its partitions, and recognises what it had taken already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "${HOSTNAME}")]
    pub instance: Option<String>,
    /// After how long without a sign of life a daemon's partitions go to others.
    #[serde(default = "default_session_timeout")]
    pub session_timeout: Duration,
    /// The tenant of messages: what their header `spanferry-tenant` says, where that is trusted; else this.
    #[serde(default)]
    pub tenant: String,
    /// Whether the header `spanferry-tenant` is believed. Whoever may write to the topics can then send as any tenant.
    #[serde(default)]
    pub trust_tenants: bool,
    /// TLS towards the brokers; `tls = {}` trusts the authorities of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsOptions>,
    /// The user, where the cluster wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslOptions>,
}

fn default_topics() -> Vec<String> {
    vec![DEFAULT_TOPIC.to_owned()]
}

fn default_group() -> String {
    "spanferry".to_owned()
}

/// Kafka's own: a daemon that is killed is back within that.
fn default_session_timeout() -> Duration {
    std::time::Duration::from_secs(45).into()
}

impl KafkaOptions {
    /// The first thing that is wrong with them, and what to do.
    pub(super) fn mistake(&self) -> Option<(String, &'static str)> {
        let empty = |text: &String| text.trim().is_empty();
        let own = [
            (self.topics.is_empty() || self.topics.iter().any(empty), "`topics` names none"),
            (empty(&self.group), "`group` is empty"),
        ];
        let own = own.into_iter().filter(|(is_wrong, _)| *is_wrong);
        let own = own.map(|(_, what)| (what, "leave it out for the default"));
        let cluster = self.cluster().mistakes().into_iter().map(|(_, what, hint)| (what, hint));
        let (what, hint) = own.chain(cluster).next()?;
        Some((format!("kafka: {what}"), hint))
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster { brokers: &self.brokers, tls: self.tls.as_ref(), sasl: self.sasl.as_ref() }
    }
}

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
