//! Spans for tests, each with exactly the given detail and facts.

use std::sync::Arc;

use bytes::Bytes;

use crate::sinks::Delivery;
use crate::span::{
    Attribute, Batch, Convention, Cost, Detail, Facts, Format, Item, Kind, Link, Payload, Receiver,
    Resource, Scope, Score, SdkIds, Source, Span, SpanError, SpanEvent, SpanHeader, SpanId,
    SpanReading, Text, TraceId, TraceObject, Usage, Value,
};

/// 2026-11-21T05:15:09.529503Z.
pub(in crate::sinks) const START_NS: u64 = 1_795_238_109_529_503_000;

#[derive(Debug)]
struct Fixed {
    is_otlp: bool,
    detail: Detail,
    facts: Facts,
}

impl Format for Fixed {
    fn is_otlp(&self) -> bool {
        self.is_otlp
    }

    fn detail(&self, _: &Span) -> Detail {
        self.detail.clone()
    }

    fn said(&self, _: &Span, reading: &mut SpanReading) {
        reading.facts = self.facts.clone();
    }
}

fn span_of(number: u64, wire: Bytes, scope: &Arc<Scope>, format: Fixed) -> Span {
    let span_id = |number: u64| SpanId::new(number.to_be_bytes());
    let outline = SpanHeader {
        trace_id: trace_id(),
        span_id: span_id(number + 1).unwrap(),
        parent_id: span_id(number),
        start_ns: START_NS + number,
        end_ns: START_NS + number + 1_234_567_890,
        wire,
    };
    // A format must be `'static`, so these few are leaked.
    Span::new(outline, Arc::clone(scope), None, Box::leak(Box::new(format)))
}

/// An OTLP span.
pub(in crate::sinks) fn otlp_span(
    number: u64,
    scope: &Arc<Scope>,
    detail: Detail,
    facts: Facts,
) -> Span {
    span_of(number, Bytes::from_static(&[0; 100]), scope, Fixed { is_otlp: true, detail, facts })
}

/// An Agents SDK span with this item.
pub(in crate::sinks) fn sdk_span(
    number: u64,
    item: &'static str,
    detail: Detail,
    facts: Facts,
) -> Span {
    let wire = Bytes::from_static(item.as_bytes());
    span_of(number, wire, &Arc::default(), Fixed { is_otlp: false, detail, facts })
}

/// A span with only a number.
pub(in crate::sinks) fn numbered_span(number: u64) -> Span {
    let name = Text::from(number.to_string());
    otlp_span(number, &Arc::default(), Detail { name, ..Detail::default() }, Facts::default())
}

/// A delivery of one batch with this time of arrival.
pub(in crate::sinks) fn delivery(received_at_ns: u64, items: Vec<Item>) -> Delivery {
    let source = Source {
        receiver: Receiver::OtlpHttp,
        received_at_ns,
        tenant: String::new(),
        key_fingerprint: String::new(),
        headers: vec![
            ("user-agent".to_owned(), "Agents/Python 0.24.0".to_owned()),
            ("openai-project".to_owned(), "proj_1".to_owned()),
        ],
    };
    let count = items.len();
    let mut delivery = Delivery::default();
    delivery.add(&Arc::new(Batch { source, items, bytes: 0 }), 0..count);
    delivery
}

fn trace_id() -> TraceId {
    TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap()
}

fn text(text: &'static str) -> Text {
    Text::from_static(text)
}

fn attribute(key: &'static str, value: Value) -> Attribute {
    Attribute { key: text(key), value }
}

/// One span of each kind, one with everything set, one with everything that is hard to encode, and Agents SDK items.
pub(in crate::sinks) fn every_item() -> Vec<Item> {
    let scope = Arc::new(scope());
    let mut items: Vec<_> = (0..)
        .zip(Kind::ALL)
        .map(|(number, kind)| {
            let name = text(kind.as_str());
            let detail = Detail { name: name.clone(), ..Detail::default() };
            let facts = Facts { kind, name, ..Facts::default() };
            Item::Span(otlp_span(number, &scope, detail, facts))
        })
        .collect();
    let (detail, facts) = full();
    items.push(Item::Span(otlp_span(100, &scope, detail, facts)));
    let (detail, facts) = hard();
    items.push(Item::Span(otlp_span(101, &scope, detail, facts)));
    items.push(Item::Span(agents_sdk()));
    items.push(Item::Trace(Arc::new(trace_object())));
    items
}

