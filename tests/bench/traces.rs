//! Cost per span fed of a lane's table of traces, and of updating the index and the agent metrics: with one open trace, with ten thousand,
//! and with a million.
//!
//! `cargo bench --bench traces`. Facts are read before the clock starts, since a sink reads them anyway. Throughput is in spans.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use spanferry::feed::Traces;
use spanferry::index::{Index, Kept};
use spanferry::journal::Position;
use spanferry::normalize::{Encoding, Envelope, Limits, decode};
use spanferry::prices::{PriceOptions, Prices};
use spanferry::span::{Batch, Receiver, Source, TraceNeeds};

/// Spans per request.
const SPANS: u64 = 128;
const SECOND_NS: u64 = 1_000_000_000;

/// Builds a request with its facts read: model calls below an agent, in traces of 16 spans each, or all in one.
fn request(number: u64, traces: u64) -> Batch {
    let mut body = String::from(r#"{"data":["#);
    for index in 0..SPANS {
        let trace = (number * SPANS / 16 + index / 16) % traces + 1;
        let id = number * SPANS + index;
        let separator = if index == 0 { "" } else { "," };
        let parent = if index % 16 == 0 {
            "null".to_owned()
        } else {
            format!("\"span_{}\"", id - index % 16)
        };
        let data = if index % 16 == 0 {
            r#"{"type":"agent","name":"Triage agent","tools":[],"handoffs":[],"output_type":"str"}"#
        } else {
            r#"{"type":"response","response_id":"resp_1","usage":{"input_tokens":120,"output_tokens":30,"total_tokens":150}}"#
        };
        write!(
            body,
            r#"{separator}{{"object":"trace.span","id":"span_{id}","trace_id":"trace_{trace:032x}","parent_id":{parent},"started_at":"2026-11-21T05:13:36Z","ended_at":"2026-11-21T05:13:37Z","span_data":{data},"error":null}}"#
        )
        .unwrap();
    }
    body.push_str("]}");
    let body = Bytes::from(body);
    let envelope = Envelope::new(
        Source {
            receiver: Receiver::OpenAi,
            // A thousand requests a second.
            received_at_ns: SECOND_NS + number * SECOND_NS / 1000,
            ..Source::unknown()
        },
        Encoding::Json,
        body.len(),
    );
    let batch = decode(&envelope, &body, &Limits::default()).unwrap().batch;
    for span in batch.spans() {
        black_box(span.facts());
    }
    batch
}

fn feed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("traces");
    group.throughput(Throughput::Elements(SPANS));
    for open in [1, 10_000, 1_000_000] {
        let mut table = Traces::new(TraceNeeds::default(), 0);
        let mut number = 0;
        // The table is bounded; this many requests reach each of its bounds.
        while number < (open / 8).clamp(10, 20_000) {
            table.feed(&request(number, open), Position::default());
            number += 1;
        }
        group.bench_function(BenchmarkId::new("feed", open), |bencher| {
            bencher.iter_batched(
                || {
                    number += 1;
                    request(number, open)
                },
                |batch| {
                    table.feed(&batch, Position::default());
                    // As a lane does: take the roots that are due.
                    black_box(table.take_roots(1024));
                    batch
                },
                BatchSize::SmallInput,
            );
        });
        for (name, traces, agents) in
            [("agents", false, true), ("index", true, false), ("index and agents", true, true)]
        {
            let prices = Arc::new(Prices::new(&PriceOptions::default(), None));
            let (index, mut number) = (Index::keeping(Kept { traces, agents }, prices), 0);
            while number < (open / 8).clamp(10, 20_000) {
                index.feed(&request(number, open), Position(number));
                number += 1;
            }
            group.bench_function(BenchmarkId::new(name, open), |bencher| {
                bencher.iter_batched(
                    || {
                        number += 1;
                        (request(number, open), Position(number))
                    },
                    |(batch, at)| {
                        index.feed(&batch, at);
                        batch
                    },
                    BatchSize::SmallInput,
                );
            });
        }
        let batch = request(number, open);
        group.bench_function(BenchmarkId::new("contexts", open), |bencher| {
            bencher.iter(|| table.contexts(black_box(&batch.items)));
        });
    }
    group.finish();
}

criterion_group!(benches, feed);
criterion_main!(benches);
