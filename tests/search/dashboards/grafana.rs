//! Reads panels from Grafana's file: a dashboard of panels with one query each, for its Elasticsearch data source.

use serde_json::Value;

use super::objects::text;
use super::panel::{Bucket, Metric, Panel};

/// Returns every panel, in the order of the file.
pub(super) fn panels(dashboard: &Value) -> Vec<Panel> {
    dashboard["panels"].as_array().unwrap().iter().map(|panel| read(dashboard, panel)).collect()
}

fn read(dashboard: &Value, panel: &Value) -> Panel {
    let targets = panel["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 1, "a panel is one question");
    let target = &targets[0];
    assert_eq!(panel["datasource"], target["datasource"]);
    let metrics = target["metrics"].as_array().unwrap();
    let ids: Vec<&str> = metrics.iter().map(|metric| text(&metric["id"])).collect();
    let buckets = target["bucketAggs"].as_array().unwrap();
    // Without a group Grafana would query the documents themselves; without a query some versions use `*`, which means the index's default
    // fields only.
    assert!(!buckets.is_empty() && target["query"] != "");
    Panel {
        title: text(&panel["title"]).to_owned(),
        index: index(dashboard, target),
        time_field: text(&target["timeField"]).to_owned(),
        query: text(&target["query"]).to_owned(),
        buckets: buckets.iter().map(|group| bucket(group, metrics, &ids)).collect(),
        metrics: metrics.iter().map(metric).collect(),
    }
}

/// Returns the index of a query's data source: in Grafana the data source itself configures it, so the variable's label names it.
fn index(dashboard: &Value, target: &Value) -> String {
    let uid = text(&target["datasource"]["uid"]);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let named = |variable: &&Value| uid == format!("${{{}}}", text(&variable["name"]));
    let variable = variables.iter().find(named).unwrap();
    assert_eq!(variable["type"], "datasource");
    assert_eq!(variable["query"], target["datasource"]["type"]);
    let (_, index) = text(&variable["label"]).split_once("index ").unwrap();
    index.trim_end_matches(')').to_owned()
}

fn bucket(group: &Value, metrics: &[Value], ids: &[&str]) -> Bucket {
    let settings = &group["settings"];
    match text(&group["type"]) {
        "terms" => {
            assert_eq!(settings["order"], "desc");
            let order = match text(&settings["orderBy"]) {
                "_count" => metrics.iter().position(|metric| metric["type"] == "count"),
                id => ids.iter().position(|known| *known == id),
            };
            Bucket::Terms {
                field: text(&group["field"]).to_owned(),
                size: text(&settings["size"]).parse().unwrap(),
                order: order.unwrap(),
            }
        }
        "filters" => {
            let filters = settings["filters"].as_array().unwrap().iter();
            let pair = |filter: &Value| {
                (text(&filter["label"]).to_owned(), text(&filter["query"]).to_owned())
            };
            Bucket::Filters(filters.map(pair).collect())
        }
        other => panic!("{other} is not known"),
    }
}

fn metric(metric: &Value) -> Metric {
    let field = || text(&metric["field"]).to_owned();
    match text(&metric["type"]) {
        "count" => Metric::Count,
        "avg" => Metric::Average(field()),
        "sum" => Metric::Sum(field()),
        "max" => Metric::Max(field()),
        "percentiles" => {
            let percents = metric["settings"]["percents"].as_array().unwrap().iter();
            Metric::Percentiles(
                field(),
                percents.map(|percent| text(percent).parse().unwrap()).collect(),
            )
        }
        other => panic!("{other} is not known"),
    }
}
