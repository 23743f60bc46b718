//! Resolves the options of the OTLP sink. A preset (`presets.toml`) supplies defaults for its backend.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING,
};
use hyper::{HeaderMap, Uri};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::options::{Dialect, Options, Wire};
use super::token::Exchange;
use crate::sinks::http::{self, Address, ClientOptions, Compression, basic, secret_header};
use crate::sinks::{Mistake, TraceUrl, settle_options};
use crate::span::{Attribute, TraceNeeds, Traced, Value};
use crate::support::base64;
use crate::support::byte_size::ByteSize;
use crate::support::options::did_you_mean;
use crate::support::problem::Problem;
use crate::support::secret::Secret;

/// The resolved options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The address of requests.
    pub uri: Address,
    /// The protocol.
    pub wire: Wire,
    /// The attribute names of Agents SDK spans.
    pub dialect: Dialect,
    /// The trace context that the sink needs.
    pub needs: TraceNeeds,
    /// How requests are compressed.
    pub compression: Compression,
    /// The headers of the user and the preset.
    pub headers: HeaderMap,
    /// Attributes that are added to resources without them.
    pub resource_attributes: Vec<Attribute>,
    /// Where to get a token, for a backend that does not accept the key itself.
    pub exchange: Option<Exchange>,
    /// The largest request, in bytes before compression.
    pub request_bytes_max: usize,
    /// The client.
    pub client: ClientOptions,
    /// Where a browser shows a trace, if the preset knows.
    pub trace_url: Option<TraceUrl>,
    /// The effective options, without credentials.
    pub shown: toml::Table,
}

/// The defaults for a backend.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    pub(super) name: String,
    /// Defaults for the user's options.
    pub(super) options: Options,
    /// The values have placeholders.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) needs: Vec<(String, String)>,
    trace_url: Option<String>,
}

/// All presets. A test reads them.
pub(super) static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    #[derive(Default, Deserialize)]
    struct File {
        preset: Vec<Preset>,
    }
    toml::from_str::<File>(include_str!("presets.toml")).unwrap_or_default().preset
});

/// The default of the largest request. gRPC libraries limit messages to 4 MiB; a request and its frame stay below.
const DEFAULT_REQUEST_BYTES_MAX: ByteSize = ByteSize((4 << 20) - (64 << 10));

/// The path of a gRPC request.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const HTTP_PATH: &str = "/v1/traces";

/// Parses a sink's table, and returns all mistakes.
pub(super) fn parse(table: Spanned<DeTable<'_>>) -> Result<Settings, Vec<Problem>> {
    settle_options(table, |options| {
        SettingsResolver { options: &options, mistakes: Vec::new() }.settle()
    })
}

/// Combines options and preset.
struct SettingsResolver<'a> {
    options: &'a Options,
    mistakes: Vec<Mistake<String>>,
}

