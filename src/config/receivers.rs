//! `[receivers]`: what the receivers are told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::Layers;
use crate::receivers::{
    CorsOptions, DEFAULT_CORS_MAX_AGE, OtherSignals, ReceiverOptions, TokenOptions,
};
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::problem::Problem;
use crate::support::secret::Secret;

/// `[receivers]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReceiversSection {
    /// Where the Agents SDK's ingest and OTLP over HTTP are served.
    pub(super) http: Address,
    /// Where OTLP over gRPC is served.
    pub(super) grpc: Address,
    /// The most that a request's body may take as it comes over the wire; above it the answer is 413.
    body_bytes_max: ByteSize,
    /// The most that a request's body may take once it is decompressed; above it the answer is 413.
    body_bytes_max_inflated: ByteSize,
    /// The most that all requests in flight may take in memory together. Above it requests wait a moment, and are then told to come again;
    /// one that can need more than three quarters of it alone is refused for good.
    in_flight_bytes_max: ByteSize,
    /// The most connections on each port. Beyond it the one that has been idle the longest gives way.
    connections_max: u32,
    /// How long a body may pause before its connection is closed.
    body_idle_timeout: Duration,
    /// How long requests in flight may take to finish when the daemon stops.
    drain_timeout: Duration,
    /// Serve the paths that clients build by mistake or for other products as well: doubled ones, a slash behind them
    /// and Langfuse's.
    path_aliases: bool,
    /// What happens to metrics, logs and profiles, which are not stored: `ack` answers that, in a form that no client tries again;
    /// `reject` answers like an unknown path.
    other_signals: Others,
    /// The keys that are let in, each with a name for its holder: `[{ token = "${KEY}", tenant = "shop" }]`. Without any, everybody is.
    tokens: Vec<TokenSection>,
    /// Web pages that may send from a browser: a request with an `Origin` that is not among them is refused. Without it none may.
    cors: Option<CorsSection>,
}

/// A key that is let in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenSection {
    /// The key: what follows `Bearer`, `user:password` for `Basic`, or the value of `x-api-key` or `api-key`.
    token: Secret,
    /// What its holder is called in everything that is stored.
    tenant: String,
}

/// `[receivers.cors]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CorsSection {
    /// Origins such as `https://app.example.com`; `*` stands for any text within one.
    #[schemars(example = ["https://app.example.com"])]
    allowed_origins: Vec<String>,
    /// Request headers that are allowed beside those that OpenTelemetry and the Agents SDK send.
    #[serde(default)]
    allowed_headers: Vec<String>,
    /// How long a browser may remember the answer.
    #[serde(default = "cors_max_age")]
    max_age: Duration,
}

/// What happens to signals that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Others {
    /// They are answered with success, and with a partial success that says they are not stored.
    #[default]
    Ack,
    /// They are answered like an unknown path.
    Reject,
}

impl Default for ReceiversSection {
    fn default() -> Self {
        let options = ReceiverOptions::default();
        let size = |bytes: usize| ByteSize(bytes as u64);
        Self {
            http: Address::of_default(&options.http),
            grpc: Address::of_default(&options.grpc),
            body_bytes_max: size(options.body_bytes_max),
            body_bytes_max_inflated: size(options.body_bytes_max_inflated),
            in_flight_bytes_max: size(options.in_flight_bytes_max),
            connections_max: u32::try_from(options.connections_max).unwrap_or(u32::MAX),
            body_idle_timeout: Duration(options.body_idle_timeout),
            drain_timeout: Duration(options.drain_timeout),
            path_aliases: options.path_aliases,
            other_signals: Others::default(),
            tokens: Vec::new(),
            cors: None,
        }
    }
}

impl ReceiversSection {
    /// The options of the receivers.
    pub(super) fn options(&self) -> ReceiverOptions {
        let token = |section: &TokenSection| TokenOptions {
            token: section.token.reveal().to_owned(),
            tenant: section.tenant.clone(),
        };
        let cors = |section: &CorsSection| CorsOptions {
            allowed_origins: section.allowed_origins.clone(),
            allowed_headers: section.allowed_headers.clone(),
            max_age: section.max_age.0,
        };
        ReceiverOptions {
            http: self.http.to_string(),
            grpc: self.grpc.to_string(),
            body_bytes_max: self.body_bytes_max.as_usize(),
            body_bytes_max_inflated: self.body_bytes_max_inflated.as_usize(),
            in_flight_bytes_max: self.in_flight_bytes_max.as_usize(),
            connections_max: usize::try_from(self.connections_max).unwrap_or(usize::MAX),
            body_idle_timeout: self.body_idle_timeout.0,
            drain_timeout: self.drain_timeout.0,
            path_aliases: self.path_aliases,
            other_signals: match self.other_signals {
                Others::Ack => OtherSignals::Ack,
                Others::Reject => OtherSignals::Reject,
            },
            tokens: self.tokens.iter().map(token).collect(),
            cors: self.cors.as_ref().map(cors),
        }
    }

    /// What the receivers find wrong, at the option that it speaks of.
    pub(super) fn problems(&self, layers: &Layers<'_>) -> Vec<Problem> {
        let section = layers.value(&["receivers"]).and_then(|value| value.get_ref().as_table());
        let keys: Vec<_> = section.into_iter().flat_map(|table| table.keys()).collect();
        let place = |what: &str| {
            let named = keys.iter().find(|key| what.contains(key.get_ref().trim_end_matches('s')));
            let path = named.map(|key| ["receivers", key.get_ref()]);
            path.and_then(|path| layers.place(&path)).or_else(|| layers.place(&["receivers"]))
        };
        let found = self.options().check().into_iter();
        found.map(|problem| Problem { at: place(&problem.what), ..problem }).collect()
    }
}

fn cors_max_age() -> Duration {
    Duration(DEFAULT_CORS_MAX_AGE)
}
