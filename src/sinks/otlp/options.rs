//! Options of the OTLP sink, and what they come to once a preset has filled them in.

use std::collections::BTreeMap;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use hyper::{HeaderMap, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use toml::Spanned;
use toml::de::DeTable;

use super::presets::{PLAIN, PRESETS, Preset};
use super::token::Exchange;
use crate::sinks::http::{
    Address, ClientOptions, Compression, Limits, Protocol, TlsOptions, secret_header,
};
use crate::sinks::{Mistake, Places, TraceUrl};
use crate::span::{Attribute, RootSpan, TraceNeeds, Traced, Value};
use crate::support::base64;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::options::{did_you_mean, read};
use crate::support::problem::Problem;
use crate::support::secret::{REDACTED, Secret};

/// What a `[sinks.name]` table with `type = "otlp"` says.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
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

/// What the options came to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where requests go.
    pub uri: Address,
    /// The protocol.
    pub wire: Wire,
    /// What Agents SDK spans look like.
    pub dialect: Dialect,
    /// What is to be known of traces.
    pub needs: TraceNeeds,
    /// How requests are compressed.
    pub compression: Compression,
    /// The headers that the user or the preset wants.
    pub headers: HeaderMap,
    /// Attributes for resources that do not have them.
    pub resource_attributes: Vec<Attribute>,
    /// Where a token is to be had, for a backend that takes no key.
    pub exchange: Option<Exchange>,
    /// The largest request, in bytes before compression.
    pub request_bytes_max: usize,
    /// The client.
    pub client: ClientOptions,
    /// The preset's name.
    pub preset: Option<&'static str>,
    /// Where a browser shows a trace, where the preset knows it.
    pub trace_url: Option<TraceUrl>,
}

/// The gRPC libraries' own limit for a message is 4 MiB; a request and its frame stay below.
const DEFAULT_REQUEST_BYTES_MAX: ByteSize = ByteSize((4 << 20) - (64 << 10));

/// Where a message of gRPC is posted to.
pub(super) const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const HTTP_PATH: &str = "/v1/traces";

fn default_timeout() -> Duration {
    ClientOptions::default().timeout.into()
}

/// Reads a sink's table and says everything that is wrong with it.
pub(super) fn parse(table: Spanned<DeTable<'_>>) -> Result<Settings, Vec<Problem>> {
    let places = Places::of(&table);
    let options: Options = read(table)?;
    Settler { options: &options, places, problems: Vec::new() }.settle()
}

/// Brings options and preset together.
struct Settler<'a> {
    options: &'a Options,
    places: Places,
    problems: Vec<Problem>,
}

