//! Options of the Elasticsearch sink, and what they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::time;

use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use hyper::{HeaderMap, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeTable;

use crate::sinks::http::{ClientOptions, Compression, TlsOptions, secret_header};
use crate::sinks::{Mistake, Places};
use crate::span::RootSpan;
use crate::support::base64;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::options::read;
use crate::support::problem::Problem;
use crate::support::secret::{REDACTED, Secret};

/// What a `[sinks.name]` table with `type = "elasticsearch"` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Addresses of the cluster, such as `https://es:9200`. Of several the least busy one that works is used. A path is kept: for
    /// Quickwit write `http://quickwit:7280/api/v1/_elastic`.
    pub endpoints: Option<Vec<String>>,
    /// Elastic Cloud's id of a deployment, instead of `endpoints`.
    pub cloud_id: Option<String>,
    /// An API key: as Kibana shows it encoded, or as `id:api_key`.
    pub api_key: Option<Secret>,
    /// The API key's id, where `api_key` is only its secret half.
    pub api_key_id: Option<String>,
    /// A user's name, with `password`.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A bearer token.
    pub bearer: Option<Secret>,
    /// More headers for every request. The values are treated as credentials.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// What the names of all indices begin with: `<prefix>-spans` and `<prefix>-traces`.
    #[serde(default = "default_prefix")]
    pub index_prefix: String,
    /// `none`, `daily` or `monthly` indices of spans, named after when a span started, or `data_stream`.
    #[serde(default)]
    pub rotation: Rotation,
    /// `if_newer` installs our index templates where there are none or older ones, `overwrite` always, `off` never.
    #[serde(default)]
    pub manage_templates: ManageTemplates,
    /// `disabled` keeps attributes as they are and unsearchable, beside `attr_kv`, which can be searched for `key=value`.
    /// `flattened` (Elasticsearch) and `flat_object` (OpenSearch) index every one of them.
    #[serde(default)]
    pub attributes_mapping: AttributesMapping,
    /// Whether inputs and outputs can be searched for words. It costs about as much disk as they are long.
    #[serde(default)]
    pub payload_search: bool,
    /// One document for each trace, made of the documents of its spans: `on` or `off`. It takes a key that may read.
    #[serde(default)]
    pub trace_summary: TraceSummary,
    /// How long a document may take to be found once it was stored: the indices' `refresh_interval` and a second.
    #[serde(default = "default_refresh_wait")]
    pub refresh_wait: Duration,
    /// What the backend is. `auto` asks it.
    #[serde(default)]
    pub flavor: FlavorOption,
    /// What documents are called: by their `ids`, by a `content_hash`, or as the backend likes (`auto`), which makes copies of
    /// whatever is sent twice.
    #[serde(default)]
    pub id_mode: IdMode,
    /// Types of spans under other names.
    #[serde(default = "default_span_type_map")]
    pub span_type_map: BTreeMap<String, String>,
    /// Whether spans of the Agents SDK without a parent are brought together under one root, which is sent once their trace has been
    /// quiet for ten seconds: `auto` (unless there is one alone and it is a `task`, a root by nature), `always`, or `never`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long a span waits for the facts of its trace that come apart from it.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
    /// `gzip` or `none`. Without it gzip, unless the backend is this machine.
    pub compression: Option<Compression>,
    /// The longest that a request may take.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// The longest that connecting may take.
    #[serde(default = "crate::sinks::http::default_connect_timeout")]
    pub connect_timeout: Duration,
    /// The largest request, before compression. What is due at once and larger is sent as several.
    #[serde(default = "default_request_bytes_max")]
    pub request_bytes_max: ByteSize,
    /// The largest document. In larger ones the longest texts are cut, and say so.
    #[serde(default = "default_doc_bytes_max")]
    pub doc_bytes_max: ByteSize,
    /// Requests under way at once, for each endpoint.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
    /// Certificates, for https.
    #[serde(default)]
    pub tls: TlsOptions,
}

