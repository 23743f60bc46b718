//! Options of the file sink.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path::{BadPath, Template};
pub use crate::sinks::http::Compression;
use crate::sinks::{Mistake, Mistakes};
use crate::support::byte_size::ByteSize;

/// The options of a `[sinks.name]` table with `type = "file"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where to write. `{date}` (2026-11-21) and `{hour}` (00 to 23) are the time at which the daemon received the item, in UTC; `{sink}`
    /// is the sink's name. A relative path is relative to the working directory. Directories are created as needed.
    pub path: String,
    /// What a line holds: `jsonl` (a span, in flat columns), `otlp-json` (a request, as the OpenTelemetry Collector's file exporter writes
    /// it) or `openai` (an item of the Agents SDK).
    #[serde(default)]
    pub format: Format,
    /// `none`, `gzip` or `zstd`. The file's name gets `.gz` or `.zst` unless it ends so already.
    #[serde(default = "uncompressed")]
    pub compression: Compression,
    /// How hard to compress: 0 to 9 for gzip, 1 to 22 for zstd.
    #[schemars(example = 6)]
    pub compression_level: Option<i32>,
    /// Start a new, numbered file when the current one reaches this size. Without it, a file grows until its path changes.
    #[schemars(example = "1GiB")]
    pub rotate_bytes: Option<ByteSize>,
}

/// The content of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A span or trace object in flat columns, as [`crate::sinks::jsonl`] describes them.
    #[default]
    Jsonl,
    /// `{"resourceSpans":[...]}`.
    OtlpJson,
    /// An item of the Agents SDK.
    #[serde(rename = "openai")]
    OpenAi,
}

fn uncompressed() -> Compression {
    Compression::None
}

/// gzip's default level. Higher levels double the time to save one hundredth.
pub(super) const DEFAULT_GZIP_LEVEL: i32 = 6;

/// zstd's default level.
pub(super) const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// The smallest size for rotation. Every file costs a checkpoint, and a folder of a million files is of no use.
pub(super) const ROTATE_BYTES_MIN: ByteSize = ByteSize(1 << 20);

impl Options {
    /// Returns all mistakes that are visible without accessing the disk.
    pub(super) fn check(&self) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        if let Err(BadPath { what, hint }) = Template::parse(&self.path) {
            found.note(true, "path", what, hint);
        }
        let (min, max, what, hint) = match self.compression {
            Compression::None => (1, 0, "a level is set without compression", "add `compression`"),
            Compression::Gzip => (0, 9, "not a gzip level", "use 0 (fastest) to 9 (smallest)"),
            Compression::Zstd => (1, 22, "not a zstd level", "use 1 (fastest) to 22 (smallest)"),
        };
        #[rustfmt::skip]
        found.note_all([
            (self.compression_level.is_some_and(|level| level < min || max < level), "compression_level", what, hint),
            (self.rotate_bytes.is_some_and(|bytes| bytes < ROTATE_BYTES_MIN),
                "rotate_bytes", "too small: a file would cost more than its content", "use \"1MiB\" or more"),
        ]);
        found.0
    }

    /// Returns the path with the compression's extension.
    pub(super) fn full_path(&self) -> String {
        let extension = match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        let path = self.path.strip_suffix(extension).unwrap_or(&self.path);
        format!("{path}{extension}")
    }
}
