//! The schema of rules: what a configuration may say, for its checks and for editors. Pure.

use serde_json::{Map, Value, json};

use super::field::{Fact, KEYED};
use super::redact::Rewrite;

/// The schema of a list of rules.
pub fn schema(description: &str) -> Value {
    json!({
        "description": description,
        "default": null,
        "type": "array",
        "items": rule_schema(&condition_schema()),
        "examples": [[{ "name": "no_health_checks", "match": { "name": "GET /health*" }, "drop": true }]],
    })
}

pub(super) fn rule_schema(condition: &Value) -> Value {
    let flag = |description: &str| json!({ "description": description, "type": "boolean" });
    let mut properties = Map::new();
    let mut add = |name: &str, property: Value| properties.insert(name.to_owned(), property);
    add("name", json!({ "description": "Its name in metrics.", "type": "string" }));
    add("match", condition.clone());
    add("keep", flag("No later `drop` or `sample` takes what matches."));
    add("drop", flag("The sink does not get what matches; it is counted as filtered."));
    add(
        "sample",
        json!({
            "description": "The part of all traces that is kept, from 0 to 1, by their ids.",
            "type": "number",
        }),
    );
    add(
        "route",
        json!({
            "description": "The sinks that get what matches; the others do not.",
            "type": "array",
            "items": { "type": "string" },
        }),
    );
    for action in Rewrite::ACTIONS {
        add(action, Rewrite::schema(action));
    }
    add(
        "decide",
        json!({
            "description": "Whether `keep`, `drop` or `sample` is for each `span` that matches, or for all of its `trace`.",
            "type": "string",
            "enum": ["span", "trace"],
            "default": "span",
        }),
    );
    add("before_journal", flag("Whether it is done before anything is written to disk, too."));
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A condition. What stands in `any`, `all` and `not` is one again, which a schema without references cannot say.
fn condition_schema() -> Value {
    let facts = Fact::ALL.iter().map(|fact| (fact.as_str().to_owned(), json!({})));
    let tables = KEYED.iter().chain(["not"].iter());
    let tables = tables.map(|name| ((*name).to_owned(), json!({ "type": "object" })));
    let several = json!({ "type": "array", "items": { "type": "object" } });
    let lists = ["any", "all"].map(|name| (name.to_owned(), several.clone()));
    let properties: Map<String, Value> = facts.chain(tables).chain(lists).collect();
    json!({
        "description": "What must hold; without it the rule is for everything.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}
