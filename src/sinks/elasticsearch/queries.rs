//! What is asked of the backend about traces, and what it answers. Pure.
//!
//! First come the documents of the traces with their versions (`_mget`, which reads what is there now), then in one request
//! (`_msearch`) the sums of their spans, made by the server so that a trace of a million spans costs no more than one of ten, and the
//! spans themselves as far as it takes to put them together, up to [`SPANS_MAX`]. In this order the sums count at least what the
//! writer of that version counted: it had waited until every copy of an index could find it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::names::{NS_PER_US, OURS, is_odd};
use super::tree::{Above, Agent, LOG, MODEL, Node, OTHER, SILENT};
use crate::span::Spends;

/// Spans that are looked at together: what a server returns at once, unless it was told otherwise.
pub(super) const SPANS_MAX: usize = 10_000;
/// Names of one sort in a summary; more would make no list that anybody reads.
pub(super) const NAMES_MAX: usize = 100;
/// Traces that a look for those of a time finds at once.
const PAGE: usize = 1_000;

// === Documents of traces ===

/// The version of a document at the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seq {
    /// `_seq_no`.
    pub(super) number: u64,
    /// `_primary_term`.
    pub(super) term: u64,
}

/// The document of a trace that is there.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    /// Its version; none where there is none.
    pub(super) seq: Option<Seq>,
    /// All of it, as it was written.
    pub(super) source: &'a str,
    pub(super) document: TraceDocument<'a>,
}

/// What a trace's document says that is not made of spans, and how many of these it counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TraceDocument<'a> {
    #[serde(borrow)]
    pub(super) metadata: Option<&'a RawValue>,
    pub(super) trace_object: Option<Said>,
    pub(super) workflow_name: Option<String>,
    pub(super) group_id: Option<String>,
    pub(super) span_count: u64,
}

/// What a trace object has said.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub(super) workflow_name: Option<String>,
    pub(super) group_id: Option<String>,
}

/// A document as the backend returns it, from `_mget` or a search.
#[derive(Debug, Deserialize)]
pub(super) struct Stored<S> {
    #[serde(rename = "_index", default)]
    pub(super) index: String,
    #[serde(rename = "_id")]
    pub(super) id: String,
    #[serde(rename = "_seq_no")]
    number: Option<u64>,
    #[serde(rename = "_primary_term")]
    term: Option<u64>,
    #[serde(rename = "_source")]
    pub(super) source: S,
    error: Option<Value>,
}

impl<S> Stored<S> {
    pub(super) fn seq(&self) -> Option<Seq> {
        self.number.zip(self.term).map(|(number, term)| Seq { number, term })
    }
}

/// Reads the answer to `_mget`: documents by their ids. None where one could not be read.
pub(super) fn read_found(body: &[u8]) -> Option<HashMap<String, Found<'_>>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        docs: Vec<Stored<Option<&'a RawValue>>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let found = answer.docs.into_iter().map(|doc| {
        // An index that is not there yet has no documents. Anything else may have one.
        let is_missing = |error: &Value| error["type"] == "index_not_found_exception";
        if !doc.error.as_ref().is_none_or(is_missing) {
            return None;
        }
        let (seq, source) = (doc.seq(), doc.source.map_or("", RawValue::get));
        let document = serde_json::from_str(source).unwrap_or_default();
        Some((doc.id, Found { seq, source, document }))
    });
    found.collect()
}

// === Sums and spans ===

/// The body of the request that [`read_looked`] reads the answer to.
pub(super) fn look(names: &[&str]) -> String {
    let header =
        json!({ "ignore_unavailable": true, "allow_no_indices": true, "request_cache": false });
    let searches = [sums(names), spans(names)];
    searches.iter().fold(String::new(), |body, search| format!("{body}{header}\n{search}\n"))
}

/// The values of all spans, in the order of the alphabet.
const ALL: &str = "terms";
/// That of the span that began first.
const FIRST: &str = "first";

/// What the spans of a trace are asked for: under which name, how, and by which field of theirs.
const SUMS: &[(&str, &str, &str)] = &[
    ("start_us", "min", "start_us"),
    ("end_us", "max", "end_us"),
    ("received_at", "min", "ingested_at"),
    ("updated_at", "max", "ingested_at"),
    ("error_count", "sum", "error_flag"),
    ("max_depth", "max", "depth"),
    ("types", ALL, "span_type"),
    ("agents", ALL, "agent.name"),
    ("tools", ALL, "tool.name"),
    ("models", ALL, "model.name"),
    ("workflow_name", FIRST, "workflow_name"),
    ("group_id", FIRST, "group_id"),
    ("service_name", FIRST, "service_name"),
    ("input_tokens", "sum", "usage.input_tokens"),
    ("output_tokens", "sum", "usage.output_tokens"),
    ("total_tokens", "sum", "usage.total_tokens"),
    ("cost_usd", "sum", "usage.cost_usd"),
];

