//! The table of traces: what it collects from captured traffic, its limits, and when roots are due.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::normalize::tests::totals::{counted, trace_total};
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{
    Cost, Detail, Facts, Kind, Payload, Receiver, RootSpan, SpanHeader, SpanId, Text, TraceContext,
    Usage, tokens_of,
};
use crate::support::golden;
use crate::support::memory::{alone, assert_within, resident_bytes};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-21T05:13:36Z, when the spans of these tests start.
const NOW: u64 = 1_795_238_016 * SECOND;

// === What is fed ===

fn batch_of(body: impl Into<Bytes>, received_at_ns: u64) -> Batch {
    let body = body.into();
    let envelope = Envelope::new(
        Source { receiver: Receiver::OpenAi, received_at_ns, ..Source::unknown() },
        Encoding::Json,
        body.len(),
    );
    decode(&envelope, &body, &Limits::default()).unwrap().batch
}

fn request(items: &[Value], received_at_ns: u64) -> Batch {
    batch_of(json!({ "data": items }).to_string(), received_at_ns)
}

fn trace_item(trace: &str) -> Value {
    json!({"object": "trace", "id": trace, "workflow_name": "Shop", "group_id": "chat-7",
        "metadata": {"user_id": "u1", "tags": ["beta"], "tier": 3}})
}

fn span_item(trace: &str, id: &str, parent: Option<&str>, span_data: &Value) -> Value {
    json!({"object": "trace.span", "id": id, "trace_id": trace, "parent_id": parent,
        "started_at": "2026-11-21T05:13:36Z", "ended_at": "2026-11-21T05:13:37Z",
        "span_data": span_data, "error": null})
}

fn tool(trace: &str, id: &str, parent: Option<&str>) -> Value {
    span_item(trace, id, parent, &json!({"type": "function", "name": "look_up"}))
}

fn agent(trace: &str, id: &str, parent: Option<&str>, name: &str) -> Value {
    span_item(trace, id, parent, &json!({"type": "agent", "name": name}))
}

fn call(trace: &str, id: &str, parent: Option<&str>, tokens: Option<u64>) -> Value {
    let usage = tokens.map(|tokens| json!({"input_tokens": tokens, "output_tokens": 1}));
    span_item(trace, id, parent, &json!({"type": "response", "response_id": id, "usage": usage}))
}

fn task(trace: &str, id: &str, parent: Option<&str>, tokens: u64) -> Value {
    let usage = json!({"input_tokens": tokens, "output_tokens": 1});
    let data = json!({"sdk_span_type": "task", "name": "Run", "usage": usage});
    span_item(trace, id, parent, &json!({"type": "custom", "name": "task", "data": data}))
}

fn table() -> Traces {
    Traces::new(TraceNeeds::default(), 0)
}

/// Each record has a length of one byte.
fn feed_one(table: &mut Traces, batch: &Batch) {
    table.feed(batch, Position(table.fed_until.saturating_sub(1)));
}

fn feed(table: &mut Traces, batches: &[Batch]) {
    for batch in batches {
        feed_one(table, batch);
    }
}

fn context_of(table: &mut Traces, batches: &[Batch], trace: TraceId) -> TraceContext {
    let items = batches.iter().flat_map(|batch| &batch.items);
    table.contexts(items).get(&trace).cloned().unwrap_or_default()
}

/// Puts each item in a separate request.
fn requests(items: &[Value]) -> Vec<Batch> {
    items.iter().map(|item| request(std::slice::from_ref(item), NOW)).collect()
}

/// Returns the single context of these items, each in a separate request.
fn context(items: &[Value]) -> TraceContext {
    let mut table = table();
    let batches = requests(items);
    feed(&mut table, &batches);
    let trace = batches[0].items[0].trace_id();
    context_of(&mut table, &batches, trace)
}

/// Returns the tokens of these spans that count, each span once.
fn own_tokens<'a>(context: &TraceContext, spans: impl IntoIterator<Item = &'a Span>) -> Usage {
    let by_id: BTreeMap<SpanId, &Span> =
        spans.into_iter().map(|span| (span.span_id, span)).collect();
    let mut sum = Usage::default();
    let own = by_id.values().map(|span| tokens_of(Some(context), span).own);
    own.filter(|own| own.has_tokens()).for_each(|own| sum.add(own));
    sum
}

/// Returns the input tokens that count, of these items in separate requests.
fn input_tokens(items: &[Value]) -> Option<u64> {
    let batches = requests(items);
    own_tokens(&context(items), batches.iter().flat_map(Batch::spans)).input
}

fn agent_of(context: &TraceContext, trace: &str, span: &str) -> Option<String> {
    let id: SpanId = crate::normalize::ids::span_id(trace, span);
    context.agents.get(&id).map(ToString::to_string)
}

// === Captured traffic ===

/// Returns the captured requests of each scenario, in order, as JSON, without invalid ones.
fn scenarios() -> BTreeMap<String, Vec<Value>> {
    let mut scenarios: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for fixture in golden::fixtures("agents-sdk") {
        if let Ok(body) = serde_json::from_slice(&fixture.body) {
            let folder = fixture.name.split('/').next().unwrap().to_owned();
            scenarios.entry(folder).or_default().push(body);
        }
    }
    assert!(scenarios.len() > 45, "{}", scenarios.len());
    scenarios
}

fn items_of(bodies: &[Value]) -> Vec<Value> {
    bodies.iter().flat_map(|body| body["data"].as_array().unwrap().clone()).collect()
}

/// The expected result for a trace, read from the JSON alone.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    input_tokens: u64,
    output_tokens: u64,
    workflow: Option<String>,
    session: Option<String>,
    agents: BTreeMap<String, String>,
}

fn data(item: &Value) -> &Value {
    &item["span_data"]
}

fn is_task(item: &Value) -> bool {
    data(item)["data"]["sdk_span_type"] == "task"
}

fn tokens(usage: &Value) -> (u64, u64) {
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage[name].as_u64());
    let input = count(["input_tokens", "prompt_tokens"]).unwrap_or_default();
    (input, count(["output_tokens", "completion_tokens"]).unwrap_or_default())
}

