//! The sink for OpenAI, mostly through a daemon, against an ingest in this process.
//!
//! A test cannot use the real OpenAI, so `backend.rs` refuses what it refuses according to issues of both SDKs, with its messages: values
//! over 100 kB, unknown members of `span_data` and `usage`, non-text metadata, more than 128 items, unknown keys, organisations without
//! data retention. Every case of `golden/agents-sdk/golden`, which records what the SDKs' own exporters send there, must arrive with its
//! SHA-256; all captured traffic must arrive once, each item under its caller's key, and byte for byte unless a rule applies to it. Keys
//! must not be in any file or log.
//!
//! Not proven here: other refusals of the real one, and its limits of items and bytes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests may panic, and read files"
)]

mod daemon;
mod backend;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../process/mod.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spanferry::normalize::{Encoding, Envelope, Limits, decode};
use spanferry::sinks::{
    Delivery, Pace, Parts, Plan, Refusal, RejectClass, Report, Sink, Verdict, openai,
};
use spanferry::span::{Receiver, Source, Span};
use spanferry::support::json::raw::Raw;
use spanferry::support::keyring::Keyring;

use backend::{KeyState, OpenAiBackend, tree};
use daemon::Running;

const PYTHON: &str = "python-httpx2/2.16.2";
const JAVASCRIPT: &str = "Agents/JavaScript 0.20.0";

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn folder() -> PathBuf {
    fixtures::golden().join("agents-sdk")
}

fn golden_lines(name: &str) -> Vec<String> {
    let bytes = fs::read(folder().join("golden").join(name)).unwrap();
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

/// A captured request.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Captured {
    file: String,
    /// The relevant headers, with lowercase names.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Captured {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn batch(&self) -> spanferry::span::Batch {
        let body = std::str::from_utf8(&self.body).unwrap();
        batch(body, self.header("user-agent").unwrap(), "")
    }
}

/// Returns every request that a real SDK sent.
fn captured() -> Vec<Captured> {
    let mut found = Vec::new();
    for language in ["python", "js"] {
        for scenario in fs::read_dir(folder().join(language)).unwrap() {
            let scenario = scenario.unwrap().path();
            for file in fs::read_dir(&scenario).unwrap() {
                let file = file.unwrap().path();
                let name = file.to_str().unwrap().to_owned();
                let Some(stem) = name.strip_suffix(".body.json") else { continue };
                let sidecar = fs::read(format!("{stem}.headers.json")).unwrap();
                let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
                let pair = |pair: &Value| {
                    let text = |at: usize| pair[at].as_str().unwrap().to_owned();
                    (text(0).to_ascii_lowercase(), text(1))
                };
                let headers: Vec<_> =
                    sidecar["headers"].as_array().unwrap().iter().map(pair).collect();
                let keeps = |(name, _): &(String, String)| {
                    name == "authorization" || name == "user-agent" || name.starts_with("openai-")
                };
                let headers = headers.into_iter().filter(keeps).collect();
                found.push(Captured { file: name, headers, body: fs::read(file).unwrap() });
            }
        }
    }
    found.sort();
    assert!(60 <= found.len(), "{} requests", found.len());
    found
}

// === Through the daemon ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_golden_item_arrives_as_the_sdk_would_have_sent_it() {
    for (file, agent) in [
        ("golden_shared.jsonl.gz", PYTHON),
        ("golden_hostile_shared.jsonl.gz", PYTHON),
        ("golden_js_shared.jsonl", JAVASCRIPT),
    ] {
        let (dir, backend) = (tempfile::tempdir().unwrap(), OpenAiBackend::lenient());
        let endpoint = backend.listen().await;
        let daemon = Running::start(dir.path(), &format!("endpoint = {endpoint:?}")).await;
        let mut expected = BTreeMap::new();
        for line in golden_lines(file) {
            let case = Raw::parse(&line).unwrap();
            let item = case.get("input").map(|input| input.text().to_owned());
            let item = item.or_else(|| case.get_string("input_text").map(Into::into)).unwrap();
            let id = case.get_string("id").unwrap().into_owned();
            expected.insert(case.get_string("expected_text_sha256").unwrap().into_owned(), id);
            let headers = [("authorization", "Bearer sk-golden"), ("user-agent", agent)];
            daemon.ingest(&headers, format!("{{\"data\":[{item}]}}")).await;
        }
        let sink = daemon.settled().await;
        assert_eq!(sink["dead_lettered"], 0, "{sink}");
        let got: BTreeSet<String> = backend.items().iter().map(|item| sha256(item)).collect();
        let missing: Vec<_> = expected.iter().filter(|(hash, _)| !got.contains(*hash)).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
        assert_eq!(got.len(), expected.len(), "{file}");
        daemon.stop().await;
    }
}

