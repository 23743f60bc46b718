//! Settings of the receivers.

use std::time::Duration;

use hyper::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::support::address::{self, Address};
use crate::support::byte_size::ByteSize;
use crate::support::problem::Problem;
use crate::support::secret::Secret;
use crate::support::{duration, written::As};

/// Settings of the receivers. The sentences are those of the starter file and the schema.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverOptions {
    /// Where the Agents SDK's ingest and OTLP over HTTP are served.
    #[serde(deserialize_with = "address::text")]
    #[schemars(with = "Address")]
    pub http: String,
    /// Where OTLP over gRPC is served.
    #[serde(deserialize_with = "address::text")]
    #[schemars(with = "Address")]
    pub grpc: String,
    /// The most that a request's body may take as it comes over the wire; above it the answer is 413.
    #[serde(with = "As::<ByteSize>")]
    pub body_bytes_max: usize,
    /// The most that a request's body may take once it is decompressed; above it the answer is 413.
    #[serde(with = "As::<ByteSize>")]
    pub body_bytes_max_inflated: usize,
    /// The most that all requests in flight may take in memory together. Above it requests wait a moment, and are then told to come again;
    /// one that can need more than three quarters of it alone is refused for good.
    // The other quarter, or one largest body, is for bodies that are still coming.
    #[serde(with = "As::<ByteSize>")]
    pub in_flight_bytes_max: usize,
    /// The most connections on each port. Beyond it the one that has been idle the longest gives way.
    pub connections_max: usize,
    /// How long a body may pause before its connection is closed.
    #[serde(with = "As::<duration::Duration>")]
    pub body_idle_timeout: Duration,
    /// How long requests in flight may take to finish when the daemon stops.
    #[serde(with = "As::<duration::Duration>")]
    pub drain_timeout: Duration,
    /// Serve the paths that clients build by mistake or for other products as well: doubled ones, a slash behind them
    /// and Langfuse's.
    pub path_aliases: bool,
    /// What happens to metrics, logs and profiles, which are not stored: `ack` answers that, in a form that no client tries again;
    /// `reject` answers like an unknown path.
    pub other_signals: OtherSignals,
    /// The keys that are let in, each with a name for its holder: `[{ token = "${KEY}", tenant = "shop" }]`. Without any, everybody is.
    pub tokens: Vec<TokenOptions>,
    /// Web pages that may send from a browser: a request with an `Origin` that is not among them is refused. Without it none may.
    pub cors: Option<CorsOptions>,
}

/// A key that is let in.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenOptions {
    /// The key: what follows `Bearer`, `user:password` for `Basic`, or the value of `x-api-key` or `api-key`.
    #[serde(with = "As::<Secret>")]
    pub token: String,
    /// What its holder is called in everything that is stored.
    pub tenant: String,
}

/// Web pages that may send from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsOptions {
    /// Origins such as `https://app.example.com`; `*` stands for any text within one.
    #[schemars(example = ["https://app.example.com"])]
    pub allowed_origins: Vec<String>,
    /// Request headers that are allowed beside those that OpenTelemetry and the Agents SDK send.
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    /// How long a browser may remember the answer.
    #[serde(default = "cors_max_age", with = "As::<duration::Duration>")]
    pub max_age: Duration,
}

/// What happens to signals that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtherSignals {
    /// They are answered with success, and with a partial success that says they are not stored. Nobody resends them.
    #[default]
    Ack,
    /// They are answered like an unknown path.
    Reject,
}

