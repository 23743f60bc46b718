//! Real traffic becomes lines: every captured request goes through the file sink, and the file is compared with the requests, with the
//! schema's page, and with SQLite's results.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests may panic, and read the environment"
)]

#[path = "../fixtures/check.rs"]
mod check;
#[path = "../opt_in.rs"]
mod opt_in;
mod look;
mod metrics;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use check::check_golden;
use serde::Deserialize as _;
use serde_json::Value;
use spanferry::normalize::{Coding, Encoding, Envelope, Limits, decode, inflate};
use spanferry::sinks::{Delivery, KINDS, Pace, Parts, Report};
use spanferry::span::{Batch, Item, Receiver, Source};
use spanferry::support::json::write_compact;
use tempfile::TempDir;
use toml::de::DeTable;

/// 2026-11-21T05:15:09Z.
const RECEIVED_AT_NS: u64 = 1_795_238_109_000_000_000;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Decodes every captured request below a folder.
fn batches(folder: &str) -> Vec<Arc<Batch>> {
    let mut paths = Vec::new();
    walk(&golden(folder), &mut paths);
    paths.sort();
    let batches: Vec<_> = paths.iter().filter_map(|path| batch(path)).collect();
    assert!(!batches.is_empty(), "no traffic in {folder}");
    batches
}

fn batch(path: &Path) -> Option<Arc<Batch>> {
    let text = path.to_str().unwrap();
    let sidecar = match text.strip_suffix(".body.json") {
        Some(stem) => format!("{stem}.headers.json"),
        None => format!("{text}.headers.json"),
    };
    if !text.contains("_traces.") && !text.ends_with(".body.json") {
        return None;
    }
    let sidecar: Value = serde_json::from_slice(&fs::read(sidecar).ok()?).unwrap();
    let header = |name: &str| {
        let headers = sidecar["headers"].as_array().unwrap().iter();
        let mut headers =
            headers.map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    };
    let is_json = header("content-type").starts_with("application/json");
    let is_agents_sdk = sidecar["path"] == "/v1/traces/ingest";
    let envelope = Envelope::new(
        Source {
            receiver: if is_agents_sdk { Receiver::OpenAi } else { Receiver::OtlpHttp },
            received_at_ns: RECEIVED_AT_NS,
            headers: vec![("user-agent".to_owned(), header("user-agent").to_owned())],
            ..Source::unknown()
        },
        if is_json { Encoding::Json } else { Encoding::Protobuf },
        0,
    );
    let coding = Coding::from_header(header("content-encoding")).unwrap();
    let body = inflate(coding, Bytes::from(fs::read(path).unwrap()), usize::MAX).unwrap();
    let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
    Some(Arc::new(decoded.batch))
}

fn delivery(batches: &[Arc<Batch>]) -> Delivery {
    let mut delivery = Delivery::default();
    for batch in batches {
        delivery.add(batch, 0..batch.items.len());
    }
    delivery
}

/// Writes a delivery through a file sink with these options.
fn written(options: &str, delivery: &Delivery) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("traces.jsonl");
    let kind = KINDS.iter().find(|kind| kind.name == "file").unwrap();
    let options = format!("path = \"{}\"\n{options}", path.display());
    let plan = (kind.parse)(DeTable::parse(&options).unwrap()).unwrap();
    let parts = Parts { name: "archive".to_owned(), ..Parts::default() };
    let sink = plan.build(parts).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert_eq!(sink.deliver(delivery).await.pace, Pace::Checkpoint);
        sink.checkpoint().await.unwrap();
        assert_eq!(sink.deliver(delivery).await, Report::delivered());
    });
    (dir, path)
}

fn lines(options: &str, delivery: &Delivery) -> String {
    let (_dir, path) = written(options, delivery);
    fs::read_to_string(path).unwrap()
}

