//! Values as ordinary JSON: numbers are numbers and maps are objects, for readers that know no OTLP. How OTLP itself writes them is
//! in [`otlp::json`](super::otlp::json).

use std::collections::HashMap;

use super::{Attribute, Value};
use crate::support::base64;
use crate::support::json::object::Object;
use crate::support::json::{write_f64, write_i64, write_str};

/// What readers differ in: numbers, and keys that repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// All numbers and keys are written as they are; what JSON has no number for is null.
    AsSent,
    /// What JSON has no number for is a string, so that it is not lost. Of a key that repeats the last value is written, because many
    /// readers refuse an object with a name twice.
    Strict,
    /// Numbers that JavaScript does not read without loss are strings. All keys are written.
    JavaScript,
}

/// The largest integer whose neighbours a double can tell from it: what JavaScript calls safe.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Appends a value. Values nest no deeper than the decoder lets them.
pub fn write_value(out: &mut Vec<u8>, value: &Value, style: Style) {
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Text(text) => write_str(out, text),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) if style != Style::JavaScript || is_safe(*number) => {
            write_i64(out, *number);
        }
        Value::Double(number) if number.is_finite() || style == Style::AsSent => {
            write_f64(out, *number);
        }
        Value::Int(_) | Value::Double(_) | Value::Bytes(_) => write_quoted(out, value),
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index != 0 {
                    out.push(b',');
                }
                write_value(out, element, style);
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            let mut object = Object::open(out);
            join_attributes_but(&mut object, entries, style, |_| false);
            object.close();
        }
    }
}

/// Adds attributes to an object, without those for which `skip` says true.
pub fn join_attributes_but<'a>(
    object: &mut Object<'_>,
    attributes: &'a [Attribute],
    style: Style,
    mut skip: impl FnMut(&'a Attribute) -> bool,
) {
    let last_places = LastPlaces::of(attributes, style);
    for (index, attribute) in attributes.iter().enumerate() {
        if !last_places.is_repeated_after(index, attributes) && !skip(attribute) {
            write_value(object.member(&attribute.key), &attribute.value, style);
        }
    }
}

/// Appends a number or bytes as a string.
pub(super) fn write_quoted(out: &mut Vec<u8>, value: &Value) {
    out.push(b'"');
    write_scalar(out, value);
    out.push(b'"');
}

/// Appends a number or bytes as text, without quotes: bytes are base64, and doubles that are no numbers have their names in
/// proto3's JSON. Nothing of anything else.
pub fn write_scalar(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Int(number) => write_i64(out, *number),
        Value::Double(number) if number.is_nan() => out.extend_from_slice(b"NaN"),
        Value::Double(number) if number.is_infinite() => {
            out.extend_from_slice(if *number < 0.0 { b"-Infinity" } else { b"Infinity" });
        }
        Value::Double(number) => write_f64(out, *number),
        Value::Bytes(bytes) => base64::write(out, bytes),
        _ => (),
    }
}

/// Whether JavaScript keeps all digits of a number.
pub fn is_safe(number: i64) -> bool {
    number.unsigned_abs() <= SAFE_INTEGER_MAX
}

/// Where each key occurs last. A few keys are compared with each other, which is faster than hashing them; many are hashed,
/// because comparing would take time that grows with their square.
enum LastPlaces<'a> {
    Ignored,
    Few,
    Many(HashMap<&'a str, usize>),
}

/// Up to this many attributes are compared with each other. Real spans have twenty to forty.
const COMPARED_MAX: usize = 64;

impl<'a> LastPlaces<'a> {
    fn of(attributes: &'a [Attribute], style: Style) -> Self {
        if style != Style::Strict {
            return Self::Ignored;
        }
        if attributes.len() <= COMPARED_MAX {
            return Self::Few;
        }
        let keys = attributes.iter().map(|attribute| &*attribute.key);
        Self::Many(keys.enumerate().map(|(index, key)| (key, index)).collect())
    }

    fn is_repeated_after(&self, index: usize, attributes: &[Attribute]) -> bool {
        let Some((attribute, later)) = attributes.get(index..).and_then(<[_]>::split_first) else {
            return false;
        };
        match self {
            Self::Ignored => false,
            Self::Few => later.iter().any(|other| other.key == attribute.key),
            Self::Many(places) => places.get(&*attribute.key).is_some_and(|&last| last != index),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::span::Text;

    fn member(key: &'static str, value: Value) -> Attribute {
        Attribute { key: Text::from_static(key), value }
    }

    #[test]
    fn readers_differ_in_numbers_and_repeated_keys() {
        let value = Value::Map(vec![
            member("a", Value::Int(i64::MIN)),
            member(
                "b\"",
                Value::Array(vec![Value::Double(f64::NAN), Value::Double(1.5), Value::Empty]),
            ),
            member("c", Value::Map(vec![member("d", Value::Bool(true))])),
            member("e", Value::Bytes(Bytes::from_static(b"\xff"))),
            member("c", Value::Double(f64::NEG_INFINITY)),
        ]);
        for (style, expected) in [
            (
                Style::AsSent,
                r#"{"a":-9223372036854775808,"b\"":[null,1.5,null],"c":{"d":true},"e":"/w==","c":null}"#,
            ),
            (
                Style::Strict,
                r#"{"a":-9223372036854775808,"b\"":["NaN",1.5,null],"e":"/w==","c":"-Infinity"}"#,
            ),
            (
                Style::JavaScript,
                r#"{"a":"-9223372036854775808","b\"":["NaN",1.5,null],"c":{"d":true},"e":"/w==","c":"-Infinity"}"#,
            ),
        ] {
            let mut out = Vec::new();
            write_value(&mut out, &value, style);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
