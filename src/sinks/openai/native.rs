//! Spans that came as OTLP, as items of the Agents SDK. Pure.
//!
//! Each becomes the type that shows it best in OpenAI's dashboard; what has no type of its own becomes `custom`, with its attributes
//! as `data`. The SDK sends an object for each trace before its spans: it is written from what is known of the trace.

use std::borrow::Cow;

use super::sanitize::FIELD_BYTES_MAX;
use crate::sinks::jsonl::write_attributes;
use crate::sinks::shrink::write_shrunk;
use crate::span::{
    Attribute, Detail, Facts, Kind, Payload, Span, SpanId, Text, TraceContext, Usage, Value, keys,
};
use crate::support::json::object::Object;
use crate::support::json::{write_shortest, write_str, write_u64};
use crate::support::rfc3339;

/// Appends the trace object of a span's trace.
pub(super) fn write_trace(out: &mut Vec<u8>, span: &Span, context: Option<&TraceContext>) {
    let facts = span.facts();
    let workflow =
        context.and_then(|context| context.workflow.as_ref()).or(facts.workflow.as_ref());
    let session = context.and_then(|context| context.session.as_ref()).or(facts.session.as_ref());
    let mut object = Object::open(out);
    write_str(object.member("object"), "trace");
    write_str(object.member("id"), &trace_id(span));
    write_str(object.member("workflow_name"), workflow.map_or(DEFAULT_WORKFLOW, |name| name));
    write_text_or_null(object.member("group_id"), session.map(|session| &**session));
    write_metadata(object.member("metadata"), facts, context);
    object.close();
}

/// The name that the SDK gives a trace without one.
const DEFAULT_WORKFLOW: &str = "Agent workflow";

/// OpenAI takes strings only as values here.
fn write_metadata(out: &mut Vec<u8>, facts: &Facts, context: Option<&TraceContext>) {
    let known =
        |of_trace: Option<&Text>, of_span: &Option<Text>| of_trace.or(of_span.as_ref()).cloned();
    let user = known(context.and_then(|context| context.user.as_ref()), &facts.user);
    let environment =
        known(context.and_then(|context| context.environment.as_ref()), &facts.environment);
    let release = known(context.and_then(|context| context.release.as_ref()), &facts.release);
    let tags = context.map_or(&facts.tags, |context| &context.tags);
    let tags = (!tags.is_empty())
        .then(|| Text::from(tags.iter().map(|tag| &**tag).collect::<Vec<_>>().join(",")));
    let own =
        [("user_id", user), ("environment", environment), ("release", release), ("tags", tags)];
    let own = own.iter().filter_map(|(name, value)| Some((*name, &**value.as_ref()?)));
    let said = context.map(|context| context.metadata.as_slice()).unwrap_or_default();
    let said = said.iter().map(|(name, value)| (&**name, value.as_str()));
    let mut all = said.chain(own).peekable();
    if all.peek().is_none() {
        return out.extend_from_slice(b"null");
    }
    let mut object = Object::open(out);
    for (name, value) in all {
        write_str(object.member(name), value);
    }
    object.close();
}

/// Appends a span.
pub(super) fn write_span(out: &mut Vec<u8>, span: &Span) {
    let (detail, facts) = (span.detail(), span.facts());
    out.extend_from_slice(b"{\"object\":\"trace.span\",\"id\":");
    write_str(out, &span_id(detail, keys::OPENAI_AGENTS_SPAN_ID, span.span_id));
    out.extend_from_slice(b",\"trace_id\":");
    write_str(out, &trace_id(span));
    out.extend_from_slice(b",\"parent_id\":");
    let parent =
        span.parent_id.map(|parent| span_id(detail, keys::OPENAI_AGENTS_PARENT_ID, parent));
    write_text_or_null(out, parent.as_deref());
    out.extend_from_slice(b",\"started_at\":");
    write_time(out, span.start_ns);
    out.extend_from_slice(b",\"ended_at\":");
    write_time(out, span.end_ns);
    out.extend_from_slice(b",\"span_data\":");
    SpanData { out, detail, facts, span }.write();
    out.extend_from_slice(b",\"error\":");
    write_error(out, detail, facts);
    out.push(b'}');
}

// === Ids and times ===

fn attribute<'a>(detail: &'a Detail, key: &str) -> Option<&'a Value> {
    let found = detail.attributes.iter().rev().find(|attribute| &*attribute.key == key);
    found.map(|Attribute { value, .. }| value)
}

