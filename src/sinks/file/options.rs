//! Options of the file sink.

use serde::Deserialize;

use super::path::Template;

/// What a `[sinks.name]` table with `type = "file"` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where to write. `{date}` (2026-11-21) and `{hour}` (00 to 23) are filled in from when the daemon received the item, in UTC,
    /// and `{sink}` with the sink's name. A relative path is relative to the working directory. Folders are made as needed.
    pub path: String,
    /// What a line is: `jsonl` (a span, in flat columns), `otlp-json` (a request, as the OpenTelemetry Collector's file exporter
    /// writes it) or `openai` (an item of the Agents SDK).
    #[serde(default)]
    pub format: Format,
    /// `none`, `gzip` or `zstd`. The file's name gets `.gz` or `.zst` unless it has it.
    #[serde(default)]
    pub compression: Compression,
    /// How hard to compress: 0 to 9 for gzip, 1 to 22 for zstd.
    pub compression_level: Option<i32>,
    /// Begin a new file, numbered in its name, once this one has reached this size. Without it a file grows until its path changes.
    pub rotate_bytes: Option<u64>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
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

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// One gzip member for each delivery.
    Gzip,
    /// One zstd frame for each delivery.
    Zstd,
}

/// gzip's own default: beyond it, time doubles for a hundredth less.
pub(super) const DEFAULT_GZIP_LEVEL: i32 = 6;

/// zstd's own default.
pub(super) const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// A file is not begun anew for less than this: every file costs a checkpoint, and a folder of a million files is of no use.
pub(super) const ROTATE_BYTES_MIN: u64 = 1 << 20;

/// A mistake: which option, and what is wrong with it.
pub(super) type Mistake = (&'static str, String);

impl Options {
    /// The plainest options for a path.
    pub fn at(path: String) -> Self {
        Self {
            path,
            format: Format::default(),
            compression: Compression::default(),
            compression_level: None,
            rotate_bytes: None,
        }
    }

    /// Every mistake that can be seen without looking at the disk.
    pub(super) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if let Err(problem) = Template::parse(&self.path) {
            mistakes.push(("path", problem));
        }
        let levels = match self.compression {
            Compression::None => None,
            Compression::Gzip => Some(0..=9),
            Compression::Zstd => Some(1..=22),
        };
        match (self.compression_level, levels) {
            (Some(_), None) => {
                mistakes.push((
                    "compression_level",
                    "there is no compression to set it for".to_owned(),
                ));
            }
            (Some(level), Some(levels)) if !levels.contains(&level) => {
                let (least, most) = (levels.start(), levels.end());
                let problem = format!("{level} is not between {least} and {most}");
                mistakes.push(("compression_level", problem));
            }
            _ => {}
        }
        if let Some(bytes) = self.rotate_bytes.filter(|&bytes| bytes < ROTATE_BYTES_MIN) {
            let problem = format!("{bytes} bytes is less than the least, {ROTATE_BYTES_MIN}");
            mistakes.push(("rotate_bytes", problem));
        }
        mistakes
    }

    /// The path with the compression's extension.
    pub(super) fn full_path(&self) -> String {
        let extension = match self.compression {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        };
        if self.path.ends_with(extension) {
            self.path.clone()
        } else {
            self.path.clone() + extension
        }
    }
}