/// Returns whether a rule of `src/sinks/openai/sanitize.rs` applies to an item, so that it may arrive in another form.
fn a_rule_speaks_of(item: &str) -> bool {
    let tree = tree(item);
    let data = &tree["span_data"];
    let has = |name: &str| data.get(name).is_some();
    100_000 < item.len()
        || has("usage")
        || (data["type"] == "response" && (has("input") || has("response")))
        || (data["type"] == "generation"
            && (item.contains("reasoning") || item.contains("thinking")))
        || tree["metadata"].as_object().is_some_and(|metadata| {
            tree["object"] == "trace" && metadata.values().any(|value| !value.is_string())
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_captured_traffic_arrives_once_with_its_callers_headers_and_untouched_bytes() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), OpenAiBackend::default());
    let endpoint = backend.listen().await;
    let daemon = Running::start(dir.path(), &format!("endpoint = {endpoint:?}")).await;
    let (mut sent, mut untouched) = (0, 0);
    let mut accounts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in captured() {
        let headers = &request.headers;
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        daemon.ingest(&headers, request.body.clone()).await;
        let account = ["authorization", "openai-organization", "openai-project"]
            .map(|name| request.header(name).map(str::to_owned));
        let batch = request.batch();
        for item in &batch.items {
            let text = std::str::from_utf8(item.wire()).unwrap();
            let id = Raw::parse(text).unwrap().get_string("id").unwrap().into_owned();
            accounts.entry(id).or_default().insert(format!("{account:?}"));
        }
        sent += batch.items.len();
    }
    let sink = daemon.settled().await;
    assert_eq!(sink["dead_lettered"], 0, "{sink} {:?}", backend.refused());
    assert_eq!(sink["delivered"], sent);
    let mut arrived = HashMap::new();
    for got in backend.got() {
        assert!(got.items.len() <= 128);
        let account = ["authorization", "openai-organization", "openai-project"]
            .map(|name| got.headers.get(name).cloned());
        for item in got.items {
            let id = Raw::parse(&item).unwrap().get_string("id").unwrap().into_owned();
            assert!(accounts[&id].contains(&format!("{account:?}")), "{id} {account:?}");
            *arrived.entry(item).or_insert(0_usize) += 1;
        }
    }
    assert_eq!(arrived.values().sum::<usize>(), sent, "nothing twice");
    for request in captured() {
        for item in &request.batch().items {
            let text = std::str::from_utf8(item.wire()).unwrap();
            if arrived.contains_key(text) {
                untouched += 1;
            } else {
                assert!(
                    is_deep(text) || a_rule_speaks_of(text),
                    "{}: {}",
                    request.file,
                    text.chars().take(300).collect::<String>()
                );
            }
        }
    }
    assert!(sent * 9 / 10 < untouched, "{untouched} of {sent}");
    daemon.stop().await;
}

fn is_deep(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_err()
}

fn batch(body: &str, agent: &str, key: &str) -> spanferry::span::Batch {
    let key_fingerprint = if key.is_empty() { String::new() } else { fingerprint(key) };
    let envelope = Envelope::new(
        Source {
            receiver: Receiver::OpenAi,
            received_at_ns: 0,
            tenant: String::new(),
            key_fingerprint,
            headers: vec![("user-agent".to_owned(), agent.to_owned())],
        },
        Encoding::Json,
        body.len(),
    );
    decode(&envelope, &Bytes::from(body.to_owned()), &Limits::default()).unwrap().batch
}

fn fingerprint(key: &str) -> String {
    sha256(key)[..16].to_owned()
}

/// Builds an item with a unique id.
fn span(trace: usize, number: usize, data: &Value) -> String {
    json!({
        "object": "trace.span", "id": format!("span_{number:024x}"),
        "trace_id": format!("trace_{trace:032x}"), "parent_id": null,
        "started_at": "2026-11-21T05:00:00.000001+00:00", "ended_at": "2026-11-21T05:00:01+00:00",
        "span_data": data, "error": null
    })
    .to_string()
}

