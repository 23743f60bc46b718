//! Options of the object store sink.

use std::time;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sinks::http::{self, Address, ConnectionOptions};
use crate::sinks::{Mistake, Mistakes};
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::secret::Secret;

/// The options of a `[sinks.name]` table with `type = "object_store"`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where objects go: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or a folder, `file:///var/lib/spanferry/lake`.
    pub url: String,
    /// What an object holds: `jsonl` (a span a line, in flat columns), `parquet` (the same columns, typed), or `otlp` (requests in
    /// protobuf, to replay).
    #[serde(default)]
    pub format: Format,
    /// When an object is uploaded: at whichever bound is reached first. Until then it is in memory, compressed. Its upload has
    /// to end within `timeout`.
    #[serde(default)]
    pub object: ObjectLimits,
    /// How hard to compress: 1 to 22 of zstd.
    #[serde(default = "default_level")]
    pub compression_level: i32,
    /// The address of a compatible store, such as `http://minio:9000`.
    #[schemars(with = "Option<String>", extend("examples" = ["http://minio:9000"]))]
    pub endpoint: Option<Address>,
    /// `s3://`: the bucket's region. Default: `AWS_REGION`, or `us-east-1`.
    #[schemars(extend("examples" = ["eu-central-1"]))]
    pub region: Option<String>,
    /// `s3://`: whether the bucket is part of the path (`https://host/bucket`) or of the host. Default: of the path if `endpoint` is set.
    #[schemars(extend("examples" = [true]))]
    pub path_style: Option<bool>,
    /// `s3://`: an access key's id. Without it, the credentials come from the environment (`AWS_ACCESS_KEY_ID` ...), or from the role of
    /// the pod (web identity), container or machine. Profiles (`~/.aws`) are not read.
    #[schemars(extend("examples" = ["AKIAIOSFODNN7EXAMPLE"]))]
    pub access_key_id: Option<String>,
    /// `s3://`: the secret access key.
    #[schemars(extend("examples" = ["the-key-with-this-id"]))]
    pub secret_access_key: Option<Secret>,
    /// `s3://`: the session token, if the key is temporary.
    #[schemars(extend("examples" = ["the-token-of-a-session"]))]
    pub session_token: Option<Secret>,
    /// `s3://`: how the store encrypts objects: `AES256`, `aws:kms`, or as the bucket says.
    #[schemars(extend("examples" = ["aws:kms"]))]
    pub sse: Option<Sse>,
    /// `s3://`: the KMS key to encrypt with.
    #[schemars(extend("examples" = ["arn:aws:kms:eu-central-1:111122223333:key/traces"]))]
    pub kms_key: Option<String>,
    /// `gs://`: the JSON of a service account's key (`${file:/etc/spanferry/key.json}`). Without it, the credentials come from the
    /// environment (`GOOGLE_APPLICATION_CREDENTIALS` ...), from gcloud, or from the machine or pod.
    pub service_account_key: Option<Secret>,
    /// `az://`: the storage account. Default: `AZURE_STORAGE_ACCOUNT_NAME`.
    pub account: Option<String>,
    /// `az://`: the account's key. Without it, and without a token, the credentials come from the environment (`AZURE_STORAGE_ACCOUNT_KEY`,
    /// `AZURE_CLIENT_ID` ...), or from the identity of the pod or machine.
    pub account_key: Option<Secret>,
    /// `az://`: a shared access signature token.
    pub sas_token: Option<Secret>,
    /// The connection.
    // The largest object by default is uploaded in time at 1 MiB a second.
    #[serde(flatten)]
    pub connection: ConnectionOptions<120>,
}

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A span or trace object a line, as [`crate::sinks::jsonl`] describes them.
    #[default]
    Jsonl,
    /// The columns of the lines, as [`crate::sinks::parquet`] describes them.
    Parquet,
    /// Requests in protobuf, each preceded by its length.
    Otlp,
}

/// The kind of store that is a folder.
pub(super) const FILE: &str = "file";

/// For each kind of store: its scheme, its own options, and the message if they are used with another kind.
#[rustfmt::skip]
const SCHEMES: [(&str, &str, &str); 4] = [
    ("s3", "region path_style access_key_id secret_access_key session_token sse kms_key", "remove it; it is for \"s3://\""),
    ("gs", "service_account_key", "remove it; it is for \"gs://\""),
    ("az", "account account_key sas_token", "remove it; it is for \"az://\""),
    (FILE, "", ""),
];

/// The limits at which an object is uploaded.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectLimits {
    /// The object's size.
    pub bytes_max: ByteSize,
    /// How long its first row waits. Until the upload, the journal keeps its rows.
    pub age: Duration,
}

