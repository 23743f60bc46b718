//! Requests with a slightly wrong path, media type or times: accepted, or told what is right.

use hyper::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde_json::{Value, json};

use super::world::*;
use crate::receivers::{ReceiverOptions, Version};

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Creates a request with one span for each pair of times.
fn spans(times: &[(u64, u64)]) -> Value {
    let spans: Vec<_> = (1_u64..).zip(times).map(|(number, (start, end))| json!({
        "traceId": "cbcb45b82e82cac9c7c6ce3b0bffc1d6", "spanId": format!("{number:016x}"), "name": "s", "kind": 1,
        "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(), "attributes": []
    })).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "svc" } }] },
        "scopeSpans": [{ "scope": { "name": "x", "version": "1" }, "spans": spans }]
    }] })
}

fn one_span() -> Vec<u8> {
    spans(&[(1_795_880_000_000_000_000, 1_795_880_001_000_000_000)]).to_string().into_bytes()
}

fn in_protobuf(body: &Value) -> Vec<u8> {
    let request: opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest =
        serde_json::from_value(body.clone()).unwrap();
    request.encode_to_vec()
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_slash_too_many_leads_to_the_same_receiver() {
    for path_aliases in [true, false] {
        let world =
            World::with(ReceiverOptions { path_aliases, ..ReceiverOptions::default() }).await;
        assert_eq!(world.post("//v1/traces", &[JSON], one_span()).await.status, 200);
        for path in ["/v1//traces?source=app", "///v1///traces"] {
            assert_eq!(world.post(path, &[JSON], one_span()).await.status, 200, "{path}");
        }
        assert_eq!(world.counts(), (1, 0), "the others are resends");
        for path in ["//v1/traces/ingest", "/v1//traces//ingest//"] {
            let answer = world.post(path, &[JSON], "{\"data\":[]}").await;
            assert_eq!(answer.status, 204, "{path}");
        }
        let answer = world.post("/v1//traces/", &[JSON], one_span()).await;
        assert_eq!(answer.status, if path_aliases { 200 } else { 404 });
        assert_eq!(world.call(&format!("/{RPC}"), b"").await.grpc_status(), 0);
        world.close().await;
    }
}

#[tokio::test]
async fn what_only_looks_like_grpc_is_415_and_nothing_of_it_is_kept() {
    let world = World::open().await;
    let span = in_protobuf(&serde_json::from_slice(&one_span()).unwrap());
    let mut tried = 0;
    for media in [
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/grpc-web-text+proto",
        "application/grpc+json",
        "application/grpc+thrift",
        "application/grpcfoo",
        "application/grpc-web; charset=utf-8",
        "text/plain",
        // Its trailers would be lost.
        "application/grpc",
        "application/grpc+proto",
    ] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let is_grpc = ["application/grpc", "application/grpc+proto"].contains(&media);
            if is_grpc && version == Version::HTTP_2 {
                continue;
            }
            for (path, right) in [
                (RPC, "application/grpc+proto over HTTP/2"),
                (HEALTH, "application/grpc+proto over HTTP/2"),
                (TRACES, "application/x-protobuf or application/json"),
            ] {
                let headers = [("content-type", media)];
                let answer =
                    world.send(over(version, path, &headers, Pieces::framed(0, &span))).await;
                assert_eq!(answer.status, 415, "{media} at {path} over {version:?}");
                assert_eq!(answer.header("content-type"), "application/json");
                assert!(message(&answer).contains(right), "{answer:?}");
                assert!(!answer.headers.contains_key("grpc-status") && answer.trailers.is_empty());
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 60);
    assert_eq!(world.post(HEALTH, &[JSON], "{}").await.status, 415);
    assert_eq!(world.counts(), (0, 0));
    for media in ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"] {
        let headers = [("content-type", media), ("te", "trailers")];
        let request = over(Version::HTTP_2, RPC, &headers, Pieces::framed(0, &span));
        assert_eq!(world.send(request).await.grpc_status(), 0, "{media}");
    }
    assert_eq!(world.counts(), (1, 0));
    world.close().await;
}

