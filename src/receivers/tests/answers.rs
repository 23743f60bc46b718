//! The table of answers, row by row.

use hyper::Method;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use serde_json::{Value, json};
use tonic_types::pb::{BadRequest, Status};

use super::world::*;
use crate::receivers::{
    CorsOptions, DEFAULT_CORS_MAX_AGE, OtherSignals, ReceiverOptions, TokenOptions, Version,
};
use crate::span::ONLY_SINK_HEADER;
use crate::support::forwarding::{ForwardingPath, HOPS_MAX, SENDER_HEADER, first_header};
use crate::support::golden::{fixtures, read};

fn good() -> Vec<u8> {
    read("otlp/hostile/016_encoding-identity.pb")
}

fn status(answer: &Answer) -> Status {
    assert_eq!(answer.header("content-type"), "application/x-protobuf");
    Status::decode(answer.body.clone()).unwrap()
}

#[tokio::test]
async fn what_is_not_understood_is_400_with_a_bad_request_in_both_encodings() {
    let world = World::open().await;
    let answer = world.post(TRACES, &[PROTOBUF], "no protobuf").await;
    assert_eq!(answer.status, 400);
    let found = status(&answer);
    assert_eq!(found.code, 3);
    assert!(found.message.contains("not an OTLP"), "{}", found.message);
    assert_eq!(found.details[0].type_url, "type.googleapis.com/google.rpc.BadRequest");
    let detail = BadRequest::decode(&*found.details[0].value).unwrap();
    assert_eq!(detail.field_violations[0].field, "body");
    let answer = world.post(TRACES, &[JSON], "[secret-text").await;
    assert_eq!(answer.status, 400);
    let found = answer.json();
    assert_eq!(
        (&found["code"], &found["details"][0]["fieldViolations"][0]["field"]),
        (&json!(3), &json!("body"))
    );
    assert!(!found.to_string().contains("secret-text"), "{found}");
    world.close().await;
}

#[tokio::test]
async fn unknown_paths_are_404_and_told_where_to_go() {
    let world = World::open().await;
    for path in ["/v2/traces", "/v1/trace", "/api/public/scores", "/v1/traces/ingest/more"] {
        let answer = world.post(path, &[JSON], "{}").await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["code"], 12);
        assert!(answer.json()["message"].as_str().unwrap().contains("/v1/traces"), "{path}");
        let answer = world.post(path, &[PROTOBUF], "").await;
        assert_eq!((answer.status.as_u16(), status(&answer).code), (404, 12), "{path}");
    }
    let answer =
        world.call("/opentelemetry.proto.collector.trace.v1.TraceService/Import", b"").await;
    assert_eq!(answer.grpc_status(), 12);
    world.close().await;
}

#[tokio::test]
async fn other_methods_are_405_and_say_which_is_allowed() {
    let world = World::open().await;
    for (path, word) in [(TRACES, "OTLP"), (INGEST, "Agents SDK"), ("/v1/logs", "OTLP")] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let mut request = post(path, &[], Pieces::whole(""));
            *request.method_mut() = method;
            let answer = world.send(request).await;
            assert_eq!(answer.status, 405, "{path}");
            assert_eq!(answer.header("allow"), "POST, OPTIONS");
            assert!(answer.json().to_string().contains(word), "{path}");
        }
        let mut request = post(path, &[], Pieces::whole(""));
        *request.method_mut() = Method::OPTIONS;
        let answer = world.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (204, "POST, OPTIONS"));
    }
    world.close().await;
}

#[tokio::test]
async fn media_types_and_codings_that_are_not_known_are_415() {
    let world = World::open().await;
    for headers in [&[("content-type", "text/plain")][..], &[]] {
        let answer = world.post(TRACES, headers, good()).await;
        assert_eq!(answer.status, 415);
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(answer.json()["message"].as_str().unwrap().contains("application/x-protobuf"));
    }
    for path in [TRACES, INGEST] {
        let answer = world.post(path, &[PROTOBUF, ("content-encoding", "br")], good()).await;
        assert_eq!(answer.status, 415);
        assert_eq!(answer.header("accept-encoding"), "gzip, deflate, zstd, identity");
    }
    let headers = [GRPC, ("grpc-encoding", "snappy")];
    let answer = world.send(post(RPC, &headers, Pieces::framed(1, b"x"))).await;
    assert_eq!(answer.grpc_status(), 12);
    assert_eq!(answer.header("grpc-accept-encoding"), "identity,gzip,deflate,zstd");
    world.close().await;
}