/// Returns the spans from this one upwards.
fn chain<'a>(items: &'a [Value], start: &'a Value) -> Vec<&'a Value> {
    let mut chain = vec![start];
    while let Some(parent) = chain.last().unwrap()["parent_id"].as_str()
        && let Some(found) = items.iter().find(|item| item["id"] == parent)
    {
        chain.push(found);
    }
    chain
}

fn sums(items: &[Value]) -> Sums {
    let spans: Vec<_> = items.iter().filter(|item| item["object"] == "trace.span").collect();
    let object = items.iter().find(|item| item["object"] == "trace");
    let word = |name: &str| object.and_then(|object| object[name].as_str()).map(str::to_owned);
    let mut sums =
        Sums { workflow: word("workflow_name"), session: word("group_id"), ..Sums::default() };
    let mut counted_tasks = Vec::new();
    let outermost = |item| chain(items, item).into_iter().rfind(|above| is_task(above));
    for item in &spans {
        let is_model_call = ["response", "generation", "transcription", "speech"]
            .contains(&data(item)["type"].as_str().unwrap());
        let (own, streamed, whole) = (
            &data(item)["usage"],
            &data(item)["output"][0]["usage"],
            &data(item)["response"]["usage"],
        );
        let usage = [own, streamed, whole].into_iter().find(|usage| usage.is_object());
        let (input, output) = usage.map(tokens).unwrap_or_default();
        if is_model_call && (input, output) != (0, 0) {
            sums.input_tokens += input;
            sums.output_tokens += output;
            counted_tasks.extend(outermost(item));
        }
        let name = chain(items, item).into_iter().find_map(|above| {
            let data = data(above);
            let of_turn = if data["data"]["sdk_span_type"] == "turn" {
                &data["data"]["agent_name"]
            } else {
                &Value::Null
            };
            let of_agent = if data["type"] == "agent" { &data["name"] } else { &Value::Null };
            [of_agent, of_turn, &data["from_agent"]].into_iter().find_map(Value::as_str)
        });
        if let Some(name) = name {
            sums.agents.insert(item["id"].as_str().unwrap().to_owned(), name.to_owned());
        }
    }
    for item in spans.iter().filter(|item| is_task(item)) {
        if outermost(item) == Some(item) && !counted_tasks.contains(item) {
            let (input, output) = tokens(&data(item)["data"]["usage"]);
            sums.input_tokens += input;
            sums.output_tokens += output;
        }
    }
    sums
}

#[test]
fn every_captured_trace_comes_to_what_its_items_say() {
    let (mut traces, mut tokens, mut agents) = (0, 0, 0);
    for (scenario, bodies) in scenarios() {
        let mut table = table();
        let bodies_fed: Vec<_> =
            bodies.iter().map(|body| batch_of(body.to_string(), NOW)).collect();
        feed(&mut table, &bodies_fed);
        let mut by_trace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for item in items_of(&bodies) {
            let trace = item["trace_id"].as_str().or(item["id"].as_str()).unwrap().to_owned();
            by_trace.entry(trace).or_default().push(item);
        }
        for (trace, items) in by_trace {
            let id = crate::normalize::ids::trace_id(&trace);
            let context = context_of(&mut table, &bodies_fed, id);
            let expected = sums(&items);
            let agent = |item: &Value| {
                let id = item["id"].as_str()?.to_owned();
                Some((id.clone(), agent_of(&context, &trace, &id)?))
            };
            let spans =
                || bodies_fed.iter().flat_map(Batch::spans).filter(|span| span.trace_id == id);
            let usage = own_tokens(&context, spans());
            let found = Sums {
                input_tokens: usage.input.unwrap_or_default(),
                output_tokens: usage.output.unwrap_or_default(),
                workflow: context
                    .trace
                    .as_ref()
                    .and(context.workflow.as_ref())
                    .map(ToString::to_string),
                session: context.session.as_ref().map(ToString::to_string),
                agents: items.iter().filter_map(agent).collect(),
            };
            assert_eq!(found, expected, "{scenario} {trace}");
            assert_eq!(usage, trace_total(spans()), "{scenario}: one rule, two ways");
            let first = spans().map(|span| span.start_ns).min().unwrap_or_default();
            let last = spans().map(|span| span.end_ns).max().unwrap_or_default();
            assert_eq!((context.start_ns, context.end_ns), (first, last), "{scenario}");
            traces += 1;
            tokens += found.input_tokens;
            agents += found.agents.len();
        }
    }
    assert!(traces > 50 && tokens > 10_000 && agents > 300, "{traces} {tokens} {agents}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn however_requests_are_cut_the_context_is_the_same(
        scenario: prop::sample::Index,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let scenarios = scenarios();
        let (name, bodies) = scenarios.iter().nth(scenario.index(scenarios.len())).unwrap();
        let items = items_of(bodies);
        let whole = vec![request(&items, NOW)];
        let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(items.len() + 1)).collect();
        places.extend([0, items.len()]);
        places.sort_unstable();
        let parts: Vec<_> =
            places.windows(2).map(|ends| request(&items[ends[0]..ends[1]], NOW)).collect();
        let (mut one, mut other) = (table(), table());
        feed(&mut one, &whole);
        feed(&mut other, &parts);
        let all = |table: &mut Traces| table.contexts(whole.iter().flat_map(|batch| &batch.items));
        prop_assert_eq!(all(&mut one), all(&mut other), "{}", name);
    }
}

// === One trace ===

const T: &str = "trace_5b8efff798038103d269b633813fc60c";

