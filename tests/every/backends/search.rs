//! A real Elasticsearch or OpenSearch: the first of those on which `tests/search` runs.

use std::time::Instant;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::Backend;
use crate::expected::{Expected, Span};
use crate::search_servers::{self, Node};
use crate::seen::{Seen, Words};
use crate::{DELIVERY_MAX, READ_EVERY};

const PREFIX: &str = "agent-traces";
/// Maximum number of documents in one search answer.
const DOCUMENTS_MAX: usize = 10_000;

pub(super) async fn start() -> Option<Box<dyn Backend>> {
    let server = search_servers::available().into_iter().next()?;
    Some(Box::new(Node::start(&server, &[]).await))
}

/// Returns all documents of an index.
async fn documents(node: &Node, kind: &str) -> Vec<Value> {
    node.post(&format!("/{PREFIX}-{kind}/_refresh"), json!({})).await;
    let all = json!({ "size": DOCUMENTS_MAX, "query": { "match_all": {} } });
    let found = node.search(&format!("{PREFIX}-{kind}"), all).await;
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert!(hits.len() < DOCUMENTS_MAX, "there may be more");
    hits.iter().map(|hit| hit["_source"].clone()).collect()
}

impl Backend for Node {
    fn name(&self) -> &'static str {
        "search"
    }

    fn table(&self) -> String {
        format!(
            "type = \"elasticsearch\"\nendpoints = [{:?}]\nindex_prefix = {PREFIX:?}",
            self.url()
        )
    }

    fn words(&self) -> Words {
        Words {
            name: |span| &span.plain_name,
            kind: |span| match &*span.data_type {
                "function" => Some("tool_call"),
                other => Some(other),
            },
            ..Words::own()
        }
    }

    fn read<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async {
            let spans = documents(self, "spans").await;
            spans.iter().map(|span| seen(span, expected)).collect()
        })
    }

    fn own_figures<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            let task = |span: &Span| span.task_tokens.unwrap_or_default();
            // After these errors, the run goes on.
            let survived = ["(non-fatal)", "Multiple handoffs requested"];
            let is_fatal = |error: &&String| !survived.iter().any(|end| error.ends_with(end));
            let wanted = [
                ("/span_count", expected.spans.len() as u64),
                (
                    "/error_count",
                    expected.sum(|span| span.error.as_ref().filter(is_fatal).map(|_| 1)),
                ),
                ("/usage/input_tokens", expected.sum(|span| span.input_tokens.or(task(span).0))),
                ("/usage/output_tokens", expected.sum(|span| span.output_tokens.or(task(span).1))),
            ];
            // Summaries are made some time after the spans.
            let begun = Instant::now();
            loop {
                let traces = documents(self, "traces").await;
                let sum = |field: &str| {
                    traces.iter().filter_map(|trace| trace.pointer(field)?.as_u64()).sum()
                };
                let found = wanted.map(|(field, _)| (field, sum(field)));
                if found == wanted {
                    let (server, count) = (self.server().name, traces.len());
                    return Some(format!(
                        "{server}: {count} summaries of traces add up to {found:?}"
                    ));
                }
                assert!(begun.elapsed() < DELIVERY_MAX, "{found:?}, not {wanted:?}");
                tokio::time::sleep(READ_EVERY).await;
            }
        })
    }
}

fn seen(span: &Value, expected: &Expected) -> Seen {
    let text = |pointer: &str| span.pointer(pointer)?.as_str().map(str::to_owned);
    let count = |pointer: &str| span.pointer(pointer)?.as_u64();
    let trace = text("/trace_id").unwrap();
    let id = expected.hexadecimal(&trace, &text("/span_id").unwrap());
    let failed = span["error_flag"] == 1;
    Seen {
        id,
        parent: text("/parent_id").map(|parent| expected.hexadecimal(&trace, &parent).1),
        name: text("/name").unwrap(),
        kind: text("/span_type"),
        model: text("/model/name"),
        input_tokens: count("/usage/input_tokens"),
        output_tokens: count("/usage/output_tokens"),
        error: failed.then(|| text("/error/message").unwrap_or_default()),
        start_us: span["start_us"].as_i64().unwrap_or_default(),
        session: text("/group_id"),
        user: text("/user"),
        tags: span["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    }
}
