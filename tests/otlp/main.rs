//! The OTLP sink against a receiver in this process: what arrives, and how each answer is handled.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may panic, and read files"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod receiver;
mod roots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message as _;
use serde_json::Value;
use spanferry::sinks::{Delivery, Pace, Parts, Plan, RejectClass, Report, Sink, Verdict, otlp};
use spanferry::span::{keys, tokens_of};
use tonic::Code;

use fixtures::{AGGREGATE, Fixture, Spans};
use receiver::{Receiver, Step};

/// Parses and checks a sink's options.
fn plan(options: &str) -> Box<dyn Plan> {
    let table = toml::de::DeTable::parse(options).unwrap();
    (otlp::KIND.parse)(table).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Creates a sink with these options.
fn sink(options: &str) -> Arc<dyn Sink> {
    let parts = Parts { name: "test".to_owned(), ..Parts::default() };
    plan(options).build(parts).unwrap()
}

/// Returns spans with their resource and scope, sorted, and with their original keys.
fn flat(requests: &[ExportTraceServiceRequest]) -> Vec<(Vec<u8>, Vec<u8>, Span)> {
    let mut spans = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_spans) {
        let of_resource = (resource.resource.clone().unwrap_or_default(), &resource.schema_url);
        for scope in &resource.scope_spans {
            let of_scope = (scope.scope.clone().unwrap_or_default(), &scope.schema_url);
            for span in &scope.spans {
                let describe = |message: Vec<u8>, url: &str| [&message, url.as_bytes()].concat();
                let mut span = span.clone();
                for attribute in &mut span.attributes {
                    attribute.key = attribute.key.replacen(AGGREGATE, "", 1);
                }
                span.status = span.status.filter(|status| *status != Status::default());
                spans.push((
                    describe(of_resource.0.encode_to_vec(), of_resource.1),
                    describe(of_scope.0.encode_to_vec(), of_scope.1),
                    span,
                ));
            }
        }
    }
    spans.sort_by(|one, other| {
        let key = |span: &Span| (span.trace_id.clone(), span.span_id.clone(), span.encode_to_vec());
        key(&one.2).cmp(&key(&other.2))
    });
    spans
}

/// Decodes the captured bodies with an independent library.
fn expected(fixtures: &[Fixture]) -> Vec<(Vec<u8>, Vec<u8>, Span)> {
    let read = |fixture: &Fixture| ExportTraceServiceRequest::decode(&*fixture.body).unwrap();
    flat(&fixtures.iter().map(read).collect::<Vec<_>>())
}

fn got(receiver: &Receiver) -> Vec<ExportTraceServiceRequest> {
    receiver.got().into_iter().map(|got| got.request).collect()
}

// === What arrives ===

#[tokio::test]
async fn every_captured_span_arrives_as_it_was_sent() {
    let fixtures: Vec<_> =
        fixtures::captured().into_iter().filter(|fixture| !fixture.is_json).collect();
    let delivery = fixtures::delivery(&fixtures);
    let expected = expected(&fixtures);
    assert!(expected.len() > 100, "{}", expected.len());
    for (protocol, compression) in [
        ("http/protobuf", "gzip"),
        ("http/protobuf", "zstd"),
        ("http/protobuf", "none"),
        ("grpc", "gzip"),
        ("grpc", "zstd"),
        ("grpc", "none"),
    ] {
        let receiver = Receiver::default();
        let endpoint =
            if protocol == "grpc" { receiver.grpc().await } else { receiver.http().await };
        let sink = sink(&format!(
            "endpoint = {endpoint:?}\nprotocol = {protocol:?}\ncompression = {compression:?}\n\
             headers = {{ x-tenant = \"blue\" }}"
        ));
        let case = format!("{protocol} {compression}");
        assert_eq!(sink.deliver(&delivery).await, Report::delivered(), "{case}");
        let arrived = flat(&got(&receiver));
        assert_eq!(arrived.len(), expected.len(), "{case}");
        for (arrived, expected) in arrived.iter().zip(&expected) {
            assert_eq!(arrived, expected, "{case}");
        }
        let got = receiver.got().remove(0);
        assert!(got.headers.contains(&("x-tenant".to_owned(), "blue".to_owned())), "{case}");
    }
}

