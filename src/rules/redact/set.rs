//! `set`: attributes and facts that the user gives items. Pure.

use std::ops::Range;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::normalize::wire::{Content, Edit, last_bytes, rebuilt};
use crate::normalize::{Fact, Parts, parts_of, resource_of, tells};
use crate::span::otlp::protobuf::{self, write_bytes, write_text_attribute};
use crate::span::{self, Attribute, Item, Payload, Resource, Scope, Span, Text, keys, plain};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;
use crate::support::json::write_str;
use crate::support::options::{nearest, position};
use crate::support::problem::Problem;

/// What is set, by the word of the configuration, and where it goes.
#[derive(Debug, Clone, Copy)]
struct Known {
    word: &'static str,
    /// The attribute of a span that this version and the backends read it from.
    key: &'static str,
    /// What else tells it and must not, on the same span.
    fact: Option<Fact>,
    /// The member of a trace object, or of its metadata, that the reader finds it in.
    of_trace: &'static str,
}

const fn known(
    word: &'static str,
    key: &'static str,
    fact: Option<Fact>,
    of_trace: &'static str,
) -> Known {
    Known { word, key, fact, of_trace }
}

const KNOWN: [Known; 6] = [
    known("session", keys::SESSION_ID, Some(Fact::Session), "group_id"),
    known("user", keys::USER_ID, Some(Fact::User), "user_id"),
    known("environment", keys::ENVIRONMENT, Some(Fact::Environment), "environment"),
    known("release", keys::RELEASE, Some(Fact::Release), "release"),
    known("tags", keys::TAGS, Some(Fact::Tags), "tags"),
    known("name", "", None, "workflow_name"),
];

/// The word for `service.name`, which is the resource's.
const SERVICE: &str = "service";

/// Where a value goes.
#[derive(Debug)]
enum Target {
    Known(Known),
    Attribute(String),
    Resource(String),
}

/// Where a value comes from.
#[derive(Debug)]
enum From {
    Constant(String),
    Attribute(String),
    Resource(String),
    Metadata(String),
}

/// Sets attributes and facts.
#[derive(Debug)]
pub(in crate::rules) struct Setting(Vec<(Target, From)>);

impl Setting {
    /// The schema of `set`.
    pub(super) fn schema() -> Value {
        let words = KNOWN.map(|known| known.word).join(", ");
        json!({
            "description": format!("Sets {words}, {SERVICE}, or an attribute, to a constant or to `{{ from = \"attribute.KEY\" }}`."),
            "type": "object",
            "additionalProperties": { "type": ["string", "object"] },
        })
    }

    /// Reads the value of `set`.
    pub(super) fn read(
        table: &DeTable<'_>,
        at: &Range<usize>,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let mut report = |at: &Range<usize>, what: &str, hint: String| {
            problems.push(Problem {
                at: Some(position(at)),
                what: what.to_owned(),
                hint: Some(hint),
            });
        };
        if table.is_empty() {
            report(
                at,
                "the rule sets nothing",
                "write `set = { environment = \"production\" }`".to_owned(),
            );
        }
        let mut settings = Vec::new();
        for (name, value) in table {
            let target = target(name.get_ref());
            if let Err(near) = &target {
                let hint =
                    format!("did you mean `{near}`? An attribute is written `attribute.KEY`");
                report(&name.span(), "no fact that can be set", hint);
            }
            match (target, from(value)) {
                (Ok(target), Some(from)) => settings.push((target, from)),
                (Err(_), Some(_)) => (),
                (_, None) => {
                    let hint = "write a text, or `{ from = \"attribute.KEY\" }`, `resource.KEY` or `metadata.KEY`";
                    report(&value.span(), "nothing that a value can come from", hint.to_owned());
                }
            }
        }
        (problems.len() == before).then_some(Self(settings))
    }

    /// The wire with what is set; `None` where nothing is.
    pub(super) fn wire(&self, item: &Item) -> Option<Vec<u8>> {
        match item {
            Item::Span(span) if span.is_otlp() => self.otlp(span),
            Item::Span(span) => {
                let set: Vec<_> = self
                    .values(item)
                    .map(|(target, value)| (attribute_key(target), value))
                    .collect();
                native(&span.wire, &set)
            }
            Item::Trace(trace) => trace_object(&trace.wire, &self.values(item).collect::<Vec<_>>()),
        }
    }

