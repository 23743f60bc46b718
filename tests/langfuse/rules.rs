//! Spans that came as OTLP, rule by rule: what passes unchanged, what is added, and what is repaired.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message as _;
use serde_json::{Value, json};
use spanferry::sinks::Report;
use spanferry::span::{Content, Payload, Receiver, SpanId, Text, TraceContext};

use crate::fake::Fake;
use crate::mapping::Row;
use crate::world::World;
use crate::{
    START_NS, any, arrived, attribute, delivery, known, mapping, number, otlp, request, row, sink,
    span, text,
};

fn usage(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn without_value(key: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: None, ..KeyValue::default() }
}

// === Unchanged ===

#[tokio::test]
async fn a_span_that_langfuse_understands_goes_out_byte_by_byte() {
    let plain = span(vec![text("http.route", "/orders"), number("http.response.status_code", 200)]);
    let fake = Fake::start().await;
    let sink = sink(&fake.options());
    assert_eq!(sink.deliver(&otlp(vec![plain.clone()])).await, Report::delivered());
    let message = &fake.posts()[0].message;
    assert!(memchr::memmem::find(message, &plain.encode_to_vec()).is_some());
    let row = &fake.rows()[0];
    assert_eq!(
        (row.kind.as_str(), row.name.as_str(), row.level.as_str()),
        ("span", "work", "DEFAULT")
    );
}

#[tokio::test]
async fn what_is_added_stands_behind_the_bytes_that_came() {
    let chat = span(vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.request.model", "gpt-4.1-mini"),
        number("gen_ai.usage.input_tokens", 120),
        number("gen_ai.usage.output_tokens", 30),
        number("gen_ai.usage.cache_read.input_tokens", 64),
    ]);
    let context =
        TraceContext { session: Some(Text::from_static("s1")), ..TraceContext::default() };
    let fake = Fake::start().await;
    let sink = sink(&fake.options());
    assert_eq!(sink.deliver(&known(otlp(vec![chat.clone()]), &context)).await, Report::delivered());
    let message = &fake.posts()[0].message;
    assert!(memchr::memmem::find(message, &chat.encode_to_vec()).is_some());
    let row = &fake.rows()[0];
    assert_eq!(row.session.as_deref(), Some("s1"));
    assert_eq!(
        row.usage,
        usage(&[("input", 56), ("input_cached_tokens", 64), ("output", 30), ("total", 150)])
    );
    let cost = 56.0 * 0.4e-6 + 64.0 * 0.1e-6 + 30.0 * 1.6e-6;
    assert!((row.cost["total"] - cost).abs() < 1e-9, "{row:?}");
}

// === Values that Langfuse cannot use ===

#[tokio::test]
async fn attributes_without_a_value_are_left_out_wherever_they_are() {
    let mut poisoned = span(vec![without_value("nothing"), text("something", "x")]);
    poisoned.events = vec![Event {
        time_unix_nano: START_NS,
        name: "e".to_owned(),
        attributes: vec![without_value("nothing"), number("n", 1)],
        ..Event::default()
    }];
    let request =
        request(vec![without_value("nothing"), text("service.name", "shop")], vec![poisoned]);
    assert!(mapping::rows(&request).is_err(), "the real one would lose it");
    let rows = arrived("", &delivery(Receiver::OtlpHttp, request.encode_to_vec())).await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_scope_with_an_attribute_without_a_value_is_mended() {
    let mut request = request(Vec::new(), vec![span(Vec::new())]);
    let scope = request.resource_spans[0].scope_spans[0].scope.as_mut().unwrap();
    scope.attributes = vec![without_value("nothing"), text("public_key", "pk")];
    let rows = arrived("", &delivery(Receiver::OtlpHttp, request.encode_to_vec())).await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn maps_bytes_large_integers_and_infinities_become_text() {
    let map =
        KeyValueList { values: vec![number("a", 1), number("large", i64::MAX), text("b", "x\"y")] };
    let mixed = ArrayValue {
        values: vec![
            any(Any::IntValue(1)),
            any(Any::KvlistValue(KeyValueList { values: vec![number("c", 2)] })),
        ],
    };
    let name = |name: &str| format!("langfuse.observation.metadata.{name}");
    let row = row(vec![
        attribute(&name("map"), Any::KvlistValue(map)),
        attribute(&name("bytes"), Any::BytesValue(vec![0, 255, 16])),
        attribute(&name("large"), Any::IntValue(9_007_199_254_740_993)),
        attribute(&name("safe"), Any::IntValue(9_007_199_254_740_991)),
        attribute(&name("nan"), Any::DoubleValue(f64::NAN)),
        attribute(&name("infinite"), Any::DoubleValue(f64::NEG_INFINITY)),
        attribute(&name("mixed"), Any::ArrayValue(mixed)),
        attribute(
            &name("none"),
            Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: None }] }),
        ),
    ])
    .await;
    let got = |name: &str| row.metadata.get(name).cloned().unwrap_or(Value::Null);
    assert_eq!(got("map.a"), 1);
    assert_eq!(got("map.large"), "9223372036854775807");
    assert_eq!(got("map.b"), "x\"y");
    assert_eq!(got("bytes"), "AP8Q");
    assert_eq!(got("large").to_string(), "9007199254740993");
    assert_eq!(got("safe"), 9_007_199_254_740_991_i64);
    assert_eq!(got("nan"), "NaN");
    assert_eq!(got("infinite"), "-Infinity");
    assert_eq!(got("mixed"), json!([1, { "c": 2 }]));
    assert_eq!(got("none"), json!([null]));
}