fn function(trace: usize, number: usize) -> String {
    let data =
        json!({ "type": "function", "name": "f", "input": "i", "output": "o", "mcp_data": null });
    span(trace, number, &data)
}

fn body(items: &[String]) -> String {
    format!("{{\"data\":[{}]}}", items.join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_callers_interleaved_each_arrive_under_their_own_key() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), OpenAiBackend::default());
    let endpoint = backend.listen().await;
    let daemon = Running::start(dir.path(), &format!("endpoint = {endpoint:?}")).await;
    for round in 0..40 {
        let (key, organization) =
            [("Bearer sk-one", "org-1"), ("Bearer sk-two", "org-2")][round % 2];
        let headers =
            [("authorization", key), ("openai-organization", organization), ("user-agent", PYTHON)];
        daemon
            .ingest(
                &headers,
                body(&[function(round / 4, round * 2), function(round / 4, round * 2 + 1)]),
            )
            .await;
    }
    let sink = daemon.settled().await;
    assert_eq!(sink["delivered"], 80, "{sink}");
    for (at, key) in ["sk-one", "sk-two"].into_iter().enumerate() {
        let numbers: Vec<usize> = backend
            .items_of(key)
            .iter()
            .map(|item| {
                usize::from_str_radix(&tree(item)["id"].as_str().unwrap()[5..], 16).unwrap()
            })
            .collect();
        assert_eq!(numbers.len(), 40);
        assert!(numbers.iter().all(|number| number / 2 % 2 == at), "{key}: {numbers:?}");
    }
    for got in backend.got() {
        let is_one = got.headers["authorization"] == "Bearer sk-one";
        assert_eq!(got.headers["openai-organization"], if is_one { "org-1" } else { "org-2" });
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisation_without_data_retention_is_said_and_counted_and_not_asked_again() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), OpenAiBackend::default());
    let endpoint = backend.listen().await;
    backend.set_key("sk-zdr", KeyState::Zdr);
    let daemon = Running::start(dir.path(), &format!("endpoint = {endpoint:?}")).await;
    for round in 0..3 {
        for key in ["Bearer sk-zdr", "Bearer sk-good"] {
            let number = round * 2 + usize::from(key.ends_with("good"));
            daemon.ingest(&[("authorization", key)], body(&[function(number, number)])).await;
        }
        daemon.settled().await;
    }
    let sink = daemon.settled().await;
    assert_eq!((&sink["delivered"], &sink["dead_lettered"]), (&json!(3), &json!(3)), "{sink}");
    assert!(sink["problem"].as_str().unwrap().contains("zdr_forbidden"), "{sink}");
    let health = daemon.health().await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(backend.refused().len(), 1, "it is asked once");
    assert_eq!(backend.items_of("sk-good").len(), 3);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_leads_back_here_is_answered_with_a_clear_word_and_held() {
    // Through a relay, so that comparing addresses cannot reveal the loop.
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces/ingest", relay.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let daemon = Running::start(dir.path(), &format!("endpoint = {endpoint:?}")).await;
    let target = daemon.http;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = relay.accept().await {
            let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut near, &mut far).await.ok() },
            );
        }
    });
    daemon.ingest(&[("authorization", "Bearer sk-one")], body(&[function(1, 1)])).await;
    let sink = daemon.until("the lane holds", |sink| sink["state"] == "holding").await;
    assert!(sink["problem"].as_str().unwrap().contains("508"), "{sink}");
    assert_eq!(sink["accepted"], 1, "nothing went round");
}

// === Keys ===

