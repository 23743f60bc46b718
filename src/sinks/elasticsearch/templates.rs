//! The mappings, settings, templates and retention that are installed at the backend before the first document. Pure.
//!
//! `templates/` has the bodies as JSON. The mapping is closed: data without a field is kept but not indexed, so no document can conflict
//! with another one's types, and no client can grow the index without limit. The sink uses about 55 of the 300 fields that an index may
//! have; the rest is for `@custom`.

use serde_json::{Value, json};

use super::options::{AttributesMapping, Rotation, Settings};
use super::server::{COMPONENTS, Flavor, MATCH_ONLY_TEXT, Server};
use crate::support::json::raw::Raw;

/// The version of the templates, which must equal `_meta.schema_version` in `templates/`. Increment it with every change of a mapping or
/// setting.
pub const SCHEMA_VERSION: u64 = 4;

/// A request that installs something.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The hash of the source of the sink's own resource, which is replaced if it is older, or of this version with another hash. A
    /// resource without a hash belongs to the user once it exists.
    pub hash: Option<String>,
    /// The path below the endpoint, with its query.
    pub path: String,
    /// The body.
    pub body: Value,
}

/// The version of an installed resource (0 if it has none), and the hash of its source.
pub(super) type Version = (u64, String);

/// Reads the answer about a resource. The version is in its `_meta` or that of its mapping.
pub(super) fn version_of(body: &[u8]) -> Version {
    fn find<'a>(value: Raw<'a>, name: &str) -> Option<Raw<'a>> {
        let mut inner = value.members().map(|(_, value)| value).chain(value.elements());
        value.get(name).or_else(|| inner.find_map(|value| find(value, name)))
    }
    let said = |name| find(Raw::parse(std::str::from_utf8(body).ok()?)?, name);
    let version = said("schema_version").and_then(Raw::count).unwrap_or_default();
    (version, said("made_from").and_then(Raw::string).unwrap_or_default().into_owned())
}

impl Step {
    /// Creates a resource of the sink, signed with its hash.
    fn ours(path: String, mut body: Value) -> Self {
        let mut hash = crate::support::sha256::hex(body.to_string().as_bytes());
        hash.truncate(HASH_CHARACTERS);
        let at = if body.get("_meta").is_some() { "/_meta" } else { "/mappings/_meta" };
        put(&mut body, at, "made_from", hash.clone().into());
        Self { hash: Some(hash), path, body }
    }

    pub(super) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Returns whether it must be installed, given what is installed.
    pub(super) fn is_due(&self, installed: Option<&Version>) -> bool {
        installed.is_none_or(|(version, there)| {
            let is_other = |hash| *version == SCHEMA_VERSION && there != hash;
            self.hash.as_ref().is_some_and(|hash| *version < SCHEMA_VERSION || is_other(hash))
        })
    }

    /// Returns whether it is the retention policy.
    pub fn is_retention(&self) -> bool {
        self.path.starts_with("_ilm/") || self.path.starts_with("_plugins/_ism/")
    }

    /// Removes the reference to the retention policy.
    pub fn forget_retention(&mut self) {
        for pointer in ["/template/settings/index", "/settings/index"] {
            if let Some(Value::Object(index)) = self.body.pointer_mut(pointer) {
                index.remove("lifecycle");
            }
        }
    }
}

/// Returns everything to install, in this order.
pub(super) fn steps(settings: &Settings, server: Server) -> Vec<Step> {
    if !server.has_indices() {
        return Vec::new();
    }
    let mut steps = Vec::from_iter(retention(settings, server));
    for index in &settings.indices {
        let mut body = index_body(settings, server, index);
        let patterns = json!([index, format!("{index}-*")]);
        if !server.has(COMPONENTS) {
            // Before 7.8, a template itself has no metadata, so the version is in the mapping's.
            put(&mut body, "", "index_patterns", patterns);
            put(&mut body, "", "order", json!(1));
            put(&mut body, "", "version", json!(SCHEMA_VERSION));
            steps.push(Step::ours(format!("_template/{index}"), body));
            continue;
        }
        let meta = body.pointer("/mappings/_meta");
        for part in ["mappings", "settings"] {
            let path = format!("_component_template/{index}@{part}");
            let part = json!({ "_meta": meta, "template": { part: body.get(part) } });
            steps.push(Step::ours(path, part));
        }
        let path = format!("_component_template/{index}@custom?create=true");
        steps.push(Step { hash: None, path, body: json!({ "template": {} }) });
        let parts = ["mappings", "settings", "custom"].map(|part| format!("{index}@{part}"));
        let mut template = json!({
            // Above everything that ships with Elasticsearch (100 to 200).
            "index_patterns": patterns, "priority": 300, "composed_of": parts, "_meta": meta,
        });
        if settings.is_streamed(index) {
            put(&mut template, "", "data_stream", json!({}));
        }
        steps.push(Step::ours(format!("_index_template/{index}"), template));
    }
    steps
}

