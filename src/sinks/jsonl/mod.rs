//! JSON lines: one span or trace object a line, in flat columns that pandas, DuckDB and SQLite read directly.
//!
//! This page is the schema, version 2; it is what `file` writes with `format = "jsonl"` and `stdout` with `format = "json"`.
//!
//! * **A column has one type**, in all lines. A column that says nothing is left out; readers see null or NaN.
//! * **Names** are OpenTelemetry's where it has one: the fields of OTLP in snake case, and GenAI attributes without their
//!   `gen_ai.` and with underscores, so that no name needs quoting in SQL.
//! * **Nothing is lost.** `attributes` are all attributes of a span that came as OTLP, whether they were understood or not;
//!   `openai_item` is an item of the Agents SDK as it came. An attribute whose text is the column `input`, `output` or
//!   `tool_definitions` is not written twice: the column `input_attribute` (and so on) says which one it was.
//! * **Payloads are text**, and JSON payloads are JSON as text (`input_is_json` and so on say which), because a column of
//!   strings has one type however deep and mixed the JSON in it is. `json_extract(input, '$[0].role')` reads into it.
//! * **Tokens and costs are there once.** `SUM(input_tokens)` over the lines of a trace is the trace's total, and so with `cost_usd`: what
//!   repeats other spans (an agent's sum, a call around another) is in the columns `aggregate_...`.
//! * **A line is never written again.** `session_id`, `user_id` and `tags` are the span's own, else what is known of its trace when
//!   the line is written. What becomes known later is not on earlier lines: a session that only the root of a later request says,
//!   or that a span repeats one that comes after it. Take these from the whole trace: `MAX(session_id) OVER (PARTITION BY trace_id)`.
//! * **Reading.** pandas: `read_json(path, lines=True)`. DuckDB: `FROM 'traces.jsonl'`, or `read_json(path,
//!   maximum_object_size=...)` where a line has more than 16 MiB. SQLite: a line a row, then `line ->> '$.name'`.
//! * Versions: columns are added without notice; when one changes its meaning or goes, `schema_version` counts up. In version 1, `cost_usd` was what
//!   clients reported and nothing else.
//!
//! | column | type | what it says |
//! |---|---|---|
//! | `schema_version` | integer | 2; in every line |
//! | `record` | string | `span`, or `trace` for the Agents SDK's trace object; in every line |
//! | `trace_id` | string | 32 hexadecimal digits; in every line |
//! | `span_id` | string | 16 hexadecimal digits; in every span |
//! | `parent_span_id` | string | the span above |
//! | `trace_state` | string | W3C trace state |
//! | `flags` | integer | W3C flags, with OTLP's bits above them |
//! | `name` | string | the span's name, or the trace object's workflow; in every line |
//! | `display_name` | string | a better name, where the convention has one |
//! | `kind` | string | `agent generation tool handoff guardrail retriever embedding reranker chain evaluator mcp speech transcription event custom`; in every span |
//! | `convention` | string | which convention decided the kind; in every span |
//! | `sdk_span_type` | string | `task` or `turn`, where the Agents SDK marks a span as one |
//! | `span_kind` | string | OTLP's kind: `unspecified internal server client producer consumer`, or a number that is none of them; in every span |
//! | `start_time` | string | RFC 3339 in UTC with nanoseconds |
//! | `end_time` | string | likewise |
//! | `start_time_unix_nano` | integer | nanoseconds since 1970; 0 when not said; in every line |
//! | `end_time_unix_nano` | integer | likewise |
//! | `duration_ns` | integer | from start to end; 0 when a time is missing; in every line |
//! | `status` | string | `unset ok error`, or a number that is none of them; in every span |
//! | `status_message` | string | OTLP's status message |
//! | `error_type` | string | type or class of the error |
//! | `error_message` | string | its message |
//! | `error_data` | string | more about it, mostly JSON |
//! | `environment` | string | deployment environment |
//! | `release` | string | the application's release |
//! | `workflow_name` | string | the workflow |
//! | `session_id` | string | the conversation, session or group |
//! | `user_id` | string | the end user |
//! | `tags` | array | labels, strings |
//! | `metadata` | object | free facts: names to strings, which hold JSON where the client sent JSON |
//! | `agent_name` | string | the agent at work |
//! | `tool_name` | string | the tool called |
//! | `tool_call_id` | string | ties the call to the model's request for it |
//! | `provider_name` | string | who serves the model |
//! | `request_model` | string | the model asked for |
//! | `response_model` | string | the model that answered |
//! | `response_id` | string | the model's answer |
//! | `finish_reasons` | array | why the model stopped, strings |
//! | `parameters` | string | the model call's parameters, a JSON object |
//! | `time_to_first_token_ns` | integer | from the start to the first part of the answer |
//! | `input_tokens` | integer | read by the model, cached ones included |
//! | `output_tokens` | integer | written by the model, reasoning included |
//! | `total_tokens` | integer | both, as reported |
//! | `cache_read_input_tokens` | integer | part of `input_tokens` read from a cache |
//! | `cache_creation_input_tokens` | integer | part of `input_tokens` written to a cache |
//! | `reasoning_output_tokens` | integer | part of `output_tokens` |
//! | `audio_input_tokens` | integer | part of `input_tokens` |
//! | `audio_output_tokens` | integer | part of `output_tokens` |
//! | `cache_creation_1h_input_tokens` | integer | part of `cache_creation_input_tokens` that the cache keeps for an hour |
//! | `aggregate_input_tokens` | integer | what repeats the tokens of other spans; never add these to the others |
//! | `aggregate_output_tokens` | integer | likewise |
//! | `aggregate_total_tokens` | integer | likewise |
//! | `aggregate_cache_read_input_tokens` | integer | likewise |
//! | `aggregate_cache_creation_input_tokens` | integer | likewise |
//! | `aggregate_reasoning_output_tokens` | integer | likewise |
//! | `aggregate_audio_input_tokens` | integer | likewise |
//! | `aggregate_audio_output_tokens` | integer | likewise |
//! | `aggregate_cache_creation_1h_input_tokens` | integer | likewise |
//! | `cost_usd` | number | as the client reported it, else by the table of prices; where the span's tokens count |
//! | `input_cost_usd` | number | likewise |
//! | `output_cost_usd` | number | likewise |
//! | `cost_source` | string | who says so: `sdk` (the client), `table:` with the table's date, or `override` (`[prices]`) |
//! | `aggregate_cost_usd` | number | as the client reported it, on a span that repeats others |
//! | `prompt_name` | string | the prompt template |
//! | `prompt_version` | string | its version |
//! | `handoff_from` | string | who hands over |
//! | `handoff_to` | string | who takes over |
//! | `guardrail_name` | string | the guardrail |
//! | `guardrail_triggered` | boolean | whether it tripped |
//! | `mcp_server` | string | the MCP server |
//! | `mcp_method` | string | the MCP method |
//! | `scores` | array | judgements: objects with `name`, `value`, `label`, `explanation` |
//! | `input` | string | what went in |
//! | `input_is_json` | boolean | whether it is JSON |
//! | `input_attribute` | string | the attribute whose text it is |
//! | `output` | string | what came out |
//! | `output_is_json` | boolean | whether it is JSON |
//! | `output_attribute` | string | the attribute whose text it is |
//! | `tool_definitions` | string | the tools the model could call, mostly JSON |
//! | `tool_definitions_attribute` | string | the attribute whose text it is |
//! | `openai_trace_id` | string | the Agents SDK's own id |
//! | `openai_span_id` | string | likewise |
//! | `openai_parent_id` | string | likewise |
//! | `openai_item` | string | the item as the Agents SDK sent it, JSON without line breaks |
//! | `attributes` | object | bytes are base64; NaN and the infinities are strings; of a repeated key the last value |
//! | `dropped_attributes_count` | integer | what the client left out |
//! | `events` | array | objects with `time`, `time_unix_nano`, `name`, `attributes`, `dropped_attributes_count` |
//! | `dropped_events_count` | integer | what the client left out |
//! | `links` | array | objects with `trace_id`, `span_id`, `trace_state`, `flags`, `attributes`, `dropped_attributes_count` |
//! | `dropped_links_count` | integer | what the client left out |
//! | `resource` | object | attributes of the entity that made the span |
//! | `resource_dropped_attributes_count` | integer | what the client left out |
//! | `resource_schema_url` | string | the schema of the resource |
//! | `scope_name` | string | the instrumentation |
//! | `scope_version` | string | its version |
//! | `scope_attributes` | object | its attributes |
//! | `scope_dropped_attributes_count` | integer | what the client left out |
//! | `scope_schema_url` | string | the schema of the scope and its spans |
//! | `service_name` | string | the resource's `service.name` |
//! | `received_at` | string | when the daemon took it, RFC 3339 with nanoseconds; in every line |
//! | `receiver` | string | `openai`, `otlp_http` or `otlp_grpc`; in every line |
//! | `tenant` | string | the client's tenant |
//! | `user_agent` | string | the client's `User-Agent` |
//! | `openai_organization` | string | the client's `OpenAI-Organization` |
//! | `openai_project` | string | the client's `OpenAI-Project` |

pub(super) mod columns;
mod encode;
#[cfg(test)]
mod tests;

pub use columns::{SPAN_KINDS, STATUSES, join_attributes_but, write_attributes};
pub use encode::Lines;

/// The version of the schema that this page describes.
pub const SCHEMA_VERSION: u64 = 2;
