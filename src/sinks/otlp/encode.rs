//! Encodes spans as request bodies. Pure.
//!
//! OTLP spans are sent as received, byte for byte, unless their tokens repeat those of other spans. In that case the attributes with tokens
//! are renamed, because backends sum all that they see. Agents SDK spans are written from their detail and the trace context, under the
//! names of the dialect.

use std::sync::LazyLock;

use super::options::{Dialect, Wire};
use super::settings::Settings;
use crate::sinks::Delivery;
use crate::sinks::http::{Body, cut};
use crate::span::otlp::protobuf::{self, write_resource};
use crate::span::otlp::{Encoding, MessageWriter, json};
use crate::span::{
    Attribute, Detail, Facts, Payload, Resource, RootSpan, Span, Text, Tokens, TraceContext, Value,
    keys, repeats, tokens_of,
};

/// Encodes a delivery.
pub(super) fn encode(delivery: &Delivery, settings: &Settings) -> Vec<Body> {
    let encoder = Encoder {
        delivery,
        dialect: settings.dialect,
        root: settings.needs.root,
        resource_attributes: &settings.resource_attributes,
        is_for_backend: true,
    };
    cut(delivery, settings.request_bytes_max, FRAME_BYTES, |out, spans| {
        let spans = spans.iter().copied();
        match settings.wire {
            Wire::HttpJson => json::write_request_in(out, spans, &encoder),
            Wire::HttpProtobuf | Wire::Grpc => protobuf::write_request_in(out, spans, &encoder),
        }
    })
}

/// The tag and length of a span, in bytes, rounded up.
pub(in crate::sinks) const FRAME_BYTES: usize = 8;

/// The default service of Agents SDK spans. OpenTelemetry requires one in every resource, and backends group by it. OpenTelemetry's own
/// default, `unknown_service`, would group them with everything else that has no name.
static SDK_SERVICE: LazyLock<Attribute> = LazyLock::new(|| Attribute {
    key: Text::from_static(keys::SERVICE_NAME),
    // The value that `telemetry.sdk.name` has for this SDK.
    value: Value::Text(Text::from_static("openai-agents")),
});

/// Writes spans in the form in which they are sent.
pub(in crate::sinks) struct Encoder<'a> {
    pub(in crate::sinks) delivery: &'a Delivery,
    pub(in crate::sinks) dialect: Dialect,
    pub(in crate::sinks) root: RootSpan,
    pub(in crate::sinks) resource_attributes: &'a [Attribute],
    /// Whether the receiving backend sums all tokens that it sees. If not, OTLP spans are sent as received.
    pub(in crate::sinks) is_for_backend: bool,
}

impl<E: Encoding> MessageWriter<E> for Encoder<'_> {
    fn write_resource(&self, out: &mut E, resource: &Resource, _wire: &[u8], is_agents_sdk: bool) {
        let given = self.resource_attributes;
        let is_in = |all: &[Attribute], new: &Attribute| all.iter().any(|one| one.key == new.key);
        let service = Some(&*SDK_SERVICE).filter(|new| is_agents_sdk && !is_in(given, new));
        let added = given.iter().chain(service);
        let missing = added.filter(|new| !is_in(&resource.attributes, new));
        write_resource(out, resource, missing);
    }

    fn write_span(&self, out: &mut E, span: &Span) {
        let context = self.delivery.context(span.trace_id);
        let changed = match (span.is_otlp(), self.is_for_backend) {
            (true, true) => without_aggregates(span, context),
            (true, false) => None,
            (false, _) => Some(in_dialect(span, context, self.dialect)),
        };
        if changed.is_none() && out.pass_on(&span.wire) {
            return;
        }
        let parent_id = self.root.parent_of(context, span);
        let detail = changed.as_ref().unwrap_or_else(|| span.detail());
        protobuf::write_span(out, span, (span.start_ns, span.end_ns), parent_id, detail);
    }
}