#[tokio::test]
async fn with_tokens_only_their_holders_come_in() {
    let token = TokenOptions { token: "sk-right".to_owned().into(), tenant: "acme".to_owned() };
    let world =
        World::with(ReceiverOptions { tokens: vec![token], ..ReceiverOptions::default() }).await;
    let wrong = ("authorization", "Bearer sk-wrong");
    let right = ("authorization", "Bearer sk-right");
    let answer = world.post(TRACES, &[PROTOBUF, wrong], good()).await;
    assert_eq!((answer.status.as_u16(), status(&answer).code), (401, 16));
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
    let answer = world.post(INGEST, &[JSON], "{\"data\":[]}").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
    let answer = world.send(post(RPC, &[GRPC, wrong], Pieces::framed(0, &good()))).await;
    assert_eq!(answer.grpc_status(), 16);
    assert_eq!(world.counts(), (0, 0));
    assert_eq!(world.post(TRACES, &[PROTOBUF, right], good()).await.status, 200);
    let key = ("x-api-key", "sk-right");
    let answer = world.send(post(RPC, &[GRPC, key], Pieces::framed(0, &good()))).await;
    assert_eq!(answer.grpc_status(), 0);
    let (envelope, _) = &world.kept()[0];
    assert_eq!(envelope.source.tenant, "acme");
    assert!(!format!("{envelope:?}").contains("sk-right"));
    world.close().await;
}

#[tokio::test]
async fn what_is_for_a_sink_that_is_not_there_is_not_taken() {
    let world = World::open().await;
    for (sink, status) in [("lake", 200), ("laek", 400), ("", 400)] {
        let answer = world.post(TRACES, &[PROTOBUF, (ONLY_SINK_HEADER, sink)], good()).await;
        assert_eq!(answer.status, status, "{sink:?}");
    }
}

#[tokio::test]
async fn what_our_own_sinks_send_is_not_taken() {
    let world = World::open().await;
    let ours = (SENDER_HEADER, first_header());
    let answer = world.post(TRACES, &[PROTOBUF, ours], good()).await;
    assert_eq!((answer.status.as_u16(), status(&answer).code), (508, 7));
    let answer = world.post(INGEST, &[JSON, ours], "{\"data\":[]}").await;
    assert_eq!(answer.status, 508);
    assert_eq!(answer.json()["error"]["code"], "loop_detected");
    let mut call = post(RPC, &[GRPC, ours], Pieces::framed(0, &good()));
    *call.version_mut() = Version::HTTP_2;
    assert_eq!(world.send(call).await.grpc_status(), 7);
    assert_eq!(world.counts(), (0, 0));
    // Forwarded by another daemon, and by so many that one of them must be this one.
    let sent_on = first_header().replace("hops=1", "hops=2 0123456789abcdef");
    let often = format!("hops={} 0123456789abcdef", HOPS_MAX + 1);
    for circle in [&sent_on, &often] {
        let answer = world.post(TRACES, &[PROTOBUF, (SENDER_HEADER, circle)], good()).await;
        assert_eq!(answer.status, 508, "{circle}");
    }
    assert_eq!(world.counts(), (0, 0));
    let theirs = (SENDER_HEADER, "hops=2 0123456789abcdef 0000000000000001");
    assert_eq!(world.post(TRACES, &[PROTOBUF, theirs], good()).await.status, 200);
    assert_eq!(world.counts().0, 1);
    let (envelope, _) = &world.kept()[0];
    let kept = ForwardingPath::read(envelope.source.header(SENDER_HEADER).unwrap());
    assert_eq!(kept, ForwardingPath::read(theirs.1), "what is sent on says it too");
    world.close().await;
}

#[tokio::test]
async fn the_agents_sdk_gets_errors_in_the_shape_of_openai() {
    let world = World::open().await;
    for (body, word) in [
        ("{\"resourceSpans\":[]}", "data"),
        ("[1]", "data"),
        ("no json, secret-text", "JSON"),
        ("", "JSON"),
    ] {
        let answer = world.post(INGEST, &[JSON], body).await;
        assert_eq!(answer.status, 400, "{body}");
        let error = &answer.json()["error"];
        assert_eq!(
            (&error["type"], &error["param"]),
            (&json!("invalid_request_error"), &Value::Null)
        );
        let text = error["message"].as_str().unwrap();
        assert!(text.contains(word) && !text.contains("secret-text"), "{body}: {text}");
    }
    for path in [INGEST, "/v1/traces/ingest/"] {
        let answer = world.post(path, &[], "{\"data\":[]}").await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0), "{path}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_warning_alone_is_a_partial_success_with_nothing_rejected() {
    let world = World::open().await;
    let body = read("otlp/hostile/032_parent-7-bytes.pb");
    let answer = world.post(TRACES, &[PROTOBUF], body.clone()).await;
    let partial = ExportTraceServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 0);
    assert!(partial.error_message.contains("parent"), "{}", partial.error_message);
    let answer = world.call(RPC, &body).await;
    let over_grpc =
        ExportTraceServiceResponse::decode(answer.message()).unwrap().partial_success.unwrap();
    assert_eq!(over_grpc, partial);
    world.close().await;
}

