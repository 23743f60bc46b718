//! The fields of the sink's indices and their types, on which dashboards can rely. The list is compared with what the sink installs on
//! every server.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::check::check_golden;
use super::servers::Node;

/// Field types, by index and field.
type Fields = BTreeMap<String, BTreeMap<String, String>>;

const INDICES: [&str; 2] = ["agent-traces-spans", "agent-traces-traces"];

/// Below `tests/golden/`.
const GOLDEN: &str = "sinks-elasticsearch/fields.json";

fn golden() -> Fields {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(GOLDEN);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Returns the type of a field of an index.
pub(crate) fn type_of(index: &str, field: &str) -> Option<String> {
    golden()[index].get(field).cloned()
}

/// Asserts that the sink has installed exactly the list.
pub(crate) async fn assert_installed(node: &Node) {
    let mut installed = Fields::new();
    for index in INDICES {
        let mapping = node.get(&format!("/{index}/_mapping")).await;
        let mapping = &mapping[index]["mappings"];
        assert_eq!(mapping["dynamic"], "false", "{index} on {}", node.server().name);
        let mut fields = BTreeMap::new();
        flatten("", &mapping["properties"], &mut fields);
        installed.insert(index.to_owned(), fields);
    }
    check_golden(GOLDEN, &(serde_json::to_string_pretty(&installed).unwrap() + "\n"));
}

fn flatten(above: &str, properties: &Value, fields: &mut BTreeMap<String, String>) {
    for (name, field) in properties.as_object().into_iter().flatten() {
        let name = format!("{above}{name}");
        for inner in ["properties", "fields"] {
            flatten(&format!("{name}."), &field[inner], fields);
        }
        if let Some(kind) = field["type"].as_str() {
            fields.insert(name, kind.to_owned());
        }
    }
}
