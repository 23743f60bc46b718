//! `[attributes]`: what the user says of attributes, on the way to a [`Mapping`]. Facts and kinds are known by name here, so a mistake is
//! answered with all that there are.

use std::ops::Range;

use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::normalize::{Fact, Mapping};
use crate::span::Kind;
use crate::support::options::{nearest, position};
use crate::support::problem::Problem;

/// The key of the kinds, among the names of facts.
const KIND: &str = "kind";
/// Longer than any key that an instrumentation is known to write; it keeps the table of rules small.
const KEY_BYTES_MAX: usize = 256;
/// More than anybody writes by hand; every attribute of every span is looked up among them.
const KEYS_MAX: usize = 256;
/// How a kind is written.
const KIND_HINT: &str = r#"write `kind."acme.step" = { planner = "agent" }`, the key in quotes"#;

/// Reads the section. What is wrong is left out of it, and is a problem.
pub(super) fn read(section: Option<&Spanned<DeValue<'_>>>, problems: &mut Vec<Problem>) -> Mapping {
    let mut reading = Reading { mapping: Mapping::default(), keys: 0, problems };
    match section.map(|section| (section.get_ref(), section.span())) {
        None => {}
        Some((DeValue::Table(facts), _)) => {
            for (name, value) in facts {
                match name.get_ref().as_ref() {
                    KIND => reading.kinds(value),
                    said => reading.fact(said, &name.span(), value),
                }
            }
        }
        Some((_, at)) => {
            let hint =
                "begin it with [attributes], and `session = \"acme.thread\"` in the next line";
            reading.report(&at, "`attributes` is a table of facts".to_owned(), hint.to_owned());
        }
    }
    reading.mapping
}

struct Reading<'p> {
    mapping: Mapping,
    /// How many keys were named, good ones and bad ones.
    keys: usize,
    problems: &'p mut Vec<Problem>,
}

impl Reading<'_> {
    fn report(&mut self, at: &Range<usize>, what: String, hint: String) {
        self.problems.push(Problem { at: Some(position(at)), what, hint: Some(hint) });
    }

    /// A fact with the keys that hold it: a list, or one alone.
    fn fact(&mut self, name: &str, at: &Range<usize>, value: &Spanned<DeValue<'_>>) {
        let Some(fact) = Fact::named(name) else {
            let names: Vec<_> = Fact::ALL.iter().map(|fact| fact.as_str()).chain([KIND]).collect();
            return self.report(
                at,
                format!("unknown fact `{name}`"),
                choices(name, "facts", &names),
            );
        };
        let listed = match value.get_ref() {
            DeValue::Array(elements) => elements.iter().collect(),
            _ => vec![value],
        };
        for element in listed {
            let at = element.span();
            let Some(key) = element.get_ref().as_str() else {
                let what = "expected an attribute's key, or a list of them".to_owned();
                self.report(&at, what, "put each in quotes".to_owned());
                continue;
            };
            if !self.is_good(key, &at) {
                continue;
            }
            let keys = self.mapping.facts.entry(fact).or_default();
            if keys.iter().any(|known| known == key) {
                let what = format!("`{key}` is named twice for `{name}`");
                self.report(
                    &at,
                    what,
                    "leave one out; the first of the list goes first".to_owned(),
                );
            } else {
                keys.push(key.to_owned());
            }
        }
    }

    /// Attributes whose words are kinds.
    fn kinds(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(keys) = value.get_ref() else {
            let what = "`kind` is a table of attributes' keys".to_owned();
            return self.report(&value.span(), what, KIND_HINT.to_owned());
        };
        for (key, value) in keys {
            let is_good = self.is_good(key.get_ref(), &key.span());
            match value.get_ref() {
                DeValue::Table(words) if is_good => self.words(key.get_ref(), words),
                DeValue::Table(_) => {}
                _ => {
                    let what = "expected a table of words, each with its kind".to_owned();
                    self.report(&value.span(), what, KIND_HINT.to_owned());
                }
            }
        }
    }

    fn words(&mut self, key: &str, words: &DeTable<'_>) {
        for (word, value) in words {
            let at = value.span();
            let Some(said) = value.get_ref().as_str() else {
                // A key with dots that is not in quotes is a table in a table.
                let what = format!("expected the kind of `{}`", word.get_ref());
                self.report(&at, what, KIND_HINT.to_owned());
                continue;
            };
            if let Some(kind) = Kind::named(said) {
                let words = self.mapping.kinds.entry(key.to_owned()).or_default();
                words.insert(word.get_ref().clone().into_owned(), kind);
            } else {
                let hint = choices(said, "kinds", &Kind::ALL.map(Kind::as_str));
                self.report(&at, "unknown kind".to_owned(), hint);
            }
        }
    }

    /// Counts a key, and says what is wrong with it.
    fn is_good(&mut self, key: &str, at: &Range<usize>) -> bool {
        self.keys += 1;
        let (what, hint) = if key.is_empty() {
            ("an attribute's key cannot be empty".to_owned(), "leave it out")
        } else if KEY_BYTES_MAX < key.len() {
            (format!("a key has at most {KEY_BYTES_MAX} bytes"), "is this the attribute's value?")
        } else if KEYS_MAX < self.keys {
            if self.keys == KEYS_MAX + 1 {
                let what = format!("more than {KEYS_MAX} keys in all");
                self.report(at, what, "leave out what the built-in tables read".to_owned());
            }
            return false;
        } else {
            return true;
        };
        self.report(at, what, hint.to_owned());
        false
    }
}