impl SettingsResolver<'_> {
    fn settle(mut self) -> Result<Settings, Vec<Mistake<String>>> {
        let options = self.options;
        let none = Preset::default();
        let preset = self.preset().unwrap_or(&none);
        // The options with all effective values.
        let mut shown = options.clone();
        let wire = *shown.protocol.get_or_insert(preset.options.protocol.unwrap_or_default());
        let dialect = *shown.dialect.get_or_insert(preset.options.dialect.unwrap_or_default());
        let request_bytes_max = *shown.request_bytes_max.get_or_insert(DEFAULT_REQUEST_BYTES_MAX);
        for (key, template) in &preset.options.resource_attributes {
            if let Some(value) = filled(template, options) {
                shown.resource_attributes.entry(key.clone()).or_insert(value);
            }
        }
        let uri = self.uri(preset, wire);
        let headers = self.headers(preset, wire);
        let exchange = self.exchange(preset, wire);
        for Mistake { option, what, hint } in options.connection.check(request_bytes_max) {
            self.wrong(option, what, hint);
        }
        let (Some(uri), true) = (uri, self.mistakes.is_empty()) else { return Err(self.mistakes) };
        let compression = *shown.compression.get_or_insert(Compression::toward([&uri]));
        let (address, is_grpc) = (Address::from(uri.to_string()), wire == Wire::Grpc);
        let host = address.reveal().trim_end_matches(GRPC_PATH).to_owned();
        shown.endpoint = is_grpc.then(|| host.into());
        shown.traces_endpoint = (!is_grpc).then(|| address.clone());
        shown.auth_endpoint = exchange.as_ref().map(|exchange| exchange.address.clone());
        let redacted = |name: &HeaderName| (name.to_string(), Secret::from(String::new()));
        shown.headers = headers.keys().map(redacted).collect();
        // The headers and attributes contain these.
        (shown.api_key, shown.project, shown.account) = (None, None, None);
        let attribute = |(key, value): (&String, &String)| Attribute {
            key: key.clone().into(),
            value: Value::Text(value.clone().into()),
        };
        Ok(Settings {
            uri: address,
            wire,
            dialect,
            needs: TraceNeeds {
                // OTLP spans are sent as received, except for tokens.
                traced: Traced::Spending,
                root: options.root_span,
                context_wait: options.context_wait.into(),
                ..TraceNeeds::default()
            },
            compression,
            headers,
            exchange,
            resource_attributes: shown.resource_attributes.iter().map(attribute).collect(),
            request_bytes_max: request_bytes_max.as_usize(),
            client: ClientOptions { is_http2_only: is_grpc, ..options.connection.client() },
            trace_url: preset.trace_url.as_ref().and_then(|template| trace_url(template, &uri)),
            shown: http::shown(&shown),
        })
    }

    fn preset(&mut self) -> Option<&'static Preset> {
        let Options { preset, endpoint, traces_endpoint, auth_endpoint, .. } = self.options;
        let Some(name) = preset.as_deref() else {
            for key in ["api_key", "project", "account"] {
                let is_idle = key != "api_key" || auth_endpoint.is_none();
                if is_idle && self.options.filling(key).is_some() {
                    let what = format!("without a preset nothing is done with `{key}`");
                    self.wrong(key, what, "name the preset, or say it in `headers`");
                }
            }
            return None;
        };
        let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
            let names: Vec<_> = PRESETS.iter().map(|preset| &*preset.name).collect();
            let hint = did_you_mean(name, &names).unwrap_or_default();
            self.wrong("preset", format!("no preset is called `{name}`"), hint);
            return None;
        };
        for (key, what) in &preset.needs {
            let is_there = match &**key {
                "endpoint" => endpoint.is_some() || traces_endpoint.is_some(),
                key => self.options.filling(key).is_some(),
            };
            if !is_there {
                let what = format!("the preset `{name}` needs `{key}`: {what}");
                self.wrong("preset", what, format!("add `{key} = ...`"));
            }
        }
        Some(preset)
    }

    /// Returns the address. The user's addresses precede the preset's, which are for HTTP.
    fn uri(&mut self, preset: &Preset, wire: Wire) -> Option<Uri> {
        let of_preset = Some(&preset.options).filter(|_| wire != Wire::Grpc);
        let given = [Some(self.options), of_preset].into_iter().flatten();
        let mut given = given.flat_map(|Options { traces_endpoint, endpoint, .. }| {
            [("traces_endpoint", traces_endpoint), ("endpoint", endpoint)]
        });
        let found = given.find_map(|(key, address)| Some((key, address.as_ref()?)));
        let Some((key, address)) = found else {
            // Over HTTP, the missing address was reported when the preset was read.
            if preset.name.is_empty() {
                self.wrong("", "missing key `endpoint`", ADDRESS_HINT);
            } else if wire == Wire::Grpc {
                let what = format!("the preset `{}` has no address for gRPC", preset.name);
                self.wrong("preset", what, "add `endpoint = ...`");
            }
            return None;
        };
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

    fn address(&mut self, key: &'static str, address: &Address) -> Option<Uri> {
        if address.has_credentials() {
            let hint = "put them into `headers`, as `authorization = \"Basic ...\"`";
            self.wrong(key, format!("`{key}` holds credentials"), hint);
        } else if address.uri().is_none() {
            let what = format!("`{key}` is not an address that begins with http:// or https://");
            self.wrong(key, what, ADDRESS_HINT);
        }
        address.uri().cloned()
    }

    fn exchange(&mut self, preset: &Preset, wire: Wire) -> Option<Exchange> {
        let of_preset = preset.options.auth_endpoint.as_ref();
        let address = self.options.auth_endpoint.as_ref().or(of_preset)?;
        let address = self.address("auth_endpoint", address)?.to_string().into();
        let Some(api_key) = self.options.filling("api_key").map(Secret::from) else {
            // If the preset needs the key, its absence was already reported.
            if of_preset.is_none() {
                let what = "there is no key to exchange for a token";
                self.wrong("auth_endpoint", what, "add `api_key = ...`");
            }
            return None;
        };
        if wire == Wire::Grpc {
            self.wrong("protocol", "tokens are supported over HTTP only", "leave `protocol` out");
        }
        Some(Exchange { address, api_key })
    }

    fn headers(&mut self, preset: &Preset, wire: Wire) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, template) in &preset.headers {
            let Some(value) = filled(template, self.options) else { continue };
            if let (Ok(header), Some(value)) = (HeaderName::try_from(name), secret_header(&value)) {
                headers.insert(header, value);
            } else {
                let what = format!("the value for the header `{name}` is invalid");
                self.wrong("preset", what, "");
            }
        }
        for (name, value) in &self.options.headers {
            let header = HeaderName::try_from(name).ok().filter(|name| !is_ours(name, wire));
            let is_binary = wire == Wire::Grpc && name.to_ascii_lowercase().ends_with("-bin");
            let is_base64 = || value.reveal().split(',').all(|part| base64::read(part).is_some());
            let what = match (header, secret_header(value.reveal())) {
                (Some(_), Some(_)) if is_binary && !is_base64() => {
                    format!("gRPC sends binary data in `{name}`, and its value is not base64")
                }
                (Some(header), Some(value)) => {
                    headers.insert(header, value);
                    continue;
                }
                (None, _) => format!("`{name}` cannot be set as a header"),
                (Some(_), None) => format!("the value of `{name}` is not a valid header value"),
            };
            self.wrong("headers", what, "");
        }
        headers
    }

    fn wrong(&mut self, option: &'static str, what: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake { option, what: what.into(), hint: hint.into() });
    }
}

