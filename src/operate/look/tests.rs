//! Tests of trace views.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::view::dollars_text;
use super::*;
use crate::feed::tests::{accept, arrival, feed, otlp_arrival};
use crate::feed::{Feed, FeedOptions};
use crate::index::{Part, Places};
use crate::journal::tests::faulty::FaultyStorage;
use crate::journal::{Cursor, Journal, Mark, MemoryStorage, Options};
use crate::operate::{Replays, Store};
use crate::pipeline::Lanes;
use crate::prices::{PriceOptions, Prices};
use crate::rules::Rules;

fn operator(feed: &Feed) -> Operator {
    let store = || {
        let journal = Journal::open(&Options::default(), Arc::<MemoryStorage>::default(), drop);
        Store::open(journal.unwrap()).unwrap()
    };
    let replays =
        Replays { feed: feed.clone(), lanes: Lanes::default(), before_journal: Mutex::default() };
    Operator::new(store(), store(), Some(replays))
}

async fn run<C: Command>(feed: &Feed, command: C) -> Result<C::Answer, CommandError> {
    operator(feed).carry_out(command, drop).await
}

fn span(id: u64, parent: u64, name: &str, attributes: &str) -> String {
    let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
    format!(
        r#"{{"traceId":"{:032x}","spanId":"{id:016x}","parentSpanId":"{parent}","name":"{name}","startTimeUnixNano":"{}","endTimeUnixNano":"{}","attributes":[{attributes}]}}"#,
        1,
        1_000 + id,
        5_000 + id
    )
}

async fn feed_of(requests: &[Vec<String>]) -> Feed {
    let feed = feed();
    for spans in requests {
        feed.intake().accept(otlp_arrival(spans)).await.unwrap();
    }
    feed
}

fn show(form: Option<Form>) -> TraceRequest {
    TraceRequest { id: format!("{:032x}", 1), form, span: None }
}

fn verify() -> VerifyRequest {
    VerifyRequest { id: format!("{:032x}", 1) }
}

#[tokio::test]
async fn a_tree_is_in_order_whatever_order_it_came_in_and_shows_what_is_astray() {
    let requests = [
        vec![span(4, 2, "grandchild", ""), span(3, 1, "second", "")],
        vec![span(8, 99, "orphan", "")],
        vec![span(6, 7, "circle", ""), span(7, 6, "circle too", "")],
        vec![span(2, 1, "first", ""), span(1, 0, "root", "")],
    ];
    let view = run(&feed_of(&requests).await, show(None)).await.unwrap();
    let shown: Vec<_> =
        view.spans.iter().map(|span| (span.name.as_str(), span.depth, span.is_astray)).collect();
    let expected = [
        ("root", 0, false),
        ("first", 1, false),
        ("grandchild", 2, false),
        ("second", 1, false),
        ("orphan", 0, true),
        ("circle", 0, true),
        ("circle too", 1, false),
    ];
    assert_eq!(shown, expected);
    assert_eq!(tree_text(&view).lines().count(), 7);
    let verified = run(&feed_of(&requests).await, verify()).await.unwrap();
    assert_eq!((verified.received, verified.orphans, verified.in_circles), (7, 1, 2));
    assert_eq!(verified.missing_parents, ["0000000000000063"]);
}

#[tokio::test]
async fn a_chain_of_100000_spans_is_shown_and_verified() {
    let spans: Vec<_> = (1..=100_000).map(|id| span(id, id - 1, "n", "")).collect();
    let requests: Vec<_> = spans.chunks(10_000).map(<[String]>::to_vec).collect();
    let feed = feed_of(&requests).await;
    let view = run(&feed, show(None)).await.unwrap();
    assert_eq!((view.spans.len(), view.spans.last().unwrap().depth), (100_000, 99_999));
    let verified = run(&feed, verify()).await.unwrap();
    assert_eq!((verified.distinct, verified.orphans, verified.in_circles), (100_000, 0, 0));
}

