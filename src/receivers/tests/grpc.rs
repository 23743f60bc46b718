//! OTLP over gRPC with a standard client.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic_types::pb::{RetryInfo, Status};

use super::world::*;
use crate::receivers::ReceiverOptions;
use crate::support::golden::{fixtures, read};

async fn channel(world: &World) -> Channel {
    Endpoint::from_shared(format!("http://{}", world.address)).unwrap().connect().await.unwrap()
}

fn request() -> ExportTraceServiceRequest {
    let fixture = fixtures("otlp/py-otel-sdk-grpc").swap_remove(0);
    ExportTraceServiceRequest::decode(fixture.body).unwrap()
}

#[tokio::test]
async fn a_stock_client_exports_in_every_coding_on_one_connection() {
    let world = World::open().await;
    let client = TraceServiceClient::new(channel(&world).await);
    for coding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = match coding {
            Some(coding) => client.clone().send_compressed(coding),
            None => client.clone(),
        };
        let answer = client.export(request()).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
    }
    let spans = request().resource_spans[0]
        .scope_spans
        .iter()
        .map(|scope| scope.spans.len())
        .sum::<usize>();
    // The second and third are exact resends of the first.
    assert_eq!(world.counts(), (spans as u64, 0));
    world.close().await;
}

#[tokio::test]
async fn a_stock_client_sees_partial_success_and_codes() {
    let world = World::open().await;
    let mut client = TraceServiceClient::new(channel(&world).await);
    let bad = read("otlp/hostile/035_mixed-3-good-2-bad.pb");
    let bad = ExportTraceServiceRequest::decode(&*bad).unwrap();
    let partial = client.export(bad).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    let mut logs = LogsServiceClient::new(channel(&world).await);
    let fixture =
        fixtures("otlp/otel-openai-v2").into_iter().find(|each| each.sidecar["path"] == "/v1/logs");
    let records = ExportLogsServiceRequest::decode(fixture.unwrap().body).unwrap();
    let partial = logs.export(records).await.unwrap().into_inner().partial_success.unwrap();
    assert!(0 < partial.rejected_log_records);
    assert!(partial.error_message.contains("only traces are stored"));
    world.close().await;
}

#[tokio::test]
async fn unavailable_carries_the_wait_in_both_places() {
    let world = World::open().await;
    world.refusing.stop();
    let mut client = TraceServiceClient::new(channel(&world).await);
    let status = client.export(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = Status::decode(status.details()).unwrap();
    assert_eq!(
        (details.code, &*details.details[0].type_url),
        (14, "type.googleapis.com/google.rpc.RetryInfo")
    );
    let wait = RetryInfo::decode(&*details.details[0].value).unwrap().retry_delay.unwrap();
    assert!((1..=5).contains(&wait.seconds), "{wait:?}");
    let bare = status.metadata().get_bin("google.rpc.retryinfo-bin").unwrap().to_bytes().unwrap();
    assert_eq!(RetryInfo::decode(bare).unwrap().retry_delay, Some(wait));
    world.close().await;
}

#[tokio::test]
async fn too_large_is_resource_exhausted_and_nobody_is_told_to_come_again() {
    let options = ReceiverOptions { body_bytes_max: 1000, ..ReceiverOptions::default() };
    let world = World::with(options).await;
    let mut client = TraceServiceClient::new(channel(&world).await);
    let status = client.export(request()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.details(), b"");
    assert!(status.metadata().get_bin("google.rpc.retryinfo-bin").is_none());
    world.close().await;
}

#[tokio::test]
async fn many_calls_at_a_time_share_one_connection() {
    let world = Arc::new(World::open().await);
    let client = TraceServiceClient::new(channel(&world).await);
    let mut calls = JoinSet::new();
    for number in 0..200_u8 {
        let mut client = client.clone();
        let mut request = request();
        request.resource_spans[0].scope_spans.truncate(1);
        request.resource_spans[0].scope_spans[0].spans.truncate(1);
        request.resource_spans[0].scope_spans[0].spans[0].span_id[0] = number;
        calls.spawn(async move { client.export(request).await });
    }
    for answer in calls.join_all().await {
        answer.unwrap();
    }
    assert_eq!(world.counts(), (200, 0));
}

#[tokio::test]
async fn health_probes_are_answered() {
    let world = World::open().await;
    let path = "/grpc.health.v1.Health/Check";
    assert_eq!(&world.call(path, b"").await.message()[..], [8, 1]);
    let served = b"opentelemetry.proto.collector.trace.v1.TraceService";
    let named = [&[10, 51][..], served].concat();
    assert_eq!(&world.call(path, &named).await.message()[..], [8, 1]);
    assert_eq!(world.call(path, &[10, 1, b'x']).await.grpc_status(), 12);
    // Probes need no key, so their bodies are small.
    let long = [&[10, 0x80, 0x80, 4][..], &vec![b'x'; 64 << 10]].concat();
    assert_eq!(world.call(path, &long).await.grpc_status(), 8);
    assert_eq!(world.call("/grpc.health.v1.Health/Watch", b"").await.grpc_status(), 12);
    world.close().await;
}
