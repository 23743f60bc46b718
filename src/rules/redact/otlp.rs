//! Redacts OTLP messages: each text in place, and everything else byte for byte.

use super::Redaction;
use super::search::{LONG_NUMBER_MIN, Marks};
use crate::normalize::wire::{Content, Edit, Fields, last_bytes, rebuilt};
use crate::normalize::{Limits, Parts, parts_of};
use crate::span::otlp::protobuf::write_bytes;
use crate::support::find::place_of;

/// Maximum depth to which unknown messages are searched.
const UNKNOWN_DEPTH_MAX: usize = 16;

/// The meaning of a message's field for a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// An id, a time, a count, flags.
    Keep,
    Text(Parts),
    /// An attribute of these parts; if empty, the key determines them.
    Attribute(Parts),
    Message(Layout),
    Event,
    Unknown,
}
use Part::{Attribute, Keep, Text, Unknown};

/// The fields of a message, by number.
type Layout = &'static [Part];

#[rustfmt::skip]
pub(super) const SPAN: Layout = &[
    Unknown, Keep, Keep, Text(Parts::NONE), Keep, Text(Parts::NAME), Keep, Keep, Keep, Attribute(Parts::NONE), Keep,
    Part::Event, Keep, Part::Message(LINK), Keep, Part::Message(STATUS), Keep,
];
const LINK: Layout = &[Unknown, Keep, Keep, Text(Parts::NONE), Attribute(Parts::NONE), Keep, Keep];
const STATUS: Layout = &[Unknown, Unknown, Text(Parts::ERROR), Keep];
pub(super) const RESOURCE: Layout = &[Unknown, Attribute(Parts::RESOURCE)];
/// An `InstrumentationScope`.
pub(super) const SCOPE: Layout =
    &[Unknown, Text(Parts::RESOURCE), Text(Parts::RESOURCE), Attribute(Parts::RESOURCE)];
const EVENT: Layout = &event(Parts::EVENTS);
const EXCEPTION: Layout = &event(Parts::EVENTS.and(Parts::ERROR));
/// Events can carry input and output, in one of many ways.
const CONTENT: Layout = &event(Parts::EVENTS.and(Parts::INPUT).and(Parts::OUTPUT));

const fn event(attributes: Parts) -> [Part; 5] {
    [Unknown, Keep, Text(Parts::EVENTS), Attribute(attributes), Keep]
}

