//! Spanferry must not reduce what Langfuse shows: for every captured request, program and report, what Langfuse makes of a body as its
//! client sent it is compared with what it makes of the sink's request.
//!
//! The rows of the untouched bodies are kept in `tests/golden/langfuse-untouched`, so that a change of the model of Langfuse shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use serde_json::{Value, json};

use crate::mapping::{self, Row};
use crate::world::World;
use crate::{cases, fixtures};

/// The sink sends a span again when its trace has been quiet for ten seconds.
const QUIET_MAX: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(50);
const NEAR: f64 = 1e-9;

/// The cost of the captures' calls in dollars by their tokens in and out: all went to a scripted server with constant counts.
const CALLS: [Sums; 2] = [Sums([120.0, 30.0, 0.000_076_8]), Sums([16.0, 0.0, 0.000_000_32])];

/// Bodies for which Langfuse's own sums are wrong, by prefix of their names, and the reason.
///
/// The right sums are in `expected.json`; for captures they are the sums over the calls, each once, and for the captures named here at the
/// price in [`CALLS`].
const EXCEPTIONS: &[(&str, &str)] = &[
    ("langfuse-py/004", REASONING),
    ("logfire-openai/", RAW),
    ("logfire-openai-agents/", RAW),
    ("openinference-openai/", REASONING),
    ("openinference-openai/006", "it does not read the name of the model that made the embeddings"),
    ("openinference-openai-agents/001", REASONING),
    ("openinference-openai-agents/002", REASONING),
    ("openinference-openai-agents/003", REASONING),
    ("openinference-openai-agents/006", REASONING),
    (
        "vercel-ai-sdk/",
        "the SDK's outer span says the tokens of its calls again, and is added to them",
    ),
    ("programs/adk-default", REASONING),
    ("programs/ag2-telemetry", "it adds what records say of calls to the calls"),
    ("programs/agentscope", "it does not read cached tokens in AgentScope's words"),
    ("programs/agno-openinference", EXCLUSIVE),
    ("programs/botocore-bedrock", EXCLUSIVE),
    ("programs/gemini-openllmetry", "it leaves out thoughts, which are in the total alone"),
    ("programs/adk-js", "it leaves out thoughts, which are beside the output"),
    ("programs/anthropic-beside-openllmetry", TWICE),
    ("programs/anthropic-ts-openinference", TWICE),
    ("programs/answers", "it adds what `generate` says of its calls to these"),
    ("programs/axiom", "it adds what the steps of a streamed call say to the call"),
    ("programs/genkit-js", "it adds what `generate` says of its calls to these"),
    ("programs/haystack-agent", "it does not read Haystack's replies"),
    ("programs/langsmith-agent", "it does not read cached tokens, so that the cost is too high"),
    ("programs/claude-code", WRITTEN),
    ("programs/langsmith-anthropic", WRITTEN),
    ("programs/llamaindex-native", "it does not read LlamaIndex's events"),
    ("programs/mlflow-", "it does not read MLflow's tokens, and makes some up"),
    ("programs/openlit-agents", "it takes OpenLIT's cost of 0 for a cost"),
    ("programs/openllmetry-js-anthropic", EXCLUSIVE),
    ("programs/pydantic-logfire", TWICE),
    ("programs/ragbits", "it does not read Ragbits' names"),
    ("programs/spring-ai-1", "it adds a call to the next one, which has its tokens in it"),
    ("programs/steps", "it adds what a step or a run says of its calls to these"),
    ("programs/voltagent", "it does not read VoltAgent's names"),
    (
        "programs/lite",
        "it does not read LiteLLM's cost, which knows of cached tokens that only a text of Python's says",
    ),
    ("programs/copilot-cli", WRITTEN),
    ("programs/future-agi", "it adds the details to the counts that have them in them"),
    (
        "programs/langwatch-py",
        "it does not read LangWatch's metrics, which a call by hand has alone",
    ),
    ("programs/openhands", "it adds cached tokens of the span around a call to the call's own"),
    ("programs/qwen-code", "it leaves out thoughts, which are beside the output"),
    ("reports/01", "it does not read Claude Code's flat names"),
    ("reports/02", "it adds the details to the counts that have them in them"),
    ("reports/03", EXCLUSIVE),
    ("reports/05", EXCLUSIVE),
    ("reports/111", "it does not read Ax's event"),
    ("reports/113", "it does not read TrueFoundry's names"),
    ("reports/115", "it does not read most of the names"),
    ("reports/116", "it does not read xAI's names"),
    ("reports/117", "it does not read most of the names"),
    ("reports/118", "it does not read counts in one object"),
    ("reports/12-", TWICE),
    ("reports/120", TWICE),
    ("reports/121", "it does not read agentUniverse's names"),
    ("reports/123", EXCLUSIVE),
    ("reports/124", "it does not read Pi's names"),
    (
        "reports/34",
        "tokens of a span without a model are added, which has no price, to those of the call",
    ),
    ("reports/40", "it leaves out model and tokens of every agent"),
    (
        "reports/81",
        "it adds the tokens of an agent's run that says no operation to those of its calls",
    ),
    ("reports/82", "it adds what a span says of a call to what the call says itself"),
    ("reports/83", EXCLUSIVE),
    ("reports/85", "it adds up no total cost where there is more than input and output"),
    ("reports/86", "it does not read plain names of tokens, and makes some up"),
    ("reports/89", "it does not read the cached tokens in OpenInference's metadata"),
    ("reports/90", "it does not read these names, or adds them to the input"),
    ("reports/93", "it does not read what Mastra sent before it had exporters"),
    ("reports/94", "it does not read TraceRoot's names"),
    ("reports/95", "it takes the cached tokens from an input that is without them"),
    ("reports/96", "it does not read TruLens's names"),
    ("reports/97", "it does not read these backends' names"),
];
const TWICE: &str = "both spans of one call have its tokens";
const REASONING: &str = "it takes reasoning out of the output, and has no price for that";
const RAW: &str = "it does not read the cost, and cached tokens are only in `gen_ai.usage.raw`";
const WRITTEN: &str = "it counts what is written to a cache beside the input that has it in it";
const EXCLUSIVE: &str = "it takes cached tokens out of an input that does not have them in it";

