//! A sink whose address leads back to the daemon through a proxy, which no configuration shows.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use tokio::net::{TcpListener, TcpStream};

use super::World;
use super::process::POLL_EVERY;
use super::traffic::Client;

const ITEM: &str = r#"{"data":[{"object":"trace.span","id":"span_000000000000000000000001","trace_id":"trace_00000000000000000000000000000001","parent_id":null,"started_at":"2026-01-01T00:00:00Z","ended_at":"2026-01-01T00:00:01Z","span_data":{"type":"custom","name":"n","data":{}},"error":null}]}"#;

/// Starts a proxy that forwards bytes to `target` once it is set.
async fn proxy(target: Arc<OnceLock<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let Some(target) = target.get() else { continue };
            let mut far = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    address
}

#[tokio::test]
async fn what_a_sink_sends_back_to_its_own_daemon_is_not_taken_and_the_lane_holds() {
    for protocol in ["http/protobuf", "grpc"] {
        let target = Arc::new(OnceLock::new());
        let address = proxy(Arc::clone(&target)).await;
        let sink = format!(
            "[sinks.round]\ntype = \"otlp\"\nprotocol = \"{protocol}\"\nendpoint = \"http://{address}\"\n"
        );
        let world = World::new(&sink).await;
        target.set(world.place().http).unwrap();
        let url = format!("http://{}/v1/traces/ingest", world.place().http);
        assert_eq!(Client::new().post(&url, "application/json", "", ITEM.into()).await, 204);
        while world.status()["sinks"][0]["state"] == "running" {
            tokio::time::sleep(POLL_EVERY).await;
        }
        let status = world.status();
        assert_eq!(status["sinks"][0]["pending"], 1, "{status}");
        assert_eq!(status["journal"]["items"], 1, "nothing came back in: {status}");
        assert!(world.place().said().contains("there is a loop"), "{}", world.place().said());
    }
}

#[tokio::test]
async fn what_comes_back_through_another_daemon_is_not_taken_and_that_daemon_holds() {
    for protocol in ["http/protobuf", "http/json", "grpc"] {
        let target = Arc::new(OnceLock::new());
        let to_second = proxy(Arc::clone(&target)).await;
        let first = World::new(&sink_to(protocol, to_second)).await;
        // The protocols have different ports, but each port accepts all of them.
        let second = World::new(&sink_to(protocol, first.place().http)).await;
        target.set(second.place().http).unwrap();
        let url = format!("http://{}/v1/traces/ingest", first.place().http);
        assert_eq!(Client::new().post(&url, "application/json", "", ITEM.into()).await, 204);
        while second.status()["sinks"][0]["state"] != "holding" {
            tokio::time::sleep(POLL_EVERY).await;
        }
        let (sent, held) = (first.status(), second.status());
        assert_eq!(sent["journal"]["items"], 1, "nothing came back in: {sent}");
        assert_eq!(sent["sinks"][0]["delivered"], 1, "{sent}");
        assert_eq!(held["sinks"][0]["pending"], held["journal"]["items"], "{held}");
        let problem = held["sinks"][0]["problem"].as_str().unwrap();
        assert!(problem.contains("508") || problem.contains("PERMISSION_DENIED"), "{held}");
        let said = first.place().said();
        assert!(said.contains("perhaps through other daemons"), "{said}");
        assert!(!said.contains("trace_000000"), "no word of what it was: {said}");
    }
}

fn sink_to(protocol: &str, address: SocketAddr) -> String {
    format!(
        "[sinks.round]\ntype = \"otlp\"\nprotocol = \"{protocol}\"\nendpoint = \"http://{address}\"\n\
         retry = {{ hold = \"100ms\" }}\n"
    )
}