#[test]
fn agents_are_found_through_parents_also_when_these_come_later() {
    let items = [
        tool(T, "leaf", Some("turn")),
        span_item(
            T,
            "turn",
            Some("outer"),
            &json!({"type": "custom", "name": "turn",
            "data": {"sdk_span_type": "turn", "turn": 1}}),
        ),
        tool(T, "beside", Some("task")),
        agent(T, "outer", Some("task"), "Triage"),
        agent(T, "inner", Some("outer"), "Clerk"),
        tool(T, "deep", Some("inner")),
        task(T, "task", None, 5),
        tool(T, "loop", Some("loop")),
    ];
    let context = context(&items);
    for (span, name) in [
        ("leaf", Some("Triage")),
        ("turn", Some("Triage")),
        ("outer", Some("Triage")),
        ("inner", Some("Clerk")),
        ("deep", Some("Clerk")),
        ("beside", None),
        ("task", None),
        ("loop", None),
    ] {
        assert_eq!(agent_of(&context, T, span).as_deref(), name, "{span}");
    }
}

#[test]
fn a_task_speaks_where_its_model_calls_say_nothing_and_only_there() {
    let spoken = [call(T, "a", Some("run"), Some(7)), task(T, "run", None, 7)];
    assert_eq!(input_tokens(&spoken), Some(7));
    let silent = [call(T, "a", Some("run"), None), task(T, "run", None, 7)];
    assert_eq!(input_tokens(&silent), Some(7));
    // One run of each kind in the same trace, and a task inside a task, in both orders.
    let mut both = [
        call(T, "a", Some("one"), Some(7)),
        task(T, "one", None, 7),
        call(T, "b", Some("inner"), None),
        task(T, "inner", Some("two"), 20),
        task(T, "two", None, 30),
    ];
    assert_eq!(input_tokens(&both), Some(37));
    both.reverse();
    assert_eq!(input_tokens(&both), Some(37));
}

#[test]
fn a_circle_of_parents_ends_and_loses_no_token() {
    let circle = [call(T, "a", Some("b"), Some(5)), task(T, "b", Some("a"), 5)];
    assert_eq!(input_tokens(&circle), Some(5));
    assert_eq!(input_tokens(&[task(T, "a", Some("a"), 5)]), Some(5));
    let long = [
        task(T, "a", Some("b"), 5),
        task(T, "c", Some("a"), 5),
        task(T, "b", Some("c"), 5),
        call(T, "d", Some("c"), None),
    ];
    assert_eq!(input_tokens(&long), Some(5));
}

#[test]
fn an_update_is_not_counted_twice() {
    let mut later = call(T, "a", None, Some(7));
    later["ended_at"] = json!("2026-11-21T05:13:39Z");
    let items = [call(T, "a", None, Some(7)), later.clone(), later];
    let context = context(&items);
    assert_eq!(input_tokens(&items), Some(7));
    assert_eq!(context.end_ns - context.start_ns, 3 * SECOND);
}

#[test]
fn the_trace_object_tells_of_all_spans_whenever_it_comes() {
    for items in [[trace_item(T), task(T, "t", None, 1)], [task(T, "t", None, 1), trace_item(T)]] {
        let context = context(&items);
        assert_eq!(context.workflow.as_deref(), Some("Shop"));
        assert_eq!(context.session.as_deref(), Some("chat-7"));
        assert_eq!(context.user.as_deref(), Some("u1"));
        assert_eq!(context.tags, ["beta"]);
        assert_eq!(context.metadata.len(), 3);
        assert_eq!(context.trace.unwrap().sdk_id, T);
    }
}

#[test]
fn a_context_keeps_no_request_in_memory() {
    let items = [trace_item(T), agent(T, "a", None, "Triage"), call(T, "c", Some("a"), Some(1))];
    let body = Bytes::from(json!({ "data": items }).to_string());
    let batch = batch_of(body.clone(), NOW);
    let mut table = table();
    table.feed(&batch, Position::default());
    let contexts = table.contexts(&batch.items);
    drop(batch);
    assert!(body.is_unique());
    assert_eq!(contexts.len(), 1);
}

#[test]
fn what_is_too_long_is_left_out_or_cut() {
    let long = "x".repeat(2_000);
    let large = "\u{e9}".repeat(5_000);
    let mut object = trace_item(T);
    object["workflow_name"] = json!(long);
    object["metadata"] = json!({"small": 1, "large": "y".repeat(9_000), "after": 2,
        "tags": (0..100).map(|tag| format!("t{tag}")).collect::<Vec<_>>()});
    let model = json!({"type": "generation", "model": "m", "input": [{"content": large}],
        "output": [{"content": "short"}], "usage": null});
    let context = context(&[object, span_item(T, "g", None, &model), agent(T, "a", None, &long)]);
    assert_eq!(context.workflow, None);
    assert_eq!(agent_of(&context, T, "a"), None);
    assert_eq!(context.tags.len(), 64);
    assert!(context.trace.unwrap().metadata.is_none(), "half of a JSON object is none");
    assert!(context.metadata.len() < 4);
    let of_call = context.contents[&crate::normalize::ids::span_id(T, "g")].clone();
    let Some(Payload::Text(input)) = of_call.input else { panic!("it was cut, so it is not JSON") };
    assert!(
        input.len() <= bounds::PAYLOAD_BYTES_MAX && bounds::PAYLOAD_BYTES_MAX - 2 < input.len()
    );
    assert!(matches!(of_call.output, Some(Payload::Json(_))));
}

// === Whose tokens count ===

/// The kinds of generated spans: kind, whether they report tokens, and whether they are a task or turn of the Agents SDK.
const WORDS: [(Kind, bool, Option<&str>); 11] = [
    (Kind::Generation, true, None),
    (Kind::Generation, false, None),
    (Kind::Embedding, true, None),
    (Kind::Event, true, None),
    (Kind::Agent, true, None),
    (Kind::Agent, false, None),
    (Kind::Tool, false, None),
    (Kind::Custom, true, None),
    (Kind::Custom, false, None),
    (Kind::Chain, true, Some("task")),
    (Kind::Chain, true, Some("turn")),
];

