//! The demo trace: a customer asks for a refund, a triage agent hands over, a tool is called, an answer is given. Once in the shape of
//! the OpenAI Agents SDK for Python 0.24, once as OpenTelemetry spans with GenAI attributes (semantic conventions 1.37 and later).

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::{Value, json};

use crate::support::rfc3339;

const NS_PER_MS: u64 = 1_000_000;
/// How long the demo took, so that it ends now.
const TOOK_MS: u64 = 4_200;
const MODEL: &str = "gpt-4.1-mini";
const QUESTION: &str = "I was charged twice for order 4711. Can I have my money back?";
const INSTRUCTIONS: &str = "Look the order up, then say what happens next in one sentence.";
const ANSWER: &str =
    "Order 4711 was charged twice; the second 49.90 EUR are on their way back to your card.";
const ARGUMENTS: &str = r#"{"order_id":"4711"}"#;
const RESULT: &str = "{'order_id': '4711', 'charges': 2, 'amount': '49.90 EUR'}";

/// A time and a well of random ids.
#[derive(Debug)]
pub(super) struct Demo {
    start_ns: u64,
    random: RandomState,
}

/// A trace as it is sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// As the format writes it.
    pub(super) trace_id: String,
    /// Spans, and the trace object where there is one.
    pub(super) items: usize,
    /// The request's body.
    pub(super) body: Value,
}

impl Demo {
    /// A demo that ends now.
    pub(super) fn new(now_ns: u64) -> Self {
        // The standard library seeds every hasher at random, which is random enough for ids.
        Self { start_ns: now_ns.saturating_sub(TOOK_MS * NS_PER_MS), random: RandomState::new() }
    }

    /// So many random hexadecimal digits, different for every name.
    fn hex(&self, name: &str, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            let bits = self.random.hash_one((name, text.len()));
            write!(text, "{bits:016x}").ok();
        }
        text.truncate(digits);
        text
    }

    fn at_ns(&self, ms: u64) -> u64 {
        self.start_ns + ms * NS_PER_MS
    }

    fn at_text(&self, ms: u64) -> String {
        let mut text = Vec::new();
        rfc3339::write(&mut text, self.at_ns(ms));
        // Python writes microseconds and the offset.
        text.truncate("2026-11-21T05:15:09.529503".len());
        format!("{}+00:00", String::from_utf8_lossy(&text))
    }
}

/// The run as the Agents SDK sends it: the trace object at its start, each span when it ended, so children before parents.
#[expect(clippy::too_many_lines, reason = "a list of spans")]
pub(super) fn agents_sdk(demo: &Demo) -> Sent {
    let trace_id = format!("trace_{}", demo.hex("native trace", 32));
    let id = |name: &str| format!("span_{}", demo.hex(name, 24));
    let span = |name: &str, parent: Option<&str>, from: u64, to: u64, data: Value| {
        json!({
            "object": "trace.span",
            "id": id(name),
            "trace_id": trace_id,
            "parent_id": parent.map(id),
            "started_at": demo.at_text(from),
            "ended_at": demo.at_text(to),
            "span_data": data,
            "error": null,
        })
    };
    let turn = |number: u32, agent: &str, input: u64, output: u64| {
        let usage = json!({
            "input_tokens": input, "output_tokens": output,
            "cached_input_tokens": 0, "cache_write_input_tokens": 0,
        });
        let data =
            json!({ "sdk_span_type": "turn", "turn": number, "agent_name": agent, "usage": usage });
        json!({ "type": "custom", "name": "turn", "data": data })
    };
    let agent = |name: &str, handoffs: Value, tools: Value| json!({ "type": "agent", "name": name, "handoffs": handoffs, "tools": tools, "output_type": "str" });
    let response = |name: &str, input: u64, output: u64| {
        json!({
            "type": "response",
            "response_id": format!("resp_{}", demo.hex(name, 32)),
            "usage": native_usage(input, output),
        })
    };
    let task_usage = json!({
        "input_tokens": 1110, "output_tokens": 96, "cached_input_tokens": 0,
        "cache_write_input_tokens": 0, "requests": 3, "total_tokens": 1206,
    });
    let items = json!([
        {
            "object": "trace",
            "id": trace_id,
            "workflow_name": "Refund desk (demo)",
            "group_id": format!("conversation_{}", demo.hex("group", 12)),
            "metadata": { "user_id": "demo-user", "sent_by": "spanferry send" },
        },
        span("guardrail", Some("triage"), 15, 25,
            json!({ "type": "guardrail", "name": "no_card_numbers", "triggered": false })),
        span("response 1", Some("turn 1"), 30, 1_400, response("response 1", 210, 18)),
        span("handoff", Some("turn 1"), 1_410, 1_420,
            json!({ "type": "handoff", "from_agent": "Triage", "to_agent": "Refunds" })),
        span("turn 1", Some("triage"), 20, 1_480, turn(1, "Triage", 210, 18)),
        span("triage", Some("task"), 10, 1_500, agent("Triage", json!(["Refunds"]), json!([]))),
        span("response 2", Some("turn 2"), 1_530, 2_600, response("response 2", 420, 33)),
        span("tool", Some("turn 2"), 2_610, 2_990, json!({
            "type": "function", "name": "look_up_order",
            "input": ARGUMENTS, "output": RESULT, "mcp_data": null,
        })),
        span("turn 2", Some("refunds"), 1_520, 3_000, turn(2, "Refunds", 420, 33)),
        span("generation", Some("turn 3"), 3_020, 4_150, json!({
            "type": "generation",
            "input": [
                { "role": "system", "content": INSTRUCTIONS },
                { "role": "user", "content": QUESTION },
                { "role": "tool", "content": RESULT, "tool_call_id": "call_demo" },
            ],
            "output": [{ "role": "assistant", "content": ANSWER }],
            "model": MODEL,
            "model_config": { "temperature": 0.2 },
            "usage": native_usage(480, 45),
        })),
        span("turn 3", Some("refunds"), 3_010, 4_180, turn(3, "Refunds", 480, 45)),
        span("refunds", Some("task"), 1_510, 4_190,
            agent("Refunds", json!([]), json!(["look_up_order"]))),
        span("task", None, 0, TOOK_MS, json!({
            "type": "custom", "name": "task",
            "data": { "sdk_span_type": "task", "name": "Refund desk (demo)", "usage": task_usage },
        })),
    ]);
    let count = items.as_array().map_or(0, Vec::len);
    Sent { trace_id, items: count, body: json!({ "data": items }) }
}

