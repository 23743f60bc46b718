//! Prints a starter file: every option with its description and default, generated from the program's own doc comments and constants.

use std::fmt::Write as _;

use serde_json::Value;
use toml::Table;

use super::schema::{lane_schema, sections_schema};
use super::{DEFAULT_SINK, DEFAULT_SINK_KIND, DEFAULT_SINK_PATH};
use crate::sinks::{KINDS, Kind};
use crate::support::options::{properties, without_null};

/// Comments are wrapped at this width.
const LINE_CHARS: usize = 100;

/// Prefix of an active setting.
const SET: &str = "";
/// Prefix of a setting that is only shown.
const SHOWN: &str = "#";

const PARTS: &str = "A sink can be divided into several, one for each tenant, service or value of an attribute: options of a part \
    override those of the sink, and {tenant} in them is the part's name. docs/rules.md has more.";
const PARTS_EXAMPLE: &str = "#[sinks.NAME]\n#by = \"tenant\"\n#[sinks.NAME.parts.checkout]\n#[sinks.NAME.parts.support]\n\
    #values = [\"support-eu\", \"support-us\"]\n#[sinks.NAME.parts.others]\n#rest = true\n\n";

/// Returns the starter file. Loading it gives the defaults.
pub fn starter() -> String {
    let mut text = String::new();
    sentences(
        "Every option of Spanferry with its default. A line that begins with # and a letter or [ is a setting that is not in force. \
         Sizes are written like \"8MiB\", times like \"5s\". In any text, ${NAME} stands for an environment variable, \
         ${NAME:-text} gives it a default, ${file:/path} stands for what a file holds, and $$ for a dollar sign.",
        &mut text,
    );
    text.push('\n');
    let schema = sections_schema();
    table("", &schema, SET, &mut text);
    sentences("=== Sinks ===", &mut text);
    text.push('\n');
    sentences(
        "Without any sink, spans are written as JSON lines, as if this stood here:",
        &mut text,
    );
    writeln!(text, "#[sinks.{DEFAULT_SINK}]").ok();
    writeln!(text, "#type = \"{DEFAULT_SINK_KIND}\"").ok();
    writeln!(text, "#path = \"STATE DIRECTORY/{DEFAULT_SINK_PATH}\"\n").ok();
    sentences("Every sink has these options in addition to those of its type:", &mut text);
    text.push_str("#[sinks.NAME]\n");
    table("sinks.NAME", &lane_schema(), SHOWN, &mut text);
    sentences(PARTS, &mut text);
    text.push_str(PARTS_EXAMPLE);
    text.extend(KINDS.iter().map(|kind| describe_kind(kind)));
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// Returns one kind's options with their descriptions, as a table that is commented out.
pub fn describe_kind(kind: &Kind) -> String {
    let mut text = String::new();
    sentences(&format!("--- type = \"{}\" --- {}", kind.name, kind.summary), &mut text);
    let example: Table = kind.example.parse().unwrap_or_default();
    writeln!(text, "#[sinks.{}]", kind.name).ok();
    writeln!(text, "#type = \"{}\"", kind.name).ok();
    let schema = (kind.schema)();
    for (name, property) in properties(&schema) {
        let shown = example.get(name).map(ToString::to_string);
        setting(name, property, shown, SHOWN, &mut text);
    }
    text.push('\n');
    text
}

/// Writes a table's settings, then its inner tables.
fn table(path: &str, schema: &Value, mark: &str, text: &mut String) {
    let is_table = |property: &Value| without_null(property).get("properties").is_some();
    for (name, property) in properties(schema).filter(|(_, property)| !is_table(property)) {
        setting(name, property, None, mark, text);
    }
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    for (name, property) in properties(schema).filter(|(_, property)| is_table(property)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_absent = property.get("default").is_some_and(Value::is_null);
        let mark = if is_absent { SHOWN } else { mark };
        sentences(description(property), text);
        writeln!(text, "{mark}[{path}]").ok();
        table(&path, without_null(property), mark, text);
    }
}

/// Writes one setting with its description. `shown` replaces the value of a setting without a default.
fn setting(name: &str, property: &Value, shown: Option<String>, mark: &str, text: &mut String) {
    sentences(description(property), text);
    let default = property.get("default").filter(|value| !value.is_null());
    let example = || property.get("examples").and_then(|examples| examples.get(0)).map(literal);
    match (default.map(literal), shown.or_else(example)) {
        (Some(default), _) => writeln!(text, "{mark}{name} = {default}").ok(),
        (None, Some(example)) => writeln!(text, "#{name} = {example}").ok(),
        (None, None) => writeln!(text, "#{name} = ...").ok(),
    };
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// Writes text as wrapped comments.
fn sentences(text: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() + 1 > LINE_CHARS {
            writeln!(out, "{line}").ok();
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        writeln!(out, "{line}").ok();
    }
}

/// Formats a value as TOML. JSON's strings, numbers, booleans and arrays are also valid TOML.
fn literal(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{} = {}", quoted(name), literal(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(elements) => {
            format!("[{}]", elements.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Formats a key as TOML, quoted if necessary.
fn quoted(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !key.is_empty() && key.bytes().all(is_bare) {
        return key.to_owned();
    }
    Value::from(key).to_string()
}
