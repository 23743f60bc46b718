//! Converts an Agents SDK span to OTLP: name, kind, status, and attributes under the names of GenAI and OpenInference.
//!
//! Nothing is lost: data without its own attribute, or of another type than its own, becomes `openai.agents.span_data.<name>` or
//! `openai.agents.item.<name>`. Two things stay in the item alone: the base64 of audio, whose size in bytes is an attribute, and what a
//! `response` that the app adds says about itself.

use std::borrow::Cow;
use std::time::Duration;

use super::facts;
use crate::normalize::messages::{Side, to_parts};
use crate::normalize::raw::{Object, Raw, share};
use crate::normalize::usage;
use crate::span::{
    Attribute, Detail, Facts, Opened, Payload, STATUS_ERROR, SdkIds, Span, SpanReading, Text,
    Usage, Value, keys,
};

pub(super) const KIND_INTERNAL: i32 = 1;
const KIND_CLIENT: i32 = 3;
/// The SDK sends only sampled spans.
pub(super) const FLAG_SAMPLED: u32 = 1;

/// How the messages of a model call are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Messages {
    /// They are rewritten in GenAI's format.
    Mapped,
    /// They are omitted, because the facts have them as sent.
    LeftOut,
}

/// Converts an item.
pub(super) fn detail(span: &Span, messages: Messages) -> Detail {
    let Ok(source) = Text::try_from(span.wire.clone()) else { return Detail::default() };
    let opened = Opened::of(span, &source);
    let detail = span.head().clone();
    let data = opened.data.unwrap_or_default();
    let mut mapping = Mapping { source: &source, data, span, messages, detail };
    mapping.common(&opened.item);
    mapping.span_data();
    mapping.trace();
    mapping.set(&opened.item);
    mapping.detail
}

/// Reads the facts of an item, and its detail without attributes.
pub(super) fn said(span: &Span, reading: &mut SpanReading) {
    // Arrival verified that the wire is UTF-8.
    let source = Text::try_from(span.wire.clone()).unwrap_or_default();
    let opened = Opened::of(span, &source);
    facts::facts(span, (&source, &opened), &mut reading.facts);
    reading.head = Some(head(&source, &opened, &reading.facts));
}

/// Reads the facts of an item without its input and output. A generation keeps them, because its output may hold its tokens.
pub(super) fn brief_facts(span: &Span, facts: &mut Facts) {
    let source = Text::try_from(span.wire.clone()).unwrap_or_default();
    let mut opened = Opened::of(span, &source);
    if let Some(data) = &mut opened.data
        && data.get_string("type").as_deref() != Some("generation")
    {
        data.members.retain(|(name, _)| name != "input" && name != "output");
    }
    facts::facts(span, (&source, &opened), facts);
}

fn head(source: &Text, opened: &Opened<'_>, facts: &Facts) -> Detail {
    let text = |name| opened.item.get_string(name).map(|text| share(source, text));
    let agents_sdk = SdkIds {
        trace: text("trace_id").unwrap_or_default(),
        span: text("id").unwrap_or_default(),
        parent: text("parent_id"),
    };
    let (name, kind) = title(opened.data.as_ref(), facts);
    let set_name = facts::set_by_rules(&opened.item).and_then(|set| set.get_string("name"));
    let name = set_name.map_or(name, |name| share(source, name));
    let mut head = Detail {
        name,
        kind,
        flags: FLAG_SAMPLED,
        agents_sdk: Some(agents_sdk),
        ..Detail::default()
    };
    if let Some(error) = opened.item.get("error") {
        head.status_code = STATUS_ERROR;
        let message = error.get_string("message").or_else(|| error.string());
        head.status_message = message.map(|message| share(source, message)).unwrap_or_default();
    }
    head
}

