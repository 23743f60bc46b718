//! Connections: idle ones, half-closed ones, those that end early, and those with several requests.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::world::*;
use crate::receivers::{ReceiverOptions, TokenOptions};
use crate::support::golden::read;

const SOON: Duration = Duration::from_secs(10);

fn good() -> Vec<u8> {
    read("otlp/hostile/016_encoding-identity.pb")
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn whole(path: &str, body: &[u8]) -> Vec<u8> {
    [head(path, body.len()).as_bytes(), body].concat()
}

async fn begin(world: &World, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Sends a request with ten bytes of its body; the rest is awaited.
async fn begin_body(world: &World) -> TcpStream {
    let head = head(TRACES, good().len()).replace("host:", "expect: 100-continue\r\nhost:");
    let mut stream = begin(world, head.as_bytes()).await;
    let mut go_on = [0; 25];
    timeout(SOON, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&good()[..10]).await.unwrap();
    stream
}

/// Reads the statuses of all answers until the connection ends.
async fn statuses(stream: &mut TcpStream) -> Vec<u16> {
    let mut text = Vec::new();
    timeout(SOON, stream.read_to_end(&mut text)).await.unwrap().ok();
    codes(&String::from_utf8_lossy(&text))
}

fn codes(text: &str) -> Vec<u16> {
    let answers = text.split("HTTP/1.1 ").skip(1);
    answers.map(|answer| answer.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// Reads the head and status of the next answer.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut answer = [0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap()
}

fn few(connections_max: usize) -> ReceiverOptions {
    ReceiverOptions { connections_max, ..ReceiverOptions::default() }
}

#[tokio::test]
async fn the_connection_that_has_been_idle_the_longest_gives_way_to_a_new_one() {
    let world = World::with(few(3)).await;
    // One that never sent anything, one with half a head, and one that was used and is kept.
    let mut silent = begin(&world, b"").await;
    let mut slow = begin(&world, b"POST /v1/traces HTTP/1.1\r\nhos").await;
    let mut kept = begin(&world, &whole(TRACES, &good())).await;
    assert_eq!(status(&mut kept).await, 200);
    for gone in [&mut silent, &mut slow] {
        let answer = timeout(SOON, world.post(TRACES, &[PROTOBUF], good())).await.unwrap();
        assert_eq!(answer.status, 200);
        // The client's connection ended with its answer, so its space is taken by one that stays.
        let _stays = begin(&world, b"").await;
        assert_eq!(statuses(gone).await, [] as [u16; 0]);
    }
    world.close().await;
}

#[tokio::test]
async fn who_only_connects_takes_no_place_from_who_sends() {
    let world = World::with(few(3)).await;
    let mut kept = begin(&world, &whole(TRACES, &good())).await;
    assert_eq!(status(&mut kept).await, 200);
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(begin(&world, b"").await);
    }
    for gone in &mut silent[..4] {
        assert_eq!(statuses(gone).await, [] as [u16; 0]);
    }
    let last = head(TRACES, 0).replace("host:", "connection: close\r\nhost:");
    kept.write_all(last.as_bytes()).await.unwrap();
    assert_eq!(statuses(&mut kept).await, [200]);
    world.close().await;
}

#[tokio::test]
async fn many_idle_connections_keep_no_new_client_out() {
    let world = World::with(few(20)).await;
    let mut idle = Vec::new();
    for number in 0..60 {
        let mut stream = begin(&world, &whole(TRACES, &good())).await;
        assert_eq!(status(&mut stream).await, 200, "client {number}");
        idle.push(stream);
    }
    world.close().await;
}

#[tokio::test]
async fn connections_with_a_request_do_not_give_way_and_new_ones_wait() {
    let world = World::with(few(1)).await;
    let mut busy = begin_body(&world).await;
    let mut second = Box::pin(world.post(TRACES, &[PROTOBUF], good()));
    assert!(timeout(Duration::from_millis(20), second.as_mut()).await.is_err());
    busy.write_all(&good()[10..]).await.unwrap();
    assert_eq!(status(&mut busy).await, 200);
    // Now it is idle.
    assert_eq!(timeout(SOON, second).await.unwrap().status, 200);
    world.close().await;
}

#[tokio::test]
async fn connections_whose_bodies_come_slowly_keep_no_new_client_out() {
    let world = World::with(few(3)).await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(begin_body(&world).await);
    }
    for _ in 0..2 {
        let answer = timeout(SOON, world.post(TRACES, &[PROTOBUF], good())).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    // The oldest was closed, and told to retry.
    assert_eq!(statuses(&mut slow[0]).await, [503]);
    world.close().await;
}

#[tokio::test]
async fn a_client_that_closes_its_side_early_gets_its_answer() {
    let world = World::open().await;
    // Unknown fields, so many that the request is not answered within the turn that reads it.
    let long = vec![0x12; 19 * 200_000];
    for body in [&good()[..], &long] {
        let mut stream = begin(&world, &whole(TRACES, body)).await;
        stream.shutdown().await.unwrap();
        assert_eq!(statuses(&mut stream).await, [200]);
    }
    assert_eq!(world.counts().0, 1);
    // An incomplete request gets no answer.
    let mut stream = begin(&world, &whole(TRACES, &good())[..150]).await;
    stream.shutdown().await.unwrap();
    assert_eq!(statuses(&mut stream).await, [] as [u16; 0]);
    world.close().await;
}

#[tokio::test]
async fn a_request_behind_a_refused_one_is_answered_on_its_own() {
    let token = TokenOptions { token: "sk-right".to_owned().into(), tenant: String::new() };
    let options = ReceiverOptions {
        body_bytes_max: 100_000,
        tokens: vec![token],
        ..ReceiverOptions::default()
    };
    let world = World::with(options).await;
    let key = "authorization: Bearer sk-right\r\nhost:";
    let with_key = |bytes: Vec<u8>| {
        let at = bytes.windows(5).position(|window| window == b"host:").unwrap();
        [&bytes[..at], key.as_bytes(), &bytes[at + 5..]].concat()
    };
    let last = with_key(whole(TRACES, &good()));
    let last =
        [&last[..last.len() - good().len() - 2], b"connection: close\r\n\r\n", &good()].concat();
    for (refused, expected) in [
        (whole("/nowhere", &good()), 404),
        (whole(TRACES, &good()), 401),
        (with_key(whole(TRACES, b"no protobuf")), 400),
        (with_key(whole(TRACES, &vec![0; 3_000_000])), 413),
        (with_key(whole(TRACES, b"POST /v1/traces HTTP/1.1\r\n\r\n")), 400),
    ] {
        let text = world.raw(&[&refused[..], &last].concat()).await;
        let codes = codes(&text);
        assert_eq!(codes, [expected, 200], "{text}");
    }
    world.close().await;
}

#[tokio::test]
async fn a_client_that_is_gone_half_way_leaves_no_reservation_and_no_half_record() {
    let options = ReceiverOptions {
        body_bytes_max: 100_000,
        body_bytes_max_inflated: 100_000,
        in_flight_bytes_max: 400_000,
        ..ReceiverOptions::default()
    };
    let world = World::with(options).await;
    let request = whole(TRACES, &good());
    for sent in (0..request.len()).step_by(7) {
        drop(begin(&world, &request[..sent]).await);
    }
    // The client is gone after sending everything: the request is stored completely or not at all.
    for _ in 0..20 {
        drop(begin(&world, &request).await);
    }
    for _ in 0..20 {
        drop(
            begin(&world, head(TRACES, 90_000).as_bytes()).await.write_all(&vec![0; 80_000]).await,
        );
    }
    // All memory is released: bodies that need most of it are accepted, one after the other. (They have unknown fields.)
    let large = || world.post(TRACES, &[PROTOBUF], vec![0x12; 95_000]);
    timeout(SOON, async { while large().await.status == 503 {} }).await.unwrap();
    for _ in 0..5 {
        assert_eq!(large().await.status, 200);
    }
    assert_eq!(world.post(TRACES, &[PROTOBUF], good()).await.status, 200);
    assert_eq!(world.counts(), (1, 0));
    for (envelope, decoded) in world.kept() {
        assert_eq!(decoded.batch.items.len(), envelope.items as usize);
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_first_request_does_not_come_is_closed() {
    let world = World::open().await;
    for begun in ["", "PRI * HTTP/2", "POST /v1/traces HTTP/1.1\r\nhos"] {
        let mut stream = begin(&world, begun.as_bytes()).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert_eq!(answer, b"", "{begun}");
    }
    world.close().await;
}
