//! Options of the Elasticsearch sink, and their resolution.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{HeaderMap, Uri};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;
use toml::de::DeTable;

use crate::prices::Prices;
use crate::sinks::http::{Address, Compression, ConnectionOptions, basic, secret_header};
use crate::sinks::{Mistake, Mistakes, settle_options};
use crate::span::{Kind, RootSpan};
use crate::support::base64;
use crate::support::byte_size::{ByteSize, bytes};
use crate::support::duration::{Duration, seconds};
use crate::support::options::nearest;
use crate::support::problem::Problem;
use crate::support::secret::Secret;

/// The options of a `[sinks.name]` table with `type = "elasticsearch"`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Addresses of the cluster, such as `https://es:9200`. The least busy one that works is used. A path is kept: for Quickwit write
    /// `http://quickwit:7280/api/v1/_elastic`.
    pub endpoints: Option<Vec<Address>>,
    /// An Elastic Cloud deployment's id, instead of `endpoints`.
    pub cloud_id: Option<String>,
    /// An API key: encoded as Kibana shows it, or as `id:api_key`.
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
    /// The prefix of all index names: `<prefix>-spans` and `<prefix>-traces`.
    #[serde(default = "default_prefix")]
    pub index_prefix: String,
    /// `none`, or `daily` or `monthly` span indices, named after a span's start, or `data_stream`.
    #[serde(default)]
    pub rotation: Rotation,
    /// `if_newer` installs index templates if there are none or older ones, `overwrite` always, `off` never.
    #[serde(default)]
    pub manage_templates: ManageTemplates,
    /// `disabled` stores attributes unindexed, next to `attr_kv`, which can be searched for `key=value`. `flattened` (Elasticsearch) and
    /// `flat_object` (OpenSearch) index every attribute.
    #[serde(default)]
    pub attributes_mapping: AttributesMapping,
    /// Whether inputs and outputs are full-text searchable. This takes about as much disk as they do.
    #[serde(default)]
    pub payload_search: bool,
    /// One document for each trace, made of the documents of its spans: `on` or `off`. Needs a key with the right to read.
    #[serde(default)]
    pub trace_summary: TraceSummary,
    /// How long a stored document may take to become searchable: the indices' `refresh_interval` plus a second.
    // The templates' own refresh interval is 5 s.
    #[serde(default = "seconds::<6>")]
    pub refresh_wait: Duration,
    /// The kind of backend. `auto` asks it.
    #[serde(default)]
    pub flavor: Flavor,
    /// How documents are named: by their `ids`, by a `content_hash`, or by the backend (`auto`), which stores anything sent twice twice.
    #[serde(default)]
    pub id_mode: IdMode,
    /// Other names for span types.
    #[serde(default = "default_span_type_map", deserialize_with = "span_type_map")]
    pub span_type_map: BTreeMap<String, String>,
    /// Whether Agents SDK spans without a parent are put under one root span, which is sent once their trace has been quiet for ten
    /// seconds: `auto` (unless there is only one and it is a `task`, which is a root by nature), `always`, or `never`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long a span waits for facts of its trace that arrive separately.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
    /// `gzip` or `none`. Default: gzip, unless the backend is on this machine.
    pub compression: Option<Compression>,
    /// The connection.
    // A cluster that merges or recovers may take long; what it has taken meanwhile would only be sent again.
    #[serde(flatten)]
    pub connection: ConnectionOptions<60>,
    /// The largest request, before compression. Larger batches are split.
    // The limit of the Collector and Jaeger, well below the 10 MB that small instances at AWS, and Quickwit, accept.
    #[serde(default = "bytes::<{ 5 << 20 }>")]
    pub request_bytes_max: ByteSize,
    /// The largest document. In larger ones the longest texts are truncated, with a note.
    // A document always fits a request.
    #[serde(default = "bytes::<{ 4 << 20 }>")]
    pub doc_bytes_max: ByteSize,
    /// Concurrent requests for each endpoint.
    #[serde(default = "default_concurrency")]
    pub concurrency: u32,
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
    /// A data stream. Its documents cannot be changed: agents that become known later are not filled in.
    DataStream,
}

/// When templates are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManageTemplates {
    /// If none or older ones exist.
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
    /// Exact, whichever program writes spans.
    #[default]
    On,
    /// None.
    Off,
}

/// The kind of backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// As the response to `GET /` indicates.
    #[default]
    Auto,
    /// Elasticsearch.
    Elasticsearch,
    /// OpenSearch.
    #[serde(rename = "opensearch")]
    OpenSearch,
    /// Quickwit's compatible API.
    Quickwit,
    /// Another compatible API, with `_bulk` alone.
    BulkOnly,
}

/// The ids of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdMode {
    /// The ids of trace and span.
    #[default]
    Ids,
    /// A hash of the contents.
    ContentHash,
    /// Chosen by the backend.
    Auto,
}

