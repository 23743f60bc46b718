//! Options of the object store sink.

use std::time;

use serde::{Deserialize, Serialize};

use crate::sinks::Mistake;
use crate::sinks::http::{Address, TlsOptions};
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

/// What a `[sinks.name]` table with `type = "object_store"` says.
#[derive(Debug, Clone, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where objects go: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or a folder, `file:///var/lib/spanferry/lake`.
    pub url: String,
    /// What an object holds: `jsonl` (a span a line, in flat columns), `parquet` (the same columns, typed), or `otlp` (requests in
    /// protobuf, to replay).
    #[serde(default)]
    pub format: Format,
    /// When an object is put: whichever bound is met first. It is in memory until then, compressed.
    #[serde(default)]
    pub object: ObjectLimits,
    /// How hard to compress: 1 to 22 of zstd.
    #[serde(default = "default_level")]
    pub compression_level: i32,
    /// The address of a store that is not Amazon's, Google's or Microsoft's: `http://minio:9000`.
    #[schemars(with = "Option<String>", extend("examples" = ["http://minio:9000"]))]
    pub endpoint: Option<Address>,
    /// `s3://`: the bucket's region. Without it the one that `AWS_REGION` says, or `us-east-1`.
    #[schemars(extend("examples" = ["eu-central-1"]))]
    pub region: Option<String>,
    /// `s3://`: whether the bucket stands in the path of an address (`https://host/bucket`) or in its host. Where there is an `endpoint`, in the path.
    #[schemars(extend("examples" = [true]))]
    pub path_style: Option<bool>,
    /// `s3://`: the id of an access key. Without it the credentials are those of the environment (`AWS_ACCESS_KEY_ID` ...), or of the role
    /// of the pod (web identity), container or machine. Profiles (`~/.aws`) are not read.
    #[schemars(extend("examples" = ["AKIAIOSFODNN7EXAMPLE"]))]
    pub access_key_id: Option<String>,
    /// `s3://`: the access key.
    #[schemars(extend("examples" = ["the-key-with-this-id"]))]
    pub secret_access_key: Option<Secret>,
    /// `s3://`: the token of a session, where the key belongs to one.
    #[schemars(extend("examples" = ["the-token-of-a-session"]))]
    pub session_token: Option<Secret>,
    /// `s3://`: how the store encrypts objects: `AES256`, `aws:kms`, or as the bucket says.
    #[schemars(extend("examples" = ["aws:kms"]))]
    pub sse: Option<Sse>,
    /// `s3://`: the key of KMS to encrypt with.
    #[schemars(extend("examples" = ["arn:aws:kms:eu-central-1:111122223333:key/traces"]))]
    pub kms_key: Option<String>,
    /// `gs://`: the JSON of a service account's key. Without it the credentials are those of the environment
    /// (`GOOGLE_APPLICATION_CREDENTIALS` ...), of gcloud, or of the machine or pod.
    #[schemars(extend("examples" = ["${file:/etc/spanferry/service-account.json}"]))]
    pub service_account_key: Option<Secret>,
    /// `az://`: the storage account. Without it the one that `AZURE_STORAGE_ACCOUNT_NAME` says.
    #[schemars(extend("examples" = ["traces"]))]
    pub account: Option<String>,
    /// `az://`: the account's key. Without it, and without a token, the credentials are those of the environment (`AZURE_STORAGE_ACCOUNT_KEY`,
    /// `AZURE_CLIENT_ID` ...), or of the identity of the pod or machine.
    #[schemars(extend("examples" = ["the-key-of-the-account"]))]
    pub account_key: Option<Secret>,
    /// `az://`: the token of a shared access signature.
    #[schemars(extend("examples" = ["the-token-of-a-signature"]))]
    pub sas_token: Option<Secret>,
    /// The longest that a request may take, that of the largest object too.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// The longest that connecting may take.
    #[serde(default = "crate::sinks::http::default_connect_timeout")]
    pub connect_timeout: Duration,
    /// Certificates, for https.
    #[serde(default)]
    pub tls: TlsOptions,
}

