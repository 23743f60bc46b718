//! Compares a table with its schema. Mistakes are reported and removed.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue, ValueDeserializer};

use super::{did_you_mean, nearest, position, problem, without_null};
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::duration::Duration;
use crate::support::problem::Problem;

/// Maximum number of mistakes reported for one table; people do not read more.
const PROBLEMS_MAX: usize = 100;

/// A text with a special format.
struct Format {
    /// Its name in schemas.
    name: &'static str,
    /// How messages describe it.
    words: &'static str,
    /// Returns what is wrong with a value.
    mistake: fn(&Spanned<DeValue<'_>>) -> Option<String>,
}

const FORMATS: &[Format] = &[
    Format {
        name: ByteSize::FORMAT,
        words: "a size such as \"8MiB\"",
        mistake: mistake::<ByteSize>,
    },
    Format {
        name: Duration::FORMAT,
        words: "a duration such as \"5s\"",
        mistake: mistake::<Duration>,
    },
    Format { name: Address::FORMAT, words: "a string", mistake: mistake::<Address> },
];

fn mistake<T: DeserializeOwned>(value: &Spanned<DeValue<'_>>) -> Option<String> {
    let read = T::deserialize(ValueDeserializer::from(value.clone()));
    read.err().map(|error| error.message().to_owned())
}

/// The comparison of one table.
pub(super) struct Check<'t> {
    /// Strings that came from references, by position.
    texts: &'t BTreeMap<usize, String>,
    problems: Vec<Problem>,
}

impl<'t> Check<'t> {
    pub(super) fn new(texts: &'t BTreeMap<usize, String>) -> Self {
        Self { texts, problems: Vec::new() }
    }

    /// Returns the mistakes, in the order of the file.
    pub(super) fn problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.at.as_ref().map(|at| at.start));
        self.problems.truncate(PROBLEMS_MAX);
        self.problems
    }

    fn wrong(&mut self, at: &Range<usize>, what: String, hint: Option<String>) {
        self.problems.push(Problem { at: Some(position(at)), what, hint });
    }

    /// Removes mistakes from a table. Returns false if a required key is then missing.
    pub(super) fn table(
        &mut self,
        table: &mut DeTable<'t>,
        at: &Range<usize>,
        schema: &Value,
        whose: &str,
    ) -> bool {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let known: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| &**name).collect();
        // Keys whose absence is explained by a mistake that was reported.
        let mut explained = Vec::new();
        let keys = table.keys().map(|key| (key.get_ref().clone().into_owned(), key.span()));
        for (name, key_at) in keys.collect::<Vec<_>>() {
            let Some(value) = table.get_mut(name.as_str()) else { continue };
            let is_good = match properties.and_then(|all| all.get(&name)).or(others) {
                Some(schema) => self.value(value, schema),
                None if properties.is_none() => true,
                None => {
                    let what = format!("unknown key `{name}`{whose}");
                    self.wrong(&key_at, what, did_you_mean(&name, &known));
                    explained.extend(nearest(&name, known.iter().copied()).map(str::to_owned));
                    false
                }
            };
            if !is_good {
                table.remove(name.as_str());
                explained.push(name);
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let missing: Vec<&str> =
            required.filter_map(Value::as_str).filter(|name| !table.contains_key(*name)).collect();
        for name in missing.iter().filter(|name| explained.iter().all(|known| known != *name)) {
            let hint = Some(format!("add `{name} = ...` here"));
            self.wrong(at, format!("missing key `{name}`"), hint);
        }
        missing.is_empty()
    }

    /// Removes mistakes from a value. Returns false if the value itself is invalid.
    fn value(&mut self, value: &mut Spanned<DeValue<'t>>, schema: &Value) -> bool {
        let schema = without_null(schema);
        let choices = choices(schema);
        let types = if choices.is_empty() { types(schema) } else { vec!["string"] };
        self.resolve(value, &types);
        let (at, found) = (value.span(), type_of(value.get_ref()));
        let format = schema.get("format").and_then(Value::as_str);
        let format = FORMATS.iter().find(|known| Some(known.name) == format);
        let is_wanted = |kind: &&str| *kind == found || (*kind == "number" && found == "integer");
        if !types.is_empty() && !types.iter().any(is_wanted) {
            let expected =
                format.map_or_else(|| wanted(&types, schema), |format| format.words.to_owned());
            let comment = schema.get("$comment").and_then(Value::as_str).map(str::to_owned);
            let hint = comment.or_else(|| hint(&types, found, schema));
            self.wrong(&at, format!("expected {expected}, found {}", in_words(found)), hint);
            return false;
        }
        if let Some(message) = format.and_then(|format| (format.mistake)(value)) {
            self.problems.push(problem(Some(&at), &message));
            return false;
        }
        let is_out_of_range = format.is_none() && is_out_of_range(value, schema);
        match value.get_mut() {
            DeValue::String(text) if !choices.is_empty() && !choices.contains(&&**text) => {
                let hint = did_you_mean(text, &choices);
                self.wrong(&at, "not one of the allowed values".to_owned(), hint);
                false
            }
            DeValue::Integer(_) if is_out_of_range => {
                self.wrong(&at, format!("expected {}", wanted(&types, schema)), None);
                false
            }
            DeValue::Table(table) => self.table(table, &at, schema, ""),
            DeValue::Array(elements) => {
                let Some(schema) = schema.get("items") else { return true };
                let all = std::mem::replace(elements, DeArray::new()).into_iter();
                let good = all.filter_map(|mut one| self.value(&mut one, schema).then_some(one));
                *elements = good.collect();
                true
            }
            _ => true,
        }
    }

    /// Converts a string that came from a reference to a number or a boolean, if one is expected.
    fn resolve(&self, value: &mut Spanned<DeValue<'t>>, types: &[&str]) {
        let at = value.span();
        let text = self.texts.get(&at.start).filter(|_| value.get_ref().is_str());
        let Some(text) = text.filter(|_| !types.contains(&"string")) else { return };
        if let Ok(parsed) = DeValue::parse(text).map(Spanned::into_inner)
            && (parsed.is_integer() || parsed.is_float() || parsed.is_bool())
        {
            *value = Spanned::new(position(&at), parsed);
        }
    }
}