/// Returns all files below a directory that contain a text.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if memchr::memmem::find(&fs::read(&path).unwrap(), text.as_bytes()).is_some() {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_items_wait_for_their_caller_and_keys_are_nowhere_on_disk_or_in_logs() {
    const KEYS: [&str; 2] = ["sk-first-caller-1f0c", "sk-second-caller-77ab"];
    let dir = tempfile::tempdir().unwrap();
    let place = process::Place::new(dir.path());
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let config = |endpoint: &str| process::Config {
        tables: format!(
            "[log]\nlevel = \"trace\"\n[sinks.openai]\ntype = \"openai\"\nendpoint = {endpoint:?}\nkey_wait = \"30s\"\n\
             batch = {{ age_max = \"20ms\" }}\nretry = {{ first = \"20ms\" }}\n"
        ),
        ..process::Config::default()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_spanferry"));
    // At first nothing listens there, so that everything stays in the journal.
    place.configure(&config("http://127.0.0.1:9/v1/traces/ingest")).unwrap();
    let first = process::Daemon::start(&place, place.command(program).unwrap()).await.unwrap();
    let send = async |key: &str, number: usize| {
        let key = format!("Bearer {key}");
        let headers = [("authorization", key.as_str()), ("user-agent", PYTHON)];
        let body = body(&[function(number, number)]);
        assert_eq!(daemon::post(place.http, "/v1/traces/ingest", &headers, body.into()).await, 204);
    };
    for number in 0..6 {
        send(KEYS[number % 2], number).await;
    }
    first.kill().unwrap();
    place.configure(&config(&endpoint)).unwrap();
    let second = process::Daemon::start(&place, place.command(program).unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(backend.items().is_empty(), "nothing goes out under another key");
    for (number, key) in KEYS.into_iter().enumerate() {
        send(key, 10 + number).await;
    }
    wait_for(|| backend.items().len() == 8).await;
    for key in KEYS {
        assert_eq!(backend.items_of(key).len(), 4, "{key}");
    }
    second.terminate(Duration::from_secs(30)).await.unwrap();
    for key in KEYS {
        assert!(!files_with(dir.path(), &fingerprint(key)).is_empty(), "the search finds things");
        assert_eq!(files_with(dir.path(), key), Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_is_not_heard_of_again_holds_up_nobody_and_goes_as_soon_as_it_is() {
    const ABSENT: &str = "sk-absent-5d02";
    const PRESENT: &str = "sk-present-11c9";
    const REQUESTS: usize = 60;
    let dir = tempfile::tempdir().unwrap();
    let options = |endpoint: &str| format!("endpoint = {endpoint:?}\nkey_wait = \"10m\"");
    let send = async |daemon: &Running, key: &str, numbers: std::ops::Range<usize>| {
        let key = format!("Bearer {key}");
        let headers = [("authorization", key.as_str()), ("user-agent", PYTHON)];
        for number in numbers {
            daemon.ingest(&headers, body(&[function(number, number)])).await;
        }
    };
    // At first nothing listens there, so that everything stays in the journal.
    let first = Running::start(dir.path(), &options("http://127.0.0.1:9/v1/traces/ingest")).await;
    send(&first, ABSENT, 0..REQUESTS).await;
    first.stop().await;
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    // Twice, since deferred items must also survive a second stop.
    for round in 1..3 {
        let daemon = Running::start(dir.path(), &options(&endpoint)).await;
        let numbers = round * REQUESTS..(round + 1) * REQUESTS;
        send(&daemon, PRESENT, numbers.clone()).await;
        let is_there = |number: usize| {
            let id = tree(&function(number, number))["id"].clone();
            backend.items_of(PRESENT).iter().any(|item| tree(item)["id"] == id)
        };
        wait_for(|| numbers.clone().all(is_there)).await;
        let sink = daemon.until("all of it waits", |sink| sink["deferred"] == REQUESTS).await;
        assert_eq!(sink["delivered"], 0, "the cursor stands before what waits");
        assert_eq!(backend.items_of(ABSENT).len(), 0);
        if round == 1 {
            daemon.stop().await;
            continue;
        }
        send(&daemon, ABSENT, REQUESTS * 3..REQUESTS * 3 + 1).await;
        let sink = daemon.settled().await;
        assert_eq!((&sink["deferred"], &sink["dead_lettered"]), (&json!(0), &json!(0)));
        assert_eq!(sink["delivered"], sink["accepted"]);
        daemon.stop().await;
    }
    let absent = backend.items_of(ABSENT);
    let ids: BTreeSet<_> = absent.iter().map(|item| tree(item)["id"].to_string()).collect();
    assert_eq!((absent.len(), ids.len()), (REQUESTS + 1, REQUESTS + 1), "none is missing or twice");
}

async fn wait_for(is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(40), "it did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// === The sink alone ===

/// Creates a sink with these options and these known keys.
fn sink(endpoint: &str, options: &str, keys: &[&str]) -> Arc<dyn Sink> {
    let keyring = Arc::new(Keyring::default());
    for key in keys {
        keyring.remember(&fingerprint(key), key);
    }
    plan(endpoint, options)
        .build(Parts { name: "test".to_owned(), keys: keyring, ..Parts::default() })
        .unwrap()
}

fn plan(endpoint: &str, options: &str) -> Box<dyn Plan> {
    let text = format!("endpoint = {endpoint:?}\n{options}");
    let table = toml::de::DeTable::parse(&text).unwrap();
    (openai::KIND.parse)(table).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn delivery(requests: &[(&str, &str)]) -> Delivery {
    let mut delivery = Delivery::default();
    for (key, body) in requests {
        let batch = Arc::new(batch(body, PYTHON, key));
        delivery.add(&batch, 0..batch.items.len());
    }
    delivery
}

fn one_item() -> Delivery {
    delivery(&[("sk-a", &body(&[function(1, 1)]))])
}

#[tokio::test]
async fn each_answer_has_its_outcome() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let sink = sink(&endpoint, "", &["sk-a"]);
    let none = String::new;
    backend.script([
        (429, Some(7), none()),
        (503, None, none()),
        (502, None, none()),
        (408, None, none()),
        (500, None, none()),
        (413, None, none()),
        (400, None, "what?".to_owned()),
        (404, None, none()),
        (301, None, none()),
        (200, None, "{}".to_owned()),
    ]);
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.push(sink.deliver(&one_item()).await);
    }
    let after = Some(Duration::from_secs(7));
    assert!(matches!(&outcomes[0].pace, Pace::Slow { after: found, .. } if *found == after));
    assert!(matches!(outcomes[1].pace, Pace::Slow { after: None, .. }), "{outcomes:?}");
    assert!(matches!(outcomes[2].pace, Pace::Down { .. }), "{outcomes:?}");
    assert!(matches!(outcomes[3].pace, Pace::Down { .. }), "{outcomes:?}");
    assert!(outcomes[4].is_refused(RejectClass::Fault), "{outcomes:?}");
    assert!(outcomes[5].is_refused(RejectClass::TooLarge), "{outcomes:?}");
    assert!(
        outcomes[6]
            .refusal()
            .is_some_and(|found| found.class == RejectClass::Malformed && found.answer == "what?")
    );
    assert!(matches!(outcomes[7].pace, Pace::Hold { .. }), "{outcomes:?}");
    assert!(matches!(outcomes[8].pace, Pace::Hold { .. }), "{outcomes:?}");
    assert_eq!(outcomes[9], Report::delivered());
}

#[tokio::test]
async fn one_poisoned_item_among_128_is_set_aside_and_others_are_mended() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let sink = sink(&endpoint, "", &["sk-a"]);
    let mut items: Vec<String> = (0..128).map(|number| function(1, number)).collect();
    items[77] = span(1, 77, &json!({ "type": "hologram", "secret": "payload" }));
    items[90] = span(
        1,
        90,
        &json!({ "type": "function", "name": "f", "input": "i", "output": "o", "surprise": 1 }),
    );
    items[3] = json!({ "object": "trace", "id": "trace_00000000000000000000000000000001", "workflow_name": "w",
        "group_id": null, "metadata": { "plain": "text", "nested": { "a": [1] } } })
    .to_string();
    let outcome = sink.deliver(&delivery(&[("sk-a", &body(&items))])).await;
    for place in 0..128 {
        match outcome.verdicts.of(place) {
            Verdict::Reject(refusal) if place == 77 => {
                let Refusal { reason, answer, .. } = &**refusal;
                assert!(reason.contains("invalid_value") && !reason.contains("hologram"));
                assert!(answer.contains("data[77].span_data.type"), "{answer}");
            }
            verdict => assert_eq!(*verdict, Verdict::Delivered, "{place}"),
        }
    }
    let got = backend.got();
    assert_eq!(got.len(), 1, "the others went in one request");
    let arrived = &got[0].items;
    assert_eq!(arrived.len(), 127);
    assert_eq!(tree(&arrived[3])["metadata"]["nested"], "{\"a\":[1]}");
    assert_eq!(tree(&arrived[89])["span_data"].get("surprise"), None);
    for (place, item) in items.iter().enumerate().filter(|(place, _)| ![3, 77, 90].contains(place))
    {
        assert_eq!(&arrived[place - usize::from(77 < place)], item, "untouched");
    }
}

#[tokio::test]
async fn requests_have_128_items_and_the_configured_size_at_most() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let items: Vec<String> = (0..300).map(|number| function(number, number)).collect();
    let body = body(&items);
    let sink_of_many = sink(&endpoint, "", &["sk-a"]);
    assert_eq!(sink_of_many.deliver(&delivery(&[("sk-a", &body)])).await, Report::delivered());
    let sizes: Vec<usize> = backend.got().iter().map(|got| got.items.len()).collect();
    assert_eq!(sizes, [128, 128, 44]);
    assert_eq!(backend.items(), items, "in order, byte for byte");
    let small = sink(&endpoint, "request_bytes_max = \"4KiB\"", &["sk-a"]);
    assert_eq!(small.deliver(&delivery(&[("sk-a", &body)])).await, Report::delivered());
    let later = backend.got().split_off(3);
    assert!(later.iter().all(|got| got.body.len() <= 4096));
    assert_eq!(later.iter().map(|got| got.items.len()).sum::<usize>(), 300);
    assert!(later.len() < 30, "requests are filled");
}

#[tokio::test]
async fn a_key_that_nobody_brings_costs_its_items_the_wait_and_others_nothing() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let sink = sink(&endpoint, "key_wait = \"1s\"", &["sk-a"]);
    let mixed = delivery(&[
        ("sk-gone", &body(&[function(1, 1)])),
        ("sk-a", &body(&[function(2, 2)])),
        ("", &body(&[function(3, 3)])),
    ]);
    let report = sink.deliver(&mixed).await;
    let Verdict::Defer(deferral) = report.verdicts.of(0) else { panic!("{report:?}") };
    assert_eq!(deferral.key, fingerprint("sk-gone"));
    assert!(deferral.reason.contains("unknown"), "{deferral:?}");
    assert_eq!(*report.verdicts.of(1), Verdict::Delivered);
    let Verdict::Reject(refusal) = report.verdicts.of(2) else { panic!("{report:?}") };
    assert!(refusal.reason.contains("without a key"), "{refusal:?}");
    assert_eq!(backend.items().len(), 1);
    wait_for(|| !sink.is_deferred(&deferral.key)).await;
    let again = sink.deliver(&delivery(&[("sk-gone", &body(&[function(4, 4)]))])).await;
    assert!(again.is_refused(RejectClass::Item), "the wait is over for all: {again:?}");
}

#[tokio::test]
async fn a_configured_key_stands_in_for_unknown_ones_or_goes_before_all() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let requests = [
        ("sk-gone", body(&[function(1, 1)])),
        ("sk-a", body(&[function(2, 2)])),
        ("", body(&[function(3, 3)])),
    ];
    let requests: Vec<_> = requests.iter().map(|(key, body)| (*key, body.as_str())).collect();
    let own = "api_key = \"sk-own\"\norganization = \"org-own\"\nproject = \"proj-own\"";
    let fallback = sink(&endpoint, own, &["sk-a"]);
    assert_eq!(fallback.deliver(&delivery(&requests)).await, Report::delivered());
    assert_eq!((backend.items_of("sk-own").len(), backend.items_of("sk-a").len()), (2, 1));
    let got = backend.got();
    let with_own = got.iter().find(|got| got.headers["authorization"] == "Bearer sk-own").unwrap();
    assert_eq!(with_own.headers["openai-organization"], "org-own");
    assert_eq!(with_own.headers["openai-project"], "proj-own");
    let first = sink(&endpoint, &format!("{own}\nprefer = \"configured\""), &["sk-a"]);
    assert_eq!(first.deliver(&delivery(&requests)).await, Report::delivered());
    assert_eq!((backend.items_of("sk-own").len(), backend.items_of("sk-a").len()), (5, 1));
}