fn native_usage(input: u64, output: u64) -> Value {
    json!({
        "requests": 1,
        "input_tokens": input,
        "output_tokens": output,
        "total_tokens": input + output,
        "input_tokens_details": {
            "cached_tokens": 0, "cache_write_tokens": 0, "cache_write_tokens_details": null,
        },
        "output_tokens_details": { "reasoning_tokens": 0 },
    })
}

/// The same run as OpenTelemetry spans, in OTLP's JSON.
#[expect(clippy::too_many_lines, reason = "a list of spans")]
pub(super) fn otlp(demo: &Demo) -> Sent {
    let trace_id = demo.hex("otlp trace", 32);
    let id = |name: &str| demo.hex(name, 16);
    let span =
        |name: &str, parent: Option<&str>, kind: u8, from: u64, to: u64, attributes: Value| {
            json!({
                "traceId": trace_id,
                "spanId": id(name),
                "parentSpanId": parent.map(id).unwrap_or_default(),
                "name": name,
                "kind": kind,
                "startTimeUnixNano": demo.at_ns(from).to_string(),
                "endTimeUnixNano": demo.at_ns(to).to_string(),
                "attributes": key_values(&attributes),
                "status": {},
            })
        };
    let conversation = format!("conversation_{}", demo.hex("group", 12));
    let message = |role: &str, text: &str| json!({ "role": role, "parts": [{ "type": "text", "content": text }] });
    let answer = json!([{
        "role": "assistant",
        "parts": [{ "type": "text", "content": ANSWER }],
        "finish_reason": "stop",
    }]);
    let (internal, client) = (1, 3);
    let spans = json!([
        span(
            "chat gpt-4.1-mini",
            Some("invoke_agent Refunds"),
            client,
            30,
            1_400,
            json!({
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": MODEL,
                "gen_ai.response.model": MODEL,
                "gen_ai.request.temperature": 0.2,
                "gen_ai.conversation.id": conversation,
                "gen_ai.usage.input_tokens": 480,
                "gen_ai.usage.output_tokens": 45,
                "gen_ai.system_instructions":
                    json!([{ "type": "text", "content": INSTRUCTIONS }]).to_string(),
                "gen_ai.input.messages": json!([message("user", QUESTION)]).to_string(),
                "gen_ai.output.messages": answer.to_string(),
            })
        ),
        span(
            "execute_tool look_up_order",
            Some("invoke_agent Refunds"),
            internal,
            1_410,
            1_900,
            json!({
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "look_up_order",
                "gen_ai.tool.type": "function",
                "gen_ai.tool.call.id": "call_demo",
                "gen_ai.tool.call.arguments": ARGUMENTS,
                "gen_ai.tool.call.result": RESULT,
            })
        ),
        span(
            "invoke_agent Refunds",
            None,
            internal,
            0,
            TOOK_MS,
            json!({
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": "openai",
                "gen_ai.agent.name": "Refunds",
                "gen_ai.conversation.id": conversation,
                "gen_ai.request.model": MODEL,
                "user.id": "demo-user",
            })
        ),
    ]);
    let resource = json!({ "service.name": "spanferry-demo" });
    let count = spans.as_array().map_or(0, Vec::len);
    let body = json!({
        "resourceSpans": [{
            "resource": { "attributes": key_values(&resource) },
            "scopeSpans": [{
                "scope": { "name": "spanferry.send", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans,
            }],
        }],
    });
    Sent { trace_id, items: count, body }
}

/// Attributes in OTLP's JSON, where 64-bit numbers are strings.
fn key_values(attributes: &Value) -> Value {
    let one = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
            Value::Number(number) => json!({ "intValue": number.to_string() }),
            other => json!({ "stringValue": other }),
        };
        json!({ "key": key, "value": value })
    };
    attributes.as_object().into_iter().flatten().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW_NS: u64 = 1_795_238_109_529_503_000;

    #[test]
    fn every_native_span_has_its_parent_behind_it_and_ids_of_the_sdk() {
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
        assert_eq!(spans[0]["endTimeUnixNano"], (NOW_NS - 2_800 * NS_PER_MS).to_string());
    }

    #[test]
    fn ids_are_new_for_every_demo() {
        let trace = || agents_sdk(&Demo::new(NOW_NS)).trace_id;
        assert_ne!(trace(), trace());
    }
}
