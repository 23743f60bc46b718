//! Converts bodies to text, and slices of JSON text to the span model: text and payloads that share the request's memory.

use std::iter;

use bytes::Bytes;

use crate::span::{Payload, Text};

pub(super) use crate::span::{payload, payloads, share};
pub(super) use crate::support::json::raw::{Object, Raw, count, inside, number, unescape, whole};

/// Converts a text that may be JSON: an object or array stays JSON, a JSON string or any other text becomes plain text.
pub(super) fn payload_of_text(text: &Text) -> Option<Payload> {
    if text.is_empty() || &**text == "null" {
        return None;
    }
    let maybe_json = text.trim_ascii_start().starts_with(['{', '[', '"']);
    match maybe_json.then(|| Raw::parse(text)).flatten() {
        Some(value) => payload(text, value),
        None => Some(Payload::Text(text.clone())),
    }
}

/// Returns the strings of a list.
pub(super) fn strings(source: &Text, list: Raw<'_>) -> Vec<Text> {
    list.elements().filter_map(|element| Some(share(source, element.string()?))).collect()
}

/// Returns the list with an element in front.
pub(super) fn with_first(first: &str, list: Raw<'_>) -> Text {
    let all: Vec<&str> = iter::once(first).chain(list.elements().map(Raw::text)).collect();
    Text::from(format!("[{}]", all.join(",")))
}

/// Converts JSON that was written piece by piece to text.
pub(super) fn written(json: Vec<u8>) -> Text {
    Text::try_from(json).unwrap_or_default()
}

/// Returns the body as text, and the number of replaced invalid UTF-8 sequences. Only a body with any is copied.
pub(super) fn utf8(body: &Bytes) -> (Text, u32) {
    if let Ok(text) = Text::try_from(body.clone()) {
        return (text, 0);
    }
    let replaced = body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    let text = String::from_utf8_lossy(body).into_owned();
    (Text::from(text), u32::try_from(replaced).unwrap_or(u32::MAX))
}
