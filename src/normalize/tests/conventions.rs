//! Every convention, tested on captures of its clients, and on handmade spans for what these lack.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{check_golden, decode_all, decode_fixture, envelope, facts_json, is_traces};
use crate::normalize::{Encoding, Limits, attributes, decode};
use crate::span::{
    Attribute, Convention, Detail, Facts, Format, Kind, Payload, Receiver, Resource, Scope, Span,
    SpanError, SpanEvent, SpanHeader, SpanId, SpanReading, Spending, Text, TraceId, Value,
};
use crate::support::golden;

/// A format whose spans have only a detail.
#[derive(Debug)]
struct Made(Detail);

impl Format for Made {
    fn is_otlp(&self) -> bool {
        true
    }

    fn detail(&self, _: &Span) -> Detail {
        self.0.clone()
    }

    fn said(&self, span: &Span, reading: &mut SpanReading) {
        attributes::facts(span, span.detail(), &mut reading.facts);
    }
}

fn made(scope: &str, detail: Detail) -> Facts {
    let outline = SpanHeader {
        trace_id: TraceId::from_hex("5b8efff798038103d269b633813fc60c").unwrap(),
        span_id: SpanId::from_hex("eee19b7ec3c1b174").unwrap(),
        parent_id: None,
        start_ns: 1_000,
        end_ns: 2_000,
        wire: Bytes::new(),
    };
    let environment =
        Attribute { key: "deployment.environment.name".into(), value: Value::Text("test".into()) };
    let resource = Arc::new(Resource { attributes: vec![environment], ..Resource::default() });
    let scope = Scope { name: scope.into(), resource, ..Scope::default() };
    let mut brief = detail.clone();
    let mut followed = None;
    brief.attributes.retain(|known| {
        let of = (&*scope.name, || &*detail.name);
        attributes::matters_to_sums((known.key.as_bytes(), 0), of, &mut followed)
    });
    let format: &'static Made = Box::leak(Box::new(Made(detail)));
    let span = Span::new(outline, Arc::new(scope), None, format);
    let mut facts = Facts::default();
    attributes::facts(&span, &brief, &mut facts);
    assert_eq!(
        Spending::of(&facts),
        span.spending(),
        "what does not matter makes a difference: {:?}",
        format.0
    );
    span.facts().clone()
}

/// Converts a JSON value to an attribute's value; objects become maps.
fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Empty,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Double(number.as_f64().unwrap()), Value::Int)
        }
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Array(values) => Value::Array(values.iter().map(value).collect()),
        Json::Object(_) => Value::Map(attributes(json)),
    }
}

fn attributes(json: &Json) -> Vec<Attribute> {
    let members = json.as_object().unwrap().iter();
    members.map(|(key, json)| Attribute { key: key.as_str().into(), value: value(json) }).collect()
}

/// Returns the facts of a span with these attributes.
pub(super) fn named_facts(scope: &str, name: &str, json: &Json) -> Facts {
    made(scope, Detail { name: name.into(), attributes: attributes(json), ..Detail::default() })
}

/// Compares the expected members of the facts with the actual ones.
fn check(scope: &str, sent: &Json, expected: &Json) {
    let found = facts_json(&named_facts(scope, "name", sent));
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&found[name], value, "{name} of {sent}");
    }
}

#[test]
fn every_client_has_the_facts_of_its_golden() {
    for client in [
        "langfuse-py",
        "logfire-openai",
        "logfire-openai-agents",
        "openinference-openai",
        "openinference-openai-agents",
        "otel-openai-agents-v2",
        "otel-openai-v2",
        "py-otel-sdk-http",
        "traceloop-openai",
        "vercel-ai-sdk",
    ] {
        let fixtures = golden::fixtures("otlp");
        let prefix = format!("{client}/");
        let mut lines = Vec::new();
        for fixture in fixtures
            .iter()
            .filter(|fixture| fixture.name.starts_with(&prefix) && is_traces(fixture))
        {
            lines.push(json!(fixture.name));
            for span in decode_fixture(fixture).batch.spans() {
                let spending = span.spending();
                lines.push(facts_json(span.facts()));
                assert_eq!(
                    spending,
                    Spending::of(span.facts()),
                    "told without the facts and from them"
                );
            }
        }
        assert!(1 < lines.len(), "{client}");
        check_golden(&format!("facts/{client}.jsonl"), &lines);
    }
}

