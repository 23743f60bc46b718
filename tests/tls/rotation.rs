//! Certificates that change while clients send, and ones that break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::version::{TLS12, TLS13};

use super::World;
use super::authority::connect;
use super::process::POLL_EVERY;
use super::process::client::{Answer, Client, Protocol};

/// A new pair must be in use within three seconds; a machine that is busy with other tests may take longer.
const SOON: Duration = Duration::from_secs(30);
const ROTATIONS: usize = 3;

/// Sends until told to stop, on one connection or on a new one each time; counts acknowledged requests.
async fn send(
    world: Arc<World>,
    protocol: Protocol,
    stays: bool,
    (stop, kept): (Arc<AtomicBool>, Arc<AtomicU64>),
) {
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let config = world.authority.client(&[&TLS12, &TLS13], None);
        let address = protocol.address(world.place());
        if client.is_none() || !stays {
            client = Some(Client::connect_tls(protocol, address, None, config).await.unwrap());
        }
        let body = match protocol {
            Protocol::OtlpGrpc => Bytes::new(),
            Protocol::Openai => Bytes::from_static(br#"{"data":[]}"#),
            Protocol::OtlpHttp | Protocol::OtlpJson => Bytes::from_static(b"{}"),
        };
        let answer = client.as_mut().unwrap().send(body).await.unwrap();
        assert_eq!(answer, Answer::Kept);
        kept.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_certificates_change() {
    let world = Arc::new(World::new("", "").await);
    let watched = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for protocol in [Protocol::Openai, Protocol::OtlpJson, Protocol::OtlpGrpc] {
        for stays in [true, false] {
            clients.spawn(send(Arc::clone(&world), protocol, stays, watched.clone()));
        }
    }
    for _ in 0..ROTATIONS {
        let new = world.authority.renew("localhost");
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < SOON, "the new certificate is not in use");
            let config = world.authority.client(&[&TLS13], None);
            let stream = connect(world.place().http, config).await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == new {
                break;
            }
            tokio::time::sleep(10 * POLL_EVERY).await;
        }
    }
    watched.0.store(true, Ordering::Relaxed);
    // A failed request makes its client panic.
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert!(100 < watched.1.load(Ordering::Relaxed));
    assert_eq!(world.json("/health")["status"], "ok");
}

#[tokio::test]
async fn a_broken_certificate_degrades_health_and_clients_are_served_on() {
    let world = World::new("", "").await;
    world.authority.write("server.crt", "no certificate");
    let begun = Instant::now();
    while world.json("/health")["status"] == "ok" {
        assert!(begun.elapsed() < SOON, "nobody noticed");
        tokio::time::sleep(10 * POLL_EVERY).await;
    }
    let problem = world.json("/health")["problems"][0].as_str().unwrap().to_owned();
    assert!(problem.starts_with("receivers.tls.cert cannot be used: "), "{problem}");
    let config = || world.authority.client(&[&TLS13], None);
    let http = world.place().http;
    let mut client = Client::connect_tls(Protocol::OtlpJson, http, None, config()).await.unwrap();
    assert_eq!(client.send(Bytes::from_static(b"{}")).await.unwrap(), Answer::Kept);
    assert_eq!(world.place().said().matches("still in use").count(), 1, "it is said once");
    world.authority.renew("localhost");
    while world.json("/health")["status"] != "ok" {
        assert!(begun.elapsed() < 2 * SOON, "nobody noticed that it is mended");
        tokio::time::sleep(10 * POLL_EVERY).await;
    }
}