fn aggregation(how: &str, field: &str) -> Value {
    match how {
        ALL => json!({ ALL: { "field": field, "size": NAMES_MAX, "order": { "_key": "asc" } } }),
        FIRST => json!({
            "terms": {
                "field": field, "size": 1, "order": [{ "begun": "asc" }, { "_key": "asc" }]
            },
            "aggs": { "begun": { "min": { "field": "timestamp" } } },
        }),
        how => json!({ how: { "field": field } }),
    }
}

fn sums(names: &[&str]) -> Value {
    let wanted = SUMS.iter().map(|(name, how, field)| (*name, aggregation(how, field)));
    json!({
        "size": 0,
        "query": { "bool": {
            "filter": [{ "terms": { "trace_id": names } }],
            "must_not": [{ "term": { "source": OURS } }],
        }},
        "aggs": { "traces": {
            "terms": { "field": "trace_id", "size": names.len() },
            "aggs": wanted.collect::<HashMap<_, _>>(),
        }},
    })
}

fn spans(names: &[&str]) -> Value {
    json!({
        "size": SPANS_MAX,
        "track_total_hits": false,
        "seq_no_primary_term": true,
        "_source": [
            "trace_id", "span_id", "parent_id", "agent", "depth", "start_us", "usage",
            "aggregate_usage", "counting",
        ],
        "query": { "bool": { "filter": [{ "terms": { "trace_id": names } }] } },
    })
}

#[derive(Debug, Default)]
pub(super) struct Looked<'a> {
    pub(super) sums: HashMap<String, Sum>,
    pub(super) spans: Vec<Hit<'a>>,
}

impl Looked<'_> {
    /// Whether there may be more spans than those that were returned.
    pub(super) fn is_cut(&self) -> bool {
        SPANS_MAX <= self.spans.len()
    }
}

/// What the backend says of a trace's spans, by the names of [`SUMS`].
#[derive(Debug, Default)]
pub(super) struct Sum(Value);

impl Sum {
    pub(super) fn spans(&self) -> u64 {
        self.0.get("doc_count").and_then(Value::as_u64).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        let value = self.0.get(name).and_then(|answer| answer.get("value")?.as_f64());
        value.filter(|value| value.is_finite()).unwrap_or_default()
    }

    /// As a whole number. Aggregations answer in doubles, which are exact up to 2^53.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the conversion saturates"
    )]
    pub(super) fn whole(&self, name: &str) -> u64 {
        self.number(name) as u64
    }

    /// A time in microseconds since 1970. Documents of an earlier version may say odd ones.
    pub(super) fn time_us(&self, name: &str) -> Option<u64> {
        Some(self.whole(name)).filter(|at| !is_odd(at.saturating_mul(NS_PER_US)))
    }

    fn buckets(&self, name: &str) -> impl Iterator<Item = &Value> {
        let buckets = self.0.get(name).and_then(|answer| answer.get("buckets")?.as_array());
        buckets.into_iter().flatten()
    }

    pub(super) fn names(&self, name: &str) -> impl Iterator<Item = &str> {
        self.buckets(name).filter_map(|bucket| bucket.get("key")?.as_str())
    }

    pub(super) fn of_type(&self, kind: &str) -> u64 {
        let buckets = self.buckets("types");
        let counted = buckets.filter(|bucket| bucket.get("key").is_some_and(|key| key == kind));
        counted.filter_map(|bucket| bucket.get("doc_count")?.as_u64()).sum()
    }
}

/// The document of a span, as far as it says what is above it and whose tokens count.
pub(super) type Hit<'a> = Stored<Source<'a>>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source<'a> {
    pub(super) trace_id: String,
    span_id: String,
    parent_id: Option<String>,
    start_us: u64,
    pub(super) agent: Option<KnownAgent>,
    pub(super) depth: Option<u16>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) aggregate_usage: Option<&'a RawValue>,
    counting: Counting,
}

#[derive(Debug, Deserialize)]
pub(super) struct KnownAgent {
    name: Option<String>,
    span_id: Option<String>,
}

/// What a document says beside its tokens of whether they count.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counting {
    spends: Option<String>,
    is_boundary: bool,
}

impl Hit<'_> {
    pub(super) fn agent(&self) -> Option<Agent<'_>> {
        let agent = self.source.agent.as_ref()?;
        Some(Agent { name: agent.name.as_deref()?, span: agent.span_id.as_deref() })
    }

    /// Whether it says that its tokens count; none where it says no tokens.
    pub(super) fn counts(&self) -> Option<bool> {
        let Source { usage, aggregate_usage, .. } = self.source;
        usage.or(aggregate_usage).map(|_| usage.is_some())
    }

    pub(super) fn node(&self) -> ((&str, &str), Above<(&str, &str)>, Node<'_>) {
        let source = &self.source;
        let trace = source.trace_id.as_str();
        let above =
            source.parent_id.as_deref().map_or(Above::Nothing, |id| Above::Span((trace, id)));
        let spends = match source.counting.spends.as_deref() {
            Some(MODEL) => Spends::Model,
            Some(LOG) => Spends::Log,
            Some(OTHER) => Spends::Other,
            None if source.usage.is_some() => Spends::Model,
            _ => Spends::Nothing,
        };
        let node = Node {
            agent: self.agent(),
            start_us: source.start_us,
            spends,
            is_call: spends == Spends::Model || source.counting.spends.as_deref() == Some(SILENT),
            is_boundary: source.counting.is_boundary,
        };
        ((trace, source.span_id.as_str()), above, node)
    }
}

