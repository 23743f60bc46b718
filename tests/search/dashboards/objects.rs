//! Saved objects: files for import have one JSON object a line, in which some members hold JSON as text; the sources next to them are the
//! same objects in readable form.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Members whose value is JSON as text.
const TEXTS: [&str; 5] =
    ["panelsJSON", "optionsJSON", "searchSourceJSON", "visState", "uiStateJSON"];

/// The objects of a file, with their texts parsed.
#[derive(Debug, PartialEq)]
pub(super) struct Objects(Vec<Value>);

impl Objects {
    /// Reads those of a file for import.
    pub(super) fn imported(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(name)).unwrap();
        assert!(text.ends_with('\n') && text.is_ascii(), "{name}");
        let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
        Self(objects.map(|object| map_texts(object, &|value| read_text(&value))).collect())
    }

    /// Reads those of a source.
    pub(super) fn source(name: &str) -> Self {
        let text = fs::read_to_string(folder().join("source").join(name)).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    /// Formats them as a file for import.
    pub(super) fn to_ndjson(&self) -> String {
        let write = |value: Value| Value::String(value.to_string());
        let lines =
            self.0.iter().map(|object| map_texts(object.clone(), &write).to_string() + "\n");
        lines.collect()
    }

    /// Returns the only dashboard.
    pub(super) fn dashboard(&self) -> &Value {
        let mut dashboards = self.0.iter().filter(|object| object["type"] == "dashboard");
        let dashboard = dashboards.next().unwrap();
        assert!(dashboards.next().is_none());
        dashboard
    }

    /// Returns the object to which an object refers by a name.
    pub(super) fn referred(&self, from: &Value, name: &str) -> &Value {
        let references = from["references"].as_array().unwrap();
        let reference = references.iter().find(|reference| reference["name"] == name);
        let reference = reference.unwrap_or_else(|| panic!("no reference {name}"));
        self.find(reference)
    }

    fn find(&self, reference: &Value) -> &Value {
        let is_meant = |object: &&Value| {
            object["type"] == reference["type"] && object["id"] == reference["id"]
        };
        self.0.iter().find(is_meant).unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Asserts that every object has a unique id, every reference resolves, and every object is used.
    pub(super) fn check(&self) {
        let references =
            || self.0.iter().flat_map(|object| object["references"].as_array().unwrap());
        for reference in references() {
            self.find(reference);
        }
        for object in &self.0 {
            let same =
                |other: &&Value| other["type"] == object["type"] && other["id"] == object["id"];
            assert_eq!(self.0.iter().filter(same).count(), 1, "{}", object["id"]);
            let is_used =
                object["type"] == "dashboard" || references().any(|reference| same(&reference));
            assert!(is_used, "{} is not used", object["id"]);
        }
    }
}

/// Returns the folder of the dashboards.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dashboards")
}

/// Returns a value that must be text.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn read_text(value: &Value) -> Value {
    serde_json::from_str(text(value)).unwrap()
}

fn map_texts(value: Value, map: &impl Fn(Value) -> Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let value =
                    if TEXTS.contains(&name.as_str()) { map(value) } else { map_texts(value, map) };
                (name, value)
            });
            Value::Object(members.collect())
        }
        Value::Array(elements) => {
            elements.into_iter().map(|element| map_texts(element, map)).collect()
        }
        other => other,
    }
}
