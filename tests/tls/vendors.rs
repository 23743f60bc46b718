//! Requests that vendors document to push to a user's address, through TLS and with a credential.
//!
//! * Anthropic's API exports spans of Messages and Managed Agents over OTLP/HTTP in protobuf, to an HTTPS address, with a credential in a
//!   header: <https://platform.claude.com/docs/en/manage-claude/opentelemetry/api>. Claude Code and the Agent SDK, which runs it, export
//!   from where they run, by any protocol of OTLP: <https://code.claude.com/docs/en/monitoring-usage>.
//! * `OpenRouter`'s Broadcast exports over OTLP/HTTP in JSON, to the entire entered address, with the entered headers. A test sends an
//!   empty request with `X-Test-Connection: true`, and nothing is saved unless it succeeds:
//!   <https://openrouter.ai/docs/guides/features/broadcast/otel-collector>, <https://openrouter.ai/docs/guides/features/broadcast/webhook>.

use std::path::Path;

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use rustls::version::{TLS12, TLS13};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::World;

const TOKENS: &str = "base_path = '/otel'\n\
    tokens = [{ token = 'sk-vendor', tenant = 'claude' }, { token = 'sk-router', tenant = 'openrouter' }]";

/// A vendor's documented request, from `tests/golden/vendors/`, which names the source.
#[derive(Deserialize)]
struct Document {
    tenant: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Value,
    /// The expected facts of each span in the sink.
    expected: Vec<Map<String, Value>>,
}

impl Document {
    fn read(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vendors");
        let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Returns its headers with this credential instead of its own.
    fn headers<'d>(&'d self, credential: (&'d str, &'d str)) -> Vec<(&'d str, &'d str)> {
        let others = self.headers.iter().filter(|(name, _)| name != "authorization");
        let others = others.map(|(name, value)| (name.as_str(), value.as_str()));
        others.chain([credential]).collect()
    }

    /// Returns the body in the format of its headers.
    fn body(&self) -> Vec<u8> {
        let is_json = self.headers.iter().any(|(_, value)| value == "application/json");
        if is_json { self.body.to_string().into() } else { self.message().encode_to_vec() }
    }

    fn message(&self) -> ExportTraceServiceRequest {
        serde_json::from_value(self.body.clone()).unwrap()
    }

    /// Asserts that a sink has the expected facts of the spans.
    fn check(&self, lines: &[Value]) {
        assert_eq!(lines.len(), self.expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(&self.expected) {
            for (key, value) in expected {
                assert_eq!(&line[key], value, "{key} of {line:#}");
            }
        }
    }
}

/// Posts to the daemon over HTTPS, with the negotiated version of HTTP.
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
async fn what_vendors_push_is_taken_with_a_credential_of_theirs_and_understood() {
    for (name, key) in
        [("anthropic-api", "sk-vendor"), ("claude-code", "sk-vendor"), ("openrouter", "sk-router")]
    {
        let (world, document) = (World::new(TOKENS, "").await, Document::read(name));
        let bearer = format!("Bearer {key}");
        for (credential, status) in [
            (("authorization", bearer.as_str()), 200),
            (("x-api-key", key), 200),
            (("x-api-key", "sk-wrong"), 401),
        ] {
            let headers = document.headers(credential);
            let answer = post(&world, &document.path, &headers, document.body()).await;
            assert_eq!(answer, status, "{name}: {credential:?}");
        }
        // The second request is a resend.
        document.check(&world.lines().await);
        let tenant = world.json("/status")["tenants"][&document.tenant].clone();
        assert_eq!(
            (&tenant["requests"], &tenant["items"]),
            (&2.into(), &(2 * document.expected.len()).into())
        );
    }
}

#[tokio::test]
async fn openrouters_test_of_a_connection_succeeds_with_its_key_alone() {
    let world = World::new(TOKENS, "").await;
    let json = ("content-type", "application/json");
    let test = [json, ("authorization", "Bearer sk-router"), ("x-test-connection", "true")];
    let empty = br#"{"resourceSpans":[]}"#.to_vec();
    assert_eq!(post(&world, "/v1/traces", &test, empty.clone()).await, 200);
    assert_eq!(post(&world, "/v1/traces", &test[..1], empty).await, 401);
    assert_eq!(world.json("/status")["needs_token"], true);
}

#[tokio::test]
async fn grpc_is_spoken_over_tls_with_a_certificate_that_names_its_tenant() {
    let authority_options = |world: &World| world.authority.client(&[&TLS13], None);
    let world = World::new("", "").await;
    let ca = world.authority.path("ca.pem").display().to_string();
    drop(world);
    // One daemon's authority signs the clients of another.
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
        client.export(Document::read("claude-code").message()).await
    };
    assert!(export(authority_options(&world)).await.is_err(), "without a certificate");
    let shown = Some(clients.sign("team-a"));
    let answer = export(world.authority.client(&[&TLS13], shown)).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    Document::read("claude-code").check(&world.lines().await);
    let status = world.json("/status");
    assert_eq!(
        (&status["tenants"]["team-a"]["items"], &status["needs_token"]),
        (&5.into(), &false.into())
    );
}