#[tokio::test]
async fn what_must_be_text_is_text() {
    let spans = vec![span(vec![
        number("langfuse.version", 7),
        number("langfuse.trace.name", 8),
        number("langfuse.observation.status_message", 9),
        number("session.id", 10),
        attribute("user.id", Any::BoolValue(true)),
    ])];
    let request = request(vec![number("service.version", 3)], spans);
    let rows = arrived("", &delivery(Receiver::OtlpHttp, request.encode_to_vec())).await;
    let row = &rows[0];
    assert_eq!(row.version.as_deref(), Some("7"));
    assert_eq!(row.trace_name.as_deref(), Some("8"));
    assert_eq!(row.status_message, "9");
    assert_eq!(row.session.as_deref(), Some("10"));
    assert_eq!(row.user.as_deref(), Some("true"));
}

#[tokio::test]
async fn a_prompt_has_a_name_and_a_number_and_belongs_to_a_model_call() {
    let name = || text("langfuse.observation.prompt.name", "greeting");
    let generation = || text("langfuse.observation.type", "generation");
    let good =
        row(vec![generation(), name(), number("langfuse.observation.prompt.version", 3)]).await;
    assert_eq!(good.prompt, Some(("greeting".to_owned(), 3)));
    let in_text =
        row(vec![generation(), name(), text("langfuse.observation.prompt.version", "3")]).await;
    assert_eq!(in_text.prompt, Some(("greeting".to_owned(), 3)));
    for odd in [
        vec![generation(), name()],
        vec![generation(), number("langfuse.observation.prompt.version", 3)],
        vec![generation(), name(), text("langfuse.observation.prompt.version", "latest")],
        vec![
            text("langfuse.observation.type", "tool"),
            name(),
            number("langfuse.observation.prompt.version", 3),
        ],
    ] {
        let row = row(odd).await;
        assert_eq!(row.prompt, None);
        let kept = row.metadata.keys().any(|key| key.contains("prompt."));
        assert!(kept, "it is not lost: {:?}", row.metadata);
    }
}

#[tokio::test]
async fn names_are_cut_and_never_empty() {
    let mut long = span(vec![text("langfuse.trace.metadata.k", "\"v\"")]);
    long.name = "\u{1f31e}".repeat(600);
    let mut nameless = span(vec![text("openinference.span.kind", "TOOL")]);
    nameless.name = String::new();
    nameless.span_id = vec![4; 8];
    let context =
        TraceContext { workflow: Some(Text::from("w".repeat(1500))), ..TraceContext::default() };
    let rows = arrived("", &known(otlp(vec![long, nameless]), &context)).await;
    assert_eq!(rows[0].name.encode_utf16().count(), 1000);
    assert!(!rows[1].name.is_empty());
    assert!(rows.iter().all(|row| row.trace_name.as_ref().unwrap().len() == 200));
}