fn made_up(place: usize, parent: Option<usize>, word: usize) -> Span {
    let id = |place: usize| SpanId::new((place as u64 + 1).to_be_bytes());
    let (kind, speaks, marked) = WORDS[word];
    // Each is a different power of two, so the sum shows which ones count.
    let tokens = 1 << place;
    let usage =
        if speaks { Usage { input: Some(tokens), ..Usage::default() } } else { Usage::default() };
    let facts = Facts {
        kind,
        usage: if kind.counts_usage() { usage } else { Usage::default() },
        aggregate_usage: if kind.counts_usage() { Usage::default() } else { usage },
        sdk_span_type: marked.map(Text::from_static),
        ..Facts::default()
    };
    let outline = SpanHeader {
        trace_id: TraceId::new([7; 16]).unwrap(),
        span_id: id(place).unwrap(),
        parent_id: parent.and_then(id),
        start_ns: NOW,
        end_ns: NOW,
        wire: Bytes::new(),
    };
    Span::synthetic(outline, Arc::default(), Detail::default(), facts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_call_counts_once_in_whatever_order_its_spans_come(
        spans in prop::collection::vec((0..WORDS.len(), any::<prop::sample::Index>()), 1..14),
        order in prop::collection::vec((any::<u64>(), any::<prop::sample::Index>()), 20..30),
        is_missing in any::<u16>(),
    ) {
        let parent = |place: usize, index: &prop::sample::Index| {
            // The last but one is a span that was never seen.
            match index.index(place + 2) {
                above if above < place => Some(above),
                above if above == place => Some(40),
                _ => None,
            }
        };
        let made = |place: usize| {
            let (word, index) = &spans[place];
            Item::Span(made_up(place, parent(place, index), *word))
        };
        let is_there = |place: &usize| *place < 2 || is_missing & (1 << place) == 0;
        let there: Vec<usize> = (0..spans.len()).filter(is_there).collect();
        // All of them in some order, some of them twice.
        let mut arrivals: Vec<(u64, usize)> =
            there.iter().zip(&order).map(|(place, (at, _))| (*at, *place)).collect();
        arrivals.extend(order.iter().take(5).map(|(at, which)| (at.rotate_left(7), there[which.index(there.len())])));
        arrivals.sort_unstable();

        let items: Vec<Item> = there.iter().map(|place| made(*place)).collect();
        let all: Vec<&Span> = items.iter().filter_map(Item::as_span).collect();
        let expected: u64 = counted(&all).values().filter_map(|usage| usage.input).sum();
        let mut table = table();
        for (_, place) in arrivals {
            let source = Source { received_at_ns: NOW, ..Source::unknown() };
            table.feed(&Batch { source, items: vec![made(place)], bytes: 0 }, Position::default());
        }
        let context = table.contexts(&items)[&items[0].trace_id()].clone();
        let own = own_tokens(&context, all.iter().copied());
        prop_assert_eq!(own.input.unwrap_or_default(), expected);
        for span in all {
            let (told, facts) = (tokens_of(Some(&context), span), span.facts());
            let mut both = *told.own;
            both.add(told.aggregate);
            let mut said = facts.usage;
            said.add(&facts.aggregate_usage);
            prop_assert_eq!(both, said, "what does not count is still told");
        }
    }
}

#[test]
fn a_cost_counts_where_its_tokens_do() {
    let cost = |total| Cost { total: Some(total), ..Cost::default() };
    let priced = |place, parent, word, total| {
        let span = made_up(place, parent, word);
        let facts = Facts { cost: cost(total), ..span.facts().clone() };
        let outline = SpanHeader {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_id: span.parent_id,
            start_ns: NOW,
            end_ns: NOW,
            wire: Bytes::new(),
        };
        Item::Span(Span::synthetic(outline, Arc::default(), Detail::default(), facts))
    };
    // An agent with two calls, one of which has another inside, and a remote agent that only reports its cost.
    let items = || {
        vec![
            priced(1, Some(0), 0, 1.0),
            priced(2, Some(1), 0, 0.5),
            priced(3, Some(0), 0, 0.25),
            priced(4, None, 5, 0.125),
            priced(0, None, 4, 1.25),
        ]
    };
    let mut table = table();
    table.feed(&Batch { source: Source::unknown(), items: items(), bytes: 0 }, Position::default());
    let items = items();
    let context = table.contexts(&items)[&items[0].trace_id()].clone();
    let told = items.iter().filter_map(Item::as_span).map(|span| tokens_of(Some(&context), span));
    let counted: Vec<Option<f64>> = told.map(|tokens| tokens.own_cost().total).collect();
    assert_eq!(counted, [None, Some(0.5), Some(0.25), Some(0.125), None]);
}

// === What is sent once more ===

/// Feeds a table for a sink that replaces by id. Each item is a separate request, sent as soon as it was read.
fn amended(items: &[Value]) -> Vec<Vec<usize>> {
    let needs = TraceNeeds { replaces_by_id: true, ..TraceNeeds::default() };
    let mut table = Traces::new(needs, 0);
    let mut amended = Vec::new();
    let batches = requests(items);
    for (number, batch) in batches.iter().enumerate() {
        table.feed(batch, Position(number as u64));
        let mut again = Vec::new();
        while let Some((Position(at), places)) = table.amendments.pop_first() {
            assert_eq!(places, BTreeSet::from([0]));
            again.push(usize::try_from(at).unwrap());
        }
        let sent = again.iter().map(|at| &batches[*at].items[0]).chain(&batch.items);
        table.contexts(sent);
        amended.push(again);
    }
    // A restart has the same state, and everything counts as sent with it.
    let mut again = Traces::new(needs, 0);
    feed(&mut again, &batches);
    again.note_all_sent();
    again.advance(NOW + SECOND);
    again.feed(&batches[0], Position(99));
    assert!(again.amendments.is_empty());
    amended
}

#[test]
fn a_span_is_sent_once_more_when_it_is_decided_otherwise_whether_it_counts() {
    // Here, parents arrive before their children. A task counts until a call below it does, first the outer one and then the inner one.
    let silent_then_spoken = [
        task(T, "outer", None, 7),
        task(T, "inner", Some("outer"), 7),
        call(T, "silent", Some("inner"), None),
        call(T, "spoken", Some("outer"), Some(7)),
        call(T, "late", Some("inner"), Some(7)),
    ];
    assert_eq!(amended(&silent_then_spoken), [vec![], vec![], vec![], vec![0, 1], vec![1]]);
    // The outermost counts, even if it arrives last.
    let outermost_last = [
        task(T, "inner", Some("between"), 7),
        task(T, "outer", None, 7),
        tool(T, "between", Some("outer")),
    ];
    assert_eq!(amended(&outermost_last), [vec![], vec![], vec![0]]);
    // A call that contains another.
    let around = [call(T, "a", None, Some(7)), call(T, "b", Some("a"), Some(7))];
    assert_eq!(amended(&around), [vec![], vec![0]]);
}

#[test]
fn the_session_of_an_otlp_root_is_that_of_its_trace_and_what_was_sent_with_another_is_sent_once_more()
 {
    let otlp = |id: u8, parent: &str, session: Option<&str>| {
        let said = session.map(|it| json!({"key": "session.id", "value": {"stringValue": it}}));
        let span = json!({"traceId": "07".repeat(16), "spanId": format!("{id:016x}"), "parentSpanId": parent, "name": "s",
            "attributes": said.into_iter().collect::<Vec<_>>()});
        let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
        let source =
            Source { receiver: Receiver::OtlpHttp, received_at_ns: NOW, ..Source::unknown() };
        let envelope = Envelope::new(source, Encoding::Json, body.len());
        decode(&envelope, &body.into(), &Limits::default()).unwrap().batch
    };
    let root = format!("{:016x}", 1);
    let batches = [
        otlp(3, &root, Some("of-an-agent-below")),
        otlp(2, &root, None),
        otlp(1, "", Some("of-the-root")),
        otlp(4, &root, Some("another")),
        otlp(5, "", Some("of-a-second-root")),
    ];
    let needs = TraceNeeds { replaces_by_id: true, ..TraceNeeds::default() };
    let mut table = Traces::new(needs, 0);
    let mut sessions = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        table.feed(batch, Position(number as u64));
        let contexts = table.contexts(&batch.items);
        let session = &contexts.values().next().unwrap().session;
        sessions.push(session.as_ref().map(ToString::to_string));
    }
    let first = Some("of-an-agent-below".to_owned());
    let own = Some("of-the-root".to_owned());
    assert_eq!(sessions, [first.clone(), first, own.clone(), own.clone(), own]);
    let (Position(at), places) = table.amendments.pop_first().unwrap();
    assert_eq!((at, places), (1, BTreeSet::from([0])));
    assert!(table.amendments.is_empty());
}