/// How the store encrypts objects, by the value of S3's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Sse {
    /// With keys of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of KMS.
    #[serde(rename = "aws:kms")]
    Kms,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        // Readers of lakes prefer 128 MiB to 1 GiB, and the object is in memory. Five minutes is soon enough for queries of a lake.
        Self { bytes_max: ByteSize(128 << 20), age: time::Duration::from_mins(5).into() }
    }
}

/// Spans repeat themselves so much that the fastest level is nearly as good as others.
fn default_level() -> i32 {
    1
}

/// A smaller object costs more than its contents.
const OBJECT_BYTES_MIN: ByteSize = ByteSize(64 << 10);
/// One put to S3 accepts 5 GB, but an object is in memory.
const OBJECT_BYTES_MAX: ByteSize = ByteSize(1 << 30);

const URLS: &str = "write \"s3://bucket/prefix\", \"gs://bucket/prefix\", \"az://container/prefix\" or \"file:///absolute/folder\"";

/// The contents of a Google key.
type Json = serde_json::Map<String, serde_json::Value>;

impl Options {
    /// Returns every mistake that can be found offline.
    pub(super) fn check(&self) -> Vec<Mistake> {
        let mut found = Mistakes(self.connection.check(OBJECT_BYTES_MAX));
        let (scheme, (bucket, prefix)) = (self.scheme(), self.place());
        let is_place = match scheme {
            Some(FILE) => bucket.is_empty() && prefix.len() > 1,
            Some(_) => !bucket.is_empty(),
            None => false,
        };
        found.note(!is_place, "url", "not the address of a store", URLS);
        let is_odd = self.url.contains(['?', '#', '@']) || prefix.split('/').any(|it| it == "..");
        found.note(is_odd, "url", "the address must not contain `?`, `#`, `@` or `..`", URLS);
        let written = http::shown(self);
        for (_, names, hint) in SCHEMES.iter().filter(|(other, ..)| Some(*other) != scheme) {
            for option in names.split(' ') {
                let what = "this option is for another kind of store";
                found.note(scheme.is_some() && written.contains_key(option), option, what, hint);
            }
        }
        let sizes = OBJECT_BYTES_MIN..=OBJECT_BYTES_MAX;
        let is_json = |key: &Secret| serde_json::from_str::<Json>(key.reveal()).is_ok();
        let no_address = |endpoint: &Address| endpoint.uri().is_none();
        #[rustfmt::skip]
        found.note_all([
            (scheme == Some(FILE) && self.endpoint.is_some(),
                "endpoint", "a folder has no endpoint", "leave it out"),
            (self.endpoint.as_ref().is_some_and(no_address),
                "endpoint", "not a valid address, or with credentials in it", "write for example \"http://minio:9000\""),
            (!sizes.contains(&self.object.bytes_max),
                "object", "`object.bytes_max` is out of bounds", "use \"64KiB\" to \"1GiB\"; objects are held in memory"),
            (self.object.age.0.is_zero(),
                "object", "`object.age` must be more than zero", "leave it out, or write \"5m\""),
            (!(1..=22).contains(&self.compression_level),
                "compression_level", "not a zstd level", "use 1 (fastest) to 22 (smallest)"),
            (self.access_key_id.is_some() != self.secret_access_key.is_some(),
                "access_key_id", "`access_key_id` and `secret_access_key` go together", "set both or neither"),
            (self.session_token.is_some() && self.access_key_id.is_none(),
                "session_token", "a session token without its key", "add `access_key_id` and `secret_access_key`"),
            (self.kms_key.is_some() && self.sse != Some(Sse::Kms),
                "kms_key", "a KMS key without `sse`", "add `sse = \"aws:kms\"`"),
            (self.service_account_key.as_ref().is_some_and(|key| !is_json(key)),
                "service_account_key", "not the JSON of a service account's key", "write \"${file:/etc/spanferry/key.json}\""),
            (self.account_key.is_some() && self.sas_token.is_some(),
                "sas_token", "both an account key and a token", "set either `account_key` or `sas_token`"),
        ]);
        found.0
    }

    /// Returns the scheme of the URL, which is the kind of store.
    pub(super) fn scheme(&self) -> Option<&'static str> {
        let (scheme, _) = self.url.split_once("://")?;
        SCHEMES.iter().map(|(known, ..)| *known).find(|known| *known == scheme)
    }

    /// Returns the bucket and the prefix of all names; for files, an empty text and the folder.
    pub(super) fn place(&self) -> (&str, &str) {
        let (_, rest) = self.url.split_once("://").unwrap_or_default();
        match rest.find('/') {
            Some(0) => ("", rest),
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        }
    }
}