#[tokio::test]
async fn a_span_ends_no_earlier_than_it_starts_and_never_in_1970() {
    let ms = START_NS / 1_000_000;
    for (start, end, expected) in [
        (START_NS, START_NS + 2_000_000, (ms, ms + 2)),
        (START_NS, START_NS - 9_000_000, (ms, ms)),
        (START_NS, 0, (ms, ms)),
        (0, START_NS, (ms, ms)),
        (0, 0, (ms + 5000, ms + 5000)),
    ] {
        let span =
            Span { start_time_unix_nano: start, end_time_unix_nano: end, ..span(Vec::new()) };
        let row = arrived("", &otlp(vec![span])).await.remove(0);
        assert_eq!((row.start_ms, row.end_ms), expected, "{start} {end}");
    }
}

#[tokio::test]
async fn a_span_that_comes_again_with_another_start_keeps_the_one_that_was_delivered() {
    let fake = Fake::start().await;
    let sink = sink(&fake.options());
    for later in [0, 3_000_000, 1_000_000] {
        let start = START_NS + later;
        let span = Span { start_time_unix_nano: start, ..span(Vec::new()) };
        assert_eq!(sink.deliver(&otlp(vec![span])).await, Report::delivered());
    }
    let starts: Vec<u64> = fake.rows().iter().map(|row| row.start_ms).collect();
    assert_eq!(starts, [START_NS / 1_000_000; 3]);
    assert_eq!(fake.merged().len(), 1);
}

// === Types ===

#[tokio::test]
async fn the_type_is_said_where_langfuse_has_no_word_for_the_kind() {
    for (attributes, expected) in [
        (vec![text("gen_ai.operation.name", "retrieval")], "retriever"),
        (vec![text("gen_ai.operation.name", "guardrail_check")], "guardrail"),
        (vec![text("gen_ai.operation.name", "invoke_workflow")], "chain"),
        (vec![text("traceloop.span.kind", "tool")], "tool"),
        (vec![text("traceloop.span.kind", "workflow")], "chain"),
        (vec![text("mlflow.spanType", "\"CHAT_MODEL\"")], "generation"),
        // LangSmith calls prompt templates `chat` too.
        (
            vec![text("langsmith.span.kind", "prompt"), text("gen_ai.operation.name", "chat")],
            "chain",
        ),
        (vec![text("openinference.span.kind", "PROMPT")], "chain"),
        // A kind without a type of its own keeps the type that Langfuse finds.
        (vec![text("gen_ai.operation.name", "handoff")], "span"),
        (vec![text("openinference.span.kind", "RERANKER")], "span"),
        (vec![text("http.route", "/")], "span"),
        (vec![text("langfuse.observation.type", "evaluator")], "evaluator"),
    ] {
        let row = row(attributes.clone()).await;
        assert_eq!(row.kind, expected, "{attributes:?}");
    }
}

#[tokio::test]
async fn a_type_that_langfuse_finds_itself_is_not_said_again() {
    for attributes in [
        vec![text("gen_ai.operation.name", "chat")],
        vec![text("gen_ai.operation.name", "invoke_agent")],
        vec![text("openinference.span.kind", "LLM")],
        vec![text("langfuse.observation.type", "tool")],
    ] {
        let fake = Fake::start().await;
        let chat = span(attributes);
        assert_eq!(
            sink(&fake.options()).deliver(&otlp(vec![chat.clone()])).await,
            Report::delivered()
        );
        let message = &fake.posts()[0].message;
        let own = usize::from(
            memchr::memmem::find(&chat.encode_to_vec(), b"langfuse.observation.type").is_some(),
        );
        assert_eq!(memchr::memmem::find_iter(message, b"langfuse.observation.type").count(), own);
    }
}

// === Tokens and cost ===