#[test]
fn a_span_is_sent_once_more_for_session_user_tags_and_root_and_not_for_what_it_says_itself() {
    assert_eq!(amended(&[tool(T, "a", None), trace_item(T)]), [vec![], vec![0]]);
    assert_eq!(amended(&[trace_item(T), tool(T, "a", None)]).concat(), [0_usize; 0]);
    let runs = [task(T, "one", None, 1), tool(T, "x", Some("one")), task(T, "two", None, 1)];
    assert_eq!(amended(&runs), [vec![], vec![], vec![0]]);
}

// === Bounds ===

fn name_of(number: usize) -> String {
    format!("trace_{:032x}", number + 1)
}

#[test]
fn a_trace_with_too_many_spans_still_counts_them_and_no_token_twice() {
    let count = bounds::SPANS_MAX + 100;
    let mut items: Vec<_> =
        (0..count).map(|number| call(T, &format!("s{number}"), Some("run"), Some(1))).collect();
    items.push(task(T, "run", None, count as u64));
    let mut table = table();
    let batch = request(&items, NOW);
    table.feed(&batch, Position::default());
    let batches = [batch];
    let context = context_of(&mut table, &batches, crate::normalize::ids::trace_id(T));
    assert_eq!(own_tokens(&context, batches[0].spans()).input, Some(count as u64));
    assert!(table.entries.bytes() < 2 << 20, "{}", table.entries.bytes());
}

#[test]
fn the_trace_that_was_quiet_for_longest_goes_first_and_is_counted() {
    let needs = TraceNeeds { root: RootSpan::Never, contents: true, ..TraceNeeds::default() };
    let mut table = Traces::new(needs, 0);
    let large = "z".repeat(bounds::PAYLOAD_BYTES_MAX);
    let model = json!({"type": "generation", "model": "m", "input": large, "output": large});
    let batches: Vec<_> = (0..3_000)
        .map(|number| {
            let items =
                [span_item(&name_of(number), "g", None, &model), tool(&name_of(0), "x", None)];
            request(&items, NOW + number as u64)
        })
        .collect();
    for batch in &batches {
        table.feed(batch, Position::default());
        assert!(table.entries.bytes() <= BYTES_MAX);
    }
    let fill = table.fill();
    assert_eq!(fill.traces + fill.evicted, 3_000);
    assert!(fill.evicted > 500, "{fill:?}");
    let mut is_known = |number| {
        let id = crate::normalize::ids::trace_id(&name_of(number));
        table.contexts(&batches[number].items).contains_key(&id)
    };
    assert!(is_known(0), "it was never quiet");
    assert!(is_known(2_999) && !is_known(1));
}

#[test]
fn a_table_is_as_large_as_what_is_in_it() {
    let needs = TraceNeeds { root: RootSpan::Never, contents: true, ..TraceNeeds::default() };
    let mut table = Traces::new(needs, 0);
    for number in 0..TRACES_MAX / 512 + 10 {
        let items: Vec<_> =
            (0..512).map(|place| tool(&name_of(number * 512 + place), "x", None)).collect();
        table.feed(&request(&items, NOW), Position::default());
    }
    assert!(table.fill().traces <= TRACES_MAX as u64 && 0 < table.fill().evicted);
    table.advance(NOW + nanos(FORGET_AFTER) + 1);
    assert_ne!(table.fill().traces, 0, "they are still to be delivered");
    table.settle(Position(table.fed_until - 1));
    assert_eq!((table.fill().traces, table.fill().bytes), (0, 0));
    assert!(table.entries.count() == 0);
}

