//! Everything that real SDKs were seen to send arrives, item by item, at every sink.

use http_body_util::BodyExt as _;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::World;

const SINKS: &str = r#"
[sinks.lines]
type = "file"
path = "lines.jsonl"

[sinks.otlp]
type = "file"
format = "otlp-json"
path = "otlp.jsonl"

[sinks.none]
type = "blackhole"
"#;

#[tokio::test]
async fn every_captured_request_arrives_in_every_sink() {
    let world = World::new(SINKS).await;
    let (sdk_items, otlp_spans) = send_captured(&world).await;
    world.settled().await;

    let status = world.status();
    for sink in status["sinks"].as_array().unwrap() {
        assert_eq!(sink["accepted"], sink["delivered"], "{sink}");
    }
    let lines = lines_of(&world.dir.path().join("lines.jsonl"));
    let accepted = status["journal"]["items"].as_u64().unwrap();
    let quarantined = status["journal"]["quarantined"].as_u64().unwrap();
    assert_eq!(lines.len() as u64, accepted);
    let agents_sdk = lines.iter().filter(|line| line["receiver"] == "openai").count() as u64;
    // Runs that two scenarios share byte for byte would be resends; these have none.
    assert_eq!(agents_sdk + quarantined, sdk_items);
    let in_lines: BTreeSet<_> = lines
        .iter()
        .filter(|line| line["receiver"] == "otlp_http")
        .map(|line| (text(&line["trace_id"]), text(&line["span_id"])))
        .collect();
    assert_eq!(in_lines, otlp_spans);
    let in_otlp: usize = lines_of(&world.dir.path().join("otlp.jsonl"))
        .iter()
        .map(|line| span_ids(line).len())
        .sum();
    assert_eq!(in_otlp, lines.iter().filter(|line| line["record"] == "span").count());
    assert_trees_are_whole(&lines);
}

/// Sends every captured request. Returns their number of Agents SDK items, and the ids of their OTLP spans.
pub(super) async fn send_captured(world: &World) -> (u64, BTreeSet<(String, String)>) {
    let client = Client::new();
    let mut sdk_items = 0;
    for body in bodies("agents-sdk", "body.json") {
        let sidecar = sidecar(&body, "headers.json");
        sdk_items += sidecar["items"].as_u64().unwrap();
        let url = format!("http://{}/v1/traces/ingest", world.place().http);
        assert_eq!(client.post(&url, "application/json", "", fs::read(&body).unwrap()).await, 204);
    }
    let mut otlp_spans = BTreeSet::new();
    for body in bodies("otlp", "decoded.json") {
        let decoded: Value = serde_json::from_slice(&fs::read(&body).unwrap()).unwrap();
        otlp_spans.extend(span_ids(&decoded));
        let sent = PathBuf::from(body.to_str().unwrap().strip_suffix(".decoded.json").unwrap());
        let name = sent.to_str().unwrap();
        let media =
            if name.contains(".json") { "application/json" } else { "application/x-protobuf" };
        let coding = match sent.extension().unwrap().to_str().unwrap() {
            "gz" => "gzip",
            "zz" => "deflate",
            _ => "",
        };
        let url = format!("http://{}/v1/traces", world.place().http);
        assert_eq!(client.post(&url, media, coding, fs::read(&sent).unwrap()).await, 200, "{name}");
    }
    (sdk_items, otlp_spans)
}

/// Asserts that within one capture, no span of the Agents SDK refers to a missing parent.
fn assert_trees_are_whole(lines: &[Value]) {
    let agents_sdk =
        lines.iter().filter(|line| line["receiver"] == "openai" && line["record"] == "span");
    let ids: BTreeSet<_> =
        agents_sdk.clone().map(|line| (text(&line["trace_id"]), text(&line["span_id"]))).collect();
    let dangling = agents_sdk
        .filter(|line| line.get("parent_span_id").is_some_and(Value::is_string))
        .filter(|line| !ids.contains(&(text(&line["trace_id"]), text(&line["parent_span_id"]))))
        .count();
    // The hand-made spans of every type name parents that were never sent.
    assert!(dangling <= 4, "{dangling} spans without their parents");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn span_ids(request: &Value) -> Vec<(String, String)> {
    let all = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let resources = all(request, "resourceSpans");
    let scopes = resources.iter().flat_map(|resource| all(resource, "scopeSpans"));
    scopes
        .flat_map(|scope| all(&scope, "spans"))
        .map(|span| (text(&span["traceId"]), text(&span["spanId"])))
        .collect()
}

fn lines_of(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sidecar(body: &Path, ending: &str) -> Value {
    let name = body.file_name().unwrap().to_str().unwrap();
    let sidecar = body.with_file_name(name.replace("body.json", ending));
    serde_json::from_slice(&fs::read(sidecar).unwrap()).unwrap()
}

/// Returns captured files below `tests/golden/`, by the end of their names, in order.
fn bodies(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder),
        ending,
        &mut found,
    );
    assert!(found.len() > 40, "the captures are not there");
    found.sort();
    found
}

fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, ending, found);
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
}

/// A plain HTTP client.
pub(super) struct Client(
    hyper_util::client::legacy::Client<
        hyper_util::client::legacy::connect::HttpConnector,
        http_body_util::Full<bytes::Bytes>,
    >,
);

impl Client {
    pub(super) fn new() -> Self {
        let executor = hyper_util::rt::TokioExecutor::new();
        Self(hyper_util::client::legacy::Client::builder(executor).build_http())
    }

    pub(super) async fn post(&self, url: &str, media: &str, coding: &str, body: Vec<u8>) -> u16 {
        let mut request = hyper::Request::post(url).header("content-type", media);
        if !coding.is_empty() {
            request = request.header("content-encoding", coding);
        }
        self.send(request.body(http_body_util::Full::from(body)).unwrap()).await
    }

    pub(super) async fn send(
        &self,
        request: hyper::Request<http_body_util::Full<bytes::Bytes>>,
    ) -> u16 {
        self.ask(request).await.0
    }

    /// Returns the status and the body of the answer.
    pub(super) async fn ask(
        &self,
        request: hyper::Request<http_body_util::Full<bytes::Bytes>>,
    ) -> (u16, Vec<u8>) {
        let answer = self.0.request(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.into_body().collect().await.unwrap().to_bytes().into())
    }
}