#[tokio::test]
async fn a_refused_key_waits_alone_and_the_configured_one_holds_the_lane() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    backend.set_key("sk-bad", KeyState::Bad);
    let waiting = sink(&endpoint, "refused_key_wait = \"1s\"", &["sk-a", "sk-bad"]);
    let mixed =
        || delivery(&[("sk-bad", &body(&[function(1, 1)])), ("sk-a", &body(&[function(2, 2)]))]);
    let report = waiting.deliver(&mixed()).await;
    assert_eq!(backend.items_of("sk-a").len(), 1);
    let Verdict::Defer(deferral) = report.verdicts.of(0) else { panic!("{report:?}") };
    assert!(deferral.reason.contains("invalid_api_key"), "{deferral:?}");
    assert_eq!((report.verdicts.of(1), &report.pace), (&Verdict::Delivered, &Pace::Go));
    assert!(waiting.notice().unwrap().contains("401"), "{:?}", waiting.notice());
    wait_for(|| !waiting.is_deferred(&fingerprint("sk-bad"))).await;
    let report = waiting.deliver(&mixed()).await;
    let Verdict::Reject(refusal) = report.verdicts.of(0) else { panic!("{report:?}") };
    assert!(refusal.reason.contains("invalid_api_key"), "{refusal:?}");
    assert_eq!(backend.refused().len(), 1, "it is not asked again at once");
    backend.set_key("sk-own", KeyState::Bad);
    let own = sink(&endpoint, "api_key = \"sk-own\"", &[]);
    let outcome = own.deliver(&one_item()).await;
    assert!(
        matches!(&outcome.pace, Pace::Hold { reason } if !reason.contains("sk-")),
        "{outcome:?}"
    );
    backend.set_key("sk-own", KeyState::Good);
    assert_eq!(own.deliver(&one_item()).await, Report::delivered());
}

