//! Cuts values that are too long: a text to its beginning and the length of the rest, a container to its JSON text. Pure.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_list, write_str};
use crate::support::sha256;

/// How much of a value is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Values of at most this size, in bytes, are kept without inspection.
    pub(super) whole_bytes: usize,
    /// Levels of nested containers that are kept as such.
    pub(super) levels: usize,
    pub(super) key_bytes: usize,
    pub(super) text_bytes: usize,
}

/// Appends as much of a value as its limits allow.
pub(super) fn write_cut(out: &mut Vec<u8>, value: Raw<'_>, limits: Limits) {
    let Limits { whole_bytes, levels, key_bytes, text_bytes } = limits;
    let json = value.text();
    let is_container = value.is_object() || value.is_array();
    let text = match value.string() {
        None if is_container && levels == 0 => Some(Cow::Borrowed(json)),
        text => text,
    };
    let inner = Limits { levels: levels.saturating_sub(1), ..limits };
    if json.len() <= whole_bytes {
        out.extend_from_slice(json.as_bytes());
    } else if let Some(text) = text {
        write_str(out, &shortened(&text, text_bytes).replace('\0', ""));
    } else if value.is_object() {
        let (mut object, mut names) = (Object::open(out), HashSet::new());
        for (name, value) in value.members() {
            let name = beginning(&name, key_bytes).replace('\0', "");
            let name = if name.is_empty() { "_".to_owned() } else { name };
            if names.insert(name.clone()) {
                write_cut(object.member(&name), value, inner);
            }
        }
        object.close();
    } else if value.is_array() {
        write_list(out, value.elements(), |out, element| write_cut(out, element, inner));
    } else {
        out.extend_from_slice(json.as_bytes());
    }
}

/// Shortens a text to about this many bytes: its beginning, and the length of the rest.
pub(super) fn shortened(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let kept = beginning(text, bytes_max.saturating_sub(MARKER_BYTES));
    let (missing, whole) = (text.len() - kept.len(), sha256::hex(text.as_bytes()));
    format!("{kept}...[truncated {missing} bytes, sha256 {whole}]").into()
}

/// The room for the note about the missing rest, in bytes.
const MARKER_BYTES: usize = 112;

/// Returns as much of a text as fits into this many bytes.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max.min(text.len()));
    text.get(..end).unwrap_or_default()
}
