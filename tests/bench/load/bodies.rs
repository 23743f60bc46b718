//! Request bodies that are built once and get new ids in place for every request, so that the generator costs little.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use memchr::memmem;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::json;

use crate::process::client::Protocol;

/// Size of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Size {
    /// About 300 bytes on the wire, 100 per request.
    Small,
    /// About 6.7 KB on the wire, mostly two long texts, 20 per request.
    Agent,
}

impl Size {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Agent => "agent",
        }
    }

    pub(crate) const fn spans_per_request(self) -> usize {
        match self {
            Self::Small => 100,
            Self::Agent => 20,
        }
    }
}

/// A pseudo-random sequence (splitmix64). The same seed gives the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap_or_default() % end
    }
}

/// A body and the places of its ids.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    body: Vec<u8>,
    slots: Vec<Slot>,
    ids: Vec<[u8; ID_BYTES]>,
    form: Form,
    span_id_bytes: usize,
    random: Random,
}

/// A place of an id.
#[derive(Debug, Clone, Copy)]
struct Slot {
    at: usize,
    id: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Raw,
    Hex,
}

/// Length of the longest id, a trace id. A span id is a prefix of one.
const ID_BYTES: usize = 16;
/// The id of the trace; spans are numbered from 1.
const TRACE: usize = 0;

impl Template {
    /// Builds a body and finds its ids.
    pub(crate) fn new(protocol: Protocol, size: Size, seed: u64) -> Self {
        let (body, form, span_id_bytes) = match protocol {
            Protocol::Openai => (openai_body(size), Form::Hex, 12),
            Protocol::OtlpHttp | Protocol::OtlpGrpc => {
                (otlp_request(size).encode_to_vec(), Form::Raw, 8)
            }
            Protocol::OtlpJson => {
                let body = serde_json::to_vec(&otlp_request(size)).expect("the request is valid");
                (body, Form::Hex, 8)
            }
        };
        let mut slots = Vec::new();
        for id in TRACE..=size.spans_per_request() {
            let bytes = if id == TRACE { ID_BYTES } else { span_id_bytes };
            let marker = &marker(id)[..bytes];
            let needle = if form == Form::Hex { hex(marker).into_bytes() } else { marker.to_vec() };
            slots.extend(memmem::find_iter(&body, &needle).map(|at| Slot { at, id }));
        }
        let ids = (TRACE..=size.spans_per_request()).map(marker).collect();
        let mut template =
            Self { body, slots, ids, form, span_id_bytes, random: Random::new(seed) };
        template.slots.sort_unstable_by_key(|slot| slot.at);
        template.check(size);
        template
    }

    /// Returns the next body: the same spans with ids that were never used before.
    pub(crate) fn next(&mut self) -> Bytes {
        let mut ids = std::mem::take(&mut self.ids);
        for id in &mut ids {
            id[..8].copy_from_slice(&self.random.next().to_be_bytes());
            id[8..].copy_from_slice(&self.random.next().to_be_bytes());
        }
        self.ids = ids;
        let mut body = self.body.clone();
        for slot in &self.slots {
            self.write(&mut body, *slot);
        }
        Bytes::from(body)
    }

    fn write(&self, body: &mut [u8], slot: Slot) {
        let id = &self.ids[slot.id];
        let bytes = if slot.id == TRACE { ID_BYTES } else { self.span_id_bytes };
        match self.form {
            Form::Raw => body[slot.at..slot.at + bytes].copy_from_slice(&id[..bytes]),
            Form::Hex => {
                for (pair, byte) in body[slot.at..].chunks_exact_mut(2).zip(&id[..bytes]) {
                    pair.copy_from_slice(&HEX_PAIRS[usize::from(*byte)]);
                }
            }
        }
    }

    /// Asserts that every span has an id and names its trace.
    fn check(&self, size: Size) {
        let spans = size.spans_per_request();
        for id in 1..=spans {
            assert!(self.slots.iter().any(|slot| slot.id == id), "span {id} has no id in the body");
        }
        assert!(
            spans <= self.slots.iter().filter(|slot| slot.id == TRACE).count(),
            "a span without its trace"
        );
    }
}

