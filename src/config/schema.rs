//! The JSON Schema of a configuration file: its sections, and for sinks the schema of every kind.

use serde_json::{Map, Value, json};

use super::sections::Config;
use super::{attributes, parts};
use crate::pipeline::LaneOptions;
use crate::rules;
use crate::sinks::{KINDS, Kind};
use crate::support::options::{properties, schema_of};

const RULES: &str = "Rules for every sink, in order: each has a `match` and one action. docs/rules.md describes the language.";
const SINK_RULES: &str = "Rules for this sink alone, after those for all sinks.";
const ONLY: &str = "What the sink gets, as in the `match` of a rule; it gets nothing else, even if a rule keeps it. \
    docs/rules.md has more, also on one sink for each tenant.";
const EXCEPT: &str = "What the sink does not get, in the same way.";

/// Returns the schema of the whole file.
pub fn schema() -> Value {
    let mut schema = sections_schema();
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    let kinds = KINDS.iter().map(|kind| sink_schema(kind));
    let kinds: Vec<Value> = kinds.chain([parts::schema(&names)]).collect();
    let sinks = json!({
        "description": "Sinks, each with its own name.",
        "type": "object",
        "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" },
        "additionalProperties": { "type": "object", "required": ["type"], "oneOf": kinds },
    });
    add(&mut schema, [("sinks", sinks)]);
    schema
}

/// Adds properties to the schema of an object.
fn add<const N: usize>(schema: &mut Value, more: [(&str, Value); N]) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.extend(more.map(|(name, property)| (name.to_owned(), property)));
    }
}

/// Returns the schema of the sections, without internal references.
pub(super) fn sections_schema() -> Value {
    let mut schema = schema_of::<Config>();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Spanferry".into());
        object.insert("description".to_owned(), "The configuration of Spanferry.".into());
    }
    let (rules, tests) = (rules::schema(RULES), rules::tests_schema());
    add(&mut schema, [("attributes", attributes::schema()), ("rules", rules), ("tests", tests)]);
    schema
}

/// Returns the schema of the options that every sink has.
pub(super) fn lane_schema() -> Value {
    let bound = |description, example| json!({ "description": description, "default": null, "type": "object", "examples": [example] });
    let only = bound(ONLY, json!({ "tenant": ["checkout"] }));
    let except = bound(EXCEPT, json!({ "service": "load-test*" }));
    let rules = rules::schema(SINK_RULES);
    let mut schema = schema_of::<LaneOptions>();
    add(&mut schema, [(rules::ONLY, only), (rules::EXCEPT, except), ("rules", rules)]);
    schema
}

/// Returns the schema of everything that a `[sinks.NAME]` of this kind may contain.
pub(super) fn sink_schema(kind: &Kind) -> Value {
    let mut schema = (kind.schema)();
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    object.insert("title".to_owned(), kind.name.into());
    object.insert("description".to_owned(), kind.summary.into());
    let mut all = Map::new();
    all.insert("type".to_owned(), json!({ "const": kind.name }));
    let lane = lane_schema();
    let own = object.get("properties").cloned().unwrap_or_default();
    all.extend(own.as_object().cloned().unwrap_or_default());
    all.extend(properties(&lane).map(|(name, value)| (name.clone(), value.clone())));
    object.insert("properties".to_owned(), all.into());
    object.insert("additionalProperties".to_owned(), false.into());
    schema
}
