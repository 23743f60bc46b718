//! A sink in parts: one table that stands for several sinks, each for some values of a field that tells whose a span is.
//!
//! ```toml
//! [sinks.search]
//! type = "elasticsearch"
//! index_prefix = "agents-{tenant}"
//! by = "tenant"
//! [sinks.search.parts.checkout]
//! [sinks.search.parts.support]
//! values = ["support-eu", "support-us"]
//! ```
//!
//! stands for `[sinks.search-checkout]` with `only = { tenant = ["checkout"] }` and the index prefix `agents-checkout`, and for
//! `[sinks.search-support]`. The table is divided before any sink is read, so the rest of the code sees ordinary sinks. Each has its own
//! cursor, breaker and dead letters, so a slow or misconfigured one delays no other.
//!
//! The values are a closed set, because clients must not be able to create names of indexes and files, or choose credentials.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::layers::{Layers, Whole, merge};
use crate::rules::{EXCEPT, ONLY};
use crate::support::options::{REFERENCED, Value, each_text, nearest, position};
use crate::support::problem::Problem;

const BY: &str = "by";
const PARTS: &str = "parts";
/// Key of a part: the values it is for, if they differ from its name.
const VALUES: &str = "values";
/// Key of a part: it is for all values that no other part lists.
const REST: &str = "rest";

/// Fields without a key, and fields with one. They are usually the same on all spans of a trace.
const FACTS: [&str; 2] = ["tenant", "service"];
const KEYED: [&str; 3] = ["attribute", "resource", "metadata"];

/// Replaces each sink that has parts with one sink per part.
pub(super) fn divide(layers: &mut Layers<'_>) {
    let Some(DeValue::Table(sinks)) = layers.root.get_mut("sinks").map(Spanned::get_mut) else {
        return;
    };
    let (mut divide, mut made) = (Divide::default(), DeTable::new());
    for (name, value) in std::mem::take(sinks) {
        let at = value.span();
        match value.into_inner() {
            DeValue::Table(table) if table.contains_key(BY) || table.contains_key(PARTS) => {
                for (name, part) in divide.sink(name.get_ref(), table) {
                    divide.add(&mut made, name, part);
                }
            }
            other => divide.add(&mut made, name, Spanned::new(at, other)),
        }
    }
    made.iter_mut().for_each(|(_, sink)| divide.find_places(sink));
    *sinks = made;
    let Divide { problems, wholes, places } = divide;
    layers.problems.extend(problems);
    layers.wholes = wholes;
    for (at, word) in places {
        let at = layers.find_inside(&at, &word);
        layers.broken.push(at.clone());
        let what = format!("`{word}` has an open set of values here");
        let hint = format!(
            "list them: `by = ...` in the sink, and a table [sinks.NAME.{PARTS}.VALUE] for each"
        );
        layers.problems.push(Problem::new(Some(at), what, hint));
    }
}

#[derive(Default)]
struct Divide {
    problems: Vec<Problem>,
    wholes: Vec<Whole>,
    /// Placeholders that nothing fills.
    places: Vec<(Range<usize>, String)>,
}

struct Field<'s> {
    /// One of `FACTS` or `KEYED`.
    word: &'static str,
    key: Option<DeString<'s>>,
}

struct Part<'s> {
    name: Spanned<DeString<'s>>,
    at: Range<usize>,
    options: DeTable<'s>,
    values: Vec<Value<'s>>,
    has_rest: bool,
}

