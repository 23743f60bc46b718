//! The dashboards in `config/dashboards/`: their files are consistent, and each panel's query has the right answer on every server. The
//! queries are read from the files that users import, not from a copy of them.

mod grafana;
mod kibana;
mod known;
mod objects;
mod opensearch;
mod panel;

use std::fs;

use serde_json::Value;

use super::mappings;
use super::servers::{self, Node};
use super::sink::World;
use objects::{Objects, folder};
use panel::{Bucket, Panel, Row};

/// Files for import, generated from sources.
const IMPORTED: [(&str, &str); 2] = [
    ("kibana-8.ndjson", "kibana-8.json"),
    ("opensearch-dashboards.ndjson", "opensearch-dashboards.json"),
];

/// The titles of the panels that every dashboard has.
const TITLES: [&str; 9] = [
    "Agent latency percentiles",
    "Average run duration",
    "Error rate by span type",
    "Handoffs",
    "Runaway runs",
    "Tokens by agent",
    "Tool latency",
    "Tool latency percentiles",
    "Trace depth",
];

/// Tolerance for percentiles, which servers estimate.
const ESTIMATE: f64 = 0.02;

fn grafana_file() -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join("grafana.json")).unwrap()).unwrap()
}

/// Returns the panels of each file.
fn all() -> [(&'static str, Vec<Panel>); 3] {
    let [kibana, opensearch] = IMPORTED.map(|(file, _)| Objects::imported(file));
    [
        ("Kibana", kibana::panels(&kibana)),
        ("OpenSearch Dashboards", opensearch::panels(&opensearch)),
        ("Grafana", grafana::panels(&grafana_file())),
    ]
}

// === The files ===

#[test]
fn files_for_import_are_made_from_their_sources() {
    for (file, source) in IMPORTED {
        let made = Objects::source(source).to_ndjson();
        let path = folder().join(file);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            made,
            "{file}: UPDATE_GOLDENS=1 writes it anew"
        );
    }
}

#[test]
fn every_line_and_every_text_in_it_is_json_and_references_resolve() {
    for (file, source) in IMPORTED {
        let objects = Objects::imported(file);
        objects.check();
        assert_eq!(objects, Objects::source(source));
    }
}

#[test]
fn every_dashboard_has_every_panel_over_the_same_indices_and_times() {
    for (tool, panels) in all() {
        let mut titles: Vec<_> = panels.iter().map(|panel| panel.title.as_str()).collect();
        titles.sort_unstable();
        assert_eq!(titles, TITLES, "{tool}");
        for panel in panels {
            let of_traces =
                ["Average run duration", "Runaway runs", "Trace depth"].contains(&&*panel.title);
            let expected = if of_traces { "agent-traces-traces*" } else { "agent-traces-spans*" };
            assert_eq!(panel.index, expected, "{tool}: {}", panel.title);
            assert_eq!(panel.time_field, "timestamp");
        }
    }
}

#[test]
fn every_field_of_every_panel_is_in_the_mapping() {
    for (tool, panels) in all() {
        for panel in panels {
            let index = panel.index.trim_end_matches('*');
            let kind = |field: &str| {
                let found = mappings::type_of(index, field);
                found.unwrap_or_else(|| panic!("{tool}: {}: no field {field}", panel.title))
            };
            for field in panel.fields() {
                assert_ne!(kind(field), "object", "{tool}: {field} is not indexed");
            }
            assert_eq!(kind(&panel.time_field), "date_nanos", "{tool}");
            // `field:value`, `-field:value`, or `*:*` for everything.
            let queries = panel.queries().into_iter().filter(|query| *query != "*:*");
            for (field, _) in queries.filter_map(|query| query.split_once(':')) {
                kind(field.trim_start_matches('-'));
            }
        }
    }
}

