//! Options of the Langfuse sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeTable;

pub use super::usage::ReasoningTokens;
use crate::prices::Prices;
use crate::sinks::http::{
    Address, Compression, ConnectionOptions, TlsOptions, basic, secret_header,
};
use crate::sinks::{Mistake, Mistakes, settle_options};
use crate::span::RootSpan;
use crate::support::byte_size::{ByteSize, bytes};
use crate::support::duration::{Duration, seconds};
use crate::support::problem::Problem;
use crate::support::secret::Secret;

/// Which spans go to Langfuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// All of them.
    #[default]
    All,
    /// Those of agents and models.
    Llm,
}

/// The options of a `[sinks.name]` table with `type = "langfuse"`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Langfuse's address: its EU cloud, `https://us.cloud.langfuse.com`, or your own server.
    #[serde(default = "default_base_url")]
    pub base_url: Address,
    /// The project's public key, `pk-lf-...`.
    pub public_key: String,
    /// Its secret key, `sk-lf-...`.
    pub secret_key: Secret,
    /// The environment of spans without one: lowercase letters, digits, `-` and `_`.
    #[schemars(extend("examples" = ["production"]))]
    pub environment: Option<String>,
    /// The release of spans without one.
    #[schemars(extend("examples" = ["2026.11"]))]
    pub release: Option<String>,
    /// Which spans go to Langfuse: `all`, or only those that concern models (`llm`): spans of the Agents SDK, of Langfuse's own SDKs, and
    /// with a scope or an attribute of a convention for models, tools and agents. Others, such as HTTP and database spans, are then left
    /// out, as Langfuse's own SDKs do, and count as `filtered`. `llm` is short for a last rule of this sink, `match = { llm = false }, drop
    /// = true`.
    #[serde(default)]
    pub keep: Keep,
    /// Where reasoning tokens are counted: `split` (in their own bucket, for models for which Langfuse has a price for it) or `in_output`.
    #[serde(default)]
    pub reasoning_tokens: ReasoningTokens,
    /// Whether calls are sent with a cost from `[prices]`, instead of the one that Langfuse works out from its own prices.
    #[serde(default)]
    pub send_cost: bool,
    /// Models of spans that do not name theirs, such as the Agents SDK's `response` spans. Without a model there is no cost. Write for
    /// example `{ default = "gpt-5-mini", agents = { "Triage" = "o4-mini" } }`.
    #[serde(default)]
    pub models: Models,
    /// Asks OpenAI for responses whose model is still unknown, by their ids. Write for example `{ api_key = "${OPENAI_API_KEY}" }`.
    pub lookup: Option<Lookup>,
    /// Whether Agents SDK spans without a parent are put under one root span, which is sent once their trace has been quiet for ten
    /// seconds: `auto` (unless there is only one and it is a `task`, which is a root by nature), `always`, or `never`.
    #[serde(default)]
    pub root_span: RootSpan,
    /// How long an Agents SDK span waits for its trace's name, group and metadata if they are not known yet.
    #[serde(default = "crate::sinks::default_context_wait")]
    pub context_wait: Duration,
    /// The member of a trace's metadata that holds the user.
    #[serde(default = "default_user_from")]
    pub user_from: String,
    /// The member of a trace's metadata that holds its tags.
    #[serde(default = "default_tags_from")]
    pub tags_from: String,
    /// The largest request, before compression. Larger batches are split. A single larger span is sent on its own. Langfuse's cloud accepts
    /// 5 MB.
    // It does not say whether before or after compression.
    #[serde(default = "bytes::<4_000_000>")]
    pub request_bytes_max: ByteSize,
    /// The connection.
    // Langfuse answers once the request is in its blob storage, which can take seconds; while its Redis is down, it never answers.
    #[serde(flatten)]
    pub connection: ConnectionOptions<30>,
}

/// Models of spans that do not name theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// The model of every agent that is not named below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The models of agents, by the agents' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, String>,
}

