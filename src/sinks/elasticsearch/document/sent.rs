//! Writes untyped data, as the client sent it or as a single text.

use std::ptr;

use super::cut::{Limits, write_cut};
use super::{Degradation, Document};
use crate::sinks::elasticsearch::fields::Field::{Number, Time, Words};
use crate::sinks::elasticsearch::fields::{write_fields, write_key};
use crate::sinks::elasticsearch::item::ItemMembers;
use crate::sinks::elasticsearch::names::SEARCHED_UNITS_MAX;
use crate::sinks::elasticsearch::options::AttributesMapping;
use crate::sinks::jsonl::{join_attributes_but, write_attributes};
use crate::span::{Attribute, Detail, Facts, Link, Payload, SpanEvent, Value};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::{write_list, write_str};

/// The limits of a field that indexes every attribute. `flattened` accepts 20 levels, and values of 32,766 bytes including their keys.
const GUARD: Limits = Limits { whole_bytes: 0, levels: 8, key_bytes: 256, text_bytes: 30_000 };
/// Names below `otel.` that the sink writes. Attributes of clients with these names are omitted.
const OURS: [&str; 10] = [
    "span_kind",
    "flags",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "trace_state",
    "status_message",
    "scope.name",
    "scope.version",
    "scope.attributes",
];
/// The nesting of containers above an attribute: for a link, the list, the link and its attributes.
const LEVELS: usize = 3;

