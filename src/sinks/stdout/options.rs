//! Options of the standard output.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The options of a `[sinks.name]` table with `type = "stdout"`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// `pretty` (a readable line for each span) or `json` (the lines that the file sink writes).
    pub format: Format,
    /// Whether `pretty` is in color: `auto` (on a terminal), `always` or `never`.
    pub color: Color,
    /// Whether `pretty` shows inputs and outputs.
    pub payloads: bool,
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Pretty,
    /// For programs.
    Json,
}

/// When to use color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}
