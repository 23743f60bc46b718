//! Queries about traces, and their answers. Pure.
//!
//! First the documents of the traces are read with their versions (`_mget`, which reads current data). Then one request (`_msearch`) reads
//! the sums of their spans, and the spans themselves as far as needed for their tree, up to [`SPANS_MAX`]. The server computes the sums, so
//! a trace of a million spans costs no more than one of ten. In this order, the sums count at least what the writer of that version
//! counted, because it had waited until every copy of an index could find it.
//!
//! `queries/` has the searches. In `sums.json` an aggregation has the name of its field in the summary. Names are sorted alphabetically, at
//! most 100 of each kind, because nobody reads a longer list. The value of a fact is that of the span that started first.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::names::NS_PER_US;
use super::templates::{data, put};
use super::tree::{Agent, LOG, MODEL, Node, OTHER, RECORD, SILENT, STEP};
use crate::span::{Own, Spends};
use crate::support::json::raw::{Object, Raw};
use crate::support::rfc3339::is_odd;

/// Spans that are read at once: a server's default limit.
const SPANS_MAX: usize = 10_000;
/// Traces in one page of a search.
const PAGE: usize = 1_000;

// === Documents of traces ===

/// The version of a document at the backend: `_seq_no` and `_primary_term`.
pub(super) type Seq = (u64, u64);

/// An existing document of a trace.
#[derive(Debug, Default)]
pub(super) struct StoredTrace<'a> {
    /// Its version; `None` if it does not exist.
    pub(super) seq: Option<Seq>,
    /// Its contents. `metadata` and `trace_object` are not derived from spans.
    pub(super) document: Object<'a>,
}

fn seq_of(document: &Object<'_>) -> Option<Seq> {
    let number = |name| document.get(name).and_then(Raw::count);
    number("_seq_no").zip(number("_primary_term"))
}

/// Reads the answer to `_mget`: documents by id. Returns `None` if one could not be read.
pub(super) fn read_found(body: &[u8]) -> Option<HashMap<String, StoredTrace<'_>>> {
    let answer = Raw::parse(std::str::from_utf8(body).ok()?)?;
    let found = answer.get("docs")?.objects().map(|found| {
        // An index that does not exist yet has no documents. With any other error, there may be one.
        let error = found.get("error").map(|error| error.get_string("type").unwrap_or_default());
        if error.is_some_and(|error| error != "index_not_found_exception") {
            return None;
        }
        let document = found.get_object("_source").unwrap_or_default();
        Some((found.get_string("_id")?.into_owned(), StoredTrace { seq: seq_of(&found), document }))
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
    multi_search([sums, spans])
}

/// Builds the body of a multi search.
fn multi_search<const N: usize>(searches: [Value; N]) -> String {
    let header =
        json!({ "ignore_unavailable": true, "allow_no_indices": true, "request_cache": false });
    searches.map(|search| format!("{header}\n{search}\n")).concat()
}

#[derive(Debug, Default)]
pub(super) struct Looked<'a> {
    pub(super) sums: HashMap<String, Sum<'a>>,
    /// The spans of each trace, if all are here.
    pub(super) spans: HashMap<Cow<'a, str>, Vec<Hit<'a>>>,
    /// Whether there may be more spans.
    pub(super) is_cut: bool,
}

/// The aggregations of a trace's spans, by name.
#[derive(Debug, Default)]
pub(super) struct Sum<'a>(pub(super) Object<'a>);

impl<'a> Sum<'a> {
    pub(super) fn spans(&self) -> u64 {
        self.0.get("doc_count").and_then(Raw::count).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        self.0.get(name).and_then(|answer| answer.get("value")?.number()).unwrap_or_default()
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

    fn buckets(&self, name: &str) -> impl Iterator<Item = Raw<'a>> {
        let buckets = self.0.get(name).and_then(|answer| answer.get("buckets"));
        buckets.into_iter().flat_map(Raw::elements)
    }

    pub(super) fn names(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.buckets(name).filter_map(|bucket| bucket.get("key")?.string())
    }

    pub(super) fn of_type(&self, kind: &str) -> u64 {
        let is_kind = |bucket: &Raw<'_>| bucket.get_string("key").is_some_and(|key| key == kind);
        let counted = self.buckets("types").filter(is_kind);
        counted.filter_map(|bucket| bucket.get("doc_count")?.count()).sum()
    }
}

