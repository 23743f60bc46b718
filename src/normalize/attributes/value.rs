//! Reads attribute values that clients write in more than one way.

use std::borrow::Cow;

use crate::normalize::raw::{self, Raw, payload_of_text, share, strings, written};
use crate::normalize::tables::PATHS;
use crate::normalize::usage::COUNT_MAX;
use crate::span::plain::{Style, write_value};
use crate::span::{Payload, Text, Value};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// As its own type.
    Plain,
    /// As JSON in a string, structured, or plain: a field that its convention declares to be JSON.
    Json,
    /// A list as comma-separated text.
    Commas,
    /// Inside such JSON; the number is the path's index in [`PATHS`].
    Inside(u8),
    /// A number to be divided by this power of ten.
    Tenths(u8),
}

impl Read {
    /// Milliseconds instead of seconds.
    pub(super) const MILLIS: Self = Self::Tenths(3);

    /// Finds a coercion by its name in the tables.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Plain),
            "json" => Some(Self::Json),
            "commas" => Some(Self::Commas),
            _ => match name.strip_prefix("e-") {
                Some(power) => power.parse().ok().map(Self::Tenths),
                None => u8::try_from(PATHS.binary_search(&name).ok()?).ok().map(Self::Inside),
            },
        }
    }
}

/// Returns a value's text unless it is empty or a placeholder. Numbers become text, and fields that are JSON lose JSON's quotes.
pub(super) fn text(value: &Value, read: Read) -> Option<Text> {
    let word = word(value, read)?;
    Some(match value {
        Value::Text(text) => share(text, word),
        _ => Text::from(word.into_owned()),
    })
}

/// Borrows such a text if possible, because keeping one costs as much as reading it.
pub(super) fn word(value: &Value, read: Read) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => match read {
            Read::Json => unquoted(text),
            _ => Some(Cow::Borrowed(&**text)),
        }
        .filter(|text| !is_placeholder(text)),
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// Removes JSON's quotes from a text; any other text stays as it is.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let json = text.starts_with('"').then(|| Raw::parse(text)).flatten();
    json.map_or(Some(Cow::Borrowed(text)), Raw::string)
}

/// Returns whether a text stands for no value: empty JSON, or a placeholder of Claude Code, ADK, Strands, LiteLLM, Koog or `VeADK`.
fn is_placeholder(text: &str) -> bool {
    matches!(text, "" | "null" | "\"\"" | "<REDACTED>" | "[REDACTED]")
        || (text.starts_with("<unknown_") && text.ends_with('>'))
        || matches!(text, "<not specified>" | "<elided>" | "default_user_id" | "HIDDEN:non-empty")
}

/// Returns a count; `None` for NaN, fractions, and negative or absurd numbers.
pub(super) fn count(value: &Value) -> Option<u64> {
    let count = match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Double(number) => raw::whole(*number),
        Value::Text(text) => raw::count(text.trim_matches('"')),
        _ => None,
    };
    count.filter(|count| *count <= COUNT_MAX)
}

/// Returns a finite number.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "costs and seconds need no more than 53 bits"
        )]
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number).filter(|number| number.is_finite()),
        Value::Text(text) => raw::number(text.trim_matches('"')),
        _ => None,
    }
}

/// Returns a number in its base unit: dollars or seconds.
pub(super) fn scaled(value: &Value, read: Read) -> Option<f64> {
    let Read::Tenths(power) = read else { return number(value) };
    number(value).map(|number| number / 10_f64.powi(power.into()))
}

/// Returns a time in seconds. Without a unit, a whole number of 60 or more, or any of 600 or more, is in milliseconds, because clients do
/// not measure a first token in whole seconds, and none takes that long. From 10,000,000 on, it is in nanoseconds.
pub(super) fn seconds(value: &Value, read: Read) -> Option<f64> {
    let seconds = scaled(value, read)?;
    let is_whole = matches!(value, Value::Int(_));
    Some(match seconds {
        _ if matches!(read, Read::Tenths(_)) => seconds,
        1e7.. => seconds / 1e9,
        600.0.. => seconds / 1e3,
        60.0.. if is_whole => seconds / 1e3,
        _ => seconds,
    })
}

/// Returns a boolean.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Text(text) if YES.iter().any(|it| text.eq_ignore_ascii_case(it)) => Some(true),
        Value::Text(text) => Raw::trusted(text).boolean(),
        _ => None,
    }
}

/// Words with which a status says that a tool or a guardrail failed (Strands, OpenLLMetry, Guardrails AI) or intervened (LiteLLM).
const YES: [&str; 4] = ["error", "failed", "fail", "guardrail_intervened"];

/// Returns whether a value is empty or a placeholder.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Empty => true,
        Value::Text(text) => is_placeholder(text),
        Value::Array(values) => values.is_empty(),
        Value::Map(members) => members.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Double(_) => false,
    }
}

/// Returns whether a value looks like an object, as JSON text or structured.
pub(super) fn is_object(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.trim_ascii_start().starts_with('{'),
        Value::Map(_) => true,
        _ => false,
    }
}

/// Converts a value to a payload.
pub(super) fn payload(value: &Value, read: Read) -> Option<Payload> {
    match value {
        _ if is_empty(value) => None,
        Value::Text(text) if read == Read::Json => payload_of_text(text),
        Value::Text(text) => Some(Payload::Text(text.clone())),
        Value::Array(values) if read == Read::Json => {
            Some(Payload::Json(list_of_json(values).unwrap_or_else(|| json(value))))
        }
        structured => Some(Payload::Json(json(structured))),
    }
}