    /// The scope with what is set of its resource.
    pub(super) fn scope(&self, scope: &Scope) -> Option<Scope> {
        let mut resource: Option<Resource> = None;
        for (target, from) in &self.0 {
            let Target::Resource(key) = target else { continue };
            let now = resource.as_ref().unwrap_or(&scope.resource);
            let value = match from {
                From::Constant(text) => Some(text.clone()),
                From::Resource(from) => value_of(&now.attributes, from),
                From::Attribute(_) | From::Metadata(_) => None,
            };
            let Some(value) =
                value.filter(|value| value_of(&now.attributes, key).as_ref() != Some(value))
            else {
                continue;
            };
            let wire = protobuf::resource(now).into_owned();
            let mut wire = rebuilt(&wire, |number, content| match content {
                Content::Bytes(attribute) if number == 1 && is_key(attribute, |one| one == key) => {
                    Edit::Drop
                }
                _ => Edit::Keep,
            })
            .unwrap_or(wire);
            write_text_attribute(&mut wire, 1, key, &value);
            resource = Some(resource_of(wire.into(), now.schema_url.clone()));
        }
        Some(Scope { resource: resource?.into(), ..scope.clone() })
    }

    /// What is set on an item itself, and to what.
    fn values<'s>(&'s self, item: &'s Item) -> impl Iterator<Item = (&'s Target, String)> + 's {
        let of_item = self.0.iter().filter(|(target, _)| !matches!(target, Target::Resource(_)));
        of_item.filter_map(move |(target, from)| {
            let value = from.value(item)?;
            let are_tags = matches!(target, Target::Known(Known { word: "tags", .. }));
            Some((target, if are_tags { as_list(&value) } else { value }))
        })
    }

    fn otlp(&self, span: &Span) -> Option<Vec<u8>> {
        let item = Item::Span(span.clone());
        let mut wire: Option<Vec<u8>> = None;
        for (target, value) in self.values(&item) {
            let now = wire.as_deref().unwrap_or(&span.wire);
            let key = attribute_key(target);
            let gives_way = |other: &str| match target {
                Target::Known(Known { word: "name", .. }) => parts_of(other).touch(Parts::NAME),
                Target::Known(Known { fact: Some(fact), .. }) => {
                    other == key || tells(other, *fact)
                }
                _ => other == key,
            };
            let is_name = matches!(target, Target::Known(Known { word: "name", .. }));
            let edited = rebuilt(now, |number, content| match content {
                Content::Bytes(attribute) if number == 9 && is_key(attribute, gives_way) => {
                    Edit::Drop
                }
                Content::Bytes(_) if number == 5 && is_name => Edit::Drop,
                _ => Edit::Keep,
            });
            let mut edited = edited.unwrap_or_else(|| now.to_vec());
            match target {
                _ if is_name => write_bytes(&mut edited, 5, value.as_bytes()),
                _ => write_text_attribute(&mut edited, 9, key, &value),
            }
            wire = Some(edited);
        }
        wire
    }
}

/// The attribute that a target is written to; a name has none.
fn attribute_key(target: &Target) -> &str {
    match target {
        Target::Known(Known { word: "name", .. }) => "name",
        Target::Known(known) => known.key,
        Target::Attribute(key) | Target::Resource(key) => key,
    }
}

/// What a word of the configuration stands for, or the word that it is nearly.
fn target(word: &str) -> Result<Target, &'static str> {
    if let Some(known) = KNOWN.iter().find(|known| known.word == word) {
        return Ok(Target::Known(*known));
    }
    if word == SERVICE {
        return Ok(Target::Resource(keys::SERVICE_NAME.to_owned()));
    }
    if let Some(key) = word.strip_prefix("resource.") {
        return Ok(Target::Resource(key.to_owned()));
    }
    if let Some(key) = word.strip_prefix("attribute.") {
        return Ok(Target::Attribute(key.to_owned()));
    }
    let words = KNOWN.iter().map(|known| known.word).chain([SERVICE]);
    match nearest(word, words) {
        Some(near) => Err(near),
        None => Ok(Target::Attribute(word.to_owned())),
    }
}

fn from(value: &Spanned<DeValue<'_>>) -> Option<From> {
    if let Some(text) = value.get_ref().as_str() {
        return Some(From::Constant(text.to_owned()));
    }
    let table = value.get_ref().as_table().filter(|table| table.len() == 1)?;
    let from = table.get("from")?.get_ref().as_str().filter(|from| !from.is_empty())?;
    Some(match from.split_once('.') {
        Some(("resource", key)) => From::Resource(key.to_owned()),
        Some(("metadata", key)) => From::Metadata(key.to_owned()),
        Some(("attribute", key)) => From::Attribute(key.to_owned()),
        _ => From::Attribute(from.to_owned()),
    })
}

