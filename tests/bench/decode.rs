//! Cost per span of reading and writing OTLP: `cargo bench --bench decode`. Criterion's `elem` is a span.
//!
//! Small spans take about 300 bytes in protobuf, 100 per request; agent spans about 6.7 KB, 20 per request.
#![expect(clippy::expect_used, reason = "a bench may panic")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use spanferry::normalize::{Coding, Decoded, Encoding, Envelope, Limits, decode, inflate};
use spanferry::span::{Source, otlp};
use spanferry::support::compress;

/// A kind of request.
struct Load {
    name: &'static str,
    spans: u32,
    attributes: Vec<KeyValue>,
}

fn loads() -> [Load; 2] {
    let small = [
        ("http.request.method", "GET"),
        ("http.route", "/v1/orders/{id}"),
        ("server.address", "orders.internal.example"),
        ("enduser.id", "customer-000042"),
        ("net.protocol.version", "1.1"),
    ];
    let mut small: Vec<KeyValue> = small.into_iter().map(|(key, value)| text(key, value)).collect();
    small.push(integer("http.response.status_code", 200));

    let sentence = "Your order is late by two days, and the shipment cannot be found. ";
    let message = |role: &str, sentences: usize| {
        let content = format!("{sentence}\\n").repeat(sentences);
        format!(
            "{{\"role\":\"{role}\",\"parts\":[{{\"type\":\"text\",\"content\":\"{content}\"}}]}}"
        )
    };
    let mut agent = vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4.1-mini"),
        text("gen_ai.response.model", "gpt-4.1-mini-2025-04-14"),
        text("gen_ai.response.id", "chatcmpl-000000000000000000000042"),
        text("gen_ai.conversation.id", "thread_5f2c9a"),
        text("gen_ai.agent.name", "Refunds"),
        text("server.address", "api.openai.com"),
        text(
            "gen_ai.input.messages",
            &format!("[{},{}]", message("system", 18), message("user", 45)),
        ),
        text("gen_ai.output.messages", &format!("[{}]", message("assistant", 25))),
    ];
    agent.push(integer("gen_ai.usage.input_tokens", 1100));
    agent.push(integer("gen_ai.usage.output_tokens", 380));
    [
        Load { name: "small", spans: 100, attributes: small },
        Load { name: "agent", spans: 20, attributes: agent },
    ]
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn request(load: &Load) -> ExportTraceServiceRequest {
    let span = |number: u32| Span {
        trace_id: vec![7; 16],
        span_id: u64::from(number).to_be_bytes().to_vec(),
        parent_span_id: vec![9; 8],
        name: "GET /v1/orders/{id}".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_795_219_200_000_000_000,
        end_time_unix_nano: 1_795_219_200_000_750_000,
        attributes: load.attributes.clone(),
        ..Span::default()
    };
    let scope =
        InstrumentationScope { name: "bench".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: (1..=load.spans).map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource =
        Resource { attributes: vec![text("service.name", "bench")], ..Resource::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

fn envelope(encoding: Encoding) -> Envelope {
    // From an unidentified client, over OTLP/HTTP.
    Envelope::new(Source::unknown(), encoding, 0)
}

fn decoded(encoding: Encoding, body: &Bytes) -> Decoded {
    decode(&envelope(encoding), body, &Limits::default()).expect("the body is a request")
}

fn benches(criterion: &mut Criterion) {
    for load in loads() {
        let request = request(&load);
        let mut group = criterion.benchmark_group(load.name);
        group.throughput(Throughput::Elements(u64::from(load.spans)));
        let protobuf = Bytes::from(request.encode_to_vec());
        let arrived = decoded(Encoding::Protobuf, &protobuf);
        let mut json = Vec::new();
        otlp::json::write_request(&mut json, arrived.batch.spans());
        let json = Bytes::from(json);
        reading(&mut group, &protobuf, &json);
        writing(&mut group, &arrived);
        coding(&mut group, &protobuf);
        group.finish();
    }
}

fn reading(group: &mut BenchmarkGroup<'_, WallTime>, protobuf: &Bytes, json: &Bytes) {
    let kinds = [("protobuf", Encoding::Protobuf, protobuf), ("json", Encoding::Json, json)];
    for (name, encoding, body) in kinds {
        group.bench_function(format!("read {name}"), |bencher| {
            bencher.iter(|| decoded(encoding, body));
        });
        group.bench_function(format!("read {name} with detail"), |bencher| {
            bencher.iter(|| {
                let decoded = decoded(encoding, body);
                for span in decoded.batch.spans() {
                    black_box(span.detail());
                }
                decoded
            });
        });
        let arrived = decoded(encoding, body);
        group.bench_function(format!("facts in brief of {name}"), |bencher| {
            bencher.iter(|| {
                for span in arrived.batch.spans() {
                    black_box(span.clone().brief_facts());
                }
            });
        });
    }
    group.bench_function("read protobuf with prost", |bencher| {
        bencher.iter(|| {
            ExportTraceServiceRequest::decode(protobuf.as_ref()).expect("the body is a request")
        });
    });
}

fn writing(group: &mut BenchmarkGroup<'_, WallTime>, arrived: &Decoded) {
    group.bench_function("write protobuf", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(1 << 20);
            otlp::protobuf::write_request(&mut out, arrived.batch.spans());
            out
        });
    });
    group.bench_function("write json", |bencher| {
        bencher.iter(|| {
            let mut out = Vec::with_capacity(1 << 20);
            otlp::json::write_request(&mut out, arrived.batch.spans());
            out
        });
    });
}

fn coding(group: &mut BenchmarkGroup<'_, WallTime>, protobuf: &Bytes) {
    let gzip = Bytes::from(compress::gzip(protobuf, 6).expect("memory does not fail"));
    group.bench_function("inflate gzip", |bencher| {
        bencher.iter(|| inflate(Coding::Gzip, gzip.clone(), 64 << 20).expect("the body is gzip"));
    });
}

criterion_group! {
    name = all;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(all);
