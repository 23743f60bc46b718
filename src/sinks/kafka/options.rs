//! Options of the Kafka sink.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mistake;
use crate::sinks::otlp::Dialect;
use crate::span::RootSpan;
use crate::support::duration::Duration;
use crate::support::kafka::{Cluster, DEFAULT_TOPIC, SaslOptions, TlsOptions};

/// What a `[sinks.name]` table with `type = "kafka"` says.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Some of the cluster's brokers, as `host:port`; the rest are discovered.
    pub brokers: Vec<String>,
    /// The topic. It must exist: it is not created.
    #[serde(default = "default_topic")]
    pub topic: String,
    /// TLS to the brokers; `tls = {}` trusts the system's certificate authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "ca_file": "/etc/spanferry/tls/kafka-ca.crt" }]))]
    pub tls: Option<TlsOptions>,
    /// Credentials, if the cluster requires them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "username": "spanferry", "password": "..." }]))]
    pub sasl: Option<SaslOptions>,
    /// How batches of messages are compressed: `zstd`, `lz4` or `none`.
    #[serde(default)]
    pub compression: Compression,
    /// How long a message may wait for the brokers' acknowledgement before it is retried.
    #[serde(default = "default_timeout")]
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

/// How batches are compressed.
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

/// A broker that was lost has another take its place within half a minute by default (`broker.session.timeout.ms` is 9 s).
fn default_timeout() -> Duration {
    std::time::Duration::from_secs(30).into()
}

impl Options {
    /// What is wrong with them.
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = self.cluster().mistakes();
        let mut wrong = |option, what, hint| mistakes.push(Mistake { option, what, hint });
        if self.topic.trim().is_empty() {
            wrong("topic", "`topic` is empty", "leave it out for otlp_spans");
        }
        if self.timeout.0.as_secs() == 0 {
            wrong(
                "timeout",
                "`timeout` must be a second or more",
                "leave it out, or write \"30s\"",
            );
        }
        mistakes
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> Cluster<'_> {
        Cluster { brokers: &self.brokers, tls: self.tls.as_ref(), sasl: self.sasl.as_ref() }
    }
}