// === Spans from OTLP ===

#[tokio::test]
async fn spans_from_otlp_become_items_that_are_taken_with_one_trace_object_before_them() {
    let fixtures = fixtures::captured();
    let delivery = fixtures::delivery(&fixtures);
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let on = sink(&endpoint, "api_key = \"sk-own\"\nforward_otlp = true", &[]);
    assert_eq!(on.deliver(&delivery).await, Report::delivered(), "{:?}", backend.refused());
    assert_eq!(backend.refused(), [], "nothing had to be mended");
    let (mut traces, mut spans) = (BTreeSet::new(), 0);
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for item in backend.items() {
        let item = tree(&item);
        if item["object"] == "trace" {
            assert!(traces.insert(item["id"].as_str().unwrap().to_owned()), "{item}");
            continue;
        }
        spans += 1;
        assert!(
            traces.contains(item["trace_id"].as_str().unwrap()),
            "its trace came before: {item}"
        );
        *kinds.entry(item["span_data"]["type"].as_str().unwrap().to_owned()).or_default() += 1;
        let id = item["id"].as_str().unwrap();
        assert!(id.starts_with("span_"), "{id}");
    }
    assert_eq!(spans, delivery.len());
    for kind in ["agent", "generation", "function", "handoff", "guardrail", "custom"] {
        assert!(kinds.get(kind).is_some_and(|count| 0 < *count), "{kind}: {kinds:?}");
    }
    let before = backend.got().len();
    assert_eq!(on.deliver(&delivery).await, Report::delivered());
    let again = backend.got().split_off(before);
    let mut items = again.iter().flat_map(|got| &got.items);
    assert!(items.all(|item| tree(item)["object"] == "trace.span"), "a trace is announced once");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_from_otlp_are_filtered_unless_they_are_to_be_forwarded_whatever_rules_keep() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"a"}]}]}]}"#;
    let json = [("content-type", "application/json")];
    for (forwards, filtered) in [(false, 1), (true, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let options = format!(
            "endpoint = {endpoint:?}\napi_key = \"sk-own\"\nforward_otlp = {forwards}\nrules = [{{ keep = true }}]"
        );
        let daemon = Running::start(dir.path(), &options).await;
        assert_eq!(daemon::post(daemon.http, "/v1/traces", &json, body.into()).await, 200);
        let sink = daemon.settled().await;
        assert_eq!(
            (&sink["filtered"], &sink["delivered"]),
            (&filtered.into(), &(1 - filtered).into())
        );
        assert_eq!(backend.got().is_empty(), !forwards);
        daemon.stop().await;
    }
}