/// Returns the span's name and its `SpanKind`.
fn title(data: Option<&Object<'_>>, facts: &Facts) -> (Text, i32) {
    match &*data.and_then(|data| data.get_string("type")).unwrap_or_default() {
        "agent" => (facts::name("invoke_agent", facts.agent.as_ref()), KIND_INTERNAL),
        "function" => (facts::name("execute_tool", facts.tool.as_ref()), KIND_INTERNAL),
        "guardrail" => (facts::name("guardrail", facts.guardrail.as_ref()), KIND_INTERNAL),
        "handoff" | "custom" => (facts.name.clone(), KIND_INTERNAL),
        "generation" | "response" | "mcp_tools" | "transcription" | "speech" | "speech_group"
        | "speech-group" => (facts.name.clone(), KIND_CLIENT),
        "" => (Text::from_static("span"), KIND_INTERNAL),
        other => (Text::from(other), KIND_INTERNAL),
    }
}

struct Mapping<'a> {
    source: &'a Text,
    /// Without the members that have their own attributes.
    data: Object<'a>,
    span: &'a Span,
    messages: Messages,
    detail: Detail,
}

impl<'a> Mapping<'a> {
    fn common(&mut self, item: &Object<'a>) {
        if let Some(SdkIds { trace, span, parent }) = self.detail.agents_sdk.clone() {
            self.put(keys::OPENAI_AGENTS_TRACE_ID, Value::Text(trace));
            self.put(keys::OPENAI_AGENTS_SPAN_ID, Value::Text(span));
            self.put_text(keys::OPENAI_AGENTS_PARENT_ID, parent);
        }
        self.error(item.get("error"));
        for (name, value) in &item.members {
            match &**name {
                "object" | "id" | "trace_id" | "parent_id" | "error" => (),
                "started_at" if self.span.start_ns != 0 => (),
                "ended_at" if self.span.end_ns != 0 => (),
                "span_data" if value.is_object() => (),
                "metadata" if value.is_object() => {
                    let own = value.members().filter(|(name, _)| name != keys::SPANFERRY_SET);
                    self.put_rest(keys::OPENAI_AGENTS_SPAN_METADATA, own);
                }
                _ => self.put_member(keys::OPENAI_AGENTS_ITEM, name, *value),
            }
        }
    }

    fn error(&mut self, error: Option<Raw<'a>>) {
        let Some(error) = error else { return };
        self.put_word(keys::ERROR_TYPE, "_OTHER");
        if !error.is_object() && !is_text(error) {
            self.put_member(keys::OPENAI_AGENTS_ITEM, "error", error);
        }
        let mut error = error.object();
        take(&mut error, "message", is_text);
        if let Some(data) = take(&mut error, "data", |_| true) {
            self.put_json(keys::OPENAI_AGENTS_ERROR_DATA, data);
        }
        self.put_rest(keys::OPENAI_AGENTS_ERROR, error.members);
    }

    /// Adds the facts of the trace object, if it is known. Spans without a parent get all of them.
    fn trace(&mut self) {
        let Some(trace) = &self.span.trace else { return };
        self.put_text(keys::GEN_AI_CONVERSATION_ID, trace.group.clone());
        self.put_text(keys::SESSION_ID, trace.group.clone());
        if self.span.parent_id.is_some() {
            return;
        }
        if Attribute::last(&self.detail.attributes, keys::GEN_AI_WORKFLOW_NAME).is_none() {
            self.put_text(keys::GEN_AI_WORKFLOW_NAME, trace.workflow.clone());
        }
        if let Some(metadata) = &trace.metadata {
            self.detail.attributes.extend(trace_metadata(metadata));
        }
    }

    /// Applies what the user's rules set, which replaces the item's own values.
    fn set(&mut self, item: &Object<'a>) {
        for (key, value) in facts::set_by_rules(item).into_iter().flat_map(Raw::members) {
            let Some(text) = value.string().filter(|_| key != "name") else { continue };
            self.detail.attributes.retain(|attribute| *attribute.key != *key);
            let (key, text) = (share(self.source, key), share(self.source, text));
            self.detail.attributes.push(Attribute { key, value: Value::Text(text) });
        }
    }

