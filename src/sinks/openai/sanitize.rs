//! Items as OpenAI takes them: exactly what the Agents SDK does before it sends there, and nothing more.
//!
//! Both SDKs leave reasoning out of what generations were given and gave. Python cuts `input` and `output` that are larger than
//! 100,000 bytes and brings `usage` into the one shape that is known there; JavaScript has done that before the item reaches us,
//! so that doing it again changes nothing. An item that needs no change is copied byte for byte.

use std::borrow::Cow;

use super::reasoning::without_reasoning;
use super::usage::usage;
use crate::sinks::shrink::write_shrunk;
use crate::span::Source;
use crate::support::json::object::Object;
use crate::support::json::raw::{Raw, inside};
use crate::support::json::scan::{Broken, Scanner};
use crate::support::json::write_shortest;

/// The most that `input` and `output` of a span may have, in bytes of their shortest JSON text: the SDK's own limit.
pub(super) const FIELD_BYTES_MAX: usize = 100_000;

/// Who wrote an item, as far as the rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The SDK for Python, and whoever does not say otherwise.
    Python,
    /// The SDK for Python over an HTTP library that writes spaces and escapes (httpx before 0.28): not a reason to write anew.
    LoosePython,
    /// The SDK for JavaScript.
    JavaScript,
}

impl Origin {
    /// The origin that a request's user agent gives away.
    pub(super) fn of(source: &Source) -> Self {
        let agent = source.header("user-agent").unwrap_or_default();
        if agent.starts_with("Agents/JavaScript") {
            return Self::JavaScript;
        }
        let minor = agent.strip_prefix("python-httpx/0.").and_then(|rest| rest.split('.').next());
        match minor.and_then(|minor| minor.parse::<u32>().ok()) {
            Some(0..28) => Self::LoosePython,
            _ => Self::Python,
        }
    }

    /// Whether Python's rules are to be kept.
    pub(super) fn is_python(self) -> bool {
        self != Self::JavaScript
    }
}

/// Appends an item of the ingest format, as OpenAI takes it.
pub(super) fn write_item(out: &mut Vec<u8>, item: &str, origin: Origin) {
    let mut scanner = Scanner::new(item.as_bytes());
    let edited = edited(&mut scanner, item, origin).unwrap_or_default();
    match edited {
        None if scanner.loose && origin != Origin::LoosePython => write_shortest(out, item),
        None => out.extend_from_slice(item.as_bytes()),
        // Both what is kept and what is put in its place is text.
        Some(edited) if scanner.loose => write_shortest(out, &String::from_utf8_lossy(&edited)),
        Some(edited) => out.extend_from_slice(&edited),
    }
}

/// The item with what is to be changed in its `span_data`; `None` where that is nothing. It walks the whole item, so that afterwards
/// the scanner knows how it is written.
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
            members.push((inside(item, name), value));
            Ok(())
        })?;
        let before = item.as_bytes().get(..start).unwrap_or_default();
        let after = item.as_bytes().get(scanner.at..).unwrap_or_default();
        edited = edited_data(&members, origin).map(|data| [before, &data, after].concat());
        Ok(())
    })?;
    Ok(edited)
}

/// `span_data` with what is to be changed; `None` where that is nothing.
fn edited_data(members: &[(Cow<'_, str>, &str)], origin: Origin) -> Option<Vec<u8>> {
    let kind = members.iter().rev().find(|(name, _)| name == "type");
    let kind = kind.and_then(|(_, value)| Raw::trusted(value).string()).unwrap_or_default();
    let change = |(name, value): &(Cow<'_, str>, &str)| change(&kind, name, value, origin);
    let changes: Vec<Change> = members.iter().map(change).collect();
    if changes.iter().all(|change| *change == Change::Keep) {
        return None;
    }
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    for ((name, value), change) in members.iter().zip(changes) {
        match change {
            Change::Keep => object.member(name).extend_from_slice(value.as_bytes()),
            Change::Replace(replacement) => object.member(name).extend_from_slice(&replacement),
            Change::Remove => {}
        }
    }
    object.close();
    Some(out)
}

/// What becomes of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It stays as it is.
    Keep,
    /// It goes, with its name.
    Remove,
    /// This stands in its place.
    Replace(Vec<u8>),
}

/// What becomes of a member of `span_data`.
fn change(kind: &str, name: &str, value: &str, origin: Origin) -> Change {
    match (kind, name) {
        // What apps add for other sinks: the SDKs send neither, and OpenAI has both under the response's id.
        ("response", "input" | "response") => Change::Remove,
        (_, "input" | "output") => field(kind, value, origin),
        ("generation", "usage") => usage(Raw::trusted(value), origin),
        (_, "usage") if origin.is_python() => Change::Remove,
        _ => Change::Keep,
    }
}

/// `input` and `output`: without reasoning, and no larger than is taken.
fn field(kind: &str, value: &str, origin: Origin) -> Change {
    let without = (kind == "generation").then(|| without_reasoning(value, origin)).flatten();
    let text = without.as_deref().unwrap_or(value);
    // The shortest text is never longer than another one.
    if FIELD_BYTES_MAX < text.len() {
        let mut shrunk = Vec::with_capacity(FIELD_BYTES_MAX);
        write_shrunk(&mut shrunk, text, FIELD_BYTES_MAX);
        if shrunk != text.as_bytes() {
            return Change::Replace(shrunk);
        }
    }
    without.map_or(Change::Keep, |text| Change::Replace(text.into_bytes()))
}
