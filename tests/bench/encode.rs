//! Cost per span of encoding a line: `cargo bench --bench encode`. Criterion's `elem` is a span.
//!
//! Agent spans take about 6.7 KB in protobuf, 20 per request; small ones about 300 bytes, 100 per request. A span's detail and facts are
//! read before the measurement, except in the groups named `read and write`: these include reading, as in a daemon whose only sink is the
//! file. Identical agents compress better than real ones do, so each agent in the group `agent_words` has its own text.
#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanferry::normalize::{Encoding, Envelope, Limits, decode};
use spanferry::prices::{PriceOptions, Prices};
use spanferry::sinks::Delivery;
use spanferry::sinks::http::Compression;
use spanferry::sinks::jsonl::Lines;
use spanferry::sinks::parquet::{DEFAULT_ROW_GROUP_BYTES, Rows};
use spanferry::sinks::{elasticsearch, langfuse};
use spanferry::span::{Receiver, Source, otlp};

const ZSTD_LEVEL: i32 = 3;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn small() -> Vec<KeyValue> {
    vec![
        text("http.request.method", "GET"),
        text("http.route", "/v1/orders/{id}"),
        text("server.address", "orders.internal.example"),
        text("enduser.id", "customer-000042"),
        text("net.protocol.version", "1.1"),
        attribute("http.response.status_code", Value::IntValue(200)),
    ]
}

fn agent() -> Vec<KeyValue> {
    agent_that_says(|| "Where is my order?\\nIt is late by two days.".to_owned())
}

/// Returns an agent's attributes with words as frequent as in natural language, different for each number.
fn words(number: u8) -> Vec<KeyValue> {
    let mut state = u64::from(number) + 1;
    agent_that_says(|| {
        let words = (0..8).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let rank = (1 << (state >> 60)) + (state >> 40) % (1 << (state >> 60));
            format!("{:x}", rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
        });
        words.collect::<Vec<_>>().join(" ")
    })
}

fn agent_that_says(mut content: impl FnMut() -> String) -> Vec<KeyValue> {
    let mut messages = |count: usize| {
        let turns = (0..count).map(|_| {
            format!(
                "{{\"role\":\"user\",\"parts\":[{{\"type\":\"text\",\"content\":\"{}\"}}]}}",
                content()
            )
        });
        format!("[{}]", turns.collect::<Vec<_>>().join(","))
    };
    vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4.1-mini"),
        text("gen_ai.response.model", "gpt-4.1-mini-2025-04-14"),
        text("gen_ai.response.id", "chatcmpl-000000000000000000000042"),
        text("gen_ai.conversation.id", "thread_5f2c9a"),
        text("gen_ai.agent.name", "Refunds"),
        text("server.address", "api.openai.com"),
        text("gen_ai.input.messages", &messages(42)),
        text("gen_ai.output.messages", &messages(18)),
        attribute("gen_ai.usage.input_tokens", Value::IntValue(1100)),
        attribute("gen_ai.usage.output_tokens", Value::IntValue(380)),
    ]
}

fn otlp_body(count: u8, attributes: impl Fn(u8) -> Vec<KeyValue>) -> Bytes {
    let spans = (1..=count).map(|number| Span {
        trace_id: vec![7; 16],
        span_id: vec![number; 8],
        parent_span_id: vec![200; 8],
        name: "chat gpt-4.1-mini".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_795_238_109_529_503_000,
        end_time_unix_nano: 1_795_238_110_529_503_000,
        attributes: attributes(number),
        ..Span::default()
    });
    let scope =
        InstrumentationScope { name: "bench".to_owned(), ..InstrumentationScope::default() };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: spans.collect(), ..ScopeSpans::default() };
    let resource = Resource {
        attributes: vec![
            text("service.name", "shop"),
            text("service.version", "2.14.0"),
            text("telemetry.sdk.language", "python"),
            text("deployment.environment.name", "production"),
        ],
        ..Resource::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec().into()
}

fn sdk_body() -> Bytes {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/agents-sdk/python/p10_chat_completions/001.body.json"
    );
    std::fs::read(path).expect("the fixture is there").into()
}

fn delivery(receiver: Receiver, encoding: Encoding, body: &Bytes) -> Delivery {
    let envelope = Envelope::new(Source { receiver, ..Source::unknown() }, encoding, 0);
    let decoded = decode(&envelope, body, &Limits::default()).expect("the body is sound");
    let batch = Arc::new(decoded.batch);
    let mut delivery = Delivery::default();
    delivery.add(&batch, 0..batch.items.len());
    delivery
}