/// Prints the steps as console commands, for an administrator.
pub fn print(steps: &[Step]) -> String {
    let commands = steps.iter().map(|step| format!("PUT {}\n{}\n", step.path, step.body));
    commands.collect::<Vec<_>>().join("\n")
}

/// The length of a hash, enough to distinguish other options.
const HASH_CHARACTERS: usize = 16;

/// Returns the retention policy, if indices are rotated.
fn retention(settings: &Settings, server: Server) -> Option<Step> {
    let rotation = settings.options.rotation;
    if rotation == Rotation::None {
        return None;
    }
    let (folder, text, at) = if server.flavor == Flavor::OpenSearch {
        ("_plugins/_ism/policies", include_str!("templates/ism.json"), "/policy/states/0")
    } else {
        ("_ilm/policy", include_str!("templates/ilm.json"), "/policy/phases/hot")
    };
    let mut body = data(text);
    // Only a data stream rolls over, well before indices are deleted. Otherwise its only index would be deleted.
    if rotation != Rotation::DataStream {
        let none = if server.flavor == Flavor::OpenSearch { json!([]) } else { json!({}) };
        put(&mut body, at, "actions", none);
    }
    let patterns = json!([format!("{}-*", settings.indices[0])]);
    put(&mut body, "/policy/ism_template/0", "index_patterns", patterns);
    let path = format!("{folder}/{}", settings.options.index_prefix);
    Some(Step { hash: None, path, body })
}

/// Returns the body that creates an index directly (`PUT /<index>`), without templates: its mapping and its settings.
pub(super) fn index_body(settings: &Settings, server: Server, index: &str) -> Value {
    // Indices of spans may have a date.
    if !index.starts_with(&settings.indices[0]) {
        return data(include_str!("templates/traces.json"));
    }
    let options = &settings.options;
    let mut body = data(include_str!("templates/spans.json"));
    let mut field =
        |name: &str, mapping: Value| put(&mut body, "/mappings/properties", name, mapping);
    match options.attributes_mapping {
        AttributesMapping::Disabled => {}
        AttributesMapping::Flattened => {
            field("attributes", json!({ "type": "flattened", "ignore_above": 1024 }));
        }
        AttributesMapping::FlatObject => field("attributes", json!({ "type": "flat_object" })),
    }
    if settings.is_stream() {
        field("@timestamp", json!({ "type": "date_nanos" }));
        field("timestamp", json!({ "type": "alias", "path": "@timestamp" }));
    }
    if options.payload_search {
        let words = if server.has(MATCH_ONLY_TEXT) {
            json!({ "type": "match_only_text" })
        } else {
            json!({ "type": "text", "index_options": "docs", "norms": false })
        };
        field("input_text", words.clone());
        field("output_text", words);
    }
    if options.rotation != Rotation::None && server.flavor == Flavor::Elasticsearch {
        let lifecycle = json!({ "name": options.index_prefix });
        put(&mut body, "/settings/index", "lifecycle", lifecycle);
    }
    body
}

/// Parses an embedded JSON file.
pub(super) fn data(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Sets a member of the object at this JSON pointer.
pub(super) fn put(body: &mut Value, at: &str, key: &str, value: Value) {
    if let Some(Value::Object(members)) = body.pointer_mut(at) {
        members.insert(key.to_owned(), value);
    }
}
