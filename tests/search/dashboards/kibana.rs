//! Reads panels from Kibana's file: a dashboard of Lens panels, each with one layer.

use serde_json::Value;

use super::objects::{Objects, text};
use super::panel::{Bucket, Metric, Panel, Range};

/// Returns every panel, in the order of the file.
pub(super) fn panels(objects: &Objects) -> Vec<Panel> {
    let dashboard = objects.dashboard();
    let panels = dashboard["attributes"]["panelsJSON"].as_array().unwrap();
    panels.iter().map(|panel| read(objects, dashboard, panel)).collect()
}

fn read(objects: &Objects, dashboard: &Value, panel: &Value) -> Panel {
    let lens = &panel["embeddableConfig"]["attributes"];
    let state = &lens["state"];
    let layers = state["datasourceStates"]["formBased"]["layers"].as_object().unwrap();
    assert_eq!(layers.len(), 1, "a panel is one question");
    let (layer_id, layer) = layers.iter().next().unwrap();
    // The panel's own reference and the dashboard's must lead to the same data view.
    let name = format!("indexpattern-datasource-layer-{layer_id}");
    let view = objects.referred(lens, &name);
    let hoisted = objects.referred(dashboard, &format!("{}:{name}", text(&panel["panelIndex"])));
    assert_eq!(view, hoisted);
    assert_eq!(state["query"]["language"], "lucene");
    assert_eq!(state["filters"].as_array().unwrap().len(), 0);

    let order: Vec<&str> = layer["columnOrder"].as_array().unwrap().iter().map(text).collect();
    let columns = &layer["columns"];
    assert_eq!(order.len(), columns.as_object().unwrap().len());
    for used in shown(&state["visualization"]) {
        assert!(order.contains(&used), "{used} is no column");
    }
    let (grouping, computing): (Vec<&str>, Vec<&str>) =
        order.into_iter().partition(|name| columns[*name]["isBucketed"] == true);
    Panel {
        title: text(&panel["title"]).to_owned(),
        index: text(&view["attributes"]["title"]).to_owned(),
        time_field: text(&view["attributes"]["timeFieldName"]).to_owned(),
        query: text(&state["query"]["query"]).to_owned(),
        buckets: grouping.iter().map(|name| bucket(&columns[*name], &computing)).collect(),
        metrics: computing.iter().map(|name| metric(&columns[*name])).collect(),
    }
}

/// Returns the columns that the visualization uses.
fn shown(visualization: &Value) -> Vec<&str> {
    let parts = visualization["layers"].as_array().into_iter().flatten().chain([visualization]);
    let named =
        |part: &Value| -> Vec<String> { part.as_object().unwrap().keys().cloned().collect() };
    let mut shown = Vec::new();
    for part in parts {
        for name in named(part).iter().filter(|name| name.to_lowercase().ends_with("accessor")) {
            shown.push(text(&part[name]));
        }
        shown.extend(part["accessors"].as_array().into_iter().flatten().map(text));
        let columns = part["columns"].as_array().into_iter().flatten();
        shown.extend(columns.map(|column| text(&column["columnId"])));
    }
    assert!(!shown.is_empty(), "{visualization}");
    shown
}

fn bucket(column: &Value, metrics: &[&str]) -> Bucket {
    let field = text(&column["sourceField"]).to_owned();
    let params = &column["params"];
    match text(&column["operationType"]) {
        "terms" => {
            assert_eq!(params["orderBy"]["type"], "column");
            assert_eq!(params["orderDirection"], "desc");
            let order = text(&params["orderBy"]["columnId"]);
            Bucket::Terms {
                field,
                size: params["size"].as_u64().unwrap(),
                order: metrics.iter().position(|name| *name == order).unwrap(),
            }
        }
        "range" => {
            // The other type, histogram, chooses its intervals by the size of the screen.
            assert_eq!(params["type"], "range");
            let range = |range: &Value| Range {
                from: range["from"].as_f64().unwrap(),
                to: range["to"].as_f64(),
                label: Some(text(&range["label"]).to_owned()),
            };
            Bucket::Ranges {
                field,
                ranges: params["ranges"].as_array().unwrap().iter().map(range).collect(),
            }
        }
        other => panic!("{other} is not known"),
    }
}

fn metric(column: &Value) -> Metric {
    let field = text(&column["sourceField"]).to_owned();
    match text(&column["operationType"]) {
        "count" => Metric::Count,
        "average" => Metric::Average(field),
        "sum" => Metric::Sum(field),
        "max" => Metric::Max(field),
        "percentile" => {
            Metric::Percentiles(field, vec![column["params"]["percentile"].as_f64().unwrap()])
        }
        other => panic!("{other} is not known"),
    }
}