/// Reads sums and spans; none where they are not whole.
pub(super) fn read_looked(body: &[u8]) -> Option<Looked<'_>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        responses: Vec<Response<'a>>,
    }
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(default)]
        timed_out: bool,
        #[serde(rename = "_shards")]
        shards: Shards,
        #[serde(default)]
        aggregations: Value,
        #[serde(borrow, default)]
        hits: Hits<'a>,
    }
    #[derive(Deserialize)]
    struct Shards {
        failed: u64,
    }
    #[derive(Default, Deserialize)]
    struct Hits<'a> {
        #[serde(borrow, default)]
        hits: Vec<Hit<'a>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let mut looked = Looked::default();
    for mut response in answer.responses {
        if response.timed_out || 0 < response.shards.failed {
            return None;
        }
        // Without any index there is nothing to sum up.
        let buckets = response.aggregations.pointer_mut("/traces/buckets");
        for bucket in buckets.and_then(Value::as_array_mut).into_iter().flatten() {
            let name = bucket.get("key").and_then(Value::as_str)?.to_owned();
            looked.sums.insert(name, Sum(bucket.take()));
        }
        looked.spans.extend(response.hits.hits);
    }
    Some(looked)
}

// === Traces of a time ===

/// Asks which traces there are of what was received since then.
pub(super) fn page(since_ms: u64, after: Option<&str>) -> String {
    let sources = json!([{ "trace": { "terms": { "field": "trace_id" } } }]);
    let traces = match after {
        None => json!({ "size": PAGE, "sources": sources }),
        Some(after) => json!({ "size": PAGE, "sources": sources, "after": { "trace": after } }),
    };
    json!({
        "size": 0,
        "track_total_hits": false,
        "query": { "range": { "ingested_at": { "gte": since_ms, "format": "epoch_millis" } } },
        "aggs": { "traces": { "composite": traces } },
    })
    .to_string()
}

/// Reads the traces in the answer, and whether there may be more; none where it is not whole.
pub(super) fn read_page(body: &[u8]) -> Option<(Vec<String>, bool)> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let failed = answer.pointer("/_shards/failed").and_then(Value::as_u64);
    if answer.get("timed_out") == Some(&Value::Bool(true)) || failed != Some(0) {
        return None;
    }
    let buckets = answer.pointer("/aggregations/traces/buckets").and_then(Value::as_array);
    let key = |bucket: &Value| bucket.pointer("/key/trace")?.as_str().map(str::to_owned);
    let traces = buckets.into_iter().flatten().map(key).collect::<Option<Vec<String>>>()?;
    let has_more = PAGE <= traces.len();
    Some((traces, has_more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_not_whole_are_not_used() {
        for body in [
            r#"{"responses":[{"timed_out":true,"_shards":{"failed":0},"hits":{"hits":[]}}]}"#,
            r#"{"responses":[{"timed_out":false,"_shards":{"failed":1},"hits":{"hits":[]}}]}"#,
            r#"{"responses":[{"error":{"type":"search_phase_execution_exception"},"status":503}]}"#,
            "",
            "{}",
        ] {
            assert!(read_looked(body.as_bytes()).is_none(), "{body}");
        }
        let nothing = r#"{"responses":[{"timed_out":false,"_shards":{"failed":0}}]}"#;
        assert_eq!(read_looked(nothing.as_bytes()).map(|looked| looked.sums.len()), Some(0));
        assert!(read_page(br#"{"timed_out":false,"_shards":{"failed":1}}"#).is_none());
    }

    #[test]
    fn a_document_is_found_with_its_version_and_what_only_it_knows() {
        let body = r#"{"docs":[
            {"_id":"a","found":true,"_seq_no":7,"_primary_term":2,"_source":{"span_count":3,"metadata":{"k":[1]},
             "trace_object":{"workflow_name":"w"}}},
            {"_id":"b","found":false},
            {"_id":"c","error":{"type":"index_not_found_exception"}}]}"#;
        let found = read_found(body.as_bytes()).unwrap();
        assert_eq!(found["a"].seq, Some(Seq { number: 7, term: 2 }));
        assert_eq!(found["a"].document.metadata.map(RawValue::get), Some(r#"{"k":[1]}"#));
        assert_eq!(
            found["a"].document.trace_object.as_ref().unwrap().workflow_name.as_deref(),
            Some("w")
        );
        assert_eq!(found["a"].document.span_count, 3);
        assert!(found["b"].seq.is_none() && found["c"].seq.is_none());
        let broken =
            r#"{"docs":[{"_id":"a","error":{"type":"no_shard_available_action_exception"}}]}"#;
        assert!(read_found(broken.as_bytes()).is_none(), "it may be there");
    }
}
