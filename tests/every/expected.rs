//! What every item must become by the rules in `src/normalize`, computed here from what the SDKs sent.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::captured::Captured;
use super::seen::Seen;

/// A trace id and a span id, in hexadecimal digits.
pub(crate) type Id = (String, String);

/// What all requests together must become.
pub(crate) struct Expected {
    /// The spans, by their ids.
    pub(crate) spans: BTreeMap<Id, Span>,
    /// The items as sent, by the client's own ids.
    pub(crate) items: BTreeMap<String, Value>,
}

/// What one span must become.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) parent: Option<String>,
    /// By OpenTelemetry's conventions.
    pub(crate) name: String,
    /// The bare name of an agent, tool or guardrail; for other kinds as `name`.
    pub(crate) plain_name: String,
    pub(crate) kind: &'static str,
    /// The type of its `span_data`.
    pub(crate) data_type: String,
    /// `task` or `turn`, if the SDK marks it as one.
    pub(crate) sdk_type: Option<String>,
    /// The requested model and the one that answered, as far as they are known.
    pub(crate) models: Vec<String>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    /// For an outermost task above model calls without tokens: the task's own tokens, in and out.
    pub(crate) task_tokens: Option<(Option<u64>, Option<u64>)>,
    pub(crate) error: Option<String>,
    /// In microseconds since 1970, the coarsest resolution of all backends.
    pub(crate) start_us: Option<i64>,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) workflow: Option<String>,
}

impl Expected {
    pub(crate) fn of(requests: &[Captured]) -> Self {
        Self::of_items(&requests.iter().flat_map(Captured::items).collect::<Vec<_>>())
    }

    /// Computes the same from items without their requests.
    pub(crate) fn of_items(items: &[Value]) -> Self {
        let mut expected = Self { spans: BTreeMap::new(), items: BTreeMap::new() };
        let is_trace = |item: &&Value| item["object"] == "trace";
        let traces: BTreeMap<_, _> =
            items.iter().filter(is_trace).map(|trace| (text(&trace["id"]), trace)).collect();
        for item in items {
            let before = expected.items.insert(text(&item["id"]), item.clone());
            assert!(before.is_none(), "{} is there twice", item["id"]);
            if !is_trace(&item) {
                let id = (trace_id(&item["trace_id"]), span_id(&item["trace_id"], &item["id"]));
                let trace = traces.get(&text(&item["trace_id"]));
                expected.spans.insert(id, span(item, trace.copied().unwrap_or(&Value::Null)));
            }
        }
        expected.let_tasks_speak(items);
        expected
    }

    /// If no model call below a task has tokens, as with the SDK for JavaScript and the Responses API, the tokens of the outermost task
    /// count.
    fn let_tasks_speak(&mut self, items: &[Value]) {
        let parents: BTreeMap<_, _> =
            self.spans.iter().map(|(id, span)| (id.clone(), span.parent.clone())).collect();
        let above = |id: &Id| Some((id.0.clone(), parents[id].clone()?));
        let ancestors = |id: &Id| std::iter::successors(above(id), above).collect::<Vec<_>>();
        let is_task = |id: &Id| self.spans[id].sdk_type.as_deref() == Some("task");
        let mut spoken = Vec::new();
        for item in items.iter().filter(|item| item["span_data"]["data"]["sdk_span_type"] == "task")
        {
            let task = (trace_id(&item["trace_id"]), span_id(&item["trace_id"], &item["id"]));
            let of_trace = self.spans.iter().filter(|(id, _)| id.0 == task.0);
            let mut below = of_trace.filter(|(id, _)| ancestors(id).contains(&task));
            let is_outermost = !ancestors(&task).iter().any(is_task);
            if is_outermost && below.all(|(_, span)| span.input_tokens.is_none()) {
                let usage = &item["span_data"]["data"]["usage"];
                spoken.push((task, (input_tokens(usage), output_tokens(usage))));
            }
        }
        for (task, tokens) in spoken {
            self.spans.get_mut(&task).unwrap().task_tokens = Some(tokens);
        }
    }

    /// Returns what a backend with all facts and our own terms shows; `None` for a trace object.
    pub(crate) fn as_seen(&self, item: &Value) -> Option<Seen> {
        if item["object"] == "trace" {
            return None;
        }
        let id = (trace_id(&item["trace_id"]), span_id(&item["trace_id"], &item["id"]));
        let span = self.spans[&id].clone();
        Some(Seen {
            id,
            parent: span.parent,
            name: span.name,
            kind: Some(span.kind.to_owned()),
            model: span.models.into_iter().next(),
            input_tokens: span.input_tokens,
            output_tokens: span.output_tokens,
            error: span.error,
            start_us: span.start_us.unwrap_or_default(),
            session: span.session,
            user: span.user,
            tags: span.tags,
        })
    }

    /// Returns the hexadecimal ids of a span with the client's own ids, some of which may be ours.
    pub(crate) fn hexadecimal(&self, trace: &str, span: &str) -> Id {
        let of_client = self.items.contains_key(span);
        let digits = if of_client { span_id(&trace.into(), &span.into()) } else { span.to_owned() };
        (trace_id(&trace.into()), digits)
    }

    /// Returns the number of traces with spans.
    pub(crate) fn distinct_traces(&self) -> usize {
        self.spans.keys().map(|id| &id.0).collect::<BTreeSet<_>>().len()
    }

    /// Sums a figure over all spans.
    pub(crate) fn sum(&self, figure: impl Fn(&Span) -> Option<u64>) -> u64 {
        self.spans.values().filter_map(figure).sum()
    }

