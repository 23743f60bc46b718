//! Attributes as ordinary JSON: numbers are numbers and maps are objects, for readers that know no OTLP.

use std::collections::HashMap;

use crate::span::{Attribute, Value};
use crate::support::base64;
use crate::support::json::{write_f64, write_i64, write_str};

/// Appends attributes as one object.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    write_attributes_but(out, attributes, |_| false);
}

/// Appends attributes as one object, without those for which `skip` says true. Of a repeated key the last value is written,
/// because many readers refuse an object with a name twice.
pub fn write_attributes_but<'a>(
    out: &mut Vec<u8>,
    attributes: &'a [Attribute],
    mut skip: impl FnMut(&'a Attribute) -> bool,
) {
    let last_places = LastPlaces::of(attributes);
    out.push(b'{');
    let mut separator: &[u8] = b"";
    for (index, attribute) in attributes.iter().enumerate() {
        if last_places.is_repeated_after(index, attributes) || skip(attribute) {
            continue;
        }
        out.extend_from_slice(separator);
        separator = b",";
        write_str(out, &attribute.key);
        out.push(b':');
        write_value(out, &attribute.value);
    }
    out.push(b'}');
}

/// Appends one value.
fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Empty => out.extend_from_slice(b"null"),
        Value::Text(text) => write_str(out, text),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => write_i64(out, *number),
        Value::Double(number) => write_double(out, *number),
        Value::Bytes(bytes) => {
            out.push(b'"');
            base64::write(out, bytes);
            out.push(b'"');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index != 0 {
                    out.push(b',');
                }
                write_value(out, element);
            }
            out.push(b']');
        }
        Value::Map(entries) => write_attributes(out, entries),
    }
}

/// What JSON has no number for is a string, so that it is not lost.
fn write_double(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if number.is_infinite() {
        out.extend_from_slice(if number < 0.0 { b"\"-Infinity\"" } else { b"\"Infinity\"" });
    } else {
        write_f64(out, number);
    }
}

/// Where each key occurs last. A few keys are compared with each other, which is faster than hashing them; many are hashed,
/// because comparing would take time that grows with their square.
enum LastPlaces<'a> {
    Few,
    Many(HashMap<&'a str, usize>),
}

/// Up to this many attributes are compared with each other. Real spans have twenty to forty.
const COMPARED_MAX: usize = 64;

impl<'a> LastPlaces<'a> {
    fn of(attributes: &'a [Attribute]) -> Self {
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
            Self::Few => later.iter().any(|other| other.key == attribute.key),
            Self::Many(places) => places.get(&*attribute.key).is_some_and(|&last| last != index),
        }
    }
}