fn text_attribute<'a>(detail: &'a Detail, key: &str) -> Option<&'a str> {
    attribute(detail, key)?.as_text().map(|text| &**text).filter(|text| !text.is_empty())
}

/// The id that the span had before it became OTLP, or one that reads back as the same.
fn trace_id(span: &Span) -> Cow<'_, str> {
    match text_attribute(span.detail(), keys::OPENAI_AGENTS_TRACE_ID) {
        Some(id) => Cow::Borrowed(id),
        None => Cow::Owned(format!("trace_{}", span.trace_id)),
    }
}

fn span_id<'a>(detail: &'a Detail, key: &str, id: SpanId) -> Cow<'a, str> {
    match text_attribute(detail, key) {
        Some(id) => Cow::Borrowed(id),
        // The SDK's ids have 24 digits. Eight zeros at the end say that the others are an id of OTLP.
        None => Cow::Owned(format!("span_{id}00000000")),
    }
}

/// With six digits behind the point, as Python writes it; null where nothing is known.
fn write_time(out: &mut Vec<u8>, unix_ns: u64) {
    const DIGITS_TOO_MANY: usize = "000Z".len();
    if unix_ns == 0 {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    rfc3339::write(out, unix_ns);
    out.truncate(out.len() - DIGITS_TOO_MANY);
    out.extend_from_slice(b"+00:00\"");
}

// === What it is ===

struct SpanData<'a> {
    out: &'a mut Vec<u8>,
    detail: &'a Detail,
    facts: &'a Facts,
    span: &'a Span,
}