#[tokio::test]
async fn spans_pass_through_byte_by_byte_and_a_retry_sends_the_same_bytes() {
    let fixtures = fixtures::captured();
    let delivery = fixtures::delivery(&fixtures);
    let receiver = Receiver::default();
    receiver.script([Step::Take, Step::Fail(503, Code::Unavailable)]);
    let sink = sink(&format!(
        "endpoint = {:?}\ncompression = \"none\"\nrequest_bytes_max = \"64MiB\"",
        receiver.http().await
    ));
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    assert!(matches!(sink.deliver(&delivery).await.pace, Pace::Slow { after: None, .. }));
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    let messages: Vec<_> = receiver.got().into_iter().filter_map(|got| got.message).collect();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], messages[1]);
    let mut changed = 0;
    for span in fixtures.iter().flat_map(|fixture| fixture.batch.spans()) {
        let is_in = memchr::memmem::find(&messages[0], &span.wire).is_some();
        let says = span.detail().attributes.iter().any(|known| keys::is_spending(&known.key));
        let repeats = says && tokens_of(None, span).repeats;
        assert_eq!(is_in, !repeats, "{span:?}");
        changed += usize::from(repeats);
    }
    assert!((10..100).contains(&changed), "{changed}");
}

/// Returns what arrived as JSON.
fn got_json(receiver: &Receiver) -> Spans {
    let messages = receiver.got().into_iter().filter_map(|got| got.message);
    Spans::of(messages.map(|message| serde_json::from_slice(&message).unwrap()))
}

#[tokio::test]
async fn json_says_what_another_authors_decoder_says() {
    let fixtures = fixtures::captured();
    let expected = Spans::of(fixtures.iter().map(|fixture| fixture.decoded.clone().unwrap()));
    for compression in ["gzip", "none"] {
        let receiver = Receiver::default();
        let endpoint = receiver.http().await;
        let sink = sink(&format!(
            "endpoint = {endpoint:?}\nprotocol = \"http/json\"\ncompression = {compression:?}"
        ));
        assert_eq!(sink.deliver(&fixtures::delivery(&fixtures)).await, Report::delivered());
        assert_eq!(got_json(&receiver), expected);
    }
}

#[tokio::test]
async fn sdk_items_arrive_as_spans_alike_in_both_encodings() {
    let fixtures = fixtures::agents_sdk_of_the_bridges();
    let delivery = fixtures::delivery(&fixtures);
    let spans = fixtures.iter().map(|fixture| fixture.batch.spans().count()).sum::<usize>();
    let (binary, json) = (Receiver::default(), Receiver::default());
    for (receiver, protocol) in [(&binary, "http/protobuf"), (&json, "http/json")] {
        let endpoint = receiver.http().await;
        let sink = sink(&format!("endpoint = {endpoint:?}\nprotocol = {protocol:?}"));
        assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    }
    let requests = got(&binary).into_iter();
    let binary = Spans::of(requests.map(|request| serde_json::to_value(request).unwrap()));
    assert_eq!(binary.count, spans, "trace objects are no spans");
    assert!(spans < delivery.len());
    assert_eq!(got_json(&json), binary);
}

/// Describes an Agents SDK run in a dialect: names, and attributes with the beginning of their values.
async fn written(dialect: &str) -> Value {
    let fixtures = fixtures::agents_sdk_of_the_bridges();
    let receiver = Receiver::default();
    let endpoint = receiver.http().await;
    let sink = sink(&format!("endpoint = {endpoint:?}\ndialect = {dialect:?}"));
    let delivery = fixtures::delivery(&fixtures[..1]);
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    let spans = flat(&got(&receiver)).into_iter().map(|(_, _, span)| {
        let attributes: BTreeMap<String, Value> = span
            .attributes
            .into_iter()
            .map(|attribute| (attribute.key, serde_json::to_value(attribute.value).unwrap()))
            .collect();
        serde_json::json!({ "name": span.name, "kind": span.kind, "attributes": attributes })
    });
    spans.collect()
}

#[tokio::test]
async fn each_dialect_is_written_as_its_golden_says() {
    for dialect in ["genai", "openinference", "both"] {
        let text = format!("{:#}\n", written(dialect).await);
        fixtures::check_golden(&format!("sinks-otlp/handoff-tool.{dialect}.json"), &text);
    }
}

// === Exchange of the key for a token ===

/// The server that exchanges keys for tokens: `t1`, `t2` and so on, or answers with a status.
#[derive(Clone, Default)]
struct Authority {
    asked: Arc<AtomicU16>,
    status: Arc<AtomicU16>,
}

impl Authority {
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = self.clone();
        let answer = move |body: axum::body::Bytes| async move {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["api_key"], "hunter2");
            let number = this.asked.fetch_add(1, Ordering::Relaxed) + 1;
            let status = StatusCode::from_u16(this.status.load(Ordering::Relaxed));
            (status.unwrap_or(StatusCode::OK), format!("{{\"token\":\"t{number}\"}}"))
        };
        let app = axum::Router::new().route("/token", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}/token")
    }
}