/// Loopback: the key that the Agents SDK sends is a real one, and containers of one pod share the loopback.
pub const DEFAULT_HTTP: &str = "127.0.0.1:4318";
/// Loopback, on the port that OTLP over gRPC has everywhere.
pub const DEFAULT_GRPC: &str = "127.0.0.1:4317";
/// The limit of the OTLP specification. Agent spans are large: requests above 16 MiB were seen.
pub const DEFAULT_BODY_BYTES_MAX: usize = 64 << 20;
/// The same limit, which the specification sets for what is inside as well.
pub const DEFAULT_BODY_BYTES_MAX_INFLATED: usize = 64 << 20;
/// One request of the largest size fits, also compressed or in JSON, which is kept beside what it is transcoded to; half of the
/// 512 MiB that a container often has, and seldom used.
pub const DEFAULT_IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// Stays below the 1,024 open files that many systems allow, with room for the journal and the sinks.
pub const DEFAULT_CONNECTIONS_MAX: usize = 768;
/// Clients give up after ten seconds; three times that is nobody who still sends.
pub const DEFAULT_BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A request is answered within its fsync; five seconds cover a disk that is busy.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Browsers cap it at two hours or less.
pub const DEFAULT_CORS_MAX_AGE: Duration = Duration::from_hours(2);

fn cors_max_age() -> Duration {
    DEFAULT_CORS_MAX_AGE
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            http: DEFAULT_HTTP.to_owned(),
            grpc: DEFAULT_GRPC.to_owned(),
            body_bytes_max: DEFAULT_BODY_BYTES_MAX,
            body_bytes_max_inflated: DEFAULT_BODY_BYTES_MAX_INFLATED,
            in_flight_bytes_max: DEFAULT_IN_FLIGHT_BYTES_MAX,
            connections_max: DEFAULT_CONNECTIONS_MAX,
            body_idle_timeout: DEFAULT_BODY_IDLE_TIMEOUT,
            drain_timeout: DEFAULT_DRAIN_TIMEOUT,
            path_aliases: true,
            other_signals: OtherSignals::default(),
            tokens: Vec::new(),
            cors: None,
        }
    }
}

impl ReceiverOptions {
    /// Every mistake that can be seen without opening a port.
    pub fn check(&self) -> Vec<Problem> {
        // While it comes, and then as it came and decompressed.
        let coming = self.body_bytes_max.saturating_mul(2);
        let largest = coming.saturating_add(self.body_bytes_max_inflated);
        let mut problems = Vec::new();
        let mut problem = |what: &str, hint: String| {
            problems.push(Problem { at: None, what: what.to_owned(), hint: Some(hint) });
        };
        if self.in_flight_bytes_max < largest {
            problem(
                "in_flight_bytes_max has no room for one request of the largest size",
                format!("twice body_bytes_max and body_bytes_max_inflated are {largest} bytes"),
            );
        }
        if self.body_bytes_max == 0 || self.body_bytes_max_inflated == 0 {
            problem("a body limit of 0 refuses every request", "leave it out for 64MiB".to_owned());
        }
        if self.connections_max == 0 {
            problem("connections_max = 0 lets nobody in", "leave it out for 768".to_owned());
        }
        if self.tokens.iter().any(|token| token.token.trim().is_empty()) {
            problem("a token is empty", "is the variable it comes from set?".to_owned());
        }
        let cors = self.cors.as_ref();
        let mut own = cors.iter().flat_map(|cors| &cors.allowed_headers);
        if own.any(|name| name.parse::<HeaderName>().is_err()) {
            problem(
                "cors.allowed_headers has a name that no header can have",
                "a name has letters, digits and hyphens".to_owned(),
            );
        }
        if cors.is_some_and(|cors| cors.allowed_origins.is_empty()) {
            problem(
                "cors allows no origin",
                "name them in allowed_origins, or leave cors out".to_owned(),
            );
        }
        problems
    }
}

impl std::fmt::Debug for TokenOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TokenOptions").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(ReceiverOptions::default().check(), []);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let options = ReceiverOptions {
            in_flight_bytes_max: 1 << 20,
            body_bytes_max: 0,
            connections_max: 0,
            tokens: vec![TokenOptions { token: " ".to_owned(), tenant: String::new() }],
            cors: Some(CorsOptions {
                allowed_origins: Vec::new(),
                allowed_headers: vec!["two words".to_owned()],
                max_age: DEFAULT_CORS_MAX_AGE,
            }),
            ..ReceiverOptions::default()
        };
        assert_eq!(options.check().len(), 6);
    }

    #[test]
    fn a_token_is_not_printed() {
        let options = TokenOptions { token: "sk-hunter2".to_owned(), tenant: "a".to_owned() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
