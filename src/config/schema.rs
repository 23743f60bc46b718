//! The JSON Schema of a configuration file: the sections' and, for the sinks, every kind's own.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::attributes;
use super::sections::{LaneSection, Sections};
use crate::sinks::{KINDS, Kind};

/// Nothing that is described here is nested deeper; a type that contains itself would be.
const NESTING_MAX: usize = 16;

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut schema = sections_schema();
    let kinds: Vec<Value> = KINDS.iter().map(|kind| sink_schema(kind)).collect();
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
    let mut schema = whole_schema_of::<Sections>();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Spanferry".into());
        object.insert("description".to_owned(), "The configuration of Spanferry.".into());
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("attributes".to_owned(), attributes::schema());
    }
    schema
}

/// The schema of what every sink has.
pub(super) fn lane_schema() -> Value {
    whole_schema_of::<LaneSection>()
}

/// The schema of a kind's own options.
pub(super) fn kind_schema(kind: &Kind) -> Value {
    let mut schema = Value::from((kind.schema)());
    let parts = schema.as_object_mut().and_then(|object| object.remove("$defs"));
    inline(&mut schema, parts.as_ref().and_then(Value::as_object), NESTING_MAX);
    schema
}

/// The properties of an object's schema.
pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// Of a schema that also allows nothing (`null`), the other half.
pub(super) fn without_null(schema: &Value) -> &Value {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    let is_null = |choice: &&Value| choice.get("type").is_some_and(|kind| kind == "null");
    choices.and_then(|choices| choices.iter().find(|choice| !is_null(choice))).unwrap_or(schema)
}

fn whole_schema_of<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// All that a `[sinks.NAME]` of this kind may hold.
fn sink_schema(kind: &Kind) -> Value {
    let mut schema = kind_schema(kind);
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

/// Puts the parts in the place of the references to them.
fn inline(schema: &mut Value, parts: Option<&Map<String, Value>>, nesting: usize) {
    if nesting == 0 {
        return;
    }
    match schema {
        Value::Object(object) => {
            let named = object.get("$ref").and_then(Value::as_str);
            let name = named.and_then(|path| path.strip_prefix("#/$defs/"));
            if let Some(part) = name.and_then(|name| parts?.get(name)).and_then(Value::as_object) {
                object.remove("$ref");
                for (key, value) in part.clone() {
                    // What is said of the field is more than what is said of its type.
                    object.entry(key).or_insert(value);
                }
            }
            object.values_mut().for_each(|inner| inline(inner, parts, nesting - 1));
        }
        Value::Array(elements) => {
            for inner in elements {
                inline(inner, parts, nesting - 1);
            }
        }
        _ => {}
    }
}