#[test]
fn facts_in_brief_lack_contents_and_what_is_in_no_sum_and_nothing_else() {
    let without_contents = |facts: &Facts| Facts {
        error: facts.error.clone().map(|error| SpanError { data: None, ..error }),
        input: None,
        output: None,
        tool_definitions: None,
        parameters: None,
        metadata: Vec::new(),
        tags: Vec::new(),
        finish_reasons: Vec::new(),
        prompt_name: None,
        prompt_version: None,
        environment: None,
        release: None,
        ..facts.clone()
    };
    let mut fixtures = golden::fixtures("otlp");
    fixtures.retain(is_traces);
    fixtures.extend(golden::fixtures("agents-sdk"));
    let captured = fixtures.iter();
    let captured = captured.map(|fixture| [decode_fixture(fixture), decode_fixture(fixture)]);
    let programs = std::fs::read_dir(golden::path("programs")).unwrap().map(|program| {
        let body = Bytes::from(std::fs::read(program.unwrap().path().join("body.json")).unwrap());
        let envelope = envelope(Receiver::OtlpHttp, Encoding::Json, &[]);
        [(); 2].map(|()| decode(&envelope, &body, &Limits::default()).unwrap())
    });
    let (mut spans, mut shorter) = (0, 0);
    for [brief, whole] in captured.chain(programs) {
        for (brief, whole) in brief.batch.spans().zip(whole.batch.spans()) {
            let (brief, whole) = (brief.brief_facts(), whole.facts());
            assert_eq!(without_contents(brief), without_contents(whole));
            spans += 1;
            shorter += usize::from(brief != whole);
        }
    }
    assert!(500 < spans && 50 < shorter, "{shorter} of {spans} lack something");
}

/// All model calls of the captures went to a single server that always returns the same counts.
#[test]
fn model_calls_of_every_client_have_the_servers_usage() {
    for (client, details) in [
        ("openinference-openai", true),
        ("openinference-openai-agents", true),
        ("traceloop-openai", true),
        ("vercel-ai-sdk", true),
        ("logfire-openai-agents", true),
        ("logfire-openai", true),
        ("otel-openai-v2", false),
        ("otel-openai-agents-v2", false),
    ] {
        let requests = decode_all("otlp", &format!("{client}/"));
        let spans = requests.iter().flat_map(|request| request.batch.spans());
        let mut seen = 0;
        for facts in spans
            .map(Span::facts)
            .filter(|facts| facts.kind == Kind::Generation && !facts.usage.is_empty())
        {
            assert_eq!((facts.usage.input, facts.usage.output), (Some(120), Some(30)), "{client}");
            // OpenInference omits them from the Agents SDK's Chat Completions spans.
            if details && &*facts.name != "generation" {
                assert_eq!(facts.usage.cached_read, Some(64), "{client} {}", facts.name);
                // OpenLLMetry omits them for streams.
                let is_streamed_by_openllmetry =
                    client == "traceloop-openai" && facts.usage.reasoning.is_none();
                assert!(
                    is_streamed_by_openllmetry || facts.usage.reasoning == Some(12),
                    "{client} {}",
                    facts.name
                );
            }
            let models = [&facts.request_model, &facts.response_model];
            assert!(
                models.iter().any(|model| model
                    .as_deref()
                    .is_some_and(|model| model.starts_with("gpt-4.1-mini"))),
                "{client}"
            );
            assert_eq!(facts.provider.as_deref(), Some("openai"), "{client}");
            seen += 1;
        }
        assert!(2 <= seen, "{client}: {seen}");
    }
}

#[test]
fn every_failed_call_of_every_client_has_its_error() {
    for client in [
        "openinference-openai",
        "traceloop-openai",
        "vercel-ai-sdk",
        "logfire-openai",
        "otel-openai-v2",
    ] {
        let requests = decode_all("otlp", &format!("{client}/"));
        let mut spans = requests.iter().flat_map(|request| request.batch.spans()).map(Span::facts);
        let error =
            spans.find_map(|facts| facts.error.as_ref()).unwrap_or_else(|| panic!("{client}"));
        assert!(error.message.contains("gpt-error"), "{client}: {}", error.message);
    }
}