fn scope() -> Scope {
    Scope {
        resource: Arc::new(Resource {
            attributes: vec![
                attribute("service.name", Value::Text(text("shop"))),
                attribute("process.pid", Value::Int(7)),
            ],
            dropped_attributes_count: 1,
            schema_url: text("https://opentelemetry.io/schemas/1.41.1"),
            wire: Bytes::new(),
        }),
        name: text("openinference.instrumentation.openai"),
        version: text("1.2.3"),
        attributes: vec![attribute("library", Value::Bool(true))],
        dropped_attributes_count: 2,
        schema_url: text("https://example.com/scope"),
        wire: Bytes::new(),
    }
}

/// Every value that a span can have.
#[expect(clippy::too_many_lines, reason = "it is a list")]
fn full() -> (Detail, Facts) {
    let input = text(r#"[{"role":"user","content":"hello"}]"#);
    let detail = Detail {
        name: text("chat gpt-4o"),
        kind: 3,
        status_code: 2,
        status_message: text("too many requests"),
        trace_state: text("vendor=1"),
        flags: 257,
        attributes: vec![
            attribute("gen_ai.request.model", Value::Text(text("gpt-4o"))),
            Attribute { key: text("gen_ai.input.messages"), value: Value::Text(input.clone()) },
            Attribute { key: text("input.value"), value: Value::Text(input.clone()) },
        ],
        dropped_attributes_count: 3,
        events: vec![SpanEvent {
            time_ns: START_NS + 5,
            name: text("exception"),
            attributes: vec![attribute("exception.type", Value::Text(text("RateLimit")))],
            dropped_attributes_count: 4,
        }],
        dropped_events_count: 5,
        links: vec![Link {
            trace_id: trace_id(),
            span_id: SpanId::new([9; 8]).unwrap(),
            trace_state: text("vendor=2"),
            attributes: vec![attribute("why", Value::Text(text("retry")))],
            dropped_attributes_count: 6,
            flags: 1,
        }],
        dropped_links_count: 7,
        agents_sdk: None,
    };
    let usage = Usage {
        input: Some(812),
        output: Some(96),
        total: Some(908),
        cached_read: Some(512),
        cache_write: Some(10),
        reasoning: Some(64),
        input_audio: Some(1),
        output_audio: Some(2),
        cache_write_1h: Some(1),
    };
    let facts = Facts {
        kind: Kind::Generation,
        convention: Convention::GenAi,
        name: text("gpt-4o"),
        agent: Some(text("Triage")),
        tool: Some(text("lookup")),
        tool_call_id: Some(text("call_1")),
        tool_definitions: Some(Payload::Json(text(r#"[{"name":"lookup"}]"#))),
        request_model: Some(text("gpt-4o")),
        response_model: Some(text("gpt-4o-2024-08-06")),
        provider: Some(text("openai")),
        parameters: Some(Payload::Json(text(r#"{"temperature":0.2}"#))),
        input: Some(Payload::Json(input)),
        output: Some(Payload::Text(text("hi there"))),
        usage,
        aggregate_usage: usage,
        adds_up_later: false,
        cost: Cost { input: Some(0.0001), output: Some(0.25), total: Some(0.2501) },
        response_id: Some(text("resp_1")),
        finish_reasons: vec![text("stop"), text("length")],
        first_token_ns: Some(250_000_000),
        session: Some(text("conversation 1")),
        user: Some(text("ada")),
        workflow: Some(text("checkout")),
        tags: vec![text("blue"), text("beta")],
        metadata: vec![
            (text("team"), Payload::Text(text("red"))),
            (text("limits"), Payload::Json(text("[1, 2]"))),
            (text("team"), Payload::Text(text("green"))),
        ],
        prompt_name: Some(text("greeting")),
        prompt_version: Some(text("3")),
        handoff_from: Some(text("Triage")),
        handoff_to: Some(text("Billing")),
        guardrail: Some(text("no_secrets")),
        guardrail_triggered: Some(true),
        mcp_server: Some(text("files")),
        mcp_method: Some(text("tools/list")),
        error: Some(SpanError {
            kind: Some(text("RateLimitError")),
            message: text("too many requests"),
            data: Some(Payload::Json(text(r#"{"retry":true}"#))),
        }),
        scores: vec![Score {
            name: text("helpful"),
            value: Some(0.75),
            label: Some(text("good")),
            explanation: Some(text("it helps")),
        }],
        environment: Some(text("production")),
        release: Some(text("2026.11")),
        sdk_span_type: Some(text("turn")),
        notes: None,
    };
    (detail, facts)
}

/// Values that are hard to encode as JSON, or to read.
fn hard() -> (Detail, Facts) {
    let deep = (0..60).fold(Value::Int(1), |inner, _| Value::Array(vec![inner]));
    let detail = Detail {
        name: text("control \u{1}\u{7f} line\nquote \" backslash \\ \u{2028} \u{1f31e}"),
        kind: 77,
        status_code: -1,
        attributes: vec![
            attribute("empty", Value::Empty),
            attribute("twice", Value::Int(1)),
            attribute("least", Value::Int(i64::MIN)),
            attribute("most", Value::Int(i64::MAX)),
            attribute("nan", Value::Double(f64::NAN)),
            attribute("infinity", Value::Double(f64::INFINITY)),
            attribute("minus infinity", Value::Double(f64::NEG_INFINITY)),
            attribute("tiny", Value::Double(5e-324)),
            attribute("whole", Value::Double(3.0)),
            attribute("bytes", Value::Bytes(Bytes::from_static(&[0, 255, 16]))),
            attribute("mixed", Value::Array(vec![Value::Bool(false), Value::Text(text("x"))])),
            attribute(
                "map",
                Value::Map(vec![attribute("", Value::Int(0)), attribute("", Value::Int(9))]),
            ),
            attribute("deep", deep),
            attribute("twice", Value::Text(text("the last one"))),
        ],
        ..Detail::default()
    };
    let facts = Facts {
        cost: Cost { total: Some(f64::NAN), ..Cost::default() },
        input: Some(Payload::Text(text(""))),
        usage: Usage { input: Some(u64::MAX), ..Usage::default() },
        ..Facts::default()
    };
    (detail, facts)
}

const SDK_ITEM: &str = "{\n  \"object\": \"trace.span\", \"id\": \"span_7d015efb82524c3c947945ef\", \"new_member\": [1, {\"x\": \"a b\"}]\r\n}";

fn agents_sdk() -> Span {
    let detail = Detail {
        name: text("execute_tool lookup"),
        kind: 1,
        attributes: vec![attribute("openai.agents.span_type", Value::Text(text("function")))],
        agents_sdk: Some(SdkIds {
            trace: text("trace_21990c0290104f62b71ed955a1f966f7"),
            span: text("span_7d015efb82524c3c947945ef"),
            parent: Some(text("span_6dd8c8fcbfa64dc99f2862f4")),
        }),
        ..Detail::default()
    };
    let facts = Facts {
        // The cost of the spans below it.
        cost: Cost { total: Some(0.125), ..Cost::default() },
        kind: Kind::Tool,
        convention: Convention::OpenAiAgents,
        name: text("execute_tool lookup"),
        error: Some(SpanError {
            message: text("Error running tool (non-fatal)"),
            ..SpanError::default()
        }),
        ..Facts::default()
    };
    sdk_span(102, SDK_ITEM, detail, facts)
}

fn trace_object() -> TraceObject {
    let wire = r#"{"object":"trace","id":"trace_5b8e","workflow_name":"checkout","metadata":{"a":"b","n":[1,2]}}"#;
    TraceObject {
        trace_id: trace_id(),
        sdk_id: text("trace_5b8e"),
        workflow: Some(text("checkout")),
        group: Some(text("group_1")),
        metadata: Some(text(r#"{"n":[1,2], "a":"b", "escaped":"\u00e9\"", "surrogate":"\ud83d"}"#)),
        wire: Bytes::from_static(wire.as_bytes()),
    }
}
