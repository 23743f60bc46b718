//! The captured requests of the Agents SDKs, as sent, and an additional one with facts that no capture has: an end user and tags.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::World;
use super::servers::ask;

/// A request.
pub(crate) struct Captured {
    /// `<language>/<scenario>/<number>`.
    name: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// Returns all of them, in the order of their names.
pub(crate) fn requests() -> Vec<Captured> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/agents-sdk");
    let mut requests = Vec::new();
    for folder in
        ["python", "js"].map(|language| root.join(language)).iter().flat_map(|path| list(path))
    {
        requests.extend(list(&folder).filter_map(|path| read(&root, &path)));
    }
    assert!(requests.len() > 50, "the captures are not there");
    requests.push(tagged());
    requests.sort_by(|one, other| one.name.cmp(&other.name));
    requests
}

fn list(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

fn read(root: &Path, path: &Path) -> Option<Captured> {
    let stem = path.to_str()?.strip_suffix(".body.json")?;
    let sidecar: Value =
        serde_json::from_slice(&fs::read(format!("{stem}.headers.json")).unwrap()).unwrap();
    let headers = sidecar["headers"].as_array()?.iter();
    let headers = headers.map(|pair| {
        (pair[0].as_str().unwrap().to_lowercase(), pair[1].as_str().unwrap().to_owned())
    });
    // Headers of the connection, not of the request.
    let own = ["host", "connection", "content-length", "transfer-encoding", "accept-encoding"];
    Some(Captured {
        name: Path::new(stem).strip_prefix(root).unwrap().display().to_string(),
        headers: headers.filter(|(name, _)| !own.contains(&name.as_str())).collect(),
        body: fs::read(path).unwrap().into(),
    })
}

/// Builds a run for a known user, with tags, in metadata with commonly used names.
fn tagged() -> Captured {
    let trace = "trace_5eed5eed5eed5eed5eed5eed5eed5eed";
    let span = |id: &str, parent: Value, data: Value| {
        json!({
            "object": "trace.span", "id": id, "trace_id": trace, "parent_id": parent,
            "started_at": "2026-11-21T05:00:00.000000+00:00", "ended_at": "2026-11-21T05:00:01.500000+00:00",
            "span_data": data, "error": null,
        })
    };
    let usage = json!({"input_tokens": 1200, "output_tokens": 300, "total_tokens": 1500,
        "input_tokens_details": {"cached_tokens": 1000}, "output_tokens_details": {"reasoning_tokens": 100}});
    let task = json!({"type": "custom", "name": "task",
        "data": {"sdk_span_type": "task", "name": "Tagged", "usage": usage}});
    let agent = json!({"type": "agent", "name": "Tagger", "handoffs": [], "tools": ["look_up"], "output_type": "str"});
    let generation = json!({"type": "generation", "model": "gpt-4.1", "model_config": {},
        "input": [{"role": "user", "content": "Hello"}],
        "output": [{"role": "assistant", "content": "Hello to you"}], "usage": usage});
    let body = json!({"data": [
        {"object": "trace", "id": trace, "workflow_name": "Tagged", "group_id": "thread_tagged",
         "metadata": {"user_id": "user_tagged", "tags": ["beta", "eu"]}},
        span("span_000000000000000000000001", Value::Null, task),
        span("span_000000000000000000000002", "span_000000000000000000000001".into(), agent),
        span("span_000000000000000000000003", "span_000000000000000000000002".into(), generation),
    ]});
    Captured {
        name: "tagged".to_owned(),
        headers: [("content-type", "application/json"), ("authorization", "Bearer sk-tagged")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        body: body.to_string().into(),
    }
}

impl Captured {
    /// Sends it unchanged.
    pub(crate) async fn send(&self, world: &World) {
        let url = format!("http://{}/v1/traces/ingest", world.place().http);
        let mut request = Request::post(url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (status, _) = ask(request.body(Full::from(self.body.clone())).unwrap()).await;
        assert_eq!(status, 204, "{}", self.name);
    }

    /// Returns its trace objects and spans.
    pub(crate) fn items(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        let body = parse(text).or_else(|_| parse(&strict(text)).map(finite));
        let body = body.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        body["data"].as_array().unwrap().clone()
    }
}

/// Replaces half of a surrogate pair.
const LONE: char = '?';

/// Stands for NaN and infinities until they are removed.
const NO_NUMBER: &str = "no number";

/// Parses without a depth limit: spans nest deeper than the parser's default allows.
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    Value::deserialize(&mut reader)
}

/// Makes valid JSON of what old SDKs send, which can contain NaN, infinities, and halves of surrogate pairs.
fn strict(text: &str) -> String {
    let no_number = |text: String, number| text.replace(number, &format!("{NO_NUMBER:?}"));
    let text = ["NaN", "-Infinity", "Infinity"].into_iter().fold(text.to_owned(), no_number);
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("\\ud") {
        let (before, escape) = (&rest[..at], &rest[at..at + 6]);
        out.push_str(before);
        rest = &rest[at + 6..];
        // An odd number of backslashes before it escapes it: it is plain text.
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        let is_text = backslashes % 2 == 1;
        let is_high = matches!(&escape[3..4], "8" | "9" | "a" | "b");
        if is_text {
            out.push_str(escape);
        } else if is_high && rest.starts_with("\\ud") {
            out.push_str(escape);
            out.push_str(&rest[..6]);
            rest = &rest[6..];
        } else {
            out.push(LONE);
        }
    }
    out + rest
}

/// Removes the stand-ins for NaN and infinities, as newer SDKs do before they send.
fn finite(value: Value) -> Value {
    match value {
        Value::Array(elements) => {
            elements.into_iter().filter(|element| element != NO_NUMBER).map(finite).collect()
        }
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, member)| member != NO_NUMBER);
            Value::Object(kept.map(|(name, member)| (name, finite(member))).collect())
        }
        other => other,
    }
}
