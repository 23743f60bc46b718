//! The JSON Schema of a configuration file: the sections' and, for the sinks, every kind's own.

use serde_json::{Map, Value, json};

use super::sections::Config;
use super::{attributes, parts};
use crate::pipeline::LaneOptions;
use crate::rules;
use crate::sinks::{KINDS, Kind};
use crate::support::options::{properties, schema_of};

const RULES: &str = "What leaves, for every sink, in order: each rule has a `match` and one action. docs/rules.md has the language.";
const SINK_RULES: &str = "Rules for this sink alone, behind those for all.";
const ONLY: &str = "What the sink is for, as in the `match` of a rule; it gets nothing else, also where a rule keeps it. \
    docs/rules.md has more, and how one sink becomes one for each tenant.";
const EXCEPT: &str = "What the sink is not for, in the same way.";

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut schema = sections_schema();
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    let kinds = KINDS.iter().map(|kind| sink_schema(kind));
    let kinds: Vec<Value> = kinds.chain([parts::schema(&names)]).collect();
    let sinks = json!({
        "description": "Doors out, each with a name of its own.",
        "type": "object",
        "propertyNames": { "pattern": "^[a-z0-9_-]{1,64}$" },
        "additionalProperties": { "type": "object", "required": ["type"], "oneOf": kinds },
    });
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("sinks".to_owned(), sinks);
    }
    schema
}

/// The sections' schema, without references to parts of itself.
pub(super) fn sections_schema() -> Value {
    let mut schema = schema_of::<Config>();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Spanferry".into());
        object.insert("description".to_owned(), "The configuration of Spanferry.".into());
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("attributes".to_owned(), attributes::schema());
        properties.insert("rules".to_owned(), rules::schema(RULES));
        properties.insert("tests".to_owned(), rules::tests_schema());
    }
    schema
}

/// The schema of what every sink has.
pub(super) fn lane_schema() -> Value {
    let mut schema = schema_of::<LaneOptions>();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (option, description, example) in [
            (rules::ONLY, ONLY, json!({ "tenant": ["checkout"] })),
            (rules::EXCEPT, EXCEPT, json!({ "service": "load-test*" })),
        ] {
            let schema = json!({
                "description": description, "default": null, "type": "object", "examples": [example],
            });
            properties.insert(option.to_owned(), schema);
        }
        properties.insert("rules".to_owned(), rules::schema(SINK_RULES));
    }
    schema
}

/// All that a `[sinks.NAME]` of this kind may hold.
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
