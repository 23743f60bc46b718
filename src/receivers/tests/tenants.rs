//! Which client is which tenant, and what happens to tenants that exceed their limits.

use prost::Message as _;
use tonic_types::pb;

use super::world::*;
use crate::receivers::{LimitOptions, RateOptions, ReceiverOptions, Settings, TokenOptions};
use crate::server::ClientAuth;
use crate::support::golden::read;

fn good() -> Vec<u8> {
    read("otlp/hostile/016_encoding-identity.pb")
}

fn tokens() -> Vec<TokenOptions> {
    let token = |token: &str, tenant: &str| TokenOptions {
        token: token.to_owned().into(),
        tenant: tenant.to_owned(),
    };
    vec![token("sk-shop", "shop"), token("pk:sk", "desk")]
}

fn of(tenant: &str, name: &str, world: &World) -> Option<f64> {
    world.figure(&format!("spanferry_receiver_tenant_{name}_total{{tenant=\"{tenant}\"}}"))
}

#[tokio::test]
async fn a_tenant_beyond_its_limits_is_told_so_in_a_way_that_its_client_tries_again() {
    let shop = RateOptions { items_per_second: Some(1), bytes_per_second: None };
    let limits =
        LimitOptions { tenants: [("shop".to_owned(), shop)].into(), ..LimitOptions::default() };
    let options =
        ReceiverOptions { tokens: tokens(), limits: Some(limits), ..ReceiverOptions::default() };
    let world = World::with(options).await;
    let key = ("x-api-key", "sk-shop");
    let item = |number: u32| format!(r#"{{"object":"trace","id":"trace_{number:032}"}}"#);
    let items: Vec<_> = (0..100).map(item).collect();
    let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
    assert_eq!(world.post(INGEST, &[JSON, key], body).await.status, 204);
    // The debt is ninety seconds now.
    let answer = world.post(TRACES, &[JSON, key], "{}").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "5"));
    assert_eq!(answer.json()["code"], 8);
    let answer = world.post(TRACES, &[PROTOBUF, key], good()).await;
    assert_eq!(answer.status, 429);
    let answer = world.post(INGEST, &[JSON, key], r#"{"data":[]}"#).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "5"));
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(answer.json()["error"]["type"], "server_error");
    let answer = world.send(post(RPC, &[GRPC, key], Pieces::framed(0, &good()))).await;
    assert_eq!(answer.grpc_status(), 8);
    let wait = crate::support::base64::read(answer.header("google.rpc.retryinfo-bin")).unwrap();
    let wait = pb::RetryInfo::decode(&wait[..]).unwrap().retry_delay.unwrap();
    assert_eq!(wait.seconds, 5);
    assert!(!answer.header("grpc-status-details-bin").is_empty());
    // Another tenant does not wait for it.
    let basic = ("authorization", "Basic cGs6c2s=");
    assert_eq!(world.post(TRACES, &[PROTOBUF, basic], good()).await.status, 200);
    assert_eq!(world.counts(), (101, 0));
    for (tenant, name, count) in [
        ("shop", "requests", 1.0),
        ("shop", "items", 100.0),
        ("shop", "limited_requests", 4.0),
        ("desk", "requests", 1.0),
        ("desk", "items", 1.0),
        ("desk", "bytes", f64::from(u32::try_from(good().len()).unwrap())),
    ] {
        assert_eq!(of(tenant, name, &world), Some(count), "{tenant} {name}");
    }
    world.close().await;
}

#[tokio::test]
async fn what_a_tenant_owes_is_owed_after_a_reload_that_leaves_the_limits() {
    let limited = |rate| {
        let limits = LimitOptions { items_per_second: Some(rate), ..LimitOptions::default() };
        ReceiverOptions { limits: Some(limits), ..ReceiverOptions::default() }
    };
    let world = World::with(limited(1)).await;
    let item = |number: u32| format!(r#"{{"object":"trace","id":"trace_{number:032}"}}"#);
    let items: Vec<_> = (0..100).map(item).collect();
    let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
    assert_eq!(world.post(INGEST, &[JSON], body).await.status, 204);
    let others = ReceiverOptions { path_aliases: false, ..limited(1) };
    for (options, status) in [(others, 429), (limited(2), 200)] {
        world.receivers.set(Settings { options, ..Settings::default() });
        assert_eq!(world.post(TRACES, &[PROTOBUF], good()).await.status, status);
    }
    world.close().await;
}

#[tokio::test]
async fn a_certificate_makes_a_tenant_and_a_token_another() {
    for (client_auth, tokens, headers, expected) in [
        (ClientAuth::Required, Vec::new(), vec![PROTOBUF], Some("till 7")),
        (ClientAuth::Required, tokens(), vec![PROTOBUF, ("api-key", "sk-shop")], Some("shop")),
        (ClientAuth::Required, tokens(), vec![PROTOBUF], None),
        (ClientAuth::Optional, tokens(), vec![PROTOBUF], Some("till 7")),
    ] {
        let options = ReceiverOptions { tokens, ..ReceiverOptions::default() };
        let world = World::encrypted(options, Some(client_auth), Some("till 7")).await;
        let answer = world.post(TRACES, &headers, good()).await;
        assert_eq!(answer.status, if expected.is_some() { 200 } else { 401 });
        let mut rpc = vec![GRPC, ("te", "trailers")];
        rpc.extend(headers.iter().skip(1));
        let answer = world.send(post(RPC, &rpc, Pieces::framed(0, &good()))).await;
        assert_eq!(answer.grpc_status(), if expected.is_some() { 0 } else { 16 });
        for (envelope, _) in world.kept() {
            assert_eq!(Some(envelope.source.tenant.as_str()), expected);
        }
        world.close().await;
    }
}

#[tokio::test]
async fn nothing_is_counted_by_tenant_where_there_are_none() {
    let world = World::open().await;
    assert_eq!(world.post(TRACES, &[PROTOBUF], good()).await.status, 200);
    assert_eq!(of("", "requests", &world), None);
    world.close().await;
}

#[tokio::test]
async fn every_receiver_is_served_below_the_base_path_over_tls() {
    let options = ReceiverOptions { base_path: "/otel".to_owned(), ..ReceiverOptions::default() };
    let world = World::encrypted(options, None, None).await;
    let item = r#"{"data":[{"object":"trace","id":"trace_1"}]}"#;
    assert_eq!(world.post("/otel/v1/traces/ingest", &[JSON], item).await.status, 204);
    assert_eq!(world.post("/otel/v1/traces", &[PROTOBUF], good()).await.status, 200);
    assert_eq!(world.call(&format!("/otel{RPC}"), &good()).await.grpc_status(), 0);
    assert_eq!(world.call(RPC, &good()).await.grpc_status(), 0);
    let told = world.post("/otel", &[JSON], "{}").await;
    assert_eq!(told.status, 404);
    let text = told.json()["message"].as_str().unwrap().to_owned();
    assert!(text.contains("ENDPOINT=https://localhost/otel or"), "{text}");
    world.close().await;
}
