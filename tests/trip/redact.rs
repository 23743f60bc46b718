//! Secrets planted in requests of every form: where rules hold before the journal, none of them is anywhere on disk, in what sinks are
//! sent, or in what the daemon says of itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::World;
use super::traffic::Client;

const SECRETS: [&str; 12] = [
    "sk-proj-abcdefghij0123456789ABCDEFGHIJ",
    "sk-ant-api03-abcDEF0123456789abcDEF0123456789",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_abcdefghij0123456789ABCDEFGHIJ012345",
    "AIzaSyA0123456789abcdefghijABCDEFGHIJ01",
    "xoxb-0123456789-abcdefghij",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "jane.doe@mail.example.com",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "+49 170 1234567",
    "203.0.113.77",
];

const RULE: &str = r#"
[[rules]]
name = "secrets"
redact = { patterns = ["openai_key", "anthropic_key", "aws_access_key", "github_token", "google_api_key", "slack_token", "jwt", "email", "credit_card", "iban", "phone", "ipv4"] }
"#;

/// A backend that takes nothing, and what it was sent.
fn refusing_backend() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let into = Arc::clone(&sent);
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let into = Arc::clone(&into);
            std::thread::spawn(move || refuse(connection, &into));
        }
    });
    (address, sent)
}

/// Reads requests from a connection and refuses each.
fn refuse(mut connection: TcpStream, into: &Mutex<Vec<u8>>) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = connection.read(&mut chunk) {
        request.extend_from_slice(&chunk[..length]);
        if is_whole(&request) {
            into.lock().unwrap().append(&mut request);
            let answer = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            connection.write_all(answer.as_bytes()).unwrap();
        }
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
    let start = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    start + length <= request.len()
}

fn agents_sdk(secret: &str, number: usize) -> Value {
    json!({ "data": [
        { "object": "trace", "id": format!("trace_{number:032}"), "workflow_name": format!("of {secret}"), "group_id": secret, "metadata": { "who": secret } },
        { "object": "trace.span", "id": format!("span_{number:024}"), "trace_id": format!("trace_{number:032}"), "parent_id": null,
          "started_at": "2026-11-28T10:00:00+00:00", "ended_at": "2026-11-28T10:00:01+00:00",
          "span_data": { "type": "function", "name": "search", "input": json!({ "q": secret }).to_string(), "output": format!("found {secret}") },
          "error": { "message": format!("no {secret}"), "data": { "deep": [secret] } } },
        { "object": "something else", "id": "x", "note": secret },
    ], "beside": secret })
}

fn otlp(secret: &str, number: usize) -> Value {
    let text = |key: &str| json!({ "key": key, "value": { "stringValue": secret } });
    let span = json!({
        "traceId": format!("{number:032x}"), "spanId": format!("{number:016x}"), "name": format!("GET {secret}"), "kind": 3,
        "startTimeUnixNano": "1796000000000000000", "endTimeUnixNano": "1796000001000000000", "attributes": [text("input.value")],
        "events": [{ "name": "exception", "attributes": [text("exception.message")] }], "status": { "code": 2, "message": secret },
        "links": [{ "traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708", "attributes": [text("of")] }],
    });
    let mut broken = span.clone();
    broken["traceId"] = json!("no id");
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("host.ip")] },
        "scopeSpans": [{ "scope": { "name": secret, "attributes": [text("scope")] }, "spans": [span, broken] }],
    }] })
}

/// Everything below a directory, as one.
pub(super) fn everything_in(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(everything_in(&path));
        } else if path.extension().is_none_or(|extension| extension != "toml") {
            bytes.extend(fs::read(&path).unwrap());
        }
    }
    bytes
}

/// The secrets that are in these bytes.
fn found_in(bytes: &[u8]) -> Vec<&'static str> {
    let has = |secret: &&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    SECRETS.into_iter().filter(has).collect()
}

async fn send_all(world: &World) {
    let client = Client::new();
    let place = world.place();
    for (number, secret) in (1..).zip(SECRETS) {
        let hidden = secret.replace('-', r"\u002d").replace('@', r"\u0040");
        let url = format!("http://{}/v1/traces/ingest", place.http);
        let body = agents_sdk(secret, number).to_string();
        assert_eq!(client.post(&url, "application/json", "", body.into_bytes()).await, 204);
        let body = agents_sdk("HIDDEN", number + 100).to_string().replace("HIDDEN", &hidden);
        assert_eq!(client.post(&url, "application/json", "", body.into_bytes()).await, 204);
        let url = format!("http://{}/v1/traces", place.http);
        let body = otlp(secret, number).to_string().into_bytes();
        assert_eq!(client.post(&url, "application/json", "gzip", gzip(&body)).await, 200);
    }
    world.settled().await;
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn sinks(backend: SocketAddr) -> String {
    format!(
        "{RULE}BEFORE\n[sinks.lines]\ntype = 'file'\npath = 'lines.jsonl'\n\
         [sinks.backend]\ntype = 'otlp'\nendpoint = 'http://{backend}'\ncompression = 'none'\n"
    )
}

#[tokio::test]
async fn no_planted_secret_is_on_disk_in_a_sink_or_in_what_the_daemon_says() {
    let (backend, sent) = refusing_backend();
    let world = World::new(&sinks(backend).replace("BEFORE", "before_journal = true")).await;
    send_all(&world).await;
    let status = world.status();
    let items = status["journal"]["items"].as_u64().unwrap();
    assert_eq!(items, 5 * SECRETS.len() as u64, "{status}");
    assert_eq!(status["journal"]["quarantined"], 3 * SECRETS.len());
    let sinks = status["sinks"].as_array().unwrap().iter();
    let dead = sinks.map(|sink| sink["dead_lettered"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(dead, 3 * SECRETS.len() as u64, "each span that the backend refused");
    let pages =
        ["/status", "/metrics", "/health"].map(|page| world.place().ask(page).unwrap_or_default());
    assert!(pages[1].len() > 1000);
    assert_eq!(found_in(pages.concat().as_bytes()), [""; 0]);
    assert_eq!(found_in(world.place().said().as_bytes()), [""; 0]);
    let sent = sent.lock().unwrap().clone();
    assert!(sent.len() > 1000);
    assert_eq!(found_in(&sent), [""; 0]);
    let disk = everything_in(world.dir.path());
    assert!(disk.len() > 50_000 && disk.windows(7).any(|window| window == b"[email]"));
    assert_eq!(found_in(&disk), [""; 0]);
}

#[tokio::test]
async fn without_before_journal_the_journal_keeps_what_was_sent_and_no_sink_gets_it() {
    let (backend, sent) = refusing_backend();
    let world = World::new(&sinks(backend).replace("BEFORE", "")).await;
    send_all(&world).await;
    assert_eq!(found_in(&fs::read(world.dir.path().join("lines.jsonl")).unwrap()), [""; 0]);
    assert_eq!(found_in(&sent.lock().unwrap()), [""; 0]);
    let dead = world.place().journal_dir().join("dead-letter");
    let dead = everything_in(&dead);
    assert!(dead.len() > 1000);
    assert_eq!(found_in(&dead), [""; 0], "a dead letter is what the sink was given");
    assert!(!found_in(&everything_in(&world.place().journal_dir())).is_empty());
}