/// The access to OpenAI for looking up responses.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// A key of the project that the answers belong to.
    pub api_key: Secret,
    /// The address of the API, without `/v1`.
    #[serde(default = "default_lookup_endpoint")]
    pub endpoint: Address,
    /// Whether to add the response's text as well. Leave it off if the app withholds it for a reason.
    #[serde(default)]
    pub content: bool,
    /// The longest that a delivery waits for the answers it asks for.
    // An answer comes within a fraction of a second; a delivery should not wait long for what it can do without.
    #[serde(default = "seconds::<2>")]
    pub timeout: Duration,
    /// Certificates, for https: those of this address, which has nothing to do with Langfuse's.
    #[serde(default, skip_serializing_if = "TlsOptions::is_default")]
    pub tls: TlsOptions,
}

/// The checked options and the values derived from them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The options themselves.
    pub options: Options,
    /// The address for spans.
    pub traces: Address,
    /// The credentials.
    pub authorization: HeaderMap,
    /// How requests are compressed: Langfuse supports only gzip.
    pub compression: Compression,
    /// The price table, if Langfuse should not compute costs itself; set when the sink is built.
    pub prices: Arc<Prices>,
}

/// The path for spans, below the base address.
pub(super) const TRACES_PATH: &str = "/api/public/otel/v1/traces";

/// Langfuse cuts longer environment names.
const ENVIRONMENT_CHARS_MAX: usize = 40;

fn default_base_url() -> Address {
    "https://cloud.langfuse.com".to_owned().into()
}

fn default_lookup_endpoint() -> Address {
    "https://api.openai.com".to_owned().into()
}

fn default_user_from() -> String {
    "user_id".to_owned()
}

fn default_tags_from() -> String {
    "tags".to_owned()
}

/// Reads a sink's table and returns all problems in it.
pub fn parse(table: Spanned<DeTable<'_>>) -> Result<Settings, Vec<Problem>> {
    settle_options(table, Settings::of)
}

