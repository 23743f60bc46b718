//! The members of an Agents SDK item, found in one walk. Pure.
//!
//! Inputs and outputs are most of an item. Where they end was found on arrival, and the walk goes on behind them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use memchr::memchr;

use crate::span::{Landmarks, Span};
use crate::support::json::raw::{Raw, inside};
use crate::support::json::scan::{Broken, Scanner};

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

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.get(name)?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

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
        let Ok(text) = std::str::from_utf8(&span.wire) else { return Self::default() };
        Walk { text, landmarks: span.landmarks() }.item().unwrap_or_default()
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

struct Walk<'a> {
    text: &'a str,
    landmarks: &'a Landmarks,
}

impl<'a> Walk<'a> {
    fn item(&self) -> Result<ItemMembers<'a>, Broken> {
        let mut data = Members::default();
        let own = self.members(&mut Scanner::new(self.text.as_bytes()), |scanner, name| {
            if name != "span_data" {
                return self.value(scanner);
            }
            data = Members::default();
            if scanner.peek() != Some(b'{') {
                return self.value(scanner);
            }
            let start = scanner.at;
            data = self.members(scanner, |scanner, _| self.value(scanner))?;
            Ok(if data.is_empty() { self.slice(start..scanner.at) } else { "" })
        })?;
        Ok(ItemMembers { own, data })
    }

    /// Passes an object. `value` passes the value of the member of that name.
    fn members(
        &self,
        scanner: &mut Scanner<'a>,
        mut value: impl FnMut(&mut Scanner<'a>, &str) -> Result<&'a str, Broken>,
    ) -> Result<Members<'a>, Broken> {
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        scanner.each_member(|scanner, name| {
            let name = inside(self.text, name);
            let value = value(scanner, &name)?;
            members.push((name, value));
            Ok::<_, Broken>(())
        })?;
        Ok(Members(last_of_each(members)))
    }

    fn value(&self, scanner: &mut Scanner<'a>) -> Result<&'a str, Broken> {
        self.landmarks.pass_value(scanner).map(|place| self.slice(place))
    }

    fn slice(&self, place: Range<usize>) -> &'a str {
        self.text.get(place).unwrap_or_default()
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
    use crate::sinks::samples::sdk_span;
    use crate::span::{Detail, Facts};

    const ITEM: &str = r#" { "id" : "a", "span_data":{"type":"x"}, "span_data": {"type":"generation",
        "input": [{"content": "\"]}"}] ,"output" : "plain, {text", "\u00e9":1.50, "data":{} }, "id":"b\n","error":null } "#;

    #[test]
    fn members_are_the_same_whether_or_not_it_is_known_where_payloads_end() {
        let mut known = Landmarks::default();
        for payload in [r#"[{"content": "\"]}"}]"#, "\"plain, {text\""] {
            let at = ITEM.find(payload).unwrap();
            known.add(at..at + payload.len());
        }
        for landmarks in [Landmarks::default(), known] {
            let span = sdk_span(0, ITEM, Detail::default(), Facts::default());
            let span = span.with_landmarks(landmarks);
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
            let span = sdk_span(0, text, Detail::default(), Facts::default());
            let item = ItemMembers::of(&span);
            assert!(item.data.is_empty());
            assert_eq!(item.own.get("span_data"), Some(value));
        }
        for text in ["", "[]", r#"{"id":"#, "\"x\""] {
            let span = sdk_span(0, text, Detail::default(), Facts::default());
            assert!(ItemMembers::of(&span).own.is_empty());
        }
    }
}
