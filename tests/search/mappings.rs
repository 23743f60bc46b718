//! The mappings of the sink's indices.

use serde_json::{Value, json};

use super::servers::{Node, Product};

/// The mapping of an index, by its name.
pub(crate) fn of(index: &str) -> Value {
    let keyword = || json!({ "type": "keyword", "ignore_above": 1024 });
    match index {
        "agent-traces-spans" => json!({ "dynamic": false, "properties": {
            "timestamp": { "type": "date_nanos" }, "span_type": keyword(), "error_flag": { "type": "byte" }, "duration_ms": { "type": "double" },
            "agent": { "properties": { "name": keyword() } },
            "tool": { "properties": { "name": keyword() } },
            "handoff": { "properties": { "from": keyword(), "to": keyword() } },
            "usage": { "properties": { "input_tokens": { "type": "long" }, "output_tokens": { "type": "long" } } },
        }}),
        "agent-traces-traces" => json!({ "dynamic": false, "properties": {
            "timestamp": { "type": "date_nanos" }, "duration_ms": { "type": "double" },
            "agent_span_count": { "type": "integer" }, "max_depth": { "type": "short" },
        }}),
        other => panic!("no index {other}"),
    }
}

/// Installs them.
pub(crate) async fn install(node: &Node) {
    assert!(node.server().major >= 2 || node.server().product == Product::OpenSearch);
    for index in ["agent-traces-spans", "agent-traces-traces"] {
        node.put(&format!("/{index}"), json!({ "mappings": of(index) })).await;
    }
}
