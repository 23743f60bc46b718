//! A panel as a query to a search server, whichever tool it was written for, and the server's answer as rows.

use serde_json::{Map, Value, json};

/// A panel's query, read from the dashboard's own file.
#[derive(Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    /// An index pattern.
    pub(super) index: String,
    /// The field to which the dashboard's time range applies.
    pub(super) time_field: String,
    /// In Lucene's syntax; empty for everything.
    pub(super) query: String,
    /// From the outermost to the innermost.
    pub(super) buckets: Vec<Bucket>,
    pub(super) metrics: Vec<Metric>,
}

/// Grouping of documents.
#[derive(Debug)]
pub(super) enum Bucket {
    /// By the values of a field: the first ones by a metric of the panel, in descending order.
    Terms { field: String, size: u64, order: usize },
    /// By a number: from `from` (inclusive) to `to` (exclusive).
    Ranges { field: String, ranges: Vec<Range> },
    /// By queries.
    Filters(Vec<(String, String)>),
}

/// A range of numbers, and its label if the dashboard has one.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) from: f64,
    pub(super) to: Option<f64>,
    pub(super) label: Option<String>,
}

/// The metric of each group.
#[derive(Debug, PartialEq)]
pub(super) enum Metric {
    Count,
    Average(String),
    Sum(String),
    Max(String),
    Percentiles(String, Vec<f64>),
}

/// One row of an answer: the keys of its groups, and the metrics' values. The key of a group without a name is `None`.
pub(super) type Row = (Vec<Option<String>>, Vec<f64>);

impl Metric {
    fn field(&self) -> Option<&str> {
        match self {
            Self::Count => None,
            Self::Average(field)
            | Self::Sum(field)
            | Self::Max(field)
            | Self::Percentiles(field, _) => Some(field),
        }
    }

    fn aggregation(&self) -> Option<Value> {
        let field = self.field()?;
        Some(match self {
            Self::Count => return None,
            Self::Average(_) => json!({ "avg": { "field": field } }),
            Self::Sum(_) => json!({ "sum": { "field": field } }),
            Self::Max(_) => json!({ "max": { "field": field } }),
            Self::Percentiles(_, percents) => {
                json!({ "percentiles": { "field": field, "percents": percents } })
            }
        })
    }

    /// Returns its values in a group.
    fn values(&self, name: &str, group: &Value) -> Vec<f64> {
        match self {
            Self::Count => vec![group["doc_count"].as_f64().unwrap()],
            Self::Percentiles(_, percents) => {
                let values = &group[name]["values"];
                percents
                    .iter()
                    .map(|percent| values[format!("{percent:.1}")].as_f64().unwrap())
                    .collect()
            }
            Self::Average(_) | Self::Sum(_) | Self::Max(_) => {
                // A group without documents has no average and no maximum.
                vec![group[name]["value"].as_f64().unwrap_or(f64::NAN)]
            }
        }
    }
}

impl Panel {
    /// Returns every field that the panel aggregates or filters by time.
    pub(super) fn fields(&self) -> Vec<&str> {
        let grouped = self.buckets.iter().filter_map(|bucket| match bucket {
            Bucket::Terms { field, .. } | Bucket::Ranges { field, .. } => Some(field.as_str()),
            Bucket::Filters(_) => None,
        });
        let computed = self.metrics.iter().filter_map(Metric::field);
        grouped.chain(computed).chain([self.time_field.as_str()]).collect()
    }

    /// Returns every Lucene query of the panel.
    pub(super) fn queries(&self) -> Vec<&str> {
        let filters = self.buckets.iter().filter_map(|bucket| match bucket {
            Bucket::Filters(filters) => Some(filters),
            Bucket::Terms { .. } | Bucket::Ranges { .. } => None,
        });
        let filters = filters.flatten().map(|(_, query)| query.as_str());
        filters.chain([self.query.as_str()]).collect()
    }

    /// Returns the search that the tools make of it, for this time range.
    pub(super) fn search(&self, from: &str, to: &str) -> Value {
        let time = json!({ "range": { &self.time_field: { "gte": from, "lte": to } } });
        let mut conditions = vec![time];
        if !self.query.is_empty() {
            conditions.push(query_string(&self.query));
        }
        json!({
            "size": 0,
            "track_total_hits": true,
            "query": { "bool": { "filter": conditions } },
            "aggs": self.aggregations(0),
        })
    }