/// A span's document: where it is, and the parts that decide its place in the tree and whether its tokens count.
#[derive(Debug)]
pub(super) struct Hit<'a> {
    pub(super) index: String,
    pub(super) id: String,
    pub(super) seq: Option<Seq>,
    trace: Cow<'a, str>,
    /// Ids and names are JSON texts, which the server writes in one form.
    pub(super) node: Node<'a, (), &'a str>,
    pub(super) source: Object<'a>,
}

impl<'a> Hit<'a> {
    fn of(found: &Object<'a>) -> Option<Self> {
        let source = found.get_object("_source")?;
        let text = |of: &Object<'a>, name| {
            let is_said = |text: &&str| text.starts_with('"') && *text != "\"\"";
            of.get(name).map(Raw::text).filter(is_said)
        };
        let number = |of: &Object<'_>, name| of.get(name).and_then(Raw::count).unwrap_or_default();
        let agent = source.get_object("agent");
        let agent = agent
            .and_then(|it| Some(Agent { name: text(&it, "name")?, span: text(&it, "span_id") }));
        let counting = source.get_object("counting").unwrap_or_default();
        let said = counting.get_string("spends");
        let spends = match said.as_deref() {
            Some(MODEL) => Spends::Model,
            Some(LOG) => Spends::Log,
            Some(OTHER | STEP) => Spends::Other,
            Some(RECORD) => Spends::Record,
            None if source.get("usage").is_some() => Spends::Model,
            _ => Spends::Nothing,
        };
        let own = Own {
            parent: text(&source, "parent_id"),
            agent,
            spends,
            is_call: spends == Spends::Model || said.as_deref() == Some(SILENT),
            is_step: said.as_deref() == Some(STEP),
            is_boundary: counting.get("is_boundary").and_then(Raw::boolean) == Some(true),
            is_estimated: false,
            has_failed: false,
            answer: number(&counting, "answer"),
        };
        let id = text(&source, "span_id").unwrap_or_default();
        let start_us = number(&source, "start_us");
        Some(Self {
            index: found.get_string("_index").unwrap_or_default().into_owned(),
            id: found.get_string("_id")?.into_owned(),
            seq: seq_of(found),
            trace: source.get_string("trace_id")?,
            node: Node { trace: (), id, own, depth: 0, start_us },
            source,
        })
    }
}

/// Reads the answer to a multi search: the buckets of traces, none without an index, and the documents. Returns `None` if it is incomplete.
fn read_searches(body: &[u8]) -> Option<(Vec<Object<'_>>, Vec<Hit<'_>>)> {
    let (mut buckets, mut hits) = (Vec::new(), Vec::new());
    for search in Raw::parse(std::str::from_utf8(body).ok()?)?.get("responses")?.objects() {
        let is_late = search.get("timed_out").and_then(Raw::boolean) == Some(true);
        if is_late || search.get("_shards")?.get("failed")?.count()? != 0 {
            return None;
        }
        let traces = search.get("aggregations").and_then(|it| it.get("traces")?.get("buckets"));
        buckets.extend(traces.into_iter().flat_map(Raw::objects));
        let found = search.get("hits").and_then(|hits| hits.get("hits"));
        for hit in found.into_iter().flat_map(Raw::objects) {
            hits.push(Hit::of(&hit)?);
        }
    }
    Some((buckets, hits))
}

/// Reads sums and spans. Returns `None` if they are incomplete.
pub(super) fn read_looked(body: &[u8]) -> Option<Looked<'_>> {
    let (buckets, hits) = read_searches(body)?;
    let mut looked = Looked { is_cut: SPANS_MAX <= hits.len(), ..Looked::default() };
    for bucket in buckets {
        looked.sums.insert(bucket.get_string("key")?.into_owned(), Sum(bucket));
    }
    for hit in hits.into_iter().filter(|_| !looked.is_cut) {
        looked.spans.entry(hit.trace.clone()).or_default().push(hit);
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
    multi_search([page])
}

/// Reads the traces in the answer, and whether there may be more. Returns `None` if the answer is incomplete.
pub(super) fn read_page(body: &[u8]) -> Option<(Vec<String>, bool)> {
    let (buckets, _) = read_searches(body)?;
    let key = |bucket: &Object<'_>| bucket.get("key")?.get_string("trace").map(Cow::into_owned);
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
        assert_eq!(found["a"].seq, Some((7, 2)));
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