/// Compresses a body.
pub(crate) fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    Bytes::from(encoder.finish().expect("memory takes it"))
}

const HEX_PAIRS: [[u8; 2]; 256] = hex_pairs();

const fn hex_pairs() -> [[u8; 2]; 256] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
}

/// Returns bytes that represent an id while the body is built, and occur nowhere else in it.
fn marker(id: usize) -> [u8; ID_BYTES] {
    let mut random = Random::new(0x00c0_ffee + id as u64);
    let mut bytes = [0; ID_BYTES];
    bytes[..8].copy_from_slice(&random.next().to_be_bytes());
    bytes[8..].copy_from_slice(&random.next().to_be_bytes());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

// === Contents ===

/// Returns text of about this many bytes, from 1,024 words that repeat about as often as in prose, for a realistic compression ratio.
fn prose(random: &mut Random, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        let word = random.below(SYLLABLES.len() * SYLLABLES.len());
        text.push_str(SYLLABLES[word % SYLLABLES.len()]);
        text.push_str(SYLLABLES[word / SYLLABLES.len()]);
        text.push_str(if word.is_multiple_of(12) { ".\n" } else { " " });
    }
    text
}

const SYLLABLES: [&str; 32] = [
    "ta", "the", "re", "weath", "er", "in", "ci", "ty", "a", "gent", "can", "not", "find", "ing",
    "or", "der", "ship", "ment", "is", "late", "by", "two", "days", "re", "fund", "to", "card",
    "end", "ed", "with", "un", "der",
];

/// 2026-11-21 in nanoseconds since 1970.
const STARTED_NS: u64 = 1_795_219_200_000_000_000;

fn text(value: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.into())) }
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn integer(value: usize) -> AnyValue {
    AnyValue { value: Some(Value::IntValue(i64::try_from(value).unwrap_or_default())) }
}

