//! The expected contents of the documents, read from the captured requests without any of the daemon's code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

/// A captured Agents SDK request.
pub(super) struct Captured {
    /// `<language>/<scenario>/<file>`.
    pub(super) name: String,
    pub(super) body: Vec<u8>,
}

/// The contents of a set of requests.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// By span id.
    pub(super) spans: BTreeMap<String, Span>,
    /// By trace id, including traces without spans.
    pub(super) traces: BTreeMap<String, Trace>,
}

/// A span as sent by its client.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace: String,
    pub(super) parent: Option<String>,
    /// `span_data`.
    pub(super) data: Value,
    pub(super) failed: bool,
    /// Whether it failed, and its run did not go on.
    pub(super) fatal: bool,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

/// A trace object as sent by its client.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) workflow: Option<String>,
    pub(super) group: Option<String>,
    pub(super) metadata: Value,
}

/// Returns every captured request of the Agents SDK, in order.
pub(super) fn captured() -> Vec<Captured> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/agents-sdk");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 60, "the captures are not there");
    let read = |path: PathBuf| Captured {
        name: path.strip_prefix(&root).unwrap().display().to_string(),
        body: fs::read(path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.to_str().unwrap().ends_with(".body.json") {
            found.push(path);
        }
    }
}

impl Truth {
    /// Reads these requests.
    pub(super) fn of<'a>(requests: impl IntoIterator<Item = &'a Captured>) -> Self {
        let mut truth = Self::default();
        for request in requests {
            let body = read(&request.body);
            for item in body["data"].as_array().unwrap() {
                truth.add(item, &request.name);
            }
        }
        truth
    }

    fn add(&mut self, item: &Value, name: &str) {
        let text = |key: &str| item[key].as_str().map(str::to_owned);
        let id = text("id").unwrap();
        if item["object"] == "trace" {
            let metadata = item["metadata"].clone();
            let trace =
                Trace { workflow: text("workflow_name"), group: text("group_id"), metadata };
            assert!(self.traces.insert(id, trace).is_none(), "{name}: a trace twice");
            return;
        }
        let time = |key: &str| text(key).unwrap().parse().unwrap();
        let message = item["error"]["message"].as_str().unwrap_or_default();
        let goes_on = message.contains("(non-fatal)") || message.starts_with("Multiple handoffs");
        let span = Span {
            trace: text("trace_id").unwrap(),
            parent: text("parent_id"),
            data: item["span_data"].clone(),
            failed: !item["error"].is_null(),
            fatal: !item["error"].is_null() && !goes_on,
            start: time("started_at"),
            end: time("ended_at"),
        };
        assert!(self.spans.insert(id, span).is_none(), "{name}: a span twice");
    }

    /// Returns the spans of a trace.
    pub(super) fn of_trace(&self, trace: &str) -> Vec<&Span> {
        self.spans.values().filter(|span| span.trace == trace).collect()
    }

    /// Returns the name of the nearest agent at or above a span.
    pub(super) fn agent(&self, span: &Span) -> Option<String> {
        let mut at = Some(span);
        while let Some(span) = at {
            if span.kind() == "agent" {
                return span.text("name");
            }
            at = span.parent.as_ref().and_then(|parent| self.spans.get(parent));
        }
        None
    }

    /// Returns a span's parent.
    fn parent(&self, span: &Span) -> Option<&Span> {
        self.spans.get(span.parent.as_ref()?)
    }

    /// Returns a span's ancestors, nearest first.
    fn above<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Span> {
        std::iter::successors(self.parent(span), |span| self.parent(span))
    }

    /// Returns the number of a span's ancestors, including Spanferry's root if there is one.
    pub(super) fn depth(&self, span: &Span, roots: &BTreeSet<&str>) -> u64 {
        self.above(span).count() as u64 + u64::from(roots.contains(&*span.trace))
    }

    /// Returns a trace's tokens in and out.
    pub(super) fn tokens_of_trace(&self, trace: &str) -> (u64, u64) {
        let tokens = self.of_trace(trace).into_iter().map(|span| self.tokens(span));
        tokens.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Returns the tokens in and out that count: those of a model call, and those of an outermost task without any below it.
    pub(super) fn tokens(&self, span: &Span) -> (u64, u64) {
        if !span.is_task() || self.above(span).any(Span::is_task) {
            return span.tokens();
        }
        let is_below = |other: &Span| self.above(other).any(|above| std::ptr::eq(above, span));
        let mut calls = self.spans.values().filter(|other| other.trace == span.trace);
        if calls.any(|other| other.tokens() != (0, 0) && is_below(other)) {
            return (0, 0);
        }
        tokens(&span.data["data"]["usage"])
    }

    /// Returns the names of a trace's agents.
    pub(super) fn agents(&self, trace: &str) -> BTreeSet<String> {
        self.of_trace(trace).into_iter().filter_map(|span| self.agent(span)).collect()
    }

    /// Returns traces with a root of Spanferry's own: all but those whose only parentless span is a task.
    pub(super) fn traces_with_roots(&self) -> BTreeSet<&str> {
        let (mut tasks, mut roots) = (BTreeSet::new(), BTreeSet::new());
        for span in self.spans.values().filter(|span| span.parent.is_none()) {
            if !span.is_task() || !tasks.insert(&*span.trace) {
                roots.insert(&*span.trace);
            }
        }
        roots
    }
}

