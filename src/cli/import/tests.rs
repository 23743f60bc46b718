//! Tests of cutting and recognising streams, of the formats, and of a daemon's responses.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use clap::Parser;
use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::batches::Post;
use super::formats::SetAside;
use super::pieces::Pieces;
use super::sources::{Progress, Source};
use super::*;
use crate::span::{Item, Source as Client};
use crate::support::compress;

const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"a","startTimeUnixNano":"1795238109529503000"}]}]}]}"#;
const ITEM: &str =
    r#"{"object":"trace","id":"trace_5b8efff798038103d269b633813fc60c","workflow_name":"w"}"#;

/// Returns an OTLP request in protobuf with one span.
fn message() -> Vec<u8> {
    let decoded = formats::read(&Bytes::from(SPAN)).unwrap();
    let mut message = Vec::new();
    crate::span::otlp::protobuf::write_request(&mut message, decoded.batch.spans());
    message
}

/// Returns the places and contents of a stream's pieces of at most so many bytes; for an unusable piece, the reason.
fn pieces_within(stream: &[u8], bytes_max: usize) -> Vec<(u64, String)> {
    let stream = Box::new(io::Cursor::new(stream.to_vec()));
    let mut pieces = Pieces::of(stream, bytes_max).unwrap();
    let mut found = Vec::new();
    while let Some(piece) = pieces.next().unwrap() {
        let content = String::from_utf8_lossy(&piece.bytes).trim_end().to_owned();
        found.push((piece.place, piece.flaw.map_or(content, |flaw| format!("!{flaw}"))));
    }
    found
}

fn pieces(stream: &[u8]) -> Vec<(u64, String)> {
    pieces_within(stream, 1000)
}

fn expected(pieces: &[(u64, &str)]) -> Vec<(u64, String)> {
    pieces.iter().map(|(place, text)| (*place, (*text).to_owned())).collect()
}

#[test]
fn a_line_that_is_cut_short_takes_no_other_with_it() {
    for (stream, found) in [
        ("", &[][..]),
        ("\n  \n", &[]),
        ("{\"a\":1}\n\n{\"b\":2}", &[(1, "{\"a\":1}"), (3, "{\"b\":2}")]),
        ("\u{feff}{\"a\":1}\r\n", &[(1, "{\"a\":1}")]),
        ("{\"a\":\n{\"b\":2}\n", &[(1, "{\"a\":"), (2, "{\"b\":2}")]),
        ("what is that\n{\"b\":2}\n", &[(1, "what is that"), (2, "{\"b\":2}")]),
        ("{\"b\":2}\nwhat is that\n", &[(1, "{\"b\":2}"), (2, "what is that")]),
    ] {
        assert_eq!(pieces(stream.as_bytes()), expected(found), "{stream}");
    }
}

#[test]
fn a_document_over_many_lines_is_one_piece_and_the_next_begins_behind_it() {
    let stream = "{\n  \"a\": {\n  }\n}\n{\n}\n";
    assert_eq!(pieces(stream.as_bytes()), expected(&[(1, "{\n  \"a\": {\n  }\n}"), (5, "{\n}")]));
}

#[test]
fn what_is_too_long_is_left_out_and_the_next_line_is_read() {
    let long = format!("{{\"a\":\"{}\"}}\n{{\"b\":2}}\n", "x".repeat(100));
    let found = pieces_within(long.as_bytes(), 50);
    assert_eq!(found, expected(&[(1, "!it is longer than 50 bytes"), (2, "{\"b\":2}")]));
    let document = format!("{{\n{}{{\"b\":2}}\n", "  \"a\": 1,\n".repeat(9));
    let found = pieces_within(document.as_bytes(), 50);
    assert_eq!(found, expected(&[(1, "!it is longer than 50 bytes"), (11, "{\"b\":2}")]));
}

