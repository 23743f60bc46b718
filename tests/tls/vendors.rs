//! What vendors document that they push to an address of ours, through TLS and with a credential.
//!
//! * Anthropic's API exports spans of Messages and Managed Agents over OTLP/HTTP in protobuf, to an HTTPS address, with a credential in a
//!   header: <https://platform.claude.com/docs/en/manage-claude/opentelemetry/api>.
//! * `OpenRouter`'s Broadcast exports over OTLP/HTTP in JSON, to the whole address that is entered, with headers as they are entered. A test
//!   sends an empty request with `X-Test-Connection: true`, and nothing is saved unless it succeeds:
//!   <https://openrouter.ai/docs/guides/features/broadcast/otel-collector>, <https://openrouter.ai/docs/guides/features/broadcast/webhook>.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use rustls::version::{TLS12, TLS13};

use super::World;

const TOKENS: &str = "base_path = '/otel'\n\
    tokens = [{ token = 'sk-vendor', tenant = 'claude' }, { token = 'sk-router', tenant = 'openrouter' }]";

/// One call of a model, as the conventions for generative AI have it.
fn call(id: u8, attributes: &[(&str, Value)]) -> ExportTraceServiceRequest {
    let attribute = |(key, value): &(&str, Value)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(value.clone()) }),
        ..KeyValue::default()
    };
    let span = Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "chat claude-sonnet-4-5".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_790_000_000_000_000_000,
        end_time_unix_nano: 1_790_000_001_000_000_000,
        attributes: attributes.iter().map(attribute).collect(),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

/// Posts to the daemon over HTTPS, by whichever version of HTTP is agreed on.
async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> StatusCode {
    let mut config = world.authority.client(&[&TLS12, &TLS13], None);
    config.alpn_protocols.clear();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let client =
        Client::builder(TokioExecutor::new()).build(connector.enable_all_versions().build());
    let url = format!("https://localhost:{}{path}", world.place().http.port());
    let mut request = Request::post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        client.request(request.body(Full::<bytes::Bytes>::from(body)).unwrap()).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn anthropics_export_is_taken_at_its_base_address() {
    let world = World::new(TOKENS, "").await;
    let request = call(
        1,
        &[
            ("gen_ai.operation.name", text("chat")),
            ("gen_ai.provider.name", text("anthropic")),
            ("gen_ai.request.model", text("claude-sonnet-4-5")),
            ("gen_ai.usage.input_tokens", Value::IntValue(12)),
            ("gen_ai.usage.output_tokens", Value::IntValue(34)),
        ],
    );
    let body = request.encode_to_vec();
    let protobuf = ("content-type", "application/x-protobuf");
    for (header, status) in [
        (("authorization", "Bearer sk-vendor"), 200),
        (("x-api-key", "sk-vendor"), 200),
        (("x-api-key", "sk-wrong"), 401),
    ] {
        let answer = post(&world, "/otel/v1/traces", &[protobuf, header], body.clone()).await;
        assert_eq!(answer, status, "{header:?}");
    }
    // What was sent a second time is a resend.
    let lines = world.lines().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["kind"], "generation");
    assert_eq!(lines[0]["input_tokens"], 12);
    let tenants = world.json("/status")["tenants"].clone();
    assert_eq!(tenants["claude"]["requests"], 2, "{tenants}");
    assert_eq!(tenants["claude"]["items"], 2, "{tenants}");
}

#[tokio::test]
async fn openrouters_broadcast_is_tested_and_taken() {
    let world = World::new(TOKENS, "").await;
    let json = ("content-type", "application/json");
    let key = ("authorization", "Bearer sk-router");
    let test = [json, key, ("x-test-connection", "true")];
    let empty = br#"{"resourceSpans":[]}"#.to_vec();
    assert_eq!(post(&world, "/v1/traces", &test, empty.clone()).await, 200);
    assert_eq!(post(&world, "/v1/traces", &test[..1], empty).await, 401);
    let request = call(
        2,
        &[
            ("gen_ai.operation.name", text("chat")),
            ("gen_ai.request.model", text("anthropic/claude-sonnet-4.5")),
            ("gen_ai.usage.input_tokens", Value::IntValue(5)),
            ("user.id", text("user-1")),
            ("session.id", text("session-1")),
            ("trace.metadata.environment", text("production")),
        ],
    );
    let body = serde_json::to_vec(&request).unwrap();
    assert_eq!(post(&world, "/v1/traces", &[json, key], body).await, 200);
    let lines = world.lines().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["user_id"], &lines[0]["session_id"]),
        (&"user-1".into(), &"session-1".into())
    );
    assert_eq!(world.json("/status")["tenants"]["openrouter"]["items"], 1);
}

#[tokio::test]
async fn grpc_is_spoken_over_tls_with_a_certificate_that_names_its_tenant() {
    let authority_options = |world: &World| world.authority.client(&[&TLS13], None);
    let world = World::new("", "").await;
    let ca = world.authority.path("ca.pem").display().to_string();
    drop(world);
    // The authority of one daemon signs the clients of another.
    let clients = super::Authority::new();
    let clients_ca = clients.path("ca.pem").display().to_string();
    assert_ne!(ca, clients_ca);
    let world = World::new("", &format!(", client_ca = '{clients_ca}'")).await;
    let url = format!("https://localhost:{}", world.place().grpc.port());
    let export = async |config| {
        let mut config: rustls::ClientConfig = config;
        config.alpn_protocols.clear();
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let connector = connector.enable_http2().build();
        let http2 = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        let mut client = TraceServiceClient::with_origin(http2, url.parse().unwrap());
        client.export(call(3, &[("gen_ai.request.model", text("gpt-5"))])).await
    };
    assert!(export(authority_options(&world)).await.is_err(), "without a certificate");
    let shown = Some(clients.sign("team-a"));
    let answer = export(world.authority.client(&[&TLS13], shown)).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    assert_eq!(world.lines().await.len(), 1);
    assert_eq!(world.json("/status")["tenants"]["team-a"]["items"], 1);
}
