//! Options of the Kafka sink.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::otlp::Dialect;
use crate::sinks::{Mistake, Mistakes};
use crate::span::RootSpan;
use crate::support::duration::{Duration, seconds};
use crate::support::kafka::{Cluster, DEFAULT_TOPIC};

/// The options of a `[sinks.name]` table with `type = "kafka"`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// How the cluster is reached.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// The topic. It must exist: it is not created.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// How batches of messages are compressed: `zstd`, `lz4` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// How long a message may wait for the brokers' acknowledgement before it is retried.
    // A lost broker is replaced within half a minute by default (`broker.session.timeout.ms` is 9 s).
    #[serde(default = "seconds::<30>")]
    pub timeout: Duration,
    /// Write to a topic with several replicas even if `min.insync.replicas` is 1: then losing a broker can lose spans that count as
    /// delivered.
    #[serde(default)]
    pub allow_weak_acks: bool,
    /// Which attributes Agents SDK spans get: `genai` (OpenTelemetry), `openinference`, or `both`.
    #[serde(default)]
    pub dialect: Dialect,
    /// Whether Agents SDK spans without a parent are put under one root span: `auto`, `always` or `never`, as for the sink `otlp`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long an Agents SDK span waits for the trace object that names its workflow and group if that has not arrived yet.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
}

/// The compression of batches, by its name in the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The smallest.
    #[default]
    Zstd,
    /// The cheapest.
    Lz4,
    /// Not at all.
    None,
}

fn default_topic() -> String {
    DEFAULT_TOPIC.to_owned()
}

impl Options {
    /// Returns every mistake in the options.
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Mistakes(self.cluster.mistakes());
        #[rustfmt::skip]
        found.note_all([
            (self.topic.trim().is_empty(), "topic", "`topic` is empty", "leave it out for otlp_spans"),
            (self.timeout.0.as_secs() == 0, "timeout", "`timeout` must be a second or more", "leave it out, or write \"30s\""),
        ]);
        found.0
    }
}
