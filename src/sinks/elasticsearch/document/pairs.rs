//! What can be searched although it has no field: `key=value` of everything that is one value, and texts word by word.

use std::borrow::Cow;

use super::cut::beginning;
use super::sent::is_same_text;
use super::{Document, ENTRIES_MAX, ENTRY_BYTES_MAX};
use crate::sinks::elasticsearch::item::{Members, text};
use crate::span::Value;
use crate::support::json::{write_f64, write_i64, write_str};

/// Texts that are indexed word by word, in bytes: of longer ones only the beginning is.
const SEARCHED_BYTES_MAX: usize = 1 << 20;

impl Document<'_, '_> {
    /// `key=value` of everything that is one value.
    pub(super) fn pairs(&mut self) {
        let mut pairs = Pairs { entries: 0, text: String::new() };
        let start = self.out.len();
        self.key("attr_kv").push(b'[');
        if let Some(detail) = self.detail {
            let sides = [self.facts.input.as_ref(), self.facts.output.as_ref()];
            let all = detail.attributes.iter();
            for attribute in
                all.filter(|known| !sides.iter().any(|side| is_same_text(*side, &known.value)))
            {
                pairs.add(self.out, "", &attribute.key, scalar_of(&attribute.value));
            }
        } else {
            let metadata = self.subject.item.own.get("metadata").map(Members::of);
            let metadata = metadata.unwrap_or_default();
            for (prefix, members) in
                [("span_data.", &self.subject.item.data), ("metadata.", &metadata)]
            {
                for (key, value) in members.iter() {
                    pairs.add(self.out, prefix, key, scalar_of_json(value));
                }
            }
        }
        if pairs.entries == 0 {
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
            if let Some(payload) = payload {
                let text = beginning(payload.as_str(), SEARCHED_BYTES_MAX.min(self.text_max));
                self.text(name, text);
            }
        }
    }
}

struct Pairs {
    entries: usize,
    text: String,
}

impl Pairs {
    fn add(&mut self, out: &mut Vec<u8>, prefix: &str, key: &str, value: Option<Cow<'_, str>>) {
        let Some(value) = value else { return };
        if ENTRY_BYTES_MAX < prefix.len() + key.len() + value.len() || ENTRIES_MAX <= self.entries {
            return;
        }
        self.text.clear();
        for part in [prefix, key, "=", &value] {
            self.text.push_str(part);
        }
        if self.entries != 0 {
            out.push(b',');
        }
        write_str(out, &self.text);
        self.entries += 1;
    }
}

/// One value as text; none of a list, an object or nothing.
fn scalar_of(value: &Value) -> Option<Cow<'_, str>> {
    let mut number = Vec::new();
    match value {
        Value::Text(text) => return Some(Cow::Borrowed(text)),
        Value::Bool(truth) => return Some(truth.to_string().into()),
        Value::Int(int) => write_i64(&mut number, *int),
        Value::Double(double) if double.is_finite() => write_f64(&mut number, *double),
        _ => return None,
    }
    String::from_utf8(number).ok().map(Cow::Owned)
}

/// The same of JSON.
pub(in crate::sinks::elasticsearch) fn scalar_of_json(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        // A character takes six bytes at most. A longer text would be no entry, so it is not read.
        b'"' if json.len() <= 6 * ENTRY_BYTES_MAX + 2 => text(json),
        b'"' | b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}
