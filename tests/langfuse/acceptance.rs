//! Everything that real SDKs were seen to send goes through a daemon; then Langfuse's rows are checked, trace by trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use spanferry::normalize::ids;
use spanferry::span::{Convention, Kind, Span};

use crate::fake::Fake;
use crate::mapping::Row;
use crate::world::World;
use crate::{fixtures, prices};

const OPTIONS: &str = "environment = \"acceptance\"\nrelease = \"r1\"\n\
    models = { default = \"gpt-5-mini\" }\nbatch = { age_max = \"50ms\" }\n";
const DEFAULT_MODEL: &str = "gpt-5-mini";

/// The bodies of an Agents SDK scenario, and its name.
struct Scenario {
    name: String,
    bodies: Vec<Vec<u8>>,
}

/// Returns the scenarios of both SDKs with standard JSON bodies: repairs of the lenient reader are tested elsewhere.
fn scenarios() -> Vec<Scenario> {
    let mut found = Vec::new();
    for language in ["python", "js"] {
        let folder = fixtures::golden().join("agents-sdk").join(language);
        for scenario in fs::read_dir(folder).unwrap() {
            let scenario = scenario.unwrap();
            let mut paths: Vec<PathBuf> =
                fs::read_dir(scenario.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.retain(|path| path.to_str().unwrap().ends_with(".body.json"));
            paths.sort();
            let bodies: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
            if bodies.iter().all(|body| parsed(body).is_some()) {
                let name = format!("{language}/{}", scenario.file_name().to_str().unwrap());
                found.push(Scenario { name, bodies });
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(found.len() > 45, "the captures are not there");
    found
}

fn parsed(body: &[u8]) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.disable_recursion_limit();
    serde::Deserialize::deserialize(&mut reader).ok()
}

/// A trace, as its items describe it.
#[derive(Default)]
struct Sent {
    scenario: String,
    object: Option<Value>,
    spans: BTreeMap<String, Value>,
}

fn sent(scenarios: &[Scenario]) -> BTreeMap<String, Sent> {
    let mut traces: BTreeMap<String, Sent> = BTreeMap::new();
    for scenario in scenarios {
        for item in scenario.bodies.iter().flat_map(|body| items(body)) {
            let is_trace = item["object"] == "trace";
            let id = if is_trace { &item["id"] } else { &item["trace_id"] };
            let trace = traces.entry(id.as_str().unwrap().to_owned()).or_default();
            trace.scenario.clone_from(&scenario.name);
            if is_trace {
                trace.object.get_or_insert(item);
            } else {
                trace.spans.insert(item["id"].as_str().unwrap().to_owned(), item);
            }
        }
    }
    traces
}

fn items(body: &[u8]) -> Vec<Value> {
    parsed(body).unwrap()["data"].as_array().unwrap().clone()
}

fn is_task(span: &Value) -> bool {
    span["span_data"]["data"]["sdk_span_type"] == "task"
}

impl Sent {
    /// Returns whether Spanferry creates a root for the trace.
    fn needs_root(&self) -> bool {
        let tops = self.spans.values().filter(|span| span["parent_id"].is_null());
        let (tasks, others): (Vec<_>, Vec<_>) = tops.partition(|span| is_task(span));
        !others.is_empty() || 1 < tasks.len()
    }

    /// Returns whether a model call reported tokens.
    fn has_model_usage(&self) -> bool {
        self.spans
            .values()
            .any(|span| model_usage(&span["span_data"]).is_some_and(|usage| 0 < total(&usage)))
    }

    fn member(&self, path: &[&str]) -> Value {
        let mut value = self.object.clone().unwrap_or_default();
        for name in path {
            value = value[*name].clone();
        }
        value
    }
}

// === Expectations, from the items alone ===

fn expected_type(span: &Value) -> &'static str {
    let data = &span["span_data"];
    match data["type"].as_str().unwrap() {
        "agent" => "agent",
        "generation" | "response" | "transcription" | "speech" => "generation",
        "function" => "tool",
        "guardrail" => "guardrail",
        "custom" if ["task", "turn"].iter().any(|word| data["data"]["sdk_span_type"] == *word) => {
            "chain"
        }
        _ => "span",
    }
}

fn expected_level(span: &Value) -> &'static str {
    if !span["error"].is_null() {
        "ERROR"
    } else if span["span_data"]["triggered"] == true {
        "WARNING"
    } else {
        "DEFAULT"
    }
}

/// Returns the usage of a model call, wherever it is.
fn model_usage(data: &Value) -> Option<Value> {
    let is_model = ["generation", "response", "transcription", "speech"]
        .iter()
        .any(|kind| data["type"] == *kind);
    let places = [&data["usage"], &data["output"][0]["usage"], &data["response"]["usage"]];
    let found = places.into_iter().find(|usage| usage.is_object()).cloned();
    found.filter(|_| is_model)
}

fn total(usage: &Value) -> u64 {
    count(usage, &["input_tokens", "prompt_tokens"])
        + count(usage, &["output_tokens", "completion_tokens"])
}

fn count(usage: &Value, names: &[&str]) -> u64 {
    names.iter().find_map(|name| usage[*name].as_u64()).unwrap_or_default()
}

/// Returns the expected Langfuse buckets. Reasoning is separate only if the model has a price for it.
fn buckets(usage: &Value, model: Option<&str>) -> BTreeMap<String, u64> {
    let nested = |objects: [&str; 2], name: &str| {
        objects.iter().find_map(|object| usage[*object][name].as_u64()).unwrap_or_default()
    };
    let input_details = ["input_tokens_details", "prompt_tokens_details"];
    let cached = nested(input_details, "cached_tokens") + count(usage, &["cached_input_tokens"]);
    let written =
        nested(input_details, "cache_write_tokens") + count(usage, &["cache_write_input_tokens"]);
    let reasoning =
        nested(["output_tokens_details", "completion_tokens_details"], "reasoning_tokens")
            + nested(["details", "details"], "reasoning");
    let splits = model.is_none_or(|model| model.starts_with("gpt-5"));
    let reasoning = if splits { reasoning } else { 0 };
    let input = count(usage, &["input_tokens", "prompt_tokens"]);
    let output = count(usage, &["output_tokens", "completion_tokens"]);
    let known = [
        ("input", Some(input - cached - written)),
        ("input_cached_tokens", Some(cached).filter(|count| *count != 0)),
        ("input_cache_creation", Some(written).filter(|count| *count != 0)),
        ("output", Some(output - reasoning)),
        ("output_reasoning_tokens", Some(reasoning).filter(|count| *count != 0)),
        ("total", Some(input + output)),
    ];
    known.into_iter().filter_map(|(name, count)| Some((name.to_owned(), count?))).collect()
}

fn expected_model(data: &Value) -> Option<String> {
    let own = data["model"]
        .as_str()
        .or(data["output"][0]["model"].as_str())
        .or(data["response"]["model"].as_str());
    let is_call = data["type"] == "response" || data["type"] == "generation";
    own.map(str::to_owned).or_else(|| is_call.then(|| DEFAULT_MODEL.to_owned()))
}

// === The run ===

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_run_of_the_agents_sdk_is_as_it_should_be() {
    let scenarios = scenarios();
    let sent = sent(&scenarios);
    let world = World::start(OPTIONS).await;
    for body in scenarios.iter().flat_map(|scenario| &scenario.bodies) {
        world.agents_sdk(body.clone()).await;
    }
    world.settled().await;
    let roots = sent.iter().filter(|(_, trace)| trace.needs_root()).count();
    let spans: usize = sent.values().map(|trace| trace.spans.len()).sum();
    world.until("roots", |_, fake| spans + roots <= fake.merged().len()).await;
    assert_whole(&world.fake, spans + roots);
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in world.fake.merged() {
        rows.entry(row.trace.clone()).or_default().push(row);
    }
    let mut table = BTreeMap::new();
    for (sdk_id, trace) in &sent {
        let id = ids::trace_id(sdk_id).to_string();
        let rows = rows.remove(&id).unwrap_or_default();
        check(sdk_id, trace, &rows);
        table.entry(trace.scenario.clone()).or_insert_with(Vec::new).extend(rows);
    }
    assert!(rows.is_empty(), "traces that nobody sent");
    print_table(&table);
    world.stop().await;
}

/// Asserts that everything is there once: nothing lost, nothing that an older server would have lost, no tokens invented.
fn assert_whole(fake: &Fake, count: usize) {
    assert_eq!(fake.lost(), Vec::<String>::new());
    let rows = fake.rows();
    // A task that was sent before the second one of its trace is sent once more, below the root.
    assert!(count <= rows.len() && rows.len() < count + 20, "{}", rows.len());
    assert_eq!(fake.merged().len(), count, "each span once");
    for row in &rows {
        assert!(row.lost_on_v3.is_empty() && row.garbled.is_empty() && !row.is_invented, "{row:?}");
    }
}

fn check(sdk_id: &str, trace: &Sent, rows: &[Row]) {
    let scenario = &trace.scenario;
    let by_id: BTreeMap<&str, &Row> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let root_id = ids::root_span_id(sdk_id).to_string();
    assert_eq!(rows.len(), trace.spans.len() + usize::from(trace.needs_root()), "{scenario}");
    let span_id = |agents_sdk: &str| ids::span_id(sdk_id, agents_sdk).to_string();
    for (agents_sdk, span) in &trace.spans {
        let row = by_id[span_id(agents_sdk).as_str()];
        let data = &span["span_data"];
        assert_eq!(row.kind, expected_type(span), "{scenario} {span}");
        assert_eq!(row.level, expected_level(span), "{scenario} {span}");
        let message = span["error"]["message"].as_str().unwrap_or_default();
        assert!(row.status_message.starts_with(message), "{scenario} {span}");
        let parent = match span["parent_id"].as_str() {
            Some(parent) => span_id(parent),
            None if trace.needs_root() => root_id.clone(),
            None => String::new(),
        };
        assert_eq!(row.parent, parent, "{scenario} {span}");
        // The hand-made spans of every type name parents that were never sent.
        let is_sent =
            span["parent_id"].as_str().is_none_or(|parent| trace.spans.contains_key(parent));
        assert!(
            row.parent.is_empty() || !is_sent || by_id.contains_key(row.parent.as_str()),
            "{scenario}"
        );
        check_tokens(trace, span, row);
        assert_eq!(row.metadata["span_id"], *agents_sdk, "{scenario}");
        for (side, got) in [("input", &row.input), ("output", &row.output)] {
            if data["type"] == "function" && data[side].is_string() {
                assert_eq!(got.as_deref().unwrap_or_default(), data[side], "{scenario}");
            }
            if data["type"] == "generation" && data[side].is_array() {
                let shown: Value = serde_json::from_str(got.as_ref().unwrap()).unwrap();
                assert_eq!(shown, data[side], "{scenario}");
            }
        }
    }
    for row in rows {
        check_trace(trace, row);
    }
    if let Some(root) = by_id.get(root_id.as_str()) {
        assert_eq!((root.kind.as_str(), root.parent.as_str()), ("chain", ""), "{scenario}");
        assert_eq!(Some(&root.name), root.trace_name.as_ref(), "{scenario}");
        assert!(root.usage.is_empty(), "{scenario}: {root:?}");
    }
}

fn check_tokens(trace: &Sent, span: &Value, row: &Row) {
    let (scenario, data) = (&trace.scenario, &span["span_data"]);
    let speaks = is_task(span) && span["parent_id"].is_null() && !trace.has_model_usage();
    let model = expected_model(data).filter(|_| row.kind == "generation");
    let expected = match model_usage(data) {
        Some(usage) => buckets(&usage, model.as_deref()),
        None if speaks && 0 < total(&data["data"]["usage"]) => {
            buckets(&data["data"]["usage"], Some(DEFAULT_MODEL))
        }
        // Reported as zero, so that Langfuse invents none.
        None if model.is_some()
            && row.level != "ERROR"
            && (row.input.is_some() || row.output.is_some()) =>
        {
            BTreeMap::from([("total".to_owned(), 0)])
        }
        None => BTreeMap::new(),
    };
    assert_eq!(row.usage, expected, "{scenario} {span}");
    let model =
        model.or_else(|| (speaks && !expected.is_empty()).then(|| DEFAULT_MODEL.to_owned()));
    assert_eq!(row.model, model, "{scenario} {span}");
    let priced = row.model.as_deref().and_then(prices::of);
    #[expect(clippy::cast_precision_loss, reason = "token counts are small")]
    let cost: f64 = priced.map_or(0.0, |prices| {
        expected
            .iter()
            .filter_map(|(bucket, count)| Some(*count as f64 * prices.get(bucket.as_str())?))
            .sum()
    });
    assert!(
        (row.cost.get("total").copied().unwrap_or_default() - cost).abs() < 1e-9,
        "{scenario} {span}"
    );
}

fn check_trace(trace: &Sent, row: &Row) {
    let scenario = &trace.scenario;
    let text = |path: &[&str]| trace.member(path).as_str().map(str::to_owned);
    if trace.object.is_some() {
        assert_eq!(row.trace_name, text(&["workflow_name"]), "{scenario} {row:?}");
    }
    assert_eq!(row.session, text(&["group_id"]), "{scenario} {row:?}");
    assert_eq!(row.user, text(&["metadata", "user_id"]), "{scenario} {row:?}");
    let tags = trace.member(&["metadata", "tags"]);
    assert_eq!(
        json!(row.tags),
        if tags.is_array() { tags } else { json!([]) },
        "{scenario} {row:?}"
    );
    assert_eq!(
        (row.environment.as_str(), row.release.as_deref()),
        ("acceptance", Some("r1")),
        "{scenario}"
    );
    if let Some(metadata) = trace.member(&["metadata"]).as_object() {
        for (name, value) in metadata.iter().filter(|(_, value)| value.is_string()) {
            assert_eq!(row.trace_metadata.get(name), Some(value), "{scenario}");
        }
    }
}

/// Prints what a user sees of each scenario.
fn print_table(table: &BTreeMap<String, Vec<Row>>) {
    println!(
        "{:<36} {:>6} {:>5}  {:<62} {:>7} {:>10}  {:<14} name",
        "scenario", "traces", "spans", "types (errors, warnings)", "tokens", "dollars", "session"
    );
    for (scenario, rows) in table {
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for row in rows {
            *types.entry(row.kind.as_str()).or_default() += 1;
        }
        let types: Vec<_> = types.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let level = |level: &str| rows.iter().filter(|row| row.level == level).count();
        let traces: BTreeSet<_> = rows.iter().map(|row| &row.trace).collect();
        let tokens: u64 = rows.iter().filter_map(|row| row.usage.get("total")).sum();
        let dollars =
            rows.iter().filter_map(|row| row.cost.get("total")).fold(0.0, |sum, cost| sum + cost);
        let first = |fact: fn(&Row) -> Option<&String>| {
            rows.iter().find_map(fact).cloned().unwrap_or_default()
        };
        println!(
            "{scenario:<36} {:>6} {:>5}  {:<62} {tokens:>7} {dollars:>10.6}  {:<14} {}",
            traces.len(),
            rows.len(),
            format!("{} ({}, {})", types.join(", "), level("ERROR"), level("WARNING")),
            first(|row| row.session.as_ref()),
            first(|row| row.trace_name.as_ref()),
        );
    }
}

// === Other clients ===

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_request_of_an_otlp_client_is_as_it_should_be() {
    let world =
        World::start("environment = \"acceptance\"\nbatch = { age_max = \"50ms\" }\n").await;
    let captured = fixtures::captured();
    let mut expected = BTreeSet::new();
    let mut scenarios: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for fixture in &captured {
        let media_type =
            if fixture.is_json { "application/json" } else { "application/x-protobuf" };
        world.otlp(media_type, "", fixture.body.clone()).await;
        let client = fixture.name.split('/').next().unwrap().to_owned();
        for span in fixture.batch.spans() {
            expected.insert((span.trace_id.to_string(), span.span_id.to_string()));
            scenarios.entry(client.clone()).or_default().insert(span.trace_id.to_string());
        }
    }
    world.settled().await;
    assert_eq!(world.fake.lost(), Vec::<String>::new());
    let rows = world.fake.merged();
    let got: BTreeSet<_> = rows.iter().map(|row| (row.trace.clone(), row.id.clone())).collect();
    assert_eq!(got, expected);
    for row in &rows {
        assert!(row.lost_on_v3.is_empty() && row.garbled.is_empty(), "{row:?}");
        assert_ne!(row.environment, "default", "{row:?}");
    }
    let mut table: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let kept = rows.clone();
    let by_id = |row: &'_ Row| (row.trace.clone(), row.id.clone());
    let rows_by_id: BTreeMap<_, _> = kept.iter().map(|row| (by_id(row), row)).collect();
    for row in rows {
        let client = scenarios.iter().find(|(_, traces)| traces.contains(&row.trace)).unwrap().0;
        table.entry(client.clone()).or_default().push(row);
    }
    for (client, rows) in &table {
        check_client(client, rows);
    }
    let spans = captured.iter().flat_map(|fixture| fixture.batch.spans());
    for span in spans {
        let id = (span.trace_id.to_string(), span.span_id.to_string());
        check_otlp(span, rows_by_id[&id]);
    }
    print_table(&table);
    world.stop().await;
}

/// Checks a client whose model calls all went to a scripted server with constant counts: 120 in, 64 of them cached, 30 out, 12 of them
/// reasoning.
fn check_client(client: &str, rows: &[Row]) {
    for row in rows {
        if let Some(total) = row.usage.get("total").filter(|total| **total != 0) {
            // A hand-made span with tokens and without a kind is left unchanged.
            let is_call = ["generation", "embedding", "span"].contains(&row.kind.as_str());
            assert!(is_call || client == "langfuse-py", "{client}: tokens on {row:?}");
            if row.kind == "generation" && client != "langfuse-py" && !row.is_invented {
                assert_eq!(*total, 150, "{client}: {row:?}");
            }
        }
    }
}

/// Asserts that Langfuse shows the span's own facts.
fn check_otlp(span: &Span, row: &Row) {
    let (detail, facts) = (span.detail(), span.facts());
    let expected = match facts.kind {
        Kind::Agent => "agent",
        Kind::Generation | Kind::Speech | Kind::Transcription => "generation",
        Kind::Tool => "tool",
        Kind::Guardrail => "guardrail",
        Kind::Retriever => "retriever",
        Kind::Embedding => "embedding",
        Kind::Chain => "chain",
        Kind::Evaluator => "evaluator",
        // It has the tokens of a streamed call that has none itself.
        Kind::Event if facts.aggregate_usage.has_tokens() => "generation",
        Kind::Event => "event",
        // No span below it has tokens, and Langfuse has no type for it, so it is priced as a generation.
        Kind::Custom if facts.aggregate_usage.has_tokens() && row.usage.contains_key("total") => {
            "generation"
        }
        // OpenInference calls it a tool.
        Kind::Handoff if facts.convention == Convention::OpenInference => "tool",
        _ => "span",
    };
    assert_eq!(row.kind, expected, "{row:?}");
    if detail.status_code == 2 {
        assert_eq!(row.level, "ERROR", "{row:?}");
    }
    for (own, shown) in [(&facts.session, &row.session), (&facts.user, &row.user)] {
        if own.is_some() {
            assert_eq!(shown.as_deref(), own.as_deref(), "{row:?}");
        }
    }
    let parent = span.parent_id.map(|parent| parent.to_string()).unwrap_or_default();
    assert_eq!(row.parent, parent, "{row:?}");
    assert!(facts.input.is_none() || row.input.is_some(), "{row:?}");
    assert!(facts.output.is_none() || row.output.is_some(), "{row:?}");
}
