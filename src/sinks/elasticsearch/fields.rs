//! Writes facts as fields: each row has an object, a name and a value. Pure.

use crate::support::json::{write_f64, write_integer, write_list, write_str};
use crate::support::rfc3339;

/// A field: its object, empty for the open one; its name, which needs no escape; its value.
pub(super) type Row<'t> = (&'static str, &'static str, Field<'t>);

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'t> {
    Nothing,
    /// Text; missing if empty.
    Words(&'t str),
    Number(u64),
    Decimal(f64),
    Truth(bool),
    /// Nanoseconds since 1970.
    Time(u64),
    /// JSON, written unchanged.
    Json(&'t str),
}

use Field::{Decimal, Json, Nothing, Number, Time, Truth, Words};

impl Field<'_> {
    pub(super) fn unless(self, is_so: bool) -> Self {
        if is_so { Nothing } else { self }
    }

    pub(super) fn is_said(self) -> bool {
        !matches!(self, Nothing | Words(""))
    }
}

pub(super) fn words(text: Option<&str>) -> Field<'_> {
    Words(text.unwrap_or_default())
}

/// Adds fields to the open object. Rows of the same object must be consecutive, and missing values are omitted.
pub(super) fn write_fields<'t>(out: &mut Vec<u8>, rows: impl IntoIterator<Item = Row<'t>>) {
    let mut inside = "";
    for (object, name, field) in rows {
        if !field.is_said() {
            continue;
        }
        // It is mostly the same literal, and comparing characters took a tenth of the sink's time.
        let is_other = !std::ptr::eq(inside, object) && inside != object;
        if is_other && !inside.is_empty() {
            out.push(b'}');
        }
        if is_other && !object.is_empty() {
            write_key(out, object).push(b'{');
        }
        inside = object;
        let out = write_key(out, name);
        match field {
            Nothing => {}
            Words(text) => write_str(out, text),
            Number(number) => write_integer(out, number),
            Decimal(number) => write_f64(out, number),
            Truth(truth) => out.extend_from_slice(if truth { b"true" } else { b"false" }),
            Time(unix_ns) => {
                out.push(b'"');
                rfc3339::write(out, unix_ns);
                out.push(b'"');
            }
            Json(json) => out.extend_from_slice(json.as_bytes()),
        }
    }
    if !inside.is_empty() {
        out.push(b'}');
    }
}

/// Starts a field of the open object. A trailing opening brace marks the first field, because no value ends with one.
pub(super) fn write_key<'o>(out: &'o mut Vec<u8>, name: &'static str) -> &'o mut Vec<u8> {
    out.extend_from_slice(if out.last() == Some(&b'{') { b"\"" } else { b",\"" });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out
}

/// Adds a list of texts, unless it is empty.
pub(super) fn write_texts(
    out: &mut Vec<u8>,
    name: &'static str,
    texts: impl IntoIterator<Item = impl AsRef<str>>,
) {
    let mut texts = texts.into_iter().peekable();
    if texts.peek().is_some() {
        write_list(write_key(out, name), texts, |out, text| write_str(out, text.as_ref()));
    }
}