#[tokio::test]
async fn answers_of_grpc_have_no_length_so_that_clients_read_to_the_trailers() {
    let world = World::open().await;
    let span = in_protobuf(&serde_json::from_slice(&one_span()).unwrap());
    let odd = in_protobuf(&spans(&[(5, 7)]));
    for (path, request) in [(RPC, &span[..]), (RPC, &odd), (HEALTH, b"")] {
        let answer = world.call(path, request).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (StatusCode::OK, "application/grpc")
        );
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
        assert_eq!(answer.trailers.get("grpc-status").unwrap(), "0");
        assert!(!answer.headers.contains_key("grpc-status"), "it stands in one place");
        answer.message();
    }
    for (path, request, code) in
        [(RPC, &b"no protobuf"[..], 3), ("/nowhere", b"", 12), (TRACES, b"", 3)]
    {
        let answer = world.call(path, request).await;
        assert_eq!(answer.grpc_status(), code);
        assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
        assert!(!answer.header("grpc-message").is_empty());
    }
    world.refusing.stop();
    let answer = world.call(RPC, &span).await;
    assert_eq!(answer.grpc_status(), 14);
    assert!(!answer.headers.contains_key("content-length"), "{answer:?}");
    world.close().await;
}

#[tokio::test]
async fn a_path_that_leads_nowhere_is_404_and_told_which_address_to_set() {
    let world = World::open().await;
    let protobuf = in_protobuf(&serde_json::from_slice(&one_span()).unwrap());
    for path in ["/", "//", "/otel", "/v1", "/otel/v1/traces", "/v1/traces/v1", RPC] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let request = over(version, path, &[JSON], Pieces::whole(one_span()));
            let answer = world.send(request).await;
            assert_eq!(answer.status, 404, "{path}");
            let told = message(&answer);
            for address in [
                "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost ",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://localhost/v1/traces;",
                "http://localhost/v1/traces/ingest",
            ] {
                assert!(told.contains(address), "{path}: {told}");
            }
        }
        assert_eq!(world.post(path, &[PROTOBUF], protobuf.clone()).await.status, 404, "{path}");
    }
    let answer = world.call("/TraceService/Export", &protobuf).await;
    assert_eq!(answer.grpc_status(), 12);
    assert!(answer.header("grpc-message").contains("ENDPOINT=http://localhost"), "{answer:?}");
    // An invalid host is not repeated.
    let raw = "POST /otel HTTP/1.1\r\nHost: <b>\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let answer = world.raw(raw.as_bytes()).await;
    assert!(answer.contains("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 "), "{answer}");
    assert_eq!(world.counts(), (0, 0));
    world.close().await;
}

#[tokio::test]
async fn spans_with_times_in_another_unit_are_kept_and_the_client_is_told_the_unit() {
    let sent = spans(&[
        (1_795_880_000, 1_795_880_002),
        (1_795_880_000_000, 1_795_880_002_000),
        (1_795_880_000_001, 1_795_880_002_001),
        (5_387_640_000_000_000_000, 5_387_640_000_000_000_005),
        (1_795_880_000_000_000_000, 0),
    ]);
    let expected = "a span's time looks like seconds, not nanoseconds: it is kept as sent (1); \
        a span's time looks like milliseconds, not nanoseconds: it is kept as sent (2); \
        a span's time is before 2000 or after 2100: it is kept as sent (1)";
    let protobuf = in_protobuf(&sent);
    let in_protobuf = |body: &[u8]| {
        let partial = ExportTraceServiceResponse::decode(body).unwrap().partial_success.unwrap();
        json!({ "rejected": partial.rejected_spans, "errorMessage": partial.error_message })
    };
    for receiver in ["http json", "http protobuf", "grpc"] {
        let world = World::open().await;
        let partial = match receiver {
            "http json" => {
                let answer = world.post(TRACES, &[JSON], sent.to_string()).await;
                assert_eq!(answer.status, 200);
                answer.json()["partialSuccess"].clone()
            }
            "http protobuf" => {
                in_protobuf(&world.post(TRACES, &[PROTOBUF], protobuf.clone()).await.body)
            }
            _ => {
                let answer = world.call(RPC, &protobuf).await;
                assert_eq!(answer.grpc_status(), 0);
                in_protobuf(&answer.message())
            }
        };
        assert_eq!(partial["errorMessage"], expected, "{receiver}");
        let rejected = if receiver == "http json" { Value::Null } else { json!(0) };
        assert_eq!((&partial["rejectedSpans"], &partial["rejected"]), (&Value::Null, &rejected));
        assert_eq!(world.counts(), (5, 0));
        let starts: Vec<u64> = world.kept()[0].1.batch.spans().map(|span| span.start_ns).collect();
        assert_eq!(starts[..2], [1_795_880_000, 1_795_880_000_000]);
        let name = if receiver == "grpc" { "otlp_grpc" } else { "otlp_http" };
        let figure = format!("spanferry_receiver_odd_time_spans_total{{receiver=\"{name}\"}}");
        assert_eq!(world.figure(&figure), Some(4.0), "{receiver}");
        world.close().await;
    }
}