#[test]
fn a_full_table_stays_within_its_bound_also_by_the_systems_own_count() {
    alone(&["small", "rooted", "deep", "worded"], |case| {
        let payload = "z".repeat(bounds::PAYLOAD_BYTES_MAX);
        let model =
            json!({"type": "generation", "model": "m", "input": payload, "output": payload});
        let tags: Vec<_> = (0..bounds::TAGS_MAX).map(|tag| format!("t{tag}")).collect();
        let items = |number: usize| -> Vec<Value> {
            let trace = |place| name_of(number * 100 + place);
            match case {
                "small" => (0..100).map(|place| tool(&trace(place), "x", Some("p"))).collect(),
                "rooted" => (0..100).map(|place| tool(&trace(place), "x", None)).collect(),
                "deep" => (0..100)
                    .map(|place| call(&name_of(number / 40), &trace(place), Some("p"), Some(1)))
                    .collect(),
                _ => vec![
                    json!({"object": "trace", "id": trace(0), "workflow_name": "Shop",
                        "metadata": {"tags": tags, "long": "m".repeat(7000)}}),
                    span_item(&trace(0), "g", None, &model),
                ],
            }
        };
        let needs = TraceNeeds { replaces_by_id: true, ..TraceNeeds::default() };
        // A deep trace has 4,000 spans.
        let enough = if case == "deep" { 4 } else { 200 };
        let fill = |count: usize| {
            let mut table = Traces::new(needs, 1);
            for number in 0.. {
                feed_one(&mut table, &request(&items(number), NOW));
                table.take_roots(100);
                if number >= count || table.fill().evicted > enough {
                    break;
                }
            }
            table
        };
        // This excludes what is created once.
        fill(2);
        let before = resident_bytes();
        let table = fill(usize::MAX);
        let bytes = resident_bytes() - before;
        drop(table);
        assert_within(case, bytes, BYTES_MAX);
    });
}

#[test]
fn metadata_of_20_kb_takes_no_more_of_a_trace_than_its_bound() {
    let mut table = table();
    let mut object = trace_item(T);
    feed_one(&mut table, &request(&[object.clone()], NOW));
    let small = table.fill().bytes;
    for pairs in [1, 20, 2_000] {
        object["id"] = json!(format!("{T}{pairs}"));
        let pair = |at| (format!("k{at}"), json!("v".repeat(20_000 / pairs)));
        object["metadata"] = (0..pairs).map(pair).collect();
        let before = table.fill().bytes;
        let batch = request(&[object.clone()], NOW);
        feed_one(&mut table, &batch);
        let more = table.fill().bytes - before;
        // Its pairs, and their slots in the list.
        let places = bounds::METADATA_BYTES_MAX / 10 * 2 * size_of::<(Text, Payload)>();
        assert!(more <= small + (bounds::METADATA_BYTES_MAX + places) as u64, "{pairs}: {more}");
        let trace = batch.items[0].trace_id();
        let known = context_of(&mut table, &[batch], trace);
        let told: usize =
            known.metadata.iter().map(|(name, value)| name.len() + value.as_str().len()).sum();
        assert!(told <= bounds::METADATA_BYTES_MAX, "{pairs}: {told}");
    }
}

#[test]
fn a_trace_of_tasks_within_tasks_takes_steps_for_its_spans_and_not_for_their_threes() {
    // The cube of this would take hours.
    let count = bounds::SPANS_MAX - 1;
    let needs = TraceNeeds { replaces_by_id: true, ..TraceNeeds::default() };
    let name = |number: usize| format!("task_{number}");
    for goes_down in [true, false] {
        let mut table = Traces::new(needs, 1);
        let mut items: Vec<_> = (0..count)
            .map(|number| {
                let parent = number.checked_sub(1).map(name);
                task(T, &name(number), parent.as_deref(), 1)
            })
            .collect();
        if !goes_down {
            items.reverse();
        }
        let batches: Vec<_> = items.chunks(50).map(|items| request(items, NOW)).collect();
        for batch in &batches {
            feed_one(&mut table, batch);
            table.contexts(&batch.items);
        }
        let trace = batches[0].items[0].trace_id();
        let context = context_of(&mut table, &batches, trace);
        let spans = batches.iter().flat_map(Batch::spans);
        assert_eq!(own_tokens(&context, spans).input, Some(1), "the first speaks for all");
    }
}

// === Roots ===

fn owing(roots_until: u64) -> Traces {
    Traces::new(TraceNeeds::default(), roots_until)
}

/// Returns the names of due roots, and the record up to which they are due.
fn due(table: &mut Traces) -> (Vec<String>, u64) {
    let Some(due) = table.take_roots(100) else { return (Vec::new(), 0) };
    let name = |root: &DueRoot| root.span.facts().name.to_string();
    (due.roots.iter().map(name).collect(), due.until)
}

#[test]
fn a_root_is_due_once_when_its_trace_was_quiet() {
    let mut table = owing(0);
    feed_one(&mut table, &request(&[trace_item(T), tool(T, "a", None)], NOW));
    table.advance(NOW + 5 * SECOND);
    feed_one(&mut table, &request(&[tool(T, "b", None)], NOW + 9 * SECOND));
    table.advance(NOW + 18 * SECOND);
    assert_eq!(due(&mut table), (vec![], 0), "it was not quiet for ten seconds");
    table.advance(NOW + 19 * SECOND);
    assert_eq!(due(&mut table), (vec!["invoke_workflow Shop".to_owned()], behind(Position(1))));
    feed_one(&mut table, &request(&[tool(T, "late", None)], NOW + 20 * SECOND));
    table.advance(NOW + 60 * SECOND);
    assert_eq!(due(&mut table), (vec![], 0));
    assert_eq!(table.next_root_at_ns(), None);
}