    fn aggregations(&self, level: usize) -> Value {
        let Some(bucket) = self.buckets.get(level) else {
            return self.computed();
        };
        let mut group = match bucket {
            Bucket::Terms { field, size, order } => {
                let order = match &self.metrics[*order] {
                    Metric::Count => json!({ "_count": "desc" }),
                    _ => json!({ metric_name(*order): "desc" }),
                };
                json!({ "terms": { "field": field, "size": size, "order": order } })
            }
            Bucket::Ranges { field, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(Range::as_json).collect();
                json!({ "range": { "field": field, "ranges": ranges } })
            }
            Bucket::Filters(filters) => {
                let filters: Map<_, _> = filters
                    .iter()
                    .map(|(label, query)| (label.clone(), query_string(query)))
                    .collect();
                json!({ "filters": { "filters": filters } })
            }
        };
        let mut below = self.aggregations(level + 1);
        if let (Bucket::Terms { .. }, Some(below)) = (bucket, below.as_object_mut()) {
            // The metric that orders a group must also be computed at the group's own level.
            below.extend(self.computed().as_object().unwrap().clone());
        }
        group["aggs"] = below;
        json!({ "group": group })
    }

    fn computed(&self) -> Value {
        let named = self.metrics.iter().enumerate();
        let named = named.filter_map(|(at, metric)| Some((metric_name(at), metric.aggregation()?)));
        Value::Object(named.collect())
    }

    /// Reads the server's answer, one row for each innermost group.
    pub(super) fn rows(&self, answer: &Value) -> Vec<Row> {
        let mut whole = answer["aggregations"].clone();
        if whole.is_null() {
            whole = json!({});
        }
        whole["doc_count"] = answer["hits"]["total"]["value"].clone();
        let mut rows = Vec::new();
        self.read(0, &whole, &mut Vec::new(), &mut rows);
        rows
    }

    fn read(
        &self,
        level: usize,
        group: &Value,
        keys: &mut Vec<Option<String>>,
        rows: &mut Vec<Row>,
    ) {
        let Some(bucket) = self.buckets.get(level) else {
            let metrics = self.metrics.iter().enumerate();
            let values = metrics.flat_map(|(at, metric)| metric.values(&metric_name(at), group));
            rows.push((keys.clone(), values.collect()));
            return;
        };
        for (key, inner) in bucket.groups(&group["group"]["buckets"]) {
            keys.push(key);
            self.read(level + 1, inner, keys, rows);
            keys.pop();
        }
    }
}

impl Bucket {
    /// Returns the groups of an answer with their names.
    fn groups<'a>(&self, answered: &'a Value) -> Vec<(Option<String>, &'a Value)> {
        match self {
            Self::Terms { .. } => {
                let key = |group: &Value| Some(group["key"].as_str().unwrap().to_owned());
                answered.as_array().unwrap().iter().map(|group| (key(group), group)).collect()
            }
            Self::Ranges { ranges, .. } => {
                let groups = answered.as_array().unwrap();
                assert_eq!(groups.len(), ranges.len(), "{answered}");
                let named = ranges.iter().zip(groups);
                named.map(|(range, group)| (range.label.clone(), group)).collect()
            }
            Self::Filters(filters) => {
                // A single filter has no name: it is there only because the tool requires a group.
                let name = |label: &String| (filters.len() > 1).then(|| label.clone());
                filters.iter().map(|(label, _)| (name(label), &answered[label])).collect()
            }
        }
    }
}

impl Range {
    fn as_json(&self) -> Value {
        let mut range = json!({ "from": self.from });
        if let Some(to) = self.to {
            range["to"] = to.into();
        }
        range
    }
}

fn metric_name(at: usize) -> String {
    format!("metric{at}")
}

/// Returns what all three tools make of a Lucene query.
fn query_string(query: &str) -> Value {
    json!({ "query_string": { "query": query, "analyze_wildcard": true } })
}