impl Settler<'_> {
    fn settle(mut self) -> Result<Settings, Vec<Problem>> {
        let options = self.options;
        let preset = self.preset();
        let wire = options.protocol.unwrap_or(preset.protocol);
        let uri = self.uri(preset, wire);
        let headers = self.headers(preset, wire);
        let exchange = self.exchange(preset, wire);
        let Options { timeout, connect_timeout, request_bytes_max, tls, .. } = options;
        let request_bytes_max = &request_bytes_max.unwrap_or(DEFAULT_REQUEST_BYTES_MAX);
        let limits = Limits { timeout, connect_timeout, request_bytes_max, tls };
        for Mistake { option, what, hint } in limits.check() {
            self.wrong(option, what.to_owned(), Some(hint.to_owned()));
        }
        let (Some(uri), true) = (uri, self.problems.is_empty()) else { return Err(self.problems) };
        let protocol = if wire == Wire::Grpc { Protocol::Http2 } else { Protocol::Negotiated };
        Ok(Settings {
            uri: uri.to_string().into(),
            wire,
            dialect: options.dialect.unwrap_or(preset.dialect),
            needs: TraceNeeds {
                // What came as OTLP goes out as it is, but for tokens.
                traced: Traced::Spending,
                root: options.root_span,
                context_wait: options.context_wait.into(),
                ..TraceNeeds::default()
            },
            compression: options.compression.unwrap_or_else(|| Compression::toward([&uri])),
            headers,
            exchange,
            resource_attributes: resource_attributes(options, preset),
            request_bytes_max: limits.request_bytes_max.as_usize(),
            client: ClientOptions { protocol, ..limits.client() },
            preset: options.preset.as_ref().map(|_| preset.name),
            trace_url: preset.trace_url.and_then(|template| trace_url(template, &uri)),
        })
    }

    fn preset(&mut self) -> &'static Preset {
        let Some(name) = self.options.preset.as_deref() else { return &PLAIN };
        let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
            let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            let what = format!("no preset is called `{name}`");
            self.wrong("preset", what, did_you_mean(name, &names));
            return &PLAIN;
        };
        for (key, what) in preset.needs {
            let is_there = match *key {
                "api_key" => self.options.api_key.is_some(),
                "project" => self.options.project.is_some(),
                "account" => self.options.account.is_some(),
                _ => self.options.endpoint.is_some() || self.options.traces_endpoint.is_some(),
            };
            if !is_there {
                let what = format!("the preset `{name}` needs `{key}`: {what}");
                self.wrong("preset", what, Some(format!("add `{key} = ...`")));
            }
        }
        preset
    }

    /// Addresses of the user go before all of the preset's, which are for HTTP.
    fn uri(&mut self, preset: &Preset, wire: Wire) -> Option<Uri> {
        let Options { endpoint, traces_endpoint, .. } = self.options;
        let mut given = vec![
            ("traces_endpoint", traces_endpoint.as_ref().map(Address::reveal)),
            ("endpoint", endpoint.as_ref().map(Address::reveal)),
        ];
        if wire != Wire::Grpc {
            given.push(("traces_endpoint", preset.traces_endpoint));
            given.push(("endpoint", preset.endpoint));
        }
        let found = given.into_iter().find(|(_, address)| address.is_some());
        if found.is_none() && !preset.name.is_empty() {
            if wire == Wire::Grpc {
                let what = format!("the preset `{}` has no address for gRPC", preset.name);
                self.wrong("preset", what, Some("add `endpoint = ...`".to_owned()));
            }
            return None;
        }
        let (key, address) = found.unwrap_or(("endpoint", None));
        let base = self.address(key, address)?;
        if wire == Wire::Grpc {
            return with_path(&base, GRPC_PATH);
        }
        if key == "traces_endpoint" {
            return Some(base);
        }
        let path = base.path().trim_end_matches('/');
        with_path(&base, &format!("{}{HTTP_PATH}", path.strip_suffix(HTTP_PATH).unwrap_or(path)))
    }

    fn address(&mut self, key: &'static str, given: Option<&str>) -> Option<Uri> {
        const HINT: &str = "write for example \"https://otel.example.com:4318\"";
        let Some(text) = given else {
            self.wrong("", format!("missing key `{key}`"), Some(HINT.to_owned()));
            return None;
        };
        let address = Address::from(text.to_owned());
        if address.has_credentials() {
            let hint = "put them into `headers`, as `authorization = \"Basic ...\"`";
            self.wrong(key, format!("`{key}` holds credentials"), Some(hint.to_owned()));
        } else if address.uri().is_none() {
            let what = format!("`{key}` is not an address that begins with http:// or https://");
            self.wrong(key, what, Some(HINT.to_owned()));
        }
        address.uri().cloned()
    }

    fn exchange(&mut self, preset: &Preset, wire: Wire) -> Option<Exchange> {
        let own = self.options.auth_endpoint.as_ref().map(Address::reveal);
        let uri = self.address("auth_endpoint", Some(own.or(preset.auth_endpoint)?))?;
        let Some(api_key) = self.options.api_key.clone() else {
            // Where it is the preset that needs one, that was said.
            if preset.auth_endpoint.is_none() {
                let hint = Some("add `api_key = ...`".to_owned());
                self.wrong("auth_endpoint", "there is no key to exchange here".to_owned(), hint);
            }
            return None;
        };
        if wire == Wire::Grpc {
            let hint = Some("leave `protocol` out".to_owned());
            self.wrong("protocol", "a token is kept up over HTTP only".to_owned(), hint);
        }
        Some(Exchange { address: uri.to_string().into(), api_key })
    }

    fn headers(&mut self, preset: &Preset, wire: Wire) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, template) in preset.headers {
            let Some(value) = filled(template, self.options) else { continue };
            if let Some(value) = secret_header(&value) {
                headers.insert(*name, value);
            } else {
                let what = format!("what is to be sent as `{name}` is no header");
                self.wrong("preset", what, None);
            }
        }
        for (name, value) in &self.options.headers {
            let header =
                HeaderName::try_from(name.as_str()).ok().filter(|name| !is_ours(name, wire));
            match (header, secret_header(value.reveal())) {
                (Some(header), Some(value)) => drop(headers.insert(header, value)),
                (header, _) => {
                    let what = match header {
                        None => format!("`{name}` cannot be set as a header"),
                        Some(_) => format!("the value of `{name}` is no header"),
                    };
                    self.wrong("headers", what, None);
                }
            }
        }
        headers
    }

    fn wrong(&mut self, key: &str, what: String, hint: Option<String>) {
        self.problems.push(Problem { at: Some(self.places.of_option(key)), what, hint });
    }
}

