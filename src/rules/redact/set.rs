//! `set`: attributes and facts that the user sets on items. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::normalize::wire::{Content, Edit, last_bytes, rebuilt};
use crate::normalize::{Fact, Parts, parts_of, resource_of, tells, trace_facts};
use crate::rules::field::Field;
use crate::rules::reading::Reading;
use crate::span::otlp::protobuf::{self, write_bytes, write_text_attribute};
use crate::span::{self, Attribute, Item, Payload, Resource, Text, keys, plain};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::write_str;
use crate::support::options::nearest;
use crate::support::problem::Problem;

/// A fact that can be set, by its word in the configuration, and where it is written.
#[derive(Debug)]
struct SettableFact {
    word: &'static str,
    /// The span attribute from which this version and the backends read it; a name has its own field.
    key: &'static str,
    /// The fact whose other attributes on the same span must be removed.
    fact: Option<Fact>,
    /// The member of a trace object, or of its metadata, from which it is read.
    of_trace: &'static str,
}

#[rustfmt::skip]
static KNOWN: [SettableFact; 6] = [
    SettableFact { word: "session", key: keys::SESSION_ID, fact: Some(Fact::Session), of_trace: "group_id" },
    SettableFact { word: "user", key: keys::USER_ID, fact: Some(Fact::User), of_trace: "user_id" },
    SettableFact { word: "environment", key: keys::ENVIRONMENT, fact: Some(Fact::Environment), of_trace: "environment" },
    SettableFact { word: "release", key: keys::RELEASE, fact: Some(Fact::Release), of_trace: "release" },
    SettableFact { word: "tags", key: keys::TAGS, fact: Some(Fact::Tags), of_trace: "tags" },
    SettableFact { word: "name", key: "name", fact: None, of_trace: "workflow_name" },
];

/// The word for `service.name`, which belongs to the resource.
const SERVICE: &str = "service";

/// Where a value is written.
#[derive(Debug)]
struct Target {
    key: String,
    is_resource: bool,
    /// The word in the configuration.
    known: Option<&'static SettableFact>,
}

impl Target {
    fn is(&self, word: &str) -> bool {
        self.known.is_some_and(|known| known.word == word)
    }

    /// Returns whether a span attribute with this key states the same fact and must be removed.
    fn replaces(&self, key: &str) -> bool {
        match self.known {
            Some(SettableFact { word: "name", .. }) => parts_of(key).touch(Parts::NAME),
            Some(SettableFact { fact: Some(fact), .. }) if tells(key, *fact) => true,
            _ => key == self.key,
        }
    }
}

#[derive(Debug)]
enum From {
    Constant(String),
    Field(Field),
}

#[derive(Debug)]
pub(in crate::rules) struct Setting(Vec<(Target, From)>);

impl Setting {
    pub(super) fn schema() -> Value {
        let words = KNOWN.each_ref().map(|known| known.word).join(", ");
        json!({
            "description": format!("Sets {words}, {SERVICE}, or an attribute, to a constant or to `{{ from = \"attribute.KEY\" }}`."),
            "type": "object",
            "additionalProperties": { "type": ["string", "object"] },
        })
    }

    pub(super) fn read(
        table: &DeTable<'_>,
        at: &Range<usize>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let mut reading = Reading { problems };
        if table.is_empty() {
            let hint = "write `set = { environment = \"production\" }`";
            reading.report(at, "the rule sets nothing", hint);
        }
        let mut settings = Vec::new();
        for (name, value) in table {
            let (target, from) = (target(name.get_ref()), from(value));
            // A resource is shared by many spans, which may have different values.
            let is_common =
                |from: &From| matches!(from, From::Constant(_) | From::Field(Field::Resource(_)));
            let is_shared = target.as_ref().is_ok_and(|target| target.is_resource);
            let from = from.filter(|from| !is_shared || is_common(from));
            if let Err(near) = &target {
                let hint = format!("did you mean `{near}`? An attribute is `attribute.KEY`");
                reading.report(&name.span(), "not a fact that can be set", &hint);
            }
            if from.is_none() {
                let hint = "write a string, or `{ from = \"attribute.KEY\" }`, `resource.KEY` or `metadata.KEY`; for a resource one of the first two";
                reading.report(&value.span(), "not a source for a value", hint);
            }
            settings.extend(target.ok().zip(from));
        }
        (problems.len() == before).then_some(Self(settings))
    }