#[test]
fn elements_of_an_array_and_rows_of_a_table_are_pieces() {
    for (stream, found) in [
        ("[]", &[][..]),
        ("[\n{\"a\":[1]},{\"b\":\"]},\"}\n]\n", &[(1, "{\"a\":[1]}"), (2, "{\"b\":\"]},\"}")]),
        (" [1,x]", &[(1, "!it is in none of the formats: an array must have objects")]),
        ("[{\"a\":1},", &[(1, "{\"a\":1}"), (2, "!it is truncated")]),
        ("[{\"a\":1}", &[(1, "{\"a\":1}"), (2, "!it is truncated")]),
        (
            "[{\"a\":1},{\"b\":",
            &[(1, "{\"a\":1}"), (2, "!EOF while parsing a value at line 1 column 5")],
        ),
        (
            "\"a\",\"b\"\n\"1,\"\"x\"\"\n\",\"\"\r\n\"2\"\n",
            &[
                (1, r#"{"a":"1,\"x\"\n","b":null}"#),
                (2, "!it has 1 cells, but the first row has 2"),
            ],
        ),
    ] {
        assert_eq!(pieces(stream.as_bytes()), expected(found), "{stream}");
    }
}

#[test]
fn a_partition_is_read_where_what_arrived_in_it_may_be_of_the_time() {
    let window = time("2026-11-21T05:00:00Z").unwrap()..time("2026-11-21T07:00:00Z").unwrap();
    for (name, is_read) in [
        ("lake/dt=2026-11-21/hour=02/a", false),
        ("lake/dt=2026-11-21/hour=04/a", true),
        ("s3://lake/dt=2026-11-22/hour=06/a", true),
        ("s3://lake/dt=2026-11-22/hour=07/a", false),
        ("lake/dt=2026-11-21/a", true),
        ("lake/dt=2026-11-20/a", false),
        ("lake/dt=nonsense/hour=05/a", true),
        ("traces.jsonl", true),
    ] {
        assert_eq!(sources::may_be_of(&window, name), is_read, "{name}");
        assert!(sources::may_be_of(&(0..u64::MAX), name));
    }
}

#[test]
fn without_an_end_the_time_of_every_span_is_inside() {
    let last = SPAN.replace("1795238109529503000", &u64::MAX.to_string());
    assert_ne!(last, SPAN);
    for (window, expected) in [(0..u64::MAX, (1, 0)), (0..u64::MAX - 1, (0, 1))] {
        let source = Source::new("-".to_owned(), None, {
            let last = last.clone();
            || Ok(Box::new(io::Cursor::new(last)))
        });
        let found = Mutex::new((0, 0));
        batches::read(source, Progress::default(), &window, |batch| {
            let items = batch.posts.iter().map(|post| post.items.len()).sum::<usize>();
            let mut found = found.lock().unwrap();
            *found = (found.0 + items, found.1 + batch.outside);
            Some(())
        });
        assert_eq!(found.into_inner().unwrap(), expected, "{window:?}");
    }
}

/// Returns a stream of each form of messages, with the number of messages.
fn streams() -> Vec<(&'static str, Vec<u8>, usize)> {
    let (message, json) = (message(), SPAN.as_bytes());
    let varint = |message: &[u8]| {
        let mut framed = Vec::new();
        prost::encoding::encode_varint(message.len() as u64, &mut framed);
        [&framed, message].concat()
    };
    let length32 =
        |message: &[u8]| [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
    let packed = compress::zstd(json, 3).unwrap();
    let item = format!("{ITEM}\n{ITEM}\n");
    let body = format!("{{\"data\":[{ITEM}]}}");
    vec![
        ("a request of protobuf", message.clone(), 1),
        ("length-delimited", varint(&message).repeat(3), 3),
        ("the Collector's protobuf", length32(&message).repeat(2), 2),
        ("the Collector's compressed JSON", length32(&packed).repeat(2), 2),
        ("lines of OTLP/JSON", [json, b"\n", json].concat(), 2),
        ("a body of the Agents SDK", body.into_bytes(), 1),
        ("items of the Agents SDK", item.into_bytes(), 2),
    ]
}

/// A stream that fails at its end.
struct OfABadDisk(io::Cursor<Vec<u8>>);

impl io::Read for OfABadDisk {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::Error::other("bad disk")),
            read => Ok(read),
        }
    }
}

#[test]
fn a_message_in_the_middle_of_which_the_disk_fails_is_not_done_with() {
    let message = message();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let mut stream = [&length[..], &message, &length, &message].concat();
    stream.pop();
    let stream = io::BufReader::new(OfABadDisk(io::Cursor::new(stream)));
    let mut pieces = Pieces::of(Box::new(stream), 1000).unwrap();
    assert_eq!(pieces.next().unwrap().unwrap().flaw, None);
    pieces.next().unwrap_err();
    assert_eq!(pieces.done, 1);
}