#[test]
fn langsmith_calls_templates_chat_and_is_not_believed() {
    let sent = json!({"langsmith.span.kind": "prompt", "gen_ai.operation.name": "chat", "gen_ai.system": "langchain",
        "langsmith.metadata.ls_provider": "openai", "langsmith.span.tags": "a, b", "langsmith.metadata.thread_id": "t",
        "langsmith.metadata.user_id": "u", "langsmith.metadata.x": "y", "gen_ai.prompt": "{\"messages\":[]}",
        "langsmith.usage_metadata": "{\"input_tokens\":5,\"input_token_details\":{\"cache_read\":2}}"});
    check(
        "langsmith",
        &sent,
        &json!({"kind": "chain", "convention": "langsmith", "provider": "openai", "tags": ["a", "b"], "session": "t", "user": "u",
            "metadata": {"x": "y"}, "input": {"json": {"messages": []}}, "aggregate_usage": {"input": 5, "cached_read": 2}}),
    );
    check(
        "langsmith",
        &json!({"langsmith.span.kind": "llm", "gen_ai.system": "langchain"}),
        &json!({"kind": "generation", "provider": null}),
    );
}

#[test]
fn mlflow_quotes_everything() {
    let sent = json!({"mlflow.spanType": "\"CHAT_MODEL\"", "mlflow.spanInputs": "{\"a\":1}", "mlflow.spanOutputs": "\"text\"",
        "mlflow.llm.model": "\"gpt\"", "mlflow.message.format": "\"openai\"",
        "mlflow.chat.tokenUsage": "{\"input_tokens\":120,\"output_tokens\":30,\"total_tokens\":150,\"cache_read_input_tokens\":64}"});
    check(
        "mlflow.openai",
        &sent,
        &json!({"kind": "generation", "convention": "mlflow", "request_model": "gpt", "response_model": "gpt", "provider": "openai",
            "input": {"json": {"a": 1}}, "output": "text",
            "usage": {"input": 120, "output": 30, "total": 150, "cached_read": 64}}),
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_word_for_a_kind_is_known() {
    let cases = [
        (
            "",
            "langfuse.observation.type",
            &[
                "agent=agent",
                "generation=generation",
                "tool=tool",
                "guardrail=guardrail",
                "retriever=retriever",
                "embedding=embedding",
                "chain=chain",
                "evaluator=evaluator",
                "event=event",
                "span=custom",
            ][..],
        ),
        (
            "",
            "langsmith.span.kind",
            &[
                "llm=generation",
                "tool=tool",
                "retriever=retriever",
                "embedding=embedding",
                "chain=chain",
                "prompt=chain",
                "parser=chain",
                "other=custom",
            ],
        ),
        (
            "",
            "mlflow.spanType",
            &[
                "\"AGENT\"=agent",
                "\"LLM\"=generation",
                "\"TOOL\"=tool",
                "\"GUARDRAIL\"=guardrail",
                "\"MEMORY\"=retriever",
                "\"EMBEDDING\"=embedding",
                "\"RERANKER\"=reranker",
                "\"TASK\"=chain",
                "\"EVALUATOR\"=evaluator",
                "\"UNKNOWN\"=custom",
            ],
        ),
        (
            "",
            "openinference.span.kind",
            &[
                "AGENT=agent",
                "LLM=generation",
                "TOOL=tool",
                "GUARDRAIL=guardrail",
                "RETRIEVER=retriever",
                "EMBEDDING=embedding",
                "RERANKER=reranker",
                "CHAIN=chain",
                "PROMPT=chain",
                "EVALUATOR=evaluator",
                "UNKNOWN=custom",
            ],
        ),
        (
            "logfire.openai_agents",
            "logfire.msg_template",
            &[
                "Agent run: {name!r}=agent",
                "Responses API with x=generation",
                "Chat completion with x=generation",
                "Function: {name}=tool",
                "Handoff: x=handoff",
                "Guardrail x=guardrail",
                "MCP: list tools from server {server}=mcp",
                "Text \u{2192} Speech=speech",
                "Speech \u{2192} Text=transcription",
                "Text \u{2192} Speech group=chain",
                "OpenAI Agents trace: x=chain",
                "Task: x=chain",
                "Turn {turn}=chain",
                "Custom span: x=custom",
                "other=custom",
            ],
        ),
        (
            "",
            "gen_ai.operation.name",
            &[
                "invoke_agent=agent",
                "create_agent=agent",
                "chat=generation",
                "generate_content=generation",
                "text_completion=generation",
                "execute_tool=tool",
                "handoff=handoff",
                "agent_handoff=handoff",
                "guardrail_check=guardrail",
                "retrieval=retriever",
                "embeddings=embedding",
                "rerank=reranker",
                "invoke_workflow=chain",
                "plan=chain",
                "unknown=custom",
            ],
        ),
        (
            "ai",
            "ai.operationId",
            &[
                "ai.generateText=chain",
                "ai.generateText.doGenerate=generation",
                "ai.streamText.doStream=generation",
                "ai.toolCall=tool",
                "ai.embed=embedding",
                "ai.embedMany.doEmbed=embedding",
                "ai.rerank=reranker",
                "ai.generateObject=chain",
                "ai.other=custom",
            ],
        ),
        (
            "",
            "traceloop.span.kind",
            &[
                "workflow=chain",
                "task=chain",
                "agent=agent",
                "tool=tool",
                "speech=speech",
                "transcription=transcription",
                "handoff=handoff",
                "unknown=custom",
            ],
        ),
        (
            "",
            "llm.request.type",
            &["chat=generation", "completion=generation", "rerank=reranker", "embedding=embedding"],
        ),
        ("", "mcp.method.name", &["tools/call=tool", "tools/list=mcp", "resources/read=mcp"]),
    ];
    for (scope, key, words) in cases {
        for pair in words {
            let (word, kind) = pair.rsplit_once('=').unwrap();
            check(scope, &json!({ key: word }), &json!({ "kind": kind }));
        }
    }
    check(
        "ai",
        &json!({"ai.operationId": "ai.generateText", "ai.prompt.tools": ["{}"]}),
        &json!({"kind": "agent"}),
    );
    check("", &json!({"http.method": "GET"}), &json!({"kind": "custom", "convention": "generic"}));
    check(
        "",
        &json!({"logfire.span_type": "log", "gen_ai.operation.name": "chat"}),
        &json!({"kind": "event"}),
    );
    check(
        "",
        &json!({"gen_ai.system": "az.ai.openai", "gen_ai.request.model": "m"}),
        &json!({"kind": "generation", "convention": "gen_ai_legacy", "provider": "azure.ai.openai"}),
    );
}

#[test]
fn for_each_field_the_first_convention_that_says_something_wins() {
    let sent = json!({"openinference.span.kind": "LLM", "gen_ai.operation.name": "invoke_agent", "llm.token_count.prompt": "",
        "gen_ai.usage.input_tokens": 7, "llm.token_count.completion": 3, "gen_ai.usage.output_tokens": 9, "session.id": "",
        "gen_ai.conversation.id": "c", "input.value": "", "gen_ai.input.messages": [{"role": "user"}]});
    check(
        "",
        &sent,
        &json!({"kind": "generation", "convention": "openinference", "usage": {"input": 7, "output": 3}, "session": "c",
            "input": {"json": [{"role": "user"}]}}),
    );
}

#[test]
fn counts_of_every_type_are_read_and_nan_is_not() {
    let nan =
        Attribute { key: "gen_ai.usage.output_tokens".into(), value: Value::Double(f64::NAN) };
    let mut attributes =
        attributes(&json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": "120"}));
    attributes.push(nan);
    attributes.push(Attribute {
        key: "llm.token_count.completion".into(),
        value: Value::Text("NaN".into()),
    });
    attributes.push(Attribute {
        key: "gen_ai.usage.completion_tokens".into(),
        value: Value::Double(30.0),
    });
    let facts = made("", Detail { attributes, ..Detail::default() });
    assert_eq!((facts.usage.input, facts.usage.output), (Some(120), Some(30)));
}

#[test]
fn a_repeated_key_means_its_last_value() {
    let mut attributes = attributes(&json!({"gen_ai.operation.name": "chat"}));
    attributes.extend(attributes_of_model(&["first", "second"]));
    let facts = made("", Detail { attributes, ..Detail::default() });
    assert_eq!(facts.request_model.as_deref(), Some("second"));
}

fn attributes_of_model(models: &[&str]) -> Vec<Attribute> {
    let attribute = |model: &&str| Attribute {
        key: "gen_ai.request.model".into(),
        value: Value::Text((*model).into()),
    };
    models.iter().map(attribute).collect()
}

#[test]
fn hostile_indices_cost_nothing() {
    let sent = json!({"openinference.span.kind": "LLM", "llm.input_messages.4000000000.message.content": "x",
        "llm.input_messages.9999.message.content": "kept", "evaluations.4000000000.evaluation.name": "x",
        "llm.input_messages.99999999999999999999.message.content": "x"});
    check("", &sent, &json!({"input": {"json": [{"content": "kept"}]}, "scores": null}));
}

#[test]
fn flattened_prompts_of_old_openllmetry_become_one_list() {
    let sent = json!({"llm.request.type": "chat", "gen_ai.system": "OpenAI", "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": "hi", "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "yo",
        "gen_ai.completion.0.finish_reason": "stop", "gen_ai.usage.prompt_tokens": 1, "llm.usage.total_tokens": 3,
        "gen_ai.request.temperature": 0.5, "llm.request.functions.0.name": "f"});
    check(
        "opentelemetry.instrumentation.openai.v1",
        &sent,
        &json!({"kind": "generation", "convention": "gen_ai_legacy", "provider": "openai",
            "input": {"json": [{"role": "user", "content": "hi"}]},
            "output": {"json": [{"role": "assistant", "content": "yo", "finish_reason": "stop"}]},
            "usage": {"input": 1, "output": 2, "total": 3}, "parameters": {"json": {"temperature": 0.5}},
            "tool_definitions": {"json": [{"name": "f"}]}}),
    );
}

#[test]
fn system_instructions_are_the_first_message() {
    let sent = json!({"gen_ai.operation.name": "chat", "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
        "gen_ai.input.messages": "[{\"role\":\"user\",\"parts\":[]}]"});
    check(
        "",
        &sent,
        &json!({"input": {"json": [{"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
            {"role": "user", "parts": []}]}}),
    );
}

fn event(name: &str, time_ns: u64, json: &Json) -> SpanEvent {
    SpanEvent { name: name.into(), time_ns, attributes: attributes(json), ..SpanEvent::default() }
}

#[test]
fn events_tell_exceptions_evaluations_messages_and_first_tokens() {
    let events = vec![
        event("gen_ai.user.message", 0, &json!({"content": "hi"})),
        event("gen_ai.choice", 0, &json!({"index": 0, "message": "{\"content\":\"yo\"}"})),
        event("First Token Stream Event", 1_400, &json!({})),
        event(
            "gen_ai.evaluation.result",
            0,
            &json!({"gen_ai.evaluation.name": "quality", "gen_ai.evaluation.score.value": 0.5,
            "gen_ai.evaluation.score.label": "fair", "gen_ai.evaluation.explanation": "why"}),
        ),
        event(
            "exception",
            0,
            &json!({"exception.type": "ValueError", "exception.message": "boom", "exception.stacktrace": "at"}),
        ),
    ];
    let attributes = attributes(&json!({"gen_ai.operation.name": "chat"}));
    let found = facts_json(&made("", Detail { attributes, events, ..Detail::default() }));
    let expected = json!({
        "input": {"json": [{"role": "user", "content": "hi"}]},
        "output": {"json": [{"role": "assistant", "index": 0, "message": {"content": "yo"}}]},
        "first_token_ns": 400,
        "scores": [{"name": "quality", "value": 0.5, "label": "fair", "explanation": "why"}],
        "error": {"kind": "ValueError", "message": "boom", "data": "at"},
        "environment": "test",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&found[name], value, "{name}");
    }
}

#[test]
fn an_exception_is_none_of_a_span_that_ended_well_and_fails_no_trace_if_a_framework_raises_it_to_go_on()
 {
    let failed = |kind: &str, message: &str, status_code: i32| {
        let said = json!({"exception.type": kind, "exception.message": message});
        let events = vec![event("exception", 0, &said)];
        let facts = made("", Detail { status_code, events, ..Detail::default() });
        (facts.error.is_some(), facts.fails_trace())
    };
    assert_eq!(failed("ValueError", "boom", 0), (true, true));
    assert_eq!(failed("ValueError", "boom", 1), (false, false));
    for (kind, message) in [
        ("langgraph.errors.GraphInterrupt", "(Interrupt(value={'q': 'ok?'}),)"),
        ("ParentCommand", "Command(graph='__parent__')"),
        ("ToolInterruptError", ""),
        ("workflows.runtime.types.results.WaitingForEvent", "Waiting for event <class 'E'>"),
        ("Exception", "ParentCommand(Command(graph='Alice'))"),
        ("", "[{\"id\":\"1\"}]\n\nGraphInterrupt: [{\"id\":\"1\"}]\n    at interrupt"),
    ] {
        assert_eq!(failed(kind, message, 2), (true, false), "{kind} {message}");
    }
    assert_eq!(failed("langgraph.errors.GraphRecursionError", "limit", 2), (true, true));
}

#[test]
fn a_failure_takes_its_message_from_the_best_place() {
    let failed = |json: &Json, status: i32, message: &str| {
        let detail = Detail {
            attributes: attributes(json),
            status_code: status,
            status_message: message.into(),
            ..Detail::default()
        };
        made("", detail).error.map(|error| error.message.to_string())
    };
    assert_eq!(failed(&json!({}), 0, ""), None);
    assert_eq!(failed(&json!({}), 1, "fine"), None);
    assert_eq!(failed(&json!({}), 2, "boom").as_deref(), Some("boom"));
    assert_eq!(failed(&json!({"error.type": "timeout"}), 0, "").as_deref(), Some("timeout"));
    let langfuse = json!({"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": "bad"});
    assert_eq!(failed(&langfuse, 0, "").as_deref(), Some("bad"));
    assert_eq!(failed(&json!({"langfuse.observation.level": "WARNING"}), 0, ""), None);
}

#[test]
fn usage_that_repeats_the_childrens_is_kept_apart() {
    for (scope, sent) in [
        ("ai", json!({"ai.operationId": "ai.generateText", "ai.usage.inputTokens": 5})),
        ("ai", json!({"ai.operationId": "ai.embed", "ai.usage.tokens": 5})),
        ("", json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 5})),
        (
            "",
            json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5, "logfire.span_type": "log"}),
        ),
        (
            "pydantic-ai",
            json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.aggregated_usage.input_tokens": 5}),
        ),
    ] {
        check(scope, &sent, &json!({"usage": null, "aggregate_usage": {"input": 5}}));
    }
}

