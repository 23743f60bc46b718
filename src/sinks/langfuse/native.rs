//! Spans of the Agents SDK in Langfuse's own words. Pure.
//!
//! | the SDK's span | type | what else |
//! |---|---|---|
//! | task, turn, and the root made for a trace | chain | their token counts, which repeat those below them, are metadata |
//! | agent | agent | tools, handoffs and output type are metadata |
//! | generation, response | generation | model, parameters, input, output, tokens |
//! | function | tool | input, output; the MCP server is metadata |
//! | handoff | span | input is who hands over, output who takes over |
//! | guardrail | guardrail | output is whether it tripped; if so, it is a warning |
//! | `mcp_tools` | span | output is the list of tools |
//! | transcription, speech | generation | audio is its format and size |
//! | `speech_group`, custom, whatever else | span | data is metadata |
//!
//! Whatever of an item has no place of its own is metadata of the observation, the ids as the SDK wrote them included.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::encode::{Answer, Encoding};
use super::fields;
use super::reads::type_of;
use super::trace::{self, Trace};
use super::usage::write_buckets;
use crate::span::otlp::protobuf::{
    write_bytes, write_fixed64, write_int32, write_status_and_flags,
};
use crate::span::plain::is_safe;
use crate::span::{
    Attribute, Detail, Facts, Kind, Payload, Span, Text, Tokens, Usage, Value, keys,
};
use crate::support::json::object::Object;
use crate::support::json::{write_i64, write_str};

/// Appends the fields of a `Span` message.
pub(super) fn write(out: &mut Vec<u8>, span: &Span, encoding: &Encoding<'_>) {
    let detail = span.brief_detail();
    let writer = Writer {
        span,
        facts: span.facts(),
        detail: &detail,
        trace: encoding.traces.get(span.trace_id),
        tokens: encoding.tokens(span),
        encoding,
    };
    writer.write(out);
}

struct Writer<'a> {
    span: &'a Span,
    facts: &'a Facts,
    detail: &'a Detail,
    trace: Option<&'a Trace<'a>>,
    tokens: Tokens<'a>,
    encoding: &'a Encoding<'a>,
}

