//! Cost of decoding a request: the ingest format compared with a parse into `serde_json::Value`, and facts per span.
//!
//! `cargo bench --bench normalize`. Throughput is in spans, so times read as time per span.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use spanferry::normalize::{Decoded, Encoding, Envelope, Limits, decode};
use spanferry::rules::{KnownTraces, PATTERNS, Rules, of_text};
use spanferry::span::{Batch, Item, Receiver, Source};

/// Ingest bodies, from small spans to large ones.
const SDK: [&str; 5] = [
    "agents-sdk/python/p19_batches/001.body.json",
    "agents-sdk/python/p02_handoff_chain/001.body.json",
    "agents-sdk/js/j09_chat_completions/001.body.json",
    "agents-sdk/python/ext_full_content_response/001.body.json",
    "agents-sdk/python/p13_large/001.body.json",
];

/// OTLP bodies, one for each way of writing attributes.
const OTLP: [&str; 6] = [
    "otlp/otel-openai-v2/007_span_only-chat_traces.pb",
    "otlp/openinference-openai/001_chat_traces.pb",
    "otlp/openinference-openai-agents/001_handoff-tool_traces.pb",
    "otlp/logfire-openai-agents/002_handoff-tool_traces.pb",
    "otlp/vercel-ai-sdk/007_proto-generateText-tools-responses_traces.pb",
    "otlp/py-otel-sdk-http/001_none_traces.pb",
];

/// Requests of frameworks that contain large spans: model calls with their messages, tools and answers.
const FRAMEWORKS: [&str; 5] =
    ["langsmith-agent", "langsmith-anthropic", "llamaindex-native", "mlflow-agents", "lite"];
/// Size of such a span in protobuf, in bytes: around 6.7 KB.
const AGENT_BYTES: Range<usize> = 5_000..8_500;

fn body(name: &str) -> Bytes {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Bytes::from(std::fs::read(path).unwrap())
}

fn understand(receiver: Receiver, encoding: Encoding, body: &Bytes) -> Decoded {
    let envelope = Envelope::new(Source { receiver, ..Source::unknown() }, encoding, 0);
    decode(&envelope, body, &Limits::default()).unwrap()
}

fn agents_sdk(body: &Bytes) -> Decoded {
    understand(Receiver::OpenAi, Encoding::Json, body)
}

fn otlp(body: &Bytes) -> Decoded {
    understand(Receiver::OtlpHttp, Encoding::Protobuf, body)
}

/// Returns the agent spans of [`FRAMEWORKS`].
fn agents() -> Batch {
    let decoded = FRAMEWORKS.map(|name| {
        let body = body(&format!("programs/{name}/body.json"));
        understand(Receiver::OtlpHttp, Encoding::Json, &body).batch.items
    });
    let mut items: Vec<_> = decoded.into_iter().flatten().collect();
    items.retain(|item| AGENT_BYTES.contains(&item.wire().len()));
    Batch { source: Source::unknown(), items, bytes: 0 }
}

/// Returns the scenario's name without the part that all share.
fn label(name: &str) -> &str {
    name.trim_end_matches("/001.body.json").rsplit('/').next().unwrap()
}

fn ingest(criterion: &mut Criterion) {
    for name in SDK {
        let body = body(name);
        let mut group = criterion.benchmark_group(format!("ingest/{}", label(name)));
        group.throughput(Throughput::Elements(agents_sdk(&body).batch.items.len() as u64));
        group.bench_function("decode", |bencher| bencher.iter(|| agents_sdk(black_box(&body))));
        group.bench_function("serde_json_value", |bencher| {
            bencher.iter(|| serde_json::from_slice::<serde_json::Value>(black_box(&body)).unwrap());
        });
        group.bench_function("facts", |bencher| {
            let read = |decoded: Decoded| {
                decoded.batch.spans().for_each(|span| _ = black_box(span.facts()));
                decoded
            };
            bencher.iter_batched(|| agents_sdk(&body), read, BatchSize::SmallInput);
        });
        group.bench_function("facts in brief", |bencher| {
            let batch = agents_sdk(&body).batch;
            bencher
                .iter(|| batch.spans().for_each(|span| _ = black_box(span.clone().brief_facts())));
        });
        group.bench_function("detail", |bencher| {
            let read = |decoded: Decoded| {
                decoded.batch.spans().for_each(|span| _ = black_box(span.detail()));
                decoded
            };
            let with_facts = || {
                let decoded = agents_sdk(&body);
                decoded.batch.spans().for_each(|span| _ = black_box(span.facts()));
                decoded
            };
            bencher.iter_batched(with_facts, read, BatchSize::SmallInput);
        });
    }
}

fn conventions(criterion: &mut Criterion) {
    for name in OTLP {
        let body = body(name);
        let mut group = criterion.benchmark_group(format!("conventions/{name}"));
        group.throughput(Throughput::Elements(otlp(&body).batch.items.len() as u64));
        group.bench_function("facts", |bencher| {
            // The attributes are read before, so only their interpretation is measured.
            let with_detail = || {
                let decoded = otlp(&body);
                decoded.batch.spans().for_each(|span| _ = black_box(span.detail()));
                decoded
            };
            let read = |decoded: Decoded| {
                decoded.batch.spans().for_each(|span| _ = black_box(span.facts()));
                decoded
            };
            bencher.iter_batched(with_detail, read, BatchSize::SmallInput);
        });
        group.bench_function("facts in brief", |bencher| {
            let batch = otlp(&body).batch;
            bencher
                .iter(|| batch.spans().for_each(|span| _ = black_box(span.clone().brief_facts())));
        });
        // The entire normalization: from the body to the facts of each span.
        group.bench_function("all", |bencher| {
            bencher.iter(|| {
                let decoded = otlp(black_box(&body));
                decoded.batch.spans().for_each(|span| _ = black_box((span.detail(), span.facts())));
                decoded
            });
        });
    }
}

/// Searches for twenty patterns: in spans as they come, and in agent spans that contain none of them and such that do.
fn redact(criterion: &mut Criterion) {
    let names: Vec<_> =
        PATTERNS.iter().rev().take(20).map(|found| format!("'{}'", found.name)).collect();
    let text = format!("[[rules]]\nredact = {{ patterns = [{}] }}\n", names.join(", "));
    let rules = Rules::compile([], of_text(&text));
    let agents_sdk = SDK.map(|name| (name, Arc::new(agents_sdk(&body(name)).batch)));
    let otlp = OTLP.map(|name| (name, Arc::new(otlp(&body(name)).batch)));
    let is_clean = |item: &Item| {
        let alone = Batch { source: Source::unknown(), items: vec![item.clone()], bytes: 0 };
        let alone = Arc::new(alone);
        Arc::ptr_eq(&alone, &rules.apply_again(&alone, KnownTraces::Request).batch)
    };
    let (mut clean, mut matching) = (agents(), agents());
    clean.items.retain(is_clean);
    matching.items.retain(|item| !is_clean(item));
    let agents = [
        ("agents of 5 to 8.5 KB", Arc::new(clean)),
        ("agents of 5 to 8.5 KB with an address", Arc::new(matching)),
    ];
    for (name, batch) in agents_sdk.into_iter().chain(otlp).chain(agents) {
        let mut group = criterion.benchmark_group(format!("redact/{}", label(name)));
        group.throughput(Throughput::Elements(batch.items.len() as u64));
        group.bench_function("20 patterns", |bencher| {
            bencher.iter(|| rules.apply_again(black_box(&batch), KnownTraces::Request));
        });
        group.finish();
    }
}

criterion_group!(benches, ingest, conventions, redact);
criterion_main!(benches);
