//! Settings of the receivers.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kafka_options::KafkaOptions;
use crate::server::TlsOptions;
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::kafka::{IS_BUILT, NOT_BUILT};
use crate::support::problem::{Mistake, Mistakes};
use crate::support::secret::Secret;
use crate::support::{duration, written::As};

/// Settings of the receivers. The sentences are those of the starter file and the schema.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverOptions {
    /// Where the Agents SDK's ingest and OTLP over HTTP are served: an address with a port, or a Unix socket such as
    /// `unix:/run/spanferry/http.sock`. Its user and group may connect; append `?mode=0666` to let everybody connect.
    pub http: Address,
    /// Where OTLP over gRPC is served, in the same form.
    pub grpc: Address,
    /// The largest request body on the wire; larger ones get 413.
    #[serde(with = "As::<ByteSize>")]
    pub body_bytes_max: usize,
    /// The largest request body after decompression; larger ones get 413.
    #[serde(with = "As::<ByteSize>")]
    pub body_bytes_max_inflated: usize,
    /// The most memory for all requests in flight. Above it requests wait a moment and are then told to retry; a request that may need more
    /// than three quarters of it alone is refused with 413.
    // The other quarter, or one largest body, is for bodies that are still coming.
    #[serde(with = "As::<ByteSize>")]
    pub in_flight_bytes_max: usize,
    /// The maximum number of connections on each port. Beyond it, a connection that never carried a request is closed, or the one that has
    /// been idle the longest.
    pub connections_max: usize,
    /// How long a body may stall before its connection is closed.
    #[serde(with = "As::<duration::Duration>")]
    pub body_idle_timeout: Duration,
    /// How long requests in flight may take to finish when the daemon stops.
    #[serde(with = "As::<duration::Duration>")]
    pub drain_timeout: Duration,
    /// Also serve paths that clients build by mistake or for other products: doubled ones, ones with a trailing slash, and Langfuse's.
    pub path_aliases: bool,
    /// What happens to metrics, logs and profiles, which are not stored: `ack` says so in a form that no client retries; `reject` answers
    /// as for an unknown path.
    pub other_signals: OtherSignals,
    /// A prefix such as `/otel` under which every path is also served: for clients and proxies that add one.
    pub base_path: String,
    /// The accepted keys, each with a name for its holder: `[{ token = "${KEY}", tenant = "shop" }]`. Without any, everybody is accepted,
    /// unless `tls.client_ca` requires certificates. Clients send a key as `Authorization: Bearer KEY`, as `Authorization: Basic` of
    /// `user:password`, as `x-api-key` or as `api-key`; over gRPC in metadata of these names.
    pub tokens: Vec<TokenOptions>,
    /// TLS on both ports. Without it they speak plain HTTP.
    pub tls: Option<TlsOptions>,
    /// Limits for each tenant. Beyond it OTLP clients get 429 (gRPC `RESOURCE_EXHAUSTED`) and the Agents SDK gets 503, both with the time
    /// to wait. Clients without a tenant share one limit.
    pub limits: Option<LimitOptions>,
    /// Web pages that may send from a browser: requests with any other `Origin` are refused. Without this, no page may.
    pub cors: Option<CorsOptions>,
    /// Kafka topics to consume, in addition to the ports above. Needs a build with Kafka (docs/kafka.md).
    pub kafka: Option<KafkaOptions>,
}

/// A key that is let in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenOptions {
    /// The key: what follows `Bearer`, `user:password` for `Basic`, or the value of `x-api-key` or `api-key`.
    pub token: Secret,
    /// The tenant's name, which is stored with everything its holder sends.
    pub tenant: String,
}

/// Limits for each tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitOptions {
    /// Spans, trace objects and other items per second; bursts of ten seconds' worth are allowed.
    #[schemars(example = 5000)]
    pub items_per_second: Option<u64>,
    /// Bytes of request bodies per second, on the wire.
    #[schemars(example = "8MiB")]
    pub bytes_per_second: Option<ByteSize>,
    /// Tenants with their own limits, such as `shop = { items_per_second = 20000 }`; a limit that is left out is as above.
    pub tenants: BTreeMap<String, RateOptions>,
}

/// How much one tenant may send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateOptions {
    /// Spans, trace objects and other items a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items_per_second: Option<u64>,
    /// Bytes of request bodies per second, on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteSize>,
}

impl LimitOptions {
    /// Returns a tenant's limits of items and bytes per second.
    pub(super) fn of(&self, tenant: &str) -> (Option<u64>, Option<u64>) {
        let own = self.tenants.get(tenant).cloned().unwrap_or_default();
        let bytes = own.bytes_per_second.or(self.bytes_per_second);
        (own.items_per_second.or(self.items_per_second), bytes.map(|ByteSize(bytes)| bytes))
    }

