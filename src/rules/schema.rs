//! The schema of rules, for checks of the configuration and for editors. Pure.

use serde_json::{Map, Value, json};

use super::field::{Fact, KEYED};
use super::redact::Rewrite;

/// Returns the schema of a list of rules.
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
    let [redact, set] = Rewrite::ACTIONS.map(Rewrite::schema);
    json!({
        "type": "object",
        "properties": {
            "name": { "description": "The rule's name in metrics.", "type": "string" },
            "match": condition,
            "keep": flag("Later `drop` and `sample` rules do not apply to what matches."),
            "drop": flag("The sink does not get what matches; it is counted as filtered."),
            "sample": {
                "description": "The part of all traces to keep, from 0 to 1, by trace id.",
                "type": "number",
            },
            "route": {
                "description": "The sinks that get what matches; the others do not.",
                "type": "array",
                "items": { "type": "string" },
            },
            "redact": redact,
            "set": set,
            "decide": {
                "description": "Whether `keep`, `drop` or `sample` applies to each matching `span`, or to its whole `trace`.",
                "type": "string",
                "enum": ["span", "trace"],
                "default": "span",
            },
            "before_journal": flag("Whether it also runs before anything is written to disk."),
        },
        "additionalProperties": false,
    })
}

/// Returns the schema of a condition. `any`, `all` and `not` contain conditions, which a schema without references cannot express.
fn condition_schema() -> Value {
    let facts = Fact::ALL.iter().map(|fact| (fact.as_str().to_owned(), json!({})));
    let tables = KEYED.map(|(name, _)| name).into_iter().chain(["not"]);
    let tables = tables.map(|name| (name.to_owned(), json!({ "type": "object" })));
    let several = json!({ "type": "array", "items": { "type": "object" } });
    let lists = ["any", "all"].map(|name| (name.to_owned(), several.clone()));
    let properties: Map<String, Value> = facts.chain(tables).chain(lists).collect();
    json!({
        "description": "The conditions; without them the rule applies to everything.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}