    /// Returns the wire with the values set; `None` if none is.
    pub(super) fn wire(&self, item: &Item) -> Option<Vec<u8>> {
        let of_item = self.0.iter().filter(|(target, _)| !target.is_resource);
        let set = of_item.filter_map(|(target, from)| {
            let value = from.value(item)?;
            Some((target, if target.is("tags") { as_list(&value) } else { value }))
        });
        let set: Vec<_> = set.collect();
        if set.is_empty() {
            return None;
        }
        match item {
            Item::Span(span) if span.is_otlp() => Some(otlp(&span.wire, &set)),
            Item::Span(span) => agents_sdk(&span.wire, &set),
            Item::Trace(trace) => trace_object(&trace.wire, &set),
        }
    }

    /// Returns the resource with its values set; `None` if it stays.
    pub(super) fn resource(&self, resource: &Resource) -> Option<Resource> {
        let mut set: Option<Resource> = None;
        for (Target { key, .. }, from) in self.0.iter().filter(|(target, _)| target.is_resource) {
            let now = set.as_ref().unwrap_or(resource);
            let value = match from {
                From::Constant(text) => Some(text.clone()),
                From::Field(Field::Resource(from)) => value_of(&now.attributes, from),
                From::Field(_) => None,
            };
            let is_new = |value: &String| value_of(&now.attributes, key).as_ref() != Some(value);
            let Some(value) = value.filter(is_new) else { continue };
            let mut wire = without(&protobuf::resource(now), |number, attribute| {
                number == 1 && key_of(attribute) == *key
            });
            write_text_attribute(&mut wire, 1, key, &value);
            set = Some(resource_of(wire.into(), now.schema_url.clone()));
        }
        set
    }
}

/// Returns the target for a word of the configuration, or the word that was probably meant.
fn target(word: &str) -> Result<Target, &'static str> {
    let known = KNOWN.iter().find(|known| known.word == word);
    let (key, is_resource) = match (known, Field::keyed(word)) {
        (Some(known), _) => (known.key.to_owned(), false),
        _ if word == SERVICE => (keys::SERVICE_NAME.to_owned(), true),
        (_, Some(Field::Resource(key))) => (key, true),
        (_, Some(Field::Attribute(key))) => (key, false),
        _ => match nearest(word, KNOWN.iter().map(|known| known.word).chain([SERVICE])) {
            Some(near) => return Err(near),
            None => (word.to_owned(), false),
        },
    };
    Ok(Target { key, is_resource, known })
}

fn from(value: &Spanned<DeValue<'_>>) -> Option<From> {
    if let Some(text) = value.get_ref().as_str() {
        return Some(From::Constant(text.to_owned()));
    }
    let table = value.get_ref().as_table().filter(|table| table.len() == 1)?;
    let from = table.get("from")?.get_ref().as_str().filter(|from| !from.is_empty())?;
    Some(From::Field(Field::keyed(from).unwrap_or_else(|| Field::Attribute(from.to_owned()))))
}

impl From {
    fn value(&self, item: &Item) -> Option<String> {
        let field = match self {
            Self::Constant(text) => return Some(text.clone()),
            Self::Field(field) => field,
        };
        match (field, item) {
            (Field::Attribute(key), Item::Span(span)) => value_of(&span.detail().attributes, key),
            (Field::Resource(key), Item::Span(span)) => {
                value_of(&span.scope.resource.attributes, key)
            }
            (Field::Metadata(key), Item::Span(span)) => metadata(&span.facts().metadata, key),
            (Field::Metadata(key), Item::Trace(trace)) => {
                metadata(&trace_facts(trace).metadata, key)
            }
            _ => None,
        }
    }
}

