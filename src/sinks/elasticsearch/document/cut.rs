//! Texts that are too long: their beginning, and how much is missing.

use std::borrow::Cow;

use super::Document;
use crate::span::{Attribute, Text, Value};
use crate::support::sha256;

impl Document<'_, '_> {
    pub(super) fn cut<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let cut = shortened(text, self.text_max);
        self.is_cut |= matches!(cut, Cow::Owned(_));
        cut
    }

    pub(super) fn cut_attributes(&mut self, attributes: &[Attribute]) -> Vec<Attribute> {
        let all = attributes.iter();
        all.map(|Attribute { key, value }| {
            let key = Text::from(&*self.cut(key));
            Attribute { key, value: self.cut_value(value) }
        })
        .collect()
    }

    fn cut_value(&mut self, value: &Value) -> Value {
        match value {
            Value::Text(text) if self.text_max < text.len() => {
                Value::Text(Text::from(&*self.cut(text)))
            }
            Value::Bytes(bytes) if self.text_max < bytes.len() => {
                self.is_cut = true;
                Value::Text(Text::from(marker(bytes.len(), bytes)))
            }
            Value::Array(elements) => {
                Value::Array(elements.iter().map(|element| self.cut_value(element)).collect())
            }
            Value::Map(entries) => Value::Map(self.cut_attributes(entries)),
            other => other.clone(),
        }
    }
}

/// A text of at most so many bytes, or nearly: its beginning, and how much is missing.
pub(super) fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let kept = beginning(text, bytes_max.saturating_sub(MARKER_BYTES));
    Cow::Owned(format!("{kept}{}", marker(text.len() - kept.len(), text.as_bytes())))
}

fn marker(missing: usize, whole: &[u8]) -> String {
    format!("...[truncated {missing} bytes, sha256 {}]", sha256::hex(whole))
}

/// What [`marker`] takes.
const MARKER_BYTES: usize = 112;

/// As much of a text as fits so many bytes.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max.min(text.len()));
    text.get(..end).unwrap_or_default()
}
