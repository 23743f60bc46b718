//! Writes the parts of an Agents SDK item without a field of their own as metadata, and the parameters of model calls. Pure.

use std::collections::BTreeMap;

use super::fields;
use crate::span::plain::is_safe;
use crate::span::{Attribute, Detail, Tokens, Value, keys};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_i64, write_str};

/// Appends the metadata of an item from its detail.
pub(super) fn write_item(out: &mut Vec<u8>, detail: &Detail, tokens: &Tokens<'_>) {
    for Attribute { key, value } in &detail.attributes {
        match (&**key, value) {
            (keys::OPENAI_AGENTS_DATA, Value::Text(data)) if data.starts_with('{') => {
                fields::text(out, fields::METADATA, data);
            }
            // Langfuse lists the tools that were available to the model from this attribute.
            (keys::GEN_AI_TOOL_DEFINITIONS, Value::Text(definitions)) => {
                fields::text(out, key, definitions);
            }
            (key, value) => {
                if let Some(name) = name_of(key) {
                    fields::metadata(out, name, value);
                } else if let Some(name) = key.strip_prefix("gen_ai.usage.")
                    && tokens.repeats
                {
                    fields::metadata(out, &format!("aggregate_usage.{name}"), value);
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
    fields::text_made_of(out, &[fields::PARAMETERS], json.len(), |out| {
        let mut object = Object::open(out);
        for (name, value) in members {
            let (out, value) = (object.member(&name), value.text());
            let is_nested = value.starts_with(['{', '[', 't', 'f']);
            match value.parse::<i64>() {
                Ok(number) if is_safe(number) => write_i64(out, number),
                Err(_) if !is_nested => out.extend_from_slice(value.as_bytes()),
                _ => write_str(out, value),
            }
        }
        object.close();
    });
}
