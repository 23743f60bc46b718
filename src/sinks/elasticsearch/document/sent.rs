//! What has no type of its own: as the client sent it, or folded into one text.

use std::ptr;

use super::Document;
use super::guard::guard;
use crate::sinks::elasticsearch::item::Members;
use crate::sinks::elasticsearch::names::SEARCHED_UNITS_MAX;
use crate::sinks::elasticsearch::options::AttributesMapping;
use crate::sinks::jsonl::{write_attributes, write_attributes_but};
use crate::span::{Attribute, Detail, Facts, Link, Payload, SpanEvent, Value};
use crate::support::json::{write_str, write_u64};

impl<'a> Document<'a, '_> {
    pub(super) fn as_sent(&mut self) {
        let start = self.out.len();
        self.attributes();
        if self.settings.options.attributes_mapping != AttributesMapping::Disabled {
            guard(self.out, start);
        }
        self.beside_attributes();
    }

    /// Everything without a type of its own, but attributes.
    fn beside_attributes(&mut self) {
        self.resource();
        self.payload("input", self.facts.input.as_ref());
        self.payload("output", self.facts.output.as_ref());
        let Some(detail) = self.detail else { return };
        self.list("events", &detail.events, Self::event);
        self.list("links", &detail.links, Self::link);
    }

    fn attributes(&mut self) {
        self.open("attributes");
        match self.detail {
            Some(detail) => self.otlp_attributes(detail),
            None => self.item_members(),
        }
        self.close();
    }

    fn otlp_attributes(&mut self, detail: &'a Detail) {
        let extras = [
            ("otel.span_kind", u64::try_from(detail.kind).unwrap_or_default()),
            ("otel.flags", detail.flags.into()),
            ("otel.dropped_attributes_count", detail.dropped_attributes_count.into()),
            ("otel.dropped_events_count", detail.dropped_events_count.into()),
            ("otel.dropped_links_count", detail.dropped_links_count.into()),
        ];
        for (name, number) in extras {
            if number != 0 {
                write_u64(self.key(name), number);
            }
        }
        self.long("otel.trace_state", &detail.trace_state);
        self.long("otel.status_message", &detail.status_message);
        self.join_attributes(&detail.attributes);
    }

    /// Adds attributes to the object that is open.
    fn join_attributes(&mut self, attributes: &'a [Attribute]) {
        let cut = (self.text_max != usize::MAX).then(|| self.cut_attributes(attributes));
        let sides = [self.facts.input.as_ref(), self.facts.output.as_ref()];
        let is_elsewhere =
            |attribute: &Attribute| sides.iter().any(|side| is_same_text(*side, &attribute.value));
        // What is written is an object of its own: its braces take the place of those that are open.
        let is_first = self.out.last() == Some(&b'{');
        if is_first {
            self.out.pop();
        }
        let start = self.out.len();
        write_attributes_but(self.out, cut.as_deref().unwrap_or(attributes), |attribute| {
            attribute.key.starts_with("otel.") && is_ours(&attribute.key) || is_elsewhere(attribute)
        });
        self.out.pop();
        if self.out.len() == start + 1 {
            self.out.truncate(start + usize::from(is_first));
            return;
        }
        if let Some(brace) = self.out.get_mut(start).filter(|_| !is_first) {
            *brace = b',';
        }
    }

    /// The members of an item that have no field of their own.
    fn item_members(&mut self) {
        let members = &self.subject.item.own;
        for (name, value) in members.iter() {
            match name {
                "object" | "started_at" | "ended_at" => {}
                "id" | "trace_id" | "parent_id" if value.len() <= SEARCHED_UNITS_MAX => {}
                "span_data" if !self.subject.item.data.is_empty() => {
                    self.open("span_data");
                    let data = &self.subject.item.data;
                    let written = written_elsewhere(data, self.facts);
                    for (name, value) in data.iter().filter(|(name, _)| !written.contains(name)) {
                        self.member(name, value);
                    }
                    self.close();
                }
                _ => self.member(name, value),
            }
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

    fn event(&mut self, event: &SpanEvent) {
        self.time("time", event.time_ns);
        self.text("name", &event.name);
        if !event.attributes.is_empty() {
            self.cut_object("attributes", &event.attributes);
        }
    }

    fn link(&mut self, link: &Link) {
        self.text("trace_id", &link.trace_id.to_string());
        self.text("span_id", &link.span_id.to_string());
        self.text("trace_state", &link.trace_state);
        if !link.attributes.is_empty() {
            self.cut_object("attributes", &link.attributes);
        }
    }

    fn cut_object(&mut self, name: &'static str, attributes: &[Attribute]) {
        if self.text_max == usize::MAX {
            write_attributes(self.key(name), attributes);
        } else {
            let cut = self.cut_attributes(attributes);
            write_attributes(self.key(name), &cut);
        }
    }

    fn list<T>(&mut self, name: &'static str, elements: &[T], write: impl Fn(&mut Self, &T)) {
        if elements.is_empty() {
            return;
        }
        self.key(name).push(b'[');
        for (index, element) in elements.iter().enumerate() {
            self.out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            write(self, element);
            self.out.push(b'}');
        }
        self.out.push(b']');
    }

    /// Everything that has no type of its own, as one text.
    pub(super) fn folded(&mut self) {
        let (subject, text_max) = ((self.subject, self.place), self.text_max);
        let mut inner = vec![b'{'];
        let mut document = Document::new(&mut inner, subject, self.settings, text_max);
        document
            .long("error.message", self.facts.error.as_ref().map_or("", |error| &error.message));
        document.attributes();
        document.beside_attributes();
        inner.push(b'}');
        write_str(self.key("raw_json"), &String::from_utf8_lossy(&inner));
        self.is_cut = true;
    }
}

/// Members of `span_data` that are the document's input and output, word for word.
fn written_elsewhere(data: &Members<'_>, facts: &Facts) -> &'static [&'static str] {
    match data.text("type").as_deref() {
        Some("generation" | "function") => match (&facts.input, &facts.output) {
            (Some(_), Some(_)) => &["input", "output"],
            (Some(_), None) => &["input"],
            (None, Some(_)) => &["output"],
            (None, None) => &[],
        },
        _ => &[],
    }
}

/// Whether an attribute has the name of one that we write ourselves.
fn is_ours(key: &str) -> bool {
    [
        "otel.span_kind",
        "otel.flags",
        "otel.dropped_attributes_count",
        "otel.dropped_events_count",
        "otel.dropped_links_count",
        "otel.trace_state",
        "otel.status_message",
        "otel.scope.name",
        "otel.scope.version",
        "otel.scope.attributes",
    ]
    .contains(&key)
}

/// Whether an attribute is the very text that an input or output was taken from.
pub(super) fn is_same_text(side: Option<&Payload>, value: &Value) -> bool {
    let (Some(side), Value::Text(text)) = (side, value) else { return false };
    let side = side.as_str();
    !text.is_empty() && ptr::eq(side.as_ptr(), text.as_ptr()) && side.len() == text.len()
}