/// Rows whose tokens another row next to or around them has, so that they may be absent, by body and name.
const REPEATED: [(&str, &str); 4] = [
    ("programs/anthropic-beside-openllmetry", "anthropic."),
    ("programs/ag2-telemetry", "record_usage"),
    ("programs/pydantic-logfire", "streaming response from"),
    ("programs/spring-ai-1", "chat gpt-5-mini"),
];

/// Bodies whose program says a session of its own under a name that Langfuse does not read, beside what a framework makes up.
const OTHER_SESSIONS: [&str; 1] = ["programs/confident-pydantic-ai"];

/// Bodies that belong together.
struct Sent {
    /// `<client>/<file>`, `programs/<name>` or `reports/<name>`.
    name: String,
    bodies: Vec<(&'static str, Bytes)>,
    /// The rows that Langfuse makes of them, each span once.
    rows: Vec<Row>,
    /// The right sums, if they were worked out.
    expected: Option<Sums>,
}

/// Tokens in, tokens out and dollars. An unknown sum is NaN, and matches any other.
#[derive(Debug, Clone, Copy, Default)]
struct Sums([f64; 3]);

impl Sums {
    fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        rows.into_iter().fold(Self::default(), |sums, row| sums.and(Self::of_row(row)))
    }

    fn of_row(row: &Row) -> Self {
        // Tokens that Langfuse counted itself are a guess.
        if row.is_invented {
            return Self::default();
        }
        let side = |side: &str| {
            let buckets = row.usage.iter().filter(|(bucket, _)| bucket.contains(side));
            buckets.map(|(_, count)| *count).sum::<u64>()
        };
        let (input, output) = (side("input"), side("output"));
        // For embeddings, Vercel's SDK reports only the total.
        let total = row.usage.get("total").copied().unwrap_or_default();
        let input = if input + output == 0 { total } else { input };
        #[expect(clippy::cast_precision_loss, reason = "token counts are small")]
        let [input, output] = [input as f64, output as f64];
        Self([input, output, row.cost.get("total").copied().unwrap_or_default()])
    }

    fn and(self, other: Self) -> Self {
        Self([0, 1, 2].map(|at| self.0[at] + other.0[at]))
    }

    fn expected(sums: &Value) -> Option<Self> {
        let sum = |name: &str| sums[name].as_f64();
        Some(Self([sum("input_total")?, sum("output_total")?, sum("cost").unwrap_or(f64::NAN)]))
    }

    fn is_like(self, other: Self) -> bool {
        let mut pairs = self.0.into_iter().zip(other.0);
        pairs.all(|(one, other)| one.is_nan() || other.is_nan() || (one - other).abs() < NEAR)
    }
}