/// How the indices of spans are cut by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// One index.
    #[default]
    None,
    /// One for each day, in UTC.
    Daily,
    /// One for each month, in UTC.
    Monthly,
    /// A data stream. What is in it cannot be changed: agents that become known later are not filled in.
    DataStream,
}

/// When templates are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManageTemplates {
    /// Where there are none, or older ones.
    #[default]
    IfNewer,
    /// Never.
    Off,
    /// Always.
    Overwrite,
}

/// How attributes are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttributesMapping {
    /// Not at all.
    #[default]
    Disabled,
    /// As Elasticsearch's `flattened`.
    Flattened,
    /// As OpenSearch's `flat_object`.
    FlatObject,
}

/// How trace documents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceSummary {
    /// Exact, whoever writes spans.
    #[default]
    On,
    /// None.
    Off,
}

/// What `flavor` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FlavorOption {
    /// Whatever `GET /` answers.
    #[default]
    Auto,
    /// Elasticsearch.
    Elasticsearch,
    /// OpenSearch.
    #[serde(rename = "opensearch")]
    OpenSearch,
    /// Quickwit.
    Quickwit,
    /// Something that takes `_bulk` and nothing else.
    BulkOnly,
}

/// What documents are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdMode {
    /// By the ids of trace and span.
    #[default]
    Ids,
    /// By a hash of what is in them.
    ContentHash,
    /// As the backend likes.
    Auto,
}

/// What the options came to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base addresses, without a slash at the end.
    pub endpoints: Vec<Uri>,
    /// The headers of every request, credentials among them.
    pub headers: HeaderMap,
    /// See [`Options::index_prefix`].
    pub prefix: String,
    /// See [`Options::rotation`].
    pub rotation: Rotation,
    /// See [`Options::manage_templates`].
    pub manage_templates: ManageTemplates,
    /// See [`Options::attributes_mapping`].
    pub attributes_mapping: AttributesMapping,
    /// See [`Options::payload_search`].
    pub payload_search: bool,
    /// See [`Options::trace_summary`].
    pub trace_summary: TraceSummary,
    /// See [`Options::refresh_wait`].
    pub refresh_wait: time::Duration,
    /// See [`Options::flavor`].
    pub flavor: FlavorOption,
    /// See [`Options::id_mode`].
    pub id_mode: IdMode,
    /// See [`Options::span_type_map`].
    pub span_type_map: BTreeMap<String, String>,
    /// See [`Options::root_span`].
    pub root: RootSpan,
    /// See [`Options::context_wait`].
    pub context_wait: time::Duration,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Bytes of a request before compression.
    pub request_bytes_max: usize,
    /// Bytes of a document.
    pub doc_bytes_max: usize,
    /// Requests under way at each endpoint.
    pub concurrency: usize,
    /// The client.
    pub client: ClientOptions,
}

/// What copied exporters use, so that dashboards made for them keep working.
fn default_prefix() -> String {
    "agent-traces".to_owned()
}

/// The templates' own refresh interval is 5 s.
fn default_refresh_wait() -> Duration {
    time::Duration::from_secs(6).into()
}

/// Dashboards made for copied exporters look for tool calls.
fn default_span_type_map() -> BTreeMap<String, String> {
    BTreeMap::from([("function".to_owned(), "tool_call".to_owned())])
}

/// A cluster that merges or recovers may take long; what it has taken meanwhile would only be sent again.
fn default_timeout() -> Duration {
    time::Duration::from_mins(1).into()
}

/// What the Collector and Jaeger use; well below the 10 MB that small instances at AWS, and Quickwit, take.
fn default_request_bytes_max() -> ByteSize {
    ByteSize(5 << 20)
}

/// A document always fits a request.
fn default_doc_bytes_max() -> ByteSize {
    ByteSize(4 << 20)
}

fn default_concurrency() -> u32 {
    2
}

