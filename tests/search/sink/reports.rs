//! Users' reports and entire runs of programs, from `tests/reports`: what a search server must have of them.
//!
//! Of a case's `expected.json` this reads `documents` (span name -> field with dots -> value), `summary` (trace id -> field -> value, of
//! the trace's document) and `agents` (agent's name -> field of `usage` -> its sum over all documents with this agent, as in a dashboard's
//! query).

#[path = "../../reports/case.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod case;
#[path = "../../reports/compare.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod compare;

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{Answer, Client, PATIENCE, Protocol, World};
use crate::process::POLL_EVERY;
use crate::servers::{self, Node};
use case::{Case, Request};
use compare::{Shown, facts};

#[tokio::test]
async fn reports_and_programs_are_there_with_kinds_names_tokens_and_summary() {
    let mut cases = case::read("programs");
    cases.extend(case::read("reports"));
    cases.retain(|case| case.expected["documents"].is_object());
    assert!(6 < cases.len(), "no case says what a search server must have");
    for server in servers::available() {
        let world = World::new(Node::shared(&server).await, "reports", "").await;
        for case in &cases {
            if let Some(before) = &case.before {
                world.post(before).await;
                world.until_shown(case, before.spans()).await;
            }
            world.post(&case.request).await;
        }
        let sink = world.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        world.assert_right(&cases).await;
    }
}

impl World {
    async fn post(&self, request: &Request) {
        let protocol = Protocol::OtlpJson;
        let client = Client::connect(protocol, protocol.address(&self.place), None).await;
        let answer = client.unwrap().send(request.body.clone().into()).await.unwrap();
        assert_eq!(answer, Answer::Kept);
    }

    /// Waits until this number of spans of a case can be found.
    async fn until_shown(&self, case: &Case, count: usize) {
        let (begun, traces) = (Instant::now(), case.traces());
        // An index that is being created cannot be queried.
        self.settled().await;
        loop {
            let spans = self.shown("spans").await;
            if count <= spans.iter().filter(|span| traces.contains(&span.trace)).count() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}: never shown", case.name);
            tokio::time::sleep(10 * POLL_EVERY).await;
        }
    }

    /// Waits until the documents are right: agents are filled in and summaries made some time after the spans were delivered.
    async fn assert_right(&self, cases: &[Case]) {
        let begun = Instant::now();
        loop {
            let (spans, traces) = (self.shown("spans").await, self.shown("traces").await);
            let mut wrong = Vec::new();
            for case in cases {
                let found = [
                    documents(case, &spans),
                    facts(&case.expected["summary"], &traces.iter().collect::<Vec<_>>()),
                    self.agents(case).await,
                ];
                wrong.extend(found.concat().iter().map(|what| format!("{}: {what}", case.name)));
            }
            if wrong.is_empty() {
                return;
            }
            let server = self.node.server().name;
            let wrong = wrong.join("\n");
            assert!(begun.elapsed() < PATIENCE, "{server}:\n{wrong}");
            tokio::time::sleep(100 * POLL_EVERY).await;
        }
    }

    /// Returns documents with dotted field names.
    async fn shown(&self, kind: &str) -> Vec<Shown> {
        let documents = self.documents(kind).await;
        documents.iter().map(|(_, document)| shown(document)).collect()
    }

    /// Returns the errors in a dashboard's token sums by agent for a case.
    async fn agents(&self, case: &Case) -> Vec<String> {
        let expected = case.expected["agents"].as_object().cloned().unwrap_or_default();
        let sum = |field: &str| json!({ "sum": { "field": format!("usage.{field}") } });
        let sums =
            json!({ "input_tokens": sum("input_tokens"), "output_tokens": sum("output_tokens") });
        let question = json!({
            "size": 0,
            "query": { "terms": { "trace_id": case.traces() } },
            "aggs": { "agents": { "terms": { "field": "agent.name" }, "aggs": sums } }
        });
        let answer = self.node.search(&format!("{}-spans*", self.prefix), question).await;
        let mut found = Map::new();
        for bucket in answer["aggregations"]["agents"]["buckets"].as_array().unwrap() {
            let sum = |field: &str| bucket[field]["value"].as_f64().unwrap();
            let sums = json!({ "input_tokens": sum("input_tokens"), "output_tokens": sum("output_tokens") });
            found.insert(bucket["key"].as_str().unwrap().to_owned(), sums);
        }
        let agents = Shown {
            trace: String::new(),
            id: String::new(),
            names: ["agents".to_owned(), String::new()],
            start_ns: 0,
            facts: found,
        };
        facts(&json!({ "agents": expected }), &[&agents])
    }
}

fn documents(case: &Case, spans: &[Shown]) -> Vec<String> {
    let traces = case.traces();
    let mut spans: Vec<_> = spans.iter().filter(|span| traces.contains(&span.trace)).collect();
    spans.sort_by_key(|span| span.start_ns);
    let mut wrong = facts(&case.expected["documents"], &spans);
    if case.expected["spans"] != spans.len() {
        wrong.push(format!("{} documents instead of {}", spans.len(), case.expected["spans"]));
    }
    wrong
}

fn shown(document: &Value) -> Shown {
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let start_us = document["start_us"].as_u64().unwrap_or_default();
    let mut facts = Map::new();
    flatten("", document, &mut facts);
    // A summary is identified by its trace's id.
    let names = [text("name"), text("trace_id")];
    Shown { trace: text("trace_id"), id: text("span_id"), names, start_ns: 1000 * start_us, facts }
}

fn flatten(prefix: &str, value: &Value, facts: &mut Map<String, Value>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(_) => flatten(&format!("{name}."), value, facts),
            _ => drop(facts.insert(name, value.clone())),
        }
    }
}
