//! The members of an Agents SDK item, found in one walk. Pure.
//!
//! Inputs and outputs are most of an item, and the facts hold them as slices of it: where one of those begins, its end is known,
//! and the walk goes on behind it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::ptr;

use memchr::memchr;

use crate::span::{Payload, Span};
use crate::support::json::raw::{Raw, unescape};
use crate::support::json::scan::Scanner;

/// The members of a JSON object, as text, in their order; of a repeated name the last.
#[derive(Debug, Clone, Default)]
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

/// The members of an item and of its `span_data`.
#[derive(Debug, Clone, Default)]
pub(super) struct ItemMembers<'a> {
    /// The item's own. `span_data` has no text here where it has members.
    pub(super) own: Members<'a>,
    /// Those of `span_data`; none where it is no object.
    pub(super) data: Members<'a>,
}

impl<'a> Members<'a> {
    /// Those of an object that is known to be valid JSON; none of anything else.
    pub(super) fn of(json: &'a str) -> Self {
        let members = Raw::trusted(json).members().map(|(name, value)| (name, value.text()));
        Self(last_of_each(members.collect()))
    }

    /// A member's value.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// A member that is a string.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

impl<'a> ItemMembers<'a> {
    /// Those of a span's item; none where it came as OTLP.
    pub(super) fn of(span: &'a Span) -> Self {
        if span.is_otlp() || span.wire.is_empty() {
            return Self::default();
        }
        let (item, facts) = (&*span.wire, span.facts());
        let known = [facts.input.as_ref(), facts.output.as_ref()];
        Walk { item, scanner: Scanner::new(item), known }.item().unwrap_or_default()
    }
}

/// The text of a JSON string; none where an escape says no character.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr(b'\\', inside.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// A walk through an item.
struct Walk<'a> {
    item: &'a [u8],
    scanner: Scanner<'a>,
    /// What may be a slice of the item.
    known: [Option<&'a Payload>; 2],
}

impl<'a> Walk<'a> {
    fn item(mut self) -> Option<ItemMembers<'a>> {
        let mut data = Members::default();
        let own = self.members(|walk, name| {
            if name != "span_data" {
                return walk.value();
            }
            if walk.scanner.peek() != Some(b'{') {
                data = Members::default();
                return walk.value();
            }
            let start = walk.scanner.at;
            data = walk.members(|walk, _| walk.value())?;
            if data.is_empty() { walk.text(start..walk.scanner.at) } else { Some("") }
        })?;
        Some(ItemMembers { own, data })
    }

    /// Passes an object. `value` passes the value of the member of that name.
    fn members(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Option<&'a str>,
    ) -> Option<Members<'a>> {
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        self.scanner.expect(b'{', "an object").ok()?;
        if self.scanner.eat(b'}') {
            return Some(Members(members));
        }
        loop {
            let quoted = self.scanner.key().ok()?;
            let name = self.text(quoted.start..quoted.end)?;
            let name = if quoted.escaped { unescape(name) } else { Cow::Borrowed(name) };
            let value = value(self, &name)?;
            members.push((name, value));
            if !self.scanner.eat(b',') {
                self.scanner.expect(b'}', "a comma or }").ok()?;
                return Some(Members(last_of_each(members)));
            }
        }
    }

    fn value(&mut self) -> Option<&'a str> {
        let first = self.scanner.peek()?;
        let start = self.scanner.at;
        for known in self.known.into_iter().flatten() {
            match known {
                Payload::Json(json) if self.is_at(start, json) => {
                    self.scanner.at = start + json.len();
                    return Some(json);
                }
                // Only a string without escapes is lent, and then it is all that stands between the quotes.
                Payload::Text(inside) if first == b'"' && self.is_at(start + 1, inside) => {
                    self.scanner.at = start + inside.len() + 2;
                    return self.text(start..self.scanner.at);
                }
                _ => {}
            }
        }
        self.scanner.skip_value().ok()?;
        self.text(start..self.scanner.at)
    }

    /// Whether a text is the slice of the item that begins there.
    fn is_at(&self, start: usize, text: &str) -> bool {
        let here = self.item.get(start..).filter(|rest| text.len() <= rest.len());
        !text.is_empty() && here.is_some_and(|here| ptr::eq(here.as_ptr(), text.as_ptr()))
    }

    fn text(&self, range: Range<usize>) -> Option<&'a str> {
        std::str::from_utf8(self.item.get(range)?).ok()
    }
}

