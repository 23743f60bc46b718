//! The members of an Agents SDK item. If a name repeats, the last value counts, because Elasticsearch rejects repeated names. Pure.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use crate::span::{Opened, Span};
use crate::support::json::raw::{Object, Raw};

/// The members of an item and of its `span_data`.
#[derive(Debug, Clone, Default)]
pub(super) struct ItemMembers<'a> {
    /// The members of the item.
    pub(super) own: Object<'a>,
    /// The members of `span_data`; empty if it is not an object.
    pub(super) data: Object<'a>,
}

impl<'a> ItemMembers<'a> {
    /// Returns the members of a span's item; none for an OTLP span.
    pub(super) fn of(span: &'a Span) -> Self {
        let is_item = !span.is_otlp() && !span.wire.is_empty();
        let text = std::str::from_utf8(&span.wire).ok().filter(|_| is_item);
        let Some(Opened { item, data }) = text.map(|text| Opened::of(span, text)) else {
            return Self::default();
        };
        Self { own: last_of_each(item), data: last_of_each(data.unwrap_or_default()) }
    }
}

/// Returns the members of a value; none if it is not an object.
pub(super) fn members_of(value: Raw<'_>) -> Object<'_> {
    last_of_each(value.object())
}

fn last_of_each(mut object: Object<'_>) -> Object<'_> {
    let mut seen = HashSet::with_capacity_and_hasher(object.members.len(), RandomState::default());
    let is_last = object.members.iter().rev().map(|(name, _)| seen.insert(&**name));
    let mut is_last: Vec<bool> = is_last.collect();
    if is_last.contains(&false) {
        object.members.retain(|_| is_last.pop().unwrap_or(true));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::samples::sdk_span;
    use crate::span::{Detail, Facts, ValueOffsets};

    const ITEM: &str = r#" { "id" : "a", "span_data":{"type":"x"}, "span_data": {"type":"generation",
        "input": [{"content": "\"]}"}] ,"output" : "plain, {text", "\u00e9":1.50, "data":{} }, "id":"b\n","error":null } "#;

    #[test]
    fn members_are_the_same_whether_or_not_it_is_known_where_payloads_end() {
        let mut known = ValueOffsets::default();
        for payload in [r#"[{"content": "\"]}"}]"#, "\"plain, {text\""] {
            let at = ITEM.find(payload).unwrap();
            known.add(at..at + payload.len());
        }
        for value_offsets in [ValueOffsets::default(), known] {
            let span = sdk_span(0, ITEM, Detail::default(), Facts::default());
            let span = span.with_value_offsets(value_offsets);
            let item = ItemMembers::of(&span);
            let names: Vec<_> = item.own.members.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["span_data", "id", "error"]);
            assert_eq!(item.own.get_string("id").as_deref(), Some("b\n"));
            let data = item.data.members.iter().map(|(name, value)| (&**name, value.text()));
            let data: Vec<_> = data.collect();
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
            assert!(item.data.members.is_empty());
            let [(name, written)] = &item.own.members[..] else { panic!() };
            assert_eq!((&**name, written.text()), ("span_data", value));
        }
        for text in ["", "[]", r#"{"id":"#, "\"x\""] {
            let span = sdk_span(0, text, Detail::default(), Facts::default());
            assert!(ItemMembers::of(&span).own.members.is_empty());
        }
    }
}
