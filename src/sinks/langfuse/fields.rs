//! Writes attributes directly into a `Span` message: fields, and as metadata the parts of an Agents SDK item without one. Pure.

use std::collections::BTreeMap;

use crate::span::otlp::protobuf::{
    close_message, open_message, write_attribute, write_text_attribute,
};
use crate::span::plain::{SAFE_INTEGER_MAX, Style, is_safe, write_scalar, write_value};
use crate::span::{Attribute, Detail, Payload, Text, Tokens, Value, keys};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_integer, write_str};

/// `Span.attributes`.
pub(super) const ATTRIBUTES: u32 = 9;

/// The longest name that Langfuse 3 accepts. With a longer one, it loses the entire trace.
pub(super) const NAME_UNITS_MAX: usize = 1000;

pub(super) const TYPE: &str = "langfuse.observation.type";
pub(super) const LEVEL: &str = "langfuse.observation.level";
pub(super) const STATUS_MESSAGE: &str = "langfuse.observation.status_message";
pub(super) const INPUT: &str = "langfuse.observation.input";
pub(super) const OUTPUT: &str = "langfuse.observation.output";
pub(super) const MODEL: &str = "langfuse.observation.model.name";
pub(super) const PARAMETERS: &str = "langfuse.observation.model.parameters";
pub(super) const USAGE: &str = "langfuse.observation.usage_details";
pub(super) const COST: &str = "langfuse.observation.cost_details";
pub(super) const COMPLETION_START: &str = "langfuse.observation.completion_start_time";
/// All metadata as one JSON object. Followed by a dot and a name, it is one member of it.
pub(super) const METADATA: &str = "langfuse.observation.metadata";
pub(super) const METADATA_PREFIX: &str = "langfuse.observation.metadata.";

/// Appends a text attribute.
pub(super) fn text(out: &mut Vec<u8>, key: &str, text: &str) {
    write_text_attribute(out, ATTRIBUTES, key, text);
}

/// Appends a text attribute whose text `write` appends, of about the given number of bytes. The key may consist of several parts.
pub(super) fn text_made_of(
    out: &mut Vec<u8>,
    key: &[&str],
    bytes_guess: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let key_bytes: usize = key.iter().map(|piece| piece.len()).sum();
    let attribute = open_message(out, ATTRIBUTES, key_bytes + bytes_guess + FRAMES_BYTES);
    let name = open_message(out, 1, key_bytes);
    for piece in key {
        out.extend_from_slice(piece.as_bytes());
    }
    close_message(out, name);
    let value = open_message(out, 2, bytes_guess + FRAMES_BYTES);
    let string = open_message(out, 1, bytes_guess);
    write(out);
    close_message(out, string);
    close_message(out, value);
    close_message(out, attribute);
}

/// Appends an attribute with a list of texts, unless the list is empty.
pub(super) fn texts<'t>(out: &mut Vec<u8>, key: &str, texts: impl Iterator<Item = &'t Text>) {
    let list: Vec<Value> = texts.cloned().map(Value::Text).collect();
    if !list.is_empty() {
        write_attribute(out, ATTRIBUTES, key, &Value::Array(list));
    }
}

/// Maximum size of the tags and lengths around an attribute's texts.
const FRAMES_BYTES: usize = 8;

/// Appends one member of the metadata. Text that contains a JSON object or list is shown as one.
pub(super) fn metadata(out: &mut Vec<u8>, name: &str, value: &Value) {
    let guess = value.as_text().map_or(0, |text| text.len()) + 2;
    text_made_of(out, &[METADATA_PREFIX, name], guess, |out| match value {
        Value::Text(text) if text.starts_with(['{', '[']) && Raw::parse(text).is_some() => {
            out.extend_from_slice(text.as_bytes());
        }
        other => write_json(out, other),
    });
}

