//! Options of the OTLP sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::http::{Address, Compression, ConnectionOptions};
use crate::span::RootSpan;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

/// The options of a `[sinks.name]` table with `type = "otlp"`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// A backend whose address, headers and conventions are known: phoenix, arize, weave, langsmith, braintrust, mlflow, logfire, datadog,
    /// honeycomb, grafana, jaeger, keywordsai, agentops. Other options here take precedence over the preset.
    pub preset: Option<String>,
    /// The base address. Over HTTP `/v1/traces` is added, unless it ends like that; over gRPC only scheme, host and port count.
    pub endpoint: Option<Address>,
    /// The complete address for traces, used as it is, instead of `endpoint`. Over gRPC only scheme, host and port count.
    pub traces_endpoint: Option<Address>,
    /// Where `api_key` is exchanged for a token that is then sent as `authorization`, as AgentOps requires: `{"api_key": ...}` is posted,
    /// and `{"token": ...}` comes back. Over HTTP only.
    pub auth_endpoint: Option<Address>,
    /// `http/protobuf`, `http/json` or `grpc`. Default: http/protobuf, or the preset's.
    pub protocol: Option<Wire>,
    /// Headers for every request; over gRPC its metadata. The values are treated as credentials.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The key, if the preset needs one.
    pub api_key: Option<Secret>,
    /// The project, if the preset needs one: its name, or with mlflow the experiment's id.
    pub project: Option<String>,
    /// The account, if the preset needs one: Arize's space id, Grafana Cloud's instance id, W&B's entity.
    pub account: Option<String>,
    /// Attributes to add to resources that lack them. Agents SDK spans, which name no service, go out as the service `openai-agents`,
    /// unless a `service.name` is set here.
    #[serde(default)]
    pub resource_attributes: BTreeMap<String, String>,
    /// Which attributes Agents SDK spans get: `genai` (OpenTelemetry), `openinference`, or `both`, the default. Spans that arrived as OTLP
    /// are passed on unchanged.
    pub dialect: Option<Dialect>,
    /// Whether Agents SDK spans without a parent are put under one root span, which is sent once their trace has been quiet for ten
    /// seconds: `auto` (unless there is only one and it is a `task`, which is a root by nature), `always`, or `never`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long an Agents SDK span waits for the trace object that names its workflow and group if that has not arrived yet.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
    /// `gzip`, `zstd` or `none`. Default: `gzip`, or `none` for an address on this machine.
    #[schemars(extend("examples" = ["gzip"]))]
    pub compression: Option<Compression>,
    /// The connection.
    #[serde(flatten)]
    pub connection: ConnectionOptions<10>,
    /// The largest request, before compression. Larger batches are split. A single larger span is sent on its own. Default: 4032KiB, since
    /// gRPC's own limit is 4 MiB.
    #[schemars(extend("examples" = ["4032KiB"]))]
    pub request_bytes_max: Option<ByteSize>,
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