fn is_environment(text: &str) -> bool {
    (1..=ENVIRONMENT_CHARS_MAX).contains(&text.len())
        && !text.starts_with("langfuse")
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// Returns the address of a path below a base.
fn address(base: &str, path: &str) -> Option<Address> {
    let address = Address::from(format!("{}{path}", trimmed(base)));
    let is_whole = address.uri().is_some_and(|uri| uri.query().is_none());
    is_whole.then_some(address)
}

/// Returns the base address even if the complete address for an OTLP exporter was configured.
fn trimmed(base: &str) -> &str {
    let base = base.trim_end_matches('/');
    let base = base.strip_suffix("/v1/traces").unwrap_or(base);
    base.strip_suffix("/api/public/otel").unwrap_or(base).trim_end_matches('/')
}

impl Settings {
    /// Resolves options, or returns all mistakes.
    fn of(mut options: Options) -> Result<Self, Vec<Mistake>> {
        let hint = "the public key begins with pk-lf-, the secret key with sk-lf-";
        let (public, secret) = (&options.public_key, options.secret_key.reveal());
        let keys = secret_header(&basic(public, secret));
        let base = options.base_url.reveal();
        let (base_url, traces) = (address(base, ""), address(base, TRACES_PATH));
        let lookup = options.lookup.as_ref();
        let endpoint = lookup.map(|lookup| {
            address(lookup.endpoint.reveal(), "").filter(|_| !lookup.api_key.reveal().is_empty())
        });
        let is_unknown = |environment: &String| !is_environment(environment);
        let mut found = Mistakes::default();
        #[rustfmt::skip]
        found.note_all([
            (traces.is_none(),
                "base_url", "not an address that begins with http:// or https://, without credentials", "write for example \"https://cloud.langfuse.com\""),
            (public.is_empty() || public.starts_with("sk-lf-") || public.contains(':'), "public_key", "not a public key", hint),
            (secret.is_empty() || secret.starts_with("pk-lf-"), "secret_key", "not a secret key", hint),
            (options.environment.as_ref().is_some_and(is_unknown),
                "environment", "not a valid environment name for Langfuse", "use at most 40 of a-z 0-9 _ -, not beginning with langfuse"),
            (endpoint == Some(None),
                "lookup", "it needs a key and an address that begins with http:// or https://", "write for example { api_key = \"${OPENAI_API_KEY}\" }"),
        ]);
        found.0.extend(options.connection.check(options.request_bytes_max));
        let tls = lookup.map(|lookup| lookup.tls.check()).unwrap_or_default();
        found.0.extend(tls.into_iter().map(|mistake| Mistake { option: "lookup", ..mistake }));
        let (true, Some(keys), Some(base_url), Some(traces)) =
            (found.0.is_empty(), keys, base_url, traces)
        else {
            return Err(found.0);
        };
        options.base_url = base_url;
        if let (Some(lookup), Some(endpoint)) = (&mut options.lookup, endpoint.flatten()) {
            lookup.endpoint = endpoint;
        }
        let authorization = HeaderMap::from_iter([(hyper::header::AUTHORIZATION, keys)]);
        let compression = Compression::toward(traces.uri());
        Ok(Self { options, traces, authorization, compression, prices: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::http::shown;

    const KEYS: &str = "public_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"\n";

    fn settings(more: &str) -> Result<Settings, Vec<Problem>> {
        let text = format!("{KEYS}{more}");
        parse(DeTable::parse(&text).unwrap())
    }

    #[test]
    fn keys_are_enough() {
        let settings = settings("").unwrap();
        assert_eq!(
            settings.traces.reveal(),
            "https://cloud.langfuse.com/api/public/otel/v1/traces"
        );
        assert_eq!(settings.options.request_bytes_max, ByteSize(4_000_000));
        assert_eq!(settings.options.root_span, RootSpan::Auto);
        let authorization = settings.authorization.get("authorization").unwrap();
        assert_eq!(authorization, "Basic cGstbGYtMTpzay1sZi0x");
        assert!(authorization.is_sensitive());
    }

    #[test]
    fn every_mistake_is_said_where_it_is() {
        for (more, option) in [
            ("base_url = \"langfuse.com\"", "base_url"),
            ("base_url = \"https://user:password@langfuse.com\"", "base_url"),
            ("environment = \"Production\"", "environment"),
            ("environment = \"langfuse-x\"", "environment"),
            ("lookup = { api_key = \"\" }", "lookup"),
            ("request_bytes_max = 10", "request_bytes_max"),
            ("timeout = \"0s\"", "timeout"),
            ("tls = { cert_file = \"a.pem\" }", "tls"),
            ("lookup = { api_key = \"k\", tls = { cert_file = \"a.pem\" } }", "lookup"),
        ] {
            let problems = settings(more).unwrap_err();
            assert_eq!(problems.len(), 1, "{more}: {problems:?}");
            let at = problems.first().and_then(|problem| problem.at.clone()).unwrap();
            let value =
                more.strip_prefix(option).and_then(|rest| rest.strip_prefix(" = ")).unwrap();
            assert_eq!(format!("{KEYS}{more}").get(at), Some(value));
        }
        let swapped = "public_key = \"sk-lf-1\"\nsecret_key = \"pk-lf-1\"";
        assert_eq!(parse(DeTable::parse(swapped).unwrap()).unwrap_err().len(), 2);
    }

    #[test]
    fn what_is_shown_holds_no_credential() {
        let lookup =
            "lookup = { api_key = \"sk-test-2\" }\nmodels = { agents = { \"A b\" = \"m\" } }";
        let shown = shown(&settings(lookup).unwrap().options).to_string();
        assert!(!shown.contains("sk-lf-1") && !shown.contains("sk-test-2"), "{shown}");
        assert!(shown.contains("api.openai.com") && shown.contains("pk-lf-1"), "{shown}");
        assert!(!format!("{:?}", settings(lookup).unwrap()).contains("sk-"));
    }
}