fn write_lines(out: &mut Vec<u8>, delivery: &Delivery) {
    out.clear();
    let prices = Prices::default();
    let mut lines = Lines::of(delivery, &prices);
    for (batch, item) in delivery.items() {
        lines.write(out, batch, item);
    }
}

fn langfuse_settings() -> langfuse::Settings {
    let options = "public_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"";
    let table = toml::de::DeTable::parse(options).expect("it is TOML");
    langfuse::parse(table).expect("they are options")
}

fn search_settings() -> elasticsearch::Settings {
    let table = toml::de::DeTable::parse("endpoints = [\"http://es:9200\"]").expect("it is TOML");
    elasticsearch::parse(table).expect("they are options")
}

/// Size at which an object ends, as in the sink.
const OBJECT_BYTES: usize = 128 << 20;

fn parquet(group: &mut BenchmarkGroup<'_, WallTime>, known: &Delivery) {
    let begun = || Rows::new(ZSTD_LEVEL, DEFAULT_ROW_GROUP_BYTES).expect("it begins");
    let (mut rows, prices) = (begun(), Prices::default());
    group.bench_function("parquet", |bencher| {
        bencher.iter(|| {
            rows.write(black_box(known), &prices).expect("memory takes it");
            if OBJECT_BYTES < black_box(rows.bytes()) {
                rows = begun();
            }
        });
    });
}

fn backends(group: &mut BenchmarkGroup<'_, WallTime>, fresh: impl Fn() -> Delivery) {
    let (settings, known_facts) = (langfuse_settings(), langfuse::KnownFacts::default());
    group.bench_function("langfuse, read, write and gzip", |bencher| {
        bencher.iter_batched_ref(
            &fresh,
            |delivery| {
                for body in langfuse::encode(delivery, &settings, &known_facts) {
                    black_box(settings.compression.apply(body.message).expect("it is memory"));
                }
            },
            BatchSize::SmallInput,
        );
    });
    let settings = search_settings();
    let server = elasticsearch::Server::assumed(elasticsearch::Flavor::Auto);
    let bytes_max = settings.options.request_bytes_max.as_usize();
    let encoder = elasticsearch::Encoder::new(&settings, server, bytes_max);
    group.bench_function("elasticsearch, read, write and gzip", |bencher| {
        bencher.iter_batched_ref(
            &fresh,
            |delivery| {
                for bulk in encoder.delivery(delivery, |_| true) {
                    black_box(Compression::Gzip.apply(bulk.body).expect("it is memory"));
                }
            },
            BatchSize::SmallInput,
        );
    });
}

fn encode(criterion: &mut Criterion) {
    let loads = [
        ("small", Receiver::OtlpHttp, Encoding::Protobuf, otlp_body(100, |_| small())),
        ("agent", Receiver::OtlpHttp, Encoding::Protobuf, otlp_body(20, |_| agent())),
        ("agent_words", Receiver::OtlpHttp, Encoding::Protobuf, otlp_body(250, words)),
        ("agents_sdk", Receiver::OpenAi, Encoding::Json, sdk_body()),
    ];
    for (name, receiver, encoding, body) in loads {
        let mut group = criterion.benchmark_group(name);
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        let fresh = || delivery(receiver, encoding, &body);
        let known = fresh();
        group.throughput(Throughput::Elements(known.len() as u64));
        let mut out = Vec::new();
        write_lines(&mut out, &known);
        group.bench_function("jsonl", |bencher| {
            bencher.iter(|| {
                write_lines(&mut out, black_box(&known));
                black_box(&out);
            });
        });
        group.bench_function("jsonl, read and write", |bencher| {
            let mut out = Vec::new();
            bencher.iter_batched_ref(
                fresh,
                |delivery| {
                    write_lines(&mut out, delivery);
                    black_box(&out);
                },
                BatchSize::SmallInput,
            );
        });
        parquet(&mut group, &known);
        // The facts are read already, and the model has been seen before.
        let read = || {
            let delivery = fresh();
            delivery.spans().for_each(|span| _ = black_box(span.facts()));
            delivery
        };
        let prices = Prices::new(&PriceOptions::default(), None);
        group.bench_function("price", |bencher| {
            bencher.iter_batched_ref(
                read,
                |delivery| delivery.spans().for_each(|span| _ = black_box(prices.of(span))),
                BatchSize::SmallInput,
            );
        });
        backends(&mut group, fresh);
        group.bench_function("otlp-json", |bencher| {
            bencher.iter(|| {
                out.clear();
                otlp::json::write_request(&mut out, black_box(&known).spans());
                black_box(&out);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
