//! Values as ordinary JSON: numbers are numbers and maps are objects, for readers that do not know OTLP. OTLP's own JSON mapping is in
//! [`otlp::json`](super::otlp::json).

use std::collections::HashMap;

use super::{Attribute, Value};
use crate::support::base64;
use crate::support::json::object::Object;
use crate::support::json::{write_f64, write_integer, write_list, write_str};

/// The differences between readers: numbers and repeated keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// All numbers and keys are written as they are; numbers that JSON cannot express become null.
    AsSent,
    /// Numbers that JSON cannot express become strings, so that they are not lost. Of repeated keys only the last value is written, because
    /// many readers refuse objects with duplicate names.
    Strict,
    /// Numbers that JavaScript cannot read without loss become strings. All keys are written.
    JavaScript,
}

/// The largest integer that a double distinguishes from its neighbours: what JavaScript calls safe.
pub const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Appends a value. The decoder has limited its depth.
pub fn write_value(out: &mut Vec<u8>, value: &Value, style: Style) {
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Text(text) => write_str(out, text),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) if style != Style::JavaScript || is_safe(*number) => {
            write_integer(out, *number);
        }
        Value::Double(number) if number.is_finite() || style == Style::AsSent => {
            write_f64(out, *number);
        }
        Value::Int(_) | Value::Double(_) | Value::Bytes(_) => write_quoted(out, value),
        Value::Array(elements) => {
            write_list(out, elements, |out, element| write_value(out, element, style));
        }
        Value::Map(entries) => {
            let mut object = Object::open(out);
            join_attributes_but(&mut object, entries, style, |_| false);
            object.close();
        }
    }
}

/// Adds attributes to an object, except those for which `skip` returns true.
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

/// Appends a number or bytes as text, without quotes: bytes as base64, and NaN and infinities by their names in proto3's JSON. Appends
/// nothing for other values.
pub fn write_scalar(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Int(number) => write_integer(out, *number),
        Value::Double(number) if number.is_nan() => out.extend_from_slice(b"NaN"),
        Value::Double(number) if number.is_infinite() => {
            out.extend_from_slice(if *number < 0.0 { b"-Infinity" } else { b"Infinity" });
        }
        Value::Double(number) => write_f64(out, *number),
        Value::Bytes(bytes) => base64::write(out, bytes),
        _ => (),
    }
}

/// Returns whether JavaScript keeps all digits of a number.
pub fn is_safe(number: i64) -> bool {
    number.unsigned_abs() <= SAFE_INTEGER_MAX
}

/// The last occurrence of each key. A few keys are compared with each other, which is faster than hashing; many are hashed, because the
/// time for comparing grows quadratically.
enum LastPlaces<'a> {
    Ignored,
    Few,
    Many(HashMap<&'a str, usize>),
}

/// Maximum number of attributes to compare with each other. Real spans have twenty to forty.
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