/// A rule's pass over a message.
pub(super) struct Walk<'a> {
    rule: &'a Redaction,
    wire: &'a [u8],
    marks: Marks,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rule: &'a Redaction, wire: &'a [u8]) -> Self {
        Self { rule, wire, marks: rule.search.marks(wire) }
    }

    /// Returns the redacted message; `None` if it stays.
    pub(super) fn message(&self, layout: Layout) -> Option<Vec<u8>> {
        self.marks.any().then(|| self.rebuilt(self.wire, layout)).flatten()
    }

    fn rebuilt(&self, message: &[u8], layout: Layout) -> Option<Vec<u8>> {
        rebuilt(message, |number, content| {
            match (layout.get(number as usize).copied().unwrap_or(Unknown), content) {
                (Keep, _) => Edit::Keep,
                (Text(parts), Content::Bytes(text)) => {
                    let is_meant = self.rule.fields.select(parts, "");
                    if is_meant { self.leaf(b"", text) } else { Edit::Keep }
                }
                (Attribute(parts), Content::Bytes(attribute)) => self.attribute(attribute, parts),
                (Part::Message(layout), Content::Bytes(inner)) => {
                    self.inner(inner, b"", || self.rebuilt(inner, layout))
                }
                (Part::Event, Content::Bytes(event)) => self.inner(event, b"", || {
                    self.rebuilt(
                        event,
                        match last_bytes(event, 2) {
                            b"exception" => EXCEPTION,
                            b"tool.output" => CONTENT,
                            name if name.starts_with(b"gen_ai.") => CONTENT,
                            _ => EVENT,
                        },
                    )
                }),
                _ => self.unknown(content),
            }
        })
    }

    fn attribute(&self, attribute: &[u8], parts: Parts) -> Edit {
        if !self.is_marked(attribute) {
            return Edit::Keep;
        }
        let is_meant = |key: &str| match parts {
            Parts::NONE => self.rule.fields.select(parts_of(key), key),
            parts => self.rule.fields.select(parts, key),
        };
        let key = last_bytes(attribute, 1);
        if !self.rule.fields.are_all && !is_meant(&String::from_utf8_lossy(key)) {
            return Edit::Keep;
        }
        self.inner(attribute, b"", || self.key_value(attribute, 1))
    }

    fn key_value(&self, entry: &[u8], depth: usize) -> Option<Vec<u8>> {
        let key = last_bytes(entry, 1);
        rebuilt(entry, |number, content| match (number, content) {
            (1, Content::Bytes(key)) if self.is_marked(key) => {
                self.rule.name(key).map_or(Edit::Keep, Edit::Replace)
            }
            (2, Content::Bytes(value)) => self.inner(value, key, || self.value(value, key, depth)),
            (1, Content::Bytes(_)) | (3, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    /// Redacts an `AnyValue`. A value too deep for any reader is removed.
    fn value(&self, value: &[u8], key: &[u8], depth: usize) -> Option<Vec<u8>> {
        if depth > Limits::default().depth_max {
            return Some(Vec::new());
        }
        if let Some(label) = self.number(value, key) {
            let mut text = Vec::new();
            write_bytes(&mut text, 1, &label);
            return Some(text);
        }
        rebuilt(value, |number, content| match (number, content) {
            (1 | 7, Content::Bytes(text)) => self.leaf(key, text),
            (5 | 6, Content::Bytes(list)) => self.list(number, list, key, depth),
            _ if self.rule.search.is_all && self.rule.takes_scalars() => Edit::Drop,
            _ if self.rule.search.is_all => Edit::Keep,
            (2..=4 | 8, _) => Edit::Keep,
            _ => self.unknown(content),
        })
    }

    fn list(&self, number: u32, list: &[u8], key: &[u8], depth: usize) -> Edit {
        let list = rebuilt(list, |field, content| match (field, content) {
            (1, Content::Bytes(entry)) if number == 6 => {
                self.inner(entry, key, || self.key_value(entry, depth + 1))
            }
            (1, Content::Bytes(value)) => {
                self.inner(value, key, || self.value(value, key, depth + 1))
            }
            _ => self.unknown(content),
        });
        list.map_or(Edit::Keep, Edit::Replace)
    }

    /// Redacts a whole number, if a pattern may match it: a card number, or any number for the user's own expressions. Its replacement is a
    /// text.
    fn number(&self, value: &[u8], key: &[u8]) -> Option<Vec<u8>> {
        let Ok(Some((3, Content::Varint(bits)))) = Fields::new(value).next() else { return None };
        let is_sought = !self.rule.search.is_all;
        is_sought.then(|| self.rule.value(key, bits.cast_signed().to_string().as_bytes())).flatten()
    }

    /// Redacts a text or bytes.
    fn leaf(&self, key: &[u8], text: &[u8]) -> Edit {
        let key = if self.is_marked(key) { key } else { b"" };
        if key.is_empty() && !self.is_marked(text) {
            return Edit::Keep;
        }
        let marks = match place_of(text, self.wire) {
            Some(place) => self.marks.within(&place),
            None => self.rule.search.marks(text),
        };
        self.rule.marked(key, text, &marks).map_or(Edit::Keep, Edit::Replace)
    }

    /// Rewrites a message that may contain a match, or whose key may begin one.
    fn inner(&self, message: &[u8], key: &[u8], rewrite: impl FnOnce() -> Option<Vec<u8>>) -> Edit {
        if !self.is_marked(key) && !self.is_marked(message) {
            return Edit::Keep;
        }
        rewrite().map_or(Edit::Keep, Edit::Replace)
    }

    /// Keeps a field of a later version, unless it contains a match; then the whole field is removed.
    fn unknown(&self, content: Content<'_>) -> Edit {
        let holds = match content {
            _ if !self.rule.fields.are_all => false,
            Content::Bytes(bytes) => self.is_marked(bytes) && holds_match(self.rule, bytes),
            // The contents of a group are unknown; no client sends any.
            Content::Group => true,
            Content::Varint(_) | Content::Fixed64(_) | Content::Fixed32(_) => false,
        };
        if holds { Edit::Drop } else { Edit::Keep }
    }

    /// Returns whether a part of the message may contain a match.
    fn is_marked(&self, part: &[u8]) -> bool {
        !part.is_empty() && place_of(part, self.wire).is_none_or(|place| self.marks.touch(&place))
    }
}

/// Returns whether bytes contain a match, as text or in a text of the message that they may be.
pub(super) fn holds_match(rule: &Redaction, bytes: &[u8]) -> bool {
    let mut holds = false;
    each_part(bytes, 0, &mut |part| holds = holds || rule.value(b"", part).is_some());
    holds
}

/// Visits a message, every part of it that may be a text or a message, and numbers that may be a card's. Returns whether it can be read to
/// its end.
pub(super) fn each_part(message: &[u8], depth: usize, visit: &mut impl FnMut(&[u8])) -> bool {
    visit(message);
    let mut fields = Fields::new(message);
    loop {
        match fields.next() {
            Ok(None) => return true,
            Err(_) => return false,
            Ok(Some((_, Content::Bytes(part)))) if depth < UNKNOWN_DEPTH_MAX => {
                each_part(part, depth + 1, visit);
            }
            Ok(Some((_, Content::Varint(bits)))) if bits >= LONG_NUMBER_MIN => {
                visit(bits.cast_signed().to_string().as_bytes());
            }
            Ok(Some(_)) => {}
        }
    }
}
