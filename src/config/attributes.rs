//! `[attributes]`: turns the user's attribute names into a [`Mapping`]. The schema lists the facts and kinds.

use std::ops::Range;

use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::normalize::{Fact, Mapping};
use crate::span::Kind;
use crate::support::options::{check, position};
use crate::support::problem::Problem;

/// The key for kinds, next to the names of facts.
const KIND: &str = "kind";
/// Longer than any key that an instrumentation is known to write; it keeps the table of rules small.
const KEY_BYTES_MAX: usize = 256;
/// More than anyone writes by hand; every attribute of every span is looked up among them.
const KEYS_MAX: usize = 256;
/// Syntax of a kind. A key with dots that is not quoted becomes a table in a table.
const KIND_HINT: &str = r#"write `kind."acme.step" = { planner = "agent" }`, the key in quotes"#;

/// Reads the section. Invalid entries are left out of the mapping and reported as problems.
pub(super) fn read(section: Option<Spanned<DeValue<'_>>>, problems: &mut Vec<Problem>) -> Mapping {
    let mut reading = Reading { mapping: Mapping::default(), keys: 0, problems };
    let Some(section) = section else { return reading.mapping };
    let at = section.span();
    let DeValue::Table(table) = section.into_inner() else {
        let hint = "begin it with [attributes], and `session = \"acme.thread\"` in the next line";
        reading.report(&at, "`attributes` is a table of facts".to_owned(), hint);
        return reading.mapping;
    };
    let table = Spanned::new(at, table);
    reading.problems.extend(check(&table, &schema(), ""));
    for (name, value) in table.get_ref() {
        match (Fact::named(name.get_ref()), value.get_ref()) {
            (Some(fact), DeValue::Array(keys)) => {
                keys.iter().for_each(|key| reading.fact(fact, key));
            }
            (Some(fact), _) => reading.fact(fact, value),
            (None, kinds) => reading.kinds(kinds),
        }
    }
    reading.mapping
}

struct Reading<'p> {
    mapping: Mapping,
    /// Number of keys, valid or not.
    keys: usize,
    problems: &'p mut Vec<Problem>,
}

impl Reading<'_> {
    fn report(&mut self, at: &Range<usize>, what: String, hint: &str) {
        self.problems.push(Problem::new(Some(position(at)), what, hint));
    }

    /// Reads one of the keys for a fact.
    fn fact(&mut self, fact: Fact, key: &Spanned<DeValue<'_>>) {
        let at = key.span();
        let Some(key) = key.get_ref().as_str() else { return };
        if !self.is_good(key, &at) {
            return;
        }
        let keys = self.mapping.facts.entry(fact).or_default();
        if keys.iter().any(|known| known == key) {
            let what = format!("`{key}` is listed twice for `{}`", fact.as_str());
            self.report(&at, what, "remove one; the first in the list has precedence");
        } else {
            keys.push(key.to_owned());
        }
    }

    /// Reads attributes whose values name kinds. Entries that violate the schema are skipped.
    fn kinds(&mut self, kinds: &DeValue<'_>) {
        for (key, words) in kinds.as_table().into_iter().flatten() {
            if !self.is_good(key.get_ref(), &key.span()) {
                continue;
            }
            let words = words.get_ref().as_table().into_iter().flatten();
            let words: Vec<_> = words
                .filter_map(|(word, kind)| {
                    let kind = Kind::named(kind.get_ref().as_str()?)?;
                    Some((word.get_ref().clone().into_owned(), kind))
                })
                .collect();
            if !words.is_empty() {
                let key = key.get_ref().clone().into_owned();
                self.mapping.kinds.entry(key).or_default().extend(words);
            }
        }
    }

    /// Counts a key and reports what is wrong with it.
    fn is_good(&mut self, key: &str, at: &Range<usize>) -> bool {
        self.keys += 1;
        let (what, hint) = if key.is_empty() {
            ("an attribute key cannot be empty".to_owned(), "leave it out")
        } else if key.len() > KEY_BYTES_MAX {
            (format!("a key has at most {KEY_BYTES_MAX} bytes"), "is this the attribute's value?")
        } else if self.keys == KEYS_MAX + 1 {
            (
                format!("more than {KEYS_MAX} keys in total"),
                "remove those that the built-in tables read already",
            )
        } else {
            return self.keys <= KEYS_MAX;
        };
        self.report(at, what, hint);
        false
    }
}

/// Returns the section's schema: every fact, and the kinds.
pub(super) fn schema() -> Value {
    let key = json!({ "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX });
    let fact = |fact: &Fact| {
        let property = json!({
            "description": fact.sentence(),
            "type": ["string", "array"],
            "minLength": 1,
            "maxLength": KEY_BYTES_MAX,
            "items": key,
            "uniqueItems": true,
            "examples": [[format!("acme.{}", fact.as_str())]],
        });
        (fact.as_str().to_owned(), property)
    };
    let mut facts: Map<String, Value> = Fact::ALL.iter().map(fact).collect();
    let kind = json!({
        "description": "The kind of a span, by the values of attributes.",
        "type": "object",
        "$comment": KIND_HINT,
        "propertyNames": key,
        "additionalProperties": {
            "type": "object",
            "$comment": KIND_HINT,
            "additionalProperties": { "enum": Kind::ALL.map(Kind::as_str), "$comment": KIND_HINT },
        },
        "examples": [{ "acme.step": { "planner": "agent", "answer": "generation" } }],
    });
    facts.insert(KIND.to_owned(), kind);
    json!({
        "description": "Your own attributes: for each fact, the keys that hold it, in order of preference. They take precedence over \
            everything built in. Spans received earlier are read with them when they are replayed.",
        "default": null,
        "type": "object",
        "properties": facts,
        "additionalProperties": false,
    })
}
