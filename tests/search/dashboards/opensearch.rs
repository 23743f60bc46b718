//! Reads panels from the file of OpenSearch Dashboards: a dashboard of saved visualizations.

use serde_json::Value;

use super::objects::{Objects, text};
use super::panel::{Bucket, Metric, Panel, Range};

/// Returns every panel, in the order of the dashboard.
pub(super) fn panels(objects: &Objects) -> Vec<Panel> {
    let dashboard = objects.dashboard();
    let panels = dashboard["attributes"]["panelsJSON"].as_array().unwrap();
    panels
        .iter()
        .map(|panel| read(objects, objects.referred(dashboard, text(&panel["panelRefName"]))))
        .collect()
}

fn read(objects: &Objects, visualization: &Value) -> Panel {
    let attributes = &visualization["attributes"];
    let source = &attributes["kibanaSavedObjectMeta"]["searchSourceJSON"];
    let view = objects.referred(visualization, text(&source["indexRefName"]));
    assert_eq!(source["query"]["language"], "lucene");
    assert_eq!(source["filter"].as_array().unwrap().len(), 0);
    let state = &attributes["visState"];
    assert_eq!(attributes["title"], state["title"]);

    let aggregations = state["aggs"].as_array().unwrap();
    assert!(aggregations.iter().all(|aggregation| aggregation["enabled"] == true));
    let (computing, grouping): (Vec<&Value>, Vec<&Value>) =
        aggregations.iter().partition(|aggregation| aggregation["schema"] == "metric");
    let ids: Vec<&str> = computing.iter().map(|aggregation| text(&aggregation["id"])).collect();
    for series in state["params"]["seriesParams"].as_array().into_iter().flatten() {
        assert!(ids.contains(&text(&series["data"]["id"])), "{series}");
    }
    Panel {
        title: text(&state["title"]).to_owned(),
        index: text(&view["attributes"]["title"]).to_owned(),
        time_field: text(&view["attributes"]["timeFieldName"]).to_owned(),
        query: text(&source["query"]["query"]).to_owned(),
        buckets: grouping.iter().map(|aggregation| bucket(aggregation, &ids)).collect(),
        metrics: computing.iter().map(|aggregation| metric(aggregation)).collect(),
    }
}

fn bucket(aggregation: &Value, metrics: &[&str]) -> Bucket {
    let params = &aggregation["params"];
    let field = text(&params["field"]).to_owned();
    match text(&aggregation["type"]) {
        "terms" => {
            assert_eq!(params["order"], "desc");
            let order = text(&params["orderBy"]);
            Bucket::Terms {
                field,
                size: params["size"].as_u64().unwrap(),
                order: metrics.iter().position(|id| *id == order).unwrap(),
            }
        }
        "range" => {
            let range = |range: &Value| Range {
                from: range["from"].as_f64().unwrap(),
                to: range["to"].as_f64(),
                label: None,
            };
            Bucket::Ranges {
                field,
                ranges: params["ranges"].as_array().unwrap().iter().map(range).collect(),
            }
        }
        other => panic!("{other} is not known"),
    }
}

fn metric(aggregation: &Value) -> Metric {
    let params = &aggregation["params"];
    let field = || text(&params["field"]).to_owned();
    match text(&aggregation["type"]) {
        "count" => Metric::Count,
        "avg" => Metric::Average(field()),
        "sum" => Metric::Sum(field()),
        "max" => Metric::Max(field()),
        "percentiles" => {
            let percents = params["percents"].as_array().unwrap();
            Metric::Percentiles(
                field(),
                percents.iter().map(|percent| percent.as_f64().unwrap()).collect(),
            )
        }
        other => panic!("{other} is not known"),
    }
}
