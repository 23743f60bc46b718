//! Makes data without a field searchable: `key=value` for every scalar, and texts by words.

use std::borrow::Cow;

use super::cut::beginning;
use super::sent::is_payload;
use super::{Document, ENTRIES_MAX, ENTRY_BYTES_MAX};
use crate::sinks::elasticsearch::fields::write_texts;
use crate::sinks::elasticsearch::item::members_of;
use crate::span::{Attribute, Payload, Value};
use crate::support::json::raw::{Object, Raw};

/// The most bytes of a text that are indexed by words; only the beginning of a longer one is.
const SEARCHED_BYTES_MAX: usize = 1 << 20;

impl Document<'_, '_> {
    /// Writes `key=value` for every scalar.
    pub(super) fn pairs(&mut self) {
        let item = &self.subject.item;
        let attributes = self.detail.map(|detail| detail.attributes.as_slice()).unwrap_or_default();
        let sent = attributes.iter().filter_map(|Attribute { key, value }| {
            pair("", key, &scalar_of(value).filter(|_| !is_payload(self.facts, value))?)
        });
        let metadata = item.own.get("metadata").map(members_of).unwrap_or_default();
        let pairs =
            sent.chain(pairs("span_data.", &item.data)).chain(pairs("metadata.", &metadata));
        write_texts(self.out, "attr_kv", pairs.take(ENTRIES_MAX));
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

/// Returns `key=value` for every scalar of an object.
pub(in crate::sinks::elasticsearch) fn pairs(
    prefix: &str,
    object: &Object<'_>,
) -> impl Iterator<Item = String> {
    let members = object.members.iter();
    members.filter_map(move |(key, value)| pair(prefix, key, &scalar_of_json(*value)?))
}

fn pair(prefix: &str, key: &str, value: &str) -> Option<String> {
    let bytes = prefix.len() + key.len() + "=".len() + value.len();
    (bytes <= ENTRY_BYTES_MAX).then(|| [prefix, key, "=", value].concat())
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
fn scalar_of_json(value: Raw<'_>) -> Option<Cow<'_, str>> {
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