/// Joins a list whose elements are all JSON texts into one JSON list. Vercel sends lists of objects this way.
fn list_of_json(values: &[Value]) -> Option<Text> {
    let texts = values.iter().map(|value| {
        let text = value.as_text().filter(|text| text.starts_with(['{', '[', '"']))?;
        Raw::parse(text).map(Raw::text)
    });
    let texts: Option<Vec<&str>> = texts.collect();
    texts.map(|texts| Text::from(format!("[{}]", texts.join(","))))
}

/// Returns a value as valid JSON text. Text that already is JSON stays as it is.
pub(super) fn json_text(value: &Value) -> Option<Text> {
    match value {
        Value::Text(text) => Raw::parse(text).map(|_| text.clone()).or_else(|| of_python(text)),
        structured => Some(json(structured)),
    }
}

/// Converts the `repr` of a Python dict, `{'cache_read': 5}`, to JSON. Returns `None` if quotes inside its texts make that impossible.
pub(super) fn of_python(text: &Text) -> Option<Text> {
    if !text.starts_with("{'") {
        return None;
    }
    let json = text.replace('\'', "\"").replace(": None", ": null");
    Raw::parse(&json)?;
    Some(Text::from(json))
}

/// Follows a path of names and indices, `.replies.0.meta`, into valid JSON. Returns a string as its text, anything else as JSON.
pub(super) fn inside(json: &Text, place: u8) -> Option<Value> {
    let mut found = Raw::trusted(json);
    for step in PATHS.get(usize::from(place))?.split('.').skip(1) {
        found = match step.parse() {
            Ok(place) => found.elements().nth(place)?,
            Err(_) => found.get(step)?,
        };
    }
    let text = found.string().map(|text| share(json, text));
    Some(Value::Text(text.unwrap_or_else(|| json.slice_ref(found.text()))))
}

/// Returns the strings of a list: an array, a JSON list, comma-separated text (also in brackets: `[a]`, `('a',)`), or a single text.
pub(super) fn texts(value: &Value, read: Read) -> Vec<Text> {
    let mut texts = match value {
        Value::Array(values) => {
            values.iter().filter_map(|value| text(value, Read::Plain)).collect()
        }
        Value::Text(list) if read == Read::Commas && Raw::parse(list).is_none() => {
            let bare =
                |tag: &str| list.slice_ref(tag.trim_matches(['[', ']', '(', ')', '\'', ' ']));
            list.split(',').map(bare).collect()
        }
        Value::Text(list) if list.starts_with('[') => {
            Raw::parse(list).map_or_else(Vec::new, |elements| strings(list, elements))
        }
        Value::Text(_) => text(value, read).into_iter().collect(),
        _ => Vec::new(),
    };
    texts.retain(|text| !text.is_empty());
    texts
}

/// Encodes a value as plain JSON: maps as objects, and bytes in base64 as in OTLP/JSON.
pub(super) fn json(value: &Value) -> Text {
    let mut out = Vec::new();
    write_json(value, &mut out);
    written(out)
}

/// Appends a value as plain JSON.
pub(super) fn write_json(value: &Value, out: &mut Vec<u8>) {
    write_value(out, value, Style::AsSent);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_value(text: &'static str) -> Value {
        Value::Text(Text::from_static(text))
    }

    #[test]
    fn counts_come_in_every_type_and_nan_is_none() {
        for value in [
            Value::Int(12),
            Value::Double(12.0),
            text_value("12"),
            text_value("12.0"),
            text_value("\"12\""),
        ] {
            assert_eq!(count(&value), Some(12), "{value:?}");
        }
        for value in [
            Value::Int(-1),
            Value::Double(f64::NAN),
            text_value("NaN"),
            text_value(""),
            Value::Empty,
            Value::Bool(true),
        ] {
            assert_eq!(count(&value), None, "{value:?}");
        }
    }

    #[test]
    fn lists_come_as_lists_json_commas_and_single_texts() {
        let list = Value::Array(vec![text_value("a"), text_value("b")]);
        for (value, read) in [
            (list, Read::Plain),
            (text_value(r#"["a", "b"]"#), Read::Plain),
            (text_value("a, b"), Read::Commas),
            (text_value("[a, b]"), Read::Commas),
            (text_value("['a', 'b']"), Read::Commas),
            (text_value("('a', 'b',)"), Read::Commas),
        ] {
            assert_eq!(texts(&value, read), ["a", "b"], "{value:?}");
        }
        assert_eq!(texts(&text_value("a, b"), Read::Plain), ["a, b"]);
        assert!(texts(&text_value("[broken"), Read::Plain).is_empty());
    }

    #[test]
    fn only_fields_declared_json_are_parsed() {
        let sent = text_value(r#"{"a":1}"#);
        assert!(matches!(payload(&sent, Read::Json), Some(Payload::Json(_))));
        assert!(matches!(payload(&sent, Read::Plain), Some(Payload::Text(_))));
        assert_eq!(
            payload(&text_value("\"quoted\""), Read::Json),
            Some(Payload::Text(Text::from_static("quoted")))
        );
        assert!(matches!(payload(&text_value("{broken"), Read::Json), Some(Payload::Text(_))));
    }

    #[test]
    fn a_list_of_json_texts_becomes_one_list() {
        let list = |texts: &[&'static str]| {
            let value = Value::Array(texts.iter().map(|text| text_value(text)).collect());
            payload(&value, Read::Json).unwrap().as_str().to_owned()
        };
        assert_eq!(list(&[r#"{"a":1}"#, r#""b""#]), r#"[{"a":1},"b"]"#);
        assert_eq!(list(&[r#"{"a":1}"#, "plain"]), r#"["{\"a\":1}","plain"]"#);
    }
}