    /// Returns the distinct values of a fact.
    pub(crate) fn distinct(&self, fact: impl Fn(&Span) -> Option<&String>) -> BTreeSet<&String> {
        self.spans.values().filter_map(fact).collect()
    }
}

fn span(item: &Value, trace: &Value) -> Span {
    let data = &item["span_data"];
    let usage = usage(data);
    let error = &item["error"];
    let metadata = &trace["metadata"];
    Span {
        parent: item["parent_id"].as_str().map(|_| span_id(&item["trace_id"], &item["parent_id"])),
        name: name(data),
        plain_name: plain_name(data),
        kind: kind(data),
        data_type: text(&data["type"]),
        sdk_type: data["data"]["sdk_span_type"].as_str().map(str::to_owned),
        models: [&data["model"], &data["response"]["model"], &data["output"][0]["model"]]
            .into_iter()
            .filter_map(|model| Some(model.as_str()?.to_owned()))
            .collect(),
        input_tokens: input_tokens(usage),
        output_tokens: output_tokens(usage),
        task_tokens: None,
        error: error["message"].as_str().or(error.as_str()).map(str::to_owned),
        start_us: item["started_at"].as_str().map(|time| {
            time.parse::<Timestamp>()
                .unwrap_or_else(|error| panic!("{time}: {error}"))
                .as_microsecond()
        }),
        session: trace["group_id"].as_str().map(str::to_owned),
        user: metadata["user_id"].as_str().map(str::to_owned),
        tags: metadata["tags"].as_array().into_iter().flatten().map(text).collect(),
        workflow: trace["workflow_name"].as_str().map(str::to_owned),
    }
}

/// Returns a model call's own usage; that of tasks and turns repeats what is below them.
fn usage(data: &Value) -> &Value {
    // The JS SDK puts it into the response.
    let places = [&data["usage"], &data["output"][0]["usage"], &data["response"]["usage"]];
    let is_model = ["generation", "response"].contains(&data["type"].as_str().unwrap_or_default());
    let found = places.into_iter().find(|usage| usage.is_object() && is_model);
    found.unwrap_or(&Value::Null)
}

fn input_tokens(usage: &Value) -> Option<u64> {
    usage["input_tokens"].as_u64().or(usage["prompt_tokens"].as_u64())
}

fn output_tokens(usage: &Value) -> Option<u64> {
    usage["output_tokens"].as_u64().or(usage["completion_tokens"].as_u64())
}

fn plain_name(data: &Value) -> String {
    let is_named = ["agent", "function", "guardrail"].iter().any(|kind| data["type"] == **kind);
    data["name"].as_str().filter(|_| is_named).map_or_else(|| name(data), str::to_owned)
}

fn name(data: &Value) -> String {
    let with = |verb: &str, object: &Value| match object.as_str() {
        Some(object) => format!("{verb} {object}"),
        None => verb.to_owned(),
    };
    let own = |otherwise: &str| data["name"].as_str().unwrap_or(otherwise).to_owned();
    match data["type"].as_str().unwrap_or_default() {
        "agent" => with("invoke_agent", &data["name"]),
        "generation" => with("chat", &data["model"]),
        "response" => with("chat", &data["response"]["model"]),
        "function" => with("execute_tool", &data["name"]),
        "guardrail" => with("guardrail", &data["name"]),
        "mcp_tools" => with("tools/list", &data["server"]),
        "transcription" => with("transcription", &data["model"]),
        "speech" => with("speech", &data["model"]),
        "speech_group" | "speech-group" => "speech_group".to_owned(),
        "handoff" => match (data["from_agent"].as_str(), data["to_agent"].as_str()) {
            (None, None) => "handoff".to_owned(),
            (from, to) => format!("handoff {} -> {}", from.unwrap_or("?"), to.unwrap_or("?")),
        },
        "custom" => match data["data"]["sdk_span_type"].as_str() {
            Some("task") => text(&data["data"]["name"]),
            Some("turn") => format!("turn {}", data["data"]["turn"]),
            _ => own("custom"),
        },
        other => panic!("no capture has a {other} span"),
    }
}

fn kind(data: &Value) -> &'static str {
    match data["type"].as_str().unwrap_or_default() {
        "agent" => "agent",
        "generation" | "response" => "generation",
        "function" => "tool",
        "handoff" => "handoff",
        "guardrail" => "guardrail",
        "mcp_tools" => "mcp",
        "transcription" => "transcription",
        "speech" => "speech",
        "custom" if !data["data"]["sdk_span_type"].is_string() => "custom",
        _ => "chain",
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text was expected, not {value}")).to_owned()
}

/// `trace_` and 32 digits are the 16 bytes themselves; any other text becomes the beginning of a hash.
fn trace_id(agents_sdk: &Value) -> String {
    let agents_sdk = text(agents_sdk);
    let digits = agents_sdk.strip_prefix("trace_").filter(|digits| digits.len() == 32);
    let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    digits.map_or_else(|| hash(&format!("trace\0{agents_sdk}"), 16), str::to_lowercase)
}

/// The first 8 bytes of SHA-256 over both ids as the client wrote them.
fn span_id(trace: &Value, span: &Value) -> String {
    hash(&format!("span\0{}\0{}", text(trace), text(span)), 8)
}

fn hash(of: &str, bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut digits = String::new();
    for byte in &Sha256::digest(of)[..bytes] {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits
}
