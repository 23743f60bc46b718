//! What happens at each limit, and on the way out.

use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::*;
use crate::journal;
use crate::receivers::{ReceiverOptions, Version};
use crate::support::golden::read;

const SOON: Duration = Duration::from_secs(10);

fn small() -> ReceiverOptions {
    ReceiverOptions {
        body_bytes_max: 100_000,
        body_bytes_max_inflated: 200_000,
        in_flight_bytes_max: 300 << 10,
        ..ReceiverOptions::default()
    }
}

fn good() -> Vec<u8> {
    read("otlp/hostile/016_encoding-identity.pb")
}

/// Waits on an answer that asks the client to come again, over HTTP.
fn assert_busy(answer: &Answer) {
    assert_eq!(answer.status, 503);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_body_beyond_the_wire_limit_is_413_and_the_client_sees_it() {
    let world = World::with(small()).await;
    let large = Bytes::from(vec![0; 5_000_000]);
    for body in [Pieces::whole(large.clone()), Pieces::chunked(&large)] {
        let answer = world.send(post(TRACES, &[PROTOBUF], body)).await;
        assert_eq!(answer.status, 413);
    }
    let answer = world.post(INGEST, &[JSON], large.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
        (413, Some("request_too_large"))
    );
    let mut request = post(TRACES, &[PROTOBUF], Pieces::chunked(&large));
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "http://localhost/v1/traces".parse().unwrap();
    assert_eq!(world.send(request).await.status, 413);
    world.close().await;
}

#[tokio::test]
async fn an_announced_length_beyond_the_limit_is_refused_before_it_is_sent() {
    let world = World::with(small()).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 99999999999\r\nexpect: 100-continue\r\n\r\n";
    let answer = timeout(SOON, world.raw(head.as_bytes())).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let frame = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let body = Pieces::stalled(frame);
    let answer = timeout(SOON, world.send(post(RPC, &[GRPC], body))).await.unwrap();
    assert_eq!(answer.grpc_status(), 8);
    assert!(!answer.headers.contains_key("google.rpc.retryinfo-bin"));
    world.close().await;
}

#[tokio::test]
async fn what_inflates_beyond_the_limit_is_413_in_every_coding() {
    let world = World::with(small()).await;
    let zeros = vec![b'0'; 4_000_000];
    let zstd = zstd::encode_all(&zeros[..], 1).unwrap();
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    // Two members: the length in the last four bytes is that of the second alone.
    let two = [&gzip[..], &read("otlp/hostile/013_gzip-two-members.pb.gz")].concat();
    for (coding, body) in [("zstd", zstd), ("gzip", gzip), ("gzip", two)] {
        let answer = world.post(TRACES, &[JSON, ("content-encoding", coding)], body.clone()).await;
        assert_eq!(answer.status, 413, "{coding}");
        let headers = [GRPC, ("grpc-encoding", coding)];
        let answer = world.send(post(RPC, &headers, Pieces::framed(1, &body))).await;
        assert_eq!(answer.grpc_status(), 8, "{coding}");
    }
    world.close().await;
}

/// A protobuf field that holds these bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut message);
    message.extend_from_slice(content);
    message
}

#[tokio::test]
async fn small_bodies_that_would_be_large_in_memory_are_413() {
    let world = World::open().await;
    let empty = |number: u8| [number << 3 | 2, 0].repeat(4 << 20);
    let span = |rest: Vec<u8>| {
        let ids = [field(1, &[1; 16]), field(2, &[1; 8])].concat();
        field(1, &field(2, &field(2, &[ids, rest].concat())))
    };
    let array = field(9, &field(2, &field(5, &empty(1))));
    for (what, body) in [
        ("resource spans", empty(1)),
        ("scope spans", field(1, &empty(2))),
        ("spans", field(1, &field(2, &empty(2)))),
        ("attributes", span(empty(9))),
        ("events", span(empty(11))),
        ("links", span(empty(13))),
        ("array values", span(array)),
    ] {
        let zstd = zstd::encode_all(&body[..], 1).unwrap();
        let headers = [PROTOBUF, ("content-encoding", "zstd")];
        assert_eq!(world.post(TRACES, &headers, zstd.clone()).await.status, 413, "{what}");
        let headers = [GRPC, ("grpc-encoding", "zstd")];
        let answer = world.send(post(RPC, &headers, Pieces::framed(1, &zstd))).await;
        assert_eq!(answer.grpc_status(), 8, "{what}");
    }
    assert_eq!(world.counts(), (0, 0));
    world.close().await;
}