#[tokio::test]
async fn five_spans_with_two_bad_ones_are_three_kept_and_two_rejected() {
    let world = World::open().await;
    let body = read("otlp/hostile/035_mixed-3-good-2-bad.pb");
    let answer = world.post(TRACES, &[PROTOBUF], body).await;
    let partial = ExportTraceServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert!(partial.error_message.starts_with("2 of 5 spans"), "{}", partial.error_message);
    assert_eq!(world.counts(), (3, 2));
    let labels = "{receiver=\"otlp_http\",transport=\"http\",format=\"protobuf\"}";
    let figure = |name: &str| world.figure(&format!("spanferry_receiver_{name}_total{labels}"));
    assert_eq!(figure("accepted_spans"), Some(3.0));
    assert_eq!(figure("failed_spans"), Some(2.0));
    let answered =
        "spanferry_receiver_request_duration_seconds_count{receiver=\"otlp_http\",code=\"200\"}";
    assert_eq!(world.figure(answered), Some(1.0));
    world.close().await;
}

#[tokio::test]
async fn other_signals_are_acknowledged_and_said_not_to_be_stored() {
    let world = World::open().await;
    let mut seen = 0;
    for fixture in fixtures("otlp") {
        let path = fixture.sidecar["path"].as_str().unwrap();
        let items = match path {
            "/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(fixture.body.clone()).unwrap();
                let scopes = request.resource_logs.iter().flat_map(|each| &each.scope_logs);
                scopes.map(|scope| scope.log_records.len()).sum::<usize>()
            }
            "/v1/metrics" => 1,
            _ => continue,
        };
        let answer = world.send(replayed(&fixture)).await;
        assert_eq!(answer.status, 200, "{}", fixture.name);
        let partial =
            ExportTraceServiceResponse::decode(answer.body).unwrap().partial_success.unwrap();
        let rejected = usize::try_from(partial.rejected_spans).unwrap();
        assert!(if path == "/v1/logs" { rejected == items } else { items <= rejected });
        assert!(
            partial.error_message.contains("only traces are stored"),
            "{}",
            partial.error_message
        );
        seen += 1;
    }
    assert!(7 <= seen, "{seen}");
    assert_eq!(world.counts(), (0, 0));
    assert!(world.figure("spanferry_receiver_unstored_items_total{signal=\"logs\"}") > Some(1.0));
    let logs = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {"body": {}}]}]}]});
    let answer = world.post("/v1/logs", &[JSON], logs.to_string()).await;
    assert_eq!(answer.json()["partialSuccess"]["rejectedLogRecords"], "2");
    let metrics = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "a", "gauge": {"dataPoints": [{}, {}]}}, {"sum": {"dataPoints": [{}]}}, {"sum": null}
    ]}, {}]}]});
    let answer = world.post("/v1/metrics", &[JSON], metrics.to_string()).await;
    assert_eq!(answer.json()["partialSuccess"]["rejectedDataPoints"], "3");
    assert_eq!(world.post("/v1development/profiles", &[JSON], "{}").await.json(), json!({}));
    assert_eq!(world.post("/v1/logs", &[JSON], "{").await.status, 400);
    assert_eq!(world.post("/v1/metrics", &[PROTOBUF], "no protobuf").await.status, 400);
    world.close().await;
}

