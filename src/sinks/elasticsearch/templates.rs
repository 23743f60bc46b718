//! What is installed at the backend before the first document: mappings, settings, templates and retention. Pure.
//!
//! The mapping is closed: what has no field is kept and not indexed, so no document can conflict with another one's types, and
//! no client can grow the index without end.

use serde_json::{Value, json};

use super::options::{AttributesMapping, Rotation, Settings};
use super::server::{Flavor, Server};

/// The version of what is installed, in `_meta.schema_version`. Raise it with every change of a mapping or setting.
pub const SCHEMA_VERSION: u64 = 3;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// It is ours: replaced when it is older.
    Ours,
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
        let mut hash = super::names::sha256_hex(body.to_string().as_bytes());
        hash.truncate(HASH_CHARACTERS);
        let at = if body.get("_meta").is_some() { "/_meta" } else { "/mappings/_meta" };
        if let Some(meta) = body.pointer_mut(at) {
            put(meta, "made_from", hash.into());
        }
        Self { care: Care::Ours, path, body }
    }

    fn hash(&self) -> &str {
        let meta = self.body.get("_meta").or_else(|| self.body.pointer("/mappings/_meta"));
        meta.and_then(|meta| meta.get("made_from")).and_then(Value::as_str).unwrap_or_default()
    }

    /// The address without its query.
    pub(super) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Whether it is to be installed where this is there.
    pub(super) fn is_due(&self, installed: &Installed) -> bool {
        match installed {
            Installed::Nothing | Installed::Hidden => true,
            Installed::Version(version, hash) => {
                let differs = *version == SCHEMA_VERSION && hash != self.hash();
                self.care == Care::Ours && (*version < SCHEMA_VERSION || differs)
            }
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
    for (index, mapping) in [
        (settings.spans_index(), spans_mapping(settings, server)),
        (settings.traces_index(), traces_mapping()),
    ] {
        let is_spans = index == settings.spans_index();
        let index_settings = index_settings(settings, server, is_spans);
        if !server.has_components() {
            steps.push(legacy(&index, &mapping, &index_settings));
            continue;
        }
        let ours = Step::ours;
        let meta = meta(if is_spans { "spans" } else { "traces" });
        steps.push(ours(
            format!("_component_template/{index}@mappings"),
            json!({ "_meta": meta, "template": { "mappings": mapping } }),
        ));
        steps.push(ours(
            format!("_component_template/{index}@settings"),
            json!({ "_meta": meta, "template": { "settings": index_settings } }),
        ));
        steps.push(Step {
            care: Care::Theirs,
            path: format!("_component_template/{index}@custom?create=true"),
            body: json!({ "template": {} }),
        });
        let mut template = json!({
            "index_patterns": [index, format!("{index}-*")],
            "priority": PRIORITY,
            "composed_of": [
                format!("{index}@mappings"), format!("{index}@settings"), format!("{index}@custom")
            ],
            "_meta": meta,
        });
        if is_spans && settings.rotation == Rotation::DataStream {
            put(&mut template, "data_stream", json!({}));
        }
        steps.push(ours(format!("_index_template/{index}"), template));
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

/// The mapping of an index.
pub(super) fn mapping(settings: &Settings, server: Server, is_spans: bool) -> Value {
    if is_spans { spans_mapping(settings, server) } else { traces_mapping() }
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

fn meta(schema: &str) -> Value {
    json!({ "product": "spanferry", "schema": schema, "schema_version": SCHEMA_VERSION })
}

/// Before 7.8 a template itself has no place for notes: the version is in the mapping's.
fn legacy(index: &str, mapping: &Value, settings: &Value) -> Step {
    let body = json!({
        "index_patterns": [index, format!("{index}-*")],
        "order": 1,
        "version": SCHEMA_VERSION,
        "settings": settings,
        "mappings": mapping,
    });
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
    if is_spans && settings.rotation != Rotation::None && server.flavor == Flavor::Elasticsearch {
        put(&mut index, "lifecycle", json!({ "name": settings.prefix }));
    }
    json!({ "index": index })
}

/// When indices go, where they are cut by time.
fn retention(settings: &Settings, server: Server) -> Option<Step> {
    let is_stream = settings.rotation == Rotation::DataStream;
    if settings.rotation == Rotation::None {
        return None;
    }
    let (path, body) = if server.flavor == Flavor::OpenSearch {
        // Rolling over comes well before deleting, or the only index of a data stream would be due.
        let rollover = json!([{
            "rollover": { "min_primary_shard_size": "50gb", "min_index_age": "5d" }
        }]);
        let body = json!({ "policy": {
            "description": "Spans of Spanferry",
            "default_state": "hot",
            "states": [
                {
                    "name": "hot",
                    "actions": if is_stream { rollover } else { json!([]) },
                    "transitions": [{
                        "state_name": "delete", "conditions": { "min_index_age": "30d" }
                    }],
                },
                { "name": "delete", "actions": [{ "delete": {} }], "transitions": [] },
            ],
            "ism_template": [{
                "index_patterns": [format!("{}-*", settings.spans_index())], "priority": PRIORITY
            }],
        }});
        (format!("_plugins/_ism/policies/{}", settings.prefix), body)
    } else {
        let rollover = json!({ "rollover": { "max_primary_shard_size": "30gb", "max_age": "7d" } });
        let body = json!({ "policy": { "phases": {
            "hot": { "actions": if is_stream { rollover } else { json!({}) } },
            "delete": { "min_age": "30d", "actions": { "delete": {} } },
        }}});
        (format!("_ilm/policy/{}", settings.prefix), body)
    };
    Some(Step { care: Care::Theirs, path, body })
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = object {
        members.insert(key.to_owned(), value);
    }
}

fn keyword(characters: u32) -> Value {
    json!({ "type": "keyword", "ignore_above": characters })
}

fn unindexed() -> Value {
    json!({ "type": "object", "enabled": false })
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn spans_mapping(settings: &Settings, server: Server) -> Value {
    let mut properties = json!({
        "timestamp": { "type": "date_nanos" },
        "@timestamp": { "type": "alias", "path": "timestamp" },
        "end_time": { "type": "date_nanos" },
        "ingested_at": { "type": "date" },
        "start_us": { "type": "long", "index": false },
        "end_us": { "type": "long", "index": false },
        "trace_id": keyword(256),
        "span_id": keyword(256),
        "parent_id": keyword(256),
        "span_type": keyword(256),
        "name": keyword(1024),
        "status": keyword(256),
        "error_flag": { "type": "byte" },
        "duration_ms": { "type": "double" },
        "depth": { "type": "short" },
        "service_name": keyword(1024),
        "workflow_name": keyword(1024),
        "group_id": keyword(1024),
        "user": keyword(1024),
        "tags": keyword(1024),
        "source": keyword(64),
        "error": { "properties": {
            "type": keyword(1024),
            "message": {
                "type": "text", "norms": false, "fields": { "keyword": keyword(1024) }
            },
        }},
        "agent": { "properties": { "name": keyword(1024), "span_id": keyword(256) } },
        "tool": { "properties": { "name": keyword(1024) } },
        "handoff": { "properties": {
            "from": keyword(1024), "to": keyword(1024), "pair": keyword(2048)
        }},
        "guardrail": { "properties": {
            "name": keyword(1024), "triggered": { "type": "boolean" }
        }},
        "model": { "properties": { "name": keyword(1024), "provider": keyword(256) } },
        "usage": { "properties": {
            "input_tokens": { "type": "long" },
            "output_tokens": { "type": "long" },
            "total_tokens": { "type": "long" },
            "cached_tokens": { "type": "long" },
            "reasoning_tokens": { "type": "long" },
            "cost_usd": { "type": "double" },
        }},
        "aggregate_usage": unindexed(),
        "counting": unindexed(),
        "odd_time": unindexed(),
        "truncated": { "type": "boolean" },
        "attr_kv": keyword(1024),
        "attributes": attributes(settings),
        "resource": unindexed(),
        "input": unindexed(),
        "output": unindexed(),
        "events": unindexed(),
        "links": unindexed(),
        "raw_json": unindexed(),
    });
    if settings.rotation == Rotation::DataStream {
        put(&mut properties, "@timestamp", json!({ "type": "date_nanos" }));
        put(&mut properties, "timestamp", json!({ "type": "alias", "path": "@timestamp" }));
    }
    if settings.payload_search {
        let words = if server.has_match_only_text() {
            json!({ "type": "match_only_text" })
        } else {
            json!({ "type": "text", "index_options": "docs", "norms": false })
        };
        put(&mut properties, "input_text", words.clone());
        put(&mut properties, "output_text", words);
    }
    json!({
        "_meta": meta("spans"),
        "dynamic": false,
        "date_detection": false,
        "numeric_detection": false,
        "properties": properties,
    })
}

fn attributes(settings: &Settings) -> Value {
    match settings.attributes_mapping {
        AttributesMapping::Disabled => unindexed(),
        AttributesMapping::Flattened => json!({ "type": "flattened", "ignore_above": 1024 }),
        AttributesMapping::FlatObject => json!({ "type": "flat_object" }),
    }
}

fn traces_mapping() -> Value {
    json!({
        "_meta": meta("traces"),
        "dynamic": false,
        "date_detection": false,
        "properties": {
            "timestamp": { "type": "date_nanos" },
            "@timestamp": { "type": "alias", "path": "timestamp" },
            "end_time": { "type": "date_nanos" },
            "updated_at": { "type": "date" },
            "trace_id": keyword(256),
            "workflow_name": keyword(1024),
            "group_id": keyword(1024),
            "service_name": keyword(1024),
            "status": keyword(64),
            "duration_ms": { "type": "double" },
            "span_count": { "type": "integer" },
            "error_count": { "type": "integer" },
            "error_flag": { "type": "byte" },
            "agent_span_count": { "type": "integer" },
            "tool_call_count": { "type": "integer" },
            "generation_count": { "type": "integer" },
            "handoff_count": { "type": "integer" },
            "max_depth": { "type": "short" },
            "agents": keyword(1024),
            "tools": keyword(1024),
            "models": keyword(1024),
            "usage": { "properties": {
                "input_tokens": { "type": "long" },
                "output_tokens": { "type": "long" },
                "total_tokens": { "type": "long" },
                "cost_usd": { "type": "double" },
            }},
            "metadata": unindexed(),
            "metadata_kv": keyword(1024),
            "trace_object": unindexed(),
        },
    })
}