/// What an object holds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A span or trace object a line, as [`crate::sinks::jsonl`] describes them.
    #[default]
    Jsonl,
    /// The columns of the lines, as [`crate::sinks::parquet`] describes them.
    Parquet,
    /// Requests in protobuf, each behind its length.
    Otlp,
}

/// What kind of store an address is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Google,
    Azure,
    File,
}

/// How addresses of each kind begin.
const SCHEMES: [(&str, Scheme); 4] = [
    ("s3://", Scheme::S3),
    ("gs://", Scheme::Google),
    ("az://", Scheme::Azure),
    ("file://", Scheme::File),
];

impl Scheme {
    /// What to say where no client can be made.
    pub(super) fn credentials(self) -> &'static str {
        match self {
            Self::S3 => "check `access_key_id` or the variables AWS_...",
            Self::Google => {
                "check `service_account_key`, or the file that GOOGLE_APPLICATION_CREDENTIALS names"
            }
            Self::Azure => {
                "check `account`, `account_key` and `sas_token`, or the variables AZURE_..."
            }
            Self::File => "",
        }
    }
}

/// When an object is put.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectLimits {
    /// Its size.
    pub bytes_max: ByteSize,
    /// How long its first row waits. So long the journal keeps what is in it.
    pub age: Duration,
}

/// How the store encrypts objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
pub enum Sse {
    /// With keys of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of KMS.
    #[serde(rename = "aws:kms")]
    Kms,
}

impl Sse {
    /// The header's value.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
        }
    }
}

impl Default for ObjectLimits {
    fn default() -> Self {
        // Readers of lakes like 128 MiB to 1 GiB, and this is in memory. Five minutes is soon enough for whoever asks a lake.
        Self { bytes_max: ByteSize(128 << 20), age: time::Duration::from_mins(5).into() }
    }
}

/// Spans repeat themselves so much that the fastest level finds nearly everything.
fn default_level() -> i32 {
    1
}

fn default_timeout() -> Duration {
    // The largest object by default within it: 1 MiB a second.
    time::Duration::from_mins(2).into()
}

/// A smaller object costs more than what is in it.
const OBJECT_BYTES_MIN: ByteSize = ByteSize(64 << 10);
/// What one put of S3 takes is 5 GB; an object is in memory.
const OBJECT_BYTES_MAX: ByteSize = ByteSize(1 << 30);

const URLS: &str = "write \"s3://bucket/prefix\", \"gs://bucket/prefix\", \"az://container/prefix\" or \"file:///absolute/folder\"";

