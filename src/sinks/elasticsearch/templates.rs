//! What is installed at the backend before the first document: mappings, settings, templates and retention. Pure.
//!
//! The mapping is closed: what has no field is kept and not indexed, so no document can conflict with another one's types, and
//! no client can grow the index without end.

use serde_json::{Value, json};

use super::options::{AttributesMapping, Rotation, Settings};
use super::server::{Flavor, Server};

/// The version of what is installed, in `_meta.schema_version`. Raise it with every change of a mapping or setting.
pub const SCHEMA_VERSION: u64 = 4;

/// One request that installs something.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it is, and how careful to be with what is there.
    pub care: Care,
    /// The address below the endpoint, with its query.
    pub path: String,
    /// The body.
    pub body: Value,
}

/// How careful to be with what is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Care {
    /// It is ours: replaced when it is older, or of this version and not made from what this is the hash of.
    Ours(String),
    /// It is the user's from the moment it exists.
    Theirs,
}

/// What is there of something that we would install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Installed {
    Nothing,
    /// In this version (0 where it does not say), made from what this is the hash of.
    Version(u64, String),
    /// The key may not look.
    Hidden,
}

impl Installed {
    /// Reads the answer about a template: the members stand in its `_meta` or that of its mapping.
    pub(super) fn read(body: &[u8]) -> Self {
        fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
            match value {
                Value::Object(members) => {
                    let inner = || members.values().find_map(|value| find(value, name));
                    members.get(name).or_else(inner)
                }
                Value::Array(elements) => elements.iter().find_map(|value| find(value, name)),
                _ => None,
            }
        }
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let version = find(&answer, "schema_version").and_then(Value::as_u64);
        let hash = find(&answer, "made_from").and_then(Value::as_str);
        Self::Version(version.unwrap_or_default(), hash.unwrap_or_default().to_owned())
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(self, Self::Version(..))
    }
}

impl Step {
    /// Our own, signed with the hash of what it is.
    fn ours(path: String, mut body: Value) -> Self {
        let mut hash = crate::support::sha256::hex(body.to_string().as_bytes());
        hash.truncate(HASH_CHARACTERS);
        let at = if body.get("_meta").is_some() { "/_meta" } else { "/mappings/_meta" };
        if let Some(meta) = body.pointer_mut(at) {
            put(meta, "made_from", hash.clone().into());
        }
        Self { care: Care::Ours(hash), path, body }
    }

    pub(super) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether it is to be installed where this is there.
    pub(super) fn is_due(&self, installed: &Installed) -> bool {
        match installed {
            Installed::Nothing | Installed::Hidden => true,
            Installed::Version(version, there) => match &self.care {
                Care::Ours(hash) => {
                    *version < SCHEMA_VERSION || (*version == SCHEMA_VERSION && there != hash)
                }
                Care::Theirs => false,
            },
        }
    }

    /// Whether it says when indices are deleted.
    pub fn is_retention(&self) -> bool {
        self.path.starts_with("_ilm/") || self.path.starts_with("_plugins/_ism/")
    }

    /// Takes out what refers to a rule for deleting indices.
    pub fn forget_retention(&mut self) {
        for pointer in ["/template/settings/index", "/settings/index"] {
            if let Some(Value::Object(index)) = self.body.pointer_mut(pointer) {
                index.remove("lifecycle");
            }
        }
    }
}

/// Everything to install, in this order.
pub(super) fn steps(settings: &Settings, server: Server) -> Vec<Step> {
    if !server.has_indices() {
        return Vec::new();
    }
    let mut steps: Vec<Step> = retention(settings, server).into_iter().collect();
    for (index, is_spans) in [(settings.spans_index(), true), (settings.traces_index(), false)] {
        let body = index_body(settings, server, is_spans);
        if !server.has_components() {
            steps.push(legacy(&index, body));
            continue;
        }
        let meta = meta(is_spans);
        for part in ["mappings", "settings"] {
            let template = json!({ part: body.get(part) });
            steps.push(Step::ours(
                format!("_component_template/{index}@{part}"),
                json!({ "_meta": meta, "template": template }),
            ));
        }
        steps.push(Step {
            care: Care::Theirs,
            path: format!("_component_template/{index}@custom?create=true"),
            body: json!({ "template": {} }),
        });
        let parts = ["mappings", "settings", "custom"].map(|part| format!("{index}@{part}"));
        let mut template = json!({
            "index_patterns": [index, format!("{index}-*")],
            "priority": PRIORITY,
            "composed_of": parts,
            "_meta": meta,
        });
        if is_spans && settings.is_stream() {
            put(&mut template, "data_stream", json!({}));
        }
        steps.push(Step::ours(format!("_index_template/{index}"), template));
    }
    steps
}