/// Returns a stream's items, and the reasons why others are invalid.
fn read(stream: &[u8]) -> (Vec<Item>, Vec<String>) {
    let mut pieces =
        Pieces::of(Box::new(io::Cursor::new(stream.to_vec())), pieces::PIECE_BYTES_MAX).unwrap();
    let (mut items, mut flaws) = (Vec::new(), Vec::new());
    while let Some(piece) = pieces.next().unwrap() {
        match of_piece(&piece) {
            Ok(decoded) => items.extend(decoded.batch.items),
            Err(reason) => flaws.push(reason),
        }
    }
    (items, flaws)
}

#[test]
fn every_format_is_known_from_its_content() {
    for (name, stream, count) in streams() {
        let (items, flaws) = read(&stream);
        assert_eq!((items.len(), flaws), (count, vec![]), "{name}");
    }
}

#[test]
fn what_is_cut_anywhere_gives_no_more_items_and_says_so_where_one_is_broken() {
    for (name, stream, count) in streams() {
        // Less than this could be anything.
        for end in 8..stream.len() {
            let (items, flaws) = read(&stream[..end]);
            assert!(items.len() <= count && flaws.len() <= 1, "{name} up to {end}");
            let is_line_end = stream[end] == b'\n' || stream[end - 1] == b'\n';
            let whole = (items.len() * stream.len()).div_ceil(count);
            assert!(!flaws.is_empty() || is_line_end || end <= whole, "{name} up to {end}");
        }
    }
}

#[test]
fn what_is_none_of_the_formats_is_said_to_be_none() {
    for (stream, reason) in [
        (&b"\x89PNG\r\n\x1a\n"[..], "it is in none of the formats"),
        (b"PAR1\x15\x04\x15", "it is in none of the formats"),
        (b"trace_id,span_id\n", "it is none of"),
        (b"{\"resourceLogs\":[]}", "it is none of"),
        (b"[1]", "it is in none of"),
        (b"{\"schema_version\":99}", "its schema_version is not 1 to"),
        (b"{\"schema_version\":2,\"record\":\"score\"}", "it is neither a span"),
    ] {
        let (items, flaws) = read(stream);
        assert!(items.is_empty() && flaws.len() == 1, "{stream:?}");
        assert!(flaws[0].starts_with(reason), "{flaws:?}");
    }
}