const ADDRESS_HINT: &str = "write for example \"https://otel.example.com:4318\"";

/// Fills a preset's template with the address that traces are sent to.
fn trace_url(template: &str, uri: &Uri) -> Option<TraceUrl> {
    match template.strip_prefix("{base}") {
        // A gRPC address has no web page.
        Some(path) => TraceUrl::below(uri.to_string().split_once(HTTP_PATH)?.0, path),
        None => template.replace("{host}", uri.host()?).try_into().ok(),
    }
}

fn with_path(base: &Uri, path: &str) -> Option<Uri> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Returns whether the sink sets the header itself.
fn is_ours(name: &HeaderName, wire: Wire) -> bool {
    [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CONTENT_ENCODING].contains(name)
        || (wire == Wire::Grpc && (name == "te" || name.as_str().starts_with("grpc-")))
}

impl Options {
    /// Returns the value for a preset's placeholder. Empty values count as missing, because their variable may not be set.
    fn filling(&self, blank: &str) -> Option<String> {
        let said = match blank {
            "api_key" => self.api_key.as_ref().map(Secret::reveal),
            "project" => self.project.as_deref(),
            "account" => self.account.as_deref(),
            _ => return Some(basic(&self.filling("account")?, &self.filling("api_key")?)),
        };
        said.filter(|said| !said.trim().is_empty()).map(str::to_owned)
    }
}

/// Fills the placeholders of a preset's value. Returns `None` if a placeholder has no value.
fn filled(template: &str, options: &Options) -> Option<String> {
    let mut value = template.to_owned();
    for name in ["api_key", "project", "account", "basic"] {
        let blank = format!("{{{name}}}");
        if value.contains(&blank) {
            value = value.replace(&blank, &options.filling(name)?);
        }
    }
    Some(value)
}
