//! Secrets planted in requests of every form: if rules apply before the journal, none of them is anywhere on disk, in requests of sinks, or
//! in the daemon's own output.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use super::World;
use super::planted::{self, BROKEN, ITEMS, SECRETS, SPANS, found_in};

/// Starts a backend that accepts nothing, and records what it receives.
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

/// Returns the contents of all files below a directory, concatenated.
pub(super) fn everything_in(dir: &Path) -> Vec<u8> {
    loop {
        match all_of(dir) {
            // The daemon replaced a file meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => return read.unwrap(),
        }
    }
}

fn all_of(dir: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes.extend(all_of(&path)?);
        } else if path.extension().is_none_or(|extension| extension != "toml") {
            bytes.extend(fs::read(&path)?);
        }
    }
    Ok(bytes)
}

async fn send_all(world: &World) {
    planted::send_all(world.place().http, world.place().grpc).await;
    world.settled().await;
}

fn sinks(backend: SocketAddr, more: &str) -> String {
    let rule = planted::rule(more);
    format!(
        "{rule}[sinks.lines]\ntype = 'file'\npath = 'lines.jsonl'\n\
         [sinks.backend]\ntype = 'otlp'\nendpoint = 'http://{backend}'\ncompression = 'none'\n"
    )
}

#[tokio::test]
async fn no_planted_secret_is_on_disk_in_a_sink_or_in_what_the_daemon_says() {
    let (backend, sent) = refusing_backend();
    let world = World::new(&sinks(backend, "before_journal = true")).await;
    send_all(&world).await;
    let status = world.status();
    let items = status["journal"]["items"].as_u64().unwrap();
    assert_eq!(items, (ITEMS * SECRETS) as u64, "{status}");
    assert_eq!(status["journal"]["quarantined"], BROKEN * SECRETS);
    let sinks = status["sinks"].as_array().unwrap().iter();
    let dead = sinks.map(|sink| sink["dead_lettered"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(dead, (SPANS * SECRETS) as u64, "each span that the backend refused");
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
    let world = World::new(&sinks(backend, "")).await;
    send_all(&world).await;
    assert_eq!(found_in(&fs::read(world.dir.path().join("lines.jsonl")).unwrap()), [""; 0]);
    assert_eq!(found_in(&sent.lock().unwrap()), [""; 0]);
    let dead = world.place().journal_dir().join("dead-letter");
    let dead = everything_in(&dead);
    assert!(dead.len() > 1000);
    assert_eq!(found_in(&dead), [""; 0], "a dead letter is what the sink was given");
    assert!(!found_in(&everything_in(&world.place().journal_dir())).is_empty());
}