#[tokio::test]
async fn every_shape_of_usage_becomes_buckets_that_exclude_each_other() {
    let openai = json!({
        "requests": 1, "input_tokens": 120, "output_tokens": 45, "total_tokens": 165,
        "input_tokens_details": { "cached_tokens": 64, "cache_write_tokens": 0 },
        "output_tokens_details": { "reasoning_tokens": 12 }
    });
    let verbatim = vec![
        text("langfuse.observation.type", "generation"),
        text("langfuse.observation.model.name", "gpt-5-mini"),
        text("langfuse.observation.usage_details", &openai.to_string()),
    ];
    // Without Spanferry, Langfuse treats every number as a bucket.
    let unhelped = mapping::rows(&request(Vec::new(), vec![span(verbatim.clone())])).unwrap();
    assert_eq!(unhelped[0].usage["total_tokens"] + unhelped[0].usage["input_tokens"], 285);
    assert_eq!(unhelped[0].usage["total"], 331);
    let expected = usage(&[
        ("input", 56),
        ("input_cached_tokens", 64),
        ("output", 33),
        ("output_reasoning_tokens", 12),
        ("total", 165),
    ]);
    let helped = row(verbatim).await;
    assert_eq!(helped.usage, expected);
    let cost = 56.0 * 0.25e-6 + 64.0 * 0.025e-6 + (33.0 + 12.0) * 2e-6;
    assert!((helped.cost["total"] - cost).abs() < 1e-9, "{helped:?}");
    for attributes in [
        vec![
            text("gen_ai.operation.name", "chat"),
            number("gen_ai.usage.input_tokens", 120),
            number("gen_ai.usage.output_tokens", 45),
            number("gen_ai.usage.total_tokens", 165),
            number("gen_ai.usage.cache_read.input_tokens", 64),
            number("gen_ai.usage.reasoning.output_tokens", 12),
        ],
        vec![
            text("openinference.span.kind", "LLM"),
            number("llm.token_count.prompt", 120),
            number("llm.token_count.completion", 45),
            number("llm.token_count.total", 165),
            number("llm.token_count.prompt_details.cache_read", 64),
            number("llm.token_count.completion_details.reasoning", 12),
        ],
        vec![
            text("langfuse.observation.type", "generation"),
            text(
                "langfuse.observation.usage_details",
                r#"{"prompt_tokens":120,"completion_tokens":45,"total_tokens":165,
                    "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":12}}"#,
            ),
        ],
        vec![
            text("langfuse.observation.type", "generation"),
            text(
                "langfuse.observation.usage_details",
                r#"{"input":56,"input_cached_tokens":64,"output":33,"output_reasoning_tokens":12,"total":165}"#,
            ),
        ],
    ] {
        assert_eq!(row(attributes.clone()).await.usage, expected, "{attributes:?}");
    }
}

#[tokio::test]
async fn buckets_of_ones_own_are_left_alone() {
    let own = r#"{"input":10,"output":5,"search_units":3}"#;
    let row = row(vec![
        text("langfuse.observation.type", "generation"),
        text("langfuse.observation.usage_details", own),
    ])
    .await;
    assert_eq!(
        row.usage,
        usage(&[("input", 10), ("output", 5), ("search_units", 3), ("total", 18)])
    );
}

#[tokio::test]
async fn reasoning_costs_the_same_whichever_bucket_has_a_price() {
    for (model, options, splits, dollars) in [
        ("gpt-5-mini", "", true, 56.0 * 0.25 + 64.0 * 0.025 + 45.0 * 2.0),
        (
            "gpt-5-mini",
            "reasoning_tokens = \"in_output\"",
            false,
            56.0 * 0.25 + 64.0 * 0.025 + 45.0 * 2.0,
        ),
        ("gpt-5.4-mini", "", false, 56.0 * 0.75 + 64.0 * 0.075 + 45.0 * 4.5),
        ("gpt-4o", "", false, 56.0 * 2.5 + 64.0 * 1.25 + 45.0 * 10.0),
    ] {
        let chat = span(vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", model),
            number("gen_ai.usage.input_tokens", 120),
            number("gen_ai.usage.output_tokens", 45),
            number("gen_ai.usage.cache_read.input_tokens", 64),
            number("gen_ai.usage.reasoning.output_tokens", 12),
        ]);
        let row = arrived(options, &otlp(vec![chat])).await.remove(0);
        assert_eq!(row.usage.contains_key("output_reasoning_tokens"), splits, "{model}");
        assert_eq!(row.usage["total"], 165, "{model}");
        assert!((row.cost["total"] - dollars / 1e6).abs() < 1e-9, "{model}: {row:?}");
    }
}