/// What was probably meant, and all that there are.
fn choices(said: &str, what: &str, names: &[&str]) -> String {
    let near = nearest(said, names.iter().copied());
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    format!("{near}the {what} are {}", names.join(", "))
}

/// The section's schema: every fact, and the kinds.
pub(super) fn schema() -> Value {
    let key = json!({ "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX });
    let keys = json!([key, { "type": "array", "items": key, "uniqueItems": true }]);
    let mut facts = Map::new();
    for fact in Fact::ALL.iter().copied() {
        let (name, sentence) = (fact.as_str(), sentence(fact));
        let property = json!({
            "description": sentence,
            "anyOf": keys,
            "examples": [[format!("acme.{name}")]],
        });
        facts.insert(name.to_owned(), property);
    }
    let kind = json!({
        "description": "What kind of work a span is, by the words of attributes.",
        "type": "object",
        "propertyNames": key,
        "additionalProperties": {
            "type": "object",
            "additionalProperties": { "enum": Kind::ALL.map(Kind::as_str) },
        },
        "examples": [{ "acme.step": { "planner": "agent", "answer": "generation" } }],
    });
    facts.insert(KIND.to_owned(), kind);
    json!({
        "description": "Your own attributes: keys that hold what a framework writes under names of its own, the preferred first. They \
            go before everything that is known without them. What was received before is read anew when it is replayed.",
        "default": null,
        "type": "object",
        "properties": facts,
        "additionalProperties": false,
    })
}

/// What a fact is.
fn sentence(fact: Fact) -> &'static str {
    match fact {
        Fact::Agent => "The agent at work.",
        Fact::Tool => "The tool that is called.",
        Fact::ToolCallId => "The id that ties a tool's call to the model's request for it.",
        Fact::Model => "The model that was asked for.",
        Fact::ResponseModel => "The model that answered.",
        Fact::Provider => "Who serves the model.",
        Fact::Input => "What went in: text, or JSON.",
        Fact::Output => "What came out: text, or JSON.",
        Fact::Session => "The conversation.",
        Fact::User => "The end user.",
        Fact::Tags => "Labels: a list, or words between commas.",
        Fact::Workflow => "The workflow's or the trace's name.",
        Fact::InputTokens => "Tokens that the model read, cached ones among them.",
        Fact::OutputTokens => "Tokens that the model wrote, reasoning among them.",
        Fact::TotalTokens => "Tokens altogether.",
        Fact::CachedRead => "Tokens that were read from a cache.",
        Fact::CacheWrite => "Tokens that were written to a cache.",
        Fact::Reasoning => "Tokens that were spent on reasoning.",
        Fact::Cost => "What it cost, in US dollars.",
        Fact::FirstTokenMillis => "Milliseconds until the first part of the answer.",
        Fact::Environment => "The environment it ran in.",
        Fact::Release => "The application's release.",
    }
}