    fn span_data(&mut self) {
        self.put_string(&[keys::OPENAI_AGENTS_SPAN_TYPE], "type");
        let kind = Attribute::last(&self.detail.attributes, keys::OPENAI_AGENTS_SPAN_TYPE);
        let kind = kind.and_then(Value::as_text).cloned().unwrap_or_default();
        match &*kind {
            "agent" => self.agent(),
            "generation" => self.generation(),
            "response" => self.response(),
            "function" => self.function(),
            "mcp_tools" => self.mcp_tools(),
            "handoff" => self.handoff(),
            "guardrail" => self.guardrail(),
            "custom" => self.custom(),
            "transcription" => self.voice("text", "input", ("output", keys::OUTPUT_VALUE)),
            "speech" => self.voice("speech", "output", ("input", keys::INPUT_VALUE)),
            "speech_group" | "speech-group" => {
                self.put_word(keys::OPENINFERENCE_SPAN_KIND, "CHAIN");
                self.put_data(&[keys::INPUT_VALUE], "input");
            }
            _ => self.put_word(keys::OPENINFERENCE_SPAN_KIND, "CHAIN"),
        }
        let rest = std::mem::take(&mut self.data.members);
        self.put_rest(keys::OPENAI_AGENTS_SPAN_DATA, rest);
    }