#[test]
fn a_root_says_what_is_known_of_its_trace() {
    let mut table = owing(0);
    let mut last = tool(T, "b", None);
    last["ended_at"] = json!("2026-11-21T05:13:59Z");
    feed_one(&mut table, &request(&[trace_item(T), tool(T, "a", None), last], NOW));
    table.advance(NOW + 60 * SECOND);
    let root = table.take_roots(1).unwrap().roots.pop().unwrap().span;
    assert!(root.is_synthetic() && root.parent_id.is_none());
    assert_eq!(root.span_id, crate::normalize::ids::root_span_id(T));
    assert_eq!((root.start_ns, root.end_ns), (NOW, NOW + 23 * SECOND));
    let said: BTreeMap<&str, &crate::span::Value> =
        root.detail().attributes.iter().map(|said| (&*said.key, &said.value)).collect();
    let text = |text: &'static str| crate::span::Value::Text(Text::from_static(text));
    for (key, value) in [
        ("openai.agents.trace_id", text(T)),
        ("gen_ai.operation.name", text("invoke_workflow")),
        ("gen_ai.workflow.name", text("Shop")),
        ("gen_ai.conversation.id", text("chat-7")),
        ("session.id", text("chat-7")),
        ("openinference.span.kind", text("CHAIN")),
        ("openai.agents.metadata.tier", crate::span::Value::Int(3)),
    ] {
        assert_eq!(said.get(key), Some(&&value), "{key}");
    }
    assert!(said.contains_key("metadata"));
    assert_eq!(root.detail().name, "invoke_workflow Shop");
    assert_eq!(root.facts().kind, Kind::Chain);
    assert_eq!(root.facts().user.as_deref(), Some("u1"));
}

#[test]
fn only_traces_that_need_one_owe_a_root() {
    for (rule, expected) in [(RootSpan::Auto, 1), (RootSpan::Always, 2), (RootSpan::Never, 0)] {
        let mut table = Traces::new(TraceNeeds { root: rule, ..TraceNeeds::default() }, 0);
        let with_task = [task(&name_of(1), "t", None, 1), tool(&name_of(1), "x", Some("t"))];
        feed_one(&mut table, &request(&with_task, NOW));
        feed_one(&mut table, &request(&[tool(&name_of(2), "x", None)], NOW));
        table.advance(NOW + 60 * SECOND);
        assert_eq!(due(&mut table).0.len(), expected, "{rule:?}");
    }
}

#[test]
fn a_second_task_gives_its_trace_a_root_and_both_hang_below_it() {
    let auto = RootSpan::Auto;
    let first = request(&[task(T, "one", None, 1), tool(T, "x", Some("one"))], NOW);
    let second = request(&[task(T, "two", None, 1)], NOW + SECOND);
    let mut table = owing(0);
    table.feed(&first, Position::default());
    table.feed(&first, Position::default());
    let alone = context_of(&mut table, std::slice::from_ref(&first), first.items[0].trace_id());
    let task_of = |batch: &Batch| batch.spans().next().map(|span| span.span_id).unwrap();
    let parent = |context: &TraceContext, batch: &Batch| {
        auto.parent_of(Some(context), batch.spans().next().unwrap())
    };
    assert_eq!(parent(&alone, &first), None, "it is the root by nature");
    table.feed(&second, Position::default());
    let both = context_of(&mut table, std::slice::from_ref(&first), first.items[0].trace_id());
    let root = Some(crate::normalize::ids::root_span_id(T));
    assert_eq!((parent(&both, &first), parent(&both, &second)), (root, root));
    assert_ne!(task_of(&first), task_of(&second));
    table.advance(NOW + 60 * SECOND);
    let due = table.take_roots(9).unwrap().roots;
    assert_eq!(due.len(), 1);
    assert_eq!(auto.parent_of(Some(&due[0].context), &due[0].span), None, "not below itself");
    // A trace that is forgotten and continues still has a root.
    table.settle(Position(table.fed_until - 1));
    table.advance(NOW + 2 * nanos(FORGET_AFTER));
    assert_eq!(table.fill().traces, 0);
    let late = request(&[task(T, "three", None, 1)], NOW + 2 * nanos(FORGET_AFTER));
    table.feed(&late, Position::default());
    let known = context_of(&mut table, std::slice::from_ref(&late), late.items[0].trace_id());
    assert_eq!(parent(&known, &late), root);
}

#[test]
fn a_task_is_told_what_went_through_the_models_below_it_and_the_root_of_all() {
    let said = |id: &str, parent: &str, word: &str, second: u32| {
        let mut item = span_item(
            T,
            id,
            Some(parent),
            &json!({"type": "generation", "model": "m",
            "input": [{"content": format!("{word}?")}], "output": [{"content": format!("{word}!")}]}),
        );
        item["started_at"] = json!(format!("2026-11-21T05:13:{second}Z"));
        item["ended_at"] = json!(format!("2026-11-21T05:13:{second}Z"));
        item
    };
    // Children first, in the SDK's order.
    let batches = requests(&[
        said("g2", "a1", "second", 42),
        said("g1", "a1", "first", 41),
        agent(T, "a1", Some("one"), "A"),
        task(T, "one", None, 1),
        said("g3", "a2", "third", 43),
        agent(T, "a2", Some("two"), "A"),
        task(T, "two", None, 1),
    ]);
    let mut table = owing(0);
    feed(&mut table, &batches);
    let context = context_of(&mut table, &batches, batches[0].items[0].trace_id());
    let shown = |content: &crate::span::Content| {
        let text = |side: &Option<Payload>| side.as_ref().unwrap().as_str().to_owned();
        (text(&content.input), text(&content.output))
    };
    let expected = |from: &str, to: &str| {
        (
            json!([{"content": format!("{from}?")}]).to_string(),
            json!([{"content": format!("{to}!")}]).to_string(),
        )
    };
    let of = |id: &str| shown(&context.contents[&crate::normalize::ids::span_id(T, id)]);
    assert_eq!(of("one"), expected("first", "second"));
    assert_eq!(of("two"), expected("third", "third"));
    assert_eq!(context.contents.len(), 2);
    table.advance(NOW + 60 * SECOND);
    let root = table.take_roots(1).unwrap().roots.remove(0).span;
    let facts = root.facts();
    let whole = crate::span::Content { input: facts.input.clone(), output: facts.output.clone() };
    assert_eq!(shown(&whole), expected("first", "third"));
}