impl Span {
    /// Returns the SDK's type.
    pub(super) fn kind(&self) -> &str {
        self.data["type"].as_str().unwrap()
    }

    /// Returns a text of `span_data`.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.data[key].as_str().map(str::to_owned)
    }

    fn is_task(&self) -> bool {
        self.data["data"]["sdk_span_type"] == "task"
    }

    /// Returns a model call's tokens in and out, from next to its answer or from inside it.
    fn tokens(&self) -> (u64, u64) {
        if !["generation", "response", "speech", "transcription"].contains(&self.kind()) {
            return (0, 0);
        }
        let places = ["/usage", "/response/usage", "/output/0/usage"];
        let said = places.iter().filter_map(|place| self.data.pointer(place));
        said.map(tokens).find(|tokens| *tokens != (0, 0)).unwrap_or_default()
    }

    /// Returns the time from start to end, in milliseconds.
    pub(super) fn duration_ms(&self) -> f64 {
        milliseconds(self.start, self.end)
    }
}

/// Returns the time from the first start to the last end, in milliseconds.
pub(super) fn duration_ms(spans: &[&Span]) -> f64 {
    let start = spans.iter().map(|span| span.start).min();
    let end = spans.iter().map(|span| span.end).max();
    start.zip(end).map_or(0.0, |(start, end)| milliseconds(start, end))
}

fn milliseconds(start: Timestamp, end: Timestamp) -> f64 {
    (end.duration_since(start).as_secs_f64() * 1000.0).max(0.0)
}

fn tokens(usage: &Value) -> (u64, u64) {
    let count =
        |names: [&str; 2]| names.iter().find_map(|name| usage[*name].as_u64()).unwrap_or_default();
    (count(["input_tokens", "prompt_tokens"]), count(["output_tokens", "completion_tokens"]))
}

// === Invalid JSON from real SDKs ===

fn read(body: &[u8]) -> Value {
    let text = std::str::from_utf8(body).unwrap();
    parse(text).unwrap_or_else(|_| parse(&mended(text)).unwrap())
}

/// Parses without a depth limit: a capture has 400 levels.
fn parse(text: &str) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    Value::deserialize(&mut reader)
}

/// Replaces NaN and infinities by null, and the unpaired surrogate in the captures by a question mark.
fn mended(text: &str) -> String {
    const HALF: &str = "\\ud83d";
    let text = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
    let mut parts = text.split(HALF);
    let mut mended = parts.next().unwrap().to_owned();
    for part in parts {
        let is_text = mended.ends_with('\\') || part.starts_with("\\ud");
        mended.push_str(if is_text { HALF } else { "?" });
        mended.push_str(part);
    }
    mended
}

#[test]
fn every_capture_can_be_read_and_none_is_there_twice() {
    let truth = Truth::of(&captured());
    assert!(truth.spans.len() > 2000 && truth.traces.len() > 900);
    assert!(truth.spans.values().all(|span| truth.traces.contains_key(&span.trace)));
}
