//! `[prices]`: what the user says of prices, with the table of the file that it names.

use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::environment::{date_of, read_file};
use super::layers::Layers;
use crate::prices::{self, PriceOptions, Prices};
use crate::support::options::{position, read_on, schema_of};
use crate::support::problem::Problem;

/// What stands in the section, in words.
const SECTION: &str = "What model calls cost whose clients do not say it. docs/cost.md has more.";

/// Reads the section, and the table. What is wrong is a problem.
pub(super) fn read(
    section: Option<Spanned<DeValue<'_>>>,
    layers: &Layers<'_>,
    problems: &mut Vec<Problem>,
) -> Prices {
    let Some(section) = section else { return Prices::new(&PriceOptions::default(), None) };
    let at = section.span();
    let DeValue::Table(table) = section.into_inner() else {
        problems.push(Problem {
            at: Some(position(&at)),
            what: "`prices` is a table".to_owned(),
            hint: Some("begin it with [prices], and `file = ...` in the next line".to_owned()),
        });
        return Prices::default();
    };
    let (options, found) = read_on::<PriceOptions>(Spanned::new(at, table), &schema());
    problems.extend(found);
    let options = options.unwrap_or_default();
    problems.extend(options.mistakes().into_iter().map(|(model, key, what)| Problem {
        at: layers.place(&["prices", "overrides", &model, key]),
        what,
        hint: Some("write dollars a million tokens: 2.5".to_owned()),
    }));
    let table = options.file.as_deref().filter(|_| options.enabled).map(table_of).transpose();
    let table = table.unwrap_or_else(|what| {
        let hint = "it is the data of genai-prices (version 2), LiteLLM's list of models, or what `spanferry prices update` \
                    makes of these";
        let (at, hint) = (layers.place(&["prices", "file"]), Some(hint.to_owned()));
        problems.push(Problem { at, what, hint });
        None
    });
    Prices::new(&options, table)
}

/// The table of a file, or what is wrong with it. It has the date of the file where it says none.
pub fn table_of(path: &str) -> Result<prices::Table, String> {
    let cannot = |problem: String| format!("cannot read prices from {path}: {problem}");
    let text = read_file(Path::new(path)).map_err(|error| cannot(error.to_string()))?;
    prices::read(text.as_bytes(), &date_of(Path::new(path)))
        .map_err(|error| cannot(error.to_string()))
}

/// The section's schema.
pub(super) fn schema() -> Value {
    let mut schema = schema_of::<PriceOptions>();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.insert("description".to_owned(), SECTION.into());
        object.insert("default".to_owned(), Value::Null);
    }
    // Nobody has any before there is one.
    let overrides = schema.pointer_mut("/properties/overrides").and_then(Value::as_object_mut);
    overrides.and_then(|overrides| overrides.remove("default"));
    schema
}