/// Pairs of attributes with the same meaning, under GenAI's and OpenInference's names.
const TWINS: &[(&str, &str)] = &[
    (keys::GEN_AI_OPERATION_NAME, keys::OPENINFERENCE_SPAN_KIND),
    (keys::GEN_AI_CONVERSATION_ID, keys::SESSION_ID),
    (keys::GEN_AI_AGENT_NAME, keys::AGENT_NAME),
    (keys::GEN_AI_AGENT_NAME, keys::GRAPH_NODE_ID),
    (keys::GEN_AI_REQUEST_MODEL, keys::LLM_MODEL_NAME),
    (keys::GEN_AI_RESPONSE_MODEL, keys::LLM_MODEL_NAME),
    (keys::GEN_AI_INPUT_MESSAGES, keys::INPUT_VALUE),
    (keys::GEN_AI_OUTPUT_MESSAGES, keys::OUTPUT_VALUE),
    (keys::GEN_AI_TOOL_NAME, keys::TOOL_NAME),
    (keys::GEN_AI_TOOL_CALL_ARGUMENTS, keys::INPUT_VALUE),
    (keys::GEN_AI_TOOL_CALL_RESULT, keys::OUTPUT_VALUE),
    (keys::GEN_AI_USAGE_INPUT_TOKENS, keys::LLM_TOKEN_COUNT_PROMPT),
    (keys::GEN_AI_USAGE_OUTPUT_TOKENS, keys::LLM_TOKEN_COUNT_COMPLETION),
    (keys::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, keys::LLM_TOKEN_COUNT_CACHE_READ),
    (keys::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, keys::LLM_TOKEN_COUNT_CACHE_WRITE),
    (keys::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, keys::LLM_TOKEN_COUNT_REASONING),
];

/// Returns an Agents SDK span's detail in a dialect, with missing facts from the trace context. An attribute is removed only if its twin
/// has the same value, so nothing is lost.
pub(super) fn in_dialect(span: &Span, context: Option<&TraceContext>, dialect: Dialect) -> Detail {
    let mut detail = span.detail().clone();
    if let Some(context) = context {
        add_context(span, context, &mut detail.attributes);
    }
    name_tokens(tokens_of(context, span), span.facts(), &mut detail.attributes);
    if dialect != Dialect::GenAi {
        add_values(span, &mut detail.attributes);
    }
    let all: Vec<Text> = detail.attributes.iter().map(|attribute| attribute.key.clone()).collect();
    let has = |key: &str| all.iter().any(|known| *known == *key);
    // GenAI does not name the total, because it is the sum of two counts that it names.
    let others = [keys::OPENINFERENCE_SPAN_KIND, keys::LLM_TOKEN_COUNT_TOTAL];
    detail.attributes.retain(|attribute| match (dialect, &*attribute.key) {
        (Dialect::Both, _) => true,
        (Dialect::GenAi, key) => {
            let is_said = TWINS.iter().any(|(genai, other)| *other == key && has(genai));
            !is_said && !others.contains(&key)
        }
        (Dialect::OpenInference, key) => {
            !TWINS.iter().any(|(genai, other)| *genai == key && has(other))
        }
    });
    detail
}

/// Returns the changed detail of an OTLP span whose tokens repeat those of others; `None` if they do not.
fn without_aggregates(span: &Span, context: Option<&TraceContext>) -> Option<Detail> {
    if !span.may_spend() || !repeats(context, span) {
        return None;
    }
    let is_said = |it: &Attribute| keys::is_spending(&it.key);
    let mut detail = span.detail().attributes.iter().any(is_said).then(|| span.detail().clone())?;
    for attribute in detail.attributes.iter_mut().filter(|it| is_said(it)) {
        attribute.key = Text::from(format!("{}{}", keys::SPANFERRY_AGGREGATE, attribute.key));
    }
    Some(detail)
}