impl Divide {
    fn report(&mut self, at: &Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(Some(position(at)), what, hint));
    }

    fn add<'s>(&mut self, made: &mut DeTable<'s>, name: Spanned<DeString<'s>>, sink: Value<'s>) {
        if made.contains_key(name.get_ref().as_ref()) {
            let what = format!("there are two sinks named `{}`", name.get_ref());
            let hint = "a part's sink is named after the sink and the part: rename one of them";
            return self.report(&name.span(), what, hint);
        }
        made.insert(name, sink);
    }

    /// Returns the sinks that the parts of a sink stand for.
    fn sink<'s>(
        &mut self,
        whole: &str,
        mut template: DeTable<'s>,
    ) -> Vec<(Spanned<DeString<'s>>, Value<'s>)> {
        let (by, parts) = (template.remove_entry(BY), template.remove_entry(PARTS));
        for option in [ONLY, EXCEPT] {
            if let Some((key, _)) = template.remove_entry(option) {
                let what = format!("a sink with parts cannot have `{option}` itself");
                self.report(&key.span(), what, "set it in its parts");
            }
        }
        let (by, parts) = match (by, parts) {
            (Some((_, by)), Some((_, parts))) => (by, parts),
            (Some((key, _)), _) => {
                let hint = format!("add a table [sinks.{whole}.{PARTS}.VALUE] for each value");
                self.report(&key.span(), "the sink has `by` but no parts", hint);
                return Vec::new();
            }
            (_, Some((key, _))) => {
                let hint = "add `by = \"tenant\"` or `by = { attribute = \"team\" }` to the sink";
                self.report(&key.span(), "the sink has parts but no `by`", hint);
                return Vec::new();
            }
            (None, None) => return Vec::new(),
        };
        let field = self.field(&by);
        let (at, parts) = (parts.span(), parts.into_inner());
        let DeValue::Table(parts) = parts else {
            let hint = format!("write one as [sinks.{whole}.{PARTS}.VALUE]");
            self.report(&at, "the parts of a sink are tables", hint);
            return Vec::new();
        };
        let parts: Vec<_> =
            parts.into_iter().filter_map(|(name, part)| self.part(name, part)).collect();
        self.check(&parts);
        let Some(field) = field else { return Vec::new() };
        let all: Vec<_> = parts.iter().flat_map(|part| part.values.iter().cloned()).collect();
        let has_rest = parts.iter().any(|part| part.has_rest);
        let text = |value: &Value<'_>| value.get_ref().as_str().map(str::to_owned);
        let is_closed = field.word == "tenant" && !has_rest;
        let names = parts.iter().map(|part| format!("{whole}-{}", part.name.get_ref()));
        self.wholes.push(Whole {
            name: whole.to_owned(),
            tenants: is_closed.then(|| all.iter().filter_map(text).collect()),
            parts: names.collect(),
        });
        parts.into_iter().map(|part| part.over(whole, &template, &field, &all)).collect()
    }

    fn field<'s>(&mut self, by: &Value<'s>) -> Option<Field<'s>> {
        let (said, key) = match by.get_ref() {
            DeValue::String(text) => (text.as_ref(), None),
            DeValue::Table(table) if table.len() == 1 => {
                let said = table.iter().next().and_then(|(word, key)| match key.get_ref() {
                    DeValue::String(key) => Some((word.get_ref().as_ref(), Some(key.clone()))),
                    _ => None,
                });
                said.unwrap_or_default()
            }
            _ => ("", None),
        };
        let words = if key.is_some() { &KEYED[..] } else { &FACTS };
        if let Some(&word) = words.iter().find(|word| **word == said) {
            return Some(Field { word, key });
        }
        let near = nearest(said, FACTS.into_iter().chain(KEYED));
        let near = near.map(|near| format!("did you mean `{near}`? "));
        let hint = "write `by = \"tenant\"`, `\"service\"`, or `{ attribute = \"team\" }`, `{ resource = \"...\" }`, `{ metadata = \"...\" }`";
        let hint = format!("{}{hint}", near.unwrap_or_default());
        self.report(&by.span(), "a sink cannot be divided by this", hint);
        None
    }

    fn part<'s>(&mut self, name: Spanned<DeString<'s>>, part: Value<'s>) -> Option<Part<'s>> {
        let at = part.span();
        let DeValue::Table(mut options) = part.into_inner() else {
            let hint = "write `{ }` for one without options";
            self.report(&at, "a part of a sink must be a table", hint);
            return None;
        };
        for option in [ONLY, EXCEPT, BY, PARTS] {
            if let Some((key, _)) = options.remove_entry(option) {
                let what = format!("a part of a sink has no `{option}`");
                self.report(&key.span(), what, "say which values it is for with `values`");
            }
        }
        let (values, rest) = (options.remove(VALUES), options.remove(REST));
        let has_rest = rest.as_ref().is_some_and(|rest| rest.get_ref().as_bool() == Some(true));
        let is_list = |values: &Value<'_>| {
            values.get_ref().as_array().is_some_and(|values| !values.is_empty())
        };
        let wrong = match (&values, &rest) {
            (_, Some(rest)) if !rest.get_ref().is_bool() => {
                let hint = "the part with `rest = true` gets what no other part takes";
                Some((rest.span(), "expected true or false", hint))
            }
            (Some(values), _) if has_rest => {
                let what = "a part with `rest = true` cannot list values";
                Some((values.span(), what, "leave them out"))
            }
            (Some(values), _) if !is_list(values) => {
                let hint = "write `values = [\"checkout\"]`";
                Some((values.span(), "expected a list of values", hint))
            }
            _ => None,
        };
        if let Some((at, what, hint)) = wrong {
            self.report(&at, what, hint);
            return None;
        }
        let values = match values.map(Spanned::into_inner) {
            Some(DeValue::Array(values)) => values.into_iter().collect(),
            _ if has_rest => Vec::new(),
            _ => vec![Spanned::new(name.span(), DeValue::String(name.get_ref().clone()))],
        };
        Some(Part { name, at, options, values, has_rest })
    }

    /// Checks the values of all parts together.
    fn check(&mut self, parts: &[Part<'_>]) {
        let mut seen = BTreeSet::new();
        for value in parts.iter().flat_map(|part| &part.values) {
            let (what, hint) = match value.get_ref().as_str() {
                None => ("a value must be a string", "put it in quotes"),
                Some("") => (
                    "an empty string is not allowed here",
                    "a part with `rest = true` gets spans without a value",
                ),
                Some(text) if text.contains(['*', '?']) || text.starts_with(['<', '>', '=']) => {
                    ("this has an open set of values", "list each of them")
                }
                Some(text) if !seen.insert(text) => {
                    ("two parts of the sink have this value", "remove it from one")
                }
                Some(_) => continue,
            };
            self.report(&value.span(), what, hint);
        }
        for second in parts.iter().filter(|part| part.has_rest).skip(1) {
            let hint = "only one part can have it";
            self.report(&second.name.span(), "a second part has `rest = true`", hint);
        }
    }

    /// Finds placeholders that nothing filled.
    fn find_places(&mut self, sink: &mut Value<'_>) {
        each_text_to_fill(sink, &mut |value| {
            let text = value.get_ref().as_str().unwrap_or_default();
            let places = FACTS.iter().chain(&KEYED).map(|word| place(word));
            let found = places.filter(|place| text.contains(place.as_str()));
            self.places.extend(found.map(|place| (position(&value.span()), place)));
        });
    }
}

