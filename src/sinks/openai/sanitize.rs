//! Items as OpenAI takes them: exactly what the Agents SDK does before it sends there, and nothing more.
//!
//! Both SDKs leave reasoning out of what generations were given and gave. Python cuts `input` and `output` that are larger than
//! 100,000 bytes and brings `usage` into the one shape that is known there; JavaScript has done that before the item reaches us,
//! so that doing it again changes nothing. An item that needs no change is copied byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use super::reasoning::without_reasoning;
use super::usage::usage;
use crate::sinks::shrink::write_shrunk;
use crate::span::Source;
use crate::support::json::raw::{Raw, unescape};
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
    let edits = edits(&mut scanner, item, origin).unwrap_or_default();
    let is_loose = scanner.loose && origin != Origin::LoosePython;
    if edits.is_empty() && !is_loose {
        out.extend_from_slice(item.as_bytes());
    } else if edits.is_empty() {
        write_shortest(out, item);
    } else if scanner.loose {
        let mut edited = Vec::with_capacity(item.len());
        apply(&mut edited, item, &edits);
        // Both what is kept and what is put in its place is text.
        write_shortest(out, &String::from_utf8_lossy(&edited));
    } else {
        apply(out, item, &edits);
    }
}

/// What stands in the place of a piece of an item. Edits are in order and do not overlap.
struct Edit {
    range: Range<usize>,
    replacement: Vec<u8>,
}

fn apply(out: &mut Vec<u8>, item: &str, edits: &[Edit]) {
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(item.as_bytes().get(done..edit.range.start).unwrap_or_default());
        out.extend_from_slice(&edit.replacement);
        done = edit.range.end;
    }
    out.extend_from_slice(item.as_bytes().get(done..).unwrap_or_default());
}

/// A member of `span_data`, as places in the item.
struct Member<'a> {
    name: Cow<'a, str>,
    /// From its name to the end of its value.
    whole: Range<usize>,
    value: Range<usize>,
}

/// What is to be changed. It walks the whole item, so that afterwards the scanner knows how it is written.
fn edits(scanner: &mut Scanner<'_>, item: &str, origin: Origin) -> Result<Vec<Edit>, Broken> {
    let mut edits = Vec::new();
    scanner.expect(b'{', "an object")?;
    if scanner.eat(b'}') {
        return Ok(edits);
    }
    loop {
        let name = scanner.key()?;
        let is_data = item.get(name.start..name.end) == Some("span_data");
        if is_data && scanner.peek() == Some(b'{') {
            let members = members(scanner, item)?;
            edits = edits_of_data(item, &members, origin);
        } else {
            scanner.skip_value()?;
        }
        if !scanner.eat(b',') {
            return Ok(edits);
        }
    }
}

fn members<'a>(scanner: &mut Scanner<'_>, item: &'a str) -> Result<Vec<Member<'a>>, Broken> {
    let mut members = Vec::new();
    scanner.expect(b'{', "an object")?;
    if scanner.eat(b'}') {
        return Ok(members);
    }
    loop {
        scanner.peek();
        let start = scanner.at;
        let name = scanner.key()?;
        scanner.peek();
        let value = scanner.at;
        scanner.skip_value()?;
        members.push(Member {
            name: unescape(item.get(name.start..name.end).unwrap_or_default()),
            whole: start..scanner.at,
            value: value..scanner.at,
        });
        if !scanner.eat(b',') {
            scanner.expect(b'}', "a comma or }")?;
            return Ok(members);
        }
    }
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

fn edits_of_data(item: &str, members: &[Member<'_>], origin: Origin) -> Vec<Edit> {
    let value = |member: &Member<'_>| item.get(member.value.clone()).unwrap_or_default();
    let kind = members.iter().rev().find(|member| member.name == "type");
    let kind = kind.and_then(|member| Raw::trusted(value(member)).string()).unwrap_or_default();
    let mut edits = Vec::new();
    let mut has_kept = false;
    for (at, member) in members.iter().enumerate() {
        let change = change(&kind, &member.name, value(member), origin);
        match change {
            Change::Keep => has_kept = true,
            Change::Replace(replacement) => {
                has_kept = true;
                edits.push(Edit { range: member.value.clone(), replacement });
            }
            Change::Remove => {
                // Before the first member that stays, a comma goes with what stands before it, later with what stands behind it.
                let before = at.checked_sub(1).and_then(|before| members.get(before));
                let range = if let Some(before) = before.filter(|_| has_kept) {
                    before.whole.end..member.whole.end
                } else {
                    let next = members.get(at + 1).map(|next| next.whole.start);
                    member.whole.start..next.unwrap_or(member.whole.end)
                };
                edits.push(Edit { range, replacement: Vec::new() });
            }
        }
    }
    edits
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