impl Writer<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let (start_ns, end_ns) = self.encoding.traces.times(self.span);
        let context = self.trace.and_then(|trace| trace.context);
        let parent = self.encoding.settings.options.root_span.parent_of(context, self.span);
        write_bytes(out, 1, self.span.trace_id.as_bytes());
        write_bytes(out, 2, self.span.span_id.as_bytes());
        if let Some(parent) = parent {
            write_bytes(out, 4, parent.as_bytes());
        }
        let model = self.model();
        self.write_name(out, model);
        write_int32(out, 6, self.detail.kind);
        write_fixed64(out, 7, start_ns);
        write_fixed64(out, 8, end_ns);
        self.write_trace(out);
        fields::text(out, fields::TYPE, self.observation_type());
        self.write_level(out);
        self.write_content(out);
        self.write_model(out, model);
        if let Some(first) = self.facts.first_token_ns {
            fields::time(out, fields::COMPLETION_START, start_ns.saturating_add(first));
        }
        self.write_metadata(out);
        write_status_and_flags(out, self.detail);
    }

    /// Of a model call without a model in its name, but with one in the configuration, the name says that. The root that was made
    /// for a trace is called like the trace.
    fn write_name(&self, out: &mut Vec<u8>, model: Option<&str>) {
        let of_trace = self.facts.workflow.as_ref().filter(|_| self.span.is_synthetic());
        let name = of_trace.unwrap_or(&self.facts.name);
        match model.filter(|_| &**name == "chat") {
            Some(model) => {
                let name = format!("{name} {model}");
                write_bytes(out, 5, fields::cut(&name, fields::NAME_UNITS_MAX).as_bytes());
            }
            None if name.is_empty() => write_bytes(out, 5, b"span"),
            None => write_bytes(out, 5, fields::cut(name, fields::NAME_UNITS_MAX).as_bytes()),
        }
    }

    fn write_trace(&self, out: &mut Vec<u8>) {
        let Some(trace) = self.trace else { return };
        out.extend_from_slice(&trace.stamp);
        if let (None, Some(workflow)) = (&trace.name, &self.facts.workflow) {
            trace::write_name(out, workflow);
        }
    }

    fn observation_type(&self) -> &'static str {
        let facts = self.facts;
        let is_group = || facts.sdk_span_type.is_none() && self.is_speech_group();
        let known = type_of(facts.kind).filter(|_| facts.kind != Kind::Chain || !is_group());
        known.unwrap_or("span")
    }

    fn is_speech_group(&self) -> bool {
        let span_type = self.attribute(keys::OPENAI_AGENTS_SPAN_TYPE);
        span_type.is_some_and(|span_type| span_type.starts_with("speech"))
    }

    fn attribute(&self, key: &str) -> Option<&Text> {
        let found = self.detail.attributes.iter().find(|attribute| *attribute.key == *key);
        found.and_then(|attribute| attribute.value.as_text())
    }

    fn write_level(&self, out: &mut Vec<u8>) {
        if let Some(error) = &self.facts.error {
            fields::text(out, fields::LEVEL, "ERROR");
            if !error.message.is_empty() {
                fields::text(out, fields::STATUS_MESSAGE, &error.message);
            }
        } else if self.facts.guardrail_triggered == Some(true) {
            fields::text(out, fields::LEVEL, "WARNING");
            fields::text(out, fields::STATUS_MESSAGE, "guardrail triggered");
        }
    }

    /// Input and output. Langfuse shows those of the root as the trace's own, so a root or task without any gets the first and last
    /// that went through a model below it.
    fn write_content(&self, out: &mut Vec<u8>) {
        let facts = self.facts;
        match facts.kind {
            Kind::Handoff => {
                fields::text_if(out, fields::INPUT, facts.handoff_from.as_deref());
                fields::text_if(out, fields::OUTPUT, facts.handoff_to.as_deref());
            }
            Kind::Guardrail => {
                let output = facts.guardrail_triggered.map(|triggered| {
                    if triggered { r#"{"triggered":true}"# } else { r#"{"triggered":false}"# }
                });
                fields::text_if(out, fields::OUTPUT, output);
            }
            _ => {
                let content = self.trace.and_then(|trace| trace.content(self.span));
                let answer = self.answer().and_then(|answer| answer.output.as_ref());
                let input = facts.input.as_ref().or(content.and_then(|known| known.input.as_ref()));
                let output = facts.output.as_ref().or(answer);
                let output = output.or(content.and_then(|known| known.output.as_ref()));
                fields::text_if(out, fields::INPUT, input.map(Payload::as_str));
                fields::text_if(out, fields::OUTPUT, output.map(Payload::as_str));
            }
        }
    }

    // === Model ===

    /// What OpenAI said when it was asked for the answer.
    fn answer(&self) -> Option<&Answer> {
        self.encoding.answers.get(self.facts.response_id.as_ref()?)
    }

    /// The model: as the item says, else as the configuration, else as OpenAI.
    fn model(&self) -> Option<&str> {
        let facts = self.facts;
        let own = facts.request_model.as_ref().or(facts.response_model.as_ref());
        if let Some(own) = own {
            return Some(own);
        }
        if facts.kind != Kind::Generation {
            return None;
        }
        let models = &self.encoding.settings.options.models;
        let of_agent = self.agent().and_then(|agent| models.agents.get(&**agent));
        of_agent
            .or(models.default.as_ref())
            .map(String::as_str)
            .or_else(|| self.answer().and_then(|answer| answer.model.as_deref()))
    }

    /// The agent at whose behest the span is.
    fn agent(&self) -> Option<&Text> {
        let context = self.trace.and_then(|trace| trace.context);
        let known = context.and_then(|context| context.agents.get(&self.span.span_id));
        self.facts.agent.as_ref().or(known)
    }

    fn write_model(&self, out: &mut Vec<u8>, model: Option<&str>) {
        let facts = self.facts;
        if self.tokens.repeats() {
            return;
        }
        if facts.kind.counts_usage() {
            fields::text_if(out, fields::MODEL, model);
            if let Some(parameters) = facts.parameters.as_ref() {
                write_parameters(out, parameters.as_str());
            }
            let usage = if facts.usage.is_empty() {
                self.answer().map_or(facts.usage, |answer| answer.usage)
            } else {
                facts.usage
            };
            if !usage.is_empty() || (model.is_some() && self.would_be_estimated()) {
                self.write_usage(out, &usage, model);
            }
        } else if self.tokens.counts && !self.encoding.answers.counted.contains(&self.span.trace_id)
        {
            // One model for all agents can price it; several cannot be told apart.
            let models = &self.encoding.settings.options.models;
            let model = models.default.as_deref().filter(|_| models.agents.is_empty());
            fields::text_if(out, fields::MODEL, model);
            self.write_usage(out, self.tokens.own, model);
        }
    }

    /// Of a text with a model and without tokens Langfuse makes up both tokens and cost. The text of a native span is JSON around
    /// the words, or stands for audio, so that it would be far off.
    fn would_be_estimated(&self) -> bool {
        let facts = self.facts;
        facts.error.is_none() && (facts.input.is_some() || facts.output.is_some())
    }

    fn write_usage(&self, out: &mut Vec<u8>, usage: &Usage, model: Option<&str>) {
        let reasoning = self.encoding.settings.options.reasoning_tokens;
        fields::text_made_of(out, &[fields::USAGE], USAGE_BYTES, |out| {
            write_buckets(out, usage, model, reasoning);
        });
    }

    // === Metadata ===

    fn write_metadata(&self, out: &mut Vec<u8>) {
        for Attribute { key, value } in &self.detail.attributes {
            if &**key == keys::OPENAI_AGENTS_DATA
                && let Value::Text(data) = value
                && data.starts_with('{')
            {
                fields::text(out, fields::METADATA, data);
            } else if &**key == keys::GEN_AI_TOOL_DEFINITIONS {
                // Langfuse lists the tools that a model could call from this.
                if let Value::Text(definitions) = value {
                    fields::text(out, key, definitions);
                }
            } else if let Some(name) = metadata_name(key) {
                write_metadata(out, name, value);
            } else if let Some(name) = key.strip_prefix("gen_ai.usage.")
                && self.tokens.repeats()
            {
                write_metadata(out, &format!("aggregate_usage.{name}"), value);
            }
        }
        let says_agent = [Kind::Agent, Kind::Handoff].contains(&self.facts.kind);
        if let Some(agent) = self.agent().filter(|_| !says_agent) {
            write_metadata(out, "agent", &Value::Text(agent.clone()));
        }
    }
}