/// A document of which nothing but its typed fields is left takes a few KiB.
const DOC_BYTES_MIN: u64 = 16 << 10;
/// More would only fill the cluster's write queue.
const CONCURRENCY_MAX: u32 = 64;
/// Elasticsearch takes names of 255 bytes, and ours have a word and a date behind the prefix.
const PREFIX_BYTES_MAX: usize = 200;
/// What Elasticsearch's own templates claim as data streams.
const CLAIMED: &[&str] = &["logs-", "metrics-", "traces-", "synthetics-"];
/// A bulk answer names each document: 100 bytes for each that was stored, some more with its error.
const RESPONSE_BYTES_MAX: usize = 32 << 20;

/// Reads a sink's table and says everything that is wrong with it.
pub fn parse(table: Spanned<DeTable<'_>>) -> Result<Settings, Vec<Problem>> {
    let places = Places::of(&table);
    let options: Options = read(table)?;
    Settler { options: &options, places, problems: Vec::new() }.settle()
}

/// Checks the options and brings them together.
struct Settler<'a> {
    options: &'a Options,
    places: Places,
    problems: Vec<Problem>,
}

impl Settler<'_> {
    fn settle(mut self) -> Result<Settings, Vec<Problem>> {
        let options = self.options;
        let endpoints = self.endpoints();
        let headers = self.headers();
        self.check_prefix();
        self.check_sizes();
        for Mistake { option, what, hint } in options.tls.check() {
            self.wrong(option, what, hint);
        }
        if options.compression == Some(Compression::Zstd) {
            self.wrong("compression", "bulk requests are taken plain or as gzip", "write \"gzip\"");
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let plain = endpoints.iter().all(is_loopback);
        let usual = if plain { Compression::None } else { Compression::Gzip };
        Ok(Settings {
            compression: options.compression.unwrap_or(usual),
            headers,
            prefix: options.index_prefix.clone(),
            rotation: options.rotation,
            manage_templates: options.manage_templates,
            attributes_mapping: options.attributes_mapping,
            payload_search: options.payload_search,
            trace_summary: options.trace_summary,
            refresh_wait: options.refresh_wait.into(),
            flavor: options.flavor,
            id_mode: options.id_mode,
            span_type_map: options.span_type_map.clone(),
            root: options.root_span,
            context_wait: options.context_wait.into(),
            request_bytes_max: options.request_bytes_max.as_usize(),
            doc_bytes_max: options.doc_bytes_max.as_usize(),
            concurrency: usize::try_from(options.concurrency).unwrap_or(usize::MAX),
            client: ClientOptions {
                timeout: options.timeout.into(),
                connect_timeout: options.connect_timeout.into(),
                response_bytes_max: RESPONSE_BYTES_MAX,
                tls: options.tls.clone(),
                ..ClientOptions::default()
            },
            endpoints,
        })
    }

    fn endpoints(&mut self) -> Vec<Uri> {
        const HINT: &str = "write for example endpoints = [\"https://es.example.com:9200\"]";
        if let Some(cloud_id) = &self.options.cloud_id {
            if self.options.endpoints.is_some() {
                self.wrong("cloud_id", "`endpoints` and `cloud_id` exclude each other", "keep one");
            }
            let address = address_of_cloud(cloud_id);
            if address.is_none() {
                let hint = "copy it from the deployment's page at Elastic Cloud";
                self.wrong("cloud_id", "`cloud_id` is not the id of a deployment", hint);
            }
            return address.into_iter().collect();
        }
        let given = self.options.endpoints.as_deref().unwrap_or_default();
        if given.is_empty() {
            self.wrong("", "missing key `endpoints`", HINT);
        }
        let mut endpoints = Vec::new();
        for text in given {
            let Some(uri) = address(text) else {
                let what = "an endpoint is not an address that begins with http:// or https://";
                self.wrong("endpoints", what, HINT);
                continue;
            };
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                self.wrong(
                    "endpoints",
                    "an endpoint holds credentials",
                    "use `user` and `password`",
                );
            }
            endpoints.push(uri);
        }
        endpoints
    }

    fn headers(&mut self) -> HeaderMap {
        let options = self.options;
        let given = [
            options.api_key.is_some(),
            options.user.is_some() || options.password.is_some(),
            options.bearer.is_some(),
        ];
        if 1 < given.into_iter().filter(|given| *given).count() {
            let what = "`api_key`, `user` and `bearer` exclude each other";
            self.wrong("", what, "keep one of them");
        }
        if options.user.is_some() != options.password.is_some() {
            self.wrong("user", "`user` and `password` need each other", "give both");
        }
        if options.api_key_id.is_some() && options.api_key.is_none() {
            self.wrong("api_key_id", "`api_key_id` needs `api_key`", "give both");
        }
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization(options) {
            match secret_header(&text) {
                Some(value) => drop(headers.insert(AUTHORIZATION, value)),
                None => {
                    self.wrong(
                        "",
                        "the credentials are no header",
                        "look for a line break in them",
                    );
                }
            }
        }
        for (name, value) in &options.headers {
            let header = HeaderName::try_from(name.as_str())
                .ok()
                .filter(|name| ![CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING].contains(name));
            match (header, secret_header(value.reveal())) {
                (Some(header), Some(value)) => drop(headers.insert(header, value)),
                _ => self.wrong("headers", "a header cannot be set", "leave it out"),
            }
        }
        headers
    }

    fn check_prefix(&mut self) {
        let prefix = &self.options.index_prefix;
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let begins = prefix.bytes().next().is_some_and(|first| !b"-_.".contains(&first));
        if !begins || !prefix.bytes().all(allowed) || PREFIX_BYTES_MAX < prefix.len() {
            let hint = "use the letters a-z, digits, - _ and . and begin with a letter or digit";
            self.wrong("index_prefix", "`index_prefix` cannot begin the name of an index", hint);
        } else if CLAIMED.iter().any(|claimed| prefix.starts_with(claimed)) {
            let what = "Elasticsearch's own templates make data streams of indices named like this";
            self.wrong("index_prefix", what, "use for example \"agent-traces\"");
        }
    }

    fn check_sizes(&mut self) {
        let options = self.options;
        for (key, duration) in
            [("timeout", options.timeout), ("connect_timeout", options.connect_timeout)]
        {
            if time::Duration::from(duration).is_zero() {
                self.wrong(key, "a time limit must be more than nothing", "leave it out");
            }
        }
        if options.doc_bytes_max.0 < DOC_BYTES_MIN {
            self.wrong("doc_bytes_max", "less than 16KiB holds no document", "leave it out");
        }
        if options.request_bytes_max < options.doc_bytes_max {
            let what = "`request_bytes_max` is less than `doc_bytes_max`";
            self.wrong("request_bytes_max", what, "a request has to hold at least one document");
        }
        if options.concurrency == 0 || CONCURRENCY_MAX < options.concurrency {
            self.wrong("concurrency", "not a number of requests", "use 1 to 64");
        }
    }

    fn wrong(&mut self, key: &str, what: &str, hint: &str) {
        let (what, hint) = (what.to_owned(), Some(hint.to_owned()));
        self.problems.push(Problem { at: Some(self.places.of_option(key)), what, hint });
    }
}