#[tokio::test]
async fn a_key_is_exchanged_for_a_token_and_the_token_anew_once_it_is_refused() {
    let (authority, receiver) = (Authority::default(), Receiver::default());
    let (auth, endpoint) = (authority.listen().await, receiver.http().await);
    let text = format!(
        "preset = \"agentops\"\napi_key = \"hunter2\"\nauth_endpoint = {auth:?}\nendpoint = {endpoint:?}"
    );
    assert!(!format!("{:?}", plan(&text)).contains("hunter2"));
    let (sink, delivery) = (sink(&text), some_spans());
    let authorization = || {
        let got = receiver.got();
        let headers = &got.last().unwrap().headers;
        headers.iter().find(|(name, _)| name == "authorization").unwrap().1.clone()
    };
    let asked = || authority.asked.load(Ordering::Relaxed);
    for _ in 0..2 {
        assert_eq!(sink.deliver(&delivery).await, Report::delivered());
        assert_eq!((authorization().as_str(), asked()), ("Bearer t1", 1));
    }
    let refused = Step::Fail(401, Code::Unauthenticated);
    receiver.script([refused.clone()]);
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    assert_eq!((authorization().as_str(), asked()), ("Bearer t2", 2));
    receiver.script([refused.clone(), refused.clone()]);
    assert!(matches!(sink.deliver(&delivery).await.pace, Pace::Hold { .. }));
    assert_eq!(asked(), 3, "once for each attempt");
    for (status, holds) in [(403, true), (400, true), (500, false), (503, false)] {
        authority.status.store(status, Ordering::Relaxed);
        receiver.script([refused.clone()]);
        let outcome = sink.deliver(&delivery).await;
        assert_eq!(matches!(outcome.pace, Pace::Hold { .. }), holds, "{status}: {outcome:?}");
        assert!(format!("{outcome:?}").contains("no token for the key"), "{outcome:?}");
        authority.status.store(0, Ordering::Relaxed);
        assert_eq!(sink.deliver(&delivery).await, Report::delivered(), "{status}");
    }
}

// === Probes ===

#[tokio::test]
async fn a_probe_sends_no_span_and_says_what_a_delivery_would_meet() {
    for protocol in ["http/protobuf", "http/json", "grpc"] {
        let receiver = Receiver::default();
        let endpoint =
            if protocol == "grpc" { receiver.grpc().await } else { receiver.http().await };
        let plan = plan(&format!("endpoint = {endpoint:?}\nprotocol = {protocol:?}"));
        let found = plan.probe().unwrap().await.unwrap();
        assert_eq!(found, format!("{endpoint} accepted an empty export"), "{protocol}");
        assert_eq!(receiver.got().len(), 1);
        assert_eq!(flat(&got(&receiver)).len(), 0, "nothing is left there");
        receiver.script([
            Step::Fail(401, Code::Unauthenticated),
            Step::Fail(503, Code::Unavailable),
            Step::Fail(400, Code::InvalidArgument),
        ]);
        let key = plan.probe().unwrap().await.unwrap_err();
        assert!(key.contains("the key") && key.contains(&endpoint), "{key}");
        let down = plan.probe().unwrap().await.unwrap_err();
        assert!(down.contains("does not accept spans now"), "{down}");
        let odd = plan.probe().unwrap().await.unwrap();
        assert!(odd.contains("refuses an empty export"), "{odd}");
    }
}

#[tokio::test]
async fn a_probe_of_a_place_where_nobody_is_says_so() {
    // Port 9 is "discard", where nothing listens.
    let plan = plan("endpoint = \"http://127.0.0.1:9/?key=hunter2\"");
    let said = plan.probe().unwrap().await.unwrap_err();
    assert!(
        said.starts_with("http://127.0.0.1:9 does not accept spans now: no connection"),
        "{said}"
    );
}

// === Handling of answers ===

/// Creates a sink for each protocol, with its receiver.
async fn both_protocols(options: &str) -> Vec<(Receiver, Arc<dyn Sink>)> {
    let (http, grpc) = (Receiver::default(), Receiver::default());
    let over_http = sink(&format!("endpoint = {:?}\n{options}", http.http().await));
    let over_grpc =
        sink(&format!("endpoint = {:?}\nprotocol = \"grpc\"\n{options}", grpc.grpc().await));
    vec![(http, over_http), (grpc, over_grpc)]
}

fn some_spans() -> Delivery {
    fixtures::delivery(&fixtures::captured()[..3])
}