/// The resolved options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The options as set.
    pub options: Options,
    /// Base addresses, without a trailing slash.
    pub endpoints: Vec<Uri>,
    /// The headers of every request, including credentials.
    pub headers: HeaderMap,
    /// The index or data stream of spans, without a date, and the index of trace documents.
    pub indices: [String; 2],
    /// How bodies are compressed.
    pub compression: Compression,
    /// Prices for calls whose clients report no cost. They are set when the sink is built.
    pub prices: Arc<Prices>,
}

/// The prefix of widely copied exporters, so that their dashboards keep working.
fn default_prefix() -> String {
    "agent-traces".to_owned()
}

/// The name that dashboards of widely copied exporters use for tool calls.
fn default_span_type_map() -> BTreeMap<String, String> {
    BTreeMap::from([("function".to_owned(), "tool_call".to_owned())])
}

/// Reads other names for span types. Clients of the Agents SDK may have their own types, so only what is nearly a known one is a mistake.
fn span_type_map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(from)?;
    for said in map.keys() {
        let types = Kind::ALL.iter().map(|kind| kind.as_str()).chain(SDK_TYPES.iter().copied());
        if let Some(near) = nearest(said, types).filter(|near| near != said) {
            let what = format!("no span has the type `{said}`; did you mean `{near}`?");
            return Err(D::Error::custom(what));
        }
    }
    Ok(map)
}

fn default_concurrency() -> u32 {
    2
}

/// Span types of the Agents SDK that are not kinds.
const SDK_TYPES: &[&str] =
    &["function", "mcp_tools", "response", "speech_group", "task", "transcription", "turn"];
/// The smallest limit of a document, in bytes. Typed fields alone take a few KiB.
const DOC_BYTES_MIN: u64 = 16 << 10;
/// The most concurrent requests. More would only fill the cluster's write queue.
const CONCURRENCY_MAX: u32 = 64;
/// The longest prefix, in bytes. Elasticsearch accepts names of 255 bytes, and a word and a date follow the prefix.
const PREFIX_BYTES_MAX: usize = 200;
/// Prefixes that Elasticsearch's own templates claim for data streams.
const CLAIMED: &[&str] = &["logs-", "metrics-", "traces-", "synthetics-"];

/// Parses a sink's table, and returns all mistakes.
pub fn parse(table: Spanned<DeTable<'_>>) -> Result<Settings, Vec<Problem>> {
    settle_options(table, Settings::of)
}

impl Options {
    /// Returns the addresses of the cluster.
    fn addresses(&mut self, found: &mut Mistakes) -> Vec<Uri> {
        let example = "write for example endpoints = [\"https://es.example.com:9200\"]";
        if let Some(cloud_id) = self.cloud_id.take() {
            let what = "`endpoints` and `cloud_id` are mutually exclusive";
            found.note(self.endpoints.is_some(), "cloud_id", what, "keep one");
            self.endpoints = address_of_cloud(&cloud_id).map(|address| vec![address]);
            let what = "`cloud_id` is not a deployment's id";
            let hint = "copy it from the deployment's page in Elastic Cloud";
            found.note(self.endpoints.is_none(), "cloud_id", what, hint);
        } else {
            let has_none = self.endpoints.iter().flatten().next().is_none();
            found.note(has_none, "", "`endpoints` is missing or empty", example);
        }
        let mut addresses = Vec::new();
        for given in self.endpoints.iter().flatten() {
            let (has_credentials, address) = (given.has_credentials(), base(given));
            #[rustfmt::skip]
            found.note_all([
                (has_credentials, "endpoints", "an endpoint contains credentials", "use `user` and `password`"),
                (address.is_none() && !has_credentials,
                    "endpoints", "an endpoint is not an address that begins with http:// or https://", example),
            ]);
            addresses.extend(address);
        }
        addresses
    }

    /// Returns the headers of every request.
    fn all_headers(&self, found: &mut Mistakes) -> HeaderMap {
        let api_key = |key: &Secret| {
            let key = key.reveal().trim();
            let id = self.api_key_id.as_deref();
            let halves = id.map(|id| (id, key)).or_else(|| key.split_once(':'));
            let pair = halves.map(|(id, key)| base64::text(format!("{id}:{key}").as_bytes()));
            format!("ApiKey {}", pair.as_deref().unwrap_or(key))
        };
        let user = self.user.as_ref().zip(self.password.as_ref());
        let credentials = [
            self.api_key.as_ref().map(api_key),
            user.map(|(user, password)| basic(user, password.reveal())),
            self.bearer.as_ref().map(|token| format!("Bearer {}", token.reveal())),
        ];
        let credentials: Vec<String> = credentials.into_iter().flatten().collect();
        let authorization = credentials.first().and_then(|text| secret_header(text));
        let mut keys = [&self.api_key, &self.bearer].into_iter().flatten();
        let mut headers: HeaderMap = self.headers.iter().filter_map(read_header).collect();
        #[rustfmt::skip]
        found.note_all([
            (1 < credentials.len(), "", "`api_key`, `user` and `bearer` are mutually exclusive", "keep one of them"),
            (self.user.is_some() != self.password.is_some(),
                "user", "`user` and `password` go together", "give both"),
            (self.api_key_id.is_some() && self.api_key.is_none(), "api_key_id", "`api_key_id` needs `api_key`", "give both"),
            (keys.any(|key| key.reveal().trim().is_empty()), "", "a key is empty", "is its variable set?"),
            (!credentials.is_empty() && authorization.is_none(),
                "", "the credentials are not a valid header value", "look for a line break in them"),
            (self.headers.iter().any(|header| read_header(header).is_none()),
                "headers", "a header cannot be set", "leave it out"),
        ]);
        if let Some(authorization) = authorization {
            headers.entry(AUTHORIZATION).or_insert(authorization);
        }
        headers
    }
}