fn sent() -> Vec<Sent> {
    let mut all = Vec::new();
    for fixture in fixtures::captured() {
        let media = if fixture.is_json { "application/json" } else { "application/x-protobuf" };
        all.extend(Sent::new(fixture.name, vec![(media, fixture.body)], &Value::Null));
    }
    for folder in ["programs", "reports"] {
        for case in cases::read(folder) {
            let bodies = case.before.into_iter().chain([case.request]);
            let bodies = bodies.map(|request| ("application/json", request.body.into())).collect();
            let name = format!("{folder}/{}", case.name);
            all.extend(Sent::new(name, bodies, &case.expected["langfuse_sums"]));
        }
    }
    assert!(90 < all.len(), "{}", all.len());
    all
}

/// Reads OTLP/JSON. The library's reader rejects numbers with a fraction while other crates enable those of any precision, so they pass
/// through it as text.
fn from_json(body: &[u8]) -> Option<ExportTraceServiceRequest> {
    const FLOAT: &str = "float:";
    fn hide(value: &mut Value) {
        if let Some(float) = value.get("doubleValue") {
            *value = json!({ "stringValue": format!("{FLOAT}{float}") });
        }
        match value {
            Value::Array(values) => values.iter_mut().for_each(hide),
            Value::Object(members) => members.values_mut().for_each(hide),
            _ => {}
        }
    }
    let mut body: Value = serde_json::from_slice(body).ok()?;
    hide(&mut body);
    let mut request: ExportTraceServiceRequest = serde_json::from_value(body).ok()?;
    let resources = request.resource_spans.iter_mut();
    let spans =
        resources.flat_map(|resource| &mut resource.scope_spans).flat_map(|scope| &mut scope.spans);
    for value in spans.flat_map(|span| &mut span.attributes).filter_map(|pair| pair.value.as_mut())
    {
        if let Some(Any::StringValue(text)) = &value.value
            && let Some(float) = text.strip_prefix(FLOAT)
        {
            value.value = Some(Any::DoubleValue(float.parse().ok()?));
        }
    }
    Some(request)
}

