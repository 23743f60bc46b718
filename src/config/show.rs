//! The effective configuration, value by value, each with its origin. Credentials are hidden.
//!
//! Values that a sink derives from its options are shown too ([`Plan::expanded`](crate::sinks::Plan::expanded)): the address with
//! `/v1/traces` added, the headers of a preset.

use serde::Deserialize as _;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::DEFAULT_ORIGIN;
use super::layers::Layers;
use super::schema::{sections_schema, sink_schema};
use super::sections::SinkConfig;
use crate::sinks::KINDS;
use crate::sinks::http::Address;
use crate::support::options::{each_text, position, properties, without_null};
use crate::support::secret::REDACTED;

/// An effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its table: `journal`, `sinks.archive.batch`; empty for the top level of the file.
    pub table: String,
    /// Its key.
    pub key: String,
    /// The value as TOML, or [`REDACTED`] in quotes.
    pub value: String,
    /// `spanferry.toml:4`, an environment variable, a flag, `default`, or `in effect`.
    pub origin: String,
}

/// Origin of values that a sink derives from its options and preset.
const IN_EFFECT: &str = "in effect";

/// Which parts of a value are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hiding {
    /// Nothing: the value is compared, not shown.
    Nothing,
    /// Credentials in addresses, and below keys that mark credentials.
    Credentials,
}

/// Returns all effective values, in the order of the sections.
pub(super) fn shown(layers: &Layers<'_>, plans: &[SinkConfig], hiding: Hiding) -> Vec<Shown> {
    let mut show = Show { layers, found: Vec::new(), hiding };
    let root = DeValue::Table(layers.root.clone());
    show.table(&mut Vec::new(), &sections_schema(), Some(&root));
    for (name, sink) in layers.entries(&["sinks"]) {
        let said = sink.get_ref().get("type").and_then(|kind| kind.get_ref().as_str());
        let kind = KINDS.iter().find(|kind| Some(kind.name) == said);
        let mut path = vec!["sinks".to_owned(), name.get_ref().clone().into_owned()];
        let schema = kind.map(|kind| sink_schema(kind)).unwrap_or_default();
        let from = show.found.len();
        show.table(&mut path, &schema, Some(sink.get_ref()));
        let plan = plans.iter().find(|plan| plan.name == *name.get_ref());
        if let Some(expanded) = plan.map(|plan| plan.plan.expanded()) {
            show.expand(from, &path.join("."), &expanded);
        }
    }
    show.found
}

struct Show<'a> {
    layers: &'a Layers<'a>,
    found: Vec<Shown>,
    hiding: Hiding,
}

impl Show<'_> {
    fn table(&mut self, path: &mut Vec<String>, schema: &Value, table: Option<&DeValue<'_>>) {
        let mut inner = Vec::new();
        for (key, property) in properties(schema) {
            let value = table.and_then(|table| table.get(key.as_str()));
            let property_inside = without_null(property);
            let is_table = property_inside.get("properties").is_some();
            let default = property.get("default").filter(|default| !default.is_null());
            match value {
                _ if is_table && (value.is_some() || default.is_some()) => {
                    inner.push((key, property_inside, value));
                }
                Some(value) => {
                    let (value, origin) = self.said(property, value);
                    self.push(path, key, value, origin);
                }
                None => {
                    if let Some(value) = default {
                        self.push(path, key, value.to_string(), DEFAULT_ORIGIN.to_owned());
                    }
                }
            }
        }
        for (key, property, value) in inner {
            path.push(key.clone());
            self.table(path, property, value.map(Spanned::get_ref));
            path.pop();
        }
    }

    fn push(&mut self, path: &[String], key: &str, value: String, origin: String) {
        self.found.push(Shown { table: path.join("."), key: key.to_owned(), value, origin });
    }

    /// Returns a configured value with its origin.
    fn said(&self, property: &Value, value: &Spanned<DeValue<'_>>) -> (String, String) {
        let (mut value, origin) = (value.clone(), self.layers.origin(&value.span()));
        let is_secret = property.get("writeOnly").is_some_and(|only| only == true);
        each_text(&mut value, &mut |text| self.hide(text, is_secret));
        let read = toml::Value::deserialize(ValueDeserializer::from(value));
        (read.map(|value| value.to_string()).unwrap_or_default(), origin)
    }

    /// Hides a string's credentials: all of it, or those in an address.
    fn hide(&self, value: &mut Spanned<DeValue<'_>>, is_secret: bool) {
        let at = position(&value.span());
        let is_secret = is_secret || self.layers.secrets.contains(&(at.start, at.end));
        match value.get_mut() {
            DeValue::String(_) if self.hiding == Hiding::Nothing => {}
            DeValue::String(text) if is_secret => *text = REDACTED.into(),
            // The query of an address may contain a key.
            DeValue::String(text) if text.contains("://") => {
                *text = Address::from(text.to_string()).to_string().into();
            }
            _ => {}
        }
    }

    /// Adds the values that a sink derived from its options to those in `found[from..]`. Configured values stay as written, except for
    /// tables such as headers, which are shown with what was added.
    fn expand(&mut self, from: usize, path: &str, expanded: &toml::Table) {
        let mut end = self.found.iter().skip(from).take_while(|shown| shown.table == path).count();
        for (key, value) in expanded {
            let is_empty = value.as_table().is_some_and(toml::Table::is_empty);
            let inner = format!("{path}.{key}");
            if is_empty || self.found.iter().skip(from).any(|shown| shown.table == inner) {
                continue;
            }
            let text = value.to_string();
            let here = self.found.iter_mut().skip(from).take(end);
            match here.into_iter().find(|shown| shown.key == *key) {
                Some(shown) if is_same(&shown.value, value) => {}
                Some(shown) if shown.origin == DEFAULT_ORIGIN => {
                    shown.value = text;
                    IN_EFFECT.clone_into(&mut shown.origin);
                }
                Some(shown) if value.is_table() => {
                    shown.value = text;
                    shown.origin = format!("{}, {IN_EFFECT}", shown.origin);
                }
                Some(_) => {}
                None => {
                    let (table, key, origin) = (path.to_owned(), key.clone(), IN_EFFECT.to_owned());
                    self.found.insert(from + end, Shown { table, key, value: text, origin });
                    end += 1;
                }
            }
        }
    }
}

/// Returns whether a shown value equals this one, in any order.
fn is_same(shown: &str, value: &toml::Value) -> bool {
    parsed(shown).as_ref() == Some(value)
}

/// Parses a value as it is shown.
pub(super) fn parsed(shown: &str) -> Option<toml::Value> {
    let table = format!("value = {shown}").parse::<toml::Table>();
    table.ok()?.remove("value")
}