impl SpanData<'_> {
    fn write(mut self) {
        let facts = self.facts;
        match facts.kind {
            Kind::Agent => self.agent(),
            Kind::Generation if self.is_response() => {
                self.begin("response");
                self.text("response_id", facts.response_id.as_ref());
            }
            Kind::Generation => self.generation(),
            Kind::Tool => self.function(),
            Kind::Handoff => {
                self.begin("handoff");
                self.text("from_agent", facts.handoff_from.as_ref());
                self.text("to_agent", facts.handoff_to.as_ref());
            }
            Kind::Guardrail => {
                self.begin("guardrail");
                self.text("name", Some(facts.guardrail.as_ref().unwrap_or(&facts.name)));
                let is_triggered = facts.guardrail_triggered == Some(true);
                self.name("triggered");
                self.out.extend_from_slice(if is_triggered { b"true" } else { b"false" });
            }
            Kind::Mcp if self.is_list_of_tools() => {
                self.begin("mcp_tools");
                self.text("server", facts.mcp_server.as_ref());
                self.name("result");
                self.json_array_or_null(facts.output.as_ref());
            }
            Kind::Speech => self.speech(),
            Kind::Transcription => self.transcription(),
            _ if matches!(self.said_type(), Some("speech_group" | "speech-group")) => {
                self.begin("speech_group");
                self.payload_as_text("input", facts.input.as_ref());
            }
            _ => self.custom(),
        }
        self.out.push(b'}');
    }

    fn agent(&mut self) {
        self.begin("agent");
        self.text("name", Some(self.facts.agent.as_ref().unwrap_or(&self.facts.name)));
        for (name, key) in
            [("handoffs", keys::OPENAI_AGENTS_HANDOFFS), ("tools", keys::OPENAI_AGENTS_TOOLS)]
        {
            self.name(name);
            self.names_or_null(attribute(self.detail, key));
        }
        self.name("output_type");
        write_text_or_null(self.out, text_attribute(self.detail, keys::OPENAI_AGENTS_OUTPUT_TYPE));
    }

    fn generation(&mut self) {
        let facts = self.facts;
        self.begin("generation");
        self.turns("input", "user", facts.input.as_ref());
        self.turns("output", "assistant", facts.output.as_ref());
        self.model();
        self.usage(&facts.usage);
    }

    fn function(&mut self) {
        let facts = self.facts;
        self.begin("function");
        self.text("name", Some(facts.tool.as_ref().unwrap_or(&facts.name)));
        self.payload_as_text("input", facts.input.as_ref());
        self.payload_as_text("output", facts.output.as_ref());
        self.name("mcp_data");
        match &facts.mcp_server {
            Some(server) => {
                self.out.extend_from_slice(b"{\"server\":");
                write_str(self.out, server);
                self.out.push(b'}');
            }
            None => self.out.extend_from_slice(b"null"),
        }
    }

    fn speech(&mut self) {
        let facts = self.facts;
        self.begin("speech");
        self.payload_as_text("input", facts.input.as_ref());
        self.audio("output");
        self.model();
        self.name("first_content_at");
        let first = facts.first_token_ns.filter(|_| self.span.start_ns != 0);
        write_time(self.out, first.map_or(0, |first| self.span.start_ns.saturating_add(first)));
    }

    fn transcription(&mut self) {
        self.begin("transcription");
        self.audio("input");
        self.payload_as_text("output", self.facts.output.as_ref());
        self.model();
    }

    fn custom(&mut self) {
        let (facts, detail) = (self.facts, self.detail);
        self.begin("custom");
        let marked = facts.sdk_span_type.as_ref();
        self.text("name", Some(marked.unwrap_or(&facts.name)));
        self.name("data");
        let start = self.out.len();
        let said = text_attribute(detail, keys::OPENAI_AGENTS_DATA)
            .filter(|data| data.starts_with('{'))
            .and_then(crate::support::json::raw::Raw::parse);
        if let Some(marked) = marked {
            self.task_or_turn(marked);
        } else if let Some(data) = said {
            write_shortest(self.out, data.text());
        } else {
            write_attributes(self.out, &detail.attributes);
        }
        self.cut(start);
    }

    /// What the SDK says of its own tasks and turns.
    fn task_or_turn(&mut self, marked: &Text) {
        self.out.extend_from_slice(b"{\"sdk_span_type\":");
        write_str(self.out, marked);
        if let Some(Value::Int(turn)) = attribute(self.detail, keys::OPENAI_AGENTS_TURN) {
            self.name("turn");
            write_u64(self.out, u64::try_from(*turn).unwrap_or_default());
            self.text("agent_name", self.facts.agent.as_ref());
        } else {
            self.text("name", Some(&self.facts.name));
        }
        let usage = &self.facts.aggregate_usage;
        let counts = [
            ("input_tokens", usage.input),
            ("output_tokens", usage.output),
            ("cached_input_tokens", usage.cached_read),
            ("cache_write_input_tokens", usage.cache_write),
            ("total_tokens", usage.total),
        ];
        if !usage.is_empty() {
            self.name("usage");
            self.counts(&counts);
        }
        self.out.push(b'}');
    }

    /// Whether OpenAI has the answer itself under its id, and the span has nothing to add.
    fn is_response(&self) -> bool {
        let facts = self.facts;
        let said = self.said_type() == Some("response");
        let has_id = facts.response_id.as_ref().is_some_and(|id| id.starts_with("resp_"));
        has_id && (said || (facts.input.is_none() && facts.output.is_none()))
    }

    /// The type that the span had before it became OTLP.
    fn said_type(&self) -> Option<&str> {
        text_attribute(self.detail, keys::OPENAI_AGENTS_SPAN_TYPE)
    }

    fn is_list_of_tools(&self) -> bool {
        self.facts.mcp_method.as_ref().is_some_and(|method| &**method == "tools/list")
    }

    // === Members ===

    fn begin(&mut self, kind: &'static str) {
        self.out.extend_from_slice(b"{\"type\":");
        write_str(self.out, kind);
    }

    fn name(&mut self, name: &'static str) {
        self.out.push(b',');
        write_str(self.out, name);
        self.out.push(b':');
    }

    fn text(&mut self, name: &'static str, text: Option<&Text>) {
        self.name(name);
        write_text_or_null(self.out, text.map(|text| &**text));
    }

    fn payload_as_text(&mut self, name: &'static str, payload: Option<&Payload>) {
        self.name(name);
        let start = self.out.len();
        write_text_or_null(self.out, payload.map(Payload::as_str));
        self.cut(start);
    }

    /// A list of turns, as the SDK has it: plain text is one turn of this role.
    fn turns(&mut self, name: &'static str, role: &'static str, payload: Option<&Payload>) {
        self.name(name);
        let start = self.out.len();
        match payload {
            None => self.out.extend_from_slice(b"null"),
            Some(Payload::Json(json)) if json.trim_ascii_start().starts_with('[') => {
                write_shortest(self.out, json);
            }
            Some(Payload::Json(json)) => {
                self.out.push(b'[');
                write_shortest(self.out, json);
                self.out.push(b']');
            }
            Some(Payload::Text(text)) => {
                self.out.extend_from_slice(b"[{\"role\":");
                write_str(self.out, role);
                self.out.extend_from_slice(b",\"content\":");
                write_str(self.out, text);
                self.out.extend_from_slice(b"}]");
            }
        }
        self.cut(start);
    }

    /// The audio itself is seldom in a span, and never of use in a dashboard.
    fn audio(&mut self, name: &'static str) {
        let format = text_attribute(self.detail, keys::OPENAI_AGENTS_AUDIO_FORMAT).unwrap_or("pcm");
        self.name(name);
        self.out.extend_from_slice(b"{\"data\":\"\",\"format\":");
        write_str(self.out, format);
        self.out.push(b'}');
    }

    fn model(&mut self) {
        let facts = self.facts;
        self.text("model", facts.request_model.as_ref().or(facts.response_model.as_ref()));
        self.name("model_config");
        match &facts.parameters {
            Some(Payload::Json(json)) if json.trim_ascii_start().starts_with('{') => {
                write_shortest(self.out, json);
            }
            _ => self.out.extend_from_slice(b"null"),
        }
    }

    /// Only what OpenAI knows: without both counts there is no usage.
    fn usage(&mut self, usage: &Usage) {
        let (Some(input), Some(output)) = (usage.input, usage.output) else { return };
        self.name("usage");
        self.out.extend_from_slice(b"{\"input_tokens\":");
        write_u64(self.out, input);
        self.out.extend_from_slice(b",\"output_tokens\":");
        write_u64(self.out, output);
        let details = [
            ("total_tokens", usage.total),
            ("cached_tokens", usage.cached_read),
            ("cache_write_tokens", usage.cache_write),
            ("reasoning_tokens", usage.reasoning),
        ];
        if details.iter().any(|(_, count)| count.is_some()) {
            self.name("details");
            self.counts(&details);
        }
        self.out.push(b'}');
    }

    fn counts(&mut self, counts: &[(&'static str, Option<u64>)]) {
        let mut object = Object::open(self.out);
        for (name, count) in counts.iter().filter_map(|(name, count)| Some((name, (*count)?))) {
            write_u64(object.member(name), count);
        }
        object.close();
    }

    fn json_array_or_null(&mut self, payload: Option<&Payload>) {
        let start = self.out.len();
        match payload {
            Some(Payload::Json(json)) if json.trim_ascii_start().starts_with('[') => {
                write_shortest(self.out, json);
            }
            _ => self.out.extend_from_slice(b"null"),
        }
        self.cut(start);
    }

    fn names_or_null(&mut self, value: Option<&Value>) {
        let Some(Value::Array(names)) = value else { return self.out.extend_from_slice(b"null") };
        self.out.push(b'[');
        for (at, name) in names.iter().filter_map(Value::as_text).enumerate() {
            if at != 0 {
                self.out.push(b',');
            }
            write_str(self.out, name);
        }
        self.out.push(b']');
    }

    /// Cuts what was written from here on, if it is larger than is taken.
    fn cut(&mut self, start: usize) {
        if self.out.len() - start <= FIELD_BYTES_MAX {
            return;
        }
        let large = String::from_utf8(self.out.split_off(start)).unwrap_or_default();
        write_shrunk(self.out, &large, FIELD_BYTES_MAX);
    }
}

fn write_text_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_str(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_error(out: &mut Vec<u8>, detail: &Detail, facts: &Facts) {
    /// OTLP's status code of a failure.
    const STATUS_ERROR: i32 = 2;
    let failure = facts.error.as_ref();
    if failure.is_none() && detail.status_code != STATUS_ERROR {
        return out.extend_from_slice(b"null");
    }
    let said = failure.map(|failure| &*failure.message).filter(|said| !said.is_empty());
    let kind = failure.and_then(|failure| failure.kind.as_deref());
    out.extend_from_slice(b"{\"message\":");
    write_str(out, said.or(kind).unwrap_or("error"));
    out.extend_from_slice(b",\"data\":");
    match failure.and_then(|failure| failure.data.as_ref()) {
        Some(Payload::Json(json)) if json.trim_ascii_start().starts_with('{') => {
            write_shortest(out, json);
        }
        data => match data.map(|data| ("error", data.as_str())).or(kind.map(|kind| ("type", kind)))
        {
            Some((name, text)) => {
                let mut object = Object::open(out);
                write_str(object.member(name), text);
                object.close();
            }
            None => out.extend_from_slice(b"null"),
        },
    }
    out.push(b'}');
}
