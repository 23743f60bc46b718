//! Bodies as text, and slices of JSON text as what the span model holds: text and payloads that share the memory of the request.

use std::iter;

use bytes::Bytes;

use crate::span::{Payload, Text};

pub(super) use crate::span::{payload, payloads, share};
pub(super) use crate::support::json::raw::{Object, Raw, count, inside, number, unescape, whole};

/// A text that may be JSON: as JSON if it is an object or array, as plain text if it is a JSON string or no JSON at all.
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

/// The strings of a list.
pub(super) fn strings(source: &Text, list: Raw<'_>) -> Vec<Text> {
    list.elements().filter_map(|element| Some(share(source, element.string()?))).collect()
}

/// A list with another element before its own.
pub(super) fn with_first(first: &str, list: Raw<'_>) -> Text {
    let all: Vec<&str> = iter::once(first).chain(list.elements().map(Raw::text)).collect();
    Text::from(format!("[{}]", all.join(",")))
}

/// JSON that was written piece by piece, as text.
pub(super) fn written(json: Vec<u8>) -> Text {
    Text::try_from(json).unwrap_or_default()
}

/// The body as text. Bytes that are no UTF-8 are replaced, and then the whole body is a copy; how many, comes second.
pub(super) fn utf8(body: &Bytes) -> (Text, u32) {
    if let Ok(text) = Text::try_from(body.clone()) {
        return (text, 0);
    }
    let replaced = body.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count();
    let text = String::from_utf8_lossy(body).into_owned();
    (Text::from(text), u32::try_from(replaced).unwrap_or(u32::MAX))
}