#[test]
fn ranges_stand_in_the_order_of_numbers_also_where_the_tool_sorts_them_as_texts() {
    for (tool, panels) in all() {
        for bucket in panels.iter().flat_map(|panel| &panel.buckets) {
            match bucket {
                Bucket::Ranges { ranges, .. } => {
                    assert!(ranges.is_sorted_by(|one, next| one.to == Some(next.from)), "{tool}");
                }
                Bucket::Filters(filters) => {
                    assert!(filters.is_sorted_by_key(|(label, _)| label), "{tool}: {filters:?}");
                }
                Bucket::Terms { .. } => {}
            }
        }
    }
}

#[test]
fn panels_stand_beside_each_other() {
    let [kibana, opensearch] = IMPORTED.map(|(file, _)| Objects::imported(file));
    for (width, panels, at) in [
        (48, &kibana.dashboard()["attributes"]["panelsJSON"], "gridData"),
        (48, &opensearch.dashboard()["attributes"]["panelsJSON"], "gridData"),
        (24, &grafana_file()["panels"], "gridPos"),
    ] {
        let side = |panel: &Value, name: &str| panel[at][name].as_u64().unwrap();
        let places: Vec<_> = panels.as_array().unwrap().iter().collect();
        for (number, one) in places.iter().enumerate() {
            assert!(side(one, "x") + side(one, "w") <= width);
            for other in &places[number + 1..] {
                let apart = |start: &str, length: &str| {
                    side(one, start) + side(one, length) <= side(other, start)
                        || side(other, start) + side(other, length) <= side(one, start)
                };
                assert!(apart("x", "w") || apart("y", "h"), "{one} lies over {other}");
            }
        }
    }
}

// === The queries ===

#[tokio::test]
async fn every_panel_has_the_right_answer_on_known_data() {
    for server in servers::available() {
        let world = World::new(Node::shared(&server).await, "agent-traces", "").await;
        world.install().await;
        let node = &world.node;
        mappings::assert_installed(node).await;
        let documents = known::documents();
        node.fill(
            documents.iter().map(|(index, id, document)| (&**index, &**id, document.clone())),
        )
        .await;
        for (tool, panels) in all() {
            for panel in panels {
                let asked = panel.search(known::FROM, known::TO);
                let answer = node.search(&panel.index, asked).await;
                let case = format!("{}, {tool}, {}", node.server().name, panel.title);
                check(&case, &panel.rows(&answer), &known::answers(&panel.title));
            }
        }
        println!("{}: every panel of every dashboard has the right answer", node.server().name);
    }
}

fn check(case: &str, rows: &[Row], expected: &[(Vec<&str>, Vec<f64>)]) {
    assert_eq!(rows.len(), expected.len(), "{case}: {rows:?}");
    let is_estimate = case.ends_with("percentiles");
    for ((keys, values), (expected_keys, expected_values)) in rows.iter().zip(expected) {
        // Groups without names are compared by position; Grafana's names are padded, since it sorts them as texts.
        let keys: Vec<&str> = keys.iter().flatten().map(|key| key.trim_start()).collect();
        assert!(
            keys.is_empty() || keys == *expected_keys,
            "{case}: {keys:?} for {expected_keys:?}"
        );
        assert_eq!(values.len(), expected_values.len(), "{case}: {values:?}");
        for (value, expected) in values.iter().zip(expected_values) {
            let tolerance = if is_estimate { expected * ESTIMATE } else { 1e-9 };
            assert!(
                (value - expected).abs() <= tolerance,
                "{case}: {keys:?}: {values:?}, not {expected_values:?}"
            );
        }
    }
}

/// Asserts that every panel shows something on real data.
pub(crate) async fn assert_alive(node: &Node) {
    for (tool, panels) in all() {
        for panel in panels.iter().filter(|panel| panel.title != "Runaway runs") {
            let answer = node
                .search(&panel.index, panel.search("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"))
                .await;
            let rows = panel.rows(&answer);
            let shown =
                rows.iter().flat_map(|(_, values)| values).filter(|value| **value > 0.0).count();
            assert!(shown > 0, "{tool}: {} is empty: {answer}", panel.title);
        }
    }
}