impl Sent {
    /// `None` if it is not OTLP: Langfuse would not accept it.
    fn new(name: String, bodies: Vec<(&'static str, Bytes)>, sums: &Value) -> Option<Self> {
        let mut rows = BTreeMap::new();
        for (media, body) in &bodies {
            let request = if *media == "application/json" {
                from_json(body)?
            } else {
                ExportTraceServiceRequest::decode(&**body).ok()?
            };
            let mapped = mapping::rows(&request).unwrap_or_default().into_iter();
            rows.extend(mapped.map(|row| ((row.start_ms, row.trace.clone(), row.id.clone()), row)));
        }
        let is_empty = rows.is_empty();
        let rows = rows.into_values().collect();
        (!is_empty).then(|| Self { name, bodies, rows, expected: Sums::expected(sums) })
    }

    /// Returns the spans above a model call that counts: they repeat its facts.
    fn repeating(&self) -> BTreeSet<&str> {
        let parents: BTreeMap<_, _> =
            self.rows.iter().map(|row| (row.id.as_str(), row.parent.as_str())).collect();
        let mut repeating = BTreeSet::new();
        for row in self.rows.iter().filter(|row| counts(row)) {
            let mut above = row.parent.as_str();
            while !above.is_empty() && repeating.insert(above) {
                above = parents.get(above).copied().unwrap_or_default();
            }
        }
        repeating
    }

    /// Returns the right sums.
    fn right(&self) -> Sums {
        let repeating = self.repeating();
        let calls = self.rows.iter().filter(|row| !repeating.contains(row.id.as_str()));
        let is_listed = EXCEPTIONS.iter().any(|(start, _)| self.name.starts_with(start));
        let sums = calls.map(|row| {
            let own = Sums::of_row(row);
            let tokens = Sums([own.0[0], own.0[1], f64::NAN]);
            CALLS.into_iter().find(|call| is_listed && call.is_like(tokens)).unwrap_or(own)
        });
        self.expected.unwrap_or_else(|| sums.fold(Sums::default(), Sums::and))
    }
}

// === The model of Langfuse ===

#[test]
fn what_langfuse_makes_of_untouched_bodies_is_known() {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for sent in sent() {
        let (group, name) = sent.name.split_once('/').unwrap();
        let text = files.entry(group.to_owned()).or_default();
        for row in &sent.rows {
            writeln!(text, "{}", shown(name, row)).unwrap();
        }
    }
    for (group, text) in files {
        fixtures::check_golden(&format!("langfuse-untouched/{group}.jsonl"), &text);
    }
}

#[test]
fn where_langfuse_itself_is_wrong_is_listed_with_the_reason() {
    let sent = sent();
    let is_wrong = |sent: &&Sent| !Sums::of(&sent.rows).is_like(sent.right());
    let wrong: BTreeSet<_> = sent.iter().filter(is_wrong).map(|sent| sent.name.as_str()).collect();
    let is_listed = |name: &&&str| !EXCEPTIONS.iter().any(|(start, _)| name.starts_with(start));
    assert_eq!(wrong.iter().filter(is_listed).collect::<Vec<_>>(), Vec::<&&str>::new());
    for (start, reason) in EXCEPTIONS {
        assert!(wrong.iter().any(|name| name.starts_with(start)), "{start}: not so: {reason}");
    }
}

fn shown(name: &str, row: &Row) -> Value {
    json!({
        "body": name, "id": row.id, "name": row.name, "type": row.kind, "level": row.level,
        "model": row.model, "usage": if row.is_invented { json!("counted by itself") } else { json!(row.usage) },
        "cost": if row.is_invented { Value::Null } else { json!(row.cost) },
        "session": row.session, "user": row.user, "tags": row.tags, "environment": row.environment,
        "has_input": row.input.is_some(), "has_output": row.output.is_some(),
    })
}

// === Comparison ===

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_worse_than_without_spanferry() {
    let all = sent();
    let world = World::start("batch = { age_max = \"50ms\" }\n").await;
    for sent in &all {
        for (media, body) in &sent.bodies {
            world.otlp(media, "", body.clone()).await;
            if 1 < sent.bodies.len() {
                world.settled().await;
            }
        }
    }
    world.settled().await;
    let begun = Instant::now();
    loop {
        let worse = worse(&all, &world.fake.rows());
        if worse.is_empty() {
            break;
        }
        assert!(begun.elapsed() < QUIET_MAX, "{} are worse:\n{}", worse.len(), worse.join("\n"));
        tokio::time::sleep(POLL_EVERY).await;
    }
    world.stop().await;
}

fn worse(all: &[Sent], rows: &[Row]) -> Vec<String> {
    // The last version of each span counts.
    let ours: BTreeMap<_, _> = rows.iter().map(|row| ((&row.trace, &row.id), row)).collect();
    let mut worse = Vec::new();
    for sent in all {
        let (repeating, mut found) = (sent.repeating(), Vec::new());
        let pairs = sent.rows.iter().map(|row| (row, ours.get(&(&row.trace, &row.id)).copied()));
        for (row, our) in pairs.clone() {
            match our {
                Some(our) => {
                    let is_row = |(body, name): &(&str, &str)| {
                        sent.name == *body && row.name.starts_with(name)
                    };
                    let repeats = repeating.contains(&*row.id) || REPEATED.iter().any(is_row);
                    found.extend(worse_row(row, our, repeats));
                    let is_other = OTHER_SESSIONS.contains(&&*sent.name);
                    if !is_other && lost(row.session.as_ref(), our.session.as_ref()) {
                        found.push(format!("{}: session {:?}", row.name, our.session));
                    }
                }
                None => found.push(format!("{}: not there", row.name)),
            }
        }
        let (ours, right) = (Sums::of(pairs.filter_map(|(_, our)| our)), sent.right());
        if !ours.is_like(right) {
            found.push(format!("sums {:?} instead of {:?}", ours.0, right.0));
        }
        worse.extend(found.iter().map(|what| format!("{}: {what}", sent.name)));
    }
    worse
}

fn worse_row(untouched: &Row, ours: &Row, repeats: bool) -> Vec<String> {
    let mut worse = Vec::new();
    let mut check = |is_worse: bool, what: &str| {
        if is_worse {
            worse.push(format!("{}: {what}: {untouched:?}\n  became {ours:?}", untouched.name));
        }
    };
    check(untouched.kind != "span" && ours.kind == "span", "type");
    check(lost(untouched.user.as_ref(), ours.user.as_ref()), "user");
    check(untouched.tags.iter().any(|tag| !ours.tags.contains(tag)), "tags");
    check(untouched.input.is_some() && ours.input.is_none(), "input");
    check(untouched.output.is_some() && ours.output.is_none(), "output");
    check(counts(untouched) && !counts(ours) && !repeats, "model and usage");
    worse
}

/// Returns whether a row has tokens that Langfuse can price.
fn counts(row: &Row) -> bool {
    row.model.is_some() && !row.is_invented && row.usage.values().any(|count| *count != 0)
}

fn lost(untouched: Option<&String>, ours: Option<&String>) -> bool {
    untouched.is_some() && untouched != ours
}