/// An address, without a slash at its end and without query.
fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.trim_end_matches('/').parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    (known && uri.host().is_some() && uri.query().is_none()).then_some(uri)
}

/// `name:base64(host[:port]$elasticsearch$kibana)`; the port is 443 where there is none.
/// <https://www.elastic.co/docs/deploy-manage/deploy/elastic-cloud/find-cloud-id>
fn address_of_cloud(cloud_id: &str) -> Option<Uri> {
    let encoded = cloud_id.rsplit_once(':').map_or(cloud_id, |(_, encoded)| encoded);
    let text = String::from_utf8(base64::read(encoded)?).ok()?;
    let mut parts = text.split('$');
    let (host, deployment) = (parts.next()?, parts.next()?);
    let (host, port) = host.split_once(':').unwrap_or((host, "443"));
    if host.is_empty() || deployment.is_empty() {
        return None;
    }
    // A deployment's part may have a port of its own.
    let (deployment, port) = deployment.split_once(':').unwrap_or((deployment, port));
    address(&format!("https://{deployment}.{host}:{port}"))
}

fn authorization(options: &Options) -> Option<String> {
    if let Some(key) = &options.api_key {
        let key = key.reveal().trim();
        let encoded = match (&options.api_key_id, key.contains(':')) {
            (Some(id), _) => encode(&format!("{id}:{key}")),
            (None, true) => encode(key),
            (None, false) => key.to_owned(),
        };
        return Some(format!("ApiKey {encoded}"));
    }
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        return Some(format!("Basic {}", encode(&format!("{user}:{}", password.reveal()))));
    }
    options.bearer.as_ref().map(|token| format!("Bearer {}", token.reveal()))
}