fn otlp_request(size: Size) -> ExportTraceServiceRequest {
    let mut random = Random::new(7);
    let spans =
        (1..=size.spans_per_request()).map(|number| otlp_span(size, number, &mut random)).collect();
    let service = attribute("service.name", text("load"));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: vec![service], ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "load".to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn otlp_span(size: Size, number: usize, random: &mut Random) -> Span {
    let started = STARTED_NS + number as u64 * 1_000_000;
    let parent = if number == 1 { Vec::new() } else { marker(1)[..8].to_vec() };
    let (name, kind, attributes) = match size {
        Size::Small => ("GET /v1/orders/{id}", SpanKind::Server, small_attributes(number)),
        Size::Agent => ("chat gpt-4.1-mini", SpanKind::Client, agent_attributes(number, random)),
    };
    Span {
        trace_id: marker(TRACE).to_vec(),
        span_id: marker(number)[..8].to_vec(),
        parent_span_id: parent,
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: started,
        end_time_unix_nano: started + 750_000,
        attributes,
        ..Span::default()
    }
}

fn small_attributes(number: usize) -> Vec<KeyValue> {
    vec![
        attribute("http.request.method", text("GET")),
        attribute("http.route", text("/v1/orders/{id}")),
        attribute("http.response.status_code", integer(200)),
        attribute("server.address", text("orders.internal.example")),
        attribute("enduser.id", text(format!("customer-{number:06}"))),
        attribute("net.protocol.version", text("1.1")),
    ]
}

fn agent_attributes(number: usize, random: &mut Random) -> Vec<KeyValue> {
    let input = json!([
        {"role": "system", "parts": [{"type": "text", "content": prose(random, 1200)}]},
        {"role": "user", "parts": [{"type": "text", "content": prose(random, 3000)}]},
    ]);
    let output = json!([{"role": "assistant", "finish_reason": "stop", "parts": [{"type": "text", "content": prose(random, 1500)}]}]);
    let reasons = ArrayValue { values: vec![text("stop")] };
    vec![
        attribute("gen_ai.operation.name", text("chat")),
        attribute("gen_ai.provider.name", text("openai")),
        attribute("gen_ai.request.model", text("gpt-4.1-mini")),
        attribute("gen_ai.response.model", text("gpt-4.1-mini-2025-04-14")),
        attribute("gen_ai.response.id", text(format!("chatcmpl-{number:024}"))),
        attribute("gen_ai.conversation.id", text("thread_5f2c9a")),
        attribute("gen_ai.agent.name", text("Refunds")),
        attribute("gen_ai.request.temperature", AnyValue { value: Some(Value::DoubleValue(0.2)) }),
        attribute("gen_ai.usage.input_tokens", integer(1100 + number)),
        attribute("gen_ai.usage.output_tokens", integer(380 + number)),
        attribute(
            "gen_ai.response.finish_reasons",
            AnyValue { value: Some(Value::ArrayValue(reasons)) },
        ),
        attribute("server.address", text("api.openai.com")),
        attribute("gen_ai.input.messages", text(input.to_string())),
        attribute("gen_ai.output.messages", text(output.to_string())),
    ]
}

// === The Agents SDK's items ===

fn openai_body(size: Size) -> Vec<u8> {
    let mut random = Random::new(7);
    let trace = json!({
        "object": "trace", "id": format!("trace_{}", hex(&marker(TRACE))), "workflow_name": "Refund workflow",
        "group_id": "thread_5f2c9a", "metadata": {"customer": "acme", "tier": "gold"},
    });
    let mut items = vec![trace];
    for number in 1..=size.spans_per_request() {
        let data = match size {
            Size::Small => small_span_data(number),
            Size::Agent => agent_span_data(number, &mut random),
        };
        items.push(openai_span(number, &data));
    }
    serde_json::to_vec(&json!({"data": items})).expect("the items are valid")
}

fn openai_span(number: usize, data: &serde_json::Value) -> serde_json::Value {
    let id = |number: usize| format!("span_{}", hex(&marker(number)[..12]));
    let parent = if number == 1 { json!(null) } else { json!(id(1)) };
    json!({
        "object": "trace.span", "id": id(number), "trace_id": format!("trace_{}", hex(&marker(TRACE))), "parent_id": parent,
        "started_at": "2026-11-21T05:14:17.100376+00:00", "ended_at": "2026-11-21T05:14:17.165377+00:00",
        "span_data": data, "error": null,
    })
}

/// The spans around the model calls: tools and handoffs.
fn small_span_data(number: usize) -> serde_json::Value {
    match number % 4 {
        0 => json!({"type": "handoff", "from_agent": "Triage", "to_agent": "Refunds"}),
        _ => {
            json!({"type": "function", "name": "lookup_order", "input": format!("{{\"order\": {number}}}"), "output": "shipped", "mcp_data": null})
        }
    }
}

/// Of five spans three are model calls of about 9 KB, one is a tool with a long answer, one is a response without content.
fn agent_span_data(number: usize, random: &mut Random) -> serde_json::Value {
    let usage = json!({
        "requests": 1, "input_tokens": 1100 + number, "output_tokens": 380, "total_tokens": 1480 + number,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 5},
    });
    match number % 5 {
        0 => {
            json!({"type": "response", "response_id": format!("resp_{number:032}"), "usage": usage})
        }
        1 => {
            json!({"type": "function", "name": "search_orders", "input": "{\"customer\": \"acme\"}", "output": prose(random, 5200), "mcp_data": null})
        }
        _ => json!({
            "type": "generation",
            "input": [{"role": "system", "content": prose(random, 1500)}, {"role": "user", "content": prose(random, 4700)}],
            "output": [{"role": "assistant", "content": prose(random, 1800), "refusal": null, "tool_calls": null}],
            "model": "gpt-4.1-mini", "model_config": {"temperature": 0.2, "top_p": 0.9, "max_tokens": null, "base_url": "https://api.openai.com/v1/"},
            "usage": usage,
        }),
    }
}