/// Returns the texts that a schema lists.
fn choices(schema: &Value) -> Vec<&str> {
    let constants = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let constants = constants.filter_map(|choice| choice.get("const")?.as_str());
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    constants.chain(listed.filter_map(Value::as_str)).collect()
}

/// Returns the types that a schema allows; empty if it does not restrict them.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => Vec::new(),
    }
}

/// Returns a value's type in the terms of a schema.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value.type_str() {
        "float" => "number",
        "table" => "object",
        other => other,
    }
}

fn in_words(kind: &str) -> &'static str {
    match kind {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number with a fraction",
        "boolean" => "a boolean",
        "array" => "an array",
        "object" => "a table",
        _ => "a time",
    }
}

/// Describes what a schema expects.
fn wanted(types: &[&str], schema: &Value) -> String {
    match (types.first().copied().unwrap_or_default(), range(schema)) {
        ("integer", (0, i64::MAX)) => "a whole number, 0 or more".to_owned(),
        ("integer", (i64::MIN, i64::MAX)) => "a whole number".to_owned(),
        ("integer", (least, most)) => format!("a whole number from {least} to {most}"),
        ("number", _) => "a number".to_owned(),
        ("boolean", _) => "true or false".to_owned(),
        (kind, _) => in_words(kind).to_owned(),
    }
}

/// Returns the whole numbers that a schema allows.
fn range(schema: &Value) -> (i64, i64) {
    let bound = |name| schema.get(name).and_then(Value::as_i64);
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => u32::MAX.into(),
        Some("int32") => i32::MAX.into(),
        _ => i64::MAX,
    };
    (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(most))
}

/// Returns whether a whole number is outside the schema's range.
fn is_out_of_range(value: &Spanned<DeValue<'_>>, schema: &Value) -> bool {
    let (least, most) = range(schema);
    let number = |value: &DeInteger<'_>| i64::from_str_radix(value.as_str(), value.radix());
    let number = value.get_ref().as_integer().map(number);
    number.is_some_and(|number| !number.is_ok_and(|number| (least..=most).contains(&number)))
}

fn hint(types: &[&str], found: &str, schema: &Value) -> Option<String> {
    let hint = match types.first().copied()? {
        "boolean" => "write true or false, without quotes",
        "integer" | "number" if found == "string" => "write it without quotes",
        "string" if types.len() == 1 => "put it in quotes",
        "array" => "write a list, between [ and ], in a file",
        "object" => {
            let needed = schema.get("required")?.as_array()?.iter().filter_map(Value::as_str);
            let keys = needed.map(|key| format!("{key} = ...")).collect::<Vec<_>>();
            return Some(format!("write {{ {} }}", keys.join(", ")));
        }
        _ => return None,
    };
    Some(hint.to_owned())
}
