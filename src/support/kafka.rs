//! The connection to a Kafka cluster: options shared by the sink and the receiver, and the client library's settings.
//!
//! The client is librdkafka, through the crate `rdkafka`; docs/kafka.md explains why. It is only in builds with the feature `kafka`; the
//! options are in all builds, so that a configuration is checked the same everywhere.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::{Mistake, Mistakes};
use super::secret::Secret;

/// The problem of a configuration that uses Kafka in a build without it, and its solution.
pub const NOT_BUILT: (&str, &str) = (
    "this build of spanferry has no Kafka support",
    "use the image whose tag ends with `-kafka`, or build with `cargo build --release --features kafka`",
);
/// Whether this build includes Kafka.
pub const IS_BUILT: bool = cfg!(feature = "kafka");

/// The topic that the OpenTelemetry Collector's Kafka exporter and receiver use.
pub const DEFAULT_TOPIC: &str = "otlp_spans";
/// The message header with the tenant of the message's contents.
pub const TENANT_HEADER: &str = "spanferry-tenant";
/// The message header with the time at which the contents were first received, in nanoseconds since 1970.
pub const RECEIVED_HEADER: &str = "spanferry-received-at";

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// A PEM file with the only certificate authorities to trust. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/spanferry/tls/kafka-ca.crt")]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client certificate, if the brokers require one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/spanferry/tls/tls.crt")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the client certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = "/etc/spanferry/tls/tls.key")]
    pub key_file: Option<PathBuf>,
}

/// A user of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaslOptions {
    /// `SCRAM-SHA-512`, `SCRAM-SHA-256`, or `PLAIN`, which sends the password in clear text: with TLS only.
    #[serde(default)]
    pub mechanism: Mechanism,
    /// The user.
    #[schemars(example = &"spanferry")]
    pub username: String,
    /// The user's password.
    #[schemars(example = "...")]
    pub password: Secret,
}

/// The authentication mechanism, by its name in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum Mechanism {
    /// RFC 5802 with SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password itself.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// The connection to a cluster: options that the sink and the receiver share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Cluster {
    /// Some of the cluster's brokers, as `host:port`; the rest are discovered.
    #[schemars(extend("examples" = [["kafka-0.kafka:9092"]]))]
    pub brokers: Vec<String>,
    /// TLS to the brokers; `tls = {}` trusts the system's certificate authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "ca_file": "/etc/spanferry/tls/kafka-ca.crt" }]))]
    pub tls: Option<TlsOptions>,
    /// Credentials, if the cluster requires them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{ "username": "spanferry", "password": "..." }]))]
    pub sasl: Option<SaslOptions>,
}

impl Cluster {
    /// Returns every mistake in the options.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let is_broker = |broker: &String| {
            broker.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty()
                    && !host.contains([',', '/', ' '])
                    && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        };
        let (tls, sasl) = (self.tls.as_ref(), self.sasl.as_ref());
        let half_pair = tls.is_some_and(|tls| tls.cert_file.is_some() != tls.key_file.is_some());
        let is_empty = |sasl: &SaslOptions| {
            sasl.username.trim().is_empty() || sasl.password.reveal().is_empty()
        };
        let mut found = Mistakes::default();
        #[rustfmt::skip]
        found.note_all([
            (self.brokers.is_empty() || !self.brokers.iter().all(is_broker),
                "brokers", "`brokers` is a list of hosts with ports", "write for example [\"kafka-0.kafka:9092\", \"kafka-1.kafka:9092\"]"),
            (half_pair, "tls", "`tls.cert_file` and `tls.key_file` go together", "set both or neither"),
            (sasl.is_some_and(is_empty),
                "sasl", "`sasl` requires a user and a password", "is their variable set?"),
            (tls.is_none() && sasl.is_some_and(|sasl| sasl.mechanism == Mechanism::Plain),
                "sasl", "`sasl` with PLAIN and without TLS sends the password in clear text", "add `tls = {}`, or use SCRAM-SHA-512"),
        ]);
        found.0
    }
}

#[cfg(feature = "kafka")]
pub use client::{ClientTrouble, Context, is_refusal};

#[cfg(feature = "kafka")]
mod client {
    use std::sync::{Arc, Mutex};

    use rdkafka::client::ClientContext;
    use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    use serde_json::json;
    use tracing::{debug, warn};

    use super::Cluster;
    use crate::support::lock::lock;