#[tokio::test]
async fn a_cost_that_was_given_is_a_number_and_has_a_total() {
    let cost = |details: &str| {
        vec![
            text("langfuse.observation.type", "generation"),
            text("langfuse.observation.cost_details", details),
        ]
    };
    let row_of = |details: &'static str| row(cost(details));
    assert!((row_of(r#"{"input":0.25,"cached":0.5}"#).await.cost["total"] - 0.75).abs() < 1e-9);
    assert!((row_of(r#"{"input":"0.25","output":1}"#).await.cost["total"] - 1.25).abs() < 1e-9);
    assert!((row_of(r#"{"input":0.25,"output":1}"#).await.cost["total"] - 1.25).abs() < 1e-9);
    let logfire = row(vec![
        text("gen_ai.operation.name", "chat"),
        attribute("operation.cost", Any::DoubleValue(0.125)),
    ]);
    assert!((logfire.await.cost["total"] - 0.125).abs() < 1e-9);
}

#[tokio::test]
async fn parents_that_repeat_the_tokens_of_their_children_carry_none() {
    for attributes in [
        vec![
            text("langsmith.span.kind", "chain"),
            text("gen_ai.request.model", "gpt-4o"),
            number("gen_ai.usage.input_tokens", 120),
            number("gen_ai.usage.output_tokens", 45),
        ],
        vec![
            text("openinference.span.kind", "AGENT"),
            text("llm.model_name", "gpt-4o"),
            number("llm.token_count.prompt", 120),
            text("input.value", "hello"),
        ],
        vec![
            text("gen_ai.operation.name", "invoke_agent"),
            text("gen_ai.request.model", "gpt-4o"),
            number("gen_ai.usage.input_tokens", 120),
        ],
        vec![
            text("openinference.span.kind", "CHAIN"),
            attribute("llm.cost.total", Any::DoubleValue(1.0)),
        ],
    ] {
        let row = row(attributes.clone()).await;
        assert!(
            row.usage.is_empty() && row.cost.is_empty() && !row.is_invented,
            "{attributes:?}: {row:?}"
        );
    }
    let chain =
        row(vec![text("openinference.span.kind", "CHAIN"), number("llm.token_count.total", 9)])
            .await;
    assert_eq!(chain.metadata["llm.token_count.total"], 9, "it can still be read");
}

/// Returns the row of a span whose tokens count contrary to its kind.
async fn exception(attributes: Vec<KeyValue>) -> Row {
    let delivery = otlp(vec![span(attributes)]);
    let exceptions = delivery.spans().map(|span| span.span_id).collect();
    let context = TraceContext { exceptions, ..TraceContext::default() };
    arrived("", &known(delivery, &context)).await.remove(0)
}

#[tokio::test]
async fn a_span_that_speaks_for_those_below_it_carries_their_tokens_and_a_type_that_is_priced() {
    let tokens = || {
        vec![
            text("gen_ai.request.model", "gpt-4o"),
            number("gen_ai.usage.input_tokens", 120),
            number("gen_ai.usage.output_tokens", 45),
        ]
    };
    for (own, kind) in [
        // Langfuse reads no tokens from a span of this operation, whatever other attributes it has.
        (text("gen_ai.operation.name", "invoke_agent"), "agent"),
        (text("openinference.span.kind", "CHAIN"), "chain"),
        (text("logfire.span_type", "log"), "generation"),
        (text("gen_ai.operation.name", "orchestrate_tools"), "chain"),
        (text("gen_ai.operation.name", "create_thread"), "generation"),
    ] {
        let row = exception([tokens(), vec![own.clone()]].concat()).await;
        assert_eq!(row.kind, kind, "{own:?}");
        assert_eq!(row.usage, usage(&[("input", 120), ("output", 45), ("total", 165)]), "{own:?}");
        assert_eq!(row.model.as_deref(), Some("gpt-4o"), "{own:?}");
        assert!((row.cost["total"] - (120.0 * 2.5e-6 + 45.0 * 10e-6)).abs() < 1e-9, "{own:?}");
    }
}

#[tokio::test]
async fn langfuse_makes_up_no_tokens_that_another_span_says_and_none_of_what_it_has_from_here() {
    let none = usage(&[("total", 0)]);
    let silent = || {
        vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "gpt-4o"),
            text("gen_ai.input.messages", "[]"),
        ]
    };
    assert!(
        row(silent()).await.is_invented,
        "nobody else says them, and Langfuse finds all it needs"
    );
    let told = exception(silent()).await;
    assert_eq!(
        (told.model.as_deref(), told.usage, told.is_invented),
        (Some("gpt-4o"), none.clone(), false)
    );
    let model = || text("mlflow.llm.model", "\"gpt-4o\"");
    let kind = || text("mlflow.spanType", "\"LLM\"");
    for from_here in [
        vec![kind(), model(), text("mlflow.spanInputs", "{}")],
        vec![
            text("langsmith.span.kind", "llm"),
            text("gen_ai.request.model", "gpt-4o"),
            text("gen_ai.prompt", "[{}]"),
        ],
    ] {
        let row = row(from_here).await;
        assert_eq!((row.model.as_deref(), row.usage), (Some("gpt-4o"), none.clone()));
    }
}

#[tokio::test]
async fn a_model_in_quotes_and_a_cost_that_is_none_do_not_keep_langfuse_from_its_price() {
    let quoted = row(vec![
        text("mlflow.spanType", "\"CHAT_MODEL\""),
        text("model", "\"gpt-4o\""),
        text("mlflow.llm.model", "\"gpt-4o\""),
        text(
            "mlflow.chat.tokenUsage",
            r#"{"input_tokens":120,"output_tokens":45,"total_tokens":165}"#,
        ),
    ])
    .await;
    assert_eq!(quoted.model.as_deref(), Some("gpt-4o"));
    let costs = |row: &Row| (row.cost["total"] - (120.0 * 2.5e-6 + 45.0 * 10e-6)).abs() < 1e-9;
    assert!(costs(&quoted), "{quoted:?}");
    let mut request = request(
        Vec::new(),
        vec![span(vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "gpt-4o"),
            number("gen_ai.usage.input_tokens", 120),
            number("gen_ai.usage.output_tokens", 45),
            number("gen_ai.usage.cost", 0),
        ])],
    );
    let scope = request.resource_spans[0].scope_spans[0].scope.as_mut().unwrap();
    scope.name = "openlit.instrumentation.openai".to_owned();
    let rows = arrived("", &delivery(Receiver::OtlpHttp, request.encode_to_vec())).await;
    assert!(costs(&rows[0]), "{rows:?}");
    assert_eq!(rows[0].metadata["gen_ai.usage.cost"], 0, "it can still be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_call_is_sent_once_more_when_the_call_around_it_says_its_tokens_later() {
    let world = World::start("batch = { age_max = \"50ms\" }\n").await;
    let mut around = span(vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.request.model", "gpt-4o"),
        number("gen_ai.usage.input_tokens", 120),
    ]);
    let mut silent = span(vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.request.model", "gpt-4o"),
        text("gen_ai.input.messages", "[]"),
    ]);
    (around.span_id, silent.span_id) = (vec![5; 8], vec![6; 8]);
    silent.parent_span_id.clone_from(&around.span_id);
    let id = mapping::hex(&silent.span_id);
    for one in [silent, around] {
        let body = request(Vec::new(), vec![one]).encode_to_vec();
        world.otlp("application/x-protobuf", "", body).await;
        world.settled().await;
    }
    let zero = usage(&[("total", 0)]);
    let last = |fake: &Fake| fake.rows().into_iter().rev().find(|row| row.id == id);
    world.until("told", |_, fake| last(fake).is_some_and(|row| row.usage == zero)).await;
    assert!(world.fake.rows().iter().any(|row| row.is_invented), "nobody had said them before");
    world.stop().await;
}

#[tokio::test]
async fn a_call_around_another_carries_nothing_that_is_added_up() {
    for attributes in [
        vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "gpt-4o"),
            number("gen_ai.usage.input_tokens", 120),
            text("gen_ai.input.messages", "[]"),
        ],
        vec![
            text("langfuse.observation.type", "generation"),
            text("langfuse.observation.model.name", "gpt-4o"),
            text("langfuse.observation.usage_details", "{\"input\":120}"),
            text("langfuse.observation.cost_details", "{\"total\":1.5}"),
            text("langfuse.observation.input", "hello"),
        ],
    ] {
        let row = exception(attributes.clone()).await;
        assert_eq!(row.kind, "generation", "{row:?}");
        assert!(
            row.usage.is_empty() && row.cost.is_empty() && !row.is_invented,
            "{attributes:?}: {row:?}"
        );
    }
    // An unknown kind: the orchestration around the calls of Microsoft's framework.
    let around = row(vec![
        text("gen_ai.operation.name", "orchestrate_tools"),
        text("gen_ai.request.model", "gpt-4o"),
        number("gen_ai.usage.input_tokens", 120),
    ]);
    let around = around.await;
    assert!(around.usage.is_empty() && around.model.is_none(), "{around:?}");
}

// === Trace, content, level ===

#[tokio::test]
async fn what_only_other_spans_say_of_the_trace_is_stamped_and_what_the_span_says_stays() {
    let context = TraceContext {
        workflow: Some(Text::from_static("checkout")),
        session: Some(Text::from_static("known")),
        user: Some(Text::from_static("ada")),
        environment: Some(Text::from_static("staging")),
        release: Some(Text::from_static("r1")),
        tags: vec![Text::from_static("a, b"), Text::from_static("beta")],
        ..TraceContext::default()
    };
    let bare = span(Vec::new());
    let mut own = span(vec![
        text("session.id", "own"),
        text("langfuse.trace.name", "mine"),
        attribute(
            "langfuse.trace.tags",
            Any::ArrayValue(ArrayValue { values: vec![any(Any::StringValue("beta".to_owned()))] }),
        ),
    ]);
    own.span_id = vec![5; 8];
    let rows = arrived("", &known(otlp(vec![bare, own]), &context)).await;
    let facts = |place: usize| {
        let row = &rows[place];
        (row.trace_name.clone().unwrap(), row.session.clone().unwrap(), row.user.clone().unwrap())
    };
    assert_eq!(facts(0), ("checkout".to_owned(), "known".to_owned(), "ada".to_owned()));
    assert_eq!(facts(1), ("mine".to_owned(), "own".to_owned(), "ada".to_owned()));
    for row in &rows {
        assert_eq!((row.environment.as_str(), row.release.as_deref()), ("staging", Some("r1")));
        assert_eq!(row.tags, ["a, b", "beta"], "a comma does not split a tag");
    }
}

#[tokio::test]
async fn environment_and_release_come_from_the_configuration_where_nobody_says_them() {
    let options = "environment = \"production\"\nrelease = \"2026.11\"";
    let rows = arrived(options, &otlp(vec![span(Vec::new())])).await;
    assert_eq!(
        (rows[0].environment.as_str(), rows[0].release.as_deref()),
        ("production", Some("2026.11"))
    );
    let said = request(vec![text("deployment.environment.name", "Test")], vec![span(Vec::new())]);
    let rows = arrived(options, &delivery(Receiver::OtlpHttp, said.encode_to_vec())).await;
    assert_eq!(rows[0].environment, "test");
}

#[tokio::test]
async fn input_and_output_are_written_where_langfuse_does_not_look_for_them() {
    let langsmith = row(vec![
        text("langsmith.span.kind", "llm"),
        text("gen_ai.prompt", "[{\"role\":\"user\"}]"),
        text("gen_ai.completion", "{\"text\":\"hi\"}"),
    ])
    .await;
    assert_eq!(langsmith.input.as_deref(), Some("[{\"role\":\"user\"}]"));
    assert_eq!(langsmith.output.as_deref(), Some("{\"text\":\"hi\"}"));
    let openinference = row(vec![text("input.value", "in"), text("output.value", "out")]).await;
    assert_eq!(
        (openinference.input.as_deref(), openinference.output.as_deref()),
        (Some("in"), Some("out"))
    );
}

#[tokio::test]
async fn a_prompt_that_says_nothing_does_not_hide_what_went_in_and_came_out() {
    for prompt in ["null", "\"<openai.Omit object at 0x7f>\""] {
        let mlflow = row(vec![
            text("mlflow.spanType", "\"CHAT_MODEL\""),
            text("mlflow.spanInputs", "{\"a\":1}"),
            text("prompt", prompt),
            text("mlflow.spanOutputs", "{\"b\":2}"),
        ])
        .await;
        let content = (mlflow.input.as_deref(), mlflow.output.as_deref());
        assert_eq!(content, (Some("{\"a\":1}"), Some("{\"b\":2}")));
    }
}

#[tokio::test]
async fn a_root_without_input_and_output_gets_those_of_its_trace() {
    let content = Content {
        input: Some(Payload::Text(Text::from_static("hello"))),
        output: Some(Payload::Json(Text::from_static("[\"hi\"]"))),
    };
    let mut root = span(Vec::new());
    root.parent_span_id = Vec::new();
    let id = SpanId::from_slice(&root.span_id).unwrap();
    let known_of = TraceContext { contents: [(id, content)].into(), ..TraceContext::default() };
    let mut child = span(Vec::new());
    child.span_id = vec![5; 8];
    let rows = arrived("", &known(otlp(vec![root, child]), &known_of)).await;
    assert_eq!(
        (rows[0].input.as_deref(), rows[0].output.as_deref()),
        (Some("hello"), Some("[\"hi\"]"))
    );
    assert_eq!((&rows[1].input, &rows[1].output), (&None, &None));
}

#[tokio::test]
async fn errors_and_tripped_guardrails_have_their_level() {
    let mut failed = span(Vec::new());
    failed.status = Some(Status { code: 2, message: "no".to_owned() });
    let rows = arrived("", &otlp(vec![failed])).await;
    assert_eq!((rows[0].level.as_str(), rows[0].status_message.as_str()), ("ERROR", "no"));
    let tripped = row(vec![
        text("gen_ai.operation.name", "guardrail_check"),
        attribute("gen_ai.guardrail.triggered", Any::BoolValue(true)),
    ])
    .await;
    assert_eq!((tripped.kind.as_str(), tripped.level.as_str()), ("guardrail", "WARNING"));
    let fine = row(vec![
        text("gen_ai.operation.name", "guardrail_check"),
        attribute("gen_ai.guardrail.triggered", Any::BoolValue(false)),
    ])
    .await;
    assert_eq!(fine.level, "DEFAULT");
}

#[tokio::test]
async fn the_first_token_is_a_point_in_time() {
    let row = row(vec![
        text("gen_ai.operation.name", "chat"),
        attribute("gen_ai.response.time_to_first_chunk", Any::DoubleValue(0.25)),
    ])
    .await;
    assert_eq!(row.completion_start.as_deref(), Some("2026-11-21T05:15:09.779503000Z"));
}

// === Spans unrelated to models ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_http_and_databases_are_left_out_and_counted_where_that_is_asked_for() {
    let spans = || {
        let with = |id: u8, parent: &[u8], kind: i32, attribute: KeyValue| Span {
            span_id: vec![id; 8],
            parent_span_id: parent.to_vec(),
            kind,
            ..span(vec![attribute])
        };
        vec![
            // A request came in from elsewhere, queried a database, and through another span of the app called a model, which called a
            // tool.
            with(1, &[99; 8], 2, text("http.route", "/ask")),
            with(2, &[1; 8], 3, text("db.system", "postgresql")),
            with(3, &[1; 8], 1, text("app.step", "answer")),
            with(4, &[3; 8], 3, text("gen_ai.operation.name", "chat")),
            with(5, &[4; 8], 1, text("gen_ai.tool.name", "lookup")),
            with(6, &[5; 8], 3, text("url.full", "https://example.com")),
            with(7, &[6; 8], 3, text("gen_ai.request.model", "m")),
        ]
    };
    let body = request(Vec::new(), spans()).encode_to_vec();
    for (options, kept, filtered) in
        [("keep = \"llm\"", &[4_u8, 5, 7][..], 4), ("", &[1, 2, 3, 4, 5, 6, 7], 0)]
    {
        let world = World::start(&format!("{options}\nbatch = {{ age_max = \"20ms\" }}\n")).await;
        world.otlp("application/x-protobuf", "", body.clone()).await;
        let sink = world.settled().await;
        assert_eq!((&sink["filtered"], &sink["delivered"]), (&json!(filtered), &json!(kept.len())));
        let mut ids: Vec<_> = world.fake.rows().into_iter().map(|row| row.id).collect();
        ids.sort();
        assert_eq!(ids, kept.iter().map(|id| format!("{id:02x}").repeat(8)).collect::<Vec<_>>());
        // The trace is listed by the first span that is kept, and by no other; no span is below a missing one.
        let mut parents: Vec<_> =
            world.fake.posts().iter().flat_map(|post| parents(&post.message)).collect();
        parents.sort();
        let kept = [(4, None), (5, Some(4)), (7, Some(5))];
        let as_sent = [1, 2, 3, 4, 5, 6, 7].into_iter().zip([99, 1, 1, 3, 4, 5, 6].map(Some));
        let expected = if filtered == 0 { as_sent.collect() } else { kept.to_vec() };
        assert_eq!(parents, expected);
        world.stop().await;
    }
}

/// Returns each span with its parent.
fn parents(message: &[u8]) -> Vec<(u8, Option<u8>)> {
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
    let spans = scopes.flat_map(|scope| &scope.spans);
    spans.map(|span| (span.span_id[0], span.parent_span_id.first().copied())).collect()
}