/// Members that an object of the Agents SDK usually has at most.
const MEMBERS_USUAL: usize = 8;

/// Leaves out what is said again further on: Elasticsearch takes no object with a name twice.
fn last_of_each<T>(mut members: Vec<(Cow<'_, str>, T)>) -> Vec<(Cow<'_, str>, T)> {
    if COMPARED_MAX < members.len() {
        let mut seen = HashSet::new();
        let mut is_last: Vec<bool> =
            members.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
        members.retain(|_| is_last.pop().unwrap_or(true));
        return members;
    }
    let mut at = 0;
    while let Some((name, later)) =
        members.get(at..).and_then(<[_]>::split_first).map(|((name, _), later)| (name, later))
    {
        if later.iter().any(|(other, _)| other == name) {
            members.remove(at);
        } else {
            at += 1;
        }
    }
    members
}

/// Up to this many names are compared with each other, which is faster than hashing them.
const COMPARED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::samples::native_span;
    use crate::span::{Detail, Facts, Text};

    const ITEM: &str = r#" { "id" : "a", "span_data":{"type":"x"}, "span_data": {"type":"generation",
        "input": [{"content": "\"]}"}] ,"output" : "plain, {text", "\u00e9":1.50, "data":{} }, "id":"b\n","error":null } "#;

    fn slice(text: &'static str) -> Text {
        let at = ITEM.find(text).unwrap();
        Text::from_static(ITEM.get(at..at + text.len()).unwrap())
    }

    #[test]
    fn members_are_the_same_whether_or_not_the_facts_say_where_payloads_end() {
        let (input, output) = (r#"[{"content": "\"]}"}]"#, "plain, {text");
        let lent = (Payload::Json(slice(input)), Payload::Text(slice(output)));
        let copied = (Payload::Json(Text::from(input)), Payload::Text(Text::from(output)));
        for payloads in [None, Some(lent), Some(copied)] {
            let (input, output) = payloads.unzip();
            let facts = Facts { input, output, ..Facts::default() };
            let span = native_span(0, ITEM, Detail::default(), facts);
            let item = ItemMembers::of(&span);
            let own: Vec<_> = item.own.iter().collect();
            assert_eq!(own, [("span_data", ""), ("id", r#""b\n""#), ("error", "null")]);
            assert_eq!(item.own.text("id").as_deref(), Some("b\n"));
            let data: Vec<_> = item.data.iter().collect();
            let expected = [
                ("type", "\"generation\""),
                ("input", r#"[{"content": "\"]}"}]"#),
                ("output", "\"plain, {text\""),
                ("\u{e9}", "1.50"),
                ("data", "{}"),
            ];
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn what_is_no_object_stands_as_it_is() {
        for (text, value) in [
            (r#"{"span_data":null}"#, "null"),
            (r#"{"span_data":{"type":"x"},"span_data":{ }}"#, "{ }"),
            (r#"{"span_data":[{}]}"#, "[{}]"),
        ] {
            let span = native_span(0, text, Detail::default(), Facts::default());
            let item = ItemMembers::of(&span);
            assert!(item.data.is_empty());
            assert_eq!(item.own.get("span_data"), Some(value));
        }
        for text in ["", "[]", r#"{"id":"#, "\"x\""] {
            let span = native_span(0, text, Detail::default(), Facts::default());
            assert!(ItemMembers::of(&span).own.is_empty());
        }
    }
}
