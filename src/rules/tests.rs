//! Tests of applying rules.

use proptest::prelude::*;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeTable;

use super::*;
use crate::normalize::{Encoding, Envelope, Limits, decode};
use crate::span::{
    Detail, Format, ONLY_SINK_HEADER, Receiver, Scope, Span, SpanHeader, SpanId, SpanReading,
    TraceId,
};
use crate::support::options::{REFERENCED, each_text_in};

/// Returns the rules of this text for a sink named `here`, or their mistakes.
pub(super) fn try_rules(text: &str) -> Result<Rules, Vec<Problem>> {
    let table = DeTable::parse(text).map(Spanned::into_inner).unwrap();
    let mut problems = Vec::new();
    let rules = read(table.get("rules"), Place::Global, &mut problems);
    if problems.is_empty() { Ok(Rules::compile(["here"], rules)) } else { Err(problems) }
}

pub(super) fn rules(text: &str) -> Rules {
    try_rules(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn request(receiver: Receiver, body: &Value) -> Arc<Batch> {
    let body = bytes::Bytes::from(body.to_string());
    let source = Source { receiver, tenant: "team-a".to_owned(), ..Source::unknown() };
    let envelope = Envelope::new(source, Encoding::Json, body.len());
    Arc::new(decode(&envelope, &body, &Limits::default()).unwrap().batch)
}

fn agents_sdk(items: &[Value]) -> Arc<Batch> {
    request(Receiver::OpenAi, &json!({ "data": items }))
}

fn line(span: &Value) -> Arc<Batch> {
    Arc::new(batch_of_span(span, "team-a").unwrap())
}

fn filtered(rules: &Rules, batch: &Arc<Batch>) -> u64 {
    let left = rules.apply(batch, KnownTraces::Request);
    assert_eq!(left.batch.items.len() as u64 + left.filtered, batch.items.len() as u64);
    left.filtered
}

/// Returns a model call as OTLP, with every field that rules can test.
fn call() -> Arc<Batch> {
    line(&json!({
        "name": "chat gpt-5-mini", "duration": "3s", "status": "error", "resource": { "service.name": "shop" },
        "attributes": {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-5-mini", "gen_ai.response.model": "gpt-5-mini-2026",
            "gen_ai.agent.name": "Triage", "session.id": "chat-7", "user.id": "ann",
            "tag.tags": ["beta", "eu"], "langfuse.trace.tags": ["beta", "eu"],
            "gen_ai.usage.input_tokens": 900, "gen_ai.usage.output_tokens": 200,
            "langfuse.observation.metadata.tier": "gold",
            "app.retries": 3, "app.flag": true, "app.code": "200", "app.list": ["x", "y"],
            "app.map": { "a": 1 },
        },
    }))
}

#[test]
fn a_condition_holds_for_what_it_says_and_for_nothing_else() {
    let call = call();
    for (condition, expected) in [
        (r#"kind = "generation""#, true),
        (r#"kind = ["tool", "generation"]"#, true),
        (r#"kind = "gen*""#, true),
        (r#"kind = "tool""#, false),
        (r#"agent = "Triage""#, true),
        (r#"agent = "triage""#, false),
        (r#"model = "gpt-5-mini""#, true),
        (r#"model = "*-2026""#, true),
        (r#"model = "gpt-?-mini""#, true),
        (r#"model = "gpt""#, false),
        (r#"model = { regex = "^gpt-\\d" }"#, true),
        (r"model = { exists = true }", true),
        (r"tool = { exists = true }", false),
        (r"tool = { exists = false }", true),
        (r#"provider = "openai""#, true),
        (r#"session = "chat-7""#, true),
        (r#"user = "ann""#, true),
        (r#"tag = "eu""#, true),
        (r#"tag = "us""#, false),
        (r#"tenant = "team-a""#, true),
        (r#"tenant = "team-?""#, true),
        (r#"tenant = "team-b""#, false),
        (r#"service = "shop""#, true),
        (r#"resource = { "service.name" = "shop" }"#, true),
        (r#"name = "chat*""#, true),
        (r#"status = "error""#, true),
        (r#"status = "ok""#, false),
        (r#"duration = ">2s""#, true),
        (r#"duration = ">= 3s""#, true),
        (r#"duration = "<3s""#, false),
        (r#"tokens = ">=1000""#, true),
        (r"tokens = 1100", true),
        (r#"tokens = ">1100""#, false),
        (r#"cost = ">0""#, false),
        (r"llm = true", true),
        (r"llm = false", false),
        (r#"receiver = "otlp_http""#, true),
        (r#"attribute = { "app.retries" = 3 }"#, true),
        (r#"attribute = { "app.retries" = "3" }"#, true),
        (r#"attribute = { "app.retries" = ">2" }"#, true),
        (r#"attribute = { "app.code" = ">=200" }"#, true),
        (r#"attribute = { "app.code" = 200 }"#, true),
        (r#"attribute = { "app.flag" = true }"#, true),
        (r#"attribute = { "app.flag" = "true" }"#, true),
        (r#"attribute = { "app.list" = "y" }"#, true),
        (r#"attribute = { "app.map" = "y" }"#, false),
        (r#"attribute = { "app.map" = { exists = true } }"#, true),
        (r#"attribute = { "app.none" = { exists = false } }"#, true),
        (r#"attribute = { "app.code" = "200", "app.flag" = false }"#, false),
        (r#"kind = "generation", status = "ok""#, false),
        (r#"any = [{ status = "ok" }, { agent = "Triage" }]"#, true),
        (r#"all = [{ status = "ok" }, { agent = "Triage" }]"#, false),
        (r#"not = { status = "ok" }"#, true),
        (r#"not = { any = [{ kind = "tool" }, { agent = "T*" }] }"#, false),
    ] {
        let rules = rules(&format!("[[rules]]\nmatch = {{ {condition} }}\ndrop = true"));
        assert_eq!(filtered(&rules, &call) == 1, expected, "{condition}");
    }
}

#[test]
fn what_a_variable_says_is_read_as_what_is_expected() {
    let text = "rules = [{ sample = '0.25' }, { drop = 'true', before_journal = 'true' }]";
    let mut table = DeTable::parse(text).map(Spanned::into_inner).unwrap();
    each_text_in(&mut table, &mut |value| {
        let at = value.span();
        *value = Spanned::new(at.start | REFERENCED..at.end | REFERENCED, value.get_ref().clone());
    });
    let mut problems = Vec::new();
    let rules = read(table.get("rules"), Place::Global, &mut problems);
    assert_eq!(problems, []);
    let [sampled, dropped] = rules.as_slice() else { panic!("{rules:?}") };
    assert!(matches!(sampled.action, Action::Sample(sample) if sample == Sample::new(0.25)));
    assert!(matches!(dropped.action, Action::Drop) && dropped.before_journal);
    assert!(try_rules("[[rules]]\nsample = '0.25'").is_err(), "a text in the file is not a number");
}

#[test]
fn an_item_of_the_agents_sdk_is_asked_in_the_same_words() {
    let batch = agents_sdk(&[json!({
        "object": "trace.span", "id": "span_1", "trace_id": "trace_1",
        "started_at": "2026-11-21T05:13:36Z", "ended_at": "2026-11-21T05:13:37Z",
        "span_data": { "type": "function", "name": "lookup", "input": "{}", "output": "1" },
        "error": { "message": "no", "data": null },
    })]);
    for condition in [
        r#"kind = "tool""#,
        r#"tool = "lookup""#,
        r#"status = "error""#,
        r#"receiver = "openai""#,
        r#"duration = "<=1s""#,
        r"llm = true",
    ] {
        let rules = rules(&format!("[[rules]]\nmatch = {{ {condition} }}\ndrop = true"));
        assert_eq!(filtered(&rules, &batch), 1, "{condition}");
    }
}

#[test]
fn a_trace_object_is_matched_by_what_it_has_and_by_no_denial_of_what_it_has_not() {
    let batch = agents_sdk(&[json!({
        "object": "trace", "id": "trace_1", "workflow_name": "Shop", "group_id": "chat-7",
        "metadata": { "team": "red", "tries": 2 },
    })]);
    for (condition, expected) in [
        (r#"name = "Shop""#, true),
        (r#"session = "chat-7""#, true),
        (r#"session = "chat-8""#, false),
        (r#"not = { session = "chat-8" }"#, true),
        (r#"tenant = "team-a""#, true),
        (r#"metadata = { team = "red", tries = ">1" }"#, true),
        (r#"kind = "tool""#, false),
        (r#"not = { kind = "tool" }"#, false),
        (r"attribute = { a = { exists = false } }", false),
        (r#"any = [{ kind = "tool" }, { session = "chat-7" }]"#, true),
        (r"llm = false", false),
    ] {
        let rules = rules(&format!("[[rules]]\nmatch = {{ {condition} }}\ndrop = true"));
        assert_eq!(filtered(&rules, &batch) == 1, expected, "{condition}");
    }
    assert_eq!(filtered(&rules("[[rules]]\ndrop = true"), &batch), 1, "it is for everything");
}

#[test]
fn what_rules_leave_as_it_is_is_the_same_request() {
    let call = call();
    for text in
        ["", "[[rules]]\nmatch = { kind = \"tool\" }\ndrop = true", "[[rules]]\nkeep = true"]
    {
        assert!(
            Arc::ptr_eq(&rules(text).apply(&call, KnownTraces::Request).batch, &call),
            "{text}"
        );
    }
}

#[test]
fn a_trace_object_that_is_dropped_speaks_through_no_span() {
    let object =
        json!({ "object": "trace", "id": "trace_1", "workflow_name": "w", "group_id": "g" });
    let span = json!({ "object": "trace.span", "id": "span_1", "trace_id": "trace_1", "span_data": { "type": "custom" } });
    let batch = agents_sdk(&[object, span]);
    let before = batch.spans().next().unwrap();
    assert_eq!(before.facts().session.as_deref(), Some("g"));
    let left = rules("[[rules]]\nmatch = { name = \"w\" }\ndrop = true")
        .apply(&batch, KnownTraces::Request);
    let span = left.batch.spans().next().unwrap();
    assert_eq!((left.filtered, span.trace.is_none()), (1, true));
    assert_eq!((&span.facts().session, &span.facts().workflow), (&None, &None));
}

#[test]
fn a_sample_takes_whole_traces_with_their_trace_objects() {
    let rules = rules("[[rules]]\nsample = 0.5");
    let mut kept = 0;
    for number in 0..200_u32 {
        let trace = format!("trace_{}", format!("{number:08x}").repeat(4));
        let span = |id: &str| json!({ "object": "trace.span", "id": id, "trace_id": trace, "span_data": { "type": "custom" } });
        let object = json!({ "object": "trace", "id": trace, "workflow_name": "w" });
        let alone = filtered(&rules, &agents_sdk(&[span("late")]));
        let together = filtered(&rules, &agents_sdk(&[object, span("a"), span("b")]));
        assert_eq!(together, alone * 3, "{trace}");
        kept += 1 - alone;
    }
    assert!((1..200).contains(&kept), "{kept}");
}

// === Order ===

/// An action on letters, and its effect in the simplest program.
#[derive(Debug, Clone)]
enum Step {
    Keep,
    Drop,
    SampleAll,
    SampleNone,
    RouteHere,
    RouteThere,
}

fn step() -> impl Strategy<Value = (u8, Step)> {
    let action = prop_oneof![
        Just(Step::Keep),
        Just(Step::Drop),
        Just(Step::SampleAll),
        Just(Step::SampleNone),
        Just(Step::RouteHere),
        Just(Step::RouteThere),
    ];
    (0_u8..8, action)
}

fn written(letters: &[&str], mask: u8, step: &Step) -> String {
    let chosen = letters.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
    let chosen: Vec<_> = chosen.map(|(_, letter)| format!("{letter:?}")).collect();
    let condition = if chosen.is_empty() {
        String::new()
    } else {
        format!("match = {{ name = [{}] }}\n", chosen.join(", "))
    };
    let action = match step {
        Step::Keep => "keep = true",
        Step::Drop => "drop = true",
        Step::SampleAll => "sample = 1.0",
        Step::SampleNone => "sample = 0.0",
        Step::RouteHere => r#"route = ["there", "here"]"#,
        Step::RouteThere => r#"route = ["there"]"#,
    };
    format!("[[rules]]\n{condition}{action}\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The first matching rule decides, unless an earlier one keeps the item; a route applies even then.
    #[test]
    fn rules_are_applied_in_order(steps in prop::collection::vec(step(), 0..6)) {
        let letters = ["a", "b", "c"];
        let text: Vec<_> = steps.iter().map(|(mask, step)| written(&letters, *mask, step)).collect();
        let text = text.concat();
        let rules = rules(&text);
        for (at, letter) in letters.iter().enumerate() {
            let (mut is_there, mut is_kept) = (true, false);
            for (mask, step) in &steps {
                if mask & 7 != 0 && mask >> at & 1 == 0 || !is_there {
                    continue;
                }
                match step {
                    Step::Keep => is_kept = true,
                    Step::Drop | Step::SampleNone => is_there = is_kept,
                    Step::RouteThere => is_there = false,
                    Step::SampleAll | Step::RouteHere => {}
                }
            }
            prop_assert_eq!(filtered(&rules, &line(&json!({ "name": letter }))) == 0, is_there);
        }
    }
}

#[test]
fn every_item_that_a_rule_matches_is_counted_once_and_not_when_it_is_read_again() {
    let rules = rules(
        "[[rules]]\nname = \"all\"\nkeep = true\n[[rules]]\nmatch = { name = \"b\" }\ndrop = true",
    );
    for name in ["a", "b", "b"] {
        rules.apply(&line(&json!({ "name": name })), KnownTraces::Request);
        rules.apply_again(&line(&json!({ "name": name })), KnownTraces::Request);
    }
    let figures: Vec<_> = rules.figures().collect();
    assert_eq!(figures, [("all", 3, 0), ("rule_2", 2, 0)]);
    let (_, steps) = rules.explain(&line(&json!({ "name": "b" })), KnownTraces::Request);
    assert_eq!(steps, [[("all", Effect::Kept), ("rule_2", Effect::Spared)]]);
}

#[test]
fn what_is_explained_is_what_becomes_of_what_a_client_sends() {
    let rules = rules(
        "[[rules]]\nname = \"kept\"\nmatch = { status = \"error\" }\nkeep = true\n\
         [[rules]]\nname = \"before\"\nmatch = { name = \"GET*\" }\ndrop = true\nbefore_journal = true\n\
         [[rules]]\nname = \"mail\"\nredact = { patterns = [\"email\"] }\nbefore_journal = true",
    );
    let failed = |name: &str| line(&json!({ "name": name, "status": "error" }));
    let (left, steps) = rules.explain(&failed("GET /"), KnownTraces::Request);
    assert_eq!((left.batch.items.len(), steps), (0, vec![vec![("before", Effect::Dropped)]]));
    let (left, steps) = rules.explain(&failed("to a@b.example"), KnownTraces::Request);
    assert_eq!(steps, [[("mail", Effect::Changed), ("kept", Effect::Kept)]]);
    assert_eq!(&*left.batch.spans().next().unwrap().facts().name, "to [email]");
}

#[test]
fn what_is_for_this_sink_alone_is_explained_like_anything_else() {
    let mut rules = Rules::compile(["mine"], None);
    let mut batch = Batch::clone(&line(&json!({ "name": "a" })));
    batch.source.headers.push((ONLY_SINK_HEADER.to_owned(), "mine".to_owned()));
    let batch = Arc::new(batch);
    let items = |rules: &Rules| rules.explain(&batch, KnownTraces::Request).0.batch.items.len();
    assert_eq!(items(&rules), 1);
    rules = Rules::compile(["other"], None);
    assert_eq!(items(&rules), 0);
}

#[test]
fn a_text_that_json_writes_with_escapes_is_absent_only_where_it_is() {
    for (text, is_absent) in [(r#"a "word""#, false), (r#"a "w""#, true)] {
        let table = format!(
            "[[tests]]\nopenai = {{ span_data = {{ type = 'custom', data = {{ said = 'a \"word\"' }} }} }}\n\
             expect = {{ absent = '{text}' }}"
        );
        let (table, mut problems) = (DeTable::parse(&table).unwrap(), Vec::new());
        let tests = read_tests(table.get_ref().get("tests"), &[], &mut problems);
        assert_eq!(problems, []);
        assert_eq!(tests[0].run(&Rules::default()).is_empty(), is_absent, "{text}");
    }
}

/// An item whose facts cannot be read.
struct Panics;

impl Format for Panics {
    fn is_otlp(&self) -> bool {
        true
    }
    fn detail(&self, _: &Span) -> Detail {
        panic!("no detail")
    }
    fn said(&self, _: &Span, _: &mut SpanReading) {
        panic!("no facts")
    }
}

#[test]
fn a_rule_that_panics_leaves_the_item_as_it_is_but_where_it_says_whose_it_is() {
    let span = || {
        let outline = SpanHeader {
            trace_id: TraceId::new([1; 16]).unwrap(),
            span_id: SpanId::new([1; 8]).unwrap(),
            parent_id: None,
            start_ns: 1,
            end_ns: 2,
            wire: bytes::Bytes::new(),
        };
        Item::Span(Span::new(outline, Arc::new(Scope::default()), None, &Panics))
    };
    let source = Source { tenant: "t".to_owned(), ..Source::unknown() };
    let batch = Arc::new(Batch { source, items: vec![span(), span()], bytes: 0 });
    let text = "[[rules]]\nmatch = { kind = \"tool\" }\ndrop = true\n";
    let one = rules(text);
    assert!(Arc::ptr_eq(&one.apply(&batch, KnownTraces::Request).batch, &batch));
    assert_eq!(one.figures().collect::<Vec<_>>(), [("rule_1", 2, 2)]);
    let two = rules(&format!("{text}[[rules]]\nmatch = {{ tenant = \"t\" }}\ndrop = true"));
    assert_eq!(
        two.apply(&batch, KnownTraces::Request).filtered,
        2,
        "a rule that asks for the tenant reads no facts"
    );
    let options = DeTable::parse("only = { kind = \"tool\" }").unwrap();
    let only = Rule::of_option("only", &options.get_ref()["only"], &mut Vec::new()).unwrap();
    let only = Rules::compile(["a"], [only]);
    assert_eq!(only.apply(&batch, KnownTraces::Request).filtered, 2, "it may be for another sink");
    assert_eq!(only.figures().collect::<Vec<_>>(), [("only", 2, 2)]);
    let only = only.waiting(DecideOptions { reparent: true, ..DecideOptions::default() });
    assert_eq!(only.survey(&batch).dropped.len(), 2, "what is below them has to know");
    let others = two.waiting(DecideOptions { reparent: true, ..DecideOptions::default() });
    assert_eq!(others.survey(&batch).traces.len(), 1);
}

#[test]
fn kept_headers_lose_what_is_redacted_but_not_whose_the_request_is() {
    let rules = rules("[[rules]]\nredact = { regex = { customer = 'acme' } }");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers =
        vec![header("user-agent", "agents of acme"), header(ONLY_SINK_HEADER, "acme-lake")];
    let span = line(&json!({ "name": "b" }));
    let source = Source { headers: headers.clone(), ..span.source.clone() };
    let batch = Arc::new(Batch { source, items: span.items.clone(), bytes: 0 });
    let sink = Rules { sinks: vec!["acme-lake".to_owned()], ..rules };
    let left = sink.apply(&batch, KnownTraces::Request);
    let kept = vec![header("user-agent", "agents of [customer]"), headers[1].clone()];
    assert_eq!((left.batch.source.headers.clone(), left.filtered), (kept, 0));
    assert_eq!(left.batch.items.len(), 1);
    assert_eq!(sink.survey(&left.batch).traces.len(), 1);
    let others = Rules { sinks: vec!["lake".to_owned()], ..sink };
    assert_eq!(others.apply(&left.batch, KnownTraces::Request).filtered, 1);
    assert!(others.survey(&left.batch).traces.is_empty(), "nothing of it waits to be decided");
}

#[test]
fn what_is_for_every_trace_is_also_for_one_of_which_nothing_has_reached_it_yet() {
    let rules = rules(
        "[[rules]]\nmatch = { llm = false }\ndrop = true\n\
         [[rules]]\nmatch = { status = \"error\" }\nkeep = true\ndecide = \"trace\"\n\
         [[rules]]\ndrop = true\ndecide = \"trace\"",
    );
    let traces = rules.survey(&line(&json!({ "name": "GET /" }))).traces;
    let decided = Decided { traces, ..Decided::default() };
    let late = line(&json!({ "name": "chat", "attributes": { "gen_ai.operation.name": "chat" } }));
    assert!(decided.traces.contains_key(&late.items[0].trace_id()));
    assert_eq!(rules.apply(&late, KnownTraces::Decided(&decided)).filtered, 1);
}

// === Parents ===

/// Returns an OTLP request of spans, each with its id, its parent's (0 for none) and its OTLP kind.
fn tree(spans: &[(u8, u8, u8)]) -> Arc<Batch> {
    let hex = |id: u8| if id == 0 { String::new() } else { format!("{id:02x}").repeat(8) };
    let spans: Vec<_> = spans
        .iter()
        .map(|(id, parent, kind)| {
            json!({
                "traceId": "5b8efff798038103d269b633813fc60c", "spanId": hex(*id),
                "parentSpanId": hex(*parent), "name": format!("span {id}"), "kind": kind,
            })
        })
        .collect();
    request(
        Receiver::OtlpHttp,
        &json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": spans }] }] }),
    )
}

#[test]
fn what_is_below_dropped_spans_hangs_under_the_nearest_that_is_left() {
    let names =
        |ids: &[u8]| ids.iter().map(|id| format!("\"span {id}\"")).collect::<Vec<_>>().join(", ");
    for (what, spans, drops, expected) in [
        ("one between", vec![(1, 0, 1), (2, 1, 1), (3, 2, 1)], vec![2], vec![(1, 0), (3, 1)]),
        ("the child first", vec![(3, 2, 1), (2, 1, 1), (1, 0, 1)], vec![2], vec![(3, 1), (1, 0)]),
        (
            "a chain",
            vec![(1, 0, 1), (2, 1, 1), (3, 2, 1), (4, 3, 1)],
            vec![2, 3],
            vec![(1, 0), (4, 1)],
        ),
        ("the root", vec![(1, 0, 1), (2, 1, 1)], vec![1], vec![(2, 0)]),
        ("an ancestor of another request", vec![(2, 1, 1), (3, 2, 1)], vec![2], vec![(3, 1)]),
        ("a caller of elsewhere", vec![(2, 9, 2), (3, 2, 1)], vec![2], vec![(3, 0)]),
        (
            "a caller that is here",
            vec![(9, 0, 3), (2, 9, 2), (3, 2, 1)],
            vec![2],
            vec![(9, 0), (3, 9)],
        ),
        ("a circle", vec![(2, 3, 1), (3, 2, 1), (4, 3, 1)], vec![2, 3], vec![(4, 0)]),
        ("nobody below", vec![(1, 0, 1), (2, 1, 1)], vec![2], vec![(1, 0)]),
    ] {
        let text = format!("[[rules]]\nmatch = {{ name = [{}] }}\ndrop = true", names(&drops));
        let left = rules(&text).apply(&tree(&spans), KnownTraces::Request);
        let id = |id: SpanId| id.as_bytes()[0];
        let found: Vec<_> = left
            .batch
            .spans()
            .map(|span| (id(span.span_id), span.parent_id.map_or(0, id)))
            .collect();
        assert_eq!(found, expected, "{what}");
        // The encoded request has the same parents.
        let mut body = Vec::new();
        crate::span::otlp::protobuf::write_request(&mut body, left.batch.spans());
        let envelope = Envelope::new(Source::unknown(), Encoding::Protobuf, body.len());
        let again = decode(&envelope, &body.into(), &Limits::default()).unwrap().batch;
        let told: Vec<_> =
            again.spans().map(|span| (id(span.span_id), span.parent_id.map_or(0, id))).collect();
        assert_eq!(told, expected, "{what}");
    }
}

#[test]
fn an_item_of_the_agents_sdk_hangs_under_the_nearest_that_is_left_in_its_own_words() {
    let span = |id: &str, parent: Value, kind: &str| {
        json!({
            "object": "trace.span", "id": id, "trace_id": "trace_1", "parent_id": parent,
            "span_data": { "type": kind, "name": "n", "input": "a long text", "output": "\u{e9}" },
        })
    };
    let batch = agents_sdk(&[
        span("span_c", "span_b".into(), "function"),
        span("span_b", "span_a".into(), "custom"),
        span("span_a", Value::Null, "agent"),
        span("span_e", "span_d".into(), "function"),
        span("span_d", Value::Null, "custom"),
    ]);
    let left = rules("[[rules]]\nmatch = { kind = \"custom\" }\ndrop = true")
        .apply(&batch, KnownTraces::Request);
    let items: Vec<Value> = (left.batch.items.iter())
        .map(|item| serde_json::from_slice(item.wire()).unwrap())
        .collect();
    assert_eq!(items[0], span("span_c", "span_a".into(), "function"));
    assert_eq!(items[1], span("span_a", Value::Null, "agent"));
    assert_eq!(items[2], span("span_e", Value::Null, "function"));
    let spans: Vec<_> = left.batch.spans().collect();
    assert_eq!(spans[0].parent_id, Some(spans[1].span_id));
    assert_eq!(spans[0].detail().agents_sdk.as_ref().unwrap().parent.as_deref(), Some("span_a"));
    assert_eq!(spans[0].facts().input.as_ref().unwrap().as_str(), "a long text");
    assert_eq!(spans[2].parent_id, None);
}

#[test]
fn a_cost_that_the_client_does_not_say_is_found_by_the_prices() {
    let options = "overrides.gpt-5-mini-2026 = { input = 1000, output = 0 }";
    let prices = Arc::new(Prices::new(&toml::from_str(options).unwrap(), None));
    let dear = "[[rules]]\nmatch = { cost = \"=0.9\" }\ndrop = true";
    let with = |prices: &Arc<Prices>| rules(dear).with_prices(Arc::clone(prices));
    assert_eq!(filtered(&with(&prices), &call()), 1);
    assert_eq!(filtered(&with(&Arc::default()), &call()), 0, "without prices there is no cost");

    // The same with rules that decide whole traces, and with `only`.
    let of_traces = rules(&format!("{dear}\ndecide = \"trace\"")).with_prices(Arc::clone(&prices));
    assert!(of_traces.survey(&call()).traces.values().all(|marks| *marks != Marks::default()));
    assert_eq!(filtered(&of_traces, &call()), 1);
    let of = |option, prices| {
        filtered(&bounded(option, "cost = '=0.9'", "").with_prices(prices), &call())
    };
    assert_eq!((of(ONLY, Arc::clone(&prices)), of(ONLY, Arc::default())), (0, 1));
    assert_eq!((of(EXCEPT, prices), of(EXCEPT, Arc::default())), (1, 0));
}

/// Returns rules for all sinks that follow a sink's `only` or `except`.
fn bounded(option: &str, condition: &str, rest: &str) -> Rules {
    let table = DeTable::parse(condition).unwrap();
    let at = table.span();
    let value = Spanned::new(at, toml::de::DeValue::Table(table.into_inner()));
    let mut problems = Vec::new();
    let bound = Rule::of_option(option, &value, &mut problems);
    assert_eq!(problems, []);
    Rules::compile(["here"], bound.into_iter().chain(of_text(rest)))
}

#[test]
fn a_sink_gets_what_it_is_for_and_nothing_that_a_rule_keeps_comes_past_that() {
    let keep = "[[rules]]\nkeep = true";
    for (condition, is_for) in [
        ("tenant = 'team-a'", true),
        ("tenant = ['team-b', 'team-a']", true),
        ("tenant = 'team-b'", false),
        ("service = 'shop'", true),
        ("attribute = { 'app.code' = '200' }", true),
        ("attribute = { 'app.team' = 'a' }", false),
    ] {
        for rest in ["", keep] {
            let left = |option| filtered(&bounded(option, condition, rest), &call()) == 0;
            assert_eq!((left(ONLY), left(EXCEPT)), (is_for, !is_for), "{condition} {rest}");
        }
    }
    let keep_first = of_text(keep).into_iter();
    let rules = bounded(ONLY, "tenant = 'team-b'", "");
    let rules = keep_first.chain(rules.all.iter().map(|placed| Arc::clone(&placed.rule)));
    assert_eq!(filtered(&Rules::compile(["here"], rules), &call()), 1);
}

#[test]
fn what_cannot_be_asked_of_a_trace_object_makes_it_no_part_s_but_that_of_the_rest() {
    let trace = agents_sdk(&[json!({ "object": "trace", "id": "trace_1", "workflow_name": "w" })]);
    let asked = "attribute = { team = 'a' }";
    assert_eq!(filtered(&bounded(ONLY, asked, ""), &trace), 1);
    assert_eq!(filtered(&bounded(EXCEPT, asked, ""), &trace), 0);
    assert_eq!(filtered(&bounded(ONLY, "tenant = 'team-a'", ""), &trace), 0);
}
