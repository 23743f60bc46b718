//! Makes data without a field searchable: `key=value` for every scalar, and texts by words.

use std::borrow::Cow;

use super::cut::beginning;
use super::sent::is_same_text;
use super::{Document, ENTRIES_MAX, ENTRY_BYTES_MAX};
use crate::sinks::elasticsearch::item::members_of;
use crate::span::{Attribute, Payload, Value};
use crate::support::json::raw::Raw;
use crate::support::json::write_str;

/// The most bytes of a text that are indexed by words; only the beginning of a longer one is.
const SEARCHED_BYTES_MAX: usize = 1 << 20;

impl Document<'_, '_> {
    /// Writes `key=value` for every scalar.
    pub(super) fn pairs(&mut self) {
        let start = self.out.len();
        self.key("attr_kv").push(b'[');
        let (mut entries, mut text) = (0, String::new());
        let out = &mut *self.out;
        let mut add = |prefix: &str, key: &str, value: Option<Cow<'_, str>>| {
            let Some(value) = value else { return };
            let bytes = prefix.len() + key.len() + value.len();
            if ENTRY_BYTES_MAX < bytes || ENTRIES_MAX <= entries {
                return;
            }
            text.clear();
            text.extend([prefix, key, "=", &value]);
            if entries != 0 {
                out.push(b',');
            }
            write_str(out, &text);
            entries += 1;
        };
        if let Some(detail) = self.detail {
            let sides = [self.facts.input.as_ref(), self.facts.output.as_ref()];
            for Attribute { key, value } in &detail.attributes {
                if !sides.iter().any(|side| is_same_text(*side, value)) {
                    add("", key, scalar_of(value));
                }
            }
        } else {
            let item = &self.subject.item;
            let metadata = item.own.get("metadata").map(members_of).unwrap_or_default();
            for (prefix, object) in [("span_data.", &item.data), ("metadata.", &metadata)] {
                for (key, value) in &object.members {
                    add(prefix, key, scalar_of_json(*value));
                }
            }
        }
        if entries == 0 {
            self.out.truncate(start);
        } else {
            self.out.push(b']');
        }
    }

    pub(super) fn searchable(&mut self) {
        if !self.settings.options.payload_search {
            return;
        }
        let sides = [("input_text", &self.facts.input), ("output_text", &self.facts.output)];
        for (name, payload) in sides {
            let text = payload.as_ref().map_or("", Payload::as_str);
            self.text(name, beginning(text, SEARCHED_BYTES_MAX.min(self.text_max)));
        }
    }
}

/// Returns a scalar as text; `None` for a list, an object or an empty value.
fn scalar_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Int(int) => Some(int.to_string().into()),
        Value::Double(double) if double.is_finite() => Some(format!("{double:?}").into()),
        _ => None,
    }
}

/// Does the same for JSON.
pub(in crate::sinks::elasticsearch) fn scalar_of_json(value: Raw<'_>) -> Option<Cow<'_, str>> {
    let json = value.text();
    match json.as_bytes().first()? {
        // A character has at most six bytes. A longer text is no entry, so it is not parsed.
        b'"' if json.len() <= 6 * ENTRY_BYTES_MAX + 2 => {
            value.string().filter(|text| is_text(json, text))
        }
        b'"' | b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// Returns whether no escape is half of a surrogate pair.
fn is_text(json: &str, text: &str) -> bool {
    !text.contains(char::REPLACEMENT_CHARACTER) || json.contains(text)
}