impl Options {
    /// Every mistake that can be seen without asking anybody.
    pub(super) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = self.tls.check();
        let mut wrong = |is_wrong: bool, option, what, hint| {
            if is_wrong {
                mistakes.push(Mistake { option, what, hint });
            }
        };
        let (scheme, (bucket, prefix)) = (self.scheme(), self.place());
        let is_place = match scheme {
            Some(Scheme::File) => bucket.is_empty() && prefix.len() > 1,
            Some(_) => !bucket.is_empty(),
            None => false,
        };
        wrong(!is_place, "url", "not an address that objects can be written to", URLS);
        let is_odd = self.url.contains(['?', '#', '@']) || prefix.split('/').any(|it| it == "..");
        wrong(is_odd, "url", "the address has a `?`, `#`, `@` or `..`", URLS);
        for (option, is_set, schemes, hint) in self.of_schemes() {
            let is_lost = is_set && scheme.is_some_and(|scheme| !schemes.contains(&scheme));
            wrong(is_lost, option, "an option of another kind of store than `url` names", hint);
        }
        let no_address = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.uri().is_none());
        let what = "not an address without credentials";
        wrong(no_address, "endpoint", what, "write for example \"http://minio:9000\"");
        let sizes = OBJECT_BYTES_MIN..=OBJECT_BYTES_MAX;
        let is_size = sizes.contains(&self.object.bytes_max);
        let what = "`object.bytes_max` is out of bounds";
        wrong(!is_size, "object", what, "use \"64KiB\" to \"1GiB\"; it is in memory");
        let what = "`object.age` must be more than nothing";
        wrong(self.object.age.0.is_zero(), "object", what, "leave it out, or write \"5m\"");
        let is_level = (1..=22).contains(&self.compression_level);
        let hint = "use 1 (fastest) to 22 (smallest)";
        wrong(!is_level, "compression_level", "not a level of zstd", hint);
        for (is_wrong, option, what, hint) in self.credentials_at_odds() {
            wrong(is_wrong, option, what, hint);
        }
        for (option, duration) in
            [("timeout", self.timeout), ("connect_timeout", self.connect_timeout)]
        {
            let what = "it must be more than nothing";
            wrong(duration.0.is_zero(), option, what, "leave it out, or write \"30s\"");
        }
        mistakes
    }

    /// Options that only some kinds of stores have, and whether they are written.
    fn of_schemes(&self) -> [(&'static str, bool, &'static [Scheme], &'static str); 12] {
        use Scheme::{Azure, Google, S3};
        const OF_S3: &str = "leave it out; it is for \"s3://\"";
        const OF_GOOGLE: &str = "leave it out; it is for \"gs://\"";
        const OF_AZURE: &str = "leave it out; it is for \"az://\"";
        [
            ("endpoint", self.endpoint.is_some(), &[S3, Google, Azure], "leave it out"),
            ("region", self.region.is_some(), &[S3], OF_S3),
            ("path_style", self.path_style.is_some(), &[S3], OF_S3),
            ("access_key_id", self.access_key_id.is_some(), &[S3], OF_S3),
            ("secret_access_key", self.secret_access_key.is_some(), &[S3], OF_S3),
            ("session_token", self.session_token.is_some(), &[S3], OF_S3),
            ("sse", self.sse.is_some(), &[S3], OF_S3),
            ("kms_key", self.kms_key.is_some(), &[S3], OF_S3),
            ("service_account_key", self.service_account_key.is_some(), &[Google], OF_GOOGLE),
            ("account", self.account.is_some(), &[Azure], OF_AZURE),
            ("account_key", self.account_key.is_some(), &[Azure], OF_AZURE),
            ("sas_token", self.sas_token.is_some(), &[Azure], OF_AZURE),
        ]
    }

    fn credentials_at_odds(&self) -> [(bool, &'static str, &'static str, &'static str); 5] {
        let is_json = |key: &Secret| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(key.reveal()).is_ok()
        };
        [
            (
                self.access_key_id.is_some() != self.secret_access_key.is_some(),
                "access_key_id",
                "`access_key_id` and `secret_access_key` need each other",
                "give both, or none of them",
            ),
            (
                self.session_token.is_some() && self.access_key_id.is_none(),
                "session_token",
                "a token without its key",
                "add `access_key_id` and `secret_access_key`",
            ),
            (
                self.kms_key.is_some() && self.sse != Some(Sse::Kms),
                "kms_key",
                "a key that nothing is encrypted with",
                "add `sse = \"aws:kms\"`",
            ),
            (
                self.service_account_key.as_ref().is_some_and(|key| !is_json(key)),
                "service_account_key",
                "not the JSON of a service account's key",
                "write the file's content: \"${file:/etc/spanferry/service-account.json}\"",
            ),
            (
                self.account_key.is_some() && self.sas_token.is_some(),
                "sas_token",
                "a key and a token for the same account",
                "give `account_key` or `sas_token`",
            ),
        ]
    }

    /// The kind of store that the address is of.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        let known = SCHEMES.iter().find(|(start, _)| self.url.starts_with(start));
        known.map(|(_, scheme)| *scheme)
    }

    /// The bucket, and what stands before all names; for files nothing, and the folder.
    pub(super) fn place(&self) -> (&str, &str) {
        let (_, rest) = self.url.split_once("://").unwrap_or_default();
        match rest.find('/') {
            Some(0) => ("", rest),
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        }
    }
}