#[tokio::test]
async fn every_answer_has_its_outcome_over_both_protocols() {
    let delivery = some_spans();
    for (receiver, sink) in both_protocols("timeout = \"500ms\"").await {
        receiver.script([
            Step::Fail(503, Code::Unavailable),
            Step::Fail(502, Code::Aborted),
            Step::Fail(400, Code::InvalidArgument),
            Step::Fail(500, Code::Internal),
            Step::Fail(401, Code::Unauthenticated),
            Step::Fail(404, Code::Unimplemented),
            Step::Hang,
            Step::TakeBut(1),
            Step::TakeBut(i64::try_from(delivery.len()).unwrap()),
            Step::Take,
        ]);
        let mut outcomes = Vec::new();
        for _ in 0..10 {
            outcomes.push(sink.deliver(&delivery).await);
        }
        assert!(matches!(outcomes[0].pace, Pace::Slow { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[1].pace, Pace::Down { .. }), "{outcomes:?}");
        assert!(outcomes[2].is_refused(RejectClass::Malformed), "{outcomes:?}");
        assert!(outcomes[3].is_refused(RejectClass::Fault), "{outcomes:?}");
        assert!(matches!(outcomes[4].pace, Pace::Hold { .. }), "{outcomes:?}");
        assert!(matches!(outcomes[5].pace, Pace::Hold { .. }), "{outcomes:?}");
        let is_timeout = |reason: &str| reason.contains("within") || reason.contains("DEADLINE");
        assert!(
            matches!(&outcomes[6].pace, Pace::Down { reason, .. } if is_timeout(reason)),
            "{outcomes:?}"
        );
        assert_eq!(outcomes[7].omitted.as_ref().map(|omitted| omitted.items), Some(1));
        for place in 0..delivery.len() {
            let verdict = outcomes[8].verdicts.of(place);
            assert!(matches!(verdict, Verdict::Reject(_)), "{verdict:?}");
        }
        assert_eq!(outcomes[9], Report::delivered());
    }
}

#[tokio::test]
async fn what_a_receiver_finds_too_large_is_halved() {
    // The receiver's limit for gRPC is 8 MiB.
    let receiver = Receiver::default();
    let sink = sink(&format!(
        "endpoint = {:?}\nprotocol = \"grpc\"\nrequest_bytes_max = \"64MiB\"",
        receiver.grpc().await
    ));
    let fixtures = fixtures::captured();
    let mut delivery = Delivery::default();
    while delivery.bytes() < 9 << 20 {
        for fixture in &fixtures {
            delivery.add(&fixture.batch, 0..fixture.batch.items.len());
        }
    }
    let outcome = sink.deliver(&delivery).await;
    assert!(outcome.is_refused(RejectClass::TooLarge), "{outcome:?}");
}

#[tokio::test]
async fn a_delivery_in_several_requests_is_told_part_by_part_and_finished_without_repeats() {
    let fixtures = fixtures::captured();
    let delivery = fixtures::delivery(&fixtures);
    for (receiver, sink) in both_protocols("request_bytes_max = \"64KiB\"").await {
        receiver.script([
            Step::Take,
            Step::Fail(400, Code::InvalidArgument),
            Step::Take,
            Step::Fail(503, Code::Unavailable),
        ]);
        let report = sink.deliver(&delivery).await;
        assert!(matches!(report.pace, Pace::Slow { .. }), "{:?}", report.pace);
        assert_eq!(receiver.got().len(), 2, "after the 503 nothing was tried");
        let mut runs: Vec<(&Verdict, Vec<usize>)> = Vec::new();
        for place in 0..delivery.len() {
            let verdict = report.verdicts.of(place);
            match runs.last_mut() {
                Some((known, places)) if *known == verdict => places.push(place),
                _ => runs.push((verdict, vec![place])),
            }
        }
        let verdicts: Vec<_> = runs.iter().map(|(verdict, _)| *verdict).collect();
        let [Verdict::Delivered, Verdict::Split(_), Verdict::Delivered, Verdict::Retry] =
            verdicts[..]
        else {
            panic!("{verdicts:?}")
        };
        for (_, places) in runs.iter().filter(|(verdict, _)| **verdict != Verdict::Delivered) {
            assert_eq!(sink.deliver(&delivery.only(places)).await, Report::delivered());
        }
        let arrived = flat(&got(&receiver)).len();
        assert_eq!(arrived, delivery.len(), "everything arrived once");
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for protocol in ["http/protobuf", "grpc"] {
        let sink = sink(&format!("endpoint = \"http://{address}\"\nprotocol = {protocol:?}"));
        let started = std::time::Instant::now();
        let outcome = sink.deliver(&some_spans()).await;
        assert!(matches!(outcome.pace, Pace::Down { after: None, .. }), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "a refused connection needs no wait");
    }
}
