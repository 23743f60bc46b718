//! Rewrites items for OpenAI: exactly as the Agents SDK does before it sends there, and nothing more.
//!
//! Both SDKs remove reasoning from the input and output of generations. Python cuts `input` and `output` larger than 100,000 bytes and
//! converts `usage` to the one shape that OpenAI knows. JavaScript does so before we receive the item, so doing it again changes nothing.
//! An item that needs no change is copied byte for byte.

use serde_json::{Value, json};

use super::edit::{self, Change, Origin};
use super::reasoning::without_reasoning;
use crate::sinks::shrink::write_shrunk;
use crate::support::json::raw::Raw;
use crate::support::json::scan::Scanner;
use crate::support::json::write_shortest;

/// The largest size of a span's `input` and `output`, in bytes of their shortest JSON text: the SDK's own limit.
pub(super) const FIELD_BYTES_MAX: usize = 100_000;

/// Appends an item of the ingest format in the form that OpenAI accepts.
pub(super) fn write_item(out: &mut Vec<u8>, item: &str, origin: Origin) {
    let edited = edit::object(Raw::trusted(item), |name, data| {
        if name != "span_data" || !data.is_object() {
            return Change::Keep;
        }
        let kind = data.get_string("type").unwrap_or_default();
        edit::object(data, |name, value| change(&kind, name, value, origin))
    });
    let mut scanner = Scanner::new(item.as_bytes());
    let is_loose = scanner.skip_value().is_ok() && scanner.loose;
    match edited {
        // Both the kept and the replaced parts are text.
        Change::Replace(edited) if is_loose => {
            write_shortest(out, &String::from_utf8_lossy(&edited));
        }
        Change::Replace(edited) => out.extend_from_slice(&edited),
        _ if is_loose && origin != Origin::LoosePython => write_shortest(out, item),
        _ => out.extend_from_slice(item.as_bytes()),
    }
}

/// Returns the change of a member of `span_data`.
fn change(kind: &str, name: &str, value: Raw<'_>, origin: Origin) -> Change {
    match (kind, name) {
        // Apps add these for other sinks. The SDKs send neither, and OpenAI has both under the response's id.
        ("response", "input" | "response") => Change::Remove,
        ("generation", "input" | "output") => fitting(value, without_reasoning(value, origin)),
        (_, "input" | "output") => fitting(value, Change::Keep),
        ("generation", "usage") => usage(value, origin),
        (_, "usage") if origin.is_python() => Change::Remove,
        _ => Change::Keep,
    }
}

/// Applies a change to `input` or `output`, and cuts the result to the limit.
fn fitting(value: Raw<'_>, change: Change) -> Change {
    let text = match &change {
        Change::Replace(text) => std::str::from_utf8(text).unwrap_or_default(),
        _ => value.text(),
    };
    // The shortest text is never longer than another one.
    if FIELD_BYTES_MAX < text.len() {
        let mut shrunk = Vec::with_capacity(FIELD_BYTES_MAX);
        write_shrunk(&mut shrunk, text, FIELD_BYTES_MAX);
        if shrunk != text.as_bytes() {
            return Change::Replace(shrunk);
        }
    }
    change
}

// === Usage ===

/// Returns the change of a generation's usage to the one shape that OpenAI knows: input and output tokens, and everything else under
/// `details`.
fn usage(sent: Raw<'_>, origin: Origin) -> Change {
    let Ok(Value::Object(mut more)) = serde_json::from_str(sent.text()) else {
        return Change::Keep;
    };
    // Both SDKs require numbers that fit in a double.
    let mut count =
        |name| more.shift_remove(name).filter(|it| it.as_f64().is_some_and(f64::is_finite));
    let counts = [count("input_tokens"), count("output_tokens")];
    let [Some(input_tokens), Some(output_tokens)] = counts else { return Change::Remove };
    let sent_details = more.shift_remove("details");
    let is_as_wanted = more.is_empty()
        && sent_details.as_ref().is_none_or(|it| it.as_object().is_some_and(|it| !it.is_empty()));
    if is_as_wanted {
        return Change::Keep;
    }
    more.retain(|_, value| !value.is_null() || !origin.is_python());
    let mut usage = json!({ "input_tokens": input_tokens, "output_tokens": output_tokens });
    let mut details = sent_details.and_then(|it| it.as_object().cloned()).unwrap_or_default();
    details.extend(more);
    if let Some(usage) = usage.as_object_mut().filter(|_| !details.is_empty()) {
        usage.insert("details".to_owned(), details.into());
    }
    Change::Replace(usage.to_string().into_bytes())
}