fn parse(line: &str) -> Value {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    // Attributes may be nested more deeply than serde_json's default allows.
    deserializer.disable_recursion_limit();
    Value::deserialize(&mut deserializer).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// Returns columns and types according to the schema's page.
fn columns() -> BTreeMap<&'static str, &'static str> {
    let page = include_str!("../../src/sinks/jsonl/columns.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let columns = rows.map(|row| {
        let (column, rest) = row.split_once("` | ").unwrap();
        (column, rest.split_once(" |").unwrap().0)
    });
    columns.collect()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn every_item_of_real_traffic_is_a_line_and_every_column_has_its_type() {
    let columns = columns();
    for folder in ["agents-sdk", "otlp"] {
        let delivery = delivery(&batches(folder));
        let text = lines("", &delivery);
        assert_eq!(text.lines().count(), delivery.len(), "{folder}");
        for line in text.lines() {
            for (name, value) in parse(line).as_object().unwrap() {
                assert_eq!(columns.get(name.as_str()), Some(&type_of(value)), "{name} in {line}");
            }
        }
    }
}

#[test]
fn items_of_the_agents_sdk_are_kept_whole_in_both_formats() {
    let delivery = delivery(&batches("agents-sdk"));
    let (columns, verbatim) = (lines("", &delivery), lines("format = \"openai\"", &delivery));
    assert_eq!(verbatim.lines().count(), delivery.len());
    for (((_, item), line), agents_sdk) in
        delivery.items().zip(columns.lines()).zip(verbatim.lines())
    {
        let mut compact = Vec::new();
        write_compact(&mut compact, item.wire());
        let compact = String::from_utf8(compact).unwrap();
        assert_eq!(agents_sdk, compact);
        assert_eq!(parse(line)["openai_item"].as_str().map(parse), Some(parse(&compact)));
    }
}

/// Returns the OTLP contents of the spans, in order.
fn details(batches: &[Arc<Batch>]) -> Vec<String> {
    let spans = batches.iter().flat_map(|batch| &batch.items).filter_map(Item::as_span);
    let texts = spans.map(|span| {
        let ids = (span.trace_id, span.span_id, span.parent_id, span.start_ns, span.end_ns);
        let (resource, scope) = (&span.scope.resource, &span.scope);
        format!("{ids:?} {:?} {:?} {:?}", span.detail(), resource.attributes, scope.name)
    });
    texts.collect()
}

#[test]
fn otlp_lines_are_read_back_with_nothing_missing() {
    // The folder also has Agents SDK runs, for comparison; their own ids travel as attributes.
    let mut sent = batches("otlp");
    sent.retain(|batch| batch.source.receiver != Receiver::OpenAi);
    let text = lines("format = \"otlp-json\"", &delivery(&sent));
    let envelope = Envelope::new(Source::unknown(), Encoding::Json, 0);
    let read = text.lines().map(|line| {
        let body = Bytes::copy_from_slice(line.as_bytes());
        Arc::new(decode(&envelope, &body, &Limits::default()).unwrap().batch)
    });
    let (mut read, mut sent) = (details(&read.collect::<Vec<_>>()), details(&sent));
    // Spans of one resource and scope are grouped.
    read.sort();
    sent.sort();
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(read, sent);
    }
}

/// One run each of the Agents SDK, of the Agents SDK with chat completions, and through two bridges.
const GOLDENS: [(&str, &str); 3] = [
    ("sinks/p02_handoff_chain.jsonl", "agents-sdk/python/p02_handoff_chain"),
    ("sinks/p10_chat_completions.jsonl", "agents-sdk/python/p10_chat_completions"),
    ("sinks/openinference-openai.jsonl", "otlp/openinference-openai"),
];

#[test]
fn a_run_has_the_lines_of_its_golden() {
    for (name, folder) in GOLDENS {
        check_golden(name, &lines("", &delivery(&batches(folder))));
    }
}

/// Counts and sums by kind, computed with SQLite's JSON functions.
const SQLITE: &str = r"
import json, sqlite3, sys
base = sqlite3.connect(':memory:')
base.execute('create table raw (line text)')
with open(sys.argv[1], encoding='utf-8', newline='\n') as lines:
    base.executemany('insert into raw values (?)', ((line,) for line in lines))
print(json.dumps(base.execute('''
    select line ->> '$.kind', count(*), sum(line ->> '$.input_tokens'), max(line ->> '$.end_time_unix_nano'),
        sum(json_type(line, '$.attributes') = 'object'),
        sum(json_valid(line ->> '$.input')) filter (where line ->> '$.input_is_json')
    from raw where line ->> '$.record' = 'span' group by 1 order by 1''').fetchall()))
";

#[test]
fn sqlite_reads_the_file() {
    let python = |arguments: &[&str]| {
        Command::new("python3").args(arguments).stderr(Stdio::null()).output().ok()
    };
    let probe = "import sqlite3; sqlite3.connect(':memory:').execute(\"select '{}' ->> '$.a'\")";
    if !python(&["-c", probe]).is_some_and(|output| output.status.success()) {
        opt_in::skip("SQLite (it takes python3 with an SQLite of 3.38 or later)");
        return;
    }
    let mut all = batches("agents-sdk");
    all.extend(batches("otlp"));
    let (_dir, path) = written("", &delivery(&all));
    let output = python(&["-c", SQLITE, path.to_str().unwrap()]).unwrap();
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut expected: BTreeMap<String, [Option<u64>; 5]> = BTreeMap::new();
    for line in fs::read_to_string(&path).unwrap().lines().map(parse) {
        let Some(kind) = line["kind"].as_str() else { continue };
        let [count, tokens, end, attributes, json] = expected.entry(kind.to_owned()).or_default();
        *count = Some(count.unwrap_or(0) + 1);
        if let Some(input) = line["input_tokens"].as_u64() {
            *tokens = Some(tokens.unwrap_or(0) + input);
        }
        *end = (*end).max(line["end_time_unix_nano"].as_u64());
        if line["attributes"].is_object() {
            *attributes = Some(attributes.unwrap_or(0) + 1);
        }
        if line["input_is_json"] == true {
            *json = Some(json.unwrap_or(0) + 1);
        }
    }
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(kind, [count, tokens, end, attributes, json])| {
            serde_json::json!([kind, count, tokens, end, attributes, json])
        })
        .collect();
    assert_eq!(seen, Value::from(expected));
}

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
