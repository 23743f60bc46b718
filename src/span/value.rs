//! Attribute values and payloads. Text is a slice of the request body if the wire format allows it, not a copy.

use std::borrow::Cow;

use bytes::Bytes;

use crate::support::json::raw::Raw;

/// UTF-8 text that shares the request body's memory.
pub type Text = bytestring::ByteString;

/// Converts a part of a text to a text, which shares its memory if it is a slice.
pub fn share(source: &Text, piece: Cow<'_, str>) -> Text {
    match piece {
        Cow::Borrowed(piece) => source.slice_ref(piece),
        Cow::Owned(piece) => Text::from(piece),
    }
}

/// One attribute. Keys may repeat on the wire; the last one counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// The attribute's name.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

impl Attribute {
    /// Returns the value of a key; of repeated keys, the last one.
    pub fn last<'a>(attributes: &'a [Self], key: &str) -> Option<&'a Value> {
        attributes.iter().rfind(|attribute| attribute.key == key).map(|attribute| &attribute.value)
    }
}

/// OTLP's `AnyValue`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// No value was set, which OTLP allows since 1.9.0.
    #[default]
    Empty,
    /// UTF-8 text.
    Text(Text),
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double, possibly NaN or infinite.
    Double(f64),
    /// Raw bytes.
    Bytes(Bytes),
    /// A list; elements may differ in type.
    Array(Vec<Value>),
    /// Keys and values.
    Map(Vec<Attribute>),
}

impl Value {
    /// Returns the text, if it is one.
    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A payload of an agent span (input, output, arguments ...), in the client's form.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Plain text.
    Text(Text),
    /// One JSON value, as text. It is valid JSON.
    Json(Text),
}

impl Payload {
    /// Returns the text, JSON or not.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

/// Converts a value of this text to a payload: a string becomes plain text, anything else JSON; `None` for null and empty strings.
pub fn payload(source: &Text, value: Raw<'_>) -> Option<Payload> {
    match value.set()?.string() {
        Some(text) if text.is_empty() => None,
        Some(text) => Some(Payload::Text(share(source, text))),
        None => Some(Payload::Json(source.slice_ref(value.text()))),
    }
}

/// Returns the members of an object in this text that have a value.
pub fn payloads(source: &Text, object: Raw<'_>) -> impl Iterator<Item = (Text, Payload)> {
    let said = |(name, value)| Some((share(source, name), payload(source, value)?));
    object.members().filter_map(said)
}

/// Returns the tags in a payload: the elements of a list, which may be inside a string, or the parts of text with commas.
pub fn tags(listed: &Payload) -> Vec<Text> {
    let (Payload::Text(text) | Payload::Json(text)) = listed;
    if let Some(list) = Raw::parse(text).filter(|it| it.is_array() || it.is_object()) {
        let tags = list.elements().filter_map(|tag| payload(text, tag));
        return tags.map(|(Payload::Text(tag) | Payload::Json(tag))| tag).collect();
    }
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(Text::from).collect()
}
