//! The texts of Agents SDK items: every string at every depth, except those that identify the item, its kind and its times.

use super::Redaction;
use super::text::{Path, edited};
use crate::normalize::Parts;
use crate::span::keys;
use crate::support::json::raw::unescape;

/// Members of an item that are not user text.
const STRUCTURE: [&str; 6] = ["object", "id", "trace_id", "parent_id", "started_at", "ended_at"];

impl Redaction {
    /// Redacts an item; `None` if it stays.
    pub(super) fn agents_sdk(&self, wire: &[u8]) -> Option<Vec<u8>> {
        let marks = self.search.marks(wire);
        if !marks.any() {
            return None;
        }
        // It was decoded on arrival, so it is valid JSON.
        let json = str::from_utf8(wire).ok()?;
        let edits = self.json_edits(json, &marks, 0, |path| self.selects(path));
        edited(wire, edits.unwrap_or_default())
    }

    /// Returns whether the rule applies to the token at a path.
    fn selects(&self, path: &Path<'_>) -> bool {
        let name = |depth: usize| path.get(depth).copied().flatten().map(unescape);
        let Some(member) = name(0) else { return false };
        if path.len() == 1 && STRUCTURE.contains(&&*member) {
            return false;
        }
        let inner = name(1).unwrap_or_default();
        let (parts, prefix, key) = match (&*member, &*inner) {
            ("span_data", "type") if path.len() == 2 => return false,
            ("span_data", _) => {
                let parts = of_data(&inner, name(2).as_deref()).and(Parts::ATTRIBUTES);
                (parts, keys::OPENAI_AGENTS_SPAN_DATA, &inner)
            }
            ("error", _) => (Parts::ERROR, "", &member),
            ("metadata", _) => (Parts::METADATA, "", &inner),
            ("workflow_name", _) => (Parts::NAME, "", &member),
            _ => (Parts::ATTRIBUTES, keys::OPENAI_AGENTS_ITEM, &member),
        };
        self.fields.are_all || self.fields.select(parts, &format!("{prefix}{key}"))
    }
}

/// Returns the parts to which a member of `span_data` belongs, by its name and that of the inner member.
fn of_data(member: &str, inner: Option<&str>) -> Parts {
    match (member, inner) {
        ("input", _) | ("response", Some("instructions")) => Parts::INPUT,
        ("output" | "result", _) | ("response", Some("output")) => Parts::OUTPUT,
        ("name" | "from_agent" | "to_agent", _) => Parts::NAME,
        ("data", Some("name")) => Parts::NAME.and(Parts::METADATA),
        ("data", _) => Parts::METADATA,
        _ => Parts::NONE,
    }
}
