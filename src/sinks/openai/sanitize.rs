//! Rewrites items for OpenAI: exactly as the Agents SDK does before it sends there, and nothing more.
//!
//! Both SDKs remove reasoning from the input and output of generations. Python cuts `input` and `output` larger than 100,000 bytes and
//! converts `usage` to the one shape that OpenAI knows. JavaScript does so before we receive the item, so doing it again changes nothing.
//! An item that needs no change is copied byte for byte.

use std::borrow::Cow;

use super::edit::{self, Change, Origin};
use super::reasoning::without_reasoning;
use crate::sinks::shrink::write_shrunk;
use crate::support::json::object::Object;
use crate::support::json::raw::{Raw, inside};
use crate::support::json::scan::{Broken, Scanner};
use crate::support::json::write_shortest;

/// The largest size of a span's `input` and `output`, in bytes of their shortest JSON text: the SDK's own limit.
pub(super) const FIELD_BYTES_MAX: usize = 100_000;

/// Appends an item of the ingest format in the form that OpenAI accepts.
pub(super) fn write_item(out: &mut Vec<u8>, item: &str, origin: Origin) {
    let mut scanner = Scanner::new(item.as_bytes());
    let edited = edited(&mut scanner, item, origin).unwrap_or_default();
    match edited {
        None if scanner.loose && origin != Origin::LoosePython => write_shortest(out, item),
        None => out.extend_from_slice(item.as_bytes()),
        // Both the kept and the replaced parts are text.
        Some(edited) if scanner.loose => write_shortest(out, &String::from_utf8_lossy(&edited)),
        Some(edited) => out.extend_from_slice(&edited),
    }
}

/// Returns the item with its `span_data` changed; `None` if nothing has to change. It scans the entire item, so that the scanner then knows
/// how it is formatted.
fn edited(
    scanner: &mut Scanner<'_>,
    item: &str,
    origin: Origin,
) -> Result<Option<Vec<u8>>, Broken> {
    let mut edited = None;
    scanner.each_member(|scanner, name| {
        let is_data = inside(item, name) == "span_data";
        if !is_data || scanner.peek() != Some(b'{') {
            return scanner.skip_value();
        }
        let start = scanner.at;
        let mut members = Vec::new();
        scanner.each_member(|scanner, name| {
            scanner.peek();
            let start = scanner.at;
            scanner.skip_value()?;
            let value = item.get(start..scanner.at).unwrap_or_default();
            members.push((inside(item, name), Raw::trusted(value)));
            Ok(())
        })?;
        let before = item.as_bytes().get(..start).unwrap_or_default();
        let after = item.as_bytes().get(scanner.at..).unwrap_or_default();
        let kind = members.iter().rev().find(|(name, _)| name == "type");
        let kind = kind.and_then(|(_, value)| value.string()).unwrap_or_default();
        let changed = edit::members(&members, |name, value| change(&kind, name, value, origin));
        if let Change::Replace(data) = changed {
            edited = Some([before, &data, after].concat());
        }
        Ok(())
    })?;
    Ok(edited)
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
    if !sent.is_object() {
        return Change::Keep;
    }
    let sent = sent.object();
    let count = |name| sent.get(name).filter(|value| is_finite(*value));
    let (Some(input), Some(output)) = (count("input_tokens"), count("output_tokens")) else {
        return Change::Remove;
    };
    let mut details: Vec<(Cow<'_, str>, Raw<'_>)> = Vec::new();
    let mut is_as_wanted = true;
    for (_, value) in sent.members.iter().filter(|(name, _)| name == "details") {
        details = value.members().collect();
        is_as_wanted &= !details.is_empty();
    }
    for (name, value) in &sent.members {
        if ["input_tokens", "output_tokens", "details"].contains(&&**name) {
            continue;
        }
        is_as_wanted = false;
        if value.set().is_none() && origin.is_python() {
            continue;
        }
        match details.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = *value,
            None => details.push((name.clone(), *value)),
        }
    }
    if is_as_wanted {
        return Change::Keep;
    }
    let mut out = Vec::new();
    let mut usage = Object::open(&mut out);
    usage.member("input_tokens").extend_from_slice(input.text().as_bytes());
    usage.member("output_tokens").extend_from_slice(output.text().as_bytes());
    if !details.is_empty() {
        let mut more = Object::open(usage.member("details"));
        for (name, value) in details {
            more.member(&name).extend_from_slice(value.text().as_bytes());
        }
        more.close();
    }
    usage.close();
    Change::Replace(out)
}

/// Returns whether a number fits in a double, as both SDKs require.
fn is_finite(value: Raw<'_>) -> bool {
    let begins_like_one =
        value.text().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    begins_like_one && value.text().parse::<f64>().is_ok_and(f64::is_finite)
}