#[test]
fn plain_names_mean_something_only_under_their_scope() {
    let sent =
        json!({"name": "x", "input": "y", "usage": "{\"input_tokens\":1}", "metadata": "text"});
    check(
        "my.app",
        &sent,
        &json!({"name": "name", "input": null, "usage": null, "convention": "generic"}),
    );
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Double),
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| Value::Bytes(bytes.into())),
        r#"[\[\]{}":,0-9a-z\\]{0,12}|\PC{0,6}"#.prop_map(|text| Value::Text(text.into())),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec(("[a-z.\"]{0,4}", inner), 0..4).prop_map(|members| {
                Value::Map(
                    members
                        .into_iter()
                        .map(|(key, value)| Attribute { key: key.into(), value })
                        .collect(),
                )
            }),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(attributes::keys()),
        "(llm.input_messages|llm.tools|gen_ai.prompt|evaluations|langfuse.trace.metadata|ai.settings|gen_ai.request)(\\.[0-9]{1,12}|\\.[a-z]{0,4}){0,4}",
    ]
}

proptest! {
    #[test]
    fn attributes_of_any_key_and_value_never_panic_and_json_stays_json(
        scope in prop_oneof![Just("ai"), Just("logfire.openai_agents"), Just("pydantic-ai"), Just("")],
        sent in proptest::collection::vec((any_key(), any_value()), 0..12),
    ) {
        let attributes = sent.into_iter().map(|(key, value)| Attribute { key: key.into(), value }).collect();
        let facts = made(scope, Detail { attributes, ..Detail::default() });
        // Parses every payload that claims to be JSON.
        facts_json(&facts);
        if let Some(Payload::Text(text)) = facts.input {
            prop_assert_ne!(text, Text::new());
        }
        prop_assert!(facts.convention != Convention::OpenAiAgents || facts.kind != Kind::Event);
    }
}
