//! Reads a table of options and reports all its mistakes, not only the first.
//!
//! Serde stops at the first mistake. So the table is first compared with the options' JSON Schema, which reports unknown, missing and
//! invalid keys with their positions. After that, Serde has nothing left to find.

mod check;
mod nearest;

use std::collections::BTreeMap;
use std::ops::Range;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::support::problem::Problem;
use check::Check;
pub use nearest::{did_you_mean, nearest};

/// A value with its position.
pub type Value<'v> = Spanned<DeValue<'v>>;

/// Flag in the position of a string that came from a reference (`${NAME}`, an environment variable) instead of the file itself. Such a
/// string is read as a number or a boolean if one is expected, because variables are always text.
pub const REFERENCED: usize = 1 << (usize::BITS - 1);

/// Returns the position in the file, without the flag.
pub fn position(span: &Range<usize>) -> Range<usize> {
    span.start & !REFERENCED..span.end & !REFERENCED
}

/// Returns the schema of a type, without internal references.
pub fn schema_of<T: JsonSchema>() -> Json {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// Returns the properties of an object's schema.
pub fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema.get("properties").and_then(Json::as_object).into_iter().flatten()
}

/// Returns the alternative other than `null` of a schema that has both.
pub fn without_null(schema: &Json) -> &Json {
    let choices = schema.get("anyOf").and_then(Json::as_array);
    let is_null = |choice: &&Json| choice.get("type").is_some_and(|kind| kind == "null");
    choices.and_then(|choices| choices.iter().find(|choice| !is_null(choice))).unwrap_or(schema)
}

/// Reads a table, or returns all its mistakes in the order of the file.
pub fn read<T: DeserializeOwned + JsonSchema>(
    table: Spanned<DeTable<'_>>,
) -> Result<T, Vec<Problem>> {
    match read_on(table, &schema_of::<T>()) {
        (Some(value), problems) if problems.is_empty() => Ok(value),
        (_, problems) => Err(problems),
    }
}

/// Reads a table and returns all its mistakes. Defaults replace invalid values; without a default, the result is `None`.
pub fn read_on<T: DeserializeOwned>(
    table: Spanned<DeTable<'_>>,
    schema: &Json,
) -> (Option<T>, Vec<Problem>) {
    let (at, mut table) = (table.span(), table.into_inner());
    let texts = referenced_texts(&mut table);
    let mut check = Check::new(&texts);
    let is_whole = check.table(&mut table, &at, schema, "");
    let mut problems = check.problems();
    let root = Spanned::new(at, DeValue::Table(table));
    let value = match T::deserialize(ValueDeserializer::from(root)) {
        Ok(value) => Some(value),
        Err(error) if is_whole => {
            problems.push(problem(error.span().as_ref(), error.message()));
            None
        }
        Err(_) => None,
    };
    (value, problems)
}

/// Returns the mistakes of a table that is read later. Messages describe unknown keys with `whose`.
pub fn check(table: &Spanned<DeTable<'_>>, schema: &Json, whose: &str) -> Vec<Problem> {
    let (at, mut table) = (table.span(), table.get_ref().clone());
    let texts = referenced_texts(&mut table);
    let mut check = Check::new(&texts);
    check.table(&mut table, &at, schema, whose);
    check.problems()
}

/// Converts a type's error message: what is wrong, then after a semicolon what to do.
fn problem(at: Option<&Range<usize>>, message: &str) -> Problem {
    let (what, hint) = message.trim_end().split_once("; ").unzip();
    Problem {
        at: at.map(position),
        what: what.unwrap_or(message.trim_end()).to_owned(),
        hint: hint.map(str::to_owned),
    }
}

/// Returns the strings that came from references, by position.
fn referenced_texts(table: &mut DeTable<'_>) -> BTreeMap<usize, String> {
    let mut texts = BTreeMap::new();
    each_text_in(table, &mut |value| {
        let at = value.span().start;
        if let Some(text) = value.get_ref().as_str().filter(|_| at & REFERENCED > 0) {
            texts.insert(at, text.to_owned());
        }
    });
    texts
}

/// Visits every string in a table.
pub fn each_text_in<'v>(table: &mut DeTable<'v>, visit: &mut impl FnMut(&mut Value<'v>)) {
    table.iter_mut().for_each(|(_, value)| each_text(value, visit));
}

/// Visits every string in a value.
pub fn each_text<'v>(value: &mut Value<'v>, visit: &mut impl FnMut(&mut Value<'v>)) {
    match value.get_mut() {
        DeValue::Array(elements) => elements.iter_mut().for_each(|one| each_text(one, visit)),
        DeValue::Table(table) => each_text_in(table, visit),
        DeValue::String(_) => visit(value),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
