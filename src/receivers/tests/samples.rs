//! Every captured and handmade request, sent in its original form.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde_json::Value;
use tokio::time::timeout;

use super::world::*;
use crate::support::golden::{Fixture, fixtures};

/// Returns a value that the sidecar file expects; of a list any value is right, and this suite says which one Spanferry sends.
fn expected(fixture: &Fixture, member: &str) -> Option<u64> {
    let number = fixture.name.trim_start_matches("hostile/").get(..3)?;
    let ours = match (number, member) {
        ("041" | "042" | "043" | "047" | "062", "http") => Some(200),
        ("063", "http") => Some(404),
        ("021", "http") => Some(413),
        ("012" | "060", "http") => None,
        ("021" | "071", "grpc") => Some(8),
        ("069" | "070" | "072" | "074", "grpc") => Some(3),
        _ => return fixture.sidecar["expect"][member].as_u64(),
    };
    let allowed = &fixture.sidecar["expect"][member];
    let is_allowed = |code: u64| {
        allowed.as_u64() == Some(code)
            || allowed.as_array().is_some_and(|codes| codes.contains(&Value::from(code)))
    };
    assert!(ours.is_none_or(is_allowed), "{}: {ours:?} is not among {allowed}", fixture.name);
    ours
}

/// Returns the partial success of an answer over HTTP.
fn partial(answer: &Answer) -> (u64, String) {
    if answer.header("content-type") == "application/json" {
        let partial = &answer.json()["partialSuccess"];
        let rejected = partial["rejectedSpans"].as_str().unwrap_or("0").parse().unwrap();
        return (rejected, partial["errorMessage"].as_str().unwrap_or("").to_owned());
    }
    let response = ExportTraceServiceResponse::decode(answer.body.clone()).unwrap();
    let partial = response.partial_success.unwrap_or_default();
    (u64::try_from(partial.rejected_spans).unwrap(), partial.error_message)
}

#[tokio::test]
async fn every_hostile_request_gets_its_answer_and_the_next_is_served() {
    let world = World::open().await;
    let good = fixtures("otlp/py-otel-sdk-http").swap_remove(0);
    for fixture in fixtures("otlp/hostile") {
        let answer =
            timeout(Duration::from_secs(20), world.send(replayed(&fixture))).await.unwrap();
        let name = &fixture.name;
        if name.ends_with(".grpcframe") {
            let code = expected(&fixture, "grpc");
            assert_eq!(Some(answer.grpc_status()), code, "{name}: {answer:?}");
        } else if let Some(http) = expected(&fixture, "http") {
            assert_eq!(u64::from(answer.status.as_u16()), http, "{name}: {answer:?}");
        }
        if let Some(rejected) = fixture.sidecar["expect"]["rejected_spans"].as_u64()
            && !name.ends_with(".grpcframe")
        {
            let (counted, text) = partial(&answer);
            assert_eq!(counted, rejected, "{name}: {text}");
            assert_eq!(0 < rejected, text.contains("were quarantined"), "{name}: {text}");
        }
        assert_eq!(world.send(replayed(&good)).await.status, 200, "after {name}");
    }
    world.close().await;
}

#[tokio::test]
async fn the_http_bodies_of_hostile_requests_get_the_same_verdict_over_grpc() {
    let world = World::open().await;
    for fixture in fixtures("otlp/hostile") {
        let is_protobuf = fixture.header("content-type") == Some("application/x-protobuf");
        let coding = fixture.header("content-encoding");
        let Some(code) = expected(&fixture, "grpc") else { continue };
        if !is_protobuf {
            continue;
        }
        let mut headers = vec![GRPC, ("te", "trailers")];
        headers.extend(coding.map(|coding| ("grpc-encoding", coding)));
        let is_coded = coding.is_some_and(|coding| coding != "identity");
        let body = Pieces::framed(u8::from(is_coded), &fixture.body);
        let answer = world.send(post(RPC, &headers, body)).await;
        assert_eq!(answer.grpc_status(), code, "{}: {answer:?}", fixture.name);
    }
    world.close().await;
}

/// Counts the spans in the golden decoding of a request.
fn spans(decoded: &Value) -> u64 {
    let all = |value: &Value, member: &str| value[member].as_array().cloned().unwrap_or_default();
    let scopes =
        all(decoded, "resourceSpans").into_iter().flat_map(|each| all(&each, "scopeSpans"));
    scopes.map(|each| all(&each, "spans").len() as u64).sum()
}

#[tokio::test]
async fn every_opentelemetry_client_is_kept_whole() {
    let mut replayed_count = 0;
    for fixture in fixtures("otlp") {
        let name = &fixture.name;
        let Some(decoded) = &fixture.decoded else { continue };
        let world = World::open().await;
        let answer = world.send(replayed(&fixture)).await;
        if fixture.sidecar["protocol"] == "grpc" {
            assert_eq!(answer.grpc_status(), 0, "{name}");
            assert_eq!(answer.message().len(), 0, "{name}");
        } else {
            assert_eq!(answer.status, 200, "{name}");
            let is_json = fixture.header("content-type") == Some("application/json");
            assert_eq!(answer.body.as_ref(), if is_json { &b"{}"[..] } else { b"" }, "{name}");
            assert_eq!(Some(answer.header("content-type")), fixture.header("content-type"));
        }
        assert_eq!(world.counts(), (spans(decoded), 0), "{name}");
        let kept = world.kept();
        let (envelope, _) = kept.first().unwrap();
        let has_key = ["authorization", "x-api-key", "api-key"]
            .iter()
            .any(|header| fixture.header(header).is_some());
        assert_eq!(envelope.source.key_fingerprint.len(), if has_key { 16 } else { 0 }, "{name}");
        let agent = envelope.source.headers.iter().find(|(name, _)| name == "user-agent");
        assert_eq!(agent.map(|(_, value)| value.as_str()), fixture.header("user-agent"), "{name}");
        let debug = format!("{:?}", envelope.source);
        assert!(!debug.contains("test-token") && !debug.contains("Basic"), "{debug}");
        world.close().await;
        replayed_count += 1;
    }
    assert!(70 < replayed_count, "{replayed_count}");
}

#[tokio::test]
async fn every_agents_sdk_is_answered_204_and_kept_whole() {
    let mut items = 0;
    for fixture in fixtures("agents-sdk") {
        let name = &fixture.name;
        let world = World::open().await;
        let answer = world.send(replayed(&fixture)).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{name}: {answer:?}");
        let sent = fixture.sidecar["items"].as_u64().unwrap();
        let (kept, aside) = world.counts();
        let resent = world.figure(
            "spanferry_receiver_resent_spans_total{receiver=\"openai\",transport=\"http\",format=\"json\"}",
        );
        assert_eq!(kept + aside, sent, "{name}: {aside} aside, {resent:?} resent");
        items += sent;
        let (envelope, _) = &world.kept()[0];
        assert_eq!(envelope.source.key_fingerprint.len(), 16, "{name}");
        for header in ["openai-organization", "openai-project", "openai-beta"] {
            let kept = envelope.source.headers.iter().find(|(name, _)| name == header);
            assert_eq!(kept.map(|(_, value)| value.as_str()), fixture.header(header), "{name}");
        }
        world.close().await;
    }
    assert!(3000 < items, "{items}");
}
