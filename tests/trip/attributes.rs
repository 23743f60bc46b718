//! Attributes that only the user's configuration maps: a span without other attributes arrives with its facts, also when it is replayed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::World;
use super::process::Config;
use super::traffic::Client;

const TABLES: &str = r#"
[attributes]
session = ["acme.thread"]
input = ["acme.prompt", "acme.question"]
input_tokens = "acme.tokens.in"
output_tokens = "acme.tokens.out"
model = "acme.model"
kind."acme.step" = { planner = "agent", answer = "generation" }

[sinks.lines]
type = "file"
path = "lines.jsonl"
"#;

/// Builds a request with one span, which has these attributes.
pub(super) fn request(scope: &str, attributes: &[(&str, Value)]) -> Vec<u8> {
    let value = |value: &Value| match value {
        Value::Number(_) => json!({ "intValue": value }),
        _ => json!({ "stringValue": value }),
    };
    let attributes: Vec<_> =
        attributes.iter().map(|(key, said)| json!({ "key": key, "value": value(said) })).collect();
    let span = json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "step",
        "startTimeUnixNano": "1796000000000000000", "endTimeUnixNano": "1796000001000000000",
        "attributes": attributes,
    });
    let scopes = json!([{ "scope": { "name": scope }, "spans": [span] }]);
    json!({ "resourceSpans": [{ "scopeSpans": scopes }] }).to_string().into_bytes()
}

#[tokio::test]
async fn a_span_with_the_user_s_own_attributes_arrives_with_its_facts() {
    let world = World::new(TABLES).await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let body = request(
        "acme",
        &[
            ("acme.step", json!("answer")),
            ("acme.thread", json!("thread-7")),
            ("acme.question", json!("why?")),
            ("acme.tokens.in", json!(12)),
            ("acme.tokens.out", json!("3")),
            ("acme.model", json!("acme-1")),
        ],
    );
    assert_eq!(Client::new().post(&url, "application/json", "", body).await, 200);
    world.settled().await;
    let World { dir, daemon } = world;
    let config = daemon.place.config_file();
    daemon.terminate(super::process::START_MAX).await.unwrap().unwrap();
    check(&dir.path().join("lines.jsonl"), 1);

    // A replay without a daemon must read spans in the same way.
    let mut replay = Command::new(env!("CARGO_BIN_EXE_spanferry"));
    replay.current_dir(dir.path()).args(["replay", "--sink", "lines", "-c"]).arg(config);
    let output = replay.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&dir.path().join("lines.jsonl"), 2);
}

#[tokio::test]
async fn a_span_of_which_the_user_maps_any_attribute_counts_as_understood() {
    let world = World::new(TABLES).await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let body = request("acme", &[("acme.thread", json!("thread-7"))]);
    assert_eq!(Client::new().post(&url, "application/json", "", body).await, 200);
    world.settled().await;
    let text = fs::read_to_string(world.dir.path().join("lines.jsonl")).unwrap();
    // Spans are counted in the order of their arrival, so once this one is counted as unrecognized, the previous one was checked.
    let body = request("acme", &[("acme.other", json!("thread-7"))]);
    assert_eq!(Client::new().post(&url, "application/json", "", body).await, 200);
    let strange = || world.status()["understanding"]["without_convention"].clone();
    while strange() == 0 {
        tokio::time::sleep(super::process::POLL_EVERY).await;
    }
    assert_eq!(strange(), 1);
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["convention"], &line["kind"]), (&json!("configured"), &json!("custom")));
}

#[tokio::test]
async fn a_mapping_that_is_added_by_a_reload_holds_for_what_is_read_from_then_on() {
    let (mapping, sinks) = TABLES.split_once("[sinks").unwrap();
    let sinks = format!("[sinks{sinks}");
    let world = World::new(&sinks).await;
    let url = format!("http://{}/v1/traces", world.place().http);
    let mut conventions = Vec::new();
    for (tables, thread) in
        [(&sinks, "thread-1"), (&format!("{mapping}{sinks}"), "thread-2"), (&sinks, "thread-3")]
    {
        world.place().configure(&Config { tables: tables.clone(), ..Config::default() }).unwrap();
        let (status, answer) = world.place().command_over_http("/api/v1/reload").unwrap();
        assert_eq!(status, 200, "{answer}");
        assert!(answer.contains(r#""kept":["lines"]"#), "{answer}");
        let body = request("acme", &[("acme.thread", json!(thread))]);
        assert_eq!(Client::new().post(&url, "application/json", "", body).await, 200);
        world.settled().await;
        let text = fs::read_to_string(world.dir.path().join("lines.jsonl")).unwrap();
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        conventions.push(line["convention"].clone());
    }
    assert_eq!(conventions, ["generic", "configured", "generic"]);
}

fn check(file: &Path, count: usize) {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count);
    for line in lines {
        let facts: Vec<_> = ["kind", "session_id", "input", "input_tokens", "output_tokens"]
            .map(|column| line[column].to_string())
            .into();
        assert_eq!(facts, ["\"generation\"", "\"thread-7\"", "\"why?\"", "12", "3"], "{line}");
    }
}