/// Visits every string of a sink that can contain placeholders. Rules have their own syntax, and references supply values, not structure.
fn each_text_to_fill<'s>(sink: &mut Value<'s>, visit: &mut impl FnMut(&mut Value<'s>)) {
    let DeValue::Table(options) = sink.get_mut() else { return };
    let of_rules = ["rules", ONLY, EXCEPT];
    for (_, value) in options.iter_mut().filter(|(key, _)| !of_rules.contains(&&**key.get_ref())) {
        each_text(value, &mut |value| {
            if value.span().start & REFERENCED == 0 {
                visit(value);
            }
        });
    }
}

/// Returns the placeholder for a part's name.
fn place(word: &str) -> String {
    format!("{{{word}}}")
}

impl<'s> Part<'s> {
    /// Builds the part's sink: its own options take precedence over those of the divided sink.
    fn over(
        self,
        whole: &str,
        template: &DeTable<'s>,
        field: &Field<'s>,
        all: &[Value<'s>],
    ) -> (Spanned<DeString<'s>>, Value<'s>) {
        let mut options = template.clone();
        merge(&mut options, self.options);
        let (option, values) = if self.has_rest { (EXCEPT, all) } else { (ONLY, &self.values[..]) };
        // A part for the rest of no values gets everything, so it needs no condition.
        if !values.is_empty() {
            let at = self.name.span();
            let table = |key: DeString<'s>, value| {
                let mut table = DeTable::new();
                table.insert(Spanned::new(at.clone(), key), Spanned::new(at.clone(), value));
                DeValue::Table(table)
            };
            let mut is = DeValue::Array(values.iter().cloned().collect::<DeArray<'s>>());
            if let Some(key) = &field.key {
                is = table(key.clone(), is);
            }
            let is = table(field.word.into(), is);
            options.insert(Spanned::new(at.clone(), option.into()), Spanned::new(at.clone(), is));
        }
        let (part, place) = (self.name.get_ref(), place(field.word));
        let mut sink = Spanned::new(self.at, DeValue::Table(options));
        each_text_to_fill(&mut sink, &mut |value| {
            if let DeValue::String(text) = value.get_mut() {
                *text = text.replace(&place, part).into();
            }
        });
        (Spanned::new(self.name.span(), format!("{whole}-{part}").into()), sink)
    }
}

/// Returns the schema of a sink in parts. The schema of its type describes its other options.
pub(super) fn schema(kinds: &[&str]) -> Json {
    json!({
        "title": "a sink in parts",
        "description": "A sink that is divided into several, one for each of its parts.",
        "type": "object",
        "required": ["type", BY, PARTS],
        "properties": {
            "type": { "enum": kinds },
            BY: {
                "description": "What says which part a span is for: `\"tenant\"`, `\"service\"`, or `{ attribute = \"team\" }`.",
            },
            PARTS: {
                "description": "For each part the options in which it differs, the `values` it is for where that is not its name, or \
                    `rest = true`.",
                "type": "object",
                "additionalProperties": { "type": "object" },
            },
        },
    })
}