/// A preset's template below the address that traces are sent to.
fn trace_url(template: &str, uri: &Uri) -> Option<TraceUrl> {
    match template.strip_prefix("{base}") {
        // What gRPC is sent to is no page.
        Some(path) => TraceUrl::below(uri.to_string().split_once(HTTP_PATH)?.0, path),
        None => template.replace("{host}", uri.host()?).try_into().ok(),
    }
}

fn with_path(base: &Uri, path: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a header is the sink's own matter.
fn is_ours(name: &HeaderName, wire: Wire) -> bool {
    let reserved =
        [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, hyper::header::CONTENT_ENCODING];
    reserved.contains(name)
        || (wire == Wire::Grpc && (name == "te" || name.as_str().starts_with("grpc-")))
}

fn resource_attributes(options: &Options, preset: &Preset) -> Vec<Attribute> {
    let own = options.resource_attributes.iter().map(|(key, value)| (key.clone(), value.clone()));
    let presets = preset.resource.iter();
    let presets = presets.filter_map(|(key, value)| {
        let is_own = options.resource_attributes.contains_key(*key);
        Some(((*key).to_owned(), filled(value, options).filter(|_| !is_own)?))
    });
    own.chain(presets)
        .map(|(key, value)| Attribute { key: key.into(), value: Value::Text(value.into()) })
        .collect()
}

/// A preset's value with its blanks filled; none where one has nothing to be filled with.
fn filled(template: &str, options: &Options) -> Option<String> {
    let key = options.api_key.as_ref().map(Secret::reveal);
    let mut value = template.to_owned();
    for (blank, filling) in [
        ("{api_key}", key.map(str::to_owned)),
        ("{project}", options.project.clone()),
        ("{account}", options.account.clone()),
        ("{basic}", options.account.as_deref().zip(key).map(|(user, key)| basic(user, key))),
    ] {
        if value.contains(blank) {
            value = value.replace(blank, &filling?);
        }
    }
    Some(value)
}

fn basic(user: &str, password: &str) -> String {
    base64::text(format!("{user}:{password}").as_bytes())
}

impl Settings {
    /// What they are, without credentials.
    pub(super) fn expanded(&self) -> toml::Table {
        let address = if self.wire == Wire::Grpc { "endpoint" } else { "traces_endpoint" };
        let headers = self.headers.keys().map(|name| (name.to_string(), REDACTED.into()));
        let text = |attribute: &Attribute| attribute.value.as_text().map(ToString::to_string);
        let attributes = self.resource_attributes.iter();
        let attributes = attributes.map(|it| (it.key.to_string(), text(it).into()));
        let mut shown = json!({
            "preset": self.preset,
            address: self.uri.to_string().trim_end_matches(GRPC_PATH),
            "auth_endpoint": self.exchange.as_ref().map(|exchange| exchange.address.to_string()),
            "protocol": self.wire,
            "dialect": self.dialect,
            "root_span": self.needs.root,
            "context_wait": Duration::from(self.needs.context_wait).to_string(),
            "compression": self.compression,
            "timeout": Duration::from(self.client.timeout).to_string(),
            "connect_timeout": Duration::from(self.client.connect_timeout).to_string(),
            "request_bytes_max": ByteSize(self.request_bytes_max as u64).to_string(),
            "headers": headers.collect::<Map<_, _>>(),
            "resource_attributes": attributes.collect::<Map<_, _>>(),
            "tls": self.client.tls,
        });
        if let Some(shown) = shown.as_object_mut() {
            shown.retain(|_, value| !value.is_null());
        }
        toml::Table::try_from(shown).unwrap_or_default()
    }
}