/// Encodes spans as OTLP and decodes them as such.
fn as_otlp<'a>(spans: impl IntoIterator<Item = &'a Span>) -> spanferry::span::Batch {
    let mut body = Vec::new();
    spanferry::span::otlp::protobuf::write_request(&mut body, spans);
    let source = Source { receiver: Receiver::OtlpHttp, ..Source::unknown() };
    let envelope = Envelope::new(source, Encoding::Protobuf, body.len());
    decode(&envelope, &Bytes::from(body), &Limits::default()).unwrap().batch
}

#[tokio::test]
async fn items_that_went_through_otlp_come_back_with_their_ids_types_and_facts() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let on = sink(&endpoint, "api_key = \"sk-own\"\nforward_otlp = true", &[]);
    let mut sent: BTreeMap<String, Value> = BTreeMap::new();
    for request in captured() {
        if !["p02_", "p03_", "p06_", "p08_", "p10_", "p18_", "p22_"]
            .iter()
            .any(|name| request.file.contains(name))
        {
            continue;
        }
        let agents_sdk = request.batch();
        for span in agents_sdk.spans() {
            let item = tree(std::str::from_utf8(&span.wire).unwrap());
            sent.insert(item["id"].as_str().unwrap().to_owned(), item);
        }
        let batch = Arc::new(as_otlp(agents_sdk.spans()));
        let mut delivery = Delivery::default();
        delivery.add(&batch, 0..batch.items.len());
        assert_eq!(on.deliver(&delivery).await, Report::delivered(), "{:?}", backend.refused());
    }
    let mut types = BTreeSet::new();
    let got: Vec<Value> = backend.items().iter().map(|item| tree(item)).collect();
    for item in got.iter().filter(|item| item["object"] == "trace.span") {
        let agents_sdk = &sent[item["id"].as_str().unwrap()];
        for name in ["trace_id", "parent_id"] {
            assert_eq!(item[name], agents_sdk[name], "{agents_sdk}");
        }
        let (data, of_agents_sdk) = (&item["span_data"], &agents_sdk["span_data"]);
        assert_eq!(data["type"], of_agents_sdk["type"], "{agents_sdk}");
        types.insert(data["type"].as_str().unwrap().to_owned());
        for name in [
            "name",
            "model",
            "response_id",
            "from_agent",
            "to_agent",
            "triggered",
            "server",
            "result",
            "tools",
            "handoffs",
            "output_type",
        ] {
            if of_agents_sdk.get(name).is_some_and(|value| !value.is_null()) {
                assert_eq!(data[name], of_agents_sdk[name], "{name} {agents_sdk}");
            }
        }
        assert_eq!(item["error"]["message"], agents_sdk["error"]["message"]);
    }
    assert_eq!(got.iter().filter(|item| item["object"] == "trace.span").count(), sent.len());
    for kind in [
        "agent",
        "custom",
        "function",
        "generation",
        "guardrail",
        "handoff",
        "mcp_tools",
        "response",
        "speech",
        "transcription",
    ] {
        assert!(types.contains(kind), "{kind}: {types:?}");
    }
}

