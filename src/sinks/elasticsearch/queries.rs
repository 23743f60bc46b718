//! Queries about traces, and their answers. Pure.
//!
//! First the documents of the traces are read with their versions (`_mget`, which reads current data). Then one request (`_msearch`) reads
//! the sums of their spans, and the spans themselves as far as needed for their tree, up to [`SPANS_MAX`]. The server computes the sums, so
//! a trace of a million spans costs no more than one of ten. In this order, the sums count at least what the writer of that version
//! counted, because it had waited until every copy of an index could find it.
//!
//! `queries/` has the searches. In `sums.json` an aggregation has the name of its field in the summary. Names are sorted alphabetically, at
//! most 100 of each kind, because nobody reads a longer list. The value of a fact is that of the span that started first.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::names::{NS_PER_US, is_odd};
use super::templates::{data, put};
use super::tree::{Agent, LOG, MODEL, Node, OTHER, RECORD, SILENT, STEP};
use crate::span::{Own, Spends};
use crate::support::json::raw::{Object, Raw};

/// Spans that are read at once: a server's default limit.
pub(super) const SPANS_MAX: usize = 10_000;
/// Traces in one page of a search.
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

/// An existing document of a trace.
#[derive(Debug, Default)]
pub(super) struct StoredTrace<'a> {
    /// Its version; `None` if it does not exist.
    pub(super) seq: Option<Seq>,
    /// Its contents. `metadata` and `trace_object` are not derived from spans.
    pub(super) document: Object<'a>,
}

/// A document as the backend returns it, from `_mget` or a search.
#[derive(Debug, Deserialize)]
pub(super) struct StoredDocument<S> {
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

impl<S> StoredDocument<S> {
    pub(super) fn seq(&self) -> Option<Seq> {
        self.number.zip(self.term).map(|(number, term)| Seq { number, term })
    }
}

/// Reads the answer to `_mget`: documents by id. Returns `None` if one could not be read.
pub(super) fn read_found(body: &[u8]) -> Option<HashMap<String, StoredTrace<'_>>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        docs: Vec<StoredDocument<Option<&'a RawValue>>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let found = answer.docs.into_iter().map(|doc| {
        // An index that does not exist yet has no documents. With any other error, there may be one.
        let is_missing = |error: &Value| {
            error.get("type").is_some_and(|kind| kind == "index_not_found_exception")
        };
        if !doc.error.as_ref().is_none_or(is_missing) {
            return None;
        }
        let document = doc.source.map(|source| Raw::trusted(source.get()).object());
        Some((
            doc.id.clone(),
            StoredTrace { seq: doc.seq(), document: document.unwrap_or_default() },
        ))
    });
    found.collect()
}

// === Sums and spans ===

/// Builds the body of the request whose answer [`read_looked`] reads.
pub(super) fn look(names: &[&str]) -> String {
    let mut sums = data(include_str!("queries/sums.json"));
    put(&mut sums, "/query/bool/filter/0/terms", "trace_id", json!(names));
    put(&mut sums, "/aggs/traces/terms", "size", json!(names.len()));
    let mut spans = data(include_str!("queries/spans.json"));
    put(&mut spans, "/query/bool/filter/0/terms", "trace_id", json!(names));
    put(&mut spans, "", "size", json!(SPANS_MAX));
    let header =
        json!({ "ignore_unavailable": true, "allow_no_indices": true, "request_cache": false });
    format!("{header}\n{sums}\n{header}\n{spans}\n")
}

#[derive(Debug, Default)]
pub(super) struct Looked<'a> {
    pub(super) sums: HashMap<String, Sum>,
    pub(super) spans: Vec<Hit<'a>>,
}

impl Looked<'_> {
    /// Returns whether there may be more spans than were returned.
    pub(super) fn is_cut(&self) -> bool {
        SPANS_MAX <= self.spans.len()
    }
}

/// The aggregations of a trace's spans, by name.
#[derive(Debug, Default)]
pub(super) struct Sum(pub(super) Value);

impl Sum {
    pub(super) fn spans(&self) -> u64 {
        self.0.get("doc_count").and_then(Value::as_u64).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        let value = self.0.get(name).and_then(|answer| answer.get("value")?.as_f64());
        value.filter(|value| value.is_finite()).unwrap_or_default()
    }

    /// Returns an integer. Aggregations return doubles, which are exact up to 2^53.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the conversion saturates"
    )]
    pub(super) fn whole(&self, name: &str) -> u64 {
        self.number(name) as u64
    }

    /// Returns a time in microseconds since 1970. Documents of an earlier version may have invalid ones.
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
        let is_kind = |bucket: &&Value| bucket.get("key").is_some_and(|key| key == kind);
        let counted = self.buckets("types").filter(is_kind);
        counted.filter_map(|bucket| bucket.get("doc_count")?.as_u64()).sum()
    }
}