    /// Returns whether any limit is 0.
    fn lets_nothing_in(&self) -> bool {
        let of = |tenant: &String| self.of(tenant);
        let all = self.tenants.keys().map(of).chain([self.of("")]);
        all.flat_map(|(items, bytes)| [items, bytes]).any(|limit| limit == Some(0))
    }
}

/// Web pages that may send from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsOptions {
    /// Origins such as `https://app.example.com`; `*` matches any text.
    #[schemars(example = ["https://app.example.com"])]
    pub allowed_origins: Vec<String>,
    /// Request headers to allow in addition to those that OpenTelemetry and the Agents SDK send.
    #[serde(default)]
    pub allowed_headers: Vec<String>,
    /// How long a browser may remember the answer.
    #[serde(default = "cors_max_age", with = "As::<duration::Duration>")]
    pub max_age: Duration,
}

/// How to answer signals that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtherSignals {
    /// Success, with a partial success that says they are not stored, so that clients do not resend them.
    #[default]
    Ack,
    /// They are answered like an unknown path.
    Reject,
}

/// Loopback: the Agents SDK sends a real key, and the containers of a pod share the loopback.
pub const DEFAULT_HTTP: Address = Address::loopback(4318);
/// Loopback, on the standard port of OTLP over gRPC.
pub const DEFAULT_GRPC: Address = Address::loopback(4317);
/// Browsers limit it to two hours or less.
pub const DEFAULT_CORS_MAX_AGE: Duration = Duration::from_hours(2);

fn cors_max_age() -> Duration {
    DEFAULT_CORS_MAX_AGE
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            http: DEFAULT_HTTP,
            grpc: DEFAULT_GRPC,
            // The limit in the OTLP specification. Agent spans are large: requests above 16 MiB were seen.
            body_bytes_max: 64 << 20,
            // The specification sets the same limit for the decompressed size.
            body_bytes_max_inflated: 64 << 20,
            // A request of the maximum size fits, even if it is compressed or in JSON, which is kept in addition to its transcoded form.
            // This is half of the 512 MiB that a container often has, and rarely used.
            in_flight_bytes_max: 256 << 20,
            // Enough for some hundred apps with one or two connections each, on either port; a Collector needs one.
            connections_max: 768,
            // Clients give up after ten seconds; after three times that, the client is no longer sending.
            body_idle_timeout: Duration::from_secs(30),
            // A request is answered within its fsync; five seconds suffice for a busy disk.
            drain_timeout: Duration::from_secs(5),
            path_aliases: true,
            other_signals: OtherSignals::default(),
            base_path: String::new(),
            tokens: Vec::new(),
            tls: None,
            limits: None,
            cors: None,
            kafka: None,
        }
    }
}

impl ReceiverOptions {
    /// Returns every mistake that can be found without opening a port.
    pub fn check(&self) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        // A body takes memory while it arrives, and then as received and decompressed.
        let coming = self.body_bytes_max.saturating_mul(2);
        let largest = coming.saturating_add(self.body_bytes_max_inflated);
        let cors = self.cors.as_ref();
        let mut headers = cors.iter().flat_map(|cors| &cors.allowed_headers);
        let limits = self.limits.as_ref();
        let knows_tenants = self.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none());
        let mut limited = limits.iter().flat_map(|limits| limits.tenants.keys());
        let is_tenant = |name: &String| self.tokens.iter().any(|token| token.tenant == *name);
        #[rustfmt::skip]
        found.note_all([
            (self.in_flight_bytes_max < largest, "in_flight_bytes_max", "in_flight_bytes_max has no room for one request of the largest size",
                "it takes twice body_bytes_max, and body_bytes_max_inflated"),
            (self.body_bytes_max == 0 || self.body_bytes_max_inflated == 0, "", "a body limit of 0 refuses every request", "leave it out for 64MiB"),
            (self.connections_max == 0, "connections_max", "with connections_max = 0 nobody can connect", "leave it out for 768"),
            (self.body_idle_timeout.is_zero(), "body_idle_timeout", "no body comes without a pause", "leave it out for 30s"),
            (self.tokens.iter().any(|token| token.token.reveal().trim().is_empty()), "tokens", "a token is empty", "is its variable set?"),
            (self.tokens.iter().any(|one| self.tokens.iter().any(|other| one.token == other.token && one.tenant != other.tenant)),
                "tokens", "two tenants have the same token", "give each tenant its own"),
            (!is_base_path(&self.base_path), "base_path", "base_path is not a path", "write for example \"/otel\", without a slash at its end"),
            (limits.is_some_and(LimitOptions::lets_nothing_in), "limits", "a limit of 0 refuses everything", "leave it out for no limit"),
            (knows_tenants && limited.any(|name| !is_tenant(name)), "limits", "limits.tenants names a tenant without a token",
                "tenants are named in `tokens`"),
            (headers.any(|name| name.parse::<HeaderName>().is_err()), "cors", "cors.allowed_headers has an invalid header name",
                "a header name has letters, digits and hyphens"),
            (cors.is_some_and(|cors| cors.allowed_origins.is_empty()), "cors", "cors allows no origin", "name them in allowed_origins, or leave cors out"),
            (cors.is_some_and(|cors| !cors.allowed_origins.iter().all(|it| is_origin(it))), "cors", "cors.allowed_origins has an invalid origin",
                "an origin is a scheme and a host without a path: \"https://app.example.com\""),
            (self.kafka.is_some() && !IS_BUILT, "kafka", "this build has no Kafka", NOT_BUILT.1),
        ]);
        found.0.extend(self.tls.iter().flat_map(TlsOptions::mistakes));
        let of_kafka = self.kafka.as_ref().and_then(KafkaOptions::mistake);
        found.0.extend(of_kafka.map(|mistake| Mistake { option: "kafka", ..mistake }));
        found.0
    }

    /// Returns the option that lets any client send from other machines, with a sentence about it.
    pub fn exposed(&self) -> Option<(&'static str, String)> {
        let is_closed =
            !self.tokens.is_empty() || self.tls.as_ref().is_some_and(TlsOptions::is_mutual);
        let listeners = [("http", &self.http), ("grpc", &self.grpc)];
        let (option, listen) = listeners.into_iter().find(|(_, listen)| listen.is_exposed())?;
        let who = format!("anybody who can reach receivers.{option} ({listen}) may send");
        (!is_closed).then(|| (option, who + ": there are no receivers.tokens"))
    }
}