#[tokio::test]
async fn what_is_said_twice_is_counted_as_a_duplicate() {
    let twice = [vec![span(1, 0, "root", "")], vec![span(1, 0, "root again", "")]];
    let verified = run(&feed_of(&twice).await, verify()).await.unwrap();
    assert_eq!((verified.received, verified.distinct, verified.duplicates), (2, 1, 1));
    let view = run(&feed_of(&twice).await, show(None)).await.unwrap();
    let names: Vec<_> = view.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!((names, view.summary.spans), (vec!["root again"], 1), "the last one counts");
    let lines = run(&feed_of(&twice).await, show(Some(Form::Json))).await.unwrap().document;
    assert_eq!(lines.unwrap().lines().count(), 1);
}

#[tokio::test]
async fn an_answer_says_that_a_part_of_the_journal_cannot_be_read() {
    let disk = FaultyStorage::default();
    let quarantine =
        Journal::open(&Options::default(), Arc::<MemoryStorage>::default(), drop).unwrap();
    let storage = Arc::new(disk.clone());
    let feed =
        Feed::open(&FeedOptions::default(), &Options::default(), storage, quarantine).unwrap();
    for names in [&["first"][..], &["damaged", "damaged too"], &["last"]] {
        let spans: Vec<_> = names.iter().zip(1..).map(|(name, id)| span(id, 0, name, "")).collect();
        feed.intake().accept(otlp_arrival(&spans)).await.unwrap();
    }
    let mut operator = operator(&feed);
    let listed = async |operator: &Operator| {
        let list = operator.carry_out(TracesRequest::default(), drop).await.unwrap();
        let stats = operator.carry_out(StatsRequest::default(), drop).await.unwrap();
        assert_eq!(gaps(&list.index), gaps(&stats.index));
        gaps(&list.index)
    };
    operator.index = Index::new(Arc::default());
    operator.index.rebuild(feed.journal(), feed.journal().end(), || false);
    assert_eq!(listed(&operator).await, "");
    disk.tamper("00000000000000000000.log", |bytes| {
        let damaged = b"damaged too";
        let at = bytes.windows(damaged.len()).position(|it| it == damaged).unwrap();
        bytes[at] ^= 1;
    });
    operator.index = Index::new(Arc::default());
    operator.index.rebuild(feed.journal(), feed.journal().end(), || false);
    let told = listed(&operator).await;
    assert!(told.starts_with("2 items of the journal cannot be read"), "{told}");
}

#[test]
fn what_costs_nothing_costs_no_less() {
    let none = [0.0_f64; 0];
    assert_eq!(dollars_text(none.iter().sum()), "$0.000000");
    assert_eq!(dollars_text(0.25), "$0.250000");
}

#[tokio::test]
async fn what_cannot_be_read_any_more_is_told_with_what_was_received() {
    let feed = feed_of(&[vec![span(1, 0, "root", "")]]).await;
    let (journal, trace) = (feed.journal(), TraceId::from_hex(&verify().id).unwrap());
    let mut read = read::trace(journal, trace, &Places::default()).unwrap();
    read.unreadable = 2;
    let verified = verify::verify(trace, &read, Vec::new(), (journal, HashMap::new())).unwrap();
    assert_eq!((verified.received, verified.unreadable), (1, 2));
    assert!(brief::verified(&verified, "").contains("\n2 items cannot be read"));
}

#[tokio::test]
async fn what_became_of_several_traces_is_told_of_those_that_are_there() {
    let other = format!("{:032x}", 2);
    let second = span(1, 0, "root", "").replace(&verify().id, &other);
    let feed =
        feed_of(&[vec![span(1, 0, "root", ""), second], vec![span(2, 1, "child", "")]]).await;
    let ids = [other.clone(), format!("{:032x}", 3), verify().id];
    let told = run(&feed, DeliveryRequest { ids: ids.to_vec() }).await.unwrap();
    let told: Vec<_> = told.iter().map(|told| (told.trace_id.as_str(), told.received)).collect();
    assert_eq!(told, [(other.as_str(), 1), (verify().id.as_str(), 2)]);
}