/// Buckets are seldom longer.
const USAGE_BYTES: usize = 120;

/// Attributes whose facts have a place of their own.
const SAID_ELSEWHERE: &[&str] = &[
    keys::OPENINFERENCE_SPAN_KIND,
    keys::GEN_AI_OPERATION_NAME,
    keys::GEN_AI_CONVERSATION_ID,
    keys::SESSION_ID,
    keys::GEN_AI_WORKFLOW_NAME,
    keys::METADATA,
    keys::GEN_AI_AGENT_NAME,
    keys::AGENT_NAME,
    keys::GRAPH_NODE_ID,
    keys::GEN_AI_REQUEST_MODEL,
    keys::LLM_MODEL_NAME,
    keys::LLM_INVOCATION_PARAMETERS,
    keys::GEN_AI_INPUT_MESSAGES,
    keys::GEN_AI_OUTPUT_MESSAGES,
    keys::GEN_AI_SYSTEM_INSTRUCTIONS,
    keys::GEN_AI_OUTPUT_TYPE,
    keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
    keys::GEN_AI_TOOL_NAME,
    keys::GEN_AI_TOOL_TYPE,
    keys::TOOL_NAME,
    keys::GEN_AI_TOOL_CALL_ARGUMENTS,
    keys::GEN_AI_TOOL_CALL_RESULT,
    keys::INPUT_VALUE,
    keys::OUTPUT_VALUE,
    keys::GEN_AI_HANDOFF_FROM_AGENT,
    keys::GEN_AI_HANDOFF_TO_AGENT,
    keys::GEN_AI_GUARDRAIL_NAME,
    keys::GEN_AI_GUARDRAIL_TRIGGERED,
    keys::OPENAI_AGENTS_MCP_RESULT,
    keys::ERROR_TYPE,
];

const SAID_ELSEWHERE_PREFIXES: &[&str] =
    &[keys::GEN_AI_REQUEST, "gen_ai.usage.", "llm.token_count.", keys::OPENAI_AGENTS_METADATA];

/// Under what name an attribute of the detail is metadata; `None` for what has a place of its own.
fn metadata_name(key: &str) -> Option<&str> {
    let is_said = SAID_ELSEWHERE.contains(&key)
        || SAID_ELSEWHERE_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    if is_said {
        return None;
    }
    match key {
        keys::GEN_AI_PROVIDER_NAME => Some("provider"),
        keys::GEN_AI_RESPONSE_ID => Some("response_id"),
        keys::GEN_AI_RESPONSE_MODEL => Some("response_model"),
        keys::GEN_AI_RESPONSE_FINISH_REASONS => Some("finish_reasons"),
        _ => {
            let ours = key.strip_prefix(keys::OPENAI_AGENTS_SPAN_METADATA);
            Some(ours.or(key.strip_prefix("openai.agents.")).unwrap_or(key))
        }
    }
}

/// Appends a piece of metadata. Text that is an object or a list in JSON is shown as one.
fn write_metadata(out: &mut Vec<u8>, name: &str, value: &Value) {
    let guess = value.as_text().map_or(0, |text| text.len()) + 2;
    fields::text_made_of(out, &[fields::METADATA_PREFIX, name], guess, |out| match value {
        Value::Text(text) if text.starts_with(['{', '[']) && is_json(text) => {
            out.extend_from_slice(text.as_bytes());
        }
        other => fields::write_json(out, other),
    });
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Appends the parameters of a call. Langfuse takes strings and numbers; what is nested is JSON as a string, and what was not set is
/// left out.
pub(super) fn write_parameters(out: &mut Vec<u8>, json: &str) {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) else { return };
    let is_set = |value: &RawValue| value.get() != "null";
    let members = members.into_iter().filter(|(_, value)| is_set(value));
    let mut members = members.peekable();
    if members.peek().is_none() {
        return;
    }
    fields::text_made_of(out, &[fields::PARAMETERS], json.len(), |out| {
        let mut object = Object::open(out);
        for (name, value) in members {
            let out = object.member(&name);
            match value.get().as_bytes().first() {
                Some(b'{' | b'[' | b't' | b'f') => write_str(out, value.get()),
                _ => match value.get().parse::<i64>() {
                    Ok(number) if is_safe(number) => write_i64(out, number),
                    Ok(_) => write_str(out, value.get()),
                    Err(_) => out.extend_from_slice(value.get().as_bytes()),
                },
            }
        }
        object.close();
    });
}