/// Returns whether a path can be a prefix; an empty one can.
fn is_base_path(path: &str) -> bool {
    let is_clean = path.starts_with('/') && !path.ends_with('/') && !path.contains("//");
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte);
    path.is_empty() || (is_clean && path.bytes().all(is_plain))
}

/// Returns whether a browser can send this origin; `*` may stand for its scheme.
fn is_origin(origin: &str) -> bool {
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    let has_scheme = host.len() < origin.len() || host.starts_with('*') || host == "null";
    has_scheme && !host.is_empty() && !host.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ClientAuth;

    #[test]
    fn what_everybody_can_reach_is_told_unless_somebody_is_asked_who_they_are() {
        let options = |http: &str| ReceiverOptions {
            http: http.parse().unwrap(),
            ..ReceiverOptions::default()
        };
        for http in ["127.0.0.1:4318", "unix:/run/a.sock?mode=0666"] {
            assert_eq!(options(http).exposed(), None, "{http}");
        }
        let exposed = options("0.0.0.0:4318");
        assert_eq!(exposed.exposed().map(|(option, _)| option), Some("http"));
        let token = TokenOptions { token: "a".to_owned().into(), tenant: String::new() };
        let with_token = ReceiverOptions { tokens: vec![token], ..exposed.clone() };
        assert_eq!(with_token.exposed(), None);
        for (client_auth, is_exposed) in [(None, false), (Some(ClientAuth::Optional), true)] {
            let key = Secret::from(String::new());
            let (cert, client_ca) = (String::new(), Some(String::new()));
            let tls = Some(TlsOptions { cert, key, client_ca, client_auth });
            let options = ReceiverOptions { tls, ..exposed.clone() };
            assert_eq!(options.exposed().is_some(), is_exposed, "{client_auth:?}");
        }
    }

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
            body_idle_timeout: Duration::ZERO,
            base_path: "otel/".to_owned(),
            limits: Some(LimitOptions {
                items_per_second: Some(0),
                tenants: [("shop".to_owned(), RateOptions::default())].into(),
                ..LimitOptions::default()
            }),
            tls: Some(TlsOptions {
                cert: String::new(),
                key: Secret::from(String::new()),
                client_ca: None,
                client_auth: Some(ClientAuth::Required),
            }),
            tokens: ["", "a"]
                .map(|tenant| TokenOptions { token: " ".to_owned().into(), tenant: tenant.into() })
                .into(),
            cors: Some(CorsOptions {
                allowed_origins: Vec::new(),
                allowed_headers: vec!["two words".to_owned()],
                max_age: DEFAULT_CORS_MAX_AGE,
            }),
            ..ReceiverOptions::default()
        };
        assert_eq!(options.check().len(), 13);
    }

    #[test]
    fn what_no_request_can_have_is_no_path_and_no_origin() {
        for (path, is_good) in [
            ("", true),
            ("/otel", true),
            ("/a?b", false),
            ("/a#b", false),
            ("/a%62", false),
            ("/", false),
        ] {
            assert_eq!(is_base_path(path), is_good, "{path}");
        }
        for (origin, is_good) in [
            ("*", true),
            ("null", true),
            ("https://*.example.com", true),
            ("*.example.com:8443", true),
            ("capacitor://localhost", true),
            ("", false),
            ("https://", false),
            ("app.example.com", false),
            ("https://app.example.com/", false),
        ] {
            assert_eq!(is_origin(origin), is_good, "{origin}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let options =
            TokenOptions { token: "sk-hunter2".to_owned().into(), tenant: "a".to_owned() };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