/// Appends a payload as one JSON value. Langfuse parses metadata as JSON if it can, so text such as `"9"` stays text only in quotes.
pub(super) fn write_payload_as_json(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        Payload::Text(text) => write_str(out, text),
        Payload::Json(json) => match json.parse::<i128>() {
            Ok(number)
                if SAFE_INTEGER_MAX < u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX) =>
            {
                write_str(out, json);
            }
            _ => out.extend_from_slice(json.as_bytes()),
        },
    }
}

/// Appends a value as JSON that JavaScript reads without loss: numbers outside its exact range are strings.
pub(super) fn write_json(out: &mut Vec<u8>, value: &Value) {
    write_value(out, value, Style::JavaScript);
}

/// Appends a value as text. Text and JSON strings are written without quotes, everything else as JSON.
pub(super) fn write_plain(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Int(_) | Value::Double(_) | Value::Bytes(_) => write_scalar(out, value),
        other => write_json(out, other),
    }
}

/// Returns the beginning of a text, measured in UTF-16 units as in JavaScript, without splitting a character.
pub(super) fn cut(text: &str, units_max: usize) -> &str {
    if text.len() <= units_max {
        return text;
    }
    let mut units = 0;
    for (at, character) in text.char_indices() {
        units += character.len_utf16();
        if units_max < units {
            return text.get(..at).unwrap_or(text);
        }
    }
    text
}

// === Data without a field of its own ===

/// Appends the metadata of an item from its detail.
pub(super) fn write_item(out: &mut Vec<u8>, detail: &Detail, tokens: &Tokens<'_>) {
    for Attribute { key, value } in &detail.attributes {
        match (&**key, value) {
            (keys::OPENAI_AGENTS_DATA, Value::Text(data)) if data.starts_with('{') => {
                text(out, METADATA, data);
            }
            // Langfuse lists the tools that were available to the model from this attribute.
            (keys::GEN_AI_TOOL_DEFINITIONS, Value::Text(definitions)) => {
                text(out, key, definitions);
            }
            (key, value) => {
                if let Some(name) = name_of(key) {
                    metadata(out, name, value);
                } else if let Some(name) = key.strip_prefix("gen_ai.usage.")
                    && tokens.repeats
                {
                    metadata(out, &format!("aggregate_usage.{name}"), value);
                }
            }
        }
    }
}

/// Returns an attribute's name in the metadata; `None` if it has a field of its own or is also in another attribute.
fn name_of(key: &str) -> Option<&str> {
    match key {
        keys::GEN_AI_PROVIDER_NAME => Some("provider"),
        keys::GEN_AI_RESPONSE_ID => Some("response_id"),
        keys::GEN_AI_RESPONSE_MODEL => Some("response_model"),
        keys::GEN_AI_RESPONSE_FINISH_REASONS => Some("finish_reasons"),
        keys::MCP_METHOD_NAME => Some(key),
        keys::OPENAI_AGENTS_MCP_RESULT => None,
        _ if key.starts_with(keys::OPENAI_AGENTS_METADATA) => None,
        _ => {
            let of_span = key.strip_prefix(keys::OPENAI_AGENTS_SPAN_METADATA);
            of_span.or_else(|| key.strip_prefix("openai.agents."))
        }
    }
}

/// Appends the parameters of a call. Langfuse accepts strings and numbers, so nested values are JSON strings. Unset parameters are omitted.
pub(super) fn write_parameters(out: &mut Vec<u8>, json: &str) {
    let members = Raw::parse(json).into_iter().flat_map(Raw::members);
    let members: BTreeMap<_, _> = members.filter(|(_, value)| value.set().is_some()).collect();
    if members.is_empty() {
        return;
    }
    text_made_of(out, &[PARAMETERS], json.len(), |out| {
        let mut object = Object::open(out);
        for (name, value) in members {
            let (out, value) = (object.member(&name), value.text());
            let is_nested = value.starts_with(['{', '[', 't', 'f']);
            match value.parse::<i64>() {
                Ok(number) if is_safe(number) => write_integer(out, number),
                Err(_) if !is_nested => out.extend_from_slice(value.as_bytes()),
                _ => write_str(out, value),
            }
        }
        object.close();
    });
}
