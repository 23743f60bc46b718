//! Options of the OTLP sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::http::{Address, ClientOptions, Compression, TlsOptions};
use crate::span::RootSpan;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

/// What a `[sinks.name]` table with `type = "otlp"` says.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A backend whose address, headers and habits are known: phoenix, arize, weave, langsmith, braintrust, mlflow, logfire,
    /// datadog, honeycomb, grafana, jaeger, keywordsai, agentops. Whatever else is said here goes before what the preset says.
    pub preset: Option<String>,
    /// The base address. Over HTTP `/v1/traces` is added, unless it ends like that; over gRPC only scheme, host and port count.
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<Address>,
    /// The whole address of the traces, taken as it is; it goes before `endpoint`. Over gRPC only scheme, host and port count.
    #[schemars(with = "Option<String>")]
    pub traces_endpoint: Option<Address>,
    /// Where `api_key` is exchanged for a token that is then sent as `authorization`, as AgentOps wants it: it is posted as
    /// `{"api_key": ...}`, and `{"token": ...}` comes back. Over HTTP only.
    #[schemars(with = "Option<String>")]
    pub auth_endpoint: Option<Address>,
    /// `http/protobuf`, `http/json` or `grpc`. http/protobuf where nothing else is said.
    pub protocol: Option<Wire>,
    /// Headers for every request; over gRPC its metadata. The values are treated as credentials.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The key that the preset asks for.
    pub api_key: Option<Secret>,
    /// The project that the preset asks for: its name, or with mlflow the experiment's id.
    pub project: Option<String>,
    /// Who you are there, where the preset asks for it: Arize's space id, Grafana Cloud's instance id, W&B's entity.
    pub account: Option<String>,
    /// Attributes for every resource that does not have them. Spans of the Agents SDK, which names no service, go out as the service
    /// `openai-agents`, unless another `service.name` is given here.
    #[serde(default)]
    pub resource_attributes: BTreeMap<String, String>,
    /// Which attributes spans from the Agents SDK get: `genai` (OpenTelemetry), `openinference`, or `both`, which is the default. Spans
    /// that came as OTLP are passed on as they are.
    pub dialect: Option<Dialect>,
    /// Whether spans of the Agents SDK without a parent are brought together under one root, which is sent once their trace has been
    /// quiet for ten seconds: `auto` (unless there is one alone and it is a `task`, a root by nature), `always`, or `never`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long a span of the Agents SDK waits for the trace object that names its workflow and group, when that was not seen yet.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
    /// `gzip`, `zstd` or `none`. Without it `gzip`, or `none` for an address of this machine.
    #[schemars(extend("examples" = ["gzip"]))]
    pub compression: Option<Compression>,
    /// The longest that a request may take.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// The longest that connecting may take.
    #[serde(default = "crate::sinks::http::default_connect_timeout")]
    pub connect_timeout: Duration,
    /// The largest request, before compression. What is due at once and larger is sent as several. A span that is larger alone is
    /// sent alone. Without it 4032KiB, since gRPC's own limit is 4 MiB.
    #[schemars(extend("examples" = ["4032KiB"]))]
    pub request_bytes_max: Option<ByteSize>,
    /// Certificates, for https.
    #[serde(default)]
    pub tls: TlsOptions,
}

/// How the backend is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum Wire {
    /// Protobuf in the body of a POST.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// JSON in the body of a POST.
    #[serde(rename = "http/json")]
    HttpJson,
    /// Unary gRPC over HTTP/2.
    #[serde(rename = "grpc")]
    Grpc,
}

/// Which attributes Agents SDK spans get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenTelemetry's conventions for generative AI.
    GenAi,
    /// OpenInference's, where it has a word; else OpenTelemetry's.
    OpenInference,
    /// Both, at twice the size.
    #[default]
    Both,
}

fn default_timeout() -> Duration {
    ClientOptions::default().timeout.into()
}
