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
    let [redact, set] = Rewrite::ACTIONS.map(Rewrite::schema);
    json!({
        "type": "object",
        "properties": {
            "name": { "description": "Its name in metrics.", "type": "string" },
            "match": condition,
            "keep": flag("No later `drop` or `sample` takes what matches."),
            "drop": flag("The sink does not get what matches; it is counted as filtered."),
            "sample": {
                "description": "The part of all traces that is kept, from 0 to 1, by their ids.",
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
                "description": "Whether `keep`, `drop` or `sample` is for each `span` that matches, or for all of its `trace`.",
                "type": "string",
                "enum": ["span", "trace"],
                "default": "span",
            },
            "before_journal": flag("Whether it is done before anything is written to disk, too."),
        },
        "additionalProperties": false,
    })
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