impl<'a> Document<'a, '_> {
    /// Writes all untyped data, with long texts cut: member by member, or as a single text.
    pub(super) fn free(&mut self) {
        let start = self.out.len();
        let is_folded = self.degradation == Degradation::Folded;
        if let Some(error) = self.facts.error.as_ref().filter(|_| is_folded) {
            self.text("error.message", &error.message);
        }
        self.attributes();
        self.resource();
        self.payload("input", self.facts.input.as_ref());
        self.payload("output", self.facts.output.as_ref());
        if let Some(detail) = self.detail {
            self.list("events", &detail.events, write_event);
            self.list("links", &detail.links, write_link);
        }
        let text_max = self.text_max;
        if !is_folded && text_max == usize::MAX {
            return;
        }
        // The members just written, as an object.
        let members = String::from_utf8(self.out.split_off(start)).unwrap_or_default();
        let members = format!("{{{}}}", members.trim_start_matches(','));
        let mut cut = Vec::new();
        let mut object = Object::open(&mut cut);
        for (name, value) in Raw::trusted(&members).members() {
            let levels = if matches!(&*name, "input" | "output") { 0 } else { LEVELS };
            let (whole_bytes, key_bytes, text_bytes) = (text_max, text_max, text_max);
            let limits = Limits { whole_bytes, levels, key_bytes, text_bytes };
            write_cut(object.member(&name), value, limits);
        }
        object.close();
        let cut = String::from_utf8_lossy(&cut);
        if is_folded {
            write_str(self.key("raw_json"), &cut);
        } else {
            let members = cut.strip_prefix('{').and_then(|cut| cut.strip_suffix('}'));
            self.out.push(b',');
            self.out.extend_from_slice(members.unwrap_or_default().as_bytes());
        }
    }

    fn attributes(&mut self) {
        self.key("attributes");
        let start = self.out.len();
        self.out.push(b'{');
        match self.detail {
            Some(detail) => self.otlp_attributes(detail),
            None => self.item_members(),
        }
        self.close();
        if self.settings.options.attributes_mapping != AttributesMapping::Disabled {
            let written = String::from_utf8(self.out.split_off(start)).unwrap_or_default();
            write_cut(self.out, Raw::trusted(&written), GUARD);
        }
    }

    fn otlp_attributes(&mut self, detail: &'a Detail) {
        let number = |number: u64| Number(number).unless(number == 0);
        let rows = [
            ("", "otel.span_kind", number(u64::try_from(detail.kind).unwrap_or_default())),
            ("", "otel.flags", number(detail.flags.into())),
            ("", "otel.dropped_attributes_count", number(detail.dropped_attributes_count.into())),
            ("", "otel.dropped_events_count", number(detail.dropped_events_count.into())),
            ("", "otel.dropped_links_count", number(detail.dropped_links_count.into())),
            ("", "otel.trace_state", Words(&detail.trace_state)),
            ("", "otel.status_message", Words(&detail.status_message)),
        ];
        write_fields(self.out, rows);
        self.join_attributes(&detail.attributes);
    }

    /// Adds attributes to the open object.
    fn join_attributes(&mut self, attributes: &[Attribute]) {
        let facts = self.facts;
        join_attributes_but(
            &mut Object::within(self.out),
            attributes,
            |Attribute { key, value }| {
                let is_ours = key.strip_prefix("otel.").is_some_and(|it| OURS.contains(&it));
                is_ours || is_payload(facts, value)
            },
        );
    }

    /// Writes the members of an item that have no field.
    fn item_members(&mut self) {
        let ItemMembers { own, data } = &self.subject.item;
        for (name, value) in &own.members {
            let json = value.text();
            match &**name {
                "object" | "started_at" | "ended_at" => {}
                "id" | "trace_id" | "parent_id" if json.len() <= SEARCHED_UNITS_MAX => {}
                "span_data" if !data.members.is_empty() => {
                    self.open("span_data");
                    let written = self.written_elsewhere();
                    let rest =
                        data.members.iter().filter(|(name, _)| !written.contains(&Some(&**name)));
                    rest.for_each(|(name, value)| self.member(name, value.text()));
                    self.close();
                }
                _ => self.member(name, json),
            }
        }
    }

    /// Returns the members of `span_data` that are identical to the document's input and output.
    fn written_elsewhere(&self) -> [Option<&'static str>; 2] {
        let kind = self.subject.item.data.get_string("type").unwrap_or_default();
        let Facts { input, output, .. } = self.facts;
        let name = |name, payload: &Option<Payload>| payload.as_ref().map(|_| name);
        match &*kind {
            "generation" | "function" => [name("input", input), name("output", output)],
            _ => [None; 2],
        }
    }

    fn resource(&mut self) {
        let scope = &self.span.scope;
        let is_empty = scope.resource.attributes.is_empty();
        if is_empty && (self.detail.is_none() || scope.name.is_empty()) {
            return;
        }
        self.open("resource");
        if self.detail.is_some() {
            self.text("otel.scope.name", &scope.name);
            self.text("otel.scope.version", &scope.version);
            if !scope.attributes.is_empty() {
                write_attributes(self.key("otel.scope.attributes"), &scope.attributes);
            }
        }
        self.join_attributes(&self.span.scope.resource.attributes);
        self.close();
    }

    fn list<T>(&mut self, name: &'static str, elements: &[T], write: fn(&mut Vec<u8>, &T)) {
        if !elements.is_empty() {
            write_list(self.key(name), elements, |out, element| {
                out.push(b'{');
                write(out, element);
                out.push(b'}');
            });
        }
    }
}

fn write_event(out: &mut Vec<u8>, event: &SpanEvent) {
    let rows = [("", "time", Time(event.time_ns)), ("", "name", Words(&event.name))];
    write_fields(out, rows);
    write_own_attributes(out, &event.attributes);
}

fn write_link(out: &mut Vec<u8>, link: &Link) {
    let rows = [
        ("", "trace_id", Words(&link.trace_id.to_string())),
        ("", "span_id", Words(&link.span_id.to_string())),
        ("", "trace_state", Words(&link.trace_state)),
    ];
    write_fields(out, rows);
    write_own_attributes(out, &link.attributes);
}

fn write_own_attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    if !attributes.is_empty() {
        write_attributes(write_key(out, "attributes"), attributes);
    }
}

/// Returns whether an attribute is the same memory as the input or output.
pub(super) fn is_payload(facts: &Facts, value: &Value) -> bool {
    let Value::Text(text) = value else { return false };
    let mut sides = [&facts.input, &facts.output].into_iter().flatten().map(Payload::as_str);
    !text.is_empty() && sides.any(|side| ptr::eq(side, text.as_ref()))
}