#[tokio::test]
async fn a_trace_that_is_not_there_is_not_found_and_one_of_the_sdk_is_by_its_own_id() {
    let feed = feed();
    let id = |id: &str| TraceRequest { id: id.to_owned(), ..TraceRequest::default() };
    let problem = run(&feed, id("trace_1")).await.unwrap_err();
    assert!(problem.to_string().starts_with("trace trace_1 is not in the journal;"), "{problem}");
    assert!(matches!(run(&feed, verify()).await, Err(CommandError::NoTrace(_))));
    accept(&feed, &[crate::feed::tests::item("a")]).await;
    assert_eq!(run(&feed, id("trace_1")).await.unwrap().spans.len(), 1);
    assert!(matches!(run(&feed, id("trace_2")).await, Err(CommandError::NoTrace(_))));
}

#[tokio::test]
async fn without_an_index_it_is_said_why_there_is_no_list_and_a_mistake_in_a_filter_comes_first() {
    let problem = run(&feed(), TracesRequest::default()).await.unwrap_err();
    assert!(problem.to_string().contains("`admin.traces` is false"), "{problem}");
    let which = WhichTraces { filter: vec!["agnet:x".to_owned()], ..WhichTraces::default() };
    let problem =
        run(&feed(), StatsRequest { which, ..StatsRequest::default() }).await.unwrap_err();
    assert!(problem.to_string().contains("did you mean `agent`?"), "{problem}");
}

#[tokio::test]
async fn with_an_index_only_the_records_of_the_trace_are_read_and_the_same_is_found() {
    let mut requests = vec![vec![span(1, 0, "root", "")]];
    for other in 0..50 {
        requests.push(vec![
            span(1, 0, "other", "")
                .replace(&format!("{:032x}", 1), &format!("{:032x}", 100 + other)),
        ]);
    }
    requests.push(vec![span(2, 1, "child", "")]);
    let feed = feed_of(&requests).await;
    let index = Index::new(Arc::default());
    index.rebuild(feed.journal(), feed.journal().end(), || false);
    let Places(parts) = index.places(trace_named(&show(None).id), true);
    assert_eq!(parts.iter().map(|part| part.is_its_own).collect::<Vec<_>>(), [true, true, false]);
    // The index does not have this one yet.
    feed.intake().accept(otlp_arrival(&[span(3, 1, "late child", "")])).await.unwrap();
    let mut with = operator(&feed);
    with.index = index;
    let with = with.carry_out(show(None), drop).await.unwrap();
    assert_eq!(with, run(&feed, show(None)).await.unwrap());
    assert_eq!(with.spans.len(), 3);
}

