//! The ingest format from real SDKs, hostile clients and random generators.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::totals::trace_total;
use super::{agents_sdk, check_golden, decode_all, decode_fixture, envelope, facts_json};
use crate::normalize::{Encoding, Limits, Malformed, decode, scrub_credentials, trace_facts};
use crate::span::{
    Detail, Item, Kind, Receiver, Span, SpanId, Text, Usage, Value as AttributeValue, ValueOffsets,
    keys, otlp,
};
use crate::support::golden;

fn refusal(body: &str) -> Malformed {
    let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
    decode(&envelope, &Bytes::from(body.to_owned()), &Limits::default()).unwrap_err()
}

fn span_item(id: &str, span_data: &str) -> String {
    format!(
        r#"{{"object":"trace.span","id":"{id}","trace_id":"trace_5b8efff798038103d269b633813fc60c","parent_id":null,"started_at":"2026-11-21T05:13:36Z","ended_at":"2026-11-21T05:13:37Z","span_data":{span_data},"error":null}}"#
    )
}

fn body_of(items: &[String]) -> String {
    format!(r#"{{"data":[{}]}}"#, items.join(","))
}

/// Bodies with values that JSON does not allow: the old Python SDK's NaN and surrogates, and JavaScript's surrogates.
const MENDED: [&str; 5] = [
    "old_sdk_0.0.7_hostile/001.body.json",
    "old_sdk_0.0.7_hostile/002.body.json",
    "j13_unicode/001.body.json",
    "old_sdk_0.0.17/001.body.json",
    "old_sdk_0.11.8/001.body.json",
];

#[test]
fn every_captured_body_decodes_to_as_many_items_as_were_sent() {
    let fixtures = golden::fixtures("agents-sdk");
    assert_eq!(fixtures.len(), 61);
    for fixture in fixtures {
        let decoded = decode_fixture(&fixture);
        assert_eq!(
            decoded.batch.items.len() as u64,
            fixture.sidecar["items"].as_u64().unwrap(),
            "{}",
            fixture.name
        );
        assert_eq!(decoded.refused, [], "{}", fixture.name);
        for item in &decoded.batch.items {
            let parsed: serde_json::Result<&serde_json::value::RawValue> =
                serde_json::from_slice(item.wire());
            assert!(parsed.is_ok(), "{}", fixture.name);
        }
        for span in decoded.batch.spans() {
            assert_ne!(span.start_ns, 0, "{}", fixture.name);
            assert!(span.start_ns <= span.end_ns, "{}", fixture.name);
            assert!(!span.facts().name.is_empty(), "{}", fixture.name);
        }
        let is_mended = decoded.warnings.iter().any(|warning| warning.count != 0);
        assert_eq!(is_mended, MENDED.contains(&&*fixture.name), "{}", fixture.name);
    }
}

#[test]
fn spans_whose_times_are_odd_are_kept_and_counted() {
    let span = |start: &str, end: &str| {
        let item = span_item(&format!("span_{}", start.len() * 100 + end.len()), "null");
        let item = item.replace("\"2026-11-21T05:13:36Z\"", start);
        item.replace("\"2026-11-21T05:13:37Z\"", end)
    };
    let body = body_of(&[
        span("null", "null"),
        span("\"2026-11-21T05:13:36\"", "\"2026-11-21 05:13:37.5\""),
        span("\"yesterday\"", "\"today\""),
        span("\"1999-12-31T23:59:59Z\"", "null"),
        span("null", "\"2100-01-01T00:00:00Z\""),
    ]);
    let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
    let decoded = decode(&envelope, &Bytes::from(body), &Limits::default()).unwrap();
    assert_eq!((decoded.batch.items.len(), decoded.odd_times), (5, 3));
    assert_eq!(decoded.warnings.iter().map(|warning| warning.count).collect::<Vec<_>>(), [3]);
    let durations: Vec<_> = decoded.batch.spans().map(Span::duration_ns).collect();
    assert_eq!(durations[..2], [0, 1_500_000_000]);
}

#[test]
fn items_are_slices_of_the_body() {
    for fixture in golden::fixtures("agents-sdk") {
        let decoded = decode_fixture(&fixture);
        let body = fixture.body.as_ptr_range();
        let copies =
            decoded.batch.items.iter().filter(|item| !body.contains(&item.wire().as_ptr())).count();
        let repaired: u32 = decoded.warnings.iter().map(|warning| warning.count).sum();
        assert_eq!(copies, repaired as usize, "{}", fixture.name);
    }
}

#[test]
fn parents_are_found_within_their_trace() {
    let mut scenarios: HashMap<String, Vec<_>> = HashMap::new();
    for fixture in golden::fixtures("agents-sdk") {
        let scenario = fixture.name.split('/').next().unwrap().to_owned();
        scenarios.entry(scenario).or_default().push(decode_fixture(&fixture));
    }
    for (scenario, requests) in scenarios {
        let spans: Vec<&Span> = requests.iter().flat_map(|request| request.batch.spans()).collect();
        let ids: HashSet<_> = spans.iter().map(|span| (span.trace_id, span.span_id)).collect();
        assert_eq!(ids.len(), spans.len(), "{scenario}: ids are unique");
        for span in &spans {
            if let Some(parent) = span.parent_id {
                assert!(ids.contains(&(span.trace_id, parent)), "{scenario}");
            }
        }
        assert!(
            spans.is_empty() || spans.iter().any(|span| span.parent_id.is_none()),
            "{scenario}"
        );
    }
}

#[test]
fn all_span_types_of_both_sdks_have_the_facts_of_their_goldens() {
    for scenario in [
        "p23_all_span_types",
        "j16_all_span_types",
        "ext_full_content_response",
        "p18_voice",
        "j09_chat_completions",
    ] {
        let requests = decode_all("agents-sdk", scenario);
        let lines: Vec<Value> = requests
            .iter()
            .flat_map(|request| request.batch.spans())
            .map(|span| facts_json(span.facts()))
            .collect();
        assert!(!lines.is_empty());
        check_golden(&format!("facts/{scenario}.jsonl"), &lines);
    }
}

#[test]
fn all_span_types_of_both_sdks_become_the_otlp_of_their_goldens() {
    for scenario in [
        "p23_all_span_types",
        "j16_all_span_types",
        "ext_full_content_response",
        "p09_custom_nested",
    ] {
        let requests = decode_all("agents-sdk", scenario);
        let spans = requests.iter().flat_map(|request| request.batch.spans());
        let lines: Vec<Value> = spans
            .map(|span| {
                let mut json = Vec::new();
                otlp::json::write_request(&mut json, [span]);
                let request: Value = serde_json::from_slice(&json).unwrap();
                request["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
            })
            .collect();
        check_golden(&format!("native-as-otlp/{scenario}.jsonl"), &lines);
    }
}

#[test]
fn nothing_a_span_holds_is_lost_in_its_attributes() {
    let body = body_of(&[format!(
        r#"{{"object":"trace.span","id":"s","trace_id":"t","parent_id":"p","span_data":{{"type":"agent","name":"A","new":{{"a":[1]}},"big":{},"list":[1,"x"]}},"error":{{"message":"m","data":{{"k":1}},"code":7}},"metadata":{{"agent_harness_id":"h"}},"future":true}}"#,
        "1".repeat(40)
    )]);
    let decoded = agents_sdk(body);
    let span = decoded.batch.spans().next().unwrap();
    let detail = span.detail();
    let text = |key: &str| {
        let attribute = detail.attributes.iter().find(|attribute| &*attribute.key == key);
        attribute.map(|attribute| format!("{:?}", attribute.value)).unwrap_or_default()
    };
    assert_eq!(text("openai.agents.span_data.new"), r#"Text("{\"a\":[1]}")"#);
    assert_eq!(text("openai.agents.span_data.big"), format!("Text({:?})", "1".repeat(40)));
    assert_eq!(text("openai.agents.span_data.list"), r#"Text("[1,\"x\"]")"#);
    assert_eq!(text("openai.agents.span_metadata.agent_harness_id"), r#"Text("h")"#);
    assert_eq!(text("openai.agents.item.future"), "Bool(true)");
    assert_eq!(text(keys::OPENAI_AGENTS_ERROR_DATA), r#"Text("{\"k\":1}")"#);
    assert_eq!(text("openai.agents.error.code"), "Int(7)");
    assert_eq!(text(keys::OPENAI_AGENTS_PARENT_ID), r#"Text("p")"#);
    assert_eq!((detail.status_code, &*detail.status_message), (2, "m"));
    let agents_sdk = detail.agents_sdk.as_ref().unwrap();
    assert_eq!(
        (&*agents_sdk.trace, &*agents_sdk.span, agents_sdk.parent.as_deref()),
        ("t", "s", Some("p"))
    );
}

/// Text that appears nowhere else, in each member of an item: as its value, in a list, and in an object.
fn marked(item: &Value, shape: usize, marks: &mut Vec<String>) -> Value {
    let mut mark = |place: String| {
        marks.push(format!("<{place}>"));
        marks.last().cloned()
    };
    let mut mark_all = |prefix: &str, members: &Value| -> Value {
        let members = members.as_object().unwrap().iter().map(|(name, value)| {
            let place = format!("{prefix}.{name}");
            let marked = match (value, shape) {
                (Value::String(text), _) if !text.is_empty() => value.clone(),
                (_, 0) => json!(mark(place)),
                (_, 1) => json!([mark(place.clone() + "[0]"), [mark(place + "[1]")]]),
                (_, _) => json!({"k": mark(place.clone()), "usage": {"k": mark(place + ".k")}}),
            };
            (name.clone(), marked)
        });
        members.collect()
    };
    let mut whole = mark_all("item", item);
    whole["span_data"] = mark_all("data", &item["span_data"]);
    whole
}

#[test]
fn what_does_not_fit_its_member_is_kept_under_the_name_of_the_member() {
    for span_data in [
        json!({"type": "agent", "name": 0, "handoffs": 0, "tools": 0, "output_type": 0, "x": 0}),
        json!({"type": "response", "response_id": 0, "usage": 0, "input": 0}),
        json!({"type": "generation", "input": 0, "output": 0, "model": 0, "model_config": 0, "usage": 0}),
        json!({"type": "function", "name": 0, "input": 0, "output": 0, "mcp_data": 0}),
        json!({"type": "handoff", "from_agent": 0, "to_agent": 0}),
        json!({"type": "guardrail", "name": 0, "triggered": 0}),
        json!({"type": "custom", "name": 0, "data": 0}),
        json!({"type": "mcp_tools", "server": 0, "result": 0}),
        json!({"type": "transcription", "input": 0, "output": 0, "model": 0, "model_config": 0}),
        json!({"type": "speech", "input": 0, "output": 0, "model": 0, "first_content_at": 0}),
        json!({"type": "speech_group", "input": 0}),
        json!({"type": "later", "name": 0, "data": 0}),
        json!({"type": 0, "name": 0}),
    ] {
        for shape in 0..3 {
            let item = json!({"object": "trace.span", "id": "s", "trace_id": "t", "started_at": 0,
                "ended_at": 0, "error": 0, "metadata": 0, "later": 0, "span_data": span_data});
            let mut marks = Vec::new();
            let item = marked(&item, shape, &mut marks);
            let decoded = agents_sdk(body_of(&[item.to_string()]));
            let span = decoded.batch.spans().next().unwrap();
            let kept = format!("{:?} {:?}", span.detail(), span.facts());
            for mark in marks.iter().filter(|mark| !mark.starts_with("<item.span_data")) {
                assert!(kept.contains(&**mark), "{mark} of {item}: {kept}");
            }
        }
    }
}

#[test]
fn what_old_sdks_send_against_json_is_mended_in_the_items_that_have_it() {
    let requests = decode_all("agents-sdk", "old_sdk_0.0.7_hostile");
    let data: Vec<Value> = requests
        .iter()
        .flat_map(|request| request.batch.spans())
        .map(|span| {
            serde_json::from_slice::<Value>(&span.wire).unwrap()["span_data"]["data"].clone()
        })
        .collect();
    assert_eq!(data, [json!({"i": [], "k": 1}), json!({"s": "a?b"}), json!({"s": "fine"})]);
}

#[test]
fn counts_that_an_sdk_moved_to_details_are_read_like_those_that_it_did_not() {
    let counts = |usage: &str| {
        let data = format!(r#"{{"type":"generation","model":"m","usage":{usage}}}"#);
        let decoded = agents_sdk(body_of(&[span_item("s", &data)]));
        decoded.batch.spans().next().unwrap().facts().usage
    };
    // Both forms of one answer, the second by the SDK for JavaScript.
    let plain = counts(
        r#"{"requests":1,"input_tokens":100,"output_tokens":50,"total_tokens":150,"input_tokens_details":{"cached_tokens":40,"cache_write_tokens":10},
            "output_tokens_details":{"reasoning_tokens":20}}"#,
    );
    let moved = counts(
        r#"{"input_tokens":100,"output_tokens":50,"details":{"requests":1,"total_tokens":150,
            "input_tokens_details":{"cached_tokens":40,"cache_write_tokens":10},"output_tokens_details":{"reasoning_tokens":20}}}"#,
    );
    let expected = Usage {
        input: Some(100),
        output: Some(50),
        total: Some(150),
        cached_read: Some(40),
        cache_write: Some(10),
        reasoning: Some(20),
        ..Usage::default()
    };
    assert_eq!((plain, moved), (expected, expected));
    // The total is the sum of all parts, so the input excludes those read from a cache.
    let exclusive = counts(
        r#"{"input_tokens":60,"output_tokens":50,"details":{"total_tokens":150,"input_tokens_details":{"cached_tokens":40}}}"#,
    );
    assert_eq!((exclusive.input, exclusive.cached_read), (Some(100), Some(40)));
}

#[test]
fn the_provider_that_an_adapter_for_other_models_names_is_read_and_is_no_part_of_the_model() {
    for (model, config, expected) in [
        // The AI SDK's adapter for JavaScript.
        (
            "anthropic.messages:claude-sonnet-4-5",
            r#"{"provider":"anthropic.messages","model_impl":"ai-sdk"}"#,
            (Some("anthropic"), "claude-sonnet-4-5"),
        ),
        (
            "google.generative-ai:gemini-2.5-flash",
            r#"{"provider":"google.generative-ai","model_impl":"ai-sdk"}"#,
            (Some("gcp.gemini"), "gemini-2.5-flash"),
        ),
        // Those of Python for any-llm and LiteLLM.
        (
            "mistral/mistral-small",
            r#"{"base_url":"","provider":"mistral","model_impl":"any-llm"}"#,
            (Some("mistral_ai"), "mistral/mistral-small"),
        ),
        (
            "anthropic/claude-opus-4-1",
            r#"{"base_url":"","model_impl":"litellm"}"#,
            (None, "anthropic/claude-opus-4-1"),
        ),
        ("gpt-5:x", r#"{"provider":""}"#, (Some("openai"), "gpt-5:x")),
    ] {
        let data = format!(r#"{{"type":"generation","model":"{model}","model_config":{config}}}"#);
        let decoded = agents_sdk(body_of(&[span_item("s", &data)]));
        let span = decoded.batch.spans().next().unwrap();
        let facts = span.facts();
        assert_eq!((facts.provider.as_deref(), &**facts.request_model.as_ref().unwrap()), expected);
        let attributes = &span.detail().attributes;
        let text = |name| attributes.iter().find(|one| &*one.key == name).map(|one| &one.value);
        let is = |said: Option<&str>| said.map(|text| AttributeValue::Text(Text::from(text)));
        assert_eq!(text(keys::GEN_AI_PROVIDER_NAME), is(expected.0).as_ref());
        for key in [keys::GEN_AI_REQUEST_MODEL, keys::LLM_MODEL_NAME] {
            assert_eq!(text(key), is(Some(expected.1)).as_ref());
        }
    }
}

#[test]
fn one_bad_item_costs_nobody_else() {
    let good = span_item("span_good", r#"{"type":"agent","name":"A"}"#);
    let deep = |levels: usize| {
        let nested = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        span_item("span_deep", &format!(r#"{{"type":"custom","name":"c","data":{nested}}}"#))
    };
    let body = body_of(&[
        "7".to_owned(),
        "{}".to_owned(),
        r#"{"object":"trace.span","id":"s"}"#.to_owned(),
        r#"{"object":"trace.span","trace_id":"t"}"#.to_owned(),
        r#"{"object":"log","id":"s","trace_id":"t"}"#.to_owned(),
        r#"{"object":"trace","id":12}"#.to_owned(),
        deep(1_900),
        deep(2_000),
        deep(300_000),
        span_item("span_nan", r#"{"type":"custom","name":"c","data":{"v":NaN,"s":"\ud83d"}}"#),
        good.clone(),
    ]);
    let decoded = agents_sdk(body);
    let reasons: Vec<_> =
        decoded.refused.iter().map(|refused| (refused.index, refused.reason)).collect();
    assert_eq!(
        reasons,
        [
            (0, "the item is not an object"),
            (1, "its `id` is not text"),
            (2, "its `trace_id` is not text"),
            (3, "its `id` is not text"),
            (4, "the item is neither a trace nor a trace.span"),
            (5, "its `id` is not text"),
            (7, "the item is nested too deeply"),
            (8, "the item is nested too deeply"),
        ]
    );
    assert_eq!(decoded.refused[0].wire, "7");
    let kept: Vec<_> = decoded.batch.spans().collect();
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[2].wire, good);
    for span in kept {
        // Deep values are read without recursion.
        assert!(!span.facts().name.is_empty());
        assert!(!span.detail().attributes.is_empty());
    }
}

#[test]
fn bytes_that_are_no_utf8_are_replaced() {
    let mut body = body_of(&[span_item("span_x", r#"{"type":"agent","name":"@"}"#)]).into_bytes();
    let at = body.iter().position(|&byte| byte == b'@').unwrap();
    body[at] = 0xFF;
    let decoded = agents_sdk(body);
    assert_eq!(decoded.batch.spans().next().unwrap().facts().name, "\u{fffd}");
    assert_eq!(decoded.warnings[0].count, 1);
}

#[test]
fn a_whole_queue_is_taken_and_more_than_the_limit_is_not() {
    let items: Vec<String> = (0..8_192)
        .map(|id| span_item(&format!("span_{id}"), r#"{"type":"agent","name":"A"}"#))
        .collect();
    let body = Bytes::from(body_of(&items));
    let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
    let limits = |items_max| Limits { items_max, ..Limits::default() };
    assert_eq!(decode(&envelope, &body, &limits(8_192)).unwrap().batch.items.len(), 8_192);
    let error = decode(&envelope, &body, &limits(8_191)).unwrap_err();
    assert_eq!(error, Malformed::TooMany { what: "items", max: 8_191 });
}

#[test]
fn resent_items_are_left_out_and_their_trace_is_still_known() {
    let trace = r#"{"object":"trace","id":"trace_5b8efff798038103d269b633813fc60c","workflow_name":"w","group_id":"g","metadata":{"user_id":"u","tags":["t"]}}"#;
    let items = [
        span_item("span_a", r#"{"type":"agent","name":"A"}"#),
        trace.to_owned(),
        "1".to_owned(),
        span_item("span_b", r#"{"type":"agent","name":"B"}"#),
    ];
    let mut envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
    envelope.resent = vec![0, 1];
    let decoded = decode(&envelope, &Bytes::from(body_of(&items)), &Limits::default()).unwrap();
    assert_eq!(decoded.refused[0].index, 2);
    assert_eq!(decoded.batch.items.len(), 1);
    let facts = decoded.batch.spans().next().unwrap().facts();
    let found = (
        &*facts.name,
        facts.session.as_deref(),
        facts.workflow.as_deref(),
        facts.user.as_deref(),
        &*facts.tags[0],
    );
    assert_eq!(found, ("B", Some("g"), Some("w"), Some("u"), "t"));
}

#[test]
fn spans_know_the_trace_object_of_their_request_in_any_order() {
    for scenario in ["p02_handoff_chain", "j02_handoff_chain"] {
        for request in decode_all("agents-sdk", scenario) {
            let mut items = request.batch.items.iter().filter_map(|item| match item {
                Item::Trace(trace) => Some(trace.clone()),
                Item::Span(_) => None,
            });
            let trace = items.next().unwrap();
            assert!(trace.workflow.is_some() && trace.group.is_some() && trace.metadata.is_some());
            for span in request.batch.spans() {
                assert_eq!(span.trace.as_ref(), Some(&trace));
                assert_eq!(span.facts().session, trace.group);
            }
        }
    }
}

#[test]
fn what_is_empty_in_a_trace_object_says_nothing() {
    let item = r#"{"object":"trace","id":"trace_1","workflow_name":"","group_id":"",
        "metadata":{"session_id":"chat-7","user_id":"","user":"ann","release":""}}"#;
    let decoded = agents_sdk(body_of(&[item.to_owned()]));
    let Item::Trace(object) = &decoded.batch.items[0] else { panic!("a trace") };
    let facts = trace_facts(object);
    let said = [facts.workflow, facts.session, facts.user, facts.release];
    let said = said.map(|text| text.map(|text| text.to_string()));
    assert_eq!(said, [None, Some("chat-7".to_owned()), Some("ann".to_owned()), None]);
}

#[test]
fn a_trace_object_may_use_numbers_as_names_and_list_its_tags_in_any_form() {
    for (tags, expected) in [
        (r#"["a",1,null,""]"#, &["a", "1"][..]),
        (r#""a, b,""#, &["a", "b"]),
        (r#""[\"a\",\"b, c\"]""#, &["a", "b, c"]),
        (r#"{"a":1}"#, &[]),
        ("7", &["7"]),
    ] {
        let item = format!(
            r#"{{"object":"trace","id":"trace_1","workflow_name":7,"group_id":-100123,
            "metadata":{{"user_id":42,"environment":["x"],"release":1.5,"tags":{tags}}}}}"#
        );
        let decoded = agents_sdk(body_of(&[item]));
        let Item::Trace(object) = &decoded.batch.items[0] else { panic!("a trace") };
        let facts = trace_facts(object);
        assert_eq!(facts.tags, expected, "{tags}");
        let said = [facts.workflow, facts.session, facts.user, facts.environment, facts.release];
        let said = said.map(|text| text.map(|text| text.to_string()));
        assert_eq!(
            said,
            ["7", "-100123", "42", "", "1.5"]
                .map(|it| Some(it.to_owned()).filter(|it| !it.is_empty()))
        );
    }
}

#[test]
fn the_last_of_repeated_members_counts() {
    let body = r#"{"data":[1,2,3],"x":1,"\u0064ata":[{"id":"a","id":"trace_5b8efff798038103d269b633813fc60c","object":"trace","group_id":"g","group_id":null,"\u0069d":"trace_eeeeeff798038103d269b633813fc60c"}]}"#;
    let decoded = agents_sdk(body);
    let Item::Trace(trace) = &decoded.batch.items[0] else { panic!("a trace") };
    assert_eq!(trace.sdk_id, "trace_eeeeeff798038103d269b633813fc60c");
    assert_eq!(trace.group, None);
    assert_eq!((decoded.batch.items.len(), decoded.refused.len()), (1, 0));
}

#[test]
fn invalid_times_become_zero_and_the_span_is_kept() {
    let body = r#"{"data":[{"object":"trace.span","id":"s","trace_id":"t","started_at":"soon","ended_at":null,"span_data":null}]}"#;
    let decoded = agents_sdk(body);
    let span = decoded.batch.spans().next().unwrap();
    assert_eq!((span.start_ns, span.end_ns, span.facts().kind), (0, 0, Kind::Custom));
}

#[test]
fn a_foreign_body_is_named() {
    for (body, expected) in [
        (r#"{"batch":[{"secret":"text"}],"metadata":{}}"#, "Langfuse"),
        (r#"{"resourceSpans":[]}"#, "POST it to /v1/traces"),
        (r#"{"post":[],"patch":[]}"#, "LangSmith"),
        (r#"{"runs":[]}"#, "LangSmith"),
        (
            r#"{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"resourceSpans":[]}"#,
            "and more: this is OTLP/JSON",
        ),
        (r#"{"model":"m","messages":["secret"]}"#, r#"found an object with "model", "messages""#),
        (r#"[{"secret":1}]"#, "the body is an array"),
        ("{}", "the object is empty"),
        (r#"{"data":{"secret":1}}"#, "\"data\" is an object"),
        (r#"{"data":null}"#, "\"data\" is null"),
        (r#""secret""#, "the body is a string"),
    ] {
        let Malformed::Shape(sentence) = refusal(body) else { panic!("{body}") };
        assert!(sentence.contains(expected), "{body}: {sentence}");
        assert!(sentence.contains(r#"expected {"data": [...]}"#), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }
    let Malformed::Shape(long) = refusal(&format!(r#"{{"{}":1}}"#, "x".repeat(10_000))) else {
        panic!()
    };
    assert!(long.len() < 200);
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for (body, at) in [
        ("", 0),
        ("{\"data\":[", 9),
        ("{\"data\":[{]}", 10),
        ("{\"data\":[]} x", 12),
        ("\u{feff}{\"data\":[}", 12),
    ] {
        let Malformed::Syntax { problem, .. } = refusal(body) else { panic!("{body}") };
        assert!(problem.ends_with(&format!("at byte {at}")), "{body}: {problem}");
    }
    assert_eq!(agents_sdk("\u{feff}{\"data\":[]}").batch.items.len(), 0);
}

#[test]
fn credentials_reach_neither_items_nor_the_journal() {
    let trace = r#"{"object":"trace","id":"t","tracing_api_key":"sk-secret","workflow_name":"w","metadata":{"tracing_api_key_hash":"beef"}}"#;
    let body = Bytes::from(body_of(&[trace.to_owned()]));
    let decoded = agents_sdk(body.clone());
    assert_eq!(
        decoded.batch.items[0].wire(),
        r#"{"object":"trace","id":"t","workflow_name":"w","metadata":{}}"#
    );
    let scrubbed = scrub_credentials(body);
    assert!(!String::from_utf8_lossy(&scrubbed).contains("secret"));
    assert!(!String::from_utf8_lossy(&scrubbed).contains("beef"));
}

#[test]
fn the_user_agent_tells_the_sdk() {
    let of = |agent: &str| {
        let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[("user-agent", agent)]);
        let body = Bytes::from(body_of(&[span_item("s", "{}")]));
        let decoded = decode(&envelope, &body, &Limits::default()).unwrap();
        let scope = decoded.batch.spans().next().unwrap().scope.clone();
        let attributes = scope.resource.attributes.iter();
        attributes
            .map(|attribute| attribute.value.as_text().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("Agents/JavaScript 0.20.0"), ["openai-agents", "nodejs", "0.20.0"]);
    assert_eq!(of("python-httpx2/2.16.2"), ["openai-agents", "python"]);
    assert!(of("curl/8").is_empty());
}

fn total(scenario: &str) -> Usage {
    let requests = decode_all("agents-sdk", scenario);
    trace_total(requests.iter().flat_map(|request| request.batch.spans()))
}

#[test]
fn a_trace_counts_its_model_calls_once() {
    let total = total("p01_hello_responses");
    assert_eq!((total.input, total.output), (Some(120), Some(45)), "{total:?}");
}

#[test]
fn a_run_without_usage_on_its_model_calls_counts_its_outermost_task() {
    let requests = decode_all("agents-sdk", "j01_hello_responses");
    let spans = requests.iter().flat_map(|request| request.batch.spans());
    let model_calls: Vec<_> =
        spans.map(Span::facts).filter(|facts| facts.kind == Kind::Generation).collect();
    assert!(!model_calls.is_empty());
    assert!(model_calls.iter().all(|facts| facts.usage.is_empty()));
    let total = total("j01_hello_responses");
    assert_eq!((total.input, total.output), (Some(120), Some(45)), "{total:?}");
}

#[test]
fn an_agent_used_as_a_tool_is_counted_once() {
    let requests = decode_all("agents-sdk", "p21_agent_as_tool");
    let spans: Vec<_> = requests.iter().flat_map(|request| request.batch.spans()).collect();
    let calls =
        spans.iter().map(|span| span.facts()).filter(|facts| facts.kind == Kind::Generation);
    let sum: u64 = calls.filter_map(|facts| facts.usage.input).sum();
    assert_eq!(trace_total(spans.iter().copied()).input, Some(sum));
    let parents: u64 = spans.iter().filter_map(|span| span.facts().aggregate_usage.input).sum();
    assert!(sum < parents, "tasks and turns repeat it");
}

fn any_json(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("type"),
        Just("data"),
        Just("usage"),
        Just("name"),
        Just("input"),
        Just("output"),
        Just("model_config"),
        Just("response"),
        Just("choices"),
        Just("message"),
        Just("content"),
        Just("role"),
        Just("mcp_data"),
        Just("sdk_span_type"),
    ];
    leaf.prop_recursive(depth, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((name.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
        decode(&envelope, &Bytes::from(bytes), &Limits::default()).ok();
    }

    #[test]
    fn text_that_looks_like_json_never_panics(text in r#"\{"data":\[[\[\]{}":,0-9a-dN\\ud83-]{0,80}\]\}"#) {
        let envelope = envelope(Receiver::OpenAi, Encoding::Json, &[]);
        decode(&envelope, &Bytes::from(text), &Limits::default()).ok();
    }

    #[test]
    fn a_span_of_any_content_keeps_its_slice_and_can_be_read(
        kind in prop_oneof![
            Just("agent"), Just("response"), Just("generation"), Just("function"), Just("handoff"), Just("guardrail"),
            Just("custom"), Just("mcp_tools"), Just("transcription"), Just("speech"), Just("speech_group"), Just("new"),
        ],
        data in any_json(4),
        error in any_json(2),
    ) {
        let mut data = if data.is_object() { data } else { json!({"input": data.clone(), "output": data}) };
        data["type"] = kind.into();
        let item = json!({"object": "trace.span", "id": "s", "trace_id": "t", "span_data": data, "error": error}).to_string();
        let decoded = agents_sdk(format!(r#"{{"data":[{item}]}}"#));
        let span = decoded.batch.spans().next().unwrap();
        prop_assert_eq!(&span.wire, item.as_bytes());
        let facts = facts_json(span.facts());
        prop_assert!(facts["kind"].is_string());
        for attribute in &span.detail().attributes {
            if let (keys::GEN_AI_INPUT_MESSAGES | keys::GEN_AI_OUTPUT_MESSAGES, Some(text)) = (&*attribute.key, attribute.value.as_text()) {
                prop_assert!(serde_json::from_str::<Value>(text).is_ok(), "{}", text);
            }
        }
        prop_assert_ne!(span.span_id, SpanId::from_hex("0000000000000001").unwrap());
    }
}

#[test]
fn the_brief_detail_is_the_detail_without_the_messages_of_model_calls() {
    const MESSAGES: [&str; 2] = [keys::GEN_AI_INPUT_MESSAGES, keys::GEN_AI_OUTPUT_MESSAGES];
    for fixture in golden::fixtures("agents-sdk") {
        for span in decode_fixture(&fixture).batch.spans() {
            // This must come first, while nothing is cached.
            let brief = span.brief_detail().into_owned();
            let mut whole = span.detail().clone();
            whole.attributes.retain(|attribute| !MESSAGES.contains(&&*attribute.key));
            assert_eq!(brief, whole);
        }
    }
}

#[test]
fn a_span_reads_the_same_when_no_long_value_is_jumped_over() {
    let mut jumped = 0;
    for fixture in golden::fixtures("agents-sdk") {
        let walked =
            decode_fixture(&fixture).batch.items.into_iter().filter_map(|item| match item {
                Item::Span(span) => Some(span.with_value_offsets(ValueOffsets::default())),
                Item::Trace(_) => None,
            });
        for (span, walked) in decode_fixture(&fixture).batch.spans().zip(walked) {
            jumped += usize::from(*span.value_offsets() != ValueOffsets::default());
            assert_eq!(span.facts(), walked.facts(), "{}", fixture.name);
            assert_eq!(span.detail(), walked.detail(), "{}", fixture.name);
        }
    }
    assert!(100 < jumped);
}

#[test]
fn the_head_is_the_detail_without_what_only_otlp_has_room_for() {
    for fixture in golden::fixtures("agents-sdk") {
        let (spans, others) = (decode_fixture(&fixture), decode_fixture(&fixture));
        for (span, other) in spans.batch.spans().zip(others.batch.spans()) {
            let whole = Detail { attributes: Vec::new(), ..other.detail().clone() };
            assert_eq!(*span.head(), whole, "{}", fixture.name);
            assert_eq!(span.facts(), other.facts(), "{}", fixture.name);
        }
    }
}
