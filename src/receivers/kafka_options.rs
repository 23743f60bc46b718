//! Options of the Kafka receiver.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::duration::{Duration, seconds};
use crate::support::kafka::{Cluster, DEFAULT_TOPIC};
use crate::support::problem::{Mistake, Mistakes};

/// The options of `[receivers.kafka]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaOptions {
    /// How the cluster is reached.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// The topics.
    #[serde(default = "default_topics")]
    pub topics: Vec<String>,
    /// The consumer group. Each partition goes to one daemon of the group, so each trace is complete in one of them.
    #[serde(default = "default_group")]
    pub group: String,
    /// A name for this daemon that is unique in the group and stays the same across restarts, such as a `StatefulSet` pod's. A daemon that
    /// is back within `session_timeout` then keeps its partitions and recognises what it had already received.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "${HOSTNAME}")]
    pub instance: Option<String>,
    /// How long after a daemon's last heartbeat its partitions go to others.
    // Kafka's own default: a killed daemon is back within that time.
    #[serde(default = "seconds::<45>")]
    pub session_timeout: Duration,
    /// The tenant of messages, unless their header `spanferry-tenant` names one and is trusted.
    #[serde(default)]
    pub tenant: String,
    /// Whether to trust the header `spanferry-tenant`. Anybody who may write to the topics can then send as any tenant.
    #[serde(default)]
    pub trust_tenants: bool,
}

fn default_topics() -> Vec<String> {
    vec![DEFAULT_TOPIC.to_owned()]
}

fn default_group() -> String {
    "spanferry".to_owned()
}

impl KafkaOptions {
    /// Returns the first mistake in the options.
    pub(super) fn mistake(&self) -> Option<Mistake> {
        let empty = |text: &String| text.trim().is_empty();
        let (is_empty, hint) = (self.topics.is_empty(), "leave it out for the default");
        let mut found = Mistakes::default();
        found.note_all([
            (is_empty || self.topics.iter().any(empty), "topics", "`topics` names none", hint),
            (empty(&self.group), "group", "`group` is empty", hint),
        ]);
        found.0.into_iter().chain(self.cluster.mistakes()).next()
    }
}
