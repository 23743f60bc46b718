//! Compares what OpenAI would receive with what the Agents SDK itself sends.

use std::fmt::Write as _;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::edit::Origin;
use super::sanitize::write_item;
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::sinks::http;
use crate::span::{Batch, Receiver, Source};
use crate::support::golden;
use crate::support::json::raw::Raw;

const PYTHON_AGENT: &str = "python-httpx2/2.16.2";
const JAVASCRIPT_AGENT: &str = "Agents/JavaScript 0.20.0";

/// Decodes a request of the ingest format.
pub(super) fn batch(body: &str, agent: &str, fingerprint: &str) -> Batch {
    let source = Source {
        receiver: Receiver::OpenAi,
        received_at_ns: 0,
        tenant: String::new(),
        key_fingerprint: fingerprint.to_owned(),
        headers: vec![("user-agent".to_owned(), agent.to_owned())],
    };
    let envelope = Envelope::new(source, Encoding::Json, body.len());
    decode(&envelope, &Bytes::from(body.to_owned()), &Limits::default()).unwrap().batch
}

fn sanitized(item: &str, agent: &str) -> String {
    let batch = batch(&format!("{{\"data\":[{item}]}}"), agent, "");
    let mut out = Vec::new();
    let wire = std::str::from_utf8(batch.items[0].wire()).unwrap();
    write_item(&mut out, wire, Origin::of(&batch.source));
    String::from_utf8(out).unwrap()
}

fn lines(name: &str) -> Vec<String> {
    let bytes = golden::read(&format!("agents-sdk/golden/{name}"));
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    text.lines().map(str::to_owned).collect()
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn every_item_becomes_what_the_sdk_sends() {
    for (name, agent, count) in [
        ("golden_shared.jsonl.gz", PYTHON_AGENT, 74),
        ("golden_hostile_shared.jsonl.gz", PYTHON_AGENT, 10),
        ("golden_js_shared.jsonl", JAVASCRIPT_AGENT, 14),
    ] {
        let lines = lines(name);
        assert_eq!(lines.len(), count);
        for line in lines {
            // The literal text of `input`, since numbers and the order of names matter.
            let case = Raw::parse(&line).unwrap();
            let item = case.get("input").map(|input| input.text().to_owned());
            let item = item.or_else(|| case.get_string("input_text").map(Into::into)).unwrap();
            let id = case.get_string("id").unwrap();
            let found = sanitized(&item, agent);
            if sha256(&found) != *case.get_string("expected_text_sha256").unwrap() {
                let expected: Value =
                    serde_json::from_str(case.get("expected").unwrap().text()).unwrap();
                let shown: String = found.chars().take(2_000).collect();
                let expected: String = expected.to_string().chars().take(2_000).collect();
                panic!("{id} {}\n{shown}\n{expected}", case.get_string("note").unwrap());
            }
            assert_eq!(sanitized(&found, agent), found, "{id}: again it changes nothing");
        }
    }
}

#[test]
fn captured_items_are_copied_byte_for_byte_unless_a_rule_speaks_of_them() {
    let (mut copied, mut changed) = (0, 0);
    for fixture in golden::fixtures("agents-sdk") {
        if fixture.name.contains("hostile") {
            continue;
        }
        let agent = fixture.header("user-agent").unwrap();
        let batch = batch(std::str::from_utf8(&fixture.body).unwrap(), agent, "");
        for item in &batch.items {
            let wire = std::str::from_utf8(item.wire()).unwrap();
            let mut out = Vec::new();
            write_item(&mut out, wire, Origin::of(&batch.source));
            if out == wire.as_bytes() {
                copied += 1;
                continue;
            }
            changed += 1;
            let data = &serde_json::from_str::<Value>(wire).unwrap()["span_data"];
            let is_large = wire.len() > 100_000;
            let is_extended = data["type"] == "response" && data.get("response").is_some();
            let has_usage = data.get("usage").is_some();
            let had_half_a_pair = memchr::memmem::find(&fixture.body, b"\\ud83d").is_some();
            let has_reasoning = wire.contains("reasoning");
            assert!(
                is_large || is_extended || has_usage || had_half_a_pair || has_reasoning,
                "{}: {}",
                fixture.name,
                wire.chars().take(200).collect::<String>()
            );
        }
    }
    assert!(copied > 2_000 && changed > 40, "{copied} copied, {changed} changed");
}

#[test]
fn mistakes_in_options_are_said_with_what_mends_them() {
    let parse = |text: &str| {
        crate::sinks::read_options(toml::de::DeTable::parse(text).unwrap(), super::Options::check)
    };
    for (text, option) in [
        ("endpoint = \"https://api.openai.com\"", "\"https://api.openai.com\""),
        ("endpoint = \"ftp://a/b\"", "\"ftp://a/b\""),
        ("endpoint = \"https://me:you@a/b\"", "\"https://me:you@a/b\""),
        ("prefer = \"configured\"", "\"configured\""),
        ("forward_otlp = true", "true"),
        ("api_key = \" \"", "\" \""),
        ("organization = \"org\"", "\"org\""),
        ("api_key = \"sk-1\"\nproject = \"\"", "\"\""),
        ("timeout = \"0s\"", "\"0s\""),
        ("request_bytes_max = \"10B\"", "\"10B\""),
        ("colour = \"blue\"", "colour"),
    ] {
        let problems = parse(text).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert_eq!(text.get(problems[0].at.clone().unwrap()), Some(option), "{text}");
        assert!(problems[0].hint.is_some() || option == "colour", "{text}");
    }
    for (text, endpoint) in [
        ("api_key = \"sk-hush\"\nproject = \"p\"", "\"https://api.openai.com/v1/traces/ingest\""),
        (
            "api_key = \"sk-hush\"\nendpoint = \"https://a/b?key=hush\"",
            "\"https://a/b?[redacted]\"",
        ),
    ] {
        let options = parse(text).unwrap();
        let shown = http::shown(&options).to_string();
        assert!(shown.contains(endpoint), "{shown}");
        assert!(!format!("{shown} {options:?}").contains("hush"), "{shown} {options:?}");
    }
}