fn metadata(metadata: &[(Text, Payload)], key: &str) -> Option<String> {
    let found = metadata.iter().rev().find(|(name, _)| &**name == key);
    found.map(|(_, payload)| payload.as_str().to_owned())
}

fn value_of(attributes: &[Attribute], key: &str) -> Option<String> {
    Some(match Attribute::last(attributes, key)? {
        span::Value::Empty => return None,
        span::Value::Text(text) => text.to_string(),
        other => {
            let mut out = Vec::new();
            plain::write_value(&mut out, other, plain::Style::Strict);
            String::from_utf8(out).ok()?
        }
    })
}

/// Converts comma-separated tags to a JSON list; a JSON list stays as it is.
fn as_list(tags: &str) -> String {
    if Raw::parse(tags).is_some_and(Raw::is_array) {
        return tags.to_owned();
    }
    let tags: Vec<&str> = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    json!(tags).to_string()
}

fn key_of(attribute: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(last_bytes(attribute, 1))
}

/// Returns a message without some of its fields, selected by number and content.
fn without(message: &[u8], goes: impl Fn(u32, &[u8]) -> bool) -> Vec<u8> {
    let edited = rebuilt(message, |number, content| match content {
        Content::Bytes(content) if goes(number, content) => Edit::Drop,
        _ => Edit::Keep,
    });
    edited.unwrap_or_else(|| message.to_vec())
}

/// Returns an OTLP span with these attributes, and this name.
fn otlp(wire: &[u8], set: &[(&Target, String)]) -> Vec<u8> {
    let mut wire = wire.to_vec();
    for (target, value) in set {
        let is_name = target.is("name");
        wire = without(&wire, |number, content| match number {
            5 => is_name,
            9 => target.replaces(&key_of(content)),
            _ => false,
        });
        if is_name {
            write_bytes(&mut wire, 5, value.as_bytes());
        } else {
            write_text_attribute(&mut wire, 9, &target.key, value);
        }
    }
    wire
}

/// Returns an Agents SDK item with attributes in [`keys::SPANFERRY_SET`] of its metadata, where the reader finds them.
fn agents_sdk(wire: &[u8], set: &[(&Target, String)]) -> Option<Vec<u8>> {
    let item = Raw::trusted(str::from_utf8(wire).ok()?);
    let metadata = item.get("metadata");
    let before = metadata.and_then(|metadata| metadata.get(keys::SPANFERRY_SET));
    let set: Vec<_> = set.iter().map(|(target, text)| (&*target.key, quoted(text))).collect();
    Some(with_metadata(item, Vec::new(), &[(keys::SPANFERRY_SET, merged(before, &set))]))
}

/// Returns a trace object with the values set where its reader finds them.
fn trace_object(wire: &[u8], set: &[(&Target, String)]) -> Option<Vec<u8>> {
    let item = Raw::trusted(str::from_utf8(wire).ok()?);
    let (mut members, mut metadata) = (Vec::new(), Vec::new());
    for (target, text) in set {
        let value = if target.is("tags") { text.clone().into_bytes() } else { quoted(text) };
        match target.known.map(|known| known.of_trace) {
            Some(name @ ("group_id" | "workflow_name")) => members.push((name, value)),
            name => metadata.push((name.unwrap_or(&target.key), value)),
        }
    }
    Some(with_metadata(item, members, &metadata))
}

fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_str(&mut out, text);
    out
}

/// Returns an item with other members, and with additional members in its metadata.
fn with_metadata(
    item: Raw<'_>,
    mut members: Vec<(&str, Vec<u8>)>,
    metadata: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    members.push(("metadata", merged(item.get("metadata"), metadata)));
    merged(Some(item), &members)
}

/// Returns an object with other members appended; a value that is not an object counts as empty.
fn merged(old: Option<Raw<'_>>, new: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    for (name, value) in old.filter(|old| old.is_object()).into_iter().flat_map(Raw::members) {
        if new.iter().all(|(new, _)| *new != name) {
            object.member(&name).extend_from_slice(value.text().as_bytes());
        }
    }
    for (name, value) in new {
        object.member(name).extend_from_slice(value);
    }
    object.close();
    out
}