#[test]
fn items_of_the_agents_sdk_come_out_of_an_archive_as_they_went_in() {
    let body = format!("{{\"data\":[{ITEM}]}}").replace('"', "\\\"");
    let beside = SPAN.replace(
        r#"{"resourceSpans":["#,
        &format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"spanferry.agents_sdk.body","value":{{"stringValue":"{body}"}}}}]}},"scopeSpans":[{{"spans":[{{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b175"}}]}}]}},"#
        ),
    );
    let decoded = formats::read(&Bytes::from(beside)).unwrap();
    assert_eq!(decoded.batch.items.len(), 2);
    let mut archived = Vec::new();
    crate::span::otlp::protobuf::write_request(&mut archived, decoded.batch.spans());
    let (items, flaws) = read(&archived);
    assert!(flaws.is_empty(), "{flaws:?}");
    assert_eq!(items.iter().map(|item| item.wire().clone()).collect::<Vec<_>>(), [ITEM]);
}

#[test]
fn what_was_set_aside_can_be_imported_again() {
    for bytes in [Bytes::from(message()), Bytes::from_static(SPAN.as_bytes())] {
        let line = SetAside { place: "p".into(), reason: "r".into(), bytes }.line();
        assert_eq!(read(line.as_bytes()).0.len(), 1, "{line}");
    }
}

/// Returns the files that are found without a store.
fn find(given: &str) -> Result<Vec<Source>, String> {
    stores::find(&[given.to_owned()], &[], Duration::ZERO).now_or_never().unwrap()
}

/// Opens a file with the progress of an earlier run, and returns the progress that counts.
fn open(path: &Path, before: &Progress) -> Progress {
    let found = find(path.to_str().unwrap()).unwrap();
    let (_, progress) = found.into_iter().next().unwrap().open(before).unwrap();
    progress
}

#[test]
fn a_file_that_grew_is_the_same_and_one_that_was_rotated_is_not() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("traces.jsonl");
    std::fs::write(&path, "first\n").unwrap();
    let short = Progress { done: 7, ..open(&path, &Progress { done: 7, ..Progress::default() }) };
    File::options().append(true).open(&path).unwrap().write_all(&[b'x'; 9000]).unwrap();
    let grown = open(&path, &short);
    assert_eq!(grown.done, 7);
    std::fs::write(&path, "other\n").unwrap();
    assert_eq!(open(&path, &short).done, 0);
    assert_eq!(open(&path, &grown).done, 0, "it is shorter than what was seen of it");
}

#[test]
fn folders_and_patterns_name_what_is_in_them_in_order() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    for name in ["c.jsonl", "a.jsonl", "b/d.jsonl", ".hidden", "odd[1].jsonl"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let named = |pattern: &str| -> Vec<String> {
        let given = format!("{}/{pattern}", dir.path().display());
        let found = find(&given).unwrap_or_default();
        let prefix = format!("{}/", dir.path().display());
        found.into_iter().map(|source| source.name.replace(&prefix, "")).collect()
    };
    assert_eq!(named(""), ["a.jsonl", "b/d.jsonl", "c.jsonl", "odd[1].jsonl"]);
    assert_eq!(named("?.jsonl"), ["a.jsonl", "c.jsonl"]);
    assert_eq!(named("odd[1].jsonl"), ["odd[1].jsonl"]);
    assert_eq!(named(".hidden"), [".hidden"]);
    assert!(named("none*").is_empty());
}

/// Returns what becomes of a batch with one item at a daemon that gives these answers in order and repeats the last one, and the number of
/// requests.
async fn answered(
    answers: &'static [(u16, &'static str)],
) -> (Result<(u64, Batch), String>, usize) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = Router::new().fallback(move || async move {
        let place = count.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        let (status, wait) = answers[place];
        (StatusCode::from_u16(status).unwrap(), [("retry-after", wait)]).into_response()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (taken_at(url).await, asked.load(Ordering::Relaxed))
}

/// Returns what becomes of a batch with one item at this address.
async fn taken_at(url: String) -> Result<(u64, Batch), String> {
    let arguments = Arguments::parse_from(["import", "-", "--give-up-after", "30s"]).arguments;
    let (state, sums) = (State::default(), Sums::default());
    let mut import = Import { arguments: &arguments, url, state, rejects: None, sums };
    let (items, client) = (read(SPAN.as_bytes()).0, Client::unknown());
    let posts = vec![Post { client, items, weight: 1 }];
    let mut batch = Batch { posts, ..Batch::default() };
    import.take(&mut batch).await?;
    Ok((import.sums.accepted, batch))
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    arguments: ImportArguments,
}

#[tokio::test]
async fn a_daemon_without_room_is_asked_again_until_it_takes_it() {
    let (taken, asked) = answered(&[(503, "0"), (429, "0"), (200, "")]).await;
    assert_eq!((taken.unwrap().0, asked), (1, 3));
}

#[tokio::test]
async fn a_daemon_that_wants_more_patience_than_there_is_ends_it_at_once() {
    let (taken, asked) = answered(&[(503, "31")]).await;
    assert!(taken.unwrap_err().contains("503"));
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_request_that_is_refused_is_set_aside_and_a_wrong_key_ends_it() {
    let (accepted, refused) = answered(&[(413, "")]).await.0.unwrap();
    assert_eq!((accepted, refused.set_aside.len()), (0, 1));
    assert!(!read(refused.set_aside[0].line().as_bytes()).0.is_empty());
    let (taken, asked) = answered(&[(401, "")]).await;
    assert!(taken.unwrap_err().contains("401"));
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn an_address_that_nothing_can_have_ends_it_at_once() {
    for address in ["localhost", "127.0.0.1:4318", "ftp://127.0.0.1"] {
        let taken = taken_at(address.to_owned()).now_or_never().expect("it does not wait");
        assert!(taken.unwrap_err().contains("is not a daemon's address"), "{address}");
    }
}

#[test]
fn progress_that_cannot_be_saved_is_noticed_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let problem = State::load(&dir.path().join("none").join("state"), "to a");
    let problem = problem.unwrap_err().to_string();
    assert!(problem.starts_with("progress cannot be saved: "), "{problem}");
    let file = dir.path().join("state");
    State::load(&file, "to a").unwrap();
    let problem = State::load(&file, "to b").unwrap_err().to_string();
    assert!(problem.contains("another import, to a"), "{problem}");
}
