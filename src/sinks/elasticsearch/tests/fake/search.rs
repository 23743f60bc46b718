//! Searches of the in-process backend: refreshed documents, their sums and their traces.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{Answer, State, error, merge};

impl State {
    pub(super) fn mget(&self, path: &str, body: &[u8]) -> Answer {
        let denied = "action [indices:data/read/mget] is unauthorized";
        if !self.manner.may_read && !self.manner.may_read_others {
            return error(403, "security_exception", denied);
        }
        let index = path.trim_start_matches('/').split('/').next().unwrap();
        let body: Json = serde_json::from_slice(body).unwrap();
        if !self.manner.may_read {
            let error = json!({"type": "security_exception", "reason": denied});
            let denied = |id: &Json| json!({"_id": id, "error": error});
            let docs: Vec<Json> = body["ids"].as_array().unwrap().iter().map(denied).collect();
            return (200, json!({ "docs": docs }));
        }
        let docs = body["ids"].as_array().unwrap().iter().map(|id| {
            let doc = self.indices.get(index).and_then(|docs| docs.get(id.as_str().unwrap()));
            match doc {
                Some(doc) => json!({
                    "_id": id, "found": true, "_seq_no": doc.seq, "_primary_term": 1,
                    "_source": doc.source,
                }),
                None => json!({"_id": id, "found": false}),
            }
        });
        (200, json!({ "docs": docs.collect::<Vec<_>>() }))
    }

    pub(super) fn search(&self, path: &str, body: &[u8]) -> Json {
        let body: Json = serde_json::from_slice(body).unwrap();
        let patterns = path.trim_start_matches('/').split('/').next().unwrap();
        let is_asked = |name: &str| {
            patterns.split(',').any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            })
        };
        let now = Instant::now();
        let asked = self.indices.iter().filter(|(name, _)| is_asked(name));
        let refresh = self.manner.refresh;
        let found =
            asked.flat_map(|(name, docs)| docs.iter().map(move |(id, doc)| (name, id, doc)));
        let found: Vec<_> = found
            .filter_map(|(name, id, doc)| Some((name, (id, doc.seq), doc.found(refresh, now)?)))
            .filter(|(_, _, source)| matches_query(source, &body["query"]))
            .collect();
        let mut answer = json!({"timed_out": false, "_shards": {"failed": 0}});
        if body["size"] == 0 {
            let docs: Vec<&Json> = found.iter().map(|(_, _, source)| *source).collect();
            answer["aggregations"] = aggregate(&docs, &body["aggs"]);
        } else {
            let hit = |(index, (id, seq), source): &(&String, (&String, u64), &Json)| json!({"_index": index, "_id": id, "_seq_no": seq, "_primary_term": 1, "_source": source});
            let size = usize::try_from(body["size"].as_u64().unwrap()).unwrap();
            answer["hits"] = json!({"hits": found.iter().take(size).map(hit).collect::<Vec<_>>()});
        }
        answer
    }
}

fn field<'a>(doc: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(doc, |at, name| at.get(name))
}

fn matches_query(doc: &Json, query: &Json) -> bool {
    if let Some(since) = query["range"]["ingested_at"]["gte"].as_u64() {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds fit")]
        return number(&doc["ingested_at"]).unwrap() >= since as f64;
    }
    let terms = query["bool"]["filter"][0]["terms"].as_object().unwrap();
    let (name, wanted) = terms.iter().next().unwrap();
    let not = query["bool"]["must_not"][0]["term"].as_object();
    let is_excluded = not.is_some_and(|not| {
        let (not_name, not_value) = not.iter().next().unwrap();
        field(doc, not_name) == Some(not_value)
    });
    field(doc, name).is_some_and(|value| wanted.as_array().unwrap().contains(value)) && !is_excluded
}

fn aggregate(docs: &[&Json], wanted: &Json) -> Json {
    let answer = |aggregation: &Json| {
        let (kind, body) =
            aggregation.as_object().unwrap().iter().find(|(key, _)| *key != "aggs").unwrap();
        if kind == "composite" {
            return composite(docs, body);
        }
        let path = body["field"].as_str().unwrap();
        if kind == "terms" {
            return terms(docs, path, aggregation, body["size"].as_u64().unwrap());
        }
        let numbers: Vec<f64> = docs.iter().filter_map(|doc| number(field(doc, path)?)).collect();
        let value = match kind.as_str() {
            "sum" => Some(numbers.iter().sum()),
            "min" => numbers.into_iter().reduce(f64::min),
            "max" => numbers.into_iter().reduce(f64::max),
            other => panic!("{other} is not imitated"),
        };
        json!({ "value": value })
    };
    let wanted = wanted.as_object().unwrap().iter();
    Json::Object(wanted.map(|(name, aggregation)| (name.clone(), answer(aggregation))).collect())
}

fn terms(docs: &[&Json], path: &str, aggregation: &Json, size: u64) -> Json {
    let mut groups: BTreeMap<String, Vec<&Json>> = BTreeMap::new();
    for doc in docs {
        if let Some(value) = field(doc, path).and_then(Json::as_str) {
            groups.entry(value.to_owned()).or_default().push(doc);
        }
    }
    let buckets = groups.into_iter().map(|(key, docs)| {
        let mut bucket = json!({"key": key, "doc_count": docs.len()});
        if let Some(inner) = aggregation.get("aggs") {
            merge(&mut bucket, aggregate(&docs, inner));
        }
        bucket
    });
    let mut buckets: Vec<Json> = buckets.collect();
    if aggregation["terms"]["order"][0]["begun"] == "asc" {
        let begun = |bucket: &Json| bucket["begun"]["value"].as_f64().unwrap();
        buckets.sort_by(|one, other| begun(one).total_cmp(&begun(other)));
    }
    buckets.truncate(usize::try_from(size).unwrap());
    json!({ "buckets": buckets })
}

/// Returns the distinct values of a field after the last one.
fn composite(docs: &[&Json], body: &Json) -> Json {
    let path = body["sources"][0]["trace"]["terms"]["field"].as_str().unwrap();
    let after = body["after"]["trace"].as_str().unwrap_or_default();
    let values: BTreeSet<&str> = docs
        .iter()
        .filter_map(|doc| field(doc, path)?.as_str())
        .filter(|value| after < *value)
        .collect();
    let size = usize::try_from(body["size"].as_u64().unwrap()).unwrap();
    let buckets = values.into_iter().take(size).map(|value| json!({"key": {"trace": value}}));
    json!({ "buckets": buckets.collect::<Vec<_>>() })
}

/// Returns a number, or a time in milliseconds.
fn number(value: &Json) -> Option<f64> {
    match value {
        Json::String(time) => {
            let time: jiff::Timestamp = time.parse().unwrap();
            #[expect(clippy::cast_precision_loss, reason = "milliseconds fit")]
            Some(time.as_millisecond() as f64)
        }
        other => other.as_f64(),
    }
}