/// What makes an index by hand, where no template may be installed: `PUT /<index>`.
pub(super) fn index_body(settings: &Settings, server: Server, is_spans: bool) -> Value {
    json!({
        "mappings": mapping(settings, server, is_spans),
        "settings": index_settings(settings, server, is_spans),
    })
}

/// The steps as commands to paste into a console, for whoever has the right to run them.
pub fn print(steps: &[Step]) -> String {
    let commands: Vec<_> =
        steps.iter().map(|step| format!("PUT {}\n{}\n", step.path, step.body)).collect();
    commands.join("\n")
}

/// Above everything that ships with Elasticsearch (100 to 200).
const PRIORITY: u32 = 300;
/// Fields of one index; ours has about 55, the rest is for `@custom`.
const FIELDS_MAX: u32 = 300;
/// As much of a hash as tells what was made from other options.
const HASH_CHARACTERS: usize = 16;

fn meta(is_spans: bool) -> Value {
    let schema = if is_spans { "spans" } else { "traces" };
    json!({ "product": "spanferry", "schema": schema, "schema_version": SCHEMA_VERSION })
}

/// Before 7.8 a template itself has no place for notes: the version is in the mapping's.
fn legacy(index: &str, mut body: Value) -> Step {
    put(&mut body, "index_patterns", json!([index, format!("{index}-*")]));
    put(&mut body, "order", json!(1));
    put(&mut body, "version", json!(SCHEMA_VERSION));
    Step::ours(format!("_template/{index}"), body)
}

fn index_settings(settings: &Settings, server: Server, is_spans: bool) -> Value {
    let default_field = if is_spans {
        json!(["name", "error.message", "tool.name", "agent.name"])
    } else {
        json!(["workflow_name", "agents", "tools"])
    };
    let mut index = json!({
        "number_of_shards": 1,
        "auto_expand_replicas": "0-1",
        "refresh_interval": "5s",
        "codec": "best_compression",
        "mapping": { "total_fields": { "limit": FIELDS_MAX } },
        "query": { "default_field": default_field },
    });
    let is_rotated = is_spans && settings.options.rotation != Rotation::None;
    if is_rotated && server.flavor == Flavor::Elasticsearch {
        put(&mut index, "lifecycle", json!({ "name": settings.options.index_prefix }));
    }
    json!({ "index": index })
}

/// When indices go, where they are cut by time.
fn retention(settings: &Settings, server: Server) -> Option<Step> {
    let rotation = settings.options.rotation;
    if rotation == Rotation::None {
        return None;
    }
    let (folder, text, actions, none) = if server.flavor == Flavor::OpenSearch {
        let text = include_str!("templates/ism.json");
        ("_plugins/_ism/policies", text, "/policy/states/0/actions", json!([]))
    } else {
        let text = include_str!("templates/ilm.json");
        ("_ilm/policy", text, "/policy/phases/hot/actions", json!({}))
    };
    let (path, mut body) = (format!("{folder}/{}", settings.options.index_prefix), data(text));
    // Only a data stream rolls over, well before it deletes, or its only index would be due.
    if let Some(actions) = body.pointer_mut(actions).filter(|_| rotation != Rotation::DataStream) {
        *actions = none;
    }
    if let Some(patterns) = body.pointer_mut("/policy/ism_template/0/index_patterns") {
        *patterns = json!([format!("{}-*", settings.spans_index())]);
    }
    Some(Step { care: Care::Theirs, path, body })
}

fn data(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

pub(super) fn mapping(settings: &Settings, server: Server, is_spans: bool) -> Value {
    let properties = if is_spans {
        spans_properties(settings, server)
    } else {
        data(include_str!("templates/traces.json"))
    };
    json!({
        "_meta": meta(is_spans), "dynamic": false, "date_detection": false, "properties": properties,
    })
}

fn spans_properties(settings: &Settings, server: Server) -> Value {
    let options = &settings.options;
    let mut properties = data(include_str!("templates/spans.json"));
    let attributes = match options.attributes_mapping {
        AttributesMapping::Disabled => None,
        AttributesMapping::Flattened => Some(json!({ "type": "flattened", "ignore_above": 1024 })),
        AttributesMapping::FlatObject => Some(json!({ "type": "flat_object" })),
    };
    if let Some(attributes) = attributes {
        put(&mut properties, "attributes", attributes);
    }
    if settings.is_stream() {
        put(&mut properties, "@timestamp", json!({ "type": "date_nanos" }));
        put(&mut properties, "timestamp", json!({ "type": "alias", "path": "@timestamp" }));
    }
    if options.payload_search {
        let words = if server.has_match_only_text() {
            json!({ "type": "match_only_text" })
        } else {
            json!({ "type": "text", "index_options": "docs", "norms": false })
        };
        put(&mut properties, "input_text", words.clone());
        put(&mut properties, "output_text", words);
    }
    properties
}
