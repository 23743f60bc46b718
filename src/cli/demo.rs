//! The demo trace: a customer asks for a refund, a triage agent hands over, a tool is called, and the customer gets an answer. It exists in
//! the format of the OpenAI Agents SDK for Python 0.24, and as OpenTelemetry spans with GenAI attributes (semantic conventions 1.37 and
//! later).
//!
//! Both are templates in `demo/`. `<24 NAME>` stands for 24 random digits, the same for the same name; `<at 30>` and `<ns 30>` stand
//! for the time 30 ms after the start. The SDK sends the trace object at the start and each span at its end, so children precede parents.

use std::hash::{BuildHasher as _, RandomState};

use serde_json::Value;

use crate::support::rfc3339;

const NS_PER_MS: u64 = 1_000_000;
/// Duration of the demo, which ends now.
const TOOK_MS: u64 = 4_200;

/// A start time and a source of random ids.
#[derive(Debug)]
pub(super) struct Demo {
    start_ns: u64,
    random: RandomState,
}

/// A trace as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Its id in the format's notation.
    pub(super) trace_id: String,
    /// Number of spans, plus the trace object if there is one.
    pub(super) items: usize,
    /// The body of the request.
    pub(super) body: Value,
}

impl Demo {
    /// Creates a demo that ends now.
    pub(super) fn new(now_ns: u64) -> Self {
        // The standard library seeds every hasher randomly, which is random enough for ids.
        Self { start_ns: now_ns.saturating_sub(TOOK_MS * NS_PER_MS), random: RandomState::new() }
    }

    /// Returns so many random hexadecimal digits, at most 32, different for every name.
    fn hex(&self, name: &str, digits: usize) -> String {
        let [upper, lower] = [0, 1].map(|half| self.random.hash_one((name, half)));
        let mut text = format!("{upper:016x}{lower:016x}");
        text.truncate(digits);
        text
    }

    fn at_ns(&self, ms: &str) -> u64 {
        self.start_ns + ms.parse().unwrap_or(0) * NS_PER_MS
    }

    /// Returns a time as Python writes it: with microseconds and offset.
    fn at_text(&self, ms: &str) -> String {
        let mut text = rfc3339::text(self.at_ns(ms));
        text.truncate("2026-11-21T05:15:09.529503".len());
        text + "+00:00"
    }

    /// Fills in a template.
    fn fill(&self, template: &str) -> Value {
        let mut text = String::new();
        for (index, part) in template.split(['<', '>']).enumerate() {
            match part.split_once(' ') {
                _ if index % 2 == 0 => text.push_str(part),
                Some(("at", ms)) => text.push_str(&self.at_text(ms)),
                Some(("ns", ms)) => text.push_str(&self.at_ns(ms).to_string()),
                Some((digits, name)) => {
                    text.push_str(&self.hex(name, digits.parse().unwrap_or(0)));
                }
                None => text.push_str(env!("CARGO_PKG_VERSION")),
            }
        }
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// Returns the trace as the Agents SDK sends it.
pub(super) fn agents_sdk(demo: &Demo) -> Sent {
    let body = demo.fill(include_str!("demo/agents_sdk.json"));
    sent(format!("trace_{}", demo.hex("trace", 32)), body, "/data")
}

/// Returns the same trace as OpenTelemetry spans, in OTLP/JSON.
pub(super) fn otlp(demo: &Demo) -> Sent {
    let body = demo.fill(include_str!("demo/otlp.json"));
    sent(demo.hex("otlp trace", 32), body, "/resourceSpans/0/scopeSpans/0/spans")
}

fn sent(trace_id: String, body: Value, items: &str) -> Sent {
    let items = body.pointer(items).and_then(Value::as_array).map_or(0, Vec::len);
    Sent { trace_id, items, body }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const NOW_NS: u64 = 1_795_238_109_529_503_000;

    #[test]
    fn every_sdk_span_has_its_parent_behind_it_and_ids_of_the_sdk() {
        let sent = agents_sdk(&Demo::new(NOW_NS));
        let items = sent.body["data"].as_array().unwrap();
        assert_eq!(items.len(), sent.items);
        assert_eq!(sent.trace_id.len(), "trace_".len() + 32);
        let mut ids = BTreeSet::new();
        for (index, item) in items.iter().enumerate().skip(1) {
            assert_eq!(item["id"].as_str().unwrap().len(), "span_".len() + 24);
            assert!(ids.insert(item["id"].clone().to_string()));
            assert!(item["started_at"].as_str() < item["ended_at"].as_str());
            let parent = &item["parent_id"];
            let is_root = parent.is_null();
            assert!(is_root || items[index + 1..].iter().any(|other| other["id"] == *parent));
        }
        let last = items.last().unwrap();
        assert_eq!(last["ended_at"], "2026-11-21T05:15:09.529503+00:00");
        let kinds: BTreeSet<_> =
            items[1..].iter().filter_map(|item| item["span_data"]["type"].as_str()).collect();
        let expected =
            ["agent", "custom", "function", "generation", "guardrail", "handoff", "response"];
        assert_eq!(kinds, expected.into());
    }

    #[test]
    fn the_usage_of_the_model_spans_adds_up_to_that_of_the_task() {
        let sent = agents_sdk(&Demo::new(NOW_NS));
        let items = sent.body["data"].as_array().unwrap();
        let sum = |key: &str| -> u64 {
            items.iter().filter_map(|item| item["span_data"]["usage"][key].as_u64()).sum()
        };
        let task = &items.last().unwrap()["span_data"]["data"]["usage"];
        for key in ["input_tokens", "output_tokens", "total_tokens", "requests"] {
            assert_eq!(task[key], sum(key), "{key}");
        }
    }

    #[test]
    fn numbers_of_64_bits_are_strings_in_otlp_s_json_and_every_span_is_of_one_trace() {
        let sent = otlp(&Demo::new(NOW_NS));
        let spans = sent.body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        assert_eq!(spans.len(), sent.items);
        assert!(spans.iter().all(|span| span["traceId"] == sent.trace_id.as_str()));
        let output = json!({ "key": "gen_ai.usage.output_tokens", "value": { "intValue": "45" } });
        assert!(spans[0]["attributes"].as_array().unwrap().contains(&output));
        assert_eq!(spans[0]["endTimeUnixNano"], (NOW_NS - 10 * NS_PER_MS).to_string());
    }

    #[test]
    fn ids_are_new_for_every_demo() {
        let trace = || agents_sdk(&Demo::new(NOW_NS)).trace_id;
        assert_ne!(trace(), trace());
    }
}
