//! The behavior at each limit, and on shutdown.

use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::*;
use crate::journal;
use crate::receivers::kept_part;
use crate::receivers::{ReceiverOptions, Version};
use crate::support::golden::read;

const SOON: Duration = Duration::from_secs(10);

fn small() -> ReceiverOptions {
    ReceiverOptions {
        body_bytes_max: 100_000,
        body_bytes_max_inflated: 200_000,
        in_flight_bytes_max: 400 << 10,
        ..ReceiverOptions::default()
    }
}

fn good() -> Vec<u8> {
    read("otlp/hostile/016_encoding-identity.pb")
}

/// Checks an answer that asks the client to retry, over HTTP.
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
async fn a_body_of_exactly_the_wire_limit_is_taken_by_every_receiver() {
    let world = World::with(small()).await;
    // Unknown fields.
    let largest = vec![b' '; 100_000];
    assert_eq!(world.post(TRACES, &[PROTOBUF], largest.clone()).await.status, 200);
    assert_eq!(world.call(RPC, &largest).await.grpc_status(), 0);
    let larger = vec![b' '; 100_002];
    let answer = world.post(INGEST, &[JSON], larger.clone()).await;
    assert_eq!(answer.status, 413);
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("100000 bytes: send fewer spans"), "{message}");
    let answer = world.call(RPC, &larger).await;
    assert_eq!(answer.grpc_status(), 8);
    assert!(answer.header("grpc-message").contains("100000"), "{answer:?}");
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

/// Encodes a protobuf field with these bytes.
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

/// Starts a request of this length and sends part of it.
async fn begun(world: &World, length: usize, sent: usize) -> TcpStream {
    let head =
        format!("POST /v1/traces/ingest HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

#[tokio::test]
async fn bodies_that_are_announced_and_do_not_come_keep_nobody_out() {
    for (options, announced, bodies) in
        [(small(), 100_000, 6), (ReceiverOptions::default(), 64 << 20, 4)]
    {
        let world = World::with(options).await;
        let mut holders = Vec::new();
        for _ in 0..bodies {
            holders.push(begun(&world, announced, 1).await);
        }
        // Their bytes have been read when these requests are answered, one after the other.
        for _ in 0..5 {
            let answer = world.post(INGEST, &[JSON], vec![b' '; 50_000]).await;
            assert_eq!(answer.status, 400);
            // Spaces are unknown fields.
            assert_eq!(world.call(RPC, &vec![b' '; 50_000]).await.grpc_status(), 0);
        }
        let refused = "spanferry_receiver_refused_spans_total{receiver=\"openai\",transport=\"http\",format=\"json\"}";
        assert_eq!(world.figure(refused), Some(0.0));
        drop(holders);
        world.close().await;
    }
}

#[tokio::test]
async fn a_body_that_came_and_goes_on_no_more_gives_way_and_is_told_to_come_again() {
    let world = World::with(small()).await;
    let mut holder = begun(&world, 95_000, 90_000).await;
    let answer = timeout(SOON, world.post(INGEST, &[JSON], vec![b' '; 90_000])).await.unwrap();
    assert_eq!(answer.status, 400);
    let mut answer = [0; 12];
    timeout(SOON, holder.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    let refused = "spanferry_receiver_refused_spans_total{receiver=\"openai\",transport=\"http\",format=\"json\"}";
    assert_eq!(world.figure(refused), Some(1.0));
    drop(holder);
    world.close().await;
}

/// Encodes this many spans with this many short attributes each.
fn many_spans(spans: usize, attributes: usize) -> Vec<u8> {
    let attribute = [field(1, b"some.key.123"), field(2, &field(1, b"a shorter text"))].concat();
    let attributes = field(9, &attribute).repeat(attributes);
    let spans = (0..spans as u64).map(|number| {
        let ids = [field(1, &[1; 16]), field(2, &(number + 1).to_be_bytes())].concat();
        field(2, &[&ids[..], &attributes].concat())
    });
    field(1, &field(2, &spans.collect::<Vec<_>>().concat()))
}

#[tokio::test]
async fn a_large_legal_body_of_small_spans_is_kept() {
    let world = World::open().await;
    let body = many_spans(110_000, 10);
    assert!(38 << 20 < body.len(), "{}", body.len());
    let zstd = zstd::encode_all(&body[..], 1).unwrap();
    assert_eq!(world.post(TRACES, &[PROTOBUF], body).await.status, 200);
    // The same spans in another form are stored again only partly or not at all, so the request is not refused.
    let headers = [PROTOBUF, ("content-encoding", "zstd")];
    assert_eq!(world.post(TRACES, &headers, zstd).await.status, 200);
    assert!(110_000 <= world.counts().0);
    world.close().await;
}

#[tokio::test]
async fn what_can_never_fit_is_413_at_once_and_keeps_nobody_waiting() {
    let world = World::open().await;
    let span = [field(1, &[1; 16]), field(2, &[1; 8]), [9 << 3 | 2, 0].repeat(2_000_000)].concat();
    let attributes = field(1, &field(2, &field(2, &span)));
    let described = field(
        1,
        &[field(1, &[1 << 3 | 2, 0].repeat(1_500_000)), field(2, &field(2, &span[..28]))].concat(),
    );
    for (body, word) in [(attributes, "2000000 attributes"), (described, "in_flight_bytes_max")] {
        let (large, other) = tokio::join!(
            world.send(post(TRACES, &[PROTOBUF], Pieces::whole(body))),
            world.post(INGEST, &[JSON], "{\"data\":[]}"),
        );
        assert_eq!((large.status.as_u16(), other.status.as_u16()), (413, 204));
        let message = tonic_types::pb::Status::decode(large.body).unwrap().message;
        assert!(message.contains(word), "{message}");
    }
    let waited =
        "spanferry_receiver_request_duration_seconds_sum{receiver=\"openai\",code=\"204\"}";
    // A request waits two seconds for memory.
    assert!(world.figure(waited).unwrap() < 2.0);
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
    // gRPC has a code for it, on which clients retry.
    let answer = world.send(post(RPC, &[GRPC], Pieces::stalled(vec![0, 0, 0]))).await;
    assert_eq!(answer.grpc_status(), 4);
    world.close().await;
}

#[tokio::test]
async fn a_full_journal_is_503_with_a_wait_and_unavailable_with_retry_info() {
    let journal = journal::Options { bytes_max: 64 << 10, ..journal::Options::default() };
    let world = World::over(ReceiverOptions::default(), &journal).await;
    // A consumer needs the existing records.
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
    // It could never be stored, so a retry is useless.
    assert_eq!(answer.status, 413);
    assert_eq!(world.counts().0, sent);
    world.close().await;
}

#[tokio::test]
async fn while_refusing_every_receiver_says_come_again() {
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
    // A connection is idle once it has had its answer.
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

#[test]
fn no_header_is_kept_beyond_its_limit_whatever_its_characters_are() {
    for character in ["a", "\u{e9}", "\u{20ac}", "\u{1f600}"] {
        let kept = kept_part(&character.repeat(1000)).len();
        assert!((253..=256).contains(&kept), "{character}: {kept}");
    }
    assert_eq!(kept_part("short"), "short");
}