/// The parts of a span's document that decide its place in the tree and whether its tokens count.
pub(super) type Hit<'a> = StoredDocument<Source<'a>>;

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

/// The document's evidence whether its tokens count, in addition to the tokens.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counting {
    spends: Option<String>,
    is_boundary: bool,
    answer: u64,
}

impl Hit<'_> {
    pub(super) fn agent(&self) -> Option<Agent<'_>> {
        let agent = self.source.agent.as_ref()?;
        Some(Agent { name: agent.name.as_deref()?, span: agent.span_id.as_deref() })
    }

    /// Returns whether the document counts its tokens; `None` without tokens.
    pub(super) fn counts(&self) -> Option<bool> {
        let Source { usage, aggregate_usage, .. } = self.source;
        usage.or(aggregate_usage).map(|_| usage.is_some())
    }

    pub(super) fn node(&self) -> Node<'_, &str, &str> {
        let source = &self.source;
        let said = source.counting.spends.as_deref();
        let spends = match said {
            Some(MODEL) => Spends::Model,
            Some(LOG) => Spends::Log,
            Some(OTHER | STEP) => Spends::Other,
            Some(RECORD) => Spends::Record,
            None if source.usage.is_some() => Spends::Model,
            _ => Spends::Nothing,
        };
        let own = Own {
            parent: source.parent_id.as_deref(),
            agent: self.agent(),
            spends,
            is_call: spends == Spends::Model || said == Some(SILENT),
            is_step: said == Some(STEP),
            is_boundary: source.counting.is_boundary,
            is_estimated: false,
            has_failed: false,
            answer: source.counting.answer,
        };
        let (trace, id) = (source.trace_id.as_str(), source.span_id.as_str());
        Node { trace, id, own, depth: 0, start_us: source.start_us }
    }
}

/// The answer to a search.
#[derive(Deserialize)]
struct Search<'a> {
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

impl<'a> Search<'a> {
    /// Returns the buckets of traces, none without an index, and the documents; `None` if the answer is incomplete.
    fn whole(mut self) -> Option<(Vec<Value>, Vec<Hit<'a>>)> {
        let is_whole = !self.timed_out && self.shards.failed == 0;
        let buckets = match self.aggregations.pointer_mut("/traces/buckets").map(Value::take) {
            Some(Value::Array(buckets)) => buckets,
            _ => Vec::new(),
        };
        is_whole.then_some((buckets, self.hits.hits))
    }
}

/// Reads sums and spans. Returns `None` if they are incomplete.
pub(super) fn read_looked(body: &[u8]) -> Option<Looked<'_>> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        responses: Vec<Search<'a>>,
    }
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let mut looked = Looked::default();
    for search in answer.responses {
        let (buckets, spans) = search.whole()?;
        for bucket in buckets {
            looked.sums.insert(bucket.get("key")?.as_str()?.to_owned(), Sum(bucket));
        }
        looked.spans.extend(spans);
    }
    Some(looked)
}

// === Traces of a time ===

/// Builds a search for the traces of everything received since this time.
pub(super) fn page(since_ms: u64, after: Option<&str>) -> String {
    let mut page = data(include_str!("queries/page.json"));
    put(&mut page, "/query/range/ingested_at", "gte", json!(since_ms));
    put(&mut page, "/aggs/traces/composite", "size", json!(PAGE));
    if let Some(after) = after {
        put(&mut page, "/aggs/traces/composite", "after", json!({ "trace": after }));
    }
    page.to_string()
}

/// Reads the traces in the answer, and whether there may be more. Returns `None` if the answer is incomplete.
pub(super) fn read_page(body: &[u8]) -> Option<(Vec<String>, bool)> {
    let (buckets, _) = serde_json::from_slice::<Search<'_>>(body).ok()?.whole()?;
    let key = |bucket: &Value| bucket.pointer("/key/trace")?.as_str().map(str::to_owned);
    let traces = buckets.iter().map(key).collect::<Option<Vec<String>>>()?;
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
        let metadata = found["a"].document.get("metadata").map(Raw::text);
        assert_eq!(metadata, Some(r#"{"k":[1]}"#));
        let object = found["a"].document.get_object("trace_object").unwrap();
        assert_eq!(object.get_string("workflow_name").as_deref(), Some("w"));
        assert_eq!(found["a"].document.get("span_count").and_then(Raw::count), Some(3));
        assert!(found["b"].seq.is_none() && found["c"].seq.is_none());
        let broken =
            r#"{"docs":[{"_id":"a","error":{"type":"no_shard_available_action_exception"}}]}"#;
        assert!(read_found(broken.as_bytes()).is_none(), "it may be there");
    }
}