/// Renames the tokens of an Agents SDK span: to those of a model call if it counts although it mostly sums up others, and the reverse.
fn name_tokens(tokens: Tokens<'_>, facts: &Facts, attributes: &mut Vec<Attribute>) {
    if tokens.speaks_for_others(facts) {
        attributes.retain(|known| !known.key.starts_with(keys::OPENAI_AGENTS_AGGREGATE_USAGE));
        let number = |count: u64| i64::try_from(count).map(Value::Int).ok();
        let counts = keys::token_counts(tokens.own).into_iter();
        attributes.extend(counts.filter_map(|(key, count)| {
            Some(Attribute { key: Text::from_static(key), value: number(count?)? })
        }));
    } else if !tokens.counts && !facts.usage.is_empty() {
        attributes.retain_mut(|known| {
            if let Some(name) = known.key.strip_prefix("gen_ai.usage.") {
                known.key = Text::from(format!("{}{name}", keys::OPENAI_AGENTS_AGGREGATE_USAGE));
            }
            !keys::is_spending(&known.key)
        });
    }
}

/// Adds facts from the trace context: conversation, user, tags and agent to every span, and the workflow and the metadata to spans without
/// a parent, which carry them for the complete trace.
fn add_context(span: &Span, context: &TraceContext, attributes: &mut Vec<Attribute>) {
    let mut add = |keys: &[&'static str], value: Option<Value>| {
        let is_said = |known: &Attribute| keys.iter().any(|key| *known.key == **key);
        let Some(value) = value.filter(|_| !attributes.iter().any(is_said)) else { return };
        attributes.extend(
            keys.iter().map(|key| Attribute { key: Text::from_static(key), value: value.clone() }),
        );
    };
    let text = |text: &Option<Text>| text.clone().map(Value::Text);
    add(&[keys::GEN_AI_CONVERSATION_ID, keys::SESSION_ID], text(&context.session));
    add(&[keys::USER_ID], text(&context.user));
    let tags: Vec<Value> = context.tags.iter().cloned().map(Value::Text).collect();
    add(&[keys::TAG_TAGS], (!tags.is_empty()).then_some(Value::Array(tags)));
    let agent = context.agents.get(&span.span_id).cloned().map(Value::Text);
    add(&[keys::GEN_AI_AGENT_NAME, keys::AGENT_NAME], agent);
    if span.parent_id.is_some() {
        return;
    }
    add(&[keys::GEN_AI_WORKFLOW_NAME], text(&context.workflow));
    // If the trace object came with the span, the detail already has them.
    let Some(trace) = context.trace.as_ref().filter(|_| span.trace.is_none()) else { return };
    add(&[keys::METADATA], text(&trace.metadata));
    attributes.extend(context.metadata.iter().map(|(name, payload)| Attribute {
        key: Text::from(format!("{}{name}", keys::OPENAI_AGENTS_METADATA)),
        value: Value::Text(Text::from(payload.as_str())),
    }));
}

/// Adds `input.value` and `output.value`, which OpenInference shows as the input and output of any span.
fn add_values(span: &Span, attributes: &mut Vec<Attribute>) {
    let facts = span.facts();
    let sides = [
        (keys::INPUT_VALUE, "input.mime_type", &facts.input),
        (keys::OUTPUT_VALUE, "output.mime_type", &facts.output),
    ];
    for (value_key, type_key, payload) in sides {
        let Some(payload) = payload else { continue };
        let (text, mime_type) = match payload {
            Payload::Text(text) => (text, "text/plain"),
            Payload::Json(text) => (text, "application/json"),
        };
        if attributes.iter().all(|known| *known.key != *value_key) {
            let key = Text::from_static(value_key);
            attributes.push(Attribute { key, value: Value::Text(text.clone()) });
        }
        let value = Value::Text(Text::from_static(mime_type));
        attributes.push(Attribute { key: Text::from_static(type_key), value });
    }
}
