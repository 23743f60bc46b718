//! The Model Context Protocol.

use super::table::{Field, Read, Rule};
use crate::span::Kind;

pub(super) const RULES: &[Rule] = &[
    ("mcp.method.name", Field::McpMethod, Read::Plain),
    ("mcp.tool.name", Field::Tool, Read::Plain),
];

pub(super) fn kind(method: &str) -> Kind {
    if method == "tools/call" { Kind::Tool } else { Kind::Mcp }
}