impl From {
    fn value(&self, item: &Item) -> Option<String> {
        match (self, item) {
            (Self::Constant(text), _) => Some(text.clone()),
            (Self::Attribute(key), Item::Span(span)) => value_of(&span.detail().attributes, key),
            (Self::Resource(key), Item::Span(span)) => {
                value_of(&span.scope.resource.attributes, key)
            }
            (Self::Metadata(key), Item::Span(span)) => metadata(&span.facts().metadata, key),
            (Self::Metadata(key), Item::Trace(trace)) => {
                metadata(&crate::normalize::trace_facts(trace).metadata, key)
            }
            (Self::Attribute(_) | Self::Resource(_), Item::Trace(_)) => None,
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
            let style =
                plain::Style { numbers: plain::Numbers::Finite, repeated: plain::Repeated::Last };
            plain::write_value(&mut out, other, style);
            String::from_utf8(out).ok()?
        }
    })
}

/// Tags between commas as a JSON list; one that is a list already stays.
fn as_list(tags: &str) -> String {
    if Raw::parse(tags).is_some_and(Raw::is_array) {
        return tags.to_owned();
    }
    let tags: Vec<&str> = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    json!(tags).to_string()
}

/// Whether an attribute's key is one of these.
fn is_key(attribute: &[u8], is_wanted: impl Fn(&str) -> bool) -> bool {
    is_wanted(&String::from_utf8_lossy(last_bytes(attribute, 1)))
}

/// An item of the Agents SDK with attributes in [`keys::SPANFERRY_SET`] of its metadata, where the reader finds them.
fn native(wire: &[u8], set: &[(&str, String)]) -> Option<Vec<u8>> {
    if set.is_empty() {
        return None;
    }
    let item = Raw::trusted(str::from_utf8(wire).ok()?);
    let metadata = item.get("metadata");
    let before = metadata.and_then(|metadata| metadata.get(keys::SPANFERRY_SET));
    let mut value = Vec::new();
    let mut object = Object::open(&mut value);
    for (key, raw) in before.into_iter().flat_map(Raw::members) {
        if set.iter().all(|(other, _)| *other != key) {
            object.member(&key).extend_from_slice(raw.text().as_bytes());
        }
    }
    for (key, text) in set {
        write_str(object.member(key), text);
    }
    object.close();
    Some(with_metadata(item, &[], &[(keys::SPANFERRY_SET, value)]))
}

/// A trace object with what is set, where its reader finds it.
fn trace_object(wire: &[u8], set: &[(&Target, String)]) -> Option<Vec<u8>> {
    if set.is_empty() {
        return None;
    }
    let item = Raw::trusted(str::from_utf8(wire).ok()?);
    let (mut members, mut metadata) = (Vec::new(), Vec::new());
    for (target, text) in set {
        let mut value = Vec::new();
        match target {
            Target::Known(Known { word: "tags", .. }) => value.extend_from_slice(text.as_bytes()),
            _ => write_str(&mut value, text),
        }
        match target {
            Target::Known(Known { of_trace: name @ ("group_id" | "workflow_name"), .. }) => {
                members.push((*name, value));
            }
            Target::Known(known) => metadata.push((known.of_trace, value)),
            Target::Attribute(key) | Target::Resource(key) => metadata.push((key.as_str(), value)),
        }
    }
    Some(with_metadata(item, &members, &metadata))
}

/// An item with other members, and with more members in its metadata.
fn with_metadata(
    item: Raw<'_>,
    members: &[(&str, Vec<u8>)],
    metadata: &[(&str, Vec<u8>)],
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = Object::open(&mut out);
    let is_new = |name: &str| members.iter().any(|(new, _)| *new == name);
    for (name, value) in item.members() {
        if &*name != "metadata" && !is_new(&name) {
            object.member(&name).extend_from_slice(value.text().as_bytes());
        }
    }
    for (name, value) in members {
        object.member(name).extend_from_slice(value);
    }
    let old = item.get("metadata").filter(|old| old.is_object());
    let mut inner = Vec::new();
    let mut written = Object::open(&mut inner);
    for (name, value) in old.into_iter().flat_map(Raw::members) {
        if metadata.iter().all(|(new, _)| *new != name) {
            written.member(&name).extend_from_slice(value.text().as_bytes());
        }
    }
    for (name, value) in metadata {
        written.member(name).extend_from_slice(value);
    }
    written.close();
    object.member("metadata").extend_from_slice(&inner);
    object.close();
    out
}
