//! Slices of JSON text as what the span model holds: text and payloads that share the memory of the request.

use std::borrow::Cow;

use crate::span::{Payload, Text};

pub(super) use crate::support::json::raw::{Object, Raw, count, inside, number, unescape, whole};

/// A piece of a text as a text that shares its memory where the piece is a slice of it.
pub(super) fn share(source: &Text, piece: Cow<'_, str>) -> Text {
    match piece {
        Cow::Borrowed(piece) => source.slice_ref(piece),
        Cow::Owned(piece) => Text::from(piece),
    }
}

/// A value as a payload: a string as plain text, anything else as JSON; `None` for null and for an empty string.
pub(super) fn payload(source: &Text, value: Raw<'_>) -> Option<Payload> {
    match value.set()?.string() {
        Some(text) if text.is_empty() => None,
        Some(text) => Some(Payload::Text(share(source, text))),
        None => Some(Payload::Json(source.slice_ref(value.text()))),
    }
}

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

/// JSON that was written piece by piece, as text.
pub(super) fn written(json: Vec<u8>) -> Text {
    Text::try_from(json).unwrap_or_default()
}