#[tokio::test]
async fn when_too_many_bytes_are_in_flight_clients_are_told_to_come_again() {
    let world = World::with(small()).await;
    // Three bodies that are announced and never sent take the budget.
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 100000\r\n\r\n{";
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = TcpStream::connect(world.address).await.unwrap();
        holder.write_all(head.as_bytes()).await.unwrap();
        holders.push(holder);
    }
    let large = vec![b' '; 90_000];
    let busy = timeout(SOON, world.post(INGEST, &[JSON], large.clone())).await.unwrap();
    assert_busy(&busy);
    assert_eq!(busy.json()["error"]["type"], "server_error");
    let answer = world.call(RPC, &large).await;
    assert_eq!(answer.grpc_status(), 14);
    let refused = "spanferry_receiver_refused_spans_total{receiver=\"openai\",transport=\"http\",format=\"json\"}";
    assert_eq!(world.figure(refused), Some(1.0));
    drop(holders);
    // What they held comes back.
    let answer = timeout(SOON, async {
        loop {
            let answer = world.post(INGEST, &[JSON], large.clone()).await;
            if answer.status != 503 {
                return answer;
            }
        }
    });
    assert_eq!(answer.await.unwrap().status, 400);
    world.close().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_closes_the_connection_without_an_answer() {
    let options = ReceiverOptions {
        body_idle_timeout: Duration::from_millis(50),
        ..ReceiverOptions::default()
    };
    let world = World::with(options).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 10\r\n\r\n{";
    assert_eq!(timeout(SOON, world.raw(head.as_bytes())).await.unwrap(), "");
    assert!(world.try_send(post(TRACES, &[PROTOBUF], Pieces::stalled("x"))).await.is_none());
    // A gRPC client has a code for it, and comes again.
    let answer = world.send(post(RPC, &[GRPC], Pieces::stalled(vec![0, 0, 0]))).await;
    assert_eq!(answer.grpc_status(), 4);
    world.close().await;
}

#[tokio::test]
async fn a_full_journal_is_503_with_a_wait_and_unavailable_with_retry_info() {
    let journal = journal::Options { bytes_max: 64 << 10, ..journal::Options::default() };
    let world = World::over(ReceiverOptions::default(), &journal).await;
    // Somebody needs what is there.
    let cursor = journal::Cursor { mark: world.feed.journal().end(), ..journal::Cursor::default() };
    world.feed.journal().save_cursor("sink", &cursor).unwrap();
    let mut sent = 0;
    let answer = loop {
        let item = format!(
            "{{\"object\":\"trace\",\"id\":\"trace_{sent:032}\",\"workflow_name\":\"{}\"}}",
            "x".repeat(4000)
        );
        let answer = world.post(INGEST, &[JSON], format!("{{\"data\":[{item}]}}")).await;
        if answer.status != 204 {
            break answer;
        }
        sent += 1;
        assert!(sent < 100, "the journal does not fill");
    };
    assert_busy(&answer);
    let large = read("otlp/hostile/044_10k-attributes.pb");
    let answer = world.post(TRACES, &[PROTOBUF], large).await;
    // It could never be kept: that is no reason to come again.
    assert_eq!(answer.status, 413);
    assert_eq!(world.counts().0, sent);
    world.close().await;
}

#[tokio::test]
async fn while_refusing_every_door_says_come_again() {
    let world = World::open().await;
    world.refusing.stop();
    assert_busy(&world.post(TRACES, &[PROTOBUF], good()).await);
    assert_busy(&world.post(INGEST, &[JSON], "{\"data\":[]}").await);
    assert_eq!(world.call(RPC, &good()).await.grpc_status(), 14);
    assert_eq!(&world.call("/grpc.health.v1.Health/Check", b"").await.message()[..], [8, 2]);
    assert_eq!(world.counts(), (0, 0));
    world.close().await;
}

#[tokio::test]
async fn closing_finishes_what_is_in_flight_and_ends_idle_connections() {
    let world = World::open().await;
    let body = good();
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    let mut busy = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Idle is a connection that has had its answer.
    idle.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    busy.write_all(head.as_bytes()).await.unwrap();
    busy.write_all(&body[..10]).await.unwrap();
    // The head of the busy request has been read when this one, which was sent later, is answered.
    world.post(TRACES, &[PROTOBUF], body.clone()).await;
    world.stop.stop();
    let mut rest = Vec::new();
    timeout(SOON, idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    busy.write_all(&body[10..]).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, busy.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    timeout(SOON, world.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn closing_ends_http2_connections_too() {
    let world = World::open().await;
    let io = TokioIo::new(TcpStream::connect(world.address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let call = post(RPC, &[GRPC], Pieces::framed(0, &good()));
    assert_eq!(sender.send_request(call).await.unwrap().status(), 200);
    world.stop.stop();
    timeout(SOON, connection).await.unwrap().unwrap().unwrap();
    timeout(SOON, world.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off_when_closing() {
    let options =
        ReceiverOptions { drain_timeout: Duration::from_millis(50), ..ReceiverOptions::default() };
    let world = World::with(options).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = "POST /v1/traces/ingest HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    world.post(TRACES, &[PROTOBUF], good()).await;
    timeout(SOON, world.close()).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let world =
        World::with(ReceiverOptions { connections_max: 1, ..ReceiverOptions::default() }).await;
    let first = TcpStream::connect(world.address).await.unwrap();
    let mut second = Box::pin(world.post(TRACES, &[PROTOBUF], good()));
    assert!(timeout(Duration::from_millis(100), second.as_mut()).await.is_err());
    drop(first);
    assert_eq!(timeout(SOON, second).await.unwrap().status, 200);
    world.close().await;
}
