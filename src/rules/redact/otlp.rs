//! OTLP messages without what a rule takes out of them: each text where it stands, and everything else byte for byte.

use super::Redaction;
use super::search::Search;
use crate::normalize::wire::{Content, Edit, Fields, last_bytes, rebuilt};
use crate::normalize::{Limits, Parts};
use crate::span::otlp::protobuf::write_bytes;
use crate::support::find::place_of;

/// The shortest number of a card.
const LONG_NUMBER_MIN: u64 = 10_u64.pow(12);
/// Unknown messages are looked into so deep.
const UNKNOWN_DEPTH_MAX: usize = 16;

/// A message on its way through a rule.
pub(super) struct Walk<'a> {
    rule: &'a Redaction,
    wire: &'a [u8],
    /// Where something of a pattern may be; `None` where that cannot be told.
    marks: Option<Vec<usize>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rule: &'a Redaction, wire: &'a [u8]) -> Self {
        let marks = rule.search.as_ref().filter(|search| !search.has_own());
        Self { rule, wire, marks: marks.map(|search| search.marks(wire)) }
    }

    /// A `Span` message; `None` where it may stay.
    pub(super) fn span(&self) -> Option<Vec<u8>> {
        if !self.may_match(self.wire) {
            return None;
        }
        rebuilt(self.wire, |number, content| match (number, content) {
            (9, Content::Bytes(attribute)) => self.attribute(attribute, Parts::NONE),
            (3, Content::Bytes(state)) => self.text(state, Parts::NONE),
            (5, Content::Bytes(name)) => self.text(name, Parts::NAME),
            (11, Content::Bytes(event)) => self.message(event, Self::event),
            (13, Content::Bytes(link)) => self.message(link, Self::link),
            (15, Content::Bytes(status)) => self.message(status, |walk, status| {
                rebuilt(status, |number, content| match (number, content) {
                    (2, Content::Bytes(message)) => walk.text(message, Parts::ERROR),
                    (3, _) => Edit::Keep,
                    _ => walk.unknown(content),
                })
            }),
            // Ids, times, kind, the dropped counts, flags.
            (1 | 2 | 4 | 6 | 7 | 8 | 10 | 12 | 14 | 16, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    /// A `Resource` message, or an `InstrumentationScope`; `None` where it may stay.
    pub(super) fn maker(&self, attributes: u32) -> Option<Vec<u8>> {
        if !self.may_match(self.wire) {
            return None;
        }
        rebuilt(self.wire, |number, content| match (number, content) {
            (number, Content::Bytes(attribute)) if number == attributes => {
                self.attribute_of(attribute, |key| self.rule.fields.select(Parts::RESOURCE, key))
            }
            // A scope's name and version.
            (1 | 2, Content::Bytes(text)) => self.text(text, Parts::RESOURCE),
            (_, Content::Varint(_)) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    fn event(&self, event: &[u8]) -> Option<Vec<u8>> {
        let name = last_bytes(event, 2);
        let parts = match name {
            b"exception" => Parts::EVENTS.and(Parts::ERROR),
            // What went in and came out may be told in events, in one of many ways.
            _ if name.starts_with(b"gen_ai.") || name == b"tool.output" => {
                Parts::EVENTS.and(Parts::INPUT).and(Parts::OUTPUT)
            }
            _ => Parts::EVENTS,
        };
        rebuilt(event, |number, content| match (number, content) {
            (2, Content::Bytes(name)) => self.text(name, Parts::EVENTS),
            (3, Content::Bytes(attribute)) => self.attribute(attribute, parts),
            (1 | 4, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    fn link(&self, link: &[u8]) -> Option<Vec<u8>> {
        rebuilt(link, |number, content| match (number, content) {
            (3, Content::Bytes(state)) => self.text(state, Parts::NONE),
            (4, Content::Bytes(attribute)) => self.attribute(attribute, Parts::NONE),
            (1 | 2 | 5 | 6, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    /// An attribute of the span itself, or of something of it that belongs to these parts.
    fn attribute(&self, attribute: &[u8], parts: Parts) -> Edit {
        let fields = &self.rule.fields;
        self.attribute_of(attribute, |key| match parts {
            Parts::NONE => fields.select_attribute(key),
            parts => fields.select(parts, key),
        })
    }

    fn attribute_of(&self, attribute: &[u8], selects: impl Fn(&str) -> bool) -> Edit {
        if !self.may_match(attribute) {
            return Edit::Keep;
        }
        let key = String::from_utf8_lossy(last_bytes(attribute, 1));
        if !selects(&key) {
            return Edit::Keep;
        }
        self.message(attribute, |walk, attribute| walk.key_value(attribute, 1))
    }

    fn key_value(&self, entry: &[u8], depth: usize) -> Option<Vec<u8>> {
        let key = last_bytes(entry, 1);
        rebuilt(entry, |number, content| match (number, content) {
            (1, Content::Bytes(key)) => self.rule.name(key).map_or(Edit::Keep, Edit::Replace),
            (2, Content::Bytes(value)) => {
                self.message(value, |walk, value| walk.value(value, key, depth))
            }
            (3, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    /// An `AnyValue`. One that lies too deep for anybody to read it goes.
    fn value(&self, value: &[u8], key: &[u8], depth: usize) -> Option<Vec<u8>> {
        if depth > Limits::default().depth_max {
            return Some(Vec::new());
        }
        if self.rule.search.is_none() {
            return self.whole(value, key, depth);
        }
        if let Some(label) = self.number(value, key) {
            let mut text = Vec::new();
            write_bytes(&mut text, 1, &label);
            return Some(text);
        }
        rebuilt(value, |number, content| match (number, content) {
            (1 | 7, Content::Bytes(text)) => self.leaf(key, text),
            (5 | 6, Content::Bytes(list)) => self.list(number, list, key, depth),
            (2..=4 | 8, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    fn list(&self, number: u32, list: &[u8], key: &[u8], depth: usize) -> Edit {
        let list = rebuilt(list, |field, content| match (field, content) {
            (1, Content::Bytes(entry)) if number == 6 => {
                self.message(entry, |walk, entry| walk.key_value(entry, depth + 1))
            }
            (1, Content::Bytes(value)) => {
                self.message(value, |walk, value| walk.value(value, key, depth + 1))
            }
            _ => self.unknown(content),
        });
        list.map_or(Edit::Keep, Edit::Replace)
    }

    /// A value whatever it says.
    fn whole(&self, value: &[u8], key: &[u8], depth: usize) -> Option<Vec<u8>> {
        rebuilt(value, |number, content| match (number, content) {
            (1 | 7, Content::Bytes(text)) => self.leaf(key, text),
            (5 | 6, Content::Bytes(list)) => self.list(number, list, key, depth),
            _ if self.rule.takes_scalars() => Edit::Drop,
            _ => Edit::Keep,
        })
    }

    /// A whole number may be what a pattern is after: a card's, or what the user's own expression says. What stands in its place then
    /// is a text.
    fn number(&self, value: &[u8], key: &[u8]) -> Option<Vec<u8>> {
        let Ok(Some((3, Content::Varint(bits)))) = Fields::new(value).next() else { return None };
        let search = self.rule.search.as_ref()?;
        let is_long = search.has_own() || bits >= LONG_NUMBER_MIN;
        is_long.then(|| self.rule.value(key, bits.cast_signed().to_string().as_bytes())).flatten()
    }

    fn text(&self, text: &[u8], parts: Parts) -> Edit {
        if self.rule.fields.select(parts, "") { self.leaf(b"", text) } else { Edit::Keep }
    }

    /// A text or bytes.
    fn leaf(&self, key: &[u8], text: &[u8]) -> Edit {
        let is_marked = self.is_marked(text) || self.is_marked(key);
        let has_numbers =
            || self.rule.search.as_ref().is_some_and(|search| search.has_numbers(text));
        if !is_marked && !has_numbers() {
            return Edit::Keep;
        }
        self.rule.value(key, text).map_or(Edit::Keep, Edit::Replace)
    }

    fn message(
        &self,
        message: &[u8],
        rewrite: impl FnOnce(&Self, &[u8]) -> Option<Vec<u8>>,
    ) -> Edit {
        if !self.may_match(message) {
            return Edit::Keep;
        }
        rewrite(self, message).map_or(Edit::Keep, Edit::Replace)
    }

    /// A field of a later version stays unless it holds a match; then all of it goes.
    fn unknown(&self, content: Content<'_>) -> Edit {
        let holds = match content {
            _ if !self.rule.fields.are_all => false,
            Content::Bytes(bytes) => self.may_match(bytes) && holds_match(self.rule, bytes),
            // What stands in one is not known; nobody sends any.
            Content::Group => true,
            Content::Varint(_) | Content::Fixed64(_) | Content::Fixed32(_) => false,
        };
        if holds { Edit::Drop } else { Edit::Keep }
    }

    /// Whether a message may hold a match. Numbers show only where it is known what is a text.
    fn may_match(&self, message: &[u8]) -> bool {
        let has_numbers = self.rule.search.as_ref().is_some_and(Search::is_after_numbers);
        has_numbers || self.is_marked(message)
    }

    fn is_marked(&self, part: &[u8]) -> bool {
        let Some(marks) = self.marks.as_ref().filter(|_| !part.is_empty()) else {
            return !part.is_empty();
        };
        let Some(place) = place_of(part, self.wire) else { return true };
        let first = marks.partition_point(|mark| *mark < place.start);
        marks.get(first).is_some_and(|mark| *mark < place.end)
    }
}

/// Whether bytes hold a match as text, or in a text of the message that they may be.
pub(super) fn holds_match(rule: &Redaction, bytes: &[u8]) -> bool {
    holds_match_at(rule, bytes, 0)
}

fn holds_match_at(rule: &Redaction, bytes: &[u8], depth: usize) -> bool {
    if rule.value(b"", bytes).is_some() {
        return true;
    }
    let mut fields = Fields::new(bytes);
    while depth < UNKNOWN_DEPTH_MAX
        && let Ok(Some((_, content))) = fields.next()
    {
        if let Content::Bytes(inner) = content
            && holds_match_at(rule, inner, depth + 1)
        {
            return true;
        }
    }
    false
}
