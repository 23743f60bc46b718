//! Spans of frameworks as their sources write them, and the expected facts. Keys and values are those of the versions in
//! `docs/conventions.md`; the expectations follow from each framework's documentation.

#![expect(clippy::too_many_lines, reason = "tables of cases")]

use serde_json::{Value as Json, json};

use super::conventions::named_facts;
use super::facts_json;
use crate::support::golden;

/// Scope, span name, attributes, and members of the facts; null must be absent.
#[rustfmt::skip]
fn check(cases: &[(&str, &str, Json, Json)]) {
    let wrong: Vec<_> = cases.iter().flat_map(|(scope, name, sent, expected)| wrong(scope, name, sent, expected)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn wrong(scope: &str, name: &str, sent: &Json, expected: &Json) -> Vec<String> {
    let found = facts_json(&named_facts(scope, name, sent));
    let expected = expected.as_object().unwrap().iter();
    let wrong = expected.filter(|(member, value)| found[*member] != **value);
    wrong
        .map(|(member, value)| format!("{name}: {member} is {}, not {value}", found[member]))
        .collect()
}

#[test]
fn what_emitters_write_has_the_facts_that_follow_from_their_sources() {
    let cases: Vec<Json> = serde_json::from_slice(&golden::read("facts/emitters.json")).unwrap();
    let text = |case: &Json, member: &str| case[member].as_str().unwrap().to_owned();
    let wrong: Vec<_> = cases
        .iter()
        .flat_map(|case| {
            wrong(&text(case, "scope"), &text(case, "span"), &case["sent"], &case["facts"])
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn coding_agents_say_kinds_and_tokens_in_their_own_words() {
    const CLAUDE: &str = "com.anthropic.claude_code.tracing";
    check(&[
        (
            CLAUDE,
            "claude_code.interaction",
            json!({"span.type": "interaction", "user_prompt": "<REDACTED>"}),
            json!({"kind": "agent", "input": null}),
        ),
        (
            CLAUDE,
            "claude_code.llm_request",
            json!({"span.type": "llm_request", "gen_ai.system": "anthropic", "model": "claude-opus-4-7", "input_tokens": 2,
                "output_tokens": 9, "cache_read_tokens": 84_562, "cache_creation_tokens": 7_096, "ttft_ms": 812.5,
                "stop_reason": "end_turn", "request_id": "req_1", "new_context": "[USER] hi", "response.model_output": "hello"}),
            json!({"kind": "generation", "usage": {"input": 91_660, "output": 9, "cached_read": 84_562, "cache_write": 7_096},
                "first_token_ns": 812_500_000, "request_model": "claude-opus-4-7", "finish_reasons": ["end_turn"],
                "response_id": "req_1", "input": "[USER] hi", "output": "hello"}),
        ),
        // 2.1.332 also sends the same counts under OpenTelemetry's names, inclusively.
        (
            CLAUDE,
            "claude_code.llm_request",
            json!({"span.type": "llm_request", "gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "input_tokens": 1001,
                "output_tokens": 201, "cache_read_tokens": 301, "cache_creation_tokens": 51, "gen_ai.usage.input_tokens": 1353,
                "gen_ai.usage.output_tokens": 201, "gen_ai.usage.cache_read.input_tokens": 301, "gen_ai.usage.cache_write.input_tokens": 51}),
            json!({"kind": "generation", "usage": {"input": 1353, "output": 201, "cached_read": 301, "cache_write": 51}}),
        ),
        (
            CLAUDE,
            "claude_code.llm_request",
            json!({"span.type": "llm_request", "query_source": "agent:custom:reviewer"}),
            json!({"kind": "generation", "agent": "reviewer"}),
        ),
        (
            CLAUDE,
            "claude_code.llm_request",
            json!({"span.type": "llm_request", "query_source": "repl_main_thread:outputStyle:custom"}),
            json!({"kind": "generation", "agent": null}),
        ),
        (
            CLAUDE,
            "claude_code.tool",
            json!({"span.type": "tool", "tool_name": "Bash", "tool_use_id": "toolu_1", "tool_input": "{\"command\":\"ls\"}", "new_context": "a.txt"}),
            json!({"kind": "tool", "tool": "Bash", "name": "Bash", "tool_call_id": "toolu_1", "input": {"json": {"command": "ls"}}, "output": "a.txt"}),
        ),
        (
            CLAUDE,
            "claude_code.tool.execution",
            json!({"span.type": "tool.execution", "tool_use_id": "toolu_1", "success": false}),
            json!({"kind": "chain"}),
        ),
        (
            "gemini-cli",
            "llm_call",
            json!({"gen_ai.operation.name": "llm_call", "gen_ai.agent.name": "gemini-cli", "gen_ai.request.model": "gemini-3-pro",
                "gen_ai.prompt.name": "s########1", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4}),
            json!({"kind": "generation", "agent": null, "prompt_name": null, "provider": "gcp.gemini", "usage": {"input": 10, "output": 4}}),
        ),
        (
            "gemini-cli",
            "tool_call",
            json!({"gen_ai.operation.name": "tool_call", "gen_ai.tool.name": "ls", "gen_ai.tool.call_id": "c"}),
            json!({"kind": "tool", "tool": "ls", "tool_call_id": "c"}),
        ),
        (
            "copilot-chat",
            "chat gpt-5",
            json!({"gen_ai.operation.name": "chat", "gen_ai.agent.name": "panel/editAgent", "gen_ai.conversation.id": "request-9",
                "copilot_chat.chat_session_id": "cs1", "copilot_chat.time_to_first_token": 250}),
            json!({"kind": "generation", "agent": null, "session": "cs1", "first_token_ns": 250_000_000}),
        ),
        (
            "copilot-chat",
            "execute_hook PreToolUse",
            json!({"gen_ai.operation.name": "execute_hook"}),
            json!({"kind": "guardrail"}),
        ),
    ]);
}

#[test]
fn agent_frameworks_are_told_apart_from_the_calls_inside_them() {
    const ADK: &str = "gcp.vertex.agent";
    const LIVEKIT: &str = "livekit-agents";
    let model = json!({"gen_ai.request.model": "m", "gen_ai.provider.name": "openai"});
    check(&[
        (
            ADK,
            "agent_run [weather_agent]",
            json!({}),
            json!({"kind": "agent", "agent": "weather_agent"}),
        ),
        (ADK, "invocation", json!({}), json!({"kind": "chain"})),
        (
            ADK,
            "execute_tool (merged)",
            json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"}),
            json!({"kind": "chain"}),
        ),
        (
            ADK,
            "call_llm",
            json!({"gen_ai.system": "gcp.vertex.agent", "gen_ai.request.model": "gemini-2.5-flash",
                "gcp.vertex.agent.llm_request": "{\"contents\":[]}", "gcp.vertex.agent.session_id": "s",
                "gcp.vertex.agent.llm_response": "{\"usage_metadata\":{\"prompt_token_count\":9,\"candidates_token_count\":2,\"thoughts_token_count\":5,\"total_token_count\":16}}"}),
            json!({"kind": "generation", "provider": null, "session": "s", "input": {"json": {"contents": []}},
                "usage": {"input": 9, "output": 7, "total": 16, "reasoning": 5}}),
        ),
        (LIVEKIT, "llm_node", model.clone(), json!({"kind": "chain"})),
        (LIVEKIT, "llm_request_run", model.clone(), json!({"kind": "custom"})),
        (
            LIVEKIT,
            "user_turn",
            json!({"gen_ai.request.model": "nova-3", "gen_ai.provider.name": "deepgram", "lk.pii.user_transcript": "hi"}),
            json!({"kind": "transcription", "output": "hi"}),
        ),
        (
            LIVEKIT,
            "llm_request",
            json!({"gen_ai.request.model": "gpt-4o", "lk.llm_metrics":
                "{\"prompt_tokens\":9,\"prompt_cached_tokens\":4,\"completion_tokens\":3,\"total_tokens\":12,\"ttft\":0.5}", "lk.response.ttft": 0.5}),
            json!({"kind": "generation", "usage": {"input": 9, "output": 3, "total": 12, "cached_read": 4}, "first_token_ns": 500_000_000}),
        ),
        (
            LIVEKIT,
            "function_tool",
            json!({"lk.function_tool.name": "look", "lk.function_tool.arguments": "{\"a\":1}", "lk.pii.function_tool.output": "ok"}),
            json!({"kind": "tool", "tool": "look", "input": {"json": {"a": 1}}, "output": "ok"}),
        ),
        (
            "strands.telemetry.tracer",
            "execute_event_loop_cycle",
            json!({"gen_ai.operation.name": "execute_event_loop_cycle", "gen_ai.system": "strands-agents"}),
            json!({"kind": "chain", "provider": null}),
        ),
        (
            "openinference.instrumentation.smolagents",
            "CodeAgent.run",
            json!({"openinference.span.kind": "AGENT", "smolagents.task": "go"}),
            json!({"kind": "agent", "agent": "CodeAgent", "input": "go"}),
        ),
        (
            "a reranker",
            "rerank",
            json!({"openinference.span.kind": "RERANKER", "reranker.query": "which?", "reranker.model_name": "rerank-3"}),
            json!({"kind": "reranker", "input": "which?", "response_model": "rerank-3"}),
        ),
        (
            "openinference.instrumentation.together",
            "Completions",
            json!({"openinference.span.kind": "LLM", "llm.token_count.prompt": 1001, "llm.token_count.completion": 201, "llm.token_count.total": 1202,
                "output.mime_type": "application/json",
                "output.value": "{\"id\":\"chatcmpl-1\",\"usage\":{\"completion_tokens\":201,\"prompt_tokens\":1001,\"total_tokens\":1202,\"prompt_tokens_details\":{\"cached_tokens\":301},\"completion_tokens_details\":{\"reasoning_tokens\":51}}}"}),
            json!({"kind": "generation", "response_id": "chatcmpl-1",
                "usage": {"input": 1001, "output": 201, "total": 1202, "cached_read": 301, "reasoning": 51}}),
        ),
        (
            "opentelemetry.instrumentation.crewai",
            "Researcher.agent",
            json!({"gen_ai.operation.name": "invoke_agent", "traceloop.span.kind": "agent", "gen_ai.provider.name": "crewai"}),
            json!({"kind": "agent", "agent": "Researcher", "provider": null}),
        ),
        (
            "opentelemetry.instrumentation.crewai",
            "find.task",
            json!({"gen_ai.operation.name": "invoke_agent", "traceloop.span.kind": "task"}),
            json!({"kind": "chain"}),
        ),
        (
            "opentelemetry.instrumentation.langchain",
            "graph.workflow",
            json!({"gen_ai.operation.name": "invoke_agent", "traceloop.span.kind": "workflow"}),
            json!({"kind": "chain"}),
        ),
        (
            "agent_framework",
            "invoke_agent A",
            json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "microsoft.agent_framework"}),
            json!({"kind": "agent", "agent": "A", "provider": null}),
        ),
        (
            "agent_framework",
            "executor.process x",
            json!({"executor.id": "x"}),
            json!({"kind": "chain"}),
        ),
        (
            "Experimental.Microsoft.Extensions.AI",
            "orchestrate_tools",
            json!({"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 1}),
            json!({"kind": "chain", "usage": null, "aggregate_usage": {"input": 3, "output": 1}}),
        ),
        (
            "semantic_kernel.connectors",
            "AutoFunctionInvocationLoop",
            json!({"sk.available_functions": "a"}),
            json!({"kind": "chain"}),
        ),
        (
            "x",
            "process_thread_run",
            json!({"gen_ai.operation.name": "process_thread_run", "gen_ai.system": "az.ai.agents", "gen_ai.thread.id": "t"}),
            json!({"kind": "chain", "session": "t", "provider": "azure.ai.agents"}),
        ),
    ]);
}

#[test]
fn counts_that_exclude_each_other_are_known_by_their_client() {
    let counts = |more: Json| {
        let mut sent = json!({"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 500, "gen_ai.usage.output_tokens": 50});
        sent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sent
    };
    let read = json!({"gen_ai.usage.cache_read_input_tokens": 100});
    let exclusive = json!({"usage": {"input": 600, "output": 50, "cached_read": 100}});
    let inclusive = json!({"usage": {"input": 500, "output": 50, "cached_read": 100}});
    let vercel = |key: &str| {
        json!({"ai.operationId": "ai.generateText.doGenerate", "ai.model.provider": "anthropic.messages",
        "ai.model.id": "claude", "ai.usage.inputTokens": 500, "ai.usage.outputTokens": 50, key: 100})
    };
    check(&[
        ("agent_framework", "chat", counts(read.clone()), exclusive.clone()),
        ("openlit.instrumentation.anthropic", "chat", counts(read.clone()), exclusive.clone()),
        ("opentelemetry.instrumentation.bedrock", "chat", counts(read.clone()), exclusive.clone()),
        ("org.springframework.boot", "chat", counts(read.clone()), exclusive.clone()),
        ("strands.telemetry.tracer", "chat", counts(read.clone()), exclusive.clone()),
        (
            "strands.telemetry.tracer",
            "chat",
            counts(json!({"gen_ai.usage.cache_read.input_tokens": 100})),
            inclusive.clone(),
        ),
        (
            "opentelemetry.instrumentation.anthropic",
            "chat",
            counts(read.clone()),
            exclusive.clone(),
        ),
        ("pydantic-ai", "chat", counts(read.clone()), inclusive.clone()),
        (
            "ai",
            "ai.generateText.doGenerate",
            vercel("ai.usage.cachedInputTokens"),
            exclusive.clone(),
        ),
        (
            "opencode",
            "ai.streamText.doStream",
            vercel("ai.usage.cachedInputTokens"),
            exclusive.clone(),
        ),
        (
            "ai",
            "ai.generateText.doGenerate",
            vercel("ai.usage.inputTokenDetails.cacheReadTokens"),
            inclusive.clone(),
        ),
        (
            "genkit-tracer",
            "anthropic/claude-sonnet-4-5",
            json!({"genkit:type": "action", "genkit:metadata:subtype": "model", "genkit:name": "anthropic/claude-sonnet-4-5",
                "genkit:input": "{\"messages\":[],\"config\":{\"temperature\":0.5}}",
                "genkit:output": "{\"message\":{},\"finishReason\":\"stop\",\"usage\":{\"inputTokens\":500,\"outputTokens\":50,\"custom\":{\"cache_read_input_tokens\":100}}}"}),
            json!({"kind": "generation", "provider": "anthropic", "request_model": "claude-sonnet-4-5", "finish_reasons": ["stop"],
                "parameters": {"json": {"temperature": 0.5}}, "usage": {"input": 600, "output": 50, "cached_read": 100}}),
        ),
        (
            "genkit-tracer",
            "generate",
            json!({"genkit:type": "util", "genkit:name": "generate",
                "genkit:output": "{\"usage\":{\"inputTokens\":500,\"outputTokens\":50}}"}),
            json!({"kind": "chain", "usage": null, "aggregate_usage": {"input": 500, "output": 50}}),
        ),
    ]);
}

#[test]
fn gateways_and_libraries_say_costs_users_and_content_in_their_own_keys() {
    check(&[
        (
            "litellm",
            "litellm_request",
            json!({"llm.request.type": "aembedding", "gen_ai.request.model": "e", "llm.user": "u",
                "gen_ai.cost.total_cost": 0.002, "gen_ai.cost.input_cost": 0.002}),
            json!({"kind": "embedding", "user": "u", "cost": [0.002, null, 0.002]}),
        ),
        (
            "litellm",
            "chat rerank-1",
            json!({"gen_ai.operation.name": "chat", "litellm.call_type": "arerank", "litellm.end_user.id": "u",
                "litellm.cost.total": 0.1}),
            json!({"kind": "reranker", "user": "u", "cost": [null, null, 0.1]}),
        ),
        (
            "litellm",
            "guardrail",
            json!({"guardrail_name": "pii"}),
            json!({"kind": "guardrail", "guardrail": "pii"}),
        ),
        (
            "org.springframework.boot",
            "tool_call get",
            json!({"gen_ai.operation.name": "framework", "spring.ai.kind": "tool_call",
                "spring.ai.tool.definition.name": "get", "spring.ai.tool.call.arguments": "{\"a\":1}"}),
            json!({"kind": "tool", "tool": "get", "input": {"json": {"a": 1}}}),
        ),
        (
            "org.springframework.boot",
            "spring_ai chat_client",
            json!({"gen_ai.operation.name": "framework", "gen_ai.system": "spring_ai",
                "spring.ai.kind": "chat_client", "spring.ai.chat.client.conversation.id": "c"}),
            json!({"kind": "chain", "session": "c", "provider": null}),
        ),
        (
            "openlit.instrumentation.langchain",
            "framework x",
            json!({"gen_ai.operation.name": "framework"}),
            json!({"kind": "chain"}),
        ),
        (
            "openlit.instrumentation.openai",
            "chat m",
            json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.tool.name": "a, b",
                "gen_ai.tool.call.arguments": "{\"a\":1}", "gen_ai.server.time_to_first_token": 0.0, "gen_ai.usage.cost": 0.5}),
            json!({"kind": "generation", "tool": null, "input": null, "first_token_ns": null, "cost": [null, null, 0.5]}),
        ),
        (
            "openlit.instrumentation.openai",
            "chat m",
            json!({"gen_ai.operation.name": "chat", "gen_ai.server.time_to_first_token": 0.25}),
            json!({"first_token_ns": 250_000_000}),
        ),
        (
            "x",
            "retrieval kb",
            json!({"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.query.text": "oslo",
                "gen_ai.retrieval.documents": "[{\"id\":\"d1\"}]"}),
            json!({"kind": "retriever", "input": "oslo", "output": {"json": [{"id": "d1"}]}}),
        ),
        (
            "Microsoft.SemanticKernel.Diagnostics",
            "chat.streaming_completions m",
            json!({"gen_ai.operation.name": "chat.streaming_completions",
                "gen_ai.response.finish_reason": "[\"Stop\"]"}),
            json!({"kind": "generation", "finish_reasons": ["Stop"]}),
        ),
        (
            "gen_ai",
            "ai.generateSpeech tts-1",
            json!({"gen_ai.operation.name": "ai.generateSpeech", "gen_ai.request.model": "tts-1"}),
            json!({"kind": "speech"}),
        ),
        (
            "langsmith",
            "agent",
            json!({"langsmith.span.kind": "chain", "langsmith.span.tags": "seq:step:1, mine, graph:step:2, langsmith:hidden"}),
            json!({"tags": ["mine"]}),
        ),
        (
            "dify",
            "llm",
            json!({"gen_ai.span.kind": "LLM", "gen_ai.request.model": "gpt-4o",
                "dify.usage": "{\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8,\"total_price\":\"0.1\",\"latency\":1.5}"}),
            json!({"kind": "generation", "usage": {"input": 5, "output": 3, "total": 8}}),
        ),
        (
            "fastmcp",
            "delegate add",
            json!({"mcp.method.name": "tools/call", "fastmcp.provider.type": "FastMCPProvider", "fastmcp.component.key": "add"}),
            json!({"kind": "chain", "tool": null}),
        ),
        (
            "fastmcp",
            "tools/call add",
            json!({"mcp.method.name": "tools/call", "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add", "fastmcp.server.name": "sums"}),
            json!({"kind": "tool", "tool": "add", "mcp_server": "sums"}),
        ),
        (
            "ragbits.core.audit.traces.otel",
            "generate",
            json!({"inputs.model_name": "openai/gpt-4o-mini", "outputs.response": "[LLMResponse()]", "outputs.prompt_tokens_batch": 1001,
                "outputs.total_tokens_batch": 1202}),
            json!({"kind": "generation", "request_model": "openai/gpt-4o-mini", "usage": {"input": 1001, "output": 201, "total": 1202}}),
        ),
        (
            "ragbits.core.audit.traces.otel",
            "Agent._execute_tool",
            json!({"inputs.tool_name": "add", "inputs.tool_arguments.a": 1, "outputs.result.tool_output": "2", "outputs.result.tool_call_id": "call_1"}),
            json!({"kind": "tool", "tool": "add", "tool_call_id": "call_1", "input": {"json": {"a": 1}}, "output": "2"}),
        ),
        (
            "ragbits.core.audit.traces.otel",
            "Agent._stream_internal",
            json!({"inputs.input": "hi"}),
            json!({"kind": "agent", "agent": null, "input": "hi"}),
        ),
        (
            "genkit-tracer",
            "generate",
            json!({"genkit:type": "util", "genkit:name": "generate",
                "genkit:output": "{\"finishReason\":\"failed\",\"error\":{\"status\":\"INTERNAL\",\"message\":\"no such city\"}}"}),
            json!({"kind": "chain", "finish_reasons": ["failed"], "error": {"kind": null, "message": "no such city", "data": null}}),
        ),
        ("my-service", "EmbeddingModel.embed", json!({}), json!({"kind": "embedding"})),
        (
            "scorecard-llm",
            "openai.request",
            json!({"gen_ai.system": "openai", "gen_ai.operation.name": "chat", "gen_ai.prompt.messages": "[{\"role\": \"user\", \"content\": \"x\"}]",
                "gen_ai.completion.choices": "[{\"message\": {\"role\": \"assistant\", \"content\": \"Answer.\"}}]"}),
            json!({"kind": "generation", "input": {"json": [{"role": "user", "content": "x"}]},
                "output": {"json": {"role": "assistant", "content": "Answer."}}}),
        ),
        (
            "basalt.observability.tool",
            "weather",
            json!({"basalt.span.kind": "tool", "basalt.user.id": "u1", "basalt.span.input": "{\"city\": \"Oslo\"}", "basalt.span.output": "3 in Oslo"}),
            json!({"kind": "tool", "tool": "weather", "user": "u1", "input": {"json": {"city": "Oslo"}}, "output": "3 in Oslo"}),
        ),
        (
            "basalt.observability",
            "run",
            json!({"basalt.span.kind": "basalt_trace", "basalt.metadata": "{\"k\":\"v\"}"}),
            json!({"kind": "chain", "metadata": {"k": "v"}}),
        ),
        (
            "opentelemetry.util.genai.handler",
            "step call_model",
            json!({"gen_ai.step.name": "call_model", "gen_ai.step.type": "chain", "gen_ai.agent.name": "calc", "gen_ai.conversation.id": "t1"}),
            json!({"kind": "chain", "agent": "calc", "session": "t1"}),
        ),
        (
            "x",
            "a new word",
            json!({"gen_ai.operation.name": "brand_new", "gen_ai.request.model": "m", "gen_ai.usage.output_tokens": "7"}),
            json!({"kind": "generation", "usage": {"output": 7}}),
        ),
        (
            "x",
            "text-embedding-3",
            json!({"gen_ai.operation.name": "brand_new", "gen_ai.request.model": "text-embedding-3-small", "gen_ai.usage.input_tokens": 7}),
            json!({"kind": "embedding", "usage": {"input": 7}}),
        ),
    ]);
}

#[test]
fn what_is_not_understood_is_noted_by_name_alone() {
    let notes =
        |sent: Json| named_facts("x", "span", &sent).notes.map(|notes| *notes).unwrap_or_default();
    let sent = json!({"gen_ai.operation.name": "brand_new", "gen_ai.usage.input_tokens": "NaN", "gen_ai.usage.output_tokens": -4});
    let found = notes(sent);
    assert_eq!(found.unknown_operation.as_deref(), Some("brand_new"));
    assert!(found.uncounted.is_some_and(|key| key.starts_with("gen_ai.usage.")));
    assert_eq!(
        notes(json!({"gen_ai.usage.unheard_of_tokens": 4})).uncounted.as_deref(),
        Some("gen_ai.usage.unheard_of_tokens")
    );
    let odd = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5, "gen_ai.usage.total_tokens": 3});
    assert_eq!(notes(odd).uncounted.as_deref(), Some("total_tokens"));
    for absurd in [json!(-0.1), json!(1e300), json!("NaN")] {
        let sent = named_facts("x", "chat", &json!({"gen_ai.usage.cost": absurd, "cost_usd": 0.5}));
        assert_eq!(sent.notes.unwrap().uncounted.as_deref(), Some("gen_ai.usage.cost"), "{absurd}");
        assert_eq!(sent.cost.total, Some(0.5), "what says nothing leaves the place to the next");
    }
    let known = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1_000_000_000_000_u64, "gen_ai.usage.cost": 0.1});
    assert_eq!(named_facts("x", "span", &known).notes, None);
}