#[tokio::test]
async fn ids_of_otlp_read_back_as_themselves() {
    let fixtures = fixtures::captured();
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    let on = sink(&endpoint, "api_key = \"sk-own\"\nforward_otlp = true", &[]);
    let delivery = fixtures::delivery(&fixtures);
    assert_eq!(on.deliver(&delivery).await, Report::delivered());
    let ids = |span: &Span| (span.trace_id, span.span_id, span.parent_id, span.start_ns / 1000);
    let mut expected: Vec<_> = delivery.spans().map(ids).collect();
    let bodies = backend.got();
    let batches: Vec<_> = bodies.iter().map(|got| batch(&got.body, PYTHON, "")).collect();
    let mut found: Vec<_> =
        batches.iter().flat_map(spanferry::span::Batch::spans).map(ids).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

// === Probes ===

#[tokio::test]
async fn a_probe_says_what_is_wrong_and_leaves_nothing_there() {
    let backend = OpenAiBackend::default();
    let endpoint = backend.listen().await;
    backend.set_key("sk-bad", KeyState::Bad);
    backend.set_key("sk-zdr", KeyState::Zdr);
    let probe = async |options: &str| plan(&endpoint, options).probe().unwrap().await;
    assert!(probe("api_key = \"sk-good\"").await.unwrap().contains("accepts `api_key`"));
    assert!(probe("").await.unwrap().contains("it answers"));
    assert!(probe("api_key = \"sk-bad\"").await.unwrap_err().contains("401"));
    assert!(probe("api_key = \"sk-zdr\"").await.unwrap_err().contains("zero data retention"));
    let nobody = plan("http://127.0.0.1:9/v1/traces/ingest", "").probe().unwrap().await;
    assert!(nobody.unwrap_err().contains("no connection"));
    assert!(backend.items().is_empty());
}