    fn take(&mut self, name: &str) -> Option<Raw<'a>> {
        take(&mut self.data, name, |_| true)
    }

    fn agent(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "AGENT");
        self.put_word(keys::GEN_AI_OPERATION_NAME, "invoke_agent");
        self.put_word(keys::GEN_AI_PROVIDER_NAME, "openai");
        self.put_string(&[keys::GEN_AI_AGENT_NAME, keys::AGENT_NAME, keys::GRAPH_NODE_ID], "name");
        self.put_data(&[keys::OPENAI_AGENTS_TOOLS], "tools");
        self.put_data(&[keys::OPENAI_AGENTS_HANDOFFS], "handoffs");
        self.put_data(&[keys::OPENAI_AGENTS_OUTPUT_TYPE], "output_type");
    }

    fn generation(&mut self) {
        self.model_call(Some("chat"));
        self.model();
        let (input, output) = (self.take("input"), self.take("output"));
        self.put_messages(keys::GEN_AI_INPUT_MESSAGES, input, Side::Input);
        self.put_messages(keys::GEN_AI_OUTPUT_MESSAGES, output, Side::Output);
        self.answer();
    }

    fn put_messages(&mut self, key: &'static str, said: Option<Raw<'a>>, side: Side) {
        let said = said.filter(|_| self.messages == Messages::Mapped);
        self.put_text(key, said.and_then(|said| to_parts(said, side)));
    }

    /// Adds the facts of the response: its id, model, usage and finish reasons.
    fn answer(&mut self) {
        let span = self.span;
        let facts = span.facts();
        self.put_text(keys::GEN_AI_RESPONSE_ID, facts.response_id.clone());
        self.put_text(keys::GEN_AI_RESPONSE_MODEL, facts.response_model.clone());
        if !facts.finish_reasons.is_empty() {
            let reasons = facts.finish_reasons.iter().cloned().map(Value::Text).collect();
            self.put(keys::GEN_AI_RESPONSE_FINISH_REASONS, Value::Array(reasons));
        }
        self.usage(&facts.usage);
    }

    fn response(&mut self) {
        let span = self.span;
        self.model_call(Some("chat"));
        self.put_text(keys::LLM_MODEL_NAME, span.facts().response_model.clone());
        self.answer();
        take(&mut self.data, "response_id", is_text);
        let input = self.take("input");
        self.put_messages(keys::GEN_AI_INPUT_MESSAGES, input, Side::Input);
        let Some(response) = take(&mut self.data, "response", Raw::is_object) else { return };
        let instructions = response.get("instructions");
        if let Some(instructions) = instructions.filter(|text| text.string().is_some()) {
            let json = format!(r#"[{{"type":"text","content":{}}}]"#, instructions.text());
            self.put(keys::GEN_AI_SYSTEM_INSTRUCTIONS, Value::Text(Text::from(json)));
        }
        self.put_messages(keys::GEN_AI_OUTPUT_MESSAGES, response.get("output"), Side::Output);
        if let Some(tools) = response.get("tools") {
            self.put_json(keys::GEN_AI_TOOL_DEFINITIONS, tools);
        }
        if let Some(Payload::Json(parameters)) = &span.facts().parameters {
            self.put(keys::LLM_INVOCATION_PARAMETERS, Value::Text(parameters.clone()));
            self.parameters(parameters, Raw::trusted(parameters));
        }
    }

    fn function(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "TOOL");
        self.put_word(keys::GEN_AI_OPERATION_NAME, "execute_tool");
        self.put_word(keys::GEN_AI_TOOL_TYPE, "function");
        self.put_string(&[keys::GEN_AI_TOOL_NAME, keys::TOOL_NAME], "name");
        self.put_data(&[keys::GEN_AI_TOOL_CALL_ARGUMENTS, keys::INPUT_VALUE], "input");
        self.put_data(&[keys::GEN_AI_TOOL_CALL_RESULT, keys::OUTPUT_VALUE], "output");
        if let Some(mcp) = self.take("mcp_data") {
            self.put_word(keys::MCP_METHOD_NAME, "tools/call");
            let json = facts::payload_in(self.source, mcp);
            let json = json.map(|(Payload::Text(text) | Payload::Json(text))| text);
            self.put_text(keys::OPENAI_AGENTS_MCP_DATA, json);
        }
    }

    fn mcp_tools(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "CHAIN");
        self.put_word(keys::MCP_METHOD_NAME, "tools/list");
        self.put_data(&[keys::OPENAI_AGENTS_MCP_SERVER], "server");
        self.put_data(&[keys::OPENAI_AGENTS_MCP_RESULT], "result");
    }

    fn handoff(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "TOOL");
        self.put_word(keys::GEN_AI_OPERATION_NAME, "handoff");
        self.put_string(&[keys::GEN_AI_AGENT_NAME, keys::GEN_AI_HANDOFF_FROM_AGENT], "from_agent");
        self.put_string(&[keys::GEN_AI_HANDOFF_TO_AGENT], "to_agent");
    }

    fn guardrail(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "GUARDRAIL");
        self.put_word(keys::GEN_AI_OPERATION_NAME, "guardrail_check");
        self.put_string(&[keys::GEN_AI_GUARDRAIL_NAME], "name");
        if self.span.facts().guardrail_triggered.is_some() {
            self.put_data(&[keys::GEN_AI_GUARDRAIL_TRIGGERED], "triggered");
        }
    }

    fn custom(&mut self) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "CHAIN");
        take(&mut self.data, "name", is_text);
        let Some(data) = self.take("data") else { return };
        let mut members = data.object();
        let source = self.source;
        let mut text = |name| {
            let text = take(&mut members, name, is_text).and_then(Raw::string)?;
            Some(share(source, text)).filter(|text| !text.is_empty())
        };
        let sdk_span_type = text("sdk_span_type");
        match sdk_span_type.as_deref() {
            Some("task") => {
                let name = text("name");
                self.put_word(keys::GEN_AI_OPERATION_NAME, "invoke_workflow");
                let of_trace = self.span.trace.as_ref().and_then(|trace| trace.workflow.clone());
                self.put_text(keys::GEN_AI_WORKFLOW_NAME, of_trace.or(name));
            }
            Some("turn") => {
                let agent = text("agent_name");
                if let Some(turn) = take(&mut members, "turn", |_| true) {
                    self.put(keys::OPENAI_AGENTS_TURN, value(source, turn));
                }
                self.put_text(keys::GEN_AI_AGENT_NAME, agent);
            }
            _ => return self.put_json(keys::OPENAI_AGENTS_DATA, data),
        }
        let usage = take(&mut members, "usage", Raw::is_object);
        self.put_rest(keys::OPENAI_AGENTS_SPAN_DATA, members.members);
        self.put_text(keys::OPENAI_AGENTS_SDK_SPAN_TYPE, sdk_span_type);
        let usage = usage.into_iter().flat_map(Raw::members);
        self.put_rest(keys::OPENAI_AGENTS_AGGREGATE_USAGE, usage);
    }

    fn voice(
        &mut self,
        output_type: &'static str,
        audio: &'static str,
        (text, key): (&'static str, &'static str),
    ) {
        // The conventions have no operation for it.
        self.model_call(None);
        self.put_word(keys::GEN_AI_OUTPUT_TYPE, output_type);
        self.model();
        let span = self.span;
        self.usage(&span.facts().usage);
        self.put_data(&[key], text);
        let bytes = self.data.get(audio).and_then(facts::audio_bytes);
        if let Some((audio, bytes)) = bytes.and_then(|bytes| Some((self.take(audio)?, bytes))) {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.put(keys::OPENAI_AGENTS_AUDIO_BYTES, Value::Int(bytes));
            let about = audio.members().filter(|(name, _)| name != "data");
            self.put_rest(keys::OPENAI_AGENTS_AUDIO, about);
        }
        if let Some(first) = span.facts().first_token_ns {
            self.take("first_content_at");
            let seconds = Duration::from_nanos(first).as_secs_f64();
            self.put(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, Value::Double(seconds));
        }
    }

    fn model_call(&mut self, operation: Option<&'static str>) {
        self.put_word(keys::OPENINFERENCE_SPAN_KIND, "LLM");
        self.put_text(keys::GEN_AI_OPERATION_NAME, operation.map(Text::from_static));
        self.put_text(keys::GEN_AI_PROVIDER_NAME, self.span.facts().provider.clone());
    }

    /// Adds the requested model and its configuration.
    fn model(&mut self) {
        if let Some(model) = &self.span.facts().request_model {
            self.take("model");
            self.put(keys::GEN_AI_REQUEST_MODEL, Value::Text(model.clone()));
            self.put(keys::LLM_MODEL_NAME, Value::Text(model.clone()));
        }
        let Some(config) = take(&mut self.data, "model_config", Raw::is_object) else { return };
        self.put_json(keys::LLM_INVOCATION_PARAMETERS, config);
        self.parameters(self.source, config);
    }

    /// Adds the parameters that GenAI has names for. `llm.invocation_parameters` has all of them.
    fn parameters(&mut self, source: &Text, config: Raw<'_>) {
        for (name, parameter) in config.members() {
            let name = match &*name {
                "temperature" | "top_p" | "top_k" | "max_tokens" | "seed" | "frequency_penalty"
                | "presence_penalty" => &*name,
                "max_output_tokens" => "max_tokens",
                "stop" => "stop_sequences",
                _ => continue,
            };
            if parameter.set().is_some() {
                let value = match value(source, parameter) {
                    // GenAI declares them as doubles, but clients write whole ones as integers.
                    Value::Int(_) if name != "max_tokens" && name != "seed" => {
                        parameter.number().map_or(Value::Empty, Value::Double)
                    }
                    value => value,
                };
                self.put_key(Text::from(format!("{}{name}", keys::GEN_AI_REQUEST)), value);
            }
        }
    }

    fn usage(&mut self, usage: &Usage) {
        for (key, count) in keys::token_counts(usage) {
            if let Some(count) = count.and_then(|count| i64::try_from(count).ok()) {
                self.put(key, Value::Int(count));
            }
        }
        // Usage without a known spelling is kept as sent, and so are unknown counts.
        if let Some(sent) = self.take("usage") {
            let is_known = |(name, count): (Cow<'_, str>, Raw<'_>)| match &*name {
                "input_tokens"
                | "output_tokens"
                | "total_tokens"
                | "prompt_tokens"
                | "completion_tokens"
                | "input_tokens_details"
                | "output_tokens_details" => {
                    count.count().is_some() || count.is_object() || count.set().is_none()
                }
                _ => false,
            };
            if !sent.members().all(is_known) || usage::from_json(sent).is_empty() {
                self.put_json(keys::OPENAI_AGENTS_USAGE, sent);
            }
        }
    }

    fn put(&mut self, key: &'static str, value: Value) {
        self.put_key(Text::from_static(key), value);
    }

    fn put_key(&mut self, key: Text, value: Value) {
        self.detail.attributes.push(Attribute { key, value });
    }

    fn put_word(&mut self, key: &'static str, word: &'static str) {
        self.put(key, Value::Text(Text::from_static(word)));
    }

    /// Puts a member, if it is a string, under each of these keys.
    fn put_string(&mut self, keys: &[&'static str], name: &'static str) {
        if self.data.get_string(name).is_some() {
            self.put_data(keys, name);
        }
    }

    fn put_text(&mut self, key: &'static str, text: Option<Text>) {
        if let Some(text) = text {
            self.put(key, Value::Text(text));
        }
    }

    fn put_json(&mut self, key: &'static str, json: Raw<'a>) {
        self.put(key, Value::Text(self.source.slice_ref(json.text())));
    }

    /// Puts a member under each of these keys.
    fn put_data(&mut self, keys: &[&'static str], name: &'static str) {
        let Some(member) = self.take(name) else { return };
        let value = value(self.source, member);
        for key in keys {
            self.put(key, value.clone());
        }
    }

    fn put_member(&mut self, prefix: &str, name: &str, member: Raw<'a>) {
        if member.set().is_some() {
            self.put_key(Text::from(format!("{prefix}{name}")), value(self.source, member));
        }
    }

    /// Puts members under their own names.
    fn put_rest(
        &mut self,
        prefix: &str,
        members: impl IntoIterator<Item = (Cow<'a, str>, Raw<'a>)>,
    ) {
        for (name, member) in members {
            self.put_member(prefix, &name, member);
        }
    }
}

/// Takes a member that fits its own attributes out of an object. What remains is kept under its name.
fn take<'a>(
    object: &mut Object<'a>,
    name: &str,
    fits: impl Fn(Raw<'a>) -> bool,
) -> Option<Raw<'a>> {
    let member = object.get(name).filter(|member| fits(*member))?;
    object.members.retain(|(other, _)| other != name);
    Some(member)
}