fn is_prefix(prefix: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let begins = prefix.bytes().next().is_some_and(|first| !b"-_.".contains(&first));
    begins && prefix.bytes().all(allowed) && prefix.len() <= PREFIX_BYTES_MAX
}

fn read_header((name, value): (&String, &Secret)) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(name.as_str()).ok()?;
    let is_ours = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING].contains(&name);
    Some((name, secret_header(value.reveal())?)).filter(|_| !is_ours)
}

/// Returns an endpoint without a trailing slash; `None` if it has a query.
fn base(address: &Address) -> Option<Uri> {
    let address = Address::from(address.reveal().trim_end_matches('/').to_owned());
    address.uri().filter(|uri| uri.query().is_none()).cloned()
}

/// Decodes `name:base64(host[:port]$elasticsearch$kibana)`; the default port is 443.
/// <https://www.elastic.co/docs/deploy-manage/deploy/elastic-cloud/find-cloud-id>
fn address_of_cloud(cloud_id: &str) -> Option<Address> {
    let encoded = cloud_id.rsplit_once(':').map_or(cloud_id, |(_, encoded)| encoded);
    let text = String::from_utf8(base64::read(encoded)?).ok()?;
    let mut parts = text.split('$');
    let (host, deployment) = (parts.next()?, parts.next()?);
    let (host, port) = host.split_once(':').unwrap_or((host, "443"));
    if host.is_empty() || deployment.is_empty() {
        return None;
    }
    // A deployment may have its own port.
    let (deployment, port) = deployment.split_once(':').unwrap_or((deployment, port));
    Some(Address::from(format!("https://{deployment}.{host}:{port}")))
        .filter(|it| base(it).is_some())
}

impl Settings {
    /// Resolves options, or returns all mistakes.
    fn of(mut options: Options) -> Result<Self, Vec<Mistake>> {
        let mut found = Mistakes::default();
        let endpoints = options.addresses(&mut found);
        let headers = options.all_headers(&mut found);
        #[rustfmt::skip]
        found.note_all([
            (!is_prefix(&options.index_prefix), "index_prefix", "`index_prefix` cannot begin an index name",
                "use the letters a-z, digits, - _ and . and begin with a letter or digit"),
            (CLAIMED.iter().any(|claimed| options.index_prefix.starts_with(claimed)),
                "index_prefix", "Elasticsearch's built-in templates turn indices with such names into data streams", "use for example \"agent-traces\""),
            (options.doc_bytes_max.0 < DOC_BYTES_MIN, "doc_bytes_max", "less than 16KiB does not hold a document", "leave it out"),
            (options.request_bytes_max < options.doc_bytes_max, "request_bytes_max", "`request_bytes_max` is less than `doc_bytes_max`",
                "a request has to hold at least one document"),
            (!(1..=CONCURRENCY_MAX).contains(&options.concurrency), "concurrency", "not a valid number of requests", "use 1 to 64"),
            (options.compression == Some(Compression::Zstd), "compression", "bulk requests are sent plain or with gzip", "write \"gzip\""),
        ]);
        found.0.extend(options.connection.check(options.request_bytes_max));
        if !found.0.is_empty() {
            return Err(found.0);
        }
        let usual = Compression::toward(&endpoints);
        let compression = *options.compression.get_or_insert(usual);
        let indices = ["spans", "traces"].map(|of| format!("{}-{of}", options.index_prefix));
        Ok(Self { options, endpoints, headers, indices, compression, prices: Arc::default() })
    }

    /// Returns whether spans go into a data stream.
    pub(super) fn is_stream(&self) -> bool {
        self.options.rotation == Rotation::DataStream
    }

    /// Returns whether a span that is sent again replaces the earlier one. With other ids, or in an append-only data stream, it becomes
    /// another document.
    pub(super) fn replaces_by_id(&self) -> bool {
        self.options.id_mode == IdMode::Ids && !self.is_stream()
    }

    /// Returns whether an index is this data stream.
    pub(super) fn is_streamed(&self, index: &str) -> bool {
        self.is_stream() && index == self.indices[0]
    }
}
