//! Options of the OpenAI sink.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::http::{Address, ConnectionOptions, secret_header};
use crate::sinks::{Mistake, Mistakes};
use crate::support::byte_size::{ByteSize, bytes};
use crate::support::duration::{Duration, seconds};
use crate::support::secret::Secret;

/// The options of a `[sinks.name]` table with `type = "openai"`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The complete address of the ingest.
    #[serde(default = "default_endpoint")]
    pub endpoint: Address,
    /// A key for items that came without a usable one: spans from OTLP, and items whose caller's key is unknown because the daemon
    /// restarted since. If callers belong to different organisations, leave it out: their items then wait for `key_wait`.
    pub api_key: Option<Secret>,
    /// `OpenAI-Organization` for what is sent with `api_key`.
    pub organization: Option<String>,
    /// `OpenAI-Project` for what is sent with `api_key`.
    pub project: Option<String>,
    /// Which key to prefer: the `caller`'s own, the default, or the `configured` one, which sends everything to one project of yours.
    /// Callers who are admitted by a token that is not an OpenAI key have none of their own.
    #[serde(default)]
    pub prefer: Prefer,
    /// Whether spans that arrived as OTLP are sent too, as Agents SDK items. Needs `api_key`.
    #[serde(default)]
    pub forward_otlp: bool,
    /// How long after a start items wait for their caller's next request, which brings their key. Then they become dead letters, which can
    /// be replayed. Other callers' items do not wait for them.
    // A caller that is at work sends every 5 s; one that was silent for six times as long is not.
    #[serde(default = "seconds::<30>")]
    pub key_wait: Duration,
    /// How long items wait when OpenAI refuses their caller's key, from the first refusal on. Then they become dead letters; the oldest do
    /// so earlier if there is no room for more. Other callers' items do not wait for them, and may be sent again after a restart in that
    /// time.
    // Time to check a key's permissions or the account's bill. A replaced key never works again, and after a restart the waiting items are
    // sent again with all that overtook them, so a longer wait would cost more than it saves.
    #[serde(default = "seconds::<3600>")]
    pub refused_key_wait: Duration,
    /// The connection.
    // The Python SDK's own timeout for OpenAI.
    #[serde(flatten)]
    pub connection: ConnectionOptions<60>,
    /// The largest request. Larger batches are split; a single larger item is sent on its own.
    // Four times the size of 128 ordinary items of the SDK. OpenAI documents no limit.
    #[serde(default = "bytes::<{ 4 << 20 }>")]
    pub request_bytes_max: ByteSize,
}

/// Which key takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// The caller's, if it is known.
    #[default]
    Caller,
    /// The configured one.
    Configured,
}

/// The address that both SDKs send to.
fn default_endpoint() -> Address {
    "https://api.openai.com/v1/traces/ingest".to_owned().into()
}

impl Options {
    /// Returns every mistake in the options.
    pub(super) fn check(&self) -> Vec<Mistake> {
        const KEY_HINT: &str = "add `api_key = \"${OPENAI_API_KEY}\"`";
        let mut found = Mistakes::default();
        let key = self.api_key.as_ref().map(Secret::reveal);
        let is_no_value = |value: &str| value.trim().is_empty() || secret_header(value).is_none();
        #[rustfmt::skip]
        found.note_all([
            (self.endpoint.uri().is_none_or(|uri| uri.path() == "/"),
                "endpoint", "not a complete address: it begins with http:// or https://, has a path and no credentials",
                "OpenAI's is \"https://api.openai.com/v1/traces/ingest\""),
            (self.prefer == Prefer::Configured && key.is_none(), "prefer", "there is no `api_key` to prefer", KEY_HINT),
            (self.forward_otlp && key.is_none(), "forward_otlp", "spans from OTLP come without an OpenAI key", KEY_HINT),
            (key.is_some_and(is_no_value), "api_key", "not a key", "OpenAI keys begin with sk-"),
        ]);
        for (option, value) in [("organization", &self.organization), ("project", &self.project)] {
            let is_bad = |value: &String| value.is_empty() || secret_header(value).is_none();
            #[rustfmt::skip]
            found.note_all([
                (value.as_ref().is_some_and(is_bad), option, "not a valid header value", "remove it, or use the id that OpenAI shows"),
                (value.is_some() && key.is_none(), option, "it goes with `api_key` only; callers bring their own", KEY_HINT),
            ]);
        }
        found.0.extend(self.connection.check(self.request_bytes_max));
        found.0
    }
}