#[tokio::test]
async fn a_record_is_read_once_whichever_of_the_places_it_is_in() {
    let requests: Vec<_> = (1..=20).map(|number| vec![span(number, 0, "x", "")]).collect();
    let feed = feed_of(&requests).await;
    let starts: Vec<_> = crate::feed::Records::all(feed.journal())
        .map(|record| record.unwrap().start.position)
        .collect();
    let id = trace_named(&show(None).id);
    let ids = |parts: &[(usize, usize, bool)]| {
        let part = |&(from, until, is_its_own): &(usize, usize, bool)| Part {
            from: starts[from],
            until: starts[until],
            is_its_own,
        };
        let places = Places(parts.iter().map(part).collect());
        let read = read::trace(feed.journal(), id, &places).unwrap();
        let ids = read.spans().map(|span| span.span_id.to_string());
        ids.map(|id| u64::from_str_radix(&id, 16).unwrap() - 1).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]), [0; 0]);
    assert_eq!(ids(&[(3, 3, true), (5, 5, true)]), [3, 5]);
    assert_eq!(ids(&[(0, 2, false), (1, 1, true), (2, 4, false)]), [0, 1, 2, 3, 4]);
    assert_eq!(ids(&[(2, 9, false), (4, 4, true), (6, 6, true)]), [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(ids(&[(19, 19, true)]), [19]);
}

#[tokio::test]
async fn what_a_tool_is_called_with_is_said_whole_in_every_shape() {
    let calls = |call: &str| {
        let said = format!(r#"[{{"role":"assistant","parts":[{call}]}}]"#);
        let said = serde_json::to_string(&said).unwrap();
        let kind = r#"{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}}"#;
        let output = r#"{"key":"gen_ai.output.messages","value":{"stringValue":"#;
        vec![span(1, 0, "chat", &format!("{kind},{output}{said}}}}}"))]
    };
    // As OpenTelemetry, OpenAI, Anthropic, LangChain and Gemini write calls.
    for (call, expected) in [
        (
            r#"{"type":"tool_call","name":"write","arguments":{"path":"a.txt","content":"hello"}}"#,
            r#"-> write({"path":"a.txt","content":"hello"})"#,
        ),
        (
            r#"{"type":"function","function":{"name":"write","arguments":"{\"text\":1}"}}"#,
            r#"-> write({"text":1})"#,
        ),
        (
            r#"{"type":"tool_use","id":"1","name":"write","input":{"text":"hello","to":2}}"#,
            r#"-> write({"text":"hello","to":2})"#,
        ),
        (r#"{"type":"tool_call","name":"write","args":{"to":2}}"#, r#"-> write({"to":2})"#),
        (r#"{"functionCall":{"name":"write","args":{"to":2}}}"#, r#"-> write({"to":2})"#),
        (r#"{"type":"tool_call","name":"write","arguments":null}"#, "-> write()"),
        (r#"{"type":"tool-call","toolName":"write","input":{"to":2}}"#, r#"-> write({"to":2})"#),
        (
            r#"{"type":"tool-result","toolName":"write","input":{},"output":{"type":"text","value":"done"}}"#,
            "done",
        ),
    ] {
        let view = run(&feed_of(&[calls(call)]).await, show(None)).await.unwrap();
        assert_eq!(view.conversation[0].text, expected);
    }
}

#[tokio::test]
async fn each_document_holds_the_whole_trace() {
    let said =
        |key: &str, text: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{text}"}}}}"#);
    let asked =
        r#"[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"where is ``` it?\"}]}]"#;
    let answered = r#"[{\"role\":\"assistant\",\"parts\":[{\"type\":\"tool_call\",\"name\":\"look_up\",\"arguments\":{\"id\":7}}]}]"#;
    let attributes = [
        said("gen_ai.operation.name", "chat"),
        said("gen_ai.request.model", "m-1"),
        said("gen_ai.input.messages", asked),
        said("gen_ai.output.messages", answered),
    ];
    let feed =
        feed_of(&[vec![span(1, 0, "root", ""), span(2, 1, "chat m-1", &attributes.join(","))]])
            .await;
    let view = run(&feed, show(None)).await.unwrap();
    let turns: Vec<_> =
        view.conversation.iter().map(|turn| (turn.role.as_str(), turn.text.as_str())).collect();
    assert_eq!(turns, [("user", "where is ``` it?"), ("assistant", "-> look_up({\"id\":7})")]);
    let document = async |form| run(&feed, show(Some(form))).await.unwrap().document.unwrap();
    let markdown = document(Form::Markdown).await;
    assert!(markdown.contains("### user\n\n````\nwhere is ``` it?\n````\n"), "{markdown}");
    let json = async |form| serde_json::from_str::<Value>(&document(form).await).unwrap();
    let lines = document(Form::Json).await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["request_model"]), (2, &"m-1".into()));
    let otlp = json(Form::OtlpJson).await;
    let again = otlp_arrival(&[]);
    assert!(again.decoded.batch.items.is_empty());
    assert_eq!(otlp["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
    let items = json(Form::Openai).await;
    let kinds: Vec<_> = items["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["object"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["trace", "trace.span", "trace.span"]);
    let items: Vec<_> = items["data"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert!(arrival(&items).decoded.refused.is_empty(), "it is received again");
}

#[tokio::test]
async fn what_is_behind_a_cursor_is_pending_and_what_is_before_it_has_arrived() {
    let feed =
        feed_of(&[vec![span(1, 0, "a", "")], vec![span(2, 1, "b", ""), span(3, 1, "c", "")]]).await;
    let second = {
        let mut reader = feed.journal().read_from(Position(0));
        reader.next().unwrap().unwrap().end
    };
    let id = trace_named(&verify().id);
    let read = read::trace(feed.journal(), id, &Places::default()).unwrap();
    let ledger = |joined, mark: Mark, rules: &Arc<Rules>| {
        let cursor = Cursor { mark, joined, ..Cursor::default() };
        let sinks = vec![("far".to_owned(), cursor, Arc::clone(rules))];
        let letters = verify::Letters::default();
        let verified = verify::verify(id, &read, sinks, (feed.journal(), letters));
        verified.unwrap().sinks.remove(0)
    };
    let counts =
        |sink: &SinkLedger| (sink.delivered, sink.pending, sink.filtered, sink.before_it_joined);
    let (none, end) = (Arc::default(), feed.journal().end());
    assert_eq!(counts(&ledger(0, Mark::default(), &none)), (0, 3, 0, 0));
    let half = ledger(0, second, &none);
    assert_eq!(counts(&half), (1, 2, 0, 0));
    let fates: Vec<_> = half.spans.iter().map(|(id, fate)| (id.as_str(), *fate)).collect();
    let pending = SinkOutcome::Pending;
    assert_eq!(fates, [("0000000000000002", pending), ("0000000000000003", pending)]);
    assert_eq!(counts(&ledger(1, end, &none)), (2, 0, 0, 1));
}

#[tokio::test]
async fn what_a_rule_about_whole_traces_drops_is_filtered_behind_the_cursor_only() {
    let feed = feed_of(&[vec![span(1, 0, "a", "")], vec![span(2, 1, "noise", "")]]).await;
    let rules = |text: &str| Arc::new(Rules::compile(["far"], crate::rules::of_text(text)));
    let id = trace_named(&verify().id);
    let read = read::trace(feed.journal(), id, &Places::default()).unwrap();
    let fates = |mark: Mark, rules: &Arc<Rules>| {
        let sinks =
            vec![("far".to_owned(), Cursor { mark, ..Cursor::default() }, Arc::clone(rules))];
        let letters = verify::Letters::default();
        let verified = verify::verify(id, &read, sinks, (feed.journal(), letters));
        verified.unwrap().sinks.remove(0).spans.into_values().collect::<Vec<_>>()
    };
    let one = rules("[[rules]]\nmatch = { name = 'noise' }\ndrop = true\n");
    let all = rules("[[rules]]\nmatch = { name = 'noise' }\ndrop = true\ndecide = 'trace'\n");
    let end = feed.journal().end();
    assert_eq!(fates(end, &one), [SinkOutcome::Filtered]);
    assert_eq!(fates(end, &all), [SinkOutcome::Filtered, SinkOutcome::Filtered]);
    assert_eq!(fates(Mark::default(), &all), [SinkOutcome::Pending, SinkOutcome::Pending]);
}

#[tokio::test]
async fn one_span_is_shown_with_all_that_it_holds_and_the_trace_without() {
    let said = r#"{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.output.messages","value":{"stringValue":"a secret plan"}}"#;
    let feed = feed_of(&[vec![span(1, 0, "root", ""), span(2, 1, "chat", said)]]).await;
    let whole = run(&feed, show(None)).await.unwrap();
    assert!(!serde_json::to_string(&whole.spans).unwrap().contains("secret plan"));
    assert_eq!(whole.conversation[0].span_id, "0000000000000002");
    let one = |id: &str, form| TraceRequest { span: Some(id.to_owned()), ..show(form) };
    let shown = run(&feed, one("0000000000000002", None)).await.unwrap();
    assert_eq!((shown.spans.len(), &shown.spans[0]), (1, &whole.spans[1]));
    let line = shown.line.unwrap();
    assert_eq!(
        (line["output"].as_str(), line["parent_span_id"].as_str()),
        (Some("a secret plan"), Some("0000000000000001"))
    );
    let otlp = run(&feed, one("0000000000000001", Some(Form::OtlpJson))).await.unwrap();
    let document = otlp.document.unwrap();
    assert!(document.contains("root") && !document.contains("chat"), "{document}");
    for missing in ["0000000000000009", "none"] {
        let problem = run(&feed, one(missing, None)).await.unwrap_err();
        let CommandError::NoTrace(what) = problem else { panic!("{problem}") };
        assert!(what.ends_with(&format!(" with a span {missing}")), "{what}");
    }
}

/// Returns a model call of a session's trace, with input tokens, cached ones among them, and output tokens.
fn spent((trace, id, parent): (u64, u64, u64), agent: &str, counts: [u64; 3]) -> String {
    let text = |key: &str, value: &str| {
        format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
    };
    let count = |key: &str, value: u64| {
        format!(r#"{{"key":"gen_ai.usage.{key}","value":{{"intValue":"{value}"}}}}"#)
    };
    let kind = if agent.is_empty() { "chat" } else { "invoke_agent" };
    let said = [
        text("gen_ai.operation.name", kind),
        text("gen_ai.agent.name", agent),
        text("gen_ai.request.model", "of-ours"),
        text("gen_ai.conversation.id", "chat-1"),
        count("input_tokens", counts[0]),
        count("cache_read.input_tokens", counts[1]),
        count("output_tokens", counts[2]),
    ];
    span(id, parent, "n", &said.join(",")).replace(&format!("{:032x}", 1), &format!("{trace:032x}"))
}

#[tokio::test]
async fn a_session_costs_what_its_traces_cost_and_they_cost_what_their_spans_do() {
    // Dollars per million tokens: 3.1 input, 0.77 cached, 12.3 output. In billionths of a dollar, one token costs 3100, 770 and 12300.
    let own = "[overrides.of-ours]\ninput = 3.1\ncached = 0.77\noutput = 12.3\n";
    let options: PriceOptions = toml::from_str(own).unwrap();
    let prices = Arc::new(Prices::new(&options, None));
    // (trace, calls): each call has input, of it cached, and output tokens. An agent above them repeats their sum, which must not count.
    let traces: [(u64, &[[u64; 3]]); 3] = [
        (1, &[[1_001, 333, 77], [7, 0, 1]]),
        (2, &[[123_457, 100_003, 9_973]]),
        (3, &[[1, 1, 0], [2, 1, 1], [999_983, 3, 100_019]]),
    ];
    let cost = |[input, cached, output]: [u64; 3]| {
        (input - cached) * 3_100 + cached * 770 + output * 12_300
    };
    let feed = feed();
    let (mut all, mut each) = ([0; 3], Vec::new());
    for (trace, calls) in traces {
        let sum = calls.iter().fold([0; 3], |sum, call| [0, 1, 2].map(|at| sum[at] + call[at]));
        let mut spans = vec![spent((trace, 1, 0), "Planner", sum)];
        let calls = calls.iter().zip(2..);
        spans.extend(calls.map(|(counts, id)| spent((trace, id, 1), "", *counts)));
        // Each span in its own request, the last one first.
        for span in spans.into_iter().rev() {
            feed.intake().accept(otlp_arrival(&[span])).await.unwrap();
        }
        all = [0, 1, 2].map(|at| all[at] + sum[at]);
        each.push((trace, sum));
    }
    let index = Index::new(prices);
    index.rebuild(feed.journal(), feed.journal().end(), || false);
    let mut operator = operator(&feed);
    operator.index = index;
    let nanos = |usd: Option<f64>| format!("{:.0}", usd.unwrap_or(0.0) * 1e9);
    let which = WhichTraces { filter: vec!["session:chat-1".to_owned()], ..Default::default() };
    let asked = TracesRequest { which: which.clone(), ..TracesRequest::default() };
    let list = operator.carry_out(asked, drop).await.unwrap();
    for (trace, sum) in each {
        let id = format!("{trace:032x}");
        let known = list.traces.iter().find(|known| known.trace_id == id).unwrap();
        assert_eq!((known.input_tokens, known.output_tokens), (sum[0], sum[2]));
        assert_eq!(nanos(known.cost_usd), cost(sum).to_string());
        let show = |form| TraceRequest { id: id.clone(), span: None, form };
        let view = operator.carry_out(show(None), drop).await.unwrap();
        let of_spans = |of: fn(&SpanView) -> Option<u64>| view.spans.iter().filter_map(of).sum();
        let tokens: (u64, u64) = (of_spans(|it| it.input_tokens), of_spans(|it| it.output_tokens));
        assert_eq!(tokens, (sum[0], sum[2]));
        let costs = view.spans.iter().filter_map(|span| span.cost_usd).sum();
        assert_eq!(nanos(Some(costs)), cost(sum).to_string());
        let lines = operator.carry_out(show(Some(Form::Json)), drop).await.unwrap();
        let lines = lines.document.unwrap();
        let read = |line| serde_json::from_str::<Value>(line).unwrap()["cost_usd"].as_f64();
        assert_eq!(nanos(Some(lines.lines().filter_map(read).sum())), cost(sum).to_string());
    }
    let costs = list.traces.iter().filter_map(|trace| trace.cost_usd).sum();
    assert_eq!(nanos(Some(costs)), cost(all).to_string(), "the session");
    for by in [By::Agent, By::Model] {
        let asked = StatsRequest { by, which: which.clone() };
        let rows = operator.carry_out(asked, drop).await.unwrap().rows;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.input_tokens, row.output_tokens), (all[0], all[2]));
        assert_eq!(nanos(row.cost_usd), cost(all).to_string());
    }
}

#[tokio::test]
async fn a_conversation_begins_with_what_was_asked_though_a_later_call_says_it_and_says_nothing_twice()
 {
    let said =
        |key: &str, text: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"{text}"}}}}"#);
    let message = |role: &str, kind: &str, key: &str, text: &str| {
        format!(
            r#"{{\"role\":\"{role}\",\"parts\":[{{\"type\":\"{kind}\",\"{key}\":\"{text}\"}}]}}"#
        )
    };
    let chat =
        |more: &[String]| [&[said("gen_ai.operation.name", "chat")], more].concat().join(",");
    let asked = message("user", "text", "content", "where is it?");
    let found = message("tool", "tool_call_response", "response", "on the shelf");
    let tool = [
        said("gen_ai.operation.name", "execute_tool"),
        said("gen_ai.tool.name", "find"),
        said("gen_ai.tool.call.arguments", "it"),
        said("gen_ai.tool.call.result", "on the shelf"),
    ];
    let input = said("gen_ai.input.messages", &format!("[{asked},{found}]"));
    let answer = said("gen_ai.output.messages", &message("assistant", "text", "content", "There."));
    let spans = vec![
        span(1, 0, "chat", &chat(&[])),
        span(2, 0, "execute_tool find", &tool.join(",")),
        span(3, 0, "chat", &chat(&[input, answer])),
    ];
    let view = run(&feed_of(&[spans]).await, show(None)).await.unwrap();
    let turns: Vec<_> =
        view.conversation.iter().map(|turn| (turn.role.as_str(), turn.text.as_str())).collect();
    let expected =
        [("user", "where is it?"), ("tool", "find(it)\non the shelf"), ("assistant", "There.")];
    assert_eq!(turns, expected);
}
