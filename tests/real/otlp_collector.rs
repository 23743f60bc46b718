//! The OpenTelemetry Collector as the backend of the OTLP sink, over gRPC and HTTP: its file is compared with what was sent.

use std::sync::Arc;

use spanferry::sinks::{Delivery, Pace, Parts, RejectClass, Report, Sink, otlp};

use super::fixtures;
use super::fixtures::Spans;
use super::servers::collector::{Collector, program};

/// Creates the sink that sends to it.
fn sink_to(collector: &Collector, protocol: &str, more: &str) -> Arc<dyn Sink> {
    let port = if protocol == "grpc" { collector.grpc } else { collector.http };
    let options =
        format!("endpoint = \"http://127.0.0.1:{port}\"\nprotocol = {protocol:?}\n{more}");
    let plan = (otlp::KIND.parse)(toml::de::DeTable::parse(&options).unwrap()).unwrap();
    plan.build(Parts { name: "test".to_owned(), ..Parts::default() }).unwrap()
}

// === What arrives ===

#[tokio::test]
async fn every_captured_span_reaches_the_collector_over_each_protocol() {
    let Some(program) = program() else { return };
    let fixtures = fixtures::captured();
    let delivery = fixtures::delivery(&fixtures);
    let expected = Spans::of(fixtures.iter().map(|fixture| fixture.decoded.clone().unwrap()));
    for (protocol, compression) in
        [("grpc", "gzip"), ("grpc", "zstd"), ("http/protobuf", "zstd"), ("http/json", "gzip")]
    {
        let collector = Collector::writing(&program).await;
        let sink = sink_to(&collector, protocol, &format!("compression = {compression:?}"));
        let case = format!("{protocol} {compression}");
        assert_eq!(sink.deliver(&delivery).await, Report::delivered(), "{case}");
        let written = collector.written(expected.count).await;
        assert_eq!(written.count, expected.count, "{case}");
        for (id, spans) in &expected.by_id {
            assert_eq!(written.by_id.get(id), Some(spans), "{case}");
        }
    }
}

#[tokio::test]
async fn sdk_items_reach_the_collector_with_names_and_parents() {
    let Some(program) = program() else { return };
    let fixtures = fixtures::agents_sdk_of_the_bridges();
    let delivery = fixtures::delivery(&fixtures);
    let spans = fixtures.iter().map(|fixture| fixture.batch.spans().count()).sum();
    let collector = Collector::writing(&program).await;
    // Roots of traces without one come from the lane, which is not part of this test.
    let sink = sink_to(&collector, "grpc", "root_span = \"never\"");
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    let written = collector.written(spans).await;
    assert_eq!(written.count, spans);
    let names: Vec<&str> = written
        .by_id
        .values()
        .flatten()
        .map(|whole| whole["span"]["name"].as_str().unwrap())
        .collect();
    for expected in ["invoke_agent ", "execute_tool ", "handoff "] {
        assert!(names.iter().any(|name| name.starts_with(expected)), "{expected} in {names:?}");
    }
    for whole in written.by_id.values().flatten() {
        let span = &whole["span"];
        let Some(parent) = span["parentSpanId"].as_str() else { continue };
        let id = format!("{} \"{parent}\"", span["traceId"]);
        assert!(written.by_id.contains_key(&id), "a parent is missing: {span}");
    }
}

// === What it refuses ===

/// Builds a delivery with more than this number of bytes of spans.
fn larger_than(bytes: usize) -> Delivery {
    let fixtures = fixtures::captured();
    let mut delivery = Delivery::default();
    while delivery.bytes() <= bytes {
        for fixture in &fixtures {
            delivery.add(&fixture.batch, 0..fixture.batch.items.len());
        }
    }
    delivery
}

#[tokio::test]
async fn what_the_collector_finds_too_large_is_known_as_that() {
    let Some(program) = program() else { return };
    let collector = Collector::writing(&program).await;
    // Its limits: 4 MiB per message over gRPC, 20 MiB per body over HTTP, which it answers with 400.
    for (protocol, bytes) in [("grpc", 4 << 20), ("http/protobuf", 20 << 20)] {
        let delivery = larger_than(bytes);
        let sink =
            sink_to(&collector, protocol, "request_bytes_max = \"64MiB\"\ntimeout = \"60s\"");
        let outcome = sink.deliver(&delivery).await;
        assert!(outcome.is_refused(RejectClass::TooLarge), "{protocol}: {outcome:?}");
        let sink = sink_to(&collector, protocol, "timeout = \"60s\"");
        assert_eq!(sink.deliver(&delivery).await, Report::delivered(), "{protocol}, by default");
    }
}

#[tokio::test]
async fn a_wrong_path_stops_the_sink() {
    let Some(program) = program() else { return };
    let collector = Collector::writing(&program).await;
    let delivery = fixtures::delivery(&fixtures::captured()[..1]);
    let wrong_path = format!("traces_endpoint = \"http://127.0.0.1:{}/api\"", collector.http);
    let outcome = sink_to(&collector, "http/protobuf", &wrong_path).deliver(&delivery).await;
    assert!(matches!(outcome.pace, Pace::Hold { .. }), "{outcome:?}");
}