fn is_text(value: Raw<'_>) -> bool {
    value.text().starts_with('"')
}

/// Converts the texts that are present to attributes.
pub(super) fn attributes<const N: usize>(
    said: [(&'static str, Option<Text>); N],
) -> Vec<Attribute> {
    let attribute = |(key, text): (&'static str, Option<Text>)| {
        Some(Attribute { key: Text::from_static(key), value: Value::Text(text?) })
    };
    said.into_iter().filter_map(attribute).collect()
}

/// Converts the metadata of a trace object, as one attribute and member by member.
pub(super) fn trace_metadata(metadata: &Text) -> Vec<Attribute> {
    let set = Raw::trusted(metadata).members().filter(|(_, member)| member.set().is_some());
    let mut attributes: Vec<Attribute> = set
        .map(|(name, member)| Attribute {
            key: Text::from(format!("{}{name}", keys::OPENAI_AGENTS_METADATA)),
            value: value(metadata, member),
        })
        .collect();
    if Raw::trusted(metadata).members().next().is_some() {
        let key = Text::from_static(keys::METADATA);
        attributes.insert(0, Attribute { key, value: Value::Text(metadata.clone()) });
    }
    attributes
}

/// Converts a JSON value: a list of strings to an array, other nested values to JSON text, a number without a fitting type to its text.
fn value(source: &Text, json: Raw<'_>) -> Value {
    if let Some(text) = json.string() {
        return Value::Text(share(source, text));
    }
    if let Some(truth) = json.boolean() {
        return Value::Bool(truth);
    }
    let text = || Value::Text(source.slice_ref(json.text()));
    if json.is_array() {
        let string = |element: Raw<'_>| Some(Value::Text(share(source, element.string()?)));
        let strings: Option<_> = json.elements().map(string).collect();
        return strings.map_or_else(text, Value::Array);
    }
    match json.text().parse::<i64>() {
        Ok(number) => Value::Int(number),
        // As a double, an integer beyond 64 bits would lose digits.
        Err(_) if json.text().bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => text(),
        Err(_) => json.number().map_or_else(text, Value::Double),
    }
}