fn encode(text: &str) -> String {
    let mut out = Vec::new();
    base64::write(&mut out, text.as_bytes());
    String::from_utf8(out).unwrap_or_default()
}

/// Compressing for a neighbour on the same machine costs more than it saves.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Settings {
    /// The index or data stream of spans, without a date.
    pub(super) fn spans_index(&self) -> String {
        format!("{}-spans", self.prefix)
    }

    /// Whether spans go into a data stream.
    pub(super) fn is_stream(&self) -> bool {
        self.rotation == Rotation::DataStream
    }

    /// The index of trace documents.
    pub(super) fn traces_index(&self) -> String {
        format!("{}-traces", self.prefix)
    }

    /// What they are, without credentials.
    pub(super) fn expanded(&self) -> toml::Table {
        let mut table = toml::Table::new();
        let mut put = |key: &str, value: toml::Value| drop(table.insert(key.to_owned(), value));
        let endpoints = self
            .endpoints
            .iter()
            .map(|uri| uri.to_string().trim_end_matches('/').to_owned().into());
        put("endpoints", toml::Value::Array(endpoints.collect()));
        put("index_prefix", self.prefix.clone().into());
        put("rotation", word(&self.rotation));
        put("manage_templates", word(&self.manage_templates));
        put("attributes_mapping", word(&self.attributes_mapping));
        put("payload_search", self.payload_search.into());
        put("trace_summary", word(&self.trace_summary));
        put("refresh_wait", Duration::from(self.refresh_wait).to_string().into());
        put("flavor", word(&self.flavor));
        put("id_mode", word(&self.id_mode));
        put("span_type_map", word(&self.span_type_map));
        put("root_span", word(&self.root));
        put("context_wait", Duration::from(self.context_wait).to_string().into());
        put("compression", word(&self.compression));
        put("timeout", Duration::from(self.client.timeout).to_string().into());
        put("connect_timeout", Duration::from(self.client.connect_timeout).to_string().into());
        put("request_bytes_max", ByteSize(self.request_bytes_max as u64).to_string().into());
        put("doc_bytes_max", ByteSize(self.doc_bytes_max as u64).to_string().into());
        put("concurrency", i64::try_from(self.concurrency).unwrap_or(i64::MAX).into());
        let names: BTreeSet<_> = self.headers.keys().map(HeaderName::as_str).collect();
        let hidden = names.into_iter().map(|name| (name.to_owned(), REDACTED.into()));
        put("headers", toml::Value::Table(hidden.collect()));
        put("tls", word(&self.client.tls));
        table
    }
}

/// How a choice is written in the file.
fn word(choice: &impl Serialize) -> toml::Value {
    toml::Value::try_from(choice).unwrap_or_else(|_| "".into())
}