#[tokio::test]
async fn other_signals_can_be_rejected() {
    let options =
        ReceiverOptions { other_signals: OtherSignals::Reject, ..ReceiverOptions::default() };
    let world = World::with(options).await;
    assert_eq!(world.post("/v1/logs", &[JSON], "{}").await.status, 404);
    let path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(world.call(path, b"").await.grpc_status(), 12);
    assert_eq!(world.post(TRACES, &[PROTOBUF], good()).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn browsers_may_send_from_pages_that_are_named() {
    let cors = CorsOptions {
        allowed_origins: vec!["https://*.example.com".to_owned()],
        allowed_headers: vec!["x-mine".to_owned()],
        max_age: DEFAULT_CORS_MAX_AGE,
    };
    let token = TokenOptions { token: "sk-right".to_owned().into(), tenant: String::new() };
    let options =
        ReceiverOptions { cors: Some(cors), tokens: vec![token], ..ReceiverOptions::default() };
    let world = World::with(options).await;
    let origin = ("origin", "https://app.example.com");
    let mut preflight = post(TRACES, &[origin], Pieces::whole(""));
    *preflight.method_mut() = Method::OPTIONS;
    // It has no key, and needs none.
    let answer = world.send(preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    assert!(answer.header("access-control-allow-headers").ends_with("x-mine"));
    assert_eq!(answer.header("access-control-max-age"), "7200");
    // Pages see errors too.
    for (key, status) in [("Bearer sk-right", 200), ("Bearer sk-wrong", 401)] {
        let headers = [PROTOBUF, origin, ("authorization", key)];
        let answer = world.post(TRACES, &headers, good()).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), origin.1);
    }
    let headers = [PROTOBUF, ("origin", "https://evil.org"), ("authorization", "Bearer sk-right")];
    let answer = world.post(TRACES, &headers, good()).await;
    assert_eq!(answer.status, 403);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    world.close().await;
}

#[tokio::test]
async fn a_page_that_is_not_allowed_is_refused_on_every_path() {
    let only = |origin: &str| CorsOptions {
        allowed_origins: vec![origin.to_owned()],
        allowed_headers: Vec::new(),
        max_age: DEFAULT_CORS_MAX_AGE,
    };
    let item = "{\"data\":[{\"object\":\"trace\",\"id\":\"trace_1\"}]}";
    for (cors, is_encrypted) in [
        (None, false),
        (None, true),
        (Some(only("https://app.example.com")), false),
        (Some(only("https://app.example.com")), true),
    ] {
        let options = ReceiverOptions { cors, ..ReceiverOptions::default() };
        let world = if is_encrypted {
            World::encrypted(options, None, None).await
        } else {
            World::with(options).await
        };
        for origin in ["https://evil.org", "https://app.example.com.evil.org", "null", ""] {
            let headers = [("content-type", "text/plain"), ("origin", origin)];
            let methods = [Method::POST, Method::GET, Method::OPTIONS];
            let paths = [INGEST, TRACES, "/v1/logs", "/", "/nowhere", RPC];
            for (path, method) in
                paths.iter().flat_map(|path| methods.iter().map(move |method| (path, method)))
            {
                let mut request = post(path, &headers, Pieces::whole(item));
                *request.method_mut() = method.clone();
                let answer = world.send(request).await;
                assert_eq!(answer.status, 403, "{method} {path} from {origin:?}");
                assert!(answer.json().to_string().contains("receivers.cors.allowed_origins"));
                assert!(!answer.headers.contains_key("access-control-allow-origin"));
            }
            for path in [RPC, "/grpc.health.v1.Health/Check", "/nowhere"] {
                let headers = [GRPC, ("origin", origin)];
                let answer = world.send(post(path, &headers, Pieces::framed(0, &good()))).await;
                assert_eq!(answer.grpc_status(), 7, "{path} from {origin:?}");
            }
        }
        // An allowed header does not hide another one.
        let headers = [("origin", "https://app.example.com"), ("origin", "https://evil.org")];
        assert_eq!(world.post(INGEST, &headers, item).await.status, 403);
        assert_eq!(world.counts(), (0, 0));
        // This does not come from a browser.
        let answer = world.post(INGEST, &[("content-type", "text/plain")], item).await;
        assert_eq!((answer.status.as_u16(), world.counts()), (204, (1, 0)));
        world.close().await;
    }
}

#[tokio::test]
async fn every_encoding_and_coding_gives_the_same_spans() {
    let fixture =
        fixtures("otlp/py-otel-sdk-http").into_iter().find(|each| each.decoded.is_some()).unwrap();
    let protobuf = fixture.body.clone();
    let json = serde_json::to_vec(fixture.decoded.as_ref().unwrap()).unwrap();
    let mut ids: Option<Vec<_>> = None;
    for (header, media, body) in [
        ("content-encoding", PROTOBUF, &protobuf[..]),
        ("content-encoding", JSON, &json),
        ("grpc-encoding", GRPC, &protobuf),
    ] {
        for coding in ["identity", "gzip", "deflate", "zstd"] {
            let world = World::open().await;
            let coded = coded(coding, body);
            if media == GRPC {
                let body = Pieces::framed(u8::from(coding != "identity"), &coded);
                let answer = world.send(post(RPC, &[GRPC, (header, coding)], body)).await;
                assert_eq!(answer.grpc_status(), 0, "{coding}");
            } else {
                let answer = world.post(TRACES, &[media, (header, coding)], coded).await;
                assert_eq!(answer.status, 200, "{coding}");
            }
            let (_, decoded) = world.kept().swap_remove(0);
            let found: Vec<_> = decoded
                .batch
                .spans()
                .map(|span| (span.trace_id, span.span_id, span.detail().name.to_string()))
                .collect();
            assert_eq!(ids.get_or_insert_with(|| found.clone()), &found, "{media:?} {coding}");
            world.close().await;
        }
    }
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let level = flate2::Compression::fast();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(body, 1).unwrap(),
        _ => body.to_vec(),
    }
}