    impl Cluster {
        /// Returns the client's settings.
        pub fn config(&self) -> ClientConfig {
            let mut config = ClientConfig::new();
            let sasl = if self.sasl.is_some() { "sasl_" } else { "" };
            let transport = if self.tls.is_some() { "ssl" } else { "plaintext" };
            config
                .set("bootstrap.servers", self.brokers.join(","))
                .set("client.id", "spanferry")
                .set("security.protocol", format!("{sasl}{transport}"))
                // An automatically created topic has the cluster's defaults, which are seldom durable.
                .set("allow.auto.create.topics", "false")
                .set("reconnect.backoff.max.ms", "2000")
                .set("log.connection.close", "false");
            let tls = self.tls.clone().unwrap_or_default();
            for (key, file) in [
                ("ssl.ca.location", tls.ca_file),
                ("ssl.certificate.location", tls.cert_file),
                ("ssl.key.location", tls.key_file),
            ] {
                if let Some(file) = file {
                    config.set(key, file.display().to_string());
                }
            }
            if let Some(sasl) = &self.sasl {
                config
                    .set("sasl.mechanism", json!(sasl.mechanism).as_str().unwrap_or_default())
                    .set("sasl.username", &sasl.username)
                    .set("sasl.password", sasl.password.reveal());
            }
            config
        }
    }

    /// The last error that a client found by itself, apart from failed requests.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ClientTrouble {
        /// Whether an operator has to fix it: credentials or certificates.
        pub is_refusal: bool,
        /// The error in the library's words, without payload and credentials.
        pub what: String,
    }

    /// Receives the client's own log and errors. A handle: clones share it.
    #[derive(Debug, Clone, Default)]
    pub struct Context(Arc<Mutex<Option<ClientTrouble>>>);

    impl Context {
        /// Returns the current error.
        pub fn trouble(&self) -> Option<ClientTrouble> {
            lock(&self.0).clone()
        }

        /// Returns an error of the client if it is more specific than the current one.
        pub fn news(&self, error: &KafkaError, reason: &str) -> Option<ClientTrouble> {
            let is_refusal = error.rdkafka_error_code().is_some_and(is_refusal);
            // With wrong credentials, all brokers are "down" too, which is less specific.
            let is_known = !is_refusal && self.trouble().is_some_and(|known| known.is_refusal);
            (!is_known).then(|| ClientTrouble { is_refusal, what: reason.to_owned() })
        }

        /// Sets or clears the current error.
        pub fn set_trouble(&self, trouble: Option<ClientTrouble>) {
            *lock(&self.0) = trouble;
        }
    }

    impl ClientContext for Context {
        fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
            match level {
                RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(fac, "{message}"),
                // Producers' and consumers' options come from one table.
                _ if fac == "CONFWARN" => debug!(fac, "{message}"),
                _ => warn!(fac, "librdkafka: {message}"),
            }
        }

        fn error(&self, error: KafkaError, reason: &str) {
            if let Some(news) = self.news(&error, reason) {
                self.set_trouble(Some(news));
            }
        }
    }

    /// Returns whether an error means that an operator has to fix credentials, certificates or permissions.
    pub fn is_refusal(code: RDKafkaErrorCode) -> bool {
        use RDKafkaErrorCode as Code;
        matches!(
            code,
            Code::Authentication
                | Code::SSL
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedSASLMechanism
                | Code::IllegalSASLState
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once_and_good_options_have_none() {
        let brokers = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        let plain = SaslOptions {
            mechanism: Mechanism::Plain,
            username: "a".to_owned(),
            password: Secret::from(String::new()),
        };
        let half = TlsOptions { key_file: Some("a".into()), ..TlsOptions::default() };
        for (brokers, tls, sasl, expected) in [
            (brokers(&["a:9092", "[::1]:1"]), None, None, &[][..]),
            (brokers(&[]), None, None, &["brokers"]),
            (brokers(&["a"]), None, None, &["brokers"]),
            (
                brokers(&["http://a:1"]),
                Some(half),
                Some(plain.clone()),
                &["brokers", "tls", "sasl"],
            ),
            (brokers(&["a:1"]), None, Some(plain), &["sasl", "sasl"]),
        ] {
            let mistakes = Cluster { brokers: brokers.clone(), tls, sasl }.mistakes();
            let options: Vec<_> = mistakes.iter().map(|mistake| mistake.option).collect();
            assert_eq!(options, expected, "{brokers:?}");
        }
    }
}