#[test]
fn what_a_lane_reads_is_its_time() {
    let mut table = owing(0);
    for number in 0..5 {
        feed_one(
            &mut table,
            &request(&[tool(&name_of(number), "x", None)], NOW + number as u64 * 4 * SECOND),
        );
    }
    // The last was received 16 s after the first, so two traces had been quiet for ten seconds.
    assert_eq!(due(&mut table), (vec!["invoke_workflow".to_owned(); 2], behind(Position(1))));
}

#[test]
fn after_a_start_only_roots_that_were_not_sent_are_owed() {
    let journal: Vec<_> = (0..5)
        .map(|number| {
            request(&[tool(&name_of(number), "x", None)], NOW + number as u64 * 4 * SECOND)
        })
        .collect();
    let mut table = owing(0);
    feed(&mut table, &journal);
    let until = due(&mut table).1;
    let mut again = owing(until);
    feed(&mut again, &journal);
    assert_eq!(due(&mut again), (vec![], 0), "these two were sent");
    feed_one(&mut again, &request(&[tool(&name_of(0), "late", None)], NOW + 17 * SECOND));
    again.advance(NOW + 60 * SECOND);
    assert_eq!(due(&mut again).0.len(), 3);
}

#[test]
fn a_sink_that_joins_owes_nothing_for_what_was_before() {
    let mut table = owing(0);
    feed_one(&mut table, &request(&[tool(&name_of(0), "x", None)], NOW));
    let until = table.join();
    feed_one(&mut table, &request(&[tool(&name_of(1), "x", None)], NOW));
    table.advance(NOW + 60 * SECOND);
    let (names, after) = due(&mut table);
    assert_eq!(names.len(), 1);
    assert!(until < after);
}

#[test]
fn an_evicted_trace_gets_its_root_at_once_and_no_second_one() {
    let mut table = owing(0);
    feed_one(&mut table, &request(&[tool(T, "first", None)], NOW));
    for number in 0..TRACES_MAX / 512 {
        let items: Vec<_> =
            (0..512).map(|place| tool(&name_of(number * 512 + place), "x", Some("p"))).collect();
        feed_one(&mut table, &request(&items, NOW + 1));
    }
    assert!(0 < table.fill().evicted);
    assert_eq!(due(&mut table), (vec!["invoke_workflow".to_owned()], 0));
    feed_one(&mut table, &request(&[tool(T, "late", None)], NOW + 2));
    table.advance(NOW + 60 * SECOND);
    assert_eq!(due(&mut table), (vec![], 0));
}

#[test]
fn roots_of_evicted_traces_wait_within_a_bound_and_what_has_no_room_is_counted() {
    let mut table = owing(0);
    let (count, mut fed, mut sent) = (40_000, 0, 0);
    while fed < count {
        let items: Vec<_> =
            (fed..fed + 512).map(|number| tool(&name_of(number), "x", None)).collect();
        fed += items.len();
        feed_one(&mut table, &request(&items, NOW));
        let bytes = table.fill().bytes;
        assert!(bytes <= (BYTES_MAX + EARLY_BYTES_MAX) as u64, "{bytes}");
    }
    let full = table.fill();
    assert!(0 < full.rootless && full.rootless < full.evicted, "{full:?}");
    while let Some(due) = table.take_roots(100) {
        sent += due.roots.len() as u64;
    }
    assert_eq!(sent + full.rootless, full.evicted, "every one is sent or counted");
    let rest = table.fill();
    assert!(full.bytes - rest.bytes <= EARLY_BYTES_MAX as u64, "{rest:?}");
    table.advance(NOW + 60 * SECOND);
    while let Some(due) = table.take_roots(100) {
        sent += due.roots.len() as u64;
    }
    assert_eq!(sent + full.rootless, fed as u64);
}

#[test]
fn a_clock_that_is_set_back_holds_back_no_root() {
    let hour = 3600 * SECOND;
    let quiet = |table: &mut Traces, number: usize, at_ns: u64| {
        feed_one(table, &request(&[tool(&name_of(number), "x", None)], at_ns));
        table.advance(at_ns + 9 * SECOND);
        assert_eq!(due(table).0.len(), 0, "{number} is not quiet");
        let next_ns = table.next_root_at_ns().unwrap();
        assert_eq!(next_ns, at_ns + 10 * SECOND, "in the time of the clock");
        table.advance(next_ns);
        assert_eq!(due(table).0.len(), 1, "{number}");
    };
    let mut table = owing(1);
    quiet(&mut table, 0, NOW);
    quiet(&mut table, 1, NOW - hour);
    quiet(&mut table, 2, NOW - hour / 2);
    quiet(&mut table, 3, NOW - 2 * hour);
    // A restart reads all of it, and what follows.
    let records: Vec<_> = [0, hour, hour / 2, 2 * hour]
        .iter()
        .enumerate()
        .map(|(number, back)| request(&[tool(&name_of(number), "x", None)], NOW - back))
        .collect();
    let mut again = owing(behind(Position(3)));
    feed(&mut again, &records);
    again.advance(NOW - 2 * hour + 60 * SECOND);
    assert_eq!(due(&mut again), (vec![], 0), "all of these were sent");
    quiet(&mut again, 4, NOW - hour);
    quiet(&mut again, 5, NOW - 3 * hour);
}

#[test]
fn a_request_that_took_long_to_arrive_does_not_make_time_go_faster() {
    let mut table = owing(1);
    feed_one(&mut table, &request(&[tool(T, "x", None)], NOW));
    for step in 0..9 {
        table.advance(NOW + step * SECOND);
        table.advance(NOW + step * SECOND - 30 * SECOND);
    }
    assert_eq!(due(&mut table).0.len(), 0);
    table.advance(NOW + 10 * SECOND);
    assert_eq!(due(&mut table).0.len(), 1);
}
